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
use crate::client::datagrams::{DatagramSocket, LocalAddress};
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::forward::rate_limit;
use crate::forward::rebinding::RebindProtection;
use crate::forward::routes::Upstream;
use crate::system::memory::{self, Purpose};
use crate::telemetry::query_log;
use crate::upstream;
use crate::upstream::token_bucket::Rate;
use crate::upstream::{Completer, Failure, Query as _};

const TIMEOUT: Duration = Duration::from_secs(3);
const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// A forwarder whose queries are not sent, its client and its clock.
struct Bench {
    forwarder: Forwarder,
    completer: Arc<QueryCompleter>,
    server: Arc<DatagramSocket>,
    /// The source address of replies.
    local: Option<LocalAddress>,
    client: UdpSocket,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(100, TIMEOUT)
    }

    fn with(max_pending: usize, timeout: Duration) -> Self {
        Self::with_upstream_rate(max_pending, timeout, None)
    }

    fn with_upstream_rate(
        max_pending: usize,
        timeout: Duration,
        upstream_rate_limit: Option<Rate>,
    ) -> Self {
        let start = Instant::now();
        let settings = Settings {
            timeout,
            slo_latency: Duration::from_millis(100),
            query_log: query_log::Mode::Off,
            max_pending,
            hosts: Arc::default(),
            answer_special_names: true,
            rebind_protection: None,
            cache: cache::Settings {
                size: 1 << 20,
                serve_stale: Duration::from_secs(86_400),
            },
            limit: rate_limit::Settings {
                allow: vec!["127.0.0.1/32".parse().expect("a prefix")],
                rate: None,
                limit_loopback: true,
            },
            upstream_rate_limit,
        };
        let memory = Memory::new(memory::Settings {
            limit: memory::Settings::default_limit(1),
            connections: 1,
        });
        let completer = Arc::new(QueryCompleter::new(settings.cache, &memory, start));
        let upstream = upstream::Settings {
            resolvers: Vec::new(),
            timeout,
            is_main: true,
            min_silence_timeout: upstream::MIN_SILENCE_TIMEOUT,
            sessions: 1,
            max_pending,
        };
        let upstream = Upstream::start(upstream, Arc::clone(&completer) as Arc<_>, Arc::default());
        let socket = || UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let client = socket();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        Self {
            forwarder: Forwarder::new(
                settings,
                Upstreams::new(upstream.expect("a thread"), Vec::new(), Vec::new()),
                Arc::clone(&completer),
                start,
            ),
            server: Arc::new(DatagramSocket::new(
                socket(),
                Arc::clone(completer.counts().unsent_replies()),
            )),
            completer,
            local: None,
            client,
            now: start + Duration::from_secs(1000),
        }
    }

    fn advance(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// Handles queries, sends the answers from the cache, and returns the queries for the resolver.
    fn handle_all(&self, queries: &[Vec<u8>]) -> Vec<Arc<Query>> {
        let batch = self.handle(queries);
        self.coalesce(batch)
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
                local: self.local,
            };
            self.forwarder.handle(query, client, self.now, batch);
        }
    }

    fn coalesce(&self, mut batch: Batch) -> Vec<Arc<Query>> {
        let policy = self
            .forwarder
            .policy(&mut batch.policy, &mut batch.generation);
        self.completer.coalesce(
            policy,
            &mut batch.queries,
            &mut batch.query_pool,
            self.now,
            &mut batch.replies,
        );
        batch.replies.send();
        batch.queries
    }

    fn complete(&self, query: &Query, result: Result<&[u8], Failure>) {
        let mut replies = ReplyBatch::default();
        let answer = result.map(|answer| Answer::parse(answer).expect("an answer"));
        let result = answer.as_ref().map_err(|failure| *failure);
        self.completer
            .complete(query, result, self.now, &mut replies);
        replies.send();
    }

    fn serve_due_waiters(&self, query: &Query) {
        let mut replies = ReplyBatch::default();
        self.completer
            .serve_due_waiters(query, self.now, &mut replies);
        replies.send();
    }

    /// Receives the next answer.
    fn receive(&self) -> Vec<u8> {
        let mut octets = vec![0; 4096];
        let length = self.client.recv(&mut octets).expect("an answer");
        octets.truncate(length);
        octets
    }

    /// Receives as many answers and asserts their IDs and response codes, in any order.
    fn expect_codes(&self, expected: &[(u16, u8)]) {
        let mut received: Vec<_> = expected
            .iter()
            .map(|_| id_and_code(&self.receive()))
            .collect();
        received.sort_unstable();
        assert_eq!(received, expected);
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

    /// Caches an answer with this TTL now.
    fn cache_answer(&self, ttl: u32) {
        let queries = self.handle_all(&[query(0, "www.example")]);
        self.complete(&queries[0], Ok(&answer(&queries[0], ttl)));
        self.expect_codes(&[(0, NOERROR)]);
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.completer.counts().count(outcome)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.forwarder.upstreams().main().stop();
    }
}

