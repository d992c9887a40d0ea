//! Which clients read their answers more slowly than they ask?
//!
//! When the memory for replies is used up, the client whose answers have waited the longest loses its connection.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::eviction_counters::EvictionCounters;
use crate::client::unsent_replies::UnsentReplies;
use crate::system::clock::later;
use crate::system::memory::{Memory, Purpose, Reservation};

/// How long a client may take to empty its outbox.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of free memory for replies below which workers wait before they answer: clients that read may free memory soon.
const LOW_MEMORY: usize = 1024 * 1024;
/// How long a worker waits for that, at most.
pub(super) const MEMORY_WAIT: Duration = Duration::from_millis(100);

/// The unread answers of one client may take up a third of the memory for replies.
const CLIENT_SHARE_DIVISOR: usize = 3;

/// The octet in the pipe that announces new streams on the list.
pub(super) const MORE: u8 = 0;
/// The octet in the pipe that ends the draining thread.
pub(super) const STOP: u8 = 1;

/// The streams of type `S` that have unsent answers in their outboxes. Shared by the threads that answer and the one that drains.
///
/// The lock guards the list. A thread may take it while it holds the lock of an outbox, and while it holds the list it only tries
/// the locks of outboxes: so no two threads wait for each other. Memory and counters are atomic.
#[derive(Debug)]
pub struct SlowReaderList<S> {
    pub(super) list: Mutex<List<S>>,
    /// Wakes the draining thread.
    wakeup: PipeWriter,
    memory: Arc<Memory>,
    evictions: Arc<EvictionCounters>,
    unsent_replies: Arc<UnsentReplies>,
}

/// What the lock of [`SlowReaderList`] guards.
#[derive(Debug)]
pub(super) struct List<S> {
    /// In the order in which their outboxes began to fill.
    readers: VecDeque<SlowReader<S>>,
    /// Connections whose workers wait for memory, in the order in which they began to wait.
    pub(super) waiting: VecDeque<Arc<S>>,
    /// The draining thread was woken and has not looked at the list since.
    wakeup_sent: bool,
}

impl<S> List<S> {
    /// Returns true if every stream on the list has most of its time left, as after a burst of answers.
    pub(super) fn all_recent(&self, now: Instant) -> bool {
        let threshold = later(now, WRITE_TIMEOUT.saturating_sub(MEMORY_WAIT));
        self.readers
            .front()
            .is_none_or(|oldest| oldest.deadline > threshold)
    }
}

/// A stream with unsent answers.
#[derive(Debug)]
pub(super) struct SlowReader<S> {
    pub(super) stream: Arc<S>,
    /// When the stream is closed unless its outbox is empty.
    pub(super) deadline: Instant,
}

impl<S> SlowReaderList<S> {
    /// Creates an empty list, and the pipe that wakes the draining thread. Outboxes reserve what they hold in `memory`.
    ///
    /// # Errors
    ///
    /// Fails if the system has no pipe.
    pub fn new(
        memory: Arc<Memory>,
        evictions: Arc<EvictionCounters>,
        unsent_replies: Arc<UnsentReplies>,
    ) -> io::Result<(Arc<Self>, PipeReader)> {
        let (wakeups, wakeup) = io::pipe()?;
        let list = List {
            readers: VecDeque::new(),
            waiting: VecDeque::new(),
            wakeup_sent: false,
        };
        let slow_readers = Self {
            list: Mutex::new(list),
            wakeup,
            memory,
            evictions,
            unsent_replies,
        };
        Ok((Arc::new(slow_readers), wakeups))
    }

    /// The counters of closed connections.
    pub(super) fn evictions(&self) -> &EvictionCounters {
        &self.evictions
    }

    /// The counts of replies that the kernel did not send.
    pub fn unsent_replies(&self) -> &Arc<UnsentReplies> {
        &self.unsent_replies
    }

    /// Returns true if one client may have so many octets of unread answers.
    pub(super) fn is_within_share(&self, octets: usize) -> bool {
        octets <= self.memory.share_limit(Purpose::Replies) / CLIENT_SHARE_DIVISOR
    }

    /// Returns true while so little memory for replies is free that workers wait.
    pub(super) fn is_memory_low(&self) -> bool {
        self.memory.free(Purpose::Replies) < LOW_MEMORY
    }

    /// Resizes `reservation` to `octets` for `stream`. If memory is short, closes the connections of other slow readers, the slowest
    /// first: `try_close` closes one, and returns false if it cannot. Returns false if the memory is still short then.
    pub(super) fn reserve_evicting(
        &self,
        reservation: &mut Option<Reservation>,
        octets: usize,
        stream: &S,
        try_close: impl Fn(&S) -> bool,
    ) -> bool {
        loop {
            let is_reserved = match reservation {
                Some(reservation) => reservation.resize(octets),
                None => {
                    *reservation = self.memory.reserve(Purpose::Replies, octets);
                    reservation.is_some()
                }
            };
            // Ends, since each round removes a stream from the list.
            if is_reserved || !self.evict_slowest(stream, &try_close) {
                return is_reserved;
            }
        }
    }

    /// Closes the connection whose answers have waited the longest, other than `except`. Returns false if there is none.
    fn evict_slowest(&self, except: &S, try_close: impl Fn(&S) -> bool) -> bool {
        let mut list = self.list.lock();
        let mut others = list
            .readers
            .iter()
            .enumerate()
            .filter(|(_, reader)| !std::ptr::eq(&*reader.stream, except));
        let index = others
            .find(|(_, reader)| try_close(&reader.stream))
            .map(|(index, _)| index);
        // Dropping the last reference closes the socket and releases the slot: done without the lock.
        let evicted = index.and_then(|index| list.readers.remove(index));
        drop(list);
        evicted.is_some()
    }

    /// Adds `stream`, whose outbox was empty until `now`, and wakes the draining thread. The caller holds the lock of the outbox.
    pub(super) fn add(&self, stream: Arc<S>, now: Instant) {
        let deadline = later(now, WRITE_TIMEOUT);
        let mut list = self.list.lock();
        list.readers.push_back(SlowReader { stream, deadline });
        if !std::mem::replace(&mut list.wakeup_sent, true) {
            // At most one octet until the draining thread looks at the list, so the pipe never fills. The write fails only after that
            // thread has ended.
            let _ = (&self.wakeup).write(&[MORE]);
        }
    }

    /// Removes `stream`, whose outbox is empty. The caller holds the lock of the outbox.
    pub(super) fn remove(&self, stream: &S) {
        let mut list = self.list.lock();
        let index = list
            .readers
            .iter()
            .position(|reader| std::ptr::eq(&*reader.stream, stream));
        let removed = index.and_then(|index| list.readers.remove(index));
        drop(list);
        // Not the last reference: the caller has one.
        drop(removed);
    }

    /// Copies the list. A stream that is added later wakes the draining thread again.
    pub(super) fn snapshot(&self) -> Vec<SlowReader<S>> {
        let mut list = self.list.lock();
        list.wakeup_sent = false;
        let readers = list.readers.iter().map(|reader| SlowReader {
            stream: Arc::clone(&reader.stream),
            deadline: reader.deadline,
        });
        readers.collect()
    }

    /// Removes all streams from the list and returns them.
    pub(super) fn take_all(&self) -> VecDeque<SlowReader<S>> {
        std::mem::take(&mut self.list.lock().readers)
    }

    /// Ends the draining thread, which closes the connections that still have unsent answers.
    pub fn stop(&self) {
        let _ = (&self.wakeup).write(&[STOP]);
    }
}
