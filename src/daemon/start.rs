//! How is it put together?

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::confinement::needs;
use super::error::StartError;
use super::key_refresh::Keys;
use super::running::{Applied, Running};
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::config::settings::Config;
use crate::forward::completion::Endings;
use crate::forward::forwarder::Forwarder;
use crate::forward::policy::{self, Upstream};
use crate::monitoring::export::Sources;
use crate::monitoring::http::{self, Monitor};
use crate::monitoring::process::Start;
use crate::server::listeners::Server;
use crate::server::sockets::Sockets;
use crate::server::workers::Pool;
use crate::system::clock;
use crate::system::memory::Memory;
use crate::system::privileges;
use crate::system::sandbox::{self, Needs};
use crate::system::thread;
use crate::telemetry::log::{info, warn};
use crate::telemetry::metrics::Counter;
use crate::upstream::{self, UpstreamMetrics};

/// Descriptors besides those of TCP clients, at most: listeners, sessions, and what the process itself needs.
const DESCRIPTORS: usize = 128;

/// A forwarder that is ready to serve: it has all that it needs rights for.
pub struct Bound {
    config: Config,
    sockets: Sockets,
    desk: Option<TcpListener>,
    confined: Option<Needs>,
}

/// Binds the sockets, but for those that were passed, and gives up rights.
pub fn bind(passed: Option<Sockets>, config: Config) -> Result<Bound, StartError> {
    let sockets = match passed {
        Some(sockets) => sockets,
        None => Sockets::bind(&config.server)?,
    };
    let desk = config.monitor.map(|address| {
        let failed = |error| StartError::Monitor(address, error);
        http::bind(address).map_err(failed)
    });
    let desk = desk.transpose()?;
    if let Some(user) = config.user {
        user.become_it()?;
    }
    config.keys.try_out().map_err(StartError::Keys)?;
    Ok(Bound {
        config,
        sockets,
        desk,
        confined: None,
    })
}

/// Binds, wires the rooms and serves. The first session is opened at once, in the background.
pub fn start(config: Config) -> Result<Running, StartError> {
    bind(None, config)?.serve()
}

/// How many TCP clients there may be at a time: as many as are wanted, if there is what each of them takes.
fn places(config: &Config) -> usize {
    let wanted = config.server.clients;
    let mut places = config.memory.connections();
    if places < wanted {
        let limit = config.memory.limit;
        warn!("event=little-memory max_clients={wanted} allowed={places} max_memory={limit}");
    }
    if places > privileges::threads_for_sure() && places > privileges::threads() {
        places = privileges::threads().max(1);
        warn!("event=few-threads max_clients={wanted} allowed={places}");
    }
    let needed = (places + DESCRIPTORS) as u64;
    let descriptors = privileges::allow_descriptors(needed);
    if descriptors < needed {
        // Where there are few, half are for clients, so that sessions and the monitor have theirs.
        let allowed = usize::try_from(descriptors).unwrap_or(usize::MAX);
        places = (allowed - DESCRIPTORS.min(allowed / 2)).max(1);
        warn!(
            "event=few-descriptors allowed={descriptors} wanted={needed} max_clients={wanted} clients={places}"
        );
    }
    places
}

impl Bound {
    /// Has the kernel see to it that the calling thread, and those that it starts, do no more than what it takes to serve.
    /// Where it cannot, the log says so.
    pub fn confine(&mut self) {
        let needs = needs(&self.config);
        // A file of options may name somebody else later.
        privileges::users();
        match sandbox::enter(&needs) {
            Ok(Some(version)) => {
                info!("event=confined landlock={version}");
                self.confined = Some(needs);
            }
            Ok(None) => info!("event=not-confined cause=\"the kernel has no Landlock\""),
            Err(_) => {
                warn!("event=not-confined cause=\"the kernel refuses the rules of Landlock\"")
            }
        }
    }

