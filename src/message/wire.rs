//! What do these octets say?
//!
//! A relay needs positions in a message and byte-exact splices, not a decoded tree: where the question ends, where the
//! OPT record lies, where the TTLs are. This room finds them, refuses what is broken, and writes the few messages that
//! are our own. It does no I/O, reads no clock, and panics on no input.

// Strangers' octets come through here: what could panic or wrap is not written at all.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::fmt;
use std::num::NonZeroU16;

use super::answer::{Answer, Ttls};
use super::codes::{HEADER, LONGEST, PLAIN_SIZE, option, rcode};
use super::edns::{
    EDE_HEAD, Edns, ExtendedError, KEEPALIVE_LENGTH, SHORTEST_OPT, write_extended_error, write_opt,
    write_option,
};
use super::header::{Header, clear_bits, put_additional, set_bits};
use super::key::Key;
use super::octets::{has_room, put, within};
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

/// An answer that outlives the message that it came in: its question in lower case, and of its OPT only what is for
/// clients, at its end.
///
/// Its memory comes in units, so that what leaves makes room for what comes, of whatever length: else the holes between
/// answers would grow with time.
#[derive(Debug)]
pub struct KeptAnswer {
    octets: Vec<u8>,
    question_end: u16,
    /// Where its OPT begins, if it has one.
    opt_at: Option<NonZeroU16>,
}

impl KeptAnswer {
    /// A copy of `answer`; none if it is to another question than the key's, its response code needs an OPT, or its names
    /// would change with its TTLs.
    pub fn new(answer: &Answer<'_>, key: &Key<'_>) -> Option<Self> {
        let question = key.question();
        if !same_question(answer.question(), question)
            || answer.extended_rcode() != 0
            || answer.has_names_in_ttls()
        {
            return None;
        }
        let mut octets = Vec::with_capacity(answer.message().len());
        answer.write_without_opt(&mut octets);
        put(&mut octets, HEADER, question);
        // A copy is not the authority's own word (AA).
        clear_bits(&mut octets, 0, [0x04, 0]);
        let mut additional = answer.count_without_opt();
        let mut opt_at = None;
        if answer.extended_errors().next().is_some()
            && let Some(with_opt) = additional.checked_add(1)
        {
            opt_at = NonZeroU16::new(u16::try_from(octets.len()).ok()?);
            additional = with_opt;
            write_opt(&mut octets, 0, key.dnssec_ok(), |out| {
                answer.write_extended_errors(out, 0);
            });
        }
        put_additional(&mut octets, 0, additional);
        Self::of(&octets, question, opt_at)
    }

    /// SERVFAIL to the question of `key`, without a word on why.
    pub fn servfail(key: &Key<'_>) -> Option<Self> {
        let asked = Asked {
            id: 0,
            flags: [0x01, 0],
            question: key.question(),
            edns: None,
            keepalive: None,
        };
        let mut octets = Vec::new();
        asked.write_reply(&mut octets, rcode::SERVFAIL, None);
        Self::of(&octets, key.question(), None)
    }

    /// What the system's allocator takes for it is a multiple of this, with the length that it puts before it.
    const UNIT: usize = 64;

    fn of(message: &[u8], question: &[u8], opt_at: Option<NonZeroU16>) -> Option<Self> {
        const LENGTH: usize = size_of::<usize>();
        let whole = LENGTH
            .saturating_add(message.len())
            .next_multiple_of(Self::UNIT);
        let mut octets = Vec::with_capacity(whole.saturating_sub(LENGTH));
        octets.extend_from_slice(message);
        Some(Self {
            question_end: u16::try_from(HEADER.saturating_add(question.len())).ok()?,
            opt_at,
            octets,
        })
    }

    /// The question's octets, in lower case.
    pub fn question(&self) -> &[u8] {
        within(&self.octets, HEADER..self.question_end.into())
    }

