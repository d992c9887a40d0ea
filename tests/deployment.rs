//! The sample of a configuration file says what the help says, and means what holds without it.

use std::fmt::Write;

use dns_tool::config::help;

use crate::support::process::program;
use crate::support::temporary_file;

const SAMPLE: &str = include_str!("../scripts/dns-tool.conf");
/// Options whose default is more than its values: given as such they mean something else.
const MORE_THAN_VALUES: [&str; 3] = ["address", "rate-limit", "max-clients-per-address"];

/// What `--check-config` prints with these arguments.
fn settings(arguments: &[&str]) -> Result<String, String> {
    let mut program = program();
    let output = program.arg("--check-config").args(arguments).output();
    let output = output.expect("the program runs");
    let said = String::from_utf8(output.stdout).expect("text");
    match output.status.success() {
        true => Ok(said),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// Writes lines to a configuration file, and returns what `--check-config` makes of it.
fn settings_of(name: &str, lines: &str) -> Result<String, String> {
    let file = temporary_file(&format!("sample-{name}"), lines.as_bytes());
    settings(&["--config", file.to_str().expect("a path in UTF-8")])
}

/// The options that may stand in a file, in the order of the help, and the values that hold without it, as far as those
/// can be said.
fn defaults() -> Vec<(String, Vec<String>)> {
    let mut defaults: Vec<(String, Vec<String>)> = Vec::new();
    let shown = settings(&[]).expect("defaults that hold");
    for line in shown.lines() {
        let line = line.strip_suffix(" # default").expect("a default");
        let comment = line.strip_prefix("# ");
        let (name, text) = comment.unwrap_or(line).split_once(' ').expect("a value");
        if defaults.last().is_none_or(|(known, _)| known != name) {
            defaults.push((name.to_owned(), Vec::new()));
        }
        let (_, values) = defaults.last_mut().expect("the one just added");
        if comment.is_none() {
            values.push(text.to_owned());
        } else if MORE_THAN_VALUES.contains(&name) {
            values.extend(text.split(" and ").map(str::to_owned));
        }
    }
    // This one names the file.
    defaults.retain(|(name, _)| name != "config");
    defaults
}

/// What the sample has to hold below its head.
fn expected() -> String {
    let defaults = defaults();
    let mut expected = String::new();
    let mut group = String::new();
    let help = help::help_all();
    let mut lines = help.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_suffix(':') {
            group = format!("\n# == {name} ==\n");
        }
        let Some(option) = line.strip_prefix("  --") else {
            continue;
        };
        let (name, value) = option.split_once(' ').unwrap_or((option, "no"));
        let Some((_, values)) = defaults.iter().find(|(known, _)| known == name) else {
            continue;
        };
        expected.push_str(&group);
        group.clear();
        expected.push('\n');
        while let Some(line) = lines.next_if(|line| line.starts_with("        ")) {
            writeln!(expected, "# {}", line.trim()).expect("room");
        }
        let values = match &values[..] {
            [] => &[value.to_owned()],
            values => values,
        };
        for value in values {
            writeln!(expected, "#{name} {value}").expect("room");
        }
    }
    expected
}

/// The lines that are options once their first character is taken away: those that stand for a default, and those whose
/// value is only what it is called.
fn options() -> (Vec<&'static str>, Vec<&'static str>) {
    let lines = SAMPLE.lines().filter_map(|line| line.strip_prefix('#'));
    let options = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let defaults = defaults();
    options.partition(|line| {
        let (name, value) = line.split_once(' ').expect("a value");
        let mut known = defaults.iter().filter(|(known, _)| known == name);
        known.any(|(_, values)| values.iter().any(|default| default == value)) || value == "no"
    })
}

#[test]
fn the_sample_has_every_option_that_may_stand_in_a_file_and_nothing_in_force() {
    let (_, body) = SAMPLE.split_once("\n\n").expect("a head and the options");
    let expected = expected();
    assert_eq!(
        format!("\n{body}"),
        expected,
        "scripts/dns-tool.conf: expected below its head:\n{expected}"
    );
    assert!(
        SAMPLE
            .lines()
            .all(|line| line.is_empty() || line.starts_with('#'))
    );
    settings_of("whole", SAMPLE).expect("a sound file");
}

#[test]
fn the_defaults_of_the_sample_mean_what_holds_without_them() {
    let (defaults, _) = options();
    assert!(defaults.len() > 25);
    let shown = settings_of("defaults", &defaults.join("\n")).expect("a sound file");
    let in_force: Vec<_> = shown
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(" # ").expect("a place"))
        .collect();
    // In the order of the help, as in the file; and all from there.
    let settings: Vec<_> = in_force.iter().map(|(setting, _)| *setting).collect();
    assert_eq!(settings, defaults);
    assert!(
        in_force.iter().all(|(_, place)| *place != "default"),
        "{shown}"
    );
}

#[test]
fn what_a_value_is_called_is_not_taken_for_one() {
    let (_, names) = options();
    assert!(names.len() > 5);
    for line in names {
        let refused = settings_of("name", line).expect_err(line);
        assert!(refused.contains(":1: "), "{line}: {refused}");
    }
}
