//! Names of hosts files are answered here, as the files are now: the resolver neither sees them nor is needed for them.

use std::fs;
use std::net::Ipv6Addr;
use std::path::Path;

use dns_tool::forward::outcome::Outcome;
use domain::rdata::{Aaaa, Ptr, Soa};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tempfile::TempDir;

use crate::support::message::Edns;
use crate::support::process::{Process, program};
use crate::support::{
    Ask, FakeResolver, Forwarder, Greeting, Heard, NAME, RELAY, UdpClient, pki, seed, wait_until,
};

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const DS: u16 = 43;
const HTTPS: u16 = 65;

const NOERROR: u16 = 0;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;

const LINES: &str = "192.0.2.10 NAS.lan nas.example.com # the disk\n\
                     2001:db8::10 nas.lan\n\
                     192.0.2.11 nas.lan\n\
                     192.0.2.10 nas.lan.\n\
                     0.0.0.0 ads.example\n";
const REVERSE: &str = "10.2.0.192.in-addr.arpa";
const REVERSE_V6: &str = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";

/// Questions, and what answers them: the number of records.
const QUESTIONS: [(&str, u16, u16); 10] = [
    ("nas.lan", A, 2),
    ("nas.lan", AAAA, 1),
    ("nas.lan", TXT, 0),
    ("nas.lan", DS, 0),
    ("nas.example.com", AAAA, 0),
    ("ads.example", A, 1),
    ("ads.example", HTTPS, 0),
    (REVERSE, PTR, 1),
    (REVERSE, A, 0),
    (REVERSE_V6, PTR, 1),
];

/// A file in a folder of its own, in which nothing else changes.
struct HostsFile {
    folder: TempDir,
}

impl HostsFile {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Self { folder };
        file.replace(text);
        file
    }

    fn path(&self) -> String {
        let path = self.folder.path().join("hosts");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Puts another file in its place, as editors do.
    fn replace(&self, text: &str) {
        seed::keep("hosts", &[text.as_bytes()]);
        let new = self.folder.path().join("new");
        fs::write(&new, text).expect("writes");
        fs::rename(&new, self.path()).expect("renames");
    }
}

fn dnssec_ok() -> Edns {
    Edns {
        size: 1232,
        flags: 0x8000,
        ..Edns::default()
    }
}

/// The owner of the SOA in the authority section, and the TTL of a negative answer.
fn soa(heard: &Heard) -> Option<(String, u32)> {
    let message = heard.message();
    let authority = message.authority().expect("an authority section");
    let record = authority.limit_to::<Soa<_>>().next()?.expect("a record");
    let ttl = record
        .ttl()
        .as_secs()
        .min(record.data().minimum().as_secs());
    Some((record.owner().to_string().to_ascii_lowercase(), ttl))
}

/// It answers `ask` with so many records, or with a SOA.
fn assert_local(heard: &Heard, ask: &Ask, answers: u16) {
    assert_eq!(heard.id(), ask.id);
    assert_eq!(heard.question(), ask.question(), "{ask:?}");
    let [high, low] = ask.flags;
    assert_eq!(
        heard.octets[2..4],
        [0x84 | high & 1, 0x80 | low & 0x10],
        "{ask:?}"
    );
    assert_eq!(heard.whole_rcode(), NOERROR, "{ask:?}");
    let negative = u16::from(answers == 0);
    let edns = u16::from(ask.edns.is_some());
    assert_eq!(heard.counts(), [1, answers, negative, edns], "{ask:?}");
    let expected = (negative == 1).then(|| (ask.name.to_ascii_lowercase(), 60));
    assert_eq!(soa(heard), expected, "{ask:?}");
    let message = heard.message();
    let answers = message.answer().expect("an answer section");
    for record in answers.limit_to::<domain::rdata::AllRecordData<_, _>>() {
        let record = record.expect("a record");
        assert_eq!(record.ttl().as_secs(), 60, "{ask:?}");
        assert_eq!(record.owner().to_string(), ask.name, "{ask:?}");
    }
}

fn addresses(client: &UdpClient, name: &str) -> Vec<[u8; 4]> {
    client.ask(&Ask::a(1, name).octets()).addresses()
}

/// The options that name these files.
fn hosts<'f>(files: &[&'f str]) -> Vec<&'f str> {
    files.iter().flat_map(|file| ["--hosts", file]).collect()
}

