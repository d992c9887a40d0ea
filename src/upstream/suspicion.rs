//! Whose queries end sessions?
//!
//! A query that was alone on its session when the resolver ended it is convicted: of its zone and of its client, others may be like
//! it. Queries that are like several convicted ones are asked alone too, where they harm nobody. Bounded in number, and
//! forgotten after a while. Time is passed in.

use std::time::{Duration, Instant};

/// How long a conviction is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// So many zones and clients are remembered, at most; beyond, the oldest is forgotten.
const MOST: usize = 256;
/// So many convictions of one zone, or of one client, have all its queries asked alone.
const OF_ZONE: u32 = 2;
const OF_CLIENT: u32 = 2;

/// What a query has in common with others, as hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kin {
    /// Of the name without its first label, or of the whole name if it has two labels or fewer.
    pub zone: u16,
    /// Of the client that asked it first.
    pub client: u16,
}

/// Convictions of a zone or of a client.
#[derive(Debug)]
struct Mark {
    of: Of,
    count: u32,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Zone(u16),
    Client(u16),
}

/// Convictions of late.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    marks: Vec<Mark>,
}

impl Suspicion {
    /// Whether nobody is under suspicion, as is mostly so.
    pub(super) fn is_none(&self) -> bool {
        self.marks.is_empty()
    }

    /// A query of that kin ended a session on which it was alone.
    pub(super) fn convict(&mut self, kin: Kin, now: Instant) {
        self.marks.retain(|mark| now < mark.until);
        for of in [Of::Zone(kin.zone), Of::Client(kin.client)] {
            let until = now + REMEMBERED;
            if let Some(mark) = self.marks.iter_mut().find(|mark| mark.of == of) {
                mark.count = mark.count.saturating_add(1);
                mark.until = until;
                continue;
            }
            if self.marks.len() >= MOST {
                self.marks.remove(0);
            }
            self.marks.push(Mark {
                of,
                count: 1,
                until,
            });
        }
    }

    fn count(&self, of: Of, now: Instant) -> u32 {
        let mark = self.marks.iter().find(|mark| mark.of == of);
        mark.filter(|mark| now < mark.until)
            .map_or(0, |mark| mark.count)
    }

    /// How suspect a query of that kin is: 0 if not at all.
    pub(super) fn of(&self, kin: Kin, now: Instant) -> u32 {
        let (zone, client) = (Of::Zone(kin.zone), Of::Client(kin.client));
        self.count(zone, now).max(self.count(client, now))
    }

    /// Whether a query of that kin is asked alone from the start.
    pub(super) fn is_strong(&self, kin: Kin, now: Instant) -> bool {
        self.count(Of::Zone(kin.zone), now) >= OF_ZONE
            || self.count(Of::Client(kin.client), now) >= OF_CLIENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kin(zone: u16, client: u16) -> Kin {
        Kin { zone, client }
    }

    #[test]
    fn a_zone_is_asked_alone_after_as_a_client_is_after_two_convictions() {
        let now = crate::clock::now();
        let mut suspicion = Suspicion::default();
        assert!(suspicion.is_none());
        suspicion.convict(kin(1, 1), now);
        assert!(!suspicion.is_none() && suspicion.of(kin(1, 9), now) == 1);
        assert!(!suspicion.is_strong(kin(1, 9), now));
        suspicion.convict(kin(1, 2), now);
        assert!(suspicion.is_strong(kin(1, 9), now));
        for zone in 10..11 {
            assert!(!suspicion.is_strong(kin(9, 1), now));
            suspicion.convict(kin(zone, 1), now);
        }
        assert!(suspicion.is_strong(kin(9, 1), now) && !suspicion.is_strong(kin(9, 2), now));
        assert!(
            !suspicion.is_strong(kin(9, 1), now + REMEMBERED),
            "forgotten"
        );
    }

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let now = crate::clock::now();
        let mut suspicion = Suspicion::default();
        (0..1000).for_each(|number| suspicion.convict(kin(number, number), now));
        assert_eq!(suspicion.marks.len(), MOST);
        assert_eq!(suspicion.of(kin(999, 0), now), 1);
        suspicion.convict(kin(1, 1), now + REMEMBERED);
        assert_eq!(suspicion.marks.len(), 2, "the others are forgotten");
    }
}
