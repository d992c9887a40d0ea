//! With `--rebind-protection`, no name of the public DNS leads a client into its own network, unless its zone is allowed.

use std::net::Ipv4Addr;

use dns_tool::forward::outcome::Outcome;

use crate::support::message::{self, Edns, record};
use crate::support::process::Process;
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, Greeting, Heard, NAME, UdpClient, pki, temporary_file,
    wait_until,
};

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const SVCB: u16 = 64;
const HTTPS: u16 = 65;

const REFUSED: u16 = 5;

const PROTECTED: [&str; 1] = ["--rebind-protection"];
const WITH_CACHE: [&str; 3] = ["--rebind-protection", "--cache-size", "8388608"];
const PRIVATE: [u8; 4] = [192, 168, 1, 1];

/// A resolver that answers every question with these records.
fn answering(records: Vec<Vec<u8>>) -> FakeResolver {
    let resolver = FakeResolver::honest();
    resolver.serve(move |query| {
        let records: Vec<_> = records.iter().map(Vec::as_slice).collect();
        vec![Act::Send(message::answer_with(query, &records))]
    });
    resolver
}

/// A resolver that answers every question with this address.
fn naming(address: [u8; 4]) -> FakeResolver {
    answering(vec![record(A, 300, &address)])
}

fn edns() -> Edns {
    Edns {
        size: 1232,
        ..Edns::default()
    }
}

/// It is a refusal with its reason, as far as the client uses EDNS.
fn assert_refused(heard: &Heard, ask: &Ask) {
    heard.assert_error(ask, REFUSED);
    assert_eq!(heard.has_opt(), ask.edns.is_some());
    if ask.edns.is_some() {
        assert_eq!(heard.extended_error(), Some(15), "Blocked");
        assert_eq!(heard.extended_text().as_deref(), Some("rebinding"));
    }
    assert!(heard.octets.len() <= ask.octets().len() + 15);
}

#[test]
fn an_answer_with_a_private_address_is_refused_over_udp_and_tcp() {
    let resolver = naming(PRIVATE);
    let forwarder = Forwarder::patient(&resolver, &PROTECTED);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let plain = Ask::a(1, "www.example");
    for ask in [&plain, &plain.clone().with_edns(edns())] {
        assert_refused(&udp.ask(&ask.octets()), ask);
        assert_refused(&tcp.ask(&ask.octets()), ask);
    }
    let running = forwarder.running();
    assert_eq!(running.count(Outcome::Rebinding), 4);
    assert_eq!(running.count(Outcome::Answered), 0);
    assert_eq!(resolver.count("www.example"), 4);
}

#[test]
fn without_protection_every_address_passes() {
    let resolver = naming(PRIVATE);
    let forwarder = Forwarder::before(&resolver, &[]);
    let heard = forwarder.udp().ask(&Ask::a(1, "www.example").octets());
    assert_eq!(heard.addresses(), [PRIVATE]);
    // Zones alone protect nothing.
    let forwarder = Forwarder::before(&resolver, &["--rebind-allow", "plex.direct"]);
    let heard = forwarder.udp().ask(&Ask::a(1, "www.example").octets());
    assert_eq!(heard.addresses(), [PRIVATE]);
}

#[test]
fn public_addresses_pass() {
    for address in [[192, 0, 2, 1], [8, 8, 8, 8], [172, 32, 0, 1], [11, 0, 0, 0]] {
        let resolver = naming(address);
        let forwarder = Forwarder::before(&resolver, &PROTECTED);
        let heard = forwarder.udp().ask(&Ask::a(1, "www.example").octets());
        assert_eq!(heard.addresses(), [address]);
        assert_eq!(forwarder.running().count(Outcome::Answered), 1);
    }
}

#[test]
fn names_in_allowed_zones_have_any_address_and_names_like_them_do_not() {
    let resolver = naming(PRIVATE);
    let options = [
        &PROTECTED[..],
        &[
            "--rebind-allow",
            "Plex.direct.",
            "--rebind-allow",
            "corp.example.com",
        ],
    ]
    .concat();
    let forwarder = Forwarder::patient(&resolver, &options);
    let client = forwarder.udp();
    for name in [
        "plex.direct",
        "192-168-1-1.id.plex.direct",
        "x.PLEX.Direct",
        "intranet.corp.example.com",
    ] {
        let ask = Ask::a(1, name);
        assert_eq!(client.ask(&ask.octets()).addresses(), [PRIVATE], "{name}");
    }
    for name in [
        "xplex.direct",
        "direct",
        "plex.direct.example",
        "example.com",
    ] {
        let ask = Ask::a(1, name);
        assert_refused(&client.ask(&ask.octets()), &ask);
    }
}

