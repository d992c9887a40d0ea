//! How is what is remembered of a resolver's keys written and read?
//!
//! In lines that a person can read: one for each leaf, and for each address whose latest leaf is a new one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

use crate::identity::rollover::{Leaf, MOST, Memory, Sighting, Since};
use crate::system::date::{self, Timestamp};

/// The lines of one resolver's memory; made by [`Memory::lines`].
#[derive(Debug)]
pub struct Lines<'m> {
    name: &'m str,
    memory: &'m Memory,
}

impl Memory {
    /// Lines of text that say all of it, for a resolver of this name. A person takes a learnt key back by deleting its line.
    pub fn lines<'m>(&'m self, name: &'m str) -> Lines<'m> {
        Lines { name, memory: self }
    }
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, memory } = self;
        for leaf in &memory.accepted {
            writeln!(f, "accepted {name} {}", Fields(leaf))?;
        }
        for Since { leaf, since } in &memory.learnt {
            writeln!(
                f,
                "learnt {name} {} since={:#}",
                Fields(leaf),
                Timestamp(*since)
            )?;
        }
        if let Some(Since { leaf, since }) = &memory.candidate {
            writeln!(
                f,
                "candidate {name} {} since={:#}",
                Fields(leaf),
                Timestamp(*since)
            )?;
        }
        for Sighting { address, pin, at } in &memory.seen {
            writeln!(f, "seen {name} {address} {pin} at={:#}", Timestamp(*at))?;
        }
        Ok(())
    }
}

/// A leaf, as lines spell it.
struct Fields<'l>(&'l Leaf);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leaf {
            pin,
            issuer,
            not_before,
            not_after,
        } = self.0;
        write!(
            f,
            "{pin} issuer={issuer} not-before={:#} not-after={:#}",
            Timestamp(*not_before),
            Timestamp(*not_after)
        )
    }
}

/// Adds what one line says to the memory of the resolver that it names. Fails with what was expected; then nothing of the
/// memories is to be believed, since another part of the line may be right.
pub fn read_line(line: &str, memories: &mut BTreeMap<String, Memory>) -> Result<(), String> {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    if !["accepted", "learnt", "candidate", "seen"].contains(&kind) {
        return Err(format!(
            "{kind:?}: expected a line that begins with accepted, learnt, candidate or seen"
        ));
    }
    let name: String = next(&mut words, "the name of a resolver")?;
    let memory = memories.entry(name).or_default();
    let once = |is_there: bool, what: &str| match is_there {
        true => Err(format!("expected one {kind} line of a {what} alone")),
        false => Ok(()),
    };
    let room = |entries: usize| match entries < MOST {
        true => Ok(()),
        false => Err(format!(
            "expected at most {MOST} {kind} lines of a resolver"
        )),
    };
    match kind {
        "accepted" => {
            let leaf = read_leaf(&mut words)?;
            let same = |old: &Leaf| old.pin == leaf.pin && old.issuer == leaf.issuer;
            once(memory.accepted.iter().any(same), "key and issuer")?;
            room(memory.accepted.len())?;
            memory.accepted.push(leaf);
        }
        "learnt" => {
            let (leaf, since) = (read_leaf(&mut words)?, read_time(&mut words, "since=")?);
            once(memory.learnt().any(|pin| pin == leaf.pin), "key")?;
            room(memory.learnt.len())?;
            memory.learnt.push(Since { leaf, since });
        }
        "candidate" => {
            let (leaf, since) = (read_leaf(&mut words)?, read_time(&mut words, "since=")?);
            once(memory.candidate.is_some(), "resolver")?;
            memory.candidate = Some(Since { leaf, since });
        }
        _ => {
            let address = next(&mut words, "an address such as 192.0.2.1:853")?;
            let pin = next(&mut words, "a pin such as sha256/BASE64")?;
            let at = read_time(&mut words, "at=")?;
            let mut seen = memory.seen.iter();
            once(
                seen.any(|sighting| sighting.address == address),
                "resolver's address",
            )?;
            memory.seen.push(Sighting { address, pin, at });
        }
    }
    if let Some(word) = words.next() {
        return Err(format!("{word:?}: expected the line to end before it"));
    }
    Ok(())
}

/// The next word of a line, which is to be `what`.
fn next<T: FromStr>(words: &mut SplitAsciiWhitespace<'_>, what: &str) -> Result<T, String> {
    let word = words.next().unwrap_or_default();
    let expected = || format!("{word:?}: expected {what}");
    word.parse()
        .ok()
        .filter(|_| !word.is_empty())
        .ok_or_else(expected)
}

fn read_leaf(words: &mut SplitAsciiWhitespace<'_>) -> Result<Leaf, String> {
    let pin = next(words, "a pin such as sha256/BASE64")?;
    let word = words.next().unwrap_or_default();
    let issuer = word.strip_prefix("issuer=").map(str::parse);
    let Some(Ok(issuer)) = issuer else {
        return Err(format!("{word:?}: expected issuer= with a pin"));
    };
    let leaf = Leaf {
        pin,
        issuer,
        not_before: read_time(words, "not-before=")?,
        not_after: read_time(words, "not-after=")?,
    };
    match leaf.makes_sense() {
        true => Ok(leaf),
        false => Err("expected not-after= to be later than not-before=".to_owned()),
    }
}

/// The time after `field`; to the second, since a day alone may be the rest of a line that was cut.
fn read_time(words: &mut SplitAsciiWhitespace<'_>, field: &str) -> Result<u64, String> {
    let word = words.next().unwrap_or_default();
    match word.strip_prefix(field).and_then(date::parse) {
        Some((first, last)) if first == last => Ok(first),
        _ => Err(format!(
            "{word:?}: expected {field} with a time such as 2026-11-24T12:00:00Z"
        )),
    }
}

#[cfg(test)]
mod tests;
