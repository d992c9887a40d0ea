//! Few sessions, many queries on each; answers are believed only when they match; a session that ends is replaced.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dns_tool::client::datagrams::DatagramSocket;
use dns_tool::client::destination::Client;
use dns_tool::client::reply_batch::ReplyBatch;
use dns_tool::forward::completion::QueryCompleter;
use dns_tool::forward::forwarder::{self, Batch};
use dns_tool::forward::in_flight::Query;
use dns_tool::forward::routes::Upstream;
use dns_tool::forward::routes::Upstreams;
use dns_tool::message::Answer;
use dns_tool::server::workers::WorkerPool;
use dns_tool::system::memory::Memory;
use dns_tool::system::{clock, thread};
use dns_tool::upstream::{Completer, Failure, Query as _};

use crate::support::message;
use crate::support::resolver::tls;
use crate::support::{
    Act, Ask, Chain, FakeResolver, Forwarder, Gate, Greeting, NAME, PANICS_MEANT, PATIENCE,
    UdpClient, config, pki, wait_until,
};

const SERVFAIL: u16 = 2;

/// A completer that panics at the first answer to one name.
struct Fragile {
    completer: Arc<QueryCompleter>,
    name: &'static [u8],
    broken: AtomicBool,
}

impl Completer<Query, ReplyBatch> for Fragile {
    fn complete(
        &self,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let fragile = query.question()[1..].starts_with(self.name);
        if fragile && !self.broken.swap(true, Ordering::Relaxed) {
            panic!("on purpose");
        }
        self.completer.complete(query, ending, now, replies);
    }

    fn resolver_recovered(&self, now: Instant) {
        self.completer.resolver_recovered(now);
    }

    fn serve_due_waiters(&self, query: &Query, now: Instant, replies: &mut ReplyBatch) {
        self.completer.serve_due_waiters(query, now, replies);
    }
}

#[test]
fn a_panic_at_one_answer_costs_that_answer_alone() {
    let resolver = FakeResolver::honest();
    let mut config = config(&[
        "--resolver-addr",
        &resolver.address().to_string(),
        "--resolver-fqdn",
        NAME,
        "--timeout",
        "20",
    ]);
    // However slow the machine is, there is one session.
    config.upstream.min_silence_timeout = PATIENCE;
    let panics = thread::panics();
    PANICS_MEANT.fetch_add(1, Ordering::SeqCst);
    let now = clock::now();
    let completer = Arc::new(QueryCompleter::new(
        config.forwarder.cache,
        &Memory::new(config.memory),
        now,
    ));
    let fragile = Arc::new(Fragile {
        completer: Arc::clone(&completer),
        name: b"fragile",
        broken: AtomicBool::new(false),
    });
    let upstream = Upstream::start(config.upstream, fragile, Arc::default()).expect("a thread");
    let upstreams = Upstreams::new(Arc::clone(&upstream), Vec::new(), Vec::new());
    let forwarder = forwarder::Forwarder::new(config.forwarder, upstreams, completer, now);
    let forwarder = Arc::new(forwarder);
    let pool = WorkerPool::new(Arc::clone(&forwarder), 1);
    let hands = Arc::downgrade(&pool);
    upstream.set_executor(hands);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let socket = Arc::new(DatagramSocket::new(socket, Arc::default()));
    let client = UdpClient::to(socket.socket().local_addr().expect("bound"));
    let ask_all = |names: &[&str]| {
        let mut batch = Batch::default();
        let asks: Vec<_> = (0..)
            .zip(names)
            .map(|(id, name)| Ask::a(id, name))
            .collect();
        for ask in &asks {
            client.send(&ask.octets());
            let mut octets = [0; 512];
            let (length, peer) = socket.socket().recv_from(&mut octets).expect("a query");
            let client = Client::Datagram {
                socket: Arc::clone(&socket),
                peer,
                local: None,
            };
            forwarder.handle(&octets[..length], client, clock::now(), &mut batch);
        }
        forwarder.dispatch(&mut batch, clock::now());
        for _ in &asks {
            let heard = client.hear();
            let ask = &asks[usize::from(heard.id())];
            if ask.name == "fragile.test" {
                heard.assert_error(ask, SERVFAIL);
            } else {
                heard.assert_answers(ask);
            }
        }
    };
    ask_all(&[
        "one.test",
        "two.test",
        "fragile.test",
        "four.test",
        "five.test",
    ]);
    assert!(thread::panics() > panics, "it is counted");
    ask_all(&["six.test", "seven.test"]);
    assert_eq!(resolver.connections(), 1, "the session lives on");
    // It waits until nobody has no answer.
    forwarder.drain(Duration::ZERO);
    upstream.stop();
    pool.stop();
}

