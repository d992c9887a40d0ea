//! How do slow readers get their answers?
//!
//! One thread sends what the sockets of all slow readers did not take at first. A client that has not read all of it within ten seconds
//! loses its connection.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::slow_reader_list::{List, MEMORY_WAIT, MORE, STOP, SlowReader, SlowReaderList};
use crate::client::stream::Stream;
use crate::system::clock::{self, later};
use crate::system::memory::Reservation;
use crate::system::thread::Heartbeat;

/// The streams whose clients read their answers more slowly than they ask.
pub type SlowReaders = SlowReaderList<Stream>;

impl SlowReaders {
    /// Blocks the worker of `stream` while memory for replies is low because of a burst of answers, which clients may read in a moment.
    /// Returns after [`MEMORY_WAIT`] at the latest; at once if a client has not read for longer, since that one loses its connection
    /// when the memory is needed; and when `stream` is closed.
    pub(super) fn wait_for_memory(&self, stream: &Arc<Stream>) {
        if !self.is_memory_low() {
            return;
        }
        let deadline = later(clock::now(), MEMORY_WAIT);
        let mut list = self.list.lock();
        list.waiting.push_back(Arc::clone(stream));
        while self.is_memory_low()
            && list.all_recent(clock::now())
            && !stream.is_evicted_within(Duration::ZERO)
            && !stream
                .memory_freed
                .wait_until(&mut list, deadline)
                .timed_out()
        {}
        list.waiting.retain(|other| !Arc::ptr_eq(other, stream));
        // There may be memory for one more worker. Waking all of them for what only a few can have would cost more than their answers.
        self.wake_first(&list);
    }

    /// Wakes the worker that has waited for memory the longest, if it need not wait any more.
    fn wake_first(&self, list: &List<Stream>) {
        if let Some(first) = list.waiting.front()
            && (!self.is_memory_low() || !list.all_recent(clock::now()))
        {
            first.memory_freed.notify_one();
        }
    }

    /// Resizes `reservation` to `octets` for `stream`, if need be by closing other slow readers. Returns false if memory is short.
    pub(crate) fn reserve(
        &self,
        reservation: &mut Option<Reservation>,
        octets: usize,
        stream: &Stream,
    ) -> bool {
        self.reserve_evicting(reservation, octets, stream, Stream::try_close_over_memory)
    }

    /// Sends what the outboxes hold, until [`SlowReaders::stop`]. Closes streams whose outboxes are not empty in time. `wakeups` is the
    /// pipe that the list was created with.
    pub fn drain(&self, mut wakeups: &PipeReader) {
        let heartbeat = Heartbeat::new("slow-readers");
        loop {
            let readers = self.snapshot();
            let sockets: Vec<_> = readers
                .iter()
                .map(|reader| reader.stream.write_socket())
                .collect();
            let wait = readers
                .iter()
                .map(|reader| reader.deadline.saturating_duration_since(clock::now()))
                .min();
            let timeout = wait.map_or(PollTimeout::NONE, |wait| {
                // Rounded up: for the last fraction of a millisecond, a timeout of zero would make the loop spin.
                let milliseconds = wait.as_millis().saturating_add(1);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            });
            let mut ready = vec![PollFd::new(wakeups.as_fd(), PollFlags::POLLIN)];
            ready.extend(
                sockets
                    .iter()
                    .flatten()
                    .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLOUT)),
            );
            heartbeat.set_idle();
            let woken = match poll(&mut ready, timeout) {
                Ok(_) => ready.first().is_some_and(|pipe| pipe.any().unwrap_or(true)),
                Err(_) => false,
            };
            drop(ready);
            drop(sockets);
            if woken {
                let mut signal = [MORE];
                match wakeups.read(&mut signal) {
                    Ok(1) if signal == [STOP] => return self.close_all(),
                    Err(error) if error.kind() != ErrorKind::Interrupted => return,
                    _ => {}
                }
            }
            let now = clock::now();
            heartbeat.set_busy(now);
            for SlowReader { stream, deadline } in readers {
                stream.drain(now >= deadline);
            }
            self.wake_first(&self.list.lock());
        }
    }

    /// Closes all streams that still have unsent answers.
    fn close_all(&self) {
        for reader in self.take_all() {
            reader.stream.close("the end");
        }
    }
}