#[test]
fn an_address_is_found_at_the_end_of_a_chain_and_in_each_kind_of_record() {
    let mapped = Ipv4Addr::from(PRIVATE).to_ipv6_mapped().octets();
    // SvcPriority 1, the own name, and one hint.
    let hint = |key: u8, address: &[u8]| {
        let length = u8::try_from(address.len()).expect("an address");
        [&[0, 1, 0, 0, key, 0, length], address].concat()
    };
    // A CNAME to the root, whose address it is.
    let mut of_the_root = record(A, 300, &PRIVATE);
    of_the_root.splice(..2, [0]);
    for (qtype, records) in [
        (A, vec![record(CNAME, 300, &[0]), of_the_root]),
        (
            A,
            vec![record(A, 300, &[8, 8, 8, 8]), record(A, 300, &PRIVATE)],
        ),
        (A, vec![record(A, 300, &[127, 0, 0, 2])]),
        (A, vec![record(A, 0, &[0, 0, 0, 0])]),
        (AAAA, vec![record(AAAA, 300, &mapped)]),
        (AAAA, vec![record(AAAA, 300, &[0; 16])]),
        (SVCB, vec![record(SVCB, 300, &hint(4, &PRIVATE))]),
        (HTTPS, vec![record(HTTPS, 300, &hint(6, &mapped))]),
    ] {
        let resolver = answering(records.clone());
        let forwarder = Forwarder::before(&resolver, &PROTECTED);
        let ask = Ask::a(1, "www.example").with_type(qtype).with_edns(edns());
        assert_refused(&forwarder.udp().ask(&ask.octets()), &ask);
    }
}

#[test]
fn a_refusal_is_served_from_the_cache() {
    let resolver = naming(PRIVATE);
    let forwarder = Forwarder::patient(&resolver, &WITH_CACHE);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let ask = Ask::a(1, "www.example").with_edns(edns());
    // The time for which a refusal is kept doubles: after a few of them it is longer than the test.
    wait_until("an answer from the cache", || {
        let before = resolver.count("www.example");
        assert_refused(&udp.ask(&ask.octets()), &ask);
        assert_refused(&tcp.ask(&ask.octets()), &ask);
        assert_refused(&udp.ask(&ask.octets()), &ask);
        resolver.count("www.example") == before
    });
    let running = forwarder.running();
    assert_eq!(running.count(Outcome::CachedFailure), 0);
    assert!(running.count(Outcome::Rebinding) >= 6);
}

#[test]
fn an_older_answer_is_not_served_in_place_of_a_refused_one() {
    let resolver = answering(vec![record(A, 1, &[192, 0, 2, 1])]);
    let forwarder = Forwarder::before(&resolver, &WITH_CACHE);
    let client = forwarder.udp();
    let ask = Ask::a(1, "www.example");
    assert_eq!(client.ask(&ask.octets()).addresses(), [[192, 0, 2, 1]]);
    resolver.serve(|query| {
        let private = record(A, 0, &PRIVATE);
        vec![Act::Send(message::answer_with(query, &[&private]))]
    });
    wait_until("the first answer has expired", || {
        client.ask(&ask.octets()).whole_rcode() == REFUSED
    });
    // Once the resolver is gone, expired answers are all that there is; this one has been replaced.
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    wait_until("the refusal has expired", || {
        let heard = client.ask(&ask.octets());
        assert!(heard.addresses().is_empty());
        heard.whole_rcode() != REFUSED
    });
    assert_eq!(forwarder.running().count(Outcome::Stale), 0);
}

#[test]
fn a_reload_turns_the_protection_on_and_off_and_empties_the_cache() {
    let resolver = naming(PRIVATE);
    let text = format!(
        "resolver-addr {}\nresolver-fqdn {NAME}\naddress 127.0.0.1\nport 0\nresolver-ca {}\n",
        resolver.address(),
        pki().root_file().display(),
    );
    let file = temporary_file("options-rebinding", text.as_bytes());
    let mut process = Process::plain(&["--config", file.to_str().expect("a path in UTF-8")], &[]);
    let client = UdpClient::to(process.address);
    let ask = Ask::a(1, "www.example");
    for (lines, is_refused) in [
        ("", false),
        ("rebind-protection\n", true),
        ("rebind-protection\nrebind-allow example\n", false),
        ("rebind-protection\nrebind-allow plex.direct\n", true),
        ("rebind-protection no\n", false),
    ] {
        std::fs::write(&file, format!("{text}{lines}")).expect("writes");
        if !lines.is_empty() {
            process.signal("HUP");
            process.read_until("event=config-reloaded");
        }
        let heard = client.ask(&ask.octets());
        assert_eq!(heard.whole_rcode() == REFUSED, is_refused, "{lines}");
        assert_eq!(heard.addresses().is_empty(), is_refused, "{lines}");
    }
    assert_eq!(resolver.count("www.example"), 5, "each time anew");
}
