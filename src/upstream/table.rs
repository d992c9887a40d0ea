//! What is open, and what waits where?
//!
//! The pool's tables: queries on their way, sessions, and which query is pending on which of them. No rules: those are in
//! [`super::pool`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use slab::Slab;
use smallvec::SmallVec;

use super::suspicion::QueryGroups;
use crate::message::Form;

/// What the pool has to know of a query.
pub trait PoolQuery: Clone {
    /// By when it ends, whatever became of it. May be put off.
    fn deadline(&self) -> Instant;
    /// When somebody is to look after those that wait for it, before the deadline or at it.
    fn due(&self) -> Instant;
    /// Its name, as a hash.
    fn name_hash(&self) -> u16;
    /// What it has in common with others.
    fn groups(&self) -> QueryGroups;
    /// Whether it may be sent in one form only, since it is signed.
    fn is_signed(&self) -> bool;
}

/// A session, by a number that no other one ever had or will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// A query in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    place: usize,
    /// Tells it from others that had the place before.
    number: u32,
}

impl Key {
    /// The older a query, the lower.
    pub(super) fn age(self) -> u32 {
        self.number
    }
}

/// Where a query waits to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// Nowhere.
    None,
    /// For a session that it shares with others.
    Shared,
    /// For one on which it is alone.
    Alone,
}

/// A query on a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnSession {
    pub(super) session: SessionId,
    pub(super) id: u16,
    pub(super) since: Instant,
    pub(super) form: Form,
}

/// A query on its way.
#[derive(Debug)]
pub(super) struct Entry<Q> {
    number: u32,
    pub(super) query: Q,
    pub(super) line: Line,
    /// How often it was sent.
    pub(super) sends: u8,
    /// The addresses that it was sent to.
    pub(super) tried: Ranks,
    pub(super) copies: SmallVec<[OnSession; 2]>,
    /// The form in which it goes to the address of that rank, where that is not what it takes otherwise.
    pub(super) form: Option<(usize, Form)>,
    /// Two sessions had it for long enough: it is slow, or never answered, and its silence says nothing of them.
    pub(super) is_late: bool,
    /// When a session that it was alone on ended with it, at an address that answers others.
    pub(super) ended_one: Option<Instant>,
    /// The addresses that failed it, so that it goes to another one: with a failure that is kept in case that nothing better comes, or
    /// by ending a session on which it was alone.
    pub(super) failed: Ranks,
}

impl<Q> Entry<Q> {
    /// When it was last sent.
    pub(super) fn last_sent(&self) -> Option<Instant> {
        self.copies.iter().map(|copy| copy.since).max()
    }

    pub(super) fn is_on(&self, session: SessionId) -> bool {
        self.copies.iter().any(|copy| copy.session == session)
    }
}

/// Ranks of addresses, a bit each; those from the 64th on, which nobody has, share one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ranks(u64);

impl Ranks {
    fn bit(rank: usize) -> u64 {
        1 << rank.min(63)
    }

    pub(super) fn add(&mut self, rank: usize) {
        self.0 |= Self::bit(rank);
    }

    pub(super) fn has(self, rank: usize) -> bool {
        self.0 & Self::bit(rank) != 0
    }

    pub(super) fn are_several(self) -> bool {
        self.0.count_ones() > 1
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// For all queries.
    Shared,
    /// For this one.
    Alone(Key),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// It gets no more queries, and ends with the last answer.
    Retired,
}

/// A session, or an attempt to open one.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// That of its address: the lower, the more preferred.
    pub(super) rank: usize,
    pub(super) used_for: Use,
    pub(super) phase: Phase,
    pub(super) pending: HashMap<u16, Key, BuildHasherDefault<IdHasher>>,
    /// When the attempt began.
    pub(super) began: Instant,
    /// How long it took to open: some round trips.
    pub(super) opened_in: Duration,
    /// When octets last arrived.
    pub(super) heard: Instant,
    /// When a query was last sent.
    pub(super) spoke: Instant,
    /// The smoothed time from query to answer; none before the first answer.
    pub(super) round_trip: Option<Duration>,
    pub(super) sent: u32,
    /// How many more than its address seems to take on one may be sent: to see whether that is so.
    pub(super) extra: u32,
    pub(super) answered: u32,
    /// Nothing came for too long while queries waited: it gets no more until something does.
    pub(super) is_silent: bool,
    /// It was silent, and nothing came since; or others were found dead that had been heard later.
    pub(super) is_doubtful: bool,
    /// The client of the last query that was answered here.
    pub(super) cleared: Option<u16>,
    /// Its token has not been given back.
    pub(super) gives_back: bool,
    /// How long the resolver keeps an idle session, if it said so (RFC 7828).
    pub(super) keepalive: Option<Duration>,
}

