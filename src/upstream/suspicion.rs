//! Whose queries end sessions?
//!
//! A query that was alone on its session when the resolver ended it is convicted: of its zone and of its client, others may be like
//! it. Queries that are like several convicted ones are asked alone too, where they harm nobody. Bounded in number, and
//! forgotten after a while. Time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// How long a conviction is remembered.
const REMEMBERED: Duration = Duration::from_secs(30);
/// So many convictions are remembered, at most; beyond, the oldest is forgotten.
const MOST: usize = 256;
/// So many convictions of one zone have all its queries asked alone; and so many zones convicted for one client, all of that client's.
const OF_ZONE: usize = 2;
const OF_CLIENT: usize = 2;
/// After so many good answers alone since the last conviction, none is held against that zone or client any more.
const ACQUITTED: u8 = 16;

/// What a query has in common with others, as hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryGroups {
    /// Of the name without its first label, or of the whole name if it has two labels or fewer.
    pub zone: u16,
    /// Of the client that asked it first.
    pub client: u16,
}

/// A query ended a session on which it was alone.
#[derive(Debug)]
struct Conviction {
    /// None once it is acquitted, as is the client.
    zone: Option<u16>,
    client: Option<u16>,
    at: Instant,
    /// Good answers for the zone and for the client since, while it is the last one of each.
    good: [u8; 2],
}

impl Conviction {
    fn is_of_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < REMEMBERED
    }
}

/// The zone or the client of a conviction.
type Mark = fn(&mut Conviction) -> &mut Option<u16>;

/// Convictions of late.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The oldest first.
    convictions: VecDeque<Conviction>,
    /// Who asked last since there are any, and when it was last somebody else than before.
    asks: Option<u16>,
    changed: Option<Instant>,
}

impl Suspicion {
    /// Whether nobody is under suspicion, as is mostly so.
    pub(super) fn is_none(&self) -> bool {
        self.convictions.is_empty()
    }

    /// That client asks.
    pub(super) fn note(&mut self, client: u16, now: Instant) {
        if self.asks.replace(client).is_some_and(|last| last != client) {
            self.changed = Some(now);
        }
    }

    /// Whether several clients ask: where one alone does, it may be everybody, and none is to be protected from it.
    fn are_several(&self, now: Instant) -> bool {
        self.changed.is_some_and(|at| now < at + REMEMBERED)
    }

    /// A query of that kin ended a session on which it was alone, and was sent then, or others were answered since. Sessions that ended
    /// later than that may have been closed all together, as by a resolver that is started again: of a zone, or of a client, one conviction
    /// counts.
    pub(super) fn convict(&mut self, groups: QueryGroups, apart: Instant, now: Instant) {
        self.convictions
            .retain(|conviction| conviction.is_of_late(now));
        if self.convictions.len() >= MOST {
            self.convictions.pop_front();
        }
        let is_same = |conviction: &&Conviction| apart <= conviction.at;
        let mut others = self.convictions.iter().filter(is_same);
        if others
            .any(|other| other.zone == Some(groups.zone) || other.client == Some(groups.client))
        {
            return;
        }
        self.convictions.push_back(Conviction {
            zone: Some(groups.zone),
            client: Some(groups.client),
            at: now,
            good: [0; 2],
        });
    }

    /// A query of that kin was alone on its session, and has a good answer.
    pub(super) fn acquit(&mut self, groups: QueryGroups) {
        let marks: [(usize, Mark, u16); 2] = [
            (0, |conviction| &mut conviction.zone, groups.zone),
            (1, |conviction| &mut conviction.client, groups.client),
        ];
        for (which, mark, of) in marks {
            let mut convictions = self.convictions.iter_mut().rev();
            let Some(last) = convictions.find_map(|conviction| {
                (*mark(conviction) == Some(of)).then_some(&mut conviction.good[which])
            }) else {
                continue;
            };
            *last = last.saturating_add(1);
            if *last >= ACQUITTED {
                let of_it = self.convictions.iter_mut().map(mark);
                of_it
                    .filter(|mark| **mark == Some(of))
                    .for_each(|mark| *mark = None);
            }
        }
    }

    fn of_late(&self, now: Instant) -> impl Iterator<Item = &Conviction> {
        let all = self.convictions.iter();
        all.filter(move |conviction| conviction.is_of_late(now))
    }

    fn of_zone(&self, zone: u16, now: Instant) -> usize {
        let of_late = self.of_late(now);
        of_late
            .filter(|conviction| conviction.zone == Some(zone))
            .count()
    }

    /// How many of a client's zones were convicted, up to [`OF_CLIENT`]: one alone may be asked for by anybody behind it.
    fn of_client(&self, client: u16, now: Instant) -> usize {
        if !self.are_several(now) {
            return 0;
        }
        let mut zones = SmallVec::<[Option<u16>; OF_CLIENT]>::new();
        let of_late = self.of_late(now);
        for conviction in of_late.filter(|conviction| conviction.client == Some(client)) {
            // One that is acquitted counts by itself.
            let zone = conviction.zone;
            if zones.len() < OF_CLIENT && (zone.is_none() || !zones.contains(&zone)) {
                zones.push(zone);
            }
        }
        zones.len()
    }

