//! What becomes of a query that has ended?
//!
//! Its clients get their answers, the answer is kept, and each of their queries is counted with its outcome. Those that never go to
//! the resolver end here too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::{Level, log_enabled};

use crate::cache::{self, Cache, CacheHit};
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::counts::{AnswerSource, Counts};
use crate::forward::in_flight::Query;
use crate::forward::in_flight_table::InFlightTable;
use crate::forward::outcome::Outcome;
use crate::forward::quota::QueryQuota;
use crate::forward::waiters::Waiters;
use crate::message::{self, Answer, Asked, Fault, Shown, Spelled, rcode};
use crate::system::clock::{self, micros};
use crate::system::memory::Memory;
use crate::telemetry::log::debug;
use crate::telemetry::query_log::{Line, QueryLog};
use crate::upstream::{Failure, Query as _, Replies, Settle};

/// Where every query comes out: answers its clients, keeps the answer, and counts how it ended.
#[derive(Debug)]
pub struct Completer {
    cache: Cache,
    pub(super) in_flight: InFlightTable,
    start: Instant,
    /// What was asked before this moment, in microseconds since the start, is for those who asked and for nobody else.
    flushed_at: AtomicU64,
    pub(super) quota: QueryQuota,
    memory: Arc<Memory>,
    counts: Counts,
    query_log: Arc<QueryLog>,
}

impl Completer {
    /// Nothing has come out yet. What queries hold is paid for in `memory`.
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

    /// Clients' queries whose answer has not left.
    pub fn queries_in_flight(&self) -> usize {
        self.quota.count()
    }

    /// What messages hold.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// How many queries ended how, and how soon.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Where lines about single queries go.
    pub fn query_log(&self) -> &Arc<QueryLog> {
        &self.query_log
    }

    /// What is kept.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Forgets what is known, and sees to it that what is on its way does not become known; returns how many entries there
    /// were.
    pub fn flush(&self, now: Instant) -> usize {
        let moment = 1 + micros(now.saturating_duration_since(self.start));
        self.flushed_at.store(moment, Ordering::SeqCst);
        self.detach_in_flight();
        self.cache.clear()
    }

    /// Sees to it that nobody who asks from now on waits for what is on its way.
    pub fn detach_in_flight(&self) {
        self.in_flight.detach_all();
    }

    /// Whether the answer to `query` is for nobody but those who wait for it.
    fn predates_flush(&self, query: &Query) -> bool {
        let began = micros(query.began().saturating_duration_since(self.start));
        began < self.flushed_at.load(Ordering::SeqCst)
    }

    /// Has the ending of `query` kept, unless all is forgotten meanwhile.
    fn record_result(
        &self,
        key: &message::Key<'_>,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> Option<CacheHit> {
        let hit = if query.is_outage() {
            self.cache.record_outage(key, result, now)
        } else {
            self.cache.record_result(key, result, query.began(), now)
        };
        // Whoever forgets says so before it empties: either that is seen here, or this is emptied there.
        if self.predates_flush(query) {
            self.cache.remove(key);
        }
        hit
    }

    /// Has the ending of `query` kept and lets nobody join it any more. Returns what is kept in place of that ending, and the query
    /// that has taken over its clients, if there is one.
    fn record_and_remove(
        &self,
        key: &message::Key<'_>,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> (Option<CacheHit>, Option<Arc<Query>>) {
        let record_result = || self.record_result(key, query, result, now);
        if result.is_ok() {
            // In this order: whoever asks the same meanwhile finds it in one of the two.
            return (record_result(), self.in_flight.remove(query));
        }
        // While another one is on its way nothing has failed yet; and what was said to fail has.
        let successor = self.in_flight.remove(query);
        let is_first = successor.is_none() && !query.has_timed_out();
        let hit = if is_first {
            record_result()
        } else {
            self.cache.servable(key, now)
        };
        (hit, successor)
    }

    /// Answers all clients that wait for `query`: with what is kept, if there is something `replacement` of its ending.
    pub(super) fn answer_all_waiters(
        &self,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        replacement: Option<&CacheHit>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let waiters = query.clients().take_waiters();
        self.answer_waiters(waiters, query, result, replacement, now, replies);
    }

    /// Answers these clients, which waited for `query`.
    fn answer_waiters(
        &self,
        waiters: Waiters,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        replacement: Option<&CacheHit>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        for waiter in waiters {
            let (client, asked) = (&waiter.client, &waiter.asked(query.question()));
            let since = waiter.since;
            let (source, outcome) = match (replacement, result) {
                (Some(hit), _) => {
                    let outcome = self.answer_from_cache(client, asked, hit, since, replies);
                    (AnswerSource::Cache, outcome)
                }
                (None, Ok(answer)) => {
                    if query.is_signed() {
                        replies.push_signed(client, asked, answer);
                    } else {
                        replies.push_answer(client, asked, answer, &Shown::default());
                    }
                    self.record_outcome(client, asked.question, Outcome::Answered, since);
                    (AnswerSource::Resolver, Outcome::Answered)
                }
                (None, Err(failure)) => {
                    let outcome = failure.into();
                    self.reply_error(client, asked, outcome, usize::MAX, since, replies);
                    (AnswerSource::Resolver, outcome)
                }
            };
            let took = now.saturating_duration_since(since);
            self.counts
                .record_latency(source, took, 1, outcome.is_served().into());
            self.quota.release(waiter.slot, waiter.octets);
            replies.count_down(self.quota.counter());
        }
    }

