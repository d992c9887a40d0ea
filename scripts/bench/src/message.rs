//! The messages of the bench: questions that follow from a number, and answers that follow from the question. So whoever
//! asked can tell whether an answer is the right one, and nobody has to keep a list of names.

use std::net::Ipv4Addr;

/// Octets of a message's header.
const HEADER: usize = 12;
/// What all names end in. No forwarder treats names in `example` by rules of their own, as several do those in `test`.
const ZONE: &[u8] = b"\x04load\x07example\0";
/// Octets of a name: a label of one letter and sixteen digits in the zone.
const NAME: usize = 1 + 17 + ZONE.len();
/// Octets of the question of every query.
const QUESTION: usize = NAME + 4;
/// Type A, class IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
/// An OPT record of the sizes that RFC 9715 recommends, without options.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0];
/// The blocks to which resolvers pad answers (RFC 8467 section 4.1).
const BLOCK: usize = 468;
const SERVFAIL: u8 = 2;

/// The question for the address of the name of that number.
fn question(number: u64) -> [u8; QUESTION] {
    let mut octets = [0; QUESTION];
    octets[0] = 17;
    octets[1] = b'q';
    for (place, digit) in octets[2..18].iter_mut().enumerate() {
        let nibble = (number >> (60 - 4 * place)) & 15;
        *digit = b"0123456789abcdef"[usize::try_from(nibble).unwrap_or_default()];
    }
    octets[18..NAME].copy_from_slice(ZONE);
    octets[NAME..].copy_from_slice(&ADDRESS);
    octets
}

/// Appends the query for the address of the name of that number.
pub fn write_query(id: u16, number: u64, edns: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend_from_slice(&question(number));
    if edns {
        out.extend_from_slice(&OPT);
    }
}

/// The ID of a message.
#[must_use]
pub fn id(message: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(..2)?.try_into().ok()?))
}

/// The first message of a stream, where each is behind its length, and what follows it; nothing where it is not whole yet.
#[must_use]
pub fn split_first(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = stream.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The question that was asked, and its address.
    Good,
    /// The question that was asked, and SERVFAIL.
    ServFail,
    /// Anything else.
    Wrong,
}

/// Whether an answer is that to the question for the name of that number.
#[must_use]
pub fn judge(answer: &[u8], number: u64) -> Verdict {
    let asked = question(number);
    let is_answer = answer.len() >= HEADER + QUESTION
        && answer[2] & 0x80 != 0
        && answer[4..6] == [0, 1]
        && answer[HEADER..HEADER + QUESTION] == asked;
    if !is_answer {
        return Verdict::Wrong;
    }
    if answer[3] & 15 == SERVFAIL {
        return Verdict::ServFail;
    }
    let record = &answer[HEADER + QUESTION..];
    let record = record
        .strip_prefix(&[0xC0, 12])
        .or_else(|| record.strip_prefix(&asked[..NAME]))
        .unwrap_or_default();
    let is_right = answer[3] & 15 == 0
        && answer[2] & 2 == 0
        && answer[6..8] == [0, 1]
        && record.starts_with(&ADDRESS)
        && record.get(8..14).is_some_and(|rest| {
            rest[..2] == [0, 4] && rest[2..] == address_of(&asked[..NAME]).octets()
        });
    if is_right {
        Verdict::Good
    } else {
        Verdict::Wrong
    }
}

