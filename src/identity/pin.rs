//! What is a pin?
//!
//! The SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4, RFC 7858 section 4.2). A pin identifies a key, so it
//! stays valid when the certificate is renewed for the same key. A resolver has a set of pins, so that the next key can be pinned
//! before it is used.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::pki_types::SubjectPublicKeyInfoDer;

/// A pin: the SHA-256 of one public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; SHA256_OUTPUT_LEN]);

impl Pin {
    /// The pin of a key.
    pub fn of(key: &SubjectPublicKeyInfoDer<'_>) -> Self {
        let mut pin = [0; SHA256_OUTPUT_LEN];
        pin.copy_from_slice(digest(&SHA256, key.as_ref()).as_ref());
        Self(pin)
    }
}

/// Why a text is not a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinError {
    /// The text, without prefix and quotation marks, is not base64 (RFC 4648 section 4, with padding).
    NotBase64,
    /// The base64 holds this many bytes, not the 32 of a SHA-256.
    Length(usize),
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected base64 of the {SHA256_OUTPUT_LEN} bytes of a SHA-256, "
        )?;
        match self {
            Self::NotBase64 => write!(f, "got something that is not base64"),
            Self::Length(bytes) => write!(f, "got {bytes} bytes"),
        }
    }
}

impl std::error::Error for PinError {}

impl FromStr for Pin {
    type Err = PinError;

    /// Accepts the usual notations: `BASE64`, `sha256/BASE64`, `sha256//BASE64` (curl) and
    /// `pin-sha256="BASE64"` (RFC 7469).
    fn from_str(text: &str) -> Result<Self, PinError> {
        let quoted = text
            .strip_prefix("pin-sha256=\"")
            .and_then(|rest| rest.strip_suffix('"'));
        let base64 = quoted
            .or_else(|| text.strip_prefix("sha256/"))
            .unwrap_or(text);
        // A second slash is curl's, unless it is the first character of the base64: then the text decodes with it.
        let whole = STANDARD.decode(base64);
        let bytes = match base64.strip_prefix('/') {
            Some(rest) if whole.is_err() => STANDARD.decode(rest),
            _ => whole,
        };
        let bytes = bytes.map_err(|_| PinError::NotBase64)?;
        let length = bytes.len();
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| PinError::Length(length))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256/{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A pin and its validity period. Times are seconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinEntry {
    /// The pin.
    pub pin: Pin,
    /// The first second of validity; none for no lower bound.
    pub not_before: Option<u64>,
    /// The last second of validity; none for no upper bound.
    pub not_after: Option<u64>,
}

impl PinEntry {
    /// Whether the pin is valid at `now`.
    pub fn is_valid_at(&self, now: u64) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.not_after.is_none_or(|until| now <= until)
    }
}

impl From<Pin> for PinEntry {
    /// The pin without dates.
    fn from(pin: Pin) -> Self {
        Self {
            pin,
            not_before: None,
            not_after: None,
        }
    }
}

/// Which pin of a set matched which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinMatch {
    /// Index of the pin in the set, from 0. Pins after the first are backups.
    pub pin_index: usize,
    /// Index of the key on the verified path, from 0 for the leaf's.
    pub key_index: usize,
}

/// The pins of one resolver, in the order in which they were given. If the set is empty, any key is accepted; otherwise one of the
/// pins must match a key on the verified path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinSet(Vec<PinEntry>);

impl PinSet {
    /// Finds the first pin that is valid at `now` and matches a key on the verified path `path`.
    pub fn find(&self, path: &[Pin], now: u64) -> Option<PinMatch> {
        let mut entries = self.0.iter().enumerate();
        entries.find_map(|(pin_index, entry)| {
            let key_index = path.iter().position(|pin| *pin == entry.pin)?;
            entry.is_valid_at(now).then_some(PinMatch {
                pin_index,
                key_index,
            })
        })
    }

    /// Adds a pin, unless the set has it with the same dates.
    pub fn insert(&mut self, entry: PinEntry) {
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
    }

    /// Whether the set has no pins, so that any key is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pins with their dates, in order.
    pub fn entries(&self) -> &[PinEntry] {
        &self.0
    }

    /// Whether the set has pins, but not for a second key, which would be needed when the resolver changes its key (RFC 7469 section
    /// 2.5). Expired pins do not count, future ones do.
    pub fn lacks_backup(&self, now: u64) -> bool {
        let is_not_expired = |entry: &&PinEntry| entry.not_after.is_none_or(|until| now <= until);
        let mut keys = self.0.iter().filter(is_not_expired).map(|entry| entry.pin);
        let first = keys.next();
        !self.is_empty() && keys.all(|key| Some(key) == first)
    }
}

