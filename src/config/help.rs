//! What does the help say?

use std::fmt::Write;

use crate::config::options::{OPTIONS, OptionSpec};

/// The text of `--help`, by groups of options.
pub fn help() -> String {
    let mut text = format!(
        "dns-tool {}: relays cleartext DNS to one authenticated DNS-over-TLS resolver\n\n\
         Usage: dns-tool [OPTIONS]\n       \
                dns-tool query NAME [TYPE] [OPTIONS]\n       \
                dns-tool pin [IP[:PORT][#NAME]...] [OPTIONS]\n       \
                dns-tool check [OPTIONS]\n\n\
         dns-tool query asks for the records of a name, addresses unless a TYPE is\n\
         given, and says what it hears. dns-tool pin shows the keys of resolvers as\n\
         --pins takes them. dns-tool check says whether all is as it should be. All\n\
         options mean what they mean without these words.\n\n\
         Options take one dash or two, and their value after a space or an equals sign.\n\
         Those of the daemon may also stand in the environment, --port as DNS_TOOL_PORT,\n\
         and in a file (--config), as port; the first of these three that has one counts.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (group, specs) in OPTIONS {
        let _ = writeln!(text, "\n{group}:");
        for OptionSpec {
            name,
            value_name,
            repeatable,
            help,
            default_text,
            ..
        } in specs
        {
            let repeatable = if *repeatable { "; may be repeated" } else { "" };
            let _ = writeln!(
                text,
                "{}",
                format_args!("  {name} {value_name}").to_string().trim_end()
            );
            write_wrapped(
                &mut text,
                &format!("{help} [default: {default_text}{repeatable}]"),
            );
        }
    }
    text.push_str(
        "\nOther:\n  -h, --help\n        print this help\n  -V, --version\n        print the version\n\n\
         Exit codes: 0 ok, 1 could not run, 2 usage or configuration. Those of query: 0\n\
         for NOERROR and NXDOMAIN, 1 for another answer or none in time, 2 for usage.\n\
         Of pin: 0 verified, 2 shown but not verified, 1 nothing reached. Of check: 0 OK,\n\
         1 WARNING, 2 CRITICAL, 3 could not be checked.\n",
    );
    text
}

/// Writes words in indented lines of at most 80 characters.
fn write_wrapped(out: &mut String, text: &str) {
    const INDENT: &str = "       ";
    let mut column = 0;
    for word in text.split(' ') {
        if column == 0 || column + 1 + word.len() > 80 {
            if column > 0 {
                out.push('\n');
            }
            out.push_str(INDENT);
            column = INDENT.len();
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::all_options;

    #[test]
    fn the_help_names_every_option_in_lines_that_fit() {
        let help = help();
        for OptionSpec {
            name, value_name, ..
        } in all_options()
        {
            let line = format!("  {name} {value_name}");
            assert!(help.contains(&format!("{}\n", line.trim_end())), "{name}");
        }
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }
}
