//! What is saved from one start to the next?
//!
//! The learnt keys, the history of other keys, and the last time at which the clock was trusted. They are saved in one file, whose
//! lines a person can read and delete, also while dns-tool runs. The file decides which keys are trusted, so only its owner may
//! write it. It is replaced as a whole or not at all, so that no key is lost in a power failure.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use crate::identity::history_lines;
use crate::identity::rollover::KeyHistory;
use crate::system::date::{self, Timestamp};
use crate::system::privileges::{self, FileError, MAX_FILE_LEN};

/// The file's name in its directory.
const FILE_NAME: &str = "state";
/// The beginning of the first line, before the version number.
const FILE_HEADER: &str = "dns-tool state ";
/// The version that is written, and the only one that can be read.
const VERSION: u64 = 1;

/// The saved state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The last time at which the clock was trusted, in seconds since 1970, UTC.
    pub last_trusted_time: Option<u64>,
    /// The key history of each resolver, by name.
    pub histories: BTreeMap<String, KeyHistory>,
}

/// Why the state cannot be read.
#[derive(Debug)]
pub enum StateError {
    /// This directory or file cannot be read, or is not safe to read.
    File(PathBuf, FileError),
    /// The first line is missing or wrong.
    MissingHeader,
    /// The file has this later version.
    Version(u64),
    /// The line with this number, from 1, is wrong, for this reason.
    Line(usize, String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{path:?}: {error}"),
            Self::MissingHeader => write!(f, "line 1: expected \"{FILE_HEADER}{VERSION}\""),
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
    /// Parses the text of a state file. Either all lines are accepted or none. Empty lines and lines that begin with `#` are skipped. A
    /// text without lines is the empty state.
    pub fn parse(text: &str) -> Result<Self, StateError> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let mut lines = text.lines().enumerate();
        let header = lines
            .next()
            .and_then(|(_, line)| line.strip_prefix(FILE_HEADER));
        match header.and_then(|version| version.trim_end().parse().ok()) {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(StateError::Version(version)),
            _ => return Err(StateError::MissingHeader),
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
            return history_lines::read_line(line, &mut self.histories);
        };
        match date::parse(time.trim_ascii()) {
            Some((first, last)) if first == last && self.last_trusted_time.is_none() => {
                self.last_trusted_time = Some(first);
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
        writeln!(f, "{FILE_HEADER}{VERSION}")?;
        if let Some(time) = self.last_trusted_time {
            writeln!(f, "time {:#}", Timestamp(time))?;
        }
        for (name, history) in &self.histories {
            history.lines(name).fmt(f)?;
        }
        Ok(())
    }
}

/// The state file in its directory.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
}

impl StateFile {
    /// Opens the state file in `directory` and reads it. The directory must exist; if it has no file yet, the state is empty.
    pub fn open(directory: &Path) -> Result<(Self, State), StateError> {
        let failed = |path: &Path, error| StateError::File(path.to_owned(), error);
        let metadata = fs::metadata(directory).map_err(FileError::Unreadable);
        let sound = metadata.and_then(|metadata| match metadata.is_dir() {
            true => privileges::check_owner_only(&metadata),
            false => Err(FileError::WrongKind("a directory")),
        });
        sound.map_err(|error| failed(directory, error))?;
        let file = Self {
            directory: directory.to_owned(),
        };
        let path = directory.join(FILE_NAME);
        let octets = match privileges::read_trusted_file(&path) {
            Err(FileError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((file, State::default()));
            }
            read => read.map_err(|error| failed(&path, error))?,
        };
        let text = privileges::decode_utf8(octets);
        let text = text.map_err(|(line, cause)| StateError::Line(line, cause))?;
        Ok((file, State::parse(&text)?))
    }

    /// Replaces the file atomically: after a crash it is either the old or the new one. Returns once the new one is on the disk.
    pub fn save(&self, state: &State) -> io::Result<()> {
        self.save_if(state, &|| true)
    }

    /// Saves `state` if the file still holds `before`. A file that somebody has edited meanwhile is left alone, without an error.
    pub fn save_if_unchanged(&self, before: &State, state: &State) -> io::Result<()> {
        let stays = || Self::open(&self.directory).is_ok_and(|(_, now)| now == *before);
        self.save_if(state, &stays)
    }

    /// Checks that `state` could be saved: does all that [`StateFile::save`] does except for replacing the file.
    pub fn check_writable(&self, state: &State) -> io::Result<()> {
        self.save_if(state, &|| false)
    }

    /// Saves `state` if `is_allowed` returns true, which is called just before the file is replaced.
    fn save_if(&self, state: &State, is_allowed: &dyn Fn() -> bool) -> io::Result<()> {
        let text = state.to_string();
        // A file that cannot be read at the next start must not replace one that can.
        State::parse(&text).map_err(io::Error::other)?;
        if text.len() as u64 > MAX_FILE_LEN {
            return Err(io::Error::other(FileError::TooLong));
        }
        let new = self
            .directory
            .join(format!("{FILE_NAME}.{}", process::id()));
        let saved = self.write_and_rename(&new, &text, is_allowed);
        if !matches!(saved, Ok(true)) {
            // The disk may be full. Whether removing succeeds changes nothing.
            let _ = fs::remove_file(&new);
        }
        saved.map(drop)
    }

    fn write_and_rename(
        &self,
        new: &Path,
        text: &str,
        is_allowed: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        let create = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(new)
        };
        let mut file = match create() {
            // Left by a process with the same ID that ended here; in a container all processes have the same ID.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(new)?;
                create()?
            }
            created => created?,
        };
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if !is_allowed() {
            return Ok(false);
        }
        fs::rename(new, self.directory.join(FILE_NAME))?;
        // The rename is on the disk once the directory is.
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
