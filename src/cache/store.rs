//! What is known of this question?
//!
//! Memory is bounded in octets, and what is used seldom leaves first. Time is passed in.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::OptionsBuilder;
use quick_cache::sync::DefaultLifecycle;

use crate::cache::backoff::Trouble;
use crate::cache::cacheability::{Unkept, lifetime, may_be_kept};
use crate::cache::entry::{ByKey, Cost, Entry, Sought};
use crate::cache::kept::Kept;
use crate::message::{Answer, KeptAnswer, Key, rcode};
use crate::upstream::Failure;

/// What is past its time and could not be renewed is asked for again no sooner than this (RFC 8767 section 5).
const RECHECK: u64 = 30_000;
/// How many traces of entries that left are kept, for each that is there: who comes back is worth more than a stranger.
const TRACES: f64 = 0.25;
/// Parts of the store, each with a lock and a share of the memory: no answer may be larger than that.
const SHARDS: usize = 16;
/// What an entry of an ordinary answer costs, in octets: an estimate for the size of the store's tables.
const ORDINARY: usize = 320;

/// What this room can be told.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Octets that may be used; 0 keeps nothing.
    pub size: usize,
    /// How long an answer may be served past its time; zero never does.
    pub serve_stale: Duration,
}

/// What is known of a question.
#[derive(Debug)]
pub enum Found {
    /// Nothing that could be served.
    Nothing,
    /// An answer within its time.
    Fresh {
        /// The answer.
        kept: Kept,
        /// It is popular and soon past its time: the caller is to renew it. Said once.
        renew: bool,
    },
    /// It failed lately, and is not to be asked for again yet.
    Failed(Kept),
    /// An answer past its time, for when there is no better one.
    Stale {
        /// The answer.
        kept: Kept,
        /// What to do for a fresh one.
        ask: Ask,
    },
}

/// Whether what is past its time is asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Yes, and the client waits a while for it.
    First,
    /// Yes, but that has failed before: the client does not wait.
    Behind,
    /// No: it failed lately.
    NotYet,
}

type Store = quick_cache::sync::Cache<
    ByKey,
    Arc<Entry>,
    Cost,
    RandomState,
    DefaultLifecycle<ByKey, Arc<Entry>>,
>;

