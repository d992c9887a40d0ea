//! What does a hosts file say?
//!
//! The form of hosts(5): `ADDRESS NAME [NAME...] [# comment]`. A line that cannot be read is skipped, and the others hold.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::host_table::{HostTable, TableError};
use crate::message::presentation::{Name, NameError};

/// Maximum number of characters of a word that an error repeats.
const MAX_SHOWN: usize = 64;

/// Why a line is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineError {
    /// This word is no address.
    Address(String),
    /// This address has a zone, such as `%eth0` (RFC 4007 section 11), which no DNS record can carry.
    Scoped(String),
    /// There is no name after the address.
    NoName,
    /// This word has a character that is no letter, digit, hyphen, underscore or dot.
    Character(String),
    /// This word is no domain name.
    Name(String, NameError),
    /// The name that this word is has too many addresses.
    Addresses(String),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(word) => {
                write!(
                    f,
                    "{word:?}: expected an address such as 192.0.2.1 or 2001:db8::1"
                )
            }
            Self::Scoped(word) => write!(f, "{word:?}: expected an address without a zone"),
            Self::NoName => write!(f, "expected a name after the address"),
            Self::Character(word) => write!(
                f,
                "{word:?}: expected a name of letters, digits, hyphens, underscores and dots"
            ),
            Self::Name(word, error) => {
                write!(f, "{word:?}: {error}; expected a name such as nas.lan")
            }
            Self::Addresses(word) => write!(f, "{word:?}: {}", TableError::Addresses),
        }
    }
}

/// Adds the lines of a file to `table`. Calls `skip` with the number, from 1, and the fault of each line that is skipped.
///
/// A line is skipped as a whole, except for names that have [`MAX_ADDRESSES`](super::host_table::MAX_ADDRESSES) addresses already.
/// Fails if the table is full.
pub fn read_lines(
    text: &str,
    table: &mut HostTable,
    skip: &mut dyn FnMut(usize, LineError),
) -> Result<(), TableError> {
    // Editors of other systems write a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let number = index.saturating_add(1);
        let words = line.split('#').next().unwrap_or_default();
        let mut words = words.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        let address = parse_address(first).and_then(|address| {
            check_names(words.clone())?;
            Ok(address)
        });
        let address = match address {
            Ok(address) => address,
            Err(error) => {
                skip(number, error);
                continue;
            }
        };
        let mut crowded = None;
        for word in words {
            // The words were checked above.
            let Ok(name) = parse_name(word) else { continue };
            match table.add(address, name.octets()) {
                Ok(()) => {}
                Err(TableError::Addresses) => crowded = crowded.or(Some(word)),
                Err(TableError::Full) => return Err(TableError::Full),
            }
        }
        if let Some(word) = crowded {
            skip(number, LineError::Addresses(shown(word)));
        }
    }
    Ok(())
}

fn parse_address(word: &str) -> Result<IpAddr, LineError> {
    if let Ok(address) = word.parse() {
        return Ok(address);
    }
    let is_scoped = word
        .split_once('%')
        .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    match is_scoped {
        true => Err(LineError::Scoped(shown(word))),
        false => Err(LineError::Address(shown(word))),
    }
}

/// Checks that there is a name, and that all words are names.
fn check_names<'t>(words: impl Iterator<Item = &'t str>) -> Result<(), LineError> {
    let mut words = words.peekable();
    if words.peek().is_none() {
        return Err(LineError::NoName);
    }
    words.try_for_each(|word| parse_name(word).map(drop))
}

/// Parses a name, with a final dot or without. A `*` is refused: nobody who writes it means a name that has one.
fn parse_name(word: &str) -> Result<Name, LineError> {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    if !word.bytes().all(is_plain) {
        return Err(LineError::Character(shown(word)));
    }
    let failed = |error| LineError::Name(shown(word), error);
    match word {
        // The root has no addresses.
        "." => Err(failed(NameError::EmptyLabel)),
        _ => word.parse().map_err(failed),
    }
}

/// The beginning of a word. A line may be as long as a file.
fn shown(word: &str) -> String {
    word.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests;
