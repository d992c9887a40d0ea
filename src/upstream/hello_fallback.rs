//! When is the small hello tried, and the large one again?
//!
//! The part of the pool's rules that asks [`HelloRule`](super::hello_size::HelloRule) which hello an attempt has, and tells it what came of
//! it. A handshake that fails is followed by the next at once, also if no query waits any more. One that gets no answer is given some time
//! first, since a client waits: at the usual timeout, the second large hello follows after a second, and the small one a quarter of a
//! second later. While an address gets small hellos, a session with a large one is opened beside the others now and then. No query waits
//! for it. If it succeeds, it replaces them.

use std::time::{Duration, Instant};

use super::actions::{Actions, ConnectRequest, Event};
use super::health::AddressFailure;
use super::hello_size::OBSERVATIONS;
use super::pool::Pool;
use super::table::{PoolQuery, Purpose, Session, SessionId};
use crate::identity::key_exchange::HelloSize;

/// How long a hello must be without an answer to count, at least, as a share of the timeout of queries; at most a quarter of a second. It
/// is four times as long as the TCP connection took, if that is longer. A lost packet is sent again sooner.
const UNANSWERED_SHARE: u32 = 12;
const MAX_UNANSWERED: Duration = Duration::from_millis(250);
/// How long one hello must be without an answer before another is sent, as a share of that timeout; at most a second.
const SLOW_SHARE: u32 = 3;
const MAX_SLOW: Duration = Duration::from_secs(1);
/// A probe leaves so many tokens for sessions that queries need.
const TOKENS_LEFT: usize = 1;

impl<Q: PoolQuery> Pool<Q> {
    /// When the large hello of an attempt counts as unanswered, if it was sent.
    fn unanswered_at(&self, session: &Session) -> Option<Instant> {
        let sent_at = session.hello_sent_at.filter(|_| session.is_connecting())?;
        let tcp_time = sent_at.saturating_duration_since(session.started_at);
        Some(sent_at + self.min_unanswered().max(tcp_time * 4))
    }

    fn is_unanswered(&self, session: &Session, now: Instant) -> bool {
        self.unanswered_at(session).is_some_and(|at| at <= now)
    }

    fn min_unanswered(&self) -> Duration {
        MAX_UNANSWERED.min(self.settings.timeout / UNANSWERED_SHARE)
    }

    /// How long a hello may be without an answer before another is sent. While no address can be reached, queries do not wait for long.
    fn slow_hello(&self) -> Duration {
        match self.is_down() {
            true => self.min_unanswered(),
            false => MAX_SLOW.min(self.settings.timeout / SLOW_SHARE),
        }
    }

    /// Event: TCP is connected and a large hello was sent, where the small one could be.
    pub fn hello_sent(&mut self, session: SessionId, now: Instant, actions: &mut Actions<Q>) {
        if let Some(index) = self.position(session) {
            self.sessions[index].hello_sent_at = Some(now);
            self.reschedule(now, actions);
        }
    }

    /// Returns true if the address of that rank gets small hellos, since large ones fail.
    pub(super) fn is_post_quantum_left_out(&self, rank: usize) -> bool {
        self.addresses[rank].hello.is_left_out()
    }

    /// How many large hellos to the address of that rank are without an answer for so long that it says something.
    fn unanswered_hellos(&self, rank: usize, now: Instant) -> usize {
        let sessions = self.sessions.iter();
        let unanswered = || {
            let at_rank = sessions.clone().filter(|session| session.rank == rank);
            at_rank.filter(|session| self.is_unanswered(session, now))
        };
        if unanswered().any(|session| session.is_slow(self.slow_hello(), now)) {
            unanswered().count()
        } else {
            0
        }
    }

    /// The hello of the next attempt to the address of that rank.
    pub(super) fn next_hello(&self, rank: usize, now: Instant) -> HelloSize {
        let unanswered = self.unanswered_hellos(rank, now);
        self.addresses[rank].hello.choose(unanswered)
    }

    /// Attempts to open a shared session to the address of that rank.
    fn coming(&self, rank: usize) -> impl Iterator<Item = &Session> {
        let all = self.sessions.iter();
        all.filter(move |session| session.rank == rank && session.is_shared_connecting())
    }

