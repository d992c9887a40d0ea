//! Which query goes on which session, and which sessions are there?
//!
//! The rules alone: state, and one method per event, which says in [`Actions`] what is to be done. No socket, no thread, no clock: time and
//! random numbers are passed in, so that everything can be simulated. One lock (`driver::State`) guards the whole pool.
//!
//! - A query is sent at most three times, and ends exactly once, by its deadline.
//! - New queries go to the most preferred healthy address, on the sessions that queries share there. A query that finds none waits in a
//!   queue; where no session can be had, it fails.
//! - A session is silent if nothing arrives while a query is pending. It gets no more queries, and its queries are sent once more, on a
//!   session that received data since or on a new one. If that one answers, the silent session is dead. If it does not, the query is late,
//!   and no longer says anything about sessions.
//! - A query is suspect if the resolver closed its session. A few suspects, or those of a few clients, are sent again alone, each on a
//!   session of its own, and while a client's suspect is tested there its other queries wait; many are sent together; for the last send each
//!   goes alone on a new session. A query that ends its own session is a culprit. Queries that are
//!   like several culprits (`Culprits`) are isolated from the start.
//! - An address whose sessions end at random gets few queries on each at a time, and its suspects are not tested.
//! - Each new session to an address costs a token (`Address`), which is refunded if the session answered everything. Draining sessions have
//!   a bound of their own, and so have sessions of isolated queries.
//! - Under overload the youngest queries go first: a query that is sent when its time is over is sent in vain.
//! - A failure response that does not blame the name is kept as a fallback while the query is sent to other addresses that may be healthy.
//!   An address that fails several names in a row, or stays silent where another answers, is only tested now and then until it works.
//! - What a resolver does not accept in a query is left out: padding first, then the OPT record.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actions::{Actions, Event, Failure, PoolSettings, SendQuery};
use super::address::Address;
use super::address_record::{AddressTraffic, FailureCause};
use super::culprits::Culprits;
use super::health::AddressFailure;
use super::table::{
    Key, Phase, PoolQuery, Purpose, Queries, Queue, Session, SessionId, Transmission,
};
use super::token_bucket::TokenBucket;

/// How often a query is sent, at most (RFC 9520 section 3.1).
pub const MAX_SENDS: u8 = 3;
/// Queries pending on one session, at most. This is more than the default memory holds, so that queries that are never answered leave room
/// for others. While the table is this full, random IDs still seldom collide.
pub const MAX_PENDING_PER_SESSION: usize = 16_384;
/// Isolated sessions to one address that are connecting, or whose query was sent a moment ago, at most.
pub const MAX_ACTIVE_ISOLATED: usize = 4;
/// All isolated sessions to one address, at most.
pub const MAX_ISOLATED_SESSIONS: usize = 12;
/// Draining sessions to one address, at most.
pub const MAX_DRAINING_SESSIONS: usize = 8;
/// Queries in the isolated queue that were not sent yet, at most.
pub(super) const MAX_QUEUED_ISOLATED: usize = 64;

/// Source of random message IDs that nobody outside can predict (RFC 5452 section 9.2).
pub type Random = Box<dyn FnMut() -> u16 + Send>;

/// The connection attempts to several addresses while no session is open (RFC 8305).
#[derive(Debug, Default)]
pub(super) struct ConnectRace {
    /// When the next address may be tried although an attempt is under way.
    pub(super) next_attempt_at: Option<Instant>,
    /// Ranks of the addresses that could not be reached.
    pub(super) failed_ranks: Vec<usize>,
}

/// The sessions to all addresses, and the queries in flight.
pub struct Pool<Q> {
    pub(super) settings: PoolSettings,
    pub(super) addresses: Vec<Address>,
    pub(super) sessions: Vec<Session>,
    pub(super) queries: Queries<Q>,
    /// Queries that wait for a shared session.
    pub(super) shared_queue: VecDeque<Key>,
    /// Queries that wait for a session of their own.
    pub(super) isolated_queue: Vec<Key>,
    pub(super) culprits: Culprits,
    pub(super) connect_race: ConnectRace,
    /// Set while no address can be reached: why, and until when no address is tried.
    pub(super) down: Option<(Failure, Instant)>,
    /// How long the last session took to connect.
    pub(super) last_connect_time: Duration,
    /// The rank of the active address, as it was last reported.
    pub(super) active_rank: Option<usize>,
    next_session: u64,
    random: Random,
    /// Pays one token for each query that is sent again.
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
    /// Creates a pool without sessions.
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

