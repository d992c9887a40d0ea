//! What happens to this query, in order?
//!
//! The policy is the same for every transport. Each query ends in one [`Outcome`], which decides the response code, the EDE, the count
//! and the log line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::{CacheHit, Lookup, Refresh};
use crate::client::connection::Connection;
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::client::unsent_replies::Goodness;
use crate::forward::checks::refusal;
use crate::forward::completion::QueryCompleter;
use crate::forward::counts::AnswerSource;
use crate::forward::in_flight::Query;
use crate::forward::in_flight_table::QueryPool;
use crate::forward::outcome::Outcome;
use crate::forward::policy::{Policy, Settings};
use crate::forward::rate_limit::Verdict;
use crate::forward::relay::NewQuery;
use crate::forward::routes::{Destination, Route, Upstreams, Work};
use crate::local;
use crate::local::host_table::HostTable;
use crate::message::{self, Answer, QuestionKey, ReplyTo};
use crate::system::clock;
use crate::system::memory::Memory;

/// How long a client waits for a fresh answer before it gets an expired one, unless half of the timeout is less: the client response
/// timer of RFC 8767 section 5.
const CLIENT_RESPONSE_TIMEOUT: Duration = Duration::from_millis(1800);

/// A batch of queries that one thread handles, and what the thread reuses for the next batch.
#[derive(Default)]
pub struct Batch {
    queries: Vec<Arc<Query>>,
    query_pool: QueryPool,
    /// The number of queries that the last batch had for the resolver.
    last_batch: usize,
    work: Work,
    replies: ReplyBatch,
    /// A client was over its rate or not allowed to ask.
    over_limit: bool,
    /// UDP queries over the quota get no answer.
    quiet_overload: bool,
    from_cache: RepliesFromCache,
    /// Queries of this batch that wait for the resolver, since the cache had no fresh answer.
    misses: u64,
    policy: Option<Arc<Policy>>,
    /// The generation of that policy.
    generation: usize,
}

/// The answers from the cache in a batch.
#[derive(Default)]
struct RepliesFromCache {
    count: u64,
    /// Those that are no failures.
    served: u64,
}

impl Batch {
    /// The batch of a thread that reads this connection alone, and may wait for a moment until there is memory for large answers.
    pub fn for_worker(connection: &Connection) -> Self {
        Self {
            replies: ReplyBatch::for_worker(connection),
            ..Self::default()
        }
    }

    /// Whether a client was over its rate or not allowed to ask since the last call. Resets the flag.
    pub fn take_over_limit(&mut self) -> bool {
        std::mem::take(&mut self.over_limit)
    }

    /// Whether so many octets wait to be sent that [`Forwarder::dispatch`] should be called before more queries are handled.
    pub fn is_large(&self) -> bool {
        self.replies.is_large()
    }

    /// Sets whether UDP queries over the quota get no SERVFAIL: while the kernel drops datagrams, sending it would take time from
    /// queries that can be answered.
    pub fn set_quiet_overload(&mut self, quiet_overload: bool) {
        self.quiet_overload = quiet_overload;
    }
}

/// Takes queries in: checks them, looks them up and hands them to the upstream.
///
/// Shared by all threads that read queries. The lock guards the policy, which a thread keeps until `generation` changes. The lock is
/// taken before the upstream's lock, in a reload only.
pub struct Forwarder {
    completer: Arc<QueryCompleter>,
    policy: Mutex<Arc<Policy>>,
    /// The number of policies so far, by which a thread sees without a lock that its policy was replaced.
    generation: AtomicUsize,
}

impl Forwarder {
    /// A forwarder that sends queries to `upstreams`, which must have the same `completer`.
    pub fn new(
        settings: Settings,
        upstreams: Arc<Upstreams>,
        completer: Arc<QueryCompleter>,
        now: Instant,
    ) -> Self {
        completer.counts().set_slo_latency(settings.slo_latency);
        let policy = Policy::new(settings, upstreams, now);
        Self {
            completer,
            policy: Mutex::new(Arc::new(policy)),
            generation: AtomicUsize::new(1),
        }
    }

