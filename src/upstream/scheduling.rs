//! What follows from what happened?
//!
//! The part of the pool's rules that looks at all of it: after each event queries that wait are sent as far as there is room,
//! sessions are opened as far as they are needed and may be, and whoever waits in vain is told so.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::actions::{Actions, ConnectRequest, Failure};
use super::health::Health;
use super::pool::{ConnectRace, MAX_PENDING_PER_SESSION, Pool};
use super::session_end::CAUSE_WINDOW;
use super::table::{Entry, Key, Phase, PoolQuery, Purpose, Queue, RankSet, Session};

/// How long an address may take before the next one is tried beside it (RFC 8305 section 5 recommends 250 ms).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// After how long without a connection another one is tried at the same address.
pub(super) const SLOW_SHARED_CONNECT: Duration = Duration::from_secs(1);
/// How long nobody is tried after none could be reached.
const DOWN_RETRY_DELAY: Duration = Duration::from_millis(250);
/// While none can be reached, how long a query waits for an attempt that is under way before it fails.
pub(super) const DOWN_WAIT: Duration = Duration::from_millis(500);

impl<Q: PoolQuery> Pool<Q> {
    /// Sees to all that wait.
    pub(super) fn reschedule(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.send_queued(now, actions);
        // What ends may give back what the next one costs.
        self.close_or_reuse_finished(now, actions);
        self.connect_for_queue(now, actions);
        self.connect_isolated(now, actions);
    }

    /// Has a query wait for a session that it shares: ahead of those that were not sent yet, if it was.
    pub(super) fn enqueue(&mut self, key: Key, ahead: bool) {
        let Some(entry) = self.queries.get_mut(key) else {
            return;
        };
        entry.queue = Queue::Shared;
        if ahead {
            self.shared_queue.push_front(key);
        } else {
            self.shared_queue.push_back(key);
        }
    }

    /// Has it wait for one of its own.
    pub(super) fn enqueue_isolated(&mut self, key: Key) {
        if let Some(entry) = self.queries.get_mut(key) {
            entry.queue = Queue::Isolated;
            // It may be there from the last time.
            if !self.isolated_queue.contains(&key) {
                self.isolated_queue.push(key);
            }
        }
    }

    /// Has those wait for one of their own that are like what ended sessions, and wait with others until now.
    pub(super) fn isolate_queued(&mut self, now: Instant) {
        let must_isolate = |key: &Key| {
            let entry = self.queries.get(*key);
            let entry = entry
                .filter(|entry| entry.queue == Queue::Shared && entry.transmissions.is_empty());
            entry.is_some_and(|entry| self.culprits.must_isolate(entry.query.groups(), now))
        };
        let line = std::mem::take(&mut self.shared_queue).into_iter();
        let (apart, line): (Vec<_>, Vec<_>) = line.partition(must_isolate);
        self.shared_queue = line.into();
        for key in apart {
            self.enqueue_isolated(key);
        }
    }

    /// Where a query can be sent now: on a session of the most preferred address that is well.
    pub(super) fn session_for(&self, key: Key, now: Instant) -> Option<usize> {
        let entry = self.queries.get(key)?;
        let last = entry.last_sent_at();
        let may_go_on = |session: &Session| {
            self.has_room(session, now)
                && !self.must_avoid(entry, session.rank, now)
                && last
                    .is_none_or(|last| session.last_received_at > last && !entry.is_on(session.id))
        };
        let open = self.sessions.iter().enumerate();
        let fit = open.filter(|(_, session)| session.is_usable() && may_go_on(session));
        let order = |(_, session): &(usize, &Session)| {
            let address = &self.addresses[session.rank];
            let is_failing = address.is_failing() && !address.is_probe_due(now);
            (is_failing, session.rank, session.is_doubtful, session.id)
        };
        fit.min_by_key(order).map(|(index, _)| index)
    }

