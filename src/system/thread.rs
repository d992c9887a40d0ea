//! How does a thread start, and what if it panics?
//!
//! Every thread has a name. A thread that the service needs restarts after a panic, and every panic is logged and counted. We
//! know of no way for a client to cause a panic; this is for the ways that we do not know.
//!
//! The list of [`Heartbeat`]s is behind one lock, which no code holds while it takes another. A heartbeat itself is an atomic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::error;
use parking_lot::Mutex;

use crate::system::clock::{micros, micros_since_start};

/// How long a thread waits before it restarts after a panic, so that it cannot spin.
const RESTART_DELAY: Duration = Duration::from_millis(100);
/// Stack size in octets. Call chains are short and buffers are on the heap.
pub const STACK_SIZE: usize = 256 * 1024;

/// How long one piece of work may take. None of it waits for others, so milliseconds are normal.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The heartbeats of all serving threads, by thread name.
static HEARTBEATS: Mutex<Vec<(&'static str, Weak<Heartbeat>)>> = Mutex::new(Vec::new());

/// Liveness of one serving thread: when its current piece of work began (microseconds since the start), or 0 while it waits for
/// the kernel.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU64);

impl Heartbeat {
    /// Registers a heartbeat for a thread of this name. It counts until it is dropped.
    pub fn new(name: &'static str) -> Arc<Self> {
        let heartbeat = Arc::new(Self::default());
        let mut heartbeats = HEARTBEATS.lock();
        heartbeats.retain(|(_, heartbeat)| heartbeat.strong_count() > 0);
        heartbeats.push((name, Arc::downgrade(&heartbeat)));
        heartbeat
    }

    /// The thread has work since `now`.
    pub fn set_busy(&self, now: Instant) {
        self.0.store(micros_since_start(now), Ordering::Relaxed);
    }

    /// The thread waits for more work.
    pub fn set_idle(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn is_stalled(&self, now: u64) -> bool {
        let busy_since = self.0.load(Ordering::Relaxed);
        busy_since > 0 && now.saturating_sub(busy_since) > micros(STALL_TIMEOUT)
    }
}

/// The name of a serving thread whose current piece of work has lasted more than ten seconds, if there is one.
pub fn stalled_thread(now: Instant) -> Option<&'static str> {
    let now = micros_since_start(now);
    let heartbeats = HEARTBEATS.lock();
    let is_stalled = |heartbeat: &Weak<Heartbeat>| {
        heartbeat
            .upgrade()
            .is_some_and(|heartbeat| heartbeat.is_stalled(now))
    };
    heartbeats
        .iter()
        .find(|(_, heartbeat)| is_stalled(heartbeat))
        .map(|(name, _)| *name)
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// The number of panics of all threads.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Runs `run` and returns its result, or `None` if it panicked. A panic is logged and counted.
pub fn catch_panic<T>(name: &str, run: impl FnOnce() -> T) -> Option<T> {
    // Locks are not poisoned, and callers that keep state across `run` leave it consistent at every call in it.
    let result = catch_unwind(AssertUnwindSafe(run));
    if result.is_err() {
        PANICS.fetch_add(1, Ordering::Relaxed);
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

/// Not generic, so that the binary has one copy.
fn spawn_boxed(name: &'static str, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    #[cfg(test)]
    if REFUSED.get() == name {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_SIZE);
    thread.spawn(move || {
        catch_panic(name, run);
    })
}

/// Starts a thread that runs `run` until it returns, and again after every panic. Fails when the system has no thread.
pub fn spawn_restarting(
    name: &'static str,
    run: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut run: Box<dyn FnMut() + Send> = Box::new(run);
    let restarting = move || {
        while catch_panic(name, &mut run).is_none() {
            thread::sleep(RESTART_DELAY);
        }
    };
    spawn_boxed(name, Box::new(restarting))
}

#[cfg(test)]
thread_local! {
    /// The name of a thread that [`spawn`] refuses to start, so that a test sees what follows.
    pub(crate) static REFUSED: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_with_one_long_piece_of_work_is_stalled() {
        let heartbeat = Heartbeat::new("test of heartbeats");
        let now = crate::system::clock::now();
        let is_stalled = |now| stalled_thread(now) == Some("test of heartbeats");
        assert!(!is_stalled(now + 3 * STALL_TIMEOUT), "it waits");
        heartbeat.set_busy(now);
        assert!(!is_stalled(now + STALL_TIMEOUT));
        assert!(is_stalled(now + STALL_TIMEOUT + Duration::from_millis(1)));
        heartbeat.set_busy(now + STALL_TIMEOUT);
        assert!(
            !is_stalled(now + STALL_TIMEOUT + Duration::from_millis(1)),
            "another piece"
        );
        heartbeat.set_idle();
        assert!(!is_stalled(now + 3 * STALL_TIMEOUT));
        heartbeat.set_busy(now);
        drop(heartbeat);
        assert!(!is_stalled(now + 3 * STALL_TIMEOUT), "it is gone");
    }

    #[test]
    fn a_restarting_thread_runs_again_after_a_panic() {
        let before = panics();
        let mut turns = 0;
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let thread = spawn_restarting("test", move || {
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
