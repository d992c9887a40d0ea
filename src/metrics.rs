//! How is a number counted and shown?
//!
//! Each room keeps the numbers that belong to it; this one knows what a number is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, shared by all threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A count of nothing yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        // Nothing is read in its wake: a counter orders no other memory.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}
