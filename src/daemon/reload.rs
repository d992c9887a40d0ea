//! What changes when what the user asked for is read again?
//!
//! What holds from a reload on is decided first, and nothing is changed if any of it cannot be: then all options stay as they are.

use std::sync::Arc;

use log::Level;
use rustls::pki_types::ServerName;

use super::confinement::ports;
use super::error::StartError;
use super::key_refresh::Keys;
use super::running::{Applied, Running};
use crate::config::command_line::{self, Command};
use crate::config::settings::Config;
use crate::config::sources::Given;
use crate::forward::policy::Upstream;
use crate::identity::trust;
use crate::system::clock;
use crate::system::sandbox::Needs;
use crate::telemetry::log::{error, line};

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

/// The options that are others than before.
struct Changes {
    /// Those that hold from now on.
    applied: Vec<&'static str>,
    /// Those that hold with the next start.
    waiting: Vec<&'static str>,
    /// What is remembered is to be elsewhere, with the next start.
    elsewhere: bool,
}

impl Changes {
    fn new(given: &Given, started: &Given, applied: &Given) -> Self {
        let mut waiting = given.changed(started);
        let mut changed = given.changed(applied);
        let elsewhere = waiting.contains(&"--state-dir");
        let is_fixed = |name: &str| FIXED.contains(&name) || elsewhere && name == "--pin-rollover";
        waiting.retain(|name| is_fixed(name));
        changed.retain(|name| !is_fixed(name));
        Self {
            applied: changed,
            waiting,
            elsewhere,
        }
    }

    /// Says in the log what was changed, and what needs a restart.
    fn say(&self, given: &Given) {
        let spell = |names: &[&str]| names.join(" ").replace("--", "");
        let (level, waiting) = match &self.waiting[..] {
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
            spell(&self.applied)
        );
    }
}

impl Running {
    /// Reads again what it was started with: the file of options, if there is one, and pins and what is remembered. What is
    /// on its way ends as it began. If anything is wrong with the file all options stay as they are, and the log says why;
    /// pins and what is remembered are read again all the same.
    pub fn reload(&self) {
        let mut applied = self.applied.lock();
        let Some(file) = self.started.file() else {
            return applied.keys.reload(true);
        };
        let read = match command_line::read(self.started.sources()) {
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
        self.check_ports(config)?;
        let mut changes = Changes::new(&config.given, &self.started, &applied.given);
        let before = Arc::clone(&applied.keys);
        keep_memory(&mut config.keys, &before, changes.elsewhere)?;
        let upstream = self.forwarder.upstream();
        let next = next_upstream(config, &upstream)?;
        let current = next.as_ref().unwrap_or(&upstream);
        let same_keys = next.is_none() && before.settings().are_like(&config.keys);
        if !same_keys {
            let started = replace_keys(&before, &config.keys, current);
            applied.keys = started.inspect_err(|_| {
                next.iter().for_each(|next| next.retire());
            })?;
        }
        if let Some(next) = &next {
            let executor = Arc::downgrade(&self.pool);
            next.set_executor(executor);
        }
        let current = Arc::clone(current);
        self.forwarder
            .change(config.forwarder.clone(), current, clock::now());
        if next.is_some() {
            let others = asks_others(&config.keys, before.settings());
            self.leave(&upstream, others, applied);
            if changes.applied.is_empty() {
                // The file has the same name and others in it.
                changes.applied.push("--resolver-ca");
            }
        }
        let query_log = self.endings.query_log().turn(config.forwarder.query_log);
        if let Err(cause) = query_log {
            error!("event=no-thread for=query-log cause=\"{cause}\"");
        }
        if changes.applied.contains(&"--log-level") {
            log::set_max_level(config.log_level);
        }
        changes.say(&config.given);
        applied.given = config.given.clone();
        if same_keys && applied.keys.settings().reads_files() {
            applied.keys.reload(true);
        }
        Ok(())
    }

    /// Fails where resolvers are at a port that the sandbox does not let through.
    fn check_ports(&self, config: &Config) -> Result<(), String> {
        if let Some(Needs { ports: open, .. }) = &self.confined
            && let Some(port) = ports(&config.upstream).find(|port| !open.contains(port))
        {
            return Err(format!(
                "resolver port {port}: the sandbox is open for {open:?} alone; expected one of these, or a restart"
            ));
        }
        Ok(())
    }

    /// Asks resolvers no more that were asked before. What is in flight there ends there.
    fn leave(&self, upstream: &Arc<Upstream>, others: bool, applied: &mut Applied) {
        upstream.retire();
        applied.retired.retain(|retired| retired.strong_count() > 0);
        applied.retired.push(Arc::downgrade(upstream));
        // Nor does who asks now wait for a resolver that was left, maybe since it does not answer.
        if others {
            self.endings.forget(clock::now());
        } else {
            self.endings.part();
        }
    }
}

/// What is remembered stays where it is, and the time that was good at the start stays that. Fails where the pins cannot follow those of
/// before.
fn keep_memory(keys: &mut trust::Settings, before: &Keys, elsewhere: bool) -> Result<(), String> {
    if elsewhere {
        keys.directory.clone_from(&before.settings().directory);
        keys.rollover = before.settings().rollover;
        keys.state = before.state();
    }
    keys.state.good_time = before.settings().state.good_time;
    let now = clock::since_1970().as_secs();
    let source = &keys.source;
    let followed = source.may_follow(&keys.given, &before.given(), now);
    followed.map_err(|error| error.to_string())
}

/// Whether resolvers of other names are asked.
fn asks_others(keys: &trust::Settings, before: &trust::Settings) -> bool {
    let (names, old_names) = (&keys.source.names, &before.source.names);
    names.len() != old_names.len() || names.iter().any(|name| !old_names.contains(name))
}

/// The upstream that takes the place of this one, if the settings want another one.
fn next_upstream(config: &Config, upstream: &Upstream) -> Result<Option<Arc<Upstream>>, String> {
    let Config {
        upstream: settings,
        keys,
        ..
    } = config;
    if upstream.has_same_settings(settings) {
        return Ok(None);
    }
    let believed = |name: &ServerName<'_>| keys.believed(&keys.given, &keys.state, name);
    let next = upstream.replacement(settings, &believed);
    let next = next.map_err(|error| StartError::System(error).to_string())?;
    Ok(Some(next))
}

/// Has other keys be watched over in the place of those of before, which go on if the system has no thread.
fn replace_keys(
    before: &Keys,
    settings: &trust::Settings,
    upstream: &Arc<Upstream>,
) -> Result<Arc<Keys>, String> {
    before.pause(true);
    let started = Keys::start(settings.clone(), upstream);
    match started {
        Ok(keys) => {
            before.stop();
            Ok(keys)
        }
        Err(error) => {
            before.pause(false);
            Err(StartError::System(error).to_string())
        }
    }
}
