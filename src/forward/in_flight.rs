//! Who waits for this answer?
//!
//! A query on its way to the resolver, and the clients that wait for what comes of it. Clients that ask the same while it
//! is on its way wait with the first: the resolver is asked once, and each gets the answer to its own message by its own
//! deadline.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::client::destination::Client;
use crate::forward::waiting::Place;
use crate::message::framing::{self, PREFIX};
use crate::message::{self, Asked, Edns, Form, HEADER, Key};
use crate::system::clock::micros;
use crate::system::memory::{Memory, Purpose, Reservation};
use crate::upstream::{self, Message, Query as _};

/// Octets of a failure that is kept while a better answer is asked for, at most.
const KEPT: usize = 512;
/// How many queries that have landed are kept for their memory, and how many a thread borrows of them for a batch.
const LANDED: usize = 128;
const SPARES: usize = 32;
/// Octets that one of them has for its message and key, at most; others are given back to the system.
const SPARE: usize = 512;
/// Octets of a padded query with its length, and of its key.
const USUAL: usize = PREFIX + 192;
/// Octets that a query costs in the tables of what is on its way and of what is pending on sessions, about; and besides itself.
const IN_TABLES: usize = 192;
const ITSELF: usize = size_of::<Query>() + 2 * size_of::<usize>() + IN_TABLES;

/// A query on its way to the resolver: what is asked there, and who waits for it here.
#[derive(Debug)]
pub struct Query {
    began: Instant,
    /// How long a client waits for it.
    timeout: Duration,
    /// When the last of its clients gets an answer, of whatever kind, in microseconds since it began.
    deadline: AtomicU64,
    /// When somebody is to look after those that wait, on the same scale.
    due: AtomicU64,
    /// When clients are content with an expired answer, if there is one.
    late: Option<Instant>,
    waiters: Mutex<Waiters>,
    /// Somebody waited for it in vain.
    overdue: AtomicBool,
    /// An ending was found for it.
    ended: AtomicBool,
    /// Its answer is a failure that says nothing of its name: the resolver fails others, too.
    is_outage: AtomicBool,
    /// A failure that goes out if nothing better comes.
    kept: Mutex<Option<Kept>>,
    /// The message as the resolver sees it, its length before it and its ID 0; behind it the key that the query is known
    /// by, if others may share its answer.
    octets: Vec<u8>,
    message_end: usize,
    question: Range<usize>,
    signed: bool,
    /// What it costs, where that is counted.
    held: Option<Reservation>,
}

/// A failure that is kept, and what it costs.
#[derive(Debug)]
struct Kept {
    message: Box<[u8]>,
    _held: Option<Reservation>,
}

/// The clients that wait for a query: mostly there is one.
pub type Waiters = SmallVec<[Waiter; 1]>;

/// A client that waits.
#[derive(Debug)]
pub struct Waiter {
    /// Who asked.
    pub client: Client,
    /// When it asked.
    pub since: Instant,
    /// By when it gets an answer, of whatever kind.
    pub deadline: Instant,
    /// Where it is counted, and with how many octets.
    pub place: Place,
    /// Those octets.
    pub octets: u32,
    id: u16,
    flags: [u8; 2],
    edns: Option<Edns>,
    /// Its question, where it spells the name in another way than the query does.
    spelling: Option<Box<[u8]>>,
}

impl Waiter {
    /// The client of `query`, which was asked at `since` and gets an answer within `timeout` of that. It is counted at `place`
    /// with so many octets.
    pub fn new(
        query: &message::Query<'_>,
        client: Client,
        since: Instant,
        timeout: Duration,
        (place, octets): (Place, u32),
    ) -> Self {
        Self {
            client,
            since,
            deadline: since + timeout,
            place,
            octets,
            id: query.id(),
            flags: query.flags(),
            edns: query.edns().copied(),
            spelling: None,
        }
    }

    /// What its answer must repeat, when it waits for `query`.
    pub fn asked<'q>(&'q self, query: &'q Query) -> Asked<'q> {
        Asked {
            id: self.id,
            flags: self.flags,
            question: self.spelling.as_deref().unwrap_or(query.question()),
            edns: self.edns,
            keepalive: None,
        }
    }
}

