//! What becomes of a query that has ended?
//!
//! Its clients get their answers, the result is cached, and the query of each client is counted with its outcome. Queries that never
//! go to the resolver end here, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::{Level, log_enabled};

use crate::cache::{self, Cache, CacheHit, Responder};
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::client::unsent_replies::Goodness;
use crate::forward::counts::{AnswerSource, Counts};
use crate::forward::in_flight::Query;
use crate::forward::in_flight_table::InFlightTable;
use crate::forward::outcome::Outcome;
use crate::forward::quota::QueryQuota;
use crate::forward::rebinding::names_private_address;
use crate::forward::waiters::Waiters;
use crate::message::{
    self, Answer, ParseError, QuestionPresentation, ReplyOptions, ReplyTo, Source, ZoneMap, rcode,
};
use crate::system::clock::{self, micros};
use crate::system::memory::Memory;
use crate::telemetry::log::debug;
use crate::telemetry::query_log::{QueryLog, QueryRecord};
use crate::upstream::{Completer, Failure, Query as _, Replies};

/// Completes queries: answers their clients, caches their results and counts their outcomes.
///
/// Shared by all threads. It has no lock of its own; the cache, the table, each query and the query log say which locks they have.
/// Under the table's lock the cache's locks, the lock on the waiters of one query and that of the upstream rate limit are taken; those
/// are never held together.
#[derive(Debug)]
pub struct QueryCompleter {
    cache: Cache,
    pub(super) in_flight: InFlightTable,
    start: Instant,
    /// When the cache was last flushed, in microseconds since the start. Answers to queries that began before are not cached.
    flushed_at: AtomicU64,
    pub(super) quota: QueryQuota,
    memory: Arc<Memory>,
    counts: Counts,
    query_log: Arc<QueryLog>,
}

impl QueryCompleter {
    /// A completer with an empty cache and no queries. Queries reserve their octets in `memory`.
    pub fn new(settings: cache::Settings, memory: &Arc<Memory>, now: Instant) -> Self {
        Self {
            cache: Cache::new(settings, now),
            in_flight: InFlightTable::default(),
            start: now,
            flushed_at: AtomicU64::new(0),
            quota: QueryQuota::default(),
            memory: Arc::clone(memory),
            counts: Counts::new(),
            query_log: QueryLog::new(Arc::clone(memory)),
        }
    }

    /// The number of clients' queries whose answer has not been sent.
    pub fn queries_in_flight(&self) -> usize {
        self.quota.count()
    }