impl Session {
    pub(super) fn new(id: SessionId, rank: usize, used_for: Use, now: Instant) -> Self {
        Self {
            id,
            rank,
            used_for,
            phase: Phase::Connecting,
            pending: HashMap::default(),
            began: now,
            opened_in: Duration::ZERO,
            heard: now,
            spoke: now,
            round_trip: None,
            sent: 0,
            extra: 0,
            answered: 0,
            is_silent: false,
            is_doubtful: false,
            cleared: None,
            gives_back: true,
            keepalive: None,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.used_for == Use::Shared
    }

    /// Whether it is not open yet after so long.
    pub(super) fn is_slow(&self, after: Duration, now: Instant) -> bool {
        self.phase == Phase::Connecting && now >= self.began + after
    }

    /// Whether queries share it, for more than their last answers: it is open, or about to be.
    pub(super) fn is_for_all(&self) -> bool {
        self.is_shared() && self.phase != Phase::Retired
    }

    /// Whether queries will share it that is not open yet.
    pub(super) fn is_coming(&self) -> bool {
        self.is_shared() && self.phase == Phase::Connecting
    }

    /// Whether that query will be alone on it, and it is not open yet.
    pub(super) fn is_coming_for(&self, key: Key) -> bool {
        self.used_for == Use::Alone(key) && self.phase == Phase::Connecting
    }

    /// Whether it is silent, and would take queries all the same where there is nothing better.
    pub(super) fn is_last_resort(&self) -> bool {
        self.is_shared() && self.phase == Phase::Open && self.is_silent
    }

    /// Whether it is open for queries of all kinds, as far as is known.
    pub(super) fn serves(&self) -> bool {
        self.is_shared() && self.phase == Phase::Open && !self.is_silent
    }

    /// How long it may be silent while a query waits: four round trips, though no less than `least`; or `most`, which is also
    /// for one that has not answered yet, but longer where it took long to open, up to `longest`.
    pub(super) fn patience(&self, least: Duration, most: Duration, longest: Duration) -> Duration {
        let most = most.max((self.opened_in * 5 / 4).min(longest));
        self.round_trip
            .map_or(most, |round_trip| (round_trip * 4).max(least).min(most))
    }

    /// Something came that is of use.
    pub(super) fn speaks(&mut self, now: Instant) {
        self.heard = now;
        self.is_silent = false;
    }

    /// An answer came after so long.
    pub(super) fn count_answer(&mut self, took: Duration) {
        // Smoothed as TCP does it (RFC 6298 section 2): an eighth of the new.
        let smoothed = |average: Duration| (average * 7 + took) / 8;
        self.round_trip = Some(self.round_trip.map_or(took, smoothed));
        self.answered = self.answered.saturating_add(1);
    }
}

/// The queries on their way.
#[derive(Debug)]
pub(super) struct Queries<Q> {
    entries: Slab<Entry<Q>>,
    next: u32,
}

impl<Q> Default for Queries<Q> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            next: 0,
        }
    }
}

impl<Q: PoolQuery> Queries<Q> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn add(&mut self, query: Q) -> Key {
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        let place = self.entries.insert(Entry {
            number,
            query,
            line: Line::None,
            sends: 0,
            tried: Ranks::default(),
            copies: SmallVec::new(),
            form: None,
            is_late: false,
            ended_one: None,
            failed: Ranks::default(),
        });
        Key { place, number }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry<Q>> {
        let entry = self.entries.get(key.place);
        entry.filter(|entry| entry.number == key.number)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry<Q>> {
        let entry = self.entries.get_mut(key.place);
        entry.filter(|entry| entry.number == key.number)
    }

    /// Whether it waits there.
    pub(super) fn is_in(&self, key: Key, line: Line) -> bool {
        self.get(key).is_some_and(|entry| entry.line == line)
    }

    /// Takes it out, as it has ended.
    pub(super) fn remove(&mut self, key: Key) -> Option<Entry<Q>> {
        self.get(key)?;
        self.entries.try_remove(key.place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Entry<Q>)> {
        self.entries.iter().map(|(place, entry)| {
            let number = entry.number;
            (Key { place, number }, entry)
        })
    }
}

/// IDs of our own are random already: they need no more than to be spread over the table.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, octets: &[u8]) {
        octets
            .iter()
            .for_each(|octet| self.write_u16(u16::from(*octet)));
    }

    fn write_u16(&mut self, id: u16) {
        // An odd number without a pattern (2^64 over the golden ratio): each bit of the ID changes the upper ones.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
