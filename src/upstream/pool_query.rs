//! What do the rules of the pool know of a query?

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::culprits::QueryGroups;
use super::table::PoolQuery;
use super::traits::Query;
use crate::message::question_name;

impl<Q: Query> PoolQuery for Arc<Q> {
    fn deadline(&self) -> Instant {
        Q::deadline(self)
    }

    fn due(&self) -> Instant {
        Q::due(self)
    }

    fn name_hash(&self) -> u16 {
        hash(self.question())
    }

    fn client(&self) -> u16 {
        Q::client(self)
    }

    fn groups(&self) -> QueryGroups {
        QueryGroups {
            zone: hash(zone(self.question())),
            client: Q::client(self),
        }
    }

    fn is_signed(&self) -> bool {
        Q::is_signed(self)
    }
}

/// Hashes the name of a question, whatever the type.
pub(super) fn hash_of_name(question: &[u8]) -> u16 {
    hash(question_name(question))
}

/// Hashes a name without regard to case, with a key that nobody outside knows.
fn hash(name: &[u8]) -> u16 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(name.to_ascii_lowercase()) as u16
}

/// The question's name without its first label; the whole name if it has two labels or fewer.
fn zone(question: &[u8]) -> &[u8] {
    let name = question.get(..question.len().saturating_sub(4));
    let name = name.unwrap_or_default();
    let after = |name: &[u8]| {
        let length = name.first().map_or(0, |length| usize::from(*length));
        if length == 0 { name.len() } else { 1 + length }
    };
    let rest = |name: &'_ [u8]| after(name).min(name.len());
    let parent = &name[rest(name)..];
    let grandparent = &parent[rest(parent)..];
    if grandparent.len() > 1 { parent } else { name }
}
