//! Settings from the command line, the environment and a file, shown and read again while it serves.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ::log::Level;
use dns_tool::client::reply_batch::ReplyBatch;
use dns_tool::forward::completion::QueryCompleter;
use dns_tool::forward::in_flight::Query;
use dns_tool::forward::routes::{Upstream, Work};
use dns_tool::system::clock;
use dns_tool::system::memory::Memory;

use crate::support::client::framed;
use crate::support::pki::Authority;
use crate::support::process::{Process, program};
use crate::support::{
    Act, Ask, FakeResolver, Forwarder, Greeting, Heard, NAME, TcpClient, UdpClient, config, log,
    message, pki, scaled, temporary_file, wait_until,
};

const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;

/// A configuration file.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        Self(temporary_file(&format!("options-{name}"), text.as_bytes()))
    }

    /// Puts another text into it as editors do: a new file takes its place.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).expect("writes");
        fs::rename(&new, &self.0).expect("renames");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

/// The lines that name a resolver.
fn lines(resolver: &FakeResolver) -> String {
    format!(
        "resolver-addr {}\nresolver-fqdn {NAME}\n",
        resolver.address()
    )
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    program()
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("the program runs")
}

fn ask(id: u16, to: &Forwarder) {
    let ask = Ask::a(id, &format!("n{id}.test"));
    to.udp().ask(&ask.octets()).assert_answers(&ask);
}

/// Sends a question that is not answered at once, and waits until it is taken in: by then what follows it is refused.
fn send(client: &UdpClient, ask: &Ask) {
    client.send(&ask.octets());
    let transfer = Ask::a(0xffff, "x.test").with_type(252);
    client
        .ask(&transfer.octets())
        .assert_error(&transfer, REFUSED);
}

/// Asks so many questions a second until `over`, and asserts that each gets the right answer; how many there were.
fn ask_steadily(
    rate: u32,
    over: impl Fn() -> bool + Sync,
    send: impl Fn(&[u8]) + Sync,
    mut hear: impl FnMut() -> Heard,
) -> u32 {
    let total = AtomicU32::new(u32::MAX);
    let question = |number: u32| Ask::a(number as u16, &format!("n{number}.test"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            for number in 0..60_000 {
                let last = over();
                if last {
                    total.store(number + 1, Ordering::SeqCst);
                }
                let due = began + Duration::from_secs(1) * number / rate;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                send(&question(number).octets());
                if last {
                    return;
                }
            }
        });
        let mut heard = 0;
        while heard < total.load(Ordering::SeqCst) {
            let answer = hear();
            answer.assert_answers(&question(answer.id().into()));
            heard += 1;
        }
        heard
    })
}

#[test]
fn a_resolver_that_is_changed_under_load_costs_no_query() {
    let one = FakeResolver::honest();
    let other = FakeResolver::with_port_of(&one);
    for resolver in [&one, &other] {
        // So that some are always on their way.
        resolver.serve(|query| {
            vec![Act::Later(
                Duration::from_millis(40),
                message::answer(query),
            )]
        });
    }
    let file = File::new("under-load", &lines(&one));
    let mut process = Process::with(&["--config", file.path()], &[]);
    let address = process.address;
    let (udp, tcp) = (UdpClient::to(address), TcpClient::to(address));
    let stream = tcp.socket.try_clone().expect("a descriptor");
    let mut reader = TcpClient { socket: stream };
    let over = AtomicBool::new(false);
    let is_over = || over.load(Ordering::SeqCst);
    thread::scope(|scope| {
        let by_udp =
            scope.spawn(|| ask_steadily(250, is_over, |octets| udp.send(octets), || udp.hear()));
        let by_tcp = scope.spawn(|| {
            let send = |octets: &[u8]| {
                let octets = framed(&[octets.to_vec()]);
                (&tcp.socket).write_all(&octets).expect("sends");
            };
            ask_steadily(250, is_over, send, || reader.hear())
        });
        for turn in 0..scaled(8, 40) {
            let next = [&other, &one][turn % 2];
            let before = next.queries().len();
            file.write(&lines(next));
            process.signal("HUP");
            let said = process.read_until("event=config-reloaded");
            assert!(said.contains("changed=\"resolver-addr\""), "{said}");
            wait_until("queries at the other resolver", || {
                next.queries().len() > before + 50
            });
        }
        over.store(true, Ordering::SeqCst);
        let asked = by_udp.join().expect("no lost query") + by_tcp.join().expect("no lost query");
        assert!(asked > 800, "{asked} in all");
        process.signal("TERM");
        let (code, log) = process.end();
        assert_eq!(code, Some(0), "{log}");
        // What both ask is known where one of them asks later than the other, after an answer.
        let count = |name: &str| {
            let mut words = log.split_whitespace();
            let word = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.expect("a count").parse::<u32>().expect("a number")
        };
        assert_eq!(count("answered") + count("cached"), asked, "{log}");
    });
}

