//! dns-tool relays cleartext DNS, over TCP and UDP, to one resolver whose identity it has proved, over TLS.
//!
//! ```text
//! clients                                                                       resolver
//! TCP --> server: accept --> worker: read queries --.
//! UDP --> server: receive datagrams ----------------+--> forwarder.handle
//!                                                              |
//!                 not allowed (limit), or known (cache): answered here and now
//!                                on its way already (flight): waits too
//!                                                              v
//!                                                upstream: pool --> session.send --> TLS
//!                                                                                             |
//! client.rs: replies leave <-- forwarder: settle <-- session thread: match the answer <----'
//! ```
//!
//! Read it in the order in which a query travels: [`server::listeners`], [`server::workers`], [`forward::forwarder`], [`cache`], [`forward::in_flight`],
//! [`upstream`], [`upstream::session`],
//! [`client`]; [`message::wire`] and [`message::framing`] know the octets, [`identity::verifier`] and [`identity::pin`] the resolver. A file imports only files
//! below it in this list:
//!
//! main, lib, command, keys, config, server, monitoring, forward, cache, upstream, client, identity, telemetry, message,
//! system.
//!
//! No thread ever waits for another connection's answer: what waits is an entry in the pool's table of queries, and the thread that reads an answer delivers it.
#![forbid(unsafe_code)]

pub mod cache;
pub mod client;
pub mod command;
pub mod config;
pub mod forward;
pub mod identity;
pub mod keys;
pub mod message;
pub mod monitoring;
pub mod server;
pub mod system;
pub mod telemetry;
pub mod upstream;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;

use crate::client::{EvictionCounters, SlowReaders};
use crate::config::options::Given;
use crate::config::settings::{Command, Config};
use crate::forward::forwarder::{Endings, Forwarder, Outcome, Upstream};
use crate::keys::Keys;
use crate::monitoring::export::{Sources, Start};
use crate::monitoring::http::Monitor;
use crate::server::listeners::{BindError, Server, Sockets};
use crate::server::workers::Pool;
use crate::system::memory::Memory;
use crate::system::privileges::RightsError;
use crate::system::sandbox::Needs;
use crate::system::service_manager::Manager;
use crate::telemetry::log::{error, info, line, warn};
use crate::telemetry::metrics::Counter;
use crate::upstream::{Doubts, Tally};

/// Descriptors besides those of TCP clients, at most: listeners, sessions, and what the process itself needs.
const DESCRIPTORS: usize = 128;

