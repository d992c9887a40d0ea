//! Which pins are configured now?
//!
//! Those of the options, and those of a file that is read again when it changes, so that the next key can be announced without a
//! restart. Either all lines of a file are accepted or none.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use crate::identity::pin::{Pin, PinEntry, PinSet};
use crate::system::date;
use crate::system::privileges::{self, FileError};

/// A pin and the name of its resolver.
pub type NamedPin = (ServerName<'static>, PinEntry);

/// The sources of the pins of all resolvers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinSource {
    /// The resolvers' names.
    pub names: Vec<ServerName<'static>>,
    /// The pins of options, which are valid whatever the file has.
    pub from_options: Vec<NamedPin>,
    /// The file with further pins (`--pins`).
    pub file: Option<PathBuf>,
}

impl PinSource {
    /// Reads the pins. Fails if the file cannot be read, or if there is a file and a resolver has no pin at all: that is more likely
    /// a mistake than the wish to accept any key.
    pub fn read(&self) -> Result<Pins, PinFileError> {
        let mut pins = Pins(self.from_options.clone());
        if let Some(file) = &self.file {
            pins.0.extend(read_file(file)?);
            if let Some(name) = self.names.iter().find(|name| pins.of(name).is_empty()) {
                return Err(PinFileError::Missing(name.to_str().into_owned()));
            }
        }
        Ok(pins)
    }

    /// Reads the pins again, to replace those `before`. Fails also as [`PinSource::check_replacement`] does.
    pub fn reread(&self, before: &Pins, now: u64) -> Result<Pins, PinFileError> {
        let pins = self.read()?;
        self.check_replacement(&pins, before, now)?;
        Ok(pins)
    }

    /// Checks that `pins` may replace those `before`: a resolver with pins must keep one that is valid at `now` if it had one.
    pub fn check_replacement(
        &self,
        pins: &Pins,
        before: &Pins,
        now: u64,
    ) -> Result<(), PinFileError> {
        let counts = |pins: &Pins, name: &ServerName<'_>| {
            let own = pins.of(name);
            own.entries().iter().any(|entry| entry.is_valid_at(now))
        };
        let loses = |name: &&ServerName<'_>| {
            !pins.of(name).is_empty() && counts(before, name) && !counts(pins, name)
        };
        match self.names.iter().find(loses) {
            Some(name) => Err(PinFileError::NoneValid(name.to_str().into_owned())),
            None => Ok(()),
        }
    }
}

/// The pins of all resolvers, and of any others in the file.
#[derive(Debug, Clone, Default)]
pub struct Pins(Vec<NamedPin>);

impl FromIterator<NamedPin> for Pins {
    fn from_iter<I: IntoIterator<Item = NamedPin>>(pins: I) -> Self {
        Self(pins.into_iter().collect())
    }
}

impl FromIterator<(ServerName<'static>, PinSet)> for Pins {
    fn from_iter<I: IntoIterator<Item = (ServerName<'static>, PinSet)>>(sets: I) -> Self {
        let mut pins = Vec::new();
        for (name, set) in sets {
            pins.extend(set.entries().iter().map(|entry| (name.clone(), *entry)));
        }
        Self(pins)
    }
}

impl Pins {
    /// The pins of one resolver, in the order in which they were given.
    pub fn of(&self, name: &ServerName<'_>) -> PinSet {
        let own = self.0.iter().filter(|(whose, _)| whose == name);
        own.map(|(_, entry)| *entry).collect()
    }

    /// The number of pins of all resolvers.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Why pins are not accepted.
#[derive(Debug)]
pub enum PinFileError {
    /// The file cannot be read, or is not safe to read.
    File(FileError),
    /// The line with this number, from 1, is wrong, for this reason.
    Line(usize, String),
    /// The resolver of this name has no pin.
    Missing(String),
    /// The resolver of this name has no pin that is valid now, and had one before.
    NoneValid(String),
}

impl fmt::Display for PinFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Line(number, cause) => write!(f, "line {number}: {cause}"),
            Self::Missing(name) => write!(f, "expected a pin for {name}, which may be asked"),
            Self::NoneValid(name) => write!(
                f,
                "expected a pin for {name} that counts now, as one did before"
            ),
        }
    }
}

impl std::error::Error for PinFileError {}

/// Reads a pin file. Either all lines are accepted or none.
pub fn read_file(path: &Path) -> Result<Vec<NamedPin>, PinFileError> {
    read_lines(&read_text(path)?)
}

