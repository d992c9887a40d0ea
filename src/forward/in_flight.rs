//! What is on its way to the resolver?
//!
//! A query in flight: its message, what is known of its answer so far, and the clients that wait for it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::Responder;
use crate::forward::waiters::WaitingClients;
use crate::message::framing::{self, LENGTH_PREFIX_LEN};
use crate::message::{self, HEADER_LEN, QueryForm, QuestionKey, Source};
use crate::system::memory::Reservation;
use crate::upstream::{self, Message, Query as _};

/// Octets of a failure that is kept while another answer is awaited, at most.
const MAX_FALLBACK_LEN: usize = 512;
/// Octets of a typical query: padded (RFC 8467), with its length prefix and its key.
const TYPICAL_LEN: usize = LENGTH_PREFIX_LEN + 192;
/// Octets that a query costs in the table of queries in flight and in those of the sessions, about.
const TABLE_OVERHEAD: usize = 192;
/// Octets that a query costs besides its message and key.
const QUERY_OVERHEAD: usize = size_of::<Query>() + 2 * size_of::<usize>() + TABLE_OVERHEAD;

/// A query in flight: the message for the resolver, and the clients that wait for its answer.
///
/// Shared by the threads of clients and of sessions. The flags are atomic, `fallback` has a lock of its own, and the clients are
/// guarded as `WaitingClients` says. Under neither lock another one is taken. The other fields change only while one thread owns the query.
#[derive(Debug)]
pub struct Query {
    clients: WaitingClients,
    /// A client has waited until its deadline without an answer.
    timed_out: AtomicBool,
    /// It has been completed, with an answer or a failure.
    ended: AtomicBool,
    /// Its failure says nothing about its name: the resolver fails at other names, too.
    is_outage: AtomicBool,
    /// A failure of the resolver that is the answer if no better one comes.
    fallback: Mutex<Option<Fallback>>,
    /// There is such a failure. So the lock is not taken for most queries.
    has_fallback: AtomicBool,
    /// The length prefix, the message as the resolver sees it but with the ID 0, and the query's key, if other clients may share
    /// its answer.
    octets: Vec<u8>,
    message_end: usize,
    question: Range<usize>,
    signed: bool,
    /// Its answer may not name private addresses.
    rebind_protected: bool,
    /// Where its answer comes from, and who is asked.
    source: Source,
    responder: Responder,
    /// The memory that is reserved for the query; None where memory is not counted.
    reservation: Option<Reservation>,
}

/// A failure that is kept in case no better answer comes.
#[derive(Debug)]
struct Fallback {
    message: Box<[u8]>,
    _reservation: Option<Reservation>,
}

impl Query {
    /// A query without clients, to be answered within `timeout` of `now`. `key` is the key of `query`.
    pub fn new(
        query: &message::Query<'_>,
        key: Option<&QuestionKey<'_>>,
        now: Instant,
        timeout: Duration,
    ) -> Self {
        let mut new = Self::empty(now);
        new.reset(query, key, now, timeout);
        new
    }

    /// A query without a message, to be filled by [`Query::reset`].
    pub(super) fn empty(now: Instant) -> Self {
        Self {
            clients: WaitingClients::new(now),
            timed_out: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_outage: AtomicBool::new(false),
            fallback: Mutex::default(),
            has_fallback: AtomicBool::new(false),
            octets: Vec::with_capacity(TYPICAL_LEN),
            message_end: 0,
            question: 0..0,
            signed: false,
            rebind_protected: false,
            source: Source::Resolver,
            responder: Responder::MAIN,
            reservation: None,
        }
    }

    /// Octets of memory that `query` costs while it is in flight, with its `key` and one client.
    pub fn cost(query: &message::Query<'_>, key: Option<&QuestionKey<'_>>) -> usize {
        QUERY_OVERHEAD + Self::encoded_len(query, key).max(TYPICAL_LEN)
    }

    /// Octets of the length prefix, the message and the key, at most.
    fn encoded_len(query: &message::Query<'_>, key: Option<&QuestionKey<'_>>) -> usize {
        let message = if query.is_signed() {
            query.message().len()
        } else {
            query.upstream_query_len()
        };
        LENGTH_PREFIX_LEN + message + key.map_or(0, |key| key.octets().len())
    }

    /// Makes this query what [`Query::new`] returns, whatever it was before. The reservation stays.
    pub fn reset(
        &mut self,
        query: &message::Query<'_>,
        key: Option<&QuestionKey<'_>>,
        now: Instant,
        timeout: Duration,
    ) {
        // Each field is named, so that none is forgotten.
        let Self {
            clients,
            timed_out,
            ended,
            is_outage,
            fallback,
            has_fallback,
            octets,
            message_end,
            question,
            signed,
            rebind_protected,
            source,
            responder,
            // The caller has resized it.
            reservation: _,
        } = self;
        clients.reset(now, timeout);
        for flag in [timed_out, ended, is_outage] {
            *flag.get_mut() = false;
        }
        if std::mem::take(has_fallback.get_mut()) {
            *fallback.get_mut() = None;
        }
        octets.clear();
        octets.reserve_exact(Self::encoded_len(query, key));
        framing::append(octets, |out| {
            if query.is_signed() {
                out.extend_from_slice(query.message());
            } else {
                query.write_upstream_query(out);
            }
        });
        *message_end = octets.len();
        if let Some(key) = key {
            octets.extend_from_slice(key.octets());
        }
        *question =
            LENGTH_PREFIX_LEN + HEADER_LEN..LENGTH_PREFIX_LEN + HEADER_LEN + query.question().len();
        *signed = query.is_signed();
        *rebind_protected = false;
        (*source, *responder) = (Source::Resolver, Responder::MAIN);
    }

