//! Which queries are alone on their session?
//!
//! The part of the pool's rules about suspects: queries on which the resolver may have ended a session, and those that are like several
//! that did.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::actions::{Actions, Failure};
use super::pool::{MAX_ACTIVE_ISOLATED, MAX_ISOLATED_SESSIONS, MAX_QUEUED_ISOLATED, Pool};
use super::session_end::CAUSE_WINDOW;
use super::table::{Key, Phase, PoolQuery, Purpose, Queue, Session};

/// After how long without a connection a query that is to be alone is tried at another address.
pub(super) const SLOW_ISOLATED_CONNECT: Duration = Duration::from_millis(500);
/// While so many wait or fewer, each gets a new session the last time that it is sent: one that has answered others may be about to be
/// closed.
const MAX_FRESH_LAST_SENDS: usize = 32;
/// Attempts to connect that may be under way at a time, for one more that is for a single query.
const MAX_CONNECTING: usize = 8;

impl<Q: PoolQuery> Pool<Q> {
    /// Brings those that are to be alone in their order, as far as they still wait and there is a chance for them.
    fn refresh_isolated_queue(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let queries = &self.queries;
        self.isolated_queue
            .retain(|key| queries.is_queued_in(*key, Queue::Isolated));
        self.sort_isolated_queue(now);
        self.fail_surplus_isolated(now, actions);
    }

