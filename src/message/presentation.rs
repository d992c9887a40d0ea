//! How are names, types and records spelled?
//!
//! The form in which people write the DNS: that of zone files (RFC 1035 section 5.1), and for whatever has no form of its
//! own the one of RFC 3597 section 5. What comes from strangers is escaped, so that a line stays a line.

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

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::answer::Answer;
use super::codes::LONGEST_NAME;
use super::name::name;
use super::record::Record;

/// The longest label in octets (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
/// What has a meaning in a zone file, and so stands behind a backslash in a name.
const SPECIAL: &[u8] = b".\\\"();@$";
/// What ends a quoted string, or escapes in it.
const QUOTES: &[u8] = b"\"\\";
/// The class of the internet.
const IN: u16 = 1;

/// The types that have a name, those that people ask for first.
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (28, "AAAA"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (12, "PTR"),
    (15, "MX"),
    (16, "TXT"),
    (33, "SRV"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (257, "CAA"),
    (43, "DS"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (35, "NAPTR"),
    (255, "ANY"),
    (13, "HINFO"),
    (14, "MINFO"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (29, "LOC"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (53, "SMIMEA"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (99, "SPF"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (256, "URI"),
];

/// The response codes that have a name (RFC 6895 section 2.3).
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (23, "BADCOOKIE"),
];

/// The classes that have a name.
const CLASSES: &[(u16, &str)] = &[
    (IN, "IN"),
    (3, "CH"),
    (4, "HS"),
    (254, "NONE"),
    (255, "ANY"),
];

/// Writes the name of a number, or `generic` and the number where it has none.
fn write_number(
    f: &mut fmt::Formatter<'_>,
    names: &[(u16, &str)],
    generic: &str,
    number: u16,
) -> fmt::Result {
    match names.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => f.write_str(name),
        None => write!(f, "{generic}{number}"),
    }
}

/// Why a text is no domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// There is nothing between two dots, or at all.
    EmptyLabel,
    /// A label of more than 63 octets.
    LongLabel,
    /// More than 255 octets in all.
    Long,
    /// A backslash with neither three digits of an octet nor a character behind it.
    Escape,
    /// A character that has to be escaped. Names in other scripts are asked for in their ASCII form (RFC 5890).
    Character(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLabel => write!(f, "an empty label"),
            Self::LongLabel => write!(f, "a label of more than {LONGEST_LABEL} octets"),
            Self::Long => write!(f, "more than {LONGEST_NAME} octets"),
            Self::Escape => write!(f, "a backslash before neither a character nor 000 to 255"),
            Self::Character(character) => {
                write!(f, "{character:?}, which a name has only as \\DDD")
            }
        }
    }
}

impl std::error::Error for NameError {}

/// A domain name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Its labels, each behind its length, the root's too.
    octets: Vec<u8>,
}

impl Name {
    /// The name at `at` in a message, followed through its compression pointers, and one past where it stands.
    fn read(message: &[u8], at: usize) -> Option<(Self, usize)> {
        let (octets, end) = name(message, at).ok()?;
        Some((Self { octets }, end))
    }

    /// The question for its records of a type, as it stands in a message (RFC 1035 section 4.1.2).
    pub fn question(&self, qtype: Type) -> Vec<u8> {
        [&self.octets[..], &qtype.0.to_be_bytes(), &IN.to_be_bytes()].concat()
    }

    fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        match label.len() {
            0 => return Err(NameError::EmptyLabel),
            length @ 1..=LONGEST_LABEL => self.octets.push(length as u8),
            _ => return Err(NameError::LongLabel),
        }
        self.octets.extend_from_slice(label);
        // The root label is yet to come.
        if self.octets.len() >= LONGEST_NAME {
            return Err(NameError::Long);
        }
        Ok(())
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads a name, which is taken from the root on whether it ends in a dot or not.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut name = Self { octets: Vec::new() };
        if text != "." {
            let mut label = Vec::new();
            let mut characters = text.chars();
            while let Some(character) = characters.next() {
                match character {
                    '.' => {
                        name.push(&label)?;
                        label.clear();
                    }
                    '\\' => label.push(unescape(&mut characters)?),
                    '!'..='~' => label.push(character as u8),
                    _ => return Err(NameError::Character(character)),
                }
            }
            if !label.is_empty() || name.octets.is_empty() {
                name.push(&label)?;
            }
        }
        name.octets.push(0);
        Ok(name)
    }
}

