//! How is a configuration file written?
//!
//! In lines `x-y VALUE` for `--x-y VALUE`, with comments after `#`.

use crate::config::option_lookup::{find_option, is_daemon_option};
use crate::config::options::OptionSpec;

/// A line of the file that sets an option.
#[derive(Debug)]
pub(super) struct OptionLine {
    /// The number of the line, from 1.
    pub(super) number: usize,
    /// The option.
    pub(super) spec: &'static OptionSpec,
    /// The option's value; `yes` if it takes none.
    pub(super) text: String,
}

/// Reads lines `NAME VALUE`. Fails with the number of the first wrong line, from 1, and what is wrong with it.
pub(super) fn read_lines(text: &str) -> Result<Vec<OptionLine>, (usize, String)> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let fail = |cause: &str| Err((number, format!("{name:?}: {cause}")));
        let Some(spec) = find_option(name) else {
            return match name.starts_with('-') {
                true => fail("expected the name of an option without dashes"),
                false => fail("expected the name of an option; dns-tool --help-all lists them"),
            };
        };
        if spec.name == "--config" || !is_daemon_option(spec) {
            return fail("expected on the command line, not in a file");
        }
        let text = match value.trim() {
            "" if spec.value_name.is_empty() => "yes",
            "" => return fail("expected a value behind it"),
            text => text,
        };
        lines.push(OptionLine {
            number,
            spec,
            text: text.to_owned(),
        });
    }
    Ok(lines)
}

/// The part of a line before its comment. A comment starts with a `#` at the start of the line or after white space.
fn without_comment(line: &str) -> &str {
    let begins = |(at, _): &(usize, &str)| at == &0 || line[..*at].ends_with(char::is_whitespace);
    let comment = line.match_indices('#').find(begins);
    comment.map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_option_per_line_and_comments() {
        let text = "# ours\n\nport 5353 # not 53\r\n\tresolver\t192.0.2.1#dns.example \t# by name\n\
                    state-dir /var/lib/my dns#1\n  # port 1\nquery-log\nquery-lag";
        let lines = read_lines(text);
        assert_eq!(
            lines.expect_err("an unknown name"),
            (
                8,
                "\"query-lag\": expected the name of an option; dns-tool --help-all lists them"
                    .to_owned()
            )
        );
        let lines = read_lines(text.trim_end_matches("query-lag")).expect("a sound file");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.spec.name, line.text.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (3, "--port", "5353"),
                (4, "--resolver", "192.0.2.1#dns.example"),
                (5, "--state-dir", "/var/lib/my dns#1"),
                (7, "--query-log", "yes"),
            ]
        );
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_number() {
        for (line, part) in [
            ("--port 53", "without dashes"),
            ("prot 53", "expected the name of an option"),
            ("port", "expected a value"),
            ("port # 53", "expected a value"),
            ("port=53", "expected the name of an option"),
            ("config /etc/other", "not in a file"),
            ("check-config", "not in a file"),
            ("json", "not in a file"),
            ("tcp yes", "not in a file"),
            ("\u{0}", "expected the name of an option"),
        ] {
            let (number, cause) = read_lines(&format!("\n{line}\n")).expect_err(line);
            assert_eq!(number, 2, "{line}");
            assert!(cause.contains(part), "{line}: {cause}");
            assert_eq!(cause.lines().count(), 1, "{cause}");
        }
    }
}
