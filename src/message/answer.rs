//! What is in a resolver's answer, and to which question is it a response?

use std::ops::Range;
use std::time::Duration;

use super::codes::{HEADER_LEN, MAX_MESSAGE_LEN, MAX_UDP_PAYLOAD, option, rcode, rtype};
use super::compression::ValidatedMessage;
use super::edns::{
    EDNS_OPTION_HEADER_LEN, Edns, ExtendedError, OPT_FIXED_LEN, extended_errors_len, options,
    write_option,
};
use super::header::Header;
use super::octets::{has_room, overwrite, slice_at, slice_from, u16_at};
use super::parse_error::ParseError;
use super::question::{QTYPE_QCLASS_LEN, question_end, same_question};
use super::record::{Record, Records};

/// How the TTLs of an answer's records are changed. All values are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlRewrite {
    /// TTLs stay as received.
    #[default]
    Unchanged,
    /// Each TTL is limited to `max` and then decremented by `age`, to not less than 0.
    Decremented {
        /// The maximum, before the age is subtracted.
        max: u32,
        /// How long ago the answer was received.
        age: u32,
    },
    /// All TTLs are this value, since the original ones have expired (RFC 8767 section 4). AD is cleared, since expired records
    /// are not validated.
    Fixed(u32),
}

impl TtlRewrite {
    fn apply(self, ttl: u32) -> u32 {
        match self {
            Self::Unchanged => ttl,
            Self::Decremented { max, age } => ttl.min(max).saturating_sub(age),
            Self::Fixed(seconds) => seconds,
        }
    }
}

/// A parsed response of a resolver. All its records are validated.
#[derive(Debug, Clone)]
pub struct Answer<'m> {
    message: ValidatedMessage<'m>,
    header: Header,
    opt: Option<Opt>,
}

#[derive(Debug, Clone)]
pub(super) struct Opt {
    record: Range<usize>,
    rdata: Range<usize>,
    edns: Edns,
    /// Length in octets of the Extended DNS Error options.
    errors: usize,
}

impl<'m> Answer<'m> {
    /// Parses a resolver's message: header, question and all records with their names. RDATA is validated only where it holds
    /// compressed names that an OPT record precedes. Octets after the last record are left out.
    pub fn parse(message: &'m [u8]) -> Result<Self, ParseError> {
        let header = Header::of(message)?;
        if !header.is_response() {
            return Err(ParseError::UnexpectedQr);
        }
        let question_end = match header.counts() {
            [0, ..] => HEADER_LEN,
            _ => question_end(message)?,
        };
        let mut records = Records::after_question(message, question_end)?;
        let mut opt = None;
        for record in records.by_ref() {
            let record = record?;
            if record.rtype == rtype::OPT {
                let found = Opt {
                    edns: Edns::read(message, &record)?,
                    errors: extended_errors_len(slice_at(message, record.rdata.clone())),
                    record: record.start..record.rdata.end,
                    rdata: record.rdata,
                };
                if opt.replace(found).is_some() {
                    return Err(ParseError::Opt);
                }
            }
        }
        let message = ValidatedMessage::new(slice_at(message, 0..records.position()), question_end);
        if let Some(opt) = &opt {
            message.check_opt_removable(&opt.record)?;
        }
        Ok(Self {
            message,
            header,
            opt,
        })
    }

    /// The answer in a copy that was made from a parsed one, without parsing it again. Its OPT record, if there is one, begins at
    /// `opt_at`, is the last record, and holds only Extended DNS Errors.
    pub(super) fn from_cached_copy(
        copy: &'m [u8],
        question_end: usize,
        opt_at: Option<usize>,
    ) -> Self {
        let opt = opt_at.map(|at| {
            let record = at..copy.len();
            let rdata = record.start.saturating_add(OPT_FIXED_LEN)..record.end;
            Opt {
                errors: rdata.len(),
                rdata,
                record,
                edns: Edns {
                    udp_payload_size: MAX_UDP_PAYLOAD,
                    extended_rcode: 0,
                    version: 0,
                    dnssec_ok: false,
                    ecs_opt_out: false,
                    keepalive: false,
                    source: false,
                },
            }
        });
        Self {
            message: ValidatedMessage::new(copy, question_end),
            header: Header::of(copy).unwrap_or_default(),
            opt,
        }
    }

