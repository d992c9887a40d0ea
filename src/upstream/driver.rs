//! Who owns the pool, and carries out its actions?
//!
//! [`Upstream`] holds the resolvers, the open sessions and the pool. A thread with an event tells the pool under the lock, and carries out
//! the actions after it has released it. The modules that use this one contain those threads.
//!
//! Threads share [`Upstream`]. `Upstream::state` guards the pool, the list of open sessions and what is logged per address. The order of
//! locks is: `Upstream::state`, then either `ResolverAddress::security` or the lock of a [`Session`]. Token buckets have a lock each, which
//! is taken last. Methods of queries are called under `Upstream::state`, so their own locks come after it, too. `Upstream::state` is not
//! held while clients are answered or queries are written to sessions.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::actions::{self, Actions, Event, SendQuery};
use super::handshake::unix_time_now;
use super::obstruction::{FailureRun, NetworkFault, Obstruction};
use super::outage::OutageRule;
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::query_ids::QueryIds;
use super::session::Session;
use super::settings::{Resolver, Security, Settings};
use super::status::{AddressStatus, PresentedKeys, UpstreamMetrics};
use super::table::SessionId;
use super::token_bucket::TokenBucket;
use super::traits::{Completer, Query, Replies};
use crate::identity::key_exchange::Group;
use crate::identity::verifier::Identity;
use crate::system::clock;
use crate::system::executor::Executor;
use crate::system::scoped_address::ScopedAddress;
use crate::system::thread;

/// The resolvers and the sessions to them, shared by all threads. See the module for its locks.
pub struct Upstream<Q, R> {
    pub(super) targets: Vec<ResolverAddress>,
    /// These are the main resolvers.
    pub(super) is_main: bool,
    pub(super) timeout: Duration,
    pub(super) min_silence_timeout: Duration,
    pub(super) sessions: usize,
    pub(super) max_pending: usize,
    pub(super) completer: Arc<dyn Completer<Q, R>>,
    pub(super) executor: OnceLock<Weak<dyn Executor>>,
    pub(super) state: Mutex<State<Q>>,
    /// Milliseconds by which the clock that counts suspends was last seen ahead of the one that does not.
    pub(super) suspend_offset_ms: AtomicU64,
    pub(super) metrics: Arc<UpstreamMetrics>,
    pub(super) last_trusted_time: AtomicU64,
    /// How many milliseconds a query may take, see [`Upstream::query_time`].
    pub(super) query_time: AtomicU64,
    pub(super) timer: OnceLock<std::thread::Thread>,
    /// The timer thread is parked until it is woken, since nothing is due.
    pub(super) timer_parked: AtomicBool,
}

/// What the lock guards.
pub(super) struct State<Q> {
    pub(super) pool: Pool<Arc<Q>>,
    /// The open sessions.
    pub(super) sessions: Vec<OpenSession>,
    /// Indexed by rank.
    pub(super) addresses: Vec<AddressLog>,
    /// What explains the failures of all addresses, if anything does.
    pub(super) obstruction: Option<Obstruction>,
    /// The rank of the address whose first answer is to be logged: queries have gone to it since a session was opened.
    pub(super) awaited_rank: Option<usize>,
    /// Whether queries are answered.
    pub(super) outage: OutageRule,
    /// No more queries are taken; the last query to end stops the upstream.
    pub(super) retired: bool,
    pub(super) stopped: bool,
}

impl<Q> State<Q> {
    fn new(pool: Pool<Arc<Q>>, addresses: usize) -> Self {
        Self {
            pool,
            sessions: Vec::new(),
            addresses: (0..addresses).map(|_| AddressLog::default()).collect(),
            obstruction: None,
            awaited_rank: None,
            outage: OutageRule::default(),
            retired: false,
            stopped: false,
        }
    }

    /// Notes which address becomes active by these events. During an outage that is no news until the address answers.
    fn await_answer(&mut self, events: &mut Vec<Event>) {
        let is_outage = self.outage.is_outage();
        events.retain(|event| match event {
            Event::AddressActive(rank, _) => {
                self.awaited_rank = Some(*rank);
                !is_outage
            }
            _ => true,
        });
    }
}

/// An open session.
#[derive(Clone)]
pub(super) struct OpenSession {
    pub(super) id: SessionId,
    pub(super) rank: usize,
    pub(super) session: Arc<Session>,
}