#[test]
fn many_queries_share_one_session() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &[]);
    for id in 0..100 {
        let ask = Ask::a(id, &format!("n{id}.test"));
        forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    }
    assert_eq!(resolver.connections(), 1);
}

#[test]
fn ids_towards_the_resolver_are_our_own_and_random() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    for _ in 0..64 {
        forwarder.udp().ask(&Ask::a(7, "x.test").octets());
    }
    let ids: Vec<_> = resolver
        .queries()
        .iter()
        .map(|query| u16::from_be_bytes([query[0], query[1]]))
        .collect();
    let different: HashSet<_> = ids.iter().collect();
    // 64 of 65,536 collide once in 33 runs, and three times once in a hundred thousand.
    assert!(different.len() > 60, "{ids:?}");
    let steps: HashSet<_> = ids
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    assert!(steps.len() > 50, "no counter: {ids:?}");
}

#[test]
fn only_an_answer_that_matches_in_everything_is_delivered() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let right = message::answer(query);
        let wrong = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = right.clone();
            change(&mut message);
            // A wrong one that got through would show by its address.
            let end = message::question_end(&right);
            let address = end + 12;
            message[address..address + 4].copy_from_slice(&[6, 6, 6, 6]);
            Act::Send(message)
        };
        let end = message::question_end(query);
        vec![
            wrong(&|message| message[0] ^= 0x80),
            wrong(&|message| message[1] ^= 0x01),
            wrong(&|message| message[13] ^= 0x03),
            wrong(&|message| message[end - 3] ^= 0x01),
            wrong(&|message| message[end - 1] ^= 0x02),
            wrong(&|message| message[2] &= 0x7f),
            wrong(&|message| message[2] |= 0x08),
            wrong(&|message| message[5] = 0),
            wrong(&|message| message[5] = 2),
            Act::Send(right.clone()),
            wrong(&|_| {}),
            Act::Send(right.clone()),
        ]
    });
    let forwarder = Forwarder::patient(&resolver, &[]);
    let client = forwarder.udp();
    for id in 0..20 {
        let ask = Ask::a(id, &format!("name{id}.test"));
        client.ask(&ask.octets()).assert_answers(&ask);
    }
    assert!(client.is_silent(), "one answer each");
    assert_eq!(resolver.connections(), 1);
}

#[test]
fn an_answer_in_another_case_is_the_answer_and_the_client_gets_its_own_spelling() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let mut answer = message::answer(query);
        answer[12..message::question_end(query) - 4].make_ascii_lowercase();
        vec![Act::Send(answer)]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(1, "mIxEd.CaSe.TeSt");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
}

