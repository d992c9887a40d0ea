//! What is sent and opened next?
//!
//! The part of the pool's rules that runs after each event: queued queries are sent as far as sessions have room, sessions are opened as
//! far as they are needed and allowed, and queries without a chance fail.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::actions::{Actions, ConnectRequest, Failure};
use super::address::Address;
use super::health::Health;
use super::pool::{ConnectRace, MAX_PENDING_PER_SESSION, Pool};
use super::session_end::CAUSE_WINDOW;
use super::table::{Entry, HeldClients, Key, Phase, PoolQuery, Purpose, Queue, RankSet, Session};

/// How long one address may take before the next is tried in parallel: the Connection Attempt Delay of RFC 8305 section 5, with its
/// recommended value.
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long a shared session may take to connect before another is opened to the same address.
pub(super) const SLOW_SHARED_CONNECT: Duration = Duration::from_secs(1);
/// How long no address is tried after all were unreachable.
const DOWN_RETRY_DELAY: Duration = Duration::from_millis(250);
/// While no address can be reached, how long a query waits for an attempt that is under way before it fails.
pub(super) const DOWN_WAIT: Duration = Duration::from_millis(500);

/// Pending queries beyond that limit that are looked at, at most: a session that has more takes others as well.
const MAX_LATE_PENDING: usize = 256;
/// How long a pending query counts for the limit of an address whose sessions end soon, at least; four times as long as connecting took,
/// if that is longer.
const MIN_PENDING_TIME: Duration = Duration::from_millis(100);

impl<Q: PoolQuery> Pool<Q> {
    /// Serves everything that waits.
    pub(super) fn reschedule(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.send_queued(now, actions);
        // A closed session may refund the token that the next one costs.
        self.close_or_reuse_finished(now, actions);
        self.connect_for_queue(now, actions);
        self.connect_isolated(now, actions);
    }

    /// Puts a query into the shared queue: at the front if it was sent before.
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

    /// Puts a query into the isolated queue.
    pub(super) fn enqueue_isolated(&mut self, key: Key) {
        if let Some(entry) = self.queries.get_mut(key) {
            entry.queue = Queue::Isolated;
            // It may still be listed from the last time.
            if !self.isolated_queue.contains(&key) {
                self.isolated_queue.push(key);
            }
        }
    }

    /// Moves queries that must be isolated from the shared queue to the isolated one.
    pub(super) fn isolate_queued(&mut self, now: Instant) {
        let must_isolate = |key: &Key| {
            let entry = self.queries.get(*key);
            let entry = entry
                .filter(|entry| entry.queue == Queue::Shared && entry.transmissions.is_empty());
            entry.is_some_and(|entry| self.culprits.must_isolate(entry.query.groups(), now))
        };
        let queue = std::mem::take(&mut self.shared_queue).into_iter();
        let (to_isolate, queue): (Vec<_>, Vec<_>) = queue.partition(must_isolate);
        self.shared_queue = queue.into();
        for key in to_isolate {
            self.enqueue_isolated(key);
        }
    }

    /// The index of the session on which a query can be sent now, preferring healthy addresses, then their rank. Queries of the clients
    /// in `held` wait.
    pub(super) fn session_for(&self, key: Key, held: &HeldClients, now: Instant) -> Option<usize> {
        let entry = self.queries.get(key)?;
        if entry.transmissions.is_empty() && held.contains(&entry.query.client()) {
            return None;
        }
        let last = entry.last_sent_at();
        let may_go_on = |session: &Session| {
            self.has_room(session, now)
                && !self.must_avoid(entry, session.rank, now)
                && last
                    .is_none_or(|last| session.last_received_at > last && !entry.is_on(session.id))
        };
        let open = self.sessions.iter().enumerate();
        let usable = open.filter(|(_, session)| session.is_usable() && may_go_on(session));
        let order = |(_, session): &(usize, &Session)| {
            let address = &self.addresses[session.rank];
            let is_failing = address.is_failing() && !address.is_probe_due(now);
            (is_failing, session.rank, session.is_doubtful, session.id)
        };
        usable.min_by_key(order).map(|(index, _)| index)
    }

