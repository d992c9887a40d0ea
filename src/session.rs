//! One authenticated TLS connection, its pending queries and its reader.
//!
//! Any thread writes queries into it, in batches: one lock, one TLS record, one write. One thread of its own reads: it
//! matches each answer by ID and question, and hands it to whoever waits. Nobody else waits for anything here: the lock
//! covers encrypting and the table of pending queries, never a blocking call. rustls is driven here and nowhere else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use log::debug;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::UnixTime;
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::Client;
use crate::deadline::{Timed, left};
use crate::frame::{self, Frames, PREFIX};
use crate::identity::{Identity, Refusal, refusal_in};
use crate::wire::{self, Asked, Edns, HEADER};

/// Queries that may wait for their answers on one session. Random IDs collide seldom while the table is this full.
pub const PENDING: usize = 4096;
/// The socket's send buffer in octets, as far as the system allows: it holds the pending queries, so that only a resolver
/// that does not read fills it.
const SEND_BUFFER: usize = 1024 * 1024;
/// Octets that one read takes off the socket, at most.
const READ: usize = 32 * 1024;

/// A client's query on its way to the resolver: what is asked there, and what its answer must look like here.
#[derive(Debug)]
pub struct Query {
    /// Who asked.
    pub client: Client,
    /// By when the client gets an answer, of whatever kind.
    pub deadline: Instant,
    /// It was asked before, on a session that ended without answering.
    pub asked_before: bool,
    /// The message as the resolver sees it, its length before it; the ID is set with each asking.
    framed: Vec<u8>,
    question: Range<usize>,
    id: u16,
    flags: [u8; 2],
    edns: Option<Edns>,
    signed: bool,
}

impl Query {
    /// The query of `client`, to be answered by `deadline`.
    pub fn new(query: &wire::Query<'_>, client: Client, deadline: Instant) -> Self {
        let mut framed = Vec::with_capacity(PREFIX + 128);
        frame::append(&mut framed, |out| {
            if query.is_signed() {
                out.extend_from_slice(query.message());
            } else {
                query.write_for_resolver(out);
            }
        });
        let question = PREFIX + HEADER..PREFIX + HEADER + query.question().len();
        Self {
            client,
            deadline,
            asked_before: false,
            framed,
            question,
            id: query.id(),
            flags: query.flags(),
            edns: query.edns().copied(),
            signed: query.is_signed(),
        }
    }

    /// What its answer must repeat.
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            id: self.id,
            flags: self.flags,
            question: self.question(),
            edns: self.edns,
        }
    }

    /// Whether query and answer are signed, so that they pass unchanged but for the ID.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// The question's octets, in the client's spelling.
    pub fn question(&self) -> &[u8] {
        &self.framed[self.question.clone()]
    }
}

/// Why there is no session.
#[derive(Debug)]
pub enum ConnectError {
    /// The resolver could not be reached: no TCP connection by the deadline.
    Connect(io::Error),
    /// TCP was there, TLS not.
    Handshake(io::Error),
    /// It is not the resolver that was meant.
    Identity(Box<Refusal>),
}

impl fmt::Display for ConnectError {
    /// As fields of a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "stage=connect cause=\"{}\"", plain(error)),
            Self::Handshake(error) => write!(f, "stage=handshake cause=\"{}\"", plain(error)),
            Self::Identity(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

/// The error's own text; for one that has none, in words.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "no answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "the resolver closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a session ended.
#[derive(Debug)]
pub enum Closed {
    /// The resolver closed it, which it may at any time (RFC 7858 section 3.4), or it was closed here.
    End,
    /// The connection broke.
    Broken(io::Error),
    /// What came is no DNS message, so the stream's frame is lost.
    Garbage,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => write!(f, "closed"),
            Self::Broken(error) => write!(f, "{}", plain(error)),
            Self::Garbage => write!(f, "the resolver sent something that is no DNS message"),
        }
    }
}

/// What came of handing queries to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All of them are pending.
    All,
    /// Those that are left found no room.
    Full,
    /// The session has ended; all of them are left.
    Closed,
}

/// A connection to a resolver whose identity is proved.
#[derive(Debug)]
pub struct Session {
    socket: TcpStream,
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tls: ClientConnection,
    pending: HashMap<u16, Pending>,
    random: Ids,
    /// The batch being put together; kept for its memory.
    plaintext: Vec<u8>,
    /// Encrypted octets that the socket did not take yet.
    unsent: Vec<u8>,
    /// When octets last arrived.
    heard: Instant,
    closed: bool,
}

#[derive(Debug)]
struct Pending {
    query: Query,
    since: Instant,
}

