use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::message::{MAX_MESSAGE_LEN, Query, ReplyTo, ZoneMap, rtype};

const A: u16 = 1;
const CNAME: u16 = 5;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const DAY: u64 = 86_400;

fn question(name: &str, qtype: u16) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.') {
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.push(0);
    octets.extend_from_slice(&qtype.to_be_bytes());
    octets.extend_from_slice(&[0, 1]);
    octets
}

/// An answer under construction.
#[derive(Clone)]
struct Draft(Vec<u8>);

impl Draft {
    fn to(question: &[u8], rcode: u8) -> Self {
        let header = [0, 0, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0];
        Self([&header, question].concat())
    }

    /// Adds a record at the name in question, in section 1, 2 or 3.
    fn with(mut self, section: usize, rtype: u16, ttl: u32, data: &[u8]) -> Self {
        self.0[5 + 2 * section] += 1;
        self.0.extend_from_slice(&[0xc0, 12]);
        self.0.extend_from_slice(&rtype.to_be_bytes());
        self.0.extend_from_slice(&[0, 1]);
        self.0.extend_from_slice(&ttl.to_be_bytes());
        self.0.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.0.extend_from_slice(data);
        self
    }

    fn with_a(self, ttl: u32) -> Self {
        self.with(1, A, ttl, &[192, 0, 2, 1])
    }

    fn with_soa(self, ttl: u32, minimum: u32) -> Self {
        let data = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
        self.with(2, rtype::SOA, ttl, &data)
    }

    /// Adds an OPT with these options. Its TTL field is no TTL.
    fn with_opt(mut self, options: &[u8]) -> Self {
        self.0[11] += 1;
        self.0
            .extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0]);
        self.0
            .extend_from_slice(&(options.len() as u16).to_be_bytes());
        self.0.extend_from_slice(options);
        self
    }

    fn flag(mut self, at: usize, bit: u8) -> Self {
        self.0[at] |= bit;
        self
    }

    fn parse(&self) -> Answer<'_> {
        Answer::parse(&self.0).expect("an answer")
    }
}

/// A cache and its clock.
struct Bench {
    cache: Cache,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings {
            size: 1 << 20,
            serve_stale: Duration::from_secs(DAY),
        })
    }

    fn with(settings: Settings) -> Self {
        let start = Instant::now();
        Self {
            cache: Cache::new(settings, start),
            // Not the start of the clock, where all times are 0.
            now: start + Duration::from_secs(1000),
        }
    }

    fn advance(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn record_result(&self, key: &QuestionKey<'_>, answer: &Draft) -> Option<CacheHit> {
        self.cache.note_response(Responder::MAIN, self.now);
        self.cache.record_result(
            key,
            Responder::MAIN,
            Ok(&answer.parse()),
            self.now,
            self.now,
        )
    }

    fn fail(&self, key: &QuestionKey<'_>, failure: Failure) -> Option<CacheHit> {
        if failure == Failure::MalformedResponse {
            self.cache.note_response(Responder::MAIN, self.now);
        }
        self.cache
            .record_result(key, Responder::MAIN, Err(failure), self.now, self.now)
    }

    fn lookup(&self, key: &QuestionKey<'_>) -> Lookup {
        self.cache.lookup(key, || Responder::MAIN, self.now)
    }

    /// The TTLs that a client sees, if there is a fresh answer.
    fn fresh(&self, key: &QuestionKey<'_>) -> Option<Vec<u32>> {
        match self.lookup(key) {
            Lookup::Fresh { hit, .. } => Some(ttls(&hit)),
            _ => None,
        }
    }

    /// For how many seconds, to a tenth, there is a fresh answer.
    fn ttl(&mut self, key: &QuestionKey<'_>) -> f64 {
        let start = self.now;
        let mut tenths = 0;
        let mut step = 1 << 24;
        while step > 0 {
            self.now = start + Duration::from_millis(100 * (tenths + step));
            if self.fresh(key).is_some() {
                tenths += step;
            } else {
                step /= 2;
            }
        }
        self.now = start;
        (tenths + 1) as f64 / 10.0
    }
}

/// The TTLs of an answer as a client gets it.
fn ttls(hit: &CacheHit) -> Vec<u32> {
    let shown = shown(hit, true);
    let answer = Answer::parse(&shown).expect("an answer");
    let records = answer.records().filter(|record| record.rtype != rtype::OPT);
    records.map(|record| answer.ttl(&record)).collect()
}

/// An answer as a client gets it.
fn shown(hit: &CacheHit, edns: bool) -> Vec<u8> {
    let question = hit.answer().message()[12..12 + hit.question().len()].to_vec();
    let header = [7, 7, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0];
    let query = [&header, &question[..], &opt[..if edns { 11 } else { 0 }]].concat();
    let query = Query::parse(&query).expect("a query");
    let mut out = Vec::new();
    ReplyTo::from_query(&query).write_answer_with(
        &mut out,
        &hit.answer(),
        hit.reply_options(),
        MAX_MESSAGE_LEN,
    );
    out
}

