//! Which address, on which link?
//!
//! A link-local IPv6 address says nothing without its zone (RFC 4007): the network interface that it is on, `fe80::1%eth0`. The zone
//! is kept as it was given, and becomes the index of an interface at each [`ScopedAddress::resolve`]: an interface may come later,
//! and has another index when it comes again.

use std::ffi::CString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::str::FromStr;

use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

/// Octets of the name of an interface, at most (IFNAMSIZ less its final zero).
const MAX_ZONE: usize = 15;

/// Why a text is no address with its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopedAddressError {
    /// It is no address at all.
    Syntax,
    /// A zone on an address that is not link-local.
    ZoneNotAllowed,
    /// A link-local address without a zone.
    ZoneMissing,
    /// A zone that is neither the name of an interface nor a number.
    ZoneSyntax,
}

impl fmt::Display for ScopedAddressError {
    /// What was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "expected an IPv4 or IPv6 address",
            Self::ZoneNotAllowed => {
                "expected no % and zone: only a link-local IPv6 address (fe80::/10) has one"
            }
            Self::ZoneMissing => {
                "expected a link-local address with the interface that it is on, such as fe80::1%eth0"
            }
            Self::ZoneSyntax => {
                "expected the name of an interface after the %, 1 to 15 letters, digits or any of -._~@+, or its index; \
                 with a port, expected brackets as in [fe80::1%eth0]:853"
            }
        })
    }
}

impl std::error::Error for ScopedAddressError {}

/// The zone of a link-local address: the name of an interface, or its index as a decimal number (RFC 4007 section 11.2).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Zone {
    /// ASCII; what is not used is zero.
    octets: [u8; MAX_ZONE],
    length: u8,
}

impl Zone {
    /// Without the characters that Linux forbids (slash, colon, white space), those that end a zone in the texts of options, and those
    /// that mean something in HTML or in a label.
    fn parse(text: &str) -> Option<Self> {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~@+".contains(&octet);
        let mut octets = [0; MAX_ZONE];
        let used = octets.get_mut(..text.len())?;
        used.copy_from_slice(text.as_bytes());
        let is_zone = !text.is_empty() && text.bytes().all(allowed);
        is_zone.then_some(Self {
            octets,
            length: u8::try_from(text.len()).ok()?,
        })
    }

    fn as_str(&self) -> &str {
        let used = self.octets.get(..usize::from(self.length));
        used.and_then(|used| str::from_utf8(used).ok())
            .unwrap_or_default()
    }

    /// The index of the interface. A name goes before a number, as in getaddrinfo(3). Fails with [`ErrorKind::AddrNotAvailable`] if there
    /// is no such interface now.
    fn index(&self) -> io::Result<u32> {
        let missing = match if_nametoindex(self.as_str()) {
            Ok(index) => return Ok(index),
            Err(error) => error,
        };
        if missing != Errno::ENODEV {
            return Err(missing.into());
        }
        match self.as_str().parse() {
            Ok(index) if name_of(index).is_some() => Ok(index),
            _ => Err(io::Error::new(
                ErrorKind::AddrNotAvailable,
                format!("no network interface {}", self.as_str()),
            )),
        }
    }
}

/// The name of the interface with that index, if there is one.
fn name_of(index: u32) -> Option<CString> {
    // Where there is none, nix 0.31 reports an empty name, and no error.
    let name = if_indextoname(index).ok();
    name.filter(|name| !name.is_empty())
}

/// An IP address of one host, with its zone if it is link-local.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ScopedIp {
    ip: IpAddr,
    zone: Option<Zone>,
}

