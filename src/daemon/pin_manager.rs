//! Whose keys are believed, as time goes on?
//!
//! Those that are pinned, by the command line and by a file that is read again; and, where that is asked for, those that
//! were learnt by the rules of roll-over. What is remembered for that, and the last time at which the clock was known to be
//! good, is kept from one start to the next. Whenever any of it changes, the upstream is told.

use std::io::{self, PipeWriter};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::forward::policy::Upstream;
use crate::identity::certificate::Facts;
use crate::identity::chain::Proof;
use crate::identity::pin_file::{Pins, Watch};
use crate::identity::rollover::{Leaf, Verdict};
use crate::identity::state_file::{State, Store};
use crate::identity::terms::{PinMode, Terms};
use crate::identity::trust::Settings;
use crate::identity::verifier::Identity;
use crate::system::clock;
use crate::system::thread;
use crate::telemetry::log::{debug, error, info, warn};
use crate::upstream::handshake;

/// How often the time is kept, and how often a resolver's addresses are looked at in the days that a new key must be seen:
/// no more often than the first and no less often than the last.
const SAVE_INTERVAL: Duration = Duration::from_secs(60 * 60);
const OBSERVATIONS_PER_ROLLOVER: u32 = 12;
const OBSERVATION_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(6 * 60 * 60));
/// How long a look at one address may take.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys that are believed now.
pub struct PinManager {
    settings: Settings,
    upstream: Arc<Upstream>,
    current: Mutex<PinState>,
    /// Dropped when it is to end.
    watcher_stop: Mutex<Option<PipeWriter>>,
    stopped: Mutex<bool>,
    stop_requested: Condvar,
}

struct PinState {
    configured: Pins,
    state: State,
    /// What of it is in the directory, as far as is known.
    saved_state: State,
    /// What was last said to be wrong with the file of pins, so that it is said once.
    last_error: String,
    /// Others are about to watch in its place: it changes nothing.
    paused: bool,
}