fn id_and_code(message: &[u8]) -> (u16, u8) {
    let id = u16::from_be_bytes([message[0], message[1]]);
    (id, message[3] & 0x0f)
}

fn query_with(id: u16, name: &str, flags: [u8; 2], more: &[u8]) -> Vec<u8> {
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
    query_with(id, name, [1, 0], &[])
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
fn an_answer_that_comes_during_a_flush_is_not_cached() {
    let mut bench = Bench::new();
    let question = query(0, "www.example");
    let key = message::Query::parse(&question).expect("a query").key();
    let key = key.expect("a key");
    // The flush meets the answer at a different moment in each turn.
    for turn in 0..2000 {
        let queries = bench.handle_all(std::slice::from_ref(&question));
        let answer = answer(&queries[0], 300);
        bench.advance(1.0);
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                (0..turn).for_each(|_| spin_loop());
                bench.completer.flush(bench.now)
            });
            start.wait();
            bench.complete(&queries[0], Ok(&answer));
        });
        let hit = bench.completer.cache().servable(&key, bench.now);
        assert!(hit.is_none());
        bench.expect_codes(&[(0, NOERROR)]);
    }
}

#[test]
fn equal_questions_are_sent_once_and_each_client_gets_its_own_answer() {
    let bench = Bench::new();
    let asked = [
        query_with(1, "www.example", [1, 0], &[]),
        query_with(2, "wWw.Example", [1, 0x20], &[]),
        query_with(3, "WWW.EXAMPLE", [1, 0], &opt(0)),
    ];
    let first = bench.handle_all(&asked[..2]);
    assert_eq!(first.len(), 1, "of one batch");
    assert!(
        bench.handle_all(&asked[2..]).is_empty(),
        "of different batches"
    );
    assert_eq!(first[0].clients().waiter_count(), 3);
    bench.complete(&first[0], Ok(&answer(&first[0], 300)));
    let mut received: Vec<_> = asked.iter().map(|_| bench.receive()).collect();
    received.sort();
    for (received, asked) in received.iter().zip(&asked) {
        let end = 12 + first[0].question().len();
        assert_eq!(received[..2], asked[..2], "its ID");
        assert_eq!(received[12..end], asked[12..end], "its spelling");
        assert_eq!(received[3] & 0x20, asked[3] & 0x20, "AD if it asked");
        assert_eq!(received[10..12], asked[10..12], "an OPT if it sent one");
    }
    assert_eq!(bench.count(Outcome::Answered), 3);
    assert_eq!(bench.completer.queries_in_flight(), 0);
    // Now the answer is cached.
    assert!(bench.handle_all(&asked).is_empty());
    let mut again: Vec<_> = asked.iter().map(|_| bench.receive()).collect();
    again.sort();
    assert_eq!(again, received);
    assert_eq!(bench.count(Outcome::Cached), 3);
}

#[test]
fn a_reply_that_the_kernel_refuses_is_neither_answered_nor_good() {
    let mut bench = Bench::new();
    bench.cache_answer(300);
    let good = |bench: &Bench| bench.completer.counts().slo_good();
    assert_eq!((bench.count(Outcome::Answered), good(&bench)), (1, 1));
    // An address that this host does not have is refused as a source.
    bench.local = Some(LocalAddress {
        address: [192, 0, 2, 1].into(),
        interface: 0,
    });
    let dispatch = |bench: &Bench, queries: &[Vec<u8>]| {
        let mut batch = bench.handle(queries);
        bench.forwarder.dispatch(&mut batch, bench.now);
    };
    dispatch(&bench, &[query(1, "www.example"), query(2, "localhost")]);
    let queries = bench.handle_all(&[query(3, "other.example"), query(4, "bad.example")]);
    bench.complete(&queries[0], Ok(&answer(&queries[0], 300)));
    bench.complete(&queries[1], Err(Failure::TimedOut));
    bench.assert_silent();
    for (outcome, sent, unsent) in [
        (Outcome::Answered, 1, 1),
        (Outcome::Cached, 0, 1),
        (Outcome::Local, 0, 1),
        (Outcome::TimedOut, 0, 1),
    ] {
        assert_eq!(bench.count(outcome), sent, "{}", outcome.name());
        let counted = bench.completer.counts().counted_and_unsent(outcome);
        assert_eq!(counted, (sent + unsent, unsent), "{}", outcome.name());
    }
    assert_eq!(bench.count(Outcome::NotSent), 4);
    assert_eq!(good(&bench), 1);
    // The next one that leaves counts.
    bench.local = None;
    dispatch(&bench, &[query(5, "www.example")]);
    bench.expect_codes(&[(5, NOERROR)]);
    assert_eq!((bench.count(Outcome::Cached), good(&bench)), (1, 2));
}

