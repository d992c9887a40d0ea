//! What `dns-tool pin` and `dns-tool check` say of each fault, and their exit codes.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::time::{SystemTime, UNIX_EPOCH};

use dns_tool::system::date::{DAY, Timestamp};
use rcgen::date_time_ymd;

use crate::support::message;
use crate::support::process::{Process, program};
use crate::support::resolver::tls;
use crate::support::{
    Act, Ask, Chain, CleartextServer, FakeResolver, Forwarder, Greeting, NAME, pki, temporary_file,
};

/// What the program said on stdout, with what differs from run to run named, and its exit code.
struct Said {
    lines: Vec<String>,
    code: Option<i32>,
}

/// Names for what differs from run to run.
struct Names(Vec<(String, &'static str)>);

impl Names {
    fn of(resolver: &FakeResolver) -> Self {
        Self(vec![
            (resolver.address().to_string(), "ADDRESS"),
            (pki().issuer.pin().to_string(), "ISSUER"),
            (pki().root.pin().to_string(), "ROOT"),
        ])
    }

    fn and(mut self, found: impl std::fmt::Display, name: &'static str) -> Self {
        self.0.push((found.to_string(), name));
        self
    }

    fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (found, name) in &self.0 {
            text = text.replace(found, name);
        }
        if self.0.is_empty() {
            return text;
        }
        // Numbers before " ms", after "left, from the leaf on:", and the time of day.
        let mut words: Vec<String> = Vec::new();
        let mut counting = false;
        for word in text.split(' ') {
            let is_number = word.trim_end_matches([';', ',']).parse::<u64>().is_ok();
            let rest = word.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if counting && is_number {
                words.push(format!("N{rest}"));
                continue;
            }
            counting = word == "on:";
            if word.starts_with("ms")
                && let Some(last) = words.last_mut()
            {
                "N".clone_into(last);
            }
            let is_time = word.len() == 20 && word.ends_with('Z') && word.starts_with("20");
            words.push(if is_time {
                "NOW".to_owned()
            } else {
                word.to_owned()
            });
        }
        words.join(" ")
    }
}

fn run(subcommand: &str, options: &[&str], names: &Names) -> Said {
    let output = program()
        .arg(subcommand)
        .args(options)
        .output()
        .expect("the program runs");
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    Said {
        lines: text.lines().map(|line| names.apply(line)).collect(),
        code: output.status.code(),
    }
}

/// The options of a daemon before this resolver.
fn options(resolver: &FakeResolver, more: &[&str]) -> Vec<String> {
    let root = pki().root_file();
    let root = root.to_str().expect("a path in UTF-8");
    let address = resolver.address().to_string();
    let own = ["--address", "127.0.0.1", "--port", "0", "--timeout", "1"];
    let theirs = [
        "--resolver-addr",
        &address,
        "--resolver-fqdn",
        NAME,
        "--resolver-ca",
        root,
    ];
    let all = own.iter().chain(&theirs).chain(more);
    // Whatever comes later takes the place of what is said before.
    let mut options: Vec<String> = Vec::new();
    let words: Vec<_> = all.map(ToString::to_string).collect();
    for pair in words.chunks(2) {
        let once = ["--address", "--port", "--resolver-fqdn", "--resolver-ca"];
        if let Some(at) = options.iter().position(|known| *known == pair[0])
            && once.contains(&&pair[0][..])
        {
            options[at + 1].clone_from(&pair[1]);
        } else {
            options.extend_from_slice(pair);
        }
    }
    options
}

/// Runs `check` as text and as JSON, which must say the same, and asserts what the faults are, in lines, and the exit code.
fn assert_faults(
    what: &str,
    resolver: &FakeResolver,
    more: &[&str],
    names: &Names,
    faults: &[&str],
    code: i32,
) {
    let options = options(resolver, more);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let said = run("check", &options, names);
    let found: Vec<_> = said.lines[1..]
        .iter()
        .filter(|line| !line.starts_with("OK "))
        .map(String::as_str)
        .collect();
    assert_eq!(found, faults, "{what}: {:#?}", said.lines);
    assert_eq!(said.code, Some(code), "{what}: {:#?}", said.lines);
    let state = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(code).expect("a code")];
    assert!(
        said.lines[0].starts_with(&format!("{state} dns-tool: ")),
        "{what}: {:?}",
        said.lines
    );
    let as_it_is = Names(Vec::new());
    let json = run("check", &[&options[..], &["--json"]].concat(), &as_it_is);
    assert_eq!(json.code, Some(code), "{what}");
    let json: serde_json::Value = serde_json::from_str(&json.lines[0]).expect("JSON");
    assert_eq!(json["state"], state, "{what}");
    let findings = json["findings"].as_array().expect("findings").iter();
    let field = |finding: &serde_json::Value, name: &str| finding[name].as_str().map(str::to_owned);
    let lines: Vec<_> = findings
        .map(|finding| {
            let remedy = field(finding, "remedy");
            let remedy = remedy.map_or(String::new(), |remedy| format!("; remedy: {remedy}"));
            let [state, subject, text] =
                ["state", "subject", "text"].map(|name| field(finding, name).expect("a field"));
            names.apply(&format!("{state} {subject}: {text}{remedy}"))
        })
        .collect();
    assert_eq!(lines, said.lines[1..], "{what}: text and JSON say the same");
}

const ONE_KEY: &str = "WARNING resolver.test pins: one key alone: when it is changed, all names stop; remedy: give the pin \
                       of the key that comes next, or of an issuer: dns-tool pin shows them";

/// A resolver that speaks as the best do: its answers are padded, and it says how long it keeps sessions.
fn exemplary() -> FakeResolver {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let edns = message::Edns {
            size: 1232,
            options: vec![(11, vec![0, 100]), (12, vec![0; 400])],
            ..message::Edns::default()
        };
        vec![Act::Send(message::with_opt(message::answer(query), &edns))]
    });
    resolver
}

