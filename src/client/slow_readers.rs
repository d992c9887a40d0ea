//! How do those get their answers who read slower than they ask?
//!
//! One thread sends, to all of them, what their sockets did not take. Who has not taken all of it within ten seconds loses
//! its connection.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::slow_reader_list::{List, MORE, PATIENCE, STOP, SlowReader, SlowReaderList};
use crate::client::stream::Stream;
use crate::system::clock::{self, later};
use crate::system::memory::Reservation;
use crate::system::thread::Heartbeat;

/// The streams whose clients read slower than they ask.
pub type SlowReaders = SlowReaderList<Stream>;

impl SlowReaders {
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

    /// Wakes the first that waits for memory, if it has reason to wait no longer.
    fn wake_first(&self, list: &List<Stream>) {
        if let Some(first) = list.waiting.front()
            && (!self.is_scarce() || !list.is_young(clock::now()))
        {
            first.memory_freed.notify_one();
        }
    }

    /// Has `held` hold so many octets for `stream`, if need be at the cost of those who have read nothing for longer.
    pub(crate) fn hold(
        &self,
        held: &mut Option<Reservation>,
        octets: usize,
        stream: &Stream,
    ) -> bool {
        self.hold_by(held, octets, stream, Stream::try_close_over_memory)
    }

    /// Sends what outboxes hold until [`SlowReaders::stop`]. A stream whose outbox is not empty in time is closed.
    pub fn drain(&self, mut listener: &PipeReader) {
        let heartbeat = Heartbeat::new("slow-readers");
        loop {
            let readers = self.readers();
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
            heartbeat.set_idle();
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
            heartbeat.set_busy(now);
            for SlowReader { stream, until } in readers {
                stream.drain(now >= until);
            }
            self.wake_first(&self.list.lock());
        }
    }

    fn close_all(&self) {
        for reader in self.take_readers() {
            reader.stream.close("the end");
        }
    }
}
