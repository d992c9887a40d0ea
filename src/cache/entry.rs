//! How is an answer stored, by which key is it found, and what does it cost?

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;
use quick_cache::{Equivalent, Weighter};

use crate::cache::backoff::Backoff;
use crate::cache::cacheability::Lifetime;
use crate::message::{CachedAnswer, QuestionKey, question_name};

/// An answer is popular, and worth a prefetch, once it was served this often from the cache.
const PREFETCH_MIN_HITS: u8 = 2;
/// Octets that an entry costs in the store's tables, with its share of the ghost entries.
const ENTRY_OVERHEAD: usize = 88;

/// An answer or a failure in the cache.
///
/// Shared by all threads. The lock guards `backoff` alone, and no other lock is taken under it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) answer: CachedAnswer,
    /// The bits of its key: DO and CD.
    bits: u8,
    /// When it was stored, in milliseconds on the cache's clock.
    stored_at: u64,
    /// TTL of the whole answer in seconds; 0 for a failure.
    ttl: u32,
    /// The cap on the TTL of each of its records, in seconds.
    pub(super) max_record_ttl: u32,
    /// How often it was served, counted up to [`PREFETCH_MIN_HITS`] or little more.
    hits: AtomicU8,
    /// This is a refusal: a failure by a rule of this forwarder.
    is_refusal: bool,
    /// A prefetch was started for it.
    prefetched: AtomicBool,
    /// Failed attempts to refresh it; of a failure, when the question may be asked again.
    pub(super) backoff: Mutex<Backoff>,
}

impl Entry {
    /// The entry of an answer that was received at `now`.
    pub(super) fn of_success(
        answer: CachedAnswer,
        key: &QuestionKey<'_>,
        Lifetime {
            ttl,
            max_record_ttl,
        }: Lifetime,
        now: u64,
    ) -> Self {
        Self {
            answer,
            bits: key.bits(),
            stored_at: now,
            ttl,
            max_record_ttl,
            hits: AtomicU8::new(0),
            is_refusal: false,
            prefetched: AtomicBool::new(false),
            backoff: Mutex::default(),
        }
    }

    /// The entry of a failure, which counts as long as its `backoff` is active.
    pub(super) fn of_failure(
        answer: CachedAnswer,
        key: &QuestionKey<'_>,
        backoff: Backoff,
        now: u64,
    ) -> Self {
        let no_lifetime = Lifetime {
            ttl: 0,
            max_record_ttl: 0,
        };
        Self {
            backoff: Mutex::new(backoff),
            ..Self::of_success(answer, key, no_lifetime, now)
        }
    }

    /// The entry of a refusal, which counts as long as its `backoff` is active.
    pub(super) fn of_refusal(
        answer: CachedAnswer,
        key: &QuestionKey<'_>,
        backoff: Backoff,
        now: u64,
    ) -> Self {
        Self {
            is_refusal: true,
            ..Self::of_failure(answer, key, backoff, now)
        }
    }

    /// Its age in milliseconds.
    pub(super) fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.stored_at)
    }

    /// Its TTL in milliseconds.
    pub(super) fn ttl_ms(&self) -> u64 {
        u64::from(self.ttl) * 1000
    }

    /// When it expires, in milliseconds on the cache's clock.
    pub(super) fn expires_at(&self) -> u64 {
        self.stored_at + self.ttl_ms()
    }

    /// Whether the caller should prefetch it at this age, in milliseconds, since it is popular and expires soon. True once for an entry.
    pub(super) fn claim_prefetch(&self, age: u64) -> bool {
        let ttl_ms = self.ttl_ms();
        let last_tenth = age >= ttl_ms - ttl_ms / 10;
        self.is_popular() && last_tenth && !self.prefetched.swap(true, Ordering::Relaxed)
    }

    /// Whether this is the entry of a failure.
    pub(super) fn is_failure(&self) -> bool {
        self.ttl == 0
    }

    /// Whether this is the entry of a refusal, which is a failure, too.
    pub(super) fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Counts one more hit, and returns whether the answer is popular.
    fn is_popular(&self) -> bool {
        // A popular entry is not written to: all threads that serve it read this counter.
        self.hits.load(Ordering::Relaxed) >= PREFETCH_MIN_HITS
            || self.hits.fetch_add(1, Ordering::Relaxed) + 1 >= PREFETCH_MIN_HITS
    }
}

/// The key of a stored entry: its question and bits.
pub(super) struct StoredKey(pub(super) Arc<Entry>);

impl StoredKey {
    /// The name of the question.
    pub(super) fn name(&self) -> &[u8] {
        question_name(self.0.answer.question())
    }

    fn parts(&self) -> (&[u8], u8) {
        (self.0.answer.question(), self.0.bits)
    }
}

impl PartialEq for StoredKey {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for StoredKey {}

impl Hash for StoredKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// The key of a lookup, which borrows its question.
pub(super) struct LookupKey<'k>(pub(super) &'k QuestionKey<'k>);

impl Hash for LookupKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.question(), self.0.bits()).hash(state);
    }
}

impl Equivalent<StoredKey> for LookupKey<'_> {
    fn equivalent(&self, entry: &StoredKey) -> bool {
        (self.0.question(), self.0.bits()) == entry.parts()
    }
}

/// Weighs entries by the octets that they cost.
#[derive(Clone)]
pub(super) struct EntryWeighter;

impl Weighter<StoredKey, Arc<Entry>> for EntryWeighter {
    fn weight(&self, _: &StoredKey, entry: &Arc<Entry>) -> u64 {
        let arc_counts = 2 * size_of::<usize>();
        let octets =
            allocation_size(arc_counts + size_of::<Entry>()) + allocation_size(entry.answer.size());
        (octets + ENTRY_OVERHEAD) as u64
    }
}

/// Octets that the system's allocator takes for an allocation: 8 for the length before it, rounded up to 16.
fn allocation_size(octets: usize) -> usize {
    (octets + 8).next_multiple_of(16)
}
