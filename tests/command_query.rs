//! One question by `dns-tool query`: what it says, and its exit code.
//!
//! ```text
//! dns-tool query --UDP/TCP--> dns-tool (a process) --TLS--> FakeResolver
//! dns-tool query --direct --TLS--> FakeResolver
//! ```

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{TcpClient, framed};
use crate::support::process::{Process, program};
use crate::support::{
    Act, CleartextServer, FakeResolver, Greeting, NAME, PATIENCE, message, pki, temporary_file,
    wait_until,
};

/// What came of a question.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn status(&self) -> &str {
        self.out.lines().next().unwrap_or_default()
    }

    fn records(&self) -> Vec<&str> {
        self.out.lines().skip(1).collect()
    }
}

fn run(arguments: &[&str]) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = program()
        .arg("query")
        .args(arguments)
        .output()
        .expect("the program runs");
    Said {
        code: status.code(),
        out: String::from_utf8(stdout).expect("text"),
        err: String::from_utf8(stderr).expect("text"),
    }
}

/// Asks who listens at `address`.
fn ask(address: SocketAddr, arguments: &[&str]) -> Said {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    run(&[arguments, &["--address", &ip, "--port", &port]].concat())
}

/// Asks the resolver itself.
fn ask_directly(resolver: &FakeResolver, arguments: &[&str]) -> Said {
    let (address, anchors) = (resolver.address().to_string(), pki().root_file());
    let options = [
        "--direct",
        "--resolver-addr",
        &address,
        "--resolver-fqdn",
        NAME,
        "--resolver-ca",
        anchors.to_str().expect("a path in UTF-8"),
    ];
    run(&[arguments, &options].concat())
}

/// Somebody in the place of a dns-tool, who sends these datagrams for each that comes.
fn answer_datagrams(act: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("its address");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    thread::spawn(move || {
        let mut octets = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut octets) {
            for datagram in act(&octets[..length]) {
                socket.send_to(&datagram, from).expect("sends");
            }
        }
    });
    address
}

