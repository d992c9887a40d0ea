//! Is an equal query in flight already?
//!
//! Clients that ask the question of a query in flight wait for the answer to that query: the resolver is asked once. The table also
//! keeps some finished queries for a while, so that new ones can reuse their memory.

use std::borrow::Borrow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::forward::in_flight::Query;
use crate::system::memory::{Memory, Purpose};

/// Finished queries that are kept for reuse, at most.
const MAX_FINISHED: usize = 128;
/// Finished queries that one thread takes for a batch, at most.
const MAX_LENT: usize = 32;
/// Octets that a finished query has for its message and key, at most. Larger ones are freed.
const MAX_REUSED_CAPACITY: usize = 512;

/// What to do with a query that joins no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it.
    Send,
    /// Do not send it: its answer has come meanwhile.
    AlreadyCached,
    /// Do not send it: the upstream rate limit is reached. It may still join an equal query that is too old to be joined otherwise.
    JoinOnly,
}

/// A query in flight whose answer other clients may share, found by its key.
#[derive(Debug)]
struct SharedQuery(Arc<Query>);

impl Borrow<[u8]> for SharedQuery {
    fn borrow(&self) -> &[u8] {
        self.0.key_octets()
    }
}

impl Hash for SharedQuery {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key_octets().hash(state);
    }
}

impl PartialEq for SharedQuery {
    fn eq(&self, other: &Self) -> bool {
        self.0.key_octets() == other.0.key_octets()
    }
}

impl Eq for SharedQuery {}

/// Finished queries for reuse by one thread. One thread makes a query and another one completes it, and the system's allocator is
/// slow where one thread frees what another one allocated.
#[derive(Debug, Default)]
pub struct QueryPool(Vec<Arc<Query>>);

impl QueryPool {
    /// Whether the pool is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a query from the pool, or allocates one, and has `reset` fill it. Reserves `cost` octets of `memory` for it; returns None
    /// if there are not so many left.
    pub fn reuse(
        &mut self,
        memory: &Arc<Memory>,
        cost: usize,
        now: Instant,
        reset: impl FnOnce(&mut Query),
    ) -> Option<Arc<Query>> {
        if let Some(mut spare) = self.0.pop()
            && let Some(query) = Arc::get_mut(&mut spare)
            && query.resize_reservation(cost)
        {
            reset(query);
            return Some(spare);
        }
        // The pool is empty, or another thread still holds this query: the one that completed it, or another session.
        let mut new = Query::empty(now);
        new.set_reservation(memory.reserve(Purpose::Queries, cost)?);
        reset(&mut new);
        Some(Arc::new(new))
    }
}

/// The queries in flight whose answers clients may share, and some finished queries for reuse.
///
/// Shared by all threads: one lock guards both. Under it, [`InFlightTable::join_or_insert`] takes the lock on the waiters of one query at
/// a time, and whatever its `decide` takes.
#[derive(Debug, Default)]
pub struct InFlightTable {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    in_flight: HashMap<SharedQuery, ()>,
    /// The oldest first, since other threads rarely hold those any more.
    finished: VecDeque<Arc<Query>>,
}

impl InFlightTable {
    /// Fills `query_pool` with finished queries for a batch of `batch` queries, as far as there are some.
    pub fn lend(&self, query_pool: &mut QueryPool, batch: usize) {
        let finished = &mut self.table.lock().finished;
        let wanted = batch.clamp(1, MAX_LENT).saturating_sub(query_pool.0.len());
        query_pool
            .0
            .extend(finished.drain(..wanted.min(finished.len())));
    }

