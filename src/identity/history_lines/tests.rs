use std::time::Duration;

use super::*;
use crate::identity::rollover::tests::{
    HOUR, OTHERS, OURS, START, WAIT, addresses, day, leaf, learnt, observe, pin, pinned, rolled,
};
use crate::identity::rollover::{MAX_TIME, RejectReason, RolloverDecision};
use crate::system::date::DAY;

const NAME: &str = "dns.example.net";

fn read(text: &str) -> Result<KeyHistory, String> {
    let mut histories = BTreeMap::new();
    for line in text.lines() {
        read_line(line, &mut histories)?;
    }
    Ok(histories.remove(NAME).unwrap_or_default())
}

#[test]
fn a_key_whose_line_is_deleted_must_pass_all_rules_again() {
    let mut history = learnt();
    // The key was seen, renewed and pinned for a while; none of that makes it trusted again.
    let all = addresses();
    history.observe(&leaf(1, OURS, 65), true, all[0], &all, WAIT, day(66));
    observe(&mut history, leaf(1, OURS, 65), 1, day(66));
    let text = history.lines(NAME).to_string();
    assert_eq!(text.matches("\nlearnt ").count(), 1);
    let lines_left = text.lines().filter(|line| !line.starts_with("learnt"));
    let lines_left: Vec<_> = lines_left.collect();
    let mut history = read(&lines_left.join("\n")).expect("the other lines");
    assert_eq!(history.learnt().count(), 0);
    for now in 70..73 {
        for address_index in 0..4 {
            let decision = observe(&mut history, leaf(1, OURS, 65), address_index, day(now));
            assert!(
                matches!(decision, RolloverDecision::Rejected(_)),
                "{decision:?}"
            );
        }
    }
    let key = leaf(1, OURS, 65);
    assert_eq!(
        observe(&mut history, key, 0, day(73)),
        RolloverDecision::Accepted
    );
}

#[test]
fn a_link_local_address_is_kept_with_its_zone() {
    let all: Vec<_> = ["[fe80::1%br-lan]:853", "[fe80::1%2]:853"]
        .map(|address| address.parse().expect("an address"))
        .into();
    let mut history = KeyHistory::default();
    history.observe(&leaf(0, OURS, 0), true, all[0], &all, WAIT, day(60));
    for address in &all {
        history.observe(&leaf(1, OURS, 61), false, *address, &all, WAIT, day(62));
    }
    let text = history.lines(NAME).to_string();
    for address in &all {
        assert!(text.contains(&format!("seen {NAME} {address} ")), "{text}");
    }
    assert_eq!(read(&text), Ok(history));
}

#[test]
fn a_removed_key_is_no_evidence() {
    // It was learnt, and another issuer signed it.
    let mut history = learnt();
    observe(&mut history, leaf(1, OTHERS, 64), 0, day(66));
    let text = history.lines(NAME).to_string();
    let lines_left = text.lines().filter(|line| !line.starts_with("learnt"));
    let lines_left: Vec<_> = lines_left.collect();
    let mut history = read(&lines_left.join("\n")).expect("the other lines");
    for key in [1, 2] {
        let decision = observe(&mut history, leaf(key, OTHERS, 64), 0, day(67));
        assert_eq!(
            decision,
            RolloverDecision::Rejected(RejectReason::OtherIssuer)
        );
    }
    // The only key, whose pin is removed, does not follow itself.
    let mut history = pinned();
    for now in 1..90 {
        for address_index in 0..4 {
            let all = addresses();
            let old = leaf(0, OURS, 0);
            let decision = history.observe(&old, false, all[address_index], &all, WAIT, day(now));
            assert_eq!(
                decision,
                RolloverDecision::Rejected(RejectReason::OtherIssuer)
            );
        }
    }
}

