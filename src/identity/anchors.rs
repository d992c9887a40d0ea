//! Which certificate authorities are trusted?

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::anchor_from_trusted_cert;

/// Maximum number of skipped certificates that are kept, to be named.
const MAX_NAMED: usize = 5;
/// What the first line of a PEM section begins with (RFC 7468).
const SECTION_START: &[u8] = b"-----BEGIN ";

/// Trust anchors (RFC 5280 section 6): the certificate authorities to which a resolver's certificate must chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors {
    pub(super) anchors: Arc<[TrustAnchor<'static>]>,
    /// The certificates of the file that the anchors come from; none for the built-in ones.
    certificates: Arc<[CertificateDer<'static>]>,
    skipped: Arc<SkippedCertificates>,
}

/// The certificates of a PEM file that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedCertificates {
    /// The first ones: at most five.
    pub first: Vec<SkippedCertificate>,
    /// The number of the others.
    pub others: usize,
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedCertificate {
    /// Its number among the certificates of the file, from 1.
    pub number: usize,
    /// The number of its first line, from 1.
    pub line: usize,
    /// Why it cannot be read.
    pub cause: String,
}

impl fmt::Display for SkippedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            line,
            cause,
        } = self;
        write!(
            f,
            "certificate {number}, in line {line}, cannot be read: {cause}"
        )
    }
}

/// Why a PEM file cannot be used as trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchorsError {
    /// The file has no certificate.
    Empty,
    /// None of the file's certificates can be read. This is the first one.
    NoneReadable(SkippedCertificate),
}

impl fmt::Display for TrustAnchorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "there is no certificate in it"),
            Self::NoneReadable(first) => first.fmt(f),
        }
    }
}

impl std::error::Error for TrustAnchorsError {}

impl SkippedCertificates {
    fn push(&mut self, skipped: SkippedCertificate) {
        if self.first.len() < MAX_NAMED {
            self.first.push(skipped);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }
}

impl TrustAnchors {
    /// Mozilla's root certificates, as of the build of this program.
    pub fn built_in() -> Self {
        Self {
            anchors: webpki_roots::TLS_SERVER_ROOTS.into(),
            certificates: Arc::new([]),
            skipped: Arc::default(),
        }
    }

    /// Reads the certificates of a PEM file. Those that cannot be read are skipped. Fails if none is left.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustAnchorsError> {
        let (mut anchors, mut certificates) = (Vec::new(), Vec::new());
        let mut skipped = SkippedCertificates::default();
        let mut number = 0;
        for (line, section) in sections(pem) {
            let read = match CertificateDer::from_pem_slice(section) {
                // A key, or whatever else is in the file.
                Err(pem::Error::NoItemsFound) => continue,
                Ok(certificate) => anchor_from_trusted_cert(&certificate)
                    .map(|anchor| anchor.to_owned())
                    .map(|anchor| (anchor, certificate.clone()))
                    .map_err(|error| error.to_string()),
                Err(_) if !has_certificate(section) => continue,
                Err(error) => Err(format!("it is not PEM: {error}")),
            };
            number += 1;
            match read {
                Ok((anchor, certificate)) => {
                    anchors.push(anchor);
                    certificates.push(certificate);
                }
                Err(cause) => skipped.push(SkippedCertificate {
                    number,
                    line,
                    cause,
                }),
            }
        }
        if anchors.is_empty() {
            let first = skipped.first.into_iter().next();
            return Err(first.map_or(TrustAnchorsError::Empty, TrustAnchorsError::NoneReadable));
        }
        Ok(Self {
            anchors: anchors.into(),
            certificates: certificates.into(),
            skipped: Arc::new(skipped),
        })
    }

    /// The certificates of the file that cannot be read.
    pub fn skipped(&self) -> &SkippedCertificates {
        &self.skipped
    }

    /// Whether this certificate is in the file, octet for octet.
    pub(super) fn contain(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|known| known == certificate)
    }
}

