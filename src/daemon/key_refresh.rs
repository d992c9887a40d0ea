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
const ROUND: Duration = Duration::from_secs(60 * 60);
const ROUNDS: u32 = 12;
const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(6 * 60 * 60));
/// How long a look at one address may take.
const LOOK: Duration = Duration::from_secs(5);

/// The keys that are believed now.
pub struct Keys {
    settings: Settings,
    upstream: Arc<Upstream>,
    held: Mutex<Held>,
    /// Dropped when it is to end.
    watched: Mutex<Option<PipeWriter>>,
    over: Mutex<bool>,
    is_over: Condvar,
}

struct Held {
    given: Pins,
    state: State,
    /// What of it is in the directory, as far as is known.
    kept: State,
    /// What was last said to be wrong with the file of pins, so that it is said once.
    complaint: String,
    /// Others are about to watch in its place: it changes nothing.
    paused: bool,
}

impl Keys {
    /// Has the keys of the settings be those of `upstream`, and watches over them until [`Keys::stop`].
    ///
    /// Fails when the system has no thread, and then changes nothing.
    pub fn start(settings: Settings, upstream: &Arc<Upstream>) -> io::Result<Arc<Self>> {
        let (given, state) = (settings.given.clone(), settings.state.clone());
        let keys = Arc::new(Self {
            settings,
            upstream: Arc::clone(upstream),
            held: Mutex::new(Held {
                given,
                kept: state.clone(),
                state,
                complaint: String::new(),
                paused: false,
            }),
            watched: Mutex::new(None),
            over: Mutex::new(false),
            is_over: Condvar::new(),
        });
        let held = keys.held.lock();
        // Pins of a file may have dates, which pass. First, so that a failure leaves all as it was: no thread that watches,
        // and the pins that others gave the upstream.
        if keys.settings.reads_files() {
            let rounds = Arc::clone(&keys);
            thread::spawn_for_good("keys", move || rounds.go_round())?;
        }
        keys.apply(&held);
        keys.warn_of_no_backup(&held);
        drop(held);
        *keys.watched.lock() = keys.watch();
        Ok(keys)
    }

    /// Reads again what is in files, and has it hold from now on; what was before where a file cannot be taken. What is `asked`
    /// for is answered by a line of the log even if nothing has changed.
    pub fn reload(&self, asked: bool) {
        let mut held = self.held.lock();
        if held.paused {
            return;
        }
        self.remember(&mut held);
        let Some(file) = &self.settings.source.file else {
            if self.settings.directory.is_none() {
                return info!("event=nothing-to-reload");
            }
            let changed = self.apply(&held);
            return info!("event=state-read addresses-changed={changed}");
        };
        let now = clock::since_1970().as_secs();
        match self.settings.source.read_again(&held.given, now) {
            Ok(read) => {
                held.given = read;
                held.complaint.clear();
                let changed = self.apply(&held);
                if changed > 0 || asked {
                    let count = held.given.count();
                    info!("event=pins-read file={file:?} pins={count} addresses-changed={changed}");
                    self.warn_of_no_backup(&held);
                }
            }
            Err(error) => {
                self.apply(&held);
                let complaint = error.to_string();
                if asked || complaint != held.complaint {
                    error!("event=pins-kept file={file:?} cause={complaint:?}");
                }
                held.complaint = complaint;
            }
        }
    }

    /// Changes nothing any more, or again: before others are started in its place for the same upstream, and if that fails.
    pub fn pause(&self, paused: bool) {
        self.held.lock().paused = paused;
    }

    /// What it watches by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pins that are given now.
    pub fn given(&self) -> Pins {
        self.held.lock().given.clone()
    }

    /// What it remembers now.
    pub fn state(&self) -> State {
        self.held.lock().state.clone()
    }

    /// Has what is held count; for how many addresses that is something new.
    fn apply(&self, held: &Held) -> usize {
        let believed = |identity: &Identity| {
            self.settings
                .believed(&held.given, &held.state, identity.name())
        };
        self.upstream.update_pins(believed)
    }

