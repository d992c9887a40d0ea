//! `message` against the `domain` crate, which reads and writes messages and zone files by code of its own.
//!
//! Sound messages must mean the same to both, broken ones must be refused by both, and each difference is an
//! [`Exception`] with a reason. Whatever octets come, nothing panics, and what `message` writes is sound.
//! Not tested here: what single rules say of single octets; that is beside the rules, in `message` itself.

use std::time::{Duration, Instant};

use dns_tool::message::presentation::RecordLine;
use dns_tool::message::{
    self, Answer, CachedAnswer, Edns, ExtendedError, MAX_MESSAGE_LEN, ParseError, Query,
    QuestionPresentation, Record, ReplyOptions, ReplyTo, Source, TtlRewrite,
};
use domain::base::iana::{Class, OptRcode, OptionCode, Rtype};
use domain::base::message_builder::{OptBuilder, TreeCompressor};
use domain::base::name::{FlattenInto, Name, ParsedName, ToName};
use domain::base::opt::{ClientSubnet, OptRecord};
use domain::base::rdata::{ComposeRecordData, ParseAnyRecordData};
use domain::base::{Message, MessageBuilder, Question, Ttl};
use domain::dep::octseq::Parser;
use domain::rdata::AllRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

// ---- Reading with domain ----

/// A message as domain reads it.
struct Reading {
    question_end: usize,
    records: Vec<Seen>,
}

/// A record as domain reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    start: usize,
    end: usize,
    length: usize,
    content: Content,
}

/// What a record says wherever it stands: names are spelled out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    section: message::Section,
    owner: Vec<u8>,
    rtype: u16,
    class: u16,
    ttl: u32,
    /// `None` if the RDATA is not what its type has.
    data: Option<Vec<u8>>,
}

impl Content {
    fn to_lowercase(&self) -> Self {
        Self {
            owner: self.owner.to_ascii_lowercase(),
            data: self.data.as_ref().map(|data| data.to_ascii_lowercase()),
            ..self.clone()
        }
    }
}

/// Reads questions, the frames of records, and the options of OPTs. `None` is domain's refusal.
fn read(octets: &[u8]) -> Option<Reading> {
    let message = Message::from_slice(octets).ok()?;
    let mut questions = message.question();
    for question in questions.by_ref() {
        question.ok()?;
    }
    let question_end = questions.pos();
    let (mut records, mut rest) = (Vec::new(), Some(questions.answer().ok()?));
    for section in [
        message::Section::Answer,
        message::Section::Authority,
        message::Section::Additional,
    ] {
        let mut found = rest?;
        loop {
            let start = found.pos();
            let Some(record) = found.next() else { break };
            let record = record.ok()?;
            let data = record
                .to_any_record::<AllRecordData<_, ParsedName<_>>>()
                .ok()
                .map(|record| {
                    let mut data = Vec::new();
                    let Ok(()) = record.data().compose_rdata(&mut data);
                    data
                });
            if record.rtype() == Rtype::OPT && data.is_none() {
                return None;
            }
            records.push(Seen {
                start,
                end: found.pos(),
                length: record.rdlen().into(),
                content: Content {
                    section,
                    owner: record.owner().to_vec().into_octets(),
                    rtype: record.rtype().to_int(),
                    class: record.class().to_int(),
                    ttl: record.ttl().as_secs(),
                    data,
                },
            });
        }
        rest = found.next_section().ok()?;
    }
    Some(Reading {
        question_end,
        records,
    })
}

impl Reading {
    fn opts(&self) -> impl Iterator<Item = &Seen> {
        self.records
            .iter()
            .filter(|seen| seen.content.rtype == message::rtype::OPT)
    }

    /// What the records but the OPT say.
    fn contents(&self) -> Vec<Content> {
        self.records
            .iter()
            .map(|seen| seen.content.clone())
            .filter(|content| content.rtype != message::rtype::OPT)
            .collect()
    }
}

/// What a line of a zone file says. `None` is domain's refusal.
fn read_line(line: &str, section: message::Section) -> Option<Content> {
    let mut file = Zonefile::from(&format!("{line}\n")[..]).allow_invalid();
    let Ok(Some(Entry::Record(record))) = file.next_entry() else {
        return None;
    };
    let mut data = Vec::new();
    let Ok(()) = record.data().compose_rdata(&mut data);
    matches!(file.next_entry(), Ok(None)).then(|| Content {
        section,
        owner: record.owner().to_vec().into_octets(),
        rtype: record.rtype().to_int(),
        class: record.class().to_int(),
        ttl: record.ttl().as_secs(),
        data: Some(data),
    })
}

/// Asserts that ours and domain's OPT say the same.
fn assert_same_edns(octets: &[u8], ours: Option<&Edns>) {
    let message = Message::from_slice(octets).unwrap();
    let theirs = message.opt();
    assert_eq!(ours.is_some(), theirs.is_some());
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        assert_eq!(ours.udp_payload_size, theirs.udp_payload_size());
        assert_eq!(ours.version, theirs.version());
        assert_eq!(ours.dnssec_ok, theirs.dnssec_ok());
        let rcode = theirs.rcode(message.header()).to_int();
        assert_eq!(u16::from(ours.extended_rcode), rcode >> 4);
    }
}

/// Asserts that ours and domain's records lie at the same places.
fn assert_same_records(octets: &[u8], ours: impl Iterator<Item = Record>, theirs: &[Seen]) {
    let ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.start, theirs.start);
        assert_eq!(ours.rdata.end, theirs.end);
        assert_eq!(ours.rdata.len(), theirs.length);
        assert_eq!(ours.section, theirs.content.section);
        assert_eq!(ours.rtype, theirs.content.rtype);
        assert_eq!(ours.class, theirs.content.class);
        let ttl = octets[ours.ttl_at..ours.ttl_at + 4].try_into().unwrap();
        assert_eq!(u32::from_be_bytes(ttl), theirs.content.ttl);
    }
}

// ---- Where ours and domain differ ----