#[test]
fn the_history_is_bounded_and_drops_the_oldest() {
    let mut history = KeyHistory::default();
    let all = addresses();
    for key in 0..20 {
        let from = 3 * u64::from(key);
        history.observe(
            &leaf(key, OURS, from),
            true,
            all[0],
            &all,
            WAIT,
            day(from + 1),
        );
    }
    assert_eq!(history.accepted.len(), MAX_LEAVES);
    assert!(
        history
            .accepted
            .iter()
            .all(|leaf| leaf.not_before >= day(36))
    );
    let mut history = pinned();
    for key in 1..20 {
        let from = 60 * u64::from(key);
        for address_index in 0..4 {
            observe(
                &mut history,
                leaf(key, OURS, from),
                address_index,
                day(from),
            );
        }
        let decision = observe(&mut history, leaf(key, OURS, from), 0, day(from + 3));
        assert_eq!(decision, RolloverDecision::Accepted);
    }
    let last: Vec<_> = (12..20).map(pin).collect();
    assert_eq!(history.learnt().collect::<Vec<_>>(), last);
    assert!(history.observations.len() <= all.len());
    let lines = history.lines(NAME).to_string();
    let ninth = DatedLeaf {
        leaf: leaf(99, OURS, 0),
        since: day(1),
    };
    history.learnt.push(ninth);
    read(&lines).expect("as many as there may be");
    let error = read(&history.lines(NAME).to_string()).expect_err("one more");
    assert_eq!(error, "expected at most 8 learnt lines of a resolver");
}

#[test]
fn histories_are_written_as_they_are_read() {
    let mut history = learnt();
    observe(&mut history, leaf(2, OURS, 122), 0, day(122));
    observe(&mut history, leaf(2, OURS, 122), 1, day(122));
    let text = history.lines(NAME).to_string();
    assert_eq!(text.lines().count(), 5, "{text}");
    let expected = format!(
        "learnt {NAME} {} issuer={} not-before=2026-03-03T00:00:00Z not-after=2026-06-01T00:00:00Z since=2026-03-07T00:00:00Z\n",
        pin(1),
        pin(OURS)
    );
    assert!(text.contains(&expected), "{text}");
    assert_eq!(read(&text), Ok(history));
    assert_eq!(KeyHistory::default().lines(NAME).to_string(), "");
}

#[test]
fn observations_without_their_key_or_from_before_it_do_not_count() {
    let key = leaf(1, OURS, 61);
    let text = rolled().lines(NAME).to_string();
    // Deleting the candidate's line starts its wait again.
    let lines_left: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("candidate"))
        .collect();
    let mut history = read(&lines_left.join("\n")).expect("the other lines");
    let decision = observe(&mut history, key, 0, day(66));
    let seen = Duration::ZERO;
    assert_eq!(
        decision,
        RolloverDecision::Rejected(RejectReason::SeenTooShort { seen, wait: WAIT })
    );
    let missing = RolloverDecision::Rejected(RejectReason::NotSeenAt(addresses()[1]));
    assert_eq!(observe(&mut history, key, 0, day(69)), missing);
    let earlier = text.replace("at=2026-03-04", "at=2026-03-03");
    assert_ne!(earlier, text);
    let mut history = read(&earlier).expect("other times");
    let missing = RolloverDecision::Rejected(RejectReason::NotSeenAt(addresses()[1]));
    assert_eq!(observe(&mut history, key, 0, day(65)), missing);
}

/// The result of a year in which every address was observed every six hours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Year {
    /// Rounds in which no address presented a trusted leaf.
    outages: usize,
    /// Leaves of an attacker that were trusted, and leaves of the operator that were trusted sooner than the rules allow.
    wrong: usize,
    /// Keys that were accepted.
    accepted: usize,
}

/// An operator that makes a new key every so many days and rolls it out over some.
#[derive(Clone, Copy)]
struct Operator {
    every: u64,
    over: u64,
}

impl Operator {
    /// The leaf that an address presents at an hour of the year, and the hour since which any address presents it.
    fn presents(self, address_index: usize, hour: u64) -> (Leaf, u64) {
        let late = self.over * 24 * address_index as u64 / 3;
        let key = hour.saturating_sub(late) / (self.every * 24);
        let number = u8::try_from(key).expect("few keys in a year");
        (leaf(number, OURS, key * self.every), key * self.every * 24)
    }
}

const STAGED: Operator = Operator { every: 62, over: 6 };
/// A key of the attacker.
const ATTACKER: u8 = 100;

