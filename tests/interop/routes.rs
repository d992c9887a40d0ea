//! Routes to the programs that know the names of a network: unbound, BIND and dnsmasq.
//!
//! ```text
//! dig --- UDP, TCP ---> dns-tool --- TLS ---> unbound, which has an address for every name: the main resolver
//!                              \---- TCP ---> unbound, BIND or dnsmasq, with a zone of its own and a reverse zone
//! ```
//!
//! Both sides write down what they are asked for, so that each name is seen to go one way and not the other.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::{
    Ask, DnsTool, HOSTS, Lab, NAME, PROGRAM, Resolver, Unbound, Way, ZONE, address_of, ask_by_tcp,
    ask_by_udp, ask_in_parallel, assert_same, dig, dig_raw, free_port, has_flag, in_zone, octets,
    program, run_dig,
};

/// The reverse zone of the addresses that servers have in their zones.
const REVERSE_ZONE: &str = "0.0.10.in-addr.arpa";
/// The name in the certificate of a resolver of some zones.
const OTHER_NAME: &str = "dns.corp.example";
/// The main resolver's address for every name.
const PUBLIC_ADDRESS: &str = "203.0.113.7";
/// After how many queries dnsmasq closes a connection (2.90).
const DNSMASQ_QUERIES: usize = 100;

/// A server of the own network.
struct Server {
    resolver: Resolver,
    /// Its zone. It also has [`REVERSE_ZONE`].
    zone: &'static str,
}

#[test]
fn names_of_a_zone_go_to_unbound_and_no_others() {
    names_of_a_zone_go_to(|lab| unbound(lab, ""));
}

#[test]
fn names_of_a_zone_go_to_bind_and_no_others() {
    names_of_a_zone_go_to(|lab| bind(lab, ""));
}

#[test]
fn names_of_a_zone_go_to_dnsmasq_and_no_others() {
    names_of_a_zone_go_to(dnsmasq);
}

#[test]
fn every_query_is_answered_by_way_of_unbound() {
    every_query_is_answered_by_way_of(|lab| unbound(lab, ""));
}

#[test]
fn every_query_is_answered_by_way_of_bind() {
    every_query_is_answered_by_way_of(|lab| bind(lab, ""));
}

#[test]
fn every_query_is_answered_by_way_of_dnsmasq() {
    every_query_is_answered_by_way_of(dnsmasq);
}

#[test]
fn unbound_that_closes_idle_connections_costs_no_query() {
    idle_connections_cost_no_query(|lab| unbound(lab, "    tcp-idle-timeout: 200\n"));
}

#[test]
fn bind_that_closes_idle_connections_costs_no_query() {
    // In tenths of a second. dns-tool asks for how long a connection is kept: it gets the second, and is not told.
    idle_connections_cost_no_query(|lab| {
        bind(
            lab,
            "    tcp-idle-timeout 2;\n    tcp-keepalive-timeout 2;\n",
        )
    });
}

#[test]
fn dnsmasq_that_closes_after_a_hundred_queries_costs_no_query() {
    let lab = Lab::without_zone(NAME);
    let main = main_resolver(&lab);
    let server = dnsmasq(&lab);
    let more = ["--log-level", "debug"];
    let mut dns_tool = start(&lab, &main, &server, &more);
    let mut wrong = ask_by_tcp(dns_tool.port, server.zone, HOSTS);
    // From the cache they would say nothing.
    let more = ["--log-level", "debug", "--cache-size", "0"];
    let mut uncached = start(&lab, &main, &server, &more);
    for _ in 0..3 {
        wrong.extend(ask_by_tcp(uncached.port, server.zone, HOSTS));
        wrong.extend(ask_by_udp(uncached.port, server.zone, HOSTS));
    }
    let log = |dns_tool: &DnsTool| fs::read_to_string(&dns_tool.log).expect("its log");
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\n{}\n{}",
        log(&dns_tool),
        log(&uncached)
    );
    // So that it did close connections.
    let to = format!(
        "event=session-closed resolver=127.0.0.1:{} ",
        server.resolver.port
    );
    dns_tool.wait_for(&to, HOSTS.len() / DNSMASQ_QUERIES - 1);
    uncached.wait_for(&to, 6 * HOSTS.len() / DNSMASQ_QUERIES - 1);
}

