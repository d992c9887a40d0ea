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
use crate::system::memory::{is_fair, is_small};

/// Clients that are told apart, mostly.
const PLACES: usize = 16_384;
/// All clients together may have so many times as many queries on their way as one.
pub const ALL: usize = 4;

/// Where a query is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u16);

impl Place {
    /// Tells it from other clients' places, mostly.
    pub fn number(self) -> u16 {
        self.0
    }
}

/// Where a client's queries may be counted: its place, and the one where it has a little if the first is another one's, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places(Place, Place);

/// Why a client may not have one more query on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has too many, or all have.
    Number,
    /// They have too many octets.
    Octets,
}

/// What bounds the queries that wait.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Queries of one client.
    pub most: usize,
    /// Octets that are left for all, after those of the query in question.
    pub free: usize,
    /// Octets that there are for all.
    pub share: usize,
}

/// Clients' queries whose answer has not been sent.
pub struct Waiting {
    count: Arc<AtomicUsize>,
    /// Of each client: in the upper 32 bits the number of its queries, in the lower ones their octets.
    places: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            count: Arc::default(),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

/// One query in a place's number.
const ONE: u64 = 1 << 32;

impl Waiting {
    /// Where the queries of the client at `peer` may be counted.
    pub fn places(&self, peer: SocketAddr, is_datagram: bool) -> Places {
        let address = peer.ip().to_canonical();
        let socket = address.is_loopback().then(|| peer.port());
        let hash = self
            .hasher
            .hash_one((client_of(address), socket, is_datagram));
        let place = |hash: u64| Place((hash % PLACES as u64) as u16);
        Places(place(hash), place(hash >> 32))
    }

