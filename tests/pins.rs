//! Pins are changed while the service runs, and nobody notices but who should.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use dns_tool::identity::pin::Pin;

use crate::support::process::Process;
use crate::support::{
    Ask, Chain, FakeResolver, Forwarder, NAME, pki, scaled, temporary_file, wait_until,
};

const SERVFAIL: u16 = 2;

/// A file of pins for the resolver.
fn pin_file(name: &str, pins: &[Pin]) -> PathBuf {
    temporary_file(name, lines(pins).as_bytes())
}

fn lines(pins: &[Pin]) -> String {
    pins.iter()
        .map(|pin| format!("{NAME} {pin} # one of ours\n"))
        .collect()
}

/// Puts other pins into the file as editors do: a new one takes its place.
fn rewrite(path: &PathBuf, pins: &[Pin]) {
    let new = path.with_extension("new");
    fs::write(&new, lines(pins)).expect("writes");
    fs::rename(&new, path).expect("renames");
}

fn option(path: &std::path::Path) -> [&str; 2] {
    ["--pins", path.to_str().expect("a path in UTF-8")]
}

/// Asks `rate` times a second until `change` has been made and for as long again; how many answers were right, and how many
/// were failures.
fn ask_through(forwarder: &Forwarder, rate: u32, change: impl FnOnce() + Send) -> (usize, usize) {
    let span = scaled(Duration::from_millis(800), Duration::from_secs(5));
    let client = forwarder.udp();
    let (mut right, mut failed) = (0, 0);
    thread::scope(|scope| {
        let changing = scope.spawn(|| {
            thread::sleep(span);
            change();
            thread::sleep(span);
        });
        let began = Instant::now();
        for number in 0.. {
            if changing.is_finished() {
                break;
            }
            let due = began + Duration::from_secs(1) * number / rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let ask = Ask::a((number % 60_000) as u16, &format!("n{number}.test"));
            let heard = client.ask(&ask.octets());
            if heard.whole_rcode() == SERVFAIL {
                failed += 1;
            } else {
                heard.assert_answers(&ask);
                right += 1;
            }
        }
    });
    (right, failed)
}

/// The resolver shows another chain from now on, to everybody.
fn roll_over(resolver: &FakeResolver, chain: &Chain) {
    resolver.show(chain);
    resolver.hang_up();
}

#[test]
fn a_key_that_is_changed_costs_no_query_where_it_was_expected() {
    let (old, new) = (pki().honest(), pki().honest());
    let both = pin_file("both", &[old.pin, new.pin]);
    let [old_pin, new_pin] = [old.pin, new.pin].map(|pin| pin.to_string());
    let issuer = pki().issuer.pin().to_string();
    for options in [
        vec!["--resolver-pin", &old_pin, "--resolver-pin", &new_pin],
        vec!["--resolver-pin", &issuer],
        option(&both).to_vec(),
    ] {
        let resolver = FakeResolver::with_chain(&old);
        let forwarder = Forwarder::before(&resolver, &options);
        let (right, failed) = ask_through(&forwarder, 500, || roll_over(&resolver, &new));
        assert_eq!(failed, 0, "{options:?}");
        assert!(right > 200, "{right} asked");
        assert!(resolver.handshakes() >= 2);
    }
    // Announced while the service runs, before it happens.
    let announced = pin_file("announced", &[old.pin]);
    let resolver = FakeResolver::with_chain(&old);
    let forwarder = Forwarder::before(&resolver, &option(&announced));
    let (_, failed) = ask_through(&forwarder, 500, || {
        rewrite(&announced, &[old.pin, new.pin]);
        forwarder.running().reload();
        roll_over(&resolver, &new);
    });
    assert_eq!(failed, 0);
}

