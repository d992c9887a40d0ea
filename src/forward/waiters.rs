//! Who waits for this answer, and until when?
//!
//! Each client gets the answer to its own message by its own deadline, of whatever kind it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::client::destination::Client;
use crate::forward::quota::Slot;
use crate::message::{self, Asked, Edns};
use crate::system::clock::micros;

/// The clients that wait for a query: mostly there is one.
pub type Waiters = SmallVec<[Waiter; 1]>;

/// A client that waits.
#[derive(Debug)]
pub struct Waiter {
    /// Who asked.
    pub client: Client,
    /// When it asked.
    pub since: Instant,
    /// By when it gets an answer, of whatever kind.
    pub deadline: Instant,
    /// Where it is counted, and with how many octets.
    pub slot: Slot,
    /// Those octets.
    pub octets: u32,
    id: u16,
    flags: [u8; 2],
    edns: Option<Edns>,
    /// Its question, where it spells the name in another way than the query does.
    own_question: Option<Box<[u8]>>,
}

impl Waiter {
    /// The client of `query`, which was asked at `since` and gets an answer within `timeout` of that. It is counted at `slot`
    /// with so many octets.
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

    /// What its answer must repeat, when it waits for a query with that question.
    pub fn asked<'q>(&'q self, question: &'q [u8]) -> Asked<'q> {
        Asked {
            id: self.id,
            flags: self.flags,
            question: self.own_question.as_deref().unwrap_or(question),
            edns: self.edns,
            keepalive: None,
        }
    }
}

/// The clients that wait for one query, and when somebody is to look after them.
#[derive(Debug)]
pub(super) struct WaitingClients {
    began: Instant,
    /// How long a client waits for it.
    timeout: Duration,
    /// When the last of them gets an answer, of whatever kind, in microseconds since it began.
    deadline: AtomicU64,
    /// When somebody is to look after them, on the same scale.
    due: AtomicU64,
    /// When they are content with an expired answer, if there is one.
    stale_at: Option<Instant>,
    list: Mutex<Waiters>,
}

impl WaitingClients {
    /// None yet, of a query that is none yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            timeout: Duration::ZERO,
            deadline: AtomicU64::new(0),
            due: AtomicU64::new(0),
            stale_at: None,
            list: Mutex::default(),
        }
    }

    /// Has them be none, of a query that is to be answered within `timeout` of `now`.
    pub(super) fn reset(&mut self, now: Instant, timeout: Duration) {
        // Each field by its name, so that none is forgotten.
        let Self {
            began,
            timeout: new_timeout,
            deadline,
            due,
            stale_at,
            list,
        } = self;
        *began = now;
        *new_timeout = timeout;
        *deadline.get_mut() = micros(timeout);
        *due.get_mut() = micros(timeout);
        *stale_at = None;
        list.get_mut().clear();
    }

    /// When their query began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// When the last of them gets an answer, of whatever kind.
    pub(super) fn deadline(&self) -> Instant {
        self.began + Duration::from_micros(self.deadline.load(Ordering::Acquire))
    }

    /// When somebody is to look after them.
    pub(super) fn due(&self) -> Instant {
        self.began + Duration::from_micros(self.due.load(Ordering::Acquire))
    }

    /// Has them wait for that much longer: nobody could be answered meanwhile.
    pub(super) fn extend(&self, by: Duration) {
        let mut waiters = self.list.lock();
        for waiter in waiters.iter_mut() {
            waiter.since += by;
            waiter.deadline += by;
        }
        self.deadline.fetch_add(micros(by), Ordering::AcqRel);
        self.due.fetch_add(micros(by), Ordering::AcqRel);
    }

    /// The number of the place where the first of them is counted; 0 if there is none.
    pub(super) fn first(&self) -> u16 {
        let waiters = self.list.lock();
        waiters.first().map_or(0, |waiter| waiter.slot.number())
    }

    /// After so long its clients are content with an expired answer.
    pub(super) fn serve_stale_after(&mut self, patience: Duration) {
        self.stale_at = Some(self.began + patience);
        *self.due.get_mut() = micros(patience.min(self.timeout));
    }

    /// Has a client wait for it.
    pub(super) fn add(&self, waiter: Waiter) {
        self.list.lock().push(waiter);
    }

    /// How long a client waits for it.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether clients that wait should be content with an expired answer.
    pub(super) fn is_stale_due(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|stale_at| stale_at <= now)
    }

    /// How many wait.
    pub(super) fn waiter_count(&self) -> usize {
        self.list.lock().len()
    }

    /// Takes all that wait off the list.
    pub(super) fn take_waiters(&self) -> Waiters {
        std::mem::take(&mut *self.list.lock())
    }

    /// Takes those off the list whose time is over.
    pub(super) fn take_expired(&self, now: Instant) -> Waiters {
        let mut waiters = self.list.lock();
        let (overdue, others) = std::mem::take(&mut *waiters)
            .into_iter()
            .partition(|waiter| waiter.deadline <= now);
        *waiters = others;
        overdue
    }

    /// Sets when to look again, and by when it ends: not later for those who do not wait any more.
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
        let due = deadlines().chain(stale_at).min().unwrap_or(deadline);
        self.deadline.store(deadline, Ordering::Release);
        self.due.store(due.min(deadline), Ordering::Release);
    }

    /// Has the clients of an equal query wait for this one. `respelled` is their question, where they spell it in another way.
    pub(super) fn add_waiters_of(&self, other: &Self, respelled: Option<&[u8]>) {
        let arrivals = other.take_waiters();
        let mut waiters = self.list.lock();
        for mut waiter in arrivals {
            if waiter.own_question.is_none() {
                waiter.own_question = respelled.map(Box::from);
            }
            let deadline = self.micros_since_began(waiter.deadline);
            self.deadline.fetch_max(deadline, Ordering::AcqRel);
            self.due.fetch_min(deadline, Ordering::AcqRel);
            waiters.push(waiter);
        }
        // Whoever looked after the others may have been here just now, and thinks that nobody waits.
        if let Some(stale_at) = self.stale_at {
            self.due
                .fetch_min(self.micros_since_began(stale_at), Ordering::AcqRel);
        }
    }

    /// Whether others may still join. Later it may be lost on its way, and they ask anew; but those that are content with
    /// an expired answer need not.
    pub(super) fn accepts_waiters(&self, now: Instant) -> bool {
        let patience = if self.is_stale_due(now) {
            self.timeout
        } else {
            self.timeout / 2
        };
        now < self.began + patience
    }

    fn micros_since_began(&self, moment: Instant) -> u64 {
        micros(moment.saturating_duration_since(self.began))
    }
}
