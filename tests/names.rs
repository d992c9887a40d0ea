//! Names with a special use are answered here: the resolver neither sees them nor is needed for them.

use dns_tool::forward::outcome::Outcome;
use domain::rdata::{Aaaa, Ptr, Soa};

use crate::support::message::Edns;
use crate::support::process::Process;
use crate::support::{
    Ask, FakeResolver, Forwarder, Greeting, Heard, NAME, RELAY, UdpClient, pki, temporary_file,
};

const A: u16 = 1;
const NS: u16 = 2;
const SOA: u16 = 6;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const DS: u16 = 43;
const SVCB: u16 = 64;
const AXFR: u16 = 252;

const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;
const BADVERS: u16 = 16;

/// The options of a forwarder as they are when nothing is said of special names.
const ANSWER: [&str; 2] = ["--special-names", "answer"];

const IP6_ZEROS: &str = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";

/// Names that do not exist, and of which none below exists.
const NO_NAMES: [&str; 6] = ["test", "invalid", "local", "onion", "alt", "internal"];

/// The zones that are served here and empty.
fn zones() -> Vec<String> {
    let names = "home.arpa service.arpa 10.in-addr.arpa 168.192.in-addr.arpa 0.in-addr.arpa 127.in-addr.arpa \
                 254.169.in-addr.arpa 2.0.192.in-addr.arpa 100.51.198.in-addr.arpa 113.0.203.in-addr.arpa \
                 255.255.255.255.in-addr.arpa d.f.ip6.arpa 8.e.f.ip6.arpa 9.e.f.ip6.arpa a.e.f.ip6.arpa \
                 b.e.f.ip6.arpa 8.b.d.0.1.0.0.2.ip6.arpa";
    let mut zones: Vec<_> = names.split(' ').map(str::to_owned).collect();
    zones.extend((16..=31).map(|number| format!("{number}.172.in-addr.arpa")));
    zones.extend((64..=127).map(|number| format!("{number}.100.in-addr.arpa")));
    zones.extend([format!("0.{IP6_ZEROS}"), format!("1.{IP6_ZEROS}")]);
    zones
}

/// Questions: name, type, response code, and how many records answer them. Without one, the answer has the SOA of the last
/// name.
fn questions() -> Vec<(String, u16, u16, u16, String)> {
    let mut all = Vec::new();
    let mut add = |name: &str, qtype, rcode, answers, apex: &str| {
        all.push((name.to_owned(), qtype, rcode, answers, apex.to_owned()));
    };
    for name in ["localhost", "www.LocalHost"] {
        add(name, A, NOERROR, 1, "localhost");
        add(name, AAAA, NOERROR, 1, "localhost");
        add(name, SVCB, NOERROR, 0, "localhost");
    }
    for apex in NO_NAMES {
        add(apex, A, NXDOMAIN, 0, apex);
        add(&format!("www.Example.{apex}"), AAAA, NXDOMAIN, 0, apex);
    }
    add("_dns.resolver.arpa", SVCB, NOERROR, 0, "resolver.arpa");
    add("resolver.arpa", A, NOERROR, 0, "resolver.arpa");
    for apex in zones() {
        add(&apex, SOA, NOERROR, 1, &apex);
        add(&apex, NS, NOERROR, 1, &apex);
        add(&apex, A, NOERROR, 0, &apex);
        add(&format!("9.{apex}"), PTR, NXDOMAIN, 0, &apex);
    }
    let apex = "127.in-addr.arpa";
    add("1.0.0.127.in-addr.arpa", PTR, NOERROR, 1, apex);
    add("0.127.in-addr.arpa", PTR, NOERROR, 0, apex);
    let apex = format!("1.{IP6_ZEROS}");
    add(&apex, PTR, NOERROR, 1, &apex);
    all
}

/// With EDNS and DO.
fn dnssec_ok() -> Edns {
    Edns {
        size: 1232,
        flags: 0x8000,
        ..Edns::default()
    }
}

/// The owner and the serial number of the SOA in the authority section, and the TTL of a negative answer.
fn soa(heard: &Heard) -> Option<(String, u32, u32)> {
    let message = heard.message();
    let authority = message.authority().expect("an authority section");
    let record = authority.limit_to::<Soa<_>>().next()?.expect("a record");
    let (data, ttl) = (record.data(), record.ttl().as_secs());
    assert_eq!(data.rname().to_string(), "nobody.invalid");
    let owner = record.owner().to_string().to_ascii_lowercase();
    let ttl = ttl.min(data.minimum().as_secs());
    Some((owner, data.serial().into_int(), ttl))
}

