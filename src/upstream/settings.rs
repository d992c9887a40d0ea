//! Which resolvers may be asked, and how?

use std::net::SocketAddr;
use std::time::Duration;

use crate::identity::verifier::Identity;

/// Attempts to connect that may be under way at a time.
pub const MAX_CONNECT_ATTEMPTS: usize = 8;
/// How long a session may be silent while a query waits before it is suspect, at least.
pub const MIN_SILENCE_TIMEOUT: Duration = Duration::from_millis(250);
/// How long an attempt to connect may take, at least: longer than most queries wait, since far resolvers take long.
pub(super) const MIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A resolver that may be asked.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Where it is, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// How it proves itself.
    pub identity: Identity,
}

/// What this room can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resolvers, in order of preference; at least one address among them.
    pub resolvers: Vec<Resolver>,
    /// The time of a query, and of a connection: TCP, TLS and all checks.
    pub timeout: Duration,
    /// [`MIN_SILENCE_TIMEOUT`], or longer, though a third of the timeout at most, where what a resolver is asked is to be counted on however slow a machine.
    pub min_silence_timeout: Duration,
    /// Sessions to one address at a time, at most; at least 1.
    pub sessions: usize,
    /// Queries on their way at a time, at most; at least 1.
    pub max_pending: usize,
}
