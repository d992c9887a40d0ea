//! A hosts file: each line is read, or skipped with a cause of one line; and octets in place of a question get no answer, or one
//! that can be parsed.
#![no_main]

use dns_tool::local::host_reply;
use dns_tool::local::host_table::{HostTable, MAX_NAMES};
use dns_tool::local::hosts_file::{LineError, read_lines};
use dns_tool::message::Answer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (mut table, mut last) = (HostTable::default(), 0);
    let mut skip = |line: usize, cause: LineError| {
        assert!(line > last, "each line once");
        last = line;
        assert_eq!(cause.to_string().lines().count(), 1, "{cause}");
    };
    let read = read_lines(text, &mut table, &mut skip);
    assert!(last <= text.lines().count());
    assert!(table.len() <= MAX_NAMES);
    assert!(read.is_ok() || text.len() > MAX_NAMES);
    for octets in text.split('\n') {
        if let Some(message) = host_reply(&table, octets.as_bytes()) {
            assert!(Answer::parse(&message).is_ok());
        }
    }
});
