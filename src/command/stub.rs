//! How is one resolver asked, as a stub does?
//!
//! One question over UDP, TCP or an authenticated session, and its answer or why there is none.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use ring::rand::{SecureRandom, SystemRandom};

use crate::forward::in_flight;
use crate::identity::verifier::Identity;
use crate::message::framing::{self, Frames};
use crate::message::{self, Answer, Fault, Form, LONGEST};
use crate::system::clock;
use crate::system::deadline::{Timed, left};
use crate::system::thread;
use crate::upstream::Query as _;
use crate::upstream::handshake::ConnectError;
use crate::upstream::query_ids::QueryIds;
use crate::upstream::session::{CloseReason, Session};
use crate::upstream::{Outgoing, Reader};

/// Whoever was asked, and how.
#[derive(Debug, Clone, Copy)]
pub struct Whom {
    transport: &'static str,
    address: SocketAddr,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport, self.address)
    }
}

/// Why somebody gave no answer.
#[derive(Debug)]
pub enum Cause {
    /// The system or the other side ended it.
    Socket(io::Error),
    /// There was no session.
    Session(ConnectError),
    /// There was one, and it ended.
    CloseReason(CloseReason),
    /// What came cannot be read.
    Unreadable(Fault),
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

/// A message that answers.
pub(super) struct Heard {
    pub(super) message: Vec<u8>,
    pub(super) whom: Whom,
    /// The resolver was taken on chain and name alone, though there are pins.
    pub(super) unpinned: bool,
}

/// A question, and by when it is to be answered.
pub(super) struct Asking {
    question: Vec<u8>,
    id: u16,
    message: Vec<u8>,
    began: Instant,
    deadline: Instant,
}

impl Asking {
    pub(super) fn new(question: Vec<u8>, timeout: Duration, began: Instant) -> Self {
        let mut id = [0; 2];
        SystemRandom::new()
            .fill(&mut id)
            .expect("Linux has a random number generator, and it does not fail");
        let id = u16::from_be_bytes(id);
        let mut message = Vec::new();
        message::write_query(&mut message, id, &question);
        Self {
            question,
            id,
            message,
            began,
            deadline: began + timeout,
        }
    }

    /// The message that asks.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether a message is the answer: its ID, and the question that it repeats.
    fn is_answered_by(&self, message: &[u8]) -> bool {
        message.starts_with(&self.id.to_be_bytes()) && message::answers(message, &self.question)
    }

    pub(super) fn by_udp(&self, listening: IpAddr, port: u16) -> Result<Heard, Vec<(Whom, Cause)>> {
        let whom = Whom {
            transport: "udp",
            address: reachable(listening, port),
        };
        let message = self
            .exchange_datagrams(whom.address)
            .map_err(|error| vec![(whom, Cause::Socket(error))])?;
        let is_truncated = Answer::parse(&message).is_ok_and(|answer| answer.is_truncated());
        if is_truncated {
            return self.by_tcp(listening, port);
        }
        Ok(Heard {
            message,
            whom,
            unpinned: false,
        })
    }

