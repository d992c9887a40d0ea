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
use super::table::{Entry, Key, Phase, PoolQuery, Purpose, Queue, Session, Suspicion};

impl<Q: PoolQuery> Pool<Q> {
    /// Which of the queries that a session leaves are tested: all where there are few; else, where few clients have asked and there is a
    /// session for each at once, the youngest of each client. Where sessions end after a number of answers, no query is the reason.
    pub(super) fn suspects_to_test(
        &self,
        lost: &[LostQuery],
        rank: usize,
        now: Instant,
    ) -> Vec<Key> {
        let keys = lost.iter().map(|lost| lost.key);
        if lost.len() <= MAX_ACTIVE_ISOLATED {
            return keys.collect();
        }
        let address = &self.addresses[rank];
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

    /// Returns true if queries of this client wait: a suspect of it is being tested, or is about to be and will probably end its session.
    pub(super) fn is_held(&self, client: u16, now: Instant) -> bool {
        // In the normal case there are no suspects.
        if self.isolated_queue.is_empty() && self.sessions.iter().all(Session::is_shared) {
            return false;
        }
        self.has_test(client, now)
            || self.culprits.has_several_clients(now) && self.has_likely_culprit(client, now)
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

    /// Returns true if a suspect of this client is being tested.
    fn has_test(&self, client: u16, now: Instant) -> bool {
        let mut sessions = self.sessions.iter();
        self.culprits.has_several_clients(now)
            && sessions.any(|session| {
                now < Self::test_ends_at(session) && self.is_for_suspect_of(session, client)
            })
    }

    fn is_for_suspect_of(&self, session: &Session, client: u16) -> bool {
        let Purpose::Isolated(key) = session.purpose else {
            return false;
        };
        let entry = self.queries.get(key);
        entry.is_some_and(|entry| {
            entry.suspicion != Suspicion::None && entry.query.client() == client
        })
    }

    /// Until when other queries wait for the test on an isolated session: until it is slow to connect, or has had its query for as long as
    /// connecting took.
    pub(super) fn test_ends_at(session: &Session) -> Instant {
        match session.phase {
            Phase::Connecting => session.started_at + SLOW_ISOLATED_CONNECT,
            _ => session.last_sent_at + session.connect_time,
        }
    }

    /// Returns true if a suspect of this client waits for a session, and it or another one was alone on a session that ended.
    fn has_likely_culprit(&self, client: u16, now: Instant) -> bool {
        let has_culprits = self.culprits.has_culprits(client, now);
        let is_likely = |entry: &Entry<Q>| {
            entry.queue == Queue::Isolated
                && (entry.suspicion == Suspicion::Likely
                    || has_culprits && entry.suspicion == Suspicion::Suspect)
                && entry.query.client() == client
        };
        let mut waiting = self.isolated_queue.iter();
        waiting.any(|key| self.queries.get(*key).is_some_and(is_likely))
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