#[test]
fn a_sound_setup_is_said_line_by_line() {
    let resolver = exemplary();
    let issuer = pki().issuer.pin().to_string();
    let root = pki().root.pin().to_string();
    let more = ["--resolver-pin", &issuer, "--resolver-pin", &root];
    let names = Names::of(&resolver);
    let options = options(&resolver, &more);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let said = run("check", &options, &names);
    assert_eq!(
        said.lines,
        [
            "OK dns-tool: 16 findings, 0 critical, 0 warnings",
            "OK configuration: understood",
            "OK clock: NOW",
            "OK resolver.test pins: 2 of them",
            "OK listening on 127.0.0.1:0: free, TCP and UDP",
            "OK cleartext: no query leaves in cleartext",
            "OK ADDRESS#resolver.test reach: connected and shaken hands in N ms",
            "OK ADDRESS#resolver.test tls: 1.3, ALPN dot",
            "OK ADDRESS#resolver.test key exchange: x25519, classical: the resolver has no X25519MLKEM768",
            "OK ADDRESS#resolver.test chain: valid, up to a trust anchor",
            "OK ADDRESS#resolver.test name: resolver.test",
            "OK ADDRESS#resolver.test pin: pin 1 of 2 is an issuer's",
            "OK ADDRESS#resolver.test expiry: days left, from the leaf on: N N",
            "OK ADDRESS#resolver.test query: NOERROR after N ms",
            "OK ADDRESS#resolver.test padding: answers are padded",
            "OK ADDRESS#resolver.test keepalive: keeps idle sessions for 10.0 s",
            "OK ADDRESS#resolver.test resumption: resumed in N ms",
        ]
    );
    assert_faults("sound", &resolver, &more, &names, &[], 0);
    assert_faults("without pins", &resolver, &[], &names, &[], 0);
}

/// What it says beside that where another server answers on each address.
const PORTAL: &str = "WARNING network: another server answers on each address: it looks like a captive portal; remedy: log in to \
                      the network with a browser; elsewhere, see that the resolver's address and name are right";

#[test]
fn addresses_that_all_fail_in_the_same_way_look_like_a_network_that_blocks_them() {
    let closes = || {
        let resolver = FakeResolver::honest();
        resolver.greet(Greeting::Close);
        resolver
    };
    let (one, other) = (closes(), closes());
    let line = "WARNING network: each address refuses or closes connections: it looks like a captive portal, or a network \
                that blocks DNS over TLS; remedy: log in to the network with a browser, or name a further --resolver on a \
                port that the network lets through";
    let also = other.address().to_string();
    let options = options(&one, &["--resolver-addr", &also]);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let said = run("check", &options, &Names::of(&one));
    assert!(said.lines.contains(&line.to_owned()), "{:#?}", said.lines);
    other.greet(Greeting::Shake);
    let said = run("check", &options, &Names::of(&one));
    let is_blamed = said.lines.iter().any(|line| line.contains(" network:"));
    assert!(!is_blamed, "the other one serves: {:#?}", said.lines);
}

#[test]
fn each_fault_of_an_identity_has_its_line_and_remedy() {
    const ALL: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
    let other = pki().honest().pin.to_string();
    let wrong = ["--resolver-pin", &other];
    let issuer = pki().issuer.pin().to_string();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let soon = Timestamp(now.as_secs() + 5 * DAY).to_string();
    let part = |range: std::ops::Range<usize>| soon[range].parse::<u8>().expect("a number");
    let soon = date_time_ymd(soon[..4].parse().expect("a year"), part(5..7), part(8..10));
    let days = "see this machine's clock; an authority of your own is given by --resolver-ca; else ask the operator";
    let chain =
        |cause: &str| format!("CRITICAL ADDRESS#resolver.test chain: {cause}; remedy: {days}");
    type Row<'r> = (&'r str, Chain, &'r [&'r str], Vec<String>, i32);
    let rows: [Row<'_>; 10] = [
        ("one pin", pki().honest(), &[], vec![], 0),
        (
            "a pin that does not fit",
            pki().honest(),
            &wrong,
            vec![
                ONE_KEY.to_owned(),
                "CRITICAL ADDRESS#resolver.test pin: no key that it shows is pinned: LEAF ISSUER ROOT; remedy: compare the \
                 keys with what its operator publishes, and only then give their pins"
                    .to_owned(),
            ],
            2,
        ),
        (
            "a pin that does not fit, in report mode",
            pki().honest(),
            &["--resolver-pin", &other, "--pin-mode", "report"],
            vec![
                ONE_KEY.to_owned(),
                "WARNING resolver.test pins: --pin-mode report: a key without a pin is taken all the same; remedy: \
                 --pin-mode strict, once the pins are right"
                    .to_owned(),
                "WARNING ADDRESS#resolver.test pin: no key that it shows is pinned: LEAF ISSUER ROOT; remedy: compare the \
                 keys with what its operator publishes, and only then give their pins"
                    .to_owned(),
            ],
            1,
        ),
        (
            "a backup in use",
            pki().honest(),
            &["--resolver-pin", &other, "--resolver-pin", &issuer],
            vec![
                "WARNING ADDRESS#resolver.test pin: pin 2 of 2 is an issuer's: a backup is in use; remedy: the key was \
                 changed: put its pin first, and give the one that comes next as backup"
                    .to_owned(),
            ],
            1,
        ),
        ("an unknown authority", pki().unknown_root(), &[], vec![chain("no issuer of it is trusted")], 2),
        ("no certificate of the issuer", pki().without_issuer(), &[], vec![chain("no issuer of it is trusted")], 2),
        (
            "a certificate of its own",
            pki().self_signed(),
            &[],
            vec![chain("no issuer of it is trusted")],
            2,
        ),
        (
            "an expired certificate",
            pki().chain(&[NAME], |params| params.not_after = date_time_ymd(2021, 1, 1)),
            &[],
            vec![chain("a certificate expired DAYS days ago by this machine's clock")],
            2,
        ),
        (
            "a certificate of the future",
            pki().chain(&[NAME], |params| params.not_before = date_time_ymd(2099, 1, 1)),
            &[],
            vec![chain("a certificate is not valid for another DAYS days by this machine's clock")],
            2,
        ),
        (
            "a certificate that expires soon",
            pki().chain(&[NAME], |params| params.not_after = soon),
            &[],
            vec![
                "WARNING ADDRESS#resolver.test expiry: days left, from the leaf on: N N; remedy: nothing here: its operator \
                 has to renew it; have another --resolver ready"
                    .to_owned(),
            ],
            1,
        ),
    ];
    for (what, chain, more, faults, code) in rows {
        let resolver = FakeResolver::with_chain(&chain);
        let names = Names::of(&resolver).and(chain.pin, "LEAF");
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| fault.replace("DAYS days", &days_in(&chain, fault)))
            .collect();
        let faults: Vec<_> = faults.iter().map(String::as_str).collect();
        assert_faults(what, &resolver, more, &names, &faults, code);
    }
    let resolver = FakeResolver::honest();
    let names = Names::of(&resolver);
    assert_faults(
        "another name",
        &resolver,
        &["--resolver-fqdn", "other.test"],
        &names,
        &[
            "CRITICAL ADDRESS#other.test name: the certificate is for resolver.test; remedy: give the resolver's own name by \
             --resolver-fqdn, or behind the # of --resolver",
            PORTAL,
        ],
        2,
    );
    let old = FakeResolver::with_tls(tls(&pki().honest(), &ALL, &[]));
    assert_faults("TLS 1.2 without ALPN", &old, &[], &Names::of(&old), &[], 0);
}

