//! What changes when what the user asked for is read again?
//!
//! A reload is validated before it changes anything. If one option cannot be applied, all options stay as they are.

use std::sync::{Arc, Weak};

use log::Level;

use super::confinement::resolver_addresses;
use super::error::StartError;
use super::hosts_manager::{self, HostsManager};
use super::pin_manager::PinManager;
use super::running::{ActiveConfig, RunningDaemon};
use super::upstreams;
use crate::config::command_line::{self, Command};
use crate::config::settings::Config;
use crate::config::sources::OptionValues;
use crate::forward::routes::{self, Upstream, Upstreams};
use crate::identity::trust;
use crate::system::clock;
use crate::system::sandbox::SandboxRules;
use crate::telemetry::log::{error, line};

/// Options that keep their value from the start until a restart.
const RESTART_ONLY_OPTIONS: [&str; 10] = [
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

/// Options that decide which answers clients may get: the cached ones were let in under the old values.
const CACHE_FLUSHING_OPTIONS: [&str; 2] = ["--rebind-protection", "--rebind-allow"];

/// The options that a reload changes.
struct Changes {
    /// Options that change now.
    applied: Vec<&'static str>,
    /// Options that change with the next start.
    needs_restart: Vec<&'static str>,
    /// The state directory changes with the next start.
    state_dir_changed: bool,
}

impl Changes {
    fn new(options: &OptionValues, initial: &OptionValues, active: &OptionValues) -> Self {
        let mut needs_restart = options.changed_since(initial);
        let mut changed = options.changed_since(active);
        let state_dir_changed = needs_restart.contains(&"--state-dir");
        let is_restart_only = |name: &str| {
            RESTART_ONLY_OPTIONS.contains(&name) || state_dir_changed && name == "--pin-rollover"
        };
        needs_restart.retain(|name| is_restart_only(name));
        changed.retain(|name| !is_restart_only(name));
        Self {
            applied: changed,
            needs_restart,
            state_dir_changed,
        }
    }

    /// Whether answers that are in the cache, or will come to queries in flight, may be other ones than the new options let in.
    fn flush_cache(&self) -> bool {
        let applied = |name: &&str| self.applied.contains(name);
        CACHE_FLUSHING_OPTIONS.iter().any(applied)
    }

    /// Logs what has changed, and what needs a restart.
    fn log(&self, options: &OptionValues) {
        let format_names = |names: &[&str]| names.join(" ").replace("--", "");
        let (level, needs_restart) = match &self.needs_restart[..] {
            [] => (Level::Info, String::new()),
            needs_restart => (
                Level::Warn,
                format!(" needs_restart=\"{}\"", format_names(needs_restart)),
            ),
        };
        line!(
            level,
            "event=config-reloaded file={:?} changed=\"{}\"{needs_restart}",
            options.config_file().unwrap_or_default(),
            format_names(&self.applied)
        );
    }
}

impl RunningDaemon {
    /// Reads the configuration file again, if there is one, and the pin file, the state and the hosts files. Queries in flight are
    /// completed under the old settings. If the configuration has an error, all options stay as they are and the error is logged;
    /// the other files are read again even so. Resolvers that could not be reached or authenticated are tried again at once.
    pub fn reload(&self) {
        self.reload_options();
        for upstream in self.forwarder.upstreams().all() {
            upstream.retry_failed();
        }
    }

    fn reload_options(&self) {
        let mut active = self.active.lock();
        let Some(file) = self.initial_options.config_file() else {
            return reload_files(&active);
        };
        let read = match command_line::read(self.initial_options.sources()) {
            Ok(Command::Serve(mut config)) => self.apply(&mut active, &mut config),
            // The arguments have not changed, so this cannot happen.
            Ok(_) => return,
            Err(error) => Err(error.to_string()),
        };
        if let Err(cause) = read {
            error!("event=config-reload-failed file={file:?} cause={cause:?}");
            if active.pin_manager.settings().reads_files() {
                active.pin_manager.reload(true);
            }
            active.hosts_manager.reload(true);
        }
    }

    /// Applies every setting that needs no restart.
    fn apply(&self, active: &mut ActiveConfig, config: &mut Config) -> Result<(), String> {
        upstreams::check_loops(config, &self.addresses).map_err(|error| error.to_string())?;
        self.check_ports(config)?;
        let mut changes = Changes::new(&config.options, &self.initial_options, &active.options);
        let before = Arc::clone(&active.pin_manager);
        keep_state(
            &config.options,
            &mut config.trust,
            &before,
            changes.state_dir_changed,
        )?;
        let upstreams = self.forwarder.upstreams();
        let next = upstreams::replacement(config, &upstreams)
            .map_err(|error| StartError::System(error).to_string())?;
        let current = next.as_ref().unwrap_or(&upstreams);
        let keep_manager = next.is_none() && before.settings().has_same_sources(&config.trust);
        if !keep_manager {
            let started = replace_pin_manager(&before, &config.trust, current);
            active.pin_manager = started.inspect_err(|_| {
                retire_others(current, &upstreams);
            })?;
        }
        upstreams::set_executor(current, &self.pool);
        // The old manager must not put back what it has read before.
        active.hosts_manager.stop();
        self.forwarder
            .reconfigure(config.forwarder.clone(), Arc::clone(current), clock::now());
        let hosts = std::mem::take(&mut config.hosts);
        if next.is_some() {
            self.retire_upstreams(&upstreams, current, active);
            if changes.applied.is_empty() {
                // The file's name is the same, but its certificates are not.
                changes.applied.push("--resolver-ca");
            }
        }
        if changes.flush_cache() {
            self.completer.flush(clock::now());
        }
        let query_log = self
            .completer
            .query_log()
            .set_mode(config.forwarder.query_log);
        if let Err(cause) = query_log {
            error!("event=thread-start-failed for=query-log cause=\"{cause}\"");
        }
        if changes.applied.contains(&"--log-level") {
            log::set_max_level(config.log_level);
        }
        changes.log(&config.options);
        upstreams::log_skipped_anchors(config);
        if !hosts.files.is_empty() {
            hosts_manager::log_reloaded(&hosts);
        }
        active.hosts_manager = HostsManager::start(hosts, &self.forwarder);
        active.options = config.options.clone();
        if keep_manager && active.pin_manager.settings().reads_files() {
            active.pin_manager.reload(true);
        }
        Ok(())
    }

    /// Fails if a resolver's port is one that the sandbox does not allow.
    fn check_ports(&self, config: &Config) -> Result<(), String> {
        if let Some(SandboxRules {
            connect_ports: open,
            ..
        }) = &self.sandbox_rules
            && let Some(address) =
                resolver_addresses(config).find(|address| !open.contains(&address.port()))
        {
            let cause = format!(
                "the sandbox is open for the ports {open:?} alone; expected one of these, or a restart"
            );
            return Err(config.error_for_address(*address, &cause).to_string());
        }
        Ok(())
    }

    /// Sends no more queries to upstreams that were replaced. Queries in flight there are completed there.
    fn retire_upstreams(&self, before: &Upstreams, after: &Upstreams, active: &mut ActiveConfig) {
        active.retired.retain(|retired| retired.strong_count() > 0);
        active.retired.extend(retire_others(before, after));
        let now = clock::now();
        let changed = routes::changed_zones(before.routes(), after.routes());
        upstreams::log_changed_routes(after.routes(), &changed);
        if upstreams::have_other_names(before, after) {
            self.completer.flush(now);
        } else {
            // New queries must not wait for an answer of an old upstream either: it may have been replaced because it does not answer.
            self.completer.forget_zones(&changed, now);
        }
    }
}

/// Retires the upstreams that are not among `kept`, and returns them.
fn retire_others(upstreams: &Upstreams, kept: &Upstreams) -> Vec<Weak<Upstream>> {
    let others = upstreams.all().filter(|upstream| !kept.has(upstream));
    let retired = others.map(|upstream| {
        upstream.retire();
        Arc::downgrade(upstream)
    });
    retired.collect()
}

/// Reads the files of `--pins`, `--state-dir` and `--hosts` again.
fn reload_files(active: &ActiveConfig) {
    let (pins, hosts) = (&active.pin_manager, &active.hosts_manager);
    hosts.reload(true);
    // Without any file, this logs that there is nothing to reload.
    if pins.settings().reads_files() || !hosts.has_files() {
        pins.reload(true);
    }
}

/// Keeps the state directory and the last trusted time of the start. Fails if the new pins may not follow the old ones.
fn keep_state(
    options: &OptionValues,
    trust: &mut trust::Settings,
    before: &PinManager,
    state_dir_changed: bool,
) -> Result<(), String> {
    if state_dir_changed {
        trust.state_dir.clone_from(&before.settings().state_dir);
        trust.rollover = before.settings().rollover;
        trust.state = before.state();
    }
    trust.state.last_trusted_time = before.settings().state.last_trusted_time;
    let now = clock::unix_time().as_secs();
    let source = &trust.source;
    let checked = source.check_replacement(&trust.pins, &before.configured(), now);
    checked.map_err(|error| match &source.file {
        Some(file) => {
            let file = file.to_string_lossy();
            options
                .error_for("--pins", &file, &error.to_string())
                .to_string()
        }
        None => format!("--resolver-pin: {error}"),
    })
}

/// Starts a manager for the new settings and stops the old one, which resumes if the system has no thread.
fn replace_pin_manager(
    before: &PinManager,
    settings: &trust::Settings,
    upstreams: &Arc<Upstreams>,
) -> Result<Arc<PinManager>, String> {
    before.set_paused(true);
    let started = PinManager::start(settings.clone(), upstreams);
    match started {
        Ok(manager) => {
            before.stop();
            Ok(manager)
        }
        Err(error) => {
            before.set_paused(false);
            Err(StartError::System(error).to_string())
        }
    }
}