/// A year in which `attack` may present another leaf at an address at an hour, and `clock` may show another time. The history is
/// written and read again every day, as by a restart.
fn year(
    operator: Operator,
    attack: impl Fn(usize, u64) -> Option<Leaf>,
    clock: impl Fn(u64) -> u64,
) -> Year {
    let (mut history, mut year) = (KeyHistory::default(), Year::default());
    for hour in (0..365 * 24).step_by(6) {
        let now = clock(hour);
        let mut trusted = 0;
        for address_index in 0..4 {
            let (own, since) = operator.presents(address_index, hour);
            let attacked = attack(address_index, hour);
            match observe(&mut history, attacked.unwrap_or(own), address_index, now) {
                RolloverDecision::Rejected(_) => continue,
                _ if attacked.is_some() => year.wrong += 1,
                RolloverDecision::Accepted => {
                    year.accepted += 1;
                    let everywhere = (0..4).all(|address_index| {
                        operator.presents(address_index, hour).0.pin == own.pin
                    });
                    let waited = (hour - since) * HOUR >= WAIT.as_secs();
                    year.wrong += usize::from(!everywhere || !waited);
                }
                RolloverDecision::Pinned | RolloverDecision::Learnt => {}
            }
            trusted += 1;
        }
        year.outages += usize::from(trusted == 0);
        if hour % 24 == 0 {
            history = read(&history.lines(NAME).to_string()).expect("what was written");
        }
    }
    year
}

fn no_attack(_: usize, _: u64) -> Option<Leaf> {
    None
}

fn right_clock(hour: u64) -> u64 {
    START + hour * HOUR
}

#[test]
fn in_a_year_of_staged_roll_overs_nothing_fails() {
    for every in [60, 61, 62, 75, 84] {
        for over in [3, 6] {
            let year = year(Operator { every, over }, no_attack, right_clock);
            assert_eq!((year.outages, year.wrong), (0, 0), "{every} {over}");
            let rolled = (365 - over) / every;
            assert_eq!(year.accepted as u64, rolled, "{every} {over}");
        }
    }
}

#[test]
fn in_a_year_with_a_week_of_another_authority_at_all_addresses_no_leaf_of_it_is_trusted() {
    // In the middle of a validity period, when the old leaf is due, and during a roll-over, which then takes longer.
    for (first, rolling) in [(20, false), (175, false), (126, true)] {
        let attack = |_, hour: u64| {
            let attacked = (first * 24..(first + 7) * 24).contains(&hour);
            attacked.then(|| leaf(ATTACKER, OTHERS, first))
        };
        let year = year(STAGED, attack, right_clock);
        assert_eq!((year.wrong, year.accepted), (0, 5), "{first}");
        // In the 28 rounds of the week no address presented a leaf of the operator.
        let waiting = if rolling { 3 * 4 } else { 0 };
        assert_eq!(year.outages, 28 + waiting, "{first}");
    }
}

#[test]
fn in_a_year_with_a_month_of_attack_on_one_path_no_leaf_of_it_is_trusted() {
    for address_index in 0..4 {
        // Between two roll-overs, the old leaf being due at the end.
        let lies = |first: u64| {
            move |at: usize, hour: u64| {
                let attacked =
                    at == address_index && (first * 24..(first + 30) * 24).contains(&hour);
                attacked.then(|| leaf(ATTACKER, OURS, first))
            }
        };
        let between = year(STAGED, lies(94), right_clock);
        let expected = Year {
            outages: 0,
            wrong: 0,
            accepted: 5,
        };
        assert_eq!(between, expected);
        // Across a roll-over: an attacker at one address can delay the new key until the attack ends, and for the wait.
        let across = year(STAGED, lies(120), right_clock);
        assert_eq!((across.wrong, across.accepted), (0, 5));
        assert!(across.outages > 0, "{across:?}");
    }
}

#[test]
fn in_a_year_with_a_clock_that_is_wrong_for_a_while_nothing_fails() {
    // Before, in and after the first roll-over, from day 62 to 68.
    for first in [30, 58, 62, 64, 66, 70] {
        for wrong in [0, day(0) - 5 * 365 * DAY, day(3650), MAX_TIME, u64::MAX] {
            let clock = |hour| match (first * 24..first * 24 + 36).contains(&hour) {
                true => wrong,
                false => right_clock(hour),
            };
            let year = year(STAGED, no_attack, clock);
            let expected = Year {
                outages: 0,
                wrong: 0,
                accepted: 5,
            };
            assert_eq!(year, expected, "{first} {wrong}");
        }
    }
}

#[test]
fn in_a_year_of_an_operator_that_switches_all_at_once_each_switch_costs_the_wait() {
    let at_once = Operator { every: 62, over: 0 };
    // With the leaf's pin alone that is how long it lasts; a second pin, or the issuer's, avoids it.
    let rounds = WAIT.as_secs() / (6 * HOUR);
    let expected = Year {
        outages: 5 * usize::try_from(rounds).expect("a few rounds"),
        wrong: 0,
        accepted: 5,
    };
    assert_eq!(year(at_once, no_attack, right_clock), expected);
}
