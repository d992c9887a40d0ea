//! What may pass is relayed octet for octet; what must not pass does not.

use dns_tool::forward::outcome::Outcome;

use crate::support::message::{self, Edns, opt, record};
use crate::support::{Act, Ask, FakeResolver, Forwarder};

const FORMERR: u16 = 1;
const SERVFAIL: u16 = 2;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

/// A message that gets past everything: what was owed before it has been sent by now.
fn last_ask() -> Ask {
    Ask::a(0xffff, "last.test")
}

/// Asserts that these octets get no answer over UDP, and reach no resolver.
fn assert_ignored(octets: &[u8]) {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &[]);
    let client = forwarder.udp();
    client.send(octets);
    client.ask(&last_ask().octets()).assert_answers(&last_ask());
    assert!(client.is_silent());
    assert_eq!(resolver.queries().len(), 1);
}

/// Asserts that each of these gets this response code, over UDP and TCP, and that none reaches the resolver.
fn assert_refused(cases: &[(&str, Vec<u8>)], rcode: u16) {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &[]);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    for (what, octets) in cases {
        for heard in [udp.ask(octets), tcp.ask(octets)] {
            assert_eq!(heard.whole_rcode(), rcode, "{what}: {heard:?}");
            assert_eq!(heard.octets[..2], octets[..2], "{what}: the ID");
            assert_eq!(
                heard.octets[2] & 0xf9,
                0x80 | (octets[2] & 0x79),
                "{what}: QR, opcode and RD"
            );
            assert_eq!(heard.counts()[1..3], [0, 0], "{what}: no records");
            assert!(
                heard.octets.len() <= octets.len() + 6,
                "{what}: no larger than the question and an EDE"
            );
        }
        if octets.len() > 11 {
            let heard = udp.ask(octets);
            assert!(
                heard.octets.len() <= octets.len(),
                "{what}: over UDP no larger than the question"
            );
        }
    }
    udp.ask(&last_ask().octets()).assert_answers(&last_ask());
    assert_eq!(
        resolver.queries().len(),
        1,
        "only the good one reached the resolver"
    );
}

#[test]
fn a_query_gets_its_answer_over_udp_and_tcp() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    for (id, name) in [
        (1, "example.test"),
        (2, "WwW.eXample.TEST"),
        (0xffff, "a.b.c.d.e.f"),
        (0, ""),
    ] {
        let ask = Ask::a(id, name);
        udp.ask(&ask.octets()).assert_answers(&ask);
        tcp.ask(&ask.octets()).assert_answers(&ask);
    }
}

#[test]
fn responses_and_scraps_are_ignored() {
    assert_ignored(&Ask::a(1, "example.test").with_flags([0x81, 0]).octets());
    assert_ignored(&[]);
    assert_ignored(&Ask::a(1, "example.test").octets()[..11]);
}

#[test]
fn other_opcodes_are_not_implemented() {
    let cases: Vec<_> = (1..16)
        .map(|opcode| {
            (
                "opcode",
                Ask::a(7, "example.test")
                    .with_flags([opcode << 3 | 1, 0])
                    .octets(),
            )
        })
        .collect();
    assert_refused(&cases, NOTIMP);
}

