//! Do replies leave this host?
//!
//! A rule over what was sent and what was not, without sockets, threads or a clock.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::client::send_failure::SendFailure;

/// Seconds over which [`DeliveryState::failure`] judges.
const WINDOW_SECONDS: u64 = 10;
/// Entries of the window: one for each second, as it is the remainder of the second that chooses the entry.
const ENTRIES: usize = WINDOW_SECONDS as usize;
/// Fewer unsent datagrams than this in the window say nothing.
const MIN_FAILURES: u64 = 10;
/// Percentage of the datagrams that must be unsent.
const FAILING_PERCENT: u64 = 90;
/// How long a cause must be absent before it counts as ended.
const QUIET: Duration = Duration::from_secs(3);
/// The shortest time between two changes to "not sent" of one cause, so that a cause that comes and goes does not fill the log.
const CHANGE_INTERVAL: Duration = Duration::from_secs(60);

/// Numbers of replies that were not sent, by [`SendFailure`].
pub(super) type Failures = [u64; SendFailure::ALL.len()];

/// What happened to some replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    /// Datagrams: the kernel took the first number, and refused the others.
    Datagrams(u64, Failures),
    /// Replies to TCP clients. They tell less: the kernel takes octets that never leave, and an error may come from a client that is gone.
    Stream(u64, Failures),
}

/// A change that the log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Replies are not sent for this cause: so many since the last change.
    NotSent(SendFailure, u64),
    /// Replies are sent again after this cause kept back so many.
    SentAgain(SendFailure, u64),
}

/// One second of the window.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// The second since the first event. Entries of other rounds are out of date.
    second: u64,
    sent: u64,
    failures: Failures,
}

/// What is known of one cause.
#[derive(Debug, Clone, Copy, Default)]
struct CauseState {
    /// The last failure, unless the cause has ended.
    last_failure: Option<Instant>,
    /// Failures since the last change.
    failures: u64,
    /// The log has told that replies are not sent, and not yet that they are sent again.
    is_told: bool,
    told_at: Option<Instant>,
}

/// Which replies were not sent lately.
#[derive(Debug, Default)]
pub(super) struct DeliveryState {
    first_event: Option<Instant>,
    window: [Entry; ENTRIES],
    causes: [CauseState; SendFailure::ALL.len()],
}

impl DeliveryState {
    /// Records what happened at `now`, and returns the changes that the log must tell.
    pub(super) fn record(&mut self, replies: Replies, now: Instant) -> SmallVec<[Change; 2]> {
        let (sent, failures) = match replies {
            Replies::Datagrams(sent, failures) => {
                self.count(sent, &failures, now);
                (sent, failures)
            }
            Replies::Stream(sent, failures) => (sent, failures),
        };
        let mut changes = SmallVec::new();
        let causes = self.causes.iter_mut().zip(SendFailure::ALL);
        for ((state, cause), failures) in causes.zip(failures) {
            changes.extend(state.record(cause, failures, sent > 0, now));
        }
        changes
    }

    /// Adds to the entry of this second.
    fn count(&mut self, sent: u64, failures: &Failures, now: Instant) {
        let second = self.second(now);
        let at = usize::try_from(second.checked_rem(WINDOW_SECONDS).unwrap_or(0)).unwrap_or(0);
        let Some(entry) = self.window.get_mut(at) else {
            return;
        };
        if entry.second != second {
            *entry = Entry {
                second,
                ..Entry::default()
            };
        }
        entry.sent = entry.sent.saturating_add(sent);
        add(&mut entry.failures, failures);
    }

    /// The second of `now` since the first event, from [`WINDOW_SECONDS`] on so that no entry is current by default.
    fn second(&mut self, now: Instant) -> u64 {
        let first_event = *self.first_event.get_or_insert(now);
        Self::second_since(first_event, now)
    }

    fn second_since(first_event: Instant, now: Instant) -> u64 {
        let seconds = now.saturating_duration_since(first_event).as_secs();
        seconds.saturating_add(WINDOW_SECONDS)
    }

    /// The datagrams of the window that ends at `now`: how many were sent, and how many not.
    fn totals(&self, now: Instant) -> (u64, Failures) {
        let (mut sent, mut failures) = (0_u64, Failures::default());
        let Some(first_event) = self.first_event else {
            return (sent, failures);
        };
        let second = Self::second_since(first_event, now);
        let is_recent = |entry: &&Entry| entry.second.saturating_add(WINDOW_SECONDS) > second;
        let recent = self.window.iter().filter(is_recent);
        for entry in recent {
            sent = sent.saturating_add(entry.sent);
            add(&mut failures, &entry.failures);
        }
        (sent, failures)
    }