#[test]
fn an_answer_and_the_absence_of_the_name_are_exit_code_0() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let is_there = query[13..].starts_with(b"here");
        let ns = [&message::record(6, 60, &[0; 22])[..]];
        vec![Act::Send(if is_there {
            message::answer_with(query, &[&message::record(1, 300, &[192, 0, 2, 1])])
        } else {
            let mut answer = message::answer_with(query, &ns);
            answer[3] |= 3;
            answer[6..10].copy_from_slice(&[0, 0, 0, 1]);
            answer
        })]
    });
    let process = Process::before(&resolver, &[]);
    for transport in ["udp", "tcp"] {
        let flags: &[&str] = if transport == "tcp" { &["--tcp"] } else { &[] };
        let said = ask(process.address, &[&["here.test"], flags].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(
            said.status().starts_with(";; NOERROR, AD, 1 answer, "),
            "{said:?}"
        );
        let server = format!(" ms, {transport} {}, from ", process.address);
        assert!(said.status().contains(&server), "{said:?}");
        let [line] = said.records()[..] else {
            panic!("{said:?}")
        };
        let (before, after) = ("here.test.\t", "\tIN\tA\t192.0.2.1");
        assert!(line.starts_with(before) && line.ends_with(after), "{line}");
        assert!(said.err.is_empty(), "{said:?}");

        let said = ask(process.address, &[&["gone.test", "mx"], flags].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(
            said.status().starts_with(";; NXDOMAIN, AD, 0 answers, "),
            "{said:?}"
        );
        assert!(
            said.records()[0].ends_with("\tIN\tSOA\t. . 0 0 0 0 0"),
            "{said:?}"
        );
    }
}

#[test]
fn an_error_is_exit_code_1_and_says_why() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &["--timeout", "0.3"]);
    resolver.serve(|query| vec![Act::Send(message::error(query, 5))]);
    let said = ask(process.address, &["refused.test"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.status().starts_with(";; REFUSED, AD, 0 answers, "),
        "{said:?}"
    );
    // Nobody answers dns-tool, which says so before the asker loses patience.
    resolver.serve(|_| Vec::new());
    let said = ask(process.address, &["slow.test", "--timeout", "20"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let expected = ";; SERVFAIL, 0 answers, EDE 22 \"timeout\", ";
    assert!(said.status().starts_with(expected), "{said:?}");
}

#[test]
fn a_refusal_by_udp_says_why() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &["--allow", "192.0.2.0/24"]);
    let said = ask(process.address, &["refused.test"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let expected = ";; REFUSED, 0 answers, EDE 18";
    assert!(said.status().starts_with(expected), "{said:?}");
    assert!(said.status().contains("udp"), "{said:?}");
}

#[test]
fn nobody_there_is_exit_code_1_and_one_line() {
    // On an address of this host that nobody else uses, who might get the port.
    let free = UdpSocket::bind("127.0.0.99:0").expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    for flags in [&[][..], &["--tcp"]] {
        let began = Instant::now();
        let said = ask(address, &[&["a.test", "--timeout", "10"], flags].concat());
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.is_empty(), "{said:?}");
        let transport = if flags.is_empty() { "udp" } else { "tcp" };
        let expected = format!("dns-tool: {transport} {address}: nobody listens there\n");
        assert_eq!(said.err, expected);
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn silence_and_answers_to_other_questions_end_at_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().map(|address| (address, silent));
    let (tcp, _kept) = silent.expect("its address");
    let wrong = |query: &[u8]| {
        let mut answers = vec![message::answer(query); 4];
        answers[0][1] ^= 1;
        answers[1][13] ^= 1;
        answers[2][2] &= 0x7f;
        answers[3].truncate(20);
        answers
    };
    let udp = answer_datagrams(wrong);
    for (address, flags) in [(udp, &[][..]), (tcp, &["--tcp"])] {
        let began = Instant::now();
        let said = ask(address, &[&["a.test", "--timeout", "0.4"], flags].concat());
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.ends_with("no answer in time\n"), "{said:?}");
        assert!(began.elapsed() >= Duration::from_millis(400));
    }
    // The right one among them is found.
    let udp = answer_datagrams(move |query| {
        let mut answers = wrong(query);
        answers.push(message::answer(query));
        answers
    });
    let said = ask(udp, &["a.test"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_datagram_that_is_lost_is_sent_again() {
    let (heard, queries) = std::sync::mpsc::channel();
    let address = answer_datagrams(move |query| {
        heard.send(query.to_vec()).expect("the test listens");
        vec![message::answer(query)]
    });
    assert_eq!(ask(address, &["a.test"]).code, Some(0));
    assert_eq!(queries.try_iter().count(), 1, "no second one without need");
    let first = std::sync::atomic::AtomicBool::new(true);
    let address = answer_datagrams(move |query| {
        let is_first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        if is_first {
            Vec::new()
        } else {
            vec![message::answer(query)]
        }
    });
    let said = ask(address, &["a.test", "--timeout", "1.5"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_by_tcp() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let records: Vec<_> = (0..200)
            .map(|number| message::record(1, 300, &[192, 0, 2, number]))
            .collect();
        let records: Vec<_> = records.iter().map(Vec::as_slice).collect();
        vec![Act::Send(message::answer_with(query, &records))]
    });
    let process = Process::before(&resolver, &[]);
    let said = ask(process.address, &["many.test"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.status().starts_with(";; NOERROR, AD, 200 answers, "),
        "{said:?}"
    );
    // The truncated answer is in the cache by now.
    let server = format!(", tcp {}, from cache", process.address);
    assert!(said.status().ends_with(&server), "{}", said.status());
    assert_eq!(said.records().len(), 200);
}

#[test]
fn a_stream_may_bring_other_answers_first_and_in_pieces() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        let mut client = TcpClient { socket };
        let query = client.try_hear().expect("a query").octets;
        let mut other = message::answer(&query);
        other[0] ^= 1;
        for octet in framed(&[other, message::answer(&query)]) {
            client.socket.write_all(&[octet]).expect("sends");
        }
    });
    let said = ask(address, &["a.test", "--tcp"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    server.join().expect("it served");
}

#[test]
fn the_resolver_itself_is_asked_once_it_has_proved_its_identity() {
    let chain = pki().honest();
    let resolver = FakeResolver::with_chain(&chain);
    let right = chain.pin.to_string();
    let said = ask_directly(&resolver, &["secret.example", "--resolver-pin", &right]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let server = format!(" ms, tls {}, from resolver", resolver.address());
    assert!(said.status().ends_with(&server), "{said:?}");
    assert!(
        said.records()[0].starts_with("secret.example.\t300\tIN\tA\t"),
        "{said:?}"
    );
    assert!(!resolver.saw_in_clear(b"secret"));
    assert_eq!(resolver.queries().len(), 1);

    let wrong = pki().honest().pin.to_string();
    let said = ask_directly(&resolver, &["secret.example", "--resolver-pin", &wrong]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.is_empty(), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(
        said.err.contains("check=pin") && said.err.contains(&wrong),
        "{said:?}"
    );
    assert_eq!(resolver.queries().len(), 1, "nothing was asked");

    let lenient = [
        "secret.example",
        "--resolver-pin",
        &wrong,
        "--pin-mode",
        "report",
    ];
    let said = ask_directly(&resolver, &lenient);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.status().ends_with(", not pinned"), "{said:?}");
}

#[test]
fn a_resolver_that_fails_leaves_time_for_the_next() {
    let (mute, resolver) = (FakeResolver::honest(), FakeResolver::honest());
    mute.greet(Greeting::Mute);
    let next = resolver.address().to_string();
    let arguments = ["a.example", "--timeout", "2", "--resolver-addr", &next];
    let options = ["--resolver-addr", &mute.address().to_string()];
    let anchors = pki().root_file();
    let anchors = ["--resolver-ca", anchors.to_str().expect("a path in UTF-8")];
    let rest = ["--direct", "--resolver-fqdn", NAME];
    let said = run(&[&arguments[..3], &options, &arguments[3..], &rest, &anchors].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    resolver.serve(|_| vec![Act::Close]);
    mute.greet(Greeting::Close);
    let said = run(&[&arguments[..3], &options, &arguments[3..], &rest, &anchors].concat());
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    for address in [mute.address(), resolver.address()] {
        assert!(said.err.contains(&format!("tls {address}: ")), "{said:?}");
    }
}

#[test]
fn names_and_types_are_asked_as_they_were_written() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let hostile = message::record(65_280, 1, b"\x1b[2J\n");
        vec![Act::Send(message::answer_with(query, &[&hostile]))]
    });
    let process = Process::before(&resolver, &["--cache-size", "0"]);
    for (arguments, question, owner) in [
        (
            &["a\\.b\\000.Test.", "TYPE65280"][..],
            &b"\x04a.b\0\x04Test\0\xff\0\0\x01"[..],
            "a\\.b\\000.Test.",
        ),
        (&[".", "ns"], b"\0\0\x02\0\x01", "."),
        (&["x", "https"], b"\x01x\0\0\x41\0\x01", "x."),
    ] {
        let said = ask(process.address, arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        let asked = resolver.queries().pop().expect("a query");
        assert_eq!(&asked[12..12 + question.len()], question);
        let expected = format!("{owner}\t1\tIN\tTYPE65280\t\\# 5 1B5B324A0A");
        assert_eq!(said.records(), [expected]);
    }
}

#[test]
fn a_wrong_question_is_one_line_and_exit_code_2() {
    for (arguments, part) in [
        (&[][..], "expected a name"),
        (&["a..b"], "\"a..b\": an empty label"),
        (&["a b"], "\"a b\": ' '"),
        (&["a.test", "B"], "\"B\": expected a type"),
        (&["a.test", "TYPE65536"], "TYPE65536"),
        (&["a.test", "A", "more"], "\"more\": expected nothing"),
        (&["a.test", "--no-such-option"], "--no-such-option"),
        (&["a.test", "--direct=yes"], "--direct=yes"),
        (&["a.test", "--direct", "--tcp"], "--tcp"),
        (&["a.test", "--port", "0"], "--port"),
        (&["a.test", "--port", "x"], "--port"),
    ] {
        let said = run(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        assert!(said.out.is_empty(), "{said:?}");
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
        assert!(said.err.contains(part), "{arguments:?}: {said:?}");
    }
    let serving = program().arg("--direct").output();
    let serving = serving.expect("the program runs");
    assert_eq!(serving.status.code(), Some(2), "an option of query alone");
}

#[test]
fn what_the_daemon_alone_reads_may_be_broken_for_who_asks_it() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &[]);
    let broken = temporary_file("query-broken", b"broken\n");
    let broken = broken.to_str().expect("a path in UTF-8");
    let files = [
        "--pins",
        broken,
        "--state-dir",
        broken,
        "--resolver-ca",
        broken,
    ];
    let daemons = [&["a.test", "--pin-rollover", "7"], &files[..]].concat();
    // It serves on with what it had.
    let said = ask(process.address, &daemons);
    assert_eq!(said.code, Some(0), "{said:?}");
    // Who asks the resolver itself needs them, and a configuration file may say whom to ask.
    let direct = files.chunks(2).map(|file| [&["--direct"], file].concat());
    for options in direct.chain([vec!["--config", broken]]) {
        let said = ask(process.address, &[&["a.test"], &options[..]].concat());
        assert_eq!(said.code, Some(2), "{options:?}: {said:?}");
    }
}

#[test]
fn a_listed_name_is_answered_from_the_file_and_not_by_the_resolver() {
    let resolver = FakeResolver::honest();
    let file = temporary_file("query-hosts", b"192.0.2.1 nas.lan\nbroken\n");
    let file = file.to_str().expect("a path in UTF-8");
    let said = ask_directly(&resolver, &["NAS.lan", "--hosts", file]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.status().starts_with(";; NOERROR, 1 answer, "));
    assert!(said.status().ends_with(" ms, from local"), "{said:?}");
    assert_eq!(said.records(), ["NAS.lan.\t60\tIN\tA\t192.0.2.1"]);
    let said = ask_directly(&resolver, &["nas.lan", "AAAA", "--hosts", file]);
    assert!(said.status().starts_with(";; NOERROR, 0 answers, "));
    assert!(resolver.queries().is_empty());
    let said = ask_directly(&resolver, &["www.nas.lan", "--hosts", file]);
    assert!(said.status().contains(" tls "), "{said:?}");
    assert_eq!(resolver.count("www.nas.lan"), 1);
    // A daemon that runs answers from the file that it has read.
    let process = Process::before(&resolver, &["--hosts", file]);
    let said = ask(process.address, &["nas.lan", "--hosts", "/no/such/file"]);
    assert_eq!(said.records(), ["nas.lan.\t60\tIN\tA\t192.0.2.1"]);
    assert!(said.status().ends_with(", from local"), "{said:?}");
}

/// The name in the certificate of the resolver for some zones.
const CORP: &str = "dns.corp.example";

/// The routes of the tests below: to a resolver, to a server, to the main resolver and nowhere.
fn routes(corp: &FakeResolver, lan: &CleartextServer) -> [String; 4] {
    [
        format!("corp.example={}#{CORP}", corp.address()),
        format!("lan=tcp://{}", lan.address()),
        "public.corp.example=relay".to_owned(),
        "gone.corp.example=nxdomain".to_owned(),
    ]
}

/// `--route` before each of these.
fn route_options(routes: &[String]) -> Vec<&str> {
    routes.iter().flat_map(|route| ["--route", route]).collect()
}

#[test]
fn the_first_line_says_where_the_answer_comes_from() {
    let chain = pki().chain(&[CORP], |_| {});
    let (main, corp) = (FakeResolver::honest(), FakeResolver::with_chain(&chain));
    let lan = CleartextServer::honest();
    let routes = routes(&corp, &lan);
    let options = [
        &["--cache-size", "1000000", "--special-names", "answer"][..],
        &route_options(&routes),
    ]
    .concat();
    let process = Process::before(&main, &options);
    for (name, source) in [
        ("www.example", "resolver"),
        ("www.public.corp.example", "resolver"),
        ("www.Corp.Example", "route corp.example."),
        ("nas.lan", "route lan."),
        ("www.gone.corp.example", "local"),
        ("www.local", "local"),
    ] {
        for (flags, transport) in [(&[][..], "udp"), (&["--tcp"], "tcp")] {
            let name = format!("{transport}.{name}");
            let arguments = [&[&name[..]], flags].concat();
            let ends = |said: &Said, source: &str| {
                let end = format!(" ms, {transport} {}, from {source}", process.address);
                assert!(said.status().ends_with(&end), "{source}: {said:?}");
                assert_eq!(said.code, Some(0), "{said:?}");
            };
            ends(&ask(process.address, &arguments), source);
            let again = if source == "local" { "local" } else { "cache" };
            ends(&ask(process.address, &arguments), again);
        }
    }
}

#[test]
fn the_first_line_says_that_an_answer_had_expired() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let record = message::record(1, 1, &[192, 0, 2, 1]);
        vec![Act::Send(message::answer_with(query, &[&record]))]
    });
    let process = Process::before(&resolver, &["--cache-size", "1000000"]);
    assert_eq!(ask(process.address, &["a.test"]).code, Some(0));
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    wait_until("the answer has expired", || {
        let said = ask(process.address, &["a.test"]);
        said.status().ends_with(", from stale")
    });
    let said = ask(process.address, &["a.test", "--tcp"]);
    assert!(said.status().ends_with(", from stale"), "{said:?}");
}

