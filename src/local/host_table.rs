//! Which addresses has a name that a hosts file lists, and which name has an address?

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::special_names::decimal;
use crate::message::MAX_NAME_LEN;

/// Maximum number of names of all files together. A name counts on each line that lists it.
pub const MAX_NAMES: usize = 65_536;
/// Maximum length of all names together in octets, each counted once and in wire form. With [`MAX_NAMES`], it
/// bounds the memory of a table to 40 MiB.
pub const MAX_NAME_OCTETS: usize = 4 * 1024 * 1024;
/// Maximum number of addresses of one name.
pub const MAX_ADDRESSES: usize = 128;

/// What the final labels of reverse names are, in wire form (RFC 1035 section 3.5, RFC 3596 section 2.5).
const REVERSE_V4: &[u8] = b"\x07in-addr\x04arpa\0";
const REVERSE_V6: &[u8] = b"\x03ip6\x04arpa\0";

/// The names of hosts files and their addresses. Names are in wire form and in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTable {
    /// The addresses of each name, in the order in which the files list them.
    names: HashMap<Arc<[u8]>, Vec<IpAddr>>,
    /// The first name of the first line of each address.
    pointers: BTreeMap<IpAddr, Arc<[u8]>>,
    /// The number of names, each counted on each line that lists it.
    listed: usize,
    /// The octets of all names, each counted once.
    octets: usize,
}

/// What the files have for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostRecords<'t> {
    /// The addresses of the name.
    pub(super) addresses: &'t [IpAddr],
    /// The name of the address, if the name is the reverse name of one.
    pub(super) pointer: Option<&'t [u8]>,
}

/// Why a line does not fit into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// A name would have more than [`MAX_ADDRESSES`] addresses.
    Addresses,
    /// There would be more than [`MAX_NAMES`] names, or more than [`MAX_NAME_OCTETS`] octets of them.
    Full,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses => write!(f, "expected at most {MAX_ADDRESSES} addresses of one name"),
            Self::Full => write!(
                f,
                "expected at most {MAX_NAMES} names with {MAX_NAME_OCTETS} octets in all files together"
            ),
        }
    }
}

impl HostTable {
    /// The number of names, each counted once.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds a name of an address. `name` is in wire form without compression. An address that the name has already is not added again.
    pub(super) fn add(&mut self, address: IpAddr, name: &[u8]) -> Result<(), TableError> {
        if self.listed >= MAX_NAMES {
            return Err(TableError::Full);
        }
        let lower = name.to_ascii_lowercase();
        let shared = match self.names.get_key_value(&lower[..]) {
            Some((shared, addresses)) => {
                if addresses.len() >= MAX_ADDRESSES && !addresses.contains(&address) {
                    return Err(TableError::Addresses);
                }
                Arc::clone(shared)
            }
            None => {
                let octets = self.octets.saturating_add(lower.len());
                if octets > MAX_NAME_OCTETS {
                    return Err(TableError::Full);
                }
                self.octets = octets;
                lower.into()
            }
        };
        self.listed = self.listed.saturating_add(1);
        let addresses = self.names.entry(Arc::clone(&shared)).or_default();
        if !addresses.contains(&address) {
            // Most names have one address.
            addresses.reserve_exact(1);
            addresses.push(address);
        }
        self.pointers.entry(address).or_insert(shared);
        Ok(())
    }

    /// Finds a name in wire form, in either case. Allocates nothing.
    pub(super) fn find(&self, name: &[u8]) -> Option<HostRecords<'_>> {
        if self.names.is_empty() {
            return None;
        }
        let mut buffer = [0; MAX_NAME_LEN];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        // A length octet is no letter: it is below 64.
        lower.make_ascii_lowercase();
        let addresses = self.names.get(&*lower);
        let pointer = reverse_address(lower).and_then(|address| self.pointers.get(&address));
        (addresses.is_some() || pointer.is_some()).then(|| HostRecords {
            addresses: addresses.map_or(&[], Vec::as_slice),
            pointer: pointer.map(|name| &**name),
        })
    }
}

/// The address whose reverse name this is, in wire form and in lower case.
fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(REVERSE_V4) {
        return reverse_v4(labels).map(IpAddr::from);
    }
    reverse_v6(name.strip_suffix(REVERSE_V6)?).map(IpAddr::from)
}

/// The address of four labels with a number each, the last one first.
fn reverse_v4(labels: &[u8]) -> Option<Ipv4Addr> {
    let mut rest = labels;
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        let (&length, tail) = rest.split_first()?;
        let (label, tail) = tail.split_at_checked(length.into())?;
        *octet = decimal(label)?;
        rest = tail;
    }
    rest.is_empty().then(|| octets.into())
}

/// The address of 32 labels with a hexadecimal digit each, the last one first.
fn reverse_v6(labels: &[u8]) -> Option<Ipv6Addr> {
    let (labels, rest) = labels.as_chunks::<2>();
    if labels.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut bits = 0_u128;
    for [length, digit] in labels.iter().rev() {
        let digit = char::from(*digit).to_digit(16).filter(|_| *length == 1)?;
        bits = bits << 4 | u128::from(digit);
    }
    Some(bits.into())
}

#[cfg(test)]
mod tests;