#[test]
fn a_thousand_reloads_leave_no_thread_and_no_descriptor_behind() {
    let one = FakeResolver::honest();
    let other = FakeResolver::with_port_of(&one);
    let pin = pki().issuer.pin();
    let pinned = |resolver| format!("{}resolver-pin {pin}\n", lines(resolver));
    let pins = temporary_file("thousand-pins", format!("{NAME} {pin}\n").as_bytes());
    let pins = pins.to_str().expect("a path in UTF-8");
    let file = File::new("thousand", &pinned(&one));
    // Its log is read at its end alone.
    let options = ["--config", file.path(), "--pins", pins];
    let process = Process::with(&options, &[]);
    let client = UdpClient::to(process.address);
    let turn = |number: usize| {
        let next = [&other, &one][number % 2];
        let before = next.connections();
        file.write(&pinned(next));
        process.signal("HUP");
        wait_until("a session to the other resolver", || {
            next.connections() > before
        });
        let ask = Ask::a(number as u16, &format!("n{number}.test"));
        client.ask(&ask.octets()).assert_answers(&ask);
    };
    let count = |folder| process.count_in(folder);
    (0..20).for_each(turn);
    let before = (count("task"), count("fd"));
    (0..1000).for_each(turn);
    wait_until("an end of what was replaced", || {
        count("task") <= before.0 + 2 && count("fd") <= before.1 + 2
    });
    process.signal("TERM");
    let (code, log) = process.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("panics=0"), "{log}");
}

#[test]
fn a_file_that_is_broken_changes_nothing_and_is_said_with_its_line() {
    let resolver = FakeResolver::honest();
    let file = File::new("broken", &lines(&resolver));
    let forwarder = Forwarder::patient_with(&["--config", file.path()]);
    let client = forwarder.udp();
    // What is said of it at this level, or above.
    let reload = |level| {
        let mark = log::mark();
        forwarder.running().reload();
        log::lines(mark, level, file.path()).concat()
    };
    let asking = |id| {
        let ask = Ask::a(id, &format!("n{id}.test"));
        client.ask(&ask.octets()).assert_answers(&ask);
    };
    asking(1);
    for (text, cause) in [
        (
            "allow 10.0.0.0/8\nslo-latency fast\n",
            "2: slo-latency \"fast\": expected seconds",
        ),
        ("# empty\nprot 53\n", "2: \"prot\": expected the name"),
        (
            "resolver-addr 127.0.0.1:53\n",
            "1: resolver-addr \"127.0.0.1:53\": expected another port",
        ),
    ] {
        file.write(text);
        let said = reload(Level::Error);
        // What stands in quotation marks there is in a string here.
        let cause = format!("{}:{cause}", file.path()).replace('"', "\\\"");
        let expected = format!("cause=\"{cause}");
        assert!(
            said.contains(&expected) && said.contains("event=config-reload-failed"),
            "{said}"
        );
        asking(2);
    }
    fs::remove_file(file.path()).expect("it is there");
    let said = reload(Level::Error);
    assert!(said.contains("No such file"), "{said}");
    asking(3);
    file.write(&lines(&resolver));
    let said = reload(Level::Info);
    assert!(said.contains("event=config-reloaded"), "{said}");
    asking(4);
    assert_eq!(resolver.connections(), 1, "the session of the start");
}

