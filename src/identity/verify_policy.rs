//! What must a resolver show?

use rustls::pki_types::ServerName;

use crate::identity::anchors::TrustAnchors;
use crate::identity::pin::PinSet;

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
pub struct VerifyPolicy {
    /// The name that its certificate must bear.
    pub name: ServerName<'static>,
    /// Who may vouch for it.
    pub anchors: TrustAnchors,
    /// The pins, one of which must be on the verified path; none for any key.
    pub pins: PinSet,
    /// What becomes of it where none is.
    pub pin_mode: PinMode,
    /// Before this moment, in seconds since 1970, it cannot be: a clock that is a day or more behind it is wrong.
    pub clock_floor: u64,
}
