//! Do we know it already?
//!
//! Whole answers, each kept for the question that it answers and for no other: its name, type and class, and the bits DO
//! and CD. An answer is kept for as long as the least TTL in it says, and shown with what is left of its TTLs. Past its
//! time it stays for a while, to be served in place of a failure (RFC 8767). Failures are kept too, for seconds, so that a
//! name that cannot be resolved is not asked for again and again (RFC 9520).
//!
//! Memory is bounded in octets, and what is used seldom leaves first. Time is passed in.

use std::fmt;
use std::hash::{Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{Equivalent, OptionsBuilder, Weighter};

use crate::message::{
    Answer, ExtendedError, KeptAnswer, Key, Section, Shown, Ttls, ede, rcode, rtype,
};
use crate::upstream::Failure;

/// The longest that an answer is kept, in seconds: 7 days (RFC 8767 section 4).
const MOST: u32 = 604_800;
/// The longest that the absence of a name or of its records is believed, in seconds: 3 hours (RFC 2308 section 5).
const MOST_NEGATIVE: u32 = 10_800;
/// The TTL of what is served past its time, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;
/// What is past its time and could not be renewed is asked for again no sooner than this (RFC 8767 section 5).
const RECHECK: u64 = 30_000;
/// How long a failure is kept in milliseconds, at first and at most (RFC 9520 section 3.2).
const FAILURE: (u64, u64) = (1000, 300_000);
/// An answer is popular when it was given so often from here.
const POPULAR: u8 = 2;
/// How many traces of entries that left are kept, for each that is there: who comes back is worth more than a stranger.
const TRACES: f64 = 0.25;
/// Octets that an entry costs besides its own: its place in the store's tables, and the traces of entries that left.
const PLACE: usize = 88;
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

/// An answer that was kept, and how it is to be shown now.
#[derive(Debug)]
pub struct Kept {
    entry: Arc<Entry>,
    shown: Shown,
}

impl Kept {
    /// The answer.
    pub fn answer(&self) -> Answer<'_> {
        self.entry.answer.answer()
    }

    /// How it is to be shown.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Whether it is a failure.
    pub fn is_failure(&self) -> bool {
        self.entry.is_failure()
    }

    /// Whether it is past its time.
    pub fn is_stale(&self) -> bool {
        matches!(self.shown.ttls, Ttls::Passed(_))
    }
}

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unkept {
    /// Records are missing from it.
    Truncated,
    /// It is for a part of the network.
    Scoped,
    /// It is signed for one asker.
    Signed,
    /// It has DNSSEC records that were not asked for (RFC 4035 section 3.2.1), and would show them to everybody.
    Unasked,
    /// It says that there is nothing, and not for how long (RFC 2308 section 5).
    Endless,
    /// It is to be used once.
    Momentary,
    /// It is none to this question.
    Other,
}

#[derive(Debug)]
struct Entry {
    answer: KeptAnswer,
    bits: u8,
    /// In milliseconds on the cache's clock.
    stored: u64,
    /// Seconds; 0 for a failure.
    life: u32,
    /// The most that a TTL in it may be, in seconds.
    most: u32,
    /// How often it was given, counted as far as it matters.
    given: AtomicU8,
    renewed: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// How asking for it went wrong since it was stored.
#[derive(Debug, Default)]
struct Trouble {
    /// How often in a row.
    times: u32,
    since: u64,
    /// It is not asked for again before.
    until: u64,
    /// The resolver answered nobody: once it answers, this is over.
    outage: bool,
}

impl Trouble {
    /// Notes one more failure at `now`, and holds back for `least` milliseconds or more.
    fn grow(&mut self, outage: bool, least: u64, now: u64) {
        if now > self.until + FAILURE.1 {
            self.times = 0;
        }
        self.since = now;
        self.outage = outage;
        let pause = if outage {
            FAILURE.0
        } else {
            self.times += 1;
            let doublings = self.times.saturating_sub(1).min(16);
            (FAILURE.0 << doublings).min(FAILURE.1)
        };
        self.until = now + pause.max(least);
    }

    /// Whether it may still be as bad as it was.
    fn is_over(&self, heard: u64) -> bool {
        self.until == 0 || self.outage && heard > self.since
    }

