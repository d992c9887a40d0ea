//! A resolver's message, from the session to the cache to a client, or to somebody who reads it: whatever it says, nothing
//! is served that was not sound, or beyond its time, and each record is spelled in one clean line.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use dns_tool::client::reply_batch::ReplyBatch;
use dns_tool::config::command_line::{self, Command};
use dns_tool::forward::completion::QueryCompleter;
use dns_tool::forward::in_flight::Query;
use dns_tool::message::presentation::RecordLine;
use dns_tool::message::{self, Answer};
use dns_tool::system::memory::Memory;
use dns_tool::upstream::{Failure, Completer};
use libfuzzer_sys::fuzz_target;

static COMPLETER: LazyLock<(QueryCompleter, Instant)> = LazyLock::new(|| {
    let options = ["--cache-size", "1048576", "--serve-stale", "100"];
    let Ok(Command::Serve(config)) = command_line::parse(options) else {
        panic!("these are options");
    };
    let now = Instant::now();
    let memory = Memory::new(config.memory);
    (
        QueryCompleter::new(config.forwarder.cache, &memory, now),
        now,
    )
});

// The first two octets say when.
fuzz_target!(|input: &[u8]| {
    let Some((later, message)) = input.split_first_chunk::<2>() else {
        return;
    };
    let later = u16::from_be_bytes(*later);
    let (completer, start) = &*COMPLETER;
    let now = *start + Duration::from_secs(later.into());
    let Ok(answer) = Answer::parse(message) else {
        return;
    };
    assert!(message.starts_with(answer.message()));
    assert!(message::addresses(&answer).count() <= message.len() / 4);
    for record in answer.records() {
        let line = RecordLine {
            answer: &answer,
            record: &record,
        }
        .to_string();
        let is_clean = |octet: u8| octet == b'\t' || (b' '..=b'~').contains(&octet);
        assert!(line.bytes().all(is_clean) && line.matches('\t').count() == 4);
    }
    // The query that it answers: its own question, if it has one.
    let question = match answer.qtype() {
        Some(_) => {
            let end = 12
                + message[12..]
                    .iter()
                    .position(|octet| *octet == 0)
                    .expect("a root")
                + 5;
            &message[12..end]
        }
        None => b"\x01a\0\0\x01\0\x01",
    };
    let query = [b"\0\0\x01\0\0\x01\0\0\0\0\0\0", question].concat();
    let Ok(query) = message::Query::parse(&query) else {
        return;
    };
    let asked = Query::new(&query, query.key().as_ref(), now, Duration::from_secs(3));
    let mut replies = ReplyBatch::default();
    if message::is_response_to(message, question) {
        completer.complete(&asked, Ok(&answer), now, &mut replies);
    } else {
        completer.complete(&asked, Err(Failure::MalformedResponse), now, &mut replies);
    }
    let Some(key) = query.key() else { return };
    if let Some(hit) = completer.cache().servable(&key, now) {
        let mut out = Vec::new();
        message::ReplyTo::from_query(&query).write_answer_with(
            &mut out,
            &hit.answer(),
            hit.reply_options(),
            message::MAX_MESSAGE_LEN,
        );
        let shown = Answer::parse(&out).expect("what is served can be read");
        for record in shown
            .records()
            .filter(|record| record.rtype != message::rtype::OPT)
        {
            assert!((1..=604_800).contains(&shown.ttl(&record)));
        }
    }
    assert!(completer.cache().octets() <= 1 << 20);
});
