//! Whose queries end sessions?
//!
//! A query that was alone on its session when the resolver closed it is a culprit, and other queries of its zone or of its client may be
//! like it. Queries that are like several culprits are isolated, where they harm no others. The list is bounded, and entries expire. Time
//! is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// How long a culprit is remembered.
const CULPRIT_LIFETIME: Duration = Duration::from_secs(30);
/// Culprits that are remembered, at most; beyond that the oldest is forgotten.
const MAX_CULPRITS: usize = 256;
/// How long a query that ended one session of its own is remembered, and how many are.
const CANDIDATE_LIFETIME: Duration = Duration::from_secs(5);
const MAX_CANDIDATES: usize = 32;
/// Culprits of one zone from which on all queries of the zone are isolated, and zones with culprits of one client from which on all queries
/// of the client are.
const ZONE_THRESHOLD: usize = 2;
const CLIENT_THRESHOLD: usize = 2;
/// Good answers to isolated queries, since the last culprit, that clear a zone or a client.
const GOOD_ANSWERS_TO_CLEAR: u8 = 16;

/// The groups that a query belongs to, as hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryGroups {
    /// The zone: the name without its first label, or the whole name if it has at most two labels.
    pub zone: u16,
    /// The client that asked first.
    pub client: u16,
}

/// A query that ended a session on which it was alone.
#[derive(Debug)]
struct Culprit {
    /// None once the zone is cleared; the same for the client.
    zone: Option<u16>,
    client: Option<u16>,
    /// The rank of the address whose session it ended.
    rank: usize,
    at: Instant,
    /// Good answers for the zone and for the client since then, counted at the latest culprit of each.
    good_answers: [u8; 2],
}

impl Culprit {
    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < CULPRIT_LIFETIME
    }
}

/// Selects the zone or the client of a culprit.
type GroupOf = fn(&mut Culprit) -> &mut Option<u16>;

/// The recent culprits.
#[derive(Debug, Default)]
pub(super) struct Culprits {
    /// Oldest first.
    culprits: VecDeque<Culprit>,
    /// The zones of queries that ended a session of their own, the rank of its address, and when; that may have been chance. Oldest first.
    candidates: VecDeque<(u16, usize, Instant)>,
    /// The last client that asked, and when it last differed from the one before.
    last_client: Option<u16>,
    client_changed_at: Option<Instant>,
}

