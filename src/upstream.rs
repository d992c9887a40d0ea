//! Whom do we ask?
//!
//! One session at a time, to the first address of the most preferred resolver that can be reached and proves its
//! identity. A query that finds no session waits in a bounded list, and whoever brought it is handed an [`Attempt`]: a
//! pool worker runs that, and connects. A timer gives up on queries whose deadline has passed. Never is a query sent
//! anywhere but into a session whose resolver is proved.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use parking_lot::Mutex;

use crate::client::Departures;
use crate::identity::Identity;
use crate::session::{ConnectError, Query, Reader, Sent, Session};
use crate::thread;

/// Queries that may wait for a session at a time.
const WAITING: usize = 4096;
/// How long after a failure to connect queries fail at once, before the next of them may try again.
const HOLD_OFF: Duration = Duration::from_millis(250);
/// The timer looks at deadlines no more often than this, and while queries are pending no less often than the other.
const TICKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

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
    /// The time for a connection: TCP, TLS and all checks.
    pub timeout: Duration,
}

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its deadline passed.
    TimedOut,
    /// No resolver could be reached, or the connection broke twice.
    Unreachable,
    /// What was reached did not prove that it is the resolver that was meant.
    Unproved,
    /// More queries are pending than may be.
    Overloaded,
}

/// What becomes of queries in the end. Called by the thread that knows it, which sends `departures` afterwards.
pub trait Settle: Send + Sync {
    /// `query` has ended: with the octets of an answer that matches it, or without.
    fn settle(&self, query: Query, ending: Result<&[u8], Failure>, departures: &mut Departures);
}

/// The resolvers and the session to one of them.
pub struct Upstream {
    targets: Vec<Target>,
    timeout: Duration,
    settle: Arc<dyn Settle>,
    state: Mutex<State>,
    timer: OnceLock<std::thread::Thread>,
    /// The timer sleeps until it is woken, since no query is pending.
    timer_rests: AtomicBool,
    stopped: AtomicBool,
}

/// One address of a resolver.
struct Target {
    address: SocketAddr,
    identity: Identity,
    /// What was last logged of it, so that it is said once and not with every attempt.
    complaint: Mutex<String>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    connecting: bool,
    waiting: Vec<Query>,
    /// The last attempt failed like this; until then, none is made.
    failure: Option<(Instant, Failure)>,
    /// Where the next attempt begins: behind an address that used up the time of the last one.
    first: usize,
    /// What the log said last: the address that serves, if one does.
    serving: Option<SocketAddr>,
}

/// The right to connect, and the duty: queries wait for its outcome. Dropped without having run, it fails them.
#[must_use = "queries wait until it has run"]
pub struct Attempt {
    upstream: Arc<Upstream>,
    ran: bool,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").finish_non_exhaustive()
    }
}

impl Upstream {
    /// Nobody is connected to yet; `settle` is told what becomes of each query.
    ///
    /// Fails when the system has no thread for the timer.
    pub fn start(settings: Settings, settle: Arc<dyn Settle>) -> io::Result<Arc<Self>> {
        let targets = settings.resolvers.into_iter().flat_map(
            |Resolver {
                 addresses,
                 identity,
             }| {
                addresses.into_iter().map(move |address| Target {
                    address,
                    identity: identity.clone(),
                    complaint: Mutex::default(),
                })
            },
        );
        let upstream = Arc::new(Self {
            targets: targets.collect(),
            timeout: settings.timeout,
            settle,
            state: Mutex::default(),
            timer: OnceLock::new(),
            timer_rests: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let timed = Arc::clone(&upstream);
        let timer = thread::spawn_for_good("timer", move || timed.expire_for_ever())?;
        upstream
            .timer
            .set(timer.thread().clone())
            .expect("it is set here alone");
        Ok(upstream)
    }

    /// The attempt that opens the first session before anybody asks.
    pub fn warm_up(self: &Arc<Self>) -> Option<Attempt> {
        let mut state = self.state.lock();
        let wanted = state.session.is_none() && !std::mem::replace(&mut state.connecting, true);
        wanted.then(|| Attempt {
            upstream: Arc::clone(self),
            ran: false,
        })
    }

    /// Takes over `queries`: into the session, or to wait for one. An attempt that comes back must be run, by a thread
    /// that may wait.
    pub fn submit(
        self: &Arc<Self>,
        queries: &mut Vec<Query>,
        departures: &mut Departures,
        now: Instant,
    ) -> Option<Attempt> {
        while !queries.is_empty() {
            let state = self.state.lock();
            let Some(session) = state.session.clone() else {
                return self.wait_for_session(state, queries, departures, now);
            };
            drop(state);
            match session.send(queries, now) {
                Sent::All => {}
                Sent::Full => self.fail(queries, Failure::Overloaded, departures),
                Sent::Closed => self.forget(&session),
            }
        }
        self.wake_timer();
        None
    }

    fn wait_for_session(
        self: &Arc<Self>,
        mut state: parking_lot::MutexGuard<'_, State>,
        queries: &mut Vec<Query>,
        departures: &mut Departures,
        now: Instant,
    ) -> Option<Attempt> {
        if let Some((until, failure)) = state.failure
            && now < until
        {
            drop(state);
            self.fail(queries, failure, departures);
            return None;
        }
        let room = WAITING - state.waiting.len();
        state
            .waiting
            .extend(queries.drain(..room.min(queries.len())));
        let first = !std::mem::replace(&mut state.connecting, true);
        drop(state);
        self.fail(queries, Failure::Overloaded, departures);
        self.wake_timer();
        first.then(|| Attempt {
            upstream: Arc::clone(self),
            ran: false,
        })
    }

    fn fail(&self, queries: &mut Vec<Query>, failure: Failure, departures: &mut Departures) {
        for query in queries.drain(..) {
            self.settle.settle(query, Err(failure), departures);
        }
    }

    /// A session that has ended is no longer used.
    fn forget(&self, session: &Arc<Session>) {
        let mut state = self.state.lock();
        if state
            .session
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, session))
        {
            state.session = None;
        }
    }