    /// Counts one more query of a client, of so many octets, if it may have it, and says where; or why it may not. Then it is to be counted off
    /// twice: there by [`Waiting::end`], and in number once its answer has been sent, by whoever has [`Waiting::counter`].
    pub fn admit(&self, places: Places, octets: u32, bounds: &Bounds) -> Result<Place, Refusal> {
        let all = ALL.saturating_mul(bounds.most);
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        let query = ONE | u64::from(octets);
        let own_at = |place: Place| {
            let own = self.at(place).fetch_add(query, Ordering::Relaxed) + query;
            ((own >> 32) as usize, (own & (ONE - 1)) as usize)
        };
        let Places(first, second) = places;
        let mut refusal = Refusal::Number;
        if count <= all {
            let (own, own_octets) = own_at(first);
            let is_over = own > bounds.most;
            if !is_over && is_fair(own, all - count, all) {
                if is_fair(own_octets, bounds.free, bounds.share) {
                    return Ok(first);
                }
                refusal = Refusal::Octets;
            }
            self.end(first, octets);
            if !is_over && bounds.free > 0 {
                let (own, own_octets) = own_at(second);
                if is_small(own, all) && is_small(own_octets, bounds.share) {
                    return Ok(second);
                }
                self.end(second, octets);
            }
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        Err(refusal)
    }

    /// A query of so many octets no longer waits.
    pub fn end(&self, place: Place, octets: u32) {
        let query = ONE | u64::from(octets);
        self.at(place).fetch_sub(query, Ordering::Relaxed);
    }

    fn at(&self, place: Place) -> &AtomicU64 {
        &self.places[usize::from(place.0)]
    }

    /// How many queries wait.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether no place counts anything.
    #[cfg(test)]
    pub(crate) fn is_clear(&self) -> bool {
        let mut places = self.places.iter();
        places.all(|place| place.load(Ordering::Relaxed) == 0)
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
pub fn time_for(timeout: Duration, left: usize, whole: usize) -> Duration {
    // In 1,024ths.
    let part = (left as u128 * 2048 / whole.max(1) as u128).min(1024) as u32;
    (timeout * part / 1024).max(timeout / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: usize = 9 << 20;

    fn bounds(most: usize, free: usize) -> Bounds {
        Bounds {
            most,
            free,
            share: SHARE,
        }
    }

    fn places(waiting: &Waiting, peer: &str) -> Places {
        waiting.places(peer.parse().expect("an address"), true)
    }

    /// Has a client of that number have one more query, and says whether it may.
    fn admits(waiting: &Waiting, client: u16, octets: u32, bounds: &Bounds) -> bool {
        let places = Places(Place(client), Place(client + 8192));
        waiting.admit(places, octets, bounds).is_ok()
    }

    fn end(waiting: &Waiting, client: u16, octets: u32) {
        waiting.end(Place(client), octets);
        waiting.counter().fetch_sub(1, Ordering::SeqCst);
    }

    #[test]
    fn one_client_has_as_many_as_it_may_and_others_find_room_beside_it() {
        for most in [1, 2, 3, 10, 8192] {
            let waiting = Waiting::default();
            let bounds = bounds(most, SHARE);
            let admitted = (0..2 * most).filter(|_| admits(&waiting, 1, 100, &bounds));
            assert_eq!(admitted.count(), most);
            assert!(admits(&waiting, 2, 100, &bounds), "another client");
            assert_eq!(waiting.count(), most + 1);
            [2, 1].iter().for_each(|client| end(&waiting, *client, 100));
            assert!(admits(&waiting, 1, 100, &bounds), "there is room again");
        }
    }

    #[test]
    fn beside_many_that_take_all_they_may_a_newcomer_has_some() {
        let waiting = Waiting::default();
        let bounds = bounds(8192, SHARE);
        for greedy in 0..150 {
            while admits(&waiting, greedy, 100, &bounds) {}
        }
        let admitted = (0..100).filter(|_| admits(&waiting, 1000, 100, &bounds));
        assert!(admitted.count() >= 8);
        assert!(waiting.count() <= ALL * 8192);
    }

    #[test]
    fn who_shares_its_place_with_one_that_takes_all_it_may_has_a_little_elsewhere() {
        let waiting = Waiting::default();
        let bounds = bounds(100, SHARE);
        while admits(&waiting, 1, 1000, &bounds) {}
        let greedy = waiting.count();
        assert_eq!(greedy, 100);
        // What it has there is more than others may have now.
        end(&waiting, 1, 1000);
        for other in [3, 4, 5] {
            while admits(&waiting, other, 1000, &bounds) {}
        }
        let places = Places(Place(1), Place(77));
        let place = waiting.admit(places, 1000, &bounds);
        assert_eq!(place, Ok(Place(77)));
    }

    #[test]
    fn who_asks_for_much_has_fewer() {
        let (waiting, mut free) = (Waiting::default(), SHARE);
        while admits(&waiting, 1, 4096, &bounds(8192, free - 4096)) {
            free -= 4096;
        }
        assert!(waiting.count() < 1000, "{}", waiting.count());
        assert!(free > SHARE / 2);
        assert!(admits(&waiting, 2, 600, &bounds(8192, free - 600)));
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
            let time = time_for(second, left, 100).as_millis();
            assert!(time.abs_diff(milliseconds) <= 1, "{left}: {time}");
        }
        assert_eq!(time_for(second, SHARE, SHARE), second);
    }

    #[test]
    fn what_was_not_admitted_counts_nowhere() {
        let waiting = Waiting::default();
        let places = Places(Place(1), Place(2));
        let bounds = bounds(1, 0);
        assert_eq!(waiting.admit(places, 5000, &bounds), Err(Refusal::Octets));
        assert!(waiting.admit(places, 100, &bounds).is_ok(), "a little");
        assert_eq!(waiting.admit(places, 100, &bounds), Err(Refusal::Number));
        end(&waiting, 1, 100);
        assert_eq!(waiting.count(), 0);
        assert!(waiting.is_clear());
    }

    #[test]
    fn a_client_is_an_address_and_on_this_host_a_socket() {
        let waiting = Waiting::default();
        assert_eq!(
            places(&waiting, "192.0.2.1:1"),
            places(&waiting, "192.0.2.1:2")
        );
        assert_eq!(
            places(&waiting, "[::ffff:192.0.2.1]:9"),
            places(&waiting, "192.0.2.1:2")
        );
        assert_eq!(
            places(&waiting, "[2001:db8::1]:1"),
            places(&waiting, "[2001:db8:0:1::2]:2")
        );
        // Two may share a place, but not all of many.
        let local: Vec<_> = (1..50)
            .map(|port| places(&waiting, &format!("127.0.0.1:{port}")))
            .collect();
        assert!(local.iter().any(|places| *places != local[0]));
        let by_tcp = waiting.places("192.0.2.1:1".parse().expect("an address"), false);
        let others: Vec<_> = (1..50)
            .map(|host| waiting.places(SocketAddr::from(([192, 0, 2, host], 1)), false))
            .collect();
        assert!(others.iter().any(|places| *places != by_tcp));
    }
}
