//! What is in a certificate?
//!
//! Subject, issuer, validity and names, for people and for expiry dates. Nothing here verifies a certificate: [`crate::identity::chain`]
//! does that. The library `x509-cert` takes a certificate apart. Its names are written here: the library would write their parts in
//! reverse order, and in hexadecimal where an older certificate has a BMPString, or a TeletexString that is not ASCII.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::TagNumber;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::name::Name;

/// Names of a certificate that are shown, at most, and the characters that are shown of each.
const MAX_NAMES: usize = 8;
const MAX_NAME_LEN: usize = 128;
/// The extension subjectAltName (RFC 5280 section 4.2.1.6), and its kinds of names that a server has: dNSName and iPAddress.
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const DNS_NAME: TagNumber = TagNumber(2);
const IP_ADDRESS: TagNumber = TagNumber(7);
/// The attribute commonName of a distinguished name.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

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

/// The names that a certificate bears, so that people recognize whose it is: its DNS names and IP addresses or, if it has none, its
/// common name as `CN=name`. Empty if the certificate cannot be parsed.
///
/// The names come from the network. At most eight are returned, of 128 characters each, and then how many there are beyond; characters
/// that a log or a terminal could take for something else are replaced by `?`.
pub fn shown_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = CertificateInner::<Raw>::from_der(certificate) else {
        return Vec::new();
    };
    let fields = certificate.tbs_certificate();
    let extensions = fields.extensions().map_or(&[][..], Vec::as_slice);
    let alternatives = extensions
        .iter()
        .find(|extension| extension.extn_id == SUBJECT_ALT_NAME)
        .and_then(|extension| Vec::<Any>::from_der(extension.extn_value.as_bytes()).ok())
        .unwrap_or_default();
    let mut names = alternatives.iter().filter_map(server_name);
    let mut shown: Vec<String> = names.by_ref().take(MAX_NAMES).collect();
    let others = names.count();
    if others > 0 {
        shown.push(format!("and {others} more"));
    }
    if shown.is_empty() {
        let mut attributes = fields.subject().iter();
        let common_name = attributes.find(|attribute| attribute.oid == COMMON_NAME);
        shown.extend(common_name.map(|name| {
            let name = printable(&decode_string(&name.value), |character| character == ' ');
            format!("CN={name}")
        }));
    }
    shown
}

/// A DNS name or an IP address among the alternative names, in printable characters. None for names of other kinds.
fn server_name(name: &Any) -> Option<String> {
    let octets = name.value();
    match name.tag() {
        Tag::ContextSpecific { number, .. } if number == DNS_NAME => {
            Some(printable(&String::from_utf8_lossy(octets), |_| false))
        }
        Tag::ContextSpecific { number, .. } if number == IP_ADDRESS => {
            let address = <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let address = address.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from));
            Some(address.map_or_else(|_| "?".to_owned(), |address| address.to_string()))
        }
        _ => None,
    }
}

/// The start of a text. Letters, digits and ASCII signs stay, except quotes and backslashes, and characters that `is_allowed` names.
fn printable(text: &str, is_allowed: impl Fn(char) -> bool) -> String {
    let stays = |character: char| {
        let is_sign = character.is_ascii_graphic() && !matches!(character, '"' | '\\');
        is_sign || character.is_alphanumeric() || is_allowed(character)
    };
    let mut characters = text.chars();
    let start = characters.by_ref().take(MAX_NAME_LEN);
    let mut shown: String = start
        .map(|character| if stays(character) { character } else { '?' })
        .collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
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
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType, SerialNumber,
        date_time_ymd,
    };
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

    fn named(names: &[&str], common_name: Option<&str>) -> CertificateDer<'static> {
        certificate(|params| {
            let names = names.iter().map(|name| match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().expect("ASCII")),
            });
            params.subject_alt_names = names.collect();
            params.distinguished_name = DistinguishedName::new();
            if let Some(name) = common_name {
                params.distinguished_name.push(DnType::CommonName, name);
            }
        })
    }

    #[test]
    fn names_are_shown_and_the_common_name_only_where_there_are_no_others() {
        let several = ["*.portal.example", "192.0.2.1", "2001:db8::1"];
        assert_eq!(shown_names(&named(&several, Some("other"))), several);
        let portal = named(&[], Some("Hôtel Wi-Fi, login"));
        assert_eq!(shown_names(&portal), ["CN=Hôtel Wi-Fi, login"]);
        assert!(shown_names(&named(&[], None)).is_empty());
        assert!(shown_names(&CertificateDer::from(&b"none"[..])).is_empty());
        let mail = certificate(|params| {
            let mail = "who@example.com".try_into().expect("ASCII");
            params.subject_alt_names = vec![SanType::Rfc822Name(mail)];
        });
        assert_eq!(shown_names(&mail), ["CN=rcgen self signed cert"]);
    }

    #[test]
    fn names_of_strangers_are_bounded_and_safe_to_print() {
        let many: Vec<String> = (0..3000)
            .map(|number| format!("n{number}.example"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let shown = shown_names(&named(&many, None));
        assert_eq!(shown.len(), MAX_NAMES + 1);
        assert_eq!((&*shown[0], &*shown[8]), ("n0.example", "and 2992 more"));
        let hostile = "a\x1b[2Jb\nevent=x\r\0\"\\ c\u{7f}";
        assert_eq!(
            shown_names(&named(&[hostile], None)),
            ["a?[2Jb?event=x?????c?"]
        );
        let turned = "left\u{202e}right\u{200b}\n";
        assert_eq!(shown_names(&named(&[], Some(turned))), ["CN=left?right??"]);
        let long = shown_names(&named(&[&"x".repeat(5000)], None));
        assert_eq!(long, [format!("{}...", "x".repeat(MAX_NAME_LEN))]);
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
                let changed = CertificateDer::from(changed);
                let _ = CertificateInfo::read(&changed);
                assert!(shown_names(&changed).len() <= MAX_NAMES + 1);
            }
        }
    }
}