#[test]
fn different_questions_and_unshared_ones_are_sent_apart() {
    let bench = Bench::new();
    let tsig = [&[0][..], &[0, 250, 0, 255], &[0; 6]].concat();
    let asked = [
        query(1, "www.example"),
        query(2, "www.example.org"),
        query_with(3, "www.example", [1, 0x10], &[]),
        query_with(4, "www.example", [1, 0], &opt(0x80)),
        query_with(5, "www.example", [0, 0], &[]),
        query_with(6, "www.example", [0, 0], &[]),
        query_with(7, "www.example", [1, 0], &tsig),
        query_with(8, "www.example", [1, 0], &tsig),
    ];
    let queries = bench.handle_all(&asked);
    assert_eq!(queries.len(), asked.len());
    for query in &queries {
        bench.complete(query, Ok(&answer(query, 300)));
    }
    let mut ids: Vec<_> = asked
        .iter()
        .map(|_| id_and_code(&bench.receive()).0)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
    // The shared answers are cached now, the others are asked for again.
    assert_eq!(bench.handle_all(&asked).len(), 4);
}

#[test]
fn each_client_has_its_own_deadline() {
    for answered in [true, false] {
        let mut bench = Bench::new();
        let in_flight = bench.handle_all(&[query(1, "www.example")]);
        bench.advance(1.4);
        assert!(bench.handle_all(&[query(2, "www.example")]).is_empty());
        bench.advance(1.5);
        assert!(in_flight[0].due() > bench.now);
        bench.advance(0.1);
        assert!(in_flight[0].due() <= bench.now && in_flight[0].deadline() > bench.now);
        bench.serve_due_waiters(&in_flight[0]);
        bench.expect_codes(&[(1, SERVFAIL)]);
        assert!(in_flight[0].due() > bench.now);
        if answered {
            bench.advance(1.0);
            bench.complete(&in_flight[0], Ok(&answer(&in_flight[0], 300)));
            bench.expect_codes(&[(2, NOERROR)]);
        } else {
            bench.advance(1.4);
            assert!(in_flight[0].deadline() <= bench.now);
            bench.complete(&in_flight[0], Err(Failure::TimedOut));
            bench.expect_codes(&[(2, SERVFAIL)]);
            assert_eq!(bench.count(Outcome::TimedOut), 2);
        }
        assert_eq!(bench.completer.queries_in_flight(), 0);
    }
}

#[test]
fn a_late_client_sends_a_new_query_that_takes_over_all_clients() {
    let begin = || {
        let mut bench = Bench::new();
        let first = bench.handle_all(&[query(1, "www.example")]);
        bench.advance(1.0);
        bench.handle_all(&[query(2, "WWW.example")]);
        bench.advance(0.5);
        let second = bench.handle_all(&[query(3, "www.EXAMPLE")]);
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_eq!(second[0].clients().waiter_count(), 3);
        (bench, Arc::clone(&first[0]), Arc::clone(&second[0]))
    };
    let all = [(1, NOERROR), (2, NOERROR), (3, NOERROR)];
    // Either query brings the answer for all clients.
    let (bench, first, second) = begin();
    bench.complete(&first, Ok(&answer(&first, 0)));
    bench.expect_codes(&all);
    bench.complete(&second, Ok(&answer(&second, 0)));
    bench.assert_silent();
    let (bench, first, second) = begin();
    bench.complete(&second, Ok(&answer(&second, 0)));
    bench.expect_codes(&all);
    bench.complete(&first, Ok(&answer(&first, 0)));
    bench.assert_silent();
    // The first query's failure does not count while the second is in flight.
    let (mut bench, first, second) = begin();
    bench.complete(&first, Err(Failure::ConnectionLost));
    bench.assert_silent();
    assert!(
        bench.handle_all(&[query(4, "www.example")]).is_empty(),
        "it joins"
    );
    for (seconds, id) in [(1.5, 1), (1.0, 2)] {
        bench.advance(seconds);
        assert!(second.due() <= bench.now && second.deadline() > bench.now);
        bench.serve_due_waiters(&second);
        bench.expect_codes(&[(id, SERVFAIL)]);
    }
    bench.advance(0.5);
    assert!(second.deadline() <= bench.now);
    bench.complete(&second, Err(Failure::TimedOut));
    bench.expect_codes(&[(3, SERVFAIL), (4, SERVFAIL)]);
    assert_eq!(bench.completer.queries_in_flight(), 0);
}

#[test]
fn a_name_that_timed_out_fails_for_a_second() {
    let mut bench = Bench::new();
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    bench.advance(1.0);
    bench.handle_all(&[query(2, "www.example")]);
    bench.advance(2.0);
    bench.serve_due_waiters(&in_flight[0]);
    bench.expect_codes(&[(1, SERVFAIL)]);
    assert!(bench.handle_all(&[query(3, "www.example")]).is_empty());
    bench.expect_codes(&[(3, SERVFAIL)]);
    assert_eq!(bench.count(Outcome::CachedFailure), 1);
    bench.advance(1.0);
    bench.complete(&in_flight[0], Err(Failure::TimedOut));
    bench.expect_codes(&[(2, SERVFAIL)]);
    assert_eq!(
        bench.handle_all(&[query(4, "www.example")]).len(),
        1,
        "the second failure is the first"
    );
}

