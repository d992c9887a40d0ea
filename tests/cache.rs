//! What was answered once is answered again without the resolver, for as long as it says, and after that only when there
//! is nothing better.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use dns_tool::forward::outcome::Outcome;

use crate::support::message::{self, Edns, record};
use crate::support::process::Process;
use crate::support::{Act, Ask, FakeResolver, Forwarder, Greeting, scaled, wait_until};

/// With a cache, which the other tests do without.
const CACHE: [&str; 2] = ["--cache-size", "8388608"];

fn address(query: &[u8]) -> [u8; 4] {
    message::address_of(&query[12..message::question_end(query) - 4])
}

/// A resolver whose answers have this TTL.
fn with_ttl(ttl: u32) -> FakeResolver {
    let resolver = FakeResolver::honest();
    resolver.serve(move |query| {
        let record = record(1, ttl, &address(query));
        vec![Act::Send(message::answer_with(query, &[&record]))]
    });
    resolver
}

/// The TTL of the record that an honest answer has.
fn ttl(heard: &crate::support::Heard) -> u32 {
    let at = message::question_end(&heard.octets) + 6;
    u32::from_be_bytes(heard.octets[at..at + 4].try_into().expect("four octets"))
}

fn edns() -> Edns {
    Edns {
        size: 1232,
        ..Edns::default()
    }
}

#[test]
fn what_was_answered_is_answered_again_without_the_resolver() {
    let resolver = with_ttl(300);
    let forwarder = Forwarder::patient(&resolver, &CACHE);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let asks = [
        Ask::a(1, "www.example.test"),
        Ask::a(2, "wWw.ExAmPlE.tEsT"),
        Ask::a(3, "WWW.EXAMPLE.TEST").with_edns(edns()),
        Ask::a(4, "www.example.test").with_flags([1, 0x20]),
    ];
    for ask in &asks {
        udp.ask(&ask.octets()).assert_answers(ask);
        tcp.ask(&ask.octets()).assert_answers(ask);
    }
    assert_eq!(resolver.queries().len(), 1);
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    for ask in &asks {
        udp.ask(&ask.octets()).assert_answers(ask);
    }
}

#[test]
fn ttls_count_down_and_at_their_end_the_resolver_is_asked_again() {
    let resolver = with_ttl(2);
    let forwarder = Forwarder::before(&resolver, &CACHE);
    let client = forwarder.udp();
    let ask = Ask::a(1, "www.example.test");
    let mut seen = Vec::new();
    let began = Instant::now();
    wait_until("another query", || {
        let heard = client.ask(&ask.octets());
        heard.assert_answers(&ask);
        seen.push(ttl(&heard));
        resolver.queries().len() > 1
    });
    assert!(
        began.elapsed() >= Duration::from_millis(1800),
        "a renewal is in the last tenth"
    );
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
    assert!(!seen.contains(&0), "{seen:?}");
}

#[test]
fn what_may_not_be_kept_is_asked_for_each_time() {
    let resolver = FakeResolver::honest();
    for (what, ttl, flags) in [("a TTL of 0", 0, 0), ("a truncated answer", 300, 2)] {
        resolver.serve(move |query| {
            let mut answer = message::answer_with(query, &[&record(1, ttl, &address(query))]);
            answer[2] |= flags;
            vec![Act::Send(answer)]
        });
        let forwarder = Forwarder::patient(&resolver, &CACHE);
        let before = resolver.queries().len();
        for id in 0..3 {
            let ask = Ask::a(id, "www.example.test");
            forwarder.tcp().ask(&ask.octets()).assert_answers(&ask);
        }
        assert_eq!(resolver.queries().len(), before + 3, "{what}");
    }
    resolver.serve(|query| vec![Act::Send(message::error(query, 5))]);
    let forwarder = Forwarder::patient(&resolver, &CACHE);
    let before = resolver.queries().len();
    for id in 0..3 {
        let ask = Ask::a(id, "www.example.test");
        forwarder.udp().ask(&ask.octets()).assert_error(&ask, 5);
    }
    assert_eq!(resolver.queries().len(), before + 3, "REFUSED");
}

