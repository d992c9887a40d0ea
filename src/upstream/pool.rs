//! Which query goes on which session, and which sessions are there?
//!
//! The rules alone: state, and a method for each event, which says in [`Actions`] what is to be done. No socket, no thread, no
//! clock: time and random numbers are passed in, so that all of it can be simulated.
//!
//! - A query is sent three times at most, and ends once, by its deadline.
//! - New queries go to the most preferred address that is well, on the sessions that they share there. A query that finds none
//!   waits in a line; where none can be had it fails.
//! - A session on which nothing arrives while a query waits is silent: it gets no more, and its queries are sent once more on one
//!   that has been heard since, or on a new one. If an answer comes there, the silent one is dead. If none does, the query is
//!   late, and says nothing of sessions any more.
//! - A query is a suspect on which the resolver ended a session. A few are sent again alone, on a session of their own; many, together;
//!   the last time each goes alone, on a new session. What ends its own session is convicted; queries that are like several
//!   such ones (`Culprits`) are sent alone from the start.
//! - New sessions to an address cost a token each (`Address`); one that answered all it was asked gives it back. Those that end with
//!   their last answer have a bound of their own, and so do those of single queries.
//! - Where more waits than can be sent, the youngest go first: what is sent when its time is over is sent in vain.
//! - An answer that is a failure, without a reason that lies in the name, is kept while the query is sent to other addresses that
//!   may be well. An address that fails several names in a row, or says nothing while another answers the same, is asked only
//!   now and then, until it does not.
//! - What a resolver does not take in the form of a query is left out: padding, then the OPT record.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actions::{Actions, Event, Failure, PoolSettings, SendQuery};
use super::address::Address;
use super::culprits::Culprits;
use super::health::AddressFailure;
use super::table::{
    Key, Phase, PoolQuery, Purpose, Queries, Queue, Session, SessionId, Transmission,
};
use super::token_bucket::TokenBucket;

/// How often a query is sent, at most (RFC 9520 section 3.1).
pub const MAX_SENDS: u8 = 3;
/// Queries that may wait for their answers on one session: more than there is memory for by default, so that those that are
/// never answered leave room for others. Random IDs collide seldom while the table is this full.
pub const MAX_PENDING_PER_SESSION: usize = 16_384;
/// Sessions of single queries to one address that are being opened, or whose query was sent a moment ago, at most.
pub const MAX_ACTIVE_ISOLATED: usize = 4;
/// All such sessions to one address, at most.
pub const MAX_ISOLATED_SESSIONS: usize = 12;
/// Sessions of one address that take no more queries and wait for their last answers, at most.
pub const MAX_DRAINING_SESSIONS: usize = 8;
/// Queries that wait for a session of their own and were not sent yet, at most.
pub(super) const MAX_QUEUED_ISOLATED: usize = 64;

/// Where random numbers come from: IDs that nobody outside can foresee (RFC 5452 section 9.2).
pub type Random = Box<dyn FnMut() -> u16 + Send>;

/// Addresses that are tried one after the other, while none is open (RFC 8305).
#[derive(Debug, Default)]
pub(super) struct ConnectRace {
    /// When the next may be tried though others are under way.
    pub(super) next: Option<Instant>,
    /// Ranks that could not be reached.
    pub(super) failed: Vec<usize>,
}

/// The sessions to all addresses, and the queries on their way.
pub struct Pool<Q> {
    pub(super) settings: PoolSettings,
    pub(super) addresses: Vec<Address>,
    pub(super) sessions: Vec<Session>,
    pub(super) queries: Queries<Q>,
    /// Those that wait for a session that they share.
    pub(super) shared_queue: VecDeque<Key>,
    /// Those that wait for one of their own.
    pub(super) isolated_queue: Vec<Key>,
    pub(super) culprits: Culprits,
    pub(super) connect_race: ConnectRace,
    /// Nobody can be reached, for this reason, and until then nobody is tried.
    pub(super) down: Option<(Failure, Instant)>,
    /// How long the last session took to open.
    pub(super) last_connect_time: Duration,
    /// The address that serves, as was last said.
    pub(super) active_rank: Option<usize>,
    next_session: u64,
    random: Random,
    /// Has a token for each query that is sent once more.
    retry_budget: Arc<TokenBucket>,
}

