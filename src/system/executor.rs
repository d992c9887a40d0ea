//! Who runs work that may block?

use std::sync::Arc;

/// Work that runs once on a thread that may block. It is dropped if no thread can run it.
pub type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads that may block.
pub trait Executor: Send + Sync {
    /// Runs `job` on a thread of the pool, or drops it if there is none.
    fn execute(self: Arc<Self>, job: Job);
}
