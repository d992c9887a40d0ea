//! How is a response to a client written?

use super::answer::{Answer, TtlRewrite};
use super::codes::{HEADER_LEN, MAX_MESSAGE_LEN, MIN_UDP_PAYLOAD, option, rcode};
use super::edns::{
    EDE_FIXED_LEN, Edns, ExtendedError, KEEPALIVE_OPTION_LEN, OPT_FIXED_LEN, write_extended_error,
    write_opt, write_option,
};
use super::header::{Header, clear_bits, set_arcount, set_bits};
use super::octets::{has_room, overwrite};
use super::query::Query;
use super::question::same_question;
use super::source::Source;

/// Changes that are made to a cached answer when it is written for a client.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplyOptions {
    /// What becomes of the TTLs of its records.
    pub ttls: TtlRewrite,
    /// An Extended DNS Error to add, if the client sent an OPT record.
    pub ede: Option<ExtendedError>,
}

/// The header fields, the question and the EDNS of a query: what a response to it repeats or depends on.
#[derive(Debug, Clone, Copy)]
pub struct ReplyTo<'m> {
    /// The client's message ID.
    pub id: u16,
    /// The two octets of the flags of the client's header.
    pub flags: [u8; 2],
    /// The question's octets, in the client's case of letters; empty if the query could not be parsed.
    pub question: &'m [u8],
    /// The client's OPT record; none if it sent none.
    pub edns: Option<Edns>,
    /// How long the client's idle connection is kept open, in units of 100 ms; sent only if the client asked for it (RFC 7828
    /// section 3.1). None over UDP.
    pub keepalive: Option<u16>,
    /// Where the answer comes from, if that is known; sent only if the client asked for it.
    pub source: Option<Source>,
}

impl<'m> ReplyTo<'m> {
    /// Takes the fields from `query`, without a keepalive timeout.
    pub fn from_query(query: &Query<'m>) -> Self {
        Self {
            id: query.id(),
            flags: query.flags(),
            question: query.question(),
            edns: query.edns().copied(),
            keepalive: None,
            source: None,
        }
    }

    /// Takes the fields from the header of a message that cannot be parsed. None if the message is shorter than a header.
    pub fn from_malformed(message: &'m [u8]) -> Option<Self> {
        let header = Header::of(message).ok()?;
        Some(Self {
            id: header.id(),
            flags: header.flags(),
            question: &[],
            edns: None,
            keepalive: None,
            source: None,
        })
    }

    /// The maximum length of a response over UDP, in octets: what the client's OPT offers, from 512 to 1232; 512 without EDNS.
    pub fn udp_payload_limit(&self) -> usize {
        self.edns
            .map_or(MIN_UDP_PAYLOAD.into(), |edns| edns.udp_payload_limit())
    }

    /// Appends a response without records: a response code, the question and, if the client sent an OPT, an OPT with `ede`.
    pub fn write_empty_response(&self, out: &mut Vec<u8>, rcode: u16, ede: Option<ExtendedError>) {
        let start = out.len();
        // RA is set: recursion is what a forwarder offers.
        self.write_header_and_question(out, 0x80, header_rcode(rcode));
        if let Some(edns) = &self.edns {
            write_opt(out, (rcode >> 4) as u8, edns.dnssec_ok, |out| {
                if let Some(ede) = &ede {
                    write_extended_error(out, ede);
                }
                self.write_keepalive(out);
                // As if the client accepted no longer one, so that all of these have the same limit.
                self.write_source(out, start, MIN_UDP_PAYLOAD.into());
            });
        }
    }

    /// Appends an empty response with TC=1, which tells the client to retry over TCP.
    pub fn write_empty_tc(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_empty_response(out, rcode::NOERROR, None);
        set_bits(out, start, [0x02, 0]);
    }

    /// Appends `answer` without its records, with TC=1: header, question, and an OPT if the query had one. Fits any client.
    pub fn write_truncated(&self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        let [high, low] = answer.flags();
        let start = out.len();
        self.write_header_and_question(out, low & 0x80, low & 0x0f);
        set_bits(out, start, [0x02 | (high & 0x04), 0]);
        if let Some(edns) = &self.edns {
            write_opt(out, answer.extended_rcode(), edns.dnssec_ok, |_| {});
        }
    }

    fn write_keepalive(&self, out: &mut Vec<u8>) {
        if let (
            Some(keepalive),
            Some(Edns {
                keepalive: true, ..
            }),
        ) = (self.keepalive, self.edns)
        {
            write_option(out, option::KEEPALIVE, &keepalive.to_be_bytes());
        }
    }

    /// Whether the answer's source is to be named.
    pub fn names_source(&self) -> bool {
        self.source.is_some() && self.edns.is_some_and(|edns| edns.source)
    }

    /// Names the answer's source if the client asked for it, as far as the message that begins at `start` then has at most `limit` octets.
    fn write_source(&self, out: &mut Vec<u8>, start: usize, limit: usize) {
        if let Some(source) = self.source
            && self.names_source()
        {
            source.write(out, start, self.question, limit);
        }
    }