#[test]
fn who_may_ask_and_how_much_is_changed_by_a_reload() {
    let resolver = FakeResolver::honest();
    let text = lines(&resolver);
    let file = File::new("allow", &text);
    let forwarder = Forwarder::patient_with(&["--config", file.path()]);
    // A client that comes before and stays.
    let mut stream = forwarder.tcp();
    let client = forwarder.udp();
    let question = Ask::a(1, "x.test");
    client.ask(&question.octets()).assert_answers(&question);
    stream.ask(&question.octets()).assert_answers(&question);
    file.write(&format!("{text}allow 10.0.0.0/8\n"));
    forwarder.running().reload();
    client
        .ask(&question.octets())
        .assert_error(&question, REFUSED);
    stream
        .ask(&question.octets())
        .assert_error(&question, REFUSED);
    file.write(&format!("{text}rate-limit 1/1\n"));
    forwarder.running().reload();
    let mut stream = forwarder.tcp();
    stream.ask(&question.octets()).assert_answers(&question);
    stream
        .ask(&question.octets())
        .assert_error(&question, REFUSED);
    file.write(&text);
    forwarder.running().reload();
    for _ in 0..5 {
        client.ask(&question.octets()).assert_answers(&question);
    }
    assert_eq!(resolver.connections(), 1, "none of it is the resolver's");
}

#[test]
fn the_deadline_of_a_query_is_changed_by_a_reload_for_those_that_come_after_it() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let late = message::question_end(query) > 25;
        let wait = Duration::from_millis(if late { 500 } else { 0 });
        vec![Act::Later(wait, message::answer(query))]
    });
    let text = lines(&resolver);
    let file = File::new("timeout", &format!("{text}timeout 10\n"));
    let forwarder = Forwarder::with(&["--config", file.path()]);
    let client = forwarder.udp();
    // The ticket of its session came before the answer.
    let quick = Ask::a(0, "x.test");
    client.ask(&quick.octets()).assert_answers(&quick);
    let before = Ask::a(1, "a-name-that-takes-long.test");
    client.send(&before.octets());
    resolver.wait_for_queries(2);
    file.write(&format!("{text}timeout 0.1\n"));
    forwarder.running().reload();
    let after = Ask::a(2, "another-name-that-takes-long.test");
    let soon = forwarder.udp();
    soon.ask(&after.octets()).assert_error(&after, SERVFAIL);
    client.hear().assert_answers(&before);
    assert_eq!(
        resolver.handshakes() - resolver.resumed(),
        1,
        "the new session knows the ticket"
    );
}

#[test]
fn a_budget_that_a_reload_brings_holds_for_what_was_asked_before_it() {
    const COUNT: u16 = 50;
    let resolver = FakeResolver::honest();
    resolver.serve(|_| Vec::new());
    let text = format!("{}timeout 6\n", lines(&resolver));
    let file = File::new("budget", &text);
    let forwarder = Forwarder::with(&["--config", file.path()]);
    let client = forwarder.udp();
    for id in 0..COUNT {
        client.send(&Ask::a(id, &format!("n{id}.test")).octets());
    }
    resolver.wait_for_queries(COUNT.into());
    let began = Instant::now();
    file.write(&format!("{text}upstream-rate-limit 5\n"));
    forwarder.running().reload();
    // They wait on a silent session, and after a third of their time some are asked on another one.
    let queries = || resolver.queries().len() - usize::from(COUNT);
    wait_until("one is asked again", || queries() > 0);
    thread::sleep(Duration::from_millis(300));
    let asked_again = queries() as f64;
    let most = began.elapsed().as_secs_f64().mul_add(5.0, 5.0);
    assert!(asked_again <= most, "{asked_again}");
}

