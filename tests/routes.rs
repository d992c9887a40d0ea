//! Names of a zone go where its route leads, and nowhere else.

use std::net::TcpListener;
use std::time::Instant;

use dns_tool::config::command_line;
use dns_tool::forward::outcome::Outcome;
use dns_tool::forward::routes::MAX_UPSTREAMS;
use log::Level;

use crate::support::message;
use crate::support::process::{Process, program};
use crate::support::{Act, PATIENCE};
use crate::support::{
    Ask, CleartextServer, FakeResolver, Forwarder, Gate, Greeting, NAME, UdpClient, pki,
    temporary_file, wait_until,
};

const DS: u16 = 43;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const REFUSED: u16 = 5;
/// The option Padding (RFC 7830).
const PADDING: u16 = 12;

/// The name in the certificate of the resolver for some zones.
const CORP: &str = "dns.corp.example";

/// A resolver with the name [`CORP`].
fn corp_resolver() -> FakeResolver {
    FakeResolver::with_chain(&pki().chain(&[CORP], |_| {}))
}

/// The route of `zone` to a resolver by TLS.
fn tls(zone: &str, resolver: &FakeResolver) -> String {
    format!("{zone}={}#{CORP}", resolver.address())
}

/// The route of `zone` to a server in cleartext.
fn cleartext(zone: &str, server: &CleartextServer) -> String {
    format!("{zone}=tcp://{}", server.address())
}

/// `--route` before each of these.
fn options(routes: &[String]) -> Vec<&str> {
    let routes = routes.iter();
    routes.flat_map(|route| ["--route", route]).collect()
}

/// Asks for a name, and hears the honest answer.
fn assert_answers(client: &UdpClient, name: &str) {
    let ask = Ask::a(7, name);
    client.ask(&ask.octets()).assert_answers(&ask);
}

#[test]
fn the_longest_zone_decides_which_resolver_is_asked() {
    let (main, corp, server) = (
        FakeResolver::honest(),
        corp_resolver(),
        CleartextServer::honest(),
    );
    let routes = [
        tls("corp.example", &corp),
        cleartext("lab.corp.example", &server),
        "public.corp.example=relay".to_owned(),
        "gone.example=nxdomain".to_owned(),
    ];
    let forwarder = Forwarder::before(&main, &options(&routes));
    let client = forwarder.udp();
    for name in [
        "corp.example",
        "www.Corp.Example",
        "a.b.corp.example",
        "xlab.corp.example",
    ] {
        assert_answers(&client, name);
        assert_eq!(corp.count(&name.to_ascii_lowercase()), 1, "{name}");
    }
    for name in ["lab.corp.example", "printer.LAB.corp.example"] {
        assert_answers(&client, name);
    }
    assert_eq!(
        server.names(),
        ["lab.corp.example", "printer.lab.corp.example"]
    );
    let elsewhere = [
        "public.corp.example",
        "www.public.corp.example",
        "example",
        "xcorp.example",
        "corp.example.net",
    ];
    for name in elsewhere {
        assert_answers(&client, name);
        assert_eq!(main.count(name), 1, "{name}");
    }
    for name in ["gone.example", "www.gone.example"] {
        let ask = Ask::a(1, name);
        let heard = client.ask(&ask.octets());
        assert_eq!(heard.whole_rcode(), NXDOMAIN, "{name}");
        assert_eq!(heard.counts(), [1, 0, 1, 0], "a SOA, so that it is kept");
    }
    assert_eq!(main.queries().len(), elsewhere.len());
    assert_eq!(corp.queries().len(), 4);
    assert_eq!(forwarder.running().count(Outcome::Local), 2);
}

#[test]
fn by_tcp_and_from_the_cache_it_is_the_same() {
    let (main, corp) = (FakeResolver::honest(), corp_resolver());
    let routes = [tls("corp.example", &corp)];
    let options = [&options(&routes)[..], &["--cache-size", "1000000"]].concat();
    let forwarder = Forwarder::before(&main, &options);
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let ask = Ask::a(9, "www.corp.example");
    tcp.ask(&ask.octets()).assert_answers(&ask);
    assert_answers(&udp, "www.corp.example");
    assert_eq!(corp.queries().len(), 1);
    assert_eq!(forwarder.running().count(Outcome::Cached), 1);
    assert!(main.queries().is_empty());
}

