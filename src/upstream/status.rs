//! How do the resolvers fare, for whoever watches?

use std::net::SocketAddr;

use super::handshake::ConnectError;
use super::session::Closed;
use crate::identity::certificate::CertificateInfo;
use crate::identity::chain::VerifiedPeer;
use crate::identity::pin::{Pin, PinMatch};
use crate::identity::verify_policy::VerifyPolicy;
use crate::system::clock;
use crate::telemetry::metrics::{Counter, Histogram};

/// What became of sessions and of what was asked on them, counted over all resolvers.
#[derive(Debug, Default)]
pub struct Tally {
    /// How long a session took to open, from the TCP connection to the proof: by a whole handshake, and by one that a ticket
    /// made short.
    pub handshakes: [Histogram; 2],
    /// From a query's being sent to its answer.
    pub exchanges: Histogram,
    /// Sessions that ended: by the resolver, by an error, by what is no message, and from here.
    pub closed: [Counter; 4],
    /// Attempts that ended before there was a TCP connection, and before TLS was agreed on.
    pub failures: [Counter; 2],
    /// Resolvers that were refused, by [`crate::identity::verify_error::Check`].
    pub refusals: [Counter; 4],
    /// Sessions that were opened on less than all that could be asked for.
    pub doubts: Doubts,
    /// Queries that ended a session on which they were alone.
    pub convicted: Counter,
}

impl Tally {
    pub(super) fn count_failure(&self, error: &ConnectError) {
        match error {
            ConnectError::Connect(_) => self.failures[0].increment(),
            ConnectError::Handshake(_) => self.failures[1].increment(),
            ConnectError::Identity(refusal) => self.refusals[refusal.check as usize].increment(),
        }
    }

    pub(super) fn count_end(&self, closed: Option<&Closed>) {
        let reason = match closed {
            Some(Closed::End) => 0,
            Some(Closed::Broken(_)) => 1,
            Some(Closed::Garbage) => 2,
            // A thread that panicked lets go of its session.
            Some(Closed::Here) | None => 3,
        };
        self.closed[reason].increment();
    }
}

/// How one address of a resolver fares.
#[derive(Debug, Clone)]
pub struct Standing {
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
    pub shown: Option<Proved>,
}

/// What an address showed when it last proved itself.
#[derive(Debug, Clone, Copy)]
pub struct Proved {
    /// The place of the pin that fitted among those of the resolver, from 1; 0 where none was needed.
    pub slot: usize,
    /// Until when its certificate holds, in seconds since 1970.
    pub not_after: Option<u64>,
}

/// What is kept of that: the pins may be others later.
pub(super) struct Shown {
    keys: Vec<Pin>,
    not_after: Option<u64>,
}

impl Shown {
    pub(super) fn of(proof: &VerifiedPeer) -> Self {
        let leaf = proof.certificates.first();
        Self {
            keys: proof.keys.clone(),
            not_after: leaf
                .and_then(CertificateInfo::read)
                .map(|facts| facts.not_after),
        }
    }

    pub(super) fn proved(&self, terms: &VerifyPolicy) -> Proved {
        Proved {
            slot: fit(&self.keys, terms).map_or(0, |fit| fit.pin_index + 1),
            not_after: self.not_after,
        }
    }
}

/// Which of the pins that hold now is that of one of the keys.
pub(super) fn fit(keys: &[Pin], terms: &VerifyPolicy) -> Option<PinMatch> {
    let now = clock::unix_time().as_secs();
    terms.pins.find(keys, now.max(terms.clock_floor))
}

/// Sessions that were opened on less than all that could be asked for.
#[derive(Debug, Default)]
pub struct Doubts {
    /// None of their keys is pinned, and none needed to be.
    pub unpinned: Counter,
    /// This machine's clock was known to be wrong, and a pin stood in for it.
    pub clock: Counter,
}
