//! Data runs one way: a folder imports only folders below it, and a file in it only files below it there. No file is too long to be
//! read in one go, and no function to be seen at once. And what every file may say is in the manual.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The folders, from the door inwards, and the files of each from the top down. The guide draws the same.
const WINGS: [(&str, &[&str]); 14] = [
    (
        "command",
        &[
            "check",
            "pin",
            "query",
            "answer_report",
            "check_ports",
            "check_routes",
            "check_resolver",
            "check_identity",
            "built_in_addresses",
            "check_report",
            "stub",
            "json",
        ],
    ),
    (
        "daemon",
        &[
            "reload",
            "start",
            "confinement",
            "error",
            "running",
            "hosts_manager",
            "network_monitor",
            "pin_manager",
            "upstreams",
        ],
    ),
    (
        "config",
        &[
            "command_line",
            "help",
            "settings",
            "listeners",
            "routes",
            "values",
            "sources",
            "file",
            "option_lookup",
            "options",
        ],
    ),
    (
        "server",
        &[
            "listeners",
            "sockets",
            "tcp",
            "udp",
            "backoff",
            "settings",
            "workers",
            "reader",
        ],
    ),
    (
        "monitoring",
        &[
            "http",
            "page",
            "chart",
            "snapshot",
            "history",
            "export",
            "resolver_metrics",
            "summary",
            "human_units",
            "process",
            "exposition",
            "service_level",
        ],
    ),
    (
        "forward",
        &[
            "forwarder",
            "relay",
            "checks",
            "completion",
            "policy",
            "routes",
            "counts",
            "in_flight_table",
            "in_flight",
            "waiters",
            "rebinding",
            "outcome",
            "rate_limit",
            "quota",
        ],
    ),
    (
        "local",
        &[
            "reply",
            "hosts_reader",
            "hosts_file",
            "host_table",
            "special_names",
        ],
    ),
    (
        "cache",
        &["store", "cache_hit", "entry", "cacheability", "backoff"],
    ),
    (
        "upstream",
        &[
            "answers",
            "connect",
            "consistency",
            "events",
            "service",
            "pool_query",
            "reload",
            "network_change",
            "session_thread",
            "timer",
            "network",
            "timing",
            "suspects",
            "hello_fallback",
            "isolation",
            "scheduling",
            "driver",
            "reader",
            "session_end",
            "query_ids",
            "status",
            "traits",
            "pool",
            "session",
            "channel",
            "settings",
            "actions",
            "address",
            "obstruction",
            "address_record",
            "handshake",
            "outgoing",
            "hello_size",
            "outage",
            "health",
            "table",
            "token_bucket",
            "culprits",
        ],
    ),
    (
        "client",
        &[
            "connection_limit",
            "reply_batch",
            "address",
            "connection",
            "destination",
            "slow_readers",
            "datagrams",
            "stream",
            "eviction_order",
            "in_flight",
            "outbox",
            "slots",
            "slow_reader_list",
            "unsent_replies",
            "delivery_state",
            "send_failure",
            "eviction_counters",
        ],
    ),
    (
        "identity",
        &[
            "trust",
            "verifier",
            "chain",
            "certificate",
            "pin_file",
            "state_file",
            "history_lines",
            "verify_error",
            "verify_policy",
            "key_exchange",
            "anchors",
            "rollover",
            "pin",
        ],
    ),
    (
        "telemetry",
        &["log", "query_log", "journal", "queue", "metrics"],
    ),
    (
        "message",
        &[
            "cached_answer",
            "framing",
            "presentation",
            "query_writing",
            "zone_map",
            "response",
            "source",
            "addresses",
            "answer",
            "query",
            "compression",
            "edns",
            "key",
            "question",
            "record",
            "header",
            "name",
            "codes",
            "octets",
            "parse_error",
        ],
    ),
    (
        "system",
        &[
            "allocator",
            "date",
            "deadline",
            "executor",
            "file_watch",
            "memory",
            "network_watch",
            "port_owner",
            "privileges",
            "sandbox",
            "scoped_address",
            "service_manager",
            "signals",
            "socket_owner",
            "thread",
            "clock",
        ],
    ),
];

/// Lines of a file, without its tests.
const FILE: usize = 500;
/// Files that are longer, as long as they may be, and why.
const LONGER_FILES: [(&str, usize, &str); 0] = [];

/// Lines of a function, from its first to its closing brace.
const FUNCTION: usize = 60;

