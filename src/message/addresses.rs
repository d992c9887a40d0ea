//! Which addresses does an answer name?

use std::net::IpAddr;

use super::answer::Answer;
use super::codes::rtype;
use super::name::visit_pointer;
use super::octets::{slice_at, slice_from};

/// Length in octets of SvcPriority, which precedes the TargetName of a service binding (RFC 9460 section 2.2).
const SVC_PRIORITY_LEN: usize = 2;
/// The keys of the parameters of a service binding that hold addresses (RFC 9460 section 14.3.2).
const IPV4_HINT: u16 = 4;
const IPV6_HINT: u16 = 6;

/// The addresses in all sections of `answer`: those of A and AAAA records, and the hints of SVCB and HTTPS records (RFC 9460 section
/// 7.3), whatever the owner and the class are.
///
/// RDATA is not validated. From malformed RDATA come the addresses that a lenient client could read there.
pub fn addresses<'m>(answer: &Answer<'m>) -> impl Iterator<Item = IpAddr> + use<'m> {
    let message = answer.message();
    answer.records().flat_map(move |record| {
        let rdata = slice_at(message, record.rdata);
        let (list, parameters) = match record.rtype {
            rtype::A => (Some(AddressList::V4(rdata)), &[][..]),
            rtype::AAAA => (Some(AddressList::V6(rdata)), &[][..]),
            rtype::SVCB | rtype::HTTPS => {
                let parameters = visit_pointer(rdata, SVC_PRIORITY_LEN, &mut |_, _| {});
                (None, slice_from(rdata, parameters))
            }
            _ => (None, &[][..]),
        };
        let hints = SvcParams { rest: parameters }.filter_map(|(key, value)| match key {
            IPV4_HINT => Some(AddressList::V4(value)),
            IPV6_HINT => Some(AddressList::V6(value)),
            _ => None,
        });
        list.into_iter()
            .chain(hints)
            .flat_map(AddressList::addresses)
    })
}

/// The octets of addresses, one after the other.
#[derive(Clone, Copy)]
enum AddressList<'m> {
    V4(&'m [u8]),
    V6(&'m [u8]),
}

impl<'m> AddressList<'m> {
    /// The addresses. Octets that are left over at the end are none.
    fn addresses(self) -> impl Iterator<Item = IpAddr> + use<'m> {
        let (v4, v6) = match self {
            Self::V4(octets) => (octets.as_chunks().0, &[][..]),
            Self::V6(octets) => (&[][..], octets.as_chunks().0),
        };
        let v4 = v4.iter().map(|octets: &[u8; 4]| IpAddr::from(*octets));
        v4.chain(v6.iter().map(|octets: &[u8; 16]| IpAddr::from(*octets)))
    }
}

/// Iterates over the parameters of a service binding (RFC 9460 section 2.2): each has a key and a value.
struct SvcParams<'m> {
    rest: &'m [u8],
}