#[test]
fn a_key_that_was_not_expected_gets_no_query_until_its_pin_is_there() {
    let (old, new) = (pki().honest(), pki().honest());
    let file = pin_file("unexpected", &[old.pin]);
    let resolver = FakeResolver::with_chain(&old);
    let process = Process::before(&resolver, &option(&file));
    let client = crate::support::UdpClient::to(process.address);
    let first = Ask::a(1, "first.test");
    client.ask(&first.octets()).assert_answers(&first);
    roll_over(&resolver, &new);
    let before = resolver.queries().len();
    for id in 0..200 {
        let ask = Ask::a(id, &format!("lost{id}.test"));
        client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
    }
    assert_eq!(resolver.queries().len(), before, "no query leaves");
    rewrite(&file, &[old.pin, new.pin]);
    process.signal("HUP");
    let began = Instant::now();
    for id in 0.. {
        let ask = Ask::a(id, &format!("found{id}.test"));
        if client.ask(&ask.octets()).whole_rcode() == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(5));
        assert!(began.elapsed() < Duration::from_secs(20), "in vain");
    }
    println!("served again after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_pin_that_is_taken_away_takes_its_sessions_and_tickets_along() {
    let chain = pki().honest();
    let other = pki().honest().pin;
    let file = pin_file("taken", &[chain.pin, other]);
    let resolver = FakeResolver::with_chain(&chain);
    let forwarder = Forwarder::patient(&resolver, &option(&file));
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    // There is a live session, and there are tickets for another one.
    resolver.hang_up();
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    assert_eq!(resolver.resumed(), 1);
    rewrite(&file, &[other]);
    // It is seen without being told.
    wait_until("the session's end", || resolver.open() == 0);
    let before = resolver.queries().len();
    for id in 0..20 {
        let ask = Ask::a(id, &format!("n{id}.test"));
        forwarder
            .udp()
            .ask(&ask.octets())
            .assert_error(&ask, SERVFAIL);
    }
    assert_eq!(resolver.queries().len(), before);
    assert_eq!(resolver.resumed(), 1, "no ticket was used again");
    // With the pin back, all begins anew.
    rewrite(&file, &[chain.pin]);
    wait_until("it to serve again", || {
        forwarder.udp().ask(&ask.octets()).whole_rcode() == 0
    });
    assert_eq!(resolver.resumed(), 1, "with a whole handshake");
}

#[test]
fn a_session_goes_on_where_another_pin_fits_it() {
    let chain = pki().honest();
    let file = pin_file("other", &[chain.pin]);
    let resolver = FakeResolver::with_chain(&chain);
    let forwarder = Forwarder::patient(&resolver, &option(&file));
    let (right, failed) = ask_through(&forwarder, 500, || {
        rewrite(&file, &[pki().issuer.pin(), pki().honest().pin]);
        forwarder.running().reload();
    });
    assert_eq!(failed, 0);
    assert!(right > 200);
    assert_eq!(resolver.connections(), 1, "the same session");
}

#[test]
fn a_broken_file_keeps_the_old_pins_and_says_so() {
    let chain = pki().honest();
    let file = pin_file("broken", &[chain.pin]);
    let resolver = FakeResolver::with_chain(&chain);
    let mut process = Process::before(&resolver, &option(&file));
    let ask = Ask::a(1, "x.test");
    let answers = |address| {
        let client = crate::support::UdpClient::to(address);
        client.ask(&ask.octets()).assert_answers(&ask);
    };
    // What is hung up on below is a session, and not an attempt to open the first.
    answers(process.address);
    for (content, cause) in [
        ("resolver.test AAAA\n", "line 1: "),
        ("other.test PIN\n", "expected a pin for resolver.test"),
        (
            "resolver.test PIN not-before=2099-01-01\n",
            "that counts now",
        ),
    ] {
        let content = content.replace("PIN", &chain.pin.to_string());
        // In one step: a file that was emptied to be written anew is broken in another way.
        let whole = temporary_file("broken-whole", content.as_bytes());
        fs::rename(whole, &file).expect("renames");
        let said = process.read_until("event=pins-reload-failed");
        assert!(said.contains(cause), "{said}");
        resolver.hang_up();
        answers(process.address);
    }
    fs::remove_file(&file).expect("removes");
    let said = process.read_until("event=pins-reload-failed");
    assert!(said.contains("it cannot be read"), "{said}");
    fs::write(&file, lines(&[chain.pin, pki().issuer.pin()])).expect("writes");
    process.read_until("event=pins-reloaded");
}

#[test]
fn a_pin_alone_is_said_to_be_alone() {
    let chain = pki().honest();
    let resolver = FakeResolver::with_chain(&chain);
    let pins = [chain.pin, pki().issuer.pin()].map(|pin| pin.to_string());
    for (count, warned) in [(0, false), (1, true), (2, false)] {
        let options: Vec<_> = pins[..count]
            .iter()
            .flat_map(|pin| ["--resolver-pin", pin])
            .collect();
        let process = Process::before(&resolver, &options);
        process.signal("TERM");
        let (_, log) = process.end_with_whole_log();
        let found = log.contains("event=no-backup-pin name=resolver.test");
        assert_eq!(found, warned, "{count}: {log}");
    }
}