fn key() -> QuestionKey<'static> {
    QuestionKey::new(&question("www.example.com", A), false, false)
}

fn to_key(key: &QuestionKey<'_>, rcode: u8) -> Draft {
    Draft::to(key.question(), rcode)
}

#[test]
fn an_answer_is_for_its_name_type_class_and_bits_and_for_nothing_else() {
    let bench = Bench::new();
    let mut other_class = question("www.example.com", A);
    *other_class.last_mut().expect("an octet") = 3;
    let questions = [
        question("www.example.com", A),
        question("www.example.com", AAAA),
        question("example.com", A),
        question("www.example.org", A),
        other_class,
    ];
    let mut keys = Vec::new();
    for question in &questions {
        for (dnssec_ok, unchecked) in [(false, false), (true, false), (false, true), (true, true)] {
            keys.push(QuestionKey::new(question, dnssec_ok, unchecked));
        }
    }
    for (number, key) in keys.iter().enumerate() {
        assert!(bench.fresh(key).is_none(), "{number}");
        let answer = to_key(key, 0).with(
            1,
            u16::from_be_bytes([0, key.question()[key.question().len() - 3]]),
            100 + number as u32,
            &[1],
        );
        bench.record_result(key, &answer);
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(
            bench.fresh(key),
            Some(vec![100 + number as u32]),
            "{number}"
        );
    }
    let spelled = QuestionKey::new(&question("wWw.EXAMPLE.com", A), false, false);
    assert_eq!(bench.fresh(&spelled), Some(vec![100]));
    assert_eq!(bench.cache.entries(), keys.len());
    // Records of other names in an answer are not found under those names.
    assert!(
        bench
            .fresh(&QuestionKey::new(&question("com", A), false, false))
            .is_none()
    );
}

#[test]
fn the_least_ttl_of_all_sections_is_the_answers_and_all_are_decremented() {
    for least in [1, 2, 3] {
        let mut bench = Bench::new();
        let ttl = |section| if section == least { 10 } else { 300 };
        let answer = to_key(&key(), 0)
            .with_a(ttl(1))
            .with(2, 2, ttl(2), &[0])
            .with(3, A, ttl(3), &[1; 4])
            .with_opt(b"");
        bench.record_result(&key(), &answer);
        assert_eq!(bench.ttl(&key()), 10.0);
        bench.advance(3.9);
        let expected = [1, 2, 3].map(|section| ttl(section) - 3);
        assert_eq!(bench.fresh(&key()), Some(expected.to_vec()));
        bench.advance(6.0);
        assert!(bench.fresh(&key()).is_some_and(|ttls| ttls.contains(&1)));
        bench.advance(0.1);
        assert_eq!(bench.fresh(&key()), None);
    }
}

#[test]
fn a_ttl_of_zero_or_with_the_top_bit_is_not_cached_and_a_long_one_is_capped() {
    for (ttl, cached) in [
        (0, None),
        (0x8000_0000, None),
        (0x8000_0001, None),
        (u32::MAX, None),
        (1, Some(1)),
        (604_800, Some(604_800)),
        (604_801, Some(604_800)),
        (0x7fff_ffff, Some(604_800)),
    ] {
        let mut bench = Bench::new();
        bench.record_result(&key(), &to_key(&key(), 0).with_a(ttl));
        assert_eq!(
            bench.fresh(&key()),
            cached.map(|cached| vec![cached]),
            "{ttl}"
        );
        if let Some(cached) = cached {
            assert_eq!(bench.ttl(&key()), f64::from(cached), "{ttl}");
        }
    }
}

