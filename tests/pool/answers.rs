//! Answers that are failures: which of them are asked for once more elsewhere, and in another form.

use std::thread;
use std::time::{Duration, Instant};

use super::{PACE, SERVFAIL, answer, is_under};
use crate::support::message::{self, Edns};
use crate::support::{Act, Ask, FakeResolver, Forwarder, Heard, UdpClient, pki, wait_until};

const FORMERR: u8 = 1;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;
const PADDING: u16 = 12;
const EXTENDED_ERROR: u16 = 15;
/// DNSSEC Bogus, and Blocked.
const VERDICTS: [u8; 2] = [6, 15];
/// The least that a failing resolver is to be spared, of so many queries.
const SHARE: usize = 20;

fn fail_at_all(resolver: &FakeResolver, rcode: u8) {
    resolver.serve(move |query| vec![Act::Send(message::error(query, rcode))]);
}

fn recover(resolver: &FakeResolver) {
    resolver.serve(|query| vec![answer(query)]);
}

/// Asks for names that nobody has asked for, one after the other.
struct Trickle {
    client: UdpClient,
    asked: u16,
}

impl Trickle {
    fn through(forwarder: &Forwarder) -> Self {
        Self {
            client: forwarder.udp(),
            asked: 0,
        }
    }

    fn ask(&mut self, count: usize) {
        for _ in 0..count {
            let ask = Ask::a(self.asked, &format!("t{}.test", self.asked));
            self.client.ask(&ask.octets()).assert_answers(&ask);
            self.asked += 1;
            thread::sleep(PACE);
        }
    }
}

#[test]
fn what_a_resolver_fails_at_without_a_reason_is_asked_at_the_next() {
    for rcode in [2, REFUSED] {
        let first = FakeResolver::honest();
        fail_at_all(&first, rcode);
        let second = FakeResolver::honest();
        let third = FakeResolver::with_chain(&pki().chain(&["third.test"], |_| {}));
        let further = format!("{}#third.test", third.address());
        let address = second.address().to_string();
        for (option, value, next) in [
            ("--resolver-addr", &address, &second),
            ("--resolver", &further, &third),
        ] {
            let forwarder = Forwarder::patient(&first, &[option, value]);
            Trickle::through(&forwarder).ask(30);
            let twice = (0..30).filter(|number| next.count(&format!("t{number}.test")) > 1);
            assert_eq!(twice.count(), 0, "{option}: each once at the next");
        }
    }
}

#[test]
fn a_resolver_that_fails_at_all_gets_a_share_and_is_the_first_again_when_it_is_well() {
    let (first, second) = (FakeResolver::honest(), FakeResolver::honest());
    fail_at_all(&first, 2);
    let forwarder = Forwarder::before(&first, &["--resolver-addr", &second.address().to_string()]);
    let mut trickle = Trickle::through(&forwarder);
    wait_until("the first to be spared half of the queries", || {
        let before = first.queries().len();
        trickle.ask(SHARE);
        first.queries().len() - before <= SHARE / 2
    });
    recover(&first);
    let well = Instant::now();
    wait_until("the first to be asked alone", || {
        let before = (first.queries().len(), second.queries().len());
        trickle.ask(SHARE);
        let after = (first.queries().len(), second.queries().len());
        after == (before.0 + SHARE, before.1)
    });
    let took = well.elapsed();
    assert!(took < Duration::from_secs(10), "only after {took:?}");
}

#[test]
fn names_that_failed_during_an_outage_are_right_soon_after_it() {
    let resolver = FakeResolver::honest();
    fail_at_all(&resolver, 2);
    let options = ["--cache-size", "8388608", "--serve-stale", "0"];
    let forwarder = Forwarder::before(&resolver, &options);
    let client = forwarder.udp();
    let asks: Vec<_> = (0..5)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    // Long enough that each name has failed again and again, if it was asked for so often.
    let began = Instant::now();
    let has_failed_often = |ask: &Ask| resolver.count(&ask.name) >= 3;
    let goes_on = || match began.elapsed().as_secs() {
        0..3 => true,
        3..6 => !asks.iter().all(has_failed_often),
        _ => false,
    };
    while goes_on() {
        for ask in &asks {
            client.ask(&ask.octets()).assert_error(ask, SERVFAIL);
            thread::sleep(PACE);
        }
    }
    recover(&resolver);
    let well = Instant::now();
    for ask in &asks {
        wait_until("a right answer", || client.ask(&ask.octets()).rcode() == 0);
    }
    let took = well.elapsed();
    // Half a second is the machine's.
    assert!(took < Duration::from_millis(2500), "only after {took:?}");
}

#[test]
fn a_verdict_goes_out_as_it_came_and_is_asked_of_nobody_else() {
    for verdict in VERDICTS {
        let (first, second) = (FakeResolver::honest(), FakeResolver::honest());
        first.serve(move |query| {
            let edns = Edns {
                size: 1232,
                options: vec![(EXTENDED_ERROR, vec![0, verdict])],
                ..Edns::default()
            };
            vec![Act::Send(message::with_opt(
                message::error(query, 2),
                &edns,
            ))]
        });
        let forwarder =
            Forwarder::patient(&first, &["--resolver-addr", &second.address().to_string()]);
        let edns = Edns {
            size: 1232,
            ..Edns::default()
        };
        let client = forwarder.udp();
        for id in 0..10 {
            let ask = Ask::a(id, &format!("n{id}.test")).with_edns(edns.clone());
            let heard = client.ask(&ask.octets());
            heard.assert_error(&ask, SERVFAIL);
            assert_eq!(heard.extended_error(), Some(verdict.into()));
        }
        assert_eq!(first.queries().len(), 10, "each once");
        assert_eq!(second.queries().len(), 0);
    }
}

