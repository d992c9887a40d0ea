//! What changes when resolvers or their pins do?

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::ServerName;

use super::driver::{OpenSession, Upstream};
use super::settings::{Security, Settings};
use super::traits::{Query, Replies};
use crate::identity::pin::PinSet;
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::VerifyPolicy;

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Builds the upstream that replaces this one, with other settings. Counters carry over; sessions do not. A resolver that stays keeps
    /// its TLS tickets if its `accepted_pins` are the same.
    pub fn replacement(
        &self,
        settings: &Settings,
        accepted_pins: &dyn Fn(&ServerName<'_>) -> PinSet,
    ) -> io::Result<Arc<Self>> {
        let mut settings = settings.clone();
        // No option sets it, so no reload changes it.
        settings.min_silence_timeout = self.min_silence_timeout;
        let targets = self.targets();
        for resolver in &mut settings.resolvers {
            let Security::Tls(identity) = &resolver.security else {
                continue;
            };
            let pins = accepted_pins(identity.name());
            let mut known = targets.iter().filter_map(|(_, own)| own.identity());
            let identity = match known.find(|own| own.is_same_resolver(identity)) {
                Some(own) => own.with_pins(pins),
                None => Identity::new(VerifyPolicy {
                    pins,
                    // The floor of the start: what is remembered by now was learned by it.
                    clock_floor: targets
                        .iter()
                        .find_map(|(_, own)| own.identity())
                        .map_or(0, |own| own.policy().clock_floor),
                    ..identity.policy().clone()
                }),
            };
            resolver.security = Security::Tls(identity);
        }
        let (completer, metrics) = (Arc::clone(&self.completer), Arc::clone(&self.metrics));
        let last_trusted_time = self.last_trusted_time.load(Ordering::Relaxed);
        Self::start_with(settings, completer, metrics, last_trusted_time)
    }

    /// Replaces the pins of each resolver by those that `pins` returns. Sessions that the new pins would not accept are closed, and tickets
    /// are forgotten. Resolvers that failed authentication may be tried again at once.
    ///
    /// Returns the number of addresses whose pins changed.
    pub fn update_pins(self: &Arc<Self>, pins: impl Fn(&Identity) -> PinSet) -> usize {
        let mut changed = 0;
        self.update_pool(|state, now, actions| {
            // Addresses of one resolver go on sharing their tickets.
            let mut known: Vec<(Security, Security)> = Vec::new();
            let mut rejected = Vec::new();
            for (rank, target) in self.targets.iter().enumerate() {
                let before = target.security();
                let shared = known.iter().find(|(old, _)| old.is_same_instance(&before));
                let after = match shared {
                    Some((_, after)) => after.clone(),
                    None => {
                        let after = before.with_pins(&pins);
                        known.push((before.clone(), after.clone()));
                        after
                    }
                };
                let is_same = after.is_same_instance(&before);
                let is_rejected = |open: &&OpenSession| {
                    let satisfies = if is_same {
                        open.session.is_pin_valid(&after)
                    } else {
                        open.session.satisfies(&after)
                    };
                    open.rank == rank && !satisfies
                };
                rejected.extend(
                    state
                        .sessions
                        .iter()
                        .filter(is_rejected)
                        .map(|open| open.id),
                );
                if !is_same {
                    changed += 1;
                    *target.security.lock() = after;
                    state.addresses[rank].last_error.clear();
                    state.pool.reset(rank);
                }
            }
            // Nothing is sent on these sessions any more; queries that are pending there are sent elsewhere.
            for session in rejected {
                state.pool.revoke_session(session, now, actions);
            }
            if changed > 0 {
                state.pool.identity_changed(now, actions);
            }
        });
        changed
    }

    /// Returns true if these settings differ from the current ones in pins at most.
    pub fn has_same_settings(&self, settings: &Settings) -> bool {
        let own = self.targets();
        let resolvers = settings.resolvers.iter();
        let others: Vec<_> = resolvers
            .flat_map(|resolver| {
                let addresses = resolver.addresses.iter();
                addresses.map(|address| (*address, &resolver.security))
            })
            .collect();
        let same_resolvers = own
            .iter()
            .zip(&others)
            .all(|((address, own), (other, security))| {
                address == other && own.is_same_resolver(security)
            });
        let numbers = (self.timeout, self.sessions, self.max_pending);
        own.len() == others.len()
            && same_resolvers
            && numbers == (settings.timeout, settings.sessions, settings.max_pending)
    }
}
