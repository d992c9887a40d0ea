//! It comes back when the network does, and says what is wrong with a network that keeps it from its resolver.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ::log::Level;

use crate::support::{Ask, FakeResolver, Forwarder, Greeting, PATIENCE, pki, wait_until};

const SERVFAIL: u16 = 2;
/// Between two queries.
const PACE: Duration = Duration::from_millis(20);

/// Asks until the log says what keeps the resolver from being reached, and returns that line. Queries are what connections are opened for.
fn obstruction(resolver: &FakeResolver, forwarder: &Forwarder) -> String {
    let client = forwarder.udp();
    let until = Instant::now() + PATIENCE;
    loop {
        let ask = Ask::a(1, "x.test");
        client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
        let lines = resolver.log(Level::Warn).into_iter();
        let mut lines = lines.filter(|line| line.contains("event=network-obstructed"));
        if let Some(line) = lines.next() {
            return line;
        }
        assert!(Instant::now() < until, "in vain");
        sleep(PACE);
    }
}

/// The page for people.
fn page(forwarder: &Forwarder) -> String {
    let monitor = forwarder.running().monitor().expect("it is asked for");
    let mut socket = TcpStream::connect(monitor).expect("it listens");
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("text");
    page
}

#[test]
fn a_server_of_another_name_looks_like_a_captive_portal_until_the_resolver_answers() {
    let resolver = FakeResolver::with_chain(&pki().chain(&["portal.hotel.test"], |_| {}));
    let forwarder = Forwarder::before(&resolver, &["--monitor", "127.0.0.1:0"]);
    let line = obstruction(&resolver, &forwarder);
    for part in ["kind=other-server", "captive portal", "with a browser"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(page(&forwarder).contains("log in to the network with a browser"));
    resolver.show(&pki().honest());
    let ask = Ask::a(1, "x.test");
    // Nothing tells that the login is done.
    wait_until("an answer after the login", || {
        let is_right = forwarder.udp().ask(&ask.octets()).rcode() == 0;
        sleep(PACE);
        is_right
    });
    assert!(!page(&forwarder).contains("log in to the network"));
}

#[test]
fn a_network_that_closes_connections_is_named_when_it_goes_on_doing_so() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Reset);
    let forwarder = Forwarder::before(&resolver, &[]);
    let line = obstruction(&resolver, &forwarder);
    for part in ["kind=closed", "blocks DNS over TLS"] {
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn a_reload_tries_a_resolver_at_once_that_failed_authentication() {
    let resolver = FakeResolver::with_chain(&pki().chain(&["other.test"], |_| {}));
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(1, "x.test");
    let client = forwarder.udp();
    let fail_until = |connections: usize| {
        wait_until("a further attempt", || {
            client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
            sleep(PACE);
            resolver.connections() >= connections
        });
    };
    // After three attempts the next is two seconds away.
    fail_until(3);
    let before = Instant::now();
    resolver.show(&pki().honest());
    forwarder.running().reload();
    client.ask(&ask.octets()).assert_answers(&ask);
    let took = before.elapsed();
    assert!(took.as_millis() < 1500, "{took:?}");
}
