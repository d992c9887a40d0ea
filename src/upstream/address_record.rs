//! What became of the queries to an address, and why did it fail last?
//!
//! For people and for monitoring: no rule of the pool reads it, so that what is shown changes nothing. It is passive like all knowledge
//! of an address. Time is passed in.

use std::fmt;
use std::time::{Duration, Instant};

use super::handshake::{ConnectError, error_text};
use crate::identity::verify_error::Check;
use crate::telemetry::metrics::{Histogram, HistogramSnapshot};

/// Distinct names in a row that must be lost, and the time that this must last, before an address with sessions counts as failing: a
/// resolver may be slow for a few names for reasons of theirs.
const FAILING_NAMES: usize = 4;
const MIN_FAILING_TIME: Duration = Duration::from_secs(1);
/// How long lost queries say that the address fails now. Where a load balancer sends nobody here because of them, nothing newer would come.
const LOSS_LIFETIME: Duration = Duration::from_secs(60);
/// Characters of the detail of a cause that are kept, at most: some come from the network.
const MAX_DETAIL: usize = 160;

/// What went wrong with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// TCP did not connect.
    Connect,
    /// TCP connected, but the TLS handshake failed.
    Handshake,
    /// The resolver has no X25519MLKEM768, which `--key-exchange require` demands.
    KeyExchange,
    /// The resolver failed this check of its identity.
    Identity(Check),
    /// A session is open, but a query had no answer by its deadline.
    NoAnswer,
    /// The resolver closed a session with queries pending.
    Closed,
    /// The resolver answered SERVFAIL or REFUSED, and did not attribute it to the name.
    ServerFailure,
}

impl FailureKind {
    /// Returns true if no session could be opened.
    pub fn is_of_connecting(self) -> bool {
        !matches!(self, Self::NoAnswer | Self::Closed | Self::ServerFailure)
    }

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::KeyExchange => "key-exchange",
            Self::Identity(Check::Chain) => "chain",
            Self::Identity(Check::Name) => "name",
            Self::Identity(Check::Pin) => "pin",
            Self::Identity(Check::Clock) => "clock",
            Self::NoAnswer => "no-answer",
            Self::Closed => "closed",
            Self::ServerFailure => "server-failure",
        }
    }

    /// In words, as a clause.
    pub fn text(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::Handshake => "TLS handshake failed",
            Self::KeyExchange => "no X25519MLKEM768",
            Self::Identity(Check::Chain) => "certificate chain refused",
            Self::Identity(Check::Name) => "certificate is for another name",
            Self::Identity(Check::Pin) => "no pin matches",
            Self::Identity(Check::Clock) => "this machine's clock is wrong",
            Self::NoAnswer => "no answer in time",
            Self::Closed => "sessions closed without an answer",
            Self::ServerFailure => "SERVFAIL or REFUSED for all names",
        }
    }
}

/// Why an address failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureCause {
    /// What went wrong.
    pub kind: FailureKind,
    /// The error's own text, at most 160 characters without control characters; empty if it adds nothing. It may hold words of a certificate.
    pub detail: String,
}

impl FailureCause {
    pub(super) fn new(kind: FailureKind, detail: &str) -> Self {
        let characters = detail.chars().take(MAX_DETAIL);
        Self {
            kind,
            detail: characters
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
        }
    }

    pub(super) fn of_connect(error: &ConnectError) -> Self {
        match error {
            ConnectError::Connect(error) => Self::new(FailureKind::Connect, &error_text(error)),
            ConnectError::Handshake(error) => Self::new(FailureKind::Handshake, &error_text(error)),
            ConnectError::KeyExchange(_) => Self::new(FailureKind::KeyExchange, ""),
            ConnectError::Identity(refusal) => {
                Self::new(FailureKind::Identity(refusal.check), &refusal.cause)
            }
        }
    }
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        match &*self.detail {
            "" => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

/// The queries and failures of one address since the start. The pool's lock guards it.
#[derive(Debug, Default)]
pub(super) struct AddressRecord {
    queries: u64,
    lost_queries: u64,
    failed_connects: u64,
    latency: Histogram,
    last_answer: Option<Instant>,
    last_failure: Option<(Instant, FailureCause)>,
    /// The first failure since the address last worked.
    failing_since: Option<Instant>,
    /// Hashes of names that were lost since the last answer.
    lost_names: Vec<u16>,
}

/// What is known of one address, in plain numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressTraffic {
    /// Queries that were sent to it. One that is sent twice counts twice.
    pub(super) queries: u64,
    /// Queries that it did not answer, or with SERVFAIL or REFUSED and no reason in the name.
    pub(super) lost_queries: u64,
    /// Attempts to open a session that failed.
    pub(super) failed_connects: u64,
    /// From sending a query to its answer.
    pub(super) latency: HistogramSnapshot,
    /// When it last gave an answer.
    pub(super) last_answer: Option<Instant>,
    /// When it last failed, and why.
    pub(super) last_failure: Option<(Instant, FailureCause)>,
    /// Since when it fails, if it does now.
    pub(super) failing_since: Option<Instant>,
}

impl AddressRecord {
    /// A query is sent to the address.
    pub(super) fn record_query(&mut self) {
        self.queries += 1;
    }

    /// The address answered, and did not fail the query, after `took`.
    pub(super) fn record_answer(&mut self, took: Duration, now: Instant) {
        self.latency.observe(took, 1);
        self.last_answer = Some(now);
        self.failing_since = None;
        self.lost_names.clear();
    }

    /// An attempt to open a session failed.
    pub(super) fn record_failed_connect(&mut self, cause: FailureCause, now: Instant) {
        self.failed_connects += 1;
        if !self.lost_names.is_empty() && self.is_outdated(now) {
            self.reset();
        }
        self.failing_since.get_or_insert(now);
        self.last_failure = Some((now, cause));
    }