#[test]
fn in_cleartext_only_the_zone_leaves_and_without_padding() {
    let (main, server) = (FakeResolver::honest(), CleartextServer::honest());
    let routes = [cleartext("lan", &server)];
    let forwarder = Forwarder::before(&main, &options(&routes));
    let client = forwarder.udp();
    assert_answers(&client, "nas.lan");
    assert_answers(&client, "www.example");
    assert_eq!(server.names(), ["nas.lan"]);
    let query = message::Heard::read(&server.queries()[0]);
    assert!(query.has_opt() && !query.options().contains(&PADDING));
    assert_eq!(main.count("www.example"), 1);
}

#[test]
fn a_route_decides_before_a_special_use_does() {
    let (main, server) = (FakeResolver::honest(), CleartextServer::honest());
    let routes = [
        cleartext("home.arpa", &server),
        cleartext("168.192.in-addr.arpa", &server),
        "internal=relay".to_owned(),
    ];
    let options = [&options(&routes)[..], &["--special-names", "answer"]].concat();
    let forwarder = Forwarder::before(&main, &options);
    let client = forwarder.udp();
    for name in ["home.arpa", "tv.home.arpa", "7.2.168.192.in-addr.arpa"] {
        assert_answers(&client, name);
    }
    assert_eq!(
        server.names(),
        ["home.arpa", "tv.home.arpa", "7.2.168.192.in-addr.arpa"]
    );
    assert_answers(&client, "db.internal");
    assert_eq!(main.count("db.internal"), 1);
    let ask = Ask::a(1, "tv.local");
    assert_eq!(client.ask(&ask.octets()).whole_rcode(), NXDOMAIN);
}

#[test]
fn a_server_of_a_route_may_name_private_addresses() {
    let private = |query: &[u8]| {
        let record = message::record(1, 300, &[192, 168, 0, 1]);
        message::answer_with(query, &[&record])
    };
    let server = CleartextServer::with(move |query| Some(private(query)));
    let main = FakeResolver::honest();
    main.serve(move |query| vec![Act::Send(private(query))]);
    let routes = [cleartext("lan", &server), "public.lan=relay".to_owned()];
    let options = [&options(&routes)[..], &["--rebind-protection"]].concat();
    let forwarder = Forwarder::before(&main, &options);
    let client = forwarder.udp();
    let heard = client.ask(&Ask::a(1, "nas.lan").octets());
    assert_eq!(heard.addresses(), [[192, 168, 0, 1]]);
    for name in ["www.example", "www.public.lan"] {
        let ask = Ask::a(2, name);
        assert_eq!(client.ask(&ask.octets()).whole_rcode(), REFUSED, "{name}");
    }
}

#[test]
fn a_ds_record_of_a_zone_is_asked_of_who_has_the_zone_above() {
    let (main, corp, server) = (
        FakeResolver::honest(),
        corp_resolver(),
        CleartextServer::honest(),
    );
    let routes = [
        tls("example", &corp),
        cleartext("lab.example", &server),
        "gone.example=nxdomain".to_owned(),
    ];
    let forwarder = Forwarder::before(&main, &options(&routes));
    let client = forwarder.udp();
    let ask = |name: &str| {
        client
            .ask(&Ask::a(1, name).with_type(DS).octets())
            .whole_rcode()
    };
    for (name, rcode) in [
        ("example", 0),
        ("lab.example", 0),
        ("x.lab.example", 0),
        ("gone.example", NXDOMAIN),
    ] {
        assert_eq!(ask(name), rcode, "{name}");
    }
    assert_eq!((main.count("example"), main.queries().len()), (1, 1));
    assert_eq!((corp.count("lab.example"), corp.queries().len()), (1, 1));
    assert_eq!(server.names(), ["x.lab.example"]);
}

#[test]
fn targets_of_a_zone_are_asked_in_their_order() {
    let (main, first, second) = (FakeResolver::honest(), corp_resolver(), corp_resolver());
    let routes = [tls("corp.example", &first), tls("corp.example", &second)];
    let forwarder = Forwarder::before(&main, &options(&routes));
    let client = forwarder.udp();
    assert_answers(&client, "one.corp.example");
    assert_eq!((first.queries().len(), second.queries().len()), (1, 0));
    first.greet(Greeting::Close);
    first.hang_up();
    wait_until("the second one is asked", || {
        let ask = Ask::a(2, "two.corp.example");
        client.ask(&ask.octets());
        second.count("two.corp.example") > 0
    });
    assert!(main.queries().is_empty());
}

