//! May this client ask now?
//!
//! Who may at all is a list of prefixes; how much is a bucket of tokens for each client's prefix. The buckets are in a table
//! of fixed size: a million sources, forged or not, cost no more memory than one. Time is passed in.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::client::address::client_of;
use crate::upstream::token_bucket::{Rate, nanos_between};

/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 64;
/// Buckets among which a client has its place. Who comes to a full set takes the place of the one that asked least lately.
const WAYS: usize = 8;
/// Sets of a shard.
const SETS: usize = 32;

/// What this room can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may ask.
    pub allow: Vec<IpNet>,
    /// How much each of them may ask; none lets them ask as much as they can.
    pub rate: Option<Rate>,
    /// Programs on this host are held to the rate, too.
    pub limit_loopback: bool,
}

/// Whether a client may ask now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Pass,
    /// It may not, and is to be told.
    Refuse,
    /// It asks too much, and is to be told that TCP would bring an answer.
    Slow,
    /// It asks too much, and is told nothing.
    Drop,
}

/// One prefix's tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// The prefix, hashed with a key that nobody knows; 0 for nobody.
    who: u64,
    /// When it is full again, in nanoseconds since the start. The more tokens are missing, the later.
    full_at: u64,
    /// Queries too many in a row.
    over: u32,
}

type Shard = Mutex<Box<[[Bucket; WAYS]]>>;

/// Who may ask, and who asked how much lately.
#[derive(Debug)]
pub struct Limiter {
    settings: Settings,
    hasher: RandomState,
    start: Instant,
    shards: Arc<[Shard]>,
}

impl Limiter {
    /// Nobody has asked yet.
    pub fn new(settings: Settings, now: Instant) -> Self {
        let shard = |_| Mutex::new(vec![[Bucket::default(); WAYS]; SETS].into_boxed_slice());
        let shards = if settings.rate.is_some() { SHARDS } else { 0 };
        Self {
            settings,
            hasher: RandomState::new(),
            start: now,
            shards: (0..shards).map(shard).collect(),
        }
    }

    /// The same under other settings. As long as the rate is the same, who asked too much lately goes on having done so.
    pub fn with(&self, settings: Settings, now: Instant) -> Self {
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

    /// Whether a client at `address` may ask at `now`; if so, it has asked. The address of a datagram may be forged, so it has
    /// tokens of its own: whoever comes by TCP is not held to what others asked in its name.
    pub fn judge(&self, address: IpAddr, is_datagram: bool, now: Instant) -> Verdict {
        // An IPv4 client of an IPv6 socket.
        let address = address.to_canonical();
        let mut allow = self.settings.allow.iter();
        let may = allow.any(|prefix| prefix.contains(&address));
        if may && address.is_loopback() && !self.settings.limit_loopback {
            return Verdict::Pass;
        }
        match (may, self.take(address, is_datagram, now)) {
            (true, None) => Verdict::Pass,
            (false, None) => Verdict::Refuse,
            (true, Some(over)) if over % 2 == 0 => Verdict::Slow,
            (_, Some(_)) => Verdict::Drop,
        }
    }

    /// Takes a token of the client's prefix. If there is none: how many queries in a row were too many before.
    fn take(&self, address: IpAddr, is_datagram: bool, now: Instant) -> Option<u32> {
        let rate = self.settings.rate?;
        let token = rate.token_interval();
        let now = nanos_between(now, self.start);
        let who = self
            .hasher
            .hash_one((client_of(address), is_datagram))
            .max(1);
        let places = SHARDS * SETS;
        let place = usize::try_from(who >> 32).unwrap_or_default() % places;
        let mut shard = self.shards.get(place / SETS)?.lock();
        let set = &mut shard[place % SETS];
        let known = set.iter().position(|bucket| bucket.who == who);
        let least = || {
            let ways = 0..WAYS;
            ways.min_by_key(|way| set[*way].full_at).unwrap_or_default()
        };
        let way = known.unwrap_or_else(least);
        let bucket = &mut set[way];
        if bucket.who != who {
            *bucket = Bucket {
                who,
                full_at: now,
                over: 0,
            };
        }
        let full_at = bucket.full_at.max(now) + token;
        if full_at - now > token * u64::from(rate.burst) {
            let before = bucket.over;
            bucket.over = before.wrapping_add(1);
            return Some(before);
        }
        bucket.full_at = full_at;
        bucket.over = 0;
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
    fn who_is_not_on_the_list_is_refused() {
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
                assert_eq!(limiter.judge(ip(address), true, now), verdict, "{address}");
            }
        }
    }