    /// Handles new queries with these settings and `upstreams` from now on. The size of the cache stays. After this call the caller may
    /// retire old upstreams.
    pub fn reconfigure(&self, settings: Settings, upstreams: Arc<Upstreams>, now: Instant) {
        self.completer
            .cache()
            .set_serve_stale(settings.cache.serve_stale);
        self.completer
            .counts()
            .set_slo_latency(settings.slo_latency);
        let mut policy = self.policy.lock();
        *policy = Arc::new(policy.reconfigured(settings, upstreams, now));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Answers the names of these hosts files from now on.
    pub fn replace_hosts(&self, hosts: Arc<HostTable>, now: Instant) {
        let mut policy = self.policy.lock();
        let settings = Settings {
            hosts,
            ..policy.settings.clone()
        };
        let upstreams = Arc::clone(&policy.upstreams);
        *policy = Arc::new(policy.reconfigured(settings, upstreams, now));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The upstreams of new queries.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        Arc::clone(&self.policy.lock().upstreams)
    }

    /// The current policy: `held`, if its generation is still the current one.
    fn policy<'b>(&self, held: &'b mut Option<Arc<Policy>>, generation: &mut usize) -> &'b Policy {
        let now = self.generation.load(Ordering::SeqCst);
        if *generation != now {
            (*held, *generation) = (None, now);
        }
        held.get_or_insert_with(|| Arc::clone(&self.policy.lock()))
    }

    /// The settings for new queries.
    pub fn settings(&self) -> Settings {
        self.policy.lock().settings.clone()
    }

    /// The number of clients' queries whose answer has not been sent.
    pub fn queries_in_flight(&self) -> usize {
        self.completer.queries_in_flight()
    }

    /// The memory that is reserved for messages.
    pub fn memory(&self) -> &Arc<Memory> {
        self.completer.memory()
    }

    /// Handles one client's message. [`Forwarder::dispatch`] sends its answer, or the query to the resolver.
    pub fn handle(&self, message: &[u8], client: Client, now: Instant, batch: &mut Batch) {
        let completer = &self.completer;
        let replies = &mut batch.replies;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let is_datagram = matches!(client, Client::Datagram { .. });
        let verdict = policy.limiter.check(client.peer().ip(), is_datagram, now);
        if verdict == Verdict::Drop && is_datagram {
            return completer.record_outcome(&client, &[], Outcome::Dropped, now);
        }
        batch.over_limit |= verdict != Verdict::Pass;
        let query = match message::Query::parse(message) {
            Ok(query) => query,
            // A client over its limit gets no error for a malformed message.
            Err(_) if verdict != Verdict::Pass => {
                return completer.record_outcome(&client, &[], Outcome::Dropped, now);
            }
            Err(fault) => {
                return completer.reply_malformed(message, &client, fault, now, replies);
            }
        };
        let refusal = refusal(verdict, &query);
        let reply_to = ReplyTo::from_query(&query);
        if refusal == Some(Outcome::RateLimited) && is_datagram {
            let outcome = Outcome::RateLimited;
            replies.push_tc(&client, outcome.tag(Goodness::No), &reply_to);
            return completer.record_outcome(&client, reply_to.question, outcome, now);
        }
        if let Some(outcome) = refusal {
            let max_len = message.len();
            return completer.reply_error(&client, &reply_to, outcome, max_len, now, replies);
        }
        let find_route = || policy.upstreams.route(query.question());
        if let Some(reply) = local_reply(&policy.settings, &query, find_route)
            && let Ok(answer) = Answer::parse(&reply)
        {
            return completer.answer_locally(&client, &reply_to, &answer, now, replies);
        }
        self.look_up(&query, client, now, batch);
    }

    /// Answers a query from the cache, or asks; or both, if the cached answer is to be refreshed.
    fn look_up(&self, query: &message::Query<'_>, client: Client, now: Instant, batch: &mut Batch) {
        let completer = &self.completer;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let key = query.key();
        // A fresh answer needs no look at the routes: a reload that changes the route of a name removes its answers.
        let find_responder = || Route::responder(policy.upstreams.route(query.question()));
        let cache = completer.cache();
        let found = key
            .as_ref()
            .map(|key| cache.lookup(key, find_responder, now));
        match found.unwrap_or(Lookup::Miss).into_parts() {
            (Some(hit), None | Some(Refresh::BackingOff)) => {
                let (from_cache, replies) = (&mut batch.from_cache, &mut batch.replies);
                self.reply_from_cache(query, &client, &hit, now, from_cache, replies);
            }
            found => self.ask(query, key.as_ref(), found, client, now, batch),
        }
    }

    /// Prepares a query for the resolver of its name, unless the route of the name leads nowhere. `hit` is served if there is no better answer
    /// in time, or at once.
    fn ask(
        &self,
        query: &message::Query<'_>,
        key: Option<&QuestionKey<'_>>,
        (hit, refresh): (Option<CacheHit>, Option<Refresh>),
        mut client: Client,
        now: Instant,
        batch: &mut Batch,
    ) {
        let completer = &self.completer;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let reply_to = ReplyTo::from_query(query);
        let route = policy.upstreams.route(query.question());
        if let Some(reply) = name_error_reply(query, route)
            && let Ok(answer) = Answer::parse(&reply)
        {
            let replies = &mut batch.replies;
            return completer.answer_locally(&client, &reply_to, &answer, now, replies);
        }
        let new_query = new_query(policy, query, key, route, hit.is_some());
        if refresh == Some(Refresh::BeforeReply) {
            let (pool, last_batch) = (&mut batch.query_pool, batch.last_batch);
            match completer.prepare_for_client(new_query, client, now, pool, last_batch) {
                Ok(upstream_query) => {
                    batch.misses += 1;
                    return batch.queries.push(upstream_query);
                }
                Err(refused) => client = refused,
            }
        }
        let Some(hit) = hit else {
            return self.reply_overloaded(&client, &reply_to, now, batch);
        };
        let (from_cache, replies) = (&mut batch.from_cache, &mut batch.replies);
        self.reply_from_cache(query, &client, &hit, now, from_cache, replies);
        if refresh == Some(Refresh::AfterReply)
            && let Some(upstream_query) = completer.prepare(
                &new_query,
                &mut None,
                now,
                &mut batch.query_pool,
                batch.last_batch,
            )
        {
            completer.counts().add_prefetch();
            batch.queries.push(upstream_query);
        }
    }

    /// Answers a query with what the cache has.
    fn reply_from_cache(
        &self,
        query: &message::Query<'_>,
        client: &Client,
        hit: &CacheHit,
        now: Instant,
        from_cache: &mut RepliesFromCache,
        replies: &mut ReplyBatch,
    ) {
        let (completer, reply_to) = (&self.completer, ReplyTo::from_query(query));
        let goodness = Goodness::CountedAfterSend;
        let outcome = completer.answer_from_cache(client, &reply_to, hit, goodness, now, replies);
        from_cache.count += 1;
        from_cache.served += u64::from(outcome.is_served());
    }

    /// Says that too many queries are in flight, or only counts it where a datagram's client is to hear nothing of that.
    fn reply_overloaded(
        &self,
        client: &Client,
        reply_to: &ReplyTo<'_>,
        now: Instant,
        batch: &mut Batch,
    ) {
        let (completer, outcome) = (&self.completer, Outcome::Overloaded);
        if batch.quiet_overload && matches!(client, Client::Datagram { .. }) {
            return completer.record_outcome(client, reply_to.question, outcome, now);
        }
        let replies = &mut batch.replies;
        completer.reply_error(client, reply_to, outcome, usize::MAX, now, replies);
    }

    /// Counts a datagram with an impossible source, which gets no answer.
    pub fn count_ignored(&self) {
        self.completer.counts().add(false, Outcome::Ignored);
    }

    /// Sends the answers and the queries of this batch.
    pub fn dispatch(&self, batch: &mut Batch, now: Instant) {
        let Batch {
            queries,
            query_pool,
            last_batch,
            work,
            replies,
            policy,
            generation,
            ..
        } = batch;
        *last_batch = queries.len();
        if !queries.is_empty() || !query_pool.is_empty() {
            let policy = self.policy(policy, generation);
            self.completer
                .coalesce(policy, queries, query_pool, now, replies);
        }
        // A retired upstream takes no queries. It was replaced before, so the next look at the policy finds the new one.
        while !queries.is_empty() {
            let policy = self.policy(policy, generation);
            policy.upstreams.submit(queries, work, replies, now);
        }
        replies.send();
        let misses = std::mem::take(&mut batch.misses);
        if misses > 0 {
            self.completer.counts().add_misses(misses);
        }
        let RepliesFromCache { count, served } = std::mem::take(&mut batch.from_cache);
        let served = served.saturating_sub(batch.replies.take_unsent_good());
        if count > 0 {
            let took = clock::now().saturating_duration_since(now);
            self.completer
                .counts()
                .record_latency(AnswerSource::Cache, took, count, served);
        }
    }

    /// Waits until every client has its answer: for the current timeout of queries at most, or for `old_timeout` if that is longer.
    pub fn drain(&self, old_timeout: Duration) {
        let deadline = clock::now() + self.policy.lock().settings.timeout.max(old_timeout);
        while self.completer.queries_in_flight() > 0 && clock::now() < deadline {
            sleep(Duration::from_millis(10));
        }
    }
}

