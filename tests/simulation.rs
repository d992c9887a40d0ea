//! The pool of sessions, with a simulated network, resolvers and clock.
//!
//! Each seed makes a world: addresses of resolvers that are near or far, close when idle, after some answers, at some names or at random, say
//! that they keep no connection, fail everything for a while, go silent, do not know EDNS; names that are slow, dead, poisoned, lame or
//! bogus; clients that ask for them. After each step the tables must agree, and each query must end once, by its deadline, after three
//! sends at most; where a healthy address is there, queries for good names must be answered; sessions must stay within
//! their bounds.
//!
//! `SIMULATE_STEPS` says how many steps are made, `SIMULATE_SEED` with which seed it begins, `SIMULATE_SECONDS` for how long at
//! most, and `SIMULATE_TRACE` that all is printed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns_tool::identity::key_exchange::HelloSize;
use dns_tool::message::QueryForm;
use dns_tool::system::clock;
use dns_tool::upstream::actions::{
    Actions, ConnectRequest, Event, Failure, PoolSettings, Reply, ReplyKind,
};
use dns_tool::upstream::health::AddressFailure;
use dns_tool::upstream::pool::Pool;
use dns_tool::upstream::token_bucket::TokenBucket;
use dns_tool::upstream::{PoolQuery, QueryGroups, SessionId};

const TIMEOUT: Duration = Duration::from_secs(3);
/// RFC 9520 section 3.1.
const MOST_SENDS: u8 = 3;
/// How long a world lasts.
const LASTS: Duration = Duration::from_secs(40);
/// The timer is not more exact than this.
const TICK: Duration = Duration::from_millis(10);
const LONGEST_TICK: Duration = Duration::from_millis(250);
/// How long an address must have been well for it to be counted on.
const SETTLED: Duration = Duration::from_secs(31);
/// Steps of `cargo test`.
const STEPS: u64 = 1_000_000;

/// What a name does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Good,
    /// Its answer takes so many milliseconds.
    Slow(u64),
    Dead,
    /// The resolver closes at it.
    Poisoned,
    /// The first address closes at it, others answer.
    PoisonedAtFirst,
    /// The resolver fails at it, without a reason.
    Lame,
    /// The resolver says why it fails.
    Bogus,
}

#[derive(Debug, Clone, Copy)]
struct Query {
    number: u64,
    name: Name,
    groups: QueryGroups,
    began: Instant,
    deadline: Instant,
}

impl PoolQuery for Query {
    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn due(&self) -> Instant {
        self.deadline()
    }

    fn name_hash(&self) -> u16 {
        self.number as u16
    }

    fn client(&self) -> u16 {
        self.groups.client
    }

    fn groups(&self) -> QueryGroups {
        self.groups
    }

    fn is_signed(&self) -> bool {
        false
    }
}

/// What is wrong with an address for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Refuses,
    /// Nothing passes.
    Mute,
    /// It answers every query with a failure.
    Fails,
    /// It is somebody else.
    Unproved,
    /// It can be connected to, and answers nothing.
    SaysNothing,
}

/// What an address does with large hellos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LargeHellos {
    Answers,
    Ignores,
    Refuses,
}

/// An address of a resolver, and what it is like.
#[derive(Debug, Clone)]
struct Address {
    round_trip: Duration,
    connect: Duration,
    closes_idle_after: Option<Duration>,
    closes_after: Option<u32>,
    /// Of so many answers, one after which it closes.
    closes_at_random: Option<u32>,
    keeps_none: bool,
    answers_twice: bool,
    knows: QueryForm,
    large_hellos: LargeHellos,
    /// So many hellos of one packet fail at first.
    failing_small: usize,
    troubles: Vec<(Instant, Instant, Trouble)>,
    /// Sessions that are open then go silent, or are closed.
    cuts: Vec<(Instant, bool)>,
}

impl Address {
    fn calm_down(&mut self, keeps_none: bool) {
        self.keeps_none = keeps_none;
        self.troubles.clear();
        self.cuts.clear();
        self.closes_at_random = None;
        if keeps_none {
            self.closes_after = None;
        }
        self.connect = self.round_trip * 3;
        self.knows = QueryForm::Padded;
        self.large_hellos = LargeHellos::Answers;
        self.failing_small = 0;
    }

    /// Until when nothing passes, if nothing does now.
    fn is_mute_until(&self, now: Instant) -> Option<Instant> {
        let mute = self.troubles.iter().filter(|(from, until, trouble)| {
            *trouble == Trouble::Mute && *from <= now && now < *until
        });
        mute.map(|(_, until, _)| *until).max()
    }

    fn trouble(&self, now: Instant) -> Option<Trouble> {
        let mut troubles = self.troubles.iter();
        let found = troubles.find(|(from, until, _)| *from <= now && now < *until);
        found.map(|(_, _, trouble)| *trouble)
    }

    /// Whether it answers good names for all that time, and did so for long enough before. One that takes few queries on a
    /// session is not counted on where others ask for names that are `odd`: at which it closes, or that hold sessions up.
    fn is_healthy(&self, from: Instant, until: Instant, odd: bool) -> bool {
        let takes_few = self.closes_after.is_some() || self.keeps_none;
        let is_quiet = |at: Instant| at + TIMEOUT < from || at > until;
        let troubled = self
            .troubles
            .iter()
            .any(|(begin, end, _)| *begin < until && from < *end + SETTLED);
        let cut = self.cuts.iter().any(|(at, _)| !is_quiet(*at));
        let is_odd = takes_few && odd || self.closes_at_random.is_some();
        // Small hellos get through soon enough, but for where the large ones are waited for.
        let is_soon = self.large_hellos != LargeHellos::Ignores;
        !(troubled || cut || is_odd) && is_soon && self.connect < Duration::from_secs(1)
    }
}

#[derive(Debug)]
struct Session {
    rank: usize,
    hello: HelloSize,
    is_open: bool,
    /// Nothing passes any more.
    is_mute: bool,
    answered: u32,
    /// Queries that it will answer.
    owes: u32,
    busy: Instant,
}

