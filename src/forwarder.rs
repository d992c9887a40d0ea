//! What happens to this query?
//!
//! The policy in order, the same for every transport. Each query ends in one [`Outcome`], from which the response code,
//! the EDE, the count and the log line follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use log::{Level, debug, log_enabled};

use crate::cache::{self, Cache, Found, Kept};
use crate::client::{Client, Departures};
use crate::clock;
use crate::flight::{Flights, Query, Waiter};
use crate::metrics::Counter;
use crate::upstream::{Failure, Settle, Upstream};
use crate::wire::{self, Answer, Asked, ExtendedError, Fault, Shown, Spelled, ede, rcode, rtype};

/// The longest signed message that is relayed, in octets: signatures may be long, but memory is counted.
const LONGEST_SIGNED: usize = 4096;
/// How long a client waits for a fresh answer before it gets an expired one (RFC 8767 section 5), unless half of its time
/// is less.
const PATIENCE: Duration = Duration::from_millis(1800);

/// What this room can be told.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The time of a query, from a client's message to its answer.
    pub timeout: Duration,
    /// Clients' queries that wait for an answer at a time, at most.
    pub max_pending: usize,
    /// What is kept.
    pub cache: cache::Settings,
}

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer was owed: less than a header, or a response.
    Ignored,
    /// It could not be read.
    Malformed,
    /// It asked for an operation other than QUERY.
    OtherOpcode,
    /// It spoke an EDNS version above 0.
    OtherVersion,
    /// It asked for a zone transfer, which a forwarder of single messages cannot relay whole (RFC 5936 section 2.2).
    Transfer,
    /// Its signature was longer than is relayed.
    LongSignature,
    /// The resolver answered it.
    Answered,
    /// The answer was known.
    Cached,
    /// An expired answer was known, and no better one could be had in time.
    Stale,
    /// It was known to fail.
    FailedBefore,
    /// The resolver answered it with something that cannot be read.
    BadAnswer,
    /// The resolver did not answer by the deadline.
    TimedOut,
    /// No resolver could be reached.
    Unreachable,
    /// What was reached was not the resolver that was meant.
    Unproved,
    /// More queries were pending than may be.
    Overloaded,
}

impl Outcome {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 15] = [
        Self::Ignored,
        Self::Malformed,
        Self::OtherOpcode,
        Self::OtherVersion,
        Self::Transfer,
        Self::LongSignature,
        Self::Answered,
        Self::Cached,
        Self::Stale,
        Self::FailedBefore,
        Self::BadAnswer,
        Self::TimedOut,
        Self::Unreachable,
        Self::Unproved,
        Self::Overloaded,
    ];

    /// The word for it in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Malformed => "malformed",
            Self::OtherOpcode => "other-opcode",
            Self::OtherVersion => "other-version",
            Self::Transfer => "transfer",
            Self::LongSignature => "long-signature",
            Self::Answered => "answered",
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::FailedBefore => "failed-before",
            Self::BadAnswer => "bad-answer",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Unproved => "unproved",
            Self::Overloaded => "overloaded",
        }
    }

    /// The response code and the EDE of our own answer; none where there is no answer or it is the resolver's, now or
    /// before.
    fn reply(self) -> Option<(u16, Option<ExtendedError>)> {
        // Words only where the fault is not the asker's: a refusal is to be no larger than what it refuses.
        let because = |code, text| Some(ExtendedError { code, text });
        let servfail = |code, text| Some((rcode::SERVFAIL, because(code, text)));
        match self {
            Self::Ignored | Self::Answered | Self::Cached | Self::Stale | Self::FailedBefore => {
                None
            }
            Self::Malformed => Some((rcode::FORMERR, None)),
            Self::OtherOpcode => Some((rcode::NOTIMP, None)),
            Self::OtherVersion => Some((rcode::BADVERS, None)),
            Self::Transfer | Self::LongSignature => {
                Some((rcode::REFUSED, because(ede::NOT_SUPPORTED, "")))
            }
            Self::BadAnswer => servfail(ede::INVALID_DATA, "unreadable answer"),
            Self::TimedOut => servfail(ede::NO_REACHABLE_AUTHORITY, "timeout"),
            Self::Unreachable => servfail(ede::NETWORK_ERROR, "unreachable"),
            Self::Unproved => servfail(ede::NETWORK_ERROR, "identity"),
            Self::Overloaded => servfail(ede::NETWORK_ERROR, "too many queries"),
        }
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Short | Fault::Direction => Self::Ignored,
            Fault::Opcode(_) => Self::OtherOpcode,
            _ => Self::Malformed,
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TimedOut => Self::TimedOut,
            Failure::Unreachable => Self::Unreachable,
            Failure::Unproved => Self::Unproved,
            Failure::Overloaded => Self::Overloaded,
            Failure::Unreadable => Self::BadAnswer,
        }
    }
}