#[test]
fn a_route_by_tls_has_a_resolver_with_a_name_and_an_authority_of_its_own() {
    let lab = Lab::without_zone(NAME);
    let mut main = main_resolver(&lab);
    let other = Lab::with_zone(OTHER_NAME);
    let resolver = other.unbound(Unbound::Authoritative);
    let read = |lab: &Lab| fs::read_to_string(&lab.ca).expect("its root");
    let both = lab.write("both.pem", &(read(&lab) + &read(&other)));
    let start = |ca, name: &str, pin: &str| {
        let mut command = Command::new(PROGRAM);
        let route = format!("{ZONE}=127.0.0.1:{}#{name}", resolver.port);
        let pin = format!("{name}={pin}");
        command.args(["--cache-size", "0", "--route", &route]);
        command.args(["--resolver-pin", &pin, "--resolver-pin", &lab.pins.leaf]);
        DnsTool::launch(command, &main, ca, NAME)
    };
    let questions = [
        "www A",
        "www AAAA",
        "many A",
        "txt4000 TXT",
        "svc HTTPS",
        "no-such-name A",
    ];
    let questions = questions.map(in_zone);
    let said = dig(&other.direct(&resolver), &questions);
    let dns_tool = start(&both, OTHER_NAME, &other.pins.leaf);
    for transport in ["+notcp", "+tcp"] {
        let heard = dig(&dns_tool.way(transport), &questions);
        assert_same(&said, &heard, &questions, transport);
        assert_public(&dns_tool, transport);
    }
    // What is right for one resolver is wrong for the other.
    for (ca, name, pin, check) in [
        (&lab.ca, OTHER_NAME, &other.pins.leaf, "check=chain"),
        (&both, NAME, &other.pins.leaf, "check=name"),
        (&both, OTHER_NAME, &lab.pins.leaf, "check=pin"),
    ] {
        let mut dns_tool = start(ca, name, pin);
        let heard = dig(&dns_tool.way("+notcp"), &questions[..1]);
        assert!(heard[0].contains("status: SERVFAIL"), "{check}: {heard:?}");
        dns_tool.wait_for(check, 1);
        assert_public(&dns_tool, "+notcp");
    }
    let way = lab.direct(&main);
    assert_asked_for(&mut main, &way, &["www.public.example"], &[ZONE]);
}

/// Starts dns-tool with routes to `server`. All else has its defaults, also what becomes of private reverse zones.
fn start(lab: &Lab, main: &Resolver, server: &Server, more: &[&str]) -> DnsTool {
    let mut command = Command::new(PROGRAM);
    for zone in [server.zone, REVERSE_ZONE] {
        let route = format!("{zone}=tcp://127.0.0.1:{}", server.resolver.port);
        command.args(["--route", &route]);
    }
    command.args(["--resolver-pin", &lab.pins.leaf]).args(more);
    DnsTool::launch(command, main, &lab.ca, NAME)
}

