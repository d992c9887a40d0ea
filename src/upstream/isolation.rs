//! Which queries are alone on their session?
//!
//! The part of the pool's rules about isolated queries: those on which the resolver may have closed a session, and those that are like
//! several that did it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::actions::{Actions, Failure};
use super::pool::{MAX_ACTIVE_ISOLATED, MAX_ISOLATED_SESSIONS, MAX_QUEUED_ISOLATED, Pool};
use super::session_end::CAUSE_WINDOW;
use super::table::{Key, Phase, PoolQuery, Purpose, Queue, Session};

/// How long an isolated session may take to connect before another address is tried.
pub(super) const SLOW_ISOLATED_CONNECT: Duration = Duration::from_millis(500);
/// While at most so many queries wait, each gets a new session for its last send: a session that has answered others may be about to be
/// closed.
const MAX_FRESH_LAST_SENDS: usize = 32;
/// Connection attempts under way, at most, for one more to start for an isolated query.
const MAX_CONNECTING: usize = 8;

impl<Q: PoolQuery> Pool<Q> {
    /// Drops what no longer waits from the isolated queue, sorts it, and fails what has no chance.
    fn refresh_isolated_queue(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let queries = &self.queries;
        self.isolated_queue
            .retain(|key| queries.is_queued_in(*key, Queue::Isolated));
        self.sort_isolated_queue(now);
        self.fail_surplus_isolated(now, actions);
    }

    /// Opens or reuses sessions for the isolated queue.
    pub(super) fn connect_isolated(&mut self, now: Instant, actions: &mut Actions<Q>) {
        // The queue may be long, and events frequent.
        if self.isolated_queue.is_empty() || !self.has_isolated_capacity(now) {
            return;
        }
        self.refresh_isolated_queue(now, actions);
        for key in self.isolated_queue.clone() {
            if !self.has_isolated_capacity(now) {
                break;
            }
            let is_coming = |session: &Session| {
                session.is_connecting_for(key) && !session.is_slow(SLOW_ISOLATED_CONNECT, now)
            };
            if !self.queries.is_queued_in(key, Queue::Isolated)
                || self.sessions.iter().any(is_coming)
                || self.awaits_test(key, now)
            {
                continue;
            }
            let Some(rank) = self.isolated_rank(key, now) else {
                continue;
            };
            if self.may_connect_isolated(rank, now)
                && self.addresses[rank].isolated_tokens.take(1, now) == 1
            {
                self.connect(rank, Purpose::Isolated(key), now, actions);
            } else if let Some(index) = self.reusable_isolated_session(rank, key, now) {
                self.sessions[index].purpose = Purpose::Isolated(key);
                self.send(index, key, now, actions);
            }
        }
    }

    /// The isolated session could not be opened: tries another address, or else puts the query into the shared queue.
    pub(super) fn isolated_connect_failed(&mut self, key: Key, rank: usize, now: Instant) {
        if self.queries.is_queued_in(key, Queue::Isolated) && !self.exclude_address(key, rank, now)
        {
            self.enqueue(key, true);
        }
    }

    /// Excludes the address of that rank for a query, if there is an alternative. Returns true if it did.
    pub(super) fn exclude_address(&mut self, key: Key, rank: usize, now: Instant) -> bool {
        let entry = self.queries.get(key);
        let exclude_address =
            entry.is_some_and(|entry| self.has_alternative(rank, entry.failed, now));
        if exclude_address && let Some(entry) = self.queries.get_mut(key) {
            entry.failed.insert(rank);
        }
        exclude_address
    }