/// It answers `ask` as it should.
fn assert_local(heard: &Heard, ask: &Ask, (rcode, answers, apex): (u16, u16, &str)) {
    assert_eq!(heard.id(), ask.id);
    assert_eq!(heard.question(), ask.question(), "{ask:?}");
    assert_eq!(heard.whole_rcode(), rcode, "{ask:?}");
    let [high, low] = ask.flags;
    let rcode = heard.rcode();
    assert_eq!(
        heard.octets[2..4],
        [0x84 | high & 1, 0x80 | low & 0x10 | rcode]
    );
    let negative = u16::from(answers == 0);
    let edns = u16::from(ask.edns.is_some());
    assert_eq!(heard.counts(), [1, answers, negative, edns], "{ask:?}");
    assert_eq!(heard.has_opt(), ask.edns.is_some(), "{ask:?}");
    let expected = (negative == 1).then(|| (apex.to_owned(), 1, 10_800));
    assert_eq!(soa(heard), expected, "{ask:?}");
}

#[test]
fn special_use_names_are_answered_without_the_resolver() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &ANSWER);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let questions = questions();
    for (name, qtype, rcode, answers, apex) in &questions {
        let expected = (*rcode, *answers, &**apex);
        let plain = Ask::a(1, name).with_type(*qtype);
        let upper = Ask::a(2, &name.to_ascii_uppercase()).with_type(*qtype);
        let secure = plain.clone().with_flags([1, 0x10]).with_edns(dnssec_ok());
        let without_recursion = plain.clone().with_flags([0, 0]);
        for ask in [&plain, &upper, &secure, &without_recursion] {
            assert_local(&udp.ask(&ask.octets()), ask, expected);
            assert_local(&tcp.ask(&ask.octets()), ask, expected);
        }
    }
    let asked = u64::try_from(questions.len()).expect("a few hundred");
    assert_eq!(forwarder.running().count(Outcome::Local), 8 * asked);
    let other = Ask::a(3, "www.example");
    udp.ask(&other.octets()).assert_answers(&other);
    assert_eq!(resolver.queries().len(), 1, "the other name alone");
}

#[test]
fn localhost_is_this_host_and_this_host_is_localhost() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &ANSWER);
    let client = forwarder.udp();
    let ask = |name: &str, qtype| client.ask(&Ask::a(1, name).with_type(qtype).octets());
    assert_eq!(ask("localhost", A).addresses(), [[127, 0, 0, 1]]);
    let heard = ask("www.localhost", AAAA);
    let message = heard.message();
    let answers = message.answer().expect("an answer section");
    let addresses: Vec<_> = answers
        .limit_to::<Aaaa>()
        .map(|record| record.expect("a record").data().addr())
        .collect();
    assert_eq!(addresses, [std::net::Ipv6Addr::LOCALHOST]);
    for name in ["1.0.0.127.in-addr.arpa", &format!("1.{IP6_ZEROS}")] {
        let heard = ask(name, PTR);
        let message = heard.message();
        let answers = message.answer().expect("an answer section");
        let names: Vec<_> = answers
            .limit_to::<Ptr<_>>()
            .map(|record| record.expect("a record").data().ptrdname().to_string())
            .collect();
        assert_eq!(names, ["localhost"], "{name}");
    }
}

#[test]
fn while_the_resolver_is_away_special_use_names_are_answered() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Close);
    let forwarder = Forwarder::before(&resolver, &ANSWER);
    let client = forwarder.udp();
    for (name, qtype, rcode, answers, apex) in questions() {
        let ask = Ask::a(1, &name).with_type(qtype);
        assert_local(&client.ask(&ask.octets()), &ask, (rcode, answers, &apex));
    }
    let other = Ask::a(3, "www.example");
    client.ask(&other.octets()).assert_error(&other, SERVFAIL);
}

#[test]
fn relayed_special_use_names_reach_the_resolver() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &RELAY);
    let client = forwarder.udp();
    let mut names = zones();
    names.extend(NO_NAMES.map(str::to_owned));
    names.extend(["localhost", "resolver.arpa"].map(str::to_owned));
    for name in names
        .iter()
        .flat_map(|name| [name.clone(), format!("www.{name}")])
    {
        let ask = Ask::a(1, &name);
        client.ask(&ask.octets()).assert_answers(&ask);
        assert_eq!(resolver.count(&name), 1, "{name}");
    }
    assert_eq!(forwarder.running().count(Outcome::Local), 0);
}

