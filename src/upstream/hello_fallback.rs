//! When is the small hello tried?
//!
//! The part of the pool's rules that asks [`HelloRule`](super::hello_size::HelloRule) which hello an attempt has, and tells it what came of
//! it. A handshake that fails is followed by the next at once. One that gets no answer is given some time first, since a client waits: at
//! the usual times of a slow session, the second large hello follows after a second, and the small one a quarter of a second later.

use std::time::{Duration, Instant};

use super::actions::{Actions, Event};
use super::health::AddressFailure;
use super::hello_size::OBSERVATIONS;
use super::pool::Pool;
use super::scheduling::SLOW_SHARED_CONNECT;
use super::table::{Phase, PoolQuery, Session, SessionId};
use crate::identity::key_exchange::HelloSize;

/// How long a hello must be without an answer to count, at least; four times as long as the TCP connection took, if that is longer. A lost
/// packet is sent again sooner. One hello must be without an answer for as long as a slow session takes.
const MIN_UNANSWERED: Duration = Duration::from_millis(250);

impl Session {
    /// When the large hello of this attempt counts as unanswered, if it was sent.
    pub(super) fn unanswered_at(&self) -> Option<Instant> {
        let sent_at = self
            .hello_sent_at
            .filter(|_| self.phase == Phase::Connecting)?;
        let tcp_time = sent_at.saturating_duration_since(self.started_at);
        Some(sent_at + MIN_UNANSWERED.max(tcp_time * 4))
    }

    fn is_unanswered(&self, now: Instant) -> bool {
        self.unanswered_at().is_some_and(|at| at <= now)
    }
}

impl<Q: PoolQuery> Pool<Q> {
    /// Event: TCP is connected and a large hello was sent, where the small one could be.
    pub fn hello_sent(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if let Some(index) = self.position(session) {
            self.sessions[index].hello_sent_at = Some(now);
            self.reschedule(now, actions);
        }
    }

    /// Returns true if the address of that rank gets small hellos, since it answered no large ones.
    pub(super) fn is_post_quantum_left_out(&self, rank: usize, now: Instant) -> bool {
        self.addresses[rank].hello.is_small(now)
    }

    /// How many large hellos to the address of that rank are without an answer for so long that it says something.
    fn unanswered_hellos(&self, rank: usize, now: Instant) -> usize {
        let sessions = self.sessions.iter();
        let unanswered = || {
            sessions
                .clone()
                .filter(|session| session.rank == rank && session.is_unanswered(now))
        };
        if unanswered().any(|session| session.is_slow(SLOW_SHARED_CONNECT, now)) {
            unanswered().count()
        } else {
            0
        }
    }

    /// The hello of the next attempt to the address of that rank.
    pub(super) fn next_hello(&self, rank: usize, now: Instant) -> HelloSize {
        let unanswered = self.unanswered_hellos(rank, now);
        self.addresses[rank].hello.choose(unanswered, now)
    }

    /// Returns true if a small hello should be tried beside large ones that are without an answer.
    pub(super) fn may_hedge_hello(&self, rank: usize, now: Instant) -> bool {
        let mut sessions = self.sessions.iter();
        self.unanswered_hellos(rank, now) > 0
            && self.next_hello(rank, now) == HelloSize::Small
            && !sessions.any(|session| {
                session.rank == rank
                    && session.is_shared_connecting()
                    && session.hello == HelloSize::Small
            })
    }

    /// How many shared attempts to the address of that rank wait in vain for an answer to their large hello, and leave room for another.
    pub(super) fn given_up_hellos(&self, rank: usize, now: Instant) -> usize {
        if self.next_hello(rank, now) == HelloSize::Large {
            return 0;
        }
        let is_given_up = |session: &&Session| {
            session.rank == rank && session.is_shared() && session.is_unanswered(now)
        };
        let given_up = self.sessions.iter().filter(is_given_up);
        given_up.count().min(OBSERVATIONS)
    }

    /// Learns from an attempt that succeeded. Returns false if the session is not wanted: it has the small hello for no reason, and there
    /// is another.
    pub(super) fn learn_from_open_hello(
        &mut self,
        index: usize,
        now: Instant,
        actions: &mut Actions<Q>,
    ) -> bool {
        let opened = &self.sessions[index];
        let (rank, hello) = (opened.rank, opened.hello);
        // Only those that were overtaken: where every handshake is slow, later ones say nothing.
        let is_overtaken = |session: &&Session| {
            session.rank == rank
                && session.started_at < opened.started_at
                && session.is_unanswered(now)
        };
        let unanswered = self.sessions.iter().filter(is_overtaken).count();
        let rule = &mut self.addresses[rank].hello;
        if let Some(is_news) = rule.record_success(hello, unanswered, now) {
            let event = Event::PostQuantumLeftOut { rank, is_news };
            actions.events.push(event);
        }
        hello == HelloSize::Large || rule.is_small(now) || self.sessions_at(rank) < 2
    }

    /// Learns from an attempt that failed. Returns true if another hello is due at once: the failure says nothing of the address.
    pub(super) fn learn_from_failed_hello(
        &mut self,
        failed: &Session,
        fault: AddressFailure,
        now: Instant,
    ) -> bool {
        let rule = &mut self.addresses[failed.rank].hello;
        match (failed.hello, fault) {
            (HelloSize::Large, AddressFailure::LargeHello) => {
                rule.record_failure(HelloSize::Large, now)
            }
            // The hello was read.
            (HelloSize::Large, AddressFailure::Unauthenticated) => {
                rule.reset();
                false
            }
            (HelloSize::Small, AddressFailure::Unreachable) => {
                rule.record_failure(HelloSize::Small, now)
            }
            _ => false,
        }
    }
}
