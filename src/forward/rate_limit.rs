//! May this client ask now?
//!
//! A list of prefixes says which clients may ask at all, and each client's prefix has a token bucket. The buckets are in a table of
//! fixed size: a million sources, forged or not, cost no more memory than one. Time is passed in.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::client::address::client_of;
use crate::upstream::token_bucket::{Rate, nanos_between};

/// Shards of the table, each with a lock of its own.
const SHARDS: usize = 64;
/// Buckets of a set, one of which is the client's. When a set is full, a new client gets the bucket with the most tokens left.
const BUCKETS_PER_SET: usize = 8;
/// Sets of buckets in a shard.
const SETS_PER_SHARD: usize = 32;

/// Settings of the rate limit and of the list of clients.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Prefixes whose clients may ask.
    pub allow: Vec<IpNet>,
    /// The rate of each client's prefix; None for no limit.
    pub rate: Option<Rate>,
    /// The rate holds for clients on loopback addresses, too.
    pub limit_loopback: bool,
}

/// What to do with a client's query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look it up.
    Pass,
    /// Answer REFUSED: the client is not on the list.
    Refuse,
    /// The client is over its rate: answer with the TC bit, since over TCP it has tokens of its own. Over TCP: answer REFUSED.
    Truncate,
    /// The client is over its rate: send no answer. Over TCP: answer REFUSED.
    Drop,
}

/// The token bucket of one prefix, as a virtual clock (GCRA).
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// The hash of the prefix under a secret key; 0 for an unused bucket.
    key: u64,
    /// When the bucket is full again, in nanoseconds since the start: the more tokens are missing, the later.
    full_at: u64,
    /// Queries over the rate in a row.
    excess: u32,
}

type Shard = Mutex<Box<[[Bucket; BUCKETS_PER_SET]]>>;

/// Decides which clients may ask, and how much.
///
/// Shared by all threads. Each shard has a lock, which guards its buckets. No other lock is taken under it.
#[derive(Debug)]
pub struct Limiter {
    settings: Settings,
    hasher: RandomState,
    start: Instant,
    shards: Arc<[Shard]>,
}

impl Limiter {
    /// A limiter whose buckets are full.
    pub fn new(settings: Settings, now: Instant) -> Self {
        let shard = |_| {
            Mutex::new(
                vec![[Bucket::default(); BUCKETS_PER_SET]; SETS_PER_SHARD].into_boxed_slice(),
            )
        };
        let shards = if settings.rate.is_some() { SHARDS } else { 0 };
        Self {
            settings,
            hasher: RandomState::new(),
            start: now,
            shards: (0..shards).map(shard).collect(),
        }
    }

    /// This limiter under other settings. The buckets are kept if the rate is unchanged.
    pub fn reconfigured(&self, settings: Settings, now: Instant) -> Self {
        if settings.rate != self.settings.rate {
            return Self::new(settings, now);
        }
        Self {
            settings,
            hasher: self.hasher.clone(),
            start: self.start,
            shards: Arc::clone(&self.shards),
        }
    }

    /// Decides about a query from `address` at `now`, and takes a token for it. The source of a datagram may be forged, so UDP and TCP
    /// have buckets of their own: a client over TCP does not pay for what others asked in its name.
    pub fn check(&self, address: IpAddr, is_datagram: bool, now: Instant) -> Verdict {
        // An IPv6 socket shows an IPv4 client at a mapped address.
        let address = address.to_canonical();
        let mut allow = self.settings.allow.iter();
        let is_allowed = allow.any(|prefix| prefix.contains(&address));
        if is_allowed && address.is_loopback() && !self.settings.limit_loopback {
            return Verdict::Pass;
        }
        match (is_allowed, self.charge(address, is_datagram, now)) {
            (true, None) => Verdict::Pass,
            (false, None) => Verdict::Refuse,
            (true, Some(excess)) if excess % 2 == 0 => Verdict::Truncate,
            (_, Some(_)) => Verdict::Drop,
        }
    }

