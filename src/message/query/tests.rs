use super::{MAX_QUERY_RECORDS, Query};
use crate::message::answer::Answer;
use crate::message::codes::{HEADER_LEN, option, rtype};
use crate::message::parse_error::ParseError;
use crate::message::response::ReplyTo;
use crate::message::test_messages::{
    A, ADDITIONAL, ANSWER, AUTHORITY, Draft, UNKNOWN, answer_error, name, option, our_opt, pointer,
    query_error, question, question_for, relayed,
};

#[test]
fn every_prefix_of_a_query_is_too_short_or_ends_unexpectedly() {
    let owner = name("example.com");
    let draft = Draft::query(&question())
        .record(ADDITIONAL, &owner, UNKNOWN, b"data")
        .opt(&option(option::PADDING, b"padding"));
    assert_eq!(query_error(&draft), None);
    for length in 0..draft.len() {
        let error = if length < HEADER_LEN {
            ParseError::TooShort
        } else {
            ParseError::UnexpectedEnd
        };
        assert_eq!(
            Query::parse(&draft.0[..length]).err(),
            Some(error),
            "{length}"
        );
        if length < HEADER_LEN {
            assert!(ReplyTo::from_malformed(&draft.0[..length]).is_none());
            assert_eq!(
                Answer::parse(&draft.0[..length]).err(),
                Some(ParseError::TooShort)
            );
        }
    }
}

#[test]
fn a_query_has_one_question() {
    for count in [0, 2, 65_535] {
        // A second question is there to be read, and is not read.
        let draft = Draft::query(&question())
            .octets(&question())
            .count(0, count);
        assert_eq!(query_error(&draft), Some(ParseError::QuestionCount(count)));
    }
    let two = Draft::answer(&question()).octets(&question()).count(0, 2);
    assert_eq!(answer_error(&two), Some(ParseError::QuestionCount(2)));
}

#[test]
fn a_query_has_no_records_but_additional_ones() {
    let query = Draft::query(&question());
    for section in [ANSWER, AUTHORITY] {
        for count in [1, 65_535] {
            let promised = query.clone().count(section, count);
            assert_eq!(query_error(&promised), Some(ParseError::UnexpectedRecords));
        }
        let given = query.clone().record(section, &[0], A, &[0; 4]);
        assert_eq!(query_error(&given), Some(ParseError::UnexpectedRecords));
    }
    let additional = query.record(ADDITIONAL, &[0], A, &[0; 4]);
    assert_eq!(query_error(&additional), None);
    // Promised, but not there.
    assert_eq!(
        query_error(&additional.count(ADDITIONAL, 2)),
        Some(ParseError::UnexpectedEnd)
    );
}

#[test]
fn an_ixfr_has_the_zone_that_is_known_in_its_authority_section() {
    let question = question_for(name("example.com"), rtype::IXFR);
    let soa = [&[0, 0][..], &[0; 20]].concat();
    let draft = Draft::query(&question).record(AUTHORITY, &pointer(HEADER_LEN), 6, &soa);
    let query = Query::parse(&draft.0).unwrap();
    assert_eq!(query.qtype(), rtype::IXFR);
    assert_eq!(query.message(), draft.0);
}

#[test]
fn type_and_class_are_the_last_fields_of_the_question() {
    for (qtype, qclass) in [(1, 1), (16, 3), (255, 255), (0x0102, 0x0304)] {
        let mut question = name("www.example.com");
        question.extend_from_slice(&[u16::to_be_bytes(qtype), u16::to_be_bytes(qclass)].concat());
        let draft = Draft::query(&question).opt(&[]);
        let query = Query::parse(&draft.0).unwrap();
        assert_eq!((query.qtype(), query.qclass()), (qtype, qclass));
    }
}

#[test]
fn opcodes_other_than_query_are_refused() {
    for opcode in 0..16 {
        let draft = Draft::new([opcode << 3 | 0x07, 0xff], &question());
        let error = (opcode != 0).then_some(ParseError::Opcode(opcode));
        assert_eq!(query_error(&draft), error);
        // A response is never answered, so that no two forwarders answer each other for ever.
        let response = Draft::new([0x80 | opcode << 3, 0], &question());
        assert_eq!(query_error(&response), Some(ParseError::UnexpectedQr));
    }
    assert_eq!(
        answer_error(&Draft::query(&question())),
        Some(ParseError::UnexpectedQr)
    );
}

