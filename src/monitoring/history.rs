//! How did the service do in the last minutes?
//!
//! The level of service is sampled every ten seconds for ten minutes, and every minute for an hour, so that an hour costs no more memory
//! than its number of samples.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::monitoring::export::Exporter;
use crate::monitoring::resolver_metrics::{ResolverFigures, resolver_labels};
use crate::monitoring::service_level::ServiceLevel;
use crate::telemetry::metrics::HistogramSnapshot;
use crate::upstream::AddressStatus;

/// How many intervals of each length are kept.
pub const MAX_INTERVALS: usize = 60;
/// The short interval: 60 of them are ten minutes.
const SHORT: Duration = Duration::from_secs(10);
/// The long interval: 60 of them are an hour.
const LONG: Duration = Duration::from_secs(60);
/// Short intervals in the last minute.
const LAST_MINUTE: usize = 6;
/// Samples of each address that are kept: ten minutes.
const ADDRESS_SAMPLES: usize = 10;
/// Addresses of which samples are kept, at most.
const MAX_ADDRESSES: usize = 64;

/// Totals since the start, sampled at an interval, oldest first.
struct Samples {
    interval: Duration,
    totals: VecDeque<ServiceLevel>,
    next_at: Instant,
}

impl Samples {
    fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            totals: VecDeque::with_capacity(MAX_INTERVALS + 1),
            next_at: now,
        }
    }

    /// Takes a sample if one is due. Returns true if it was.
    fn sample_if_due(&mut self, now: Instant, exporter: &Exporter) -> bool {
        if now < self.next_at {
            return false;
        }
        // After a suspend, no samples are taken for the time of the suspend.
        self.next_at = (self.next_at + self.interval).max(now);
        if self.totals.len() > MAX_INTERVALS {
            self.totals.pop_front();
        }
        self.totals.push_back(exporter.service());
        true
    }

    /// What happened in each interval, oldest first. The last interval ends with `now`.
    fn per_interval(&self, now: &ServiceLevel) -> Vec<ServiceLevel> {
        let ends = self.totals.iter().skip(1).chain([now]);
        let per_interval = self.totals.iter().zip(ends);
        per_interval
            .map(|(before, after)| after.since(before))
            .collect()
    }

    /// What happened in the last `intervals` and the one that goes on.
    fn total(&self, intervals: usize, now: &ServiceLevel) -> ServiceLevel {
        let first = self.totals.len().saturating_sub(intervals + 1);
        self.totals
            .get(first)
            .map_or(*now, |before| now.since(before))
    }
}

/// The latency of one address, sampled every minute.
struct AddressSamples {
    /// The labels of the address in metrics.
    labels: String,
    totals: VecDeque<HistogramSnapshot>,
}

/// Samples of the level of service in the last hour. Only the thread of the monitoring port uses it.
pub struct History {
    short: Samples,
    long: Samples,
    addresses: Vec<AddressSamples>,
}

impl History {
    /// Starts without samples. The first one is due at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            short: Samples::new(SHORT, now),
            long: Samples::new(LONG, now),
            addresses: Vec::new(),
        }
    }

    /// When the next sample is due.
    pub fn next_sample_at(&self) -> Instant {
        self.short.next_at.min(self.long.next_at)
    }

    /// Takes the samples that are due.
    pub fn sample_if_due(&mut self, now: Instant, exporter: &Exporter) {
        self.short.sample_if_due(now, exporter);
        if self.long.sample_if_due(now, exporter) {
            self.sample_addresses(&exporter.address_status());
        }
    }

    /// Takes a sample of each address, and forgets those that are gone.
    fn sample_addresses(&mut self, addresses: &[AddressStatus]) {
        let mut before = std::mem::take(&mut self.addresses);
        for status in addresses.iter().take(MAX_ADDRESSES) {
            let labels = resolver_labels(status);
            let known = before.iter().position(|samples| samples.labels == labels);
            let mut samples = known.map_or_else(
                || AddressSamples {
                    labels,
                    totals: VecDeque::new(),
                },
                |index| before.swap_remove(index),
            );
            if samples.totals.len() > ADDRESS_SAMPLES {
                samples.totals.pop_front();
            }
            samples.totals.push_back(status.latency);
            self.addresses.push(samples);
        }
    }

    /// Each address, with its latency in the last ten minutes.
    pub fn with_latency(&self, addresses: Vec<AddressStatus>) -> Vec<ResolverFigures> {
        let figures = |status: AddressStatus| {
            let labels = resolver_labels(&status);
            let samples = self
                .addresses
                .iter()
                .find(|samples| samples.labels == labels);
            let first = samples.and_then(|samples| samples.totals.front());
            // A reload may have begun a new count.
            let first = first.filter(|first| first.count() <= status.latency.count());
            let latency = first.map_or(status.latency, |first| status.latency.since(first));
            ResolverFigures { status, latency }
        };
        addresses.into_iter().map(figures).collect()
    }

    /// What happened in each ten seconds of the last ten minutes, oldest first. The last interval ends with `now`.
    pub fn ten_minutes(&self, now: &ServiceLevel) -> Vec<ServiceLevel> {
        self.short.per_interval(now)
    }

    /// What happened in each minute of the last hour.
    pub fn hour(&self, now: &ServiceLevel) -> Vec<ServiceLevel> {
        self.long.per_interval(now)
    }

    /// What happened in the last minute, or a few seconds more.
    pub fn last_minute(&self, now: &ServiceLevel) -> ServiceLevel {
        self.short.total(LAST_MINUTE, now)
    }

    /// What happened in the last ten minutes.
    pub fn last_ten_minutes(&self, now: &ServiceLevel) -> ServiceLevel {
        self.short.total(MAX_INTERVALS, now)
    }

    /// What happened in the last hour.
    pub fn last_hour(&self, now: &ServiceLevel) -> ServiceLevel {
        self.long.total(MAX_INTERVALS, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(all: u64) -> ServiceLevel {
        ServiceLevel {
            all,
            ..ServiceLevel::default()
        }
    }

    #[test]
    fn a_total_is_that_of_its_intervals_and_of_the_one_that_goes_on() {
        let now = crate::system::clock::now();
        let mut samples = Samples::new(SHORT, now);
        assert_eq!(samples.total(6, &level(3)).all, 3, "nothing was sampled");
        samples
            .totals
            .extend((0..60).map(|count| level(count * 10)));
        assert_eq!(samples.total(6, &level(593)).all, 593 - 530);
        assert_eq!(samples.total(60, &level(593)).all, 593);
        let per_interval = samples.per_interval(&level(593));
        assert_eq!(per_interval.len(), 60);
        assert_eq!(per_interval[0].all, 10);
        assert_eq!(per_interval[59].all, 3);
    }

    #[test]
    fn the_latency_of_an_address_is_that_of_ten_minutes_and_begins_anew_with_its_count() {
        let mut history = History::new(crate::system::clock::now());
        let status = |answers: u64| {
            let mut status =
                AddressStatus::new("192.0.2.1:853".parse().expect("an address"), "x".to_owned());
            status.latency.buckets[3] = answers;
            status
        };
        let recent = |history: &History, answers| {
            let figures = history.with_latency(vec![status(answers)]);
            figures[0].latency.count()
        };
        assert_eq!(recent(&history, 7), 7);
        for minute in 0..30 {
            history.sample_addresses(&[status(100 * minute)]);
        }
        assert_eq!(recent(&history, 2950), 2950 - 1900);
        assert_eq!(recent(&history, 5), 5, "after a reload");
        history.sample_addresses(&[]);
        assert_eq!(recent(&history, 2950), 2950);
    }
}