#[test]
fn a_session_that_ends_is_replaced_and_its_queries_are_asked_again() {
    let completer = [
        Act::Close,
        Act::Cut,
        Act::Reset,
        Act::Plaintext,
        Act::Raw(vec![0, 3, 1, 2, 3]),
    ];
    for ending in completer {
        let resolver = FakeResolver::honest();
        let first_time = AtomicBool::new(true);
        let how = ending.clone();
        resolver.serve(
            move |query| match first_time.swap(false, Ordering::SeqCst) {
                true => vec![how.clone()],
                false => vec![Act::Send(message::answer(query))],
            },
        );
        let forwarder = Forwarder::patient(&resolver, &[]);
        let client = forwarder.udp();
        for id in 0..3 {
            let ask = Ask::a(id, "x.test");
            client.ask(&ask.octets()).assert_answers(&ask);
        }
        assert!(client.is_silent(), "{ending:?}: one answer each");
        assert_eq!(resolver.connections(), 2, "{ending:?}");
    }
}

#[test]
fn a_query_is_sent_three_times_at_most() {
    let resolver = FakeResolver::honest();
    resolver.serve(|_| vec![Act::Close]);
    let forwarder = Forwarder::patient(&resolver, &[]);
    let ask = Ask::a(1, "x.test");
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, SERVFAIL);
    assert_eq!(resolver.queries().len(), 3);
}

#[test]
fn half_an_answer_is_never_delivered() {
    for ending in [Act::Close, Act::Cut, Act::Reset] {
        let resolver = FakeResolver::honest();
        resolver.serve(move |query| {
            let mut framed = crate::support::client::framed(&[message::answer(query)]);
            framed.truncate(framed.len() - 3);
            vec![Act::Raw(framed), ending.clone()]
        });
        let forwarder = Forwarder::before(&resolver, &[]);
        let ask = Ask::a(1, "x.test");
        forwarder
            .udp()
            .ask(&ask.octets())
            .assert_error(&ask, SERVFAIL);
    }
}

#[test]
fn a_dribbled_answer_arrives_or_ends_at_the_deadline() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        vec![Act::Dribble(
            message::answer(query),
            Duration::from_millis(1),
        )]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    resolver.serve(|query| {
        vec![Act::Dribble(
            message::answer(query),
            Duration::from_millis(50),
        )]
    });
    let hasty = Forwarder::before(&resolver, &["--timeout", "0.4"]);
    hasty.udp().ask(&ask.octets()).assert_error(&ask, SERVFAIL);
}

#[test]
fn a_dribbled_handshake_ends_at_the_deadline() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Dribble(Duration::from_millis(20)));
    let forwarder = Forwarder::before(&resolver, &["--timeout", "0.4"]);
    let ask = Ask::a(1, "x.test");
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, SERVFAIL);
    assert!(resolver.queries().is_empty());
}

#[test]
fn a_session_that_went_silent_is_left() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--timeout", "0.3"]);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test");
    client.ask(&ask.octets()).assert_answers(&ask);
    resolver.serve(|_| Vec::new());
    client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
    resolver.serve(|query| vec![Act::Send(message::answer(query))]);
    wait_until("an answer on a new session", || {
        client.ask(&ask.octets()).rcode() == 0
    });
    let connections = resolver.connections();
    assert!((2..=4).contains(&connections), "{connections} connections");
}

