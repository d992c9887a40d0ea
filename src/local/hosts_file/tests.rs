use proptest::prelude::*;

use super::*;
use crate::local::host_table::{MAX_ADDRESSES, MAX_NAMES};

/// The table of a file, and the lines that are skipped.
fn read(text: &str) -> (HostTable, Vec<(usize, String)>) {
    let (mut table, mut skipped) = (HostTable::default(), Vec::new());
    let mut skip = |line, cause: LineError| skipped.push((line, cause.to_string()));
    read_lines(text, &mut table, &mut skip).expect("room in the table");
    (table, skipped)
}

fn addresses(table: &HostTable, name: &str) -> Option<Vec<String>> {
    let name: Name = name.parse().expect(name);
    let found = table.find(name.octets())?;
    Some(found.addresses.iter().map(ToString::to_string).collect())
}

fn listed(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn a_file_lists_addresses_with_names_and_comments() {
    let (table, skipped) = read(
        "# ours\n\
         127.0.0.1\tlocalhost localhost.localdomain\r\n\
         \n   \t\n\
         \x20 192.0.2.10   NAS.lan. nas my_host-1.lan#the disk\n\
         2001:db8::10 nas.lan # again\n\
         ::ffff:192.0.2.11 mapped.lan\n\
         0.0.0.0 ads.example\n\
         :: ads.example\n\
         0.0.0.0 0.0.0.0\n\
         192.0.2.12 last",
    );
    assert_eq!(skipped, []);
    for (name, expected) in [
        ("localhost", &["127.0.0.1"][..]),
        ("localhost.localdomain", &["127.0.0.1"]),
        ("nas.lan", &["192.0.2.10", "2001:db8::10"]),
        ("nas", &["192.0.2.10"]),
        ("my_host-1.lan", &["192.0.2.10"]),
        ("mapped.lan", &["::ffff:192.0.2.11"]),
        ("ads.example", &["0.0.0.0", "::"]),
        ("last", &["192.0.2.12"]),
    ] {
        assert_eq!(addresses(&table, name), listed(expected), "{name}");
    }
    assert_eq!(table.len(), 9);
}

#[test]
fn a_broken_line_is_skipped_and_the_others_hold() {
    let long = format!("{}.lan", "x".repeat(64));
    let longest = [
        "x".repeat(63),
        "x".repeat(63),
        "x".repeat(63),
        "x".repeat(62),
    ]
    .join(".");
    let endless = "y".repeat(100_000);
    for (line, cause) in [
        ("nas.lan", "\"nas.lan\": expected an address"),
        ("nas.lan 192.0.2.1", "\"nas.lan\": expected an address"),
        ("192.0.2 nas.lan", "\"192.0.2\": expected an address"),
        ("192.0.2.01 nas.lan", "\"192.0.2.01\": expected an address"),
        ("192.0.2.1:53 nas.lan", "\"192.0.2.1:53\": expected"),
        ("[::1] nas.lan", "\"[::1]\": expected an address"),
        ("nas%eth0 nas.lan", "\"nas%eth0\": expected an address such"),
        (
            "fe80::1%eth0 nas.lan",
            "\"fe80::1%eth0\": expected an address without a zone",
        ),
        ("192.0.2.1", "expected a name after the address"),
        ("192.0.2.1 # nas.lan", "expected a name after the address"),
        (
            "192.0.2.1 nas..lan",
            "\"nas..lan\": an empty label; expected",
        ),
        ("192.0.2.1 .lan", "\".lan\": an empty label"),
        ("192.0.2.1 .", "\".\": an empty label"),
        ("192.0.2.1 ..", "\"..\": an empty label"),
        ("192.0.2.1 *.lan", "\"*.lan\": expected a name of letters"),
        ("192.0.2.1 a\\.lan", "expected a name of letters"),
        ("192.0.2.1 bücher.lan", "expected a name of letters"),
        ("192.0.2.1 nas.lan a/b", "\"a/b\": expected a name of"),
        (
            &format!("192.0.2.1 {long}"),
            "a label of more than 63 octets",
        ),
        (&format!("192.0.2.1 {longest}"), "more than 255 octets"),
        (&endless, "yyy\": expected an address"),
    ] {
        let (table, skipped) = read(&format!("::1 a.lan\n{line}\n::2 b.lan\n"));
        let [(2, message)] = &skipped[..] else {
            panic!("{line}: {skipped:?}");
        };
        assert!(message.contains(cause), "{line}: {message}");
        assert!(message.len() < 300, "{message}");
        assert_eq!(table.len(), 2, "nothing of {line}");
        assert_eq!(addresses(&table, "a.lan"), listed(&["::1"]));
        assert_eq!(addresses(&table, "b.lan"), listed(&["::2"]));
    }
}

#[test]
fn a_name_with_too_many_addresses_keeps_the_first_ones() {
    let line = |number: usize| format!("192.0.2.{number} many.lan m{number}.lan\n");
    let text: String = (0..MAX_ADDRESSES + 1).map(line).collect();
    let (table, skipped) = read(&text);
    let [(line, cause)] = &skipped[..] else {
        panic!("{skipped:?}");
    };
    assert_eq!(*line, MAX_ADDRESSES + 1);
    assert_eq!(
        cause,
        "\"many.lan\": expected at most 128 addresses of one name"
    );
    let found = addresses(&table, "many.lan").expect("it is listed");
    assert_eq!(found.len(), MAX_ADDRESSES);
    let other = format!("m{MAX_ADDRESSES}.lan");
    assert!(addresses(&table, &other).is_some(), "the line's other name");
}

#[test]
fn too_many_names_are_an_error() {
    let mut table = HostTable::default();
    let mut skip = |line, cause| panic!("line {line}: {cause}");
    let text = "::1 a\n".repeat(MAX_NAMES);
    assert_eq!(read_lines(&text, &mut table, &mut skip), Ok(()));
    let more = read_lines("# of another file\n::1 a\n", &mut table, &mut skip);
    let error = more.expect_err("one name too many");
    assert_eq!(
        error.to_string(),
        "expected at most 65536 names with 4194304 octets in all files together"
    );
}

proptest! {
    #[test]
    fn any_text_is_read_and_each_line_at_most_skipped_once(
        text in "([0-9a-f.:%# \t\r\n*_-]|\\PC){0,200}",
    ) {
        let (table, skipped) = read(&text);
        let lines: Vec<_> = text.lines().collect();
        let is_meant = |line: &&&str| !line.split('#').next().unwrap_or("").trim_ascii().is_empty();
        prop_assert!(skipped.len() <= lines.iter().filter(is_meant).count());
        prop_assert!(skipped.is_sorted_by(|one, next| one.0 < next.0));
        for (line, cause) in &skipped {
            prop_assert!((1..=lines.len()).contains(line));
            prop_assert_eq!(cause.lines().count(), 1);
        }
        prop_assert!(table.len() <= text.len());
    }

    #[test]
    fn what_is_written_is_read(
        lines in prop::collection::vec(
            (any::<IpAddr>(), prop::collection::vec("[a-z0-9_-]{1,8}(\\.[a-z]{1,3}){0,2}", 1..4)),
            0..20,
        ),
        blanks in "[ \t]{1,3}",
        end in "(\\.|)[ \t]*(#.{0,9}|)",
    ) {
        let (mut text, mut expected) = (String::new(), Vec::<(&str, Vec<String>)>::new());
        for (address, names) in &lines {
            text.push_str(&format!("{address}{blanks}{}{end}\n", names.join(&blanks)));
            for name in names {
                let of_name = expected.iter_mut().find(|(known, _)| known == name);
                match of_name {
                    Some((_, known)) if known.contains(&address.to_string()) => {}
                    Some((_, known)) => known.push(address.to_string()),
                    None => expected.push((name, vec![address.to_string()])),
                }
            }
        }
        let (table, skipped) = read(&text);
        prop_assert_eq!(skipped, []);
        prop_assert_eq!(table.len(), expected.len());
        for (name, known) in expected {
            prop_assert_eq!(addresses(&table, name), Some(known));
        }
    }
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let mut table = HostTable::default();
    let skipped = &mut |number, _| panic!("line {number} is sound");
    read_lines("\u{feff}192.0.2.1 a.example\n", &mut table, skipped).expect("it fits");
    assert_eq!(table.len(), 1);
}