impl Session {
    /// Whether what is sent on it arrives.
    fn passes(&self) -> bool {
        self.is_open && !self.is_mute
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Ask(usize),
    Tick(u64),
    Connected(SessionId),
    /// TCP is connected.
    HelloSent(SessionId),
    Refused(SessionId, AddressFailure),
    /// A query reaches the resolver.
    Arrives(SessionId, u16, Query, QueryForm),
    /// A message reaches us.
    Answers(SessionId, u16, u64, ReplyKind),
    /// So does a part of one.
    Dribbles(SessionId),
    Closes(SessionId),
    Idle(SessionId),
    Cut(usize, bool),
    /// The address answers large hellos from now on.
    TakesLargeHellos(usize),
    Suspend,
    /// Links, addresses or routes changed: whether sessions have lost their way.
    NetworkChanged(bool),
}

/// Somebody who asks for names of one kind.
#[derive(Debug, Clone)]
struct Client {
    every: Duration,
    /// So many queries come at a time, and accordingly seldom.
    at_once: u8,
    names: Vec<Name>,
    number: u16,
    /// The zone of all its names; without, each is in one of its own.
    zone: Option<u16>,
    until: Instant,
}

impl Client {
    /// Whether it asks for other names than good ones.
    fn is_odd(&self) -> bool {
        self.number >= 100
    }
}

struct World {
    random: fastrand::Rng,
    seed: u64,
    begin: Instant,
    now: Instant,
    steps: u64,
    addresses: Vec<Address>,
    clients: Vec<Client>,
    pool: Pool<Query>,
    actions: Actions<Query>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: HashMap<u64, Happening>,
    next: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// Queries that have not ended, and how often each was sent.
    open: HashMap<u64, (Query, u8)>,
    kept: HashMap<u64, ReplyKind>,
    last_reply: ReplyKind,
    asked: u64,
    answered: u64,
    unlucky: u64,
    /// How long the answers to good names of clients who ask for no poisoned ones took.
    waits: Vec<Duration>,
    suspends: bool,
    /// Resolvers that close after so many answers give one more at times.
    closes_late: bool,
    connects: Vec<Vec<Instant>>,
    given_back: Vec<u32>,
    /// Answers of each address.
    answers: Vec<u32>,
    /// Addresses of which the pool said that they get small hellos, since the last large one was answered.
    left_out: Vec<bool>,
    /// How many lines the pool would log about that.
    lines: usize,
    /// How many hellos of each address failed although they had one packet.
    failed_small: Vec<usize>,
    /// Whether a look of the timer's before something is due must find nothing to do: it would be late without.
    announces: bool,
    announced: Option<Instant>,
    /// The timer's next look, by number; the others are void.
    tick: u64,
    rests: bool,
    trace: bool,
}

impl World {
    fn new(seed: u64, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let begin = clock::now();
        let count = random.usize(1..=4);
        let mut addresses: Vec<_> = (0..count).map(|_| address(&mut random, begin)).collect();
        if random.u8(0..3) == 0 {
            // Nothing happens to them: what goes wrong is the names' fault, or ours.
            let keeps_none = random.bool();
            addresses.truncate(random.usize(1..=2));
            addresses
                .iter_mut()
                .for_each(|address| address.calm_down(keeps_none));
        }
        // Where a query comes to the last address it has one send left, and none to find out what that takes.
        for other in addresses.iter_mut().skip(1) {
            other.knows = QueryForm::Padded;
        }
        // Where sessions take few queries, there are not more of them than can be asked so.
        let few = addresses
            .iter()
            .any(|address| address.closes_after.is_some());
        let mut clients = clients(&mut random, begin, few);
        let poisons = |client: &Client| client.names.contains(&Name::Poisoned);
        if clients.iter().any(poisons) {
            // A query that may not say all is sent three times at first: none is left for the end of a session.
            addresses
                .iter_mut()
                .for_each(|address| address.knows = QueryForm::Padded);
        }
        let is_easy = |address: &Address| {
            address.knows == QueryForm::Padded
                && address.troubles.is_empty()
                && address.cuts.is_empty()
        };
        let is_easy = !clients.iter().any(Client::is_odd) && addresses.iter().all(is_easy);
        if few && !is_easy {
            // Three sends are not enough for many at once with all of that.
            clients.iter_mut().for_each(|client| client.at_once = 1);
        }
        let sessions = random.usize(1..=3);
        slow_down(&mut clients, &addresses, sessions);
        let mut world = Self::of(seed, random, addresses, clients, sessions, begin);
        world.closes_late = is_easy;
        // It costs as much as the rest.
        world.announces = seed.is_multiple_of(4);
        world.trace = trace;
        world
    }

    /// A world of these addresses and clients, with so many sessions to an address.
    fn of(
        seed: u64,
        mut random: fastrand::Rng,
        addresses: Vec<Address>,
        clients: Vec<Client>,
        sessions: usize,
        begin: Instant,
    ) -> Self {
        let count = addresses.len();
        let settings = PoolSettings {
            addresses: count,
            timeout: TIMEOUT,
            min_silence_timeout: Duration::from_millis(250),
            sessions,
            max_pending: 100_000,
        };
        let mut ids = random.fork();
        let budget = Arc::new(TokenBucket::new(None, begin));
        let pool = Pool::new(settings, Box::new(move || ids.u16(..)), budget, begin);
        Self {
            random,
            seed,
            begin,
            now: begin,
            steps: 0,
            connects: vec![Vec::new(); count],
            given_back: vec![0; count],
            answers: vec![0; count],
            left_out: vec![false; count],
            lines: 0,
            failed_small: vec![0; count],
            addresses,
            clients,
            pool,
            actions: Actions::default(),
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            next: 0,
            sessions: BTreeMap::new(),
            open: HashMap::new(),
            kept: HashMap::new(),
            last_reply: ReplyKind::Success,
            asked: 0,
            answered: 0,
            unlucky: 0,
            suspends: false,
            waits: Vec::new(),
            closes_late: false,
            announces: false,
            announced: None,
            tick: 0,
            rests: false,
            trace: false,
        }
    }

