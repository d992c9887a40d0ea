//! Which resolvers may be asked, and how?

use std::time::Duration;

use crate::identity::pin::PinSet;
use crate::identity::verifier::Identity;
use crate::system::scoped_address::ScopedAddress;

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
    pub addresses: Vec<ScopedAddress>,
    /// How the sessions to it are secured.
    pub security: Security,
}

/// How sessions to a resolver are secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// By TLS with the resolver of this identity (RFC 7858, RFC 8310).
    Tls(Identity),
    /// Not at all: cleartext over TCP (RFC 7766), to a server of the operator's own network.
    Cleartext,
}

impl Security {
    /// The identity that the resolver must prove; none in cleartext.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Tls(identity) => Some(identity),
            Self::Cleartext => None,
        }
    }

    /// The name of the resolver, or what stands in its place.
    pub fn name(&self) -> String {
        self.identity().map_or("cleartext".to_owned(), |identity| {
            identity.name().to_str().into_owned()
        })
    }

    /// The same with other pins, see [`Identity::with_pins`].
    pub(super) fn with_pins(&self, pins: impl FnOnce(&Identity) -> PinSet) -> Self {
        match self {
            Self::Tls(identity) => Self::Tls(identity.with_pins(pins(identity))),
            Self::Cleartext => Self::Cleartext,
        }
    }

    /// Whether both are the same but for pins, see [`Identity::is_same_resolver`].
    pub(super) fn is_same_resolver(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tls(own), Self::Tls(other)) => own.is_same_resolver(other),
            (Self::Cleartext, Self::Cleartext) => true,
            _ => false,
        }
    }

    /// Whether both are clones of one, see [`Identity::is_same_instance`].
    pub(super) fn is_same_instance(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tls(own), Self::Tls(other)) => own.is_same_instance(other),
            (Self::Cleartext, Self::Cleartext) => true,
            _ => false,
        }
    }
}

/// The settings of the upstream.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resolvers, in order of preference; at least one address among them.
    pub resolvers: Vec<Resolver>,
    /// They are the main resolvers, which are reached by the Internet: if all addresses fail in the same way, the log says what the network
    /// looks like.
    pub is_main: bool,
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