/// The octet that an escape means, whose backslash was read.
fn unescape(characters: &mut std::str::Chars<'_>) -> Result<u8, NameError> {
    let first = characters.next().ok_or(NameError::Escape)?;
    if first.is_ascii_digit() {
        let digits: String = [first].into_iter().chain(characters.take(2)).collect();
        let is_whole = digits.len() == 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
        let octet = digits.parse().ok().filter(|_| is_whole);
        return octet.ok_or(NameError::Escape);
    }
    match first {
        '!'..='~' => Ok(first as u8),
        _ => Err(NameError::Character(first)),
    }
}

impl fmt::Display for Name {
    /// With the root's dot at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.octets[..];
        if rest == [0] {
            return f.write_char('.');
        }
        while let Some((&length @ 1.., tail)) = rest.split_first() {
            let (label, tail) = tail.split_at_checked(length.into()).unwrap_or((tail, &[]));
            write_escaped(f, label, '!', SPECIAL)?;
            f.write_char('.')?;
            rest = tail;
        }
        Ok(())
    }
}

/// Writes octets from `least` to the tilde as the characters that they are, behind a backslash if they are `special`, and
/// all others as numbers.
fn write_escaped(out: &mut impl Write, octets: &[u8], least: char, special: &[u8]) -> fmt::Result {
    for &octet in octets {
        let character = char::from(octet);
        if special.contains(&octet) {
            write!(out, "\\{character}")?;
        } else if (least..='~').contains(&character) {
            out.write_char(character)?;
        } else {
            write!(out, "\\{octet:03}")?;
        }
    }
    Ok(())
}

/// Octets as a string in quotation marks.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'m>(
    /// What is in it.
    pub &'m [u8],
);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write_escaped(f, self.0, ' ', QUOTES)?;
        f.write_char('"')
    }
}

/// A type of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type(
    /// Its number.
    pub u16,
);

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(f, TYPES, "TYPE", self.0)
    }
}

/// A text is no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeError;

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a type such as A, AAAA or TYPE65")
    }
}

impl std::error::Error for TypeError {}

impl FromStr for Type {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        let known = TYPES
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        if let Some((number, _)) = known {
            return Ok(Self(*number));
        }
        let digits = match text.split_at_checked(4) {
            Some((word, digits)) if word.eq_ignore_ascii_case("TYPE") => digits,
            _ => return Err(TypeError),
        };
        if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(TypeError);
        }
        digits.parse().map(Self).map_err(|_| TypeError)
    }
}

/// A response code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rcode(
    /// Its number, with the OPT's upper bits.
    pub u16,
);

impl fmt::Display for Rcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(f, RCODES, "RCODE", self.0)
    }
}

struct Class(u16);

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(f, CLASSES, "CLASS", self.0)
    }
}

/// A record as a line of a zone file, its fields with tabs between them: name, TTL, class, type, data.
#[derive(Debug)]
pub struct Line<'a, 'm> {
    /// The answer that it is in.
    pub answer: &'a Answer<'m>,
    /// Where in it.
    pub record: &'a Record,
}

impl fmt::Display for Line<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answer, record } = self;
        if let Some((owner, _)) = Name::read(answer.message(), record.start) {
            owner.fmt(f)?;
        }
        let (ttl, class, rtype) = (answer.ttl(record), Class(record.class), Type(record.rtype));
        write!(f, "\t{ttl}\t{class}\t{rtype}\t")?;
        let mut reader = Fields {
            message: answer.message(),
            at: record.data.start,
            end: record.data.end,
        };
        match reader.spell(fields(record.rtype, record.class)) {
            Some(data) => f.write_str(&data),
            None => {
                let data = answer.message().get(record.data.clone());
                write_unknown(f, data.unwrap_or_default())
            }
        }
    }
}

