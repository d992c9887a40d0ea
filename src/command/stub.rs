//! How is one resolver asked, as a stub does?
//!
//! One query over UDP, TCP or an authenticated session, and its answer or the cause why there is none.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ring::rand::{SecureRandom, SystemRandom};

use crate::forward::in_flight;
use crate::identity::verifier::Identity;
use crate::message::framing::{self, FrameBuffer};
use crate::message::{self, Answer, MAX_MESSAGE_LEN, ParseError, QueryForm};
use crate::system::clock;
use crate::system::deadline::{DeadlineStream, time_left};
use crate::system::scoped_address::{ScopedAddress, ScopedIp};
use crate::system::thread;
use crate::upstream::Query as _;
use crate::upstream::handshake::ConnectError;
use crate::upstream::query_ids::QueryIds;
use crate::upstream::session::Session;
use crate::upstream::{CloseReason, Outgoing, Reader, Security};

/// The server that was queried, and the transport.
#[derive(Debug, Clone, Copy)]
pub struct QueriedServer {
    pub(super) transport: &'static str,
    pub(super) address: ScopedAddress,
}

impl fmt::Display for QueriedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.address)
    }
}

/// Why a server gave no answer.
#[derive(Debug)]
pub enum Cause {
    /// A socket error, such as a timeout or a reset.
    Socket(io::Error),
    /// No session could be opened.
    Session(ConnectError),
    /// The session was closed before the answer.
    CloseReason(CloseReason),
    /// The answer cannot be parsed.
    Unreadable(ParseError),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => match error.kind() {
                ErrorKind::TimedOut => write!(f, "no answer in time"),
                ErrorKind::ConnectionRefused => write!(f, "nobody listens there"),
                ErrorKind::UnexpectedEof => write!(f, "closed without an answer"),
                _ => error.fmt(f),
            },
            Self::Session(error) => error.fmt(f),
            Self::CloseReason(closed) => write!(f, "no answer: {closed}"),
            Self::Unreadable(fault) => write!(f, "an answer that cannot be read: {fault}"),
        }
    }
}

/// An answer.
pub(super) struct Received {
    pub(super) message: Vec<u8>,
    /// None if the answer was written here.
    pub(super) server: Option<QueriedServer>,
    /// Whether the resolver was accepted on chain and name alone, though it has pins.
    pub(super) unpinned: bool,
}

/// An answer, or why each server that was asked gave none.
pub(super) type Outcome = Result<Received, Vec<(QueriedServer, Cause)>>;

/// A query and its deadline.
pub(super) struct StubQuery {
    question: Vec<u8>,
    id: u16,
    message: Vec<u8>,
    began: Instant,
    deadline: Instant,
}

impl StubQuery {
    pub(super) fn new(question: Vec<u8>, timeout: Duration, began: Instant) -> Self {
        let (mut id, mut cookie) = ([0; 2], [0; 8]);
        for random in [&mut id[..], &mut cookie] {
            SystemRandom::new()
                .fill(random)
                .expect("Linux has a random number generator, and it does not fail");
        }
        let id = u16::from_be_bytes(id);
        let mut message = Vec::new();
        message::write_query(&mut message, id, &cookie, &question);
        Self {
            question,
            id,
            message,
            began,
            deadline: began + timeout,
        }
    }

    /// The query in wire format.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether a message is the answer: it has the query's ID, and repeats its question.
    fn is_answered_by(&self, message: &[u8]) -> bool {
        message.starts_with(&self.id.to_be_bytes())
            && message::is_response_to(message, &self.question)
    }

    pub(super) fn over_udp(&self, listen_address: ScopedIp, port: u16) -> Outcome {
        let server = QueriedServer {
            transport: "udp",
            address: connect_address(listen_address, port),
        };
        let message = self
            .exchange_datagrams(server.address)
            .map_err(|error| vec![(server, Cause::Socket(error))])?;
        let is_truncated = Answer::parse(&message).is_ok_and(|answer| answer.is_truncated());
        if is_truncated {
            return self.over_tcp(listen_address, port);
        }
        Ok(Received {
            message,
            server: Some(server),
            unpinned: false,
        })
    }

