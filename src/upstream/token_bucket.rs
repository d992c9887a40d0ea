//! How much may there be of something in a time?
//!
//! A token bucket that fills at a rate (GCRA): each use takes a token. Time is passed in.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A rate limit, above all of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second, at least 1.
    pub per_second: u32,
    /// Tokens in a full bucket, at least 1.
    pub burst: u32,
}

impl Rate {
    /// Nanoseconds in which one token is added.
    pub fn token_interval(self) -> u64 {
        (1_000_000_000 / u64::from(self.per_second).max(1)).max(1)
    }

    /// How many tokens are in a bucket that is full again in `spent` nanoseconds.
    fn tokens_left(self, spent: u64) -> usize {
        let full = self.token_interval() * u64::from(self.burst);
        usize::try_from(full.saturating_sub(spent) / self.token_interval()).unwrap_or(usize::MAX)
    }
}

/// Nanoseconds from `start` to `now`; 0 if `now` is earlier.
pub fn nanos_between(now: Instant, start: Instant) -> u64 {
    let since = now.saturating_duration_since(start).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// A bucket from which any number of threads take tokens. Its lock guards the fill level and is held for moments.
#[derive(Debug)]
pub struct TokenBucket {
    rate: Option<Rate>,
    start: Instant,
    /// When the bucket is full again, in nanoseconds since the start.
    full_at: Mutex<u64>,
}

impl TokenBucket {
    /// Creates a full bucket. Without a rate it never runs out.
    pub fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self {
            rate,
            start: now,
            full_at: Mutex::new(0),
        }
    }

    /// Takes at most `wanted` tokens; returns how many there were.
    pub fn take(&self, wanted: usize, now: Instant) -> usize {
        let Some(rate) = self.rate else {
            return wanted;
        };
        let now = nanos_between(now, self.start);
        let mut full_at = self.full_at.lock();
        let spent = (*full_at).max(now) - now;
        let taken = wanted.min(rate.tokens_left(spent));
        *full_at = now + spent + rate.token_interval() * taken as u64;
        taken
    }

    /// How many tokens there are.
    pub fn available(&self, now: Instant) -> usize {
        let Some(rate) = self.rate else {
            return usize::MAX;
        };
        let full_at = *self.full_at.lock();
        rate.tokens_left(full_at.saturating_sub(nanos_between(now, self.start)))
    }

    /// Gives back one token that was taken.
    pub fn refund(&self) {
        if let Some(rate) = self.rate {
            let mut full_at = self.full_at.lock();
            *full_at = full_at.saturating_sub(rate.token_interval());
        }
    }

    /// When the next token is there: `now`, or later.
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
    fn a_bucket_tells_when_the_next_token_is_there_and_takes_refunds() {
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
        assert_eq!(bucket.available(now + second * 5 / 2), 2);
        bucket.refund();
        assert_eq!(bucket.ready_at(now), now);
        assert_eq!(bucket.available(now), 1);
        assert_eq!(bucket.take(2, now), 1);
        assert_eq!(bucket.ready_at(now + second), now + second);
        assert_eq!(bucket.take(2, now + second), 1);
        assert_eq!(TokenBucket::new(None, now).ready_at(now), now);
    }

    #[test]
    fn a_bucket_fills_at_its_rate() {
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