    /// Whether it is not to be asked for again yet.
    fn lasts(&self, now: u64, heard: u64) -> bool {
        now < self.until && !self.is_over(heard)
    }
}

impl Entry {
    fn is_failure(&self) -> bool {
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
struct ByKey(Arc<Entry>);

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
struct Sought<'k>(&'k Key<'k>);

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
struct Cost;

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
        let (age, life) = (now.saturating_sub(entry.stored), life(&entry));
        if age < life {
            let last_tenth = age >= life - life / 10;
            let renew =
                entry.is_popular() && last_tenth && !entry.renewed.swap(true, Ordering::Relaxed);
            return Found::Fresh {
                kept: fresh(entry, age),
                renew,
            };
        }
        let heard = self.heard.load(Ordering::Relaxed);
        let ask = match &*entry.trouble.lock() {
            trouble if trouble.lasts(now, heard) => Ask::NotYet,
            trouble if trouble.is_over(heard) => Ask::First,
            _ => Ask::Behind,
        };
        if !entry.is_failure() && age < self.end(life) {
            let kept = stale(entry);
            Found::Stale { kept, ask }
        } else if entry.is_failure() && ask == Ask::NotYet {
            Found::Failed(failed(entry))
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
            Err(Failure::Unreadable) => {
                self.fail(store, key, KeptAnswer::servfail(key), false, now)
            }
            // It is this name's fault only if others were answered meanwhile.
            Err(Failure::TimedOut | Failure::Broken) => {
                self.fail(store, key, KeptAnswer::servfail(key), silence, now)
            }
            // It was not asked, or may not be asked again: no name's fault.
            Err(Failure::Unreachable | Failure::Unproved | Failure::Overloaded) => {
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
            Ok((answer, Lifetime { life, most })) => self.insert(
                store,
                Entry {
                    answer,
                    bits: key.bits(),
                    stored: now,
                    life,
                    most,
                    given: AtomicU8::new(0),
                    renewed: AtomicBool::new(false),
                    trouble: Mutex::default(),
                },
            ),
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
        self.insert(
            store,
            Entry {
                answer: failure?,
                bits: key.bits(),
                stored: now,
                life: 0,
                most: 0,
                given: AtomicU8::new(0),
                renewed: AtomicBool::new(false),
                trouble: Mutex::new(trouble),
            },
        );
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
        let (age, life) = (now.saturating_sub(entry.stored), life(&entry));
        if age < life {
            Some(fresh(entry, age))
        } else if age < self.end(life) && !entry.is_failure() {
            Some(stale(entry))
        } else {
            None
        }
    }

    fn get(&self, key: &Key<'_>) -> Option<Arc<Entry>> {
        self.store.as_ref()?.get(&Sought(key))
    }

    fn insert(&self, store: &Store, entry: Entry) {
        if !entry.is_failure() {
            let lasts = entry.stored + life(&entry);
            self.lasts.fetch_max(lasts, Ordering::Relaxed);
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

/// An entry's life in milliseconds.
fn life(entry: &Entry) -> u64 {
    u64::from(entry.life) * 1000
}

fn fresh(entry: Arc<Entry>, age: u64) -> Kept {
    let ttls = Ttls::Counted {
        most: entry.most,
        age: u32::try_from(age / 1000).unwrap_or(u32::MAX),
    };
    let shown = Shown { ttls, ede: None };
    Kept { entry, shown }
}

fn stale(entry: Arc<Entry>) -> Kept {
    let code = match entry.answer.answer().rcode() {
        rcode::NXDOMAIN => ede::STALE_NXDOMAIN,
        _ => ede::STALE_ANSWER,
    };
    let shown = Shown {
        ttls: Ttls::Passed(STALE_TTL),
        ede: Some(ExtendedError { code, text: "" }),
    };
    Kept { entry, shown }
}

fn failed(entry: Arc<Entry>) -> Kept {
    let ede = ExtendedError {
        code: ede::CACHED_ERROR,
        text: "",
    };
    let shown = Shown {
        ttls: Ttls::Same,
        ede: Some(ede),
    };
    Kept { entry, shown }
}

/// How long an answer may be kept.
#[derive(Debug, PartialEq, Eq)]
struct Lifetime {
    /// Seconds, at least 1.
    life: u32,
    /// The most that each of its TTLs may be, in seconds.
    most: u32,
}

/// Whether an answer may be given to another asker, whatever it says.
fn may_be_kept(answer: &Answer<'_>) -> Result<(), Unkept> {
    if answer.is_truncated() {
        Err(Unkept::Truncated)
    } else if answer.is_scoped() {
        Err(Unkept::Scoped)
    } else if answer.is_signed() {
        Err(Unkept::Signed)
    } else {
        Ok(())
    }
}

/// How long an answer to `key` with the code NOERROR or NXDOMAIN may be kept.
fn lifetime(answer: &Answer<'_>, key: &Key<'_>) -> Result<Lifetime, Unkept> {
    may_be_kept(answer)?;
    let qtype = answer.qtype().ok_or(Unkept::Other)?;
    let asked_for = |rtype| rtype == qtype || qtype == rtype::ANY;
    let (mut least, mut absence, mut is_there) = (MOST, None, false);
    for record in answer.records().filter(|record| record.rtype != rtype::OPT) {
        let signature = matches!(record.rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3);
        if signature && !key.dnssec_ok() && !asked_for(record.rtype) {
            return Err(Unkept::Unasked);
        }
        least = least.min(answer.ttl(&record));
        match record.section {
            Section::Answer => is_there |= asked_for(record.rtype),
            Section::Authority if record.rtype == rtype::SOA => {
                absence = Some(answer.negative_ttl(&record));
            }
            _ => {}
        }
    }
    let lifetime = if is_there && answer.rcode() == rcode::NOERROR {
        Lifetime {
            life: least,
            most: MOST,
        }
    } else {
        let absence = absence.ok_or(Unkept::Endless)?;
        let life = least.min(absence).min(MOST_NEGATIVE);
        // Whoever keeps it in turn goes by the SOA record's TTL and its MINIMUM: one of them must count down.
        Lifetime { life, most: life }
    };
    if lifetime.life == 0 {
        return Err(Unkept::Momentary);
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{Asked, LONGEST, Query};

    const A: u16 = 1;
    const CNAME: u16 = 5;
    const TXT: u16 = 16;
    const AAAA: u16 = 28;
    const DAY: u64 = 86_400;

    fn question(name: &str, qtype: u16) -> Vec<u8> {
        let mut octets = Vec::new();
        for label in name.split('.') {
            octets.push(label.len() as u8);
            octets.extend_from_slice(label.as_bytes());
        }
        octets.push(0);
        octets.extend_from_slice(&qtype.to_be_bytes());
        octets.extend_from_slice(&[0, 1]);
        octets
    }

    /// An answer in the making.
    #[derive(Clone)]
    struct Draft(Vec<u8>);

    impl Draft {
        fn to(question: &[u8], rcode: u8) -> Self {
            let header = [0, 0, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0];
            Self([&header, question].concat())
        }

        /// With a record at the name in question, in section 1, 2 or 3.
        fn with(mut self, section: usize, rtype: u16, ttl: u32, data: &[u8]) -> Self {
            self.0[5 + 2 * section] += 1;
            self.0.extend_from_slice(&[0xc0, 12]);
            self.0.extend_from_slice(&rtype.to_be_bytes());
            self.0.extend_from_slice(&[0, 1]);
            self.0.extend_from_slice(&ttl.to_be_bytes());
            self.0.extend_from_slice(&(data.len() as u16).to_be_bytes());
            self.0.extend_from_slice(data);
            self
        }

        fn with_a(self, ttl: u32) -> Self {
            self.with(1, A, ttl, &[192, 0, 2, 1])
        }

        fn with_soa(self, ttl: u32, minimum: u32) -> Self {
            let data = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
            self.with(2, rtype::SOA, ttl, &data)
        }

        /// With an OPT, whose TTL field is not a TTL, and these options.
        fn with_opt(mut self, options: &[u8]) -> Self {
            self.0[11] += 1;
            self.0
                .extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0]);
            self.0
                .extend_from_slice(&(options.len() as u16).to_be_bytes());
            self.0.extend_from_slice(options);
            self
        }

        fn flag(mut self, at: usize, bit: u8) -> Self {
            self.0[at] |= bit;
            self
        }

        fn parse(&self) -> Answer<'_> {
            Answer::parse(&self.0).expect("an answer")
        }
    }

    /// A cache and its clock.
    struct Bench {
        cache: Cache,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self::with(Settings {
                size: 1 << 20,
                serve_stale: Duration::from_secs(DAY),
            })
        }

        fn with(settings: Settings) -> Self {
            let start = Instant::now();
            Self {
                cache: Cache::new(settings, start),
                // Not at the start, where everything is 0.
                now: start + Duration::from_secs(1000),
            }
        }

        fn pass(&mut self, seconds: f64) {
            self.now += Duration::from_secs_f64(seconds);
        }

        fn note(&self, key: &Key<'_>, answer: &Draft) -> Option<Kept> {
            self.cache.hear(self.now);
            self.cache
                .note(key, Ok(&answer.parse()), self.now, self.now)
        }

        fn fail(&self, key: &Key<'_>, failure: Failure) -> Option<Kept> {
            if failure == Failure::Unreadable {
                self.cache.hear(self.now);
            }
            self.cache.note(key, Err(failure), self.now, self.now)
        }

        fn find(&self, key: &Key<'_>) -> Found {
            self.cache.find(key, self.now)
        }

        /// The TTLs that a client sees, if there is an answer within its time.
        fn fresh(&self, key: &Key<'_>) -> Option<Vec<u32>> {
            match self.find(key) {
                Found::Fresh { kept, .. } => Some(ttls(&kept)),
                _ => None,
            }
        }

        /// For how many seconds, to a tenth, there is an answer within its time.
        fn life(&mut self, key: &Key<'_>) -> f64 {
            let start = self.now;
            let mut tenths = 0;
            let mut step = 1 << 24;
            while step > 0 {
                self.now = start + Duration::from_millis(100 * (tenths + step));
                if self.fresh(key).is_some() {
                    tenths += step;
                } else {
                    step /= 2;
                }
            }
            self.now = start;
            (tenths + 1) as f64 / 10.0
        }
    }

    /// The TTLs of an answer as it is shown.
    fn ttls(kept: &Kept) -> Vec<u32> {
        let shown = shown(kept, true);
        let answer = Answer::parse(&shown).expect("an answer");
        let records = answer.records().filter(|record| record.rtype != rtype::OPT);
        records.map(|record| answer.ttl(&record)).collect()
    }

    /// An answer as a client gets it.
    fn shown(kept: &Kept, edns: bool) -> Vec<u8> {
        let question =
            kept.answer().message()[12..12 + kept.entry.answer.question().len()].to_vec();
        let header = [7, 7, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0];
        let query = [&header, &question[..], &opt[..if edns { 11 } else { 0 }]].concat();
        let query = Query::parse(&query).expect("a query");
        let mut out = Vec::new();
        Asked::by(&query).write_within(&mut out, &kept.answer(), kept.shown(), LONGEST);
        out
    }

    fn key() -> Key<'static> {
        Key::new(&question("www.example.com", A), false, false)
    }

    fn to_key(key: &Key<'_>, rcode: u8) -> Draft {
        Draft::to(key.question(), rcode)
    }

    #[test]
    fn an_answer_is_for_its_name_type_class_and_bits_and_for_nothing_else() {
        let bench = Bench::new();
        let mut other_class = question("www.example.com", A);
        *other_class.last_mut().expect("an octet") = 3;
        let questions = [
            question("www.example.com", A),
            question("www.example.com", AAAA),
            question("example.com", A),
            question("www.example.org", A),
            other_class,
        ];
        let mut keys = Vec::new();
        for question in &questions {
            for (dnssec_ok, unchecked) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                keys.push(Key::new(question, dnssec_ok, unchecked));
            }
        }
        for (number, key) in keys.iter().enumerate() {
            assert!(bench.fresh(key).is_none(), "{number}");
            let answer = to_key(key, 0).with(
                1,
                u16::from_be_bytes([0, key.question()[key.question().len() - 3]]),
                100 + number as u32,
                &[1],
            );
            bench.note(key, &answer);
        }
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(
                bench.fresh(key),
                Some(vec![100 + number as u32]),
                "{number}"
            );
        }
        let spelled = Key::new(&question("wWw.EXAMPLE.com", A), false, false);
        assert_eq!(bench.fresh(&spelled), Some(vec![100]));
        assert_eq!(bench.cache.entries(), keys.len());
        // Other names' records in an answer are nothing but a part of it.
        assert!(
            bench
                .fresh(&Key::new(&question("com", A), false, false))
                .is_none()
        );
    }

