//! dns-tool between real programs.
//!
//! ```text
//! dig, kdig, mdig, dnsperf --- UDP, TCP ---> dns-tool --- TLS ---> BIND, unbound or Knot Resolver, with a signed zone
//!                         \______________ the same question, directly _____________/
//! ```
//!
//! What a client gets through dns-tool must be what the resolver itself says to it: code, flags, EDNS flags and every
//! record with its TTL. What may differ, and is left out here, is the message ID, the UDP size that is offered, and the
//! EDNS options that belong to a connection rather than to an answer (cookie, padding, keepalive).
//!
//! A resolver's DNS over TLS is often another program's work: dnsdist's, which has limits of its own for each connection,
//! or that of a TLS terminator in front of the resolver's TCP port, which knows nothing of DNS. Behind each of them many
//! queries in a short time must all get their own answers.
//!
//! A program that is missing is a failure. Everything runs on loopback and asks nobody else.

#[path = "interop/routes.rs"]
mod routes;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::A;
use nix::unistd::geteuid;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData,
};
use ring::digest::{SHA256, digest};
use tempfile::{NamedTempFile, TempDir};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dns-tool");
/// The name in the resolvers' certificate.
const NAME: &str = "resolver.test";
/// The zone that all resolvers know.
const ZONE: &str = "interop.test";
/// The most that dns-tool sends over UDP, in octets.
const UDP_LIMIT: usize = 1232;
/// How long a client waits for an answer: longer than dns-tool, whose SERVFAIL tells more than none.
const IMPATIENCE: Duration = Duration::from_secs(6);
/// How long a program may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_bind_says_is_what_dig_hears() {
    let lab = Lab::new();
    let bind = lab.bind();
    compare_with_dig(&lab, &bind, &questions());
}

#[test]
fn what_unbound_says_is_what_dig_hears() {
    let lab = Lab::new();
    let unbound = lab.unbound(Unbound::Authoritative);
    compare_with_dig(&lab, &unbound, &questions());
}

#[test]
fn what_knot_resolver_says_is_what_dig_hears() {
    let lab = Lab::new();
    let bind = lab.bind();
    let knot_resolver = lab.knot_resolver(bind.plain);
    compare_with_dig(&lab, &knot_resolver, &questions());
}

#[test]
fn a_host_without_landlock_is_told_so_once_and_served() {
    let lab = Lab::new();
    let unbound = lab.unbound(Unbound::Authoritative);
    // What kernels say that were built without it, and those that were started without it.
    for error in ["ENOSYS", "EOPNOTSUPP"] {
        let mut without = Command::new("strace");
        without
            .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("inject=landlock_create_ruleset:error={error}"))
            .arg(PROGRAM);
        let pins = [&*lab.pins.leaf];
        let dns_tool = DnsTool::start_by(without, &unbound, &lab.ca, NAME, &pins, &[]);
        let heard = dig(&dns_tool.way("+notcp"), &[in_zone("www A")]);
        assert!(heard[0].contains("status: NOERROR"), "{heard:?}");
        let log = fs::read_to_string(&dns_tool.log).expect("its log");
        let lines = log.matches("event=sandbox-").count();
        assert_eq!(lines, 1, "{log}");
        assert!(log.contains("event=sandbox-unavailable cause="), "{log}");
    }
}

#[test]
fn what_a_validating_resolver_says_is_what_dig_hears() {
    let lab = Lab::new();
    let unbound = lab.unbound(Unbound::Validating);
    // What it knows to be bogus it says in fewer words than when it finds out: it is to know already.
    dig(&lab.direct(&unbound), &questions());
    compare_with_dig(&lab, &unbound, &questions());
    // So that this is about validation at all: AD on what is signed, and SERVFAIL for a record that does not match its
    // signature, unless the client wants to check for itself.
    let dns_tool = lab.dns_tool(&unbound);
    for (question, expected) in [
        ("www A", "status: NOERROR"),
        ("www A", "flags: qr rd ra ad;"),
        ("bogus A", "status: SERVFAIL"),
        ("bogus A +cdflag", "192.0.2.67"),
    ] {
        let heard = dig(&dns_tool.way("+notcp"), &[in_zone(question)]);
        assert!(heard[0].contains(expected), "{question}: {heard:?}");
    }
}

#[test]
fn what_a_resolver_says_is_what_kdig_hears() {
    let lab = Lab::new();
    for resolver in [lab.bind(), lab.unbound(Unbound::Authoritative)] {
        let dns_tool = lab.dns_tool(&resolver);
        for options in ["+edns +dnssec", "+noedns", "+edns +cdflag +adflag"] {
            let questions: Vec<_> = names_and_types()
                .iter()
                .map(|question| format!("{question} {options}"))
                .collect();
            let said = kdig(&lab.direct(&resolver), &questions);
            for transport in ["", "+tcp", "+tcp +keepopen"] {
                let heard = kdig(&dns_tool.way(transport), &questions);
                assert_same(&said, &heard, &questions, transport);
            }
        }
    }
}

#[test]
fn all_questions_at_once_on_one_connection_get_their_own_answers() {
    let lab = Lab::new();
    for resolver in [lab.bind(), lab.unbound(Unbound::Authoritative)] {
        let dns_tool = lab.dns_tool(&resolver);
        let questions = names_and_types();
        let [said, heard] = [resolver.plain(), dns_tool.way("+tcp")].map(|way| {
            // Equal questions share an answer, whatever their spelling.
            let answers = mdig(&way, &questions);
            answers
                .iter()
                .map(|answer| from_memory(answer))
                .collect::<Vec<_>>()
        });
        assert_same(&said, &heard, &questions, "mdig +tcp");
    }
}

#[test]
fn an_answer_is_cut_exactly_where_it_exceeds_what_the_client_takes() {
    let lab = Lab::new();
    let unbound = lab.unbound(Unbound::Authoritative);
    let dns_tool = lab.dns_tool(&unbound);
    for (options, limit) in [
        ("+noedns", 512),
        ("+bufsize=100", 512),
        ("+bufsize=512", 512),
        ("+bufsize=1000", 1000),
        ("+bufsize=1232", UDP_LIMIT),
        ("+bufsize=4096", UDP_LIMIT),
    ] {
        let questions: Vec<_> = txt_lengths()
            .map(|length| in_zone(&format!("txt{length} TXT {options}")))
            .collect();
        let whole = dig_raw(&lab.direct(&unbound), &questions);
        let cut = dig_raw(&dns_tool.way("+notcp +ignore"), &questions);
        let retried = dig(&dns_tool.way("+notcp"), &questions);
        let said: Vec<_> = whole.iter().map(|answer| compared(answer)).collect();
        assert_same(&said, &retried, &questions, "retried over TCP");
        let mut sizes = BTreeSet::new();
        for (question, (whole, cut)) in questions.iter().zip(whole.iter().zip(&cut)) {
            let size = octets(whole);
            sizes.insert(size);
            let truncated = size > limit;
            assert_eq!(has_flag(cut, "tc"), truncated, "{question}: {size} octets");
            assert_eq!(
                cut.contains("ANSWER SECTION"),
                !truncated,
                "{question}: {size} octets"
            );
            assert!(octets(cut) <= limit, "{question}: {size} octets: {cut}");
        }
        // The edge itself was among them.
        assert!(
            sizes.contains(&limit) && sizes.contains(&(limit + 1)),
            "{limit}: {sizes:?}"
        );
    }
}

