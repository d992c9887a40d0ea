//! In which zone is a name?
//!
//! A map from zones to values, in which the longest zone that contains a name is found.

use super::codes::MAX_NAME_LEN;

/// Labels of a name, at most.
const MAX_LABELS: usize = MAX_NAME_LEN / 2;

/// Values of zones. Letters match in either case (RFC 4343), labels as a whole.
///
/// A tree of labels from the root down. So a name outside of all zones costs one search for its last label, however many zones there are.
#[derive(Debug, Clone)]
pub struct ZoneMap<T> {
    root: Node<T>,
}

/// A name. The labels below it are in the order of their starts, which are kept apart so that a search reads little memory.
#[derive(Debug, Clone)]
struct Node<T> {
    value: Option<T>,
    starts: Vec<LabelStart>,
    children: Vec<(Box<[u8]>, Node<T>)>,
}

/// The first octets of a label in lower case, as a number. Most labels are told apart by it.
type LabelStart = u64;

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            value: None,
            starts: Vec::new(),
            children: Vec::new(),
        }
    }
}

impl<T> Default for ZoneMap<T> {
    fn default() -> Self {
        Self {
            root: Node::default(),
        }
    }
}

impl<T> ZoneMap<T> {
    /// A map in which the root, and so each name, has this value.
    pub fn of_root(value: T) -> Self {
        let mut map = Self::default();
        map.root.value = Some(value);
        map
    }

    /// Sets the value of `zone`, a name in wire form without compression, and returns the value that it had. A name that is not well formed
    /// has no value.
    pub fn insert(&mut self, zone: &[u8], value: T) -> Option<T> {
        let mut node = &mut self.root;
        let mut positions = [0; MAX_LABELS];
        for position in find_labels(zone, &mut positions)?.iter().rev() {
            let label = label_at(zone, *position)?;
            let position = match node.find(&label) {
                Ok(position) => position,
                Err(position) => {
                    node.starts.insert(position, label.start);
                    let child = (label.octets.into(), Node::default());
                    node.children.insert(position, child);
                    position
                }
            };
            node = &mut node.children.get_mut(position)?.1;
        }
        node.value.replace(value)
    }

    /// The value of the longest zone that `name` is the apex of or is below. `name` is in wire form without compression.
    pub fn find(&self, name: &[u8]) -> Option<&T> {
        let mut node = &self.root;
        let mut found = node.value.as_ref();
        if node.children.is_empty() {
            return found;
        }
        let mut positions = [0; MAX_LABELS];
        for position in find_labels(name, &mut positions)?.iter().rev() {
            let position = node.find(&label_at(name, *position)?).ok();
            let Some((_, child)) = position.and_then(|position| node.children.get(position)) else {
                break;
            };
            node = child;
            found = node.value.as_ref().or(found);
            if node.children.is_empty() {
                break;
            }
        }
        found
    }

    /// Whether there is no zone.
    pub fn is_empty(&self) -> bool {
        self.root.value.is_none() && self.root.children.is_empty()
    }
}

impl<T> Node<T> {
    /// The position of the child with this label, or the one at which it belongs.
    #[inline]
    fn find(&self, label: &Label<'_>) -> Result<usize, usize> {
        let first = self.starts.partition_point(|known| *known < label.start);
        let mut position = first;
        while self.starts.get(position) == Some(&label.start)
            && let Some((known, _)) = self.children.get(position)
        {
            if label.is(known) {
                return Ok(position);
            }
            position = position.saturating_add(1);
        }
        Err(first)
    }
}

/// A label of a name.
struct Label<'n> {
    octets: &'n [u8],
    start: LabelStart,
}

impl Label<'_> {
    /// Whether it is the label `known` that has the same start.
    fn is(&self, known: &[u8]) -> bool {
        // Of labels with the same length and start, only longer ones can differ.
        known.len() == self.octets.len()
            && (known.len() <= size_of::<LabelStart>() || known.eq_ignore_ascii_case(self.octets))
    }
}

/// The positions of the labels of a name, of which each is that of the length octet.
type Positions = [u8; MAX_LABELS];

/// Finds the labels of `name`, without the root. Returns those of `positions` that are theirs; none if the name is not well formed.
fn find_labels<'p>(name: &[u8], positions: &'p mut Positions) -> Option<&'p [u8]> {
    let (mut count, mut at) = (0_usize, 0_usize);
    while let Some(&length @ 1..) = name.get(at) {
        *positions.get_mut(count)? = at as u8;
        count = count.saturating_add(1);
        at = at.saturating_add(1).saturating_add(length.into());
    }
    // The root is the last octet.
    let is_whole = at.checked_add(1) == Some(name.len()) && name.len() <= MAX_NAME_LEN;
    positions.get(..count).filter(|_| is_whole)
}

/// The label at a position.
#[inline]
fn label_at(name: &[u8], position: u8) -> Option<Label<'_>> {
    let (&length, rest) = name.get(usize::from(position)..)?.split_first()?;
    Some(Label {
        octets: rest.get(..length.into())?,
        start: label_start(name, usize::from(position).saturating_add(1), length.into()),
    })
}