/// A query to the resolver of a name with this route. If a cached answer may be served, clients that would wait for longer get that.
fn new_query<'q>(
    policy: &'q Policy,
    query: &'q message::Query<'q>,
    key: Option<&'q QuestionKey<'q>>,
    route: Option<Route>,
    has_cached_answer: bool,
) -> NewQuery<'q> {
    let timeout = policy.upstreams.upstream(route).query_time();
    let stale_after = CLIENT_RESPONSE_TIMEOUT.min(timeout / 2);
    NewQuery {
        query,
        key,
        timeout,
        stale_after: has_cached_answer.then_some(stale_after),
        max_pending: policy.settings.max_pending,
        rebind_protection: policy.rebind_protection(route),
        source: Route::source(route),
        responder: Route::responder(route),
    }
}

/// The answer to a query for a name that is known here, if it is one. A hosts file decides before a route does, and a route before a special
/// use of the name. `find_route` finds the route of the name.
pub fn local_reply(
    settings: &Settings,
    query: &message::Query<'_>,
    find_route: impl FnOnce() -> Option<Route>,
) -> Option<Vec<u8>> {
    if query.is_signed() {
        return None;
    }
    if let Some(reply) = local::host_reply(&settings.hosts, query.question()) {
        return Some(reply);
    }
    if !settings.answer_special_names {
        return None;
    }
    // Most names are not special: only for those that are, the route is looked for.
    local::special_reply(query.question()).filter(|_| find_route().is_none())
}

/// The answer to a query for a name whose route leads nowhere, if it does. The cache has no answers of such names.
pub fn name_error_reply(query: &message::Query<'_>, route: Option<Route>) -> Option<Vec<u8>> {
    match route? {
        Route {
            destination: Destination::NameError,
            zone_len,
        } => local::name_error(query.question(), zone_len),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