    fn at(&mut self, when: Instant, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((when, self.next)));
        self.happenings.insert(self.next, happening);
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    /// Lives until all is over.
    fn run(&mut self) {
        for (place, client) in self.clients.clone().iter().enumerate() {
            self.after(client.every, Happening::Ask(place));
        }
        for rank in 0..self.addresses.len() {
            for (when, is_mute) in self.addresses[rank].cuts.clone() {
                self.at(when, Happening::Cut(rank, is_mute));
            }
        }
        if self.random.u8(..) < 32 {
            self.suspends = true;
            let when = Duration::from_millis(self.random.u64(1000..30_000));
            self.after(when, Happening::Suspend);
        }
        if self.random.u8(..) < 64 {
            self.change_network();
        }
        self.pool.start(self.now, &mut self.actions);
        self.act();
        self.look();
        while let Some(Reverse((when, number))) = self.queue.pop() {
            let happening = self.happenings.remove(&number).expect("it is known");
            assert!(when >= self.now);
            self.now = when;
            if self.happen(happening) {
                self.act();
                if self.announces {
                    let due = self.pool.next_due(self.now);
                    self.announced = self.announced.into_iter().chain(due).min();
                }
                self.steps += 1;
                if self.steps.is_multiple_of(16) {
                    self.check();
                }
            }
        }
        self.check();
        assert!(
            self.open.is_empty(),
            "{}: {:?} never ended",
            self.seed,
            self.open
        );
        assert_eq!(self.pool.pending(), 0, "{}", self.seed);
        // Many that come at once have the same luck: they count as one.
        let beside = self.clients.iter().map(|client| client.at_once - 1).max();
        let beside = u64::from(beside.unwrap_or_default());
        assert!(
            self.unlucky.saturating_sub(beside) * 50 <= self.answered + 1000,
            "seed {}: {} of {} were unlucky: {:?}",
            self.seed,
            self.unlucky,
            self.answered,
            self.addresses
        );
    }

    fn check(&self) {
        if let Err(why) = self.pool.check() {
            panic!("seed {}, {:?}: {why}", self.seed, self.now - self.begin);
        }
    }

    fn happen(&mut self, happening: Happening) -> bool {
        if self.trace {
            eprintln!("{:?} {happening:?}", self.now - self.begin);
        }
        match happening {
            Happening::Ask(client) => self.ask(client),
            Happening::Tick(number) if number != self.tick => return false,
            Happening::Tick(_) => self.look(),
            Happening::Connected(session) => {
                // The pool may have given it up.
                let opened = self.sessions.get_mut(&session).map(|known| {
                    known.is_open = true;
                    (known.rank, known.hello)
                });
                self.pool
                    .session_opened(session, self.now, &mut self.actions);
                self.watch_idle(session);
                if let Some((rank, hello)) = opened {
                    self.assert_said(session, rank, hello);
                }
            }
            Happening::HelloSent(session) => {
                self.pool.hello_sent(session, self.now, &mut self.actions);
            }
            Happening::Refused(session, fault) => {
                self.pool
                    .connect_failed(session, fault, self.now, &mut self.actions);
            }
            Happening::Arrives(session, id, query, form) => self.arrive(session, id, query, form),
            Happening::Answers(session, id, number, kind) => self.answer(session, id, number, kind),
            Happening::Dribbles(session) => {
                self.pool
                    .replies_received(session, &[], |_, _| false, self.now, &mut self.actions);
            }
            Happening::Closes(session) => {
                self.count_end(session);
                self.pool
                    .session_ended(session, self.now, &mut self.actions);
                self.sessions.remove(&session);
            }
            Happening::Idle(session) => self.close_idle(session),
            Happening::Cut(rank, is_mute) => self.cut(rank, is_mute),
            Happening::TakesLargeHellos(rank) => {
                self.addresses[rank].large_hellos = LargeHellos::Answers;
            }
            Happening::Suspend => {
                self.sessions
                    .values_mut()
                    .for_each(|session| session.is_mute |= session.is_open);
                self.left_out.fill(false);
                self.pool.system_resumed(self.now, &mut self.actions);
            }
            Happening::NetworkChanged(loses) => {
                let open = self.sessions.iter_mut();
                let lost = open.filter(|(_, session)| session.is_open && loses);
                let lost: Vec<_> = lost
                    .map(|(id, session)| {
                        session.is_mute = true;
                        *id
                    })
                    .collect();
                self.pool
                    .network_changed(&lost, self.now, &mut self.actions);
            }
        }
        true
    }

    /// The network changes several times, as fast as it may, and so that sessions are lost or that it makes no difference.
    fn change_network(&mut self) {
        let mut when = Duration::from_millis(self.random.u64(500..20_000));
        for _ in 0..self.random.u8(1..=10) {
            let loses = self.random.u8(0..4) == 0;
            self.suspends |= loses;
            self.after(when, Happening::NetworkChanged(loses));
            when += Duration::from_millis(self.random.u64(1000..3000));
        }
    }

    fn ask(&mut self, place: usize) {
        let client = self.clients[place].clone();
        let mut queries: Vec<_> = (0..client.at_once).map(|_| self.query(&client)).collect();
        self.pool.submit(&mut queries, self.now, &mut self.actions);
        self.wake();
        let next = (client.every * u32::from(client.at_once))
            .mul_f64(self.random.f64() * 2.0)
            .max(Duration::from_micros(50));
        if self.now + next < client.until {
            self.after(next, Happening::Ask(place));
        }
    }

    fn query(&mut self, client: &Client) -> Query {
        self.asked += 1;
        let number = self.asked;
        // Else none of those of a client.
        let zone = client
            .zone
            .unwrap_or_else(|| 1000 + (number % 60_000) as u16);
        let query = Query {
            number,
            name: client.names[self.random.usize(..client.names.len())],
            groups: QueryGroups {
                zone,
                client: client.number,
            },
            began: self.now,
            deadline: self.now + self.pool.query_time(),
        };
        self.open.insert(number, (query, 0));
        query
    }

    /// The timer looks, and says when it will again.
    fn look(&mut self) {
        let is_announced = self.announced.take().is_some_and(|at| at <= self.now);
        let due = self.pool.tick(self.now, &mut self.actions);
        assert!(
            is_announced || !self.announces || self.actions.is_empty(),
            "seed {}, {:?}: nothing was due: {:?}",
            self.seed,
            self.now - self.begin,
            self.actions
        );
        assert!(
            due.is_some() || self.pool.pending() == 0,
            "seed {}: nothing is due, and queries wait",
            self.seed
        );
        // What is due for no query goes on for ever.
        let is_over = self.pool.pending() == 0 && self.now > self.begin + LASTS;
        let due = due.filter(|_| !is_over);
        self.rests = due.is_none();
        if let Some(due) = due {
            self.tick += 1;
            let wait = due
                .saturating_duration_since(self.now)
                .clamp(TICK, LONGEST_TICK);
            self.after(wait, Happening::Tick(self.tick));
        }
    }

