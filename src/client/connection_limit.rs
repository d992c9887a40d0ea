//! Who may be connected by TCP?
//!
//! There are so many places. When all are taken, a newcomer gets one of whoever asks more than it may; else of the client that has
//! the most of them: that of its connection that has been idle for the longest time, or where none is idle, of the one that has
//! kept us for the longest time, by a query that waits for its answer or by answers that it does not read: at once where the
//! last query had no answer of the resolver either; and where all are busy since a moment ago, of the last that came. Programs on
//! this host have one address; there a client is a user.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::stream::Stream;
use super::{EvictionCounters, client_of};
use crate::system::clock;

/// How long a newcomer waits for a place before it looks again; and whether one becomes free by itself, before it gets one of
/// somebody who is busy since a moment ago.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long it waits in the end, where it finds none again and again: less than a client notices.
const LOOK_SELDOM: Duration = Duration::from_millis(16);
/// How long a connection keeps us before it is evicted for that rather than a younger one: most answers come sooner and are read at
/// once, and whoever is evicted just before its answer has waited in vain.
const LEAST: Duration = Duration::from_millis(500);

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
        let came = clock::now();
        let mut pause = LOOK_AGAIN;
        loop {
            let mut places = self.places.lock();
            if places.closed {
                return None;
            }
            if let Some(slot) = self.place(&mut places) {
                return Some(slot);
            }
            drop(places);
            let mut streams = self.streams();
            if self.evict_one(&mut streams, came) {
                continue;
            }
            drop(streams);
            let mut places = self.places.lock();
            if places.taken.len() >= self.most && !places.closed {
                self.freed.wait_for(&mut places, pause);
            }
            drop(places);
            // Where nobody may go, as all came just now, to look is all that this thread would do.
            pause = pause.saturating_mul(2).min(LOOK_SELDOM);
        }
    }

    /// Whether one more connection from `address` may stay beside at most `most` of its client, of which the longest idle is
    /// evicted.
    pub fn admit(&self, address: IpAddr, most: usize) -> bool {
        let client = client_of(address);
        let mut streams = self.streams();
        streams.retain(|stream| client_of(stream.peer().ip()) == client);
        let admitted = streams.len() < most || self.evict_idle(&mut streams);
        if !admitted {
            self.evictions.refused.increment();
        }
        admitted
    }

    /// Ends the connection among `streams` that has been idle for the longest time. Whether there was one.
    fn evict_idle(&self, streams: &mut Vec<Arc<Stream>>) -> bool {
        let now = clock::now();
        self.evict(streams, |stream| ((), stream.keeps_since(now).idle()))
    }

    /// Ends the connection that is to go in favour of a newcomer that has waited since it `came`. Whether there was one.
    fn evict_one(&self, streams: &mut Vec<Arc<Stream>>, came: Instant) -> bool {
        let now = clock::now();
        let waits = now.saturating_duration_since(came) < LOOK_AGAIN;
        self.evict(streams, |stream| {
            // On this host, where all have the same addresses, a client is a user.
            let client = match stream.user() {
                None => Ok(client_of(stream.peer().ip())),
                Some(user) => Err(user),
            };
            (client, stream.keeps_since(now).by_age(waits, now))
        })
    }

    /// Ends the first of `streams` that may go, as `look` says of each. Whether there was one.
    fn evict<C: Eq + Hash>(
        &self,
        streams: &mut Vec<Arc<Stream>>,
        look: impl Fn(&Stream) -> (C, Keeps),
    ) -> bool {
        // Each round makes the list shorter.
        while let Some(place) = first_to_go(streams.iter().map(|stream| look(stream))) {
            let stream = streams.swap_remove(place);
            // One that was idle, and was asked something meanwhile, stays.
            if stream.evict() {
                self.evictions.gave_way.increment();
                return true;
            }
        }
        false
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

/// How a connection keeps its place, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keeps {
    /// It is idle, and its client asked more than it may.
    OverLimit(Instant),
    /// Nothing is owed to its client, and nothing came of it.
    Idle(Instant),
    /// A query waits for its answer, and the last one of its client's had none from the resolver.
    Unanswered(Instant),
    /// A query waits for its answer, or answers wait until they are read.
    Busy(Instant),
    /// So does it since a moment ago.
    Young(Reverse<Instant>),
    /// It stays.
    Stays,
}

impl Keeps {
    /// The same where only what is idle goes.
    fn idle(self) -> Self {
        match self {
            Self::OverLimit(_) | Self::Idle(_) => self,
            _ => Self::Stays,
        }
    }

    /// The same where what is busy goes by how long it has been: the oldest first, if it has been for long, else the youngest; and
    /// that not as long as the newcomer `waits`.
    fn by_age(self, waits: bool, now: Instant) -> Self {
        match self {
            Self::Busy(since) if now.saturating_duration_since(since) >= LEAST => self,
            Self::Busy(_) if waits => Self::Stays,
            Self::Busy(since) => Self::Young(Reverse(since)),
            other => other,
        }
    }
}

