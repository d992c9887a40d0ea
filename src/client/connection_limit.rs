//! Who may be connected by TCP?
//!
//! The number of TCP connections is limited. At the limit, a new connection replaces an old one. An idle connection of a client that
//! exceeded the rate limit or may not ask is evicted first. Otherwise, the client with the most connections loses one of them:
//!
//! 1. the one that has been idle the longest;
//! 2. the one whose query has waited the longest, where the last query had no answer from the resolver either;
//! 3. the one that has been busy the longest, with a query in flight or with unread answers;
//! 4. if all have become busy within the last half second, the youngest, unless it is the only one of its client.
//!
//! A client is an address or an IPv6 site ([`client_of`]). Programs on this host share one address: there a client is a user.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::address::client_of;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::eviction_order::{EvictionRank, select_victim};
use crate::client::slots::{Slot, Slots};
use crate::client::stream::Stream;
use crate::system::clock;

/// How long a new connection waits for a free slot before an eviction is tried again, at first. Until then, recently busy connections
/// are spared: a slot may become free by itself.
const EVICTION_RETRY: Duration = Duration::from_millis(2);
/// The longest wait between two tries, after repeated failures: too short to be noticed by a client.
const MAX_EVICTION_RETRY: Duration = Duration::from_millis(16);

/// Limits the number of TCP connections, and evicts old ones in favour of new ones. Shared by the accepting threads.
///
/// An eviction takes the locks of the stream, so the caller must hold none of them. The lock of the slots is not held meanwhile.
#[derive(Debug)]
pub struct ConnectionLimit {
    slots: Arc<Slots<Stream>>,
    evictions: Arc<EvictionCounters>,
}

impl ConnectionLimit {
    /// Creates a limit of `capacity` connections. `evictions` counts what it closes.
    pub fn new(capacity: usize, evictions: Arc<EvictionCounters>) -> Arc<Self> {
        let slots = Slots::new(capacity);
        Arc::new(Self { slots, evictions })
    }

    /// Takes a free slot. None if there is none, or once [`ConnectionLimit::close`] was called.
    pub fn try_acquire(&self) -> Option<Slot<Stream>> {
        self.slots.try_acquire()
    }

    /// Takes a slot for a connection that waits already: a free one, or that of an evicted connection. Blocks until there is one.
    /// None once [`ConnectionLimit::close`] was called.
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
            // If all connections are new and none may be evicted, short pauses would keep the thread busy with looking.
            pause = pause.saturating_mul(2).min(MAX_EVICTION_RETRY);
        }
    }

    /// Decides whether one more connection from `address` is admitted, where each client may have `max_per_client`. If the client has
    /// that many, its longest idle connection is evicted. Returns false if none is idle.
    pub fn admit(&self, address: IpAddr, max_per_client: usize) -> bool {
        let client = client_of(address);
        let mut streams = self.slots.holders();
        streams.retain(|stream| client_of(stream.peer().ip()) == client);
        let admitted = streams.len() < max_per_client || self.evict_idle(&mut streams);
        if !admitted {
            self.evictions.over_address_limit.increment();
        }
        admitted
    }

    /// Evicts the connection among `streams` that has been idle the longest. Returns false if none is idle.
    fn evict_idle(&self, streams: &mut Vec<Arc<Stream>>) -> bool {
        let now = clock::now();
        self.evict(streams, |stream| {
            ((), stream.eviction_rank(now).only_if_idle())
        })
    }

    /// Evicts one connection in favour of a new one that has waited since `waiting_since`. Returns false if all are protected.
    fn evict_one(&self, streams: &mut Vec<Arc<Stream>>, waiting_since: Instant) -> bool {
        let now = clock::now();
        let spare_recent = now.saturating_duration_since(waiting_since) < EVICTION_RETRY;
        self.evict(streams, |stream| {
            // Programs on this host have the same address, so a client is a user there.
            let client = match stream.user() {
                None => Ok(client_of(stream.peer().ip())),
                Some(user) => Err(user),
            };
            (
                client,
                stream.eviction_rank(now).by_busy_time(spare_recent, now),
            )
        })
    }

    /// Evicts one of `streams`; `rank` returns the client and the rank of each. Returns false if none could be evicted.
    fn evict<C: Eq + Hash>(
        &self,
        streams: &mut Vec<Arc<Stream>>,
        rank: impl Fn(&Stream) -> (C, EvictionRank),
    ) -> bool {
        // Ends, since each round removes a stream from the list.
        while let Some(index) = select_victim(streams.iter().map(|stream| rank(stream))) {
            let stream = streams.swap_remove(index);
            // A stream that was idle and has received a query since then is not evicted.
            if stream.evict() {
                self.evictions.evicted.increment();
                return true;
            }
        }
        false
    }

    /// The number of slots in use.
    pub fn in_use(&self) -> usize {
        self.slots.in_use()
    }

    /// The number of slots, free or in use.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Admits no more connections, and wakes the threads that wait for a slot.
    pub fn close(&self) {
        self.slots.close();
    }
}
