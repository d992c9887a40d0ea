//! Who does what the pool says?
//!
//! The threads: those that bring queries and open sessions, one that reads each session, and the timer. Each tells the pool what has
//! happened, under the lock, and does what it is told once the lock is given back.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Weak};
use std::thread::{park, park_timeout};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::actions::{Actions, Answered, Connect, Event, Failure, Kind, Reply};
use super::health::Fault;
use super::session::{ConnectError, Outgoing, Reader, Session};
use super::status::{Shown, fit};
use super::{CONNECT, Kin, Open, Pending, Query, Replies, SessionId, State, Upstream, Work};
use crate::identity::pin::PinSet;
use crate::identity::verifier::{Identity, Proof};
use crate::message::{Answer, answers, rcode, response_code};
use crate::system::clock;
use crate::system::thread::{self, Pulse};
use crate::telemetry::log::{debug, error, info, warn};

/// The timer looks no more often than this, and while something is under way no less often than the other.
const TICKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// A suspend of so many milliseconds makes all sessions suspect.
const SUSPEND: u64 = 1000;

impl<Q: Query> Pending for Arc<Q> {
    fn deadline(&self) -> Instant {
        Q::deadline(self)
    }

    fn due(&self) -> Instant {
        Q::due(self)
    }

    fn name(&self) -> u16 {
        hash(self.question())
    }

    fn kin(&self) -> Kin {
        Kin {
            zone: hash(zone(self.question())),
            client: self.client(),
        }
    }

    fn is_signed(&self) -> bool {
        Q::is_signed(self)
    }
}

/// Of a name without regard to case, by a key that nobody outside knows.
fn hash(name: &[u8]) -> u16 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(name.to_ascii_lowercase()) as u16
}

/// The question's name without its first label; the whole name if it has two labels or fewer.
fn zone(question: &[u8]) -> &[u8] {
    let name = question.get(..question.len().saturating_sub(4));
    let name = name.unwrap_or_default();
    let after = |name: &[u8]| {
        let length = name.first().map_or(0, |length| usize::from(*length));
        if length == 0 { name.len() } else { 1 + length }
    };
    let rest = |name: &'_ [u8]| after(name).min(name.len());
    let parent = &name[rest(name)..];
    let grandparent = &parent[rest(parent)..];
    if grandparent.len() > 1 { parent } else { name }
}

/// The right and the duty to connect: queries wait for its outcome.
#[must_use = "queries wait until it has run"]
struct Attempt<Q: Query, R: Replies + 'static> {
    /// None once it runs.
    upstream: Option<Arc<Upstream<Q, R>>>,
    connect: Connect,
}

impl<Q: Query, R: Replies> Attempt<Q, R> {
    /// Connects, which may take longer than a query may, and lets go of the queries that wait.
    fn run(mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.connect(self.connect);
        }
    }
}

