//! Link-local addresses are named with their interface, and an interface that is not there is like an address out of reach. What
//! needs an interface that comes and goes is in scripts/network-faults.

use std::process::{Command, Output};

use ::log::Level;

use crate::support::process::{Process, program};
use crate::support::{Ask, FakeResolver, Forwarder, NAME, UdpClient, log, pki, wait_until};

/// No interface has this name.
const MISSING: &str = "[fe80::db8:1%not-there]:853";
const NO_INTERFACE: &str = "cause=\"no network interface not-there\"";
/// Every Linux has this interface, and none has this address there.
const UNREACHABLE: &str = "[fe80::db8:2%lo]:853";

/// What it said on stdout and stderr, and its exit code.
fn run(command: &mut Command) -> (String, String, Option<i32>) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the program runs");
    let text = |octets| String::from_utf8(octets).expect("text");
    (text(stdout), text(stderr), status.code())
}

#[test]
fn a_resolver_whose_interface_is_missing_is_unreachable_and_another_one_serves() {
    let resolver = FakeResolver::honest();
    let mark = log::mark();
    let honest = resolver.address().to_string();
    let forwarder = Forwarder::with(&[
        "--monitor",
        "127.0.0.1:0",
        "--resolver-fqdn",
        NAME,
        "--resolver-addr",
        MISSING,
        "--resolver-addr",
        UNREACHABLE,
        "--resolver-addr",
        &honest,
    ]);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    for (address, cause) in [(MISSING, NO_INTERFACE), (UNREACHABLE, "cause=\"")] {
        let start = format!(
            "event=resolver-unreachable resolver={address} name={NAME} stage=connect {cause}"
        );
        let said = || log::lines(mark, Level::Warn, &start);
        wait_until("a line about it", || !said().is_empty());
        assert_eq!(said().len(), 1, "{:?}", said());
        let other = log::lines(mark, Level::Warn, address);
        assert!(!other[0].contains("Invalid argument"), "{other:?}");
    }
    let monitor = forwarder.running().monitor().expect("it is served");
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(monitor).expect("connects");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("sends");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("an answer");
        text
    };
    let metrics = get("/metrics");
    for address in [MISSING, UNREACHABLE] {
        let sample =
            format!("dns_tool_resolver_healthy{{resolver=\"{address}\",name=\"{NAME}\"}} 0\n");
        assert!(metrics.contains(&sample), "{sample} in {metrics}");
    }
    assert!(
        !metrics.contains("dns_tool_upstream_connect_failures_total{stage=\"connect\"} 0\n"),
        "{metrics}"
    );
    assert!(get("/").contains(&format!("<tr><th>{MISSING}<br><span class=\"soft\">{NAME}")));
}

#[test]
fn an_interface_is_found_after_the_privileges_are_dropped() {
    let resolver = FakeResolver::honest();
    let honest = resolver.address().to_string();
    let addresses = ["--resolver-addr", UNREACHABLE, "--resolver-addr", &honest];
    let mut options = [&addresses[..], &["--resolver-fqdn", NAME]].concat();
    if nix::unistd::geteuid().is_root() {
        options.extend(["--user", "54321"]);
    }
    let mut process = Process::with(&options, &[]);
    let ask = Ask::a(1, "x.test");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    let start = format!("event=resolver-unreachable resolver={UNREACHABLE} ");
    if !process.has_said(&start) {
        process.read_until(&start);
    }
    process.signal("TERM");
    let (code, log) = process.end_with_whole_log();
    assert_eq!(code, Some(0), "{log}");
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains(&start)).expect("that line");
    assert!(!line.contains("no network interface"), "{line}");
}

#[test]
fn commands_name_the_interface_too() {
    let anchors = pki().root_file();
    let resolver = ["--resolver-addr", MISSING, "--resolver-fqdn", NAME];
    let ca = ["--resolver-ca", anchors.to_str().expect("a path in UTF-8")];
    let failure = format!("stage=connect {NO_INTERFACE}");
    let (out, err, code) = run(program()
        .args(["check", "--address", "127.0.0.1", "--port", "0"])
        .args(resolver)
        .args(ca));
    let line = format!("CRITICAL {MISSING}#{NAME} reach: {failure}; remedy: ");
    assert!(out.contains(&line), "{out} {err}");
    assert_eq!(code, Some(2));

    let (out, err, code) = run(program().args(["pin", &format!("{MISSING}#{NAME}")]));
    let line = format!("# {NAME} at {MISSING}: not reached: {failure}\n");
    assert!(out.contains(&line), "{out} {err}");
    assert_eq!(code, Some(1));

    let (_, err, code) = run(program()
        .args(["query", "a.example", "--direct"])
        .args(resolver)
        .args(ca));
    assert!(err.contains(&format!("tls {MISSING}: {failure}")), "{err}");
    assert_eq!(code, Some(1));

    for (transport, option) in [("udp", &[][..]), ("tcp", &["--tcp"])] {
        let (_, err, code) = run(program()
            .args(["query", "a.test", "--address", "fe80::db8:1%not-there"])
            .args(["--port", "853"])
            .args(option));
        let line = format!("{transport} {MISSING}: no network interface not-there");
        assert!(err.contains(&line), "{err}");
        assert_eq!(code, Some(1));
    }
}

#[test]
fn it_does_not_start_on_an_interface_that_is_missing() {
    for (options, expected) in [
        (
            &["--address", "fe80::db8:1%not-there"][..],
            "--address fe80::db8:1%not-there: no network interface not-there; expected an address of this host",
        ),
        (
            &["--address", "fe80::db8:2%lo"],
            "--address fe80::db8:2%lo: TCP [fe80::db8:2%lo]:0: expected an address of this host",
        ),
        (
            &["--address", "127.0.0.1", "--monitor", MISSING],
            "--monitor [fe80::db8:1%not-there]:853: no network interface not-there; expected an address of this host",
        ),
    ] {
        // It ends before it would ask any resolver, and these have no address that is reached.
        let resolver = ["--resolver-addr", MISSING, "--resolver-fqdn", NAME];
        let (_, err, code) = run(program().args(["--port", "0"]).args(resolver).args(options));
        assert!(err.contains(expected), "{err}");
        assert_eq!(code, Some(1), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}
