//! Sessions have keys that no quantum computer finds later, where the resolver takes part; and no resolver is lost for that.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ::log::Level;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs, ring};
use rustls::{SupportedProtocolVersion, version};

use crate::support::process::program;
use crate::support::resolver::{Large, tls_with};
use crate::support::{
    Ask, FakeResolver, Forwarder, Greeting, NAME, pki, temporary_file, wait_until,
};

const SERVFAIL: u8 = 2;

/// A resolver that has these groups alone. AWS-LC is another implementation than the one that is tested.
fn resolver(
    groups: &[&'static dyn SupportedKxGroup],
    versions: &[&'static SupportedProtocolVersion],
) -> FakeResolver {
    let provider = CryptoProvider {
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    };
    FakeResolver::with_tls(tls_with(&pki().honest(), versions, &[b"dot"], provider))
}

fn hybrid() -> FakeResolver {
    use aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
    resolver(&[X25519MLKEM768, X25519], &[&version::TLS13])
}

fn ask(forwarder: &Forwarder) {
    let ask = Ask::a(1, "a.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
}

/// Ends the session, and waits until the forwarder knows.
fn end_sessions(resolver: &FakeResolver) {
    let closed = || {
        let lines = resolver.log(Level::Debug).into_iter();
        lines
            .filter(|line| line.contains("event=session-closed"))
            .count()
    };
    let before = closed();
    resolver.hang_up();
    wait_until("the sessions to end", || closed() > before);
}

/// What the log says of the sessions that were opened.
fn opened(resolver: &FakeResolver) -> Vec<String> {
    let lines = resolver.log(Level::Debug).into_iter();
    lines
        .filter_map(|line| {
            let (_, security) = line.split_once("event=session-opened ")?;
            security.split_once(' ').map(|(_, said)| said.to_owned())
        })
        .collect()
}

/// What the log says of hellos that are left out.
fn left_out(resolver: &FakeResolver) -> Vec<String> {
    let lines = resolver.log(Level::Info).into_iter();
    lines.filter(|line| line.contains("post-quantum")).collect()
}

/// The line about a resolver that takes small hellos only.
fn left_out_line(resolver: &FakeResolver) -> String {
    let address = resolver.address();
    format!("event=post-quantum-left-out resolver={address} name={NAME}")
}

/// Asserts whether the gauge says that large hellos are left out, and the page.
fn assert_left_out(forwarder: &Forwarder, resolver: &FakeResolver, is_left_out: bool) {
    let (metrics, page) = (get(forwarder, "/metrics"), get(forwarder, "/"));
    let address = resolver.address();
    let gauge = format!(
        "dns_tool_resolver_post_quantum_left_out{{resolver=\"{address}\",name=\"{NAME}\"}} {}",
        u8::from(is_left_out)
    );
    assert!(metrics.contains(&gauge), "{metrics}");
    assert_eq!(page.contains("post-quantum left out"), is_left_out);
}

/// What the monitoring port serves.
fn get(forwarder: &Forwarder, path: &str) -> String {
    let monitor = forwarder.running().monitor().expect("it is served");
    let mut socket = TcpStream::connect(monitor).expect("connects");
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("sends");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    text
}

const MONITOR: [&str; 2] = ["--monitor", "127.0.0.1:0"];

#[test]
fn a_resolver_that_has_it_is_asked_with_post_quantum_keys_also_when_sessions_are_resumed() {
    let resolver = hybrid();
    let forwarder = Forwarder::patient(&resolver, &MONITOR);
    ask(&forwarder);
    end_sessions(&resolver);
    ask(&forwarder);
    let expected = [
        "tls=1.3 kex=X25519MLKEM768 resumed=false",
        "tls=1.3 kex=X25519MLKEM768 resumed=true",
    ];
    assert_eq!(opened(&resolver), expected);
    assert_eq!((resolver.resumed(), resolver.retried()), (1, 0));
    let metrics = get(&forwarder, "/metrics");
    let sample = "dns_tool_upstream_sessions_opened_total{kex=\"X25519MLKEM768\"} 2";
    assert!(metrics.contains(sample), "{metrics}");
    let page = get(&forwarder, "/");
    assert!(page.contains("class=\"\">X25519MLKEM768</td>"), "{page}");
}

#[test]
fn a_resolver_without_it_costs_no_second_round_trip() {
    use ring::kx_group::{SECP256R1, X25519};
    let resolver = resolver(&[SECP256R1, X25519], &[&version::TLS13]);
    let forwarder = Forwarder::patient(&resolver, &MONITOR);
    for _ in 0..2 {
        ask(&forwarder);
        end_sessions(&resolver);
    }
    let expected = [
        "tls=1.3 kex=x25519 resumed=false",
        "tls=1.3 kex=x25519 resumed=true",
    ];
    assert_eq!(opened(&resolver), expected);
    assert_eq!(resolver.retried(), 0);
    let metrics = get(&forwarder, "/metrics");
    assert!(metrics.contains("sessions_opened_total{kex=\"x25519\"} 2"));
    assert_eq!(left_out(&resolver), [""; 0]);
}

#[test]
fn a_resolver_with_other_curves_alone_asks_for_another_hello_and_gets_it() {
    use ring::kx_group::{SECP256R1, SECP384R1};
    for (group, name) in [(SECP256R1, "secp256r1"), (SECP384R1, "secp384r1")] {
        let resolver = resolver(&[group], &[&version::TLS13]);
        let forwarder = Forwarder::patient(&resolver, &[]);
        ask(&forwarder);
        let expected = format!("tls=1.3 kex={name} resumed=false");
        assert_eq!(opened(&resolver), [expected]);
        assert_eq!(resolver.retried(), 1);
    }
}

#[test]
fn a_resolver_with_tls_1_2_alone_is_asked_with_classical_keys() {
    let resolver = resolver(&[ring::kx_group::X25519], &[&version::TLS12]);
    let forwarder = Forwarder::patient(&resolver, &[]);
    ask(&forwarder);
    end_sessions(&resolver);
    ask(&forwarder);
    // TLS 1.2 resumes without a key exchange.
    let expected = [
        "tls=1.2 kex=x25519 resumed=false",
        "tls=1.2 kex=none resumed=true",
    ];
    assert_eq!(opened(&resolver), expected);
}

#[test]
fn a_resolver_that_takes_no_large_hello_is_asked_with_a_small_one_and_that_is_remembered() {
    let all = [Large::Ignored, Large::Closed, Large::Reset, Large::Refused];
    for (large, sessions) in all.into_iter().zip(["1", "2", "1", "2"]) {
        let resolver = hybrid();
        resolver.greet(Greeting::ShakeIfSmall(large));
        let options = ["--sessions", sessions, "--monitor", "127.0.0.1:0"];
        let forwarder = Forwarder::patient(&resolver, &options);
        let began = Instant::now();
        ask(&forwarder);
        // A connection may take ten seconds: nobody waited for its end.
        assert!(began.elapsed() < Duration::from_secs(8), "{large:?}");
        assert_eq!(resolver.large_hellos(), 2, "{large:?}");
        end_sessions(&resolver);
        ask(&forwarder);
        assert_eq!(resolver.large_hellos(), 2, "{large:?}: it is remembered");
        let expected = [
            "tls=1.3 kex=x25519 resumed=false",
            "tls=1.3 kex=x25519 resumed=true",
        ];
        assert_eq!(opened(&resolver), expected, "{large:?}");
        assert_eq!(left_out(&resolver), [left_out_line(&resolver)], "{large:?}");
        let metrics = get(&forwarder, "/metrics");
        for sample in [
            "dns_tool_upstream_post_quantum_left_out_total 1",
            "dns_tool_upstream_sessions_post_quantum_left_out_total 2",
        ] {
            assert!(metrics.contains(sample), "{large:?}: {metrics}");
        }
        assert_left_out(&forwarder, &resolver, true);
        let page = get(&forwarder, "/");
        assert!(page.contains("x25519, post-quantum left out"), "{page}");
    }
}

#[test]
fn a_small_hello_comes_after_large_ones_although_no_query_waits() {
    for large in [Large::Ignored, Large::Reset] {
        let resolver = hybrid();
        resolver.greet(Greeting::ShakeIfSmall(large));
        let forwarder = Forwarder::before(&resolver, &[]);
        wait_until("the first session", || !opened(&resolver).is_empty());
        assert_eq!(resolver.large_hellos(), 2, "{large:?}");
        ask(&forwarder);
        assert_eq!(resolver.connections(), 3, "{large:?}");
    }
}

#[test]
fn whoever_resets_large_hellos_and_some_small_ones_too_does_not_go_unseen() {
    let resolver = hybrid();
    resolver.greet(Greeting::ShakeAtSecondSmall(Large::Reset));
    let forwarder = Forwarder::patient(&resolver, &MONITOR);
    let asked = Ask::a(1, "a.test");
    wait_until("an answer", || {
        forwarder.udp().ask(&asked.octets()).rcode() != SERVFAIL
    });
    // After the first small hello failed, one large hello is enough for the next.
    assert_eq!((resolver.large_hellos(), resolver.connections()), (3, 5));
    assert_eq!(opened(&resolver), ["tls=1.3 kex=x25519 resumed=false"]);
    assert_eq!(left_out(&resolver), [left_out_line(&resolver)]);
    assert_left_out(&forwarder, &resolver, true);
    let sample = "dns_tool_upstream_sessions_post_quantum_left_out_total 1";
    assert!(get(&forwarder, "/metrics").contains(sample));
}

#[test]
fn after_a_moment_of_trouble_sessions_soon_have_post_quantum_keys_again() {
    let resolver = hybrid();
    resolver.greet(Greeting::ShakeIfSmall(Large::Reset));
    let forwarder = Forwarder::patient(&resolver, &MONITOR);
    ask(&forwarder);
    resolver.greet(Greeting::Shake);
    wait_until("a large hello", || left_out(&resolver).len() > 1);
    let address = resolver.address();
    let restored = format!("event=post-quantum-restored resolver={address} name={NAME}");
    assert_eq!(left_out(&resolver), [left_out_line(&resolver), restored]);
    assert_left_out(&forwarder, &resolver, false);
    let expected = [
        "tls=1.3 kex=x25519 resumed=false",
        "tls=1.3 kex=X25519MLKEM768 resumed=false",
    ];
    assert_eq!(opened(&resolver), expected);
    wait_until("the other session to end", || resolver.open() == 1);
    let other = Ask::a(2, "b.test");
    forwarder.udp().ask(&other.octets()).assert_answers(&other);
    assert_eq!((resolver.connections(), resolver.queries().len()), (4, 2));
}

#[test]
fn one_hello_that_fails_is_no_news_and_a_resolver_that_was_unreachable_is_up_again_in_the_log() {
    let resolver = hybrid();
    let forwarder = Forwarder::patient(&resolver, &[]);
    ask(&forwarder);
    let said = || {
        let lines = resolver.log(Level::Info).into_iter();
        let event = |line: String| line.split(' ').next().map(str::to_owned);
        lines.filter_map(event).collect::<Vec<_>>()
    };
    resolver.greet(Greeting::ResetOnce);
    end_sessions(&resolver);
    let other = Ask::a(2, "b.test");
    forwarder.udp().ask(&other.octets()).assert_answers(&other);
    assert_eq!(said(), ["event=resolver-connected", "event=resolver-up"]);
    resolver.greet(Greeting::Close);
    end_sessions(&resolver);
    let third = Ask::a(3, "c.test");
    let heard = forwarder.udp().ask(&third.octets());
    assert_eq!(heard.rcode(), SERVFAIL);
    resolver.greet(Greeting::Shake);
    wait_until("an answer", || {
        forwarder.udp().ask(&third.octets()).rcode() != SERVFAIL
    });
    let expected = [
        "event=resolver-connected",
        "event=resolver-up",
        "event=resolver-unreachable",
        "event=resolver-up",
    ];
    assert_eq!(said(), expected);
}

#[test]
fn large_hellos_that_time_out_later_are_no_news_and_do_no_harm() {
    let resolver = hybrid();
    resolver.greet(Greeting::ShakeIfSmall(Large::Ignored));
    // The time of a query is that of a connection attempt, too.
    let options = [&MONITOR[..], &["--timeout", "10"]].concat();
    let forwarder = Forwarder::patient(&resolver, &options);
    ask(&forwarder);
    let address = resolver.address();
    let healthy = format!("resolver_healthy{{resolver=\"{address}\",name=\"{NAME}\"}} 1");
    let failures = "upstream_connect_failures_total{stage=\"handshake\"} 2";
    wait_until("both time out", || {
        get(&forwarder, "/metrics").contains(failures)
    });
    let metrics = get(&forwarder, "/metrics");
    assert!(metrics.contains(&healthy), "{metrics}");
    let said = resolver.log(Level::Warn);
    assert_eq!(said, left_out(&resolver));
    ask(&forwarder);
    // And one that found out whether it is still so.
    assert_eq!((resolver.large_hellos(), resolver.connections()), (3, 4));
}

#[test]
fn a_resolver_that_answers_no_hello_is_not_remembered() {
    let resolver = hybrid();
    resolver.greet(Greeting::Close);
    let forwarder = Forwarder::before(&resolver, &[]);
    let ask = Ask::a(1, "a.test");
    for _ in 0..3 {
        let heard = forwarder.udp().ask(&ask.octets());
        assert_eq!(heard.rcode(), SERVFAIL);
    }
    resolver.greet(Greeting::Shake);
    wait_until("an answer", || {
        forwarder.udp().ask(&ask.octets()).rcode() != SERVFAIL
    });
    assert_eq!(left_out(&resolver), [""; 0]);
}

#[test]
fn required_post_quantum_keys_are_had_or_nothing_is_asked_and_the_log_says_why() {
    use ring::kx_group::X25519;
    let resolvers = [
        resolver(&[X25519], &[&version::TLS13]),
        resolver(&[X25519], &[&version::TLS13, &version::TLS12]),
        resolver(&[X25519], &[&version::TLS12]),
    ];
    for classical in &resolvers {
        let forwarder = Forwarder::before(classical, &["--key-exchange", "require"]);
        let ask = Ask::a(1, "a.test");
        let heard = forwarder.udp().ask(&ask.octets());
        assert_eq!(heard.rcode(), SERVFAIL);
        assert!(classical.queries().is_empty());
        let said = classical.log(Level::Warn);
        assert_eq!(said.len(), 1, "{said:?}");
        let cause = "stage=handshake cause=\"no agreement on X25519MLKEM768 in TLS 1.3, which --key-exchange require demands: ";
        assert!(
            said[0].starts_with("event=resolver-unreachable ") && said[0].contains(cause),
            "{said:?}"
        );
    }
    let resolver = hybrid();
    let forwarder = Forwarder::patient(&resolver, &["--key-exchange", "require"]);
    ask(&forwarder);
    let expected = ["tls=1.3 kex=X25519MLKEM768 resumed=false"];
    assert_eq!(opened(&resolver), expected);
}

#[test]
fn required_post_quantum_keys_are_not_given_up_for_a_network_that_takes_no_large_hello() {
    let resolver = hybrid();
    resolver.greet(Greeting::ShakeIfSmall(Large::Closed));
    let forwarder = Forwarder::before(&resolver, &["--key-exchange", "require"]);
    let ask = Ask::a(1, "a.test");
    for _ in 0..3 {
        let heard = forwarder.udp().ask(&ask.octets());
        assert_eq!(heard.rcode(), SERVFAIL);
    }
    assert_eq!(resolver.handshakes(), 0);
    assert_eq!(left_out(&resolver), [""; 0]);
}

#[test]
fn classical_keys_alone_are_offered_where_that_is_set() {
    let resolver = hybrid();
    resolver.greet(Greeting::ShakeIfSmall(Large::Closed));
    let forwarder = Forwarder::patient(&resolver, &["--key-exchange", "classical"]);
    ask(&forwarder);
    assert_eq!(resolver.large_hellos(), 0);
    assert_eq!(opened(&resolver), ["tls=1.3 kex=x25519 resumed=false"]);
}

#[test]
fn a_reload_changes_the_key_exchange_and_replaces_the_sessions() {
    let resolver = hybrid();
    let file = temporary_file("key-exchange.conf", b"key-exchange classical\n");
    let path = file.to_str().expect("a path in UTF-8");
    let forwarder = Forwarder::patient(&resolver, &["--config", path]);
    ask(&forwarder);
    std::fs::write(&file, "key-exchange require\n").expect("the file is writable");
    forwarder.running().reload();
    ask(&forwarder);
    let expected = [
        "tls=1.3 kex=x25519 resumed=false",
        "tls=1.3 kex=X25519MLKEM768 resumed=false",
    ];
    assert_eq!(opened(&resolver), expected);
}

/// The lines that a subcommand prints about the key exchange of `resolver`, without its address; and the exit code.
fn said_by(subcommand: &str, resolver: &FakeResolver, more: &[&str]) -> (Vec<String>, Option<i32>) {
    let anchors = pki().root_file();
    let address = resolver.address().to_string();
    let output = program()
        .args([subcommand, "--address", "127.0.0.1", "--port", "0"])
        .args(["--resolver-addr", &address, "--resolver-fqdn", NAME])
        .arg("--resolver-ca")
        .arg(anchors)
        .args(more)
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = text.lines().filter(|line| line.contains("key exchange"));
    let lines = lines.map(|line| line.replace(&address, "ADDRESS"));
    (lines.collect(), output.status.code())
}

#[test]
fn check_and_pin_say_which_keys_were_agreed_on_and_a_classical_one_is_no_warning() {
    let harmed = hybrid();
    harmed.greet(Greeting::ShakeIfSmall(Large::Reset));
    let classical = resolver(&[ring::kx_group::X25519], &[&version::TLS13]);
    for (resolver, said) in [
        (hybrid(), "X25519MLKEM768, post-quantum"),
        (
            classical,
            "x25519, classical: the resolver has no X25519MLKEM768",
        ),
        (
            harmed,
            "x25519, classical: the handshake fails with X25519MLKEM768, which takes a hello of two packets",
        ),
    ] {
        let checked = said_by("check", &resolver, &["--timeout", "20"]);
        let expected = format!("OK ADDRESS#{NAME} key exchange: {said}");
        assert_eq!(checked, (vec![expected], Some(0)));
        let pinned = said_by("pin", &resolver, &["--timeout", "20"]);
        let expected = format!("# {NAME} at ADDRESS: key exchange {said}");
        assert_eq!(pinned, (vec![expected], Some(0)));
    }
}

#[test]
fn check_says_that_required_keys_cannot_be_had() {
    let classical = resolver(&[ring::kx_group::X25519], &[&version::TLS13]);
    let (lines, code) = said_by("check", &classical, &["--key-exchange", "require"]);
    assert_eq!(code, Some(2));
    let expected = format!(
        "CRITICAL ADDRESS#{NAME} key exchange: stage=handshake cause=\"no agreement on X25519MLKEM768 in TLS 1.3, which \
         --key-exchange require demands: received fatal alert: "
    );
    assert!(lines[0].starts_with(&expected), "{lines:?}");
    let remedy =
        "; remedy: set --key-exchange prefer, or choose a resolver that has X25519MLKEM768";
    assert!(lines[0].ends_with(remedy), "{lines:?}");
}

#[test]
fn check_and_pin_conclude_nothing_from_one_handshake_that_fails() {
    for subcommand in ["check", "pin"] {
        let resolver = hybrid();
        resolver.greet(Greeting::ResetOnce);
        let (lines, code) = said_by(subcommand, &resolver, &["--timeout", "20"]);
        assert_eq!((lines.len(), code), (1, Some(0)), "{lines:?}");
        assert!(
            lines[0].ends_with("X25519MLKEM768, post-quantum"),
            "{lines:?}"
        );
    }
}

#[test]
fn check_says_where_required_keys_are_out_of_reach_for_the_size_of_the_hello_alone() {
    for large in [Large::Closed, Large::Reset, Large::Refused, Large::Ignored] {
        let resolver = hybrid();
        resolver.greet(Greeting::ShakeIfSmall(large));
        let options = ["--key-exchange", "require", "--timeout", "4"];
        let (lines, code) = said_by("check", &resolver, &options);
        assert_eq!(code, Some(2), "{large:?}");
        let expected = format!("CRITICAL ADDRESS#{NAME} key exchange: stage=handshake cause=");
        assert!(lines[0].starts_with(&expected), "{lines:?}");
        let expected = ": it succeeds without X25519MLKEM768, which takes a hello of two packets; remedy: have a hello of \
                        two packets accepted by the resolver, or by the firewall or other network device that drops it; or set \
                        --key-exchange prefer, for classical keys";
        assert!(lines[0].ends_with(expected), "{lines:?}");
        assert!(resolver.queries().is_empty());
    }
}
