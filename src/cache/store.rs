//! What does the cache know of this question?
//!
//! Memory is bounded in octets, and answers that are rarely used are evicted first. Time is passed in.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::OptionsBuilder;
use quick_cache::sync::DefaultLifecycle;

use crate::cache::backoff::Backoff;
use crate::cache::cache_hit::CacheHit;
use crate::cache::cacheability::{NotCacheable, check_cacheable, lifetime};
use crate::cache::entry::{Entry, EntryWeighter, LookupKey, StoredKey};
use crate::message::{Answer, CachedAnswer, QuestionKey, ZoneMap, rcode};
use crate::upstream::Failure;

/// An expired answer that could not be refreshed is not asked for again for this long, in milliseconds: the failure recheck timer of
/// RFC 8767 section 5.
const FAILURE_RECHECK_MS: u64 = 30_000;
/// Ghost entries per entry: keys that were evicted lately. A key that returns soon after its eviction is admitted at once.
const GHOST_RATIO: f64 = 0.25;
/// Shards of the store, each with a lock and an equal part of the memory. No answer may be larger than that part.
const SHARDS: usize = 16;
/// Octets that the entry of a typical answer costs: an estimate for the size of the store's tables.
const TYPICAL_ENTRY_OCTETS: usize = 320;

/// Responders, at most.
const RESPONDERS: usize = 32;

/// Who is asked for a name: the main resolvers, or the servers of a route. An outage of one says nothing about the names of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Responder(u8);

impl Responder {
    /// The main resolvers.
    pub const MAIN: Self = Self(0);

    /// The servers of the route with this number, from 0.
    pub fn of_route(number: usize) -> Self {
        let number = number.saturating_add(1).min(RESPONDERS - 1);
        Self(number as u8)
    }

    /// All there may be.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..RESPONDERS as u8).map(Self)
    }
}

/// Settings of the cache.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Octets that the cache may use. With 0 nothing is cached.
    pub size: usize,
    /// How long an answer may be served after it has expired. With zero it never is.
    pub serve_stale: Duration,
}

/// The result of a lookup.
#[derive(Debug)]
pub enum Lookup {
    /// Nothing that may be served.
    Miss,
    /// An answer that has not expired.
    Fresh {
        /// The answer.
        hit: CacheHit,
        /// The caller should prefetch the answer, which is popular and expires soon. True once for an answer.
        prefetch: bool,
    },
    /// A failure: the question may not be asked again yet (RFC 9520).
    Failure(CacheHit),
    /// An expired answer, to be served if there is no better one (RFC 8767).
    Stale {
        /// The answer.
        hit: CacheHit,
        /// When to ask for a fresh one.
        refresh: Refresh,
    },
}

impl Lookup {
    /// What may be served, and when the question is asked anew, if it is.
    pub fn into_parts(self) -> (Option<CacheHit>, Option<Refresh>) {
        match self {
            Self::Miss => (None, Some(Refresh::BeforeReply)),
            Self::Fresh { hit, prefetch } => (Some(hit), prefetch.then_some(Refresh::AfterReply)),
            Self::Failure(hit) => (Some(hit), None),
            Self::Stale { hit, refresh } => (Some(hit), Some(refresh)),
        }
    }
}

/// When to ask for a fresh answer in place of an expired one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Now. The client waits a while for the fresh answer.
    BeforeReply,
    /// Now, but the client does not wait, since the last refresh failed.
    AfterReply,
    /// Later: the last refresh failed a moment ago.
    BackingOff,
}

type Store = quick_cache::sync::Cache<
    StoredKey,
    Arc<Entry>,
    EntryWeighter,
    RandomState,
    DefaultLifecycle<StoredKey, Arc<Entry>>,
>;

