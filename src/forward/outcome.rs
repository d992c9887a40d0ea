//! How did a query end?
//!
//! The response code, the EDE, the count and the log line of each query follow from its [`Outcome`].

use crate::client::unsent_replies::{Goodness, MAX_OUTCOMES, ReplyTag};
use crate::message::{ExtendedError, ParseError, ede, rcode};
use crate::upstream::Failure;

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer is due: the message is shorter than a header, is a response, or has an impossible source.
    Ignored,
    /// The client got no answer: it was over its rate, or not on the list and its message could not be parsed.
    Dropped,
    /// The client was over its rate and got REFUSED or TC.
    RateLimited,
    /// The client is not on the list of those that may ask.
    Denied,
    /// The message could not be parsed.
    Malformed,
    /// The opcode is not QUERY.
    UnsupportedOpcode,
    /// The EDNS version is above 0.
    UnsupportedEdnsVersion,
    /// The class is not IN. Names of class CH ask about the server itself (RFC 4892), so the resolver's answer would be false.
    UnsupportedClass,
    /// The query is for a zone transfer, which takes more messages than one (RFC 5936 section 2.2) and is not relayed.
    Transfer,
    /// The message is signed and longer than signed messages may be.
    SignedTooLong,
    /// The name has a special use, and was answered here.
    Local,
    /// The resolver answered.
    Answered,
    /// The answer came from the cache.
    Cached,
    /// An expired answer came from the cache, since there was no fresh one in time (RFC 8767).
    Stale,
    /// A failure came from the cache (RFC 9520).
    CachedFailure,
    /// The resolver's answer named a private address and was refused, now or when it came.
    Rebinding,
    /// The resolver's response could not be parsed.
    MalformedResponse,
    /// The resolver did not answer by the deadline.
    TimedOut,
    /// No resolver could be reached.
    Unreachable,
    /// The resolver could not be authenticated.
    Unauthenticated,
    /// Too many queries were in flight, too little memory was left for them, or the upstream rate limit was reached.
    Overloaded,
    /// The kernel refused to send the reply. The reply has an outcome too, which then does not count.
    NotSent,
}

/// The numbers of outcomes fit into a [`ReplyTag`].
const _: () = assert!(Outcome::ALL.len() <= MAX_OUTCOMES);

