//! How is it put together?

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::confinement::sandbox_rules;
use super::error::StartError;
use super::hosts_manager::HostsManager;
use super::network_monitor;
use super::pin_manager::PinManager;
use super::running::{ActiveConfig, RunningDaemon};
use super::upstreams;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::config::settings::Config;
use crate::forward::completion::QueryCompleter;
use crate::forward::forwarder::Forwarder;
use crate::forward::policy;
use crate::forward::routes::{self, Upstreams};
use crate::monitoring::export::Exporter;
use crate::monitoring::http::{self, Monitor};
use crate::monitoring::process::ProcessStart;
use crate::server::listeners::Server;
use crate::server::sockets::Sockets;
use crate::server::workers::WorkerPool;
use crate::system::clock;
use crate::system::memory::Memory;
use crate::system::privileges;
use crate::system::sandbox::{self, SandboxRules};
use crate::system::scoped_address::ScopedAddress;
use crate::system::thread;
use crate::telemetry::log::{info, warn};
use crate::telemetry::metrics::Counter;
use crate::upstream::{self, UpstreamMetrics};

/// File descriptors kept for everything but TCP clients: listeners, sessions and the process itself.
const RESERVED_FDS: usize = 128;
/// File descriptors without which the process and the sessions to one resolver do not work, and those of each upstream of a route.
const MIN_OWN_FDS: usize = 24;
const MIN_FDS_PER_ROUTE: usize = 3;
/// File descriptors kept for the sessions of each upstream of a route.
const FDS_PER_ROUTE: usize = 16;

/// A daemon that is ready to serve: everything that needs privileges is done.
pub struct BoundDaemon {
    config: Config,
    sockets: Sockets,
    monitor_listener: Option<TcpListener>,
    sandbox_rules: Option<SandboxRules>,
}

/// Binds the sockets, unless they were `passed` by a service manager, and drops privileges.
pub fn bind(passed: Option<Sockets>, config: Config) -> Result<BoundDaemon, StartError> {
    let sockets = match passed {
        Some(sockets) => sockets,
        None => Sockets::bind(&config.server)?,
    };
    upstreams::check_loops(&config, sockets.addresses()).map_err(StartError::RouteLoop)?;
    let monitor_listener = config.monitor.map(|address| {
        let failed = |error| StartError::Monitor(address, error);
        http::bind(address).map_err(failed)
    });
    let monitor_listener = monitor_listener.transpose()?;
    if let Some(user) = config.user {
        user.drop_privileges()?;
    }
    config
        .trust
        .check_access()
        .map_err(StartError::TrustFiles)?;
    // Read again with the privileges that are left.
    let hosts = config.hosts.reread();
    hosts.map_err(|error| StartError::TrustFiles(error.to_string()))?;
    Ok(BoundDaemon {
        config,
        sockets,
        monitor_listener,
        sandbox_rules: None,
    })
}

/// Binds and serves. The first session is opened in the background at once.
pub fn start(config: Config) -> Result<RunningDaemon, StartError> {
    bind(None, config)?.serve()
}

/// The maximum number of TCP clients: as many as configured, if memory, threads and file descriptors suffice.
fn client_limit(config: &Config) -> usize {
    let wanted = config.server.max_clients;
    let mut clients = config.memory.max_connections();
    if clients < wanted {
        let limit = config.memory.limit;
        warn!("event=memory-limit-low max_clients={wanted} allowed={clients} max_memory={limit}");
    }
    let mut threads = privileges::max_threads_in_address_space();
    if clients > privileges::default_max_threads() {
        threads = threads.min(privileges::max_threads());
    }
    if clients > threads {
        clients = threads.max(1);
        warn!("event=thread-limit-low max_clients={wanted} allowed={clients}");
    }
    let reserved = RESERVED_FDS + FDS_PER_ROUTE * config.routes.upstreams.len();
    let needed = (clients + reserved) as u64;
    let fd_limit = privileges::raise_fd_limit(needed);
    if fd_limit < needed {
        // If there are few, clients get half at most, so that sessions, files and the monitoring port have the rest.
        let allowed = usize::try_from(fd_limit).unwrap_or(usize::MAX);
        let least = MIN_OWN_FDS + MIN_FDS_PER_ROUTE * config.routes.upstreams.len();
        let shared = allowed - reserved.min(allowed / 2);
        clients = shared.min(allowed.saturating_sub(least)).max(1);
        warn!(
            "event=fd-limit-low allowed={fd_limit} wanted={needed} max_clients={wanted} clients={clients}"
        );
    }
    clients
}

impl BoundDaemon {
    /// Restricts the calling thread, and all threads that it starts later, to what serving needs. If the kernel cannot do that,
    /// the log says so.
    pub fn enter_sandbox(&mut self) {
        let rules = sandbox_rules(&self.config);
        // Reads the list of users while that is allowed: a reload may name another user.
        privileges::passwd();
        match sandbox::restrict_self(&rules) {
            Ok(Some(version)) => {
                info!("event=sandbox-enabled landlock={version}");
                self.sandbox_rules = Some(rules);
            }
            Ok(None) => info!("event=sandbox-unavailable cause=\"the kernel has no Landlock\""),
            Err(_) => {
                warn!(
                    "event=sandbox-unavailable cause=\"the kernel refuses the rules of Landlock\""
                )
            }
        }
    }

