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
use crate::system::date::{DAY, Timestamp};

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
                Timestamp(*due)
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
                write!(f, "the clock is before {:#}", Timestamp(*remembered))
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
pub(super) mod tests;