    /// How suspect a query of that kin is: 0 if not at all.
    pub(super) fn of(&self, groups: QueryGroups, now: Instant) -> usize {
        self.of_zone(groups.zone, now)
            .max(self.of_client(groups.client, now))
    }

    /// Whether a query of that kin is asked alone from the start.
    pub(super) fn is_strong(&self, groups: QueryGroups, now: Instant) -> bool {
        self.of_zone(groups.zone, now) >= OF_ZONE || self.of_client(groups.client, now) >= OF_CLIENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_millis(1);

    fn groups(zone: u16, client: u16) -> QueryGroups {
        QueryGroups { zone, client }
    }

    /// Convicts those, one after the other, where others ask too; returns when.
    fn convict(suspicion: &mut Suspicion, kins: &[QueryGroups], mut now: Instant) -> Instant {
        suspicion.note(100, now);
        suspicion.note(101, now);
        for groups in kins {
            now += LATER;
            suspicion.convict(*groups, now, now);
        }
        now
    }

    #[test]
    fn a_zone_is_asked_alone_after_two_convictions_and_a_client_after_those_of_two_zones() {
        let mut suspicion = Suspicion::default();
        assert!(suspicion.is_none());
        let now = convict(&mut suspicion, &[groups(1, 1)], crate::system::clock::now());
        assert!(!suspicion.is_none() && suspicion.of(groups(1, 9), now) == 1);
        assert!(!suspicion.is_strong(groups(1, 9), now));
        let now = convict(&mut suspicion, &[groups(1, 1)], now);
        assert!(suspicion.is_strong(groups(1, 9), now));
        assert!(!suspicion.is_strong(groups(9, 1), now), "one zone alone");
        let now = convict(&mut suspicion, &[groups(2, 1)], now);
        assert!(suspicion.is_strong(groups(9, 1), now) && !suspicion.is_strong(groups(9, 2), now));
        assert!(
            !suspicion.is_strong(groups(9, 1), now + REMEMBERED),
            "forgotten"
        );
    }

    #[test]
    fn sessions_that_end_of_one_event_convict_a_client_once() {
        let now = crate::system::clock::now();
        let mut suspicion = Suspicion::default();
        suspicion.note(1, now);
        suspicion.note(2, now);
        (0..4).for_each(|zone| suspicion.convict(groups(zone, 1), now, now));
        suspicion.convict(groups(4, 1), now, now + LATER);
        assert_eq!(suspicion.of(groups(9, 1), now), 1, "it was on its way then");
        suspicion.convict(groups(3, 2), now, now);
        assert_eq!(suspicion.of(groups(3, 2), now), 1, "it is another one's");
    }

    #[test]
    fn zones_and_clients_are_acquitted_by_good_answers_in_a_row() {
        let mut now = crate::system::clock::now();
        let mut suspicion = Suspicion::default();
        for zone in [1, 2, 2] {
            now = convict(&mut suspicion, &[groups(zone, 1)], now);
            (1..ACQUITTED).for_each(|_| suspicion.acquit(groups(9, 1)));
            suspicion.acquit(groups(9, 9));
        }
        assert!(suspicion.is_strong(groups(9, 1), now), "one too few");
        suspicion.acquit(groups(9, 1));
        assert!(!suspicion.is_strong(groups(9, 1), now) && suspicion.of(groups(9, 1), now) == 0);
        assert!(suspicion.is_strong(groups(2, 1), now), "for its zone");
        (0..ACQUITTED).for_each(|_| suspicion.acquit(groups(2, 8)));
        assert!(!suspicion.is_strong(groups(2, 1), now));
    }

    #[test]
    fn a_client_is_convicted_only_where_others_ask() {
        let mut suspicion = Suspicion::default();
        let now = convict(
            &mut suspicion,
            &[groups(1, 1), groups(2, 1)],
            crate::system::clock::now(),
        );
        let mut alone = Suspicion::default();
        for at in [now - LATER, now] {
            alone.convict(groups(u16::from(at == now), 1), at, at);
            alone.note(1, at);
        }
        assert!(suspicion.is_strong(groups(9, 1), now) && !alone.is_strong(groups(9, 1), now));
        alone.note(2, now);
        assert!(alone.is_strong(groups(9, 1), now));
    }

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let now = crate::system::clock::now();
        let mut suspicion = Suspicion::default();
        (0..1000).for_each(|number| suspicion.convict(groups(number, number), now, now));
        assert_eq!(suspicion.convictions.len(), MOST);
        assert_eq!(suspicion.of(groups(999, 0), now), 1);
        let later = now + REMEMBERED;
        suspicion.convict(groups(1, 1), later, later);
        assert_eq!(suspicion.convictions.len(), 1, "the others are forgotten");
    }
}