    /// A timer that rests is woken.
    fn wake(&mut self) {
        if std::mem::take(&mut self.rests) {
            self.tick += 1;
            self.after(TICK, Happening::Tick(self.tick));
        }
    }

    /// Does what the pool says.
    fn act(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        if self.trace {
            eprintln!("    {actions:?}");
        }
        for answered in actions.answered.drain(..) {
            self.end(&answered.query, Ok(self.last_reply));
        }
        for (query, _) in actions.fallbacks.drain(..) {
            self.kept.insert(query.number, self.last_reply);
        }
        for (query, failure) in actions.failed.drain(..) {
            let kept = self.kept.remove(&query.number);
            self.end(&query, kept.ok_or(failure));
        }
        for send in actions.sends.drain(..) {
            let (_, sends) = self
                .open
                .get_mut(&send.query.number)
                .expect("it has not ended");
            *sends += 1;
            assert!(
                *sends <= MOST_SENDS,
                "seed {}: sent {sends} times",
                self.seed
            );
            let session = self.sessions.get_mut(&send.session).expect("it is open");
            session.busy = self.now;
            let half = self.addresses[session.rank].round_trip / 2;
            self.after(
                half,
                Happening::Arrives(send.session, send.id, send.query, send.form),
            );
        }
        for session in actions.closes.drain(..) {
            self.count_end(session);
            self.sessions.remove(&session);
        }
        for connect in actions.connects.drain(..) {
            self.connect(connect);
        }
        for event in actions.events.drain(..) {
            self.assert_left_out(event);
            if self.trace && !matches!(event, Event::UnmatchedReply(_)) {
                eprintln!("    {event:?}");
            }
        }
        self.actions = actions;
    }

    /// A session with a small hello that is used is one of an address of which the pool says so.
    fn assert_said(&mut self, session: SessionId, rank: usize, hello: HelloSize) {
        for event in &self.actions.events {
            if let Event::SmallHelloNeeded(rank) = event {
                self.left_out[*rank] = true;
            }
        }
        if hello == HelloSize::Large {
            self.left_out[rank] = false;
        } else {
            assert!(
                self.left_out[rank] || self.actions.closes.contains(&session),
                "seed {}, {:?}: {session:?} of {rank} is not said",
                self.seed,
                self.now - self.begin
            );
        }
    }

    /// What the pool concludes of hellos is right.
    fn assert_left_out(&mut self, event: Event) {
        if let Event::PostQuantumLeftOut(..) | Event::PostQuantumRestored(..) = event {
            self.lines += 1;
        }
        if let Event::SmallHelloNeeded(rank) = event {
            let address = &self.addresses[rank];
            // Where connecting is slow and sessions end early, the only one left may be that of a small hello.
            let is_right = address.large_hellos != LargeHellos::Answers
                || address.connect >= Duration::from_secs(1)
                || !address.troubles.is_empty()
                || !address.cuts.is_empty();
            assert!(
                is_right,
                "seed {}: {rank} of {:?}",
                self.seed, self.addresses
            );
        }
    }

    /// A session that answered gives its token back, at most.
    fn count_end(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get(&session)
            && session.answered > 0
        {
            self.given_back[session.rank] += 1;
        }
    }

    fn connect(&mut self, request: ConnectRequest) {
        let (id, rank) = (request.session, request.rank);
        let address = self.addresses[rank].clone();
        let (round_trip, connect, trouble) = (
            address.round_trip,
            address.connect,
            address.trouble(self.now),
        );
        self.sessions.insert(
            id,
            Session {
                rank,
                hello: request.hello,
                is_open: false,
                is_mute: false,
                answered: 0,
                owes: 0,
                busy: self.now,
            },
        );
        let is_large = request.hello == HelloSize::Large;
        let failed = match is_large {
            true => AddressFailure::LargeHello,
            false => AddressFailure::Unreachable,
        };
        let is_deaf = is_large && address.large_hellos != LargeHellos::Answers;
        if is_large && !matches!(trouble, Some(Trouble::Refuses | Trouble::Mute)) {
            self.after(round_trip, Happening::HelloSent(id));
        }
        match trouble {
            Some(Trouble::Refuses) => self.after(
                round_trip,
                Happening::Refused(id, AddressFailure::Unreachable),
            ),
            Some(Trouble::Mute) => self.after(
                Duration::from_secs(10),
                Happening::Refused(id, AddressFailure::Unreachable),
            ),
            _ if is_deaf && address.large_hellos == LargeHellos::Ignores => {
                self.after(Duration::from_secs(10), Happening::Refused(id, failed));
            }
            _ if is_deaf => self.after(connect, Happening::Refused(id, failed)),
            _ if !is_large && self.failed_small[rank] < address.failing_small => {
                self.failed_small[rank] += 1;
                self.after(connect, Happening::Refused(id, failed));
            }
            Some(Trouble::Unproved) => self.after(
                connect,
                Happening::Refused(id, AddressFailure::Unauthenticated),
            ),
            Some(Trouble::Fails | Trouble::SaysNothing) | None => {
                self.after(connect, Happening::Connected(id))
            }
        }
        let begun = &mut self.connects[rank];
        begun.push(self.now);
        // Four and five at once and a second, and those that were given back. Where a session takes few queries, as many are
        // needed as there are queries.
        let elapsed = (self.now - self.begin).as_secs_f64();
        // And a token for 16 answers.
        let earned = f64::from(self.answers[rank]) / 16.0;
        let most = 9.0 + 9.0 * elapsed + f64::from(self.given_back[rank]) + 1.0 + earned;
        let takes_many = address.closes_after.is_none() && !address.keeps_none;
        assert!(
            !takes_many || begun.len() as f64 <= most,
            "seed {}: {} sessions to {rank} in {elapsed} s",
            self.seed,
            begun.len()
        );
    }

