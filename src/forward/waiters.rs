//! Which clients wait for this answer, and until when?
//!
//! Each client gets an answer to its own message by its own deadline: the resolver's, an expired one or a failure.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::client::destination::Client;
use crate::forward::quota::Slot;
use crate::message::{self, Edns, ReplyTo};
use crate::system::clock::micros;

/// The clients that wait for a query. Mostly there is one.
pub type Waiters = SmallVec<[Waiter; 1]>;

/// A client that waits for an answer.
#[derive(Debug)]
pub struct Waiter {
    /// Where its answer goes.
    pub client: Client,
    /// When its query came, later by any time that the host was suspended.
    pub since: Instant,
    /// When it gets an answer at the latest.
    pub deadline: Instant,
    /// The slot in which its query is counted.
    pub slot: Slot,
    /// The octets with which its query is counted.
    pub octets: u32,
    id: u16,
    flags: [u8; 2],
    edns: Option<Edns>,
    /// Its question, if the case of its letters differs from the query in flight.
    own_question: Option<Box<[u8]>>,
}

impl Waiter {
    /// The client of `query`, which came at `since` and gets an answer within `timeout`. The query is counted in `slot` with `octets`.
    pub fn new(
        query: &message::Query<'_>,
        client: Client,
        since: Instant,
        timeout: Duration,
        (slot, octets): (Slot, u32),
    ) -> Self {
        Self {
            client,
            since,
            deadline: since + timeout,
            slot,
            octets,
            id: query.id(),
            flags: query.flags(),
            edns: query.edns().copied(),
            own_question: None,
        }
    }

    /// What the answer to this client must repeat of its query. `question` is that of the query in flight.
    pub fn reply_to<'q>(&'q self, question: &'q [u8]) -> ReplyTo<'q> {
        ReplyTo {
            id: self.id,
            flags: self.flags,
            question: self.own_question.as_deref().unwrap_or(question),
            edns: self.edns,
            keepalive: None,
            source: None,
        }
    }
}

/// The clients that wait for one query in flight, and when the timer is to serve them.
///
/// Shared by the threads of clients and of sessions and by the timer. The lock guards the list. The times are atomic, and are written
/// under that lock. No other lock is taken under it.
#[derive(Debug)]
pub(super) struct WaitingClients {
    began: Instant,
    /// How long a client waits for an answer.
    timeout: Duration,
    /// When the last client gets an answer at the latest, in microseconds since the query began.
    deadline: AtomicU64,
    /// When the timer is to check the clients next, in microseconds since the query began.
    next_check: AtomicU64,
    /// When the clients get an expired answer in place of a fresh one; None if there was none in the cache.
    stale_at: Option<Instant>,
    /// The index of the slot of the client that asked first; 0 without one.
    first_slot: u16,
    list: Mutex<Waiters>,
}

