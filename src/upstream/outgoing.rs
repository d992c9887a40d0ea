//! What waits to be written to a session?

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::message::QueryForm;

/// Batches that one thread writes in a row for others. After that the other threads write for themselves.
pub(super) const MAX_COMBINED_WRITES: usize = 8;
/// A message that is written to a session.
pub trait Message: Send + Sync {
    /// Returns true if no client waits for the answer any more.
    fn has_ended(&self) -> bool;
    /// Appends the message in that form, with its two-octet length prefix (RFC 7766 section 8) and ID 0. A signed message has one form
    /// only.
    fn write_framed(&self, form: QueryForm, out: &mut Vec<u8>);
}

/// A query that is to be written to a session.
pub struct Outgoing {
    /// The message ID on that session.
    pub id: u16,
    /// The form: with padding, with EDNS, or without both.
    pub form: QueryForm,
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

/// Queries that threads leave to the one that is writing. A mutex in the session guards it; see [`super::session::Session`].
#[derive(Debug, Default)]
pub(super) struct WriteCombiner {
    pub(super) queue: Vec<Outgoing>,
    /// Batches that the writing thread has begun; 0 while no thread writes.
    pub(super) writes: usize,
    /// Another thread added queries during the last write.
    pub(super) is_contended: bool,
}

impl WriteCombiner {
    /// Moves the queued queries to `queries`.
    pub(super) fn take_queue(&mut self, queries: &mut Vec<Outgoing>) {
        self.is_contended |= !self.queue.is_empty();
        queries.append(&mut self.queue);
    }
}

/// Held by the thread that writes for others. Dropped on panic, so that the next thread takes over.
pub(super) struct Leader<'s>(pub(super) &'s Mutex<WriteCombiner>);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.lock().writes = 0;
    }
}