impl Query {
    /// A query for which nobody waits yet, to be answered within `timeout` of `now`. `key` is that of `query`.
    pub fn new(
        query: &message::Query<'_>,
        key: Option<&Key<'_>>,
        now: Instant,
        timeout: Duration,
    ) -> Self {
        let mut new = Self::blank(now);
        new.begin(query, key, now, timeout);
        new
    }

    /// None yet.
    fn blank(now: Instant) -> Self {
        Self {
            began: now,
            timeout: Duration::ZERO,
            deadline: AtomicU64::new(0),
            due: AtomicU64::new(0),
            late: None,
            waiters: Mutex::default(),
            overdue: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_outage: AtomicBool::new(false),
            kept: Mutex::default(),
            octets: Vec::with_capacity(USUAL),
            message_end: 0,
            question: 0..0,
            signed: false,
            held: None,
        }
    }

    /// Octets that it costs to have `query` on its way, known by `key`, with a client that waits for it.
    pub fn cost(query: &message::Query<'_>, key: Option<&Key<'_>>) -> usize {
        ITSELF + Self::room(query, key).max(USUAL)
    }

    /// Octets of its message and key, at most.
    fn room(query: &message::Query<'_>, key: Option<&Key<'_>>) -> usize {
        let message = if query.is_signed() {
            query.message().len()
        } else {
            query.length_for_resolver()
        };
        PREFIX + message + key.map_or(0, |key| key.octets().len())
    }

    /// Makes it what [`Query::new`] does, whatever it was before.
    pub fn begin(
        &mut self,
        query: &message::Query<'_>,
        key: Option<&Key<'_>>,
        now: Instant,
        timeout: Duration,
    ) {
        // Each field by its name, so that none is forgotten.
        let Self {
            began,
            timeout: whole,
            deadline,
            due,
            late,
            waiters,
            overdue,
            ended,
            is_outage,
            kept,
            octets,
            message_end,
            question,
            signed,
            // It was settled before.
            held: _,
        } = self;
        *began = now;
        *whole = timeout;
        *deadline.get_mut() = micros(timeout);
        *due.get_mut() = micros(timeout);
        *late = None;
        waiters.get_mut().clear();
        for flag in [overdue, ended, is_outage] {
            *flag.get_mut() = false;
        }
        *kept.get_mut() = None;
        octets.clear();
        octets.reserve_exact(Self::room(query, key));
        framing::append(octets, |out| {
            if query.is_signed() {
                out.extend_from_slice(query.message());
            } else {
                query.write_for_resolver(out);
            }
        });
        *message_end = octets.len();
        if let Some(key) = key {
            octets.extend_from_slice(key.octets());
        }
        *question = PREFIX + HEADER..PREFIX + HEADER + query.question().len();
        *signed = query.is_signed();
    }

    /// After so long its clients are content with an expired answer.
    pub fn be_content_after(&mut self, patience: Duration) {
        self.late = Some(self.began + patience);
        *self.due.get_mut() = micros(patience.min(self.timeout));
    }

    /// Has a client wait for it.
    pub fn add(&self, waiter: Waiter) {
        self.waiters.lock().push(waiter);
    }

    /// How long a client waits for it.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether clients that wait should be content with an expired answer.
    pub fn is_late(&self, now: Instant) -> bool {
        self.late.is_some_and(|late| late <= now)
    }

    /// How many wait.
    pub fn count_waiters(&self) -> usize {
        self.waiters.lock().len()
    }

    /// Takes all that wait off the list.
    pub fn take_waiters(&self) -> Waiters {
        std::mem::take(&mut *self.waiters.lock())
    }

    /// Takes those off the list whose time is over.
    pub fn take_overdue(&self, now: Instant) -> Waiters {
        let mut waiters = self.waiters.lock();
        let (overdue, others) = std::mem::take(&mut *waiters)
            .into_iter()
            .partition(|waiter| waiter.deadline <= now);
        *waiters = others;
        overdue
    }

