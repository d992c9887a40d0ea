//! Which connection is the first to go?
//!
//! See [`ConnectionLimit`](crate::client::connection_limit::ConnectionLimit) for the order. Time is passed in.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How long a connection keeps us before it is evicted for that rather than a younger one: most answers come sooner and are read at
/// once, and whoever is evicted just before its answer has waited in vain.
const LEAST: Duration = Duration::from_millis(500);

/// How a connection keeps its place, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keeps {
    /// It is idle, and its client asked more than it may.
    OverLimit(Instant),
    /// Nothing is owed to its client, and nothing came of it.
    Idle(Instant),
    /// A query waits for its answer, and the last one of its client's had none from the resolver.
    Unanswered(Instant),
    /// A query waits for its answer, or answers wait until they are read.
    Busy(Instant),
    /// So does it since a moment ago.
    Young(Reverse<Instant>),
    /// It stays.
    Stays,
}

impl Keeps {
    /// The same where only what is idle goes.
    pub(super) fn idle(self) -> Self {
        match self {
            Self::OverLimit(_) | Self::Idle(_) => self,
            _ => Self::Stays,
        }
    }

    /// The same where what is busy goes by how long it has been: the oldest first, if it has been for long, else the youngest; and
    /// that not as long as the newcomer `waits`.
    pub(super) fn by_age(self, waits: bool, now: Instant) -> Self {
        match self {
            Self::Busy(since) if now.saturating_duration_since(since) >= LEAST => self,
            Self::Busy(_) if waits => Self::Stays,
            Self::Busy(since) => Self::Young(Reverse(since)),
            other => other,
        }
    }
}

/// Of connections, each with its client and how it keeps its place, which one is the first to go.
pub(super) fn first_to_go<C: Eq + Hash>(
    connections: impl Iterator<Item = (C, Keeps)>,
) -> Option<usize> {
    let mut over_limit = None;
    let mut clients: HashMap<C, (usize, Option<(Keeps, usize)>)> = HashMap::new();
    for (place, (client, keeps)) in connections.enumerate() {
        let (count, first) = clients.entry(client).or_default();
        *count = count.saturating_add(1);
        let found = Some((keeps, place)).filter(|_| keeps != Keeps::Stays);
        *first = first.iter().copied().chain(found).min();
        if let Keeps::OverLimit(since) = keeps {
            over_limit = over_limit.iter().copied().chain([(since, place)]).min();
        }
    }
    let most = clients
        .into_values()
        .filter_map(|(count, first)| Some((count, Reverse(first?))))
        // Who has one place keeps it for a moment, whoever comes.
        .filter(|(count, Reverse((keeps, _)))| *count > 1 || !matches!(keeps, Keeps::Young(_)))
        .max();
    let of_most = most.map(|(_, Reverse((_, place)))| place);
    over_limit.map(|(_, place)| place).or(of_most)
}

#[cfg(test)]
mod tests;
