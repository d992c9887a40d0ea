//! What is due as time passes?
//!
//! The part of the pool's rules about deadlines, silence and idleness, and when to check them again.

use std::time::{Duration, Instant};

use super::actions::{Actions, Event, Failure};
use super::address_record::FailureKind;
use super::isolation::SLOW_ISOLATED_CONNECT;
use super::pool::{MAX_SENDS, Pool};
use super::scheduling::{DOWN_WAIT, SLOW_SHARED_CONNECT};
use super::session_end::CAUSE_WINDOW;
use super::table::{Entry, Key, Phase, PoolQuery, Purpose, Queue, Session, SessionId};

/// How long an idle session stays open to an address that is not the preferred one.
const LESS_PREFERRED_IDLE: Duration = Duration::from_secs(10);

/// The longest time of a query, where connecting is slow: after that most clients have retried or given up.
const MAX_QUERY_TIME: Duration = Duration::from_secs(5);

impl<Q: PoolQuery> Pool<Q> {
    /// Fails queries whose deadline has passed, and lists those whose clients are due to be served.
    pub(super) fn expire(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let mut over = Vec::new();
        for (key, entry) in self.queries.iter() {
            if entry.query.deadline() <= now {
                over.push(key);
            } else if entry.query.due() <= now {
                actions.due.push(entry.query.clone());
            }
        }
        for key in over {
            let Some(entry) = self.queries.get(key) else {
                continue;
            };
            // The session was silent until a deadline, and no other answered: it is dead.
            let is_dead =
                |session: &&Session| session.is_silent && !entry.is_late && entry.is_on(session.id);
            let dead: Vec<SessionId> = self
                .sessions
                .iter()
                .filter(is_dead)
                .map(|session| session.id)
                .collect();
            self.record_timeout(key, now);
            self.fail_query(key, Failure::TimedOut, now, actions);
            for session in dead {
                actions.events.push(Event::SessionDead(session));
                self.close_session(session, now, actions);
            }
        }
    }

    /// Records for monitoring that the addresses that have this query did not answer it.
    fn record_timeout(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.queries.get(key) else {
            return;
        };
        let name = entry.query.name_hash();
        for (rank, address) in self.addresses.iter_mut().enumerate() {
            let mut sessions = self.sessions.iter();
            if sessions.any(|session| session.rank == rank && entry.is_on(session.id)) {
                address
                    .record
                    .record_lost_query(FailureKind::NoAnswer, name, now);
            }
        }
    }

    fn silence_timeout(&self, session: &Session) -> Duration {
        let (least, timeout) = (self.settings.min_silence_timeout, self.settings.timeout);
        session.silence_timeout(least, timeout / 3, self.query_time() * 2 / 3)
    }

    /// How long a query may take: the timeout of the settings, unless the last session took longer than that to connect, so that nothing
    /// could be answered in time. Then it is one and a half times as long as connecting took, at most `MAX_QUERY_TIME`.
    pub fn query_time(&self) -> Duration {
        let timeout = self.settings.timeout;
        if self.last_connect_time > timeout {
            timeout.max((self.last_connect_time * 3 / 2).min(MAX_QUERY_TIME))
        } else {
            timeout
        }
    }

    /// When a query is late: two sessions have it, the second was opened after the first got it and has had it for long enough.
    fn late_at(&self, entry: &Entry<Q>) -> Option<Instant> {
        let [first, .., last] = &entry.transmissions[..] else {
            return None;
        };
        let index = self.position(last.session)?;
        let session = &self.sessions[index];
        // A session that was open then may have died with the first.
        let is_new = session.started_at >= first.sent_at || entry.sends >= MAX_SENDS;
        let may = is_new && !entry.is_late;
        may.then(|| last.sent_at + self.silence_timeout(session))
    }

    /// Marks the queries that are late. A session that is silent about late queries only is no longer silent.
    pub(super) fn mark_late(&mut self, now: Instant) {
        let late: Vec<Key> = self
            .queries
            .iter()
            .filter(|(_, entry)| self.late_at(entry).is_some_and(|at| at <= now))
            .map(|(key, _)| key)
            .collect();
        for key in &late {
            if let Some(entry) = self.queries.get_mut(*key) {
                entry.is_late = true;
            }
        }
        if late.is_empty() {
            return;
        }
        for index in 0..self.sessions.len() {
            if self.sessions[index].is_silent && self.oldest_wait(&self.sessions[index]).is_none() {
                self.sessions[index].is_silent = false;
                self.sessions[index].is_doubtful = true;
            }
        }
    }

