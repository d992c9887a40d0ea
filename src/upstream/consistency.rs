//! Do the pool's tables agree with each other?

use std::collections::HashMap;

use super::pool::{MOST_ALONE_OPEN, MOST_SENDS, Pool, RETIRED};
use super::table::{Key, Line, Phase, PoolQuery, Session};

impl<Q: PoolQuery> Pool<Q> {
    /// Whether the tables agree with each other: what is counted is what is there. Says where they do not. For simulations.
    pub fn check(&self) -> Result<(), String> {
        let count = |keys: &mut dyn Iterator<Item = &Key>| {
            let mut counts: HashMap<Key, usize> = HashMap::new();
            keys.for_each(|key| *counts.entry(*key).or_default() += 1);
            counts
        };
        let (shared, own) = (count(&mut self.line.iter()), count(&mut self.alone.iter()));
        let of = |counts: &HashMap<Key, usize>, key| counts.get(&key).copied().unwrap_or_default();
        let mut copies = 0;
        for (key, entry) in self.queries.iter() {
            copies += entry.copies.len();
            for copy in &entry.copies {
                let session = self
                    .sessions
                    .iter()
                    .find(|session| session.id == copy.session);
                if session.and_then(|session| session.pending.get(&copy.id)) != Some(&key) {
                    return Err(format!("{key:?} is not on {:?}", copy.session));
                }
            }
            let (lines, alone) = (of(&shared, key), of(&own, key));
            let is_waiting = match entry.line {
                Line::None => !entry.copies.is_empty(),
                Line::Shared => lines == 1,
                Line::Alone => alone == 1,
            };
            if !is_waiting || entry.sends > MOST_SENDS {
                return Err(format!(
                    "{key:?}: {:?}, {} sends, lines {lines} and {alone}",
                    entry.line, entry.sends
                ));
            }
        }
        let pending: usize = self
            .sessions
            .iter()
            .map(|session| session.pending.len())
            .sum();
        let connecting =
            |session: &&Session| session.phase == Phase::Connecting && !session.pending.is_empty();
        if pending != copies || self.sessions.iter().any(|session| connecting(&session)) {
            return Err(format!("{pending} are pending, {copies} are on sessions"));
        }
        for rank in 0..self.addresses.len() {
            let at_rank = || self.sessions.iter().filter(|session| session.rank == rank);
            let retired = at_rank()
                .filter(|session| session.phase == Phase::Retired)
                .count();
            let shared =
                at_rank().filter(|session| session.is_shared() && session.phase != Phase::Retired);
            let alone = at_rank().filter(|session| !session.is_shared()).count();
            if alone > MOST_ALONE_OPEN
                || retired > RETIRED
                || shared.count() > self.settings.sessions + 1
            {
                return Err(format!("too many sessions to {rank}"));
            }
        }
        Ok(())
    }
}
