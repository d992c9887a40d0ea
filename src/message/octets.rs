//! What is at a position of a message?
//!
//! Reading past the end yields an empty slice or an error, never a panic.

use std::ops::Range;

use super::parse_error::ParseError;

/// The octets from `at` on; empty if the message is shorter.
pub(super) fn slice_from(message: &[u8], at: usize) -> &[u8] {
    message.get(at..).unwrap_or_default()
}

/// The octets of `range`; empty if the message is shorter.
pub(super) fn slice_at(message: &[u8], range: Range<usize>) -> &[u8] {
    message.get(range).unwrap_or_default()
}

/// The two octets at `at`, in network order.
pub(super) fn u16_at(message: &[u8], at: usize) -> Result<u16, ParseError> {
    match slice_from(message, at).first_chunk() {
        Some(octets) => Ok(u16::from_be_bytes(*octets)),
        None => Err(ParseError::UnexpectedEnd),
    }
}

/// The `N` octets at `at`, to be changed; none if the message is shorter.
pub(super) fn array_mut_at<const N: usize>(message: &mut [u8], at: usize) -> Option<&mut [u8; N]> {
    message.get_mut(at..)?.first_chunk_mut()
}

/// Overwrites the octets at `at` with `octets`. The message must be that long already; its length does not change.
pub(super) fn overwrite(message: &mut [u8], at: usize, octets: &[u8]) {
    let there = message
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..octets.len()));
    debug_assert!(there.is_some(), "nothing to put {octets:?} over at {at}");
    if let Some(there) = there {
        there.copy_from_slice(octets);
    }
}

/// How many octets were appended to `out` since its length was `start`.
pub(super) fn length_since(out: &[u8], start: usize) -> usize {
    out.len().saturating_sub(start)
}

/// Whether the message that begins at `start` still has at most `limit` octets with `more` appended.
pub(super) fn has_room(out: &[u8], start: usize, more: usize, limit: usize) -> bool {
    length_since(out, start).saturating_add(more) <= limit
}