#[test]
fn the_upstream_rate_limit_fails_new_queries_and_none_in_flight() {
    let rate = Rate {
        per_second: 1,
        burst: 1,
    };
    let mut bench = Bench::with_upstream_rate(100, Duration::from_secs(1), Some(rate));
    let first = bench.handle_all(&[query(1, "www.example")]);
    bench.advance(0.6);
    assert!(bench.handle_all(&[query(2, "other.example")]).is_empty());
    bench.expect_codes(&[(2, SERVFAIL)]);
    assert!(bench.handle_all(&[query(3, "www.example")]).is_empty());
    bench.assert_silent();
    bench.complete(&first[0], Ok(&answer(&first[0], 0)));
    bench.expect_codes(&[(1, NOERROR), (3, NOERROR)]);
    assert_eq!(bench.count(Outcome::Overloaded), 1);
    bench.advance(0.5);
    assert_eq!(bench.handle_all(&[query(4, "other.example")]).len(), 1);
}

#[test]
fn overload_is_answered_but_not_while_datagrams_are_dropped() {
    let bench = Bench::with(1, TIMEOUT);
    bench.cache_answer(300);
    assert_eq!(bench.handle_all(&[query(1, "slow.example")]).len(), 1);
    for (quiet, answered) in [
        (false, &[(2, SERVFAIL), (3, NOERROR)][..]),
        (true, &[(3, NOERROR)]),
    ] {
        let mut batch = Batch::default();
        batch.set_quiet_overload(quiet);
        bench.handle_into(
            &mut batch,
            &[query(2, "other.example"), query(3, "www.example")],
        );
        assert!(bench.coalesce(batch).is_empty());
        bench.expect_codes(answered);
    }
    assert_eq!(bench.count(Outcome::Overloaded), 2);
}

#[test]
fn an_expired_answer_is_served_under_overload() {
    let mut bench = Bench::with(2, TIMEOUT);
    bench.cache_answer(100);
    bench.advance(100.0);
    let ids: Vec<_> = (1..5).map(|id| query(id, "www.example")).collect();
    let in_flight = bench.handle_all(&ids);
    bench.expect_codes(&[(3, NOERROR), (4, NOERROR)]);
    bench.complete(&in_flight[0], Ok(&answer(&in_flight[0], 100)));
    bench.expect_codes(&[(1, NOERROR), (2, NOERROR)]);
}

#[test]
fn a_client_that_joins_after_the_stale_answer_neither_waits_nor_extends_the_query() {
    let mut bench = Bench::new();
    bench.cache_answer(100);
    bench.advance(100.0);
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    bench.advance(1.5);
    bench.serve_due_waiters(&in_flight[0]);
    bench.expect_codes(&[(1, NOERROR)]);
    bench.advance(1.4);
    assert!(bench.handle_all(&[query(2, "www.example")]).is_empty());
    bench.expect_codes(&[(2, NOERROR)]);
    bench.advance(0.1);
    assert!(
        in_flight[0].deadline() <= bench.now,
        "nobody waits for it any more"
    );
    bench.complete(&in_flight[0], Err(Failure::TimedOut));
    assert!(bench.handle_all(&[query(3, "www.example")]).is_empty());
    bench.expect_codes(&[(3, NOERROR)]);
    // The answer is asked for again, but no client waits after a failed refresh.
    bench.advance(30.0);
    let again = bench.handle_all(&[query(4, "www.example"), query(5, "www.example")]);
    assert_eq!((again.len(), again[0].clients().waiter_count()), (1, 0));
    bench.expect_codes(&[(4, NOERROR), (5, NOERROR)]);
    assert_eq!(bench.count(Outcome::Stale), 5);
}

#[test]
fn a_client_that_joins_just_before_the_stale_answer_gets_it_in_time() {
    let mut bench = Bench::new();
    bench.cache_answer(100);
    bench.advance(100.0);
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    bench.advance(1.499);
    let batch = bench.handle(&[query(2, "www.example")]);
    let asked_at = bench.now;
    // The timer comes first.
    bench.advance(0.001);
    bench.serve_due_waiters(&in_flight[0]);
    bench.expect_codes(&[(1, NOERROR)]);
    bench.now = asked_at;
    assert!(bench.coalesce(batch).is_empty());
    bench.advance(0.001);
    assert!(in_flight[0].due() <= bench.now);
    bench.serve_due_waiters(&in_flight[0]);
    bench.expect_codes(&[(2, NOERROR)]);
}

#[test]
fn a_suspend_takes_no_clients_time() {
    let mut bench = Bench::new();
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    let pause = Duration::from_secs(8 * 3600);
    bench.now += pause;
    in_flight[0].extend(pause);
    bench.advance(2.9);
    assert!(in_flight[0].due() > bench.now && in_flight[0].deadline() > bench.now);
    bench.advance(0.1);
    assert!(in_flight[0].deadline() <= bench.now);
}

