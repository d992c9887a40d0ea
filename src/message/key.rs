//! Which queries can share an answer, in the cache or in flight?

use smallvec::SmallVec;

use super::octets::slice_from;
use super::question::QTYPE_QCLASS_LEN;

/// The key of queries that can share an answer: the name in lower case (RFC 4343), type and class; the bits DO and CD, which
/// change the answer; and the ECS opt-out (RFC 7871 section 7.1.2), which changes the queries that the resolver sends.
pub struct QuestionKey<'k>(KeyOctets<'k>);

/// One octet of bits, then the question in lower case.
enum KeyOctets<'k> {
    /// Most names fit into 64 octets, without an allocation.
    Owned(SmallVec<[u8; 64]>),
    Borrowed(&'k [u8]),
}

impl QuestionKey<'_> {
    pub(super) const DNSSEC_OK: u8 = 1;
    pub(super) const CHECKING_DISABLED: u8 = 2;
    pub(super) const ECS_OPT_OUT: u8 = 4;

    /// The key of a query with this question, DO and CD, which does not opt out of ECS.
    #[cfg(test)]
    pub(crate) fn new(question: &[u8], dnssec_ok: bool, checking_disabled: bool) -> Self {
        let dnssec_ok = flag_if(dnssec_ok, Self::DNSSEC_OK);
        let checking_disabled = flag_if(checking_disabled, Self::CHECKING_DISABLED);
        Self::with_bits(question, dnssec_ok | checking_disabled)
    }

    pub(super) fn with_bits(question: &[u8], bits: u8) -> Self {
        let mut octets = SmallVec::new();
        octets.push(bits);
        octets.extend_from_slice(question);
        if let Some((name, _)) = octets.split_last_chunk_mut::<QTYPE_QCLASS_LEN>() {
            // Bits and length octets are below 64, where there are no letters.
            name.make_ascii_lowercase();
        }
        Self(KeyOctets::Owned(octets))
    }

    /// The question in lower case.
    pub fn question(&self) -> &[u8] {
        slice_from(self.octets(), 1)
    }

    /// The bits, in one octet.
    pub fn bits(&self) -> u8 {
        self.octets().first().copied().unwrap_or_default()
    }

    /// Whether the client accepts DNSSEC records (DO).
    pub fn dnssec_ok(&self) -> bool {
        self.bits() & Self::DNSSEC_OK != 0
    }

    /// The whole key.
    pub fn octets(&self) -> &[u8] {
        match &self.0 {
            KeyOctets::Owned(octets) => octets,
            KeyOctets::Borrowed(octets) => octets,
        }
    }
}

impl<'k> QuestionKey<'k> {
    /// The key whose [`QuestionKey::octets`] these are.
    pub fn from_octets(octets: &'k [u8]) -> Self {
        Self(KeyOctets::Borrowed(octets))
    }
}

/// `flag` if `is_set`, else 0.
pub(super) fn flag_if(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::QuestionKey;
    use crate::message::test_messages::{A, NS, labels, name, question_for};

    #[test]
    fn questions_share_a_key_when_they_differ_in_case_alone() {
        let key = |question: &[u8]| QuestionKey::new(question, false, false);
        let lower = question_for(name("www.example.com"), A);
        assert_eq!(key(&lower).question(), lower);
        assert_eq!(
            key(&question_for(name("wWw.EXAMPLE.com"), A)).octets(),
            key(&lower).octets()
        );
        // Types and classes have no case: 65 is not 97.
        let odd = [&name("www.example.com")[..], &[0x41, 0x42, 0x43, 0x44]].concat();
        assert_eq!(key(&odd).question(), odd);
        let others = [
            key(&question_for(name("www.example.org"), A)),
            key(&question_for(name("www.example.com"), NS)),
            key(&odd),
            QuestionKey::new(&lower, true, false),
            QuestionKey::new(&lower, false, true),
            QuestionKey::new(&lower, true, true),
        ];
        let different: HashSet<_> = others.iter().map(QuestionKey::octets).collect();
        assert_eq!(different.len(), others.len());
        assert!(!different.contains(key(&lower).octets()));
        let long = [b'X'; 63];
        let longest = question_for(labels(&[&long, &long, &long, &long[..61]]), 65_535);
        assert_eq!(key(&longest).question(), longest.to_ascii_lowercase());
    }
}
