//! How did the service do in the last minutes?
//!
//! What had been counted is noted every few seconds, for the charts of the page.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::monitoring::export::Exporter;
use crate::monitoring::service_level::ServiceLevel;

/// How often the state is noted for the charts.
pub(super) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// How often it was noted, at most.
pub(super) const MAX_INTERVALS: usize = 60;

/// How the service did in the last minutes.
pub struct History {
    /// What had been counted by then, oldest first.
    samples: VecDeque<ServiceLevel>,
    next_sample_at: Instant,
}

impl History {
    /// Of nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            samples: VecDeque::with_capacity(MAX_INTERVALS + 1),
            next_sample_at: now,
        }
    }

    /// When the next note is due.
    pub fn next_sample_at(&self) -> Instant {
        self.next_sample_at
    }

    /// Notes how the service does, if that is due.
    pub fn sample_if_due(&mut self, now: Instant, exporter: &Exporter) {
        if now < self.next_sample_at {
            return;
        }
        // A machine that slept has no steps for that time.
        self.next_sample_at = (self.next_sample_at + SAMPLE_INTERVAL).max(now);
        if self.samples.len() > MAX_INTERVALS {
            self.samples.pop_front();
        }
        self.samples.push_back(exporter.service());
    }

    /// What happened in each step, oldest first; the last one goes on until `now`.
    pub(super) fn per_interval(&self, now: &ServiceLevel) -> Vec<ServiceLevel> {
        let ends = self.samples.iter().skip(1).chain([now]);
        let per_interval = self.samples.iter().zip(ends);
        per_interval
            .map(|(before, after)| after.since(before))
            .collect()
    }

    /// What happened in all of them.
    pub(super) fn total(&self, now: &ServiceLevel) -> ServiceLevel {
        self.samples
            .front()
            .map_or(*now, |before| now.since(before))
    }
}
