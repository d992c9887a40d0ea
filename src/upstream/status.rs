//! How do the resolvers fare, for whoever watches?

use std::net::SocketAddr;

use super::handshake::ConnectError;
use super::session::CloseReason;
use crate::identity::certificate::Facts;
use crate::identity::chain::Proof;
use crate::identity::pin::{Fit, Pin};
use crate::identity::terms::Terms;
use crate::system::clock;
use crate::telemetry::metrics::{Counter, Histogram};

/// What became of sessions and of what was asked on them, counted over all resolvers.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// How long a session took to open, from the TCP connection to the proof: by a whole handshake, and by one that a ticket
    /// made short.
    pub handshake_times: [Histogram; 2],
    /// From a query's being sent to its answer.
    pub query_latency: Histogram,
    /// Sessions that ended: by the resolver, by an error, by what is no message, and from here.
    pub sessions_closed: [Counter; 4],
    /// Attempts that ended before there was a TCP connection, and before TLS was agreed on.
    pub connect_failures: [Counter; 2],
    /// Resolvers that were refused, by [`crate::identity::refusal::Check`].
    pub authentication_failures: [Counter; 4],
    /// Sessions that were opened on less than all that could be asked for.
    pub degraded: DegradedSessions,
    /// Queries that ended a session on which they were alone.
    pub culprits: Counter,
}

impl UpstreamMetrics {
    pub(super) fn count_failure(&self, error: &ConnectError) {
        match error {
            ConnectError::Connect(_) => self.connect_failures[0].increment(),
            ConnectError::Handshake(_) => self.connect_failures[1].increment(),
            ConnectError::Identity(refusal) => {
                self.authentication_failures[refusal.check as usize].increment()
            }
        }
    }

    pub(super) fn count_closed(&self, closed: Option<&CloseReason>) {
        let reason = match closed {
            Some(CloseReason::ByPeer) => 0,
            Some(CloseReason::Io(_)) => 1,
            Some(CloseReason::Malformed) => 2,
            // A thread that panicked lets go of its session.
            Some(CloseReason::Local) | None => 3,
        };
        self.sessions_closed[reason].increment();
    }
}

/// How one address of a resolver fares.
#[derive(Debug, Clone)]
pub struct AddressStatus {
    /// The address.
    pub address: SocketAddr,
    /// The name that its certificate must bear.
    pub name: String,
    /// Sessions that take queries.
    pub sessions: usize,
    /// It is not held back after a failure, or since it was slower than another, and does not fail all that it is asked.
    pub healthy: bool,
    /// How many pins it has.
    pub pins: usize,
    /// What it showed when the last session was opened, if one ever was.
    pub pin_status: Option<PinStatus>,
}

/// What an address showed when it last proved itself.
#[derive(Debug, Clone, Copy)]
pub struct PinStatus {
    /// The place of the pin that fitted among those of the resolver, from 1; 0 where none was needed.
    pub pin_index: usize,
    /// Until when its certificate holds, in seconds since 1970.
    pub not_after: Option<u64>,
}

/// What is kept of that: the pins may be others later.
pub(super) struct PresentedKeys {
    keys: Vec<Pin>,
    not_after: Option<u64>,
}

impl PresentedKeys {
    pub(super) fn from_proof(proof: &Proof) -> Self {
        let leaf = proof.certificates.first();
        Self {
            keys: proof.keys.clone(),
            not_after: leaf.and_then(Facts::read).map(|facts| facts.not_after),
        }
    }

    pub(super) fn pin_status(&self, terms: &Terms) -> PinStatus {
        PinStatus {
            pin_index: find_pin(&self.keys, terms).map_or(0, |pin| pin.slot + 1),
            not_after: self.not_after,
        }
    }
}

/// Which of the pins that hold now is that of one of the keys.
pub(super) fn find_pin(keys: &[Pin], terms: &Terms) -> Option<Fit> {
    let now = clock::since_1970().as_secs();
    terms.pins.find(keys, now.max(terms.clock_floor))
}

/// Sessions that were opened on less than all that could be asked for.
#[derive(Debug, Default)]
pub struct DegradedSessions {
    /// None of their keys is pinned, and none needed to be.
    pub unpinned: Counter,
    /// This machine's clock was known to be wrong, and a pin stood in for it.
    pub clock: Counter,
}
