//! How is a domain name written and parsed in presentation format?

use std::fmt::{self, Write};
use std::str::FromStr;

use super::mnemonics::Type;
use crate::message::codes::{MAX_NAME_LEN, class::IN};
use crate::message::name::uncompressed_name;

/// Maximum length of a label in octets (RFC 1035 section 2.3.4).
const MAX_LABEL_LEN: usize = 63;
/// Characters with a meaning in a zone file, which are escaped with a backslash in a name.
pub(super) const SPECIAL: &[u8] = b".\\\"();@$";
/// Characters that are escaped with a backslash in a quoted string.
const QUOTED_SPECIAL: &[u8] = b"\"\\";

/// Why a text is not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// The text has an empty label, or is empty.
    EmptyLabel,
    /// A label has more than 63 octets.
    LongLabel,
    /// The name has more than 255 octets.
    Long,
    /// A backslash is followed neither by 000 to 255 nor by a character.
    Escape,
    /// This character has to be escaped. Internationalized names are written in their ASCII form (RFC 5890).
    Character(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLabel => write!(f, "an empty label"),
            Self::LongLabel => write!(f, "a label of more than {MAX_LABEL_LEN} octets"),
            Self::Long => write!(f, "more than {MAX_NAME_LEN} octets"),
            Self::Escape => write!(f, "a backslash before neither a character nor 000 to 255"),
            Self::Character(character) => {
                write!(f, "{character:?}, which a name has only as \\DDD")
            }
        }
    }
}

impl std::error::Error for NameError {}

/// A domain name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name in wire format, without compression.
    octets: Vec<u8>,
}

impl Name {
    /// Reads the name at `at` in a message, through its compression pointers. Also returns the position after it.
    pub(super) fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let (octets, end) = uncompressed_name(message, at).ok()?;
        Some((Self { octets }, end))
    }

    /// The name in wire format, without compression.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The question for this name, a type and class IN, in wire format (RFC 1035 section 4.1.2).
    pub fn question(&self, qtype: Type) -> Vec<u8> {
        [&self.octets[..], &qtype.0.to_be_bytes(), &IN.to_be_bytes()].concat()
    }

    fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        match label.len() {
            0 => return Err(NameError::EmptyLabel),
            length @ 1..=MAX_LABEL_LEN => self.octets.push(length as u8),
            _ => return Err(NameError::LongLabel),
        }
        self.octets.extend_from_slice(label);
        // The root label still has to fit.
        if self.octets.len() >= MAX_NAME_LEN {
            return Err(NameError::Long);
        }
        Ok(())
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Parses a name. It is fully qualified, with a final dot or without.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut name = Self { octets: Vec::new() };
        if text != "." {
            let mut label = Vec::new();
            let mut characters = text.chars();
            while let Some(character) = characters.next() {
                match character {
                    '.' => {
                        name.push(&label)?;
                        label.clear();
                    }
                    '\\' => label.push(unescape(&mut characters)?),
                    '!'..='~' => label.push(character as u8),
                    _ => return Err(NameError::Character(character)),
                }
            }
            if !label.is_empty() || name.octets.is_empty() {
                name.push(&label)?;
            }
        }
        name.octets.push(0);
        Ok(name)
    }
}

/// Parses an escape after its backslash.
fn unescape(characters: &mut std::str::Chars<'_>) -> Result<u8, NameError> {
    let first = characters.next().ok_or(NameError::Escape)?;
    if first.is_ascii_digit() {
        let digits: String = [first].into_iter().chain(characters.take(2)).collect();
        let is_whole = digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
        let octet = digits.parse().ok().filter(|_| is_whole);
        return octet.ok_or(NameError::Escape);
    }
    match first {
        '!'..='~' => Ok(first as u8),
        _ => Err(NameError::Character(first)),
    }
}

impl fmt::Display for Name {
    /// Writes the name with the final dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.octets[..];
        if rest == [0] {
            return f.write_char('.');
        }
        while let Some((&length @ 1.., tail)) = rest.split_first() {
            let (label, tail) = tail.split_at_checked(length.into()).unwrap_or((tail, &[]));
            write_escaped(f, label, '!', SPECIAL)?;
            f.write_char('.')?;
            rest = tail;
        }
        Ok(())
    }
}

/// Writes octets from `first_plain` to `~` as characters, with a backslash before those in `special`, and all others as `\DDD`.
pub(super) fn write_escaped(
    out: &mut impl Write,
    octets: &[u8],
    first_plain: char,
    special: &[u8],
) -> fmt::Result {
    for &octet in octets {
        let character = char::from(octet);
        if special.contains(&octet) {
            write!(out, "\\{character}")?;
        } else if (first_plain..='~').contains(&character) {
            out.write_char(character)?;
        } else {
            write!(out, "\\{octet:03}")?;
        }
    }
    Ok(())
}

/// Octets as a quoted string.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'m>(
    /// The octets.
    pub &'m [u8],
);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write_escaped(f, self.0, ' ', QUOTED_SPECIAL)?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, NameError};

    fn octets(text: &str) -> Vec<u8> {
        text.parse::<Name>().expect(text).octets
    }

    #[test]
    fn a_name_is_parsed_from_its_presentation_form() {
        assert_eq!(octets("."), b"\0");
        assert_eq!(octets("a"), b"\x01a\0");
        assert_eq!(octets("a.B."), b"\x01a\x01B\0");
        assert_eq!(octets("a\\.b.c"), b"\x03a.b\x01c\0");
        assert_eq!(octets("a\\."), b"\x02a.\0");
        assert_eq!(octets("a\\\\."), b"\x02a\\\0");
        assert_eq!(octets("\\000\\255\\032x"), b"\x04\0\xff x\0");
        assert_eq!(octets("\\-x._tcp.@"), b"\x02-x\x04_tcp\x01@\0");
        let (long, rest) = ("x".repeat(63), "x".repeat(61));
        assert_eq!(octets(&format!("{long}.{long}.{long}.{rest}")).len(), 255);
    }

    #[test]
    fn an_invalid_name_is_refused_with_the_reason() {
        let long = "x".repeat(63);
        for (text, error) in [
            ("", NameError::EmptyLabel),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a..", NameError::EmptyLabel),
            (&"x".repeat(64), NameError::LongLabel),
            (&[&long[..]; 4].join("."), NameError::Long),
            (&format!("{}x", "y.".repeat(127)), NameError::Long),
            ("a\\", NameError::Escape),
            ("a\\256", NameError::Escape),
            ("a\\12", NameError::Escape),
            ("a\\1x2", NameError::Escape),
            ("a\\1é", NameError::Escape),
            ("a b", NameError::Character(' ')),
            ("a\\ b", NameError::Character(' ')),
            ("bücher.example", NameError::Character('ü')),
            ("a\nb", NameError::Character('\n')),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn a_written_name_is_parsed_as_the_same() {
        for first in 0..=255 {
            for second in [0, b'.', b'\\', b'1', b'x', 0xff] {
                let name = Name {
                    octets: vec![2, first, second, 1, second, 0],
                };
                let written = name.to_string();
                assert!(
                    written.bytes().all(|octet| octet.is_ascii_graphic()),
                    "{written}"
                );
                assert_eq!(written.parse(), Ok(name), "{written}");
            }
        }
    }
}