impl Outcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 22] = [
        Self::Ignored,
        Self::Dropped,
        Self::RateLimited,
        Self::Denied,
        Self::Malformed,
        Self::UnsupportedOpcode,
        Self::UnsupportedEdnsVersion,
        Self::UnsupportedClass,
        Self::Transfer,
        Self::SignedTooLong,
        Self::Local,
        Self::Answered,
        Self::Cached,
        Self::Stale,
        Self::CachedFailure,
        Self::Rebinding,
        Self::MalformedResponse,
        Self::TimedOut,
        Self::Unreachable,
        Self::Unauthenticated,
        Self::Overloaded,
        Self::NotSent,
    ];

    /// The name of this outcome in log lines and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Dropped => "dropped",
            Self::RateLimited => "rate-limited",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::UnsupportedOpcode => "unsupported-opcode",
            Self::UnsupportedEdnsVersion => "unsupported-edns-version",
            Self::UnsupportedClass => "unsupported-class",
            Self::Transfer => "transfer",
            Self::SignedTooLong => "signed-too-long",
            Self::Local => "local",
            Self::Answered => "answered",
            Self::Cached => "cached",
            Self::Stale => "stale",
            Self::CachedFailure => "cached-failure",
            Self::Rebinding => "rebinding",
            Self::MalformedResponse => "malformed-response",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::Unauthenticated => "unauthenticated",
            Self::Overloaded => "overloaded",
            Self::NotSent => "not-sent",
        }
    }

    /// The tag of a reply with this outcome. If it is an answer, `goodness` says whether and when it counts as good.
    pub(super) fn tag(self, goodness: Goodness) -> ReplyTag {
        let goodness = match self.is_served() {
            true => goodness,
            false => Goodness::No,
        };
        ReplyTag::new(self as u8, goodness)
    }

    /// Whether the query counts for the SLO: it may be asked, has a name that the resolver is asked for, and its failure was not
    /// cached.
    pub fn counts_for_slo(self) -> bool {
        self.is_served()
            || matches!(
                self,
                Self::MalformedResponse
                    | Self::TimedOut
                    | Self::Unreachable
                    | Self::Unauthenticated
                    | Self::Overloaded
            )
    }

    /// Whether the client got an answer of the resolver, fresh or cached.
    pub fn is_served(self) -> bool {
        matches!(self, Self::Answered | Self::Cached | Self::Stale)
    }

    /// The response code and the EDE of the forwarder's own answer; None if there is no answer, or it has records.
    pub(super) fn reply(self) -> Option<(u16, Option<ExtendedError>)> {
        // No text where the client is at fault: such an answer must be no larger than the query.
        let because = |code, text| Some(ExtendedError { code, text });
        let servfail = |code, text| Some((rcode::SERVFAIL, because(code, text)));
        match self {
            Self::Ignored
            | Self::Dropped
            | Self::Local
            | Self::Answered
            | Self::Cached
            | Self::Stale
            | Self::CachedFailure
            | Self::NotSent => None,
            Self::Denied => Some((rcode::REFUSED, because(ede::PROHIBITED, ""))),
            Self::RateLimited => Some((rcode::REFUSED, None)),
            Self::Malformed => Some((rcode::FORMERR, None)),
            Self::UnsupportedOpcode => Some((rcode::NOTIMP, None)),
            Self::UnsupportedEdnsVersion => Some((rcode::BADVERS, None)),
            Self::UnsupportedClass | Self::Transfer | Self::SignedTooLong => {
                Some((rcode::REFUSED, because(ede::NOT_SUPPORTED, "")))
            }
            Self::Rebinding => Some((rcode::REFUSED, because(ede::BLOCKED, "rebinding"))),
            Self::MalformedResponse => servfail(ede::INVALID_DATA, "unreadable answer"),
            Self::TimedOut => servfail(ede::NO_REACHABLE_AUTHORITY, "timeout"),
            Self::Unreachable => servfail(ede::NETWORK_ERROR, "unreachable"),
            Self::Unauthenticated => servfail(ede::NETWORK_ERROR, "identity"),
            Self::Overloaded => servfail(ede::NETWORK_ERROR, "too many queries"),
        }
    }
}

impl From<ParseError> for Outcome {
    fn from(fault: ParseError) -> Self {
        match fault {
            ParseError::TooShort | ParseError::UnexpectedQr => Self::Ignored,
            ParseError::Opcode(_) => Self::UnsupportedOpcode,
            _ => Self::Malformed,
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TimedOut => Self::TimedOut,
            Failure::Unreachable | Failure::ConnectionLost => Self::Unreachable,
            Failure::Unauthenticated => Self::Unauthenticated,
            Failure::Overloaded => Self::Overloaded,
            Failure::MalformedResponse => Self::MalformedResponse,
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
    fn an_answer_without_the_resolver_says_nothing_of_its_service() {
        assert!(!Outcome::Local.counts_for_slo());
        assert!(!Outcome::Local.is_served());
        assert!(!Outcome::Rebinding.counts_for_slo());
    }

    #[test]
    fn only_outcomes_without_an_answer_of_our_own_have_no_reply() {
        for outcome in Outcome::ALL {
            let silent = matches!(
                outcome,
                Outcome::Ignored
                    | Outcome::Dropped
                    | Outcome::Local
                    | Outcome::Answered
                    | Outcome::Cached
                    | Outcome::Stale
                    | Outcome::CachedFailure
                    | Outcome::NotSent
            );
            assert_eq!(outcome.reply().is_none(), silent, "{}", outcome.name());
        }
    }
}
