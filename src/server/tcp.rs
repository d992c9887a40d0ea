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

use crate::client::{Connection, ConnectionLimit, SlowReaders};
use crate::forward::forwarder::{Batch, Forwarder};
use crate::message::framing::Frames;
use crate::server::backoff::Trouble;
use crate::server::workers::{Job, Pool};
use crate::system::clock;
use crate::system::memory;
use crate::system::thread::{self, Pulse};
use crate::telemetry::log::debug;

/// Connections that the thread that accepts them hears itself, at most, and how long: most clients ask one thing and go.
const LOBBY: usize = 32;
const YOUTH: Duration = Duration::from_secs(1);

/// Where TCP clients come in.
///
/// Most of them ask one thing and go. As long as one may be of these, the thread that let it in hears it, beside others: no
/// thread is woken for it alone. Who says more or stays longer is handed to a worker.
pub(super) struct Door {
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

/// Those who came in a moment ago.
struct Lobby {
    /// In the order in which they came.
    newcomers: Vec<Newcomer>,
    /// What one of them is saying; empty in between.
    frames: Frames,
    /// What they ask.
    batch: Batch,
}

struct Newcomer {
    connection: Connection,
    came: Instant,
    has_asked: bool,
}

/// What a newcomer had to say.
enum Word {
    /// Nothing yet, or the one thing that it asks.
    Little,
    /// More than that, or not all at once.
    Much,
    /// It is gone.
    Farewell,
}

impl Door {
    pub(super) fn accept(&self) {
        let mut trouble = Trouble::default();
        let pulse = Pulse::new("accept");
        let mut lobby = Lobby {
            newcomers: Vec::new(),
            frames: Frames::with_capacity(memory::READ),
            batch: Batch::default(),
        };
        loop {
            let mut ready = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
            ];
            let sockets = lobby
                .newcomers
                .iter()
                .map(|newcomer| newcomer.connection.socket());
            ready.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            if poll(&mut ready, lobby.patience()).is_err() {
                continue;
            }
            let mut calls = ready.iter().map(|ready| ready.any().unwrap_or(true));
            // An error of the listener's own is for accept to tell.
            let knocks = calls.next().unwrap_or(false);
            if calls.next().unwrap_or(true) {
                break;
            }
            let calls: Vec<_> = calls.collect();
            let now = clock::now();
            pulse.works(now);
            self.hear_all(&mut lobby, &calls, now);
            if knocks {
                self.let_in(&mut lobby, &mut trouble, &pulse);
            }
            self.forwarder.dispatch(&mut lobby.batch, now);
            pulse.waits();
            if calls.len() > 1 {
                yield_now();
            }
        }
        self.clear(&mut lobby, usize::MAX);
    }

    /// Hears those of the lobby who have something to say, and has those who were there for long go on to workers.
    fn hear_all(&self, lobby: &mut Lobby, calls: &[bool], now: Instant) {
        let mut calls = calls.iter();
        let newcomers = std::mem::take(&mut lobby.newcomers);
        for newcomer in newcomers {
            if calls.next() == Some(&true) {
                self.hear(lobby, newcomer, now);
            } else {
                lobby.newcomers.push(newcomer);
            }
        }
        let is_young = |newcomer: &Newcomer| now.saturating_duration_since(newcomer.came) < YOUTH;
        let young = lobby.newcomers.iter().position(is_young);
        self.clear(lobby, young.unwrap_or(usize::MAX));
    }