/// So many days, as the program counts them.
fn days_in(chain: &Chain, fault: &str) -> String {
    let facts = dns_tool::identity::certificate::CertificateInfo::read(&chain.certificates[0])
        .expect("a certificate");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let seconds = if fault.contains("ago") {
        now - facts.not_after
    } else {
        facts.not_before.saturating_sub(now)
    };
    format!("{} days", seconds / DAY)
}

#[test]
fn each_fault_of_a_resolver_has_its_line_and_remedy() {
    const OPERATOR: &str = "ask its operator, or choose another resolver";
    const PORT: &str = "see that DNS over TLS is spoken there, on that port";
    let greeted = |greeting| {
        let resolver = FakeResolver::honest();
        resolver.greet(greeting);
        resolver
    };
    let serving = |script: fn(&[u8]) -> Vec<Act>| {
        let resolver = FakeResolver::honest();
        resolver.serve(script);
        resolver
    };
    let rows: [(&str, FakeResolver, String); 9] = [
        (
            "silence",
            greeted(Greeting::Mute),
            format!("CRITICAL ADDRESS#resolver.test tls: stage=handshake cause=\"no answer in time\"; remedy: {PORT}"),
        ),
        (
            "another protocol",
            greeted(Greeting::Garbage),
            format!(
                "CRITICAL ADDRESS#resolver.test tls: stage=handshake cause=\"received corrupt message of type \
                 InvalidContentType\"; remedy: {PORT}\n{PORTAL}"
            ),
        ),
        (
            "a closed door",
            greeted(Greeting::Close),
            format!(
                "CRITICAL ADDRESS#resolver.test tls: stage=handshake cause=\"CAUSE\"; remedy: {PORT}"
            ),
        ),
        (
            "a connection that is closed after the handshake",
            greeted(Greeting::ShakeAndClose),
            format!("CRITICAL ADDRESS#resolver.test query: no answer: closed; remedy: {OPERATOR}"),
        ),
        (
            "no answer",
            serving(|_| Vec::new()),
            format!("CRITICAL ADDRESS#resolver.test query: no answer in time; remedy: {OPERATOR}"),
        ),
        (
            "an unreadable answer",
            serving(|query| {
                let mut answer = message::answer(query);
                answer[6..8].copy_from_slice(&[0xff, 0xff]);
                vec![Act::Send(answer)]
            }),
            format!("CRITICAL ADDRESS#resolver.test query: an answer that cannot be read; remedy: {OPERATOR}"),
        ),
        (
            "garbage in the session",
            serving(|_| vec![Act::Raw(vec![0, 3, 1, 2, 3])]),
            format!(
                "CRITICAL ADDRESS#resolver.test query: no answer: the resolver sent something that is no DNS message; \
                 remedy: {OPERATOR}"
            ),
        ),
        (
            "refusal",
            serving(|query| vec![Act::Send(message::error(query, 5))]),
            "CRITICAL ADDRESS#resolver.test query: REFUSED after N ms; remedy: ask its operator whether this host may use it"
                .to_owned(),
        ),
        (
            "failure",
            serving(|query| vec![Act::Send(message::error(query, 2))]),
            "CRITICAL ADDRESS#resolver.test query: SERVFAIL after N ms; remedy: ask its operator whether this host may use it"
                .to_owned(),
        ),
    ];
    for (what, resolver, fault) in rows {
        let names = Names::of(&resolver)
            .and("the resolver closed the connection", "CAUSE")
            .and("Connection reset by peer (os error 104)", "CAUSE");
        // Where it is the only one, and where another one serves.
        let faults: Vec<_> = fault.lines().collect();
        assert_faults(what, &resolver, &[], &names, &faults, 2);
    }
    // Nobody there: with nobody else it does not serve, beside another one it does.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = nobody.local_addr().expect("its address");
    drop(nobody);
    let resolver = exemplary();
    let names = Names::of(&resolver).and(gone, "GONE");
    let text = "GONE#resolver.test reach: stage=connect cause=\"Connection refused (os error 111)\"; remedy: see that the \
                address is right and that nothing on the way keeps its port from you";
    let address = gone.to_string();
    assert_faults(
        "one of two is away",
        &resolver,
        &["--resolver-addr", &address],
        &names,
        &[&format!("WARNING {text}")],
        1,
    );
    let alone = program()
        .args([
            "check",
            "--port",
            "0",
            "--address",
            "127.0.0.1",
            "--resolver-fqdn",
            NAME,
        ])
        .args(["--resolver-addr", &address])
        .output()
        .expect("the program runs");
    let said = names.apply(&String::from_utf8_lossy(&alone.stdout));
    assert!(said.contains(&format!("CRITICAL {text}")), "{said}");
    assert_eq!(alone.status.code(), Some(2));
}

