//! Which thread tells the pool that time has passed?

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{park, park_timeout};
use std::time::{Duration, Instant};

use super::driver::{Upstream, WorkBuffers, time_suspended};
use super::traits::{Query, Replies};
use crate::system::clock;
use crate::system::thread::Heartbeat;
use crate::telemetry::log::info;

/// The shortest interval of the timer, and the longest while something is under way.
const TIMER_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(250));
/// A suspend of this many milliseconds or more makes all sessions suspect.
const MIN_SUSPEND_MS: u64 = 1000;

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// The timer's thread.
    pub(super) fn run_timer(self: &Arc<Self>) {
        let (mut work, mut replies) = (WorkBuffers::default(), R::default());
        let heartbeat = Heartbeat::new("timer");
        let mut was_quiet = false;
        let longest = TIMER_INTERVAL.1.min(self.timeout / 4);
        loop {
            let now = clock::now();
            heartbeat.set_busy(now);
            self.detect_suspend(&mut work, &mut replies, now);
            let mut state = self.state.lock();
            if state.stopped {
                return;
            }
            if state.retired && state.pool.pending() == 0 {
                drop(state);
                return self.stop();
            }
            let due = state.pool.tick(now, &mut work.actions);
            let is_under_way = state.pool.pending() > 0 || !work.actions.is_empty();
            let sessions = state.sessions.clone();
            self.perform_actions(state, &mut work, &mut replies, now);
            replies.send();
            if is_under_way {
                // What the socket did not accept before may fit now.
                sessions
                    .iter()
                    .for_each(|open| open.session.flush_backlog());
            }
            drop(sessions);
            heartbeat.set_idle();
            if is_under_way {
                was_quiet = false;
                let wait = due.map_or(longest, |due| due.saturating_duration_since(now));
                park_timeout(wait.clamp(TIMER_INTERVAL.0, longest));
            } else if !was_quiet {
                // A query that comes from now on has at least this long, so a single query now and then costs no wake-up.
                was_quiet = true;
                park_timeout(longest);
            } else {
                was_quiet = false;
                self.park_timer(due, now);
            }
        }
    }

    /// Parks the timer until something is due, or a thread wakes it.
    fn park_timer(&self, due: Option<Instant>, now: Instant) {
        self.timer_parked.store(true, Ordering::SeqCst);
        // The order matters: a thread that has something for the timer either sees that it is parked, or its work is seen here.
        let state = self.state.lock();
        let is_idle = state.pool.pending() == 0 && !state.retired && !state.stopped;
        drop(state);
        if is_idle {
            match due {
                Some(due) => park_timeout(due.saturating_duration_since(now)),
                None => park(),
            }
        }
        self.timer_parked.store(false, Ordering::SeqCst);
    }

    pub(super) fn wake_timer(&self) {
        if self.timer_parked.load(Ordering::SeqCst) {
            self.unpark_timer();
        }
    }

    pub(super) fn unpark_timer(&self) {
        if let Some(timer) = self.timer.get() {
            timer.unpark();
        }
    }

    /// Detects a suspend, by the clock that goes on during one. After it no session is trusted to be alive: the network may have changed,
    /// and resolvers close idle sessions.
    pub(super) fn detect_suspend(
        self: &Arc<Self>,
        work: &mut WorkBuffers<Q>,
        replies: &mut R,
        now: Instant,
    ) {
        let suspended = time_suspended();
        let before = self.suspend_offset_ms.load(Ordering::Relaxed);
        if suspended < before + MIN_SUSPEND_MS {
            return;
        }
        // No query expires by the suspend before it is extended, under this lock.
        let mut state = self.state.lock();
        if self.suspend_offset_ms.swap(suspended, Ordering::Relaxed) != before {
            return;
        }
        // Queries that were asked before the suspend get its length in addition, as their clients were suspended too.
        let pause = Duration::from_millis(suspended - before);
        for query in state.pool.queries() {
            if now.saturating_duration_since(query.started_at()) >= pause {
                query.extend(pause);
            }
        }
        state.pool.system_resumed(now, &mut work.actions);
        info!("event=system-resumed milliseconds={}", suspended - before);
        self.perform_actions(state, work, replies, now);
    }
}
