//! How does a query get on its way to the resolver?
//!
//! If its client may have one more on its way and there is memory for it, it is made ready; then it joins an equal one, or takes a
//! place in the table of those on their way, if as much may be sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::completion::Endings;
use crate::forward::flights::{Decision, Spares};
use crate::forward::in_flight::Query;
use crate::forward::policy::Policy;
use crate::forward::waiting::{self, Place};
use crate::message;
use crate::system::memory::Purpose;
use crate::upstream::{Completer, Failure};

/// A query that is to go on to the resolver.
#[derive(Clone, Copy)]
pub(super) struct Relay<'q> {
    pub(super) query: &'q message::Query<'q>,
    pub(super) key: Option<&'q message::Key<'q>>,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// After so long who waits is content with an expired answer, if there is one.
    pub(super) patience: Option<Duration>,
    /// Queries of one client that may wait.
    pub(super) most_waiting: usize,
}

impl Relay<'_> {
    /// Octets that it holds while it is on its way.
    pub(super) fn cost(&self) -> usize {
        Query::cost(self.query, self.key)
    }
}

impl Endings {
    /// Makes a query ready to be sent for which `client` waits, and says where and with how many octets that is counted. None if
    /// there is no room for it, which is seen before anything is copied.
    pub(super) fn relay_for(
        &self,
        mut relay: Relay<'_>,
        client: &Client,
        now: Instant,
        spares: &mut Spares,
        before: usize,
    ) -> Option<(Arc<Query>, (Place, u32))> {
        let cost = relay.cost();
        let is_datagram = matches!(client, Client::Datagram { .. });
        let places = self.waiting.places(client.peer(), is_datagram);
        let bounds = waiting::Bounds {
            most: relay.most_waiting,
            free: self.memory().free(Purpose::Queries).saturating_sub(cost),
            share: self.memory().share(Purpose::Queries),
        };
        // One query has some kilobytes at most.
        let octets = cost as u32;
        let place = match self.waiting.admit(places, octets, &bounds) {
            Ok(place) => place,
            Err(waiting::Refusal::Number) => return None,
            Err(waiting::Refusal::Octets) => {
                self.memory().refuse(Purpose::Queries);
                return None;
            }
        };
        relay.timeout = waiting::time_for(relay.timeout, bounds.free, bounds.share);
        let going = self.relay(&relay, cost, now, spares, before);
        if going.is_none() {
            self.waiting.end(place, octets);
            self.waiting.counter().fetch_sub(1, Ordering::SeqCst);
        }
        Some((going?, (place, octets)))
    }

    /// Makes a query ready to be sent for which nobody waits yet, in the memory of one that has ended if there is one: `before` is
    /// how many were needed for the last batch.
    pub(super) fn relay(
        &self,
        relay: &Relay<'_>,
        cost: usize,
        now: Instant,
        spares: &mut Spares,
        before: usize,
    ) -> Option<Arc<Query>> {
        if spares.is_empty() {
            self.flights.lend(spares, before);
        }
        spares.reuse(self.memory(), cost, now, |going| {
            going.begin(relay.query, relay.key, now, relay.timeout);
            if let Some(patience) = relay.patience {
                going.clients_mut().be_content_after(patience);
            }
        })
    }

    /// Sees to it that equal queries go as one, and that no more are sent than may be.
    pub(super) fn board(
        &self,
        policy: &Policy,
        queries: &mut Vec<Arc<Query>>,
        spares: &mut Spares,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let (mut known, mut too_many) = (Vec::new(), Vec::new());
        let joined = self.flights.board(queries, spares, now, |query| {
            // Its answer may have come between its being looked for and now. What renews one is for the next one.
            let kept = query.key().and_then(|key| self.cache().any(&key, now));
            let kept = kept.filter(|kept| !kept.is_stale() && query.clients().count_waiters() > 0);
            if let Some(kept) = kept {
                known.push((Arc::clone(query), kept));
                Decision::Known
            } else if policy.budget.take(1, now) == 1 {
                Decision::Send
            } else {
                too_many.push(Arc::as_ptr(query));
                Decision::Refuse
            }
        });
        for (query, kept) in known {
            let ending = Err(Failure::TimedOut);
            self.end_all_waiters(&query, ending, Some(&kept), now, replies);
        }
        for flight in joined.iter().filter(|flight| flight.clients().is_late(now)) {
            self.serve_due_waiters(flight, now, replies);
        }
        queries.retain(|query| {
            // Those that share with nobody were not asked about.
            let granted = if query.is_shared() {
                !too_many.contains(&Arc::as_ptr(query))
            } else {
                policy.budget.take(1, now) == 1
            };
            if !granted {
                self.complete(query, Err(Failure::Overloaded), now, replies);
            }
            granted
        });
    }
}