#[test]
fn a_query_that_fails_fails_for_all_its_clients() {
    for (result, code, outcome) in [
        (Err(Failure::TimedOut), SERVFAIL, Outcome::TimedOut),
        (Err(Failure::Unreachable), SERVFAIL, Outcome::Unreachable),
        (
            Err(Failure::Unauthenticated),
            SERVFAIL,
            Outcome::Unauthenticated,
        ),
        (
            Err(Failure::MalformedResponse),
            SERVFAIL,
            Outcome::MalformedResponse,
        ),
        (Ok(2), 2, Outcome::Answered),
        (Ok(5), 5, Outcome::Answered),
    ] {
        let bench = Bench::new();
        let in_flight = bench.handle_all(&[query(1, "www.example"), query(2, "www.EXAMPLE")]);
        let message = result.map(|rcode| error(&in_flight[0], rcode));
        bench.complete(
            &in_flight[0],
            message.as_deref().map_err(|failure| *failure),
        );
        bench.expect_codes(&[(1, code), (2, code)]);
        assert_eq!(bench.count(outcome), 2);
        assert_eq!(bench.completer.queries_in_flight(), 0);
    }
}

#[test]
fn an_answer_that_comes_between_lookup_and_sending_is_not_asked_for_again() {
    let bench = Bench::new();
    let first = bench.handle_all(&[query(1, "www.example")]);
    let batch = bench.handle(&[query(2, "www.example")]);
    bench.complete(&first[0], Ok(&answer(&first[0], 300)));
    assert!(bench.coalesce(batch).is_empty());
    bench.expect_codes(&[(1, NOERROR), (2, NOERROR)]);
}

#[test]
fn no_more_queries_are_in_flight_than_the_quota_allows() {
    let bench = Bench::with(3, TIMEOUT);
    let names = [
        "a.example",
        "b.example",
        "a.example",
        "b.example",
        "a.example",
    ];
    let asked: Vec<_> = (1..).zip(names).map(|(id, name)| query(id, name)).collect();
    let queries = bench.handle_all(&asked);
    assert_eq!(queries.len(), 2);
    bench.expect_codes(&[(4, SERVFAIL), (5, SERVFAIL)]);
    for query in &queries {
        bench.complete(query, Ok(&answer(query, 300)));
    }
    bench.expect_codes(&[(1, NOERROR), (2, NOERROR), (3, NOERROR)]);
    assert_eq!(
        bench.handle_all(&[query(6, "c.example")]).len(),
        1,
        "there is room again"
    );
}

#[test]
fn an_expired_answer_goes_out_when_there_is_no_fresh_one_in_time() {
    for (timeout, stale_after) in [(3.0, 1.5), (5.0, 1.8), (60.0, 1.8), (0.1, 0.05)] {
        let mut bench = Bench::with(100, Duration::from_secs_f64(timeout));
        bench.cache_answer(100);
        bench.advance(100.0);
        let in_flight = bench.handle_all(&[query_with(1, "www.example", [1, 0], &opt(0))]);
        bench.assert_silent();
        bench.advance(stale_after - 0.001);
        assert!(in_flight[0].due() > bench.now);
        bench.advance(0.001);
        assert!(in_flight[0].due() <= bench.now);
        bench.serve_due_waiters(&in_flight[0]);
        let received = bench.receive();
        assert_eq!(id_and_code(&received), (1, NOERROR));
        assert!(received.ends_with(&[0, 15, 0, 2, 0, 3]), "Stale Answer");
        assert!(bench.handle_all(&[query(2, "www.example")]).is_empty());
        bench.expect_codes(&[(2, NOERROR)]);
        assert_eq!(bench.count(Outcome::Stale), 2, "the second at once");
        assert!(in_flight[0].due() > bench.now);
        bench.complete(&in_flight[0], Ok(&answer(&in_flight[0], 100)));
        bench.assert_silent();
        assert!(bench.handle_all(&[query(3, "www.example")]).is_empty());
        bench.expect_codes(&[(3, NOERROR)]);
        assert_eq!(bench.count(Outcome::Cached), 1, "what came late is kept");
    }
}

#[test]
fn an_expired_answer_goes_out_when_the_resolver_fails_and_then_at_once() {
    for result in [
        Err(Failure::Unreachable),
        Err(Failure::TimedOut),
        Ok(2),
        Ok(5),
    ] {
        let mut bench = Bench::new();
        bench.cache_answer(100);
        bench.advance(100.0);
        let in_flight = bench.handle_all(&[query(1, "www.example")]);
        let message = result.map(|rcode| error(&in_flight[0], rcode));
        bench.complete(
            &in_flight[0],
            message.as_deref().map_err(|failure| *failure),
        );
        bench.expect_codes(&[(1, NOERROR)]);
        bench.advance(29.9);
        assert!(bench.handle_all(&[query(2, "www.example")]).is_empty());
        bench.expect_codes(&[(2, NOERROR)]);
        assert_eq!(bench.count(Outcome::Stale), 2);
        bench.advance(0.1);
        assert_eq!(bench.handle_all(&[query(3, "www.example")]).len(), 1);
    }
}

