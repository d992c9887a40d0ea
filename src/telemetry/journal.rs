//! Does the log go to the journal, and how does a line begin there?
//!
//! systemd says in `JOURNAL_STREAM` which file is the journal (systemd.exec(5)): the numbers of its device and its inode. A program that
//! inherits the variable and has another stderr does not write to the journal. In the journal, a line begins with its priority in angle
//! brackets (sd-daemon(3)), which `journalctl --priority` filters by. It has no time of its own there: the journal notes when a line came,
//! and a second time in each line would be the same. All lines of a level have one priority, so that both tell the same.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::LazyLock;
use std::time::Duration;

use log::Level;

use crate::system::date::LogTimestamp;

/// Whether stderr of this process is the journal.
pub fn is_stderr() -> bool {
    static IS_STDERR: LazyLock<bool> = LazyLock::new(|| {
        let stream = env::var_os("JOURNAL_STREAM");
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let metadata = stderr.and_then(|stderr| File::from(stderr).metadata());
        stream
            .zip(metadata.ok())
            .is_some_and(|(stream, metadata)| is_stream(&stream, &metadata))
    });
    *IS_STDERR
}

/// Whether `stream`, a value of `JOURNAL_STREAM`, names the file with this metadata.
fn is_stream(stream: &OsStr, metadata: &Metadata) -> bool {
    let numbers = stream.to_str().and_then(|stream| stream.split_once(':'));
    let numbers = numbers.map(|(device, inode)| (device.parse(), inode.parse()));
    numbers == Some((Ok(metadata.dev()), Ok(metadata.ino())))
}

/// The beginning of a line of the log: its priority in the journal, or its time elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct LineStart {
    /// The level of the line.
    pub level: Level,
    /// The time since 1970.
    pub time: Duration,
    /// Whether the line goes to the journal, see [`is_stderr`].
    pub in_journal: bool,
}

impl fmt::Display for LineStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.in_journal {
            write!(f, "<{}>", priority(self.level))
        } else {
            write!(f, "time={} ", LogTimestamp(self.time))
        }
    }
}

/// The priority of syslog(3) for a level: `err`, `warning`, `info` or `debug`.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// What precedes a message on stderr that is not part of the log: its priority in the journal, nothing elsewhere.
pub fn message_start(level: Level) -> String {
    match is_stderr() {
        true => format!("<{}>", priority(level)),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_journal_only_if_device_and_inode_are_the_same() {
        let file = tempfile::tempfile().expect("a file");
        let metadata = file.metadata().expect("metadata");
        let is_stream = |text: String| is_stream(OsStr::new(&text), &metadata);
        let (device, inode) = (metadata.dev(), metadata.ino());
        assert!(is_stream(format!("{device}:{inode}")));
        for other in [
            format!("{device}:{}", inode + 1),
            format!("{}:{inode}", device + 1),
            format!("{inode}:{device}:"),
            format!("{device}:{inode}:"),
            format!("{device}:"),
            device.to_string(),
            String::new(),
        ] {
            assert!(!is_stream(other.clone()), "{other}");
        }
    }

    #[test]
    fn a_line_begins_with_its_priority_in_the_journal_and_with_its_time_elsewhere() {
        let start = |level, in_journal| {
            let time = Duration::from_millis(1_500);
            LineStart {
                level,
                time,
                in_journal,
            }
            .to_string()
        };
        let levels = Level::iter().map(|level| start(level, true));
        assert_eq!(
            levels.collect::<Vec<_>>(),
            ["<3>", "<4>", "<6>", "<7>", "<7>"]
        );
        assert_eq!(start(Level::Warn, false), "time=1970-01-01T00:00:01.500Z ");
    }
}