#[test]
fn a_dead_route_fails_its_own_names_alone_and_at_once() {
    let (main, corp) = (FakeResolver::honest(), corp_resolver());
    corp.greet(Greeting::Close);
    let routes = [
        tls("corp.example", &corp),
        "lan=tcp://127.0.0.1:1".to_owned(),
    ];
    let options = [&options(&routes)[..], &["--timeout", "20"]].concat();
    let forwarder = Forwarder::before(&main, &options);
    let client = forwarder.udp();
    for name in ["www.corp.example", "nas.lan"] {
        let began = Instant::now();
        let ask = Ask::a(3, name);
        client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
        assert!(
            began.elapsed() < PATIENCE / 2,
            "{name}: not at the deadline"
        );
        assert_answers(&client, "www.example");
    }
    assert_eq!(main.queries().len(), 2, "none of the dead zones");
}

#[test]
fn routes_to_silent_resolvers_take_no_thread_of_clients_or_of_the_main_resolver() {
    let main = FakeResolver::honest();
    // The kernel accepts for them, and no handshake ends.
    let silent: Vec<_> = (0..MAX_UPSTREAMS)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free"))
        .collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("its address");
    let routes: Vec<_> = silent
        .iter()
        .enumerate()
        .map(|(number, listener)| format!("z{number}.example={}#{CORP}", address(listener)))
        .collect();
    let options = [&options(&routes)[..], &["--max-clients", "1"]].concat();
    let forwarder = Forwarder::before(&main, &options);
    let udp = forwarder.udp();
    for number in 0..MAX_UPSTREAMS {
        udp.send(&Ask::a(1, &format!("www.z{number}.example")).octets());
    }
    for _ in 0..MAX_UPSTREAMS {
        assert_eq!(udp.hear().whole_rcode(), SERVFAIL);
    }
    let began = Instant::now();
    let mut tcp = forwarder.tcp();
    for number in 0..3 {
        let ask = Ask::a(number, &format!("n{number}.example"));
        tcp.ask(&ask.octets()).assert_answers(&ask);
    }
    main.hang_up();
    assert_answers(&udp, "www.example");
    assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
}

#[test]
fn a_silent_route_delays_no_other_name_and_holds_a_bounded_number_of_queries() {
    let (main, gate) = (FakeResolver::honest(), Gate::default());
    let corp = corp_resolver();
    let held = gate.clone();
    corp.serve(move |query| vec![Act::Held(held.clone(), message::answer(query))]);
    let routes = [tls("corp.example", &corp)];
    // 64 of one client at a time: half of them may be for routes.
    let options = [
        &options(&routes)[..],
        &["--timeout", "20", "--max-pending", "64"],
    ]
    .concat();
    let forwarder = Forwarder::before(&main, &options);
    let (client, other) = (forwarder.udp(), forwarder.udp());
    for number in 0..40 {
        client.send(&Ask::a(number, &format!("n{number}.corp.example")).octets());
    }
    // Those above the bound fail at once.
    for _ in 32..40 {
        assert_eq!(client.hear().whole_rcode(), SERVFAIL);
    }
    for number in 0..20 {
        assert_answers(&other, &format!("n{number}.example"));
        assert_answers(&client, &format!("m{number}.example"));
    }
    assert_eq!(forwarder.running().count(Outcome::Overloaded), 8);
    gate.open();
    for _ in 0..32 {
        assert_eq!(client.hear().whole_rcode(), 0);
    }
}