#[test]
fn a_stop_after_a_reload_that_shortened_the_deadline_waits_for_queries_with_the_old_one() {
    let resolver = FakeResolver::honest();
    resolver.serve(|query| {
        let late = message::question_end(query) > 30;
        let answer = message::answer(query);
        let later = Act::Later(Duration::from_millis(400), answer);
        if late { vec![later] } else { Vec::new() }
    });
    let text = lines(&resolver);
    let slow = Ask::a(1, "a-name-that-takes-long.test");
    let never = Ask::a(2, "never.test");
    for (ask, timeout, is_answered) in [(slow, "10", true), (never, "0.6", false)] {
        let file = File::new("stop", &format!("{text}timeout {timeout}\n"));
        let forwarder = Forwarder::with(&["--config", file.path()]);
        let client = forwarder.udp();
        let before = resolver.queries().len();
        client.send(&ask.octets());
        resolver.wait_for_queries(before + 1);
        file.write(&format!("{text}timeout 0.05\n"));
        forwarder.running().reload();
        forwarder.into_running().stop();
        match is_answered {
            true => client.hear().assert_answers(&ask),
            false => client.hear().assert_error(&ask, SERVFAIL),
        }
    }
}

#[test]
fn the_log_level_is_changed_by_a_reload() {
    let resolver = FakeResolver::honest();
    let text = lines(&resolver);
    let file = File::new("level", &text);
    let mut process = Process::with(&["--config", file.path()], &[]);
    let client = UdpClient::to(process.address);
    let asking = |name: &str| {
        let ask = Ask::a(1, name);
        client.ask(&ask.octets()).assert_answers(&ask);
    };
    asking("before.test");
    file.write(&format!("{text}log-level debug\n"));
    process.signal("HUP");
    process.read_until("event=config-reloaded");
    asking("amid.test");
    process.read_until("amid.test./1");
    // What needs a restart is said at this level, too.
    file.write(&format!("{text}log-level warn\nmax-clients 7\n"));
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(said.contains("changed=\"log-level\""), "{said}");
    asking("after.test");
    process.signal("TERM");
    let (_, log) = process.end_with_whole_log();
    assert!(
        !log.contains("before.test") && !log.contains("after.test"),
        "{log}"
    );
}

#[test]
fn what_needs_a_restart_is_said_by_name_and_stays_as_it_was() {
    let resolver = FakeResolver::honest();
    let text = lines(&resolver);
    let file = File::new("restart", &text);
    let mut process = Process::with(&["--config", file.path()], &[]);
    let more = "max-clients 7\ncache-size 65536\nallow ::1\nallow 127.0.0.1\n";
    file.write(&format!("{text}{more}"));
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(
        said.contains("changed=\"allow\" needs_restart=\"cache-size max-clients\"")
            && said.contains("level=warn"),
        "{said}"
    );
    // Said as long as it is so.
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(
        said.contains("changed=\"\" needs_restart=\"cache-size max-clients\""),
        "{said}"
    );
    file.write(&text);
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(
        said.contains("changed=\"allow\"\n") && said.contains("level=info"),
        "{said}"
    );
    drop(process);
    // A port in the environment, and one in the file: only what holds is compared.
    file.write(&format!("{text}port 0\naddress 127.0.0.1\n"));
    let mut process = Process::with(&["--config", file.path()], &[]);
    file.write(&format!("{text}port 5353\naddress 127.0.0.1\n"));
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(said.contains("changed=\"\"\n"), "the flag wins: {said}");
}

#[test]
fn a_port_that_is_changed_in_the_file_needs_a_restart() {
    let resolver = FakeResolver::honest();
    let anchors = pki().root_file();
    let text = format!(
        "{}address 127.0.0.1\nresolver-ca {}\n",
        lines(&resolver),
        anchors.display()
    );
    let file = File::new("port", &format!("{text}port 0\n"));
    let mut process = Process::plain(&["--config", file.path()], &[]);
    file.write(&format!("{text}port 5353\n"));
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(said.contains("needs_restart=\"port\""), "{said}");
    let ask = Ask::a(1, "x.example");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
}

