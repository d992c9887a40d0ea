//! What does a resolver send in a session?
//!
//! The reading end of a session, for the one thread that reads it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use socket2::SockRef;

use super::channel::{Channel, CloseReason};
use super::handshake::{ConnectError, connect_socket, verified_handshake, with_either_hello};
use super::session::{Session, SessionState};
use super::settings::Security;
use crate::identity::key_exchange::HelloSize;
use crate::identity::verifier::Identity;
use crate::message::HEADER_LEN;
use crate::message::framing::FrameBuffer;
use crate::system::scoped_address::ScopedAddress;

/// Octets that one read takes from the socket, at most.
const READ_BUFFER: usize = 32 * 1024;

impl Session {
    /// Connects to `address` and authenticates the resolver as `security` says, with the small hello if the large one fails. TCP, TLS and all
    /// checks must be done by `deadline`.
    pub fn connect(
        address: ScopedAddress,
        security: &Security,
        deadline: Instant,
    ) -> Result<(Arc<Self>, Reader), ConnectError> {
        let has_small_hello = security.identity().is_some_and(Identity::has_small_hello);
        with_either_hello(has_small_hello, deadline, |hello, deadline| {
            Self::connect_with(address, security, hello, deadline, || {})
        })
    }

    /// The same with this hello. Calls `connected` once TCP is connected.
    pub(super) fn connect_with(
        address: ScopedAddress,
        security: &Security,
        hello: HelloSize,
        deadline: Instant,
        connected: impl FnOnce(),
    ) -> Result<(Arc<Self>, Reader), ConnectError> {
        let socket = connect_socket(address, deadline).map_err(ConnectError::Connect)?;
        connected();
        let (channel, proof) = match security {
            Security::Tls(identity) => {
                let (tls, proof) = verified_handshake(&socket, identity, hello, deadline)?;
                (Channel::Tls(Box::new(tls)), Some(proof))
            }
            Security::Cleartext => (Channel::Cleartext(Vec::new()), None),
        };
        let session = Arc::new(Self {
            socket,
            address,
            hello,
            proof,
            state: Mutex::new(SessionState {
                channel,
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
            arrived: vec![0; READ_BUFFER],
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
    /// Octets from the socket.
    arrived: Vec<u8>,
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
        let length = loop {
            match (&self.session.socket).read(&mut self.arrived) {
                Ok(length) => break length,
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
        if length == 0 {
            return Err(CloseReason::ByPeer);
        }
        // Messages that arrived whole before the end count; the end is reported by the next call.
        let received = state
            .channel
            .receive(&self.arrived[..length], &mut self.frames);
        self.close_reason = received.err();
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