#[test]
fn a_resolver_of_a_route_is_authenticated_by_its_name_and_its_pins() {
    let main = FakeResolver::honest();
    let chain = pki().chain(&[CORP], |_| {});
    let corp = FakeResolver::with_chain(&chain);
    let other_pin = pki().chain(&["x.example"], |_| {}).pin;
    let route = tls("corp.example", &corp);
    let with_pin = |pin| format!("{CORP}={pin}");
    for (route, pin, serves) in [
        (&route, with_pin(chain.pin), true),
        (&route, with_pin(other_pin), false),
        (
            &format!("corp.example={}#{NAME}", corp.address()),
            format!("{NAME}={}", chain.pin),
            false,
        ),
    ] {
        let forwarder = Forwarder::with(&[
            "--resolver-addr",
            &main.address().to_string(),
            "--resolver-fqdn",
            NAME,
            "--pin-mode",
            "strict",
            "--route",
            route,
            "--resolver-pin",
            &pin,
        ]);
        let ask = Ask::a(1, "www.corp.example");
        let heard = forwarder.udp().ask(&ask.octets());
        assert_eq!(heard.whole_rcode() == 0, serves, "{route} {pin}");
    }
    assert!(!corp.log(Level::Error).is_empty(), "it is said");
    assert!(main.queries().is_empty());
}

#[test]
fn a_pin_file_has_to_name_the_resolvers_of_routes_too() {
    let (main, corp) = (FakeResolver::honest(), corp_resolver());
    let pins = temporary_file(
        "pins-of-routes",
        format!("{NAME} {}\n", pki().issuer.pin()).as_bytes(),
    );
    let error = command_line::parse([
        "--resolver-addr",
        &main.address().to_string(),
        "--resolver-fqdn",
        NAME,
        "--route",
        &tls("corp.example", &corp),
        "--pins",
        pins.to_str().expect("a path in UTF-8"),
    ]);
    let error = error.expect_err("a resolver without a pin").to_string();
    assert!(
        error.contains(&format!("expected a pin for {CORP}")),
        "{error}"
    );
}

#[test]
fn a_reload_that_changes_a_route_forgets_its_zone_alone() {
    let (main, corp, server) = (
        FakeResolver::honest(),
        corp_resolver(),
        CleartextServer::honest(),
    );
    let text = format!(
        "resolver-addr {}\nresolver-fqdn {NAME}\naddress 127.0.0.1\nport 0\nresolver-ca {}\n",
        main.address(),
        pki().root_file().display(),
    );
    let file = temporary_file("options-routes", text.as_bytes());
    let write = |routes: &[String]| {
        let lines: String = routes
            .iter()
            .map(|route| format!("route {route}\n"))
            .collect();
        std::fs::write(&file, format!("{text}{lines}")).expect("writes");
    };
    // The sandbox opens the ports of the start.
    let other = cleartext("lan", &server);
    write(&[tls("corp.example", &corp), other.clone()]);
    let mut process = Process::plain(&["--config", file.to_str().expect("a path in UTF-8")], &[]);
    for (zone, cleartext) in [("corp.example.", "no"), ("lan.", "yes")] {
        let lines = process.heard().lines();
        let mut of_zone = lines.filter(|line| line.contains(&format!("event=route zone={zone} ")));
        let line = of_zone.next().expect("it is said");
        assert!(line.ends_with(&format!(" cleartext={cleartext}")), "{line}");
    }
    let client = UdpClient::to(process.address);
    let ask_all = || ["www.corp.example", "www.example"].map(|name| assert_answers(&client, name));
    ask_all();
    ask_all();
    assert_eq!(
        (corp.queries().len(), main.queries().len()),
        (1, 1),
        "the cache answers"
    );
    write(&[cleartext("corp.example", &server), other]);
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(said.contains("changed=\"route\""), "{said}");
    assert!(process.has_said("zone=corp.example. to=\"tcp://"));
    ask_all();
    assert_eq!(server.names(), ["www.corp.example"]);
    assert_eq!(
        (corp.queries().len(), main.queries().len()),
        (1, 1),
        "the other name is kept"
    );
    write(&[format!("corp.example=tcp://{}", process.address)]);
    process.signal("HUP");
    let said = process.read_until("event=config-reload-failed");
    let place = format!("{}:6: route \\\"corp.example=tcp://", file.display());
    assert!(
        said.contains(&place) && said.contains("listens on this one itself"),
        "{said}"
    );
    write(&[]);
    process.signal("HUP");
    process.read_until("event=config-reloaded");
    ask_all();
    assert_eq!(main.queries().len(), 2);
    assert_eq!(server.names().len(), 1);
    // Nor does a kept answer hide that a name ends here now.
    write(&["example=nxdomain".to_owned()]);
    process.signal("HUP");
    process.read_until("event=config-reloaded");
    for name in ["www.corp.example", "www.example"] {
        let heard = client.ask(&Ask::a(1, name).octets());
        assert_eq!(heard.whole_rcode(), NXDOMAIN, "{name}");
    }
    assert_eq!(main.queries().len(), 2);
}

