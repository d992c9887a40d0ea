//! What are the keys to be believed made of?
//!
//! The pins that the user gave, where they come from, and what is remembered of keys that were learnt.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::identity::pin::PinSet;
use crate::identity::pin_file::{Pins, Source};
use crate::identity::state_file::{State, Store};

/// Where pins come from, and what is remembered of keys.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where the pins come from.
    pub source: Source,
    /// Those that came from there at the start.
    pub given: Pins,
    /// Where what is remembered is kept, if anywhere.
    pub directory: Option<PathBuf>,
    /// What was remembered at the start.
    pub state: State,
    /// How long a new key must be seen to be believed; none believes no new one.
    pub rollover: Option<Duration>,
}

impl Settings {
    /// Reads and writes once what is to be read and written later, with the rights that it has then.
    ///
    /// Fails with what the option, its value and the cause are.
    pub fn try_out(&self) -> Result<(), String> {
        if let Some(file) = &self.source.file {
            let read = self.source.read();
            read.map_err(|error| format!("--pins {file:?}: {error}"))?;
        }
        if let Some(directory) = &self.directory {
            let failed = |cause: &dyn fmt::Display| format!("--state-dir {directory:?}: {cause}");
            let (store, state) = Store::open(directory).map_err(|error| failed(&error))?;
            store.save(&state).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Whether they lead to the same, as long as what is in files does not change.
    pub fn are_like(&self, other: &Self) -> bool {
        (&self.source, &self.directory, self.rollover)
            == (&other.source, &other.directory, other.rollover)
    }

    /// Whether there is something to be read again.
    pub fn reads_files(&self) -> bool {
        self.source.file.is_some() || self.directory.is_some()
    }

    /// The pins that count for a resolver: those that are given and, behind them, the keys that were learnt. Where none is
    /// given any key will do, and what was learnt changes nothing.
    pub fn believed(&self, given: &Pins, state: &State, name: &ServerName<'_>) -> PinSet {
        let mut pins = given.of(name);
        let memory = state.memories.get(&*name.to_str());
        if let Some(memory) = memory.filter(|_| self.rollover.is_some() && !pins.is_empty()) {
            memory.learnt().for_each(|pin| pins.insert(pin.into()));
        }
        pins
    }
}