    #[test]
    fn a_client_may_ask_a_burst_and_then_at_its_rate() {
        let (limiter, mut now) = limiter(Some(RATE), &["0.0.0.0/0"]);
        let client = ip("192.0.2.1");
        let passed = |count: u32, now| {
            let asked = (0..count).map(|_| limiter.judge(client, true, now));
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
    fn of_those_too_many_every_second_one_is_told() {
        let (limiter, now) = limiter(Some(RATE), &["192.0.2.0/24"]);
        let verdicts: Vec<_> = (0..24)
            .map(|_| limiter.judge(ip("192.0.2.1"), true, now))
            .collect();
        assert_eq!(
            verdicts[20..],
            [Verdict::Slow, Verdict::Drop, Verdict::Slow, Verdict::Drop]
        );
        let strangers: Vec<_> = (0..24)
            .map(|_| limiter.judge(ip("198.51.100.1"), true, now))
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
            limiter.judge(ip("2001:db8::1"), true, now);
        }
        assert_ne!(
            limiter.judge(ip("2001:db8:0:ff::9"), true, now),
            Verdict::Pass,
            "the same /56"
        );
        assert_eq!(
            limiter.judge(ip("2001:db8:0:100::1"), true, now),
            Verdict::Pass
        );
        assert_eq!(limiter.judge(ip("192.0.2.1"), true, now), Verdict::Pass);
        let by_tcp = limiter.judge(ip("2001:db8::1"), false, now);
        assert_eq!(by_tcp, Verdict::Pass, "whose address is no forgery");
        for _ in 0..100 {
            limiter.judge(ip("fe80::1"), true, now);
        }
        assert_eq!(
            limiter.judge(ip("fe80::2"), true, now),
            Verdict::Pass,
            "on the link"
        );
    }

    #[test]
    fn who_may_ask_is_changed_without_a_fresh_start_for_who_asked_too_much() {
        let (limiter, now) = limiter(Some(RATE), &["192.0.2.0/24"]);
        let asks = |limiter: &Limiter, address| limiter.judge(ip(address), true, now);
        (0..20).for_each(|_| assert_eq!(asks(&limiter, "192.0.2.1"), Verdict::Pass));
        let wider = Settings {
            allow: vec!["192.0.2.0/23".parse().expect("a prefix")],
            ..limiter.settings.clone()
        };
        let wider = limiter.with(wider, now);
        assert_eq!(asks(&wider, "192.0.3.1"), Verdict::Pass);
        assert_eq!(asks(&wider, "192.0.2.1"), Verdict::Slow, "as before");
        let unlimited = Settings {
            rate: None,
            ..wider.settings.clone()
        };
        assert_eq!(
            asks(&wider.with(unlimited, now), "192.0.2.1"),
            Verdict::Pass
        );
    }

    #[test]
    fn loopback_is_held_to_the_rate_only_if_that_is_asked_for() {
        let (limiter, now) = limiter(Some(RATE), &["127.0.0.0/8", "::1/128"]);
        assert!(
            (0..100).all(|_| limiter.judge(Ipv4Addr::LOCALHOST.into(), true, now) == Verdict::Pass)
        );
        assert!(
            (0..100).all(|_| limiter.judge(Ipv6Addr::LOCALHOST.into(), true, now) == Verdict::Pass)
        );
        let settings = Settings {
            limit_loopback: true,
            allow: vec!["127.0.0.0/8".parse().expect("a prefix")],
            rate: Some(RATE),
        };
        let limiter = Limiter::new(settings, now);
        let passed =
            (0..100).filter(|_| limiter.judge(ip("127.0.0.3"), true, now) == Verdict::Pass);
        assert_eq!(passed.count(), 20);
    }

    #[test]
    fn a_million_sources_neither_cost_memory_nor_free_the_flooder_nor_harm_the_honest() {
        let (limiter, mut now) = limiter(Some(RATE), &["0.0.0.0/0"]);
        let (flooder, honest) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let (mut flooded, mut refused) = (0, 0);
        for number in 0..1_000_000_u32 {
            limiter.judge(Ipv4Addr::from(0x0a00_0000 + number).into(), true, now);
            // 100,000 queries a second by forged sources, 10,000 by the flooder, 10 by the honest one.
            now += Duration::from_micros(10);
            if number % 10 == 0 && limiter.judge(flooder, true, now) == Verdict::Pass {
                flooded += 1;
            }
            if number % 10_000 == 0 && limiter.judge(honest, true, now) != Verdict::Pass {
                refused += 1;
            }
        }
        assert_eq!(refused, 0);
        assert!(flooded <= 20 + 10 * 10 + 1, "{flooded} in ten seconds");
        let buckets: usize = limiter
            .shards
            .iter()
            .map(|shard| shard.lock().len() * WAYS)
            .sum();
        assert_eq!(buckets, SHARDS * SETS * WAYS);
    }
}
