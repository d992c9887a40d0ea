//! Whose keys are accepted, as time goes on?
//!
//! The pins of the command line and of the pin file, which is read again when it changes; and, with `--pin-rollover`, the keys
//! that were learnt. The state directory keeps, from one start to the next, what was observed of keys and the last time at which
//! the clock was known to be right. The upstream is told of every change.

use std::io::{self, PipeWriter};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::forward::routes::Upstreams;
use crate::identity::certificate::CertificateInfo;
use crate::identity::chain::VerifiedPeer;
use crate::identity::pin_file::Pins;
use crate::identity::rollover::{Leaf, RolloverDecision};
use crate::identity::state_file::{State, StateFile};
use crate::identity::trust::Settings;
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::{PinMode, VerifyPolicy};
use crate::system::clock;
use crate::system::file_watch::FileWatcher;
use crate::system::scoped_address::ScopedAddress;
use crate::system::thread;
use crate::telemetry::log::{debug, error, info, warn};
use crate::upstream::handshake;

/// How often the state is saved without `--pin-rollover`.
const SAVE_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How many times addresses are inspected, and the state is saved, in the days for which a new key must be seen (`--pin-rollover`).
const OBSERVATIONS_PER_ROLLOVER: u32 = 12;
/// The shortest and the longest interval between observations.
const OBSERVATION_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(6 * 60 * 60));
/// How long the handshake with one address may take.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps the accepted pins of all upstreams up to date.
///
/// Its threads share it. `current` guards the pins and the state; it is held while files are read and written, and it is taken
/// before the upstream's lock ([`PinManager::start`], [`PinManager::reload`]). It is not held during handshakes. `watcher_stop`
/// and `stopped` are taken on their own, never while another lock is held.
pub struct PinManager {
    settings: Settings,
    upstreams: Arc<Upstreams>,
    current: Mutex<PinState>,
    /// Dropped to end the thread that watches the pin file.
    watcher_stop: Mutex<Option<PipeWriter>>,
    stopped: Mutex<bool>,
    stop_requested: Condvar,
}

struct PinState {
    configured: Pins,
    state: State,
    /// What the state directory holds, as far as is known.
    saved_state: State,
    /// The last error of the pin file, so that each error is logged once.
    last_error: String,
    /// Another manager is about to take over the upstreams: this one changes nothing.
    paused: bool,
}

impl PinManager {
    /// Applies the pins of the settings to `upstreams`, and keeps them up to date until [`PinManager::stop`].
    ///
    /// Fails when the system has no thread, and then changes nothing.
    pub fn start(settings: Settings, upstreams: &Arc<Upstreams>) -> io::Result<Arc<Self>> {
        let (configured, state) = (settings.pins.clone(), settings.state.clone());
        let manager = Arc::new(Self {
            settings,
            upstreams: Arc::clone(upstreams),
            current: Mutex::new(PinState {
                configured,
                saved_state: state.clone(),
                state,
                last_error: String::new(),
                paused: false,
            }),
            watcher_stop: Mutex::new(None),
            stopped: Mutex::new(false),
            stop_requested: Condvar::new(),
        });
        let current = manager.current.lock();
        // Pins in a file may have dates, which pass. This thread comes first, so that a failure leaves no other thread behind and
        // the upstreams with their earlier pins.
        if manager.settings.reads_files() {
            let manager = Arc::clone(&manager);
            thread::spawn_restarting("keys", move || manager.run())?;
        }
        manager.apply(&current);
        manager.warn_if_no_backup(&current);
        drop(current);
        *manager.watcher_stop.lock() = manager.watch();
        Ok(manager)
    }

    /// Reads the state and the pin file again and applies them. What cannot be read stays as it is. With `on_request`, the result
    /// is logged even if nothing has changed.
    pub fn reload(&self, on_request: bool) {
        let mut current = self.current.lock();
        if current.paused {
            return;
        }
        self.load_state(&mut current);
        let Some(file) = &self.settings.source.file else {
            if self.settings.state_dir.is_none() {
                return info!("event=nothing-to-reload");
            }
            let changed = self.apply(&current);
            return info!("event=state-loaded addresses-changed={changed}");
        };
        let now = clock::unix_time().as_secs();
        match self.settings.source.reread(&current.configured, now) {
            Ok(read) => {
                current.configured = read;
                current.last_error.clear();
                let changed = self.apply(&current);
                if changed > 0 || on_request {
                    let count = current.configured.count();
                    info!(
                        "event=pins-reloaded file={file:?} pins={count} addresses-changed={changed}"
                    );
                    self.warn_if_no_backup(&current);
                }
            }
            Err(error) => {
                self.apply(&current);
                let last_error = error.to_string();
                if on_request || last_error != current.last_error {
                    error!("event=pins-reload-failed file={file:?} cause={last_error:?}");
                }
                current.last_error = last_error;
            }
        }
    }

