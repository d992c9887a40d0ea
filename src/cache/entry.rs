//! How is an answer kept, by what is it found, and what does it cost?

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use quick_cache::{Equivalent, Weighter};

use crate::cache::backoff::Trouble;
use crate::cache::cacheability::Lifetime;
use crate::message::{CachedAnswer, QuestionKey};

/// An answer is popular when it was given so often from here.
const POPULAR: u8 = 2;
/// Octets that an entry costs besides its own: its place in the store's tables, and the traces of entries that left.
const PLACE: usize = 88;

/// An answer or a failure, as it is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) answer: CachedAnswer,
    bits: u8,
    /// In milliseconds on the cache's clock.
    stored: u64,
    /// Seconds; 0 for a failure.
    life: u32,
    /// The most that a TTL in it may be, in seconds.
    pub(super) most: u32,
    /// How often it was given, counted as far as it matters.
    given: AtomicU8,
    renewed: AtomicBool,
    pub(super) trouble: Mutex<Trouble>,
}

impl Entry {
    /// One of a success, which lives so long from `now`.
    pub(super) fn of_success(
        answer: CachedAnswer,
        key: &QuestionKey<'_>,
        Lifetime { life, most }: Lifetime,
        now: u64,
    ) -> Self {
        Self {
            answer,
            bits: key.bits(),
            stored: now,
            life,
            most,
            given: AtomicU8::new(0),
            renewed: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// One of a failure, which is over when its `trouble` is.
    pub(super) fn of_failure(
        answer: CachedAnswer,
        key: &QuestionKey<'_>,
        trouble: Trouble,
        now: u64,
    ) -> Self {
        Self {
            answer,
            bits: key.bits(),
            stored: now,
            life: 0,
            most: 0,
            given: AtomicU8::new(0),
            renewed: AtomicBool::new(false),
            trouble: Mutex::new(trouble),
        }
    }

    /// How long it has been kept, in milliseconds.
    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.stored)
    }

    /// How long it lives, in milliseconds.
    pub(super) fn life(&self) -> u64 {
        u64::from(self.life) * 1000
    }

    /// When it is past its time.
    pub(super) fn end(&self) -> u64 {
        self.stored + self.life()
    }

    /// Whether it is to be renewed at that age, because it is popular and soon past its time. Said once.
    pub(super) fn claim_renewal(&self, age: u64) -> bool {
        let life = self.life();
        let last_tenth = age >= life - life / 10;
        self.is_popular() && last_tenth && !self.renewed.swap(true, Ordering::Relaxed)
    }

    /// Whether it is one of a failure.
    pub(super) fn is_failure(&self) -> bool {
        self.life == 0
    }

    /// Whether it is popular, this time included.
    fn is_popular(&self) -> bool {
        // No write once it is: all threads that give it read this.
        self.given.load(Ordering::Relaxed) >= POPULAR
            || self.given.fetch_add(1, Ordering::Relaxed) + 1 >= POPULAR
    }
}

/// An entry by its question.
pub(super) struct ByKey(pub(super) Arc<Entry>);

impl ByKey {
    fn parts(&self) -> (&[u8], u8) {
        (self.0.answer.question(), self.0.bits)
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for ByKey {}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// A question that is looked for.
pub(super) struct Sought<'k>(pub(super) &'k QuestionKey<'k>);

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.question(), self.0.bits()).hash(state);
    }
}

impl Equivalent<ByKey> for Sought<'_> {
    fn equivalent(&self, entry: &ByKey) -> bool {
        (self.0.question(), self.0.bits()) == entry.parts()
    }
}

/// What an entry costs in octets.
#[derive(Clone)]
pub(super) struct Cost;

impl Weighter<ByKey, Arc<Entry>> for Cost {
    fn weight(&self, _: &ByKey, entry: &Arc<Entry>) -> u64 {
        let counts = 2 * size_of::<usize>();
        let octets = allocated(counts + size_of::<Entry>()) + allocated(entry.answer.size());
        (octets + PLACE) as u64
    }
}

/// What the system's allocator takes for so many octets: a length before them, and units of 16.
fn allocated(octets: usize) -> usize {
    (octets + 8).next_multiple_of(16)
}