/// What a thread that brings queries keeps from one batch to the next.
#[derive(Default)]
pub struct Batch {
    queries: Vec<Arc<Query>>,
    departures: Departures,
}

/// Where every query goes in.
pub struct Forwarder {
    upstream: Arc<Upstream>,
    endings: Arc<Endings>,
}

impl Forwarder {
    /// Relays by `upstream`, whose queries end in `endings` too.
    pub fn new(upstream: Arc<Upstream>, endings: Arc<Endings>) -> Self {
        Self { upstream, endings }
    }

    /// Takes in one client's message. Its answer, or its way to the resolver, waits for [`Forwarder::dispatch`].
    pub fn handle(&self, message: &[u8], client: Client, now: Instant, batch: &mut Batch) {
        let endings = &self.endings;
        let departures = &mut batch.departures;
        let query = match wire::Query::parse(message) {
            Ok(query) => query,
            Err(fault) => {
                return endings.reply_unreadable(message, &client, fault, departures);
            }
        };
        let refusal = if query.edns().is_some_and(|edns| edns.version > 0) {
            Some(Outcome::OtherVersion)
        } else if matches!(query.qtype(), rtype::AXFR | rtype::IXFR) {
            Some(Outcome::Transfer)
        } else if query.is_signed() && query.message().len() > LONGEST_SIGNED {
            Some(Outcome::LongSignature)
        } else {
            None
        };
        let asked = Asked::by(&query);
        if let Some(outcome) = refusal {
            return endings.reply(&client, &asked, outcome, departures);
        }
        let timeout = endings.settings.timeout;
        let found = match query.key() {
            Some(key) => endings.cache.find(&key, now),
            None => Found::Nothing,
        };
        let relayed = || Query::new(&query, now, timeout);
        let waiter = |client| Waiter::new(&query, client, now + timeout);
        let going = match found {
            Found::Nothing => relayed().with(waiter(client)),
            Found::Stale { ask: true, .. } => relayed()
                .content_after(endings.patience())
                .with(waiter(client)),
            Found::Fresh { kept, renew } => {
                endings.give(&client, &asked, &kept, departures);
                if !renew {
                    return;
                }
                relayed().content_after(endings.patience())
            }
            Found::Failed(kept) | Found::Stale { kept, ask: false } => {
                return endings.give(&client, &asked, &kept, departures);
            }
        };
        batch.queries.push(Arc::new(going));
    }

    /// Sends on what [`Forwarder::handle`] took in.
    pub fn dispatch(&self, batch: &mut Batch, now: Instant) {
        let Batch {
            queries,
            departures,
        } = batch;
        if !queries.is_empty() {
            self.endings.board(queries, now, departures);
            self.upstream.submit(queries, departures, now);
        }
        departures.leave();
    }

    /// Waits until every client has its answer, at most as long as a query may take.
    pub fn finish(&self) {
        let deadline = clock::now() + self.endings.settings.timeout;
        while self.endings.waiting.load(Ordering::SeqCst) > 0 && clock::now() < deadline {
            sleep(Duration::from_millis(10));
        }
    }
}

/// Where every query comes out: answers its clients, keeps the answer, and counts how it ended.
#[derive(Debug)]
pub struct Endings {
    settings: Settings,
    cache: Cache,
    flights: Flights,
    /// Clients' queries whose answer has not left.
    waiting: Arc<AtomicUsize>,
    counts: [Counter; Outcome::ALL.len()],
}