impl<T: Into<PinEntry>> FromIterator<T> for PinSet {
    fn from_iter<I: IntoIterator<Item = T>>(pins: I) -> Self {
        let mut set = Self::default();
        pins.into_iter().for_each(|pin| set.insert(pin.into()));
        set
    }
}

impl fmt::Display for PinSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pins: Vec<_> = self.0.iter().map(|entry| entry.pin).collect();
        write_pins(f, &pins)
    }
}

/// Writes pins one after the other with a space between, each as `--resolver-pin` takes it.
pub fn write_pins(f: &mut fmt::Formatter<'_>, pins: &[Pin]) -> fmt::Result {
    for (index, pin) in pins.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        write!(f, "{space}{pin}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn a_pin_is_the_sha256_of_the_key() {
        // The SHA-256 of nothing (FIPS 180-4 test vector).
        assert_eq!(
            Pin::of(&SubjectPublicKeyInfoDer::from(&[][..])),
            BASE64.parse().expect("a pin")
        );
    }

    #[test]
    fn every_notation_means_the_same_pin() {
        let pin: Pin = BASE64.parse().expect("a pin");
        for text in [
            format!("sha256/{BASE64}"),
            format!("sha256//{BASE64}"),
            format!("pin-sha256=\"{BASE64}\""),
            pin.to_string(),
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
    }

    #[test]
    fn a_pin_whose_base64_begins_with_a_slash_is_read_in_every_notation() {
        let pin = Pin([0xff; 32]);
        let base64 = STANDARD.encode(pin.0);
        assert!(base64.starts_with('/'));
        for text in [
            &base64,
            &format!("sha256/{base64}"),
            &format!("sha256//{base64}"),
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_no_pin_says_how_many_bytes_it_was() {
        assert_eq!("AAAA".parse::<Pin>(), Err(PinError::Length(3)));
        assert_eq!("".parse::<Pin>(), Err(PinError::Length(0)));
        assert_eq!(
            STANDARD.encode([0; 31]).parse::<Pin>(),
            Err(PinError::Length(31))
        );
        assert_eq!(
            STANDARD.encode([0; 33]).parse::<Pin>(),
            Err(PinError::Length(33))
        );
        assert!(PinError::Length(31).to_string().ends_with("got 31 bytes"));
        for text in ["!", "sha256/", "sha1/AAAA", "pin-sha256=AAAA", &BASE64[1..]] {
            let error = text.parse::<Pin>().expect_err(text);
            assert_eq!(
                error == PinError::Length(0),
                text == "sha256/",
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_set_requires_one_of_its_pins_and_an_empty_one_none() {
        let [one, two, three] = [1, 2, 3].map(|octet| Pin([octet; 32]));
        let set: PinSet = [one, two, two].into_iter().collect();
        assert_eq!(
            set.find(&[three, two], 0),
            Some(PinMatch {
                pin_index: 1,
                key_index: 1
            })
        );
        assert_eq!(
            set.find(&[two, one], 0),
            Some(PinMatch {
                pin_index: 0,
                key_index: 1
            })
        );
        assert_eq!(set.find(&[three], 0), None);
        assert_eq!(set.find(&[], 0), None);
        assert!(!set.is_empty() && PinSet::default().is_empty());
        assert_eq!(set.to_string(), format!("{one} {two}"));
    }

    #[test]
    fn a_pin_is_valid_between_its_dates_only() {
        let [one, two] = [1, 2].map(|octet| Pin([octet; 32]));
        let mut set = PinSet::default();
        set.insert(PinEntry {
            not_after: Some(99),
            ..PinEntry::from(one)
        });
        set.insert(PinEntry {
            not_before: Some(50),
            ..PinEntry::from(two)
        });
        for (now, expected) in [
            (0, [true, false]),
            (50, [true; 2]),
            (99, [true; 2]),
            (100, [false, true]),
        ] {
            let found = [one, two].map(|pin| set.find(&[pin], now).is_some());
            assert_eq!(found, expected, "{now}");
        }
        assert!(!set.lacks_backup(99) && set.lacks_backup(100));
        let twice: PinSet = [one, one].into_iter().collect();
        assert!(twice.lacks_backup(0) && !PinSet::default().lacks_backup(0));
    }
}
