//! What is the answer to a question of a listed or a special-use name?

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host_table::HostTable;
use super::special_names::{Content, Found, find};
use crate::message::{HEADER_LEN, class, rcode, rtype};

/// The TTL of all records of special-use names, in seconds (RFC 6303 section 3).
const SPECIAL_TTL: u32 = 10_800;
/// The TTL of all records of listed names, in seconds: a changed file is seen everywhere soon.
const HOST_TTL: u32 = 60;
/// The fields of the SOA record before MINIMUM, which is the TTL: SERIAL; REFRESH, RETRY and EXPIRE in seconds (RFC 6303 section 3).
const SOA_FIELDS: [u32; 4] = [1, 3600, 1200, 604_800];
/// RNAME of the SOA record: nobody.invalid. (RFC 6303 section 3).
const SOA_RNAME: &[u8] = b"\x06nobody\x07invalid\0";
/// The flags QR, AA and RA. ID, RD and CD become those of the query when the answer is written for a client.
const FLAGS: [u8; 2] = [0x84, 0x80];
/// The name of the loopback addresses, in wire form.
const LOCALHOST: &[u8] = b"\x09localhost\0";

/// A record that is in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record<'n> {
    /// The SOA of the apex, which has the apex itself as MNAME.
    Soa,
    /// The NS of the apex, which is the apex itself.
    Ns,
    /// An address.
    Address(IpAddr),
    /// The name of an address, in wire form.
    Ptr(&'n [u8]),
}

/// The names of an answer that its records refer to, as compressed names, and the TTL of all records.
#[derive(Clone, Copy)]
struct Context {
    owner: [u8; 2],
    /// The name of the SOA record.
    apex: [u8; 2],
    ttl: u32,
}

impl Record<'_> {
    /// Whether a question of this type asks for the record.
    fn is_asked(self, qtype: u16) -> bool {
        qtype == rtype::ANY || self.rtype() == qtype
    }

    fn rtype(self) -> u16 {
        match self {
            Self::Soa => rtype::SOA,
            Self::Ns => rtype::NS,
            Self::Address(IpAddr::V4(_)) => rtype::A,
            Self::Address(IpAddr::V6(_)) => rtype::AAAA,
            Self::Ptr(_) => rtype::PTR,
        }
    }

    fn rdata(self, Context { apex, ttl, .. }: Context) -> Vec<u8> {
        match self {
            Self::Soa => {
                let fields = SOA_FIELDS.map(u32::to_be_bytes);
                [&apex, SOA_RNAME, fields.as_flattened(), &ttl.to_be_bytes()].concat()
            }
            Self::Ns => apex.to_vec(),
            Self::Address(IpAddr::V4(address)) => address.octets().to_vec(),
            Self::Address(IpAddr::V6(address)) => address.octets().to_vec(),
            Self::Ptr(name) => name.to_vec(),
        }
    }

    /// Appends the record.
    fn write(self, out: &mut Vec<u8>, context: Context) {
        let rdata = self.rdata(context);
        // At most 255 octets.
        let length = rdata.len() as u16;
        out.extend_from_slice(&context.owner);
        out.extend_from_slice(&self.rtype().to_be_bytes());
        out.extend_from_slice(&class::IN.to_be_bytes());
        out.extend_from_slice(&context.ttl.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&rdata);
    }
}

/// The answer to `question`, a name with type and class in wire form, as a whole message; none if no hosts file lists the name.
///
/// Answers without a record of the type have a SOA record of that name, so that they are kept downstream (RFC 2308 section 3).
pub fn host_reply(table: &HostTable, question: &[u8]) -> Option<Vec<u8>> {
    let (name, qtype) = split_question(question)?;
    let found = table.find(name)?;
    let addresses = found.addresses.iter().copied().map(Record::Address);
    let records = addresses.chain(found.pointer.map(Record::Ptr));
    let answers: Vec<_> = records.filter(|record| record.is_asked(qtype)).collect();
    Some(write(question, 0, rcode::NOERROR, &answers, HOST_TTL))
}

