//! What does a client get back?

use super::answer::{Answer, Ttls};
use super::codes::{HEADER, LONGEST, PLAIN_SIZE, option, rcode};
use super::edns::{
    EDE_HEAD, Edns, ExtendedError, KEEPALIVE_LENGTH, SHORTEST_OPT, write_extended_error, write_opt,
    write_option,
};
use super::header::{Header, clear_bits, put_additional, set_bits};
use super::octets::{has_room, put};
use super::query::Query;
use super::question::same_question;

/// How an answer that was kept is shown, in place of how it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// What its records' TTLs become.
    pub ttls: Ttls,
    /// One more Extended DNS Error, for clients that speak EDNS.
    pub ede: Option<ExtendedError>,
}

/// What of a query its answer must repeat.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'m> {
    /// The client's message ID.
    pub id: u16,
    /// The two octets of the flags of the client's header.
    pub flags: [u8; 2],
    /// The question's octets in the client's spelling; empty where the query's question could not be read.
    pub question: &'m [u8],
    /// What the client's OPT said.
    pub edns: Option<Edns>,
    /// How long its idle connection is kept, in units of 100 ms, to be told if it asked (RFC 7828 section 3.1). None over
    /// UDP.
    pub keepalive: Option<u16>,
}

impl<'m> Asked<'m> {
    /// What an answer to `query` must repeat.
    pub fn by(query: &Query<'m>) -> Self {
        Self {
            id: query.id(),
            flags: query.flags(),
            question: query.question(),
            edns: query.edns().copied(),
            keepalive: None,
        }
    }

    /// What an answer to a message that cannot be read must repeat: its header alone; none for less than a header.
    pub fn by_unreadable(message: &'m [u8]) -> Option<Self> {
        let header = Header::of(message).ok()?;
        Some(Self {
            id: header.id(),
            flags: header.flags(),
            question: &[],
            edns: None,
            keepalive: None,
        })
    }

    /// The most octets that an answer over UDP may have.
    pub fn udp_limit(&self) -> usize {
        self.edns.map_or(PLAIN_SIZE.into(), |edns| edns.limit())
    }

    /// Appends an answer of our own: a response code, no records, and an EDE when the client speaks EDNS.
    pub fn write_reply(&self, out: &mut Vec<u8>, rcode: u16, ede: Option<ExtendedError>) {
        // RA is set: recursion is what a forwarder offers.
        self.write_head(out, 0x80, low_nibble(rcode));
        if let Some(edns) = &self.edns {
            write_opt(out, (rcode >> 4) as u8, edns.dnssec_ok, |out| {
                if let Some(ede) = &ede {
                    write_extended_error(out, ede);
                }
                self.write_keepalive(out);
            });
        }
    }

    /// Appends an answer that brings nothing but the advice to ask over TCP: TC=1 and no records.
    pub fn write_advice(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.write_reply(out, rcode::NOERROR, None);
        set_bits(out, start, [0x02, 0]);
    }

