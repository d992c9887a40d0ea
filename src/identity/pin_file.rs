//! Which pins hold now?
//!
//! Those of the command line, and those of a file, which is read again when it changes: so a key that is about to be
//! changed is announced without a restart. Either all of a file is taken or nothing.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustls::pki_types::ServerName;

use crate::identity::pin::{Dated, Pin, PinSet};
use crate::system::date;
use crate::system::privileges::{self, FileError};

/// How many milliseconds of quiet end a change: files are written in pieces, and taken away before they come back. Where it
/// never is quiet, a change ends after so many events.
const QUIET: u8 = 100;
const EVENTS: usize = 10;

/// A pin and whose it is.
pub type Listed = (ServerName<'static>, Dated);

/// Where the pins of all resolvers come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// The resolvers' names.
    pub names: Vec<ServerName<'static>>,
    /// The pins that hold whatever the file says.
    pub fixed: Vec<Listed>,
    /// The file of further ones.
    pub file: Option<PathBuf>,
}

impl Source {
    /// The pins that hold now. Fails with the file, and where it leaves a resolver without any: that is more likely a slip
    /// than a wish to believe anybody.
    pub fn read(&self) -> Result<Pins, PinFileError> {
        let mut pins = Pins(self.fixed.clone());
        if let Some(file) = &self.file {
            pins.0.extend(read_file(file)?);
            if let Some(name) = self.names.iter().find(|name| pins.of(name).is_empty()) {
                return Err(PinFileError::Missing(name.to_str().into_owned()));
            }
        }
        Ok(pins)
    }

    /// The pins that hold from `now` on, in place of those `before`. Fails also where a resolver would have none that counts
    /// now, and had one.
    pub fn read_again(&self, before: &Pins, now: u64) -> Result<Pins, PinFileError> {
        let pins = self.read()?;
        self.may_follow(&pins, before, now)?;
        Ok(pins)
    }

    /// Whether `pins` may hold from `now` on, in place of those `before`: not where a resolver has some, none of which counts
    /// now, and had one that did.
    pub fn may_follow(&self, pins: &Pins, before: &Pins, now: u64) -> Result<(), PinFileError> {
        let counts = |pins: &Pins, name: &ServerName<'_>| {
            let own = pins.of(name);
            own.slots().iter().any(|dated| dated.counts_at(now))
        };
        let loses = |name: &&ServerName<'_>| {
            !pins.of(name).is_empty() && counts(before, name) && !counts(pins, name)
        };
        match self.names.iter().find(loses) {
            Some(name) => Err(PinFileError::Late(name.to_str().into_owned())),
            None => Ok(()),
        }
    }
}

/// The pins of all resolvers, and of others that may be in the file.
#[derive(Debug, Clone, Default)]
pub struct Pins(Vec<Listed>);

impl FromIterator<Listed> for Pins {
    fn from_iter<I: IntoIterator<Item = Listed>>(listed: I) -> Self {
        Self(listed.into_iter().collect())
    }
}

impl FromIterator<(ServerName<'static>, PinSet)> for Pins {
    fn from_iter<I: IntoIterator<Item = (ServerName<'static>, PinSet)>>(sets: I) -> Self {
        let mut listed = Vec::new();
        for (name, set) in sets {
            listed.extend(set.slots().iter().map(|dated| (name.clone(), *dated)));
        }
        Self(listed)
    }
}

impl Pins {
    /// The pins of one resolver, in the order in which they are given.
    pub fn of(&self, name: &ServerName<'_>) -> PinSet {
        let own = self.0.iter().filter(|(whose, _)| whose == name);
        own.map(|(_, dated)| *dated).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Why a file of pins is not taken.
#[derive(Debug)]
pub enum PinFileError {
    /// It is not read.
    File(FileError),
    /// The line of this number, from 1, and what is wrong with it.
    Line(usize, String),
    /// This resolver may be asked and has no pin.
    Missing(String),
    /// This resolver has no pin that counts now, and had one.
    Late(String),
}

impl fmt::Display for PinFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Line(number, cause) => write!(f, "line {number}: {cause}"),
            Self::Missing(name) => write!(f, "expected a pin for {name}, which may be asked"),
            Self::Late(name) => write!(
                f,
                "expected a pin for {name} that counts now, as one did before"
            ),
        }
    }
}

impl std::error::Error for PinFileError {}

/// Reads a file of pins. Either all of it is taken or nothing.
pub fn read_file(path: &Path) -> Result<Vec<Listed>, PinFileError> {
    read_lines(&read_text(path)?)
}

/// Reads a file that says who is believed: one that its owner alone may write, and that is not too long.
pub fn read_text(path: &Path) -> Result<String, PinFileError> {
    let octets = privileges::read_trusted_file(path).map_err(PinFileError::File)?;
    privileges::decode_utf8(octets).map_err(|(line, cause)| PinFileError::Line(line, cause))
}

