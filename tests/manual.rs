//! The manual pages and the completions have exactly the options of the help, and the samples are valid.

use std::collections::BTreeSet;
use std::fmt::Write;

use dns_tool::config::command_line;
use dns_tool::config::help;

use crate::guide::{chapter, texts};
use crate::support::process::program;
use crate::support::temporary_file;

/// A manual page.
struct Page {
    path: &'static str,
    text: &'static str,
    /// Whether it is about the configuration file.
    is_of_file: bool,
}

const PROGRAM: Page = Page {
    path: "scripts/man/dns-tool.8",
    text: include_str!("../scripts/man/dns-tool.8"),
    is_of_file: false,
};
const FILE: Page = Page {
    path: "scripts/man/dns-tool.conf.5",
    text: include_str!("../scripts/man/dns-tool.conf.5"),
    is_of_file: true,
};

const BASH: &str = include_str!("../scripts/completion/dns-tool.bash");
const ZSH: &str = include_str!("../scripts/completion/_dns-tool");
const FISH: &str = include_str!("../scripts/completion/dns-tool.fish");

/// The groups of options that belong to subcommands: to all, and to query alone.
const OF_ALL: &str = "Pin, check and query";
const OF_QUERY: &str = "Query";
/// Options of the daemon that the file cannot set.
const NOT_IN_FILE: [&str; 2] = ["--config", "--check-config"];
/// Options that print and exit.
const OTHER: [&str; 3] = ["--help", "--help-all", "--version"];

/// An option as the help shows it.
struct Entry {
    group: String,
    name: String,
    /// The placeholder of its value; empty for an option without a value.
    value: String,
    /// Its description.
    text: String,
    /// Its default in words.
    default: String,
    repeatable: bool,
}

impl Entry {
    fn may_stand_in_file(&self) -> bool {
        let is_of_daemon = ![OF_ALL, OF_QUERY].contains(&&*self.group);
        is_of_daemon && !NOT_IN_FILE.contains(&&*self.name)
    }
}

/// The options of the help in its order, without those of [`OTHER`].
fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut group = String::new();
    for line in help::help_all().lines() {
        if let Some(option) = line.strip_prefix("  --") {
            let (name, value) = option.split_once(' ').unwrap_or((option, ""));
            entries.push(Entry {
                group: group.clone(),
                name: format!("--{name}"),
                value: value.to_owned(),
                text: String::new(),
                default: String::new(),
                repeatable: false,
            });
        } else if line.starts_with("       ") {
            // Continuation lines of other parts belong to no entry.
            if let Some(entry) = entries.last_mut().filter(|entry| entry.group == group) {
                entry.text = format!("{} {}", entry.text, line.trim()).trim().to_owned();
            }
        } else if let Some(name) = line.strip_suffix(':') {
            group = name.to_owned();
        }
    }
    entries.retain(|entry| !OTHER.contains(&&*entry.name));
    for entry in &mut entries {
        let (text, default) = entry.text.rsplit_once(" [default: ").expect("a default");
        let default = default.strip_suffix(']').expect("the end of the default");
        let once = default.strip_suffix("; may be repeated");
        entry.repeatable = once.is_some();
        entry.default = once.unwrap_or(default).to_owned();
        entry.text = text.to_owned();
    }
    assert!(entries.len() > 20);
    entries
}

/// The names of options for which `condition` holds.
fn names(condition: impl Fn(&Entry) -> bool) -> Vec<String> {
    let entries = entries().into_iter().filter(condition);
    entries.map(|entry| entry.name).collect()
}

/// A word that names an option or a manual page, as a macro, and the punctuation behind it.
fn macro_of(word: &str, is_of_file: bool) -> Option<String> {
    let end = word.trim_end_matches(['.', ',', ';', ':']);
    let behind = &word[end.len()..];
    let line = match (end.strip_prefix("--"), end.strip_suffix(')')) {
        (Some(option), _) if is_of_file => format!(".Ic {option} {behind}"),
        (Some(option), _) => format!(".Fl -{option} {behind}"),
        (None, Some(page)) => {
            let (name, section) = page.split_once('(')?;
            section.parse::<u8>().ok()?;
            format!(".Xr {name} {section} {behind}")
        }
        (None, None) => return None,
    };
    Some(line.trim_end().to_owned())
}

