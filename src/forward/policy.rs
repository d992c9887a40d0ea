//! Which settings hold for queries that come in?

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache;
use crate::forward::rate_limit::{self, Limiter};
use crate::forward::rebinding::RebindProtection;
use crate::forward::routes::{Destination, Route, Upstreams};
use crate::local::host_table::HostTable;
use crate::telemetry::query_log;
use crate::upstream::token_bucket::{Rate, TokenBucket};

/// Settings of the forwarder.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a query may take, from the client's message to its answer.
    pub timeout: Duration,
    /// How long an answer may take to count as good for the SLO.
    pub slo_latency: Duration,
    /// Queries of one client in flight, at most.
    pub max_pending: usize,
    /// The names of hosts files, which are answered here.
    pub hosts: Arc<HostTable>,
    /// Whether special-use names are answered here, and not by the resolver.
    pub answer_special_names: bool,
    /// Which answers may not name private addresses; None if all may.
    pub rebind_protection: Option<RebindProtection>,
    /// Settings of the cache.
    pub cache: cache::Settings,
    /// Which clients may ask, and how much.
    pub limit: rate_limit::Settings,
    /// How many queries may be sent to the resolver, retries included; None for no limit.
    pub upstream_rate_limit: Option<Rate>,
    /// What the query log says about each query.
    pub query_log: query_log::Mode,
}

/// What holds for queries that come in. A reload replaces the whole policy.
pub(super) struct Policy {
    pub(super) settings: Settings,
    pub(super) limiter: Limiter,
    pub(super) upstream_bucket: Arc<TokenBucket>,
    pub(super) upstreams: Arc<Upstreams>,
}

impl Policy {
    /// The first policy.
    pub(super) fn new(settings: Settings, upstreams: Arc<Upstreams>, now: Instant) -> Self {
        let upstream_bucket = Arc::new(TokenBucket::new(settings.upstream_rate_limit, now));
        upstreams.set_retry_budget(&upstream_bucket);
        Self {
            limiter: Limiter::new(settings.limit.clone(), now),
            upstream_bucket,
            settings,
            upstreams,
        }
    }

    /// The protection against DNS rebinding for names with this route: servers of routes may know private addresses.
    pub(super) fn rebind_protection(&self, route: Option<Route>) -> Option<&RebindProtection> {
        match route.map(|route| route.destination) {
            Some(Destination::Route(_)) => None,
            _ => self.settings.rebind_protection.as_ref(),
        }
    }

    /// The policy that replaces this one. Token buckets whose rate is unchanged carry over.
    pub(super) fn reconfigured(
        &self,
        settings: Settings,
        upstreams: Arc<Upstreams>,
        now: Instant,
    ) -> Self {
        let upstream_bucket = if settings.upstream_rate_limit == self.settings.upstream_rate_limit {
            Arc::clone(&self.upstream_bucket)
        } else {
            Arc::new(TokenBucket::new(settings.upstream_rate_limit, now))
        };
        // Retries of queries in flight on the old upstreams take their tokens from the same bucket.
        self.upstreams.set_retry_budget(&upstream_bucket);
        upstreams.set_retry_budget(&upstream_bucket);
        Self {
            limiter: self.limiter.reconfigured(settings.limit.clone(), now),
            upstream_bucket,
            settings,
            upstreams,
        }
    }
}
