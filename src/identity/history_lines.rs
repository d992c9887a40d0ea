//! How is the key history of a resolver written and read?
//!
//! As lines that a person can read: one for each leaf, and one for each address whose latest leaf has a new key.

use std::collections::BTreeMap;
use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};

use crate::identity::rollover::{AddressObservation, DatedLeaf, KeyHistory, Leaf, MAX_LEAVES};
use crate::system::date::{self, Timestamp};

/// The lines of one resolver's history; made by [`KeyHistory::lines`].
#[derive(Debug)]
pub struct HistoryLines<'m> {
    name: &'m str,
    history: &'m KeyHistory,
}

impl KeyHistory {
    /// The whole history as lines of text, for the resolver `name`. Deleting the line of a learnt key revokes the key.
    pub fn lines<'m>(&'m self, name: &'m str) -> HistoryLines<'m> {
        HistoryLines {
            name,
            history: self,
        }
    }
}

impl fmt::Display for HistoryLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, history } = self;
        for leaf in &history.accepted {
            writeln!(f, "accepted {name} {}", LeafFields(leaf))?;
        }
        for DatedLeaf { leaf, since } in &history.learnt {
            writeln!(
                f,
                "learnt {name} {} since={:#}",
                LeafFields(leaf),
                Timestamp(*since)
            )?;
        }
        if let Some(DatedLeaf { leaf, since }) = &history.candidate {
            writeln!(
                f,
                "candidate {name} {} since={:#}",
                LeafFields(leaf),
                Timestamp(*since)
            )?;
        }
        for AddressObservation { address, pin, at } in &history.observations {
            writeln!(f, "seen {name} {address} {pin} at={:#}", Timestamp(*at))?;
        }
        Ok(())
    }
}

/// The fields of a leaf in a line.
struct LeafFields<'l>(&'l Leaf);

impl fmt::Display for LeafFields<'_> {
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

/// Parses one line into the history of the resolver that it names. The error says what was expected. After an error the histories
/// must be discarded, since a part of the line may have been applied.
pub fn read_line(line: &str, histories: &mut BTreeMap<String, KeyHistory>) -> Result<(), String> {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    if !["accepted", "learnt", "candidate", "seen"].contains(&kind) {
        return Err(format!(
            "{kind:?}: expected a line that begins with accepted, learnt, candidate or seen"
        ));
    }
    let name: String = next(&mut words, "the name of a resolver")?;
    let history = histories.entry(name).or_default();
    let once = |is_there: bool, what: &str| match is_there {
        true => Err(format!("expected one {kind} line of a {what} alone")),
        false => Ok(()),
    };
    let room = |entries: usize| match entries < MAX_LEAVES {
        true => Ok(()),
        false => Err(format!(
            "expected at most {MAX_LEAVES} {kind} lines of a resolver"
        )),
    };
    match kind {
        "accepted" => {
            let leaf = read_leaf(&mut words)?;
            let same = |old: &Leaf| old.pin == leaf.pin && old.issuer == leaf.issuer;
            once(history.accepted.iter().any(same), "key and issuer")?;
            room(history.accepted.len())?;
            history.accepted.push(leaf);
        }
        "learnt" => {
            let (leaf, since) = (read_leaf(&mut words)?, read_time(&mut words, "since=")?);
            once(history.learnt().any(|pin| pin == leaf.pin), "key")?;
            room(history.learnt.len())?;
            history.learnt.push(DatedLeaf { leaf, since });
        }
        "candidate" => {
            let (leaf, since) = (read_leaf(&mut words)?, read_time(&mut words, "since=")?);
            once(history.candidate.is_some(), "resolver")?;
            history.candidate = Some(DatedLeaf { leaf, since });
        }
        _ => {
            let address = next(&mut words, "an address such as 192.0.2.1:853")?;
            let pin = next(&mut words, "a pin such as sha256/BASE64")?;
            let at = read_time(&mut words, "at=")?;
            let mut seen = history.observations.iter();
            once(
                seen.any(|observation| observation.address == address),
                "resolver's address",
            )?;
            history
                .observations
                .push(AddressObservation { address, pin, at });
        }
    }
    if let Some(word) = words.next() {
        return Err(format!("{word:?}: expected the line to end before it"));
    }
    Ok(())
}

/// Parses the next word of a line. The error says that `what` was expected.
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
    match leaf.has_valid_dates() {
        true => Ok(leaf),
        false => Err("expected not-after= to be later than not-before=".to_owned()),
    }
}

/// Parses the next word as `field` and a time. The time must be given to the second, since a day alone may come from a line that was
/// cut off.
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
