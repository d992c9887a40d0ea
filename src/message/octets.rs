//! What lies at a position of a message?
//!
//! Reading past the end gives nothing or a fault, never a panic.

use std::ops::Range;

use super::parse_error::ParseError;

/// The octets from `at` on; none where a message is shorter.
pub(super) fn from(message: &[u8], at: usize) -> &[u8] {
    message.get(at..).unwrap_or_default()
}

/// The octets of a range that was found in this message.
pub(super) fn within(message: &[u8], range: Range<usize>) -> &[u8] {
    message.get(range).unwrap_or_default()
}

/// The two octets at `at`, in network order.
pub(super) fn u16_at(message: &[u8], at: usize) -> Result<u16, ParseError> {
    match from(message, at).first_chunk() {
        Some(octets) => Ok(u16::from_be_bytes(*octets)),
        None => Err(ParseError::UnexpectedEnd),
    }
}

/// The place of `N` octets at `at` in a message of ours.
pub(super) fn place<const N: usize>(message: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    message.get_mut(at..)?.first_chunk_mut()
}

/// Puts `octets` over those at `at` in a message of ours, which has that many there.
pub(super) fn put(message: &mut [u8], at: usize, octets: &[u8]) {
    let there = message
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..octets.len()));
    debug_assert!(there.is_some(), "nothing to put {octets:?} over at {at}");
    if let Some(there) = there {
        there.copy_from_slice(octets);
    }
}

/// Octets that were appended to `out` since it had `start`.
pub(super) fn length_since(out: &[u8], start: usize) -> usize {
    out.len().saturating_sub(start)
}

/// Whether the message that was begun at `start` can be so many octets longer and have no more than `limit`.
pub(super) fn has_room(out: &[u8], start: usize, more: usize, limit: usize) -> bool {
    length_since(out, start).saturating_add(more) <= limit
}