/// Writes data that have no form of their own, or not the one that their type has (RFC 3597 section 5).
fn write_unknown(out: &mut impl Write, data: &[u8]) -> fmt::Result {
    write!(out, "\\# {}", data.len())?;
    if !data.is_empty() {
        out.write_char(' ')?;
    }
    write_hex(out, data)
}

fn write_hex(out: &mut impl Write, octets: &[u8]) -> fmt::Result {
    octets
        .iter()
        .try_for_each(|octet| write!(out, "{octet:02X}"))
}

/// What RDATA consist of.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// An IPv4 address.
    V4,
    /// An IPv6 address.
    V6,
    /// Numbers of so many bits.
    U8,
    U16,
    U32,
    /// A domain name, which may be compressed.
    Name,
    /// A string behind its length, as a word.
    Tag,
    /// A string behind its length.
    Text,
    /// Such strings to the end, at least one.
    Texts,
    /// One string, of all that is left.
    Rest,
    /// Octets to the end, at least one.
    Hex,
}

/// The fields of a type's RDATA, for the types that are spelled in their own form.
fn fields(rtype: u16, class: u16) -> &'static [Field] {
    use Field::*;
    match rtype {
        1 if class == IN => &[V4],
        28 if class == IN => &[V6],
        2..=5 | 7..=9 | 12 | 39 => &[Name],
        6 => &[Name, Name, U32, U32, U32, U32, U32],
        13 => &[Text, Text],
        14 | 17 => &[Name, Name],
        15 | 18 | 21 | 36 => &[U16, Name],
        16 | 99 => &[Texts],
        33 => &[U16, U16, U16, Name],
        35 => &[U16, U16, Text, Text, Text, Name],
        43 | 59 => &[U16, U8, U8, Hex],
        44 => &[U8, U8, Hex],
        52 | 53 => &[U8, U8, U8, Hex],
        256 => &[U16, U16, Rest],
        257 => &[U8, Tag, Rest],
        _ => &[],
    }
}

/// RDATA in a message, read from their beginning.
struct Fields<'m> {
    message: &'m [u8],
    at: usize,
    end: usize,
}

impl<'m> Fields<'m> {
    /// All of them in words; none if they are not what the type wants, to the last octet.
    fn spell(&mut self, fields: &[Field]) -> Option<String> {
        let mut text = String::new();
        for (number, field) in fields.iter().enumerate() {
            if number > 0 {
                text.push(' ');
            }
            self.spell_one(&mut text, *field)?;
        }
        (!fields.is_empty() && self.at == self.end).then_some(text)
    }

    fn spell_one(&mut self, text: &mut String, field: Field) -> Option<()> {
        match field {
            Field::V4 => write!(text, "{}", Ipv4Addr::from(self.take::<4>()?)),
            Field::V6 => write!(text, "{}", Ipv6Addr::from(self.take::<16>()?)),
            Field::U8 => write!(text, "{}", u8::from_be_bytes(self.take()?)),
            Field::U16 => write!(text, "{}", u16::from_be_bytes(self.take()?)),
            Field::U32 => write!(text, "{}", u32::from_be_bytes(self.take()?)),
            Field::Name => write!(text, "{}", self.name()?),
            Field::Tag => write_escaped(text, self.string()?, '!', SPECIAL),
            Field::Text => write!(text, "{}", Quoted(self.string()?)),
            Field::Texts => {
                write!(text, "{}", Quoted(self.string()?)).ok()?;
                while self.at < self.end {
                    write!(text, " {}", Quoted(self.string()?)).ok()?;
                }
                Ok(())
            }
            Field::Rest => write!(text, "{}", Quoted(self.rest()?)),
            Field::Hex => write_hex(text, self.rest().filter(|rest| !rest.is_empty())?),
        }
        .ok()
    }

    fn name(&mut self) -> Option<Name> {
        let (name, end) = Name::read(self.message, self.at)?;
        self.at = end;
        (end <= self.end).then_some(name)
    }