#[test]
fn what_is_asked_without_rd_goes_past_the_cache() {
    let resolver = with_ttl(300);
    let forwarder = Forwarder::patient(&resolver, &CACHE);
    let client = forwarder.udp();
    let ask = Ask::a(1, "www.example.test");
    client.ask(&ask.octets()).assert_answers(&ask);
    for id in 2..4 {
        let ask = Ask::a(id, "www.example.test").with_flags([0, 0]);
        let heard = client.ask(&ask.octets());
        heard.assert_answers(&ask);
        assert_eq!(heard.octets[2] & 1, 0, "RD is the asker's");
    }
    let queries = resolver.queries();
    assert_eq!(queries.len(), 3);
    assert_eq!(queries[2][2] & 1, 0, "and the resolver's to see");
}

#[test]
fn a_known_answer_is_cut_for_who_takes_less() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let text = record(16, 300, &[&[255; 1][..], &[b'x'; 255]].concat().repeat(3));
        vec![Act::Send(message::answer_with(query, &[&text]))]
    });
    let forwarder = Forwarder::patient(&resolver, &CACHE);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let ask = Ask::a(1, "large.test").with_type(16);
    for _ in 0..2 {
        assert!(!tcp.ask(&ask.octets()).is_truncated());
        assert!(udp.ask(&ask.octets()).is_truncated());
        let heard = udp.ask(&ask.clone().with_edns(edns()).octets());
        assert!(!heard.is_truncated() && heard.has_opt());
    }
    assert_eq!(resolver.queries().len(), 1);
}

#[test]
fn a_thousand_clients_that_ask_for_one_cold_name_are_one_query() {
    const CLIENTS: u16 = 1000;
    const THREADS: u16 = 50;
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let answer = message::answer(query);
        vec![Act::Later(Duration::from_millis(500), answer)]
    });
    let forwarder = Forwarder::patient(&resolver, &CACHE);
    let warm = Ask::a(0, "warm.test");
    forwarder.udp().ask(&warm.octets()).assert_answers(&warm);
    let start = Barrier::new(usize::from(THREADS));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, forwarder) = (&start, &forwarder);
            scope.spawn(move || {
                // Each client has a socket and a spelling of its own; one in ten asks over TCP.
                let asks: Vec<_> = (thread..CLIENTS)
                    .step_by(THREADS.into())
                    .map(|id| {
                        let cased =
                            |(at, letter): (usize, char)| match id.rotate_right(at as u32) & 1 {
                                1 => letter.to_ascii_uppercase(),
                                _ => letter,
                            };
                        let name: String = "oncewasenough.test"
                            .chars()
                            .enumerate()
                            .map(cased)
                            .collect();
                        Ask::a(id, &name)
                    })
                    .collect();
                let (datagrams, streams): (Vec<_>, Vec<_>) = asks
                    .into_iter()
                    .enumerate()
                    .partition(|(at, _)| at % 10 != 0);
                let mut udp: Vec<_> = datagrams.iter().map(|_| forwarder.udp()).collect();
                let mut tcp: Vec<_> = streams.iter().map(|_| forwarder.tcp()).collect();
                start.wait();
                for (client, (_, ask)) in udp.iter().zip(&datagrams) {
                    client.send(&ask.octets());
                }
                for (client, (_, ask)) in tcp.iter_mut().zip(&streams) {
                    client.send(&[ask.octets()]);
                }
                for (client, (_, ask)) in udp.iter_mut().zip(&datagrams) {
                    client.hear().assert_answers(ask);
                }
                for (client, (_, ask)) in tcp.iter_mut().zip(&streams) {
                    client.hear().assert_answers(ask);
                }
            });
        }
    });
    assert_eq!(resolver.queries().len(), 2, "the warm one and the cold one");
}

#[test]
fn a_popular_answer_is_renewed_before_it_expires() {
    // Its last tenth is long enough for a slow machine to ask in it.
    let resolver = with_ttl(10);
    let forwarder = Forwarder::patient(&resolver, &CACHE);
    let client = forwarder.udp();
    let ask = Ask::a(1, "popular.test");
    wait_until("a renewal", || {
        client.ask(&ask.octets()).assert_answers(&ask);
        resolver.queries().len() > 1
    });
    // Nobody waited for it: the resolver may take its time.
    let answered = forwarder.running().count(Outcome::Answered);
    assert_eq!(answered, 1, "only the first asker waited");
    assert_eq!(resolver.queries().len(), 2, "it was renewed once");
}

