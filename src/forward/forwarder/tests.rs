use std::collections::VecDeque;
use std::hint::spin_loop;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Barrier;

use proptest::prelude::*;
use socket2::SockRef;

use super::*;
use crate::cache;
use crate::client::connection_limit::ConnectionLimit;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::forward::rate_limit;
use crate::message::Answer;
use crate::system::memory::{self, Purpose};
use crate::telemetry::query_log;
use crate::upstream;
use crate::upstream::token_bucket::Rate;
use crate::upstream::{Completer, Failure, Query as _};

const TIMEOUT: Duration = Duration::from_secs(3);
const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;

/// A forwarder whose queries stay here, its client and its clock.
struct Bench {
    forwarder: Forwarder,
    endings: Arc<Endings>,
    server: Arc<UdpSocket>,
    client: UdpSocket,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(100, TIMEOUT)
    }

    fn with(max_pending: usize, timeout: Duration) -> Self {
        Self::with_budget(max_pending, timeout, None)
    }

    fn with_budget(max_pending: usize, timeout: Duration, budget: Option<Rate>) -> Self {
        let start = Instant::now();
        let settings = Settings {
            timeout,
            slo_latency: Duration::from_millis(100),
            query_log: query_log::Mode::Off,
            max_pending,
            cache: cache::Settings {
                size: 1 << 20,
                serve_stale: Duration::from_secs(86_400),
            },
            limit: rate_limit::Settings {
                allow: vec!["127.0.0.1/32".parse().expect("a prefix")],
                rate: None,
                limit_loopback: true,
            },
            budget,
        };
        let memory = Memory::new(memory::Settings {
            limit: memory::Settings::default_limit(1),
            connections: 1,
        });
        let endings = Arc::new(Endings::new(settings.cache, &memory, start));
        let upstream = upstream::Settings {
            resolvers: Vec::new(),
            timeout,
            min_silence_timeout: upstream::MIN_SILENCE_TIMEOUT,
            sessions: 1,
            max_pending,
        };
        let upstream = Upstream::start(upstream, Arc::clone(&endings) as Arc<_>, Arc::default());
        let socket = || UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let client = socket();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        Self {
            forwarder: Forwarder::new(
                settings,
                upstream.expect("a thread"),
                Arc::clone(&endings),
                start,
            ),
            endings,
            server: Arc::new(socket()),
            client,
            now: start + Duration::from_secs(1000),
        }
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// Takes in queries, sends what can be answered, and returns what would go to the resolver.
    fn ask(&self, queries: &[Vec<u8>]) -> Vec<Arc<Query>> {
        let batch = self.handle(queries);
        self.board(batch)
    }

    fn handle(&self, queries: &[Vec<u8>]) -> Batch {
        let mut batch = Batch::default();
        self.handle_into(&mut batch, queries);
        batch
    }

    fn handle_into(&self, batch: &mut Batch, queries: &[Vec<u8>]) {
        for query in queries {
            let client = Client::Datagram {
                socket: Arc::clone(&self.server),
                peer: self.client.local_addr().expect("an address"),
                local: None,
            };
            self.forwarder.handle(query, client, self.now, batch);
        }
    }

    fn board(&self, mut batch: Batch) -> Vec<Arc<Query>> {
        let policy = self
            .forwarder
            .policy(&mut batch.policy, &mut batch.generation);
        self.endings.board(
            policy,
            &mut batch.queries,
            &mut batch.spares,
            self.now,
            &mut batch.replies,
        );
        batch.replies.send();
        batch.queries
    }

    fn settle(&self, query: &Query, ending: Result<&[u8], Failure>) {
        let mut replies = ReplyBatch::default();
        let answer = ending.map(|answer| Answer::parse(answer).expect("an answer"));
        let ending = answer.as_ref().map_err(|failure| *failure);
        self.endings.complete(query, ending, self.now, &mut replies);
        replies.send();
    }

    fn look_after(&self, query: &Query) {
        let mut replies = ReplyBatch::default();
        self.endings
            .serve_due_waiters(query, self.now, &mut replies);
        replies.send();
    }

    /// The next answer: its octets.
    fn hear(&self) -> Vec<u8> {
        let mut octets = vec![0; 4096];
        let length = self.client.recv(&mut octets).expect("an answer");
        octets.truncate(length);
        octets
    }

    /// Asserts that the next answers are these: ID and response code, in any order.
    fn hear_codes(&self, expected: &[(u16, u8)]) {
        let mut heard: Vec<_> = expected.iter().map(|_| id_and_code(&self.hear())).collect();
        heard.sort_unstable();
        assert_eq!(heard, expected);
        self.assert_silent();
    }

    fn assert_silent(&self) {
        self.client.set_nonblocking(true).expect("an option");
        assert!(
            self.client.recv(&mut [0; 1]).is_err(),
            "one answer too many"
        );
        self.client.set_nonblocking(false).expect("an option");
    }

    /// Has an answer with this TTL kept, at this moment.
    fn know(&self, ttl: u32) {
        let queries = self.ask(&[query(0, "www.example")]);
        self.settle(&queries[0], Ok(&answer(&queries[0], ttl)));
        self.hear_codes(&[(0, NOERROR)]);
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.endings.counts().count(outcome)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.forwarder.upstream().stop();
    }
}