#[test]
fn listed_names_are_answered_without_the_resolver() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new(LINES);
    let forwarder = Forwarder::patient(&resolver, &hosts(&[&file.path()]));
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    for (name, qtype, answers) in QUESTIONS {
        let plain = Ask::a(1, name).with_type(qtype);
        let upper = Ask::a(2, &name.to_ascii_uppercase()).with_type(qtype);
        let secure = plain.clone().with_flags([1, 0x10]).with_edns(dnssec_ok());
        let without_recursion = plain.clone().with_flags([0, 0]);
        for ask in [&plain, &upper, &secure, &without_recursion] {
            assert_local(&udp.ask(&ask.octets()), ask, answers);
            assert_local(&tcp.ask(&ask.octets()), ask, answers);
        }
    }
    let asked = 8 * QUESTIONS.len() as u64;
    assert_eq!(forwarder.running().count(Outcome::Local), asked);
    assert!(resolver.queries().is_empty(), "nothing upstream");
}

#[test]
fn a_listed_name_has_all_its_addresses_in_order_and_an_address_its_first_name() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new(LINES);
    let other = HostsFile::new("192.0.2.12 nas.lan\n192.0.2.10 other.lan\n");
    let files = [&file.path()[..], &other.path()];
    let forwarder = Forwarder::before(&resolver, &hosts(&files));
    let client = forwarder.udp();
    let expected = [10, 11, 12].map(|last| [192, 0, 2, last]);
    assert_eq!(addresses(&client, "nas.lan"), expected, "of both files");
    assert_eq!(addresses(&client, "other.lan"), [[192, 0, 2, 10]]);
    assert_eq!(addresses(&client, "ads.example"), [[0, 0, 0, 0]]);
    let heard = client.ask(&Ask::a(1, "nas.lan").with_type(AAAA).octets());
    let message = heard.message();
    let records = message.answer().expect("an answer section");
    let found: Vec<_> = records
        .limit_to::<Aaaa>()
        .map(|record| record.expect("a record").data().addr())
        .collect();
    assert_eq!(found, ["2001:db8::10".parse::<Ipv6Addr>().expect("one")]);
    for name in [REVERSE, REVERSE_V6] {
        let heard = client.ask(&Ask::a(1, name).with_type(PTR).octets());
        let message = heard.message();
        let records = message.answer().expect("an answer section");
        let names: Vec<_> = records
            .limit_to::<Ptr<_>>()
            .map(|record| record.expect("a record").data().ptrdname().to_string())
            .collect();
        assert_eq!(names, ["nas.lan"], "{name}");
    }
}

#[test]
fn while_the_resolver_is_away_listed_names_are_answered() {
    let resolver = FakeResolver::honest();
    resolver.greet(Greeting::Close);
    let file = HostsFile::new(LINES);
    let forwarder = Forwarder::before(&resolver, &hosts(&[&file.path()]));
    let client = forwarder.udp();
    for (name, qtype, answers) in QUESTIONS {
        let ask = Ask::a(1, name).with_type(qtype);
        assert_local(&client.ask(&ask.octets()), &ask, answers);
    }
    let other = Ask::a(3, "www.example");
    client.ask(&other.octets()).assert_error(&other, SERVFAIL);
}

#[test]
fn many_addresses_are_truncated_over_udp_and_whole_over_tcp() {
    let resolver = FakeResolver::honest();
    let lines: String = (1..=128)
        .map(|number| format!("2001:db8::{number:x} many.lan\n"))
        .collect();
    let file = HostsFile::new(&lines);
    let forwarder = Forwarder::before(&resolver, &hosts(&[&file.path()]));
    let ask = Ask::a(1, "many.lan").with_type(AAAA);
    let heard = forwarder.udp().ask(&ask.octets());
    assert!(heard.is_truncated() && heard.octets.len() <= 512);
    assert_local(&forwarder.tcp().ask(&ask.octets()), &ask, 128);
}

#[test]
fn a_listed_name_comes_before_a_special_use_name() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new("192.0.2.1 localhost printer.local\n192.0.2.2 x.home.arpa\n");
    let path = file.path();
    for mode in ["answer", "relay"] {
        let options = ["--hosts", &path, "--special-names", mode];
        let forwarder = Forwarder::before(&resolver, &options);
        let client = forwarder.udp();
        assert_eq!(addresses(&client, "localhost"), [[192, 0, 2, 1]]);
        assert_eq!(addresses(&client, "printer.local"), [[192, 0, 2, 1]]);
        assert_eq!(addresses(&client, "x.home.arpa"), [[192, 0, 2, 2]]);
        let special = mode == "answer";
        let loopback = addresses(&client, "www.localhost") == [[127, 0, 0, 1]];
        assert_eq!(loopback, special, "a name below it is not listed");
    }
    assert_eq!(resolver.count("localhost"), 0);
}

