//! It listens where it was told to, answers from the address that was asked, and stops without losing anything.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dns_tool::daemon::error::StartError;
use dns_tool::forward::outcome::Outcome;

use crate::support::message;
use crate::support::process::Process;
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, NAME, PATIENCE, TcpClient, UdpClient, config, pki,
    wait_until,
};

fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

#[test]
fn tcp_and_udp_share_a_port_on_every_address() {
    let resolver = FakeResolver::honest();
    let mut options = vec!["--address", "127.0.0.1", "--address", "127.0.0.2"];
    if has_ipv6() {
        options.extend(["--address", "::1"]);
    }
    let forwarder = Forwarder::before(&resolver, &options);
    let addresses = forwarder.running().addresses().to_vec();
    assert_eq!(addresses.len(), options.len() / 2);
    for address in addresses {
        let ask = Ask::a(1, "x.test");
        UdpClient::to(address)
            .ask(&ask.octets())
            .assert_answers(&ask);
        TcpClient::to(address)
            .ask(&ask.octets())
            .assert_answers(&ask);
    }
}

#[test]
fn on_a_wildcard_answers_leave_from_the_address_that_was_asked() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &["--address", "0.0.0.0"]);
    let port = forwarder.address().port();
    // Several addresses at a time, so that a batch has more than one source; the client checks where answers come from.
    let clients: Vec<_> = (1..=8)
        .map(|host| UdpClient::to(SocketAddr::from(([127, 0, 0, host], port))))
        .collect();
    for id in 0..50 {
        let ask = Ask::a(id, "x.test");
        clients.iter().for_each(|client| client.send(&ask.octets()));
        clients
            .iter()
            .for_each(|client| client.hear().assert_answers(&ask));
    }
    if has_ipv6() {
        let forwarder = Forwarder::before(&resolver, &["--address", "::"]);
        let client = UdpClient::to(SocketAddr::new(
            IpAddr::V6("::1".parse().expect("::1")),
            forwarder.address().port(),
        ));
        for id in 0..3 {
            let ask = Ask::a(id, "x.test");
            client.ask(&ask.octets()).assert_answers(&ask);
        }
    }
}

#[test]
fn a_burst_of_datagrams_is_answered_whole() {
    const COUNT: u16 = 500;
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    let client = forwarder.udp();
    let asks: Vec<_> = (0..COUNT)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    for some in asks.chunks(100) {
        some.iter().for_each(|ask| client.send(&ask.octets()));
        for _ in some {
            let heard = client.hear();
            heard.assert_answers(&asks[usize::from(heard.id())]);
        }
    }
    assert_eq!(
        forwarder.running().count(Outcome::Answered),
        u64::from(COUNT)
    );
}

/// More datagrams than the largest queue that the program asks for holds.
const FLOOD: u64 = 30_000;

/// So many, which ask nothing.
fn flood(address: SocketAddr) {
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for _ in 0..FLOOD {
        let sent = stranger.send_to(b"scrap", address);
        sent.expect("loopback takes datagrams");
    }
}

#[test]
fn datagrams_that_find_no_room_in_the_kernels_queue_are_counted_and_do_no_harm() {
    let resolver = FakeResolver::honest();
    let mut process = Process::before(&resolver, &[]);
    process.signal("STOP");
    flood(process.address);
    process.signal("CONT");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let again = Some(Duration::from_millis(50));
    client.set_read_timeout(again).expect("an option");
    let ask = Ask::a(1, "x.test");
    let (mut asked, address, said) = (0, process.address, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut answered, until) = (0, Instant::now() + PATIENCE);
            while (answered == 0 || !said.load(Ordering::Relaxed)) && Instant::now() < until {
                asked += 1;
                let sent = client.send_to(&ask.octets(), address);
                sent.expect("loopback takes datagrams");
                answered += u64::from(client.recv(&mut [0; 512]).is_ok());
            }
            assert!(answered > 0, "no answer after the flood");
        });
        process.read_until("event=udp-receive-drops");
        said.store(true, Ordering::Relaxed);
    });
    process.signal("TERM");
    let stopped = process.read_until("event=stopped");
    let count = |name: &str| {
        let word = stopped
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.expect("a count").parse::<u64>().expect("a number")
    };
    let lost = count("udp-receive-drops");
    assert!(lost > 0, "{stopped}");
    let handled = count("ignored") + count("answered") + count("cached");
    assert_eq!(handled + lost, FLOOD + asked, "{stopped}");
}

