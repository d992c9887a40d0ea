//! How do answers leave by a TCP connection?
//!
//! The outbox's lock guards what is written and the socket that it is written to, the other lock how many queries are in
//! flight. The outbox's is taken first where both are.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use parking_lot::{Condvar, Mutex};
use socket2::SockRef;

use crate::client::eviction_order::Keeps;
use crate::client::in_flight::InFlightCount;
use crate::client::outbox::Outbox;
use crate::client::slots::Slot;
use crate::client::slow_reader_list::SlowReaderList;
use crate::system::clock::{self, later};
use crate::system::socket_owner;
use crate::telemetry::log::debug;

/// Queries of one connection that may wait for their answers at a time; reading pauses at this many.
const IN_FLIGHT: usize = 1024;
/// As many it is while so many of other clients wait: whatever one has poured in, the next query of another comes after it.
const IN_FLIGHT_IN_A_CROWD: usize = 128;
const CROWD: usize = 512;
/// How long a connection may have said nothing before it can be called idle: its first query may be on its way.
const GRACE: Duration = Duration::from_millis(100);

/// A client's TCP connection, as far as it is written to.
#[derive(Debug)]
pub struct Stream {
    peer: SocketAddr,
    outbox: Mutex<Outbox>,
    /// The outbox is empty, or closed.
    drained: Condvar,
    /// There may be memory for what its worker answers, or it is closed.
    pub(super) memory_freed: Condvar,
    slow_readers: Arc<SlowReaderList<Self>>,
    in_flight: Mutex<InFlightCount>,
    in_flight_changed: Condvar,
    /// The last query that ended had no answer of the resolver.
    unanswered: AtomicBool,
    /// None once another connection has it.
    slot: Mutex<Option<Slot<Self>>>,
    /// The user whose process it is at the other end, where that was looked up and is known.
    user: OnceLock<Option<u32>>,
}

/// A query's right to one answer into a stream.
#[derive(Debug)]
pub struct InFlightGuard {
    stream: Arc<Stream>,
    /// In which span of time it is counted.
    span: usize,
}

impl InFlightGuard {
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut in_flight = self.stream.in_flight.lock();
        in_flight.end_one(self.span);
        let goes_on = in_flight
            .paused_until
            .is_some_and(|count| in_flight.count <= count);
        drop(in_flight);
        if goes_on {
            self.stream.in_flight_changed.notify_one();
        }
    }
}

impl Stream {
    /// The stream of a connection from `peer`, which has `slot` until it is closed or evicted.
    pub(super) fn new(
        socket: Arc<TcpStream>,
        peer: SocketAddr,
        slow_readers: Arc<SlowReaderList<Self>>,
        slot: Slot<Self>,
        now: Instant,
    ) -> Arc<Self> {
        let asked = later(now, GRACE);
        Arc::new_cyclic(|stream| {
            slot.belongs_to(stream);
            Self {
                peer,
                outbox: Mutex::new(Outbox::new(socket)),
                drained: Condvar::new(),
                memory_freed: Condvar::new(),
                slow_readers,
                in_flight: Mutex::new(InFlightCount::new(asked)),
                in_flight_changed: Condvar::new(),
                unanswered: AtomicBool::new(false),
                slot: Mutex::new(Some(slot)),
                user: OnceLock::new(),
            }
        })
    }

    /// Counts one more query, which has a right to an answer.
    pub(super) fn begin_query(self: &Arc<Self>, now: Instant) -> InFlightGuard {
        let span = self.in_flight.lock().ask(now);
        let stream = Arc::clone(self);
        InFlightGuard { stream, span }
    }

    /// The client's address and port.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it was evicted in favour of another connection, and is to be read no more; waits for so long to see it.
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

    /// Whether queries wait for their answers.
    pub fn is_busy(&self) -> bool {
        self.in_flight.lock().count > 0
    }

    /// How it keeps its place at `now`.
    pub(super) fn keeps_since(&self, now: Instant) -> Keeps {
        let unread = self.outbox.lock().since;
        let in_flight = self.in_flight.lock();
        if in_flight.evicted {
            return Keeps::Stays;
        }
        let waits_since = in_flight.waits_since();
        if let Some(since) = waits_since
            && self.unanswered.load(Ordering::Relaxed)
        {
            return Keeps::Unanswered(since);
        }
        if let Some(since) = waits_since.into_iter().chain(unread).min() {
            return Keeps::Busy(since);
        }
        match (
            in_flight.is_idle() && in_flight.asked <= now,
            in_flight.over_limit,
        ) {
            (false, _) => Keeps::Stays,
            (true, true) => Keeps::OverLimit(in_flight.asked),
            (true, false) => Keeps::Idle(in_flight.asked),
        }
    }