#[test]
fn pins_are_changed_by_a_reload_and_sessions_that_do_not_fit_end() {
    let resolver = FakeResolver::honest();
    let (right, wrong) = (pki().issuer.pin(), pki().honest().pin);
    let text = lines(&resolver);
    let pinned = |pin| format!("{text}resolver-pin {pin}\n");
    let file = File::new("pins", &pinned(right));
    let forwarder = Forwarder::patient_with(&["--config", file.path()]);
    ask(1, &forwarder);
    let reload = |text: &str| {
        file.write(text);
        forwarder.running().reload();
    };
    reload(&pinned(wrong));
    let question = Ask::a(2, "x.test");
    let client = forwarder.udp();
    client
        .ask(&question.octets())
        .assert_error(&question, SERVFAIL);
    reload(&pinned(right));
    client.ask(&question.octets()).assert_answers(&question);
    reload(&pinned(wrong));
    client
        .ask(&question.octets())
        .assert_error(&question, SERVFAIL);
    reload(&format!("{}pin-mode report\n", pinned(wrong)));
    client.ask(&question.octets()).assert_answers(&question);
    // An answer may be there before a session's doubts are counted.
    let doubts = || forwarder.running().degraded_sessions().unpinned.value();
    wait_until("a doubt", || doubts() == 1);
    reload(&text);
    client.ask(&question.octets()).assert_answers(&question);
    // A date that has passed is no wish to believe anybody: what was before stays.
    reload(&pinned(right));
    client.ask(&question.octets()).assert_answers(&question);
    let pins = temporary_file(
        "late-pins",
        format!("{NAME} {right} not-after=2020-01-01\n").as_bytes(),
    );
    let before = resolver.handshakes();
    reload(&format!("{text}pins {}\n", pins.display()));
    client.ask(&question.octets()).assert_answers(&question);
    assert_eq!(resolver.handshakes(), before);
    assert_eq!(
        doubts(),
        1,
        "what was counted before a reload stays counted"
    );
}

#[test]
fn a_file_of_pins_goes_on_being_watched_after_a_reload() {
    let resolver = FakeResolver::honest();
    let (right, wrong) = (pki().issuer.pin(), pki().honest().pin);
    let listed = |pin| format!("{NAME} {pin}\n");
    let old = File::new("watched-old", &listed(right));
    let new = File::new("watched-new", &listed(right));
    let text = lines(&resolver);
    let file = File::new("watched", &format!("{text}pins {}\n", old.path()));
    let forwarder = Forwarder::patient_with(&["--config", file.path()]);
    ask(1, &forwarder);
    file.write(&format!("{text}pins {}\n", new.path()));
    forwarder.running().reload();
    ask(2, &forwarder);
    assert_eq!(resolver.connections(), 1, "the pins are the same");
    // The old one is nobody's any more.
    old.write(&listed(wrong));
    new.write(&listed(wrong));
    let question = Ask::a(3, "x.test");
    wait_until("the new pins", || {
        forwarder.udp().ask(&question.octets()).whole_rcode() == SERVFAIL
    });
    new.write(&listed(right));
    wait_until("the right pins again", || {
        forwarder.udp().ask(&question.octets()).whole_rcode() == 0
    });
}

#[test]
fn trust_anchors_are_read_again_though_their_file_has_the_same_name() {
    let resolver = FakeResolver::honest();
    let stranger = Authority::root("another root");
    let anchors = File::new("anchor-file", &pki().root.pem());
    let text = format!("{}timeout 5\n", lines(&resolver));
    let file = File::new("anchors", &text);
    let options = ["--config", file.path(), "--resolver-ca", anchors.path()];
    let forwarder = Forwarder::with(&options);
    ask(1, &forwarder);
    anchors.write(&stranger.pem());
    let mark = log::mark();
    forwarder.running().reload();
    let said = log::lines(mark, Level::Info, file.path());
    assert!(
        matches!(&said[..], [line] if line.contains("changed=\"resolver-ca\"")),
        "{said:?}"
    );
    let question = Ask::a(2, "x.test");
    forwarder
        .udp()
        .ask(&question.octets())
        .assert_error(&question, SERVFAIL);
    anchors.write(&pki().root.pem());
    forwarder.running().reload();
    ask(3, &forwarder);
}

