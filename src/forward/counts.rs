//! How many queries ended how, and how soon?

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::forward::outcome::Outcome;
use crate::system::clock::micros;
use crate::telemetry::metrics::{Counter, Histogram, HistogramSnapshot};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
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
    /// How long clients waited, by [`Source`].
    answers: [Histogram; 2],
    /// Queries whose clients got the resolver's answer in time.
    good: Counter,
    /// In what time they should get it, in microseconds.
    slo_latency: AtomicU64,
    /// Queries to which no answer was kept.
    misses: Counter,
    /// Answers that were given and asked for again behind it.
    renewals: Counter,
}

impl Counts {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            outcomes: Default::default(),
            answers: Default::default(),
            slo_latency: AtomicU64::new(0),
            good: Counter::new(),
            misses: Counter::new(),
            renewals: Counter::new(),
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
    pub(super) fn add_renewal(&self) {
        self.renewals.increment();
    }

    /// Has answers be good that are as quick as that, from now on.
    pub(super) fn aim(&self, slo_latency: Duration) {
        self.slo_latency
            .store(micros(slo_latency), Ordering::Relaxed);
    }

    /// Notes that so many answers took so long, and how many of them were the resolver's.
    pub(super) fn measure(&self, source: Source, took: Duration, answers: u64, served: u64) {
        self.answers[source as usize].observe(took, answers);
        if micros(took) <= self.slo_latency.load(Ordering::Relaxed) {
            self.good.add(served);
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
    pub fn answers(&self, source: Source) -> HistogramSnapshot {
        self.answers[source as usize].snapshot()
    }

    /// Queries whose clients got the resolver's answer as quickly as they should.
    pub fn good(&self) -> u64 {
        self.good.value()
    }

    /// Queries to which no answer was kept.
    pub fn misses(&self) -> u64 {
        self.misses.value()
    }

    /// Answers that were given and asked for again behind it.
    pub fn renewals(&self) -> u64 {
        self.renewals.value()
    }
}
