//! One authenticated TLS connection, and its reader.
//!
//! Any thread writes queries into it, in batches: one lock, one write, a TLS record each; those that come while another thread
//! is at it leave with that one. What the socket does not take waits, by reference, until it does. One thread of its own reads the
//! messages. Nobody waits for anything else here: the lock covers encrypting and decrypting, never a blocking call. Which query goes
//! where, under which ID, and whose answer a message is, is decided elsewhere. rustls is driven here, in the handshake and in the reader, and nowhere else.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::yield_now;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use rustls::ClientConnection;
use socket2::SockRef;

use super::handshake::{TlsParameters, error_text, unix_time_now};
use super::outgoing::{Leader, MAX_COMBINED_WRITES, Outgoing, WriteCombiner};
use crate::identity::chain::Proof;
use crate::identity::terms::{PinMode, Terms};
use crate::identity::verifier::Identity;
use crate::message::framing::PREFIX;
use crate::system::clock;
use crate::telemetry::log::debug;

/// Octets of queries that are encrypted at a time: what the socket does not take then is all that waits to be written.
const MAX_CHUNK: usize = 64 * 1024;
/// Why a session ended.
#[derive(Debug)]
pub enum CloseReason {
    /// The resolver closed it, which it may at any time (RFC 7858 section 3.4).
    ByPeer,
    /// It was closed here.
    Local,
    /// The connection broke.
    Io(io::Error),
    /// What came is no DNS message, so the stream's frame is lost.
    Malformed,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer => write!(f, "closed"),
            Self::Local => write!(f, "closed here"),
            Self::Io(error) => write!(f, "{}", error_text(error)),
            Self::Malformed => write!(f, "the resolver sent something that is no DNS message"),
        }
    }
}

/// A connection to a resolver whose identity is proved.
#[derive(Debug)]
pub struct Session {
    pub(super) socket: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) proof: Proof,
    pub(super) state: Mutex<SessionState>,
    /// Locked for moments, and never while waiting for the state.
    pub(super) combiner: Mutex<WriteCombiner>,
}

#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) tls: ClientConnection,
    /// The query that is being written; kept for its memory.
    pub(super) plaintext: Vec<u8>,
    /// Encrypted octets that the socket did not take yet.
    pub(super) unsent: Vec<u8>,
    /// Queries that wait for it to take them.
    pub(super) backlog: VecDeque<Outgoing>,
    /// Queries that were written, and messages that came.
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) closed: bool,
}

impl Session {
    /// The resolver's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the resolver proved itself.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Whether a pin of `identity` that was satisfied counts still; pins have dates.
    pub fn is_pin_valid(&self, identity: &Identity) -> bool {
        let Terms { pins, pin_mode, .. } = identity.terms();
        let now = clock::since_1970().as_secs();
        // With a clock that is known to be wrong, dates say nothing.
        pins.is_empty()
            || *pin_mode == PinMode::Report
            || self.proof.clock_suspect
            || pins.find(&self.proof.keys, now).is_some()
    }

    /// Whether what was proved would do for `identity` now, which may have other pins than the one that it was proved for.
    pub fn satisfies(&self, identity: &Identity) -> bool {
        let state = self.state.lock();
        let chain = state.tls.peer_certificates().unwrap_or_default();
        identity.check(chain, unix_time_now()).is_ok()
    }

    /// What was agreed on with the resolver.
    pub fn tls_parameters(&self) -> TlsParameters {
        TlsParameters::of(&self.state.lock().tls)
    }

