//! Whose queries end sessions?
//!
//! A query that was alone on its session when the resolver ended it is convicted: of its zone and of its client, others may be like
//! it. Queries that are like several convicted ones are asked alone too, where they harm nobody. Bounded in number, and
//! forgotten after a while. Time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// How long a conviction is remembered.
const LIFETIME: Duration = Duration::from_secs(30);
/// So many convictions are remembered, at most; beyond, the oldest is forgotten.
const MAX_CULPRITS: usize = 256;
/// So many convictions of one zone have all its queries asked alone; and so many zones convicted for one client, all of that client's.
const ZONE_THRESHOLD: usize = 2;
const CLIENT_THRESHOLD: usize = 2;
/// After so many good answers alone since the last conviction, none is held against that zone or client any more.
const GOOD_ANSWERS_TO_CLEAR: u8 = 16;

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
struct Culprit {
    /// None once it is acquitted, as is the client.
    zone: Option<u16>,
    client: Option<u16>,
    at: Instant,
    /// Good answers for the zone and for the client since, while it is the last one of each.
    good_answers: [u8; 2],
}

impl Culprit {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < LIFETIME
    }
}

/// The zone or the client of a conviction.
type GroupOf = fn(&mut Culprit) -> &mut Option<u16>;

/// Convictions of late.
#[derive(Debug, Default)]
pub(super) struct Culprits {
    /// The oldest first.
    culprits: VecDeque<Culprit>,
    /// Who asked last since there are any, and when it was last somebody else than before.
    last_client: Option<u16>,
    client_changed_at: Option<Instant>,
}

impl Culprits {
    /// Whether nobody is under suspicion, as is mostly so.
    pub(super) fn is_empty(&self) -> bool {
        self.culprits.is_empty()
    }

    /// That client asks.
    pub(super) fn note_client(&mut self, client: u16, now: Instant) {
        if self
            .last_client
            .replace(client)
            .is_some_and(|last| last != client)
        {
            self.client_changed_at = Some(now);
        }
    }

    /// Whether several clients ask: where one alone does, it may be everybody, and none is to be protected from it.
    fn has_several_clients(&self, now: Instant) -> bool {
        self.client_changed_at.is_some_and(|at| now < at + LIFETIME)
    }

    /// A query of that kin ended a session on which it was alone, and was sent then, or others were answered since. Sessions that ended
    /// later than that may have been closed all together, as by a resolver that is started again: of a zone, or of a client, one conviction
    /// counts.
    pub(super) fn record(&mut self, groups: QueryGroups, apart: Instant, now: Instant) {
        self.culprits.retain(|culprit| culprit.is_recent(now));
        if self.culprits.len() >= MAX_CULPRITS {
            self.culprits.pop_front();
        }
        let is_same = |culprit: &&Culprit| apart <= culprit.at;
        let mut others = self.culprits.iter().filter(is_same);
        if others
            .any(|other| other.zone == Some(groups.zone) || other.client == Some(groups.client))
        {
            return;
        }
        self.culprits.push_back(Culprit {
            zone: Some(groups.zone),
            client: Some(groups.client),
            at: now,
            good_answers: [0; 2],
        });
    }

    /// A query of that kin was alone on its session, and has a good answer.
    pub(super) fn record_good_answer(&mut self, groups: QueryGroups) {
        let groups_of: [(usize, GroupOf, u16); 2] = [
            (0, |culprit| &mut culprit.zone, groups.zone),
            (1, |culprit| &mut culprit.client, groups.client),
        ];
        for (which, group, hash) in groups_of {
            let mut culprits = self.culprits.iter_mut().rev();
            let Some(last) = culprits.find_map(|culprit| {
                (*group(culprit) == Some(hash)).then_some(&mut culprit.good_answers[which])
            }) else {
                continue;
            };
            *last = last.saturating_add(1);
            if *last >= GOOD_ANSWERS_TO_CLEAR {
                let of_it = self.culprits.iter_mut().map(group);
                of_it
                    .filter(|group| **group == Some(hash))
                    .for_each(|group| *group = None);
            }
        }
    }

    fn recent(&self, now: Instant) -> impl Iterator<Item = &Culprit> {
        let all = self.culprits.iter();
        all.filter(move |culprit| culprit.is_recent(now))
    }

    fn count_for_zone(&self, zone: u16, now: Instant) -> usize {
        let recent = self.recent(now);
        recent.filter(|culprit| culprit.zone == Some(zone)).count()
    }

    /// How many of a client's zones were convicted, up to [`CLIENT_THRESHOLD`]: one alone may be asked for by anybody behind it.
    fn count_zones_of_client(&self, client: u16, now: Instant) -> usize {
        if !self.has_several_clients(now) {
            return 0;
        }
        let mut zones = SmallVec::<[Option<u16>; CLIENT_THRESHOLD]>::new();
        let recent = self.recent(now);
        for culprit in recent.filter(|culprit| culprit.client == Some(client)) {
            // One that is acquitted counts by itself.
            let zone = culprit.zone;
            if zones.len() < CLIENT_THRESHOLD && (zone.is_none() || !zones.contains(&zone)) {
                zones.push(zone);
            }
        }
        zones.len()
    }