    #[test]
    fn the_least_ttl_of_all_sections_is_the_answers_life_and_all_are_counted_down() {
        for least in [1, 2, 3] {
            let mut bench = Bench::new();
            let ttl = |section| if section == least { 10 } else { 300 };
            let answer = to_key(&key(), 0)
                .with_a(ttl(1))
                .with(2, 2, ttl(2), &[0])
                .with(3, A, ttl(3), &[1; 4])
                .with_opt(b"");
            bench.note(&key(), &answer);
            assert_eq!(bench.life(&key()), 10.0);
            bench.pass(3.9);
            let expected = [1, 2, 3].map(|section| ttl(section) - 3);
            assert_eq!(bench.fresh(&key()), Some(expected.to_vec()));
            bench.pass(6.0);
            assert!(bench.fresh(&key()).is_some_and(|ttls| ttls.contains(&1)));
            bench.pass(0.1);
            assert_eq!(bench.fresh(&key()), None);
        }
    }

    #[test]
    fn a_ttl_of_zero_or_with_the_top_bit_is_not_kept_and_a_long_one_is_capped() {
        for (ttl, life) in [
            (0, None),
            (0x8000_0000, None),
            (0x8000_0001, None),
            (u32::MAX, None),
            (1, Some(1)),
            (604_800, Some(604_800)),
            (604_801, Some(604_800)),
            (0x7fff_ffff, Some(604_800)),
        ] {
            let mut bench = Bench::new();
            bench.note(&key(), &to_key(&key(), 0).with_a(ttl));
            assert_eq!(bench.fresh(&key()), life.map(|life| vec![life]), "{ttl}");
            if let Some(life) = life {
                assert_eq!(bench.life(&key()), f64::from(life), "{ttl}");
            }
        }
    }

