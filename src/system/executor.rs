//! Who runs what may take long?

use std::sync::Arc;

/// Something to run once, on a thread that may wait. Dropped where it cannot be run.
pub type Job = Box<dyn FnOnce() + Send>;

/// Threads that may wait.
pub trait Executor: Send + Sync {
    /// Has a thread run `job`; drops it if there is none.
    fn execute(self: Arc<Self>, job: Job);
}
