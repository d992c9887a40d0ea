//! What is a pin?
//!
//! The SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4, RFC 7858 section 4.2): it names a key, so it
//! outlives the certificates that are made for that key.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls::pki_types::SubjectPublicKeyInfoDer;

/// The SHA-256 of one public key.
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

/// Why a text is no pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinError {
    /// The text, without the spelling around it, is not base64 (RFC 4648 section 4, with padding).
    NotBase64,
    /// So many bytes of base64 that are not the 32 of a SHA-256.
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

    /// Takes the spellings that are around: `BASE64`, `sha256/BASE64`, `sha256//BASE64` (curl) and
    /// `pin-sha256="BASE64"` (RFC 7469).
    fn from_str(text: &str) -> Result<Self, PinError> {
        let quoted = text
            .strip_prefix("pin-sha256=\"")
            .and_then(|rest| rest.strip_suffix('"'));
        let base64 = quoted
            .or_else(|| text.strip_prefix("sha256/"))
            .unwrap_or(text);
        // A second slash may be curl's, or the first letter of the base64: then the whole decodes.
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

/// The pins of one resolver. An empty set asks for nothing; any other asks for one of its pins on the verified path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PinSet(Vec<Pin>);

impl PinSet {
    /// Whether the keys of a verified path satisfy this set.
    pub fn accepts(&self, path: &[Pin]) -> bool {
        self.0.is_empty() || path.iter().any(|pin| self.0.contains(pin))
    }

    /// Adds a pin.
    pub fn insert(&mut self, pin: Pin) {
        if !self.0.contains(&pin) {
            self.0.push(pin);
        }
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Pin> for PinSet {
    fn from_iter<I: IntoIterator<Item = Pin>>(pins: I) -> Self {
        let mut set = Self::default();
        pins.into_iter().for_each(|pin| set.insert(pin));
        set
    }
}

impl fmt::Display for PinSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pins(f, &self.0)
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
    fn every_spelling_means_the_same_pin() {
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
    fn a_pin_whose_base64_begins_with_a_slash_is_read_in_every_spelling() {
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
    fn a_set_wants_one_of_its_pins_and_an_empty_one_nothing() {
        let [one, two, three] = [1, 2, 3].map(|octet| Pin([octet; 32]));
        let set: PinSet = [one, two, two].into_iter().collect();
        assert!(set.accepts(&[three, two]));
        assert!(!set.accepts(&[three]));
        assert!(!set.accepts(&[]));
        assert!(PinSet::default().accepts(&[]));
        assert_eq!(set.to_string(), format!("{one} {two}"));
    }
}
