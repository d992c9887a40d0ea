//! What has a client not taken yet?

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, send, sendmsg};
use smallvec::SmallVec;

use crate::system::memory::Reservation;

/// Octets that a part of an outbox costs besides what is in it.
const PART: usize = 64;
/// Pieces of memory that one system call sends, at most (UIO_MAXIOV).
const PIECES: usize = 1024;

/// What its client has not taken yet.
#[derive(Debug)]
pub(super) struct Outbox {
    /// None once the connection is closed: nothing more is written.
    socket: Option<Arc<TcpStream>>,
    /// Each part is what a write left, in order.
    parts: VecDeque<Box<[u8]>>,
    /// Octets of the first part that were sent.
    sent: usize,
    /// What the parts cost.
    octets: usize,
    held: Option<Reservation>,
    /// Since when it holds anything.
    pub(super) since: Option<Instant>,
    /// It is on the list of slow readers.
    pub(super) listed: bool,
}

impl Outbox {
    /// An empty one, of which `socket` takes what it can.
    pub(super) fn new(socket: Arc<TcpStream>) -> Self {
        Self {
            socket: Some(socket),
            parts: VecDeque::new(),
            sent: 0,
            octets: 0,
            held: None,
            since: None,
            listed: false,
        }
    }

    /// The socket, until the connection is closed.
    pub(super) fn socket(&self) -> Option<Arc<TcpStream>> {
        self.socket.clone()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Drops what it holds and gives the socket away, once.
    pub(super) fn close(&mut self) -> Option<Arc<TcpStream>> {
        let socket = self.socket.take()?;
        self.parts.clear();
        (self.sent, self.octets, self.held) = (0, 0, None);
        self.since = None;
        Some(socket)
    }

    /// Sends parts of `octets`, one after the other, unless something waits before them. Says how many octets the socket took.
    pub(super) fn write(&self, octets: &[u8], parts: &[Range<usize>]) -> io::Result<usize> {
        let Some(socket) = self.socket.as_ref().filter(|_| self.is_empty()) else {
            return Ok(0);
        };
        let part = |range: &Range<usize>| octets.get(range.clone()).unwrap_or_default();
        match parts {
            [only] => send_now(socket, part(only)),
            _ => {
                let slices: SmallVec<[IoSlice<'_>; 16]> = parts
                    .iter()
                    .take(PIECES)
                    .map(|range| IoSlice::new(part(range)))
                    .collect();
                send_all_now(socket, &slices)
            }
        }
    }

    /// What it costs with so many octets more in it.
    pub(super) fn cost_with(&self, octets: usize) -> usize {
        self.octets.saturating_add(octets).saturating_add(PART)
    }

    /// What pays for it.
    pub(super) fn held(&mut self) -> &mut Option<Reservation> {
        &mut self.held
    }

    /// Keeps the last `rest` octets of `parts`, of which the first `taken` were sent.
    pub(super) fn keep(
        &mut self,
        octets: &[u8],
        parts: &[Range<usize>],
        mut taken: usize,
        rest: usize,
    ) {
        let mut left = Vec::with_capacity(rest);
        for range in parts {
            let skipped = taken.min(range.len());
            taken = taken.saturating_sub(skipped);
            let part = octets.get(range.clone()).unwrap_or_default();
            left.extend_from_slice(part.get(skipped..).unwrap_or_default());
        }
        self.octets = self.cost_with(rest);
        self.parts.push_back(left.into_boxed_slice());
    }

    /// Octets that it has, and that are held for it.
    #[cfg(test)]
    pub(super) fn cost_and_held(&self) -> (usize, usize) {
        let octets = self.parts.iter().map(|part| part.len() + PART).sum();
        (octets, self.held.as_ref().map_or(0, Reservation::octets))
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        while let Some(part) = self.parts.front() {
            let rest = part.get(self.sent..).unwrap_or_default();
            let sent = send_now(socket, rest)?;
            if sent < rest.len() {
                self.sent = self.sent.saturating_add(sent);
                return Ok(());
            }
            let cost = part.len().saturating_add(PART);
            self.parts.pop_front();
            self.sent = 0;
            self.octets = self.octets.saturating_sub(cost);
            if let Some(held) = &mut self.held {
                // Less always fits.
                held.resize(self.octets);
            }
        }
        Ok(())
    }
}

/// Sends what the socket takes at once.
fn send_now(socket: &TcpStream, octets: &[u8]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    at_once(|| send(socket.as_raw_fd(), octets, flags))
}

/// The same for several pieces, one after the other.
fn send_all_now(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    at_once(|| sendmsg::<SockaddrStorage>(socket.as_raw_fd(), pieces, &[], flags, None))
}

fn at_once(send: impl Fn() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match send() {
            Ok(sent) => return Ok(sent),
            Err(Errno::EAGAIN) => return Ok(0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
