//! What changes when resolvers or their pins do?

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::pki_types::ServerName;

use super::driver::{OpenSession, Upstream};
use super::settings::Settings;
use super::traits::{Query, Replies};
use crate::identity::pin::PinSet;
use crate::identity::terms::Terms;
use crate::identity::verifier::Identity;

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Another one in its place, with other settings, which goes on counting where this one does. Its sessions are new, but
    /// resolvers that stay are known by their tickets, if the pins of `accepted_pins` are the same.
    pub fn replacement(
        &self,
        settings: &Settings,
        accepted_pins: &dyn Fn(&ServerName<'_>) -> PinSet,
    ) -> io::Result<Arc<Self>> {
        let mut settings = settings.clone();
        // No option says it, so no reload changes it.
        settings.min_silence_timeout = self.min_silence_timeout;
        let targets = self.targets();
        for resolver in &mut settings.resolvers {
            let pins = accepted_pins(resolver.identity.name());
            let known = targets
                .iter()
                .find(|(_, own)| own.is_like(&resolver.identity));
            resolver.identity = match known {
                Some((_, own)) => own.with_pins(pins),
                None => Identity::new(Terms {
                    pins,
                    // That of the start: what is remembered by now was learnt by it.
                    clock_floor: targets
                        .first()
                        .map_or(0, |(_, own)| own.terms().clock_floor),
                    ..resolver.identity.terms().clone()
                }),
            };
        }
        let (completer, metrics) = (Arc::clone(&self.completer), Arc::clone(&self.metrics));
        let last_trusted_time = self.last_trusted_time.load(Ordering::Relaxed);
        Self::start_with(settings, completer, metrics, last_trusted_time)
    }

    /// Gives each resolver the pins that `pins` has for it. What was proved by others, or by pins that no longer count, counts
    /// no more: sessions end that would not be opened now, and tickets are forgotten. Resolvers that did not prove
    /// themselves may try again at once.
    ///
    /// Returns for how many resolvers' addresses the pins are others than before.
    pub fn update_pins(self: &Arc<Self>, pins: impl Fn(&Identity) -> PinSet) -> usize {
        let mut changed = 0;
        self.update_pool(|state, now, actions| {
            // Addresses of one resolver go on sharing their tickets.
            let mut known: Vec<(Identity, Identity)> = Vec::new();
            let mut unfit = Vec::new();
            for (rank, target) in self.targets.iter().enumerate() {
                let before = target.identity();
                let shared = known.iter().find(|(old, _)| old.is(&before));
                let after = match shared {
                    Some((_, after)) => after.clone(),
                    None => {
                        let after = before.with_pins(pins(&before));
                        known.push((before.clone(), after.clone()));
                        after
                    }
                };
                let is_same = after.is(&before);
                let is_unfit = |open: &&OpenSession| {
                    let satisfies = if is_same {
                        open.session.is_pin_valid(&after)
                    } else {
                        open.session.satisfies(&after)
                    };
                    open.rank == rank && !satisfies
                };
                unfit.extend(state.sessions.iter().filter(is_unfit).map(|open| open.id));
                if !is_same {
                    changed += 1;
                    *target.identity.lock() = after;
                    state.addresses[rank].last_error.clear();
                    state.pool.reset(rank);
                }
            }
            // Nothing is sent into them from here on; what waits for an answer of theirs is asked elsewhere.
            for session in unfit {
                state.pool.revoke_session(session, now, actions);
            }
            if changed > 0 {
                state.pool.identity_changed(now, actions);
            }
        });
        changed
    }

    /// Whether it would be no other one with these settings, but for the resolvers' pins.
    pub fn has_same_settings(&self, settings: &Settings) -> bool {
        let own = self.targets();
        let resolvers = settings.resolvers.iter();
        let wanted: Vec<_> = resolvers
            .flat_map(|resolver| {
                let addresses = resolver.addresses.iter();
                addresses.map(|address| (*address, &resolver.identity))
            })
            .collect();
        let alike = own
            .iter()
            .zip(&wanted)
            .all(|((address, own), (other, identity))| address == other && own.is_like(identity));
        let numbers = (self.timeout, self.sessions, self.max_pending);
        own.len() == wanted.len()
            && alike
            && numbers == (settings.timeout, settings.sessions, settings.max_pending)
    }
}