fn id_and_code(message: &[u8]) -> (u16, u8) {
    let id = u16::from_be_bytes([message[0], message[1]]);
    (id, message[3] & 0x0f)
}

fn query_saying(id: u16, name: &str, flags: [u8; 2], more: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let additional = u8::from(!more.is_empty());
    let mut octets = vec![
        high, low, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, additional,
    ];
    for label in name.split('.') {
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    octets.extend_from_slice(more);
    octets
}

fn query(id: u16, name: &str) -> Vec<u8> {
    query_saying(id, name, [1, 0], &[])
}

fn opt(flags: u8) -> [u8; 11] {
    [0, 0, 41, 4, 0xd0, 0, 0, flags, 0, 0, 0]
}

/// The resolver's answer: an address with this TTL, authentic.
fn answer(query: &Query, ttl: u32) -> Vec<u8> {
    let header = [0, 0, 0x81, 0xa0, 0, 1, 0, 1, 0, 0, 0, 0];
    let record = [
        &[0xc0, 12, 0, 1, 0, 1][..],
        &ttl.to_be_bytes(),
        &[0, 4, 192, 0, 2, 1],
    ];
    [&header, query.question(), &record.concat()].concat()
}

fn error(query: &Query, rcode: u8) -> Vec<u8> {
    let header = [0, 0, 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0];
    [&header, query.question()].concat()
}

#[test]
fn an_answer_that_comes_while_all_is_forgotten_is_not_kept() {
    let mut bench = Bench::new();
    let question = query(0, "www.example");
    let key = message::Query::parse(&question).expect("a query").key();
    let key = key.expect("a key");
    // At every moment of it, sooner or later.
    for turn in 0..2000 {
        let queries = bench.ask(std::slice::from_ref(&question));
        let answer = answer(&queries[0], 300);
        bench.pass(1.0);
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                (0..turn).for_each(|_| spin_loop());
                bench.endings.forget(bench.now)
            });
            start.wait();
            bench.settle(&queries[0], Ok(&answer));
        });
        let kept = bench.endings.cache().any(&key, bench.now);
        assert!(kept.is_none());
        bench.hear_codes(&[(0, NOERROR)]);
    }
}

