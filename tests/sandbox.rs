//! What it may still do once it serves, where the kernel has Landlock.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use dns_tool::system::sandbox::{self, SandboxRules};
use dns_tool::system::scoped_address::ScopedAddress;

use crate::support::process::Process;
use crate::support::{Ask, FakeResolver, NAME, UdpClient};

/// Whether the kernel refused it, and nothing else did.
fn refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Asserts that the sandbox for `rules` lets `inside` be as it is to be, which is told the version of Landlock that there is.
/// In a thread of its own, since no thread gets out again.
fn confined(rules: SandboxRules, inside: impl FnOnce(i32) + Send + 'static) {
    let run = move || match sandbox::restrict_self(&rules).expect("rules that the kernel takes") {
        Some(version) => inside(version),
        None => assert!(fs::read("/etc/passwd").is_ok(), "all is as it was"),
    };
    thread::spawn(run).join().expect("it is as it is to be");
}

/// Puts another text into a file as editors do: a new file takes its place.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("writes");
    fs::rename(&new, file).expect("renames");
}

#[test]
fn the_kernel_refuses_connections_but_to_the_ports_of_resolvers() {
    let [resolver, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let [resolver, other] =
        [&resolver, &other].map(|listener| listener.local_addr().expect("its address"));
    let rules = SandboxRules {
        connect_ports: vec![resolver.port()],
        ..SandboxRules::default()
    };
    confined(rules, move |version| {
        TcpStream::connect(resolver).expect("the resolver's port");
        // What knows files alone is told so.
        let holds = |refused: bool| assert_eq!(refused, version >= 4);
        holds(refused(TcpStream::connect("127.0.0.1:53")));
        holds(refused(TcpStream::connect(other)));
        holds(refused(TcpListener::bind("127.0.0.1:0")));
        // And so are those whom it starts.
        let child = thread::spawn(move || refused(TcpStream::connect(other)));
        holds(child.join().expect("it does not panic"));
    });
    TcpStream::connect(other).expect("nobody else is held to it");
}

#[test]
fn the_kernel_refuses_files_but_those_that_a_reload_reads() {
    let [folder, elsewhere, state] = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let (file, link) = (folder.path().join("pins"), folder.path().join("link"));
    let target = elsewhere.path().join("target");
    let kept = state.path().join("state");
    fs::write(&file, "one").expect("writes");
    fs::write(&target, "elsewhere").expect("writes");
    symlink(&target, &link).expect("links");
    let rules = SandboxRules {
        readable: vec![file.clone(), link.clone()],
        writable_dir: Some(state.path().to_owned()),
        connect_ports: Vec::new(),
    };
    let (ask, asked) = mpsc::channel();
    let (done, replaced) = mpsc::channel();
    let others = file.clone();
    // Somebody else, as whoever edits it is.
    let editor = thread::spawn(move || {
        // Nobody asks where there is no Landlock.
        if asked.recv().is_ok() {
            replace(&others, "two");
            done.send(()).expect("it is waited for");
        }
    });
    confined(rules, move |_| {
        assert!(refused(fs::read("/etc/passwd")));
        assert!(refused(fs::read_dir("/")));
        assert!(
            refused(Command::new("/proc/self/exe").spawn()),
            "nothing is run"
        );
        assert_eq!(fs::read(&file).expect("reads"), b"one");
        assert_eq!(fs::read(&link).expect("reads"), b"elsewhere");
        assert!(refused(fs::write(&file, "three")));
        assert!(refused(fs::remove_file(&file)));
        ask.send(()).expect("somebody waits");
        replaced.recv().expect("the answer");
        assert_eq!(fs::read(&file).expect("reads"), b"two");
        replace(&kept, "kept");
        assert_eq!(fs::read(&kept).expect("reads"), b"kept");
        fs::remove_file(&kept).expect("removes");
    });
    editor.join().expect("it does not panic");
}

#[test]
fn the_kernel_still_tells_which_interfaces_there_are() {
    confined(SandboxRules::default(), |_| {
        let resolve = |text: &str| text.parse::<ScopedAddress>().expect("an address").resolve();
        resolve("[fe80::1%lo]:853").expect("every Linux has lo");
        let missing = resolve("[fe80::1%not-there]:853").expect_err("no such interface");
        assert_eq!(missing.to_string(), "no network interface not-there");
    });
}

#[test]
fn a_reload_reads_no_other_files_and_opens_no_other_ports_and_what_was_serves_on() {
    let (resolver, other) = (FakeResolver::honest(), FakeResolver::honest());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("options");
    let lines = |resolver: &FakeResolver| {
        format!(
            "resolver-fqdn {NAME}\nresolver-addr {}\n",
            resolver.address()
        )
    };
    let before = lines(&resolver);
    fs::write(&file, &before).expect("writes");
    let file_text = file.to_str().expect("a path in UTF-8");
    let mut process = Process::with(&["--config", file_text], &[]);
    let confined = process.has_said("event=sandbox-enabled landlock=");
    assert_ne!(
        confined,
        process.has_said("event=sandbox-unavailable cause=")
    );
    let serves = |process: &Process| {
        let ask = Ask::a(1, "some.test");
        UdpClient::to(process.address)
            .ask(&ask.octets())
            .assert_answers(&ask);
    };
    let mut reload = |text: &str| {
        replace(&file, text);
        process.signal("HUP");
        let line = process.read_until("event=config-reload");
        serves(&process);
        line
    };
    assert!(reload(&format!("{before}timeout 2\n")).contains("event=config-reloaded"));
    let line = reload(&format!("{before}pins /etc/passwd\n"));
    assert!(
        line.contains("event=config-reload-failed") && line.contains("options:3: pins"),
        "{line}"
    );
    assert_eq!(line.contains("Permission denied"), confined, "{line}");
    let line = reload(&lines(&other));
    let kept =
        line.contains("event=config-reload-failed") && line.contains("the sandbox is open for");
    let place = format!("options:2: resolver-addr \\\"{}", other.address());
    assert_eq!(line.contains(&place), confined, "{line}");
    assert_eq!(kept, confined, "{line}");
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
}

#[test]
fn a_reload_that_names_another_user_says_that_it_needs_a_restart() {
    let resolver = FakeResolver::honest();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("options");
    fs::write(&file, "timeout 2\n").expect("writes");
    let options = ["--config", file.to_str().expect("a path in UTF-8")];
    let mut process = Process::before(&resolver, &options);
    // By name, from a list that is out of reach by now.
    replace(&file, "timeout 2\nuser nobody\n");
    process.signal("HUP");
    let line = process.read_until("event=config-reload");
    assert!(line.contains("needs_restart=\"user\""), "{line}");
    replace(&file, "timeout 2\nuser no-such-user\n");
    process.signal("HUP");
    let line = process.read_until("event=config-reload");
    let cause =
        "expected the name or number of a user that is not root, and was there at the start";
    assert!(line.contains(cause), "{line}");
}