#[test]
fn sixty_thousand_octets_come_whole_over_tcp() {
    let lab = Lab::new();
    for resolver in [lab.bind(), lab.unbound(Unbound::Authoritative)] {
        let dns_tool = lab.dns_tool(&resolver);
        let questions = vec![in_zone("txt60000 TXT"); 10];
        let said = dig(&lab.direct(&resolver), &questions);
        let heard = dig(&dns_tool.way("+tcp"), &questions);
        assert!(said[0].len() > 60_000);
        assert_same(&said, &heard, &questions, "+tcp");
    }
}

#[test]
fn only_a_resolver_whose_chain_and_name_and_pin_are_right_is_asked() {
    let lab = Lab::new();
    let wrong_pin = pin_of(&KeyPair::generate().expect("a key"));
    let other = Lab::new();
    for resolver in [lab.bind(), lab.unbound(Unbound::Authoritative)] {
        let ask = |ca: &Path, name: &str, pins: &[&str]| {
            let dns_tool = DnsTool::start(&resolver, ca, name, pins, &[]);
            let heard = dig(&dns_tool.way("+tcp"), &[in_zone("www A")]);
            let log = fs::read_to_string(&dns_tool.log).expect("its log");
            (heard[0].clone(), log)
        };
        let pins = &lab.pins;
        for pins in [
            &[][..],
            &[&pins.leaf[..]],
            &[&pins.issuer[..]],
            &[&pins.root[..]],
            &[&wrong_pin[..], &pins.leaf[..]],
        ] {
            let (heard, log) = ask(&lab.ca, NAME, pins);
            assert!(
                heard.contains("status: NOERROR"),
                "{pins:?}: {heard}\n{log}"
            );
            assert!(heard.contains("192.0.2.80"), "{pins:?}: {heard}\n{log}");
        }
        for (ca, name, pins, check) in [
            (&lab.ca, NAME, &[&wrong_pin[..]][..], "check=pin"),
            (&lab.ca, "other.test", &[&pins.leaf[..]], "check=name"),
            (&other.ca, NAME, &[&pins.leaf[..]], "check=chain"),
        ] {
            let (heard, log) = ask(ca, name, pins);
            assert!(
                heard.contains("status: SERVFAIL"),
                "{check}: {heard}\n{log}"
            );
            assert!(log.contains(check), "{check}: {log}");
        }
    }
}

#[test]
fn post_quantum_keys_are_agreed_on_with_openssl_and_classical_ones_where_there_are_no_others() {
    let lab = Lab::new();
    let unbound = lab.unbound(Unbound::Authoritative);
    let before = |relay: fn(&Lab, u16) -> Resolver| relay(&lab, unbound.plain);
    let others = [
        (before(Lab::node), "X25519MLKEM768"),
        (
            before(|lab, plain| lab.dnsdist(plain, None, None)),
            "x25519",
        ),
        (before(Lab::knot_resolver), "x25519"),
    ];
    let others = others.iter().map(|(resolver, group)| (resolver, *group));
    for (resolver, group) in others.chain([(&unbound, "x25519")]) {
        let mut dns_tool = lab.dns_tool(resolver);
        let heard = dig(&dns_tool.way("+notcp"), &[in_zone("www A")]);
        let log = fs::read_to_string(&dns_tool.log).expect("its log");
        assert!(heard[0].contains("status: NOERROR"), "{heard:?}\n{log}");
        dns_tool.wait_for(&format!(" tls=1.3 kex={group} resumed=false"), 1);
    }
}

#[test]
fn every_query_is_answered_behind_openssl_with_post_quantum_keys() {
    every_query_is_answered_behind(Lab::node);
}

#[test]
fn a_clusters_resolver_that_forwards_hears_what_the_resolver_says() {
    // In the place of CoreDNS: it knows the cluster's names itself, and has dns-tool asked for all others.
    const OWN: &str = "service.default.svc.cluster.local";
    let lab = Lab::new();
    let resolver = lab.bind();
    let questions: Vec<_> = "www A|www AAAA|@ MX|@ TXT|@ SOA|alias A|chain1 AAAA|any.wild A|_dns._udp SRV|svc HTTPS
         unknown TYPE65280|txt1 TXT|txt1000 TXT|txt4000 TXT|txt60000 TXT|empty A|no-such-name A|www MX|wWw.iNtErOp.TeSt. A"
        .split(['|', '\n'])
        .map(|question| in_zone(question.trim()))
        .collect();
    let said = dig(&lab.direct(&resolver), &questions);
    let said: Vec<_> = said.iter().map(|answer| answered(answer)).collect();
    for validates in [false, true] {
        for upstream in ["udp", "tcp"] {
            let pins = [&lab.pins.leaf[..]];
            let dns_tool = DnsTool::start(&resolver, &lab.ca, NAME, &pins, &["--query-log"]);
            let cluster = lab.cluster_resolver(&dns_tool, upstream == "tcp", validates, OWN);
            for transport in ["+notcp", "+tcp", "+tcp +keepopen"] {
                let way = Way {
                    port: cluster.plain,
                    options: transport.to_owned(),
                };
                let heard = dig(&way, &questions);
                let heard: Vec<_> = heard.iter().map(|answer| answered(answer)).collect();
                let how = format!("{transport}, upstream {upstream}, validates: {validates}");
                assert_same(&said, &heard, &questions, &how);
                let [own, bogus, signed] = [
                    format!("{OWN} A"),
                    in_zone("bogus A"),
                    in_zone("www A +adflag"),
                ]
                .map(|question| dig(&way, &[question]).remove(0));
                assert!(own.contains("10.96.0.10"), "{how}: {own}");
                // So that validating is what it does.
                let expected = if validates { "SERVFAIL" } else { "NOERROR" };
                assert!(
                    bogus.contains(&format!("status: {expected}")),
                    "{how}: {bogus}"
                );
                assert_eq!(has_flag(&signed, "ad"), validates, "{how}: {signed}");
            }
            // It was asked in the way that was said; what does not fit a datagram comes by TCP in any case.
            let log = fs::read_to_string(&dns_tool.log).expect("its log");
            let [by_udp, by_tcp] = ["udp", "tcp"]
                .map(|transport| log.matches(&format!(" transport={transport} ")).count());
            assert_eq!(by_udp > 0, upstream == "udp", "{log}");
            assert!(by_tcp > 0, "{log}");
            assert!(!log.contains("cluster.local"), "{log}");
        }
    }
}

#[test]
fn every_query_is_answered_behind_dnsdist() {
    every_query_is_answered_behind(|lab, plain| lab.dnsdist(plain, None, None));
}

#[test]
fn every_query_is_answered_behind_dnsdist_that_takes_one_at_a_time() {
    every_query_is_answered_behind(|lab, plain| lab.dnsdist(plain, Some(1), None));
}

#[test]
fn every_query_is_answered_behind_dnsdist_that_takes_a_hundred_at_a_time() {
    every_query_is_answered_behind(|lab, plain| lab.dnsdist(plain, Some(100), None));
}