    /// Appends a header with QR=1 and the client's ID, opcode, RD and CD, and the question. ARCOUNT is 1 if the query had an OPT,
    /// since one follows then.
    fn write_header_and_question(&self, out: &mut Vec<u8>, low_flags: u8, rcode: u8) {
        let [high, low] = self.flags;
        let questions = u8::from(!self.question.is_empty());
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&[0x80 | (high & 0x79), low_flags | (low & 0x10) | rcode]);
        out.extend_from_slice(&[0, questions, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend_from_slice(self.question);
    }

    /// Appends the resolver's answer for this client: with the client's ID, case of the name, RD and CD bits; with an OPT only if
    /// the query had one (RFC 6891 section 6.1.1); with AD only if the query asked for it (RFC 6840 section 5.8). All other
    /// records are copied unchanged.
    pub fn write_answer(&self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        self.write_answer_with(out, answer, &ReplyOptions::default(), MAX_MESSAGE_LEN);
    }

    /// Appends an answer as [`ReplyTo::write_answer`] does, changed by `options`, in at most `limit` octets: over TCP
    /// [`MAX_MESSAGE_LEN`], over UDP [`ReplyTo::udp_payload_limit`], which is at least [`MIN_UDP_PAYLOAD`].
    ///
    /// If the Extended DNS Errors do not all fit, none is written and TC is set (RFC 8914 section 3). If the records do not fit
    /// either, [`ReplyTo::write_truncated`] is used instead (RFC 2181 section 9), in a time that does not depend on the length of
    /// the answer. Over TCP, where the client cannot retry for more, an OPT or error that does not fit is left out without TC.
    pub fn write_answer_with(
        &self,
        out: &mut Vec<u8>,
        answer: &Answer<'_>,
        options: &ReplyOptions,
        limit: usize,
    ) {
        if let Some(rcode) = self.replacement_rcode(answer) {
            return self.write_empty_response(out, rcode, None);
        }
        let opt = self.edns.map_or(0, |_| OPT_FIXED_LEN);
        if limit < MAX_MESSAGE_LEN && answer.len_without_opt().saturating_add(opt) > limit {
            return self.write_truncated(out, answer);
        }
        let start = out.len();
        answer.write_without_opt(out);
        self.patch_header(out, start);
        let wants_ad = self.flags[1] & 0x20 != 0 || self.edns.is_some_and(|edns| edns.dnssec_ok);
        if !wants_ad || matches!(options.ttls, TtlRewrite::Fixed(_)) {
            clear_bits(out, start, [0, 0x20]);
        }
        if options.ttls != TtlRewrite::Unchanged {
            answer.write_ttls(out, start, options.ttls);
        }
        let mut additional = answer.arcount_without_opt();
        if let Some(edns) = &self.edns
            && has_room(out, start, OPT_FIXED_LEN, MAX_MESSAGE_LEN)
            && let Some(with_opt) = additional.checked_add(1)
        {
            additional = with_opt;
            write_opt(out, answer.extended_rcode(), edns.dnssec_ok, |out| {
                self.write_options(out, start, answer, options.ede.as_ref(), limit);
            });
        }
        set_arcount(out, start, additional);
    }

    /// The response code to send instead of an answer that this client cannot be sent; none if it can.
    fn replacement_rcode(&self, answer: &Answer<'_>) -> Option<u16> {
        if self.edns.is_none() && answer.extended_rcode() != 0 {
            // Without an OPT there is no room for the upper bits, and the lower ones alone are another code.
            Some(rcode::SERVFAIL)
        } else if answer.question().is_empty() {
            // The resolver's error has no question: the client's own is put back.
            Some(answer.rcode())
        } else if !same_question(answer.question(), self.question) {
            // The caller checks `is_response_to` first. An answer to another question must not be sent even if it does not.
            Some(rcode::SERVFAIL)
        } else {
            None
        }
    }

    /// Appends the options of the OPT of the message that begins at `start`: the answer's Extended DNS Errors and `ede`, or sets
    /// TC in the header if they do not fit into `limit`; then the keepalive timeout and the answer's source if they fit.
    fn write_options(
        &self,
        out: &mut Vec<u8>,
        start: usize,
        answer: &Answer<'_>,
        ede: Option<&ExtendedError>,
        limit: usize,
    ) {
        let ours = ede.map_or(0, |ede| EDE_FIXED_LEN.saturating_add(ede.text.len()));
        let errors = answer.extended_errors_len().saturating_add(ours);
        if limit < MAX_MESSAGE_LEN && !has_room(out, start, errors, limit) {
            set_bits(out, start, [0x02, 0]);
        } else {
            answer.write_extended_errors(out, start);
            if let Some(ede) = ede
                && has_room(out, start, ours, MAX_MESSAGE_LEN)
            {
                write_extended_error(out, ede);
            }
        }
        let limit = limit.min(MAX_MESSAGE_LEN);
        if has_room(out, start, KEEPALIVE_OPTION_LEN, limit) {
            self.write_keepalive(out);
        }
        self.write_source(out, start, limit);
    }

    /// Appends an answer with a TSIG or SIG(0) unchanged except for the ID (RFC 8945 section 5.5). If it is longer than `limit`
    /// octets, [`ReplyTo::write_truncated`] is used instead.
    pub fn write_verbatim(&self, out: &mut Vec<u8>, answer: &Answer<'_>, limit: usize) {
        if answer.message().len() > limit {
            return self.write_truncated(out, answer);
        }
        let start = out.len();
        out.extend_from_slice(answer.message());
        overwrite(out, start, &self.id.to_be_bytes());
    }

    /// Overwrites ID, RD, CD and question of a copied answer with the client's.
    fn patch_header(&self, out: &mut [u8], start: usize) {
        let [high, low] = self.flags;
        overwrite(out, start, &self.id.to_be_bytes());
        clear_bits(out, start, [0x01, 0x10]);
        set_bits(out, start, [high & 0x01, low & 0x10]);
        overwrite(out, start.saturating_add(HEADER_LEN), self.question);
    }
}

/// The lower four bits of a response code, which the header holds.
fn header_rcode(rcode: u16) -> u8 {
    (rcode & 0x0f) as u8
}

#[cfg(test)]
mod tests;
