//! What clients make it hold is bounded in octets, whoever asks: the real program with its default bounds.

use std::io::Write;
use std::net::UdpSocket;

use socket2::SockRef;

use crate::hostile::assert_serves;
use crate::support::client::framed;
use crate::support::message::{self, record};
use crate::support::process::Process;
use crate::support::{Act, Ask, FakeResolver, TcpClient, UdpClient, wait_until};

/// What the process may have held at most, in octets: what `--max-memory` leaves beside what the kernel holds, the cache, and
/// 12 MiB for itself.
const MOST: u64 = (15 + 8 + 12) << 20;
/// Octets of the data of large answers.
const LARGE: usize = 60_000;

/// A TXT record with so many octets of data.
fn text(octets: usize) -> Vec<u8> {
    let strings = vec![[&[249][..], &[b'x'; 249]].concat(); octets / 250];
    record(16, 600, &strings.concat())
}

/// A resolver that gives names under `large` an answer of [`LARGE`] octets, and none to those under `never`. Others have an
/// address.
fn resolver() -> FakeResolver {
    let resolver = FakeResolver::honest();
    let large = text(LARGE);
    resolver.serve(move |query| {
        let name = &query[13..];
        if name.starts_with(b"large") {
            vec![Act::Send(message::answer_with(query, &[&large]))]
        } else if name.starts_with(b"never") {
            Vec::new()
        } else {
            vec![Act::Send(message::answer(query))]
        }
    });
    resolver
}

fn cached(resolver: &FakeResolver) -> Process {
    Process::before(resolver, &["--cache-size", "8388608"])
}

fn large(id: u16) -> Ask {
    Ask::a(id, "large.test").with_type(16)
}

/// Its end, after which nothing may have panicked; and the log's last line.
fn assert_ends_well(process: Process) -> String {
    assert!(process.peak() < MOST, "{} octets", process.peak());
    process.signal("TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("panics=0"), "{log}");
    log
}

#[test]
fn who_asks_for_a_large_known_answer_again_and_again_is_read_as_it_reads() {
    const COUNT: u16 = 700;
    let resolver = resolver();
    let process = cached(&resolver);
    let mut client = TcpClient::to(process.address);
    assert_eq!(client.ask(&large(0).octets()).counts()[1], 1);
    // Sent by another thread: it is not read further as long as its answers are not.
    let mut asking = client.socket.try_clone().expect("a descriptor");
    let asks: Vec<_> = (0..COUNT).map(|id| large(id).octets()).collect();
    let sender = std::thread::spawn(move || asking.write_all(&framed(&asks)));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_serves(process.address);
    for id in 0..COUNT {
        let heard = client.hear();
        assert_eq!((heard.id(), heard.counts()[1]), (id, 1));
        assert!(heard.octets.len() > LARGE);
    }
    sender
        .join()
        .expect("no panic")
        .expect("all is taken in the end");
    let log = assert_ends_well(process);
    assert!(
        log.contains("clients-slow-readers=0 clients-memory-limit=0"),
        "{log}"
    );
}

#[test]
fn a_hundred_clients_that_read_nothing_of_large_known_answers_cost_their_share() {
    let resolver = resolver();
    let process = cached(&resolver);
    let mut first = TcpClient::to(process.address);
    assert_eq!(first.ask(&large(0).octets()).counts()[1], 1);
    let asks: Vec<_> = (0..40).map(|id| large(id).octets()).collect();
    let mut clients: Vec<_> = (0..200).map(|_| TcpClient::to(process.address)).collect();
    for client in &mut clients {
        SockRef::from(&client.socket)
            .set_recv_buffer_size(4096)
            .expect("an option");
        // Some have lost their connection already.
        let _ = client.socket.write_all(&framed(&asks));
    }
    assert_serves(process.address);
    assert_ends_well(process);
}

#[test]
fn a_large_answer_for_which_many_wait_is_not_gathered_for_all() {
    const CLIENTS: usize = 20;
    const EACH: u16 = 120;
    let resolver = resolver();
    let waiting = std::sync::Mutex::new(Vec::new());
    let answer = text(LARGE);
    resolver.serve(move |query| {
        let mut waiting = waiting.lock().expect("no test panics with it");
        if query[13..].starts_with(b"large") {
            waiting.push(Act::Send(message::answer_with(query, &[&answer])));
            return Vec::new();
        }
        let go = query[13..].starts_with(b"go");
        let mut acts = vec![Act::Send(message::answer(query))];
        if go {
            acts.append(&mut waiting);
        }
        acts
    });
    let process = Process::before(&resolver, &["--timeout", "20"]);
    let asks: Vec<_> = (0..EACH).map(|id| large(id).octets()).collect();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = TcpClient::to(process.address);
            client.send(&asks);
            client
        })
        .collect();
    resolver.wait_for_queries(1);
    let udp = UdpClient::to(process.address);
    let go = Ask::a(1, "go.test");
    // All that the clients have sent was read before that, or is known by then.
    std::thread::sleep(std::time::Duration::from_millis(300));
    udp.ask(&go.octets()).assert_answers(&go);
    // Some of them get all, and those that do not lose their connection.
    for client in &mut clients {
        let mut heard = 0;
        while heard < EACH && client.try_hear().is_ok() {
            heard += 1;
        }
    }
    assert_serves(process.address);
    assert_ends_well(process);
}