    /// Returns true if another hello should be tried beside large ones that are without an answer.
    pub(super) fn may_hedge_hello(&self, rank: usize, now: Instant) -> bool {
        let is_tried = |session: &Session| match self.next_hello(rank, now) {
            HelloSize::Small => session.hello == HelloSize::Small,
            HelloSize::Large => !self.is_unanswered(session, now),
        };
        self.unanswered_hellos(rank, now) > 0 && !self.coming(rank).any(is_tried)
    }

    /// How many shared attempts to the address of that rank wait in vain for an answer to their large hello, and leave room for another.
    pub(super) fn given_up_hellos(&self, rank: usize, now: Instant) -> usize {
        if self.next_hello(rank, now) == HelloSize::Large {
            return 0;
        }
        let given_up = self.coming(rank);
        let given_up = given_up.filter(|session| self.is_unanswered(session, now));
        given_up.count().min(OBSERVATIONS)
    }

    /// Returns true if another hello is due to the address of that rank, and a session there would be of use.
    fn wants_hedge(&self, rank: usize, now: Instant) -> bool {
        !self.has_usable_session() && self.may_hedge_hello(rank, now) && self.may_connect(rank, now)
    }

    /// What time alone makes due: hellos beside unanswered ones, probes and log lines.
    pub(super) fn tick_hellos(&mut self, now: Instant, actions: &mut Actions<Q>) {
        for rank in 0..self.addresses.len() {
            if self.wants_hedge(rank, now) {
                // The next address need not wait for longer.
                let next_attempt_at = self.connect_race.next_attempt_at;
                self.connect_shared(rank, now, actions);
                self.connect_race.next_attempt_at = next_attempt_at;
            }
            if self.next_probe_at(rank).is_some_and(|at| at <= now) {
                self.probe_large_hello(rank, now, actions);
            }
            self.report_hellos(rank, now, actions);
        }
    }

    /// When [`Pool::tick_hellos`] has something to do.
    pub(super) fn hellos_due(&self, now: Instant) -> Option<Instant> {
        let ranks = 0..self.addresses.len();
        let coming = ranks.clone().flat_map(|rank| self.coming(rank));
        let sent = coming.filter(|session| session.hello_sent_at.is_some());
        let slow = sent.flat_map(|session| {
            let slow_at = session.started_at + self.slow_hello();
            self.unanswered_at(session).into_iter().chain([slow_at])
        });
        let hedges = ranks.clone().filter(|rank| self.wants_hedge(*rank, now));
        let hedges = hedges.map(|rank| self.addresses[rank].shared_tokens.ready_at(now));
        let probes = ranks.filter_map(|rank| self.next_probe_at(rank));
        let lines = self.addresses.iter();
        let lines = lines.filter_map(|address| address.hello.line_at());
        slow.filter(|at| *at > now)
            .chain(hedges)
            .chain(probes)
            .chain(lines)
            .min()
    }

    /// When the large hello is next probed at the address of that rank. It is only where sessions with small ones are in use, or will be.
    fn next_probe_at(&self, rank: usize) -> Option<Instant> {
        let at = self.addresses[rank].hello.probe_at()?;
        let at_rank = || self.sessions.iter().filter(|session| session.rank == rank);
        let is_used = at_rank().any(|session| session.takes_shared_queries() && !session.is_silent);
        let is_probed = at_rank().any(|session| session.purpose == Purpose::Probe);
        Some(at).filter(|_| is_used && !is_probed)
    }

    /// Opens a session with a large hello, unless queries may need its token.
    fn probe_large_hello(&mut self, rank: usize, now: Instant, actions: &mut Actions<Q>) {
        let address = &mut self.addresses[rank];
        if address.shared_tokens.available(now) <= TOKENS_LEFT
            || address.shared_tokens.take(1, now) == 0
        {
            return address.hello.defer_probe(now);
        }
        let (session, hello) = (self.next_session(), HelloSize::Large);
        let probe = Session::new(session, rank, Purpose::Probe, hello, now);
        self.sessions.push(probe);
        actions.connects.push(ConnectRequest {
            session,
            rank,
            hello,
        });
    }

    /// Adds the line that is to be logged of the address of that rank, if there is one.
    fn report_hellos(&mut self, rank: usize, now: Instant, actions: &mut Actions<Q>) {
        if let Some(line) = self.addresses[rank].hello.take_line(now) {
            let event = match line.is_left_out {
                true => Event::PostQuantumLeftOut(rank, line.suppressed),
                false => Event::PostQuantumRestored(rank, line.suppressed),
            };
            actions.events.push(event);
        }
    }