#[test]
fn equal_questions_go_as_one_and_each_asker_gets_its_own_answer() {
    let bench = Bench::new();
    let asked = [
        query_saying(1, "www.example", [1, 0], &[]),
        query_saying(2, "wWw.Example", [1, 0x20], &[]),
        query_saying(3, "WWW.EXAMPLE", [1, 0], &opt(0)),
    ];
    let first = bench.ask(&asked[..2]);
    assert_eq!(first.len(), 1, "of one batch");
    assert!(bench.ask(&asked[2..]).is_empty(), "of different batches");
    assert_eq!(first[0].clients().count_waiters(), 3);
    bench.settle(&first[0], Ok(&answer(&first[0], 300)));
    let mut heard: Vec<_> = asked.iter().map(|_| bench.hear()).collect();
    heard.sort();
    for (heard, asked) in heard.iter().zip(&asked) {
        let end = 12 + first[0].question().len();
        assert_eq!(heard[..2], asked[..2], "its ID");
        assert_eq!(heard[12..end], asked[12..end], "its spelling");
        assert_eq!(heard[3] & 0x20, asked[3] & 0x20, "AD if it asked");
        assert_eq!(heard[10..12], asked[10..12], "an OPT if it sent one");
    }
    assert_eq!(bench.count(Outcome::Answered), 3);
    assert_eq!(bench.endings.waiting(), 0);
    // Now it is known.
    assert!(bench.ask(&asked).is_empty());
    let mut again: Vec<_> = asked.iter().map(|_| bench.hear()).collect();
    again.sort();
    assert_eq!(again, heard);
    assert_eq!(bench.count(Outcome::Cached), 3);
}

