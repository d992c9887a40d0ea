//! What a query costs in [`Forwarder::handle`], without sockets: parsed, looked for, answered or made ready to be sent.
//!
//! `cargo bench` prints the time of one query, as one thread sees it. With two threads it is the same as with one unless
//! they wait for each other. Replies are written, and dropped in place of being sent: a long answer, of which a datagram holds
//! only the advice to ask over TCP, costs at most twice as much as a short one. And what the worst answer costs to read that
//! a resolver can send.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use dns_tool::client::datagrams::DatagramSocket;
use dns_tool::client::destination::Client;
use dns_tool::client::reply_batch::ReplyBatch;
use dns_tool::config::command_line::{self, Command};
use dns_tool::forward::completion::QueryCompleter;
use dns_tool::forward::forwarder::{Batch, Forwarder};
use dns_tool::forward::in_flight::Query;
use dns_tool::forward::outcome::Outcome;
use dns_tool::forward::routes::Upstream;
use dns_tool::forward::routes::Upstreams;
use dns_tool::message::{self, Answer, ZoneMap};
use dns_tool::system::memory::Memory;
use dns_tool::upstream::Completer;

/// Names that are known.
const KNOWN: usize = 1000;
/// The name whose known answer has nearly 64 KiB.
const LONG: usize = 200 * KNOWN;
/// The name whose known answer has 60 kB of Extended DNS Errors.
const WITH_ERRORS: usize = LONG + 1;
/// Queries that a receive call brings.
const BATCH: usize = 32;

/// A query for the address of a name that follows from `number`, with an OPT.
fn query(number: usize) -> Vec<u8> {
    let mut message = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01".to_vec();
    let label = format!("n{number}");
    message.push(u8::try_from(label.len()).expect("a label fits"));
    message.extend_from_slice(label.as_bytes());
    message.extend_from_slice(b"\x07example\x03com\0\0\x01\0\x01");
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    message
}

/// Two addresses and an OPT.
fn answer(query: &[u8]) -> Vec<u8> {
    let (head, opt) = query.split_at(query.len() - 11);
    let record = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x01";
    let mut message = [head, record, record, opt].concat();
    message[2] |= 0x80;
    message[3] |= 0x80;
    message[7] = 2;
    message
}

/// An answer of nearly 64 KiB: as many addresses as there is room for, and an OPT.
fn long_answer(query: &[u8]) -> Vec<u8> {
    let (head, opt) = query.split_at(query.len() - 11);
    let record = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x01";
    let records = (message::MAX_MESSAGE_LEN - query.len()) / record.len();
    let mut message = [head, &record.repeat(records), opt].concat();
    message[2] |= 0x80;
    message[3] |= 0x80;
    let records = u16::try_from(records).expect("they are a few thousand");
    message[6..8].copy_from_slice(&records.to_be_bytes());
    message
}

/// Two addresses, and an OPT with 60 kB of Extended DNS Errors, each as short as it can be.
fn answer_with_errors(query: &[u8]) -> Vec<u8> {
    let mut message = answer(query);
    let errors = b"\0\x0f\0\x02\0\0".repeat(10_000);
    let length = u16::try_from(errors.len()).expect("it fits");
    message.truncate(message.len() - 2);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&errors);
    message
}

/// The answer that takes the longest to read of those of 64 KiB that we know: each of its names is a pointer to a chain of
/// as many pointers as are taken, and its OPT is not the last record, so that all behind it are looked at twice.
fn worst_answer() -> Vec<u8> {
    const LONGEST_CHAIN: usize = 126;
    let mut message = answer(&query(0));
    message.truncate(message.len() - 11 - 2 * 16);
    message[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    // What is in a record of an unknown type is looked at only by who follows a pointer there.
    let chain = u16::try_from(1 + 2 * LONGEST_CHAIN).expect("a few hundred octets");
    message.extend_from_slice(b"\0\xff\0\0\x01\0\0\0\0");
    message.extend_from_slice(&chain.to_be_bytes());
    let mut pointer = [0, 0];
    for link in 0..=LONGEST_CHAIN {
        let here = u16::try_from(message.len()).expect("a short message") | 0xc000;
        message.extend_from_slice(if link == 0 { &[0] } else { &pointer });
        pointer = here.to_be_bytes();
    }
    message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    let mut records = 1_u16;
    while message.len() + 14 <= message::MAX_MESSAGE_LEN {
        // A name server, at a name and with a name.
        message.extend_from_slice(&pointer);
        message.extend_from_slice(b"\0\x02\0\x01\0\0\0\0\0\x02");
        message.extend_from_slice(&pointer);
        records += 1;
    }
    message[10..12].copy_from_slice(&records.to_be_bytes());
    message
}

/// A query for a special-use name, which is answered without the cache.
fn special_query(number: usize) -> Vec<u8> {
    let mut message = query(number);
    let zone = message.windows(4).position(|octets| octets == b"\x03com");
    message.splice(
        zone.expect("a zone")..,
        *b"\x05local\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0",
    );
    message
}

struct Bench {
    completer: Arc<QueryCompleter>,
    forwarder: Arc<Forwarder>,
    client: SocketAddr,
}

impl Bench {
    /// With these options, none of which may have an upstream asked.
    fn new(options: &[String]) -> Self {
        let Ok(Command::Serve(config)) = command_line::parse(options) else {
            panic!("{options:?} are a command line");
        };
        let now = Instant::now();
        let completer = Arc::new(QueryCompleter::new(
            config.forwarder.cache,
            &Memory::new(config.memory),
            now,
        ));
        let mut replies = ReplyBatch::default();
        let known = (0..KNOWN).map(|number| (number, answer as fn(&[u8]) -> Vec<u8>));
        let large = [
            (LONG, long_answer as fn(&[u8]) -> Vec<u8>),
            (WITH_ERRORS, answer_with_errors),
        ];
        for (number, answer) in known.chain(large) {
            let message = query(number);
            let asked = message::Query::parse(&message).expect("a query");
            let asked = Query::new(&asked, asked.key().as_ref(), now, config.forwarder.timeout);
            let answer = answer(&message);
            let answer = Answer::parse(&answer).expect("an answer");
            completer.complete(&asked, Ok(&answer), now, &mut replies);
        }
        let upstream = Upstream::start(
            config.upstream,
            Arc::clone(&completer) as Arc<_>,
            Arc::default(),
        );
        let upstreams =
            Upstreams::new(upstream.expect("a thread"), Vec::new(), config.routes.zones);
        Self {
            completer: Arc::clone(&completer),
            forwarder: Arc::new(Forwarder::new(config.forwarder, upstreams, completer, now)),
            client: SocketAddr::from(([127, 0, 0, 1], 9)),
        }
    }

    /// How long `count` of these take.
    fn time(&self, messages: &[Vec<u8>], count: u64) -> Duration {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let socket = Arc::new(DatagramSocket::new(socket, Arc::default()));
        let mut messages = messages.iter().cycle();
        let mut left = usize::try_from(count).expect("it is countable");
        let began = Instant::now();
        while left > 0 {
            // What it gathers is dropped, not sent.
            let mut batch = Batch::default();
            for message in messages.by_ref().take(BATCH.min(left)) {
                let client = Client::Datagram {
                    socket: Arc::clone(&socket),
                    peer: self.client,
                    local: None,
                };
                self.forwarder.handle(message, client, began, &mut batch);
            }
            left = left.saturating_sub(BATCH);
        }
        began.elapsed()
    }

    /// How long `count` of them take each of so many threads.
    fn time_of_threads(&self, threads: usize, messages: &[Vec<u8>], count: u64) -> Duration {
        let times: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| self.time(messages, count)))
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            joined.map(|time| time.expect("no panic")).collect()
        });
        times.iter().sum::<Duration>() / u32::try_from(threads).expect("they are few")
    }
}

