//! How is a client's TCP connection read, and when does it close?
//!
//! A connection is shared by the worker that reads it ([`Connection`]) and the threads that answer it ([`Stream`]). It is closed when
//! the last reference is dropped: so a client that shuts down its writing side still gets all answers (RFC 1122 section 4.2.2.13).

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

/// How long a TCP client may be idle, and how long one of its messages may take to arrive (RFC 7766 section 6.2.3).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The reading end of a client's TCP connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Arc<Stream>,
    socket: Arc<TcpStream>,
}

impl Connection {
    /// Creates a connection from `peer` that was accepted at `now`. It holds `slot` until it is closed or evicted.
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

    /// Reads what has arrived, without blocking. Returns 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if nothing has arrived, or the error of the socket.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                read => return Ok(read?),
            }
        }
    }

    /// Counts a query that starts at `now` on this connection. Returns the destination of its answer; dropping it ends the query.
    pub fn start_query(&self, now: Instant) -> Client {
        Client::Stream(self.stream.start_query(now))
    }
}
