//! How did a query end?
//!
//! The response code, the EDE, the count and the log line of each query follow from its [`Outcome`].

use crate::message::{ExtendedError, Fault, ede, rcode};
use crate::upstream::Failure;

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer was owed: less than a header, a response, or from where nobody can be.
    Ignored,
    /// It asked too much, and got nothing.
    Dropped,
    /// It asked too much, and was told so.
    OverLimit,
    /// It may not ask.
    NotAllowed,
    /// It could not be read.
    Malformed,
    /// It asked for an operation other than QUERY.
    OtherOpcode,
    /// It spoke an EDNS version above 0.
    OtherVersion,
    /// It asked for a zone transfer, which a forwarder of single messages cannot relay whole (RFC 5936 section 2.2).
    Transfer,
    /// Its signature was longer than is relayed.
    LongSignature,
    /// The resolver answered it.
    Answered,
    /// The answer was known.
    Cached,
    /// An expired answer was known, and no better one could be had in time.
    Stale,
    /// It was known to fail.
    FailedBefore,
    /// The resolver answered it with something that cannot be read.
    BadAnswer,
    /// The resolver did not answer by the deadline.
    TimedOut,
    /// No resolver could be reached.
    Unreachable,
    /// What was reached was not the resolver that was meant.
    Unproved,
    /// More queries were pending than may be.
    Overloaded,
}

impl Outcome {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 18] = [
        Self::Ignored,
        Self::Dropped,
        Self::OverLimit,
        Self::NotAllowed,
        Self::Malformed,
        Self::OtherOpcode,
        Self::OtherVersion,
        Self::Transfer,
        Self::LongSignature,
        Self::Answered,
        Self::Cached,
        Self::Stale,
        Self::FailedBefore,
        Self::BadAnswer,
        Self::TimedOut,
        Self::Unreachable,
        Self::Unproved,
        Self::Overloaded,
    ];

    /// The word for it in log lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Dropped => "dropped",
            Self::OverLimit => "over-limit",
            Self::NotAllowed => "not-allowed",
            Self::Malformed => "malformed",
            Self::OtherOpcode => "other-opcode",
            Self::OtherVersion => "other-version",
            Self::Transfer => "transfer",
            Self::LongSignature => "long-signature",
            Self::Answered => "answered",
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::FailedBefore => "failed-before",
            Self::BadAnswer => "bad-answer",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Unproved => "unproved",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether the resolver's answer was owed to it: to what may be asked, and was not known to fail.
    pub fn is_owed(self) -> bool {
        self.is_served()
            || matches!(
                self,
                Self::BadAnswer
                    | Self::TimedOut
                    | Self::Unreachable
                    | Self::Unproved
                    | Self::Overloaded
            )
    }

    /// Whether its client got the resolver's answer, by whatever way.
    pub fn is_served(self) -> bool {
        matches!(self, Self::Answered | Self::Cached | Self::Stale)
    }

    /// The response code and the EDE of our own answer; none where there is no answer or it is the resolver's, now or
    /// before.
    pub(super) fn reply(self) -> Option<(u16, Option<ExtendedError>)> {
        // Words only where the fault is not the asker's: a refusal is to be no larger than what it refuses.
        let because = |code, text| Some(ExtendedError { code, text });
        let servfail = |code, text| Some((rcode::SERVFAIL, because(code, text)));
        match self {
            Self::Ignored
            | Self::Dropped
            | Self::Answered
            | Self::Cached
            | Self::Stale
            | Self::FailedBefore => None,
            Self::NotAllowed => Some((rcode::REFUSED, because(ede::PROHIBITED, ""))),
            Self::OverLimit => Some((rcode::REFUSED, None)),
            Self::Malformed => Some((rcode::FORMERR, None)),
            Self::OtherOpcode => Some((rcode::NOTIMP, None)),
            Self::OtherVersion => Some((rcode::BADVERS, None)),
            Self::Transfer | Self::LongSignature => {
                Some((rcode::REFUSED, because(ede::NOT_SUPPORTED, "")))
            }
            Self::BadAnswer => servfail(ede::INVALID_DATA, "unreadable answer"),
            Self::TimedOut => servfail(ede::NO_REACHABLE_AUTHORITY, "timeout"),
            Self::Unreachable => servfail(ede::NETWORK_ERROR, "unreachable"),
            Self::Unproved => servfail(ede::NETWORK_ERROR, "identity"),
            Self::Overloaded => servfail(ede::NETWORK_ERROR, "too many queries"),
        }
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Short | Fault::Direction => Self::Ignored,
            Fault::Opcode(_) => Self::OtherOpcode,
            _ => Self::Malformed,
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TimedOut => Self::TimedOut,
            Failure::Unreachable | Failure::ConnectionLost => Self::Unreachable,
            Failure::Unauthenticated => Self::Unproved,
            Failure::Overloaded => Self::Overloaded,
            Failure::MalformedResponse => Self::BadAnswer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_counter_of_its_own() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{}", outcome.name());
        }
    }

    #[test]
    fn an_outcome_without_a_reply_is_one_that_owes_none() {
        for outcome in Outcome::ALL {
            let silent = matches!(
                outcome,
                Outcome::Ignored
                    | Outcome::Dropped
                    | Outcome::Answered
                    | Outcome::Cached
                    | Outcome::Stale
                    | Outcome::FailedBefore
            );
            assert_eq!(outcome.reply().is_none(), silent, "{}", outcome.name());
        }
    }
}
