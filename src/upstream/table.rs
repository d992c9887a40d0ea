//! Which sessions are open, and which query waits where?
//!
//! The pool's tables: queries in flight, sessions, and which query is pending on which session. The rules are in [`super::pool`].

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use slab::Slab;
use smallvec::SmallVec;

use super::culprits::QueryGroups;
use crate::identity::key_exchange::HelloSize;
use crate::message::QueryForm;

/// What the pool needs to know of a query.
pub trait PoolQuery: Clone {
    /// When the query ends at the latest, answered or not. May be extended.
    fn deadline(&self) -> Instant;
    /// When the clients that wait for the query must be served next: before the deadline or at it.
    fn due(&self) -> Instant;
    /// A hash of the query name.
    fn name_hash(&self) -> u16;
    /// A number for the client that asked first.
    fn client(&self) -> u16;
    /// The groups that the query belongs to.
    fn groups(&self) -> QueryGroups;
    /// Returns true if the query is signed, and may be sent in one form only.
    fn is_signed(&self) -> bool;
}

/// The number of a session. It is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// The key of a query in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    slot: usize,
    /// Tells the query from others that used the slot before.
    number: u32,
}

impl Key {
    /// The order of arrival: the older the query, the lower the number.
    pub(super) fn arrival_number(self) -> u32 {
        self.number
    }
}

/// The queue in which a query waits to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// None: the query is pending on a session.
    None,
    /// The queue for sessions that queries share.
    Shared,
    /// The queue for sessions that carry one query at a time.
    Isolated,
}

/// A query that was sent on a session and has no answer from it yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transmission {
    pub(super) session: SessionId,
    pub(super) id: u16,
    pub(super) sent_at: Instant,
    pub(super) form: QueryForm,
}

/// Does the resolver close sessions because of a query?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing speaks for it.
    None,
    /// It closed a session on which the query was. The query is tested on a session of its own.
    Suspect,
    /// It closed that one, too.
    Likely,
}

/// Clients whose queries wait while a suspect of theirs is tested; mostly none.
pub(super) type HeldClients = SmallVec<[u16; 8]>;

/// A query in flight.
#[derive(Debug)]
pub(super) struct Entry<Q> {
    number: u32,
    pub(super) query: Q,
    pub(super) queue: Queue,
    /// How often the query was sent, at most [`super::pool::MAX_SENDS`].
    pub(super) sends: u8,
    /// The addresses to which the query was sent.
    pub(super) tried: RankSet,
    pub(super) transmissions: SmallVec<[Transmission; 2]>,
    /// The form for the address of that rank, where it differs from the form that the address usually gets.
    pub(super) form: Option<(usize, QueryForm)>,
    /// Two sessions left the query unanswered for long enough. The name is slow or dead, and its silence says nothing about the sessions.
    pub(super) is_late: bool,
    pub(super) suspicion: Suspicion,
    /// A session ended on which the query was alone, at an address that answers other queries.
    pub(super) ended_session: bool,
    /// All queries that a session to the address of this rank left are tested, this one among them: if none of them ends its own session,
    /// none was the cause.
    pub(super) complete_test_at: Option<usize>,
    /// The addresses to avoid for this query: they answered it with a failure (kept as a fallback), or closed a session on which it was
    /// alone.
    pub(super) failed: RankSet,
}

impl<Q> Entry<Q> {
    /// When the query was last sent, among the transmissions that are still pending.
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

/// A set of address ranks, one bit each. Ranks from 63 on share the last bit; no configuration has that many.
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

/// What a session is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Queries share the session.
    Shared,
    /// The session carries this query alone.
    Isolated(Key),
    /// The attempt finds out whether the large hello works again. No query waits for it; once it is open, queries share it.
    Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    /// The session gets no new queries and closes after its last answer.
    Draining,
}