#[test]
fn a_popular_answer_is_prefetched_while_it_is_served() {
    let mut bench = Bench::new();
    bench.cache_answer(100);
    bench.advance(80.0);
    assert!(
        bench
            .handle_all(&[query(1, "www.example"), query(2, "www.example")])
            .is_empty()
    );
    bench.expect_codes(&[(1, NOERROR), (2, NOERROR)]);
    bench.advance(15.0);
    let prefetch = bench.handle_all(&[query(3, "www.example"), query(4, "www.example")]);
    assert_eq!(prefetch.len(), 1, "once");
    bench.expect_codes(&[(3, NOERROR), (4, NOERROR)]);
    assert_eq!(prefetch[0].clients().waiter_count(), 0);
    bench.advance(1.0);
    bench.complete(&prefetch[0], Ok(&answer(&prefetch[0], 100)));
    bench.assert_silent();
    bench.advance(89.0);
    assert!(bench.handle_all(&[query(5, "www.example")]).is_empty());
    bench.expect_codes(&[(5, NOERROR)]);
    // The next answer expires during its prefetch: a client that asks then waits for that, but not for long.
    bench.advance(10.5);
    let prefetch = bench.handle_all(&[query(6, "www.example")]);
    bench.expect_codes(&[(6, NOERROR)]);
    assert_eq!(prefetch.len(), 1);
    bench.advance(0.5);
    assert!(bench.handle_all(&[query(7, "www.example")]).is_empty());
    bench.assert_silent();
    bench.advance(1.0);
    bench.serve_due_waiters(&prefetch[0]);
    bench.expect_codes(&[(7, NOERROR)]);
    assert_eq!(bench.count(Outcome::Stale), 1);
}

#[test]
fn a_cached_failure_is_answered_at_once() {
    let mut bench = Bench::new();
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    bench.complete(&in_flight[0], Ok(&error(&in_flight[0], SERVFAIL)));
    bench.expect_codes(&[(1, SERVFAIL)]);
    assert!(
        bench
            .handle_all(&[query_with(2, "www.example", [1, 0], &opt(0))])
            .is_empty()
    );
    let received = bench.receive();
    assert_eq!(id_and_code(&received), (2, SERVFAIL));
    assert!(received.ends_with(&[0, 15, 0, 2, 0, 13]), "Cached Error");
    bench.advance(1.0);
    assert_eq!(bench.handle_all(&[query(3, "www.example")]).len(), 1);
}

/// What happens to clients that ask over TCP.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A client asks for a name by this number.
    Query(usize, u8),
    /// The resolver answers the oldest query, with this many records.
    Answer(usize),
    /// The oldest query fails.
    Fail,
    /// A client reads this many octets.
    Read(usize, usize),
    /// A client closes its connection.
    Close(usize),
    /// Memory is needed elsewhere: slow readers lose their connections.
    NoMemory,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..CLIENTS, 0..12_u8).prop_map(|(client, name)| Event::Query(client, name)),
        3 => (0..4000_usize).prop_map(Event::Answer),
        1 => Just(Event::Fail),
        2 => (0..CLIENTS, 0..300_000_usize).prop_map(|(client, most)| Event::Read(client, most)),
        1 => (0..CLIENTS).prop_map(Event::Close),
        1 => Just(Event::NoMemory),
    ]
}

const CLIENTS: usize = 3;

/// TCP clients of a forwarder, and its queries in flight.
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
        let memory = Arc::clone(bench.completer.memory());
        let (slow_readers, _) = SlowReaders::new(
            memory,
            Arc::clone(&evictions),
            Arc::clone(bench.completer.counts().unsent_replies()),
        )
        .expect("a pipe");
        Self {
            bench,
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
            slow_readers,
            limit: ConnectionLimit::new(CLIENTS, evictions),
            clients: (0..CLIENTS).map(|_| None).collect(),
            pending: VecDeque::new(),
        }
    }

    /// The client at this index, which connects if it is not connected.
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
            // The last client at this index may still be waited for, but has given its slot back.
            let slot = limit.try_acquire().expect("a place");
            let slow_readers = Arc::clone(slow_readers);
            let connection = Connection::new(own, peer, slow_readers, slot, bench.now);
            (socket, connection)
        })
    }

    fn apply(&mut self, event: Event) {
        let now = self.bench.now;
        match event {
            Event::Query(at, name) => {
                let client = self.client(at).1.start_query(now);
                let mut batch = Batch::default();
                let query = query(u16::from(name), &format!("n{name}.example"));
                self.bench.forwarder.handle(&query, client, now, &mut batch);
                self.pending.extend(self.bench.coalesce(batch));
            }
            Event::Answer(records) => {
                if let Some(query) = self.pending.pop_front() {
                    let mut answer = answer(&query, 0);
                    let record = answer[answer.len() - 16..].to_vec();
                    answer.extend(record.repeat(records));
                    let count = u16::try_from(records + 1).expect("it was said so");
                    answer[6..8].copy_from_slice(&count.to_be_bytes());
                    self.bench.complete(&query, Ok(&answer));
                }
            }
            Event::Fail => {
                if let Some(query) = self.pending.pop_front() {
                    self.bench.complete(&query, Err(Failure::ConnectionLost));
                }
                self.bench.advance(2.0);
            }
            Event::Read(at, most) => {
                if let Some((socket, _)) = &mut self.clients[at] {
                    let _ = socket.read(&mut vec![0; most]);
                }
            }
            Event::Close(at) => {
                if let Some((_, connection)) = self.clients[at].take() {
                    connection.stream().close_over_memory();
                    connection.stream().drain_and_measure();
                }
                // The slot is given back once the client's queries have ended.
                while self.limit.in_use() > self.clients.iter().flatten().count() {
                    match self.pending.pop_front() {
                        Some(query) => self.bench.complete(&query, Err(Failure::ConnectionLost)),
                        None => break,
                    }
                }
            }
            Event::NoMemory => {
                let memory = self.bench.completer.memory();
                let share = memory.share_limit(Purpose::Replies);
                let slow_readers = Arc::clone(&self.slow_readers);
                let mut held = None;
                slow_readers.reserve(&mut held, share, self.client(0).1.stream());
            }
        }
    }

    fn assert_counts(&mut self) {
        let completer = &self.bench.completer;
        let memory = completer.memory();
        let pending: usize = self
            .pending
            .iter()
            .map(|query| query.reserved_octets())
            .sum();
        let held = pending + completer.in_flight.finished_octets();
        assert_eq!(memory.held(Purpose::Queries), held);
        let waiters: usize = self
            .pending
            .iter()
            .map(|query| query.clients().waiter_count())
            .sum();
        assert_eq!(completer.queries_in_flight(), waiters);
        let mut replies = 0;
        for (_, connection) in self.clients.iter().flatten() {
            let (octets, held) = connection.stream().drain_and_measure();
            assert_eq!(octets, held);
            replies += held;
        }
        assert_eq!(memory.held(Purpose::Replies), replies);
    }
}