    /// Replaces the bucket that pays for queries that are sent again.
    pub fn set_retry_budget(&mut self, retry_budget: Arc<TokenBucket>) {
        self.retry_budget = retry_budget;
    }

    /// Opens the first session before the first query.
    pub fn start(&mut self, now: Instant, actions: &mut Actions<Q>) {
        if let Some(rank) = (0..self.addresses.len()).find(|rank| self.may_connect(*rank, now)) {
            self.connect_shared(rank, now, actions);
        }
    }

    /// Takes new queries.
    pub fn submit(&mut self, queries: &mut Vec<Q>, now: Instant, actions: &mut Actions<Q>) {
        for query in &*queries {
            self.culprits.note_client(query.client(), now);
        }
        let held = self.held_clients(now);
        for query in queries.drain(..) {
            if self.queries.len() >= self.settings.max_pending {
                actions.failed.push((query, Failure::Overloaded));
                continue;
            }
            let must_isolate =
                !self.culprits.is_empty(now) && self.culprits.must_isolate(query.groups(), now);
            let key = self.queries.insert(query);
            if must_isolate {
                self.enqueue_isolated(key);
            } else if !self.has_queued(now)
                && let Some(index) = self.session_for(key, &held, now)
            {
                self.send(index, key, now, actions);
            } else {
                self.enqueue(key, false);
            }
        }
        self.probe_preferred(now, actions);
        self.reschedule(now, actions);
    }

    /// Event: a session is open, and its resolver is authenticated.
    pub fn session_opened(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        let Some(index) = self.position(session) else {
            return actions.closes.push(session);
        };
        let opened = &mut self.sessions[index];
        opened.phase = Phase::Open;
        (opened.last_received_at, opened.last_sent_at) = (now, now);
        opened.is_doubtful = false;
        opened.connect_time = now.saturating_duration_since(opened.started_at);
        self.last_connect_time = opened.connect_time;
        let rank = opened.rank;
        let id = opened.id;
        self.addresses[rank].record.record_session();
        let is_wanted = self.learn_from_open_hello(index, now, actions);
        match self.sessions[index].purpose {
            Purpose::Isolated(key) => self.send_isolated(index, key, now, actions),
            Purpose::Shared if is_wanted => self.use_shared_session(index, rank, now, actions),
            Purpose::Shared | Purpose::Probe => self.close_session(id, now, actions),
        }
        self.reschedule(now, actions);
    }

