//! What a dead, slow or poisoned name costs those who ask for others: nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{
    AT_ONCE, MOST_SENT, PACE, SERVFAIL, answer, ask_at_once, ends_at_poisoned_names,
    hear_each_once, is_under, names_in,
};
use crate::support::message;
use crate::support::{Act, Ask, FakeResolver, Forwarder, Gate, wait_until};

const A: u16 = 1;
const AAAA: u16 = 28;

/// Both kinds of addresses of a name, as a program asks for them.
fn both_of(name: &str) -> [Ask; 2] {
    [A, AAAA].map(|kind| Ask::a(kind, name).with_type(kind))
}

/// A resolver that is silent about names under dead.test, and answers all others, after so long.
fn silent_about_dead_names(delay: Duration) -> FakeResolver {
    let resolver = FakeResolver::honest();
    resolver.serve(move |query| match is_under(query, "dead.test") {
        true => Vec::new(),
        false if delay.is_zero() => vec![answer(query)],
        false => vec![Act::Later(delay, message::answer(query))],
    });
    resolver
}

/// Nobody else asks anything while a first dead name times out; while a second one is pending, others ask. So many other
/// names were asked for on that session first.
fn assert_dead_names_harmless(before: usize) {
    let resolver = silent_about_dead_names(Duration::ZERO);
    let forwarder = Forwarder::before(&resolver, &["--timeout", "2"]);
    let (good, dead) = (forwarder.udp(), forwarder.udp());
    (0..before).for_each(|number| ask_at_once(&good, &format!("before{number}.test")));
    let ask_dead = |name| {
        let pair = both_of(name);
        pair.iter().for_each(|ask| dead.send(&ask.octets()));
        for _ in &pair {
            let heard = dead.hear();
            let ask = pair.iter().find(|ask| ask.id == heard.id());
            heard.assert_error(ask.expect("one of the two"), SERVFAIL);
        }
    };
    ask_dead("one.dead.test");
    (0..5).for_each(|number| ask_at_once(&good, &format!("after{number}.test")));
    let timed_out = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            ask_dead("two.dead.test");
            timed_out.store(true, Ordering::SeqCst);
        });
        wait_until("the second dead name at the resolver", || {
            resolver.count("two.dead.test") >= 2
        });
        let mut number = 0;
        while !timed_out.load(Ordering::SeqCst) {
            ask_at_once(&good, &format!("beside{number}.test"));
            number += 1;
            thread::sleep(PACE);
        }
    });
    ask_at_once(&good, "last.test");
    let connections = resolver.connections();
    assert!(connections <= 6, "{connections} connections");
}

#[test]
fn dead_names_on_a_quiet_host_take_no_other_down() {
    thread::scope(|scope| {
        for before in [0, 3] {
            scope.spawn(move || assert_dead_names_harmless(before));
        }
    });
}

/// A session on which nothing but dead names is pending looks dead itself. That is no reason to open one after the other.
#[test]
fn many_dead_names_cost_few_connections_and_hold_no_other_up() {
    let resolver = silent_about_dead_names(Duration::from_millis(20));
    let forwarder = Forwarder::before(&resolver, &["--timeout", "1"]);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = forwarder.udp();
            let mut names = (0..).map(|number| format!("n{number}.dead.test"));
            while !over.load(Ordering::SeqCst) {
                let pair = both_of(&names.next().expect("without end"));
                pair.iter().for_each(|ask| client.send(&ask.octets()));
                thread::sleep(4 * PACE);
            }
        });
        // So seldom that a session which answers nothing else is taken for silent meanwhile, until the first of the dead names
        // have timed out and for a while after that.
        let client = forwarder.udp();
        let mut slow = Vec::new();
        for number in 0..4 {
            if number > 0 {
                thread::sleep(Duration::from_millis(1200));
            }
            let ask = Ask::a(number, &format!("good{number}.test"));
            let asked = Instant::now();
            let rcode = client.ask(&ask.octets()).rcode();
            let took = asked.elapsed();
            if rcode != 0 || took >= AT_ONCE {
                slow.push((ask.name, rcode, took));
            }
        }
        // A scope waits for its threads, also where this one fails.
        over.store(true, Ordering::SeqCst);
        assert!(slow.is_empty(), "{slow:?}");
    });
    let connections = resolver.connections();
    assert!(connections <= 20, "{connections} connections");
}