    /// How many octets it takes, for itself and to fill up its last unit.
    pub fn size(&self) -> usize {
        self.octets.capacity()
    }

    /// The answer. It was sound when it was kept.
    pub fn answer(&self) -> Answer<'_> {
        Answer::of_copy(
            &self.octets,
            self.question_end.into(),
            self.opt_at.map(|at| at.get().into()),
        )
    }
}

/// A question as people write it: name, type number. For log lines at debug only; control octets are escaped.
pub struct Spelled<'m>(
    /// The question's octets: name, type, class.
    pub &'m [u8],
);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest.first() == Some(&0) {
            write!(f, ".")?;
        }
        while let Some((&length @ 1..=63, tail)) = rest.split_first() {
            let (label, tail) = tail
                .split_at_checked(usize::from(length))
                .unwrap_or((tail, &[]));
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b'=' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            write!(f, ".")?;
            rest = tail;
        }
        match rest {
            [0, high, low, ..] => write!(f, "/{}", u16::from_be_bytes([*high, *low])),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, KeptAnswer, Shown, Spelled};
    use crate::message::answer::{Answer, Ttls};
    use crate::message::codes::{HEADER, LONGEST, ede, option, rcode, rtype};
    use crate::message::edns::ExtendedError;
    use crate::message::key::Key;
    use crate::message::octets::u16_at;
    use crate::message::query::Query;
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, AUTHORITY, Draft, NS, UNKNOWN, ask, labels, name, option, our_opt,
        pointer, question, relayed, with_tail, written,
    };

    #[test]
    fn a_reply_of_ours_repeats_id_opcode_rd_cd_and_question() {
        let reply = |query: &Draft, rcode, ede| {
            let query = Query::parse(&query.0).unwrap();
            written(|out| Asked::by(&query).write_reply(out, rcode, ede))
        };
        let question = ask(name("wWw.eXample"), A);
        for (flags, kept) in [
            ([0, 0], [0x80, 0x80]),
            ([0x01, 0x10], [0x81, 0x90]),
            ([0x07, 0xff], [0x81, 0x90]),
        ] {
            let head = [0x12, 0x34, kept[0], kept[1] | 2, 0, 1, 0, 0, 0, 0, 0];
            let query = Draft::new(flags, &question);
            let plain = [&head, &[0][..], &question].concat();
            // No EDE without EDNS (RFC 8914 section 2).
            let network = ExtendedError {
                code: ede::NETWORK_ERROR,
                text: "why",
            };
            for ede in [None, Some(network)] {
                assert_eq!(reply(&query, rcode::SERVFAIL, ede), plain);
            }
            let query = query.opt_saying([0, 0, 0x80, 0], &[]);
            let edns = [&head, &[1][..], &question, &our_opt(0, 0x80, &[])].concat();
            assert_eq!(reply(&query, rcode::SERVFAIL, None), edns);
            let ede = our_opt(0, 0x80, &[0, 15, 0, 5, 0, 23, b'w', b'h', b'y']);
            let explained = [&head, &[1][..], &question, &ede].concat();
            let found = reply(&query, rcode::SERVFAIL, Some(network));
            assert_eq!(found, explained);
        }
        let query = Draft::query(&question).opt_saying([0, 1, 0, 0], &[]);
        let found = reply(&query, rcode::BADVERS, None);
        assert_eq!(found[3], 0x80);
        assert!(found.ends_with(&our_opt(1, 0, &[])));
    }

    #[test]
    fn a_reply_to_what_cannot_be_read_is_a_header() {
        // UPDATE with all flags set.
        let message = [0xab, 0xcd, 0x2f, 0xff, 0, 2, 0, 3, 0, 4, 0, 5, 99];
        let asked = Asked::by_unreadable(&message).unwrap();
        let ede = ExtendedError {
            code: ede::NOT_SUPPORTED,
            text: "",
        };
        let reply = written(|out| asked.write_reply(out, rcode::NOTIMP, Some(ede)));
        assert_eq!(reply, [0xab, 0xcd, 0xa9, 0x94, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_answer_takes_the_id_rd_cd_and_spelling_of_its_query() {
        let record = |draft: Draft| draft.record(ANSWER, &pointer(HEADER), A, &[192, 0, 2, 1]);
        let spelled = ask(name("wWw.eXample.Com"), A);
        for (asked, found, expected) in [
            ([0x00, 0x00], [0x81, 0x80], [0x80, 0x80]),
            ([0x01, 0x10], [0x80, 0x80], [0x81, 0x90]),
            ([0x00, 0x00], [0x81, 0x90], [0x80, 0x80]),
            // AA, TC, RA, Z and the response code are the answer's own.
            ([0x06, 0x4f], [0x86, 0xc3], [0x86, 0xc3]),
            // AD is for who asks for it (RFC 6840 section 5.8).
            ([0x00, 0x20], [0x80, 0xa0], [0x80, 0xa0]),
            ([0x00, 0x20], [0x80, 0x80], [0x80, 0x80]),
            ([0x00, 0x00], [0x80, 0xa0], [0x80, 0x80]),
        ] {
            let query = Draft::new(asked, &spelled);
            let mut answer = record(Draft::new(found, &question()));
            answer.0[..2].copy_from_slice(&[0xff, 0xff]);
            let relayed = relayed(&query, &answer);
            assert_eq!(relayed, record(Draft::new(expected, &spelled)).0);
        }
        // DO asks for it as well.
        let query = Draft::query(&question()).opt_saying([0, 0, 0x80, 0], &[]);
        let answer = record(Draft::new([0x81, 0xa0], &question()));
        assert_eq!(relayed(&query, &answer)[3], 0xa0);
        let query = Draft::query(&question()).opt(&[]);
        assert_eq!(relayed(&query, &answer)[3], 0x80);
    }

    #[test]
    fn an_answer_has_an_opt_exactly_when_its_query_had_one() {
        let plain = Draft::query(&question());
        let edns = plain
            .clone()
            .opt_saying([0, 0, 0x80, 0], &option(10, b"a cookie"));
        let bare = Draft::answer(&question()).record(ANSWER, &pointer(HEADER), A, &[0; 4]);
        let with_ours = |opt: &[u8]| Draft([&bare.0, opt].concat()).count(ADDITIONAL, 1);
        assert_eq!(relayed(&plain, &bare), bare.0);
        assert_eq!(relayed(&edns, &bare), with_ours(&our_opt(0, 0x80, &[])).0);
        // Of the resolver's options only the errors go on, in their order, texts included.
        let errors = [option(15, b"\0\x03stale"), option(15, &[0, 22])];
        let options = [
            option(option::PADDING, &[0; 64]),
            errors[0].clone(),
            option(10, b"a cookie of the resolver"),
            errors[1].clone(),
            option(11, &[0, 100]),
        ];
        let answer = bare.clone().opt_saying([0, 0, 0, 0], &options.concat());
        assert_eq!(relayed(&plain, &answer), bare.0);
        let ours = our_opt(0, 0x80, &errors.concat());
        assert_eq!(relayed(&edns, &answer), with_ours(&ours).0);
    }

    #[test]
    fn an_extended_response_code_becomes_servfail_where_it_cannot_be_said() {
        let bad_cookie = Draft::new([0x81, 0x87], &question()).opt_saying([1, 0, 0, 0], &[]);
        assert_eq!(Answer::parse(&bad_cookie.0).unwrap().rcode(), 23);
        let plain = Draft::query(&question());
        let failure = Draft::new([0x81, 0x82], &question());
        assert_eq!(relayed(&plain, &bad_cookie), failure.0);
        let said = [
            &Draft::new([0x81, 0x87], &question()).count(3, 1).0[..],
            &our_opt(1, 0, &[]),
        ];
        assert_eq!(relayed(&plain.opt(&[]), &bad_cookie), said.concat());
    }

    #[test]
    fn an_error_without_its_question_gets_it_back() {
        let refusal = Draft::new([0x80, 0x05], &[]).count(0, 0);
        let plain = Draft::query(&question());
        let expected = Draft::new([0x81, 0x85], &question());
        assert_eq!(relayed(&plain, &refusal), expected.0);
        let expected = expected.octets(&our_opt(0, 0, &[])).count(ADDITIONAL, 1);
        assert_eq!(relayed(&plain.opt(&[]), &refusal), expected.0);
    }

    #[test]
    fn an_answer_to_another_question_is_not_relayed() {
        let query = Draft::query(&question());
        let failure = Draft::new([0x81, 0x82], &question());
        for other in [
            ask(name("www.example.org"), A),
            ask(vec![0], A),
            ask(name("www.example.com"), NS),
            ask(name("a.much.longer.name.than.www.example.com"), A),
        ] {
            assert_eq!(relayed(&query, &Draft::answer(&other)), failure.0);
        }
    }

    #[test]
    fn no_answer_grows_beyond_what_a_length_can_say() {
        let plain = Draft::query(&question());
        let edns = plain.clone().opt(&[]);
        let filled = |length: usize| {
            let draft = Draft::answer(&question());
            let data = vec![0; length - draft.len() - 11];
            draft.record(ANSWER, &[0], UNKNOWN, &data)
        };
        for (length, expected) in [
            (65_523, 65_534),
            (65_524, 65_535),
            (65_525, 65_525),
            (65_535, 65_535),
        ] {
            let answer = filled(length);
            assert_eq!(relayed(&plain, &answer), answer.0);
            let relayed = relayed(&edns, &answer);
            assert_eq!(relayed.len(), expected);
            let additional = u16::from(length != expected);
            assert_eq!(u16_at(&relayed, 10), Ok(additional));
            assert_eq!(Answer::parse(&relayed).unwrap().message(), relayed);
        }
        // An OPT that fits gives way to one that fits, errors and all.
        let error = option(15, &[0; 100]);
        let answer = filled(65_535 - 11 - error.len()).opt(&error);
        assert_eq!(relayed(&edns, &answer).len(), 65_535);
        assert!(relayed(&edns, &answer).ends_with(&error));
    }

    #[test]
    fn a_truncated_answer_is_a_question_and_an_opt() {
        let record = |draft: Draft| draft.record(ANSWER, &pointer(HEADER), A, &[0; 4]);
        let truncated = |query: &Draft, answer: &Draft| {
            let (query, answer) = (Query::parse(&query.0).unwrap(), Answer::parse(&answer.0));
            written(|out| Asked::by(&query).write_truncated(out, &answer.unwrap()))
        };
        let spelled = ask(name("wWw.eXample.Com"), A);
        for (asked, found, expected) in [
            ([0x01, 0x00], [0x81, 0x80], [0x83, 0x80]),
            ([0x00, 0x10], [0x81, 0x80], [0x82, 0x90]),
            ([0x01, 0x00], [0x85, 0x03], [0x87, 0x03]),
            // A cut answer is authentic to nobody.
            ([0x01, 0x20], [0x81, 0xb0], [0x83, 0x80]),
        ] {
            let query = Draft::new(asked, &spelled);
            let answer = record(Draft::new(found, &question())).opt_saying([1, 0, 0, 0], &[]);
            let plain = Draft::new(expected, &spelled);
            assert_eq!(truncated(&query, &answer), plain.0);
            let opt = plain.octets(&our_opt(1, 0x80, &[])).count(ADDITIONAL, 1);
            let query = query.opt_saying([0, 0, 0x80, 0], &[]);
            assert_eq!(truncated(&query, &answer), opt.0);
        }
    }

    #[test]
    fn an_answer_in_little_room_loses_its_errors_and_then_its_records() {
        let error = option(15, &[0; 30]);
        let ours = ExtendedError {
            code: 3,
            text: "four",
        };
        let without_opt = Draft::answer(&question()).record(ANSWER, &pointer(HEADER), A, &[0; 4]);
        let options = [&option(option::PADDING, &[0; 500]), &error[..]].concat();
        let answer = without_opt.clone().opt(&options);
        let shown = |ede| Shown {
            ede,
            ..Shown::default()
        };
        let (edns, plain) = (
            Draft::query(&question()).opt(&[]),
            Draft::query(&question()),
        );
        let kept = KeptAnswer::new(
            &Answer::parse(&answer.0).unwrap(),
            &Key::new(&question(), false, false),
        );
        let kept = kept.unwrap();
        for answer in [Answer::parse(&answer.0).unwrap(), kept.answer()] {
            let written = |query: &Draft, ede, limit| {
                let query = Query::parse(&query.0).unwrap();
                written(|out| Asked::by(&query).write_within(out, &answer, &shown(ede), limit))
            };
            let truncated = |out: &[u8]| out[2] & 0x02 != 0;
            let bare = without_opt.len() + 11;
            for (ede, errors) in [(None, error.len()), (Some(ours), error.len() + 4 + 2 + 4)] {
                let whole = written(&edns, ede, bare + errors);
                assert_eq!(whole, written(&edns, ede, LONGEST));
                assert_eq!((whole.len(), truncated(&whole)), (bare + errors, false));
                for limit in [bare, bare + 1, bare + errors - 1] {
                    let less = written(&edns, ede, limit);
                    assert_eq!((less.len(), truncated(&less)), (bare, true));
                    assert!(less.ends_with(&our_opt(0, 0, &[])));
                    assert_eq!(u16_at(&less, 6), Ok(1), "the record is there");
                }
                let none = written(&edns, ede, bare - 1);
                assert_eq!((none.len(), truncated(&none)), (edns.len(), true));
                assert_eq!(none[4..12], [0, 1, 0, 0, 0, 0, 0, 1]);
            }
            let whole = written(&plain, Some(ours), without_opt.len());
            assert_eq!(
                (whole.len(), truncated(&whole)),
                (without_opt.len(), false),
                "errors are nothing to who has no OPT"
            );
            let none = written(&plain, Some(ours), without_opt.len() - 1);
            assert_eq!((none.len(), truncated(&none)), (plain.len(), true));
        }
    }

    #[test]
    fn a_signed_answer_is_changed_in_nothing_but_its_id() {
        let query = Draft::query(&ask(name("WWW.example.com"), A)).record(3, &[0], 250, &[]);
        let mut answer = Draft::new([0x80, 0xb0], &question())
            .opt(&option(option::PADDING, &[0; 9]))
            .record(ADDITIONAL, &name("key"), rtype::TSIG, b"mac");
        answer.0[..2].copy_from_slice(&[0xff, 0xff]);
        let (asked, parsed) = (Query::parse(&query.0).unwrap(), Answer::parse(&answer.0));
        let (asked, parsed) = (Asked::by(&asked), parsed.unwrap());
        let within = |limit| written(|out| asked.write_signed_answer(out, &parsed, limit));
        let relayed = within(answer.len());
        assert_eq!(relayed[..2], [0x12, 0x34]);
        assert_eq!(relayed[2..], answer.0[2..]);
        let truncated = written(|out| asked.write_truncated(out, &parsed));
        assert_eq!(within(answer.len() - 1), truncated);
    }

    #[test]
    fn a_question_is_spelled_as_people_write_it() {
        for (question, spelled) in [
            (ask(vec![0], 2), "./2"),
            (
                ask(name("www.Example.com"), 65_535),
                "www.Example.com./65535",
            ),
            (
                ask(labels(&[b"a.b\\\"=", b"\0 \n\x7f\xff"]), 1),
                "a\\.b\\\\\\\"\\=.\\000\\032\\010\\127\\255./1",
            ),
            (vec![], ""),
            (vec![5, b'a'], "a."),
            (vec![1, b'a', 0, 1], "a."),
        ] {
            assert_eq!(Spelled(&question).to_string(), spelled);
        }
    }

    #[test]
    fn a_kept_answer_is_shown_to_each_asker_as_the_first_one_was() {
        let kept = |answer: &Draft| {
            let key = Key::new(&question(), false, false);
            KeptAnswer::new(&Answer::parse(&answer.0).unwrap(), &key).unwrap()
        };
        let spelled = ask(name("wWw.eXample.Com"), A);
        let askers = [
            Draft::query(&question()),
            Draft::new([0x01, 0x20], &spelled),
            Draft::query(&spelled).opt_saying([0, 0, 0x80, 0], &[]),
        ];
        let (error, padding) = (option(15, b"\0\x11x"), option(12, &[0; 40]));
        let records = Draft::new([0x81, 0xa0], &question())
            .record(ANSWER, &pointer(HEADER), A, &[0; 4])
            .record(AUTHORITY, &pointer(HEADER + 4), NS, &pointer(HEADER));
        for answer in [
            records.clone(),
            records.clone().opt(&padding),
            records
                .clone()
                .opt(&[&error[..], &padding, &error].concat()),
            records
                .clone()
                .opt(&[])
                .record(3, &name("tail"), A, &[0; 4]),
            with_tail(true, |draft, tail| {
                draft.record(ADDITIONAL, &pointer(tail), NS, &pointer(tail))
            }),
        ] {
            let kept = kept(&answer);
            assert!(kept.size() < answer.len() + KeptAnswer::UNIT);
            assert_eq!(kept.question(), question());
            for asker in &askers {
                let query = Query::parse(&asker.0).unwrap();
                let again = written(|out| Asked::by(&query).write_answer(out, &kept.answer()));
                assert_eq!(again, relayed(asker, &answer));
            }
        }
        let other = Key::new(&ask(name("www.example.org"), A), false, false);
        let answer = Answer::parse(&records.0).unwrap();
        assert!(KeptAnswer::new(&answer, &other).is_none());
        let extended = records.opt_saying([1, 0, 0, 0], &[]);
        let key = Key::new(&question(), false, false);
        assert!(KeptAnswer::new(&Answer::parse(&extended.0).unwrap(), &key).is_none());
    }

    #[test]
    fn a_kept_error_is_the_code_and_the_question() {
        let key = Key::new(&question(), false, false);
        let kept = KeptAnswer::servfail(&key).unwrap();
        let query = Draft::query(&question());
        let asked = Query::parse(&query.0).unwrap();
        let shown = written(|out| Asked::by(&asked).write_answer(out, &kept.answer()));
        assert_eq!(shown, Draft::new([0x81, 0x82], &question()).0);
    }

    #[test]
    fn ttls_are_counted_in_every_section_and_an_opt_has_none() {
        let ttls = [300_u32, 3, 0x7fff_ffff, 0x8000_0001];
        let answer = |ttls: [u32; 4], extra: &[u8]| {
            let [one, two, three, four] = ttls.map(u32::to_be_bytes);
            Draft::new([0x81, 0xa0], &question())
                .record_saying(ANSWER, &pointer(HEADER), A, 1, one, &[0; 4])
                .record_saying(AUTHORITY, &pointer(HEADER + 4), NS, 1, two, &[0])
                .record_saying(ADDITIONAL, &[0], A, 1, three, &[0; 4])
                .record_saying(ADDITIONAL, &[0], A, 1, four, &[0; 4])
                .octets(extra)
        };
        let opt = our_opt(0, 0x80, &option(15, b"\0\x03"));
        let query = Draft::new([0x01, 0x20], &question()).opt_saying([0, 0, 0x80, 0], &[]);
        let asked = Query::parse(&query.0).unwrap();
        let came = answer(ttls, &[]);
        let came = Answer::parse(&came.0).unwrap();
        for (change, expected) in [
            (Ttls::Same, ttls),
            (Ttls::Counted { most: 1000, age: 2 }, [298, 1, 998, 0]),
            (Ttls::Counted { most: 9, age: 9 }, [0, 0, 0, 0]),
            (Ttls::Passed(30), [30; 4]),
        ] {
            let shown = Shown {
                ttls: change,
                ede: Some(ExtendedError { code: 3, text: "" }),
            };
            let mut expected = answer(expected, &opt).count(ADDITIONAL, 3);
            if change == Ttls::Passed(30) {
                expected.0[3] &= !0x20;
            }
            let found = written(|out| Asked::by(&asked).write_within(out, &came, &shown, LONGEST));
            assert_eq!(found, expected.0, "{change:?}");
            // An OPT before the other records moves them, and only them.
            let middle = our_opt(0, 0, &option(option::PADDING, &[0; 30]));
            let start = came.records().nth(2).unwrap().start;
            let mut moved = came.message().to_vec();
            moved.splice(start..start, middle);
            moved[11] += 1;
            let moved = Answer::parse(&moved).unwrap();
            let found = written(|out| Asked::by(&asked).write_within(out, &moved, &shown, LONGEST));
            assert_eq!(found, expected.0, "{change:?}");
        }
    }

    #[test]
    fn an_answer_whose_names_would_change_with_its_ttls_is_not_kept() {
        let question = question();
        let key = Key::new(&question, false, false);
        let kept = |answer: &Draft| {
            let answer = Answer::parse(&answer.0).expect("it can be read");
            KeptAnswer::new(&answer, &key).is_some()
        };
        let first = Draft::answer(&question).record(ANSWER, &pointer(HEADER), NS, &name("ns.test"));
        let names = first.len() - name("ns.test").len();
        for target in [HEADER, HEADER + 4, names, names + 3] {
            let sound = first
                .clone()
                .record(ADDITIONAL, &pointer(target), A, &[0; 4])
                .record(ADDITIONAL, &pointer(names), NS, &pointer(target));
            assert!(kept(&sound), "{target}");
        }
        // The class and TTL of the first record, 0 1 0 0, as a name: one label that holds an octet, and the root.
        let odd = Draft::answer(&question).record_saying(
            ANSWER,
            &pointer(HEADER),
            A,
            1,
            [0, 0, 1, 44],
            &[0; 4],
        );
        let class = odd.len() - 4 - 2 - 4 - 2;
        for target in [class, class + 1, class + 2, class + 4] {
            let owner = odd.clone().record(ADDITIONAL, &pointer(target), A, &[0; 4]);
            let data = odd.clone().record(ADDITIONAL, &[0], NS, &pointer(target));
            let far = owner
                .clone()
                .record(ADDITIONAL, &pointer(odd.len()), A, &[0; 4]);
            // The first octet of the class is a root, and no part of a TTL.
            assert_eq!(kept(&owner), target == class, "{target}");
            assert_eq!(kept(&data), target == class, "{target}");
            assert_eq!(kept(&far), target == class, "{target}");
        }
        // Both are a root. The longest name that a pointer can end lies where nobody looks for names but who is sent there.
        for target in [class, class + 2] {
            let mut longest = labels(&[&[b'x'; 63], &[b'x'; 63], &[b'x'; 63], &[b'x'; 61]]);
            longest.pop();
            longest.extend_from_slice(&pointer(target));
            let hidden = odd.clone().record(ADDITIONAL, &[0], UNKNOWN, &longest);
            let at = hidden.len() - longest.len();
            let sent = hidden.record(ADDITIONAL, &pointer(at), A, &[0; 4]);
            assert_eq!(kept(&sent), target == class, "{target}");
        }
    }
}
