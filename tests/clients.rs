//! Who may ask, and how much.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::support::message::Edns;
use crate::support::process::Process;
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, TcpClient, UdpClient, message, wait_until,
};
use dns_tool::forward::outcome::Outcome;

const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;

fn edns() -> Edns {
    Edns {
        size: 1232,
        ..Edns::default()
    }
}

/// A client on another address of this host.
fn client_at(address: [u8; 4], forwarder: &Forwarder) -> UdpClient {
    UdpClient::from(SocketAddr::from((address, 0)), forwarder.address())
}

#[test]
fn who_is_not_allowed_is_refused_with_the_reason_and_reaches_no_resolver() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(
        &resolver,
        &["--allow", "127.0.0.2", "--allow", "192.0.2.0/24"],
    );
    let ask = Ask::a(1, "x.test").with_edns(Edns {
        options: vec![(10, vec![7; 8])],
        ..edns()
    });
    let heard = forwarder.udp().ask(&ask.octets());
    heard.assert_error(&ask, REFUSED);
    assert_eq!(heard.extended_error(), Some(18), "Prohibited");
    forwarder
        .tcp()
        .ask(&ask.octets())
        .assert_error(&ask, REFUSED);
    let short = Ask::a(2, "x.test").with_edns(edns());
    let heard = forwarder.udp().ask(&short.octets());
    assert!(
        heard.octets.len() <= short.octets().len(),
        "no longer than the query"
    );
    assert!(resolver.queries().is_empty());
    client_at([127, 0, 0, 2], &forwarder)
        .ask(&ask.octets())
        .assert_answers(&ask);
    assert_eq!(forwarder.running().count(Outcome::Denied), 3);
}

#[test]
fn who_asks_too_much_over_udp_is_dropped_or_told_to_come_by_tcp() {
    const COUNT: u16 = 100;
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--rate-limit", "1/10"]);
    let client = forwarder.udp();
    for id in 0..COUNT {
        client.send(&Ask::a(id, &format!("n{id}.test")).octets());
    }
    let ended = || {
        let count = |outcome| forwarder.running().count(outcome);
        (
            count(Outcome::Answered),
            count(Outcome::RateLimited),
            count(Outcome::Dropped),
        )
    };
    wait_until("all to have ended", || {
        let (answered, told, dropped) = ended();
        answered + told + dropped == u64::from(COUNT)
    });
    let (answered, told, dropped) = ended();
    assert!((10..20).contains(&answered), "{answered} answered");
    assert!(
        told.abs_diff(dropped) <= 1,
        "{told} told, {dropped} dropped"
    );
    let heard: Vec<_> = (0..answered + told).map(|_| client.hear()).collect();
    let cut = heard.iter().filter(|heard| heard.is_truncated());
    assert_eq!(cut.count() as u64, told);
    for heard in heard.iter().filter(|heard| heard.is_truncated()) {
        assert_eq!((heard.rcode(), heard.counts()), (0, [1, 0, 0, 0]));
    }
    // Somebody else is served.
    let ask = Ask::a(1, "x.test");
    client_at([127, 0, 0, 9], &forwarder)
        .ask(&ask.octets())
        .assert_answers(&ask);
}

#[test]
fn who_asks_too_much_over_tcp_is_refused_and_served_again_later() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--rate-limit", "1/10"]);
    let mut client = forwarder.tcp();
    let asks: Vec<_> = (0..30)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    client.send(&asks.iter().map(Ask::octets).collect::<Vec<_>>());
    let refused = asks.iter().filter(|_| client.hear().rcode() == 5).count();
    assert!((15..=20).contains(&refused), "{refused} refused");
    let ask = Ask::a(99, "x.test");
    wait_until("its rate to allow more", || {
        client.ask(&ask.octets()).rcode() == 0
    });
}

