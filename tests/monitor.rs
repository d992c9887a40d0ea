//! Its state can be read from outside, as numbers and as a page, by anybody who may reach that port; and nothing that is
//! done to that port costs a query.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::process::Process;
use crate::support::{
    Ask, CleartextServer, FakeResolver, Forwarder, Greeting, NAME, PATIENCE, pki, temporary_file,
    wait_until,
};

const MONITOR: [&str; 2] = ["--monitor", "127.0.0.1:0"];

/// An answer: its status, its headers in lower case, and its body.
struct Answer {
    status: String,
    head: String,
    body: String,
}

impl Answer {
    fn read(mut socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut text = String::new();
        socket
            .read_to_string(&mut text)
            .expect("an answer, and its end");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let (status, head) = head.split_once("\r\n").expect("a status line");
        Self {
            status: status.strip_prefix("HTTP/1.1 ").expect("HTTP").to_owned(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }
}

fn say(to: SocketAddr, octets: &str) -> TcpStream {
    let mut socket = TcpStream::connect(to).expect("connects");
    socket.write_all(octets.as_bytes()).expect("sends");
    socket
}

fn get(from: SocketAddr, path: &str) -> Answer {
    Answer::read(say(
        from,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ))
}

/// The samples of a text in the format of Prometheus.
fn samples(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.to_owned())
    });
    samples.collect()
}

fn sample(from: SocketAddr, name: &str) -> String {
    let samples = samples(&get(from, "/metrics").body);
    samples
        .get(name)
        .cloned()
        .unwrap_or_else(|| panic!("{name} among {samples:#?}"))
}

fn monitor(forwarder: &Forwarder) -> SocketAddr {
    forwarder.running().monitor().expect("it is served")
}

fn monitor_of(process: &mut Process) -> SocketAddr {
    let line = process.read_until("event=monitoring");
    let at = line.trim().rsplit('=').next().expect("an address");
    at.parse().expect("an address")
}

#[test]
fn every_query_is_counted_by_its_way_and_its_end() {
    let resolver = FakeResolver::honest();
    let hosts = temporary_file("monitor-hosts", b"192.0.2.1 a.lan b.lan\n::1 a.lan\n");
    let hosts = hosts.to_str().expect("a path in UTF-8");
    let options = ["--cache-size", "1000000", "--hosts", hosts];
    let forwarder = Forwarder::patient(&resolver, &[&MONITOR[..], &options].concat());
    let at = monitor(&forwarder);
    let ask = Ask::a(1, "www.example.test");
    for _ in 0..3 {
        forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    }
    forwarder.tcp().ask(&ask.octets()).assert_answers(&ask);
    forwarder
        .udp()
        .ask(&Ask::a(2, "x.test").with_type(252).octets());
    let queries = |transport: &str, outcome: &str| {
        sample(
            at,
            &format!("dns_tool_queries_total{{transport=\"{transport}\",outcome=\"{outcome}\"}}"),
        )
    };
    wait_until("the last answer is measured", || {
        sample(
            at,
            "dns_tool_query_duration_seconds_count{source=\"cache\"}",
        ) == "3"
    });
    assert_eq!(queries("udp", "answered"), "1");
    assert_eq!(queries("udp", "cached"), "2");
    assert_eq!(queries("tcp", "cached"), "1");
    assert_eq!(queries("udp", "transfer"), "1");
    for (name, value) in [
        (
            "dns_tool_query_duration_seconds_count{source=\"resolver\"}",
            "1",
        ),
        ("dns_tool_upstream_query_duration_seconds_count", "1"),
        (
            "dns_tool_upstream_handshake_seconds_count{kind=\"full\"}",
            "1",
        ),
        ("dns_tool_upstream_sessions", "1"),
        ("dns_tool_slo_eligible_queries_total", "4"),
        ("dns_tool_slo_latency_seconds", "0.1"),
        ("dns_tool_cache_entries", "1"),
        ("dns_tool_cache_hits_total", "3"),
        ("dns_tool_cache_misses_total", "1"),
        ("dns_tool_cache_limit_bytes", "1000000"),
        ("dns_tool_hosts_names", "2"),
        ("dns_tool_tcp_connections_limit", "256"),
        ("dns_tool_client_queries_in_flight", "0"),
        ("dns_tool_upstream_queries_in_flight", "0"),
    ] {
        assert_eq!(sample(at, name), value, "{name}");
    }
    // Another test of this process panics on purpose, perhaps just now.
    let before = dns_tool::system::thread::panics();
    let panics = sample(at, "dns_tool_panics_total");
    let panics = panics.parse::<u64>().expect("a number");
    assert!((before..=dns_tool::system::thread::panics()).contains(&panics));
    assert_ne!(sample(at, "process_resident_memory_bytes"), "0");
    assert_ne!(sample(at, "process_start_time_seconds"), "0");
}

