//! May a new key be believed that nobody has pinned?
//!
//! Who pins the key of a resolver's leaf is cut off when its operator changes it. These rules let a new leaf follow an
//! accepted one when it looks like an operator's roll-over from every side: the same issuer's key, at the time at which the
//! old leaf had to be replaced, at every address, for days, and nothing else meanwhile. Chain and name are verified by
//! whoever asks. Only a pin and a learnt key make a leaf believed; what is remembered of accepted leaves is evidence for the
//! rules and nothing more.
//!
//! What the rules cannot tell: who has a certificate of the same issuer for the name, shows it once and, after the wait, at
//! all addresses when the old leaf is due, looks like the operator. Time is passed in; no I/O.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::identity::pin::Pin;
use crate::system::date::{DAY, Moment};

/// Leaves that were accepted because they were pinned, and learnt ones, that are remembered of one resolver, each.
pub(super) const MOST: usize = 8;
/// 9999-12-31T23:59:59Z: nothing that certificates or we can write is later (RFC 5280 section 4.1.2.5).
pub(super) const LAST: u64 = 253_402_300_799;

/// What matters of a leaf certificate and of the one above it on the verified path. Times are seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The pin of its key.
    pub pin: Pin,
    /// The pin of the key that signed it.
    pub issuer: Pin,
    /// From when on it holds.
    pub not_before: u64,
    /// Up to when it holds, that second included.
    pub not_after: u64,
}

impl Leaf {
    pub(super) fn makes_sense(&self) -> bool {
        self.not_before < self.not_after && self.not_after <= LAST
    }

    fn holds_at(&self, now: u64) -> bool {
        self.makes_sense() && (self.not_before..=self.not_after).contains(&now)
    }

    /// From when on it may be replaced.
    fn last_third(&self) -> u64 {
        self.not_after - (self.not_after - self.not_before) / 3
    }

    /// Later certificates are greater.
    fn age(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Takes what a later certificate for the same key says.
    fn renew(&mut self, other: &Self) {
        if other.age() > self.age() {
            *self = *other;
        }
    }
}

/// What to make of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is pinned.
    Pinned,
    /// Its key was accepted before by these rules.
    Learnt,
    /// Its key has just been accepted, and is learnt from now on.
    Accepted,
    /// It is not to be believed.
    NotYet(Reason),
}

/// Why a leaf is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No accepted leaf with another key was issued under the same key.
    OtherIssuer,
    /// The leaf that was accepted last may be replaced only from this time on.
    TooEarly(u64),
    /// It has not been seen for long enough.
    SeenFor {
        /// For how long it has been seen.
        seen: Duration,
        /// For how long it must be.
        wait: Duration,
    },
    /// This is an address whose latest leaf is another, or which has not been seen since.
    NotSeenAt(SocketAddr),
    /// Another new key was seen since the first sighting.
    Contradiction,
    /// The clock shows a time before this one, which is remembered.
    WentBack(u64),
    /// It does not hold at this time, or ends before it begins.
    Dates,
    /// The resolver has no such address.
    NotConfigured(SocketAddr),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherIssuer => write!(f, "no accepted leaf is from the same issuer"),
            Self::TooEarly(due) => write!(
                f,
                "the accepted leaf is in the first two thirds of its life, until {:#}",
                Moment(*due)
            ),
            Self::SeenFor { seen, wait } => write!(
                f,
                "seen for {} of {} days",
                seen.as_secs() / DAY,
                wait.as_secs().div_ceil(DAY)
            ),
            Self::NotSeenAt(address) => write!(f, "not seen at {address}"),
            Self::Contradiction => {
                write!(f, "another new key was seen meanwhile, so it counts anew")
            }
            Self::WentBack(remembered) => {
                write!(f, "the clock is before {:#}", Moment(*remembered))
            }
            Self::Dates => write!(f, "its dates make no sense at this time"),
            Self::NotConfigured(address) => write!(f, "the resolver has no address {address}"),
        }
    }
}