/// Reads a file that decides who is trusted. Fails if others than its owner may write it, if it is longer than 1 MiB, or if it is not
/// UTF-8.
pub fn read_text(path: &Path) -> Result<String, PinFileError> {
    let octets = privileges::read_trusted_file(path).map_err(PinFileError::File)?;
    privileges::decode_utf8(octets).map_err(|(line, cause)| PinFileError::Line(line, cause))
}

/// Reads lines `NAME PIN [not-before=DATE] [not-after=DATE] [# comment]`. A date is `2026-11-24`, from its first second or
/// to its last in UTC, or `2026-11-24T12:00:00Z`.
pub fn read_lines(text: &str) -> Result<Vec<NamedPin>, PinFileError> {
    let mut pins = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // Neither names nor pins contain "#".
        let words = line.split('#').next().unwrap_or_default();
        let mut words = words.split_ascii_whitespace();
        let Some(fqdn) = words.next() else { continue };
        pins.push(read_line(fqdn, words).map_err(|cause| PinFileError::Line(index + 1, cause))?);
    }
    Ok(pins)
}

fn read_line<'t>(fqdn: &str, mut words: impl Iterator<Item = &'t str>) -> Result<NamedPin, String> {
    let name = resolver_name(fqdn).map_err(|cause| format!("{fqdn:?}: {cause}"))?;
    let pin = words.next().ok_or_else(|| {
        format!("{fqdn:?}: expected NAME PIN, the name of a resolver and a pin of it")
    })?;
    let pin: Pin = pin.parse().map_err(|error| format!("{pin:?}: {error}"))?;
    let mut entry = PinEntry::from(pin);
    for word in words {
        let expected = || {
            format!(
                "{word:?}: expected not-before= or not-after= with a date such as 2026-11-24, or a comment after #"
            )
        };
        let (field, text) = word.split_once('=').ok_or_else(expected)?;
        let (first, last) = date::parse(text).ok_or_else(expected)?;
        match field {
            "not-before" if entry.not_before.is_none() => entry.not_before = Some(first),
            "not-after" if entry.not_after.is_none() => entry.not_after = Some(last),
            _ => return Err(expected()),
        }
    }
    match (entry.not_before, entry.not_after) {
        (Some(from), Some(until)) if from > until => {
            Err("expected not-after= to be later than not-before=".to_owned())
        }
        _ => Ok((name, entry)),
    }
}

/// Parses the name of a resolver, into lower case and without a final dot.
pub fn resolver_name(text: &str) -> Result<ServerName<'static>, String> {
    // The final dot of a fully qualified name is not written in certificates.
    let name = text.strip_suffix('.').unwrap_or(text);
    ServerName::try_from(name.to_ascii_lowercase())
        .map_err(|_| "expected a host name such as dns.example.net, or an IP address".to_owned())
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
        let pins = read_lines(&text).expect("a sound file");
        let dates: Vec<_> = pins
            .iter()
            .map(|(name, entry)| {
                (
                    name.to_str().into_owned(),
                    entry.not_before,
                    entry.not_after,
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
        assert!(pins.iter().all(|(_, entry)| entry.pin == pin));
    }

    #[test]
    fn a_broken_line_is_said_with_its_number_and_what_was_expected() {
        for (line, expected) in [
            ("dns.example", "\"dns.example\": expected NAME PIN"),
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
        let source = PinSource {
            names: vec![first.clone(), second.clone()],
            from_options: vec![(
                second.clone(),
                PinEntry::from(BASE64.parse::<Pin>().expect("a pin")),
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
            before.of(&second).entries().len(),
            1,
            "the same pin twice is one"
        );
        assert_eq!(before.count(), 4);
        // The next key alone, which does not count yet, is a slip as well.
        write("a.example PIN not-before=2026-12-01\n");
        let [early, late] =
            ["2026-11-30", "2026-12-01"].map(|day| date::parse(day).expect("a day").0);
        let error = source
            .reread(&before, early)
            .expect_err("none counts")
            .to_string();
        assert_eq!(
            error,
            "expected a pin for a.example that counts now, as one did before"
        );
        assert!(source.reread(&before, late).is_ok());
        let announced = source.read().expect("it has one");
        assert!(
            source.reread(&announced, early).is_ok(),
            "none counted before"
        );
    }
}