    /// How suspect a query of that kin is: 0 if not at all.
    pub(super) fn level(&self, groups: QueryGroups, now: Instant) -> usize {
        self.count_for_zone(groups.zone, now)
            .max(self.count_zones_of_client(groups.client, now))
    }

    /// Whether a query of that kin is asked alone from the start.
    pub(super) fn must_isolate(&self, groups: QueryGroups, now: Instant) -> bool {
        self.count_for_zone(groups.zone, now) >= ZONE_THRESHOLD
            || self.count_zones_of_client(groups.client, now) >= CLIENT_THRESHOLD
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
    fn record(culprits: &mut Culprits, kins: &[QueryGroups], mut now: Instant) -> Instant {
        culprits.note_client(100, now);
        culprits.note_client(101, now);
        for groups in kins {
            now += LATER;
            culprits.record(*groups, now, now);
        }
        now
    }

    #[test]
    fn a_zone_is_asked_alone_after_two_convictions_and_a_client_after_those_of_two_zones() {
        let mut culprits = Culprits::default();
        assert!(culprits.is_empty());
        let now = record(&mut culprits, &[groups(1, 1)], crate::system::clock::now());
        assert!(!culprits.is_empty() && culprits.level(groups(1, 9), now) == 1);
        assert!(!culprits.must_isolate(groups(1, 9), now));
        let now = record(&mut culprits, &[groups(1, 1)], now);
        assert!(culprits.must_isolate(groups(1, 9), now));
        assert!(!culprits.must_isolate(groups(9, 1), now), "one zone alone");
        let now = record(&mut culprits, &[groups(2, 1)], now);
        assert!(
            culprits.must_isolate(groups(9, 1), now) && !culprits.must_isolate(groups(9, 2), now)
        );
        assert!(
            !culprits.must_isolate(groups(9, 1), now + LIFETIME),
            "forgotten"
        );
    }

    #[test]
    fn sessions_that_end_of_one_event_convict_a_client_once() {
        let now = crate::system::clock::now();
        let mut culprits = Culprits::default();
        culprits.note_client(1, now);
        culprits.note_client(2, now);
        (0..4).for_each(|zone| culprits.record(groups(zone, 1), now, now));
        culprits.record(groups(4, 1), now, now + LATER);
        assert_eq!(
            culprits.level(groups(9, 1), now),
            1,
            "it was on its way then"
        );
        culprits.record(groups(3, 2), now, now);
        assert_eq!(culprits.level(groups(3, 2), now), 1, "it is another one's");
    }

    #[test]
    fn zones_and_clients_are_acquitted_by_good_answers_in_a_row() {
        let mut now = crate::system::clock::now();
        let mut culprits = Culprits::default();
        for zone in [1, 2, 2] {
            now = record(&mut culprits, &[groups(zone, 1)], now);
            (1..GOOD_ANSWERS_TO_CLEAR).for_each(|_| culprits.record_good_answer(groups(9, 1)));
            culprits.record_good_answer(groups(9, 9));
        }
        assert!(culprits.must_isolate(groups(9, 1), now), "one too few");
        culprits.record_good_answer(groups(9, 1));
        assert!(
            !culprits.must_isolate(groups(9, 1), now) && culprits.level(groups(9, 1), now) == 0
        );
        assert!(culprits.must_isolate(groups(2, 1), now), "for its zone");
        (0..GOOD_ANSWERS_TO_CLEAR).for_each(|_| culprits.record_good_answer(groups(2, 8)));
        assert!(!culprits.must_isolate(groups(2, 1), now));
    }

    #[test]
    fn a_client_is_convicted_only_where_others_ask() {
        let mut culprits = Culprits::default();
        let now = record(
            &mut culprits,
            &[groups(1, 1), groups(2, 1)],
            crate::system::clock::now(),
        );
        let mut alone = Culprits::default();
        for at in [now - LATER, now] {
            alone.record(groups(u16::from(at == now), 1), at, at);
            alone.note_client(1, at);
        }
        assert!(culprits.must_isolate(groups(9, 1), now) && !alone.must_isolate(groups(9, 1), now));
        alone.note_client(2, now);
        assert!(alone.must_isolate(groups(9, 1), now));
    }

    #[test]
    fn no_more_is_remembered_than_may_be() {
        let now = crate::system::clock::now();
        let mut culprits = Culprits::default();
        (0..1000).for_each(|number| culprits.record(groups(number, number), now, now));
        assert_eq!(culprits.culprits.len(), MAX_CULPRITS);
        assert_eq!(culprits.level(groups(999, 0), now), 1);
        let later = now + LIFETIME;
        culprits.record(groups(1, 1), later, later);
        assert_eq!(culprits.culprits.len(), 1, "the others are forgotten");
    }
}