/// Reads lines `NAME PIN [not-before=DATE] [not-after=DATE] [# comment]`. A date is `2026-11-24`, from its first second or
/// to its last in UTC, or `2026-11-24T12:00:00Z`.
pub fn read_lines(text: &str) -> Result<Vec<Listed>, PinFileError> {
    let mut listed = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // "#" is in no name and no pin.
        let words = line.split('#').next().unwrap_or_default();
        let mut words = words.split_ascii_whitespace();
        let Some(fqdn) = words.next() else { continue };
        listed.push(read_line(fqdn, words).map_err(|cause| PinFileError::Line(index + 1, cause))?);
    }
    Ok(listed)
}

fn read_line<'t>(fqdn: &str, mut words: impl Iterator<Item = &'t str>) -> Result<Listed, String> {
    let name = resolver_name(fqdn).map_err(|cause| format!("{fqdn:?}: {cause}"))?;
    let pin = words.next().unwrap_or_default();
    let pin: Pin = pin.parse().map_err(|error| format!("{pin:?}: {error}"))?;
    let mut dated = Dated::from(pin);
    for word in words {
        let expected = || {
            format!(
                "{word:?}: expected not-before= or not-after= with a date such as 2026-11-24, or a comment after #"
            )
        };
        let (field, text) = word.split_once('=').ok_or_else(expected)?;
        let (first, last) = date::parse(text).ok_or_else(expected)?;
        match field {
            "not-before" if dated.not_before.is_none() => dated.not_before = Some(first),
            "not-after" if dated.not_after.is_none() => dated.not_after = Some(last),
            _ => return Err(expected()),
        }
    }
    match (dated.not_before, dated.not_after) {
        (Some(from), Some(until)) if from > until => {
            Err("expected not-after= to be later than not-before=".to_owned())
        }
        _ => Ok((name, dated)),
    }
}

/// The name of a resolver, in lower case and without a final dot.
pub fn resolver_name(text: &str) -> Result<ServerName<'static>, String> {
    // A final dot is the same name in full; certificates do not have it.
    let name = text.strip_suffix('.').unwrap_or(text);
    ServerName::try_from(name.to_ascii_lowercase())
        .map_err(|_| "expected a host name such as dns.example.net, or an IP address".to_owned())
}

/// Sees when a file changes: written, replaced, taken away, or reached by another link (as in a Kubernetes volume).
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    path: PathBuf,
    end: PipeReader,
}

