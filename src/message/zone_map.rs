//! In which zone is a name?
//!
//! A map from zones to values, in which the longest zone that contains a name is found.

use std::cmp::Ordering;

use smallvec::SmallVec;

/// Labels of a name for which no memory is allocated.
const TYPICAL_LABELS: usize = 8;

/// Values of zones. Letters match in either case (RFC 4343), labels as a whole.
///
/// A tree of labels from the root down. So a name outside of all zones costs one search for its last label, however many zones there are.
#[derive(Debug, Clone)]
pub struct ZoneMap<T> {
    root: Node<T>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    value: Option<T>,
    /// The labels below, in lower case and in order.
    children: Vec<(Box<[u8]>, Node<T>)>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            value: None,
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
        Self {
            root: Node {
                value: Some(value),
                children: Vec::new(),
            },
        }
    }

    /// Sets the value of `zone`, a name in wire form without compression, and returns the value that it had. A name that is not well formed
    /// has no value.
    pub fn insert(&mut self, zone: &[u8], value: T) -> Option<T> {
        let mut node = &mut self.root;
        for label in labels(zone)?.into_iter().rev() {
            let position = match node.search(label) {
                Ok(position) => position,
                Err(position) => {
                    let label = label.to_ascii_lowercase().into_boxed_slice();
                    node.children.insert(position, (label, Node::default()));
                    position
                }
            };
            let (_, child) = node.children.get_mut(position)?;
            node = child;
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
        for label in labels(name)?.into_iter().rev() {
            let Some((_, child)) = node
                .search(label)
                .ok()
                .and_then(|position| node.children.get(position))
            else {
                break;
            };
            node = child;
            found = node.value.as_ref().or(found);
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
    fn search(&self, label: &[u8]) -> Result<usize, usize> {
        self.children
            .binary_search_by(|(known, _)| compare(known, label))
    }
}

/// Compares a label in lower case with one in any case.
fn compare(known: &[u8], label: &[u8]) -> Ordering {
    let lower = label.iter().map(u8::to_ascii_lowercase);
    known.iter().copied().cmp(lower)
}

/// The labels of a name, without the root; none if the name is not well formed.
fn labels(name: &[u8]) -> Option<SmallVec<[&[u8]; TYPICAL_LABELS]>> {
    let mut labels = SmallVec::new();
    let mut rest = name;
    loop {
        let (&length, tail) = rest.split_first()?;
        if length == 0 {
            return tail.is_empty().then_some(labels);
        }
        let (label, tail) = tail.split_at_checked(length.into())?;
        labels.push(label);
        rest = tail;
    }
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
            zones in prop::collection::vec(prop::collection::vec("[ab]{1,2}", 0..4), 0..8),
            asked in prop::collection::vec("[abAB]{1,2}", 0..6),
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