    /// Pauses before another manager starts for the same upstreams, and resumes if that fails.
    pub fn set_paused(&self, paused: bool) {
        self.current.lock().paused = paused;
    }

    /// The settings that this manager was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pins of the command line and the pin file.
    pub fn configured(&self) -> Pins {
        self.current.lock().configured.clone()
    }

    /// The current state: what was observed of keys, and the last trusted time.
    pub fn state(&self) -> State {
        self.current.lock().state.clone()
    }

    /// Gives the upstreams the accepted pins. Returns the number of addresses whose pins changed.
    fn apply(&self, current: &PinState) -> usize {
        let believed = |identity: &Identity| {
            self.settings
                .accepted_pins(&current.configured, &current.state, identity.name())
        };
        let upstreams = self.upstreams.all();
        upstreams
            .map(|upstream| upstream.update_pins(believed))
            .sum()
    }

    /// A resolver with a single pinned key becomes unreachable on the day that it changes the key.
    fn warn_if_no_backup(&self, current: &PinState) {
        let now = clock::unix_time().as_secs();
        for name in &self.settings.source.names {
            let pins = self
                .settings
                .accepted_pins(&current.configured, &current.state, name);
            if pins.lacks_backup(now) {
                warn!("event=no-backup-pin name={}", name.to_str());
            }
        }
    }

    /// Starts a thread that reloads whenever the pin file changes, until the returned writer is dropped. Returns `None` without a
    /// pin file, or if it cannot be watched.
    fn watch(self: &Arc<Self>) -> Option<PipeWriter> {
        let file = self.settings.source.file.as_ref()?;
        let watched = FileWatcher::new(std::slice::from_ref(file)).and_then(|(watch, end)| {
            let manager = Arc::clone(self);
            thread::spawn_restarting("pins", move || {
                // Catches a change from before the watch began.
                manager.reload(false);
                while watch.wait(None) {
                    manager.reload(false);
                }
            })?;
            Ok(end)
        });
        let failed =
            |error: &io::Error| warn!("event=pins-watch-failed file={file:?} cause=\"{error}\"");
        watched.inspect_err(failed).ok()
    }

    /// The thread: observes and saves at the interval.
    fn run(&self) {
        let interval = self.settings.rollover.map_or(SAVE_INTERVAL, |wait| {
            (wait / OBSERVATIONS_PER_ROLLOVER).clamp(OBSERVATION_INTERVAL.0, OBSERVATION_INTERVAL.1)
        });
        loop {
            self.observe();
            let mut stopped = self.stopped.lock();
            self.stop_requested
                .wait_while_for(&mut stopped, |stopped| !*stopped, interval);
            if *stopped {
                return;
            }
        }
    }

    /// Inspects all addresses, updates the state and saves it.
    fn observe(&self) {
        let observations = match self.settings.rollover {
            Some(_) => self.inspect_resolvers(),
            None => Vec::new(),
        };
        let mut current = self.current.lock();
        if current.paused {
            return;
        }
        // Reads the state first: a line that an operator removed meanwhile must not come back.
        let loaded = self.load_state(&mut current);
        if let Some(wait) = self.settings.rollover.filter(|_| loaded) {
            for observation in &observations {
                apply_observation(observation, wait, &mut current.state);
            }
        }
        // Even without a new observation the dates of pins pass.
        self.apply(&current);
        if loaded {
            self.save_state(&mut current);
        }
    }

