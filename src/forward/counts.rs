//! How many queries had which outcome, and how long did they take?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::client::unsent_replies::UnsentReplies;
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
///
/// A query is counted before its reply is sent. If the kernel then refuses the reply, `unsent_replies` counts it too, and its outcome is
/// [`Outcome::NotSent`] in place of the first one.
#[derive(Debug)]
pub struct Counts {
    /// By transport (UDP, TCP) and outcome.
    outcomes: [[Counter; Outcome::ALL.len()]; 2],
    unsent_replies: Arc<UnsentReplies>,
    /// The last values of the outcomes and of `slo_good` that were read.
    outcomes_read: [[AtomicU64; Outcome::ALL.len()]; 2],
    slo_good_read: AtomicU64,
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
            unsent_replies: Arc::default(),
            outcomes_read: Default::default(),
            slo_good_read: AtomicU64::new(0),
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

    /// Whether the objective counts an answer for which the client waited for `took` as good.
    pub(super) fn is_good(&self, took: Duration) -> bool {
        micros(took) <= self.slo_latency.load(Ordering::Relaxed)
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
        if self.is_good(took) {
            self.slo_good.add(served);
        }
    }

    /// The number of queries with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.count_by(false, outcome) + self.count_by(true, outcome)
    }

    /// The number of queries over TCP with this outcome, or over UDP.
    pub fn count_by(&self, tcp: bool, outcome: Outcome) -> u64 {
        let unsent_of = |outcome: Outcome| self.unsent_replies.count_by(tcp, outcome as usize);
        if outcome == Outcome::NotSent {
            return Outcome::ALL.into_iter().map(unsent_of).sum();
        }
        let unsent = unsent_of(outcome);
        let counted = self.outcomes[usize::from(tcp)][outcome as usize].value();
        let read = &self.outcomes_read[usize::from(tcp)][outcome as usize];
        read_without_unsent(counted, unsent, read)
    }

    /// The number of queries with this outcome, whether their reply was sent or not, and of those whose reply was not sent.
    pub fn counted_and_unsent(&self, outcome: Outcome) -> (u64, u64) {
        let index = outcome as usize;
        let unsent = [false, true].map(|tcp| self.unsent_replies.count_by(tcp, index));
        let counted = self.outcomes.each_ref().map(|by| by[index].value());
        (counted.iter().sum(), unsent.iter().sum())
    }

    /// The counts of replies that the kernel refused to send.
    pub fn unsent_replies(&self) -> &Arc<UnsentReplies> {
        &self.unsent_replies
    }

    /// How long clients waited for answers from this source.
    pub fn latencies(&self, source: AnswerSource) -> HistogramSnapshot {
        self.latencies[source as usize].snapshot()
    }

    /// The number of queries that were served within the latency objective.
    pub fn slo_good(&self) -> u64 {
        let unsent = self.unsent_replies.good();
        read_without_unsent(self.slo_good.value(), unsent, &self.slo_good_read)
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

/// The counted replies less the unsent ones, which must be read first, or the value that was `read` before if that is larger. A reply is counted
/// just before the kernel refuses it, and a metric must not shrink.
fn read_without_unsent(counted: u64, unsent: u64, read: &AtomicU64) -> u64 {
    let value = counted.saturating_sub(unsent);
    read.fetch_max(value, Ordering::Relaxed).max(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_without_the_unsent_replies_never_shrinks() {
        let read = AtomicU64::new(0);
        assert_eq!(read_without_unsent(10, 0, &read), 10);
        assert_eq!(read_without_unsent(10, 4, &read), 10);
        assert_eq!(read_without_unsent(13, 4, &read), 10);
        assert_eq!(read_without_unsent(15, 4, &read), 11);
        assert_eq!(read_without_unsent(0, 1, &AtomicU64::new(0)), 0);
    }
}
