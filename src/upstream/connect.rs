//! How does a worker open a session, and what happens then?

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crossbeam_channel::bounded;

use super::actions::ConnectRequest;
use super::address_record::FailureCause;
use super::driver::{OpenSession, Upstream};
use super::handshake::ConnectError;
use super::health::AddressFailure;
use super::obstruction::NetworkFault;
use super::reader::Reader;
use super::session::Session;
use super::settings::{MIN_CONNECT_TIMEOUT, Security};
use super::traits::{Query, Replies};
use crate::identity::key_exchange::HelloSize;
use crate::identity::verifier::Identity;
use crate::system::clock;
use crate::system::thread;
use crate::telemetry::log::{debug, error};

/// A connection attempt that queries wait for. Dropping it unrun reports a failure.
#[must_use = "queries wait until it has run"]
struct ConnectAttempt<Q: Query, R: Replies + 'static> {
    /// None once the attempt runs.
    upstream: Option<Arc<Upstream<Q, R>>>,
    connect: ConnectRequest,
}

impl<Q: Query, R: Replies> ConnectAttempt<Q, R> {
    /// Connects, which may take longer than a query may, and reports the result.
    fn run(mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.connect(self.connect);
        }
    }
}

impl<Q: Query, R: Replies> Drop for ConnectAttempt<Q, R> {
    /// No thread could run the attempt.
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            let session = self.connect.session;
            upstream.update_pool(|state, now, actions| {
                state
                    .pool
                    .connect_failed(session, AddressFailure::Unreachable, now, actions);
            });
        }
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Hands a connection attempt to the executor.
    pub(super) fn spawn_connect(self: &Arc<Self>, connect: ConnectRequest) {
        let attempt = ConnectAttempt {
            upstream: Some(Arc::clone(self)),
            connect,
        };
        if let Some(executor) = self.executor.get().and_then(Weak::upgrade) {
            executor.execute(Box::new(move || attempt.run()));
        }
    }

    /// Connects, and starts the thread that reads the session.
    fn connect(self: &Arc<Self>, connect: ConnectRequest) {
        let target = &self.targets[connect.rank];
        let security = target.security();
        let started_at = clock::now();
        let deadline = started_at + self.timeout.max(MIN_CONNECT_TIMEOUT);
        let connected = thread::catch_panic("connect", || {
            Session::connect_with(target.address, &security, connect.hello, deadline, || {
                if can_fall_back(connect, &security) {
                    self.update_pool(|state, now, actions| {
                        state.pool.hello_sent(connect.session, now, actions)
                    });
                }
            })
        });
        match connected {
            Some(Ok((session, reader))) => {
                let took = clock::now().saturating_duration_since(started_at);
                if let Some(tls) = session.tls_parameters() {
                    self.metrics.handshake_times[usize::from(tls.resumed)].observe(took, 1);
                    self.metrics.key_exchanges[tls.group as usize].increment();
                }
                self.register_session(connect, &security, session, reader);
            }
            Some(Err(error)) => {
                self.metrics.count_failure(&error);
                self.handle_connect_failure(connect, &security, Some(&error));
            }
            None => self.handle_connect_failure(connect, &security, None),
        }
    }

    /// Registers a session that was opened with `security`, if the current identity would still accept it.
    fn register_session(
        self: &Arc<Self>,
        connect: ConnectRequest,
        security: &Security,
        session: Arc<Session>,
        reader: Reader,
    ) {
        debug!(
            "event=session-opened resolver={} {}",
            session.address(),
            session.describe_security()
        );
        let open = OpenSession {
            id: connect.session,
            rank: connect.rank,
            session,
        };
        // The thread is started before the lock is taken, and reads once the pool knows the session.
        let (registered, is_registered) = bounded::<()>(1);
        let (upstream, read) = (Arc::clone(self), open.clone());
        let started = thread::spawn("session", move || {
            if is_registered.recv().is_ok() {
                upstream.run_session_thread(&read, reader);
            }
        });
        let mut is_accepted = false;
        self.update_pool(|state, now, actions| {
            let current = self.targets[open.rank].security();
            if state.stopped {
                return;
            }
            if !current.is_same_instance(security) && !open.session.satisfies(&current) {
                return state.pool.connect_outdated(open.id, now, actions);
            }
            if let Err(cause) = &started {
                error!("event=thread-start-failed for=session cause=\"{cause}\"");
                let fault = AddressFailure::Unreachable;
                return state.pool.connect_failed(open.id, fault, now, actions);
            }
            is_accepted = true;
            state.sessions.push(open.clone());
            state.obstruction = None;
            state.pool.session_opened(open.id, now, actions);
            if state.addresses[open.rank].record_session(&open.session, now) {
                state.pool.report_active(open.rank, open.id, actions);
            }
            let time = state.pool.query_time().as_millis() as u64;
            self.query_time.store(time, Ordering::Relaxed);
        });
        if is_accepted {
            // The thread waits for this, and ends without.
            let _ = registered.send(());
            self.report_degraded(&open.session, security);
        } else {
            open.session.close();
        }
    }

    fn handle_connect_failure(
        self: &Arc<Self>,
        connect: ConnectRequest,
        security: &Security,
        error: Option<&ConnectError>,
    ) {
        let can_fall_back = can_fall_back(connect, security);
        let fault = fault_of(error, can_fall_back);
        let last_error = error.map(ToString::to_string).unwrap_or_default();
        let mut state = self.state.lock();
        // Another hello follows a large one that failed. What comes of probes with it, the pool reports.
        let is_known = fault == AddressFailure::LargeHello
            || can_fall_back && state.pool.is_post_quantum_left_out(connect.rank);
        let is_current = self.targets[connect.rank]
            .security()
            .is_same_instance(security);
        let is_logged = is_current && !is_known;
        let log = &mut state.addresses[connect.rank];
        let is_new = log.last_error != last_error;
        if is_logged {
            log.last_error.clone_from(&last_error);
            log.is_unauthenticated = fault == AddressFailure::Unauthenticated;
        }
        let kind = error.filter(|_| self.is_main && is_logged);
        let kind = kind.map(|error| NetworkFault::of(error, &security.name()));
        let obstruction =
            kind.and_then(|kind| state.record_failure(connect.rank, kind, clock::now()));
        drop(state);
        if let Some(error) = error {
            // Logged before any client learns of the failure.
            match is_known {
                true => self.log_failed_hello(connect.rank, error),
                false if is_logged => self.log_connect_error(connect.rank, error, is_new),
                false => {}
            }
        }
        if let Some(obstruction) = obstruction {
            self.log_obstruction(connect.rank, obstruction);
        }
        self.update_pool(|state, now, actions| {
            if state.stopped {
                return;
            }
            if fault == AddressFailure::Unauthenticated
                && !self.targets[connect.rank]
                    .security()
                    .is_same_instance(security)
            {
                // The pins were changed meanwhile: a failure with the old ones says nothing.
                return state.pool.connect_outdated(connect.session, now, actions);
            }
            if let Some(error) = error.filter(|_| is_logged) {
                let cause = FailureCause::of_connect(error);
                state.pool.record_failed_connect(connect.rank, cause, now);
            }
            state
                .pool
                .connect_failed(connect.session, fault, now, actions);
        });
    }
}

/// What the pool is told about a failed attempt.
fn fault_of(error: Option<&ConnectError>, can_fall_back: bool) -> AddressFailure {
    match error {
        Some(ConnectError::Identity(_)) => AddressFailure::Unauthenticated,
        Some(ConnectError::Handshake(_)) if can_fall_back => AddressFailure::LargeHello,
        _ => AddressFailure::Unreachable,
    }
}

/// Whether another hello than that of this attempt could be sent, and may fare better.
fn can_fall_back(connect: ConnectRequest, security: &Security) -> bool {
    let has_small_hello = security.identity().is_some_and(Identity::has_small_hello);
    connect.hello == HelloSize::Large && has_small_hello
}