    /// The message, without any octets after its last record.
    pub fn message(&self) -> &'m [u8] {
        self.message.octets()
    }

    /// The question's octets; empty in an error without a question.
    pub(super) fn question(&self) -> &'m [u8] {
        self.message.question()
    }

    /// The OPT record, if there is one.
    pub fn edns(&self) -> Option<&Edns> {
        self.opt.as_ref().map(|opt| &opt.edns)
    }

    /// The two octets of the header's flags.
    pub(super) fn flags(&self) -> [u8; 2] {
        self.header.flags()
    }

    /// The extended response code: the OPT's upper eight bits and the header's lower four (RFC 6891 section 6.1.3).
    pub fn rcode(&self) -> u16 {
        u16::from(self.extended_rcode()) << 4 | self.header.rcode()
    }

    /// Whether the answer is truncated (TC).
    pub fn is_truncated(&self) -> bool {
        self.header.flags()[0] & 0x02 != 0
    }

    /// Whether the resolver has validated the answer (AD, RFC 4035 section 3.2.3).
    pub fn is_authentic(&self) -> bool {
        self.header.flags()[1] & 0x20 != 0
    }

    /// Whether the answer is for some client subnets only: ECS with a SCOPE PREFIX-LENGTH above 0 (RFC 7871 section 7.2.1).
    pub fn has_ecs_scope(&self) -> bool {
        self.options().any(|(code, value)| {
            code == option::CLIENT_SUBNET && value.get(3).is_some_and(|scope| *scope > 0)
        })
    }

    /// Whether the message has a transaction signature, TSIG or SIG(0), and so is valid for one client only.
    pub fn is_signed(&self) -> bool {
        self.records().any(|record| match record.rtype {
            rtype::TSIG => true,
            rtype::SIG => slice_at(self.message(), record.rdata).starts_with(&[0, 0]),
            _ => false,
        })
    }

    /// The question's type; none in an error without a question.
    pub fn qtype(&self) -> Option<u16> {
        let at = self.question().len().checked_sub(QTYPE_QCLASS_LEN)?;
        u16_at(self.question(), at).ok()
    }

    /// A record's TTL in seconds. A TTL with the top bit set is treated as 0 (RFC 2181 section 8).
    pub fn ttl(&self, record: &Record) -> u32 {
        let octets = slice_from(self.message(), record.ttl_at).first_chunk();
        let ttl = octets.map_or(0, |octets| u32::from_be_bytes(*octets));
        if ttl > i32::MAX as u32 { 0 } else { ttl }
    }

    /// The TTL of a negative answer with this SOA record, in seconds: the lower of its TTL and its MINIMUM field, which is the last
    /// field of its RDATA (RFC 2308 section 5).
    pub fn negative_ttl(&self, soa: &Record) -> u32 {
        let minimum = slice_at(self.message(), soa.rdata.clone()).last_chunk();
        let minimum = minimum.map_or(0, |octets| u32::from_be_bytes(*octets));
        self.ttl(soa).min(minimum)
    }

    /// Rewrites the TTLs in `out`, where a copy of the message without its OPT begins at `start`.
    pub(super) fn write_ttls(&self, out: &mut [u8], start: usize, rewrite: TtlRewrite) {
        let mut opt_len = 0;
        for record in self.records() {
            if record.rtype == rtype::OPT {
                // The records after the OPT have moved up by its length.
                opt_len = record.rdata.end.saturating_sub(record.start);
                continue;
            }
            let at = start.saturating_add(record.ttl_at).saturating_sub(opt_len);
            overwrite(out, at, &rewrite.apply(self.ttl(&record)).to_be_bytes());
        }
    }

    pub(super) fn extended_rcode(&self) -> u8 {
        self.opt.as_ref().map_or(0, |opt| opt.edns.extended_rcode)
    }

    /// The records, in order. They were validated when the answer was parsed.
    pub fn records(&self) -> impl Iterator<Item = Record> + use<'m> {
        self.message.records()
    }

    /// How long the resolver keeps an idle session open, if the OPT says so (RFC 7828 section 3.1).
    pub fn keepalive(&self) -> Option<Duration> {
        const UNIT_MS: u64 = 100;
        let timeout = self
            .options()
            .find(|&(code, _)| code == option::KEEPALIVE)?
            .1;
        let timeout: [u8; 2] = timeout.try_into().ok()?;
        let milliseconds = u64::from(u16::from_be_bytes(timeout)).saturating_mul(UNIT_MS);
        Some(Duration::from_millis(milliseconds))
    }

    /// Whether the message is padded (RFC 7830).
    pub fn is_padded(&self) -> bool {
        self.options().any(|(code, _)| code == option::PADDING)
    }

    pub(super) fn options(&self) -> impl Iterator<Item = (u16, &'m [u8])> + use<'m> {
        let rdata = self
            .opt
            .as_ref()
            .map_or(&[][..], |opt| slice_at(self.message(), opt.rdata.clone()));
        options(rdata).flatten()
    }

    /// The values of the Extended DNS Error options: two octets of INFO-CODE, then EXTRA-TEXT (RFC 8914 section 2).
    pub fn extended_errors(&self) -> impl Iterator<Item = &'m [u8]> + use<'m> {
        self.options()
            .filter(|&(code, _)| code == option::EXTENDED_ERROR)
            .map(|(_, value)| value)
    }

    /// Whether this is an error by decision of the resolver, since DNSSEC validation failed or the name is blocked, and not a failure
    /// to get an answer (RFC 8914 section 4).
    pub fn is_conclusive_error(&self) -> bool {
        let is_error = !matches!(self.rcode(), rcode::NOERROR | rcode::NXDOMAIN);
        let code = |value: &[u8]| u16_at(value, 0).ok();
        is_error
            && self
                .extended_errors()
                .filter_map(code)
                .any(ExtendedError::is_conclusive)
    }

    /// Appends the Extended DNS Errors to the RDATA of an OPT, as far as they fit into the message that begins at `start`.
    pub(super) fn write_extended_errors(&self, out: &mut Vec<u8>, start: usize) {
        for value in self.extended_errors() {
            if has_room(
                out,
                start,
                EDNS_OPTION_HEADER_LEN.saturating_add(value.len()),
                MAX_MESSAGE_LEN,
            ) {
                write_option(out, option::EXTENDED_ERROR, value);
            }
        }
    }

    /// The length in octets of the Extended DNS Error options.
    pub(super) fn extended_errors_len(&self) -> usize {
        self.opt.as_ref().map_or(0, |opt| opt.errors)
    }

    /// The length in octets of the message without its OPT.
    pub(super) fn len_without_opt(&self) -> usize {
        let opt = self.opt.as_ref().map_or(0, |opt| opt.record.len());
        self.message().len().saturating_sub(opt)
    }

    /// The number of additional records without the OPT.
    pub(super) fn arcount_without_opt(&self) -> u16 {
        let [.., additional] = self.header.counts();
        additional.saturating_sub(self.opt.is_some().into())
    }

    /// Appends the message without its OPT. ARCOUNT stays as it is.
    pub(super) fn write_without_opt(&self, out: &mut Vec<u8>) {
        match &self.opt {
            Some(opt) => self.message.write_without_opt(&opt.record, out),
            None => out.extend_from_slice(self.message()),
        }
    }

    /// Whether a compressed name includes octets of a TTL, so that it would change when the TTL is decremented. No usual encoder makes
    /// such a pointer.
    pub(super) fn names_overlap_ttls(&self) -> bool {
        self.message.names_overlap_ttls()
    }
}