/// Public methods of a type.
const METHODS: usize = 12;
/// Types that have more, as many as they may have, and why.
const LARGER_TYPES: [(&str, usize, &str); 3] = [
    (
        "message::Answer",
        16,
        "each is a plain look at one part of a message",
    ),
    (
        "upstream::Pool",
        27,
        "a method for each event, and a few that simulations look with",
    ),
    (
        "upstream::Upstream",
        19,
        "each is called seldom, to start, to reload, to stop or to look",
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A file of Rust.
struct File {
    /// Its path below `src`, without the extension.
    name: String,
    text: String,
}

impl File {
    /// What it says but for its tests.
    fn rules(&self) -> &str {
        let tests = self.text.find("#[cfg(test)]\nmod ");
        &self.text[..tests.unwrap_or(self.text.len())]
    }

    /// Its name in its folder, or that of the folder in there that it is in.
    fn in_wing(&self) -> &str {
        self.name.split('/').nth(1).unwrap_or_default()
    }

    /// Whether it is in a folder's folder.
    fn is_deeper(&self) -> bool {
        self.name.split('/').count() > 2
    }

    fn is_for_tests(&self) -> bool {
        let name = self.name.rsplit('/').next().unwrap_or_default();
        name == "tests" || name.starts_with("test_")
    }
}

/// All files of a folder and the folders in it.
fn files(wing: &str) -> Vec<File> {
    let mut folders = vec![source().join(wing)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(source()).expect("it is in there");
                files.push(File {
                    name: name.with_extension("").to_string_lossy().into_owned(),
                    text: fs::read_to_string(&path).expect("a source file"),
                });
            }
        }
    }
    files
}

/// The files of all folders, but for those of tests.
fn all_files() -> Vec<File> {
    let all = WINGS.iter().flat_map(|(wing, _)| files(wing));
    all.filter(|file| !file.is_for_tests()).collect()
}

fn word(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The first words of what stands in braces behind a path, or the one that stands there.
fn words(path: &str) -> Vec<&str> {
    let Some(inside) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut depth = 1;
    let mut words = vec![word(inside.trim_start())];
    for (at, letter) in inside.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => words.push(word(inside[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    words
}

/// What stands behind each `prefix` in the code: the words that follow, not those of comments.
fn paths<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let is_code = |at: usize| {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        !text[line..at].trim_start().starts_with("//")
    };
    text.match_indices(prefix)
        .filter(|(at, _)| is_code(*at))
        .map(|(at, _)| &text[at + prefix.len()..])
        .collect()
}

/// The other folders that a file names.
fn wings_named(file: &File) -> BTreeSet<&str> {
    let own = word(&file.name);
    let paths = paths(&file.text, "crate::").into_iter();
    paths.map(word).filter(|wing| *wing != own).collect()
}

/// The files of its own folder that a file imports; `mod` where it imports what is declared for the whole folder.
fn files_named<'f>(file: &'f File, siblings: &[&str]) -> BTreeSet<&'f str> {
    let own = format!("crate::{}::", word(&file.name));
    let text = file.rules();
    let mut found: Vec<_> = paths(text, &own).into_iter().flat_map(words).collect();
    // Within a file's own modules, which are indented, it means the file.
    let relative = [
        "\nuse super::",
        "\npub use super::",
        "\npub(super) use super::",
    ];
    for import in relative.into_iter().filter(|_| !file.is_deeper()) {
        found.extend(paths(text, import).into_iter().flat_map(words));
    }
    let name = file.in_wing();
    let place = |word: &'f str| {
        if siblings.contains(&word) {
            word
        } else {
            "mod"
        }
    };
    found
        .into_iter()
        .map(place)
        .filter(|other| *other != name)
        .collect()
}

#[test]
fn a_folder_imports_only_folders_below_it() {
    for (position, (wing, _)) in WINGS.iter().enumerate() {
        for file in files(wing) {
            for import in wings_named(&file) {
                let below = WINGS.iter().position(|(other, _)| *other == import);
                assert!(
                    below.is_some_and(|below| below > position),
                    "{} imports {import}, which is not below it",
                    file.name
                );
            }
        }
    }
}

#[test]
fn a_file_imports_only_files_below_it_in_its_folder() {
    for (wing, names) in WINGS {
        for file in all_files().iter().filter(|file| word(&file.name) == wing) {
            let name = file.in_wing();
            if name == "mod" {
                continue;
            }
            let position = names.iter().position(|other| *other == name);
            let position = position.unwrap_or_else(|| panic!("{} is on no list", file.name));
            for import in files_named(file, names) {
                let below = names.iter().position(|other| *other == import);
                assert!(
                    below.is_some_and(|below| below > position),
                    "{} imports {import}, which is not below it",
                    file.name
                );
            }
        }
    }
}

