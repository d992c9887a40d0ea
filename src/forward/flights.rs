//! Is an equal query on its way already?
//!
//! Clients that ask what is on its way wait with those that asked before: the resolver is asked once. Queries that have ended are
//! kept here for a while, for the memory of those to come.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::forward::in_flight::Query;
use crate::system::memory::{Memory, Purpose};

/// How many queries that have landed are kept for their memory, and how many a thread borrows of them for a batch.
const LANDED: usize = 128;
const SPARES: usize = 32;
/// Octets that one of them has for its message and key, at most; others are given back to the system.
const SPARE: usize = 512;

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
            && free.resize(cost)
        {
            begin(free);
            return Some(spare);
        }
        // None, or one that is held still: by whoever ended it, or on another session.
        let mut new = Query::blank(now);
        new.hold(memory.reserve(Purpose::Queries, cost)?);
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
                Entry::Occupied(place) if place.key().0.clients().takes_on(now) => {
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
        if landed.len() < LANDED && query.capacity() <= SPARE {
            landed.push_back(flight.0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::client::destination::Client;
    use crate::forward::waiters::Waiter;
    use crate::forward::waiting::{self, Waiting};
    use crate::message;
    use crate::system::memory;
    use crate::upstream::{Message as _, Query as _};

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
        query
            .clients()
            .add(Waiter::new(&asked, client, now, TIMEOUT, (place, 1)));
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
        let waiters = query.clients().take_waiters();
        let client = |waiter: &Waiter| {
            let asked = waiter.asked(query.question());
            (waiter.since, waiter.deadline, asked.id, asked.flags)
        };
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
            query.clients_mut().be_content_after(Duration::from_secs(1));
        });
        let first = first.expect("there is room");
        board(&flights, &[Arc::clone(&first)], &mut spares);
        first.extend(Duration::from_secs(1));
        first.end();
        first.note_outage();
        first.keep_fallback(b"a failure");
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
        assert!(long.capacity() > SPARE);
        flights.table.lock().landed.clear();
        flights.land(&long);
        assert!(flights.table.lock().landed.is_empty());
    }
}