#[test]
fn a_server_that_tells_no_source_is_believed_none() {
    const SOURCE: u16 = 65_353;
    for options in [
        vec![],
        vec![(SOURCE, vec![])],
        vec![(SOURCE, b"\x1b[2J".to_vec())],
        vec![(SOURCE, b"elsewhere".to_vec())],
        vec![(SOURCE, vec![b'x'; 1000])],
        vec![(SOURCE, b"route a..b".to_vec())],
    ] {
        let edns = message::Edns {
            options,
            ..message::Edns::default()
        };
        let what = format!("{edns:?}");
        let address =
            answer_datagrams(move |query| vec![message::with_opt(message::answer(query), &edns)]);
        let said = ask(address, &["a.test"]);
        let end = format!(" ms, udp {address}");
        assert!(said.status().ends_with(&end), "{what}: {said:?}");
    }
}

#[test]
fn directly_each_name_is_asked_where_the_daemon_would_ask_it() {
    let chain = pki().chain(&[CORP], |_| {});
    let (main, corp) = (FakeResolver::honest(), FakeResolver::with_chain(&chain));
    let lan = CleartextServer::honest();
    let routes = routes(&corp, &lan);
    let options = [&["--special-names", "answer"][..], &route_options(&routes)].concat();
    let ask = |name: &str| {
        let said = ask_directly(&main, &[&[name], &options[..]].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    };
    for (name, end) in [
        (
            "www.example",
            format!("tls {}, from resolver", main.address()),
        ),
        (
            "www.public.corp.example",
            format!("tls {}, from resolver", main.address()),
        ),
        (
            "www.corp.example",
            format!("tls {}, from route corp.example.", corp.address()),
        ),
        ("nas.lan", format!("tcp {}, from route lan.", lan.address())),
    ] {
        let said = ask(name);
        assert!(said.status().ends_with(&end), "{said:?}");
        assert_eq!(said.records().len(), 1, "{said:?}");
    }
    for name in ["www.gone.corp.example", "www.local"] {
        let said = ask(name);
        assert!(
            said.status().starts_with(";; NXDOMAIN, 0 answers, ")
                && said.status().ends_with(" ms, from local"),
            "{said:?}"
        );
        assert!(said.records()[0].contains("\tIN\tSOA\t"), "{said:?}");
    }
    assert_eq!(
        ask("localhost").records(),
        ["localhost.\t10800\tIN\tA\t127.0.0.1"]
    );
    assert_eq!(main.queries().len(), 2);
    assert_eq!(corp.queries().len(), 1);
    assert_eq!(lan.names(), ["nas.lan"]);
    for query in [main.queries(), corp.queries(), lan.queries()].concat() {
        let options = message::Heard::read(&query).options();
        assert!(!options.contains(&65_353), "the option stays here");
    }
    // Without special names, the resolver is asked for them.
    let relay = ["www.local", "--special-names", "relay"];
    let said = ask_directly(&main, &relay);
    assert!(said.status().ends_with(", from resolver"), "{said:?}");
}

#[test]
fn a_route_that_fails_is_named_by_its_address() {
    let main = FakeResolver::honest();
    let free = TcpListener::bind("127.0.0.98:0").expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let route = format!("lan=tcp://{address}");
    let said = ask_directly(&main, &["nas.lan", "--route", &route]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains(&format!("tcp {address}: ")), "{said:?}");
    assert!(main.queries().is_empty());
    // The daemon says the same, and which route it was.
    let process = Process::before(&main, &["--route", &route]);
    let said = ask(process.address, &["nas.lan"]);
    assert!(
        said.status().starts_with(";; SERVFAIL") && said.status().ends_with(", from route lan."),
        "{said:?}"
    );
}

#[test]
fn json_has_all_that_the_lines_have() {
    let (main, lan) = (FakeResolver::honest(), CleartextServer::honest());
    let route = format!("lan=tcp://{}", lan.address());
    let options = ["--special-names", "answer", "--route", &route];
    let process = Process::before(&main, &options);
    let json = |said: &Said| -> serde_json::Value {
        assert_eq!(said.out.lines().count(), 1, "{said:?}");
        let mut json: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
        let took = json["milliseconds"].take();
        assert!(took.is_u64(), "{took}");
        json
    };
    let said = ask(process.address, &["nas.lan", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut found = json(&said);
    let data = found["records"][0]["data"].take();
    assert!(
        data.as_str()
            .is_some_and(|data| data.parse::<Ipv4Addr>().is_ok()),
        "{data}"
    );
    let expected = serde_json::json!({
        "rcode": "NOERROR", "flags": ["rd", "ra", "ad"], "errors": [], "source": "route", "zone": "lan.",
        "transport": "udp", "server": process.address.to_string(), "unpinned": false, "milliseconds": null,
        "records": [{"section": "answer", "name": "nas.lan.", "ttl": 300, "class": "IN", "type": "A", "data": null}],
    });
    assert_eq!(found, expected);
    let said = ask_directly(&main, &[&["www.local", "--json"], &options[..]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    let found = json(&said);
    assert_eq!(found["rcode"], "NXDOMAIN");
    assert_eq!(
        (&found["source"], &found["zone"]),
        (&"local".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        (&found["transport"], &found["server"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert_eq!(found["records"][0]["section"], "authority");
    assert_eq!(found["records"][0]["type"], "SOA");
    // A failure says why, and is JSON, too.
    let denying = Process::before(&main, &["--allow", "192.0.2.0/24"]);
    let said = ask(denying.address, &["www.local", "--json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let found = json(&said);
    assert_eq!(
        found["errors"],
        serde_json::json!([{"code": 18, "text": ""}])
    );
    assert_eq!(found["source"], serde_json::Value::Null);
}