    /// Appends `answer` cut down to what fits any client: TC=1, the question, and an OPT if there was one in the query.
    pub fn write_truncated(&self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        let [high, low] = answer.flags();
        let start = out.len();
        self.write_head(out, low & 0x80, low & 0x0f);
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

    /// A response header with QR=1, the client's ID, opcode, RD and CD, and the question; ARCOUNT says whether an OPT follows.
    fn write_head(&self, out: &mut Vec<u8>, low_flags: u8, rcode: u8) {
        let [high, low] = self.flags;
        let questions = u8::from(!self.question.is_empty());
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&[0x80 | (high & 0x79), low_flags | (low & 0x10) | rcode]);
        out.extend_from_slice(&[0, questions, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())]);
        out.extend_from_slice(self.question);
    }

    /// Appends the resolver's answer as this client shall see it: its ID, its spelling of the name, its RD and CD bits, an
    /// OPT exactly when it sent one (RFC 6891 section 6.1.1), AD only when it asked for it (RFC 6840 section 5.8); every
    /// record octet for octet.
    pub fn write_answer(&self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        self.write_within(out, answer, &Shown::default(), LONGEST);
    }

    /// Appends an answer as [`Asked::write_answer`] does, but for how it is to be shown, and in at most `limit` octets: over
    /// TCP [`LONGEST`], over UDP [`Asked::udp_limit`], which is at least [`PLAIN_SIZE`].
    ///
    /// If the Extended DNS Errors do not all fit, none is written, and TC=1 says so; if the records do not either, what is
    /// written is [`Asked::write_truncated`], and the time that takes does not depend on the length of the answer (RFC 8914
    /// section 3, RFC 2181 section 9). Over TCP, where nobody can ask for more, an OPT or an error of ours that finds no room
    /// is left out without TC=1.
    pub fn write_within(
        &self,
        out: &mut Vec<u8>,
        answer: &Answer<'_>,
        shown: &Shown,
        limit: usize,
    ) {
        if let Some(rcode) = self.rcode_instead(answer) {
            return self.write_reply(out, rcode, None);
        }
        let opt = self.edns.map_or(0, |_| SHORTEST_OPT);
        if limit < LONGEST && answer.length_without_opt().saturating_add(opt) > limit {
            return self.write_truncated(out, answer);
        }
        let start = out.len();
        answer.write_without_opt(out);
        self.write_over_head(out, start);
        let wants_authenticated =
            self.flags[1] & 0x20 != 0 || self.edns.is_some_and(|edns| edns.dnssec_ok);
        if !wants_authenticated || matches!(shown.ttls, Ttls::Passed(_)) {
            clear_bits(out, start, [0, 0x20]);
        }
        if shown.ttls != Ttls::Same {
            answer.write_ttls(out, start, shown.ttls);
        }
        let mut additional = answer.count_without_opt();
        if let Some(edns) = &self.edns
            && has_room(out, start, SHORTEST_OPT, LONGEST)
            && let Some(with_opt) = additional.checked_add(1)
        {
            additional = with_opt;
            write_opt(out, answer.extended_rcode(), edns.dnssec_ok, |out| {
                self.write_options(out, start, answer, shown.ede.as_ref(), limit);
            });
        }
        put_additional(out, start, additional);
    }

    /// The code of the error that this client gets in place of an answer that cannot be its own.
    fn rcode_instead(&self, answer: &Answer<'_>) -> Option<u16> {
        if self.edns.is_none() && answer.extended_rcode() != 0 {
            // Without an OPT the upper bits have no place, and the lower ones alone would say something else.
            Some(rcode::SERVFAIL)
        } else if answer.question().is_empty() {
            // An error without its question: the client still gets its own back.
            Some(answer.rcode())
        } else if !same_question(answer.question(), self.question) {
            // The caller asks `answers` first; an answer to somebody else must not leave even if it forgets.
            Some(rcode::SERVFAIL)
        } else {
            None
        }
    }

    /// Appends the options for the OPT of the message that was begun at `start`: the answer's Extended DNS Errors and one of
    /// ours, or TC=1 in the header if they are not to fit into `limit`; and how long the connection is kept.
    fn write_options(
        &self,
        out: &mut Vec<u8>,
        start: usize,
        answer: &Answer<'_>,
        ede: Option<&ExtendedError>,
        limit: usize,
    ) {
        let ours = ede.map_or(0, |ede| EDE_HEAD.saturating_add(ede.text.len()));
        let errors = answer.errors_length().saturating_add(ours);
        if limit < LONGEST && !has_room(out, start, errors, limit) {
            set_bits(out, start, [0x02, 0]);
        } else {
            answer.write_extended_errors(out, start);
            if let Some(ede) = ede
                && has_room(out, start, ours, LONGEST)
            {
                write_extended_error(out, ede);
            }
        }
        if has_room(out, start, KEEPALIVE_LENGTH, limit.min(LONGEST)) {
            self.write_keepalive(out);
        }
    }

    /// Appends a signed answer: unchanged but for the ID (RFC 8945 section 5.5); or, if it has more than `limit` octets, what
    /// [`Asked::write_truncated`] writes.
    pub fn write_signed_answer(&self, out: &mut Vec<u8>, answer: &Answer<'_>, limit: usize) {
        if answer.message().len() > limit {
            return self.write_truncated(out, answer);
        }
        let start = out.len();
        out.extend_from_slice(answer.message());
        put(out, start, &self.id.to_be_bytes());
    }

    /// Puts the client's ID, RD, CD and spelling into a copy of an answer to its question.
    fn write_over_head(&self, out: &mut [u8], start: usize) {
        let [high, low] = self.flags;
        put(out, start, &self.id.to_be_bytes());
        clear_bits(out, start, [0x01, 0x10]);
        set_bits(out, start, [high & 0x01, low & 0x10]);
        put(out, start.saturating_add(HEADER), self.question);
    }
}

/// The four bits of a response code that the header holds.
fn low_nibble(rcode: u16) -> u8 {
    (rcode & 0x0f) as u8
}

#[cfg(test)]
mod tests;