#[test]
fn a_new_session_is_resumed_with_a_ticket() {
    let versions: [&'static rustls::SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];
    for version in versions {
        let resolver = FakeResolver::with_tls(tls(&pki().honest(), &[version], &[b"dot"]));
        let forwarder = Forwarder::before(&resolver, &[]);
        for id in 0..5 {
            let ask = Ask::a(id, "x.test");
            forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
            resolver.hang_up();
        }
        assert!(resolver.connections() >= 5);
        assert_eq!(
            resolver.resumed(),
            resolver.handshakes() - 1,
            "all but the first"
        );
    }
}

#[test]
fn a_resolver_with_another_alpn_or_none_serves() {
    let resolver = FakeResolver::with_tls(tls(&pki().honest(), &[&rustls::version::TLS13], &[]));
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
}

#[test]
fn names_reach_the_resolver_in_no_clear_octet() {
    const NAME: &str = "needle-in-the-haystack.test";
    let resolver = FakeResolver::honest();
    for greeting in [
        Greeting::Shake,
        Greeting::Garbage,
        Greeting::Close,
        Greeting::Reset,
        Greeting::ShakeAndClose,
    ] {
        resolver.greet(greeting);
        let forwarder = Forwarder::before(&resolver, &[]);
        let heard = forwarder.udp().ask(&Ask::a(1, NAME).octets());
        assert_eq!(
            heard.rcode() == 0,
            greeting == Greeting::Shake,
            "{greeting:?}"
        );
    }
    assert!(!resolver.saw_in_clear(b"needle"));
    assert!(
        resolver.saw_in_clear(crate::support::NAME.as_bytes()),
        "the test can see what is in the clear"
    );
}

#[test]
fn a_mute_address_leaves_time_for_the_next() {
    let (mute, honest) = (FakeResolver::honest(), FakeResolver::honest());
    mute.greet(Greeting::Close);
    let forwarder = Forwarder::patient(&mute, &["--resolver-addr", &honest.address().to_string()]);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    assert_eq!(honest.queries().len(), 1);
}

#[test]
fn an_address_that_uses_up_the_time_is_not_the_first_the_next_time() {
    let (mute, honest) = (FakeResolver::honest(), FakeResolver::honest());
    mute.greet(Greeting::Mute);
    let forwarder = Forwarder::before(
        &mute,
        &[
            "--resolver-addr",
            &honest.address().to_string(),
            "--timeout",
            "0.3",
            // It tries one hello.
            "--key-exchange",
            "classical",
        ],
    );
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test");
    wait_until("an answer", || client.ask(&ask.octets()).rcode() == 0);
    // Once more if all that took longer than it is left alone for.
    assert!((1..=2).contains(&mute.connections()));
}

#[test]
fn a_further_resolver_serves_under_its_own_name_when_the_first_is_away() {
    let first = FakeResolver::honest();
    first.greet(Greeting::Reset);
    let second: Chain = pki().chain(&["second.test"], |_| {});
    let second = FakeResolver::with_chain(&second);
    let further = format!("{}#second.test", second.address());
    let forwarder = Forwarder::before(&first, &["--resolver", &further]);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    let wrong = format!("{}#third.test", second.address());
    let forwarder = Forwarder::before(&first, &["--resolver", &wrong]);
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, SERVFAIL);
}

#[test]
fn a_resolver_is_up_once_it_answers_and_not_when_it_shakes_hands() {
    let resolver = FakeResolver::honest();
    let gate = Gate::default();
    let held = gate.clone();
    resolver.serve(move |query| vec![Act::Held(held.clone(), message::answer(query))]);
    let forwarder = Forwarder::patient(&resolver, &[]);
    let has_said = |event: &str| {
        let lines = resolver.log(::log::Level::Info);
        lines.iter().any(|line| line.contains(event))
    };
    wait_until("a session", || has_said("event=resolver-connected"));
    let (client, ask) = (forwarder.udp(), Ask::a(1, "x.test"));
    client.send(&ask.octets());
    resolver.wait_for_queries(1);
    assert!(!has_said("event=resolver-up"));
    gate.open();
    client.hear().assert_answers(&ask);
    wait_until("the line", || has_said("event=resolver-up"));
}

/// Asks for several names at once, again and again, until the log says that the resolver does not answer.
fn ask_until_outage(resolver: &FakeResolver, forwarder: &Forwarder) {
    let client = forwarder.udp();
    let mut id = 0;
    wait_until("the line of the outage", || {
        let asks = (0..4).map(|name| Ask::a(id + name, &format!("n{}.test", id + name)));
        let asks: Vec<_> = asks.collect();
        asks.iter().for_each(|ask| client.send(&ask.octets()));
        asks.iter()
            .for_each(|_| assert_eq!(client.hear().rcode(), 2));
        id += 4;
        !said(resolver, "event=resolver-not-answering").is_empty()
    });
}