    /// The resolver has a query.
    fn arrive(&mut self, id: SessionId, query_id: u16, query: Query, form: QueryForm) {
        let Some(session) = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.passes())
        else {
            return;
        };
        session.busy = self.now;
        let rank = session.rank;
        let address = self.addresses[rank].clone();
        let trouble = address.trouble(self.now);
        if let Some(until) = address.is_mute_until(self.now) {
            // TCP sends it again.
            return self.at(until, Happening::Arrives(id, query_id, query, form));
        }
        let half = address.round_trip / 2;
        let jitter = Duration::from_micros(self.random.u64(0..5000));
        let (kind, wait) = match query.name {
            _ if form < address.knows => (ReplyKind::Unsupported, Duration::ZERO),
            _ if trouble == Some(Trouble::Fails) => (ReplyKind::ServerFailure, Duration::ZERO),
            Name::Good => (ReplyKind::Success, jitter),
            Name::Slow(milliseconds) => (ReplyKind::Success, Duration::from_millis(milliseconds)),
            _ if trouble == Some(Trouble::SaysNothing) => return,
            Name::Dead => return,
            Name::PoisonedAtFirst if rank > 0 => (ReplyKind::Success, jitter),
            Name::Poisoned | Name::PoisonedAtFirst => {
                session.is_open = false;
                return self.after(half, Happening::Closes(id));
            }
            Name::Lame => (ReplyKind::ServerFailure, jitter),
            Name::Bogus => (ReplyKind::FinalError, jitter),
        };
        session.owes += 1;
        self.after(
            wait + half,
            Happening::Answers(id, query_id, query.number, kind),
        );
        if address.answers_twice {
            self.after(
                wait + half + jitter,
                Happening::Answers(id, query_id, query.number, kind),
            );
        }
        if self.random.u8(..) == 0 {
            self.after((wait + half) / 2, Happening::Dribbles(id));
        }
    }

    /// A message of the resolver's comes, if its session is there still.
    fn answer(&mut self, id: SessionId, query_id: u16, number: u64, kind: ReplyKind) {
        let Some(session) = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.passes())
        else {
            return;
        };
        let address = &self.addresses[session.rank];
        if let Some(until) = address.is_mute_until(self.now) {
            return self.at(until, Happening::Answers(id, query_id, number, kind));
        }
        session.answered += 1;
        self.answers[session.rank] += 1;
        session.owes = session.owes.saturating_sub(1);
        session.busy = self.now;
        let answered = session.answered;
        let more = self.closes_late && self.random.bool();
        let closes = address
            .closes_after
            .is_some_and(|most| answered >= most + u32::from(more))
            || address
                .closes_at_random
                .is_some_and(|one_of| self.random.u32(0..one_of) == 0);
        let keeps_none = address.keeps_none;
        if closes {
            session.is_open = false;
            self.after(Duration::from_micros(10), Happening::Closes(id));
        }
        self.last_reply = kind;
        let replies = [Reply { id: query_id, kind }];
        let matches = |_: usize, query: &Query| query.number == number;
        self.pool
            .replies_received(id, &replies, matches, self.now, &mut self.actions);
        if keeps_none {
            self.pool
                .set_keepalive(id, Duration::ZERO, self.now, &mut self.actions);
        }
    }

    fn watch_idle(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if let Some(after) = self.addresses[session.rank].closes_idle_after {
            self.after(after, Happening::Idle(id));
        }
    }

    fn close_idle(&mut self, id: SessionId) {
        // Of one that is mute nothing is heard, and it owes its answers for ever.
        let is_heard = |session: &&mut Session| session.is_open && !session.is_mute;
        let Some(session) = self.sessions.get_mut(&id).filter(is_heard) else {
            return;
        };
        let Some(after) = self.addresses[session.rank].closes_idle_after else {
            return;
        };
        let until = session.busy + after;
        if session.owes > 0 {
            self.after(after, Happening::Idle(id));
        } else if until <= self.now {
            session.is_open = false;
            self.after(Duration::from_millis(1), Happening::Closes(id));
        } else {
            self.at(until, Happening::Idle(id));
        }
    }

    /// Sessions are cut: with a word, or without.
    fn cut(&mut self, rank: usize, is_mute: bool) {
        let all = self.sessions.iter_mut();
        let cut: Vec<_> = all
            .filter(|(_, session)| session.rank == rank && session.is_open)
            .collect();
        let mut closed = Vec::new();
        for (id, session) in cut {
            session.is_mute = true;
            if !is_mute {
                session.is_open = false;
                closed.push(*id);
            }
        }
        for id in closed {
            self.after(Duration::from_millis(1), Happening::Closes(id));
        }
    }

    /// Where nothing happens to any address, and names are slow or dead at worst, others' queries are held up by none of them.
    fn assert_not_held_up(&self, query: &Query) {
        let is_calm = |address: &Address| {
            address.is_healthy(query.began, self.now, false)
                && address.closes_after.is_none()
                && address.knows == QueryForm::Padded
        };
        if !self.addresses.iter().all(is_calm) {
            return;
        }
        let trip = |address: &Address| address.round_trip + address.connect;
        let farthest = self.addresses.iter().map(trip).max();
        // Where each answer ends a session, one may have to wait for a token.
        let wait = match self.addresses.iter().any(|address| address.keeps_none) {
            true => 1200,
            false => 600,
        };
        let most = Duration::from_millis(wait) + 2 * farthest.unwrap_or_default();
        let took = self.now - query.began;
        assert!(
            took <= most,
            "seed {}, {:?}: {query:?} was held up for {took:?}; {:?}",
            self.seed,
            self.now - self.begin,
            self.addresses
        );
    }

    /// A query has ended: once, in time, and well if it could.
    fn end(&mut self, query: &Query, ending: Result<ReplyKind, Failure>) {
        let open = self.open.remove(&query.number);
        assert!(open.is_some(), "seed {}: {query:?} ended twice", self.seed);
        let (began, until) = (query.began, query.deadline());
        let late = self.now.saturating_duration_since(until);
        assert!(
            late <= LONGEST_TICK,
            "seed {}: {query:?} ended {late:?} late",
            self.seed
        );
        let poisons = |client: &Client| client.names.contains(&Name::Poisoned);
        let odd = self.clients.iter().any(Client::is_odd);
        let is_healthy = |address: &Address| address.is_healthy(began, self.now, odd);
        let must_be_answered = match query.name {
            Name::Good => true,
            Name::Slow(milliseconds) => milliseconds < 1000,
            _ => false,
        };
        // Who asks for poisoned names asks alone for all of its own.
        let asks_too = |client: &Client| client.number == query.groups.client && poisons(client);
        let is_like_poisoned = self.clients.iter().any(asks_too);
        if ending == Ok(ReplyKind::Success) {
            self.answered += 1;
            if query.name == Name::Good && !is_like_poisoned {
                self.waits.push(self.now - began);
            }
            if query.name == Name::Good && !self.suspends && !self.clients.iter().any(poisons) {
                self.assert_not_held_up(query);
            }
        } else if must_be_answered && !is_like_poisoned && self.addresses.iter().any(is_healthy) {
            // A few may be unlucky: three sends in a row meet a cut, an address that closes at random, or a poisoned name.
            let has_been = |at: Instant| at <= self.now && self.now < at + TIMEOUT + TIMEOUT / 2;
            let bad_luck = |address: &Address| {
                address.closes_at_random.is_some()
                    || address.closes_after.is_some() && odd
                    || address.knows != QueryForm::Padded
                    || address.cuts.iter().any(|(at, _)| has_been(*at))
            };
            // Before it is known whose names end sessions, they may end each that others are on.
            let is_poisoned = self.clients.iter().any(poisons);
            if is_poisoned || self.suspends || self.addresses.iter().any(bad_luck) {
                self.unlucky += 1;
                if self.trace {
                    eprintln!("UNLUCKY {query:?} {ending:?}");
                }
                return;
            }
            panic!(
                "seed {}, {:?}: {query:?} that began {:?} before ended as {ending:?}; {:?}",
                self.seed,
                self.now - self.begin,
                self.now - began,
                self.addresses
            );
        }
    }
}