    /// Puts a new shared session into use.
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
            // The session opened late, and another is in use.
            self.close_session(id, now, actions);
            return;
        }
        self.connect_race = ConnectRace::default();
        self.down = None;
        self.addresses[rank].health.record_success();
        for session in &mut self.sessions {
            if session.is_shared_connecting() && session.rank < rank {
                // The address is slower: if the attempt fails, it need not be retried at once.
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

    /// Reports that queries go to the address of that rank, if they do: that it was down was logged.
    pub(super) fn report_active(&self, rank: usize, id: SessionId, actions: &mut Actions<Q>) {
        let event = Event::AddressActive(rank, id);
        if self.active_rank == Some(rank)
            && self.position(id).is_some()
            && !actions.events.contains(&event)
        {
            actions.events.push(event);
        }
    }

    /// Event: a session could not be opened.
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
        let has_no_session = self.sessions_at(failed.rank) == 0;
        let is_followed = self.learn_from_failed_hello(&failed, fault, now);
        if failed.purpose == Purpose::Probe {
            return self.reschedule(now, actions);
        }
        if is_followed {
            self.connect_race.next_attempt_at = None;
        } else if failed.is_shared() || has_no_session || fault == AddressFailure::Unauthenticated {
            let jitter = self.jitter();
            self.addresses[failed.rank]
                .health
                .record_failure(fault, jitter, now);
            // The next attempt need not wait.
            self.connect_race.next_attempt_at = None;
            if !self.connect_race.failed_ranks.contains(&failed.rank) {
                self.connect_race.failed_ranks.push(failed.rank);
            }
        }
        if let Purpose::Isolated(key) = failed.purpose {
            self.isolated_connect_failed(key, failed.rank, now);
        }
        self.reschedule(now, actions);
        if is_followed && failed.is_shared() {
            self.try_next_hello(failed.rank, now, actions);
        }
    }

    /// Event: an attempt ended that used an identity which has been replaced. Its failure says nothing.
    pub fn connect_outdated(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if let Some(index) = self.position(session) {
            self.sessions.remove(index);
            self.reschedule(now, actions);
        }
    }

    /// Event: the resolver said how long it keeps an idle session. Zero means to close it as soon as all answers are there (RFC 7828
    /// section 3.2.2).
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
            self.drain_session(index, now);
            self.reschedule(now, actions);
        }
    }

    /// Drains a session: it gets no more queries. Does nothing if too many sessions to its address are draining.
    pub(super) fn drain_session(&mut self, index: usize, now: Instant) {
        let rank = self.sessions[index].rank;
        let draining = self.sessions.iter();
        let count = draining
            .filter(|other| other.rank == rank && other.phase == Phase::Draining)
            .count();
        let session = &mut self.sessions[index];
        if count < MAX_DRAINING_SESSIONS && session.phase == Phase::Open && session.is_shared() {
            session.phase = Phase::Draining;
            // The session has served its purpose. Where queries end sessions, what looks like a limit may be none, and a session has to be
            // answered first.
            if self.culprits.is_empty(now) || session.answered > 0 {
                session.token_refundable = false;
                self.addresses[rank].shared_tokens.refund();
            }
        }
    }

    /// Event: the resolver or the network ended a session.
    pub fn session_ended(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if self.position(session).is_some() {
            self.remove_session(session, true, now, actions);
            self.reschedule(now, actions);
        }
    }

    /// Closes a session whose resolver the current pins would not accept.
    pub fn revoke_session(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        self.close_session(session, now, actions);
    }

    /// Event: the address of that rank has another identity. What failed authentication may pass now.
    pub fn reset(&mut self, rank: usize) {
        self.connect_race
            .failed_ranks
            .retain(|failed| *failed != rank);
        if self.addresses[rank].health.is_unauthenticated() {
            self.addresses[rank].reset();
            self.down = None;
        }
    }

    /// Event: the identity of some address changed. Serves the queries that wait, and opens a session if there is none.
    pub fn identity_changed(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.reschedule(now, actions);
        if !self.sessions.iter().any(Session::takes_shared_queries) {
            self.start(now, actions);
        }
    }

    /// Event: time has passed. Returns when to call again, at the latest.
    pub fn tick(&mut self, now: Instant, actions: &mut Actions<Q>) -> Option<Instant> {
        self.expire(now, actions);
        self.mark_late(now);
        self.mark_silent(now, actions);
        self.close_idle(now, actions);
        self.reschedule(now, actions);
        self.tick_hellos(now, actions);
        self.next_due(now)
    }

    /// Number of queries in flight.
    pub fn pending(&self) -> usize {
        self.queries.len()
    }

    /// The queries in flight.
    pub fn queries(&self) -> impl Iterator<Item = &Q> {
        self.queries.iter().map(|(_, entry)| &entry.query)
    }

    /// Number of usable shared sessions to the address of that rank.
    pub fn sessions_at(&self, rank: usize) -> usize {
        let open = self.sessions.iter();
        open.filter(|session| session.rank == rank && session.is_usable())
            .count()
    }

    /// Returns true if the address of that rank is not backed off and not failing.
    pub fn is_healthy(&self, rank: usize, now: Instant) -> bool {
        self.addresses[rank].is_healthy(now)
    }

    /// Returns true if the address of that rank answers with failures, or not at all while others answer.
    pub(super) fn is_failing(&self, rank: usize) -> bool {
        self.addresses[rank].is_failing()
    }

    /// Returns true if there is a usable shared session.
    pub(super) fn has_usable_session(&self) -> bool {
        self.sessions.iter().any(Session::is_usable)
    }

    /// Returns true if no address could be reached the last time.
    pub(super) fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// What became of the queries to the address of that rank, for monitoring.
    pub(super) fn traffic(&self, rank: usize, now: Instant) -> AddressTraffic {
        let record = &self.addresses[rank].record;
        record.traffic(self.sessions_at(rank) > 0, now)
    }

    /// Records for monitoring why a session to the address of that rank could not be opened.
    pub(super) fn record_failed_connect(&mut self, rank: usize, cause: FailureCause, now: Instant) {
        self.addresses[rank]
            .record
            .record_failed_connect(cause, now);
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

    /// Sends a query on the session at `index`.
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
        address.record.record_query();
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
                self.drain_session(index, now);
            }
        }
    }

    /// Returns true if a query may be sent again, and takes a token for it.
    pub(super) fn may_send_again(&self, key: Key, now: Instant) -> bool {
        let entry = self.queries.get(key);
        entry.is_some_and(|entry| entry.sends < MAX_SENDS) && self.retry_budget.take(1, now) == 1
    }
}