#[test]
fn on_a_wildcard_answers_leave_from_the_address_that_was_asked_after_datagrams_were_lost() {
    let resolver = FakeResolver::honest();
    let (at, anchors) = (resolver.address().to_string(), pki().root_file());
    let anchors = anchors.to_str().expect("a path in UTF-8");
    let everywhere = ["--address", "0.0.0.0", "--port", "0"];
    let before = ["--resolver-addr", &at, "--resolver-fqdn", NAME];
    let believing = ["--resolver-ca", anchors];
    let process = Process::plain(&[&everywhere[..], &before, &believing].concat(), &[]);
    let port = process.address.port();
    process.signal("STOP");
    flood(SocketAddr::from(([127, 0, 0, 2], port)));
    process.signal("CONT");
    // Once there is room again; who asks at the address of the default route is answered from there in any case.
    let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let again = Some(Duration::from_millis(50));
    client.set_read_timeout(again).expect("an option");
    let ask = Ask::a(1, "x.example");
    wait_until("an answer", || {
        let sent = client.send_to(&ask.octets(), ("127.0.0.1", port));
        sent.expect("loopback takes datagrams");
        client.recv(&mut [0; 512]).is_ok()
    });
    // It is connected, and hears nobody else.
    let client = UdpClient::to(SocketAddr::from(([127, 0, 0, 2], port)));
    for id in 0..10 {
        let ask = Ask::a(id, "x.example");
        client.ask(&ask.octets()).assert_answers(&ask);
    }
}

#[test]
fn a_port_in_use_and_a_strange_address_are_said_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let resolver = FakeResolver::honest();
    let start = |options: &[&str]| {
        let mut config = config(&[
            "--resolver-addr",
            &resolver.address().to_string(),
            "--resolver-fqdn",
            NAME,
        ]);
        if let Some(port) = options.first() {
            config.server.port = port.parse().expect("a port");
        } else {
            config.server.addresses = vec!["192.0.2.1".parse().expect("an address")];
        }
        match dns_tool::daemon::start::start(config) {
            Err(error @ StartError::Bind(_)) => error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it starts"),
        }
    };
    let in_use = start(&[&port]);
    assert!(
        in_use.contains(&format!("--port {port}: TCP 127.0.0.1:{port} is in use")),
        "{in_use}"
    );
    let strange = start(&[]);
    assert!(
        strange.contains("--address 192.0.2.1") && strange.contains("of this host"),
        "{strange}"
    );
}

#[test]
fn a_port_is_shared_only_by_those_who_all_say_so() {
    let resolver = FakeResolver::honest();
    for (theirs, ours) in [(true, true), (true, false), (false, true)] {
        // The system chooses a port for the first, which can be shared as well.
        let options: &[&str] = if theirs { &["--reuse-port"] } else { &[] };
        let first = Forwarder::before(&resolver, options);
        let port = first.address().port();
        let mut config = config(&[
            "--resolver-addr",
            &resolver.address().to_string(),
            "--resolver-fqdn",
            NAME,
        ]);
        config.server.port = port;
        config.server.reuse_port = ours;
        match dns_tool::daemon::start::start(config) {
            Ok(second) => {
                assert!(theirs && ours, "{theirs} {ours}");
                assert_eq!(second.addresses(), [first.address()]);
                second.stop();
            }
            Err(error) => {
                assert!(!(theirs && ours), "{error}");
                let said = format!("--port {port}: TCP 127.0.0.1:{port} is in use");
                assert!(error.to_string().contains(&said), "{error}");
            }
        }
    }
}