#[test]
fn each_fault_of_the_configuration_has_its_line_and_remedy() {
    let resolver = exemplary();
    let leaf = pki().issuer.pin();
    let file = |name: &str, content: String| {
        let path = temporary_file(name, content.as_bytes());
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("its owner may");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let names = || Names::of(&resolver);
    let root = fs::read_to_string(pki().root_file()).expect("a file");
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let broken = file("broken-anchor", format!("{broken}{root}"));
    assert_faults(
        "an anchor that cannot be read",
        &resolver,
        &["--resolver-ca", &broken],
        &names(),
        &[
            "WARNING --resolver-ca: certificate 1, in line 1, cannot be read: it is not PEM: base64 decode error: \
             InvalidCharacter(33); remedy: take it out, or put a sound one in its place",
        ],
        1,
    );
    let old = file("old", format!("{NAME} {leaf} not-after=2021-01-01\n"));
    let ends = "has not counted since 2021-01-01; remedy: take its line away, or give it a later not-after=";
    assert_faults(
        "a pin out of its dates",
        &resolver,
        &["--pins", &old, "--pin-mode", "report"],
        &names(),
        &[
            &format!("WARNING resolver.test pins: pin 1 {ends}"),
            "CRITICAL resolver.test pins: none of them counts now; remedy: give a pin that counts now: dns-tool pin shows \
             the keys",
            "WARNING resolver.test pins: --pin-mode report: a key without a pin is taken all the same; remedy: --pin-mode \
             strict, once the pins are right",
            &"WARNING ADDRESS#resolver.test pin: no key that it shows is pinned: LEAF ISSUER ROOT; remedy: compare the keys \
                 with what its operator publishes, and only then give their pins"
                .replace("LEAF", &leaf_of(&resolver)),
        ],
        2,
    );
    let next = file(
        "next",
        format!(
            "{NAME} {leaf}\n{NAME} {} not-before=2099-01-01\n",
            pki().root.pin()
        ),
    );
    assert_faults(
        "an announced pin",
        &resolver,
        &["--pins", &next],
        &names(),
        &[],
        0,
    );
    let open = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("open-{}", std::process::id()));
    fs::create_dir_all(&open).expect("a directory");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("its owner may");
    let pins = open.join("pins");
    fs::write(
        &pins,
        format!("{NAME} {leaf}\n{NAME} {}\n", pki().root.pin()),
    )
    .expect("writes");
    let path = pins.to_str().expect("a path in UTF-8");
    assert_faults(
        "a directory that others may write",
        &resolver,
        &["--pins", path],
        &names().and(open.to_str().expect("UTF-8"), "OPEN"),
        &[
            "WARNING --pins \"OPEN/pins\": others may put another file in its place; remedy: chmod o-w \"OPEN\"",
        ],
        1,
    );
    fs::remove_dir_all(&open).expect("it goes");
    let mend = "remedy: mend what is named; dns-tool --help-all lists all options";
    let loose = file("loose", format!("{NAME} {leaf}\n"));
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o666)).expect("its owner may");
    let broken = file("broken", "resolver.test AAAA\n".to_owned());
    let strange = file("strange", format!("other.test {leaf}\n"));
    for (what, more, fault) in [
        (
            "a file that others may write",
            ["--pins", &loose],
            "--pins \"PATH\": others may write it (mode 0666); expected that its owner alone may (chmod go-w)",
        ),
        (
            "a broken line",
            ["--pins", &broken],
            "--pins \"PATH\": line 1: \"AAAA\": expected base64 of the 32 bytes of a SHA-256, got 3 bytes",
        ),
        (
            "pins for others",
            ["--pins", &strange],
            "--pins \"PATH\": expected a pin for resolver.test, which may be asked",
        ),
        (
            "no authority",
            ["--resolver-ca", "/no/such/file"],
            "--resolver-ca \"PATH\": it cannot be read: No such file or directory (os error 2); expected a PEM file with at \
             least one certificate",
        ),
        (
            "authorities that others may write",
            ["--resolver-ca", &loose],
            "--resolver-ca \"PATH\": others may write it (mode 0666); expected that its owner alone may (chmod go-w); \
             expected a PEM file with at least one certificate",
        ),
        (
            "no address",
            ["--address", "localhost"],
            "--address \"PATH\": expected an IPv4 or IPv6 address",
        ),
    ] {
        let names = names().and(more[1], "PATH");
        let fault = format!("CRITICAL configuration: {fault}; {mend}");
        assert_faults(what, &resolver, &more, &names, &[&fault], 2);
    }
}

#[test]
fn the_names_and_the_skipped_lines_of_hosts_files_are_said() {
    let resolver = exemplary();
    let names = Names::of(&resolver);
    let sound = temporary_file("check-hosts", b"192.0.2.1 nas.lan\n::1 a.lan nas.lan\n");
    let sound = sound.to_str().expect("a path in UTF-8");
    assert_faults("sound", &resolver, &["--hosts", sound], &names, &[], 0);
    let options = options(&resolver, &["--hosts", sound]);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let said = run("check", &options, &Names(Vec::new()));
    let line = "OK --hosts: 2 names";
    assert!(said.lines.iter().any(|said| said == line));
    let text = format!("192.0.2.1 *.lan\n{}", "x\n".repeat(7));
    let broken = temporary_file("check-broken-hosts", text.as_bytes());
    let names = names.and(broken.display(), "FILE");
    let broken = broken.to_str().expect("a path in UTF-8");
    let remedy = "remedy: mend the line, or take it out";
    let fault = |line: usize| {
        let cause = "\"x\": expected an address such as 192.0.2.1 or 2001:db8::1";
        format!("WARNING --hosts \"FILE\": line {line} is skipped: {cause}; {remedy}")
    };
    let first = format!(
        "WARNING --hosts \"FILE\": line 1 is skipped: \"*.lan\": expected a name of letters, digits, hyphens, underscores and dots; {remedy}"
    );
    let others = format!("WARNING --hosts: 3 more lines are skipped; {remedy}");
    let faults = [first, fault(2), fault(3), fault(4), fault(5), others];
    let faults: Vec<_> = faults.iter().map(String::as_str).collect();
    let options = ["--hosts", sound, "--hosts", broken];
    assert_faults("broken", &resolver, &options, &names, &faults, 1);
}

#[test]
fn a_folder_for_the_state_in_which_it_could_not_write_is_found() {
    let resolver = exemplary();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path in UTF-8");
    let names = || Names::of(&resolver).and(path, "FOLDER");
    let may = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    let own = fs::metadata(path).expect("its metadata").uid();
    // Root may write whatever its mode is, so it has to become somebody else, for whom the mode is that of others.
    let stranger = if own == 0 { 12_345 } else { own }.to_string();
    let options = ["--state-dir", path, "--user", &stranger];
    // Who is not root is somebody else for no mode, and may be of more groups than a --user has.
    let options = if own == 0 {
        &options[..]
    } else {
        &options[..2]
    };
    may(0o555);
    let line = "CRITICAL --state-dir \"FOLDER\": it cannot be written: Permission denied (os error 13); remedy: give it to \
                the user that dns-tool runs as";
    assert_faults(
        "a folder for others",
        &resolver,
        options,
        &names(),
        &[line],
        2,
    );
    may(0o700);
    assert_faults("our own", &resolver, &options[..2], &names(), &[], 0);
    let left = fs::read_dir(path).expect("the folder").count();
    assert_eq!(left, 0, "a state that is not the daemon's");
}