#[test]
fn what_another_resolver_said_is_forgotten_with_it() {
    let one = FakeResolver::honest();
    let other = FakeResolver::with_chain(&pki().chain(&["other.test"], |_| {}));
    let third = FakeResolver::honest();
    let file = File::new("forgotten", &lines(&one));
    let options = ["--config", file.path(), "--cache-size", "1048576"];
    let forwarder = Forwarder::patient_with(&options);
    ask(1, &forwarder);
    ask(1, &forwarder);
    assert_eq!(one.queries().len(), 1);
    // Another address of the same resolver knows nothing else.
    file.write(&lines(&third));
    forwarder.running().reload();
    ask(1, &forwarder);
    assert_eq!(third.queries().len(), 0);
    // What is on its way is answered, and not kept.
    third.serve(|query| {
        vec![Act::Later(
            Duration::from_millis(300),
            message::answer(query),
        )]
    });
    let slow = Ask::a(2, "slow.test");
    let client = forwarder.udp();
    client.send(&slow.octets());
    third.wait_for_queries(1);
    let named = format!(
        "resolver-addr {}\nresolver-fqdn other.test\n",
        other.address()
    );
    file.write(&named);
    forwarder.running().reload();
    ask(1, &forwarder);
    assert_eq!(other.queries().len(), 1, "it is asked anew");
    client.hear().assert_answers(&slow);
    client.ask(&slow.octets()).assert_answers(&slow);
    assert_eq!(other.queries().len(), 2, "and that, too");
}

#[test]
fn who_asks_after_a_reload_does_not_wait_for_the_address_of_before() {
    let (one, other) = (FakeResolver::honest(), FakeResolver::honest());
    let late = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&late);
    one.serve(move |query| {
        wait_until("its time", || over.load(Ordering::SeqCst));
        vec![Act::Send(message::answer(query))]
    });
    let text = |resolver| {
        format!(
            "{}timeout 10
",
            lines(resolver)
        )
    };
    let file = File::new("joins", &text(&one));
    let options = ["--config", file.path(), "--cache-size", "1048576"];
    let forwarder = Forwarder::with(&options);
    let [first, second, third] = ["slow.test", "SLOW.test", "Slow.test"].map(|name| {
        let client = forwarder.udp();
        (client, Ask::a(1, name))
    });
    let (client, ask) = &first;
    client.send(&ask.octets());
    one.wait_for_queries(1);
    // What changes nothing about the resolver parts nobody: the next one waits for the same answer.
    file.write(&format!(
        "{}serve-stale 60
",
        text(&one)
    ));
    forwarder.running().reload();
    let (client, ask) = &second;
    send(client, ask);
    file.write(&text(&other));
    forwarder.running().reload();
    let (client, ask) = &third;
    client.ask(&ask.octets()).assert_answers(ask);
    assert_eq!(other.queries().len(), 1, "it is asked anew");
    late.store(true, Ordering::SeqCst);
    for (client, ask) in [&first, &second] {
        client.hear().assert_answers(ask);
    }
    let asked = one.queries();
    let mut asked = asked
        .iter()
        .map(|query| &query[12..message::question_end(query)]);
    assert!(asked.all(|question| question == first.1.question()), "once");
}

