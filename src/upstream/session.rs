//! One authenticated TLS connection, and its reader.
//!
//! Any thread writes queries into it, in batches: one lock, one write, a TLS record each; those that come while another thread
//! is at it leave with that one. What the socket does not take waits, by reference, until it does. One thread of its own reads the
//! messages. Nobody waits for anything else here: the lock covers encrypting and decrypting, never a blocking call. Which query goes
//! where, under which ID, and whose answer a message is, is decided elsewhere. rustls is driven here and nowhere else.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::identity::verifier::{Identity, PinMode, Proof, Refusal, Terms, refusal_in};
use crate::message::framing::{Frames, PREFIX};
use crate::message::{Form, HEADER};
use crate::system::clock;
use crate::system::deadline::{Timed, left};
use crate::telemetry::log::debug;

/// Octets of queries that are encrypted at a time: what the socket does not take then is all that waits to be written.
const PIECE: usize = 64 * 1024;
/// The socket's send buffer in octets, as far as the system allows: it holds the pending queries, so that only a resolver
/// that does not read fills it.
const SEND_BUFFER: usize = 1024 * 1024;
/// How long what was sent may stay unacknowledged, or wait for a resolver that does not read (TCP_USER_TIMEOUT, RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Octets of data in one TCP segment, at most: 1280 (RFC 8200 section 5) less the headers of IPv6 and TCP. A path that drops
/// larger packets without a word would stop the session at the first long answer, and again after every reconnection.
const SEGMENT: u32 = 1220;
/// Batches that one thread sends for others, one after the other, before they send themselves.
const ROUNDS: usize = 8;
/// Octets that one read takes off the socket, at most.
const READ: usize = 32 * 1024;

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
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            "the resolver closed the connection".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Why a session ended.
#[derive(Debug)]
pub enum Closed {
    /// The resolver closed it, which it may at any time (RFC 7858 section 3.4).
    End,
    /// It was closed here.
    Here,
    /// The connection broke.
    Broken(io::Error),
    /// What came is no DNS message, so the stream's frame is lost.
    Garbage,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => write!(f, "closed"),
            Self::Here => write!(f, "closed here"),
            Self::Broken(error) => write!(f, "{}", plain(error)),
            Self::Garbage => write!(f, "the resolver sent something that is no DNS message"),
        }
    }
}

/// What both sides of a connection agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    /// The TLS version, `1.3` or `1.2`.
    pub version: &'static str,
    /// It was resumed from a ticket.
    pub resumed: bool,
    /// It was said to be DNS over TLS (ALPN `dot`).
    pub alpn: bool,
}

impl Agreement {
    fn of(tls: &ClientConnection) -> Self {
        Self {
            version: match tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "unknown",
            },
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: tls.alpn_protocol().is_some(),
        }
    }
}

impl fmt::Display for Agreement {
    /// As fields of a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls={} resumed={}", self.version, self.resumed)
    }
}

/// The certificates that are shown at `address`, leaf first, whoever shows them: a handshake by `deadline`, and not a word
/// more.
pub fn inspect(
    address: SocketAddr,
    identity: &Identity,
    deadline: Instant,
) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let socket = connect_socket(address, deadline).map_err(ConnectError::Connect)?;
    let tls = shake_hands(&socket, identity.onlooker(), identity, deadline)?;
    let shown = tls.peer_certificates().unwrap_or_default();
    Ok(shown
        .iter()
        .cloned()
        .map(CertificateDer::into_owned)
        .collect())
}

/// A message that goes into a session.
pub trait Message: Send + Sync {
    /// Nobody waits for what it would bring any more.
    fn has_ended(&self) -> bool;
    /// Appends it in that form, its length before it and its ID 0. A signed one has one form.
    fn write_framed(&self, form: Form, out: &mut Vec<u8>);
}