#[test]
fn broken_queries_are_format_errors() {
    let good = Ask::a(7, "example.test").octets();
    let edited = |at: usize, octets: &[u8]| {
        let mut message = good.clone();
        message[at..at + octets.len()].copy_from_slice(octets);
        message
    };
    let with = |tail: &[u8], additional: u8| {
        let mut message = edited(11, &[additional]);
        message.extend_from_slice(tail);
        message
    };
    let empty_opt = opt(&Edns {
        size: 1232,
        ..Edns::default()
    });
    let mut opt_not_at_root = vec![1, b'x'];
    opt_not_at_root.extend_from_slice(&empty_opt);
    let mut options_too_long = empty_opt.clone();
    options_too_long[10] = 4;
    options_too_long.extend_from_slice(&[0, 10, 0, 9]);
    assert_refused(
        &[
            ("no question", edited(4, &[0, 0])),
            ("two questions", edited(4, &[0, 2])),
            ("65535 questions", edited(4, &[0xff, 0xff])),
            ("an answer that is not there", edited(6, &[0xff, 0xff])),
            ("an answer record", {
                let mut message = edited(6, &[0, 1]);
                message.extend(record(1, 1, &[1, 2, 3, 4]));
                message
            }),
            ("an authority record", {
                let mut message = edited(8, &[0, 1]);
                message.extend(record(1, 1, &[1, 2, 3, 4]));
                message
            }),
            ("a name that points to itself", edited(12, &[0xc0, 12])),
            ("a name that points ahead", edited(12, &[0xc0, 14])),
            ("a label of type 01", edited(12, &[0x40])),
            ("a label of type 10", edited(12, &[0x80])),
            ("a name that goes on past the end", edited(12, &[63])),
            ("a question that is cut", good[..good.len() - 1].to_vec()),
            ("an OPT that is not there", edited(11, &[1])),
            (
                "two OPTs",
                with(&[empty_opt.clone(), empty_opt.clone()].concat(), 2),
            ),
            ("an OPT that is not at the root", with(&opt_not_at_root, 1)),
            ("options that do not fit", with(&options_too_long, 1)),
        ],
        FORMERR,
    );
}

#[test]
fn another_edns_version_is_told_so() {
    let ask = Ask::a(7, "example.test").with_edns(Edns {
        size: 1232,
        version: 1,
        ..Edns::default()
    });
    assert_refused(&[("version 1", ask.octets())], BADVERS);
}

#[test]
fn zone_transfers_are_refused_with_the_reason() {
    let axfr = Ask::a(7, "example.test").with_type(252).with_edns(Edns {
        size: 1232,
        ..Edns::default()
    });
    let mut ixfr = Ask::a(7, "example.test").with_type(251).octets();
    ixfr[9] = 1;
    ixfr.extend(record(
        6,
        1,
        &[
            0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1,
        ],
    ));
    assert_refused(&[("AXFR", axfr.octets()), ("IXFR", ixfr)], REFUSED);
    let resolver = FakeResolver::honest();
    let heard = Forwarder::before(&resolver, &[]).tcp().ask(&axfr.octets());
    assert_eq!(heard.extended_error(), Some(21));
}

#[test]
fn questions_of_other_classes_than_in_are_refused_with_the_reason() {
    let ask = |name: &str, qclass| Ask {
        qclass,
        ..Ask::a(7, name).with_type(16)
    };
    // CHAOS, HESIOD, NONE and ANY, one that is not assigned, and IN with the bit that multicast DNS sets.
    let mut asks: Vec<_> = [3, 4, 254, 255, 0, 65_280, 0x8001]
        .map(|qclass| ask("www.example", qclass))
        .into();
    for name in [
        "version.bind",
        "VERSION.SERVER",
        "hostname.bind",
        "id.server",
    ] {
        asks.push(ask(name, 3));
    }
    // Names that are answered here in class IN.
    asks.push(ask("localhost", 3));
    asks.push(ask("1.0.0.127.in-addr.arpa", 255));
    let cases: Vec<_> = asks
        .iter()
        .map(|ask| (&*ask.name, ask.octets()))
        .chain(asks.iter().map(|ask| {
            let edns = Edns {
                size: 1232,
                ..Edns::default()
            };
            (&*ask.name, ask.clone().with_edns(edns).octets())
        }))
        .collect();
    assert_refused(&cases, REFUSED);
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--special-names", "answer"]);
    let heard = forwarder.tcp().ask(&cases[asks.len()].1);
    assert_eq!(heard.extended_error(), Some(21), "Not Supported");
    let localhost = ask("localhost", 3);
    let heard = forwarder.udp().ask(&localhost.octets());
    heard.assert_error(&localhost, REFUSED);
    assert_eq!(forwarder.running().count(Outcome::UnsupportedClass), 2);
}