#[test]
fn a_reload_amid_a_race_to_connect_and_a_stop_right_after_it_end_all_that_was_begun() {
    let (mute, honest) = (FakeResolver::honest(), FakeResolver::honest());
    mute.greet(Greeting::Mute);
    // Its sessions are there when nobody wants them any more.
    let slow = FakeResolver::honest();
    slow.greet(Greeting::Dribble(Duration::from_micros(50)));
    let file = File::new("race", &format!("{}timeout 2\n", lines(&mute)));
    let forwarder = Forwarder::with(&["--config", file.path()]);
    let waiting = Ask::a(1, "x.test");
    let client = forwarder.udp();
    // The first connection is there without it.
    send(&client, &waiting);
    wait_until("a connection", || mute.connections() > 0);
    for _ in 0..10 {
        file.write(&format!("{}timeout 2\n", lines(&honest)));
        forwarder.running().reload();
        ask(2, &forwarder);
        for other in [&slow, &mute] {
            let before = other.connections();
            file.write(&format!("{}timeout 2\n", lines(other)));
            forwarder.running().reload();
            wait_until("a connection", || other.connections() > before);
        }
    }
    client.hear().assert_error(&waiting, SERVFAIL);
    file.write(&format!("{}timeout 2\n", lines(&honest)));
    forwarder.running().reload();
    ask(3, &forwarder);
    wait_until("no session is left but the last", || {
        mute.open() + slow.open() == 0
    });
    forwarder.into_running().stop();
    wait_until("no session is left", || {
        mute.open() == 0 && honest.open() == 0
    });
}

#[test]
fn the_environment_and_the_file_serve_as_the_command_line_does() {
    let resolver = FakeResolver::honest();
    let address = resolver.address().to_string();
    let file = File::new(
        "environment",
        "resolver-addr 192.0.2.1\ntimeout 7\nallow 10.0.0.0/8\n",
    );
    let environment = [
        ("DNS_TOOL_CONFIG", file.path()),
        ("DNS_TOOL_RESOLVER_ADDR", &*address),
        ("DNS_TOOL_RESOLVER_FQDN", NAME),
        ("DNS_TOOL_ALLOW", "127.0.0.0/8 ::1"),
        ("DNS_TOOL_LOG_LEVEL", "error"),
        ("DNS_TOOL_PORT_53_TCP_ADDR", "10.0.0.1"),
        ("DNS_TOOL_POTR", "1"),
    ];
    let mut process = Process::with(&["--log-level", "info"], &environment);
    let ask = Ask::a(1, "x.test");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    file.write("resolver-addr 192.0.2.1\ntimeout 7\nallow 10.0.0.0/8\nsessions 3\n");
    process.signal("HUP");
    let said = process.read_until("event=config-reloaded");
    assert!(said.contains("changed=\"sessions\""), "{said}");
    UdpClient::to(process.address)
        .ask(&ask.octets())
        .assert_answers(&ask);
    process.signal("TERM");
    let (_, log) = process.end_with_whole_log();
    let alone = log
        .lines()
        .find(|line| line.contains("event=environment-ignored"));
    let alone = alone.expect("a line");
    assert!(
        alone.contains("level=warn")
            && alone.contains("DNS_TOOL_PORT_53_TCP_ADDR")
            && alone.contains("DNS_TOOL_POTR"),
        "{log}"
    );
    assert!(!alone.contains("DNS_TOOL_ALLOW"), "{log}");
}

#[test]
fn what_check_config_prints_is_a_file_that_means_the_same() {
    let file = File::new(
        "check",
        "timeout 2.5 # quick\nallow 10.0.0.0/8\nallow ::1\n",
    );
    let environment = [
        ("DNS_TOOL_PORT", "tcp://10.0.0.1:53"),
        ("DNS_TOOL_SESSIONS", "3"),
    ];
    let arguments = [
        "--check-config",
        "--config",
        file.path(),
        "--cache-size",
        "0",
    ];
    let shown = run(&arguments, &environment);
    assert_eq!(shown.status.code(), Some(0));
    assert!(shown.stderr.is_empty());
    let shown = String::from_utf8(shown.stdout).expect("text");
    for line in [
        "# DNS_TOOL_PORT: of a Kubernetes Service, left alone".to_owned(),
        "sessions 3 # DNS_TOOL_SESSIONS".to_owned(),
        "cache-size 0 # --cache-size".to_owned(),
        format!("timeout 2.5 # {}:1", file.path()),
        format!("allow ::1 # {}:3", file.path()),
        "port 53 # default".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let again = File::new("check-again", &shown);
    let again = run(&["--check-config", "--config", again.path()], &[]);
    let again = String::from_utf8(again.stdout).expect("text");
    let settings = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let settings = lines.map(|line| line.split(" # ").next().unwrap_or_default());
        settings.map(str::to_owned).collect()
    };
    assert_eq!(settings(&again), settings(&shown));
    assert!(settings(&shown).len() > 15);
}