#[test]
fn an_answer_that_takes_longer_than_the_goal_is_no_good_one() {
    use crate::support::{Act, message};
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        vec![Act::Later(
            Duration::from_millis(150),
            message::answer(query),
        )]
    });
    let slow = [&MONITOR[..], &["--slo-latency", "0.1"]].concat();
    let patient = [&MONITOR[..], &["--slo-latency", "10"]].concat();
    for (options, good) in [(slow, "0"), (patient, "1")] {
        let forwarder = Forwarder::before(&resolver, &options);
        let ask = Ask::a(1, "www.example.test");
        forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
        let at = monitor(&forwarder);
        assert_eq!(sample(at, "dns_tool_slo_eligible_queries_total"), "1");
        assert_eq!(sample(at, "dns_tool_slo_good_queries_total"), good);
        assert_eq!(
            sample(
                at,
                "dns_tool_query_duration_seconds_bucket{source=\"resolver\",le=\"0.1\"}"
            ),
            "0"
        );
        assert_eq!(
            sample(
                at,
                "dns_tool_query_duration_seconds_bucket{source=\"resolver\",le=\"+Inf\"}"
            ),
            "1"
        );
    }
}

#[test]
fn the_resolvers_of_routes_show_with_their_zones() {
    let (resolver, server) = (FakeResolver::honest(), CleartextServer::honest());
    let address = server.address();
    let mut options = MONITOR.map(str::to_owned).to_vec();
    for zone in ["lan", "a<b.example", "c.example", "d.example", "e.example"] {
        options.extend(["--route".to_owned(), format!("{zone}=tcp://{address}")]);
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let forwarder = Forwarder::before(&resolver, &options);
    let at = monitor(&forwarder);
    let row = |state: &str| {
        let zones = "lan. a&lt;b.example. c.example. and 2 more";
        format!(
            "<tr><th>{address}<br><span class=\"soft\">cleartext for {zones}</span></th>\
             <td data-label=\"State\" class=\"soft\">{state}"
        )
    };
    wait_until("the first session", || {
        get(at, "/").body.contains(&row("in cleartext"))
    });
    let zones = "lan. a<b.example. c.example. and 2 more";
    let labels = format!("{{resolver=\"{address}\",name=\"cleartext\",zones=\"{zones}\"}}");
    assert_eq!(
        sample(at, &format!("dns_tool_resolver_sessions{labels}")),
        "1"
    );
    // The main resolver's takes longer, for its keys.
    wait_until("both sessions", || {
        sample(at, "dns_tool_upstream_sessions") == "2"
    });
    // Ready or not, that is a question of the main resolver alone.
    drop(server);
    assert_eq!(get(at, "/ready").status, "200 OK");
}

#[test]
fn a_resolver_shows_with_its_pin_and_its_certificates_end() {
    let chain = pki().honest();
    let resolver = FakeResolver::with_chain(&chain);
    let stranger = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let own = pki().issuer.pin().to_string();
    let listed = |pins: [&str; 2]| pins.map(|pin| format!("{NAME} {pin}\n")).concat();
    let pins = temporary_file("shown-pins", listed([stranger, &own]).as_bytes());
    let options = [&MONITOR[..], &["--pins", pins.to_str().expect("UTF-8")]].concat();
    let forwarder = Forwarder::before(&resolver, &options);
    let at = monitor(&forwarder);
    wait_until("the first session", || get(at, "/ready").status == "200 OK");
    let labels = format!(
        "{{resolver=\"{}\",name=\"resolver.test\"}}",
        resolver.address()
    );
    for (name, value) in [
        ("dns_tool_resolver_sessions", "1"),
        ("dns_tool_resolver_healthy", "1"),
        ("dns_tool_resolver_pin_index", "2"),
    ] {
        assert_eq!(sample(at, &format!("{name}{labels}")), value, "{name}");
    }
    let expiry = sample(
        at,
        &format!("dns_tool_resolver_certificate_expiry_timestamp_seconds{labels}"),
    );
    let expiry: u64 = expiry.parse().expect("a whole number");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(expiry > now.expect("a clock").as_secs());
    let page = get(at, "/").body;
    assert!(page.contains("number 2 of 2"), "{page}");
    // Other pins may come while a session stays.
    fs::write(&pins, listed([&own, stranger])).expect("writes");
    forwarder.running().reload();
    let slot = sample(at, &format!("dns_tool_resolver_pin_index{labels}"));
    assert_eq!((&slot[..], resolver.connections()), ("1", 1));
    let page = get(at, "/").body;
    assert!(page.contains("number 1 of 2"), "{page}");
    // Or none of them does any more, and it ends.
    fs::write(&pins, format!("{NAME} {stranger}\n")).expect("writes");
    forwarder.running().reload();
    assert_eq!(
        sample(at, &format!("dns_tool_resolver_pin_index{labels}")),
        "0"
    );
    let page = get(at, "/").body;
    assert!(page.contains("none of 1 fits"), "{page}");
}

#[test]
fn a_size_that_needs_a_restart_shows_as_it_holds() {
    let resolver = FakeResolver::honest();
    let file = temporary_file("monitored-options", b"cache-size 1000000\n");
    let options = [&MONITOR[..], &["--config", file.to_str().expect("UTF-8")]].concat();
    let mut process = Process::before(&resolver, &options);
    let at = monitor_of(&mut process);
    fs::write(&file, "cache-size 2000000\nslo-latency 0.2\n").expect("writes");
    process.signal("HUP");
    process.read_until("needs_restart=\"cache-size\"");
    assert_eq!(sample(at, "dns_tool_slo_latency_seconds"), "0.2");
    assert_eq!(sample(at, "dns_tool_cache_limit_bytes"), "1000000");
}

#[test]
fn who_is_refused_is_counted_by_the_check_that_failed() {
    let resolver = FakeResolver::with_chain(&pki().unknown_root());
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    wait_until("it was refused", || {
        sample(
            at,
            "dns_tool_upstream_authentication_failures_total{check=\"chain\"}",
        ) != "0"
    });
    assert_eq!(
        sample(
            at,
            "dns_tool_upstream_authentication_failures_total{check=\"pin\"}"
        ),
        "0"
    );
    let ready = get(at, "/ready");
    assert_eq!(ready.status, "503 Service Unavailable");
    let cause = "failing: certificate chain refused since ";
    assert!(ready.body.starts_with(cause), "{}", ready.body);
    assert_eq!(
        get(at, "/health").status,
        "200 OK",
        "it is not its own fault"
    );
}

#[test]
fn it_is_ready_while_what_is_kept_can_serve() {
    let resolver = FakeResolver::honest();
    let options = [&MONITOR[..], &["--cache-size", "1000000"]].concat();
    let forwarder = Forwarder::before(&resolver, &options);
    let at = monitor(&forwarder);
    let ask = Ask::a(1, "www.example.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    forwarder
        .udp()
        .ask(&Ask::a(2, "other.example.test").octets());
    assert_eq!(get(at, "/ready").status, "200 OK");
    forwarder.running().flush_cache();
    wait_until("nothing is kept", || get(at, "/ready").status != "200 OK");
}

#[test]
fn it_is_not_ready_on_a_failure_or_on_what_is_too_old_to_be_served() {
    use crate::support::{Act, message};
    for (is_failure, serve_stale) in [(true, "86400"), (false, "0")] {
        let resolver = FakeResolver::honest();
        resolver.serve(move |query| {
            let short = message::record(1, 1, &[192, 0, 2, 1]);
            vec![Act::Send(match is_failure {
                true => message::error(query, 2),
                false => message::answer_with(query, &[&short]),
            })]
        });
        let options = ["--cache-size", "1000000", "--serve-stale", serve_stale];
        let forwarder = Forwarder::before(&resolver, &[&MONITOR[..], &options].concat());
        let at = monitor(&forwarder);
        forwarder.udp().ask(&Ask::a(1, "www.example.test").octets());
        assert_eq!(get(at, "/ready").status, "200 OK", "the resolver serves");
        resolver.greet(Greeting::Close);
        resolver.hang_up();
        wait_until("nothing is left that can serve", || {
            forwarder.udp().ask(&Ask::a(2, "other.test").octets());
            get(at, "/ready").status != "200 OK"
        });
        assert_ne!(sample(at, "dns_tool_cache_entries"), "0");
        assert!(get(at, "/ready").body.starts_with("failing: "));
    }
}

#[test]
fn both_formats_come_as_they_are_asked_for() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    // Some numbers of a resolver are there from the first session on.
    wait_until("the first session", || get(at, "/ready").status == "200 OK");
    let plain = get(at, "/metrics");
    assert!(
        plain
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{}",
        plain.head
    );
    assert!(!plain.body.contains("# EOF"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5";
    let open = Answer::read(say(
        at,
        &format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n"),
    ));
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{}",
        open.head
    );
    assert!(open.body.ends_with("# EOF\n"));
    let names = |text: &str| samples(text).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&plain.body), names(&open.body));
    assert_eq!(
        plain
            .head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()),
        Some(plain.body.len().to_string().as_str())
    );
}

