//! Is the large hello the reason why handshakes fail?
//!
//! A ClientHello with X25519MLKEM768 takes two packets, and some servers and middleboxes do not read the second. Handshakes that fail, or
//! are not answered, with the large hello are followed by one with the small hello. Once that one succeeds, the address gets small hellos:
//! post-quantum keys are left out. A large hello of its own then probes, first soon and later seldom, whether that is still needed. A
//! resolver that is down for both hellos gets both in each later attempt. The pool's part is `hello_fallback`.

use std::time::{Duration, Instant};

use crate::identity::key_exchange::HelloSize;

/// Handshakes that must fail with the large hello, or wait for its answer, before the small one is tried.
pub(super) const OBSERVATIONS: usize = 2;
/// The same after a handshake failed with the small hello as well. The address is backed off between attempts, and each of them shall
/// find out whether the small hello works.
const OBSERVATIONS_AFTER_SMALL: usize = 1;
/// The time from a small hello that succeeded to the first probe, and the longest time between two probes.
const PROBE_INTERVAL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60 * 60));
/// How long a probe waits for a token.
const TOKEN_WAIT: Duration = Duration::from_secs(1);
/// Two log lines about an address may come at once. From then on, one may come in this time.
const LINE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// What is known of the hellos to one address.
#[derive(Debug)]
pub(super) struct HelloRule {
    /// Handshakes that failed with the large hello since one last succeeded with it, or failed with the small one.
    failed_large: usize,
    /// One failed with the small hello since one last succeeded: the resolver is down, as far as is known.
    failed_small: bool,
    /// Set while the address gets small hellos: when the large one is next probed.
    probe_at: Option<Instant>,
    /// The time between the last two probes.
    probe_interval: Duration,
    /// When a large hello last succeeded after it had been left out.
    restored_at: Option<Instant>,
    changes: ChangeLog,
}

impl Default for HelloRule {
    fn default() -> Self {
        Self {
            failed_large: 0,
            failed_small: false,
            probe_at: None,
            probe_interval: PROBE_INTERVAL.0,
            restored_at: None,
            changes: ChangeLog::default(),
        }
    }
}

/// What to log: whether the address gets small hellos now, and how many earlier changes have no line of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangeLine {
    pub(super) is_left_out: bool,
    pub(super) suppressed: u32,
}

impl HelloRule {
    /// Returns true if the address gets small hellos.
    pub(super) fn is_left_out(&self) -> bool {
        self.probe_at.is_some()
    }

    /// When the large hello is to be probed, if it is left out.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// Returns true if large hellos of which `unanswered` wait for an answer failed often enough for the small one.
    pub(super) fn is_suspect(&self, unanswered: usize) -> bool {
        let needed = match self.failed_small {
            true => OBSERVATIONS_AFTER_SMALL,
            false => OBSERVATIONS,
        };
        self.failed_large + unanswered >= needed
    }

    /// The hello of the next attempt, while `unanswered` large ones wait for an answer.
    pub(super) fn choose(&self, unanswered: usize) -> HelloSize {
        if self.is_left_out() || self.is_suspect(unanswered) {
            HelloSize::Small
        } else {
            HelloSize::Large
        }
    }

    /// Records that a handshake failed, and may have for its hello. Returns true if the next one can tell, and need not wait.
    pub(super) fn record_failure(&mut self, hello: HelloSize) -> bool {
        if self.is_left_out() {
            return hello == HelloSize::Large;
        }
        match hello {
            HelloSize::Large => self.failed_large = self.failed_large.saturating_add(1),
            HelloSize::Small => (self.failed_large, self.failed_small) = (0, true),
        }
        hello == HelloSize::Large
    }

    /// Records that a handshake succeeded. Returns true if the address gets small hellos from now on.
    pub(super) fn record_success(&mut self, hello: HelloSize, now: Instant) -> bool {
        (self.failed_large, self.failed_small) = (0, false);
        match hello {
            HelloSize::Large => {
                if self.probe_at.take().is_some() {
                    self.restored_at = Some(now);
                }
                self.changes.record(false, now);
                false
            }
            HelloSize::Small if self.is_left_out() => false,
            HelloSize::Small => {
                self.probe_interval = match self.restored_at {
                    // It comes and goes: each time costs the queries of a moment.
                    Some(at) if now < at + PROBE_INTERVAL.1 => self.next_interval(),
                    _ => PROBE_INTERVAL.0,
                };
                self.probe_at = Some(now + self.probe_interval);
                self.changes.record(true, now);
                true
            }
        }
    }