/// A forwarder that refuses private addresses, except below `plex.direct`.
fn protected_bench() -> Bench {
    let bench = Bench::new();
    let allowed = "plex.direct".parse().expect("a name");
    let settings = Settings {
        rebind_protection: Some(RebindProtection::new([&allowed])),
        ..bench.forwarder.settings()
    };
    let upstreams = bench.forwarder.upstreams();
    bench.forwarder.reconfigure(settings, upstreams, bench.now);
    bench
}

/// The resolver's answer with a private address.
fn private_answer(query: &Query, ttl: u32) -> Vec<u8> {
    let mut answer = answer(query, ttl);
    let address = answer.len() - 4;
    answer[address..].copy_from_slice(&[192, 168, 0, 1]);
    answer
}

/// The EDE Blocked, at the end of a message.
const BLOCKED: &[u8] = b"\0\x0f\0\x0b\0\x0frebinding";

#[test]
fn a_private_address_is_refused_for_all_that_wait_and_from_the_cache() {
    let mut bench = protected_bench();
    let asked = [
        query(1, "www.example"),
        query_with(2, "WWW.Example", [1, 0], &opt(0)),
    ];
    let in_flight = bench.handle_all(&asked);
    assert_eq!(in_flight.len(), 1);
    bench.complete(&in_flight[0], Ok(&private_answer(&in_flight[0], 300)));
    let received = [bench.receive(), bench.receive()];
    assert!(received.iter().all(|reply| id_and_code(reply).1 == REFUSED));
    assert!(received.iter().any(|reply| reply.ends_with(BLOCKED)));
    assert_eq!(bench.completer.queries_in_flight(), 0);
    // From the cache, and in the words of the first time.
    assert!(bench.handle_all(&[asked[1].clone()]).is_empty());
    let again = bench.receive();
    assert_eq!(id_and_code(&again), (2, REFUSED));
    assert!(again.ends_with(BLOCKED));
    assert_eq!(bench.count(Outcome::Rebinding), 3);
    // After a while the resolver is asked again, and may have changed its mind.
    bench.advance(1.0);
    let in_flight = bench.handle_all(&asked[..1]);
    bench.complete(&in_flight[0], Ok(&answer(&in_flight[0], 300)));
    bench.expect_codes(&[(1, NOERROR)]);
    assert!(bench.handle_all(&asked[..1]).is_empty());
    bench.expect_codes(&[(1, NOERROR)]);
    assert_eq!(bench.count(Outcome::Cached), 1);
}

#[test]
fn an_allowed_name_may_have_a_private_address_and_so_may_all_without_protection() {
    for (bench, name) in [
        (protected_bench(), "a.Plex.direct"),
        (Bench::new(), "www.example"),
    ] {
        let in_flight = bench.handle_all(&[query(1, name)]);
        bench.complete(&in_flight[0], Ok(&private_answer(&in_flight[0], 300)));
        assert!(bench.handle_all(&[query(2, name)]).is_empty());
        bench.expect_codes(&[(1, NOERROR), (2, NOERROR)]);
    }
}