#[test]
fn the_number_of_series_does_not_grow_with_names_and_types_and_none_is_in_them() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    let before = samples(&get(at, "/metrics").body).len();
    let mut client = forwarder.tcp();
    for name in 0..300_u16 {
        let asks: Vec<_> = (1..=150)
            .filter(|qtype| ![41, 250].contains(qtype))
            .map(|qtype| {
                Ask::a(qtype, &format!("n{name}.secret.test"))
                    .with_type(qtype)
                    .octets()
            })
            .collect();
        client.send(&asks);
        asks.iter().for_each(|_| drop(client.hear()));
    }
    let (metrics, page) = (get(at, "/metrics").body, get(at, "/").body);
    // Those of the session are there from the first query on.
    assert!(samples(&metrics).len() <= before + 4, "{before} before");
    assert!(
        samples(&metrics).len() <= 240,
        "{}",
        samples(&metrics).len()
    );
    for text in [metrics, page] {
        assert!(!text.contains("secret"), "no name is in it");
        let own = client.socket.local_addr().expect("bound");
        assert!(!text.contains(&own.to_string()), "no client is in it");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_shows_the_figures_of_the_metrics() {
    let resolver = FakeResolver::honest();
    let options = [&MONITOR[..], &["--cache-size", "1000000"]].concat();
    let forwarder = Forwarder::before(&resolver, &options);
    let at = monitor(&forwarder);
    let ask = Ask::a(1, "www.example.test");
    for _ in 0..5 {
        forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    }
    wait_until("the last answer has left", || {
        sample(at, "dns_tool_client_queries_in_flight") == "0"
    });
    let page = get(at, "/");
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'; style-src 'sha256-")
    );
    for outside in [
        "http:", "https:", "src=", "href=", "<script", "style=", "[[", "url(",
    ] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    let metrics = samples(&get(at, "/metrics").body);
    let figures: Vec<_> = page.body.split("data-metric=\"").skip(1).collect();
    assert!(figures.len() > 25, "{}", figures.len());
    for figure in figures {
        let (name, rest) = figure.split_once('"').expect("an end of the attribute");
        let rest = rest.strip_prefix(" value=\"").expect("its value");
        let (value, _) = rest.split_once('"').expect("an end of the value");
        let name = name.replace("&quot;", "\"");
        assert_eq!(
            metrics.get(&name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    // The style is what the policy lets in.
    let style = page
        .body
        .split("<style>")
        .nth(1)
        .and_then(|rest| rest.split("</style>").next());
    let hash = ring::digest::digest(&ring::digest::SHA256, style.expect("a style").as_bytes());
    use base64::Engine;
    let hash = base64::engine::general_purpose::STANDARD
        .encode(hash)
        .to_lowercase();
    assert!(
        page.head.contains(&format!("'sha256-{hash}'")),
        "{}",
        page.head
    );
}

#[test]
fn what_is_no_request_of_ours_is_refused() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(4096));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(40));
    for (request, status) in [
        ("GET /other HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found"),
        (
            "POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
            "405 Method Not Allowed",
        ),
        ("\x16\x03\x01\x02\x00", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        assert_eq!(Answer::read(say(at, request)).status, status, "{request}");
    }
    let head = Answer::read(say(at, "HEAD /health HTTP/1.0\r\n\r\n"));
    assert_eq!((head.status.as_str(), head.body.as_str()), ("200 OK", ""));
    assert!(head.head.contains("content-length: 8"));
    assert_eq!(get(at, "/health?x=1").body, "healthy\n");
    // A request may come in pieces.
    let mut pieces = say(at, "GET /hea");
    pieces.write_all(b"lth HTTP/1.1\r\n").expect("sends");
    thread::sleep(Duration::from_millis(20));
    pieces.write_all(b"\r\n").expect("sends");
    assert_eq!(Answer::read(pieces).body, "healthy\n");
}

#[test]
fn a_head_gets_no_body_whatever_it_asks_for() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    let many = format!("/ HTTP/1.1\r\n{}", "X: y\r\n".repeat(40));
    for (target, status) in [
        ("/health HTTP/1.1\r\n", "200 OK"),
        ("/other HTTP/1.1\r\n", "404 Not Found"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        let [head, get] =
            ["HEAD", "GET"].map(|method| Answer::read(say(at, &format!("{method} {target}\r\n"))));
        assert_eq!((head.status.as_str(), head.body.as_str()), (status, ""));
        assert_eq!(get.status, status);
        // Both say how long it is.
        let length = format!("content-length: {}\r\n", get.body.len());
        assert!(!get.body.is_empty());
        assert!(
            [head.head, get.head]
                .iter()
                .all(|head| head.contains(&length))
        );
    }
}

#[test]
fn a_target_may_be_a_whole_url() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    for (target, status) in [
        ("http://127.0.0.1/health", "200 OK"),
        ("HTTP://[::1]:9153/health?x=http://y/", "200 OK"),
        ("http://monitor.test", "200 OK"),
        ("http://monitor.test?x=/health", "200 OK"),
        ("http://monitor.test/other", "404 Not Found"),
        ("http://monitor.test//health", "404 Not Found"),
        ("ftp://monitor.test/health", "404 Not Found"),
        ("/http://monitor.test/health", "404 Not Found"),
    ] {
        assert_eq!(get(at, target).status, status, "{target}");
    }
    assert_eq!(get(at, "http://monitor.test/health").body, "healthy\n");
}

