//! A service manager hears when it is ready, that it goes on, and that it ends; and the sockets that a manager passes outlive
//! a restart, with all that waits in them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::support::process::{Process, program};
use crate::support::{Ask, FakeResolver, PATIENCE, RELAY, TcpClient, UdpClient, pki, wait_until};

/// A manager's socket, with an abstract name that this process alone uses, and how that is said in the environment.
fn manager(name: &str) -> (UnixDatagram, String) {
    let name = format!("dns-tool-{}-{name}", std::process::id());
    let address = UnixAddress::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (socket, format!("@{name}"))
}

/// The next message.
fn hear(socket: &UnixDatagram) -> String {
    let mut octets = [0; 4096];
    let length = socket.recv(&mut octets).expect("a message");
    String::from_utf8(octets[..length].to_vec()).expect("text")
}

fn before<'o>(resolver: &'o str, options: &[&'o str]) -> Vec<&'o str> {
    let usual = [
        "--resolver-fqdn",
        "resolver.test",
        "--resolver-addr",
        resolver,
    ];
    [&usual[..], options].concat()
}

#[test]
fn a_manager_hears_when_it_is_ready_reloads_and_stops() {
    let resolver = FakeResolver::honest();
    let (socket, name) = manager("notify");
    let address = resolver.address().to_string();
    let process = Process::with(&before(&address, &[]), &[("NOTIFY_SOCKET", &name)]);
    let ready = hear(&socket);
    assert!(ready.starts_with("READY=1\nSTATUS="), "{ready}");
    let ask = Ask::a(1, "www.example.test");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    process.signal("HUP");
    let reloading = hear(&socket);
    let moment = reloading
        .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
        .expect("a reload");
    assert!(
        moment.trim().parse::<u64>().is_ok_and(|moment| moment > 0),
        "{moment}"
    );
    let ready = hear(&socket);
    assert!(
        ready.starts_with("READY=1\nSTATUS=resolver.test at "),
        "{ready}"
    );
    assert!(
        ready.contains("1 queries") && !ready.contains("example"),
        "{ready}"
    );
    process.signal("TERM");
    assert!(hear(&socket).starts_with("STOPPING=1\n"));
    assert_eq!(process.wait(), Some(0));
}

#[test]
fn a_manager_that_is_busy_hears_it_later_and_keeps_no_client_waiting() {
    let resolver = FakeResolver::honest();
    let (socket, name) = manager("busy");
    let address = UnixAddress::from_abstract_name(&name[1..]).expect("a name");
    let others = UnixDatagram::unbound().expect("a socket");
    others.connect_addr(&address).expect("connects");
    others.set_nonblocking(true).expect("does not wait");
    while others.send(b"STATUS=of somebody else").is_ok() {}
    let address = resolver.address().to_string();
    let process = Process::with(&before(&address, &[]), &[("NOTIFY_SOCKET", &name)]);
    let client = UdpClient::to(process.address);
    // For as long as a manager may be busy.
    for id in 0..30 {
        let ask = Ask::a(id, "www.example.test");
        client.ask(&ask.octets()).assert_answers(&ask);
        thread::sleep(Duration::from_millis(10));
    }
    while !hear(&socket).starts_with("READY=1\n") {}
    drop(process);
}

#[test]
fn the_watchdog_is_fed_in_half_of_its_time() {
    let resolver = FakeResolver::honest();
    let (socket, name) = manager("watchdog");
    let address = resolver.address().to_string();
    let variables = [
        ("NOTIFY_SOCKET", name.as_str()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let process = Process::with(&before(&address, &[]), &variables);
    assert!(hear(&socket).starts_with("READY=1\n"));
    for _ in 0..5 {
        assert!(hear(&socket).starts_with("WATCHDOG=1\nSTATUS="));
    }
    // Another process's watchdog is not ours.
    drop(process);
    let variables = [&variables[..], &[("WATCHDOG_PID", "1")]].concat();
    let process = Process::with(&before(&address, &[]), &variables);
    let mut said = hear(&socket);
    while !said.starts_with("READY=1\n") {
        said = hear(&socket);
    }
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a timeout");
    assert!(socket.recv(&mut [0; 16]).is_err());
    drop(process);
}

#[test]
fn a_manager_that_cannot_be_told_is_named() {
    let program = program()
        .args(["--port", "0"])
        .env("NOTIFY_SOCKET", "/no/such/socket")
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&program.stderr).into_owned();
    assert_eq!(program.status.code(), Some(1));
    assert!(
        error.contains("NOTIFY_SOCKET") && error.lines().count() == 1,
        "{error}"
    );
}

/// TCP and UDP on one port of 127.0.0.1.
fn sockets() -> (TcpListener, UdpSocket, SocketAddr) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = tcp.local_addr().expect("bound");
        if let Ok(udp) = UdpSocket::bind(address) {
            return (tcp, udp, address);
        }
    }
}