    fn next_interval(&self) -> Duration {
        (self.probe_interval * 2).min(PROBE_INTERVAL.1)
    }

    /// Records that a probe failed.
    pub(super) fn record_failed_probe(&mut self, now: Instant) {
        if self.is_left_out() {
            self.probe_interval = self.next_interval();
            self.probe_at = Some(now + self.probe_interval);
        }
    }

    /// Defers a probe that is due: queries may need the tokens.
    pub(super) fn defer_probe(&mut self, now: Instant) {
        if self.is_left_out() {
            self.probe_at = Some(now + TOKEN_WAIT);
        }
    }

    /// The large hello was read: what failed with it, failed for another reason. Says nothing while it is left out.
    pub(super) fn record_read(&mut self) {
        self.failed_large = 0;
    }

    /// Forgets all but what was logged, since the network may be another.
    pub(super) fn reset(&mut self) {
        *self = Self {
            changes: std::mem::take(&mut self.changes),
            ..Self::default()
        };
    }

    /// When a line is to be logged, if one is.
    pub(super) fn line_at(&self) -> Option<Instant> {
        self.changes.line_at()
    }

    /// Takes the line that is to be logged by now.
    pub(super) fn take_line(&mut self, now: Instant) -> Option<ChangeLine> {
        self.changes.take_line(now)
    }
}

/// Which changes were logged. None goes unlogged: those that come too often are logged together, later.
#[derive(Debug, Default)]
struct ChangeLog {
    is_left_out: bool,
    /// When the last change was, and how many have no line yet.
    unlogged: Option<(Instant, u32)>,
    /// When there may be two lines at once again.
    full_at: Option<Instant>,
}

impl ChangeLog {
    fn record(&mut self, is_left_out: bool, now: Instant) {
        if self.is_left_out != is_left_out {
            self.is_left_out = is_left_out;
            let count = self.unlogged.map_or(0, |(_, count)| count);
            self.unlogged = Some((now, count.saturating_add(1)));
        }
    }

    fn line_at(&self) -> Option<Instant> {
        let (changed_at, _) = self.unlogged?;
        let allowed_at = self.full_at.and_then(|at| at.checked_sub(LINE_INTERVAL));
        Some(allowed_at.map_or(changed_at, |at| at.max(changed_at)))
    }