/// A session, or an attempt to open one (`Phase::Connecting`).
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The rank of the session's address: the lower, the more preferred.
    pub(super) rank: usize,
    pub(super) purpose: Purpose,
    pub(super) phase: Phase,
    pub(super) pending: HashMap<u16, Key, BuildHasherDefault<IdHasher>>,
    /// The hello of its handshake.
    pub(super) hello: HelloSize,
    /// When the large hello was sent, where the small one could have been.
    pub(super) hello_sent_at: Option<Instant>,
    /// When the connection attempt started.
    pub(super) started_at: Instant,
    /// How long connecting took, including the TLS handshake: several round trips.
    pub(super) connect_time: Duration,
    /// When data last arrived.
    pub(super) last_received_at: Instant,
    /// When a query was last sent.
    pub(super) last_sent_at: Instant,
    /// The smoothed time from query to answer (RFC 6298); none before the first answer.
    pub(super) srtt: Option<Duration>,
    pub(super) sent: u32,
    /// How many queries beyond the limit that the address seems to have may be sent here, to test that limit.
    pub(super) extra_sends: u32,
    pub(super) answered: u32,
    /// Nothing arrived for too long while queries were pending. The session gets no queries until data arrives.
    pub(super) is_silent: bool,
    /// The session was silent and got no answer since, or another session that had received data later was found dead; of an attempt: it
    /// began before the network changed.
    pub(super) is_doubtful: bool,
    /// The client of the last isolated query that was answered here.
    pub(super) cleared_client: Option<u16>,
    /// The session's token may still be refunded.
    pub(super) token_refundable: bool,
    /// How long the resolver keeps an idle session open, if it said so (RFC 7828).
    pub(super) keepalive: Option<Duration>,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        rank: usize,
        purpose: Purpose,
        hello: HelloSize,
        now: Instant,
    ) -> Self {
        Self {
            id,
            rank,
            purpose,
            phase: Phase::Connecting,
            hello,
            hello_sent_at: None,
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

    pub(super) fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Returns true if the session is not open although `after` has passed.
    pub(super) fn is_slow(&self, after: Duration, now: Instant) -> bool {
        self.is_connecting() && now >= self.started_at + after
    }

    /// Returns true if queries share the session, open or connecting, and it is not draining.
    pub(super) fn takes_shared_queries(&self) -> bool {
        self.is_shared() && self.phase != Phase::Draining
    }

    /// Returns true if the session is connecting and queries will share it.
    pub(super) fn is_shared_connecting(&self) -> bool {
        self.is_shared() && self.is_connecting()
    }

    /// Returns true if the session is connecting and `key` will be alone on it.
    pub(super) fn is_connecting_for(&self, key: Key) -> bool {
        self.purpose == Purpose::Isolated(key) && self.phase == Phase::Connecting
    }

    /// Returns true if the session is silent, but may take queries where nothing better is available.
    pub(super) fn is_last_resort(&self) -> bool {
        self.is_shared() && self.phase == Phase::Open && self.is_silent
    }

    /// Returns true if queries share the session, and it is open and not silent.
    pub(super) fn is_usable(&self) -> bool {
        self.is_shared() && self.phase == Phase::Open && !self.is_silent
    }

    /// How long the session may be silent while a query is pending: four round trips, within `least` and `most`. Before the first answer it
    /// is `most`. Where connecting took long, `most` is raised to five quarters of that, up to `longest`.
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

    /// Data arrived: the session is alive.
    pub(super) fn mark_received(&mut self, now: Instant) {
        self.last_received_at = now;
        self.is_silent = false;
    }

    /// Records that an answer came `took` after its query.
    pub(super) fn record_answer(&mut self, took: Duration) {
        // Smoothed like TCP's round trip time (RFC 6298 section 2): the new sample weighs an eighth.
        let smoothed = |average: Duration| (average * 7 + took) / 8;
        self.srtt = Some(self.srtt.map_or(took, smoothed));
        self.answered = self.answered.saturating_add(1);
    }
}

/// The queries in flight.
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
            suspicion: Suspicion::None,
            ended_session: false,
            complete_test_at: None,
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

    /// Returns true if the query waits in `queue`.
    pub(super) fn is_queued_in(&self, key: Key, queue: Queue) -> bool {
        self.get(key).is_some_and(|entry| entry.queue == queue)
    }

    /// Removes the query when it has ended.
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

/// Hashes message IDs. They are drawn at random already, and only have to be spread over the table.
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
