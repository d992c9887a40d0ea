//! One authenticated TLS connection, its pending queries and its reader.
//!
//! Any thread writes queries into it, in batches: one lock, one write, a TLS record each; those that come while another thread
//! is at it leave with that one. One thread of its own reads: it matches each answer by ID and question, and hands it to
//! whoever waits. Nobody else waits for anything here: the lock covers encrypting and the table of pending queries, never
//! a blocking call. rustls is driven here and nowhere else.
//!
//! A query may be pending on two sessions, when the first went silent. Whoever has an ending for it claims it, and only
//! the first may: no client gets two answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::clock;
use crate::deadline::{Timed, left};
use crate::flight::Query;
use crate::frame::{Frames, PREFIX};
use crate::identity::{Identity, PinMode, Proof, Refusal, Terms, refusal_in};
use crate::journal::debug;
use crate::wire::{self, HEADER};

/// Queries that may wait for their answers on one session: more than there is memory for by default, so that those that are
/// never answered leave room for others. Random IDs collide seldom while the table is this full.
pub const PENDING: usize = 16_384;
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
        ErrorKind::UnexpectedEof => "the resolver closed the connection".to_owned(),
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

/// What came of handing queries to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// All of them are pending.
    All,
    /// Those that are left found no room.
    Full,
    /// The session takes no more queries; all of them are left.
    Gone,
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
    /// No octet came for too long while queries waited: it gets no more until one does.
    suspect: AtomicBool,
    /// It gets no more queries, and ends when the last is answered.
    retired: AtomicBool,
}

#[derive(Debug)]
struct State {
    tls: ClientConnection,
    pending: HashMap<u16, Pending, BuildHasherDefault<IdHasher>>,
    random: Ids,
    /// The query that is being written; kept for its memory.
    plaintext: Vec<u8>,
    /// Encrypted octets that the socket did not take yet.
    unsent: Vec<u8>,
    /// When octets last arrived.
    heard: Instant,
    /// When a query was last sent.
    spoke: Instant,
    /// The smoothed time from query to answer; none before the first answer.
    round_trip: Option<Duration>,
    /// Queries that were answered.
    answered: usize,
    /// A query's deadline passed.
    expired: bool,
    /// Queries that may be pending at a time.
    window: usize,
    /// How long the resolver keeps an idle session, if it said so (RFC 7828).
    keepalive: Option<Duration>,
    closed: bool,
}

/// Queries that leave with those of a thread that sends for others too.
#[derive(Debug, Default)]
struct Company {
    joined: Vec<Arc<Query>>,
    /// How many batches that thread has begun to send; 0 while there is none.
    rounds: usize,
    /// Somebody joined the last one.
    is_likely: bool,
}