fn address(random: &mut fastrand::Rng, begin: Instant) -> Address {
    let mut maybe = |one_of: u8| random.u8(0..one_of) == 0;
    let (idle, few, at_random, keeps_none, twice, old, far) = (
        maybe(3),
        maybe(6),
        maybe(8),
        maybe(10),
        maybe(8),
        maybe(6),
        maybe(12),
    );
    let round_trip = Duration::from_micros(random.u64(200..50_000));
    let when = |random: &mut fastrand::Rng| begin + Duration::from_millis(random.u64(0..30_000));
    let troubles = (0..random.usize(0..3)).map(|_| {
        let from = when(random);
        let lasts = Duration::from_millis(random.u64(100..15_000));
        let troubles = [
            Trouble::Refuses,
            Trouble::Mute,
            Trouble::Fails,
            Trouble::Unproved,
            Trouble::SaysNothing,
        ];
        (from, from + lasts, troubles[random.usize(..5)])
    });
    let troubles = troubles.collect();
    let cuts = (0..random.usize(0..3))
        .map(|_| (when(random), random.bool()))
        .collect();
    Address {
        round_trip,
        connect: if far {
            Duration::from_secs(5)
        } else {
            round_trip * 3
        },
        closes_idle_after: idle.then(|| Duration::from_millis(random.u64(200..5000))),
        closes_after: (few && !twice).then(|| random.u32(1..30)),
        // With that and the forms that it does not take, three sends may not be enough.
        closes_at_random: (at_random && !old).then(|| random.u32(100..2000)),
        keeps_none,
        answers_twice: twice,
        knows: match random.u8(0..2) {
            0 if old => QueryForm::Unpadded,
            _ if old => QueryForm::NoEdns,
            _ => QueryForm::Padded,
        },
        large_hellos: match random.u8(0..12) {
            0 => LargeHellos::Ignores,
            1 => LargeHellos::Refuses,
            _ => LargeHellos::Answers,
        },
        failing_small: 0,
        troubles,
        cuts,
    }
}

fn clients(random: &mut fastrand::Rng, begin: Instant, few: bool) -> Vec<Client> {
    let until = begin + LASTS;
    let honest = (0..random.u16(1..4)).map(|number| Client {
        every: Duration::from_millis(if few {
            50
        } else {
            [2, 10, 50, 500][usize::from(number) % 4]
        }),
        at_once: if random.u8(0..4) == 0 { 40 } else { 1 },
        names: vec![Name::Good],
        number,
        zone: None,
        until,
    });
    let mut clients: Vec<_> = honest.collect();
    let kinds = [
        Name::Slow(400),
        Name::Slow(2500),
        Name::Dead,
        Name::Poisoned,
        Name::Lame,
        Name::Bogus,
    ];
    for number in 0..random.u16(0..4) {
        let mut names = vec![kinds[random.usize(..kinds.len())]];
        if random.u8(..) < 40 {
            names.push(Name::Good);
        }
        clients.push(Client {
            // Each may hold a session for all of its time, and for few others.
            every: Duration::from_millis(random.u64(if few { 400..1000 } else { 16..1000 })),
            at_once: 1,
            names,
            number: 100 + number,
            zone: random.bool().then_some(100 + number),
            until,
        });
    }
    clients
}

/// Has clients ask no more than half of what can be asked in sessions that take few queries each, and are opened so many at a time.
fn slow_down(clients: &mut [Client], addresses: &[Address], sessions: usize) {
    let capacity = |address: &Address| {
        let queries = f64::from(address.closes_after?) * sessions as f64;
        Some(queries / (address.connect + address.round_trip).as_secs_f64())
    };
    let Some(least) = addresses.iter().filter_map(capacity).reduce(f64::min) else {
        return;
    };
    let rate: f64 = clients
        .iter()
        .map(|client| client.every.as_secs_f64().recip())
        .sum();
    let slower = (rate / (least / 2.0)).max(1.0);
    clients
        .iter_mut()
        .for_each(|client| client.every = client.every.mul_f64(slower));
}

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

#[test]
fn whatever_resolvers_do_each_query_ends_once_in_time_and_well_where_one_is_healthy() {
    let steps = number("SIMULATE_STEPS").unwrap_or(STEPS);
    let first = number("SIMULATE_SEED").unwrap_or(1);
    let trace = env::var_os("SIMULATE_TRACE").is_some();
    let until =
        number("SIMULATE_SECONDS").map(|seconds| clock::now() + Duration::from_secs(seconds));
    let is_over = || until.is_some_and(|until| clock::now() >= until);
    let (mut done, mut seed) = (0, first);
    while done < steps && !is_over() {
        let mut world = World::new(seed, trace);
        world.run();
        done += world.steps;
        seed += 1;
    }
    println!("{done} steps, seeds {first} to {}", seed - 1);
}