    /// A resolver with one key alone serves until the day on which that is changed.
    fn warn_of_no_backup(&self, held: &Held) {
        let now = clock::since_1970().as_secs();
        for name in &self.settings.source.names {
            let pins = self.settings.believed(&held.given, &held.state, name);
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
            let keys = Arc::clone(self);
            thread::spawn_for_good("pins", move || {
                // What changed before it was watched is seen now.
                keys.reload(false);
                while watch.wait() {
                    keys.reload(false);
                }
            })?;
            Ok(end)
        });
        let failed =
            |error: &io::Error| warn!("event=pins-not-watched file={file:?} cause=\"{error}\"");
        watched.inspect_err(failed).ok()
    }

    /// The thread: a look at everything now and then.
    fn go_round(&self) {
        let every = self
            .settings
            .rollover
            .map_or(ROUND, |wait| (wait / ROUNDS).clamp(BOUNDS.0, BOUNDS.1));
        loop {
            self.look_around();
            let mut over = self.over.lock();
            self.is_over.wait_while_for(&mut over, |over| !*over, every);
            if *over {
                return;
            }
        }
    }

    /// Looks at the leaves of all addresses, and keeps what follows.
    fn look_around(&self) {
        let sightings = match self.settings.rollover {
            Some(_) => self.look_at_all(),
            None => Vec::new(),
        };
        let mut held = self.held.lock();
        if held.paused {
            return;
        }
        // A line that somebody took away meanwhile is not to come back.
        let remembered = self.remember(&mut held);
        if let Some(wait) = self.settings.rollover.filter(|_| remembered) {
            for sighting in &sightings {
                judge(sighting, wait, &mut held.state);
            }
        }
        // The dates of pins pass all the same.
        self.apply(&held);
        if remembered {
            self.keep(&mut held);
        }
    }

    /// Every leaf that is shown under a name that is pinned, whoever shows it, if chain and name are right. Asks nothing.
    fn look_at_all(&self) -> Vec<Sighting> {
        let given = self.held.lock().given.clone();
        let targets = self.upstream.targets();
        let mut sightings = Vec::new();
        for (address, identity) in &targets {
            if self.held.lock().paused {
                break;
            }
            let pins = given.of(identity.name());
            if pins.is_empty() {
                continue;
            }
            // What was learnt is left out, so that a pin is told from it; and what no pin fits is looked at all the same.
            let onlooker = Identity::new(Terms {
                pins,
                pin_mode: PinMode::Report,
                ..identity.terms().clone()
            });
            let shown = handshake::fetch_certificates(*address, &onlooker, clock::now() + LOOK);
            let Ok(shown) = shown else { continue };
            let now = handshake::unix_time_now();
            let judged = onlooker.check(&shown, now);
            let Some(proof) = judged.ok().filter(|proof| !proof.clock_suspect) else {
                continue;
            };
            let Some(leaf) = leaf_of(&proof) else {
                continue;
            };
            let all = targets
                .iter()
                .filter(|(_, other)| other.name() == identity.name());
            sightings.push(Sighting {
                name: identity.name().to_str().into_owned(),
                leaf,
                pinned: proof.fit.is_some(),
                address: *address,
                addresses: all.map(|(address, _)| *address).collect(),
                at: now.as_secs(),
            });
        }
        sightings
    }

    /// Takes up what is kept, which somebody may have changed by hand. Whether it could be read.
    fn remember(&self, held: &mut Held) -> bool {
        let Some(directory) = &self.settings.directory else {
            return true;
        };
        match Store::open(directory) {
            Ok((_, state)) => {
                held.kept.clone_from(&state);
                held.state = state;
                true
            }
            Err(error) => {
                error!("event=state-not-read cause={:?}", error.to_string());
                false
            }
        }
    }

    /// Keeps what is held, with the time if that is known to be good.
    fn keep(&self, held: &mut Held) {
        let Some(directory) = &self.settings.directory else {
            return;
        };
        // A clock that ran ahead for a while is not believed for ever: only what was remembered at the start is.
        let before = held.state.good_time.and(self.settings.state.good_time);
        if let Some(time) = self.upstream.last_trusted_time() {
            held.state.good_time = before.max(Some(time));
        }
        let saved = Store::open(directory)
            .map_err(io::Error::other)
            .and_then(|(store, _)| match held.kept == held.state {
                true => Ok(()),
                false => store.save_over(&held.kept, &held.state),
            });
        if let Err(error) = saved {
            error!("event=state-not-saved cause={:?}", error.to_string());
        }
    }

    /// Keeps the time, and looks no more.
    pub fn stop(&self) {
        *self.watched.lock() = None;
        *self.over.lock() = true;
        self.is_over.notify_all();
        // Whoever holds it right now looks around, and keeps it, or reloads: then the time of an hour ago will do.
        if let Some(mut held) = self.held.try_lock()
            && !held.paused
            && self.remember(&mut held)
        {
            self.keep(&mut held);
        }
    }
}

/// A leaf that was shown.
#[derive(Debug)]
struct Sighting {
    name: String,
    leaf: Leaf,
    pinned: bool,
    address: SocketAddr,
    addresses: Vec<SocketAddr>,
    at: u64,
}

/// What a sighting changes.
fn judge(sighting: &Sighting, wait: Duration, state: &mut State) {
    let Sighting {
        name,
        leaf,
        pinned,
        address,
        addresses,
        at,
    } = sighting;
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
    use crate::upstream::{self, Completer, Failure, Resolver};

    /// Nobody asks.
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
            min_silence_timeout: upstream::MIN_SILENCE_TIMEOUT,
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
        let pins = || upstream.address_status()[0].pins;
        let before = Keys::start(settings(directory.path(), 1), &upstream).expect("threads");
        let holders = Arc::strong_count(&upstream);
        assert_eq!(pins(), 1);
        thread::REFUSED.set("keys");
        let refused = Keys::start(settings(directory.path(), 2), &upstream);
        assert!(refused.is_err());
        assert_eq!(pins(), 1);
        assert_eq!(Arc::strong_count(&upstream), holders, "nobody holds it");
        thread::REFUSED.set("");
        // As a reload does it; its first round may still be to come.
        before.pause(true);
        let after = Keys::start(settings(directory.path(), 3), &upstream).expect("threads");
        assert_eq!(pins(), 3);
        [before, after].iter().for_each(|keys| keys.stop());
        upstream.stop();
    }
}
