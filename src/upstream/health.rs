//! May this address be tried now?
//!
//! Health is passive: it follows from what became of the connections that queries asked for, never from probes of its own.
//! A failure keeps an address back for a while that doubles, with jitter, so that many forwarders do not return at once.
//! Time is passed in.

use std::time::{Duration, Instant};

/// How long the first failure keeps an address back, and how long any does at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What kind of failure an address had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFailure {
    /// It could not be reached, or it closed without an answer.
    Unreachable,
    /// It did not prove to be the resolver that was meant. Trying sooner would not change that.
    Unauthenticated,
}

/// How an address has fared.
#[derive(Debug, Default)]
pub struct Health {
    failures: u32,
    backoff: Option<(Instant, AddressFailure)>,
}

impl Health {
    /// It served.
    pub fn record_success(&mut self) {
        *self = Self::default();
    }

    /// It failed at `now`; `jitter` from 0 to 255 spreads the wait over three quarters to five quarters of itself.
    pub fn record_failure(&mut self, fault: AddressFailure, jitter: u8, now: Instant) {
        let doubled = BACKOFF.0 * (1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled * (384 + u32::from(jitter)) / 512;
        self.backoff = Some((now + wait.min(BACKOFF.1), fault));
    }

    /// It was slower than another: no failure, but no reason to come back to it at once.
    pub fn defer(&mut self, now: Instant) {
        self.backoff = Some((now + BACKOFF.1, AddressFailure::Unreachable));
    }

    /// Whether it may be preferred.
    pub fn is_available(&self, now: Instant) -> bool {
        self.backoff.is_none_or(|(until, _)| until <= now)
    }

    /// Whether it may be tried when there is nothing better: not while it is known to be somebody else.
    pub fn may_probe(&self, now: Instant) -> bool {
        self.is_available(now) || !self.is_unauthenticated()
    }

    /// Whether the last failure was one of identity.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self.backoff, Some((_, AddressFailure::Unauthenticated)))
    }

    /// Until when it is kept back.
    pub fn backoff_until(&self) -> Option<Instant> {
        self.backoff.map(|(until, _)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a failure at `now` keeps back.
    fn wait(health: &mut Health, jitter: u8, now: Instant) -> Duration {
        health.record_failure(AddressFailure::Unreachable, jitter, now);
        health.backoff_until().expect("it failed") - now
    }

    #[test]
    fn failures_keep_back_for_one_second_doubling_to_fifteen() {
        let now = Instant::now();
        let mut health = Health::default();
        let waits: Vec<_> = (0..7)
            .map(|_| wait(&mut health, 128, now).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 15, 15, 15]);
        health.record_success();
        assert!(health.is_available(now));
        assert_eq!(
            wait(&mut health, 128, now),
            BACKOFF.0,
            "a success begins anew"
        );
    }

    #[test]
    fn jitter_spreads_the_wait() {
        let now = Instant::now();
        assert_eq!(wait(&mut Health::default(), 0, now), BACKOFF.0 * 3 / 4);
        assert!(wait(&mut Health::default(), 255, now) > BACKOFF.0 * 6 / 5);
    }

    #[test]
    fn an_unreachable_address_may_be_probed_and_an_unproved_one_only_after_its_time() {
        let now = Instant::now();
        let mut health = Health::default();
        health.record_failure(AddressFailure::Unreachable, 0, now);
        assert!(!health.is_available(now) && health.may_probe(now));
        health.record_failure(AddressFailure::Unauthenticated, 0, now);
        assert!(!health.is_available(now) && !health.may_probe(now));
        let later = now + BACKOFF.1;
        assert!(health.is_available(later) && health.may_probe(later));
    }
}