impl Session {
    /// Connects to `address` and proves that it is the resolver of `identity`: TCP by `reached_by`, TLS and every check
    /// by `deadline`.
    pub fn connect(
        address: SocketAddr,
        identity: &Identity,
        reached_by: Instant,
        deadline: Instant,
    ) -> Result<(Arc<Self>, Reader), ConnectError> {
        let socket = connect_socket(address, reached_by).map_err(ConnectError::Connect)?;
        let tls = handshake(&socket, identity, deadline)?;
        let session = Arc::new(Self {
            socket,
            address,
            state: Mutex::new(State {
                tls,
                pending: HashMap::new(),
                random: Ids::new(),
                plaintext: Vec::new(),
                unsent: Vec::new(),
                heard: Instant::now(),
                closed: false,
            }),
        });
        let reader = Reader {
            session: Arc::clone(&session),
            encrypted: vec![0; READ],
            frames: Frames::with_capacity(READ),
            matched: Vec::new(),
            ended: None,
        };
        Ok((session, reader))
    }

    /// The resolver's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The TLS version and whether the handshake was resumed from a ticket.
    pub fn describe(&self) -> impl fmt::Display + use<> {
        let state = self.state.lock();
        let version = match state.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "unknown",
        };
        let resumed = state.tls.handshake_kind() == Some(HandshakeKind::Resumed);
        format!("tls={version} resumed={resumed}")
    }

    /// Asks `queries`, as one batch, and takes those out that are pending now.
    pub fn send(&self, queries: &mut Vec<Query>, now: Instant) -> Sent {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed {
            return Sent::Closed;
        }
        // While the socket takes nothing, more queries would only pile up.
        let room = if state.unsent.is_empty() {
            PENDING - state.pending.len()
        } else {
            0
        };
        let batch = queries.len().min(room);
        for mut query in queries.drain(..batch) {
            let vacant = loop {
                if let Entry::Vacant(vacant) = state.pending.entry(state.random.next()) {
                    break vacant;
                }
            };
            query.framed[PREFIX..PREFIX + 2].copy_from_slice(&vacant.key().to_be_bytes());
            state.plaintext.extend_from_slice(&query.framed);
            vacant.insert(Pending { query, since: now });
        }
        if !state.plaintext.is_empty() {
            let written = state.tls.writer().write_all(&state.plaintext);
            state.plaintext.clear();
            if let Err(error) = written.and_then(|()| self.flush(state)) {
                // The reader finds the broken connection too, and takes the pending queries along.
                debug!(
                    "event=session-broken resolver={} cause=\"{}\"",
                    self.address,
                    plain(&error)
                );
                self.end(state);
            }
        }
        if queries.is_empty() {
            Sent::All
        } else {
            Sent::Full
        }
    }

    /// Takes out the queries whose deadline has passed; returns the earliest deadline that has not.
    ///
    /// A session on which a query waited to its deadline while no octet arrived is silent, and is closed.
    pub fn expire(&self, now: Instant, expired: &mut Vec<Query>) -> Option<Instant> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let heard = state.heard;
        let mut silent = false;
        expired.extend(
            state
                .pending
                .extract_if(|_, pending| pending.query.deadline <= now)
                .map(|(_, pending)| {
                    silent |= pending.since > heard;
                    pending.query
                }),
        );
        if silent && !state.closed {
            debug!("event=session-silent resolver={}", self.address);
            self.end(state);
        }
        if self.flush(state).is_err() {
            self.end(state);
        }
        state
            .pending
            .values()
            .map(|pending| pending.query.deadline)
            .min()
    }

    /// How many queries wait for their answers.
    pub fn pending(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Ends it. The reader sees the end of the stream.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if !state.closed {
            state.tls.send_close_notify();
            // The connection ends here, said or not.
            let _ = self.flush(&mut state);
            self.end(&mut state);
        }
    }

    fn end(&self, state: &mut State) {
        state.closed = true;
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Hands what rustls has for the resolver to the socket, as much as it takes without waiting.
    fn flush(&self, state: &mut State) -> io::Result<()> {
        while state.tls.wants_write() {
            state.tls.write_tls(&mut state.unsent)?;
        }
        while !state.unsent.is_empty() && !state.closed {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), &state.unsent, flags) {
                Ok(sent) => drop(state.unsent.drain(..sent)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn connect_socket(address: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // The system may give less.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&address.into(), left(deadline)?)?;
    Ok(socket.into())
}

fn handshake(
    socket: &TcpStream,
    identity: &Identity,
    deadline: Instant,
) -> Result<ClientConnection, ConnectError> {
    let failed = |error: rustls::Error| match refusal_in(&error) {
        Some(refusal) => ConnectError::Identity(Box::new(refusal.clone())),
        None => ConnectError::Handshake(io::Error::new(ErrorKind::InvalidData, error)),
    };
    let mut tls = ClientConnection::new(Arc::clone(identity.tls()), identity.name().clone())
        .map_err(failed)?;
    tls.set_buffer_limit(None);
    let mut stream = Timed::new(socket, deadline);
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream)
            .map_err(|error| match error.downcast::<rustls::Error>() {
                Ok(error) => failed(error),
                Err(error) => ConnectError::Handshake(error),
            })?;
    }
    stream.finish().map_err(ConnectError::Handshake)?;
    // No verifier is called for a resumed session: hold what its ticket stands for to today's time and pins.
    if tls.handshake_kind() == Some(HandshakeKind::Resumed) {
        identity
            .check(tls.peer_certificates().unwrap_or_default(), UnixTime::now())
            .map_err(|refusal| ConnectError::Identity(Box::new(refusal)))?;
    }
    Ok(tls)
}

/// The reading end of a session, for the one thread that reads it.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    encrypted: Vec<u8>,
    frames: Frames,
    matched: Vec<(Query, Range<usize>)>,
    ended: Option<Closed>,
}

