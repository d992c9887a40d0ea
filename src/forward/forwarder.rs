//! What happens to this query?
//!
//! The policy in order, the same for every transport. Each query ends in one [`Outcome`], from which the response code,
//! the EDE, the count and the log line follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::{Level, log_enabled};
use parking_lot::Mutex;

use crate::cache::{self, Ask, Cache, Found, Kept};
use crate::client::connection::Connection;
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::checks::refusal;
use crate::forward::counts::{Counts, Source};
use crate::forward::flights::{Decision, Flights, Spares};
use crate::forward::in_flight::Query;
use crate::forward::outcome::Outcome;
use crate::forward::policy::{Policy, Settings, Upstream, Work};
use crate::forward::rate_limit::Verdict;
use crate::forward::waiters::{Waiter, Waiters};
use crate::forward::waiting::{self, Place, Waiting};
use crate::message::{self, Answer, Asked, Fault, Shown, Spelled, rcode};
use crate::system::clock::{self, micros};
use crate::system::memory::{Memory, Purpose};
use crate::telemetry::log::debug;
use crate::telemetry::query_log::{Line, QueryLog};
use crate::upstream::{Failure, Query as _, Replies, Settle};

/// How long a client waits for a fresh answer before it gets an expired one (RFC 8767 section 5), unless half of its time
/// is less.
const PATIENCE: Duration = Duration::from_millis(1800);

/// What a thread that brings queries keeps from one batch to the next.
#[derive(Default)]
pub struct Batch {
    queries: Vec<Arc<Query>>,
    spares: Spares,
    /// How many queries the last batch had for the resolver.
    before: usize,
    work: Work,
    replies: ReplyBatch,
    over_limit: bool,
    terse: bool,
    /// Clients that were given what is kept, and how many of them no failure.
    given: u64,
    served: u64,
    policy: Option<Arc<Policy>>,
    /// Of that policy.
    generation: usize,
}

impl Batch {
    /// That of a thread that reads this connection alone, and may wait for a moment until there is memory for what it answers.
    pub fn patient(connection: &Connection) -> Self {
        Self {
            replies: ReplyBatch::patient(connection),
            ..Self::default()
        }
    }

    /// Whether a client asked too much, or what it may not, since the last call.
    pub fn was_over_limit(&mut self) -> bool {
        std::mem::take(&mut self.over_limit)
    }

    /// Whether so much is to be sent to clients that it should be, by [`Forwarder::dispatch`], before more is taken in.
    pub fn is_large(&self) -> bool {
        self.replies.is_large()
    }

    /// Whether who asks by datagram, and finds no place to wait, is told nothing from now on: while more datagrams come
    /// than can be read, the time that telling takes would be taken from those who can be answered.
    pub fn be_terse(&mut self, terse: bool) {
        self.terse = terse;
    }
}

/// Where every query goes in.
pub struct Forwarder {
    endings: Arc<Endings>,
    policy: Mutex<Arc<Policy>>,
    /// How many policies there were, so that whoever holds one sees without a lock that there is another.
    generation: AtomicUsize,
}

impl Forwarder {
    /// Relays by `upstream`, whose queries end in `endings` too.
    pub fn new(
        settings: Settings,
        upstream: Arc<Upstream>,
        endings: Arc<Endings>,
        now: Instant,
    ) -> Self {
        endings.counts.aim(settings.slo_latency);
        let policy = Policy::new(settings, upstream, now);
        Self {
            endings,
            policy: Mutex::new(Arc::new(policy)),
            generation: AtomicUsize::new(1),
        }
    }