#[test]
fn programs_on_this_host_have_no_limit_by_default() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--cache-size", "8388608"]);
    let mut client = forwarder.tcp();
    let asks: Vec<_> = (0..3000).map(|id| Ask::a(id, "x.test")).collect();
    for asks in asks.chunks(500) {
        client.send(&asks.iter().map(Ask::octets).collect::<Vec<_>>());
        asks.iter()
            .for_each(|_| assert_eq!(client.hear().rcode(), 0));
    }
}

#[test]
fn the_resolver_is_asked_no_more_than_its_budget() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &["--upstream-rate-limit", "20"]);
    let client = forwarder.udp();
    let mut refused = 0;
    for id in 0..100 {
        let ask = Ask::a(id, &format!("n{id}.test")).with_edns(edns());
        let heard = client.ask(&ask.octets());
        if heard.whole_rcode() == SERVFAIL {
            assert_eq!(heard.extended_error(), Some(23));
            refused += 1;
        } else {
            heard.assert_answers(&ask);
        }
    }
    assert_eq!(resolver.queries().len(), 100 - refused);
    assert!(refused > 50, "{refused} were too many");
}

#[test]
fn what_a_resolver_is_asked_once_more_is_of_its_budget_too() {
    const RATE: f64 = 10.0;
    const PAIRS: u16 = 25;
    // One that never answers is asked on a second session. Of one that closes at every second query, each session is
    // followed by another one, on which that is asked again.
    for end in [None, Some(Act::Close), Some(Act::Reset)] {
        let resolver = FakeResolver::honest();
        let act = end.clone();
        resolver.serve(move |query| match &act {
            Some(_) if query[12..].starts_with(b"\x04good") => {
                vec![Act::Send(message::answer(query))]
            }
            act => act.clone().into_iter().collect(),
        });
        let options = ["--upstream-rate-limit", "10", "--timeout", "1.5"];
        let began = Instant::now();
        let forwarder = Forwarder::before(&resolver, &options);
        let client = forwarder.udp();
        for pair in 0..PAIRS {
            let start = began + Duration::from_secs_f64(2.0 / RATE) * pair.into();
            std::thread::sleep(start.saturating_duration_since(Instant::now()));
            for name in ["good", "bad"] {
                let ask = Ask::a(pair, &format!("{name}.n{pair}.test"));
                client.send(&ask.octets());
            }
        }
        let queries = resolver.queries();
        // A burst is as much as a second brings.
        let most = RATE.mul_add(began.elapsed().as_secs_f64(), RATE);
        assert!(queries.len() as f64 <= most, "{end:?}: {}", queries.len());
        let names: HashSet<_> = queries.iter().map(|query| &query[12..]).collect();
        assert!(names.len() < queries.len(), "{end:?}: some are asked again");
    }
}

#[test]
fn clients_that_ask_one_thing_need_no_thread_each_and_those_that_stay_have_one() {
    const CLIENTS: usize = 16;
    let resolver = FakeResolver::honest();
    let waiting = Mutex::new(Vec::new());
    // All are answered once the last has asked.
    resolver.serve(move |query| {
        let mut waiting = waiting.lock().expect("no test panics with it");
        waiting.push(message::answer(query));
        match waiting.len() {
            CLIENTS => waiting.drain(..).map(Act::Send).collect(),
            _ => Vec::new(),
        }
    });
    let process = Process::before(&resolver, &[]);
    let ask = |id: usize| Ask::a(id as u16, &format!("n{id}.test"));
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| TcpClient::to(process.address))
        .collect();
    for (id, client) in clients.iter_mut().enumerate() {
        client.send(&[ask(id).octets()]);
        if id == CLIENTS - 2 {
            resolver.wait_for_queries(CLIENTS - 1);
        }
    }
    for (id, client) in clients.iter_mut().enumerate() {
        client.hear().assert_answers(&ask(id));
    }
    // One or another connects to the resolver.
    let workers = process.threads("worker").len();
    assert!(workers < CLIENTS / 2, "{workers} for {CLIENTS} clients");
    // Those who stay have one, and are served as well.
    wait_until("a thread for each", || {
        process.threads("worker").len() >= CLIENTS
    });
    resolver.serve(|query| vec![Act::Send(message::answer(query))]);
    for (id, client) in clients.iter_mut().enumerate() {
        client
            .ask(&ask(id + CLIENTS).octets())
            .assert_answers(&ask(id + CLIENTS));
    }
}

