//! Whom do we ask?
//!
//! The most preferred resolver that can be reached and proves its identity, over few sessions that all queries share. A
//! query that finds no session with room waits in a bounded list; the list moves on whenever a session opens or has room
//! again. Sessions are opened by races: the addresses in order of preference, the next one as soon as one fails or takes
//! long, each connected by a pool worker. A timer gives up on queries whose deadline has passed, and asks again on a
//! second session what waits on a silent one. Never is a query sent anywhere but into a session whose resolver is proved.

mod address;
mod alone;
mod answers;
mod balance;
mod endings;
pub mod pool;
mod suspicion;
mod table;
mod timing;

pub use address::Form;
pub use suspicion::Kin;
pub use table::{Pending, SessionId};

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{park, park_timeout};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::ServerName;

use crate::certificate::Facts;
use crate::client::ReplyBatch;
use crate::clock;
use crate::flight::Query;
use crate::health::{Fault, Health};
use crate::identity::{Identity, Proof, Terms};
use crate::journal::{debug, error, info, warn};
use crate::metrics::{Counter, Histogram};
use crate::pin::{Fit, Pin, PinSet};
use crate::session::{self, Closed, ConnectError, PENDING, Reader, Rest, Sent, Session, Silent};
use crate::thread::{self, Pulse};
use crate::token_bucket::TokenBucket;
use crate::wire::Answer;

/// Attempts to connect that may be under way at a time.
pub const RACERS: usize = 8;
/// How long an address may take before the next one enters the race (RFC 8305 section 5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// How long after a lost race queries fail at once, before the next of them may start another.
const HOLD_OFF: Duration = Duration::from_millis(250);
/// While the resolvers are known to be away, how long a query waits for a race that is under way before it fails.
const GRACE: Duration = Duration::from_millis(500);
/// How long a session may be silent while a query waits before it is suspect, at least.
pub const LEAST_PATIENCE: Duration = Duration::from_millis(250);
/// Sessions in a row that may end with queries pending and none answered before the address is held back.
const MOST_VAIN: u32 = 4;
/// The timer looks no more often than this, and while queries are pending no less often than the other.
const TICKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A suspend of so many milliseconds makes all sessions suspect.
const SUSPEND: u64 = 1000;

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

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its deadline passed.
    TimedOut,
    /// No resolver could be reached.
    Unreachable,
    /// What was reached did not prove that it is the resolver that was meant.
    Unproved,
    /// More queries are pending than may be, or more would be sent.
    Overloaded,
    /// The resolver answered with something that cannot be read.
    Unreadable,
    /// Sessions ended under it, again and again.
    Broken,
}

/// What becomes of queries. Called by the thread that knows it, which sends `replies` afterwards.
pub trait Settle: Send + Sync {
    /// `query` has ended: with an answer that matches it, or without. Called once for each.
    fn settle(
        &self,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut ReplyBatch,
    );

    /// `query` goes on, but it is due ([`Query::due`]) that somebody looks after those that wait for it.
    fn look_after(&self, query: &Query, now: Instant, replies: &mut ReplyBatch);
}

/// Who runs attempts: threads that may wait.
pub trait Hands: Send + Sync {
    /// Has a thread run `attempt`; drops it if there is none.
    fn take(self: Arc<Self>, attempt: Attempt);
}

/// The resolvers and the sessions to them.
pub struct Upstream {
    targets: Vec<Target>,
    timeout: Duration,
    least_patience: Duration,
    sessions: usize,
    max_pending: usize,
    settle: Arc<dyn Settle>,
    hands: OnceLock<Weak<dyn Hands>>,
    state: Mutex<State>,
    /// Queries that have not ended.
    unended: AtomicUsize,
    /// By how many milliseconds the clock that counts suspends is ahead of the one that does not.
    suspended: AtomicU64,
    resuming: Mutex<()>,
    tally: Arc<Tally>,
    /// Has a token for each query that is asked once more. Whoever brings queries has taken those for their first time.
    budget: Mutex<Arc<TokenBucket>>,
    good_time: AtomicU64,
    timer: OnceLock<std::thread::Thread>,
    /// The timer sleeps until it is woken, since no query is pending.
    timer_rests: AtomicBool,
    /// It takes no more queries, and stops when the last has ended.
    retired: AtomicBool,
    /// Set under the state's lock, so that no session is taken up later.
    stopped: AtomicBool,
}

/// What became of sessions and of what was asked on them, counted over all resolvers.
#[derive(Debug, Default)]
pub struct Tally {
    /// How long a session took to open, from the TCP connection to the proof: by a whole handshake, and by one that a ticket
    /// made short.
    pub handshakes: [Histogram; 2],
    /// From a query's being sent to its answer.
    pub exchanges: Histogram,
    /// Sessions that ended: by the resolver, by an error, by what is no message, and from here.
    pub closed: [Counter; 4],
    /// Attempts that ended before there was a TCP connection, and before TLS was agreed on.
    pub failures: [Counter; 2],
    /// Resolvers that were refused, by [`crate::identity::Check`].
    pub refusals: [Counter; 4],
    /// Sessions that were opened on less than all that could be asked for.
    pub doubts: Doubts,
}

impl Tally {
    fn count_failure(&self, error: &ConnectError) {
        match error {
            ConnectError::Connect(_) => self.failures[0].increment(),
            ConnectError::Handshake(_) => self.failures[1].increment(),
            ConnectError::Identity(refusal) => self.refusals[refusal.check as usize].increment(),
        }
    }

    fn count_end(&self, closed: Option<&Closed>) {
        let reason = match closed {
            Some(Closed::End) => 0,
            Some(Closed::Broken(_)) => 1,
            Some(Closed::Garbage) => 2,
            // A thread that panicked lets go of its session.
            Some(Closed::Here) | None => 3,
        };
        self.closed[reason].increment();
    }
}

