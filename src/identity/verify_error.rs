//! Why is this not the resolver that is meant?

use std::fmt;

use crate::identity::pin::{Pin, write_pins};

/// Which of the checks failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// No path of valid certificates leads to a trust anchor.
    Chain,
    /// The certificate bears other names.
    Name,
    /// No key on the verified path is pinned.
    Pin,
    /// This machine does not know the time, and no pin is given that could stand in for it.
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

/// Why this is not the resolver we mean: which check failed, what was expected and what was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyError {
    /// The check that failed.
    pub check: Check,
    /// What would have passed.
    pub expected: String,
    /// How it failed.
    pub cause: String,
    /// The DNS names in the certificate that was shown.
    pub names: Vec<String>,
    /// The pins of the keys that were shown: the leaf's, then those of the verified path where there is one.
    pub pins: Vec<Pin>,
    /// From when on it would hold, in seconds since 1970, where that is all that is wrong.
    pub not_before: Option<u64>,
}

impl VerifyError {
    /// That of what is no certificate.
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
    /// As fields of a log line. The names come from a stranger, so they are quoted and escaped.
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