#[test]
fn long_queries_that_wait_are_bounded_in_octets_and_leave_room_for_others() {
    let resolver = resolver();
    let process = Process::before(&resolver, &[]);
    // A transaction signature, which goes along as it is: no name, type 250, class ANY.
    let signed = |id: u16| {
        let mut octets = Ask::a(id, &format!("never{id}.test")).octets();
        octets[11] += 1;
        octets.extend_from_slice(&[0, 0, 250, 0, 255, 0, 0, 0, 0, 0x0f, 0]);
        octets.resize(octets.len() + 0x0f00, 7);
        octets
    };
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.set_nonblocking(true).expect("an option");
    let mut told = 0;
    for id in 0..4000 {
        udp.send_to(&signed(id), process.address)
            .expect("loopback takes datagrams");
        if id % 50 == 0 {
            // So that the kernel's queue has room for all.
            let ask = Ask::a(5000 + id, &format!("honest{id}.test"));
            let honest = UdpClient::to(process.address);
            honest.ask(&ask.octets()).assert_answers(&ask);
        }
        while udp.recv_from(&mut [0; 512]).is_ok() {
            told += 1;
        }
    }
    assert!(told > 1000, "{told} were told that there are too many");
    assert_serves(process.address);
    let log = assert_ends_well(process);
    assert!(!log.contains("overloaded=0 "), "{log}");
}

#[test]
fn clients_that_left_leave_no_memory_behind() {
    let resolver = resolver();
    let process = cached(&resolver);
    let visit = || {
        let mut clients: Vec<_> = (0..250).map(|_| TcpClient::to(process.address)).collect();
        // At once they ask for no more than there is memory for.
        for some in clients.chunks_mut(50) {
            for client in &mut *some {
                client.send(&[large(1).octets()]);
            }
            for client in some {
                assert_eq!(client.hear().counts()[1], 1);
            }
        }
    };
    assert_serves(process.address);
    let before = process.resident();
    // What one client had would be 16 MB a visit.
    (0..4).for_each(|_| visit());
    wait_until("the threads that read them to end", || {
        process.threads("worker").len() < 10
    });
    // The C library's allocator keeps some of what it had at once.
    let after = process.resident();
    assert!(after < before + (16 << 20), "{before} octets, then {after}");
    assert_serves(process.address);
    assert_ends_well(process);
}

#[test]
fn a_message_that_is_longer_than_most_is_taken_in_and_its_memory_given_back() {
    let resolver = resolver();
    let process = Process::before(&resolver, &[]);
    let mut client = TcpClient::to(process.address);
    for id in 0..3 {
        let ask = Ask::a(id, "x.test").with_edns(message::Edns {
            size: 1232,
            options: vec![(65_001, vec![7; 60_000])],
            ..message::Edns::default()
        });
        client.ask(&ask.octets()).assert_answers(&ask);
        let short = Ask::a(id, "y.test");
        client.ask(&short.octets()).assert_answers(&short);
    }
    assert_ends_well(process);
}