    /// Lets in who waits at the door.
    fn let_in(&self, lobby: &mut Lobby, trouble: &mut Trouble, pulse: &Pulse) {
        for round in 0..LOBBY {
            let slot = match self.slots.take_now() {
                // That one more waits is known of the first alone, and nobody leaves for less.
                None if round == 0 => {
                    // It may be one of these that has to leave.
                    self.vacate(lobby);
                    pulse.waits();
                    self.slots.take()
                }
                slot => slot,
            };
            let Some(slot) = slot else { return };
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let now = clock::now();
                    pulse.works(now);
                    trouble.is_over("accept");
                    if !self.may_stay(peer.ip().to_canonical()) {
                        debug!("event=client-refused client={peer} cause=\"too many of its own\"");
                        continue;
                    }
                    let slow_readers = Arc::clone(&self.slow_readers);
                    let newcomer = Newcomer {
                        connection: Connection::new(socket, peer, slow_readers, slot, now),
                        came: now,
                        has_asked: false,
                    };
                    self.clear(lobby, (lobby.newcomers.len() + 1).saturating_sub(LOBBY));
                    // Its query came with it, mostly.
                    self.hear(lobby, newcomer, now);
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
                    self.vacate(lobby);
                    pulse.waits();
                    return trouble.wait("accept", &error);
                }
            }
        }
    }

    /// Hears one newcomer, and puts it where it belongs then.
    fn hear(&self, lobby: &mut Lobby, mut newcomer: Newcomer, now: Instant) {
        // A panic costs the one at whom it happens.
        match thread::guard("accept", || self.take_in(lobby, &mut newcomer, now)) {
            Some(Word::Little) => lobby.newcomers.push(newcomer),
            Some(Word::Much) => {
                // What it was told here comes before what a worker tells it.
                self.forwarder.dispatch(&mut lobby.batch, now);
                let frames = Frames::with_capacity(memory::READ);
                let begun = std::mem::replace(&mut lobby.frames, frames);
                self.pool.submit(Job::Client(newcomer.connection, begun));
            }
            Some(Word::Farewell) => {}
            None => lobby.frames = Frames::with_capacity(memory::READ),
        }
    }

    fn take_in(&self, lobby: &mut Lobby, newcomer: &mut Newcomer, now: Instant) -> Word {
        let Lobby { frames, batch, .. } = lobby;
        let connection = &newcomer.connection;
        match frames.fill(|room| connection.read_now(room)) {
            Ok(0) => return Word::Farewell,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Word::Little,
            Err(_) => return Word::Farewell,
        }
        let had_asked = newcomer.has_asked;
        let mut asks = 0;
        // What is left goes on to a worker, which may wait until the client has read.
        while !batch.is_large()
            && let Some(range) = frames.next_message()
        {
            asks += 1;
            newcomer.has_asked = true;
            let client = connection.client(now);
            self.forwarder
                .handle(frames.message(range), client, now, batch);
        }
        if batch.was_over_limit() {
            connection.stream().mark_over_limit();
            return Word::Much;
        }
        match (had_asked, asks, frames.is_amid_message()) {
            (false, 1, false) => Word::Little,
            _ => Word::Much,
        }
    }

    /// Leaves nobody to a thread that is about to wait: neither who asked in this round, also if it has gone on since, nor
    /// who may still ask.
    fn vacate(&self, lobby: &mut Lobby) {
        self.forwarder.dispatch(&mut lobby.batch, clock::now());
        self.clear(lobby, usize::MAX);
    }

    /// Has the first so many of the lobby go on to workers.
    fn clear(&self, lobby: &mut Lobby, count: usize) {
        let count = count.min(lobby.newcomers.len());
        for newcomer in lobby.newcomers.drain(..count) {
            let nothing = Frames::with_capacity(memory::READ);
            self.pool.submit(Job::Client(newcomer.connection, nothing));
        }
    }

    fn may_stay(&self, address: IpAddr) -> bool {
        let unlimited = address.is_loopback() && !self.limit_loopback;
        unlimited || self.slots.admit(address, self.per_address)
    }
}

impl Lobby {
    /// Until the first of them has been here for long.
    fn patience(&self) -> PollTimeout {
        let Some(first) = self.newcomers.first() else {
            return PollTimeout::NONE;
        };
        let left = YOUTH.saturating_sub(clock::now().saturating_duration_since(first.came));
        // Rounded up: a timeout of zero for the last fraction of a millisecond would spin.
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    }
}