    /// Whether there is an address other than that of that rank, and those that are `left_out`, to send a query to: that is well, or could be
    /// for all that is known now.
    pub(super) fn has_alternative(&self, rank: usize, left_out: RankSet, now: Instant) -> bool {
        let mut others =
            (0..self.addresses.len()).filter(|other| *other != rank && !left_out.contains(*other));
        others.any(|other| {
            let address = &self.addresses[other];
            let may_connect = || {
                let health = &address.health;
                health.is_available(now)
                    || health.may_probe(now) && address.shared_tokens.ready_at(now) <= now
            };
            let may_be_well = !address.is_failing() || address.is_probe_due(now);
            may_be_well && (self.sessions_at(other) > 0 || may_connect())
        })
    }

    pub(super) fn has_room(&self, session: &Session, now: Instant) -> bool {
        session.pending.len() < MAX_PENDING_PER_SESSION && !self.has_reached_limit(session, now)
    }

    /// Whether as many were sent on a session as its address seems to take on one.
    fn has_reached_limit(&self, session: &Session, now: Instant) -> bool {
        let most = self.addresses[session.rank].session_query_limit(now);
        session.sent >= most.saturating_add(session.extra_sends)
    }

    /// Whether a query that waits could be sent to the address of that rank.
    pub(super) fn may_use_address(&self, key: Key, rank: usize, now: Instant) -> bool {
        let entry = self.queries.get(key);
        entry
            .is_some_and(|entry| entry.queue == Queue::Shared && !self.must_avoid(entry, rank, now))
    }

    /// Whether a query is not for the address of that rank: it failed it, or was silent about it, and there is another one.
    fn must_avoid(&self, entry: &Entry<Q>, rank: usize, now: Instant) -> bool {
        let failed = entry.failed;
        let is_silent = entry.tried.contains(rank) && !entry.transmissions.is_empty();
        failed.contains(rank) || is_silent && self.has_alternative(rank, failed, now)
    }

    /// Sends what waits, as far as sessions have room.
    fn send_queued(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let is_free = |session: &Session| session.is_usable() && self.has_room(session, now);
        if self.shared_queue.is_empty() || !self.sessions.iter().any(is_free) {
            return;
        }
        let mut waiting = std::mem::take(&mut self.shared_queue);
        waiting.retain(|key| self.queries.is_queued_in(*key, Queue::Shared));
        if self.is_overloaded(&waiting, now) {
            // Whoever waited so long has no time left once it is sent: all would be asked in vain.
            waiting
                .make_contiguous()
                .sort_unstable_by_key(|key| Reverse(key.age()));
        }
        for key in waiting {
            if let Some(index) = self.session_for(key, now) {
                self.send(index, key, now, actions);
            } else {
                self.shared_queue.push_back(key);
            }
        }
    }

    /// Whether more come than can be sent: somebody has waited for more than half of the time of a query, and was not sent yet.
    fn is_overloaded(&self, waiting: &VecDeque<Key>, now: Instant) -> bool {
        let half = self.query_time() / 2;
        waiting.iter().any(|key| {
            let entry = self.queries.get(*key);
            entry.is_some_and(|entry| entry.sends == 0 && entry.query.deadline() <= now + half)
        })
    }

    /// Whether a session to the address of that rank may be added to those that are shared there.
    pub(super) fn may_connect(&self, rank: usize, now: Instant) -> bool {
        let shared = || self.shared_sessions_at(rank);
        // One that is slow may be waiting for nothing.
        let is_coming =
            |session: &Session| session.is_coming() && !session.is_slow(SLOW_SHARED_CONNECT, now);
        let connecting = shared().any(is_coming);
        let active_rank = shared().filter(|session| session.is_usable() && !session.is_doubtful);
        // One more than there may be for good: it is to replace one that is silent.
        !connecting
            && active_rank.count() < self.settings.sessions
            && shared().count() <= self.settings.sessions
    }

    /// Sessions to the address of that rank that queries share, for more than their last answers.
    fn shared_sessions_at(&self, rank: usize) -> impl Iterator<Item = &Session> {
        let all = self.sessions.iter();
        all.filter(move |session| session.rank == rank && session.takes_shared_queries())
    }

    /// Opens a session that queries share, if there is a token for it.
    pub(super) fn connect_shared(
        &mut self,
        rank: usize,
        now: Instant,
        actions: &mut Actions<Q>,
    ) -> bool {
        let may = self.addresses[rank].shared_tokens.take(1, now) == 1;
        if may {
            self.connect_race.next = Some(now + CONNECTION_ATTEMPT_DELAY);
            self.connect(rank, Purpose::Shared, now, actions);
        }
        may
    }