#[test]
fn slow_names_hold_nobody_up_after_a_session_was_closed_amid_a_query() {
    for answered in [0, 1, 3] {
        let resolver = FakeResolver::honest();
        let (gate, closed) = (Gate::default(), AtomicBool::new(false));
        let held = gate.clone();
        resolver.serve(move |query| {
            let closes = is_under(query, "closes.test") && !closed.swap(true, Ordering::SeqCst);
            match () {
                () if closes => vec![Act::Close],
                () if is_under(query, "slow.test") => {
                    vec![Act::Held(held.clone(), message::answer(query))]
                }
                () => vec![answer(query)],
            }
        });
        let forwarder = Forwarder::before(&resolver, &[]);
        let (client, patient) = (forwarder.udp(), forwarder.udp());
        (0..answered).for_each(|number| ask_at_once(&client, &format!("before{number}.test")));
        ask_at_once(&client, "closes.test");
        let slow = names_in(2, "slow.test");
        for ask in &slow {
            patient.send(&ask.octets());
            wait_until("the slow name at the resolver", || {
                resolver.count(&ask.name) > 0
            });
        }
        // They have no answer before all these have theirs.
        (0..10).for_each(|number| ask_at_once(&client, &format!("beside{number}.test")));
        gate.open();
        hear_each_once(|| patient.hear(), &slow, "slow");
    }
}

#[test]
fn a_poisoned_name_is_sent_three_times_at_most_and_takes_no_other_down() {
    // A reset waits for the answers that are held.
    for ending in [Act::Close, Act::Cut] {
        let gate = Gate::default();
        let resolver = ends_at_poisoned_names(ending.clone(), gate.clone());
        let forwarder = Forwarder::before(&resolver, &[]);
        let (client, poisoner) = (forwarder.udp(), forwarder.udp());
        let good = names_in(20, "held.test");
        good.iter().for_each(|ask| client.send(&ask.octets()));
        resolver.wait_for_queries(good.len());
        let poison = Ask::a(1, "a.poison.test");
        let heard = poisoner.ask(&poison.octets());
        heard.assert_error(&poison, SERVFAIL);
        gate.open();
        hear_each_once(|| client.hear(), &good, &format!("{ending:?}"));
        let most = |ask: &Ask| {
            let sent = resolver.count(&ask.name);
            assert!(sent <= MOST_SENT, "{ending:?}: {} {sent} times", ask.name);
        };
        good.iter().chain([&poison]).for_each(most);
        let again = Ask::a(2, "last.test");
        poisoner.ask(&again.octets()).assert_answers(&again);
        assert!(poisoner.is_silent(), "{ending:?}: one answer each");
    }
}

#[test]
fn many_poisoned_names_of_one_zone_cost_few_connections_and_no_other_answer() {
    let resolver = ends_at_poisoned_names(Act::Close, Gate::default());
    let forwarder = Forwarder::before(&resolver, &[]);
    let began = Instant::now();
    let poison = names_in(30, "poison.test");
    thread::scope(|scope| {
        scope.spawn(|| {
            let client = forwarder.udp();
            for ask in &poison {
                client.send(&ask.octets());
                thread::sleep(PACE);
            }
            for _ in &poison {
                let heard = client.hear();
                heard.assert_error(&poison[usize::from(heard.id())], SERVFAIL);
            }
        });
        for client in 0..4 {
            let socket = forwarder.udp();
            scope.spawn(move || {
                for ask in names_in(25, &format!("c{client}.test")) {
                    socket.ask(&ask.octets()).assert_answers(&ask);
                    thread::sleep(PACE);
                }
            });
        }
    });
    for ask in &poison {
        let sent = resolver.count(&ask.name);
        assert!(sent <= MOST_SENT, "{} {sent} times", ask.name);
    }
    // So many a second, where it takes longer on a machine that is busy.
    let most = 10 * (began.elapsed().as_secs() + 2);
    let connections = resolver.connections();
    assert!(connections as u64 <= most, "{connections} connections");
}