/// A new leaf and since when it has been learnt, or seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    pub(super) leaf: Leaf,
    pub(super) since: u64,
}

/// An address whose latest leaf is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) address: SocketAddr,
    pub(super) pin: Pin,
    pub(super) at: u64,
}

/// What is remembered of one resolver's leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Leaves that were pinned when they were seen, one of each key and issuer. They make no leaf believed, so that a pin that
    /// is taken back, or a learnt key that is, does not come back through them.
    pub(super) accepted: Vec<Leaf>,
    /// Keys that are believed by these rules, one entry each: without it nothing of the key counts any more.
    pub(super) learnt: Vec<Since>,
    pub(super) candidate: Option<Since>,
    /// No more than there are addresses.
    pub(super) seen: Vec<Sighting>,
}

impl Memory {
    /// Takes in that `leaf`, whose chain and name are verified, was shown at `address` at `now`, and says what to make of it.
    /// `pinned` tells whether a pin fits; `addresses` are all that the resolver has; `wait` is how long a new key must be seen.
    pub fn see(
        &mut self,
        leaf: &Leaf,
        pinned: bool,
        address: SocketAddr,
        addresses: &[SocketAddr],
        wait: Duration,
        now: u64,
    ) -> Verdict {
        let is_learnt = self.learnt().any(|pin| pin == leaf.pin);
        let is_configured = addresses.contains(&address);
        self.seen
            .retain(|sighting| addresses.contains(&sighting.address));
        if pinned || is_learnt {
            if is_configured {
                self.confirm(leaf, pinned, address);
            }
            return if pinned {
                Verdict::Pinned
            } else {
                Verdict::Learnt
            };
        }
        if !is_configured {
            return Verdict::NotYet(Reason::NotConfigured(address));
        }
        match self.judge(leaf, address, addresses, wait, now) {
            Ok(candidate) => {
                self.learn(candidate, now);
                Verdict::Accepted
            }
            Err(reason) => Verdict::NotYet(reason),
        }
    }

    /// The keys that are believed without a pin.
    pub fn learnt(&self) -> impl Iterator<Item = Pin> {
        self.learnt.iter().map(|learnt| learnt.leaf.pin)
    }

    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Remembers a leaf that is believed. What this does holds whatever the clock shows.
    fn confirm(&mut self, leaf: &Leaf, pinned: bool, address: SocketAddr) {
        self.seen.retain(|sighting| sighting.address != address);
        if self.is_candidate(leaf) {
            self.forget_candidate();
        }
        if !leaf.makes_sense() {
            return;
        }
        let mut learnt = self.learnt.iter_mut();
        if let Some(learnt) = learnt.find(|learnt| learnt.leaf.pin == leaf.pin) {
            learnt.leaf.renew(leaf);
        }
        if !pinned {
            return;
        }
        let same = |old: &&mut Leaf| old.pin == leaf.pin && old.issuer == leaf.issuer;
        match self.accepted.iter_mut().find(same) {
            Some(old) => old.renew(leaf),
            None => {
                self.accepted.push(*leaf);
                keep_latest(&mut self.accepted, MOST, Leaf::age);
            }
        }
    }

    /// The new leaf as it is to be learnt, or why not.
    fn judge(
        &mut self,
        leaf: &Leaf,
        address: SocketAddr,
        addresses: &[SocketAddr],
        wait: Duration,
        now: u64,
    ) -> Result<Leaf, Reason> {
        let contradicts = self.candidate.is_some() && !self.is_candidate(leaf);
        if contradicts {
            self.forget_candidate();
        }
        // A clock that is years off says nothing about the candidate: it stays as it was.
        if !leaf.holds_at(now) {
            return Err(Reason::Dates);
        }
        let Some(due) = self.replaceable_from(leaf) else {
            self.forget_candidate();
            return Err(Reason::OtherIssuer);
        };
        let went_back = self.forget_what_is_after(now);
        let candidate = self.note_sighting(leaf, address, now);
        if contradicts {
            return Err(Reason::Contradiction);
        }
        if let Some(remembered) = went_back {
            return Err(Reason::WentBack(remembered));
        }
        if now < due {
            return Err(Reason::TooEarly(due));
        }
        let seen = Duration::from_secs(now.saturating_sub(candidate.since));
        if seen < wait {
            return Err(Reason::SeenFor { seen, wait });
        }
        let since = candidate.since;
        match addresses
            .iter()
            .find(|address| !self.is_seen_at(address, leaf.pin, since, now))
        {
            Some(missing) => Err(Reason::NotSeenAt(*missing)),
            None => Ok(candidate.leaf),
        }
    }

