//! May this query be asked here at all?

use crate::forward::outcome::Outcome;
use crate::forward::rate_limit::Verdict;
use crate::message::{self, class, rtype};

/// The longest signed message that is relayed, in octets: a signature may be long, but memory is limited.
const MAX_SIGNED_LEN: usize = 4096;

/// The outcome of a query that is not looked up; None if it may be asked.
pub(super) fn refusal(verdict: Verdict, query: &message::Query<'_>) -> Option<Outcome> {
    if verdict == Verdict::Refuse {
        Some(Outcome::Denied)
    } else if verdict != Verdict::Pass {
        Some(Outcome::RateLimited)
    } else if query.edns().is_some_and(|edns| edns.version > 0) {
        Some(Outcome::UnsupportedEdnsVersion)
    } else if query.qclass() != class::IN {
        Some(Outcome::UnsupportedClass)
    } else if matches!(query.qtype(), rtype::AXFR | rtype::IXFR) {
        Some(Outcome::Transfer)
    } else if query.is_signed() && query.message().len() > MAX_SIGNED_LEN {
        Some(Outcome::SignedTooLong)
    } else {
        None
    }
}