/// A query on its way into a session.
pub struct Outgoing {
    /// Its ID there.
    pub id: u16,
    /// What it carries.
    pub form: Form,
    /// The query.
    pub query: Arc<dyn Message>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A connection to a resolver whose identity is proved.
#[derive(Debug)]
pub struct Session {
    socket: TcpStream,
    address: SocketAddr,
    proof: Proof,
    state: Mutex<State>,
    /// Locked for moments, and never while waiting for the state.
    company: Mutex<Company>,
}

#[derive(Debug)]
struct State {
    tls: ClientConnection,
    /// The query that is being written; kept for its memory.
    plaintext: Vec<u8>,
    /// Encrypted octets that the socket did not take yet.
    unsent: Vec<u8>,
    /// Queries that wait for it to take them.
    backlog: VecDeque<Outgoing>,
    /// Queries that were written, and messages that came.
    sent: u64,
    received: u64,
    closed: bool,
}

/// Queries that leave with those of a thread that sends for others too.
#[derive(Debug, Default)]
struct Company {
    joined: Vec<Outgoing>,
    /// How many batches that thread has begun to send; 0 while there is none.
    rounds: usize,
    /// Somebody joined the last one.
    is_likely: bool,
}

impl Company {
    /// Adds those that joined to `queries`.
    fn move_to(&mut self, queries: &mut Vec<Outgoing>) {
        self.is_likely |= !self.joined.is_empty();
        queries.append(&mut self.joined);
    }
}

/// The duty to send what joins. Whoever lets go of it before the end, by a panic, leaves it to the next.
struct Lead<'s>(&'s Session);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.company.lock().rounds = 0;
    }
}

