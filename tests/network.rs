//! It comes back when the network does.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Ask, FakeResolver, Forwarder, pki, wait_until};

const SERVFAIL: u16 = 2;
/// Between two queries.
const PACE: Duration = Duration::from_millis(20);

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
