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
const NEW_SESSIONS: Rate = Rate {
    per_second: 2,
    burst: 4,
};
/// So many answers earn a token for a session that queries share; none for single queries, which would end more of them.
const ANSWERS_A_TOKEN: u32 = 16;
/// The same for sessions of single queries.
const NEW_SESSIONS_ALONE: Rate = Rate {
    per_second: 1,
    burst: 4,
};
/// Shared sessions in a row that the resolver may end with queries pending and none answered before the address is held back.
const MOST_VAIN: u32 = 2;
/// How long ago it may have answered others for that not to count.
const WORKED: Duration = Duration::from_secs(2);
/// Different names in a row that an address must fail, over so long a time, before it is said to fail.
const FAILED_NAMES: usize = 4;
const FAILS_FOR: Duration = Duration::from_secs(1);
/// While an address fails and there is another one, it is asked this often whether it still does.
const PROBE: Duration = Duration::from_secs(1);
/// The same for one that says nothing, since whoever asks waits for that.
const PROBE_MUTE: Duration = Duration::from_secs(5);
/// How often in a row sessions must be closed after as many answers for that to be a limit, and for how long it is taken for one.
const LIMIT_SEEN: u32 = 3;
const LIMIT_REMEMBERED: Duration = Duration::from_secs(60);
/// How often a session is given one query more, which is lost if it is a limit, and sent again.
const LIMIT_TRIED: Duration = Duration::from_secs(1);
/// How long is remembered that an address does not take a query in every form (RFC 6891 section 6.2.2).
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

/// One address of a resolver.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) health: Health,
    /// For sessions that queries share.
    pub(super) tokens: TokenBucket,
    /// For sessions that one query has alone.
    pub(super) tokens_alone: TokenBucket,
    vain: u32,
    /// Answers, for what they earn.
    earned: u32,
    /// Names that failed in a row, by hash, and since when.
    failed: Vec<u16>,
    failed_since: Instant,
    /// It fails, and is asked at that time whether it still does.
    probe_at: Option<Instant>,
    form: Option<(Form, Instant)>,
    /// Queries that the last session had answered when the resolver closed it with others pending, and how often in a row it was as
    /// many.
    closed_after: Option<(u32, u32)>,
    /// So many a session is closed after, as it seems.
    most_queries: Option<(u32, Instant)>,
    /// When a session is to be given one more than that, to see.
    exceed_at: Instant,
    /// When it last answered a query that has a good answer.
    pub(super) answered: Option<Instant>,
}

