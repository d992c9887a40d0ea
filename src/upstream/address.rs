//! How well does this address of a resolver work?
//!
//! All knowledge is passive: it comes from connections and queries. The one exception is the hello, for which there are probes. The state
//! says whether the address can be reached ([`Health`]), whether it answers with failures, how many sessions may be opened to it, which
//! hello it takes, and which form its queries take. Time and random numbers are passed in.

use std::time::{Duration, Instant};

use super::address_record::AddressRecord;
use super::health::{AddressFailure, Health};
use super::hello_size::HelloRule;
use super::token_bucket::{Rate, TokenBucket};
use crate::message::QueryForm;

/// Rate of new shared sessions to one address. A session that ended well gets its token refunded.
const SHARED_SESSION_RATE: Rate = Rate {
    per_second: 4,
    burst: 4,
};
/// Answers that earn one token for a shared session. Isolated queries earn none: more tokens would let them end more sessions.
const ANSWERS_PER_TOKEN: u32 = 16;
/// Rate of new sessions for isolated queries to one address.
const ISOLATED_SESSION_RATE: Rate = Rate {
    per_second: 5,
    burst: 5,
};
/// Shared sessions in a row that the resolver may close unanswered, with queries pending, before the address is backed off.
const MAX_FAILED_SESSIONS: u32 = 2;
/// An unanswered session does not count as failed if the address gave a good answer this recently.
const GRACE_AFTER_ANSWER: Duration = Duration::from_secs(2);
/// Distinct names in a row that must fail, and the time that this must last, before the address counts as failing.
const FAILING_NAMES: usize = 4;
const MIN_FAILING_TIME: Duration = Duration::from_secs(1);
/// While an address is failing and another is available, the interval at which one query tests it.
const FAILING_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The same for an address that does not answer at all: each test costs the client of that query the wait.
const SILENT_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Sessions in a row that must be closed after the same number of answers for that number to count as a limit, and how long the limit is
/// remembered.
const LIMIT_OBSERVATIONS: u32 = 3;
const LIMIT_LIFETIME: Duration = Duration::from_secs(60);
/// The lowest limit that may be one answer off.
const MIN_INEXACT_LIMIT: u32 = 4;
/// Sessions in a row that must be closed after few answers for the address to be sent few queries at a time on each, and how long that is
/// believed.
const SHORT_SESSIONS: u32 = 8;
const SHORT_SESSIONS_LIFETIME: Duration = Duration::from_secs(10);
/// Answers of a short session, at most.
const MAX_SHORT_ANSWERS: u32 = 256;
/// Tests that suspects must pass, more than eight times as many as they fail, for sessions to count as closed at random: where one of them
/// is the reason, it fails, and at most three are tested beside it. How many are counted at most, and how long that is believed.
const PASSED_TESTS: u32 = 8;
const MAX_PASSED_TESTS: u32 = 16;
const FAILED_TEST: u32 = 8;
const PASSED_TESTS_LIFETIME: Duration = Duration::from_secs(10);
/// How often a session is sent one query beyond the limit, to test it. If the limit holds, that query is lost and sent again.
const LIMIT_TEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long the pool remembers that an address does not accept every form of query (RFC 6891 section 6.2.2).
const FORM_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The state of one address of a resolver. The pool's lock guards it.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) health: Health,
    /// Tokens for new sessions that queries share.
    pub(super) shared_tokens: TokenBucket,
    /// Tokens for new sessions of isolated queries.
    pub(super) isolated_tokens: TokenBucket,
    failed_sessions: u32,
    /// Answers counted for [`ANSWERS_PER_TOKEN`].
    answers_toward_token: u32,
    /// Hashes of the names that failed in a row, and when the first did.
    failed_names: Vec<u16>,
    failing_since: Instant,
    /// The address is failing; at this time a query tests it again.
    probe_at: Option<Instant>,
    form: Option<(QueryForm, Instant)>,
    /// Until when queries in the present form are known to be answered.
    form_works_until: Instant,
    /// Which hello the address takes.
    pub(super) hello: HelloRule,
    /// How many queries the last session had answered when the resolver closed it with others pending, and how many sessions in a row had
    /// answered as many.
    closed_after_answers: Option<(u32, u32)>,
    /// The number of answers after which the resolver seems to close sessions, and until when that is believed.
    session_query_limit: Option<(u32, Instant)>,
    /// How many answers sessions had, on average, when the resolver closed them with others pending; how many sessions in a row those were,
    /// and until when they count.
    short_sessions: Option<(u32, u32, Instant)>,
    /// Tests that suspects passed, less [`FAILED_TEST`] for each that one failed, and until when they count.
    passed_tests: (u32, Instant),
    /// When a session next tests the limit with one query more.
    test_limit_at: Instant,
    /// When the address last gave a good answer.
    pub(super) last_good_answer: Option<Instant>,
    /// For monitoring.
    pub(super) record: AddressRecord,
}