#[test]
fn names_that_only_end_alike_reach_the_resolver() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &ANSWER);
    let client = forwarder.udp();
    for name in [
        "xlocal",
        "x.xlocal",
        "mylocalhost",
        "local.example",
        "nas.lan",
        "example",
        "ipv4only.arpa",
        "home.arpa.example",
        "8.8.8.8.in-addr.arpa",
        "15.172.in-addr.arpa",
        "32.172.in-addr.arpa",
        "63.100.in-addr.arpa",
        "128.100.in-addr.arpa",
        "110.in-addr.arpa",
        "in-addr.arpa",
        "c.f.ip6.arpa",
    ] {
        let ask = Ask::a(1, name);
        client.ask(&ask.octets()).assert_answers(&ask);
        assert_eq!(resolver.count(name), 1, "{name}");
    }
}

#[test]
fn what_only_the_resolver_can_answer_reaches_it() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::patient(&resolver, &ANSWER);
    let client = forwarder.udp();
    // The proof that a zone is not signed is in the zone above.
    for apex in zones() {
        let ask = Ask::a(1, &apex).with_type(DS).with_edns(dnssec_ok());
        client.ask(&ask.octets());
        assert_eq!(resolver.count(&apex), 1, "{apex}");
    }
    let mut signed = Ask::a(1, "www.local").octets();
    signed[11] = 1;
    signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
    client.ask(&signed);
    assert_eq!(resolver.count("www.local"), 1, "a signed query");
}

#[test]
fn queries_that_may_not_be_asked_are_refused_for_special_use_names_too() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &ANSWER);
    let client = forwarder.udp();
    let ask = Ask::a(1, "localhost").with_type(AXFR);
    client.ask(&ask.octets()).assert_error(&ask, REFUSED);
    let ask = Ask::a(1, "localhost").with_edns(Edns {
        version: 1,
        ..dnssec_ok()
    });
    client.ask(&ask.octets()).assert_error(&ask, BADVERS);
    let forwarder = Forwarder::before(
        &resolver,
        &[&ANSWER[..], &["--allow", "192.0.2.1"]].concat(),
    );
    let ask = Ask::a(1, "localhost");
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, REFUSED);
    let limited = [&ANSWER[..], &["--rate-limit", "1/1"]].concat();
    let forwarder = Forwarder::before(&resolver, &limited);
    let mut client = forwarder.tcp();
    assert_eq!(client.ask(&ask.octets()).addresses(), [[127, 0, 0, 1]]);
    client.ask(&ask.octets()).assert_error(&ask, REFUSED);
    let running = forwarder.running();
    assert_eq!(running.count(Outcome::RateLimited), 1);
    assert_eq!(running.count(Outcome::Local), 1);
}

#[test]
fn a_reload_turns_the_answers_off_and_on() {
    let resolver = FakeResolver::honest();
    let text = format!(
        "resolver-addr {}\nresolver-fqdn {NAME}\naddress 127.0.0.1\nport 0\nresolver-ca {}\n",
        resolver.address(),
        pki().root_file().display(),
    );
    let file = temporary_file("options-special-names", text.as_bytes());
    let mut process = Process::plain(&["--config", file.to_str().expect("a path in UTF-8")], &[]);
    let client = UdpClient::to(process.address);
    let ask = Ask::a(1, "www.local");
    for (line, relayed) in [
        ("", 0),
        ("special-names relay\n", 1),
        ("special-names answer\n", 1),
    ] {
        std::fs::write(&file, format!("{text}{line}")).expect("writes");
        if !line.is_empty() {
            process.signal("HUP");
            process.read_until("event=config-reloaded");
        }
        let heard = client.ask(&ask.octets());
        let is_local = line != "special-names relay\n";
        assert_eq!(heard.whole_rcode() == NXDOMAIN, is_local, "{line}");
        assert_eq!(resolver.count("www.local"), relayed, "{line}");
    }
}

#[test]
fn the_guide_lists_each_special_use_name() {
    let guide = include_str!("../src/guide/names.md");
    let mut names = zones();
    names.retain(|name| {
        !name.ends_with(".172.in-addr.arpa") && !name.ends_with(".100.in-addr.arpa")
    });
    names.extend(NO_NAMES.map(str::to_owned));
    names.extend(["localhost", "resolver.arpa"].map(str::to_owned));
    for name in names {
        let written = match name.strip_suffix(IP6_ZEROS) {
            Some("0.") => "`::`".to_owned(),
            Some(_) => "`::1`".to_owned(),
            None => format!("`{name}.`"),
        };
        assert!(guide.contains(&written), "{written}");
    }
    for range in [
        "`16.172.in-addr.arpa.` to `31.172.in-addr.arpa.`",
        "`64.100.in-addr.arpa.` to `127.100.in-addr.arpa.`",
    ] {
        assert!(guide.contains(range), "{range}");
    }
}