impl<Q> fmt::Debug for Pool<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}

impl<Q: PoolQuery> Pool<Q> {
    /// Without a session yet.
    pub fn new(
        settings: PoolSettings,
        random: Random,
        retry_budget: Arc<TokenBucket>,
        now: Instant,
    ) -> Self {
        Self {
            settings,
            addresses: (0..settings.addresses).map(|_| Address::new(now)).collect(),
            sessions: Vec::new(),
            queries: Queries::default(),
            shared_queue: VecDeque::new(),
            isolated_queue: Vec::new(),
            culprits: Culprits::default(),
            connect_race: ConnectRace::default(),
            down: None,
            last_connect_time: Duration::ZERO,
            active_rank: None,
            next_session: 0,
            random,
            retry_budget,
        }
    }

    /// Has what is sent once more cost a token of `retry_budget` each from now on.
    pub fn set_retry_budget(&mut self, retry_budget: Arc<TokenBucket>) {
        self.retry_budget = retry_budget;
    }

    /// Opens the first session before anybody asks.
    pub fn start(&mut self, now: Instant, actions: &mut Actions<Q>) {
        if let Some(rank) = (0..self.addresses.len()).find(|rank| self.may_connect(*rank, now)) {
            self.connect_shared(rank, now, actions);
        }
    }

    /// Queries come.
    pub fn submit(&mut self, queries: &mut Vec<Q>, now: Instant, actions: &mut Actions<Q>) {
        for query in queries.drain(..) {
            if self.queries.len() >= self.settings.max_pending {
                actions.failed.push((query, Failure::Overloaded));
                continue;
            }
            let strong = !self.culprits.is_empty() && {
                let groups = query.groups();
                self.culprits.note_client(groups.client, now);
                self.culprits.must_isolate(groups, now)
            };
            let key = self.queries.insert(query);
            if strong {
                self.enqueue_isolated(key);
            } else if let Some(index) = self.session_for(key, now) {
                self.send(index, key, now, actions);
            } else {
                self.enqueue(key, false);
            }
        }
        self.probe_preferred(now, actions);
        self.reschedule(now, actions);
    }

    /// A session was opened, and its resolver is proved.
    pub fn session_opened(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        let Some(index) = self.position(session) else {
            return actions.closes.push(session);
        };
        let opened = &mut self.sessions[index];
        opened.phase = Phase::Open;
        (opened.last_received_at, opened.last_sent_at) = (now, now);
        opened.connect_time = now.saturating_duration_since(opened.started_at);
        self.last_connect_time = opened.connect_time;
        let rank = opened.rank;
        match opened.purpose {
            Purpose::Isolated(key) => self.send_isolated(index, key, now, actions),
            Purpose::Shared => self.use_shared_session(index, rank, now, actions),
        }
        self.reschedule(now, actions);
    }

    /// A session that queries share is there.
    fn use_shared_session(
        &mut self,
        index: usize,
        rank: usize,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let id = self.sessions[index].id;
        let others = || self.sessions.iter().filter(|other| other.id != id);
        let is_better_there = others().any(|other| {
            other.is_usable() && other.rank < rank && self.addresses[other.rank].is_healthy(now)
        });
        let at_rank = others().filter(|other| other.rank == rank && other.is_usable());
        let wanted = self
            .shared_queue
            .iter()
            .any(|key| self.may_use_address(*key, rank, now));
        if at_rank.count() >= self.settings.sessions || is_better_there && !wanted {
            // It came late, and another one serves.
            self.close_session(id, now, actions);
            return;
        }
        self.connect_race = ConnectRace::default();
        self.down = None;
        self.addresses[rank].health.record_success();
        for session in &mut self.sessions {
            if session.is_coming() && session.rank < rank {
                // It is slower: it need not be tried again at once if it fails.
                self.addresses[session.rank].health.defer(now);
            }
        }
        if self.addresses[rank].is_failing() {
            return;
        }
        let best = self
            .sessions
            .iter()
            .filter(|other| other.is_usable() && self.addresses[other.rank].is_healthy(now));
        if best.map(|other| other.rank).min() == Some(rank)
            && self.active_rank.replace(rank) != Some(rank)
        {
            actions.events.push(Event::AddressActive(rank, id));
        }
    }

