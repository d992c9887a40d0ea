//! What follows from a change of the network?
//!
//! The part of the pool's rules about changes of this host's links, addresses and routes, and about a suspend. What failed before may work
//! now, so the backoff of all addresses ends; each new session still costs a token. A session that the change did not touch goes on, and
//! nothing is sent to test it: the rule for silence applies to it as always.

use std::time::Instant;

use super::actions::Actions;
use super::pool::{ConnectRace, Pool};
use super::table::{Phase, PoolQuery, Session, SessionId};

impl<Q: PoolQuery> Pool<Q> {
    /// Event: links, addresses or routes of this host changed. Packets of the sessions in `lost` no longer take the way that they took when
    /// the session was opened. Opens a session if none is left.
    pub fn network_changed(&mut self, lost: &[SessionId], now: Instant, actions: &mut Actions<Q>) {
        self.replace_sessions(now, actions, |session| {
            // What is silent already most likely waits for TCP, whose repetitions become rare.
            lost.contains(&session.id) || session.is_silent
        });
        self.forget_failures(now, actions);
        self.reschedule(now, actions);
        let is_promising = |session: &Session| {
            session.is_usable() || session.is_shared_connecting() && !session.is_doubtful
        };
        if !self.sessions.iter().any(is_promising) {
            self.start(now, actions);
        }
    }

    /// Event: the operator wants addresses that failed to be tried again at once. Opens a session if there is none.
    pub fn retry_failed(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.end_backoff(now);
        self.identity_changed(now, actions);
    }

    /// Event: the machine was suspended. No session is trusted to be alive, as the network may have changed and resolvers close idle
    /// sessions.
    pub fn system_resumed(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.replace_sessions(now, actions, |_| true);
        self.forget_failures(now, actions);
        self.reschedule(now, actions);
    }

    /// Gives these open sessions no new queries. Idle ones are closed. What is pending on the others is sent once more, on another session.
    fn replace_sessions(
        &mut self,
        now: Instant,
        actions: &mut Actions<Q>,
        is_meant: impl Fn(&Session) -> bool,
    ) {
        let open = self.sessions.iter();
        let meant = open.filter(|session| session.phase != Phase::Connecting && is_meant(session));
        let (idle, busy): (Vec<_>, Vec<_>) = meant
            .map(|session| (session.id, session.pending.is_empty()))
            .partition(|(_, is_idle)| *is_idle);
        for (session, _) in idle {
            self.close_session(session, now, actions);
        }
        for (session, _) in busy {
            self.hedge_silent_session(session, now, now, actions);
        }
    }

    /// Forgets what failed in another network. Attempts that are under way may go on, but the next need not wait for them: a packet that
    /// was lost is sent again after a second, and then ever more seldom.
    fn forget_failures(&mut self, now: Instant, actions: &mut Actions<Q>) {
        self.end_backoff(now);
        for address in &mut self.addresses {
            address.hello.reset();
        }
        for session in &mut self.sessions {
            if session.phase == Phase::Connecting {
                session.is_doubtful = true;
            }
        }
        for rank in 0..self.addresses.len() {
            self.give_up_oldest_attempt(rank, now, actions);
        }
    }

    /// Ends the backoff of all addresses.
    fn end_backoff(&mut self, now: Instant) {
        for address in &mut self.addresses {
            address.end_backoff(now);
        }
        self.connect_race = ConnectRace::default();
        // It is down until something answers, but need not wait.
        self.down = self.down.map(|(failure, _)| (failure, now));
    }