    /// Returns true if one more isolated session may be opened to the address of that rank. Sessions whose query has waited for long do not
    /// count as active: the query is slow, and ends nothing.
    fn may_connect_isolated(&self, rank: usize, now: Instant) -> bool {
        let isolated = || self.sessions.iter().filter(|session| !session.is_shared());
        let at_rank = || isolated().filter(|session| session.rank == rank);
        let is_recent = |session: &&Session| now < session.last_sent_at + CAUSE_WINDOW;
        let is_coming = |session: &&Session| session.phase == Phase::Connecting;
        // Where sessions end at random, the queries do no harm.
        (self.addresses[rank].closes_at_random(now)
            || at_rank().filter(is_recent).count() < MAX_ACTIVE_ISOLATED)
            && at_rank().count() < MAX_ISOLATED_SESSIONS
            && self.sessions.iter().filter(is_coming).count() < MAX_CONNECTING
    }

    /// Returns true if one more isolated query could be sent, before looking at the query.
    fn has_isolated_capacity(&self, now: Instant) -> bool {
        let mut ranks = 0..self.addresses.len();
        let has_token = |rank: usize| self.addresses[rank].isolated_tokens.ready_at(now) <= now;
        let mut sessions = self.sessions.iter();
        ranks.any(|rank| has_token(rank) && self.may_connect_isolated(rank, now))
            || sessions.any(|session| self.may_reuse_isolated(session, now))
    }

    /// Returns true if an isolated session may take one more query, since its pending ones have waited for long.
    fn may_reuse_isolated(&self, session: &Session, now: Instant) -> bool {
        let is_open = session.phase == Phase::Open && !session.is_shared();
        let limit = self.addresses[session.rank].isolated_query_limit();
        is_open && now >= session.last_sent_at + CAUSE_WINDOW && session.sent < limit
    }

    /// The index of an isolated session to the address of that rank whose pending queries have all waited for long: they are slow or never
    /// answered, and will not be why the session ends.
    fn reusable_isolated_session(&self, rank: usize, key: Key, now: Instant) -> Option<usize> {
        let is_on = |session: &Session| {
            let entry = self.queries.get(key);
            entry.is_some_and(|entry| entry.is_on(session.id))
        };
        self.sessions.iter().position(|session| {
            session.rank == rank && self.may_reuse_isolated(session, now) && !is_on(session)
        })
    }

    /// Fails unsent isolated queries beyond [`MAX_QUEUED_ISOLATED`].
    fn fail_surplus_isolated(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let queries = &self.queries;
        let is_unsent = |key: &&Key| queries.get(**key).is_some_and(|entry| entry.sends == 0);
        let surplus = self
            .isolated_queue
            .iter()
            .filter(is_unsent)
            .skip(MAX_QUEUED_ISOLATED);
        for key in surplus.copied().collect::<Vec<_>>() {
            self.fail_query(key, Failure::ConnectionLost, now, actions);
        }
    }

    /// The rank of the address for an isolated query: a healthy one that connects fast, and to which queries like it have ended no session.
    /// The last send goes where the query was not sent yet, since another resolver may cope with it.
    fn isolated_rank(&self, key: Key, now: Instant) -> Option<usize> {
        let entry = self.queries.get(key)?;
        let (groups, is_last_send) = (entry.query.groups(), self.is_last_send(key));
        let may = |rank: &usize| {
            let health = &self.addresses[*rank].health;
            !entry.failed.contains(*rank) && health.may_probe(now)
        };
        let order = |rank: &usize| {
            let is_slow = |session: &Session| {
                session.rank == *rank && session.is_slow(SLOW_ISOLATED_CONNECT, now)
            };
            let slow = self.sessions.iter().any(is_slow);
            let unhealthy = !self.addresses[*rank].is_healthy(now);
            (
                slow,
                unhealthy,
                self.culprits.has_kin_at(groups, *rank, now),
                is_last_send && entry.tried.contains(*rank),
                *rank,
            )
        };
        (0..self.addresses.len()).filter(may).min_by_key(order)
    }