    /// Opens sessions for those that are to be alone on theirs.
    pub(super) fn connect_isolated(&mut self, now: Instant, actions: &mut Actions<Q>) {
        // They may be many, and events too.
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

    /// A query gets no session of its own at the address of that rank: it is tried at another one, or goes with others.
    pub(super) fn isolated_connect_failed(&mut self, key: Key, rank: usize, now: Instant) {
        if self.queries.is_queued_in(key, Queue::Isolated) && !self.exclude_address(key, rank, now)
        {
            self.enqueue(key, true);
        }
    }

    /// Has a query go to another address than that of that rank, if there is one.
    pub(super) fn exclude_address(&mut self, key: Key, rank: usize, now: Instant) -> bool {
        let entry = self.queries.get(key);
        let exclude_address =
            entry.is_some_and(|entry| self.has_alternative(rank, entry.failed, now));
        if exclude_address && let Some(entry) = self.queries.get_mut(key) {
            entry.failed.insert(rank);
        }
        exclude_address
    }

    /// Whether one more session for a single query may be opened to the address of that rank. Those whose query has waited for long
    /// are not in the way: it is slow, and ends nothing.
    fn may_connect_isolated(&self, rank: usize, now: Instant) -> bool {
        let alone = || self.sessions.iter().filter(|session| !session.is_shared());
        let at_rank = || alone().filter(|session| session.rank == rank);
        let is_new = |session: &&Session| now < session.last_sent_at + CAUSE_WINDOW;
        let is_coming = |session: &&Session| session.phase == Phase::Connecting;
        at_rank().filter(is_new).count() < MAX_ACTIVE_ISOLATED
            && at_rank().count() < MAX_ISOLATED_SESSIONS
            && self.sessions.iter().filter(is_coming).count() < MAX_CONNECTING
    }

    /// Whether there is a place for one more single query, as far as is known without looking at it.
    fn has_isolated_capacity(&self, now: Instant) -> bool {
        let mut ranks = 0..self.addresses.len();
        let has_token = |rank: usize| self.addresses[rank].isolated_tokens.ready_at(now) <= now;
        let mut sessions = self.sessions.iter();
        ranks.any(|rank| has_token(rank) && self.may_connect_isolated(rank, now))
            || sessions.any(|session| self.may_reuse_isolated(session, now))
    }

    /// Whether a session of single queries takes one more, as what waits there has waited for long.
    fn may_reuse_isolated(&self, session: &Session, now: Instant) -> bool {
        let is_open = session.phase == Phase::Open && !session.is_shared();
        let most = self.addresses[session.rank].isolated_query_limit();
        is_open && now >= session.last_sent_at + CAUSE_WINDOW && session.sent < most
    }

    /// A session for single queries to the address of that rank on which all that waits has waited for long: it is slow or never answered,
    /// and will not be why the session ends.
    fn reusable_isolated_session(&self, rank: usize, key: Key, now: Instant) -> Option<usize> {
        let is_on = |session: &Session| {
            let entry = self.queries.get(key);
            entry.is_some_and(|entry| entry.is_on(session.id))
        };
        self.sessions.iter().position(|session| {
            session.rank == rank && self.may_reuse_isolated(session, now) && !is_on(session)
        })
    }

    /// Of queries that were not sent yet, no more may wait for a session of their own than there is a chance for.
    fn fail_surplus_isolated(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let queries = &self.queries;
        let is_new = |key: &&Key| queries.get(**key).is_some_and(|entry| entry.sends == 0);
        let surplus = self
            .isolated_queue
            .iter()
            .filter(is_new)
            .skip(MAX_QUEUED_ISOLATED);
        for key in surplus.copied().collect::<Vec<_>>() {
            self.fail_query(key, Failure::ConnectionLost, now, actions);
        }
    }

    /// To which address a query goes alone: one that is well, and connects soon; the last time, where it was not yet, since another
    /// resolver may stand it.
    fn isolated_rank(&self, key: Key, now: Instant) -> Option<usize> {
        let entry = self.queries.get(key)?;
        let is_last_send = self.is_last_send(key);
        let may = |rank: &usize| {
            let health = &self.addresses[*rank].health;
            !entry.failed.contains(*rank) && health.may_probe(now)
        };
        let order = |rank: &usize| {
            let is_slow = |session: &Session| {
                session.rank == *rank && session.is_slow(SLOW_ISOLATED_CONNECT, now)
            };
            let slow = self.sessions.iter().any(is_slow);
            let ill = !self.addresses[*rank].is_healthy(now);
            (
                slow,
                ill,
                is_last_send && entry.tried.contains(*rank),
                *rank,
            )
        };
        (0..self.addresses.len()).filter(may).min_by_key(order)
    }

    /// Brings those that wait in their order: first those that were sent already, the youngest of each client, then the second of each,
    /// and so on; of them those that are like one that was convicted, so that it shows soon whose query ends sessions.
    fn sort_isolated_queue(&mut self, now: Instant) {
        if self.isolated_queue.len() < 2 {
            return;
        }
        let mut rounds: HashMap<u16, usize> = HashMap::new();
        // Those that came last have the most time left.
        self.isolated_queue
            .sort_unstable_by_key(|key| Reverse(key.age()));
        let mut keys: Vec<_> = self
            .isolated_queue
            .iter()
            .filter_map(|key| {
                let entry = self.queries.get(*key)?;
                let groups = entry.query.groups();
                let round = rounds.entry(groups.client).or_default();
                *round += 1;
                // One more conviction decides; what is decided harms nobody by waiting.
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

    /// A session for a single query is there: it is sent, or another one if it has ended.
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
        let is_fresh = self.sessions[index].sent == 0;
        let sent = self.sessions[index].sent;
        let address = &self.addresses[rank];
        let (most, last_send_limit) = (address.isolated_query_limit(), address.last_send_limit());
        // Where some names end sessions, it is not that one has answered others, and those that wait use up the new ones.
        let is_by_name = !self.culprits.is_empty() && address.isolated_tokens.ready_at(now) > now;
        let may_share = (is_by_name || self.isolated_queue.len() > MAX_FRESH_LAST_SENDS)
            && sent < last_send_limit;
        let may_be_sent = |other: &Key| {
            self.queries.is_queued_in(*other, Queue::Isolated)
                && (is_fresh || may_share || !self.is_last_send(*other))
                && (*other == key
                    || !is_coming(*other) && self.isolated_rank(*other, now) == Some(rank))
        };
        let mut waiting = Some(key)
            .into_iter()
            .chain(self.isolated_queue.iter().copied());
        let Some(first) = waiting.find(may_be_sent) else {
            if !self.convert_to_shared(index, now) {
                self.close_session(id, now, actions);
            }
            return;
        };
        // A client of which one was answered here is none that ends sessions: the rest of its queries go together.
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
        let most = match group.iter().any(|key| self.is_last_send(*key)) {
            true => most.min(last_send_limit),
            false => most,
        };
        let room = most.saturating_sub(sent).max(1);
        group.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        self.sessions[index].purpose = Purpose::Isolated(group[0]);
        for key in group {
            self.send(index, key, now, actions);
        }
    }

    /// Has a session on which a query was alone be one that queries share, if it has answered and there is none. So what was lost with
    /// a session that the resolver closed when it was idle costs one session and not two.
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
