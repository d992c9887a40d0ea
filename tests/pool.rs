//! What one name, one session or one slow answer costs everybody else: nothing.
//!
//! A resolver may keep silent about one name, or close the connection whenever it is asked for another; whoever asks for
//! something else must not notice.

mod answers;
mod names;
mod sessions;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::message;
use crate::support::{Act, Ask, FakeResolver, Forwarder, Gate, TcpClient, UdpClient, wait_until};

const SERVFAIL: u16 = 2;
/// Nothing had to be waited for, on however slow a machine.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Between the questions of a client that asks steadily.
const PACE: Duration = Duration::from_millis(5);
/// How often a query may be sent, whatever becomes of it.
const MOST_SENT: usize = 3;

fn answer(query: &[u8]) -> Act {
    Act::Send(message::answer(query))
}

/// Whether a query is for a name in this zone.
fn is_under(query: &[u8], zone: &str) -> bool {
    message::name_of(query).ends_with(zone)
}

/// Asks for a name, and insists on the right answer at once.
fn ask_at_once(client: &UdpClient, name: &str) {
    let ask = Ask::a(1, name);
    let asked = Instant::now();
    client.ask(&ask.octets()).assert_answers(&ask);
    let took = asked.elapsed();
    assert!(took < AT_ONCE, "{name} after {took:?}");
}

/// So many names.
fn names_in(count: u16, zone: &str) -> Vec<Ask> {
    let ask = |id| Ask::a(id, &format!("n{id}.{zone}"));
    (0..count).map(ask).collect()
}

/// Hears the right answer to each of `asks`, once, in any order. Their IDs are their places.
fn hear_each_once(mut hear: impl FnMut() -> message::Heard, asks: &[Ask], what: &str) {
    let mut heard = HashSet::new();
    for _ in asks {
        let answer = hear();
        answer.assert_answers(&asks[usize::from(answer.id())]);
        assert!(heard.insert(answer.id()), "{what}: answered twice");
    }
}

/// A resolver that ends the connection like this when it is asked for a name under poison.test, holds its answers to those
/// under held.test back until the gate is open, and answers all others.
fn ends_at_poisoned_names(ending: Act, gate: Gate) -> FakeResolver {
    let resolver = FakeResolver::honest();
    resolver.serve(move |query| match () {
        () if is_under(query, "poison.test") => vec![ending.clone()],
        () if is_under(query, "held.test") => {
            vec![Act::Held(gate.clone(), message::answer(query))]
        }
        () => vec![answer(query)],
    });
    resolver
}

/// What a resolver does at a query.
type Misdeed = fn(&[u8]) -> Vec<Act>;

/// Those that may happen, by name.
fn misdeeds() -> [(&'static str, Misdeed); 10] {
    [
        ("silence", |_| Vec::new()),
        ("close", |_| vec![Act::Close]),
        ("cut", |_| vec![Act::Cut]),
        ("reset", |_| vec![Act::Reset]),
        ("cleartext", |_| vec![Act::Plaintext]),
        ("half", |_| vec![Act::Raw(vec![0, 80, 1, 2, 3]), Act::Cut]),
        ("SERVFAIL", |query| {
            vec![Act::Send(message::error(query, 2))]
        }),
        ("REFUSED", |query| vec![Act::Send(message::error(query, 5))]),
        ("FORMERR", |query| vec![Act::Send(message::error(query, 1))]),
        ("NOTIMP", |query| vec![Act::Send(message::error(query, 4))]),
    ]
}

/// At names under bad.test `misdeed` happens, at one resolver or both. A query for one is sent three times at most, and has
/// one answer, by its deadline.
fn assert_frugal(what: &str, misdeed: Misdeed, has_second: bool) {
    let (first, second) = (FakeResolver::honest(), FakeResolver::honest());
    for resolver in [&first, &second] {
        resolver.serve(move |query| match is_under(query, "bad.test") {
            true => misdeed(query),
            false => vec![answer(query)],
        });
    }
    let address = second.address().to_string();
    let options = ["--timeout", "1", "--resolver-addr", &address];
    let forwarder = Forwarder::before(&first, &options[..if has_second { 4 } else { 2 }]);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.bad.test");
    let asked = Instant::now();
    let heard = client.ask(&ask.octets());
    let took = asked.elapsed();
    assert_ne!(heard.rcode(), 0, "{what}");
    assert_eq!(heard.question(), ask.question(), "{what}");
    assert!(took < 2 * AT_ONCE, "{what}: its deadline was a second ago");
    let sent = first.count(&ask.name) + second.count(&ask.name);
    assert!(sent <= MOST_SENT, "{what}: sent {sent} times");
    let good = Ask::a(2, "good.test");
    wait_until("a good name's answer", || {
        let heard = client.ask(&good.octets());
        assert_eq!(heard.id(), good.id, "{what}: one answer each");
        heard.rcode() == 0
    });
    assert!(client.is_silent(), "{what}: one answer each");
}

#[test]
fn a_query_is_sent_three_times_at_most_and_has_one_answer_whatever_happens() {
    thread::scope(|scope| {
        for (what, misdeed) in misdeeds() {
            for has_second in [false, true] {
                scope.spawn(move || assert_frugal(what, misdeed, has_second));
            }
        }
    });
}

#[test]
fn a_burst_survives_that_the_resolver_closes_amid_it() {
    for ending in [Act::Close, Act::Cut, Act::Reset] {
        let resolver = FakeResolver::honest();
        let asked = AtomicUsize::new(0);
        let how = ending.clone();
        resolver.serve(move |query| match asked.fetch_add(1, Ordering::SeqCst) {
            100 => vec![how.clone()],
            _ => vec![answer(query)],
        });
        let forwarder = Forwarder::before(&resolver, &[]);
        let client = forwarder.udp();
        let asks = names_in(200, "burst.test");
        asks.iter().for_each(|ask| client.send(&ask.octets()));
        hear_each_once(|| client.hear(), &asks, &format!("{ending:?}"));
        assert!(client.is_silent(), "{ending:?}: one answer each");
        for ask in &asks {
            let sent = resolver.count(&ask.name);
            assert!(sent <= MOST_SENT, "{ending:?}: {} {sent} times", ask.name);
        }
    }
}

#[test]
fn a_resolver_that_answers_few_queries_a_connection_serves_all_the_same() {
    for queries in [1, 2, 5] {
        let resolver = FakeResolver::honest();
        resolver.close_after(queries);
        let forwarder = Forwarder::before(&resolver, &["--timeout", "20"]);
        let asks = names_in(60, "pipelined.test");
        let mut client: TcpClient = forwarder.tcp();
        client.send(&asks.iter().map(Ask::octets).collect::<Vec<_>>());
        hear_each_once(|| client.hear(), &asks, "pipelined");
        let asks = names_in(40, "at-once.test");
        let mut clients: Vec<TcpClient> = asks.iter().map(|_| forwarder.tcp()).collect();
        for (client, ask) in clients.iter_mut().zip(&asks) {
            client.send(&[ask.octets()]);
        }
        for (client, ask) in clients.iter_mut().zip(&asks) {
            client.hear().assert_answers(ask);
        }
        for ask in names_in(60, "in-a-row.test") {
            let heard = client.ask(&ask.octets());
            heard.assert_answers(&ask);
        }
    }
}