/// The answers that are kept.
pub struct Cache {
    /// None if nothing is to be kept.
    store: Option<Store>,
    /// In milliseconds.
    serve_stale: AtomicU64,
    start: Instant,
    /// When the resolver last answered anything.
    heard: AtomicU64,
    /// Until when any of the answers is within its time; 0 where there was none.
    lasts: AtomicU64,
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
        // Rounded down, so that the shards' shares make no more than the whole.
        let capacity = (settings.size & !0xfff) as u64;
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .ghost_allocation(TRACES)
            .estimated_items_capacity(settings.size / ORDINARY)
            .weight_capacity(capacity)
            .build()
            .ok()
            .filter(|_| capacity > 0);
        Self {
            store: options.map(|options| {
                Store::with_options(
                    options,
                    Cost,
                    RandomState::new(),
                    DefaultLifecycle::default(),
                )
            }),
            serve_stale: AtomicU64::new(millis(settings.serve_stale)),
            start: now,
            heard: AtomicU64::new(0),
            lasts: AtomicU64::new(0),
            writes: Mutex::new(()),
        }
    }

    /// How many answers and failures are kept.
    pub fn entries(&self) -> usize {
        self.store.as_ref().map_or(0, Store::len)
    }

    /// Whether there may be an answer to serve, within its time or past it.
    pub fn can_serve(&self, now: Instant) -> bool {
        let lasts = self.lasts.load(Ordering::Relaxed);
        self.entries() > 0 && lasts > 0 && self.time(now) < self.end(lasts)
    }

    /// How many octets they cost.
    pub fn octets(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::weight)
    }

    /// How long an answer may be served past its time, from now on.
    pub fn serve_stale(&self, time: Duration) {
        self.serve_stale.store(millis(time), Ordering::Relaxed);
    }

    /// Until when an answer may be served that is past its time then; or until which age.
    fn end(&self, life: u64) -> u64 {
        life + self.serve_stale.load(Ordering::Relaxed)
    }

    /// Forgets everything; returns how many entries there were.
    pub fn empty(&self) -> usize {
        let entries = self.entries();
        self.lasts.store(0, Ordering::Relaxed);
        if let Some(store) = &self.store {
            store.clear();
        }
        entries
    }

    /// Forgets what is known of the question of `key`.
    pub fn remove(&self, key: &Key<'_>) {
        if let Some(store) = &self.store {
            store.remove(&Sought(key));
        }
    }

    /// What is known of the question of `key`.
    pub fn find(&self, key: &Key<'_>, now: Instant) -> Found {
        let Some(entry) = self.get(key) else {
            return Found::Nothing;
        };
        let now = self.time(now);
        let (age, life) = (entry.age(now), entry.life());
        if age < life {
            let renew = entry.claim_renewal(age);
            let kept = Kept::fresh(entry, age);
            return Found::Fresh { kept, renew };
        }
        let heard = self.heard.load(Ordering::Relaxed);
        let ask = match &*entry.trouble.lock() {
            trouble if trouble.lasts(now, heard) => Ask::NotYet,
            trouble if trouble.is_over(heard) => Ask::First,
            _ => Ask::Behind,
        };
        if !entry.is_failure() && age < self.end(life) {
            let kept = Kept::stale(entry);
            Found::Stale { kept, ask }
        } else if entry.is_failure() && ask == Ask::NotYet {
            Found::Failed(Kept::failed(entry))
        } else {
            Found::Nothing
        }
    }

    /// Takes note that the resolver answered somebody.
    pub fn hear(&self, now: Instant) {
        self.heard.store(self.time(now), Ordering::Relaxed);
    }

    /// An answer to the question of `key`, within its time or past it.
    pub fn any(&self, key: &Key<'_>, now: Instant) -> Option<Kept> {
        self.servable(self.get(key)?, self.time(now))
    }

    /// Takes note of how a query for `key` ended that began at `began`. Returns the answer that is to be served in place of
    /// that ending, if it is a failure and there is one.
    pub fn note(
        &self,
        key: &Key<'_>,
        ending: Result<&Answer<'_>, Failure>,
        began: Instant,
        now: Instant,
    ) -> Option<Kept> {
        let store = self.store.as_ref()?;
        let (began, now) = (self.time(began), self.time(now));
        let silence = self.heard.load(Ordering::Relaxed) <= began;
        // No failure may take the place of an answer that comes at the same time.
        let _alone = self.writes.lock();
        if ending.is_ok_and(Answer::is_verdict)
            && store
                .get(&Sought(key))
                .is_some_and(|entry| !entry.is_failure())
        {
            // What was kept is not what the resolver would say of the name now: it does not cover that.
            store.remove(&Sought(key));
        }
        match ending {
            Ok(answer) => match answer.rcode() {
                rcode::NOERROR | rcode::NXDOMAIN => {
                    self.replace(store, key, answer, now);
                    None
                }
                rcode::SERVFAIL => {
                    let whole = may_be_kept(answer)
                        .and_then(|()| KeptAnswer::new(answer, key).ok_or(Unkept::Other));
                    let failure = whole.ok().or_else(|| KeptAnswer::servfail(key));
                    self.fail(store, key, failure, false, now)
                }
                // It is the resolver's word on this one query, not to be repeated.
                _ => self.refuse(store, key, now),
            },
            Err(Failure::MalformedResponse) => {
                self.fail(store, key, KeptAnswer::servfail(key), false, now)
            }
            // It is this name's fault only if others were answered meanwhile.
            Err(Failure::TimedOut | Failure::ConnectionLost) => {
                self.fail(store, key, KeptAnswer::servfail(key), silence, now)
            }
            // It was not asked, or may not be asked again: no name's fault.
            Err(Failure::Unreachable | Failure::Unauthenticated | Failure::Overloaded) => {
                self.fail(store, key, None, true, now)
            }
        }
    }

    /// Takes note that the resolver failed at `key` as it does at others: that says nothing of the name, and is over once it
    /// answers one. Returns the answer that is to be served in place of that, if there is one.
    pub fn note_outage(
        &self,
        key: &Key<'_>,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> Option<Kept> {
        let store = self.store.as_ref()?;
        let now = self.time(now);
        let _alone = self.writes.lock();
        let whole = ending.ok().filter(|answer| may_be_kept(answer).is_ok());
        let failure = whole.and_then(|answer| KeptAnswer::new(answer, key));
        let failure = failure.or_else(|| KeptAnswer::servfail(key));
        self.fail(store, key, failure, true, now)
    }

    /// A fresh answer takes the place of whatever was there, even if it may not be kept itself.
    fn replace(&self, store: &Store, key: &Key<'_>, answer: &Answer<'_>, now: u64) {
        let kept = lifetime(answer, key)
            .and_then(|times| Ok((KeptAnswer::new(answer, key).ok_or(Unkept::Other)?, times)));
        match kept {
            Ok((answer, lifetime)) => {
                self.insert(store, Entry::of_success(answer, key, lifetime, now));
            }
            Err(_) => drop(store.remove(&Sought(key))),
        }
    }

    /// Notes that it could not be had. Returns what there is in its place. `failure` is kept if there is nothing.
    fn fail(
        &self,
        store: &Store,
        key: &Key<'_>,
        failure: Option<KeptAnswer>,
        outage: bool,
        now: u64,
    ) -> Option<Kept> {
        if let Some(entry) = store.get(&Sought(key)) {
            if let Some(kept) = self.servable(Arc::clone(&entry), now) {
                entry.trouble.lock().grow(outage, RECHECK, now);
                return Some(kept);
            }
            if entry.is_failure() {
                if failure.is_some() {
                    entry.trouble.lock().grow(outage, 0, now);
                }
                return None;
            }
        }
        let mut trouble = Trouble::default();
        trouble.grow(outage, 0, now);
        self.insert(store, Entry::of_failure(failure?, key, trouble, now));
        None
    }

    /// Notes that the resolver would not answer, which is not kept but ends a failure.
    fn refuse(&self, store: &Store, key: &Key<'_>, now: u64) -> Option<Kept> {
        let instead = self.fail(store, key, None, false, now);
        if instead.is_none() {
            store.remove(&Sought(key));
        }
        instead
    }

    fn servable(&self, entry: Arc<Entry>, now: u64) -> Option<Kept> {
        let (age, life) = (entry.age(now), entry.life());
        if age < life {
            Some(Kept::fresh(entry, age))
        } else if age < self.end(life) && !entry.is_failure() {
            Some(Kept::stale(entry))
        } else {
            None
        }
    }

    fn get(&self, key: &Key<'_>) -> Option<Arc<Entry>> {
        self.store.as_ref()?.get(&Sought(key))
    }

    fn insert(&self, store: &Store, entry: Entry) {
        if !entry.is_failure() {
            self.lasts.fetch_max(entry.end(), Ordering::Relaxed);
        }
        let entry = Arc::new(entry);
        store.insert(ByKey(Arc::clone(&entry)), entry);
    }

    /// Milliseconds since the start.
    fn time(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.start))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
