use super::name_end;
use crate::message::codes::HEADER_LEN;
use crate::message::parse_error::ParseError;
use crate::message::query::Query;
use crate::message::test_messages::{
    A, ANSWER, Draft, answer_error, labels, name, pointer, query_error, question_for,
};

#[test]
fn every_legal_name_is_read() {
    let long = [b'x'; 63];
    let names = [
        vec![0],
        name("example.com"),
        labels(&[&long]),
        labels(&[b"a" as &[u8]; 127]),
        labels(&[&long, &long, &long, &long[..61]]),
        labels(&[b"\0", b"\xff\x80", b".", b"\xc0\x0c", b"@ \\"]),
    ];
    for name in names {
        let question = question_for(name, 65_535);
        let draft = Draft::query(&question);
        let query = Query::parse(&draft.0).unwrap();
        assert_eq!(query.question(), question);
        assert_eq!(query.qtype(), 65_535);
        assert_eq!(query.message(), draft.0);
        let answer = Draft::answer(&question).record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4]);
        assert_eq!(answer_error(&answer), None);
    }
}

#[test]
fn a_name_beyond_255_octets_is_refused_with_and_without_compression() {
    let long = [b'x'; 63];
    let longest = labels(&[&long, &long, &long, &long[..61]]);
    for name in [
        labels(&[&long, &long, &long, &long[..62]]),
        labels(&[&long, &long, &long, &long]),
        labels(&[b"a" as &[u8]; 128]),
    ] {
        assert_eq!(
            query_error(&Draft::query(&question_for(name, A))),
            Some(ParseError::Name)
        );
    }
    let answer = Draft::answer(&question_for(longest, A));
    let with_owner = |owner: &[u8]| answer_error(&answer.clone().record(1, owner, A, &[]));
    assert_eq!(with_owner(&pointer(HEADER_LEN)), None);
    let longer = [&b"\x01a"[..], &pointer(HEADER_LEN)].concat();
    assert_eq!(with_owner(&longer), Some(ParseError::Name));
}

#[test]
fn unknown_label_types_are_refused() {
    for octet in [0x40, 0x41, 0x7f, 0x80, 0xbf] {
        for name in [vec![octet, 0, 0], vec![1, b'a', octet, 0, 0]] {
            assert_eq!(
                query_error(&Draft::query(&question_for(name, A))),
                Some(ParseError::Name)
            );
        }
    }
}

#[test]
fn a_pointer_leads_to_a_name_before_it() {
    // From octet 12: "example.com"; from 25: "www" and a pointer to it; from 31: a pointer to that; and so on.
    let front = Draft(vec![0; HEADER_LEN])
        .octets(&name("example.com"))
        .octets(b"\x03www\xc0\x0c")
        .octets(b"\xc0\x19");
    for (at, end) in [(12, 25), (20, 25), (25, 31), (29, 31), (31, 33)] {
        assert_eq!(name_end(&front.0, at), Ok(end), "at {at}");
    }
    for (tail, error) in [
        (&b"\xc0\x21"[..], ParseError::Name),    // to itself
        (b"\xc0\x22\0", ParseError::Name),       // into itself
        (b"\xc0\x23\0", ParseError::Name),       // forward
        (b"\x01a\xc0\x21", ParseError::Name),    // to the labels that it ends
        (b"\x01a\xc0\x22", ParseError::Name),    // into the labels that it ends
        (b"\xc0\x00", ParseError::Name),         // to the header
        (b"\xc0\x0b", ParseError::Name),         // to the header's last octet
        (b"\xff\xff", ParseError::Name),         // past the end
        (b"\x80\x0c", ParseError::Name),         // no pointer
        (b"\xc0", ParseError::UnexpectedEnd),    // half a pointer
        (b"", ParseError::UnexpectedEnd),        // nothing
        (b"\x03www", ParseError::UnexpectedEnd), // no end
        (b"\x04www", ParseError::UnexpectedEnd), // half a label
    ] {
        let draft = front.clone().octets(tail);
        assert_eq!(name_end(&draft.0, 33), Err(error), "{tail:?}");
    }
}

#[test]
fn the_target_of_a_pointer_ends_before_the_name_that_it_is_in() {
    // A label at 12 that covers the pointer at 14, whichever octets follow; and one whose end is that pointer.
    for octets in [&b"\x04a\xc0\x0c\0\0\0\0"[..], b"\x01a\xc0\x0c\0"] {
        let draft = Draft(vec![0; HEADER_LEN]).octets(octets);
        assert_eq!(name_end(&draft.0, 14), Err(ParseError::Name));
    }
    let sound = Draft(vec![0; HEADER_LEN]).octets(b"\x01a\0\xc0\x0c");
    assert_eq!(name_end(&sound.0, 15), Ok(17));
}

#[test]
fn a_chain_of_pointers_is_as_long_as_a_name_has_labels() {
    // Each name is a pointer to the one before it, the first one is the root.
    let mut draft = Draft(vec![0; HEADER_LEN + 1]).octets(&pointer(HEADER_LEN));
    for _ in 1..128 {
        let previous = pointer(draft.len() - 2);
        draft = draft.octets(&previous);
    }
    let at = |pointers: usize| HEADER_LEN + 1 + 2 * (pointers - 1);
    assert_eq!(name_end(&draft.0, at(127)), Ok(at(128)));
    assert_eq!(name_end(&draft.0, at(128)), Err(ParseError::Name));
}

#[test]
fn a_pointer_in_a_question_is_refused() {
    for target in [0, 11, 12, 13, 30, 0x3fff] {
        for labels in [&b""[..], b"\x01a"] {
            let name = [labels, &pointer(target), &[0; 20]].concat();
            let draft = Draft::query(&question_for(name, A));
            assert_eq!(query_error(&draft), Some(ParseError::Name), "to {target}");
        }
    }
}
