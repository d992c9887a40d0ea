//! May this address be tried now?
//!
//! Health is passive: it follows from the connections that queries asked for, never from separate probes. A failure backs an address off
//! for a time that doubles, with jitter, so that many forwarders do not return at once. Time is passed in.

use std::time::{Duration, Instant};

/// Backoff after the first failure, and the longest backoff.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// Why an address is backed off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFailure {
    /// The address could not be reached, or closed the connection without an answer.
    Unreachable,
    /// The TLS handshake failed with the large hello, where the small one may succeed.
    LargeHello,
    /// The resolver failed authentication. An earlier retry would not change that.
    Unauthenticated,
}

/// Whether an address can be reached, as far as is known.
#[derive(Debug, Default)]
pub struct Health {
    failures: u32,
    backoff: Option<(Instant, AddressFailure)>,
}

impl Health {
    /// Records a success, which clears the backoff.
    pub fn record_success(&mut self) {
        *self = Self::default();
    }

    /// Records a failure at `now`. `jitter` (0 to 255) scales the backoff by 0.75 to 1.25.
    pub fn record_failure(&mut self, fault: AddressFailure, jitter: u8, now: Instant) {
        let doubled = BACKOFF.0 * (1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled * (384 + u32::from(jitter)) / 512;
        self.backoff = Some((now + wait.min(BACKOFF.1), fault));
    }

    /// Defers the address for the longest backoff: it was slower than another, which is no failure.
    pub fn defer(&mut self, now: Instant) {
        self.backoff = Some((now + BACKOFF.1, AddressFailure::Unreachable));
    }

    /// Returns true if the address is not backed off.
    pub fn is_available(&self, now: Instant) -> bool {
        self.backoff.is_none_or(|(until, _)| until <= now)
    }

    /// Returns true if the address may be tried when nothing better is available: not while it is backed off for failed authentication.
    pub fn may_probe(&self, now: Instant) -> bool {
        self.is_available(now) || !self.is_unauthenticated()
    }

    /// Returns true if the last failure was one of authentication.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self.backoff, Some((_, AddressFailure::Unauthenticated)))
    }

    /// When the last backoff ends.
    pub fn backoff_until(&self) -> Option<Instant> {
        self.backoff.map(|(until, _)| until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The backoff after a failure at `now`.
    fn wait(health: &mut Health, jitter: u8, now: Instant) -> Duration {
        health.record_failure(AddressFailure::Unreachable, jitter, now);
        health.backoff_until().expect("it failed") - now
    }

    #[test]
    fn backoff_starts_at_one_second_and_doubles_to_fifteen() {
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
    fn an_unreachable_address_may_be_probed_and_an_unauthenticated_one_only_after_its_backoff() {
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
