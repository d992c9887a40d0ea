//! What is in an OPT record, and how is one written?

use super::codes::{MAX_UDP_PAYLOAD, MIN_UDP_PAYLOAD, option, rtype};
use super::octets::{length_since, overwrite, slice_at, slice_from};
use super::parse_error::ParseError;
use super::record::{Record, Section};

/// Length in octets of an OPT record without options: root name, type, class, TTL, RDLENGTH (RFC 6891 section 6.1.2).
pub(super) const OPT_FIXED_LEN: usize = 11;
/// Length in octets of what precedes the value of an EDNS option: code and length (RFC 6891 section 6.1.2).
pub(super) const EDNS_OPTION_HEADER_LEN: usize = 4;
/// Length in octets of an Extended DNS Error option without its text (RFC 8914 section 2).
pub(super) const EDE_FIXED_LEN: usize = EDNS_OPTION_HEADER_LEN + 2;
/// Length in octets of a keepalive option with a timeout (RFC 7828 section 3.1).
pub(super) const KEEPALIVE_OPTION_LEN: usize = EDNS_OPTION_HEADER_LEN + 2;

/// The fields and options of an OPT record that matter to a forwarder (RFC 6891 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// The UDP payload size that the sender accepts, in octets, as sent.
    pub udp_payload_size: u16,
    /// The upper eight bits of the response code.
    pub extended_rcode: u8,
    /// The EDNS version.
    pub version: u8,
    /// The DO bit: the sender accepts DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// The sender opts out of ECS: a client subnet option with SOURCE PREFIX-LENGTH 0 (RFC 7871 section 7.1.2).
    pub ecs_opt_out: bool,
    /// There is a keepalive option: a client asks how long its idle connection is kept open (RFC 7828).
    pub keepalive: bool,
    /// There is an option Answer Source without a value: a dns-tool client asks where the answer comes from.
    pub source: bool,
}

impl Edns {
    pub(super) fn read(message: &[u8], record: &Record) -> Result<Self, ParseError> {
        if record.section != Section::Additional || message.get(record.start) != Some(&0) {
            return Err(ParseError::Opt);
        }
        let (mut ecs_opt_out, mut keepalive, mut source) = (false, false, false);
        for option in options(slice_at(message, record.rdata.clone())) {
            let (code, value) = option?;
            // FAMILY (2), SOURCE PREFIX-LENGTH (1), SCOPE PREFIX-LENGTH (1), no ADDRESS: RFC 7871 section 6.
            ecs_opt_out |= code == option::CLIENT_SUBNET && matches!(value, [_, _, 0, _]);
            keepalive |= code == option::KEEPALIVE;
            source |= code == option::ANSWER_SOURCE && value.is_empty();
        }
        let &[extended_rcode, version, flags, _] = slice_from(message, record.ttl_at)
            .first_chunk()
            .ok_or(ParseError::UnexpectedEnd)?;
        Ok(Self {
            udp_payload_size: record.class,
            extended_rcode,
            version,
            dnssec_ok: flags & 0x80 != 0,
            ecs_opt_out,
            keepalive,
            source,
        })
    }

    /// The maximum length in octets of a UDP response to this sender: what the OPT offers, from 512 to 1232.
    pub fn udp_payload_limit(&self) -> usize {
        usize::from(
            self.udp_payload_size
                .clamp(MIN_UDP_PAYLOAD, MAX_UDP_PAYLOAD),
        )
    }
}

/// An Extended DNS Error that dns-tool sends (RFC 8914 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedError {
    /// Its code, one of [`ede`](super::codes::ede).
    pub code: u16,
    /// EXTRA-TEXT, for people.
    pub text: &'static str,
}

impl ExtendedError {
    /// Whether an error with this EDE code is a decision of the resolver about the name: DNSSEC validation failed (1, 2, 5 to 12),
    /// or the name is blocked by policy (4 Forged Answer, 15 Blocked, 16 Censored, 17 Filtered, 18 Prohibited). With other codes
    /// the resolver failed to get an answer.
    pub(super) fn is_conclusive(code: u16) -> bool {
        matches!(code, 1 | 2 | 4..=12 | 15..=18)
    }
}

/// The options in an OPT's RDATA, each as code and value. Ends after the first error.
pub(super) fn options(rdata: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), ParseError>> {
    let mut rest = rdata;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((head, tail)) = rest.split_first_chunk::<4>() else {
            rest = &[];
            return Some(Err(ParseError::Opt));
        };
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some((value, next)) = tail.split_at_checked(length) else {
            rest = &[];
            return Some(Err(ParseError::Opt));
        };
        rest = next;
        Some(Ok((u16::from_be_bytes([head[0], head[1]]), value)))
    })
}

/// The length in octets of all Extended DNS Error options in an OPT's RDATA.
pub(super) fn extended_errors_len(rdata: &[u8]) -> usize {
    options(rdata)
        .flatten()
        .filter(|&(code, _)| code == option::EXTENDED_ERROR)
        .map(|(_, value)| EDNS_OPTION_HEADER_LEN.saturating_add(value.len()))
        .fold(0, usize::saturating_add)
}

