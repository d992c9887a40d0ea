//! May this query be asked here at all?

use crate::forward::outcome::Outcome;
use crate::forward::rate_limit::Verdict;
use crate::message::{self, rtype};

/// The longest signed message that is relayed, in octets: signatures may be long, but memory is counted.
const LONGEST_SIGNED: usize = 4096;

/// Why a query is not looked up, if it may not be asked here at all.
pub(super) fn refusal(verdict: Verdict, query: &message::Query<'_>) -> Option<Outcome> {
    if verdict == Verdict::Refuse {
        Some(Outcome::NotAllowed)
    } else if verdict != Verdict::Pass {
        Some(Outcome::OverLimit)
    } else if query.edns().is_some_and(|edns| edns.version > 0) {
        Some(Outcome::OtherVersion)
    } else if matches!(query.qtype(), rtype::AXFR | rtype::IXFR) {
        Some(Outcome::Transfer)
    } else if query.is_signed() && query.message().len() > LONGEST_SIGNED {
        Some(Outcome::LongSignature)
    } else {
        None
    }
}
