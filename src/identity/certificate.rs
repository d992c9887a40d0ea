//! What is in a certificate?
//!
//! Subject, issuer and validity, for people and for expiry dates. Nothing here verifies a certificate: [`crate::identity::chain`]
//! does that. The library `x509-cert` takes a certificate apart. Its names are written here: the library would write their parts in
//! reverse order, and in hexadecimal where an older certificate has a BMPString, or a TeletexString that is not ASCII.

use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::name::Name;

/// Subject, issuer and validity of a certificate. The names come from the network and may hold control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject, as `C=XX, O=Example, CN=dns.example`, in the order of the certificate.
    pub subject: String,
    /// The issuer, in the same form.
    pub issuer: String,
    /// The first second of validity, in seconds since 1970, UTC.
    pub not_before: u64,
    /// The last second of validity, in seconds since 1970, UTC.
    pub not_after: u64,
}

impl CertificateInfo {
    /// Parses a certificate (RFC 5280 section 4.1). None if it cannot be parsed, or if a date in it is from before 1970, with which
    /// no certificate is verified either.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        // Raw: some authorities issue serial numbers of more than 20 octets, which does not matter here.
        let certificate = CertificateInner::<Raw>::from_der(certificate).ok()?;
        let fields = certificate.tbs_certificate();
        let validity = fields.validity();
        Some(Self {
            subject: distinguished_name(fields.subject()),
            issuer: distinguished_name(fields.issuer()),
            not_before: validity.not_before.to_unix_duration().as_secs(),
            not_after: validity.not_after.to_unix_duration().as_secs(),
        })
    }
}

/// Writes a distinguished name (RFC 5280 section 4.1.2.4).
fn distinguished_name(name: &Name) -> String {
    let parts = name.iter().map(|attribute| {
        let kind = attribute_name(&attribute.oid);
        format!("{kind}={}", decode_string(&attribute.value))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// The short name of an attribute type (RFC 4519), or `#` and its identifier in hexadecimal for less common ones.
fn attribute_name(identifier: &ObjectIdentifier) -> String {
    match identifier.as_bytes() {
        // 2.5.4: attribute types of X.520.
        [0x55, 4, 3] => "CN".to_owned(),
        [0x55, 4, 5] => "serialNumber".to_owned(),
        [0x55, 4, 6] => "C".to_owned(),
        [0x55, 4, 7] => "L".to_owned(),
        [0x55, 4, 8] => "ST".to_owned(),
        [0x55, 4, 9] => "street".to_owned(),
        [0x55, 4, 10] => "O".to_owned(),
        [0x55, 4, 11] => "OU".to_owned(),
        octets => {
            let octets = octets.iter().map(|octet| format!("{octet:02x}"));
            format!("#{}", octets.collect::<String>())
        }
    }
}

/// Decodes a string by its type. Octets that are not valid are replaced.
fn decode_string(value: &Any) -> String {
    let octets = value.value();
    match value.tag() {
        Tag::BmpString => {
            let (units, _) = octets.as_chunks();
            let units: Vec<_> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16_lossy(&units)
        }
        Tag::TeletexString => octets.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(octets).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SerialNumber, date_time_ymd};
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
            certificate(|params| params.serial_number = Some(SerialNumber::from_slice(&[1; 40]))),
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
    fn odd_strings_and_attributes_are_read_for_what_they_are() {
        let decoded = |tag, octets| decode_string(&Any::new(tag, octets).expect("a string"));
        assert_eq!(decoded(Tag::BmpString, &b"\0d\0\xfc"[..]), "dü");
        assert_eq!(decoded(Tag::TeletexString, &b"d\xfc"[..]), "dü");
        assert_eq!(decoded(Tag::Utf8String, &b"d\xff"[..]), "d\u{fffd}");
        let name = attribute_name(&ObjectIdentifier::new_unwrap("2.5.4.97"));
        assert_eq!(name, "#550461");
    }

    #[test]
    fn a_date_that_is_none_is_refused() {
        let whole = certificate(|params| params.not_after = date_time_ymd(2026, 11, 24));
        let date = b"261124000000Z";
        let at = whole.windows(date.len()).position(|octets| octets == date);
        let at = at.expect("the date");
        let until = |date: &[u8; 13]| {
            let mut changed = whole.to_vec();
            changed[at..at + date.len()].copy_from_slice(date);
            CertificateInfo::read(&changed.into()).map(|info| info.not_after)
        };
        assert_eq!(until(b"491231235959Z"), Some(2_524_607_999));
        for broken in [
            b"261324000000Z",
            b"261124240000Z",
            b"2611240000+01",
            b"2611240000  Z",
            b"500101000000Z",
        ] {
            assert_eq!(until(broken), None, "{broken:?}");
        }
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