    /// Notes that somebody waited in vain; whether that is news.
    pub fn fall_overdue(&self) -> bool {
        !self.overdue.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody waited in vain.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Sets when to look again, and by when it ends: not later for those who do not wait any more.
    pub fn look_again(&self, now: Instant) {
        let waiters = self.waiters.lock();
        let deadlines = || {
            waiters
                .iter()
                .map(|waiter| self.since_began(waiter.deadline))
        };
        let late = self.late.filter(|late| *late > now);
        let late = late.map(|late| self.since_began(late));
        let deadline = deadlines().max().unwrap_or(0).max(micros(self.timeout));
        let due = deadlines().chain(late).min().unwrap_or(deadline);
        self.deadline.store(deadline, Ordering::Release);
        self.due.store(due.min(deadline), Ordering::Release);
    }

    /// Has the clients of an equal query wait for this one.
    fn take_on(&self, other: &Self) {
        let respelled = (other.question() != self.question()).then(|| other.question());
        let arrivals = other.take_waiters();
        let mut waiters = self.waiters.lock();
        for mut waiter in arrivals {
            if waiter.spelling.is_none() {
                waiter.spelling = respelled.map(Box::from);
            }
            let deadline = self.since_began(waiter.deadline);
            self.deadline.fetch_max(deadline, Ordering::AcqRel);
            self.due.fetch_min(deadline, Ordering::AcqRel);
            waiters.push(waiter);
        }
        // Whoever looked after the others may have been here just now, and thinks that nobody waits.
        if let Some(late) = self.late {
            self.due.fetch_min(self.since_began(late), Ordering::AcqRel);
        }
    }

    /// Whether others may still join. Later it may be lost on its way, and they ask anew; but those that are content with
    /// an expired answer need not.
    fn takes_on(&self, now: Instant) -> bool {
        let patience = if self.is_late(now) {
            self.timeout
        } else {
            self.timeout / 2
        };
        now < self.began + patience
    }

    fn since_began(&self, moment: Instant) -> u64 {
        micros(moment.saturating_duration_since(self.began))
    }

    /// Notes that it has ended.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether that is so.
    pub fn is_outage(&self) -> bool {
        self.is_outage.load(Ordering::Acquire)
    }

    /// The failure that was kept, if there is one.
    pub fn take_kept(&self) -> Option<Box<[u8]>> {
        self.kept.lock().take().map(|kept| kept.message)
    }

    /// What it is known by to those that ask the same; none if its answer is for nobody else.
    pub fn key(&self) -> Option<Key<'_>> {
        self.is_shared().then(|| Key::of_octets(self.key_octets()))
    }

    /// The octets of that key.
    fn key_octets(&self) -> &[u8] {
        &self.octets[self.message_end..]
    }

    /// Octets that are held for it.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Reservation::octets)
    }

    /// Whether others may share its answer.
    pub fn is_shared(&self) -> bool {
        !self.key_octets().is_empty()
    }

    /// The message as the resolver shall see it, its ID 0.
    pub fn message(&self) -> &[u8] {
        &self.octets[PREFIX..self.message_end]
    }
}

impl Message for Query {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn write_framed(&self, form: Form, out: &mut Vec<u8>) {
        if self.signed || form == Form::Padded {
            out.extend_from_slice(&self.octets[..self.message_end]);
        } else {
            framing::append(out, |out| {
                form.write(self.message(), self.question.len(), out)
            });
        }
    }
}

impl upstream::Query for Query {
    fn began(&self) -> Instant {
        self.began
    }

    fn deadline(&self) -> Instant {
        self.began + Duration::from_micros(self.deadline.load(Ordering::Acquire))
    }

    fn due(&self) -> Instant {
        self.began + Duration::from_micros(self.due.load(Ordering::Acquire))
    }

    fn extend(&self, by: Duration) {
        let mut waiters = self.waiters.lock();
        for waiter in waiters.iter_mut() {
            waiter.since += by;
            waiter.deadline += by;
        }
        self.deadline.fetch_add(micros(by), Ordering::AcqRel);
        self.due.fetch_add(micros(by), Ordering::AcqRel);
    }