/// A reason to refuse what domain reads. There is no reason to read what domain refuses.
#[derive(Debug)]
#[allow(dead_code)] // The variants are there to be named.
enum Exception {
    /// domain reads messages of both directions, a relay knows which one is due.
    Direction,
    /// domain reads all operations, a relay passes QUERY alone.
    Operation,
    /// domain reads any number of questions (RFC 9619 section 4: one).
    Questions,
    /// domain reads records wherever they are; those of a query are in its additional section.
    QuerySections,
    /// domain reads any number of records; a query has few.
    ManyRecords,
    /// domain takes the first of many OPTs (RFC 6891 section 6.1.1: one).
    ManyOpts,
    /// domain ignores an OPT outside of the additional section (RFC 6891 section 6.1.1).
    OptSection,
    /// domain ignores the owner of an OPT (RFC 6891 section 6.1.2: the root).
    OptOwner,
    /// domain leaves signatures to whoever checks them (RFC 8945 section 5.1: the last record).
    SignatureNotLast,
    /// domain wants a pointer to lead to before itself; we want it to lead to a prior name (RFC 1035 section 4.1.4).
    Pointer(PointerException),
    /// domain never takes an OPT out from between records. Where it is not the last one, we refuse names behind it that
    /// would read otherwise without it, and broken names in RDATA behind it, which domain reads when it is asked to.
    OptNotLast,
}

#[derive(Debug)]
enum PointerException {
    /// To the header, where no name is.
    IntoHeader,
    /// To the labels that the pointer ends, or to labels that go on into them.
    IntoItself,
    /// More pointers than a name has labels; domain stops at 255.
    TooMany,
}

impl Exception {
    /// Why ours says `fault` of what domain reads. `due` is the QR bit that the message was to have.
    fn find(octets: &[u8], due: bool, fault: ParseError, read: &Reading) -> Option<Self> {
        let header = Message::from_slice(octets).unwrap().header_section();
        let (last, others) = read.records.split_last().unzip();
        match fault {
            // Both can only be found by reading on, which domain did without finding them.
            ParseError::TooShort | ParseError::UnexpectedEnd => None,
            ParseError::UnexpectedQr => (header.header().qr() != due).then_some(Self::Direction),
            ParseError::Opcode(opcode) => (opcode != 0
                && header.header().opcode().to_int() == opcode)
                .then_some(Self::Operation),
            ParseError::QuestionCount(count) => {
                (count != 1 && header.counts().qdcount() == count).then_some(Self::Questions)
            }
            ParseError::UnexpectedRecords => (header.counts().ancount() > 0
                || header.counts().nscount() > 0)
                .then_some(Self::QuerySections),
            ParseError::TooManyRecords(count) => {
                let counts = header.counts();
                let all = [counts.ancount(), counts.nscount(), counts.arcount()];
                let all: u32 = all.into_iter().map(u32::from).sum();
                (count == all && count > 32).then_some(Self::ManyRecords)
            }
            ParseError::Opt => {
                if read.opts().count() > 1 {
                    Some(Self::ManyOpts)
                } else if read
                    .opts()
                    .any(|opt| opt.content.section != message::Section::Additional)
                {
                    Some(Self::OptSection)
                } else {
                    read.opts()
                        .any(|opt| octets[opt.start] != 0)
                        .then_some(Self::OptOwner)
                }
            }
            ParseError::SignatureNotLast => {
                // A SIG signs the message when it covers no type (RFC 2931).
                let signs = |seen: &Seen| match seen.content.rtype {
                    message::rtype::TSIG => true,
                    message::rtype::SIG => octets[seen.end - seen.length..].starts_with(&[0, 0]),
                    _ => false,
                };
                others?.iter().any(signs).then_some(Self::SignatureNotLast)
            }
            ParseError::Name => {
                let names = std::iter::once(message::HEADER_LEN);
                names
                    .chain(read.records.iter().map(|seen| seen.start))
                    .find_map(|at| PointerException::find(octets, at))
                    .map(Self::Pointer)
                    .or_else(|| {
                        (read.opts().next().is_some() && read.opts().last() != last)
                            .then_some(Self::OptNotLast)
                    })
            }
        }
    }
}

impl PointerException {
    /// Follows a name that domain has read.
    fn find(octets: &[u8], at: usize) -> Option<Self> {
        // The octets that are read with no pointer in between; the first ones may be any number.
        let (mut position, mut start, mut limit) = (at, at, octets.len());
        for _ in 0..=127 {
            while (1..64).contains(&octets[position]) {
                position += 1 + usize::from(octets[position]);
            }
            if position >= limit {
                return Some(Self::IntoItself);
            }
            if octets[position] == 0 {
                return None;
            }
            if position + 1 >= limit {
                return Some(Self::IntoItself);
            }
            let target =
                usize::from(octets[position] & 0x3f) << 8 | usize::from(octets[position + 1]);
            if target < message::HEADER_LEN {
                return Some(Self::IntoHeader);
            }
            if target >= start {
                return Some(Self::IntoItself);
            }
            (limit, start, position) = (start, target, target);
        }
        Some(Self::TooMany)
    }
}

// ---- Messages ----

/// What a message shall say, for writers to write.
#[derive(Debug, Clone)]
struct Plan {
    id: u16,
    flags: [u8; 2],
    qname: Vec<u8>,
    qtype: u16,
    qclass: u16,
    answer: Vec<Planned>,
    authority: Vec<Planned>,
    /// The additional records before and after the OPT.
    additional: [Vec<Planned>; 2],
    opt: Option<PlannedOpt>,
}

#[derive(Debug, Clone)]
struct Planned {
    owner: Vec<u8>,
    rtype: u16,
    class: u16,
    ttl: u32,
    data: Vec<Piece>,
}

/// A part of RDATA; a name may be compressed.
#[derive(Debug, Clone)]
enum Piece {
    Octets(Vec<u8>),
    Name(Vec<u8>),
}

#[derive(Debug, Clone)]
struct PlannedOpt {
    size: u16,
    extended_rcode: u8,
    version: u8,
    dnssec_ok: bool,
    options: Vec<(u16, Vec<u8>)>,
}

