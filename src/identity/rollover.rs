//! May a new key be accepted that is not pinned?
//!
//! If only the key of a resolver's leaf is pinned, the resolver can no longer be used once its operator changes the key. These
//! rules accept a new leaf that looks like a roll-over by the operator in every respect: it has the same issuer's key, the old
//! leaf was due for replacement, every address presents the new leaf, for days, and no other new key was seen meanwhile. The caller
//! verifies chain and name. A leaf is trusted only if its key is pinned or learnt; the history of accepted leaves is evidence
//! for the rules and nothing more.
//!
//! Limit: an attacker who obtains a certificate for the name from the same issuer, presents it once and, after the wait, at all
//! addresses when the old leaf is due, cannot be told from the operator. Time is passed in; no I/O.

use std::fmt;
use std::time::Duration;

use crate::identity::pin::Pin;
use crate::system::date::{DAY, Timestamp};
use crate::system::scoped_address::ScopedAddress;

/// Maximum number of accepted leaves, and also of learnt ones, in the history of one resolver.
pub(super) const MAX_LEAVES: usize = 8;
/// 9999-12-31T23:59:59Z, the latest time that a certificate can have (RFC 5280 section 4.1.2.5). Seconds since 1970, UTC.
pub(super) const MAX_TIME: u64 = 253_402_300_799;

/// A leaf certificate: its key, its issuer's key and its validity. Times are seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// The pin of the leaf's key.
    pub pin: Pin,
    /// The pin of the key of the next certificate on the verified path, which signed the leaf.
    pub issuer: Pin,
    /// The first second of validity.
    pub not_before: u64,
    /// The last second of validity.
    pub not_after: u64,
}

impl Leaf {
    pub(super) fn has_valid_dates(&self) -> bool {
        self.not_before < self.not_after && self.not_after <= MAX_TIME
    }

    fn is_valid_at(&self, now: u64) -> bool {
        self.has_valid_dates() && (self.not_before..=self.not_after).contains(&now)
    }

    /// From when on the leaf may be replaced: the beginning of the last third of its validity.
    fn replacement_due(&self) -> u64 {
        self.not_after - (self.not_after - self.not_before) / 3
    }

    /// Orders leaves: later certificates are greater.
    fn recency(&self) -> (u64, u64) {
        (self.not_before, self.not_after)
    }

    /// Replaces this leaf with `other`, of the same key, if that is later.
    fn update_if_newer(&mut self, other: &Self) {
        if other.recency() > self.recency() {
            *self = *other;
        }
    }
}

/// The decision about a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloverDecision {
    /// The leaf matches a pin.
    Pinned,
    /// The key was accepted by these rules before.
    Learnt,
    /// The key was accepted by these rules just now, and is learnt from now on.
    Accepted,
    /// The leaf is not accepted, or not yet.
    Rejected(RejectReason),
}

/// Why a leaf is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// No accepted leaf with another key has the same issuer's key.
    OtherIssuer,
    /// The latest accepted leaf may be replaced only from this time on, in seconds since 1970, UTC.
    TooEarly(u64),
    /// The key has not been seen for long enough.
    SeenTooShort {
        /// For how long the key has been seen.
        seen: Duration,
        /// For how long the key must be seen.
        wait: Duration,
    },
    /// The latest leaf of this address has another key, or the address was not observed since the key was first seen.
    NotSeenAt(ScopedAddress),
    /// Another new key was seen since this one was first seen.
    ConflictingKey,
    /// The clock is before this time of an earlier observation, in seconds since 1970, UTC.
    ClockWentBack(u64),
    /// The leaf is not valid now, or its validity ends before it begins.
    InvalidDates,
    /// This address is not one of the resolver's.
    NotConfigured(ScopedAddress),
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherIssuer => write!(f, "no accepted leaf is from the same issuer"),
            Self::TooEarly(due) => write!(
                f,
                "the accepted leaf is in the first two thirds of its life, until {:#}",
                Timestamp(*due)
            ),
            Self::SeenTooShort { seen, wait } => write!(
                f,
                "seen for {} of {} days",
                seen.as_secs() / DAY,
                wait.as_secs().div_ceil(DAY)
            ),
            Self::NotSeenAt(address) => write!(f, "not seen at {address}"),
            Self::ConflictingKey => {
                write!(f, "another new key was seen meanwhile, so it counts anew")
            }
            Self::ClockWentBack(remembered) => {
                write!(f, "the clock is before {:#}", Timestamp(*remembered))
            }
            Self::InvalidDates => write!(f, "its dates make no sense at this time"),
            Self::NotConfigured(address) => write!(f, "the resolver has no address {address}"),
        }
    }
}