impl Watch {
    /// Watches the file at `path` and its directory until the writer that is returned is dropped.
    pub fn new(path: &Path) -> io::Result<(Self, PipeWriter)> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let (end, writer) = io::pipe()?;
        let watch = Self {
            inotify,
            path: path.to_owned(),
            end,
        };
        watch.look_there()?;
        Ok((watch, writer))
    }

    /// At what the path leads to now: both may have been replaced.
    fn look_there(&self) -> io::Result<()> {
        let changes = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_ATTRIB;
        let directory = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        self.inotify
            .add_watch(directory.unwrap_or(Path::new(".")), changes)?;
        // A file that is elsewhere, or mounted by itself, changes without the directory.
        self.inotify.add_watch(&self.path, changes)?;
        Ok(())
    }

    /// Waits for the end of the next change; false once nobody wants to know any more.
    pub fn wait(&self) -> bool {
        // While something is missing, what is left of them is watched.
        let _ = self.look_there();
        let mut timeout = PollTimeout::NONE;
        let mut events = 0;
        while events < EVENTS {
            let mut ready = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, timeout) {
                Ok(0) => return true,
                Ok(_) if ready[1].any().unwrap_or(true) => return false,
                Ok(_) => {
                    // What happened does not matter, only that it did.
                    while self
                        .inotify
                        .read_events()
                        .is_ok_and(|events| !events.is_empty())
                    {}
                    timeout = PollTimeout::from(QUIET);
                    events += 1;
                }
                Err(_) => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BASE64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn a_file_lists_names_with_pins_dates_and_comments() {
        let text = format!(
            "# ours\n\n  DNS.example.net. {BASE64} # the leaf's\n\
             dns.example.net sha256/{BASE64} not-before=2026-11-24 not-after=2026-11-24#\n\
             192.0.2.1\tpin-sha256=\"{BASE64}\" not-after=1970-01-01T00:00:07Z\r\n"
        );
        let pin: Pin = BASE64.parse().expect("a pin");
        let listed = read_lines(&text).expect("a sound file");
        let dates: Vec<_> = listed
            .iter()
            .map(|(name, dated)| {
                (
                    name.to_str().into_owned(),
                    dated.not_before,
                    dated.not_after,
                )
            })
            .collect();
        let (name, day) = ("dns.example.net".to_owned(), 1_795_478_400);
        assert_eq!(
            dates,
            [
                (name.clone(), None, None),
                (name, Some(day), Some(day + 86_399)),
                ("192.0.2.1".to_owned(), None, Some(7)),
            ]
        );
        assert!(listed.iter().all(|(_, dated)| dated.pin == pin));
    }

    #[test]
    fn a_broken_line_is_said_with_its_number_and_what_was_expected() {
        for (line, expected) in [
            ("dns.example", "expected base64"),
            ("dns.example AAAA", "got 3 bytes"),
            ("no..name PIN", "expected a host name"),
            ("dns.example PIN soon", "expected not-before="),
            (
                "dns.example PIN not-before=24.11.2026",
                "expected not-before=",
            ),
            (
                "dns.example PIN not-before=2026-13-01",
                "expected not-before=",
            ),
            (
                "dns.example PIN not-before=1969-01-01",
                "expected not-before=",
            ),
            ("dns.example PIN until=2026-11-24", "expected not-before="),
            (
                "dns.example PIN not-after=2026-11-24 not-after=2026-11-25",
                "expected not-before=",
            ),
            (
                "dns.example PIN not-after=2026-11-24 not-before=2026-11-25",
                "expected not-after= to be later",
            ),
        ] {
            let text = format!("# first\n{}", line.replace("PIN", BASE64));
            let error = read_lines(&text).expect_err(line).to_string();
            assert!(error.starts_with("line 2: "), "{error}");
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), format!("dns.example {BASE64}\n")).expect("writes");
        use std::os::unix::fs::MetadataExt as _;
        let metadata = fs::metadata(file.path()).expect("it is there");
        let own_group = metadata.gid() == metadata.uid();
        for (mode, taken) in [
            (0o600, true),
            (0o644, true),
            (0o664, own_group),
            (0o646, false),
        ] {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(file.path(), permissions).expect("its owner may");
            let read = read_file(file.path());
            assert_eq!(read.is_ok(), taken, "{mode:o}: {read:?}");
        }
        assert!(matches!(
            read_file(Path::new("/no/such/file")),
            Err(PinFileError::File(FileError::Unreadable(_)))
        ));
        let folder = read_file(Path::new("/"));
        assert!(matches!(
            folder,
            Err(PinFileError::File(FileError::WrongKind(_)))
        ));
    }
    #[test]
    fn a_file_that_would_leave_a_resolver_without_pins_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let write =
            |text: &str| fs::write(file.path(), text.replace("PIN", BASE64)).expect("writes");
        let [first, second] =
            ["a.example", "b.example"].map(|name| resolver_name(name).expect("a name"));
        let source = Source {
            names: vec![first.clone(), second.clone()],
            fixed: vec![(
                second.clone(),
                Dated::from(BASE64.parse::<Pin>().expect("a pin")),
            )],
            file: Some(file.path().to_owned()),
        };
        let refused = |text: &str| {
            write(text);
            source.read().expect_err(text).to_string()
        };
        let missing = "expected a pin for a.example, which may be asked";
        assert_eq!(refused("c.example PIN\n"), missing);
        assert_eq!(refused("b.example PIN\nc.example PIN\n"), missing);
        assert_eq!(refused(""), missing);
        write("a.example PIN\nb.example PIN\nc.example PIN\n");
        let before = source.read().expect("each has one");
        assert_eq!(
            before.of(&second).slots().len(),
            1,
            "the same pin twice is one"
        );
        assert_eq!(before.count(), 4);
        // The next key alone, which does not count yet, is a slip as well.
        write("a.example PIN not-before=2026-12-01\n");
        let [early, late] =
            ["2026-11-30", "2026-12-01"].map(|day| date::parse(day).expect("a day").0);
        let error = source
            .read_again(&before, early)
            .expect_err("none counts")
            .to_string();
        assert_eq!(
            error,
            "expected a pin for a.example that counts now, as one did before"
        );
        assert!(source.read_again(&before, late).is_ok());
        let announced = source.read().expect("it has one");
        assert!(
            source.read_again(&announced, early).is_ok(),
            "none counted before"
        );
    }

    #[test]
    fn a_change_is_seen_whether_written_replaced_or_reached_by_another_link() {
        use std::fs;
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("one"), "1").expect("writes");
        symlink("one", path("pins")).expect("links");
        let (watch, end) = Watch::new(&path("pins")).expect("a watch");
        let changes: [&dyn Fn(); 3] = [
            &|| fs::write(path("one"), "2").expect("writes"),
            &|| {
                fs::write(path("new"), "3").expect("writes");
                fs::rename(path("new"), path("one")).expect("renames");
            },
            &|| {
                symlink("other", path("link")).expect("links");
                fs::rename(path("link"), path("pins")).expect("renames");
            },
        ];
        for change in changes {
            change();
            assert!(watch.wait());
        }
        drop(end);
        assert!(!watch.wait());
    }
}