    /// Returns true if there is an address other than `rank` and those in `left_out` that is healthy, or may be as far as is known.
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
            let is_coming = || {
                self.shared_sessions_at(other)
                    .any(Session::is_shared_connecting)
            };
            may_be_well && (self.sessions_at(other) > 0 || is_coming() || may_connect())
        })
    }

    pub(super) fn has_room(&self, session: &Session, now: Instant) -> bool {
        let limit = self.addresses[session.rank].pending_limit(now);
        session.pending.len() < MAX_PENDING_PER_SESSION
            && (session.pending.len() < limit
                || session.pending.len() > limit.saturating_add(MAX_LATE_PENDING)
                || self.recent_pending(session, now).count() < limit)
            && !self.has_reached_limit(session, now)
    }

    /// When the pending queries of a session will stop counting for [`Address::pending_limit`](super::address::Address::pending_limit): a query
    /// that is slow in the resolver's work, or never answered, takes no place of others. Without those that do not count any more.
    fn recent_pending(&self, session: &Session, now: Instant) -> impl Iterator<Item = Instant> {
        let time = MIN_PENDING_TIME.max(session.connect_time * 4);
        let keys = session.pending.values();
        let transmissions = keys
            .filter_map(|key| self.queries.get(*key))
            .flat_map(|entry| &entry.transmissions)
            .filter(|transmission| transmission.session == session.id);
        transmissions
            .map(move |transmission| transmission.sent_at + time)
            .filter(move |until| *until > now)
    }

    /// When a pending query next stops counting, so that a queued one may be sent.
    pub(super) fn room_at(&self, now: Instant) -> Option<Instant> {
        let is_limited =
            |session: &&Session| self.addresses[session.rank].pending_limit(now) != usize::MAX;
        let sessions = self.sessions.iter().filter(|session| session.is_usable());
        sessions
            .filter(is_limited)
            .filter_map(|session| self.recent_pending(session, now).min())
            .min()
    }

    /// Returns true if a session has been sent as many queries as its address seems to take.
    fn has_reached_limit(&self, session: &Session, now: Instant) -> bool {
        let limit = self.addresses[session.rank].session_query_limit(now);
        session.sent >= limit.saturating_add(session.extra_sends)
    }

    /// Returns true if a queued query may be sent to the address of that rank.
    pub(super) fn may_use_address(&self, key: Key, rank: usize, now: Instant) -> bool {
        let entry = self.queries.get(key);
        entry
            .is_some_and(|entry| entry.queue == Queue::Shared && !self.must_avoid(entry, rank, now))
    }

    /// Returns true if a query must not go to the address of that rank: the address failed the query, or was silent about it and there is
    /// an alternative.
    fn must_avoid(&self, entry: &Entry<Q>, rank: usize, now: Instant) -> bool {
        let failed = entry.failed;
        let is_silent = entry.tried.contains(rank) && !entry.transmissions.is_empty();
        failed.contains(rank) || is_silent && self.has_alternative(rank, failed, now)
    }

    /// Sends the queries of the shared queue as far as sessions have room.
    fn send_queued(&mut self, now: Instant, actions: &mut Actions<Q>) {
        if self.shared_queue.is_empty() || !self.has_free_session(now) {
            return;
        }
        let mut waiting = std::mem::take(&mut self.shared_queue);
        waiting.retain(|key| self.queries.is_queued_in(*key, Queue::Shared));
        if self.is_overloaded(&waiting, now) {
            // The oldest have no time left once they are sent: in arrival order, every query would be sent in vain.
            waiting
                .make_contiguous()
                .sort_unstable_by_key(|key| Reverse(key.arrival_number()));
        }
        let held = self.held_clients(now);
        let mut has_room = true;
        for key in waiting {
            let index = has_room
                .then(|| self.session_for(key, &held, now))
                .flatten();
            if let Some(index) = index {
                self.send(index, key, now, actions);
                has_room = self.has_free_session(now);
            } else {
                self.shared_queue.push_back(key);
            }
        }
    }

    /// Returns true if a shared session can take one more query.
    fn has_free_session(&self, now: Instant) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.any(|session| session.is_usable() && self.has_room(session, now))
    }

    /// Returns true if queued queries come before new ones: time alone may have made room for them.
    pub(super) fn has_queued(&self, now: Instant) -> bool {
        let is_limited = |address: &Address| address.pending_limit(now) != usize::MAX;
        !self.shared_queue.is_empty() && self.addresses.iter().any(is_limited)
    }

    /// Returns true if more queries come than can be sent: an unsent query has waited for more than half of its time.
    fn is_overloaded(&self, waiting: &VecDeque<Key>, now: Instant) -> bool {
        let half = self.query_time() / 2;
        waiting.iter().any(|key| {
            let entry = self.queries.get(*key);
            entry.is_some_and(|entry| entry.sends == 0 && entry.query.deadline() <= now + half)
        })
    }

    /// Returns true if one more shared session may be opened to the address of that rank.
    pub(super) fn may_connect(&self, rank: usize, now: Instant) -> bool {
        let shared = || self.shared_sessions_at(rank);
        // An attempt that is slow, or began in another network, may be waiting for nothing.
        let is_coming = |session: &Session| {
            session.is_shared_connecting()
                && !session.is_slow(SLOW_SHARED_CONNECT, now)
                && !session.is_doubtful
        };
        let connecting = shared().any(is_coming);
        let active_rank = shared().filter(|session| session.is_usable() && !session.is_doubtful);
        let given_up = self.given_up_hellos(rank, now);
        // One above the limit is allowed, to replace a silent session.
        (!connecting || self.may_hedge_hello(rank, now))
            && active_rank.count() < self.settings.sessions
            && shared().count() <= self.settings.sessions + given_up
    }

    /// Shared sessions to the address of that rank, without those that drain.
    fn shared_sessions_at(&self, rank: usize) -> impl Iterator<Item = &Session> {
        let all = self.sessions.iter();
        all.filter(move |session| session.rank == rank && session.takes_shared_queries())
    }

    /// Opens a shared session if there is a token for it.
    pub(super) fn connect_shared(
        &mut self,
        rank: usize,
        now: Instant,
        actions: &mut Actions<Q>,
    ) -> bool {
        let may = self.addresses[rank].shared_tokens.take(1, now) == 1;
        if may {
            self.connect_race.next_attempt_at = Some(now + CONNECTION_ATTEMPT_DELAY);
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
        let (session, hello) = (self.next_session(), self.next_hello(rank, now));
        self.sessions
            .push(Session::new(session, rank, purpose, hello, now));
        let request = ConnectRequest {
            session,
            rank,
            hello,
        };
        actions.connects.push(request);
    }

    /// While a less preferred address is in use, opens a session to a more preferred one that may work again.
    pub(super) fn probe_preferred(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let best = self.sessions.iter().filter(|session| session.is_usable());
        let Some(best) = best.map(|session| session.rank).min() else {
            return;
        };
        if best == 0 || self.sessions.iter().any(Session::is_shared_connecting) {
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

    /// Opens a session for the shared queue, or fails the queries that cannot get one.
    fn connect_for_queue(&mut self, now: Instant, actions: &mut Actions<Q>) {
        if self.shared_queue.is_empty() {
            // No query has seen an attempt fail: the next one may try each address.
            self.connect_race.failed_ranks.clear();
            return;
        }
        if !self.sessions.iter().any(Session::is_shared_connecting)
            || self
                .connect_race
                .next_attempt_at
                .is_none_or(|next| next <= now)
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

    /// Opens several sessions at once to an address that takes few queries on each.
    fn connect_in_parallel(&mut self, now: Instant, actions: &mut Actions<Q>) {
        for rank in 0..self.addresses.len() {
            let limit = usize::try_from(self.addresses[rank].session_query_limit(now))
                .unwrap_or(usize::MAX);
            let is_coming =
                |session: &&Session| session.rank == rank && session.is_shared_connecting();
            let mut coming = self.sessions.iter().filter(is_coming).count();
            while coming > 0
                && coming < self.settings.sessions
                && self.shared_sessions_at(rank).count() <= self.settings.sessions
                && self.shared_queue.len() > coming.saturating_mul(limit)
                && self.connect_shared(rank, now, actions)
            {
                coming += 1;
            }
        }
    }

    /// Ranks of the addresses to try for the shared queue: healthy ones, else those that are not backed off, else those that did not fail
    /// authentication.
    fn candidates(&self, now: Instant) -> Vec<usize> {
        if self.down.is_some_and(|(_, until)| now < until) {
            return Vec::new();
        }
        let may = |rank: &usize| {
            self.may_connect(*rank, now)
                && !self.connect_race.failed_ranks.contains(rank)
                && self
                    .shared_queue
                    .iter()
                    .any(|key| self.may_use_address(*key, *rank, now))
        };
        let mut ranks: Vec<usize> = (0..self.addresses.len()).filter(may).collect();
        // An address with an attempt under way comes last.
        ranks.sort_by_key(|rank| {
            self.shared_sessions_at(*rank)
                .any(Session::is_shared_connecting)
        });
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

    /// Returns true if an unsent query may hope for a session to the address of that rank.
    fn may_become_available(&self, rank: usize, candidates: &[usize], now: Instant) -> bool {
        let is_down = self.down.is_some();
        let mut available = self
            .shared_sessions_at(rank)
            .filter(|session| match session.phase {
                Phase::Connecting => !is_down || now < session.started_at + DOWN_WAIT,
                // The session is full, and will have room soon.
                _ => !session.is_silent,
            });
        // A query may wait for a token, but not where all addresses were unreachable, or a silent session could take the query.
        let may_wait = !is_down && !self.sessions.iter().any(Session::is_last_resort);
        available.next().is_some() || may_wait && candidates.contains(&rank)
    }

    /// Fails the queued queries that cannot get a session. A silent session, if there is one, gets them instead. Queries that are pending
    /// on some session go on waiting there.
    fn fail_hopeless(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let candidates = self.candidates(now);
        let ranks = 0..self.addresses.len();
        let available: Vec<usize> = ranks
            .filter(|rank| self.may_become_available(*rank, &candidates, now))
            .collect();
        let may_be_sent = |pool: &Self, key: &Key| {
            let is_pending = |entry: &Entry<Q>| !entry.transmissions.is_empty();
            pool.queries.get(*key).is_some_and(is_pending)
                || available
                    .iter()
                    .any(|rank| pool.may_use_address(*key, *rank, now))
        };
        if self.shared_queue.iter().all(|key| may_be_sent(self, key)) {
            return;
        }
        let queue = std::mem::take(&mut self.shared_queue).into_iter();
        let (waiting, hopeless): (Vec<_>, Vec<_>) = queue.partition(|key| may_be_sent(self, key));
        self.shared_queue = waiting.into();
        let failure = self.mark_down(&available, now);
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

    /// If no address can be reached, records that and until when no address is tried. Returns why.
    fn mark_down(&mut self, available: &[usize], now: Instant) -> Failure {
        let is_unauthenticated = self
            .addresses
            .iter()
            .any(|address| address.health.is_unauthenticated());
        let failure = if is_unauthenticated {
            Failure::Unauthenticated
        } else {
            Failure::Unreachable
        };
        if !available.is_empty() || self.sessions.iter().any(Session::takes_shared_queries) {
            return failure;
        }
        if self.down.is_none_or(|(_, until)| until <= now) {
            let health = || self.addresses.iter().map(|address| &address.health);
            let first_due = health().filter_map(Health::probe_at).min();
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

    /// Reuses finished isolated sessions for the next isolated query, and closes sessions that are done.
    fn close_or_reuse_finished(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let is_over = |pool: &Self, session: &Session| {
            let has_served = session.phase == Phase::Open && session.sent > 0;
            let has_reached_limit = pool.has_reached_limit(session, now);
            // A query that was given up here may still end the session.
            let is_clear =
                session.answered >= session.sent || now >= session.last_sent_at + CAUSE_WINDOW;
            let ends = has_served && (!session.is_shared() && is_clear || has_reached_limit);
            session.pending.is_empty() && (ends || session.phase == Phase::Draining)
        };
        let finished = |pool: &Self| {
            let mut sessions = pool.sessions.iter();
            sessions.position(|session| is_over(pool, session))
        };
        while let Some(index) = finished(self) {
            let session = &self.sessions[index];
            let (id, purpose) = (session.id, session.purpose);
            let limit = self.addresses[session.rank].isolated_query_limit();
            let goes_on = self.has_room(session, now) && session.sent < limit;
            match purpose {
                Purpose::Isolated(key) if goes_on => self.send_isolated(index, key, now, actions),
                Purpose::Isolated(_) if self.convert_to_shared(index, now) => {}
                _ => self.close_session(id, now, actions),
            }
        }
    }
}
