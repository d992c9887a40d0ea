//! Do the pool's tables agree with each other?

use std::collections::HashMap;

use super::hello_size::OBSERVATIONS;
use super::pool::{MAX_DRAINING_SESSIONS, MAX_ISOLATED_SESSIONS, MAX_SENDS, Pool};
use super::table::{Key, Phase, PoolQuery, Purpose, Queue, Session};

impl<Q: PoolQuery> Pool<Q> {
    /// Checks that the tables agree with each other and that all bounds hold. Returns a description of the first error. For simulations.
    pub fn check(&self) -> Result<(), String> {
        let count = |keys: &mut dyn Iterator<Item = &Key>| {
            let mut counts: HashMap<Key, usize> = HashMap::new();
            keys.for_each(|key| *counts.entry(*key).or_default() += 1);
            counts
        };
        let shared_keys = count(&mut self.shared_queue.iter());
        let isolated_keys = count(&mut self.isolated_queue.iter());
        let of = |counts: &HashMap<Key, usize>, key| counts.get(&key).copied().unwrap_or_default();
        let mut sent = 0;
        for (key, entry) in self.queries.iter() {
            sent += entry.transmissions.len();
            for transmission in &entry.transmissions {
                let mut sessions = self.sessions.iter();
                let session = sessions.find(|session| session.id == transmission.session);
                if session.and_then(|session| session.pending.get(&transmission.id)) != Some(&key) {
                    return Err(format!("{key:?} is not on {:?}", transmission.session));
                }
            }
            let (queued_shared, isolated) = (of(&shared_keys, key), of(&isolated_keys, key));
            let is_waiting = match entry.queue {
                Queue::None => !entry.transmissions.is_empty(),
                Queue::Shared => queued_shared == 1,
                Queue::Isolated => isolated == 1,
            };
            if !is_waiting || entry.sends > MAX_SENDS {
                return Err(format!(
                    "{key:?}: {:?}, {} sends, queued {queued_shared} and {isolated}",
                    entry.queue, entry.sends
                ));
            }
        }
        let sessions = self.sessions.iter();
        let pending: usize = sessions.map(|session| session.pending.len()).sum();
        let connecting =
            |session: &&Session| session.phase == Phase::Connecting && !session.pending.is_empty();
        if pending != sent || self.sessions.iter().any(|session| connecting(&session)) {
            return Err(format!("{pending} are pending, {sent} are on sessions"));
        }
        self.check_bounds()
    }

    /// Checks that there are no more sessions than there may be.
    fn check_bounds(&self) -> Result<(), String> {
        for rank in 0..self.addresses.len() {
            let at_rank = || self.sessions.iter().filter(|session| session.rank == rank);
            let draining = at_rank()
                .filter(|session| session.phase == Phase::Draining)
                .count();
            let shared =
                at_rank().filter(|session| session.is_shared() && session.phase != Phase::Draining);
            let hellos = at_rank()
                .filter(|session| session.is_shared() && session.hello_sent_at.is_some())
                .count();
            let purpose = |session: &Session| session.purpose;
            let isolated = at_rank()
                .filter(|session| matches!(purpose(session), Purpose::Isolated(_)))
                .count();
            let probes = at_rank().filter(|session| purpose(session) == Purpose::Probe);
            if isolated > MAX_ISOLATED_SESSIONS
                || draining > MAX_DRAINING_SESSIONS
                || probes.count() > 1
                || shared.count() > self.settings.sessions + 1 + hellos.min(OBSERVATIONS)
            {
                return Err(format!("too many sessions to {rank}"));
            }
        }
        Ok(())
    }
}
