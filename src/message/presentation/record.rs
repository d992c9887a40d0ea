//! How is a record written in presentation format?

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::mnemonics::{Class, Type};
use super::name::{Name, Quoted, SPECIAL, write_escaped};
use crate::message::answer::Answer;
use crate::message::codes::class::IN;
use crate::message::record::Record;

/// A record as a line of a zone file: name, TTL, class, type and RDATA, separated by tabs.
#[derive(Debug)]
pub struct RecordLine<'a, 'm> {
    /// The answer that the record is in.
    pub answer: &'a Answer<'m>,
    /// The record.
    pub record: &'a Record,
}

impl RecordLine<'_, '_> {
    /// The owner's name; empty if it cannot be read.
    pub fn owner(&self) -> String {
        Name::read(self.answer.message(), self.record.start)
            .map_or_else(String::new, |(owner, _)| owner.to_string())
    }

    /// The RDATA.
    pub fn data(&self) -> String {
        let Self { answer, record } = self;
        let mut reader = RdataReader {
            message: answer.message(),
            position: record.rdata.start,
            end: record.rdata.end,
        };
        let known = reader.render(fields(record.rtype, record.class));
        known.unwrap_or_else(|| {
            let mut data = String::new();
            let octets = answer.message().get(record.rdata.clone());
            // A string takes everything.
            let _ = write_unknown_rdata(&mut data, octets.unwrap_or_default());
            data
        })
    }
}

impl fmt::Display for RecordLine<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answer, record } = self;
        let (ttl, class, rtype) = (answer.ttl(record), Class(record.class), Type(record.rtype));
        let (owner, data) = (self.owner(), self.data());
        write!(f, "{owner}\t{ttl}\t{class}\t{rtype}\t{data}")
    }
}

/// Writes RDATA of an unknown type, or that does not match its type (RFC 3597 section 5).
fn write_unknown_rdata(out: &mut impl Write, data: &[u8]) -> fmt::Result {
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

/// A field of RDATA.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// An unsigned number of 8, 16 or 32 bits, in network order.
    U8,
    U16,
    U32,
    /// A domain name, which may be compressed.
    Name,
    /// The tag of a CAA record: a length octet and a string, written without quotation marks (RFC 8659 section 4.1).
    CaaTag,
    /// A character string: a length octet and that many octets (RFC 1035 section 3.3).
    CharacterString,
    /// Character strings to the end, at least one.
    CharacterStrings,
    /// The remaining octets, as one string.
    Rest,
    /// The remaining octets, at least one, in hexadecimal.
    Hex,
}

/// The fields of a type's RDATA; none for types that are written as unknown.
fn fields(rtype: u16, class: u16) -> &'static [Field] {
    use Field::*;
    match rtype {
        1 if class == IN => &[Ipv4],
        28 if class == IN => &[Ipv6],
        2..=5 | 7..=9 | 12 | 39 => &[Name],
        6 => &[Name, Name, U32, U32, U32, U32, U32],
        13 => &[CharacterString, CharacterString],
        14 | 17 => &[Name, Name],
        15 | 18 | 21 | 36 => &[U16, Name],
        16 | 99 => &[CharacterStrings],
        33 => &[U16, U16, U16, Name],
        35 => &[
            U16,
            U16,
            CharacterString,
            CharacterString,
            CharacterString,
            Name,
        ],
        43 | 59 => &[U16, U8, U8, Hex],
        44 => &[U8, U8, Hex],
        52 | 53 => &[U8, U8, U8, Hex],
        256 => &[U16, U16, Rest],
        257 => &[U8, CaaTag, Rest],
        _ => &[],
    }
}

/// Reads the fields of RDATA in a message.
struct RdataReader<'m> {
    message: &'m [u8],
    position: usize,
    end: usize,
}

impl<'m> RdataReader<'m> {
    /// The text of all fields; none if the RDATA does not consist of exactly these fields.
    fn render(&mut self, fields: &[Field]) -> Option<String> {
        let mut text = String::new();
        for (number, field) in fields.iter().enumerate() {
            if number > 0 {
                text.push(' ');
            }
            self.render_field(&mut text, *field)?;
        }
        (!fields.is_empty() && self.position == self.end).then_some(text)
    }

    fn render_field(&mut self, text: &mut String, field: Field) -> Option<()> {
        match field {
            Field::Ipv4 => write!(text, "{}", Ipv4Addr::from(self.take::<4>()?)),
            Field::Ipv6 => write!(text, "{}", Ipv6Addr::from(self.take::<16>()?)),
            Field::U8 => write!(text, "{}", u8::from_be_bytes(self.take()?)),
            Field::U16 => write!(text, "{}", u16::from_be_bytes(self.take()?)),
            Field::U32 => write!(text, "{}", u32::from_be_bytes(self.take()?)),
            Field::Name => write!(text, "{}", self.name()?),
            Field::CaaTag => write_escaped(text, self.character_string()?, '!', SPECIAL),
            Field::CharacterString => write!(text, "{}", Quoted(self.character_string()?)),
            Field::CharacterStrings => {
                write!(text, "{}", Quoted(self.character_string()?)).ok()?;
                while self.position < self.end {
                    write!(text, " {}", Quoted(self.character_string()?)).ok()?;
                }
                Ok(())
            }
            Field::Rest => write!(text, "{}", Quoted(self.rest()?)),
            Field::Hex => write_hex(text, self.rest().filter(|rest| !rest.is_empty())?),
        }
        .ok()
    }

    fn name(&mut self) -> Option<Name> {
        let (name, end) = Name::read(self.message, self.position)?;
        self.position = end;
        (end <= self.end).then_some(name)
    }

    fn character_string(&mut self) -> Option<&'m [u8]> {
        let [length] = self.take()?;
        self.octets(length.into())
    }

    fn rest(&mut self) -> Option<&'m [u8]> {
        self.octets(self.end.checked_sub(self.position)?)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.octets(N)?.first_chunk().copied()
    }

    fn octets(&mut self, count: usize) -> Option<&'m [u8]> {
        let start = self.position;
        let end = start.checked_add(count).filter(|end| *end <= self.end)?;
        self.position = end;
        self.message.get(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::RecordLine;
    use crate::message::answer::Answer;
    use crate::message::codes::MAX_NAME_LEN;
    use crate::message::codes::class::IN;
    use crate::message::record::Record;

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
        let line = |record: Record| {
            RecordLine {
                answer: &answer,
                record: &record,
            }
            .to_string()
        };
        records.map(line).collect()
    }

    fn data(rtype: u16, data: &[u8]) -> String {
        let line = lines(&answer(rtype, IN, data)).remove(0);
        line.split('\t').nth(4).expect("data").to_owned()
    }

    #[test]
    fn records_are_written_in_the_form_of_their_type() {
        for (rtype, octets, expected) in [
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
            assert_eq!(data(rtype, octets), expected);
        }
        let whole = lines(&answer(1, IN, &[192, 0, 2, 1]));
        assert_eq!(whole, ["example.\t300\tIN\tA\t192.0.2.1"]);
        let chaos = lines(&answer(1, 3, &[0, 1, 2]));
        assert_eq!(chaos, ["example.\t300\tCH\tA\t\\# 3 000102"]);
    }

    #[test]
    fn malformed_rdata_is_written_as_of_an_unknown_type() {
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
                assert!(line.len() <= 4 * message.len() + 3 * 4 * MAX_NAME_LEN);
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
