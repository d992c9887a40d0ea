//! Which names do the hosts files have now?

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::host_table::HostTable;
use super::hosts_file::{LineError, read_lines};
use crate::system::privileges;

/// Maximum number of skipped lines of one reading that are kept, to be named.
const MAX_NAMED: usize = 5;

/// The hosts files (`--hosts`), and what was in them when they were last read.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    /// The files, in the order of the option.
    pub files: Vec<PathBuf>,
    /// The names of all files.
    pub table: Arc<HostTable>,
    /// The lines that were skipped.
    pub skipped: SkippedLines,
}

/// The lines that one reading skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedLines {
    /// The first ones: at most five.
    pub first: Vec<SkippedLine>,
    /// The number of the others.
    pub others: usize,
}

/// A line that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedLine {
    /// The file.
    pub file: PathBuf,
    /// The number of the line, from 1.
    pub line: usize,
    /// Why it was skipped.
    pub cause: LineError,
}

/// Why a hosts file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostsError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong and what was expected, in one line.
    pub cause: String,
    /// The system lacked file descriptors or memory, so the file itself may be sound.
    pub is_for_want_of_resources: bool,
}

impl fmt::Display for HostsError {
    /// One line that names the option, the value and what was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--hosts {:?}: {}", self.file, self.cause)
    }
}

impl std::error::Error for HostsError {}

impl SkippedLines {
    /// The number of all skipped lines.
    pub fn count(&self) -> usize {
        self.first.len().saturating_add(self.others)
    }

    fn push(&mut self, file: &Path, line: usize, cause: LineError) {
        if self.first.len() < MAX_NAMED {
            let file = file.to_owned();
            self.first.push(SkippedLine { file, line, cause });
        } else {
            self.others = self.others.saturating_add(1);
        }
    }
}

impl Hosts {
    /// Reads all files. Fails with the first one that cannot be read, that others than its owner may write, that has more than 1 MiB
    /// or is not UTF-8, or with which there are too many names.
    pub fn read(files: Vec<PathBuf>) -> Result<Self, HostsError> {
        let (mut table, mut skipped) = (HostTable::default(), SkippedLines::default());
        for file in &files {
            let failed = |cause| HostsError {
                file: file.clone(),
                cause,
                is_for_want_of_resources: false,
            };
            let octets = privileges::read_trusted_file(file).map_err(|error| HostsError {
                is_for_want_of_resources: error.is_for_want_of_resources(),
                ..failed(error.to_string())
            })?;
            let text = privileges::decode_utf8(octets);
            let text = text.map_err(|(line, cause)| failed(format!("line {line}: {cause}")))?;
            let mut skip = |line, cause| skipped.push(file, line, cause);
            let read = read_lines(&text, &mut table, &mut skip);
            read.map_err(|error| failed(error.to_string()))?;
        }
        Ok(Self {
            files,
            table: Arc::new(table),
            skipped,
        })
    }

    /// Reads all files again.
    pub fn reread(&self) -> Result<Self, HostsError> {
        Self::read(self.files.clone())
    }
}

#[cfg(test)]
mod tests;
