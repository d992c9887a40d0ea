//! How well are clients served?

use crate::telemetry::metrics::HistogramSnapshot;

/// How long clients waited, and how many had good answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceLevel {
    /// Queries to which an answer of the resolver was owed.
    pub eligible: u64,
    /// Those of them that were answered as quickly as they should be.
    pub good: u64,
    /// Those of them that were not answered, or with an error of ours.
    pub failed: u64,
    /// All queries.
    pub all: u64,
    /// How long clients waited for what was kept.
    pub cache_latency: HistogramSnapshot,
    /// How long clients waited for the resolver.
    pub resolver_latency: HistogramSnapshot,
}

impl ServiceLevel {
    /// What happened since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            eligible: self.eligible.saturating_sub(before.eligible),
            good: self.good.saturating_sub(before.good),
            failed: self.failed.saturating_sub(before.failed),
            all: self.all.saturating_sub(before.all),
            cache_latency: self.cache_latency.since(&before.cache_latency),
            resolver_latency: self.resolver_latency.since(&before.resolver_latency),
        }
    }

    /// How long clients waited, whoever answered.
    pub(super) fn latency(&self) -> HistogramSnapshot {
        self.cache_latency.plus(&self.resolver_latency)
    }
}
