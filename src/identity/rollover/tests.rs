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
pub(in crate::identity) fn see(memory: &mut Memory, leaf: Leaf, place: usize, now: u64) -> Verdict {
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