#[test]
fn a_route_to_the_forwarder_itself_is_an_error_at_the_start() {
    for (listener, target) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.9"),
        ("::", "[::1]"),
    ] {
        // Another test may take the port that is free now.
        let (error, expected) = (0..20)
            .map(|_| start_with_route_to_itself(listener, target))
            .find(|(error, _)| !error.contains("is in use"))
            .expect("a free port");
        assert!(error.contains(&expected), "{listener} {error}");
    }
}

/// What a dns-tool says that listens there and has a route to that address with its own port, and what it is to say.
fn start_with_route_to_itself(listener: &str, target: &str) -> (String, String) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port().to_string();
    drop(free);
    let target = format!("tcp://{target}:{port}");
    let out = program()
        .args(["--resolver-addr", "127.0.0.1:1", "--resolver-fqdn", NAME])
        .args(["--address", listener, "--port", &port])
        .args(["--route", &format!("lan={target}")])
        .output()
        .expect("it runs");
    assert_eq!(out.status.code(), Some(1));
    let expected = "expected another address: dns-tool listens on this one itself";
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    (error, format!("--route \"lan={target}\": {expected}"))
}

#[test]
fn wrong_routes_are_one_clear_line() {
    let parse = |routes: &[&str]| {
        let routes = routes.iter().flat_map(|route| ["--route", route]);
        let others = [
            "--resolver-addr",
            "192.0.2.1",
            "--resolver-fqdn",
            "dns.example",
            "--address",
            "127.0.0.1",
        ];
        command_line::parse(others.into_iter().chain(routes).map(str::to_owned)).map(drop)
    };
    for (routes, expected) in [
        (
            &["corp..example=nxdomain"][..],
            "--route \"corp..example=nxdomain\": expected a zone",
        ),
        (&[".=tcp://10.0.0.1"], "expected a zone below the root"),
        (
            &["corp.example=tcp://192.0.2.7"],
            "read and change cleartext",
        ),
        (
            &["lan=tcp://10.0.0.1", "LAN.=tcp://10.0.0.1:53"],
            "each target of lan. once",
        ),
        (
            &["lan=tcp://10.0.0.1", "lan=192.0.2.1#a.example"],
            "of one kind",
        ),
        (&["lan=nxdomain", "lan=relay"], "of one kind"),
        (&["lan=relay", "lan=tcp://10.0.0.1"], "of one kind"),
    ] {
        let error = parse(routes).expect_err("a wrong route").to_string();
        assert!(
            error.starts_with("--route ") && error.contains(expected),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }
    let many: Vec<_> = (0..17)
        .map(|number| format!("z{number}.example=tcp://10.0.0.{number}"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let error = parse(&many[1..]).err();
    assert!(error.is_none(), "{error:?}");
    let error = parse(&many).expect_err("10.0.0.0 is one more").to_string();
    assert!(
        error.contains("16 different resolvers or servers at most"),
        "{error}"
    );
    let same: Vec<_> = (0..256)
        .map(|number| format!("z{number}.example=tcp://10.0.0.1"))
        .collect();
    let mut same: Vec<_> = same.iter().map(String::as_str).collect();
    parse(&same).expect("they share a server");
    same.push("one.more.example=nxdomain");
    let error = parse(&same).expect_err("too many").to_string();
    assert!(error.contains("routes for 256 zones at most"), "{error}");
}

#[test]
fn each_zone_of_many_is_said_at_the_start() {
    let main = FakeResolver::honest();
    let routes: Vec<_> = (0..256)
        .map(|number| format!("z{number}.example=tcp://127.0.0.{}:1", 1 + number % 16))
        .collect();
    let process = Process::before(&main, &options(&routes));
    process.signal("TERM");
    let (_, log) = process.end_with_whole_log();
    for number in 0..256 {
        let part = format!("event=route zone=z{number}.example. to=");
        assert!(log.contains(&part), "{part}: {log}");
    }
}
