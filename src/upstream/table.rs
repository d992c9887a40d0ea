//! What is open, and what waits where?
//!
//! The pool's tables: queries on their way, sessions, and which query is pending on which of them. No rules: those are in
//! [`super::pool`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use slab::Slab;
use smallvec::SmallVec;

use super::culprits::QueryGroups;
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
    slot: usize,
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
pub(super) enum Queue {
    /// Nowhere.
    None,
    /// For a session that it shares with others.
    Shared,
    /// For one on which it is alone.
    Isolated,
}

/// A query on a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transmission {
    pub(super) session: SessionId,
    pub(super) id: u16,
    pub(super) sent_at: Instant,
    pub(super) form: Form,
}

/// A query on its way.
#[derive(Debug)]
pub(super) struct Entry<Q> {
    number: u32,
    pub(super) query: Q,
    pub(super) queue: Queue,
    /// How often it was sent.
    pub(super) sends: u8,
    /// The addresses that it was sent to.
    pub(super) tried: RankSet,
    pub(super) transmissions: SmallVec<[Transmission; 2]>,
    /// The form in which it goes to the address of that rank, where that is not what it takes otherwise.
    pub(super) form: Option<(usize, Form)>,
    /// Two sessions had it for long enough: it is slow, or never answered, and its silence says nothing of them.
    pub(super) is_late: bool,
    /// When a session that it was alone on ended with it, at an address that answers others.
    pub(super) ended_session_at: Option<Instant>,
    /// The addresses that failed it, so that it goes to another one: with a failure that is kept in case that nothing better comes, or
    /// by ending a session on which it was alone.
    pub(super) failed: RankSet,
}

impl<Q> Entry<Q> {
    /// When it was last sent.
    pub(super) fn last_sent_at(&self) -> Option<Instant> {
        self.transmissions
            .iter()
            .map(|transmission| transmission.sent_at)
            .max()
    }

    pub(super) fn is_on(&self, session: SessionId) -> bool {
        self.transmissions
            .iter()
            .any(|transmission| transmission.session == session)
    }
}

/// Ranks of addresses, a bit each; those from the 64th on, which nobody has, share one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RankSet(u64);

impl RankSet {
    fn bit(rank: usize) -> u64 {
        1 << rank.min(63)
    }

    pub(super) fn insert(&mut self, rank: usize) {
        self.0 |= Self::bit(rank);
    }

    pub(super) fn contains(self, rank: usize) -> bool {
        self.0 & Self::bit(rank) != 0
    }

    pub(super) fn has_several(self) -> bool {
        self.0.count_ones() > 1
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For all queries.
    Shared,
    /// For this one.
    Isolated(Key),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// It gets no more queries, and ends with the last answer.
    Draining,
}

/// A session, or an attempt to open one.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// That of its address: the lower, the more preferred.
    pub(super) rank: usize,
    pub(super) purpose: Purpose,
    pub(super) phase: Phase,
    pub(super) pending: HashMap<u16, Key, BuildHasherDefault<IdHasher>>,
    /// When the attempt began.
    pub(super) started_at: Instant,
    /// How long it took to open: some round trips.
    pub(super) connect_time: Duration,
    /// When octets last arrived.
    pub(super) last_received_at: Instant,
    /// When a query was last sent.
    pub(super) last_sent_at: Instant,
    /// The smoothed time from query to answer; none before the first answer.
    pub(super) srtt: Option<Duration>,
    pub(super) sent: u32,
    /// How many more than its address seems to take on one may be sent: to see whether that is so.
    pub(super) extra_sends: u32,
    pub(super) answered: u32,
    /// Nothing came for too long while queries waited: it gets no more until something does.
    pub(super) is_silent: bool,
    /// It was silent, and nothing came since; or others were found dead that had been heard later.
    pub(super) is_doubtful: bool,
    /// The client of the last query that was answered here.
    pub(super) cleared_client: Option<u16>,
    /// Its token has not been given back.
    pub(super) token_refundable: bool,
    /// How long the resolver keeps an idle session, if it said so (RFC 7828).
    pub(super) keepalive: Option<Duration>,
}

