//! Whose clients read slower than they ask?
//!
//! One thread sends, to all of them, what their sockets did not take. Who has not taken all of it within [`WRITE_LIMIT`] loses
//! its connection; and where the memory for replies is used up, so does the one that has kept its replies waiting for the longest
//! time. Locks are taken in this order: a stream's outbox, then the list; another outbox is only tried.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

use super::stream::Stream;
use super::{EvictionCounters, later};
use crate::system::clock;
use crate::system::memory::{Memory, Purpose, Reservation};
use crate::system::thread::Pulse;

/// How long a client may take to empty its outbox.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Octets of memory for replies below which whoever can waits until there is more, for so long at most: clients that read may
/// have read in a moment.
const SCARCE: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_millis(100);

/// Of the memory for replies, the part that may wait for one client.
const ONE: usize = 3;

/// The octet that says that the list is longer, and the one that ends the draining.
const MORE: u8 = 0;
const STOP: u8 = 1;

/// The streams whose clients read slower than they ask.
#[derive(Debug)]
pub struct SlowReaders {
    /// The one that has waited the longest first.
    list: Mutex<List>,
    bell: PipeWriter,
    memory: Arc<Memory>,
    evictions: Arc<EvictionCounters>,
}

#[derive(Debug, Default)]
struct List {
    readers: VecDeque<SlowReader>,
    /// Connections whose workers wait for memory, the one that has waited the longest first.
    waiting: VecDeque<Arc<Stream>>,
    /// The thread was told that there are more.
    rung: bool,
}

impl List {
    /// Whether nobody on it has been there for long.
    fn is_young(&self, now: Instant) -> bool {
        let latest = later(now, WRITE_LIMIT.saturating_sub(PATIENCE));
        self.readers
            .front()
            .is_none_or(|longest| longest.until > latest)
    }
}

#[derive(Debug, Clone)]
struct SlowReader {
    stream: Arc<Stream>,
    /// By when its outbox has to be empty.
    until: Instant,
}

impl SlowReaders {
    /// None yet, and what [`SlowReaders::drain`] is to wait at. What their outboxes hold is paid for in `memory`.
    pub fn new(
        memory: Arc<Memory>,
        evictions: Arc<EvictionCounters>,
    ) -> io::Result<(Arc<Self>, PipeReader)> {
        let (listener, bell) = io::pipe()?;
        let slow_readers = Self {
            list: Mutex::default(),
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

    /// Waits while memory for replies is scarce only since many clients are sent much at once, who may read it in a moment. Where
    /// one has not read for longer, it loses its connection when the memory is needed, and nobody waits.
    /// Nor does the worker of a connection that is closed.
    pub(super) fn wait_for_memory(&self, own: &Arc<Stream>) {
        if !self.is_scarce() {
            return;
        }
        let until = later(clock::now(), PATIENCE);
        let mut list = self.list.lock();
        list.waiting.push_back(Arc::clone(own));
        while self.is_scarce()
            && list.is_young(clock::now())
            && !own.is_evicted_within(Duration::ZERO)
            && !own.memory_freed.wait_until(&mut list, until).timed_out()
        {}
        list.waiting.retain(|other| !Arc::ptr_eq(other, own));
        // There may be enough for one more. To wake all of them for what few can have would cost more than to answer.
        self.wake_first(&list);
    }

    fn is_scarce(&self) -> bool {
        self.memory.free(Purpose::Replies) < SCARCE
    }

    /// Wakes the first that waits for memory, if it has reason to wait no longer.
    fn wake_first(&self, list: &List) {
        if let Some(first) = list.waiting.front()
            && (!self.is_scarce() || !list.is_young(clock::now()))
        {
            first.memory_freed.notify_one();
        }
    }

    /// Whether one client may have so much wait for it, beside all others.
    pub(super) fn may_hold(&self, octets: usize) -> bool {
        octets <= self.memory.share(Purpose::Replies) / ONE
    }

    /// Has `held` hold so many octets for `stream`, if need be at the cost of those who have read nothing for longer.
    pub(crate) fn hold(
        &self,
        held: &mut Option<Reservation>,
        octets: usize,
        stream: &Stream,
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
            if holds || !self.evict_slowest(stream) {
                return holds;
            }
        }
    }

    /// Ends the connection whose client has kept its replies waiting for the longest time, but for that one. Says whether
    /// there was one.
    fn evict_slowest(&self, but: &Stream) -> bool {
        let mut list = self.list.lock();
        let mut others = list
            .readers
            .iter()
            .enumerate()
            .filter(|(_, reader)| !std::ptr::eq(&*reader.stream, but));
        let place = others
            .find(|(_, reader)| reader.stream.try_close_over_memory())
            .map(|(place, _)| place);
        // The last to let go of it gives its place back, which is nothing to do under the lock.
        let evicted = place.and_then(|place| list.readers.remove(place));
        drop(list);
        evicted.is_some()
    }

    /// Has `stream` drained, whose outbox is locked and was empty until `now`.
    pub(super) fn add(&self, stream: Arc<Stream>, now: Instant) {
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
    pub(super) fn remove(&self, stream: &Stream) {
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

    /// Sends what outboxes hold until [`SlowReaders::stop`]. A stream whose outbox is not empty in time is closed.
    pub fn drain(&self, mut listener: &PipeReader) {
        let pulse = Pulse::new("slow-readers");
        loop {
            let readers: Vec<_> = {
                let mut list = self.list.lock();
                list.rung = false;
                list.readers.iter().cloned().collect()
            };
            let sockets: Vec<_> = readers
                .iter()
                .map(|reader| reader.stream.write_socket())
                .collect();
            let wait = readers
                .iter()
                .map(|reader| reader.until.saturating_duration_since(clock::now()))
                .min();
            let timeout = wait.map_or(PollTimeout::NONE, |wait| {
                // Rounded up: a timeout of zero for the last fraction of a millisecond would spin.
                let milliseconds = wait.as_millis().saturating_add(1);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            });
            let mut ready = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            ready.extend(
                sockets
                    .iter()
                    .flatten()
                    .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)),
            );
            pulse.waits();
            let rung = match poll(&mut ready, timeout) {
                Ok(_) => ready.first().is_some_and(|bell| bell.any().unwrap_or(true)),
                Err(_) => false,
            };
            drop(ready);
            drop(sockets);
            if rung {
                let mut bell = [MORE];
                match listener.read(&mut bell) {
                    Ok(1) if bell == [STOP] => return self.close_all(),
                    Err(error) if error.kind() != ErrorKind::Interrupted => return,
                    _ => {}
                }
            }
            let now = clock::now();
            pulse.works(now);
            for SlowReader { stream, until } in readers {
                stream.drain(now >= until);
            }
            self.wake_first(&self.list.lock());
        }
    }

    fn close_all(&self) {
        let readers = std::mem::take(&mut self.list.lock().readers);
        for reader in readers {
            reader.stream.close("the end");
        }
    }

    /// Ends [`SlowReaders::drain`]. Who has not read by then loses its connection.
    pub fn stop(&self) {
        let _ = (&self.bell).write(&[STOP]);
    }
}
