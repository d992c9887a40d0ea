//! How is a question parsed, compared and presented?

use std::fmt;

use super::codes::HEADER_LEN;
use super::header::Header;
use super::name::name_end;
use super::parse_error::ParseError;

/// Length in octets of QTYPE and QCLASS, which follow the name (RFC 1035 section 4.1.2).
pub(super) const QTYPE_QCLASS_LEN: usize = 4;

/// The type of a question; 0 if the question is shorter than type and class.
pub fn question_type(question: &[u8]) -> u16 {
    match question.split_last_chunk::<QTYPE_QCLASS_LEN>() {
        Some((_, &[high, low, _, _])) => u16::from_be_bytes([high, low]),
        None => 0,
    }
}

/// The name of a question, in wire form; empty if the question is shorter than type and class.
pub fn question_name(question: &[u8]) -> &[u8] {
    question
        .split_last_chunk::<QTYPE_QCLASS_LEN>()
        .map_or(&[], |(name, _)| name)
}

/// Returns the position after the question of `message`, which must have exactly one. Its name is never compressed, since no name
/// precedes it.
pub(super) fn question_end(message: &[u8]) -> Result<usize, ParseError> {
    let [questions, ..] = Header::of(message)?.counts();
    if questions != 1 {
        return Err(ParseError::QuestionCount(questions));
    }
    let end = name_end(message, HEADER_LEN)?.saturating_add(QTYPE_QCLASS_LEN);
    if end > message.len() {
        Err(ParseError::UnexpectedEnd)
    } else {
        Ok(end)
    }
}

/// Compares two questions, names case-insensitively (RFC 4343). Names must not be compressed; length octets are below 64, so none is
/// a letter.
pub(super) fn same_question(one: &[u8], other: &[u8]) -> bool {
    match (
        one.split_last_chunk::<QTYPE_QCLASS_LEN>(),
        other.split_last_chunk(),
    ) {
        (Some((name, rest)), Some((other_name, other_rest))) => {
            rest == other_rest && name.eq_ignore_ascii_case(other_name)
        }
        _ => false,
    }
}

/// The presentation form of a question, for log lines: name, slash, type number. Control octets are escaped.
pub struct QuestionPresentation<'m>(
    /// The question's octets: name, type, class.
    pub &'m [u8],
);

impl fmt::Display for QuestionPresentation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match write_name(f, self.0)? {
            [0, high, low, ..] => write!(f, "/{}", u16::from_be_bytes([*high, *low])),
            _ => Ok(()),
        }
    }
}

/// The presentation form of a name in wire form without compression. Control octets are escaped.
pub(super) struct NamePresentation<'m>(pub(super) &'m [u8]);

impl fmt::Display for NamePresentation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, self.0).map(|_| ())
    }
}

/// Writes the name with which `octets` begin. Returns the octets from its root label on.
fn write_name<'m>(f: &mut fmt::Formatter<'_>, octets: &'m [u8]) -> Result<&'m [u8], fmt::Error> {
    let mut rest = octets;
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
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::QuestionPresentation;
    use crate::message::test_messages::{labels, name, question_for};

    #[test]
    fn a_question_is_written_in_presentation_form() {
        for (question, expected) in [
            (question_for(vec![0], 2), "./2"),
            (
                question_for(name("www.Example.com"), 65_535),
                "www.Example.com./65535",
            ),
            (
                question_for(labels(&[b"a.b\\\"=", b"\0 \n\x7f\xff"]), 1),
                "a\\.b\\\\\\\"\\=.\\000\\032\\010\\127\\255./1",
            ),
            (vec![], ""),
            (vec![5, b'a'], "a."),
            (vec![1, b'a', 0, 1], "a."),
        ] {
            assert_eq!(QuestionPresentation(&question).to_string(), expected);
        }
    }
}
