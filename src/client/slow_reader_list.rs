//! Whose clients read slower than they ask?
//!
//! Where the memory for replies is used up, the one of them that has kept its replies waiting for the longest time loses its
//! connection. Locks are taken in this order: a stream's outbox, then the list; another outbox is only tried.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::eviction_counters::EvictionCounters;
use crate::system::clock::later;
use crate::system::memory::{Memory, Purpose, Reservation};

/// How long a client may take to empty its outbox.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Octets of memory for replies below which whoever can waits until there is more, for so long at most: clients that read may
/// have read in a moment.
const SCARCE: usize = 1024 * 1024;
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Of the memory for replies, the part that may wait for one client.
const ONE: usize = 3;

/// The octet that says that the list is longer, and the one that ends the draining.
pub(super) const MORE: u8 = 0;
pub(super) const STOP: u8 = 1;

/// The streams, of this type, whose clients read slower than they ask.
#[derive(Debug)]
pub struct SlowReaderList<S> {
    /// The one that has waited the longest first.
    pub(super) list: Mutex<List<S>>,
    bell: PipeWriter,
    memory: Arc<Memory>,
    evictions: Arc<EvictionCounters>,
}

#[derive(Debug)]
pub(super) struct List<S> {
    readers: VecDeque<SlowReader<S>>,
    /// Connections whose workers wait for memory, the one that has waited the longest first.
    pub(super) waiting: VecDeque<Arc<S>>,
    /// The thread was told that there are more.
    rung: bool,
}

impl<S> List<S> {
    /// Whether nobody on it has been there for long.
    pub(super) fn is_young(&self, now: Instant) -> bool {
        let latest = later(now, WRITE_LIMIT.saturating_sub(PATIENCE));
        self.readers
            .front()
            .is_none_or(|longest| longest.until > latest)
    }
}

#[derive(Debug)]
pub(super) struct SlowReader<S> {
    pub(super) stream: Arc<S>,
    /// By when its outbox has to be empty.
    pub(super) until: Instant,
}

impl<S> SlowReaderList<S> {
    /// None yet, and what the thread that drains is to wait at. What their outboxes hold is paid for in `memory`.
    pub fn new(
        memory: Arc<Memory>,
        evictions: Arc<EvictionCounters>,
    ) -> io::Result<(Arc<Self>, PipeReader)> {
        let (listener, bell) = io::pipe()?;
        let list = List {
            readers: VecDeque::new(),
            waiting: VecDeque::new(),
            rung: false,
        };
        let slow_readers = Self {
            list: Mutex::new(list),
            bell,
            memory,
            evictions,
        };
        Ok((Arc::new(slow_readers), listener))
    }

    /// What the bounds on clients have cost them.
    pub(super) fn evictions(&self) -> &EvictionCounters {
        &self.evictions
    }

    /// Whether one client may have so much wait for it, beside all others.
    pub(super) fn may_hold(&self, octets: usize) -> bool {
        octets <= self.memory.share_limit(Purpose::Replies) / ONE
    }

    /// Whether there is so little memory for replies that whoever can is to wait.
    pub(super) fn is_scarce(&self) -> bool {
        self.memory.free(Purpose::Replies) < SCARCE
    }

    /// Has `held` hold so many octets for `stream`, if need be at the cost of those who have read nothing for longer: `end` ends
    /// the connection of one of them, and says whether it did.
    pub(super) fn hold_by(
        &self,
        held: &mut Option<Reservation>,
        octets: usize,
        stream: &S,
        end: impl Fn(&S) -> bool,
    ) -> bool {
        loop {
            let holds = match held {
                Some(held) => held.resize(octets),
                None => {
                    *held = self.memory.reserve(Purpose::Replies, octets);
                    held.is_some()
                }
            };
            // Each round makes the list shorter.
            if holds || !self.evict_slowest(stream, &end) {
                return holds;
            }
        }
    }

    /// Ends the connection whose client has kept its replies waiting for the longest time, but for that one. Says whether
    /// there was one.
    fn evict_slowest(&self, but: &S, end: impl Fn(&S) -> bool) -> bool {
        let mut list = self.list.lock();
        let mut others = list
            .readers
            .iter()
            .enumerate()
            .filter(|(_, reader)| !std::ptr::eq(&*reader.stream, but));
        let place = others
            .find(|(_, reader)| end(&reader.stream))
            .map(|(place, _)| place);
        // The last to let go of it gives its place back, which is nothing to do under the lock.
        let evicted = place.and_then(|place| list.readers.remove(place));
        drop(list);
        evicted.is_some()
    }

    /// Has `stream` drained, whose outbox is locked and was empty until `now`.
    pub(super) fn add(&self, stream: Arc<S>, now: Instant) {
        let until = later(now, WRITE_LIMIT);
        let mut list = self.list.lock();
        list.readers.push_back(SlowReader { stream, until });
        if !std::mem::replace(&mut list.rung, true) {
            // One octet for each time the list was looked at, so the pipe never fills. It fails only at the very end, when
            // nobody drains any more.
            let _ = (&self.bell).write(&[MORE]);
        }
    }

    /// Takes `stream` off the list, whose outbox is locked and empty.
    pub(super) fn remove(&self, stream: &S) {
        let mut list = self.list.lock();
        let place = list
            .readers
            .iter()
            .position(|reader| std::ptr::eq(&*reader.stream, stream));
        let removed = place.and_then(|place| list.readers.remove(place));
        drop(list);
        // Whoever calls has the stream as well, so it is not the last.
        drop(removed);
    }

    /// Those that are on the list now. Whoever is added later rings the bell again.
    pub(super) fn readers(&self) -> Vec<SlowReader<S>> {
        let mut list = self.list.lock();
        list.rung = false;
        let readers = list.readers.iter().map(|reader| SlowReader {
            stream: Arc::clone(&reader.stream),
            until: reader.until,
        });
        readers.collect()
    }

    /// Takes all of them off the list.
    pub(super) fn take_readers(&self) -> VecDeque<SlowReader<S>> {
        std::mem::take(&mut self.list.lock().readers)
    }

    /// Ends the draining. Who has not read by then loses its connection.
    pub fn stop(&self) {
        let _ = (&self.bell).write(&[STOP]);
    }
}