/// Whether `message` is a response to `question`: a response to a QUERY with the same name (case-insensitive, RFC 4343), type and
/// class. An error without question, answer and authority records also is, with or without an OPT: RFC 7858 section 3.3 compares
/// the question "if present".
pub fn is_response_to(message: &[u8], question: &[u8]) -> bool {
    let Ok(header) = Header::of(message) else {
        return false;
    };
    if !header.is_response() || header.opcode() != 0 {
        return false;
    }
    match header.counts() {
        [0, 0, 0, 0] => header.rcode() != 0 && message.len() == HEADER_LEN,
        [0, 0, 0, 1] => {
            response_code(message) != 0 && is_opt_alone(slice_from(message, HEADER_LEN))
        }
        [1, ..] => slice_from(message, HEADER_LEN)
            .get(..question.len())
            .is_some_and(|found| same_question(found, question)),
        _ => false,
    }
}

/// The response code of a message that need not be valid; FORMERR if it has no header. The upper bits are taken from the OPT if
/// that is the only record, as in errors.
pub fn response_code(message: &[u8]) -> u16 {
    let Ok(header) = Header::of(message) else {
        return rcode::FORMERR;
    };
    let lower = header.rcode();
    let upper = match header.counts() {
        [0, 0, 0, 1] => message.get(HEADER_LEN.saturating_add(5)).copied(),
        [1, 0, 0, 1] => Answer::parse(message)
            .ok()
            .map(|answer| (answer.rcode() >> 4) as u8),
        _ => None,
    };
    lower | u16::from(upper.unwrap_or_default()) << 4
}

