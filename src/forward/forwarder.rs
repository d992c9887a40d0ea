//! What happens to this query, in order?
//!
//! The policy is the same for every transport. Each query ends in one [`Outcome`], from which the response code, the EDE, the count
//! and the log line follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::{Ask, Found};
use crate::client::connection::Connection;
use crate::client::destination::Client;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::checks::refusal;
use crate::forward::completion::Endings;
use crate::forward::counts::Source;
use crate::forward::flights::Spares;
use crate::forward::in_flight::Query;
use crate::forward::outcome::Outcome;
use crate::forward::policy::{Policy, Settings, Upstream, Work};
use crate::forward::rate_limit::Verdict;
use crate::forward::relay::Relay;
use crate::forward::waiters::Waiter;
use crate::message::{self, Asked};
use crate::system::clock;
use crate::system::memory::Memory;

/// How long a client waits for a fresh answer before it gets an expired one (RFC 8767 section 5), unless half of its time
/// is less.
const PATIENCE: Duration = Duration::from_millis(1800);

/// What a thread that brings queries keeps from one batch to the next.
#[derive(Default)]
pub struct Batch {
    queries: Vec<Arc<Query>>,
    spares: Spares,
    /// How many queries the last batch had for the resolver.
    before: usize,
    work: Work,
    replies: ReplyBatch,
    over_limit: bool,
    terse: bool,
    /// Clients that were given what is kept, and how many of them no failure.
    given: u64,
    served: u64,
    policy: Option<Arc<Policy>>,
    /// Of that policy.
    generation: usize,
}

impl Batch {
    /// That of a thread that reads this connection alone, and may wait for a moment until there is memory for what it answers.
    pub fn patient(connection: &Connection) -> Self {
        Self {
            replies: ReplyBatch::for_worker(connection),
            ..Self::default()
        }
    }

    /// Whether a client asked too much, or what it may not, since the last call.
    pub fn was_over_limit(&mut self) -> bool {
        std::mem::take(&mut self.over_limit)
    }

    /// Whether so much is to be sent to clients that it should be, by [`Forwarder::dispatch`], before more is taken in.
    pub fn is_large(&self) -> bool {
        self.replies.is_large()
    }

    /// Whether who asks by datagram, and finds no place to wait, is told nothing from now on: while more datagrams come
    /// than can be read, the time that telling takes would be taken from those who can be answered.
    pub fn be_terse(&mut self, terse: bool) {
        self.terse = terse;
    }
}

/// Where every query goes in.
pub struct Forwarder {
    endings: Arc<Endings>,
    policy: Mutex<Arc<Policy>>,
    /// How many policies there were, so that whoever holds one sees without a lock that there is another.
    generation: AtomicUsize,
}

impl Forwarder {
    /// Relays by `upstream`, whose queries end in `endings` too.
    pub fn new(
        settings: Settings,
        upstream: Arc<Upstream>,
        endings: Arc<Endings>,
        now: Instant,
    ) -> Self {
        endings.counts().aim(settings.slo_latency);
        let policy = Policy::new(settings, upstream, now);
        Self {
            endings,
            policy: Mutex::new(Arc::new(policy)),
            generation: AtomicUsize::new(1),
        }
    }

