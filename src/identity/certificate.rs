//! What is in a certificate?
//!
//! Subject, issuer and validity, for people and for expiry dates. Nothing here verifies a certificate: [`crate::identity::chain`]
//! does that. A parser of our own, since an X.509 library would add 180 KB to the binary for these four fields. Parts that it
//! does not understand are left out.

use rustls::pki_types::CertificateDer;

use crate::system::date;

/// Subject, issuer and validity of a certificate. The names come from the network and may hold control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject, as `C=XX, O=Example, CN=dns.example`, in the order of the certificate.
    pub subject: String,
    /// The issuer, in the same form.
    pub issuer: String,
    /// The first second of validity, in seconds since 1970, UTC; 0 for any time before.
    pub not_before: u64,
    /// The last second of validity, in seconds since 1970, UTC.
    pub not_after: u64,
}

impl CertificateInfo {
    /// Parses a certificate (RFC 5280 section 4.1). None if it cannot be parsed.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let mut fields = Der(certificate)
            .enter(tag::SEQUENCE)?
            .enter(tag::SEQUENCE)?;
        if fields.0.first() == Some(&tag::VERSION) {
            fields.next()?;
        }
        let (_serial, _algorithm) = (fields.next()?, fields.next()?);
        let issuer = distinguished_name(fields.enter(tag::SEQUENCE)?)?;
        let mut validity = fields.enter(tag::SEQUENCE)?;
        let (not_before, not_after) =
            (parse_time(validity.next()?)?, parse_time(validity.next()?)?);
        let subject = distinguished_name(fields.enter(tag::SEQUENCE)?)?;
        Some(Self {
            subject,
            issuer,
            not_before,
            not_after,
        })
    }
}

/// DER tags (ITU-T X.690 section 8.1.2).
mod tag {
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const TELETEX_STRING: u8 = 0x14;
    pub(super) const BMP_STRING: u8 = 0x1e;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;
}