#[test]
fn who_asks_as_another_comes_to_a_full_house_is_answered() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--max-clients", "1"]);
    for round in 0..100 {
        let mut client = forwarder.tcp();
        let asks = [0, 1].map(|id| Ask::a(id, &format!("n{id}.of{round}.test")));
        let octets = asks.each_ref().map(Ask::octets);
        let address = forwarder.address();
        let other = std::thread::spawn(move || TcpClient::to(address));
        client.send(&octets);
        let mut heard: Vec<_> = asks.iter().map(|_| client.hear().id()).collect();
        heard.sort_unstable();
        assert_eq!(heard, [0, 1]);
        drop(client);
        drop(other.join().expect("it connects"));
    }
}

#[test]
fn the_longest_idle_connection_gives_way_to_a_newcomer() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--max-clients", "3"]);
    let ask = |id: u16| Ask::a(id, "x.test");
    let mut clients: Vec<_> = (0..3).map(|_| forwarder.tcp()).collect();
    // The first one asks once more: now the second is idle for the longest time.
    for at in [0, 1, 2, 0] {
        clients[at].ask(&ask(1).octets()).assert_answers(&ask(1));
    }
    let mut newcomer = forwarder.tcp();
    newcomer.ask(&ask(2).octets()).assert_answers(&ask(2));
    assert!(clients[1].try_hear().is_err(), "it gave way");
    assert_eq!(forwarder.running().evictions().evicted.value(), 1);
    for at in [0, 2] {
        clients[at].ask(&ask(3).octets()).assert_answers(&ask(3));
    }
}

#[test]
fn who_says_nothing_or_half_a_message_or_dribbles_gives_way_to_who_asks() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--max-clients", "6"]);
    let address = forwarder.address();
    let mut silent: Vec<_> = (0..60).map(|_| TcpClient::to(address)).collect();
    for (at, client) in silent.iter_mut().enumerate() {
        // Some are gone already.
        let _ = client
            .socket
            .write_all([&b""[..], b"\0", b"\0\x20abc"][at % 3]);
    }
    for id in 0..10 {
        let ask = Ask::a(id, "x.test");
        forwarder.tcp().ask(&ask.octets()).assert_answers(&ask);
    }
}

/// A resolver that takes its time for names under `slow`.
fn slow_resolver() -> FakeResolver {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let answer = message::answer(query);
        match query[12..].starts_with(b"\x04slow") {
            true => vec![Act::Later(Duration::from_secs(3), answer)],
            false => vec![Act::Send(answer)],
        }
    });
    resolver
}

#[test]
fn where_all_wait_for_answers_a_newcomer_gets_the_place_of_the_longest_waiting() {
    let resolver = slow_resolver();
    let options = ["--max-clients", "3", "--timeout", "20"];
    let forwarder = Forwarder::before(&resolver, &options);
    let slow: Vec<_> = (0..3)
        .map(|id| Ask::a(id, &format!("slow.n{id}")))
        .collect();
    let mut clients: Vec<_> = slow.iter().map(|_| forwarder.tcp()).collect();
    for (at, (client, ask)) in clients.iter_mut().zip(&slow).enumerate() {
        client.send(&[ask.octets()]);
        resolver.wait_for_queries(at + 1);
    }
    // Half a second is theirs, however many come.
    std::thread::sleep(Duration::from_millis(600));
    // It does not wait until one of the slow ones is answered.
    let mut newcomer = forwarder.tcp();
    let ask = Ask::a(9, "quick.test");
    newcomer.ask(&ask.octets()).assert_answers(&ask);
    assert_eq!(forwarder.running().count(Outcome::Answered), 1);
    assert!(clients[0].try_hear().is_err(), "it had waited the longest");
    assert_eq!(forwarder.running().evictions().evicted.value(), 1);
    for (client, ask) in clients.iter_mut().zip(&slow).skip(1) {
        client.hear().assert_answers(ask);
    }
    // Its query went on, and is counted.
    wait_until("all to be counted", || {
        forwarder.running().count(Outcome::Answered) == 4
    });
}