    /// The user of this host whose process it is at the other end, where that can be known.
    pub(super) fn user(&self) -> Option<u32> {
        let is_local = self.peer.ip().to_canonical().is_loopback();
        let socket = self.write_socket().filter(|_| is_local)?;
        let look_up = || socket_owner::tcp_peer_uid(self.peer, socket.local_addr().ok()?);
        *self.user.get_or_init(look_up)
    }

    /// Its client asked more than it may: it is evicted before others, whatever it has to say.
    pub fn mark_over_limit(&self) {
        self.in_flight.lock().over_limit = true;
    }

    /// Ends the connection in favour of another one, and gives its place away at once. Not if it was idle, and has been asked
    /// something meanwhile or has something to be read.
    ///
    /// Of an idle one the reading side alone ends: a query that its worker has just read is still answered. Of another one queries
    /// end as they would have, but nobody hears of it.
    pub(super) fn evict(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let keeps = self.keeps_since(clock::now());
        let Some(socket) = self.write_socket() else {
            return false;
        };
        let mut in_flight = self.in_flight.lock();
        let is_idle = in_flight.is_idle() && matches!(keeps, Keeps::Idle(_) | Keeps::OverLimit(_));
        let unread = || recv(socket.as_raw_fd(), &mut [0], flags).is_ok_and(|length| length > 0);
        if keeps == Keeps::Stays || is_idle && !in_flight.over_limit && unread() {
            return false;
        }
        in_flight.evicted = true;
        drop(in_flight);
        if is_idle {
            debug!("event=client-gives-way client={}", self.peer);
            // It fails when the client is gone already, which is as good.
            let _ = socket.shutdown(Shutdown::Read);
        } else {
            self.close("others need its place");
        }
        drop(self.slot.lock().take());
        self.in_flight_changed.notify_one();
        true
    }

    /// Where the most queries of this connection wait for their answers, waits until half of them have theirs, so that not
    /// each of them wakes a thread; `waiting` do of all clients. Every query ends by its deadline, so this does.
    pub fn wait_for_room(&self, waiting: usize) {
        let mut in_flight = self.in_flight.lock();
        let others = waiting.saturating_sub(in_flight.count);
        let most = if others >= CROWD {
            IN_FLIGHT_IN_A_CROWD
        } else {
            IN_FLIGHT
        };
        if in_flight.count < most {
            return;
        }
        in_flight.paused_until = Some(most / 2);
        let is_full =
            |in_flight: &mut InFlightCount| in_flight.count > most / 2 && !in_flight.evicted;
        self.in_flight_changed.wait_while(&mut in_flight, is_full);
        in_flight.paused_until = None;
    }

    /// Waits until its client has taken what was written, or has lost its connection for not doing so. Says whether it goes on.
    pub fn wait_until_read(&self) -> bool {
        let mut outbox = self.outbox.lock();
        let waits = |outbox: &mut Outbox| !outbox.is_closed() && !outbox.is_empty();
        self.drained.wait_while(&mut outbox, waits);
        !outbox.is_closed()
    }

    /// A query of its client has ended: with an answer of the resolver, of now or before, or without.
    pub(super) fn note_answer(&self, answered: bool) {
        // Mostly it is as before, and nothing is written.
        if self.unanswered.load(Ordering::Relaxed) == answered {
            self.unanswered.store(!answered, Ordering::Relaxed);
        }
    }

    /// A batch has answers for it that were not sent yet.
    pub(super) fn begin_to_send(&self) {
        let mut in_flight = self.in_flight.lock();
        in_flight.sending = in_flight.sending.saturating_add(1);
    }

    /// They were sent.
    pub(super) fn has_sent(&self) {
        let mut in_flight = self.in_flight.lock();
        in_flight.sending = in_flight.sending.saturating_sub(1);
    }

    pub(super) fn slow_readers(&self) -> &SlowReaderList<Self> {
        &self.slow_readers
    }

