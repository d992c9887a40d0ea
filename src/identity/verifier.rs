//! How is a TLS connection had with the resolver that is meant, and with no other?
//!
//! The checks of [`crate::identity::chain`], in the form in which rustls calls them, on every connection.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, KeyProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme, version,
};

use crate::identity::chain::{self, VerifiedPeer};
use crate::identity::pin::PinSet;
use crate::identity::verify_error::VerifyError;
use crate::identity::verify_policy::VerifyPolicy;
use crate::system::date::DAY;

/// The protocol that we offer by ALPN: DNS over TLS (IANA's registry of ALPN protocol IDs).
const ALPN: &[u8] = b"dot";
/// How many tickets are kept for resumption, over all addresses of a resolver.
const TICKETS: usize = 16;

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
    /// The resolver that fulfils `policy`.
    pub fn new(policy: VerifyPolicy) -> Self {
        let provider = Arc::new(CryptoProvider {
            key_provider: &NoKeys,
            ..rustls::crypto::ring::default_provider()
        });
        let verifier = Arc::new(Verifier {
            policy,
            provider: Arc::clone(&provider),
            onlooking: false,
        });
        let tls = configuration(&verifier, Resumption::in_memory_sessions(TICKETS));
        Self { verifier, tls }
    }

    /// The same resolver under other pins; this very identity if they are the same.
    pub fn with_pins(&self, pins: PinSet) -> Self {
        if pins == self.policy().pins {
            return self.clone();
        }
        Self::new(VerifyPolicy {
            pins,
            ..self.policy().clone()
        })
    }

    /// What the resolver must show.
    pub fn policy(&self) -> &VerifyPolicy {
        &self.verifier.policy
    }

    /// The name that the resolver's certificate must bear.
    pub fn name(&self) -> &ServerName<'static> {
        &self.policy().name
    }

    /// Whether it is the same resolver, but for its pins and for the time: with the same name, and vouched for by the same.
    pub fn is_like(&self, other: &Self) -> bool {
        let (own, other) = (self.policy(), other.policy());
        (&own.name, &own.anchors, own.pin_mode) == (&other.name, &other.anchors, other.pin_mode)
    }

    /// Whether it is the same: with the same terms, and the same tickets.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tls, &other.tls)
    }

    /// Whether a clock that shows `now` is known to be wrong.
    pub fn suspects(&self, now: UnixTime) -> bool {
        now.as_secs() + DAY <= self.policy().clock_floor
    }

    /// What to connect with. What was shown must be held to the terms once more by [`Identity::check`]: no verifier is
    /// called for a resumed session.
    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    /// What to connect with only to see what is shown, whoever shows it. Never to ask anything.
    pub fn onlooker(&self) -> Arc<ClientConfig> {
        let verifier = Arc::new(Verifier {
            policy: self.policy().clone(),
            provider: Arc::clone(&self.verifier.provider),
            onlooking: true,
        });
        configuration(&verifier, Resumption::disabled())
    }

    /// Holds a certificate chain, leaf first, to the terms at the time `now`.
    pub fn check(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<VerifiedPeer, VerifyError> {
        match chain {
            [leaf, others @ ..] => self.verifier.check(leaf, others, now),
            [] => Err(VerifyError::unreadable(
                "no certificate was shown".to_owned(),
            )),
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
    policy: VerifyPolicy,
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
    ) -> Result<VerifiedPeer, VerifyError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        chain::check(&self.policy, algorithms, leaf, others, now)
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

/// The refusal inside an error of rustls, if it is one of ours.
pub fn as_verify_error(error: &rustls::Error) -> Option<&VerifyError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref()
        }
        _ => None,
    }
}
