//! What is remembered from one start to the next?
//!
//! The keys that were learnt, what the rules know of the others, and when the clock was known to be good: in one file of
//! lines that a person can read and delete, also while dns-tool runs. It says which keys are believed, so nobody but its
//! owner may write it; and it is replaced as a whole or not at all, so that a lost power supply costs no key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use crate::identity::memory_lines;
use crate::identity::rollover::Memory;
use crate::system::date::{self, Timestamp};
use crate::system::privileges::{self, FileError, MAX_FILE_LEN};

/// The file's name in its directory.
const FILE: &str = "state";
/// What it begins with, before the number of its version.
const TITLE: &str = "dns-tool state ";
/// The version that is written, and the last that can be read.
const VERSION: u64 = 1;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The last time at which the clock was known to be good, in seconds since 1970, UTC.
    pub good_time: Option<u64>,
    /// What is remembered of each resolver's leaves, by its name.
    pub memories: BTreeMap<String, Memory>,
}

/// Why there is no state.
#[derive(Debug)]
pub enum StateError {
    /// This one is not read: the directory or the file in it.
    File(PathBuf, FileError),
    /// The file does not begin as it should.
    NoTitle,
    /// The file is of a later version.
    Version(u64),
    /// The line of this number, from 1, and what is wrong with it.
    Line(usize, String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{path:?}: {error}"),
            Self::NoTitle => write!(f, "line 1: expected \"{TITLE}{VERSION}\""),
            Self::Version(version) => write!(
                f,
                "line 1: it is of version {version}, of a later dns-tool; expected version {VERSION}"
            ),
            Self::Line(number, cause) => write!(f, "line {number}: {cause}"),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            _ => None,
        }
    }
}

impl State {
    /// Reads the text of a file. Either all of it is taken or nothing. Empty lines and those that begin with `#` say nothing.
    pub fn parse(text: &str) -> Result<Self, StateError> {
        let mut lines = text.lines().enumerate();
        let title = lines.next().and_then(|(_, line)| line.strip_prefix(TITLE));
        match title.and_then(|version| version.trim_end().parse().ok()) {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(StateError::Version(version)),
            _ => return Err(StateError::NoTitle),
        }
        let mut state = Self::default();
        for (index, line) in lines {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with('#') {
                let read = state.read_line(line);
                read.map_err(|cause| StateError::Line(index + 1, cause))?;
            }
        }
        Ok(state)
    }

    fn read_line(&mut self, line: &str) -> Result<(), String> {
        let Some(time) = line.strip_prefix("time ") else {
            return memory_lines::read_line(line, &mut self.memories);
        };
        match date::parse(time.trim_ascii()) {
            Some((first, last)) if first == last && self.good_time.is_none() => {
                self.good_time = Some(first);
                Ok(())
            }
            _ => Err(format!(
                "{time:?}: expected one time such as 2026-11-24T12:00:00Z"
            )),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}{VERSION}")?;
        if let Some(time) = self.good_time {
            writeln!(f, "time {:#}", Timestamp(time))?;
        }
        for (name, memory) in &self.memories {
            memory.lines(name).fmt(f)?;
        }
        Ok(())
    }
}

/// Where it is kept.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens what is kept in a directory, which must be there. Where there is no file yet, nothing is remembered.
    pub fn open(directory: &Path) -> Result<(Self, State), StateError> {
        let failed = |path: &Path, error| StateError::File(path.to_owned(), error);
        let metadata = fs::metadata(directory).map_err(FileError::Unreadable);
        let sound = metadata.and_then(|metadata| match metadata.is_dir() {
            true => privileges::check_owner_only(&metadata),
            false => Err(FileError::WrongKind("a directory")),
        });
        sound.map_err(|error| failed(directory, error))?;
        let store = Self {
            directory: directory.to_owned(),
        };
        let path = directory.join(FILE);
        let octets = match privileges::read_trusted_file(&path) {
            Err(FileError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((store, State::default()));
            }
            read => read.map_err(|error| failed(&path, error))?,
        };
        let text = privileges::decode_utf8(octets);
        let text = text.map_err(|(line, cause)| StateError::Line(line, cause))?;
        Ok((store, State::parse(&text)?))
    }

    /// Replaces what is kept. Whatever happens meanwhile, the file is the old or the new one, and is on the disk.
    pub fn save(&self, state: &State) -> io::Result<()> {
        self.save_if(state, &|| true)
    }

    /// The same, if what is kept is `before` still: somebody may have changed it by hand meanwhile, and is not to be overruled.
    pub fn save_over(&self, before: &State, state: &State) -> io::Result<()> {
        let stays = || Self::open(&self.directory).is_ok_and(|(_, now)| now == *before);
        self.save_if(state, &stays)
    }

    /// Whether it could be saved: as [`Store::save`] does it, but that what is kept stays, and stays its owner's.
    pub fn try_out(&self, state: &State) -> io::Result<()> {
        self.save_if(state, &|| false)
    }

    /// `may` is asked at the last moment.
    fn save_if(&self, state: &State, may: &dyn Fn() -> bool) -> io::Result<()> {
        let text = state.to_string();
        // What cannot be read at the next start must not take the place of what can.
        State::parse(&text).map_err(io::Error::other)?;
        if text.len() as u64 > MAX_FILE_LEN {
            return Err(io::Error::other(FileError::TooLong));
        }
        let new = self.directory.join(format!("{FILE}.{}", process::id()));
        let saved = self.replace_by(&new, &text, may);
        if !matches!(saved, Ok(true)) {
            // As likely as not the disk is full; whether this succeeds changes nothing.
            let _ = fs::remove_file(&new);
        }
        saved.map(drop)
    }

    fn replace_by(&self, new: &Path, text: &str, may: &dyn Fn() -> bool) -> io::Result<bool> {
        let create = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(new)
        };
        let mut file = match create() {
            // Left by a process of the same number that ended amid this; in a container that is every one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(new)?;
                create()?
            }
            created => created?,
        };
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if !may() {
            return Ok(false);
        }
        fs::rename(new, self.directory.join(FILE))?;
        // The directory says which file has the name.
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
