use proptest::prelude::*;

use super::*;
use crate::local::host_table::MAX_ADDRESSES;
use crate::local::hosts_file;
use crate::message::presentation::{Name, RecordLine, Type};
use crate::message::{Answer, Section, is_response_to};

const NOERROR: u16 = 0;
const NXDOMAIN: u16 = 3;

fn question(name: &str, qtype: &str) -> Vec<u8> {
    let qtype: Type = qtype.parse().expect("a type");
    name.parse::<Name>().expect("a name").question(qtype)
}

/// The response code, and the records of the sections answer and authority, written as in a zone file with single blanks.
fn answer(name: &str, qtype: &str) -> (u16, Vec<String>, Vec<String>) {
    let question = question(name, qtype);
    let message = special_reply(&question);
    let message = message.unwrap_or_else(|| panic!("{name} {qtype} is not answered"));
    sections(&question, &message)
}

/// The same of an answer to this question.
fn sections(question: &[u8], message: &[u8]) -> (u16, Vec<String>, Vec<String>) {
    assert!(is_response_to(message, question));
    assert_eq!(message[2..4], [0x84, 0x80 | message[3] & 0x0f]);
    let answer = Answer::parse(message).expect("a sound message");
    assert_eq!(answer.message().len(), message.len());
    let (mut answers, mut authority) = (Vec::new(), Vec::new());
    for record in answer.records() {
        let answer = &answer;
        let line = RecordLine {
            answer,
            record: &record,
        };
        let line = line.to_string().replace('\t', " ");
        match record.section {
            Section::Answer => answers.push(line),
            Section::Authority => authority.push(line),
            Section::Additional => panic!("{line}"),
        }
    }
    (answer.rcode(), answers, authority)
}

fn soa(apex: &str) -> String {
    format!("{apex}. 10800 IN SOA {apex}. nobody.invalid. 1 3600 1200 604800 10800")
}

/// The answer has no records, but the SOA of this name.
fn assert_negative(name: &str, qtype: &str, rcode: u16, apex: &str) {
    let expected = (rcode, Vec::new(), vec![soa(apex)]);
    assert_eq!(answer(name, qtype), expected, "{name} {qtype}");
}

fn assert_positive(name: &str, qtype: &str, records: &[&str]) {
    let records = records
        .iter()
        .map(|record| format!("{name}. 10800 IN {record}"));
    let expected = (NOERROR, records.collect(), Vec::new());
    assert_eq!(answer(name, qtype), expected, "{name} {qtype}");
}

const LOOPBACK_V6: &str =
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";

fn zones() -> Vec<String> {
    let names = "home.arpa service.arpa 10.in-addr.arpa 168.192.in-addr.arpa 0.in-addr.arpa 127.in-addr.arpa \
                 254.169.in-addr.arpa 2.0.192.in-addr.arpa 100.51.198.in-addr.arpa 113.0.203.in-addr.arpa \
                 255.255.255.255.in-addr.arpa d.f.ip6.arpa 8.e.f.ip6.arpa 9.e.f.ip6.arpa a.e.f.ip6.arpa \
                 b.e.f.ip6.arpa 8.b.d.0.1.0.0.2.ip6.arpa";
    let mut zones: Vec<_> = names.split(' ').map(str::to_owned).collect();
    zones.extend((16..=31).map(|number| format!("{number}.172.in-addr.arpa")));
    zones.extend((64..=127).map(|number| format!("{number}.100.in-addr.arpa")));
    zones.push(LOOPBACK_V6.to_owned());
    zones.push(LOOPBACK_V6.replacen('1', "0", 1));
    zones
}

#[test]
fn localhost_and_all_names_below_it_are_the_loopback_addresses() {
    for name in ["localhost", "www.localhost", "a.b.LocalHost"] {
        assert_positive(name, "A", &["A 127.0.0.1"]);
        assert_positive(name, "AAAA", &["AAAA ::1"]);
        assert_positive(name, "ANY", &["A 127.0.0.1", "AAAA ::1"]);
    }
    for qtype in ["TXT", "HTTPS", "SOA", "NS", "DS", "TYPE65280"] {
        assert_negative("localhost", qtype, NOERROR, "localhost");
        assert_negative("www.localhost", qtype, NOERROR, "localhost");
    }
}

#[test]
fn names_outside_the_dns_do_not_exist() {
    for apex in ["test", "invalid", "local", "onion", "alt", "internal"] {
        for qtype in ["A", "AAAA", "SOA", "NS", "DS", "ANY", "TYPE65280"] {
            assert_negative(apex, qtype, NXDOMAIN, apex);
            assert_negative(&format!("www.example.{apex}"), qtype, NXDOMAIN, apex);
        }
    }
}

