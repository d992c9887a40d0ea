//! How does a query get on its way to the resolver?
//!
//! If the quota allows its client one more query and there is memory for it, the query is prepared. Then its client joins an equal query
//! in flight, or the query is entered in the table, if the upstream rate limit allows it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cache::Responder;
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::completion::QueryCompleter;
use crate::forward::in_flight::Query;
use crate::forward::in_flight_table::{Decision, QueryPool};
use crate::forward::outcome::Outcome;
use crate::forward::policy::Policy;
use crate::forward::quota;
use crate::forward::rebinding::RebindProtection;
use crate::forward::waiters::Waiter;
use crate::message::{self, Source};
use crate::system::memory::Purpose;
use crate::upstream::{Completer, Failure};

/// A query to be prepared for the resolver.
#[derive(Clone, Copy)]
pub(super) struct NewQuery<'q> {
    pub(super) query: &'q message::Query<'q>,
    pub(super) key: Option<&'q message::QuestionKey<'q>>,
    /// How long the query may take.
    pub(super) timeout: Duration,
    /// How long clients wait before they get an expired answer; None if there is none.
    pub(super) stale_after: Option<Duration>,
    /// Queries of one client in flight, at most.
    pub(super) max_pending: usize,
    /// Which answers may not name private addresses; None if all may.
    pub(super) rebind_protection: Option<&'q RebindProtection>,
    /// Where the answer comes from.
    pub(super) source: Source,
    /// Who is asked.
    pub(super) responder: Responder,
}

impl NewQuery<'_> {
    /// Octets of memory that the query costs while it is in flight.
    pub(super) fn cost(&self) -> usize {
        Query::cost(self.query, self.key)
    }

    /// Whether the answer may not name private addresses.
    fn is_rebind_protected(&self) -> bool {
        let question = self.query.question();
        self.rebind_protection
            .is_some_and(|protection| protection.applies_to(question))
    }
}

impl QueryCompleter {
    /// Prepares a query for `client`, which waits for its answer. Returns the client if the quota or the memory is used up, before
    /// anything is copied.
    pub(super) fn prepare_for_client(
        &self,
        mut new_query: NewQuery<'_>,
        client: Client,
        now: Instant,
        query_pool: &mut QueryPool,
        last_batch: usize,
    ) -> Result<Arc<Query>, Client> {
        let cost = new_query.cost();
        let is_datagram = matches!(client, Client::Datagram { .. });
        let slots = self.quota.slots(client.peer(), is_datagram);
        let limits = quota::Limits {
            max_queries: new_query.max_pending,
            free_octets: self.memory().free(Purpose::Queries).saturating_sub(cost),
            total_octets: self.memory().share_limit(Purpose::Queries),
        };
        // A query costs some kilobytes at most.
        let octets = cost as u32;
        let slot = match self.quota.try_acquire(slots, octets, &limits) {
            Ok(slot) => slot,
            Err(quota::Exceeded::Queries) => return Err(client),
            Err(quota::Exceeded::Octets) => {
                self.memory().count_refused(Purpose::Queries);
                return Err(client);
            }
        };
        new_query.timeout =
            quota::timeout_under_load(new_query.timeout, limits.free_octets, limits.total_octets);
        let NewQuery { query, timeout, .. } = new_query;
        let mut waiter = Some(Waiter::new(query, client, now, timeout, (slot, octets)));
        let prepared = self.prepare(&new_query, &mut waiter, now, query_pool, last_batch);
        prepared.ok_or_else(|| {
            self.quota.release(slot, octets);
            self.quota.counter().fetch_sub(1, Ordering::SeqCst);
            waiter.expect("no query took it").client
        })
    }

    /// Prepares a query for which `waiter` waits, in the memory of a finished one if there is one. `last_batch` is the number of queries
    /// that the last batch needed. Returns None and leaves the waiter if there is no memory for it.
    pub(super) fn prepare(
        &self,
        new_query: &NewQuery<'_>,
        waiter: &mut Option<Waiter>,
        now: Instant,
        query_pool: &mut QueryPool,
        last_batch: usize,
    ) -> Option<Arc<Query>> {
        if query_pool.is_empty() {
            self.in_flight.lend(query_pool, last_batch);
        }
        query_pool.reuse(self.memory(), new_query.cost(), now, |upstream_query| {
            upstream_query.reset(new_query.query, new_query.key, now, new_query.timeout);
            upstream_query.set_rebind_protected(new_query.is_rebind_protected());
            upstream_query.set_source(new_query.source, new_query.responder);
            let clients = upstream_query.clients_mut();
            if let Some(stale_after) = new_query.stale_after {
                clients.serve_stale_after(stale_after);
            }
            if let Some(waiter) = waiter.take() {
                clients.add(waiter);
            }
        })
    }

    /// Sends equal queries as one, and no more queries than the upstream rate limit allows. What is left in `queries` is to be sent.
    pub(super) fn coalesce(
        &self,
        policy: &Policy,
        queries: &mut Vec<Arc<Query>>,
        query_pool: &mut QueryPool,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let (mut already_cached, mut over_limit) = (Vec::new(), Vec::new());
        let joined = self
            .in_flight
            .join_or_insert(queries, query_pool, now, |query| {
                // The answer may have come since the lookup. A prefetch, which has no clients, is sent anyway.
                let hit = query.key().and_then(|key| self.cache().servable(&key, now));
                let hit = hit.filter(|hit| !hit.is_stale() && query.clients().waiter_count() > 0);
                if let Some(hit) = hit {
                    already_cached.push((Arc::clone(query), hit));
                    Decision::AlreadyCached
                } else if policy.upstream_bucket.take(1, now) == 1 {
                    Decision::Send
                } else {
                    over_limit.push(Arc::as_ptr(query));
                    Decision::JoinOnly
                }
            });
        for (query, hit) in already_cached {
            let result = Err(Outcome::TimedOut);
            self.answer_all_waiters(&query, result, Some(&hit), now, replies);
        }
        for query in joined
            .iter()
            .filter(|query| query.clients().is_stale_due(now))
        {
            self.serve_due_waiters(query, now, replies);
        }
        queries.retain(|query| {
            // The table did not decide about queries that are not shared.
            let granted = if query.is_shared() {
                !over_limit.contains(&Arc::as_ptr(query))
            } else {
                policy.upstream_bucket.take(1, now) == 1
            };
            if !granted {
                self.complete(query, Err(Failure::Overloaded), now, replies);
            }
            granted
        });
    }
}
