//! How is an answer stored in the cache?

use std::num::NonZeroU16;

use super::answer::Answer;
use super::codes::{HEADER_LEN, rcode};
use super::edns::write_opt;
use super::header::{clear_bits, set_arcount};
use super::key::QuestionKey;
use super::octets::{overwrite, slice_at};
use super::question::same_question;
use super::response::ReplyTo;

/// A copy of an answer for the cache. Its question is in lower case. Its OPT record, if it has one, is the last record and
/// holds only Extended DNS Errors.
///
/// Allocations are rounded up to a multiple of 64 octets, so that the memory of an evicted answer fits the next one: otherwise
/// the heap would fragment over time.
#[derive(Debug)]
pub struct CachedAnswer {
    octets: Vec<u8>,
    question_end: u16,
    /// Position of the OPT record, if there is one.
    opt_at: Option<NonZeroU16>,
}

impl CachedAnswer {
    /// Copies `answer`. Returns none if the answer is to another question than that of `key`, if its response code does not fit
    /// into the header, or if a name includes octets of a TTL.
    pub fn new(answer: &Answer<'_>, key: &QuestionKey<'_>) -> Option<Self> {
        let question = key.question();
        if !same_question(answer.question(), question)
            || answer.extended_rcode() != 0
            || answer.names_overlap_ttls()
        {
            return None;
        }
        let mut octets = Vec::with_capacity(answer.message().len());
        answer.write_without_opt(&mut octets);
        overwrite(&mut octets, HEADER_LEN, question);
        // A cached answer is not authoritative (AA).
        clear_bits(&mut octets, 0, [0x04, 0]);
        let mut additional = answer.arcount_without_opt();
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
        set_arcount(&mut octets, 0, additional);
        Self::from_octets(&octets, question, opt_at)
    }

    /// A SERVFAIL response to the question of `key`, without an Extended DNS Error.
    pub fn servfail(key: &QuestionKey<'_>) -> Option<Self> {
        Self::error(key, rcode::SERVFAIL)
    }

    /// A REFUSED response to the question of `key`, without an Extended DNS Error.
    pub fn refused(key: &QuestionKey<'_>) -> Option<Self> {
        Self::error(key, rcode::REFUSED)
    }

    fn error(key: &QuestionKey<'_>, rcode: u16) -> Option<Self> {
        let reply_to = ReplyTo {
            id: 0,
            flags: [0x01, 0],
            question: key.question(),
            edns: None,
            keepalive: None,
            source: None,
        };
        let mut octets = Vec::new();
        reply_to.write_empty_response(&mut octets, rcode, None);
        Self::from_octets(&octets, key.question(), None)
    }

    /// The system's allocator takes a multiple of this many octets, its own header included.
    const ALLOCATION_UNIT: usize = 64;

    fn from_octets(message: &[u8], question: &[u8], opt_at: Option<NonZeroU16>) -> Option<Self> {
        const ALLOCATOR_HEADER_LEN: usize = size_of::<usize>();
        let whole = ALLOCATOR_HEADER_LEN
            .saturating_add(message.len())
            .next_multiple_of(Self::ALLOCATION_UNIT);
        let mut octets = Vec::with_capacity(whole.saturating_sub(ALLOCATOR_HEADER_LEN));
        octets.extend_from_slice(message);
        Some(Self {
            question_end: u16::try_from(HEADER_LEN.saturating_add(question.len())).ok()?,
            opt_at,
            octets,
        })
    }

    /// The question's octets, in lower case.
    pub fn question(&self) -> &[u8] {
        slice_at(&self.octets, HEADER_LEN..self.question_end.into())
    }

    /// The allocated octets: the message, and what rounding up to the allocator's unit adds.
    pub fn size(&self) -> usize {
        self.octets.capacity()
    }

