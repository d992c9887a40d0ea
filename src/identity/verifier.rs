//! Is this the resolver we mean?
//!
//! Three checks, all of which must hold on every connection: the certificates chain to a trust anchor, AND the resolver's
//! name is among the names of its certificate (RFC 8310 section 8.1: SAN only, never the CN), AND where pins are given,
//! one of them is that of a key on the verified path: the leaf's, an issuer's or the anchor's. A certificate that the
//! resolver merely sends along is on no verified path, so it satisfies no pin.
//!
//! Certificates are judged by the clock of this machine. Where that is known to be wrong, since it shows a time before the
//! program was built, or before one that is remembered, the pins stand in for it: with one that fits, certificates are judged
//! at the earliest time that it can be.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, KeyProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme, version,
};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, anchor_from_trusted_cert, spki_for_anchor};

use crate::identity::pin::{Fit, Pin, PinSet, write_pins};
use crate::system::date::{DAY, Moment};

/// The protocol that we offer by ALPN: DNS over TLS (IANA's registry of ALPN protocol IDs).
const ALPN: &[u8] = b"dot";
/// How many tickets are kept for resumption, over all addresses of a resolver.
const TICKETS: usize = 16;

/// Whose signature on a certificate is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What becomes of a resolver none of whose keys is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinMode {
    /// It is refused.
    Strict,
    /// It is taken on chain and name alone, and the session is counted and logged: for trying pins out.
    Report,
}

/// What a resolver must show.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The name that its certificate must bear.
    pub name: ServerName<'static>,
    /// Who may vouch for it.
    pub anchors: Anchors,
    /// The pins, one of which must be on the verified path; none for any key.
    pub pins: PinSet,
    /// What becomes of it where none is.
    pub pin_mode: PinMode,
    /// Before this moment, in seconds since 1970, it cannot be: a clock that is a day or more behind it is wrong.
    pub clock_floor: u64,
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
    /// The resolver that fulfils `terms`.
    pub fn new(terms: Terms) -> Self {
        let provider = Arc::new(CryptoProvider {
            key_provider: &NoKeys,
            ..rustls::crypto::ring::default_provider()
        });
        let verifier = Arc::new(Verifier {
            terms,
            provider: Arc::clone(&provider),
            onlooking: false,
        });
        let tls = configuration(&verifier, Resumption::in_memory_sessions(TICKETS));
        Self { verifier, tls }
    }

    /// The same resolver under other pins; this very identity if they are the same.
    pub fn with_pins(&self, pins: PinSet) -> Self {
        if pins == self.terms().pins {
            return self.clone();
        }
        Self::new(Terms {
            pins,
            ..self.terms().clone()
        })
    }

    /// What the resolver must show.
    pub fn terms(&self) -> &Terms {
        &self.verifier.terms
    }

    /// The name that the resolver's certificate must bear.
    pub fn name(&self) -> &ServerName<'static> {
        &self.terms().name
    }

    /// Whether it is the same resolver, but for its pins and for the time: with the same name, and vouched for by the same.
    pub fn is_like(&self, other: &Self) -> bool {
        let (own, other) = (self.terms(), other.terms());
        (&own.name, &own.anchors, own.pin_mode) == (&other.name, &other.anchors, other.pin_mode)
    }

    /// Whether it is the same: with the same terms, and the same tickets.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tls, &other.tls)
    }

    /// Whether a clock that shows `now` is known to be wrong.
    pub fn suspects(&self, now: UnixTime) -> bool {
        now.as_secs() + DAY <= self.terms().clock_floor
    }

    /// What to connect with. What was shown must be held to the terms once more by [`Identity::check`]: no verifier is
    /// called for a resumed session.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// What to connect with only to see what is shown, whoever shows it. Never to ask anything.
    pub fn onlooker(&self) -> Arc<ClientConfig> {
        let verifier = Arc::new(Verifier {
            terms: self.terms().clone(),
            provider: Arc::clone(&self.verifier.provider),
            onlooking: true,
        });
        configuration(&verifier, Resumption::disabled())
    }

    /// Holds a certificate chain, leaf first, to the terms at the time `now`.
    pub fn check(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Proof, Refusal> {
        match chain {
            [leaf, others @ ..] => self.verifier.check(leaf, others, now),
            [] => Err(Refusal::unreadable("no certificate was shown".to_owned())),
        }
    }
}

fn configuration(verifier: &Arc<Verifier>, resumption: Resumption) -> Arc<ClientConfig> {
    let mut tls = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("ring has cipher suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<_>)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = resumption;
    Arc::new(tls)
}

/// How a resolver proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The certificates of the verified path, from the leaf to the one below the anchor.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The keys of the verified path, from the leaf's to the anchor's.
    pub keys: Vec<Pin>,
    /// Which pin is that of which key; none where no pin is given, or none needs to fit.
    pub fit: Option<Fit>,
    /// The clock was behind the floor, which stood in for it.
    pub clock_suspect: bool,
}