#[test]
fn every_query_is_answered_behind_dnsdist_that_is_to_close_after_one() {
    every_query_is_answered_by_sessions_of(2, |lab, plain| lab.dnsdist(plain, None, Some(1)));
}

#[test]
fn every_query_is_answered_behind_dnsdist_that_is_to_close_after_five() {
    every_query_is_answered_by_sessions_of(6, |lab, plain| lab.dnsdist(plain, None, Some(5)));
}

#[test]
fn every_query_is_answered_behind_dnsdist_that_closes_with_others_on_their_way() {
    every_query_is_answered_by_sessions_of(6, |lab, plain| lab.dnsdist(plain, Some(100), Some(5)));
}

#[test]
fn every_query_is_answered_behind_knot_resolver() {
    every_query_is_answered_behind(Lab::knot_resolver);
}

#[test]
fn every_query_is_answered_behind_haproxy() {
    every_query_is_answered_behind(Lab::haproxy);
}

#[test]
fn every_query_is_answered_behind_nginx() {
    every_query_is_answered_behind(Lab::nginx);
}

#[test]
fn every_query_is_answered_behind_stunnel() {
    every_query_is_answered_behind(Lab::stunnel);
}

#[test]
fn every_query_is_answered_behind_hitch() {
    every_query_is_answered_behind(Lab::hitch);
}

#[test]
fn a_hundred_thousand_queries_over_udp_are_all_answered() {
    dnsperf("udp");
}

#[test]
fn a_hundred_thousand_queries_over_tcp_are_all_answered() {
    dnsperf("tcp");
}

/// Asks all `questions`, which are some hundred, directly and through dns-tool over UDP and TCP.
fn compare_with_dig(lab: &Lab, resolver: &Resolver, questions: &[String]) {
    let dns_tool = lab.dns_tool(resolver);
    let said = dig(&lab.direct(resolver), questions);
    for transport in ["+notcp", "+tcp", "+tcp +keepopen"] {
        let heard = dig(&dns_tool.way(transport), questions);
        assert_same(&said, &heard, questions, transport);
    }
    // From the cache it is the same but for what tells that it is from there.
    let caching = lab.caching_dns_tool(resolver);
    let said: Vec<_> = said.iter().map(|answer| from_memory(answer)).collect();
    for transport in ["+notcp", "+tcp +keepopen", "+notcp"] {
        let heard = dig(&caching.way(transport), questions);
        let heard: Vec<_> = heard.iter().map(|answer| from_memory(answer)).collect();
        assert_same(&said, &heard, questions, transport);
    }
}

/// What a cache may change of an answer is left out: how names are spelled that point to the question, what is left of
/// the TTLs, and the word on an error that was known.
fn from_memory(answer: &str) -> String {
    let mut lines = Vec::new();
    // A copy is not the authority's own word.
    let answer = answer.to_lowercase().replace(" aa", "");
    for line in answer.lines() {
        if line.starts_with("; ede: 13 ") {
            continue;
        }
        let mut fields: Vec<_> = line.split_whitespace().collect();
        if let [_, ttl, "in" | "ch", _, ..] = &mut fields[..]
            && ttl.parse::<u32>().is_ok()
        {
            *ttl = "ttl";
        }
        lines.push(fields.join(" "));
    }
    lines.sort();
    lines.join("\n")
}

fn assert_same(said: &[String], heard: &[String], questions: &[String], way: &str) {
    for (question, (said, heard)) in questions.iter().zip(said.iter().zip(heard)) {
        assert_eq!(
            said, heard,
            "{question} {way}: the resolver's own answer on the left"
        );
    }
    assert_eq!(said.len(), heard.len(), "{way}");
}

/// What is put before BIND, and then before unbound, is the resolver that dns-tool asks, by whatever many clients ask at a
/// time. `before` starts it, and is told the port where the resolver behind it speaks DNS over TCP.
fn every_query_is_answered_behind(before: fn(&Lab, u16) -> Resolver) {
    every_query_is_answered_by_sessions_of(usize::MAX, before);
}

