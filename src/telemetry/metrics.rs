//! How is a number counted?
//!
//! Each folder keeps its own counters; this file defines what a counter and a histogram are. Times are whole microseconds and
//! become seconds only as text: floating point would add more to the binary than all of this. A histogram of
//! prometheus-client takes a lock for each value; here a value is two atomic additions.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows. All threads share it without a lock.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Starts at 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        // Relaxed: a counter orders no other memory.
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The current value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// The inclusive upper bounds of histogram buckets in microseconds, from the latency of a cache hit to the longest usual timeout.
pub const BUCKET_BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];

/// A histogram of durations. All threads share it without a lock.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One bucket per bound, and one for all longer durations.
    buckets: [Counter; BUCKET_BOUNDS.len() + 1],
    /// In microseconds.
    sum: Counter,
}

impl Histogram {
    /// Starts empty.
    pub const fn new() -> Self {
        Self {
            buckets: [const { Counter::new() }; BUCKET_BOUNDS.len() + 1],
            sum: Counter::new(),
        }
    }

    /// Counts `times` observations of the duration `duration`.
    pub fn observe(&self, duration: Duration, times: u64) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_BOUNDS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].add(times);
        self.sum.add(micros.saturating_mul(times));
    }

    /// The current values. Not atomic as a whole: an observation may be in a bucket and not yet in the sum.
    #[inline(never)]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        for (count, bucket) in snapshot.buckets.iter_mut().zip(&self.buckets) {
            *count = bucket.value();
        }
        snapshot.sum = self.sum.value();
        snapshot
    }
}

/// The values of a histogram at one moment.
///
/// Its methods are not inlined: their loops would be unrolled in each caller, which adds 10 KB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Observations per bucket; the last bucket has those above all bounds.
    pub buckets: [u64; BUCKET_BOUNDS.len() + 1],
    /// The sum of all durations in microseconds.
    pub sum: u64,
}

impl HistogramSnapshot {
    /// The number of observations.
    #[inline(never)]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The observations since the snapshot `before`.
    #[inline(never)]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.buckets.iter_mut().zip(&before.buckets) {
            *count = count.saturating_sub(*before);
        }
        since.sum = self.sum.saturating_sub(before.sum);
        since
    }

    /// The observations of both snapshots.
    #[inline(never)]
    pub fn plus(&self, other: &Self) -> Self {
        let mut both = *self;
        for (count, other) in both.buckets.iter_mut().zip(&other.buckets) {
            *count += other;
        }
        both.sum += other.sum;
        both
    }

    /// The duration in microseconds within which `percent` of all observations lie, interpolated linearly in its bucket. `None`
    /// without observations; the last bound if the duration is beyond it.
    #[inline(never)]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut before = 0;
        let mut lower = 0;
        for (count, bound) in self.buckets.iter().zip(BUCKET_BOUNDS) {
            if before + count >= rank {
                return Some(lower + (bound - lower) * (rank - before) / count);
            }
            before += count;
            lower = bound;
        }
        (self.count() > 0).then_some(lower)
    }
}

/// Microseconds as a decimal number of seconds, with one to six digits after the point: `0.00005`, `1.0`.
pub fn format_seconds(micros: u64) -> String {
    let mut text = String::new();
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    // Writing to a string does not fail.
    let _ = write!(text, "{whole}.{fraction:06}");
    while text.ends_with('0') && !text.ends_with(".0") {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_equal_to_a_bound_is_in_its_bucket() {
        let histogram = Histogram::new();
        for micros in [0, 50, 51, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(micros), 2);
        }
        let snapshot = histogram.snapshot();
        let mut buckets = [0; BUCKET_BOUNDS.len() + 1];
        (buckets[0], buckets[1]) = (4, 2);
        (buckets[15], buckets[16]) = (2, 2);
        assert_eq!(snapshot.buckets, buckets);
        assert_eq!((snapshot.count(), snapshot.sum), (10, 2 * 10_000_102));
    }

    #[test]
    fn a_percentile_lies_in_its_bucket() {
        let histogram = Histogram::new();
        assert_eq!(histogram.snapshot().percentile(50), None);
        histogram.observe(Duration::from_micros(700), 90);
        let before = histogram.snapshot();
        histogram.observe(Duration::from_secs(9), 10);
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.percentile(45), Some(750));
        assert_eq!(snapshot.percentile(90), Some(1000));
        assert_eq!(snapshot.percentile(99), Some(5_000_000), "the last bound");
        assert_eq!(snapshot.since(&before).percentile(1), Some(5_000_000));
        assert_eq!(snapshot.since(&before).plus(&before), snapshot);
    }

    #[test]
    fn seconds_are_formatted_without_loss() {
        for (micros, text) in [
            (0, "0.0"),
            (50, "0.00005"),
            (1_000_000, "1.0"),
            (2_500_000, "2.5"),
            (10_000_001, "10.000001"),
        ] {
            assert_eq!(format_seconds(micros), text);
        }
    }
}