/// The pin of the leaf that it shows, which an exemplary resolver does not tell.
fn leaf_of(resolver: &FakeResolver) -> String {
    let options = options(resolver, &[]);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let said = run("pin", &options, &Names(Vec::new()));
    let line = said.lines.iter().find(|line| line.contains("# leaf"));
    line.and_then(|line| line.split(' ').nth(1))
        .expect("a pin")
        .to_owned()
}

#[test]
fn each_fault_of_a_port_has_its_line_and_remedy() {
    let resolver = exemplary();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let own = fs::read_to_string("/proc/self/comm").expect("Linux");
    let own = format!("{} (pid {})", own.trim_end(), std::process::id());
    let names = Names::of(&resolver)
        .and(format!("127.0.0.1:{port}"), "TAKEN")
        .and(&own, "TEST");
    assert_faults(
        "a port of somebody else's",
        &resolver,
        &["--port", &port],
        &names,
        &[
            "CRITICAL listening on TAKEN: in use by TEST, and no DNS query is answered; remedy: end it, or choose another --port or \
             --address",
        ],
        2,
    );
    let running = Process::before(&resolver, &[]);
    let port = running.address.port().to_string();
    assert_faults(
        "the daemon itself",
        &resolver,
        &["--port", &port],
        &Names::of(&resolver),
        &[],
        0,
    );
    // Who looks takes no part in a port that is shared: some clients would be given to it.
    let sharing = Process::before(&resolver, &["--reuse-port"]);
    let port = sharing.address.port().to_string();
    let more = options(&resolver, &["--port", &port, "--reuse-port"]);
    let more: Vec<_> = more.iter().map(String::as_str).collect();
    let pid = sharing.id();
    let names = Names::of(&resolver).and(format!("127.0.0.1:{port}"), "SHARED");
    let said = run("check", &more, &names);
    // The daemon hides its descriptors from other processes of its user.
    let expected = match nix::unistd::geteuid().is_root() {
        true => {
            format!("OK listening on SHARED: in use by dns-tool itself (pid {pid}), which is fine")
        }
        false => "OK listening on SHARED: in use by a program that answers DNS".to_owned(),
    };
    assert!(said.lines.contains(&expected), "{:?}", said.lines);
    // No host has this network on this interface.
    assert_faults(
        "an address to which there is no route",
        &resolver,
        &["--resolver-addr", "[fe80::db8:2%lo]:853"],
        &Names::of(&resolver),
        &[
            "WARNING [fe80::db8:2%lo]:853#resolver.test reach: this host has no route to IPv6 addresses such as this one; \
             remedy: give it one, or take the address out",
        ],
        1,
    );
    assert_faults(
        "an address of another host",
        &resolver,
        &["--address", "192.0.2.1"],
        &Names::of(&resolver),
        &[
            "CRITICAL listening on 192.0.2.1:0: this host has no such address; remedy: choose an --address of this host",
        ],
        2,
    );
}

#[test]
fn another_program_that_answers_dns_is_named_but_may_be_a_proxy() {
    let resolver = exemplary();
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("its address").port().to_string();
    let server = std::thread::spawn(move || {
        let mut octets = [0; 512];
        // As text and as JSON.
        for _ in 0..2 {
            let (length, client) = other.recv_from(&mut octets).expect("a query");
            let answer = message::answer(&octets[..length]);
            other.send_to(&answer, client).expect("sends");
        }
        other
    });
    let own = fs::read_to_string("/proc/self/comm").expect("Linux");
    let own = format!("{} (pid {})", own.trim_end(), std::process::id());
    let names = Names::of(&resolver)
        .and(format!("127.0.0.1:{port}"), "TAKEN")
        .and(&own, "TEST");
    assert_faults(
        "a port of a proxy's",
        &resolver,
        &["--port", &port],
        &names,
        &[
            "WARNING listening on TAKEN: in use by TEST, and DNS queries are answered; remedy: nothing, if it passes queries \
             on to dns-tool, as a proxy does; else end it before dns-tool starts",
        ],
        1,
    );
    server.join().expect("no panic");
}

/// The daemon answers with SERVFAIL as late as `--timeout` says while its resolver is silent.
#[test]
fn a_daemon_whose_process_is_hidden_is_known_by_its_monitoring_port_or_by_an_answer_however_late() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let resolver = exemplary();
    resolver.serve(|_| Vec::new());
    let options_of_daemon = ["--timeout", "1", "--monitor", "127.0.0.1:0"];
    let mut daemon = Process::before(&resolver, &options_of_daemon);
    let line = daemon.read_until("event=monitoring");
    let monitor = line.trim().rsplit('=').next().expect("an address");
    let address = daemon.address.to_string();
    let port = daemon.address.port().to_string();
    for (more, expected) in [
        (
            &["--monitor", monitor][..],
            format!("in use, most likely by dns-tool itself, which answers at --monitor {monitor}"),
        ),
        (&[], "in use by a program that answers DNS".to_owned()),
    ] {
        let options = options(&resolver, &[&["--port", &port], more].concat());
        // Another user, who sees no descriptors of the daemon, nor the file of the tests' trust anchor.
        let ca = options
            .iter()
            .position(|option| option == "--resolver-ca")
            .expect("an option");
        let output = program()
            .arg("check")
            .args(&options[..ca])
            .args(&options[ca + 2..])
            .uid(65534)
            .output()
            .expect("the program runs");
        let said = String::from_utf8(output.stdout).expect("text");
        let expected = format!("OK listening on {address}: {expected}");
        assert!(said.lines().any(|line| line == expected), "{said}");
    }
}

/// The name in the certificate of the resolver for some zones.
const CORP: &str = "dns.corp.example";

/// What a server says of a zone that it has: a SOA record. Of another one: this response code.
fn authoritative(query: &[u8], zone: &[u8], other: u8) -> Vec<u8> {
    let is_asked = query[12..].starts_with(zone) && query[12 + zone.len()..].starts_with(&[0, 6]);
    match is_asked {
        true => message::answer_with(query, &[&message::record(6, 60, &[0; 22])]),
        false => message::error(query, other),
    }
}

