//! Who may be connected by TCP?
//!
//! There are so many places. When all are taken, a newcomer gets one of whoever asks more than it may; else of the client that has
//! the most of them: that of its connection that has been idle for the longest time, or where none is idle, of the one that has
//! kept us for the longest time, by a query that waits for its answer or by answers that it does not read: at once where the
//! last query had no answer of the resolver either; and where all are busy since a moment ago, of the last that came. Programs on
//! this host have one address; there a client is a user.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::address::client_of;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::eviction_order::{Keeps, first_to_go};
use crate::client::slots::{Slot, Slots};
use crate::client::stream::Stream;
use crate::system::clock;

/// How long a newcomer waits for a place before it looks again; and whether one becomes free by itself, before it gets one of
/// somebody who is busy since a moment ago.
const EVICTION_RETRY: Duration = Duration::from_millis(2);
/// How long it waits in the end, where it finds none again and again: less than a client notices.
const MAX_EVICTION_RETRY: Duration = Duration::from_millis(16);
/// The places of TCP clients.
#[derive(Debug)]
pub struct ConnectionLimit {
    slots: Arc<Slots<Stream>>,
    evictions: Arc<EvictionCounters>,
}

impl ConnectionLimit {
    /// So many places, all free.
    pub fn new(capacity: usize, evictions: Arc<EvictionCounters>) -> Arc<Self> {
        let slots = Slots::new(capacity);
        Arc::new(Self { slots, evictions })
    }

    /// Takes a free place, if there is one. None, too, once [`ConnectionLimit::close`] was called.
    pub fn try_acquire(&self) -> Option<Slot<Stream>> {
        self.slots.try_acquire()
    }

    /// Takes a place for somebody who waits already: a free one, one of a connection that is evicted, or the next that becomes
    /// either. None once [`ConnectionLimit::close`] was called.
    pub fn acquire(&self) -> Option<Slot<Stream>> {
        let waiting_since = clock::now();
        let mut pause = EVICTION_RETRY;
        loop {
            let slot = self.slots.try_acquire();
            if slot.is_some() || self.slots.is_closed() {
                return slot;
            }
            let mut streams = self.slots.holders();
            if self.evict_one(&mut streams, waiting_since) {
                continue;
            }
            drop(streams);
            self.slots.wait_for_free(pause);
            // Where nobody may go, as all came just now, to look is all that this thread would do.
            pause = pause.saturating_mul(2).min(MAX_EVICTION_RETRY);
        }
    }

    /// Whether one more connection from `address` may stay beside at most `most` of its client, of which the longest idle is
    /// evicted.
    pub fn admit(&self, address: IpAddr, most: usize) -> bool {
        let client = client_of(address);
        let mut streams = self.slots.holders();
        streams.retain(|stream| client_of(stream.peer().ip()) == client);
        let admitted = streams.len() < most || self.evict_idle(&mut streams);
        if !admitted {
            self.evictions.over_address_limit.increment();
        }
        admitted
    }

    /// Ends the connection among `streams` that has been idle for the longest time. Whether there was one.
    fn evict_idle(&self, streams: &mut Vec<Arc<Stream>>) -> bool {
        let now = clock::now();
        self.evict(streams, |stream| ((), stream.keeps_since(now).idle()))
    }

    /// Ends the connection that is to go in favour of a newcomer that has waited since it `came`. Whether there was one.
    fn evict_one(&self, streams: &mut Vec<Arc<Stream>>, waiting_since: Instant) -> bool {
        let now = clock::now();
        let waits = now.saturating_duration_since(waiting_since) < EVICTION_RETRY;
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
                self.evictions.evicted.increment();
                return true;
            }
        }
        false
    }

    /// How many are taken.
    pub fn in_use(&self) -> usize {
        self.slots.in_use()
    }

    /// How many there are.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Takes no more clients.
    pub fn close(&self) {
        self.slots.close();
    }
}
