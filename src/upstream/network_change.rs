//! What does the upstream do when the network changes?

use std::ops::AddAssign;
use std::sync::Arc;

use super::driver::Upstream;
use super::session::Session;
use super::table::SessionId;
use super::traits::{Query, Replies};
use crate::system::network_watch::local_address_towards;

/// What a change of the network meant for an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkEffect {
    /// Sessions that are replaced.
    pub lost_sessions: usize,
    /// Addresses that had failed, and may be tried again at once.
    pub failed_addresses: usize,
}

impl NetworkEffect {
    /// Returns true if the change meant nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for NetworkEffect {
    fn add_assign(&mut self, other: Self) {
        self.lost_sessions += other.lost_sessions;
        self.failed_addresses += other.failed_addresses;
    }
}

impl Session {
    /// Returns true if packets to the resolver would no longer leave from the session's own address: it has gone, or there is no route, or
    /// the route leads elsewhere. Nothing that is sent on the session is answered then.
    fn has_lost_route(&self) -> bool {
        let route = self.address.resolve().and_then(local_address_towards);
        let own = self.socket.local_addr().map(|own| own.ip());
        match (route, own) {
            (Ok(route), Ok(own)) => route != own,
            _ => true,
        }
    }
}

impl<Q: Query, R: Replies + 'static> Upstream<Q, R> {
    /// Ends the backoff of addresses that failed: the operator knows better.
    pub fn retry_failed(self: &Arc<Self>) {
        self.update_pool(|state, now, actions| state.pool.retry_failed(now, actions));
    }

    /// Links, addresses or routes of this host changed: addresses that failed may be tried again at once, and sessions that lost their
    /// route are replaced. Others go on.
    pub fn network_changed(self: &Arc<Self>) -> NetworkEffect {
        let open = self.state.lock().sessions.clone();
        let lost = open.iter().filter(|open| open.session.has_lost_route());
        let lost: Vec<SessionId> = lost.map(|open| open.id).collect();
        let ranks = 0..self.targets.len();
        let mut failed_addresses = 0;
        self.update_pool(|state, now, actions| {
            let failed = ranks.filter(|rank| !state.pool.is_healthy(*rank, now));
            failed_addresses = failed.count();
            state.pool.network_changed(&lost, now, actions);
        });
        NetworkEffect {
            lost_sessions: lost.len(),
            failed_addresses,
        }
    }
}