#[test]
fn no_resolver_is_designated() {
    for name in ["resolver.arpa", "_dns.resolver.arpa", "a.b.resolver.arpa"] {
        for qtype in ["SVCB", "A", "DS"] {
            assert_negative(name, qtype, NOERROR, "resolver.arpa");
        }
    }
    assert_negative("_dns.resolver.arpa", "SOA", NOERROR, "resolver.arpa");
    let own_soa = soa("resolver.arpa");
    let own_soa = own_soa.split_once(" IN ").expect("a class").1;
    assert_positive("resolver.arpa", "SOA", &[own_soa]);
    assert_positive("resolver.arpa", "NS", &["NS resolver.arpa."]);
}

#[test]
fn each_locally_served_zone_has_soa_and_ns_at_its_apex_and_nothing_below() {
    let zones = zones();
    assert_eq!(zones.len(), 107 - 8);
    for apex in &zones {
        let own_soa = soa(apex);
        let own_soa = own_soa.split_once(" IN ").expect("a class").1;
        let ns = format!("NS {apex}.");
        assert_positive(apex, "SOA", &[own_soa]);
        assert_positive(apex, "NS", &[&ns]);
        assert_negative(apex, "A", NOERROR, apex);
        if apex != LOOPBACK_V6 {
            assert_positive(apex, "ANY", &[own_soa, &ns]);
            assert_negative(apex, "PTR", NOERROR, apex);
        }
        for qtype in ["PTR", "SOA", "ANY", "DS"] {
            assert_negative(&format!("4.3.{apex}"), qtype, NXDOMAIN, apex);
        }
    }
}

#[test]
fn the_resolver_is_asked_for_the_ds_record_of_a_zone() {
    for apex in zones() {
        assert_eq!(special_reply(&question(&apex, "DS")), None, "{apex}");
    }
}

#[test]
fn the_loopback_addresses_have_a_name() {
    assert_positive("1.0.0.127.in-addr.arpa", "PTR", &["PTR localhost."]);
    assert_positive("1.0.0.127.in-addr.arpa", "ANY", &["PTR localhost."]);
    assert_positive(LOOPBACK_V6, "PTR", &["PTR localhost."]);
    let apex = "127.in-addr.arpa";
    assert_negative("1.0.0.127.in-addr.arpa", "A", NOERROR, apex);
    // What is above a name that exists does exist.
    assert_negative("0.0.127.in-addr.arpa", "PTR", NOERROR, apex);
    assert_negative("0.127.in-addr.arpa", "PTR", NOERROR, apex);
    for other in ["1", "1.0", "2.0.0", "2.1.0.0", "x.1.0.0", "1.0.1"] {
        assert_negative(&format!("{other}.{apex}"), "PTR", NXDOMAIN, apex);
    }
}

#[test]
fn other_names_and_other_classes_are_asked_of_the_resolver() {
    for name in [".", "example.com", "xlocal", "local.example", "nas.lan"] {
        assert_eq!(special_reply(&question(name, "A")), None, "{name}");
    }
    let mut chaos = question("localhost", "A");
    let class = chaos.len() - 1;
    for value in [0, 3, 255] {
        chaos[class] = value;
        assert_eq!(special_reply(&chaos), None);
    }
    assert_eq!(special_reply(b""), None);
    assert_eq!(special_reply(b"\0\x01\0\x01"), None);
}

#[test]
fn the_longest_name_is_answered() {
    let long = "x".repeat(63);
    let name = format!("{long}.{long}.{long}.{}.local", &long[..55]);
    assert_eq!(question(&name, "A").len(), 255 + 4);
    assert_negative(&name, "A", NXDOMAIN, "local");
}

fn hosts(text: &str) -> HostTable {
    let mut table = HostTable::default();
    let mut skip = |line, cause| panic!("line {line}: {cause}");
    hosts_file::read_lines(text, &mut table, &mut skip).expect("room in the table");
    table
}

