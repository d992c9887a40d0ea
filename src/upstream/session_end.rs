//! What happens to queries when a session ends?
//!
//! The part of the pool's rules about sessions that the resolver or the pool ends, and about the queries that were pending on them.

use std::time::{Duration, Instant};

use super::actions::{Actions, Event, Failure};
use super::address_record::FailureKind;
use super::health::AddressFailure;
use super::pool::{MAX_SENDS, Pool};
use super::table::{Entry, Key, PoolQuery, Purpose, Queue, Session, SessionId, Suspicion};

/// The address must have given a good answer this recently for a query that ends its session to be a culprit.
const MAX_ANSWER_AGE: Duration = Duration::from_secs(5);
/// A query may be the cause of a session's end only if it was sent this recently.
pub(super) const CAUSE_WINDOW: Duration = Duration::from_secs(1);

/// A session with this many answers gets its token refunded, however it ended.
const ANSWERS_FOR_REFUND: u32 = 4;

/// Which address answered a query, and when the query had been sent there.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerSource {
    pub(super) rank: usize,
    pub(super) sent_at: Instant,
}

/// A query that is no longer pending on any session, and when it was sent on the one that ended.
pub(super) struct LostQuery {
    pub(super) key: Key,
    sent_at: Instant,
}

impl<Q: PoolQuery> Pool<Q> {
    /// Removes a query from the tables. If it was answered, sessions that had it for longer and were silent are dead.
    pub(super) fn remove_query(
        &mut self,
        key: Key,
        answered: Option<AnswerSource>,
        now: Instant,
        actions: &mut Actions<Q>,
    ) -> Option<Entry<Q>> {
        let entry = self.queries.remove(key)?;
        let mut dead = Vec::new();
        for transmission in &entry.transmissions {
            let session = self
                .sessions
                .iter_mut()
                .find(|session| session.id == transmission.session);
            if let Some(session) = session {
                session.pending.remove(&transmission.id);
                let had_longer =
                    answered.is_some_and(|answered| transmission.sent_at < answered.sent_at);
                if had_longer && session.is_silent {
                    dead.push(session.id);
                }
            }
        }
        if let Some(answered) = answered {
            for session in dead {
                self.close_dead_session(session, answered.rank, now, actions);
            }
        }
        Some(entry)
    }

    /// Closes a session that was silent about what another answered. Sessions to the same address that received data no later become
    /// doubtful.
    fn close_dead_session(
        &mut self,
        id: SessionId,
        answered_by: usize,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(index) = self.position(id) else {
            return;
        };
        let (rank, last_received_at) = (
            self.sessions[index].rank,
            self.sessions[index].last_received_at,
        );
        if self.sessions[index].answered == 0
            && answered_by != rank
            && self.addresses[rank].record_silence(now)
        {
            actions.events.push(Event::AddressFailing(rank));
        }
        for other in self
            .sessions
            .iter_mut()
            .filter(|other| other.rank == rank && other.last_received_at <= last_received_at)
        {
            other.is_doubtful = true;
        }
        if self.sessions_at(rank) == 0 {
            // The answer came from another address.
            let jitter = self.jitter();
            self.addresses[rank]
                .health
                .record_failure(AddressFailure::Unreachable, jitter, now);
        }
        actions.events.push(Event::SessionDead(id));
        self.close_session(id, now, actions);
    }

    /// Ends a query without an answer.
    pub(super) fn fail_query(
        &mut self,
        key: Key,
        failure: Failure,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        if let Some(entry) = self.remove_query(key, None, now, actions) {
            actions.failed.push((entry.query, failure));
        }
    }

    /// Closes a session. Its pending queries are sent elsewhere where that is allowed.
    pub(super) fn close_session(&mut self, id: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if self.position(id).is_some() {
            actions.closes.push(id);
            self.remove_session(id, false, now, actions);
        }
    }

    /// Removes a session from the tables, and requeues or fails the queries that it leaves.
    pub(super) fn remove_session(
        &mut self,
        id: SessionId,
        by_resolver: bool,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(index) = self.position(id) else {
            return;
        };
        let session = self.sessions.remove(index);
        let lost = self.take_lost_queries(&session);
        let address = &mut self.addresses[session.rank];
        let earned_refund =
            session.answered >= ANSWERS_FOR_REFUND || lost.is_empty() && session.answered > 0;
        if earned_refund && session.token_refundable {
            let tokens = match session.purpose {
                Purpose::Shared | Purpose::Probe => &address.shared_tokens,
                Purpose::Isolated(_) => &address.isolated_tokens,
            };
            tokens.refund();
        }
        let mut may_be_cause = by_resolver;
        if session.is_shared() && by_resolver {
            may_be_cause = self.record_session_end(&session, lost.len(), now);
        }
        self.record_closed(by_resolver, &lost, session.rank, now);
        let tested = self.suspects_to_test(&lost, session.rank, now);
        let may_have_limit = self.addresses[session.rank].may_have_limit(now);
        // A query that has waited for longer is most likely not the cause.
        let is_recent = |lost: &LostQuery| now < lost.sent_at + CAUSE_WINDOW;
        let is_only_candidate = lost.iter().filter(|lost| is_recent(lost)).count() == 1;
        let is_tested =
            |lost: &LostQuery| may_be_cause && is_recent(lost) && tested.contains(&lost.key);
        let is_complete = session.is_shared() && lost.iter().all(is_tested);
        for lost in lost.into_iter().rev() {
            let (key, is_suspect) = (lost.key, may_be_cause && is_recent(&lost));
            if session.is_shared() {
                let is_tested = is_tested(&lost);
                if let Some(entry) = self.queries.get_mut(key) {
                    entry.complete_test_at = is_complete.then_some(session.rank);
                    entry.suspicion = match is_tested && !may_have_limit {
                        true => Suspicion::Suspect,
                        false => Suspicion::None,
                    };
                }
                let must_isolate = is_tested || by_resolver && self.is_last_send(key);
                self.requeue_lost(key, is_suspect, must_isolate, now, actions);
            } else {
                self.requeue_lost_isolated(
                    &lost,
                    session.rank,
                    is_suspect && is_only_candidate,
                    now,
                    actions,
                );
            }
        }
    }