    /// The commonest cause if nearly all datagrams of the last ten seconds were not sent: nine tenths of at least ten.
    ///
    /// Where the cause may lie in the destination, all must have failed. Else a stranger who forges source addresses without a route
    /// could make a host that serves its clients look broken.
    pub(super) fn failure(&self, now: Instant) -> Option<SendFailure> {
        let (sent, failures) = self.totals(now);
        let unsent_for = |wanted: &dyn Fn(SendFailure) -> bool| -> u64 {
            let causes = SendFailure::ALL.into_iter().zip(failures);
            causes
                .filter(|(cause, _)| wanted(*cause))
                .fold(0, |sum, (_, count)| sum.saturating_add(count))
        };
        let own = unsent_for(&|cause| !cause.depends_on_destination());
        let most_fail = own >= MIN_FAILURES
            && own.saturating_mul(100) >= own.saturating_add(sent).saturating_mul(FAILING_PERCENT);
        let all_fail = sent == 0 && unsent_for(&|_| true) >= MIN_FAILURES;
        if !most_fail && !all_fail {
            return None;
        }
        let causes = SendFailure::ALL.into_iter().zip(failures);
        // An attempt by a stranger must not hide the cause that matters.
        let causes = causes.filter(|(cause, _)| all_fail || !cause.depends_on_destination());
        causes
            .max_by_key(|(_, count)| *count)
            .map(|(cause, _)| cause)
    }

    /// Returns true if no cause goes on and no failure is in the window, so that replies which are sent need not be recorded.
    pub(super) fn is_calm(&self, now: Instant) -> bool {
        let (_, failures) = self.totals(now);
        failures.iter().all(|count| *count == 0)
            && self.causes.iter().all(|cause| cause.last_failure.is_none())
    }
}

impl CauseState {
    /// Records failures of this cause, and whether other replies were sent.
    fn record(
        &mut self,
        cause: SendFailure,
        failures: u64,
        any_sent: bool,
        now: Instant,
    ) -> Option<Change> {
        if failures > 0 {
            self.last_failure = Some(now);
            self.failures = self.failures.saturating_add(failures);
            let is_due = self
                .told_at
                .is_none_or(|at| now.saturating_duration_since(at) >= CHANGE_INTERVAL);
            if self.is_told || !is_due {
                return None;
            }
            (self.is_told, self.told_at) = (true, Some(now));
            return Some(Change::NotSent(cause, self.failures));
        }
        let last_failure = self.last_failure?;
        if !any_sent || now.saturating_duration_since(last_failure) < QUIET {
            return None;
        }
        self.last_failure = None;
        if !std::mem::take(&mut self.is_told) {
            return None;
        }
        Some(Change::SentAgain(cause, std::mem::take(&mut self.failures)))
    }
}

