//! Whom do we ask?
//!
//! The most preferred resolver that is well and proves its identity, over few sessions that all queries share. Which query goes where,
//! and which sessions there are, is decided by [`pool`], without sockets; the threads here carry: workers bring queries
//! and open sessions, each session has one that reads, and a timer tells the pool that time has passed. Whoever has something to tell
//! it takes the lock, is told what to do, and does it once the lock is given back. Never is a query sent anywhere but into a
//! session whose resolver is proved.
//!
//! Locks are taken in this order: the pool's, then that of a target's identity.

pub mod actions;
mod address;
mod alone;
mod answers;
mod balance;
mod endings;
pub mod health;
pub mod pool;
pub mod session;
mod status;
mod suspicion;
mod table;
mod threads;
mod timing;
pub mod token_bucket;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::pki_types::ServerName;

use self::actions::Actions;
use self::pool::Pool;
use self::session::{Message, Outgoing, Session};
use self::status::Shown;
use self::token_bucket::TokenBucket;
use crate::identity::pin::PinSet;
use crate::identity::verifier::{Identity, Terms};
use crate::message::Answer;
use crate::system::clock;
use crate::system::executor::Executor;
use crate::system::thread;

pub use self::actions::Failure;
pub use self::status::{Doubts, Proved, Standing, Tally};
pub use self::suspicion::Kin;
pub use self::table::{Pending, SessionId};

/// Attempts to connect that may be under way at a time.
pub const RACERS: usize = 8;
/// How long a session may be silent while a query waits before it is suspect, at least.
pub const LEAST_PATIENCE: Duration = Duration::from_millis(250);
/// How long an attempt to connect may take, at least: longer than most queries wait, since far resolvers take long.
const CONNECT: Duration = Duration::from_secs(10);

/// A resolver that may be asked.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Where it is, in order of preference.
    pub addresses: Vec<SocketAddr>,
    /// How it proves itself.
    pub identity: Identity,
}

/// What this room can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resolvers, in order of preference; at least one address among them.
    pub resolvers: Vec<Resolver>,
    /// The time of a query, and of a connection: TCP, TLS and all checks.
    pub timeout: Duration,
    /// [`LEAST_PATIENCE`], or longer, though a third of the timeout at most, where what a resolver is asked is to be counted on however slow a machine.
    pub least_patience: Duration,
    /// Sessions to one address at a time, at most; at least 1.
    pub sessions: usize,
    /// Queries on their way at a time, at most; at least 1.
    pub max_pending: usize,
}

/// A query on its way: what the resolver is asked, and by when.
pub trait Query: Message + fmt::Debug + 'static {
    /// When it was asked.
    fn began(&self) -> Instant;
    /// By when it ends, whatever became of it.
    fn deadline(&self) -> Instant;
    /// When [`Settle::look_after`] is to be called, before the deadline or at it.
    fn due(&self) -> Instant;
    /// Gives it so much longer, since nothing could come meanwhile.
    fn extend(&self, by: Duration);
    /// The question's octets: name, type and class.
    fn question(&self) -> &[u8];
    /// Whether it may be sent in one form only, since it is signed.
    fn is_signed(&self) -> bool;
    /// The client that asked first, by a number.
    fn client(&self) -> u16;
    /// Keeps a failure of a resolver's, which is what it ends with if nothing better comes.
    fn keep(&self, failure: &[u8]);
    /// Notes that its answer is a failure that says nothing of its name.
    fn note_outage(&self);
}

/// Replies to clients that were made at a time.
pub trait Replies: Default {
    /// Sends them.
    fn send(&mut self);
}

/// What becomes of queries. Called by the thread that knows it, which sends `replies` afterwards.
pub trait Settle<Q, R>: Send + Sync {
    /// `query` has ended: with an answer that matches it, or without. Called once for each.
    fn settle(
        &self,
        query: &Q,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut R,
    );

    /// A resolver that failed at all it was asked answers again: failures of the time before say nothing of their names.
    fn recover(&self, now: Instant);