#[test]
fn expired_answers_go_out_while_the_resolver_is_away_and_fresh_ones_when_it_is_back() {
    let resolver = with_ttl(1);
    let forwarder = Forwarder::before(&resolver, &CACHE);
    let client = forwarder.udp();
    let asks: Vec<_> = (0..20)
        .map(|id| Ask::a(id, &format!("n{id}.test")).with_edns(edns()))
        .collect();
    for ask in &asks {
        client.ask(&ask.octets()).assert_answers(ask);
    }
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    for ask in &asks {
        wait_until("an expired answer", || {
            let heard = client.ask(&ask.octets());
            heard.assert_answers(ask);
            match heard.extended_error() {
                None => false,
                Some(code) => {
                    assert_eq!((code, ttl(&heard)), (3, 30), "Stale Answer");
                    true
                }
            }
        });
    }
    let unknown = Ask::a(99, "unknown.test").with_edns(edns());
    client.ask(&unknown.octets()).assert_error(&unknown, 2);
    resolver.greet(Greeting::Shake);
    wait_until("the resolver's return", || {
        client.ask(&unknown.octets()).rcode() == 0
    });
    for ask in &asks {
        wait_until("a fresh answer", || {
            let heard = client.ask(&ask.octets());
            heard.assert_answers(ask);
            heard.extended_error().is_none()
        });
    }
}

#[test]
fn an_expired_answer_goes_out_when_the_resolver_is_slow() {
    let resolver = with_ttl(1);
    // With so much time for a query, hope lasts for 1.8 seconds.
    let forwarder = Forwarder::before(&resolver, &[&CACHE[..], &["--timeout", "20"]].concat());
    let mut client = forwarder.tcp();
    let ask = Ask::a(1, "slow.test").with_edns(edns());
    client.ask(&ask.octets()).assert_answers(&ask);
    resolver.serve(|_| Vec::new());
    // It is asked at the expiry, or up to 100 ms before for a renewal, which may have begun a while ago.
    wait_until("an expired answer", || {
        let began = Instant::now();
        let heard = client.ask(&ask.octets());
        heard.assert_answers(&ask);
        let stale = heard.extended_error() == Some(3);
        assert!(
            !stale || began.elapsed() >= Duration::from_millis(900),
            "it waited in hope"
        );
        stale
    });
    // Of several, since a busy machine may take its time with one.
    let quick = (0..5).any(|_| {
        let began = Instant::now();
        assert_eq!(client.ask(&ask.octets()).extended_error(), Some(3));
        began.elapsed() < Duration::from_millis(900)
    });
    assert!(quick, "the next need not wait");
}

#[test]
fn what_the_resolver_has_decided_goes_out_as_it_came_and_no_expired_answer_covers_it() {
    let resolver = with_ttl(1);
    let forwarder = Forwarder::before(&resolver, &CACHE);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test").with_edns(edns());
    client.ask(&ask.octets()).assert_answers(&ask);
    // Refused, since it is blocked.
    resolver.serve(|query| {
        let blocked = Edns {
            options: vec![(15, vec![0, 15])],
            ..edns()
        };
        vec![Act::Send(message::with_opt(
            message::error(query, 5),
            &blocked,
        ))]
    });
    let mut heard = client.ask(&ask.octets());
    wait_until("the answer to expire", || {
        heard = client.ask(&ask.octets());
        heard.rcode() == 5
    });
    assert_eq!(heard.extended_error(), Some(15));
    // And so it stays.
    assert_eq!(client.ask(&ask.octets()).rcode(), 5);
    assert_eq!(forwarder.running().count(Outcome::Stale), 0);
}

#[test]
fn without_serve_stale_what_expired_is_gone() {
    let resolver = with_ttl(1);
    let options = [&CACHE[..], &["--serve-stale", "0"]].concat();
    let forwarder = Forwarder::before(&resolver, &options);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test");
    client.ask(&ask.octets()).assert_answers(&ask);
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    wait_until("a failure", || client.ask(&ask.octets()).rcode() == 2);
}

#[test]
fn a_name_that_fails_is_not_asked_for_again_at_once_and_then_is() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| vec![Act::Send(message::error(query, 2))]);
    let forwarder = Forwarder::before(&resolver, &CACHE);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test").with_edns(edns());
    for _ in 0..10 {
        client.ask(&ask.octets()).assert_error(&ask, 2);
    }
    let count = resolver.queries().len();
    assert!(count <= 3, "{count} queries");
    resolver.serve(|query| vec![Act::Send(message::answer(query))]);
    wait_until("an answer", || client.ask(&ask.octets()).rcode() == 0);
}