    /// Makes room for one more attempt at the address of that rank, where there is none. No more than the oldest is given up: where the
    /// network changes all the time and connecting is slow, some attempt has to come to its end.
    fn give_up_oldest_attempt(&mut self, rank: usize, now: Instant, actions: &mut Actions<Q>) {
        let shared = |session: &&Session| session.rank == rank && session.takes_shared_queries();
        if self.sessions.iter().filter(shared).count() <= self.settings.sessions {
            return;
        }
        let attempts = self.sessions.iter().filter(shared);
        let attempts = attempts.filter(|session| session.phase == Phase::Connecting);
        if let Some(oldest) = attempts.min_by_key(|session| session.started_at) {
            self.close_session(oldest.id, now, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::upstream::actions::PoolSettings;
    use crate::upstream::culprits::QueryGroups;
    use crate::upstream::health::AddressFailure;
    use crate::upstream::token_bucket::TokenBucket;

    #[derive(Clone)]
    struct Query {
        deadline: Instant,
    }

    impl PoolQuery for Query {
        fn deadline(&self) -> Instant {
            self.deadline
        }

        fn due(&self) -> Instant {
            self.deadline
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

    /// A pool before one address, with two sessions at most, what it last asked for, and the time.
    struct World {
        pool: Pool<Query>,
        actions: Actions<Query>,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let now = crate::system::clock::now();
            let settings = PoolSettings {
                addresses: 1,
                timeout: Duration::from_secs(3),
                min_silence_timeout: Duration::from_millis(250),
                sessions: 2,
                max_pending: 100,
            };
            let mut next = 0;
            let random = move || {
                next += 1;
                next
            };
            let budget = Arc::new(TokenBucket::new(None, now));
            Self {
                pool: Pool::new(settings, Box::new(random), budget, now),
                actions: Actions::default(),
                now,
            }
        }

        fn pass(&mut self, milliseconds: u64) {
            self.now += Duration::from_millis(milliseconds);
            self.pool.tick(self.now, &mut self.actions);
        }

        fn ask(&mut self) {
            let query = Query {
                deadline: self.now + Duration::from_secs(3),
            };
            self.pool
                .submit(&mut vec![query], self.now, &mut self.actions);
        }

        fn change(&mut self, lost: &[SessionId]) {
            self.pool.network_changed(lost, self.now, &mut self.actions);
            self.pool.check().expect("consistent");
        }

        /// The sessions that are to be opened since this was last asked.
        fn connects(&mut self) -> Vec<SessionId> {
            let connects = self.actions.connects.drain(..);
            connects.map(|connect| connect.session).collect()
        }

        fn open(&mut self) -> SessionId {
            self.ask();
            let session = self.connects()[0];
            self.pool
                .session_opened(session, self.now, &mut self.actions);
            session
        }

        /// Fails attempts until the next is some seconds away.
        fn fail_for_long(&mut self, fault: AddressFailure) {
            for _ in 0..4 {
                self.ask();
                for session in self.connects() {
                    self.pool
                        .connect_failed(session, fault, self.now, &mut self.actions);
                }
                self.pass(1000);
            }
            self.ask();
            let failed = self.connects();
            for session in failed {
                self.pool
                    .connect_failed(session, fault, self.now, &mut self.actions);
            }
        }
    }

    #[test]
    fn a_change_of_the_network_and_a_resume_end_the_backoff() {
        for resumes in [false, true] {
            let mut world = World::new();
            world.fail_for_long(AddressFailure::Unauthenticated);
            world.ask();
            assert_eq!(world.connects(), [], "it is backed off");
            if resumes {
                world.pool.system_resumed(world.now, &mut world.actions);
                world.ask();
            } else {
                world.change(&[]);
            }
            assert_eq!(world.connects().len(), 1, "without a query, too");
        }
    }

    #[test]
    fn the_operator_ends_the_backoff_and_nothing_that_is_under_way() {
        let mut world = World::new();
        world.ask();
        assert_eq!(world.connects().len(), 1);
        world.pool.retry_failed(world.now, &mut world.actions);
        world.ask();
        assert_eq!(world.connects(), [], "an attempt is under way");
        let mut world = World::new();
        world.fail_for_long(AddressFailure::Unauthenticated);
        world.pool.retry_failed(world.now, &mut world.actions);
        assert_eq!(world.connects().len(), 1);
    }

    #[test]
    fn changes_open_no_more_sessions_than_there_are_tokens() {
        let mut world = World::new();
        let mut attempts = 0;
        for _ in 0..20 {
            world.change(&[]);
            for session in world.connects() {
                attempts += 1;
                world.pool.connect_failed(
                    session,
                    AddressFailure::Unreachable,
                    world.now,
                    &mut world.actions,
                );
            }
        }
        assert_eq!(attempts, 4);
    }

    #[test]
    fn an_attempt_from_before_the_change_holds_no_other_up() {
        let mut world = World::new();
        let mut attempts = Vec::new();
        for _ in 0..3 {
            world.ask();
            attempts.extend(world.connects());
            world.pass(1100);
            attempts.extend(world.connects());
        }
        assert_eq!(attempts.len(), 3, "no more may be under way");
        world.pass(1100);
        world.ask();
        assert_eq!(world.connects(), []);
        world.change(&[]);
        assert_eq!(world.actions.closes, attempts[..1], "the oldest gives way");
        assert_eq!(world.connects().len(), 1);
        // One that goes on may succeed.
        world.actions.closes.clear();
        world
            .pool
            .session_opened(attempts[2], world.now, &mut world.actions);
        assert!(world.actions.closes.is_empty() && world.pool.has_usable_session());
    }

    #[test]
    fn a_session_that_lost_its_route_is_replaced_and_others_go_on() {
        let mut world = World::new();
        let session = world.open();
        world.change(&[]);
        assert!(world.actions.closes.is_empty() && world.connects().is_empty());
        // A query is pending there.
        world.pass(10);
        let sent = world.actions.sends.len();
        world.change(&[session]);
        let replacement = world.connects();
        assert_eq!(replacement.len(), 1);
        world
            .pool
            .session_opened(replacement[0], world.now, &mut world.actions);
        assert_eq!(world.actions.sends.len(), sent + 1, "it is sent again");
    }

    #[test]
    fn an_idle_session_that_lost_its_route_is_closed_and_the_next_is_there_before_a_query() {
        let mut world = World::new();
        world.pool.start(world.now, &mut world.actions);
        let session = world.connects()[0];
        world
            .pool
            .session_opened(session, world.now, &mut world.actions);
        world.change(&[session]);
        assert_eq!(world.actions.closes, [session]);
        assert_eq!(world.connects().len(), 1);
    }
}