    /// Since when the longest pending query of a session waits, without those that are late.
    fn oldest_wait(&self, session: &Session) -> Option<Instant> {
        let entries = session
            .pending
            .values()
            .filter_map(|key| self.queries.get(*key));
        let transmissions = entries
            .filter(|entry| !entry.is_late)
            .flat_map(|entry| &entry.transmissions);
        transmissions
            .filter(|transmission| transmission.session == session.id)
            .map(|transmission| transmission.sent_at)
            .min()
    }

    /// When a session will count as silent, if nothing arrives.
    fn silent_at(&self, session: &Session) -> Option<Instant> {
        if !session.is_shared() || session.phase == Phase::Connecting || session.is_silent {
            return None;
        }
        let since = self.oldest_wait(session)?;
        Some(since.max(session.last_received_at) + self.silence_timeout(session))
    }

    /// When the next query on a silent session has waited long enough to be sent elsewhere.
    fn next_hedge_at(&self, session: &Session) -> Option<Instant> {
        if !session.is_silent {
            return None;
        }
        let keys = session.pending.values();
        let since = keys.filter_map(|key| self.hedgeable_since(*key));
        Some(since.min()? + self.silence_timeout(session))
    }

    /// When a query was last sent, if it may be sent on another session as well.
    fn hedgeable_since(&self, key: Key) -> Option<Instant> {
        let entry = self.queries.get(key)?;
        let may = !entry.is_late && entry.queue == Queue::None && entry.sends < MAX_SENDS;
        entry
            .last_sent_at()
            .filter(|_| may && self.late_at(entry).is_none())
    }

    /// Marks sessions that are silent, and queues their queries for another session when they have waited long enough.
    pub(super) fn mark_silent(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let all = self.sessions.iter();
        let silent = all.filter(|session| {
            let at = self.silent_at(session).or(self.next_hedge_at(session));
            at.is_some_and(|at| at <= now)
        });
        let silent: Vec<(SessionId, Instant)> = silent
            .filter_map(|session| {
                Some((session.id, now.checked_sub(self.silence_timeout(session))?))
            })
            .collect();
        for (session, before) in silent {
            self.hedge_silent_session(session, before, now, actions);
        }
        let isolated = self.sessions.iter();
        let isolated = isolated.filter_map(|session| self.isolated_hedge_at(session, now));
        let again: Vec<Key> = isolated
            .filter(|(_, at)| *at <= now)
            .map(|(key, _)| key)
            .collect();
        for key in again {
            if self.may_send_again(key, now) {
                self.enqueue_isolated(key);
            }
        }
    }

    /// When an isolated query is sent to another address: nothing arrived from this one by then, on any session.
    fn isolated_hedge_at(&self, session: &Session, now: Instant) -> Option<(Key, Instant)> {
        let Purpose::Isolated(key) = session.purpose else {
            return None;
        };
        let since = self.hedgeable_since(key)?;
        let has_received = |other: &Session| {
            let is_open = other.phase != Phase::Connecting;
            is_open && other.rank == session.rank && other.last_received_at > since
        };
        let entry = self.queries.get(key)?;
        let is_here = entry.is_on(session.id) && !self.sessions.iter().any(has_received);
        let may = is_here && self.has_alternative(session.rank, entry.failed, now);
        may.then(|| (key, since + self.silence_timeout(session)))
    }

    /// Marks a session silent, and queues for other sessions what has been pending there since `before` or longer.
    pub(super) fn hedge_silent_session(
        &mut self,
        id: SessionId,
        before: Instant,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(index) = self.position(id) else {
            return;
        };
        let session = &mut self.sessions[index];
        if !std::mem::replace(&mut session.is_silent, true) {
            actions.events.push(Event::SessionSilent(id));
        }
        let mut keys: Vec<Key> = session.pending.values().copied().collect();
        keys.sort_unstable_by_key(|key| key.arrival_number());
        for key in keys.into_iter().rev() {
            let since = self.hedgeable_since(key);
            if since.is_some_and(|since| since <= before) && self.may_send_again(key, now) {
                self.enqueue(key, true);
            }
        }
    }

    /// Until when an idle session stays open: four fifths of the resolver's keepalive time, so that the resolver does not close it under a
    /// query; for an address that is not the best one, [`LESS_PREFERRED_IDLE`].
    fn idle_until(&self, session: &Session, best: Option<usize>) -> Option<Instant> {
        if session.phase != Phase::Open || !session.is_shared() || !session.pending.is_empty() {
            return None;
        }
        let since = session.last_received_at.max(session.last_sent_at);
        let kept = session.keepalive.map(|keepalive| since + keepalive * 4 / 5);
        let is_lesser = best.is_some_and(|best| best < session.rank);
        let lesser = is_lesser.then_some(since + LESS_PREFERRED_IDLE);
        kept.into_iter().chain(lesser).min()
    }