#[test]
fn sockets_that_are_passed_are_served_and_outlive_it() {
    let resolver = FakeResolver::honest();
    let (tcp, udp, address) = sockets();
    let ask = Ask::a(1, "www.example.test");
    for _ in 0..2 {
        // What comes before there is a process waits for it.
        let early = UdpClient::to(address);
        early.send(&ask.octets());
        let mut caller = TcpClient::to(address);
        caller.send(&[ask.octets()]);
        let mut process = Process::on((&tcp, &udp), &resolver, &[]);
        assert_eq!(process.address, address);
        early.hear().assert_answers(&ask);
        caller.hear().assert_answers(&ask);
        process.signal("TERM");
        process.read_until("event=stopped");
        assert_eq!(process.wait(), Some(0));
    }
}

#[test]
fn what_is_no_socket_of_ours_is_refused() {
    let command = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" 3</dev/null";
    let program = std::process::Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_dns-tool")])
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&program.stderr).into_owned();
    assert_eq!(program.status.code(), Some(1));
    assert!(
        error.contains("LISTEN_FDS") && error.lines().count() == 1,
        "{error}"
    );
}

#[test]
fn a_restart_under_load_loses_no_query_over_udp_or_tcp() {
    let resolver = FakeResolver::honest();
    let (tcp, udp, address) = sockets();
    let over = AtomicBool::new(false);
    let (asked, again) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut running = Some(Process::on((&tcp, &udp), &resolver, &[]));
    thread::scope(|scope| {
        for client in 0..4_u16 {
            let (over, asked) = (&over, &asked);
            scope.spawn(move || {
                let udp = UdpClient::to(address);
                for id in (client..u16::MAX).step_by(4) {
                    let ask = Ask::a(id, "www.example.test");
                    udp.ask(&ask.octets()).assert_answers(&ask);
                    asked.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(4));
                }
            });
            let again = &again;
            scope.spawn(move || {
                let mut tcp = TcpClient::to(address);
                for id in (client..u16::MAX).step_by(4) {
                    let ask = Ask::a(id, "www.example.test");
                    let mut heard = tcp.try_ask(&ask.octets());
                    // A server may close at any time: the client asks again (RFC 7766 section 6.2.4).
                    if heard.is_err() {
                        again.fetch_add(1, Ordering::Relaxed);
                        tcp = TcpClient::to(address);
                        heard = tcp.try_ask(&ask.octets());
                    }
                    heard.expect("an answer").assert_answers(&ask);
                    asked.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(4));
                }
            });
        }
        for _ in 0..3 {
            let before = asked.load(Ordering::Relaxed);
            wait_until("some queries", || {
                asked.load(Ordering::Relaxed) > before + 200
            });
            let mut process = running.take().expect("it runs");
            process.signal("TERM");
            process.read_until("event=stopped");
            assert_eq!(process.wait(), Some(0));
            running = Some(Process::on((&tcp, &udp), &resolver, &[]));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(
        again.load(Ordering::Relaxed) <= 3 * 4,
        "once a client and restart"
    );
}

/// A socket in the place of the journal's, and what `JOURNAL_STREAM` says of the end that a program gets.
fn journal() -> (BufReader<UnixStream>, OwnedFd, String) {
    let (journal, stderr) = UnixStream::pair().expect("two sockets");
    journal.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let stderr: OwnedFd = stderr.into();
    let file = File::from(stderr.try_clone().expect("a descriptor"));
    let metadata = file.metadata().expect("metadata");
    let stream = format!("{}:{}", metadata.dev(), metadata.ino());
    (BufReader::new(journal), stderr, stream)
}

/// A child that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program before `resolver`, with this stderr.
fn start_with(stderr: OwnedFd, stream: &str, resolver: &FakeResolver, more: &[&str]) -> Killed {
    let address = resolver.address().to_string();
    let child = program()
        .args(["--address", "127.0.0.1", "--resolver-ca"])
        .arg(pki().root_file())
        .args(before(&address, &RELAY))
        .args(more)
        .env("JOURNAL_STREAM", stream)
        .stderr(stderr)
        .spawn();
    Killed(child.expect("it starts"))
}

/// Reads lines until one of them holds `part`.
fn read_until(log: &mut BufReader<UnixStream>, part: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    while !lines.last().is_some_and(|line| line.contains(part)) {
        let mut line = String::new();
        let length = log.read_line(&mut line).expect("a line");
        assert!(length > 0, "it ended without {part}: {lines:?}");
        lines.push(line);
    }
    lines
}

#[test]
fn in_the_journal_each_line_begins_with_its_priority_and_has_no_time() {
    let resolver = FakeResolver::honest();
    let options = ["--port", "0", "--query-log", "--log-level", "debug"];
    for is_journal in [true, false] {
        let (mut log, stderr, stream) = journal();
        // Of another process, which started this one: its stderr is not ours.
        let (_other, _stderr, other) = journal();
        let stream = if is_journal { stream } else { other };
        let _process = start_with(stderr, &stream, &resolver, &options);
        let mut lines = read_until(&mut log, "event=listening");
        let address = lines.last().and_then(|line| line.trim().rsplit('=').next());
        let address = address.expect("an address").parse().expect("an address");
        let ask = Ask::a(1, "x.test");
        UdpClient::to(address)
            .ask(&ask.octets())
            .assert_answers(&ask);
        // Two threads write them, in any order.
        for part in ["query client=127.0.0.0/24", "event=resolver-up"] {
            if !lines.iter().any(|line| line.contains(part)) {
                lines.extend(read_until(&mut log, part));
            }
        }
        for line in lines {
            let is_query = line.contains("query client=");
            let level = line.split_once("level=").map_or("", |(_, rest)| rest);
            let level = level.split(' ').next().expect("a word");
            let priority = match level {
                "error" => "<3>level=",
                "warn" => "<4>level=",
                "debug" => "<7>level=",
                _ if is_query => "<6>query client=",
                _ => "<6>level=",
            };
            let start = if is_journal { priority } else { "time=" };
            assert!(line.starts_with(start), "{line}");
            assert_eq!(line.contains("time="), !is_journal, "{line}");
        }
    }
}

#[test]
fn an_error_at_the_start_has_its_priority_in_the_journal() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let resolver = FakeResolver::honest();
    let (log, stderr, stream) = journal();
    let mut process = start_with(stderr, &stream, &resolver, &["--port", &port]);
    let mut text = String::new();
    let mut log = log.into_inner();
    log.read_to_string(&mut text).expect("it ends");
    let last = text.lines().last().expect("a line");
    assert!(last.starts_with("<3>dns-tool: --port "), "{text}");
    assert_eq!(process.0.wait().expect("its end").code(), Some(1));
}

