//! Data runs one way: a file imports only files below it. And what every file may say is in the manual.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the door inwards. The README draws the same.
const ROOMS: [&str; 13] = [
    "command",
    "daemon",
    "config",
    "server",
    "monitoring",
    "forward",
    "cache",
    "upstream",
    "client",
    "identity",
    "telemetry",
    "message",
    "system",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a room: one, or those of a folder.
fn files(room: &str) -> Vec<PathBuf> {
    let folder = source().join(room);
    if !folder.is_dir() {
        return vec![folder.with_extension("rs")];
    }
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

/// What is written in a room.
fn text(room: &str) -> Vec<String> {
    let files = files(room).into_iter();
    let read = |file| fs::read_to_string(file).expect("a source file");
    files.map(read).collect()
}

/// The other rooms that a room names.
fn imports(room: &str) -> BTreeSet<String> {
    let text = text(room);
    text.iter()
        .flat_map(|text| text.lines())
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next()
                .unwrap_or_default()
        })
        .filter(|import| *import != room)
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    for (position, room) in ROOMS.iter().enumerate() {
        for import in imports(room) {
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
        let file = format!("{room}.rs");
        let is_folder = files.remove(*room);
        assert!(is_folder || files.remove(&file), "{room} is no file");
        // What it shows may stand beside it.
        for kind in ["html", "css"] {
            files.remove(&format!("{room}.{kind}"));
        }
        let name = if is_folder { format!("{room}/") } else { file };
        assert!(
            readme.contains(&format!("`{name}`")),
            "{room} is not in the README"
        );
    }
    assert!(files.is_empty(), "on no list: {files:?}");
}

#[test]
fn the_test_sees_imports() {
    assert!(imports("upstream").contains("system"));
    assert!(imports("command").contains("config"));
    assert!(imports("system").is_empty());
}

#[test]
fn one_file_reads_the_clock() {
    let reads_clock = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("a source file");
        let rules = text.split("#[cfg(test)]").next().expect("a first part");
        rules.contains("Instant::now") || rules.contains("SystemTime::now")
    };
    let all = ROOMS.iter().flat_map(|room| files(room));
    let found: Vec<_> = all.filter(reads_clock).collect();
    assert_eq!(found, [source().join("system/clock.rs")]);
}

#[test]
fn the_manual_says_what_each_warning_means() {
    let manual = include_str!("../scripts/man/dns-tool.8");
    let mut events = 0;
    for source in ROOMS.iter().chain(&["lib"]).flat_map(|room| text(room)) {
        for call in ["warn!(", "error!(", "line!("] {
            for said in source.split(call).skip(1) {
                // One that may be a warning says its level first.
                let said = said.trim_start().trim_start_matches("level,");
                let event = said.trim_start().trim_start_matches('"');
                let Some(event) = event.strip_prefix("event=") else {
                    continue;
                };
                // Some are made of what failed.
                let end = event.find([' ', '"']).expect("an end");
                let event = event[..end].replace("{what}", "receive");
                assert!(
                    manual.contains(&format!("event={event}")),
                    "scripts/man/dns-tool.8 lacks event={event}"
                );
                events += 1;
            }
        }
    }
    assert!(events > 15, "{events} events");
}