    /// Tries one address after the other until one is connected and proved, and has its thread.
    fn connect(self: &Arc<Self>) -> Result<Arc<Session>, Failure> {
        let first = std::mem::take(&mut self.state.lock().first);
        let deadline = Instant::now() + self.timeout;
        let mut failure = Failure::Unreachable;
        for turn in 0..self.targets.len() {
            let index = (first + turn) % self.targets.len();
            let target = &self.targets[index];
            // An address that swallows packets must leave time for the others.
            let addresses_left = u32::try_from(self.targets.len() - turn).unwrap_or(u32::MAX);
            let now = Instant::now();
            let reached_by = now + deadline.saturating_duration_since(now) / addresses_left;
            match Session::connect(target.address, &target.identity, reached_by, deadline) {
                Ok((session, reader)) => {
                    target.complaint.lock().clear();
                    debug!(
                        "event=session-opened resolver={} {}",
                        target.address,
                        session.describe()
                    );
                    let upstream = Arc::clone(self);
                    return match thread::spawn("session", move || upstream.read_answers(reader)) {
                        Ok(_) => Ok(session),
                        Err(cause) => {
                            error!("event=no-thread for=session cause=\"{cause}\"");
                            Err(Failure::Overloaded)
                        }
                    };
                }
                Err(error) => {
                    target.complain(&error);
                    if matches!(error, ConnectError::Identity(_)) {
                        failure = Failure::Unproved;
                    }
                }
            }
            if Instant::now() >= deadline {
                self.state.lock().first = (index + 1) % self.targets.len();
                break;
            }
        }
        Err(failure)
    }

    /// The session's thread: delivers answers until the session ends, then sees to the queries that are left.
    fn read_answers(self: &Arc<Self>, mut reader: Reader) {
        let session = Arc::clone(reader.session());
        let mut departures = Departures::default();
        let closed = thread::guard("session", || {
            loop {
                match reader.read() {
                    Ok(answers) => {
                        for (query, answer) in answers {
                            self.settle.settle(query, Ok(answer), &mut departures);
                        }
                        departures.leave();
                    }
                    Err(closed) => break closed,
                }
            }
        });
        if let Some(closed) = closed {
            debug!(
                "event=session-closed resolver={} cause=\"{closed}\"",
                session.address()
            );
        }
        self.forget(&session);
        // An answer that the resolver did not give is asked for once more: closing is its right, at any time (RFC 7766
        // section 6.2.4), and the client need not know.
        let (mut again, mut lost): (Vec<_>, Vec<_>) = reader
            .finish()
            .into_iter()
            .partition(|query| !query.asked_before);
        again.iter_mut().for_each(|query| query.asked_before = true);
        self.fail(&mut lost, Failure::Unreachable, &mut departures);
        let attempt = self.submit(&mut again, &mut departures, Instant::now());
        departures.leave();
        if let Some(attempt) = attempt {
            attempt.run();
        }
    }