    pub(super) fn connect(
        &mut self,
        rank: usize,
        purpose: Purpose,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let session = self.next_session();
        self.sessions
            .push(Session::new(session, rank, purpose, now));
        actions.connects.push(ConnectRequest { session, rank });
    }

    /// Where queries go to a less preferred address, has a more preferred one show whether it serves again.
    pub(super) fn probe_preferred(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let best = self.sessions.iter().filter(|session| session.is_usable());
        let Some(best) = best.map(|session| session.rank).min() else {
            return;
        };
        if best == 0 || self.sessions.iter().any(Session::is_coming) {
            return;
        }
        let is_due = |rank: &usize| {
            let address = &self.addresses[*rank];
            self.may_connect(*rank, now) && (address.is_healthy(now) || address.is_probe_due(now))
        };
        if let Some(rank) = (0..best).find(is_due) {
            self.connect_shared(rank, now, actions);
        }
    }

    /// Opens a session for those that wait and find none, or tells them that there is none to be had.
    fn connect_for_queue(&mut self, now: Instant, actions: &mut Actions<Q>) {
        if self.shared_queue.is_empty() {
            return;
        }
        if !self.sessions.iter().any(Session::is_coming)
            || self.connect_race.next.is_none_or(|next| next <= now)
        {
            for rank in self.candidates(now) {
                if self.connect_shared(rank, now, actions) {
                    break;
                }
            }
        }
        self.connect_in_parallel(now, actions);
        self.fail_hopeless(now, actions);
    }

    /// Opens several sessions at a time to an address that takes few queries on each.
    fn connect_in_parallel(&mut self, now: Instant, actions: &mut Actions<Q>) {
        for rank in 0..self.addresses.len() {
            let most = usize::try_from(self.addresses[rank].session_query_limit(now))
                .unwrap_or(usize::MAX);
            let is_coming = |session: &&Session| session.rank == rank && session.is_coming();
            let mut coming = self.sessions.iter().filter(is_coming).count();
            while coming > 0
                && coming < self.settings.sessions
                && self.shared_sessions_at(rank).count() <= self.settings.sessions
                && self.shared_queue.len() > coming.saturating_mul(most)
                && self.connect_shared(rank, now, actions)
            {
                coming += 1;
            }
        }
    }

    /// Ranks of the addresses that may be tried for those that wait: those that are well, else those that can be reached as far as is known, else
    /// all that may be anybody.
    fn candidates(&self, now: Instant) -> Vec<usize> {
        if self.down.is_some_and(|(_, until)| now < until) {
            return Vec::new();
        }
        let may = |rank: &usize| {
            self.may_connect(*rank, now)
                && !self.connect_race.failed.contains(rank)
                && self
                    .shared_queue
                    .iter()
                    .any(|key| self.may_use_address(*key, *rank, now))
        };
        let mut ranks: Vec<usize> = (0..self.addresses.len()).filter(may).collect();
        // One that is tried already, in vain so far, comes last.
        ranks.sort_by_key(|rank| self.shared_sessions_at(*rank).any(Session::is_coming));
        let only = |is_fit: &dyn Fn(usize) -> bool| -> Vec<usize> {
            ranks.iter().copied().filter(|rank| is_fit(*rank)).collect()
        };
        let well = only(&|rank| self.addresses[rank].is_healthy(now));
        let reachable = || only(&|rank| self.addresses[rank].health.is_available(now));
        let any = || only(&|rank| self.addresses[rank].health.may_probe(now));
        let or = |some: Vec<usize>, others: &dyn Fn() -> Vec<usize>| {
            if some.is_empty() { others() } else { some }
        };
        or(or(well, &reachable), &any)
    }

    /// Whether a query that was not sent yet has reason to wait, for a session to the address of that rank.
    fn may_become_available(&self, rank: usize, candidates: &[usize], now: Instant) -> bool {
        let is_known_away = self.down.is_some();
        let mut hopes = self
            .shared_sessions_at(rank)
            .filter(|session| match session.phase {
                Phase::Connecting => !is_known_away || now < session.started_at + DOWN_WAIT,
                // It is full, and has room in a while.
                _ => !session.is_silent,
            });
        // For want of a token it may wait for a while, but not where it would most likely be in vain, or could go on one that is
        // silent.
        let may_wait = !is_known_away && !self.sessions.iter().any(Session::is_last_resort);
        hopes.next().is_some() || may_wait && candidates.contains(&rank)
    }

