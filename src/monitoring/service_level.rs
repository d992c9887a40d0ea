//! How well are clients served?

use crate::forward::counts::{AnswerSource, Counts};
use crate::forward::outcome::Outcome;
use crate::telemetry::metrics::HistogramSnapshot;

/// Service level indicators: how many queries had good answers, and how long clients waited.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceLevel {
    /// Queries that should have got an answer from the resolver.
    pub eligible: u64,
    /// Eligible queries that were answered within `--slo-latency`.
    pub good: u64,
    /// Eligible queries whose clients got no answer, or an error of ours.
    pub failed: u64,
    /// All queries.
    pub all: u64,
    /// How long clients waited for answers from the cache.
    pub cache_latency: HistogramSnapshot,
    /// How long clients waited for answers from the resolver.
    pub resolver_latency: HistogramSnapshot,
}

impl ServiceLevel {
    /// What `counts` say of the time since the start.
    pub(super) fn of(counts: &Counts) -> Self {
        let mut service = Self {
            good: counts.slo_good(),
            cache_latency: counts.latencies(AnswerSource::Cache),
            resolver_latency: counts.latencies(AnswerSource::Resolver),
            ..Self::default()
        };
        for outcome in Outcome::ALL {
            let (count, unsent) = counts.counted_and_unsent(outcome);
            service.all += count;
            if outcome.counts_for_slo() {
                service.eligible += count;
                service.failed += if outcome.is_served() { unsent } else { count };
            }
        }
        service
    }

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

    /// How long clients waited for an answer from either.
    pub(super) fn latency(&self) -> HistogramSnapshot {
        self.cache_latency.plus(&self.resolver_latency)
    }
}