#[test]
fn a_negative_answer_is_cached_as_long_as_its_soa_says_and_not_without_one() {
    for rcode in [0, 3] {
        let empty = to_key(&key(), rcode);
        for (answer, ttl) in [
            (empty.clone().with_soa(300, 60), Some(60)),
            (empty.clone().with_soa(60, 300), Some(60)),
            (empty.clone().with_soa(0, 300), None),
            (empty.clone().with_soa(300, 0), None),
            (empty.clone().with_soa(0x8000_0000, 300), None),
            (empty.clone().with_soa(10_800, 10_800), Some(10_800)),
            (empty.clone().with_soa(604_800, 604_800), Some(10_800)),
            (empty.clone(), None),
            (empty.clone().with(2, 2, 300, &[0]), None),
            // An alias whose target has no data.
            (
                empty.clone().with(1, CNAME, 30, &[0]).with_soa(300, 60),
                Some(30),
            ),
            (
                empty.clone().with(1, CNAME, 300, &[0]).with_soa(300, 60),
                Some(60),
            ),
            (empty.clone().with(1, CNAME, 300, &[0]), None),
            // An SOA record outside the authority section does not count.
            (empty.clone().with(3, rtype::SOA, 300, &[1; 22]), None),
        ] {
            let mut bench = Bench::new();
            bench.record_result(&key(), &answer);
            match ttl {
                None => assert_eq!(bench.fresh(&key()), None, "{:x?}", answer.0),
                Some(ttl) => {
                    assert!(
                        bench
                            .fresh(&key())
                            .is_some_and(|ttls| ttls.iter().all(|ttl| *ttl <= 10_800))
                    );
                    assert_eq!(bench.ttl(&key()), f64::from(ttl), "{:x?}", answer.0);
                }
            }
        }
    }
    // The SOA record's own TTL counts down with it.
    let mut bench = Bench::new();
    bench.record_result(&key(), &to_key(&key(), 3).with_soa(3600, 60));
    bench.advance(59.0);
    assert_eq!(bench.fresh(&key()), Some(vec![1]));
    // NXDOMAIN without an SOA record is not cached, whatever records it has.
    let bench = Bench::new();
    bench.record_result(&key(), &to_key(&key(), 3).with_a(300));
    assert_eq!(bench.fresh(&key()), None);
}

#[test]
fn the_cache_can_serve_until_its_last_answer_is_too_stale() {
    let mut bench = Bench::with(Settings {
        size: 1 << 20,
        serve_stale: Duration::from_secs(60),
    });
    let other = QuestionKey::new(&question("other.example.com", A), false, false);
    assert!(!bench.cache.can_serve(bench.now), "nothing is kept");
    bench.fail(&other, Failure::MalformedResponse);
    assert_eq!(bench.cache.entries(), 1);
    assert!(!bench.cache.can_serve(bench.now), "a failure");
    bench.record_result(&key(), &to_key(&key(), 0).with_a(0));
    assert!(!bench.cache.can_serve(bench.now), "it was used");
    bench.record_result(&key(), &to_key(&key(), 0).with_a(300));
    bench.record_result(&other, &to_key(&other, 0).with_a(10));
    bench.advance(359.9);
    assert!(
        bench.cache.can_serve(bench.now),
        "the one that lasts longer"
    );
    bench.advance(0.2);
    assert!(!bench.cache.can_serve(bench.now), "too old");
    bench.cache.set_serve_stale(Duration::from_secs(61));
    assert!(bench.cache.can_serve(bench.now), "not any more");
    assert_eq!(bench.cache.remove_zones(&ZoneMap::of_root(())), 2);
    assert!(!bench.cache.can_serve(bench.now), "it is forgotten");
    bench.record_result(&key(), &to_key(&key(), 0).with_a(1));
    assert!(bench.cache.can_serve(bench.now));
}

#[test]
fn no_data_is_for_one_type() {
    let bench = Bench::new();
    let other = QuestionKey::new(&question("www.example.com", AAAA), false, false);
    bench.record_result(&other, &to_key(&other, 0).with_soa(300, 300));
    assert!(bench.fresh(&other).is_some());
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
}

#[test]
fn any_is_answered_by_whatever_is_there() {
    let any = QuestionKey::new(&question("www.example.com", rtype::ANY), false, false);
    let bench = Bench::new();
    bench.record_result(
        &any,
        &to_key(&any, 0)
            .with(1, TXT, 60, &[0])
            .with(1, rtype::RRSIG, 50, &[0]),
    );
    assert_eq!(bench.fresh(&any), Some(vec![60, 50]));
}