    /// Learns from an attempt that succeeded. Returns false if the session is not wanted: it has the small hello for no reason, and there
    /// is another.
    pub(super) fn learn_from_open_hello(
        &mut self,
        index: usize,
        now: Instant,
        actions: &mut Actions<Q>,
    ) -> bool {
        let opened = &mut self.sessions[index];
        if opened.purpose == Purpose::Probe {
            opened.purpose = Purpose::Shared;
        }
        let opened = &self.sessions[index];
        let (rank, hello) = (opened.rank, opened.hello);
        // Only those that were overtaken: where every handshake is slow, later ones say nothing.
        let is_overtaken = |session: &&Session| {
            session.rank == rank
                && session.started_at < opened.started_at
                && self.is_unanswered(session, now)
        };
        let unanswered = self.sessions.iter().filter(is_overtaken).count();
        let rule = &self.addresses[rank].hello;
        let has_reason = rule.is_left_out() || rule.is_suspect(unanswered);
        if hello == HelloSize::Small
            && opened.is_shared()
            && !has_reason
            && self.sessions_at(rank) > 1
        {
            return false;
        }
        if self.addresses[rank].hello.record_success(hello, now) {
            actions.events.push(Event::SmallHelloNeeded(rank));
        }
        self.report_hellos(rank, now, actions);
        if hello == HelloSize::Large {
            self.replace_small_hellos(rank, now);
        }
        true
    }

    /// A session with a large hello is open: those with small ones get no more queries.
    fn replace_small_hellos(&mut self, rank: usize, now: Instant) {
        for index in 0..self.sessions.len() {
            let session = &self.sessions[index];
            if session.rank == rank && session.hello == HelloSize::Small {
                self.drain_session(index, now);
            }
        }
    }

    /// Learns from an attempt that failed. Returns true if another hello is due at once: the failure says nothing of the address.
    pub(super) fn learn_from_failed_hello(
        &mut self,
        failed: &Session,
        fault: AddressFailure,
        now: Instant,
    ) -> bool {
        let rule = &mut self.addresses[failed.rank].hello;
        match (failed.hello, fault) {
            _ if failed.purpose == Purpose::Probe => rule.record_failed_probe(now),
            (hello @ HelloSize::Large, AddressFailure::LargeHello)
            | (hello @ HelloSize::Small, AddressFailure::Unreachable) => {
                return rule.record_failure(hello);
            }
            (HelloSize::Large, AddressFailure::Unauthenticated) => rule.record_read(),
            _ => {}
        }
        false
    }