    /// Those that wait in vain fail, unless a session is silent, on which they are tried. What is on one already waits on there, and for
    /// another one.
    fn fail_hopeless(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let candidates = self.candidates(now);
        let ranks = 0..self.addresses.len();
        let hopes: Vec<usize> = ranks
            .filter(|rank| self.may_become_available(*rank, &candidates, now))
            .collect();
        let has_hope = |pool: &Self, key: &Key| {
            let is_pending = |entry: &Entry<Q>| !entry.transmissions.is_empty();
            pool.queries.get(*key).is_some_and(is_pending)
                || hopes
                    .iter()
                    .any(|rank| pool.may_use_address(*key, *rank, now))
        };
        if self.shared_queue.iter().all(|key| has_hope(self, key)) {
            return;
        }
        let line = std::mem::take(&mut self.shared_queue).into_iter();
        let (waiting, hopeless): (Vec<_>, Vec<_>) = line.partition(|key| has_hope(self, key));
        self.shared_queue = waiting.into();
        let failure = self.mark_down(&hopes, now);
        for key in hopeless {
            let entry = self.queries.get(key);
            let Some(entry) = entry.filter(|entry| entry.queue == Queue::Shared) else {
                continue;
            };
            let silent = |session: &Session| {
                session.is_last_resort() && !entry.failed.contains(session.rank)
            };
            match self.sessions.iter().position(silent) {
                Some(index) => self.send(index, key, now, actions),
                None => self.fail_query(key, failure, now, actions),
            }
        }
    }

    /// Where nobody can be reached, notes that it is so and for how long nobody is tried. Returns why.
    fn mark_down(&mut self, hopes: &[usize], now: Instant) -> Failure {
        let is_unauthenticated = self
            .addresses
            .iter()
            .any(|address| address.health.is_unauthenticated());
        let failure = if is_unauthenticated {
            Failure::Unauthenticated
        } else {
            Failure::Unreachable
        };
        if !hopes.is_empty() || self.sessions.iter().any(Session::takes_shared_queries) {
            return failure;
        }
        if self.down.is_none_or(|(_, until)| until <= now) {
            let health = || self.addresses.iter().map(|address| &address.health);
            let first_due = health().filter_map(Health::backoff_until).min();
            let until = match first_due {
                Some(due) if !health().any(|health| health.may_probe(now)) => due,
                _ => now + DOWN_RETRY_DELAY,
            };
            self.down = Some((failure, until));
            self.connect_race = ConnectRace::default();
            self.active_rank = None;
        }
        failure
    }

    /// Has sessions of single queries serve the next ones, once they have their answers, and closes those that end with them.
    fn close_or_reuse_finished(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let is_over = |pool: &Self, session: &Session| {
            let has_served = session.phase == Phase::Open && session.sent > 0;
            let has_reached_limit = pool.has_reached_limit(session, now);
            // What was given up there may end it yet.
            let is_clear =
                session.answered >= session.sent || now >= session.last_sent_at + CAUSE_WINDOW;
            let ends = has_served && (!session.is_shared() && is_clear || has_reached_limit);
            session.pending.is_empty() && (ends || session.phase == Phase::Draining)
        };
        let over = |pool: &Self| {
            let mut sessions = pool.sessions.iter();
            sessions.position(|session| is_over(pool, session))
        };
        while let Some(index) = over(self) {
            let session = &self.sessions[index];
            let (id, purpose) = (session.id, session.purpose);
            let most = self.addresses[session.rank].isolated_query_limit();
            let goes_on = self.has_room(session, now) && session.sent < most;
            match purpose {
                Purpose::Isolated(key) if goes_on => self.send_isolated(index, key, now, actions),
                Purpose::Isolated(_) if self.convert_to_shared(index, now) => {}
                _ => self.close_session(id, now, actions),
            }
        }
    }
}