    /// A session is open. That proves nothing if sessions were open before, and silent.
    pub(super) fn record_session(&mut self) {
        if self.lost_names.is_empty() {
            self.failing_since = None;
        }
    }

    /// A query for a name with this hash was lost.
    pub(super) fn record_lost_query(&mut self, kind: FailureKind, name: u16, now: Instant) {
        self.lost_queries += 1;
        if self.lost_names.is_empty() || self.is_outdated(now) {
            self.failing_since = Some(now);
            self.lost_names.clear();
        }
        if self.lost_names.len() < FAILING_NAMES && !self.lost_names.contains(&name) {
            self.lost_names.push(name);
        }
        self.last_failure = Some((now, FailureCause::new(kind, "")));
    }

    /// Clears what is known to fail: the address may have another identity now.
    pub(super) fn reset(&mut self) {
        self.failing_since = None;
        self.lost_names.clear();
    }

    /// Nothing was lost for so long that nothing is known.
    fn is_outdated(&self, now: Instant) -> bool {
        let last = self.last_failure.as_ref();
        last.is_some_and(|(at, _)| now >= *at + LOSS_LIFETIME)
    }

    /// Queries to several names in a row were lost.
    fn loses_queries(&self, now: Instant) -> bool {
        let lasts = self
            .failing_since
            .is_some_and(|since| now >= since + MIN_FAILING_TIME);
        self.lost_names.len() >= FAILING_NAMES && lasts && !self.is_outdated(now)
    }

    /// What is known at `now` of an address that `has_sessions`.
    pub(super) fn traffic(&self, has_sessions: bool, now: Instant) -> AddressTraffic {
        let cannot_connect = !has_sessions
            && self
                .last_failure
                .as_ref()
                .is_some_and(|(_, cause)| cause.kind.is_of_connecting());
        let is_failing = cannot_connect || self.loses_queries(now);
        AddressTraffic {
            queries: self.queries,
            lost_queries: self.lost_queries,
            failed_connects: self.failed_connects,
            latency: self.latency.snapshot(),
            last_answer: self.last_answer,
            last_failure: self.last_failure.clone(),
            failing_since: self.failing_since.filter(|_| is_failing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        *START + Duration::from_secs(seconds)
    }

    static START: std::sync::LazyLock<Instant> =
        std::sync::LazyLock::new(crate::system::clock::now);

    fn is_failing(record: &AddressRecord, has_sessions: bool, seconds: u64) -> bool {
        record
            .traffic(has_sessions, at(seconds))
            .failing_since
            .is_some()
    }

    #[test]
    fn an_address_that_cannot_be_connected_fails_until_a_session_opens() {
        let mut record = AddressRecord::default();
        assert!(!is_failing(&record, false, 0), "it was not tried");
        let cause = FailureCause::new(FailureKind::Identity(Check::Chain), "UnknownIssuer");
        record.record_failed_connect(cause.clone(), at(1));
        record.record_failed_connect(cause, at(5));
        let traffic = record.traffic(false, at(9));
        assert_eq!(traffic.failing_since, Some(at(1)));
        assert_eq!(traffic.failed_connects, 2);
        let (last, cause) = traffic.last_failure.expect("it failed");
        assert_eq!(
            (last, &*cause.to_string()),
            (at(5), "certificate chain refused: UnknownIssuer")
        );
        assert!(is_failing(&record, false, 9999), "nothing tells otherwise");
        assert!(!is_failing(&record, true, 9), "another session works");
        record.record_session();
        assert!(!is_failing(&record, false, 9));
    }

    #[test]
    fn an_address_that_loses_several_names_in_a_row_fails_until_it_answers() {
        let mut record = AddressRecord::default();
        for second in 0..9 {
            record.record_lost_query(FailureKind::NoAnswer, 7, at(second));
        }
        assert!(!is_failing(&record, true, 9), "one name");
        for name in 8..10 {
            record.record_lost_query(FailureKind::NoAnswer, name, at(9));
        }
        record.record_lost_query(FailureKind::NoAnswer, 10, at(10));
        record.record_lost_query(FailureKind::NoAnswer, 11, at(10));
        assert_eq!(record.traffic(true, at(10)).failing_since, Some(at(0)));
        assert!(is_failing(&record, false, 10), "with or without a session");
        record.record_session();
        assert!(is_failing(&record, true, 10), "a session proves nothing");
        record.record_answer(Duration::from_millis(3), at(11));
        assert!(!is_failing(&record, true, 11));
    }

    #[test]
    fn a_loss_that_nobody_repeats_is_forgotten() {
        let mut record = AddressRecord::default();
        for name in 0..4 {
            record.record_lost_query(FailureKind::Closed, name, at(u64::from(name)));
        }
        assert!(is_failing(&record, true, 62) && !is_failing(&record, true, 63));
        record.record_lost_query(FailureKind::Closed, 5, at(70));
        assert!(!is_failing(&record, true, 72), "it is one name again");
    }

    #[test]
    fn names_lost_in_one_moment_are_no_outage() {
        let mut record = AddressRecord::default();
        for name in 0..100 {
            record.record_lost_query(FailureKind::Closed, name, at(0));
        }
        assert!(!is_failing(&record, true, 0));
    }

    #[test]
    fn what_the_network_says_is_bounded_and_has_no_control_characters() {
        let cause = FailureCause::new(FailureKind::Handshake, &"\x1b[2Jä".repeat(1000));
        assert_eq!(cause.detail.chars().count(), MAX_DETAIL);
        assert!(cause.detail.starts_with("?[2Jä?[2J"));
    }
}