    /// Sorts the isolated queue: queries that were sent before come first; then the youngest of each client, the second of each, and so on.
    /// Within a round, queries like exactly one culprit come first, so that it shows soon whose queries end sessions.
    fn sort_isolated_queue(&mut self, now: Instant) {
        if self.isolated_queue.len() < 2 {
            return;
        }
        let mut rounds: HashMap<u16, usize> = HashMap::new();
        // The youngest have the most time left.
        self.isolated_queue
            .sort_unstable_by_key(|key| Reverse(key.arrival_number()));
        let mut keys: Vec<_> = self
            .isolated_queue
            .iter()
            .filter_map(|key| {
                let entry = self.queries.get(*key)?;
                let groups = entry.query.groups();
                let round = rounds.entry(groups.client).or_default();
                *round += 1;
                // One more culprit decides about these; a query whose groups are decided harms nobody by waiting.
                let order = match self.culprits.level(groups, now) {
                    1 => 0,
                    0 => 1,
                    _ => 2,
                };
                Some(((entry.sends == 0, *round, order), *key))
            })
            .collect();
        keys.sort_by_key(|(order, _)| *order);
        self.isolated_queue = keys.into_iter().map(|(_, key)| key).collect();
    }

    /// An isolated session is ready: sends its query, or another one if that has ended.
    pub(super) fn send_isolated(
        &mut self,
        index: usize,
        key: Key,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        self.refresh_isolated_queue(now, actions);
        let (id, rank) = (self.sessions[index].id, self.sessions[index].rank);
        let is_coming = |key: Key| {
            let mut sessions = self.sessions.iter();
            sessions.any(|session| session.id != id && session.is_connecting_for(key))
        };
        let sent = self.sessions[index].sent;
        let is_fresh = sent == 0;
        let address = &self.addresses[rank];
        let (limit, last_send_limit) = (address.isolated_query_limit(), address.last_send_limit());
        // Where names end sessions, their number of answers does not matter, and waiting queries would use up the new sessions.
        let by_name = !self.culprits.is_empty(now) && address.isolated_tokens.ready_at(now) > now;
        let may_share =
            (by_name || self.isolated_queue.len() > MAX_FRESH_LAST_SENDS) && sent < last_send_limit;
        let may_be_sent = |other: &Key| {
            self.queries.is_queued_in(*other, Queue::Isolated)
                && (is_fresh || may_share || !self.is_last_send(*other))
                && (*other == key
                    || !is_coming(*other) && self.isolated_rank(*other, now) == Some(rank))
        };
        let others = self.isolated_queue.iter().copied();
        let mut waiting = Some(key).into_iter().chain(others);
        let Some(first) = waiting.find(may_be_sent) else {
            if !self.convert_to_shared(index, now) {
                self.close_session(id, now, actions);
            }
            return;
        };
        // A client whose query was answered here does not end sessions: the rest of its queries are sent together.
        let is_cleared = |key: &Key| {
            let entry = self.queries.get(*key);
            entry.is_some_and(|entry| {
                let groups = entry.query.groups();
                self.sessions[index].cleared_client == Some(groups.client)
                    && self.culprits.level(groups, now) == 0
            })
        };
        let mut group: Vec<Key> = self.isolated_queue.clone();
        group.retain(|key| is_cleared(key) && may_be_sent(key));
        if group.is_empty() {
            group.push(first);
        }
        let limit = match group.iter().any(|key| self.is_last_send(*key)) {
            true => limit.min(last_send_limit),
            false => limit,
        };
        let room = limit.saturating_sub(sent).max(1);
        group.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        self.sessions[index].purpose = Purpose::Isolated(group[0]);
        for key in group {
            self.send(index, key, now, actions);
        }
    }

    /// Turns an isolated session that has answered into a shared one, if there is none. So when a resolver closes an idle session, what was
    /// lost with it costs one session and not two.
    pub(super) fn convert_to_shared(&mut self, index: usize, now: Instant) -> bool {
        let session = &self.sessions[index];
        let rank = session.rank;
        let address = &self.addresses[rank];
        let is_wanted =
            session.answered > 0 && !self.sessions.iter().any(Session::takes_shared_queries);
        if !is_wanted || address.shared_tokens.take(1, now) == 0 {
            return false;
        }
        address.isolated_tokens.refund();
        self.sessions[index].purpose = Purpose::Shared;
        true
    }
}
