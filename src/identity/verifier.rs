//! How does TLS connect to this resolver, and to no other?
//!
//! The checks of [`crate::identity::chain`] as a certificate verifier of rustls, which runs on every connection.

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
/// Maximum number of session tickets kept for resumption, over all addresses of a resolver.
const MAX_TICKETS: usize = 16;

/// A resolver's identity: what it must prove, and the TLS configuration that checks it.
///
/// The configuration holds the session tickets. With another name, other trust anchors or other pins there is another identity,
/// which has no tickets of this one.
///
/// Clones share the configuration and its tickets, also between threads. Only the ticket store changes, under a lock inside
/// rustls.
#[derive(Debug, Clone)]
pub struct Identity {
    verifier: Arc<Verifier>,
    client_config: Arc<ClientConfig>,
}

impl Identity {
    /// The identity of a resolver that must satisfy `policy`, without tickets.
    pub fn new(policy: VerifyPolicy) -> Self {
        let provider = Arc::new(CryptoProvider {
            key_provider: &NoClientKeys,
            ..rustls::crypto::ring::default_provider()
        });
        let verifier = Arc::new(Verifier {
            policy,
            provider: Arc::clone(&provider),
            accept_any: false,
        });
        let client_config =
            build_client_config(&verifier, Resumption::in_memory_sessions(MAX_TICKETS));
        Self {
            verifier,
            client_config,
        }
    }

    /// The same resolver with other pins, without tickets. Returns a clone, with its tickets, if the pins are the same.
    pub fn with_pins(&self, pins: PinSet) -> Self {
        if pins == self.policy().pins {
            return self.clone();
        }
        Self::new(VerifyPolicy {
            pins,
            ..self.policy().clone()
        })
    }

    /// What the resolver must prove.
    pub fn policy(&self) -> &VerifyPolicy {
        &self.verifier.policy
    }

    /// The name that the resolver's certificate must be valid for.
    pub fn name(&self) -> &ServerName<'static> {
        &self.policy().name
    }

    /// Whether name, trust anchors and pin mode are the same. Pins and clock floor may differ.
    pub fn is_same_resolver(&self, other: &Self) -> bool {
        let (own, other) = (self.policy(), other.policy());
        (&own.name, &own.anchors, own.pin_mode) == (&other.name, &other.anchors, other.pin_mode)
    }

    /// Whether both are clones of one identity, with the same policy and the same tickets.
    pub fn is_same_instance(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client_config, &other.client_config)
    }

    /// Whether a clock that shows `now` is not trusted: it is a day or more before the clock floor.
    pub fn distrusts_clock(&self, now: UnixTime) -> bool {
        now.as_secs() + DAY <= self.policy().clock_floor
    }

    /// The TLS configuration to connect with. The caller must also check the presented chain with [`Identity::check`], since rustls
    /// calls no verifier for a resumed session.
    pub fn client_config(&self) -> &Arc<ClientConfig> {
        &self.client_config
    }

    /// A TLS configuration that accepts any certificate, to inspect what a server presents. Never send a query with it.
    pub fn inspection_config(&self) -> Arc<ClientConfig> {
        let verifier = Arc::new(Verifier {
            policy: self.policy().clone(),
            provider: Arc::clone(&self.verifier.provider),
            accept_any: true,
        });
        build_client_config(&verifier, Resumption::disabled())
    }

    /// Checks a certificate chain, leaf first, against the policy at the time `now`.
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

fn build_client_config(verifier: &Arc<Verifier>, resumption: Resumption) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("ring has cipher suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<_>)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = resumption;
    Arc::new(config)
}

/// No private keys: resolvers do not authenticate forwarders. This leaves the code for signing out of the binary, 30 KB.
#[derive(Debug)]
struct NoClientKeys;

impl KeyProvider for NoClientKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        Err(rustls::Error::General("nothing is signed here".to_owned()))
    }
}

/// The certificate verifier that rustls calls.
#[derive(Debug)]
struct Verifier {
    policy: VerifyPolicy,
    provider: Arc<CryptoProvider>,
    /// Accept any certificate. Only for connections on which no query is sent.
    accept_any: bool,
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
            Err(_) if self.accept_any => Ok(ServerCertVerified::assertion()),
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
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

/// The [`VerifyError`] inside an error of rustls, if [`Identity`]'s verifier caused it.
pub fn as_verify_error(error: &rustls::Error) -> Option<&VerifyError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
            cause.downcast_ref()
        }
        _ => None,
    }
}
