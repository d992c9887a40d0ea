//! How many octets may messages hold?
//!
//! Memory that clients can make this process hold is reserved here before it is used: queries that wait for an answer, replies to
//! clients that read slowly, lines of the query log. Each purpose has its own share, so that one kind of load cannot take the
//! memory of another. The fuller a share is, the smaller is the part that one client may take ([`is_fair`]). Dropping a
//! [`Reservation`] returns its octets.
//!
//! [`Memory`] is shared by all threads without a lock: each share is a pair of independent atomic counters.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Octets that a TCP connection costs besides its queries and replies: twice the kernel's two buffers (the kernel counts twice
/// what is asked for, see [`SEND_BUFFER`] and [`RECEIVE_BUFFER`]), the read buffer and the reply buffer.
pub const CONNECTION_BYTES: usize =
    2 * SEND_BUFFER + 2 * RECEIVE_BUFFER + READ_BUFFER + REPLY_BUFFER;
/// Size in octets of the kernel's send buffer of a TCP client, as requested (SO_SNDBUF).
pub const SEND_BUFFER: usize = 16 * 1024;
/// Size in octets of the kernel's receive buffer of a TCP client, as requested (SO_RCVBUF).
pub const RECEIVE_BUFFER: usize = 8 * 1024;
/// Octets that are read from a client at a time, unless one message is longer.
pub const READ_BUFFER: usize = 4096;
/// Octets of replies that a thread collects without a reservation.
pub const REPLY_BUFFER: usize = 16 * 1024;

/// Minimum of `--max-memory` in octets: room for a few messages of maximum length in each share.
pub const MIN_LIMIT: usize = 4 * 1024 * 1024;
/// Default octets for messages, besides [`CONNECTION_BYTES`] per connection.
const DEFAULT_MESSAGE_BYTES: usize = 15 * 1024 * 1024;
/// The part of a small limit that is kept for messages, in 32nds.
const MIN_MESSAGE_32NDS: usize = 15;

/// What octets are reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Queries that wait for the resolver, and messages of TCP clients longer than [`READ_BUFFER`].
    Queries,
    /// Replies to TCP clients that are being written, or wait until the client reads.
    Replies,
    /// Lines of the query log that wait to be written.
    QueryLog,
}

impl Purpose {
    /// All purposes, in the order of their shares.
    pub const ALL: [Self; 3] = [Self::Queries, Self::Replies, Self::QueryLog];

    /// The value of the label `purpose` in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Replies => "replies",
            Self::QueryLog => "query-log",
        }
    }

    /// The purpose's part, in 15ths, of what connections leave.
    fn weight(self) -> usize {
        match self {
            Self::Queries => 9,
            Self::Replies => 5,
            Self::QueryLog => 1,
        }
    }
}

/// The limits from which the shares follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Octets in all (`--max-memory`), at least [`MIN_LIMIT`]; by default 32 MiB for 256 connections.
    pub limit: usize,
    /// TCP connections wanted at a time (`--max-clients`).
    pub connections: usize,
}

impl Settings {
    /// The default limit in octets: enough for all `connections`.
    pub fn default_limit(connections: usize) -> usize {
        DEFAULT_MESSAGE_BYTES + CONNECTION_BYTES * connections.max(256)
    }

    /// The number of connections that the limit has room for: at least 1, at most the number wanted.
    pub fn max_connections(&self) -> usize {
        let messages = DEFAULT_MESSAGE_BYTES.min(self.limit / 32 * MIN_MESSAGE_32NDS);
        let affordable = self.limit.saturating_sub(messages) / CONNECTION_BYTES;
        self.connections.min(affordable).max(1)
    }
}

/// Counts the octets that messages hold, per purpose.
pub struct Memory {
    limit: usize,
    shares: [Share; Purpose::ALL.len()],
}

#[derive(Debug, Default)]
struct Share {
    limit: usize,
    held: AtomicUsize,
    refused: AtomicU64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Divides the limit into shares, all of them empty.
    pub fn new(settings: Settings) -> Arc<Self> {
        let free = settings
            .limit
            .saturating_sub(settings.max_connections() * CONNECTION_BYTES);
        let weights: usize = Purpose::ALL.iter().map(|purpose| purpose.weight()).sum();
        let share = |purpose: Purpose| Share {
            limit: free / weights * purpose.weight(),
            ..Share::default()
        };
        Arc::new(Self {
            limit: settings.limit,
            shares: Purpose::ALL.map(share),
        })
    }

    /// The limit in octets, connections included.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Octets that a purpose may hold.
    pub fn share_limit(&self, purpose: Purpose) -> usize {
        self.share_of(purpose).limit
    }

    /// Octets that a purpose holds.
    pub fn held(&self, purpose: Purpose) -> usize {
        self.share_of(purpose).held.load(Ordering::Relaxed)
    }