#[test]
fn a_reload_that_is_asked_for_before_the_program_has_begun_waits_and_does_not_end_it() {
    let resolver = FakeResolver::honest();
    let (mut log, stderr, stream) = journal();
    // The program inherits that the signal waits: it comes before the first instruction of its own.
    let early = SigSet::from(Signal::SIGHUP);
    early.thread_block().expect("it waits");
    let process = start_with(stderr, &stream, &resolver, &["--port", "0"]);
    let id = Pid::from_raw(i32::try_from(process.0.id()).expect("a number"));
    kill(id, Signal::SIGHUP).expect("it is there");
    early.thread_unblock().expect("it waits no more");
    read_until(&mut log, "event=listening");
    // It would wait for ever if the program did not take it once it can handle it.
    read_until(&mut log, "event=nothing-to-reload");
    // Others are handled as they come.
    kill(id, Signal::SIGHUP).expect("it is there");
    read_until(&mut log, "event=nothing-to-reload");
}

#[test]
fn reloads_that_are_asked_for_all_the_time_from_the_start_on_do_not_end_it() {
    let resolver = FakeResolver::honest();
    let (mut log, stderr, stream) = journal();
    let process = start_with(stderr, &stream, &resolver, &["--port", "0"]);
    let id = Pid::from_raw(i32::try_from(process.0.id()).expect("a number"));
    let status = format!("/proc/{id}/status");
    // Until then the loader runs, which knows no signals.
    let takes_signals = || {
        let status = std::fs::read_to_string(&status).expect("it is there");
        let mut masks = status.lines().filter_map(|line| line.split_once(":\t"));
        masks.any(|(name, mask)| {
            let mask = u64::from_str_radix(mask, 16).unwrap_or_default();
            matches!(name, "SigBlk" | "SigCgt") && mask & 1 != 0
        })
    };
    while !takes_signals() {
        thread::yield_now();
    }
    let is_serving = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_serving.load(Ordering::Relaxed) {
                kill(id, Signal::SIGHUP).expect("it lives");
                thread::sleep(Duration::from_micros(100));
            }
        });
        let lines = read_until(&mut log, "event=nothing-to-reload");
        is_serving.store(true, Ordering::Relaxed);
        assert!(lines.iter().any(|line| line.contains("event=listening")));
    });
}
