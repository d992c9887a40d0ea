//! Who waits for this answer?
//!
//! A query on its way to the resolver, and the clients that wait for what comes of it. Clients that ask the same while it
//! is on its way wait with the first: the resolver is asked once, and each gets the answer to its own message by its own
//! deadline.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::client::destination::Client;
use crate::forward::waiting::Place;
use crate::message::framing::{self, PREFIX};
use crate::message::{self, Asked, Edns, Form, HEADER, Key};
use crate::system::clock::micros;
use crate::system::memory::Reservation;
use crate::upstream::{self, Message, Query as _};

/// Octets of a failure that is kept while a better answer is asked for, at most.
const KEPT: usize = 512;
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
    pub(super) fn blank(now: Instant) -> Self {
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
    pub(super) fn take_on(&self, other: &Self) {
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
    pub(super) fn takes_on(&self, now: Instant) -> bool {
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
    pub(super) fn key_octets(&self) -> &[u8] {
        &self.octets[self.message_end..]
    }

    /// Has it be paid for by that.
    pub(super) fn hold(&mut self, held: Reservation) {
        self.held = Some(held);
    }

    /// Has it be paid for by `cost` octets from now on; whether there are so many. False if it was not paid for before.
    pub(super) fn resize(&mut self, cost: usize) -> bool {
        self.held.as_mut().is_some_and(|held| held.resize(cost))
    }

    /// Octets that it has for its message and key.
    pub(super) fn capacity(&self) -> usize {
        self.octets.capacity()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::flights::Spares;
    use crate::system::memory::{self, Memory};

    const TIMEOUT: Duration = Duration::from_secs(3);

    #[test]
    fn a_query_costs_what_it_holds() {
        let now = Instant::now();
        let memory = Memory::new(memory::Settings {
            limit: memory::LEAST,
            connections: 1,
        });
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
}
