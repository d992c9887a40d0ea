//! How does this address of a resolver fare?
//!
//! What is known of it follows from what became of connections and queries, never from probes of its own: whether it can be
//! reached ([`Health`]), whether it answers with failures, how many sessions it may have opened, and what its queries may carry.
//! Time and random numbers are passed in.

use std::time::{Duration, Instant};

use super::health::{AddressFailure, Health};
use super::token_bucket::{Rate, TokenBucket};
use crate::message::Form;

/// New sessions to one address: so many at once, and so many a second. A session that ended well has its token given back.
const SHARED_SESSION_RATE: Rate = Rate {
    per_second: 2,
    burst: 4,
};
/// So many answers earn a token for a session that queries share; none for single queries, which would end more of them.
const ANSWERS_PER_TOKEN: u32 = 16;
/// The same for sessions of single queries.
const ISOLATED_SESSION_RATE: Rate = Rate {
    per_second: 1,
    burst: 4,
};
/// Shared sessions in a row that the resolver may end with queries pending and none answered before the address is held back.
const MAX_FAILED_SESSIONS: u32 = 2;
/// How long ago it may have answered others for that not to count.
const RECENT_ANSWER: Duration = Duration::from_secs(2);
/// Different names in a row that an address must fail, over so long a time, before it is said to fail.
const FAILING_NAMES: usize = 4;
const MIN_FAILING_TIME: Duration = Duration::from_secs(1);
/// While an address fails and there is another one, it is asked this often whether it still does.
const FAILING_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The same for one that says nothing, since whoever asks waits for that.
const SILENT_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// How often in a row sessions must be closed after as many answers for that to be a limit, and for how long it is taken for one.
const LIMIT_OBSERVATIONS: u32 = 3;
const LIMIT_LIFETIME: Duration = Duration::from_secs(60);
/// How often a session is given one query more, which is lost if it is a limit, and sent again.
const LIMIT_TEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long is remembered that an address does not take a query in every form (RFC 6891 section 6.2.2).
const FORM_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// One address of a resolver.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) health: Health,
    /// For sessions that queries share.
    pub(super) shared_tokens: TokenBucket,
    /// For sessions that one query has alone.
    pub(super) isolated_tokens: TokenBucket,
    failed_sessions: u32,
    /// Answers, for what they earn.
    answers_toward_token: u32,
    /// Names that failed in a row, by hash, and since when.
    failed_names: Vec<u16>,
    failing_since: Instant,
    /// It fails, and is asked at that time whether it still does.
    probe_at: Option<Instant>,
    form: Option<(Form, Instant)>,
    /// Queries that the last session had answered when the resolver closed it with others pending, and how often in a row it was as
    /// many.
    closed_after_answers: Option<(u32, u32)>,
    /// So many a session is closed after, as it seems.
    session_query_limit: Option<(u32, Instant)>,
    /// When a session is to be given one more than that, to see.
    test_limit_at: Instant,
    /// When it last answered a query that has a good answer.
    pub(super) last_good_answer: Option<Instant>,
}