/// How one address of a resolver fares.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The address.
    pub address: SocketAddr,
    /// The name that its certificate must bear.
    pub name: String,
    /// Sessions that take queries.
    pub sessions: usize,
    /// It is not held back after a failure, or since it was slower than another.
    pub healthy: bool,
    /// How many pins it has.
    pub pins: usize,
    /// What it showed when the last session was opened, if one ever was.
    pub shown: Option<Proved>,
}

/// What an address showed when it last proved itself.
#[derive(Debug, Clone, Copy)]
pub struct Proved {
    /// The place of the pin that fitted among those of the resolver, from 1; 0 where none was needed.
    pub slot: usize,
    /// Until when its certificate holds, in seconds since 1970.
    pub not_after: Option<u64>,
}

/// What is kept of that: the pins may be others later.
struct Shown {
    keys: Vec<Pin>,
    not_after: Option<u64>,
}

impl Shown {
    fn of(proof: &Proof) -> Self {
        let leaf = proof.certificates.first();
        Self {
            keys: proof.keys.clone(),
            not_after: leaf.and_then(Facts::read).map(|facts| facts.not_after),
        }
    }

    fn proved(&self, terms: &Terms) -> Proved {
        Proved {
            slot: fit(&self.keys, terms).map_or(0, |fit| fit.slot + 1),
            not_after: self.not_after,
        }
    }
}

/// Which of the pins that hold now is that of one of the keys.
fn fit(keys: &[Pin], terms: &Terms) -> Option<Fit> {
    let now = clock::since_1970().as_secs();
    terms.pins.find(keys, now.max(terms.clock_floor))
}

/// Sessions that were opened on less than all that could be asked for.
#[derive(Debug, Default)]
pub struct Doubts {
    /// None of their keys is pinned, and none needed to be.
    pub unpinned: Counter,
    /// This machine's clock was known to be wrong, and a pin stood in for it.
    pub clock: Counter,
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

/// What changes about a target.
#[derive(Default)]
struct Fortune {
    health: Health,
    /// An attempt to connect to it is under way.
    connecting: bool,
    /// Sessions in a row that ended with queries pending and none answered.
    vain: u32,
    /// How many queries a session to it may begin with; none means the most.
    window: Option<usize>,
    /// What it showed when a session to it was last opened.
    shown: Option<Shown>,
    /// What was last logged of it, so that it is said once and not with every attempt.
    complaint: String,
}

#[derive(Default)]
struct State {
    fortunes: Vec<Fortune>,
    sessions: Vec<Open>,
    /// Queries that found no session with room.
    waiting: VecDeque<Arc<Query>>,
    race: Option<Race>,
    /// The last race was lost, like this, and none was won since. Until then, none is started.
    down: Option<(Failure, Instant)>,
    /// What the log said last: the address that serves, if one does.
    serving: Option<SocketAddr>,
    /// How many races there were.
    races: u64,
}

/// A session and the rank of its target.
#[derive(Clone)]
struct Open {
    rank: usize,
    session: Arc<Session>,
}

/// Addresses that are tried until one of them is connected and proved.
struct Race {
    /// Its number: who comes late from an earlier race has no say in this one.
    number: u64,
    began: Instant,
    /// Ranks that have not entered.
    candidates: VecDeque<usize>,
    /// Ranks that have.
    entered: Vec<usize>,
    /// When the next of them enters, unless one fails before.
    next: Instant,
    running: usize,
    /// How the candidates failed so far.
    failure: Failure,
}

/// A candidate that runs.
struct RaceEntry {
    race: u64,
    rank: usize,
    identity: Identity,
    window: usize,
    deadline: Instant,
}

/// The right and the duty to connect for the current race: queries wait for its outcome.
#[must_use = "queries wait until it has run"]
pub struct Attempt {
    /// None once it runs.
    upstream: Option<Arc<Upstream>>,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").finish_non_exhaustive()
    }
}