impl Plan {
    /// Written by domain, which compresses what RFC 3597 lets a writer compress.
    fn by_domain(&self) -> Vec<u8> {
        let name = |octets: &[u8]| Name::from_octets(octets.to_vec()).unwrap();
        let record = |planned: &Planned| {
            let rdata: Vec<u8> = planned
                .data
                .iter()
                .flat_map(Piece::octets)
                .copied()
                .collect();
            let rtype = Rtype::from_int(planned.rtype);
            let parsed = AllRecordData::<_, ParsedName<_>>::parse_any_rdata(
                rtype,
                &mut Parser::from_ref(&rdata[..]),
            );
            let owned: AllRecordData<Vec<u8>, Name<Vec<u8>>> = parsed.unwrap().flatten_into();
            let ttl = Ttl::from_secs(planned.ttl);
            (
                name(&planned.owner),
                Class::from_int(planned.class),
                ttl,
                owned,
            )
        };
        let target = TreeCompressor::new(Vec::new());
        let mut builder = MessageBuilder::from_target(target).unwrap().question();
        builder
            .push(Question::new(
                name(&self.qname),
                Rtype::from_int(self.qtype),
                Class::from_int(self.qclass),
            ))
            .unwrap();
        let mut builder = builder.answer();
        for planned in &self.answer {
            builder.push(record(planned)).unwrap();
        }
        let mut builder = builder.authority();
        for planned in &self.authority {
            builder.push(record(planned)).unwrap();
        }
        let mut builder = builder.additional();
        for planned in &self.additional[0] {
            builder.push(record(planned)).unwrap();
        }
        if let Some(opt) = &self.opt {
            builder.opt(|out| opt.by_domain(out)).unwrap();
        }
        for planned in &self.additional[1] {
            builder.push(record(planned)).unwrap();
        }
        let mut octets = builder.finish().into_target();
        octets[..2].copy_from_slice(&self.id.to_be_bytes());
        octets[2..4].copy_from_slice(&self.flags);
        octets
    }

    /// Written here, with every name compressed that a reader must be able to follow (RFC 3597 section 4), and each as
    /// near to its pointer as there is one.
    fn by_thrift(&self) -> Vec<u8> {
        let additional = self.additional.iter().flatten().count();
        let counts = [1, self.answer.len(), self.authority.len()];
        let mut out = Thrift::default();
        out.octets.extend_from_slice(&self.id.to_be_bytes());
        out.octets.extend_from_slice(&self.flags);
        for count in counts
            .into_iter()
            .chain([additional + usize::from(self.opt.is_some())])
        {
            out.octets.extend_from_slice(&(count as u16).to_be_bytes());
        }
        out.name(&self.qname);
        out.octets.extend_from_slice(&self.qtype.to_be_bytes());
        out.octets.extend_from_slice(&self.qclass.to_be_bytes());
        let [before, after] = &self.additional;
        for planned in self.answer.iter().chain(&self.authority).chain(before) {
            out.record(planned);
        }
        if let Some(opt) = &self.opt {
            out.opt(opt);
        }
        for planned in after {
            out.record(planned);
        }
        out.octets
    }

    /// A query that this plan answers, in the same spelling.
    fn question(&self) -> Self {
        Self {
            flags: [0x01, 0],
            answer: Vec::new(),
            authority: Vec::new(),
            additional: [Vec::new(), Vec::new()],
            opt: None,
            ..self.clone()
        }
    }
}

impl Piece {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Octets(octets) | Self::Name(octets) => octets,
        }
    }
}

impl PlannedOpt {
    fn by_domain(
        &self,
        out: &mut OptBuilder<'_, TreeCompressor<Vec<u8>>>,
    ) -> Result<(), std::convert::Infallible> {
        out.set_udp_payload_size(self.size);
        out.set_version(self.version);
        out.set_dnssec_ok(self.dnssec_ok);
        // Sets the header's four bits too; the plan's flags are written over them later.
        out.set_rcode(OptRcode::masked_from_int(
            u16::from(self.extended_rcode) << 4,
        ));
        for (code, value) in &self.options {
            use domain::dep::octseq::OctetsBuilder;
            let code = OptionCode::from_int(*code);
            out.push_raw_option(code, value.len() as u16, |target| {
                target.append_slice(value)
            })?;
        }
        Ok(())
    }
}

/// A writer that compresses all it can.
#[derive(Default)]
struct Thrift {
    octets: Vec<u8>,
    /// The names that are there, the newest last.
    names: Vec<(Vec<u8>, usize)>,
}

impl Thrift {
    fn name(&mut self, name: &[u8]) {
        let (mut rest, mut new) = (name, Vec::new());
        while rest[0] != 0 {
            if let Some((_, at)) = self.names.iter().rev().find(|(name, _)| name == rest) {
                self.octets
                    .extend_from_slice(&(0xc000 | *at as u16).to_be_bytes());
                self.names.extend(new);
                return;
            }
            if self.octets.len() < 0x4000 {
                new.push((rest.to_vec(), self.octets.len()));
            }
            let (label, tail) = rest.split_at(1 + usize::from(rest[0]));
            self.octets.extend_from_slice(label);
            rest = tail;
        }
        self.octets.push(0);
        self.names.extend(new);
    }

    fn record(&mut self, planned: &Planned) {
        self.name(&planned.owner);
        self.octets.extend_from_slice(&planned.rtype.to_be_bytes());
        self.octets.extend_from_slice(&planned.class.to_be_bytes());
        self.octets.extend_from_slice(&planned.ttl.to_be_bytes());
        self.octets.extend_from_slice(&[0, 0]);
        let data = self.octets.len();
        for piece in &planned.data {
            match piece {
                Piece::Octets(octets) => self.octets.extend_from_slice(octets),
                Piece::Name(name) => self.name(name),
            }
        }
        let length = (self.octets.len() - data) as u16;
        self.octets[data - 2..data].copy_from_slice(&length.to_be_bytes());
    }

    fn opt(&mut self, opt: &PlannedOpt) {
        let mut data = Vec::new();
        for (code, value) in &opt.options {
            data.extend_from_slice(&code.to_be_bytes());
            data.extend_from_slice(&(value.len() as u16).to_be_bytes());
            data.extend_from_slice(value);
        }
        let flags = u8::from(opt.dnssec_ok) << 7;
        let ttl = [opt.extended_rcode, opt.version, flags, 0];
        self.record(&Planned {
            owner: vec![0],
            rtype: message::rtype::OPT,
            class: opt.size,
            ttl: u32::from_be_bytes(ttl),
            data: vec![Piece::Octets(data)],
        });
    }
}

// ---- Strategies ----

/// Few words, so that names have parts in common; and odd octets.
fn label() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: [&str; 7] = ["a", "www", "mail", "example", "eXample", "com", "net"];
    prop_oneof![
        16 => select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        3 => vec(any::<u8>(), 1..=6),
        1 => vec(any::<u8>(), 63),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let labels = prop_oneof![
        12 => vec(label(), 0..=4),
        1 => vec(label(), 4..=12),
        1 => vec(vec(any::<u8>(), 1), 120..=127),
    ];
    labels.prop_map(|labels| {
        let mut name = Vec::new();
        for label in labels {
            if name.len() + 1 + label.len() < 255 {
                name.push(label.len() as u8);
                name.extend(label);
            }
        }
        name.push(0);
        name
    })
}

