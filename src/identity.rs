//! Is this the resolver we mean?
//!
//! Three checks, all of which must hold on every connection: the certificates chain to a trust anchor, AND the resolver's
//! name is among the names of its certificate (RFC 8310 section 8.1: SAN only, never the CN), AND where pins are given,
//! one of them is that of a key on the verified path: the leaf's, an issuer's or the anchor's. A certificate that the
//! resolver merely sends along is on no verified path, so it satisfies no pin.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme, version,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert, spki_for_anchor};

use crate::pin::{Pin, PinSet, write_pins};

/// The protocol that we offer by ALPN: DNS over TLS (IANA's registry of ALPN protocol IDs).
const ALPN: &[u8] = b"dot";
/// How many tickets are kept for resumption, over all addresses of a resolver.
const TICKETS: usize = 16;

/// Whose signature on a certificate is believed.
#[derive(Debug, Clone)]
pub struct Anchors(Arc<[TrustAnchor<'static>]>);

/// Why a text holds no trust anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorsError {
    /// There is no certificate in it.
    Empty,
    /// What begins as a certificate does not go on as PEM.
    Pem(String),
    /// The certificate with this number, counted from 1, is none.
    Certificate(usize, String),
}

impl fmt::Display for AnchorsError {
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

impl std::error::Error for AnchorsError {}

impl Anchors {
    /// Mozilla's roots, as they were when the program was built.
    pub fn built_in() -> Self {
        Self(webpki_roots::TLS_SERVER_ROOTS.into())
    }

    /// The certificates of a PEM file; at least one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AnchorsError> {
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| AnchorsError::Pem(error.to_string()))?;
            let anchor = anchor_from_trusted_cert(&certificate)
                .map_err(|error| AnchorsError::Certificate(anchors.len() + 1, error.to_string()))?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            Err(AnchorsError::Empty)
        } else {
            Ok(Self(anchors.into()))
        }
    }
}

/// A resolver's identity, and the TLS configuration that proves it.
///
/// The tickets for resumption live in the configuration: another name, other anchors or other pins make another
/// identity, which knows no ticket of this one.
#[derive(Debug, Clone)]
pub struct Identity {
    verifier: Arc<Verifier>,
    tls: Arc<ClientConfig>,
}

impl Identity {
    /// The resolver that bears `name`, is vouched for by one of `anchors`, and satisfies `pins`.
    pub fn new(name: ServerName<'static>, anchors: Anchors, pins: PinSet) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier {
            name,
            anchors,
            pins,
            provider: Arc::clone(&provider),
        });
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .expect("ring has cipher suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<_>)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::in_memory_sessions(TICKETS);
        Self {
            verifier,
            tls: Arc::new(tls),
        }
    }

    /// The name that the resolver's certificate must bear.
    pub fn name(&self) -> &ServerName<'static> {
        &self.verifier.name
    }

    /// The pins, one of which must be on the verified path.
    pub fn pins(&self) -> &PinSet {
        &self.verifier.pins
    }

    /// What to connect with. A full handshake under it is verified; a resumed one must be checked by
    /// [`Identity::check`], since no verifier is called for it.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// Holds a certificate chain, leaf first, to name, anchors and pins at the time `now`.
    pub fn check(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Refusal> {
        match chain {
            [leaf, others @ ..] => self.verifier.check(leaf, others, now),
            [] => Err(Refusal::unreadable("no certificate was shown".to_owned())),
        }
    }
}

/// Which of the checks failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No path of valid certificates leads to a trust anchor.
    Chain,
    /// The certificate bears other names.
    Name,
    /// No key on the verified path is pinned.
    Pin,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Name => "name",
            Self::Pin => "pin",
        })
    }
}

/// Why this is not the resolver we mean: which check failed, what was expected and what was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The check that failed.
    pub check: Check,
    /// What would have passed.
    pub expected: String,
    /// How it failed.
    pub cause: String,
    /// The DNS names in the certificate that was shown.
    pub names: Vec<String>,
    /// The pins of the keys that were shown: the leaf's, then those of the verified path where there is one.
    pub pins: Vec<Pin>,
}