/// What was last seen and logged of an address.
#[derive(Default)]
pub(super) struct AddressLog {
    /// When a session to the address was last opened, if ever.
    pub(super) opened_at: Option<Instant>,
    /// The keys that the address presented when a session to it was last opened.
    pub(super) last_presented: Option<PresentedKeys>,
    /// The key exchange of that session.
    pub(super) last_group: Option<Group>,
    /// The last error that was logged since a session was opened, so that it is logged once and not with every attempt.
    pub(super) last_error: String,
    /// That error was one of authentication.
    pub(super) is_unauthenticated: bool,
    /// How the address failed since a session to it was last opened.
    pub(super) failures: Option<FailureRun>,
}

impl AddressLog {
    /// Records that a session was opened. Returns true if it was logged that none could be.
    pub(super) fn record_session(&mut self, session: &Session, now: Instant) -> bool {
        self.opened_at = Some(now);
        self.last_presented = session.proof().map(PresentedKeys::from_proof);
        self.last_group = session.tls_parameters().map(|tls| tls.group);
        self.failures = None;
        !std::mem::take(&mut self.last_error).is_empty()
    }
}

impl<Q> State<Q> {
    /// Records how the address of that rank failed. Returns what keeps all addresses from being reached, if that is news.
    pub(super) fn record_failure(
        &mut self,
        rank: usize,
        kind: NetworkFault,
        now: Instant,
    ) -> Option<Obstruction> {
        let log = &mut self.addresses[rank];
        log.failures = Some(FailureRun::after(log.failures, kind, now));
        let runs = self.addresses.iter().map(|log| log.failures);
        let found = Obstruction::common(runs.map(|run| run?.lasting_kind(now)));
        // Once it is known, it holds until a session is open: attempts fail in more than one way.
        let is_news = found.is_some() && self.obstruction != found;
        self.obstruction = found.or(self.obstruction);
        found.filter(|_| is_news)
    }
}

/// One address of a resolver. Its index in the list is its rank: the lower, the more preferred.
pub(super) struct ResolverAddress {
    pub(super) address: ScopedAddress,
    /// Its pins change only under the lock of the state, so that no session of an older identity is registered later.
    pub(super) security: Mutex<Security>,
}

impl ResolverAddress {
    /// The addresses of all these resolvers.
    fn of_all(resolvers: Vec<Resolver>) -> Vec<Self> {
        let mut targets = Vec::new();
        for Resolver {
            addresses,
            security,
        } in resolvers
        {
            targets.extend(addresses.into_iter().map(|address| Self {
                address,
                security: Mutex::new(security.clone()),
            }));
        }
        targets
    }

    pub(super) fn security(&self) -> Security {
        self.security.lock().clone()
    }
}

/// Buffers that a thread which brings queries or answers keeps, to reuse their memory.
pub struct WorkBuffers<Q> {
    pub(super) actions: Actions<Arc<Q>>,
    pub(super) outgoing: Vec<Outgoing>,
}

impl<Q> Default for WorkBuffers<Q> {
    fn default() -> Self {
        Self {
            actions: Actions::default(),
            outgoing: Vec::new(),
        }
    }
}