#[test]
fn a_listed_name_has_its_addresses_and_no_other_records() {
    let table = hosts(
        "192.0.2.10 NAS.lan disk.lan\n2001:db8::10 nas.lan\n192.0.2.9 nas.lan\n\
         192.0.2.1 9.2.0.192.in-addr.arpa\n",
    );
    let soa =
        |name: &str| format!("{name}. 60 IN SOA {name}. nobody.invalid. 1 3600 1200 604800 60");
    let reverse = "9.2.0.192.in-addr.arpa";
    for (name, qtype, records) in [
        ("nas.lan", "A", &["A 192.0.2.10", "A 192.0.2.9"][..]),
        ("Nas.LAN", "AAAA", &["AAAA 2001:db8::10"]),
        (
            "nas.lan",
            "ANY",
            &["A 192.0.2.10", "AAAA 2001:db8::10", "A 192.0.2.9"],
        ),
        ("disk.lan", "AAAA", &[]),
        ("10.2.0.192.in-addr.arpa", "PTR", &["PTR nas.lan."]),
        ("10.2.0.192.in-addr.arpa", "A", &[]),
        (reverse, "PTR", &["PTR nas.lan."]),
        (reverse, "ANY", &["A 192.0.2.1", "PTR nas.lan."]),
        ("nas.lan", "PTR", &[]),
        ("nas.lan", "SOA", &[]),
        ("nas.lan", "NS", &[]),
        ("nas.lan", "DS", &[]),
        ("nas.lan", "HTTPS", &[]),
        ("nas.lan", "TYPE65280", &[]),
    ] {
        let question = question(name, qtype);
        let message = host_reply(&table, &question).expect(name);
        let written = |record| format!("{name}. 60 IN {record}");
        let answers: Vec<_> = records.iter().map(written).collect();
        let authority = match records {
            [] => vec![soa(name)],
            _ => Vec::new(),
        };
        let expected = (NOERROR, answers, authority);
        assert_eq!(sections(&question, &message), expected, "{name} {qtype}");
    }
}

#[test]
fn names_that_are_not_listed_and_other_classes_get_no_reply() {
    let table = hosts("192.0.2.10 nas.lan\n");
    for name in [
        "www.nas.lan",
        "lan",
        ".",
        "localhost",
        "11.2.0.192.in-addr.arpa",
    ] {
        assert_eq!(host_reply(&table, &question(name, "A")), None, "{name}");
    }
    let mut chaos = question("nas.lan", "A");
    assert!(host_reply(&table, &chaos).is_some());
    assert_eq!(host_reply(&HostTable::default(), &chaos), None);
    let class = chaos.len() - 1;
    for value in [0, 3, 255] {
        chaos[class] = value;
        assert_eq!(host_reply(&table, &chaos), None);
    }
    assert_eq!(host_reply(&table, b""), None);
    assert_eq!(host_reply(&table, b"\0\x01\0\x01"), None);
}

#[test]
fn the_longest_listed_name_with_most_addresses_is_answered() {
    let long = "x".repeat(63);
    let name = format!("{long}.{long}.{long}.{}", &long[..61]);
    let lines = (0..MAX_ADDRESSES).map(|number| format!("2001:db8::{number:x} {name}\n"));
    let table = hosts(&lines.collect::<String>());
    for (qtype, count, negative) in [("AAAA", MAX_ADDRESSES, 0), ("A", 0, 1)] {
        let question = question(&name, qtype);
        let message = host_reply(&table, &question).expect("it is listed");
        let (rcode, answers, authority) = sections(&question, &message);
        assert_eq!(
            (rcode, answers.len(), authority.len()),
            (NOERROR, count, negative)
        );
    }
    let reverse = format!("{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(24));
    let question = question(&reverse, "PTR");
    let message = host_reply(&table, &question).expect("it has a name");
    let (_, answers, _) = sections(&question, &message);
    assert!(answers[0].ends_with(&format!("PTR {name}.")), "{answers:?}");
}

proptest! {
    #[test]
    fn any_octets_asked_of_a_table_get_a_sound_answer_or_none(
        octets in prop::collection::vec(any::<u8>(), 0..80),
        qtype: u16,
    ) {
        let table = hosts("192.0.2.10 nas.lan\n::1 nas.lan x\n");
        if let Some(message) = host_reply(&table, &octets) {
            prop_assert!(Answer::parse(&message).is_ok());
        }
        let question = "NAS.lan".parse::<Name>().expect("a name").question(Type(qtype));
        let message = host_reply(&table, &question).expect("an answer");
        prop_assert!(Answer::parse(&message).is_ok());
        prop_assert!(is_response_to(&message, &question));
        for end in 0..question.len() {
            prop_assert_eq!(host_reply(&table, &question[..end]), None);
        }
    }


    #[test]
    fn any_octets_get_a_sound_answer_or_none(
        octets in prop::collection::vec(any::<u8>(), 0..80),
        label in prop::collection::vec(any::<u8>(), 1..64),
        apex in prop::sample::select(zones()),
        qtype: u16,
    ) {
        if let Some(message) = special_reply(&octets) {
            prop_assert!(Answer::parse(&message).is_ok());
        }
        // A special-use name with a label below it, and the same cut.
        let length = u8::try_from(label.len()).expect("a short label");
        let qtype = Type(qtype);
        let name = apex.parse::<Name>().expect("a name").question(qtype);
        let question = [&[length], &label[..], &name].concat();
        let message = special_reply(&question).expect("an answer");
        prop_assert!(Answer::parse(&message).is_ok());
        prop_assert!(is_response_to(&message, &question));
        for end in 0..question.len() {
            if let Some(message) = special_reply(&question[..end]) {
                prop_assert!(Answer::parse(&message).is_ok());
            }
        }
    }
}