fn octets(length: usize) -> impl Strategy<Value = Piece> {
    (vec(any::<u8>(), length), any::<Index>()).prop_map(|(mut octets, at)| {
        // Pointers are what a splice could mistake them for.
        *at.get_mut(&mut octets) = 0xc0;
        Piece::Octets(octets)
    })
}

fn string() -> impl Strategy<Value = Piece> {
    vec(any::<u8>(), 0..=9)
        .prop_map(|text| Piece::Octets([&[text.len() as u8], &text[..]].concat()))
}

/// A type and its RDATA. domain knows each type, or knows that it does not.
fn data() -> impl Strategy<Value = (u16, Vec<Piece>)> {
    let name = || name().prop_map(Piece::Name);
    const OF_ONE_NAME: [u16; 9] = [2, 3, 4, 5, 7, 8, 9, 12, 39];
    prop_oneof![
        octets(4).prop_map(|address| (1, vec![address])),
        octets(16).prop_map(|address| (28, vec![address])),
        vec(string(), 1..=3).prop_map(|texts| (16, texts)),
        (string(), string()).prop_map(|(processor, system)| (13, vec![processor, system])),
        octets(24).prop_map(|digest| (43, vec![digest])),
        octets(22).prop_map(|fingerprint| (44, vec![fingerprint])),
        octets(35).prop_map(|association| (52, vec![association])),
        (any::<u8>(), octets(20)).prop_map(|(flags, value)| {
            let tag = Piece::Octets([&[flags, 5], &b"issue"[..]].concat());
            (257, vec![tag, value])
        }),
        (65_280..65_535u16, octets(30)).prop_map(|(rtype, octets)| (rtype, vec![octets])),
        (select(&OF_ONE_NAME[..]), name()).prop_map(|(rtype, name)| (rtype, vec![name])),
        (select(&[14u16, 17][..]), name(), name())
            .prop_map(|(rtype, one, two)| (rtype, vec![one, two])),
        (name(), name(), octets(20)).prop_map(|(one, two, rest)| (6, vec![one, two, rest])),
        (octets(2), name()).prop_map(|(preference, name)| (15, vec![preference, name])),
        (octets(6), name()).prop_map(|(numbers, name)| (33, vec![numbers, name])),
        (octets(4), string(), string(), string(), name())
            .prop_map(|(numbers, a, b, c, name)| (35, vec![numbers, a, b, c, name])),
    ]
}

fn planned() -> impl Strategy<Value = Planned> {
    let class = prop_oneof![4 => Just(1), 1 => any::<u16>()];
    (name(), data(), class, any::<u32>()).prop_map(|(owner, (rtype, data), class, ttl)| Planned {
        owner,
        rtype,
        class,
        ttl,
        data,
    })
}

fn client_subnet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..=4u8, any::<[u8; 4]>()).prop_map(|(octets, address)| {
            [&[0, 1, octets * 8, 0], &address[..usize::from(octets)]].concat()
        }),
        (0..=16u8, any::<[u8; 16]>()).prop_map(|(octets, address)| {
            [&[0, 2, octets * 8, 0], &address[..usize::from(octets)]].concat()
        }),
    ]
}

fn planned_opt() -> impl Strategy<Value = PlannedOpt> {
    let option = prop_oneof![
        1 => client_subnet().prop_map(|value| (8, value)),
        1 => vec(Just(0), 0..=40).prop_map(|value| (12, value)),
        1 => vec(any::<u8>(), 2..=20).prop_map(|value| (15, value)),
        1 => vec(any::<u8>(), 8).prop_map(|value| (10, value)),
        1 => (65_001..65_535u16, vec(any::<u8>(), 0..=20)),
    ];
    let extended_rcode = prop_oneof![3 => Just(0), 1 => any::<u8>()];
    (
        any::<u16>(),
        extended_rcode,
        any::<u8>(),
        any::<bool>(),
        vec(option, 0..=4),
    )
        .prop_map(
            |(size, extended_rcode, version, dnssec_ok, options)| PlannedOpt {
                size,
                extended_rcode,
                version,
                dnssec_ok,
                options,
            },
        )
}

fn plan(high: impl Strategy<Value = u8>, most: usize) -> impl Strategy<Value = Plan> {
    let section = move || vec(planned(), 0..=most);
    (
        (any::<u16>(), high, any::<u8>()),
        (name(), any::<u16>(), any::<u16>()),
        (section(), section()),
        (vec(planned(), 0..=3), vec(planned(), 0..=3)),
        proptest::option::weighted(0.8, planned_opt()),
    )
        .prop_map(|(head, question, sections, (before, after), opt)| Plan {
            id: head.0,
            flags: [head.1, head.2],
            qname: question.0,
            qtype: question.1,
            qclass: question.2,
            answer: sections.0,
            authority: sections.1,
            additional: [before, after],
            opt,
        })
}

/// A query with any flags.
fn query_plan() -> impl Strategy<Value = Plan> {
    plan((0..8u8).prop_map(|flags| flags), 0)
}

/// An answer with any flags.
fn answer_plan() -> impl Strategy<Value = Plan> {
    plan((0..8u8).prop_map(|flags| 0x80 | flags), 4)
}

/// A query or an answer, by either writer.
fn sound_octets() -> impl Strategy<Value = Vec<u8>> {
    let plan = prop_oneof![query_plan(), answer_plan()];
    (plan, any::<bool>()).prop_map(|(plan, thrift)| {
        if thrift {
            plan.by_thrift()
        } else {
            plan.by_domain()
        }
    })
}