/// Returns true if sessions that were closed after these numbers of answers were closed for the same limit. Where a limit counts queries,
/// one that is on its way may be answered or not.
fn is_same_limit(one: u32, other: u32) -> bool {
    one == other || one.abs_diff(other) == 1 && one.min(other) >= MIN_INEXACT_LIMIT
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
            form_works_until: now,
            hello: HelloRule::default(),
            closed_after_answers: None,
            session_query_limit: None,
            short_sessions: None,
            passed_tests: (0, now),
            test_limit_at: now,
            last_good_answer: None,
            record: AddressRecord::default(),
        }
    }

    /// Returns true if the address is not backed off and is not failing.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.health.is_available(now) && !self.is_failing()
    }

    /// Returns true if the address answers with failures, or not at all.
    pub(super) fn is_failing(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Returns true if the next query should test whether the address still fails.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        self.probe_at.is_some_and(|at| at <= now)
    }

    /// Records that a query is sent to the address.
    pub(super) fn record_query(&mut self, now: Instant) {
        if self.is_probe_due(now) {
            self.probe_at = Some(now + FAILING_PROBE_INTERVAL);
        }
    }

    /// Records an answer that is no failure. Returns true if the address was failing until now.
    pub(super) fn record_good_answer(&mut self, now: Instant) -> bool {
        self.last_good_answer = Some(now);
        self.failed_sessions = 0;
        self.failed_names.clear();
        self.health.record_success();
        self.probe_at.take().is_some()
    }

    /// Records a failure that the resolver did not attribute to the name. Returns true if the address counts as failing from now on.
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

    /// Records that a session to the address stayed silent about a query that another address answered: being reachable is not enough.
    /// Returns true if the address counts as failing from now on.
    pub(super) fn record_silence(&mut self, now: Instant) -> bool {
        let was_failing = self.is_failing();
        self.probe_at = Some(now + SILENT_PROBE_INTERVAL);
        !was_failing
    }

    /// Another address fails queries: if this one was silent, it is tested now, and not only when that would be due.
    pub(super) fn hasten_probe(&mut self, now: Instant) {
        if self
            .probe_at
            .is_some_and(|at| at > now + FAILING_PROBE_INTERVAL)
        {
            self.probe_at = Some(now);
        }
    }

    /// Forgets a failed name: another address failed it too.
    pub(super) fn forgive_name(&mut self, name: u16) {
        self.failed_names.retain(|failed| *failed != name);
    }

    /// Records that the resolver closed a shared session after `answered` answers, with `lost` queries pending.
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
            // Other queries were answered a moment ago: the pending ones may be the cause.
            if self
                .last_good_answer
                .is_some_and(|at| now < at + GRACE_AFTER_ANSWER)
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
        self.record_short_session(answers, now);
        // Once or twice may be chance, or a name that the resolver cannot handle. The same count again and again is a limit.
        let (answers, times) = match self.closed_after_answers {
            Some((same, times)) if is_same_limit(same, answers) => (same.min(answers), times + 1),
            _ => (answers, 1),
        };
        self.closed_after_answers = Some((answers, times));
        if times >= LIMIT_OBSERVATIONS {
            self.session_query_limit = Some((answers, now + LIMIT_LIFETIME));
            self.test_limit_at = now + LIMIT_TEST_INTERVAL;
        }
    }

    /// Counts short sessions, unless a limit explains them.
    fn record_short_session(&mut self, answers: u32, now: Instant) {
        let (mean, times) = match self.short_sessions {
            Some((mean, times, until)) if now < until => ((3 * mean + answers) / 4, times + 1),
            _ => (answers, 1),
        };
        let is_short = answers <= MAX_SHORT_ANSWERS && self.session_query_limit(now) == u32::MAX;
        let until = now + SHORT_SESSIONS_LIFETIME;
        self.short_sessions = is_short.then_some((mean, times, until));
    }

    /// Records that a query was found to end sessions: others like it may have caused what looked like a limit, or like chance.
    pub(super) fn record_culprit(&mut self) {
        (self.session_query_limit, self.closed_after_answers) = (None, None);
        self.short_sessions = None;
    }

    /// Records that a suspect was answered when it was tested, or ended its session, where all that could be the cause were tested.
    pub(super) fn record_test(&mut self, passed: bool, now: Instant) {
        let (tests, until) = self.passed_tests;
        let tests = if now < until { tests } else { 0 };
        let tests = match passed {
            true => MAX_PASSED_TESTS.min(tests + 1),
            false => tests.saturating_sub(FAILED_TEST),
        };
        self.passed_tests = (tests, now + PASSED_TESTS_LIFETIME);
    }

    /// Returns true if the resolver closes sessions, but not because of their queries.
    pub(super) fn closes_at_random(&self, now: Instant) -> bool {
        let (tests, until) = self.passed_tests;
        tests >= PASSED_TESTS && now < until
    }

    /// Records one more answer on a session that has `answered` by now: a lower limit is refuted. Answers earn tokens for new sessions, so
    /// that a resolver that closes often but answers stays usable.
    pub(super) fn record_answer_count(&mut self, answers: u32) {
        self.answers_toward_token = self.answers_toward_token.wrapping_add(1);
        if self.answers_toward_token.is_multiple_of(ANSWERS_PER_TOKEN) {
            self.shared_tokens.refund();
        }
        if self
            .session_query_limit
            .is_some_and(|(limit, _)| answers > limit)
        {
            self.session_query_limit = None;
        }
        if self
            .short_sessions
            .is_some_and(|(mean, _, _)| answers > 8 * mean.max(1))
        {
            self.short_sessions = None;
        }
    }

    /// How many queries may be pending on one session. Where sessions end after few answers for no known reason, a session that ends takes few
    /// queries with it.
    pub(super) fn pending_limit(&self, now: Instant) -> usize {
        match self.short_sessions {
            Some((mean, times, until)) if times >= SHORT_SESSIONS && now < until => {
                usize::try_from(mean / 2).unwrap_or(usize::MAX).max(4)
            }
            _ => usize::MAX,
        }
    }

    /// How many queries may be sent on one session, as far as is known.
    pub(super) fn session_query_limit(&self, now: Instant) -> u32 {
        let known = self.session_query_limit.filter(|(_, until)| now < *until);
        known.map_or(u32::MAX, |(limit, _)| limit)
    }

    /// Returns true if the address is known to close sessions after a number of answers, or closed two in a row after the same number.
    pub(super) fn may_have_limit(&self, now: Instant) -> bool {
        self.session_query_limit(now) != u32::MAX
            || self
                .closed_after_answers
                .is_some_and(|(_, times)| times > 1)
    }

    /// Returns true, once per [`LIMIT_TEST_INTERVAL`], if a session may send one query beyond the limit.
    pub(super) fn may_test_limit(&mut self, now: Instant) -> bool {
        let is_due = self.test_limit_at <= now;
        if is_due {
            self.test_limit_at = now + LIMIT_TEST_INTERVAL;
        }
        is_due
    }

    /// How many isolated queries may be sent on one session, one after the other: no more than two sessions in a row had answered when they
    /// were closed, as that may be a limit.
    pub(super) fn isolated_query_limit(&self) -> u32 {
        let closed_after_answers = self.closed_after_answers.filter(|(_, times)| *times > 1);
        closed_after_answers.map_or(u32::MAX, |(answers, _)| answers.max(1))
    }

    /// How many queries an isolated session may have sent before it takes no query that is sent for the last time: half of what the last
    /// session had answered when it was closed, which may be near a limit.
    pub(super) fn last_send_limit(&self) -> u32 {
        self.closed_after_answers
            .map_or(u32::MAX, |(answers, _)| answers / 2)
    }

    /// The form of queries to the address.
    pub(super) fn form(&self, now: Instant) -> QueryForm {
        let known = self.form.filter(|(_, until)| now < *until);
        known.map_or(QueryForm::Padded, |(form, _)| form)
    }

    /// Records an answer to a query in the present form.
    pub(super) fn record_form(&mut self, now: Instant) {
        self.form_works_until = now + FORM_LIFETIME;
    }

    /// Remembers that the address accepted `form` and not the fuller one, unless it answered other queries in the present form: then the
    /// name is the reason, whose owner would take padding and EDNS from the queries of all. Returns true if it is remembered.
    pub(super) fn set_form(&mut self, form: QueryForm, now: Instant) -> bool {
        if now < self.form_works_until || self.form(now) == form {
            return false;
        }
        self.form = Some((form, now + FORM_LIFETIME));
        true
    }

    /// Clears failures, since the address may have another identity now.
    pub(super) fn reset(&mut self) {
        self.health.record_success();
        self.record.reset();
        self.failed_sessions = 0;
    }

    /// Ends the backoff, since the address may work now. One that fails or is silent is tested by the next query.
    pub(super) fn end_backoff(&mut self, now: Instant) {
        self.reset();
        self.probe_at = self.probe_at.map(|at| at.min(now));
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
    fn an_address_fails_after_several_names_and_some_time_and_recovers_with_one_answer() {
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
    fn a_silent_address_is_tested_at_once_and_once_when_another_fails() {
        let (mut address, now) = address();
        address.hasten_probe(now);
        assert!(!address.is_failing());
        assert!(address.record_silence(now) && !address.is_probe_due(now));
        address.hasten_probe(now);
        assert!(address.is_probe_due(now));
        address.record_query(now);
        address.hasten_probe(now);
        assert!(!address.is_probe_due(now));
    }

    #[test]
    fn many_names_at_once_are_no_outage() {
        let (mut address, now) = address();
        assert!((0..100).all(|name| !address.record_server_failure(name, now)));
        assert!(address.record_server_failure(100, now + MIN_FAILING_TIME));
    }

    #[test]
    fn sessions_closed_repeatedly_after_as_many_answers_show_a_limit() {
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
    fn a_limit_may_be_one_answer_off_unless_it_is_low() {
        let (mut address, now) = address();
        for answers in [9, 8] {
            assert!(!address.may_have_limit(now));
            address.record_session_end(answers, 3, 0, now);
        }
        assert!(address.may_have_limit(now));
        address.record_session_end(9, 3, 0, now);
        assert_eq!(address.session_query_limit(now), 8);
        let mut address = Address::new(now);
        for answers in [3, 2, 3] {
            address.record_session_end(answers, 3, 0, now);
            assert!(!address.may_have_limit(now));
        }
    }

    #[test]
    fn where_sessions_end_after_few_answers_few_queries_are_pending_on_each() {
        let (mut address, now) = address();
        let end = |address: &mut Address, times: u32| {
            (0..times).for_each(|time| {
                let answers = if time % 2 == 0 { 12 } else { 20 };
                address.record_session_end(answers, 3, 0, now);
            });
        };
        end(&mut address, SHORT_SESSIONS - 1);
        assert_eq!(address.pending_limit(now), usize::MAX);
        end(&mut address, 1);
        let limit = address.pending_limit(now);
        assert!((6..16).contains(&limit), "{limit}");
        assert_eq!(
            address.pending_limit(now + SHORT_SESSIONS_LIFETIME),
            usize::MAX
        );
        // A session that lives on, and a query that is the reason.
        let mut living = Address::new(now);
        end(&mut living, SHORT_SESSIONS);
        living.record_answer_count(300);
        assert_eq!(living.pending_limit(now), usize::MAX);
        address.record_culprit();
        assert_eq!(address.pending_limit(now), usize::MAX);
    }

    #[test]
    fn tests_that_suspects_pass_show_that_sessions_end_at_random() {
        let (mut address, now) = address();
        (1..PASSED_TESTS).for_each(|_| address.record_test(true, now));
        assert!(!address.closes_at_random(now));
        address.record_test(true, now);
        assert!(address.closes_at_random(now));
        assert!(!address.closes_at_random(now + PASSED_TESTS_LIFETIME));
        address.record_test(false, now);
        assert!(!address.closes_at_random(now));
        // One test in twenty fails, then one in four.
        (0..100).for_each(|time| address.record_test(time % 20 > 0, now));
        assert!(address.closes_at_random(now));
        (0..100).for_each(|time| address.record_test(time % 4 > 0, now));
        assert!(!address.closes_at_random(now));
    }

    #[test]
    fn sessions_that_end_unanswered_back_the_address_off() {
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
    fn the_end_of_the_backoff_has_a_silent_address_tested() {
        let (mut address, now) = address();
        address.record_silence(now);
        address
            .health
            .record_failure(AddressFailure::Unauthenticated, 0, now);
        assert!(!address.health.may_probe(now) && !address.is_probe_due(now));
        address.end_backoff(now);
        assert!(address.health.is_available(now) && address.is_probe_due(now));
        assert!(address.is_failing(), "until it answers");
    }

    #[test]
    fn where_the_present_form_works_no_name_reduces_it() {
        let (mut address, now) = address();
        address.record_form(now);
        assert!(!address.set_form(QueryForm::NoEdns, now));
        assert_eq!(address.form(now), QueryForm::Padded);
        assert!(address.set_form(QueryForm::NoEdns, now + FORM_LIFETIME));
    }

    #[test]
    fn a_reduced_form_is_remembered_for_a_quarter_of_an_hour() {
        let (mut address, now) = address();
        assert_eq!(address.form(now), QueryForm::Padded);
        assert!(address.set_form(QueryForm::NoEdns, now));
        assert!(!address.set_form(QueryForm::NoEdns, now));
        assert_eq!(address.form(now), QueryForm::NoEdns);
        assert_eq!(address.form(now + FORM_LIFETIME), QueryForm::Padded);
        assert_eq!(QueryForm::Padded.fallback(), Some(QueryForm::Unpadded));
        assert_eq!(QueryForm::NoEdns.fallback(), None);
    }
}