/// Addresses that far away to which nothing happens.
fn calm(count: usize, round_trip: Duration, connect: Duration) -> Vec<Address> {
    let address = Address {
        round_trip,
        connect,
        closes_idle_after: None,
        closes_after: None,
        closes_at_random: None,
        keeps_none: false,
        answers_twice: false,
        knows: QueryForm::Padded,
        large_hellos: LargeHellos::Answers,
        failing_small: 0,
        troubles: Vec::new(),
        cuts: Vec::new(),
    };
    vec![address; count]
}

/// A client that asks for one name of that kind at a time, each in a zone of its own.
fn asks(number: u16, name: Name, every: Duration, until: Instant) -> Client {
    Client {
        every,
        at_once: 1,
        names: vec![name],
        number,
        zone: None,
        until,
    }
}

#[test]
fn an_address_that_takes_no_large_hello_costs_little_time_and_few_connections() {
    let millis = Duration::from_millis;
    for (hellos, sessions, count, longest) in [
        (LargeHellos::Refuses, 2, 1, 0),
        (LargeHellos::Refuses, 1, 2, 0),
        (LargeHellos::Ignores, 2, 1, 1250),
        (LargeHellos::Ignores, 1, 1, 1250),
    ] {
        let (round_trip, connect) = (millis(20), millis(60));
        let begin = clock::now();
        let client = asks(1, Name::Good, millis(10), begin + Duration::from_secs(30));
        let mut addresses = calm(count, round_trip, connect);
        addresses[0].large_hellos = hellos;
        let random = fastrand::Rng::with_seed(1);
        let mut world = World::of(1, random, addresses, vec![client], sessions, begin);
        world.run();
        let what = format!("{hellos:?}, {sessions} sessions");
        // Three until it is known, and probes after 5 seconds, and 10 seconds after the last.
        let begun = world.connects[0].iter();
        let begun = begun.filter(|at| **at < begin + Duration::from_secs(30));
        assert_eq!(begun.count(), 5, "{what}");
        assert_eq!(world.lines, 1, "{what}");
        let slowest = world.waits.iter().max().expect("answers");
        let most = millis(longest) + connect * 3 + round_trip * 2;
        assert!(*slowest < most, "{what}: {slowest:?}");
        // Nothing else failed or waited.
        assert!(world.waits.len() > 2800, "{what}: {}", world.waits.len());
    }
}

#[test]
fn small_hellos_that_fail_first_cost_the_queries_of_a_moment() {
    let millis = Duration::from_millis;
    // Each that fails backs the address off, as it does where no other hello is sent.
    for (hellos, failing, longest) in [
        (LargeHellos::Refuses, 1, 400),
        (LargeHellos::Refuses, 2, 850),
        (LargeHellos::Ignores, 1, 0),
    ] {
        for seed in 1..=8 {
            let (round_trip, connect) = (millis(20), millis(60));
            let begin = clock::now();
            let client = asks(1, Name::Good, millis(10), begin + Duration::from_secs(30));
            let mut addresses = calm(1, round_trip, connect);
            addresses[0].large_hellos = hellos;
            addresses[0].failing_small = failing;
            // What fails first is no fault of the pool's.
            addresses[0].cuts = vec![(begin, false)];
            let random = fastrand::Rng::with_seed(seed);
            let mut world = World::of(seed, random, addresses, vec![client], 2, begin);
            world.run();
            let lost = (world.asked - world.answered) as u32 * millis(10);
            let most = millis(longest) + connect * 4;
            let what = format!("{hellos:?}, {failing} fail, seed {seed}: {lost:?}");
            assert!(lost < most, "{what}");
            assert_eq!(world.lines, 1, "{what}");
        }
    }
}

#[test]
fn after_a_moment_of_trouble_large_hellos_are_back_soon_and_no_query_notices() {
    let millis = Duration::from_millis;
    for (sessions, count) in [(1, 1), (2, 1), (2, 2)] {
        let (round_trip, connect) = (millis(20), millis(60));
        let begin = clock::now();
        let client = asks(1, Name::Good, millis(10), begin + Duration::from_secs(30));
        let mut addresses = calm(count, round_trip, connect);
        addresses[0].large_hellos = LargeHellos::Refuses;
        let random = fastrand::Rng::with_seed(1);
        let mut world = World::of(1, random, addresses, vec![client], sessions, begin);
        world.at(
            begin + Duration::from_secs(1),
            Happening::TakesLargeHellos(0),
        );
        world.run();
        let what = format!("{sessions} sessions, {count} addresses");
        assert_eq!((world.connects[0].len(), world.lines), (4, 2), "{what}");
        assert!(!world.left_out[0], "{what}");
        let slowest = world.waits.iter().max().expect("answers");
        assert!(
            *slowest < connect * 3 + round_trip * 2,
            "{what}: {slowest:?}"
        );
        assert!(world.waits.len() > 2800, "{what}: {}", world.waits.len());
    }
}

#[test]
fn names_that_end_sessions_delay_others_for_three_connects_at_most() {
    let millis = Duration::from_millis;
    for (count, round_trip, connect, every) in [
        (1, 1, 5, 10),
        (1, 1, 15, 10),
        (1, 1, 30, 10),
        (1, 1, 30, 1),
        (1, 1, 60, 10),
        (1, 20, 60, 10),
        (1, 20, 60, 1),
        (1, 50, 150, 10),
        (2, 1, 15, 10),
        (2, 20, 60, 10),
    ] {
        let (round_trip, connect, every) = (millis(round_trip), millis(connect), millis(every));
        for seed in 1..=4 {
            let begin = clock::now();
            let honest = Client {
                every,
                at_once: 1,
                names: vec![Name::Good],
                number: 1,
                zone: None,
                until: begin + millis(10_000),
            };
            let poisoned = Client {
                every: Duration::from_secs(1) / 60,
                names: vec![Name::Poisoned],
                number: 100,
                zone: (seed % 2 == 0).then_some(100),
                ..honest.clone()
            };
            let random = fastrand::Rng::with_seed(seed);
            let addresses = calm(count, round_trip, connect);
            let mut world = World::of(seed, random, addresses, vec![honest, poisoned], 2, begin);
            world.run();
            world.waits.sort_unstable();
            let late = world.waits[world.waits.len() * 999 / 1000];
            // What the resolver needs for an answer, and as much again.
            let is_delayed = |wait: &&Duration| **wait > (round_trip + millis(5)) * 2 + millis(3);
            let delayed = world.waits.iter().filter(is_delayed).count() as u32;
            let what = format!(
                "{count} addresses, {round_trip:?}, connect {connect:?}, every {every:?}, seed {seed}: \
                 {delayed} of {} delayed, {late:?}",
                world.waits.len()
            );
            assert!(late <= connect * 3 + round_trip + millis(10), "{what}");
            assert!(every * delayed <= connect * 3 + millis(100), "{what}");
        }
    }
}

