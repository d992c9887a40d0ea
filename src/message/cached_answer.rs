//! How is an answer kept?

use std::num::NonZeroU16;

use super::answer::Answer;
use super::codes::{HEADER, rcode};
use super::edns::write_opt;
use super::header::{clear_bits, put_additional};
use super::key::Key;
use super::octets::{put, within};
use super::question::same_question;
use super::response::Asked;

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

#[cfg(test)]
mod tests {
    use super::KeptAnswer;
    use crate::message::answer::Answer;
    use crate::message::codes::HEADER;
    use crate::message::key::Key;
    use crate::message::query::Query;
    use crate::message::response::Asked;
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, AUTHORITY, Draft, NS, UNKNOWN, ask, labels, name, option, pointer,
        question, relayed, with_tail, written,
    };

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
