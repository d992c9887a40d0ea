//! How did the service do in the last minutes?
//!
//! The level of service is sampled every few seconds, for the charts of the page.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::monitoring::export::Exporter;
use crate::monitoring::service_level::ServiceLevel;

/// How often a sample is taken.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// How many intervals are kept: ten minutes.
pub(super) const MAX_INTERVALS: usize = 60;

/// Samples of the level of service in the last minutes. Only the thread of the monitoring port uses it.
pub struct History {
    /// Totals since the start at each sample, oldest first.
    samples: VecDeque<ServiceLevel>,
    next_sample_at: Instant,
}

impl History {
    /// Starts without samples. The first one is due at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            samples: VecDeque::with_capacity(MAX_INTERVALS + 1),
            next_sample_at: now,
        }
    }

    /// When the next sample is due.
    pub fn next_sample_at(&self) -> Instant {
        self.next_sample_at
    }

    /// Takes a sample if one is due.
    pub fn sample_if_due(&mut self, now: Instant, exporter: &Exporter) {
        if now < self.next_sample_at {
            return;
        }
        // After a suspend, no samples are taken for the time of the suspend.
        self.next_sample_at = (self.next_sample_at + SAMPLE_INTERVAL).max(now);
        if self.samples.len() > MAX_INTERVALS {
            self.samples.pop_front();
        }
        self.samples.push_back(exporter.service());
    }

    /// What happened in each interval, oldest first. The last interval ends with `now`.
    pub(super) fn per_interval(&self, now: &ServiceLevel) -> Vec<ServiceLevel> {
        let ends = self.samples.iter().skip(1).chain([now]);
        let per_interval = self.samples.iter().zip(ends);
        per_interval
            .map(|(before, after)| after.since(before))
            .collect()
    }

    /// What happened in all intervals together.
    pub(super) fn total(&self, now: &ServiceLevel) -> ServiceLevel {
        self.samples
            .front()
            .map_or(*now, |before| now.since(before))
    }
}
