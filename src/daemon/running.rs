//! What goes on while it serves, and how does it stop?

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use log::Level;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;

use super::confinement::ports;
use super::error::StartError;
use super::key_refresh::Keys;
use crate::client::{EvictionCounters, SlowReaders};
use crate::config::options::Given;
use crate::config::settings::{self, Command, Config};
use crate::forward::forwarder::{Endings, Forwarder, Outcome, Upstream};
use crate::monitoring::http::Monitor;
use crate::server::listeners::Server;
use crate::server::workers::Pool;
use crate::system::clock;
use crate::system::sandbox::Needs;
use crate::system::service_manager::Manager;
use crate::system::thread;
use crate::telemetry::log::{error, info, line};
use crate::upstream::{Doubts, Tally};

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
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) server: Server,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) pool: Arc<Pool>,
    pub(super) slow_readers: Arc<SlowReaders>,
    pub(super) endings: Arc<Endings>,
    pub(super) evictions: Arc<EvictionCounters>,
    pub(super) tally: Arc<Tally>,
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
        let read = match settings::read(self.started.sources()) {
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
            .may_follow(&keys.given, &before.given(), clock::since_1970().as_secs())
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
            .change(config.forwarder.clone(), next, clock::now());
        if !stays {
            upstream.retire();
            applied.retired.retain(|retired| retired.strong_count() > 0);
            applied.retired.push(Arc::downgrade(&upstream));
            // Nor does who asks now wait for a resolver that was left, maybe since it does not answer.
            if others {
                self.endings.forget(clock::now());
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
            thread::panics()
        );
    }
}