impl WaitingClients {
    /// No clients, of a query without a message.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            timeout: Duration::ZERO,
            deadline: AtomicU64::new(0),
            next_check: AtomicU64::new(0),
            stale_at: None,
            first_slot: 0,
            list: Mutex::default(),
        }
    }

    /// Removes all clients, for a query that is to be answered within `timeout` of `now`.
    pub(super) fn reset(&mut self, now: Instant, timeout: Duration) {
        // Each field is named, so that none is forgotten.
        let Self {
            began,
            timeout: new_timeout,
            deadline,
            next_check,
            stale_at,
            first_slot,
            list,
        } = self;
        *began = now;
        *new_timeout = timeout;
        *deadline.get_mut() = micros(timeout);
        *next_check.get_mut() = micros(timeout);
        *stale_at = None;
        *first_slot = 0;
        list.get_mut().clear();
    }

    /// When the query began.
    pub(super) fn started_at(&self) -> Instant {
        self.began
    }

    /// When the last client gets an answer at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.began + Duration::from_micros(self.deadline.load(Ordering::Acquire))
    }

    /// When the timer is to check the clients next.
    pub(super) fn next_check(&self) -> Instant {
        self.began + Duration::from_micros(self.next_check.load(Ordering::Acquire))
    }

    /// Adds `by` to all deadlines, since the host was suspended for so long.
    pub(super) fn extend(&self, by: Duration) {
        let mut waiters = self.list.lock();
        for waiter in waiters.iter_mut() {
            waiter.since += by;
            waiter.deadline += by;
        }
        self.deadline.fetch_add(micros(by), Ordering::AcqRel);
        self.next_check.fetch_add(micros(by), Ordering::AcqRel);
    }

    /// The index of the slot of the client that asked first; 0 if the query began without a client.
    pub(super) fn first_slot(&self) -> u16 {
        self.first_slot
    }

    /// Sets how long clients wait for a fresh answer before they get the expired one (RFC 8767 section 5).
    pub(super) fn serve_stale_after(&mut self, stale_after: Duration) {
        self.stale_at = Some(self.began + stale_after);
        *self.next_check.get_mut() = micros(stale_after.min(self.timeout));
    }

    /// Adds the client that asks first.
    pub(super) fn add(&mut self, waiter: Waiter) {
        self.first_slot = waiter.slot.index();
        self.list.get_mut().push(waiter);
    }

    /// Whether clients get an expired answer now.
    pub(super) fn is_stale_due(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|stale_at| stale_at <= now)
    }

    /// The number of clients.
    pub(super) fn waiter_count(&self) -> usize {
        self.list.lock().len()
    }

    /// Takes all clients off the list.
    pub(super) fn take_waiters(&self) -> Waiters {
        std::mem::take(&mut *self.list.lock())
    }

    /// Takes the clients off the list whose deadline has passed.
    pub(super) fn take_expired(&self, now: Instant) -> Waiters {
        let mut waiters = self.list.lock();
        let (expired, others) = std::mem::take(&mut *waiters)
            .into_iter()
            .partition(|waiter| waiter.deadline <= now);
        *waiters = others;
        expired
    }

    /// Computes the next check and the deadline from the clients that still wait.
    pub(super) fn reschedule(&self, now: Instant) {
        let waiters = self.list.lock();
        let deadlines = || {
            waiters
                .iter()
                .map(|waiter| self.micros_since_began(waiter.deadline))
        };
        let stale_at = self.stale_at.filter(|stale_at| *stale_at > now);
        let stale_at = stale_at.map(|stale_at| self.micros_since_began(stale_at));
        let deadline = deadlines().max().unwrap_or(0).max(micros(self.timeout));
        let next_check = deadlines().chain(stale_at).min().unwrap_or(deadline);
        self.deadline.store(deadline, Ordering::Release);
        self.next_check
            .store(next_check.min(deadline), Ordering::Release);
    }

    /// Moves the clients of an equal query here. `other_question` is their question, if the case of its letters differs from this query.
    pub(super) fn add_waiters_of(&self, other: &Self, other_question: Option<&[u8]>) {
        let moved = other.take_waiters();
        let mut waiters = self.list.lock();
        for mut waiter in moved {
            if waiter.own_question.is_none() {
                waiter.own_question = other_question.map(Box::from);
            }
            let deadline = self.micros_since_began(waiter.deadline);
            self.deadline.fetch_max(deadline, Ordering::AcqRel);
            self.next_check.fetch_min(deadline, Ordering::AcqRel);
            waiters.push(waiter);
        }
        // The timer may have checked this query a moment ago and set its next check as if nobody waited.
        if let Some(stale_at) = self.stale_at {
            self.next_check
                .fetch_min(self.micros_since_began(stale_at), Ordering::AcqRel);
        }
    }

    /// Whether more clients may wait for this query: for half of its timeout, since the query may be lost, or for all of it once
    /// clients get an expired answer.
    pub(super) fn accepts_waiters(&self, now: Instant) -> bool {
        let window = if self.is_stale_due(now) {
            self.timeout
        } else {
            self.timeout / 2
        };
        now < self.began + window
    }

    fn micros_since_began(&self, moment: Instant) -> u64 {
        micros(moment.saturating_duration_since(self.began))
    }
}
