//! What waits to be written?
//!
//! Lines of threads that must not block, for one thread that may: whoever reads its output may be slow or absent. Lines that find
//! the queue full are dropped and counted.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::telemetry::metrics::Counter;

/// How long [`BoundedQueue::finish`] waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A bounded queue with many writers and one reader.
///
/// One lock guards the lines and both flags. Nothing else is locked, written or waited for while it is held.
#[derive(Debug)]
pub struct BoundedQueue<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    not_empty: Condvar,
    all_written: Condvar,
    dropped: Counter,
}

#[derive(Debug)]
struct State<T> {
    lines: Vec<T>,
    /// No lines are accepted any more.
    closed: bool,
    /// The reader has written everything.
    written: bool,
}

impl<T> BoundedQueue<T> {
    /// An empty queue for at most `capacity` lines.
    pub const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::new(State {
                lines: Vec::new(),
                closed: false,
                written: false,
            }),
            not_empty: Condvar::new(),
            all_written: Condvar::new(),
            dropped: Counter::new(),
        }
    }

    /// Adds a line, or counts it as dropped if the queue is full or closed.
    pub fn push(&self, line: T) {
        let mut state = self.state.lock();
        if state.closed || state.lines.len() >= self.capacity {
            return self.dropped.increment();
        }
        state.lines.push(line);
        let first = state.lines.len() == 1;
        drop(state);
        if first {
            self.not_empty.notify_one();
        }
    }

    /// Counts a line as dropped that the caller could not add.
    pub fn count_dropped(&self) {
        self.dropped.increment();
    }

    /// The number of lines that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.value()
    }

    /// Waits for lines, no longer than `wait` if that is given, and moves all of them, in order, into `lines`, which must be empty.
    /// Returns `false` once the queue is closed and empty: the reader then calls [`BoundedQueue::mark_written`] when it has written
    /// everything.
    pub fn take(&self, lines: &mut Vec<T>, wait: Option<Duration>) -> bool {
        let mut state = self.state.lock();
        let has_nothing = |state: &mut State<T>| state.lines.is_empty() && !state.closed;
        match wait {
            None => self.not_empty.wait_while(&mut state, has_nothing),
            Some(wait) => {
                self.not_empty.wait_while_for(&mut state, has_nothing, wait);
            }
        }
        std::mem::swap(&mut state.lines, lines);
        !lines.is_empty() || !state.closed
    }

    /// Ends the wait of [`BoundedQueue::finish`]. The reader's last call.
    pub fn mark_written(&self) {
        self.state.lock().written = true;
        self.all_written.notify_all();
    }

    /// Closes the queue, and waits up to a second until the reader has written what is in it.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.not_empty.notify_all();
        self.all_written
            .wait_while_for(&mut state, |state| !state.written, FLUSH_TIMEOUT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_capacity_are_counted_and_the_others_keep_their_order() {
        let queue = BoundedQueue::new(3);
        (0..5).for_each(|number| queue.push(number));
        let mut lines = Vec::new();
        assert!(queue.take(&mut lines, None));
        assert_eq!((lines, queue.dropped()), (vec![0, 1, 2], 2));
    }

    #[test]
    fn finish_waits_for_the_reader_and_closes_the_queue() {
        let queue = BoundedQueue::new(1000);
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut lines = Vec::new();
                while queue.take(&mut lines, None) {
                    read.append(&mut lines);
                }
                queue.mark_written();
            });
            (0..100).for_each(|number| queue.push(number));
            queue.finish();
            assert!(queue.state.lock().written);
            queue.push(100);
        });
        assert_eq!(read, (0..100).collect::<Vec<_>>());
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn a_wait_for_lines_ends_without_any() {
        let queue = BoundedQueue::<()>::new(1);
        let mut lines = Vec::new();
        assert!(queue.take(&mut lines, Some(Duration::ZERO)) && lines.is_empty());
        queue.finish();
        assert!(!queue.take(&mut lines, Some(Duration::from_secs(20))));
    }

    #[test]
    fn finish_does_not_wait_long_for_an_absent_reader() {
        let queue = BoundedQueue::new(1);
        queue.push(());
        queue.finish();
        assert!(!queue.state.lock().written);
    }
}
