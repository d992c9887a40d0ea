//! What do these octets say?
//!
//! A relay needs positions in a message and byte-exact splices, not a decoded tree: where the question ends, where the
//! OPT record lies, where the TTLs are. This room finds them, refuses what is broken, and writes the few messages that
//! are our own. It does no I/O, reads no clock, and panics on no input.

// Strangers' octets come through here: what could panic or wrap is not written at all.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fmt;

/// A question as people write it: name, type number. For log lines at debug only; control octets are escaped.
pub struct Spelled<'m>(
    /// The question's octets: name, type, class.
    pub &'m [u8],
);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest.first() == Some(&0) {
            write!(f, ".")?;
        }
        while let Some((&length @ 1..=63, tail)) = rest.split_first() {
            let (label, tail) = tail
                .split_at_checked(usize::from(length))
                .unwrap_or((tail, &[]));
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'=' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            write!(f, ".")?;
            rest = tail;
        }
        match rest {
            [0, high, low, ..] => write!(f, "/{}", u16::from_be_bytes([*high, *low])),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Spelled;
    use crate::message::test_messages::{ask, labels, name};

    #[test]
    fn a_question_is_spelled_as_people_write_it() {
        for (question, spelled) in [
            (ask(vec![0], 2), "./2"),
            (
                ask(name("www.Example.com"), 65_535),
                "www.Example.com./65535",
            ),
            (
                ask(labels(&[b"a.b\\\"=", b"\0 \n\x7f\xff"]), 1),
                "a\\.b\\\\\\\"\\=.\\000\\032\\010\\127\\255./1",
            ),
            (vec![], ""),
            (vec![5, b'a'], "a."),
            (vec![1, b'a', 0, 1], "a."),
        ] {
            assert_eq!(Spelled(&question).to_string(), spelled);
        }
    }
}
