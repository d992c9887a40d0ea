//! How are the resolvers doing, for monitoring?

use std::time::Instant;

use super::address_record::{AddressTraffic, FailureCause};
use super::channel::CloseReason;
use super::handshake::ConnectError;
use super::obstruction::Obstruction;
use crate::identity::certificate::CertificateInfo;
use crate::identity::chain::VerifiedPeer;
use crate::identity::key_exchange::Group;
use crate::identity::pin::{Pin, PinMatch};
use crate::identity::verify_policy::VerifyPolicy;
use crate::system::clock;
use crate::system::scoped_address::ScopedAddress;
use crate::telemetry::metrics::{Counter, Histogram, HistogramSnapshot};

/// Counters of sessions and queries, over all resolvers. Threads share it without a lock.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// How long opening a session took, from the TCP connection to the end of authentication: with a full handshake, and with a resumed
    /// one.
    pub handshake_times: [Histogram; 2],
    /// Sessions that were opened with TLS, by [`Group`].
    pub key_exchanges: [Counter; Group::ALL.len()],
    /// How often an address was found to answer small hellos only.
    pub post_quantum_left_out: Counter,
    /// Time from sending a query to its answer.
    pub query_latency: Histogram,
    /// Sessions that ended: by the resolver, by an I/O error, by something that is no DNS message, and from this side.
    pub sessions_closed: [Counter; 4],
    /// Attempts that failed at the TCP connection, and in the TLS handshake.
    pub connect_failures: [Counter; 2],
    /// Authentication failures, by [`crate::identity::verify_error::Check`].
    pub authentication_failures: [Counter; 4],
    /// Sessions that were opened with less than what is wanted.
    pub degraded: DegradedSessions,
    /// Queries that ended a session on which they were alone.
    pub culprits: Counter,
}

impl UpstreamMetrics {
    pub(super) fn count_failure(&self, error: &ConnectError) {
        match error {
            ConnectError::Connect(_) => self.connect_failures[0].increment(),
            ConnectError::Handshake(_) | ConnectError::KeyExchange(_) => {
                self.connect_failures[1].increment()
            }
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
            // A thread that panicked abandons its session.
            Some(CloseReason::Local) | None => 3,
        };
        self.sessions_closed[reason].increment();
    }
}

/// The status of one address of a resolver.
#[derive(Debug, Clone)]
pub struct AddressStatus {
    /// The address.
    pub address: ScopedAddress,
    /// The name that the certificate must bear, or that there is none.
    pub name: String,
    /// The zones for which alone it is asked, in words; empty if it is asked for all.
    pub zones: String,
    /// Its queries leave in cleartext.
    pub is_cleartext: bool,
    /// A session was open once.
    pub was_open: bool,
    /// Number of sessions that take queries.
    pub sessions: usize,
    /// A session was open once, and the address is neither backed off (after a failure, or since it was slower than another) nor failing.
    pub healthy: bool,
    /// What keeps all addresses of the main resolvers from being reached, if anything does.
    pub obstruction: Option<Obstruction>,
    /// Queries that were sent to it since the start. One that is sent twice counts twice.
    pub queries: u64,
    /// Queries that it did not answer, or with SERVFAIL or REFUSED and no reason in the name.
    pub lost_queries: u64,
    /// Attempts to open a session that failed.
    pub failed_connects: u64,
    /// From sending a query to its answer, since the start.
    pub latency: HistogramSnapshot,
    /// When it last gave an answer, in seconds since 1970.
    pub last_answer: Option<u64>,
    /// Its last failure, whatever came after.
    pub last_failure: Option<LastFailure>,
    /// Since when it cannot be asked or loses all queries, in seconds since 1970, if it does now.
    pub failing_since: Option<u64>,
    /// Number of pins.
    pub pins: usize,
    /// The key exchange of the last session that was opened with TLS, if any was.
    pub group: Option<Group>,
    /// The address gets small hellos, without X25519MLKEM768.
    pub post_quantum_left_out: bool,
    /// The pin and certificate of the last session that was opened, if any was.
    pub pin_status: Option<PinStatus>,
}

/// When and why an address failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// Seconds since 1970.
    pub at: u64,
    /// Why.
    pub cause: FailureCause,
}

impl AddressStatus {
    /// The status of an address that was not tried yet.
    pub fn new(address: ScopedAddress, name: String) -> Self {
        Self {
            address,
            name,
            zones: String::new(),
            is_cleartext: false,
            was_open: false,
            sessions: 0,
            healthy: false,
            obstruction: None,
            queries: 0,
            lost_queries: 0,
            failed_connects: 0,
            latency: HistogramSnapshot::default(),
            last_answer: None,
            last_failure: None,
            failing_since: None,
            pins: 0,
            group: None,
            post_quantum_left_out: false,
            pin_status: None,
        }
    }

    /// Adds what became of the queries. `now` is the same moment as `unix_now`.
    pub(super) fn with_traffic(self, traffic: AddressTraffic, now: Instant, unix_now: u64) -> Self {
        let unix_time =
            |at: Instant| unix_now.saturating_sub(now.saturating_duration_since(at).as_secs());
        Self {
            queries: traffic.queries,
            lost_queries: traffic.lost_queries,
            failed_connects: traffic.failed_connects,
            latency: traffic.latency,
            last_answer: traffic.last_answer.map(unix_time),
            last_failure: traffic.last_failure.map(|(at, cause)| LastFailure {
                at: unix_time(at),
                cause,
            }),
            failing_since: traffic.failing_since.map(unix_time),
            ..self
        }
    }
}

/// Which pin matched, and how long the certificate is valid, when an address was last authenticated.
#[derive(Debug, Clone, Copy)]
pub struct PinStatus {
    /// The number of the matching pin among those of the resolver, from 1; 0 if none matched.
    pub pin_index: usize,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: Option<u64>,
}

/// The keys that were presented. They are kept since the pins may change later.
pub(super) struct PresentedKeys {
    keys: Vec<Pin>,
    not_after: Option<u64>,
}

impl PresentedKeys {
    pub(super) fn from_proof(proof: &VerifiedPeer) -> Self {
        let leaf = proof.certificates.first();
        Self {
            keys: proof.keys.clone(),
            not_after: leaf
                .and_then(CertificateInfo::read)
                .map(|facts| facts.not_after),
        }
    }

    pub(super) fn pin_status(&self, terms: &VerifyPolicy) -> PinStatus {
        PinStatus {
            pin_index: find_pin(&self.keys, terms).map_or(0, |pin| pin.pin_index + 1),
            not_after: self.not_after,
        }
    }
}

/// Finds the pin, among those valid now, that matches one of the keys.
pub(super) fn find_pin(keys: &[Pin], terms: &VerifyPolicy) -> Option<PinMatch> {
    let now = clock::unix_time().as_secs();
    terms.pins.find(keys, now.max(terms.clock_floor))
}

/// Counts of sessions that were opened with less than full authentication, or without post-quantum keys because of their size.
#[derive(Debug, Default)]
pub struct DegradedSessions {
    /// Sessions without a pinned key, where none was required.
    pub unpinned: Counter,
    /// Sessions that were accepted by a pin although this machine's clock was known to be wrong.
    pub clock: Counter,
    /// Sessions with the small hello, since the large one fails.
    pub small_hello: Counter,
}