#[test]
fn a_listed_name_comes_before_a_route_and_may_have_a_private_address() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new("192.168.1.1 nas.lan\n");
    let path = file.path();
    let route = ["--route", "lan=nxdomain", "--rebind-protection"];
    let forwarder = Forwarder::before(&resolver, &[&hosts(&[&path])[..], &route].concat());
    let client = forwarder.udp();
    assert_eq!(addresses(&client, "nas.lan"), [[192, 168, 1, 1]]);
    let other = client.ask(&Ask::a(1, "other.lan").octets());
    assert_eq!(other.whole_rcode(), NXDOMAIN);
}

#[test]
fn what_is_not_listed_reaches_the_resolver() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new(LINES);
    let forwarder = Forwarder::patient(&resolver, &hosts(&[&file.path()]));
    let client = forwarder.udp();
    for name in [
        "www.nas.lan",
        "lan",
        "xnas.lan",
        "nas.lan.example",
        "12.2.0.192.in-addr.arpa",
    ] {
        let ask = Ask::a(1, name);
        client.ask(&ask.octets()).assert_answers(&ask);
        assert_eq!(resolver.count(name), 1, "{name}");
    }
    let mut signed = Ask::a(1, "nas.lan").octets();
    signed[11] = 1;
    signed.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
    client.ask(&signed);
    assert_eq!(resolver.count("nas.lan"), 1, "a signed query");
}

#[test]
fn a_changed_file_is_seen_without_a_signal_and_no_old_answer_stays() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new("192.0.2.1 a.test b.test\n");
    let path = file.path();
    let options = [&hosts(&[&path])[..], &["--cache-size", "1000000"], &RELAY].concat();
    let forwarder = Forwarder::patient(&resolver, &options);
    let client = forwarder.udp();
    let new = Ask::a(1, "new.test");
    client.ask(&new.octets()).assert_answers(&new);
    assert_eq!(addresses(&client, "b.test"), [[192, 0, 2, 1]]);
    file.replace("192.0.2.2 a.test new.test\n");
    wait_until("the new file is read", || {
        addresses(&client, "a.test") == [[192, 0, 2, 2]]
    });
    assert_eq!(addresses(&client, "new.test"), [[192, 0, 2, 2]], "cached");
    let old = Ask::a(1, "b.test");
    client.ask(&old.octets()).assert_answers(&old);
    // Written in place, and to be empty.
    fs::write(&path, "").expect("writes");
    wait_until("the empty file is read", || {
        addresses(&client, "a.test") != [[192, 0, 2, 2]]
    });
    client.ask(&new.octets()).assert_answers(&new);
}

#[test]
fn a_removed_file_keeps_the_names_and_the_log_says_so() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new("192.0.2.1 a.lan\n");
    let path = file.path();
    let mut process = Process::before(&resolver, &hosts(&[&path]));
    let client = UdpClient::to(process.address);
    fs::remove_file(&path).expect("removes");
    let line = process.read_until("event=hosts-reload-failed");
    let expected = format!("level=error event=hosts-reload-failed file={path:?} cause=\"it cannot");
    assert!(line.contains(&expected), "{line}");
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 1]]);
    process.signal("HUP");
    process.read_until("event=hosts-reload-failed");
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 1]]);
    // The sandbox lets it read the new one.
    file.replace("192.0.2.2 a.lan b.lan\nbroken\n");
    process.read_until("event=hosts-line-skipped");
    let line = process.read_until("event=hosts-reloaded");
    assert!(line.contains("files=1 names=2 skipped=1"), "{line}");
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 2]]);
    process.signal("HUP");
    process.read_until("event=hosts-reloaded");
    assert!(!process.has_said("event=nothing-to-reload"));
}