    /// Has these settings hold from now on for queries that come in, and sends those to `upstream`. The size of the cache
    /// stays. Only then may another upstream that had them be retired.
    pub fn change(&self, settings: Settings, upstream: Arc<Upstream>, now: Instant) {
        self.endings.cache.serve_stale(settings.cache.serve_stale);
        self.endings.counts.aim(settings.slo_latency);
        let mut policy = self.policy.lock();
        *policy = Arc::new(policy.with(settings, upstream, now));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Where queries that come in now go.
    pub fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.policy.lock().upstream)
    }

    /// The policy that holds now.
    fn policy<'b>(&self, held: &'b mut Option<Arc<Policy>>, generation: &mut usize) -> &'b Policy {
        let now = self.generation.load(Ordering::SeqCst);
        if *generation != now {
            (*held, *generation) = (None, now);
        }
        held.get_or_insert_with(|| Arc::clone(&self.policy.lock()))
    }

    /// What holds for queries that come in now.
    pub fn settings(&self) -> Settings {
        self.policy.lock().settings.clone()
    }

    /// Clients' queries whose answer has not left.
    pub fn waiting(&self) -> usize {
        self.endings.waiting()
    }

    /// What messages hold.
    pub fn memory(&self) -> &Arc<Memory> {
        self.endings.memory()
    }

    /// Takes in one client's message. Its answer, or its way to the resolver, waits for [`Forwarder::dispatch`].
    pub fn handle(&self, message: &[u8], client: Client, now: Instant, batch: &mut Batch) {
        let endings = &self.endings;
        let replies = &mut batch.replies;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let is_datagram = matches!(client, Client::Datagram { .. });
        let verdict = policy.limiter.judge(client.peer().ip(), is_datagram, now);
        if verdict == Verdict::Drop && is_datagram {
            return endings.end(&client, &[], Outcome::Dropped, now);
        }
        batch.over_limit |= verdict != Verdict::Pass;
        let query = match message::Query::parse(message) {
            Ok(query) => query,
            // Nothing is owed to it that it could be told.
            Err(_) if verdict != Verdict::Pass => {
                return endings.end(&client, &[], Outcome::Dropped, now);
            }
            Err(fault) => {
                return endings.reply_unreadable(message, &client, fault, now, replies);
            }
        };
        let refusal = refusal(verdict, &query);
        let asked = Asked::by(&query);
        if refusal == Some(Outcome::OverLimit) && is_datagram {
            replies.push_tc(&client, &asked);
            return endings.end(&client, asked.question, Outcome::OverLimit, now);
        }
        if let Some(outcome) = refusal {
            let most = message.len();
            return endings.refuse(&client, &asked, outcome, most, now, replies);
        }
        self.look_up(&query, client, now, batch);
    }

    /// Answers a query that may be asked from what is known, or has it go on to the resolver; or both, where what is known is
    /// to be renewed.
    fn look_up(&self, query: &message::Query<'_>, client: Client, now: Instant, batch: &mut Batch) {
        let endings = &self.endings;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let timeout = policy.upstream.query_time();
        let key = query.key();
        let found = match &key {
            Some(key) => endings.cache.find(key, now),
            None => Found::Nothing,
        };
        let (kept, ask) = match found {
            Found::Nothing => (None, Some(Ask::First)),
            Found::Fresh { kept, renew: true } => (Some(kept), Some(Ask::Behind)),
            Found::Fresh { kept, renew: false } | Found::Failed(kept) => (Some(kept), None),
            Found::Stale { kept, ask } => (Some(kept), Some(ask)),
        };
        // Where something is known, it is given to whoever would wait for longer than that.
        let patience = kept.as_ref().map(|_| PATIENCE.min(timeout / 2));
        let relay = Relay {
            query,
            key: key.as_ref(),
            timeout,
            patience,
            most_waiting: policy.settings.max_pending,
        };
        if ask == Some(Ask::First) {
            let Batch { spares, before, .. } = batch;
            if let Some((going, waits)) = endings.relay_for(relay, &client, now, spares, *before) {
                endings.counts.add_miss();
                going.clients().add(Waiter::new(
                    query,
                    client,
                    now,
                    going.clients().timeout(),
                    waits,
                ));
                return batch.queries.push(going);
            }
        }
        let asked = Asked::by(query);
        let replies = &mut batch.replies;
        let Some(kept) = kept else {
            let outcome = Outcome::Overloaded;
            if batch.terse && matches!(client, Client::Datagram { .. }) {
                return endings.end(&client, asked.question, outcome, now);
            }
            return endings.refuse(&client, &asked, outcome, usize::MAX, now, replies);
        };
        let outcome = endings.give(&client, &asked, &kept, now, replies);
        batch.given += 1;
        batch.served += u64::from(outcome.is_served());
        if ask == Some(Ask::Behind)
            && let Some(going) =
                endings.relay(&relay, relay.cost(), now, &mut batch.spares, batch.before)
        {
            endings.counts.add_renewal();
            batch.queries.push(going);
        }
    }

    /// Counts a message that nobody can have sent.
    pub fn ignore(&self) {
        self.endings.counts.add(false, Outcome::Ignored);
    }

    /// Sends on what [`Forwarder::handle`] took in.
    pub fn dispatch(&self, batch: &mut Batch, now: Instant) {
        let Batch {
            queries,
            spares,
            before,
            work,
            replies,
            policy,
            generation,
            ..
        } = batch;
        *before = queries.len();
        if !queries.is_empty() || !spares.is_empty() {
            let policy = self.policy(policy, generation);
            self.endings.board(policy, queries, spares, now, replies);
        }
        // An upstream that takes no more has been replaced before, so the next one is there to be found.
        while !queries.is_empty() {
            let policy = self.policy(policy, generation);
            policy.upstream.submit(queries, work, replies, now);
        }
        replies.send();
        let given = std::mem::take(&mut batch.given);
        let served = std::mem::take(&mut batch.served);
        if given > 0 {
            let took = clock::now().saturating_duration_since(now);
            self.endings
                .counts
                .measure(Source::Cache, took, given, served);
        }
    }

    /// Waits until every client has its answer, at most as long as a query may take that comes in now, or `before` for
    /// those that came in when that was longer.
    pub fn finish(&self, before: Duration) {
        let deadline = clock::now() + self.policy.lock().settings.timeout.max(before);
        while self.endings.waiting() > 0 && clock::now() < deadline {
            sleep(Duration::from_millis(10));
        }
    }
}