    /// The socket, as long as it is written to.
    pub(super) fn write_socket(&self) -> Option<Arc<TcpStream>> {
        self.outbox.lock().socket()
    }

    /// Whether nothing is written to it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.outbox.lock().is_closed()
    }

    /// Writes parts of `octets`, one after the other, without waiting; what is not taken now waits in the outbox.
    pub(super) fn write(self: &Arc<Self>, octets: &[u8], parts: &[Range<usize>]) {
        let mut outbox = self.outbox.lock();
        if outbox.is_closed() {
            return;
        }
        let taken = match outbox.write(octets, parts) {
            Ok(taken) => taken,
            Err(error) => return self.close_now(&mut outbox, &error.to_string()),
        };
        let whole = parts
            .iter()
            .fold(0_usize, |sum, range| sum.saturating_add(range.len()));
        let rest = whole.saturating_sub(taken);
        if rest == 0 {
            return;
        }
        let cost = outbox.cost_with(rest);
        if !self.slow_readers.may_hold(cost) {
            self.slow_readers.evictions().not_reading.increment();
            return self.close_now(&mut outbox, "it does not read its answers");
        }
        let end = Self::try_close_over_memory;
        if !self.slow_readers.hold_by(outbox.held(), cost, self, end) {
            self.slow_readers.evictions().over_memory.increment();
            return self.close_now(&mut outbox, "there is no memory for its answers");
        }
        outbox.keep(octets, parts, taken, rest);
        let now = clock::now();
        outbox.since.get_or_insert(now);
        if !std::mem::replace(&mut outbox.listed, true) {
            self.slow_readers.add(Arc::clone(self), now);
        }
    }

    /// Sends from the outbox what the socket takes. If that is not all of it and its time `is_over`, the connection ends.
    pub(super) fn drain(&self, is_over: bool) {
        let mut outbox = self.outbox.lock();
        if let Err(error) = outbox.send() {
            self.close_now(&mut outbox, &error.to_string());
        }
        if !outbox.is_empty() {
            if !is_over {
                return;
            }
            self.slow_readers.evictions().not_reading.increment();
            self.close_now(&mut outbox, "it reads too slowly");
        }
        outbox.since = None;
        if std::mem::take(&mut outbox.listed) {
            self.slow_readers.remove(self);
        }
        self.drained.notify_all();
    }

    /// Octets that its outbox has, and that are held for it; and what is drained now, as by the thread that does so.
    #[cfg(test)]
    pub(crate) fn drained_and_held(&self) -> (usize, usize) {
        self.drain(false);
        let outbox = self.outbox.lock();
        outbox.cost_and_held()
    }

    /// Ends the connection, since the system has no thread that could read it.
    pub fn close_without_thread(&self) {
        self.slow_readers.evictions().no_thread.increment();
        self.close("there is no thread for it");
    }

    /// Ends the connection, for want of memory for what it sends or is sent.
    pub fn close_over_memory(&self) {
        self.slow_readers.evictions().over_memory.increment();
        self.close("there is no memory for it");
    }

    /// Does so if its outbox holds something and nobody is at it just now, and takes it off no list. Says whether that was so.
    pub(super) fn try_close_over_memory(&self) -> bool {
        let Some(mut outbox) = self.outbox.try_lock() else {
            return false;
        };
        if outbox.is_empty() {
            return false;
        }
        outbox.listed = false;
        self.slow_readers.evictions().over_memory.increment();
        self.close_now(&mut outbox, "others need the memory for its answers");
        true
    }

    /// Ends this connection alone. Its worker sees the end of the stream.
    pub(super) fn close(&self, cause: &str) {
        self.close_now(&mut self.outbox.lock(), cause);
    }

    fn close_now(&self, outbox: &mut Outbox, cause: &str) {
        let Some(socket) = outbox.close() else {
            return;
        };
        debug!(
            "event=client-dropped client={} cause=\"{cause}\"",
            self.peer
        );
        // What the kernel holds for it goes with it, and does not wait for a client that does not read.
        let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
        // It fails when the client is gone already, which is as good.
        let _ = socket.shutdown(Shutdown::Both);
        self.drained.notify_all();
        // Its worker waits for nothing any more, and neither does whoever needs its place.
        self.in_flight.lock().evicted = true;
        self.in_flight_changed.notify_one();
        self.memory_freed.notify_one();
        drop(self.slot.lock().take());
    }
}
