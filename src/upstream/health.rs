//! May this address be tried now?
//!
//! Health is passive: it follows from the connections that queries asked for, never from separate probes. A failure backs an address off
//! for a time that doubles, with jitter, so that many forwarders do not return at once. Time is passed in.

use std::time::{Duration, Instant};

/// Backoff after the first failure, and the longest backoff.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How long after a failed authentication the address may be tried again, at the latest, where nothing better is available: behind a
/// captive portal, that is how long clients wait after the login.
const LONGEST_PROBE_WAIT: Duration = Duration::from_millis(2500);

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
    /// When the address may be tried, although it is backed off, where nothing better is available.
    probe_at: Option<Instant>,
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
        let spread = |wait: Duration| wait * (384 + u32::from(jitter)) / 512;
        self.backoff = Some((now + spread(doubled).min(BACKOFF.1), fault));
        let is_unauthenticated = fault == AddressFailure::Unauthenticated;
        let probe_wait = spread(doubled.min(LONGEST_PROBE_WAIT));
        self.probe_at = is_unauthenticated.then_some(now + probe_wait);
    }

    /// Defers the address for the longest backoff: it was slower than another, which is no failure.
    pub fn defer(&mut self, now: Instant) {
        self.backoff = Some((now + BACKOFF.1, AddressFailure::Unreachable));
        self.probe_at = None;
    }

    /// Returns true if the address is not backed off.
    pub fn is_available(&self, now: Instant) -> bool {
        self.backoff.is_none_or(|(until, _)| until <= now)
    }

    /// Returns true if the address may be tried when nothing better is available: at once if it could not be reached, and after two or three
    /// seconds if it failed authentication.
    pub fn may_probe(&self, now: Instant) -> bool {
        self.is_available(now) || self.probe_at.is_none_or(|at| at <= now)
    }

    /// Returns true if the last failure was one of authentication.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self.backoff, Some((_, AddressFailure::Unauthenticated)))
    }

    /// When [`Health::may_probe`] is true again, after a failed authentication.
    pub fn probe_at(&self) -> Option<Instant> {
        self.probe_at
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
    fn an_unreachable_address_may_be_probed_at_once_and_an_unauthenticated_one_within_three_seconds()
     {
        let now = Instant::now();
        let mut health = Health::default();
        health.record_failure(AddressFailure::Unreachable, 0, now);
        assert!(!health.is_available(now) && health.may_probe(now));
        let mut probe_wait = |jitter| {
            health.record_failure(AddressFailure::Unauthenticated, jitter, now);
            assert!(!health.is_available(now) && !health.may_probe(now));
            let at = health.probe_at().expect("it failed authentication");
            assert!(health.may_probe(at));
            at - now
        };
        assert_eq!(probe_wait(128), 2 * BACKOFF.0, "the second failure");
        let waits: Vec<_> = (0..5).map(|_| probe_wait(128)).collect();
        assert_eq!(waits, [LONGEST_PROBE_WAIT; 5]);
        let (shortest, longest) = (probe_wait(0), probe_wait(255));
        assert!(shortest < Duration::from_secs(2) && longest < Duration::from_millis(3200));
        health.defer(now);
        assert!(health.may_probe(now));
    }

    #[test]
    fn the_first_failed_authentication_waits_as_long_as_any_failure() {
        let now = Instant::now();
        let mut health = Health::default();
        health.record_failure(AddressFailure::Unauthenticated, 128, now);
        assert_eq!(health.probe_at(), Some(now + BACKOFF.0));
        assert_eq!(health.backoff_until(), health.probe_at());
    }
}
