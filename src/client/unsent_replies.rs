//! Which replies were not sent, and who hears of it?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::client::delivery_state::{Change, DeliveryState, Failures, Replies};
use crate::client::send_failure::SendFailure;
use crate::system::clock;
use crate::telemetry::log::{info, warn};
use crate::telemetry::metrics::Counter;

/// Outcomes that a [`ReplyTag`] can hold.
pub const MAX_OUTCOMES: usize = 32;

/// What a reply counts as, for the case that it is not sent. The caller chooses the numbers of outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTag {
    outcome: u8,
    goodness: Goodness,
}

/// Whether the service level objective counts a reply as good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodness {
    /// It does not.
    No,
    /// It does, and has counted the reply.
    Counted,
    /// It does, and counts the reply after the batch was sent.
    CountedAfterSend,
}

impl ReplyTag {
    /// The tag of a reply with this number of its outcome, below [`MAX_OUTCOMES`].
    pub const fn new(outcome: u8, goodness: Goodness) -> Self {
        Self { outcome, goodness }
    }

    /// Whether the reply counts as good only after it was sent.
    pub(super) fn is_counted_after_send(self) -> bool {
        self.goodness == Goodness::CountedAfterSend
    }

    /// The tag once the batch was sent, though a part of the reply waits.
    pub(super) fn after_send(self) -> Self {
        let goodness = match self.goodness {
            Goodness::CountedAfterSend => Goodness::Counted,
            other => other,
        };
        Self { goodness, ..self }
    }
}

/// Counts replies that the kernel did not send, and logs when that begins and ends. Shared by all threads that answer.
///
/// The lock guards the state; no other lock is taken while it is held. It is only taken after a failure, and by threads that send replies
/// while `is_watching`. The counters and flags are atomic.
#[derive(Debug, Default)]
pub struct UnsentReplies {
    by_cause: [Counter; SendFailure::ALL.len()],
    /// By transport (UDP, TCP) and outcome.
    by_outcome: [[Counter; MAX_OUTCOMES]; 2],
    /// Those that had been counted as good.
    good: Counter,
    state: Mutex<DeliveryState>,
    /// There were failures, so that replies which are sent must be recorded too.
    is_watching: AtomicBool,
    /// It was logged that the system has no sendmmsg, or no recvmmsg.
    told_of_sendmmsg: AtomicBool,
    told_of_recvmmsg: AtomicBool,
}

/// A system call for many datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchCall {
    /// sendmmsg(2).
    Sendmmsg,
    /// recvmmsg(2).
    Recvmmsg,
}

impl UnsentReplies {
    /// Replies that were not sent, by [`SendFailure`].
    pub fn by_cause(&self) -> &[Counter; SendFailure::ALL.len()] {
        &self.by_cause
    }

    /// Replies over TCP, or over UDP, that were not sent and have this number of their outcome.
    pub fn count_by(&self, tcp: bool, outcome: usize) -> u64 {
        self.by_outcome
            .get(usize::from(tcp))
            .and_then(|counters| counters.get(outcome))
            .map_or(0, Counter::value)
    }

    /// Replies that were not sent after they had been counted as good.
    pub fn good(&self) -> u64 {
        self.good.value()
    }

    /// Why nearly all replies fail to leave, as of `now`. None if they leave.
    pub fn failure(&self, now: Instant) -> Option<SendFailure> {
        self.state.lock().failure(now)
    }

    /// Returns true while replies that are sent must be recorded.
    pub(super) fn is_watching(&self) -> bool {
        // Relaxed: a reply that is recorded late or not at all changes little.
        self.is_watching.load(Ordering::Relaxed)
    }

    /// Records datagrams of which the kernel sent `sent` and refused the others.
    #[cold]
    pub(super) fn record_datagrams(&self, sent: usize, unsent: &[(Errno, ReplyTag)]) {
        let mut failures = Failures::default();
        for (error, tag) in unsent {
            self.count_unsent(false, SendFailure::of_datagram(*error), *tag, &mut failures);
        }
        let sent = u64::try_from(sent).unwrap_or(u64::MAX);
        self.record(Replies::Datagrams(sent, failures), |cause| {
            let mut errors = unsent.iter().map(|(error, _)| *error);
            errors.find(|error| SendFailure::of_datagram(*error) == cause)
        });
    }

    /// Records replies to a TCP client that were not sent because of `error`. Returns false, and records nothing, if the client is gone.
    #[cold]
    pub(super) fn record_stream_error(
        &self,
        error: Errno,
        unsent: impl IntoIterator<Item = ReplyTag>,
    ) -> bool {
        let Some(cause) = SendFailure::of_stream(error) else {
            return false;
        };
        let mut failures = Failures::default();
        for tag in unsent {
            self.count_unsent(true, cause, tag, &mut failures);
        }
        self.record(Replies::Stream(0, failures), |_| Some(error));
        true
    }