#[test]
fn uncacheable_answers_are_not_cached() {
    let good = to_key(&key(), 0).with_a(300);
    let subnet = |scope| [0, 8, 0, 7, 0, 1, 24, scope, 192, 0, 2];
    for (what, answer, cached) in [
        ("an answer", good.clone(), true),
        ("truncated", good.clone().flag(2, 2), false),
        (
            "made for a subnet",
            good.clone().with_opt(&subnet(24)),
            false,
        ),
        (
            "made for all subnets",
            good.clone().with_opt(&subnet(0)),
            true,
        ),
        ("TSIG", good.clone().with(3, rtype::TSIG, 300, &[]), false),
        (
            "SIG(0)",
            good.clone().with(3, rtype::SIG, 300, &[0, 0]),
            false,
        ),
        (
            "a signature",
            good.clone().with(1, rtype::RRSIG, 300, &[0]),
            false,
        ),
        (
            "a proof",
            good.clone().with(2, rtype::NSEC, 300, &[0]),
            false,
        ),
        (
            "a hashed proof",
            good.clone().with(2, rtype::NSEC3, 300, &[0]),
            false,
        ),
        ("FORMERR", good.clone().flag(3, 1), false),
        ("NOTIMP", good.clone().flag(3, 4), false),
        ("REFUSED", good.clone().flag(3, 5), false),
        ("YXDOMAIN", good.clone().flag(3, 6), false),
    ] {
        let bench = Bench::new();
        assert!(bench.record_result(&key(), &answer).is_none(), "{what}");
        assert_eq!(
            matches!(bench.lookup(&key()), Lookup::Fresh { .. }),
            cached,
            "{what}"
        );
        assert_eq!(bench.cache.entries(), usize::from(cached), "{what}");
    }
    // Signatures are cached for queries that ask for them, by DO or by type.
    let secure = QuestionKey::new(key().question(), true, false);
    let signed = good
        .with(1, rtype::RRSIG, 300, &[0])
        .with(2, rtype::NSEC, 300, &[0]);
    let signatures = QuestionKey::new(&question("www.example.com", rtype::RRSIG), false, false);
    let asked_for = to_key(&signatures, 0).with(1, rtype::RRSIG, 300, &[0]);
    let bench = Bench::new();
    bench.record_result(&secure, &signed);
    bench.record_result(&signatures, &asked_for);
    assert!(bench.fresh(&secure).is_some() && bench.fresh(&signatures).is_some());
}

#[test]
fn a_failure_is_cached_for_a_second_then_longer_while_it_repeats_and_ends_with_success() {
    let servfail = to_key(&key(), 2).with_opt(&[0, 15, 0, 2, 0, 6]);
    type Fail<'f> = (&'f str, &'f dyn Fn(&Bench));
    let fails: [Fail<'_>; 3] = [
        ("SERVFAIL", &|bench| {
            drop(bench.record_result(&key(), &servfail))
        }),
        ("unreadable", &|bench| {
            drop(bench.fail(&key(), Failure::MalformedResponse))
        }),
        ("no answer, though others have one", &|bench| {
            let asked = bench.now - Duration::from_secs(3);
            let other = QuestionKey::new(&question("other", A), false, false);
            bench.record_result(&other, &to_key(&other, 5));
            bench.cache.record_result(
                &key(),
                Responder::MAIN,
                Err(Failure::TimedOut),
                asked,
                bench.now,
            );
        }),
    ];
    for (what, fail) in fails {
        let mut bench = Bench::new();
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            fail(&bench);
            bench.advance(f64::from(expected) - 0.1);
            assert!(
                matches!(bench.lookup(&key()), Lookup::Failure(_)),
                "{what}, {expected}"
            );
            bench.advance(0.1);
            assert!(
                matches!(bench.lookup(&key()), Lookup::Miss),
                "{what}, {expected}"
            );
        }
        bench.record_result(&key(), &to_key(&key(), 0).with_a(1));
        assert!(bench.fresh(&key()).is_some());
        // In a new cache the pauses start again at a second.
        let mut bench = Bench {
            cache: Bench::new().cache,
            ..bench
        };
        fail(&bench);
        bench.advance(1.0);
        assert!(matches!(bench.lookup(&key()), Lookup::Miss), "{what}");
    }
    let bench = Bench::new();
    bench.record_result(&key(), &servfail);
    let Lookup::Failure(hit) = bench.lookup(&key()) else {
        panic!("it failed");
    };
    let reply = shown(&hit, true);
    assert_eq!(reply[3] & 0x0f, 2);
    let reasons = [&[0, 15, 0, 2, 0, 6][..], &[0, 15, 0, 2, 0, 13]].concat();
    assert!(
        reply.ends_with(&reasons),
        "the resolver's reason and ours: {reply:x?}"
    );
    assert_eq!(shown(&hit, false).len(), 12 + key().question().len());
}

#[test]
fn a_success_ends_a_failure_even_if_it_is_not_cached() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.record_result(&key(), &to_key(&key(), 2));
        bench.advance(10.0);
    }
    bench.record_result(&key(), &to_key(&key(), 0).with_a(0));
    assert_eq!(bench.cache.entries(), 0);
    bench.record_result(&key(), &to_key(&key(), 2));
    bench.advance(1.0);
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
}

#[test]
fn a_failure_without_its_question_or_for_one_client_is_cached_as_the_code_alone() {
    let bare = Draft([&[0, 0, 0x81, 0x82][..], &[0; 8]].concat());
    let scoped = to_key(&key(), 2).with_opt(&[0, 8, 0, 7, 0, 1, 24, 24, 192, 0, 2]);
    let truncated = to_key(&key(), 2).flag(2, 2);
    for answer in [bare, scoped, truncated] {
        let bench = Bench::new();
        bench.record_result(&key(), &answer);
        let Lookup::Failure(hit) = bench.lookup(&key()) else {
            panic!("it failed: {:x?}", answer.0);
        };
        assert_eq!(shown(&hit, false)[2..4], [0x81, 0x82]);
    }
}