#[test]
fn connections_whose_queries_are_never_answered_keep_nobody_out() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| match query[12..].starts_with(b"\x05never") {
        true => Vec::new(),
        false => vec![Act::Send(message::answer(query))],
    });
    let process = Process::before(&resolver, &["--max-clients", "32"]);
    let never = Ask::a(1, "never.test");
    let _hostile: Vec<_> = (0..32)
        .map(|_| {
            let mut client = TcpClient::to(process.address);
            client.send(&[never.octets()]);
            client
        })
        .collect();
    for id in 0..50 {
        let ask = Ask::a(id, &format!("n{id}.test"));
        TcpClient::to(process.address)
            .ask(&ask.octets())
            .assert_answers(&ask);
    }
}

#[test]
fn one_more_of_an_address_whose_others_wait_for_answers_is_closed() {
    let resolver = slow_resolver();
    let options = ["--max-clients-per-address", "1", "--timeout", "20"];
    let forwarder = Forwarder::before(&resolver, &options);
    let slow = Ask::a(1, "slow.test");
    let mut first = forwarder.tcp();
    first.send(&[slow.octets()]);
    resolver.wait_for_queries(1);
    let mut second = forwarder.tcp();
    assert!(second.try_hear().is_err(), "it is too many");
    assert_eq!(
        forwarder.running().evictions().over_address_limit.value(),
        1
    );
    first.hear().assert_answers(&slow);
}

#[test]
fn one_address_has_no_more_connections_than_its_own() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--max-clients-per-address", "2"]);
    let ask = |id: u16| Ask::a(id, "x.test");
    let mut clients: Vec<_> = (0..2).map(|_| forwarder.tcp()).collect();
    for client in &mut clients {
        client.ask(&ask(1).octets()).assert_answers(&ask(1));
    }
    let mut third = forwarder.tcp();
    third.ask(&ask(2).octets()).assert_answers(&ask(2));
    assert!(
        clients[0].try_hear().is_err(),
        "the longest idle of its own gave way"
    );
    clients[1].ask(&ask(3).octets()).assert_answers(&ask(3));
    // By default programs on this host have as many as there are places.
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut clients: Vec<_> = (0..40).map(|_| forwarder.tcp()).collect();
    for client in &mut clients {
        client.ask(&ask(4).octets()).assert_answers(&ask(4));
    }
    for client in &mut clients {
        client.ask(&ask(5).octets()).assert_answers(&ask(5));
    }
}

#[test]
fn who_asks_too_much_gives_way_before_who_is_idle() {
    let resolver = FakeResolver::honest();
    let options = ["--max-clients", "2", "--rate-limit", "1/1"];
    let forwarder = Forwarder::before(&resolver, &options);
    let ask = Ask::a(1, "x.test");
    let mut idle = forwarder.tcp();
    idle.ask(&ask.octets()).assert_answers(&ask);
    let mut greedy = forwarder.tcp();
    assert_eq!(greedy.ask(&ask.octets()).rcode(), 5);
    // It has been idle for less time than the other.
    let _newcomer = forwarder.tcp();
    wait_until("the greedy one's end", || greedy.try_hear().is_err());
    assert_eq!(idle.ask(&ask.octets()).id(), ask.id, "it is still there");
    assert_eq!(forwarder.running().evictions().evicted.value(), 1);
}