    /// The memory that is reserved for messages.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The counts of outcomes and latencies.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The log of single queries.
    pub fn query_log(&self) -> &Arc<QueryLog> {
        &self.query_log
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Empties the cache, and keeps answers to the queries in flight out of it. Returns the number of entries removed.
    pub fn flush(&self, now: Instant) -> usize {
        self.note_flush(now);
        self.cache.remove_zones(&ZoneMap::of_root(()))
    }

    /// Keeps answers to the queries in flight out of the cache.
    fn note_flush(&self, now: Instant) {
        let moment = 1 + micros(now.saturating_duration_since(self.start));
        self.flushed_at.store(moment, Ordering::SeqCst);
        self.detach_in_flight();
    }

    /// Removes the answers of these zones from the cache, and keeps those to the queries in flight out of it, of all zones. If there is no
    /// zone, new queries join none in flight, and nothing more changes.
    pub fn forget_zones(&self, zones: &ZoneMap<()>, now: Instant) {
        if zones.is_empty() {
            return self.detach_in_flight();
        }
        self.note_flush(now);
        let _ = self.cache.remove_zones(zones);
    }

    /// Stops new queries from joining the ones in flight.
    pub fn detach_in_flight(&self) {
        self.in_flight.detach_all();
    }

    /// Whether `query` began before the last flush, so that only the clients that wait for it get its answer.
    fn predates_flush(&self, query: &Query) -> bool {
        let began = micros(query.started_at().saturating_duration_since(self.start));
        began < self.flushed_at.load(Ordering::SeqCst)
    }

    /// Caches the result of `query`, unless the cache is flushed meanwhile. Returns the cached answer to serve in place of a failure.
    fn record_result(
        &self,
        key: &message::QuestionKey<'_>,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> Option<CacheHit> {
        let hit = if query.is_outage() {
            self.cache.record_outage(key, result, now)
        } else {
            self.cache
                .record_result(key, query.responder(), result, query.started_at(), now)
        };
        // A flush sets its time before it empties the cache: either this thread sees the time, or the flush removes this entry.
        if self.predates_flush(query) {
            self.cache.remove(key);
        }
        hit
    }

    /// Caches the result of `query` and stops new queries from joining it. Returns the cached answer to serve in place of a failure, and
    /// the query that has taken over the clients, if there is one.
    fn record_and_remove(
        &self,
        key: &message::QuestionKey<'_>,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> (Option<CacheHit>, Option<Arc<Query>>) {
        let record_result = || self.record_result(key, query, result, now);
        if result.is_ok() {
            // In this order, so that an equal query finds the answer in the cache or the query in the table.
            return (record_result(), self.in_flight.remove(query));
        }
        // No failure is cached while a newer query for the same key is in flight, nor a second time for the same query.
        let successor = self.in_flight.remove(query);
        let is_first = successor.is_none() && !query.has_timed_out();
        let hit = if is_first {
            record_result()
        } else {
            self.cache.servable(key, now)
        };
        (hit, successor)
    }

    /// Refuses the resolver's answer to `query`, and caches the refusal unless the cache is flushed meanwhile. No expired answer is served in
    /// its place: the resolver has answered.
    fn refuse(&self, query: &Query, now: Instant, replies: &mut ReplyBatch) {
        let mut successor = None;
        if let Some(key) = query.key() {
            if !self.predates_flush(query) {
                self.cache.record_refusal(&key, now);
                // As in `record_result`.
                if self.predates_flush(query) {
                    self.cache.remove(&key);
                }
            }
            let removed = self.in_flight.remove(query);
            successor = removed.filter(|_| !self.predates_flush(query));
        }
        let refused = Err(Outcome::Rebinding);
        self.answer_all_waiters(query, refused, None, now, replies);
        if let Some(successor) = successor {
            self.answer_all_waiters(&successor, refused, None, now, replies);
        }
    }

    /// Answers all clients that wait for `query`: with the `replacement` from the cache if there is one, else with its result.
    pub(super) fn answer_all_waiters(
        &self,
        query: &Query,
        result: Result<&Answer<'_>, Outcome>,
        replacement: Option<&CacheHit>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let waiters = query.clients().take_waiters();
        self.answer_waiters(waiters, query, result, replacement, now, replies);
    }

    /// Answers these clients, which waited for `query`, and gives their queries back to the quota.
    fn answer_waiters(
        &self,
        waiters: Waiters,
        query: &Query,
        result: Result<&Answer<'_>, Outcome>,
        replacement: Option<&CacheHit>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        for waiter in waiters {
            let client = &waiter.client;
            let reply_to = &ReplyTo {
                source: source_after(query, result),
                ..waiter.reply_to(query.question())
            };
            let since = waiter.since;
            let took = now.saturating_duration_since(since);
            let goodness = match self.counts.is_good(took) {
                true => Goodness::Counted,
                false => Goodness::No,
            };
            let (source, outcome) = match (replacement, result) {
                (Some(hit), _) => {
                    let outcome =
                        self.answer_from_cache(client, reply_to, hit, goodness, since, replies);
                    (AnswerSource::Cache, outcome)
                }
                (None, Ok(answer)) => {
                    let tag = Outcome::Answered.tag(goodness);
                    if query.is_signed() {
                        replies.push_signed(client, tag, reply_to, answer);
                    } else {
                        let options = &ReplyOptions::default();
                        replies.push_answer(client, tag, reply_to, answer, options);
                    }
                    self.record_outcome(client, reply_to.question, Outcome::Answered, since);
                    (AnswerSource::Resolver, Outcome::Answered)
                }
                (None, Err(outcome)) => {
                    self.reply_error(client, reply_to, outcome, usize::MAX, since, replies);
                    (AnswerSource::Resolver, outcome)
                }
            };
            self.counts
                .record_latency(source, took, 1, outcome.is_served().into());
            self.quota.release(waiter.slot, waiter.octets);
            replies.decrement_after_send(self.quota.counter());
        }
    }

    /// Answers a client, whose query came at `since`, from the cache. If the answer is no failure, `goodness` says whether it counts as good.
    pub(super) fn answer_from_cache(
        &self,
        client: &Client,
        reply_to: &ReplyTo<'_>,
        hit: &CacheHit,
        goodness: Goodness,
        since: Instant,
        replies: &mut ReplyBatch,
    ) -> Outcome {
        let source = match hit.is_stale() {
            true => Source::Stale,
            false => Source::Cache,
        };
        let reply_to = &ReplyTo {
            source: Some(source),
            ..*reply_to
        };
        if hit.is_refusal() {
            let outcome = Outcome::Rebinding;
            self.reply_error(client, reply_to, outcome, usize::MAX, since, replies);
            return outcome;
        }
        let outcome = if hit.is_stale() {
            Outcome::Stale
        } else if hit.is_failure() {
            Outcome::CachedFailure
        } else {
            Outcome::Cached
        };
        let tag = outcome.tag(goodness);
        replies.push_answer(client, tag, reply_to, &hit.answer(), hit.reply_options());
        self.record_outcome(client, reply_to.question, outcome, since);
        outcome
    }

    /// Answers a client, whose query came at `since`, with an answer that was written here.
    pub(super) fn answer_locally(
        &self,
        client: &Client,
        reply_to: &ReplyTo<'_>,
        answer: &Answer<'_>,
        since: Instant,
        replies: &mut ReplyBatch,
    ) {
        let reply_to = &ReplyTo {
            source: Some(Source::Local),
            ..*reply_to
        };
        let tag = Outcome::Local.tag(Goodness::No);
        replies.push_answer(client, tag, reply_to, answer, &ReplyOptions::default());
        self.record_outcome(client, reply_to.question, Outcome::Local, since);
    }

    /// Answers a message that could not be parsed, unless it is too short or a response.
    pub(super) fn reply_malformed(
        &self,
        message: &[u8],
        client: &Client,
        fault: ParseError,
        since: Instant,
        replies: &mut ReplyBatch,
    ) {
        debug!(
            "event=query-malformed client={} cause=\"{fault}\"",
            client.peer()
        );
        match ReplyTo::from_malformed(message) {
            Some(reply_to) => {
                let max_len = message.len();
                self.reply_error(client, &reply_to, fault.into(), max_len, since, replies);
            }
            None => self.record_outcome(client, &[], fault.into(), since),
        }
    }

    /// Answers with the outcome's response code and EDE, in at most `max_len` octets: with the length of the query as the limit, a forged
    /// source address amplifies nothing (RFC 5358).
    pub(super) fn reply_error(
        &self,
        client: &Client,
        reply_to: &ReplyTo<'_>,
        outcome: Outcome,
        max_len: usize,
        since: Instant,
        replies: &mut ReplyBatch,
    ) {
        if let Some((rcode, ede)) = outcome.reply() {
            let tag = outcome.tag(Goodness::No);
            replies.push_reply(client, tag, reply_to, rcode, ede, max_len);
        }
        self.record_outcome(client, reply_to.question, outcome, since);
    }

    /// Counts and logs the outcome of a query that came at `since`. Every query passes here once.
    pub(super) fn record_outcome(
        &self,
        client: &Client,
        question: &[u8],
        outcome: Outcome,
        since: Instant,
    ) {
        let tcp = matches!(client, Client::Stream(_));
        self.counts.add(tcp, outcome);
        if self.query_log.is_on() {
            self.query_log.push(QueryRecord {
                time: clock::unix_time(),
                client: client.peer(),
                tcp,
                question: question.into(),
                outcome: outcome.name(),
                took: clock::now().saturating_duration_since(since),
            });
        }
        if log_enabled!(Level::Debug) {
            let (client, question) = (client.peer(), QuestionPresentation(question));
            debug!(
                "event=query client={client} question=\"{question}\" outcome={}",
                outcome.name()
            );
        }
    }
}

/// Where the answer to a query with this result comes from; for a failure, where it would have come from. None if the query was not sent.
fn source_after(query: &Query, result: Result<&Answer<'_>, Outcome>) -> Option<Source> {
    match result {
        Err(Outcome::Overloaded) => None,
        _ => Some(query.source()),
    }
}

/// Whether a query with this result shows that the resolver responds.
fn shows_that_resolver_answers(result: Result<&Answer<'_>, Failure>) -> bool {
    match result {
        Ok(answer) => !is_failure(answer),
        Err(failure) => failure == Failure::MalformedResponse,
    }
}

/// Whether the resolver could not answer, which may have nothing to do with the name.
fn is_failure(answer: &Answer<'_>) -> bool {
    matches!(answer.rcode(), rcode::SERVFAIL | rcode::REFUSED) && !answer.is_conclusive_error()
}

impl Replies for ReplyBatch {
    fn send(&mut self) {
        Self::send(self);
    }
}

impl Completer<Query, ReplyBatch> for QueryCompleter {
    fn complete(
        &self,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        query.mark_ended();
        // A failure that the resolver sent says more than one found here.
        let failure = query.take_fallback();
        let failure = failure.as_deref().map(Answer::parse);
        let result = match (result, &failure) {
            (Err(_), Some(Ok(failure))) => Ok(failure),
            _ => result,
        };
        if shows_that_resolver_answers(result) {
            self.cache.note_response(query.responder(), now);
        }
        if query.is_rebind_protected() && result.is_ok_and(names_private_address) {
            return self.refuse(query, now, replies);
        }
        let reply = result.map_err(Outcome::from);
        let Some(key) = query.key() else {
            return self.answer_all_waiters(query, reply, None, now, replies);
        };
        if self.predates_flush(query) {
            self.in_flight.remove(query);
            return self.answer_all_waiters(query, reply, None, now, replies);
        }
        let (hit, successor) = self.record_and_remove(&key, query, result, now);
        // After a flush, the clients of the newer query wait for its own answer.
        let successor = successor.filter(|_| !self.predates_flush(query));
        self.answer_all_waiters(query, reply, hit.as_ref(), now, replies);
        // The answer to the older query also serves the clients that the newer one has taken over.
        if let (Some(successor), Ok(_)) = (successor, result) {
            self.answer_all_waiters(&successor, reply, hit.as_ref(), now, replies);
        }
    }

    fn resolver_recovered(&self, now: Instant) {
        Responder::all().for_each(|responder| self.cache.note_response(responder, now));
    }

    fn serve_due_waiters(&self, query: &Query, now: Instant, replies: &mut ReplyBatch) {
        let Some(key) = query.key() else { return };
        let mut hit = if query.clients().is_stale_due(now) {
            self.cache.servable(&key, now)
        } else {
            None
        };
        let waiters = if hit.is_some() {
            query.clients().take_waiters()
        } else {
            query.clients().take_expired(now)
        };
        let result = Err(Failure::TimedOut);
        if hit.is_none() && !waiters.is_empty() {
            // The first client that times out makes the query a failure, though other clients still wait.
            hit = if query.mark_timed_out() && !self.predates_flush(query) {
                self.record_result(&key, query, result, now)
            } else {
                self.cache.servable(&key, now)
            };
        }
        let reply = result.map_err(Outcome::from);
        self.answer_waiters(waiters, query, reply, hit.as_ref(), now, replies);
        query.clients().reschedule(now);
    }
}
