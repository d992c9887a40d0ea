//! How are the values of options read?
//!
//! Each function parses a text, or returns what was expected.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use rustls::pki_types::ServerName;

use crate::config::options::DEFAULT_ALLOW;
use crate::config::sources::{OptionValues, UsageError};
use crate::identity::anchors::TrustAnchors;
use crate::identity::pin::{Pin, PinError};
use crate::identity::pin_file::resolver_name;
use crate::message::presentation::{Name, NameError};
use crate::system::clock::micros;
use crate::system::privileges;
use crate::system::scoped_address::{ScopedAddress, ScopedAddressError};
use crate::telemetry::metrics;
use crate::upstream::token_bucket::Rate;

/// The port of DNS over TLS (RFC 7858 section 3.1).
const DOT_PORT: u16 = 853;
/// The port of cleartext DNS, on which RFC 7858 section 3.1 forbids DNS over TLS.
const DNS_PORT: u16 = 53;
/// Maximum of `--timeout` and `--slo-latency`.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// A rate limit; `None` (no limit) if `per_second` is 0. `burst` is the number allowed at once.
pub(super) fn rate(per_second: usize, burst: usize) -> Option<Rate> {
    let narrow = |integer_value| u32::try_from(integer_value).unwrap_or(u32::MAX);
    (per_second > 0).then(|| Rate {
        per_second: narrow(per_second),
        burst: narrow(burst),
    })
}

/// A network prefix, or a single address.
pub(super) fn parse_prefix(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            "expected an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32".to_owned()
        })
}

/// What was expected in place of a text that is no address: `expected`, unless the zone is wrong.
pub(super) fn expected_address(error: ScopedAddressError, expected: &str) -> String {
    match error {
        ScopedAddressError::Syntax => expected.to_owned(),
        error => error.to_string(),
    }
}

/// The address of one host, with its zone if it is link-local; the port is `default_port` unless another is given.
pub(super) fn parse_host_address(text: &str, default_port: u16) -> Result<ScopedAddress, String> {
    let address = ScopedAddress::parse(text, default_port).map_err(|error| {
        let expected = format!(
            "expected an address such as 192.0.2.1:{default_port} or [2001:db8::1]:{default_port}"
        );
        expected_address(error, &expected)
    })?;
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST {
        return Err("expected the address of one host such as 192.0.2.1".to_owned());
    }
    match address.port() {
        0 => Err("expected a port from 1 to 65535".to_owned()),
        _ => Ok(address),
    }
}

/// The address of a resolver that is asked over TLS; the port is 853 unless another is given.
pub(super) fn parse_resolver_address(text: &str) -> Result<ScopedAddress, String> {
    let address = parse_host_address(text, DOT_PORT)?;
    match address.port() {
        DNS_PORT => {
            Err("expected another port: 53 is for cleartext DNS (RFC 7858 section 3.1)".to_owned())
        }
        _ => Ok(address),
    }
}

/// Whether an address is of the operator's own network: one of the networks whose clients may ask by default.
pub(super) fn is_own_network(ip: IpAddr) -> bool {
    let networks = DEFAULT_ALLOW
        .iter()
        .filter_map(|prefix| parse_prefix(prefix).ok());
    networks.into_iter().any(|network| network.contains(&ip))
}

/// A zone below the root, in lower case. The placeholder of the help, `ZONE`, is none.
pub(super) fn parse_zone(text: &str) -> Result<Name, String> {
    const EXPECTED: &str = "expected a zone below the root such as corp.example";
    if matches!(text, "." | "ZONE") {
        return Err(EXPECTED.to_owned());
    }
    // What is meant by these is not what the name would be.
    if text.contains(['*', ',']) || text.parse::<IpNet>().is_ok() {
        return Err(format!(
            "{EXPECTED}, without * since it has all names below, one in each value; 192.168.0.0/16 is 168.192.in-addr.arpa"
        ));
    }
    text.to_ascii_lowercase()
        .parse()
        .map_err(|error: NameError| format!("{EXPECTED}; found {error}"))
}