    /// Has these settings hold from now on for queries that come in, and sends those to `upstream`. The size of the cache
    /// stays. Only then may another upstream that had them be retired.
    pub fn change(&self, settings: Settings, upstream: Arc<Upstream>, now: Instant) {
        self.endings.cache().serve_stale(settings.cache.serve_stale);
        self.endings.counts().aim(settings.slo_latency);
        let mut policy = self.policy.lock();
        *policy = Arc::new(policy.with(settings, upstream, now));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Where queries that come in now go.
    pub fn upstream(&self) -> Arc<Upstream> {
        Arc::clone(&self.policy.lock().upstream)
    }

    /// The policy that holds now.
    fn policy<'b>(&self, held: &'b mut Option<Arc<Policy>>, generation: &mut usize) -> &'b Policy {
        let now = self.generation.load(Ordering::SeqCst);
        if *generation != now {
            (*held, *generation) = (None, now);
        }
        held.get_or_insert_with(|| Arc::clone(&self.policy.lock()))
    }

    /// What holds for queries that come in now.
    pub fn settings(&self) -> Settings {
        self.policy.lock().settings.clone()
    }

    /// Clients' queries whose answer has not left.
    pub fn waiting(&self) -> usize {
        self.endings.waiting()
    }

    /// What messages hold.
    pub fn memory(&self) -> &Arc<Memory> {
        self.endings.memory()
    }

    /// Takes in one client's message. Its answer, or its way to the resolver, waits for [`Forwarder::dispatch`].
    pub fn handle(&self, message: &[u8], client: Client, now: Instant, batch: &mut Batch) {
        let endings = &self.endings;
        let replies = &mut batch.replies;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let is_datagram = matches!(client, Client::Datagram { .. });
        let verdict = policy.limiter.judge(client.peer().ip(), is_datagram, now);
        if verdict == Verdict::Drop && is_datagram {
            return endings.end(&client, &[], Outcome::Dropped, now);
        }
        batch.over_limit |= verdict != Verdict::Pass;
        let query = match message::Query::parse(message) {
            Ok(query) => query,
            // Nothing is owed to it that it could be told.
            Err(_) if verdict != Verdict::Pass => {
                return endings.end(&client, &[], Outcome::Dropped, now);
            }
            Err(fault) => {
                return endings.reply_unreadable(message, &client, fault, now, replies);
            }
        };
        let refusal = refusal(verdict, &query);
        let asked = Asked::by(&query);
        if refusal == Some(Outcome::OverLimit) && is_datagram {
            replies.push_tc(&client, &asked);
            return endings.end(&client, asked.question, Outcome::OverLimit, now);
        }
        if let Some(outcome) = refusal {
            let most = message.len();
            return endings.refuse(&client, &asked, outcome, most, now, replies);
        }
        self.look_up(&query, client, now, batch);
    }

    /// Answers a query that may be asked from what is known, or has it go on to the resolver; or both, where what is known is
    /// to be renewed.
    fn look_up(&self, query: &message::Query<'_>, client: Client, now: Instant, batch: &mut Batch) {
        let endings = &self.endings;
        let policy = self.policy(&mut batch.policy, &mut batch.generation);
        let timeout = policy.upstream.query_time();
        let key = query.key();
        let found = match &key {
            Some(key) => endings.cache().find(key, now),
            None => Found::Nothing,
        };
        let (kept, ask) = match found {
            Found::Nothing => (None, Some(Ask::First)),
            Found::Fresh { kept, renew: true } => (Some(kept), Some(Ask::Behind)),
            Found::Fresh { kept, renew: false } | Found::Failed(kept) => (Some(kept), None),
            Found::Stale { kept, ask } => (Some(kept), Some(ask)),
        };
        // Where something is known, it is given to whoever would wait for longer than that.
        let patience = kept.as_ref().map(|_| PATIENCE.min(timeout / 2));
        let relay = Relay {
            query,
            key: key.as_ref(),
            timeout,
            patience,
            most_waiting: policy.settings.max_pending,
        };
        if ask == Some(Ask::First) {
            let Batch { spares, before, .. } = batch;
            if let Some((going, waits)) = endings.relay_for(relay, &client, now, spares, *before) {
                endings.counts().add_miss();
                let clients = going.clients();
                clients.add(Waiter::new(query, client, now, clients.timeout(), waits));
                return batch.queries.push(going);
            }
        }
        let asked = Asked::by(query);
        let replies = &mut batch.replies;
        let Some(kept) = kept else {
            let outcome = Outcome::Overloaded;
            if batch.terse && matches!(client, Client::Datagram { .. }) {
                return endings.end(&client, asked.question, outcome, now);
            }
            return endings.refuse(&client, &asked, outcome, usize::MAX, now, replies);
        };
        let outcome = endings.give(&client, &asked, &kept, now, replies);
        batch.given += 1;
        batch.served += u64::from(outcome.is_served());
        if ask == Some(Ask::Behind)
            && let Some(going) =
                endings.relay(&relay, relay.cost(), now, &mut batch.spares, batch.before)
        {
            endings.counts().add_renewal();
            batch.queries.push(going);
        }
    }

    /// Counts a message that nobody can have sent.
    pub fn ignore(&self) {
        self.endings.counts().add(false, Outcome::Ignored);
    }

    /// Sends on what [`Forwarder::handle`] took in.
    pub fn dispatch(&self, batch: &mut Batch, now: Instant) {
        let Batch {
            queries,
            spares,
            before,
            work,
            replies,
            policy,
            generation,
            ..
        } = batch;
        *before = queries.len();
        if !queries.is_empty() || !spares.is_empty() {
            let policy = self.policy(policy, generation);
            self.endings.board(policy, queries, spares, now, replies);
        }
        // An upstream that takes no more has been replaced before, so the next one is there to be found.
        while !queries.is_empty() {
            let policy = self.policy(policy, generation);
            policy.upstream.submit(queries, work, replies, now);
        }
        replies.send();
        let given = std::mem::take(&mut batch.given);
        let served = std::mem::take(&mut batch.served);
        if given > 0 {
            let took = clock::now().saturating_duration_since(now);
            self.endings
                .counts()
                .measure(Source::Cache, took, given, served);
        }
    }

    /// Waits until every client has its answer, at most as long as a query may take that comes in now, or `before` for
    /// those that came in when that was longer.
    pub fn finish(&self, before: Duration) {
        let deadline = clock::now() + self.policy.lock().settings.timeout.max(before);
        while self.endings.waiting() > 0 && clock::now() < deadline {
            sleep(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests;