impl Company {
    /// Adds those that joined to `queries`.
    fn move_to(&mut self, queries: &mut Vec<Arc<Query>>) {
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

#[derive(Debug)]
struct Pending {
    query: Arc<Query>,
    since: Instant,
}

/// What a look at a session's clock found.
#[derive(Debug, Default)]
pub struct Look {
    /// When to look again, if queries are pending.
    pub next: Option<Instant>,
    /// When the session is to be closed if nothing is asked before.
    pub idle_until: Option<Instant>,
    /// Queries wait, and nothing has arrived for too long: the session is suspect from now on.
    pub silent: Option<Silent>,
}

/// What became suspect with a session.
#[derive(Debug)]
pub struct Silent {
    /// The queries that may be asked elsewhere, too.
    pub queries: Vec<Arc<Query>>,
    /// The session has answered before.
    pub answered: bool,
}

/// How a session went, seen from its end.
#[derive(Debug)]
pub struct Rest {
    /// The queries that have no answer and are pending nowhere else.
    pub queries: Vec<Arc<Query>>,
    /// Queries that were answered.
    pub answered: usize,
    /// A query's deadline passed.
    pub expired: bool,
}

impl Session {
    /// Connects to `address` and proves that it is the resolver of `identity`: TCP, TLS and every check by `deadline`.
    /// At most `window` queries will be pending on it at a time, until it has shown that it answers more.
    pub fn connect(
        address: SocketAddr,
        identity: &Identity,
        window: usize,
        deadline: Instant,
    ) -> Result<(Arc<Self>, Reader), ConnectError> {
        let socket = connect_socket(address, deadline).map_err(ConnectError::Connect)?;
        let (tls, proof) = handshake(&socket, identity, deadline)?;
        let now = clock::now();
        let session = Arc::new(Self {
            socket,
            address,
            proof,
            state: Mutex::new(State {
                tls,
                pending: HashMap::default(),
                random: Ids::new(),
                plaintext: Vec::new(),
                unsent: Vec::new(),
                heard: now,
                spoke: now,
                round_trip: None,
                answered: 0,
                expired: false,
                window,
                keepalive: None,
                closed: false,
            }),
            company: Mutex::default(),
            suspect: AtomicBool::new(false),
            retired: AtomicBool::new(false),
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

    /// Whether new queries should go here: it is neither suspect nor retired.
    pub fn is_good(&self) -> bool {
        !self.is_suspect() && !self.is_retired()
    }

    /// Whether it gets no more queries and ends with the last answer, or has ended.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Whether it went silent.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
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

    /// Asks `queries` as [`Session::send`] does, or hands them to a thread that is about to: then all are taken out. So threads
    /// that have queries at the same time write once for all, instead of waiting for each other's writes.
    ///
    /// What is left is to be asked elsewhere, whoever brought it.
    pub fn send_together(&self, queries: &mut Vec<Arc<Query>>, mut now: Instant) -> Sent {
        let mut company = self.company.lock();
        if company.rounds > ROUNDS {
            // Whoever sends has a client of its own to read.
            drop(company);
            return self.send(queries, now);
        }
        if company.rounds > 0 {
            company.joined.append(queries);
            return Sent::All;
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
            let sent = self.send(queries, now);
            let mut company = self.company.lock();
            company.move_to(queries);
            if sent != Sent::All || queries.is_empty() {
                company.rounds = 0;
                std::mem::forget(lead);
                return sent;
            }
            company.rounds += 1;
            drop(company);
            now = clock::now();
        }
    }

    /// Asks `queries`, as one batch, and takes those out that are pending now, or have ended.
    pub fn send(&self, queries: &mut Vec<Arc<Query>>, now: Instant) -> Sent {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.closed || self.is_retired() {
            return Sent::Gone;
        }
        // While the socket takes nothing, more queries would only pile up.
        while !queries.is_empty() && state.unsent.is_empty() && !state.closed {
            let room = state.window.saturating_sub(state.pending.len());
            let mut octets = 0;
            let piece = queries.iter().take(room).take_while(|query| {
                let fits = octets < PIECE;
                octets += query.framed().len();
                fits
            });
            let piece = piece.count();
            if piece == 0 {
                break;
            }
            let mut written = Ok(());
            for query in queries.drain(..piece) {
                if !query.is_claimed() {
                    written = written.and(state.write(query, now));
                }
            }
            if let Err(error) = written.and_then(|()| self.flush(state)) {
                // The reader finds the broken connection too, and takes the pending queries along.
                let cause = plain(&error);
                debug!(
                    "event=session-broken resolver={} cause=\"{cause}\"",
                    self.address
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

    /// Takes out the queries whose deadline has passed, finds those whose clients are to be looked after, and sees whether
    /// the session is silent or idle for too long.
    ///
    /// It is silent when nothing arrived while a query waited for four of its round trips, though for the least patience at
    /// least; or for the most, which is also for a session that has not answered yet.
    pub fn look(
        &self,
        now: Instant,
        (least_patience, most_patience): (Duration, Duration),
        expired: &mut Vec<Arc<Query>>,
        due: &mut Vec<Arc<Query>>,
    ) -> Look {
        let mut state = self.state.lock();
        let state = &mut *state;
        // One that has not answered yet is not known to be quick.
        let patience = state.round_trip.map_or(most_patience, |round_trip| {
            (round_trip * 4).max(least_patience).min(most_patience)
        });
        let late = state
            .pending
            .extract_if(|_, pending| pending.query.deadline() <= now);
        let mut unheard = false;
        expired.extend(late.filter_map(|(_, pending)| {
            // One that came shortly before its deadline, from elsewhere, says nothing of this session.
            unheard |= pending.since > state.heard && pending.since + patience <= now;
            state.expired = true;
            pending.query.claim().then_some(pending.query)
        }));
        // Silent for too long until a query's deadline, and nothing better was found: it is dead.
        if unheard || self.flush(state).is_err() {
            self.end(state);
        }
        if state.pending.is_empty() {
            if self.is_retired() {
                self.end_politely(state);
            }
            return Look {
                idle_until: self.end_idle(state, now),
                ..Look::default()
            };
        }
        let asked_here_alone = state
            .pending
            .values()
            .filter(|pending| pending.query.may_hedge());
        let oldest = asked_here_alone.map(|pending| pending.since).min();
        let silent_at = oldest
            .filter(|_| !self.is_suspect())
            .map(|oldest| oldest.max(state.heard) + patience);
        // In the same turn: octets that arrive after it clear the session again.
        let silent = silent_at
            .filter(|at| *at <= now)
            .map(|_| self.suspect_as(state));
        let mut next = silent_at.filter(|_| silent.is_none());
        for Pending { query, .. } in state.pending.values() {
            let at = query.due();
            if at <= now {
                due.push(Arc::clone(query));
            } else {
                next = next.into_iter().chain([at]).min();
            }
        }
        Look {
            next,
            idle_until: None,
            silent,
        }
    }

    /// Ends a session on which nothing is pending before the resolver does it, so that no query meets one that is just
    /// being closed. Returns until when it may stay, where the resolver gave a limit.
    fn end_idle(&self, state: &mut State, now: Instant) -> Option<Instant> {
        let until = state.heard.max(state.spoke) + state.keepalive? * 4 / 5;
        if until <= now {
            self.end_politely(state);
        }
        (until > now).then_some(until)
    }

    /// Gives it no more queries until octets arrive.
    pub fn suspect(&self) -> Silent {
        self.suspect_as(&self.state.lock())
    }

    fn suspect_as(&self, state: &State) -> Silent {
        self.suspect.store(true, Ordering::Release);
        let pending = state.pending.values().map(|pending| &pending.query);
        Silent {
            queries: pending.filter(|query| query.may_hedge()).cloned().collect(),
            answered: state.answered > 0,
        }
    }

    /// The queries that are pending.
    pub fn queries(&self) -> Vec<Arc<Query>> {
        let state = self.state.lock();
        let queries = state.pending.values().map(|pending| &pending.query);
        queries.cloned().collect()
    }

    /// Whether no query is pending.
    pub fn is_idle(&self) -> bool {
        self.state.lock().pending.is_empty()
    }

    /// Gives it no more queries. It ends with the last answer, or at once if none is due.
    pub fn retire(&self) {
        let mut state = self.state.lock();
        self.retired.store(true, Ordering::Release);
        if state.pending.is_empty() {
            self.end_politely(&mut state);
        }
    }

    /// The resolver said for how long it keeps the session when it is idle. Zero means that it is to be closed as soon as
    /// the answers are there (RFC 7828 section 3.2.2).
    pub fn keep_alive(&self, keepalive: Duration) {
        self.state.lock().keepalive = Some(keepalive);
        if keepalive.is_zero() {
            self.retire();
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
        if !state.pending.is_empty() || !state.unsent.is_empty() {
            // A resolver that does not read leaves queries in the kernel. They go with the session, and do not wait for it.
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
        state.closed = true;
        self.retired.store(true, Ordering::Release);
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
    matched: Vec<(Arc<Query>, Range<usize>, Duration)>,
    ended: Option<Closed>,
}

impl Reader {
    /// The session that it reads.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Waits for octets from the resolver and returns the queries that they answer, claimed, each with its answer's octets and
    /// how long that took.
    ///
    /// A message that matches no pending query by ID, name, type and class is left out (RFC 5452 section 9.1).
    pub fn read(&mut self) -> Result<impl Iterator<Item = (Arc<Query>, &[u8], Duration)>, Closed> {
        if let Some(ended) = self.ended.take() {
            return Err(ended);
        }
        let arrived = loop {
            match (&self.session.socket).read(&mut self.encrypted) {
                Ok(0) if self.session.state.lock().closed => return Err(Closed::Here),
                Ok(0) => return Err(Closed::End),
                Ok(arrived) => break arrived,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Closed::Broken(error)),
            }
        };
        let mut state = self.session.state.lock();
        let state = &mut *state;
        let now = clock::now();
        state.heard = now;
        self.session.suspect.store(false, Ordering::Release);
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
                    let Pending { query, since } = entry.remove();
                    let took = now.saturating_duration_since(since);
                    state.count_answer(took);
                    if query.claim() {
                        self.matched.push((query, range, took));
                    }
                }
                _ => debug!("event=answer-unmatched resolver={}", self.session.address),
            }
        }
        if !state.pending.is_empty() {
            // A resolver that gathers small writes (Nagle) holds the next answer back until the last one is acknowledged,
            // which Linux otherwise puts off for 40 ms. The option lasts for one time only, and costs a packet.
            let _ = SockRef::from(&self.session.socket).set_tcp_quickack(true);
        } else if self.session.is_retired() {
            self.session.end_politely(state);
        }
        // An answer to a key update, or the alert that says why rustls gave up.
        if let Err(error) = self.session.flush(state) {
            self.ended.get_or_insert(Closed::Broken(error));
        }
        let frames = &self.frames;
        Ok(self
            .matched
            .drain(..)
            .map(move |(query, range, took)| (query, frames.message(range), took)))
    }

    /// Ends the session and returns what is left of it.
    pub fn finish(self) -> Rest {
        self.session.close();
        let mut state = self.session.state.lock();
        let (answered, expired) = (state.answered, state.expired);
        let left = state.pending.drain().map(|(_, pending)| pending.query);
        let queries = left
            .filter(|query| query.lost() && !query.is_claimed())
            .collect();
        Rest {
            queries,
            answered,
            expired,
        }
    }
}

impl State {
    /// Encrypts a query, under an ID of its own, by which it is pending from now on. It has a record to itself: servers that read
    /// a message from each record, and then wait for the network, are in use.
    fn write(&mut self, query: Arc<Query>, now: Instant) -> io::Result<()> {
        let vacant = loop {
            if let Entry::Vacant(vacant) = self.pending.entry(self.random.next()) {
                break vacant;
            }
        };
        self.spoke = now;
        self.plaintext.clear();
        self.plaintext.extend_from_slice(query.framed());
        self.plaintext[PREFIX..PREFIX + 2].copy_from_slice(&vacant.key().to_be_bytes());
        query.sent();
        vacant.insert(Pending { query, since: now });
        self.tls.writer().write_all(&self.plaintext)
    }

    fn count_answer(&mut self, took: Duration) {
        // Smoothed as TCP does it (RFC 6298 section 2): an eighth of the new.
        let smoothed = |average: Duration| (average * 7 + took) / 8;
        self.round_trip = Some(self.round_trip.map_or(took, smoothed));
        self.answered += 1;
        if self.answered >= 2 * self.window {
            self.window = (2 * self.window).min(PENDING);
        }
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

/// IDs of our own are random already: they need no more than to be spread over the table.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, octets: &[u8]) {
        octets
            .iter()
            .for_each(|octet| self.write_u16(u16::from(*octet)));
    }

    fn write_u16(&mut self, id: u16) {
        // An odd number without a pattern (2^64 over the golden ratio): each bit of the ID changes the upper ones.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
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
