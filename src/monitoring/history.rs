//! How did the service do in the last minutes?
//!
//! What had been counted is noted every few seconds, for the charts of the page.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::monitoring::export::Sources;
use crate::monitoring::service::Service;

/// How often the state is noted for the charts.
pub(super) const STEP: Duration = Duration::from_secs(10);
/// How often it was noted, at most.
pub(super) const STEPS: usize = 60;

/// How the service did in the last minutes.
pub struct History {
    /// What had been counted by then, oldest first.
    notes: VecDeque<Service>,
    next: Instant,
}

impl History {
    /// Of nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            notes: VecDeque::with_capacity(STEPS + 1),
            next: now,
        }
    }

    /// When the next note is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Notes how the service does, if that is due.
    pub fn take(&mut self, now: Instant, sources: &Sources) {
        if now < self.next {
            return;
        }
        // A machine that slept has no steps for that time.
        self.next = (self.next + STEP).max(now);
        if self.notes.len() > STEPS {
            self.notes.pop_front();
        }
        self.notes.push_back(sources.service());
    }

    /// What happened in each step, oldest first; the last one goes on until `now`.
    pub(super) fn steps(&self, now: &Service) -> Vec<Service> {
        let ends = self.notes.iter().skip(1).chain([now]);
        let steps = self.notes.iter().zip(ends);
        steps.map(|(before, after)| after.since(before)).collect()
    }

    /// What happened in all of them.
    pub(super) fn whole(&self, now: &Service) -> Service {
        self.notes.front().map_or(*now, |before| now.since(before))
    }
}
