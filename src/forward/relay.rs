//! How does a query get on its way to the resolver?
//!
//! If its client may have one more on its way and there is memory for it, it is made ready; then it joins an equal one, or takes a
//! place in the table of those on their way, if as much may be sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::completion::Completer;
use crate::forward::in_flight::Query;
use crate::forward::in_flight_table::{Decision, QueryPool};
use crate::forward::policy::Policy;
use crate::forward::quota::{self, Slot};
use crate::message;
use crate::system::memory::Purpose;
use crate::upstream::{Failure, Settle};

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
    pub(super) max_pending: usize,
}

impl Relay<'_> {
    /// Octets that it holds while it is on its way.
    pub(super) fn cost(&self) -> usize {
        Query::cost(self.query, self.key)
    }
}

impl Completer {
    /// Makes a query ready to be sent for which `client` waits, and says where and with how many octets that is counted. None if
    /// there is no room for it, which is seen before anything is copied.
    pub(super) fn relay_for(
        &self,
        mut relay: Relay<'_>,
        client: &Client,
        now: Instant,
        query_pool: &mut QueryPool,
        before: usize,
    ) -> Option<(Arc<Query>, (Slot, u32))> {
        let cost = relay.cost();
        let is_datagram = matches!(client, Client::Datagram { .. });
        let slots = self.quota.slots(client.peer(), is_datagram);
        let limits = quota::Limits {
            max_queries: relay.max_pending,
            free_octets: self.memory().free(Purpose::Queries).saturating_sub(cost),
            total_octets: self.memory().share(Purpose::Queries),
        };
        // One query has some kilobytes at most.
        let octets = cost as u32;
        let slot = match self.quota.try_acquire(slots, octets, &limits) {
            Ok(slot) => slot,
            Err(quota::Exceeded::Queries) => return None,
            Err(quota::Exceeded::Octets) => {
                self.memory().refuse(Purpose::Queries);
                return None;
            }
        };
        relay.timeout =
            quota::timeout_under_load(relay.timeout, limits.free_octets, limits.total_octets);
        let going = self.relay(&relay, cost, now, query_pool, before);
        if going.is_none() {
            self.quota.release(slot, octets);
            self.quota.counter().fetch_sub(1, Ordering::SeqCst);
        }
        Some((going?, (slot, octets)))
    }

    /// Makes a query ready to be sent for which nobody waits yet, in the memory of one that has ended if there is one: `before` is
    /// how many were needed for the last batch.
    pub(super) fn relay(
        &self,
        relay: &Relay<'_>,
        cost: usize,
        now: Instant,
        query_pool: &mut QueryPool,
        before: usize,
    ) -> Option<Arc<Query>> {
        if query_pool.is_empty() {
            self.in_flight.lend(query_pool, before);
        }
        query_pool.reuse(self.memory(), cost, now, |going| {
            going.reset(relay.query, relay.key, now, relay.timeout);
            if let Some(patience) = relay.patience {
                going.clients_mut().serve_stale_after(patience);
            }
        })
    }

    /// Sees to it that equal queries go as one, and that no more are sent than may be.
    pub(super) fn coalesce(
        &self,
        policy: &Policy,
        queries: &mut Vec<Arc<Query>>,
        query_pool: &mut QueryPool,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let (mut known, mut too_many) = (Vec::new(), Vec::new());
        let joined = self
            .in_flight
            .join_or_insert(queries, query_pool, now, |query| {
                // Its answer may have come between its being looked for and now. What renews one is for the next one.
                let hit = query.key().and_then(|key| self.cache().servable(&key, now));
                let hit = hit.filter(|hit| !hit.is_stale() && query.clients().waiter_count() > 0);
                if let Some(hit) = hit {
                    known.push((Arc::clone(query), hit));
                    Decision::AlreadyCached
                } else if policy.upstream_bucket.take(1, now) == 1 {
                    Decision::Send
                } else {
                    too_many.push(Arc::as_ptr(query));
                    Decision::JoinOnly
                }
            });
        for (query, hit) in known {
            let result = Err(Failure::TimedOut);
            self.answer_all_waiters(&query, result, Some(&hit), now, replies);
        }
        for query in joined
            .iter()
            .filter(|query| query.clients().is_stale_due(now))
        {
            self.look_after(query, now, replies);
        }
        queries.retain(|query| {
            // Those that share with nobody were not asked about.
            let granted = if query.is_shared() {
                !too_many.contains(&Arc::as_ptr(query))
            } else {
                policy.upstream_bucket.take(1, now) == 1
            };
            if !granted {
                self.settle(query, Err(Failure::Overloaded), now, replies);
            }
            granted
        });
    }
}
