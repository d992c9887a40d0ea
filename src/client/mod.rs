//! How does an answer leave?
//!
//! As a datagram from the address that was asked, cut to the size that the client takes; or into a stream, framed, and
//! never waiting for a client that does not read. Replies are gathered in a [`ReplyBatch`] and sent together, before they are
//! many: what a stream's socket does not take goes to its outbox, which one thread for all of them drains ([`SlowReaders`]), and
//! is paid for in [`crate::system::memory`] before it is copied. [`ConnectionLimit`] says who may be connected.

// Strangers' octets come through here: what could panic or wrap is not written at all.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod connection_limit;
mod datagrams;
mod in_flight;
mod reply_batch;
mod slow_readers;
mod stream;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use connection_limit::{ConnectionLimit, Slot};
pub use datagrams::Local;
pub use reply_batch::ReplyBatch;
pub use slow_readers::SlowReaders;
pub use stream::{Connection, IDLE_LIMIT, InFlightGuard, Stream};

use crate::telemetry::metrics::Counter;

/// Bits of the prefix of an IPv6 site, whose addresses are one client's, as likely as not (RFC 6177 section 2).
const SITE: u8 = 56;

/// Which client an address is of, for all limits: an IPv4 address or an IPv6 site; on the link, where there are no sites,
/// each address.
pub fn client_of(address: IpAddr) -> (u8, u128) {
    match address.to_canonical() {
        IpAddr::V4(address) => (4, u32::from(address).into()),
        IpAddr::V6(address) if address.is_unicast_link_local() => (128, address.into()),
        IpAddr::V6(address) => (SITE, u128::from(address) >> 128_u8.saturating_sub(SITE)),
    }
}

/// What the bounds on clients have cost them.
#[derive(Debug, Default)]
pub struct EvictionCounters {
    /// Datagrams that the kernel dropped, because its queue for us was full.
    pub datagrams: Counter,
    /// Connections that gave way to newcomers.
    pub gave_way: Counter,
    /// Connections that were closed at once, as too many of one address.
    pub refused: Counter,
    /// Connections that were closed because their clients did not read.
    pub not_reading: Counter,
    /// Connections that were closed because the system had no thread for them.
    pub no_thread: Counter,
    /// Connections that were closed because there was no memory for what they sent or were sent.
    pub over_memory: Counter,
}

/// Who asked, and so where the answer goes.
#[derive(Debug)]
pub enum Client {
    /// By UDP.
    Datagram {
        /// The socket that the question came by.
        socket: Arc<UdpSocket>,
        /// Where it came from.
        peer: SocketAddr,
        /// The address that was asked, where the socket is bound to all of them.
        local: Option<Local>,
    },
    /// By TCP.
    Stream(InFlightGuard),
}

impl Client {
    /// The client's address and port.
    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::Datagram { peer, .. } => *peer,
            Self::Stream(guard) => guard.stream().peer(),
        }
    }
}

/// A moment so much after another; that one itself if the clock cannot tell.
fn later(moment: Instant, wait: Duration) -> Instant {
    moment.checked_add(wait).unwrap_or(moment)
}
