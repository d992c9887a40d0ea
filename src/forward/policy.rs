//! What holds for queries that come in?

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cache;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::in_flight::Query;
use crate::forward::rate_limit::{self, Limiter};
use crate::telemetry::query_log;
use crate::upstream;
use crate::upstream::token_bucket::{Rate, TokenBucket};

/// The resolvers, as they are asked by what clients send.
pub type Upstream = upstream::Upstream<Query, ReplyBatch>;
/// What a thread keeps for its memory that brings queries.
pub type Work = upstream::WorkBuffers<Query>;

/// What this room can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The time of a query, from a client's message to its answer.
    pub timeout: Duration,
    /// How long an answer may take to count as a good one.
    pub slo_latency: Duration,
    /// Queries of one client that wait for an answer at a time, at most.
    pub max_pending: usize,
    /// What is kept.
    pub cache: cache::Settings,
    /// Who may ask, and how much.
    pub limit: rate_limit::Settings,
    /// How much may be sent to the resolver, what is asked once more included.
    pub budget: Option<Rate>,
    /// How much is said of each query.
    pub query_log: query_log::Mode,
}

/// What holds for queries that come in, and may be replaced while they do.
pub(super) struct Policy {
    pub(super) settings: Settings,
    pub(super) limiter: Limiter,
    pub(super) budget: Arc<TokenBucket>,
    pub(super) upstream: Arc<Upstream>,
}

impl Policy {
    /// The first one.
    pub(super) fn new(settings: Settings, upstream: Arc<Upstream>, now: Instant) -> Self {
        let budget = Arc::new(TokenBucket::new(settings.budget, now));
        upstream.set_retry_budget(&budget);
        Self {
            limiter: Limiter::new(settings.limit.clone(), now),
            budget,
            settings,
            upstream,
        }
    }

    /// The one that takes the place of this one. It remembers who asked how much, and what was sent, where that is limited
    /// as before.
    pub(super) fn with(&self, settings: Settings, upstream: Arc<Upstream>, now: Instant) -> Self {
        let budget = if settings.budget == self.settings.budget {
            Arc::clone(&self.budget)
        } else {
            Arc::new(TokenBucket::new(settings.budget, now))
        };
        // What is on its way by the one before is asked once more from the same budget.
        self.upstream.set_retry_budget(&budget);
        upstream.set_retry_budget(&budget);
        Self {
            limiter: self.limiter.with(settings.limit.clone(), now),
            budget,
            settings,
            upstream,
        }
    }
}
