use super::*;
use crate::system::clock;

/// The place of the one that goes, of connections of clients: `o`ver its limit, `i`dle, `u`nanswered, `b`usy, `y`oung or to stay, each with for how
/// many seconds.
fn goes(connections: &[(char, char, u64)]) -> Option<usize> {
    let now = clock::now() + Duration::from_secs(1000);
    first_to_go(connections.iter().map(|(client, kind, seconds)| {
        let since = now - Duration::from_secs(*seconds);
        let keeps = match kind {
            'o' => Keeps::OverLimit(since),
            'i' => Keeps::Idle(since),
            'u' => Keeps::Unanswered(since),
            'b' => Keeps::Busy(since),
            'y' => Keeps::Young(Reverse(since)),
            _ => Keeps::Stays,
        };
        (client, keeps)
    }))
}

#[test]
fn whoever_has_the_most_places_gives_one_and_what_is_idle_goes_before_what_is_busy() {
    assert_eq!(goes(&[]), None);
    assert_eq!(goes(&[('a', '-', 9), ('b', '-', 9)]), None, "all stay");
    assert_eq!(
        goes(&[('a', 'i', 1), ('a', 'i', 2), ('a', 'b', 9)]),
        Some(1)
    );
    assert_eq!(
        goes(&[('a', 'b', 1), ('a', 'b', 2), ('a', '-', 9)]),
        Some(1)
    );
    assert_eq!(
        goes(&[('a', 'b', 9), ('a', 'u', 1), ('a', 'b', 9)]),
        Some(1)
    );
    assert_eq!(goes(&[('a', 'y', 3), ('b', 'y', 1)]), None, "one each");
    // Who is idle on one connection keeps it beside one that has many.
    assert_eq!(
        goes(&[('a', 'i', 9), ('b', 'b', 1), ('b', 'b', 2)]),
        Some(2)
    );
    // All have as many.
    assert_eq!(
        goes(&[('a', 'b', 9), ('b', 'i', 1), ('c', 'i', 2)]),
        Some(2)
    );
    assert_eq!(
        goes(&[('a', 'b', 1), ('b', 'b', 9), ('c', 'b', 2)]),
        Some(1)
    );
    // Of the one that has the most, none may go.
    assert_eq!(
        goes(&[('a', 'i', 1), ('b', '-', 9), ('b', '-', 9)]),
        Some(0)
    );
    // Who asks more than it may goes first.
    assert_eq!(
        goes(&[('a', 'o', 1), ('b', 'i', 9), ('b', 'i', 9)]),
        Some(0)
    );
}

#[test]
fn what_is_busy_goes_by_its_age_and_where_only_idle_ones_go_for_no_reason() {
    let now = clock::now() + Duration::from_secs(1000);
    let (long, short) = (now - LEAST, now - LEAST / 2);
    let (idle, unanswered) = (Keeps::Idle(long), Keeps::Unanswered(short));
    assert_eq!(
        [Keeps::Busy(long).idle(), unanswered.idle()],
        [Keeps::Stays; 2]
    );
    assert_eq!(idle.idle(), idle);
    for waits in [true, false] {
        assert_eq!(Keeps::Busy(long).by_age(waits, now), Keeps::Busy(long));
        assert_eq!(unanswered.by_age(waits, now), unanswered);
        assert_eq!(idle.by_age(waits, now), idle);
    }
    let young = Keeps::Young(Reverse(short));
    assert_eq!(Keeps::Busy(short).by_age(false, now), young);
    assert_eq!(Keeps::Busy(short).by_age(true, now), Keeps::Stays);
}