#[test]
fn sigusr1_empties_the_cache_and_the_log_says_of_how_much() {
    let resolver = with_ttl(300);
    let mut process = Process::before(&resolver, &[]);
    let client = crate::support::UdpClient::to(process.address);
    let asks = [Ask::a(1, "one.test"), Ask::a(2, "two.test")];
    let ask_both = || {
        for ask in &asks {
            client.ask(&ask.octets()).assert_answers(ask);
        }
    };
    ask_both();
    let asked = resolver.queries().len();
    ask_both();
    assert_eq!(resolver.queries().len(), asked);
    process.signal("USR1");
    let line = process.read_until("event=cache-flushed");
    assert!(line.contains(" entries=2 octets="), "{line}");
    assert!(!line.contains("test"), "no names: {line}");
    client.ask(&asks[0].octets()).assert_answers(&asks[0]);
    assert!(resolver.queries().len() > asked);
}

#[test]
fn what_was_asked_for_before_the_cache_was_emptied_is_not_kept_when_its_answer_comes() {
    let resolver = FakeResolver::honest();
    let held = Arc::new(std::sync::Mutex::new(Some(Vec::new())));
    let holds = Arc::clone(&held);
    resolver.serve(move |query| {
        let answer = Act::Send(message::answer(query));
        let mut held = holds.lock().expect("no test panics with it");
        match &mut *held {
            // All that is asked until then is answered at once with what comes next.
            Some(answers) if query[13..].starts_with(b"slow") => {
                answers.push(answer);
                Vec::new()
            }
            Some(answers) if query[13..].starts_with(b"go") => {
                let mut all = std::mem::take(answers);
                all.push(answer);
                all
            }
            _ => vec![answer],
        }
    });
    let mut process = Process::before(&resolver, &["--timeout", "20"]);
    let (client, other) = [0, 1]
        .map(|_| crate::support::UdpClient::to(process.address))
        .into();
    let slow = Ask::a(1, "slow.test");
    client.send(&slow.octets());
    resolver.wait_for_queries(1);
    process.signal("USR1");
    process.read_until("event=cache-flushed");
    let go = Ask::a(2, "go.test");
    other.ask(&go.octets()).assert_answers(&go);
    client.hear().assert_answers(&slow);
    held.lock().expect("no test panics with it").take();
    let asked = resolver.queries().len();
    client.ask(&slow.octets()).assert_answers(&slow);
    assert!(resolver.queries().len() > asked, "it was not kept");
}

#[test]
fn the_process_holds_as_much_memory_as_the_cache_may_have() {
    let size = scaled(4, 16) * 1024 * 1024;
    let resolver = FakeResolver::honest();
    let kept = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&kept);
    resolver.serve(move |query| {
        // At first nothing is kept, to see what else the load takes.
        let ttl = if query[13] == b'w' { 0 } else { 300 };
        count.fetch_add(1, Ordering::Relaxed);
        vec![Act::Send(message::answer_with(
            query,
            &[&record(1, ttl, &address(query))],
        ))]
    });
    let process = Process::before(&resolver, &["--cache-size", &size.to_string()]);
    let mut client = crate::support::TcpClient::to(process.address);
    let mut load = |letter: char, count: usize| {
        let mut asked = 0;
        while asked < count {
            // Names of many lengths, and so holes of many sizes when they leave.
            let asks: HashMap<_, _> = (0..500_u16)
                .map(|id| {
                    let number = asked + usize::from(id);
                    let filler = "x".repeat(number * 7 % 41);
                    (id, Ask::a(id, &format!("{letter}{number}{filler}.test")))
                })
                .collect();
            client.send(&asks.values().map(Ask::octets).collect::<Vec<_>>());
            for _ in 0..asks.len() {
                let heard = client.hear();
                heard.assert_answers(&asks[&heard.id()]);
            }
            asked += asks.len();
        }
    };
    load('w', 3000);
    let before = process.resident();
    // Three times what there is room for.
    load('n', 3 * size / 300);
    let grown = process.resident() - before;
    let share = grown as f64 / size as f64;
    eprintln!("{grown} octets of {size}: {share:.3}");
    assert!(
        (0.9..=1.1).contains(&share),
        "{grown} octets of {size}: {share:.3}"
    );
}