#[test]
fn different_questions_and_those_for_one_asker_alone_do_not_go_together() {
    let bench = Bench::new();
    let tsig = [&[0][..], &[0, 250, 0, 255], &[0; 6]].concat();
    let asked = [
        query(1, "www.example"),
        query(2, "www.example.org"),
        query_saying(3, "www.example", [1, 0x10], &[]),
        query_saying(4, "www.example", [1, 0], &opt(0x80)),
        query_saying(5, "www.example", [0, 0], &[]),
        query_saying(6, "www.example", [0, 0], &[]),
        query_saying(7, "www.example", [1, 0], &tsig),
        query_saying(8, "www.example", [1, 0], &tsig),
    ];
    let queries = bench.ask(&asked);
    assert_eq!(queries.len(), asked.len());
    for query in &queries {
        bench.settle(query, Ok(&answer(query, 300)));
    }
    let mut ids: Vec<_> = asked.iter().map(|_| id_and_code(&bench.hear()).0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    // Those that may be shared are known now, the others are asked again.
    assert_eq!(bench.ask(&asked).len(), 4);
}

#[test]
fn each_asker_has_its_own_deadline() {
    for answered in [true, false] {
        let mut bench = Bench::new();
        let flight = bench.ask(&[query(1, "www.example")]);
        bench.pass(1.4);
        assert!(bench.ask(&[query(2, "www.example")]).is_empty());
        bench.pass(1.5);
        assert!(flight[0].due() > bench.now);
        bench.pass(0.1);
        assert!(flight[0].due() <= bench.now && flight[0].deadline() > bench.now);
        bench.look_after(&flight[0]);
        bench.hear_codes(&[(1, SERVFAIL)]);
        assert!(flight[0].due() > bench.now);
        if answered {
            bench.pass(1.0);
            bench.settle(&flight[0], Ok(&answer(&flight[0], 300)));
            bench.hear_codes(&[(2, NOERROR)]);
        } else {
            bench.pass(1.4);
            assert!(flight[0].deadline() <= bench.now);
            bench.settle(&flight[0], Err(Failure::TimedOut));
            bench.hear_codes(&[(2, SERVFAIL)]);
            assert_eq!(bench.count(Outcome::TimedOut), 2);
        }
        assert_eq!(bench.endings.waiting(), 0);
    }
}

#[test]
fn who_comes_late_asks_anew_for_all_that_wait() {
    let begin = || {
        let mut bench = Bench::new();
        let first = bench.ask(&[query(1, "www.example")]);
        bench.pass(1.0);
        bench.ask(&[query(2, "WWW.example")]);
        bench.pass(0.5);
        let second = bench.ask(&[query(3, "www.EXAMPLE")]);
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_eq!(second[0].clients().count_waiters(), 3);
        (bench, Arc::clone(&first[0]), Arc::clone(&second[0]))
    };
    let all = [(1, NOERROR), (2, NOERROR), (3, NOERROR)];
    // Either brings the answer for all.
    let (bench, first, second) = begin();
    bench.settle(&first, Ok(&answer(&first, 0)));
    bench.hear_codes(&all);
    bench.settle(&second, Ok(&answer(&second, 0)));
    bench.assert_silent();
    let (bench, first, second) = begin();
    bench.settle(&second, Ok(&answer(&second, 0)));
    bench.hear_codes(&all);
    bench.settle(&first, Ok(&answer(&first, 0)));
    bench.assert_silent();
    // The first one's end is none while the second is on its way.
    let (mut bench, first, second) = begin();
    bench.settle(&first, Err(Failure::ConnectionLost));
    bench.assert_silent();
    assert!(bench.ask(&[query(4, "www.example")]).is_empty(), "it joins");
    for (seconds, id) in [(1.5, 1), (1.0, 2)] {
        bench.pass(seconds);
        assert!(second.due() <= bench.now && second.deadline() > bench.now);
        bench.look_after(&second);
        bench.hear_codes(&[(id, SERVFAIL)]);
    }
    bench.pass(0.5);
    assert!(second.deadline() <= bench.now);
    bench.settle(&second, Err(Failure::TimedOut));
    bench.hear_codes(&[(3, SERVFAIL), (4, SERVFAIL)]);
    assert_eq!(bench.endings.waiting(), 0);
}

#[test]
fn a_name_that_timed_out_fails_for_a_second() {
    let mut bench = Bench::new();
    let flight = bench.ask(&[query(1, "www.example")]);
    bench.pass(1.0);
    bench.ask(&[query(2, "www.example")]);
    bench.pass(2.0);
    bench.look_after(&flight[0]);
    bench.hear_codes(&[(1, SERVFAIL)]);
    assert!(bench.ask(&[query(3, "www.example")]).is_empty());
    bench.hear_codes(&[(3, SERVFAIL)]);
    assert_eq!(bench.count(Outcome::FailedBefore), 1);
    bench.pass(1.0);
    bench.settle(&flight[0], Err(Failure::TimedOut));
    bench.hear_codes(&[(2, SERVFAIL)]);
    assert_eq!(
        bench.ask(&[query(4, "www.example")]).len(),
        1,
        "the second failure is the first"
    );
}

#[test]
fn a_spent_budget_fails_who_comes_and_nobody_who_waits() {
    let budget = Rate {
        per_second: 1,
        burst: 1,
    };
    let mut bench = Bench::with_budget(100, Duration::from_secs(1), Some(budget));
    let first = bench.ask(&[query(1, "www.example")]);
    bench.pass(0.6);
    assert!(bench.ask(&[query(2, "other.example")]).is_empty());
    bench.hear_codes(&[(2, SERVFAIL)]);
    assert!(bench.ask(&[query(3, "www.example")]).is_empty());
    bench.assert_silent();
    bench.settle(&first[0], Ok(&answer(&first[0], 0)));
    bench.hear_codes(&[(1, NOERROR), (3, NOERROR)]);
    assert_eq!(bench.count(Outcome::Overloaded), 1);
    bench.pass(0.5);
    assert_eq!(bench.ask(&[query(4, "other.example")]).len(), 1);
}

#[test]
fn who_finds_no_place_is_told_so_but_not_while_datagrams_are_lost() {
    let bench = Bench::with(1, TIMEOUT);
    bench.know(300);
    assert_eq!(bench.ask(&[query(1, "slow.example")]).len(), 1);
    for (terse, told) in [
        (false, &[(2, SERVFAIL), (3, NOERROR)][..]),
        (true, &[(3, NOERROR)]),
    ] {
        let mut batch = Batch::default();
        batch.be_terse(terse);
        bench.handle_into(
            &mut batch,
            &[query(2, "other.example"), query(3, "www.example")],
        );
        assert!(bench.board(batch).is_empty());
        bench.hear_codes(told);
    }
    assert_eq!(bench.count(Outcome::Overloaded), 2);
}

#[test]
fn an_expired_answer_outlasts_overload() {
    let mut bench = Bench::with(2, TIMEOUT);
    bench.know(100);
    bench.pass(100.0);
    let ids: Vec<_> = (1..5).map(|id| query(id, "www.example")).collect();
    let flight = bench.ask(&ids);
    bench.hear_codes(&[(3, NOERROR), (4, NOERROR)]);
    bench.settle(&flight[0], Ok(&answer(&flight[0], 100)));
    bench.hear_codes(&[(1, NOERROR), (2, NOERROR)]);
}

#[test]
fn who_joins_what_is_late_neither_waits_nor_makes_it_last() {
    let mut bench = Bench::new();
    bench.know(100);
    bench.pass(100.0);
    let flight = bench.ask(&[query(1, "www.example")]);
    bench.pass(1.5);
    bench.look_after(&flight[0]);
    bench.hear_codes(&[(1, NOERROR)]);
    bench.pass(1.4);
    assert!(bench.ask(&[query(2, "www.example")]).is_empty());
    bench.hear_codes(&[(2, NOERROR)]);
    bench.pass(0.1);
    assert!(
        flight[0].deadline() <= bench.now,
        "nobody waits for it any more"
    );
    bench.settle(&flight[0], Err(Failure::TimedOut));
    assert!(bench.ask(&[query(3, "www.example")]).is_empty());
    bench.hear_codes(&[(3, NOERROR)]);
    // Asked for again, but nobody waits for what has failed before.
    bench.pass(30.0);
    let again = bench.ask(&[query(4, "www.example"), query(5, "www.example")]);
    assert_eq!((again.len(), again[0].clients().count_waiters()), (1, 0));
    bench.hear_codes(&[(4, NOERROR), (5, NOERROR)]);
    assert_eq!(bench.count(Outcome::Stale), 5);
}

#[test]
fn who_joins_just_before_it_is_late_is_looked_after_in_time() {
    let mut bench = Bench::new();
    bench.know(100);
    bench.pass(100.0);
    let flight = bench.ask(&[query(1, "www.example")]);
    bench.pass(1.499);
    let batch = bench.handle(&[query(2, "www.example")]);
    let asked_at = bench.now;
    // The timer is faster.
    bench.pass(0.001);
    bench.look_after(&flight[0]);
    bench.hear_codes(&[(1, NOERROR)]);
    bench.now = asked_at;
    assert!(bench.board(batch).is_empty());
    bench.pass(0.001);
    assert!(flight[0].due() <= bench.now);
    bench.look_after(&flight[0]);
    bench.hear_codes(&[(2, NOERROR)]);
}

#[test]
fn a_suspend_takes_no_clients_time() {
    let mut bench = Bench::new();
    let flight = bench.ask(&[query(1, "www.example")]);
    let pause = Duration::from_secs(8 * 3600);
    bench.now += pause;
    flight[0].extend(pause);
    bench.pass(2.9);
    assert!(flight[0].due() > bench.now && flight[0].deadline() > bench.now);
    bench.pass(0.1);
    assert!(flight[0].deadline() <= bench.now);
}

#[test]
fn a_flight_that_fails_fails_for_all() {
    for (ending, code, outcome) in [
        (Err(Failure::TimedOut), SERVFAIL, Outcome::TimedOut),
        (Err(Failure::Unreachable), SERVFAIL, Outcome::Unreachable),
        (Err(Failure::Unauthenticated), SERVFAIL, Outcome::Unproved),
        (
            Err(Failure::MalformedResponse),
            SERVFAIL,
            Outcome::BadAnswer,
        ),
        (Ok(2), 2, Outcome::Answered),
        (Ok(5), 5, Outcome::Answered),
    ] {
        let bench = Bench::new();
        let flight = bench.ask(&[query(1, "www.example"), query(2, "www.EXAMPLE")]);
        let message = ending.map(|rcode| error(&flight[0], rcode));
        bench.settle(&flight[0], message.as_deref().map_err(|failure| *failure));
        bench.hear_codes(&[(1, code), (2, code)]);
        assert_eq!(bench.count(outcome), 2);
        assert_eq!(bench.endings.waiting(), 0);
    }
}

#[test]
fn an_answer_that_comes_between_looking_and_sending_is_not_asked_for_again() {
    let bench = Bench::new();
    let first = bench.ask(&[query(1, "www.example")]);
    let batch = bench.handle(&[query(2, "www.example")]);
    bench.settle(&first[0], Ok(&answer(&first[0], 300)));
    assert!(bench.board(batch).is_empty());
    bench.hear_codes(&[(1, NOERROR), (2, NOERROR)]);
}

#[test]
fn no_more_clients_wait_than_may() {
    let bench = Bench::with(3, TIMEOUT);
    let names = [
        "a.example",
        "b.example",
        "a.example",
        "b.example",
        "a.example",
    ];
    let asked: Vec<_> = (1..).zip(names).map(|(id, name)| query(id, name)).collect();
    let queries = bench.ask(&asked);
    assert_eq!(queries.len(), 2);
    bench.hear_codes(&[(4, SERVFAIL), (5, SERVFAIL)]);
    for query in &queries {
        bench.settle(query, Ok(&answer(query, 300)));
    }
    bench.hear_codes(&[(1, NOERROR), (2, NOERROR), (3, NOERROR)]);
    assert_eq!(
        bench.ask(&[query(6, "c.example")]).len(),
        1,
        "there is room again"
    );
}

#[test]
fn an_expired_answer_goes_out_when_there_is_no_fresh_one_in_time() {
    for (timeout, patience) in [(3.0, 1.5), (5.0, 1.8), (60.0, 1.8), (0.1, 0.05)] {
        let mut bench = Bench::with(100, Duration::from_secs_f64(timeout));
        bench.know(100);
        bench.pass(100.0);
        let flight = bench.ask(&[query_saying(1, "www.example", [1, 0], &opt(0))]);
        bench.assert_silent();
        bench.pass(patience - 0.001);
        assert!(flight[0].due() > bench.now);
        bench.pass(0.001);
        assert!(flight[0].due() <= bench.now);
        bench.look_after(&flight[0]);
        let heard = bench.hear();
        assert_eq!(id_and_code(&heard), (1, NOERROR));
        assert!(heard.ends_with(&[0, 15, 0, 2, 0, 3]), "Stale Answer");
        assert!(bench.ask(&[query(2, "www.example")]).is_empty());
        bench.hear_codes(&[(2, NOERROR)]);
        assert_eq!(bench.count(Outcome::Stale), 2, "the second at once");
        assert!(flight[0].due() > bench.now);
        bench.settle(&flight[0], Ok(&answer(&flight[0], 100)));
        bench.assert_silent();
        assert!(bench.ask(&[query(3, "www.example")]).is_empty());
        bench.hear_codes(&[(3, NOERROR)]);
        assert_eq!(bench.count(Outcome::Cached), 1, "what came late is kept");
    }
}

#[test]
fn an_expired_answer_goes_out_when_the_resolver_fails_and_then_at_once() {
    for ending in [
        Err(Failure::Unreachable),
        Err(Failure::TimedOut),
        Ok(2),
        Ok(5),
    ] {
        let mut bench = Bench::new();
        bench.know(100);
        bench.pass(100.0);
        let flight = bench.ask(&[query(1, "www.example")]);
        let message = ending.map(|rcode| error(&flight[0], rcode));
        bench.settle(&flight[0], message.as_deref().map_err(|failure| *failure));
        bench.hear_codes(&[(1, NOERROR)]);
        bench.pass(29.9);
        assert!(bench.ask(&[query(2, "www.example")]).is_empty());
        bench.hear_codes(&[(2, NOERROR)]);
        assert_eq!(bench.count(Outcome::Stale), 2);
        bench.pass(0.1);
        assert_eq!(bench.ask(&[query(3, "www.example")]).len(), 1);
    }
}

#[test]
fn a_popular_answer_is_renewed_while_it_is_given() {
    let mut bench = Bench::new();
    bench.know(100);
    bench.pass(80.0);
    assert!(
        bench
            .ask(&[query(1, "www.example"), query(2, "www.example")])
            .is_empty()
    );
    bench.hear_codes(&[(1, NOERROR), (2, NOERROR)]);
    bench.pass(15.0);
    let renewal = bench.ask(&[query(3, "www.example"), query(4, "www.example")]);
    assert_eq!(renewal.len(), 1, "once");
    bench.hear_codes(&[(3, NOERROR), (4, NOERROR)]);
    assert_eq!(renewal[0].clients().count_waiters(), 0);
    bench.pass(1.0);
    bench.settle(&renewal[0], Ok(&answer(&renewal[0], 100)));
    bench.assert_silent();
    bench.pass(89.0);
    assert!(bench.ask(&[query(5, "www.example")]).is_empty());
    bench.hear_codes(&[(5, NOERROR)]);
    // The next one expires while its renewal is on its way: whoever asks then waits for that, but not for long.
    bench.pass(10.5);
    let renewal = bench.ask(&[query(6, "www.example")]);
    bench.hear_codes(&[(6, NOERROR)]);
    assert_eq!(renewal.len(), 1);
    bench.pass(0.5);
    assert!(bench.ask(&[query(7, "www.example")]).is_empty());
    bench.assert_silent();
    bench.pass(1.0);
    bench.look_after(&renewal[0]);
    bench.hear_codes(&[(7, NOERROR)]);
    assert_eq!(bench.count(Outcome::Stale), 1);
}

#[test]
fn what_failed_a_moment_ago_fails_at_once() {
    let mut bench = Bench::new();
    let flight = bench.ask(&[query(1, "www.example")]);
    bench.settle(&flight[0], Ok(&error(&flight[0], SERVFAIL)));
    bench.hear_codes(&[(1, SERVFAIL)]);
    assert!(
        bench
            .ask(&[query_saying(2, "www.example", [1, 0], &opt(0))])
            .is_empty()
    );
    let heard = bench.hear();
    assert_eq!(id_and_code(&heard), (2, SERVFAIL));
    assert!(heard.ends_with(&[0, 15, 0, 2, 0, 13]), "Cached Error");
    bench.pass(1.0);
    assert_eq!(bench.ask(&[query(3, "www.example")]).len(), 1);
}

/// What happens to clients that ask over TCP.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A client asks for a name, under which it gets an answer of about so many octets.
    Ask(usize, u8),
    /// The resolver answers the query that has waited the longest, with so many records.
    Answer(usize),
    /// It fails.
    Fail,
    /// A client reads so many octets.
    Read(usize, usize),
    /// A client closes its connection.
    Close(usize),
    /// Somebody else needs memory: who reads slowly loses its connection.
    NoMemory,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..CLIENTS, 0..12_u8).prop_map(|(client, name)| Event::Ask(client, name)),
        3 => (0..4000_usize).prop_map(Event::Answer),
        1 => Just(Event::Fail),
        2 => (0..CLIENTS, 0..300_000_usize).prop_map(|(client, most)| Event::Read(client, most)),
        1 => (0..CLIENTS).prop_map(Event::Close),
        1 => Just(Event::NoMemory),
    ]
}

