//! What happens to this query?
//!
//! The policy in order, the same for every transport. Each query ends in one [`Outcome`], from which the response code,
//! the EDE, the count and the log line follow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, debug, log_enabled};

use crate::client::{Client, Departures};
use crate::metrics::Counter;
use crate::session::Query;
use crate::upstream::{Failure, Settle, Upstream};
use crate::wire::{self, Answer, Asked, ExtendedError, Fault, Spelled, ede, rcode, rtype};

/// The longest signed message that is relayed, in octets: signatures may be long, but memory is counted.
const LONGEST_SIGNED: usize = 4096;

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
    pub const ALL: [Self; 12] = [
        Self::Ignored,
        Self::Malformed,
        Self::OtherOpcode,
        Self::OtherVersion,
        Self::Transfer,
        Self::LongSignature,
        Self::Answered,
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
            Self::BadAnswer => "bad-answer",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Unproved => "unproved",
            Self::Overloaded => "overloaded",
        }
    }

    /// The response code and the EDE of our own answer; none where there is no answer or it is the resolver's.
    fn reply(self) -> Option<(u16, Option<ExtendedError>)> {
        // Words only where the fault is not the asker's: a refusal is to be no larger than what it refuses.
        let because = |code, text| Some(ExtendedError { code, text });
        let servfail = |code, text| Some((rcode::SERVFAIL, because(code, text)));
        match self {
            Self::Ignored | Self::Answered => None,
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
    timeout: Duration,
}

impl Forwarder {
    /// Relays by `upstream`, whose queries end in `endings` too; each within `timeout`.
    pub fn new(upstream: Arc<Upstream>, endings: Arc<Endings>, timeout: Duration) -> Self {
        Self {
            upstream,
            endings,
            timeout,
        }
    }

    /// Takes in one client's message. Its answer, or its way to the resolver, waits for [`Forwarder::dispatch`].
    pub fn handle(&self, message: &[u8], client: Client, now: Instant, batch: &mut Batch) {
        let departures = &mut batch.departures;
        let query = match wire::Query::parse(message) {
            Ok(query) => query,
            Err(fault) => {
                return self
                    .endings
                    .reply_unreadable(message, &client, fault, departures);
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
        match refusal {
            Some(outcome) => self
                .endings
                .reply(&client, &Asked::by(&query), outcome, departures),
            None => batch
                .queries
                .push(Arc::new(Query::new(&query, client, now + self.timeout))),
        }
    }

    /// Sends on what [`Forwarder::handle`] took in.
    pub fn dispatch(&self, batch: &mut Batch, now: Instant) {
        self.upstream
            .submit(&mut batch.queries, &mut batch.departures, now);
        batch.departures.leave();
    }
}

/// Where every query comes out: answers it and counts how it ended.
#[derive(Debug, Default)]
pub struct Endings {
    counts: [Counter; Outcome::ALL.len()],
}

impl Endings {
    /// How many queries ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize].value()
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
        departures: &mut Departures,
    ) {
        let asked = query.asked();
        let outcome = match ending {
            Ok(answer) => {
                departures.answer(&query.client, &asked, answer, query.is_signed());
                Outcome::Answered
            }
            Err(failure) => failure.into(),
        };
        self.reply(&query.client, &asked, outcome, departures);
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
            let silent = matches!(outcome, Outcome::Ignored | Outcome::Answered);
            assert_eq!(outcome.reply().is_none(), silent, "{}", outcome.name());
        }
    }
}
