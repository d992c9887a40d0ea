//! How are TCP clients accepted?
//!
//! Each listener has a thread, which also reads new connections until it is clear that they need a worker.

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
use crate::message::framing::FrameBuffer;
use crate::server::backoff::Backoff;
use crate::server::workers::{Job, WorkerPool};
use crate::system::clock;
use crate::system::memory;
use crate::system::thread::{self, Heartbeat};
use crate::telemetry::log::debug;

/// Connections that an accepting thread reads itself, at most.
const MAX_NEW_CONNECTIONS: usize = 32;
/// How long an accepting thread reads a connection itself.
const NEW_CONNECTION_TIME: Duration = Duration::from_secs(1);

/// Accepts the clients of one TCP listener.
///
/// Most clients send one query and close. The accepting thread reads new connections itself, several at a time, so that no thread is woken
/// for a single query. A connection that sends more or stays longer is handed over to a worker.
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    /// Readable once accepting is to stop.
    pub(super) shutdown: PipeReader,
    pub(super) connection_limit: Arc<ConnectionLimit>,
    /// TCP connections that one client may have.
    pub(super) max_per_address: usize,
    pub(super) limit_loopback: bool,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) pool: Arc<WorkerPool>,
    pub(super) slow_readers: Arc<SlowReaders>,
    pub(super) stopping: Arc<AtomicBool>,
}

/// The connections that the accepting thread reads itself.
struct NewConnections {
    /// In the order in which they were accepted.
    connections: Vec<NewConnection>,
    /// The buffer into which one connection at a time is read; empty in between.
    frames: FrameBuffer,
    /// Their queries.
    batch: Batch,
}

struct NewConnection {
    connection: Connection,
    accepted_at: Instant,
    /// A query was read.
    has_query: bool,
}

/// What to do with a new connection after a read.
enum FirstRead {
    /// Nothing or exactly one query was read so far: the accepting thread keeps the connection.
    KeepPolling,
    /// More than one query or an incomplete one was read: a worker takes over.
    HandOver,
    /// The client closed the connection, or it failed.
    Closed,
}