    /// From when on the leaf that was accepted last may be replaced by this one; none where no other was issued under the same
    /// key.
    fn replaceable_from(&self, leaf: &Leaf) -> Option<u64> {
        // A key is no evidence for itself: one that is believed no more begins as any other.
        let learnt = self.learnt.iter().map(|learnt| &learnt.leaf);
        let others = self.accepted.iter().chain(learnt);
        let others = others.filter(|other| other.pin != leaf.pin);
        let same_issuer = others.clone().any(|other| other.issuer == leaf.issuer);
        let last = others.max_by_key(|other| other.age());
        last.filter(|_| same_issuer).map(Leaf::last_third)
    }

    /// Remembers that `leaf` is shown at `address`, as that of the candidate, which it may become.
    fn note_sighting(&mut self, leaf: &Leaf, address: SocketAddr, now: u64) -> Since {
        let candidate = match self.candidate.take() {
            Some(mut candidate) => {
                candidate.leaf.renew(leaf);
                candidate
            }
            None => {
                self.seen.clear();
                Since {
                    leaf: *leaf,
                    since: now,
                }
            }
        };
        self.candidate = Some(candidate);
        self.seen.retain(|sighting| sighting.address != address);
        self.seen.push(Sighting {
            address,
            pin: leaf.pin,
            at: now,
        });
        candidate
    }

    /// Whether a key that is a candidate `since` then is the latest at `address`.
    fn is_seen_at(&self, address: &SocketAddr, pin: Pin, since: u64, now: u64) -> bool {
        // Sightings of before the first can be there only if somebody wrote them.
        let counts =
            |sighting: &Sighting| sighting.pin == pin && (since..=now).contains(&sighting.at);
        let mut seen = self.seen.iter();
        seen.any(|sighting| sighting.address == *address && counts(sighting))
    }

    fn learn(&mut self, leaf: Leaf, now: u64) {
        self.forget_candidate();
        // Room is made first, so that it is not the new one that goes.
        keep_latest(&mut self.learnt, MOST - 1, |learnt| learnt.leaf.age());
        self.learnt.push(Since { leaf, since: now });
    }

    fn is_candidate(&self, leaf: &Leaf) -> bool {
        self.candidate
            .is_some_and(|candidate| candidate.leaf.pin == leaf.pin)
    }

    fn forget_candidate(&mut self) {
        self.candidate = None;
        self.seen.clear();
    }

    /// Forgets what was seen at a time that is still to come, and returns the latest such time. A learnt key stays.
    fn forget_what_is_after(&mut self, now: u64) -> Option<u64> {
        let candidate = self.candidate.iter().map(|candidate| candidate.since);
        let learnt = self.learnt.iter().map(|learnt| learnt.since);
        let seen = self.seen.iter().map(|sighting| sighting.at);
        let latest = candidate.chain(learnt).chain(seen).max();
        self.seen.retain(|sighting| sighting.at <= now);
        if self
            .candidate
            .is_some_and(|candidate| candidate.since > now)
        {
            self.forget_candidate();
        }
        latest.filter(|latest| *latest > now)
    }
}

