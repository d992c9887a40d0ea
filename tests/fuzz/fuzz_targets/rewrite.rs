//! A query and an answer to it, spliced: what the client gets can be read, has its ID and question, and an OPT exactly
//! when it sent one.
#![no_main]

use dns_tool::message::{
    Answer, CachedAnswer, ExtendedError, MAX_MESSAGE_LEN, MIN_UDP_PAYLOAD, Query, ReplyOptions,
    ReplyTo, TtlRewrite, is_response_to,
};
use libfuzzer_sys::fuzz_target;

// The first two octets are the length of the query.
fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let Some((query, answer)) = rest.split_at_checked(u16::from_be_bytes(*length).into()) else {
        return;
    };
    let (Ok(query), Ok(answer)) = (Query::parse(query), Answer::parse(answer)) else {
        return;
    };
    if !is_response_to(answer.message(), query.question()) || query.is_signed() {
        return;
    }
    let asked = ReplyTo::from_query(&query);
    let shown = ReplyOptions {
        ttls: TtlRewrite::Decremented {
            max: 604_800,
            age: 7,
        },
        ede: Some(ExtendedError { code: 3, text: "" }),
    };
    let check = |out: &[u8]| {
        assert!(out.len() <= MAX_MESSAGE_LEN);
        assert_eq!(out[..2], query.message()[..2]);
        let read = Answer::parse(out).expect("the client can read it");
        assert!(is_response_to(out, query.question()));
        assert!(out[12..].starts_with(query.question()));
        // Only an answer that leaves no room for one goes without.
        assert!(
            read.edns().is_some() == query.edns().is_some() || out.len() > MAX_MESSAGE_LEN - 11
        );
    };
    let mut out = Vec::new();
    asked.write_answer(&mut out, &answer);
    check(&out);
    let mut relayed = std::mem::take(&mut out);
    asked.write_truncated(&mut out, &answer);
    check(&out);
    if let Some(key) = query.key()
        && let Some(kept) = CachedAnswer::new(&answer, &key)
    {
        out.clear();
        asked.write_answer(&mut out, &kept.answer());
        // A copy is not the authority's own word (AA).
        relayed[2] &= !0x04;
        assert_eq!(out, relayed, "kept and given again it is the same");
        // Only of what may be kept are TTLs counted down.
        out.clear();
        asked.write_answer_with(&mut out, &kept.answer(), &shown, MAX_MESSAGE_LEN);
        check(&out);
        // The client's ID is any number.
        let limit = usize::from(query.id()).max(MIN_UDP_PAYLOAD.into());
        out.clear();
        asked.write_answer_with(&mut out, &kept.answer(), &shown, limit);
        check(&out);
        assert!(out.len() <= limit);
    }
});