impl Address {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            health: Health::default(),
            tokens: TokenBucket::new(Some(NEW_SESSIONS), now),
            tokens_alone: TokenBucket::new(Some(NEW_SESSIONS_ALONE), now),
            vain: 0,
            earned: 0,
            failed: Vec::new(),
            failed_since: now,
            probe_at: None,
            form: None,
            closed_after: None,
            most_queries: None,
            exceed_at: now,
            answered: None,
        }
    }

    /// Whether it can be reached as far as is known, and does not fail.
    pub(super) fn is_well(&self, now: Instant) -> bool {
        self.health.is_available(now) && !self.fails()
    }

    /// Whether it answers with failures.
    pub(super) fn fails(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Whether the next query should tell if it still fails.
    pub(super) fn is_probe_due(&self, now: Instant) -> bool {
        self.probe_at.is_some_and(|at| at <= now)
    }

    /// A query goes to it.
    pub(super) fn is_asked(&mut self, now: Instant) {
        if self.is_probe_due(now) {
            self.probe_at = Some(now + PROBE);
        }
    }

    /// It answered, and not with a failure. Whether it failed until now.
    pub(super) fn answers_well(&mut self, now: Instant) -> bool {
        self.answered = Some(now);
        self.vain = 0;
        self.failed.clear();
        self.health.record_success();
        self.probe_at.take().is_some()
    }

    /// It answered with a failure, without a reason that lies in the name. Whether it fails from now on.
    pub(super) fn answers_badly(&mut self, name: u16, now: Instant) -> bool {
        self.vain = 0;
        if self.failed.is_empty() {
            self.failed_since = now;
        }
        if self.failed.len() < FAILED_NAMES && !self.failed.contains(&name) {
            self.failed.push(name);
        }
        let fails = self.failed.len() >= FAILED_NAMES && now >= self.failed_since + FAILS_FOR;
        if fails && self.probe_at.is_none() {
            self.probe_at = Some(now + PROBE);
            return true;
        }
        false
    }

    /// A session to it said nothing, and another address answered what it was asked there: that it can be reached is not enough. Whether it
    /// fails from now on.
    pub(super) fn says_nothing(&mut self, now: Instant) -> bool {
        let failed = self.fails();
        self.probe_at = Some(now + PROBE_MUTE);
        !failed
    }

    /// Another one failed at that name as well.
    pub(super) fn is_excused(&mut self, name: u16) {
        self.failed.retain(|failed| *failed != name);
    }

    /// The resolver ended a session that queries share, with so many answered while `lost` of them were pending.
    pub(super) fn closes(&mut self, answered: u32, lost: usize, jitter: u8, now: Instant) {
        if lost == 0 {
            return;
        }
        if answered == 0 {
            // Where others were answered a moment ago it may be the queries.
            if self.answered.is_some_and(|at| now < at + WORKED) {
                return;
            }
            self.vain += 1;
            if self.vain > MOST_VAIN {
                self.health
                    .record_failure(AddressFailure::Unreachable, jitter, now);
            }
            return;
        }
        self.vain = 0;
        // Once or twice may be chance, or a name that it cannot stand; again and again after as many is a limit.
        let times = match self.closed_after {
            Some((same, times)) if same == answered => times + 1,
            _ => 1,
        };
        self.closed_after = Some((answered, times));
        if times >= LIMIT_SEEN {
            self.most_queries = Some((answered, now + LIMIT_REMEMBERED));
            self.exceed_at = now + LIMIT_TRIED;
        }
    }

    /// A query ended a session by itself: what seemed a limit may have been others like it.
    pub(super) fn forget_limit(&mut self) {
        (self.most_queries, self.closed_after) = (None, None);
    }

    /// A session to it has answered so many: a limit that is lower is none. Answers earn new sessions, so that one that closes
    /// often, and answers all the same, is asked as often as it answers.
    pub(super) fn has_answered(&mut self, answered: u32) {
        self.earned = self.earned.wrapping_add(1);
        if self.earned.is_multiple_of(ANSWERS_A_TOKEN) {
            self.tokens.refund();
        }
        if self.most_queries.is_some_and(|(most, _)| answered > most) {
            self.most_queries = None;
        }
    }

    /// How many queries may be sent on one session, as far as is known.
    pub(super) fn most_queries(&self, now: Instant) -> u32 {
        let known = self.most_queries.filter(|(_, until)| now < *until);
        known.map_or(u32::MAX, |(most, _)| most)
    }

    /// Whether the next session is to show that there is no such limit, or none any more.
    pub(super) fn is_to_exceed(&mut self, now: Instant) -> bool {
        let is_due = self.exceed_at <= now;
        if is_due {
            self.exceed_at = now + LIMIT_TRIED;
        }
        is_due
    }

    /// How many queries may be sent on a session of single ones, one after the other: no more than two sessions in a row had answered
    /// when they were closed, as that may be a limit.
    pub(super) fn most_alone(&self) -> u32 {
        let closed_after = self.closed_after.filter(|(_, times)| *times > 1);
        closed_after.map_or(u32::MAX, |(answered, _)| answered.max(1))
    }

    /// After how many queries on a session of single ones none is sent there for the last time: half of what the last session had answered
    /// when it was closed, as that may be about its limit.
    pub(super) fn most_last(&self) -> u32 {
        self.closed_after
            .map_or(u32::MAX, |(answered, _)| answered / 2)
    }

    /// In what form it is asked.
    pub(super) fn form(&self, now: Instant) -> Form {
        let known = self.form.filter(|(_, until)| now < *until);
        known.map_or(Form::Padded, |(form, _)| form)
    }

    /// It took a query in that form and not in the one before.
    pub(super) fn takes(&mut self, form: Form, now: Instant) {
        self.form = Some((form, now + REMEMBERED));
    }

    /// It is another resolver than before, perhaps.
    pub(super) fn begin_anew(&mut self) {
        self.health.record_success();
        self.vain = 0;
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
            assert!(!address.answers_badly(7, later(time * 100)), "one name");
        }
        for name in 8..10 {
            assert!(!address.answers_badly(name, later(3000)));
        }
        assert!(!address.fails() && address.is_well(later(3000)));
        assert!(address.answers_badly(10, later(3000)));
        assert!(address.fails() && !address.is_well(later(3000)));
        assert!(!address.answers_badly(11, later(3001)), "it did before");
        assert!(!address.is_probe_due(later(3999)) && address.is_probe_due(later(4000)));
        address.is_asked(later(4000));
        assert!(!address.is_probe_due(later(4999)) && address.is_probe_due(later(5000)));
        assert!(address.answers_well(later(5000)));
        assert!(address.is_well(later(5000)) && !address.answers_well(later(5000)));
    }

    #[test]
    fn many_names_at_once_are_no_outage() {
        let (mut address, now) = address();
        assert!((0..100).all(|name| !address.answers_badly(name, now)));
        assert!(address.answers_badly(100, now + FAILS_FOR));
    }

    #[test]
    fn sessions_closed_again_and_again_after_as_many_answers_show_a_limit() {
        let (mut address, now) = address();
        for answered in [5, 7, 7] {
            address.closes(answered, 3, 0, now);
        }
        address.closes(7, 0, 0, now);
        assert_eq!(address.most_queries(now), u32::MAX);
        address.closes(7, 1, 0, now);
        assert_eq!(address.most_queries(now), 7);
        assert_eq!(address.most_queries(now + LIMIT_REMEMBERED), u32::MAX);
        address.has_answered(7);
        assert_eq!(address.most_queries(now), 7);
        address.has_answered(8);
        assert_eq!(address.most_queries(now), u32::MAX);
    }

    #[test]
    fn sessions_that_end_before_any_answer_hold_it_back() {
        let (mut address, now) = address();
        for _ in 0..MOST_VAIN {
            address.closes(0, 1, 0, now);
            assert!(address.is_well(now));
        }
        address.closes(0, 1, 0, now);
        assert!(!address.is_well(now));
        address.begin_anew();
        assert!(address.is_well(now));
        address.closes(0, 1, 0, now);
        assert!(address.is_well(now), "once again");
    }

    #[test]
    fn a_lesser_form_is_remembered_for_a_quarter_of_an_hour() {
        let (mut address, now) = address();
        assert_eq!(address.form(now), Form::Padded);
        address.takes(Form::Plain, now);
        assert_eq!(address.form(now), Form::Plain);
        assert_eq!(address.form(now + REMEMBERED), Form::Padded);
        assert_eq!(Form::Padded.lesser(), Some(Form::Unpadded));
        assert_eq!(Form::Plain.lesser(), None);
    }
}