/// What a resolver may take offence at.
#[derive(Clone, Copy, Debug)]
enum Dislike {
    Padding,
    Opt,
}

impl Dislike {
    fn is_met(self, query: &[u8]) -> bool {
        let query = Heard::read(query);
        match self {
            Self::Padding => query.has_opt() && query.options().contains(&PADDING),
            Self::Opt => query.has_opt(),
        }
    }
}

/// How it says so.
#[derive(Clone, Copy, Debug)]
enum Complaint {
    /// With the question, as a resolver does that knows no OPT.
    Whole(u8),
    /// With nothing but a header.
    Header(u8),
    /// With a header and an OPT, and a code that takes both.
    BadVersion,
}

impl Complaint {
    fn about(self, query: &[u8]) -> Vec<u8> {
        let mut header = query[..12].to_vec();
        header[2] |= 0x80;
        header[4..12].fill(0);
        match self {
            Self::Whole(rcode) => {
                header[3] |= rcode;
                header[5] = 1;
                header.extend_from_slice(&query[12..message::question_end(query)]);
            }
            Self::Header(rcode) => header[3] |= rcode,
            Self::BadVersion => {
                header[11] = 1;
                // The upper bits of the code, 16, are the first octet of what is a TTL elsewhere.
                header.extend_from_slice(&[0, 0, 41, 4, 0xd0, 1, 0, 0, 0, 0, 0]);
            }
        }
        header
    }
}

/// The resolver complains of what it dislikes; whoever asks for a name gets its address all the same, and the second query
/// is asked at once as the resolver likes it.
fn assert_asked_plainly(dislike: Dislike, complaint: Complaint) {
    let what = format!("{dislike:?}, {complaint:?}");
    let resolver = FakeResolver::honest();
    resolver.serve(move |query| match dislike.is_met(query) {
        true => vec![Act::Send(complaint.about(query))],
        false => vec![answer(query)],
    });
    // Nothing is asked once more since the machine is slow.
    let forwarder = Forwarder::patient(&resolver, &["--timeout", "3"]);
    let client = forwarder.udp();
    let first = Ask::a(1, "first.test");
    let heard = client.ask(&first.octets());
    assert_eq!(heard.rcode(), 0, "{what}");
    heard.assert_answers(&first);
    let sent = resolver.count(&first.name);
    assert!(sent <= super::MOST_SENT, "{what}: sent {sent} times");
    let second = Ask::a(2, "second.test");
    client.ask(&second.octets()).assert_answers(&second);
    assert_eq!(resolver.count(&second.name), 1, "{what}: it is known");
    assert!(client.is_silent(), "{what}: one answer each");
}

fn each_is_asked_plainly(cases: &[(Dislike, Complaint)]) {
    thread::scope(|scope| {
        for (dislike, complaint) in cases {
            scope.spawn(|| assert_asked_plainly(*dislike, *complaint));
        }
    });
}

#[test]
fn a_resolver_that_refuses_padding_or_any_opt_is_asked_without() {
    each_is_asked_plainly(&[
        (Dislike::Padding, Complaint::Whole(FORMERR)),
        (Dislike::Padding, Complaint::Whole(NOTIMP)),
        (Dislike::Opt, Complaint::Whole(FORMERR)),
        (Dislike::Opt, Complaint::Whole(NOTIMP)),
    ]);
}

#[test]
fn a_resolver_that_refuses_by_a_header_alone_is_asked_without_as_well() {
    each_is_asked_plainly(&[
        (Dislike::Padding, Complaint::Header(FORMERR)),
        (Dislike::Opt, Complaint::Header(FORMERR)),
        (Dislike::Opt, Complaint::Header(NOTIMP)),
        (Dislike::Opt, Complaint::BadVersion),
    ]);
}

#[test]
fn a_name_whose_owner_refuses_edns_takes_it_from_no_other_name() {
    let resolver = FakeResolver::honest();
    resolver.serve(
        |query| match is_under(query, "odd.test") && Dislike::Opt.is_met(query) {
            true => vec![Act::Send(Complaint::Whole(FORMERR).about(query))],
            false => vec![answer(query)],
        },
    );
    let forwarder = Forwarder::patient(&resolver, &["--timeout", "3"]);
    let client = forwarder.udp();
    for name in ["before.test", "www.odd.test", "after.test"] {
        let ask = Ask::a(1, name);
        client.ask(&ask.octets()).assert_answers(&ask);
    }
    let queries = resolver.queries();
    let last = queries.last().expect("queries");
    assert_eq!(message::name_of(last), "after.test");
    assert!(Dislike::Padding.is_met(last), "it has EDNS and padding");
}
