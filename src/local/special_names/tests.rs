use super::*;
use crate::message::presentation::{Name, Type};

fn name(text: &str) -> Vec<u8> {
    let name: Name = text.parse().expect("a name");
    let mut question = name.question(Type(1));
    question.truncate(question.len() - 4);
    question
}

fn content(text: &str) -> Option<Content> {
    find(&name(text)).map(|found| found.content)
}

/// All special-use names, with what is at each.
fn all() -> Vec<(String, Content)> {
    let mut all = Vec::new();
    for special in &NAMES {
        match special.numbers {
            None => all.push((special.name.to_owned(), special.content)),
            Some((first, last)) => all.extend(
                (first..=last)
                    .map(|number| (format!("{number}.{}", special.name), special.content)),
            ),
        }
    }
    all
}

#[test]
fn each_name_is_found_at_and_below_it_in_either_case() {
    let all = all();
    assert_eq!(all.len(), 27 + 16 + 64);
    for (special, content) in all {
        for (text, below) in [
            (special.clone(), &b""[..]),
            (special.to_ascii_uppercase(), b""),
            (format!("www.{special}"), b"\x03www"),
            (format!("A.b.{special}"), b"\x01A\x01b"),
        ] {
            let name = name(&text);
            assert_eq!(find(&name), Some(Found { content, below }), "{text}");
        }
    }
}

#[test]
fn each_ends_with_one_of_the_last_labels_and_none_is_below_another() {
    let all = all();
    for (special, _) in &all {
        let last = special.rsplit('.').next().expect("a label");
        assert!(LAST_LABELS.contains(&last), "{special}");
        assert_eq!(*special, special.to_ascii_lowercase());
        let under = |other: &str| special.ends_with(&format!(".{other}"));
        let above = all.iter().find(|(other, _)| under(other));
        assert_eq!(above, None, "{special}");
    }
    for label in LAST_LABELS {
        let ends_so = |special: &str| special.rsplit('.').next() == Some(label);
        assert!(all.iter().any(|(special, _)| ends_so(special)), "{label}");
    }
}

#[test]
fn names_that_only_look_alike_are_not_special() {
    for (special, _) in all() {
        for text in [
            format!("x{special}"),
            format!("www.x{special}"),
            format!("{special}x"),
            format!("{special}.example"),
        ] {
            assert_eq!(content(&text), None, "{text}");
        }
    }
    for text in [
        ".",
        "com",
        "arpa",
        "in-addr.arpa",
        "ip6.arpa",
        "as112.arpa",
        "ipv4only.arpa",
        "example",
        "nas.lan",
        "172.in-addr.arpa",
        "15.172.in-addr.arpa",
        "32.172.in-addr.arpa",
        "016.172.in-addr.arpa",
        "1x.172.in-addr.arpa",
        "+16.172.in-addr.arpa",
        "272.172.in-addr.arpa",
        "63.100.in-addr.arpa",
        "128.100.in-addr.arpa",
        "16.100.in-addr.arpa",
        "192.in-addr.arpa",
        "255.in-addr.arpa",
        "1.1.1.1.in-addr.arpa",
        "f.ip6.arpa",
        "c.f.ip6.arpa",
        "c.e.f.ip6.arpa",
        "0.ip6.arpa",
        "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    ] {
        assert_eq!(content(text), None, "{text}");
    }
}

#[test]
fn a_label_that_holds_the_wire_form_of_a_name_is_not_that_name() {
    for label in [
        &b"x\x05local"[..],
        b"\x05local",
        b"\x0216\x03172\x07in-addr",
    ] {
        let length = u8::try_from(label.len()).expect("a short label");
        let whole = [&[length], label, b"\0"].concat();
        assert_eq!(find(&whole), None, "{label:?}");
        let above = [&[length], label, b"\x04arpa\0"].concat();
        assert_eq!(find(&above), None, "{label:?}");
        let below = [&[length], label, b"\x05local\0"].concat();
        assert!(find(&below).is_some(), "{label:?}");
    }
}

#[test]
fn octets_that_are_no_name_are_not_special() {
    for octets in [
        &b""[..],
        b"\0",
        b"\0\0",
        b"\x05local",
        b"local\0",
        b"\x06local\0",
        b"\x04local\0",
        b"\x05local\0\0",
        b"\xff\x05local\0",
        b"\xc0\x0c\x05local\0",
    ] {
        assert_eq!(find(octets), None, "{octets:?}");
    }
}
