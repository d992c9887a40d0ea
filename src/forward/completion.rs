//! What becomes of a query that has ended?
//!
//! Its clients get their answers, the answer is kept, and each of their queries is counted with its outcome. Those that never go to
//! the resolver end here too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use log::{Level, log_enabled};

use crate::cache::{self, Cache, Kept};
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::counts::{Counts, Source};
use crate::forward::flights::Flights;
use crate::forward::in_flight::Query;
use crate::forward::outcome::Outcome;
use crate::forward::waiters::Waiters;
use crate::forward::waiting::Waiting;
use crate::message::{self, Answer, Asked, Fault, Shown, Spelled, rcode};
use crate::system::clock::{self, micros};
use crate::system::memory::Memory;
use crate::telemetry::log::debug;
use crate::telemetry::query_log::{Line, QueryLog};
use crate::upstream::{Completer, Failure, Query as _, Replies};

/// Where every query comes out: answers its clients, keeps the answer, and counts how it ended.
#[derive(Debug)]
pub struct Endings {
    cache: Cache,
    pub(super) flights: Flights,
    start: Instant,
    /// What was asked before this moment, in microseconds since the start, is for those who asked and for nobody else.
    forgotten: AtomicU64,
    pub(super) waiting: Waiting,
    memory: Arc<Memory>,
    counts: Counts,
    query_log: Arc<QueryLog>,
}

impl Endings {
    /// Nothing has come out yet. What queries hold is paid for in `memory`.
    pub fn new(settings: cache::Settings, memory: &Arc<Memory>, now: Instant) -> Self {
        Self {
            cache: Cache::new(settings, now),
            flights: Flights::default(),
            start: now,
            forgotten: AtomicU64::new(0),
            waiting: Waiting::default(),
            memory: Arc::clone(memory),
            counts: Counts::new(),
            query_log: QueryLog::new(Arc::clone(memory)),
        }
    }