const CLIENTS: usize = 3;

/// Clients of a forwarder over TCP, and the queries that wait at its resolver.
struct TcpBench {
    bench: Bench,
    listener: TcpListener,
    slow_readers: Arc<SlowReaders>,
    limit: Arc<ConnectionLimit>,
    clients: Vec<Option<(TcpStream, Connection)>>,
    pending: VecDeque<Arc<Query>>,
}

impl TcpBench {
    fn new() -> Self {
        let bench = Bench::new();
        let evictions = Arc::new(EvictionCounters::default());
        let memory = Arc::clone(bench.endings.memory());
        let (slow_readers, _) = SlowReaders::new(memory, Arc::clone(&evictions)).expect("a pipe");
        Self {
            bench,
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
            slow_readers,
            limit: ConnectionLimit::new(CLIENTS, evictions),
            clients: (0..CLIENTS).map(|_| None).collect(),
            pending: VecDeque::new(),
        }
    }

    /// The client at that place, which connects if it is not connected.
    fn client(&mut self, at: usize) -> &mut (TcpStream, Connection) {
        let Self {
            listener,
            slow_readers,
            limit,
            clients,
            bench,
            ..
        } = self;
        clients[at].get_or_insert_with(|| {
            let to = listener.local_addr().expect("bound");
            let socket = TcpStream::connect(to).expect("it listens");
            socket.set_nonblocking(true).expect("an option");
            let (own, peer) = listener.accept().expect("a client");
            SockRef::from(&own)
                .set_send_buffer_size(memory::SEND_BUFFER)
                .expect("an option");
            // Who was here before may still be waited for, but has given its place back.
            let slot = limit.take_now().expect("a place");
            let slow_readers = Arc::clone(slow_readers);
            let connection = Connection::new(own, peer, slow_readers, slot, bench.now);
            (socket, connection)
        })
    }

