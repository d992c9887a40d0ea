//! What strangers and broken peers send costs nobody else anything: the real program, and honest clients beside it.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;

use crate::support::process::Process;
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, TcpClient, UdpClient, message, wait_until,
};

/// Octets that follow from `seed` and look random (xorshift, Marsaglia 2003).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("it is below a usize")
    }

    /// The message with some of its octets changed, cut off or doubled; what says that it is a query or an answer stays.
    fn damage(&mut self, message: &[u8]) -> Vec<u8> {
        let mut octets = message.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(octets.len());
            match self.below(4) {
                0 => octets[at] = self.next().to_le_bytes()[0],
                1 => octets[at] ^= 1 << self.below(8),
                2 => octets.truncate(at.max(12)),
                _ => octets.extend_from_within(at..),
            }
        }
        octets
    }
}

/// Ten questions, by both transports, are answered right.
pub(crate) fn assert_serves(address: SocketAddr) {
    let (udp, mut tcp) = (UdpClient::to(address), TcpClient::to(address));
    for id in 0..10 {
        let ask = Ask::a(id, &format!("honest{id}.test"));
        udp.ask(&ask.octets()).assert_answers(&ask);
        tcp.ask(&ask.octets()).assert_answers(&ask);
    }
}

/// Its end, after which nothing may have panicked.
fn assert_ends_well(process: Process) {
    process.signal("TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("panics=0"), "{log}");
}

#[test]
fn what_is_no_dns_over_tcp_ends_and_harms_nobody() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &[]);
    let most = [&[0xff, 0xff][..], &[0xa5; 65_535]].concat();
    let strangers: [&[u8]; 7] = [
        b"\0\0",
        b"\0\x01x",
        b"\0\x0bhello world",
        b"GET / HTTP/1.1\r\nHost: dns.test\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        &most,
    ];
    let mut clients: Vec<_> = (0..40).map(|_| TcpClient::to(process.address)).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        let _ = client.socket.write_all(strangers[at % strangers.len()]);
        // Urgent data is nothing that DNS knows, either.
        let _ = SockRef::from(&client.socket).send_out_of_band(b"!");
        client.half_close();
    }
    assert_serves(process.address);
    for client in &mut clients {
        let mut rest = Vec::new();
        // With an end or a reset; a broken query may have been told so before.
        let _ = client.socket.read_to_end(&mut rest);
    }
    // One that waits for long is asked again, and counts again.
    let asked = resolver.queries();
    let honest = |query: &Vec<u8>| query[12..].starts_with(b"\x07honest");
    assert!(asked.len() >= 10, "{asked:?}");
    assert!(asked.iter().all(honest), "the honest ones alone: {asked:?}");
    assert_ends_well(process);
}

#[test]
fn who_is_silent_or_dribbles_is_closed_after_ten_seconds() {
    let resolver = FakeResolver::honest();
    let forwarder = Forwarder::before(&resolver, &[]);
    let mut silent = forwarder.tcp();
    let mut half = forwarder.tcp();
    half.socket.write_all(b"\0").expect("sends");
    // A prefix that says more than ever comes, and one octet of it now and then.
    let mut dribbler = forwarder.tcp();
    let pause = Some(Duration::from_millis(500));
    dribbler.socket.set_read_timeout(pause).expect("an option");
    dribbler.socket.write_all(b"\x01\0").expect("sends");
    wait_until("the dribbler's end", || {
        let ended = matches!(dribbler.socket.read(&mut [0]), Ok(0));
        ended || dribbler.socket.write_all(b"x").is_err()
    });
    half.expect_close();
    silent.expect_close();
}

#[test]
fn sixteen_hundred_damaged_queries_are_survived() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &[]);
    let mut noise = Noise(0x5eed);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut client = TcpClient::to(process.address);
    for id in 0..800 {
        let mut ask = Ask::a(id, &format!("n{id}.some.test"));
        if id % 2 == 0 {
            ask = ask.with_edns(message::Edns {
                size: 1232,
                options: vec![(10, vec![7; 8]), (12, vec![0; 9])],
                ..message::Edns::default()
            });
        }
        let damaged = noise.damage(&ask.octets());
        stranger
            .send_to(&damaged, process.address)
            .expect("loopback takes datagrams");
        let framed = crate::support::client::framed(&[noise.damage(&ask.octets())]);
        if client.socket.write_all(&framed).is_err() {
            client = TcpClient::to(process.address);
        }
    }
    assert_serves(process.address);
    assert_ends_well(process);
}

