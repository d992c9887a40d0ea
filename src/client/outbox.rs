//! Which answers does a socket not take yet?

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, send, sendmsg};
use smallvec::SmallVec;

use crate::client::unsent_replies::ReplyTag;
use crate::message::framing;
use crate::system::memory::Reservation;

/// Octets that each part of an outbox costs besides its content.
const PART_OVERHEAD: usize = 64;
/// Slices that one system call sends, at most (UIO_MAXIOV).
const MAX_SLICES: usize = 1024;

/// The answers that the socket of a TCP client has not taken yet, and the socket. Guarded by a lock of the stream.
#[derive(Debug)]
pub(super) struct Outbox {
    /// None once the connection is closed and nothing more is written.
    socket: Option<Arc<TcpStream>>,
    /// The unsent answers in order; each part is the rest of one write.
    parts: VecDeque<Part>,
    /// Octets of the first part that were sent.
    first_sent: usize,
    /// What the parts cost in octets.
    cost: usize,
    /// The memory for that cost.
    reservation: Option<Reservation>,
    /// Since when the outbox has not been empty.
    pub(super) non_empty_since: Option<Instant>,
    /// The stream is on the list of slow readers.
    pub(super) is_listed: bool,
}

/// The rest of one write.
#[derive(Debug)]
struct Part {
    octets: Box<[u8]>,
    /// One for each reply that has not left whole.
    tags: Box<[ReplyTag]>,
}

impl Part {
    /// What the part costs in octets.
    fn cost(&self) -> usize {
        let tags = size_of_val::<[ReplyTag]>(&self.tags);
        self.octets
            .len()
            .saturating_add(tags)
            .saturating_add(PART_OVERHEAD)
    }
}

impl Outbox {
    /// An empty outbox for `socket`.
    pub(super) fn new(socket: Arc<TcpStream>) -> Self {
        Self {
            socket: Some(socket),
            parts: VecDeque::new(),
            first_sent: 0,
            cost: 0,
            reservation: None,
            non_empty_since: None,
            is_listed: false,
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

    /// Drops the unsent answers and returns the socket. None if the outbox was closed before.
    pub(super) fn close(&mut self) -> Option<Arc<TcpStream>> {
        let socket = self.socket.take()?;
        self.parts.clear();
        (self.first_sent, self.cost, self.reservation) = (0, 0, None);
        self.non_empty_since = None;
        Some(socket)
    }

    /// Sends the `parts` of `octets` in order, unless the outbox has unsent answers. Returns how many octets the socket took.
    pub(super) fn write(&self, octets: &[u8], parts: &[Range<usize>]) -> nix::Result<usize> {
        let Some(socket) = self.socket.as_ref().filter(|_| self.is_empty()) else {
            return Ok(0);
        };
        let part = |range: &Range<usize>| octets.get(range.clone()).unwrap_or_default();
        match parts {
            [only] => try_send(socket, part(only)),
            _ => {
                let slices: SmallVec<[IoSlice<'_>; 16]> = parts
                    .iter()
                    .take(MAX_SLICES)
                    .map(|range| IoSlice::new(part(range)))
                    .collect();
                try_send_slices(socket, &slices)
            }
        }
    }

    /// The cost of the outbox with one more part of so many octets, which belong to so many replies.
    pub(super) fn cost_with(&self, octets: usize, replies: usize) -> usize {
        self.cost
            .saturating_add(octets)
            .saturating_add(replies.saturating_mul(size_of::<ReplyTag>()))
            .saturating_add(PART_OVERHEAD)
    }

    /// The memory that is reserved for the outbox.
    pub(super) fn reservation_mut(&mut self) -> &mut Option<Reservation> {
        &mut self.reservation
    }

    /// The replies that have not left whole.
    pub(super) fn unsent_tags(&self) -> impl Iterator<Item = ReplyTag> {
        self.parts.iter().flat_map(|part| part.tags.iter().copied())
    }

    /// Queues the last `unsent` octets of `parts`, of which the first `sent` octets were sent. `tags` are those of the replies that have
    /// not left whole ([`unsent_tags`]).
    pub(super) fn push_unsent(
        &mut self,
        octets: &[u8],
        parts: &[Range<usize>],
        tags: &[ReplyTag],
        mut sent: usize,
        unsent: usize,
    ) {
        let mut queued = Vec::with_capacity(unsent);
        for range in parts {
            let skipped = sent.min(range.len());
            sent = sent.saturating_sub(skipped);
            let part = octets.get(range.clone()).unwrap_or_default();
            queued.extend_from_slice(part.get(skipped..).unwrap_or_default());
        }
        self.cost = self.cost_with(unsent, tags.len());
        self.parts.push_back(Part {
            octets: queued.into_boxed_slice(),
            tags: tags.iter().map(|tag| tag.after_send()).collect(),
        });
    }

    /// The cost of the parts, and the octets that are reserved for them.
    #[cfg(test)]
    pub(super) fn cost_and_reserved(&self) -> (usize, usize) {
        let cost = self.parts.iter().map(Part::cost).sum();
        (
            cost,
            self.reservation.as_ref().map_or(0, Reservation::octets),
        )
    }

    /// Sends what the socket takes, without blocking.
    pub(super) fn flush(&mut self) -> nix::Result<()> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        while let Some(part) = self.parts.front() {
            let rest = part.octets.get(self.first_sent..).unwrap_or_default();
            let sent = try_send(socket, rest)?;
            if sent < rest.len() {
                self.first_sent = self.first_sent.saturating_add(sent);
                return Ok(());
            }
            let cost = part.cost();
            self.parts.pop_front();
            self.first_sent = 0;
            self.cost = self.cost.saturating_sub(cost);
            if let Some(reservation) = &mut self.reservation {
                // Shrinking never fails.
                reservation.resize(self.cost);
            }
        }
        Ok(())
    }
}

/// The tags of the replies that have not left whole once the first `sent` octets of `parts` have. The parts hold a framed reply for each tag.
pub(super) fn unsent_tags<'t>(
    octets: &[u8],
    parts: &[Range<usize>],
    tags: &'t [ReplyTag],
    sent: usize,
) -> &'t [ReplyTag] {
    let parts = parts
        .iter()
        .map(|range| octets.get(range.clone()).unwrap_or_default());
    let whole = framing::count_whole(parts, sent);
    tags.get(whole..).unwrap_or_default()
}

/// Sends what the socket takes without blocking. Returns 0 if it takes nothing now.
fn try_send(socket: &TcpStream, octets: &[u8]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    without_blocking(|| send(socket.as_raw_fd(), octets, flags))
}

/// The same for several slices, sent in order.
fn try_send_slices(socket: &TcpStream, slices: &[IoSlice<'_>]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    without_blocking(|| sendmsg::<SockaddrStorage>(socket.as_raw_fd(), slices, &[], flags, None))
}

/// Repeats an interrupted system call, and returns 0 if it would block.
fn without_blocking(send: impl Fn() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match send() {
            Ok(sent) => return Ok(sent),
            Err(Errno::EAGAIN) => return Ok(0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
