//! Which resolvers may be asked, and how?

use std::net::SocketAddr;
use std::time::Duration;

use crate::identity::verifier::Identity;

/// Connection attempts under way at a time, at most.
pub const MAX_CONNECT_ATTEMPTS: usize = 8;
/// The shortest time after which a session counts as silent while a query is pending.
pub const MIN_SILENCE_TIMEOUT: Duration = Duration::from_millis(250);
/// The shortest timeout of a connection attempt: longer than most queries wait, since distant resolvers take long.
pub(super) const MIN_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A resolver that may be asked.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Its addresses, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// How the resolver is authenticated.
    pub identity: Identity,
}

/// The settings of the upstream.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resolvers, in order of preference; at least one address among them.
    pub resolvers: Vec<Resolver>,
    /// How long a query may take, and opening a connection: TCP, TLS and all checks.
    pub timeout: Duration,
    /// The shortest time after which a session counts as silent: [`MIN_SILENCE_TIMEOUT`], or longer (at most a third of the timeout) on slow
    /// machines, for tests.
    pub min_silence_timeout: Duration,
    /// Shared sessions to one address, at most; at least 1.
    pub sessions: usize,
    /// Queries in flight, at most; at least 1.
    pub max_pending: usize,
}