/// A text in mdoc: a new line for each sentence, at most 80 characters, and macros for options and manual pages.
fn prose(text: &str, is_of_file: bool) -> String {
    let mut out = String::new();
    let mut line = String::new();
    let mut end_line = |line: &mut String| {
        if !line.is_empty() {
            writeln!(out, "{line}").expect("room");
            line.clear();
        }
    };
    for word in text.split(' ') {
        if let Some(request) = macro_of(word, is_of_file) {
            end_line(&mut line);
            line = request;
            end_line(&mut line);
            continue;
        }
        if line.len() + 1 + word.len() > 80 {
            end_line(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if word.ends_with('.') {
            end_line(&mut line);
        }
    }
    end_line(&mut line);
    out
}

/// The options as a page describes them: those that may stand in a file in the page about it, all others in the other page.
fn options_section(is_of_file: bool) -> String {
    let mut section = String::new();
    let mut group = String::new();
    let own = entries().into_iter();
    for entry in own.filter(|entry| entry.may_stand_in_file() == is_of_file) {
        if entry.group != group {
            if !group.is_empty() {
                section.push_str(".El\n");
            }
            writeln!(section, ".Ss {}\n.Bl -tag -width Ds", entry.group).expect("room");
            group = entry.group;
        }
        let head = match is_of_file {
            true => format!(".It Ic {}", &entry.name[2..]),
            false => format!(".It Fl {}", &entry.name[1..]),
        };
        let head = match (&entry.value[..], is_of_file) {
            ("", true) => format!("{head} Op Cm yes | no"),
            ("", false) => head,
            (value, _) => format!("{head} Ar {value}"),
        };
        writeln!(
            section,
            "{head}\n{}",
            prose(&entry.text, is_of_file).trim_end()
        )
        .expect("room");
        if is_of_file || !entry.value.is_empty() {
            let more = if entry.repeatable {
                " May be repeated."
            } else {
                ""
            };
            let default = format!("Default: {}.{more}", entry.default);
            section.push_str(&prose(&default, is_of_file));
        }
    }
    section + ".El\n"
}

#[test]
fn the_manual_has_the_options_of_the_help_word_for_word() {
    for Page {
        path,
        text,
        is_of_file,
    } in [PROGRAM, FILE]
    {
        let section = options_section(is_of_file);
        // By entry first, so that a failure shows only what is new.
        let entries = section.split("\n.It ").skip(1);
        let ends = |entry: &'_ str| entry.find("\n.El").map_or(entry.len(), |end| end);
        let lacks: String = entries
            .map(|entry| format!(".It {}\n", &entry[..ends(entry)]))
            .filter(|entry| !text.contains(entry))
            .collect();
        assert!(lacks.is_empty(), "{path} lacks:\n{lacks}");
        assert!(
            text.contains(&section),
            "{path}: expected this order, these groups, and nothing between:\n{section}"
        );
    }
}

#[test]
fn the_manual_of_the_program_lists_the_options_that_the_other_page_describes() {
    let mut expected = String::new();
    let mut group = String::new();
    for entry in entries().iter().filter(|entry| entry.may_stand_in_file()) {
        if entry.group != group {
            group.clone_from(&entry.group);
            writeln!(expected, ".It {group}").expect("room");
        }
        expected.push_str(format!(".Fl {} {}", &entry.name[1..], value_macro(entry)).trim_end());
        expected.push('\n');
    }
    assert!(
        PROGRAM.text.contains(&expected),
        "{}: expected:\n{expected}",
        PROGRAM.path
    );
}

fn value_macro(entry: &Entry) -> String {
    match &*entry.value {
        "" => String::new(),
        value => format!("Ar {value}"),
    }
}

#[test]
fn the_manual_speaks_of_no_option_that_the_help_does_not_know() {
    let mut known: BTreeSet<String> = names(|_| true).into_iter().collect();
    known.extend(OTHER.map(str::to_owned));
    known.extend(["-h", "-V"].map(str::to_owned));
    for Page { path, text, .. } in [PROGRAM, FILE] {
        let mut seen = 0;
        for line in text.lines() {
            // Behind macros, and within texts as well.
            let words = line.split(|c: char| c.is_whitespace() || "=,;.()\"".contains(c));
            let mut is_option = false;
            for word in words {
                let option = match is_option {
                    true => format!("-{word}"),
                    false if word.starts_with("--") => word.to_owned(),
                    false => {
                        is_option = line.starts_with('.') && word == "Fl";
                        continue;
                    }
                };
                is_option = false;
                seen += 1;
                assert!(known.contains(&option), "{path}: {option} in {line:?}");
            }
        }
        assert!(seen > 5, "{path}: {seen} options");
    }
    // The page about the file names options by another macro.
    for line in FILE.text.lines().filter(|line| line.starts_with(".Ic ")) {
        let option = line.split(' ').nth(1).expect("a name");
        assert!(
            known.contains(&format!("--{option}")),
            "{}: {line}",
            FILE.path
        );
    }
}

#[test]
fn the_guide_has_the_texts_of_the_help() {
    let guide = chapter("configuration");
    let rows: Vec<_> = guide
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .collect();
    let entries = entries();
    assert_eq!(rows.len(), entries.len());
    for (row, entry) in rows.iter().zip(entries) {
        let repeatable = if entry.repeatable {
            " (repeatable)"
        } else {
            ""
        };
        let option = format!("{} {}", entry.name, entry.value);
        let expected = format!(
            "| {}{repeatable} | {} | {} |",
            option.trim_end(),
            entry.text,
            entry.default
        );
        assert_eq!(row.replace('`', ""), expected, "src/guide/configuration.md");
    }
}

#[test]
fn the_manual_and_the_guide_name_the_same_options_for_a_restart() {
    let guide = chapter("configuration");
    let row = guide
        .lines()
        .find(|line| line.starts_with("| after a restart |"));
    let expected: Vec<_> = row.expect("a row").split('`').skip(1).step_by(2).collect();
    let listed = FILE.text.split("These options change only when").nth(1);
    let listed = listed.and_then(|text| text.split("The log names").next());
    let listed = listed.expect("a list").lines();
    let listed: Vec<_> = listed
        .filter_map(|line| line.strip_prefix(".Ic ")?.split(' ').next())
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn ranges_and_minimums_in_the_help_are_those_of_the_program() {
    let accepts = |option: &str, value: &str| command_line::parse([option, value]).is_ok();
    let mut seen = 0;
    for Entry { name, text, .. } in entries() {
        let sentence = |start| {
            text.split(start)
                .nth(1)
                .map(|rest| rest.trim_end_matches('.'))
        };
        let (accepted, refused) = if let Some((from, to)) =
            sentence("Range: ").and_then(|range| range.split_once(" to "))
        {
            // The next number beyond each end, with as many decimals.
            let refused = match from.split_once('.') {
                Some((_, decimals)) => {
                    let below = format!("0.{}4", "0".repeat(decimals.len()));
                    vec![below, format!("{to}.1")]
                }
                None => {
                    let number = |text: &str| text.parse::<i64>().expect("a number");
                    vec![(number(from) - 1).to_string(), (number(to) + 1).to_string()]
                }
            };
            (vec![from.to_owned(), to.to_owned()], refused)
        } else if let Some(least) = sentence("Minimum: ") {
            let below = least.parse::<u64>().expect("a number") - 1;
            (vec![least.to_owned()], vec![below.to_string()])
        } else {
            continue;
        };
        seen += 1;
        for value in accepted {
            assert!(accepts(&name, &value), "{name} {value}");
        }
        for value in refused {
            assert!(!accepts(&name, &value), "{name} {value}");
        }
    }
    assert!(seen > 10, "{seen} ranges");
}

/// The samples of the page about the file, by their first lines.
fn samples() -> Vec<(&'static str, &'static str)> {
    let blocks = FILE.text.split("\n.Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.map(|block| block.split(".Ed").next().expect("an end"));
    let titled = blocks.map(|block| (block.lines().next().unwrap_or_default(), block));
    titled.collect()
}

/// Runs `--check-config` on a configuration file.
fn check_config(name: &str, text: &str) -> Result<String, String> {
    let file = temporary_file(name, text.as_bytes());
    let output = program()
        .args(["--check-config", "--config"])
        .arg(&file)
        .output();
    let output = output.expect("the program runs");
    let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
    let file = file.to_str().expect("a path in UTF-8");
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        code => {
            assert_eq!(code, Some(2), "{name}");
            Err(text(output.stderr).replace(file, "FILE"))
        }
    }
}

#[test]
fn every_sample_is_a_valid_file() {
    let (pins, files): (Vec<_>, Vec<_>) = samples()
        .into_iter()
        .partition(|(title, _)| *title == "# Pins");
    let [(_, pins)] = pins[..] else {
        panic!("one sample of a pin file")
    };
    let pins = temporary_file("manual-pins", pins.as_bytes());
    let pins = pins.to_str().expect("a path in UTF-8");
    let state = tempfile::tempdir().expect("a directory");
    let state = state.path().to_str().expect("a path in UTF-8");
    assert!(files.len() >= 3, "{} samples", files.len());
    for (number, (title, sample)) in files.iter().enumerate() {
        let text = sample
            .replace("/etc/dns-tool/pins", pins)
            .replace("/var/lib/dns-tool", state);
        let place = format!("{}, {title}", FILE.path);
        assert_sets_each_line(&format!("manual-sample-{number}"), &text, &place);
    }
}

/// The configuration is valid, and each of its lines sets an option.
fn assert_sets_each_line(name: &str, text: &str, place: &str) {
    let shown = check_config(name, text).unwrap_or_else(|error| panic!("{place}: {error}"));
    let set = shown
        .lines()
        .filter(|line| line.contains(" # ") && !line.starts_with('#'));
    let set = set.filter(|line| !line.ends_with(" # default")).count();
    let lines = text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(set, lines, "{place}: {shown}");
}

/// The blocks of a chapter whose first line says that they are the configuration file.
fn configurations(text: &str) -> Vec<String> {
    let blocks = text.split("```text\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let unindented = blocks.map(|block| {
        let lines = block.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| format!("{line}\n")).collect::<String>()
    });
    unindented
        .filter(|block| block.starts_with("# /etc/dns-tool/dns-tool.conf"))
        .collect()
}

#[test]
fn every_configuration_of_the_guide_is_a_valid_file() {
    let mut seen = 0;
    for (path, text) in texts() {
        for block in configurations(&text) {
            seen += 1;
            let place = format!("{}: {block}", path.display());
            assert_sets_each_line(&format!("guide-configuration-{seen}"), &block, &place);
        }
    }
    assert!(seen > 5, "{seen} configurations");
}

#[test]
fn every_error_of_the_manual_is_what_the_program_prints() {
    let shown = |line: &str| {
        let text = line.strip_prefix(".It Sy \"FILE:")?;
        let (number, cause) = text.strip_suffix('"')?.split_once(": ")?;
        let cause = cause.replace("\\(dq", "\"");
        Some((number.parse::<usize>().ok()?, cause))
    };
    let errors: Vec<_> = FILE.text.lines().filter_map(shown).collect();
    let lines = [
        "timeout fast",
        "prot 53",
        "port",
        "json",
        "port 53\nport 53",
    ];
    assert_eq!(errors.len(), lines.len());
    for ((number, cause), line) in errors.into_iter().zip(lines) {
        let before = number - line.lines().count();
        let text = format!("{}{line}\n", "\n".repeat(before));
        let error = check_config("manual-error", &text).expect_err(line);
        assert_eq!(error, format!("dns-tool: FILE:{number}: {cause}\n"));
    }
}

/// The words of a variable of the completion for bash.
fn list(variable: &str) -> Vec<String> {
    let start = format!("local {variable}=\"");
    let found = BASH
        .split(&start)
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let found = found.unwrap_or_else(|| panic!("scripts/completion/dns-tool.bash has no {start}"));
    found.split_whitespace().map(str::to_owned).collect()
}

/// The first sentence of a text, as the completions describe an option.
fn summary(text: &str) -> &str {
    let end = [". ", ": "].iter().filter_map(|end| text.find(end)).min();
    text[..end.unwrap_or(text.len())].trim_end_matches('.')
}

#[test]
fn the_completion_for_bash_has_the_options_of_the_help() {
    let query = |entry: &Entry| entry.group == OF_QUERY;
    let report = |entry: &Entry| entry.group == OF_ALL;
    assert_eq!(
        list("options"),
        names(|entry| !query(entry) && !report(entry))
    );
    assert_eq!(list("of_query"), names(query));
    assert_eq!(list("of_all"), names(report));
    assert_eq!(list("without_value"), names(|entry| entry.value.is_empty()));
    assert_eq!(list("files"), names(|entry| entry.value == "FILE"));
    assert_eq!(list("folders"), names(|entry| entry.value == "DIR"));
}

#[test]
fn the_completion_for_zsh_has_the_options_of_the_help() {
    let expected: Vec<_> = entries()
        .iter()
        .map(|entry| {
            let star = if entry.repeatable { "*" } else { "" };
            let equals = if entry.value.is_empty() { "" } else { "=" };
            let escaped = |text: &str| text.replace('\'', "'\\''").replace([':', '[', ']'], " ");
            let action = match &*entry.value {
                "" => String::new(),
                "FILE" => ":FILE:_files".to_owned(),
                "DIR" => ":DIR:_files -/".to_owned(),
                "MODE" if entry.name == "--special-names" => ":MODE:(answer relay)".to_owned(),
                "MODE" if entry.name == "--key-exchange" => {
                    ":MODE:(prefer require classical)".to_owned()
                }
                "MODE" => ":MODE:(strict report)".to_owned(),
                "LEVEL" => ":LEVEL:(error warn info debug trace)".to_owned(),
                _ if entry.name == "--user" => ":NAME:_users".to_owned(),
                value => format!(":{}: ", value.replace(':', "\\:").replace(['[', ']'], "")),
            };
            format!(
                "'{star}{}{equals}[{}]{action}'",
                entry.name,
                escaped(summary(&entry.text))
            )
        })
        .collect();
    let found = ZSH.lines().map(str::trim);
    let found: Vec<_> = found
        .filter(|line| line.starts_with("'--") || line.starts_with("'*--"))
        .collect();
    assert_eq!(found, expected, "scripts/completion/_dns-tool");
}

#[test]
fn the_completion_for_fish_has_the_options_of_the_help() {
    let expected: Vec<_> = entries()
        .iter()
        .map(|entry| {
            let of = match &*entry.group {
                OF_QUERY => " -n '__fish_seen_subcommand_from query'",
                OF_ALL => " -n '__fish_seen_subcommand_from pin check query'",
                _ => "",
            };
            let value = match &*entry.value {
                "" => "",
                "FILE" => " -rF",
                "DIR" => " -xa '(__fish_complete_directories)'",
                "MODE" if entry.name == "--special-names" => " -xa 'answer relay'",
                "MODE" if entry.name == "--key-exchange" => " -xa 'prefer require classical'",
                "MODE" => " -xa 'strict report'",
                "LEVEL" => " -xa 'error warn info debug trace'",
                _ if entry.name == "--user" => " -xa '(__fish_complete_users)'",
                _ => " -x",
            };
            let escaped = summary(&entry.text).replace('\'', "\\'");
            format!(
                "complete -c dns-tool{of} -l {}{value} -d '{escaped}'",
                &entry.name[2..]
            )
        })
        .collect();
    let found = FISH
        .lines()
        .filter(|line| line.starts_with("complete ") && line.contains(" -l "));
    let is_other = |line: &&str| {
        OTHER
            .iter()
            .any(|other| line.contains(&format!(" -l {} ", &other[2..])))
    };
    let found: Vec<_> = found.filter(|line| !is_other(line)).collect();
    assert_eq!(found, expected, "scripts/completion/dns-tool.fish");
}

#[test]
fn the_completions_have_the_values_that_the_program_takes() {
    let accepts = |arguments: [&str; 2]| command_line::parse(arguments).is_ok();
    for (option, variable, words) in [
        ("--pin-mode", "modes", "strict report"),
        ("--key-exchange", "exchanges", "prefer require classical"),
        ("--special-names", "treatments", "answer relay"),
        ("--log-level", "levels", "error warn info debug trace"),
    ] {
        // The tests above hold the other two to the same words.
        assert_eq!(list(variable).join(" "), words);
        for word in words.split(' ') {
            assert!(accepts([option, word]), "{option} {word}");
        }
    }
    let help = help::help_all();
    let known = help
        .lines()
        .filter_map(|line| line.strip_prefix("       dns-tool "));
    let known: Vec<_> = known.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(list("subcommands"), known);
    for word in known {
        assert!(ZSH.contains(&format!("'{word}:")), "zsh: {word}");
        let offered = format!("-n \"$first\" -a {word} ");
        assert!(FISH.contains(&offered), "fish: {word}");
    }
    for other in OTHER {
        let of_zsh = ZSH.lines().filter(|line| line.contains("'(- *)"));
        let of_zsh = of_zsh.filter(|line| line.replace("}'", "").contains(&format!("{other}[")));
        assert_eq!(of_zsh.count(), 1, "zsh: {other}");
        assert!(
            FISH.contains(&format!(" -l {} ", &other[2..])),
            "fish: {other}"
        );
    }
}

#[test]
fn the_manual_lists_the_metrics_of_the_guide() {
    let guide = chapter("monitoring");
    let is_metric =
        |line: &&str| line.starts_with("| `dns_tool_") || line.starts_with("| `process_");
    let mut expected = Vec::new();
    for row in guide.lines().filter(is_metric) {
        let row = row.replace(['`', ' '], "");
        let cells: Vec<_> = row.split('|').collect();
        let name = cells[1].strip_prefix("dns_tool_").unwrap_or(cells[1]);
        // Behind the name of a label its values stand in parentheses.
        let labels = cells[3]
            .split('(')
            .map(|part| part.rsplit(')').next().unwrap_or(""));
        let labels: String = labels.collect();
        let labels = if labels.is_empty() {
            labels
        } else {
            format!("{{{labels}}}")
        };
        expected.push(format!(".It Li {name}{labels} Ta {}", cells[2]));
    }
    assert!(expected.len() > 40);
    let listed = PROGRAM
        .text
        .lines()
        .filter(|line| line.starts_with(".It Li "));
    assert_eq!(listed.collect::<Vec<_>>(), expected);
}

/// The sections that mdoc(7) knows, in its order.
const SECTIONS: [&str; 15] = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "ENVIRONMENT",
    "FILES",
    "EXIT STATUS",
    "EXAMPLES",
    "DIAGNOSTICS",
    "SEE ALSO",
    "STANDARDS",
    "HISTORY",
    "AUTHORS",
    "CAVEATS",
    "BUGS",
    "SECURITY CONSIDERATIONS",
];

#[test]
fn the_sections_of_the_manual_are_in_the_order_of_mdoc() {
    for Page { path, text, .. } in [PROGRAM, FILE] {
        let found: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(".Sh "))
            .collect();
        let position = |name: &str| SECTIONS.iter().position(|known| *known == name);
        let known: Vec<_> = found.iter().filter_map(|name| position(name)).collect();
        assert!(known.is_sorted() && known.len() > 5, "{path}: {found:?}");
        // Sections of its own stand between DESCRIPTION and ENVIRONMENT.
        let at = |name: &str| found.iter().position(|known| *known == name);
        let own = found
            .iter()
            .enumerate()
            .filter(|(_, name)| position(name).is_none());
        let range = at("DESCRIPTION").expect("one")..at("ENVIRONMENT").expect("one");
        let stray: Vec<_> = own.filter(|(index, _)| !range.contains(index)).collect();
        assert!(stray.is_empty(), "{path}: {stray:?}");
    }
}
