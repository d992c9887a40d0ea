//! What is in a client's query?

use super::codes::{HEADER_LEN, rtype};
use super::edns::Edns;
use super::header::Header;
use super::key::{QuestionKey, flag_if};
use super::octets::{slice_at, u16_at};
use super::parse_error::ParseError;
use super::question::{QTYPE_QCLASS_LEN, question_end};
use super::record::Records;

/// Maximum number of records in a query. A query needs an OPT and a signature at most, and reading a record costs more than sending
/// it.
const MAX_QUERY_RECORDS: u32 = 32;

/// A parsed query that may be relayed: opcode QUERY, one question, valid names, at most one OPT record.
#[derive(Debug, Clone)]
pub struct Query<'m> {
    /// The message, without any octets after its last record.
    message: &'m [u8],
    header: Header,
    question: &'m [u8],
    qtype: u16,
    edns: Option<Edns>,
    signed: bool,
}

impl<'m> Query<'m> {
    /// Parses a client's message.
    ///
    /// Octets after the last record are left out. On [`ParseError::TooShort`] and [`ParseError::UnexpectedQr`] no response may be
    /// sent.
    pub fn parse(message: &'m [u8]) -> Result<Self, ParseError> {
        let header = Header::of(message)?;
        if header.is_response() {
            return Err(ParseError::UnexpectedQr);
        }
        if header.opcode() != 0 {
            return Err(ParseError::Opcode(header.opcode()));
        }
        let question_end = question_end(message)?;
        let qtype = u16_at(message, question_end.saturating_sub(QTYPE_QCLASS_LEN))?;
        // Only IXFR uses one of the two sections (RFC 1995 section 3), and is refused later, as a zone transfer.
        if qtype != rtype::IXFR && !matches!(header.counts(), [_, 0, 0, _]) {
            return Err(ParseError::UnexpectedRecords);
        }
        let [_, answers, authorities, additional] = header.counts();
        let count = [answers, authorities, additional]
            .iter()
            .fold(0_u32, |sum, count| sum.saturating_add((*count).into()));
        if count > MAX_QUERY_RECORDS {
            return Err(ParseError::TooManyRecords(count));
        }
        let mut records = Records::after_question(message, question_end)?;
        let (mut edns, mut signed) = (None, false);
        for record in records.by_ref() {
            let record = record?;
            if signed {
                return Err(ParseError::SignatureNotLast);
            }
            match record.rtype {
                rtype::OPT if edns.is_some() => return Err(ParseError::Opt),
                rtype::OPT => edns = Some(Edns::read(message, &record)?),
                rtype::TSIG => signed = true,
                rtype::SIG => signed = slice_at(message, record.rdata).starts_with(&[0, 0]),
                _ => {}
            }
        }
        Ok(Self {
            message: slice_at(message, 0..records.position()),
            header,
            question: slice_at(message, HEADER_LEN..question_end),
            qtype,
            edns,
            signed,
        })
    }

    /// The message ID.
    pub fn id(&self) -> u16 {
        self.header.id()
    }

    /// The question's octets: name, type, class (RFC 1035 section 4.1.2).
    pub fn question(&self) -> &'m [u8] {
        self.question
    }

    /// The question's type.
    pub fn qtype(&self) -> u16 {
        self.qtype
    }

    /// The question's class.
    pub fn qclass(&self) -> u16 {
        let class = self.question.last_chunk();
        class.map_or(0, |octets| u16::from_be_bytes(*octets))
    }

    /// The OPT record, if there is one.
    pub fn edns(&self) -> Option<&Edns> {
        self.edns.as_ref()
    }

    /// Whether the message has a transaction signature, TSIG or SIG(0), and so must not be changed except for its ID.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// The key by which the query can share an answer with others; none if it cannot. A query can if it asks for recursion (RD), is
    /// not signed, and asks for data: types 128 to 254 are meta types and no data (RFC 6895 section 3.1).
    pub fn key(&self) -> Option<QuestionKey<'static>> {
        let data = matches!(self.qtype(), 1..128 | rtype::ANY..) && self.qtype() != rtype::OPT;
        let [high, low] = self.flags();
        let shared = data && high & 0x01 != 0 && !self.signed;
        let edns_has = |flag: fn(&Edns) -> bool| self.edns.as_ref().is_some_and(flag);
        let bits = flag_if(edns_has(|edns| edns.dnssec_ok), QuestionKey::DNSSEC_OK)
            | flag_if(low & 0x10 != 0, QuestionKey::CHECKING_DISABLED)
            | flag_if(edns_has(|edns| edns.ecs_opt_out), QuestionKey::ECS_OPT_OUT);
        shared.then(|| QuestionKey::with_bits(self.question(), bits))
    }

    /// The message as received, without octets after the last record.
    pub fn message(&self) -> &'m [u8] {
        self.message
    }

    /// The two octets of the header's flags.
    pub fn flags(&self) -> [u8; 2] {
        self.header.flags()
    }
}

#[cfg(test)]
mod tests;