#[test]
fn the_memory_of_a_protected_query_serves_one_that_is_not() {
    let bench = protected_bench();
    for turn in 0..3 {
        for (name, code) in [("xplex.direct", REFUSED), ("plex.direct", NOERROR)] {
            // Unlike the turn before.
            let name = format!("{turn}.{name}");
            let in_flight = bench.handle_all(&[query(1, &name)]);
            bench.complete(&in_flight[0], Ok(&private_answer(&in_flight[0], 300)));
            bench.expect_codes(&[(1, code)]);
        }
    }
}

#[test]
fn no_expired_answer_stands_in_for_a_refused_one() {
    let mut bench = protected_bench();
    bench.cache_answer(100);
    bench.advance(200.0);
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    bench.complete(&in_flight[0], Ok(&private_answer(&in_flight[0], 0)));
    bench.expect_codes(&[(1, REFUSED)]);
    // Nor does it once the time of the refusal is over.
    bench.advance(1.0);
    let in_flight = bench.handle_all(&[query(2, "www.example")]);
    bench.complete(&in_flight[0], Err(Failure::TimedOut));
    bench.expect_codes(&[(2, SERVFAIL)]);
    assert_eq!(bench.count(Outcome::Stale), 0);
}

#[test]
fn a_prefetch_that_brings_a_private_address_ends_the_answer() {
    let mut bench = protected_bench();
    bench.cache_answer(100);
    bench.advance(95.0);
    let asked: Vec<_> = (1..=2).map(|id| query(id, "www.example")).collect();
    let prefetch = bench.handle_all(&asked);
    bench.expect_codes(&[(1, NOERROR), (2, NOERROR)]);
    assert_eq!(prefetch[0].clients().waiter_count(), 0);
    bench.complete(&prefetch[0], Ok(&private_answer(&prefetch[0], 300)));
    assert!(bench.handle_all(&[query(3, "www.example")]).is_empty());
    bench.expect_codes(&[(3, REFUSED)]);
}

#[test]
fn unshared_and_signed_queries_are_protected_too() {
    let bench = protected_bench();
    let tsig = [&[0][..], &[0, 250, 0, 255], &[0; 6]].concat();
    let asked = [
        query_with(1, "www.example", [0, 0], &[]),
        query_with(2, "www.example", [1, 0], &tsig),
    ];
    for query in bench.handle_all(&asked) {
        bench.complete(&query, Ok(&private_answer(&query, 300)));
    }
    bench.expect_codes(&[(1, REFUSED), (2, REFUSED)]);
    assert_eq!(bench.completer.cache().entries(), 0);
}

#[test]
fn a_refusal_that_comes_after_a_flush_is_not_cached() {
    let mut bench = protected_bench();
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    bench.advance(0.1);
    bench.completer.flush(bench.now);
    let newer = bench.handle_all(&[query(2, "www.example")]);
    assert_eq!(newer.len(), 1);
    bench.complete(&in_flight[0], Ok(&private_answer(&in_flight[0], 300)));
    bench.expect_codes(&[(1, REFUSED)]);
    bench.complete(&newer[0], Ok(&answer(&newer[0], 300)));
    bench.expect_codes(&[(2, NOERROR)]);
}

#[test]
fn a_refused_answer_also_ends_the_wait_of_clients_that_a_newer_query_has_taken_over() {
    let mut bench = protected_bench();
    let old = bench.handle_all(&[query(1, "www.example")]);
    bench.advance(TIMEOUT.as_secs_f64() / 2.0);
    let new = bench.handle_all(&[query(2, "www.example")]);
    assert_eq!(new.len(), 1, "sent anew");
    bench.complete(&old[0], Ok(&private_answer(&old[0], 300)));
    bench.expect_codes(&[(1, REFUSED), (2, REFUSED)]);
    assert_eq!(bench.completer.queries_in_flight(), 0);
}

#[test]
fn the_resolvers_failure_with_a_private_address_is_refused_too() {
    let bench = protected_bench();
    let in_flight = bench.handle_all(&[query(1, "www.example")]);
    let mut failure = private_answer(&in_flight[0], 300);
    failure[3] |= SERVFAIL;
    in_flight[0].keep_fallback(&failure);
    bench.complete(&in_flight[0], Err(Failure::TimedOut));
    bench.expect_codes(&[(1, REFUSED)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_memory_that_is_counted_is_the_memory_that_is_reserved(events in prop::collection::vec(event(), 0..60)) {
        let mut bench = TcpBench::new();
        for event in events {
            bench.apply(event);
            bench.assert_counts();
        }
        // When all queries have ended, no memory is reserved.
        while let Some(query) = bench.pending.pop_front() {
            bench.bench.complete(&query, Err(Failure::ConnectionLost));
        }
        for at in 0..CLIENTS {
            bench.apply(Event::Close(at));
        }
        bench.assert_counts();
        let completer = &bench.bench.completer;
        prop_assert_eq!(completer.memory().held(Purpose::Replies), 0);
        prop_assert_eq!(completer.memory().held(Purpose::Queries), completer.in_flight.finished_octets());
        prop_assert_eq!(completer.queries_in_flight(), 0);
        prop_assert!(completer.quota.is_empty());
        prop_assert_eq!(bench.limit.in_use(), 0);
    }
}