    fn question(&self) -> &[u8] {
        &self.octets[self.question.clone()]
    }

    fn is_signed(&self) -> bool {
        self.signed
    }

    fn client(&self) -> u16 {
        let waiters = self.waiters.lock();
        waiters.first().map_or(0, |waiter| waiter.place.number())
    }

    fn keep(&self, message: &[u8]) {
        let held = match &self.held {
            Some(held) => match held.beside(message.len()) {
                Some(held) => Some(held),
                None => return,
            },
            None => None,
        };
        if message.len() <= KEPT {
            *self.kept.lock() = Some(Kept {
                message: message.into(),
                _held: held,
            });
        }
    }

    fn note_outage(&self) {
        self.is_outage.store(true, Ordering::Release);
    }
}

/// What is to be done with a query that joins no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it.
    Send,
    /// Nothing: its answer has come meanwhile.
    Known,
    /// It is one too many: it may wait for what is on its way, but not replace it.
    Refuse,
}

/// A query on its way whose answer may be shared, found by its key.
#[derive(Debug)]
struct Flight(Arc<Query>);

impl Borrow<[u8]> for Flight {
    fn borrow(&self) -> &[u8] {
        self.0.key_octets()
    }
}

impl Hash for Flight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key_octets().hash(state);
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.0.key_octets() == other.0.key_octets()
    }
}

impl Eq for Flight {}

/// Queries that have ended, for those to come: one thread asks and another one hears the answer, and the system's allocator is
/// slow where one frees what the other allocates.
#[derive(Debug, Default)]
pub struct Spares(Vec<Arc<Query>>);

impl Spares {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A query of which `begin` makes what it is to be, and which costs `cost` octets of `memory`. None if there are not so many.
    pub fn reuse(
        &mut self,
        memory: &Arc<Memory>,
        cost: usize,
        now: Instant,
        begin: impl FnOnce(&mut Query),
    ) -> Option<Arc<Query>> {
        if let Some(mut spare) = self.0.pop()
            && let Some(free) = Arc::get_mut(&mut spare)
            && let Some(held) = &mut free.held
            && held.resize(cost)
        {
            begin(free);
            return Some(spare);
        }
        // None, or one that is held still: by whoever ended it, or on another session.
        let mut new = Query::blank(now);
        new.held = Some(memory.reserve(Purpose::Queries, cost)?);
        begin(&mut new);
        Some(Arc::new(new))
    }
}

/// The queries on their way whose answers may be shared, and some that were, for their memory.
#[derive(Debug, Default)]
pub struct Flights {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    flights: HashMap<Flight, ()>,
    /// The oldest first: hardly anybody holds those any more.
    landed: VecDeque<Arc<Query>>,
}

impl Flights {
    /// Has `spares` have as many queries that have landed as a batch of that size may need, as far as there are some.
    pub fn lend(&self, spares: &mut Spares, batch: usize) {
        let landed = &mut self.table.lock().landed;
        let wanted = batch.clamp(1, SPARES).saturating_sub(spares.0.len());
        spares.0.extend(landed.drain(..wanted.min(landed.len())));
    }