#[test]
fn in_report_mode_a_key_without_a_pin_serves_and_is_said_and_counted() {
    let chain = pki().honest();
    let resolver = FakeResolver::with_chain(&chain);
    let other = pki().honest().pin.to_string();
    let options = ["--resolver-pin", &other, "--pin-mode", "report"];
    let forwarder = Forwarder::patient(&resolver, &options);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    // An answer may be there before a session's doubts are counted and said.
    let doubts = || forwarder.running().degraded_sessions().unpinned.value();
    let said = || resolver.log(log::Level::Warn);
    wait_until("a doubt", || said().len() == 1);
    assert_eq!(doubts(), 1);
    resolver.hang_up();
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    wait_until("a doubt about a resumed session", || said().len() == 2);
    assert_eq!(doubts(), 2);
    let said = said();
    for part in ["event=session-unpinned", &other, &chain.pin.to_string()] {
        assert!(said.iter().all(|line| line.contains(part)), "{said:?}");
    }
    // Chain and name must be right all the same.
    for chain in [pki().unknown_root(), pki().chain(&["other.test"], |_| {})] {
        let resolver = FakeResolver::with_chain(&chain);
        let forwarder = Forwarder::patient(&resolver, &options);
        forwarder
            .udp()
            .ask(&ask.octets())
            .assert_error(&ask, SERVFAIL);
    }
    // And with the right pin there is nothing to say.
    let right = chain.pin.to_string();
    let resolver = FakeResolver::with_chain(&chain);
    let options = ["--resolver-pin", &right, "--pin-mode", "report"];
    let forwarder = Forwarder::patient(&resolver, &options);
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    // What is said of every session comes after the doubts about it.
    wait_until("the session to be said", || {
        !resolver.log(log::Level::Info).is_empty()
    });
    assert_eq!(forwarder.running().degraded_sessions().unpinned.value(), 0);
}

/// A file of one pin, whose date passes soon: in more than three seconds, as dates have whole ones.
fn pin_for_four_seconds(name: &str, chain: &Chain) -> PathBuf {
    let until = std::time::SystemTime::now() + Duration::from_secs(4);
    let until = until
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let until = dns_tool::system::date::Timestamp(until.as_secs());
    let line = format!("{NAME} {} not-after={until:#}\n", chain.pin);
    temporary_file(name, line.as_bytes())
}

#[test]
fn a_session_whose_only_pin_has_passed_its_date_is_not_used_again() {
    let chain = pki().honest();
    let file = pin_for_four_seconds("passed", &chain);
    let resolver = FakeResolver::with_chain(&chain);
    let forwarder = Forwarder::before(&resolver, &option(&file));
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    wait_until("its session's end", || {
        // As it does once an hour.
        forwarder.running().reload();
        resolver.open() == 0
    });
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, SERVFAIL);
}

#[test]
fn a_pins_date_passes_though_what_is_remembered_cannot_be_read() {
    let chain = pki().honest();
    let file = pin_for_four_seconds("passed-unread", &chain);
    let directory = state_dir("unread");
    let options = [
        "--state-dir",
        directory.to_str().expect("a path in UTF-8"),
        "--pin-rollover",
        "0.000002",
    ];
    let resolver = FakeResolver::with_chain(&chain);
    let forwarder = Forwarder::before(&resolver, &[&option(&file)[..], &options].concat());
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    // What was being saved just then may come after it.
    wait_until("nonsense that stays", || {
        fs::write(directory.join("state"), "nonsense\n").expect("writes");
        thread::sleep(Duration::from_millis(300));
        kept(&directory) == "nonsense\n"
    });
    // It is in use, so that no idleness ends its session.
    wait_until("its session's end", || {
        forwarder.udp().ask(&ask.octets()).whole_rcode() == SERVFAIL
    });
    assert_eq!(kept(&directory), "nonsense\n", "nor is it written over");
}

/// A folder of the test's own, empty.
fn state_dir(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a folder");
    path
}

fn kept(directory: &std::path::Path) -> String {
    fs::read_to_string(directory.join("state")).unwrap_or_default()
}

/// A chain whose leaf is in the last third of its life, from 2024 until 2049: whenever the test runs.
fn due() -> Chain {
    pki().chain(&[NAME], |params| {
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(2049, 1, 1);
    })
}

/// About a second and a half: so many days.
const WAIT: &str = "0.000018";