/// A resolver's address and name, `IP[:PORT]#NAME`.
pub(super) fn parse_named_resolver(
    text: &str,
) -> Result<(ScopedAddress, ServerName<'static>), String> {
    let (address, fqdn) = text
        .split_once('#')
        .ok_or("expected IP#NAME or IP:PORT#NAME such as 192.0.2.1#dns.example.net")?;
    Ok((parse_resolver_address(address)?, resolver_name(fqdn)?))
}

/// A pin, with the name of its resolver if there is one, `[NAME=]PIN`.
pub(super) fn parse_named_pin(text: &str) -> Result<(Option<ServerName<'static>>, Pin), String> {
    // Base64 ends in an equals sign, and `pin-sha256=` has one. A name is what comes before the first equals sign otherwise.
    match (text.parse(), text.split_once('=')) {
        (Err(_), Some((name, pin)))
            if name != "pin-sha256" && !pin.trim_matches('=').is_empty() =>
        {
            let pin = pin.parse().map_err(|error: PinError| error.to_string())?;
            Ok((Some(resolver_name(name)?), pin))
        }
        (pin, _) => Ok((None, pin.map_err(|error: PinError| error.to_string())?)),
    }
}

/// The certificates of a PEM file. Fails if there is none.
pub(super) fn read_trust_anchors(path: &str) -> Result<TrustAnchors, String> {
    const EXPECTED: &str = "expected a PEM file with at least one certificate";
    let pem = privileges::read_trusted_file(Path::new(path))
        .map_err(|error| format!("{error}; {EXPECTED}"))?;
    TrustAnchors::from_pem(&pem).map_err(|error| format!("{error}; {EXPECTED}"))
}

/// A whole number in a range.
pub(super) fn parse_integer(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
    match text.parse() {
        Ok(integer_value) if range.contains(&integer_value) => Ok(integer_value),
        _ => Err(format!(
            "expected a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// A number of seconds from `min` to 60, whole or decimal.
pub(super) fn parse_seconds(text: &str, min: Duration) -> Result<Duration, String> {
    match parse_decimal_seconds(text) {
        Some(seconds) if (min..=MAX_TIMEOUT).contains(&seconds) => Ok(seconds),
        _ => {
            let min = metrics::format_seconds(micros(min));
            Err(format!(
                "expected seconds from {min} to 60, such as 3 or 2.5"
            ))
        }
    }
}

/// A number of seconds with at most nine decimals. Not parsed as floating point, which would add more to the binary than all of
/// this file.
pub(super) fn parse_decimal_seconds(text: &str) -> Option<Duration> {
    const DIGITS: usize = 9;
    let (parse_integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let integer_value = |digits: &str| {
        let plain = digits.bytes().all(|octet| octet.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    let nanoseconds = format!("{fraction:0<DIGITS$}");
    let short = fraction.len() <= DIGITS;
    Some(Duration::new(
        integer_value(parse_integer)?,
        short
            .then(|| integer_value(&nanoseconds))?
            .and_then(|nanoseconds| u32::try_from(nanoseconds).ok())?,
    ))
}

/// All values of an option, parsed by `read`.
pub(super) fn option_values<T>(
    options: &OptionValues,
    option: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, UsageError> {
    let mut values = Vec::new();
    options.try_for_each_value(option, &mut |text| {
        values.push(read(text)?);
        Ok(())
    })?;
    Ok(values)
}

/// The value of an option, parsed by `read`, or `None` if it has none.
pub(super) fn optional_value<T>(
    options: &OptionValues,
    option: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, UsageError> {
    let mut value = None;
    options.try_for_each_value(option, &mut |text| {
        value = Some(read(text)?);
        Ok(())
    })?;
    Ok(value)
}

/// The value of an option that has a default, parsed by `read`.
pub(super) fn required_value<T>(
    options: &OptionValues,
    option: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, UsageError> {
    let missing = || UsageError(format!("{option}: expected a value"));
    optional_value(options, option, read)?.ok_or_else(missing)
}

/// The value of an option that has a default and takes a whole number in `range`.
pub(super) fn integer_value(
    options: &OptionValues,
    option: &str,
    range: RangeInclusive<usize>,
) -> Result<usize, UsageError> {
    required_value(options, option, |text| parse_integer(text, &range))
}