    /// Answers a client, which asked at `since`, with what is kept.
    pub(super) fn answer_from_cache(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        hit: &CacheHit,
        since: Instant,
        replies: &mut ReplyBatch,
    ) -> Outcome {
        replies.push_answer(client, asked, &hit.answer(), hit.reply_options());
        let outcome = if hit.is_stale() {
            Outcome::Stale
        } else if hit.is_failure() {
            Outcome::CachedFailure
        } else {
            Outcome::Cached
        };
        self.record_outcome(client, asked.question, outcome, since);
        outcome
    }

    /// Answers a message that could not be read, as far as an answer is owed to it.
    pub(super) fn reply_malformed(
        &self,
        message: &[u8],
        client: &Client,
        fault: Fault,
        since: Instant,
        replies: &mut ReplyBatch,
    ) {
        debug!(
            "event=unreadable client={} cause=\"{fault}\"",
            client.peer()
        );
        match Asked::by_unreadable(message) {
            Some(asked) => {
                let max_queries = message.len();
                self.reply_error(client, &asked, fault.into(), max_queries, since, replies);
            }
            None => self.record_outcome(client, &[], fault.into(), since),
        }
    }

    /// Replies with no more octets than that: whoever forges a client's address shall gain nothing.
    pub(super) fn reply_error(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        outcome: Outcome,
        max_queries: usize,
        since: Instant,
        replies: &mut ReplyBatch,
    ) {
        if let Some((rcode, ede)) = outcome.reply() {
            replies.push_reply(client, asked, rcode, ede, max_queries);
        }
        self.record_outcome(client, asked.question, outcome, since);
    }

    /// The one line in which every query is counted, that was asked at `since`.
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
            self.query_log.say(Line {
                time: clock::since_1970(),
                client: client.peer(),
                tcp,
                question: question.into(),
                outcome: outcome.name(),
                took: clock::now().saturating_duration_since(since),
            });
        }
        if log_enabled!(Level::Debug) {
            let (client, question) = (client.peer(), Spelled(question));
            debug!(
                "event=query client={client} question=\"{question}\" outcome={}",
                outcome.name()
            );
        }
    }
}

/// Whether a query that ended so shows that the resolver answers.
fn shows_that_resolver_answers(result: Result<&Answer<'_>, Failure>) -> bool {
    match result {
        Ok(answer) => !is_failure(answer),
        Err(failure) => failure == Failure::Unreadable,
    }
}

/// Whether the resolver could not answer, for a reason that may not lie in the name.
fn is_failure(answer: &Answer<'_>) -> bool {
    matches!(answer.rcode(), rcode::SERVFAIL | rcode::REFUSED) && !answer.is_verdict()
}

impl Replies for ReplyBatch {
    fn send(&mut self) {
        Self::send(self);
    }
}

impl Settle<Query, ReplyBatch> for Completer {
    fn settle(
        &self,
        query: &Query,
        result: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        query.mark_ended();
        // A failure of the resolver's says more than one of ours.
        let failure = query.take_fallback();
        let failure = failure.as_deref().map(Answer::parse);
        let result = match (result, &failure) {
            (Err(_), Some(Ok(failure))) => Ok(failure),
            _ => result,
        };
        if shows_that_resolver_answers(result) {
            self.cache.note_response(now);
        }
        let Some(key) = query.key() else {
            return self.answer_all_waiters(query, result, None, now, replies);
        };
        if self.predates_flush(query) {
            self.in_flight.remove(query);
            return self.answer_all_waiters(query, result, None, now, replies);
        }
        let (hit, successor) = self.record_and_remove(&key, query, result, now);
        // Who asked after all was forgotten waits for an answer from after it.
        let successor = successor.filter(|_| !self.predates_flush(query));
        self.answer_all_waiters(query, result, hit.as_ref(), now, replies);
        // An answer is an answer, whichever of two queries for it brought it.
        if let (Some(successor), Ok(_)) = (successor, result) {
            self.answer_all_waiters(&successor, result, hit.as_ref(), now, replies);
        }
    }

    fn recover(&self, now: Instant) {
        self.cache.note_response(now);
    }

    fn look_after(&self, query: &Query, now: Instant, replies: &mut ReplyBatch) {
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
            // The first whose time is over makes it a failure, though others wait on.
            hit = if query.mark_timed_out() && !self.predates_flush(query) {
                self.record_result(&key, query, result, now)
            } else {
                self.cache.servable(&key, now)
            };
        }
        self.answer_waiters(waiters, query, result, hit.as_ref(), now, replies);
        query.clients().reschedule(now);
    }
}
