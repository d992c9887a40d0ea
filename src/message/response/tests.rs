use super::{ReplyOptions, ReplyTo};
use crate::message::answer::{Answer, TtlRewrite};
use crate::message::cached_answer::CachedAnswer;
use crate::message::codes::{HEADER_LEN, MAX_MESSAGE_LEN, ede, option, rcode, rtype};
use crate::message::edns::ExtendedError;
use crate::message::key::QuestionKey;
use crate::message::octets::u16_at;
use crate::message::query::Query;
use crate::message::source::Source;
use crate::message::test_messages::{
    A, ADDITIONAL, ANSWER, AUTHORITY, Draft, NS, UNKNOWN, name, option, our_opt, pointer, question,
    question_for, relayed, written,
};

#[test]
fn an_empty_response_repeats_id_opcode_rd_cd_and_question() {
    let reply = |query: &Draft, rcode, ede| {
        let query = Query::parse(&query.0).unwrap();
        written(|out| ReplyTo::from_query(&query).write_empty_response(out, rcode, ede))
    };
    let question = question_for(name("wWw.eXample"), A);
    for (flags, echoed) in [
        ([0, 0], [0x80, 0x80]),
        ([0x01, 0x10], [0x81, 0x90]),
        ([0x07, 0xff], [0x81, 0x90]),
    ] {
        let head = [0x12, 0x34, echoed[0], echoed[1] | 2, 0, 1, 0, 0, 0, 0, 0];
        let query = Draft::new(flags, &question);
        let plain = [&head, &[0][..], &question].concat();
        // No EDE without EDNS (RFC 8914 section 2).
        let network = ExtendedError {
            code: ede::NETWORK_ERROR,
            text: "why",
        };
        for ede in [None, Some(network)] {
            assert_eq!(reply(&query, rcode::SERVFAIL, ede), plain);
        }
        let query = query.opt_with([0, 0, 0x80, 0], &[]);
        let edns = [&head, &[1][..], &question, &our_opt(0, 0x80, &[])].concat();
        assert_eq!(reply(&query, rcode::SERVFAIL, None), edns);
        let ede = our_opt(0, 0x80, &[0, 15, 0, 5, 0, 23, b'w', b'h', b'y']);
        let explained = [&head, &[1][..], &question, &ede].concat();
        let found = reply(&query, rcode::SERVFAIL, Some(network));
        assert_eq!(found, explained);
    }
    let query = Draft::query(&question).opt_with([0, 1, 0, 0], &[]);
    let found = reply(&query, rcode::BADVERS, None);
    assert_eq!(found[3], 0x80);
    assert!(found.ends_with(&our_opt(1, 0, &[])));
}