    /// Clients' queries whose answer has not left.
    pub fn waiting(&self) -> usize {
        self.waiting.count()
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
    pub fn forget(&self, now: Instant) -> usize {
        let moment = 1 + micros(now.saturating_duration_since(self.start));
        self.forgotten.store(moment, Ordering::SeqCst);
        self.part();
        self.cache.empty()
    }

    /// Sees to it that nobody who asks from now on waits for what is on its way.
    pub fn part(&self) {
        self.flights.close();
    }

    /// Whether the answer to `query` is for nobody but those who wait for it.
    fn is_forgotten(&self, query: &Query) -> bool {
        let began = micros(query.started_at().saturating_duration_since(self.start));
        began < self.forgotten.load(Ordering::SeqCst)
    }

    /// Has the ending of `query` kept, unless all is forgotten meanwhile.
    fn note(
        &self,
        key: &message::Key<'_>,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> Option<Kept> {
        let kept = if query.is_outage() {
            self.cache.note_outage(key, ending, now)
        } else {
            self.cache.note(key, ending, query.started_at(), now)
        };
        // Whoever forgets says so before it empties: either that is seen here, or this is emptied there.
        if self.is_forgotten(query) {
            self.cache.remove(key);
        }
        kept
    }

    /// Has the ending of `query` kept and lets nobody join it any more. Returns what is kept in place of that ending, and the query
    /// that has taken over its clients, if there is one.
    fn note_and_land(
        &self,
        key: &message::Key<'_>,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
    ) -> (Option<Kept>, Option<Arc<Query>>) {
        let note = || self.note(key, query, ending, now);
        if ending.is_ok() {
            // In this order: whoever asks the same meanwhile finds it in one of the two.
            return (note(), self.flights.land(query));
        }
        // While another one is on its way nothing has failed yet; and what was said to fail has.
        let successor = self.flights.land(query);
        let is_first = successor.is_none() && !query.is_overdue();
        let kept = if is_first {
            note()
        } else {
            self.cache.any(key, now)
        };
        (kept, successor)
    }

    /// Answers all clients that wait for `query`: with what is kept, if there is something `instead` of its ending.
    pub(super) fn end_all_waiters(
        &self,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        instead: Option<&Kept>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        let waiters = query.clients().take_waiters();
        self.end_waiters(waiters, query, ending, instead, now, replies);
    }

    /// Answers these clients, which waited for `query`.
    fn end_waiters(
        &self,
        waiters: Waiters,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        instead: Option<&Kept>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        for waiter in waiters {
            let (client, asked) = (&waiter.client, &waiter.asked(query.question()));
            let since = waiter.since;
            let (source, outcome) = match (instead, ending) {
                (Some(kept), _) => {
                    let outcome = self.give(client, asked, kept, since, replies);
                    (Source::Cache, outcome)
                }
                (None, Ok(answer)) => {
                    if query.is_signed() {
                        replies.push_signed(client, asked, answer);
                    } else {
                        replies.push_answer(client, asked, answer, &Shown::default());
                    }
                    self.end(client, asked.question, Outcome::Answered, since);
                    (Source::Resolver, Outcome::Answered)
                }
                (None, Err(failure)) => {
                    let outcome = failure.into();
                    self.refuse(client, asked, outcome, usize::MAX, since, replies);
                    (Source::Resolver, outcome)
                }
            };
            let took = now.saturating_duration_since(since);
            self.counts
                .measure(source, took, 1, outcome.is_served().into());
            self.waiting.end(waiter.place, waiter.octets);
            replies.count_down(self.waiting.counter());
        }
    }

    /// Answers a client, which asked at `since`, with what is kept.
    pub(super) fn give(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        kept: &Kept,
        since: Instant,
        replies: &mut ReplyBatch,
    ) -> Outcome {
        replies.push_answer(client, asked, &kept.answer(), kept.shown());
        let outcome = if kept.is_stale() {
            Outcome::Stale
        } else if kept.is_failure() {
            Outcome::FailedBefore
        } else {
            Outcome::Cached
        };
        self.end(client, asked.question, outcome, since);
        outcome
    }

    /// Answers a message that could not be read, as far as an answer is owed to it.
    pub(super) fn reply_unreadable(
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
                let most = message.len();
                self.refuse(client, &asked, fault.into(), most, since, replies);
            }
            None => self.end(client, &[], fault.into(), since),
        }
    }

    /// Replies with no more octets than that: whoever forges a client's address shall gain nothing.
    pub(super) fn refuse(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        outcome: Outcome,
        most: usize,
        since: Instant,
        replies: &mut ReplyBatch,
    ) {
        if let Some((rcode, ede)) = outcome.reply() {
            replies.push_reply(client, asked, rcode, ede, most);
        }
        self.end(client, asked.question, outcome, since);
    }

    /// The one line in which every query is counted, that was asked at `since`.
    pub(super) fn end(&self, client: &Client, question: &[u8], outcome: Outcome, since: Instant) {
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
fn shows_that_resolver_answers(ending: Result<&Answer<'_>, Failure>) -> bool {
    match ending {
        Ok(answer) => !is_failure(answer),
        Err(failure) => failure == Failure::MalformedResponse,
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

impl Completer<Query, ReplyBatch> for Endings {
    fn complete(
        &self,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        replies: &mut ReplyBatch,
    ) {
        query.end();
        // A failure of the resolver's says more than one of ours.
        let failure = query.take_kept();
        let failure = failure.as_deref().map(Answer::parse);
        let ending = match (ending, &failure) {
            (Err(_), Some(Ok(failure))) => Ok(failure),
            _ => ending,
        };
        if shows_that_resolver_answers(ending) {
            self.cache.hear(now);
        }
        let Some(key) = query.key() else {
            return self.end_all_waiters(query, ending, None, now, replies);
        };
        if self.is_forgotten(query) {
            self.flights.land(query);
            return self.end_all_waiters(query, ending, None, now, replies);
        }
        let (kept, successor) = self.note_and_land(&key, query, ending, now);
        // Who asked after all was forgotten waits for an answer from after it.
        let successor = successor.filter(|_| !self.is_forgotten(query));
        self.end_all_waiters(query, ending, kept.as_ref(), now, replies);
        // An answer is an answer, whichever of two queries for it brought it.
        if let (Some(successor), Ok(_)) = (successor, ending) {
            self.end_all_waiters(&successor, ending, kept.as_ref(), now, replies);
        }
    }

    fn resolver_recovered(&self, now: Instant) {
        self.cache.hear(now);
    }

    fn serve_due_waiters(&self, query: &Query, now: Instant, replies: &mut ReplyBatch) {
        let Some(key) = query.key() else { return };
        let mut kept = if query.clients().is_late(now) {
            self.cache.any(&key, now)
        } else {
            None
        };
        let waiters = if kept.is_some() {
            query.clients().take_waiters()
        } else {
            query.clients().take_overdue(now)
        };
        let ending = Err(Failure::TimedOut);
        if kept.is_none() && !waiters.is_empty() {
            // The first whose time is over makes it a failure, though others wait on.
            kept = if query.fall_overdue() && !self.is_forgotten(query) {
                self.note(&key, query, ending, now)
            } else {
                self.cache.any(&key, now)
            };
        }
        self.end_waiters(waiters, query, ending, kept.as_ref(), now, replies);
        query.clients().look_again(now);
    }
}
