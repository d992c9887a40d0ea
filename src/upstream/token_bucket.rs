//! How many may there be in a time?
//!
//! A bucket of tokens that fills at a rate: each use takes one. Time is passed in.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much there may be of something, queries above all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many a second, at least 1.
    pub per_second: u32,
    /// How many at once after a rest, at least 1.
    pub burst: u32,
}

impl Rate {
    /// Nanoseconds until there is one more.
    pub fn token_interval(self) -> u64 {
        (1_000_000_000 / u64::from(self.per_second).max(1)).max(1)
    }
}

/// How many nanoseconds after another a moment is.
pub fn nanos_between(now: Instant, start: Instant) -> u64 {
    let since = now.saturating_duration_since(start).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// A bucket that any number of threads take tokens from.
#[derive(Debug)]
pub struct TokenBucket {
    rate: Option<Rate>,
    start: Instant,
    /// When it is full again, in nanoseconds since the start.
    full_at: Mutex<u64>,
}

impl TokenBucket {
    /// A full one. Without a rate there is no end to it.
    pub fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self {
            rate,
            start: now,
            full_at: Mutex::new(0),
        }
    }

    /// Takes as many as there are, at most `wanted`; returns how many.
    pub fn take(&self, wanted: usize, now: Instant) -> usize {
        let Some(rate) = self.rate else {
            return wanted;
        };
        let now = nanos_between(now, self.start);
        let mut full_at = self.full_at.lock();
        let spent = (*full_at).max(now) - now;
        let left = (rate.token_interval() * u64::from(rate.burst)).saturating_sub(spent)
            / rate.token_interval();
        let taken = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        *full_at = now + spent + rate.token_interval() * taken as u64;
        taken
    }

    /// Gives one back that was taken.
    pub fn refund(&self) {
        if let Some(rate) = self.rate {
            let mut full_at = self.full_at.lock();
            *full_at = full_at.saturating_sub(rate.token_interval());
        }
    }

    /// When there is one, seen from `now`: then, or later.
    pub fn ready_at(&self, now: Instant) -> Instant {
        let Some(rate) = self.rate else { return now };
        let spent = (*self.full_at.lock()).saturating_sub(nanos_between(now, self.start));
        let least = rate.token_interval() * u64::from(rate.burst).saturating_sub(1);
        now + Duration::from_nanos(spent.saturating_sub(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_emptied_and_fills_again() {
        let now = Instant::now();
        let rate = Rate {
            per_second: 10,
            burst: 20,
        };
        let bucket = TokenBucket::new(Some(rate), now);
        assert_eq!(bucket.take(5, now), 5);
        assert_eq!(bucket.take(100, now), 15);
        assert_eq!(bucket.take(1, now), 0);
        assert_eq!(bucket.take(100, now + Duration::from_secs(1)), 10);
        assert_eq!(bucket.take(100, now + Duration::from_secs(100)), 20);
        assert_eq!(TokenBucket::new(None, now).take(1_000_000, now), 1_000_000);
    }

    #[test]
    fn a_bucket_says_when_there_is_one_and_takes_one_back() {
        let now = Instant::now();
        let rate = Rate {
            per_second: 1,
            burst: 4,
        };
        let bucket = TokenBucket::new(Some(rate), now);
        assert_eq!(bucket.ready_at(now), now);
        assert_eq!(bucket.take(4, now), 4);
        let second = Duration::from_secs(1);
        assert_eq!(bucket.ready_at(now), now + second);
        assert_eq!(bucket.ready_at(now + second / 4), now + second);
        bucket.refund();
        assert_eq!(bucket.ready_at(now), now);
        assert_eq!(bucket.take(2, now), 1);
        assert_eq!(bucket.ready_at(now + second), now + second);
        assert_eq!(bucket.take(2, now + second), 1);
        assert_eq!(TokenBucket::new(None, now).ready_at(now), now);
    }

    #[test]
    fn a_bucket_is_as_large_as_it_was_said_to_be() {
        let now = Instant::now();
        for per_second in [1, 999, 1500, 300_000, 600_000, 1_000_000] {
            let burst = 2 * per_second;
            let bucket = TokenBucket::new(Some(Rate { per_second, burst }), now);
            bucket.take(usize::MAX, now);
            let second = now + Duration::from_secs(1);
            let taken = bucket.take(usize::MAX, second);
            let expected = f64::from(per_second);
            let share = taken as f64 / expected;
            assert!((0.999..1.001).contains(&share), "{taken} of {per_second}");
        }
    }
}