/// The same where it closes each session after `most` answers at the latest.
fn every_query_is_answered_by_sessions_of(most: usize, before: fn(&Lab, u16) -> Resolver) {
    let ways: [(&str, Range<u8>, Ask); 4] = [
        ("at once on one connection", 0..60, ask_by_tcp),
        ("by a client each, UDP", 60..100, |port, zone, hosts| {
            ask_in_parallel(ask_by_udp, port, zone, hosts)
        }),
        ("by a client each, TCP", 100..140, |port, zone, hosts| {
            ask_in_parallel(ask_by_tcp, port, zone, hosts)
        }),
        ("one after the other", 140..200, |port, zone, hosts| {
            let ask = |host| ask_by_udp(port, zone, host..host + 1);
            hosts.flat_map(ask).collect()
        }),
    ];
    let lab = Lab::new();
    let mut failures = String::new();
    for resolver in [lab.bind(), lab.unbound(Unbound::Authoritative)] {
        let resolver = before(&lab, resolver.plain);
        for (way, hosts, ask) in &ways {
            // It has its defaults, and so a cache: each name is asked for once. The log is for whoever sees this fail.
            let pins = [&*lab.pins.leaf];
            let more = ["--log-level", "debug"];
            let mut dns_tool = DnsTool::start(&resolver, &lab.ca, NAME, &pins, &more);
            let wrong = ask(dns_tool.port, ZONE, hosts.clone());
            let all = hosts.len();
            if wrong.is_empty() {
                // So that it did close them, and that no answer is from the cache.
                dns_tool.wait_for("event=session-opened", all.div_ceil(most));
                dns_tool.wait_for("outcome=answered", all);
            } else {
                let log = fs::read_to_string(&dns_tool.log).expect("its log");
                let count = wrong.len();
                failures += &format!("{count} of {all} wrong {way}: {wrong:#?}\n{log}\n");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Ten clients with a hundred queries on their way, every tenth for a name that does not exist.
fn dnsperf(mode: &str) {
    const QUERIES: usize = 100_000;
    const LINES: usize = 1000;
    let lab = Lab::new();
    let resolver = lab.unbound(Unbound::Authoritative);
    let dns_tool = lab.dns_tool(&resolver);
    let lines: String = (0..LINES)
        .map(|line| match line % 10 {
            0 => format!("no-such-name-{line}.{ZONE} A\n"),
            1 => format!("txt1000.{ZONE} TXT\n"),
            _ => format!("name{line}.wild.{ZONE} A\n"),
        })
        .collect();
    let data = lab.write(&format!("dnsperf-{mode}"), &lines);
    let repeat = (QUERIES / LINES).to_string();
    let output = output(
        client("dnsperf", "dnsperf")
            .args(["-s", "127.0.0.1", "-p", &dns_tool.port.to_string()])
            .args([
                "-m", mode, "-c", "10", "-q", "100", "-e", "-n", &repeat, "-d",
            ])
            .arg(data),
    );
    println!("{output}");
    for (field, expected) in [
        ("Queries completed:", format!("{QUERIES} (100.00%)")),
        ("Queries lost:", "0 (0.00%)".to_owned()),
        (
            "Response codes:",
            format!(
                "NOERROR {} (90.00%), NXDOMAIN {} (10.00%)",
                QUERIES / 10 * 9,
                QUERIES / 10
            ),
        ),
    ] {
        let found = output
            .lines()
            .find_map(|line| line.trim().strip_prefix(field));
        assert_eq!(
            found.map(str::trim),
            Some(&expected[..]),
            "{field} {output}"
        );
    }
}

// What is asked.

/// Lengths of TXT data such that answers are just within and just beyond 512, 1000 and 1232 octets, and far from them.
fn txt_lengths() -> impl Iterator<Item = usize> {
    [1, 1000, 4000, 60_000]
        .into_iter()
        .chain(440..470)
        .chain(930..945)
        .chain(1155..1170)
}

/// A question's name in the zone, in full.
fn in_zone(question: &str) -> String {
    let (name, rest) = question.split_once(' ').expect("a name and a type");
    match name {
        "@" => format!("{ZONE} {rest}"),
        _ if name.ends_with('.') => question.to_owned(),
        _ => format!("{name}.{ZONE} {rest}"),
    }
}

fn names_and_types() -> Vec<String> {
    let mut questions = vec![format!("{} A", longest_label()), format!("{} A", longest())];
    questions.extend(
        "@ SOA|@ NS|@ MX|@ TXT|@ CAA|@ DNSKEY|@ NSEC|@ RRSIG|@ DS|@ ANY|@ A|@ AAAA
         www A|www AAAA|www ANY|www MX|www TYPE65280|WwW A|wWw.iNtErOp.TeSt. AAAA|UPPER A|upper A
         alias A|alias CNAME|alias ANY|chain1 A|chain1 AAAA|chain1 MX|loop1 A|dangling A|outside A
         any.wild A|*.wild A|any.wild MX|deep.er.wild A|empty A|b.empty TXT|a.b.empty A
         x.dname A|dname DNAME|dname A|no.x.dname A
         _dns._udp SRV|naptr NAPTR|_853._tcp TLSA|sshfp SSHFP|svc HTTPS|svc SVCB|loc LOC|hinfo HINFO|uri URI|rp RP
         afsdb AFSDB|key OPENPGPKEY|eui EUI48|unknown TYPE65280|unknown TYPE65281|unknown ANY|www TYPE65535|www TYPE0
         a\\.b A|sp\\032ace A|nul\\000l A|high\\255 A|bogus A
         delegated NS|www.delegated A|ns.delegated A|delegated DS
         many A|txt1 TXT|txt930 TXT|txt1000 TXT|txt4000 TXT|txt60000 TXT
         no-such-name A|no-such-name TXT|no.such.name AAAA|NO-such-NAME ANY
         . SOA|. NS|test. A|elsewhere.test. A|www.example. MX|localhost. A"
            .split(['|', '\n'])
            .map(|question| question.trim().to_owned()),
    );
    questions.iter().map(|question| in_zone(question)).collect()
}

/// Every name and type with every set of options, and some that are asked once.
fn questions() -> Vec<String> {
    let options = [
        "",
        "+dnssec",
        "+cdflag",
        "+noedns",
        "+bufsize=512",
        "+bufsize=4096 +dnssec",
        "+norecurse",
        "+dnssec +cdflag +noadflag",
    ];
    let mut questions: Vec<_> = names_and_types()
        .iter()
        .flat_map(|question| options.map(|options| format!("{question} {options}")))
        .collect();
    questions.extend(["www A +zflag", "www A +aaflag +raflag"].map(in_zone));
    questions
}

/// The zone, as text.
fn zone() -> String {
    let mut zone = format!("$ORIGIN {ZONE}.\n$TTL 3600\n");
    zone.push_str(
        r#"@ SOA ns hostmaster 1 3600 600 86400 300
@ NS ns
@ NS ns2
@ MX 10 mail
@ MX 20 mail.elsewhere.test.
@ TXT "v=spf1 -all" "two strings"
@ CAA 0 issue "ca.example"
ns A 192.0.2.53
ns AAAA 2001:db8::53
ns2 A 192.0.2.54
mail A 192.0.2.25
www 300 A 192.0.2.80
www 300 A 192.0.2.81
www 60 AAAA 2001:db8::80
UPPER.INTEROP.test. A 192.0.2.1
alias CNAME www
loop1 CNAME loop2
loop2 CNAME loop1
dangling CNAME no-such-name
outside CNAME www.elsewhere.test.
*.wild A 192.0.2.2
a.b.empty A 192.0.2.3
dname DNAME sub
x.sub A 192.0.2.4
_dns._udp SRV 1 2 853 ns
naptr NAPTR 100 10 "u" "sip+E2U" "!^.*$!sip:info@interop.test!" .
_853._tcp TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
sshfp SSHFP 4 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
svc HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.80
svc SVCB 2 ns port=853 alpn=dot
loc LOC 52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000.00m 10.00m
hinfo HINFO "a machine" "an operating system"
uri URI 10 1 "https://interop.test/"
rp RP hostmaster ns
afsdb AFSDB 1 ns
key OPENPGPKEY AQIDBAUGBwg=
eui EUI48 00-00-5e-00-53-2a
unknown TYPE65280 \# 4 01020304
unknown TYPE65281 \# 0
a\.b A 192.0.2.5
sp\032ace A 192.0.2.6
nul\000l A 192.0.2.7
high\255 A 192.0.2.8
bogus A 192.0.2.66
delegated NS ns.delegated
delegated NS ns.elsewhere.test.
ns.delegated A 192.0.2.9
"#,
    );
    zone.extend((1..8).map(|link| format!("chain{link} CNAME chain{}\n", link + 1)));
    zone.push_str("chain8 CNAME www\n");
    zone.extend((1..=90).map(|host| format!("many A 192.0.2.{host}\n")));
    zone.extend(HOSTS.map(|host| format!("host{host} A {}\n", address_of(host))));
    zone += &format!(
        "{} A 192.0.2.10\n{} A 192.0.2.11\n",
        longest(),
        longest_label()
    );
    for length in txt_lengths() {
        let text = "0123456789abcdef".repeat(length.div_ceil(16));
        let strings: Vec<_> = text.as_bytes()[..length]
            .chunks(255)
            .map(|string| format!("\"{}\"", String::from_utf8_lossy(string)))
            .collect();
        zone += &format!("txt{length} TXT {}\n", strings.join(" "));
    }
    zone
}

/// Names with an address each, so that every answer tells whose it is: `host0` and so on.
const HOSTS: Range<u8> = 0..200;

fn address_of(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, host)
}

fn longest_label() -> String {
    "m".repeat(63)
}

/// What makes a name of 255 octets in the zone.
fn longest() -> String {
    let label = longest_label();
    format!("{label}.{label}.{label}.{}", "m".repeat(48))
}

/// All other names: none.
const ROOT_ZONE: &str = ". 3600 SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 300
. 3600 NS ns.invalid.
ns.invalid. 3600 A 127.0.0.1
";

// Whom they are put to.

/// A directory with a signed zone and certificates for it, and what runs in there.
struct Lab {
    directory: TempDir,
    /// The name in the resolvers' certificate.
    name: &'static str,
    ca: PathBuf,
    pins: Pins,
}

/// The pins of a certificate and of those above it.
struct Pins {
    leaf: String,
    issuer: String,
    root: String,
}

#[derive(Clone, Copy)]
enum Unbound {
    /// It answers from the zone.
    Authoritative,
    /// It asks the zone as if it were another server, and validates.
    Validating,
}

impl Lab {
    fn new() -> Self {
        Self::with_zone(NAME)
    }

    /// One where resolvers bear `name`.
    fn with_zone(name: &'static str) -> Self {
        let lab = Self::without_zone(name);
        lab.write("zone", &zone());
        lab.sign_zone();
        lab
    }

    /// The same without the signed zone.
    fn without_zone(name: &'static str) -> Self {
        let directory = TempDir::new().expect("a directory for temporary files");
        let lab = Self {
            name,
            ca: directory.path().join("root.pem"),
            pins: write_certificates(directory.path(), name),
            directory,
        };
        lab.write("root.zone", ROOT_ZONE);
        lab
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("room for a file");
        path
    }

    /// Makes `zone.signed` and `dsset-interop.test.`.
    fn sign_zone(&self) {
        for flags in [&["-f", "KSK"][..], &[]] {
            output(
                program("dnssec-keygen", "bind9-utils")
                    .current_dir(self.path())
                    .args(["-q", "-a", "ECDSAP256SHA256"])
                    .args(flags)
                    .arg(ZONE),
            );
        }
        output(
            program("dnssec-signzone", "bind9-utils")
                .current_dir(self.path())
                .args([
                    "-q",
                    "-S",
                    "-O",
                    "full",
                    "-o",
                    ZONE,
                    "-f",
                    "zone.signed",
                    "zone",
                ]),
        );
        let signed = fs::read_to_string(self.path().join("zone.signed")).expect("the signed zone");
        self.write("zone.signed", &signed.replace("192.0.2.66", "192.0.2.67"));
    }

    fn bind(&self) -> Resolver {
        let ports = [free_port(), free_port()];
        let [port, plain] = ports;
        let directory = self.path().display();
        let configuration = self.write(
            &format!("named-{port}.conf"),
            &format!(
                r#"tls resolver {{ cert-file "{directory}/chain.pem"; key-file "{directory}/key.pem"; }};
options {{
    directory "{directory}";
    listen-on port {port} tls resolver {{ 127.0.0.1; }};
    listen-on port {plain} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    lock-file none;
    recursion yes;
    empty-zones-enable no;
    dnssec-validation no;
    check-names primary ignore;
    notify no;
}};
server 0.0.0.0/0 {{ bogus yes; }};
server ::/0 {{ bogus yes; }};
controls {{ }};
zone "." {{ type primary; file "root.zone"; }};
zone "{ZONE}" {{ type primary; file "zone.signed"; }};
"#
            ),
        );
        let mut named = self.copy_of("named", "bind9");
        named.arg("-g").arg("-c").arg(configuration);
        self.resolver(named, ports)
    }

    fn unbound(&self, kind: Unbound) -> Resolver {
        let ports = [free_port(), free_port()];
        let [port, plain] = ports;
        let directory = self.path().display();
        let (validation, downstream) = match kind {
            Unbound::Authoritative => ("module-config: \"iterator\"".to_owned(), "yes"),
            Unbound::Validating => (
                format!(
                    "module-config: \"validator iterator\"
    trust-anchor-file: \"{directory}/dsset-{ZONE}.\"
    ede: yes
    val-log-level: 2
    serve-original-ttl: yes"
                ),
                "no",
            ),
        };
        let unbound = self.copy_of_unbound(
            port,
            &format!(
                r#"    so-reuseport: no
    interface: 127.0.0.1@{plain}
    tls-port: {port}
    tls-service-key: "{directory}/key.pem"
    tls-service-pem: "{directory}/chain.pem"
    incoming-num-tcp: 100
    do-not-query-address: 0.0.0.0/0
    do-not-query-address: ::/0
    local-zone: "test." nodefault
    {validation}
auth-zone:
    name: "."
    zonefile: "root.zone"
    for-downstream: {downstream}
    for-upstream: yes
    fallback-enabled: no
auth-zone:
    name: "{ZONE}"
    zonefile: "zone.signed"
    for-downstream: {downstream}
    for-upstream: yes
    fallback-enabled: no
"#
            ),
        );
        self.resolver(unbound, ports)
    }

    /// Unbound in the foreground on this port, with these lines behind those that every one has. They begin in the clause `server`.
    fn copy_of_unbound(&self, port: u16, lines: &str) -> Command {
        let directory = self.path().display();
        let configuration = self.write(
            &format!("unbound-{port}.conf"),
            &format!(
                r#"remote-control:
    control-enable: no
server:
    directory: "{directory}"
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    interface: 127.0.0.1@{port}
{lines}"#
            ),
        );
        let mut unbound = self.copy_of("unbound", "unbound");
        unbound.arg("-d").arg("-c").arg(configuration);
        unbound
    }

    /// dnsdist before the resolver at `plain`, with its defaults but for how many queries of a connection it has on their way
    /// at a time, and after how many it closes the connection. It takes one more than it is told (1.7.3).
    fn dnsdist(&self, plain: u16, at_a_time: Option<u8>, in_all: Option<u8>) -> Resolver {
        let ports = [free_port(), free_port()];
        let directory = self.path().display();
        let at_a_time = at_a_time.map_or_else(String::new, |most| format!("maxInFlight={most}"));
        let in_all = in_all.map_or_else(String::new, |most| {
            format!("setMaxTCPQueriesPerConnection({most})")
        });
        let configuration = self.write(
            &format!("dnsdist-{}.conf", ports[0]),
            &format!(
                r#"setSecurityPollSuffix("")
setLocal("127.0.0.1:{}")
addTLSLocal("127.0.0.1:{}", "{directory}/chain.pem", "{directory}/key.pem", {{ {at_a_time} }})
newServer({{ address="127.0.0.1:{plain}", {at_a_time} }})
{in_all}
"#,
                ports[1], ports[0],
            ),
        );
        let mut dnsdist = program("dnsdist", "dnsdist");
        dnsdist
            .args(["--supervised", "--disable-syslog", "--config"])
            .arg(configuration);
        self.resolver(dnsdist, ports)
    }

    /// Knot Resolver, which asks the resolver at `plain` whatever it is asked. It keeps nothing, so that TTLs are what they
    /// are there, and looks after nothing else on its own.
    fn knot_resolver(&self, plain: u16) -> Resolver {
        let ports = [free_port(), free_port()];
        let directory = self.path().display();
        let configuration = self.write(
            &format!("kresd-{}.conf", ports[0]),
            &format!(
                r#"net.listen("127.0.0.1", {}, {{ kind = "tls" }})
net.listen("127.0.0.1", {}, {{ kind = "dns" }})
net.tls("{directory}/chain.pem", "{directory}/key.pem")
cache.open(1 * MB, "lmdb://{directory}/kresd-{}")
trust_anchors.remove(".")
for _, module in ipairs({{ "detect_time_jump", "detect_time_skew", "priming", "ta_signal_query", "ta_update" }}) do
    modules.unload(module)
end
policy.add(policy.all(policy.FLAGS("NO_CACHE")))
policy.add(policy.all(policy.STUB("127.0.0.1@{plain}")))
"#,
                ports[0], ports[1], ports[0],
            ),
        );
        let mut kresd = program("kresd", "knot-resolver");
        kresd
            .args(["--noninteractive", "--config"])
            .arg(configuration)
            .arg(self.path());
        self.resolver(kresd, ports)
    }

    fn haproxy(&self, plain: u16) -> Resolver {
        let port = free_port();
        let directory = self.path().display();
        let configuration = self.write(
            &format!("haproxy-{port}.conf"),
            &format!(
                "defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen dns
    bind 127.0.0.1:{port} ssl crt {directory}/key-and-chain.pem
    server resolver 127.0.0.1:{plain}
"
            ),
        );
        let mut haproxy = program("haproxy", "haproxy");
        haproxy.args(["-db", "-f"]).arg(configuration);
        self.resolver(haproxy, [port, plain])
    }

    /// nginx with its stream module, which is a Debian package of its own (libnginx-mod-stream). One process does all.
    fn nginx(&self, plain: u16) -> Resolver {
        let port = free_port();
        let directory = self.path().display();
        let configuration = self.write(
            &format!("nginx-{port}.conf"),
            &format!(
                "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid {directory}/nginx-{port}.pid;
error_log stderr;
events {{ }}
stream {{
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/chain.pem;
        ssl_certificate_key {directory}/key.pem;
        proxy_pass 127.0.0.1:{plain};
    }}
}}
"
            ),
        );
        let mut nginx = program("nginx", "nginx");
        nginx.args(["-e", "stderr", "-c"]).arg(configuration);
        self.resolver(nginx, [port, plain])
    }

    fn stunnel(&self, plain: u16) -> Resolver {
        let port = free_port();
        let directory = self.path().display();
        let configuration = self.write(
            &format!("stunnel-{port}.conf"),
            &format!(
                "foreground = yes
syslog = no
pid =
[dns]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{plain}
cert = {directory}/chain.pem
key = {directory}/key.pem
"
            ),
        );
        let mut stunnel = program("stunnel4", "stunnel4");
        stunnel.arg(configuration);
        self.resolver(stunnel, [port, plain])
    }

    /// A TLS terminator of Node.js 24, whose OpenSSL 3.5 is the first with X25519MLKEM768. Debian's has none.
    fn node(&self, plain: u16) -> Resolver {
        let port = free_port();
        let directory = self.path().display();
        let program = self.write(
            &format!("node-{port}.js"),
            &format!(
                r#"const [tls, net, fs] = ["tls", "net", "fs"].map(require);
const [cert, key] = ["chain.pem", "key.pem"].map((name) => fs.readFileSync("{directory}/" + name));
tls.createServer({{ cert, key, ALPNProtocols: ["dot"], noDelay: true }}, (client) => {{
    const resolver = net.connect({{ port: {plain}, host: "127.0.0.1", noDelay: true }});
    client.pipe(resolver).pipe(client);
    client.on("error", () => resolver.destroy());
    resolver.on("error", () => client.destroy());
}}).on("tlsClientError", () => {{}}).listen({port}, "127.0.0.1");
"#
            ),
        );
        let node = std::env::var_os("NODE24").expect(
            "NODE24 must name the program of Node.js 24; the package node@24 of npm has it",
        );
        let mut node = Command::new(node);
        node.arg(program);
        self.resolver(node, [port, plain])
    }

    /// hitch, whose worker ends with it.
    fn hitch(&self, plain: u16) -> Resolver {
        let port = free_port();
        let directory = self.path().display();
        // It refuses to have a worker run as root, and root alone may name another user.
        let user = match geteuid().is_root() {
            true => "user = \"nobody\"",
            false => "",
        };
        let configuration = self.write(
            &format!("hitch-{port}.conf"),
            &format!(
                r#"frontend = "[127.0.0.1]:{port}"
backend = "[127.0.0.1]:{plain}"
pem-file = "{directory}/key-and-chain.pem"
ocsp-dir = ""
workers = 1
{user}
"#
            ),
        );
        let mut hitch = program("hitch", "hitch");
        hitch.arg("--config").arg(configuration);
        self.resolver(hitch, [port, plain])
    }

    /// A resolver that forwards to `dns_tool`, by UDP or by TCP, but for a name of its own.
    fn cluster_resolver(
        &self,
        dns_tool: &DnsTool,
        by_tcp: bool,
        validates: bool,
        own: &str,
    ) -> Resolver {
        let port = free_port();
        let directory = self.path().display();
        let validation = match validates {
            true => format!(
                "module-config: \"validator iterator\"
    trust-anchor-file: \"{directory}/dsset-{ZONE}.\""
            ),
            false => "module-config: \"iterator\"".to_owned(),
        };
        let unbound = self.copy_of_unbound(
            port,
            &format!(
                r#"    so-reuseport: no
    do-not-query-localhost: no
    local-zone: "test." nodefault
    local-zone: "cluster.local." static
    local-data: "{own}. A 10.96.0.10"
    {validation}
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{}
    forward-tcp-upstream: {}
"#,
                dns_tool.port,
                if by_tcp { "yes" } else { "no" },
            ),
        );
        let way = Way {
            port,
            options: "+notcp".to_owned(),
        };
        self.resolver_of(unbound, [port, port], &way, &format!("{own} A"))
    }

    /// A copy of the program, because distributions confine the installed one by its path (AppArmor) to files of its own.
    fn copy_of(&self, name: &str, package: &str) -> Command {
        let copy = self.path().join(name);
        if !copy.exists() {
            fs::copy(program(name, package).get_program(), &copy).expect("room for a program");
        }
        Command::new(copy)
    }

    fn resolver(&self, command: Command, ports: [u16; 2]) -> Resolver {
        self.resolver_of(command, ports, &self.direct_to(ports[0]), &in_zone("@ SOA"))
    }

    /// A resolver that runs once it has an answer to that question, asked in that way.
    fn resolver_of(
        &self,
        command: Command,
        [port, plain]: [u16; 2],
        way: &Way,
        question: &str,
    ) -> Resolver {
        let log = self.path().join(format!("resolver-{port}.log"));
        let mut process = Process::start(command, &log);
        let question = [question.to_owned()];
        process.wait_for(&log, || run_dig(way, &question).contains("status: NOERROR"));
        Resolver {
            process,
            port,
            plain,
            log,
        }
    }

    /// dns-tool before `resolver`, with its identity in full. It keeps nothing: each answer is the resolver's own.
    fn dns_tool(&self, resolver: &Resolver) -> DnsTool {
        let relay = ["--cache-size", "0"];
        DnsTool::start(resolver, &self.ca, NAME, &[&self.pins.leaf], &relay)
    }

    /// The same with a cache.
    fn caching_dns_tool(&self, resolver: &Resolver) -> DnsTool {
        DnsTool::start(resolver, &self.ca, NAME, &[&self.pins.leaf], &[])
    }

    /// The way to `resolver` without dns-tool.
    fn direct(&self, resolver: &Resolver) -> Way {
        self.direct_to(resolver.port)
    }

    fn direct_to(&self, port: u16) -> Way {
        let ca = self.ca.display();
        Way {
            port,
            options: format!("+tls +tls-ca={ca} +tls-hostname={} +keepopen", self.name),
        }
    }
}

/// Writes `root.pem`, `chain.pem` and `key.pem`: a root, a CA between, and the certificate of the resolver with that name. The
/// last two are also in one file, for programs that want them so.
fn write_certificates(directory: &Path, name: &str) -> Pins {
    let ca = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().expect("a key"))
    };
    let (params, key) = ca("root");
    let root = CertifiedIssuer::self_signed(params, key).expect("a certificate");
    let (params, key) = ca("issuer");
    let issuer = CertifiedIssuer::signed_by(params, key, &root).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([name.to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .expect("a certificate");
    let chain = leaf.pem() + &issuer.pem();
    for (name, text) in [
        ("root.pem", root.pem()),
        ("key-and-chain.pem", key.serialize_pem() + &chain),
        ("chain.pem", chain),
        ("key.pem", key.serialize_pem()),
    ] {
        fs::write(directory.join(name), text).expect("room for a file");
    }
    Pins {
        leaf: pin_of(&key),
        issuer: pin_of(issuer.key()),
        root: pin_of(root.key()),
    }
}

fn pin_of(key: &KeyPair) -> String {
    STANDARD.encode(digest(&SHA256, &key.subject_public_key_info()))
}

/// A resolver that runs.
struct Resolver {
    process: Process,
    /// Where it speaks DNS over TLS.
    port: u16,
    /// Where it speaks DNS in clear, for clients that know nothing else.
    plain: u16,
    log: PathBuf,
}

impl Resolver {
    fn plain(&self) -> Way {
        Way {
            port: self.plain,
            options: "+tcp".to_owned(),
        }
    }
}

/// The program that is tested.
struct DnsTool {
    process: Process,
    port: u16,
    log: PathBuf,
}

impl DnsTool {
    /// Before `resolver`, which shall be vouched for by `ca`, bear `name` and have one of `pins`.
    fn start(resolver: &Resolver, ca: &Path, name: &str, pins: &[&str], more: &[&str]) -> Self {
        Self::start_by(Command::new(PROGRAM), resolver, ca, name, pins, more)
    }

    /// The same, with `command` as the words that start it.
    fn start_by(
        mut command: Command,
        resolver: &Resolver,
        ca: &Path,
        name: &str,
        pins: &[&str],
        more: &[&str],
    ) -> Self {
        // The zone of the tests is below test., and what is compared is what the resolver says.
        command.args(["--special-names", "relay"]).args(more);
        for pin in pins {
            command.args(["--resolver-pin", pin]);
        }
        Self::launch(command, resolver, ca, name)
    }

    /// The same with no option but those in `command` and those that say who the resolver is.
    fn launch(mut command: Command, resolver: &Resolver, ca: &Path, name: &str) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = ca.with_file_name(format!("dns-tool-{count}.log"));
        command
            .args(["--address", "127.0.0.1", "--port", "0"])
            .arg("--resolver-addr")
            .arg(format!("127.0.0.1:{}", resolver.port))
            .args(["--resolver-fqdn", name, "--resolver-ca"])
            .arg(ca);
        let mut process = Process::start(command, &log);
        let mut port = None;
        process.wait_for(&log, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            port = text
                .lines()
                .find_map(|line| line.split_once("event=listening address=127.0.0.1:"))
                .and_then(|(_, port)| port.parse().ok());
            port.is_some()
        });
        Self {
            process,
            port: port.expect("it was waited for"),
            log,
        }
    }

    /// Waits until its log has had `text` so many times, since it may be behind.
    fn wait_for(&mut self, text: &str, times: usize) {
        self.process.wait_for(&self.log, || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            log.matches(text).count() >= times
        });
    }

    /// The way to it with these options of dig or kdig.
    fn way(&self, options: &str) -> Way {
        Way {
            port: self.port,
            options: options.to_owned(),
        }
    }
}

