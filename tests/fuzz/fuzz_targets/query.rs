//! A stranger's message, as it comes off the network: whatever it says, it is refused or answered, and what goes to the
//! resolver can be read there.
#![no_main]

use dns_tool::message::{Query, ReplyTo, rcode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let mut out = Vec::new();
    match Query::parse(message) {
        Ok(query) => {
            assert!(message.starts_with(query.message()));
            if let Some(key) = query.key() {
                assert!(key.question().eq_ignore_ascii_case(query.question()));
            }
            ReplyTo::from_query(&query).write_empty_response(&mut out, rcode::SERVFAIL, None);
            assert_eq!(out[..2], message[..2]);
            assert!(out.len() <= message.len(), "no larger than what it answers");
            if !query.is_signed() {
                let mut sent = Vec::new();
                query.write_upstream_query(&mut sent);
                assert_eq!(sent.len() % 128, 0);
                let again = Query::parse(&sent).expect("the resolver can read it");
                assert_eq!(again.question(), query.question());
                assert!(again.edns().is_some());
            }
        }
        Err(_) => {
            if let Some(asked) = ReplyTo::from_malformed(message) {
                asked.write_empty_response(&mut out, rcode::FORMERR, None);
                assert!(out.len() <= message.len());
            }
        }
    }
});