#[test]
fn three_hundred_damaged_answers_are_survived_and_the_next_are_right() {
    let resolver = FakeResolver::honest();
    let noise = std::sync::Mutex::new(Noise(0xa115));
    resolver.serve(move |query| {
        let answer = message::answer(query);
        if query[12..].windows(6).any(|part| part == b"honest") {
            return vec![Act::Send(answer)];
        }
        let mut noise = noise.lock().expect("no test panics with it");
        match noise.below(8) {
            0 => vec![Act::Raw(noise.damage(&answer))],
            1 => vec![Act::Send(Vec::new())],
            2 => vec![Act::Send(answer[..3].to_vec())],
            _ => vec![Act::Send(noise.damage(&answer))],
        }
    });
    let process = Process::before(&resolver, &["--timeout", "1"]);
    let client = UdpClient::to(process.address);
    let asks: Vec<_> = (0..300)
        .map(|id| Ask::a(id, &format!("n{id}.test")))
        .collect();
    for ask in &asks {
        client.send(&ask.octets());
    }
    let mut heard: Vec<_> = asks.iter().map(|_| client.hear().id()).collect();
    heard.sort_unstable();
    assert!((0..300).eq(heard), "one answer or failure for each");
    // A session whose frame is lost may swallow what comes next, until it is found to be silent.
    resolver.hang_up();
    // After so many broken sessions the resolver counts as away, and is tried every quarter of a second.
    let ask = Ask::a(1, "honest.test");
    wait_until("the resolver to be believed again", || {
        client.ask(&ask.octets()).rcode() == 0
    });
    assert_serves(process.address);
    assert_ends_well(process);
}

#[test]
fn answers_to_questions_that_were_not_asked_yet_answer_none_later() {
    let resolver = FakeResolver::honest();
    let sent = AtomicUsize::new(0);
    resolver.serve(move |query| {
        let mut acts = vec![Act::Send(message::answer(query))];
        if sent.fetch_add(1, Ordering::SeqCst) == 0 {
            // What will be asked next, under a twentieth of all IDs.
            let mut guess = message::answer(
                &Ask::a(0, "next.test")
                    .with_edns(message::Edns::default())
                    .octets(),
            );
            let end = guess.len() - 11;
            guess[end - 4..end].copy_from_slice(&[6, 6, 6, 6]);
            for id in 0..3277_u16 {
                guess[..2].copy_from_slice(&(id * 20).to_be_bytes());
                acts.push(Act::Send(guess.clone()));
            }
        }
        acts
    });
    let forwarder = Forwarder::before(&resolver, &[]);
    let client = forwarder.udp();
    let first = Ask::a(1, "first.test");
    client.ask(&first.octets()).assert_answers(&first);
    // The stream keeps their order: once this is answered, every guess has been read.
    let between = Ask::a(1, "between.test");
    client.ask(&between.octets()).assert_answers(&between);
    for id in 2..100 {
        let next = Ask::a(id, "next.test");
        client.ask(&next.octets()).assert_answers(&next);
    }
}

#[test]
fn who_asks_ten_thousand_things_and_leaves_costs_the_resolver_no_more_than_may_wait() {
    let resolver = FakeResolver::honest();
    // Nothing is answered, so nothing frees a place.
    resolver.serve(
        |query| match query[12..].windows(6).any(|part| part == b"honest") {
            true => vec![Act::Send(message::answer(query))],
            false => Vec::new(),
        },
    );
    let process = Process::before(&resolver, &["--timeout", "1"]);
    for reset in [false, true] {
        let socket = TcpStream::connect(process.address).expect("connects");
        let asks: Vec<_> = (0..10_000)
            .map(|id| Ask::a(id, &format!("n{id}.of{reset}.test")).octets())
            .collect();
        let octets = crate::support::client::framed(&asks);
        socket
            .set_write_timeout(Some(Duration::from_millis(300)))
            .expect("an option");
        // Reading pauses at a thousand that wait, so the kernel takes only a part.
        let _ = (&socket).write_all(&octets);
        if reset {
            SockRef::from(&socket)
                .set_linger(Some(Duration::ZERO))
                .expect("an option");
        }
    }
    assert_serves(process.address);
    wait_until("the connections' ends", || descriptors(&process) < 20);
    let of_the_lost = resolver.queries().len() - 10;
    assert!(
        of_the_lost <= 3 * 2 * 2048,
        "each asked three times at most, of those that may wait: {of_the_lost}"
    );
    assert_ends_well(process);
}

