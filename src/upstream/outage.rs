//! Since when has no query been answered, and when is that said?
//!
//! The rules alone, over state, event and time; one upstream, whatever the number of its addresses. An outage is a row of failed queries
//! without an answer between them. It follows from queries alone: while no client asks, nobody knows whether it lasts, and nothing is said.
//!
//! - Where the log has said already what is wrong with the addresses, the first failed query begins the outage.
//! - Where connections succeed and queries fail, an outage begins once several names have failed, over some seconds: a single name, or a
//!   moment, may have other reasons.
//! - An outage is said again at the first failed query after 1, 10 and 60 minutes, and then after each further hour.
//! - The first answer ends it.

use std::time::{Duration, Instant};

/// Distinct names that must fail, and the time without an answer, before an outage is said whose only sign is that queries fail.
const MIN_NAMES: usize = 3;
const MIN_TIME: Duration = Duration::from_secs(2);
/// When an outage is said again.
const REPEATED_AFTER: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];
/// The interval after that.
const REPEATED_EVERY: Duration = Duration::from_secs(3600);

/// What is known of the reason for failed queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing yet: an attempt to connect is under way.
    Unknown,
    /// The log has said what is wrong with the addresses.
    Logged,
    /// Connections succeed, and nothing was logged.
    NoAnswers,
}

/// A query that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailedQuery {
    /// A hash of its name.
    pub(super) name: u16,
    /// When it arrived.
    pub(super) started_at: Instant,
}

/// An outage, at its beginning, while it lasts or at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutageReport {
    /// It is said for the first time.
    pub(super) is_new: bool,
    /// How long no query has been answered.
    pub(super) lasted: Duration,
    /// How many queries have failed.
    pub(super) failed: u64,
}

/// Whether the queries to one upstream are answered.
#[derive(Debug, Default)]
pub(super) struct OutageRule {
    last_answer: Option<Instant>,
    failures: Option<Failures>,
}

/// A row of failed queries.
#[derive(Debug)]
struct Failures {
    since: Instant,
    failed: u64,
    /// Hashes of the first names, [`MIN_NAMES`] at most.
    names: Vec<u16>,
    /// When the outage is said next, once it has begun.
    report_at: Option<Instant>,
}

impl OutageRule {
    /// Returns true if an outage has begun and has not ended.
    pub(super) fn is_outage(&self) -> bool {
        let failures = self.failures.as_ref();
        failures.is_some_and(|failures| failures.report_at.is_some())
    }

    /// Records a query without an answer. `cause` is told since when there has been none. Returns what to say about the outage now, if
    /// anything.
    pub(super) fn query_failed(
        &mut self,
        query: FailedQuery,
        cause: impl FnOnce(Instant) -> Cause,
        now: Instant,
    ) -> Option<OutageReport> {
        // A query that is older than the last answer says nothing about the time before it.
        let started_at = self
            .last_answer
            .map_or(query.started_at, |answer| answer.max(query.started_at));
        let failures = self.failures.get_or_insert_with(|| Failures {
            since: started_at,
            failed: 0,
            names: Vec::new(),
            report_at: None,
        });
        failures.failed += 1;
        if failures.names.len() < MIN_NAMES && !failures.names.contains(&query.name) {
            failures.names.push(query.name);
        }
        let lasted = now.saturating_duration_since(failures.since);
        let report = |is_new| OutageReport {
            is_new,
            lasted,
            failed: failures.failed,
        };
        let next = failures.since + next_report(lasted);
        match failures.report_at {
            Some(at) if at > now => None,
            Some(_) => {
                failures.report_at = Some(next);
                Some(report(false))
            }
            None => match cause(failures.since) {
                Cause::Logged => {
                    failures.report_at = Some(next);
                    None
                }
                Cause::NoAnswers if failures.names.len() >= MIN_NAMES && lasted >= MIN_TIME => {
                    failures.report_at = Some(next);
                    Some(report(true))
                }
                Cause::NoAnswers | Cause::Unknown => None,
            },
        }
    }

    /// Records an answer. Returns the outage that it ends, if there is one.
    pub(super) fn query_answered(&mut self, now: Instant) -> Option<OutageReport> {
        self.last_answer = Some(now);
        let failures = self.failures.take()?;
        failures.report_at.map(|_| OutageReport {
            is_new: false,
            lasted: now.saturating_duration_since(failures.since),
            failed: failures.failed,
        })
    }
}

