//! Why can a message not be used?

use std::fmt;

/// Why a message cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Shorter than a header: there is no ID to answer to.
    Short,
    /// A response where a query was due, or a query where a response was.
    Direction,
    /// An operation other than QUERY.
    Opcode(u8),
    /// Not exactly one question (RFC 9619 section 4).
    QuestionCount(u16),
    /// A name with a label type, a length or a pointer that no name has.
    Name,
    /// The message ends before what its counts and lengths promise.
    Cut,
    /// A query that carries records in its answer or authority section.
    Section,
    /// A query with so many records.
    RecordCount(u32),
    /// More than one OPT, one that is not in the additional section or not at the root, or options that do not fit.
    Opt,
    /// A transaction signature that is not the last record (RFC 8945 section 5.1).
    Signature,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => write!(f, "shorter than a header"),
            Self::Direction => write!(f, "a response for a query or a query for a response"),
            Self::Opcode(opcode) => write!(f, "opcode {opcode}"),
            Self::QuestionCount(count) => write!(f, "{count} questions"),
            Self::Name => write!(f, "a broken name"),
            Self::Cut => write!(f, "cut short"),
            Self::Section => write!(f, "records in a section that a query leaves empty"),
            Self::RecordCount(count) => write!(f, "{count} records in a query"),
            Self::Opt => write!(f, "a broken OPT record"),
            Self::Signature => write!(f, "a signature that is not the last record"),
        }
    }
}

impl std::error::Error for Fault {}