#[test]
fn a_query_with_too_many_records_is_refused() {
    let with = |count: u32| {
        let mut draft = Draft::query(&question());
        for _ in 0..count {
            draft = draft.record(ADDITIONAL, &[0], UNKNOWN, &[]);
        }
        draft.0
    };
    assert!(Query::parse(&with(MAX_QUERY_RECORDS)).is_ok());
    let error = Query::parse(&with(MAX_QUERY_RECORDS + 1)).err();
    assert_eq!(
        error,
        Some(ParseError::TooManyRecords(MAX_QUERY_RECORDS + 1))
    );
}

#[test]
fn a_signature_is_the_last_record() {
    let query = Draft::query(&question());
    let key = name("key");
    let signed = |draft: &Draft| Query::parse(&draft.0).map(|query| query.is_signed());
    assert_eq!(signed(&query), Ok(false));
    // TSIG; SIG(0), which covers no type; and a SIG that covers one, as a record like others.
    for (rtype, data, signs) in [
        (rtype::TSIG, &b"\0\x01"[..], true),
        (rtype::SIG, &[0, 0, 1, 2], true),
        (rtype::SIG, &[0, 1, 1, 2], false),
        (rtype::SIG, &[0], false),
        (rtype::SIG, &[], false),
        (UNKNOWN, &[0, 0], false),
    ] {
        let last = query.clone().opt(&[]).record(3, &key, rtype, data);
        assert_eq!(signed(&last), Ok(signs), "{rtype} {data:?}");
        let then = last.record(ADDITIONAL, &key, UNKNOWN, &[]);
        let after = if signs {
            Err(ParseError::SignatureNotLast)
        } else {
            Ok(false)
        };
        assert_eq!(signed(&then), after, "{rtype} {data:?}");
    }
}

#[test]
fn octets_after_the_last_record_are_left_out() {
    let query = Draft::query(&question());
    for draft in [
        query.clone(),
        query.clone().opt(&[]),
        query.opt(b"\0\x0c\0\0"),
    ] {
        let longer = draft.clone().octets(b"and more");
        assert_eq!(Query::parse(&longer.0).unwrap().message(), draft.0);
    }
    let answer = Draft::answer(&question()).record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4]);
    let longer = answer.clone().octets(b"and more");
    assert_eq!(Answer::parse(&longer.0).unwrap().message(), answer.0);
    let expected = [&answer.0, &our_opt(0, 0, &[])[..]].concat();
    let edns = Draft::query(&question()).opt(&[]);
    assert_eq!(
        relayed(&edns, &longer),
        Draft(expected).count(ADDITIONAL, 1).0
    );
}

#[test]
fn a_query_has_a_key_when_it_can_share_an_answer() {
    let key = |draft: &Draft| Query::parse(&draft.0).unwrap().key();
    for qtype in [1, 40, 42, 46, 127, 255, 256, 65_280, 65_535] {
        let query = Draft::query(&question_for(name("a.b"), qtype));
        let key = key(&query).unwrap();
        assert!(!key.dnssec_ok(), "type {qtype}");
        assert_eq!(key.question(), question_for(name("a.b"), qtype));
    }
    for qtype in [0, 41, 128, 249, 250, 254] {
        let query = Draft::query(&question_for(name("a.b"), qtype));
        assert!(key(&query).is_none(), "type {qtype}");
    }
    let secure = Draft::query(&question()).opt_with([0, 0, 0x80, 0], &[]);
    assert!(key(&secure).unwrap().dnssec_ok());
    let private = Draft::query(&question()).opt(&option(8, &[0, 1, 0, 0]));
    assert_ne!(
        key(&private).unwrap().bits(),
        key(&Draft::query(&question())).unwrap().bits()
    );
    let unchecked = Draft::new([0x01, 0x10], &question());
    assert_ne!(
        key(&unchecked).unwrap().bits(),
        key(&secure).unwrap().bits()
    );
    let local = Draft::new([0x00, 0], &question());
    assert!(key(&local).is_none(), "RD=0 asks for what the resolver has");
    let signed = Draft::query(&question()).record(ADDITIONAL, &[0], rtype::TSIG, &[]);
    assert!(key(&signed).is_none());
}