#[test]
fn visitors_that_never_come_to_an_end_keep_nobody_else_waiting_and_cost_no_query() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    let at = monitor(&forwarder);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // More than there is room for: a third says nothing, a third half a request, a third headers without an end.
        for number in 0..90 {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let Ok(mut socket) = TcpStream::connect(at) else {
                        return;
                    };
                    let _ = match number % 3 {
                        0 => Ok(()),
                        1 => socket.write_all(b"GET /metr"),
                        _ => socket.write_all(b"GET / HTTP/1.1\r\n"),
                    };
                    while number % 3 == 2 && !over.load(Ordering::Relaxed) {
                        if socket.write_all(b"X: y\r\n").is_err() {
                            break;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                    let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
                    let _ = socket.read(&mut [0; 1]);
                }
            });
        }
        let client = forwarder.udp();
        let mut slowest = Duration::ZERO;
        for id in 0..500 {
            let ask = Ask::a(id, "www.example.test");
            client.ask(&ask.octets()).assert_answers(&ask);
            if id % 50 == 0 {
                let began = Instant::now();
                assert_eq!(get(at, "/metrics").status, "200 OK");
                slowest = slowest.max(began.elapsed());
            }
        }
        over.store(true, Ordering::Relaxed);
        // Loosely: a script measures it.
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    });
    assert_ne!(
        sample(at, "dns_tool_monitor_connections_dropped_total"),
        "0"
    );
}

