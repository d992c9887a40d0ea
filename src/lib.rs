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
//!                                                       upstream.submit --> session.send --> TLS
//!                                                                                             |
//! client.rs: departures leave <-- forwarder: settle <-- session thread: match the answer <----'
//! ```
//!
//! Read it in the order in which a query travels: [`server`], [`worker`], [`forwarder`], [`cache`], [`flight`],
//! [`upstream`], [`session`],
//! [`client`]; [`wire`] and [`frame`] know the octets, [`identity`] and [`pin`] the resolver. A file imports only files
//! below it in this list:
//!
//! main, lib, command, config, options, keys, server, worker, forwarder, limit, cache, upstream, health, session, flight, identity,
//! certificate, pins, state, rollover, pin, client, frame, deadline, zone, wire, journal, rights, thread, clock, date, metrics.
//!
//! No thread ever waits for another connection's answer: what waits is an entry in the session's table of pending
//! queries, and the thread that reads an answer delivers it.
#![forbid(unsafe_code)]

pub mod cache;
pub mod certificate;
pub mod client;
pub mod clock;
pub mod command;
pub mod config;
pub mod date;
pub mod deadline;
pub mod flight;
pub mod forwarder;
pub mod frame;
pub mod health;
pub mod identity;
pub mod journal;
pub mod keys;
pub mod limit;
pub mod metrics;
pub mod options;
pub mod pin;
pub mod pins;
pub mod rights;
pub mod rollover;
pub mod server;
pub mod session;
pub mod state;
pub mod thread;
pub mod upstream;
pub mod wire;
pub mod worker;
pub mod zone;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use log::{info, warn};

use crate::client::{Outboxes, Shed};
use crate::config::Config;
use crate::forwarder::{Endings, Forwarder, Outcome};
use crate::keys::Keys;
use crate::rights::RightsError;
use crate::server::{BindError, Server, Sockets};
use crate::upstream::{Doubts, Upstream};
use crate::worker::Pool;

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
    /// The system has no more threads or descriptors.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Rights(error) => error.fmt(f),
            Self::Keys(error) => error.fmt(f),
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

/// A forwarder that serves.
pub struct Running {
    addresses: Vec<SocketAddr>,
    server: Server,
    forwarder: Arc<Forwarder>,
    pool: Arc<Pool>,
    upstream: Arc<Upstream>,
    outboxes: Arc<Outboxes>,
    endings: Arc<Endings>,
    shed: Arc<Shed>,
    keys: Arc<Keys>,
}

/// Binds the sockets, gives up rights, wires the rooms and serves. The first session is opened at once, in the background.
pub fn start(config: Config) -> Result<Running, StartError> {
    let sockets = Sockets::bind(&config.server)?;
    if let Some(user) = config.user {
        user.become_it()?;
    }
    config.keys.try_out().map_err(StartError::Keys)?;
    let addresses = sockets.addresses().to_vec();
    let wanted = (config.server.clients + DESCRIPTORS) as u64;
    let descriptors = rights::allow_descriptors(wanted);
    if descriptors < wanted {
        warn!("event=few-descriptors allowed={descriptors} wanted={wanted}");
    }
    let shed = Arc::new(Shed::default());
    let (outboxes, bell) = Outboxes::new(Arc::clone(&shed))?;
    let drained = Arc::clone(&outboxes);
    thread::spawn_for_good("outboxes", move || drained.drain(&bell))?;
    let endings = Arc::new(Endings::new(config.forwarder, clock::now()));
    let upstream = Upstream::start(config.upstream, Arc::clone(&endings) as Arc<_>)?;
    let forwarder = Arc::new(Forwarder::new(Arc::clone(&upstream), Arc::clone(&endings)));
    let pool = Pool::new(Arc::clone(&forwarder), config.server.clients);
    // Before anybody can ask: a query that nobody connects for would fail.
    let hands = Arc::downgrade(&pool);
    upstream.employ(hands);
    let server = Server::start(sockets, &config.server, &forwarder, &pool, &outboxes, &shed)?;
    for address in &addresses {
        info!("event=listening address={address}");
    }
    let keys = Keys::start(config.keys, &upstream)?;
    Ok(Running {
        addresses,
        server,
        forwarder,
        pool,
        upstream,
        outboxes,
        endings,
        shed,
        keys,
    })
}

impl Running {
    /// The addresses and ports that it listens on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What the bounds on clients have cost them.
    pub fn shed(&self) -> &Shed {
        &self.shed
    }

    /// How many queries ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.endings.count(outcome)
    }

    /// Sessions that were opened on less than all that could be asked for.
    pub fn doubts(&self) -> &Doubts {
        self.upstream.doubts()
    }

    /// Reads again what can be while it serves: pins, and what is remembered.
    pub fn reload(&self) {
        self.keys.reload(true);
    }

    /// Forgets the answers that are kept.
    pub fn empty_cache(&self) {
        let cache = self.endings.cache();
        let octets = cache.octets();
        info!(
            "event=cache-emptied entries={} octets={octets}",
            cache.empty()
        );
    }

    /// Takes no more queries, lets those on their way end, and closes the session. Takes as long as a query may.
    pub fn stop(self) {
        self.keys.stop();
        self.server.stop();
        self.pool.refuse_queries();
        self.forwarder.finish();
        self.upstream.stop();
        self.pool.stop();
        self.outboxes.stop();
        let counts = Outcome::ALL.map(|outcome| (outcome.name(), self.endings.count(outcome)));
        let counts: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("{name}={count}"))
            .collect();
        info!(
            "event=stopped {} datagrams-lost={} clients-gave-way={} clients-refused={} clients-not-reading={} sessions-unpinned={} sessions-by-floor={} panics={}",
            counts.join(" "),
            self.shed.datagrams,
            self.shed.gave_way,
            self.shed.refused,
            self.shed.not_reading,
            self.upstream.doubts().unpinned,
            self.upstream.doubts().clock,
            thread::panics()
        );
    }
}