#[test]
fn no_cached_answer_hides_what_the_resolver_decided_about_a_name() {
    // SERVFAIL and REFUSED, with an EDE on what the resolver decided, and with one on what went wrong.
    for rcode in [2, 5] {
        for (code, hidden) in [(6, false), (15, false), (17, false), (22, true), (23, true)] {
            let mut bench = Bench::new();
            bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
            bench.advance(100.0);
            let error = to_key(&key(), rcode).with_opt(&[0, 15, 0, 2, 0, code]);
            let instead = bench.record_result(&key(), &error);
            assert_eq!(instead.is_some(), hidden, "{rcode} {code}");
            let served = bench.cache.servable(&key(), bench.now).is_some();
            assert_eq!(served, hidden, "{rcode} {code}");
        }
    }
}

#[test]
fn refused_ends_a_failure_and_is_not_cached() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.record_result(&key(), &to_key(&key(), 2));
        bench.advance(300.0);
    }
    bench.record_result(&key(), &to_key(&key(), 5));
    assert_eq!(bench.cache.entries(), 0);
}

#[test]
fn an_outage_holds_back_a_name_that_failed_before_no_longer_than_others() {
    let mut bench = Bench::new();
    for _ in 0..6 {
        bench.record_result(&key(), &to_key(&key(), 2));
        bench.advance(40.0);
    }
    bench.fail(&key(), Failure::TimedOut);
    bench.advance(1.0);
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
}

#[test]
fn an_outage_is_no_names_failure() {
    let mut bench = Bench::new();
    for failure in [
        Failure::Unreachable,
        Failure::Unauthenticated,
        Failure::Overloaded,
    ] {
        bench.fail(&key(), failure);
        assert!(matches!(bench.lookup(&key()), Lookup::Miss), "{failure:?}");
    }
    // The resolver responds to no query: one second, however often.
    for _ in 0..5 {
        bench.fail(&key(), Failure::TimedOut);
        bench.advance(0.9);
        assert!(matches!(bench.lookup(&key()), Lookup::Failure(_)));
        bench.advance(0.1);
        assert!(matches!(bench.lookup(&key()), Lookup::Miss));
    }
    // The resolver responds to another query: at once.
    bench.fail(&key(), Failure::TimedOut);
    bench.advance(0.1);
    let other = QuestionKey::new(&question("other", A), false, false);
    bench.record_result(&other, &to_key(&other, 0).with_a(1));
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
}

#[test]
fn a_popular_answer_is_prefetched_once_in_the_last_tenth_of_its_ttl() {
    let prefetch = |bench: &Bench| match bench.lookup(&key()) {
        Lookup::Fresh { prefetch, .. } => prefetch,
        _ => panic!("it is fresh"),
    };
    let mut bench = Bench::new();
    bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
    assert!(!prefetch(&bench) && !prefetch(&bench) && !prefetch(&bench));
    bench.advance(89.9);
    assert!(!prefetch(&bench), "not before");
    bench.advance(0.1);
    assert!(prefetch(&bench));
    assert!(!prefetch(&bench), "once");
    bench.advance(9.9);
    assert!(!prefetch(&bench), "once");
    bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
    bench.advance(95.0);
    assert!(!prefetch(&bench), "it was given once: not popular");
    assert!(prefetch(&bench), "now it is");
    // A failed prefetch does not remove the answer.
    assert!(
        bench
            .fail(&key(), Failure::TimedOut)
            .is_some_and(|hit| !hit.is_stale())
    );
    assert!(!prefetch(&bench));
}

#[test]
fn an_expired_answer_is_served_with_a_ttl_of_30_and_an_ede() {
    let mut bench = Bench::new();
    let stale = |bench: &Bench| match bench.lookup(&key()) {
        Lookup::Stale { hit, refresh } => Some((shown(&hit, true), ttls(&hit), refresh)),
        _ => None,
    };
    for (answer, code) in [
        (to_key(&key(), 0).with_a(100).with(2, 2, 7000, &[0]), 3),
        (
            to_key(&key(), 0).with_soa(100, 100).with(2, 2, 7000, &[0]),
            3,
        ),
        (
            to_key(&key(), 3).with_soa(100, 100).with(2, 2, 7000, &[0]),
            19,
        ),
    ] {
        bench.record_result(&key(), &answer.flag(3, 0x20));
        bench.advance(99.9);
        assert!(stale(&bench).is_none(), "not within its time");
        bench.advance(0.1);
        let (octets, ttls, refresh) = stale(&bench).expect("a stale answer");
        assert_eq!(refresh, Refresh::BeforeReply, "it is to be asked for");
        assert_eq!(ttls, [30, 30]);
        assert!(octets.ends_with(&[0, 15, 0, 2, 0, code]));
        assert_eq!(octets[3] & 0x20, 0, "no longer authentic");
        bench.advance(DAY as f64 - 0.1);
        assert!(stale(&bench).is_some(), "for a day");
        bench.advance(0.1);
        assert!(
            matches!(bench.lookup(&key()), Lookup::Miss),
            "and no longer"
        );
        assert!(bench.fail(&key(), Failure::Unreachable).is_none());
    }
}