#[test]
fn each_address_of_a_route_is_asked_for_its_zones_and_what_is_in_cleartext_is_said() {
    let main = exemplary();
    let chain = pki().chain(&[CORP], |_| {});
    let corp = FakeResolver::with_chain(&chain);
    corp.serve(|query| {
        let edns = message::Edns {
            options: vec![(11, vec![0, 100]), (12, vec![0; 400])],
            ..message::Edns::default()
        };
        let zone = b"\x04corp\x07example\0";
        let answer = authoritative(query, zone, 5);
        vec![Act::Send(message::with_opt(answer, &edns))]
    });
    // It has one of its zones. Of the other one it says that there is none, which is an answer, too.
    let lan = CleartextServer::with(|query| Some(authoritative(query, b"\x03lan\0", 3)));
    let routes = [
        format!("corp.example={}#{CORP}", corp.address()),
        format!("lan=tcp://{}", lan.address()),
        format!("168.192.in-addr.arpa=tcp://{}", lan.address()),
        "gone.example=nxdomain".to_owned(),
        "public.corp.example=relay".to_owned(),
    ];
    let more: Vec<_> = routes.iter().flat_map(|route| ["--route", route]).collect();
    let names = Names::of(&main)
        .and(corp.address(), "CORP")
        .and(lan.address(), "LAN");
    let all = options(&main, &more);
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let said = run("check", &all, &names);
    let route = "OK route corp.example. CORP#dns.corp.example";
    let zones = "OK route lan. 168.192.in-addr.arpa. tcp://LAN";
    assert_eq!(
        said.lines[3..6],
        [
            "OK resolver.test pins: none: any key that chain and name vouch for".to_owned(),
            "OK dns.corp.example pins: none: any key that chain and name vouch for".to_owned(),
            "OK listening on 127.0.0.1:0: free, TCP and UDP".to_owned(),
        ]
    );
    assert_eq!(
        said.lines[6],
        "OK cleartext: queries for lan., 168.192.in-addr.arpa. leave in cleartext, to tcp://LAN"
    );
    assert_eq!(
        said.lines[18..],
        [
            format!("{route} reach: connected and shaken hands in N ms"),
            format!("{route} tls: 1.3, ALPN dot"),
            format!("{route} key exchange: x25519, classical: the resolver has no X25519MLKEM768"),
            format!("{route} chain: valid, up to a trust anchor"),
            format!("{route} name: dns.corp.example"),
            format!("{route} pin: none given"),
            format!("{route} expiry: days left, from the leaf on: N N"),
            format!("{route} query: NOERROR after N ms"),
            format!("{route} padding: answers are padded"),
            format!("{route} keepalive: keeps idle sessions for 10.0 s"),
            format!("{route} resumption: resumed in N ms"),
            format!("{zones} reach: connected in N ms, in cleartext"),
            "OK route lan. tcp://LAN query: NOERROR after N ms".to_owned(),
            "OK route 168.192.in-addr.arpa. tcp://LAN query: NXDOMAIN after N ms".to_owned(),
            "OK route gone.example. nxdomain: names do not exist, and nobody is asked".to_owned(),
            "OK route public.corp.example. relay: names go to the main resolver".to_owned(),
        ]
    );
    assert_eq!(said.code, Some(0));
    assert_eq!(lan.names(), ["lan", "168.192.in-addr.arpa"]);
    assert_eq!(corp.queries().len(), 1, "not for the root");
    assert_faults("sound routes", &main, &more, &names, &[], 0);
}

#[test]
fn each_fault_of_a_route_has_its_line_and_remedy() {
    const ZONE: &str = "ask its operator whether this host may ask it for this zone; else give the zone another --route";
    const AWAY: &str = "reach: stage=connect cause=\"Connection refused (os error 111)\"; remedy: see that the address is \
                        right and that nothing on the way keeps its port from you";
    let main = exemplary();
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("its address");
    drop(gone);
    let names = || Names::of(&main).and(address, "GONE");
    // The daemon serves, but not this zone.
    let dead = format!("lan=tcp://{address}");
    assert_faults(
        "a dead route",
        &main,
        &["--route", &dead],
        &names(),
        &[&format!("CRITICAL route lan. tcp://GONE {AWAY}")],
        2,
    );
    let server = CleartextServer::honest();
    let alive = format!("lan=tcp://{}", server.address());
    assert_faults(
        "one of two addresses is away",
        &main,
        &["--route", &dead, "--route", &alive],
        &names(),
        &[&format!("WARNING route lan. tcp://GONE {AWAY}")],
        1,
    );
    // The address of another route does not help.
    let other = format!("home=tcp://{}", server.address());
    assert_faults(
        "a dead route beside another one",
        &main,
        &["--route", &dead, "--route", &other],
        &names(),
        &[&format!("CRITICAL route lan. tcp://GONE {AWAY}")],
        2,
    );
    let refusing = CleartextServer::with(|query| Some(authoritative(query, b"\x03lan\0", 5)));
    let target = format!("tcp://{}", refusing.address());
    let [lan, home] = ["lan", "home"].map(|zone| format!("{zone}={target}"));
    let names_of_it = || Names::of(&main).and(refusing.address(), "SERVER");
    assert_faults(
        "a zone that is refused",
        &main,
        &["--route", &lan, "--route", &home],
        &names_of_it(),
        &[&format!(
            "CRITICAL route home. tcp://SERVER query: REFUSED after N ms; remedy: {ZONE}"
        )],
        2,
    );
    let silent = CleartextServer::with(|query| {
        (query[12..].starts_with(b"\x03lan\0")).then(|| message::answer(query))
    });
    let target = format!("tcp://{}", silent.address());
    let [lan, home] = ["lan", "home"].map(|zone| format!("{zone}={target}"));
    assert_faults(
        "a zone without an answer",
        &main,
        &["--route", &lan, "--route", &home],
        &Names::of(&main).and(silent.address(), "SERVER"),
        &[
            "CRITICAL route home. tcp://SERVER query: no answer in time; remedy: ask its operator, or choose another resolver",
        ],
        2,
    );
}