    fn happen(&mut self, event: Event) {
        let now = self.bench.now;
        match event {
            Event::Ask(at, name) => {
                let client = self.client(at).1.client(now);
                let mut batch = Batch::default();
                let query = query(u16::from(name), &format!("n{name}.example"));
                self.bench.forwarder.handle(&query, client, now, &mut batch);
                self.pending.extend(self.bench.board(batch));
            }
            Event::Answer(records) => {
                if let Some(query) = self.pending.pop_front() {
                    let mut answer = answer(&query, 0);
                    let record = answer[answer.len() - 16..].to_vec();
                    answer.extend(record.repeat(records));
                    let count = u16::try_from(records + 1).expect("it was said so");
                    answer[6..8].copy_from_slice(&count.to_be_bytes());
                    self.bench.settle(&query, Ok(&answer));
                }
            }
            Event::Fail => {
                if let Some(query) = self.pending.pop_front() {
                    self.bench.settle(&query, Err(Failure::ConnectionLost));
                }
                self.bench.pass(2.0);
            }
            Event::Read(at, most) => {
                if let Some((socket, _)) = &mut self.clients[at] {
                    let _ = socket.read(&mut vec![0; most]);
                }
            }
            Event::Close(at) => {
                if let Some((_, connection)) = self.clients[at].take() {
                    connection.stream().close_over_memory();
                    connection.stream().drained_and_held();
                }
                // Its place is given back once its queries have ended.
                while self.limit.taken() > self.clients.iter().flatten().count() {
                    match self.pending.pop_front() {
                        Some(query) => self.bench.settle(&query, Err(Failure::ConnectionLost)),
                        None => break,
                    }
                }
            }
            Event::NoMemory => {
                let memory = self.bench.endings.memory();
                let share = memory.share(Purpose::Replies);
                let slow_readers = Arc::clone(&self.slow_readers);
                let mut held = None;
                slow_readers.hold(&mut held, share, self.client(0).1.stream());
            }
        }
    }