    /// Sends the query, and again after a third of the time, since a datagram may be lost.
    pub(super) fn exchange_datagrams(&self, address: ScopedAddress) -> io::Result<Vec<u8>> {
        let address = address.resolve()?;
        let any_address: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((any_address, 0))?;
        // On a connected socket the kernel drops datagrams from elsewhere, and reports that nobody listens.
        socket.connect(address)?;
        let retry_at = self.began + self.deadline.saturating_duration_since(self.began) / 3;
        let mut octets = vec![0; MAX_MESSAGE_LEN];
        for until in [retry_at, self.deadline] {
            socket.send(&self.message)?;
            while let Ok(remaining) = time_left(until) {
                socket.set_read_timeout(Some(remaining))?;
                match socket.recv(&mut octets) {
                    Ok(length) if self.is_answered_by(&octets[..length]) => {
                        octets.truncate(length);
                        return Ok(octets);
                    }
                    Ok(_) => {}
                    // Linux reports a socket timeout as "would block".
                    Err(error)
                        if [ErrorKind::WouldBlock, ErrorKind::Interrupted]
                            .contains(&error.kind()) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    pub(super) fn over_tcp(&self, listen_address: ScopedIp, port: u16) -> Outcome {
        let server = QueriedServer {
            transport: "tcp",
            address: connect_address(listen_address, port),
        };
        match self.exchange_over_stream(server.address) {
            Ok(message) => Ok(Received {
                message,
                server: Some(server),
                unpinned: false,
            }),
            Err(error) => Err(vec![(server, Cause::Socket(error))]),
        }
    }

    fn exchange_over_stream(&self, address: ScopedAddress) -> io::Result<Vec<u8>> {
        let socket = TcpStream::connect_timeout(&address.resolve()?, time_left(self.deadline)?)?;
        let mut stream = DeadlineStream::new(&socket, self.deadline);
        let mut framed = Vec::new();
        framing::append(&mut framed, |out| out.extend_from_slice(&self.message));
        stream.write_all(&framed)?;
        let mut frames = FrameBuffer::with_capacity(4096);
        loop {
            match frames.fill(|room| io::Read::read(&mut stream, room)) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            while let Some(range) = frames.next_message() {
                let message = frames.message(range);
                if self.is_answered_by(message) {
                    return Ok(message.to_vec());
                }
            }
        }
    }

    /// Queries one address after the other. Each may take half of the remaining time, so that a silent one leaves time for the
    /// next; the last may take all of it.
    pub(super) fn over_sessions(&self, candidates: Vec<(ScopedAddress, &Security)>) -> Outcome {
        let mut attempts = Vec::new();
        let mut candidates = candidates.into_iter().peekable();
        while let Some((address, security)) = candidates.next() {
            let server = QueriedServer {
                transport: match security {
                    Security::Tls(_) => "tls",
                    Security::Cleartext => "tcp",
                },
                address,
            };
            let now = clock::now();
            let remaining = self.deadline.saturating_duration_since(now);
            let parts = if candidates.peek().is_some() { 2 } else { 1 };
            match self.over_session(address, security, now + remaining / parts) {
                Ok((message, unpinned)) => {
                    return Ok(Received {
                        message,
                        server: Some(server),
                        unpinned,
                    });
                }
                Err(cause) => attempts.push((server, cause)),
            }
        }
        Err(attempts)
    }

    fn over_session(
        &self,
        address: ScopedAddress,
        security: &Security,
        until: Instant,
    ) -> Result<(Vec<u8>, bool), Cause> {
        let (session, reader) =
            Session::connect(address, security, until).map_err(Cause::Session)?;
        let has_pins = |identity: &Identity| !identity.policy().pins.is_empty();
        let unpinned = security.identity().is_some_and(has_pins)
            && session
                .proof()
                .is_some_and(|proof| proof.pin_match.is_none());
        let message = exchange(&session, reader, &self.message, until)?;
        Ok((message, unpinned))
    }
}

/// Sends a query on a session, waits for the answer and closes the session.
fn exchange(
    session: &Session,
    reader: Reader,
    message: &[u8],
    until: Instant,
) -> Result<Vec<u8>, Cause> {
    let Exchange { answers, cause } =
        exchange_all(session, reader, &[message], QueryForm::Padded, until);
    let answer = answers.into_iter().next().flatten();
    answer.map(|(message, _)| message).ok_or(cause)
}

/// What came of several queries on one session.
pub(super) struct Exchange {
    /// The answer to each query, if there is one, and when it came.
    pub(super) answers: Vec<Option<(Vec<u8>, Instant)>>,
    /// Why the others have none.
    pub(super) cause: Cause,
}

/// The queries on a session, and what has come of them so far.
///
/// Shared by the thread that reads the session and the one that waits for it. The lock guards the answers and the reason; no other lock is
/// taken under it.
struct Pending {
    queries: Vec<(u16, Arc<in_flight::Query>)>,
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Default)]
struct Progress {
    answers: Vec<Option<(Vec<u8>, Instant)>>,
    /// Why the session was closed, if it was.
    closed: Option<CloseReason>,
}

impl Progress {
    /// Whether no more answers are to come.
    fn has_ended(&self) -> bool {
        self.closed.is_some() || self.answers.iter().all(Option::is_some)
    }
}

impl Pending {
    /// Reads the session until all answers are there or it is closed. Each query has one answer at most, so what is kept is bounded.
    fn read(&self, mut reader: Reader) {
        loop {
            let closed = reader.read().err();
            let mut progress = self.progress.lock();
            for message in reader.messages() {
                let is_answer = |(id, query): &(u16, Arc<in_flight::Query>)| {
                    message.starts_with(&id.to_be_bytes())
                        && message::is_response_to(message, query.question())
                };
                if let Some(index) = self.queries.iter().position(is_answer) {
                    progress.answers[index].get_or_insert_with(|| (message.to_vec(), clock::now()));
                }
            }
            progress.closed = closed;
            if progress.has_ended() {
                self.ended.notify_one();
                return;
            }
        }
    }
}

/// Sends queries in this form on a session, waits for the answers and closes the session.
pub(super) fn exchange_all(
    session: &Session,
    reader: Reader,
    messages: &[&[u8]],
    form: QueryForm,
    until: Instant,
) -> Exchange {
    let now = clock::now();
    let time_left = until.saturating_duration_since(now);
    let mut ids = QueryIds::default();
    let queries = messages.iter().map(|message| {
        let query = message::Query::parse(message).expect("it was written here");
        let query = in_flight::Query::new(&query, query.key().as_ref(), now, time_left);
        (ids.next_id(), Arc::new(query))
    });
    let queries: Vec<_> = queries.collect();
    let outgoing = queries.iter().map(|(id, query)| Outgoing {
        id: *id,
        form,
        query: Arc::clone(query) as Arc<_>,
    });
    session.send(&mut outgoing.collect());
    let progress = Progress {
        answers: vec![None; messages.len()],
        closed: None,
    };
    let pending = Arc::new(Pending {
        queries,
        progress: Mutex::new(progress),
        ended: Condvar::new(),
    });
    // The session's reader blocks without a timeout, so it runs on a thread of its own and the wait for it has the timeout.
    let read = Arc::clone(&pending);
    let spawned = thread::spawn("session", move || read.read(reader));
    let mut progress = pending.progress.lock();
    if spawned.is_ok() {
        let mut waits = |progress: &mut Progress| !progress.has_ended();
        let ended = &pending.ended;
        ended.wait_while_for(&mut progress, &mut waits, time_left);
    }
    session.close();
    let closed = progress.closed.take().map(Cause::CloseReason);
    Exchange {
        answers: progress.answers.clone(),
        cause: match spawned {
            Ok(_) => closed.unwrap_or(Cause::Socket(ErrorKind::TimedOut.into())),
            Err(error) => Cause::Socket(error),
        },
    }
}

/// The address at which a client on this host reaches a server that listens on `listen_address`.
pub(super) fn connect_address(listen_address: ScopedIp, port: u16) -> ScopedAddress {
    match listen_address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => SocketAddr::from((Ipv6Addr::LOCALHOST, port)).into(),
        _ => ScopedAddress::new(listen_address, port),
    }
}