    /// Records for monitoring the queries that were lost when the resolver closed a session.
    fn record_closed(&mut self, by_resolver: bool, lost: &[LostQuery], rank: usize, now: Instant) {
        for lost in lost.iter().filter(|_| by_resolver) {
            if let Some(entry) = self.queries.get(lost.key) {
                let name = entry.query.name_hash();
                let record = &mut self.addresses[rank].record;
                record.record_lost_query(FailureKind::Closed, name, now);
            }
        }
    }

    /// Takes the queries that were pending on this session only, oldest first.
    fn take_lost_queries(&mut self, session: &Session) -> Vec<LostQuery> {
        let mut lost = Vec::new();
        for key in session.pending.values() {
            let Some(entry) = self.queries.get_mut(*key) else {
                continue;
            };
            let transmissions = entry.transmissions.iter();
            let index = transmissions
                .enumerate()
                .find(|(_, transmission)| transmission.session == session.id);
            let Some((index, sent_at)) =
                index.map(|(index, transmission)| (index, transmission.sent_at))
            else {
                continue;
            };
            entry.transmissions.remove(index);
            if entry.transmissions.is_empty() && entry.queue == Queue::None {
                lost.push(LostQuery { key: *key, sent_at });
            }
        }
        lost.sort_unstable_by_key(|lost| lost.key.arrival_number());
        lost
    }

    /// Records that the resolver ended a shared session. Returns true if a pending query may be the cause.
    fn record_session_end(&mut self, session: &Session, lost: usize, now: Instant) -> bool {
        let jitter = self.jitter();
        let address = &mut self.addresses[session.rank];
        // Where the resolver keeps no session, the number of answers is no limit.
        if session.keepalive != Some(Duration::ZERO) {
            address.record_session_end(session.answered, lost, jitter, now);
        }
        // At its limit the resolver closes the session whatever the queries are.
        session.answered < address.session_query_limit(now)
    }

    /// Returns true if a query may be sent only once more: then no other query may end its session.
    pub(super) fn is_last_send(&self, key: Key) -> bool {
        let entry = self.queries.get(key);
        entry.is_some_and(|entry| entry.sends + 1 >= MAX_SENDS)
    }

    /// Requeues or fails a query whose shared session ended.
    fn requeue_lost(
        &mut self,
        key: Key,
        is_suspect: bool,
        must_isolate: bool,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(entry) = self.queries.get(key) else {
            return;
        };
        let groups = entry.query.groups();
        let is_like_culprits = is_suspect && self.culprits.level(groups, now) > 0
            || self.culprits.must_isolate(groups, now);
        if !self.may_send_again(key, now) {
            self.fail_query(key, Failure::ConnectionLost, now, actions);
        } else if must_isolate || is_like_culprits {
            self.enqueue_isolated(key);
        } else {
            self.enqueue(key, true);
        }
    }

    /// Requeues or fails a query whose own session ended, because of it if `is_cause`. The first time may be chance, unless the query is
    /// like known culprits.
    fn requeue_lost_isolated(
        &mut self,
        lost: &LostQuery,
        rank: usize,
        is_cause: bool,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        // An address that answers nothing may close all sessions.
        let answered = self.addresses[rank].last_good_answer;
        let address_works = answered.is_some_and(|at| now < at + MAX_ANSWER_AGE);
        let Some(entry) = self.queries.get(lost.key) else {
            return;
        };
        let groups = entry.query.groups();
        let may_blame_query = entry.ended_session || address_works;
        // Sessions that ended earlier may have ended by the same event, such as a restart of the resolver.
        let distinct_since = answered.map_or(lost.sent_at, |at| at.max(lost.sent_at));
        if is_cause && entry.complete_test_at == Some(rank) {
            self.addresses[rank].record_test(false, now);
        }
        let is_cause = is_cause && !self.addresses[rank].closes_at_random(now);
        let is_known = is_cause && self.culprits.level(groups, now) > 0;
        let is_culprit = is_cause && may_blame_query;
        let is_retried = !is_known && self.may_send_again(lost.key, now);
        if is_culprit
            && (!is_retried
                || address_works
                    && self
                        .culprits
                        .has_candidate(groups.zone, rank, distinct_since, now))
        {
            self.culprits.record(groups, rank, distinct_since, now);
            self.addresses[rank].record_culprit();
            actions.events.push(Event::CulpritFound);
            self.isolate_queued(now);
        }
        if !is_retried {
            if is_cause {
                self.test_next(groups.client, now);
            }
            return self.fail_query(lost.key, Failure::ConnectionLost, now, actions);
        }
        if let Some(entry) = self.queries.get_mut(lost.key) {
            entry.suspicion = match entry.suspicion {
                Suspicion::Suspect | Suspicion::Likely if is_cause => Suspicion::Likely,
                _ => Suspicion::None,
            };
            if is_cause && address_works {
                entry.ended_session = true;
                self.culprits.record_candidate(groups.zone, rank, now);
            }
        }
        self.exclude_address(lost.key, rank, now);
        self.enqueue_isolated(lost.key);
    }
}
