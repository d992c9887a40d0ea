//! The manual and the completion for bash know the options of the help, all of them and no others.

use std::collections::BTreeSet;
use std::fmt::Write;

use dns_tool::config::command_line;
use dns_tool::config::help;

const MANUAL: &str = include_str!("../scripts/man/dns-tool.8");
const COMPLETION: &str = include_str!("../scripts/completion/dns-tool.bash");

/// An option as the help shows it.
struct Entry {
    group: String,
    name: String,
    /// What its value is called; empty where it has none.
    value: String,
    /// Its meaning, and in brackets what holds without it.
    text: String,
}

/// The options of the help that have two dashes and no letter, in its order.
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
            });
        } else if line.starts_with("       ") {
            // What the usage and -h, which have no entry, go on with.
            if let Some(entry) = entries.last_mut().filter(|entry| entry.group == group) {
                entry.text = format!("{} {}", entry.text, line.trim()).trim().to_owned();
            }
        } else if let Some(name) = line.strip_suffix(':') {
            group = name.to_owned();
        }
    }
    assert!(entries.len() > 20 && entries.iter().all(|entry| entry.text.ends_with(']')));
    entries
}

/// The names of options for which `condition` holds, as the completion lists them.
fn names(condition: impl Fn(&Entry) -> bool) -> Vec<String> {
    let entries = entries().into_iter().filter(condition);
    entries.map(|entry| entry.name).collect()
}

/// Words in the language of manuals: a line for each sentence, at most 80 characters where there are blanks, and a
/// macro for each option in them.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    let mut end_line = |line: &mut String| {
        if !line.is_empty() {
            writeln!(out, "{line}").expect("room");
            line.clear();
        }
    };
    for word in text.split(' ') {
        if let Some(option) = word.strip_prefix('-') {
            end_line(&mut line);
            let end = option.trim_end_matches(|c: char| c.is_ascii_punctuation());
            let behind = &option[end.len()..];
            line = format!(".Fl {end} {behind}").trim_end().to_owned();
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

/// What the manual says of the options.
fn options_section() -> String {
    let mut section = String::new();
    let mut group = String::new();
    for entry in entries() {
        if entry.group != group {
            if !group.is_empty() {
                section.push_str(".El\n");
            }
            writeln!(section, ".Ss {}\n.Bl -tag -width Ds", entry.group).expect("room");
            group = entry.group;
        }
        let (meaning, default) = entry.text.rsplit_once(" [").expect("a default");
        let default = default.strip_suffix(']').expect("its end");
        let head = format!(".It Fl {}", &entry.name[1..]);
        let head = match &entry.value[..] {
            "" => head,
            value => format!("{head} Ar {value}"),
        };
        // A line that ends a sentence would have two blanks behind it.
        write!(section, "{head}\n{}.Bq {default}\n", prose(meaning)).expect("room");
    }
    section + ".El\n"
}

#[test]
fn the_manual_has_the_options_of_the_help_word_for_word() {
    let section = options_section();
    // By entry first, so that a failure shows what is new and no more.
    let entries = section.split("\n.It ").skip(1);
    let ends = |entry: &'_ str| entry.find("\n.El").map_or(entry.len(), |end| end);
    let lacks: String = entries
        .map(|entry| format!(".It {}\n", &entry[..ends(entry)]))
        .filter(|entry| !MANUAL.contains(entry))
        .collect();
    assert!(lacks.is_empty(), "scripts/man/dns-tool.8 lacks:\n{lacks}");
    assert!(
        MANUAL.contains(&section),
        "scripts/man/dns-tool.8: expected this order, these groups, and nothing between:\n{section}"
    );
}

#[test]
fn the_manual_speaks_of_no_option_that_the_help_does_not_know() {
    let mut known: BTreeSet<String> = names(|_| true).into_iter().collect();
    known.extend(["-h", "--help", "--help-all", "-V", "--version"].map(str::to_owned));
    let mut seen = 0;
    for line in MANUAL.lines() {
        // Between macros and their arguments, and within texts as well.
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
            assert!(
                known.contains(&option),
                "scripts/man/dns-tool.8: {option} in {line:?}"
            );
        }
    }
    assert!(seen > known.len());
}

/// The words of a variable of the completion.
fn list(variable: &str) -> Vec<String> {
    let start = format!("local {variable}=\"");
    let found = COMPLETION
        .split(&start)
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let found = found.unwrap_or_else(|| panic!("scripts/completion/dns-tool.bash has no {start}"));
    found.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn the_completion_has_the_options_of_the_help() {
    let query = |entry: &Entry| entry.group == "Query";
    let report = |entry: &Entry| entry.group == "Pin and check";
    assert_eq!(
        list("options"),
        names(|entry| !query(entry) && !report(entry))
    );
    assert_eq!(list("of_query"), names(query));
    assert_eq!(list("of_pin_and_check"), names(report));
    assert_eq!(list("without_value"), names(|entry| entry.value.is_empty()));
    assert_eq!(list("files"), names(|entry| entry.value == "FILE"));
    assert_eq!(list("folders"), names(|entry| entry.value == "DIR"));
}

#[test]
fn the_completion_has_the_values_that_the_program_takes() {
    let accepts = |arguments: [&str; 2]| command_line::parse(arguments).is_ok();
    for (option, variable) in [("--pin-mode", "modes"), ("--log-level", "levels")] {
        let words = list(variable);
        assert!(words.len() > 1);
        for word in words {
            assert!(accepts([option, &word]), "{option} {word}");
        }
    }
    let help = help::help_all();
    let subcommands = list("subcommands");
    let known = help
        .lines()
        .filter_map(|line| line.strip_prefix("       dns-tool "));
    let known: Vec<_> = known.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(subcommands, known);
}

#[test]
fn the_manual_lists_the_metrics_of_the_guide() {
    let guide = include_str!("../src/guide/monitoring.md");
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
    let listed = MANUAL.lines().filter(|line| line.starts_with(".It Li "));
    assert_eq!(listed.collect::<Vec<_>>(), expected);
}
