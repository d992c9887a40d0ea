//! How are answers written to a TCP connection?

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use parking_lot::{Condvar, Mutex};
use socket2::SockRef;

use crate::client::eviction_order::EvictionRank;
use crate::client::in_flight::InFlightCount;
use crate::client::outbox::{Outbox, unsent_tags};
use crate::client::slots::Slot;
use crate::client::slow_reader_list::SlowReaderList;
use crate::client::unsent_replies::ReplyTag;
use crate::system::clock::{self, later};
use crate::system::socket_owner;
use crate::telemetry::log::debug;

/// Queries of one connection that may be in flight at a time. Reading pauses at this number.
const MAX_IN_FLIGHT: usize = 1024;
/// The lower limit under contention: a query of another connection is queued behind at most this many.
const MAX_IN_FLIGHT_CONTENDED: usize = 128;
/// Queries of other connections in flight from which the lower limit applies.
const CONTENTION_THRESHOLD: usize = 512;
/// How long a new connection does not count as idle: its first query may still be on its way.
const FIRST_QUERY_GRACE: Duration = Duration::from_millis(100);

/// The writing end of a client's TCP connection, shared by the worker that reads the connection and the threads that answer it.
///
/// The lock of `outbox` guards the unsent answers and the socket, which is gone once the connection is closed. The lock of `in_flight`
/// guards the count of queries and the flags that end reading; the lock of `slot` guards the slot alone.
///
/// Locks are taken in this order: `outbox`, the list of slow readers, `in_flight`, `slot`, the table of slots. A thread that holds the
/// list only tries the lock of an outbox. The lock of [`UnsentReplies`](crate::client::unsent_replies::UnsentReplies) comes last.
#[derive(Debug)]
pub struct Stream {
    peer: SocketAddr,
    outbox: Mutex<Outbox>,
    /// Notified when the outbox is empty or closed. Waits with the lock of `outbox`.
    drained: Condvar,
    /// Notified when there may be memory for answers, or when the connection is closed. Waits with the lock of the slow readers.
    pub(super) memory_freed: Condvar,
    slow_readers: Arc<SlowReaderList<Self>>,
    in_flight: Mutex<InFlightCount>,
    /// Notified when reading may resume, or when the connection is evicted or closed. Waits with the lock of `in_flight`.
    in_flight_changed: Condvar,
    /// The last query that ended had no answer from the resolver.
    last_unanswered: AtomicBool,
    /// None once the connection is closed or evicted, and its slot is free for another one.
    slot: Mutex<Option<Slot<Self>>>,
    /// The ID of the user at the other end, once it was looked up: `Some(None)` if it could not be found.
    user: OnceLock<Option<u32>>,
}

/// One query of a stream that is in flight. Dropping the guard ends the query.
#[derive(Debug)]
pub struct InFlightGuard {
    stream: Arc<Stream>,
    /// The group of [`InFlightCount`] that the query is counted in.
    group: usize,
}

impl InFlightGuard {
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut in_flight = self.stream.in_flight.lock();
        in_flight.end_query(self.group);
        let resumes = in_flight
            .resume_at
            .is_some_and(|count| in_flight.count <= count);
        drop(in_flight);
        if resumes {
            self.stream.in_flight_changed.notify_one();
        }
    }
}

