//! What waits to be written into a session?

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::message::Form;

/// Batches that one thread sends for others, one after the other, before they send themselves.
pub(super) const MAX_COMBINED_WRITES: usize = 8;
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

/// Queries that leave with those of a thread that sends for others too.
#[derive(Debug, Default)]
pub(super) struct WriteCombiner {
    pub(super) queue: Vec<Outgoing>,
    /// How many batches that thread has begun to send; 0 while there is none.
    pub(super) writes: usize,
    /// Somebody joined the last one.
    pub(super) is_contended: bool,
}

impl WriteCombiner {
    /// Adds those that joined to `queries`.
    pub(super) fn take_queue(&mut self, queries: &mut Vec<Outgoing>) {
        self.is_contended |= !self.queue.is_empty();
        queries.append(&mut self.queue);
    }
}

/// The duty to send what joins. Whoever lets go of it before the end, by a panic, leaves it to the next.
pub(super) struct Leader<'s>(pub(super) &'s Mutex<WriteCombiner>);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        self.0.lock().writes = 0;
    }
}