    /// The rank of the most preferred healthy address that has a usable session.
    fn best_rank(&self, now: Instant) -> Option<usize> {
        let serving = self.sessions.iter().filter(|session| session.is_usable());
        serving
            .map(|session| session.rank)
            .filter(|rank| self.addresses[*rank].is_healthy(now))
            .min()
    }

    pub(super) fn close_idle(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let best = self.best_rank(now);
        let over = self.sessions.iter().filter(|session| {
            self.idle_until(session, best)
                .is_some_and(|until| until <= now)
        });
        let over: Vec<SessionId> = over.map(|session| session.id).collect();
        for session in over {
            self.close_session(session, now, actions);
        }
    }

    /// When [`Pool::tick`] must be called next, at the latest; none if nothing is under way.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let entries = || self.queries.iter().map(|(_, entry)| entry);
        let query_dues = entries().map(|entry| entry.query.due().min(entry.query.deadline()));
        let late = entries().filter_map(|entry| self.late_at(entry));
        let silent = self
            .sessions
            .iter()
            .filter_map(|session| self.silent_at(session).or(self.next_hedge_at(session)));
        let isolated_hedges = self
            .sessions
            .iter()
            .filter_map(|session| Some(self.isolated_hedge_at(session, now)?.1));
        let down_until = self.down.map(|(_, until)| until);
        let connect_race = self
            .connect_race
            .next_attempt_at
            .into_iter()
            .chain(down_until);
        let connect_race = connect_race.filter(|at| !self.shared_queue.is_empty() && *at > now);
        let best = self.best_rank(now);
        let idle = self
            .sessions
            .iter()
            .filter_map(|session| self.idle_until(session, best));
        let connecting = self
            .sessions
            .iter()
            .filter(|session| session.phase == Phase::Connecting);
        let down_wait = connecting
            .filter(|_| self.down.is_some())
            .map(|session| session.started_at + DOWN_WAIT)
            .filter(|at| *at > now);
        let later = self.due_for_queued(now);
        query_dues
            .chain(late)
            .chain(silent)
            .chain(isolated_hedges)
            .chain(connect_race)
            .chain(idle)
            .chain(down_wait)
            .chain(later)
            .chain(self.hellos_due(now))
            .min()
    }

    /// When something may change for the queued queries: a token is there, a backoff ends, or an attempt or a query counts as slow.
    fn due_for_queued(&self, now: Instant) -> impl Iterator<Item = Instant> {
        let tokens = (0..self.addresses.len()).flat_map(move |rank| {
            let address = &self.addresses[rank];
            let shared =
                (!self.shared_queue.is_empty()).then(|| address.shared_tokens.ready_at(now));
            let isolated =
                (!self.isolated_queue.is_empty()).then(|| address.isolated_tokens.ready_at(now));
            // Or the address is backed off.
            let waits = !self.shared_queue.is_empty() || !self.isolated_queue.is_empty();
            let health = address.health.backoff_until().filter(|_| waits);
            let probe = address.health.probe_at().filter(|_| waits);
            shared
                .into_iter()
                .chain(isolated)
                .chain(health)
                .chain(probe)
        });
        let slow = self
            .sessions
            .iter()
            .filter(|session| session.phase == Phase::Connecting)
            .filter(|session| !session.is_shared() || !self.isolated_queue.is_empty());
        let slow = slow.map(|session| session.started_at + SLOW_ISOLATED_CONNECT);
        let coming = self
            .sessions
            .iter()
            .filter(|session| session.is_shared_connecting());
        let coming = coming.map(|session| session.started_at + SLOW_SHARED_CONNECT);
        let slow = slow.chain(coming.filter(|_| !self.shared_queue.is_empty()));
        let isolated = || self.sessions.iter().filter(|session| !session.is_shared());
        let reusable = isolated()
            .filter(|session| session.pending.is_empty() || !self.isolated_queue.is_empty())
            .map(|session| session.last_sent_at + CAUSE_WINDOW);
        let tested = isolated().map(Self::test_ends_at);
        let slow = slow.chain(reusable).chain(tested);
        // Then queries may no longer wait for a suspect.
        let waits = !self.shared_queue.is_empty() && !self.isolated_queue.is_empty();
        let expiry = self.culprits.next_expiry(now).filter(|_| waits);
        let room = (!self.shared_queue.is_empty()).then(|| self.room_at(now));
        tokens
            .chain(slow)
            .chain(expiry)
            .chain(room.flatten())
            .filter(move |at| *at > now)
    }
}