/// How long an outage has lasted when it is said next, after it has lasted for `lasted`.
fn next_report(lasted: Duration) -> Duration {
    let mut first = REPEATED_AFTER.into_iter();
    first.find(|after| *after > lasted).unwrap_or_else(|| {
        let hours = lasted.as_secs() / REPEATED_EVERY.as_secs();
        Duration::from_secs((hours + 1).saturating_mul(REPEATED_EVERY.as_secs()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::clock;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    struct World {
        rule: OutageRule,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            let start = clock::now();
            Self {
                rule: OutageRule::default(),
                start,
            }
        }

        /// A query for `name` that came at the start of the world fails after so long.
        fn fail(&mut self, name: u16, cause: Cause, after: Duration) -> Option<OutageReport> {
            let query = FailedQuery {
                name,
                started_at: self.start,
            };
            self.rule.query_failed(query, |_| cause, self.start + after)
        }

        fn answer(&mut self, after: Duration) -> Option<OutageReport> {
            self.rule.query_answered(self.start + after)
        }
    }

    #[test]
    fn an_outage_whose_cause_was_logged_is_said_again_after_1_10_and_60_minutes_and_each_hour() {
        let mut world = World::new();
        let mut said = Vec::new();
        // A query a second for five hours.
        for second in 1..=5 * 3600 {
            let report = world.fail(1, Cause::Logged, SECOND * second);
            said.extend(report.map(|report| {
                assert_eq!(report.failed, u64::from(second));
                assert!(!report.is_new);
                report.lasted.as_secs() / 60
            }));
        }
        assert_eq!(said, [1, 10, 60, 120, 180, 240, 300]);
        let end = world.answer(SECOND * 18_001).expect("an outage");
        assert_eq!((end.lasted, end.failed), (SECOND * 18_001, 18_000));
        assert_eq!(world.answer(SECOND * 18_002), None, "it has ended");
    }

    #[test]
    fn after_a_time_without_queries_an_outage_is_said_once_and_not_for_each_time_that_passed() {
        let mut world = World::new();
        assert_eq!(world.fail(1, Cause::Logged, SECOND), None);
        let report = world.fail(1, Cause::Logged, MINUTE * 150);
        assert_eq!(report.map(|report| report.failed), Some(2));
        assert_eq!(world.fail(1, Cause::Logged, MINUTE * 151), None);
        assert_eq!(world.fail(1, Cause::Logged, MINUTE * 179), None);
        assert!(world.fail(1, Cause::Logged, MINUTE * 180).is_some());
    }

    #[test]
    fn unanswered_queries_are_an_outage_once_several_names_failed_over_some_seconds() {
        let mut world = World::new();
        for _ in 0..100 {
            assert_eq!(world.fail(1, Cause::NoAnswers, MIN_TIME), None, "one name");
        }
        assert_eq!(world.fail(2, Cause::NoAnswers, MIN_TIME), None);
        assert!(!world.rule.is_outage());
        let report = world.fail(3, Cause::NoAnswers, MIN_TIME).expect("several");
        assert!(report.is_new && report.failed == 102 && report.lasted == MIN_TIME);
        assert!(world.rule.is_outage());
        assert_eq!(world.fail(4, Cause::NoAnswers, MIN_TIME * 2), None, "once");
        let mut brief = World::new();
        for name in 0..100 {
            let report = brief.fail(name, Cause::NoAnswers, MIN_TIME - SECOND);
            assert_eq!(report, None, "a moment");
        }
        assert!(brief.fail(0, Cause::NoAnswers, MIN_TIME).is_some());
    }

    #[test]
    fn while_the_cause_is_not_known_nothing_is_said() {
        let mut world = World::new();
        for name in 0..10 {
            assert_eq!(world.fail(name, Cause::Unknown, MINUTE), None);
        }
        assert!(!world.rule.is_outage());
        assert_eq!(world.answer(MINUTE), None, "no outage was said");
    }

    #[test]
    fn an_answer_between_failures_begins_anew() {
        let mut world = World::new();
        for name in 0..2 {
            assert_eq!(world.fail(name, Cause::NoAnswers, MINUTE), None);
        }
        assert_eq!(world.answer(MINUTE), None);
        // They came before that answer, which says since when there is none.
        for name in 2..10 {
            let report = world.fail(name, Cause::NoAnswers, MINUTE + SECOND);
            assert_eq!(report, None);
        }
        let report = world.fail(10, Cause::NoAnswers, MINUTE + MIN_TIME);
        assert_eq!(report.map(|report| report.lasted), Some(MIN_TIME));
    }
}