#[test]
fn a_response_to_a_malformed_message_is_a_header() {
    // UPDATE with all flags set.
    let message = [0xab, 0xcd, 0x2f, 0xff, 0, 2, 0, 3, 0, 4, 0, 5, 99];
    let asked = ReplyTo::from_malformed(&message).unwrap();
    let ede = ExtendedError {
        code: ede::NOT_SUPPORTED,
        text: "",
    };
    let reply = written(|out| asked.write_empty_response(out, rcode::NOTIMP, Some(ede)));
    assert_eq!(reply, [0xab, 0xcd, 0xa9, 0x94, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn an_answer_takes_the_id_rd_cd_and_case_of_its_query() {
    let record = |draft: Draft| draft.record(ANSWER, &pointer(HEADER_LEN), A, &[192, 0, 2, 1]);
    let mixed_case = question_for(name("wWw.eXample.Com"), A);
    for (asked, found, expected) in [
        ([0x00, 0x00], [0x81, 0x80], [0x80, 0x80]),
        ([0x01, 0x10], [0x80, 0x80], [0x81, 0x90]),
        ([0x00, 0x00], [0x81, 0x90], [0x80, 0x80]),
        // AA, TC, RA, Z and the response code are the answer's own.
        ([0x06, 0x4f], [0x86, 0xc3], [0x86, 0xc3]),
        // AD is set only if the query asks for it (RFC 6840 section 5.8).
        ([0x00, 0x20], [0x80, 0xa0], [0x80, 0xa0]),
        ([0x00, 0x20], [0x80, 0x80], [0x80, 0x80]),
        ([0x00, 0x00], [0x80, 0xa0], [0x80, 0x80]),
    ] {
        let query = Draft::new(asked, &mixed_case);
        let mut answer = record(Draft::new(found, &question()));
        answer.0[..2].copy_from_slice(&[0xff, 0xff]);
        let relayed = relayed(&query, &answer);
        assert_eq!(relayed, record(Draft::new(expected, &mixed_case)).0);
    }
    // DO asks for it as well.
    let query = Draft::query(&question()).opt_with([0, 0, 0x80, 0], &[]);
    let answer = record(Draft::new([0x81, 0xa0], &question()));
    assert_eq!(relayed(&query, &answer)[3], 0xa0);
    let query = Draft::query(&question()).opt(&[]);
    assert_eq!(relayed(&query, &answer)[3], 0x80);
}

#[test]
fn an_answer_has_an_opt_exactly_when_its_query_had_one() {
    let plain = Draft::query(&question());
    let edns = plain
        .clone()
        .opt_with([0, 0, 0x80, 0], &option(10, b"a cookie"));
    let bare = Draft::answer(&question()).record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4]);
    let with_ours = |opt: &[u8]| Draft([&bare.0, opt].concat()).count(ADDITIONAL, 1);
    assert_eq!(relayed(&plain, &bare), bare.0);
    assert_eq!(relayed(&edns, &bare), with_ours(&our_opt(0, 0x80, &[])).0);
    // Of the resolver's options only the errors go on, in their order, texts included.
    let errors = [option(15, b"\0\x03stale"), option(15, &[0, 22])];
    let options = [
        option(option::PADDING, &[0; 64]),
        errors[0].clone(),
        option(10, b"a cookie of the resolver"),
        errors[1].clone(),
        option(11, &[0, 100]),
    ];
    let answer = bare.clone().opt_with([0, 0, 0, 0], &options.concat());
    assert_eq!(relayed(&plain, &answer), bare.0);
    let ours = our_opt(0, 0x80, &errors.concat());
    assert_eq!(relayed(&edns, &answer), with_ours(&ours).0);
}

#[test]
fn an_extended_response_code_becomes_servfail_where_it_cannot_be_said() {
    let bad_cookie = Draft::new([0x81, 0x87], &question()).opt_with([1, 0, 0, 0], &[]);
    assert_eq!(Answer::parse(&bad_cookie.0).unwrap().rcode(), 23);
    let plain = Draft::query(&question());
    let failure = Draft::new([0x81, 0x82], &question());
    assert_eq!(relayed(&plain, &bad_cookie), failure.0);
    let said = [
        &Draft::new([0x81, 0x87], &question()).count(3, 1).0[..],
        &our_opt(1, 0, &[]),
    ];
    assert_eq!(relayed(&plain.opt(&[]), &bad_cookie), said.concat());
}

#[test]
fn an_error_without_its_question_gets_it_back() {
    let refusal = Draft::new([0x80, 0x05], &[]).count(0, 0);
    let plain = Draft::query(&question());
    let expected = Draft::new([0x81, 0x85], &question());
    assert_eq!(relayed(&plain, &refusal), expected.0);
    let expected = expected.octets(&our_opt(0, 0, &[])).count(ADDITIONAL, 1);
    assert_eq!(relayed(&plain.opt(&[]), &refusal), expected.0);
}

#[test]
fn an_answer_to_another_question_is_not_relayed() {
    let query = Draft::query(&question());
    let failure = Draft::new([0x81, 0x82], &question());
    for other in [
        question_for(name("www.example.org"), A),
        question_for(vec![0], A),
        question_for(name("www.example.com"), NS),
        question_for(name("a.much.longer.name.than.www.example.com"), A),
    ] {
        assert_eq!(relayed(&query, &Draft::answer(&other)), failure.0);
    }
}

#[test]
fn no_answer_grows_beyond_the_maximum_message_length() {
    let plain = Draft::query(&question());
    let edns = plain.clone().opt(&[]);
    let filled = |length: usize| {
        let draft = Draft::answer(&question());
        let data = vec![0; length - draft.len() - 11];
        draft.record(ANSWER, &[0], UNKNOWN, &data)
    };
    for (length, expected) in [
        (65_523, 65_534),
        (65_524, 65_535),
        (65_525, 65_525),
        (65_535, 65_535),
    ] {
        let answer = filled(length);
        assert_eq!(relayed(&plain, &answer), answer.0);
        let relayed = relayed(&edns, &answer);
        assert_eq!(relayed.len(), expected);
        let additional = u16::from(length != expected);
        assert_eq!(u16_at(&relayed, 10), Ok(additional));
        assert_eq!(Answer::parse(&relayed).unwrap().message(), relayed);
    }
    // An OPT that fits gives way to one that fits, errors and all.
    let error = option(15, &[0; 100]);
    let answer = filled(65_535 - 11 - error.len()).opt(&error);
    assert_eq!(relayed(&edns, &answer).len(), 65_535);
    assert!(relayed(&edns, &answer).ends_with(&error));
}

#[test]
fn a_truncated_answer_is_a_question_and_an_opt() {
    let record = |draft: Draft| draft.record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4]);
    let truncated = |query: &Draft, answer: &Draft| {
        let (query, answer) = (Query::parse(&query.0).unwrap(), Answer::parse(&answer.0));
        written(|out| ReplyTo::from_query(&query).write_truncated(out, &answer.unwrap()))
    };
    let mixed_case = question_for(name("wWw.eXample.Com"), A);
    for (asked, found, expected) in [
        ([0x01, 0x00], [0x81, 0x80], [0x83, 0x80]),
        ([0x00, 0x10], [0x81, 0x80], [0x82, 0x90]),
        ([0x01, 0x00], [0x85, 0x03], [0x87, 0x03]),
        // A truncated answer never has AD set.
        ([0x01, 0x20], [0x81, 0xb0], [0x83, 0x80]),
    ] {
        let query = Draft::new(asked, &mixed_case);
        let answer = record(Draft::new(found, &question())).opt_with([1, 0, 0, 0], &[]);
        let plain = Draft::new(expected, &mixed_case);
        assert_eq!(truncated(&query, &answer), plain.0);
        let opt = plain.octets(&our_opt(1, 0x80, &[])).count(ADDITIONAL, 1);
        let query = query.opt_with([0, 0, 0x80, 0], &[]);
        assert_eq!(truncated(&query, &answer), opt.0);
    }
}

