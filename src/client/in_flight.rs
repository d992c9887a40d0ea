//! How many of a connection's queries wait for their answers, and for how long?

use std::time::{Duration, Instant};

/// How long queries are counted together, for how long they wait.
const SPAN: Duration = Duration::from_millis(100);

/// A connection's queries that wait, and what follows from that for reading and for its place.
#[derive(Debug)]
pub(super) struct InFlightCount {
    /// Queries that wait for their answers.
    pub(super) count: usize,
    /// The same by when they were asked, roughly: how many of two spans of time wait, and when each span began. No query of the
    /// later one was asked before it.
    spans: [(usize, Instant); 2],
    /// Which of the spans is the later one.
    later: usize,
    /// Reading pauses until no more than so many do.
    pub(super) paused_until: Option<usize>,
    /// Batches of answers that have not been sent yet.
    pub(super) sending: usize,
    /// When the last query was asked; before the first, when what is on its way has had time to arrive.
    pub(super) asked: Instant,
    /// Its client asked more than it may, and is the first to be evicted.
    pub(super) over_limit: bool,
    /// It was evicted in favour of another connection.
    pub(super) evicted: bool,
}

impl InFlightCount {
    /// None yet, as of a connection that counts as asked something at `asked`.
    pub(super) fn new(asked: Instant) -> Self {
        Self {
            count: 0,
            spans: [(0, asked); 2],
            later: 0,
            paused_until: None,
            sending: 0,
            asked,
            over_limit: false,
            evicted: false,
        }
    }

    /// Counts a query, and says in which span.
    pub(super) fn ask(&mut self, now: Instant) -> usize {
        self.count = self.count.saturating_add(1);
        self.asked = now;
        let [first, second] = &mut self.spans;
        let (span, other) = match self.later {
            0 => (first, second),
            _ => (second, first),
        };
        if span.0 == 0 {
            *span = (1, now);
        } else if other.0 == 0 && now.saturating_duration_since(span.1) >= SPAN {
            *other = (1, now);
            self.later = 1_usize.saturating_sub(self.later);
        } else {
            span.0 = span.0.saturating_add(1);
        }
        self.later
    }

    pub(super) fn end_one(&mut self, span: usize) {
        self.count = self.count.saturating_sub(1);
        if let Some((count, _)) = self.spans.get_mut(span) {
            *count = count.saturating_sub(1);
        }
    }

    /// Since when the query waits that has waited the longest, or up to [`SPAN`] before that.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let waiting = self.spans.iter().filter(|(count, _)| *count > 0);
        waiting.map(|(_, since)| *since).min()
    }

    pub(super) fn is_idle(&self) -> bool {
        // Who asks more than it may is not waited for until its refusal is sent.
        self.count == 0 && (self.sending == 0 || self.over_limit) && !self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::clock;

    #[test]
    fn the_longest_wait_is_known_to_a_span() {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut in_flight = InFlightCount::new(start);
        assert_eq!(in_flight.waits_since(), None);
        // One that is never answered, and others that soon are.
        let slow = in_flight.ask(at(10));
        for now in (20..1000).step_by(10) {
            let quick = in_flight.ask(at(now));
            assert_eq!(in_flight.waits_since(), Some(at(10)));
            in_flight.end_one(quick);
        }
        in_flight.end_one(slow);
        assert_eq!(in_flight.waits_since(), None);
        assert!(in_flight.is_idle());
    }

    #[test]
    fn a_connection_that_always_has_queries_does_not_wait_for_long() {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut in_flight = InFlightCount::new(start);
        let mut before = in_flight.ask(at(0));
        for now in 1..2000 {
            let next = in_flight.ask(at(now));
            in_flight.end_one(before);
            before = next;
            let since = in_flight.waits_since().expect("one waits");
            assert!(at(now) - since <= SPAN + Duration::from_millis(1));
        }
        assert_eq!(in_flight.count, 1);
        assert!(!in_flight.is_idle());
    }
}