impl Session {
    pub(super) fn new(id: SessionId, rank: usize, purpose: Purpose, now: Instant) -> Self {
        Self {
            id,
            rank,
            purpose,
            phase: Phase::Connecting,
            pending: HashMap::default(),
            started_at: now,
            connect_time: Duration::ZERO,
            last_received_at: now,
            last_sent_at: now,
            srtt: None,
            sent: 0,
            extra_sends: 0,
            answered: 0,
            is_silent: false,
            is_doubtful: false,
            cleared_client: None,
            token_refundable: true,
            keepalive: None,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.purpose == Purpose::Shared
    }

    /// Whether it is not open yet after so long.
    pub(super) fn is_slow(&self, after: Duration, now: Instant) -> bool {
        self.phase == Phase::Connecting && now >= self.started_at + after
    }

    /// Whether queries share it, for more than their last answers: it is open, or about to be.
    pub(super) fn takes_shared_queries(&self) -> bool {
        self.is_shared() && self.phase != Phase::Draining
    }

    /// Whether queries will share it that is not open yet.
    pub(super) fn is_coming(&self) -> bool {
        self.is_shared() && self.phase == Phase::Connecting
    }

    /// Whether that query will be alone on it, and it is not open yet.
    pub(super) fn is_connecting_for(&self, key: Key) -> bool {
        self.purpose == Purpose::Isolated(key) && self.phase == Phase::Connecting
    }

    /// Whether it is silent, and would take queries all the same where there is nothing better.
    pub(super) fn is_last_resort(&self) -> bool {
        self.is_shared() && self.phase == Phase::Open && self.is_silent
    }

    /// Whether it is open for queries of all kinds, as far as is known.
    pub(super) fn is_usable(&self) -> bool {
        self.is_shared() && self.phase == Phase::Open && !self.is_silent
    }

    /// How long it may be silent while a query waits: four round trips, though no less than `least`; or `most`, which is also
    /// for one that has not answered yet, but longer where it took long to open, up to `longest`.
    pub(super) fn silence_timeout(
        &self,
        least: Duration,
        most: Duration,
        longest: Duration,
    ) -> Duration {
        let most = most.max((self.connect_time * 5 / 4).min(longest));
        self.srtt
            .map_or(most, |srtt| (srtt * 4).max(least).min(most))
    }

    /// Something came that is of use.
    pub(super) fn mark_received(&mut self, now: Instant) {
        self.last_received_at = now;
        self.is_silent = false;
    }

    /// An answer came after so long.
    pub(super) fn record_answer(&mut self, took: Duration) {
        // Smoothed as TCP does it (RFC 6298 section 2): an eighth of the new.
        let smoothed = |average: Duration| (average * 7 + took) / 8;
        self.srtt = Some(self.srtt.map_or(took, smoothed));
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

    pub(super) fn insert(&mut self, query: Q) -> Key {
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        let slot = self.entries.insert(Entry {
            number,
            query,
            queue: Queue::None,
            sends: 0,
            tried: RankSet::default(),
            transmissions: SmallVec::new(),
            form: None,
            is_late: false,
            ended_session_at: None,
            failed: RankSet::default(),
        });
        Key { slot, number }
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry<Q>> {
        let entry = self.entries.get(key.slot);
        entry.filter(|entry| entry.number == key.number)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry<Q>> {
        let entry = self.entries.get_mut(key.slot);
        entry.filter(|entry| entry.number == key.number)
    }

    /// Whether it waits there.
    pub(super) fn is_queued_in(&self, key: Key, queue: Queue) -> bool {
        self.get(key).is_some_and(|entry| entry.queue == queue)
    }

    /// Takes it out, as it has ended.
    pub(super) fn remove(&mut self, key: Key) -> Option<Entry<Q>> {
        self.get(key)?;
        self.entries.try_remove(key.slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Entry<Q>)> {
        self.entries.iter().map(|(slot, entry)| {
            let number = entry.number;
            (Key { slot, number }, entry)
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