/// The one query that the resolver gets when a client sends these octets.
fn relayed(octets: &[u8]) -> Vec<u8> {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    forwarder.udp().send(octets);
    let queries = resolver.wait_for_queries(1);
    queries[0].clone()
}

#[test]
fn the_resolver_gets_our_own_opt_padded_and_nothing_of_the_clients() {
    const SECRET: &[u8] = b"client's";
    let cookie = (10, SECRET.to_vec());
    let subnet = (8, vec![0, 1, 24, 0, 192, 0, 2]);
    let unknown = (65_001, SECRET.to_vec());
    for name in [
        "",
        "x.test",
        "a-rather-long-label-to-make-the-message-longer.and-another-one-as-long-as-that.test",
    ] {
        for do_bit in [0, 0x8000] {
            let options = vec![cookie.clone(), subnet.clone(), unknown.clone()];
            let ask = Ask::a(0x0b0e, name)
                .with_flags([0x07, 0x70])
                .with_edns(Edns {
                    size: 4096,
                    version: 0,
                    flags: do_bit | 1,
                    options,
                });
            let query = relayed(&ask.octets());
            assert_eq!(query.len() % 128, 0, "RFC 8467 section 4.1");
            assert_eq!(
                query[2..4],
                [0x01, 0x30],
                "RD and CD are kept, AD is ours, TC, AA and Z are not"
            );
            assert_eq!(query[4..12], [0, 1, 0, 0, 0, 0, 0, 1]);
            let end = message::question_end(&query);
            assert_eq!(query[12..end], ask.question());
            assert_eq!(query[end..end + 3], [0, 0, 41]);
            assert_eq!(query[end + 7] & 0x80 != 0, do_bit != 0, "DO is kept");
            assert_eq!(query[end + 8], 0, "the other flags are not");
            assert_eq!(
                query[end + 11..end + 17],
                [0, 11, 0, 0, 0, 12],
                "the only options are our keepalive, empty (RFC 7828 section 3.2.1), and padding"
            );
            assert!(query[end + 19..].iter().all(|octet| *octet == 0));
            assert!(!query.windows(SECRET.len()).any(|window| window == SECRET));
        }
    }
}

#[test]
fn a_client_that_wants_its_address_told_to_nobody_has_its_way() {
    // RFC 7871 section 7.1.2: SOURCE PREFIX-LENGTH 0.
    let options = vec![(8, vec![0, 2, 0, 0])];
    let query = relayed(
        &Ask::a(1, "x.test")
            .with_edns(Edns {
                options,
                ..Edns::default()
            })
            .octets(),
    );
    let end = message::question_end(&query);
    assert_eq!(query[end + 11..end + 19], [0, 8, 0, 4, 0, 1, 0, 0]);
    assert_eq!(query.len() % 128, 0);
}

#[test]
fn a_query_without_edns_is_padded_too() {
    let query = relayed(&Ask::a(1, "x.test").octets());
    assert_eq!(query.len(), 128);
    assert_eq!(query[message::question_end(&query) + 7] & 0x80, 0, "no DO");
}

#[test]
fn octets_after_the_message_never_reach_the_resolver() {
    const SMUGGLED: &[u8] = b"smuggled";
    let ask = Ask::a(1, "x.test").with_edns(Edns {
        size: 1232,
        ..Edns::default()
    });
    let mut octets = ask.octets();
    octets.extend_from_slice(SMUGGLED);
    assert!(
        !relayed(&octets)
            .windows(SMUGGLED.len())
            .any(|window| window == SMUGGLED)
    );
}

/// A query with a TSIG or SIG(0) record of so many octets after its OPT.
fn signed(rtype: u16, length: u16) -> Vec<u8> {
    let edns = Edns {
        size: 1232,
        ..Edns::default()
    };
    let mut octets = Ask::a(0x1234, "Signed.test").with_edns(edns).octets();
    octets[11] = 2;
    octets.push(0);
    octets.extend_from_slice(&rtype.to_be_bytes());
    octets.extend_from_slice(&[0, 255, 0, 0, 0, 0]);
    octets.extend_from_slice(&length.to_be_bytes());
    octets.resize(octets.len() + usize::from(length), 0);
    octets
}