/// The lines about a resolver with this event.
fn said(resolver: &FakeResolver, event: &str) -> Vec<String> {
    let mut lines = resolver.log(::log::Level::Info);
    lines.retain(|line| line.starts_with(event));
    lines
}

#[test]
fn a_silent_resolver_is_an_outage_that_is_said_once_and_its_end_too() {
    let resolver = FakeResolver::honest();
    resolver.serve(|_| Vec::new());
    let forwarder = Forwarder::before(&resolver, &["--timeout", "1"]);
    ask_until_outage(&resolver, &forwarder);
    let client = forwarder.udp();
    let ask = Ask::a(1, "another.test");
    client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
    let lines = said(&resolver, "event=resolver-not-answering");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [
        &format!("name={NAME} cause="),
        " since=20",
        " outage_seconds=",
    ] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    assert!(said(&resolver, "event=resolver-up").is_empty());
    resolver.serve(|query| vec![Act::Send(message::answer(query))]);
    let ask = Ask::a(2, "last.test");
    wait_until("an answer", || client.ask(&ask.octets()).rcode() == 0);
    wait_until("the line", || {
        !said(&resolver, "event=resolver-up").is_empty()
    });
    let up = said(&resolver, "event=resolver-up");
    let failed = up[0].split_once(" queries_failed=").expect("the number").1;
    assert!(
        failed.parse::<u64>().is_ok_and(|failed| failed >= 5),
        "{up:?}"
    );
    assert!(
        up[0].contains(" tls=") && up[0].contains(" outage_seconds="),
        "{up:?}"
    );
}

#[test]
fn a_resolver_that_closes_at_every_query_is_an_outage_and_not_up() {
    let resolver = FakeResolver::honest();
    resolver.serve(|_| vec![Act::Close]);
    let forwarder = Forwarder::before(&resolver, &["--timeout", "1"]);
    ask_until_outage(&resolver, &forwarder);
    // It opens sessions again, and that is no news.
    let connected = said(&resolver, "event=resolver-connected").len();
    let (handshakes, client) = (resolver.handshakes(), forwarder.udp());
    let mut id = 100;
    wait_until("another session", || {
        let ask = Ask::a(id, &format!("n{id}.test"));
        id += 1;
        client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
        resolver.handshakes() > handshakes + 1
    });
    assert_eq!(said(&resolver, "event=resolver-connected").len(), connected);
    assert!(said(&resolver, "event=resolver-up").is_empty());
}

#[test]
fn the_end_of_an_outage_says_how_many_queries_failed() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Close);
    let forwarder = Forwarder::before(&resolver, &[]);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test");
    client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
    resolver.greet(Greeting::Shake);
    let ask = Ask::a(2, "y.test");
    wait_until("an answer", || client.ask(&ask.octets()).rcode() == 0);
    wait_until("the line", || {
        !said(&resolver, "event=resolver-up").is_empty()
    });
    let up = said(&resolver, "event=resolver-up");
    assert!(
        up[0].contains(" since=20") && up[0].contains(" queries_failed="),
        "{up:?}"
    );
    // No outage, no word of one.
    let well = FakeResolver::honest();
    let forwarder = Forwarder::before(&well, &[]);
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    wait_until("the line", || !said(&well, "event=resolver-up").is_empty());
    assert!(!said(&well, "event=resolver-up")[0].contains("outage"));
}

#[test]
fn an_outage_is_said_once_and_no_attempt_is_made_for_every_query() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Close);
    let forwarder = Forwarder::before(&resolver, &[]);
    let client = forwarder.udp();
    for id in 0..200 {
        let ask = Ask::a(id, "x.test");
        client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
    }
    assert!(
        resolver.connections() < 100,
        "{} attempts",
        resolver.connections()
    );
    let warnings = resolver.log(::log::Level::Warn);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("event=resolver-unreachable"),
        "{warnings:?}"
    );
}
