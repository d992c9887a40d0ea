//! How many queries of a connection are in flight, and for how long?

use std::time::{Duration, Instant};

/// Queries that start within this time are counted as one group, whose age is that of its first query.
const GROUP_TIME: Duration = Duration::from_millis(100);

/// The queries of one connection that are in flight, and what follows from them for reading and for eviction.
#[derive(Debug)]
pub(super) struct InFlightCount {
    /// Queries that have no answer yet.
    pub(super) count: usize,
    /// The same queries in two groups by age: how many are in flight, and the start of the first query of the group. No query
    /// starts before its group does.
    groups: [(usize, Instant); 2],
    /// The index of the younger group.
    younger: usize,
    /// While reading is paused: the count at which it resumes.
    pub(super) resume_at: Option<usize>,
    /// Batches that hold answers for this connection and have not been sent yet.
    pub(super) unsent_batches: usize,
    /// The start of the last query; before the first query, the end of the grace period for it.
    pub(super) last_query_at: Instant,
    /// The client exceeded the rate limit or may not ask: the connection is evicted before others.
    pub(super) over_limit: bool,
    /// The connection was evicted or closed, and is not read any more.
    pub(super) evicted: bool,
}

impl InFlightCount {
    /// No query in flight. `last_query_at` stands for the start of a query until there is one.
    pub(super) fn new(last_query_at: Instant) -> Self {
        Self {
            count: 0,
            groups: [(0, last_query_at); 2],
            younger: 0,
            resume_at: None,
            unsent_batches: 0,
            last_query_at,
            over_limit: false,
            evicted: false,
        }
    }

    /// Counts a query that starts at `now`. Returns the index of its group.
    pub(super) fn start_query(&mut self, now: Instant) -> usize {
        self.count = self.count.saturating_add(1);
        self.last_query_at = now;
        let [first, second] = &mut self.groups;
        let (younger, older) = match self.younger {
            0 => (first, second),
            _ => (second, first),
        };
        if younger.0 == 0 {
            *younger = (1, now);
        } else if older.0 == 0 && now.saturating_duration_since(younger.1) >= GROUP_TIME {
            *older = (1, now);
            self.younger = 1_usize.saturating_sub(self.younger);
        } else {
            younger.0 = younger.0.saturating_add(1);
        }
        self.younger
    }

    /// Counts the end of a query of the group with this index.
    pub(super) fn end_query(&mut self, group: usize) {
        self.count = self.count.saturating_sub(1);
        if let Some((count, _)) = self.groups.get_mut(group) {
            *count = count.saturating_sub(1);
        }
    }

    /// The start of the oldest query in flight, or an earlier time: by up to [`GROUP_TIME`], or more just after a slow query ended,
    /// since new queries join the younger group as long as the older one is not empty.
    pub(super) fn oldest_query_at(&self) -> Option<Instant> {
        let in_flight = self.groups.iter().filter(|(count, _)| *count > 0);
        in_flight.map(|(_, since)| *since).min()
    }

    /// Returns true if no query is in flight and no answer is unsent. Over the limit, unsent refusals do not count.
    pub(super) fn is_idle(&self) -> bool {
        self.count == 0 && (self.unsent_batches == 0 || self.over_limit) && !self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::clock;

    #[test]
    fn the_age_of_the_oldest_query_is_known() {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut in_flight = InFlightCount::new(start);
        assert_eq!(in_flight.oldest_query_at(), None);
        // One slow query, and others that end soon.
        let slow = in_flight.start_query(at(10));
        for now in (20..1000).step_by(10) {
            let quick = in_flight.start_query(at(now));
            assert_eq!(in_flight.oldest_query_at(), Some(at(10)));
            in_flight.end_query(quick);
        }
        in_flight.end_query(slow);
        assert_eq!(in_flight.oldest_query_at(), None);
        assert!(in_flight.is_idle());
    }

    #[test]
    fn the_age_is_precise_on_a_connection_that_is_never_idle() {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut in_flight = InFlightCount::new(start);
        let mut before = in_flight.start_query(at(0));
        for now in 1..2000 {
            let next = in_flight.start_query(at(now));
            in_flight.end_query(before);
            before = next;
            let since = in_flight.oldest_query_at().expect("one is in flight");
            assert!(at(now) - since <= GROUP_TIME + Duration::from_millis(1));
        }
        assert_eq!(in_flight.count, 1);
        assert!(!in_flight.is_idle());
    }
}
