//! What waits to be written?
//!
//! Lines of threads that must not wait, for one that may: it writes to somebody who reads slowly or not at all. What finds no
//! room is counted and left out.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::telemetry::metrics::Counter;

/// How long the end waits for the last lines to be written.
const LAST: Duration = Duration::from_secs(1);

/// A bounded queue with one reader.
#[derive(Debug)]
pub struct Spool<T> {
    most: usize,
    state: Mutex<State<T>>,
    filled: Condvar,
    done: Condvar,
    lost: Counter,
}

#[derive(Debug)]
struct State<T> {
    lines: Vec<T>,
    /// Nothing is added any more.
    closed: bool,
    /// The reader has written everything.
    written: bool,
}

impl<T> Spool<T> {
    /// An empty one with room for so many.
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::new(State {
                lines: Vec::new(),
                closed: false,
                written: false,
            }),
            filled: Condvar::new(),
            done: Condvar::new(),
            lost: Counter::new(),
        }
    }

    /// Adds a line, if there is room for it.
    pub fn add(&self, line: T) {
        let mut state = self.state.lock();
        if state.closed || state.lines.len() >= self.most {
            return self.lost.increment();
        }
        state.lines.push(line);
        let first = state.lines.len() == 1;
        drop(state);
        if first {
            self.filled.notify_one();
        }
    }

    /// Counts a line for which there was no room elsewhere.
    pub fn lose(&self) {
        self.lost.increment();
    }

    /// Lines that found no room.
    pub fn lost(&self) -> u64 {
        self.lost.value()
    }

    /// Waits for lines and takes all that are there, in their order, into `lines`, which is empty. False when there will be
    /// none any more: then the reader has to say when it has written everything ([`Spool::rest`]).
    pub fn take(&self, lines: &mut Vec<T>) -> bool {
        let mut state = self.state.lock();
        self.filled
            .wait_while(&mut state, |state| state.lines.is_empty() && !state.closed);
        std::mem::swap(&mut state.lines, lines);
        !lines.is_empty()
    }

    /// The reader has written everything: its last act.
    pub fn rest(&self) {
        self.state.lock().written = true;
        self.done.notify_all();
    }

    /// Takes no more lines, and waits until those so far have been written, but not for long.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.filled.notify_all();
        self.done
            .wait_while_for(&mut state, |state| !state.written, LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_the_rest_keeps_its_order() {
        let spool = Spool::new(3);
        (0..5).for_each(|number| spool.add(number));
        let mut lines = Vec::new();
        assert!(spool.take(&mut lines));
        assert_eq!((lines, spool.lost()), (vec![0, 1, 2], 2));
    }

    #[test]
    fn the_end_waits_for_the_reader_and_takes_nothing_more() {
        let spool = Spool::new(1000);
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut lines = Vec::new();
                while spool.take(&mut lines) {
                    read.append(&mut lines);
                }
                spool.rest();
            });
            (0..100).for_each(|number| spool.add(number));
            spool.finish();
            assert!(spool.state.lock().written);
            spool.add(100);
        });
        assert_eq!(read, (0..100).collect::<Vec<_>>());
        assert_eq!(spool.lost(), 1);
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_is_away() {
        let spool = Spool::new(1);
        spool.add(());
        spool.finish();
        assert!(!spool.state.lock().written);
    }
}
