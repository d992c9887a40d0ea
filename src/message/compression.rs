//! How do compressed names survive when a message is changed?
//!
//! A compression pointer is a position in the message: it breaks when its target moves, and a name changes when octets that it
//! includes are changed.

use std::ops::Range;

use super::codes::{HEADER_LEN, MAX_NAME_LEN, rtype};
use super::name::{name_end, visit_pointer};
use super::octets::{overwrite, slice_at, slice_from};
use super::parse_error::ParseError;
use super::record::{Record, Records, compressible_names};

/// A message whose records are all validated, with their names.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValidatedMessage<'m> {
    /// The message, without any octets after its last record.
    octets: &'m [u8],
    question_end: usize,
}

impl<'m> ValidatedMessage<'m> {
    pub(super) fn new(octets: &'m [u8], question_end: usize) -> Self {
        Self {
            octets,
            question_end,
        }
    }

    pub(super) fn octets(&self) -> &'m [u8] {
        self.octets
    }

    /// The question's octets; empty in an error without a question.
    pub(super) fn question(&self) -> &'m [u8] {
        slice_at(self.octets, HEADER_LEN..self.question_end)
    }

    /// The records, in order.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> + use<'m> {
        Records::validated_records(self.octets, self.question_end)
    }

    /// Checks that the OPT record at `opt` can be removed without breaking names of later records: each of their pointers must lead
    /// either to labels that end before the OPT, or to labels after it that contain no pointer to be moved except the one at their
    /// end.
    pub(super) fn check_opt_removable(&self, opt: &Range<usize>) -> Result<(), ParseError> {
        // The pointers so far, in the order of their positions.
        let (mut removable, mut pointers) = (true, Vec::new());
        self.visit_pointers_after_opt(opt, |at, target, in_data| {
            // The target of a valid name lies before its pointer, and so does the target of each further pointer. Owner names
            // were validated before.
            removable = removable && (!in_data || name_end(self.octets, at).is_ok());
            if !removable {
                return;
            }
            let mut last = None;
            let end = visit_pointer(self.octets, target, &mut |at, _| last = Some(at));
            removable = if target < opt.end {
                end <= opt.start
            } else {
                let touched = pointers
                    .partition_point(|&pointer: &usize| pointer.saturating_add(2) <= target);
                pointers.get(touched).copied().filter(|&at| at < end) == last
            };
            pointers.push(at);
        });
        if removable {
            Ok(())
        } else {
            Err(ParseError::Name)
        }
    }

    /// Appends the message without the OPT record at `opt`. ARCOUNT stays as it is.
    pub(super) fn write_without_opt(&self, opt: &Range<usize>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(slice_at(self.octets, 0..opt.start));
        out.extend_from_slice(slice_from(self.octets, opt.end));
        let opt_len = opt.len();
        self.visit_pointers_after_opt(opt, |at, target, _| {
            if target >= opt.end {
                // Pointer and target were after the OPT and have moved up by its length.
                let at = start.saturating_add(at).saturating_sub(opt_len);
                let moved = 0xc000 | target.saturating_sub(opt_len) as u16;
                overwrite(out, at, &moved.to_be_bytes());
            }
        });
    }

    /// Whether a compressed name includes octets of a TTL, so that it would change when the TTL is decremented. No usual encoder makes
    /// such a pointer.
    pub(super) fn names_overlap_ttls(&self) -> bool {
        let records = self.records().filter(|record| record.rtype != rtype::OPT);
        let ttls: Vec<_> = records.map(|record| record.ttl_at).collect();
        let (mut followed, mut found) = (Vec::new(), false);
        self.visit_pointers(self.question_end, |_, target, _| {
            let mut next = Some(target);
            while let Some(position) = next.take() {
                // Longer labels, or a pointer forwards, are no name, and no client can use the record.
                // A pointer is one octet longer than the root label.
                let max_end = position.saturating_add(MAX_NAME_LEN).saturating_add(1);
                let part = slice_at(self.octets, 0..max_end.min(self.octets.len()));
                let end = visit_pointer(part, position, &mut |_, target| {
                    next = Some(target).filter(|target| *target < position);
                });
                // There is no TTL before the first record. A target that many pointers share is followed once.
                if end <= self.question_end {
                    return;
                }
                if followed.is_empty() {
                    followed.resize(self.octets.len(), false);
                }
                match followed.get_mut(position) {
                    Some(followed) if !*followed => *followed = true,
                    _ => return,
                }
                let behind = ttls.partition_point(|ttl| ttl.saturating_add(4) <= position);
                found |= ttls.get(behind).is_some_and(|ttl| *ttl < end);
            }
        });
        found
    }

    /// [`ValidatedMessage::visit_pointers`] in the records after `opt`.
    fn visit_pointers_after_opt(&self, opt: &Range<usize>, visit: impl FnMut(usize, usize, bool)) {
        if opt.end < self.octets.len() {
            self.visit_pointers(opt.end, visit);
        }
    }

    /// Calls `visit` with position and target of every compression pointer in the records from `start` on, and whether it is in
    /// RDATA. Pointers are in owner names, and in the RDATA of the types that may compress names (RFC 3597 section 4).
    fn visit_pointers(&self, start: usize, mut visit: impl FnMut(usize, usize, bool)) {
        for record in self.records().filter(|record| record.start >= start) {
            visit_pointer(self.octets, record.start, &mut |at, target| {
                visit(at, target, false)
            });
            // A name that runs past its RDATA is broken; what follows the RDATA must not be changed.
            let whole = slice_at(self.octets, 0..record.rdata.end);
            let (skip, names) =
                compressible_names(record.rtype, slice_from(whole, record.rdata.start));
            let mut position = record.rdata.start.saturating_add(skip);
            for _ in 0..names {
                position =
                    visit_pointer(whole, position, &mut |at, target| visit(at, target, true));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::message::octets::u16_at;
    use crate::message::parse_error::ParseError;
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, Draft, NS, UNKNOWN, answer_error, our_opt, pointer, question,
        relayed, with_tail,
    };

    #[test]
    fn pointers_after_an_opt_are_adjusted_when_it_is_removed() {
        let plain = Draft::query(&question());
        let naptr = b"\xc0\xff\xc0\xff\x01U\x03E2U\0";
        for (rtype, before, names) in [
            (NS, &b""[..], 1),
            (3, b"", 1),                          // MD
            (4, b"", 1),                          // MF
            (5, b"", 1),                          // CNAME
            (6, b"", 2),                          // SOA
            (7, b"", 1),                          // MB
            (8, b"", 1),                          // MG
            (9, b"", 1),                          // MR
            (12, b"", 1),                         // PTR
            (14, b"", 2),                         // MINFO
            (15, b"\xc0\xff", 1),                 // MX
            (17, b"", 2),                         // RP
            (18, b"\xc0\xff", 1),                 // AFSDB
            (21, b"\xc0\xff", 1),                 // RT
            (24, b"\xc0\xffsignature header", 1), // SIG
            (26, b"\xc0\xff", 2),                 // PX
            (30, b"", 1),                         // NXT
            (33, b"\xc0\xff\xc0\xff\xc0\xff", 1), // SRV
            (35, naptr, 1),                       // NAPTR
            (36, b"\xc0\xff", 1),                 // KX
            (39, b"", 1),                         // DNAME
            (A, b"\xc0\xff\xc0\xff", 0),
            (16, b"\x02\xc0\xff", 0), // TXT
            (UNKNOWN, b"\xc0\xff", 0),
        ] {
            // Names that point to an owner after the OPT, to a pointer in it and, as an owner, to RDATA.
            let record = |draft: Draft, tail: usize| {
                let mut data = before.to_vec();
                for name in 0..names {
                    let target = tail + [0, 5][name % 2];
                    data.extend_from_slice(&[&b"\x02ns"[..], &pointer(target)].concat());
                }
                let data_at = draft.len() + 2 + 10;
                data.extend_from_slice(&[0xc0, 0xff, 0xc0, 0xff]);
                let draft = draft.record(ADDITIONAL, &pointer(tail), rtype, &data);
                if names == 0 {
                    return draft;
                }
                let owner = pointer(data_at + before.len());
                draft.record(ADDITIONAL, &owner, NS, &pointer(tail))
            };
            let (with, without) = (with_tail(true, record), with_tail(false, record));
            assert_eq!(relayed(&plain, &with), without.0, "type {rtype}");
            let expected = without.clone().octets(&our_opt(0, 0, &[]));
            let count = u16_at(&without.0, 10).unwrap() + 1;
            let found = relayed(&plain.clone().opt(&[]), &with);
            assert_eq!(found, expected.count(ADDITIONAL, count).0, "type {rtype}");
        }
    }

    #[test]
    fn broken_names_after_an_opt_change_nothing() {
        let ns = |data: &'static [u8]| {
            move |draft: Draft, _| {
                let draft = draft.record(ADDITIONAL, &[0], NS, data);
                draft.record(ADDITIONAL, &[0], UNKNOWN, &[0xff; 2])
            }
        };
        // None; half a pointer; no pointer; a label of eleven octets, which are all of the next record before its RDATA.
        for data in [&b""[..], b"\xc0", b"\x80\xff", b"\x0b"] {
            let (with, without) = (with_tail(true, ns(data)), with_tail(false, ns(data)));
            assert_eq!(relayed(&Draft::query(&question()), &with), without.0);
        }
    }

    #[test]
    fn an_opt_that_names_need_is_refused() {
        let opt_at = Draft::answer(&question()).len();
        // Its root owner; its padding, as a name; its middle.
        for target in [opt_at, opt_at + 15, opt_at + 20] {
            for labels in [&b""[..], b"\x01a"] {
                let name = [labels, &pointer(target)].concat();
                let owner = with_tail(true, |draft, _| draft.record(3, &name, A, &[]));
                assert_eq!(answer_error(&owner), Some(ParseError::Name));
                let data = with_tail(true, |draft, _| draft.record(3, &[0], NS, &name));
                assert_eq!(answer_error(&data), Some(ParseError::Name));
            }
        }
        // A name that begins before the OPT and ends in it: its label is the OPT's owner, its end is the type's upper octet.
        let front = Draft::answer(&question()).record(ANSWER, &[0], UNKNOWN, &[1]);
        let straddling = front.clone().opt(&[]);
        let owner = pointer(front.len() - 1);
        assert_eq!(answer_error(&straddling), None);
        let straddling = straddling.record(ADDITIONAL, &owner, A, &[]);
        assert_eq!(answer_error(&straddling), Some(ParseError::Name));
    }

    #[test]
    fn an_opt_before_names_that_cannot_be_moved_is_refused() {
        // Names after the OPT that are valid where they are, and would not be if moved.
        type Tail = fn(Draft, usize) -> Draft;
        let tails: [Tail; 4] = [
            // One leads to a pointer in RDATA that holds no names, which would not be adjusted.
            |draft, tail| {
                let data = pointer(draft.len() + 11);
                draft
                    .record(ADDITIONAL, &[0], UNKNOWN, &pointer(tail))
                    .record(ADDITIONAL, &data, A, &[])
            },
            // One takes a length and the pointer after it for a label.
            |draft, tail| {
                let length = pointer(draft.len() + 10);
                draft
                    .record(ADDITIONAL, &[0], NS, &pointer(tail))
                    .record(ADDITIONAL, &[0], A, &[])
                    .record(ADDITIONAL, &length, A, &[])
            },
            // One takes the second octet of a pointer for a length.
            |draft, _| {
                let filler = vec![0; 0x0102 - draft.len() - 11];
                let draft = draft.record(ADDITIONAL, &[0], UNKNOWN, &filler).record(
                    ADDITIONAL,
                    &[0],
                    NS,
                    &pointer(0x0102),
                );
                let length = pointer(draft.len() - 1);
                draft
                    .record(ADDITIONAL, &[0], A, &[])
                    .record(ADDITIONAL, &length, A, &[])
            },
            // One changes with the header.
            |draft, _| draft.record(ADDITIONAL, &[0], NS, &pointer(10)),
        ];
        for tail in tails {
            assert_eq!(answer_error(&with_tail(true, tail)), Some(ParseError::Name));
            assert_eq!(answer_error(&with_tail(false, tail)), None);
            // An OPT after all names can be removed.
            assert_eq!(answer_error(&with_tail(false, tail).opt(&[])), None);
        }
    }
}
