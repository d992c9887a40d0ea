//! Which connection is evicted first?
//!
//! [`ConnectionLimit`](crate::client::connection_limit::ConnectionLimit) documents the order. The current time is a parameter.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a connection is busy before the longest busy one is evicted rather than the youngest. Most answers arrive and are read
/// sooner, and a client that loses its connection just before the answer has waited for nothing.
const MIN_BUSY_TIME: Duration = Duration::from_millis(500);

/// How soon a connection is evicted: the smallest rank first. The time is the start of the state that the variant names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EvictionRank {
    /// The connection is idle, and its client exceeded the rate limit or may not ask.
    OverLimit(Instant),
    /// The connection has no query in flight and no unread answer.
    Idle(Instant),
    /// A query is in flight, and the last one that ended had no answer from the resolver.
    Unanswered(Instant),
    /// A query is in flight, or answers wait until the client reads them.
    Busy(Instant),
    /// The same, for less than [`MIN_BUSY_TIME`]; the youngest first.
    RecentlyBusy(Reverse<Instant>),
    /// The connection is not evicted.
    Protected,
}

impl EvictionRank {
    /// The rank where only idle connections may be evicted.
    pub(super) fn only_if_idle(self) -> Self {
        match self {
            Self::OverLimit(_) | Self::Idle(_) => self,
            _ => Self::Protected,
        }
    }

    /// The rank that takes into account for how long a busy connection has been busy: after [`MIN_BUSY_TIME`] the longest busy one
    /// is evicted first. Before that the connection is protected if `spare_recent`; otherwise the youngest is evicted first.
    pub(super) fn by_busy_time(self, spare_recent: bool, now: Instant) -> Self {
        match self {
            Self::Busy(since) if now.saturating_duration_since(since) >= MIN_BUSY_TIME => self,
            Self::Busy(_) if spare_recent => Self::Protected,
            Self::Busy(since) => Self::RecentlyBusy(Reverse(since)),
            other => other,
        }
    }
}

/// The index of the connection to evict, given the client and the rank of each connection. None if all are protected.
pub(super) fn select_victim<C: Eq + Hash>(
    connections: impl Iterator<Item = (C, EvictionRank)>,
) -> Option<usize> {
    let mut over_limit = None;
    let mut clients: HashMap<C, (usize, Option<(EvictionRank, usize)>)> = HashMap::new();
    for (index, (client, rank)) in connections.enumerate() {
        let (count, first) = clients.entry(client).or_default();
        *count = count.saturating_add(1);
        let candidate = Some((rank, index)).filter(|_| rank != EvictionRank::Protected);
        *first = first.iter().copied().chain(candidate).min();
        if let EvictionRank::OverLimit(since) = rank {
            over_limit = over_limit.iter().copied().chain([(since, index)]).min();
        }
    }
    let most_connections = clients
        .into_values()
        .filter_map(|(count, first)| Some((count, Reverse(first?))))
        // A client's only connection is never evicted while it is recently busy.
        .filter(|(count, Reverse((rank, _)))| {
            *count > 1 || !matches!(rank, EvictionRank::RecentlyBusy(_))
        })
        .max();
    let of_largest_client = most_connections.map(|(_, Reverse((_, index)))| index);
    over_limit.map(|(_, index)| index).or(of_largest_client)
}

#[cfg(test)]
mod tests;