impl Acceptor {
    /// Accepts until the shutdown, and then hands all new connections over to workers.
    pub(super) fn run(&self) {
        let mut backoff = Backoff::default();
        let heartbeat = Heartbeat::new("accept");
        let mut new_connections = NewConnections {
            connections: Vec::new(),
            frames: FrameBuffer::with_capacity(memory::READ_BUFFER),
            batch: Batch::default(),
        };
        loop {
            let mut ready = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.shutdown.as_fd(), PollFlags::POLLIN),
            ];
            let sockets = new_connections
                .connections
                .iter()
                .map(|new| new.connection.socket());
            ready.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            if poll(&mut ready, new_connections.poll_timeout()).is_err() {
                continue;
            }
            let mut readable = ready.iter().map(|ready| ready.any().unwrap_or(true));
            // An error of the listener also counts as readable: accept reports it.
            let listener_ready = readable.next().unwrap_or(false);
            if readable.next().unwrap_or(true) {
                break;
            }
            let readable: Vec<_> = readable.collect();
            let now = clock::now();
            heartbeat.set_busy(now);
            self.read_ready(&mut new_connections, &readable, now);
            if listener_ready {
                self.accept_pending(&mut new_connections, &mut backoff, &heartbeat);
            }
            self.forwarder.dispatch(&mut new_connections.batch, now);
            heartbeat.set_idle();
            if readable.len() > 1 {
                yield_now();
            }
        }
        self.hand_over(&mut new_connections, usize::MAX);
    }

    /// Reads the readable new connections, and hands over those that are no longer new.
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
        let is_new = |new: &NewConnection| {
            now.saturating_duration_since(new.accepted_at) < NEW_CONNECTION_TIME
        };
        let first_new = new_connections.connections.iter().position(is_new);
        self.hand_over(new_connections, first_new.unwrap_or(usize::MAX));
    }

    /// Accepts the pending connections, [`MAX_NEW_CONNECTIONS`] at most.
    fn accept_pending(
        &self,
        new_connections: &mut NewConnections,
        backoff: &mut Backoff,
        heartbeat: &Heartbeat,
    ) {
        for count in 0..MAX_NEW_CONNECTIONS {
            let slot = match self.connection_limit.try_acquire() {
                // Only before the first accept is it known that a connection is pending, so only then is another one evicted for it.
                None if count == 0 => {
                    // One of the new connections may have to be evicted.
                    self.hand_over_all(new_connections);
                    heartbeat.set_idle();
                    self.connection_limit.acquire()
                }
                slot => slot,
            };
            let Some(slot) = slot else { return };
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let now = clock::now();
                    heartbeat.set_busy(now);
                    backoff.reset("accept");
                    if !self.admit(peer.ip().to_canonical()) {
                        debug!("event=client-rejected client={peer} cause=\"too many of its own\"");
                        continue;
                    }
                    let slow_readers = Arc::clone(&self.slow_readers);
                    let new = NewConnection {
                        connection: Connection::new(socket, peer, slow_readers, slot, now),
                        accepted_at: now,
                        has_query: false,
                    };
                    self.hand_over(
                        new_connections,
                        (new_connections.connections.len() + 1).saturating_sub(MAX_NEW_CONNECTIONS),
                    );
                    // Mostly the first query has arrived with the connection.
                    self.read_new(new_connections, new, now);
                }
                Err(_) if self.stopping.load(Ordering::Acquire) => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client has reset the connection before it was accepted.
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

    /// Reads one new connection, and then keeps it, hands it over, or drops it.
    fn read_new(&self, new_connections: &mut NewConnections, mut new: NewConnection, now: Instant) {
        // A panic closes only this connection.
        match thread::catch_panic("accept", || {
            self.read_queries(new_connections, &mut new, now)
        }) {
            Some(FirstRead::KeepPolling) => new_connections.connections.push(new),
            Some(FirstRead::HandOver) => {
                // The answers of this thread are sent before those of the worker.
                self.forwarder.dispatch(&mut new_connections.batch, now);
                let frames = FrameBuffer::with_capacity(memory::READ_BUFFER);
                let received = std::mem::replace(&mut new_connections.frames, frames);
                self.pool.submit(Job::Client(new.connection, received));
            }
            Some(FirstRead::Closed) => {}
            None => new_connections.frames = FrameBuffer::with_capacity(memory::READ_BUFFER),
        }
    }

    /// Reads once, and handles the queries that are complete.
    fn read_queries(
        &self,
        new_connections: &mut NewConnections,
        new: &mut NewConnection,
        now: Instant,
    ) -> FirstRead {
        let NewConnections { frames, batch, .. } = new_connections;
        let connection = &new.connection;
        match frames.fill(|buffer| connection.try_read(buffer)) {
            Ok(0) => return FirstRead::Closed,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return FirstRead::KeepPolling,
            Err(_) => return FirstRead::Closed,
        }
        let had_query = new.has_query;
        let mut queries = 0;
        // The rest is left to a worker, which may wait until the client has read its answers.
        while !batch.is_large()
            && let Some(range) = frames.next_message()
        {
            queries += 1;
            new.has_query = true;
            let client = connection.start_query(now);
            self.forwarder
                .handle(frames.message(range), client, now, batch);
        }
        if batch.take_over_limit() {
            connection.stream().mark_over_limit();
            return FirstRead::HandOver;
        }
        match (had_query, queries, frames.has_partial_message()) {
            (false, 1, false) => FirstRead::KeepPolling,
            _ => FirstRead::HandOver,
        }
    }

    /// Prepares the thread for blocking: sends all queries and replies that are pending, and hands all new connections over to workers.
    fn hand_over_all(&self, new_connections: &mut NewConnections) {
        self.forwarder
            .dispatch(&mut new_connections.batch, clock::now());
        self.hand_over(new_connections, usize::MAX);
    }

    /// Hands the first `count` new connections over to workers.
    fn hand_over(&self, new_connections: &mut NewConnections, count: usize) {
        let count = count.min(new_connections.connections.len());
        for new in new_connections.connections.drain(..count) {
            let empty = FrameBuffer::with_capacity(memory::READ_BUFFER);
            self.pool.submit(Job::Client(new.connection, empty));
        }
    }

    /// Checks the limit per address, which does not hold for loopback addresses by default. May evict an idle connection of the client.
    fn admit(&self, address: IpAddr) -> bool {
        let is_unlimited = address.is_loopback() && !self.limit_loopback;
        is_unlimited || self.connection_limit.admit(address, self.max_per_address)
    }
}

impl NewConnections {
    /// The time until the oldest connection is no longer new.
    fn poll_timeout(&self) -> PollTimeout {
        let Some(first) = self.connections.first() else {
            return PollTimeout::NONE;
        };
        let left = NEW_CONNECTION_TIME
            .saturating_sub(clock::now().saturating_duration_since(first.accepted_at));
        // Rounded up: for the last fraction of a millisecond, a timeout of zero would make the loop spin.
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    }
}
