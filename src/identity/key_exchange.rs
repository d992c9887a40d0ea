//! How do both sides agree on the keys of a session, so that a quantum computer does not find them later?
//!
//! X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem) is X25519 and ML-KEM-768 (FIPS 203) side by side: who recorded a session has to break both.
//! X25519 is ring's, as rustls uses it; the rest of this file joins the two for rustls.
//!
//! Secrets are wiped once they were used: the key of ML-KEM by its crate, the shared secrets here and by rustls. Not wiped are the private
//! key of X25519, which ring keeps to itself, and what the compiler leaves on the stack while values move or are computed.

use std::fmt;

use ml_kem::kem::{Decapsulate, KeyExport};
use ml_kem::{DecapsulationKey, MlKem768};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::crypto::ring::kx_group::{SECP256R1, SECP384R1, X25519};
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

/// Octets of an encapsulation key and of a ciphertext of ML-KEM-768 (FIPS 203 section 8), of a share of X25519, and of each shared secret.
const ENCAPSULATION_KEY_LEN: usize = 1184;
const CIPHERTEXT_LEN: usize = 1088;
const X25519_LEN: usize = 32;
const SECRET_LEN: usize = 32;
/// Octets of the random numbers d and z that a key of ML-KEM is made of (FIPS 203 section 7.1).
const SEED_LEN: usize = 64;

const INVALID_KEY_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// The group X25519MLKEM768, for clients.
pub static X25519MLKEM768: &dyn SupportedKxGroup = &X25519MlKem768;

/// Which key exchange is asked of a resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 where the resolver has it, else a classical group.
    Prefer,
    /// X25519MLKEM768 and nothing else, which leaves TLS 1.3 alone.
    Require,
    /// Classical groups only.
    Classical,
}

/// The size of a ClientHello, of which [`KeyExchange::Prefer`] has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelloSize {
    /// With a share of X25519MLKEM768: about 1.5 kB, which are two packets. Some servers and middleboxes read one.
    Large,
    /// With classical groups only, in one packet.
    Small,
}

impl KeyExchange {
    /// Whether a hello of this size offers X25519MLKEM768.
    pub(super) fn is_hybrid(self, hello: HelloSize) -> bool {
        match self {
            Self::Prefer => hello == HelloSize::Large,
            Self::Require => true,
            Self::Classical => false,
        }
    }

    /// The groups to offer, most preferred first.
    pub(super) fn groups(self, hello: HelloSize) -> Vec<&'static dyn SupportedKxGroup> {
        let mut groups = Vec::new();
        if self.is_hybrid(hello) {
            groups.push(X25519MLKEM768);
        }
        if self != Self::Require {
            groups.extend([X25519, SECP256R1, SECP384R1]);
        }
        groups
    }
}

/// The group on which both sides agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// X25519 and ML-KEM-768.
    X25519MlKem768,
    /// Curve25519 (RFC 7748).
    X25519,
    /// NIST's curve P-256.
    Secp256r1,
    /// NIST's curve P-384.
    Secp384r1,
    /// None: TLS 1.2 resumes sessions without a key exchange.
    None,
}

impl Group {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::X25519MlKem768,
        Self::X25519,
        Self::Secp256r1,
        Self::Secp384r1,
        Self::None,
    ];

    /// The group of a handshake that is complete.
    pub fn of(negotiated: Option<&dyn SupportedKxGroup>) -> Self {
        match negotiated.map(SupportedKxGroup::name) {
            Some(NamedGroup::X25519MLKEM768) => Self::X25519MlKem768,
            Some(NamedGroup::X25519) => Self::X25519,
            Some(NamedGroup::secp256r1) => Self::Secp256r1,
            Some(NamedGroup::secp384r1) => Self::Secp384r1,
            _ => Self::None,
        }
    }

    /// The name in IANA's registry of TLS supported groups, or `none`.
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519MlKem768 => "X25519MLKEM768",
            Self::X25519 => "x25519",
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
            Self::None => "none",
        }
    }

    /// Whether a quantum computer would not find the keys of the session.
    pub fn is_post_quantum(self) -> bool {
        self == Self::X25519MlKem768
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug)]
struct X25519MlKem768;

impl SupportedKxGroup for X25519MlKem768 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        SystemRandom::new()
            .fill(&mut *seed)
            .map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange::new(&seed)?))
    }

    /// The part of a server, which dns-tool is not. The default would answer a client's share with one of a client.
    fn start_and_complete(&self, _: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let message = "X25519MLKEM768 is there for clients only";
        Err(Error::General(message.to_owned()))
    }

    // The default links the parameters of all groups of FFDHE.
    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// A key exchange that waits for the server's share.
struct Exchange {
    /// Wipes itself.
    post_quantum: DecapsulationKey<MlKem768>,
    classical: Box<dyn ActiveKeyExchange>,
    /// The encapsulation key of ML-KEM-768, then the public key of X25519.
    share: Vec<u8>,
}

impl Exchange {
    fn new(seed: &[u8; SEED_LEN]) -> Result<Self, Error> {
        let classical = X25519.start()?;
        let post_quantum = DecapsulationKey::from_seed((*seed).into());
        let mut share = Vec::with_capacity(ENCAPSULATION_KEY_LEN + X25519_LEN);
        share.extend_from_slice(&post_quantum.encapsulation_key().to_bytes());
        share.extend_from_slice(classical.pub_key());
        Ok(Self {
            post_quantum,
            classical,
            share,
        })
    }
}

impl ActiveKeyExchange for Exchange {
    /// `share` is a ciphertext of ML-KEM-768, then a public key of X25519. A wrong ciphertext of the right length gives a secret that only
    /// this side has (FIPS 203 section 6.3), and the handshake fails later.
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let Some((ciphertext, public_key)) = share.split_first_chunk::<CIPHERTEXT_LEN>() else {
            return Err(INVALID_KEY_SHARE);
        };
        if public_key.len() != X25519_LEN {
            return Err(INVALID_KEY_SHARE);
        }
        let post_quantum = Zeroizing::new(self.post_quantum.decapsulate(ciphertext.into()));
        let classical = self.classical.complete(public_key)?;
        // Large enough from the start: to grow would leave a copy behind. rustls wipes it.
        let mut secret = Vec::with_capacity(2 * SECRET_LEN);
        secret.extend_from_slice(&post_quantum);
        secret.extend_from_slice(classical.secret_bytes());
        Ok(SharedSecret::from(secret))
    }

    /// The share of X25519 alone, for servers that have nothing else. So they need no second round trip.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(
        self: Box<Self>,
        public_key: &[u8],
    ) -> Result<SharedSecret, Error> {
        self.classical.complete(public_key)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

#[cfg(test)]
mod tests;
