//! Data runs one way: a file imports only files below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rooms, from the door inwards. The README draws the same.
const ROOMS: [&str; 26] = [
    "config",
    "server",
    "worker",
    "forwarder",
    "limit",
    "cache",
    "upstream",
    "health",
    "session",
    "flight",
    "identity",
    "certificate",
    "pins",
    "state",
    "rollover",
    "pin",
    "client",
    "frame",
    "deadline",
    "wire",
    "journal",
    "rights",
    "thread",
    "clock",
    "date",
    "metrics",
];

fn source() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rooms that a file names.
fn imports(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(source().join(file)).expect("a source file");
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next()
                .unwrap_or_default()
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    for (position, room) in ROOMS.iter().enumerate() {
        for import in imports(&format!("{room}.rs")) {
            let below = ROOMS.iter().position(|other| *other == import);
            assert!(
                below.is_some_and(|below| below > position),
                "{room} imports {import}, which is not below it"
            );
        }
    }
}

#[test]
fn every_room_is_on_the_list_and_in_the_readme() {
    let mut files: BTreeSet<_> = fs::read_dir(source())
        .expect("the sources")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name in UTF-8")
        })
        .collect();
    let readme = fs::read_to_string(source().join("../README.md")).expect("the README");
    for room in ROOMS.iter().chain(&["main", "lib"]) {
        assert!(files.remove(&format!("{room}.rs")), "{room} is no file");
        assert!(
            readme.contains(&format!("`{room}.rs`")),
            "{room} is not in the README"
        );
    }
    assert!(files.is_empty(), "on no list: {files:?}");
}

#[test]
fn the_test_sees_imports() {
    assert!(imports("forwarder.rs").contains("upstream"));
    assert!(imports("wire.rs").is_empty());
}

#[test]
fn one_room_reads_the_clock() {
    for room in ROOMS.iter().filter(|room| **room != "clock") {
        let text = fs::read_to_string(source().join(format!("{room}.rs"))).expect("a source file");
        let rules = text.split("#[cfg(test)]").next().expect("a first part");
        assert!(
            !rules.contains("Instant::now") && !rules.contains("SystemTime::now"),
            "{room} reads a clock of its own"
        );
    }
}
