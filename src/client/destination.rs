//! Where is an answer sent to?

use std::net::SocketAddr;
use std::sync::Arc;

use crate::client::datagrams::{DatagramSocket, LocalAddress};
use crate::client::stream::InFlightGuard;

/// The client of one query, and so the destination of the answer.
#[derive(Debug)]
pub enum Client {
    /// A client that asks over UDP.
    Datagram {
        /// The socket that received the query.
        socket: Arc<DatagramSocket>,
        /// The source of the query.
        peer: SocketAddr,
        /// The address that the query was sent to, if the socket is bound to the wildcard address.
        local: Option<LocalAddress>,
    },
    /// A client that asks over TCP: the query that is in flight on its connection.
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
