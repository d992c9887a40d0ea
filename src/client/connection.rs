//! How is a client's TCP connection read, and when does it close?
//!
//! A connection is shared by the worker that reads it ([`Connection`]) and the threads that answer it ([`Stream`]). It closes when
//! the last of them lets go: so a client that closed its writing side still gets all its answers (RFC 1122 section 4.2.2.13).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use crate::client::destination::Client;
use crate::client::slots::Slot;
use crate::client::slow_readers::SlowReaders;
use crate::client::stream::Stream;

/// How long a TCP client may be silent, and how long one of its messages may take to arrive (RFC 7766 section 6.2.3).
pub const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// The reading end of a client's TCP connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Arc<Stream>,
    socket: Arc<TcpStream>,
}

impl Connection {
    /// A connection from `peer`, which has `slot` until it is closed or evicted.
    pub fn new(
        socket: TcpStream,
        peer: SocketAddr,
        slow_readers: Arc<SlowReaders>,
        slot: Slot<Stream>,
        now: Instant,
    ) -> Self {
        let socket = Arc::new(socket);
        let stream = Stream::new(Arc::clone(&socket), peer, slow_readers, slot, now);
        Self { stream, socket }
    }

    /// The writing end.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The socket, for reading.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads what has arrived, without waiting.
    pub fn read_now(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                read => return Ok(read?),
            }
        }
    }

    /// The client of one more query on this connection.
    pub fn client(&self, now: Instant) -> Client {
        Client::Stream(self.stream.start_query(now))
    }
}
