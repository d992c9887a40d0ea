//! What is the pool told, and what does it say?
//!
//! Its settings, what arrives on a session, and what is to be done. No rules: those are in [`super::pool`].

use std::time::Duration;

use super::table::SessionId;
use crate::message::Form;

/// What the pool is told once.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// How many addresses there are, in order of preference; at least 1.
    pub addresses: usize,
    /// The time of a query.
    pub timeout: Duration,
    /// How long a session may be silent while a query waits, at least.
    pub min_silence_timeout: Duration,
    /// Sessions to one address that queries share, at most; at least 1.
    pub sessions: usize,
    /// Queries on their way, at most.
    pub max_pending: usize,
}

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its deadline passed.
    TimedOut,
    /// No resolver could be reached.
    Unreachable,
    /// What was reached did not prove that it is the resolver that was meant.
    Unauthenticated,
    /// More queries are pending than may be, or more would be sent.
    Overloaded,
    /// The resolver answered with something that cannot be read.
    MalformedResponse,
    /// Sessions ended under it, again and again.
    ConnectionLost,
}

/// What kind of answer a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// One that the resolver found: records, or that there are none.
    Success,
    /// A failure with a reason that lies in the name (RFC 8914), or another code that repeating would not change.
    FinalError,
    /// SERVFAIL or REFUSED without such a reason.
    ServerFailure,
    /// FORMERR, NOTIMP or BADVERS: it may be what we added.
    Unsupported,
}

/// A message that arrived on a session.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// Its ID.
    pub id: u16,
    /// What it says.
    pub kind: ReplyKind,
}

/// A query that is to be sent on a session.
#[derive(Debug)]
pub struct SendQuery<Q> {
    /// On which.
    pub session: SessionId,
    /// Under which ID.
    pub id: u16,
    /// With what.
    pub form: Form,
    /// The query.
    pub query: Q,
}

/// A session that is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct ConnectRequest {
    /// The number under which it is known from now on.
    pub session: SessionId,
    /// The rank of its address.
    pub rank: usize,
}

/// A query that has its answer.
#[derive(Debug)]
pub struct AnsweredQuery<Q> {
    /// The query.
    pub query: Q,
    /// Which of the messages is its answer.
    pub index: usize,
    /// How long the session took.
    pub took: Duration,
    /// The answer is a failure, and its address fails others too: it says nothing of the name.
    pub is_outage: bool,
}

/// What is worth a line in the log, or a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The address of that rank serves now, by that session.
    AddressActive(usize, SessionId),
    /// Nothing comes on that session while queries wait.
    SessionSilent(SessionId),
    /// That session was silent, and others were not.
    SessionDead(SessionId),
    /// The address of that rank fails all that it is asked.
    AddressFailing(usize),
    /// It does no longer.
    AddressRecovered(usize),
    /// It does not take queries but in that form.
    FormReduced(usize, Form),
    /// A query ended a session on which it was alone.
    CulpritFound,
    /// A message answers no pending query.
    UnmatchedReply(SessionId),
}

impl Event {
    /// The session that it is about, if it is about one.
    pub fn session(self) -> Option<SessionId> {
        match self {
            Self::AddressActive(_, id)
            | Self::SessionSilent(id)
            | Self::SessionDead(id)
            | Self::UnmatchedReply(id) => Some(id),
            Self::AddressFailing(_)
            | Self::AddressRecovered(_)
            | Self::FormReduced(..)
            | Self::CulpritFound => None,
        }
    }
}

/// What is to be done, in this order. Kept by whoever calls the pool, for its memory.
#[derive(Debug)]
pub struct Actions<Q> {
    /// Queries that have their answer.
    pub answered: Vec<AnsweredQuery<Q>>,
    /// Failures that are to be kept, in case that nothing better comes: for which query, and which of the messages.
    pub fallbacks: Vec<(Q, usize)>,
    /// Queries that have none; if a failure was kept for one, that goes out.
    pub failed: Vec<(Q, Failure)>,
    /// Queries whose waiters are to be looked after.
    pub due: Vec<Q>,
    /// Queries to be sent.
    pub sends: Vec<SendQuery<Q>>,
    /// Sessions to be opened.
    pub connects: Vec<ConnectRequest>,
    /// Sessions to be closed. Nothing is pending on them any more.
    pub closes: Vec<SessionId>,
    /// What happened.
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
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let queries =
            self.answered.is_empty() && self.fallbacks.is_empty() && self.failed.is_empty();
        let others = self.due.is_empty() && self.sends.is_empty() && self.events.is_empty();
        queries && others && self.connects.is_empty() && self.closes.is_empty()
    }
}
