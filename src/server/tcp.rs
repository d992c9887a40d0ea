//! How are TCP clients accepted?
//!
//! By a thread for each listener, which also reads new connections until it is clear that they need a worker.

use std::io::{ErrorKind, PipeReader};
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::connection::Connection;
use crate::client::connection_limit::ConnectionLimit;
use crate::client::slow_readers::SlowReaders;
use crate::forward::forwarder::{Batch, Forwarder};
use crate::message::framing::Frames;
use crate::server::backoff::Backoff;
use crate::server::workers::{Job, Pool};
use crate::system::clock;
use crate::system::memory;
use crate::system::thread::{self, Heartbeat};
use crate::telemetry::log::debug;

/// Connections that the thread that accepts them reads itself, at most, and how long: most clients ask one thing and go.
const MOST_NEW: usize = 32;
const NEW_FOR: Duration = Duration::from_secs(1);

/// What accepts the clients of one TCP listener.
///
/// Most of them ask one thing and go. As long as one may be of these, the thread that accepted it reads it, beside others: no
/// thread is woken for it alone. Who says more or stays longer is handed to a worker.
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    pub(super) ended: PipeReader,
    pub(super) slots: Arc<ConnectionLimit>,
    pub(super) per_address: usize,
    pub(super) limit_loopback: bool,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) pool: Arc<Pool>,
    pub(super) slow_readers: Arc<SlowReaders>,
    pub(super) stopping: Arc<AtomicBool>,
}

/// The connections that were accepted a moment ago.
struct NewConnections {
    /// In the order in which they came.
    connections: Vec<NewConnection>,
    /// What one of them is saying; empty in between.
    frames: Frames,
    /// What they ask.
    batch: Batch,
}

struct NewConnection {
    connection: Connection,
    accepted: Instant,
    has_asked: bool,
}

/// What was read from a new connection.
enum Said {
    /// Nothing yet, or the one thing that it asks.
    Little,
    /// More than that, or not all at once.
    Much,
    /// It is gone.
    Gone,
}

