//! An answer reaches the client that asked, in the form that it asked for, and by the deadline.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use dns_tool::forward::outcome::Outcome;

use crate::support::message::{self, Edns, record};
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, Greeting, PATIENCE, TcpClient, wait_until,
};

const SERVFAIL: u16 = 2;

/// A TXT record's data of so many octets, less a few.
fn text(octets: usize) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() + 256 <= octets {
        data.push(255);
        data.resize(data.len() + 255, b'x');
    }
    data
}

/// A resolver whose every answer has a TXT record of about so many octets.
fn large(octets: usize) -> FakeResolver {
    let resolver = FakeResolver::honest();
    let data = record(16, 60, &text(octets));
    resolver.serve(move |query| vec![Act::Send(message::answer_with(query, &[&data]))]);
    resolver
}

#[test]
fn over_udp_an_answer_is_cut_to_what_the_client_takes() {
    for (octets, size, fits) in [
        (300, None, true),
        (600, None, false),
        (300, Some(0), true),
        (600, Some(100), false),
        (600, Some(1232), true),
        (1100, Some(1232), true),
        (1400, Some(1232), false),
        (1400, Some(65_535), false),
    ] {
        let resolver = large(octets);
        let forwarder = Forwarder::before(&resolver, &[]);
        let mut ask = Ask::a(9, "Large.test").with_type(16);
        ask.edns = size.map(|size| Edns {
            size,
            ..Edns::default()
        });
        let heard = forwarder.udp().ask(&ask.octets());
        assert_eq!(heard.is_truncated(), !fits, "{octets} for {size:?}");
        assert_eq!(
            heard.counts(),
            [1, u16::from(fits), 0, u16::from(size.is_some())],
            "{octets} for {size:?}"
        );
        assert_eq!(heard.question(), ask.question());
        assert!(heard.octets.len() <= usize::from(size.unwrap_or(512).clamp(512, 1232)));
        let whole = forwarder.tcp().ask(&ask.octets());
        assert!(!whole.is_truncated());
        assert_eq!(whole.counts()[1], 1, "TCP brings what UDP could not");
    }
}

#[test]
fn over_udp_an_answer_loses_its_extended_error_before_its_records() {
    for (size, fits) in [(1232, true), (512, false)] {
        let resolver = FakeResolver::honest();
        resolver.serve(move |query| {
            let data = record(16, 60, &text(300));
            let edns = Edns {
                size: 1232,
                options: vec![(15, [&[0, 0][..], &[b'x'; 300]].concat())],
                ..Edns::default()
            };
            let answer = message::answer_with(query, &[&data]);
            vec![Act::Send(message::with_opt(answer, &edns))]
        });
        let forwarder = Forwarder::before(&resolver, &[]);
        let ask = Ask::a(9, "x.test").with_type(16).with_edns(Edns {
            size,
            ..Edns::default()
        });
        let heard = forwarder.udp().ask(&ask.octets());
        assert_eq!(heard.counts(), [1, 1, 0, 1], "the record is there");
        assert_eq!(heard.extended_error().is_some(), fits);
        assert_eq!(heard.is_truncated(), !fits, "and TCP has the rest");
        let whole = forwarder.tcp().ask(&ask.octets());
        assert_eq!(whole.extended_error(), Some(0));
        assert!(!whole.is_truncated());
    }
}

#[test]
fn the_largest_answers_pass_over_tcp() {
    for octets in [16_000, 40_000, 65_200] {
        let resolver = large(octets);
        let forwarder = Forwarder::before(&resolver, &[]);
        let ask = Ask::a(9, "large.test").with_type(16);
        let heard = forwarder.tcp().ask(&ask.octets());
        assert!(heard.octets.len() > octets - 300);
        assert_eq!(heard.counts()[1], 1);
    }
}

