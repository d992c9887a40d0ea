use std::net::SocketAddr;

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

pub(in crate::identity) fn addresses() -> Vec<ScopedAddress> {
    (1..=4)
        .map(|host| SocketAddr::from(([192, 0, 2, host], 853)).into())
        .collect()
}

/// Observes a leaf at one of the four addresses. Key 0 is pinned.
pub(in crate::identity) fn observe(
    history: &mut KeyHistory,
    leaf: Leaf,
    address_index: usize,
    now: u64,
) -> RolloverDecision {
    let addresses = addresses();
    let pinned = leaf.pin == pin(0);
    history.observe(
        &leaf,
        pinned,
        addresses[address_index],
        &addresses,
        WAIT,
        now,
    )
}

/// The pinned key has been seen, and is in the last third of its life from day 60 on.
pub(in crate::identity) fn pinned() -> KeyHistory {
    let mut history = KeyHistory::default();
    assert_eq!(
        observe(&mut history, leaf(0, OURS, 0), 0, day(1)),
        RolloverDecision::Pinned
    );
    history
}

/// Key 1 is seen at all addresses from day 62 to 64. At the first on day 65 it would be accepted.
pub(in crate::identity) fn rolled() -> KeyHistory {
    let mut history = pinned();
    for (address_index, now) in [(0, 62), (1, 62), (2, 63), (3, 64)] {
        let decision = observe(&mut history, leaf(1, OURS, 61), address_index, day(now));
        assert!(matches!(
            decision,
            RolloverDecision::Rejected(RejectReason::SeenTooShort { .. })
        ));
    }
    history
}

/// Key 1 was accepted on day 65.
pub(in crate::identity) fn learnt() -> KeyHistory {
    let mut history = rolled();
    assert_eq!(
        observe(&mut history, leaf(1, OURS, 61), 0, day(65)),
        RolloverDecision::Accepted
    );
    history
}

#[test]
fn a_key_that_passes_all_rules_is_accepted_once_and_learnt_from_then_on() {
    let mut history = rolled();
    assert_eq!(history.learnt().count(), 0);
    let key = leaf(1, OURS, 61);
    assert_eq!(
        observe(&mut history, key, 0, day(65)),
        RolloverDecision::Accepted
    );
    assert_eq!(
        observe(&mut history, key, 1, day(65)),
        RolloverDecision::Learnt
    );
    assert_eq!(history.learnt().collect::<Vec<_>>(), [pin(1)]);
    // It is a leaf that another may follow.
    for address_index in 0..4 {
        observe(&mut history, leaf(2, OURS, 122), address_index, day(122));
    }
    assert_eq!(
        observe(&mut history, leaf(2, OURS, 122), 0, day(125)),
        RolloverDecision::Accepted
    );
}

#[test]
fn a_key_under_another_issuer_is_not_accepted() {
    let mut history = pinned();
    for now in 62..89 {
        for address_index in 0..4 {
            let decision = observe(&mut history, leaf(1, OTHERS, 61), address_index, day(now));
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::OtherIssuer)
            );
        }
    }
}

#[test]
fn the_issuer_of_an_accepted_key_stays_in_the_history_when_another_signs_the_key() {
    let mut history = pinned();
    observe(&mut history, leaf(0, OTHERS, 1), 0, day(2));
    for address_index in 0..4 {
        observe(&mut history, leaf(1, OURS, 61), address_index, day(62));
    }
    let key = leaf(1, OURS, 61);
    assert_eq!(
        observe(&mut history, key, 0, day(65)),
        RolloverDecision::Accepted
    );
}

#[test]
fn without_an_accepted_leaf_no_key_is_accepted() {
    let mut history = KeyHistory::default();
    for now in 62..89 {
        for address_index in 0..4 {
            let decision = observe(&mut history, leaf(1, OURS, 61), address_index, day(now));
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::OtherIssuer)
            );
        }
    }
    assert!(history.is_empty());
}

#[test]
fn a_key_is_not_accepted_in_the_first_two_thirds_of_the_last_ones_life() {
    let mut history = pinned();
    let key = leaf(1, OURS, 40);
    for now in day(40)..day(60) {
        if now % HOUR == 0 || now == day(60) - 1 {
            for address_index in 0..4 {
                let decision = observe(&mut history, key, address_index, now);
                assert_eq!(
                    decision,
                    RolloverDecision::Rejected(RejectReason::TooEarly(day(60)))
                );
            }
        }
    }
    assert_eq!(
        observe(&mut history, key, 0, day(60)),
        RolloverDecision::Accepted
    );
}