    /// Records replies that the socket of a TCP client took.
    #[cold]
    pub(super) fn record_stream_sent(&self, sent: usize) {
        let sent = u64::try_from(sent).unwrap_or(u64::MAX);
        self.record(Replies::Stream(sent, Failures::default()), |_| None);
    }

    fn count_unsent(&self, tcp: bool, cause: SendFailure, tag: ReplyTag, failures: &mut Failures) {
        if let Some(failures) = failures.get_mut(cause as usize) {
            *failures = failures.saturating_add(1);
        }
        if let Some(counter) = self.by_cause.get(cause as usize) {
            counter.increment();
        }
        let by_outcome = self.by_outcome.get(usize::from(tcp));
        if let Some(counter) =
            by_outcome.and_then(|counters| counters.get(usize::from(tag.outcome)))
        {
            counter.increment();
        }
        if tag.goodness == Goodness::Counted {
            self.good.increment();
        }
    }

    /// Records the replies and logs changes. `error_of` returns an error of that cause.
    fn record(&self, replies: Replies, error_of: impl Fn(SendFailure) -> Option<Errno>) {
        let now = clock::now();
        let mut state = self.state.lock();
        let changes = state.record(replies, now);
        // Under the lock, so that no thread clears the flag after another one has recorded a failure.
        self.is_watching
            .store(!state.is_calm(now), Ordering::Relaxed);
        drop(state);
        for change in changes {
            log_change(change, &error_of);
        }
    }

    /// Logs once that the system does not have this call, and that datagrams are sent or received one by one.
    #[cold]
    pub fn note_missing_call(&self, call: BatchCall) {
        let (name, told) = match call {
            BatchCall::Sendmmsg => ("sendmmsg", &self.told_of_sendmmsg),
            BatchCall::Recvmmsg => ("recvmmsg", &self.told_of_recvmmsg),
        };
        if !told.swap(true, Ordering::Relaxed) {
            warn!(
                "event=system-call-missing call={name} effect=\"each datagram takes a system call of its own\""
            );
        }
    }
}

fn log_change(change: Change, error_of: impl Fn(SendFailure) -> Option<Errno>) {
    match change {
        Change::NotSent(cause, count) => {
            // A change to "not sent" has an error.
            let error = error_of(cause).unwrap_or(Errno::UnknownErrno);
            warn!(
                "event=replies-not-sent cause={} count={count} error=\"{error}\" remedy=\"{}\"",
                cause.name(),
                cause.remedy()
            );
        }
        Change::SentAgain(cause, count) => {
            info!(
                "event=replies-sent-again cause={} count={count}",
                cause.name()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: ReplyTag = ReplyTag {
        outcome: 3,
        goodness: Goodness::Counted,
    };

    #[test]
    fn an_unsent_reply_is_counted_by_cause_transport_and_outcome() {
        let unsent = UnsentReplies::default();
        let later = ReplyTag::new(3, Goodness::CountedAfterSend);
        unsent.record_datagrams(5, &[(Errno::EPERM, TAG), (Errno::ENOBUFS, later)]);
        unsent.record_stream_error(Errno::EHOSTUNREACH, [TAG, TAG]);
        let counts = unsent.by_cause().each_ref().map(Counter::value);
        assert_eq!(counts, [1, 1, 2, 0, 0]);
        assert_eq!(
            (unsent.count_by(false, 3), unsent.count_by(true, 3)),
            (2, 2)
        );
        assert_eq!(unsent.count_by(false, 4), 0);
        assert_eq!(unsent.good(), 3, "one is yet to be counted as good");
    }

    #[test]
    fn replies_to_a_tcp_client_that_is_gone_do_not_count() {
        let unsent = UnsentReplies::default();
        unsent.record_stream_error(Errno::ECONNRESET, [TAG]);
        assert!(unsent.by_cause().iter().all(|count| count.value() == 0));
        assert_eq!(unsent.count_by(true, 3), 0);
        assert!(!unsent.is_watching());
    }

    #[test]
    fn replies_that_are_sent_are_recorded_only_after_a_failure() {
        let unsent = UnsentReplies::default();
        assert!(!unsent.is_watching());
        let refused = [(Errno::EPERM, TAG); 10];
        unsent.record_datagrams(0, &refused);
        assert!(unsent.is_watching());
        assert_eq!(unsent.failure(clock::now()), Some(SendFailure::Firewall));
        unsent.record_datagrams(2, &[]);
        assert_eq!(unsent.failure(clock::now()), None);
        assert!(unsent.is_watching());
    }
}