#[test]
fn a_reload_names_other_files_and_a_wrong_one_changes_nothing() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new("192.0.2.1 a.lan\n");
    let folder = file.folder.path();
    let (options, second) = (folder.join("options"), folder.join("second"));
    fs::write(&second, "192.0.2.2 a.lan b.lan\n").expect("writes");
    let write = |lines: &str| {
        let text = format!(
            "resolver-addr {}\nresolver-fqdn {NAME}\naddress 127.0.0.1\nport 0\nresolver-ca {}\n{lines}",
            resolver.address(),
            pki().root_file().display(),
        );
        fs::write(&options, text).expect("writes");
    };
    let line = |path: &Path| format!("hosts {}\n", path.display());
    write(&line(file.path().as_ref()));
    let path = options.to_str().expect("a path in UTF-8");
    let mut process = Process::plain(&["--config", path], &[]);
    let client = UdpClient::to(process.address);
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 1]]);
    let (one, two) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let both = line(file.path().as_ref()) + &line(&second);
    for (lines, event, found) in [
        (both, "event=config-reloaded", vec![one, two]),
        (
            line(&folder.join("missing")),
            "event=config-reload-failed",
            vec![one, two],
        ),
        (line(&second), "event=config-reloaded", vec![two]),
        (String::new(), "event=config-reloaded", vec![]),
    ] {
        write(&lines);
        process.signal("HUP");
        let said = process.read_until("event=config-reload");
        assert!(said.contains(event), "{lines}: {said}");
        if event.ends_with("failed") {
            let cause = format!("options:6: hosts {:?}: it cannot", folder.join("missing"));
            assert!(said.replace('\\', "").contains(&cause), "{said}");
        }
        let heard = addresses(&client, "a.lan");
        match &found[..] {
            [] => assert_eq!(resolver.count("a.lan"), 1, "no file any more"),
            found => assert_eq!(heard, found, "{lines}"),
        }
    }
}

#[test]
fn skipped_lines_are_in_the_log_and_the_others_hold() {
    let resolver = FakeResolver::honest();
    let lines = format!("fe80::1%eth0 a.lan\n192.0.2.1 a.lan\n{}", "x\n".repeat(7));
    let file = HostsFile::new(&lines);
    let path = file.path();
    let mut process = Process::before(&resolver, &hosts(&[&path]));
    let said = process.read_until("event=hosts-lines-skipped");
    assert!(said.contains("level=warn"), "{said}");
    assert!(
        said.contains("event=hosts-lines-skipped others=3"),
        "{said}"
    );
    let client = UdpClient::to(process.address);
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 1]]);
    process.signal("TERM");
    let (code, log) = process.end_with_whole_log();
    assert_eq!(code, Some(0));
    let skipped: Vec<_> = log
        .lines()
        .filter(|line| line.contains("event=hosts-line-skipped"))
        .collect();
    assert_eq!(skipped.len(), 5, "{log}");
    for (line, number) in skipped.iter().zip([1, 3, 4, 5, 6]) {
        let place = format!("file={path:?} line={number} cause=\"");
        assert!(line.contains(&place), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_one_line_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("writes");
        path
    };
    let names = "::1 a\n".repeat(65_537);
    for (path, cause) in [
        (folder.path().join("missing"), "it cannot be read: "),
        (folder.path().to_owned(), "expected a file"),
        (
            write("long", &vec![b'#'; 1024 * 1024 + 1]),
            "expected a file of at most 1048576 octets",
        ),
        (
            write("many", names.as_bytes()),
            "expected at most 65536 names",
        ),
        (
            write("latin", b"::1 a\n# caf\xe9\n"),
            "line 2: expected UTF-8",
        ),
    ] {
        let output = program().arg("--hosts").arg(&path).output();
        let output = output.expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "{path:?}");
        let said = String::from_utf8(output.stderr).expect("text");
        let expected = format!("dns-tool: --hosts {path:?}: {cause}");
        assert!(said.starts_with(&expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_file_that_cannot_be_read_for_want_of_descriptors_is_read_once_there_are_some() {
    let resolver = FakeResolver::honest();
    let file = HostsFile::new("192.0.2.1 a.lan\n");
    let path = file.path();
    let mut process = Process::before(&resolver, &hosts(&[&path]));
    let client = UdpClient::to(process.address);
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 1]]);
    let pid = Pid::from_raw(process.id().try_into().expect("a small number"));
    // It has inherited the highest limit from this process.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let allow = |current: Option<u64>| {
        let limit = Rlimit { current, maximum };
        let before = prlimit(pid, Resource::Nofile, limit);
        before.expect("the process is ours").current
    };
    let usual = allow(Some(6));
    file.replace("192.0.2.2 a.lan\n");
    let line = process.read_until("event=hosts-reload-failed");
    assert!(line.contains("Too many open files"), "{line}");
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 1]]);
    allow(usual);
    process.read_until("event=hosts-reloaded");
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 2]]);
    // On request, and the all-clear comes though the names are the same.
    allow(Some(6));
    process.signal("HUP");
    process.read_until("event=hosts-reload-failed");
    allow(usual);
    process.read_until("event=hosts-reloaded");
    assert_eq!(addresses(&client, "a.lan"), [[192, 0, 2, 2]]);
}