#[test]
fn of_two_that_share_a_port_both_serve_and_ending_one_loses_no_query() {
    const CLIENTS: u16 = 64;
    // Each has a resolver of its own, so that it shows who relayed what.
    let resolvers = [FakeResolver::honest(), FakeResolver::honest()];
    let first = Process::before(&resolvers[0], &["--reuse-port", "--cache-size", "0"]);
    let address = first.address;
    let anchors = pki().root_file();
    let second = Process::plain(
        &[
            "--reuse-port",
            "--address",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
            "--cache-size",
            "0",
            "--resolver-ca",
            anchors.to_str().expect("a path in UTF-8"),
            "--resolver-fqdn",
            NAME,
            "--resolver-addr",
            &resolvers[1].address().to_string(),
        ],
        &[],
    );
    let asked = || [0, 1].map(|which: usize| resolvers[which].queries().len());
    let clients: Vec<_> = (0..CLIENTS).map(|_| UdpClient::to(address)).collect();
    for (id, client) in (0..).zip(&clients) {
        let ask = Ask::a(id, &format!("udp{id}.example"));
        client.ask(&ask.octets()).assert_answers(&ask);
    }
    let by_udp = asked();
    assert!(by_udp.iter().all(|count| *count > 0), "{by_udp:?}");
    for id in 0..CLIENTS {
        let ask = Ask::a(id, &format!("tcp{id}.example"));
        let mut client = TcpClient::to(address);
        client.ask(&ask.octets()).assert_answers(&ask);
    }
    let all = asked();
    let by_tcp = [0, 1].map(|which| all[which] - by_udp[which]);
    assert!(by_tcp.iter().all(|count| *count > 0), "{by_tcp:?}");

    // The one that ends waits for the last answers for a while, and its clients ask on.
    for resolver in &resolvers {
        resolver.serve(|query| {
            vec![Act::Later(
                Duration::from_millis(500),
                message::answer(query),
            )]
        });
    }
    let asks: Vec<_> = (0..CLIENTS)
        .map(|id| Ask::a(id, &format!("late{id}.example")))
        .collect();
    for (client, ask) in clients.iter().zip(&asks) {
        client.send(&ask.octets());
    }
    let count = all.iter().sum::<usize>() + asks.len();
    wait_until("the queries at the resolvers", || {
        // One that waits for long is asked again, and counts again.
        asked().iter().sum::<usize>() >= count
    });
    resolvers[1].serve(|query| vec![Act::Send(message::answer(query))]);
    first.signal("TERM");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(first.wait(), Some(0));
            ended.store(true, Ordering::Relaxed);
        });
        let mut id = CLIENTS;
        while !ended.load(Ordering::Relaxed) {
            id += 1;
            let ask = Ask::a(id, &format!("meanwhile{id}.example"));
            let client = UdpClient::to(address);
            client.ask(&ask.octets()).assert_answers(&ask);
        }
    });
    for (client, ask) in clients.iter().zip(&asks) {
        client.hear().assert_answers(ask);
    }
    let before = asked();
    for (id, client) in (0..).zip(&clients) {
        let ask = Ask::a(id, &format!("alone{id}.example"));
        client.ask(&ask.octets()).assert_answers(&ask);
        let mut client = TcpClient::to(address);
        client.ask(&ask.octets()).assert_answers(&ask);
    }
    let alone = [0, 1].map(|which| asked()[which] - before[which]);
    // One that waits for long is asked again, and counts again.
    assert!(
        alone[0] == 0 && alone[1] >= 2 * usize::from(CLIENTS),
        "{alone:?}"
    );
    drop(second);
}

#[test]
fn an_address_that_the_host_lacks_is_left_out_only_by_default() {
    let resolver = FakeResolver::honest();
    let mut config = config(&[
        "--resolver-addr",
        &resolver.address().to_string(),
        "--resolver-fqdn",
        NAME,
    ]);
    // As the default is on a host without IPv6.
    config.server.addresses = vec![
        "127.0.0.1".parse().expect("an address"),
        "192.0.2.1".parse().expect("an address"),
    ];
    config.server.addresses_optional = true;
    let running = dns_tool::daemon::start::start(config).expect("one address is enough");
    assert_eq!(running.addresses().len(), 1);
    running.stop();
}

#[test]
fn stopping_answers_what_is_under_way_and_then_closes_the_ports() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        vec![Act::Later(
            Duration::from_millis(300),
            message::answer(query),
        )]
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let address = forwarder.address();
    let (udp, mut tcp) = (forwarder.udp(), forwarder.tcp());
    let asks: Vec<_> = (0..10)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    for pair in asks.chunks(2) {
        udp.send(&pair[0].octets());
        tcp.send(&[pair[1].octets()]);
    }
    resolver.wait_for_queries(asks.len());
    let running = forwarder.into_running();
    let stopping = thread::spawn(move || running.stop());
    for _ in 0..5 {
        for heard in [udp.hear(), tcp.hear()] {
            heard.assert_answers(&asks[usize::from(heard.id())]);
        }
    }
    stopping.join().expect("it stops");
    assert!(TcpStream::connect(address).is_err());
    wait_until("the UDP port to be free", || {
        UdpSocket::bind(address).is_ok()
    });
}

#[test]
fn more_clients_than_places_are_served_one_after_the_other() {
    let resolver = FakeResolver::honest();
    let mut config = config(&[
        "--resolver-addr",
        &resolver.address().to_string(),
        "--resolver-fqdn",
        "resolver.test",
    ]);
    config.server.max_clients = 3;
    let running = dns_tool::daemon::start::start(config).expect("it starts");
    let address = running.addresses()[0];
    let ask = Ask::a(1, "x.test");
    let clients = (0..20).map(|_| {
        let mut client = TcpClient::to(address);
        client.send(&[ask.octets()]);
        client
    });
    for mut client in clients.collect::<Vec<_>>() {
        client.hear().assert_answers(&ask);
    }
    running.stop();
}