    /// Connects to every address of a pinned resolver and returns each leaf whose chain and name are valid. Sends no query.
    fn inspect_resolvers(&self) -> Vec<Observation> {
        let configured = self.current.lock().configured.clone();
        let upstreams = self.upstreams.all();
        let targets: Vec<_> = upstreams.flat_map(|upstream| upstream.targets()).collect();
        let mut observations = Vec::new();
        let targets: Vec<_> = targets
            .iter()
            .filter_map(|(address, security)| Some((address, security.identity()?)))
            .collect();
        for (address, identity) in &targets {
            if self.current.lock().paused {
                break;
            }
            let pins = configured.of(identity.name());
            if pins.is_empty() {
                continue;
            }
            // Without the learnt keys, so that a key with a pin can be told from a learnt one; and without requiring a match, so
            // that new keys are seen.
            let inspector = Identity::new(VerifyPolicy {
                pins,
                pin_mode: PinMode::Report,
                ..identity.policy().clone()
            });
            let deadline = clock::now() + INSPECT_TIMEOUT;
            let Ok(presented) = handshake::inspect(**address, &inspector, deadline) else {
                continue;
            };
            let now = handshake::unix_time_now();
            let verified = inspector.check(&presented.certificates, now);
            let Some(proof) = verified.ok().filter(|proof| !proof.clock_untrusted) else {
                continue;
            };
            let Some(leaf) = leaf_of(&proof) else {
                continue;
            };
            let same_name = targets
                .iter()
                .filter(|(_, other)| other.name() == identity.name());
            observations.push(Observation {
                name: identity.name().to_str().into_owned(),
                leaf,
                pinned: proof.pin_match.is_some(),
                address: **address,
                addresses: same_name.map(|(address, _)| **address).collect(),
                at: now.as_secs(),
            });
        }
        observations
    }

    /// Reads the state from its directory, which an operator may have edited. Returns whether it could be read.
    fn load_state(&self, current: &mut PinState) -> bool {
        let Some(directory) = &self.settings.state_dir else {
            return true;
        };
        match StateFile::open(directory) {
            Ok((_, state)) => {
                current.saved_state.clone_from(&state);
                current.state = state;
                true
            }
            Err(error) => {
                error!("event=state-load-failed cause={:?}", error.to_string());
                false
            }
        }
    }

    /// Saves the state, with the last trusted time of the upstreams.
    fn save_state(&self, current: &mut PinState) {
        let Some(directory) = &self.settings.state_dir else {
            return;
        };
        // Only the time from the start is trusted, not later ones: a clock that ran ahead for a while must not be believed for
        // ever.
        let before = current
            .state
            .last_trusted_time
            .and(self.settings.state.last_trusted_time);
        let upstreams = self.upstreams.all();
        let times = upstreams.filter_map(|upstream| upstream.last_trusted_time());
        if let Some(time) = times.max() {
            current.state.last_trusted_time = before.max(Some(time));
        }
        let saved = StateFile::open(directory)
            .map_err(io::Error::other)
            .and_then(|(store, _)| match current.saved_state == current.state {
                true => Ok(()),
                false => store.save_if_unchanged(&current.saved_state, &current.state),
            });
        if let Err(error) = saved {
            error!("event=state-save-failed cause={:?}", error.to_string());
        }
    }

    /// Ends all threads and saves the state.
    pub fn stop(&self) {
        *self.watcher_stop.lock() = None;
        *self.stopped.lock() = true;
        self.stop_requested.notify_all();
        // If another thread holds the lock, it is saving or reloading: the time that it saves, or that was saved last, will do.
        if let Some(mut current) = self.current.try_lock()
            && !current.paused
            && self.load_state(&mut current)
        {
            self.save_state(&mut current);
        }
    }
}

/// The leaf that one address presented.
#[derive(Debug)]
struct Observation {
    name: String,
    leaf: Leaf,
    pinned: bool,
    address: ScopedAddress,
    addresses: Vec<ScopedAddress>,
    at: u64,
}

/// Updates the state with an observation, and logs the decision.
fn apply_observation(observation: &Observation, wait: Duration, state: &mut State) {
    let Observation {
        name,
        leaf,
        pinned,
        address,
        addresses,
        at,
    } = observation;
    let memory = state.histories.entry(name.clone()).or_default();
    let pin = leaf.pin;
    match memory.observe(leaf, *pinned, *address, addresses, wait, *at) {
        RolloverDecision::Accepted => warn!("event=key-accepted name={name} pin={pin}"),
        RolloverDecision::Rejected(reason) => {
            info!("event=key-pending resolver={address} name={name} pin={pin} cause=\"{reason}\"");
        }
        verdict => {
            debug!(
                "event=key-observed resolver={address} name={name} pin={pin} verdict={verdict:?}"
            )
        }
    }
}