#[test]
fn octets_that_come_one_by_one_are_read_together() {
    let resolver = FakeResolver::honest();
    let mut process = Process::before(&resolver, &MONITOR);
    let at = monitor_of(&mut process);
    // A thread has its name once it runs.
    assert_eq!(get(at, "/health").status, "200 OK");
    let mut socket = say(at, "GET /health HTTP/1.1\r\nX: ");
    socket.set_nodelay(true).expect("sends at once");
    let before = process.waits_of("monitor");
    let began = Instant::now();
    for _ in 0..2000 {
        socket.write_all(b"y").expect("sends");
        thread::sleep(Duration::from_micros(100));
    }
    let waits = process.waits_of("monitor") - before;
    // It waits for an octet, and rests for five milliseconds.
    let most = 2 * began.elapsed().as_millis() as usize / 5;
    assert!(waits <= most + 10, "{waits} in {:?}", began.elapsed());
    socket.write_all(b"\r\n\r\n").expect("sends");
    assert_eq!(Answer::read(socket).body, "healthy\n");
}

#[test]
fn who_comes_after_a_long_quiet_has_as_much_time_as_anybody_else() {
    let resolver = FakeResolver::honest();
    let [quiet, other] = [(); 2].map(|()| Forwarder::before(&resolver, &MONITOR));
    let [quiet, other] = [&quiet, &other].map(monitor);
    // Whoever says nothing is let go after five seconds, in which nobody came to the first.
    let mut silent = TcpStream::connect(other).expect("connects");
    silent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    assert_eq!(silent.read(&mut [0; 1]).expect("an end"), 0);
    assert_eq!(get(quiet, "/health").status, "200 OK");
    for (at, refused) in [(quiet, "0"), (other, "1")] {
        assert_eq!(
            sample(at, "dns_tool_monitor_connections_dropped_total"),
            refused
        );
    }
}

