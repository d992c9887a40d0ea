//! Which names are special, and what is at them?

/// A special-use name, or a sequence of them.
struct SpecialName {
    /// In lower case, without the dot of the root.
    name: &'static str,
    /// If there are two numbers: the name is not special, but those below it are whose label is one of these or between them.
    numbers: Option<(u8, u8)>,
    content: Content,
}

/// What is at a special-use name and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Neither the name nor any below it exists: NXDOMAIN.
    NameError,
    /// A zone of SOA and NS, in which all names exist and have no records: NODATA.
    NoData,
    /// The name and all below it have the loopback addresses.
    Loopback,
    /// An empty zone (RFC 6303 section 3): SOA and NS at its apex, NXDOMAIN below.
    Zone,
    /// Such a zone with the PTR record of a loopback address. These are the labels of that record below the apex, in wire form.
    LoopbackZone(&'static [u8]),
}

/// The last labels of all special-use names. Names that end differently are not looked for.
const LAST_LABELS: [&str; 8] = [
    "localhost",
    "test",
    "invalid",
    "local",
    "onion",
    "alt",
    "internal",
    "arpa",
];

/// The special-use names. None is below another one.
const NAMES: [SpecialName; 29] = [
    // RFC 6761 section 6.3.
    one("localhost", Content::Loopback),
    // RFC 6761 section 6.2.
    one("test", Content::NameError),
    // RFC 6761 section 6.4.
    one("invalid", Content::NameError),
    // RFC 6762 section 22.1: names of multicast DNS.
    one("local", Content::NameError),
    // RFC 7686 section 2: names of Tor.
    one("onion", Content::NameError),
    // RFC 9476 section 2: names that are not in the DNS.
    one("alt", Content::NameError),
    // ICANN, resolution 2024.07.29.06: names of private networks.
    one("internal", Content::NameError),
    // RFC 8375 section 4: names of home networks.
    one("home.arpa", Content::Zone),
    // RFC 9665: names of services that register themselves.
    one("service.arpa", Content::Zone),
    // RFC 9462 section 6.4. An answer of the resolver would tell clients to ask it and not this forwarder (section 6.1).
    one("resolver.arpa", Content::NoData),
    // RFC 6303 section 4.1: private addresses (RFC 1918).
    one("10.in-addr.arpa", Content::Zone),
    each(16, 31, "172.in-addr.arpa", Content::Zone),
    one("168.192.in-addr.arpa", Content::Zone),
    // RFC 6303 section 4.2: "this" network, loopback, link-local addresses, those of documentation, broadcast.
    one("0.in-addr.arpa", Content::Zone),
    one(
        "127.in-addr.arpa",
        Content::LoopbackZone(b"\x011\x010\x010"),
    ),
    one("254.169.in-addr.arpa", Content::Zone),
    one("2.0.192.in-addr.arpa", Content::Zone),
    one("100.51.198.in-addr.arpa", Content::Zone),
    one("113.0.203.in-addr.arpa", Content::Zone),
    one("255.255.255.255.in-addr.arpa", Content::Zone),
    // RFC 6303 section 4.3: the unspecified address and the loopback address.
    one(
        "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
        Content::Zone,
    ),
    one(
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
        Content::LoopbackZone(b""),
    ),
    // RFC 6303 section 4.4: locally assigned addresses (RFC 4193).
    one("d.f.ip6.arpa", Content::Zone),
    // RFC 6303 section 4.5: link-local addresses.
    one("8.e.f.ip6.arpa", Content::Zone),
    one("9.e.f.ip6.arpa", Content::Zone),
    one("a.e.f.ip6.arpa", Content::Zone),
    one("b.e.f.ip6.arpa", Content::Zone),
    // RFC 6303 section 4.6: addresses of documentation (RFC 3849).
    one("8.b.d.0.1.0.0.2.ip6.arpa", Content::Zone),
    // RFC 7793: shared addresses (RFC 6598).
    each(64, 127, "100.in-addr.arpa", Content::Zone),
];

const fn one(name: &'static str, content: Content) -> SpecialName {
    SpecialName {
        name,
        numbers: None,
        content,
    }
}

const fn each(first: u8, last: u8, name: &'static str, content: Content) -> SpecialName {
    SpecialName {
        name,
        numbers: Some((first, last)),
        content,
    }
}

/// A name that is special or below a special one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found<'n> {
    pub(super) content: Content,
    /// The labels below the special-use name, in wire form.
    pub(super) below: &'n [u8],
}

/// Finds the special-use name that `name`, in wire form, is or is below. Letters match in either case, labels as a whole.
pub(super) fn find(name: &[u8]) -> Option<Found<'_>> {
    let (_, last) = split_last_label(name.strip_suffix(&[0])?)?;
    let may_be_special = LAST_LABELS
        .iter()
        .any(|label| last.eq_ignore_ascii_case(label.as_bytes()));
    if !may_be_special {
        return None;
    }
    NAMES.iter().find_map(|special| {
        let below = special.labels_below(name)?;
        let content = special.content;
        Some(Found { content, below })
    })
}

impl SpecialName {
    /// The labels that `name` has below this one; none if it is another name.
    fn labels_below<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        // In wire form a name has two octets more: a length octet before its first label, and the root.
        let start = name.len().checked_sub(self.name.len().saturating_add(2))?;
        let (below, mut rest) = name.split_at_checked(start)?;
        // Most names differ in their first letter already.
        if !rest
            .get(1)?
            .eq_ignore_ascii_case(self.name.as_bytes().first()?)
        {
            return None;
        }
        for label in self.name.split('.') {
            let (&length, tail) = rest.split_first()?;
            let (found, tail) = tail.split_at_checked(length.into())?;
            if !found.eq_ignore_ascii_case(label.as_bytes()) {
                return None;
            }
            rest = tail;
        }
        // What looks like the name may begin within a label.
        let last_below = split_last_label(below);
        if last_below.is_none() && !below.is_empty() {
            return None;
        }
        let Some((first, last)) = self.numbers else {
            return Some(below);
        };
        let (below, label) = last_below?;
        let is_between = (first..=last).contains(&decimal(label)?);
        is_between.then_some(below)
    }
}

/// Splits labels in wire form before the last one, and returns that without its length. None if there is no label, or the last one is
/// cut.
fn split_last_label(labels: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = labels;
    loop {
        let (&length, tail) = rest.split_first()?;
        let (label, after) = tail.split_at_checked(length.into())?;
        if after.is_empty() {
            let before = labels.len().saturating_sub(rest.len());
            return Some((labels.get(..before)?, label));
        }
        rest = after;
    }
}

/// The number that a label is, as reverse zones have it: in decimal, without leading zeros.
pub(super) fn decimal(label: &[u8]) -> Option<u8> {
    let is_padded = label.starts_with(b"0") && label.len() > 1;
    let is_canonical = !is_padded && label.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(label).ok().filter(|_| is_canonical)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests;
