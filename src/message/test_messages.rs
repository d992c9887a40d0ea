//! How do the tests of this folder put messages together?
//!
//! As octets and by hand, so that they do not believe the code that they test.

use super::answer::Answer;
use super::codes::{HEADER_LEN, option, rtype};
use super::edns::write_option;
use super::octets::u16_at;
use super::parse_error::ParseError;
use super::query::Query;
use super::response::ReplyTo;

pub(super) const ANSWER: usize = 1;
pub(super) const AUTHORITY: usize = 2;
pub(super) const ADDITIONAL: usize = 3;
pub(super) const A: u16 = 1;
pub(super) const NS: u16 = 2;
/// A type of no meaning, in whose RDATA nothing is a name.
pub(super) const UNKNOWN: u16 = 65_280;

/// A message in the making. Records are added section by section, and their counts follow.
#[derive(Clone)]
pub(super) struct Draft(pub(super) Vec<u8>);

impl Draft {
    pub(super) fn new(flags: [u8; 2], question: &[u8]) -> Self {
        let [high, low] = flags;
        let header = [0x12, 0x34, high, low, 0, 1, 0, 0, 0, 0, 0, 0];
        Self([&header, question].concat())
    }

    /// A query with RD set.
    pub(super) fn query(question: &[u8]) -> Self {
        Self::new([0x01, 0], question)
    }

    /// An answer with RD and RA set.
    pub(super) fn answer(question: &[u8]) -> Self {
        Self::new([0x81, 0x80], question)
    }

    pub(super) fn count(mut self, section: usize, count: u16) -> Self {
        self.0[4 + 2 * section..6 + 2 * section].copy_from_slice(&count.to_be_bytes());
        self
    }

    pub(super) fn octets(mut self, octets: &[u8]) -> Self {
        self.0.extend_from_slice(octets);
        self
    }

    /// A record of class IN with a TTL of 300 seconds.
    pub(super) fn record(self, section: usize, owner: &[u8], rtype: u16, data: &[u8]) -> Self {
        self.record_with(section, owner, rtype, 1, [0, 0, 1, 44], data)
    }

    pub(super) fn record_with(
        self,
        section: usize,
        owner: &[u8],
        rtype: u16,
        class: u16,
        ttl: [u8; 4],
        data: &[u8],
    ) -> Self {
        let count = u16_at(&self.0, 4 + 2 * section).unwrap() + 1;
        self.count(section, count)
            .octets(owner)
            .octets(&rtype.to_be_bytes())
            .octets(&class.to_be_bytes())
            .octets(&ttl)
            .octets(&(data.len() as u16).to_be_bytes())
            .octets(data)
    }

    /// An OPT that offers 4096 octets.
    pub(super) fn opt(self, options: &[u8]) -> Self {
        self.opt_with([0; 4], options)
    }

    /// An OPT with these upper bits of the response code, version and flags.
    pub(super) fn opt_with(self, ttl: [u8; 4], options: &[u8]) -> Self {
        self.record_with(ADDITIONAL, &[0], rtype::OPT, 4096, ttl, options)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A name from its labels.
pub(super) fn labels(labels: &[&[u8]]) -> Vec<u8> {
    let mut name = Vec::new();
    for label in labels {
        name.push(label.len() as u8);
        name.extend_from_slice(label);
    }
    name.push(0);
    name
}

pub(super) fn name(dotted: &str) -> Vec<u8> {
    labels(&dotted.split('.').map(str::as_bytes).collect::<Vec<_>>())
}

/// A question of class IN.
pub(super) fn question_for(mut name: Vec<u8>, qtype: u16) -> Vec<u8> {
    name.extend_from_slice(&qtype.to_be_bytes());
    name.extend_from_slice(&[0, 1]);
    name
}

pub(super) fn question() -> Vec<u8> {
    question_for(name("www.example.com"), A)
}

/// An option of an OPT.
pub(super) fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_option(&mut out, code, value);
    out
}

pub(super) fn pointer(target: usize) -> [u8; 2] {
    (0xc000 | u16::try_from(target).unwrap()).to_be_bytes()
}

pub(super) fn query_error(draft: &Draft) -> Option<ParseError> {
    Query::parse(&draft.0).err()
}

pub(super) fn answer_error(draft: &Draft) -> Option<ParseError> {
    Answer::parse(&draft.0).err()
}

/// The octets that `write` appends. Others precede them, as a length prefix or another message of a batch would.
pub(super) fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    write(&mut out);
    out.split_off(b"before".len())
}

pub(super) fn upstream_query(query: &Draft) -> Vec<u8> {
    written(|out| Query::parse(&query.0).unwrap().write_upstream_query(out))
}

pub(super) fn relayed(query: &Draft, answer: &Draft) -> Vec<u8> {
    let (query, answer) = (Query::parse(&query.0).unwrap(), Answer::parse(&answer.0));
    written(|out| ReplyTo::from_query(&query).write_answer(out, &answer.unwrap()))
}

/// The OPT that we send.
pub(super) fn our_opt(extended_rcode: u8, flags: u8, options: &[u8]) -> Vec<u8> {
    let length = (options.len() as u16).to_be_bytes();
    let head = [0, 0, 41, 4, 208, extended_rcode, 0, flags, 0];
    [&head, &length[..], options].concat()
}

/// An answer whose additional section begins with an OPT, or would, and goes on with a name, with `record` and with a
/// record that has no name but looks like it. `record` is given where the name is.
pub(super) fn with_tail(opt: bool, record: impl Fn(Draft, usize) -> Draft) -> Draft {
    let mut draft = Draft::answer(&question());
    if opt {
        draft = draft.opt(&option(option::PADDING, &[0; 17]));
    }
    let tail = draft.len();
    let owner = [&b"\x04tail"[..], &pointer(HEADER_LEN + 4)].concat();
    let draft = record(draft.record(ADDITIONAL, &owner, A, &[0xc0; 4]), tail);
    draft.record(ADDITIONAL, &pointer(tail + 5), UNKNOWN, &[0xff; 8])
}