    #[test]
    fn absence_is_kept_as_long_as_the_soa_says_and_not_without_one() {
        for rcode in [0, 3] {
            let empty = to_key(&key(), rcode);
            for (answer, life) in [
                (empty.clone().with_soa(300, 60), Some(60)),
                (empty.clone().with_soa(60, 300), Some(60)),
                (empty.clone().with_soa(0, 300), None),
                (empty.clone().with_soa(300, 0), None),
                (empty.clone().with_soa(0x8000_0000, 300), None),
                (empty.clone().with_soa(10_800, 10_800), Some(10_800)),
                (empty.clone().with_soa(604_800, 604_800), Some(10_800)),
                (empty.clone(), None),
                (empty.clone().with(2, 2, 300, &[0]), None),
                // An alias that leads to nothing.
                (
                    empty.clone().with(1, CNAME, 30, &[0]).with_soa(300, 60),
                    Some(30),
                ),
                (
                    empty.clone().with(1, CNAME, 300, &[0]).with_soa(300, 60),
                    Some(60),
                ),
                (empty.clone().with(1, CNAME, 300, &[0]), None),
                // A SOA elsewhere vouches for nothing.
                (empty.clone().with(3, rtype::SOA, 300, &[1; 22]), None),
            ] {
                let mut bench = Bench::new();
                bench.note(&key(), &answer);
                match life {
                    None => assert_eq!(bench.fresh(&key()), None, "{:x?}", answer.0),
                    Some(life) => {
                        assert!(
                            bench
                                .fresh(&key())
                                .is_some_and(|ttls| ttls.iter().all(|ttl| *ttl <= 10_800))
                        );
                        assert_eq!(bench.life(&key()), f64::from(life), "{:x?}", answer.0);
                    }
                }
            }
        }
        // The SOA record's own TTL counts down with it.
        let mut bench = Bench::new();
        bench.note(&key(), &to_key(&key(), 3).with_soa(3600, 60));
        bench.pass(59.0);
        assert_eq!(bench.fresh(&key()), Some(vec![1]));
        // What is there needs no SOA, and that there is no such name outweighs what else is there.
        let bench = Bench::new();
        bench.note(&key(), &to_key(&key(), 3).with_a(300));
        assert_eq!(bench.fresh(&key()), None);
    }

    #[test]
    fn it_can_serve_as_long_as_an_answer_lasts_and_is_served_past_its_time() {
        let mut bench = Bench::with(Settings {
            size: 1 << 20,
            serve_stale: Duration::from_secs(60),
        });
        let other = Key::new(&question("other.example.com", A), false, false);
        assert!(!bench.cache.can_serve(bench.now), "nothing is kept");
        bench.fail(&other, Failure::Unreadable);
        assert_eq!(bench.cache.entries(), 1);
        assert!(!bench.cache.can_serve(bench.now), "a failure");
        bench.note(&key(), &to_key(&key(), 0).with_a(0));
        assert!(!bench.cache.can_serve(bench.now), "it was used");
        bench.note(&key(), &to_key(&key(), 0).with_a(300));
        bench.note(&other, &to_key(&other, 0).with_a(10));
        bench.pass(359.9);
        assert!(
            bench.cache.can_serve(bench.now),
            "the one that lasts longer"
        );
        bench.pass(0.2);
        assert!(!bench.cache.can_serve(bench.now), "too old");
        bench.cache.serve_stale(Duration::from_secs(61));
        assert!(bench.cache.can_serve(bench.now), "not any more");
        assert_eq!(bench.cache.empty(), 2);
        assert!(!bench.cache.can_serve(bench.now), "it is forgotten");
        bench.note(&key(), &to_key(&key(), 0).with_a(1));
        assert!(bench.cache.can_serve(bench.now));
    }

