//! Sessions that end, go silent or are long in coming, and what takes their place.

use std::thread;
use std::time::{Duration, Instant};

use ::log::Level;

use super::{
    AT_ONCE, PACE, SERVFAIL, ask_at_once, ends_at_poisoned_names, hear_each_once, is_under,
    names_in,
};
use crate::support::message::{self, Edns};
use crate::support::resolver::tls;
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, Gate, Greeting, NAME, log as log_of, pki, wait_until,
};

#[test]
fn sessions_that_the_resolver_wants_closed_take_no_place_of_others() {
    let resolver = FakeResolver::honest();
    let gate = Gate::default();
    let held = gate.clone();
    resolver.serve(move |query| {
        let closes = Edns {
            size: 1232,
            options: vec![(11, vec![0, 0])],
            ..Edns::default()
        };
        let answer = message::with_opt(message::answer(query), &closes);
        match is_under(query, "slow.test") {
            true => vec![Act::Held(held.clone(), answer)],
            false => vec![Act::Send(answer)],
        }
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let (client, patient) = (forwarder.udp(), forwarder.udp());
    let slow = names_in(3, "slow.test");
    for (number, ask) in slow.iter().enumerate() {
        patient.send(&ask.octets());
        wait_until("the slow name at the resolver", || {
            resolver.count(&ask.name) > 0
        });
        // It says that the session on which the slow one is pending is to be closed.
        ask_at_once(&client, &format!("quick{number}.test"));
    }
    ask_at_once(&client, "last.test");
    gate.open();
    hear_each_once(|| patient.hear(), &slow, "slow");
}

#[test]
fn a_handshake_slower_than_a_query_serves_in_the_end() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Late(Duration::from_millis(1200)));
    let forwarder = Forwarder::before(&resolver, &["--timeout", "0.5"]);
    let client = forwarder.udp();
    let first = Ask::a(1, "first.test");
    let asked = Instant::now();
    client.ask(&first.octets()).assert_error(&first, SERVFAIL);
    let took = asked.elapsed();
    assert!(took < AT_ONCE, "it has its deadline: {took:?}");
    let until = asked + Duration::from_secs(4);
    let right = (2..).find(|id| {
        assert!(Instant::now() < until, "no answer after four seconds");
        thread::sleep(PACE);
        let ask = Ask::a(*id, &format!("later{id}.test"));
        client.ask(&ask.octets()).rcode() == 0
    });
    assert!(right.is_some());
    // Two more find out whether the size of the hello is the reason. It is not.
    let (connections, handshakes) = (resolver.connections(), resolver.handshakes());
    assert!(
        connections <= 3 && handshakes <= 3,
        "{connections} connections"
    );
    let mut said = resolver.log(Level::Info).into_iter();
    assert!(said.all(|line| !line.contains("post-quantum")));
}

/// The sessions that go silent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    /// There is one.
    One,
    /// There are two, and both have answered.
    Two,
    /// There are two, and the second has not answered yet.
    OneAndAnother,
    /// There are as many as have been of use, of the sixteen that there may be, and all have answered.
    Many,
}

/// Opens them: what waits on one session for long is asked on a further one.
fn open_sessions(open: Open, resolver: &FakeResolver, forwarder: &Forwarder, gate: &Gate) {
    let client = forwarder.udp();
    ask_at_once(&client, "first.test");
    let held = match open {
        Open::One => return,
        Open::Two | Open::OneAndAnother => names_in(1, "held.test"),
        Open::Many => names_in(4, "held.test"),
    };
    let patient = forwarder.udp();
    for ask in &held {
        patient.send(&ask.octets());
        wait_until("a further session", || resolver.count(&ask.name) >= 2);
        if open != Open::OneAndAnother {
            ask_at_once(&client, "further.test");
        }
    }
    assert!(resolver.open() >= 2);
    if open != Open::OneAndAnother {
        gate.open();
        hear_each_once(|| patient.hear(), &held, "held");
    }
}

fn assert_answered_on_a_new_session(open: Open) {
    let gate = Gate::default();
    let resolver = ends_at_poisoned_names(Act::Close, gate.clone());
    let most = if open == Open::Many { "16" } else { "2" };
    let forwarder = Forwarder::before(&resolver, &["--sessions", most]);
    open_sessions(open, &resolver, &forwarder, &gate);
    resolver.silence();
    let client = forwarder.udp();
    let asks = names_in(5, "silenced.test");
    let asked = Instant::now();
    asks.iter().for_each(|ask| client.send(&ask.octets()));
    hear_each_once(|| client.hear(), &asks, &format!("{open:?}"));
    let took = asked.elapsed();
    assert!(took < Duration::from_millis(1400), "{open:?}: {took:?}");
}

#[test]
fn when_all_sessions_go_silent_at_once_a_new_one_answers_soon() {
    thread::scope(|scope| {
        for open in [Open::One, Open::Two, Open::OneAndAnother, Open::Many] {
            scope.spawn(move || assert_answered_on_a_new_session(open));
        }
    });
}

#[test]
fn a_resolver_that_was_away_at_the_start_answers_the_first_query_once_it_is_there() {
    let address = FakeResolver::honest().address();
    let mark = log_of::mark();
    let address_text = address.to_string();
    let forwarder = Forwarder::with(&[
        "--resolver-addr",
        &address_text,
        "--resolver-fqdn",
        NAME,
        "--timeout",
        "20",
    ]);
    wait_until("the first attempt fails", || {
        !log_of::lines(mark, Level::Warn, address).is_empty()
    });
    // The failure is logged before the pool learns of it.
    thread::sleep(20 * PACE);
    let tls = tls(&pki().honest(), &[&rustls::version::TLS13], &[b"dot"]);
    let _resolver = FakeResolver::bind(address, tls);
    ask_at_once(&forwarder.udp(), "first.test");
}