    /// Tries the next hello after one that failed, if a session to the address of that rank would be of use: also if no query waits, as at
    /// the start.
    pub(super) fn try_next_hello(&mut self, rank: usize, now: Instant, actions: &mut Actions<Q>) {
        let hello = self.next_hello(rank, now);
        let is_coming = self.coming(rank).any(|session| session.hello == hello);
        if !self.has_usable_session() && !is_coming && self.may_connect(rank, now) {
            self.connect_shared(rank, now, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::key_exchange::HelloSize::{Large, Small};
    use crate::upstream::actions::PoolSettings;
    use crate::upstream::culprits::QueryGroups;
    use crate::upstream::token_bucket::TokenBucket;

    const ROUND_TRIP: Duration = Duration::from_millis(20);

    /// A query, until its deadline.
    #[derive(Debug, Clone)]
    struct Query(Instant);

    impl PoolQuery for Query {
        fn deadline(&self) -> Instant {
            self.0
        }

        fn due(&self) -> Instant {
            self.0
        }

        fn name_hash(&self) -> u16 {
            0
        }

        fn client(&self) -> u16 {
            0
        }

        fn groups(&self) -> QueryGroups {
            QueryGroups { zone: 0, client: 0 }
        }

        fn is_signed(&self) -> bool {
            false
        }
    }

    /// A pool, and its clock.
    struct World {
        pool: Pool<Query>,
        actions: Actions<Query>,
        begin: Instant,
        now: Instant,
    }

    impl World {
        fn new(addresses: usize, timeout: Duration) -> Self {
            let begin = crate::system::clock::now();
            let settings = PoolSettings {
                addresses,
                timeout,
                min_silence_timeout: Duration::from_millis(250),
                sessions: 2,
                max_pending: 10,
            };
            let budget = Arc::new(TokenBucket::new(None, begin));
            let mut next = 0;
            let ids = move || {
                next += 1;
                next
            };
            Self {
                pool: Pool::new(settings, Box::new(ids), budget, begin),
                actions: Actions::default(),
                begin,
                now: begin,
            }
        }

        fn start(timeout: Duration) -> Self {
            let mut world = Self::new(1, timeout);
            world.pool.start(world.now, &mut world.actions);
            world
        }

        /// The attempt that the pool asked for, if it asked for one.
        fn take_connect(&mut self) -> Option<(SessionId, HelloSize)> {
            assert!(self.actions.connects.len() < 2);
            let connect = self.actions.connects.pop()?;
            Some((connect.session, connect.hello))
        }

        /// Passes time until the pool asks for an attempt, and returns it; none if it does not within `most`. Sends large hellos.
        fn wait_for_connect(&mut self, most: Duration) -> Option<(SessionId, HelloSize)> {
            let until = self.now + most;
            loop {
                if let Some((session, hello)) = self.take_connect() {
                    if hello == Large {
                        let sent_at = self.now + ROUND_TRIP;
                        self.pool.hello_sent(session, sent_at, &mut self.actions);
                    }
                    return Some((session, hello));
                }
                let due = self.pool.next_due(self.now).filter(|due| *due <= until)?;
                self.now = self.now.max(due);
                self.pool.tick(self.now, &mut self.actions);
            }
        }

        fn fail(&mut self, session: SessionId, fault: AddressFailure) {
            self.now += ROUND_TRIP;
            self.pool
                .connect_failed(session, fault, self.now, &mut self.actions);
        }

        fn open(&mut self, session: SessionId) {
            self.now += ROUND_TRIP;
            self.pool
                .session_opened(session, self.now, &mut self.actions);
        }

        /// Fails with two large hellos and opens a session with the small one.
        fn leave_out() -> Self {
            let mut world = Self::start(Duration::from_secs(3));
            for _ in 0..OBSERVATIONS {
                let (session, hello) = world.take_connect().expect("an attempt");
                assert_eq!(hello, Large);
                world.fail(session, AddressFailure::LargeHello);
            }
            let (session, hello) = world.take_connect().expect("an attempt");
            assert_eq!(hello, Small);
            world.open(session);
            world
        }

        fn take_events(&mut self) -> Vec<Event> {
            self.actions.events.drain(..).collect()
        }
    }

    #[test]
    fn hellos_without_an_answer_are_followed_in_time_for_a_query_whatever_the_timeout() {
        let millis = Duration::from_millis;
        for (timeout, second, small) in [
            (millis(3000), 1000, 1250),
            (millis(60_000), 1000, 1250),
            (millis(1200), 400, 500),
            (millis(500), 166, 246),
        ] {
            let mut world = World::start(timeout);
            let mut sent = Vec::new();
            while let Some((_, hello)) = world.wait_for_connect(millis(5000)) {
                sent.push((hello, (world.now - world.begin).as_millis()));
            }
            let expected = [(Large, 0), (Large, second), (Small, small)];
            let is_near = |(sent, expected): (&(HelloSize, u128), &(HelloSize, u128))| {
                sent.0 == expected.0 && sent.1.abs_diff(expected.1) <= 20
            };
            let is_right = sent.len() == 3 && sent.iter().zip(&expected).all(is_near);
            assert!(is_right, "{timeout:?}: {sent:?}");
        }
    }

    #[test]
    fn the_next_address_is_tried_no_later_for_hellos_without_an_answer() {
        let millis = Duration::from_millis;
        let mut world = World::new(2, millis(300));
        let mut queries = vec![Query(world.now + millis(300))];
        world
            .pool
            .submit(&mut queries, world.now, &mut world.actions);
        let mut ranks = Vec::new();
        while let Some((session, _)) = world.wait_for_connect(millis(300)) {
            let index = world.pool.position(session).expect("it was begun");
            let rank = world.pool.sessions[index].rank;
            ranks.push((rank, (world.now - world.begin).as_millis()));
        }
        assert!(ranks.contains(&(1, 250)), "{ranks:?}");
        assert_eq!(ranks.iter().filter(|(rank, _)| *rank == 0).count(), 3);
    }

    #[test]
    fn a_failed_hello_is_followed_by_the_next_although_no_query_waits_but_not_without_an_end() {
        let mut world = World::start(Duration::from_secs(3));
        for (hello, fault) in [
            (Large, AddressFailure::LargeHello),
            (Large, AddressFailure::LargeHello),
            (Small, AddressFailure::Unreachable),
        ] {
            let (session, next) = world.take_connect().expect("an attempt at once");
            assert_eq!(next, hello);
            world.fail(session, fault);
        }
        assert_eq!(world.wait_for_connect(Duration::from_secs(60)), None);
        // The next query finds out whether one of both works.
        world.now += Duration::from_secs(2);
        let mut queries = vec![Query(world.now + Duration::from_secs(3))];
        world
            .pool
            .submit(&mut queries, world.now, &mut world.actions);
        let (session, hello) = world.wait_for_connect(Duration::from_secs(3)).expect("one");
        assert_eq!(hello, Large);
        world.fail(session, AddressFailure::LargeHello);
        let (session, hello) = world.take_connect().expect("an attempt at once");
        assert_eq!(hello, Small);
        world.open(session);
        assert_eq!(world.actions.sends.len(), 1);
        let said = [Event::SmallHelloNeeded(0), Event::PostQuantumLeftOut(0, 0)];
        assert!(said.iter().all(|said| world.actions.events.contains(said)));
    }

    #[test]
    fn a_probe_that_succeeds_replaces_the_session_and_one_that_fails_leaves_it() {
        let mut world = World::leave_out();
        world.take_events();
        let (probe, hello) = world.wait_for_connect(Duration::from_secs(6)).expect("one");
        assert_eq!(hello, Large);
        assert_eq!(
            world.wait_for_connect(Duration::from_secs(9)),
            None,
            "one only"
        );
        world.fail(probe, AddressFailure::LargeHello);
        assert!(world.pool.is_post_quantum_left_out(0) && world.pool.is_healthy(0, world.now));
        assert_eq!(
            (world.take_events(), world.pool.sessions_at(0)),
            (vec![], 1)
        );
        let failed_at = world.now;
        let (probe, _) = world
            .wait_for_connect(Duration::from_secs(60))
            .expect("one");
        assert_eq!(world.now, failed_at + Duration::from_secs(10));
        // Somebody else answered: the small hello is not put at risk for that.
        world.fail(probe, AddressFailure::Unauthenticated);
        assert!(world.pool.is_post_quantum_left_out(0) && world.pool.is_healthy(0, world.now));
        let (probe, _) = world
            .wait_for_connect(Duration::from_secs(60))
            .expect("one");
        world.open(probe);
        assert!(!world.pool.is_post_quantum_left_out(0));
        assert_eq!(world.take_events(), [Event::PostQuantumRestored(0, 0)]);
        // The other one is closed, as no query is on it.
        assert_eq!(
            (world.pool.sessions_at(0), world.actions.closes.len()),
            (1, 1)
        );
        assert_eq!(world.wait_for_connect(Duration::from_secs(7200)), None);
    }

    #[test]
    fn while_a_probe_waits_for_its_answer_queries_get_sessions_as_without() {
        let mut world = World::leave_out();
        let session = world.pool.sessions[0].id;
        let (_, hello) = world.wait_for_connect(Duration::from_secs(6)).expect("one");
        assert_eq!(hello, Large);
        world
            .pool
            .session_ended(session, world.now, &mut world.actions);
        let mut queries = vec![Query(world.now + Duration::from_secs(3))];
        world
            .pool
            .submit(&mut queries, world.now, &mut world.actions);
        let (session, hello) = world.take_connect().expect("an attempt at once");
        assert_eq!(hello, Small);
        world.open(session);
        assert_eq!(world.actions.sends.len(), 1);
    }

    #[test]
    fn without_a_session_in_use_nothing_is_probed() {
        let mut world = World::leave_out();
        let session = world.pool.sessions[0].id;
        world
            .pool
            .session_ended(session, world.now, &mut world.actions);
        assert_eq!(world.wait_for_connect(Duration::from_secs(7200)), None);
    }
}
