//! How does TLS connect to this resolver, and to no other?
//!
//! The checks of [`crate::identity::chain`] as a certificate verifier of rustls, which runs on every connection.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::crypto::{CryptoProvider, KeyProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, OtherError, SignatureScheme,
    version,
};

use crate::identity::chain::{self, VerifiedPeer};
use crate::identity::key_exchange::{HelloSize, KeyExchange};
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
/// There are two configurations, one for each size of the hello. They hold the session tickets. With another name, other trust anchors or other pins there is another identity,
/// which has no tickets of this one.
///
/// Clones share the configurations and their tickets, also between threads. Only the ticket stores change, under a lock inside
/// rustls.
#[derive(Debug, Clone)]
pub struct Identity {
    verifier: Arc<Verifier>,
    client_config: Arc<ClientConfig>,
    /// The same with the small hello.
    small_hello_config: Arc<ClientConfig>,
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
        let config = |hello| build_client_config(&verifier, hello, resumption(&verifier, hello));
        Self {
            client_config: config(HelloSize::Large),
            small_hello_config: config(HelloSize::Small),
            verifier,
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

    /// Whether name, trust anchors, pin mode and key exchange are the same. Pins and clock floor may differ.
    pub fn is_same_resolver(&self, other: &Self) -> bool {
        let (own, other) = (self.policy(), other.policy());
        (&own.name, &own.anchors, own.pin_mode) == (&other.name, &other.anchors, other.pin_mode)
            && own.key_exchange == other.key_exchange
    }

    /// Whether a small hello may stand in for the large one.
    pub fn has_small_hello(&self) -> bool {
        self.policy().key_exchange == KeyExchange::Prefer
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
    pub fn client_config(&self, hello: HelloSize) -> &Arc<ClientConfig> {
        match hello {
            HelloSize::Large => &self.client_config,
            HelloSize::Small => &self.small_hello_config,
        }
    }

    /// A TLS configuration that accepts any certificate, to inspect what a server presents. Never send a query with it.
    pub fn inspection_config(&self, hello: HelloSize) -> Arc<ClientConfig> {
        let verifier = Arc::new(Verifier {
            policy: self.policy().clone(),
            provider: Arc::clone(&self.verifier.provider),
            accept_any: true,
        });
        build_client_config(&verifier, hello, Resumption::disabled())
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

fn build_client_config(
    verifier: &Arc<Verifier>,
    hello: HelloSize,
    resumption: Resumption,
) -> Arc<ClientConfig> {
    let key_exchange = verifier.policy.key_exchange;
    let provider = CryptoProvider {
        kx_groups: key_exchange.groups(hello),
        ..(*verifier.provider).clone()
    };
    let versions = match key_exchange {
        KeyExchange::Require => &[&version::TLS13][..],
        KeyExchange::Prefer | KeyExchange::Classical => &[&version::TLS13, &version::TLS12],
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("there are cipher suites and groups for each version")
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(verifier) as Arc<_>)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = resumption;
    Arc::new(config)
}

/// The session tickets of a resolver, without rustls' memory of the group that the resolver chose last.
///
/// With that memory, each hello after the first would offer this group alone: a resolver that learns X25519MLKEM768 would go on without
/// it, and so would one in whose place somebody on the way once chose another group, unauthenticated. A resolver that takes neither
/// X25519MLKEM768 nor X25519 therefore costs a round trip more on each connection.
#[derive(Debug)]
struct Tickets(ClientSessionMemoryCache);

/// Where the tickets are kept that a hello of this size brings.
fn resumption(verifier: &Verifier, hello: HelloSize) -> Resumption {
    if verifier.policy.key_exchange.is_hybrid(hello) {
        Resumption::store(Arc::new(Tickets(ClientSessionMemoryCache::new(
            MAX_TICKETS,
        ))))
    } else {
        Resumption::in_memory_sessions(MAX_TICKETS)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(name, value);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(name)
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.0.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(name, value);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(name)
    }
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
