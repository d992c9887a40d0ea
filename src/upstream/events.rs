//! What is logged about sessions and resolvers?

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::actions::Event;
use super::driver::{OpenSession, Upstream};
use super::handshake::ConnectError;
use super::obstruction::Obstruction;
use super::service::{Outage, OutageDetails, Problem, ServiceChange};
use super::session::Session;
use super::settings::Security;
use super::status::find_pin;
use super::traits::{Query, Replies};
use crate::identity::key_exchange::HelloSize;
use crate::identity::pin::PinSet;
use crate::message::QueryForm;
use crate::system::clock;
use crate::telemetry::log::{debug, error, info, warn};

/// The end of a line that stands for so many earlier ones, too.
struct Suppressed(u32);

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lines => write!(f, " suppressed={lines}"),
        }
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Logs and counts an event of the pool. Tells the completer when a resolver has recovered.
    pub(super) fn handle_event(&self, event: Event, session: Option<&Session>, now: Instant) {
        let name = |rank: usize| self.targets[rank].security().name();
        let address = |rank: usize| self.targets[rank].address;
        let of_session = || {
            session.map_or_else(
                || "gone".to_owned(),
                |session| session.address().to_string(),
            )
        };
        match event {
            Event::AddressActive(rank, _) => {
                let description = session.map(Session::describe_security).unwrap_or_default();
                let (address, name) = (address(rank), name(rank));
                info!("event=resolver-connected resolver={address} name={name} {description}");
            }
            Event::SessionSilent(_) => debug!("event=session-hedged resolver={}", of_session()),
            Event::SessionDead(_) => debug!("event=session-timeout resolver={}", of_session()),
            Event::AddressFailing(rank) => self.log_problem(rank, &Problem::Failing, ""),
            Event::AddressRecovered(rank) => {
                self.completer.resolver_recovered(now);
                let (address, name) = (address(rank), name(rank));
                info!("event=resolver-recovered resolver={address} name={name}");
            }
            Event::FormReduced(rank, form) => {
                let without = match form {
                    QueryForm::NoEdns => "edns",
                    _ => "padding",
                };
                info!(
                    "event=resolver-edns-fallback resolver={} without={without}",
                    address(rank)
                );
            }
            Event::SmallHelloNeeded(_) => self.metrics.post_quantum_left_out.increment(),
            Event::PostQuantumLeftOut(rank, suppressed) => {
                let (address, name, more) = (address(rank), name(rank), Suppressed(suppressed));
                warn!("event=post-quantum-left-out resolver={address} name={name}{more}");
            }
            Event::PostQuantumRestored(rank, suppressed) => {
                let (address, name, more) = (address(rank), name(rank), Suppressed(suppressed));
                info!("event=post-quantum-restored resolver={address} name={name}{more}");
            }
            Event::CulpritFound => {
                self.metrics.culprits.increment();
                debug!("event=query-quarantined");
            }
            Event::UnmatchedReply(_) => debug!("event=response-mismatch resolver={}", of_session()),
        }
    }

    /// Logs that an outage begins or lasts: what is wrong with each address, in the words in which it was logged first.
    pub(super) fn log_outage(&self, outage: &Outage) {
        let details = OutageDetails(&outage.report).to_string();
        for (rank, problem) in &outage.problems {
            self.log_problem(*rank, problem, &details);
        }
    }

    /// Logs what answers of a session changed.
    pub(super) fn log_service(&self, open: &OpenSession, change: &ServiceChange) {
        if let Some(outage) = &change.outage {
            self.log_outage(outage);
        }
        if !change.is_up {
            return;
        }
        let (address, name) = (
            open.session.address(),
            self.targets[open.rank].security().name(),
        );
        let description = open.session.describe_security();
        let details = change.ended.as_ref().map(OutageDetails);
        let details = details
            .map(|details| details.to_string())
            .unwrap_or_default();
        info!("event=resolver-up resolver={address} name={name} {description}{details}");
    }

    /// Logs what is wrong with an address, and `details`.
    fn log_problem(&self, rank: usize, problem: &Problem, details: &str) {
        let target = &self.targets[rank];
        let (address, name) = (target.address, target.security().name());
        match problem {
            Problem::Unauthenticated(error) => error!(
                "event=resolver-authentication-failed resolver={address} name={name} {error}{details}"
            ),
            Problem::Unreachable(error) => {
                warn!("event=resolver-unreachable resolver={address} name={name} {error}{details}");
            }
            Problem::Failing => {
                warn!("event=resolver-failing resolver={address} name={name}{details}");
            }
            Problem::NotAnswering => warn!(
                "event=resolver-not-answering resolver={address} name={name} cause=\"sessions open, and no query is \
                 answered in time\"{details}"
            ),
        }
    }

    /// Counts and logs what a session was opened without.
    pub(super) fn report_degraded(&self, session: &Session, security: &Security) {
        let (Some(identity), Some(proof)) = (security.identity(), session.proof()) else {
            return;
        };
        if session.hello() == HelloSize::Small {
            // The pool logs that.
            self.metrics.degraded.small_hello.increment();
        }
        let address = session.address();
        let (name, pins) = (identity.name().to_str(), &identity.policy().pins);
        if !pins.is_empty() && find_pin(&proof.keys, identity.policy()).is_none() {
            self.metrics.degraded.unpinned.increment();
            let shown = proof.keys.iter().copied().collect::<PinSet>();
            warn!(
                "event=session-unpinned resolver={address} name={name} expected=\"{pins}\" shown_pins=\"{shown}\""
            );
        }
        if !proof.clock_untrusted {
            let now = clock::unix_time().as_secs();
            self.last_trusted_time.store(now, Ordering::Relaxed);
        } else {
            self.metrics.degraded.clock.increment();
            warn!(
                "event=clock-untrusted resolver={address} name={name} cause=\"this machine's clock is behind the time at \
                 which dns-tool was built or last knew the time; a pin stands in for it\""
            );
        }
    }

    /// Logs that a session with the large hello could not be opened, where the small one may be better.
    pub(super) fn log_failed_hello(&self, rank: usize, error: &ConnectError) {
        let address = self.targets[rank].address;
        debug!("event=large-hello-failed resolver={address} {error}");
    }

    /// Logs once what is wrong with an address. Not called under the lock: a log that nobody reads must not stop the service.
    pub(super) fn log_connect_error(&self, rank: usize, error: &ConnectError, is_new: bool) {
        let address = self.targets[rank].address;
        if !is_new {
            return debug!("event=resolver-still-down resolver={address}");
        }
        let is_unauthenticated = matches!(error, ConnectError::Identity(_));
        let problem = Problem::of_connecting(error.to_string(), is_unauthenticated);
        self.log_problem(rank, &problem, "");
    }

    /// Logs what the network seems to do to all connections, as the failure at the address of that rank shows, and what to do about it.
    pub(super) fn log_obstruction(&self, rank: usize, obstruction: Obstruction) {
        let target = &self.targets[rank];
        let (address, name) = (target.address, target.security().name());
        let (kind, cause) = (obstruction.name(), obstruction.cause());
        let remedy = obstruction.remedy();
        warn!(
            "event=network-obstructed resolver={address} name={name} kind={kind} cause=\"{cause}\" remedy=\"{remedy}\""
        );
    }
}
