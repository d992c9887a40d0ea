//! How many queries ended how, and how soon?

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::forward::outcome::Outcome;
use crate::system::clock::micros;
use crate::telemetry::metrics::{Counter, Histogram, Spread};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerSource {
    /// It was kept.
    Cache,
    /// It was waited for.
    Resolver,
}

/// How all queries since the start ended, and how long their clients waited.
#[derive(Debug)]
pub struct Counts {
    /// By UDP, and by TCP.
    outcomes: [[Counter; Outcome::ALL.len()]; 2],
    /// How long clients waited, by [`AnswerSource`].
    latencies: [Histogram; 2],
    /// Queries whose clients got the resolver's answer in time.
    slo_good: Counter,
    /// In what time they should get it, in microseconds.
    slo_latency: AtomicU64,
    /// Queries to which no answer was kept.
    misses: Counter,
    /// Answers that were given and asked for again behind it.
    prefetches: Counter,
}

impl Counts {
    /// None yet.
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

    /// Counts a query that ended so, and came by TCP or by UDP.
    pub(super) fn add(&self, tcp: bool, outcome: Outcome) {
        self.outcomes[usize::from(tcp)][outcome as usize].increment();
    }

    /// Counts a query to which no answer was kept.
    pub(super) fn add_miss(&self) {
        self.misses.increment();
    }

    /// Counts an answer that was given and is asked for again behind it.
    pub(super) fn add_prefetch(&self) {
        self.prefetches.increment();
    }

    /// Has answers be good that are as quick as that, from now on.
    pub(super) fn set_slo_latency(&self, slo_latency: Duration) {
        self.slo_latency
            .store(micros(slo_latency), Ordering::Relaxed);
    }

    /// Notes that so many answers took so long, and how many of them were the resolver's.
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

    /// How many queries ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.count_by(false, outcome) + self.count_by(true, outcome)
    }

    /// How many of those that came by TCP ended so, or of those that came by UDP.
    pub fn count_by(&self, tcp: bool, outcome: Outcome) -> u64 {
        self.outcomes[usize::from(tcp)][outcome as usize].value()
    }

    /// How long clients waited for answers from there.
    pub fn latencies(&self, source: AnswerSource) -> Spread {
        self.latencies[source as usize].value()
    }

    /// Queries whose clients got the resolver's answer as quickly as they should.
    pub fn slo_good(&self) -> u64 {
        self.slo_good.value()
    }

    /// Queries to which no answer was kept.
    pub fn misses(&self) -> u64 {
        self.misses.value()
    }

    /// Answers that were given and asked for again behind it.
    pub fn prefetches(&self) -> u64 {
        self.prefetches.value()
    }
}
