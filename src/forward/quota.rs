//! May this client have one more query in flight?
//!
//! Queries in flight are limited in number and in octets, for each client and in all. A client is known by its address, as for all
//! limits ([`client_of`]), and on this host, where all clients have the same address, by its socket. UDP and TCP are counted apart,
//! since the source of a datagram may be forged. Clients are counted in a table of fixed size. A hash under a secret key gives each
//! client its slot, so that no client can choose with which others it shares one. Where another client has used up a slot, a client
//! may have a few queries in a second slot. The counters are atomic: no lock is taken. No clock is read.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::address::client_of;
use crate::system::memory::{is_fair, is_small};

/// Slots of the table.
const SLOTS: usize = 16_384;
/// All clients together may have this many times as many queries in flight as one client.
pub const ALL_CLIENTS: usize = 4;

/// The slot in which a query is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// The index of the slot, which mostly differs from those of other clients.
    pub fn index(self) -> u16 {
        self.0
    }
}

/// The two slots of a client: its own, and the one for a few queries if another client uses up the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSlots(Slot, Slot);

/// Which limit one more query would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// The number of queries, of the client or in all.
    Queries,
    /// The octets of queries, of the client or in all.
    Octets,
}

/// Limits on the queries in flight.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Queries of one client, at most.
    pub max_queries: usize,
    /// Octets that are left for all clients after the query in question.
    pub free_octets: usize,
    /// Octets of all clients, at most.
    pub total_octets: usize,
}