#[test]
fn an_expired_answer_replaces_a_failure_and_is_refreshed_every_30_seconds() {
    let rcodes = [1, 2, 4, 5].map(|rcode| to_key(&key(), rcode));
    let answered = rcodes.iter().map(|answer| Ok(answer.parse()));
    let failed = [
        Failure::TimedOut,
        Failure::Unreachable,
        Failure::Unauthenticated,
        Failure::Overloaded,
        Failure::MalformedResponse,
    ];
    for ending in answered.chain(failed.map(Err)) {
        let mut bench = Bench::new();
        bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
        bench.advance(100.0);
        assert!(matches!(
            bench.lookup(&key()),
            Lookup::Stale {
                refresh: Refresh::BeforeReply,
                ..
            }
        ));
        for _ in 0..3 {
            let instead = bench.cache.record_result(
                &key(),
                Responder::MAIN,
                ending.as_ref().map_err(|failure| *failure),
                bench.now,
                bench.now,
            );
            assert!(instead.is_some_and(|hit| hit.is_stale()), "{ending:?}");
            bench.advance(29.9);
            assert!(matches!(
                bench.lookup(&key()),
                Lookup::Stale {
                    refresh: Refresh::BackingOff,
                    ..
                }
            ));
            bench.advance(0.1);
            assert!(matches!(
                bench.lookup(&key()),
                Lookup::Stale {
                    refresh: Refresh::AfterReply,
                    ..
                }
            ));
        }
    }
}

#[test]
fn after_an_outage_expired_answers_are_refreshed_as_soon_as_the_resolver_responds() {
    let mut bench = Bench::new();
    let other = QuestionKey::new(&question("other", A), false, false);
    bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
    bench.advance(100.0);
    bench.fail(&key(), Failure::Unreachable);
    bench.advance(1.0);
    assert!(matches!(
        bench.lookup(&key()),
        Lookup::Stale {
            refresh: Refresh::BackingOff,
            ..
        }
    ));
    bench.record_result(&other, &to_key(&other, 0).with_a(100));
    assert!(matches!(
        bench.lookup(&key()),
        Lookup::Stale {
            refresh: Refresh::BeforeReply,
            ..
        }
    ));
}

#[test]
fn any_fresh_answer_replaces_an_expired_one() {
    for fresh in [
        to_key(&key(), 0).with_a(7),
        to_key(&key(), 3).with_soa(7, 7),
        to_key(&key(), 0).with_soa(7, 7),
        // Not cacheable themselves.
        to_key(&key(), 0).with_a(0),
        to_key(&key(), 3),
    ] {
        let mut bench = Bench::new();
        bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
        bench.advance(101.0);
        assert!(bench.record_result(&key(), &fresh).is_none());
        let found = bench.lookup(&key());
        assert!(
            matches!(found, Lookup::Miss) || bench.fresh(&key()) == Some(vec![7]),
            "{found:?}"
        );
        bench.advance(8.0);
        let instead = bench.fail(&key(), Failure::Unreachable);
        assert!(instead.is_none_or(|hit| hit.answer().rcode() == fresh.parse().rcode()));
    }
}

#[test]
fn without_serve_stale_no_expired_answer_is_served() {
    let mut bench = Bench::with(Settings {
        size: 1 << 20,
        serve_stale: Duration::ZERO,
    });
    bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
    bench.advance(100.0);
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
    assert!(bench.cache.servable(&key(), bench.now).is_none());
    assert!(bench.record_result(&key(), &to_key(&key(), 2)).is_none());
    assert!(matches!(bench.lookup(&key()), Lookup::Failure(_)));
}

#[test]
fn without_memory_nothing_is_cached() {
    let bench = Bench::with(Settings {
        size: 0,
        serve_stale: Duration::from_secs(DAY),
    });
    bench.record_result(&key(), &to_key(&key(), 0).with_a(100));
    bench.fail(&key(), Failure::MalformedResponse);
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
    assert_eq!((bench.cache.entries(), bench.cache.octets()), (0, 0));
    assert_eq!(bench.cache.remove_zones(&ZoneMap::of_root(())), 0);
}