impl Endings {
    /// Nothing has come out yet.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            cache: Cache::new(settings.cache, now),
            flights: Flights::default(),
            waiting: Arc::default(),
            counts: Default::default(),
        }
    }

    /// How many queries ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize].value()
    }

    /// What is kept.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// How long a client waits for a fresh answer when there is an expired one.
    fn patience(&self) -> Duration {
        PATIENCE.min(self.settings.timeout / 2)
    }

    /// Sees to it that equal queries go as one, and that no more clients wait than may.
    fn board(&self, queries: &mut Vec<Arc<Query>>, now: Instant, departures: &mut Departures) {
        queries.retain(|query| {
            let waiters = query.count_waiters();
            let before = self.waiting.fetch_add(waiters, Ordering::SeqCst);
            let room = before + waiters <= self.settings.max_pending;
            if !room {
                self.end_waiters(
                    query.take_waiters(),
                    query,
                    Err(Failure::Overloaded),
                    None,
                    departures,
                );
            }
            room
        });
        let joined = self.flights.board(queries, now, |key, query| {
            // Its answer may have come between its being looked for and now.
            let Found::Fresh { kept, .. } = self.cache.find(key, now) else {
                return false;
            };
            let waiters = query.take_waiters();
            self.end_waiters(
                waiters,
                query,
                Err(Failure::TimedOut),
                Some(&kept),
                departures,
            );
            true
        });
        for flight in joined.iter().filter(|flight| flight.is_late(now)) {
            self.look_after(flight, now, departures);
        }
    }

    /// Answers clients that wait for `query`: with what is kept, if there is something `instead` of its ending.
    fn end_waiters(
        &self,
        waiters: Vec<Waiter>,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        instead: Option<&Kept>,
        departures: &mut Departures,
    ) {
        for waiter in waiters {
            let (client, asked) = (&waiter.client, &waiter.asked(query));
            match (instead, ending) {
                (Some(kept), _) => self.give(client, asked, kept, departures),
                (None, Ok(answer)) => {
                    if query.is_signed() {
                        departures.signed_answer(client, asked, answer);
                    } else {
                        departures.answer(client, asked, answer, &Shown::default());
                    }
                    self.end(client, asked.question, Outcome::Answered);
                }
                (None, Err(failure)) => self.reply(client, asked, failure.into(), departures),
            }
            departures.count_down(&self.waiting);
        }
    }

    /// Answers a client with what is kept.
    fn give(&self, client: &Client, asked: &Asked<'_>, kept: &Kept, departures: &mut Departures) {
        departures.answer(client, asked, &kept.answer(), kept.shown());
        let outcome = if kept.is_stale() {
            Outcome::Stale
        } else if kept.is_failure() {
            Outcome::FailedBefore
        } else {
            Outcome::Cached
        };
        self.end(client, asked.question, outcome);
    }

    fn reply_unreadable(
        &self,
        message: &[u8],
        client: &Client,
        fault: Fault,
        departures: &mut Departures,
    ) {
        debug!(
            "event=unreadable client={} cause=\"{fault}\"",
            client.peer()
        );
        match Asked::by_unreadable(message) {
            Some(asked) => self.reply(client, &asked, fault.into(), departures),
            None => self.end(client, &[], fault.into()),
        }
    }

    fn reply(
        &self,
        client: &Client,
        asked: &Asked<'_>,
        outcome: Outcome,
        departures: &mut Departures,
    ) {
        if let Some((rcode, ede)) = outcome.reply() {
            departures.reply(client, asked, rcode, ede);
        }
        self.end(client, asked.question, outcome);
    }

    fn end(&self, client: &Client, question: &[u8], outcome: Outcome) {
        self.counts[outcome as usize].increment();
        if log_enabled!(Level::Debug) {
            let (client, question) = (client.peer(), Spelled(question));
            debug!(
                "event=query client={client} question=\"{question}\" outcome={}",
                outcome.name()
            );
        }
    }
}

impl Settle for Endings {
    fn settle(
        &self,
        query: &Query,
        ending: Result<&Answer<'_>, Failure>,
        now: Instant,
        departures: &mut Departures,
    ) {
        let instead = query.key().and_then(|key| {
            // In this order: whoever asks the same meanwhile finds it in one of the two.
            let kept = match ending {
                Err(Failure::TimedOut) if query.is_overdue() => self.cache.any(&key, now),
                _ => self.cache.note(&key, ending, query.began(), now),
            };
            self.flights.land(&key, query);
            kept
        });
        self.end_waiters(
            query.take_waiters(),
            query,
            ending,
            instead.as_ref(),
            departures,
        );
    }

    fn look_after(&self, query: &Query, now: Instant, departures: &mut Departures) {
        let Some(key) = query.key() else { return };
        let mut instead = if query.is_late(now) {
            self.cache.any(&key, now)
        } else {
            None
        };
        let waiters = if instead.is_some() {
            query.take_waiters()
        } else {
            query.take_overdue(now)
        };
        // The first whose time is over makes it a failure, though others wait on.
        if instead.is_none() && !waiters.is_empty() && query.fall_overdue() {
            let ending = Err(Failure::TimedOut);
            instead = self.cache.note(&key, ending, query.began(), now);
        }
        self.end_waiters(
            waiters,
            query,
            Err(Failure::TimedOut),
            instead.as_ref(),
            departures,
        );
        query.look_again(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_counter_of_its_own() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{}", outcome.name());
        }
    }

    #[test]
    fn an_outcome_without_a_reply_is_one_that_owes_none() {
        for outcome in Outcome::ALL {
            let silent = matches!(
                outcome,
                Outcome::Ignored
                    | Outcome::Answered
                    | Outcome::Cached
                    | Outcome::Stale
                    | Outcome::FailedBefore
            );
            assert_eq!(outcome.reply().is_none(), silent, "{}", outcome.name());
        }
    }
}