    /// A session could not be opened.
    pub fn connect_failed(
        &mut self,
        session: SessionId,
        fault: AddressFailure,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(index) = self.position(session) else {
            return;
        };
        let failed = self.sessions.remove(index);
        let is_away = self.sessions_at(failed.rank) == 0;
        if failed.is_shared() || is_away || fault == AddressFailure::Unauthenticated {
            let jitter = self.jitter();
            self.addresses[failed.rank]
                .health
                .record_failure(fault, jitter, now);
            // The next one need not wait.
            self.connect_race.next = None;
            if !self.connect_race.failed.contains(&failed.rank) {
                self.connect_race.failed.push(failed.rank);
            }
        }
        if let Purpose::Isolated(key) = failed.purpose {
            self.isolated_connect_failed(key, failed.rank, now);
        }
        self.reschedule(now, actions);
    }

    /// It was tried with an identity that is not asked for any more: that it failed says nothing.
    pub fn connect_outdated(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if let Some(index) = self.position(session) {
            self.sessions.remove(index);
            self.reschedule(now, actions);
        }
    }

    /// The resolver said for how long it keeps the session when it is idle. Zero means that it is to be closed as soon as the answers are
    /// there (RFC 7828 section 3.2.2).
    pub fn set_keepalive(
        &mut self,
        session: SessionId,
        keepalive: Duration,
        now: Instant,
        actions: &mut Actions<Q>,
    ) {
        let Some(index) = self.position(session) else {
            return;
        };
        self.sessions[index].keepalive = Some(keepalive);
        if keepalive.is_zero() {
            self.drain_session(index);
            self.reschedule(now, actions);
        }
    }

    /// Gives a session no more queries, unless too many such ones are there.
    fn drain_session(&mut self, index: usize) {
        let rank = self.sessions[index].rank;
        let retired = self.sessions.iter();
        let count = retired
            .filter(|other| other.rank == rank && other.phase == Phase::Draining)
            .count();
        let session = &mut self.sessions[index];
        if count < MAX_DRAINING_SESSIONS && session.phase == Phase::Open && session.is_shared() {
            session.phase = Phase::Draining;
            // It did what it was for.
            session.token_refundable = false;
            self.addresses[rank].shared_tokens.refund();
        }
    }

    /// A session has ended, by the resolver or by the network.
    pub fn session_ended(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if self.position(session).is_some() {
            self.remove_session(session, true, now, actions);
            self.reschedule(now, actions);
        }
    }

    /// A session is not to be used any more: what it proved is not enough now.
    pub fn revoke_session(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        self.close_session(session, now, actions);
    }

    /// The address of that rank has another identity than before: what failed may not now.
    pub fn reset(&mut self, rank: usize) {
        self.connect_race.failed.retain(|failed| *failed != rank);
        if self.addresses[rank].health.is_unauthenticated() {
            self.addresses[rank].reset();
            self.down = None;
        }
    }

    /// Something about an address was changed: whoever waits, or would, is seen to.
    pub fn identity_changed(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.reschedule(now, actions);
        if !self.sessions.iter().any(Session::takes_shared_queries) {
            self.start(now, actions);
        }
    }