#[test]
fn clearing_removes_all_entries_and_returns_their_number() {
    let bench = Bench::new();
    for number in 0..10 {
        let key = QuestionKey::new(&question(&format!("n{number}"), A), false, false);
        bench.record_result(&key, &to_key(&key, 0).with_a(100));
    }
    assert_eq!(bench.cache.remove_zones(&ZoneMap::of_root(())), 10);
    assert_eq!((bench.cache.entries(), bench.cache.octets()), (0, 0));
    assert!(matches!(
        bench.lookup(&QuestionKey::new(&question("n1", A), false, false)),
        Lookup::Miss
    ));
}

#[test]
fn a_scan_of_random_names_does_not_evict_the_popular_ones() {
    let bench = Bench::new();
    let known = |name: String| QuestionKey::new(&question(&name, A), false, false);
    let popular: Vec<_> = (0..500)
        .map(|number| known(format!("popular{number}")))
        .collect();
    for key in &popular {
        bench.record_result(key, &to_key(key, 0).with_a(3600));
    }
    let mut misses = 0;
    for number in 0..200_000 {
        let scanned = known(format!("scan{number}"));
        bench.record_result(&scanned, &to_key(&scanned, 0).with_a(3600));
        // One query in ten is for a popular name.
        if number % 10 == 0 {
            let key = &popular[number / 10 % popular.len()];
            if bench.fresh(key).is_none() {
                misses += 1;
                bench.record_result(key, &to_key(key, 0).with_a(3600));
            }
        }
    }
    assert!(
        bench.cache.entries() < 10_000,
        "the scan is many times what there is room for"
    );
    assert!(misses < 100, "{misses} of 20,000 were driven out");
}

#[test]
fn an_answer_larger_than_a_shards_part_is_not_cached_and_evicts_nothing() {
    let bench = Bench::with(Settings {
        size: 64 * 1024,
        serve_stale: Duration::from_secs(DAY),
    });
    let small = QuestionKey::new(&question("small", A), false, false);
    bench.record_result(&small, &to_key(&small, 0).with_a(100));
    bench.record_result(&key(), &to_key(&key(), 0).with(1, A, 100, &[0; 60_000]));
    assert!(matches!(bench.lookup(&key()), Lookup::Miss));
    assert!(bench.fresh(&small).is_some());
    assert!(bench.cache.octets() <= 64 * 1024);
}