/// The [`LabelStart`] of the label of `length` octets that is at `at` in `name`. Shorter labels are filled up with zeros.
#[inline]
fn label_start(name: &[u8], at: usize, length: usize) -> LabelStart {
    const OCTETS: usize = size_of::<LabelStart>();
    let rest = name.get(at..).unwrap_or_default();
    let (mut octets, before) = match (rest.first_chunk::<OCTETS>(), name.last_chunk::<OCTETS>()) {
        (Some(octets), _) => (*octets, 0),
        // The last labels, behind what comes before them.
        (None, Some(octets)) => (*octets, OCTETS.saturating_sub(rest.len())),
        (None, None) => {
            let mut octets = [0; OCTETS];
            octets
                .iter_mut()
                .zip(rest)
                .for_each(|(octet, known)| *octet = *known);
            (octets, 0)
        }
    };
    octets.make_ascii_lowercase();
    let start = LabelStart::from_be_bytes(octets);
    let bits = |octets: usize| octets.saturating_mul(8) as u32;
    let start = start.checked_shl(bits(before)).unwrap_or(0);
    // What comes after a shorter label.
    let after = LabelStart::MAX.checked_shr(bits(length)).unwrap_or(0);
    start & !after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::test_messages::name;

    fn map(zones: &[&'static str]) -> ZoneMap<&'static str> {
        let mut map = ZoneMap::default();
        for &zone in zones {
            assert_eq!(map.insert(&name(zone), zone), None, "{zone}");
        }
        map
    }

    #[test]
    fn the_longest_zone_that_contains_a_name_is_found() {
        let map = map(&["example", "corp.example", "a.b.corp.example", "lan"]);
        for (asked, zone) in [
            ("example", Some("example")),
            ("www.example", Some("example")),
            ("corp.example", Some("corp.example")),
            ("b.corp.example", Some("corp.example")),
            ("a.b.corp.example", Some("a.b.corp.example")),
            ("x.a.b.corp.example", Some("a.b.corp.example")),
            ("printer.LAN", Some("lan")),
            ("CORP.Example", Some("corp.example")),
            ("com", None),
            ("example.com", None),
        ] {
            assert_eq!(map.find(&name(asked)).copied(), zone, "{asked}");
        }
        assert_eq!(map.find(&[0]), None, "the root");
    }

    #[test]
    fn a_name_that_only_ends_alike_is_in_no_zone() {
        let map = map(&["corp.example", "lan"]);
        for outside in ["xcorp.example", "xlan", "lan.example", "example", "la"] {
            assert_eq!(map.find(&name(outside)), None, "{outside}");
        }
        // A label that contains what looks like the zone.
        assert_eq!(map.find(b"\x05x\x03lan\0"), None);
    }

    #[test]
    fn the_root_contains_all_names() {
        let mut map = map(&["lan"]);
        assert!(map.insert(&[0], "root").is_none());
        assert_eq!(map.find(&name("www.example")), Some(&"root"));
        assert_eq!(map.find(&[0]), Some(&"root"));
        assert_eq!(map.find(&name("a.lan")), Some(&"lan"));
    }

    #[test]
    fn a_zone_has_one_value() {
        let mut map = map(&["Corp.example"]);
        assert_eq!(
            map.insert(&name("corp.EXAMPLE"), "new"),
            Some("Corp.example")
        );
        assert_eq!(map.find(&name("corp.example")), Some(&"new"));
        assert!(!map.is_empty() && ZoneMap::<u8>::default().is_empty());
    }

    #[test]
    fn names_that_are_not_well_formed_are_in_no_zone() {
        let mut map = map(&["lan"]);
        for broken in [
            &b""[..],
            b"\x03lan",
            b"\x04lan\0",
            b"\x03lan\0x",
            b"\xc0\x0c",
        ] {
            assert_eq!(map.find(broken), None, "{broken:?}");
            assert_eq!(map.insert(broken, "x"), None);
        }
        assert_eq!(map.find(&name("lan")), Some(&"lan"));
    }

    proptest! {
        /// The same as comparing the name with each zone by its labels.
        #[test]
        fn the_tree_agrees_with_a_list(
            zones in prop::collection::vec(prop::collection::vec("[ab]{1,2}|same-start[ab]", 0..4), 0..8),
            asked in prop::collection::vec("[abAB]{1,2}|same-start[abAB]", 0..6),
        ) {
            let wire = |labels: &[String]| {
                let mut octets = Vec::new();
                for label in labels {
                    octets.push(label.len() as u8);
                    octets.extend_from_slice(label.as_bytes());
                }
                octets.push(0);
                octets
            };
            let mut map = ZoneMap::default();
            for zone in &zones {
                map.insert(&wire(zone), zone.clone());
            }
            let lower: Vec<_> = asked.iter().map(|label| label.to_ascii_lowercase()).collect();
            let longest = zones.iter().filter(|zone| lower.ends_with(zone)).max_by_key(|zone| zone.len());
            prop_assert_eq!(map.find(&wire(&asked)), longest);
        }
    }
}
