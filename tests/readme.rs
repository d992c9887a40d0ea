//! README and guide say what is so.

use std::fs;

use dns_tool::config::command_line::{self, Command};
use dns_tool::config::help;
use dns_tool::forward::outcome::Outcome;

use crate::guide::{chapter, texts};
use crate::support::temporary_file;

/// What the check that lands changes does not run: itself, and what takes minutes and has a short form among the tests.
const LONG: [&str; 2] = [".ci/run", "scripts/chaos"];

/// The lines of the shell blocks of all texts.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    for (_, text) in texts() {
        let mut inside = false;
        for line in text.lines() {
            match line {
                "```sh" => inside = true,
                "```" => inside = false,
                _ if inside => commands.push(line.to_owned()),
                _ => {}
            }
        }
    }
    commands
}

/// Whether a line of this script begins with the command, or has it where another one begins.
fn runs(script: &str, command: &str) -> bool {
    script.lines().any(|line| {
        line.match_indices(command).any(|(at, _)| {
            let (before, after) = (line[..at].trim_start(), &line[at + command.len()..]);
            let begins = before.is_empty() || before.ends_with("$(") || before.ends_with('"');
            begins && (after.is_empty() || after.starts_with([' ', '"', ')', ';']))
        })
    })
}

/// A script without its call of shellcheck, which names nearly all of them and runs none.
fn without_shellcheck(script: &str) -> String {
    let mut inside = false;
    let lines = script.lines().filter(|line| {
        let skipped = inside || line.starts_with("shellcheck ");
        inside = skipped && line.ends_with('\\');
        !skipped
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The example of a configuration file.
fn example_file() -> String {
    let configuration = chapter("configuration");
    let example = configuration
        .split("```text\n")
        .find(|block| block.starts_with("# /etc/dns-tool/dns-tool.conf"));
    let example = example.expect("an example").split("```").next();
    example.unwrap_or_default().to_owned()
}

#[test]
fn every_example_is_a_command_line_that_is_understood() {
    let examples: Vec<_> = commands()
        .into_iter()
        .filter(|command| command.starts_with("dns-tool"))
        .collect();
    assert!(examples.len() >= 3);
    // The file of pins is made by one of the examples.
    let pins = "cloudflare-dns.com sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
    let pins = temporary_file("readme-pins", pins.as_bytes());
    let pins = pins.to_str().expect("a path in UTF-8");
    let file = temporary_file("readme-options", example_file().as_bytes());
    let file = file.to_str().expect("a path in UTF-8");
    for example in examples {
        // Where its output goes is the shell's to see to.
        let command = example.split(" >").next().expect("a first part");
        let words = command.split(' ').skip(1);
        let arguments = words.map(|word| match word {
            "pins" => pins,
            "dns-tool.conf" => file,
            word => word,
        });
        let understood = command_line::parse(arguments);
        let printed = matches!(understood, Ok(Command::Help { .. } | Command::Version));
        assert!(understood.is_ok() && !printed, "{example}");
    }
}

#[test]
fn every_other_command_is_run_by_the_check_that_lands_changes() {
    let read = |path: &str| {
        let whole = fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR")));
        without_shellcheck(&whole.expect(path))
    };
    let mut check = read(".ci/run");
    assert!(!check.contains("shellcheck -x"), "{check}");
    // It runs this script, which has the commands for containers.
    let script = "scripts/under-podman";
    assert!(runs(&check, script));
    check.push('\n');
    check += &read(script);
    for command in commands()
        .iter()
        .filter(|command| !command.starts_with("dns-tool"))
    {
        assert!(
            LONG.contains(&command.as_str()) || runs(&check, command.trim_start()),
            ".ci/run does not run: {command}"
        );
    }
}

#[test]
fn the_options_that_the_readme_recommends_are_in_the_help() {
    let help = help::help_all();
    let readme = texts().swap_remove(0).1;
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let options: Vec<_> = rows.filter(|row| row.starts_with("--")).collect();
    assert!(options.len() >= 10);
    for option in options {
        let option = option.split('`').next().unwrap_or_default();
        assert!(help.contains(&format!("  {option}\n")), "{option}");
    }
}

#[test]
fn every_way_in_which_a_query_ends_stands_beside_what_its_client_gets() {
    let outcomes = chapter("outcomes");
    let table = outcomes.split("## What a client gets").nth(1);
    let table = table.and_then(|text| text.split("\n## ").next());
    let counted: Vec<_> = table
        .expect("a section")
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.rsplit('|').nth(1))
        .collect();
    for outcome in Outcome::ALL {
        let word = format!("`{}`", outcome.name());
        let rows = counted.iter().filter(|cell| cell.contains(&word));
        assert_eq!(rows.count(), 1, "{word}");
    }
}