/// Something that is done to a message.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Point(Index, Index),
    Count(usize, u16),
    Cut(Index),
    Append(Vec<u8>),
    Remove(Index),
    Insert(Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let octet = select(&[0, 1, 2, 12, 13, 24, 41, 63, 64, 128, 192, 193, 250, 255][..]);
    prop_oneof![
        4 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        4 => (any::<Index>(), octet).prop_map(|(at, octet)| Damage::Set(at, octet)),
        4 => any::<(Index, Index)>().prop_map(|(at, to)| Damage::Point(at, to)),
        1 => (0..4usize, 0..5u16).prop_map(|(section, count)| Damage::Count(section, count)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => vec(any::<u8>(), 0..20).prop_map(Damage::Append),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => (any::<Index>(), vec(any::<u8>(), 1..12)).prop_map(|(at, new)| Damage::Insert(at, new)),
    ]
}

impl Damage {
    fn apply(&self, octets: &mut Vec<u8>) {
        match self {
            Self::Append(tail) => octets.extend_from_slice(tail),
            _ if octets.len() < 13 => {}
            Self::Flip(at, bit) => *at.get_mut(octets) ^= 1 << bit,
            Self::Set(at, octet) => *at.get_mut(octets) = *octet,
            Self::Point(at, to) => {
                // Behind the header, and more often than not to before.
                let at = 12 + at.index(octets.len() - 12);
                let target = 0xc000 | to.index(at + 4).min(0x3fff) as u16;
                for (place, octet) in octets[at..].iter_mut().zip(target.to_be_bytes()) {
                    *place = octet;
                }
            }
            Self::Count(section, count) => {
                octets[4 + 2 * section..6 + 2 * section].copy_from_slice(&count.to_be_bytes());
            }
            Self::Cut(at) => octets.truncate(at.index(octets.len())),
            Self::Remove(at) => drop(octets.remove(at.index(octets.len()))),
            Self::Insert(at, new) => {
                let at = at.index(octets.len());
                drop(octets.splice(at..at, new.iter().copied()));
            }
        }
    }
}

fn damaged_octets() -> impl Strategy<Value = Vec<u8>> {
    (sound_octets(), vec(damage(), 1..=3)).prop_map(|(mut octets, damages)| {
        for damage in damages {
            damage.apply(&mut octets);
        }
        octets
    })
}

/// A name as somebody spells it who wants to lead a reader astray: to any octet before it, whatever that is.
#[derive(Debug, Clone)]
struct OddName {
    labels: Vec<u8>,
    target: Option<Index>,
}

fn odd_name() -> impl Strategy<Value = OddName> {
    let labels = prop_oneof![
        8 => Just(vec![]),
        4 => (1..16u8).prop_map(|octet| vec![1, octet]),
        // A label that covers what comes next.
        1 => (1..16u8).prop_map(|length| vec![length]),
    ];
    (labels, proptest::option::weighted(0.7, any::<Index>()))
        .prop_map(|(labels, target)| OddName { labels, target })
}

impl OddName {
    fn append_to(&self, out: &mut Vec<u8>) {
        // Now and then into the header, or into itself.
        let target = self
            .target
            .map(|target| 10 + target.index(out.len() - 8) as u16);
        out.extend_from_slice(&self.labels);
        match target {
            Some(target) => out.extend_from_slice(&(0xc000 | target).to_be_bytes()),
            None => out.push(0),
        }
    }
}

/// The frames of a message with odd names in them, and often with an OPT and a signature.
fn odd_frames() -> impl Strategy<Value = Vec<u8>> {
    const TYPES: [u8; 12] = [1, 2, 2, 2, 6, 15, 24, 33, 35, 41, 41, 250];
    let record = (
        odd_name(),
        select(&TYPES[..]),
        vec(any::<u8>(), 0..8),
        proptest::option::of(odd_name()),
    );
    // Most often all records are additional ones.
    let answers = prop_oneof![4 => Just(0), 1 => 0..6usize];
    (any::<bool>(), vec(record, 0..6), answers).prop_map(|(response, records, answers)| {
        let answers = answers.min(records.len());
        let additional = (records.len() - answers) as u8;
        let mut out = vec![0, 7, u8::from(response) << 7, 0, 0, 1];
        out.extend_from_slice(&[0, answers as u8, 0, 0, 0, additional]);
        out.extend_from_slice(b"\x04name\0\0\x01\0\x01");
        for (owner, rtype, octets, name) in records {
            if rtype == 41 {
                // Its only option looks like a name.
                out.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x07\0\x0c\0\x03\x01x\0");
                continue;
            }
            owner.append_to(&mut out);
            out.extend_from_slice(&[0, rtype, 0, 1, 0, 0, 0, 0, 0, 0]);
            let data = out.len();
            match name {
                Some(name) => name.append_to(&mut out),
                None => out.extend_from_slice(&octets),
            }
            out[data - 1] = (out.len() - data) as u8;
        }
        out
    })
}

// ---- Properties ----

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Not the first message of its buffer.
    let mut out = vec![0xee; 5];
    write(&mut out);
    assert_eq!(out[..5], [0xee; 5]);
    out.split_off(5)
}

/// Asserts that a message of ours is sound to us and to domain.
fn assert_sound(octets: &[u8]) -> Reading {
    let ours = if octets[2] & 0x80 == 0 {
        Query::parse(octets).map(|query| query.message().len())
    } else {
        Answer::parse(octets).map(|answer| answer.message().len())
    };
    assert_eq!(ours, Ok(octets.len()), "{octets:02x?}");
    read(octets).unwrap_or_else(|| panic!("domain refuses {octets:02x?}"))
}

/// Does with octets all that can be done with them, and holds what comes of it against domain.
fn examine(octets: &[u8]) {
    let theirs = read(octets);
    let _ = QuestionPresentation(octets).to_string();
    let _ = message::is_response_to(octets, octets);
    if let Some(asked) = ReplyTo::from_malformed(octets) {
        // Not read again: UPDATE and others have their opcode in the reply.
        let reply = written(|out| asked.write_empty_response(out, message::rcode::FORMERR, None));
        assert_eq!(reply.len(), message::HEADER_LEN);
    }
    match (Query::parse(octets), &theirs) {
        (Ok(query), Some(theirs)) => examine_query(octets, &query, theirs),
        (Ok(_), None) => panic!("domain refuses what we read as a query: {octets:02x?}"),
        (Err(fault), Some(theirs)) => {
            let exception = Exception::find(octets, false, fault, theirs);
            assert!(exception.is_some(), "query: {fault}: {octets:02x?}");
        }
        (Err(_), None) => {}
    }
    match (Answer::parse(octets), &theirs) {
        (Ok(answer), Some(theirs)) => examine_answer(octets, &answer, theirs),
        (Ok(_), None) => panic!("domain refuses what we read as an answer: {octets:02x?}"),
        (Err(fault), Some(theirs)) => {
            let exception = Exception::find(octets, true, fault, theirs);
            assert!(exception.is_some(), "answer: {fault}: {octets:02x?}");
        }
        (Err(_), None) => {}
    }
}

