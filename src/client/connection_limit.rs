//! Who may be connected by TCP?
//!
//! There are so many places. When all are taken, a newcomer gets the place of the connection that has been idle for the longest
//! time; and where none is idle, since all wait for answers, of the one that has waited for the longest time among those of the
//! client that has the most places. Programs on this host have one address; there a client is a user.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::stream::Stream;
use super::{EvictionCounters, client_of};
use crate::clock;

/// How long a newcomer waits for a place where nobody can be evicted, before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a connection waits for an answer before it can be evicted for that: most answers come sooner.
const LEAST_WAIT: Duration = Duration::from_millis(20);

/// The places of TCP clients.
#[derive(Debug)]
pub struct ConnectionLimit {
    most: usize,
    places: Mutex<Places>,
    freed: Condvar,
    evictions: Arc<EvictionCounters>,
}

#[derive(Debug, Default)]
struct Places {
    /// By number: who has it, once that is known.
    taken: HashMap<u64, Weak<Stream>>,
    next: u64,
    closed: bool,
}

/// A TCP client's place, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<ConnectionLimit>,
    number: u64,
}

impl ConnectionLimit {
    /// So many places, all free.
    pub fn new(most: usize, evictions: Arc<EvictionCounters>) -> Arc<Self> {
        Arc::new(Self {
            most,
            places: Mutex::default(),
            freed: Condvar::new(),
            evictions,
        })
    }

    /// Takes a free place, if there is one. None, too, once [`ConnectionLimit::close`] was called.
    pub fn take_now(self: &Arc<Self>) -> Option<Slot> {
        self.place(&mut self.places.lock())
    }

    fn place(self: &Arc<Self>, places: &mut Places) -> Option<Slot> {
        if places.closed || places.taken.len() >= self.most {
            return None;
        }
        let number = places.next;
        places.next = number.wrapping_add(1);
        places.taken.insert(number, Weak::new());
        let slots = Arc::clone(self);
        Some(Slot { slots, number })
    }

    /// Takes a place for somebody who waits already: a free one, one of a connection that is evicted, or the next that becomes
    /// either. None once [`ConnectionLimit::close`] was called.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        loop {
            let mut places = self.places.lock();
            if places.closed {
                return None;
            }
            if let Some(slot) = self.place(&mut places) {
                return Some(slot);
            }
            drop(places);
            let streams = self.streams();
            if self.evict_longest_idle(&streams) || self.evict_longest_waiting(&streams) {
                continue;
            }
            drop(streams);
            let mut places = self.places.lock();
            if places.taken.len() >= self.most && !places.closed {
                self.freed.wait_for(&mut places, LOOK_AGAIN);
            }
        }
    }

    /// Whether one more connection from `address` may stay beside at most `most` of its client, of which the longest idle is
    /// evicted.
    pub fn admit(&self, address: IpAddr, most: usize) -> bool {
        let client = client_of(address);
        let mut streams = self.streams();
        streams.retain(|stream| client_of(stream.peer().ip()) == client);
        let admitted = streams.len() < most || self.evict_longest_idle(&streams);
        if !admitted {
            self.evictions.refused.increment();
        }
        admitted
    }

    /// Ends the connection that has been idle for the longest time. Whether there was one.
    fn evict_longest_idle(&self, streams: &[Arc<Stream>]) -> bool {
        let now = clock::now();
        let idle = streams
            .iter()
            .filter_map(|stream| Some((stream.idle_since(now)?, stream)));
        let mut idle: Vec<_> = idle.collect();
        let longest = |idle: &[(_, _)]| {
            let places = idle.iter().enumerate();
            places
                .min_by_key(|(_, (since, _))| *since)
                .map(|(place, _)| place)
        };
        while let Some(place) = longest(&idle) {
            let (_, stream) = idle.swap_remove(place);
            // One that was just asked something stays.
            if stream.evict_idle() {
                self.evictions.gave_way.increment();
                return true;
            }
        }
        false
    }

    /// Ends the connection that has waited for an answer for the longest time, of the client that has the most places. Whether
    /// there was one.
    fn evict_longest_waiting(&self, streams: &[Arc<Stream>]) -> bool {
        let now = clock::now();
        let connections = streams.iter().map(|stream| {
            // On this host, where all have the same addresses, a client is a user.
            let client = match stream.user() {
                None => Ok(client_of(stream.peer().ip())),
                Some(user) => Err(user),
            };
            let waited = |since: &Instant| now.saturating_duration_since(*since) >= LEAST_WAIT;
            (client, stream.waits_since(now).filter(waited))
        });
        let evicted = longest_waiting(connections).and_then(|place| streams.get(place));
        if let Some(stream) = evicted {
            stream.evict_waiting();
            self.evictions.gave_way.increment();
        }
        evicted.is_some()
    }

    /// Those that have places. Not to be dropped under the lock: the last to let go gives the place back.
    fn streams(&self) -> Vec<Arc<Stream>> {
        let places = self.places.lock();
        places.taken.values().filter_map(Weak::upgrade).collect()
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.places.lock().taken.len()
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Takes no more clients.
    pub fn close(&self) {
        self.places.lock().closed = true;
        self.freed.notify_all();
    }
}

impl Slot {
    /// Says who has it.
    pub(super) fn belongs_to(&self, stream: &Weak<Stream>) {
        let mut places = self.slots.places.lock();
        places.taken.insert(self.number, Weak::clone(stream));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.places.lock().taken.remove(&self.number);
        self.slots.freed.notify_all();
    }
}

/// Of connections, each with its client and since when it waits if it does, the place of the one that has waited the longest,
/// among those of the client that has the most of them and one that waits.
fn longest_waiting<C: Eq + Hash>(
    connections: impl Iterator<Item = (C, Option<Instant>)>,
) -> Option<usize> {
    let mut clients: HashMap<C, (usize, Option<(Instant, usize)>)> = HashMap::new();
    for (place, (client, waits_since)) in connections.enumerate() {
        let (count, longest) = clients.entry(client).or_default();
        *count = count.saturating_add(1);
        let waiting = waits_since.map(|since| (since, place));
        *longest = longest.iter().copied().chain(waiting).min();
    }
    let waiting = clients.into_values();
    let waiting = waiting.filter_map(|(count, longest)| Some((count, Reverse(longest?))));
    let (_, Reverse((_, place))) = waiting.max()?;
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of the one that is evicted, of connections of clients, each with how many seconds it has waited.
    fn evicted(connections: &[(char, Option<u64>)]) -> Option<usize> {
        let now = clock::now() + Duration::from_secs(1000);
        let since = |waited: u64| now - Duration::from_secs(waited);
        longest_waiting(
            connections
                .iter()
                .map(|(client, waited)| (client, waited.map(since))),
        )
    }

    #[test]
    fn whoever_has_the_most_places_gives_the_one_that_has_waited_the_longest() {
        assert_eq!(evicted(&[]), None);
        assert_eq!(evicted(&[('a', None), ('b', None)]), None, "nobody waits");
        assert_eq!(
            evicted(&[('a', Some(9)), ('b', Some(1)), ('b', Some(2))]),
            Some(2)
        );
        assert_eq!(
            evicted(&[('a', Some(1)), ('b', Some(9)), ('c', Some(2))]),
            Some(1),
            "all have as many"
        );
        assert_eq!(
            evicted(&[('a', Some(1)), ('b', None), ('b', None)]),
            Some(0),
            "others do not wait"
        );
        assert_eq!(
            evicted(&[('a', Some(9)), ('b', None), ('b', Some(1))]),
            Some(2)
        );
    }
}
