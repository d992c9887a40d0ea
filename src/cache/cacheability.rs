//! May an answer be kept, and for how long?

use crate::message::{Answer, QuestionKey, Section, rcode, rtype};

/// The longest that an answer is kept, in seconds: 7 days (RFC 8767 section 4).
const MOST: u32 = 604_800;
/// The longest that the absence of a name or of its records is believed, in seconds: 3 hours (RFC 2308 section 5).
const MOST_NEGATIVE: u32 = 10_800;

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unkept {
    /// Records are missing from it.
    Truncated,
    /// It is for a part of the network.
    Scoped,
    /// It is signed for one asker.
    Signed,
    /// It has DNSSEC records that were not asked for (RFC 4035 section 3.2.1), and would show them to everybody.
    Unasked,
    /// It says that there is nothing, and not for how long (RFC 2308 section 5).
    Endless,
    /// It is to be used once.
    Momentary,
    /// It is none to this question.
    Other,
}

/// How long an answer may be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// Seconds, at least 1.
    pub(super) life: u32,
    /// The most that each of its TTLs may be, in seconds.
    pub(super) most: u32,
}

/// Whether an answer may be given to another asker, whatever it says.
pub(super) fn may_be_kept(answer: &Answer<'_>) -> Result<(), Unkept> {
    if answer.is_truncated() {
        Err(Unkept::Truncated)
    } else if answer.has_ecs_scope() {
        Err(Unkept::Scoped)
    } else if answer.is_signed() {
        Err(Unkept::Signed)
    } else {
        Ok(())
    }
}

/// How long an answer to `key` with the code NOERROR or NXDOMAIN may be kept.
pub(super) fn lifetime(answer: &Answer<'_>, key: &QuestionKey<'_>) -> Result<Lifetime, Unkept> {
    may_be_kept(answer)?;
    let qtype = answer.qtype().ok_or(Unkept::Other)?;
    let asked_for = |rtype| rtype == qtype || qtype == rtype::ANY;
    let (mut least, mut absence, mut is_there) = (MOST, None, false);
    for record in answer.records().filter(|record| record.rtype != rtype::OPT) {
        let signature = matches!(record.rtype, rtype::RRSIG | rtype::NSEC | rtype::NSEC3);
        if signature && !key.dnssec_ok() && !asked_for(record.rtype) {
            return Err(Unkept::Unasked);
        }
        least = least.min(answer.ttl(&record));
        match record.section {
            Section::Answer => is_there |= asked_for(record.rtype),
            Section::Authority if record.rtype == rtype::SOA => {
                absence = Some(answer.negative_ttl(&record));
            }
            _ => {}
        }
    }
    let lifetime = if is_there && answer.rcode() == rcode::NOERROR {
        Lifetime {
            life: least,
            most: MOST,
        }
    } else {
        let absence = absence.ok_or(Unkept::Endless)?;
        let life = least.min(absence).min(MOST_NEGATIVE);
        // Whoever keeps it in turn goes by the SOA record's TTL and its MINIMUM: one of them must count down.
        Lifetime { life, most: life }
    };
    if lifetime.life == 0 {
        return Err(Unkept::Momentary);
    }
    Ok(lifetime)
}