impl<'m> Iterator for SvcParams<'m> {
    type Item = (u16, &'m [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[k1, k2, l1, l2], behind) = self.rest.split_first_chunk()?;
        let length = u16::from_be_bytes([l1, l2]).into();
        // A value that is cut off ends with the RDATA.
        let (value, rest) = behind.split_at_checked(length).unwrap_or((behind, &[]));
        self.rest = rest;
        Some((u16::from_be_bytes([k1, k2]), value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::codes::HEADER_LEN;
    use crate::message::test_messages::{
        A, ADDITIONAL, ANSWER, AUTHORITY, Draft, UNKNOWN, name, pointer, question,
    };

    const ONE: [u8; 4] = [192, 0, 2, 1];
    const TWO: [u8; 4] = [192, 0, 2, 2];
    const SIX: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    /// The addresses in an answer, as text.
    fn named(draft: &Draft) -> Vec<String> {
        let answer = Answer::parse(&draft.0).unwrap();
        addresses(&answer).map(|ip| ip.to_string()).collect()
    }

    /// The addresses in an answer whose one record is of this type.
    fn named_by(rtype: u16, rdata: &[u8]) -> Vec<String> {
        let draft = Draft::answer(&question());
        named(&draft.record(ANSWER, &pointer(HEADER_LEN), rtype, rdata))
    }

    /// RDATA of a service binding with these parameters.
    fn service(target: &[u8], parameters: &[(u16, &[u8])]) -> Vec<u8> {
        let mut rdata = [&[0, 1], target].concat();
        for (key, value) in parameters {
            rdata.extend_from_slice(&key.to_be_bytes());
            rdata.extend_from_slice(&(value.len() as u16).to_be_bytes());
            rdata.extend_from_slice(value);
        }
        rdata
    }

    #[test]
    fn the_addresses_of_all_sections_and_owners_are_found() {
        let other = name("other.example");
        let draft = Draft::answer(&question())
            .record(ANSWER, &pointer(HEADER_LEN), 5, &other)
            .record(ANSWER, &other, A, &ONE)
            .record_with(ANSWER, &other, A, 3, [0; 4], &TWO)
            .record(AUTHORITY, &other, rtype::AAAA, &SIX)
            .opt(&[])
            .record(ADDITIONAL, &[0], A, &TWO);
        let expected = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.2"];
        assert_eq!(named(&draft), expected);
        let empty: [&str; 0] = [];
        assert_eq!(named(&Draft::answer(&question())), empty);
        for rtype in [5, 12, 16, UNKNOWN] {
            assert_eq!(named_by(rtype, &[192, 0, 2, 1, 0]), empty, "{rtype}");
        }
    }

    #[test]
    fn the_hints_of_service_bindings_are_found() {
        let both = [&ONE[..], &TWO].concat();
        let parameters: [(u16, &[u8]); 5] = [
            (1, b"\x02h2\x02h3"),
            (3, &[0x01, 0xbb]),
            (4, &both),
            (5, &ONE),
            (6, &SIX),
        ];
        for rtype in [rtype::SVCB, rtype::HTTPS] {
            for target in [&[0][..], &name("svc.example.net"), &pointer(HEADER_LEN)] {
                let found = named_by(rtype, &service(target, &parameters));
                assert_eq!(found, ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
            }
        }
        assert!(named_by(UNKNOWN, &service(&[0], &parameters)).is_empty());
    }

    #[test]
    fn what_can_be_read_of_malformed_rdata_is_found() {
        assert_eq!(named_by(A, &[192, 0, 2, 1, 7]), ["192.0.2.1"]);
        assert!(named_by(A, &[192, 0, 2]).is_empty());
        assert!(named_by(rtype::AAAA, &SIX[..15]).is_empty());
        let hint = service(&[0], &[(4, &[192, 0, 2, 1, 192, 0])]);
        assert_eq!(named_by(rtype::SVCB, &hint), ["192.0.2.1"]);
        // Keys out of order, and twice.
        let twice = service(&[0], &[(6, &SIX), (4, &ONE), (4, &TWO)]);
        let expected = ["2001:db8::1", "192.0.2.1", "192.0.2.2"];
        assert_eq!(named_by(rtype::HTTPS, &twice), expected);
        // Each part of a service binding, cut off.
        let whole = service(&name("svc.example"), &[(4, &ONE), (4, &TWO)]);
        for length in 0..whole.len() {
            let found = named_by(rtype::SVCB, &whole[..length]).len();
            let expected = usize::from(length >= whole.len() - 8);
            assert_eq!(found, expected, "{length} octets");
        }
        // A value that is longer than the RDATA.
        let mut cut = service(&[0], &[(4, &ONE)]);
        cut[5] = 0xff;
        assert_eq!(named_by(rtype::SVCB, &cut), ["192.0.2.1"]);
    }

    proptest! {
        #[test]
        fn any_rdata_can_be_read(
            rtype in prop::sample::select(&[1_u16, 28, 64, 65][..]),
            rdata in vec(any::<u8>(), 0..80),
        ) {
            let found = named_by(rtype, &rdata);
            prop_assert!(found.len() <= rdata.len() / 4);
        }

        #[test]
        fn each_hint_is_found_among_any_parameters(
            before in vec((7_u16.., vec(any::<u8>(), 0..20)), 0..4),
            hints in vec(any::<[u8; 4]>(), 0..4),
            labels in vec("[a-z]{1,10}", 1..4),
        ) {
            let hint = hints.concat();
            let mut parameters: Vec<_> = before.iter().map(|(key, value)| (*key, &value[..])).collect();
            parameters.push((IPV4_HINT, &hint));
            let found = named_by(rtype::SVCB, &service(&name(&labels.join(".")), &parameters));
            let expected: Vec<_> = hints.iter().map(|octets| IpAddr::from(*octets).to_string()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
