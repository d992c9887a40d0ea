//! What does a resolver send in a session?
//!
//! The reading end of a session, for the one thread that reads it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::ClientConnection;
use socket2::SockRef;

use super::handshake::{ConnectError, connect_socket, verified_handshake};
use super::session::{CloseReason, Session, SessionState};
use crate::identity::verifier::Identity;
use crate::message::HEADER_LEN;
use crate::message::framing::FrameBuffer;

/// Octets that one read takes from the socket, at most.
const READ_BUFFER: usize = 32 * 1024;

impl Session {
    /// Connects to `address` and authenticates the resolver by `identity`. TCP, TLS and all checks must be done by `deadline`.
    pub fn connect(
        address: SocketAddr,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<(Arc<Self>, Reader), ConnectError> {
        let socket = connect_socket(address, deadline).map_err(ConnectError::Connect)?;
        let (tls, proof) = verified_handshake(&socket, identity, deadline)?;
        let session = Arc::new(Self {
            socket,
            address,
            proof,
            state: Mutex::new(SessionState {
                tls,
                plaintext: Vec::new(),
                unsent: Vec::new(),
                backlog: VecDeque::new(),
                sent: 0,
                received: 0,
                closed: false,
            }),
            combiner: Mutex::default(),
        });
        let reader = Reader {
            session: Arc::clone(&session),
            encrypted: vec![0; READ_BUFFER],
            frames: FrameBuffer::with_capacity(READ_BUFFER),
            messages: Vec::new(),
            close_reason: None,
        };
        Ok((session, reader))
    }
}

/// The reading end of a session, for the one thread that reads it.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    encrypted: Vec<u8>,
    frames: FrameBuffer,
    messages: Vec<Range<usize>>,
    close_reason: Option<CloseReason>,
}

impl Reader {
    /// The session that it reads.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits for data from the resolver. [`Reader::messages`] then has the messages that it completed.
    pub fn read(&mut self) -> Result<(), CloseReason> {
        self.messages.clear();
        if let Some(close_reason) = self.close_reason.take() {
            return Err(close_reason);
        }
        let arrived = loop {
            match (&self.session.socket).read(&mut self.encrypted) {
                Ok(arrived) => break arrived,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(CloseReason::Io(error)),
            }
        };
        let mut state = self.session.state.lock();
        let state = &mut *state;
        if state.closed {
            // No client waits for later data, and rustls must not be used after close_notify was sent.
            return Err(CloseReason::Local);
        }
        if arrived == 0 {
            return Err(CloseReason::ByPeer);
        }
        // Messages that arrived whole before the end count; the end is reported by the next call.
        self.close_reason =
            decrypt(&mut state.tls, &self.encrypted[..arrived], &mut self.frames).err();
        while let Some(range) = self.frames.next_message() {
            if range.len() < HEADER_LEN {
                self.close_reason = Some(CloseReason::Malformed);
                break;
            }
            self.messages.push(range);
        }
        state.received += self.messages.len() as u64;
        if state.received < state.sent {
            // A resolver that gathers small writes (Nagle) holds the next answer back until the last one is acknowledged, which Linux
            // delays by up to 40 ms. The option lasts for one read only, and costs a packet.
            let _ = SockRef::from(&self.session.socket).set_tcp_quickack(true);
        }
        // Sends the reply to a key update, or the alert that says why rustls failed.
        if let Err(error) = self.session.flush(state) {
            self.close_reason.get_or_insert(CloseReason::Io(error));
        }
        Ok(())
    }

    /// The messages that the last read completed, each at least as long as a header.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let frames = &self.frames;
        self.messages
            .iter()
            .map(move |range| frames.message(range.clone()))
    }

    /// One of those messages, by index; empty if there is none.
    pub fn message(&self, index: usize) -> &[u8] {
        self.messages
            .get(index)
            .map_or(&[], |range| self.frames.message(range.clone()))
    }
}

/// Decrypts what has arrived, and appends it to `frames`.
fn decrypt(
    tls: &mut ClientConnection,
    mut encrypted: &[u8],
    frames: &mut FrameBuffer,
) -> Result<(), CloseReason> {
    let broken =
        |error: rustls::Error| CloseReason::Io(io::Error::new(ErrorKind::InvalidData, error));
    // rustls accepts a limited amount at a time.
    while !encrypted.is_empty() {
        tls.read_tls(&mut encrypted).map_err(CloseReason::Io)?;
        let processed = tls.process_new_packets();
        // Also reads what came before an error. Ends with "would block", or with zero once the resolver has closed.
        while let Ok(1..) = frames.fill(|room| tls.reader().read(room)) {}
        let state = processed.map_err(broken)?;
        if state.peer_has_closed() {
            return Err(CloseReason::ByPeer);
        }
    }
    Ok(())
}