impl Refusal {
    fn unreadable(cause: String) -> Self {
        Self {
            check: Check::Chain,
            expected: "a certificate".to_owned(),
            cause,
            names: Vec::new(),
            pins: Vec::new(),
        }
    }
}

impl fmt::Display for Refusal {
    /// As fields of a log line. The names come from a stranger, so they are quoted and escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            expected,
            cause,
            names,
            pins,
        } = self;
        let names = names.join(" ");
        write!(
            f,
            "check={check} cause={cause:?} expected={expected:?} shown_names={names:?} shown_pins=\""
        )?;
        write_pins(f, pins)?;
        f.write_str("\"")
    }
}

impl std::error::Error for Refusal {}

/// The checks, in the form in which rustls calls them.
#[derive(Debug)]
struct Verifier {
    name: ServerName<'static>,
    anchors: Anchors,
    pins: PinSet,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let certificate = EndEntityCert::try_from(leaf)
            .map_err(|error| Refusal::unreadable(error.to_string()))?;
        let refuse = |check, expected: String, cause: String, pins| Refusal {
            check,
            expected,
            cause,
            names: certificate.valid_dns_names().map(str::to_owned).collect(),
            pins,
        };
        // Where several paths lead to an anchor, any one with a pinned key on it will do.
        let unpinned = RefCell::new(None);
        let check_pins = |path: &VerifiedPath<'_>| {
            let keys = keys_of(path);
            if self.pins.accepts(&keys) {
                return Ok(());
            }
            unpinned.borrow_mut().get_or_insert(keys);
            Err(webpki::Error::UnknownIssuer)
        };
        let path = certificate.verify_for_usage(
            self.provider.signature_verification_algorithms.all,
            &self.anchors.0,
            others,
            now,
            KeyUsage::server_auth(),
            None,
            Some(&check_pins),
        );
        let unpinned = unpinned.take();
        let leaf_pin = Pin::of(&certificate.subject_public_key_info());
        if let (Err(error), None) = (&path, &unpinned) {
            let expected = "a chain of valid certificates to a trust anchor".to_owned();
            return Err(refuse(
                Check::Chain,
                expected,
                in_words(error),
                vec![leaf_pin],
            ));
        }
        if certificate
            .verify_is_valid_for_subject_name(&self.name)
            .is_err()
        {
            let cause = "the certificate is for other names".to_owned();
            return Err(refuse(
                Check::Name,
                self.name.to_str().into_owned(),
                cause,
                vec![leaf_pin],
            ));
        }
        if let (Err(_), Some(keys)) = (path, unpinned) {
            let cause = "no key on the verified path is pinned".to_owned();
            return Err(refuse(Check::Pin, self.pins.to_string(), cause, keys));
        }
        Ok(())
    }
}

/// The pins of a verified path, from the leaf to the anchor.
fn keys_of(path: &VerifiedPath<'_>) -> Vec<Pin> {
    let leaf = Pin::of(&path.end_entity().subject_public_key_info());
    let issuers = path
        .intermediate_certificates()
        .map(|issuer| Pin::of(&issuer.subject_public_key_info()));
    let anchor = Pin::of(&spki_for_anchor(path.anchor()));
    std::iter::once(leaf)
        .chain(issuers)
        .chain([anchor])
        .collect()
}

/// The commonest failures of a chain said for people, the others as webpki names them.
fn in_words(error: &webpki::Error) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY;
            format!("a certificate expired {days} days ago by this machine's clock")
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            let days = not_before.as_secs().saturating_sub(time.as_secs()) / DAY;
            format!("a certificate is not valid for another {days} days by this machine's clock")
        }
        webpki::Error::UnknownIssuer => "no issuer of it is trusted".to_owned(),
        webpki::Error::CaUsedAsEndEntity => "it is a CA's or self-signed certificate".to_owned(),
        other => other.to_string(),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.check(end_entity, intermediates, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(CertificateError::Other(OtherError(Arc::new(refusal))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The refusal inside an error of rustls, if it is one of ours.
pub fn refusal_in(error: &rustls::Error) -> Option<&Refusal> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref()
        }
        _ => None,
    }
}