/// Whether `octets` are one OPT record and nothing more.
fn is_opt_alone(octets: &[u8]) -> bool {
    let [high, low] = rtype::OPT.to_be_bytes();
    let length = u16_at(octets, OPT_FIXED_LEN.saturating_sub(2)).map(usize::from);
    octets.starts_with(&[0, high, low])
        && length.is_ok_and(|length| octets.len() == OPT_FIXED_LEN.saturating_add(length))
}

#[cfg(test)]
mod tests {
    use super::{Answer, is_response_to};
    use crate::message::codes::{HEADER_LEN, rtype};
    use crate::message::record::{Record, Section};
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, AUTHORITY, Draft, NS, answer_error, name, option, pointer, question,
        question_for,
    };

    #[test]
    fn the_records_of_an_answer_are_where_they_are_said_to_be() {
        let draft = Draft::answer(&question());
        let start = draft.len();
        let draft = draft
            .record_with(ANSWER, &pointer(HEADER_LEN), A, 1, [0, 0, 0, 5], &[0; 4])
            .record_with(AUTHORITY, &name("com"), NS, 3, [0x80, 0, 0, 1], &[0])
            .opt(&[]);
        let answer = Answer::parse(&draft.0).unwrap();
        let record = |section, start, rtype, class, fixed: usize, length| Record {
            section,
            start,
            rtype,
            class,
            ttl_at: fixed + 4,
            rdata: fixed + 10..fixed + 10 + length,
        };
        let expected = [
            record(Section::Answer, start, A, 1, start + 2, 4),
            record(Section::Authority, start + 16, NS, 3, start + 21, 1),
            record(Section::Additional, start + 32, 41, 4096, start + 33, 0),
        ];
        assert_eq!(answer.records().collect::<Vec<_>>(), expected);
        // Missing records are an error, and their count reserves no memory.
        for (section, count) in [(ANSWER, 65_535), (AUTHORITY, 2), (ADDITIONAL, 3)] {
            let error = answer_error(&draft.clone().count(section, count));
            assert!(error.is_some(), "{section}");
        }
    }

    #[test]
    fn an_answer_is_a_response_to_the_question_that_it_repeats() {
        let asked = question();
        let is_answer = |draft: &Draft| is_response_to(&draft.0, &asked);
        assert!(is_answer(&Draft::answer(&asked)));
        assert!(is_answer(&Draft::answer(&question_for(
            name("WWW.Example.cOM"),
            A
        ))));
        assert!(is_answer(&Draft::answer(&asked).record(1, &[0], A, &[])));
        let other_class = [&name("www.example.com")[..], &[0, 1, 0, 3]].concat();
        for other in [
            question_for(name("www.example.org"), A),
            question_for(name("www.example.co"), A),
            question_for(name("www.example.com.x"), A),
            question_for(name("www.example.com"), NS),
            question_for(name("www.example.com"), 0x2001),
            other_class,
            vec![],
        ] {
            assert!(!is_answer(&Draft::answer(&other)), "{other:?}");
        }
        // Type 65 is no other case of type 97, and bit 0x20 is case in letters alone.
        let types = [65, 97].map(|qtype| question_for(name("www.example.com"), qtype));
        assert!(!is_response_to(&Draft::answer(&types[0]).0, &types[1]));
        assert!(!is_response_to(
            &Draft::answer(&question_for(name("a@b"), A)).0,
            &question_for(name("a`b"), A)
        ));
        assert!(!is_answer(&Draft::query(&asked)));
        assert!(!is_answer(&Draft::new([0xa8, 0], &asked)));
        for count in [0, 2] {
            assert!(!is_answer(&Draft::answer(&asked).count(0, count)));
        }
        for length in 0..Draft::answer(&asked).len() {
            assert!(!is_response_to(&Draft::answer(&asked).0[..length], &asked));
        }
        assert!(!is_response_to(&Draft::answer(&[]).0, &[]));
    }

    #[test]
    fn an_error_without_question_is_a_response_to_any_question() {
        let header = |low| Draft::new([0x80, low], &[]).count(0, 0);
        for code in 1..16 {
            assert!(is_response_to(&header(code).0, &question()));
        }
        assert!(!is_response_to(&header(0).0, &question()));
        assert!(!is_response_to(&header(0x80).0, &question()));
        assert!(!is_response_to(&header(2).octets(&[0]).0, &question()));
        assert!(!is_response_to(&header(2).count(0, 1).0, &question()));
        // The OPT holds an Extended DNS Error, mostly, or the upper bits of the code.
        for options in [&[][..], &[0, 15, 0, 2, 0, 22]] {
            assert!(is_response_to(&header(2).opt(options).0, &question()));
            assert!(!is_response_to(&header(0).opt(options).0, &question()));
            assert!(!is_response_to(
                &header(2).opt(options).octets(&[0]).0,
                &question()
            ));
            assert!(!is_response_to(
                &header(2).opt(options).count(ADDITIONAL, 2).0,
                &question()
            ));
            let whole = header(2).opt(options).0;
            for length in HEADER_LEN..whole.len() {
                assert!(!is_response_to(&whole[..length], &question()), "{length}");
            }
        }
        assert!(!is_response_to(
            &header(2).record(ADDITIONAL, &[0], A, &[]).0,
            &question()
        ));
        assert!(!is_response_to(&Draft::new([0x00, 2], &[]).0, &question()));
    }

    #[test]
    fn the_fields_that_decide_whether_an_answer_is_cacheable_are_read() {
        let read = |draft: &Draft| {
            let answer = Answer::parse(&draft.0).unwrap();
            (
                answer.is_truncated(),
                answer.has_ecs_scope(),
                answer.is_signed(),
            )
        };
        let plain = Draft::answer(&question());
        assert_eq!(read(&plain), (false, false, false));
        let truncated = Draft::new([0x83, 0x80], &question());
        assert_eq!(read(&truncated), (true, false, false));
        let scoped = |scope| plain.clone().opt(&option(8, &[0, 1, 24, scope, 192, 0, 2]));
        assert_eq!(read(&scoped(24)), (false, true, false));
        assert_eq!(read(&scoped(0)), (false, false, false));
        for (rtype, data, signed) in [
            (rtype::TSIG, &b""[..], true),
            (rtype::SIG, b"\0\0", true),
            (rtype::SIG, b"\0\x01", false),
        ] {
            let draft = plain.clone().record(ADDITIONAL, &[0], rtype, data);
            assert_eq!(read(&draft), (false, false, signed));
        }
        let soa = |ttl: u32, minimum: u32| {
            let data = [&[0, 0][..], &[9; 16], &minimum.to_be_bytes()].concat();
            let ttl = ttl.to_be_bytes();
            let draft = plain
                .clone()
                .record_with(AUTHORITY, &[0], rtype::SOA, 1, ttl, &data);
            let answer = Answer::parse(&draft.0).unwrap();
            let record = answer.records().next().unwrap();
            (answer.ttl(&record), answer.negative_ttl(&record))
        };
        assert_eq!(soa(300, 60), (300, 60));
        assert_eq!(soa(60, 300), (60, 60));
        assert_eq!(soa(0x8000_0000, 60), (0, 0));
        assert_eq!(soa(0x7fff_ffff, u32::MAX), (0x7fff_ffff, 0x7fff_ffff));
    }
}
