//! How are the queries of one TCP connection read?

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::client::connection::{Connection, IDLE_LIMIT};
use crate::forward::forwarder::{Batch, Forwarder};
use crate::message::framing::Frames;
use crate::system::clock;
use crate::system::deadline;
use crate::system::memory::{Purpose, READ_BUFFER, Reservation};
use crate::system::thread::Heartbeat;

/// How long the next read waits of a client that asks too much.
const SLOWED: Duration = Duration::from_millis(200);

/// What reads the connections of TCP clients, each in a thread of its own.
pub(super) struct Reader {
    forwarder: Arc<Forwarder>,
    /// Clients ask in vain from now on.
    stopping: AtomicBool,
}

impl Reader {
    pub(super) fn new(forwarder: Arc<Forwarder>) -> Self {
        Self {
            forwarder,
            stopping: AtomicBool::new(false),
        }
    }

    /// Takes no more queries than have been read.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Reads a client until it closes, is silent or dribbles. Its answers may still be on their way then: the connection
    /// closes with the last of them.
    ///
    /// What is read already is taken in first; and as long as the client has not taken what it was answered, no more is.
    pub(super) fn read_queries(
        &self,
        connection: &Connection,
        mut frames: Frames,
        heartbeat: &Heartbeat,
    ) {
        let stream = connection.stream();
        let mut batch = Batch::patient(connection);
        let mut patience = Patience::default();
        let mut held = None;
        loop {
            // What was read by then is answered, also after the word to stop.
            let last = self.stopping.load(Ordering::Acquire);
            let now = clock::now();
            heartbeat.set_busy(now);
            let is_read = self.take_in(connection, &mut frames, &mut patience, &mut batch, now);
            let over_limit = batch.was_over_limit();
            if over_limit {
                stream.mark_over_limit();
            }
            self.forwarder.dispatch(&mut batch, now);
            if stream.is_busy() || frames.is_amid_message() {
                // A client that gathers small writes (Nagle) holds its next query back until this one is acknowledged,
                // which Linux otherwise puts off until there is an answer, or for 40 ms.
                let _ = SockRef::from(connection.socket()).set_tcp_quickack(true);
            }
            heartbeat.set_idle();
            if last || !is_read || !stream.wait_until_read() {
                return;
            }
            let pause = if over_limit { SLOWED } else { Duration::ZERO };
            if stream.is_evicted_within(pause) {
                return;
            }
            if !self.read(connection, &mut frames, &mut patience, &mut held) {
                return;
            }
        }
    }

    /// Takes in the messages that were read at `now`. Says whether more may be read.
    fn take_in(
        &self,
        connection: &Connection,
        frames: &mut Frames,
        patience: &mut Patience,
        batch: &mut Batch,
        mut now: Instant,
    ) -> bool {
        while let Some(range) = frames.next_message() {
            patience.message_ended();
            let client = connection.client(now);
            self.forwarder
                .handle(frames.message(range), client, now, batch);
            if batch.is_large() {
                self.forwarder.dispatch(batch, now);
                if !connection.stream().wait_until_read() {
                    return false;
                }
                now = clock::now();
            }
        }
        true
    }

    /// Waits for more to read. Says whether there is.
    fn read(
        &self,
        connection: &Connection,
        frames: &mut Frames,
        patience: &mut Patience,
        held: &mut Option<Reservation>,
    ) -> bool {
        let stream = connection.stream();
        loop {
            stream.wait_for_room(self.forwarder.waiting());
            if !self.make_room(frames, held) {
                stream.close_over_memory();
                return false;
            }
            if patience
                .apply(connection.socket(), frames.is_amid_message())
                .is_err()
            {
                return false;
            }
            match frames.fill(|room| connection.socket().read(room)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !stream.is_busy() || frames.is_amid_message() {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Has the memory paid for that a message longer than most takes, as long as it takes it. Says whether there is so much.
    fn make_room(&self, frames: &mut Frames, held: &mut Option<Reservation>) -> bool {
        if held.is_some() && !frames.is_amid_message() {
            frames.shrink_to(READ_BUFFER);
            *held = None;
        }
        let growth = frames.growth();
        if growth == 0 {
            return true;
        }
        if held.is_none() {
            *held = self.forwarder.memory().reserve(Purpose::Queries, 0);
        }
        let Some(held) = held else { return false };
        held.resize_fairly(held.octets() + growth)
    }
}

/// How long a read may take: the idle limit between messages, and what is left of it within one.
#[derive(Debug, Default)]
struct Patience {
    message_began: Option<Instant>,
    applied: Option<Duration>,
}

impl Patience {
    /// A message has come whole: what is there of the next began after it.
    fn message_ended(&mut self) {
        self.message_began = None;
    }

    fn apply(&mut self, socket: &TcpStream, amid_message: bool) -> io::Result<()> {
        let timeout = if amid_message {
            let began = *self.message_began.get_or_insert_with(clock::now);
            deadline::time_left(began + IDLE_LIMIT)?
        } else {
            self.message_began = None;
            IDLE_LIMIT
        };
        // Between messages it is the same again and again, which saves the system call.
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
    fn a_client_that_always_has_begun_its_next_message_is_not_late() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let late = Instant::now()
            .checked_sub(2 * IDLE_LIMIT)
            .expect("the machine is up");
        let mut patience = Patience {
            message_began: Some(late),
            applied: None,
        };
        assert!(
            patience.apply(&socket, true).is_err(),
            "this message took too long"
        );
        let mut patience = Patience {
            message_began: Some(late),
            applied: None,
        };
        patience.message_ended();
        assert!(
            patience.apply(&socket, true).is_ok(),
            "that one ended, and this one just began"
        );
    }
}