fn examine_query(octets: &[u8], query: &Query<'_>, theirs: &Reading) {
    let message = Message::from_slice(octets).unwrap();
    let question = message.sole_question().unwrap();
    assert_eq!(query.id(), message.header().id());
    assert_eq!(
        query.question(),
        &octets[message::HEADER_LEN..theirs.question_end]
    );
    assert_eq!(query.qtype(), question.qtype().to_int());
    let end = theirs
        .records
        .last()
        .map_or(theirs.question_end, |record| record.end);
    assert_eq!(query.message(), &octets[..end]);
    assert_same_edns(octets, query.edns());

    let sent = written(|out| query.write_upstream_query(out));
    assert_eq!(sent.len() % 128, 0);
    let read_again = assert_sound(&sent);
    assert_eq!(read_again.question_end, theirs.question_end);
    let sent_query = Query::parse(&sent).unwrap();
    let sent_edns = sent_query.edns().unwrap();
    let dnssec_ok = query.edns().is_some_and(|edns| edns.dnssec_ok);
    assert_eq!(sent_edns.dnssec_ok, dnssec_ok);
    assert_eq!(written(|out| sent_query.write_upstream_query(out)), sent);

    let asked = ReplyTo::from_query(query);
    for rcode in [message::rcode::SERVFAIL, message::rcode::BADVERS] {
        let ede = ExtendedError {
            code: message::ede::NETWORK_ERROR,
            text: "unreachable",
        };
        let reply = written(|out| asked.write_empty_response(out, rcode, Some(ede)));
        assert_sound(&reply);
        assert!(message::is_response_to(&reply, query.question()));
        assert_eq!(
            Answer::parse(&reply).unwrap().edns().is_some(),
            query.edns().is_some()
        );
    }
}

fn examine_answer(octets: &[u8], answer: &Answer<'_>, theirs: &Reading) {
    assert_same_records(octets, answer.records(), &theirs.records);
    assert_same_edns(octets, answer.edns());
    let message = Message::from_slice(octets).unwrap();
    let rcode = message.opt().map_or_else(
        || message.header().rcode().to_int().into(),
        |opt: OptRecord<_>| opt.rcode(message.header()).to_int(),
    );
    assert_eq!(answer.rcode(), rcode);

    let question = &octets[message::HEADER_LEN..theirs.question_end];
    let other_question = b"\x05other\x04name\0\0\x01\0\x01";
    let edns = Edns {
        udp_payload_size: 4096,
        extended_rcode: 0,
        version: 0,
        dnssec_ok: true,
        ecs_opt_out: false,
        keepalive: true,
        source: true,
    };
    for edns in [None, Some(edns)] {
        let asked = |question| ReplyTo {
            id: 0xabcd,
            flags: [0x01, 0x10],
            question,
            edns,
            keepalive: Some(100),
            source: Some(Source::Route { zone_len: 5 }),
        };
        let foreign = asked(other_question);
        let relayed = written(|out| foreign.write_answer(out, answer));
        assert_sound(&relayed);
        assert!(message::is_response_to(&relayed, other_question));
        if question.is_empty() {
            continue;
        }
        let asked = asked(question);
        let relayed = written(|out| asked.write_answer(out, answer));
        let read_again = assert_sound(&relayed);
        assert_eq!(read_again.opts().count(), usize::from(edns.is_some()));
        let kept = edns.is_some() || answer.rcode() < 16;
        if kept {
            // RDATA of a broken name may read otherwise elsewhere; that is nobody's to mend.
            let frame = |content: Content| (content.owner, content.rtype, content.ttl);
            let frames = |reading: &Reading| -> Vec<_> {
                reading.contents().into_iter().map(frame).collect()
            };
            assert_eq!(frames(&read_again), frames(theirs));
        }
        // What was relayed once is relayed again as it is.
        let again = Answer::parse(&relayed).unwrap();
        assert_eq!(written(|out| asked.write_answer(out, &again)), relayed);
        let truncated = written(|out| asked.write_truncated(out, answer));
        assert_sound(&truncated);
        let signed = written(|out| asked.write_verbatim(out, answer, MAX_MESSAGE_LEN));
        assert_eq!(signed.len(), answer.message().len());
        assert_sound(&signed);
    }
}

