//! One connection to a resolver, and its reader.
//!
//! Any thread writes queries to it, in batches: one lock, one write. Queries that come while another thread is
//! writing leave with that thread. What the socket does not accept waits, by reference, until it does. One thread of its own reads the
//! messages. No lock is held during a blocking call: it covers encrypting, decrypting and writes that do not wait. Which query goes where,
//! under which ID, and which query a message answers, is decided elsewhere. rustls is driven in the handshake and in the channel, and nowhere
//! else.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::yield_now;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use socket2::SockRef;

use super::channel::Channel;
use super::handshake::{TlsParameters, error_text, unix_time_now};
use super::outgoing::{Leader, MAX_COMBINED_WRITES, Outgoing, WriteCombiner};
use super::settings::Security;
use crate::identity::chain::VerifiedPeer;
use crate::identity::key_exchange::HelloSize;
use crate::identity::verify_policy::{PinMode, VerifyPolicy};
use crate::message::framing::LENGTH_PREFIX_LEN;
use crate::system::clock;
use crate::system::scoped_address::ScopedAddress;
use crate::telemetry::log::debug;

/// Octets of queries that the channel is given at a time. No more than this waits to be written when the socket is full.
const MAX_CHUNK: usize = 64 * 1024;

/// A connection to a resolver, which is authenticated unless the connection is in cleartext, shared by the threads that write and the one that reads.
///
/// `state` guards the channel and all that waits to be written. `combiner` guards the queries that one thread writes for others.
/// They are never held together.
#[derive(Debug)]
pub struct Session {
    pub(super) socket: TcpStream,
    pub(super) address: ScopedAddress,
    /// The hello of its handshake.
    pub(super) hello: HelloSize,
    /// None in cleartext.
    pub(super) proof: Option<VerifiedPeer>,
    pub(super) state: Mutex<SessionState>,
    /// Held for moments only, and never while waiting for `state`.
    pub(super) combiner: Mutex<WriteCombiner>,
}

#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) channel: Channel,
    /// The query that is being written; kept for its memory.
    pub(super) plaintext: Vec<u8>,
    /// Octets of the channel that the socket did not accept yet.
    pub(super) unsent: Vec<u8>,
    /// Queries that wait for the socket to accept them.
    pub(super) backlog: VecDeque<Outgoing>,
    /// Number of queries written, and of messages received.
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) closed: bool,
}

impl Session {
    /// The resolver's address.
    pub fn address(&self) -> ScopedAddress {
        self.address
    }

    /// The hello that the resolver answered.
    pub fn hello(&self) -> HelloSize {
        self.hello
    }

    /// How the resolver was authenticated; none in cleartext.
    pub fn proof(&self) -> Option<&VerifiedPeer> {
        self.proof.as_ref()
    }

    /// Returns true if a pin that the session satisfied is still valid; pins have dates.
    pub fn is_pin_valid(&self, security: &Security) -> bool {
        let (Some(identity), Some(proof)) = (security.identity(), &self.proof) else {
            return true;
        };
        let VerifyPolicy { pins, pin_mode, .. } = identity.policy();
        let now = clock::unix_time().as_secs();
        // If the clock is known to be wrong, dates say nothing.
        pins.is_empty()
            || *pin_mode == PinMode::Report
            || proof.clock_untrusted
            || pins.find(&proof.keys, now).is_some()
    }

    /// Returns true if the session's certificates satisfy `security` now. Its pins may differ from those at the handshake.
    pub fn satisfies(&self, security: &Security) -> bool {
        let state = self.state.lock();
        match security.identity() {
            Some(identity) => {
                let chain = state.channel.certificates();
                identity.check(chain, unix_time_now()).is_ok()
            }
            None => matches!(state.channel, Channel::Cleartext(_)),
        }
    }

    /// The negotiated TLS parameters; none in cleartext.
    pub fn tls_parameters(&self) -> Option<TlsParameters> {
        self.state.lock().channel.tls_parameters()
    }

    /// How the session is secured, as fields of a log line.
    pub fn describe_security(&self) -> String {
        self.tls_parameters()
            .map_or("tls=none".to_owned(), |tls| tls.to_string())
    }

    /// Sends `queries` as [`Session::send`] does, or hands them to a thread that is writing. So threads that have queries at the same time
    /// write once for all, instead of waiting for each other.
    pub fn send_combined(&self, queries: &mut Vec<Outgoing>) {
        let mut combiner = self.combiner.lock();
        if combiner.writes > MAX_COMBINED_WRITES {
            // The writing thread has a client of its own to read.
            drop(combiner);
            return self.send(queries);
        }
        if combiner.writes > 0 {
            combiner.queue.append(queries);
            return;
        }
        combiner.writes = 1;
        let was_contended = std::mem::take(&mut combiner.is_contended);
        drop(combiner);
        let leader = Leader(&self.combiner);
        if was_contended {
            // Other threads most likely have queries too, as they had the last time.
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

    /// Sends `queries` as one batch. Queries that have ended are left out; if the session is closed, all are.
    pub fn send(&self, queries: &mut Vec<Outgoing>) {
        let mut state = self.state.lock();
        if state.closed {
            return queries.clear();
        }
        state.backlog.extend(queries.drain(..));
        self.write_backlog(&mut state);
    }

    /// Sends what the socket did not accept before, as far as it does now.
    pub fn flush_backlog(&self) {
        let mut state = self.state.lock();
        let waits = !state.unsent.is_empty() || !state.backlog.is_empty();
        if waits && !state.closed {
            self.write_backlog(&mut state);
        }
    }

    fn write_backlog(&self, state: &mut SessionState) {
        if let Err(error) = self.write_chunks(state) {
            // The reader notices the broken connection too.
            let cause = error_text(&error);
            debug!(
                "event=session-write-failed resolver={} cause=\"{cause}\"",
                self.address
            );
            self.shut_down(state);
        }
    }

    /// While the socket is full, the channel is given no more: at most one chunk waits behind it.
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

    /// Closes the session. The reader sees the end of the stream.
    pub fn close(&self) {
        self.close_with_notify(&mut self.state.lock());
    }

    fn close_with_notify(&self, state: &mut SessionState) {
        if !state.closed {
            state.channel.send_close_notify();
            // The connection ends here, whether close_notify was sent or not.
            let _ = self.flush(state);
            self.shut_down(state);
        }
    }

    fn shut_down(&self, state: &mut SessionState) {
        if state.received < state.sent || !state.unsent.is_empty() {
            // A resolver that does not read leaves queries in the kernel's buffer. They are discarded with the session.
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
        state.closed = true;
        state.backlog.clear();
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Writes what the channel has for the resolver to the socket, as much as it accepts without blocking.
    pub(super) fn flush(&self, state: &mut SessionState) -> io::Result<()> {
        state.channel.take_output(&mut state.unsent)?;
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
    /// Gives the channel a query under its ID on this session; returns its length in octets.
    fn write(&mut self, next: &Outgoing) -> io::Result<usize> {
        self.plaintext.clear();
        let form = self.channel.form(next.form);
        next.query.write_framed(form, &mut self.plaintext);
        self.plaintext[LENGTH_PREFIX_LEN..LENGTH_PREFIX_LEN + 2]
            .copy_from_slice(&next.id.to_be_bytes());
        self.sent += 1;
        self.channel.push(&self.plaintext)?;
        Ok(self.plaintext.len())
    }
}
