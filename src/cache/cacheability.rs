//! May an answer be cached, and for how long?

use crate::message::{Answer, QuestionKey, Section, rcode, rtype};

/// The longest TTL of an answer in the cache, in seconds: 7 days (RFC 8767 section 4).
const MAX_TTL: u32 = 604_800;
/// The longest TTL of a negative answer in the cache, in seconds: 3 hours (RFC 2308 section 5).
const MAX_NEGATIVE_TTL: u32 = 10_800;

/// Why an answer is not cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotCacheable {
    /// Records are missing from it: its TC bit is set.
    Truncated,
    /// It is for one part of the network only (RFC 7871).
    EcsScoped,
    /// It is signed for one client, by TSIG or SIG(0).
    Signed,
    /// It has DNSSEC records that the query did not request (RFC 4035 section 3.2.1); other clients would get them, too.
    UnrequestedDnssec,
    /// It is negative and has no SOA record that says for how long (RFC 2308 section 5).
    NoSoa,
    /// Its TTL is 0.
    ZeroTtl,
    /// It does not answer this question.
    QuestionMismatch,
}

/// How long an answer may be cached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// The TTL of the whole answer in seconds, at least 1.
    pub(super) ttl: u32,
    /// The cap on the TTL of each of its records, in seconds.
    pub(super) max_record_ttl: u32,
}

/// Checks that an answer may be given to other clients, whatever its records are.
pub(super) fn check_cacheable(answer: &Answer<'_>) -> Result<(), NotCacheable> {
    if answer.is_truncated() {
        Err(NotCacheable::Truncated)
    } else if answer.has_ecs_scope() {
        Err(NotCacheable::EcsScoped)
    } else if answer.is_signed() {
        Err(NotCacheable::Signed)
    } else {
        Ok(())
    }
}

/// How long an answer to `key` with the response code NOERROR or NXDOMAIN may be cached.
pub(super) fn lifetime(
    answer: &Answer<'_>,
    key: &QuestionKey<'_>,
) -> Result<Lifetime, NotCacheable> {
    check_cacheable(answer)?;
    let qtype = answer.qtype().ok_or(NotCacheable::QuestionMismatch)?;
    let asked_for = |rtype| rtype == qtype || qtype == rtype::ANY;
    let (mut min_ttl, mut negative_ttl, mut has_data) = (MAX_TTL, None, false);
    for record in answer.records().filter(|record| record.rtype != rtype::OPT) {
        let is_dnssec = matches!(record.rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3);
        if is_dnssec && !key.dnssec_ok() && !asked_for(record.rtype) {
            return Err(NotCacheable::UnrequestedDnssec);
        }
        min_ttl = min_ttl.min(answer.ttl(&record));
        match record.section {
            Section::Answer => has_data |= asked_for(record.rtype),
            Section::Authority if record.rtype == rtype::SOA => {
                negative_ttl = Some(answer.negative_ttl(&record));
            }
            _ => {}
        }
    }
    let lifetime = if has_data && answer.rcode() == rcode::NOERROR {
        Lifetime {
            ttl: min_ttl,
            max_record_ttl: MAX_TTL,
        }
    } else {
        let negative_ttl = negative_ttl.ok_or(NotCacheable::NoSoa)?;
        let ttl = min_ttl.min(negative_ttl).min(MAX_NEGATIVE_TTL);
        // A cache behind this one goes by the TTL and the MINIMUM of the SOA record: one of them must count down.
        Lifetime {
            ttl,
            max_record_ttl: ttl,
        }
    };
    if lifetime.ttl == 0 {
        return Err(NotCacheable::ZeroTtl);
    }
    Ok(lifetime)
}