/// What roll-over needs of a verified path. `None` if its leaf cannot be parsed, or has no issuer.
fn leaf_of(proof: &VerifiedPeer) -> Option<Leaf> {
    let facts = CertificateInfo::read(proof.certificates.first()?)?;
    Some(Leaf {
        pin: *proof.keys.first()?,
        issuer: *proof.keys.get(1)?,
        not_before: facts.not_before,
        not_after: facts.not_after,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::ServerName;

    use super::*;
    use crate::client::reply_batch::ReplyBatch;
    use crate::forward::in_flight::Query;
    use crate::forward::routes::Upstream;
    use crate::identity::anchors::TrustAnchors;
    use crate::identity::key_exchange::KeyExchange;
    use crate::identity::pin::PinSet;
    use crate::identity::pin_file::PinSource;
    use crate::message::Answer;
    use crate::upstream::{self, Completer, Failure, Resolver, Security};

    /// Completes nothing.
    struct Nobody;

    impl Completer<Query, ReplyBatch> for Nobody {
        fn complete(
            &self,
            _: &Query,
            _: Result<&Answer<'_>, Failure>,
            _: std::time::Instant,
            _: &mut ReplyBatch,
        ) {
        }

        fn resolver_recovered(&self, _: std::time::Instant) {}

        fn serve_due_waiters(&self, _: &Query, _: std::time::Instant, _: &mut ReplyBatch) {}
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("resolver.test").expect("a name")
    }

    /// Upstreams with one address where nothing listens.
    fn upstreams() -> Arc<Upstreams> {
        let settings = upstream::Settings {
            resolvers: vec![Resolver {
                addresses: vec!["127.0.0.1:1".parse().expect("an address")],
                security: Security::Tls(Identity::new(VerifyPolicy {
                    name: name(),
                    anchors: TrustAnchors::built_in(),
                    pins: PinSet::default(),
                    pin_mode: PinMode::Strict,
                    key_exchange: KeyExchange::Prefer,
                    clock_floor: 0,
                })),
            }],
            timeout: Duration::from_secs(1),
            is_main: true,
            min_silence_timeout: upstream::MIN_SILENCE_TIMEOUT,
            sessions: 1,
            max_pending: 1,
        };
        let upstream = Upstream::start(settings, Arc::new(Nobody), Arc::default());
        Upstreams::new(upstream.expect("a thread"), Vec::new(), Vec::new())
    }

    /// Settings whose pin file has this many pins.
    fn settings(directory: &std::path::Path, pins: usize) -> Settings {
        let file = directory.join(pins.to_string());
        let line = |letter: &str| format!("resolver.test {}A=\n", letter.repeat(42));
        let lines = ["A", "B", "C"].map(line);
        fs::write(&file, lines[..pins].concat()).expect("writes");
        let source = PinSource {
            names: vec![name()],
            from_options: Vec::new(),
            file: Some(file),
        };
        Settings {
            pins: source.read().expect("pins"),
            source,
            ..Settings::default()
        }
    }

    #[test]
    fn a_manager_that_fails_to_start_leaves_pins_and_threads_as_they_were() {
        let directory = tempfile::tempdir().expect("a folder");
        let upstreams = upstreams();
        let pins = || upstreams.address_status()[0].pins;
        let before = PinManager::start(settings(directory.path(), 1), &upstreams).expect("threads");
        let holders = Arc::strong_count(&upstreams);
        assert_eq!(pins(), 1);
        thread::REFUSED.set("keys");
        let refused = PinManager::start(settings(directory.path(), 2), &upstreams);
        assert!(refused.is_err());
        assert_eq!(pins(), 1);
        assert_eq!(Arc::strong_count(&upstreams), holders, "nobody holds it");
        thread::REFUSED.set("");
        // As in a reload. The first observation may still be to come.
        before.set_paused(true);
        let after = PinManager::start(settings(directory.path(), 3), &upstreams).expect("threads");
        assert_eq!(pins(), 3);
        [before, after].iter().for_each(|keys| keys.stop());
        upstreams.main().stop();
    }
}
