//! What does the upstream need of queries, of replies, and of whoever completes a query?

use std::fmt;
use std::time::{Duration, Instant};

use super::actions::Failure;
use super::outgoing::Message;
use crate::message::Answer;

/// A query on its way: what the resolver is asked, and by when.
pub trait Query: Message + fmt::Debug + 'static {
    /// When it was asked.
    fn started_at(&self) -> Instant;
    /// By when it ends, whatever became of it.
    fn deadline(&self) -> Instant;
    /// When [`Completer::serve_due_waiters`] is to be called, before the deadline or at it.
    fn due(&self) -> Instant;
    /// Gives it so much longer, since nothing could come meanwhile.
    fn extend(&self, by: Duration);
    /// The question's octets: name, type and class.
    fn question(&self) -> &[u8];
    /// Whether it may be sent in one form only, since it is signed.
    fn is_signed(&self) -> bool;
    /// The client that asked first, by a number.
    fn client(&self) -> u16;
    /// Keeps a failure of a resolver's, which is what it ends with if nothing better comes.
    fn keep_fallback(&self, failure: &[u8]);
    /// Notes that its answer is a failure that says nothing of its name.
    fn note_outage(&self);
}

/// Replies to clients that were made at a time.
pub trait Replies: Default {
    /// Sends them.
    fn send(&mut self);
}

/// What becomes of queries. Called by the thread that knows it, which sends `replies` afterwards.
pub trait Completer<Q, R>: Send + Sync {
    /// `query` has ended: with an answer that matches it, or without. Called once for each.
    fn complete(
        &self,
        query: &Q,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut R,
    );

    /// A resolver that failed at all it was asked answers again: failures of the time before say nothing of their names.
    fn resolver_recovered(&self, now: Instant);

    /// `query` goes on, but it is due ([`Query::due`]) that somebody looks after those that wait for it.
    fn serve_due_waiters(&self, query: &Q, now: Instant, replies: &mut R);
}