impl Proof {
    fn of(path: &VerifiedPath<'_>) -> Self {
        let leaf = path.end_entity();
        let issuers = path.intermediate_certificates();
        let certificates = std::iter::once(leaf.der()).chain(issuers.map(webpki::Cert::der));
        let issuers = path.intermediate_certificates();
        let issuers = issuers.map(|issuer| Pin::of(&issuer.subject_public_key_info()));
        let keys = std::iter::once(Pin::of(&leaf.subject_public_key_info()))
            .chain(issuers)
            .chain([Pin::of(&spki_for_anchor(path.anchor()))]);
        Self {
            certificates: certificates.map(CertificateDer::into_owned).collect(),
            keys: keys.collect(),
            fit: None,
            clock_suspect: false,
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
    /// This machine does not know the time, and no pin is given that could stand in for it.
    Clock,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Name => "name",
            Self::Pin => "pin",
            Self::Clock => "clock",
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
    /// From when on it would hold, in seconds since 1970, where that is all that is wrong.
    pub not_before: Option<u64>,
}

impl Refusal {
    fn unreadable(cause: String) -> Self {
        Self {
            check: Check::Chain,
            expected: "a certificate".to_owned(),
            cause,
            names: Vec::new(),
            pins: Vec::new(),
            not_before: None,
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
            ..
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

/// We sign nothing, since no resolver asks a forwarder who it is. What could sign is left out of the binary: 30 KB.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("nothing is signed here".to_owned()))
    }
}

/// The checks, in the form in which rustls calls them.
#[derive(Debug)]
struct Verifier {
    terms: Terms,
    provider: Arc<CryptoProvider>,
    /// Whatever is shown will do: nothing is going to be asked.
    onlooking: bool,
}

impl Verifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Proof, Refusal> {
        let floor = self.terms.clock_floor;
        if now.as_secs() + DAY > floor {
            return self.check_at(leaf, others, now.as_secs(), false);
        }
        // It is not earlier than any certificate of the path was made, either.
        let mut earliest = floor;
        for _ in 0..=others.len() {
            let judged = self.check_at(leaf, others, earliest, true);
            match &judged {
                Err(Refusal {
                    not_before: Some(later),
                    ..
                }) if *later > earliest => earliest = *later,
                _ => return judged,
            }
        }
        self.check_at(leaf, others, earliest, true)
    }

    /// Holds what was shown to the terms as if it were then; if the clock is suspect, a pin must fit.
    fn check_at(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        seconds: u64,
        clock_suspect: bool,
    ) -> Result<Proof, Refusal> {
        let Terms {
            name,
            anchors,
            pins,
            pin_mode,
            ..
        } = &self.terms;
        let certificate = EndEntityCert::try_from(leaf)
            .map_err(|error| Refusal::unreadable(error.to_string()))?;
        let refuse = |check, expected: String, cause: String, pins| Refusal {
            check,
            expected,
            cause,
            names: certificate.valid_dns_names().map(str::to_owned).collect(),
            pins,
            not_before: None,
        };
        let leaf_pin = Pin::of(&certificate.subject_public_key_info());
        if clock_suspect && pins.is_empty() {
            return Err(refuse(
                Check::Clock,
                "this machine's clock to be right, or a pin to stand in for it".to_owned(),
                format!("it cannot be before {:#}", Moment(seconds)),
                vec![leaf_pin],
            ));
        }
        // Where several paths lead to an anchor, one with a pinned key on it is taken if there is one.
        let (pinned, unpinned) = (RefCell::new(None), RefCell::new(None));
        let check_pins = |path: &VerifiedPath<'_>| {
            let mut proof = Proof {
                clock_suspect,
                ..Proof::of(path)
            };
            proof.fit = pins.find(&proof.keys, seconds);
            if pins.is_empty() || proof.fit.is_some() {
                *pinned.borrow_mut() = Some(proof);
                return Ok(());
            }
            unpinned.borrow_mut().get_or_insert(proof);
            Err(webpki::Error::UnknownIssuer)
        };
        let path = certificate.verify_for_usage(
            self.provider.signature_verification_algorithms.all,
            &anchors.0,
            others,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::server_auth(),
            None,
            Some(&check_pins),
        );
        let (pinned, unpinned) = (pinned.take(), unpinned.take());
        if let (Err(error), None) = (&path, &unpinned) {
            let expected = "a chain of valid certificates to a trust anchor".to_owned();
            let not_before = match error {
                webpki::Error::CertNotValidYet { not_before, .. } => Some(not_before.as_secs()),
                _ => None,
            };
            return Err(Refusal {
                not_before,
                ..refuse(Check::Chain, expected, in_words(error), vec![leaf_pin])
            });
        }
        if certificate.verify_is_valid_for_subject_name(name).is_err() {
            let cause = "the certificate is for other names".to_owned();
            return Err(refuse(
                Check::Name,
                name.to_str().into_owned(),
                cause,
                vec![leaf_pin],
            ));
        }
        match (path.and(Ok(pinned)), unpinned) {
            (Ok(Some(proof)), _) => Ok(proof),
            // Nothing else stands in for a clock.
            (_, Some(proof)) if *pin_mode == PinMode::Report && !clock_suspect => Ok(proof),
            (_, unpinned) => {
                let keys = unpinned.map(|proof| proof.keys).unwrap_or_default();
                let cause = "no key on the verified path is pinned".to_owned();
                Err(refuse(Check::Pin, pins.to_string(), cause, keys))
            }
        }
    }
}

/// The commonest failures of a chain said for people, the others as webpki names them.
fn in_words(error: &webpki::Error) -> String {
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
            Err(_) if self.onlooking => Ok(ServerCertVerified::assertion()),
            Ok(_) => Ok(ServerCertVerified::assertion()),
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

/// The pin of a certificate's key; none where it cannot be read.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    Some(Pin::of(&certificate.subject_public_key_info()))
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