/// The name and the type of a question of class IN.
fn split_question(question: &[u8]) -> Option<(&[u8], u16)> {
    let (name, &[type_high, type_low, class_high, class_low]) = question.split_last_chunk()?;
    let is_internet = u16::from_be_bytes([class_high, class_low]) == class::IN;
    is_internet.then(|| (name, u16::from_be_bytes([type_high, type_low])))
}

/// The answer to `question`, a name with type and class in wire form, as a whole message; none if it is to be asked of the resolver.
///
/// Answers without a record of the type have a SOA record, so that they are kept downstream (RFC 2308 section 3). Its owner is the
/// special-use name, also where that does not exist itself: no other name above the question is known here.
///
/// A DS record belongs to the zone above (RFC 4035 section 3.1.4.1). Whoever validates needs the proof that there is none, which the
/// resolver has (RFC 8375 section 4). So questions for it at the apex of a zone are asked of the resolver.
pub fn special_reply(question: &[u8]) -> Option<Vec<u8>> {
    let (name, qtype) = split_question(question)?;
    let found = find(name)?;
    if qtype == rtype::DS && found.is_apex() {
        return None;
    }
    let records = found.records();
    let rcode = records.map_or(rcode::NXDOMAIN, |_| rcode::NOERROR);
    let records = records.unwrap_or_default().iter().copied();
    let answers: Vec<_> = records.filter(|record| record.is_asked(qtype)).collect();
    let apex_at = found.below.len();
    Some(write(question, apex_at, rcode, &answers, SPECIAL_TTL))
}

/// The answer that the name in `question` does not exist, since the zone that it is in does not: the zone's name is the last `zone_len` octets
/// of the name. None if the class is not IN.
pub fn name_error(question: &[u8], zone_len: u8) -> Option<Vec<u8>> {
    let (name, _) = split_question(question)?;
    let apex_at = name.len().checked_sub(zone_len.into())?;
    Some(write(question, apex_at, rcode::NXDOMAIN, &[], SPECIAL_TTL))
}

impl Found<'_> {
    /// Whether the name is the apex of a locally served zone.
    fn is_apex(&self) -> bool {
        let is_zone = matches!(self.content, Content::Zone | Content::LoopbackZone(_));
        is_zone && self.below.is_empty()
    }

    /// The records at the name; none if the name does not exist.
    fn records(&self) -> Option<&'static [Record<'static>]> {
        const APEX: [Record<'_>; 3] = [Record::Soa, Record::Ns, Record::Ptr(LOCALHOST)];
        const LOOPBACK: [Record<'_>; 2] = [
            Record::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Record::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        let [apex @ .., ptr] = &APEX;
        match (self.content, self.below) {
            (Content::NameError, _) => None,
            (Content::NoData, []) => Some(apex),
            (Content::NoData, _) => Some(&[]),
            (Content::Loopback, _) => Some(&LOOPBACK),
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

/// Writes the message. The name of the SOA record begins `apex_at` octets after the beginning of the name in `question`.
fn write(question: &[u8], apex_at: usize, rcode: u16, answers: &[Record<'_>], ttl: u32) -> Vec<u8> {
    let compressed_name = |at: usize| {
        // A name has at most 255 octets.
        let offset = HEADER_LEN.saturating_add(at) as u16;
        (0xc000 | offset).to_be_bytes()
    };
    let apex = compressed_name(apex_at);
    let owner = compressed_name(0);
    let negative = answers.is_empty();
    let [high, low] = FLAGS;
    let mut out = Vec::with_capacity(question.len().saturating_add(96));
    // At most as many records as a name has addresses, and one.
    let counts = [1, answers.len() as u16, negative.into(), 0];
    out.extend_from_slice(&[0, 0, high, low | rcode as u8]);
    out.extend_from_slice(counts.map(u16::to_be_bytes).as_flattened());
    out.extend_from_slice(question);
    for record in answers {
        record.write(&mut out, Context { owner, apex, ttl });
    }
    if negative {
        let owner = apex;
        Record::Soa.write(&mut out, Context { owner, apex, ttl });
    }
    out
}

#[cfg(test)]
mod tests;