    fn assert_counts(&mut self) {
        let endings = &self.bench.endings;
        let memory = endings.memory();
        let pending: usize = self.pending.iter().map(|query| query.held()).sum();
        let held = pending + endings.flights.held_by_landed();
        assert_eq!(memory.held(Purpose::Queries), held);
        let waiters: usize = self
            .pending
            .iter()
            .map(|query| query.clients().count_waiters())
            .sum();
        assert_eq!(endings.waiting(), waiters);
        let mut replies = 0;
        for (_, connection) in self.clients.iter().flatten() {
            let (octets, held) = connection.stream().drained_and_held();
            assert_eq!(octets, held);
            replies += held;
        }
        assert_eq!(memory.held(Purpose::Replies), replies);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_counted_as_held_is_what_is_held(events in prop::collection::vec(event(), 0..60)) {
        let mut bench = TcpBench::new();
        for event in events {
            bench.happen(event);
            bench.assert_counts();
        }
        // All end, and nothing is held.
        while let Some(query) = bench.pending.pop_front() {
            bench.bench.settle(&query, Err(Failure::ConnectionLost));
        }
        for at in 0..CLIENTS {
            bench.happen(Event::Close(at));
        }
        bench.assert_counts();
        let endings = &bench.bench.endings;
        prop_assert_eq!(endings.memory().held(Purpose::Replies), 0);
        prop_assert_eq!(endings.memory().held(Purpose::Queries), endings.flights.held_by_landed());
        prop_assert_eq!(endings.waiting(), 0);
        prop_assert!(endings.waiting.is_clear());
        prop_assert_eq!(bench.limit.taken(), 0);
    }
}
