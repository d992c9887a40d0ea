//! Where are the records of a message?

use std::ops::Range;

use super::header::Header;
use super::name::{name_end, visit_pointer};
use super::octets::slice_from;
use super::parse_error::ParseError;

/// A section of a message that holds records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// The answer section.
    Answer,
    /// The authority section.
    Authority,
    /// The additional section, which also holds the OPT record.
    Additional,
}

/// The position of one record in its message, with its type and class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The section.
    pub section: Section,
    /// Position of the owner name.
    pub start: usize,
    /// The type.
    pub rtype: u16,
    /// The class; for an OPT record, the UDP payload size.
    pub class: u16,
    /// Position of the four octets of the TTL; for an OPT record, of the extended RCODE, version and flags.
    pub ttl_at: usize,
    /// Positions of the RDATA.
    pub rdata: Range<usize>,
}

/// Iterates over the records of a message, from the end of its question on. Ends after the first error.
pub(super) struct Records<'m> {
    message: &'m [u8],
    position: usize,
    remaining: [u16; 3],
    /// The names were validated before, so only their ends are searched for.
    validated: bool,
}

impl<'m> Records<'m> {
    pub(super) fn after_question(
        message: &'m [u8],
        question_end: usize,
    ) -> Result<Self, ParseError> {
        let [_, remaining @ ..] = Header::of(message)?.counts();
        Ok(Self {
            message,
            position: question_end,
            remaining,
            validated: false,
        })
    }

    /// The records of a message whose records were all validated before.
    pub(super) fn validated_records(
        message: &'m [u8],
        question_end: usize,
    ) -> impl Iterator<Item = Record> + use<'m> {
        Self::after_question(message, question_end)
            .map(|records| Self {
                validated: true,
                ..records
            })
            .into_iter()
            .flatten()
            .flatten()
    }

    /// The position after the last record that was read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn read(&mut self, section: Section) -> Result<Record, ParseError> {
        let start = self.position;
        let fixed = if self.validated {
            visit_pointer(self.message, start, &mut |_, _| {})
        } else {
            name_end(self.message, start)?
        };
        // Type, class, TTL, the length of the RDATA (RFC 1035 section 4.1.3).
        let (octets, behind) = slice_from(self.message, fixed)
            .split_first_chunk::<10>()
            .ok_or(ParseError::UnexpectedEnd)?;
        let [t1, t2, c1, c2, _, _, _, _, l1, l2] = *octets;
        let length = usize::from(u16::from_be_bytes([l1, l2]));
        if length > behind.len() {
            return Err(ParseError::UnexpectedEnd);
        }
        let rdata_start = fixed.saturating_add(octets.len());
        self.position = rdata_start.saturating_add(length);
        Ok(Record {
            section,
            start,
            rtype: u16::from_be_bytes([t1, t2]),
            class: u16::from_be_bytes([c1, c2]),
            ttl_at: fixed.saturating_add(4),
            rdata: rdata_start..self.position,
        })
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        const SECTIONS: [Section; 3] = [Section::Answer, Section::Authority, Section::Additional];
        let (remaining, section) = self
            .remaining
            .iter_mut()
            .zip(SECTIONS)
            .find(|(remaining, _)| **remaining > 0)?;
        *remaining = remaining.saturating_sub(1);
        let record = self.read(section);
        if record.is_err() {
            self.remaining = [0; 3];
        }
        Some(record)
    }
}

/// The number of RDATA octets before the names that may be compressed, and the number of such names. These are the types of
/// RFC 1035, and those whose names receivers have to decompress (RFC 3597 section 4).
pub(super) fn compressible_names(rtype: u16, rdata: &[u8]) -> (usize, usize) {
    match rtype {
        2..=5 | 7..=9 | 12 | 30 | 39 => (0, 1), // NS MD MF CNAME MB MG MR PTR NXT DNAME
        6 | 14 | 17 => (0, 2),                  // SOA MINFO RP
        15 | 18 | 21 | 36 => (2, 1),            // MX AFSDB RT KX
        26 => (2, 2),                           // PX
        33 => (6, 1),                           // SRV
        24 => (18, 1),                          // SIG
        // NAPTR: two numbers and three strings come before the name.
        35 => {
            let length = |at: usize| usize::from(rdata.get(at).copied().unwrap_or(0));
            let behind = |at: usize| at.saturating_add(1).saturating_add(length(at));
            (behind(behind(behind(4))), 1)
        }
        _ => (0, 0),
    }
}