impl<Q> fmt::Debug for WorkBuffers<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkBuffers").finish_non_exhaustive()
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Opens no connection yet. `completer` is called once for each query; `metrics` counts sessions.
    ///
    /// Fails if the system has no thread for the timer.
    pub fn start(
        settings: Settings,
        completer: Arc<dyn Completer<Q, R>>,
        metrics: Arc<UpstreamMetrics>,
    ) -> io::Result<Arc<Self>> {
        Self::start_with(settings, completer, metrics, 0)
    }

    pub(super) fn start_with(
        settings: Settings,
        completer: Arc<dyn Completer<Q, R>>,
        metrics: Arc<UpstreamMetrics>,
        last_trusted_time: u64,
    ) -> io::Result<Arc<Self>> {
        let targets = ResolverAddress::of_all(settings.resolvers);
        let now = clock::now();
        let rules = actions::PoolSettings {
            addresses: targets.len(),
            timeout: settings.timeout,
            min_silence_timeout: settings.min_silence_timeout,
            sessions: settings.sessions,
            max_pending: settings.max_pending,
        };
        let mut ids = QueryIds::default();
        let no_limit = Arc::new(TokenBucket::new(None, now));
        let pool = Pool::new(rules, Box::new(move || ids.next_id()), no_limit, now);
        let state = State::new(pool, targets.len());
        let upstream = Arc::new(Self {
            targets,
            is_main: settings.is_main,
            timeout: settings.timeout,
            min_silence_timeout: settings.min_silence_timeout,
            sessions: settings.sessions,
            max_pending: settings.max_pending,
            completer,
            executor: OnceLock::new(),
            state: Mutex::new(state),
            suspend_offset_ms: AtomicU64::new(time_suspended()),
            metrics,
            last_trusted_time: AtomicU64::new(last_trusted_time),
            query_time: AtomicU64::new(0),
            timer: OnceLock::new(),
            timer_parked: AtomicBool::new(false),
        });
        let timed = Arc::clone(&upstream);
        let timer = thread::spawn_restarting("timer", move || timed.run_timer())?;
        upstream
            .timer
            .set(timer.thread().clone())
            .expect("it is set here alone");
        Ok(upstream)
    }

    /// Sets the executor that runs connection attempts, and opens the first session before the first query.
    pub fn set_executor(self: &Arc<Self>, executor: Weak<dyn Executor>) {
        if self.executor.set(executor).is_ok() {
            self.update_pool(|state, now, actions| state.pool.start(now, actions));
        }
    }

    /// Charges each query that is sent again to `budget` from now on. Until then they are free.
    pub fn set_retry_budget(&self, budget: &Arc<TokenBucket>) {
        self.state.lock().pool.set_retry_budget(Arc::clone(budget));
    }

    /// The address of each resolver, with its current identity, if it has one.
    pub fn targets(&self) -> Vec<(ScopedAddress, Security)> {
        let targets = self.targets.iter();
        targets
            .map(|target| (target.address, target.security()))
            .collect()
    }

    /// When a session was last opened with certificates that are valid by this machine's clock, in seconds since 1970, if ever. The clock
    /// was right then, as far as they tell.
    pub fn last_trusted_time(&self) -> Option<u64> {
        Some(self.last_trusted_time.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }

    /// The status of each address, by rank.
    pub fn address_status(&self) -> Vec<AddressStatus> {
        let (now, unix_now) = (clock::now(), clock::unix_time().as_secs());
        let state = self.state.lock();
        let standing = |(rank, target): (usize, &ResolverAddress)| {
            let security = target.security();
            let terms = security.identity().map(Identity::policy);
            let last_presented = state.addresses[rank].last_presented.as_ref();
            let traffic = state.pool.traffic(rank, now);
            let was_open = state.addresses[rank].opened_at.is_some();
            let healthy =
                was_open && state.pool.is_healthy(rank, now) && traffic.failing_since.is_none();
            let status = AddressStatus {
                is_cleartext: matches!(security, Security::Cleartext),
                was_open,
                obstruction: state.obstruction.filter(|_| !healthy),
                pins: terms.map_or(0, |terms| terms.pins.entries().len()),
                sessions: state.pool.sessions_at(rank),
                healthy,
                group: state.addresses[rank].last_group,
                post_quantum_left_out: state.pool.is_post_quantum_left_out(rank),
                pin_status: last_presented
                    .zip(terms)
                    .map(|(last_presented, terms)| last_presented.pin_status(terms)),
                ..AddressStatus::new(target.address, security.name())
            };
            status.with_traffic(traffic, now, unix_now)
        };
        self.targets.iter().enumerate().map(standing).collect()
    }

    /// How long a query may take, as configured.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How long a query may take, see [`Pool::query_time`].
    pub fn query_time(&self) -> Duration {
        let time = self.query_time.load(Ordering::Relaxed);
        self.timeout.max(Duration::from_millis(time))
    }

    /// The number of queries in flight, and its limit.
    pub fn pending(&self) -> (usize, usize) {
        (self.state.lock().pool.pending(), self.max_pending)
    }

    /// Returns true if this machine's clock is known to be wrong.
    pub fn is_clock_untrusted(&self) -> bool {
        let distrusts = |target: &ResolverAddress| match target.security() {
            Security::Tls(identity) => identity.distrusts_clock(unix_time_now()),
            Security::Cleartext => false,
        };
        self.targets.iter().any(distrusts)
    }

    /// Takes over `queries`: they are sent on a session, or wait for one. After [`Upstream::retire`] they stay in `queries`.
    pub fn submit(
        self: &Arc<Self>,
        queries: &mut Vec<Arc<Q>>,
        work: &mut WorkBuffers<Q>,
        replies: &mut R,
        now: Instant,
    ) {
        if queries.is_empty() {
            return;
        }
        self.detect_suspend(work, replies, now);
        let mut state = self.state.lock();
        if state.retired {
            return;
        }
        state.pool.submit(queries, now, &mut work.actions);
        self.perform_actions(state, work, replies, now);
        self.wake_timer();
    }

    /// Takes no more queries, and stops when those in flight have ended, on their sessions or on others.
    pub fn retire(&self) {
        self.state.lock().retired = true;
        self.unpark_timer();
    }

    /// Closes all sessions and opens no more. No client waits for an answer any more.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        let sessions = std::mem::take(&mut state.sessions);
        drop(state);
        sessions.iter().for_each(|open| open.session.close());
        self.unpark_timer();
    }

    /// Tells the pool about an event, and carries out its actions.
    pub(super) fn update_pool(
        self: &Arc<Self>,
        event: impl FnOnce(&mut State<Q>, Instant, &mut Actions<Arc<Q>>),
    ) {
        let (mut work, mut replies) = (WorkBuffers::default(), R::default());
        let now = clock::now();
        let mut state = self.state.lock();
        event(&mut state, now, &mut work.actions);
        self.perform_actions(state, &mut work, &mut replies, now);
        replies.send();
        self.wake_timer();
    }

    /// Carries out the pool's actions, except for answers: the thread that read them delivers them. Releases the lock first.
    pub(super) fn perform_actions(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State<Q>>,
        work: &mut WorkBuffers<Q>,
        replies: &mut R,
        now: Instant,
    ) {
        let WorkBuffers { actions, outgoing } = work;
        let closed: Vec<OpenSession> = actions
            .closes
            .drain(..)
            .filter_map(|id| {
                let place = state.sessions.iter().position(|open| open.id == id)?;
                Some(state.sessions.swap_remove(place))
            })
            .collect();
        let (first, others) = sessions_to_send_on(&state, &actions.sends);
        state.await_answer(&mut actions.events);
        let outage = state.note_failures(&actions.failed, now);
        let events: Vec<(Event, Option<Arc<Session>>)> = actions
            .events
            .drain(..)
            .map(|event| {
                let session = event.session();
                (event, session.and_then(|id| open_session(&state, id)))
            })
            .collect();
        drop(state);
        for (event, session) in events {
            self.handle_event(event, session.as_deref(), now);
        }
        outage.iter().for_each(|outage| self.log_outage(outage));
        for OpenSession { session, .. } in closed {
            session.close();
        }
        for (id, session) in first.into_iter().chain(others) {
            let sends = actions.sends.extract_if(.., |send| send.session == id);
            outgoing.extend(sends.map(|send| Outgoing {
                id: send.id,
                form: send.form,
                query: send.query,
            }));
            session.send_combined(outgoing);
        }
        // Queries for a session that has ended meanwhile are sent again when the pool learns of that end.
        actions.sends.clear();
        for (query, failure) in actions.failed.drain(..) {
            self.completer.complete(&query, Err(failure), now, replies);
        }
        for query in actions.due.drain(..) {
            if !query.has_ended() {
                self.completer.serve_due_waiters(&query, now, replies);
            }
        }
        for connect in actions.connects.drain(..) {
            self.spawn_connect(connect);
        }
    }
}

/// A session and its number.
type NumberedSession = (SessionId, Arc<Session>);

/// The sessions on which something is to be sent. Mostly it is one, which needs no allocation.
fn sessions_to_send_on<Q>(
    state: &State<Q>,
    sends: &[SendQuery<Arc<Q>>],
) -> (Option<NumberedSession>, Vec<NumberedSession>) {
    let known = |id| open_session(state, id).map(|session| (id, session));
    let first = sends.first().map(|send| send.session);
    let mut others: Vec<NumberedSession> = Vec::new();
    for send in sends {
        let is_known =
            Some(send.session) == first || others.iter().any(|(id, _)| *id == send.session);
        if !is_known {
            others.extend(known(send.session));
        }
    }
    (first.and_then(known), others)
}

pub(super) fn open_session<Q>(state: &State<Q>, id: SessionId) -> Option<Arc<Session>> {
    let mut sessions = state.sessions.iter();
    let open = sessions.find(|open| open.id == id)?;
    Some(Arc::clone(&open.session))
}

/// For how many milliseconds the machine has been suspended so far.
pub(super) fn time_suspended() -> u64 {
    u64::try_from(clock::time_suspended().as_millis()).unwrap_or(u64::MAX)
}
