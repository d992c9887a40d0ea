//! Where does a name end, and is it sound?

use super::codes::{HEADER, LONGEST_NAME};
use super::octets::{u16_at, within};
use super::parse_error::ParseError;

/// The most compression pointers of a name: as many as it can have labels. A longer chain costs time and says nothing.
const MOST_POINTERS: usize = 127;

/// One past the name that begins at `at`; the name is followed through its compression pointers and checked whole.
///
/// A pointer must lead to "a prior occurrence" (RFC 1035 section 4.1.4): not into the header, where no name is, but to a
/// name that begins and ends before the labels that the pointer ends. So every name ends, and depends on no octet behind
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
                // The root label is yet to come.
                if length >= LONGEST_NAME {
                    return Err(ParseError::Name);
                }
            }
            0xc0.. => {
                let target = usize::from(u16_at(octets, position).or(Err(beyond))? & 0x3fff);
                pointers = pointers.saturating_add(1);
                if target < HEADER || pointers > MOST_POINTERS {
                    return Err(ParseError::Name);
                }
                end.get_or_insert(position.saturating_add(2));
                // What comes next is read from before these labels, or not at all.
                octets = within(message, 0..labels_start);
                (position, labels_start) = (target, target);
            }
            _ => return Err(ParseError::Name),
        }
    }
}

/// The name at `at`, spelled out: its labels, each behind its length, the root's too. And one past where it stands.
pub(super) fn name(message: &[u8], at: usize) -> Result<(Vec<u8>, usize), ParseError> {
    let end = name_end(message, at)?;
    let (mut octets, mut position) = (Vec::new(), at);
    // It was followed before, so it ends.
    while let Some(&octet @ 1..) = message.get(position) {
        if octet >= 0xc0 {
            position = usize::from(u16_at(message, position)? & 0x3fff);
        } else {
            let next = position.saturating_add(1).saturating_add(octet.into());
            octets.extend_from_slice(within(message, position..next));
            position = next;
        }
    }
    octets.push(0);
    Ok((octets, end))
}

/// Calls `visit` with position and target of the pointer that ends the name at `at`, if one does. Returns the name's end.
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