#[test]
fn a_server_without_edns_is_asked_without_it_as_the_daemon_does() {
    let main = exemplary();
    let old = CleartextServer::with(|query| {
        let has_opt = query[11] > 0;
        Some(match has_opt {
            true => {
                let mut answer = message::error(query, 1);
                // Without the OPT that it does not know.
                answer.truncate(answer.len() - 11);
                answer[11] = 0;
                answer
            }
            false => message::answer_with(query, &[&message::record(6, 60, &[0; 22])]),
        })
    });
    let route = format!("lan=tcp://{}", old.address());
    let names = Names::of(&main).and(old.address(), "OLD");
    assert_faults("no EDNS", &main, &["--route", &route], &names, &[], 0);
    let all = options(&main, &["--route", &route]);
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let said = run("check", &all, &names);
    let expected = "OK route lan. tcp://OLD query: NOERROR after N ms, without EDNS";
    assert_eq!(said.lines.last().map(String::as_str), Some(expected));
}

#[test]
fn the_identity_of_a_routes_resolver_is_checked_like_others() {
    let main = exemplary();
    let chain = pki().chain(&[CORP], |_| {});
    let corp = FakeResolver::with_chain(&chain);
    let route = format!("corp.example={}#{CORP}", corp.address());
    let issuer = pki().issuer.pin();
    let other = pki().honest().pin;
    let [of_main, of_corp, wrong] = [
        format!("{NAME}={issuer}"),
        format!("{CORP}={issuer}"),
        format!("{CORP}={other}"),
    ];
    let root = format!("{NAME}={}", pki().root.pin());
    let pinned = [
        "--route",
        &route,
        "--resolver-pin",
        &of_main,
        "--resolver-pin",
        &root,
    ];
    let names = || {
        Names::of(&main)
            .and(corp.address(), "CORP")
            .and(chain.pin, "LEAF")
    };
    assert_faults(
        "no pin beside a pinned resolver",
        &main,
        &pinned,
        &names(),
        &[
            "WARNING dns.corp.example pins: none: any key that chain and name vouch for; remedy: pin it as well: dns-tool \
             pin shows its keys",
        ],
        1,
    );
    let one_key = ONE_KEY.replace(NAME, CORP);
    assert_faults(
        "one pin",
        &main,
        &[&pinned[..], &["--resolver-pin", &of_corp]].concat(),
        &names(),
        &[&one_key],
        1,
    );
    assert_faults(
        "a wrong pin",
        &main,
        &[&pinned[..], &["--resolver-pin", &wrong]].concat(),
        &names(),
        &[
            &one_key,
            "CRITICAL route corp.example. CORP#dns.corp.example pin: no key that it shows is pinned: LEAF ISSUER ROOT; \
             remedy: compare the keys with what its operator publishes, and only then give their pins",
        ],
        2,
    );
    // A second route to the same resolver, and the main one by the same name: the pins are checked once.
    let again = format!("lab.example={}#{NAME}", main.address());
    assert_faults(
        "a name in two places",
        &main,
        &["--route", &again],
        &Names::of(&main),
        &[],
        0,
    );
    assert_eq!(
        corp.count("corp.example"),
        4,
        "text and JSON of the first two"
    );
}

const ADVICE: [&str; 2] = [
    "# Pins that came over the path that they are to protect are only as good as that path: compare them",
    "# with what the resolver's operator publishes, or with what another network shows.",
];

#[test]
fn the_keys_of_a_resolver_are_shown_as_the_file_of_pins_takes_them() {
    let chain = pki().honest();
    let resolver = FakeResolver::with_chain(&chain);
    let names = Names::of(&resolver).and(chain.pin, "LEAF");
    let options = options(&resolver, &[]);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let said = run("pin", &options, &names);
    let expected = [
        "# resolver.test at ADDRESS: verified by chain and name, in 3 of 3 connections",
        "resolver.test LEAF # leaf: CN=rcgen self signed cert; from CN=issuer of the tests; until 2100-01-01",
        "resolver.test ISSUER # issuer: CN=issuer of the tests; from CN=root of the tests; until 4096-01-01",
        "# resolver.test ROOT # anchor: CN=root of the tests",
        "# resolver.test at ADDRESS: key exchange x25519, classical: the resolver has no X25519MLKEM768",
    ];
    assert_eq!(said.lines, [&expected[..], &ADVICE].concat());
    assert_eq!(said.code, Some(0));
    assert_eq!(resolver.queries().len(), 0, "nothing is asked");
    // Two commands: the keys into a file, and the daemon with that file.
    let output = program().arg("pin").args(&options).output();
    let pins = temporary_file("shown", &output.expect("the program runs").stdout);
    let process = Process::before(&resolver, &["--pins", pins.to_str().expect("UTF-8")]);
    let ask = Ask::a(1, "x.test");
    crate::support::UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    // The same for a program.
    let json = run("pin", &[&options[..], &["--json"]].concat(), &names);
    let json: serde_json::Value = serde_json::from_str(&json.lines[0]).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({"agreed": true, "places": [{
            "name": NAME, "address": "ADDRESS", "failure": null, "key_exchange": "x25519",
            "chains": [{"connections": 3, "verified": true, "check": null, "cause": null, "names": null, "certificates": [
                {"role": "leaf", "pin": "LEAF", "subject": "CN=rcgen self signed cert",
                 "issuer": "CN=issuer of the tests", "not_before": "2020-01-01T00:00:00Z",
                 "not_after": "2100-01-01T00:00:00Z"},
                {"role": "issuer", "pin": "ISSUER", "subject": "CN=issuer of the tests",
                 "issuer": "CN=root of the tests", "not_before": "1975-01-01T00:00:00Z",
                 "not_after": "4096-01-01T00:00:00Z"},
                {"role": "anchor", "pin": "ROOT", "subject": "CN=root of the tests", "issuer": null,
                 "not_before": null, "not_after": null},
            ]}],
        }]})
    );
}