impl Session {
    /// Connects to `address` and proves that it is the resolver of `identity`: TCP, TLS and every check by `deadline`.
    pub fn connect(
        address: SocketAddr,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<(Arc<Self>, Reader), ConnectError> {
        let socket = connect_socket(address, deadline).map_err(ConnectError::Connect)?;
        let (tls, proof) = handshake(&socket, identity, deadline)?;
        let session = Arc::new(Self {
            socket,
            address,
            proof,
            state: Mutex::new(State {
                tls,
                plaintext: Vec::new(),
                unsent: Vec::new(),
                backlog: VecDeque::new(),
                sent: 0,
                received: 0,
                closed: false,
            }),
            company: Mutex::default(),
        });
        let reader = Reader {
            session: Arc::clone(&session),
            encrypted: vec![0; READ],
            frames: Frames::with_capacity(READ),
            messages: Vec::new(),
            ended: None,
        };
        Ok((session, reader))
    }

    /// The resolver's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the resolver proved itself.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Whether a pin of `identity` that was satisfied counts still; pins have dates.
    pub fn is_pinned(&self, identity: &Identity) -> bool {
        let Terms { pins, pin_mode, .. } = identity.terms();
        let now = clock::since_1970().as_secs();
        // With a clock that is known to be wrong, dates say nothing.
        pins.is_empty()
            || *pin_mode == PinMode::Report
            || self.proof.clock_suspect
            || pins.find(&self.proof.keys, now).is_some()
    }

    /// Whether what was proved would do for `identity` now, which may have other pins than the one that it was proved for.
    pub fn fits(&self, identity: &Identity) -> bool {
        let state = self.state.lock();
        let chain = state.tls.peer_certificates().unwrap_or_default();
        identity.check(chain, today()).is_ok()
    }

    /// What was agreed on with the resolver.
    pub fn agreement(&self) -> Agreement {
        Agreement::of(&self.state.lock().tls)
    }

    /// Sends `queries` as [`Session::send`] does, or hands them to a thread that is about to. So threads that have queries at
    /// the same time write once for all, instead of waiting for each other's writes.
    pub fn send_together(&self, queries: &mut Vec<Outgoing>) {
        let mut company = self.company.lock();
        if company.rounds > ROUNDS {
            // Whoever sends has a client of its own to read.
            drop(company);
            return self.send(queries);
        }
        if company.rounds > 0 {
            company.joined.append(queries);
            return;
        }
        company.rounds = 1;
        let gathers = std::mem::take(&mut company.is_likely);
        drop(company);
        let lead = Lead(self);
        if gathers {
            // Others have something too, most likely, as they had the last time.
            yield_now();
            self.company.lock().move_to(queries);
        }
        loop {
            self.send(queries);
            let mut company = self.company.lock();
            company.move_to(queries);
            if queries.is_empty() {
                company.rounds = 0;
                std::mem::forget(lead);
                return;
            }
            company.rounds += 1;
        }
    }

    /// Sends `queries`, as one batch. Those that have ended are left out, and so are all once the session has.
    pub fn send(&self, queries: &mut Vec<Outgoing>) {
        let mut state = self.state.lock();
        if state.closed {
            return queries.clear();
        }
        state.backlog.extend(queries.drain(..));
        self.write_backlog(&mut state);
    }

    /// Sends what the socket did not take before, as far as it does now.
    pub fn flush_backlog(&self) {
        let mut state = self.state.lock();
        let waits = !state.unsent.is_empty() || !state.backlog.is_empty();
        if waits && !state.closed {
            self.write_backlog(&mut state);
        }
    }

    fn write_backlog(&self, state: &mut State) {
        if let Err(error) = self.write_pieces(state) {
            // The reader finds the broken connection too.
            let cause = plain(&error);
            debug!(
                "event=session-broken resolver={} cause=\"{cause}\"",
                self.address
            );
            self.end(state);
        }
    }

    /// While the socket takes nothing, no more is encrypted: a piece is all that waits so.
    fn write_pieces(&self, state: &mut State) -> io::Result<()> {
        loop {
            self.flush(state)?;
            if !state.unsent.is_empty() || state.backlog.is_empty() {
                return Ok(());
            }
            let mut octets = 0;
            while octets < PIECE
                && let Some(next) = state.backlog.pop_front()
            {
                if !next.query.has_ended() {
                    octets += state.write(&next)?;
                }
            }
        }
    }

    /// Ends it. The reader sees the end of the stream.
    pub fn close(&self) {
        self.end_politely(&mut self.state.lock());
    }

    fn end_politely(&self, state: &mut State) {
        if !state.closed {
            state.tls.send_close_notify();
            // The connection ends here, said or not.
            let _ = self.flush(state);
            self.end(state);
        }
    }

    fn end(&self, state: &mut State) {
        if state.received < state.sent || !state.unsent.is_empty() {
            // A resolver that does not read leaves queries in the kernel. They go with the session, and do not wait for it.
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
        state.closed = true;
        state.backlog.clear();
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

/// The time by which certificates are judged, as far as this machine knows it.
pub fn today() -> UnixTime {
    UnixTime::since_unix_epoch(clock::since_1970())
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
    // What it does not take is given up, also when the session has ended here.
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    // Neither side sends a packet that a path of the smallest IPv6 MTU could swallow. Where the kernel will not have it,
    // paths are as they are.
    let _ = socket.set_tcp_mss(SEGMENT);
    socket.connect_timeout(&address.into(), left(deadline)?)?;
    Ok(socket.into())
}

fn shake_hands(
    socket: &TcpStream,
    config: Arc<ClientConfig>,
    identity: &Identity,
    deadline: Instant,
) -> Result<ClientConnection, ConnectError> {
    let failed = |error: rustls::Error| match refusal_in(&error) {
        Some(refusal) => ConnectError::Identity(Box::new(refusal.clone())),
        None => ConnectError::Handshake(io::Error::new(ErrorKind::InvalidData, error)),
    };
    let mut tls = ClientConnection::new(config, identity.name().clone()).map_err(failed)?;
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
    Ok(tls)
}

fn handshake(
    socket: &TcpStream,
    identity: &Identity,
    deadline: Instant,
) -> Result<(ClientConnection, Proof), ConnectError> {
    let tls = shake_hands(socket, Arc::clone(identity.tls()), identity, deadline)?;
    // No verifier is called for a resumed session: what its ticket stands for is held to today's time and pins. After a full
    // handshake this tells how they were satisfied.
    let chain = tls.peer_certificates().unwrap_or_default();
    match identity.check(chain, today()) {
        Ok(proof) => Ok((tls, proof)),
        Err(refusal) => Err(ConnectError::Identity(Box::new(refusal))),
    }
}

/// The reading end of a session, for the one thread that reads it.
#[derive(Debug)]
pub struct Reader {
    session: Arc<Session>,
    encrypted: Vec<u8>,
    frames: Frames,
    messages: Vec<Range<usize>>,
    ended: Option<Closed>,
}

impl Reader {
    /// The session that it reads.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits for octets from the resolver; the messages that they bring to an end are [`Reader::messages`] then.
    pub fn read(&mut self) -> Result<(), Closed> {
        self.messages.clear();
        if let Some(ended) = self.ended.take() {
            return Err(ended);
        }
        let arrived = loop {
            match (&self.session.socket).read(&mut self.encrypted) {
                Ok(arrived) => break arrived,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Closed::Broken(error)),
            }
        };
        let mut state = self.session.state.lock();
        let state = &mut *state;
        if state.closed {
            // Nobody waits for what came after it, and rustls is not to be asked once it has said goodbye.
            return Err(Closed::Here);
        }
        if arrived == 0 {
            return Err(Closed::End);
        }
        // What came whole before the end still counts; the end is told at the next call.
        self.ended = decrypt(&mut state.tls, &self.encrypted[..arrived], &mut self.frames).err();
        while let Some(range) = self.frames.next_message() {
            if range.len() < HEADER {
                self.ended = Some(Closed::Garbage);
                break;
            }
            self.messages.push(range);
        }
        state.received += self.messages.len() as u64;
        if state.received < state.sent {
            // A resolver that gathers small writes (Nagle) holds the next answer back until the last one is acknowledged,
            // which Linux otherwise puts off for 40 ms. The option lasts for one time only, and costs a packet.
            let _ = SockRef::from(&self.session.socket).set_tcp_quickack(true);
        }
        // An answer to a key update, or the alert that says why rustls gave up.
        if let Err(error) = self.session.flush(state) {
            self.ended.get_or_insert(Closed::Broken(error));
        }
        Ok(())
    }

    /// The messages that the last read brought to an end, each of the length of a header or longer.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let frames = &self.frames;
        self.messages
            .iter()
            .map(move |range| frames.message(range.clone()))
    }

    /// One of them, by its place.
    pub fn message(&self, index: usize) -> &[u8] {
        self.messages
            .get(index)
            .map_or(&[], |range| self.frames.message(range.clone()))
    }
}

impl State {
    /// Encrypts a query, under its ID here; returns how many octets it has. It has a record to itself: servers that read a message from each
    /// record, and then wait for the network, are in use.
    fn write(&mut self, next: &Outgoing) -> io::Result<usize> {
        self.plaintext.clear();
        next.query.write_framed(next.form, &mut self.plaintext);
        self.plaintext[PREFIX..PREFIX + 2].copy_from_slice(&next.id.to_be_bytes());
        self.sent += 1;
        self.tls.writer().write_all(&self.plaintext)?;
        Ok(self.plaintext.len())
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
        let processed = tls.process_new_packets();
        // Also what came before an error: it ends with "would block", or with nothing once the resolver has closed.
        while let Ok(1..) = frames.fill(|room| tls.reader().read(room)) {}
        let state = processed.map_err(broken)?;
        if state.peer_has_closed() {
            return Err(Closed::End);
        }
    }
    Ok(())
}

/// Random message IDs that nobody outside can foresee (RFC 5452 section 9.2), drawn many at a time.
#[derive(Debug)]
pub struct Ids {
    source: SystemRandom,
    octets: [u8; 512],
    used: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            source: SystemRandom::new(),
            octets: [0; 512],
            used: 512,
        }
    }
}

impl Ids {
    /// The next one.
    pub fn draw(&mut self) -> u16 {
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
