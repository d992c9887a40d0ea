//! What does the upstream need of queries, of replies, and of the code that completes a query?

use std::fmt;
use std::time::{Duration, Instant};

use super::actions::Failure;
use super::outgoing::Message;
use crate::message::Answer;

/// A query in flight: what the resolver is asked, and by when.
pub trait Query: Message + fmt::Debug + 'static {
    /// When the query arrived.
    fn started_at(&self) -> Instant;
    /// When the query ends at the latest, answered or not.
    fn deadline(&self) -> Instant;
    /// When [`Completer::serve_due_waiters`] must be called: before the deadline or at it.
    fn due(&self) -> Instant;
    /// Extends the deadline by the length of a suspend.
    fn extend(&self, by: Duration);
    /// The octets of the question: name, type and class.
    fn question(&self) -> &[u8];
    /// Returns true if the query is signed, and may be sent in one form only.
    fn is_signed(&self) -> bool;
    /// A number for the client that asked first.
    fn client(&self) -> u16;
    /// Keeps a failure response, with which the query ends if nothing better comes.
    fn keep_fallback(&self, failure: &[u8]);
    /// Marks the query's answer as a failure that says nothing about its name.
    fn note_outage(&self);
}

/// A batch of replies to clients.
pub trait Replies: Default {
    /// Sends them.
    fn send(&mut self);
}

/// Completes queries. Called by the thread that has the answer or the failure, without a lock of the upstream; that thread sends `replies`
/// afterwards.
pub trait Completer<Q, R>: Send + Sync {
    /// Completes `query`, with an answer that matches it or with a failure. Called once for each query.
    fn complete(
        &self,
        query: &Q,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut R,
    );

    /// A resolver that failed all queries answers again: earlier failures say nothing about their names.
    fn resolver_recovered(&self, now: Instant);

    /// `query` goes on, but clients that wait for it are due ([`Query::due`]): those get an expired answer or a failure.
    fn serve_due_waiters(&self, query: &Q, now: Instant, replies: &mut R);
}