/// Of connections, each with its client and how it keeps its place, which one is the first to go.
fn first_to_go<C: Eq + Hash>(connections: impl Iterator<Item = (C, Keeps)>) -> Option<usize> {
    let mut over_limit = None;
    let mut clients: HashMap<C, (usize, Option<(Keeps, usize)>)> = HashMap::new();
    for (place, (client, keeps)) in connections.enumerate() {
        let (count, first) = clients.entry(client).or_default();
        *count = count.saturating_add(1);
        let found = Some((keeps, place)).filter(|_| keeps != Keeps::Stays);
        *first = first.iter().copied().chain(found).min();
        if let Keeps::OverLimit(since) = keeps {
            over_limit = over_limit.iter().copied().chain([(since, place)]).min();
        }
    }
    let most = clients
        .into_values()
        .filter_map(|(count, first)| Some((count, Reverse(first?))))
        // Who has one place keeps it for a moment, whoever comes.
        .filter(|(count, Reverse((keeps, _)))| *count > 1 || !matches!(keeps, Keeps::Young(_)))
        .max();
    let of_most = most.map(|(_, Reverse((_, place)))| place);
    over_limit.map(|(_, place)| place).or(of_most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of the one that goes, of connections of clients: `o`ver its limit, `i`dle, `u`nanswered, `b`usy, `y`oung or to stay, each with for how
    /// many seconds.
    fn goes(connections: &[(char, char, u64)]) -> Option<usize> {
        let now = clock::now() + Duration::from_secs(1000);
        first_to_go(connections.iter().map(|(client, kind, seconds)| {
            let since = now - Duration::from_secs(*seconds);
            let keeps = match kind {
                'o' => Keeps::OverLimit(since),
                'i' => Keeps::Idle(since),
                'u' => Keeps::Unanswered(since),
                'b' => Keeps::Busy(since),
                'y' => Keeps::Young(Reverse(since)),
                _ => Keeps::Stays,
            };
            (client, keeps)
        }))
    }

    #[test]
    fn whoever_has_the_most_places_gives_one_and_what_is_idle_goes_before_what_is_busy() {
        assert_eq!(goes(&[]), None);
        assert_eq!(goes(&[('a', '-', 9), ('b', '-', 9)]), None, "all stay");
        assert_eq!(
            goes(&[('a', 'i', 1), ('a', 'i', 2), ('a', 'b', 9)]),
            Some(1)
        );
        assert_eq!(
            goes(&[('a', 'b', 1), ('a', 'b', 2), ('a', '-', 9)]),
            Some(1)
        );
        assert_eq!(
            goes(&[('a', 'b', 9), ('a', 'u', 1), ('a', 'b', 9)]),
            Some(1)
        );
        assert_eq!(goes(&[('a', 'y', 3), ('b', 'y', 1)]), None, "one each");
        // Who is idle on one connection keeps it beside one that has many.
        assert_eq!(
            goes(&[('a', 'i', 9), ('b', 'b', 1), ('b', 'b', 2)]),
            Some(2)
        );
        // All have as many.
        assert_eq!(
            goes(&[('a', 'b', 9), ('b', 'i', 1), ('c', 'i', 2)]),
            Some(2)
        );
        assert_eq!(
            goes(&[('a', 'b', 1), ('b', 'b', 9), ('c', 'b', 2)]),
            Some(1)
        );
        // Of the one that has the most, none may go.
        assert_eq!(
            goes(&[('a', 'i', 1), ('b', '-', 9), ('b', '-', 9)]),
            Some(0)
        );
        // Who asks more than it may goes first.
        assert_eq!(
            goes(&[('a', 'o', 1), ('b', 'i', 9), ('b', 'i', 9)]),
            Some(0)
        );
    }

    #[test]
    fn what_is_busy_goes_by_its_age_and_where_only_idle_ones_go_for_no_reason() {
        let now = clock::now() + Duration::from_secs(1000);
        let (long, short) = (now - LEAST, now - LEAST / 2);
        let (idle, unanswered) = (Keeps::Idle(long), Keeps::Unanswered(short));
        assert_eq!(
            [Keeps::Busy(long).idle(), unanswered.idle()],
            [Keeps::Stays; 2]
        );
        assert_eq!(idle.idle(), idle);
        for waits in [true, false] {
            assert_eq!(Keeps::Busy(long).by_age(waits, now), Keeps::Busy(long));
            assert_eq!(unanswered.by_age(waits, now), unanswered);
            assert_eq!(idle.by_age(waits, now), idle);
        }
        let young = Keeps::Young(Reverse(short));
        assert_eq!(Keeps::Busy(short).by_age(false, now), young);
        assert_eq!(Keeps::Busy(short).by_age(true, now), Keeps::Stays);
    }
}