#[test]
fn one_client_has_a_thousand_queries_on_their_way_and_in_a_crowd_fewer() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| match query[13..].starts_with(b"honest") {
        true => vec![Act::Send(message::answer(query))],
        false => Vec::new(),
    });
    let process = Process::before(&resolver, &["--timeout", "20"]);
    let pour = |who: &str| {
        let mut client = TcpClient::to(process.address);
        let asks: Vec<_> = (0..2000)
            .map(|id| Ask::a(id, &format!("{who}{id}.test")).octets())
            .collect();
        client.send(&asks);
        client
    };
    // What is asked again, since the session is silent, is no other query.
    let asked = |who: u8| {
        let queries = resolver.queries();
        let questions = queries
            .iter()
            .filter(|query| query[13] == who)
            .map(|query| &query[12..message::question_end(query)]);
        questions.collect::<HashSet<_>>().len()
    };
    let _alone = pour("alone");
    wait_until("as many as one may have", || asked(b'a') >= 1024);
    let _late = pour("late");
    wait_until("as many as it may have beside it", || asked(b'l') >= 128);
    assert_serves(process.address);
    // A read brings some more than there is room for.
    assert!(asked(b'a') < 1024 + 200, "{}", asked(b'a'));
    assert!(asked(b'l') < 128 + 200, "{}", asked(b'l'));
}

fn descriptors(process: &Process) -> usize {
    process.count_in("fd")
}

#[test]
fn five_hundred_clients_that_ask_and_reset_leave_nothing_behind() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &[]);
    assert_serves(process.address);
    let (files, threads) = (descriptors(&process), process.count_in("task"));
    for id in 0..500 {
        let mut client = TcpClient::to(process.address);
        client.send(&[Ask::a(id, &format!("n{id}.test")).octets()]);
        SockRef::from(&client.socket)
            .set_linger(Some(Duration::ZERO))
            .expect("an option");
    }
    wait_until("descriptors and threads to be as before", || {
        descriptors(&process) <= files + 20 && process.count_in("task") <= threads + 20
    });
    assert_serves(process.address);
    assert_ends_well(process);
}

#[test]
fn announced_messages_take_memory_only_as_they_come() {
    const MOST: u64 = 64 * 1024 * 1024;
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &[]);
    let octets = [&[0xff, 0xff][..], &[0; 65_000]].concat();
    let clients: Vec<_> = (0..300)
        .map(|_| {
            let socket = TcpStream::connect(process.address).expect("connects");
            socket.set_nonblocking(true).expect("an option");
            let _ = (&socket).write(&octets);
            socket
        })
        .collect();
    assert_serves(process.address);
    assert!(
        process.peak() < MOST,
        "{} octets for {} clients",
        process.peak(),
        clients.len()
    );
    assert_ends_well(process);
}

#[test]
fn signals_and_a_second_without_a_processor_lose_no_query() {
    let resolver = FakeResolver::honest();
    let process = Process::before(&resolver, &[]);
    let client = UdpClient::to(process.address);
    let mut stream = TcpClient::to(process.address);
    for (id, signal) in (0..).zip(["HUP", "PIPE", "CONT", "WINCH", "STOP"]) {
        let ask = Ask::a(id, &format!("n{id}.test"));
        client.send(&ask.octets());
        process.signal(signal);
        stream.send(&[ask.octets()]);
        if signal == "STOP" {
            std::thread::sleep(Duration::from_secs(1));
            process.signal("CONT");
        }
        client.hear().assert_answers(&ask);
        stream.hear().assert_answers(&ask);
    }
    assert_ends_well(process);
}
