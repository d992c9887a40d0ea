//! How well are clients served?

use crate::telemetry::metrics::HistogramSnapshot;

/// How long clients waited, and how many had good answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Service {
    /// Queries to which an answer of the resolver was owed.
    pub owed: u64,
    /// Those of them that were answered as quickly as they should be.
    pub good: u64,
    /// Those of them that were not answered, or with an error of ours.
    pub failed: u64,
    /// All queries.
    pub all: u64,
    /// How long clients waited for what was kept.
    pub cache: HistogramSnapshot,
    /// How long clients waited for the resolver.
    pub resolver: HistogramSnapshot,
}

impl Service {
    /// What happened since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            owed: self.owed.saturating_sub(before.owed),
            good: self.good.saturating_sub(before.good),
            failed: self.failed.saturating_sub(before.failed),
            all: self.all.saturating_sub(before.all),
            cache: self.cache.since(&before.cache),
            resolver: self.resolver.since(&before.resolver),
        }
    }

    /// How long clients waited, whoever answered.
    pub(super) fn answers(&self) -> HistogramSnapshot {
        self.cache.plus(&self.resolver)
    }
}