    /// Sets whether its answer may not name private addresses. It may after [`Query::reset`].
    pub(super) fn set_rebind_protected(&mut self, rebind_protected: bool) {
        self.rebind_protected = rebind_protected;
    }

    /// Whether its answer may not name private addresses.
    pub(super) fn is_rebind_protected(&self) -> bool {
        self.rebind_protected
    }

    /// Sets where its answer comes from, which is the main resolver after [`Query::reset`].
    pub(super) fn set_source(&mut self, source: Source, responder: Responder) {
        (self.source, self.responder) = (source, responder);
    }

    /// Who is asked.
    pub(super) fn responder(&self) -> Responder {
        self.responder
    }

    /// Where its answer comes from.
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// The clients that wait for this query.
    pub(super) fn clients(&self) -> &WaitingClients {
        &self.clients
    }

    /// The clients of a query that no other thread has seen yet.
    pub(super) fn clients_mut(&mut self) -> &mut WaitingClients {
        &mut self.clients
    }

    /// Moves the clients of an equal query to this one.
    pub(super) fn add_waiters_of(&self, other: &Self) {
        let other_question = (other.question() != self.question()).then(|| other.question());
        self.clients.add_waiters_of(&other.clients, other_question);
    }

    /// Notes that a client has timed out. Returns true for the first one.
    pub fn mark_timed_out(&self) -> bool {
        !self.timed_out.swap(true, Ordering::Relaxed)
    }

    /// Whether a client has timed out.
    pub fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }

    /// Notes that the query has been completed.
    pub fn mark_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether its failure says nothing about its name, since the resolver fails at other names, too.
    pub fn is_outage(&self) -> bool {
        self.is_outage.load(Ordering::Acquire)
    }

    /// Takes the failure that was kept, if there is one.
    pub fn take_fallback(&self) -> Option<Box<[u8]>> {
        if !self.has_fallback.load(Ordering::Acquire) {
            return None;
        }
        self.fallback.lock().take().map(|fallback| fallback.message)
    }

    /// The key by which equal queries find this one; None if no other client may share its answer.
    pub fn key(&self) -> Option<QuestionKey<'_>> {
        self.is_shared()
            .then(|| QuestionKey::from_octets(self.key_octets()))
    }

    /// The octets of the key; empty if there is none.
    pub(super) fn key_octets(&self) -> &[u8] {
        &self.octets[self.message_end..]
    }

    /// Sets the memory that is reserved for this query.
    pub(super) fn set_reservation(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
    }

    /// Changes the reservation to `cost` octets. Returns false if there are not so many, or if nothing was reserved before.
    pub(super) fn resize_reservation(&mut self, cost: usize) -> bool {
        self.reservation
            .as_mut()
            .is_some_and(|reservation| reservation.resize(cost))
    }

    /// Octets that are allocated for its message and key.
    pub(super) fn capacity(&self) -> usize {
        self.octets.capacity()
    }

    /// Octets that are reserved for it.
    #[cfg(test)]
    pub(crate) fn reserved_octets(&self) -> usize {
        self.reservation.as_ref().map_or(0, Reservation::octets)
    }

    /// Whether other clients may share its answer.
    pub fn is_shared(&self) -> bool {
        !self.key_octets().is_empty()
    }

    /// The message as the resolver sees it, but with the ID 0.
    pub fn message(&self) -> &[u8] {
        &self.octets[LENGTH_PREFIX_LEN..self.message_end]
    }
}

impl Message for Query {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn write_framed(&self, form: QueryForm, out: &mut Vec<u8>) {
        if self.signed || form == QueryForm::Padded {
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
        self.clients.started_at()
    }

    fn deadline(&self) -> Instant {
        self.clients.deadline()
    }

    fn due(&self) -> Instant {
        self.clients.next_check()
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
        self.clients.first_slot()
    }

    fn keep_fallback(&self, message: &[u8]) {
        let reservation = match &self.reservation {
            Some(reservation) => match reservation.reserve_another(message.len()) {
                Some(reservation) => Some(reservation),
                None => return,
            },
            None => None,
        };
        if message.len() <= MAX_FALLBACK_LEN {
            *self.fallback.lock() = Some(Fallback {
                message: message.into(),
                _reservation: reservation,
            });
            self.has_fallback.store(true, Ordering::Release);
        }
    }

    fn note_outage(&self) {
        self.is_outage.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::in_flight_table::QueryPool;
    use crate::system::memory::{self, Memory};

    const TIMEOUT: Duration = Duration::from_secs(3);

    #[test]
    fn a_query_costs_what_it_allocates() {
        let now = Instant::now();
        let memory = Memory::new(memory::Settings {
            limit: memory::MIN_LIMIT,
            connections: 1,
        });
        let tsig = [&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0x0f, 0][..], &[7; 0x0f00]].concat();
        for more in [&[][..], &tsig] {
            let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!more.is_empty())];
            let message = [&header, &b"\x07example\0"[..], &[0, 1, 0, 1], more].concat();
            let asked = message::Query::parse(&message).expect("a query");
            let key = asked.key();
            let cost = Query::cost(&asked, key.as_ref());
            let reset = |query: &mut Query| query.reset(&asked, key.as_ref(), now, TIMEOUT);
            let query = QueryPool::default().reuse(&memory, cost, now, reset);
            let query = query.expect("there is room");
            assert_eq!(query.octets.capacity() + QUERY_OVERHEAD, cost);
        }
    }
}