impl PinManager {
    /// Has the keys of the settings be those of `upstream`, and watches over them until [`PinManager::stop`].
    ///
    /// Fails when the system has no thread, and then changes nothing.
    pub fn start(settings: Settings, upstream: &Arc<Upstream>) -> io::Result<Arc<Self>> {
        let (configured, state) = (settings.given.clone(), settings.state.clone());
        let manager = Arc::new(Self {
            settings,
            upstream: Arc::clone(upstream),
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
        // Pins of a file may have dates, which pass. First, so that a failure leaves all as it was: no thread that watches,
        // and the pins that others gave the upstream.
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

    /// Reads again what is in files, and has it hold from now on; what was before where a file cannot be taken. What is `on_request`
    /// for is answered by a line of the log even if nothing has changed.
    pub fn reload(&self, on_request: bool) {
        let mut current = self.current.lock();
        if current.paused {
            return;
        }
        self.load_state(&mut current);
        let Some(file) = &self.settings.source.file else {
            if self.settings.directory.is_none() {
                return info!("event=nothing-to-reload");
            }
            let changed = self.apply(&current);
            return info!("event=state-read addresses-changed={changed}");
        };
        let now = clock::unix_time().as_secs();
        match self.settings.source.read_again(&current.configured, now) {
            Ok(read) => {
                current.configured = read;
                current.last_error.clear();
                let changed = self.apply(&current);
                if changed > 0 || on_request {
                    let count = current.configured.count();
                    info!("event=pins-read file={file:?} pins={count} addresses-changed={changed}");
                    self.warn_if_no_backup(&current);
                }
            }
            Err(error) => {
                self.apply(&current);
                let last_error = error.to_string();
                if on_request || last_error != current.last_error {
                    error!("event=pins-kept file={file:?} cause={last_error:?}");
                }
                current.last_error = last_error;
            }
        }
    }

    /// Changes nothing any more, or again: before others are started in its place for the same upstream, and if that fails.
    pub fn set_paused(&self, paused: bool) {
        self.current.lock().paused = paused;
    }

    /// What it watches by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pins that are given now.
    pub fn configured(&self) -> Pins {
        self.current.lock().configured.clone()
    }

    /// What it remembers now.
    pub fn state(&self) -> State {
        self.current.lock().state.clone()
    }

    /// Has what is held count; for how many addresses that is something new.
    fn apply(&self, current: &PinState) -> usize {
        let believed = |identity: &Identity| {
            self.settings
                .believed(&current.configured, &current.state, identity.name())
        };
        self.upstream.repin(believed)
    }

    /// A resolver with one key alone serves until the day on which that is changed.
    fn warn_if_no_backup(&self, current: &PinState) {
        let now = clock::unix_time().as_secs();
        for name in &self.settings.source.names {
            let pins = self
                .settings
                .believed(&current.configured, &current.state, name);
            if pins.lacks_backup(now) {
                warn!("event=no-backup-pin name={}", name.to_str());
            }
        }
    }

    /// Reloads whenever the file of pins changes, until the writer that is returned is dropped. None where there is no file,
    /// or where it cannot be watched.
    fn watch(self: &Arc<Self>) -> Option<PipeWriter> {
        let file = self.settings.source.file.as_deref()?;
        let watched = Watch::new(file).and_then(|(watch, end)| {
            let manager = Arc::clone(self);
            thread::spawn_restarting("pins", move || {
                // What changed before it was watched is seen now.
                manager.reload(false);
                while watch.wait() {
                    manager.reload(false);
                }
            })?;
            Ok(end)
        });
        let failed =
            |error: &io::Error| warn!("event=pins-not-watched file={file:?} cause=\"{error}\"");
        watched.inspect_err(failed).ok()
    }

    /// The thread: a look at everything now and then.
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

    /// Looks at the leaves of all addresses, and keeps what follows.
    fn observe(&self) {
        let observations = match self.settings.rollover {
            Some(_) => self.inspect_resolvers(),
            None => Vec::new(),
        };
        let mut current = self.current.lock();
        if current.paused {
            return;
        }
        // A line that somebody took away meanwhile is not to come back.
        let loaded = self.load_state(&mut current);
        if let Some(wait) = self.settings.rollover.filter(|_| loaded) {
            for observation in &observations {
                apply_observation(observation, wait, &mut current.state);
            }
        }
        // The dates of pins pass all the same.
        self.apply(&current);
        if loaded {
            self.save_state(&mut current);
        }
    }

    /// Every leaf that is shown under a name that is pinned, whoever shows it, if chain and name are right. Asks nothing.
    fn inspect_resolvers(&self) -> Vec<Observation> {
        let configured = self.current.lock().configured.clone();
        let targets = self.upstream.targets();
        let mut observations = Vec::new();
        for (address, identity) in &targets {
            if self.current.lock().paused {
                break;
            }
            let pins = configured.of(identity.name());
            if pins.is_empty() {
                continue;
            }
            // What was learnt is left out, so that a pin is told from it; and what no pin fits is looked at all the same.
            let inspector = Identity::new(Terms {
                pins,
                pin_mode: PinMode::Report,
                ..identity.terms().clone()
            });
            let presented =
                handshake::inspect(*address, &inspector, clock::now() + INSPECT_TIMEOUT);
            let Ok(presented) = presented else { continue };
            let now = handshake::today();
            let verified = inspector.check(&presented, now);
            let Some(proof) = verified.ok().filter(|proof| !proof.clock_suspect) else {
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
                pinned: proof.fit.is_some(),
                address: *address,
                addresses: same_name.map(|(address, _)| *address).collect(),
                at: now.as_secs(),
            });
        }
        observations
    }

    /// Takes up what is kept, which somebody may have changed by hand. Whether it could be read.
    fn load_state(&self, current: &mut PinState) -> bool {
        let Some(directory) = &self.settings.directory else {
            return true;
        };
        match Store::open(directory) {
            Ok((_, state)) => {
                current.saved_state.clone_from(&state);
                current.state = state;
                true
            }
            Err(error) => {
                error!("event=state-not-read cause={:?}", error.to_string());
                false
            }
        }
    }

    /// Keeps what is held, with the time if that is known to be good.
    fn save_state(&self, current: &mut PinState) {
        let Some(directory) = &self.settings.directory else {
            return;
        };
        // A clock that ran ahead for a while is not believed for ever: only what was remembered at the start is.
        let before = current.state.good_time.and(self.settings.state.good_time);
        if let Some(time) = self.upstream.good_time() {
            current.state.good_time = before.max(Some(time));
        }
        let saved = Store::open(directory)
            .map_err(io::Error::other)
            .and_then(|(store, _)| match current.saved_state == current.state {
                true => Ok(()),
                false => store.save_over(&current.saved_state, &current.state),
            });
        if let Err(error) = saved {
            error!("event=state-not-saved cause={:?}", error.to_string());
        }
    }

    /// Keeps the time, and looks no more.
    pub fn stop(&self) {
        *self.watcher_stop.lock() = None;
        *self.stopped.lock() = true;
        self.stop_requested.notify_all();
        // Whoever holds it right now looks around, and keeps it, or reloads: then the time of an hour ago will do.
        if let Some(mut current) = self.current.try_lock()
            && !current.paused
            && self.load_state(&mut current)
        {
            self.save_state(&mut current);
        }
    }
}

/// A leaf that was shown.
#[derive(Debug)]
struct Observation {
    name: String,
    leaf: Leaf,
    pinned: bool,
    address: SocketAddr,
    addresses: Vec<SocketAddr>,
    at: u64,
}

/// What a sighting changes.
fn apply_observation(observation: &Observation, wait: Duration, state: &mut State) {
    let Observation {
        name,
        leaf,
        pinned,
        address,
        addresses,
        at,
    } = observation;
    let memory = state.memories.entry(name.clone()).or_default();
    let pin = leaf.pin;
    match memory.see(leaf, *pinned, *address, addresses, wait, *at) {
        Verdict::Accepted => warn!("event=key-learnt name={name} pin={pin}"),
        Verdict::NotYet(reason) => {
            info!(
                "event=key-not-believed resolver={address} name={name} pin={pin} cause=\"{reason}\""
            );
        }
        verdict => {
            debug!("event=key-seen resolver={address} name={name} pin={pin} verdict={verdict:?}")
        }
    }
}

/// What matters of a verified path; none where its leaf cannot be read, or has no issuer.
fn leaf_of(proof: &Proof) -> Option<Leaf> {
    let facts = Facts::read(proof.certificates.first()?)?;
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
    use crate::identity::anchors::Anchors;
    use crate::identity::pin::PinSet;
    use crate::identity::pin_file::Source;
    use crate::message::Answer;
    use crate::upstream::{self, Failure, Resolver, Settle};

    /// Nobody asks.
    struct Nobody;

    impl Settle<Query, ReplyBatch> for Nobody {
        fn settle(
            &self,
            _: &Query,
            _: Result<&Answer<'_>, Failure>,
            _: std::time::Instant,
            _: &mut ReplyBatch,
        ) {
        }

        fn recover(&self, _: std::time::Instant) {}

        fn look_after(&self, _: &Query, _: std::time::Instant, _: &mut ReplyBatch) {}
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("resolver.test").expect("a name")
    }

    /// An upstream that connects to nobody.
    fn upstream() -> Arc<Upstream> {
        let settings = upstream::Settings {
            resolvers: vec![Resolver {
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
                identity: Identity::new(Terms {
                    name: name(),
                    anchors: Anchors::built_in(),
                    pins: PinSet::default(),
                    pin_mode: PinMode::Strict,
                    clock_floor: 0,
                }),
            }],
            timeout: Duration::from_secs(1),
            least_patience: upstream::LEAST_PATIENCE,
            sessions: 1,
            max_pending: 1,
        };
        Upstream::start(settings, Arc::new(Nobody), Arc::default()).expect("a thread")
    }

    /// Settings with a file of so many pins.
    fn settings(directory: &std::path::Path, pins: usize) -> Settings {
        let file = directory.join(pins.to_string());
        let line = |letter: &str| format!("resolver.test {}A=\n", letter.repeat(42));
        let lines = ["A", "B", "C"].map(line);
        fs::write(&file, lines[..pins].concat()).expect("writes");
        let source = Source {
            names: vec![name()],
            fixed: Vec::new(),
            file: Some(file),
        };
        Settings {
            given: source.read().expect("pins"),
            source,
            ..Settings::default()
        }
    }

    #[test]
    fn keys_that_cannot_be_watched_over_leave_those_of_before_and_no_thread() {
        let directory = tempfile::tempdir().expect("a folder");
        let upstream = upstream();
        let pins = || upstream.standings()[0].pins;
        let before = PinManager::start(settings(directory.path(), 1), &upstream).expect("threads");
        let holders = Arc::strong_count(&upstream);
        assert_eq!(pins(), 1);
        thread::REFUSED.set("keys");
        let refused = PinManager::start(settings(directory.path(), 2), &upstream);
        assert!(refused.is_err());
        assert_eq!(pins(), 1);
        assert_eq!(Arc::strong_count(&upstream), holders, "nobody holds it");
        thread::REFUSED.set("");
        // As a reload does it; its first round may still be to come.
        before.set_paused(true);
        let after = PinManager::start(settings(directory.path(), 3), &upstream).expect("threads");
        assert_eq!(pins(), 3);
        [before, after].iter().for_each(|keys| keys.stop());
        upstream.stop();
    }
}