#[test]
fn the_latest_accepted_leaf_must_be_due() {
    let mut history = learnt();
    for now in 66..121 {
        for address_index in 0..4 {
            let decision = observe(&mut history, leaf(2, OURS, 65), address_index, day(now));
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::TooEarly(day(121)))
            );
        }
    }
    // A renewed certificate for an accepted key puts it off.
    let mut history = rolled();
    observe(&mut history, leaf(0, OURS, 30), 3, day(64));
    for address_index in [3, 0] {
        let decision = observe(&mut history, leaf(1, OURS, 61), address_index, day(65));
        assert_eq!(
            decision,
            RolloverDecision::Rejected(RejectReason::TooEarly(day(90)))
        );
    }
}

#[test]
fn a_key_is_not_accepted_a_second_before_the_wait_is_over() {
    let mut history = rolled();
    let key = leaf(1, OURS, 61);
    let seen = WAIT - Duration::from_secs(1);
    assert_eq!(
        observe(&mut history, key, 0, day(65) - 1),
        RolloverDecision::Rejected(RejectReason::SeenTooShort { seen, wait: WAIT })
    );
    assert_eq!(
        observe(&mut history, key, 0, day(65)),
        RolloverDecision::Accepted
    );
}

#[test]
fn a_key_is_not_accepted_before_it_is_the_latest_at_every_address() {
    let key = leaf(1, OURS, 61);
    let mut history = pinned();
    for now in 62..80 {
        for address_index in 0..3 {
            observe(&mut history, key, address_index, day(now));
        }
    }
    let missing = RolloverDecision::Rejected(RejectReason::NotSeenAt(addresses()[3]));
    assert_eq!(observe(&mut history, key, 0, day(80)), missing);
    // The last address joins, but another falls back to the old key, which is no contradiction.
    observe(&mut history, leaf(0, OURS, 0), 1, day(80));
    let missing = RolloverDecision::Rejected(RejectReason::NotSeenAt(addresses()[1]));
    assert_eq!(observe(&mut history, key, 3, day(80)), missing);
    assert_eq!(
        observe(&mut history, key, 1, day(80)),
        RolloverDecision::Accepted
    );
}

#[test]
fn a_conflicting_leaf_starts_the_wait_again() {
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
        let mut history = rolled();
        let decision = observe(&mut history, other, 2, day(64));
        assert!(
            matches!(decision, RolloverDecision::Rejected(_)),
            "{decision:?}"
        );
        for now in 65..68 {
            for address_index in 0..4 {
                let decision = observe(&mut history, key, address_index, day(now));
                assert!(
                    matches!(decision, RolloverDecision::Rejected(_)),
                    "{decision:?}"
                );
            }
        }
        assert_eq!(
            observe(&mut history, key, 0, day(68)),
            RolloverDecision::Accepted
        );
    }
}

#[test]
fn of_two_new_keys_neither_is_accepted_while_both_are_seen() {
    let mut history = pinned();
    let keys = [leaf(1, OURS, 61), leaf(2, OURS, 61)];
    observe(&mut history, keys[0], 0, day(62));
    for hour in 0..28 * 24 {
        for (key, address_index) in [(1, 1), (0, 2), (0, 3), (0, 0)] {
            let now = day(62) + hour * HOUR;
            let decision = observe(&mut history, keys[key], address_index, now);
            assert!(
                matches!(decision, RolloverDecision::Rejected(_)),
                "{decision:?}"
            );
        }
    }
    let decision = observe(&mut history, keys[1], 0, day(89));
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::ConflictingKey)
    );
}

#[test]
fn a_new_key_in_a_renewed_certificate_is_the_same_key() {
    let mut history = rolled();
    let renewed = leaf(1, OURS, 64);
    assert_eq!(
        observe(&mut history, renewed, 0, day(65)),
        RolloverDecision::Accepted
    );
    // The later certificate is what counts from now on, whichever was seen last.
    observe(&mut history, leaf(1, OURS, 61), 0, day(66));
    let decision = observe(&mut history, leaf(2, OURS, 123), 0, day(123));
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::TooEarly(day(124)))
    );
}

#[test]
fn a_clock_before_an_earlier_observation_accepts_nothing() {
    let key = leaf(1, OURS, 61);
    // The first observation is in the future, so it does not count as the first.
    let mut history = rolled();
    let decision = observe(&mut history, key, 0, day(61));
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::ClockWentBack(day(64)))
    );
    for address_index in 0..4 {
        observe(&mut history, key, address_index, day(63));
    }
    let decision = observe(&mut history, key, 0, day(64) - 1);
    let seen = Duration::from_secs(3 * DAY - 1);
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::SeenTooShort { seen, wait: WAIT })
    );
    // A clock that went back by a moment loses the observations of that moment, but not the wait.
    let mut history = rolled();
    observe(&mut history, leaf(0, OURS, 0), 3, day(65));
    observe(&mut history, key, 2, day(65) - 1);
    observe(&mut history, key, 3, day(65) - 2);
    let missing = RolloverDecision::Rejected(RejectReason::NotSeenAt(addresses()[2]));
    assert_eq!(observe(&mut history, key, 0, day(65)), missing);
    assert_eq!(
        observe(&mut history, key, 2, day(65)),
        RolloverDecision::Accepted
    );
    // A learnt key is no observation: no new key is accepted at a time before it was learnt.
    let mut history = learnt();
    let next = Leaf {
        not_before: day(0),
        ..leaf(2, OURS, 61)
    };
    for now in [10, 64] {
        for address_index in 0..4 {
            let decision = observe(&mut history, next, address_index, day(now));
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::ClockWentBack(day(65)))
            );
        }
    }
    assert_eq!(
        observe(&mut history, key, 0, day(1)),
        RolloverDecision::Learnt
    );
}

