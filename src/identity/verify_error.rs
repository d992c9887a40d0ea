//! Why was a resolver not verified?

use std::fmt;

use crate::identity::pin::{Pin, write_pins};

/// The check that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// There is no path of valid certificates to a trust anchor.
    Chain,
    /// The certificate is valid for other names only.
    Name,
    /// No key on the verified path is pinned.
    Pin,
    /// The clock of this machine is not trusted, and no pin is given that could replace it.
    Clock,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "chain",
            Self::Name => "name",
            Self::Pin => "pin",
            Self::Clock => "clock",
        })
    }
}

/// Why a resolver was not verified: the failed check, what was expected and what the resolver presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyError {
    /// The check that failed.
    pub check: Check,
    /// What would have passed the check.
    pub expected: String,
    /// How the check failed.
    pub cause: String,
    /// The names in the presented certificate, see [`crate::identity::certificate::shown_names`].
    pub names: Vec<String>,
    /// The pins of the presented keys: the leaf's, and those of the rest of the verified path if there is one.
    pub pins: Vec<Pin>,
    /// If a certificate is not valid yet: from when on it is, in seconds since 1970, UTC.
    pub not_before: Option<u64>,
}

impl VerifyError {
    /// The error for a certificate that is missing or cannot be parsed.
    pub(super) fn unreadable(cause: String) -> Self {
        Self {
            check: Check::Chain,
            expected: "a certificate".to_owned(),
            cause,
            names: Vec::new(),
            pins: Vec::new(),
            not_before: None,
        }
    }
}

impl fmt::Display for VerifyError {
    /// Writes the error as fields of a log line. The names come from the network, so they are quoted and escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            expected,
            cause,
            names,
            pins,
            ..
        } = self;
        let names = names.join(" ");
        write!(
            f,
            "check={check} cause={cause:?} expected={expected:?} shown_names={names:?} shown_pins=\""
        )?;
        write_pins(f, pins)?;
        f.write_str("\"")
    }
}

impl std::error::Error for VerifyError {}