impl Culprits {
    /// Returns true if there are no culprits, as is the normal case.
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        // The last is the youngest.
        let youngest = self.culprits.back();
        youngest.is_none_or(|culprit| !culprit.is_recent(now))
    }

    /// Records which client asks.
    pub(super) fn note_client(&mut self, client: u16, now: Instant) {
        if self
            .last_client
            .replace(client)
            .is_some_and(|last| last != client)
        {
            self.client_changed_at = Some(now);
        }
    }

    /// Returns true if several clients ask. A single client may stand for everybody, and nobody has to be protected from it.
    pub(super) fn has_several_clients(&self, now: Instant) -> bool {
        self.client_changed_at
            .is_some_and(|at| now < at + CULPRIT_LIFETIME)
    }

    /// When a culprit is forgotten, or several clients are no longer known to ask.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let oldest = self.recent(now).next().map(|culprit| culprit.at);
        let all = oldest.into_iter().chain(self.client_changed_at);
        all.map(|at| at + CULPRIT_LIFETIME).min()
    }

    /// Records that a query of this zone ended a session to the address of that rank on which it was alone, which may have been chance.
    pub(super) fn record_candidate(&mut self, zone: u16, rank: usize, now: Instant) {
        if self.candidates.len() >= MAX_CANDIDATES {
            self.candidates.pop_front();
        }
        self.candidates.push_back((zone, rank, now));
    }

    /// Returns true if a query of the zone ended a session of its own to that address before that moment, and not long ago.
    pub(super) fn has_candidate(
        &self,
        zone: u16,
        rank: usize,
        before: Instant,
        now: Instant,
    ) -> bool {
        let is_recent = |at: Instant| at < before && now < at + CANDIDATE_LIFETIME;
        let mut candidates = self.candidates.iter();
        candidates.any(|(other, at_rank, at)| (*other, *at_rank) == (zone, rank) && is_recent(*at))
    }

    /// Records that a query of these groups ended a session to the address of that rank, on which it was alone.
    ///
    /// `distinct_since` is when the query was sent, or when others were last answered, if later. Sessions that ended after that may have been
    /// closed together, as by a restart of the resolver: of one zone or one client only one culprit counts then.
    pub(super) fn record(
        &mut self,
        groups: QueryGroups,
        rank: usize,
        distinct_since: Instant,
        now: Instant,
    ) {
        self.culprits.retain(|culprit| culprit.is_recent(now));
        if self.culprits.len() >= MAX_CULPRITS {
            self.culprits.pop_front();
        }
        let may_be_same_event = |culprit: &&Culprit| distinct_since <= culprit.at;
        let mut others = self.culprits.iter().filter(may_be_same_event);
        if others
            .any(|other| other.zone == Some(groups.zone) || other.client == Some(groups.client))
        {
            return;
        }
        self.culprits.push_back(Culprit {
            zone: Some(groups.zone),
            client: Some(groups.client),
            rank,
            at: now,
            good_answers: [0; 2],
        });
    }

    /// Records a good answer to an isolated query of these groups. It clears what ended sessions to that address, not to others.
    pub(super) fn record_good_answer(&mut self, groups: QueryGroups, rank: usize) {
        let groups_of: [(usize, GroupOf, u16); 2] = [
            (0, |culprit| &mut culprit.zone, groups.zone),
            (1, |culprit| &mut culprit.client, groups.client),
        ];
        for (which, group, hash) in groups_of {
            let at_rank = |culprit: &&mut Culprit| culprit.rank == rank;
            let mut culprits = self.culprits.iter_mut().rev().filter(at_rank);
            let Some(last) = culprits.find_map(|culprit| {
                (*group(culprit) == Some(hash)).then_some(&mut culprit.good_answers[which])
            }) else {
                continue;
            };
            *last = last.saturating_add(1);
            if *last >= GOOD_ANSWERS_TO_CLEAR {
                let matching = self.culprits.iter_mut().filter(at_rank).map(group);
                matching
                    .filter(|group| **group == Some(hash))
                    .for_each(|group| *group = None);
            }
        }
    }

    fn recent(&self, now: Instant) -> impl Iterator<Item = &Culprit> {
        let all = self.culprits.iter();
        all.filter(move |culprit| culprit.is_recent(now))
    }

    /// How many culprits of a query's zone speak for the query being like them. Where all of them are of one client and others ask as well,
    /// that client chooses the names: queries of others in the same zone are not like them.
    fn count_for_zone(&self, groups: QueryGroups, now: Instant) -> usize {
        let of_zone = || {
            self.recent(now)
                .filter(|culprit| culprit.zone == Some(groups.zone))
        };
        let Some(first) = of_zone().next().map(|culprit| culprit.client) else {
            return 0;
        };
        let is_of_one_client = first.is_some() && of_zone().all(|culprit| culprit.client == first);
        if is_of_one_client && first != Some(groups.client) && self.has_several_clients(now) {
            return 0;
        }
        of_zone().count()
    }

    /// How many zones of a client have culprits, up to [`CLIENT_THRESHOLD`]: a single zone may be asked for by anybody behind that client.
    fn count_zones_of_client(&self, client: u16, now: Instant) -> usize {
        if !self.has_several_clients(now) {
            return 0;
        }
        let mut zones = SmallVec::<[Option<u16>; CLIENT_THRESHOLD]>::new();
        let recent = self.recent(now);
        for culprit in recent.filter(|culprit| culprit.client == Some(client)) {
            // A zone that was cleared counts by itself.
            let zone = culprit.zone;
            if zones.len() < CLIENT_THRESHOLD && (zone.is_none() || !zones.contains(&zone)) {
                zones.push(zone);
            }
        }
        zones.len()
    }

    /// Returns true if a query of the client is a culprit, and other clients ask as well.
    pub(super) fn has_culprits(&self, client: u16, now: Instant) -> bool {
        self.count_zones_of_client(client, now) > 0
    }

    /// How many culprits a query of these groups is like: the larger of the counts by zone and by client; 0 if none.
    pub(super) fn level(&self, groups: QueryGroups, now: Instant) -> usize {
        self.count_for_zone(groups, now)
            .max(self.count_zones_of_client(groups.client, now))
    }

    /// Returns true if a query of the same zone or client ended a session to the address of that rank.
    pub(super) fn has_kin_at(&self, groups: QueryGroups, rank: usize, now: Instant) -> bool {
        let mut at_rank = self.recent(now).filter(|culprit| culprit.rank == rank);
        at_rank.any(|culprit| {
            culprit.zone == Some(groups.zone) || culprit.client == Some(groups.client)
        })
    }

    /// Returns true if a query of these groups is isolated from the start.
    pub(super) fn must_isolate(&self, groups: QueryGroups, now: Instant) -> bool {
        self.count_for_zone(groups, now) >= ZONE_THRESHOLD
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

    /// Records those culprits one after the other, where other clients ask too; returns when the last was.
    fn record(culprits: &mut Culprits, kins: &[QueryGroups], mut now: Instant) -> Instant {
        culprits.note_client(100, now);
        culprits.note_client(101, now);
        for groups in kins {
            now += LATER;
            culprits.record(*groups, 0, now, now);
        }
        now
    }

    #[test]
    fn a_zone_is_isolated_after_two_culprits_and_a_client_after_culprits_of_two_zones() {
        let mut culprits = Culprits::default();
        let now = crate::system::clock::now();
        assert!(culprits.is_empty(now));
        let now = record(&mut culprits, &[groups(1, 1)], now);
        assert!(culprits.is_empty(now + CULPRIT_LIFETIME));
        assert!(!culprits.is_empty(now) && culprits.level(groups(1, 1), now) == 1);
        assert!(!culprits.must_isolate(groups(1, 9), now));
        let now = record(&mut culprits, &[groups(1, 3)], now);
        assert!(culprits.must_isolate(groups(1, 9), now));
        assert!(!culprits.must_isolate(groups(9, 1), now), "one zone alone");
        let now = record(&mut culprits, &[groups(2, 1)], now);
        assert!(
            culprits.must_isolate(groups(9, 1), now) && !culprits.must_isolate(groups(9, 2), now)
        );
        assert!(
            !culprits.must_isolate(groups(9, 1), now + CULPRIT_LIFETIME),
            "forgotten"
        );
    }

    #[test]
    fn sessions_that_end_by_one_event_count_once_for_a_client() {
        let now = crate::system::clock::now();
        let mut culprits = Culprits::default();
        culprits.note_client(1, now);
        culprits.note_client(2, now);
        (0..4).for_each(|zone| culprits.record(groups(zone, 1), 0, now, now));
        culprits.record(groups(4, 1), 0, now, now + LATER);
        assert_eq!(
            culprits.level(groups(9, 1), now),
            1,
            "it was on its way then"
        );
        culprits.record(groups(3, 2), 0, now, now);
        assert_eq!(culprits.level(groups(3, 2), now), 1, "it is another one's");
    }

    #[test]
    fn zones_and_clients_are_cleared_by_good_answers_in_a_row() {
        let mut now = crate::system::clock::now();
        let mut culprits = Culprits::default();
        for zone in [1, 2, 2] {
            now = record(&mut culprits, &[groups(zone, 1)], now);
            (1..GOOD_ANSWERS_TO_CLEAR).for_each(|_| culprits.record_good_answer(groups(9, 1), 0));
            culprits.record_good_answer(groups(9, 9), 0);
        }
        assert!(culprits.must_isolate(groups(9, 1), now), "one too few");
        culprits.record_good_answer(groups(9, 1), 0);
        assert!(
            !culprits.must_isolate(groups(9, 1), now) && culprits.level(groups(9, 1), now) == 0
        );
        assert!(culprits.must_isolate(groups(2, 1), now), "for its zone");
        (0..GOOD_ANSWERS_TO_CLEAR).for_each(|_| culprits.record_good_answer(groups(2, 8), 0));
        assert!(!culprits.must_isolate(groups(2, 1), now));
    }

    #[test]
    fn answers_of_one_address_do_not_clear_what_ended_sessions_to_another() {
        let mut culprits = Culprits::default();
        let now = record(
            &mut culprits,
            &[groups(1, 1), groups(1, 3)],
            crate::system::clock::now(),
        );
        (0..GOOD_ANSWERS_TO_CLEAR).for_each(|_| culprits.record_good_answer(groups(1, 9), 1));
        assert!(culprits.must_isolate(groups(1, 9), now));
        assert!(culprits.has_kin_at(groups(1, 9), 0, now));
        assert!(!culprits.has_kin_at(groups(1, 9), 1, now));
        assert!(!culprits.has_kin_at(groups(2, 9), 0, now));
    }

    #[test]
    fn a_zone_with_culprits_of_one_client_is_isolated_for_that_client() {
        let mut culprits = Culprits::default();
        let now = record(
            &mut culprits,
            &[groups(1, 1), groups(1, 1)],
            crate::system::clock::now(),
        );
        assert!(culprits.must_isolate(groups(1, 1), now));
        assert!(
            !culprits.must_isolate(groups(1, 9), now) && culprits.level(groups(1, 9), now) == 0
        );
        let now = record(&mut culprits, &[groups(1, 2)], now);
        assert!(culprits.must_isolate(groups(1, 9), now), "of several");
    }

    #[test]
    fn a_client_has_culprits_only_where_others_ask() {
        let mut culprits = Culprits::default();
        let now = record(
            &mut culprits,
            &[groups(1, 1), groups(2, 1)],
            crate::system::clock::now(),
        );
        let mut alone = Culprits::default();
        for at in [now - LATER, now] {
            alone.record(groups(u16::from(at == now), 1), 0, at, at);
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
        (0..1000).for_each(|number| culprits.record(groups(number, number), 0, now, now));
        assert_eq!(culprits.culprits.len(), MAX_CULPRITS);
        assert_eq!(culprits.level(groups(999, 0), now), 1);
        let later = now + CULPRIT_LIFETIME;
        culprits.record(groups(1, 1), 0, later, later);
        assert_eq!(culprits.culprits.len(), 1, "the others are forgotten");
    }
}