/// A query that is to go on to the resolver.
#[derive(Clone, Copy)]
struct Relay<'q> {
    query: &'q message::Query<'q>,
    key: Option<&'q message::Key<'q>>,
    /// How long it may take.
    timeout: Duration,
    /// After so long who waits is content with an expired answer, if there is one.
    patience: Option<Duration>,
    /// Queries of one client that may wait.
    most_waiting: usize,
}

impl Relay<'_> {
    /// Octets that it holds while it is on its way.
    fn cost(&self) -> usize {
        Query::cost(self.query, self.key)
    }
}

/// Where every query comes out: answers its clients, keeps the answer, and counts how it ended.
#[derive(Debug)]
pub struct Endings {
    cache: Cache,
    flights: Flights,
    start: Instant,
    /// What was asked before this moment, in microseconds since the start, is for those who asked and for nobody else.
    forgotten: AtomicU64,
    waiting: Waiting,
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
        let began = micros(query.began().saturating_duration_since(self.start));
        began < self.forgotten.load(Ordering::SeqCst)
    }

    /// Makes a query ready to be sent for which `client` waits, and says where and with how many octets that is counted. None if
    /// there is no room for it, which is seen before anything is copied.
    fn relay_for(
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
            free: self.memory.free(Purpose::Queries).saturating_sub(cost),
            share: self.memory.share(Purpose::Queries),
        };
        // One query has some kilobytes at most.
        let octets = cost as u32;
        let place = match self.waiting.admit(places, octets, &bounds) {
            Ok(place) => place,
            Err(waiting::Refusal::Number) => return None,
            Err(waiting::Refusal::Octets) => {
                self.memory.refuse(Purpose::Queries);
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
    fn relay(
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
        spares.reuse(&self.memory, cost, now, |going| {
            going.begin(relay.query, relay.key, now, relay.timeout);
            if let Some(patience) = relay.patience {
                going.clients_mut().be_content_after(patience);
            }
        })
    }

    /// Sees to it that equal queries go as one, and that no more are sent than may be.
    fn board(
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
            let kept = query.key().and_then(|key| self.cache.any(&key, now));
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
            self.end_waiters(
                query.clients().take_waiters(),
                &query,
                ending,
                Some(&kept),
                now,
                replies,
            );
        }
        for flight in joined.iter().filter(|flight| flight.clients().is_late(now)) {
            self.look_after(flight, now, replies);
        }
        queries.retain(|query| {
            // Those that share with nobody were not asked about.
            let granted = if query.is_shared() {
                !too_many.contains(&Arc::as_ptr(query))
            } else {
                policy.budget.take(1, now) == 1
            };
            if !granted {
                self.settle(query, Err(Failure::Overloaded), now, replies);
            }
            granted
        });
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
            self.cache.note(key, ending, query.began(), now)
        };
        // Whoever forgets says so before it empties: either that is seen here, or this is emptied there.
        if self.is_forgotten(query) {
            self.cache.remove(key);
        }
        kept
    }

    /// Answers clients that wait for `query`: with what is kept, if there is something `instead` of its ending.
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
    fn give(
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

    fn reply_unreadable(
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
    fn refuse(
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
    fn end(&self, client: &Client, question: &[u8], outcome: Outcome, since: Instant) {
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

/// Whether the resolver could not answer, for a reason that may not lie in the name.
fn is_failure(answer: &Answer<'_>) -> bool {
    matches!(answer.rcode(), rcode::SERVFAIL | rcode::REFUSED) && !answer.is_verdict()
}

impl Replies for ReplyBatch {
    fn send(&mut self) {
        Self::send(self);
    }
}

impl Settle<Query, ReplyBatch> for Endings {
    fn settle(
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
        let says_something = match ending {
            Ok(answer) => !is_failure(answer),
            Err(failure) => failure == Failure::Unreadable,
        };
        if says_something {
            self.cache.hear(now);
        }
        let Some(key) = query.key() else {
            return self.end_waiters(
                query.clients().take_waiters(),
                query,
                ending,
                None,
                now,
                replies,
            );
        };
        if self.is_forgotten(query) {
            self.flights.land(query);
            return self.end_waiters(
                query.clients().take_waiters(),
                query,
                ending,
                None,
                now,
                replies,
            );
        }
        let note = || self.note(&key, query, ending, now);
        let (kept, successor) = if ending.is_ok() {
            // In this order: whoever asks the same meanwhile finds it in one of the two.
            (note(), self.flights.land(query))
        } else {
            // While another one is on its way nothing has failed yet; and what was said to fail has.
            let successor = self.flights.land(query);
            let news = successor.is_none() && !query.is_overdue();
            let kept = if news {
                note()
            } else {
                self.cache.any(&key, now)
            };
            (kept, successor)
        };
        // Who asked after all was forgotten waits for an answer from after it.
        let successor = successor.filter(|_| !self.is_forgotten(query));
        self.end_waiters(
            query.clients().take_waiters(),
            query,
            ending,
            kept.as_ref(),
            now,
            replies,
        );
        // An answer is an answer, whichever of two queries for it brought it.
        if let (Some(successor), Ok(_)) = (successor, ending) {
            let waiters = successor.clients().take_waiters();
            self.end_waiters(waiters, &successor, ending, kept.as_ref(), now, replies);
        }
    }

    fn recover(&self, now: Instant) {
        self.cache.hear(now);
    }

    fn look_after(&self, query: &Query, now: Instant, replies: &mut ReplyBatch) {
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

#[cfg(test)]
mod tests;