impl Reader {
    /// The session that it reads.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits for octets from the resolver and returns the queries that they answer, each with its answer's octets.
    ///
    /// A message that matches no pending query by ID, name, type and class is left out (RFC 5452 section 9.1).
    pub fn read(&mut self) -> Result<impl Iterator<Item = (Query, &[u8])>, Closed> {
        if let Some(ended) = self.ended.take() {
            return Err(ended);
        }
        let arrived = loop {
            match (&self.session.socket).read(&mut self.encrypted) {
                Ok(0) => return Err(Closed::End),
                Ok(arrived) => break arrived,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Closed::Broken(error)),
            }
        };
        let mut state = self.session.state.lock();
        let state = &mut *state;
        state.heard = Instant::now();
        // What came whole before the end still counts; the end is told at the next call.
        self.ended = decrypt(&mut state.tls, &self.encrypted[..arrived], &mut self.frames).err();
        while let Some(range) = self.frames.next_message() {
            let message = self.frames.message(range.clone());
            if message.len() < HEADER {
                self.ended = Some(Closed::Garbage);
                break;
            }
            let id = u16::from_be_bytes([message[0], message[1]]);
            match state.pending.entry(id) {
                Entry::Occupied(entry) if wire::answers(message, entry.get().query.question()) => {
                    self.matched.push((entry.remove().query, range));
                }
                _ => debug!("event=answer-unmatched resolver={}", self.session.address),
            }
        }
        // An answer to a key update, or the alert that says why rustls gave up.
        if let Err(error) = self.session.flush(state) {
            self.ended.get_or_insert(Closed::Broken(error));
        }
        let frames = &self.frames;
        Ok(self
            .matched
            .drain(..)
            .map(|(query, range)| (query, frames.message(range))))
    }

    /// Ends the session and returns the queries that got no answer.
    pub fn finish(self) -> Vec<Query> {
        self.session.close();
        let mut state = self.session.state.lock();
        state
            .pending
            .drain()
            .map(|(_, pending)| pending.query)
            .collect()
    }
}

/// Decrypts what has arrived, to behind what is in `frames`.
fn decrypt(
    tls: &mut ClientConnection,
    mut encrypted: &[u8],
    frames: &mut Frames,
) -> Result<(), Closed> {
    let broken =
        |error: rustls::Error| Closed::Broken(io::Error::new(ErrorKind::InvalidData, error));
    // rustls takes in a limited piece at a time.
    while !encrypted.is_empty() {
        tls.read_tls(&mut encrypted).map_err(Closed::Broken)?;
        let state = tls.process_new_packets().map_err(broken)?;
        let mut ready = state.plaintext_bytes_to_read();
        while ready > 0 {
            ready -= frames
                .fill(|room| tls.reader().read(room))
                .map_err(Closed::Broken)?;
        }
        if state.peer_has_closed() {
            return Err(Closed::End);
        }
    }
    Ok(())
}

/// Random message IDs that nobody outside can foresee (RFC 5452 section 9.2), drawn many at a time.
#[derive(Debug)]
struct Ids {
    source: SystemRandom,
    octets: [u8; 512],
    used: usize,
}

impl Ids {
    fn new() -> Self {
        Self {
            source: SystemRandom::new(),
            octets: [0; 512],
            used: 512,
        }
    }

    fn next(&mut self) -> u16 {
        if self.used == self.octets.len() {
            self.source
                .fill(&mut self.octets)
                .expect("Linux has a random number generator, and it does not fail");
            self.used = 0;
        }
        let id = u16::from_be_bytes([self.octets[self.used], self.octets[self.used + 1]]);
        self.used += 2;
        id
    }
}
