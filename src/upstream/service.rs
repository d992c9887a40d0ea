//! Are the queries answered, and if not, what is wrong with each address?
//!
//! Tells the rules of [`super::outage`] which queries were answered and which failed. Called under the lock of the state; what is to be
//! logged is logged after it is released.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::actions::{AnsweredQuery, Failure, Reply, ReplyKind};
use super::driver::State;
use super::outage::{Cause, FailedQuery, OutageReport};
use super::pool_query::hash_of_name;
use super::traits::Query;
use crate::system::clock;
use crate::system::date::Timestamp;

/// An outage, and what is wrong with the addresses, by rank.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) report: OutageReport,
    pub(super) problems: Vec<(usize, Problem)>,
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It failed authentication: the error, as fields of a log line.
    Unauthenticated(String),
    /// No session could be opened, for that error.
    Unreachable(String),
    /// It answers with failures.
    Failing,
    /// Sessions were opened since queries began to fail.
    NotAnswering,
}

impl Problem {
    /// The problem of an address to which no session could be opened.
    pub(super) fn of_connecting(error: String, is_unauthenticated: bool) -> Self {
        match is_unauthenticated {
            true => Self::Unauthenticated(error),
            false => Self::Unreachable(error),
        }
    }
}

/// What changes by the answers of a session.
#[derive(Debug, Default)]
pub(super) struct ServiceChange {
    /// Its address answers again, or for the first time.
    pub(super) is_up: bool,
    /// The outage that has ended.
    pub(super) ended: Option<OutageReport>,
    /// The answers are failures: the outage that is to be logged.
    pub(super) outage: Option<Outage>,
}

impl ServiceChange {
    /// Returns true if there is nothing to log.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_up && self.outage.is_none()
    }
}

/// Since when there is or was an outage, for how long, and how many queries failed: fields of a log line, each after a space.
pub(super) struct OutageDetails<'r>(pub(super) &'r OutageReport);

impl fmt::Display for OutageDetails<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutageReport { lasted, failed, .. } = self.0;
        let since = Timestamp(clock::unix_time().saturating_sub(*lasted).as_secs());
        let seconds = lasted.as_secs();
        write!(
            f,
            " since={since:#} outage_seconds={seconds} queries_failed={failed}"
        )
    }
}

impl<Q: Query> State<Q> {
    /// Records queries that failed. Returns the outage if it is to be logged now.
    pub(super) fn note_failures(
        &mut self,
        failed: &[(Arc<Q>, Failure)],
        now: Instant,
    ) -> Option<Outage> {
        // Those of other kinds say nothing about the resolvers, or that they answer.
        let failed = failed.iter().filter(|(_, failure)| {
            !matches!(failure, Failure::Overloaded | Failure::MalformedResponse)
        });
        let mut outage = None;
        for (query, _) in failed {
            outage = self.note_failure(query, now).or(outage);
        }
        outage
    }

    /// Records the answers that came on a session to the address of that rank.
    pub(super) fn note_answers(
        &mut self,
        rank: usize,
        answered: &[AnsweredQuery<Arc<Q>>],
        received: &[Reply],
        now: Instant,
    ) -> ServiceChange {
        let mut change = ServiceChange::default();
        for answered in answered {
            match received.get(answered.index).map(|reply| reply.kind) {
                Some(ReplyKind::Success | ReplyKind::FinalError) => {
                    let ended = self.outage.query_answered(now);
                    let is_awaited = self.awaited_rank == Some(rank);
                    if is_awaited {
                        self.awaited_rank = None;
                    }
                    change.is_up |= is_awaited || ended.is_some();
                    change.ended = ended.or(change.ended);
                }
                Some(ReplyKind::ServerFailure) if answered.is_outage => {
                    let outage = self.note_failure(&answered.query, now);
                    change.outage = outage.or(change.outage);
                }
                // A failure may have to do with the name, and an answer to a query in a reduced form is yet to come.
                Some(ReplyKind::ServerFailure | ReplyKind::Unsupported) | None => {}
            }
        }
        change
    }

    fn note_failure(&mut self, query: &Arc<Q>, now: Instant) -> Option<Outage> {
        if self.retired || self.stopped {
            return None;
        }
        let failed = FailedQuery {
            name: hash_of_name(query.question()),
            started_at: query.started_at(),
        };
        let mut outage = std::mem::take(&mut self.outage);
        let report = outage.query_failed(failed, |since| self.cause(since), now);
        self.outage = outage;
        let report = report?;
        let since = now.checked_sub(report.lasted).unwrap_or(now);
        let problems = (0..self.addresses.len())
            .filter_map(|rank| Some((rank, self.problem(rank, since)?)))
            // The others were logged when they came.
            .filter(|(_, problem)| !report.is_new || *problem == Problem::NotAnswering);
        let problems = problems.collect();
        Some(Outage { report, problems })
    }

    /// What is wrong with an address, if queries have failed since that time.
    fn problem(&self, rank: usize, since: Instant) -> Option<Problem> {
        let log = self.addresses.get(rank)?;
        if !log.last_error.is_empty() {
            let error = log.last_error.clone();
            return Some(Problem::of_connecting(error, log.is_unauthenticated));
        }
        if self.pool.is_failing(rank) {
            return Some(Problem::Failing);
        }
        let opened_since = log.opened_at.is_some_and(|opened_at| opened_at >= since);
        opened_since.then_some(Problem::NotAnswering)
    }

    /// What is known of the reason why queries have failed since that time.
    fn cause(&self, since: Instant) -> Cause {
        let mut cause = Cause::Unknown;
        for (rank, log) in self.addresses.iter().enumerate() {
            match self.problem(rank, since) {
                Some(Problem::NotAnswering) => return Cause::NoAnswers,
                Some(_) => cause = Cause::Logged,
                // It served until then, and nothing else is known yet.
                None if log.opened_at.is_some() => return Cause::Unknown,
                // It was never tried.
                None => {}
            }
        }
        cause
    }
}