    /// Takes a token from the bucket of the client's prefix. If there is none left, returns how many queries in a row found none before.
    fn charge(&self, address: IpAddr, is_datagram: bool, now: Instant) -> Option<u32> {
        let rate = self.settings.rate?;
        let token_interval = rate.token_interval();
        let now = nanos_between(now, self.start);
        let key = self
            .hasher
            .hash_one((client_of(address), is_datagram))
            .max(1);
        let sets = SHARDS * SETS_PER_SHARD;
        let set_index = usize::try_from(key >> 32).unwrap_or_default() % sets;
        let mut shard = self.shards.get(set_index / SETS_PER_SHARD)?.lock();
        let set = &mut shard[set_index % SETS_PER_SHARD];
        let known = set.iter().position(|bucket| bucket.key == key);
        let fullest = || {
            let buckets = 0..BUCKETS_PER_SET;
            buckets
                .min_by_key(|index| set[*index].full_at)
                .unwrap_or_default()
        };
        let bucket = &mut set[known.unwrap_or_else(fullest)];
        if bucket.key != key {
            *bucket = Bucket {
                key,
                full_at: now,
                excess: 0,
            };
        }
        let full_at = bucket.full_at.max(now) + token_interval;
        if full_at - now > token_interval * u64::from(rate.burst) {
            let before = bucket.excess;
            bucket.excess = before.wrapping_add(1);
            return Some(before);
        }
        bucket.full_at = full_at;
        bucket.excess = 0;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    fn limiter(rate: Option<Rate>, allow: &[&str]) -> (Limiter, Instant) {
        let now = Instant::now();
        let allow = allow.iter().map(|prefix| prefix.parse().expect("a prefix"));
        let settings = Settings {
            allow: allow.collect(),
            rate,
            limit_loopback: false,
        };
        (Limiter::new(settings, now), now)
    }

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 20,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_not_on_the_list_is_refused() {
        for rate in [None, Some(RATE)] {
            let (limiter, now) = limiter(rate, &["192.0.2.0/24", "2001:db8::/32"]);
            for (address, verdict) in [
                ("192.0.2.7", Verdict::Pass),
                ("::ffff:192.0.2.7", Verdict::Pass),
                ("192.0.3.7", Verdict::Refuse),
                ("::ffff:192.0.3.7", Verdict::Refuse),
                ("2001:db8:1::1", Verdict::Pass),
                ("2001:db9::1", Verdict::Refuse),
                ("127.0.0.1", Verdict::Refuse),
            ] {
                assert_eq!(limiter.check(ip(address), true, now), verdict, "{address}");
            }
        }
    }

    #[test]
    fn a_client_may_ask_a_burst_and_then_at_its_rate() {
        let (limiter, mut now) = limiter(Some(RATE), &["0.0.0.0/0"]);
        let client = ip("192.0.2.1");
        let passed = |count: u32, now| {
            let asked = (0..count).map(|_| limiter.check(client, true, now));
            asked.filter(|verdict| *verdict == Verdict::Pass).count()
        };
        assert_eq!(passed(100, now), 20, "a burst");
        assert_eq!(passed(100, now), 0);
        now += Duration::from_secs(1);
        assert_eq!(passed(100, now), 10, "a second's worth");
        for _ in 0..100 {
            now += Duration::from_millis(100);
            assert_eq!(passed(1, now), 1, "at its rate for ever");
        }
        now += Duration::from_secs(3600);
        assert_eq!(
            passed(100, now),
            20,
            "no more than a burst, however long the rest"
        );
    }

    #[test]
    fn of_queries_over_the_rate_every_second_one_is_answered() {
        let (limiter, now) = limiter(Some(RATE), &["192.0.2.0/24"]);
        let verdicts: Vec<_> = (0..24)
            .map(|_| limiter.check(ip("192.0.2.1"), true, now))
            .collect();
        assert_eq!(
            verdicts[20..],
            [
                Verdict::Truncate,
                Verdict::Drop,
                Verdict::Truncate,
                Verdict::Drop
            ]
        );
        let strangers: Vec<_> = (0..24)
            .map(|_| limiter.check(ip("198.51.100.1"), true, now))
            .collect();
        assert_eq!(strangers[..20], [Verdict::Refuse; 20]);
        assert_eq!(
            strangers[20..],
            [Verdict::Drop; 4],
            "no stream of refusals to anybody"
        );
    }

    #[test]
    fn one_clients_rate_is_no_others() {
        let (limiter, now) = limiter(Some(RATE), &["::/0", "0.0.0.0/0"]);
        for _ in 0..100 {
            limiter.check(ip("2001:db8::1"), true, now);
        }
        assert_ne!(
            limiter.check(ip("2001:db8:0:ff::9"), true, now),
            Verdict::Pass,
            "the same /56"
        );
        assert_eq!(
            limiter.check(ip("2001:db8:0:100::1"), true, now),
            Verdict::Pass
        );
        assert_eq!(limiter.check(ip("192.0.2.1"), true, now), Verdict::Pass);
        let by_tcp = limiter.check(ip("2001:db8::1"), false, now);
        assert_eq!(by_tcp, Verdict::Pass, "whose address is no forgery");
        for _ in 0..100 {
            limiter.check(ip("fe80::1"), true, now);
        }
        assert_eq!(
            limiter.check(ip("fe80::2"), true, now),
            Verdict::Pass,
            "on the link"
        );
    }

    #[test]
    fn a_new_list_of_clients_gives_nobody_new_tokens() {
        let (limiter, now) = limiter(Some(RATE), &["192.0.2.0/24"]);
        let asks = |limiter: &Limiter, address| limiter.check(ip(address), true, now);
        (0..20).for_each(|_| assert_eq!(asks(&limiter, "192.0.2.1"), Verdict::Pass));
        let wider = Settings {
            allow: vec!["192.0.2.0/23".parse().expect("a prefix")],
            ..limiter.settings.clone()
        };
        let wider = limiter.reconfigured(wider, now);
        assert_eq!(asks(&wider, "192.0.3.1"), Verdict::Pass);
        assert_eq!(asks(&wider, "192.0.2.1"), Verdict::Truncate, "as before");
        let unlimited = Settings {
            rate: None,
            ..wider.settings.clone()
        };
        assert_eq!(
            asks(&wider.reconfigured(unlimited, now), "192.0.2.1"),
            Verdict::Pass
        );
    }

    #[test]
    fn loopback_is_rate_limited_only_with_the_option() {
        let (limiter, now) = limiter(Some(RATE), &["127.0.0.0/8", "::1/128"]);
        assert!(
            (0..100).all(|_| limiter.check(Ipv4Addr::LOCALHOST.into(), true, now) == Verdict::Pass)
        );
        assert!(
            (0..100).all(|_| limiter.check(Ipv6Addr::LOCALHOST.into(), true, now) == Verdict::Pass)
        );
        let settings = Settings {
            limit_loopback: true,
            allow: vec!["127.0.0.0/8".parse().expect("a prefix")],
            rate: Some(RATE),
        };
        let limiter = Limiter::new(settings, now);
        let passed =
            (0..100).filter(|_| limiter.check(ip("127.0.0.3"), true, now) == Verdict::Pass);
        assert_eq!(passed.count(), 20);
    }

    #[test]
    fn a_million_sources_neither_cost_memory_nor_free_the_flooder_nor_harm_the_honest() {
        let (limiter, mut now) = limiter(Some(RATE), &["0.0.0.0/0"]);
        let (flooder, honest) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let (mut flooded, mut refused) = (0, 0);
        for number in 0..1_000_000_u32 {
            limiter.check(Ipv4Addr::from(0x0a00_0000 + number).into(), true, now);
            // 100,000 queries a second by forged sources, 10,000 by the flooder, 10 by the honest one.
            now += Duration::from_micros(10);
            if number % 10 == 0 && limiter.check(flooder, true, now) == Verdict::Pass {
                flooded += 1;
            }
            if number % 10_000 == 0 && limiter.check(honest, true, now) != Verdict::Pass {
                refused += 1;
            }
        }
        assert_eq!(refused, 0);
        assert!(flooded <= 20 + 10 * 10 + 1, "{flooded} in ten seconds");
        let buckets: usize = limiter
            .shards
            .iter()
            .map(|shard| shard.lock().len() * BUCKETS_PER_SET)
            .sum();
        assert_eq!(buckets, SHARDS * SETS_PER_SHARD * BUCKETS_PER_SET);
    }
}
