//! Where does an answer go?

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use crate::client::datagrams::Local;
use crate::client::stream::InFlightGuard;

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
