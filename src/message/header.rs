//! What is in the header of a message?

use super::codes::HEADER_LEN;
use super::octets::{array_mut_at, overwrite};
use super::parse_error::ParseError;

/// The header of a message (RFC 1035 section 4.1.1).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Header([u8; HEADER_LEN]);

impl Header {
    pub(super) fn of(message: &[u8]) -> Result<Self, ParseError> {
        message
            .first_chunk()
            .copied()
            .map(Self)
            .ok_or(ParseError::TooShort)
    }

    pub(super) fn id(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    pub(super) fn flags(self) -> [u8; 2] {
        [self.0[2], self.0[3]]
    }

    pub(super) fn is_response(self) -> bool {
        self.0[2] & 0x80 != 0
    }

    pub(super) fn opcode(self) -> u8 {
        (self.0[2] >> 3) & 0x0f
    }

    pub(super) fn rcode(self) -> u16 {
        u16::from(self.0[3] & 0x0f)
    }

    /// The number of entries in the sections question, answer, authority, additional.
    pub(super) fn counts(self) -> [u16; 4] {
        let [_, _, _, _, counts @ ..] = self.0;
        let [q1, q2, n1, n2, u1, u2, d1, d2] = counts;
        [[q1, q2], [n1, n2], [u1, u2], [d1, d2]].map(u16::from_be_bytes)
    }
}

/// Sets bits in the two flag octets of the message that begins at `start`.
pub(super) fn set_bits(out: &mut [u8], start: usize, bits: [u8; 2]) {
    if let Some([_, _, high, low]) = array_mut_at(out, start) {
        *high |= bits[0];
        *low |= bits[1];
    }
}

/// Clears bits in the two flag octets of the message that begins at `start`.
pub(super) fn clear_bits(out: &mut [u8], start: usize, bits: [u8; 2]) {
    if let Some([_, _, high, low]) = array_mut_at(out, start) {
        *high &= !bits[0];
        *low &= !bits[1];
    }
}

/// Overwrites ARCOUNT, the number of additional records, of the message that begins at `start`.
pub(super) fn set_arcount(out: &mut [u8], start: usize, count: u16) {
    overwrite(out, start.saturating_add(10), &count.to_be_bytes());
}