    /// `query` goes on, but it is due ([`Query::due`]) that somebody looks after those that wait for it.
    fn look_after(&self, query: &Q, now: Instant, replies: &mut R);
}

/// The resolvers and the sessions to them.
pub struct Upstream<Q, R> {
    targets: Vec<Target>,
    timeout: Duration,
    least_patience: Duration,
    sessions: usize,
    max_pending: usize,
    settle: Arc<dyn Settle<Q, R>>,
    executor: OnceLock<Weak<dyn Executor>>,
    state: Mutex<State<Q>>,
    /// By how many milliseconds the clock that counts suspends is ahead of the one that does not.
    suspended: AtomicU64,
    tally: Arc<Tally>,
    good_time: AtomicU64,
    /// Milliseconds that a query has, see [`Upstream::query_time`].
    query_time: AtomicU64,
    timer: OnceLock<std::thread::Thread>,
    /// The timer sleeps until it is woken, since nothing is due.
    timer_rests: AtomicBool,
}

/// What is changed under the lock.
struct State<Q> {
    pool: Pool<Arc<Q>>,
    /// Those that are open.
    sessions: Vec<Open>,
    /// By rank.
    addresses: Vec<AddressLog>,
    /// It takes no more queries, and stops when the last has ended.
    retired: bool,
    stopped: bool,
}

/// An open session.
#[derive(Clone)]
struct Open {
    id: SessionId,
    rank: usize,
    session: Arc<Session>,
}

/// What was seen and said of an address.
#[derive(Default)]
struct AddressLog {
    /// What it showed when a session to it was last opened.
    shown: Option<Shown>,
    /// What was last logged of it, so that it is said once and not with every attempt.
    complaint: String,
}

/// One address of a resolver. Its place in the list is its rank: the lower, the more preferred.
struct Target {
    address: SocketAddr,
    /// Changed only under the state's lock, so that no session of an older one is taken up later.
    identity: Mutex<Identity>,
}

impl Target {
    fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }
}

/// What a thread keeps for its memory that brings queries or answers.
pub struct Work<Q> {
    actions: Actions<Arc<Q>>,
    outgoing: Vec<Outgoing>,
}

impl<Q> Default for Work<Q> {
    fn default() -> Self {
        Self {
            actions: Actions::default(),
            outgoing: Vec::new(),
        }
    }
}

