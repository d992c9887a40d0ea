//! Which thread reads the answers of a session?

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::actions::{AnsweredQuery, Failure, Reply, ReplyKind};
use super::driver::{OpenSession, Upstream, WorkBuffers};
use super::reader::Reader;
use super::table::SessionId;
use super::traits::{Query, Replies};
use crate::message::{Answer, is_response_to, rcode, response_code};
use crate::system::clock;
use crate::system::thread::{self, Heartbeat};
use crate::telemetry::log::debug;

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// The session's thread: delivers answers until the session ends.
    pub(super) fn run_session_thread(self: &Arc<Self>, open: &OpenSession, mut reader: Reader) {
        let (mut work, mut replies) = (WorkBuffers::default(), R::default());
        let mut received = Vec::new();
        let mut keepalive = None;
        let heartbeat = Heartbeat::new("session");
        let closed = thread::catch_panic("session", || {
            loop {
                if let Err(closed) = reader.read() {
                    break closed;
                }
                let now = clock::now();
                heartbeat.set_busy(now);
                received.clear();
                received.extend(reader.messages().map(reply));
                let matches = |index: usize, query: &Arc<Q>| {
                    is_response_to(reader.message(index), query.question())
                };
                let mut state = self.state.lock();
                let actions = &mut work.actions;
                state
                    .pool
                    .replies_received(open.id, &received, matches, now, actions);
                let answered = std::mem::take(&mut actions.answered);
                for (query, index) in actions.fallbacks.drain(..) {
                    query.keep_fallback(reader.message(index));
                }
                let change = state.note_answers(open.rank, &answered, &received, now);
                self.perform_actions(state, &mut work, &mut replies, now);
                if !change.is_empty() {
                    self.log_service(open, &change);
                }
                let mut last = None;
                for answered in &answered {
                    let answer = reader.message(answered.index);
                    last = self.deliver(answered, answer, now, &mut replies).or(last);
                }
                replies.send();
                work.actions.answered = answered;
                work.actions.answered.clear();
                if last.is_some() && last != keepalive {
                    keepalive = last;
                    self.set_keepalive(open.id, last.unwrap_or_default());
                }
                heartbeat.set_idle();
            }
        });
        self.metrics.count_closed(closed.as_ref());
        if let Some(closed) = closed {
            let address = open.session.address();
            debug!("event=session-closed resolver={address} cause=\"{closed}\"");
        }
        open.session.close();
        self.update_pool(|state, now, actions| {
            state.sessions.retain(|other| other.id != open.id);
            if !state.stopped {
                state.pool.session_ended(open.id, now, actions);
            }
        });
    }

    fn set_keepalive(self: &Arc<Self>, session: SessionId, keepalive: Duration) {
        self.update_pool(|state, now, actions| {
            state.pool.set_keepalive(session, keepalive, now, actions)
        });
    }

    /// Completes a query with the resolver's answer. A panic costs this answer alone, and its clients get a failure. Returns how long the
    /// resolver keeps an idle session, if it says so.
    fn deliver(
        &self,
        answered: &AnsweredQuery<Arc<Q>>,
        answer: &[u8],
        now: Instant,
        replies: &mut R,
    ) -> Option<Duration> {
        let query = &answered.query;
        self.metrics.query_latency.observe(answered.took, 1);
        let delivered = thread::catch_panic("session", || {
            if answered.is_outage {
                query.note_outage();
            }
            let answer = Answer::parse(answer);
            let keepalive = answer.as_ref().ok().and_then(Answer::keepalive);
            let ending = answer.as_ref().map_err(|_| Failure::MalformedResponse);
            self.completer.complete(query, ending, now, replies);
            keepalive
        });
        if delivered.is_none() {
            thread::catch_panic("session", || {
                self.completer
                    .complete(query, Err(Failure::MalformedResponse), now, replies);
            });
        }
        delivered.flatten()
    }
}

/// Classifies a message, whichever query it answers.
fn reply(message: &[u8]) -> Reply {
    let octet = |at: usize| message.get(at).copied().unwrap_or_default();
    let kind = match response_code(message) {
        rcode::NOERROR | rcode::NXDOMAIN => ReplyKind::Success,
        code if rcode::OF_UNSUPPORTED_EDNS.contains(&code) => ReplyKind::Unsupported,
        rcode::SERVFAIL | rcode::REFUSED => match Answer::parse(message) {
            Ok(answer) if !answer.is_conclusive_error() => ReplyKind::ServerFailure,
            _ => ReplyKind::FinalError,
        },
        _ => ReplyKind::FinalError,
    };
    Reply {
        id: u16::from_be_bytes([octet(0), octet(1)]),
        kind,
    }
}