    /// The machine was suspended: no session can be trusted to live, as the network has changed, and resolvers have closed
    /// what was idle.
    pub fn system_resumed(&mut self, now: Instant, actions: &mut Actions<Q>) {
        let open: Vec<_> = self
            .sessions
            .iter()
            .filter(|session| session.phase != Phase::Connecting)
            .collect();
        let (idle, busy): (Vec<_>, Vec<_>) = open
            .into_iter()
            .partition(|session| session.pending.is_empty());
        let (idle, busy): (Vec<_>, Vec<_>) = (
            idle.iter().map(|session| session.id).collect(),
            busy.iter().map(|session| session.id).collect(),
        );
        for session in idle {
            self.close_session(session, now, actions);
        }
        for session in busy {
            self.hedge_silent_session(session, now, now, actions);
        }
        self.reschedule(now, actions);
    }

    /// Time has passed. Returns when to call again, at the latest.
    pub fn tick(&mut self, now: Instant, actions: &mut Actions<Q>) -> Option<Instant> {
        self.expire(now, actions);
        self.mark_late(now);
        self.mark_silent(now, actions);
        self.close_idle(now, actions);
        self.reschedule(now, actions);
        self.next_due(now)
    }

    /// Queries on their way.
    pub fn pending(&self) -> usize {
        self.queries.len()
    }

    /// The queries on their way.
    pub fn queries(&self) -> impl Iterator<Item = &Q> {
        self.queries.iter().map(|(_, entry)| &entry.query)
    }

    /// Sessions to the address of that rank that queries share.
    pub fn sessions_at(&self, rank: usize) -> usize {
        let open = self.sessions.iter();
        open.filter(|session| session.rank == rank && session.is_usable())
            .count()
    }

    /// Whether the address of that rank is preferred: it is not held back after a failure, and does not fail.
    pub fn is_healthy(&self, rank: usize, now: Instant) -> bool {
        self.addresses[rank].is_healthy(now)
    }

    /// Whether queries find a session.
    pub fn has_usable_session(&self) -> bool {
        self.sessions.iter().any(Session::is_usable)
    }

    /// Whether nobody could be reached the last time.
    pub fn is_down(&self) -> bool {
        self.down.is_some()
    }

    pub(super) fn position(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|session| session.id == id)
    }

    pub(super) fn jitter(&mut self) -> u8 {
        (self.random)().to_be_bytes()[0]
    }

    pub(super) fn next_session(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId(self.next_session)
    }

    /// Puts a query on the session at that place.
    pub(super) fn send(&mut self, index: usize, key: Key, now: Instant, actions: &mut Actions<Q>) {
        let session = &mut self.sessions[index];
        let Some(entry) = self.queries.get_mut(key) else {
            return;
        };
        let id = loop {
            let id = (self.random)();
            if !session.pending.contains_key(&id) {
                break id;
            }
        };
        session.pending.insert(id, key);
        session.sent = session.sent.saturating_add(1);
        session.last_sent_at = now;
        let address = &mut self.addresses[session.rank];
        address.record_query(now);
        let form = entry
            .form
            .filter(|(rank, _)| *rank == session.rank)
            .map_or(address.form(now), |(_, form)| form);
        entry.queue = Queue::None;
        entry.sends += 1;
        entry.tried.insert(session.rank);
        entry.transmissions.push(Transmission {
            session: session.id,
            id,
            sent_at: now,
            form,
        });
        actions.sends.push(SendQuery {
            session: session.id,
            id,
            form,
            query: entry.query.clone(),
        });
        if session.sent
            >= address
                .session_query_limit(now)
                .saturating_add(session.extra_sends)
        {
            if session.extra_sends == 0 && session.is_shared() && address.may_test_limit(now) {
                session.extra_sends = 1;
            } else {
                self.drain_session(index);
            }
        }
    }

    /// Whether a query may be sent once more, which is paid for then.
    pub(super) fn may_send_again(&self, key: Key, now: Instant) -> bool {
        let entry = self.queries.get(key);
        entry.is_some_and(|entry| entry.sends < MAX_SENDS) && self.retry_budget.take(1, now) == 1
    }
}