    /// Moves the clients of `queries` to equal queries that are in flight, and returns those. The queries left in `queries` are to
    /// be sent, and other clients can join them from now on. Such a query takes over the clients of an equal one that is too old
    /// to be joined.
    ///
    /// `decide` is called under the table's lock, once for each query that joins no other. What is left in `query_pool` goes back.
    pub fn join_or_insert(
        &self,
        queries: &mut Vec<Arc<Query>>,
        query_pool: &mut QueryPool,
        now: Instant,
        mut decide: impl FnMut(&Arc<Query>) -> Decision,
    ) -> Vec<Arc<Query>> {
        let mut joined = Vec::new();
        let Table {
            in_flight,
            finished,
        } = &mut *self.table.lock();
        let room = MAX_FINISHED.saturating_sub(finished.len());
        finished.extend(query_pool.0.drain(..).take(room));
        queries.retain(|query| {
            if !query.is_shared() {
                return true;
            }
            let entry = match in_flight.entry(SharedQuery(Arc::clone(query))) {
                Entry::Occupied(entry) if entry.key().0.clients().accepts_waiters(now) => {
                    let existing = &entry.key().0;
                    existing.add_waiters_of(query);
                    joined.push(Arc::clone(existing));
                    return false;
                }
                entry => entry,
            };
            match (decide(query), entry) {
                (Decision::AlreadyCached, _) => false,
                (Decision::Send, Entry::Occupied(entry)) => {
                    let (SharedQuery(old), ()) = entry.remove_entry();
                    query.add_waiters_of(&old);
                    in_flight.insert(SharedQuery(Arc::clone(query)), ());
                    true
                }
                (Decision::JoinOnly, Entry::Occupied(entry)) => {
                    // The old query may have been lost, but an answer to it is the only one that can still come.
                    let existing = &entry.key().0;
                    existing.add_waiters_of(query);
                    joined.push(Arc::clone(existing));
                    false
                }
                (Decision::Send | Decision::JoinOnly, Entry::Vacant(entry)) => {
                    entry.insert(());
                    true
                }
            }
        });
        joined
    }

    /// Octets that are reserved for finished queries.
    #[cfg(test)]
    pub(crate) fn finished_octets(&self) -> usize {
        let table = self.table.lock();
        table
            .finished
            .iter()
            .map(|query| query.reserved_octets())
            .sum()
    }

    /// Stops new queries from joining the ones in flight.
    pub fn detach_all(&self) {
        self.table.lock().in_flight.clear();
    }

