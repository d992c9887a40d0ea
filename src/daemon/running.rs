//! What goes on while it serves, and how does it stop?

use std::io::{self, PipeWriter};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::hosts_manager::HostsManager;
use super::pin_manager::PinManager;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::config::sources::OptionValues;
use crate::forward::completion::QueryCompleter;
use crate::forward::forwarder::Forwarder;
use crate::forward::outcome::Outcome;
use crate::forward::routes::Upstream;
use crate::monitoring::http::Monitor;
use crate::server::listeners::Server;
use crate::server::workers::WorkerPool;
use crate::system::clock;
use crate::system::sandbox::SandboxRules;
use crate::system::service_manager::ServiceNotifier;
use crate::system::thread;
use crate::telemetry::log::{error, info};
use crate::upstream::{DegradedSessions, UpstreamMetrics};

/// A daemon that serves.
///
/// The lock on `active` makes reloads exclusive. It is taken before all other locks of the daemon's parts and never while one of
/// them is held.
pub struct RunningDaemon {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) server: Server,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) pool: Arc<WorkerPool>,
    pub(super) slow_readers: Arc<SlowReaders>,
    pub(super) completer: Arc<QueryCompleter>,
    pub(super) evictions: Arc<EvictionCounters>,
    pub(super) upstream_metrics: Arc<UpstreamMetrics>,
    pub(super) monitor: Option<Monitor>,
    /// The rules that the kernel enforces, if any.
    pub(super) sandbox_rules: Option<SandboxRules>,
    /// Dropped to end the thread that watches the network; none if the network cannot be watched.
    pub(super) network_watch: Option<PipeWriter>,
    /// The options at the start.
    pub(super) initial_options: OptionValues,
    pub(super) active: Mutex<ActiveConfig>,
}

/// What a reload replaces.
pub(super) struct ActiveConfig {
    pub(super) options: OptionValues,
    pub(super) pin_manager: Arc<PinManager>,
    pub(super) hosts_manager: Arc<HostsManager>,
    /// Earlier upstreams that still have queries in flight.
    pub(super) retired: Vec<Weak<Upstream>>,
}

impl RunningDaemon {
    /// The addresses and ports that it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address of the monitoring port, if there is one.
    pub fn monitor(&self) -> Option<SocketAddr> {
        self.monitor.as_ref().map(Monitor::address)
    }

    /// Counts of client traffic that limits rejected.
    pub fn evictions(&self) -> &EvictionCounters {
        &self.evictions
    }

    /// The number of queries with this outcome.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.completer.counts().count(outcome)
    }

    /// Sessions opened without a matching pin, or while the clock was wrong.
    pub fn degraded_sessions(&self) -> &DegradedSessions {
        &self.upstream_metrics.degraded
    }

    /// One line for people: the resolver in use and the number of queries.
    pub fn status(&self) -> String {
        Self::status_of(&self.forwarder, &self.completer)
    }

    fn status_of(forwarder: &Forwarder, completer: &QueryCompleter) -> String {
        let statuses = forwarder.upstreams().main().address_status();
        let in_use = statuses.iter().find(|status| status.sessions > 0);
        let resolver = in_use.map_or("no session".to_owned(), |status| {
            format!("{} at {} serves", status.name, status.address)
        });
        let total: u64 = Outcome::ALL
            .map(|outcome| completer.counts().count(outcome))
            .iter()
            .sum();
        format!("{resolver}; {total} queries")
    }

    /// Reports READY to the service manager, and starts a thread for its watchdog, if it has one. Fails when the system has no
    /// thread.
    pub fn report_to(&self, notifier: &Arc<ServiceNotifier>) -> io::Result<()> {
        let (forwarder, completer) = (Arc::clone(&self.forwarder), Arc::clone(&self.completer));
        notifier.notify_ready(&self.status());
        let Some(interval) = notifier.watchdog_interval() else {
            return Ok(());
        };
        let notifier = Arc::clone(notifier);
        thread::spawn_restarting("watchdog", move || {
            loop {
                match thread::stalled_thread(clock::now()) {
                    None => notifier.notify_watchdog(&Self::status_of(&forwarder, &completer)),
                    Some(name) => {
                        error!("event=thread-stalled thread={name}");
                        notifier.notify_status(&format!("a thread is stuck: {name}"));
                    }
                }
                std::thread::sleep(interval);
            }
        })?;
        Ok(())
    }

    /// Empties the cache. Answers to queries that are in flight now are not cached.
    pub fn flush_cache(&self) {
        let octets = self.completer.cache().octets();
        let entries = self.completer.flush(clock::now());
        info!("event=cache-flushed entries={entries} octets={octets}");
    }

    /// Stops reading queries, completes those in flight and closes the sessions. Takes as long as one query may.
    pub fn stop(self) {
        if let Some(monitor) = &self.monitor {
            monitor.set_stopping();
        }
        let ActiveConfig {
            pin_manager,
            hosts_manager,
            retired,
            ..
        } = self.active.into_inner();
        pin_manager.stop();
        hosts_manager.stop();
        drop(self.network_watch);
        self.server.stop();
        self.pool.stop_reading();
        let retired = || retired.iter().filter_map(Weak::upgrade);
        let timeouts = retired().map(|upstream| upstream.timeout());
        self.forwarder
            .drain(timeouts.fold(Duration::ZERO, Duration::max));
        retired().for_each(|upstream| upstream.stop());
        let upstreams = self.forwarder.upstreams();
        upstreams.all().for_each(|upstream| upstream.stop());
        self.pool.stop();
        self.slow_readers.stop();
        self.completer.query_log().finish();
        if let Some(monitor) = &self.monitor {
            monitor.stop();
        }
        let counts =
            Outcome::ALL.map(|outcome| (outcome.name(), self.completer.counts().count(outcome)));
        let counts: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        info!(
            "event=stopped {} udp-receive-drops={} clients-evicted={} clients-address-limit={} clients-slow-readers={} clients-memory-limit={} clients-thread-start-failed={} sessions-unpinned={} sessions-clock-untrusted={} panics={}",
            counts.join(" "),
            self.evictions.udp_receive_drops,
            self.evictions.evicted,
            self.evictions.over_address_limit,
            self.evictions.slow_readers,
            self.evictions.over_memory,
            self.evictions.no_thread,
            self.upstream_metrics.degraded.unpinned,
            self.upstream_metrics.degraded.clock,
            thread::panics()
        );
    }
}
