//! An answer names its source to who asks for it, and to nobody else.

use crate::support::message::{self, Edns, Heard};
use crate::support::{
    Act, Ask, CleartextServer, FakeResolver, Forwarder, Greeting, TcpClient, UdpClient, wait_until,
};

/// The option Answer Source.
const SOURCE: u16 = 65_353;
const REFUSED: u16 = 5;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const CACHE: [&str; 2] = ["--cache-size", "1000000"];

/// A query that asks where the answer comes from.
fn asking(name: &str) -> Ask {
    Ask::a(7, name).with_edns(Edns {
        size: 1232,
        options: vec![(SOURCE, vec![])],
        ..Edns::default()
    })
}

/// The source that an answer names; empty if it names none.
fn source(heard: &Heard) -> String {
    let text = heard.option(SOURCE).unwrap_or_default();
    String::from_utf8(text).expect("ASCII")
}

fn udp_source(client: &UdpClient, name: &str) -> String {
    source(&client.ask(&asking(name).octets()))
}

fn tcp_source(client: &mut TcpClient, name: &str) -> String {
    source(&client.ask(&asking(name).octets()))
}

/// The route of `zone` to this server.
fn route(zone: &str, server: &CleartextServer) -> String {
    format!("{zone}=tcp://{}", server.address())
}

#[test]
fn each_source_is_named_by_udp_and_by_tcp() {
    let (main, server) = (FakeResolver::honest(), CleartextServer::honest());
    let corp = route("corp.example", &server);
    let options = [
        &CACHE[..],
        &["--special-names", "answer"],
        &["--route", &corp],
        &["--route", "gone.corp.example=nxdomain"],
        &["--route", "public.corp.example=relay"],
    ]
    .concat();
    let forwarder = Forwarder::before(&main, &options);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    for (name, expected) in [
        ("www.example", "resolver"),
        ("public.corp.example", "resolver"),
        ("Www.Corp.Example", "route corp.example."),
        ("corp.example", "route corp.example."),
    ] {
        assert_eq!(udp_source(&udp, name), expected, "{name}");
        // Now it is in the cache.
        assert_eq!(tcp_source(&mut tcp, name), "cache", "{name}");
        let other = format!("tcp.{name}");
        assert_eq!(tcp_source(&mut tcp, &other), expected, "{other}");
        assert_eq!(udp_source(&udp, &other), "cache", "{other}");
    }
    for name in ["localhost", "www.local", "www.gone.corp.example"] {
        assert_eq!(udp_source(&udp, name), "local", "{name}");
        assert_eq!(tcp_source(&mut tcp, name), "local", "{name}");
    }
}

#[test]
fn an_expired_answer_is_named_stale() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let record = message::record(1, 1, &[192, 0, 2, 1]);
        vec![Act::Send(message::answer_with(query, &[&record]))]
    });
    let forwarder = Forwarder::before(&resolver, &CACHE);
    let client = forwarder.udp();
    assert_eq!(udp_source(&client, "x.test"), "resolver");
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    wait_until("the answer has expired", || {
        let heard = client.ask(&asking("x.test").octets());
        let is_stale = heard.extended_error() == Some(3);
        assert_eq!(source(&heard), if is_stale { "stale" } else { "cache" });
        is_stale
    });
    let mut tcp = forwarder.tcp();
    assert_eq!(tcp_source(&mut tcp, "x.test"), "stale");
}

#[test]
fn clients_that_share_an_answer_are_told_only_if_they_asked() {
    let main = FakeResolver::honest();
    let gate = crate::support::Gate::default();
    let held = gate.clone();
    main.serve(move |query| vec![Act::Held(held.clone(), message::answer(query))]);
    let forwarder = Forwarder::before(&main, &["--special-names", "answer"]);
    let (first, second, third) = (forwarder.udp(), forwarder.udp(), forwarder.udp());
    first.send(&Ask::a(1, "www.example").octets());
    main.wait_for_queries(1);
    second.send(&asking("www.example").octets());
    third.send(&Ask::a(3, "www.example").with_edns(Edns::default()).octets());
    for client in [&second, &third] {
        // The query before this one is read by now.
        client.send(&Ask::a(9, "localhost").octets());
        assert_eq!(client.hear().id(), 9);
    }
    gate.open();
    assert!(!first.hear().has_opt());
    assert_eq!(source(&second.hear()), "resolver");
    assert!(third.hear().options().is_empty());
}