/// Adds `more` to `sums`, cause by cause.
fn add(sums: &mut Failures, more: &Failures) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SendFailure::{Buffers, Firewall, Other, Unreachable};

    /// A state, and the time of its first event.
    struct Bench {
        state: DeliveryState,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                state: DeliveryState::default(),
                start: Instant::now(),
            }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn sent(&mut self, seconds: f64, count: u64) -> Vec<Change> {
            let replies = Replies::Datagrams(count, Failures::default());
            self.state.record(replies, self.at(seconds)).to_vec()
        }

        fn unsent(&mut self, seconds: f64, cause: SendFailure, count: u64) -> Vec<Change> {
            let replies = Replies::Datagrams(0, failures(cause, count));
            self.state.record(replies, self.at(seconds)).to_vec()
        }

        fn failure(&self, seconds: f64) -> Option<SendFailure> {
            self.state.failure(self.at(seconds))
        }
    }

    fn failures(cause: SendFailure, count: u64) -> Failures {
        let mut failures = Failures::default();
        failures[cause as usize] = count;
        failures
    }

    #[test]
    fn nine_tenths_of_at_least_ten_datagrams_in_ten_seconds_are_a_failure() {
        let mut bench = Bench::new();
        bench.unsent(0.0, Firewall, 9);
        assert_eq!(bench.failure(0.0), None, "too few to tell");
        bench.unsent(0.5, Firewall, 1);
        assert_eq!(bench.failure(0.5), Some(Firewall));
        bench.sent(1.0, 1);
        assert_eq!(bench.failure(1.0), Some(Firewall), "10 of 11");
        bench.sent(1.0, 1);
        assert_eq!(bench.failure(1.0), None, "10 of 12");
        bench.unsent(2.0, Firewall, 8);
        assert_eq!(bench.failure(2.0), Some(Firewall), "18 of 20");
    }

    #[test]
    fn a_failure_is_forgotten_after_ten_seconds() {
        let mut bench = Bench::new();
        bench.unsent(0.0, Firewall, 100);
        assert_eq!(bench.failure(9.9), Some(Firewall));
        assert_eq!(bench.failure(10.0), None);
        // The entry of the same remainder is not taken for an old one.
        bench.unsent(10.0, Buffers, 5);
        assert_eq!(bench.failure(10.0), None);
        bench.unsent(19.0, Buffers, 5);
        assert_eq!(bench.failure(19.0), Some(Buffers));
        assert_eq!(bench.failure(20.0), None);
        assert_eq!(bench.failure(1e6), None);
    }

    #[test]
    fn forged_sources_do_not_make_a_host_that_serves_its_clients_look_broken() {
        for cause in [Unreachable, Other] {
            let mut bench = Bench::new();
            bench.unsent(0.0, cause, 1_000_000);
            assert_eq!(bench.failure(0.0), Some(cause), "no reply was sent");
            bench.sent(0.0, 1);
            assert_eq!(bench.failure(0.0), None, "one reply was sent");
            bench.unsent(1.0, Firewall, 12);
            assert_eq!(bench.failure(1.0), Some(Firewall), "12 of 13 others");
        }
    }

    #[test]
    fn replies_to_tcp_clients_decide_nothing_about_readiness() {
        let mut bench = Bench::new();
        let stream = Replies::Stream(0, failures(Unreachable, 100));
        let changes = bench.state.record(stream, bench.at(0.0));
        assert_eq!(*changes, [Change::NotSent(Unreachable, 100)]);
        assert_eq!(bench.failure(0.0), None);
        bench.unsent(0.0, Firewall, 10);
        bench
            .state
            .record(Replies::Stream(100, Failures::default()), bench.at(1.0));
        assert_eq!(bench.failure(1.0), Some(Firewall));
    }

    #[test]
    fn a_cause_is_told_when_it_begins_and_when_it_has_ended() {
        let mut bench = Bench::new();
        assert_eq!(
            bench.unsent(0.0, Firewall, 3),
            [Change::NotSent(Firewall, 3)]
        );
        assert_eq!(bench.unsent(1.0, Firewall, 4), []);
        assert_eq!(bench.unsent(1.0, Buffers, 1), [Change::NotSent(Buffers, 1)]);
        assert_eq!(bench.sent(3.9, 5), [], "not yet");
        let ended = [
            Change::SentAgain(Firewall, 7),
            Change::SentAgain(Buffers, 1),
        ];
        assert_eq!(bench.sent(4.0, 1), ended);
        assert_eq!(bench.sent(5.0, 1), []);
    }

    #[test]
    fn silence_does_not_end_a_cause() {
        let mut bench = Bench::new();
        bench.unsent(0.0, Firewall, 1);
        assert_eq!(bench.sent(1000.0, 0), []);
        assert!(!bench.state.is_calm(bench.at(1000.0)));
        assert_eq!(bench.sent(1001.0, 1), [Change::SentAgain(Firewall, 1)]);
        assert!(bench.state.is_calm(bench.at(1001.0)));
    }

    #[test]
    fn a_cause_that_comes_and_goes_is_told_twice_a_minute() {
        let mut bench = Bench::new();
        let mut told = Vec::new();
        for round in 0..60 {
            let at = f64::from(round) * 10.0;
            told.extend(bench.unsent(at, Unreachable, 1));
            told.extend(bench.sent(at + 5.0, 1));
        }
        assert_eq!(told.len(), 2 * 10, "{told:?}");
        // What was not told is in the next number.
        assert_eq!(told[0], Change::NotSent(Unreachable, 1));
        assert_eq!(told[1], Change::SentAgain(Unreachable, 1));
        assert_eq!(told[2], Change::NotSent(Unreachable, 6));
    }

    #[test]
    fn a_lasting_cause_after_a_brief_one_is_told_within_a_minute() {
        let mut bench = Bench::new();
        bench.unsent(0.0, Firewall, 1);
        bench.sent(3.0, 1);
        assert_eq!(bench.unsent(4.0, Firewall, 1), []);
        assert_eq!(bench.unsent(59.9, Firewall, 1), []);
        assert_eq!(
            bench.unsent(60.0, Firewall, 1),
            [Change::NotSent(Firewall, 3)]
        );
    }

    #[test]
    fn a_state_without_failures_is_calm_until_one_comes_and_ten_seconds_after_it() {
        let mut bench = Bench::new();
        assert!(bench.state.is_calm(bench.at(0.0)));
        bench.unsent(0.0, Firewall, 1);
        assert!(!bench.state.is_calm(bench.at(0.0)));
        bench.sent(3.0, 1);
        assert!(!bench.state.is_calm(bench.at(9.9)));
        assert!(bench.state.is_calm(bench.at(10.0)));
    }
}