    fn take_line(&mut self, now: Instant) -> Option<ChangeLine> {
        self.line_at().filter(|at| *at <= now)?;
        let (_, count) = self.unlogged.take()?;
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(full_at + LINE_INTERVAL);
        Some(ChangeLine {
            is_left_out: self.is_left_out,
            suppressed: count - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::key_exchange::HelloSize::{Large, Small};

    fn now() -> Instant {
        crate::system::clock::now()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A rule of an address that takes small hellos only since `now`.
    fn left_out(now: Instant) -> HelloRule {
        let mut rule = HelloRule::default();
        (0..OBSERVATIONS).for_each(|_| assert!(rule.record_failure(Large)));
        assert!(rule.record_success(Small, now));
        rule
    }

    fn line(is_left_out: bool, suppressed: u32) -> Option<ChangeLine> {
        Some(ChangeLine {
            is_left_out,
            suppressed,
        })
    }

    #[test]
    fn two_failures_are_followed_by_the_small_hello_which_is_kept_if_it_succeeds() {
        let (mut rule, now) = (HelloRule::default(), now());
        for _ in 0..OBSERVATIONS {
            assert_eq!(rule.choose(0), Large);
            assert!(rule.record_failure(Large), "the next hello can tell");
        }
        assert_eq!(rule.choose(0), Small);
        assert!(rule.record_success(Small, now) && rule.is_left_out());
        assert!(!rule.record_success(Small, now), "it is known");
        assert_eq!(rule.choose(0), Small);
    }

    #[test]
    fn hellos_without_an_answer_count_like_failed_ones() {
        let mut rule = HelloRule::default();
        assert_eq!(rule.choose(1), Large);
        assert_eq!(rule.choose(2), Small);
        rule.record_failure(Large);
        assert_eq!(rule.choose(1), Small);
    }

    #[test]
    fn a_success_with_the_large_hello_forgets_failures() {
        let (mut rule, now) = (HelloRule::default(), now());
        rule.record_failure(Large);
        assert!(!rule.record_success(Large, now));
        rule.record_failure(Large);
        assert_eq!(rule.choose(0), Large);
        rule.record_read();
        rule.record_failure(Large);
        assert_eq!(rule.choose(0), Large, "it was read meanwhile");
    }

    #[test]
    fn a_resolver_that_failed_with_both_hellos_gets_both_in_each_later_attempt() {
        let (mut rule, now) = (HelloRule::default(), now());
        (0..OBSERVATIONS).for_each(|_| assert!(rule.record_failure(Large)));
        for _ in 0..5 {
            assert!(!rule.record_failure(Small), "the address is backed off");
            assert_eq!(rule.choose(0), Large);
            assert_eq!(rule.choose(1), Small);
            assert!(rule.record_failure(Large));
            assert_eq!(rule.choose(0), Small);
        }
        assert!(rule.record_success(Small, now), "it is classical, and said");
        assert_eq!(rule.take_line(now), line(true, 0));
    }

    #[test]
    fn what_fails_while_the_large_hello_is_left_out_does_not_bring_it_back() {
        let mut rule = left_out(now());
        assert!(!rule.record_failure(Small));
        // An attempt that was under way says nothing of the address.
        assert!(rule.record_failure(Large));
        rule.record_read();
        assert!(rule.is_left_out());
    }

    #[test]
    fn the_large_hello_is_probed_soon_and_then_ever_more_seldom_up_to_an_hour() {
        let begin = now();
        let mut rule = left_out(begin);
        let (mut now, mut waits) = (begin, Vec::new());
        for _ in 0..12 {
            let at = rule.probe_at().expect("it is left out");
            waits.push((at - now).as_secs());
            now = at;
            rule.record_failed_probe(now);
        }
        let expected = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600];
        assert_eq!(waits, expected);
        rule.defer_probe(now);
        assert_eq!(rule.probe_at(), Some(now + TOKEN_WAIT));
        assert!(!rule.record_success(Large, now));
        assert!(!rule.is_left_out() && rule.probe_at().is_none());
        rule.record_failed_probe(now);
        rule.defer_probe(now);
        assert!(!rule.is_left_out(), "one that was under way");
    }

    #[test]
    fn where_the_large_hello_comes_and_goes_it_is_probed_ever_more_seldom() {
        let mut now = now();
        let mut rule = left_out(now);
        for wait in [10, 20, 40] {
            now += seconds(5);
            rule.record_success(Large, now);
            assert!(rule.record_success(Small, now));
            assert_eq!(rule.probe_at(), Some(now + seconds(wait)));
        }
        rule.record_success(Large, now);
        now += PROBE_INTERVAL.1;
        assert!(rule.record_success(Small, now));
        assert_eq!(rule.probe_at(), Some(now + seconds(5)), "it was well");
    }

    #[test]
    fn each_change_is_logged_once_and_many_are_logged_together() {
        let begin = now();
        let mut rule = left_out(begin);
        assert_eq!(rule.line_at(), Some(begin));
        assert_eq!(rule.take_line(begin), line(true, 0));
        assert_eq!(rule.take_line(begin), None);
        rule.record_success(Small, begin);
        assert_eq!(rule.line_at(), None, "nothing has changed");
        rule.record_success(Large, begin + seconds(5));
        assert_eq!(rule.take_line(begin + seconds(5)), line(false, 0));
        // Two lines are out. What changes now waits.
        for _ in 0..10 {
            rule.record_success(Small, begin + seconds(6));
            rule.record_success(Large, begin + seconds(7));
        }
        rule.record_success(Small, begin + seconds(8));
        let due = begin + LINE_INTERVAL;
        assert_eq!(rule.line_at(), Some(due));
        assert_eq!(rule.take_line(due - seconds(1)), None);
        assert_eq!(rule.take_line(due), line(true, 20));
        rule.record_success(Large, due);
        assert_eq!(rule.line_at(), Some(due + LINE_INTERVAL));
        // After a while two may come at once again.
        let later = due + 4 * LINE_INTERVAL;
        assert_eq!(rule.take_line(later), line(false, 0));
        rule.record_success(Small, later);
        assert_eq!(rule.take_line(later), line(true, 0));
    }

    #[test]
    fn after_a_suspend_the_large_hello_is_tried_and_what_comes_of_it_is_logged_if_it_is_new() {
        let now = now();
        let mut rule = left_out(now);
        rule.take_line(now);
        rule.reset();
        assert!(!rule.is_left_out());
        assert_eq!((rule.choose(0), rule.line_at()), (Large, None));
        let mut other = left_out(now);
        other.take_line(now);
        other.reset();
        assert!(other.record_success(Small, now));
        assert_eq!(other.line_at(), None, "the last line says so");
        rule.record_success(Large, now);
        assert_eq!(rule.take_line(now), line(false, 0));
    }
}
