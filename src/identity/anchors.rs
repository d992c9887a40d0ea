//! Which certificate authorities are trusted?

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::anchor_from_trusted_cert;

/// Trust anchors (RFC 5280 section 6): the certificate authorities to which a resolver's certificate must chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchors {
    pub(super) anchors: Arc<[TrustAnchor<'static>]>,
    /// The certificates of the file that the anchors come from; none for the built-in ones.
    certificates: Arc<[CertificateDer<'static>]>,
}

/// Why a PEM file cannot be used as trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchorsError {
    /// The file has no certificate.
    Empty,
    /// A certificate is not valid PEM, for this reason.
    Pem(String),
    /// The certificate with this number, from 1, cannot be parsed, for this reason.
    Certificate(usize, String),
}

impl fmt::Display for TrustAnchorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "there is no certificate in it"),
            Self::Pem(cause) => write!(f, "it is not PEM: {cause}"),
            Self::Certificate(number, cause) => {
                write!(f, "certificate {number} in it cannot be read: {cause}")
            }
        }
    }
}

impl std::error::Error for TrustAnchorsError {}

impl TrustAnchors {
    /// Mozilla's root certificates, as of the build of this program.
    pub fn built_in() -> Self {
        Self {
            anchors: webpki_roots::TLS_SERVER_ROOTS.into(),
            certificates: Arc::new([]),
        }
    }

    /// Reads the certificates of a PEM file, at least one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustAnchorsError> {
        let (mut anchors, mut certificates) = (Vec::new(), Vec::new());
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate =
                certificate.map_err(|error| TrustAnchorsError::Pem(error.to_string()))?;
            let anchor = anchor_from_trusted_cert(&certificate).map_err(|error| {
                TrustAnchorsError::Certificate(anchors.len() + 1, error.to_string())
            })?;
            anchors.push(anchor.to_owned());
            certificates.push(certificate);
        }
        if anchors.is_empty() {
            Err(TrustAnchorsError::Empty)
        } else {
            Ok(Self {
                anchors: anchors.into(),
                certificates: certificates.into(),
            })
        }
    }

    /// Whether this certificate is in the file, octet for octet.
    pub(super) fn contain(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|known| known == certificate)
    }
}