/// A program that ends with its owner.
struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Self {
        let file = File::create(log).expect("room for a log");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a descriptor"))
            .stderr(file);
        let end = Instant::now() + PATIENCE;
        loop {
            match command.spawn() {
                Ok(child) => return Self(child),
                // A copy that was just made is still open in a child that another test is about to make.
                Err(error)
                    if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{command:?}: {error}"),
            }
        }
    }

    fn wait_for(&mut self, log: &Path, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition() {
            let ended = self.0.try_wait().expect("a child of ours").is_some();
            if ended || Instant::now() > end {
                let log = fs::read_to_string(log).unwrap_or_default();
                panic!("a program is not ready (ended: {ended}); its log:\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free for TCP and UDP, below those that the system gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of another process begin elsewhere.
    let start = u16::try_from(process::id() % 20_000).expect("it is less");
    for _ in 0..1000 {
        let port = 10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

// Who asks.

/// Where a client is to ask, and how.
struct Way {
    port: u16,
    options: String,
}

/// How many are asked for: on which port, and for the addresses of which hosts in which zone. Returns what is wrong with the answers.
type Ask = fn(u16, &str, Range<u8>) -> Vec<String>;

/// Asks for the addresses of `hosts` in `zone`, all in one write on one connection.
fn ask_by_tcp(port: u16, zone: &str, hosts: Range<u8>) -> Vec<String> {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("dns-tool listens");
    let limit = client.set_read_timeout(Some(IMPATIENCE));
    limit.expect("a time limit");
    let queries: Vec<_> = hosts
        .clone()
        .flat_map(|host| {
            let query = question_for(zone, host);
            let length = u16::try_from(query.len()).expect("a short query");
            [&length.to_be_bytes()[..], &query].concat()
        })
        .collect();
    client.write_all(&queries).expect("room for queries");
    wrong_among(zone, hosts, || {
        let mut length = [0; 2];
        client.read_exact(&mut length)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        client.read_exact(&mut answer)?;
        Ok(answer)
    })
}

/// The same with a datagram each.
fn ask_by_udp(port: u16, zone: &str, hosts: Range<u8>) -> Vec<String> {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let limit = client.set_read_timeout(Some(IMPATIENCE));
    limit.expect("a time limit");
    for host in hosts.clone() {
        let sent = client.send_to(&question_for(zone, host), (Ipv4Addr::LOCALHOST, port));
        sent.expect("room for a query");
    }
    wrong_among(zone, hosts, || {
        let mut answer = [0; UDP_LIMIT];
        let length = client.recv(&mut answer)?;
        Ok(answer[..length].to_vec())
    })
}

/// Has a client of its own `ask` for each of `hosts`, all at the same time.
fn ask_in_parallel(ask: Ask, port: u16, zone: &str, hosts: Range<u8>) -> Vec<String> {
    thread::scope(|scope| {
        let clients: Vec<_> = hosts
            .map(|host| scope.spawn(move || ask(port, zone, host..host + 1)))
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect()
    })
}

/// The question for the address of a host in `zone`; its ID is the host's number.
fn question_for(zone: &str, host: u8) -> Vec<u8> {
    let name = format!("host{host}.{zone}");
    let name = Name::vec_from_str(&name).expect("a name");
    let mut query = MessageBuilder::new_vec().question();
    query.header_mut().set_id(host.into());
    query.header_mut().set_rd(true);
    query.push((name, Rtype::A)).expect("room for a question");
    query.finish()
}

/// Hears as many answers as there are `hosts`, unless `next` fails. Returns which of the hosts have no answer, or not the
/// one with their address.
fn wrong_among(
    zone: &str,
    hosts: Range<u8>,
    mut next: impl FnMut() -> io::Result<Vec<u8>>,
) -> Vec<String> {
    let mut heard = Vec::new();
    let mut missing = "another answer came twice".to_owned();
    while heard.len() < hosts.len() {
        match next() {
            Ok(answer) => heard.push(Message::from_octets(answer).expect("a header")),
            Err(error) => {
                missing = error.to_string();
                break;
            }
        }
    }
    let wrong = hosts.filter_map(|host| {
        let answer = heard
            .iter()
            .find(|answer| answer.header().id() == host.into());
        let said = answer.map_or(missing.clone(), |answer| {
            match is_right(answer, zone, host) {
                true => String::new(),
                false => answer.display_dig_style().to_string(),
            }
        });
        (!said.is_empty()).then(|| format!("host{host}: {said}"))
    });
    wrong.collect()
}

/// Whether this is the answer with the address of `host`, and nothing else.
fn is_right(answer: &Message<Vec<u8>>, zone: &str, host: u8) -> bool {
    let query = Message::from_octets(question_for(zone, host)).expect("a header");
    let records = answer.answer().map(|records| {
        let addresses = records.limit_to::<A>().flatten();
        addresses.map(|record| record.data().addr()).collect()
    });
    let addresses: Vec<_> = records.unwrap_or_default();
    answer.is_answer(&query) && answer.no_error() && addresses == [address_of(host)]
}

/// dig's answers to `questions` (name, type and options each), as they are compared.
fn dig(way: &Way, questions: &[String]) -> Vec<String> {
    let answers = dig_raw(way, questions);
    answers.iter().map(|answer| compared(answer)).collect()
}

/// The same as dig shows them.
fn dig_raw(way: &Way, questions: &[String]) -> Vec<String> {
    let output = run_dig(way, questions);
    let answers = split(&output, ";; Got answer:");
    let complaints: Vec<_> = output
        .lines()
        .filter(|line| line.starts_with("dig:") || line.contains(" error"))
        .collect();
    assert_eq!(
        answers.len(),
        questions.len(),
        "{}: {complaints:#?}",
        way.options
    );
    answers
}

/// What dig says, which is less than it was asked for if the other side is not there.
fn run_dig(way: &Way, questions: &[String]) -> String {
    let mut batch = NamedTempFile::new().expect("a file for dig's questions");
    writeln!(batch, "{}", questions.join("\n")).expect("room for dig's questions");
    let output = client("dig", "bind9-dnsutils")
        .args(["@127.0.0.1", "-p", &way.port.to_string()])
        .args(way.options.split_whitespace())
        .args(["+tries=1", "+time=5", "+nocmd", "-f"])
        .arg(batch.path())
        .output()
        .expect("it is there, so it runs");
    [output.stderr, output.stdout]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat()
}

/// kdig's answers to `questions`, as they are compared.
fn kdig(way: &Way, questions: &[String]) -> Vec<String> {
    let mut command = client("kdig", "knot-dnsutils");
    command
        .args(["@127.0.0.1", "-p", &way.port.to_string()])
        .args(way.options.split_whitespace())
        .args(["+retry=0", "+timeout=5"]);
    for question in questions {
        command.args(question.split_whitespace());
    }
    let output = output(&mut command);
    let answers = split(&output, ";; ->>HEADER<<-");
    assert_eq!(answers.len(), questions.len(), "{output}");
    answers.iter().map(|answer| compared(answer)).collect()
}

/// mdig's answers to `questions`, asked all at once, in the order of their own texts.
fn mdig(way: &Way, questions: &[String]) -> Vec<String> {
    let mut command = client("mdig", "bind9-dnsutils");
    command
        .args(["@127.0.0.1", "-p", &way.port.to_string()])
        .args(way.options.split_whitespace());
    for question in questions {
        let (name, rtype) = question.split_once(' ').expect("a name and a type");
        command.args(["+tries=1", "-t", rtype, name]);
    }
    let output = output(&mut command);
    let answers = split(&output, ";; Got answer:");
    assert_eq!(answers.len(), questions.len(), "{output}");
    let mut answers: Vec<_> = answers.iter().map(|answer| compared(answer)).collect();
    answers.sort();
    answers
}

/// A program that asks, and is given a minute.
fn client(name: &str, package: &str) -> Command {
    let mut command = program("timeout", "coreutils");
    command
        .args(["--foreground", "60"])
        .arg(program(name, package).get_program());
    command
}

/// A program that must be there, as a command.
fn program(name: &str, package: &str) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons are where not everybody's path leads.
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    match directories
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
    {
        Some(file) => Command::new(file),
        None => panic!("{name} is missing: install the Debian package {package}"),
    }
}

/// What a command says that must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("it is there, so it runs");
    let [said, complained] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {complained}{said}");
    said
}

// What is compared.

/// The texts behind each `mark`.
fn split(output: &str, mark: &str) -> Vec<String> {
    output.split(mark).skip(1).map(str::to_owned).collect()
}

/// What must be the same of an answer as a client shows it: its records sorted within their section, and without what
/// may differ.
fn compared(answer: &str) -> String {
    const DIFFERENT: [&str; 13] = [
        ";; Query time",
        ";; SERVER",
        ";; WHEN",
        ";; MSG SIZE",
        ";; Truncated",
        ";; Received",
        ";; Time",
        ";; From",
        ";; TLS session",
        ";; PADDING",
        "; PAD",
        "; COOKIE",
        "; TCP KEEPALIVE",
    ];
    let mut sections = vec![Vec::new()];
    for line in answer.lines().filter(|line| !line.is_empty()) {
        if line.contains("SECTION:") {
            sections.push(Vec::new());
        }
        if !DIFFERENT.iter().any(|start| line.starts_with(start)) {
            let last = sections.last_mut().expect("there is one at least");
            last.push(without_id_and_size(line));
        }
    }
    sections.iter_mut().for_each(|section| section.sort());
    sections.concat().join("\n")
}

/// What a resolver on the way must leave as it is: the code, and the records of the answer itself but for what is left of
/// their TTLs and how names are spelled.
fn answered(answer: &str) -> String {
    let code = answer.split("status: ").nth(1).expect("a code");
    let code = code.split(',').next().unwrap_or_default();
    let records = answer.split(";; ANSWER SECTION:").nth(1);
    let records = records.and_then(|records| records.split("\n;;").next());
    format!("{code}\n{}", from_memory(records.unwrap_or_default()))
}

/// Leaves out the message ID and the UDP size from the lines that tell them.
fn without_id_and_size(line: &str) -> String {
    if !(line.contains("id: ") || line.starts_with("; EDNS:") || line.starts_with(";; Version:")) {
        return line.to_owned();
    }
    let told = ["id: ", "udp: ", "UDP size: "];
    line.split_inclusive([',', ';'])
        .filter(|field| {
            !told
                .iter()
                .any(|field_name| field.trim_start().starts_with(field_name))
        })
        .collect()
}

/// The size of an answer, which dig tells.
fn octets(answer: &str) -> usize {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "))
        .and_then(|size| size.parse().ok())
        .expect("dig tells the size")
}

fn has_flag(answer: &str, flag: &str) -> bool {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(";; flags: "))
        .and_then(|line| line.split(';').next())
        .is_some_and(|flags| flags.split(' ').any(|set| set == flag))
}
