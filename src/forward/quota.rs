//! May this client have one more query on its way?
//!
//! Queries that wait for the resolver are bounded in number and in octets, for each client and in all. A client is known by its
//! address as for all limits ([`client_of`]), by UDP and by TCP apart, since the address of a datagram may be forged; on
//! this host, where all have the same address, by its socket. Clients are counted in a table of fixed size, in places that a
//! hash with a secret key gives them, and nobody can choose with whom it shares one. Who finds that another one has taken much there has
//! a second place, for a little. No lock, no clock.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::address::client_of;
use crate::system::memory::{is_fair, is_little};

/// Clients that are told apart, mostly.
const SLOTS: usize = 16_384;
/// All clients together may have so many times as many queries on their way as one.
pub const ALL_CLIENTS: usize = 4;

/// Where a query is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u16);

impl Slot {
    /// Tells it from other clients' places, mostly.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Where a client's queries may be counted: its place, and the one where it has a little if the first is another one's, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientSlots(Slot, Slot);

/// Why a client may not have one more query on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// It has too many, or all have.
    Queries,
    /// They have too many octets.
    Octets,
}

/// What bounds the queries that wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Queries of one client.
    pub max_queries: usize,
    /// Octets that are left for all, after those of the query in question.
    pub free_octets: usize,
    /// Octets that there are for all.
    pub total_octets: usize,
}

/// Clients' queries whose answer has not been sent.
pub struct QueryQuota {
    count: Arc<AtomicUsize>,
    /// Of each client: in the upper 32 bits the number of its queries, in the lower ones their octets.
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl fmt::Debug for QueryQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
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

/// One query in a place's number.
const ONE_QUERY: u64 = 1 << 32;

impl QueryQuota {
    /// Where the queries of the client at `peer` may be counted.
    pub fn slots(&self, peer: SocketAddr, is_datagram: bool) -> ClientSlots {
        let address = peer.ip().to_canonical();
        let socket = address.is_loopback().then(|| peer.port());
        let hash = self
            .hasher
            .hash_one((client_of(address), socket, is_datagram));
        let slot = |hash: u64| Slot((hash % SLOTS as u64) as u16);
        ClientSlots(slot(hash), slot(hash >> 32))
    }

    /// Counts one more query of a client, of so many octets, if it may have it, and says where; or why it may not. Then it is to be counted off
    /// twice: there by [`QueryQuota::release`], and in number once its answer has been sent, by whoever has [`QueryQuota::counter`].
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
                if is_little(own, all) && is_little(own_octets, limits.total_octets) {
                    return Ok(second);
                }
                self.release(second, octets);
            }
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        Err(exceeded)
    }

    /// A query of so many octets no longer waits.
    pub fn release(&self, slot: Slot, octets: u32) {
        let query = ONE_QUERY | u64::from(octets);
        self.counter_at(slot).fetch_sub(query, Ordering::Relaxed);
    }

    fn counter_at(&self, slot: Slot) -> &AtomicU64 {
        &self.slots[usize::from(slot.0)]
    }

    /// How many queries wait.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether no place counts anything.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let mut slots = self.slots.iter();
        slots.all(|slot| slot.load(Ordering::Relaxed) == 0)
    }

    /// The number of those that wait, for whoever counts them off.
    pub fn counter(&self) -> &Arc<AtomicUsize> {
        &self.count
    }
}

/// How long a query may take that comes while so much is `left` of a `whole`, where it has `timeout` otherwise. As long as half is
/// left, that; then the less the less is left, down to a tenth.
///
/// Queries that are never answered take all the time that they may have, others mostly do not. So whoever floods with such ones,
/// under however many addresses, leaves room for those that are answered soon.
pub fn timeout_under_load(timeout: Duration, left: usize, whole: usize) -> Duration {
    // In 1,024ths.
    let part = (left as u128 * 2048 / whole.max(1) as u128).min(1024) as u32;
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

    /// Has a client of that number have one more query, and says whether it may.
    fn admits(quota: &QueryQuota, client: u16, octets: u32, limits: &Limits) -> bool {
        let slots = ClientSlots(Slot(client), Slot(client + 8192));
        quota.try_acquire(slots, octets, limits).is_ok()
    }

    fn release(quota: &QueryQuota, client: u16, octets: u32) {
        quota.release(Slot(client), octets);
        quota.counter().fetch_sub(1, Ordering::SeqCst);
    }

    #[test]
    fn one_client_has_as_many_as_it_may_and_others_find_room_beside_it() {
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
    fn beside_many_that_take_all_they_may_a_newcomer_has_some() {
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
    fn who_shares_its_place_with_one_that_takes_all_it_may_has_a_little_elsewhere() {
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
    fn who_asks_for_much_has_fewer() {
        let (quota, mut free_octets) = (QueryQuota::default(), TOTAL);
        while admits(&quota, 1, 4096, &limits(8192, free_octets - 4096)) {
            free_octets -= 4096;
        }
        assert!(quota.count() < 1000, "{}", quota.count());
        assert!(free_octets > TOTAL / 2);
        assert!(admits(&quota, 2, 600, &limits(8192, free_octets - 600)));
    }

    #[test]
    fn while_little_is_left_a_query_has_less_time() {
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
    fn what_was_not_admitted_counts_nowhere() {
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