#[test]
fn a_signed_message_and_its_answer_pass_unchanged_but_for_the_id() {
    const TSIG: u16 = 250;
    const SIG: u16 = 24;
    for rtype in [TSIG, SIG] {
        let resolver = FakeResolver::honest();
        resolver.serve(|query| {
            let mut answer = query.to_vec();
            answer[2] |= 0x80;
            vec![Act::Send(answer)]
        });
        let forwarder = Forwarder::before(&resolver, &[]);
        let query = signed(rtype, 20);
        let mut smuggling = query.clone();
        smuggling.extend_from_slice(b"smuggled");
        let heard = forwarder.tcp().ask(&smuggling);
        assert_eq!(resolver.queries()[0][2..], query[2..]);
        assert_eq!(heard.octets[..2], query[..2]);
        assert_eq!(heard.octets[2] & 0x80, 0x80);
        assert_eq!(heard.octets[3..], query[3..]);
    }
}

#[test]
fn a_signature_that_is_not_last_does_not_pass() {
    let mut octets = signed(250, 20);
    octets[11] = 3;
    octets.extend(opt(&Edns::default()));
    assert_refused(&[("TSIG before OPT", octets)], FORMERR);
}

#[test]
fn a_very_long_signature_is_refused_and_a_long_one_passes() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut client = forwarder.tcp();
    assert_eq!(client.ask(&signed(250, 5000)).whole_rcode(), REFUSED);
    assert!(resolver.queries().is_empty());
    client.send(&[signed(250, 3000)]);
    assert_eq!(
        resolver.wait_for_queries(1)[0].len(),
        signed(250, 3000).len()
    );
}

#[test]
fn unknown_types_and_data_pass_octet_for_octet() {
    let resolver = FakeResolver::honest();
    let data: Vec<u8> = (0..=255).collect();
    let expected = record(65_280, 77, &data);
    let records = expected.clone();
    resolver.serve(move |query| {
        vec![Act::Send(message::answer_with(
            query,
            &[&records, &records],
        ))]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    for qtype in [0, 41, 65_280, 65_535, 255, 249] {
        let ask = Ask::a(3, "X.test").with_type(qtype);
        let heard = forwarder.tcp().ask(&ask.octets());
        assert_eq!(heard.question(), ask.question());
        assert_eq!(
            heard.octets[12 + ask.question().len()..],
            [&expected[..], &expected[..]].concat()
        );
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_a_failure() {
    let cut = |query: &[u8]| {
        let mut answer = message::answer(query);
        let end = message::question_end(query);
        answer.truncate(end + 20);
        answer
    };
    let too_many = |query: &[u8]| {
        let mut answer = message::answer(query);
        answer[6..8].copy_from_slice(&[0xff, 0xff]);
        answer
    };
    let looping = |query: &[u8]| {
        let mut answer = message::answer(query);
        let end = message::question_end(query);
        answer[end..end + 2]
            .copy_from_slice(&(0xc000 | u16::try_from(end).expect("short")).to_be_bytes());
        answer
    };
    let two_opts = |query: &[u8]| {
        let mut answer = message::answer(query);
        answer[11] = 2;
        answer.extend(opt(&Edns::default()));
        answer
    };
    for broken in [cut as fn(&[u8]) -> Vec<u8>, too_many, looping, two_opts] {
        let resolver = FakeResolver::honest();
        resolver.serve(move |query| vec![Act::Send(broken(query))]);
        let forwarder = Forwarder::before(&resolver, &[]);
        let ask = Ask::a(3, "broken.test").with_edns(Edns {
            size: 1232,
            ..Edns::default()
        });
        let heard = forwarder.udp().ask(&ask.octets());
        heard.assert_error(&ask, SERVFAIL);
        assert_eq!(heard.extended_error(), Some(24), "Invalid Data");
    }
}