/// The cache of answers and failures.
///
/// Shared by all threads. Lookups take only the store's own shard locks and the lock of one entry's backoff. `writes` is held while a
/// result is recorded, and taken before those; a shard's lock and an entry's are not held together.
pub struct Cache {
    /// None if nothing is cached.
    store: Option<Store>,
    /// How long an answer may be served after it has expired, in milliseconds.
    serve_stale: AtomicU64,
    start: Instant,
    /// When each responder last responded to any query, in milliseconds since the start.
    last_responses: [AtomicU64; RESPONDERS],
    /// When the last of the answers expires, in milliseconds since the start; 0 if there was none.
    latest_expiry: AtomicU64,
    /// Guards no data: it makes one step of the look at an entry and its replacement.
    writes: Mutex<()>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries())
            .field("octets", &self.octets())
            .finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache, whose clock starts now.
    pub fn new(settings: Settings, now: Instant) -> Self {
        // Rounded down, so that the shards' parts add up to no more than the whole.
        let capacity = (settings.size & !0xfff) as u64;
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .ghost_allocation(GHOST_RATIO)
            .estimated_items_capacity(settings.size / TYPICAL_ENTRY_OCTETS)
            .weight_capacity(capacity)
            .build()
            .ok()
            .filter(|_| capacity > 0);
        Self {
            store: options.map(|options| {
                Store::with_options(
                    options,
                    EntryWeighter,
                    RandomState::new(),
                    DefaultLifecycle::default(),
                )
            }),
            serve_stale: AtomicU64::new(millis(settings.serve_stale)),
            start: now,
            last_responses: Default::default(),
            latest_expiry: AtomicU64::new(0),
            writes: Mutex::new(()),
        }
    }

    /// The number of answers and failures in the cache.
    pub fn entries(&self) -> usize {
        self.store.as_ref().map_or(0, Store::len)
    }

    /// Whether there may be an answer to serve, fresh or expired.
    pub fn can_serve(&self, now: Instant) -> bool {
        let latest = self.latest_expiry.load(Ordering::Relaxed);
        self.entries() > 0 && latest > 0 && self.since_start(now) < self.stale_until(latest)
    }

    /// Octets that the entries cost.
    pub fn octets(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::weight)
    }

    /// Sets how long an answer may be served after it has expired.
    pub fn set_serve_stale(&self, time: Duration) {
        self.serve_stale.store(millis(time), Ordering::Relaxed);
    }

    /// When an answer that expires at `expiry` may no longer be served stale; the same for ages. In milliseconds.
    fn stale_until(&self, expiry: u64) -> u64 {
        expiry + self.serve_stale.load(Ordering::Relaxed)
    }

    /// Removes the entries of all names in these zones, and returns their number.
    pub fn remove_zones(&self, zones: &ZoneMap<()>) -> usize {
        let Some(store) = &self.store else { return 0 };
        let removed = AtomicUsize::new(0);
        store.retain(|key, _| {
            let stays = zones.find(key.name()).is_none();
            removed.fetch_add(usize::from(!stays), Ordering::Relaxed);
            stays
        });
        if self.entries() == 0 {
            self.latest_expiry.store(0, Ordering::Relaxed);
        }
        removed.into_inner()
    }

    /// Removes the entry of `key`.
    pub fn remove(&self, key: &QuestionKey<'_>) {
        if let Some(store) = &self.store {
            store.remove(&LookupKey(key));
        }
    }

    /// Looks up the question of `key`. Unless there is a fresh answer, `find_responder` says who is asked.
    pub fn lookup(
        &self,
        key: &QuestionKey<'_>,
        find_responder: impl FnOnce() -> Responder,
        now: Instant,
    ) -> Lookup {
        let Some(entry) = self.get(key) else {
            return Lookup::Miss;
        };
        let now = self.since_start(now);
        let (age, ttl) = (entry.age(now), entry.ttl_ms());
        if age < ttl {
            let prefetch = entry.claim_prefetch(age);
            let hit = CacheHit::fresh(entry, age);
            return Lookup::Fresh { hit, prefetch };
        }
        let last_response = self.last_response(find_responder());
        let refresh = match &*entry.backoff.lock() {
            backoff if backoff.is_active(now, last_response) => Refresh::BackingOff,
            backoff if backoff.is_cleared(last_response) => Refresh::BeforeReply,
            _ => Refresh::AfterReply,
        };
        if !entry.is_failure() && age < self.stale_until(ttl) {
            let hit = CacheHit::stale(entry);
            Lookup::Stale { hit, refresh }
        } else if entry.is_failure() && refresh == Refresh::BackingOff {
            Lookup::Failure(CacheHit::failed(entry))
        } else {
            Lookup::Miss
        }
    }

    /// Notes that `responder` responded to some query, which ends its outage.
    pub fn note_response(&self, responder: Responder, now: Instant) {
        if let Some(last_response) = self.last_responses.get(usize::from(responder.0)) {
            last_response.store(self.since_start(now), Ordering::Relaxed);
        }
    }

    fn last_response(&self, responder: Responder) -> u64 {
        let last_response = self.last_responses.get(usize::from(responder.0));
        last_response.map_or(0, |last_response| last_response.load(Ordering::Relaxed))
    }

    /// The answer to the question of `key` that may be served, fresh or expired.
    pub fn servable(&self, key: &QuestionKey<'_>, now: Instant) -> Option<CacheHit> {
        self.servable_entry(self.get(key)?, self.since_start(now))
    }

    /// Records the result of a query for `key` to `responder` that began at `began`. If it is a failure, returns the cached answer to serve in its
    /// place, if there is one.
    pub fn record_result(
        &self,
        key: &QuestionKey<'_>,
        responder: Responder,
        result: Result<&Answer<'_>, Failure>,
        began: Instant,
        now: Instant,
    ) -> Option<CacheHit> {
        let store = self.store.as_ref()?;
        let (began, now) = (self.since_start(began), self.since_start(now));
        let no_response_since = self.last_response(responder) <= began;
        // No failure may replace an answer that comes at the same time.
        let _writing = self.writes.lock();
        if result.is_ok_and(Answer::is_conclusive_error)
            && store
                .get(&LookupKey(key))
                .is_some_and(|entry| !entry.is_failure())
        {
            // The resolver decided about the name: it is blocked, or its signatures are bogus. A cached answer must not hide that.
            store.remove(&LookupKey(key));
        }
        match result {
            Ok(answer) => match answer.rcode() {
                rcode::NOERROR | rcode::NXDOMAIN => {
                    self.replace(store, key, answer, now);
                    None
                }
                rcode::SERVFAIL => {
                    let whole = check_cacheable(answer).and_then(|()| {
                        CachedAnswer::new(answer, key).ok_or(NotCacheable::QuestionMismatch)
                    });
                    let failure = whole.ok().or_else(|| CachedAnswer::servfail(key));
                    self.record_failure(store, key, failure, false, now)
                }
                // REFUSED and the like concern this query only and are not cached.
                _ => self.record_other_rcode(store, key, now),
            },
            Err(Failure::MalformedResponse) => {
                self.record_failure(store, key, CachedAnswer::servfail(key), false, now)
            }
            // The name is at fault only if the resolver responded to other queries meanwhile.
            Err(Failure::TimedOut | Failure::ConnectionLost) => self.record_failure(
                store,
                key,
                CachedAnswer::servfail(key),
                no_response_since,
                now,
            ),
            // The query was not sent, or may not be sent again: no name is at fault.
            Err(Failure::Unreachable | Failure::Unauthenticated | Failure::Overloaded) => {
                self.record_failure(store, key, None, true, now)
            }
        }
    }

    /// Records that the resolver failed at `key` as it does at other names. That says nothing about the name, and is over once the
    /// resolver responds to any query. Returns the cached answer to serve in place of the failure, if there is one.
    pub fn record_outage(
        &self,
        key: &QuestionKey<'_>,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> Option<CacheHit> {
        let store = self.store.as_ref()?;
        let now = self.since_start(now);
        let _writing = self.writes.lock();
        let whole = result.ok().filter(|answer| check_cacheable(answer).is_ok());
        let failure = whole.and_then(|answer| CachedAnswer::new(answer, key));
        let failure = failure.or_else(|| CachedAnswer::servfail(key));
        self.record_failure(store, key, failure, true, now)
    }

    /// Records that the answer to `key` was refused by a rule of this forwarder. That is a decision about the name: no cached answer may hide
    /// it. Equal questions are refused for as long as after a failure.
    pub(crate) fn record_refusal(&self, key: &QuestionKey<'_>, now: Instant) {
        let Some(store) = &self.store else { return };
        let now = self.since_start(now);
        let _writing = self.writes.lock();
        if let Some(entry) = store.get(&LookupKey(key))
            && entry.is_refusal()
        {
            return entry.backoff.lock().record_failure(false, 0, now);
        }
        let mut backoff = Backoff::default();
        backoff.record_failure(false, 0, now);
        match CachedAnswer::refused(key) {
            Some(refusal) => self.insert(store, Entry::of_refusal(refusal, key, backoff, now)),
            None => drop(store.remove(&LookupKey(key))),
        }
    }

    /// Replaces the entry of `key` by a fresh answer, or removes it if the answer is not cacheable.
    fn replace(&self, store: &Store, key: &QuestionKey<'_>, answer: &Answer<'_>, now: u64) {
        let cacheable = lifetime(answer, key).and_then(|lifetime| {
            let answer = CachedAnswer::new(answer, key).ok_or(NotCacheable::QuestionMismatch)?;
            Ok((answer, lifetime))
        });
        match cacheable {
            Ok((answer, lifetime)) => {
                self.insert(store, Entry::of_success(answer, key, lifetime, now));
            }
            Err(_) => drop(store.remove(&LookupKey(key))),
        }
    }

    /// Records a failure at `key`. Returns the answer to serve in its place, if there is one. Otherwise `failure` is cached.
    fn record_failure(
        &self,
        store: &Store,
        key: &QuestionKey<'_>,
        failure: Option<CachedAnswer>,
        outage: bool,
        now: u64,
    ) -> Option<CacheHit> {
        if let Some(entry) = store.get(&LookupKey(key)) {
            if let Some(hit) = self.servable_entry(Arc::clone(&entry), now) {
                entry
                    .backoff
                    .lock()
                    .record_failure(outage, FAILURE_RECHECK_MS, now);
                return Some(hit);
            }
            // A failure that is to be cached replaces a refusal, whose time is over.
            if entry.is_failure() && !(entry.is_refusal() && failure.is_some()) {
                if failure.is_some() {
                    entry.backoff.lock().record_failure(outage, 0, now);
                }
                return None;
            }
        }
        let mut backoff = Backoff::default();
        backoff.record_failure(outage, 0, now);
        self.insert(store, Entry::of_failure(failure?, key, backoff, now));
        None
    }

    /// Records a response code that is not cached: it ends a cached failure, and an answer that may be served is served in its place.
    fn record_other_rcode(
        &self,
        store: &Store,
        key: &QuestionKey<'_>,
        now: u64,
    ) -> Option<CacheHit> {
        let hit = self.record_failure(store, key, None, false, now);
        if hit.is_none() {
            store.remove(&LookupKey(key));
        }
        hit
    }

    fn servable_entry(&self, entry: Arc<Entry>, now: u64) -> Option<CacheHit> {
        let (age, ttl) = (entry.age(now), entry.ttl_ms());
        if age < ttl {
            Some(CacheHit::fresh(entry, age))
        } else if age < self.stale_until(ttl) && !entry.is_failure() {
            Some(CacheHit::stale(entry))
        } else {
            None
        }
    }

    fn get(&self, key: &QuestionKey<'_>) -> Option<Arc<Entry>> {
        self.store.as_ref()?.get(&LookupKey(key))
    }

    fn insert(&self, store: &Store, entry: Entry) {
        if !entry.is_failure() {
            self.latest_expiry
                .fetch_max(entry.expires_at(), Ordering::Relaxed);
        }
        let entry = Arc::new(entry);
        store.insert(StoredKey(Arc::clone(&entry)), entry);
    }

    /// `now` on the cache's clock: milliseconds since the start.
    fn since_start(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
