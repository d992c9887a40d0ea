//! What is on its way to the resolver?
//!
//! A query, what is known of it so far, and the clients that wait for what comes of it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::forward::waiters::WaitingClients;
use crate::message::framing::{self, PREFIX};
use crate::message::{self, Form, HEADER, Key};
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
    clients: WaitingClients,
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
            clients: WaitingClients::new(now),
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
            clients,
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
        clients.begin(now, timeout);
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

    /// The clients that wait for it.
    pub(super) fn clients(&self) -> &WaitingClients {
        &self.clients
    }

    /// Those, of a query that is not on its way yet.
    pub(super) fn clients_mut(&mut self) -> &mut WaitingClients {
        &mut self.clients
    }

    /// Has the clients of an equal query wait for this one.
    pub(super) fn take_on(&self, other: &Self) {
        let respelled = (other.question() != self.question()).then(|| other.question());
        self.clients.take_on(&other.clients, respelled);
    }

    /// Notes that somebody waited in vain; whether that is news.
    pub fn fall_overdue(&self) -> bool {
        !self.overdue.swap(true, Ordering::Relaxed)
    }

    /// Whether somebody waited in vain.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
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
    fn started_at(&self) -> Instant {
        self.clients.began()
    }

    fn deadline(&self) -> Instant {
        self.clients.deadline()
    }

    fn due(&self) -> Instant {
        self.clients.due()
    }

    fn extend(&self, by: Duration) {
        self.clients.extend(by);
    }

    fn question(&self) -> &[u8] {
        &self.octets[self.question.clone()]
    }

    fn is_signed(&self) -> bool {
        self.signed
    }

    fn client(&self) -> u16 {
        self.clients.first()
    }

    fn keep_fallback(&self, message: &[u8]) {
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