/// What [`ReplyTo::write_answer_with`] is to write, found in other steps: everything; if that is too long, the same without the
/// options of its OPT; if that is too long, no records either.
fn cut_in_steps(
    asked: &ReplyTo<'_>,
    answer: &Answer<'_>,
    shown: &ReplyOptions,
    limit: usize,
) -> Vec<u8> {
    let mut octets = written(|out| asked.write_answer_with(out, answer, shown, MAX_MESSAGE_LEN));
    if octets.len() <= limit {
        return octets;
    }
    let opt = read(&octets).unwrap().records.pop();
    if let Some(opt) = opt.filter(|opt| opt.content.rtype == message::rtype::OPT) {
        octets.truncate(opt.start + 11);
        octets[opt.start + 9..].fill(0);
        octets[2] |= 0x02;
    }
    if octets.len() <= limit {
        return octets;
    }
    written(|out| asked.write_truncated(out, answer))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // A failure prints its smallest input, from which a test beside the rule is made.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(120))]

    #[test]
    fn a_sound_query_is_read_as_domain_reads_it(plan in query_plan()) {
        for octets in [plan.by_domain(), plan.by_thrift()] {
            let theirs = read(&octets).unwrap();
            let query = Query::parse(&octets).unwrap();
            prop_assert_eq!(query.id(), plan.id);
            prop_assert_eq!(query.flags(), plan.flags);
            prop_assert!(!query.is_signed());
            prop_assert_eq!(theirs.question_end, 12 + plan.qname.len() + 4);
            examine_query(&octets, &query, &theirs);
            let opt = Message::from_slice(&octets).unwrap().opt();
            let private = opt.is_some_and(|opt| {
                let mut subnets = opt.opt().iter::<ClientSubnet>().flatten();
                subnets.any(|subnet| subnet.source_prefix_len() == 0)
            });
            prop_assert_eq!(query.edns().is_some_and(|edns| edns.ecs_opt_out), private);
        }
    }

    #[test]
    fn a_sound_answer_is_read_as_domain_reads_it(plan in answer_plan()) {
        for octets in [plan.by_domain(), plan.by_thrift()] {
            let theirs = read(&octets).unwrap();
            prop_assert!(theirs.records.iter().all(|seen| seen.content.data.is_some()));
            let answer = Answer::parse(&octets).unwrap();
            prop_assert_eq!(answer.message(), &octets[..]);
            examine_answer(&octets, &answer, &theirs);
        }
    }

    #[test]
    fn a_record_is_spelled_so_that_domain_reads_it_from_a_zone_file(plan in answer_plan()) {
        let octets = plan.by_thrift();
        let answer = Answer::parse(&octets).unwrap();
        let theirs = read(&octets).unwrap();
        for (record, Seen { content, .. }) in answer.records().zip(theirs.records) {
            if content.rtype == message::rtype::OPT {
                continue;
            }
            let line = RecordLine { answer: &answer, record: &record }.to_string();
            let said = Content { ttl: answer.ttl(&record), ..content };
            prop_assert_eq!(read_line(&line, said.section), Some(said), "{}", line);
        }
    }

    #[test]
    fn a_relayed_answer_has_the_records_that_it_came_with(
        plan in answer_plan(),
        asked in query_plan(),
        upper_case in any::<bool>(),
    ) {
        let mut question = Plan { flags: asked.flags, opt: asked.opt, ..plan.question() };
        if upper_case {
            question.qname.make_ascii_uppercase();
        }
        let query = question.by_domain();
        let query = Query::parse(&query).unwrap();
        for octets in [plan.by_domain(), plan.by_thrift()] {
            prop_assert!(message::is_response_to(&octets, query.question()));
            let answer = Answer::parse(&octets).unwrap();
            let relayed = written(|out| ReplyTo::from_query(&query).write_answer(out, &answer));
            let (before, after) = (read(&octets).unwrap(), assert_sound(&relayed));
            prop_assert_eq!(after.opts().count(), usize::from(query.edns().is_some()));
            prop_assert!(relayed[12..].starts_with(query.question()));
            if query.edns().is_none() && answer.rcode() > 15 {
                prop_assert!(after.records.is_empty());
                continue;
            }
            prop_assert_eq!(Answer::parse(&relayed).unwrap().rcode(), answer.rcode());
            let (before, after) = (before.contents(), after.contents());
            if upper_case {
                // Names that point to the question take its spelling.
                let lower = |contents: &[Content]| -> Vec<_> {
                    contents.iter().map(Content::to_lowercase).collect()
                };
                prop_assert_eq!(lower(&before), lower(&after));
            } else {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn an_answer_is_cut_to_any_length(
        plan in answer_plan(),
        asked in query_plan(),
        with_error in any::<bool>(),
        ttls in select(vec![TtlRewrite::Unchanged, TtlRewrite::Decremented { max: 900, age: 7 }, TtlRewrite::Fixed(30)]),
        rooms in vec(any::<Index>(), 8),
    ) {
        let question = Plan { flags: asked.flags, opt: asked.opt, ..plan.question() }.by_domain();
        let query = Query::parse(&question).unwrap();
        let asked = ReplyTo::from_query(&query);
        let ede = with_error.then_some(ExtendedError { code: 3, text: "some words" });
        let shown = ReplyOptions { ttls, ede };
        for octets in [plan.by_domain(), plan.by_thrift()] {
            let answer = Answer::parse(&octets).unwrap();
            let kept = query.key().and_then(|key| CachedAnswer::new(&answer, &key));
            for answer in std::iter::once(answer).chain(kept.as_ref().map(CachedAnswer::answer)) {
                let whole = written(|out| asked.write_answer_with(out, &answer, &shown, MAX_MESSAGE_LEN));
                let least = written(|out| asked.write_truncated(out, &answer)).len();
                for room in &rooms {
                    let limit = least + room.index(whole.len() - least + 2);
                    let found = written(|out| asked.write_answer_with(out, &answer, &shown, limit));
                    prop_assert!(found.len() <= limit);
                    prop_assert_eq!(found, cut_in_steps(&asked, &answer, &shown, limit));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn damaged_messages_are_judged_as_domain_judges_them(octets in damaged_octets()) {
        examine(&octets);
    }
}

proptest! {
    #![proptest_config(config(3000))]

    #[test]
    fn odd_frames_are_judged_as_domain_judges_them(octets in odd_frames()) {
        examine(&octets);
    }

    #[test]
    fn random_octets_are_judged_as_domain_judges_them(octets in vec(any::<u8>(), 0..200)) {
        examine(&octets);
    }
}

/// Messages with a bit of everything.
fn samples() -> Vec<Vec<u8>> {
    let name = |dotted: &str| {
        let labels = dotted
            .split('.')
            .flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
        labels.chain([0]).collect::<Vec<u8>>()
    };
    let planned = |owner: &str, rtype, data: &[Piece]| Planned {
        owner: name(owner),
        rtype,
        class: 1,
        ttl: 3600,
        data: data.to_vec(),
    };
    let piece = |dotted: &str| Piece::Name(name(dotted));
    let octets = |octets: &[u8]| Piece::Octets(octets.to_vec());
    let query = Plan {
        id: 4660,
        flags: [0x01, 0x20],
        qname: name("www.example.com"),
        qtype: 1,
        qclass: 1,
        answer: vec![],
        authority: vec![],
        additional: [vec![], vec![]],
        opt: None,
    };
    let opt = |options: &[(u16, &[u8])]| {
        Some(PlannedOpt {
            size: 1232,
            extended_rcode: 0,
            version: 0,
            dnssec_ok: true,
            options: options
                .iter()
                .map(|(code, value)| (*code, value.to_vec()))
                .collect(),
        })
    };
    let edns = Plan {
        opt: opt(&[(10, b"a cookie"), (8, &[0, 1, 0, 0]), (65_001, b"")]),
        ..query.clone()
    };
    let signature = planned("key", message::rtype::TSIG, &[octets(b"signed")]);
    let signed = Plan {
        additional: [vec![], vec![signature]],
        ..edns.clone()
    };
    let answer = Plan {
        flags: [0x81, 0xa0],
        answer: vec![
            planned("www.example.com", 5, &[piece("host.example.net")]),
            planned("host.example.net", 1, &[octets(&[192, 0, 2, 1])]),
            planned("host.example.net", 16, &[octets(b"\x04text")]),
        ],
        authority: vec![planned("example.net", 2, &[piece("ns.example.net")])],
        additional: [vec![], vec![]],
        opt: opt(&[(12, &[0; 24]), (15, b"\0\x03stale")]),
        ..query.clone()
    };
    let negative = Plan {
        flags: [0x81, 0x83],
        answer: vec![],
        authority: vec![planned(
            "com",
            6,
            &[piece("a.example.com"), piece("b.com"), octets(&[7; 20])],
        )],
        opt: None,
        ..answer.clone()
    };
    let middle = Plan {
        qtype: 33,
        answer: vec![planned(
            "www.example.com",
            33,
            &[octets(&[9; 6]), piece("srv.example.org")],
        )],
        additional: [
            vec![planned("srv.example.org", 28, &[octets(&[0x20; 16])])],
            vec![
                planned(
                    "mx.example.net",
                    15,
                    &[octets(&[0, 1]), piece("mail.mx.example.net")],
                ),
                planned("mail.mx.example.net", 1, &[octets(&[192, 12, 192, 12])]),
                planned(
                    "mail.mx.example.net",
                    33,
                    &[octets(&[0; 6]), piece("mx.example.net")],
                ),
            ],
        ],
        ..answer.clone()
    };
    let bad_cookie = Plan {
        flags: [0x81, 0x87],
        answer: vec![],
        authority: vec![],
        opt: Some(PlannedOpt {
            extended_rcode: 1,
            ..middle.opt.clone().unwrap()
        }),
        ..answer.clone()
    };
    let refusal = vec![0x12, 0x34, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0];
    [query, edns, signed, answer, negative, middle, bad_cookie]
        .iter()
        .map(Plan::by_thrift)
        .chain([refusal])
        .collect()
}

#[test]
fn the_samples_are_sound() {
    for sample in samples() {
        assert_sound(&sample);
        examine(&sample);
    }
}

#[test]
fn every_prefix_of_a_message_is_judged_without_a_panic() {
    for sample in samples() {
        for length in 0..sample.len() {
            examine(&sample[..length]);
        }
    }
}

#[test]
fn every_message_with_one_octet_changed_is_judged_without_a_panic() {
    for sample in samples() {
        for at in 0..sample.len() {
            let bits = (0..8).map(|bit| sample[at] ^ 1 << bit);
            for octet in bits.chain([!sample[at], 0, 12, 0xc0]) {
                let mut damaged = sample.clone();
                damaged[at] = octet;
                examine(&damaged);
            }
        }
    }
}

// ---- Bombs ----

/// An answer of 64 KB: first `front` as the RDATA of a record, then records whose owners all point to `target` in it.
/// Between both is an OPT, so that each name is looked at for its removal as well.
fn bomb(front: &[u8], target: usize) -> Vec<u8> {
    let mut octets = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    octets.extend_from_slice(&[0, 0xff, 0, 0, 1, 0, 0, 0, 0]);
    octets.extend_from_slice(&(front.len() as u16).to_be_bytes());
    assert_eq!(octets.len(), FRONT);
    octets.extend_from_slice(front);
    octets.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    let [high, low] = (0xc000 | target as u16).to_be_bytes();
    let mut records = 1u16;
    while octets.len() + 14 <= MAX_MESSAGE_LEN {
        // NS, whose RDATA is a name too.
        octets.extend_from_slice(&[high, low, 0, 2, 0, 1, 0, 0, 0, 0, 0, 2, high, low]);
        records += 1;
    }
    octets[10..12].copy_from_slice(&records.to_be_bytes());
    octets
}

/// Where a bomb's RDATA begins: behind its header, its question, which is the root, and the record's fixed fields.
const FRONT: usize = 12 + 5 + 11;

/// Some times what a debug build on a busy machine needs for three walks along each name.
const BOUND: Duration = Duration::from_secs(2);

/// How long it takes to read a message and to relay it.
fn time_to_relay(octets: &[u8]) -> (Result<(), ParseError>, Duration) {
    let start = Instant::now();
    let result = Answer::parse(octets).map(|answer| {
        let asked = ReplyTo {
            id: 1,
            flags: [0, 0],
            question: &octets[12..17],
            edns: None,
            keepalive: None,
            source: None,
        };
        let relayed = written(|out| asked.write_answer(out, &answer));
        assert_eq!(relayed.len(), octets.len() - 11);
        assert_eq!(
            answer.records().count(),
            usize::from(u16::from_be_bytes([octets[10], octets[11]])) + 1
        );
    });
    (result, start.elapsed())
}

#[test]
fn a_message_full_of_pointers_to_long_names_is_read_in_bounded_time() {
    // 126 labels, each behind the pointer that ends it.
    let mut front = vec![0];
    let mut target = FRONT;
    for _ in 0..126 {
        let label = FRONT + front.len();
        front.extend_from_slice(&[1, b'x', 0xc0 | (target >> 8) as u8, target as u8]);
        target = label;
    }
    let (result, time) = time_to_relay(&bomb(&front, target));
    assert_eq!(result, Ok(()));
    assert!(time < BOUND, "{time:?}");
}

#[test]
fn a_message_full_of_pointers_to_names_without_an_end_is_kept_or_not_in_bounded_time() {
    // Wherever a pointer leads to, there begins a name of labels of one octet each, and goes on for 30 kB.
    const LABELS: usize = 30_000;
    let mut octets = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    octets.extend_from_slice(&[0, 0xff, 0, 0, 1, 0, 0, 0, 0]);
    octets.extend_from_slice(&(LABELS as u16).to_be_bytes());
    assert_eq!(octets.len(), FRONT);
    octets.resize(FRONT + LABELS, 1);
    let mut records = 1_u16;
    while octets.len() + 13 <= MAX_MESSAGE_LEN {
        // NS, whose RDATA is a name; no two lead to one place.
        let [high, low] = (0xc000 | (FRONT as u16 + records)).to_be_bytes();
        octets.extend_from_slice(&[0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 2, high, low]);
        records += 1;
    }
    octets[6..8].copy_from_slice(&records.to_be_bytes());
    let answer = Answer::parse(&octets).unwrap();
    let query = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &octets[12..17]].concat();
    let key = Query::parse(&query).unwrap().key().unwrap();
    let start = Instant::now();
    assert!(CachedAnswer::new(&answer, &key).is_some());
    let time = start.elapsed();
    assert!(time < Duration::from_millis(300), "{time:?}");
}

#[test]
fn a_message_full_of_pointers_to_pointers_is_refused_in_bounded_time() {
    let mut front = vec![0];
    let mut target = FRONT;
    while FRONT + front.len() < 0x3fff - 2 {
        let pointer = FRONT + front.len();
        front.extend_from_slice(&[0xc0 | (target >> 8) as u8, target as u8]);
        target = pointer;
    }
    let (result, time) = time_to_relay(&bomb(&front, target));
    assert_eq!(result, Err(ParseError::Name));
    assert!(time < BOUND, "{time:?}");
}