impl<Q> fmt::Debug for Work<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Nobody is connected to yet; `settle` is told what becomes of each query, and `tally` what becomes of sessions.
    ///
    /// Fails when the system has no thread for the timer.
    pub fn start(
        settings: Settings,
        settle: Arc<dyn Settle<Q, R>>,
        tally: Arc<Tally>,
    ) -> io::Result<Arc<Self>> {
        Self::start_with(settings, settle, tally, 0)
    }

    /// Another one in its place, with other settings, which goes on counting where this one does. Its sessions are new, but
    /// resolvers that stay are known by their tickets, if the pins of `believed` are the same.
    pub fn succeed(
        &self,
        settings: &Settings,
        believed: &dyn Fn(&ServerName<'_>) -> PinSet,
    ) -> io::Result<Arc<Self>> {
        let mut settings = settings.clone();
        // No option says it, so no reload changes it.
        settings.least_patience = self.least_patience;
        let targets = self.targets();
        for resolver in &mut settings.resolvers {
            let pins = believed(resolver.identity.name());
            let known = targets
                .iter()
                .find(|(_, own)| own.is_like(&resolver.identity));
            resolver.identity = match known {
                Some((_, own)) => own.with_pins(pins),
                None => Identity::new(Terms {
                    pins,
                    // That of the start: what is remembered by now was learnt by it.
                    clock_floor: targets
                        .first()
                        .map_or(0, |(_, own)| own.terms().clock_floor),
                    ..resolver.identity.terms().clone()
                }),
            };
        }
        let (settle, tally) = (Arc::clone(&self.settle), Arc::clone(&self.tally));
        let good_time = self.good_time.load(Ordering::Relaxed);
        Self::start_with(settings, settle, tally, good_time)
    }

    fn start_with(
        settings: Settings,
        settle: Arc<dyn Settle<Q, R>>,
        tally: Arc<Tally>,
        good_time: u64,
    ) -> io::Result<Arc<Self>> {
        let mut targets = Vec::new();
        for resolver in settings.resolvers {
            let identity = resolver.identity;
            targets.extend(resolver.addresses.into_iter().map(|address| Target {
                address,
                identity: Mutex::new(identity.clone()),
            }));
        }
        let now = clock::now();
        let rules = actions::Settings {
            addresses: targets.len(),
            timeout: settings.timeout,
            least_patience: settings.least_patience,
            sessions: settings.sessions,
            max_pending: settings.max_pending,
        };
        let mut ids = session::Ids::default();
        let no_limit = Arc::new(TokenBucket::new(None, now));
        let state = State {
            pool: Pool::new(rules, Box::new(move || ids.draw()), no_limit, now),
            sessions: Vec::new(),
            addresses: targets.iter().map(|_| AddressLog::default()).collect(),
            retired: false,
            stopped: false,
        };
        let upstream = Arc::new(Self {
            targets,
            timeout: settings.timeout,
            least_patience: settings.least_patience,
            sessions: settings.sessions,
            max_pending: settings.max_pending,
            settle,
            executor: OnceLock::new(),
            state: Mutex::new(state),
            suspended: AtomicU64::new(threads::time_suspended()),
            tally,
            good_time: AtomicU64::new(good_time),
            query_time: AtomicU64::new(0),
            timer: OnceLock::new(),
            timer_rests: AtomicBool::new(false),
        });
        let timed = Arc::clone(&upstream);
        let timer = thread::spawn_for_good("timer", move || timed.look_for_ever())?;
        upstream
            .timer
            .set(timer.thread().clone())
            .expect("it is set here alone");
        Ok(upstream)
    }

    /// Gives it the threads that run its attempts, and opens the first session before anybody asks.
    pub fn employ(self: &Arc<Self>, executor: Weak<dyn Executor>) {
        if self.executor.set(executor).is_ok() {
            self.tell(|state, now, actions| state.pool.start(now, actions));
        }
    }

    /// Has what is asked once more cost a token of `budget` each from now on; until then, nothing.
    pub fn spend(&self, budget: &Arc<TokenBucket>) {
        self.state.lock().pool.spend(Arc::clone(budget));
    }

    /// Gives each resolver the pins that `pins` has for it. What was proved by others, or by pins that no longer count, counts
    /// no more: sessions end that would not be opened now, and tickets are forgotten. Resolvers that did not prove
    /// themselves may try again at once.
    ///
    /// Returns for how many resolvers' addresses the pins are others than before.
    pub fn repin(self: &Arc<Self>, pins: impl Fn(&Identity) -> PinSet) -> usize {
        let mut changed = 0;
        self.tell(|state, now, actions| {
            // Addresses of one resolver go on sharing their tickets.
            let mut known: Vec<(Identity, Identity)> = Vec::new();
            let mut unfit = Vec::new();
            for (rank, target) in self.targets.iter().enumerate() {
                let before = target.identity();
                let shared = known.iter().find(|(old, _)| old.is(&before));
                let after = match shared {
                    Some((_, after)) => after.clone(),
                    None => {
                        let after = before.with_pins(pins(&before));
                        known.push((before.clone(), after.clone()));
                        after
                    }
                };
                let is_same = after.is(&before);
                let is_unfit = |open: &&Open| {
                    let fits = if is_same {
                        open.session.is_pinned(&after)
                    } else {
                        open.session.fits(&after)
                    };
                    open.rank == rank && !fits
                };
                unfit.extend(state.sessions.iter().filter(is_unfit).map(|open| open.id));
                if !is_same {
                    changed += 1;
                    *target.identity.lock() = after;
                    state.addresses[rank].complaint.clear();
                    state.pool.begin_anew(rank);
                }
            }
            // Nothing is sent into them from here on; what waits for an answer of theirs is asked elsewhere.
            for session in unfit {
                state.pool.disown(session, now, actions);
            }
            if changed > 0 {
                state.pool.changed(now, actions);
            }
        });
        changed
    }

    /// Whether it would be no other one with these settings, but for the resolvers' pins.
    pub fn has(&self, settings: &Settings) -> bool {
        let own = self.targets();
        let resolvers = settings.resolvers.iter();
        let wanted: Vec<_> = resolvers
            .flat_map(|resolver| {
                let addresses = resolver.addresses.iter();
                addresses.map(|address| (*address, &resolver.identity))
            })
            .collect();
        let alike = own
            .iter()
            .zip(&wanted)
            .all(|((address, own), (other, identity))| address == other && own.is_like(identity));
        let numbers = (self.timeout, self.sessions, self.max_pending);
        own.len() == wanted.len()
            && alike
            && numbers == (settings.timeout, settings.sessions, settings.max_pending)
    }

    /// Where the resolvers are, each with how it proves itself now.
    pub fn targets(&self) -> Vec<(SocketAddr, Identity)> {
        let targets = self.targets.iter();
        targets
            .map(|target| (target.address, target.identity()))
            .collect()
    }

    /// When a session was last opened by certificates that hold by this machine's clock, which was right then as far as they
    /// tell; in seconds since 1970, if ever.
    pub fn good_time(&self) -> Option<u64> {
        Some(self.good_time.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }

    /// How each address fares.
    pub fn standings(&self) -> Vec<Standing> {
        let now = clock::now();
        let state = self.state.lock();
        let standing = |(rank, target): (usize, &Target)| {
            let identity = target.identity();
            let (name, terms) = (identity.name(), identity.terms());
            let shown = state.addresses[rank].shown.as_ref();
            Standing {
                address: target.address,
                name: name.to_str().into_owned(),
                pins: terms.pins.slots().len(),
                sessions: state.pool.sessions_at(rank),
                healthy: state.pool.is_well(rank, now),
                shown: shown.map(|shown| shown.proved(terms)),
            }
        };
        self.targets.iter().enumerate().map(standing).collect()
    }

    /// Whether a query would find a session, or could have one opened as far as is known: one was open, and ended without a
    /// failure since.
    pub fn is_ready(&self) -> bool {
        let state = self.state.lock();
        let mut addresses = state.addresses.iter();
        let was_open = addresses.any(|address| address.shown.is_some());
        state.pool.serves() || was_open && !state.pool.is_down()
    }

    /// The time of a query, as it was asked for.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The time of a query, see [`Pool::query_time`].
    pub fn query_time(&self) -> Duration {
        let time = self.query_time.load(Ordering::Relaxed);
        self.timeout.max(Duration::from_millis(time))
    }

    /// Queries on their way, and how many there may be.
    pub fn pending(&self) -> (usize, usize) {
        (self.state.lock().pool.pending(), self.max_pending)
    }

    /// Whether this machine's clock is known to be wrong.
    pub fn suspects_clock(&self) -> bool {
        let mut identities = self.targets.iter().map(Target::identity);
        identities.any(|identity| identity.suspects(session::today()))
    }

    /// Takes over `queries`: into a session, or to wait for one. Once it is retired it leaves them where they are.
    pub fn submit(
        self: &Arc<Self>,
        queries: &mut Vec<Arc<Q>>,
        work: &mut Work<Q>,
        replies: &mut R,
        now: Instant,
    ) {
        if queries.is_empty() {
            return;
        }
        self.watch_for_suspend(work, replies, now);
        let mut state = self.state.lock();
        if state.retired {
            return;
        }
        state.pool.submit(queries, now, &mut work.actions);
        self.carry(state, work, replies, now);
        self.wake_timer();
    }

    /// Takes no more queries, and stops when those that it has have ended: on the sessions that they are on, or another one
    /// if need be.
    pub fn retire(&self) {
        self.state.lock().retired = true;
        self.unpark_timer();
    }

    /// Closes the sessions, and opens no more. Nobody waits for an answer any more.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        let sessions = std::mem::take(&mut state.sessions);
        drop(state);
        sessions.iter().for_each(|open| open.session.close());
        self.unpark_timer();
    }
}
