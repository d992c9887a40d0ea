//! Where does a message end in a stream?
//!
//! Over TCP and TLS each message is preceded by its length in two octets (RFC 1035 section 4.2.2, RFC 7858 section 3.3).

use std::io;
use std::ops::Range;

use super::codes::MAX_MESSAGE_LEN;

/// Length in octets of the length field before each message.
pub const LENGTH_PREFIX_LEN: usize = 2;

/// Appends a length field and the message that `write` appends, at most 65,535 octets.
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

/// Returns how many of the messages end within the first `octets` octets of `parts`, each of which holds whole messages with their
/// length fields.
pub fn count_whole<'p>(parts: impl IntoIterator<Item = &'p [u8]>, octets: usize) -> usize {
    let (mut end, mut count) = (0_usize, 0_usize);
    for mut rest in parts {
        while let Some((prefix, after)) = rest.split_first_chunk::<LENGTH_PREFIX_LEN>() {
            let length = usize::from(u16::from_be_bytes(*prefix));
            end = end.saturating_add(LENGTH_PREFIX_LEN).saturating_add(length);
            if end > octets {
                return count;
            }
            count = count.saturating_add(1);
            rest = after.get(length..).unwrap_or_default();
        }
    }
    count
}

/// The octets of a stream that were read and not yet consumed, split into messages.
///
/// The buffer grows with the octets that have arrived, never with an announced length. If the reader takes all messages out
/// before the next [`FrameBuffer::fill`], it does not grow beyond one message of maximum length.
#[derive(Debug)]
pub struct FrameBuffer {
    octets: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    /// An empty buffer of `capacity` octets.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            octets: vec![0; capacity],
            start: 0,
            end: 0,
        }
    }

    /// Lets `read` append the octets that have arrived. Returns their number, or the error of `read`.
    ///
    /// Ranges that [`FrameBuffer::next_message`] returned before are invalid after this call.
    pub fn fill(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.make_room();
        let arrived = read(self.octets.get_mut(self.end..).unwrap_or_default())?;
        self.end = self.end.saturating_add(arrived).min(self.octets.len());
        Ok(arrived)
    }

    /// Takes out the next complete message, as a range for [`FrameBuffer::message`]. None until more octets arrive.
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

    /// The octets of a message that [`FrameBuffer::next_message`] returned since the last [`FrameBuffer::fill`].
    pub fn message(&self, range: Range<usize>) -> &[u8] {
        self.octets.get(range).unwrap_or_default()
    }

    /// By how many octets the next [`FrameBuffer::fill`] will enlarge the buffer; mostly 0.
    pub fn growth(&self) -> usize {
        // A partial message in the middle is moved to the front instead.
        if self.start == 0 && self.end == self.octets.len() {
            self.next_capacity().saturating_sub(self.octets.len())
        } else {
            0
        }
    }

    /// Shrinks the buffer to `capacity` octets if it is larger and holds no partial message.
    pub fn shrink_to(&mut self, capacity: usize) {
        if self.start == self.end && self.octets.len() > capacity {
            *self = Self::with_capacity(capacity);
        }
    }

    /// Whether the buffer holds a message that is not complete.
    pub fn has_partial_message(&self) -> bool {
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
            let room = self.next_capacity();
            self.octets
                .reserve_exact(room.saturating_sub(self.octets.len()));
            self.octets.resize(room, 0);
        }
    }

    /// The capacity after growing: twice as much, limited to one message of maximum length while it is below that.
    fn next_capacity(&self) -> usize {
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

    fn feed(frames: &mut FrameBuffer, octets: &[u8]) -> Vec<Vec<u8>> {
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
    fn messages_come_out_whole_however_the_stream_was_split() {
        let messages = vec![
            vec![1; 3],
            vec![],
            vec![2; 300],
            vec![3; MAX_MESSAGE_LEN],
            vec![4; 1],
        ];
        let stream = framed(&messages);
        for piece in [1, 2, 3, 7, 64, 1000, 70_000] {
            let mut frames = FrameBuffer::with_capacity(16);
            let mut found = Vec::new();
            for octets in stream.chunks(piece) {
                found.extend(feed(&mut frames, octets));
            }
            assert_eq!(found, messages, "in pieces of {piece}");
            assert!(!frames.has_partial_message());
        }
    }

    #[test]
    fn messages_count_as_whole_up_to_the_octet_that_ends_them() {
        let first = framed(&[vec![1; 3], vec![]]);
        let second = framed(&[vec![2; 300]]);
        for (octets, count) in [
            (0, 0),
            (4, 0),
            (5, 1),
            (6, 1),
            (7, 2),
            (308, 2),
            (309, 3),
            (999, 3),
        ] {
            let parts = [&*first, &*second];
            assert_eq!(count_whole(parts, octets), count, "{octets}");
        }
    }

    #[test]
    fn an_unfinished_message_is_not_given_out() {
        let mut frames = FrameBuffer::with_capacity(16);
        assert!(feed(&mut frames, &[0]).is_empty());
        assert!(frames.has_partial_message());
        assert!(feed(&mut frames, &[4, 1, 2, 3]).is_empty());
        assert!(frames.has_partial_message());
        assert_eq!(feed(&mut frames, &[4]), vec![vec![1, 2, 3, 4]]);
    }

    #[test]
    fn an_announced_length_alone_takes_no_memory() {
        let mut frames = FrameBuffer::with_capacity(16);
        assert!(feed(&mut frames, &[0xff, 0xff, 1]).is_empty());
        assert_eq!(frames.octets.len(), 16);
        assert!(feed(&mut frames, &vec![0; MAX_MESSAGE_LEN - 2]).is_empty());
        assert!(frames.octets.len() <= LENGTH_PREFIX_LEN + MAX_MESSAGE_LEN);
    }
}