#[test]
fn a_clock_that_is_years_off_accepts_nothing_and_drops_nothing() {
    let key = leaf(1, OURS, 61);
    let mut history = rolled();
    let before = history.clone();
    for now in [
        0,
        day(0) - 1,
        day(60),
        day(3650),
        MAX_TIME,
        MAX_TIME + 1,
        u64::MAX,
    ] {
        for address_index in 0..4 {
            let decision = observe(&mut history, key, address_index, now);
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::InvalidDates),
                "{now}"
            );
        }
        assert_eq!(history, before);
    }
    assert_eq!(
        observe(&mut history, key, 0, day(65)),
        RolloverDecision::Accepted
    );
}

#[test]
fn invalid_dates_accept_nothing_and_are_no_evidence() {
    let good = leaf(1, OURS, 61);
    for (not_before, not_after) in [
        (good.not_after, good.not_before),
        (day(65), day(65)),
        (day(61), MAX_TIME + 1),
        (0, u64::MAX),
        (u64::MAX, u64::MAX),
        (u64::MAX, 0),
    ] {
        let nonsense = |leaf| Leaf {
            not_before,
            not_after,
            ..leaf
        };
        let mut history = rolled();
        for address_index in 0..4 {
            let decision = observe(&mut history, nonsense(good), address_index, day(65));
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::InvalidDates)
            );
        }
        let mut history = KeyHistory::default();
        let decision = observe(&mut history, nonsense(leaf(0, OURS, 0)), 0, day(1));
        assert_eq!(
            decision,
            RolloverDecision::Pinned,
            "whoever pinned it may know why"
        );
        assert!(history.is_empty());
    }
}

#[test]
fn an_address_that_is_not_configured_counts_for_nothing() {
    let key = leaf(1, OURS, 61);
    let all = addresses();
    let mut history = rolled();
    let before = history.clone();
    let stranger = SocketAddr::from(([192, 0, 2, 9], 853)).into();
    for other in [key, leaf(2, OTHERS, 61)] {
        let decision = history.observe(&other, false, stranger, &all, WAIT, day(65));
        assert_eq!(
            decision,
            RolloverDecision::Rejected(RejectReason::NotConfigured(stranger))
        );
    }
    let decision = history.observe(&leaf(0, OURS, 30), true, stranger, &all, WAIT, day(65));
    assert_eq!(decision, RolloverDecision::Pinned);
    assert_eq!(history, before);
    // One that was away for a while must be seen anew; one that has come must be seen, too.
    history.observe(&key, false, all[0], &all[..3], WAIT, day(64));
    let decision = history.observe(&key, false, all[0], &all, WAIT, day(65));
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::NotSeenAt(all[3]))
    );
    let mut more = all.clone();
    more.push(stranger);
    let decision = history.observe(&key, false, all[3], &more, WAIT, day(65));
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::NotSeenAt(stranger))
    );
    let decision = history.observe(&key, false, all[0], &[], WAIT, day(65));
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::NotConfigured(all[0]))
    );
}

#[test]
fn reasons_are_written_in_words() {
    let address = addresses()[0];
    for (reason, words) in [
        (
            RejectReason::OtherIssuer,
            "no accepted leaf is from the same issuer",
        ),
        (
            RejectReason::TooEarly(day(60)),
            "the accepted leaf is in the first two thirds of its life, until 2026-03-02T00:00:00Z",
        ),
        (
            RejectReason::SeenTooShort {
                seen: Duration::from_secs(2 * DAY + HOUR),
                wait: WAIT,
            },
            "seen for 2 of 3 days",
        ),
        (
            RejectReason::NotSeenAt(address),
            "not seen at 192.0.2.1:853",
        ),
        (
            RejectReason::ConflictingKey,
            "another new key was seen meanwhile, so it counts anew",
        ),
        (
            RejectReason::ClockWentBack(day(0)),
            "the clock is before 2026-01-01T00:00:00Z",
        ),
        (
            RejectReason::InvalidDates,
            "its dates make no sense at this time",
        ),
        (
            RejectReason::NotConfigured(address),
            "the resolver has no address 192.0.2.1:853",
        ),
    ] {
        assert_eq!(reason.to_string(), words);
    }
}
