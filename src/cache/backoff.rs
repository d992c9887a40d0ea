//! When may a question that failed be asked again?
//!
//! After a pause that doubles with each failure in a row (RFC 9520 section 3.2). An outage of the resolver is no name's fault: it doubles
//! no pause, and its own pause ends as soon as the resolver answers any query. Times are in milliseconds on the cache's clock.

/// How long a failure is cached in milliseconds, at first and at most (RFC 9520 section 3.2).
const FAILURE_TTL_MS: (u64, u64) = (1000, 300_000);

/// The failures of a question since its last success.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Failures in a row that were no outage.
    failures: u32,
    failed_at: u64,
    /// The question is not asked again before this time; 0 if it has not failed.
    until: u64,
    /// The last failure was an outage of the resolver, which is over once the resolver answers any query.
    outage: bool,
}

impl Backoff {
    /// Records a failure at `now`. The pause that follows is at least `min_pause` milliseconds long.
    pub(super) fn record_failure(&mut self, outage: bool, min_pause: u64, now: u64) {
        if now > self.until + FAILURE_TTL_MS.1 {
            self.failures = 0;
        }
        self.failed_at = now;
        self.outage = outage;
        let pause = if outage {
            FAILURE_TTL_MS.0
        } else {
            self.failures += 1;
            let doublings = self.failures.saturating_sub(1).min(16);
            (FAILURE_TTL_MS.0 << doublings).min(FAILURE_TTL_MS.1)
        };
        self.until = now + pause.max(min_pause);
    }

    /// Whether there was no failure, or only an outage that is over: the resolver last responded at `last_response`.
    pub(super) fn is_cleared(&self, last_response: u64) -> bool {
        self.until == 0 || self.outage && last_response > self.failed_at
    }

    /// Whether the question may not be asked again yet.
    pub(super) fn is_active(&self, now: u64, last_response: u64) -> bool {
        now < self.until && !self.is_cleared(last_response)
    }
}