#[test]
fn a_port_that_is_in_use_is_named_with_its_option() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let Err(error) =
        dns_tool::daemon::start::start(crate::support::config(&["--monitor", &address]))
    else {
        panic!("it starts");
    };
    let error = error.to_string();
    assert!(
        error.starts_with(&format!("--monitor {address}: ")) && error.contains("free port"),
        "{error}"
    );
}

#[test]
fn the_query_log_says_how_each_query_ended_and_hides_who_asked() {
    let resolver = FakeResolver::honest();
    for (option, hidden) in [("--query-log", true), ("--query-log-clients", false)] {
        let process = Process::before(&resolver, &[option]);
        let mut client = crate::support::TcpClient::to(process.address);
        let ask = Ask::a(1, "www.example.test");
        client.ask(&ask.octets()).assert_answers(&ask);
        client.ask(&ask.octets()).assert_answers(&ask);
        let own = client.socket.local_addr().expect("bound").to_string();
        process.signal("TERM");
        let (code, log) = process.end_with_whole_log();
        assert_eq!(code, Some(0));
        let lines: Vec<_> = log
            .lines()
            .filter(|line| line.contains(" query "))
            .collect();
        assert_eq!(lines.len(), 2, "{log}");
        for (line, outcome) in lines.iter().zip(["answered", "cached"]) {
            let who = if hidden { "127.0.0.0/24" } else { &own };
            let expected = format!(
                " query client={who} transport=tcp name=www.example.test. type=A outcome={outcome} seconds="
            );
            let (time, seconds) = line.split_once(&expected).expect(line);
            assert!(time.starts_with("time="), "{line}");
            let seconds = seconds.parse::<f64>().expect(line);
            assert!((0.0..20.0).contains(&seconds), "{line}");
        }
    }
    let process = Process::before(&resolver, &[]);
    let ask = Ask::a(1, "www.example.test");
    crate::support::UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    process.signal("TERM");
    let (_, log) = process.end_with_whole_log();
    assert!(
        !log.contains("www.example.test") && !log.contains("127.0.0.0/24"),
        "{log}"
    );
}