#[test]
fn others_are_answered_beside_names_that_end_sessions_in_their_zone_or_of_many_clients() {
    const ZONE: u16 = 7;
    for (poisoners, rate, zone) in [
        (1, 3, Some(ZONE)),
        (1, 60, Some(ZONE)),
        (5, 5, Some(ZONE)),
        (10, 9, None),
        (30, 3, None),
    ] {
        for seed in 1..=4 {
            let begin = clock::now();
            let honest = Client {
                every: Duration::from_millis(20),
                at_once: 1,
                names: vec![Name::Good],
                number: 1,
                zone,
                until: begin + Duration::from_secs(10),
            };
            let poisoner = |number| Client {
                every: Duration::from_secs(1) * poisoners / rate,
                names: vec![Name::Poisoned],
                number,
                ..honest.clone()
            };
            let mut clients: Vec<_> = (100..).map(poisoner).take(poisoners as usize).collect();
            clients.push(honest);
            let random = fastrand::Rng::with_seed(seed);
            let addresses = calm(1, Duration::from_millis(10), Duration::from_millis(20));
            let mut world = World::of(seed, random, addresses, clients, 2, begin);
            world.run();
            assert!(
                world.unlucky * 100 <= world.waits.len() as u64,
                "{poisoners} clients, {rate} names a second, seed {seed}: {} of {} failed",
                world.unlucky,
                world.waits.len()
            );
        }
    }
}

#[test]
fn one_client_with_names_that_end_sessions_is_found_among_many() {
    for (rate, clients) in [(3, 20), (3, 5), (20, 20), (60, 50)] {
        for seed in 1..=4 {
            let begin = clock::now();
            let (every, until) = (Duration::from_millis(2), begin + Duration::from_secs(20));
            let honest = |number| asks(number, Name::Good, every * u32::from(clients), until);
            let poisoner = asks(100, Name::Poisoned, Duration::from_secs(1) / rate, until);
            let all = (1..=clients).map(honest).chain([poisoner]).collect();
            let random = fastrand::Rng::with_seed(seed);
            let addresses = calm(1, Duration::from_millis(20), Duration::from_millis(60));
            let mut world = World::of(seed, random, addresses, all, 2, begin);
            world.run();
            let answered = world.waits.len() as u64;
            assert!(
                world.unlucky * 200 <= answered,
                "{rate} names a second, {clients} clients, seed {seed}: {} failed, {answered} answered",
                world.unlucky
            );
        }
    }
}

#[test]
fn a_resolver_that_closes_sessions_at_random_answers_nearly_all() {
    let millis = Duration::from_millis;
    // So many clients ask so many names at once, together one in so many milliseconds; one in so many answers is the last of its session;
    // and so many of a thousand may fail.
    for (clients, at_once, every, one_in, round_trip, most) in [
        (2, 1, 20, 16, 10, 5),
        (2, 1, 4, 16, 10, 15),
        (2, 32, 4, 16, 10, 50),
        (2, 1, 20, 16, 50, 5),
        (2, 8, 4, 64, 20, 5),
        (2, 1, 20, 5, 10, 5),
        (64, 1, 20, 16, 10, 5),
        (64, 1, 4, 16, 10, 15),
        (64, 1, 3, 16, 10, 15),
    ] {
        for seed in 1..=4 {
            let begin = clock::now();
            let (each, until) = (millis(u64::from(clients) * every), begin + millis(20_000));
            let client = |number| Client {
                at_once,
                ..asks(number, Name::Good, each, until)
            };
            let mut addresses = calm(1, millis(round_trip), millis(round_trip) * 2);
            addresses[0].closes_at_random = Some(one_in);
            let random = fastrand::Rng::with_seed(seed);
            let clients_of_test = (1..=clients).map(client).collect();
            let mut world = World::of(seed, random, addresses, clients_of_test, 2, begin);
            world.run();
            let failed = world.asked - world.answered;
            assert!(
                failed * 1000 <= most * world.asked,
                "{clients} clients, {at_once} at once every {every} ms, one in {one_in}, {round_trip} ms, seed {seed}: {failed} of {} failed",
                world.asked
            );
        }
    }
}

#[test]
fn a_zone_at_which_one_address_closes_is_answered_by_the_other() {
    for every in [50, 10] {
        for seed in 1..=4 {
            let begin = clock::now();
            let (every, until) = (
                Duration::from_millis(every),
                begin + Duration::from_secs(20),
            );
            let in_zone = |number| Client {
                zone: Some(7),
                ..asks(number, Name::PoisonedAtFirst, every, until)
            };
            let clients = vec![
                asks(1, Name::Good, every, until),
                in_zone(100),
                in_zone(101),
            ];
            let random = fastrand::Rng::with_seed(seed);
            let addresses = calm(2, Duration::from_millis(10), Duration::from_millis(20));
            let mut world = World::of(seed, random, addresses, clients, 2, begin);
            world.run();
            let failed = world.asked - world.answered;
            assert!(
                failed * 100 <= world.asked,
                "every {every:?}, seed {seed}: {failed} of {} failed",
                world.asked
            );
        }
    }
}

#[test]
fn names_that_are_never_answered_take_no_room_where_sessions_end_at_random() {
    for seed in 1..=8 {
        let begin = clock::now();
        let until = begin + Duration::from_secs(20);
        let client = |number, name, every| asks(number, name, Duration::from_millis(every), until);
        let mut addresses = calm(1, Duration::from_millis(10), Duration::from_millis(20));
        addresses[0].closes_at_random = Some(64);
        let random = fastrand::Rng::with_seed(seed);
        let clients = vec![client(1, Name::Good, 10), client(2, Name::Dead, 50)];
        let mut world = World::of(seed, random, addresses, clients, 2, begin);
        world.run();
        world.waits.sort_unstable();
        let (answered, late) = (world.waits.len(), world.waits[world.waits.len() * 98 / 100]);
        let what = format!("seed {seed}: {answered} answered, 98 % within {late:?}");
        assert!(
            answered >= 1900 && late < Duration::from_millis(100),
            "{what}"
        );
    }
}
