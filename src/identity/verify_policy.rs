//! What must a resolver prove?

use rustls::pki_types::ServerName;

use crate::identity::anchors::TrustAnchors;
use crate::identity::key_exchange::KeyExchange;
use crate::identity::pin::PinSet;

/// What is done with a resolver when no key on its verified path is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinMode {
    /// The connection is refused.
    Strict,
    /// The connection is accepted on chain and name alone, and the session is counted and logged. For trying pins out.
    Report,
}

/// What a resolver must prove.
#[derive(Debug, Clone)]
pub struct VerifyPolicy {
    /// The name that the certificate must be valid for (RFC 8310 section 8.1).
    pub name: ServerName<'static>,
    /// The trust anchors to which the certificate must chain.
    pub anchors: TrustAnchors,
    /// The pins, one of which must match a key on the verified path. If the set is empty, any key is accepted.
    pub pins: PinSet,
    /// What is done if no pin matches.
    pub pin_mode: PinMode,
    /// How the keys of its sessions may be agreed on.
    pub key_exchange: KeyExchange,
    /// Lower bound of the current time, in seconds since 1970, UTC. A clock that is a day or more behind it is not trusted.
    pub clock_floor: u64,
}
