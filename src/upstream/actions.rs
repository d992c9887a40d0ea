//! What is the pool told, and what does it say?
//!
//! Its settings, what arrives on a session, and what is to be done. No rules: those are in [`super::pool`].

use std::time::Duration;

use super::table::SessionId;
use crate::message::Form;

/// What the pool is told once.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
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
pub enum Kind {
    /// One that the resolver found: records, or that there are none.
    Found,
    /// A failure with a reason that lies in the name (RFC 8914), or another code that repeating would not change.
    Verdict,
    /// SERVFAIL or REFUSED without such a reason.
    Failed,
    /// FORMERR, NOTIMP or BADVERS: it may be what we added.
    Unsupported,
}

/// A message that arrived on a session.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    /// Its ID.
    pub id: u16,
    /// What it says.
    pub kind: Kind,
}

/// A query that is to be sent on a session.
#[derive(Debug)]
pub struct Send<Q> {
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
pub struct Connect {
    /// The number under which it is known from now on.
    pub session: SessionId,
    /// The rank of its address.
    pub rank: usize,
}

/// A query that has its answer.
#[derive(Debug)]
pub struct Answered<Q> {
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
    Serves(usize, SessionId),
    /// Nothing comes on that session while queries wait.
    Silent(SessionId),
    /// That session was silent, and others were not.
    Dead(SessionId),
    /// The address of that rank fails all that it is asked.
    Fails(usize),
    /// It does no longer.
    Well(usize),
    /// It does not take queries but in that form.
    Takes(usize, Form),
    /// A query ended a session on which it was alone.
    Convicted,
    /// A message answers no pending query.
    Unmatched(SessionId),
}

impl Event {
    /// The session that it is about, if it is about one.
    pub fn session(self) -> Option<SessionId> {
        match self {
            Self::Serves(_, id) | Self::Silent(id) | Self::Dead(id) | Self::Unmatched(id) => {
                Some(id)
            }
            Self::Fails(_) | Self::Well(_) | Self::Takes(..) | Self::Convicted => None,
        }
    }
}

/// What is to be done, in this order. Kept by whoever calls the pool, for its memory.
#[derive(Debug)]
pub struct Actions<Q> {
    /// Queries that have their answer.
    pub answered: Vec<Answered<Q>>,
    /// Failures that are to be kept, in case that nothing better comes: for which query, and which of the messages.
    pub kept: Vec<(Q, usize)>,
    /// Queries that have none; if a failure was kept for one, that goes out.
    pub failed: Vec<(Q, Failure)>,
    /// Queries whose waiters are to be looked after.
    pub due: Vec<Q>,
    /// Queries to be sent.
    pub sends: Vec<Send<Q>>,
    /// Sessions to be opened.
    pub connects: Vec<Connect>,
    /// Sessions to be closed. Nothing is pending on them any more.
    pub closes: Vec<SessionId>,
    /// What happened.
    pub events: Vec<Event>,
}

impl<Q> Default for Actions<Q> {
    fn default() -> Self {
        Self {
            answered: Vec::new(),
            kept: Vec::new(),
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
        let queries = self.answered.is_empty() && self.kept.is_empty() && self.failed.is_empty();
        let others = self.due.is_empty() && self.sends.is_empty() && self.events.is_empty();
        queries && others && self.connects.is_empty() && self.closes.is_empty()
    }
}