impl<Q: Query, R: Replies> Drop for Attempt<Q, R> {
    /// Nobody could run it.
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            let session = self.connect.session;
            upstream.tell(|state, now, actions| {
                state.pool.failed(session, Fault::Unreachable, now, actions);
            });
        }
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Tells the pool that something has happened, and does what it says.
    pub(super) fn tell(
        self: &Arc<Self>,
        event: impl FnOnce(&mut State<Q>, Instant, &mut Actions<Arc<Q>>),
    ) {
        let (mut work, mut replies) = (Work::default(), R::default());
        let now = clock::now();
        let mut state = self.state.lock();
        event(&mut state, now, &mut work.actions);
        self.carry(state, &mut work, &mut replies, now);
        replies.send();
        self.wake_timer();
    }

    /// Does what the pool says, but for answers, which those know who read them.
    pub(super) fn carry(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State<Q>>,
        work: &mut Work<Q>,
        replies: &mut R,
        now: Instant,
    ) {
        let Work { actions, outgoing } = work;
        let closed: Vec<Open> = actions
            .closes
            .drain(..)
            .filter_map(|id| {
                let place = state.sessions.iter().position(|open| open.id == id)?;
                Some(state.sessions.swap_remove(place))
            })
            .collect();
        // Mostly all go on one.
        let first = actions.sends.first().map(|send| send.session);
        let route = first.and_then(|id| open_session(&state, id));
        let mut others: Vec<(SessionId, Arc<Session>)> = Vec::new();
        for send in &actions.sends {
            let is_known =
                Some(send.session) == first || others.iter().any(|(id, _)| *id == send.session);
            if !is_known && let Some(session) = open_session(&state, send.session) {
                others.push((send.session, session));
            }
        }
        let events: Vec<(Event, Option<Arc<Session>>)> = actions
            .events
            .drain(..)
            .map(|event| {
                (
                    event,
                    session_of(event).and_then(|id| open_session(&state, id)),
                )
            })
            .collect();
        drop(state);
        for (event, session) in events {
            self.say(event, session.as_deref(), now);
        }
        for Open { session, .. } in closed {
            session.close();
        }
        for (id, session) in first.zip(route).into_iter().chain(others) {
            let sends = actions.sends.extract_if(.., |send| send.session == id);
            outgoing.extend(sends.map(|send| Outgoing {
                id: send.id,
                form: send.form,
                query: send.query,
            }));
            session.send_together(outgoing);
        }
        // What was to go on a session that has ended since is asked again when that is known.
        actions.sends.clear();
        for (query, failure) in actions.failed.drain(..) {
            self.settle.settle(&query, Err(failure), now, replies);
        }
        for query in actions.due.drain(..) {
            if !query.has_ended() {
                self.settle.look_after(&query, now, replies);
            }
        }
        for connect in actions.connects.drain(..) {
            self.send_for(connect);
        }
    }

    /// Has a worker connect.
    fn send_for(self: &Arc<Self>, connect: Connect) {
        let attempt = Attempt {
            upstream: Some(Arc::clone(self)),
            connect,
        };
        if let Some(executor) = self.executor.get().and_then(Weak::upgrade) {
            executor.execute(Box::new(move || attempt.run()));
        }
    }

    /// Connects, and has a thread read the session.
    fn connect(self: &Arc<Self>, connect: Connect) {
        let target = &self.targets[connect.rank];
        let identity = target.identity();
        let began = clock::now();
        let deadline = began + self.timeout.max(CONNECT);
        let connected = thread::guard("connect", || {
            Session::connect(target.address, &identity, deadline)
        });
        match connected {
            Some(Ok((session, reader))) => {
                let took = clock::now().saturating_duration_since(began);
                let kind = usize::from(session.agreement().resumed);
                self.tally.handshakes[kind].observe(took, 1);
                self.take_up(connect, &identity, session, reader);
            }
            Some(Err(error)) => {
                self.tally.count_failure(&error);
                self.fail_to_connect(connect, &identity, Some(&error));
            }
            None => self.fail_to_connect(connect, &identity, None),
        }
    }

    /// Takes up a session that was opened with `identity`, if that is still what is asked for.
    fn take_up(
        self: &Arc<Self>,
        connect: Connect,
        identity: &Identity,
        session: Arc<Session>,
        reader: Reader,
    ) {
        debug!(
            "event=session-opened resolver={} {}",
            session.address(),
            session.agreement()
        );
        let open = Open {
            id: connect.session,
            rank: connect.rank,
            session,
        };
        let mut taken = false;
        self.tell(|state, now, actions| {
            let current = self.targets[open.rank].identity();
            if state.stopped {
                return;
            }
            if !current.is(identity) && !open.session.fits(&current) {
                return state.pool.outdated(open.id, now, actions);
            }
            let (upstream, read) = (Arc::clone(self), open.clone());
            if let Err(cause) =
                thread::spawn("session", move || upstream.read_answers(&read, reader))
            {
                error!("event=no-thread for=session cause=\"{cause}\"");
                return state.pool.failed(open.id, Fault::Unreachable, now, actions);
            }
            taken = true;
            state.sessions.push(open.clone());
            let log = &mut state.addresses[open.rank];
            log.complaint.clear();
            log.shown = Some(Shown::of(open.session.proof()));
            state.pool.opened(open.id, now, actions);
            let time = state.pool.query_time().as_millis() as u64;
            self.query_time.store(time, Ordering::Relaxed);
        });
        if taken {
            self.doubt(open.session.address(), identity, open.session.proof());
        } else {
            open.session.close();
        }
    }

    fn fail_to_connect(
        self: &Arc<Self>,
        connect: Connect,
        identity: &Identity,
        error: Option<&ConnectError>,
    ) {
        let is_unproved = matches!(error, Some(ConnectError::Identity(_)));
        let complaint = error.map(ToString::to_string).unwrap_or_default();
        let mut state = self.state.lock();
        let is_current = self.targets[connect.rank].identity().is(identity);
        let log = &mut state.addresses[connect.rank];
        let news = log.complaint != complaint;
        if is_current {
            log.complaint.clone_from(&complaint);
        }
        drop(state);
        if let Some(error) = error.filter(|_| is_current) {
            // Before anybody hears of it.
            self.complain(connect.rank, error, news);
        }
        self.tell(|state, now, actions| {
            if is_unproved && !self.targets[connect.rank].identity().is(identity) {
                // The pins were changed meanwhile: what came of the others says nothing.
                return state.pool.outdated(connect.session, now, actions);
            }
            let fault = if is_unproved {
                Fault::Unproved
            } else {
                Fault::Unreachable
            };
            state.pool.failed(connect.session, fault, now, actions);
        });
    }

    /// The session's thread: delivers answers until the session ends.
    fn read_answers(self: &Arc<Self>, open: &Open, mut reader: Reader) {
        let (mut work, mut replies) = (Work::default(), R::default());
        let mut said = Vec::new();
        let mut keepalive = None;
        let pulse = Pulse::new("session");
        let closed = thread::guard("session", || {
            loop {
                if let Err(closed) = reader.read() {
                    break closed;
                }
                let now = clock::now();
                pulse.works(now);
                said.clear();
                said.extend(reader.messages().map(reply));
                let matches =
                    |index: usize, query: &Arc<Q>| answers(reader.message(index), query.question());
                let mut state = self.state.lock();
                let actions = &mut work.actions;
                state.pool.answered(open.id, &said, matches, now, actions);
                let answered = std::mem::take(&mut actions.answered);
                for (query, index) in actions.kept.drain(..) {
                    query.keep(reader.message(index));
                }
                self.carry(state, &mut work, &mut replies, now);
                let mut last = None;
                for answered in &answered {
                    let answer = reader.message(answered.index);
                    last = self.deliver(answered, answer, now, &mut replies).or(last);
                }
                replies.send();
                work.actions.answered = answered;
                work.actions.answered.clear();
                if last.is_some() && last != keepalive {
                    keepalive = last;
                    self.keep_alive(open.id, last.unwrap_or_default());
                }
                pulse.waits();
            }
        });
        self.tally.count_end(closed.as_ref());
        if let Some(closed) = closed {
            let address = open.session.address();
            debug!("event=session-closed resolver={address} cause=\"{closed}\"");
        }
        open.session.close();
        self.tell(|state, now, actions| {
            state.sessions.retain(|other| other.id != open.id);
            if !state.stopped {
                state.pool.ended(open.id, now, actions);
            }
        });
    }

    fn keep_alive(self: &Arc<Self>, session: SessionId, keepalive: Duration) {
        self.tell(|state, now, actions| state.pool.keep_alive(session, keepalive, now, actions));
    }

    /// Ends a query with what the resolver answered. A panic at it costs this answer alone, and its clients hear of it. Returns for how long
    /// the resolver keeps the session, if it says so.
    fn deliver(
        &self,
        answered: &Answered<Arc<Q>>,
        answer: &[u8],
        now: Instant,
        replies: &mut R,
    ) -> Option<Duration> {
        let query = &answered.query;
        self.tally.exchanges.observe(answered.took, 1);
        let delivered = thread::guard("session", || {
            if answered.is_outage {
                query.note_outage();
            }
            let answer = Answer::parse(answer);
            let keepalive = answer.as_ref().ok().and_then(Answer::keepalive);
            let ending = answer.as_ref().map_err(|_| Failure::Unreadable);
            self.settle.settle(query, ending, now, replies);
            keepalive
        });
        if delivered.is_none() {
            thread::guard("session", || {
                self.settle
                    .settle(query, Err(Failure::Unreadable), now, replies);
            });
        }
        delivered.flatten()
    }

    /// The timer's thread.
    pub(super) fn look_for_ever(self: &Arc<Self>) {
        let (mut work, mut replies) = (Work::default(), R::default());
        let pulse = Pulse::new("timer");
        let mut was_quiet = false;
        let longest = TICKS.1.min(self.timeout / 4);
        loop {
            let now = clock::now();
            pulse.works(now);
            self.watch_for_suspend(&mut work, &mut replies, now);
            let mut state = self.state.lock();
            if state.stopped {
                return;
            }
            if state.retired && state.pool.pending() == 0 {
                drop(state);
                return self.stop();
            }
            let due = state.pool.tick(now, &mut work.actions);
            let is_under_way = state.pool.pending() > 0 || !work.actions.is_empty();
            let blocked = state.sessions.clone();
            self.carry(state, &mut work, &mut replies, now);
            replies.send();
            if is_under_way {
                // What could not be written before has left now, perhaps.
                blocked.iter().for_each(|open| open.session.flush_backlog());
            }
            drop(blocked);
            pulse.waits();
            if is_under_way {
                was_quiet = false;
                let wait = due.map_or(longest, |due| due.saturating_duration_since(now));
                park_timeout(wait.clamp(TICKS.0, longest));
            } else if !was_quiet {
                // Whatever is asked from now on has at least this long. So a query now and then costs no wake-up.
                was_quiet = true;
                park_timeout(longest);
            } else {
                was_quiet = false;
                self.rest(due, now);
            }
        }
    }

    /// The timer rests until something is due, or somebody wakes it.
    fn rest(&self, due: Option<Instant>, now: Instant) {
        self.timer_rests.store(true, Ordering::SeqCst);
        // In this order: whoever has something for it sees that it rests, or is seen here.
        let state = self.state.lock();
        let is_idle = state.pool.pending() == 0 && !state.retired && !state.stopped;
        drop(state);
        if is_idle {
            match due {
                Some(due) => park_timeout(due.saturating_duration_since(now)),
                None => park(),
            }
        }
        self.timer_rests.store(false, Ordering::SeqCst);
    }

    pub(super) fn wake_timer(&self) {
        if self.timer_rests.load(Ordering::SeqCst) {
            self.unpark_timer();
        }
    }

    pub(super) fn unpark_timer(&self) {
        if let Some(timer) = self.timer.get() {
            timer.unpark();
        }
    }

    /// After a suspend no session can be trusted to live: the network has changed, and the resolver has closed what was
    /// idle. Seen by the clock that goes on during a suspend.
    pub(super) fn watch_for_suspend(
        self: &Arc<Self>,
        work: &mut Work<Q>,
        replies: &mut R,
        now: Instant,
    ) {
        let suspended = time_suspended();
        let before = self.suspended.load(Ordering::Relaxed);
        if suspended < before + SUSPEND {
            return;
        }
        // Nobody's time is over for that before it is given more, under this lock.
        let mut state = self.state.lock();
        if self.suspended.swap(suspended, Ordering::Relaxed) != before {
            return;
        }
        // The clients' time stood still as well, if they asked before.
        let pause = Duration::from_millis(suspended - before);
        for query in state.pool.queries() {
            if now.saturating_duration_since(query.began()) >= pause {
                query.extend(pause);
            }
        }
        state.pool.suspended(now, &mut work.actions);
        info!("event=suspended milliseconds={}", suspended - before);
        self.carry(state, work, replies, now);
    }

    /// Says in the log what happened.
    fn say(&self, event: Event, session: Option<&Session>, now: Instant) {
        let name = |rank: usize| {
            let identity = self.targets[rank].identity();
            identity.name().to_str().into_owned()
        };
        let address = |rank: usize| self.targets[rank].address;
        let of_session = || {
            session.map_or_else(
                || "gone".to_owned(),
                |session| session.address().to_string(),
            )
        };
        match event {
            Event::Serves(rank, _) => {
                let description = session.map(|session| session.agreement().to_string());
                let description = description.unwrap_or_default();
                let (address, name) = (address(rank), name(rank));
                info!("event=resolver-serves resolver={address} name={name} {description}");
            }
            Event::Silent(_) => debug!("event=session-suspect resolver={}", of_session()),
            Event::Dead(_) => debug!("event=session-silent resolver={}", of_session()),
            Event::Fails(rank) => {
                let (address, name) = (address(rank), name(rank));
                warn!("event=resolver-fails resolver={address} name={name}");
            }
            Event::Well(rank) => {
                self.settle.recover(now);
                let (address, name) = (address(rank), name(rank));
                info!("event=resolver-well resolver={address} name={name}");
            }
            Event::Takes(rank, form) => {
                let without = match form {
                    crate::message::Form::Plain => "edns",
                    _ => "padding",
                };
                info!(
                    "event=resolver-takes-less resolver={} without={without}",
                    address(rank)
                );
            }
            Event::Convicted => {
                self.tally.convicted.increment();
                debug!("event=query-ends-session");
            }
            Event::Unmatched(_) => debug!("event=answer-unmatched resolver={}", of_session()),
        }
    }

    /// Counts and says what a session was opened without.
    fn doubt(&self, address: std::net::SocketAddr, identity: &Identity, proof: &Proof) {
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

fn open_session<Q>(state: &State<Q>, id: SessionId) -> Option<Arc<Session>> {
    let mut sessions = state.sessions.iter();
    let open = sessions.find(|open| open.id == id)?;
    Some(Arc::clone(&open.session))
}

fn session_of(event: Event) -> Option<SessionId> {
    match event {
        Event::Serves(_, id) | Event::Silent(id) | Event::Dead(id) | Event::Unmatched(id) => {
            Some(id)
        }
        Event::Fails(_) | Event::Well(_) | Event::Takes(..) | Event::Convicted => None,
    }
}

/// What a message is, whosever answer it may be.
fn reply(message: &[u8]) -> Reply {
    let octet = |at: usize| message.get(at).copied().unwrap_or_default();
    let kind = match response_code(message) {
        rcode::NOERROR | rcode::NXDOMAIN => Kind::Found,
        rcode::FORMERR | rcode::NOTIMP | rcode::BADVERS => Kind::Unsupported,
        rcode::SERVFAIL | rcode::REFUSED => match Answer::parse(message) {
            Ok(answer) if !answer.is_verdict() => Kind::Failed,
            _ => Kind::Verdict,
        },
        _ => Kind::Verdict,
    };
    Reply {
        id: u16::from_be_bytes([octet(0), octet(1)]),
        kind,
    }
}

/// For how many milliseconds the machine was suspended so far.
pub(super) fn time_suspended() -> u64 {
    u64::try_from(clock::suspended().as_millis()).unwrap_or(u64::MAX)
}