    /// Has the clients of `queries` join equal ones that are on their way; returns those. What is left in `queries` is to be
    /// sent, and others may join it from now on. It takes over those that wait for an equal one that is too old to join.
    ///
    /// `decide` has the last word before a query is sent. What is left of `spares` goes back.
    pub fn board(
        &self,
        queries: &mut Vec<Arc<Query>>,
        spares: &mut Spares,
        now: Instant,
        mut decide: impl FnMut(&Arc<Query>) -> Decision,
    ) -> Vec<Arc<Query>> {
        let mut joined = Vec::new();
        let Table { flights, landed } = &mut *self.table.lock();
        let room = LANDED.saturating_sub(landed.len());
        landed.extend(spares.0.drain(..).take(room));
        queries.retain(|query| {
            if !query.is_shared() {
                return true;
            }
            let place = match flights.entry(Flight(Arc::clone(query))) {
                Entry::Occupied(place) if place.key().0.takes_on(now) => {
                    let flight = &place.key().0;
                    flight.take_on(query);
                    joined.push(Arc::clone(flight));
                    return false;
                }
                place => place,
            };
            match (decide(query), place) {
                (Decision::Known, _) => false,
                (Decision::Send, Entry::Occupied(place)) => {
                    let (Flight(old), ()) = place.remove_entry();
                    query.take_on(&old);
                    flights.insert(Flight(Arc::clone(query)), ());
                    true
                }
                (Decision::Refuse, Entry::Occupied(place)) => {
                    // Late, but the only hope there is.
                    let flight = &place.key().0;
                    flight.take_on(query);
                    joined.push(Arc::clone(flight));
                    false
                }
                (Decision::Send | Decision::Refuse, Entry::Vacant(place)) => {
                    place.insert(());
                    true
                }
            }
        });
        joined
    }

    /// Octets that are held for queries that have landed.
    #[cfg(test)]
    pub(crate) fn held_by_landed(&self) -> usize {
        let table = self.table.lock();
        table.landed.iter().map(|query| query.held()).sum()
    }

    /// Nobody can join what is on its way now.
    pub fn close(&self) {
        self.table.lock().flights.clear();
    }

