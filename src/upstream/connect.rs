//! Who connects, and what becomes of it?

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::actions::Connect;
use super::driver::{Open, Upstream};
use super::handshake::ConnectError;
use super::health::Fault;
use super::reader::Reader;
use super::session::Session;
use super::settings::CONNECT;
use super::status::Shown;
use super::traits::{Query, Replies};
use crate::identity::verifier::Identity;
use crate::system::clock;
use crate::system::thread;
use crate::telemetry::log::{debug, error};

/// The right and the duty to connect: queries wait for its outcome.
#[must_use = "queries wait until it has run"]
struct Attempt<Q: Query, R: Replies + 'static> {
    /// None once it runs.
    upstream: Option<Arc<Upstream<Q, R>>>,
    connect: Connect,
}

impl<Q: Query, R: Replies> Attempt<Q, R> {
    /// Connects, which may take longer than a query may, and lets go of the queries that wait.
    fn run(mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.connect(self.connect);
        }
    }
}

impl<Q: Query, R: Replies> Drop for Attempt<Q, R> {
    /// Nobody could run it.
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            let session = self.connect.session;
            upstream.tell(|state, now, actions| {
                state.pool.failed(session, Fault::Unreachable, now, actions);
            });
        }
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Has a worker connect.
    pub(super) fn send_for(self: &Arc<Self>, connect: Connect) {
        let attempt = Attempt {
            upstream: Some(Arc::clone(self)),
            connect,
        };
        if let Some(executor) = self.executor.get().and_then(Weak::upgrade) {
            executor.execute(Box::new(move || attempt.run()));
        }
    }

    /// Connects, and has a thread read the session.
    fn connect(self: &Arc<Self>, connect: Connect) {
        let target = &self.targets[connect.rank];
        let identity = target.identity();
        let began = clock::now();
        let deadline = began + self.timeout.max(CONNECT);
        let connected = thread::catch_panic("connect", || {
            Session::connect(target.address, &identity, deadline)
        });
        match connected {
            Some(Ok((session, reader))) => {
                let took = clock::now().saturating_duration_since(began);
                let kind = usize::from(session.agreement().resumed);
                self.tally.handshakes[kind].observe(took, 1);
                self.take_up(connect, &identity, session, reader);
            }
            Some(Err(error)) => {
                self.tally.count_failure(&error);
                self.fail_to_connect(connect, &identity, Some(&error));
            }
            None => self.fail_to_connect(connect, &identity, None),
        }
    }

    /// Takes up a session that was opened with `identity`, if that is still what is asked for.
    fn take_up(
        self: &Arc<Self>,
        connect: Connect,
        identity: &Identity,
        session: Arc<Session>,
        reader: Reader,
    ) {
        debug!(
            "event=session-opened resolver={} {}",
            session.address(),
            session.agreement()
        );
        let open = Open {
            id: connect.session,
            rank: connect.rank,
            session,
        };
        let mut taken = false;
        self.tell(|state, now, actions| {
            let current = self.targets[open.rank].identity();
            if state.stopped {
                return;
            }
            if !current.is_same_instance(identity) && !open.session.fits(&current) {
                return state.pool.outdated(open.id, now, actions);
            }
            let (upstream, read) = (Arc::clone(self), open.clone());
            if let Err(cause) =
                thread::spawn("session", move || upstream.read_answers(&read, reader))
            {
                error!("event=no-thread for=session cause=\"{cause}\"");
                return state.pool.failed(open.id, Fault::Unreachable, now, actions);
            }
            taken = true;
            state.sessions.push(open.clone());
            let log = &mut state.addresses[open.rank];
            log.complaint.clear();
            log.shown = Some(Shown::of(open.session.proof()));
            state.pool.opened(open.id, now, actions);
            let time = state.pool.query_time().as_millis() as u64;
            self.query_time.store(time, Ordering::Relaxed);
        });
        if taken {
            self.doubt(open.session.address(), identity, open.session.proof());
        } else {
            open.session.close();
        }
    }

    fn fail_to_connect(
        self: &Arc<Self>,
        connect: Connect,
        identity: &Identity,
        error: Option<&ConnectError>,
    ) {
        let is_unproved = matches!(error, Some(ConnectError::Identity(_)));
        let complaint = error.map(ToString::to_string).unwrap_or_default();
        let mut state = self.state.lock();
        let is_current = self.targets[connect.rank]
            .identity()
            .is_same_instance(identity);
        let log = &mut state.addresses[connect.rank];
        let news = log.complaint != complaint;
        if is_current {
            log.complaint.clone_from(&complaint);
        }
        drop(state);
        if let Some(error) = error.filter(|_| is_current) {
            // Before anybody hears of it.
            self.complain(connect.rank, error, news);
        }
        self.tell(|state, now, actions| {
            if is_unproved
                && !self.targets[connect.rank]
                    .identity()
                    .is_same_instance(identity)
            {
                // The pins were changed meanwhile: what came of the others says nothing.
                return state.pool.outdated(connect.session, now, actions);
            }
            let fault = if is_unproved {
                Fault::Unproved
            } else {
                Fault::Unreachable
            };
            state.pool.failed(connect.session, fault, now, actions);
        });
    }
}
