use super::*;
use crate::message::presentation::Name;

fn wire(name: &str) -> Vec<u8> {
    name.parse::<Name>().expect(name).octets().to_vec()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn table(lines: &[(&str, &str)]) -> HostTable {
    let mut table = HostTable::default();
    for (address, name) in lines {
        table.add(ip(address), &wire(name)).expect(name);
    }
    table
}

fn addresses(table: &HostTable, name: &str) -> Option<Vec<String>> {
    let found = table.find(&wire(name))?;
    Some(found.addresses.iter().map(ToString::to_string).collect())
}

fn pointer(table: &HostTable, name: &str) -> Option<Vec<u8>> {
    table.find(&wire(name))?.pointer.map(<[u8]>::to_vec)
}

#[test]
fn a_name_has_the_addresses_of_all_its_lines_in_order_and_once() {
    let table = table(&[
        ("192.0.2.2", "nas.lan"),
        ("2001:db8::1", "nas.lan"),
        ("192.0.2.1", "NAS.lan"),
        ("192.0.2.2", "nas.LAN"),
    ]);
    let expected = ["192.0.2.2", "2001:db8::1", "192.0.2.1"];
    for name in ["nas.lan", "NAS.LAN", "nAs.lan."] {
        let found = addresses(&table, name).expect(name);
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn neither_names_below_nor_names_above_are_listed() {
    let table = table(&[("192.0.2.1", "nas.lan")]);
    for name in [
        "www.nas.lan",
        "lan",
        ".",
        "xnas.lan",
        "nas.lan.example",
        "nas",
    ] {
        assert_eq!(table.find(&wire(name)), None, "{name}");
    }
    // A label that only looks like two.
    assert_eq!(table.find(b"\x07nas\x03lan\0"), None);
    assert_eq!(table.find(b"\x03nas\x03lan"), None, "cut");
    assert_eq!(table.find(&[b'x'; 300]), None, "longer than a name");
    assert_eq!(HostTable::default().find(&wire("nas.lan")), None);
}

#[test]
fn an_address_has_the_first_name_of_its_first_line() {
    let table = table(&[
        ("192.0.2.10", "First.lan"),
        ("192.0.2.10", "second.lan"),
        ("192.0.2.11", "first.lan"),
        ("2001:db8::ab", "six.lan"),
        ("192.0.2.10", "third.lan"),
    ]);
    let first = Some(wire("first.lan"));
    assert_eq!(pointer(&table, "10.2.0.192.in-addr.arpa"), first);
    assert_eq!(pointer(&table, "11.2.0.192.IN-ADDR.arpa"), first);
    let zeros = "0.".repeat(22);
    let reverse = format!("b.a.0.0.{}8.b.d.0.1.0.0.2.ip6.arpa", &zeros[..40]);
    assert_eq!(pointer(&table, &reverse), Some(wire("six.lan")));
    let upper = reverse.to_ascii_uppercase();
    assert_eq!(pointer(&table, &upper), Some(wire("six.lan")));
    assert_eq!(addresses(&table, &reverse), Some(Vec::new()));
}

#[test]
fn only_whole_reverse_names_are_addresses() {
    let table = table(&[("192.0.2.10", "nas.lan"), ("::", "zero.lan")]);
    let zeros = "0.".repeat(32);
    assert!(pointer(&table, &format!("{zeros}ip6.arpa")).is_some());
    for name in [
        "2.0.192.in-addr.arpa",
        "9.10.2.0.192.in-addr.arpa",
        "010.2.0.192.in-addr.arpa",
        "266.2.0.192.in-addr.arpa",
        "x.2.0.192.in-addr.arpa",
        "10.2.0.192.in-addr.arpa.example",
        "10.2.0.192.ip6.arpa",
        "in-addr.arpa",
        "ip6.arpa",
        &format!("{}ip6.arpa", &zeros[2..]),
        &format!("0.{zeros}ip6.arpa"),
        &format!("00.{}ip6.arpa", &zeros[4..]),
        &format!("g.{}ip6.arpa", &zeros[2..]),
    ] {
        assert_eq!(table.find(&wire(name)), None, "{name}");
    }
    // The final labels within one label.
    assert_eq!(
        table.find(b"\x0110\x012\x010\x03192\x07in-addr\x04arpa\0"),
        None
    );
}

#[test]
fn a_name_may_be_a_reverse_name_and_have_addresses() {
    let table = table(&[
        ("192.0.2.10", "nas.lan"),
        ("192.0.2.1", "10.2.0.192.in-addr.arpa"),
    ]);
    let name = "10.2.0.192.in-addr.arpa";
    assert_eq!(addresses(&table, name), Some(vec!["192.0.2.1".to_owned()]));
    assert_eq!(pointer(&table, name), Some(wire("nas.lan")));
}

#[test]
fn a_table_takes_so_many_names_addresses_and_octets_and_no_more() {
    let mut table = HostTable::default();
    for number in 0..MAX_NAMES as u32 {
        let name = wire(&format!("n{number}.lan"));
        let address = Ipv4Addr::from_bits(number).into();
        assert_eq!(table.add(address, &name), Ok(()));
    }
    let full = table.clone();
    let name = wire("n0.lan");
    assert_eq!(table.add(ip("0.0.0.0"), &name), Err(TableError::Full));
    assert_eq!((table.len(), &table), (MAX_NAMES, &full));

    let mut table = HostTable::default();
    for number in 0..MAX_ADDRESSES as u32 {
        let address = Ipv4Addr::from_bits(number).into();
        assert_eq!(table.add(address, &name), Ok(()));
    }
    let full = table.clone();
    assert_eq!(table.add(ip("::1"), &name), Err(TableError::Addresses));
    assert_eq!(table, full, "the address has no name either");
    assert_eq!(table.add(ip("0.0.0.7"), &name), Ok(()), "it has that one");

    let mut table = HostTable::default();
    let long = ["x".repeat(63), "y".repeat(63), "z".repeat(63)].join(".");
    let added = (0..).find(|number| {
        let name = wire(&format!("{number:0>61}.{long}"));
        table.add(ip("0.0.0.0"), &name) == Err(TableError::Full)
    });
    assert_eq!(added, Some(MAX_NAME_OCTETS / MAX_NAME_LEN));
}