#[test]
fn pipelined_queries_are_answered_as_answers_come() {
    const COUNT: u16 = 20;
    let resolver = FakeResolver::honest();
    // Answers in the reverse order, once all have been asked.
    let held = Mutex::new(Vec::new());
    resolver.serve(move |query| {
        let mut held = held.lock().expect("no panic");
        held.push(message::answer(query));
        if held.len() < usize::from(COUNT) {
            return Vec::new();
        }
        held.drain(..).rev().map(Act::Send).collect()
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    let asks: Vec<_> = (0..COUNT)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    client.send(&asks.iter().map(Ask::octets).collect::<Vec<_>>());
    for ask in asks.iter().rev() {
        client.hear().assert_answers(ask);
    }
}

#[test]
fn queries_that_arrive_together_go_in_one_write_and_each_in_a_record_of_its_own() {
    const COUNT: u16 = 20;
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    let first = Ask::a(0, "first.test");
    client.ask(&first.octets()).assert_answers(&first);
    let asks: Vec<_> = (0..COUNT)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    client.send(&asks.iter().map(Ask::octets).collect::<Vec<_>>());
    asks.iter().for_each(|_| drop(client.hear()));
    assert_eq!(resolver.batches(), [1, usize::from(COUNT)]);
    // A padded query, its length, what it is (RFC 8446 section 5.2) and how it is protected.
    let queries = |lengths: &[usize]| {
        lengths
            .iter()
            .filter(|length| **length == 2 + 128 + 1 + 16)
            .count()
    };
    assert_eq!(queries(&resolver.records()), 1 + usize::from(COUNT));
}

#[test]
fn a_query_in_pieces_is_answered_and_so_is_the_next() {
    use std::io::Write;
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    let asks = [Ask::a(1, "one.test"), Ask::a(2, "two.test")];
    let octets = crate::support::client::framed(&asks.each_ref().map(Ask::octets));
    client.socket.set_nodelay(true).expect("an option");
    for piece in octets.chunks(1) {
        client.socket.write_all(piece).expect("writes");
    }
    let mut heard = [client.hear(), client.hear()];
    heard.sort_by_key(crate::support::Heard::id);
    heard
        .iter()
        .zip(&asks)
        .for_each(|(heard, ask)| heard.assert_answers(ask));
}

#[test]
fn a_client_that_closes_its_writing_side_gets_all_answers_then_the_close() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        vec![Act::Later(
            Duration::from_millis(100),
            message::answer(query),
        )]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    let asks: Vec<_> = (0..3)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    client.send(&asks.iter().map(Ask::octets).collect::<Vec<_>>());
    client.half_close();
    let mut heard: Vec<_> = asks.iter().map(|_| client.hear()).collect();
    heard.sort_by_key(crate::support::Heard::id);
    heard
        .iter()
        .zip(&asks)
        .for_each(|(heard, ask)| heard.assert_answers(ask));
    client.expect_close();
}

#[test]
fn a_client_that_does_not_read_harms_nobody_and_loses_only_its_connection() {
    let resolver = large(60_000);
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut greedy = TcpClient::to(forwarder.address());
    let asks: Vec<_> = (0..500)
        .map(|id| Ask::a(id, &format!("large{id}.test")).octets())
        .collect();
    // It is read no further as long as it does not read.
    greedy.send(&asks);
    resolver.wait_for_queries(2);
    let mut polite = forwarder.tcp();
    for id in 0..20 {
        let ask = Ask::a(id, "large.test");
        assert_eq!(polite.ask(&ask.octets()).id(), id);
    }
    // What its socket had taken can be read; then it ends.
    wait_until("the end of the connection", || greedy.try_hear().is_err());
    assert_eq!(forwarder.running().evictions().slow_readers.value(), 1);
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let resolver = large(60_000);
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    // More than the socket's buffers hold, less than with the outbox.
    socket2::SockRef::from(&client.socket)
        .set_recv_buffer_size(32 * 1024)
        .expect("an option");
    let asks: Vec<_> = (0..8)
        .map(|id| Ask::a(id, &format!("large{id}.test")).octets())
        .collect();
    client.send(&asks);
    resolver.wait_for_queries(asks.len());
    let mut ids: Vec<_> = asks.iter().map(|_| client.hear().id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..8).collect::<Vec<_>>());
}

#[test]
fn an_error_with_an_opt_and_without_a_question_is_an_answer() {
    let resolver = FakeResolver::honest();
    let edns = Edns {
        size: 1232,
        options: vec![(15, vec![0, 22])],
        ..Edns::default()
    };
    resolver.serve(move |query| {
        let header = [query[0], query[1], 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 1];
        let opt = message::opt(&edns);
        vec![Act::Send([&header, &opt[..]].concat())]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(1, "x.test").with_edns(Edns::default());
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, SERVFAIL);
    // It was asked once, and nobody waited for the end of its time.
    assert_eq!(resolver.queries().len(), 1);
    assert_eq!(forwarder.running().count(Outcome::Answered), 1);
}

#[test]
fn the_client_gets_an_opt_when_it_sent_one_and_never_the_padding() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let padding = (12, vec![0; 300]);
        let cookie = (10, vec![7; 16]);
        let error = (15, vec![0, 3]);
        let edns = Edns {
            size: 4096,
            version: 0,
            flags: 0x8000,
            options: vec![padding, cookie, error],
        };
        vec![Act::Send(message::with_opt(message::answer(query), &edns))]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let plain = Ask::a(1, "x.test");
    let client = forwarder.udp();
    client.ask(&plain.octets()).assert_answers(&plain);
    let asking = Ask::a(2, "x.test").with_edns(Edns {
        size: 1232,
        ..Edns::default()
    });
    let heard = client.ask(&asking.octets());
    heard.assert_answers(&asking);
    assert_eq!(
        heard.options(),
        [15],
        "an EDE is for the client, the rest was between the resolver and us"
    );
}