/// Appends an OPT record of dns-tool. `options` appends the RDATA, at most 65,535 octets.
pub(super) fn write_opt(
    out: &mut Vec<u8>,
    extended_rcode: u8,
    dnssec_ok: bool,
    options: impl FnOnce(&mut Vec<u8>),
) {
    let [size_high, size_low] = MAX_UDP_PAYLOAD.to_be_bytes();
    let [type_high, type_low] = rtype::OPT.to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    out.extend_from_slice(&[
        0,
        type_high,
        type_low,
        size_high,
        size_low,
        extended_rcode,
        0,
        flags,
        0,
        0,
        0,
    ]);
    let rdata_start = out.len();
    options(out);
    let length = length_since(out, rdata_start) as u16;
    overwrite(out, rdata_start.saturating_sub(2), &length.to_be_bytes());
}

/// Appends an option to an OPT's RDATA; `value` has at most 65,535 octets.
pub(super) fn write_option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends an Extended DNS Error to an OPT's RDATA (RFC 8914 section 2).
pub(super) fn write_extended_error(out: &mut Vec<u8>, ede: &ExtendedError) {
    let value = [&ede.code.to_be_bytes(), ede.text.as_bytes()].concat();
    write_option(out, option::EXTENDED_ERROR, &value);
}

#[cfg(test)]
mod tests {
    use super::Edns;
    use crate::message::answer::Answer;
    use crate::message::codes::{HEADER_LEN, rtype};
    use crate::message::parse_error::ParseError;
    use crate::message::query::Query;
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, AUTHORITY, Draft, answer_error, name, option, pointer, query_error,
        question, question_for,
    };

    #[test]
    fn an_opt_is_read_field_by_field() {
        let draft = Draft::query(&question());
        assert_eq!(Query::parse(&draft.0).unwrap().edns(), None);
        // Unknown flags are no error (RFC 6891 section 6.1.4), nor are unknown options and versions.
        let draft = draft.opt_with([7, 1, 0xff, 0xff], &option(65_001, b"?"));
        let edns = Edns {
            udp_payload_size: 4096,
            extended_rcode: 7,
            version: 1,
            dnssec_ok: true,
            ecs_opt_out: false,
            keepalive: false,
            source: false,
        };
        assert_eq!(Query::parse(&draft.0).unwrap().edns(), Some(&edns));
        let draft = Draft::answer(&question()).opt_with([1, 0, 0x7f, 0xff], &[]);
        let answer = Answer::parse(&draft.0).unwrap();
        assert_eq!(answer.rcode(), 16);
        assert!(!answer.edns().unwrap().dnssec_ok);
    }

    #[test]
    fn an_option_answer_source_without_a_value_asks_for_one() {
        for (options, asks) in [
            (option(65_353, b""), true),
            ([option(3, b""), option(65_353, b"")].concat(), true),
            (option(65_353, b"cache"), false),
            (option(65_001, b""), false),
            (vec![], false),
        ] {
            let draft = Draft::query(&question()).opt(&options);
            let query = Query::parse(&draft.0).unwrap();
            assert_eq!(query.edns().unwrap().source, asks, "{options:?}");
        }
    }

    #[test]
    fn a_udp_answer_has_at_least_512_and_at_most_1232_octets() {
        for (size, limit) in [
            (0, 512),
            (511, 512),
            (512, 512),
            (513, 513),
            (1231, 1231),
            (1232, 1232),
            (1233, 1232),
            (65_535, 1232),
        ] {
            let draft = Draft::query(&question()).record_with(3, &[0], 41, size, [0; 4], &[]);
            let query = Query::parse(&draft.0).unwrap();
            let edns = query.edns().unwrap();
            assert_eq!(
                (edns.udp_payload_size, edns.udp_payload_limit()),
                (size, limit)
            );
        }
    }

    #[test]
    fn a_broken_opt_is_refused() {
        // IXFR, so that each section may have records.
        let query = Draft::query(&question_for(name("example.com"), rtype::IXFR));
        let answer = Draft::answer(&question());
        for draft in [query, answer] {
            let error = |draft: Draft| match draft.0[2] & 0x80 {
                0 => query_error(&draft),
                _ => answer_error(&draft),
            };
            assert_eq!(error(draft.clone().opt(&[])), None);
            let twice = draft.clone().opt(&[]).opt(&[]);
            assert_eq!(error(twice), Some(ParseError::Opt));
            let apart = draft.clone().opt(&[]).record(3, &[0], A, &[]).opt(&[]);
            assert_eq!(error(apart), Some(ParseError::Opt));
            for section in [ANSWER, AUTHORITY] {
                let misplaced = draft.clone().record(section, &[0], rtype::OPT, &[]);
                assert_eq!(error(misplaced), Some(ParseError::Opt));
            }
            // A pointer to a root label is not the root name that RFC 6891 section 6.1.2 requires.
            let root = pointer(HEADER_LEN + 12);
            for owner in [&name("a")[..], &pointer(HEADER_LEN), &root] {
                let owned = draft.clone().record(ADDITIONAL, owner, rtype::OPT, &[]);
                assert_eq!(error(owned), Some(ParseError::Opt), "{owner:?}");
            }
            for options in [&[0][..], &[0, 12, 0], &[0, 12, 0, 1], &[0, 12, 0, 0, 0]] {
                let past = draft.clone().opt(options);
                assert_eq!(error(past), Some(ParseError::Opt), "{options:?}");
            }
            let empty_options = draft.clone().opt(&[0, 12, 0, 0, 0, 3, 0, 0]);
            assert_eq!(error(empty_options), None);
        }
    }
}