    /// Nobody can join `query` any more. If another one has taken over those that waited for it, returns that.
    pub fn land(&self, query: &Query) -> Option<Arc<Query>> {
        let Table { flights, landed } = &mut *self.table.lock();
        let (flight, ()) = flights.remove_entry(query.key_octets())?;
        if !std::ptr::eq(&*flight.0, query) {
            let other = Arc::clone(&flight.0);
            flights.insert(flight, ());
            return Some(other);
        }
        if landed.len() < LANDED && query.octets.capacity() <= SPARE {
            landed.push_back(flight.0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::forward::waiting::{self, Waiting};
    use crate::system::memory;

    const TIMEOUT: Duration = Duration::from_secs(3);

    fn begin(query: &mut Query, name: &[u8], now: Instant) {
        let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let message = [&header, name, &[0, 0, 1, 0, 1]].concat();
        let asked = message::Query::parse(&message).expect("a query");
        query.begin(&asked, asked.key().as_ref(), now, TIMEOUT);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let peer = socket.local_addr().expect("bound");
        let client = Client::Datagram {
            peer,
            socket: Arc::new(socket),
            local: None,
        };
        let waiting = Waiting::default();
        let bounds = waiting::Bounds {
            most: 1,
            free: 1,
            share: 1,
        };
        let place = waiting.admit(waiting.places(peer, true), 1, &bounds);
        let place = place.expect("there is room");
        query.add(Waiter::new(&asked, client, now, TIMEOUT, (place, 1)));
    }

    fn memory() -> Arc<Memory> {
        Memory::new(memory::Settings {
            limit: memory::LEAST,
            connections: 1,
        })
    }

    fn new(name: &[u8]) -> Arc<Query> {
        let now = Instant::now();
        let mut query = Query::blank(now);
        begin(&mut query, name, now);
        Arc::new(query)
    }

    fn board(flights: &Flights, queries: &[Arc<Query>], spares: &mut Spares) {
        let mut queries = queries.to_vec();
        let joined = flights.board(&mut queries, spares, Instant::now(), |_| Decision::Send);
        assert!(joined.is_empty());
    }

    /// All about it but the socket and port of the client.
    fn described(query: &Query) -> String {
        let waiters = query.take_waiters();
        let client = |waiter: &Waiter| (waiter.since, waiter.deadline, waiter.id, waiter.flags);
        let clients: Vec<_> = waiters.iter().map(client).collect();
        format!("{query:?} {clients:?}")
    }

    #[test]
    fn a_query_in_the_memory_of_another_one_has_nothing_of_it() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let (flights, mut spares, memory) = (Flights::default(), Spares::default(), memory());
        let first = spares.reuse(&memory, 1000, now, |query| {
            begin(query, b"\x07example\x03org", now);
            query.be_content_after(Duration::from_secs(1));
        });
        let first = first.expect("there is room");
        board(&flights, &[Arc::clone(&first)], &mut spares);
        first.extend(Duration::from_secs(1));
        first.end();
        first.note_outage();
        first.keep(b"a failure");
        assert_eq!(memory.held(Purpose::Queries), 1009);
        assert_eq!(first.take_kept().as_deref(), Some(&b"a failure"[..]));
        assert!(first.has_ended() && first.is_outage() && first.fall_overdue());
        assert!(flights.land(&first).is_none());
        let ended = Arc::as_ptr(&first);
        flights.lend(&mut spares, 1);
        assert_eq!(memory.held(Purpose::Queries), 1000, "it is there still");

        // It is held here still.
        let mut held = Spares(spares.0.clone());
        let another = held.reuse(&memory, 700, later, |query| begin(query, b"\x01b", later));
        let another = another.expect("there is room");
        assert!(held.0.is_empty() && Arc::as_ptr(&another) != ended);
        drop(first);
        let reused = spares.reuse(&memory, 700, later, |query| begin(query, b"\x01b", later));
        let reused = reused.expect("there is room");
        assert_eq!(Arc::as_ptr(&reused), ended);
        assert_eq!(described(&reused), described(&another));
        assert_eq!(memory.held(Purpose::Queries), 1400);
        drop((reused, another));
        assert_eq!(memory.held(Purpose::Queries), 0);
    }

    #[test]
    fn a_query_that_finds_no_memory_is_not_made() {
        let (now, memory) = (Instant::now(), memory());
        let share = memory.share(Purpose::Queries);
        let mut spares = Spares::default();
        let one = spares.reuse(&memory, share - 10, now, |_| {});
        assert!(one.is_some());
        assert!(
            spares
                .reuse(&memory, 11, now, |_| panic!("it is not made"))
                .is_none()
        );
        // What is kept for its memory gives back what it cost.
        let mut spares = Spares(one.into_iter().collect());
        assert!(spares.reuse(&memory, 11, now, |_| {}).is_some());
        assert_eq!(memory.held(Purpose::Queries), 0);
    }

    #[test]
    fn a_query_costs_what_it_holds() {
        let (now, memory) = (Instant::now(), memory());
        let tsig = [&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0x0f, 0][..], &[7; 0x0f00]].concat();
        for more in [&[][..], &tsig] {
            let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!more.is_empty())];
            let message = [&header, &b"\x07example\0"[..], &[0, 1, 0, 1], more].concat();
            let asked = message::Query::parse(&message).expect("a query");
            let key = asked.key();
            let cost = Query::cost(&asked, key.as_ref());
            let begin = |query: &mut Query| query.begin(&asked, key.as_ref(), now, TIMEOUT);
            let query = Spares::default().reuse(&memory, cost, now, begin);
            let query = query.expect("there is room");
            assert_eq!(query.octets.capacity() + ITSELF, cost);
        }
    }

    #[test]
    fn no_more_memory_is_kept_than_may_be() {
        let (flights, mut spares) = (Flights::default(), Spares::default());
        let names = (0..=LANDED).map(|number| format!("\x04{number:04}"));
        let queries: Vec<_> = names.map(|name| new(name.as_bytes())).collect();
        board(&flights, &queries, &mut spares);
        for query in &queries {
            flights.land(query);
        }
        assert_eq!(flights.table.lock().landed.len(), LANDED);
        flights.lend(&mut spares, 1000);
        assert_eq!(spares.0.len(), SPARES);
        board(&flights, &queries, &mut spares);
        assert!(spares.0.is_empty(), "they went back");
        assert_eq!(flights.table.lock().landed.len(), LANDED);
        // One that is large is not kept in place of them.
        let long = new(&[&[63; 64], &[63; 64], &[63; 64], &[31; 32][..]].concat());
        board(&flights, &[Arc::clone(&long)], &mut Spares::default());
        assert!(long.octets.capacity() > SPARE);
        flights.table.lock().landed.clear();
        flights.land(&long);
        assert!(flights.table.lock().landed.is_empty());
    }
}