#[test]
fn a_configuration_that_is_wrong_is_one_line_with_its_place_and_exit_code_2() {
    let file = File::new("wrong", "# ours\nport http\n");
    let expected = "\"http\": expected a whole number from 0 to 65535";
    for (arguments, environment, said) in [
        (
            &["--config", file.path()][..],
            &[][..],
            format!("{}:2: port {expected}", file.path()),
        ),
        (
            &["--check-config", "--config", file.path()],
            &[],
            format!("{}:2: port {expected}", file.path()),
        ),
        (
            &["query", "x.test"],
            &[("DNS_TOOL_CONFIG", file.path())],
            format!("{}:2: port {expected}", file.path()),
        ),
        (
            &["--check-config"],
            &[("DNS_TOOL_PORT", "http")],
            format!("DNS_TOOL_PORT {expected}"),
        ),
        (
            &["--config", "/"],
            &[],
            "--config \"/\": expected a file".to_owned(),
        ),
    ] {
        let output = run(arguments, environment);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let heard = String::from_utf8_lossy(&output.stderr);
        assert_eq!(heard, format!("dns-tool: {said}\n"), "{arguments:?}");
    }
    // Monitoring reads the other stream.
    let output = run(&["check", "--config", file.path()], &[]);
    assert_eq!(output.status.code(), Some(2));
    let heard = String::from_utf8_lossy(&output.stdout);
    let line = format!("CRITICAL configuration: {}:2: port {expected}", file.path());
    assert!(heard.contains(&line), "{heard}");
}

#[test]
fn check_looks_at_what_the_file_says() {
    let resolver = FakeResolver::honest();
    let text = format!(
        "{}address 127.0.0.1\nport 0\nresolver-ca {}\nresolver-pin {}\nresolver-pin {}\n",
        lines(&resolver),
        pki().root_file().display(),
        pki().issuer.pin(),
        pki().root.pin()
    );
    let file = File::new("looked-at", &text);
    let output = run(
        &["check", "--config", file.path()],
        &[("DNS_TOOL_POTR", "1")],
    );
    let heard = String::from_utf8_lossy(&output.stdout);
    assert!(
        heard.contains(&format!("OK {}#{NAME} query", resolver.address())),
        "{heard}"
    );
    assert!(
        heard.contains("OK environment: DNS_TOOL_POTR is no option, and left alone"),
        "{heard}"
    );
    assert!(
        resolver.handshakes() > 0,
        "with the daemon's own code: {heard}"
    );
}

#[test]
fn an_upstream_that_is_retired_leaves_queries_to_the_next_one() {
    let resolver = FakeResolver::honest();
    let address = resolver.address().to_string();
    let options = ["--resolver-addr", &address, "--resolver-fqdn", NAME];
    let config = config(&options);
    let now = clock::now();
    let completer = Arc::new(QueryCompleter::new(
        config.forwarder.cache,
        &Memory::new(config.memory),
        now,
    ));
    let upstream = Upstream::start(config.upstream, completer, Arc::default()).expect("a thread");
    let octets = Ask::a(1, "x.test").octets();
    let query = dns_tool::message::Query::parse(&octets).expect("a query");
    let mut queries = vec![Arc::new(Query::new(
        &query,
        query.key().as_ref(),
        now,
        config.forwarder.timeout,
    ))];
    upstream.retire();
    upstream.submit(
        &mut queries,
        &mut Work::default(),
        &mut ReplyBatch::default(),
        now,
    );
    assert_eq!(queries.len(), 1);
    let watched = Arc::downgrade(&upstream);
    drop(upstream);
    wait_until("the end of its thread", || watched.strong_count() == 0);
}