/// A sequence of DER elements that is read from its beginning.
#[derive(Clone, Copy)]
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// Takes the next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // A length in one octet or in two: no element that is read here has 64 KB.
            0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
            0x82 => {
                let (octets, rest) = rest.split_first_chunk()?;
                (usize::from(u16::from_be_bytes(*octets)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Takes the next element, which must have this tag, and returns the elements inside it.
    fn enter(&mut self, tag: u8) -> Option<Self> {
        let (found, content) = self.next()?;
        (found == tag).then_some(Self(content))
    }
}

/// Writes a distinguished name (RFC 5280 section 4.1.2.4).
fn distinguished_name(mut sets: Der<'_>) -> Option<String> {
    let mut parts = Vec::new();
    while !sets.0.is_empty() {
        let mut attributes = sets.enter(tag::SET)?;
        while !attributes.0.is_empty() {
            let mut attribute = attributes.enter(tag::SEQUENCE)?;
            let kind = attribute.enter(tag::OBJECT_IDENTIFIER)?.0;
            let (tag, value) = attribute.next()?;
            parts.push(format!(
                "{}={}",
                attribute_name(kind),
                decode_string(tag, value)
            ));
        }
    }
    Some(parts.join(", "))
}

/// The short name of an attribute type (RFC 4519), or `#` and its identifier in hexadecimal for less common ones.
fn attribute_name(identifier: &[u8]) -> String {
    match identifier {
        // 2.5.4: attribute types of X.520.
        [0x55, 4, 3] => "CN".to_owned(),
        [0x55, 4, 5] => "serialNumber".to_owned(),
        [0x55, 4, 6] => "C".to_owned(),
        [0x55, 4, 7] => "L".to_owned(),
        [0x55, 4, 8] => "ST".to_owned(),
        [0x55, 4, 9] => "street".to_owned(),
        [0x55, 4, 10] => "O".to_owned(),
        [0x55, 4, 11] => "OU".to_owned(),
        _ => {
            let octets = identifier.iter().map(|octet| format!("{octet:02x}"));
            format!("#{}", octets.collect::<String>())
        }
    }
}

/// Decodes a string by its tag. Octets that are not valid are replaced.
fn decode_string(tag: u8, octets: &[u8]) -> String {
    match tag {
        tag::BMP_STRING => {
            let (units, _) = octets.as_chunks();
            let units: Vec<_> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16_lossy(&units)
        }
        tag::TELETEX_STRING => octets.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(octets).into_owned(),
    }
}

/// Parses a time into seconds since 1970, 0 for any time before. It is always UTC and to the second (RFC 5280 section 4.1.2.5).
fn parse_time((tag, octets): (u8, &[u8])) -> Option<u64> {
    let text = str::from_utf8(octets).ok()?;
    let (year, rest) = match tag {
        tag::UTC_TIME => {
            let (short, rest) = text.split_at_checked(2)?;
            let century = if short < "50" { "20" } else { "19" };
            (format!("{century}{short}"), rest)
        }
        tag::GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.to_owned(), rest)
        }
        _ => return None,
    };
    if year.as_str() < "1970" {
        return Some(0);
    }
    let part = |at: usize| rest.get(at..at + 2);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    let written = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
    let (time, _) = date::parse(&written)?;
    (rest.get(10..) == Some("Z")).then_some(time)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, date_time_ymd};
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["dns.example".to_owned()]).expect("a name");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signs").der().clone()
    }

    #[test]
    fn names_and_dates_are_read_as_another_library_reads_them() {
        let dated = |from: (i32, u8, u8), until: (i32, u8, u8)| {
            certificate(|params| {
                params.not_before = date_time_ymd(from.0, from.1, from.2);
                params.not_after = date_time_ymd(until.0, until.1, until.2);
            })
        };
        let named = |kind: DnType, value: DnValue| {
            certificate(|params| {
                params.distinguished_name.push(DnType::CountryName, "XX");
                params.distinguished_name.push(kind, value);
            })
        };
        let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
        let samples = [
            dated((1999, 12, 31), (2049, 12, 31)),
            dated((1970, 1, 1), (2050, 1, 1)),
            dated((2024, 2, 29), (9999, 12, 31)),
            named(DnType::OrganizationName, utf8("Müller, Söhne + Co.")),
            named(DnType::OrganizationalUnitName, utf8("")),
            named(DnType::StateOrProvinceName, utf8("CN=other")),
            named(DnType::LocalityName, utf8(&"x".repeat(300))),
        ];
        for sample in &samples {
            let info = CertificateInfo::read(sample).expect("a certificate");
            let (_, oracle) = X509Certificate::from_der(sample).expect("a certificate");
            assert_eq!(info.subject, oracle.subject().to_string());
            assert_eq!(info.issuer, oracle.issuer().to_string());
            let validity = oracle.validity();
            let seconds = |moment: u64| i64::try_from(moment).expect("a time");
            assert_eq!(seconds(info.not_before), validity.not_before.timestamp());
            assert_eq!(seconds(info.not_after), validity.not_after.timestamp());
        }
    }

    #[test]
    fn odd_strings_attributes_and_times_are_read_for_what_they_are() {
        assert_eq!(decode_string(tag::BMP_STRING, b"\0d\0\xfc"), "dü");
        assert_eq!(decode_string(tag::TELETEX_STRING, b"d\xfc"), "dü");
        assert_eq!(decode_string(0x0c, b"d\xff"), "d\u{fffd}");
        assert_eq!(attribute_name(&[0x55, 4, 0x61]), "#550461");
        let time = |text: &[u8]| parse_time((tag::UTC_TIME, text));
        assert_eq!(time(b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(time(b"500101000000Z"), Some(0), "1950");
        for broken in [
            &b""[..],
            b"Z",
            b"2611240000Z",
            b"261124000000+0100",
            b"261324000000Z",
        ] {
            assert_eq!(time(broken), None, "{broken:?}");
        }
        assert_eq!(parse_time((0x0c, b"261124000000Z")), None);
    }

    #[test]
    fn what_is_cut_or_changed_is_read_without_a_panic() {
        let whole = certificate(|_| {});
        for end in 0..whole.len() {
            let cut = CertificateDer::from(&whole[..end]);
            // The outermost length says that something is missing.
            assert_eq!(CertificateInfo::read(&cut), None);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.to_vec();
                changed[at] ^= 1 << bit;
                let _ = CertificateInfo::read(&CertificateDer::from(changed));
            }
        }
    }
}