/// The address of a name: one of those that are set aside for benchmarks (RFC 2544), whatever the name's case.
fn address_of(name: &[u8]) -> Ipv4Addr {
    let hash = name.iter().fold(0x811C_9DC5_u32, |hash, octet| {
        (hash ^ u32::from(octet.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from(0xC612_0000 | (hash ^ (hash >> 15)) & 0x1_FFFF)
}

/// How a resolver answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// How long answers may be kept, in seconds.
    pub ttl: u32,
    /// Answers are padded where their query is.
    pub padding: bool,
}

/// Appends the answer to a query, behind its length: an address for who asks for one, else that there is none.
///
/// Nothing, where it is no query that could be answered.
pub fn write_answer(query: &[u8], manner: Manner, out: &mut Vec<u8>) -> Option<()> {
    let name = name_length(query.get(HEADER..)?)?;
    let end = HEADER + name + 4;
    let question = query.get(HEADER..end)?;
    if query[2] & 0x80 != 0 || query[4..6] != [0, 1] {
        return None;
    }
    let opt = query
        .get(end..end + 11)
        .filter(|opt| query[10..12] != [0, 0] && opt[..3] == [0, 0, 41]);
    let has_address = question[name..] == ADDRESS;
    let start = out.len() + 2;
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&query[..2]);
    // QR, opcode and RD as they were, RA.
    out.extend_from_slice(&[0x80 | query[2] & 0x79, 0x80, 0, 1]);
    let counts = [0, u8::from(has_address), 0, u8::from(!has_address)];
    out.extend_from_slice(&counts);
    out.extend_from_slice(&[0, u8::from(opt.is_some())]);
    out.extend_from_slice(question);
    if has_address {
        out.extend_from_slice(&[0xC0, 12]);
        out.extend_from_slice(&ADDRESS);
        out.extend_from_slice(&manner.ttl.to_be_bytes());
        out.extend_from_slice(&[0, 4]);
        out.extend_from_slice(&address_of(&question[..name]).octets());
    } else {
        // The root's SOA record, with names as short as they can be: who keeps answers keeps this one for as long.
        out.extend_from_slice(&[0, 0, 6, 0, 1]);
        out.extend_from_slice(&manner.ttl.to_be_bytes());
        out.extend_from_slice(&[0, 22, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&manner.ttl.to_be_bytes());
    }
    if let Some(opt) = opt {
        let begin = out.len();
        out.extend_from_slice(&OPT);
        // DO comes back as it was (RFC 3225 section 3).
        out[begin + 7] = opt[7] & 0x80;
        if manner.padding && is_padded(&query[end + 11..]) {
            let bare = out.len() - start + 4;
            let octets = bare.next_multiple_of(BLOCK) - bare;
            let [high, low] = u16::try_from(octets).ok()?.to_be_bytes();
            let [data_high, data_low] = u16::try_from(octets + 4).ok()?.to_be_bytes();
            out[begin + 9..begin + 11].copy_from_slice(&[data_high, data_low]);
            out.extend_from_slice(&[0, 12, high, low]);
            out.resize(out.len() + octets, 0);
        }
    }
    let length = u16::try_from(out.len() - start).ok()?;
    out[start - 2..start].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// Octets of the name at the start, which may not be compressed.
fn name_length(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match octets.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(*length),
            _ => return None,
        }
    }
}

/// Whether there is padding (RFC 7830) among these options.
fn is_padded(mut options: &[u8]) -> bool {
    while let Some((&[high, low, length_high, length_low], rest)) = options.split_first_chunk() {
        if [high, low] == [0, 12] {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        options = rest.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANNER: Manner = Manner {
        ttl: 3600,
        padding: true,
    };

    fn query(number: u64) -> Vec<u8> {
        let mut query = Vec::new();
        write_query(7, number, true, &mut query);
        query
    }

    fn answer(query: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        write_answer(query, MANNER, &mut framed).expect("a query");
        let length = usize::from(u16::from_be_bytes([framed[0], framed[1]]));
        assert_eq!(framed.len(), 2 + length);
        framed.split_off(2)
    }

    #[test]
    fn an_answer_is_good_for_its_own_question_alone() {
        let good = answer(&query(0xAB));
        assert_eq!(id(&good), Some(7));
        assert_eq!(judge(&good, 0xAB), Verdict::Good);
        assert_eq!(judge(&good, 0xAC), Verdict::Wrong);
        for change in [2, 7, 12, 14, 17, 40, HEADER + QUESTION + 15] {
            let mut wrong = good.clone();
            wrong[change] ^= 0x82;
            assert_eq!(judge(&wrong, 0xAB), Verdict::Wrong, "octet {change}");
        }
        for length in 0..good.len() - OPT.len() {
            assert_eq!(judge(&good[..length], 0xAB), Verdict::Wrong, "{length}");
        }
    }

    #[test]
    fn a_failure_is_told_from_a_wrong_answer() {
        let mut failure = answer(&query(1));
        failure[3] = 0x82;
        failure[7] = 0;
        failure.truncate(HEADER + QUESTION);
        assert_eq!(judge(&failure, 1), Verdict::ServFail);
        assert_eq!(judge(&failure, 2), Verdict::Wrong);
    }

    #[test]
    fn the_case_of_a_name_changes_nothing_but_its_spelling() {
        let lower = query(0xABCD);
        let upper = lower.to_ascii_uppercase();
        let (lower, upper) = (answer(&lower), answer(&upper));
        assert_eq!(lower[HEADER + QUESTION..], upper[HEADER + QUESTION..]);
        assert_ne!(lower, upper);
    }

    #[test]
    fn who_pads_gets_whole_blocks_and_who_does_not_gets_none() {
        let mut padded = query(1);
        let end = padded.len();
        padded[end - 1] = 8;
        padded.extend_from_slice(&[0, 12, 0, 4, 0, 0, 0, 0]);
        assert_eq!(answer(&padded).len(), BLOCK);
        assert_eq!(judge(&answer(&padded), 1), Verdict::Good);
        assert!(answer(&query(1)).len() < 100);
    }

    #[test]
    fn other_types_are_answered_with_a_record_that_may_be_kept() {
        let mut other = query(1);
        other[HEADER + NAME + 1] = 28;
        let said = answer(&other);
        assert_eq!(said[6..12], [0, 0, 0, 1, 0, 1]);
        assert_eq!(said.len(), HEADER + QUESTION + 33 + OPT.len());
    }

    #[test]
    fn what_is_no_query_is_not_answered() {
        let answered = answer(&query(1));
        for octets in [&answered[..], &query(1)[..20], &[]] {
            assert_eq!(write_answer(octets, MANNER, &mut Vec::new()), None);
        }
    }
}