/// A leaf, and the time since when it has been learnt or, for the candidate, seen. Seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DatedLeaf {
    pub(super) leaf: Leaf,
    pub(super) since: u64,
}

/// An address whose latest leaf has a new key, and the time at which the leaf was seen last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressObservation {
    pub(super) address: ScopedAddress,
    pub(super) pin: Pin,
    pub(super) at: u64,
}

/// The history of one resolver's leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyHistory {
    /// Leaves that were pinned when they were seen, one for each key and issuer. They do not make a key trusted, so that a pin or a
    /// learnt key that the user removes stays removed.
    pub(super) accepted: Vec<Leaf>,
    /// Keys that these rules have accepted, one entry each. A key whose entry is removed is not trusted any more.
    pub(super) learnt: Vec<DatedLeaf>,
    /// The new leaf that may be accepted.
    pub(super) candidate: Option<DatedLeaf>,
    /// The addresses that presented the candidate last, at most one entry for each.
    pub(super) observations: Vec<AddressObservation>,
}

impl KeyHistory {
    /// Records that `address` presented `leaf`, with a verified chain and name, at `now`, and decides whether the leaf is accepted.
    /// `pinned` tells whether a pin matched; `addresses` are all of the resolver's; `wait` is how long a new key must be seen; `now` is
    /// in seconds since 1970, UTC.
    pub fn observe(
        &mut self,
        leaf: &Leaf,
        pinned: bool,
        address: ScopedAddress,
        addresses: &[ScopedAddress],
        wait: Duration,
        now: u64,
    ) -> RolloverDecision {
        let is_learnt = self.learnt().any(|pin| pin == leaf.pin);
        let is_configured = addresses.contains(&address);
        self.observations
            .retain(|observation| addresses.contains(&observation.address));
        if pinned || is_learnt {
            if is_configured {
                self.record_accepted(leaf, pinned, address);
            }
            return if pinned {
                RolloverDecision::Pinned
            } else {
                RolloverDecision::Learnt
            };
        }
        if !is_configured {
            return RolloverDecision::Rejected(RejectReason::NotConfigured(address));
        }
        match self.evaluate(leaf, address, addresses, wait, now) {
            Ok(candidate) => {
                self.learn(candidate, now);
                RolloverDecision::Accepted
            }
            Err(reason) => RolloverDecision::Rejected(reason),
        }
    }

    /// The keys that are trusted without a pin.
    pub fn learnt(&self) -> impl Iterator<Item = Pin> {
        self.learnt.iter().map(|learnt| learnt.leaf.pin)
    }

    /// Whether the history is empty.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Records a leaf that is trusted. This does not depend on the clock.
    fn record_accepted(&mut self, leaf: &Leaf, pinned: bool, address: ScopedAddress) {
        self.observations
            .retain(|observation| observation.address != address);
        if self.is_candidate(leaf) {
            self.forget_candidate();
        }
        if !leaf.has_valid_dates() {
            return;
        }
        let mut learnt = self.learnt.iter_mut();
        if let Some(learnt) = learnt.find(|learnt| learnt.leaf.pin == leaf.pin) {
            learnt.leaf.update_if_newer(leaf);
        }
        if !pinned {
            return;
        }
        let same = |old: &&mut Leaf| old.pin == leaf.pin && old.issuer == leaf.issuer;
        match self.accepted.iter_mut().find(same) {
            Some(old) => old.update_if_newer(leaf),
            None => {
                self.accepted.push(*leaf);
                keep_latest(&mut self.accepted, MAX_LEAVES, Leaf::recency);
            }
        }
    }