    /// Wires the rooms and serves.
    pub fn serve(self) -> Result<Running, StartError> {
        let Self {
            config,
            sockets,
            desk,
            confined,
        } = self;
        let addresses = sockets.addresses().to_vec();
        let clients = places(&config);
        let memory = Memory::new(config.memory);
        let evictions = Arc::new(EvictionCounters::default());
        let slow_readers = start_slow_readers(&memory, &evictions)?;
        warn_of_variables(&config);
        let now = clock::now();
        let relay = Relay::start(config.forwarder, config.upstream, &memory, now)?;
        let pool = Pool::new(Arc::clone(&relay.forwarder), clients);
        // Before anybody can ask: a query that nobody connects for would fail.
        let executor = Arc::downgrade(&pool);
        relay.upstream.set_executor(executor);
        let server = Server::start(
            sockets,
            &config.server,
            clients,
            &relay.forwarder,
            &pool,
            &slow_readers,
            &evictions,
        )?;
        for address in &addresses {
            info!("event=listening address={address}");
        }
        let keys = Keys::start(config.keys, &relay.upstream)?;
        let monitor = desk.map(|desk| {
            let start = Start::new(now, clock::since_1970().as_secs());
            start_monitor(desk, relay.sources(&server, &evictions, start))
        });
        let monitor = monitor.transpose()?;
        Ok(Running {
            addresses,
            server,
            forwarder: relay.forwarder,
            pool,
            slow_readers,
            endings: relay.endings,
            evictions,
            tally: relay.tally,
            monitor,
            confined,
            started: config.given.clone(),
            applied: Mutex::new(Applied {
                given: config.given,
                keys,
                retired: Vec::new(),
            }),
        })
    }
}

/// What relays queries, whoever they come from.
struct Relay {
    /// Octets that the cache may have.
    cache_size: usize,
    endings: Arc<Endings>,
    tally: Arc<UpstreamMetrics>,
    upstream: Arc<Upstream>,
    forwarder: Arc<Forwarder>,
}

impl Relay {
    fn start(
        settings: policy::Settings,
        resolvers: upstream::Settings,
        memory: &Arc<Memory>,
        now: Instant,
    ) -> io::Result<Self> {
        let cache_size = settings.cache.size;
        let endings = Arc::new(Endings::new(settings.cache, memory, now));
        let tally = Arc::new(UpstreamMetrics::default());
        let settle = Arc::clone(&endings) as Arc<_>;
        let upstream = Upstream::start(resolvers, settle, Arc::clone(&tally))?;
        let forwarder = Forwarder::new(settings, Arc::clone(&upstream), Arc::clone(&endings), now);
        endings.query_log().turn(forwarder.settings().query_log)?;
        Ok(Self {
            cache_size,
            endings,
            tally,
            upstream,
            forwarder: Arc::new(forwarder),
        })
    }

    /// What the monitoring port shows.
    fn sources(&self, server: &Server, evictions: &Arc<EvictionCounters>, start: Start) -> Sources {
        Sources {
            endings: Arc::clone(&self.endings),
            forwarder: Arc::clone(&self.forwarder),
            tally: Arc::clone(&self.tally),
            slots: Arc::clone(server.slots()),
            evictions: Arc::clone(evictions),
            cache_size: self.cache_size,
            start,
            requests: Counter::new(),
            refused: Counter::new(),
        }
    }
}

/// Has a thread write on to clients that are slow to read.
fn start_slow_readers(
    memory: &Arc<Memory>,
    evictions: &Arc<EvictionCounters>,
) -> io::Result<Arc<SlowReaders>> {
    let (slow_readers, bell) = SlowReaders::new(Arc::clone(memory), Arc::clone(evictions))?;
    let drained = Arc::clone(&slow_readers);
    thread::spawn_for_good("slow-readers", move || drained.drain(&bell))?;
    Ok(slow_readers)
}

/// Says in the log which variables look like options and are none.
fn warn_of_variables(config: &Config) {
    let left_alone: Vec<_> = config.given.left_alone().collect();
    if !left_alone.is_empty() {
        let variables = left_alone.join(" ");
        warn!("event=variables-left-alone variables=\"{variables}\" cause=\"they are no options\"");
    }
}

/// Has the monitoring port be answered from now on.
fn start_monitor(desk: TcpListener, sources: Sources) -> io::Result<Monitor> {
    let monitor = Monitor::start(desk, sources)?;
    info!("event=monitoring address={}", monitor.address());
    Ok(monitor)
}