#[test]
fn every_file_is_on_the_list_and_every_folder_in_the_guide() {
    let guide = fs::read_to_string(source().join("guide/contributing.md")).expect("a chapter");
    for (wing, names) in WINGS {
        assert!(
            guide.contains(&format!("| `{wing}/` |")),
            "{wing} is not in the guide"
        );
        for name in names {
            let path = source().join(wing).join(name);
            let is_there = path.is_dir() || path.with_extension("rs").is_file();
            assert!(is_there, "{wing}/{name} is not there");
        }
    }
    let entries = fs::read_dir(source()).expect("the sources");
    for entry in entries.map(|entry| entry.expect("an entry").file_name()) {
        let name = entry.to_string_lossy();
        let is_known = WINGS.iter().any(|(wing, _)| *wing == name);
        assert!(
            // The guide is text.
            is_known || ["lib.rs", "main.rs", "guide"].contains(&&*name),
            "{name} is on no list"
        );
    }
}

#[test]
fn the_tests_see_imports() {
    let file = |name: &str, text: &str| File {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let upper = file(
        "forward/checks",
        "// crate::command\nuse crate::upstream::pool;\nuse super::outcome::Outcome;\nuse super::{\n    policy::A, B};\n",
    );
    assert_eq!(Vec::from_iter(wings_named(&upper)), ["upstream"]);
    let named = files_named(&upper, &["outcome", "policy"]);
    assert_eq!(Vec::from_iter(named), ["mod", "outcome", "policy"]);
    let all = all_files();
    let of = |name: &str| all.iter().find(|file| file.name == name).expect("a file");
    assert!(wings_named(of("forward/completion")).contains("upstream"));
    assert!(wings_named(of("system/clock")).is_empty());
}

#[test]
fn no_file_is_too_long() {
    let mut longer: BTreeMap<&str, usize> = LONGER_FILES
        .iter()
        .map(|(file, lines, _)| (*file, *lines))
        .collect();
    let mut failures = Vec::new();
    for file in &all_files() {
        let lines = file.rules().lines().count();
        let most = longer.remove(&*file.name);
        if lines > most.unwrap_or(FILE) || most.is_some() && lines <= FILE {
            failures.push(format!(
                "{}: {lines} lines, {} expected",
                file.name,
                most.unwrap_or(FILE)
            ));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(longer.is_empty(), "no such files: {longer:?}");
}

/// The functions of a text, each with its name and how many lines it has.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut functions = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, rest)) = code.split_once("fn ") else {
            continue;
        };
        let is_kind =
            |word: &str| word.starts_with("pub") || ["const", "extern", "\"C\""].contains(&word);
        if !before.split_whitespace().all(is_kind) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let has_body = lines[first..].iter().find_map(|line| {
            let ends = line.ends_with('{') || line.ends_with('}');
            (ends || line.ends_with(';')).then_some(ends)
        });
        if has_body != Some(true) || line.ends_with('}') {
            continue;
        }
        if let Some(length) = lines[first..].iter().position(|line| *line == end) {
            functions.push((word(rest), length + 1));
        }
    }
    functions
}

#[test]
fn no_function_is_too_long() {
    let mut failures = Vec::new();
    let mut seen = 0;
    for file in &all_files() {
        for (name, lines) in functions(file.rules()) {
            seen += 1;
            if lines > FUNCTION {
                failures.push(format!("{}: {name} has {lines} lines", file.name));
            }
        }
    }
    assert!(seen > 1000, "{seen} functions");
    assert!(failures.is_empty(), "{failures:#?}");
}

/// How many public methods each type has, in all files of its folder.
fn methods() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for file in &all_files() {
        let mut of = None;
        for line in file.rules().lines() {
            if let Some(head) = line.strip_prefix("impl") {
                let head = match head.strip_prefix('<') {
                    Some(generic) => generic.split_once("> ").map_or("", |(_, rest)| rest),
                    None => head.trim_start(),
                };
                let is_own = !head.contains(" for ");
                of = is_own.then(|| format!("{}::{}", word(&file.name), word(head)));
            } else if let (Some(of), Some(_)) = (&of, line.strip_prefix("    pub fn ")) {
                *counts.entry(of.clone()).or_default() += 1;
            }
        }
    }
    counts
}