    /// Decides about a new leaf: returns the leaf to learn, or why it is rejected.
    fn evaluate(
        &mut self,
        leaf: &Leaf,
        address: ScopedAddress,
        addresses: &[ScopedAddress],
        wait: Duration,
        now: u64,
    ) -> Result<Leaf, RejectReason> {
        let is_conflicting = self.candidate.is_some() && !self.is_candidate(leaf);
        if is_conflicting {
            self.forget_candidate();
        }
        // A clock that is years off is no evidence against the candidate, which stays.
        if !leaf.is_valid_at(now) {
            return Err(RejectReason::InvalidDates);
        }
        let Some(due) = self.replaceable_from(leaf) else {
            self.forget_candidate();
            return Err(RejectReason::OtherIssuer);
        };
        let latest_future = self.drop_future_observations(now);
        let candidate = self.record_observation(leaf, address, now);
        if is_conflicting {
            return Err(RejectReason::ConflictingKey);
        }
        if let Some(remembered) = latest_future {
            return Err(RejectReason::ClockWentBack(remembered));
        }
        if now < due {
            return Err(RejectReason::TooEarly(due));
        }
        let seen = Duration::from_secs(now.saturating_sub(candidate.since));
        if seen < wait {
            return Err(RejectReason::SeenTooShort { seen, wait });
        }
        let since = candidate.since;
        match addresses
            .iter()
            .find(|address| !self.is_latest_at(address, leaf.pin, since, now))
        {
            Some(missing) => Err(RejectReason::NotSeenAt(*missing)),
            None => Ok(candidate.leaf),
        }
    }

    /// From when on `leaf` may replace the latest accepted or learnt one. None if no leaf with another key has the same issuer's key.
    fn replaceable_from(&self, leaf: &Leaf) -> Option<u64> {
        // A key is no evidence for itself: a key that is no longer trusted has to pass all rules again.
        let learnt = self.learnt.iter().map(|learnt| &learnt.leaf);
        let others = self.accepted.iter().chain(learnt);
        let others = others.filter(|other| other.pin != leaf.pin);
        let same_issuer = others.clone().any(|other| other.issuer == leaf.issuer);
        let last = others.max_by_key(|other| other.recency());
        last.filter(|_| same_issuer).map(Leaf::replacement_due)
    }

    /// Records that `address` presented `leaf`, which is the candidate or becomes it. Returns the candidate.
    fn record_observation(&mut self, leaf: &Leaf, address: ScopedAddress, now: u64) -> DatedLeaf {
        let candidate = match self.candidate.take() {
            Some(mut candidate) => {
                candidate.leaf.update_if_newer(leaf);
                candidate
            }
            None => {
                self.observations.clear();
                DatedLeaf {
                    leaf: *leaf,
                    since: now,
                }
            }
        };
        self.candidate = Some(candidate);
        self.observations
            .retain(|observation| observation.address != address);
        self.observations.push(AddressObservation {
            address,
            pin: leaf.pin,
            at: now,
        });
        candidate
    }

    /// Whether the latest leaf at `address` has the candidate's key, which was first seen at `since`.
    fn is_latest_at(&self, address: &ScopedAddress, pin: Pin, since: u64, now: u64) -> bool {
        // Observations from before `since` exist only if somebody edited the state file.
        let counts = |observation: &AddressObservation| {
            observation.pin == pin && (since..=now).contains(&observation.at)
        };
        let mut seen = self.observations.iter();
        seen.any(|observation| observation.address == *address && counts(observation))
    }

    fn learn(&mut self, leaf: Leaf, now: u64) {
        self.forget_candidate();
        // The oldest is dropped first, so that the new leaf is not the one dropped.
        keep_latest(&mut self.learnt, MAX_LEAVES - 1, |learnt| {
            learnt.leaf.recency()
        });
        self.learnt.push(DatedLeaf { leaf, since: now });
    }

    fn is_candidate(&self, leaf: &Leaf) -> bool {
        self.candidate
            .is_some_and(|candidate| candidate.leaf.pin == leaf.pin)
    }

    fn forget_candidate(&mut self) {
        self.candidate = None;
        self.observations.clear();
    }

    /// Drops observations and the candidate if they are later than `now`. Returns the latest time in the history if that is later than
    /// `now`. Learnt keys stay.
    fn drop_future_observations(&mut self, now: u64) -> Option<u64> {
        let candidate = self.candidate.iter().map(|candidate| candidate.since);
        let learnt = self.learnt.iter().map(|learnt| learnt.since);
        let seen = self.observations.iter().map(|observation| observation.at);
        let latest = candidate.chain(learnt).chain(seen).max();
        self.observations
            .retain(|observation| observation.at <= now);
        if self
            .candidate
            .is_some_and(|candidate| candidate.since > now)
        {
            self.forget_candidate();
        }
        latest.filter(|latest| *latest > now)
    }
}

/// Drops the oldest entries until there are at most `max`.
fn keep_latest<T>(entries: &mut Vec<T>, max: usize, recency: impl Fn(&T) -> (u64, u64)) {
    while entries.len() > max {
        let oldest = (0..entries.len()).min_by_key(|index| recency(&entries[*index]));
        entries.remove(oldest.unwrap_or_default());
    }
}

#[cfg(test)]
pub(super) mod tests;