    /// Starts all parts, and serves.
    pub fn serve(self) -> Result<RunningDaemon, StartError> {
        let Self {
            config,
            sockets,
            monitor_listener,
            sandbox_rules,
        } = self;
        let addresses = sockets.addresses().to_vec();
        let clients = client_limit(&config);
        let memory = Memory::new(config.memory);
        let evictions = Arc::new(EvictionCounters::default());
        warn_of_ignored(&config);
        let now = clock::now();
        let relay = Relay::start(
            config.forwarder,
            config.upstream,
            config.routes,
            &memory,
            now,
        )?;
        let slow_readers = start_slow_readers(&memory, &evictions, &relay.completer)?;
        let pool = WorkerPool::new(Arc::clone(&relay.forwarder), clients);
        // Before the first query: a query for which no thread can connect would fail.
        upstreams::set_executor(&relay.upstreams, &pool);
        let server = Server::start(
            sockets,
            &config.server,
            clients,
            &relay.forwarder,
            &pool,
            &slow_readers,
            &evictions,
        )?;
        log_listeners(&addresses);
        let pin_manager = PinManager::start(config.trust, &relay.upstreams)?;
        let hosts_manager = HostsManager::start(config.hosts, &relay.forwarder);
        let exporter = || relay.exporter(&server, &evictions, now);
        let monitor = monitor_listener.map(|listener| start_monitor(listener, exporter()));
        let monitor = monitor.transpose()?;
        Ok(RunningDaemon {
            addresses,
            server,
            network_watch: network_monitor::start(&relay.forwarder),
            forwarder: relay.forwarder,
            pool,
            slow_readers,
            completer: relay.completer,
            evictions,
            upstream_metrics: relay.upstream_metrics,
            monitor,
            sandbox_rules,
            initial_options: config.options.clone(),
            active: Mutex::new(ActiveConfig {
                options: config.options,
                pin_manager,
                hosts_manager,
                retired: Vec::new(),
            }),
        })
    }
}

/// The path of a query: forwarder, completion and upstream.
struct Relay {
    /// Octets that the cache may use.
    cache_size: usize,
    completer: Arc<QueryCompleter>,
    upstream_metrics: Arc<UpstreamMetrics>,
    upstreams: Arc<Upstreams>,
    forwarder: Arc<Forwarder>,
}

impl Relay {
    fn start(
        settings: policy::Settings,
        resolvers: upstream::Settings,
        routes: routes::Settings,
        memory: &Arc<Memory>,
        now: Instant,
    ) -> io::Result<Self> {
        let cache_size = settings.cache.size;
        let completer = Arc::new(QueryCompleter::new(settings.cache, memory, now));
        let upstream_metrics = Arc::new(UpstreamMetrics::default());
        let upstreams = upstreams::start(resolvers, routes, &completer, &upstream_metrics)?;
        let forwarder = Forwarder::new(
            settings,
            Arc::clone(&upstreams),
            Arc::clone(&completer),
            now,
        );
        completer
            .query_log()
            .set_mode(forwarder.settings().query_log)?;
        Ok(Self {
            cache_size,
            completer,
            upstream_metrics,
            upstreams,
            forwarder: Arc::new(forwarder),
        })
    }

    /// What the monitoring port exports.
    fn exporter(
        &self,
        server: &Server,
        evictions: &Arc<EvictionCounters>,
        now: Instant,
    ) -> Exporter {
        Exporter {
            completer: Arc::clone(&self.completer),
            forwarder: Arc::clone(&self.forwarder),
            upstream_metrics: Arc::clone(&self.upstream_metrics),
            connection_limit: Arc::clone(server.connection_limit()),
            evictions: Arc::clone(evictions),
            cache_size: self.cache_size,
            start: ProcessStart::new(now, clock::unix_time().as_secs()),
            http_requests: Counter::new(),
            http_refused: Counter::new(),
        }
    }
}

/// Starts the thread that writes to clients that read slowly.
fn start_slow_readers(
    memory: &Arc<Memory>,
    evictions: &Arc<EvictionCounters>,
    completer: &QueryCompleter,
) -> io::Result<Arc<SlowReaders>> {
    let (slow_readers, wakeup) = SlowReaders::new(
        Arc::clone(memory),
        Arc::clone(evictions),
        Arc::clone(completer.counts().unsent_replies()),
    )?;
    let for_thread = Arc::clone(&slow_readers);
    thread::spawn_restarting("slow-readers", move || for_thread.drain(&wakeup))?;
    Ok(slow_readers)
}

/// Logs the addresses on which it listens.
fn log_listeners(addresses: &[SocketAddr]) {
    for address in addresses {
        info!("event=listening address={}", ScopedAddress::from(*address));
    }
}

/// Logs the environment variables that look like options but are none, and the trust anchors that cannot be read.
fn warn_of_ignored(config: &Config) {
    let ignored_variables: Vec<_> = config.options.ignored_variables().collect();
    if !ignored_variables.is_empty() {
        let variables = ignored_variables.join(" ");
        warn!("event=environment-ignored variables=\"{variables}\" cause=\"they are no options\"");
    }
    upstreams::log_skipped_anchors(config);
}

/// Starts the monitoring port.
fn start_monitor(monitor_listener: TcpListener, exporter: Exporter) -> io::Result<Monitor> {
    let monitor = Monitor::start(monitor_listener, exporter)?;
    info!(
        "event=monitoring address={}",
        ScopedAddress::from(monitor.address())
    );
    Ok(monitor)
}
