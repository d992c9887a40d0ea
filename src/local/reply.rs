//! What is the answer to a question of a special-use name?

use super::special_names::{Content, Found, find};
use crate::message::{HEADER_LEN, class, rcode, rtype};

/// The TTL of all records, in seconds (RFC 6303 section 3).
const TTL: u32 = 10_800;
/// The fields of the SOA record: SERIAL; REFRESH, RETRY, EXPIRE and MINIMUM in seconds (RFC 6303 section 3).
const SOA_FIELDS: [u32; 5] = [1, 3600, 1200, 604_800, 10_800];
/// RNAME of the SOA record: nobody.invalid. (RFC 6303 section 3).
const SOA_RNAME: &[u8] = b"\x06nobody\x07invalid\0";
/// The flags QR, AA and RA. ID, RD and CD become those of the query when the answer is written for a client.
const FLAGS: [u8; 2] = [0x84, 0x80];
/// The name of the loopback addresses, in wire form.
const LOCALHOST: &[u8] = b"\x09localhost\0";

/// A record that is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// The SOA of the special-use name, which has the name itself as MNAME.
    Soa,
    /// The NS of the special-use name, which is the name itself.
    Ns,
    /// 127.0.0.1.
    LoopbackV4,
    /// ::1.
    LoopbackV6,
    /// localhost.
    Ptr,
}

impl Record {
    fn rtype(self) -> u16 {
        match self {
            Self::Soa => rtype::SOA,
            Self::Ns => rtype::NS,
            Self::LoopbackV4 => rtype::A,
            Self::LoopbackV6 => rtype::AAAA,
            Self::Ptr => rtype::PTR,
        }
    }

    /// The RDATA, where `apex` is a compressed name: the special-use name.
    fn rdata(self, apex: [u8; 2]) -> Vec<u8> {
        match self {
            Self::Soa => {
                let fields = SOA_FIELDS.map(u32::to_be_bytes);
                [&apex, SOA_RNAME, fields.as_flattened()].concat()
            }
            Self::Ns => apex.to_vec(),
            Self::LoopbackV4 => vec![127, 0, 0, 1],
            Self::LoopbackV6 => 1_u128.to_be_bytes().to_vec(),
            Self::Ptr => LOCALHOST.to_vec(),
        }
    }

    /// Appends the record with the compressed name `owner`.
    fn write(self, out: &mut Vec<u8>, owner: [u8; 2], apex: [u8; 2]) {
        let rdata = self.rdata(apex);
        // At most 38 octets.
        let length = rdata.len() as u16;
        out.extend_from_slice(&owner);
        out.extend_from_slice(&self.rtype().to_be_bytes());
        out.extend_from_slice(&class::IN.to_be_bytes());
        out.extend_from_slice(&TTL.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&rdata);
    }
}

/// The answer to `question`, a name with type and class in wire form, as a whole message; none if it is to be asked of the resolver.
///
/// Answers without a record of the type have a SOA record, so that they are kept downstream (RFC 2308 section 3). Its owner is the
/// special-use name, also where that does not exist itself: no other name above the question is known here.
///
/// A DS record belongs to the zone above (RFC 4035 section 3.1.4.1). Whoever validates needs the proof that there is none, which the
/// resolver has (RFC 8375 section 4). So questions for it at the apex of a zone are asked of the resolver.
pub fn reply(question: &[u8]) -> Option<Vec<u8>> {
    let (name, &[type_high, type_low, class_high, class_low]) = question.split_last_chunk()?;
    if u16::from_be_bytes([class_high, class_low]) != class::IN {
        return None;
    }
    let qtype = u16::from_be_bytes([type_high, type_low]);
    let found = find(name)?;
    if qtype == rtype::DS && found.is_apex() {
        return None;
    }
    let records = found.records();
    let rcode = records.map_or(rcode::NXDOMAIN, |_| rcode::NOERROR);
    let is_asked = |record: &Record| qtype == rtype::ANY || record.rtype() == qtype;
    let records = records.unwrap_or_default().iter().copied();
    let answers: Vec<_> = records.filter(is_asked).collect();
    Some(write(question, found.below.len(), rcode, &answers))
}

/// The answer that the name in `question` does not exist, since the zone that it is in does not: the zone's name is the last `zone_len` octets
/// of the name. None if the class is not IN.
pub fn name_error(question: &[u8], zone_len: usize) -> Option<Vec<u8>> {
    let (name, &[_, _, class_high, class_low]) = question.split_last_chunk()?;
    if u16::from_be_bytes([class_high, class_low]) != class::IN {
        return None;
    }
    let apex_at = name.len().checked_sub(zone_len)?;
    Some(write(question, apex_at, rcode::NXDOMAIN, &[]))
}

impl Found<'_> {
    /// Whether the name is the apex of a locally served zone.
    fn is_apex(&self) -> bool {
        let is_zone = matches!(self.content, Content::Zone | Content::LoopbackZone(_));
        is_zone && self.below.is_empty()
    }

    /// The records at the name; none if the name does not exist.
    fn records(&self) -> Option<&'static [Record]> {
        const APEX: [Record; 3] = [Record::Soa, Record::Ns, Record::Ptr];
        let [apex @ .., ptr] = &APEX;
        match (self.content, self.below) {
            (Content::NameError, _) => None,
            (Content::NoData, []) => Some(apex),
            (Content::NoData, _) => Some(&[]),
            (Content::Loopback, _) => Some(&[Record::LoopbackV4, Record::LoopbackV6]),
            (Content::LoopbackZone([]), []) => Some(&APEX),
            (Content::Zone | Content::LoopbackZone(_), []) => Some(apex),
            (Content::LoopbackZone(address), below) if address == below => {
                Some(std::slice::from_ref(ptr))
            }
            // A name between the apex and the loopback address: it exists, but has no records (RFC 8020 section 2).
            (Content::LoopbackZone(address), below) if address.ends_with(below) => Some(&[]),
            (Content::Zone | Content::LoopbackZone(_), _) => None,
        }
    }
}

/// Writes the message. The special-use name begins `apex_at` octets after the beginning of the name in `question`.
fn write(question: &[u8], apex_at: usize, rcode: u16, answers: &[Record]) -> Vec<u8> {
    let compressed_name = |at: usize| {
        // A name has at most 255 octets.
        let offset = HEADER_LEN.saturating_add(at) as u16;
        (0xc000 | offset).to_be_bytes()
    };
    let (owner, apex) = (compressed_name(0), compressed_name(apex_at));
    let negative = answers.is_empty();
    let [high, low] = FLAGS;
    let mut out = Vec::with_capacity(question.len().saturating_add(96));
    // At most three records.
    let counts = [1, answers.len() as u16, negative.into(), 0];
    out.extend_from_slice(&[0, 0, high, low | rcode as u8]);
    out.extend_from_slice(counts.map(u16::to_be_bytes).as_flattened());
    out.extend_from_slice(question);
    for record in answers {
        record.write(&mut out, owner, apex);
    }
    if negative {
        Record::Soa.write(&mut out, apex, apex);
    }
    out
}

#[cfg(test)]
mod tests;