#[test]
fn keys_that_are_not_verified_are_shown_behind_a_comment_sign() {
    let [own, strange] = [pki().self_signed(), pki().unknown_root()];
    let expired = pki().chain(&[NAME], |params| {
        params.not_after = date_time_ymd(2021, 1, 1)
    });
    for (what, chain, cause) in [
        (
            "self-signed",
            own,
            "NOT VERIFIED (chain: no issuer of it is trusted",
        ),
        (
            "unknown",
            strange,
            "NOT VERIFIED (chain: no issuer of it is trusted",
        ),
        (
            "expired",
            expired,
            "NOT VERIFIED (chain: a certificate expired",
        ),
    ] {
        let resolver = FakeResolver::with_chain(&chain);
        let names = Names::of(&resolver).and(chain.pin, "LEAF");
        let options = options(&resolver, &[]);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let said = run("pin", &options, &names);
        assert_eq!(said.code, Some(2), "{what}");
        assert!(said.lines[0].contains(cause), "{what}: {:?}", said.lines);
        assert!(
            said.lines[1].starts_with("# resolver.test LEAF # leaf"),
            "{:?}",
            said.lines
        );
        assert!(
            said.lines.iter().all(|line| line.starts_with('#')),
            "{:?}",
            said.lines
        );
    }
    // Under another name.
    let resolver = FakeResolver::honest();
    let options = options(&resolver, &[]);
    let target = format!("{}#other.test", resolver.address());
    let options: Vec<_> = options
        .iter()
        .map(String::as_str)
        .chain([&target[..]])
        .collect();
    let said = run("pin", &options, &Names::of(&resolver));
    assert_eq!(said.code, Some(2));
    let cause = "NOT VERIFIED (name: the certificate is for other names; expected other.test; the certificate is for \
                 resolver.test)";
    assert!(said.lines[0].contains(cause), "{:?}", said.lines);
}

#[test]
fn the_certificate_of_a_login_page_is_recognized_by_its_names() {
    // With names of its own under a trusted root, and with a common name alone, signed by itself.
    let trusted = pki().chain(&["login.hotel.test", "*.hotel.test"], |_| {});
    let (own, _) = pki().own_authority(&[], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = "H\u{f4}tel\u{202e}\n Wi-Fi";
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
    });
    for (chain, check, shown) in [
        (trusted, "name", "login.hotel.test *.hotel.test"),
        (own, "chain", "CN=H\u{f4}tel?? Wi-Fi"),
    ] {
        let resolver = FakeResolver::with_chain(&chain);
        let names = Names::of(&resolver);
        let options = options(&resolver, &[]);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let said = run("pin", &options, &names);
        let part = format!("; the certificate is for {shown})");
        assert!(said.lines[0].contains(&part), "{:?}", said.lines);
        let said = run("check", &options, &names);
        let start = format!("CRITICAL ADDRESS#resolver.test {check}: ");
        let part = format!("the certificate is for {shown}; remedy: ");
        let is_said = |line: &String| line.starts_with(&start) && line.contains(&part);
        assert!(said.lines.iter().any(is_said), "{:?}", said.lines);
        let forwarder = Forwarder::before(&resolver, &[]);
        let ask = Ask::a(1, "x.test");
        forwarder.udp().ask(&ask.octets()).assert_error(&ask, 2);
        let lines = resolver.log(::log::Level::Error);
        let part = format!(" check={check} ");
        let shown = format!(" shown_names={shown:?} ");
        assert!(
            lines[0].contains(&part) && lines[0].contains(&shown),
            "{lines:?}"
        );
    }
}

#[test]
fn addresses_that_disagree_or_are_away_are_said() {
    let [one, other] = [pki().honest(), pki().honest()];
    let [first, second] = [&one, &other].map(FakeResolver::with_chain);
    let names = Names::of(&first)
        .and(second.address(), "SECOND")
        .and(one.pin, "LEAF")
        .and(other.pin, "OTHER");
    let more = ["--resolver-addr", &second.address().to_string()];
    let both = options(&first, &more);
    let both: Vec<_> = both.iter().map(String::as_str).collect();
    let said = run("pin", &both, &names);
    assert_eq!(said.code, Some(0));
    let expected = "# DISAGREEMENT on the key of resolver.test: ADDRESS shows LEAF SECOND shows OTHER; a change of keys may be \
                    under way, or one of them is somebody else";
    assert!(
        said.lines.contains(&expected.to_owned()),
        "{:#?}",
        said.lines
    );
    // One that is closed, and nobody at all.
    let gone: SocketAddr = {
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
        nobody.local_addr().expect("its address")
    };
    let target = format!("{gone}#{NAME}");
    let names = Names::of(&first).and(gone, "GONE");
    let said = run("pin", &[&target], &names);
    assert_eq!(said.code, Some(1));
    let expected = "# resolver.test at GONE: not reached: stage=connect cause=\"Connection refused (os error 111)\"";
    assert_eq!(said.lines[0], expected);
    let present = format!("{}#{NAME}", first.address());
    let all = options(&first, &[]);
    let all: Vec<_> = all
        .iter()
        .map(String::as_str)
        .chain([&target[..], &present])
        .collect();
    let said = run("pin", &all, &names);
    assert_eq!(said.code, Some(0), "{:#?}", said.lines);
    assert!(said.lines.contains(&expected.to_owned()));
}

#[test]
fn the_keys_of_the_resolvers_of_routes_are_shown_too() {
    let main_chain = pki().honest();
    let chain = pki().chain(&[CORP], |_| {});
    let (main, corp) = (
        FakeResolver::with_chain(&main_chain),
        FakeResolver::with_chain(&chain),
    );
    let lan = CleartextServer::honest();
    let routes = [
        format!("corp.example={}#{CORP}", corp.address()),
        format!("lab.example={}#{CORP}", corp.address()),
        format!("home.example={}#{NAME}", main.address()),
        format!("lan=tcp://{}", lan.address()),
        "gone.example=nxdomain".to_owned(),
    ];
    let more: Vec<_> = routes.iter().flat_map(|route| ["--route", route]).collect();
    let names = Names::of(&main)
        .and(corp.address(), "CORP")
        .and(main_chain.pin, "LEAF")
        .and(chain.pin, "KEY");
    let all = options(&main, &more);
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let said = run("pin", &all, &names);
    let heads = |said: &Said| -> Vec<String> {
        let heads = said
            .lines
            .iter()
            .filter(|line| line.contains(" verified by "));
        heads.cloned().collect()
    };
    let line = |name: &str, place: &str| {
        format!("# {name} at {place}: verified by chain and name, in 3 of 3 connections")
    };
    assert_eq!(
        heads(&said),
        [line(NAME, "ADDRESS"), line(CORP, "CORP")],
        "each place once"
    );
    assert!(
        said.lines
            .iter()
            .any(|line| line.starts_with("dns.corp.example KEY # leaf")),
        "{:#?}",
        said.lines
    );
    assert_eq!(said.code, Some(0));
    // The address alone is enough.
    let address = corp.address().to_string();
    let said = run("pin", &[&all[..], &[&address]].concat(), &names);
    assert_eq!(heads(&said), [line(CORP, "CORP")]);
    assert!(lan.queries().is_empty() && corp.queries().is_empty());
}