/// What the server itself says is what clients hear; for other names they hear the main resolver.
fn names_of_a_zone_go_to(server: fn(&Lab) -> Server) {
    let lab = Lab::without_zone(NAME);
    let (mut main, mut server) = (main_resolver(&lab), server(&lab));
    let zone = server.zone;
    let questions: Vec<_> = [
        (format!("nas.{zone} A"), "10.0.0.1"),
        (format!("nas.{zone} AAAA"), "fd00::1"),
        (format!("NaS.{zone} A"), "10.0.0.1"),
        (format!("1.{REVERSE_ZONE} PTR"), &format!("nas.{zone}.")),
        (format!("9.{REVERSE_ZONE} PTR"), "NXDOMAIN"),
        (format!("no-such-name.{zone} A"), "NXDOMAIN"),
        (format!("nas.{zone} MX"), "ANSWER: 0"),
        (format!("big.{zone} TXT"), "ANSWER: 8"),
        (format!("host7.{zone} A"), "198.51.100.7"),
    ]
    .iter()
    .flat_map(|(question, expected)| {
        ["", "+noedns", "+bufsize=512", "+dnssec"]
            .map(|options| (format!("{question} {options}"), (*expected).to_owned()))
    })
    .collect();
    let (questions, expected): (Vec<_>, Vec<_>) = questions.into_iter().unzip();
    let said = dig(&server.way(), &questions);
    for (said, expected) in said.iter().zip(&expected) {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let dns_tool = start(&lab, &main, &server, &["--cache-size", "0"]);
    for transport in ["+notcp", "+tcp", "+tcp +keepopen"] {
        let heard = dig(&dns_tool.way(transport), &questions);
        assert_same(&said, &heard, &questions, transport);
        assert_public(&dns_tool, transport);
    }
    let big = [format!("big.{zone} TXT")];
    let whole = dig_raw(&dns_tool.way("+tcp"), &big).remove(0);
    assert!(octets(&whole) > 1232, "{whole}");
    let cut = dig_raw(&dns_tool.way("+notcp +ignore"), &big).remove(0);
    assert!(has_flag(&cut, "tc") && octets(&cut) <= 1232, "{cut}");
    server.assert_asked_for_its_zones_alone();
    let way = lab.direct(&main);
    let foreign = [zone, "in-addr.arpa"];
    assert_asked_for(&mut main, &way, &["www.public.example"], &foreign);
}

/// Many queries in a short time all get their own answers.
fn every_query_is_answered_by_way_of(server: fn(&Lab) -> Server) {
    let ways: [Ask; 3] = [
        ask_by_tcp,
        |port, zone, hosts| ask_in_parallel(ask_by_udp, port, zone, hosts),
        |port, zone, hosts| ask_in_parallel(ask_by_tcp, port, zone, hosts),
    ];
    let lab = Lab::without_zone(NAME);
    let (mut main, mut server) = (main_resolver(&lab), server(&lab));
    for (ask, hosts) in ways.into_iter().zip([0..60, 60..100, 100..140]) {
        let mut dns_tool = start(&lab, &main, &server, &["--log-level", "debug"]);
        let wrong = ask(dns_tool.port, server.zone, hosts.clone());
        let log = fs::read_to_string(&dns_tool.log).expect("its log");
        assert!(wrong.is_empty(), "{wrong:#?}\n{log}");
        dns_tool.wait_for("outcome=answered", hosts.len());
        assert_public(&dns_tool, "+notcp");
    }
    server.assert_asked_for_its_zones_alone();
    let way = lab.direct(&main);
    assert_asked_for(&mut main, &way, &["www.public.example"], &[server.zone]);
}

/// Queries come just before, just after and just as the server closes the connection, which it does after 200 ms.
fn idle_connections_cost_no_query(server: fn(&Lab) -> Server) {
    let lab = Lab::without_zone(NAME);
    let (main, server) = (main_resolver(&lab), server(&lab));
    let mut dns_tool = start(&lab, &main, &server, &["--log-level", "debug"]);
    let mut wrong = Vec::new();
    for host in 0..16 {
        wrong.extend(ask_by_udp(dns_tool.port, server.zone, host..host + 1));
        thread::sleep(Duration::from_millis(192 + u64::from(host)));
    }
    let log = fs::read_to_string(&dns_tool.log).expect("its log");
    assert!(wrong.is_empty(), "{wrong:#?}\n{log}");
    dns_tool.wait_for("event=session-closed", 5);
}

/// Asks for a name of no route, which the main resolver knows.
fn assert_public(dns_tool: &DnsTool, transport: &str) {
    let question = "www.public.example A".to_owned();
    let heard = dig(&dns_tool.way(transport), &[question]).remove(0);
    assert!(heard.contains(PUBLIC_ADDRESS), "{heard}");
}

/// Reads what a server has written down. It was asked for these names, and for none below those zones.
fn assert_asked_for(server: &mut Resolver, way: &Way, names: &[&str], no_zones: &[&str]) {
    const LAST: &str = "end-of-log.example";
    // All that it was asked for before is there once this is.
    run_dig(way, &[format!("{LAST} A")]);
    let path = server.log.clone();
    let read = || fs::read_to_string(&path).unwrap_or_default().to_lowercase();
    server.process.wait_for(&path, || read().contains(LAST));
    let log = read();
    for name in names {
        assert!(log.contains(name), "{name}: {log}");
    }
    for zone in no_zones {
        assert!(!log.contains(zone), "{zone}: {log}");
    }
}

impl Server {
    /// The way to it without dns-tool.
    fn way(&self) -> Way {
        self.resolver.plain()
    }

    fn assert_asked_for_its_zones_alone(&mut self) {
        let way = self.way();
        let host = format!("host7.{}", self.zone);
        assert_asked_for(&mut self.resolver, &way, &[&host], &["public.example"]);
    }
}

/// The main resolver: every name has the same address.
fn main_resolver(lab: &Lab) -> Resolver {
    let port = free_port();
    let directory = lab.path().display();
    let unbound = lab.copy_of_unbound(
        port,
        &format!(
            r#"    log-queries: yes
    tls-port: {port}
    tls-service-key: "{directory}/key.pem"
    tls-service-pem: "{directory}/chain.pem"
    module-config: "iterator"
    local-zone: "." redirect
    local-data: ". A {PUBLIC_ADDRESS}"
"#
        ),
    );
    lab.resolver_of(unbound, [port, port], &lab.direct_to(port), ". A")
}

/// Runs `command`, which has `zone` on that port in clear.
fn server(lab: &Lab, command: Command, port: u16, zone: &'static str) -> Server {
    let way = Way {
        port,
        options: "+tcp".to_owned(),
    };
    let known = format!("nas.{zone} A");
    Server {
        resolver: lab.resolver_of(command, [port, port], &way, &known),
        zone,
    }
}

/// Writes `own.zone` and `reverse.zone`.
fn write_zones(lab: &Lab, zone: &str) {
    let head = "$TTL 3600\n@ SOA ns hostmaster 1 3600 600 86400 300\n@ NS ns\nns A 10.0.0.53\n";
    let mut own = format!("$ORIGIN {zone}.\n{head}nas A 10.0.0.1\nnas AAAA fd00::1\n");
    for text in texts() {
        let _ = writeln!(own, "big TXT \"{text}\"");
    }
    for host in HOSTS {
        let _ = writeln!(own, "host{host} A {}", address_of(host));
    }
    lab.write("own.zone", &own);
    let reverse = format!("$ORIGIN {REVERSE_ZONE}.\n{head}1 PTR nas.{zone}.\n");
    lab.write("reverse.zone", &reverse);
}

/// Texts that together are more than a datagram takes.
fn texts() -> impl Iterator<Item = String> {
    ('a'..='h').map(|letter| letter.to_string().repeat(200))
}

fn unbound(lab: &Lab, more: &str) -> Server {
    const OWN_ZONE: &str = "corp.example";
    let port = free_port();
    write_zones(lab, OWN_ZONE);
    let mut text = format!(
        r#"    log-queries: yes
    module-config: "iterator"
    do-not-query-address: 0.0.0.0/0
    do-not-query-address: ::/0
    local-zone: "10.in-addr.arpa." nodefault
{more}"#
    );
    for (name, file) in [(OWN_ZONE, "own.zone"), (REVERSE_ZONE, "reverse.zone")] {
        let _ = write!(
            text,
            r#"auth-zone:
    name: "{name}"
    zonefile: "{file}"
    for-downstream: yes
    for-upstream: yes
    fallback-enabled: no
"#
        );
    }
    server(lab, lab.copy_of_unbound(port, &text), port, OWN_ZONE)
}

fn bind(lab: &Lab, more: &str) -> Server {
    const OWN_ZONE: &str = "corp.example";
    let port = free_port();
    write_zones(lab, OWN_ZONE);
    let directory = lab.path().display();
    let configuration = lab.write(
        &format!("named-{port}.conf"),
        &format!(
            r#"options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    lock-file none;
    recursion no;
    querylog yes;
    dnssec-validation no;
    notify no;
{more}}};
controls {{ }};
zone "{OWN_ZONE}" {{ type primary; file "own.zone"; }};
zone "{REVERSE_ZONE}" {{ type primary; file "reverse.zone"; }};
"#
        ),
    );
    let mut named = lab.copy_of("named", "bind9");
    named.arg("-g").arg("-c").arg(configuration);
    server(lab, named, port, OWN_ZONE)
}

/// dnsmasq as on a router: it has a process for each connection, which answers one query after the other.
fn dnsmasq(lab: &Lab) -> Server {
    const OWN_ZONE: &str = "lan";
    let port = free_port();
    let mut text = format!(
        "port={port}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
user=root
pid-file={}/dnsmasq-{port}.pid
log-queries
log-facility=-
local=/{OWN_ZONE}/
local=/{REVERSE_ZONE}/
host-record=nas.{OWN_ZONE},10.0.0.1,fd00::1
",
        lab.path().display()
    );
    for host in HOSTS {
        let _ = writeln!(text, "address=/host{host}.{OWN_ZONE}/{}", address_of(host));
    }
    for line in texts() {
        let _ = writeln!(text, "txt-record=big.{OWN_ZONE},{line}");
    }
    let configuration = lab.write(&format!("dnsmasq-{port}.conf"), &text);
    let mut dnsmasq = program("dnsmasq", "dnsmasq-base");
    let configuration = format!("--conf-file={}", configuration.display());
    dnsmasq.args(["--keep-in-foreground", &configuration]);
    server(lab, dnsmasq, port, OWN_ZONE)
}
