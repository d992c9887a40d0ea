//! Why can a message not be parsed?

use std::fmt;

/// Why a message cannot be parsed, or may not be relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// The message is shorter than a header, so there is no ID to respond with.
    TooShort,
    /// The QR bit is wrong: a response where a query was expected, or a query where a response was (RFC 1035 section 4.1.1).
    UnexpectedQr,
    /// The opcode is this one, not QUERY (0).
    Opcode(u8),
    /// The message has this many questions, not exactly one (RFC 9619 section 4).
    QuestionCount(u16),
    /// A name has an unknown label type, is too long, or has a compression pointer that is not allowed.
    Name,
    /// The message ends before its counts and lengths say.
    UnexpectedEnd,
    /// A query has records in its answer or authority section.
    UnexpectedRecords,
    /// A query has this many records, more than are accepted.
    TooManyRecords(u32),
    /// The message has two OPT records, an OPT outside the additional section or not at the root, or options that overrun it
    /// (RFC 6891 section 6.1).
    Opt,
    /// A TSIG or SIG(0) record is not the last one (RFC 8945 section 5.1).
    SignatureNotLast,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => write!(f, "shorter than a header"),
            Self::UnexpectedQr => write!(f, "a response for a query or a query for a response"),
            Self::Opcode(opcode) => write!(f, "opcode {opcode}"),
            Self::QuestionCount(count) => write!(f, "{count} questions"),
            Self::Name => write!(f, "a broken name"),
            Self::UnexpectedEnd => write!(f, "cut short"),
            Self::UnexpectedRecords => write!(f, "records in a section that a query leaves empty"),
            Self::TooManyRecords(count) => write!(f, "{count} records in a query"),
            Self::Opt => write!(f, "a broken OPT record"),
            Self::SignatureNotLast => write!(f, "a signature that is not the last record"),
        }
    }
}

impl std::error::Error for ParseError {}