impl Address {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            health: Health::default(),
            shared_tokens: TokenBucket::new(Some(SHARED_SESSION_RATE), now),
            isolated_tokens: TokenBucket::new(Some(ISOLATED_SESSION_RATE), now),
            failed_sessions: 0,
            answers_toward_token: 0,
            failed_names: Vec::new(),
            failing_since: now,
            probe_at: None,
            form: None,
            closed_after_answers: None,
            session_query_limit: None,
            test_limit_at: now,
            last_good_answer: None,
        }
    }

    /// Whether it can be reached as far as is known, and does not fail.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.health.is_available(now) && !self.is_failing()
    }

    /// Whether it answers with failures.
    pub(super) fn is_failing(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Whether the next query should tell if it still fails.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        self.probe_at.is_some_and(|at| at <= now)
    }

    /// A query goes to it.
    pub(super) fn record_query(&mut self, now: Instant) {
        if self.is_probe_due(now) {
            self.probe_at = Some(now + FAILING_PROBE_INTERVAL);
        }
    }

    /// It answered, and not with a failure. Whether it failed until now.
    pub(super) fn record_good_answer(&mut self, now: Instant) -> bool {
        self.last_good_answer = Some(now);
        self.failed_sessions = 0;
        self.failed_names.clear();
        self.health.record_success();
        self.probe_at.take().is_some()
    }

    /// It answered with a failure, without a reason that lies in the name. Whether it fails from now on.
    pub(super) fn record_server_failure(&mut self, name: u16, now: Instant) -> bool {
        self.failed_sessions = 0;
        if self.failed_names.is_empty() {
            self.failing_since = now;
        }
        if self.failed_names.len() < FAILING_NAMES && !self.failed_names.contains(&name) {
            self.failed_names.push(name);
        }
        let is_failing = self.failed_names.len() >= FAILING_NAMES
            && now >= self.failing_since + MIN_FAILING_TIME;
        if is_failing && self.probe_at.is_none() {
            self.probe_at = Some(now + FAILING_PROBE_INTERVAL);
            return true;
        }
        false
    }

    /// A session to it said nothing, and another address answered what it was asked there: that it can be reached is not enough. Whether it
    /// fails from now on.
    pub(super) fn record_silence(&mut self, now: Instant) -> bool {
        let was_failing = self.is_failing();
        self.probe_at = Some(now + SILENT_PROBE_INTERVAL);
        !was_failing
    }

    /// Another one failed at that name as well.
    pub(super) fn forgive_name(&mut self, name: u16) {
        self.failed_names.retain(|failed| *failed != name);
    }

    /// The resolver ended a session that queries share, with so many answered while `lost` of them were pending.
    pub(super) fn record_session_end(
        &mut self,
        answers: u32,
        lost: usize,
        jitter: u8,
        now: Instant,
    ) {
        if lost == 0 {
            return;
        }
        if answers == 0 {
            // Where others were answered a moment ago it may be the queries.
            if self
                .last_good_answer
                .is_some_and(|at| now < at + RECENT_ANSWER)
            {
                return;
            }
            self.failed_sessions += 1;
            if self.failed_sessions > MAX_FAILED_SESSIONS {
                self.health
                    .record_failure(AddressFailure::Unreachable, jitter, now);
            }
            return;
        }
        self.failed_sessions = 0;
        // Once or twice may be chance, or a name that it cannot stand; again and again after as many is a limit.
        let times = match self.closed_after_answers {
            Some((same, times)) if same == answers => times + 1,
            _ => 1,
        };
        self.closed_after_answers = Some((answers, times));
        if times >= LIMIT_OBSERVATIONS {
            self.session_query_limit = Some((answers, now + LIMIT_LIFETIME));
            self.test_limit_at = now + LIMIT_TEST_INTERVAL;
        }
    }

    /// A query ended a session by itself: what seemed a limit may have been others like it.
    pub(super) fn forget_limit(&mut self) {
        (self.session_query_limit, self.closed_after_answers) = (None, None);
    }

    /// A session to it has answered so many: a limit that is lower is none. Answers earn new sessions, so that one that closes
    /// often, and answers all the same, is asked as often as it answers.
    pub(super) fn record_answer_count(&mut self, answers: u32) {
        self.answers_toward_token = self.answers_toward_token.wrapping_add(1);
        if self.answers_toward_token.is_multiple_of(ANSWERS_PER_TOKEN) {
            self.shared_tokens.refund();
        }
        if self
            .session_query_limit
            .is_some_and(|(most, _)| answers > most)
        {
            self.session_query_limit = None;
        }
    }

    /// How many queries may be sent on one session, as far as is known.
    pub(super) fn session_query_limit(&self, now: Instant) -> u32 {
        let known = self.session_query_limit.filter(|(_, until)| now < *until);
        known.map_or(u32::MAX, |(most, _)| most)
    }

    /// Whether the next session is to show that there is no such limit, or none any more.
    pub(super) fn may_test_limit(&mut self, now: Instant) -> bool {
        let is_due = self.test_limit_at <= now;
        if is_due {
            self.test_limit_at = now + LIMIT_TEST_INTERVAL;
        }
        is_due
    }

    /// How many queries may be sent on a session of single ones, one after the other: no more than two sessions in a row had answered
    /// when they were closed, as that may be a limit.
    pub(super) fn isolated_query_limit(&self) -> u32 {
        let closed_after_answers = self.closed_after_answers.filter(|(_, times)| *times > 1);
        closed_after_answers.map_or(u32::MAX, |(answers, _)| answers.max(1))
    }

    /// After how many queries on a session of single ones none is sent there for the last time: half of what the last session had answered
    /// when it was closed, as that may be about its limit.
    pub(super) fn last_send_limit(&self) -> u32 {
        self.closed_after_answers
            .map_or(u32::MAX, |(answers, _)| answers / 2)
    }

    /// In what form it is asked.
    pub(super) fn form(&self, now: Instant) -> Form {
        let known = self.form.filter(|(_, until)| now < *until);
        known.map_or(Form::Padded, |(form, _)| form)
    }

    /// It took a query in that form and not in the one before.
    pub(super) fn set_form(&mut self, form: Form, now: Instant) {
        self.form = Some((form, now + FORM_LIFETIME));
    }

    /// It is another resolver than before, perhaps.
    pub(super) fn reset(&mut self) {
        self.health.record_success();
        self.failed_sessions = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> (Address, Instant) {
        let now = crate::system::clock::now();
        (Address::new(now), now)
    }

    #[test]
    fn it_fails_after_several_names_and_some_time_and_is_well_with_the_first_answer() {
        let (mut address, now) = address();
        let later = |milliseconds| now + Duration::from_millis(milliseconds);
        for time in 0..20 {
            assert!(
                !address.record_server_failure(7, later(time * 100)),
                "one name"
            );
        }
        for name in 8..10 {
            assert!(!address.record_server_failure(name, later(3000)));
        }
        assert!(!address.is_failing() && address.is_healthy(later(3000)));
        assert!(address.record_server_failure(10, later(3000)));
        assert!(address.is_failing() && !address.is_healthy(later(3000)));
        assert!(
            !address.record_server_failure(11, later(3001)),
            "it did before"
        );
        assert!(!address.is_probe_due(later(3999)) && address.is_probe_due(later(4000)));
        address.record_query(later(4000));
        assert!(!address.is_probe_due(later(4999)) && address.is_probe_due(later(5000)));
        assert!(address.record_good_answer(later(5000)));
        assert!(address.is_healthy(later(5000)) && !address.record_good_answer(later(5000)));
    }

    #[test]
    fn many_names_at_once_are_no_outage() {
        let (mut address, now) = address();
        assert!((0..100).all(|name| !address.record_server_failure(name, now)));
        assert!(address.record_server_failure(100, now + MIN_FAILING_TIME));
    }

    #[test]
    fn sessions_closed_again_and_again_after_as_many_answers_show_a_limit() {
        let (mut address, now) = address();
        for answers in [5, 7, 7] {
            address.record_session_end(answers, 3, 0, now);
        }
        address.record_session_end(7, 0, 0, now);
        assert_eq!(address.session_query_limit(now), u32::MAX);
        address.record_session_end(7, 1, 0, now);
        assert_eq!(address.session_query_limit(now), 7);
        assert_eq!(address.session_query_limit(now + LIMIT_LIFETIME), u32::MAX);
        address.record_answer_count(7);
        assert_eq!(address.session_query_limit(now), 7);
        address.record_answer_count(8);
        assert_eq!(address.session_query_limit(now), u32::MAX);
    }

    #[test]
    fn sessions_that_end_before_any_answer_hold_it_back() {
        let (mut address, now) = address();
        for _ in 0..MAX_FAILED_SESSIONS {
            address.record_session_end(0, 1, 0, now);
            assert!(address.is_healthy(now));
        }
        address.record_session_end(0, 1, 0, now);
        assert!(!address.is_healthy(now));
        address.reset();
        assert!(address.is_healthy(now));
        address.record_session_end(0, 1, 0, now);
        assert!(address.is_healthy(now), "once again");
    }

    #[test]
    fn a_lesser_form_is_remembered_for_a_quarter_of_an_hour() {
        let (mut address, now) = address();
        assert_eq!(address.form(now), Form::Padded);
        address.set_form(Form::Plain, now);
        assert_eq!(address.form(now), Form::Plain);
        assert_eq!(address.form(now + FORM_LIFETIME), Form::Padded);
        assert_eq!(Form::Padded.lesser(), Some(Form::Unpadded));
        assert_eq!(Form::Plain.lesser(), None);
    }
}