/// The sections of a PEM file, each with the number of its first line, from 1. A section ends where the next one begins, so one without an
/// end does not spoil the next.
fn sections(pem: &[u8]) -> Vec<(usize, &[u8])> {
    let mut starts = Vec::new();
    let (mut number, mut offset) = (1, 0);
    for line in pem.split(|octet| matches!(octet, b'\n' | b'\r')) {
        if line.starts_with(SECTION_START) {
            starts.push((number, offset));
        }
        offset += line.len();
        number += usize::from(pem.get(offset) == Some(&b'\n'));
        offset += 1;
    }
    let ends = starts.iter().skip(1).map(|(_, start)| *start);
    let ends = ends.chain([pem.len()]);
    let sections = starts.iter().zip(ends);
    sections
        .filter_map(|(&(line, start), end)| Some((line, pem.get(start..end)?)))
        .collect()
}

/// Whether a section that is not sound PEM says that it has a certificate.
fn has_certificate(section: &[u8]) -> bool {
    let label = section.strip_prefix(SECTION_START);
    label.is_some_and(|label| label.starts_with(b"CERTIFICATE-"))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
    const END: &str = "-----END CERTIFICATE-----\n";

    fn authority() -> String {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(root, key).expect("signs");
        root.pem().replace("\r\n", "\n")
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_skipped_and_the_others_count() {
        let (one, other) = (authority(), authority());
        let lines_of_one = one.lines().count();
        for (broken, cause) in [
            (format!("{BEGIN}AAAA\n{END}"), ""),
            (format!("{BEGIN}!\n{END}"), "it is not PEM"),
            (BEGIN.to_owned(), "it is not PEM"),
            (format!("{BEGIN}AAAA\n"), "it is not PEM"),
            ("-----BEGIN CERTIFICATE----\n".to_owned(), "it is not PEM"),
        ] {
            let pem = format!("{one}a comment\n{broken}{other}");
            let anchors = TrustAnchors::from_pem(pem.as_bytes()).expect("two are left");
            assert_eq!(anchors.anchors.len(), 2, "{broken}");
            let [skipped] = &anchors.skipped().first[..] else {
                panic!("{broken}: {:?}", anchors.skipped())
            };
            let place = (skipped.number, skipped.line);
            assert_eq!(place, (2, lines_of_one + 2), "{broken}");
            assert!(skipped.cause.starts_with(cause), "{skipped}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_passed_over_and_windows_lines_are_read() {
        let key = KeyPair::generate().expect("a key").serialize_pem();
        let broken_key = "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n";
        let pem = format!("# mine\n{key}{broken_key}{}", authority());
        for pem in [pem.replace('\n', "\r\n"), pem.replace('\n', "\r"), pem] {
            let anchors = TrustAnchors::from_pem(pem.as_bytes()).expect("one");
            assert_eq!(anchors.anchors.len(), 1);
            assert_eq!(anchors.skipped(), &SkippedCertificates::default());
        }
    }

    #[test]
    fn without_a_certificate_that_can_be_read_it_is_an_error() {
        let error = |pem: &str| {
            let error = TrustAnchors::from_pem(pem.as_bytes()).expect_err("nothing to trust");
            error.to_string()
        };
        assert_eq!(error(""), "there is no certificate in it");
        assert_eq!(error("text\n"), "there is no certificate in it");
        let broken = format!("text\n{BEGIN}AAAA\n{END}");
        let first = error(&broken.repeat(9));
        assert!(
            first.starts_with("certificate 1, in line 2, cannot be read: "),
            "{first}"
        );
        let pem = broken.repeat(9) + &authority();
        let anchors = TrustAnchors::from_pem(pem.as_bytes()).expect("one is left");
        let skipped = anchors.skipped();
        assert_eq!((skipped.first.len(), skipped.others), (MAX_NAMED, 4));
    }
}