impl Upstream {
    /// Nobody is connected to yet; `settle` is told what becomes of each query, and `tally` what becomes of sessions.
    ///
    /// Fails when the system has no thread for the timer.
    pub fn start(
        settings: Settings,
        settle: Arc<dyn Settle>,
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
        settle: Arc<dyn Settle>,
        tally: Arc<Tally>,
        good_time: u64,
    ) -> io::Result<Arc<Self>> {
        let targets: Vec<_> = settings
            .resolvers
            .into_iter()
            .flat_map(
                |Resolver {
                     addresses,
                     identity,
                 }| {
                    addresses.into_iter().map(move |address| Target {
                        address,
                        identity: Mutex::new(identity.clone()),
                    })
                },
            )
            .collect();
        let fortunes = targets.iter().map(|_| Fortune::default()).collect();
        let state = State {
            fortunes,
            ..State::default()
        };
        let upstream = Arc::new(Self {
            targets,
            timeout: settings.timeout,
            least_patience: settings.least_patience,
            sessions: settings.sessions,
            max_pending: settings.max_pending,
            settle,
            hands: OnceLock::new(),
            state: Mutex::new(state),
            unended: AtomicUsize::new(0),
            suspended: AtomicU64::new(time_suspended()),
            resuming: Mutex::new(()),
            tally,
            budget: Mutex::new(Arc::new(TokenBucket::new(None, clock::now()))),
            good_time: AtomicU64::new(good_time),
            timer: OnceLock::new(),
            timer_rests: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
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
    pub fn employ(self: &Arc<Self>, hands: Weak<dyn Hands>) {
        if self.hands.set(hands).is_ok() {
            let mut state = self.state.lock();
            let now = clock::now();
            let candidates = (0..self.targets.len()).collect();
            self.start_race(&mut state, candidates, now);
            drop(state);
            self.send_racer();
            self.wake_timer();
        }
    }

    /// Has what is asked once more cost a token of `budget` each from now on; until then, nothing.
    pub fn spend(&self, budget: &Arc<TokenBucket>) {
        *self.budget.lock() = Arc::clone(budget);
    }

    /// Takes tokens for queries that are to be asked once more; returns for how many of them.
    fn take_tokens(&self, wanted: usize, now: Instant) -> usize {
        let budget = Arc::clone(&self.budget.lock());
        budget.take(wanted, now)
    }

    /// Gives each resolver the pins that `pins` has for it. What was proved by others, or by pins that no longer count, counts
    /// no more: sessions end that would not be opened now, and tickets are forgotten. Resolvers that did not prove
    /// themselves may try again at once.
    ///
    /// Returns for how many resolvers' addresses the pins are others than before.
    pub fn repin(self: &Arc<Self>, pins: impl Fn(&Identity) -> PinSet) -> usize {
        let now = clock::now();
        let (mut changed, mut unfit) = (0, Vec::new());
        // Addresses of one resolver go on sharing their tickets.
        let mut known: Vec<(Identity, Identity)> = Vec::new();
        let mut state = self.state.lock();
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
            let sessions = state.sessions.iter().filter(|open| open.rank == rank);
            if after.is(&before) {
                unfit.extend(
                    sessions
                        .filter(|open| !open.session.is_pinned(&after))
                        .cloned(),
                );
                continue;
            }
            changed += 1;
            unfit.extend(sessions.filter(|open| !open.session.fits(&after)).cloned());
            *target.identity.lock() = after;
            if let Some(race) = &mut state.race {
                // Whoever was refused may run again.
                race.entered.retain(|entered| *entered != rank);
            }
            let fortune = &mut state.fortunes[rank];
            fortune.complaint.clear();
            if fortune.health.is_unproved() {
                fortune.health.succeed();
                state.down = None;
            }
        }
        // Nothing is sent into them from here on; what waits for an answer of theirs is asked elsewhere.
        unfit.iter().for_each(|open| open.session.close());
        let candidates = match state.best(0) {
            Some(_) => VecDeque::new(),
            None => self.candidates(&state, now),
        };
        if changed > 0 {
            self.start_race(&mut state, candidates, now);
        }
        let race = state.race.as_ref();
        let runs = changed > 0 && race.is_some_and(|race| !race.candidates.is_empty());
        drop(state);
        if runs {
            self.send_racer();
            self.wake_timer();
        }
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
        let targets = self.targets.iter().zip(&state.fortunes).enumerate();
        let standing = |(rank, (target, fortune)): (usize, (&Target, &Fortune))| {
            let identity = target.identity();
            let (name, terms) = (identity.name(), identity.terms());
            Standing {
                address: target.address,
                name: name.to_str().into_owned(),
                pins: terms.pins.slots().len(),
                sessions: state.count_good(rank),
                healthy: fortune.health.is_good(now),
                shown: fortune.shown.as_ref().map(|shown| shown.proved(terms)),
            }
        };
        targets.map(standing).collect()
    }

    /// Whether a query would find a session, or could have one opened as far as is known: one was open, and ended without a
    /// failure since.
    pub fn is_ready(&self) -> bool {
        let state = self.state.lock();
        let was_open = || state.fortunes.iter().any(|fortune| fortune.shown.is_some());
        state.best(0).is_some() || state.down.is_none() && was_open()
    }

    /// The time of a query.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Queries on their way, and how many there may be.
    pub fn pending(&self) -> (usize, usize) {
        (self.unended.load(Ordering::Relaxed), self.max_pending)
    }

    /// Whether this machine's clock is known to be wrong.
    pub fn suspects_clock(&self) -> bool {
        let mut identities = self.targets.iter().map(Target::identity);
        identities.any(|identity| identity.suspects(session::today()))
    }

    /// Takes over `queries`: into a session, or to wait for one. Once it is retired it leaves them where they are.
    pub fn submit(
        self: &Arc<Self>,
        queries: &mut Vec<Arc<Query>>,
        replies: &mut ReplyBatch,
        now: Instant,
    ) {
        if queries.is_empty() {
            return;
        }
        let before = self.unended.fetch_add(queries.len(), Ordering::SeqCst);
        // In this order: whoever retires it sees that they are there, or is seen here.
        if self.retired.load(Ordering::SeqCst) {
            self.unended.fetch_sub(queries.len(), Ordering::SeqCst);
            return;
        }
        let room = self.max_pending.saturating_sub(before);
        if room < queries.len() {
            self.fail(queries.drain(room..), Failure::Overloaded, now, replies);
        }
        self.watch_for_suspend(replies, now);
        self.ask(queries, false, replies, now);
        self.wake_timer();
    }

    /// Hands queries that are counted already to the best session, or lets them wait: `ahead` of those that wait already
    /// if they were asked before.
    fn ask(
        self: &Arc<Self>,
        queries: &mut Vec<Arc<Query>>,
        ahead: bool,
        replies: &mut ReplyBatch,
        now: Instant,
    ) {
        let mut full = 0;
        while !queries.is_empty() {
            let mut state = self.state.lock();
            let next = if state.waiting.is_empty() {
                state.best(full)
            } else {
                None
            };
            let Some(open) = next else {
                return self.wait_in_line(state, queries, ahead, replies, now);
            };
            let take_back = self.start_taking_back(&mut state, open.rank, now);
            drop(state);
            if take_back {
                self.send_racer();
            }
            if open.session.send_together(queries, now) == Sent::Full {
                full += 1;
            }
        }
    }

    /// Lets queries wait for a session with room, and sees to it that one comes, also for those that wait already. Those
    /// that would wait in vain fail.
    fn wait_in_line(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        queries: &mut Vec<Arc<Query>>,
        ahead: bool,
        replies: &mut ReplyBatch,
        now: Instant,
    ) {
        let best = state.best(0).map(|open| open.rank);
        let wanted = match best {
            // The best session is busy: another one to the same address, if it may have one.
            Some(rank)
                if state.count_good(rank) < self.sessions
                    && state.fortunes[rank].health.is_good(now) =>
            {
                VecDeque::from([rank])
            }
            Some(_) => VecDeque::new(),
            None => self.candidates(&state, now),
        };
        let started = self.start_race(&mut state, wanted, now);
        let connecting =
            state.race.is_some() || state.fortunes.iter().any(|fortune| fortune.connecting);
        let hopeless = match (best, state.down) {
            (Some(_), _) => None,
            // Where a place is taken by a session that ends with its last answers, whoever waits has it then.
            (None, None) => (!connecting && !state.is_any_retired()).then(|| state.failure()),
            // They are known to be away: a race may show that they are back, but is not waited for in full.
            (None, Some((failure, _))) => {
                let recent = |race: &Race| now < race.began + GRACE;
                (!state.race.as_ref().is_some_and(recent)).then_some(failure)
            }
        };
        let mut resort = None;
        if hopeless.is_some() {
            if !connecting {
                queries.extend(state.waiting.drain(..));
            }
            // What is pending on a silent session has a hope left.
            queries.retain(|query| !query.is_pending());
            resort = state.last_resort();
        } else if ahead {
            state.put_back(queries);
        } else {
            state.waiting.extend(queries.drain(..));
        }
        self.move_on(&mut state, now);
        drop(state);
        if started {
            self.send_racer();
        }
        if let Some(open) = resort {
            open.session.send(queries, now);
        }
        if let Some(failure) = hopeless {
            self.fail(queries.drain(..), failure, now, replies);
        }
    }

    /// Sends what waits, as far as the sessions have room. Under the lock: nobody may find the line empty meanwhile and
    /// leave it to itself.
    fn move_on(&self, state: &mut State, now: Instant) {
        let (mut batch, mut full) = (Vec::new(), 0);
        while let Some(open) = state.best(full) {
            batch.extend(state.waiting.drain(..));
            if batch.is_empty() {
                return;
            }
            if open.session.send(&mut batch, now) == Sent::Full {
                full += 1;
            }
        }
        state.put_back(&mut batch);
    }

    /// Ends queries without an answer.
    fn fail(
        &self,
        queries: impl IntoIterator<Item = Arc<Query>>,
        failure: Failure,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        for query in queries.into_iter().filter(|query| query.claim()) {
            self.end(&query, Err(failure), now, replies);
        }
    }

    /// Ends a query that was claimed.
    fn end(
        &self,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        self.settle.settle(query, ending, now, replies);
        self.unended.fetch_sub(1, Ordering::SeqCst);
    }

    /// A session that has ended is no longer looked at.
    fn forget(&self, session: &Arc<Session>) {
        self.state
            .lock()
            .sessions
            .retain(|open| !Arc::ptr_eq(&open.session, session));
    }

    /// Whom a race should be between when there is no session: those in good health, else all that may be probed.
    fn candidates(&self, state: &State, now: Instant) -> VecDeque<usize> {
        if state.down.is_some_and(|(_, until)| now < until) {
            return VecDeque::new();
        }
        // One more than there may be for good: it is to replace one that is silent.
        let free =
            |rank: &usize| !state.fortunes[*rank].connecting && state.count(*rank) <= self.sessions;
        let good = |rank: &usize| state.fortunes[*rank].health.is_good(now);
        let ranks = 0..self.targets.len();
        let healthy: VecDeque<_> = ranks.clone().filter(free).filter(good).collect();
        if healthy.is_empty() {
            ranks
                .filter(free)
                .filter(|rank| state.fortunes[*rank].health.may_probe(now))
                .collect()
        } else {
            healthy
        }
    }

    /// A query that goes to a less preferred target lets the more preferred ones show whether they serve again.
    fn start_taking_back(&self, state: &mut State, rank: usize, now: Instant) -> bool {
        if rank == 0 || state.race.is_some() {
            return false;
        }
        let better = |rank: &usize| {
            let fortune = &state.fortunes[*rank];
            !fortune.connecting && fortune.health.is_good(now)
        };
        let candidates = (0..rank).filter(better).collect();
        self.start_race(state, candidates, now)
    }

    /// Starts a race, if there is somebody to run, or adds to the one that is on. Whether a racer must be sent.
    fn start_race(&self, state: &mut State, mut candidates: VecDeque<usize>, now: Instant) -> bool {
        match &mut state.race {
            Some(race) => {
                candidates
                    .retain(|rank| !race.entered.contains(rank) && !race.candidates.contains(rank));
                race.candidates.append(&mut candidates);
                false
            }
            None if candidates.is_empty() => false,
            None => {
                state.races += 1;
                state.race = Some(Race {
                    number: state.races,
                    began: now,
                    candidates,
                    entered: Vec::new(),
                    next: now + STAGGER,
                    running: 0,
                    failure: Failure::Unreachable,
                });
                true
            }
        }
    }

    /// Has a worker enter the race.
    fn send_racer(self: &Arc<Self>) {
        let attempt = Attempt {
            upstream: Some(Arc::clone(self)),
        };
        match self.hands.get().and_then(Weak::upgrade) {
            Some(hands) => hands.take(attempt),
            None => drop(attempt),
        }
    }

    /// Connects to one candidate of the race after the other, until one is connected and proved or none is left.
    fn run_race(self: &Arc<Self>) {
        let mut replies = ReplyBatch::default();
        while let Some(entry) = self.enter_race() {
            let target = &self.targets[entry.rank];
            let began = clock::now();
            let connected = thread::guard("connect", || {
                Session::connect(
                    target.address,
                    &entry.identity,
                    entry.window,
                    entry.deadline,
                )
            });
            let opened = match connected {
                Some(Ok((session, reader))) => {
                    let took = clock::now().saturating_duration_since(began);
                    let kind = usize::from(session.agreement().resumed);
                    self.tally.handshakes[kind].observe(took, 1);
                    self.open(entry.rank, session, reader)
                }
                Some(Err(error)) => {
                    self.tally.count_failure(&error);
                    Err(Some(error))
                }
                None => Err(None),
            };
            self.leave_race(&entry, opened);
        }
        self.end_lost_race(&mut replies);
        replies.send();
    }

    /// The next candidate, if there is a race with one left.
    fn enter_race(&self) -> Option<RaceEntry> {
        let mut state = self.state.lock();
        if self.stopped.load(Ordering::Acquire) {
            return None;
        }
        let State { race, fortunes, .. } = &mut *state;
        if fortunes.iter().filter(|fortune| fortune.connecting).count() >= RACERS {
            return None;
        }
        let race = race.as_mut()?;
        let rank = loop {
            let rank = race.candidates.pop_front()?;
            if !fortunes[rank].connecting {
                break rank;
            }
        };
        race.entered.push(rank);
        race.running += 1;
        race.next = clock::now() + STAGGER;
        fortunes[rank].connecting = true;
        let window = fortunes[rank].window.unwrap_or(PENDING);
        Some(RaceEntry {
            race: race.number,
            rank,
            identity: self.targets[rank].identity(),
            window,
            deadline: clock::now() + self.timeout,
        })
    }

    /// Gives a session its thread.
    fn open(
        self: &Arc<Self>,
        rank: usize,
        session: Arc<Session>,
        reader: Reader,
    ) -> Result<Open, Option<ConnectError>> {
        let open = Open { rank, session };
        debug!(
            "event=session-opened resolver={} {}",
            open.session.address(),
            open.session.agreement()
        );
        let (upstream, read) = (Arc::clone(self), open.clone());
        match thread::spawn("session", move || upstream.read_answers(&read, reader)) {
            Ok(_) => Ok(open),
            Err(cause) => {
                error!("event=no-thread for=session cause=\"{cause}\"");
                Err(None)
            }
        }
    }

    /// Takes note of how a candidate did. The first that is connected ends the race, and what waits goes out.
    fn leave_race(self: &Arc<Self>, entry: &RaceEntry, opened: Result<Open, Option<ConnectError>>) {
        let now = clock::now();
        let rank = entry.rank;
        let mut state = self.state.lock();
        state.fortunes[rank].connecting = false;
        if self.stopped.load(Ordering::Acquire) {
            drop(state);
            if let Ok(open) = opened {
                open.session.close();
            }
            return;
        }
        let mut race = state.race.take();
        let identity = self.targets[rank].identity();
        let outdated = !identity.is(&entry.identity)
            && match &opened {
                Ok(open) => !open.session.fits(&identity),
                Err(error) => matches!(error, Some(ConnectError::Identity(_))),
            };
        if let Some(race) = race.as_mut().filter(|race| race.number == entry.race) {
            race.running -= 1;
            if outdated {
                // The pins were changed meanwhile: what came of the others says nothing.
                race.candidates.push_front(rank);
            } else if matches!(opened, Err(Some(ConnectError::Identity(_)))) {
                race.failure = Failure::Unproved;
            }
        }
        if outdated {
            state.race = race;
            drop(state);
            if let Ok(open) = opened {
                open.session.close();
            }
            return;
        }
        let open = match opened {
            Ok(open) if open.session.is_good() => open,
            // One that has ended already is as good as none.
            other => {
                state.race = race;
                let error = other.err().flatten();
                let unproved = matches!(error, Some(ConnectError::Identity(_)));
                let fault = if unproved {
                    Fault::Unproved
                } else {
                    Fault::Unreachable
                };
                let fortune = &mut state.fortunes[rank];
                fortune.health.fail(fault, random_octet(), now);
                let complaint = error.as_ref().map(ToString::to_string).unwrap_or_default();
                let news = fortune.complaint != complaint;
                fortune.complaint.clone_from(&complaint);
                drop(state);
                if let Some(error) = error {
                    self.complain(rank, &error, news);
                }
                return;
            }
        };
        state.fortunes[rank].complaint.clear();
        if state.best(0).is_some_and(|best| best.rank < rank) || state.count(rank) > self.sessions {
            // It came late, and another one serves.
            state.race = race;
            drop(state);
            return open.session.close();
        }
        // Whoever is more preferred and still connecting is slower: it need not be tried again at once if it fails.
        let slower = state.fortunes[..rank]
            .iter_mut()
            .filter(|fortune| fortune.connecting);
        slower.for_each(|fortune| fortune.health.lose(now));
        state.down = None;
        let address = open.session.address();
        let news = state.serving.replace(address) != Some(address);
        let description = open.session.agreement();
        // They go on with what they have, on their own threads, and end.
        let worse: Vec<_> = state
            .sessions
            .iter()
            .filter(|other| other.rank > rank)
            .cloned()
            .collect();
        let proof = open.session.proof().clone();
        state.fortunes[rank].shown = Some(Shown::of(&proof));
        state.sessions.push(open);
        self.move_on(&mut state, now);
        drop(state);
        self.doubt(address, &identity, &proof);
        if news {
            let name = identity.name().to_str();
            info!("event=resolver-serves resolver={address} name={name} {description}");
        }
        worse.iter().for_each(|other| other.session.retire());
    }

    /// Counts and says what a session was opened without.
    fn doubt(&self, address: SocketAddr, identity: &Identity, proof: &Proof) {
        let (name, pins) = (identity.name().to_str(), &identity.terms().pins);
        if !pins.is_empty() && fit(&proof.keys, identity.terms()).is_none() {
            self.tally.doubts.unpinned.increment();
            let shown = proof.keys.iter().copied().collect::<PinSet>();
            warn!(
                "event=resolver-unpinned resolver={address} name={name} expected=\"{pins}\" shown_pins=\"{shown}\""
            );
        }
        if !proof.clock_suspect {
            let now = clock::since_1970().as_secs();
            self.good_time.store(now, Ordering::Relaxed);
        } else {
            self.tally.doubts.clock.increment();
            warn!(
                "event=clock-suspect resolver={address} name={name} cause=\"this machine's clock is behind the time at \
                 which dns-tool was built or last knew the time; a pin stands in for it\""
            );
        }
    }

    /// A race in which nobody runs any more and nobody is left to run is lost: what waits for it fails.
    fn end_lost_race(&self, replies: &mut ReplyBatch) {
        let mut state = self.state.lock();
        let lost = state
            .race
            .as_ref()
            .is_some_and(|race| race.running == 0 && race.candidates.is_empty());
        if !lost {
            return;
        }
        let failure = state
            .race
            .take()
            .map_or(Failure::Unreachable, |race| race.failure);
        if state.best(0).is_some() {
            // It was about a better or another session; there is one to go on with.
            return;
        }
        let now = clock::now();
        let probes = state
            .fortunes
            .iter()
            .any(|fortune| fortune.health.may_probe(now));
        let first_due = state
            .fortunes
            .iter()
            .filter_map(|fortune| fortune.health.held_back_until())
            .min();
        let until = if probes {
            now + HOLD_OFF
        } else {
            first_due.unwrap_or(now + HOLD_OFF)
        };
        state.down = Some((failure, until));
        state.serving = None;
        let mut waiting = std::mem::take(&mut state.waiting);
        drop(state);
        // What is pending on a silent session has a hope left.
        waiting.retain(|query| !query.is_pending());
        self.fail(waiting, failure, now, replies);
    }

    /// The session's thread: delivers answers until the session ends, then sees to the queries that are left.
    fn read_answers(self: &Arc<Self>, open: &Open, mut reader: Reader) {
        let mut replies = ReplyBatch::default();
        let pulse = Pulse::new("session");
        let closed = thread::guard("session", || {
            loop {
                match reader.read() {
                    Ok(answers) => {
                        let (mut answered, mut hedged) = (false, false);
                        let now = clock::now();
                        pulse.works(now);
                        for (query, answer, took) in answers {
                            answered = true;
                            self.tally.exchanges.observe(took, 1);
                            hedged |= query.is_hedged();
                            self.deliver(&open.session, &query, answer, now, &mut replies);
                        }
                        replies.send();
                        if answered {
                            self.note_answers(open, hedged);
                        }
                        pulse.waits();
                    }
                    Err(closed) => break closed,
                }
            }
        });
        self.tally.count_end(closed.as_ref());
        if let Some(closed) = closed {
            debug!(
                "event=session-closed resolver={} cause=\"{closed}\"",
                open.session.address()
            );
        }
        // In this order: whoever registers the session sees either that it has ended, or that it is forgotten.
        let rest = reader.finish();
        self.forget(&open.session);
        self.ask_again(open.rank, rest, &mut replies);
        replies.send();
    }

    /// Ends `query` with what the resolver answered. A panic at it costs this answer alone, and its clients hear of it.
    fn deliver(
        &self,
        session: &Session,
        query: &Query,
        answer: &[u8],
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let delivered = thread::guard("session", || {
            let answer = Answer::parse(answer);
            if let Some(keepalive) = answer.as_ref().ok().and_then(Answer::keepalive) {
                session.keep_alive(keepalive);
            }
            let ending = answer.as_ref().map_err(|_| Failure::Unreadable);
            self.end(query, ending, now, replies);
        });
        if delivered.is_none() {
            thread::guard("session", || {
                self.end(query, Err(Failure::Unreadable), now, replies);
            });
        }
    }

    /// A session has answered, and what waits may find room now. If it answered what is pending on another one as well
    /// (`hedged`), those that are silent have lost; an answer to something else would not show that they are dead.
    fn note_answers(&self, open: &Open, hedged: bool) {
        let mut state = self.state.lock();
        state.fortunes[open.rank].vain = 0;
        state.fortunes[open.rank].health.succeed();
        self.move_on(&mut state, clock::now());
        let silent: Vec<_> = state
            .sessions
            .iter()
            .filter(|other| hedged && other.session.is_suspect())
            .cloned()
            .collect();
        drop(state);
        for other in silent {
            debug!("event=session-silent resolver={}", other.session.address());
            other.session.close();
        }
    }

    /// Asks once more what an ended session left without an answer, as far as the budget allows, and learns from how it ended.
    fn ask_again(self: &Arc<Self>, rank: usize, rest: Rest, replies: &mut ReplyBatch) {
        let now = clock::now();
        let vain = rest.answered == 0 && (rest.expired || !rest.queries.is_empty());
        let mut state = self.state.lock();
        let fortune = &mut state.fortunes[rank];
        if vain {
            fortune.vain += 1;
            if fortune.vain > MOST_VAIN {
                fortune.health.fail(Fault::Unreachable, random_octet(), now);
                let others = state
                    .fortunes
                    .iter()
                    .any(|fortune| fortune.health.is_good(now));
                if state.best(0).is_none() && !others {
                    state.down = Some((Failure::Unreachable, now + HOLD_OFF));
                }
            }
        } else {
            // It takes so many on a session: the next gets no more, until it has answered them twice over. One that ended
            // when nothing was pending says nothing of that.
            fortune.window = (!rest.queries.is_empty()).then_some(rest.answered.min(PENDING));
        }
        let (mut again, lost): (Vec<_>, Vec<_>) = rest
            .queries
            .into_iter()
            .partition(|query| query.may_ask_again(vain));
        let too_many = again.split_off(self.take_tokens(again.len(), now));
        if self.stopped.load(Ordering::Acquire) {
            drop(state);
            self.fail(again, Failure::Broken, now, replies);
        } else if !again.is_empty() || !state.waiting.is_empty() {
            self.wait_in_line(state, &mut again, true, replies, now);
        } else {
            drop(state);
        }
        self.fail(lost, Failure::Broken, now, replies);
        self.fail(too_many, Failure::Overloaded, now, replies);
    }

    /// The timer's thread.
    fn look_for_ever(self: &Arc<Self>) {
        let mut replies = ReplyBatch::default();
        let pulse = Pulse::new("timer");
        let mut was_quiet = false;
        while !self.stopped.load(Ordering::Acquire) {
            if self.retired.load(Ordering::SeqCst) && self.unended.load(Ordering::SeqCst) == 0 {
                return self.stop();
            }
            let now = clock::now();
            pulse.works(now);
            let (next, idle_until) = self.look(now, &mut replies);
            replies.send();
            pulse.waits();
            if let Some(next) = next {
                was_quiet = false;
                park_timeout(
                    next.saturating_duration_since(now)
                        .clamp(TICKS.0, TICKS.1.min(self.timeout / 4)),
                );
            } else if !was_quiet {
                // Whatever is asked from now on has at least this long. So a query now and then costs no wake-up.
                was_quiet = true;
                park_timeout(TICKS.1.min(self.timeout / 4));
            } else {
                was_quiet = false;
                self.timer_rests.store(true, Ordering::SeqCst);
                // In this order: whoever has something for it sees that it rests, or is seen here.
                let waits = |race: &Race| !race.candidates.is_empty();
                let races = self.state.lock().race.as_ref().is_some_and(waits);
                if self.unended.load(Ordering::SeqCst) == 0
                    && !self.retired.load(Ordering::SeqCst)
                    && !races
                {
                    match idle_until {
                        Some(until) => park_timeout(until.saturating_duration_since(now)),
                        None => park(),
                    }
                }
                self.timer_rests.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Ends what is late, has those looked after that wait, asks elsewhere what waits on silent sessions, closes idle ones
    /// and sends the next racer.
    /// Returns when to look again: for what is under way, and for sessions that are idle.
    fn look(
        self: &Arc<Self>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) -> (Option<Instant>, Option<Instant>) {
        self.watch_for_suspend(replies, now);
        let (mut expired, mut due) = (Vec::new(), Vec::new());
        let mut state = self.state.lock();
        state.waiting.retain(|query| {
            let late = query.deadline() <= now;
            if late && query.claim() {
                expired.push(Arc::clone(query));
            }
            !late
        });
        due.extend(
            state
                .waiting
                .iter()
                .filter(|query| query.due() <= now)
                .cloned(),
        );
        let mut next = state
            .waiting
            .iter()
            .map(|query| query.due())
            .filter(|at| *at > now)
            .min();
        let mut racer_due = None;
        let mut send_racer = false;
        if let Some(race) = state
            .race
            .as_mut()
            .filter(|race| !race.candidates.is_empty())
        {
            send_racer = race.next <= now;
            if send_racer {
                race.next = now + STAGGER;
            }
            racer_due = Some(race.next);
        }
        let sessions = state.sessions.clone();
        drop(state);
        next = next.into_iter().chain(racer_due).min();
        let mut idle_until: Option<Instant> = None;
        let patience = (self.least_patience, self.timeout / 3);
        for open in &sessions {
            let look = open.session.look(now, patience, &mut expired, &mut due);
            if let Some(silent) = look.silent {
                self.hedge(open, silent, replies, now);
            }
            next = next.into_iter().chain(look.next).min();
            idle_until = idle_until.into_iter().chain(look.idle_until).min();
        }
        // What is late has left room, and what could not be written before has left now, perhaps.
        self.move_on(&mut self.state.lock(), now);
        for query in expired {
            self.end(&query, Err(Failure::TimedOut), now, replies);
        }
        for query in due.iter().filter(|query| !query.is_claimed()) {
            self.settle.look_after(query, now, replies);
            next = next.into_iter().chain([query.due()]).min();
        }
        if send_racer {
            self.send_racer();
        }
        (next, idle_until)
    }

    /// Asks on another session, old or new, what waits on a silent one, as far as the budget allows; the rest waits on where
    /// it is. Whichever answers first is right.
    fn hedge(
        self: &Arc<Self>,
        open: &Open,
        mut silent: Silent,
        replies: &mut ReplyBatch,
        now: Instant,
    ) {
        if silent.queries.is_empty() {
            return;
        }
        if !silent.answered {
            // It was silent from the start: others are asked first.
            let health = &mut self.state.lock().fortunes[open.rank].health;
            health.fail(Fault::Unreachable, random_octet(), now);
        }
        debug!("event=session-suspect resolver={}", open.session.address());
        let affordable = self.take_tokens(silent.queries.len(), now);
        silent.queries.truncate(affordable);
        silent.queries.iter().for_each(|query| query.hedge());
        self.ask(&mut silent.queries, true, replies, now);
    }

    /// After a suspend no session can be trusted to live: the network has changed, and the resolver has closed what was
    /// idle. Seen by the clock that goes on during a suspend.
    fn watch_for_suspend(self: &Arc<Self>, replies: &mut ReplyBatch, now: Instant) {
        let suspended = time_suspended();
        if suspended < self.suspended.load(Ordering::Relaxed) + SUSPEND {
            return;
        }
        // Whoever comes second waits until nobody's time is over for that.
        let _alone = self.resuming.lock();
        let before = self.suspended.load(Ordering::Relaxed);
        if suspended < before + SUSPEND {
            return;
        }
        info!("event=suspended milliseconds={}", suspended - before);
        // The clients' time stood still as well.
        let pause = Duration::from_millis(suspended - before);
        let state = self.state.lock();
        let mut queries: Vec<_> = state.waiting.iter().cloned().collect();
        let sessions = state.sessions.clone();
        drop(state);
        queries.extend(sessions.iter().flat_map(|open| open.session.queries()));
        // A query may be pending on two sessions, and some came after the suspend.
        let mut extended = HashSet::new();
        for query in queries {
            let before_it = now.saturating_duration_since(query.began()) >= pause;
            if before_it && extended.insert(Arc::as_ptr(&query).addr()) {
                query.extend(pause);
            }
        }
        self.suspended.store(suspended, Ordering::Relaxed);
        for open in &sessions {
            if open.session.is_idle() {
                open.session.close();
            } else {
                self.hedge(open, open.session.suspect(), replies, now);
            }
        }
    }

    fn wake_timer(&self) {
        if self.timer_rests.load(Ordering::SeqCst)
            && let Some(timer) = self.timer.get()
        {
            timer.unpark();
        }
    }

    /// Takes no more queries, and stops when those that it has have ended: on the sessions that they are on, or another one
    /// if need be.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        if let Some(timer) = self.timer.get() {
            timer.unpark();
        }
    }

    /// Closes the sessions, and opens no more. Nobody waits for an answer any more.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        self.stopped.store(true, Ordering::Release);
        let sessions = std::mem::take(&mut state.sessions);
        if let Some(race) = &mut state.race {
            race.candidates.clear();
        }
        drop(state);
        sessions.iter().for_each(|open| open.session.close());
        if let Some(timer) = self.timer.get() {
            timer.unpark();
        }
    }

    /// Says once what is wrong with an address. Not under the lock: a log that nobody reads must not stop the service.
    fn complain(&self, rank: usize, error: &ConnectError, news: bool) {
        let target = &self.targets[rank];
        let (address, identity) = (target.address, target.identity());
        let name = identity.name().to_str();
        match error {
            _ if !news => debug!("event=resolver-still-away resolver={address}"),
            ConnectError::Identity(_) => {
                error!("event=resolver-refused resolver={address} name={name} {error}");
            }
            _ => warn!("event=resolver-unreachable resolver={address} name={name} {error}"),
        }
    }
}

impl State {
    /// The session that new queries go to: of the most preferred target, the oldest but for the first `full`, which have no
    /// room.
    fn best(&self, full: usize) -> Option<Open> {
        let good = || self.sessions.iter().filter(|open| open.session.is_good());
        let rank = good().map(|open| open.rank).min()?;
        good().filter(|open| open.rank == rank).nth(full).cloned()
    }

    /// Queries that waited, or were asked before, come first, in their order.
    fn put_back(&mut self, queries: &mut Vec<Arc<Query>>) {
        queries
            .drain(..)
            .rev()
            .for_each(|query| self.waiting.push_front(query));
    }

    /// How many sessions there are to a target.
    fn count(&self, rank: usize) -> usize {
        self.sessions
            .iter()
            .filter(|open| open.rank == rank)
            .count()
    }

    /// How many of them take queries.
    fn count_good(&self, rank: usize) -> usize {
        self.sessions
            .iter()
            .filter(|open| open.rank == rank && open.session.is_good())
            .count()
    }

    /// Whether a session is about to end: its thread will see to those that wait.
    fn is_any_retired(&self) -> bool {
        self.sessions.iter().any(|open| open.session.is_retired())
    }

    /// A silent session, which may still wake up, when no other can be had.
    fn last_resort(&self) -> Option<Open> {
        self.sessions
            .iter()
            .find(|open| open.session.is_suspect())
            .cloned()
    }

    /// How it went where nobody can be tried.
    fn failure(&self) -> Failure {
        let unproved = self
            .fortunes
            .iter()
            .any(|fortune| fortune.health.is_unproved());
        if unproved {
            Failure::Unproved
        } else {
            Failure::Unreachable
        }
    }
}

impl Attempt {
    /// Connects, which may take as long as a query may, and lets go of the queries that wait.
    pub fn run(mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.run_race();
        }
    }
}

impl Drop for Attempt {
    /// Nobody could run it: the race goes on without it, and is lost if nobody else runs.
    fn drop(&mut self) {
        let Some(upstream) = self.upstream.take() else {
            return;
        };
        if let Some(race) = upstream
            .state
            .lock()
            .race
            .as_mut()
            .filter(|race| race.running == 0)
        {
            race.candidates.clear();
        }
        let mut replies = ReplyBatch::default();
        upstream.end_lost_race(&mut replies);
        replies.send();
    }
}

/// For how many milliseconds the machine was suspended so far.
fn time_suspended() -> u64 {
    u64::try_from(clock::suspended().as_millis()).unwrap_or(u64::MAX)
}

fn random_octet() -> u8 {
    let mut octet = [128];
    // Without a random number the wait is its middle.
    let _ = SystemRandom::new().fill(&mut octet);
    octet[0]
}