/// Drops the oldest until there are at most so many.
fn keep_latest<T>(entries: &mut Vec<T>, most: usize, age: impl Fn(&T) -> (u64, u64)) {
    while entries.len() > most {
        let oldest = (0..entries.len()).min_by_key(|index| age(&entries[*index]));
        entries.remove(oldest.unwrap_or_default());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rustls::pki_types::SubjectPublicKeyInfoDer;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    pub(in crate::identity) const START: u64 = 1_767_225_600;
    pub(in crate::identity) const HOUR: u64 = DAY / 24;
    pub(in crate::identity) const WAIT: Duration = Duration::from_secs(3 * DAY);
    /// Issuers' keys.
    pub(in crate::identity) const OURS: u8 = 200;
    pub(in crate::identity) const OTHERS: u8 = 201;

    pub(in crate::identity) fn pin(key: u8) -> Pin {
        Pin::of(&SubjectPublicKeyInfoDer::from(vec![key]))
    }

    pub(in crate::identity) fn day(day: u64) -> u64 {
        START + day * DAY
    }

    /// A leaf that lives for 90 days from this one on.
    pub(in crate::identity) fn leaf(key: u8, issuer: u8, from: u64) -> Leaf {
        Leaf {
            pin: pin(key),
            issuer: pin(issuer),
            not_before: day(from),
            not_after: day(from + 90),
        }
    }

    pub(in crate::identity) fn addresses() -> Vec<SocketAddr> {
        (1..=4)
            .map(|host| SocketAddr::from(([192, 0, 2, host], 853)))
            .collect()
    }

    /// Sees that an address of the four shows a leaf. Key 0 is pinned.
    pub(in crate::identity) fn see(
        memory: &mut Memory,
        leaf: Leaf,
        place: usize,
        now: u64,
    ) -> Verdict {
        let addresses = addresses();
        let pinned = leaf.pin == pin(0);
        memory.see(&leaf, pinned, addresses[place], &addresses, WAIT, now)
    }

    /// The pinned key has been seen, and is in the last third of its life from day 60 on.
    pub(in crate::identity) fn pinned() -> Memory {
        let mut memory = Memory::default();
        assert_eq!(
            see(&mut memory, leaf(0, OURS, 0), 0, day(1)),
            Verdict::Pinned
        );
        memory
    }

    /// Key 1 is seen at all addresses from day 62 to 64. At the first on day 65 it would be accepted.
    pub(in crate::identity) fn rolled() -> Memory {
        let mut memory = pinned();
        for (place, now) in [(0, 62), (1, 62), (2, 63), (3, 64)] {
            let verdict = see(&mut memory, leaf(1, OURS, 61), place, day(now));
            assert!(matches!(verdict, Verdict::NotYet(Reason::SeenFor { .. })));
        }
        memory
    }

    /// Key 1 was accepted on day 65.
    pub(in crate::identity) fn learnt() -> Memory {
        let mut memory = rolled();
        assert_eq!(
            see(&mut memory, leaf(1, OURS, 61), 0, day(65)),
            Verdict::Accepted
        );
        memory
    }

    #[test]
    fn a_key_that_passes_all_rules_is_accepted_once_and_learnt_from_then_on() {
        let mut memory = rolled();
        assert_eq!(memory.learnt().count(), 0);
        let key = leaf(1, OURS, 61);
        assert_eq!(see(&mut memory, key, 0, day(65)), Verdict::Accepted);
        assert_eq!(see(&mut memory, key, 1, day(65)), Verdict::Learnt);
        assert_eq!(memory.learnt().collect::<Vec<_>>(), [pin(1)]);
        // It is a leaf that another may follow.
        for place in 0..4 {
            see(&mut memory, leaf(2, OURS, 122), place, day(122));
        }
        assert_eq!(
            see(&mut memory, leaf(2, OURS, 122), 0, day(125)),
            Verdict::Accepted
        );
    }

    #[test]
    fn a_key_under_another_issuer_is_not_accepted() {
        let mut memory = pinned();
        for now in 62..89 {
            for place in 0..4 {
                let verdict = see(&mut memory, leaf(1, OTHERS, 61), place, day(now));
                assert_eq!(verdict, Verdict::NotYet(Reason::OtherIssuer));
            }
        }
    }

    #[test]
    fn an_issuer_of_an_accepted_key_is_remembered_when_another_signs_it_anew() {
        let mut memory = pinned();
        see(&mut memory, leaf(0, OTHERS, 1), 0, day(2));
        for place in 0..4 {
            see(&mut memory, leaf(1, OURS, 61), place, day(62));
        }
        let key = leaf(1, OURS, 61);
        assert_eq!(see(&mut memory, key, 0, day(65)), Verdict::Accepted);
    }

    #[test]
    fn without_an_accepted_leaf_no_key_is_accepted() {
        let mut memory = Memory::default();
        for now in 62..89 {
            for place in 0..4 {
                let verdict = see(&mut memory, leaf(1, OURS, 61), place, day(now));
                assert_eq!(verdict, Verdict::NotYet(Reason::OtherIssuer));
            }
        }
        assert!(memory.is_empty());
    }

    #[test]
    fn a_key_is_not_accepted_in_the_first_two_thirds_of_the_last_ones_life() {
        let mut memory = pinned();
        let key = leaf(1, OURS, 40);
        for now in day(40)..day(60) {
            if now % HOUR == 0 || now == day(60) - 1 {
                for place in 0..4 {
                    let verdict = see(&mut memory, key, place, now);
                    assert_eq!(verdict, Verdict::NotYet(Reason::TooEarly(day(60))));
                }
            }
        }
        assert_eq!(see(&mut memory, key, 0, day(60)), Verdict::Accepted);
    }

    #[test]
    fn it_is_the_last_accepted_leaf_that_must_be_due() {
        let mut memory = learnt();
        for now in 66..121 {
            for place in 0..4 {
                let verdict = see(&mut memory, leaf(2, OURS, 65), place, day(now));
                assert_eq!(verdict, Verdict::NotYet(Reason::TooEarly(day(121))));
            }
        }
        // A renewed certificate for an accepted key puts it off.
        let mut memory = rolled();
        see(&mut memory, leaf(0, OURS, 30), 3, day(64));
        for place in [3, 0] {
            let verdict = see(&mut memory, leaf(1, OURS, 61), place, day(65));
            assert_eq!(verdict, Verdict::NotYet(Reason::TooEarly(day(90))));
        }
    }

    #[test]
    fn a_key_is_not_accepted_a_second_before_the_wait_is_over() {
        let mut memory = rolled();
        let key = leaf(1, OURS, 61);
        let seen = WAIT - Duration::from_secs(1);
        assert_eq!(
            see(&mut memory, key, 0, day(65) - 1),
            Verdict::NotYet(Reason::SeenFor { seen, wait: WAIT })
        );
        assert_eq!(see(&mut memory, key, 0, day(65)), Verdict::Accepted);
    }

    #[test]
    fn a_key_is_not_accepted_before_it_is_the_latest_at_every_address() {
        let key = leaf(1, OURS, 61);
        let mut memory = pinned();
        for now in 62..80 {
            for place in 0..3 {
                see(&mut memory, key, place, day(now));
            }
        }
        let missing = Verdict::NotYet(Reason::NotSeenAt(addresses()[3]));
        assert_eq!(see(&mut memory, key, 0, day(80)), missing);
        // The last address joins, but another falls back to the old key, which is no contradiction.
        see(&mut memory, leaf(0, OURS, 0), 1, day(80));
        let missing = Verdict::NotYet(Reason::NotSeenAt(addresses()[1]));
        assert_eq!(see(&mut memory, key, 3, day(80)), missing);
        assert_eq!(see(&mut memory, key, 1, day(80)), Verdict::Accepted);
    }

    #[test]
    fn a_leaf_that_is_neither_it_nor_accepted_starts_the_count_anew() {
        let others = [
            leaf(2, OURS, 61),
            leaf(2, OTHERS, 61),
            // The same key from an issuer that signed no accepted one.
            leaf(1, OTHERS, 61),
            Leaf {
                not_after: 0,
                ..leaf(2, OURS, 61)
            },
        ];
        let key = leaf(1, OURS, 61);
        for other in others {
            let mut memory = rolled();
            let verdict = see(&mut memory, other, 2, day(64));
            assert!(matches!(verdict, Verdict::NotYet(_)), "{verdict:?}");
            for now in 65..68 {
                for place in 0..4 {
                    let verdict = see(&mut memory, key, place, day(now));
                    assert!(matches!(verdict, Verdict::NotYet(_)), "{verdict:?}");
                }
            }
            assert_eq!(see(&mut memory, key, 0, day(68)), Verdict::Accepted);
        }
    }

    #[test]
    fn of_two_new_keys_neither_is_accepted_while_both_are_seen() {
        let mut memory = pinned();
        let keys = [leaf(1, OURS, 61), leaf(2, OURS, 61)];
        see(&mut memory, keys[0], 0, day(62));
        for hour in 0..28 * 24 {
            for (key, place) in [(1, 1), (0, 2), (0, 3), (0, 0)] {
                let now = day(62) + hour * HOUR;
                let verdict = see(&mut memory, keys[key], place, now);
                assert!(matches!(verdict, Verdict::NotYet(_)), "{verdict:?}");
            }
        }
        let verdict = see(&mut memory, keys[1], 0, day(89));
        assert_eq!(verdict, Verdict::NotYet(Reason::Contradiction));
    }

    #[test]
    fn a_new_key_in_a_renewed_certificate_is_the_same_key() {
        let mut memory = rolled();
        let renewed = leaf(1, OURS, 64);
        assert_eq!(see(&mut memory, renewed, 0, day(65)), Verdict::Accepted);
        // The later certificate is what counts from now on, whichever was seen last.
        see(&mut memory, leaf(1, OURS, 61), 0, day(66));
        let verdict = see(&mut memory, leaf(2, OURS, 123), 0, day(123));
        assert_eq!(verdict, Verdict::NotYet(Reason::TooEarly(day(124))));
    }

    #[test]
    fn a_time_before_what_is_remembered_accepts_nothing() {
        let key = leaf(1, OURS, 61);
        // The first sighting is still to come: it was not the first.
        let mut memory = rolled();
        let verdict = see(&mut memory, key, 0, day(61));
        assert_eq!(verdict, Verdict::NotYet(Reason::WentBack(day(64))));
        for place in 0..4 {
            see(&mut memory, key, place, day(63));
        }
        let verdict = see(&mut memory, key, 0, day(64) - 1);
        let seen = Duration::from_secs(3 * DAY - 1);
        assert_eq!(
            verdict,
            Verdict::NotYet(Reason::SeenFor { seen, wait: WAIT })
        );
        // A clock that went back by a moment costs what was seen in that moment, and not the wait.
        let mut memory = rolled();
        see(&mut memory, leaf(0, OURS, 0), 3, day(65));
        see(&mut memory, key, 2, day(65) - 1);
        see(&mut memory, key, 3, day(65) - 2);
        let missing = Verdict::NotYet(Reason::NotSeenAt(addresses()[2]));
        assert_eq!(see(&mut memory, key, 0, day(65)), missing);
        assert_eq!(see(&mut memory, key, 2, day(65)), Verdict::Accepted);
        // A learnt key is no sighting: nothing new is accepted before it was.
        let mut memory = learnt();
        let next = Leaf {
            not_before: day(0),
            ..leaf(2, OURS, 61)
        };
        for now in [10, 64] {
            for place in 0..4 {
                let verdict = see(&mut memory, next, place, day(now));
                assert_eq!(verdict, Verdict::NotYet(Reason::WentBack(day(65))));
            }
        }
        assert_eq!(see(&mut memory, key, 0, day(1)), Verdict::Learnt);
    }

    #[test]
    fn a_clock_that_is_years_off_for_a_while_accepts_nothing_and_costs_nothing() {
        let key = leaf(1, OURS, 61);
        let mut memory = rolled();
        let before = memory.clone();
        for now in [0, day(0) - 1, day(60), day(3650), LAST, LAST + 1, u64::MAX] {
            for place in 0..4 {
                let verdict = see(&mut memory, key, place, now);
                assert_eq!(verdict, Verdict::NotYet(Reason::Dates), "{now}");
            }
            assert_eq!(memory, before);
        }
        assert_eq!(see(&mut memory, key, 0, day(65)), Verdict::Accepted);
    }

    #[test]
    fn dates_that_make_no_sense_accept_nothing_and_are_no_evidence() {
        let good = leaf(1, OURS, 61);
        for (not_before, not_after) in [
            (good.not_after, good.not_before),
            (day(65), day(65)),
            (day(61), LAST + 1),
            (0, u64::MAX),
            (u64::MAX, u64::MAX),
            (u64::MAX, 0),
        ] {
            let nonsense = |leaf| Leaf {
                not_before,
                not_after,
                ..leaf
            };
            let mut memory = rolled();
            for place in 0..4 {
                let verdict = see(&mut memory, nonsense(good), place, day(65));
                assert_eq!(verdict, Verdict::NotYet(Reason::Dates));
            }
            let mut memory = Memory::default();
            let verdict = see(&mut memory, nonsense(leaf(0, OURS, 0)), 0, day(1));
            assert_eq!(verdict, Verdict::Pinned, "whoever pinned it may know why");
            assert!(memory.is_empty());
        }
    }

    #[test]
    fn an_address_that_is_not_configured_counts_for_nothing() {
        let key = leaf(1, OURS, 61);
        let all = addresses();
        let mut memory = rolled();
        let before = memory.clone();
        let stranger = SocketAddr::from(([192, 0, 2, 9], 853));
        for other in [key, leaf(2, OTHERS, 61)] {
            let verdict = memory.see(&other, false, stranger, &all, WAIT, day(65));
            assert_eq!(verdict, Verdict::NotYet(Reason::NotConfigured(stranger)));
        }
        let verdict = memory.see(&leaf(0, OURS, 30), true, stranger, &all, WAIT, day(65));
        assert_eq!(verdict, Verdict::Pinned);
        assert_eq!(memory, before);
        // One that was away for a while must be seen anew; one that has come must be seen, too.
        memory.see(&key, false, all[0], &all[..3], WAIT, day(64));
        let verdict = memory.see(&key, false, all[0], &all, WAIT, day(65));
        assert_eq!(verdict, Verdict::NotYet(Reason::NotSeenAt(all[3])));
        let mut more = all.clone();
        more.push(stranger);
        let verdict = memory.see(&key, false, all[3], &more, WAIT, day(65));
        assert_eq!(verdict, Verdict::NotYet(Reason::NotSeenAt(stranger)));
        let verdict = memory.see(&key, false, all[0], &[], WAIT, day(65));
        assert_eq!(verdict, Verdict::NotYet(Reason::NotConfigured(all[0])));
    }

    #[test]
    fn reasons_are_said_in_words() {
        let address = addresses()[0];
        for (reason, words) in [
            (
                Reason::OtherIssuer,
                "no accepted leaf is from the same issuer",
            ),
            (
                Reason::TooEarly(day(60)),
                "the accepted leaf is in the first two thirds of its life, until 2026-03-02T00:00:00Z",
            ),
            (
                Reason::SeenFor {
                    seen: Duration::from_secs(2 * DAY + HOUR),
                    wait: WAIT,
                },
                "seen for 2 of 3 days",
            ),
            (Reason::NotSeenAt(address), "not seen at 192.0.2.1:853"),
            (
                Reason::Contradiction,
                "another new key was seen meanwhile, so it counts anew",
            ),
            (
                Reason::WentBack(day(0)),
                "the clock is before 2026-01-01T00:00:00Z",
            ),
            (Reason::Dates, "its dates make no sense at this time"),
            (
                Reason::NotConfigured(address),
                "the resolver has no address 192.0.2.1:853",
            ),
        ] {
            assert_eq!(reason.to_string(), words);
        }
    }
}
