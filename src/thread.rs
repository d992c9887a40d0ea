//! How does a thread start, and what if it panics?
//!
//! Every thread has a name. A lost thread must not leave a service with fewer hands: one that is needed for good begins
//! again after a panic, and every panic is said and counted. A stranger can cause none that we know of; this is for those
//! that we do not know of.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use log::error;

use crate::metrics::Counter;

/// How long a thread that panicked waits before it begins again, so that it cannot spin.
const PAUSE: Duration = Duration::from_millis(100);
/// A stack in octets. What runs here calls little and keeps its buffers on the heap.
const STACK: usize = 256 * 1024;

static PANICS: Counter = Counter::new();

/// Panics of all threads so far.
pub fn panics() -> u64 {
    PANICS.value()
}

/// Runs `run`; none if it panicked, which is said and counted.
pub fn guard<T>(name: &str, run: impl FnOnce() -> T) -> Option<T> {
    // Locks are not poisoned, and whoever holds state across `run` sees to it that it makes sense at every call.
    let result = catch_unwind(AssertUnwindSafe(run));
    if result.is_err() {
        PANICS.increment();
        error!("event=panic thread={name}");
    }
    result.ok()
}

/// Starts a thread that runs `run` once. Fails when the system has no thread.
pub fn spawn(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    spawn_boxed(name, Box::new(run))
}

/// One copy for all threads.
fn spawn_boxed(name: &'static str, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK);
    thread.spawn(move || {
        guard(name, run);
    })
}

/// Starts a thread that runs `run` until it returns, again after every panic. Fails when the system has no thread.
pub fn spawn_for_good(
    name: &'static str,
    run: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut run: Box<dyn FnMut() + Send> = Box::new(run);
    let again = move || {
        while guard(name, &mut run).is_none() {
            thread::sleep(PAUSE);
        }
    };
    spawn_boxed(name, Box::new(again))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_needed_begins_again_after_a_panic() {
        let before = panics();
        let mut turns = 0;
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let thread = spawn_for_good("test", move || {
            turns += 1;
            assert!(turns == 3, "on purpose");
            sender.send(turns).expect("the test waits");
        });
        assert_eq!(receiver.recv(), Ok(3));
        thread
            .expect("starts")
            .join()
            .expect("its panics are caught");
        assert!(panics() >= before + 2);
    }
}