/// Counts clients' queries whose answer has not been sent.
///
/// Shared by all threads; all its counters are atomic.
pub struct QueryQuota {
    /// Queries of all clients.
    count: Arc<AtomicUsize>,
    /// In the upper 32 bits of each slot the number of its queries, in the lower 32 bits their octets.
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl fmt::Debug for QueryQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryQuota")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Default for QueryQuota {
    fn default() -> Self {
        Self {
            count: Arc::default(),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// One query in the counter of a slot.
const ONE_QUERY: u64 = 1 << 32;

impl QueryQuota {
    /// The slots of the client at `peer`.
    pub fn slots(&self, peer: SocketAddr, is_datagram: bool) -> ClientSlots {
        let address = peer.ip().to_canonical();
        let socket = address.is_loopback().then(|| peer.port());
        let hash = self
            .hasher
            .hash_one((client_of(address), socket, is_datagram));
        let slot = |hash: u64| Slot((hash % SLOTS as u64) as u16);
        ClientSlots(slot(hash), slot(hash >> 32))
    }

    /// Counts one more query of a client, of this many octets, if the limits allow it, and returns its slot.
    ///
    /// The caller gives it back in two steps: the slot by [`QueryQuota::release`] when the query ends, and one off
    /// [`QueryQuota::counter`] when its answer has been sent.
    pub fn try_acquire(
        &self,
        slots: ClientSlots,
        octets: u32,
        limits: &Limits,
    ) -> Result<Slot, Exceeded> {
        let all = ALL_CLIENTS.saturating_mul(limits.max_queries);
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let query = ONE_QUERY | u64::from(octets);
        let add_at = |slot: Slot| {
            let own = self.counter_at(slot).fetch_add(query, Ordering::Relaxed) + query;
            ((own >> 32) as usize, (own & (ONE_QUERY - 1)) as usize)
        };
        let ClientSlots(first, second) = slots;
        let mut exceeded = Exceeded::Queries;
        if count <= all {
            let (own, own_octets) = add_at(first);
            let is_over = own > limits.max_queries;
            if !is_over && is_fair(own, all - count, all) {
                if is_fair(own_octets, limits.free_octets, limits.total_octets) {
                    return Ok(first);
                }
                exceeded = Exceeded::Octets;
            }
            self.release(first, octets);
            if !is_over && limits.free_octets > 0 {
                let (own, own_octets) = add_at(second);
                if is_small(own, all) && is_small(own_octets, limits.total_octets) {
                    return Ok(second);
                }
                self.release(second, octets);
            }
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        Err(exceeded)
    }

    /// Gives a query of this many octets back to its slot. [`QueryQuota::counter`] stays as it is.
    pub fn release(&self, slot: Slot, octets: u32) {
        let query = ONE_QUERY | u64::from(octets);
        self.counter_at(slot).fetch_sub(query, Ordering::Relaxed);
    }

    fn counter_at(&self, slot: Slot) -> &AtomicU64 {
        &self.slots[usize::from(slot.0)]
    }

    /// The number of queries in flight, of all clients.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether all slots are empty.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let mut slots = self.slots.iter();
        slots.all(|slot| slot.load(Ordering::Relaxed) == 0)
    }

    /// The counter of queries in flight, for the thread that sends their answers.
    pub fn counter(&self) -> &Arc<AtomicUsize> {
        &self.count
    }
}

/// How long a new query may take while `left` of `total` octets are free: `timeout` while at least half are free, then less in
/// proportion to what is free, down to a tenth of `timeout`.
///
/// A query that is never answered takes all of its time, and others mostly do not. So a flood of queries that are never answered,
/// from any number of addresses, leaves room for those that are answered soon.
pub fn timeout_under_load(timeout: Duration, left: usize, total: usize) -> Duration {
    // In 1,024ths.
    let part = (left as u128 * 2048 / total.max(1) as u128).min(1024) as u32;
    (timeout * part / 1024).max(timeout / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: usize = 9 << 20;

    fn limits(max_queries: usize, free_octets: usize) -> Limits {
        Limits {
            max_queries,
            free_octets,
            total_octets: TOTAL,
        }
    }

    fn slots(quota: &QueryQuota, peer: &str) -> ClientSlots {
        quota.slots(peer.parse().expect("an address"), true)
    }

    /// Acquires a query for the client of this number, and returns whether the limits allow it.
    fn admits(quota: &QueryQuota, client: u16, octets: u32, limits: &Limits) -> bool {
        let slots = ClientSlots(Slot(client), Slot(client + 8192));
        quota.try_acquire(slots, octets, limits).is_ok()
    }

    fn release(quota: &QueryQuota, client: u16, octets: u32) {
        quota.release(Slot(client), octets);
        quota.counter().fetch_sub(1, Ordering::SeqCst);
    }

    #[test]
    fn one_client_has_as_many_queries_as_it_may_and_others_have_room_beside_it() {
        for max_queries in [1, 2, 3, 10, 8192] {
            let quota = QueryQuota::default();
            let limits = limits(max_queries, TOTAL);
            let admitted = (0..2 * max_queries).filter(|_| admits(&quota, 1, 100, &limits));
            assert_eq!(admitted.count(), max_queries);
            assert!(admits(&quota, 2, 100, &limits), "another client");
            assert_eq!(quota.count(), max_queries + 1);
            [2, 1]
                .iter()
                .for_each(|client| release(&quota, *client, 100));
            assert!(admits(&quota, 1, 100, &limits), "there is room again");
        }
    }

    #[test]
    fn beside_many_clients_at_their_limit_a_new_one_has_some_queries() {
        let quota = QueryQuota::default();
        let limits = limits(8192, TOTAL);
        for greedy in 0..150 {
            while admits(&quota, greedy, 100, &limits) {}
        }
        let admitted = (0..100).filter(|_| admits(&quota, 1000, 100, &limits));
        assert!(admitted.count() >= 8);
        assert!(quota.count() <= ALL_CLIENTS * 8192);
    }

    #[test]
    fn a_client_whose_slot_is_used_up_has_a_few_queries_in_another_one() {
        let quota = QueryQuota::default();
        let limits = limits(100, TOTAL);
        while admits(&quota, 1, 1000, &limits) {}
        let greedy = quota.count();
        assert_eq!(greedy, 100);
        // What it has there is more than others may have now.
        release(&quota, 1, 1000);
        for other in [3, 4, 5] {
            while admits(&quota, other, 1000, &limits) {}
        }
        let slots = ClientSlots(Slot(1), Slot(77));
        let slot = quota.try_acquire(slots, 1000, &limits);
        assert_eq!(slot, Ok(Slot(77)));
    }

    #[test]
    fn a_client_of_large_queries_has_fewer_of_them() {
        let (quota, mut free_octets) = (QueryQuota::default(), TOTAL);
        while admits(&quota, 1, 4096, &limits(8192, free_octets - 4096)) {
            free_octets -= 4096;
        }
        assert!(quota.count() < 1000, "{}", quota.count());
        assert!(free_octets > TOTAL / 2);
        assert!(admits(&quota, 2, 600, &limits(8192, free_octets - 600)));
    }

    #[test]
    fn while_little_memory_is_left_a_query_has_less_time() {
        let second = Duration::from_secs(1);
        for (left, milliseconds) in [
            (100, 1000),
            (50, 1000),
            (25, 500),
            (10, 200),
            (5, 100),
            (0, 100),
        ] {
            let time = timeout_under_load(second, left, 100).as_millis();
            assert!(time.abs_diff(milliseconds) <= 1, "{left}: {time}");
        }
        assert_eq!(timeout_under_load(second, TOTAL, TOTAL), second);
    }

    #[test]
    fn a_query_over_a_limit_is_counted_nowhere() {
        let quota = QueryQuota::default();
        let slots = ClientSlots(Slot(1), Slot(2));
        let limits = limits(1, 0);
        assert_eq!(
            quota.try_acquire(slots, 5000, &limits),
            Err(Exceeded::Octets)
        );
        assert!(quota.try_acquire(slots, 100, &limits).is_ok(), "a little");
        assert_eq!(
            quota.try_acquire(slots, 100, &limits),
            Err(Exceeded::Queries)
        );
        release(&quota, 1, 100);
        assert_eq!(quota.count(), 0);
        assert!(quota.is_empty());
    }

    #[test]
    fn a_client_is_an_address_and_on_this_host_a_socket() {
        let quota = QueryQuota::default();
        assert_eq!(slots(&quota, "192.0.2.1:1"), slots(&quota, "192.0.2.1:2"));
        assert_eq!(
            slots(&quota, "[::ffff:192.0.2.1]:9"),
            slots(&quota, "192.0.2.1:2")
        );
        assert_eq!(
            slots(&quota, "[2001:db8::1]:1"),
            slots(&quota, "[2001:db8:0:1::2]:2")
        );
        // Two may share a place, but not all of many.
        let local: Vec<_> = (1..50)
            .map(|port| slots(&quota, &format!("127.0.0.1:{port}")))
            .collect();
        assert!(local.iter().any(|slots| *slots != local[0]));
        let by_tcp = quota.slots("192.0.2.1:1".parse().expect("an address"), false);
        let others: Vec<_> = (1..50)
            .map(|host| quota.slots(SocketAddr::from(([192, 0, 2, host], 1)), false))
            .collect();
        assert!(others.iter().any(|slots| *slots != by_tcp));
    }
}