/// A step of the test: an answer with a TTL is recorded, a name fails or is looked up, time passes.
#[derive(Debug, Clone)]
enum Step {
    Record(u8, u32, u16),
    Fail(u8),
    Lookup(u8),
    Pass(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let ttl = prop_oneof![0_u32..20, 500_000_u32..700_000, any::<u32>()];
    prop_oneof![
        (any::<u8>(), ttl, 0_u16..3000).prop_map(|(name, ttl, size)| Step::Record(name, ttl, size)),
        any::<u8>().prop_map(Step::Fail),
        any::<u8>().prop_map(Step::Lookup),
        prop_oneof![0_u32..5000, 0_u32..1_000_000_000].prop_map(Step::Pass),
    ]
}

/// Whether a refusal is served.
fn refused(lookup: Lookup) -> bool {
    match lookup {
        Lookup::Failure(hit) => hit.is_refusal() && hit.is_failure() && !hit.is_stale(),
        _ => false,
    }
}

#[test]
fn a_refusal_replaces_an_answer_and_no_expired_one_is_served_for_it() {
    for age in [0.0, 10.0, 100.0] {
        let mut bench = Bench::new();
        let question = question("www.example", A);
        let key = QuestionKey::new(&question, false, false);
        bench.record_result(&key, &Draft::to(&question, 0).with_a(50));
        bench.advance(age);
        bench.cache.record_refusal(&key, bench.now);
        assert!(refused(bench.lookup(&key)), "{age}");
        assert!(bench.cache.servable(&key, bench.now).is_none(), "{age}");
        bench.advance(1.0);
        assert!(matches!(bench.lookup(&key), Lookup::Miss), "{age}");
        assert!(bench.fail(&key, Failure::TimedOut).is_none(), "{age}");
    }
}

#[test]
fn a_refusal_is_kept_twice_as_long_each_time_up_to_five_minutes() {
    let mut bench = Bench::new();
    let question = question("www.example", A);
    let key = QuestionKey::new(&question, false, false);
    for seconds in [
        1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0,
    ] {
        bench.cache.record_refusal(&key, bench.now);
        // The resolver may answer other queries meanwhile.
        bench.cache.note_response(Responder::MAIN, bench.now);
        bench.advance(seconds - 0.1);
        assert!(refused(bench.lookup(&key)), "{seconds}");
        bench.advance(0.1);
        assert!(!refused(bench.lookup(&key)), "{seconds}");
    }
    assert_eq!(bench.cache.entries(), 1);
}

#[test]
fn what_comes_after_a_refusal_replaces_it() {
    let question = question("www.example", A);
    let key = QuestionKey::new(&question, false, false);
    let other = QuestionKey::new(&question, true, false);
    let refuse = || {
        let mut bench = Bench::new();
        bench.cache.record_refusal(&key, bench.now);
        assert!(refused(bench.lookup(&key)));
        assert!(matches!(bench.lookup(&other), Lookup::Miss));
        bench.advance(1.0);
        bench
    };
    let bench = refuse();
    bench.record_result(&key, &Draft::to(&question, 0).with_a(50));
    assert_eq!(bench.fresh(&key), Some(vec![50]));
    for failed in [Err(Failure::MalformedResponse), Ok(2)] {
        let bench = refuse();
        match failed {
            Ok(rcode) => bench.record_result(&key, &Draft::to(&question, rcode)),
            Err(failure) => bench.fail(&key, failure),
        };
        let Lookup::Failure(hit) = bench.lookup(&key) else {
            panic!("a failure");
        };
        assert!(!hit.is_refusal() && hit.answer().rcode() == rcode::SERVFAIL);
        bench.cache.record_refusal(&key, bench.now);
        assert!(refused(bench.lookup(&key)), "it replaces a failure, too");
    }
    let bench = refuse();
    bench.record_result(&key, &Draft::to(&question, 5));
    assert_eq!(
        bench.cache.entries(),
        0,
        "REFUSED of the resolver is not kept"
    );
    let bench = Bench::with(Settings {
        size: 0,
        serve_stale: Duration::ZERO,
    });
    bench.cache.record_refusal(&key, bench.now);
    assert!(matches!(bench.lookup(&key), Lookup::Miss), "no cache");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_served_beyond_its_ttl_and_memory_is_bounded(
        steps in prop::collection::vec(step(), 0..400),
        size in 65_536_usize..200_000,
        serve_stale in prop_oneof![Just(0_u64), 0_u64..100_000],
    ) {
        let mut bench = Bench::with(Settings { size, serve_stale: Duration::from_secs(serve_stale) });
        let key = |name: u8| QuestionKey::new(&question(&format!("n{name}"), A), false, false);
        // When the last answer to each name was recorded, and with which TTL.
        let mut recorded: HashMap<u8, (Instant, u32)> = HashMap::new();
        for step in steps {
            match step {
                Step::Record(name, ttl, size) => {
                    let key = key(name);
                    bench.record_result(&key, &to_key(&key, 0).with(1, A, ttl, &vec![0; size.into()]));
                    recorded.insert(name, (bench.now, ttl));
                }
                Step::Fail(name) => drop(bench.fail(&key(name), Failure::MalformedResponse)),
                Step::Pass(millis) => bench.now += Duration::from_millis(millis.into()),
                Step::Lookup(name) => {
                    let since = recorded.get(&name).map(|(at, ttl)| (bench.now - *at, *ttl));
                    let within = |extra: u64| since.is_some_and(|(age, ttl)| {
                        ttl < 0x8000_0000 && age < Duration::from_secs(u64::from(ttl.min(604_800)) + extra)
                    });
                    match bench.lookup(&key(name)) {
                        Lookup::Miss | Lookup::Failure(_) => {}
                        Lookup::Fresh { hit, .. } => {
                            prop_assert!(within(0));
                            let (age, ttl) = since.expect("it was noted");
                            let left = u64::from(ttl.min(604_800)) - age.as_secs();
                            prop_assert_eq!(ttls(&hit), [u32::try_from(left).expect("it fits")]);
                        }
                        Lookup::Stale { hit, .. } => {
                            prop_assert!(!within(0) && within(serve_stale));
                            prop_assert_eq!(ttls(&hit), [30]);
                        }
                    }
                }
            }
            prop_assert!(bench.cache.octets() <= size as u64);
        }
    }
}

#[test]
fn an_outage_of_one_responder_is_over_when_that_one_responds() {
    let mut bench = Bench::new();
    let route = Responder::of_route(3);
    let lookup = |bench: &Bench| bench.cache.lookup(&key(), || route, bench.now);
    // The main resolver goes on responding, which says nothing about the names of the route.
    let began = bench.now;
    bench.advance(3.0);
    bench.cache.note_response(Responder::MAIN, bench.now);
    let result = Err(Failure::TimedOut);
    bench
        .cache
        .record_result(&key(), route, result, began, bench.now);
    assert!(matches!(lookup(&bench), Lookup::Failure(_)));
    bench.advance(0.01);
    bench.cache.note_response(Responder::MAIN, bench.now);
    assert!(matches!(lookup(&bench), Lookup::Failure(_)));
    bench.cache.note_response(route, bench.now);
    assert!(matches!(lookup(&bench), Lookup::Miss));
}
