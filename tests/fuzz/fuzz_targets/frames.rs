//! A stream cut into arbitrary pieces: the messages in it are the same however it was cut, and memory grows with what
//! has come, not with what is announced.
#![no_main]

use dns_tool::message::framing::{FrameBuffer, append};
use libfuzzer_sys::fuzz_target;

// The first octet says how many say where to cut.
fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else {
        return;
    };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(*count)) else {
        return;
    };
    // The messages as they are seen at once.
    let (mut expected, mut rest) = (Vec::new(), stream);
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some((message, tail)) = tail.split_at_checked(length) else {
            break;
        };
        expected.push(message.to_vec());
        rest = tail;
    }
    let mut frames = FrameBuffer::with_capacity(16);
    let (mut found, mut unread, mut cuts) = (Vec::new(), stream, cuts.iter().cycle());
    while !unread.is_empty() {
        let piece = usize::from(cuts.next().copied().unwrap_or(255)).clamp(1, unread.len());
        let mut taken = 0;
        frames
            .fill(|room| {
                assert!(!room.is_empty(), "there is always room for more");
                taken = piece.min(room.len());
                room[..taken].copy_from_slice(&unread[..taken]);
                Ok(taken)
            })
            .expect("nothing fails");
        unread = &unread[taken..];
        while let Some(range) = frames.next_message() {
            found.push(frames.message(range).to_vec());
        }
    }
    assert_eq!(found, expected);
    assert_eq!(frames.has_partial_message(), !rest.is_empty());
    let mut again = Vec::new();
    for message in &found {
        append(&mut again, |out| out.extend_from_slice(message));
    }
    assert!(stream.starts_with(&again));
});