    /// Asks once, and again after a third of the time: a datagram may be lost.
    pub(super) fn exchange_datagrams(&self, address: SocketAddr) -> io::Result<Vec<u8>> {
        let own: IpAddr = if address.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((own, 0))?;
        // The kernel leaves out what comes from elsewhere, and says so when nobody listens.
        socket.connect(address)?;
        let again = self.began + self.deadline.saturating_duration_since(self.began) / 3;
        let mut octets = vec![0; LONGEST];
        for until in [again, self.deadline] {
            socket.send(&self.message)?;
            while let Ok(left) = left(until) {
                socket.set_read_timeout(Some(left))?;
                match socket.recv(&mut octets) {
                    Ok(length) if self.is_answered_by(&octets[..length]) => {
                        octets.truncate(length);
                        return Ok(octets);
                    }
                    Ok(_) => {}
                    // A socket's timeout is "would block" to Linux.
                    Err(error)
                        if [ErrorKind::WouldBlock, ErrorKind::Interrupted]
                            .contains(&error.kind()) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    pub(super) fn by_tcp(&self, listening: IpAddr, port: u16) -> Result<Heard, Vec<(Whom, Cause)>> {
        let whom = Whom {
            transport: "tcp",
            address: reachable(listening, port),
        };
        match self.exchange_over_stream(whom.address) {
            Ok(message) => Ok(Heard {
                message,
                whom,
                unpinned: false,
            }),
            Err(error) => Err(vec![(whom, Cause::Socket(error))]),
        }
    }

    fn exchange_over_stream(&self, address: SocketAddr) -> io::Result<Vec<u8>> {
        let socket = TcpStream::connect_timeout(&address, left(self.deadline)?)?;
        let mut stream = Timed::new(&socket, self.deadline);
        let mut framed = Vec::new();
        framing::append(&mut framed, |out| out.extend_from_slice(&self.message));
        stream.write_all(&framed)?;
        let mut frames = Frames::with_capacity(4096);
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

    /// Asks one address after the other. Each may take half of what is left, so that one which is silent leaves time for
    /// the next; the last may take all.
    pub(super) fn directly(
        &self,
        candidates: Vec<(SocketAddr, &Identity)>,
    ) -> Result<Heard, Vec<(Whom, Cause)>> {
        let mut tries = Vec::new();
        let mut candidates = candidates.into_iter().peekable();
        while let Some((address, identity)) = candidates.next() {
            let whom = Whom {
                transport: "tls",
                address,
            };
            let now = clock::now();
            let left = self.deadline.saturating_duration_since(now);
            let share = if candidates.peek().is_some() { 2 } else { 1 };
            match self.over_session(address, identity, now + left / share) {
                Ok((message, unpinned)) => {
                    return Ok(Heard {
                        message,
                        whom,
                        unpinned,
                    });
                }
                Err(cause) => tries.push((whom, cause)),
            }
        }
        Err(tries)
    }

    fn over_session(
        &self,
        address: SocketAddr,
        identity: &Identity,
        until: Instant,
    ) -> Result<(Vec<u8>, bool), Cause> {
        let (session, reader) =
            Session::connect(address, identity, until).map_err(Cause::Session)?;
        let unpinned = session.proof().fit.is_none() && !identity.terms().pins.is_empty();
        let message = exchange(&session, reader, &self.message, until)?;
        Ok((message, unpinned))
    }
}

/// Asks over a session and waits for the answer; the session ends with that.
pub(super) fn exchange(
    session: &Session,
    mut reader: Reader,
    message: &[u8],
    until: Instant,
) -> Result<Vec<u8>, Cause> {
    let now = clock::now();
    let time_left = until.saturating_duration_since(now);
    let query = message::Query::parse(message).map_err(Cause::Unreadable)?;
    let query = Arc::new(in_flight::Query::new(
        &query,
        query.key().as_ref(),
        now,
        time_left,
    ));
    let id = QueryIds::default().next_id();
    session.send(&mut vec![Outgoing {
        id,
        form: Form::Padded,
        query: Arc::clone(&query) as Arc<_>,
    }]);
    // The session's reader waits without an end; whoever waits for it has one.
    let heard = Arc::new((Mutex::new(None), Condvar::new()));
    let place = Arc::clone(&heard);
    let read = move || {
        let heard = loop {
            if let Err(closed) = reader.read() {
                break Err(closed);
            }
            let is_answer = |message: &&[u8]| {
                message.starts_with(&id.to_be_bytes())
                    && message::answers(message, query.question())
            };
            if let Some(message) = reader.messages().find(is_answer) {
                break Ok(message.to_vec());
            }
        };
        *place.0.lock() = Some(heard);
        place.1.notify_one();
    };
    thread::spawn("session", read).map_err(Cause::Socket)?;
    let mut found = heard.0.lock();
    heard
        .1
        .wait_while_for(&mut found, |found| found.is_none(), time_left);
    session.close();
    match found.take() {
        Some(Ok(message)) => Ok(message),
        Some(Err(closed)) => Err(Cause::CloseReason(closed)),
        None => Err(Cause::Socket(ErrorKind::TimedOut.into())),
    }
}

/// Where somebody of this host reaches who listens on `listening`.
pub(super) fn reachable(listening: IpAddr, port: u16) -> SocketAddr {
    let address = match listening {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, port)
}