#[test]
fn flags_are_the_resolvers_but_for_the_askers_own() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let mut answer = message::answer(query);
        answer[2] |= 0x04;
        answer[3] |= 0x20;
        vec![Act::Send(answer)]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let client = forwarder.udp();
    for (sent, expected) in [
        ([0x01, 0x00], [0x85, 0x80]),
        ([0x00, 0x00], [0x84, 0x80]),
        ([0x01, 0x10], [0x85, 0x90]),
        ([0x01, 0x20], [0x85, 0xa0]),
    ] {
        let heard = client.ask(&Ask::a(1, "x.test").with_flags(sent).octets());
        assert_eq!(
            heard.octets[2..4],
            expected,
            "for {sent:02x?}: AD only for those that ask"
        );
    }
    let secure = Ask::a(1, "x.test").with_edns(Edns {
        size: 1232,
        flags: 0x8000,
        ..Edns::default()
    });
    assert_eq!(
        client.ask(&secure.octets()).octets[3],
        0xa0,
        "DO asks for AD too"
    );
}

#[test]
fn errors_of_the_resolver_are_relayed() {
    let resolver = FakeResolver::honest();
    for rcode in [1, 2, 3, 4, 5, 9] {
        resolver.serve(move |query| vec![Act::Send(message::error(query, rcode))]);
        let forwarder = Forwarder::before(&resolver, &[]);
        let ask = Ask::a(5, "x.test");
        forwarder
            .udp()
            .ask(&ask.octets())
            .assert_error(&ask, rcode.into());
    }
    // A header alone, as some send it for what they cannot read.
    resolver.serve(|query| {
        vec![Act::Send(vec![
            query[0], query[1], 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0,
        ])]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(5, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_error(&ask, 1);
}

#[test]
fn silence_becomes_servfail_by_the_deadline() {
    let resolver = FakeResolver::honest();
    resolver.serve(|_| Vec::new());
    let forwarder = Forwarder::before(&resolver, &["--timeout", "0.3"]);
    let began = Instant::now();
    let ask = Ask::a(5, "x.test").with_edns(Edns {
        size: 1232,
        ..Edns::default()
    });
    let heard = forwarder.udp().ask(&ask.octets());
    heard.assert_error(&ask, SERVFAIL);
    assert_eq!(heard.extended_error(), Some(22), "No Reachable Authority");
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "not before its time"
    );
    assert!(began.elapsed() < PATIENCE / 2, "nor long after");
    let plain = Ask::a(6, "x.test");
    let heard = forwarder.tcp().ask(&plain.octets());
    heard.assert_error(&plain, SERVFAIL);
    assert!(!heard.has_opt(), "no EDE without EDNS");
}

#[test]
fn a_slow_query_delays_no_other() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| match query[12..].starts_with(b"\x04slow") {
        true => vec![Act::Later(
            Duration::from_millis(1500),
            message::answer(query),
        )],
        false => vec![Act::Send(message::answer(query))],
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    let slow = Ask::a(1, "slow.test");
    client.send(&[slow.octets()]);
    for id in 2..50 {
        let quick = Ask::a(id, "quick.test");
        client.ask(&quick.octets()).assert_answers(&quick);
        forwarder.udp().ask(&quick.octets()).assert_answers(&quick);
    }
    client.hear().assert_answers(&slow);
}

#[test]
fn a_resolver_that_cannot_be_reached_is_servfail_and_serves_once_it_is_back() {
    let gone = FakeResolver::honest();
    gone.greet(Greeting::Close);
    let forwarder = Forwarder::before(&gone, &["--timeout", "5"]);
    let ask = Ask::a(5, "x.test").with_edns(Edns {
        size: 1232,
        ..Edns::default()
    });
    let heard = forwarder.udp().ask(&ask.octets());
    heard.assert_error(&ask, SERVFAIL);
    assert_eq!(heard.extended_error(), Some(23), "Network Error");
    gone.greet(Greeting::Shake);
    let client = forwarder.udp();
    wait_until("an answer", || client.ask(&ask.octets()).whole_rcode() == 0);
}