/// Asks for names until the condition holds: several, since one that is never answered says nothing of the resolver.
fn ask_until(forwarder: &Forwarder, what: &str, mut condition: impl FnMut() -> bool) {
    let client = forwarder.udp();
    let mut number = 0;
    wait_until(what, || {
        for _ in 0..5 {
            number += 1;
            client.send(&Ask::a(number, &format!("n{number}.example.test")).octets());
        }
        condition()
    });
}

/// What `/ready`, the metrics and the page say while this is wrong with the resolver.
fn assert_outage(forwarder: &Forwarder, resolver: SocketAddr, cause: &str, words: &str) {
    let at = monitor(forwarder);
    let start = format!("failing: {words} since ");
    ask_until(forwarder, words, || {
        get(at, "/ready").body.starts_with(&start)
    });
    assert_eq!(get(at, "/ready").status, "503 Service Unavailable");
    let labels = format!("resolver=\"{resolver}\",name=\"{NAME}\"");
    for (name, value) in [
        ("dns_tool_ready".to_owned(), "0"),
        ("dns_tool_state{state=\"failing\"}".to_owned(), "1"),
        ("dns_tool_state{state=\"answering\"}".to_owned(), "0"),
        (format!("dns_tool_resolver_healthy{{{labels}}}"), "0"),
    ] {
        assert_eq!(sample(at, &name), value, "{name}");
    }
    let failure =
        format!("dns_tool_resolver_last_failure_timestamp_seconds{{{labels},cause=\"{cause}\"}}");
    assert_ne!(sample(at, &failure), "0");
    let page = get(at, "/").body;
    assert!(
        page.contains(&format!("<p class=\"verdict\">{start}")),
        "{page}"
    );
    assert!(page.contains("<p class=\"remedy\">What to do: "), "{page}");
    assert!(page.contains("class=\"bad\">fails since "), "{page}");
}

/// They say that all is well, with the first answer.
fn assert_recovered(forwarder: &Forwarder) {
    let at = monitor(forwarder);
    ask_until(forwarder, "it is ready again", || {
        get(at, "/ready").body.starts_with("ready\n")
    });
    assert_eq!(sample(at, "dns_tool_ready"), "1");
    assert!(!get(at, "/").body.contains("fails since "));
}

#[test]
fn an_outage_by_a_wrong_chain_shows_with_its_cause_everywhere_until_it_is_over() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    assert_recovered(&forwarder);
    resolver.show(&pki().unknown_root());
    resolver.hang_up();
    assert_outage(
        &forwarder,
        resolver.address(),
        "chain",
        "certificate chain refused",
    );
    resolver.show(&pki().honest());
    assert_recovered(&forwarder);
}

#[test]
fn an_outage_by_silence_shows_with_its_cause_everywhere_until_it_is_over() {
    use crate::support::{Act, message};
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[&MONITOR[..], &["--timeout", "0.5"]].concat());
    assert_recovered(&forwarder);
    resolver.serve(|_| Vec::new());
    assert_outage(
        &forwarder,
        resolver.address(),
        "no-answer",
        "no answer in time",
    );
    resolver.serve(|query| vec![Act::Send(message::answer(query))]);
    assert_recovered(&forwarder);
}

#[test]
fn an_outage_by_a_refused_connection_shows_with_its_cause_everywhere_until_it_is_over() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    assert_recovered(&forwarder);
    resolver.greet(Greeting::Close);
    resolver.hang_up();
    assert_outage(
        &forwarder,
        resolver.address(),
        "handshake",
        "TLS handshake failed",
    );
    resolver.greet(Greeting::Shake);
    assert_recovered(&forwarder);
}

