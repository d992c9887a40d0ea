//! What goes on while it serves, and how does it stop?

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::key_refresh::Keys;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::config::sources::Given;
use crate::forward::completion::Endings;
use crate::forward::forwarder::Forwarder;
use crate::forward::outcome::Outcome;
use crate::forward::policy::Upstream;
use crate::monitoring::http::Monitor;
use crate::server::listeners::Server;
use crate::server::workers::Pool;
use crate::system::clock;
use crate::system::sandbox::Needs;
use crate::system::service_manager::Manager;
use crate::system::thread;
use crate::telemetry::log::{error, info};
use crate::upstream::{DegradedSessions, UpstreamMetrics};

/// A forwarder that serves.
pub struct Running {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) server: Server,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) pool: Arc<Pool>,
    pub(super) slow_readers: Arc<SlowReaders>,
    pub(super) endings: Arc<Endings>,
    pub(super) evictions: Arc<EvictionCounters>,
    pub(super) tally: Arc<UpstreamMetrics>,
    pub(super) monitor: Option<Monitor>,
    /// What it is held to by the kernel.
    pub(super) confined: Option<Needs>,
    /// The options that it was started with.
    pub(super) started: Given,
    pub(super) applied: Mutex<Applied>,
}

/// What holds since the last reload, or the start.
pub(super) struct Applied {
    pub(super) given: Given,
    pub(super) keys: Arc<Keys>,
    /// Upstreams of before, as long as queries are on their way there.
    pub(super) retired: Vec<Weak<Upstream>>,
}

impl Running {
    /// The addresses and ports that it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where its state is read from outside, if anywhere.
    pub fn monitor(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::address)
    }

    /// What the bounds on clients have cost them.
    pub fn evictions(&self) -> &EvictionCounters {
        &self.evictions
    }

    /// How many queries ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.endings.counts().count(outcome)
    }

    /// Sessions that were opened on less than all that could be asked for.
    pub fn doubts(&self) -> &DegradedSessions {
        &self.tally.degraded
    }

    /// How it fares, in a line for people.
    pub fn status(&self) -> String {
        Self::status_of(&self.forwarder, &self.endings)
    }

    fn status_of(forwarder: &Forwarder, endings: &Endings) -> String {
        let standings = forwarder.upstream().address_status();
        let serving = standings.iter().find(|standing| standing.sessions > 0);
        let resolver = serving.map_or("no session".to_owned(), |standing| {
            format!("{} at {} serves", standing.name, standing.address)
        });
        let all: u64 = Outcome::ALL
            .map(|outcome| endings.counts().count(outcome))
            .iter()
            .sum();
        format!("{resolver}; {all} queries")
    }

    /// Tells the service manager that it serves; and from now on, where there is a watchdog, that it goes on doing so, as long
    /// as that is so. Fails when the system has no thread for that.
    pub fn report_to(&self, manager: &Arc<Manager>) -> io::Result<()> {
        let (forwarder, endings) = (Arc::clone(&self.forwarder), Arc::clone(&self.endings));
        manager.ready(&self.status());
        let Some(every) = manager.watchdog() else {
            return Ok(());
        };
        let manager = Arc::clone(manager);
        thread::spawn_for_good("watchdog", move || {
            loop {
                match thread::stuck(clock::now()) {
                    None => manager.feed(&Self::status_of(&forwarder, &endings)),
                    Some(name) => {
                        error!("event=thread-stuck thread={name}");
                        manager.complain(&format!("a thread is stuck: {name}"));
                    }
                }
                std::thread::sleep(every);
            }
        })?;
        Ok(())
    }

    /// Forgets the answers that are kept, and keeps none that was asked for before.
    pub fn empty_cache(&self) {
        let octets = self.endings.cache().octets();
        let entries = self.endings.forget(clock::now());
        info!("event=cache-emptied entries={entries} octets={octets}");
    }

    /// Takes no more queries, lets those on their way end, and closes the session. Takes as long as a query may.
    pub fn stop(self) {
        if let Some(monitor) = &self.monitor {
            monitor.be_unready();
        }
        let Applied { keys, retired, .. } = self.applied.into_inner();
        keys.stop();
        self.server.stop();
        self.pool.refuse_queries();
        let retired = || retired.iter().filter_map(Weak::upgrade);
        let timeouts = retired().map(|upstream| upstream.timeout());
        self.forwarder
            .finish(timeouts.fold(Duration::ZERO, Duration::max));
        retired().for_each(|upstream| upstream.stop());
        self.forwarder.upstream().stop();
        self.pool.stop();
        self.slow_readers.stop();
        self.endings.query_log().finish();
        if let Some(monitor) = &self.monitor {
            monitor.stop();
        }
        let counts =
            Outcome::ALL.map(|outcome| (outcome.name(), self.endings.counts().count(outcome)));
        let counts: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        info!(
            "event=stopped {} datagrams-lost={} clients-gave-way={} clients-refused={} clients-not-reading={} clients-over-memory={} clients-no-thread={} sessions-unpinned={} sessions-by-floor={} panics={}",
            counts.join(" "),
            self.evictions.datagrams,
            self.evictions.gave_way,
            self.evictions.refused,
            self.evictions.not_reading,
            self.evictions.over_memory,
            self.evictions.no_thread,
            self.tally.degraded.unpinned,
            self.tally.degraded.clock,
            thread::panics()
        );
    }
}
