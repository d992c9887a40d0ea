//! How many queries had which outcome, and how long did they take?

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::forward::outcome::Outcome;
use crate::system::clock::micros;
use crate::telemetry::metrics::{Counter, Histogram, HistogramSnapshot};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerSource {
    /// From the cache.
    Cache,
    /// From the resolver: the client waited for it.
    Resolver,
}

/// Counts the outcomes of all queries since the start, and how long clients waited. All fields are atomic.
#[derive(Debug)]
pub struct Counts {
    /// By transport (UDP, TCP) and outcome.
    outcomes: [[Counter; Outcome::ALL.len()]; 2],
    /// How long clients waited, by [`AnswerSource`].
    latencies: [Histogram; 2],
    /// Queries that were served within `slo_latency`.
    slo_good: Counter,
    /// The latency objective in microseconds.
    slo_latency: AtomicU64,
    /// Queries that waited for the resolver, since the cache had no fresh answer.
    misses: Counter,
    /// Cached answers that were served and then asked for again.
    prefetches: Counter,
}

impl Counts {
    /// All counts are 0.
    pub(super) fn new() -> Self {
        Self {
            outcomes: Default::default(),
            latencies: Default::default(),
            slo_latency: AtomicU64::new(0),
            slo_good: Counter::new(),
            misses: Counter::new(),
            prefetches: Counter::new(),
        }
    }

    /// Counts the outcome of a query that came over TCP or UDP.
    pub(super) fn add(&self, tcp: bool, outcome: Outcome) {
        self.outcomes[usize::from(tcp)][outcome as usize].increment();
    }

    /// Counts queries that wait for the resolver, since the cache has no fresh answer.
    pub(super) fn add_misses(&self, queries: u64) {
        self.misses.add(queries);
    }

    /// Counts a cached answer that was served and is asked for again.
    pub(super) fn add_prefetch(&self) {
        self.prefetches.increment();
    }

    /// Sets the latency within which an answer counts as good.
    pub(super) fn set_slo_latency(&self, slo_latency: Duration) {
        self.slo_latency
            .store(micros(slo_latency), Ordering::Relaxed);
    }

    /// Records that `answers` clients waited for `took`. Of them `served` got an answer of the resolver, fresh or cached.
    pub(super) fn record_latency(
        &self,
        source: AnswerSource,
        took: Duration,
        answers: u64,
        served: u64,
    ) {
        self.latencies[source as usize].observe(took, answers);
        if micros(took) <= self.slo_latency.load(Ordering::Relaxed) {
            self.slo_good.add(served);
        }
    }

    /// The number of queries with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.count_by(false, outcome) + self.count_by(true, outcome)
    }

    /// The number of queries over TCP with this outcome, or over UDP.
    pub fn count_by(&self, tcp: bool, outcome: Outcome) -> u64 {
        self.outcomes[usize::from(tcp)][outcome as usize].value()
    }

    /// How long clients waited for answers from this source.
    pub fn latencies(&self, source: AnswerSource) -> HistogramSnapshot {
        self.latencies[source as usize].snapshot()
    }

    /// The number of queries that were served within the latency objective.
    pub fn slo_good(&self) -> u64 {
        self.slo_good.value()
    }

    /// The number of queries that waited for the resolver, since the cache had no fresh answer.
    pub fn misses(&self) -> u64 {
        self.misses.value()
    }

    /// The number of cached answers that were served and then asked for again.
    pub fn prefetches(&self) -> u64 {
        self.prefetches.value()
    }
}