impl Stream {
    /// The stream of a connection from `peer` that was accepted at `now`. The stream holds `slot` until it is closed or evicted.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        peer: SocketAddr,
        slow_readers: Arc<SlowReaderList<Self>>,
        slot: Slot<Self>,
        now: Instant,
    ) -> Arc<Self> {
        let grace_ends = later(now, FIRST_QUERY_GRACE);
        Arc::new_cyclic(|stream| {
            slot.set_holder(stream);
            Self {
                peer,
                outbox: Mutex::new(Outbox::new(socket)),
                drained: Condvar::new(),
                memory_freed: Condvar::new(),
                slow_readers,
                in_flight: Mutex::new(InFlightCount::new(grace_ends)),
                in_flight_changed: Condvar::new(),
                last_unanswered: AtomicBool::new(false),
                slot: Mutex::new(Some(slot)),
                user: OnceLock::new(),
            }
        })
    }

    /// Counts a query that starts at `now` and is in flight until the guard is dropped.
    pub(super) fn start_query(self: &Arc<Self>, now: Instant) -> InFlightGuard {
        let group = self.in_flight.lock().start_query(now);
        let stream = Arc::clone(self);
        InFlightGuard { stream, group }
    }

    /// The client's address and port.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Returns true once the connection is evicted or closed and must not be read any more. Waits for that for at most `wait`.
    pub fn is_evicted_within(&self, wait: Duration) -> bool {
        let mut in_flight = self.in_flight.lock();
        if !wait.is_zero() {
            self.in_flight_changed.wait_while_for(
                &mut in_flight,
                |in_flight| !in_flight.evicted,
                wait,
            );
        }
        in_flight.evicted
    }

    /// Returns true while queries are in flight.
    pub fn is_busy(&self) -> bool {
        self.in_flight.lock().count > 0
    }

    /// How soon the connection is evicted, as of `now`.
    pub(super) fn eviction_rank(&self, now: Instant) -> EvictionRank {
        let unread = self.outbox.lock().non_empty_since;
        let in_flight = self.in_flight.lock();
        if in_flight.evicted {
            return EvictionRank::Protected;
        }
        let oldest_query_at = in_flight.oldest_query_at();
        if let Some(since) = oldest_query_at
            && self.last_unanswered.load(Ordering::Relaxed)
        {
            return EvictionRank::Unanswered(since);
        }
        if let Some(since) = oldest_query_at.into_iter().chain(unread).min() {
            return EvictionRank::Busy(since);
        }
        match (
            in_flight.is_idle() && in_flight.last_query_at <= now,
            in_flight.over_limit,
        ) {
            (false, _) => EvictionRank::Protected,
            (true, true) => EvictionRank::OverLimit(in_flight.last_query_at),
            (true, false) => EvictionRank::Idle(in_flight.last_query_at),
        }
    }

    /// The ID of the user whose process is at the other end. None if that is not on this host or cannot be found.
    pub(super) fn user(&self) -> Option<u32> {
        let is_local = self.peer.ip().to_canonical().is_loopback();
        let socket = self.write_socket().filter(|_| is_local)?;
        let look_up = || socket_owner::tcp_peer_uid(self.peer, socket.local_addr().ok()?);
        *self.user.get_or_init(look_up)
    }

    /// Marks the client as over the rate limit, or as not allowed to ask. Once the connection is idle, it is evicted before others, even
    /// with unread queries.
    pub fn mark_over_limit(&self) {
        self.in_flight.lock().over_limit = true;
    }

    /// Closes the connection in favour of another one, and frees its slot at once. Returns false if the connection was idle and has
    /// received a query meanwhile, or is closed or protected.
    ///
    /// Of an idle connection only the reading side is shut down: a query that the worker has just read is still answered. A busy
    /// connection is closed; its queries end as usual, but their answers are dropped.
    pub(super) fn evict(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let rank = self.eviction_rank(clock::now());
        let Some(socket) = self.write_socket() else {
            return false;
        };
        let mut in_flight = self.in_flight.lock();
        let is_idle = in_flight.is_idle()
            && matches!(rank, EvictionRank::Idle(_) | EvictionRank::OverLimit(_));
        let unread = || recv(socket.as_raw_fd(), &mut [0], flags).is_ok_and(|length| length > 0);
        if rank == EvictionRank::Protected || is_idle && !in_flight.over_limit && unread() {
            return false;
        }
        in_flight.evicted = true;
        drop(in_flight);
        if is_idle {
            debug!("event=client-evicted client={}", self.peer);
            // Fails if the client has already closed the connection.
            let _ = socket.shutdown(Shutdown::Read);
        } else {
            self.close("others need its place");
        }
        drop(self.slot.lock().take());
        self.in_flight_changed.notify_one();
        true
    }

    /// Blocks while too many queries of this connection are in flight, until half of the limit is free: so that not each answer wakes
    /// a thread. `total_in_flight` counts the queries of all clients. Returns in bounded time, since every query has a deadline.
    pub fn wait_for_capacity(&self, total_in_flight: usize) {
        let mut in_flight = self.in_flight.lock();
        let others = total_in_flight.saturating_sub(in_flight.count);
        let limit = if others >= CONTENTION_THRESHOLD {
            MAX_IN_FLIGHT_CONTENDED
        } else {
            MAX_IN_FLIGHT
        };
        if in_flight.count < limit {
            return;
        }
        in_flight.resume_at = Some(limit / 2);
        let is_full =
            |in_flight: &mut InFlightCount| in_flight.count > limit / 2 && !in_flight.evicted;
        self.in_flight_changed.wait_while(&mut in_flight, is_full);
        in_flight.resume_at = None;
    }

    /// Blocks until the outbox is empty or the connection is closed. Returns true if the connection is open.
    pub fn wait_until_drained(&self) -> bool {
        let mut outbox = self.outbox.lock();
        let waits = |outbox: &mut Outbox| !outbox.is_closed() && !outbox.is_empty();
        self.drained.wait_while(&mut outbox, waits);
        !outbox.is_closed()
    }

    /// Records whether the query that ended last has an answer from the resolver, fresh or cached.
    pub(super) fn note_answer(&self, answered: bool) {
        // The value rarely changes, and the cache line stays shared if nothing is stored.
        if self.last_unanswered.load(Ordering::Relaxed) == answered {
            self.last_unanswered.store(!answered, Ordering::Relaxed);
        }
    }

    /// Counts a batch that holds answers for this stream and has not been sent yet.
    pub(super) fn batch_queued(&self) {
        let mut in_flight = self.in_flight.lock();
        in_flight.unsent_batches = in_flight.unsent_batches.saturating_add(1);
    }

    /// Counts the sending of such a batch.
    pub(super) fn batch_sent(&self) {
        let mut in_flight = self.in_flight.lock();
        in_flight.unsent_batches = in_flight.unsent_batches.saturating_sub(1);
    }

    pub(super) fn slow_readers(&self) -> &SlowReaderList<Self> {
        &self.slow_readers
    }

    /// The socket, until the connection is closed.
    pub(super) fn write_socket(&self) -> Option<Arc<TcpStream>> {
        self.outbox.lock().socket()
    }

    /// Returns true once the connection is closed and nothing is written to it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.outbox.lock().is_closed()
    }

    /// Writes the `parts` of `octets` in order, without blocking. What the socket does not take is queued in the outbox. If there is no
    /// memory for that, or the client has left too much unread, the connection is closed. The parts hold a framed reply for each tag.
    ///
    /// Returns false if the kernel refuses to send the replies. A client that is gone or does not read is no such case.
    pub(super) fn write(
        self: &Arc<Self>,
        octets: &[u8],
        parts: &[Range<usize>],
        tags: &[ReplyTag],
    ) -> bool {
        let mut outbox = self.outbox.lock();
        if outbox.is_closed() {
            return true;
        }
        let unsent_replies = self.slow_readers.unsent_replies();
        match outbox.write(octets, parts) {
            Ok(sent) => {
                if sent > 0 && unsent_replies.is_watching() {
                    unsent_replies.record_stream_sent(tags.len());
                }
                self.queue_unsent(&mut outbox, octets, parts, tags, sent);
                true
            }
            Err(error) => {
                let tags = tags.iter().copied();
                let is_refused = unsent_replies.record_stream_error(error, tags);
                self.close_locked(&mut outbox, &error.to_string());
                !is_refused
            }
        }
    }

    /// Queues the octets of a write that the socket has not taken, after the first `sent` ones.
    fn queue_unsent(
        self: &Arc<Self>,
        outbox: &mut Outbox,
        octets: &[u8],
        parts: &[Range<usize>],
        tags: &[ReplyTag],
        sent: usize,
    ) {
        let total = parts
            .iter()
            .fold(0_usize, |sum, range| sum.saturating_add(range.len()));
        let unsent = total.saturating_sub(sent);
        if unsent == 0 {
            return;
        }
        let tags = unsent_tags(octets, parts, tags, sent);
        let cost = outbox.cost_with(unsent, tags.len());
        if !self.slow_readers.is_within_share(cost) {
            self.slow_readers.evictions().slow_readers.increment();
            return self.close_locked(outbox, "it does not read its answers");
        }
        let try_close = Self::try_close_over_memory;
        if !self
            .slow_readers
            .reserve_evicting(outbox.reservation_mut(), cost, self, try_close)
        {
            self.slow_readers.evictions().over_memory.increment();
            return self.close_locked(outbox, "there is no memory for its answers");
        }
        outbox.push_unsent(octets, parts, tags, sent, unsent);
        let now = clock::now();
        outbox.non_empty_since.get_or_insert(now);
        if !std::mem::replace(&mut outbox.is_listed, true) {
            self.slow_readers.add(Arc::clone(self), now);
        }
    }

    /// Sends from the outbox what the socket takes. If something is left and the deadline has passed, the connection is closed.
    pub(super) fn drain(&self, deadline_passed: bool) {
        let mut outbox = self.outbox.lock();
        if let Err(error) = outbox.flush() {
            let unsent_replies = self.slow_readers.unsent_replies();
            unsent_replies.record_stream_error(error, outbox.unsent_tags());
            self.close_locked(&mut outbox, &error.to_string());
        }
        if !outbox.is_empty() {
            if !deadline_passed {
                return;
            }
            self.slow_readers.evictions().slow_readers.increment();
            self.close_locked(&mut outbox, "it reads too slowly");
        }
        outbox.non_empty_since = None;
        if std::mem::take(&mut outbox.is_listed) {
            self.slow_readers.remove(self);
        }
        self.drained.notify_all();
    }

    /// Sends what the socket takes, as the draining thread does. Returns the cost of what is left and the octets reserved for it.
    #[cfg(test)]
    pub(crate) fn drain_and_measure(&self) -> (usize, usize) {
        self.drain(false);
        let outbox = self.outbox.lock();
        outbox.cost_and_reserved()
    }

    /// Closes the connection because the system has no thread to read it.
    pub fn close_without_thread(&self) {
        self.slow_readers.evictions().no_thread.increment();
        self.close("there is no thread for it");
    }

    /// Closes the connection because there is no memory for its queries or answers.
    pub fn close_over_memory(&self) {
        self.slow_readers.evictions().over_memory.increment();
        self.close("there is no memory for it");
    }

    /// Closes the connection to free the memory of its outbox. Returns false if the outbox is empty or locked by another thread. The
    /// caller holds the list of slow readers and removes the stream from it.
    pub(super) fn try_close_over_memory(&self) -> bool {
        let Some(mut outbox) = self.outbox.try_lock() else {
            return false;
        };
        if outbox.is_empty() {
            return false;
        }
        outbox.is_listed = false;
        self.slow_readers.evictions().over_memory.increment();
        self.close_locked(&mut outbox, "others need the memory for its answers");
        true
    }

    /// Closes the connection. Its worker reads the end of the stream.
    pub(super) fn close(&self, cause: &str) {
        self.close_locked(&mut self.outbox.lock(), cause);
    }

    fn close_locked(&self, outbox: &mut Outbox, cause: &str) {
        let Some(socket) = outbox.close() else {
            return;
        };
        debug!("event=client-closed client={} cause=\"{cause}\"", self.peer);
        // The kernel drops its send buffer, too: with a linger time of zero, the connection is reset.
        let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        // Fails if the client has already closed the connection.
        let _ = socket.shutdown(Shutdown::Both);
        self.drained.notify_all();
        // Wakes the worker wherever it waits, and frees the slot.
        self.in_flight.lock().evicted = true;
        self.in_flight_changed.notify_one();
        self.memory_freed.notify_one();
        drop(self.slot.lock().take());
    }
}
