//! Where does a name end, and is it valid?

use super::codes::{HEADER_LEN, MAX_NAME_LEN};
use super::octets::{slice_at, u16_at};
use super::parse_error::ParseError;

/// Maximum number of compression pointers in a name: as many as a name can have labels. A longer chain only costs time.
const MAX_COMPRESSION_POINTERS: usize = 127;

/// Returns the position after the name at `at`. The whole name is validated, through its compression pointers.
///
/// A pointer must lead to "a prior occurrence" (RFC 1035 section 4.1.4): not into the header, which holds no name, but to a
/// name that begins and ends before the labels that the pointer follows. So every name ends, and depends on no octet after
/// it.
pub(super) fn name_end(message: &[u8], at: usize) -> Result<usize, ParseError> {
    let (mut octets, mut position, mut labels_start) = (message, at, at);
    let (mut length, mut pointers, mut end) = (0_usize, 0_usize, None);
    loop {
        let beyond = if pointers == 0 {
            ParseError::UnexpectedEnd
        } else {
            ParseError::Name
        };
        let octet = usize::from(*octets.get(position).ok_or(beyond)?);
        match octet {
            0 => return Ok(end.unwrap_or(position.saturating_add(1))),
            1..=63 => {
                let label = octet.saturating_add(1);
                length = length.saturating_add(label);
                position = position.saturating_add(label);
                // The root label still has to fit.
                if length >= MAX_NAME_LEN {
                    return Err(ParseError::Name);
                }
            }
            0xc0.. => {
                let target = usize::from(u16_at(octets, position).or(Err(beyond))? & 0x3fff);
                pointers = pointers.saturating_add(1);
                if target < HEADER_LEN || pointers > MAX_COMPRESSION_POINTERS {
                    return Err(ParseError::Name);
                }
                end.get_or_insert(position.saturating_add(2));
                // The next label is read from the octets before these labels.
                octets = slice_at(message, 0..labels_start);
                (position, labels_start) = (target, target);
            }
            _ => return Err(ParseError::Name),
        }
    }
}

/// Returns the name at `at` without compression, root label included, and the position after it in the message.
pub(super) fn uncompressed_name(message: &[u8], at: usize) -> Result<(Vec<u8>, usize), ParseError> {
    let end = name_end(message, at)?;
    let (mut octets, mut position) = (Vec::new(), at);
    // `name_end` has validated the name, so the loop ends.
    while let Some(&octet @ 1..) = message.get(position) {
        if octet >= 0xc0 {
            position = usize::from(u16_at(message, position)? & 0x3fff);
        } else {
            let next = position.saturating_add(1).saturating_add(octet.into());
            octets.extend_from_slice(slice_at(message, position..next));
            position = next;
        }
    }
    octets.push(0);
    Ok((octets, end))
}

/// Calls `visit` with position and target of the pointer that ends the name at `at`, if there is one. Returns the position
/// after the name.
pub(super) fn visit_pointer(
    message: &[u8],
    at: usize,
    visit: &mut impl FnMut(usize, usize),
) -> usize {
    let mut position = at;
    while let Some(&octet @ 1..=63) = message.get(position) {
        position = position.saturating_add(1).saturating_add(octet.into());
    }
    match u16_at(message, position) {
        Ok(pointer) if pointer >= 0xc000 => {
            visit(position, usize::from(pointer & 0x3fff));
            position.saturating_add(2)
        }
        _ => position.saturating_add(1),
    }
}

#[cfg(test)]
mod tests;
