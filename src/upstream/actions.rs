//! What goes into the pool, and what comes out?
//!
//! The pool's settings, the messages that arrive on a session, and the actions that the pool asks for. The rules are in [`super::pool`].

use std::time::Duration;

use super::table::SessionId;
use crate::identity::key_exchange::HelloSize;
use crate::message::QueryForm;

/// The pool's settings.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Number of addresses, in order of preference; at least 1.
    pub addresses: usize,
    /// How long a query may take.
    pub timeout: Duration,
    /// The shortest time after which a session counts as silent while a query is pending.
    pub min_silence_timeout: Duration,
    /// Shared sessions to one address, at most; at least 1.
    pub sessions: usize,
    /// Queries in flight, at most.
    pub max_pending: usize,
}

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The query's deadline passed.
    TimedOut,
    /// No resolver could be reached.
    Unreachable,
    /// A resolver was reached, but failed authentication.
    Unauthenticated,
    /// Too many queries are in flight, or the rate limit is reached.
    Overloaded,
    /// The resolver's response could not be parsed.
    MalformedResponse,
    /// The query's sessions ended, again and again.
    ConnectionLost,
}

/// What a response means for the query and for the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// NOERROR or NXDOMAIN: records, or that there are none.
    Success,
    /// A failure that the resolver attributes to the name (RFC 8914), or another response code that a retry would not change.
    FinalError,
    /// SERVFAIL or REFUSED that the resolver does not attribute to the name.
    ServerFailure,
    /// FORMERR, NOTIMP or BADVERS: possibly because of padding or EDNS, which the forwarder added.
    Unsupported,
}

/// A message that arrived on a session.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// The message ID.
    pub id: u16,
    /// What the message means.
    pub kind: ReplyKind,
}

/// An order to send a query on a session.
#[derive(Debug)]
pub struct SendQuery<Q> {
    /// The session.
    pub session: SessionId,
    /// The message ID on that session.
    pub id: u16,
    /// The form: with padding, with EDNS, or without both.
    pub form: QueryForm,
    /// The query.
    pub query: Q,
}

/// An order to open a session.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest {
    /// The session's number from now on.
    pub session: SessionId,
    /// The rank of its address.
    pub rank: usize,
    /// The hello to send.
    pub hello: HelloSize,
}

/// A query that was answered.
#[derive(Debug)]
pub struct AnsweredQuery<Q> {
    /// The query.
    pub query: Q,
    /// Index of the answer among the messages.
    pub index: usize,
    /// Time from sending to the answer, on that session.
    pub took: Duration,
    /// The answer is a failure of an address that fails other queries too: it says nothing about the name.
    pub is_outage: bool,
}

/// Something to log or to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Queries go to the address of that rank from now on, by that session.
    AddressActive(usize, SessionId),
    /// Nothing arrives on that session while queries are pending.
    SessionSilent(SessionId),
    /// That session stayed silent while others answered.
    SessionDead(SessionId),
    /// The address of that rank fails all queries.
    AddressFailing(usize),
    /// The address of that rank answers again.
    AddressRecovered(usize),
    /// The address of that rank accepts queries in that reduced form only.
    FormReduced(usize, QueryForm),
    /// The address of that rank gets small hellos from now on. To be counted; another event says what to log.
    SmallHelloNeeded(usize),
    /// The address of that rank gets small hellos. So many earlier changes were not logged.
    PostQuantumLeftOut(usize, u32),
    /// The address of that rank gets large hellos again. So many earlier changes were not logged.
    PostQuantumRestored(usize, u32),
    /// The resolver closed a session because of the one query on it.
    CulpritFound,
    /// A message matched no pending query.
    UnmatchedReply(SessionId),
}

impl Event {
    /// The session that the event is about, if any.
    pub fn session(self) -> Option<SessionId> {
        match self {
            Self::AddressActive(_, id)
            | Self::SessionSilent(id)
            | Self::SessionDead(id)
            | Self::UnmatchedReply(id) => Some(id),
            Self::AddressFailing(_)
            | Self::AddressRecovered(_)
            | Self::FormReduced(..)
            | Self::SmallHelloNeeded(_)
            | Self::PostQuantumLeftOut(..)
            | Self::PostQuantumRestored(..)
            | Self::CulpritFound => None,
        }
    }
}

/// What the pool asks for, to be done in this order. The caller keeps it, so that its memory is reused.
#[derive(Debug)]
pub struct Actions<Q> {
    /// Queries that were answered.
    pub answered: Vec<AnsweredQuery<Q>>,
    /// Failure responses to keep as fallbacks: the query, and the index of the message.
    pub fallbacks: Vec<(Q, usize)>,
    /// Queries that failed. Where a fallback response was kept for one, that goes out.
    pub failed: Vec<(Q, Failure)>,
    /// Queries whose waiting clients are due to be served.
    pub due: Vec<Q>,
    /// Queries to send.
    pub sends: Vec<SendQuery<Q>>,
    /// Sessions to open.
    pub connects: Vec<ConnectRequest>,
    /// Sessions to close. No query is pending on them any more.
    pub closes: Vec<SessionId>,
    /// Events to log.
    pub events: Vec<Event>,
}

impl<Q> Default for Actions<Q> {
    fn default() -> Self {
        Self {
            answered: Vec::new(),
            fallbacks: Vec::new(),
            failed: Vec::new(),
            due: Vec::new(),
            sends: Vec::new(),
            connects: Vec::new(),
            closes: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl<Q> Actions<Q> {
    /// Returns true if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let queries =
            self.answered.is_empty() && self.fallbacks.is_empty() && self.failed.is_empty();
        let others = self.due.is_empty() && self.sends.is_empty() && self.events.is_empty();
        queries && others && self.connects.is_empty() && self.closes.is_empty()
    }
}
