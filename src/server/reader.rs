//! How are the queries of one TCP connection read?

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::client::connection::{Connection, IDLE_TIMEOUT};
use crate::forward::forwarder::{Batch, Forwarder};
use crate::message::framing::FrameBuffer;
use crate::system::clock;
use crate::system::deadline;
use crate::system::memory::{Purpose, READ_BUFFER, Reservation};
use crate::system::thread::Heartbeat;

/// How long reading pauses after a query that exceeded the rate limit or was not allowed.
const OVER_LIMIT_PAUSE: Duration = Duration::from_millis(200);

/// Reads the connections of TCP clients, each in the thread that calls it.
pub(super) struct ClientReader {
    forwarder: Arc<Forwarder>,
    /// No more queries are read.
    stopping: AtomicBool,
}

impl ClientReader {
    pub(super) fn new(forwarder: Arc<Forwarder>) -> Self {
        Self {
            forwarder,
            stopping: AtomicBool::new(false),
        }
    }

    /// Stops reading: each connection handles only the queries that were already read.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Reads a client's queries until the client closes the connection or exceeds the idle timeout. Answers may still be due then: the
    /// connection closes after the last of them.
    ///
    /// Handles first what `frames` holds already. Reads no more while the client has unread answers.
    pub(super) fn read_queries(
        &self,
        connection: &Connection,
        mut frames: FrameBuffer,
        heartbeat: &Heartbeat,
    ) {
        let stream = connection.stream();
        let mut batch = Batch::for_worker(connection);
        let mut read_timeout = ReadTimeout::default();
        let mut reservation = None;
        loop {
            // Loaded before handling, so that what was read before a stop is still answered.
            let last = self.stopping.load(Ordering::Acquire);
            let now = clock::now();
            heartbeat.set_busy(now);
            let may_continue =
                self.handle_messages(connection, &mut frames, &mut read_timeout, &mut batch, now);
            let over_limit = batch.take_over_limit();
            if over_limit {
                stream.mark_over_limit();
            }
            self.forwarder.dispatch(&mut batch, now);
            if stream.is_busy() || frames.has_partial_message() {
                // With Nagle's algorithm, a client holds back its next small write until this one is acknowledged. Linux delays the
                // acknowledgement until there is an answer, or for 40 ms.
                let _ = SockRef::from(connection.socket()).set_tcp_quickack(true);
            }
            heartbeat.set_idle();
            if last || !may_continue || !stream.wait_until_drained() {
                return;
            }
            let pause = if over_limit {
                OVER_LIMIT_PAUSE
            } else {
                Duration::ZERO
            };
            if stream.is_evicted_within(pause) {
                return;
            }
            if !self.read_more(connection, &mut frames, &mut read_timeout, &mut reservation) {
                return;
            }
        }
    }

    /// Handles the messages that were read at `now`. Returns false if the connection was closed meanwhile.
    fn handle_messages(
        &self,
        connection: &Connection,
        frames: &mut FrameBuffer,
        read_timeout: &mut ReadTimeout,
        batch: &mut Batch,
        mut now: Instant,
    ) -> bool {
        while let Some(range) = frames.next_message() {
            read_timeout.message_ended();
            let client = connection.start_query(now);
            self.forwarder
                .handle(frames.message(range), client, now, batch);
            if batch.is_large() {
                self.forwarder.dispatch(batch, now);
                if !connection.stream().wait_until_drained() {
                    return false;
                }
                now = clock::now();
            }
        }
        true
    }

    /// Blocks until more was read. Returns false at the end of the stream, after a timeout or an error, and without memory.
    fn read_more(
        &self,
        connection: &Connection,
        frames: &mut FrameBuffer,
        read_timeout: &mut ReadTimeout,
        reservation: &mut Option<Reservation>,
    ) -> bool {
        let stream = connection.stream();
        loop {
            stream.wait_for_capacity(self.forwarder.queries_in_flight());
            if !self.reserve_memory(frames, reservation) {
                stream.close_over_memory();
                return false;
            }
            if read_timeout
                .apply(connection.socket(), frames.has_partial_message())
                .is_err()
            {
                return false;
            }
            match frames.fill(|buffer| connection.socket().read(buffer)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !stream.is_busy() || frames.has_partial_message() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Reserves memory before the buffer grows for a long message, and releases it after the message. Returns false if memory is short.
    fn reserve_memory(
        &self,
        frames: &mut FrameBuffer,
        reservation: &mut Option<Reservation>,
    ) -> bool {
        if reservation.is_some() && !frames.has_partial_message() {
            frames.shrink_to(READ_BUFFER);
            *reservation = None;
        }
        let growth = frames.growth();
        if growth == 0 {
            return true;
        }
        if reservation.is_none() {
            *reservation = self.forwarder.memory().reserve(Purpose::Queries, 0);
        }
        let Some(reservation) = reservation else {
            return false;
        };
        reservation.resize_fairly(reservation.octets() + growth)
    }
}

/// The timeout of the next read: [`IDLE_TIMEOUT`] between messages, and what is left of it within a message.
#[derive(Debug, Default)]
struct ReadTimeout {
    /// When the first part of an incomplete message was read.
    message_began_at: Option<Instant>,
    /// The timeout that the socket has.
    applied: Option<Duration>,
}

impl ReadTimeout {
    /// Notes that a message is complete: the next one begins after it.
    fn message_ended(&mut self) {
        self.message_began_at = None;
    }

    /// Sets the timeout of `socket` for the next read. Fails if the time for the current message is over.
    fn apply(&mut self, socket: &TcpStream, has_partial_message: bool) -> io::Result<()> {
        let timeout = if has_partial_message {
            let began_at = *self.message_began_at.get_or_insert_with(clock::now);
            deadline::time_left(began_at + IDLE_TIMEOUT)?
        } else {
            self.message_began_at = None;
            IDLE_TIMEOUT
        };
        // Between messages the timeout does not change, which saves the system call.
        if self.applied.replace(timeout) != Some(timeout) {
            socket.set_read_timeout(Some(timeout))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn each_message_has_the_whole_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let late = Instant::now()
            .checked_sub(2 * IDLE_TIMEOUT)
            .expect("the machine is up");
        let mut read_timeout = ReadTimeout {
            message_began_at: Some(late),
            applied: None,
        };
        assert!(
            read_timeout.apply(&socket, true).is_err(),
            "the message took too long"
        );
        let mut read_timeout = ReadTimeout {
            message_began_at: Some(late),
            applied: None,
        };
        read_timeout.message_ended();
        assert!(
            read_timeout.apply(&socket, true).is_ok(),
            "the old message ended, and the new one just began"
        );
    }
}