    /// Stops new queries from joining `query`, which has ended. If an equal query has taken over its clients, that one stays in the
    /// table and is returned.
    pub fn remove(&self, query: &Query) -> Option<Arc<Query>> {
        let Table {
            in_flight,
            finished,
        } = &mut *self.table.lock();
        let (found, ()) = in_flight.remove_entry(query.key_octets())?;
        if !std::ptr::eq(&*found.0, query) {
            let successor = Arc::clone(&found.0);
            in_flight.insert(found, ());
            return Some(successor);
        }
        if finished.len() < MAX_FINISHED && query.capacity() <= MAX_REUSED_CAPACITY {
            finished.push_back(found.0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::*;
    use crate::client::datagrams::DatagramSocket;
    use crate::client::destination::Client;
    use crate::forward::quota::{self, QueryQuota};
    use crate::forward::waiters::Waiter;
    use crate::message;
    use crate::system::memory;
    use crate::upstream::{Message as _, Query as _};

    const TIMEOUT: Duration = Duration::from_secs(3);
    /// One for all queries, so that their client has one slot.
    static QUOTA: LazyLock<QueryQuota> = LazyLock::new(QueryQuota::default);

    fn reset(query: &mut Query, name: &[u8], now: Instant) {
        let header = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let message = [&header, name, &[0, 0, 1, 0, 1]].concat();
        let asked = message::Query::parse(&message).expect("a query");
        query.reset(&asked, asked.key().as_ref(), now, TIMEOUT);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let peer = SocketAddr::from(([192, 0, 2, 1], 1));
        let client = Client::Datagram {
            peer,
            socket: Arc::new(DatagramSocket::new(socket, Arc::default())),
            local: None,
        };
        let limits = quota::Limits {
            max_queries: 10_000,
            free_octets: 1 << 20,
            total_octets: 1 << 20,
        };
        let slot = QUOTA.try_acquire(QUOTA.slots(peer, true), 1, &limits);
        let slot = slot.expect("there is room");
        query
            .clients_mut()
            .add(Waiter::new(&asked, client, now, TIMEOUT, (slot, 1)));
    }

    fn memory() -> Arc<Memory> {
        Memory::new(memory::Settings {
            limit: memory::MIN_LIMIT,
            connections: 1,
        })
    }

    fn new(name: &[u8]) -> Arc<Query> {
        let now = Instant::now();
        let mut query = Query::empty(now);
        reset(&mut query, name, now);
        Arc::new(query)
    }

    fn join_or_insert(table: &InFlightTable, queries: &[Arc<Query>], query_pool: &mut QueryPool) {
        let mut queries = queries.to_vec();
        let joined =
            table.join_or_insert(&mut queries, query_pool, Instant::now(), |_| Decision::Send);
        assert!(joined.is_empty());
    }

    /// All of a query but the socket and port of its client.
    fn described(query: &Query) -> String {
        let waiters = query.clients().take_waiters();
        let client = |waiter: &Waiter| {
            let asked = waiter.reply_to(query.question());
            (waiter.since, waiter.deadline, asked.id, asked.flags)
        };
        let clients: Vec<_> = waiters.iter().map(client).collect();
        format!("{query:?} {clients:?}")
    }

    #[test]
    fn a_reused_query_keeps_nothing_of_the_finished_one() {
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        let (table, mut query_pool, memory) =
            (InFlightTable::default(), QueryPool::default(), memory());
        let first = query_pool.reuse(&memory, 1000, now, |query| {
            reset(query, b"\x07example\x03org", now);
            query
                .clients_mut()
                .serve_stale_after(Duration::from_secs(1));
        });
        let first = first.expect("there is room");
        join_or_insert(&table, &[Arc::clone(&first)], &mut query_pool);
        first.extend(Duration::from_secs(1));
        first.mark_ended();
        first.note_outage();
        first.keep_fallback(b"a failure");
        assert_eq!(memory.held(Purpose::Queries), 1009);
        assert_eq!(first.take_fallback().as_deref(), Some(&b"a failure"[..]));
        assert!(first.has_ended() && first.is_outage() && first.mark_timed_out());
        assert!(table.remove(&first).is_none());
        let ended = Arc::as_ptr(&first);
        table.lend(&mut query_pool, 1);
        assert_eq!(memory.held(Purpose::Queries), 1000, "it is there still");

        // Another owner still holds the query.
        let mut held = QueryPool(query_pool.0.clone());
        let another = held.reuse(&memory, 700, later, |query| reset(query, b"\x01b", later));
        let another = another.expect("there is room");
        assert!(held.0.is_empty() && Arc::as_ptr(&another) != ended);
        drop(first);
        let reused = query_pool.reuse(&memory, 700, later, |query| reset(query, b"\x01b", later));
        let reused = reused.expect("there is room");
        assert_eq!(Arc::as_ptr(&reused), ended);
        assert_eq!(described(&reused), described(&another));
        assert_eq!(memory.held(Purpose::Queries), 1400);
        drop((reused, another));
        assert_eq!(memory.held(Purpose::Queries), 0);
    }

    #[test]
    fn without_memory_no_query_is_made() {
        let (now, memory) = (Instant::now(), memory());
        let share = memory.share_limit(Purpose::Queries);
        let mut query_pool = QueryPool::default();
        let one = query_pool.reuse(&memory, share - 10, now, |_| {});
        assert!(one.is_some());
        assert!(
            query_pool
                .reuse(&memory, 11, now, |_| panic!("it is not made"))
                .is_none()
        );
        // A finished query that is not reused gives its reservation back.
        let mut query_pool = QueryPool(one.into_iter().collect());
        assert!(query_pool.reuse(&memory, 11, now, |_| {}).is_some());
        assert_eq!(memory.held(Purpose::Queries), 0);
    }

    #[test]
    fn the_table_keeps_a_bounded_number_of_small_finished_queries() {
        let (table, mut query_pool) = (InFlightTable::default(), QueryPool::default());
        let names = (0..=MAX_FINISHED).map(|number| format!("\x04{number:04}"));
        let queries: Vec<_> = names.map(|name| new(name.as_bytes())).collect();
        join_or_insert(&table, &queries, &mut query_pool);
        for query in &queries {
            table.remove(query);
        }
        assert_eq!(table.table.lock().finished.len(), MAX_FINISHED);
        table.lend(&mut query_pool, 1000);
        assert_eq!(query_pool.0.len(), MAX_LENT);
        join_or_insert(&table, &queries, &mut query_pool);
        assert!(query_pool.0.is_empty(), "they went back");
        assert_eq!(table.table.lock().finished.len(), MAX_FINISHED);
        // A large query is not kept.
        let long = new(&[&[63; 64], &[63; 64], &[63; 64], &[31; 32][..]].concat());
        join_or_insert(&table, &[Arc::clone(&long)], &mut QueryPool::default());
        assert!(long.capacity() > MAX_REUSED_CAPACITY);
        table.table.lock().finished.clear();
        table.remove(&long);
        assert!(table.table.lock().finished.is_empty());
    }
}
