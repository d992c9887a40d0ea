//! Where does a message end in a stream?
//!
//! Over TCP and TLS each message goes behind its length in two octets (RFC 1035 section 4.2.2, RFC 7858 section 3.3).

use std::io;
use std::ops::Range;

use super::codes::MAX_MESSAGE_LEN;

/// Octets of the length before each message.
pub const LENGTH_PREFIX_LEN: usize = 2;

/// Appends one message with its length before it; `write` appends the message, at most 65,535 octets.
pub fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_PREFIX_LEN]);
    write(out);
    if let Some((prefix, message)) = out
        .get_mut(start..)
        .and_then(<[u8]>::split_first_chunk_mut::<LENGTH_PREFIX_LEN>)
    {
        debug_assert!(message.len() <= MAX_MESSAGE_LEN);
        *prefix = (message.len() as u16).to_be_bytes();
    }
}

/// The octets of a stream that were read and not yet used, cut into messages.
///
/// It grows with what has arrived, never with what a length announces. For a reader that takes out all messages before it
/// fills in more, it never grows beyond one longest message.
#[derive(Debug)]
pub struct Frames {
    octets: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// An empty stream with room for `capacity` octets before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            octets: vec![0; capacity],
            start: 0,
            end: 0,
        }
    }

    /// Lets `read` put what has arrived behind the rest; returns how many octets that were.
    ///
    /// Messages that [`Frames::next_message`] found before are gone after this call.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.make_room();
        let arrived = read(self.octets.get_mut(self.end..).unwrap_or_default())?;
        self.end = self.end.saturating_add(arrived).min(self.octets.len());
        Ok(arrived)
    }

    /// The next whole message, as a range for [`Frames::message`]; none until more arrives.
    pub fn next_message(&mut self) -> Option<Range<usize>> {
        let rest = self.octets.get(self.start..self.end)?;
        let (prefix, rest) = rest.split_first_chunk::<LENGTH_PREFIX_LEN>()?;
        let length = usize::from(u16::from_be_bytes(*prefix));
        if rest.len() < length {
            return None;
        }
        let begin = self.start.saturating_add(LENGTH_PREFIX_LEN);
        self.start = begin.saturating_add(length);
        Some(begin..self.start)
    }

    /// The octets of a message that [`Frames::next_message`] found since the last [`Frames::fill`].
    pub fn message(&self, range: Range<usize>) -> &[u8] {
        self.octets.get(range).unwrap_or_default()
    }

    /// By how many octets the next [`Frames::fill`] makes its memory larger; mostly none.
    pub fn growth(&self) -> usize {
        // One that begins in the middle is moved to the front instead.
        if self.start == 0 && self.end == self.octets.len() {
            self.larger().saturating_sub(self.octets.len())
        } else {
            0
        }
    }

    /// Gives memory back beyond so many octets, if nothing has begun that has not ended.
    pub fn shrink_to(&mut self, capacity: usize) {
        if self.start == self.end && self.octets.len() > capacity {
            *self = Self::with_capacity(capacity);
        }
    }

    /// Whether a message has begun and not ended.
    pub fn is_amid_message(&self) -> bool {
        self.start < self.end
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end > self.octets.len() / 2 && self.start > 0 {
            self.octets.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end.saturating_sub(self.start));
        }
        if self.end == self.octets.len() {
            let room = self.larger();
            self.octets
                .reserve_exact(room.saturating_sub(self.octets.len()));
            self.octets.resize(room, 0);
        }
    }

    /// The next size of its memory: twice as much, but no more than one longest message needs.
    fn larger(&self) -> usize {
        let longest = LENGTH_PREFIX_LEN + MAX_MESSAGE_LEN;
        let doubled = self.octets.len().saturating_mul(2).max(64);
        if self.octets.len() < longest {
            doubled.min(longest)
        } else {
            doubled
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(frames: &mut Frames, octets: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = octets;
        let mut messages = Vec::new();
        while !rest.is_empty() {
            frames
                .fill(|room| io::Read::read(&mut rest, room))
                .expect("reading from memory");
            while let Some(range) = frames.next_message() {
                messages.push(frames.message(range).to_vec());
            }
        }
        messages
    }

    fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for message in messages {
            append(&mut out, |out| out.extend_from_slice(message));
        }
        out
    }

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let messages = vec![
            vec![1; 3],
            vec![],
            vec![2; 300],
            vec![3; MAX_MESSAGE_LEN],
            vec![4; 1],
        ];
        let stream = framed(&messages);
        for piece in [1, 2, 3, 7, 64, 1000, 70_000] {
            let mut frames = Frames::with_capacity(16);
            let mut found = Vec::new();
            for octets in stream.chunks(piece) {
                found.extend(feed(&mut frames, octets));
            }
            assert_eq!(found, messages, "in pieces of {piece}");
            assert!(!frames.is_amid_message());
        }
    }

    #[test]
    fn an_unfinished_message_is_not_given_out() {
        let mut frames = Frames::with_capacity(16);
        assert!(feed(&mut frames, &[0]).is_empty());
        assert!(frames.is_amid_message());
        assert!(feed(&mut frames, &[4, 1, 2, 3]).is_empty());
        assert!(frames.is_amid_message());
        assert_eq!(feed(&mut frames, &[4]), vec![vec![1, 2, 3, 4]]);
    }

    #[test]
    fn an_announced_length_alone_takes_no_memory() {
        let mut frames = Frames::with_capacity(16);
        assert!(feed(&mut frames, &[0xff, 0xff, 1]).is_empty());
        assert_eq!(frames.octets.len(), 16);
        assert!(feed(&mut frames, &vec![0; MAX_MESSAGE_LEN - 2]).is_empty());
        assert!(frames.octets.len() <= LENGTH_PREFIX_LEN + MAX_MESSAGE_LEN);
    }
}