    #[test]
    fn no_data_is_for_one_type() {
        let bench = Bench::new();
        let other = Key::new(&question("www.example.com", AAAA), false, false);
        bench.note(&other, &to_key(&other, 0).with_soa(300, 300));
        assert!(bench.fresh(&other).is_some());
        assert!(matches!(bench.find(&key()), Found::Nothing));
    }

    #[test]
    fn any_is_answered_by_whatever_is_there() {
        let any = Key::new(&question("www.example.com", rtype::ANY), false, false);
        let bench = Bench::new();
        bench.note(
            &any,
            &to_key(&any, 0)
                .with(1, TXT, 60, &[0])
                .with(1, rtype::RRSIG, 50, &[0]),
        );
        assert_eq!(bench.fresh(&any), Some(vec![60, 50]));
    }

    #[test]
    fn what_may_not_be_kept_is_not() {
        let good = to_key(&key(), 0).with_a(300);
        let subnet = |scope| [0, 8, 0, 7, 0, 1, 24, scope, 192, 0, 2];
        for (what, answer, kept) in [
            ("an answer", good.clone(), true),
            ("truncated", good.clone().flag(2, 2), false),
            (
                "made for a subnet",
                good.clone().with_opt(&subnet(24)),
                false,
            ),
            (
                "made for all subnets",
                good.clone().with_opt(&subnet(0)),
                true,
            ),
            ("TSIG", good.clone().with(3, rtype::TSIG, 300, &[]), false),
            (
                "SIG(0)",
                good.clone().with(3, rtype::SIG, 300, &[0, 0]),
                false,
            ),
            (
                "a signature",
                good.clone().with(1, rtype::RRSIG, 300, &[0]),
                false,
            ),
            (
                "a proof",
                good.clone().with(2, rtype::NSEC, 300, &[0]),
                false,
            ),
            (
                "a hashed proof",
                good.clone().with(2, rtype::NSEC3, 300, &[0]),
                false,
            ),
            ("FORMERR", good.clone().flag(3, 1), false),
            ("NOTIMP", good.clone().flag(3, 4), false),
            ("REFUSED", good.clone().flag(3, 5), false),
            ("YXDOMAIN", good.clone().flag(3, 6), false),
        ] {
            let bench = Bench::new();
            assert!(bench.note(&key(), &answer).is_none(), "{what}");
            assert_eq!(
                matches!(bench.find(&key()), Found::Fresh { .. }),
                kept,
                "{what}"
            );
            assert_eq!(bench.cache.entries(), usize::from(kept), "{what}");
        }
        // Who asks for signatures, by DO or by type, gets them.
        let secure = Key::new(key().question(), true, false);
        let signed = good
            .with(1, rtype::RRSIG, 300, &[0])
            .with(2, rtype::NSEC, 300, &[0]);
        let signatures = Key::new(&question("www.example.com", rtype::RRSIG), false, false);
        let asked_for = to_key(&signatures, 0).with(1, rtype::RRSIG, 300, &[0]);
        let bench = Bench::new();
        bench.note(&secure, &signed);
        bench.note(&signatures, &asked_for);
        assert!(bench.fresh(&secure).is_some() && bench.fresh(&signatures).is_some());
    }