impl Acceptor {
    pub(super) fn accept(&self) {
        let mut backoff = Backoff::default();
        let heartbeat = Heartbeat::new("accept");
        let mut new_connections = NewConnections {
            connections: Vec::new(),
            frames: Frames::with_capacity(memory::READ_BUFFER),
            batch: Batch::default(),
        };
        loop {
            let mut ready = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
            ];
            let sockets = new_connections
                .connections
                .iter()
                .map(|new| new.connection.socket());
            ready.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            if poll(&mut ready, new_connections.patience()).is_err() {
                continue;
            }
            let mut readable = ready.iter().map(|ready| ready.any().unwrap_or(true));
            // An error of the listener's own is for accept to tell.
            let is_waited_at = readable.next().unwrap_or(false);
            if readable.next().unwrap_or(true) {
                break;
            }
            let readable: Vec<_> = readable.collect();
            let now = clock::now();
            heartbeat.set_busy(now);
            self.read_ready(&mut new_connections, &readable, now);
            if is_waited_at {
                self.accept_waiting(&mut new_connections, &mut backoff, &heartbeat);
            }
            self.forwarder.dispatch(&mut new_connections.batch, now);
            heartbeat.set_idle();
            if readable.len() > 1 {
                yield_now();
            }
        }
        self.hand_over(&mut new_connections, usize::MAX);
    }

    /// Reads those new connections that have something to say, and hands those over to workers that are no longer new.
    fn read_ready(&self, new_connections: &mut NewConnections, readable: &[bool], now: Instant) {
        let mut readable = readable.iter();
        let connections = std::mem::take(&mut new_connections.connections);
        for new in connections {
            if readable.next() == Some(&true) {
                self.read_new(new_connections, new, now);
            } else {
                new_connections.connections.push(new);
            }
        }
        let is_new = |new: &NewConnection| now.saturating_duration_since(new.accepted) < NEW_FOR;
        let first_new = new_connections.connections.iter().position(is_new);
        self.hand_over(new_connections, first_new.unwrap_or(usize::MAX));
    }

    /// Accepts the connections that wait.
    fn accept_waiting(
        &self,
        new_connections: &mut NewConnections,
        backoff: &mut Backoff,
        heartbeat: &Heartbeat,
    ) {
        for round in 0..MOST_NEW {
            let slot = match self.slots.take_now() {
                // That one more waits is known of the first alone, and nobody leaves for less.
                None if round == 0 => {
                    // It may be one of these that has to leave.
                    self.hand_over_all(new_connections);
                    heartbeat.set_idle();
                    self.slots.take()
                }
                slot => slot,
            };
            let Some(slot) = slot else { return };
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let now = clock::now();
                    heartbeat.set_busy(now);
                    backoff.is_over("accept");
                    if !self.may_stay(peer.ip().to_canonical()) {
                        debug!("event=client-refused client={peer} cause=\"too many of its own\"");
                        continue;
                    }
                    let slow_readers = Arc::clone(&self.slow_readers);
                    let new = NewConnection {
                        connection: Connection::new(socket, peer, slow_readers, slot, now),
                        accepted: now,
                        has_asked: false,
                    };
                    self.hand_over(
                        new_connections,
                        (new_connections.connections.len() + 1).saturating_sub(MOST_NEW),
                    );
                    // Its query came with it, mostly.
                    self.read_new(new_connections, new, now);
                }
                Err(_) if self.stopping.load(Ordering::Acquire) => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client went away again before it was accepted: weather.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    self.hand_over_all(new_connections);
                    heartbeat.set_idle();
                    return backoff.wait("accept", &error);
                }
            }
        }
    }

    /// Reads one new connection, and puts it where it belongs then.
    fn read_new(&self, new_connections: &mut NewConnections, mut new: NewConnection, now: Instant) {
        // A panic costs the one at whom it happens.
        match thread::catch_panic("accept", || self.take_in(new_connections, &mut new, now)) {
            Some(Said::Little) => new_connections.connections.push(new),
            Some(Said::Much) => {
                // What it was told here comes before what a worker tells it.
                self.forwarder.dispatch(&mut new_connections.batch, now);
                let frames = Frames::with_capacity(memory::READ_BUFFER);
                let begun = std::mem::replace(&mut new_connections.frames, frames);
                self.pool.submit(Job::Client(new.connection, begun));
            }
            Some(Said::Gone) => {}
            None => new_connections.frames = Frames::with_capacity(memory::READ_BUFFER),
        }
    }

    fn take_in(
        &self,
        new_connections: &mut NewConnections,
        new: &mut NewConnection,
        now: Instant,
    ) -> Said {
        let NewConnections { frames, batch, .. } = new_connections;
        let connection = &new.connection;
        match frames.fill(|room| connection.read_now(room)) {
            Ok(0) => return Said::Gone,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Said::Little,
            Err(_) => return Said::Gone,
        }
        let had_asked = new.has_asked;
        let mut asks = 0;
        // What is left goes on to a worker, which may wait until the client has read.
        while !batch.is_large()
            && let Some(range) = frames.next_message()
        {
            asks += 1;
            new.has_asked = true;
            let client = connection.client(now);
            self.forwarder
                .handle(frames.message(range), client, now, batch);
        }
        if batch.was_over_limit() {
            connection.stream().mark_over_limit();
            return Said::Much;
        }
        match (had_asked, asks, frames.is_amid_message()) {
            (false, 1, false) => Said::Little,
            _ => Said::Much,
        }
    }

    /// Leaves nobody to a thread that is about to wait: neither who asked in this round, also if it has gone on since, nor
    /// who may still ask.
    fn hand_over_all(&self, new_connections: &mut NewConnections) {
        self.forwarder
            .dispatch(&mut new_connections.batch, clock::now());
        self.hand_over(new_connections, usize::MAX);
    }

    /// Hands the first so many of the new connections over to workers.
    fn hand_over(&self, new_connections: &mut NewConnections, count: usize) {
        let count = count.min(new_connections.connections.len());
        for new in new_connections.connections.drain(..count) {
            let nothing = Frames::with_capacity(memory::READ_BUFFER);
            self.pool.submit(Job::Client(new.connection, nothing));
        }
    }

    fn may_stay(&self, address: IpAddr) -> bool {
        let unlimited = address.is_loopback() && !self.limit_loopback;
        unlimited || self.slots.admit(address, self.per_address)
    }
}

impl NewConnections {
    /// Until the first of them has been here for long.
    fn patience(&self) -> PollTimeout {
        let Some(first) = self.connections.first() else {
            return PollTimeout::NONE;
        };
        let left = NEW_FOR.saturating_sub(clock::now().saturating_duration_since(first.accepted));
        // Rounded up: a timeout of zero for the last fraction of a millisecond would spin.
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    }
}