#[test]
fn it_is_not_sent_unasked_and_the_question_for_it_is_not_relayed() {
    let (main, server) = (FakeResolver::honest(), CleartextServer::honest());
    // They send the option on their own.
    let told = |query: &[u8]| {
        let edns = Edns {
            options: vec![(SOURCE, b"elsewhere".to_vec())],
            ..Edns::default()
        };
        message::with_opt(message::answer(query), &edns)
    };
    main.serve(move |query| vec![Act::Send(told(query))]);
    let lan = route("lan", &server);
    let options = [&CACHE[..], &["--special-names", "answer", "--route", &lan]].concat();
    let forwarder = Forwarder::before(&main, &options);
    let client = forwarder.udp();
    let edns = |options: Vec<(u16, Vec<u8>)>| Edns {
        options,
        ..Edns::default()
    };
    for name in ["www.example", "nas.lan", "localhost"] {
        for options in [
            vec![],
            vec![(SOURCE, b"cache".to_vec())],
            vec![(65_001, vec![]), (3, vec![])],
        ] {
            let ask = Ask::a(5, name).with_edns(edns(options));
            let heard = client.ask(&ask.octets());
            assert!(!heard.options().contains(&SOURCE), "{name}: {heard:?}");
        }
        let heard = client.ask(&Ask::a(6, name).octets());
        assert!(!heard.has_opt(), "{name}");
    }
    assert_eq!(udp_source(&client, "other.example"), "resolver");
    assert_eq!(udp_source(&client, "other.lan"), "route lan.");
    let sent = [main.queries(), server.queries()].concat();
    assert!(sent.len() >= 4, "to both");
    for query in sent {
        assert!(!Heard::read(&query).options().contains(&SOURCE));
    }
}

#[test]
fn an_answer_at_the_clients_limit_loses_the_source_and_nothing_else() {
    // "route " and the zone; "route" alone; without the option.
    const ZONE: &str = "a-zone-with-a-long-name.corp.example";
    let (long, short) = (4 + 6 + ZONE.len() + 1, 4 + 5);
    let limit = 700;
    let ask = |number: usize| {
        let name = format!("n{number:03}.{ZONE}");
        let edns = Edns {
            size: limit,
            options: vec![(SOURCE, vec![])],
            ..Edns::default()
        };
        Ask::a(9, &name).with_edns(edns)
    };
    let limit = usize::from(limit);
    // The answer leaves as many octets free as the name says; its record has an owner of two octets.
    let fixed = 12 + ask(0).question().len() + (2 + 10) + 11;
    let server = CleartextServer::with(move |query| {
        let left: usize = std::str::from_utf8(&query[14..17])
            .expect("digits")
            .parse()
            .expect("a number");
        let record = message::record(65_280, 60, &vec![b'x'; limit - fixed - left]);
        Some(message::answer_with(query, &[&record]))
    });
    let main = FakeResolver::honest();
    let options = ["--route", &route(ZONE, &server)];
    let forwarder = Forwarder::before(&main, &options);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    for left in [0, 1, short - 1, short, short + 1, long - 1, long, long + 1] {
        let ask = ask(left);
        let heard = udp.ask(&ask.octets());
        let expected = match left {
            _ if left >= long => format!("route {ZONE}."),
            _ if left >= short => "route".to_owned(),
            _ => String::new(),
        };
        assert_eq!(source(&heard), expected, "{left}");
        assert!(!heard.is_truncated(), "{left}");
        assert_eq!(heard.counts(), [1, 1, 0, 1], "{left}");
        assert!(heard.octets.len() <= limit, "{left}");
        // By TCP there is room.
        let heard = tcp.ask(&ask.octets());
        assert_eq!(source(&heard), format!("route {ZONE}."), "{left}");
    }
}

#[test]
fn a_failure_names_where_the_answer_would_have_come_from() {
    let main = FakeResolver::honest();
    main.serve(|query| vec![Act::Send(message::error(query, 5))]);
    let options = ["--route", "lan=tcp://127.0.0.1:1"];
    let forwarder = Forwarder::before(&main, &options);
    let client = forwarder.udp();
    let heard = client.ask(&asking("nas.lan").octets());
    assert_eq!(
        (heard.whole_rcode(), &source(&heard)[..]),
        (SERVFAIL, "route lan.")
    );
    let heard = client.ask(&asking("www.example").octets());
    assert_eq!(
        (heard.whole_rcode(), &source(&heard)[..]),
        (REFUSED, "resolver")
    );
}

#[test]
fn who_may_not_ask_is_told_nothing() {
    let main = FakeResolver::honest();
    let forwarder = Forwarder::before(&main, &["--allow", "192.0.2.0/24"]);
    let heard = forwarder.udp().ask(&asking("www.local").octets());
    assert_eq!(heard.whole_rcode(), REFUSED);
    assert_eq!(source(&heard), "");
    let forwarder = Forwarder::before(&main, &["--special-names", "answer"]);
    let transfer = asking("www.example").with_type(252);
    let heard = forwarder.tcp().ask(&transfer.octets());
    assert_eq!((heard.whole_rcode(), &source(&heard)[..]), (REFUSED, ""));
    let heard = forwarder.udp().ask(&asking("www.local").octets());
    assert_eq!(
        (heard.whole_rcode(), &source(&heard)[..]),
        (NXDOMAIN, "local")
    );
}