fn handle(criterion: &mut Criterion) {
    let bench = Bench::new(&[]);
    // As many as there may be below one name: one zone of all names that are asked for here, and others in it.
    let inner = (1..256).map(|number| format!("zone{number:03}.example.com=relay"));
    let routes = inner.chain(["example.com=relay".to_owned()]);
    let routes: Vec<_> = routes
        .flat_map(|route| ["--route".to_owned(), route])
        .collect();
    let routed = Bench::new(&routes);
    let hits: Vec<_> = (0..KNOWN).map(query).collect();
    let one: Vec<_> = vec![query(0)];
    let (long, with_errors) = (vec![query(LONG)], vec![query(WITH_ERRORS)]);
    let misses: Vec<_> = (KNOWN..100 * KNOWN).map(query).collect();
    let special: Vec<_> = (0..KNOWN).map(special_query).collect();
    for (name, threads, messages) in [
        ("hit", 1, &hits),
        ("hit, a route", 1, &hits),
        ("hit, 2 threads", 2, &hits),
        ("hit of one name", 1, &one),
        ("hit of one name, 2 threads", 2, &one),
        ("hit of a long answer", 1, &long),
        ("hit of an answer with many errors", 1, &with_errors),
        ("special-use name", 1, &special),
        ("miss", 1, &misses),
        ("miss, 2 threads", 2, &misses),
    ] {
        let bench = if name.ends_with("a route") {
            &routed
        } else {
            &bench
        };
        let count = |outcome| bench.completer.counts().count(outcome);
        let (cached, local) = (count(Outcome::Cached), count(Outcome::Local));
        let mut has_run = false;
        criterion.bench_function(name, |bencher| {
            has_run = true;
            bencher.iter_custom(|count| bench.time_of_threads(threads, messages, count));
        });
        // Not if the filter of the command line leaves it out.
        if !has_run {
            continue;
        }
        let is_known = count(Outcome::Cached) > cached;
        assert_eq!(is_known, name.starts_with("hit"), "{name}");
        let is_special = count(Outcome::Local) > local;
        assert_eq!(is_special, name == "special-use name", "{name}");
    }
}

fn parse(criterion: &mut Criterion) {
    let message = worst_answer();
    criterion.bench_function("the worst answer to read", |bencher| {
        bencher.iter(|| Answer::parse(&message).expect("a sound answer").rcode());
    });
    let asked = query(0);
    let key = message::Query::parse(&asked).expect("a query").key();
    let key = key.expect("one that may be shared");
    let worst = Answer::parse(&message).expect("a sound answer");
    criterion.bench_function("the worst answer to keep", |bencher| {
        bencher.iter(|| message::CachedAnswer::new(&worst, &key).map(|kept| kept.size()));
    });
}

/// What a route costs each query: in a map of as many zones as there may be, the search for a name of one of them, and for another one.
fn find_zone(criterion: &mut Criterion) {
    let mut zones = ZoneMap::default();
    zones.insert(b"\x07example\x03com\0", 0);
    for number in 1..256 {
        let zone = format!("\x07zone{number:03}\x07example\x03com\0");
        zones.insert(zone.as_bytes(), number);
    }
    for (name, octets) in [
        (
            "zone of a name",
            &b"\x03www\x07zone200\x07example\x03com\0"[..],
        ),
        ("zone above a name", b"\x03www\x04site\x07example\x03com\0"),
        ("no zone", b"\x03www\x07example\x03net\0"),
    ] {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| zones.find(std::hint::black_box(octets)).copied());
        });
    }
}

criterion_group!(benches, find_zone, handle, parse);
criterion_main!(benches);