    /// Octets that a purpose may still take.
    pub fn free(&self, purpose: Purpose) -> usize {
        self.share_limit(purpose).saturating_sub(self.held(purpose))
    }

    /// How many reservations for a purpose were refused.
    pub fn refused(&self, purpose: Purpose) -> u64 {
        self.share_of(purpose).refused.load(Ordering::Relaxed)
    }

    /// Counts a refusal that the caller decided, though the share may have room for others.
    pub fn count_refused(&self, purpose: Purpose) {
        self.share_of(purpose)
            .refused
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Reserves `octets`, or returns `None` if the share has no room for them.
    pub fn reserve(self: &Arc<Self>, purpose: Purpose, octets: usize) -> Option<Reservation> {
        let mut reservation = Reservation {
            memory: Arc::clone(self),
            purpose,
            octets: 0,
        };
        reservation.resize(octets).then_some(reservation)
    }

    fn share_of(&self, purpose: Purpose) -> &Share {
        &self.shares[purpose as usize]
    }

    /// Takes octets from a share if it has room and `accept` agrees to what then remains free. Counts a refusal otherwise.
    fn try_take(
        &self,
        purpose: Purpose,
        octets: usize,
        accept: impl FnOnce(usize) -> bool,
    ) -> bool {
        let share = self.share_of(purpose);
        // Relaxed: the counter orders no other memory.
        let held = share.held.fetch_add(octets, Ordering::Relaxed);
        let free = held
            .checked_add(octets)
            .and_then(|held| share.limit.checked_sub(held));
        let fits = free.is_some_and(accept);
        if !fits {
            share.held.fetch_sub(octets, Ordering::Relaxed);
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn release(&self, purpose: Purpose, octets: usize) {
        self.share_of(purpose)
            .held
            .fetch_sub(octets, Ordering::Relaxed);
    }
}

/// Whether one client may hold `part` of a `total` of which `free` then remains: a 4096th at most, or no more than the cube of
/// the free fraction.
///
/// One client alone gets a third at most. When `n` clients in turn take all that they may, a `1/sqrt(2n + 1)` of the total
/// remains, of which everyone else may have a small part. (Thresholds that follow the free part of a shared memory are
/// Choudhury's and Hahne's, IEEE/ACM Transactions on Networking 6(2), 1998. Theirs are proportional to it, so `n` clients in turn
/// leave a `1/2^n`.)
pub fn is_fair(part: usize, free: usize, total: usize) -> bool {
    // In 65,536ths, so that its cube fits.
    let free_part = ((free.min(total) as u128) << 16) / total.max(1) as u128;
    is_small(part, total) || (part as u128) << 48 <= total as u128 * free_part.pow(3)
}

/// Whether `part` is so small a part of `total`, a 4096th, that every client may have it while there is room.
pub fn is_small(part: usize, total: usize) -> bool {
    part <= (total / 4096).max(1)
}

/// Octets held for a purpose until this value is dropped.
#[derive(Debug)]
pub struct Reservation {
    memory: Arc<Memory>,
    purpose: Purpose,
    octets: usize,
}

impl Reservation {
    /// Reserves `octets` for the same purpose, separately from these, if there is room.
    pub fn reserve_another(&self, octets: usize) -> Option<Self> {
        self.memory.reserve(self.purpose, octets)
    }

    /// The number of octets held.
    pub fn octets(&self) -> usize {
        self.octets
    }

    /// Changes the number of octets held to `octets`. If there is no room for more, nothing changes and the result is `false`.
    pub fn resize(&mut self, octets: usize) -> bool {
        self.resize_if(octets, |_| true)
    }

    /// Like [`Reservation::resize`], but also refuses more than [`is_fair`] allows.
    pub fn resize_fairly(&mut self, octets: usize) -> bool {
        let share = self.memory.share_limit(self.purpose);
        self.resize_if(octets, |free| is_fair(octets, free, share))
    }

    fn resize_if(&mut self, octets: usize, accept: impl FnOnce(usize) -> bool) -> bool {
        if octets > self.octets {
            let more = octets - self.octets;
            if !self.memory.try_take(self.purpose, more, accept) {
                return false;
            }
        } else if octets < self.octets {
            self.memory.release(self.purpose, self.octets - octets);
        }
        self.octets = octets;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.octets > 0 {
            self.memory.release(self.purpose, self.octets);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Settings = Settings {
        limit: 32 * 1024 * 1024,
        connections: 256,
    };

    #[test]
    fn the_default_has_room_for_all_connections_and_shares_sum_to_the_limit() {
        assert_eq!(Settings::default_limit(1), DEFAULT.limit);
        assert_eq!(Settings::default_limit(256), DEFAULT.limit);
        for connections in [1, 16, 256, 1000, 65_536] {
            for limit in [
                MIN_LIMIT,
                10 << 20,
                DEFAULT.limit,
                Settings::default_limit(connections),
            ] {
                let settings = Settings { limit, connections };
                let memory = Memory::new(settings);
                let shares: usize = Purpose::ALL
                    .map(|purpose| memory.share_limit(purpose))
                    .iter()
                    .sum();
                let all = settings.max_connections() * CONNECTION_BYTES + shares;
                assert!(all <= limit, "{all} of {settings:?}");
                assert!(limit - all < 100, "{all} of {settings:?}");
                assert!(
                    memory.share_limit(Purpose::Replies) > 4 * 65_537,
                    "{settings:?}"
                );
                assert!(settings.max_connections() >= 1);
            }
            let limit = Settings::default_limit(connections);
            let settings = Settings { limit, connections };
            assert_eq!(settings.max_connections(), connections);
        }
        let small = Settings {
            connections: 1000,
            ..DEFAULT
        };
        assert_eq!(small.max_connections(), 256);
    }

    #[test]
    fn reservations_fit_their_share_and_are_returned() {
        let memory = Memory::new(DEFAULT);
        let share = memory.share_limit(Purpose::QueryLog);
        let first = memory.reserve(Purpose::QueryLog, share - 10);
        let mut first = first.expect("it is empty");
        assert!(memory.reserve(Purpose::QueryLog, 11).is_none());
        assert_eq!(memory.refused(Purpose::QueryLog), 1);
        let second = memory.reserve(Purpose::QueryLog, 10).expect("it just fits");
        assert!(!first.resize(share) && first.octets() == share - 10);
        assert_eq!(memory.free(Purpose::QueryLog), 0);
        drop(second);
        assert!(first.resize(share) && first.resize(0));
        assert_eq!(memory.held(Purpose::QueryLog), 0);
        assert_eq!(memory.held(Purpose::Queries), 0, "another share");
        assert!(memory.reserve(Purpose::Queries, usize::MAX).is_none());
        assert_eq!(memory.held(Purpose::Queries), 0);
    }

    #[test]
    fn greedy_clients_leave_a_fair_part_for_the_others() {
        for many in [1, 2, 10, 250] {
            let memory = Memory::new(DEFAULT);
            let share = memory.share_limit(Purpose::Queries);
            let greedy = (0..many).map(|_| {
                let mut one = memory.reserve(Purpose::Queries, 0).expect("nothing fits");
                while one.resize_fairly(one.octets() + 500) {}
                one
            });
            let greedy: Vec<_> = greedy.collect();
            assert!(greedy[0].octets() > share / 4 && greedy[0].octets() < share / 3);
            let free = memory.free(Purpose::Queries) as f64 / share as f64;
            let expected = 1.0 / (2.0 * f64::from(many) + 1.0).sqrt();
            assert!(free > 0.8 * expected, "{free} beside {many}");
            let honest = (0..50).map(|_| {
                let mut one = memory.reserve(Purpose::Queries, 0).expect("nothing fits");
                assert!(one.resize_fairly(share / 4096));
                one
            });
            assert_eq!(honest.count(), 50);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(usize, usize),
        Resize(usize, usize, bool),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_usize, 0..3_000_000_usize).prop_map(|(at, octets)| Step::Reserve(at, octets)),
            (any::<usize>(), 0..3_000_000_usize, any::<bool>())
                .prop_map(|(at, octets, fairly)| Step::Resize(at, octets, fairly)),
            any::<usize>().prop_map(Step::Drop),
        ]
    }

    proptest! {
        #[test]
        fn the_count_of_held_octets_equals_the_reservations(steps in prop::collection::vec(step(), 0..200)) {
            let memory = Memory::new(DEFAULT);
            let mut held: Vec<Reservation> = Vec::new();
            for step in steps {
                match step {
                    Step::Reserve(purpose, octets) => {
                        held.extend(memory.reserve(Purpose::ALL[purpose], octets));
                    }
                    Step::Resize(at, octets, fairly) if !held.is_empty() => {
                        let at = at % held.len();
                        let before = held[at].octets();
                        let resized = if fairly {
                            held[at].resize_fairly(octets)
                        } else {
                            held[at].resize(octets)
                        };
                        prop_assert_eq!(held[at].octets(), if resized { octets } else { before });
                        prop_assert!(resized || octets > before, "less always fits");
                    }
                    Step::Drop(at) if !held.is_empty() => drop(held.swap_remove(at % held.len())),
                    _ => {}
                }
                for purpose in Purpose::ALL {
                    let of_it = held.iter().filter(|one| one.purpose == purpose);
                    let octets: usize = of_it.map(Reservation::octets).sum();
                    prop_assert_eq!(octets, memory.held(purpose));
                    prop_assert!(octets <= memory.share_limit(purpose));
                }
            }
            drop(held);
            prop_assert!(Purpose::ALL.iter().all(|purpose| memory.held(*purpose) == 0));
        }
    }
}
