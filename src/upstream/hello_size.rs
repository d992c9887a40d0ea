//! Is the large hello the reason why handshakes fail?
//!
//! A ClientHello with X25519MLKEM768 takes two packets, and some servers and middleboxes do not read the second. Handshakes that fail, or
//! are not answered, with the large hello are followed by one with the small hello. If that one succeeds, the address gets small hellos for
//! an hour. Nothing is concluded from a resolver that is down for both. The pool's part is `hello_fallback`.

use std::time::{Duration, Instant};

use crate::identity::key_exchange::HelloSize;

/// Handshakes that must fail with the large hello, or wait for its answer, before the small one is tried.
pub(super) const OBSERVATIONS: usize = 2;
/// How long the pool remembers that an address takes small hellos only.
const SMALL_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// What is known of the hellos to one address.
#[derive(Debug, Default)]
pub(super) struct HelloRule {
    /// Handshakes that failed with the large hello since one last succeeded with it.
    failed_large: usize,
    /// One failed with the small hello since then, too: the resolver is down, as far as is known.
    failed_small: bool,
    /// Until when the address gets small hellos.
    small_until: Option<Instant>,
    /// That was logged since the large hello last succeeded.
    is_reported: bool,
}

impl HelloRule {
    /// Returns true if the address is known to take small hellos only.
    pub(super) fn is_small(&self, now: Instant) -> bool {
        self.small_until.is_some_and(|until| now < until)
    }

    /// The hello of the next attempt, while `unanswered` large ones wait for an answer.
    pub(super) fn choose(&self, unanswered: usize, now: Instant) -> HelloSize {
        if self.is_small(now) || self.failed_large + unanswered >= OBSERVATIONS {
            HelloSize::Small
        } else {
            HelloSize::Large
        }
    }

    /// Records that a handshake failed, and may have for its hello. Returns true if the next one can tell, and need not wait.
    pub(super) fn record_failure(&mut self, hello: HelloSize, now: Instant) -> bool {
        match hello {
            _ if self.is_small(now) => hello == HelloSize::Large,
            HelloSize::Large => {
                self.failed_large += 1;
                !self.failed_small
            }
            HelloSize::Small => {
                (self.failed_large, self.failed_small) = (0, true);
                false
            }
        }
    }

    /// Records that a handshake succeeded while `unanswered` large hellos waited for an answer. Returns, if the address gets small hellos
    /// from now on, whether this is news.
    pub(super) fn record_success(
        &mut self,
        hello: HelloSize,
        unanswered: usize,
        now: Instant,
    ) -> Option<bool> {
        if hello == HelloSize::Large {
            *self = Self::default();
            return None;
        }
        if self.is_small(now) {
            return None;
        }
        let is_proven = self.failed_large + unanswered >= OBSERVATIONS && !self.failed_small;
        self.failed_small = false;
        // After an hour one failure is enough.
        self.failed_large = usize::from(is_proven);
        if !is_proven {
            return None;
        }
        self.small_until = Some(now + SMALL_LIFETIME);
        Some(!std::mem::replace(&mut self.is_reported, true))
    }

    /// Forgets all, since the network may be another.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::key_exchange::HelloSize::{Large, Small};

    fn now() -> Instant {
        crate::system::clock::now()
    }

    /// As many failures as it takes.
    fn fail_large(rule: &mut HelloRule, now: Instant) {
        for _ in 0..OBSERVATIONS {
            rule.record_failure(Large, now);
        }
    }

    #[test]
    fn two_failures_and_a_success_with_the_small_hello_are_remembered_for_an_hour() {
        let (mut rule, now) = (HelloRule::default(), now());
        for _ in 0..OBSERVATIONS {
            assert_eq!(rule.choose(0, now), Large);
            assert!(rule.record_failure(Large, now), "the next hello can tell");
        }
        assert_eq!(rule.choose(0, now), Small);
        assert_eq!(rule.record_success(Small, 0, now), Some(true));
        let last = now + SMALL_LIFETIME - Duration::from_nanos(1);
        assert_eq!(rule.choose(0, last), Small);
        assert_eq!(rule.choose(0, now + SMALL_LIFETIME), Large);
    }

    #[test]
    fn after_the_hour_one_failure_is_enough_and_is_no_news() {
        let (mut rule, now) = (HelloRule::default(), now());
        fail_large(&mut rule, now);
        rule.record_success(Small, 0, now);
        let later = now + SMALL_LIFETIME;
        assert!(rule.record_failure(Large, later));
        assert_eq!(rule.choose(0, later), Small);
        assert_eq!(rule.record_success(Small, 0, later), Some(false));
        assert!(rule.is_small(later));
    }

    #[test]
    fn hellos_without_an_answer_count_like_failed_ones() {
        let (mut rule, now) = (HelloRule::default(), now());
        assert_eq!(rule.choose(1, now), Large);
        assert_eq!(rule.choose(2, now), Small);
        rule.record_failure(Large, now);
        assert_eq!(rule.choose(1, now), Small);
        assert_eq!(rule.record_success(Small, 1, now), Some(true));
    }

    #[test]
    fn a_success_with_the_large_hello_forgets_all() {
        let (mut rule, now) = (HelloRule::default(), now());
        rule.record_failure(Large, now);
        assert_eq!(rule.record_success(Large, 1, now), None);
        rule.record_failure(Large, now);
        assert_eq!(rule.choose(0, now), Large);
        rule.record_failure(Large, now);
        assert_eq!(rule.record_success(Small, 0, now), Some(true));
        rule.record_success(Large, 0, now);
        assert!(!rule.is_small(now));
        fail_large(&mut rule, now);
        assert_eq!(rule.record_success(Small, 0, now), Some(true), "news again");
    }

    #[test]
    fn a_resolver_that_was_down_for_both_hellos_is_not_remembered() {
        let (mut rule, now) = (HelloRule::default(), now());
        fail_large(&mut rule, now);
        assert!(
            !rule.record_failure(Small, now),
            "the address is backed off"
        );
        // One of each in turn would be luck: it begins with the large one again.
        assert_eq!(rule.choose(0, now), Large);
        for _ in 0..OBSERVATIONS {
            assert!(!rule.record_failure(Large, now), "and stays so");
        }
        assert_eq!(rule.choose(0, now), Small);
        assert_eq!(rule.record_success(Small, 0, now), None);
        assert!(!rule.is_small(now));
        // The resolver is up: what fails now fails for its hello.
        assert_eq!(rule.choose(0, now), Large);
        (0..OBSERVATIONS).for_each(|_| assert!(rule.record_failure(Large, now)));
        assert_eq!(rule.record_success(Small, 0, now), Some(true));
    }

    #[test]
    fn failures_with_the_small_hello_do_not_shorten_the_hour() {
        let (mut rule, now) = (HelloRule::default(), now());
        fail_large(&mut rule, now);
        rule.record_success(Small, 0, now);
        assert!(!rule.record_failure(Small, now));
        // An attempt that was under way says nothing of the address.
        assert!(rule.record_failure(Large, now));
        assert_eq!(rule.choose(0, now), Small);
        assert_eq!(rule.choose(0, now + SMALL_LIFETIME), Large);
    }
}
