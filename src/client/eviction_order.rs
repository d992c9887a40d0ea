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
mod tests {
    use super::*;
    use crate::system::clock;

    /// The place of the one that goes, of connections of clients: `o`ver its limit, `i`dle, `u`nanswered, `b`usy, `y`oung or to stay, each with for how
    /// many seconds.
    fn goes(connections: &[(char, char, u64)]) -> Option<usize> {
        let now = clock::now() + Duration::from_secs(1000);
        first_to_go(connections.iter().map(|(client, kind, seconds)| {
            let since = now - Duration::from_secs(*seconds);
            let keeps = match kind {
                'o' => Keeps::OverLimit(since),
                'i' => Keeps::Idle(since),
                'u' => Keeps::Unanswered(since),
                'b' => Keeps::Busy(since),
                'y' => Keeps::Young(Reverse(since)),
                _ => Keeps::Stays,
            };
            (client, keeps)
        }))
    }

    #[test]
    fn whoever_has_the_most_places_gives_one_and_what_is_idle_goes_before_what_is_busy() {
        assert_eq!(goes(&[]), None);
        assert_eq!(goes(&[('a', '-', 9), ('b', '-', 9)]), None, "all stay");
        assert_eq!(
            goes(&[('a', 'i', 1), ('a', 'i', 2), ('a', 'b', 9)]),
            Some(1)
        );
        assert_eq!(
            goes(&[('a', 'b', 1), ('a', 'b', 2), ('a', '-', 9)]),
            Some(1)
        );
        assert_eq!(
            goes(&[('a', 'b', 9), ('a', 'u', 1), ('a', 'b', 9)]),
            Some(1)
        );
        assert_eq!(goes(&[('a', 'y', 3), ('b', 'y', 1)]), None, "one each");
        // Who is idle on one connection keeps it beside one that has many.
        assert_eq!(
            goes(&[('a', 'i', 9), ('b', 'b', 1), ('b', 'b', 2)]),
            Some(2)
        );
        // All have as many.
        assert_eq!(
            goes(&[('a', 'b', 9), ('b', 'i', 1), ('c', 'i', 2)]),
            Some(2)
        );
        assert_eq!(
            goes(&[('a', 'b', 1), ('b', 'b', 9), ('c', 'b', 2)]),
            Some(1)
        );
        // Of the one that has the most, none may go.
        assert_eq!(
            goes(&[('a', 'i', 1), ('b', '-', 9), ('b', '-', 9)]),
            Some(0)
        );
        // Who asks more than it may goes first.
        assert_eq!(
            goes(&[('a', 'o', 1), ('b', 'i', 9), ('b', 'i', 9)]),
            Some(0)
        );
    }

    #[test]
    fn what_is_busy_goes_by_its_age_and_where_only_idle_ones_go_for_no_reason() {
        let now = clock::now() + Duration::from_secs(1000);
        let (long, short) = (now - LEAST, now - LEAST / 2);
        let (idle, unanswered) = (Keeps::Idle(long), Keeps::Unanswered(short));
        assert_eq!(
            [Keeps::Busy(long).idle(), unanswered.idle()],
            [Keeps::Stays; 2]
        );
        assert_eq!(idle.idle(), idle);
        for waits in [true, false] {
            assert_eq!(Keeps::Busy(long).by_age(waits, now), Keeps::Busy(long));
            assert_eq!(unanswered.by_age(waits, now), unanswered);
            assert_eq!(idle.by_age(waits, now), idle);
        }
        let young = Keeps::Young(Reverse(short));
        assert_eq!(Keeps::Busy(short).by_age(false, now), young);
        assert_eq!(Keeps::Busy(short).by_age(true, now), Keeps::Stays);
    }
}