    #[test]
    fn a_failure_is_kept_for_a_second_then_longer_while_it_repeats_and_ends_with_success() {
        let servfail = to_key(&key(), 2).with_opt(&[0, 15, 0, 2, 0, 6]);
        type Fail<'f> = (&'f str, &'f dyn Fn(&Bench));
        let fails: [Fail<'_>; 3] = [
            ("SERVFAIL", &|bench| drop(bench.note(&key(), &servfail))),
            ("unreadable", &|bench| {
                drop(bench.fail(&key(), Failure::Unreadable))
            }),
            ("no answer, though others have one", &|bench| {
                let asked = bench.now - Duration::from_secs(3);
                let other = Key::new(&question("other", A), false, false);
                bench.note(&other, &to_key(&other, 5));
                bench
                    .cache
                    .note(&key(), Err(Failure::TimedOut), asked, bench.now);
            }),
        ];
        for (what, fail) in fails {
            let mut bench = Bench::new();
            for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
                fail(&bench);
                bench.pass(f64::from(expected) - 0.1);
                assert!(
                    matches!(bench.find(&key()), Found::Failed(_)),
                    "{what}, {expected}"
                );
                bench.pass(0.1);
                assert!(
                    matches!(bench.find(&key()), Found::Nothing),
                    "{what}, {expected}"
                );
            }
            bench.note(&key(), &to_key(&key(), 0).with_a(1));
            assert!(bench.fresh(&key()).is_some());
            // It begins anew.
            let mut bench = Bench {
                cache: Bench::new().cache,
                ..bench
            };
            fail(&bench);
            bench.pass(1.0);
            assert!(matches!(bench.find(&key()), Found::Nothing), "{what}");
        }
        let bench = Bench::new();
        bench.note(&key(), &servfail);
        let Found::Failed(kept) = bench.find(&key()) else {
            panic!("it failed");
        };
        let heard = shown(&kept, true);
        assert_eq!(heard[3] & 0x0f, 2);
        let whys = [&[0, 15, 0, 2, 0, 6][..], &[0, 15, 0, 2, 0, 13]].concat();
        assert!(
            heard.ends_with(&whys),
            "the resolver's reason and ours: {heard:x?}"
        );
        assert_eq!(shown(&kept, false).len(), 12 + key().question().len());
    }

    #[test]
    fn a_success_ends_a_failure_even_if_it_is_not_kept() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.note(&key(), &to_key(&key(), 2));
            bench.pass(10.0);
        }
        bench.note(&key(), &to_key(&key(), 0).with_a(0));
        assert_eq!(bench.cache.entries(), 0);
        bench.note(&key(), &to_key(&key(), 2));
        bench.pass(1.0);
        assert!(matches!(bench.find(&key()), Found::Nothing));
    }

    #[test]
    fn a_failure_without_its_question_or_for_one_asker_is_kept_as_the_code_alone() {
        let bare = Draft([&[0, 0, 0x81, 0x82][..], &[0; 8]].concat());
        let scoped = to_key(&key(), 2).with_opt(&[0, 8, 0, 7, 0, 1, 24, 24, 192, 0, 2]);
        let truncated = to_key(&key(), 2).flag(2, 2);
        for answer in [bare, scoped, truncated] {
            let bench = Bench::new();
            bench.note(&key(), &answer);
            let Found::Failed(kept) = bench.find(&key()) else {
                panic!("it failed: {:x?}", answer.0);
            };
            assert_eq!(shown(&kept, false)[2..4], [0x81, 0x82]);
        }
    }

    #[test]
    fn what_the_resolver_decides_about_a_name_is_not_covered_by_what_was_kept() {
        // SERVFAIL and REFUSED; with a word on what was decided, and with one on what went wrong.
        for rcode in [2, 5] {
            for (code, covered) in [(6, false), (15, false), (17, false), (22, true), (23, true)] {
                let mut bench = Bench::new();
                bench.note(&key(), &to_key(&key(), 0).with_a(100));
                bench.pass(100.0);
                let error = to_key(&key(), rcode).with_opt(&[0, 15, 0, 2, 0, code]);
                let instead = bench.note(&key(), &error);
                assert_eq!(instead.is_some(), covered, "{rcode} {code}");
                let served = bench.cache.any(&key(), bench.now).is_some();
                assert_eq!(served, covered, "{rcode} {code}");
            }
        }
    }

    #[test]
    fn a_refusal_ends_a_failure_and_is_not_kept() {
        let mut bench = Bench::new();
        for _ in 0..5 {
            bench.note(&key(), &to_key(&key(), 2));
            bench.pass(300.0);
        }
        bench.note(&key(), &to_key(&key(), 5));
        assert_eq!(bench.cache.entries(), 0);
    }

    #[test]
    fn an_outage_holds_back_a_name_that_failed_before_no_longer_than_others() {
        let mut bench = Bench::new();
        for _ in 0..6 {
            bench.note(&key(), &to_key(&key(), 2));
            bench.pass(40.0);
        }
        bench.fail(&key(), Failure::TimedOut);
        bench.pass(1.0);
        assert!(matches!(bench.find(&key()), Found::Nothing));
    }

    #[test]
    fn an_outage_is_no_names_failure() {
        let mut bench = Bench::new();
        for failure in [Failure::Unreachable, Failure::Unproved, Failure::Overloaded] {
            bench.fail(&key(), failure);
            assert!(matches!(bench.find(&key()), Found::Nothing), "{failure:?}");
        }
        // Nobody is answered: one second, however often.
        for _ in 0..5 {
            bench.fail(&key(), Failure::TimedOut);
            bench.pass(0.9);
            assert!(matches!(bench.find(&key()), Found::Failed(_)));
            bench.pass(0.1);
            assert!(matches!(bench.find(&key()), Found::Nothing));
        }
        // Somebody is: at once.
        bench.fail(&key(), Failure::TimedOut);
        bench.pass(0.1);
        let other = Key::new(&question("other", A), false, false);
        bench.note(&other, &to_key(&other, 0).with_a(1));
        assert!(matches!(bench.find(&key()), Found::Nothing));
    }

    #[test]
    fn a_popular_answer_is_renewed_once_in_the_last_tenth_of_its_life() {
        let renew = |bench: &Bench| match bench.find(&key()) {
            Found::Fresh { renew, .. } => renew,
            _ => panic!("it is fresh"),
        };
        let mut bench = Bench::new();
        bench.note(&key(), &to_key(&key(), 0).with_a(100));
        assert!(!renew(&bench) && !renew(&bench) && !renew(&bench));
        bench.pass(89.9);
        assert!(!renew(&bench), "not before");
        bench.pass(0.1);
        assert!(renew(&bench));
        assert!(!renew(&bench), "once");
        bench.pass(9.9);
        assert!(!renew(&bench), "once");
        bench.note(&key(), &to_key(&key(), 0).with_a(100));
        bench.pass(95.0);
        assert!(!renew(&bench), "it was given once: not popular");
        assert!(renew(&bench), "now it is");
        // A failed renewal does not take the answer away.
        assert!(
            bench
                .fail(&key(), Failure::TimedOut)
                .is_some_and(|kept| !kept.is_stale())
        );
        assert!(!renew(&bench));
    }

    #[test]
    fn past_its_time_an_answer_is_served_with_a_ttl_of_30_and_a_word_on_it() {
        let mut bench = Bench::new();
        let stale = |bench: &Bench| match bench.find(&key()) {
            Found::Stale { kept, ask } => Some((shown(&kept, true), ttls(&kept), ask)),
            _ => None,
        };
        for (answer, code) in [
            (to_key(&key(), 0).with_a(100).with(2, 2, 7000, &[0]), 3),
            (
                to_key(&key(), 0).with_soa(100, 100).with(2, 2, 7000, &[0]),
                3,
            ),
            (
                to_key(&key(), 3).with_soa(100, 100).with(2, 2, 7000, &[0]),
                19,
            ),
        ] {
            bench.note(&key(), &answer.flag(3, 0x20));
            bench.pass(99.9);
            assert!(stale(&bench).is_none(), "not within its time");
            bench.pass(0.1);
            let (octets, ttls, ask) = stale(&bench).expect("a stale answer");
            assert_eq!(ask, Ask::First, "it is to be asked for");
            assert_eq!(ttls, [30, 30]);
            assert!(octets.ends_with(&[0, 15, 0, 2, 0, code]));
            assert_eq!(octets[3] & 0x20, 0, "no longer authentic");
            bench.pass(DAY as f64 - 0.1);
            assert!(stale(&bench).is_some(), "for a day");
            bench.pass(0.1);
            assert!(
                matches!(bench.find(&key()), Found::Nothing),
                "and no longer"
            );
            assert!(bench.fail(&key(), Failure::Unreachable).is_none());
        }
    }

    #[test]
    fn an_expired_answer_takes_the_place_of_a_failure_and_is_asked_for_every_30_seconds() {
        let rcodes = [1, 2, 4, 5].map(|rcode| to_key(&key(), rcode));
        let answered = rcodes.iter().map(|answer| Ok(answer.parse()));
        let failed = [
            Failure::TimedOut,
            Failure::Unreachable,
            Failure::Unproved,
            Failure::Overloaded,
            Failure::Unreadable,
        ];
        for ending in answered.chain(failed.map(Err)) {
            let mut bench = Bench::new();
            bench.note(&key(), &to_key(&key(), 0).with_a(100));
            bench.pass(100.0);
            assert!(matches!(
                bench.find(&key()),
                Found::Stale {
                    ask: Ask::First,
                    ..
                }
            ));
            for _ in 0..3 {
                let instead = bench.cache.note(
                    &key(),
                    ending.as_ref().map_err(|failure| *failure),
                    bench.now,
                    bench.now,
                );
                assert!(instead.is_some_and(|kept| kept.is_stale()), "{ending:?}");
                bench.pass(29.9);
                assert!(matches!(
                    bench.find(&key()),
                    Found::Stale {
                        ask: Ask::NotYet,
                        ..
                    }
                ));
                bench.pass(0.1);
                assert!(matches!(
                    bench.find(&key()),
                    Found::Stale {
                        ask: Ask::Behind,
                        ..
                    }
                ));
            }
        }
    }

    #[test]
    fn after_an_outage_what_is_expired_is_asked_for_as_soon_as_anybody_is_answered() {
        let mut bench = Bench::new();
        let other = Key::new(&question("other", A), false, false);
        bench.note(&key(), &to_key(&key(), 0).with_a(100));
        bench.pass(100.0);
        bench.fail(&key(), Failure::Unreachable);
        bench.pass(1.0);
        assert!(matches!(
            bench.find(&key()),
            Found::Stale {
                ask: Ask::NotYet,
                ..
            }
        ));
        bench.note(&other, &to_key(&other, 0).with_a(100));
        assert!(matches!(
            bench.find(&key()),
            Found::Stale {
                ask: Ask::First,
                ..
            }
        ));
    }

    #[test]
    fn any_fresh_answer_takes_the_place_of_an_expired_one() {
        for fresh in [
            to_key(&key(), 0).with_a(7),
            to_key(&key(), 3).with_soa(7, 7),
            to_key(&key(), 0).with_soa(7, 7),
            // Not kept themselves.
            to_key(&key(), 0).with_a(0),
            to_key(&key(), 3),
        ] {
            let mut bench = Bench::new();
            bench.note(&key(), &to_key(&key(), 0).with_a(100));
            bench.pass(101.0);
            assert!(bench.note(&key(), &fresh).is_none());
            let found = bench.find(&key());
            assert!(
                matches!(found, Found::Nothing) || bench.fresh(&key()) == Some(vec![7]),
                "{found:?}"
            );
            bench.pass(8.0);
            let instead = bench.fail(&key(), Failure::Unreachable);
            assert!(instead.is_none_or(|kept| kept.answer().rcode() == fresh.parse().rcode()));
        }
    }

    #[test]
    fn without_serve_stale_nothing_is_served_past_its_time() {
        let mut bench = Bench::with(Settings {
            size: 1 << 20,
            serve_stale: Duration::ZERO,
        });
        bench.note(&key(), &to_key(&key(), 0).with_a(100));
        bench.pass(100.0);
        assert!(matches!(bench.find(&key()), Found::Nothing));
        assert!(bench.cache.any(&key(), bench.now).is_none());
        assert!(bench.note(&key(), &to_key(&key(), 2)).is_none());
        assert!(matches!(bench.find(&key()), Found::Failed(_)));
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let bench = Bench::with(Settings {
            size: 0,
            serve_stale: Duration::from_secs(DAY),
        });
        bench.note(&key(), &to_key(&key(), 0).with_a(100));
        bench.fail(&key(), Failure::Unreadable);
        assert!(matches!(bench.find(&key()), Found::Nothing));
        assert_eq!((bench.cache.entries(), bench.cache.octets()), (0, 0));
        assert_eq!(bench.cache.empty(), 0);
    }

    #[test]
    fn emptied_it_knows_nothing_and_says_how_much_it_knew() {
        let bench = Bench::new();
        for number in 0..10 {
            let key = Key::new(&question(&format!("n{number}"), A), false, false);
            bench.note(&key, &to_key(&key, 0).with_a(100));
        }
        assert_eq!(bench.cache.empty(), 10);
        assert_eq!((bench.cache.entries(), bench.cache.octets()), (0, 0));
        assert!(matches!(
            bench.find(&Key::new(&question("n1", A), false, false)),
            Found::Nothing
        ));
    }

    #[test]
    fn a_scan_of_random_names_does_not_drive_out_the_popular_ones() {
        let bench = Bench::new();
        let known = |name: String| Key::new(&question(&name, A), false, false);
        let popular: Vec<_> = (0..500)
            .map(|number| known(format!("popular{number}")))
            .collect();
        for key in &popular {
            bench.note(key, &to_key(key, 0).with_a(3600));
        }
        let mut misses = 0;
        for number in 0..200_000 {
            let stranger = known(format!("scan{number}"));
            bench.note(&stranger, &to_key(&stranger, 0).with_a(3600));
            // Of those that ask, one in ten asks for something popular.
            if number % 10 == 0 {
                let key = &popular[number / 10 % popular.len()];
                if bench.fresh(key).is_none() {
                    misses += 1;
                    bench.note(key, &to_key(key, 0).with_a(3600));
                }
            }
        }
        assert!(
            bench.cache.entries() < 10_000,
            "the scan is many times what there is room for"
        );
        assert!(misses < 100, "{misses} of 20,000 were driven out");
    }

    #[test]
    fn an_answer_that_is_larger_than_its_share_is_not_kept_and_harms_nobody() {
        let bench = Bench::with(Settings {
            size: 64 * 1024,
            serve_stale: Duration::from_secs(DAY),
        });
        let small = Key::new(&question("small", A), false, false);
        bench.note(&small, &to_key(&small, 0).with_a(100));
        bench.note(&key(), &to_key(&key(), 0).with(1, A, 100, &[0; 60_000]));
        assert!(matches!(bench.find(&key()), Found::Nothing));
        assert!(bench.fresh(&small).is_some());
        assert!(bench.cache.octets() <= 64 * 1024);
    }

    /// What is done to a cache: a name and a TTL are noted, a name is asked for or fails, time passes.
    #[derive(Debug, Clone)]
    enum Step {
        Note(u8, u32, u16),
        Fail(u8),
        Find(u8),
        Pass(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let ttl = prop_oneof![0_u32..20, 500_000_u32..700_000, any::<u32>()];
        prop_oneof![
            (any::<u8>(), ttl, 0_u16..3000)
                .prop_map(|(name, ttl, size)| Step::Note(name, ttl, size)),
            any::<u8>().prop_map(Step::Fail),
            any::<u8>().prop_map(Step::Find),
            prop_oneof![0_u32..5000, 0_u32..1_000_000_000].prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_is_served_beyond_its_time_and_memory_is_bounded(
            steps in prop::collection::vec(step(), 0..400),
            size in 65_536_usize..200_000,
            serve_stale in prop_oneof![Just(0_u64), 0_u64..100_000],
        ) {
            let mut bench = Bench::with(Settings { size, serve_stale: Duration::from_secs(serve_stale) });
            let key = |name: u8| Key::new(&question(&format!("n{name}"), A), false, false);
            // When it was noted last, and with what TTL.
            let mut noted: HashMap<u8, (Instant, u32)> = HashMap::new();
            for step in steps {
                match step {
                    Step::Note(name, ttl, size) => {
                        let key = key(name);
                        bench.note(&key, &to_key(&key, 0).with(1, A, ttl, &vec![0; size.into()]));
                        noted.insert(name, (bench.now, ttl));
                    }
                    Step::Fail(name) => drop(bench.fail(&key(name), Failure::Unreadable)),
                    Step::Pass(millis) => bench.now += Duration::from_millis(millis.into()),
                    Step::Find(name) => {
                        let since = noted.get(&name).map(|(at, ttl)| (bench.now - *at, *ttl));
                        let within = |extra: u64| since.is_some_and(|(age, ttl)| {
                            ttl < 0x8000_0000 && age < Duration::from_secs(u64::from(ttl.min(604_800)) + extra)
                        });
                        match bench.find(&key(name)) {
                            Found::Nothing | Found::Failed(_) => {}
                            Found::Fresh { kept, .. } => {
                                prop_assert!(within(0));
                                let (age, ttl) = since.expect("it was noted");
                                let left = u64::from(ttl.min(604_800)) - age.as_secs();
                                prop_assert_eq!(ttls(&kept), [u32::try_from(left).expect("it fits")]);
                            }
                            Found::Stale { kept, .. } => {
                                prop_assert!(!within(0) && within(serve_stale));
                                prop_assert_eq!(ttls(&kept), [30]);
                            }
                        }
                    }
                }
                prop_assert!(bench.cache.octets() <= size as u64);
            }
        }
    }
}