    /// Sends `queries` as [`Session::send`] does, or hands them to a thread that is about to. So threads that have queries at
    /// the same time write once for all, instead of waiting for each other's writes.
    pub fn send_combined(&self, queries: &mut Vec<Outgoing>) {
        let mut combiner = self.combiner.lock();
        if combiner.writes > MAX_COMBINED_WRITES {
            // Whoever sends has a client of its own to read.
            drop(combiner);
            return self.send(queries);
        }
        if combiner.writes > 0 {
            combiner.queue.append(queries);
            return;
        }
        combiner.writes = 1;
        let gathers = std::mem::take(&mut combiner.is_contended);
        drop(combiner);
        let leader = Leader(&self.combiner);
        if gathers {
            // Others have something too, most likely, as they had the last time.
            yield_now();
            self.combiner.lock().take_queue(queries);
        }
        loop {
            self.send(queries);
            let mut combiner = self.combiner.lock();
            combiner.take_queue(queries);
            if queries.is_empty() {
                combiner.writes = 0;
                std::mem::forget(leader);
                return;
            }
            combiner.writes += 1;
        }
    }

    /// Sends `queries`, as one batch. Those that have ended are left out, and so are all once the session has.
    pub fn send(&self, queries: &mut Vec<Outgoing>) {
        let mut state = self.state.lock();
        if state.closed {
            return queries.clear();
        }
        state.backlog.extend(queries.drain(..));
        self.write_backlog(&mut state);
    }

    /// Sends what the socket did not take before, as far as it does now.
    pub fn flush_backlog(&self) {
        let mut state = self.state.lock();
        let waits = !state.unsent.is_empty() || !state.backlog.is_empty();
        if waits && !state.closed {
            self.write_backlog(&mut state);
        }
    }

    fn write_backlog(&self, state: &mut SessionState) {
        if let Err(error) = self.write_chunks(state) {
            // The reader finds the broken connection too.
            let cause = error_text(&error);
            debug!(
                "event=session-broken resolver={} cause=\"{cause}\"",
                self.address
            );
            self.shut_down(state);
        }
    }

    /// While the socket takes nothing, no more is encrypted: a piece is all that waits so.
    fn write_chunks(&self, state: &mut SessionState) -> io::Result<()> {
        loop {
            self.flush(state)?;
            if !state.unsent.is_empty() || state.backlog.is_empty() {
                return Ok(());
            }
            let mut octets = 0;
            while octets < MAX_CHUNK
                && let Some(next) = state.backlog.pop_front()
            {
                if !next.query.has_ended() {
                    octets += state.write(&next)?;
                }
            }
        }
    }

    /// Ends it. The reader sees the end of the stream.
    pub fn close(&self) {
        self.close_with_notify(&mut self.state.lock());
    }

    fn close_with_notify(&self, state: &mut SessionState) {
        if !state.closed {
            state.tls.send_close_notify();
            // The connection ends here, said or not.
            let _ = self.flush(state);
            self.shut_down(state);
        }
    }

    fn shut_down(&self, state: &mut SessionState) {
        if state.received < state.sent || !state.unsent.is_empty() {
            // A resolver that does not read leaves queries in the kernel. They go with the session, and do not wait for it.
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
        state.closed = true;
        state.backlog.clear();
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Hands what rustls has for the resolver to the socket, as much as it takes without waiting.
    pub(super) fn flush(&self, state: &mut SessionState) -> io::Result<()> {
        while state.tls.wants_write() {
            state.tls.write_tls(&mut state.unsent)?;
        }
        while !state.unsent.is_empty() && !state.closed {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), &state.unsent, flags) {
                Ok(sent) => drop(state.unsent.drain(..sent)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl SessionState {
    /// Encrypts a query, under its ID here; returns how many octets it has. It has a record to itself: servers that read a message from each
    /// record, and then wait for the network, are in use.
    fn write(&mut self, next: &Outgoing) -> io::Result<usize> {
        self.plaintext.clear();
        next.query.write_framed(next.form, &mut self.plaintext);
        self.plaintext[PREFIX..PREFIX + 2].copy_from_slice(&next.id.to_be_bytes());
        self.sent += 1;
        self.tls.writer().write_all(&self.plaintext)?;
        Ok(self.plaintext.len())
    }
}
