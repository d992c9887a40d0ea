//! Does this answer lead a client into its own network?
//!
//! DNS rebinding: a web page has a name of its own, and the owner of that name lets it point to an address in the network of the reader.
//! The browser then takes a host there for a part of the page, and the page can read what that host answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::message::presentation::Name;
use crate::message::{self, Answer, ZoneMap, question_name};

/// Which questions are protected against DNS rebinding.
#[derive(Debug, Clone, Default)]
pub struct RebindProtection {
    allowed: ZoneMap<()>,
}

impl RebindProtection {
    /// Protects all questions, except for those about names in `allowed` zones.
    pub fn new<'z>(allowed: impl IntoIterator<Item = &'z Name>) -> Self {
        let mut zones = ZoneMap::default();
        for zone in allowed {
            zones.insert(zone.octets(), ());
        }
        Self { allowed: zones }
    }

    /// Whether an answer to `question`, a name with type and class in wire form, may not name private addresses.
    pub fn applies_to(&self, question: &[u8]) -> bool {
        self.allowed.find(question_name(question)).is_none()
    }
}

/// Whether `answer` names a private address, in whatever section.
pub(super) fn names_private_address(answer: &Answer<'_>) -> bool {
    message::addresses(answer).any(is_private)
}

/// Whether no host of the public internet has this address, but one in the client's network or the client itself may have it.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    matches!(
        address.octets(),
        // "This network", whose 0.0.0.0 reaches the own host on many systems (RFC 1122 section 3.2.1.3), and loopback.
        [0 | 127, ..]
            // Private (RFC 1918).
            | [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            // Shared (RFC 6598).
            | [100, 64..=127, ..]
            // Link-local (RFC 3927).
            | [169, 254, ..]
            // Limited broadcast (RFC 919).
            | [255, 255, 255, 255]
    )
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Unspecified and loopback (RFC 4291 sections 2.5.2 and 2.5.3), unique local (RFC 4193), link-local (RFC 4291 section 2.5.6).
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] | [0xfc00..=0xfdff, ..] | [0xfe80..=0xfebf, ..] => true,
        // Site-local: deprecated (RFC 3879), but routers may still take them for local.
        [0xfec0..=0xfeff, ..] => true,
        // An IPv4 address: compatible or mapped (RFC 4291 section 2.5.5), translated by NAT64 (RFC 6052 section 2.1), or in 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => {
            let [[a, b], [c, d]] = [high, low].map(u16::to_be_bytes);
            is_private_v4(Ipv4Addr::new(a, b, c, d))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The first and the last address of each prefix that is private, and their neighbours outside of it.
    const V4_EDGES: [(&str, &str, &str, &str); 7] = [
        ("", "0.0.0.0", "0.255.255.255", "1.0.0.0"),
        ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
        (
            "100.63.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "100.128.0.0",
        ),
        (
            "126.255.255.255",
            "127.0.0.0",
            "127.255.255.255",
            "128.0.0.0",
        ),
        (
            "169.253.255.255",
            "169.254.0.0",
            "169.254.255.255",
            "169.255.0.0",
        ),
        (
            "172.15.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "172.32.0.0",
        ),
        (
            "192.167.255.255",
            "192.168.0.0",
            "192.168.255.255",
            "192.169.0.0",
        ),
    ];

    #[test]
    fn ipv4_prefixes_are_private_up_to_their_edges() {
        for (before, first, last, after) in V4_EDGES {
            // As they are, mapped, and translated.
            for prefix in ["", "::ffff:", "64:ff9b::"] {
                let is_private = |address: &str| is_private(ip(&format!("{prefix}{address}")));
                assert!(is_private(first), "{prefix}{first}");
                assert!(is_private(last), "{prefix}{last}");
                assert!(!is_private(after), "{prefix}{after}");
                assert!(before.is_empty() || !is_private(before), "{prefix}{before}");
            }
        }
    }

    #[test]
    fn ipv6_prefixes_are_private_up_to_their_edges() {
        for private in [
            "::",
            "::1",
            "fc00::",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe80::",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(is_private(ip(private)), "{private}");
        }
        for public in [
            "::1:0:0:1",
            "::8.8.8.8",
            "2002:808:808::1",
            "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe00::",
            "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "ff00::",
            "2001:db8::1",
            // Next to the prefixes that hold IPv4 addresses.
            "::fffe:10.0.0.1",
            "::1:ffff:10.0.0.1",
            "64:ff9a::10.0.0.1",
            "64:ff9b::1:10.0.0.1",
            "64:ff9c::10.0.0.1",
            // The names of RFC 7050 for NAT64.
            "192.0.0.170",
            "64:ff9b::192.0.0.171",
        ] {
            assert!(!is_private(ip(public)), "{public}");
        }
    }

    /// A question of type A for a name, of which each label is a text.
    fn question(name: &str) -> Vec<u8> {
        let mut octets = wire(name);
        octets.extend_from_slice(&[0, 1, 0, 1]);
        octets
    }

    /// A name in wire form.
    fn wire(name: &str) -> Vec<u8> {
        let labels = name.split('.').filter(|label| !label.is_empty());
        let labels = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        labels.chain([0]).collect()
    }

    #[test]
    fn names_in_allowed_zones_may_have_private_addresses() {
        let zones: [Name; 2] =
            ["plex.direct", "Corp.Example.com"].map(|zone| zone.parse().expect("a name"));
        let protection = RebindProtection::new(&zones);
        for allowed in [
            "plex.direct",
            "x.plex.direct",
            "1-2-3-4.Id.PLEX.Direct",
            "corp.example.com",
            "a.b.CORP.example.COM",
        ] {
            assert!(!protection.applies_to(&question(allowed)), "{allowed}");
        }
        for protected in [
            "",
            "direct",
            "xplex.direct",
            "plex.direct.example",
            "example.com",
            "plex.directx",
        ] {
            assert!(protection.applies_to(&question(protected)), "{protected}");
        }
        // One label that looks like two.
        assert!(protection.applies_to(b"\x0bplex.direct\0\0\x01\0\x01"));
        assert!(protection.applies_to(b""));
        assert!(RebindProtection::default().applies_to(&question("plex.direct")));
    }

    /// An answer to `question` with one A record in this section.
    fn answer_in(section: usize, address: [u8; 4]) -> Vec<u8> {
        let mut header = [0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        header[5 + 2 * section] = 1;
        let record = [&[0, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &address].concat();
        [&header[..], &question("www.example"), &record].concat()
    }

    #[test]
    fn one_private_address_in_any_section_is_enough() {
        for section in 1..=3 {
            let private = answer_in(section, [192, 168, 0, 1]);
            let private = Answer::parse(&private).expect("an answer");
            assert!(names_private_address(&private), "section {section}");
            let public = answer_in(section, [192, 0, 2, 1]);
            let public = Answer::parse(&public).expect("an answer");
            assert!(!names_private_address(&public), "section {section}");
        }
    }

    proptest! {
        #[test]
        fn a_mapped_or_translated_address_is_what_the_address_in_it_is(octets: [u8; 4]) {
            let address = Ipv4Addr::from(octets);
            let expected = is_private(address.into());
            prop_assert_eq!(is_private(address.to_ipv6_mapped().into()), expected);
            let [a, b, c, d] = octets.map(u16::from);
            let translated = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d);
            prop_assert_eq!(is_private(translated.into()), expected);
        }

        #[test]
        fn what_the_standard_library_takes_for_private_is_private(address: Ipv4Addr) {
            if address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified() {
                prop_assert!(is_private(address.into()));
            }
        }
    }
}
