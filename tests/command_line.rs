//! The process: its command line, its exit codes, its log and its signals.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::process::{Process, program};
use crate::support::{Ask, FakeResolver, UdpClient, wait_until};

fn run(arguments: &[&str]) -> Output {
    program()
        .args(arguments)
        .output()
        .expect("the program runs")
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert_eq!(
        String::from_utf8_lossy(&help.stdout),
        dns_tool::config::help::help()
    );
    let all = run(&["--port", "1", "--help-all"]);
    assert_eq!(
        String::from_utf8_lossy(&all.stdout),
        dns_tool::config::help::help_all()
    );
    let version = run(&["-V"]);
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        format!("dns-tool {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn output_that_cannot_be_written_is_exit_code_1_and_one_line() {
    for arguments in [&["--help"][..], &["--version"], &["--check-config"]] {
        let full = File::options().write(true).open("/dev/full");
        let output = program()
            .args(arguments)
            .stdout(full.expect("a device"))
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("dns-tool: standard output: "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let full = File::options().write(true).open("/dev/full");
    let check = ["check", "--address", "0.0.0.0.0"];
    let output = program()
        .args(check)
        .stdout(full.expect("a device"))
        .output();
    let status = output.expect("the program runs").status;
    assert_eq!(status.code(), Some(3), "the state is not known");
    // A reader that has read enough is no failure.
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let output = program().arg("--help-all").stdout(writer).output();
    let output = output.expect("the program runs");
    assert!(output.status.success() && output.stderr.is_empty());
}

#[test]
fn a_wrong_command_line_is_one_line_on_stderr_and_exit_code_2() {
    for arguments in [
        &["--port", "http"][..],
        &["--no-such-option"],
        &["--resolver-pin", "AAAA"],
        &["--resolver-ca", "/no/such/file"],
        &["--resolver-fqdn", "dns.example"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.starts_with("dns-tool: ") && message.contains(arguments[0]),
            "{message}"
        );
    }
}

#[test]
fn what_only_the_system_refuses_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let output = run(&[
        "--address",
        "127.0.0.1",
        "--port",
        &port,
        "--resolver-addr",
        "127.0.0.1:1",
        "--resolver-fqdn",
        "x.example",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr);
    let expected =
        format!("dns-tool: --port {port}: TCP 127.0.0.1:{port} is in use; expected a free port\n");
    assert_eq!(message, expected);
}

#[test]
fn sigterm_and_sigint_end_it_with_code_0_and_sighup_does_not() {
    for signal in ["TERM", "INT"] {
        let resolver = FakeResolver::honest();
        let process = Process::before(&resolver, &[]);
        let ask = Ask::a(1, "private.test");
        UdpClient::to(process.address)
            .ask(&ask.octets())
            .assert_answers(&ask);
        process.signal("HUP");
        process.signal("PIPE");
        UdpClient::to(process.address)
            .ask(&ask.octets())
            .assert_answers(&ask);
        process.signal(signal);
        let (code, log) = process.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("event=resolver-up"), "{log}");
        assert!(
            log.contains(&format!("event=stopping signal=SIG{signal}")),
            "{log}"
        );
        assert!(
            log.contains("event=stopped") && log.contains("answered=1 cached=1"),
            "{log}"
        );
        for line in log.lines() {
            assert!(
                line.starts_with("time=") && line.contains(" level=info event="),
                "{line}"
            );
            assert!(
                !line.contains("private"),
                "no name at the default level: {line}"
            );
            assert!(
                !line.contains("client="),
                "no client at the default level: {line}"
            );
        }
    }
}

#[test]
fn names_and_clients_are_in_the_log_from_debug_on() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &["--log-level", "debug"]);
    let ask = Ask::a(1, "pri\u{7}vate.test");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    wait_until("the query to be over", || !resolver.queries().is_empty());
    process.signal("TERM");
    let (_, log) = process.end();
    let line = log
        .lines()
        .find(|line| line.contains("event=query"))
        .expect("a line for the query");
    assert!(line.contains("client=127.0.0.1:"), "{line}");
    assert!(
        line.contains("question=\"pri\\007vate.test./1\" outcome=answered"),
        "{line}"
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let resolver = FakeResolver::honest();
    resolver.serve(|_| Vec::new());
    let mut process = Process::before(&resolver, &["--timeout", "60"]);
    UdpClient::to(process.address).send(&Ask::a(1, "x.test").octets());
    resolver.wait_for_queries(1);
    process.signal("TERM");
    // Two that wait at the same time would be one.
    process.read_until("event=stopping");
    let began = Instant::now();
    process.signal("TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(128 + 15), "{log}");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it did not wait for the query"
    );
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let resolver = FakeResolver::honest();
    for gone in [false, true] {
        let mut process = Process::before(&resolver, &["--log-level", "debug"]);
        if gone {
            process.close_log();
        }
        // Lines of more than a hundred octets: many times what a pipe holds.
        let client = UdpClient::to(process.address);
        for id in 0..3000 {
            let ask = Ask::a(id, "x.test");
            client.ask(&ask.octets()).assert_answers(&ask);
        }
        process.signal("TERM");
        assert_eq!(process.wait(), Some(0), "reader gone: {gone}");
    }
}

#[test]
fn started_as_root_it_becomes_the_user_that_it_shall_be_or_does_not_run() {
    let resolver = FakeResolver::honest();
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        let output = run(&["--port", "0", "--user", "54321"]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("--user 54321") && said.contains("started as root"),
            "{said}"
        );
        return;
    }
    let process = Process::before(&resolver, &["--user", "54321"]);
    let ask = Ask::a(1, "x.test");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    for (line, expected) in [
        ("Uid:", "54321 54321 54321 54321"),
        ("Gid:", "54321 54321 54321 54321"),
        ("Groups:", ""),
        ("CapEff:", "0000000000000000"),
        ("CapPrm:", "0000000000000000"),
    ] {
        assert_eq!(process.status(line), expected, "{line}");
    }
    assert_eq!(process.core_limit(), "0 0", "no core dumps");
    // As that user it cannot leave a group, and where it lies here others may not reach it.
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("dns-tool");
    fs::copy(program().get_program(), &copy).expect("room for a copy");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let output = Command::new("setpriv")
        .args(["--reuid=54321", "--regid=54321", "--groups=54321,4,27"])
        .arg(copy)
        .args(["--port", "0", "--user", "54321"])
        .output();
    // Of util-linux, which not every system has.
    let Ok(output) = output else { return };
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "dns-tool: --user 54321: groups [4, 27] are left; expected to be started as root, or as that user with no other \
         groups than its own\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_cargo_adds_to_the_environment_is_taken_for_no_option() {
    // `cargo run` hands on what the build script says for the compiler.
    let script = include_str!("../scripts/build.rs");
    assert!(script.contains("rustc-env="));
    assert!(!script.contains("rustc-env=DNS_TOOL_"));
}