    /// The timer's thread.
    fn expire_for_ever(&self) {
        let mut departures = Departures::default();
        let mut expired = Vec::new();
        let mut was_quiet = false;
        while !self.stopped.load(Ordering::Acquire) {
            let now = Instant::now();
            let next = self.expire(now, &mut expired);
            self.fail(&mut expired, Failure::TimedOut, &mut departures);
            departures.leave();
            match next {
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(now);
                    std::thread::park_timeout(wait.clamp(TICKS.0, TICKS.1));
                    was_quiet = false;
                }
                // Whatever is asked from now on has at least this long. So a query now and then costs no wake-up.
                None if !was_quiet => {
                    std::thread::park_timeout(self.timeout);
                    was_quiet = true;
                }
                None => {
                    self.timer_rests.store(true, Ordering::SeqCst);
                    if self.is_idle() {
                        std::thread::park();
                    }
                    self.timer_rests.store(false, Ordering::SeqCst);
                    was_quiet = false;
                }
            }
        }
    }

    /// Takes out the queries whose deadline has passed; returns the earliest deadline that has not.
    fn expire(&self, now: Instant, expired: &mut Vec<Query>) -> Option<Instant> {
        let mut state = self.state.lock();
        expired.extend(state.waiting.extract_if(.., |query| query.deadline <= now));
        let waiting = state.waiting.iter().map(|query| query.deadline).min();
        let session = state.session.clone();
        drop(state);
        let pending = session.and_then(|session| session.expire(now, expired));
        waiting.into_iter().chain(pending).min()
    }

    fn wake_timer(&self) {
        if self.timer_rests.load(Ordering::SeqCst)
            && let Some(timer) = self.timer.get()
        {
            timer.unpark();
        }
    }

    /// Whether no query is on its way.
    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty()
            && state
                .session
                .as_ref()
                .is_none_or(|session| session.pending() == 0)
    }

    /// Waits until every query has ended, at most as long as one may take, then closes the session.
    pub fn stop(&self) {
        let deadline = Instant::now() + self.timeout;
        while !self.is_idle() && Instant::now() < deadline {
            std::thread::sleep(TICKS.0);
        }
        let session = self.state.lock().session.take();
        if let Some(session) = session {
            session.close();
        }
        self.stopped.store(true, Ordering::Release);
        if let Some(timer) = self.timer.get() {
            timer.unpark();
        }
    }
}

impl Target {
    fn complain(&self, error: &ConnectError) {
        let complaint = error.to_string();
        let mut last = self.complaint.lock();
        if *last == complaint {
            return debug!("event=resolver-still-away resolver={}", self.address);
        }
        let name = self.identity.name().to_str();
        match error {
            ConnectError::Identity(_) => {
                error!(
                    "event=resolver-refused resolver={} name={name} {complaint}",
                    self.address
                );
            }
            _ => warn!(
                "event=resolver-unreachable resolver={} name={name} {complaint}",
                self.address
            ),
        }
        *last = complaint;
    }
}

impl Attempt {
    /// Connects, which may take as long as a query may, and lets go of the queries that wait.
    pub fn run(mut self) {
        self.ran = true;
        let upstream = Arc::clone(&self.upstream);
        let mut departures = Departures::default();
        match thread::guard("connect", || upstream.connect()) {
            Some(Ok(session)) => self.take_up(session, &mut departures),
            Some(Err(failure)) => self.give_up(failure, &mut departures),
            None => self.give_up(Failure::Unreachable, &mut departures),
        }
        departures.leave();
    }

    /// Puts a session to use and lets go of the queries that waited for it.
    fn take_up(&self, session: Arc<Session>, departures: &mut Departures) {
        let address = session.address();
        let mut state = self.upstream.state.lock();
        state.connecting = false;
        state.failure = None;
        let mut waiting = std::mem::take(&mut state.waiting);
        if state.serving.replace(address) != Some(address) {
            info!(
                "event=resolver-serves resolver={address} {}",
                session.describe()
            );
        }
        state.session = Some(session);
        drop(state);
        // A session that has ended already is another attempt's matter, and dropping that fails the queries: connecting
        // over and over for the same ones would be a storm.
        drop(
            self.upstream
                .submit(&mut waiting, departures, Instant::now()),
        );
    }

    fn give_up(&self, failure: Failure, departures: &mut Departures) {
        let mut state = self.upstream.state.lock();
        state.connecting = false;
        state.serving = None;
        state.failure = Some((Instant::now() + HOLD_OFF, failure));
        let mut waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.upstream.fail(&mut waiting, failure, departures);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ran {
            let mut departures = Departures::default();
            self.give_up(Failure::Unreachable, &mut departures);
            departures.leave();
        }
    }
}