    /// The answer. It was validated before it was copied, and is not validated again.
    pub fn answer(&self) -> Answer<'_> {
        Answer::from_cached_copy(
            &self.octets,
            self.question_end.into(),
            self.opt_at.map(|at| at.get().into()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::CachedAnswer;
    use crate::message::answer::Answer;
    use crate::message::codes::HEADER_LEN;
    use crate::message::key::QuestionKey;
    use crate::message::query::Query;
    use crate::message::response::ReplyTo;
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, AUTHORITY, Draft, NS, UNKNOWN, labels, name, option, pointer,
        question, question_for, relayed, with_tail, written,
    };

    #[test]
    fn a_cached_answer_is_written_for_each_client_as_the_first_one_was() {
        let cached = |answer: &Draft| {
            let key = QuestionKey::new(&question(), false, false);
            CachedAnswer::new(&Answer::parse(&answer.0).unwrap(), &key).unwrap()
        };
        let mixed_case = question_for(name("wWw.eXample.Com"), A);
        let clients = [
            Draft::query(&question()),
            Draft::new([0x01, 0x20], &mixed_case),
            Draft::query(&mixed_case).opt_with([0, 0, 0x80, 0], &[]),
        ];
        let (error, padding) = (option(15, b"\0\x11x"), option(12, &[0; 40]));
        let records = Draft::new([0x81, 0xa0], &question())
            .record(ANSWER, &pointer(HEADER_LEN), A, &[0; 4])
            .record(
                AUTHORITY,
                &pointer(HEADER_LEN + 4),
                NS,
                &pointer(HEADER_LEN),
            );
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
            let cached = cached(&answer);
            assert!(cached.size() < answer.len() + CachedAnswer::ALLOCATION_UNIT);
            assert_eq!(cached.question(), question());
            for client in &clients {
                let query = Query::parse(&client.0).unwrap();
                let again =
                    written(|out| ReplyTo::from_query(&query).write_answer(out, &cached.answer()));
                assert_eq!(again, relayed(client, &answer));
            }
        }
        let other = QuestionKey::new(&question_for(name("www.example.org"), A), false, false);
        let answer = Answer::parse(&records.0).unwrap();
        assert!(CachedAnswer::new(&answer, &other).is_none());
        let extended = records.opt_with([1, 0, 0, 0], &[]);
        let key = QuestionKey::new(&question(), false, false);
        assert!(CachedAnswer::new(&Answer::parse(&extended.0).unwrap(), &key).is_none());
    }

    #[test]
    fn a_cached_error_is_the_code_and_the_question() {
        let key = QuestionKey::new(&question(), false, false);
        let cached = CachedAnswer::servfail(&key).unwrap();
        let query = Draft::query(&question());
        let asked = Query::parse(&query.0).unwrap();
        let shown = written(|out| ReplyTo::from_query(&asked).write_answer(out, &cached.answer()));
        assert_eq!(shown, Draft::new([0x81, 0x82], &question()).0);
    }

    #[test]
    fn an_answer_whose_names_overlap_its_ttls_is_not_cacheable() {
        let question = question();
        let key = QuestionKey::new(&question, false, false);
        let cached = |answer: &Draft| {
            let answer = Answer::parse(&answer.0).expect("it can be read");
            CachedAnswer::new(&answer, &key).is_some()
        };
        let first =
            Draft::answer(&question).record(ANSWER, &pointer(HEADER_LEN), NS, &name("ns.test"));
        let names = first.len() - name("ns.test").len();
        for target in [HEADER_LEN, HEADER_LEN + 4, names, names + 3] {
            let sound = first
                .clone()
                .record(ADDITIONAL, &pointer(target), A, &[0; 4])
                .record(ADDITIONAL, &pointer(names), NS, &pointer(target));
            assert!(cached(&sound), "{target}");
        }
        // The class and TTL of the first record, 0 1 0 0, as a name: one label that holds an octet, and the root.
        let odd = Draft::answer(&question).record_with(
            ANSWER,
            &pointer(HEADER_LEN),
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
            assert_eq!(cached(&owner), target == class, "{target}");
            assert_eq!(cached(&data), target == class, "{target}");
            assert_eq!(cached(&far), target == class, "{target}");
        }
        // Both targets are a root label. The longest name that a pointer can end lies in RDATA that holds no names, so that
        // only a pointer leads to it.
        for target in [class, class + 2] {
            let mut longest = labels(&[&[b'x'; 63], &[b'x'; 63], &[b'x'; 63], &[b'x'; 61]]);
            longest.pop();
            longest.extend_from_slice(&pointer(target));
            let hidden = odd.clone().record(ADDITIONAL, &[0], UNKNOWN, &longest);
            let at = hidden.len() - longest.len();
            let sent = hidden.record(ADDITIONAL, &pointer(at), A, &[0; 4]);
            assert_eq!(cached(&sent), target == class, "{target}");
        }
    }
}
