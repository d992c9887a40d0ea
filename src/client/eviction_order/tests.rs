use super::*;
use crate::system::clock;

/// The index of the connection that is evicted. Each connection has a client, a state (`o`ver its limit, `i`dle, `u`nanswered, `b`usy,
/// recentl`y` busy, or protected), and the seconds since it has that state.
fn victim(connections: &[(char, char, u64)]) -> Option<usize> {
    let now = clock::now() + Duration::from_secs(1000);
    select_victim(connections.iter().map(|(client, kind, seconds)| {
        let since = now - Duration::from_secs(*seconds);
        let rank = match kind {
            'o' => EvictionRank::OverLimit(since),
            'i' => EvictionRank::Idle(since),
            'u' => EvictionRank::Unanswered(since),
            'b' => EvictionRank::Busy(since),
            'y' => EvictionRank::RecentlyBusy(Reverse(since)),
            _ => EvictionRank::Protected,
        };
        (client, rank)
    }))
}

#[test]
fn the_client_with_most_connections_loses_one_and_idle_before_busy() {
    assert_eq!(victim(&[]), None);
    assert_eq!(
        victim(&[('a', '-', 9), ('b', '-', 9)]),
        None,
        "all are protected"
    );
    assert_eq!(
        victim(&[('a', 'i', 1), ('a', 'i', 2), ('a', 'b', 9)]),
        Some(1)
    );
    assert_eq!(
        victim(&[('a', 'b', 1), ('a', 'b', 2), ('a', '-', 9)]),
        Some(1)
    );
    assert_eq!(
        victim(&[('a', 'b', 9), ('a', 'u', 1), ('a', 'b', 9)]),
        Some(1)
    );
    assert_eq!(victim(&[('a', 'y', 3), ('b', 'y', 1)]), None, "one each");
    // A client with one idle connection keeps it while another client has more.
    assert_eq!(
        victim(&[('a', 'i', 9), ('b', 'b', 1), ('b', 'b', 2)]),
        Some(2)
    );
    // All clients have equally many.
    assert_eq!(
        victim(&[('a', 'b', 9), ('b', 'i', 1), ('c', 'i', 2)]),
        Some(2)
    );
    assert_eq!(
        victim(&[('a', 'b', 1), ('b', 'b', 9), ('c', 'b', 2)]),
        Some(1)
    );
    // All connections of the client with most are protected.
    assert_eq!(
        victim(&[('a', 'i', 1), ('b', '-', 9), ('b', '-', 9)]),
        Some(0)
    );
    // A client over its limit loses its connection first.
    assert_eq!(
        victim(&[('a', 'o', 1), ('b', 'i', 9), ('b', 'i', 9)]),
        Some(0)
    );
}

#[test]
fn busy_connections_rank_by_busy_time_or_are_protected() {
    let now = clock::now() + Duration::from_secs(1000);
    let (long, short) = (now - MIN_BUSY_TIME, now - MIN_BUSY_TIME / 2);
    let (idle, unanswered) = (EvictionRank::Idle(long), EvictionRank::Unanswered(short));
    assert_eq!(
        [
            EvictionRank::Busy(long).only_if_idle(),
            unanswered.only_if_idle()
        ],
        [EvictionRank::Protected; 2]
    );
    assert_eq!(idle.only_if_idle(), idle);
    for spare_recent in [true, false] {
        assert_eq!(
            EvictionRank::Busy(long).by_busy_time(spare_recent, now),
            EvictionRank::Busy(long)
        );
        assert_eq!(unanswered.by_busy_time(spare_recent, now), unanswered);
        assert_eq!(idle.by_busy_time(spare_recent, now), idle);
    }
    let recent = EvictionRank::RecentlyBusy(Reverse(short));
    assert_eq!(EvictionRank::Busy(short).by_busy_time(false, now), recent);
    assert_eq!(
        EvictionRank::Busy(short).by_busy_time(true, now),
        EvictionRank::Protected
    );
}