#[test]
fn no_type_has_too_many_methods() {
    let mut larger: BTreeMap<&str, usize> = LARGER_TYPES
        .iter()
        .map(|(name, most, _)| (*name, *most))
        .collect();
    let mut failures = Vec::new();
    for (name, count) in methods() {
        let most = larger.remove(&*name);
        if count > most.unwrap_or(METHODS) || most.is_some() && count <= METHODS {
            failures.push(format!("{name}: {count} methods"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(larger.is_empty(), "no such types: {larger:?}");
}

#[test]
fn one_file_reads_the_clock() {
    let all = all_files();
    let reads_clock = |file: &&File| {
        let rules = file.rules();
        rules.contains("Instant::now") || rules.contains("SystemTime::now")
    };
    let found: Vec<_> = all
        .iter()
        .filter(reads_clock)
        .map(|file| &file.name)
        .collect();
    assert_eq!(found, ["system/clock"]);
}

/// The events that the code logs, each with its levels.
fn logged_events() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut events: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
    let main = include_str!("../src/main.rs");
    let all = all_files();
    for source in all.iter().map(File::rules).chain([main]) {
        for (call, levels) in [
            ("debug!(", &["debug"][..]),
            ("info!(", &["info"]),
            ("warn!(", &["warn"]),
            ("error!(", &["error"]),
            // The level depends on what has happened.
            ("line!(", &["info", "warn"]),
            // The log reports its own gaps.
            ("format_args!(", &["warn"]),
        ] {
            for logged in source.split(call).skip(1) {
                let logged = logged.trim_start().trim_start_matches("level,");
                let logged = logged.trim_start().trim_start_matches('"');
                let Some(event) = logged.strip_prefix("event=") else {
                    continue;
                };
                let end = event.find([' ', '"']).expect("an end");
                // Some are made of what failed.
                for what in ["accept", "receive"] {
                    let event = event[..end].replace("{what}", what);
                    events.entry(event).or_default().extend(levels);
                }
            }
        }
    }
    events
}

#[test]
fn every_event_in_the_source_is_logged_by_a_call_that_is_looked_for() {
    let logged = logged_events();
    let main = include_str!("../src/main.rs");
    let all = all_files();
    for source in all.iter().map(File::rules).chain([main]) {
        for text in source.split("\"event=").skip(1) {
            let end = text.find([' ', '"']).expect("an end");
            let event = text[..end].replace("{what}", "accept");
            // The log looks for the word itself.
            assert!(event.is_empty() || logged.contains_key(&event), "{event}");
        }
    }
}

#[test]
fn the_manual_says_what_each_event_means_and_what_to_do_about_a_warning() {
    let manual = include_str!("../scripts/man/dns-tool.8");
    let entries: Vec<_> = manual.split("\n.It Sy ").skip(1).collect();
    assert!(entries.len() > 50, "{} entries", entries.len());
    for entry in entries {
        let (head, text) = entry.split_once('\n').expect("a text");
        let text = text.split("\n.El").next().expect("a text");
        let (meaning, to_do) = text.split_once("What to do: ").unwrap_or((text, ""));
        assert!(meaning.trim().len() > 10, "{head}");
        let is_warning = head.contains("warn") || head.contains("error");
        assert_eq!(!to_do.trim().is_empty(), is_warning, "{head}");
    }
}

#[test]
fn the_guide_lists_each_event_of_the_log_with_its_levels_and_what_to_do() {
    let guide = include_str!("../src/guide/troubleshooting.md");
    let (_, section) = guide.split_once("\n## Log events").expect("the section");
    let section = section.split("\n## ").next().expect("a section");
    let mut listed: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [events, levels, meaning, to_do] = cells[..] else {
            panic!("four cells: {row}");
        };
        let levels: BTreeSet<_> = ["debug", "info", "warn", "error"]
            .into_iter()
            .filter(|level| levels.split([' ', ',']).any(|word| word == *level))
            .collect();
        assert!(!meaning.is_empty(), "{row}");
        assert!(
            !to_do.is_empty() || levels.iter().eq(["debug"].iter()),
            "{row}"
        );
        for event in events.split(", ").map(|event| event.trim_matches('`')) {
            assert_eq!(
                listed.insert(event.to_owned(), levels.clone()),
                None,
                "{event}"
            );
        }
    }
    for (event, levels) in logged_events() {
        let found = listed.remove(&event);
        assert_eq!(found, Some(levels), "src/guide/troubleshooting.md: {event}");
    }
    assert!(
        listed.is_empty(),
        "src/guide/troubleshooting.md: {listed:?}"
    );
}

#[test]
fn the_manual_lists_each_event_of_the_log_with_its_levels() {
    let manual = include_str!("../scripts/man/dns-tool.8");
    let entry = |line: &'static str| {
        let (event, levels) = line.split_once(" Pq ").unwrap_or((line, ""));
        let levels = levels.split(", ").filter(|level| !level.is_empty());
        (event.to_owned(), levels.collect())
    };
    let listed = manual
        .lines()
        .filter_map(|line| line.strip_prefix(".It Sy ").map(entry));
    let listed: BTreeMap<String, BTreeSet<&str>> = listed.collect();
    let logged = logged_events();
    assert!(logged.len() > 50, "{} events", logged.len());
    for (event, levels) in &logged {
        let found = listed.get(event);
        assert_eq!(found, Some(levels), "scripts/man/dns-tool.8: {event}");
    }
    let unknown: Vec<_> = listed
        .keys()
        .filter(|event| !logged.contains_key(*event))
        .collect();
    assert!(unknown.is_empty(), "scripts/man/dns-tool.8: {unknown:?}");
}