#[test]
fn an_address_where_nobody_listens_shows_from_the_start() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let resolver = address.to_string();
    let options = ["--resolver-addr", &resolver, "--resolver-fqdn", NAME];
    let forwarder = Forwarder::with(&[&MONITOR[..], &options].concat());
    assert_outage(&forwarder, address, "connect", "no connection");
}

#[test]
fn a_resolver_that_refuses_all_names_shows_with_its_cause_until_it_is_over() {
    use crate::support::{Act, message};
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &MONITOR);
    resolver.serve(|query| vec![Act::Send(message::error(query, 5))]);
    let words = "SERVFAIL or REFUSED for all names";
    assert_outage(&forwarder, resolver.address(), "server-failure", words);
    resolver.serve(|query| vec![Act::Send(message::answer(query))]);
    assert_recovered(&forwarder);
}

#[test]
fn while_the_cache_serves_alone_it_is_ready_and_says_why() {
    let resolver = FakeResolver::honest();
    let options = [&MONITOR[..], &["--cache-size", "1000000"]].concat();
    let forwarder = Forwarder::before(&resolver, &options);
    assert_recovered(&forwarder);
    resolver.show(&pki().unknown_root());
    resolver.hang_up();
    let at = monitor(&forwarder);
    ask_until(&forwarder, "the cause", || {
        let ready = get(at, "/ready");
        let text = "ready\nserving from the cache only: certificate chain refused since ";
        ready.body.starts_with(text) && ready.status == "200 OK"
    });
    assert_eq!(sample(at, "dns_tool_state{state=\"cache-only\"}"), "1");
    assert!(get(at, "/").body.contains("<header class=\"warn\">"));
}

#[test]
fn one_name_that_is_never_answered_is_no_outage() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[&MONITOR[..], &["--timeout", "0.3"]].concat());
    assert_recovered(&forwarder);
    resolver.serve(|_| Vec::new());
    let ask = Ask::a(1, "silent.example.test");
    for _ in 0..6 {
        forwarder.udp().ask(&ask.octets()).assert_error(&ask, 2);
    }
    let at = monitor(&forwarder);
    assert_eq!(get(at, "/ready").status, "200 OK");
}

#[test]
fn each_address_counts_its_own_queries_and_the_first_few_have_series() {
    let resolver = FakeResolver::honest();
    let servers: Vec<_> = (0..16).map(|_| CleartextServer::honest()).collect();
    let mut options = MONITOR.map(str::to_owned).to_vec();
    for (number, server) in servers.iter().enumerate() {
        options.push("--route".to_owned());
        options.push(format!("z{number}.example=tcp://{}", server.address()));
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let forwarder = Forwarder::before(&resolver, &options);
    let at = monitor(&forwarder);
    for name in [
        "www.example.test",
        "a.z0.example",
        "b.z0.example",
        "a.z15.example",
    ] {
        let ask = Ask::a(1, name);
        forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    }
    let metrics = samples(&get(at, "/metrics").body);
    let queries = |address: SocketAddr| {
        let mut names = metrics.iter().filter(|(name, _)| {
            name.starts_with("dns_tool_resolver_queries_total")
                && name.contains(&format!("\"{address}\""))
        });
        names.next().map(|(_, value)| value.as_str())
    };
    assert_eq!(queries(resolver.address()), Some("1"));
    assert_eq!(queries(servers[0].address()), Some("2"));
    assert_eq!(queries(servers[1].address()), Some("0"));
    assert_eq!(queries(servers[15].address()), None, "not among the first");
    assert!(metrics.len() <= 320, "{}", metrics.len());
    // An address that was never reached is not healthy, and the page has all of them.
    let healthy = |server: &CleartextServer| {
        let address = format!("\"{}\"", server.address());
        let mut names = metrics.iter().filter(|(name, _)| {
            name.starts_with("dns_tool_resolver_healthy") && name.contains(&address)
        });
        names.next().map(|(_, value)| value.clone())
    };
    assert_eq!(healthy(&servers[15]).as_deref(), Some("1"));
    let page = get(at, "/").body;
    for server in &servers {
        assert!(page.contains(&format!("<tr><th>{}<br>", server.address())));
    }
}