    fn string(&mut self) -> Option<&'m [u8]> {
        let [length] = self.take()?;
        self.octets(length.into())
    }

    fn rest(&mut self) -> Option<&'m [u8]> {
        self.octets(self.end.checked_sub(self.at)?)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.octets(N)?.first_chunk().copied()
    }

    fn octets(&mut self, count: usize) -> Option<&'m [u8]> {
        let start = self.at;
        let end = start.checked_add(count).filter(|end| *end <= self.end)?;
        self.at = end;
        self.message.get(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(text: &str) -> Vec<u8> {
        text.parse::<Name>().expect(text).octets
    }

    /// An answer to `example. A` with one record in its answer section, whose owner is the question's name.
    fn answer(rtype: u16, class: u16, data: &[u8]) -> Vec<u8> {
        let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(b"\x07example\0\0\x01\0\x01\xc0\x0c");
        message.extend(rtype.to_be_bytes());
        message.extend(class.to_be_bytes());
        message.extend([0, 0, 1, 44]);
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        message
    }

    fn lines(message: &[u8]) -> Vec<String> {
        let Ok(answer) = Answer::parse(message) else {
            return Vec::new();
        };
        let records = answer.records();
        let spelled = |record: Record| {
            Line {
                answer: &answer,
                record: &record,
            }
            .to_string()
        };
        records.map(spelled).collect()
    }

    fn data(rtype: u16, data: &[u8]) -> String {
        let line = lines(&answer(rtype, IN, data)).remove(0);
        line.split('\t').nth(4).expect("data").to_owned()
    }

    #[test]
    fn a_name_is_read_as_people_write_it() {
        assert_eq!(octets("."), b"\0");
        assert_eq!(octets("a"), b"\x01a\0");
        assert_eq!(octets("a.B."), b"\x01a\x01B\0");
        assert_eq!(octets("a\\.b.c"), b"\x03a.b\x01c\0");
        assert_eq!(octets("a\\."), b"\x02a.\0");
        assert_eq!(octets("a\\\\."), b"\x02a\\\0");
        assert_eq!(octets("\\000\\255\\032x"), b"\x04\0\xff x\0");
        assert_eq!(octets("\\-x._tcp.@"), b"\x02-x\x04_tcp\x01@\0");
        let (long, rest) = ("x".repeat(63), "x".repeat(61));
        assert_eq!(octets(&format!("{long}.{long}.{long}.{rest}")).len(), 255);
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        let long = "x".repeat(63);
        for (text, error) in [
            ("", NameError::EmptyLabel),
            ("..", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            ("a..b", NameError::EmptyLabel),
            ("a..", NameError::EmptyLabel),
            (&"x".repeat(64), NameError::LongLabel),
            (&[&long[..]; 4].join("."), NameError::Long),
            (&format!("{}x", "y.".repeat(127)), NameError::Long),
            ("a\\", NameError::Escape),
            ("a\\256", NameError::Escape),
            ("a\\12", NameError::Escape),
            ("a\\1x2", NameError::Escape),
            ("a\\1é", NameError::Escape),
            ("a b", NameError::Character(' ')),
            ("a\\ b", NameError::Character(' ')),
            ("bücher.example", NameError::Character('ü')),
            ("a\nb", NameError::Character('\n')),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text:?}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn a_name_that_is_spelled_is_read_as_the_same() {
        for first in 0..=255 {
            for second in [0, b'.', b'\\', b'1', b'x', 0xff] {
                let name = Name {
                    octets: vec![2, first, second, 1, second, 0],
                };
                let spelled = name.to_string();
                assert!(
                    spelled.bytes().all(|octet| octet.is_ascii_graphic()),
                    "{spelled}"
                );
                assert_eq!(spelled.parse(), Ok(name), "{spelled}");
            }
        }
    }

    #[test]
    fn a_type_has_a_name_or_a_number() {
        for (text, number) in [
            ("A", 1),
            ("aaaa", 28),
            ("https", 65),
            ("TYPE1", 1),
            ("type65535", 65_535),
            ("TYPE0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Type(number)), "{text}");
        }
        for text in [
            "",
            "B",
            "TYPE",
            "TYPE65536",
            "TYPE+1",
            "TYPE-1",
            "1",
            "TYP€1",
        ] {
            assert_eq!(text.parse::<Type>(), Err(TypeError), "{text}");
        }
        for number in 0..=300 {
            assert_eq!(Type(number).to_string().parse(), Ok(Type(number)));
        }
        assert_eq!(Type(65_280).to_string(), "TYPE65280");
        let (known, unknown) = (Rcode(16).to_string(), Rcode(4095).to_string());
        assert_eq!((&known[..], &unknown[..]), ("BADVERS", "RCODE4095"));
    }

    #[test]
    fn records_are_spelled_in_the_form_of_their_type() {
        for (rtype, octets, spelled) in [
            (1, &[192, 0, 2, 1][..], "192.0.2.1"),
            (28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"),
            (5, b"\x03www\xc0\x0c", "www.example."),
            (2, b"\0", "."),
            (12, b"\x05a\tb\" \0", "a\\009b\\\"\\032."),
            (15, b"\0\x0a\x02mx\xc0\x0c", "10 mx.example."),
            (
                6,
                b"\x02ns\xc0\x0c\x04a.b@\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\xff\xff\xff\xff",
                "ns.example. a\\.b\\@.example. 1 2 3 4 4294967295",
            ),
            (16, b"\x03a \"\x02\x07\xff\0", "\"a \\\"\" \"\\007\\255\" \"\""),
            (33, b"\0\x01\0\x02\x03\xe8\xc0\x0c", "1 2 1000 example."),
            (35, b"\0\x01\0\x02\x01u\x01s\0\0", "1 2 \"u\" \"s\" \"\" ."),
            (257, b"\x80\x05issueca;x\\", "128 issue \"ca;x\\\\\""),
            (52, b"\x03\x01\x01\xab\x0c", "3 1 1 AB0C"),
            (65, b"\0\x01\0", "\\# 3 000100"),
            (65_280, b"", "\\# 0"),
        ] {
            assert_eq!(data(rtype, octets), spelled);
        }
        let whole = lines(&answer(1, IN, &[192, 0, 2, 1]));
        assert_eq!(whole, ["example.\t300\tIN\tA\t192.0.2.1"]);
        let chaos = lines(&answer(1, 3, &[0, 1, 2]));
        assert_eq!(chaos, ["example.\t300\tCH\tA\t\\# 3 000102"]);
    }

    #[test]
    fn data_that_are_not_what_their_type_wants_are_spelled_as_unknown() {
        for (rtype, octets) in [
            (1, &[192, 0, 2][..]),
            (1, &[192, 0, 2, 1, 1]),
            (2, b"\x03www"),
            (2, b"\xc0\x25"),
            (2, b"\xff\xff"),
            (2, b"\0\0"),
            (15, b"\0"),
            (16, b""),
            (16, b"\x04abc"),
            (33, b"\0\x01\0\x02\0\x03"),
            (52, b"\x03\x01\x01"),
            (257, b"\0\xffissue"),
        ] {
            assert!(
                data(rtype, octets).starts_with("\\# "),
                "{rtype} {octets:?}"
            );
        }
    }

    #[test]
    fn no_message_makes_it_panic_or_break_a_line() {
        let hostile: &[&[u8]] = &[
            b"\0\x0a\x02\n\t\xc0\x0c\x02ns\xc0\x0c\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
            b"\x03a\n\"\xc0\x0c\xc0\x0c\xc0\x22\xff\xff",
            &[0xc0; 40],
            &[0xff; 40],
            &[1; 40],
        ];
        let check = |message: &[u8]| {
            for line in lines(message) {
                let clean = |octet: u8| octet == b'\t' || (b' '..=b'~').contains(&octet);
                assert!(line.bytes().all(clean), "{line:?}");
                assert_eq!(line.matches('\t').count(), 4, "{line:?}");
                // Names are at most 255 octets of at most four characters, and there are two in RDATA at most.
                assert!(line.len() <= 4 * message.len() + 3 * 4 * LONGEST_NAME);
            }
        };
        for rtype in (0..=300).chain([65_280]) {
            for data in hostile {
                for length in 0..=data.len() {
                    check(&answer(rtype, IN, &data[..length]));
                }
            }
        }
        let whole = answer(6, IN, &hostile[0][2..]);
        for end in 0..whole.len() {
            check(&whole[..end]);
            for octet in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut changed = whole.clone();
                changed[end] = octet;
                check(&changed);
            }
        }
    }
}