#[test]
fn an_answer_that_does_not_fit_loses_its_errors_and_then_its_records() {
    let error = option(15, &[0; 30]);
    let ours = ExtendedError {
        code: 3,
        text: "four",
    };
    let without_opt = Draft::answer(&question()).record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4]);
    let options = [&option(option::PADDING, &[0; 500]), &error[..]].concat();
    let answer = without_opt.clone().opt(&options);
    let options_with = |ede| ReplyOptions {
        ede,
        ..ReplyOptions::default()
    };
    let (edns, plain) = (
        Draft::query(&question()).opt(&[]),
        Draft::query(&question()),
    );
    let cached = CachedAnswer::new(
        &Answer::parse(&answer.0).unwrap(),
        &QuestionKey::new(&question(), false, false),
    );
    let cached = cached.unwrap();
    for answer in [Answer::parse(&answer.0).unwrap(), cached.answer()] {
        let written = |query: &Draft, ede, limit| {
            let query = Query::parse(&query.0).unwrap();
            written(|out| {
                ReplyTo::from_query(&query).write_answer_with(
                    out,
                    &answer,
                    &options_with(ede),
                    limit,
                )
            })
        };
        let truncated = |out: &[u8]| out[2] & 0x02 != 0;
        let bare = without_opt.len() + 11;
        for (ede, errors) in [(None, error.len()), (Some(ours), error.len() + 4 + 2 + 4)] {
            let whole = written(&edns, ede, bare + errors);
            assert_eq!(whole, written(&edns, ede, MAX_MESSAGE_LEN));
            assert_eq!((whole.len(), truncated(&whole)), (bare + errors, false));
            for limit in [bare, bare + 1, bare + errors - 1] {
                let less = written(&edns, ede, limit);
                assert_eq!((less.len(), truncated(&less)), (bare, true));
                assert!(less.ends_with(&our_opt(0, 0, &[])));
                assert_eq!(u16_at(&less, 6), Ok(1), "the record is there");
            }
            let none = written(&edns, ede, bare - 1);
            assert_eq!((none.len(), truncated(&none)), (edns.len(), true));
            assert_eq!(none[4..12], [0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let whole = written(&plain, Some(ours), without_opt.len());
        assert_eq!(
            (whole.len(), truncated(&whole)),
            (without_opt.len(), false),
            "errors are nothing to who has no OPT"
        );
        let none = written(&plain, Some(ours), without_opt.len() - 1);
        assert_eq!((none.len(), truncated(&none)), (plain.len(), true));
    }
}

#[test]
fn of_a_signed_answer_only_the_id_is_changed() {
    let query = Draft::query(&question_for(name("WWW.example.com"), A)).record(3, &[0], 250, &[]);
    let mut answer = Draft::new([0x80, 0xb0], &question())
        .opt(&option(option::PADDING, &[0; 9]))
        .record(ADDITIONAL, &name("key"), rtype::TSIG, b"mac");
    answer.0[..2].copy_from_slice(&[0xff, 0xff]);
    let (asked, parsed) = (Query::parse(&query.0).unwrap(), Answer::parse(&answer.0));
    let (asked, parsed) = (ReplyTo::from_query(&asked), parsed.unwrap());
    let within = |limit| written(|out| asked.write_verbatim(out, &parsed, limit));
    let relayed = within(answer.len());
    assert_eq!(relayed[..2], [0x12, 0x34]);
    assert_eq!(relayed[2..], answer.0[2..]);
    let truncated = written(|out| asked.write_truncated(out, &parsed));
    assert_eq!(within(answer.len() - 1), truncated);
}

#[test]
fn ttls_are_rewritten_in_every_section_and_an_opt_has_none() {
    let ttls = [300_u32, 3, 0x7fff_ffff, 0x8000_0001];
    let answer = |ttls: [u32; 4], extra: &[u8]| {
        let [one, two, three, four] = ttls.map(u32::to_be_bytes);
        Draft::new([0x81, 0xa0], &question())
            .record_with(ANSWER, &pointer(HEADER_LEN), A, 1, one, &[0; 4])
            .record_with(AUTHORITY, &pointer(HEADER_LEN + 4), NS, 1, two, &[0])
            .record_with(ADDITIONAL, &[0], A, 1, three, &[0; 4])
            .record_with(ADDITIONAL, &[0], A, 1, four, &[0; 4])
            .octets(extra)
    };
    let opt = our_opt(0, 0x80, &option(15, b"\0\x03"));
    let query = Draft::new([0x01, 0x20], &question()).opt_with([0, 0, 0x80, 0], &[]);
    let asked = Query::parse(&query.0).unwrap();
    let came = answer(ttls, &[]);
    let came = Answer::parse(&came.0).unwrap();
    for (change, expected) in [
        (TtlRewrite::Unchanged, ttls),
        (
            TtlRewrite::Decremented { max: 1000, age: 2 },
            [298, 1, 998, 0],
        ),
        (TtlRewrite::Decremented { max: 9, age: 9 }, [0, 0, 0, 0]),
        (TtlRewrite::Fixed(30), [30; 4]),
    ] {
        let options = ReplyOptions {
            ttls: change,
            ede: Some(ExtendedError { code: 3, text: "" }),
        };
        let mut expected = answer(expected, &opt).count(ADDITIONAL, 3);
        if change == TtlRewrite::Fixed(30) {
            expected.0[3] &= !0x20;
        }
        let found = written(|out| {
            ReplyTo::from_query(&asked).write_answer_with(out, &came, &options, MAX_MESSAGE_LEN)
        });
        assert_eq!(found, expected.0, "{change:?}");
        // An OPT before the other records moves them, and only them.
        let middle = our_opt(0, 0, &option(option::PADDING, &[0; 30]));
        let start = came.records().nth(2).unwrap().start;
        let mut moved = came.message().to_vec();
        moved.splice(start..start, middle);
        moved[11] += 1;
        let moved = Answer::parse(&moved).unwrap();
        let found = written(|out| {
            ReplyTo::from_query(&asked).write_answer_with(out, &moved, &options, MAX_MESSAGE_LEN)
        });
        assert_eq!(found, expected.0, "{change:?}");
    }
}

#[test]
fn the_source_of_an_answer_is_named_to_who_asks_and_takes_no_room_from_the_rest() {
    const SOURCE: u16 = 65_353;
    let zone = Source::Route { zone_len: 13 };
    let (long, short) = (
        option(SOURCE, b"route example.com."),
        option(SOURCE, b"route"),
    );
    let asking = Draft::query(&question()).opt(&option(SOURCE, &[]));
    let records = Draft::answer(&question()).record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4]);
    let error = option(15, b"\0\x17why");
    let reply = |query: &Draft, answer: &Draft, source, limit| {
        let query = Query::parse(&query.0).unwrap();
        let reply_to = ReplyTo {
            source,
            ..ReplyTo::from_query(&query)
        };
        let answer = Answer::parse(&answer.0).unwrap();
        let options = ReplyOptions::default();
        written(|out| reply_to.write_answer_with(out, &answer, &options, limit))
    };
    // Not unasked, and not in the place of a value.
    for options in [
        &[][..],
        &option(SOURCE, b"x"),
        &option(65_001, &[]),
        &option(3, &[]),
    ] {
        let query = Draft::query(&question()).opt(options);
        let found = reply(&query, &records, Some(zone), MAX_MESSAGE_LEN);
        assert!(found.ends_with(&our_opt(0, 0, &[])), "{options:?}");
    }
    let plain = Draft::query(&question());
    let found = reply(&plain, &records, Some(zone), MAX_MESSAGE_LEN);
    assert_eq!(found, records.0, "no OPT without one");
    let found = reply(&asking, &records, None, MAX_MESSAGE_LEN);
    assert!(found.ends_with(&our_opt(0, 0, &[])), "it is not known");
    // A resolver that sends such an option is not relayed.
    let other = records.clone().opt(&option(SOURCE, b"elsewhere"));
    let found = reply(&asking, &other, Some(Source::Cache), MAX_MESSAGE_LEN);
    assert!(found.ends_with(&our_opt(0, 0, &option(SOURCE, b"cache"))));
    // The option is cut to the room that the rest leaves, and TC is never set for it.
    let with_error = records.clone().opt(&error);
    let padding = MIN_LIMIT - (records.len() + our_opt(0, 0, &error).len());
    for left in 0..long.len() + 2 {
        let filler = padding - left - pointer(HEADER_LEN).len() - 10;
        let full = records
            .clone()
            .record(ANSWER, &pointer(HEADER_LEN), UNKNOWN, &vec![0; filler])
            .opt(&error);
        let expected = match left {
            _ if left >= long.len() => &long[..],
            _ if left >= short.len() => &short,
            _ => &[],
        };
        let found = reply(&asking, &full, Some(zone), MIN_LIMIT);
        assert_eq!(found[2] & 0x02, 0, "{left}: not truncated");
        let options = [&error[..], expected].concat();
        assert!(found.ends_with(&our_opt(0, 0, &options)), "{left}");
        assert!(found.len() <= MIN_LIMIT);
    }
    let found = reply(&asking, &with_error, Some(zone), MIN_LIMIT);
    assert!(found.ends_with(&our_opt(0, 0, &[error, long.clone()].concat())));
    let asked = Query::parse(&asking.0).unwrap();
    let reply_to = ReplyTo {
        source: Some(zone),
        ..ReplyTo::from_query(&asked)
    };
    let empty = written(|out| reply_to.write_empty_response(out, rcode::SERVFAIL, None));
    assert!(empty.ends_with(&our_opt(0, 0, &long)));
}

/// The least that a client accepts over UDP.
const MIN_LIMIT: usize = 512;
