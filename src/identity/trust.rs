//! Which pins and learnt keys are accepted?
//!
//! The configured pins, the file that they come from, and the saved history of keys.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::identity::pin::PinSet;
use crate::identity::pin_file::{PinSource, Pins};
use crate::identity::state_file::{State, StateFile};

/// The configured pins and the saved state of keys.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the pins come from.
    pub source: PinSource,
    /// The pins that were read from `source` at the start.
    pub pins: Pins,
    /// The directory of the state file; none if no state is saved.
    pub state_dir: Option<PathBuf>,
    /// The state that was loaded at the start.
    pub state: State,
    /// How long a new key must be seen before it is accepted (`--pin-rollover`). If none, no new key is accepted.
    pub rollover: Option<Duration>,
}

impl Settings {
    /// Checks that the pin file can be read and the state file written. Called with the privileges that the program keeps.
    ///
    /// The error names the option, its value and the cause.
    pub fn check_access(&self) -> Result<(), String> {
        if let Some(file) = &self.source.file {
            let read = self.source.read();
            read.map_err(|error| format!("--pins {file:?}: {error}"))?;
        }
        if let Some(state_dir) = &self.state_dir {
            let failed = |cause: &dyn fmt::Display| format!("--state-dir {state_dir:?}: {cause}");
            let (store, state) = StateFile::open(state_dir).map_err(|error| failed(&error))?;
            store.save(&state).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Whether both settings have the same pin source, state directory and roll-over time. Contents of files are not compared.
    pub fn has_same_sources(&self, other: &Self) -> bool {
        (&self.source, &self.state_dir, self.rollover)
            == (&other.source, &other.state_dir, other.rollover)
    }

    /// Whether there are files that a reload reads again.
    pub fn reads_files(&self) -> bool {
        self.source.file.is_some() || self.state_dir.is_some()
    }

    /// The accepted pins of a resolver: the `given` ones, followed by the keys that were learnt. If no pin is given, any key is
    /// accepted, so the set stays empty.
    pub fn accepted_pins(&self, given: &Pins, state: &State, name: &ServerName<'_>) -> PinSet {
        let mut pins = given.of(name);
        let history = state.histories.get(&*name.to_str());
        if let Some(history) = history.filter(|_| self.rollover.is_some() && !pins.is_empty()) {
            history.learnt().for_each(|pin| pins.insert(pin.into()));
        }
        pins
    }
}