impl ScopedIp {
    /// The address alone. A certificate knows no zones.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    fn new(ip: IpAddr, zone: Option<&str>) -> Result<Self, ScopedAddressError> {
        let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        // Multicast addresses have zones too. They are nobody's address, which the caller says if it matters.
        let may_have_zone = is_link_local || ip.is_ipv6() && ip.is_multicast();
        let zone = match zone {
            Some(_) if !may_have_zone => return Err(ScopedAddressError::ZoneNotAllowed),
            Some(zone) => Some(Zone::parse(zone).ok_or(ScopedAddressError::ZoneSyntax)?),
            None if is_link_local => return Err(ScopedAddressError::ZoneMissing),
            None => None,
        };
        Ok(Self { ip, zone })
    }
}

impl fmt::Display for ScopedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip.fmt(f)?;
        match &self.zone {
            Some(zone) => write!(f, "%{}", zone.as_str()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ScopedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ScopedIp {
    type Err = ScopedAddressError;

    /// Parses an address without a port, such as `192.0.2.1` or `fe80::1%eth0`.
    fn from_str(text: &str) -> Result<Self, ScopedAddressError> {
        let (ip, zone) = match text.split_once('%') {
            Some((ip, zone)) => (ip, Some(zone)),
            None => (text, None),
        };
        let ip = ip.parse().map_err(|_| ScopedAddressError::Syntax)?;
        Self::new(ip, zone)
    }
}

/// The address and port of one host, with the zone of a link-local address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ScopedAddress {
    host: ScopedIp,
    port: u16,
}

impl ScopedAddress {
    /// This port of `host`.
    pub fn new(host: ScopedIp, port: u16) -> Self {
        Self { host, port }
    }

    /// Parses an address, with or without a port: `default_port` then.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, ScopedAddressError> {
        match text.parse() {
            Err(ScopedAddressError::Syntax) => {
                text.parse().map(|host| Self::new(host, default_port))
            }
            parsed => parsed,
        }
    }

    /// The host, without the port.
    pub fn host(&self) -> ScopedIp {
        self.host
    }

    /// The address without its zone.
    pub fn ip(&self) -> IpAddr {
        self.host.ip
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host, with another port.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The address as sockets take it, with the index that its interface has now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AddrNotAvailable`] if there is no such interface, with a text that names it; or what the system says.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        Ok(match (self.host.ip, &self.host.zone) {
            (IpAddr::V6(ip), Some(zone)) => {
                SocketAddrV6::new(ip, self.port, 0, zone.index()?).into()
            }
            (ip, _) => SocketAddr::new(ip, self.port),
        })
    }

    /// Whether this host has a route to the address. Nothing is sent: a UDP socket is only connected. True also if that cannot be said,
    /// such as without the interface of the zone.
    pub fn has_route(&self) -> bool {
        let Ok(address) = self.resolve() else {
            return true;
        };
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let connected = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address));
        let error = connected.err().and_then(|error| error.raw_os_error());
        // The last two: IPv6 is switched off, for all interfaces or in the kernel.
        !matches!(
            error.map(Errno::from_raw),
            Some(
                Errno::ENETUNREACH
                    | Errno::EHOSTUNREACH
                    | Errno::EADDRNOTAVAIL
                    | Errno::EAFNOSUPPORT
            )
        )
    }
}

impl fmt::Display for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(_) => write!(f, "[{}]:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for ScopedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ScopedAddress {
    type Err = ScopedAddressError;

    /// Parses an address with a port, such as `192.0.2.1:853` or `[fe80::1%eth0]:853`.
    fn from_str(text: &str) -> Result<Self, ScopedAddressError> {
        let syntax = ScopedAddressError::Syntax;
        // The zone is taken out, and the standard library reads the rest.
        let (text, zone) = match text.split_once('%') {
            Some((before, rest)) => {
                let (zone, after) = rest.rsplit_once(']').ok_or(syntax)?;
                (format!("{before}]{after}"), Some(zone))
            }
            None => (text.to_owned(), None),
        };
        let address: SocketAddr = text.parse().map_err(|_| syntax)?;
        let host = ScopedIp::new(address.ip(), zone)?;
        Ok(Self::new(host, address.port()))
    }
}

impl From<SocketAddr> for ScopedAddress {
    /// The zone is the name of the interface, or its index if it has none now.
    fn from(address: SocketAddr) -> Self {
        let zone = match address {
            SocketAddr::V6(address) if address.scope_id() != 0 => {
                let index = address.scope_id();
                let name = name_of(index).and_then(|name| Zone::parse(name.to_str().ok()?));
                name.or_else(|| Zone::parse(&index.to_string()))
            }
            _ => None,
        };
        let ip = address.ip();
        Self::new(ScopedIp { ip, zone }, address.port())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use ScopedAddressError::{Syntax, ZoneMissing, ZoneNotAllowed, ZoneSyntax};

    #[test]
    fn loopback_has_a_route_and_a_link_without_that_network_has_none() {
        for (address, expected) in [
            ("127.0.0.1:853", true),
            ("[fe80::db8:2%lo]:853", false),
            ("[fe80::db8:2%not-there]:853", true),
        ] {
            let address: ScopedAddress = address.parse().expect("an address");
            assert_eq!(address.has_route(), expected, "{address}");
        }
    }

    #[test]
    fn an_address_is_printed_as_it_was_given() {
        for text in [
            "192.0.2.1:853",
            "[2001:db8::1]:853",
            "[fe80::1%eth0]:853",
            "[fe80::1%br-lan]:5353",
            "[febf::1%abcdefghijklmno]:1",
            "[fe80::1%2]:853",
            "[fe80::1%eth0.100]:853",
            "[fe80::1%veth@x_~+]:853",
        ] {
            let address: ScopedAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
        for text in ["192.0.2.1", "::", "fe80::1%br-lan", "ff02::1%lo"] {
            let host: ScopedIp = text.parse().expect(text);
            assert_eq!(host.to_string(), text);
        }
    }

    #[test]
    fn a_link_local_address_has_one_zone_and_no_other_address_has_any() {
        for (text, error) in [
            ("fe80::1", ZoneMissing),
            ("febf::", ZoneMissing),
            ("fe80::1%", ZoneSyntax),
            ("fe80::1%a%b", ZoneSyntax),
            ("fe80::1%abcdefghijklmnop", ZoneSyntax),
            ("fe80::1%a/b", ZoneSyntax),
            ("fe80::1%a b", ZoneSyntax),
            ("fe80::1%a\t", ZoneSyntax),
            ("fe80::1%eth0:853", ZoneSyntax),
            ("fe80::1%é", ZoneSyntax),
            ("fe80::1%a]", ZoneSyntax),
            ("fe80::1%<b>", ZoneSyntax),
            ("fe80::1%\0", ZoneSyntax),
            ("2001:db8::1%eth0", ZoneNotAllowed),
            ("fec0::1%eth0", ZoneNotAllowed),
            ("::1%lo", ZoneNotAllowed),
            ("192.0.2.1%eth0", ZoneNotAllowed),
            ("169.254.0.1%eth0", ZoneNotAllowed),
            ("::ffff:224.0.0.1%eth0", ZoneNotAllowed),
            ("2001:db8::1%", ZoneNotAllowed),
            ("", Syntax),
            ("%eth0", Syntax),
            ("one.one%eth0", Syntax),
            ("[fe80::1%eth0]", Syntax),
        ] {
            assert_eq!(text.parse::<ScopedIp>(), Err(error), "{text:?}");
            assert_eq!(ScopedAddress::parse(text, 853), Err(error), "{text:?}");
        }
        for (text, error) in [
            ("[fe80::1]:853", ZoneMissing),
            ("[fe80::1%]:853", ZoneSyntax),
            ("[fe80::1%a%b]:853", ZoneSyntax),
            ("[fe80::1%a]b]:853", ZoneSyntax),
            ("[fe80::1%eth0]:853]:853", ZoneSyntax),
            ("[fe80::1%abcdefghijklmnop]:853", ZoneSyntax),
            ("[2001:db8::1%eth0]:853", ZoneNotAllowed),
            ("[::1%1]:853", ZoneNotAllowed),
        ] {
            assert_eq!(text.parse::<ScopedAddress>(), Err(error), "{text:?}");
        }
        for text in [
            "fe80::1%eth0",
            "[fe80::1%eth0]853",
            "[fe80::1%eth0]:65536",
            "[fe80::1%eth0]:",
            "[fe80::1%eth0",
            "fe80::1%eth0]:853",
            "[fe80::1]%eth0:853",
        ] {
            assert_eq!(text.parse::<ScopedAddress>(), Err(Syntax), "{text:?}");
        }
    }

    #[test]
    fn each_error_is_one_line_that_says_what_was_expected() {
        for error in [Syntax, ZoneMissing, ZoneNotAllowed, ZoneSyntax] {
            let text = error.to_string();
            assert!(text.starts_with("expected"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn a_zone_is_the_interface_of_that_name_or_number_when_it_is_needed() {
        let parse = |text: &str| text.parse::<ScopedAddress>().expect("an address");
        let lo = parse("[fe80::1%lo]:853");
        let found = lo.resolve().expect("every Linux has lo");
        let SocketAddr::V6(address) = found else {
            panic!("{found}")
        };
        assert_eq!(address.ip().to_string(), "fe80::1");
        assert_eq!(address.port(), 853);
        assert_ne!(address.scope_id(), 0);
        let by_number = parse(&format!("[fe80::1%{}]:853", address.scope_id()));
        assert_eq!(by_number.resolve().expect("an index of lo"), found);
        assert_eq!(ScopedAddress::from(found), lo);
        for zone in ["not-there", "4294967295", "4294967296", "0", "-1", "."] {
            let error = parse(&format!("[fe80::1%{zone}]:853")).resolve();
            let error = error.expect_err("no interface");
            assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
            assert_eq!(error.to_string(), format!("no network interface {zone}"));
        }
    }

    #[test]
    fn an_address_without_a_zone_is_what_it_was() {
        for text in ["192.0.2.1:853", "[2001:db8::1]:853", "[::]:0"] {
            let address: SocketAddr = text.parse().expect("an address");
            let scoped: ScopedAddress = text.parse().expect("an address");
            assert_eq!(scoped.resolve().expect("no interface in it"), address);
            assert_eq!(ScopedAddress::from(address), scoped);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_the_same(
            groups in any::<[u16; 8]>(),
            kind in 0..4_u8,
            zone in "[a-zA-Z0-9._~@+-]{1,15}",
            port: u16,
        ) {
            let ip = Ipv6Addr::from(groups);
            let (ip, zone) = match kind {
                0 => (IpAddr::V4(Ipv4Addr::from(u32::from(groups[0]) << 16 | u32::from(groups[1]))), None),
                1 if !ip.is_unicast_link_local() => (IpAddr::V6(ip), None),
                _ => {
                    let mut groups = groups;
                    groups[0] = 0xfe80 | groups[0] & 0x3f;
                    (IpAddr::V6(groups.into()), Some(zone))
                }
            };
            let host = ScopedIp::new(ip, zone.as_deref()).expect("an address and its zone");
            prop_assert_eq!(host.to_string().parse(), Ok(host));
            let address = ScopedAddress::new(host, port);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
            prop_assert_eq!(ScopedAddress::parse(&address.to_string(), 1), Ok(address));
            prop_assert_eq!(ScopedAddress::parse(&host.to_string(), port), Ok(address));
        }

        #[test]
        fn no_text_is_read_that_is_printed_otherwise(text in "(\\[)?(fe80::1|::1|192\\.0\\.2\\.1)(%[ -~]{0,16})?(\\])?(:853)?") {
            if let Ok(host) = text.parse::<ScopedIp>() {
                prop_assert_eq!(host.to_string(), text.clone());
            }
            if let Ok(address) = text.parse::<ScopedAddress>() {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