/// Why serving could not begin.
#[derive(Debug)]
pub enum StartError {
    /// A socket could not be had.
    Bind(BindError),
    /// It would have had more rights than it should.
    Rights(RightsError),
    /// What is to be read and written while it serves cannot be.
    Keys(String),
    /// The monitoring port could not be had.
    Monitor(SocketAddr, io::Error),
    /// The system has no more threads or descriptors.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Rights(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
            Self::Monitor(address, error) => write!(
                f,
                "--monitor {address}: {error}; expected an address of this host and a free port"
            ),
            Self::System(error) => {
                write!(f, "the system refuses a thread or a descriptor: {error}")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl From<RightsError> for StartError {
    fn from(error: RightsError) -> Self {
        Self::Rights(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Options that hold as they were at the start, whatever the file says later.
const FIXED: [&str; 10] = [
    "--address",
    "--port",
    "--reuse-port",
    "--monitor",
    "--cache-size",
    "--max-memory",
    "--max-clients",
    "--max-clients-per-address",
    "--state-dir",
    "--user",
];

/// A forwarder that serves.
pub struct Running {
    addresses: Vec<SocketAddr>,
    server: Server,
    forwarder: Arc<Forwarder>,
    pool: Arc<Pool>,
    slow_readers: Arc<SlowReaders>,
    endings: Arc<Endings>,
    evictions: Arc<EvictionCounters>,
    tally: Arc<Tally>,
    monitor: Option<Monitor>,
    /// What it is held to by the kernel.
    confined: Option<Needs>,
    /// The options that it was started with.
    started: Given,
    applied: Mutex<Applied>,
}

/// What holds since the last reload, or the start.
struct Applied {
    given: Given,
    keys: Arc<Keys>,
    /// Upstreams of before, as long as queries are on their way there.
    retired: Vec<Weak<Upstream>>,
}

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
        monitoring::http::bind(address).map_err(failed)
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

/// What it takes to serve, and to reload.
fn needs(config: &Config) -> Needs {
    let Config { keys, given, .. } = config;
    let mut needs = Needs::default();
    // The C library looks there, for how many processors it divides memory.
    needs.read.push(PathBuf::from("/sys/devices/system/cpu"));
    if config.server.clients > system::privileges::threads_for_sure() {
        needs.read.push(PathBuf::from(system::privileges::MAPPINGS));
    }
    needs.read.extend(given.file().map(PathBuf::from));
    needs.read.extend(keys.source.file.clone());
    // It was read, so it is one.
    let _ = given.each("--resolver-ca", &mut |file| {
        needs.read.push(PathBuf::from(file));
        Ok(())
    });
    if config.monitor.is_some() {
        needs.read.push(PathBuf::from(monitoring::export::OWN));
    }
    needs.written.clone_from(&keys.directory);
    needs.ports = ports(&config.upstream).collect();
    needs
}

/// How many TCP clients there may be at a time: as many as are wanted, if there is what each of them takes.
fn places(config: &Config) -> usize {
    let wanted = config.server.clients;
    let mut places = config.memory.connections();
    if places < wanted {
        let limit = config.memory.limit;
        warn!("event=little-memory max_clients={wanted} allowed={places} max_memory={limit}");
    }
    if places > system::privileges::threads_for_sure() && places > system::privileges::threads() {
        places = system::privileges::threads().max(1);
        warn!("event=few-threads max_clients={wanted} allowed={places}");
    }
    let needed = (places + DESCRIPTORS) as u64;
    let descriptors = system::privileges::allow_descriptors(needed);
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

/// The ports of resolvers.
fn ports(settings: &upstream::Settings) -> impl Iterator<Item = u16> {
    let resolvers = settings.resolvers.iter();
    let addresses = resolvers.flat_map(|resolver| &resolver.addresses);
    addresses.map(SocketAddr::port)
}

impl Bound {
    /// Has the kernel see to it that the calling thread, and those that it starts, do no more than what it takes to serve.
    /// Where it cannot, the log says so.
    pub fn confine(&mut self) {
        let needs = needs(&self.config);
        // A file of options may name somebody else later.
        system::privileges::users();
        match system::sandbox::enter(&needs) {
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
        let (slow_readers, bell) = SlowReaders::new(Arc::clone(&memory), Arc::clone(&evictions))?;
        let drained = Arc::clone(&slow_readers);
        system::thread::spawn_for_good("slow-readers", move || drained.drain(&bell))?;
        let left_alone: Vec<_> = config.given.left_alone().collect();
        if !left_alone.is_empty() {
            let variables = left_alone.join(" ");
            warn!(
                "event=variables-left-alone variables=\"{variables}\" cause=\"they are no options\""
            );
        }
        let now = system::clock::now();
        let cache_size = config.forwarder.cache.size;
        let endings = Arc::new(Endings::new(config.forwarder.cache, &memory, now));
        let tally = Arc::new(Tally::default());
        let settle = Arc::clone(&endings) as Arc<_>;
        let upstream = Upstream::start(config.upstream, settle, Arc::clone(&tally))?;
        let forwarder = Forwarder::new(
            config.forwarder,
            Arc::clone(&upstream),
            Arc::clone(&endings),
            now,
        );
        let forwarder = Arc::new(forwarder);
        endings.query_log().turn(forwarder.settings().query_log)?;
        let pool = Pool::new(Arc::clone(&forwarder), clients);
        // Before anybody can ask: a query that nobody connects for would fail.
        let hands = Arc::downgrade(&pool);
        upstream.employ(hands);
        let server = Server::start(
            sockets,
            &config.server,
            clients,
            &forwarder,
            &pool,
            &slow_readers,
            &evictions,
        )?;
        for address in &addresses {
            info!("event=listening address={address}");
        }
        let keys = Keys::start(config.keys, &upstream)?;
        let monitor = desk.map(|desk| {
            let sources = Sources {
                endings: Arc::clone(&endings),
                forwarder: Arc::clone(&forwarder),
                tally: Arc::clone(&tally),
                slots: Arc::clone(server.slots()),
                evictions: Arc::clone(&evictions),
                cache_size,
                start: Start::new(now, system::clock::since_1970().as_secs()),
                requests: Counter::new(),
                refused: Counter::new(),
            };
            Monitor::start(desk, sources)
        });
        let monitor = monitor.transpose()?;
        if let Some(monitor) = &monitor {
            info!("event=monitoring address={}", monitor.address());
        }
        Ok(Running {
            addresses,
            server,
            forwarder,
            pool,
            slow_readers,
            endings,
            evictions,
            tally,
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
        self.endings.count(outcome)
    }

    /// Sessions that were opened on less than all that could be asked for.
    pub fn doubts(&self) -> &Doubts {
        &self.tally.doubts
    }

    /// Reads again what it was started with: the file of options, if there is one, and pins and what is remembered. What is
    /// on its way ends as it began. If anything is wrong with the file all options stay as they are, and the log says why;
    /// pins and what is remembered are read again all the same.
    pub fn reload(&self) {
        let mut applied = self.applied.lock();
        let Some(file) = self.started.file() else {
            return applied.keys.reload(true);
        };
        let read = match config::settings::read(self.started.sources()) {
            Ok(Command::Serve(mut config)) => self.apply(&mut applied, &mut config),
            // The arguments are those of before.
            Ok(_) => return,
            Err(error) => Err(error.to_string()),
        };
        if let Err(cause) = read {
            error!("event=configuration-kept file={file:?} cause={cause:?}");
            if applied.keys.settings().reads_files() {
                applied.keys.reload(true);
            }
        }
    }

    /// Has what can hold of a configuration hold from now on.
    fn apply(&self, applied: &mut Applied, config: &mut Config) -> Result<(), String> {
        let Config {
            upstream: settings,
            keys,
            given,
            ..
        } = config;
        if let Some(Needs { ports: open, .. }) = &self.confined
            && let Some(port) = ports(settings).find(|port| !open.contains(port))
        {
            return Err(format!(
                "resolver port {port}: the sandbox is open for {open:?} alone; expected one of these, or a restart"
            ));
        }
        let mut waiting = given.changed(&self.started);
        let mut changed = given.changed(&applied.given);
        let elsewhere = waiting.contains(&"--state-dir");
        let is_fixed = |name: &str| FIXED.contains(&name) || elsewhere && name == "--pin-rollover";
        waiting.retain(|name| is_fixed(name));
        changed.retain(|name| !is_fixed(name));
        let before = Arc::clone(&applied.keys);
        // What it remembers stays where it is, and the time that was good at the start stays that.
        if elsewhere {
            keys.directory.clone_from(&before.settings().directory);
            keys.rollover = before.settings().rollover;
            keys.state = before.state();
        }
        keys.state.good_time = before.settings().state.good_time;
        keys.source
            .may_follow(
                &keys.given,
                &before.given(),
                system::clock::since_1970().as_secs(),
            )
            .map_err(|error| error.to_string())?;
        let (names, old_names) = (&keys.source.names, &before.settings().source.names);
        let others =
            names.len() != old_names.len() || names.iter().any(|name| !old_names.contains(name));
        let upstream = self.forwarder.upstream();
        let stays = upstream.has(settings);
        let next = if stays {
            Arc::clone(&upstream)
        } else {
            let believed = |name: &ServerName<'_>| keys.believed(&keys.given, &keys.state, name);
            let next = upstream.succeed(settings, &believed);
            next.map_err(|error| StartError::System(error).to_string())?
        };
        let same_keys = stays && before.settings().are_like(keys);
        if !same_keys {
            before.pause(true);
            match Keys::start(keys.clone(), &next) {
                Ok(keys) => applied.keys = keys,
                Err(error) => {
                    before.pause(false);
                    if !stays {
                        next.retire();
                    }
                    return Err(StartError::System(error).to_string());
                }
            }
            before.stop();
        }
        if !stays {
            let hands = Arc::downgrade(&self.pool);
            next.employ(hands);
        }
        self.forwarder
            .change(config.forwarder.clone(), next, system::clock::now());
        if !stays {
            upstream.retire();
            applied.retired.retain(|retired| retired.strong_count() > 0);
            applied.retired.push(Arc::downgrade(&upstream));
            // Nor does who asks now wait for a resolver that was left, maybe since it does not answer.
            if others {
                self.endings.forget(system::clock::now());
            } else {
                self.endings.part();
            }
        }
        let query_log = self.endings.query_log().turn(config.forwarder.query_log);
        if let Err(cause) = query_log {
            error!("event=no-thread for=query-log cause=\"{cause}\"");
        }
        if changed.contains(&"--log-level") {
            log::set_max_level(config.log_level);
        }
        if !stays && changed.is_empty() {
            // The file has the same name and others in it.
            changed.push("--resolver-ca");
        }
        let spell = |names: &[&str]| names.join(" ").replace("--", "");
        let (level, waiting) = match &waiting[..] {
            [] => (Level::Info, String::new()),
            waiting => (
                Level::Warn,
                format!(" needs_restart=\"{}\"", spell(waiting)),
            ),
        };
        line!(
            level,
            "event=configuration-read file={:?} changed=\"{}\"{waiting}",
            given.file().unwrap_or_default(),
            spell(&changed)
        );
        applied.given = given.clone();
        if same_keys && applied.keys.settings().reads_files() {
            applied.keys.reload(true);
        }
        Ok(())
    }

    /// How it fares, in a line for people.
    pub fn status(&self) -> String {
        Self::status_of(&self.forwarder, &self.endings)
    }

    fn status_of(forwarder: &Forwarder, endings: &Endings) -> String {
        let standings = forwarder.upstream().standings();
        let serving = standings.iter().find(|standing| standing.sessions > 0);
        let resolver = serving.map_or("no session".to_owned(), |standing| {
            format!("{} at {} serves", standing.name, standing.address)
        });
        let all: u64 = Outcome::ALL
            .map(|outcome| endings.count(outcome))
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
        system::thread::spawn_for_good("watchdog", move || {
            loop {
                match system::thread::stuck(system::clock::now()) {
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
        let entries = self.endings.forget(system::clock::now());
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
        let counts = Outcome::ALL.map(|outcome| (outcome.name(), self.endings.count(outcome)));
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
            self.tally.doubts.unpinned,
            self.tally.doubts.clock,
            system::thread::panics()
        );
    }
}