#[test]
fn a_key_that_is_rolled_over_by_the_rules_is_learnt_kept_and_can_be_taken_back() {
    let (old, new) = (due(), pki().honest());
    let [first, second] = [&old, &old].map(FakeResolver::with_chain);
    let directory = state_dir("learnt");
    let pin = old.pin.to_string();
    let options = [
        "--resolver-addr",
        &second.address().to_string(),
        "--resolver-pin",
        &pin,
        "--pin-rollover",
        WAIT,
        "--state-dir",
        directory.to_str().expect("a path in UTF-8"),
    ];
    let mut process = Process::before(&first, &options);
    let client = crate::support::UdpClient::to(process.address);
    let mut id = 0;
    let mut ask = || {
        id += 1;
        let ask = Ask::a(id, &format!("n{id}.test"));
        client.ask(&ask.octets()).whole_rcode()
    };
    wait_until("the old leaf to be remembered", || {
        kept(&directory).contains("accepted ")
    });
    // Address by address, as operators do it: nobody notices.
    roll_over(&first, &new);
    wait_until("the new leaf to be seen", || {
        assert_eq!(ask(), 0, "the other address serves");
        kept(&directory).contains("candidate ")
    });
    thread::sleep(Duration::from_secs(2));
    assert!(
        !kept(&directory).contains("learnt "),
        "not at every address"
    );
    roll_over(&second, &new);
    let said = process.read_until("event=key-accepted");
    assert!(said.contains(&new.pin.to_string()), "{said}");
    wait_until("it to serve again", || ask() == 0);
    wait_until("it to be kept", || kept(&directory).contains("learnt "));
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    assert!(
        kept(&directory).contains("\ntime 20"),
        "{}",
        kept(&directory)
    );
    // It is believed from the next start on, and shown.
    let process = Process::before(&first, &options);
    let client = crate::support::UdpClient::to(process.address);
    let next = Ask::a(1, "next.test");
    client.ask(&next.octets()).assert_answers(&next);
    // Without its line it is not, at once.
    let lines = kept(&directory);
    let without: Vec<_> = lines
        .lines()
        .filter(|line| !line.starts_with("learnt "))
        .collect();
    fs::write(directory.join("state"), without.join("\n") + "\n").expect("writes");
    process.signal("HUP");
    wait_until("its sessions' end", || first.open() + second.open() == 0);
    let ask = Ask::a(2, "lost.test");
    client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
}

#[test]
fn a_key_that_breaks_a_rule_of_roll_over_is_not_learnt() {
    // The old leaf is not due; and a new leaf of another issuer, the root itself.
    let early = pki().honest();
    let other_issuer = pki().directly_under_root();
    for (old, new) in [(early, pki().honest()), (due(), other_issuer)] {
        let resolver = FakeResolver::with_chain(&old);
        let directory = state_dir("refused");
        let pin = old.pin.to_string();
        let options = [
            "--resolver-pin",
            &pin,
            "--pin-rollover",
            "0.000002",
            "--state-dir",
            directory.to_str().expect("a path in UTF-8"),
        ];
        let mut process = Process::before(&resolver, &options);
        wait_until("the old leaf to be remembered", || {
            kept(&directory).contains("accepted ")
        });
        roll_over(&resolver, &new);
        for _ in 0..5 {
            let said = process.read_until("event=key-pending");
            assert!(said.contains(&new.pin.to_string()), "{said}");
        }
        let ask = Ask::a(1, "x.test");
        crate::support::UdpClient::to(process.address)
            .ask(&ask.octets())
            .assert_error(&ask, SERVFAIL);
        assert!(!kept(&directory).contains("learnt "));
        assert_eq!(resolver.queries().len(), 0);
    }
}

#[test]
fn what_is_remembered_is_its_owners_alone_and_a_broken_file_is_said_at_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let resolver = FakeResolver::honest();
    let directory = state_dir("private");
    let option = ["--state-dir", directory.to_str().expect("a path in UTF-8")];
    let process = Process::before(&resolver, &option);
    let ask = Ask::a(1, "x.test");
    crate::support::UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    process.signal("TERM");
    assert_eq!(process.end().0, Some(0));
    let file = directory.join("state");
    let mode = fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    // A time in the future is one before which no clock is right: without a pin it refuses.
    fs::write(&file, "dns-tool state 1\ntime 2080-01-01T00:00:00Z\n").expect("writes");
    let mut process = Process::before(&resolver, &option);
    let said = process.read_until("event=resolver-authentication-failed");
    assert!(said.contains("check=clock"), "{said}");
    drop(process);
    // With one that fits it serves, and says so.
    let issuer = pki().issuer.pin().to_string();
    let options = [&option[..], &["--resolver-pin", &issuer]].concat();
    let mut process = Process::before(&resolver, &options);
    crate::support::UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    process.read_until("event=clock-untrusted");
    process.signal("TERM");
    let (_, log) = process.end();
    assert!(log.contains("sessions-clock-untrusted=1"), "{log}");
    for (content, expected) in [
        ("dns-tool state 2\n", "of a later dns-tool"),
        ("dns-tool state 1\nnonsense\n", "line 2: "),
        ("nonsense\n", "line 1: "),
    ] {
        fs::write(&file, content).expect("writes");
        let output = crate::support::process::program()
            .args(option)
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains(expected) && said.lines().count() == 1,
            "{said}"
        );
    }
}
