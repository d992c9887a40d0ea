//! Which queries wait while a suspect is tested?
//!
//! A query that the resolver may have closed a session for is suspect, and is tested: it goes alone on a session. Other queries of its
//! client may be like it, so they wait for the outcome, and so one client ends one shared session and not one for each query. They do not
//! wait long: a name that ends sessions does so in a round trip, and connecting takes several. Where all queries come from one client
//! nothing waits, as nobody is protected by that.

use std::time::Instant;

use super::isolation::SLOW_ISOLATED_CONNECT;
use super::pool::{MAX_ACTIVE_ISOLATED, Pool};
use super::session_end::LostQuery;
use super::table::{Entry, HeldClients, Key, Phase, PoolQuery, Purpose, Queue, Session, Suspicion};

impl<Q: PoolQuery> Pool<Q> {
    /// Which of the queries that a session leaves are tested: all where there are few; else, where few clients have asked and there is a
    /// session for each at once, the youngest of each client. Where sessions end after a number of answers or at random, no query is the
    /// reason.
    pub(super) fn suspects_to_test(
        &self,
        lost: &[LostQuery],
        rank: usize,
        now: Instant,
    ) -> Vec<Key> {
        let keys = lost.iter().map(|lost| lost.key);
        let address = &self.addresses[rank];
        if address.closes_at_random(now) {
            return Vec::new();
        }
        if lost.len() <= MAX_ACTIVE_ISOLATED {
            return keys.collect();
        }
        if !self.culprits.has_several_clients(now) || address.may_have_limit(now) {
            return Vec::new();
        }
        let mut youngest: Vec<(u16, Key)> = Vec::new();
        for key in keys.rev() {
            let entry = self.queries.get(key).filter(|_| !self.is_last_send(key));
            let Some(client) = entry.map(|entry| entry.query.client()) else {
                continue;
            };
            if youngest.iter().all(|(other, _)| *other != client) {
                youngest.push((client, key));
            }
            if youngest.len() > MAX_ACTIVE_ISOLATED {
                return Vec::new();
            }
        }
        if address.isolated_tokens.available(now) < youngest.len() {
            return Vec::new();
        }
        youngest.into_iter().map(|(_, key)| key).collect()
    }

    /// The clients whose queries wait: a suspect of each is being tested, or is about to be and will probably end its session. Looked up once
    /// for many queries.
    pub(super) fn held_clients(&self, now: Instant) -> HeldClients {
        let mut held = HeldClients::new();
        // In the normal case there are no suspects.
        if self.isolated_queue.is_empty() && self.sessions.iter().all(Session::is_shared)
            || !self.culprits.has_several_clients(now)
        {
            return held;
        }
        held.extend(self.tested_clients(now));
        for key in &self.isolated_queue {
            let Some(entry) = self.queries.get(*key) else {
                continue;
            };
            let client = entry.query.client();
            if entry.queue == Queue::Isolated
                && !held.contains(&client)
                && self.is_likely_culprit(entry, client, now)
            {
                held.push(client);
            }
        }
        held
    }

    /// Returns true if a suspect waits because another one of its client is being tested. For its last send it does not wait, as it ends no
    /// other query's session then.
    pub(super) fn awaits_test(&self, key: Key, now: Instant) -> bool {
        let entry = self.queries.get(key);
        entry.is_some_and(|entry| {
            entry.suspicion != Suspicion::None
                && !self.is_last_send(key)
                && self.has_test(entry.query.client(), now)
        })
    }

    /// Returns true if a suspect of this client is being tested, and others ask as well.
    fn has_test(&self, client: u16, now: Instant) -> bool {
        self.culprits.has_several_clients(now)
            && self.tested_clients(now).any(|tested| tested == client)
    }

    /// The clients of which a suspect is being tested.
    fn tested_clients(&self, now: Instant) -> impl Iterator<Item = u16> {
        let sessions = self.sessions.iter();
        let tests = sessions.filter(move |session| now < Self::test_ends_at(session));
        tests
            .filter_map(|session| match session.purpose {
                Purpose::Isolated(key) => self.queries.get(key),
                Purpose::Shared | Purpose::Probe => None,
            })
            .filter(|entry| entry.suspicion != Suspicion::None)
            .map(|entry| entry.query.client())
    }

    /// Until when other queries wait for the test on an isolated session: until it is slow to connect, or has had its query for as long as
    /// connecting took.
    pub(super) fn test_ends_at(session: &Session) -> Instant {
        match session.phase {
            Phase::Connecting => session.started_at + SLOW_ISOLATED_CONNECT,
            _ => session.last_sent_at + session.connect_time,
        }
    }

    /// Returns true if a waiting suspect of this client, or another query of it, was alone on a session that ended.
    fn is_likely_culprit(&self, entry: &Entry<Q>, client: u16, now: Instant) -> bool {
        match entry.suspicion {
            Suspicion::None => false,
            Suspicion::Suspect => self.culprits.has_culprits(client, now),
            Suspicion::Likely => true,
        }
    }

    /// A query of this client was found to end sessions: the next one that waits is tested, before the others go on.
    pub(super) fn test_next(&mut self, client: u16, now: Instant) {
        if !self.culprits.has_several_clients(now) {
            return;
        }
        let is_unsent = |entry: &Entry<Q>| {
            entry.queue == Queue::Shared
                && entry.transmissions.is_empty()
                && entry.query.client() == client
        };
        let mut waiting = self.shared_queue.iter();
        let at = waiting.position(|key| self.queries.get(*key).is_some_and(is_unsent));
        let Some(key) = at.and_then(|at| self.shared_queue.remove(at)) else {
            return;
        };
        if let Some(entry) = self.queries.get_mut(key) {
            entry.suspicion = Suspicion::Suspect;
        }
        self.enqueue_isolated(key);
    }
}
