//! What does the help say?

use std::fmt::Write;

use crate::config::option_lookup::{find_option, strip_dashes};
use crate::config::options::{OPTIONS, OptionSpec};

/// The options of `--help`, each with what it sets in a few words.
const COMMON_OPTIONS: [(&str, &str); 12] = [
    ("--address", "address to listen on; repeatable"),
    ("--port", "port to listen on, UDP and TCP"),
    ("--allow", "clients that may ask; repeatable"),
    ("--resolver-addr", "address of the resolver; repeatable"),
    ("--resolver-fqdn", "name in the resolver's certificate"),
    ("--resolver", "further resolver; repeatable"),
    ("--pins", "pins of the resolvers' keys"),
    ("--timeout", "deadline of a query"),
    ("--cache-size", "memory for answers; 0 keeps none"),
    ("--monitor", "serve metrics, health and a status page"),
    ("--config", "read options from a file"),
    ("--user", "user to run as after binding the ports"),
];

/// The text of `--help`: usage, the most common options, and where the rest is. It fits on a screen.
pub fn help() -> String {
    let mut text = usage();
    text.push_str(
        "\nBy default, dns-tool listens on port 53 of 127.0.0.1 and ::1, and forwards\n\
         queries to Cloudflare's resolver. The most common options:\n\n",
    );
    for (name, summary) in COMMON_OPTIONS {
        let spec = find_option(strip_dashes(name));
        let value_name = spec.map_or("", |spec| spec.value_name);
        let option = format!("{name} {value_name}");
        let _ = writeln!(text, "  {option:<32}{summary}");
    }
    text.push_str(
        "\n  -h, --help                      print this help\n  \
           --help-all                      print all options\n  \
           -V, --version                   print the version\n\n\
         Subcommands:\n  \
           query                           send one query and print the answer\n  \
           pin                             print the keys of resolvers for --pins\n  \
           check                           check configuration, ports and resolvers\n\n\
         Examples:\n  \
           dns-tool --port 5353\n  \
           dns-tool --resolver-addr 9.9.9.9 --resolver-fqdn dns.quad9.net\n  \
           dns-tool check --config /etc/dns-tool/dns-tool.conf\n\n\
         Manuals: dns-tool(8), dns-tool.conf(5).\n",
    );
    text
}

/// The first lines of both helps.
fn usage() -> String {
    format!(
        "dns-tool {}: forwards cleartext DNS to an authenticated resolver over TLS\n\n\
         Usage: dns-tool [OPTIONS]\n       \
                dns-tool query NAME [TYPE] [OPTIONS]\n       \
                dns-tool pin [IP[:PORT][#NAME]...] [OPTIONS]\n       \
                dns-tool check [OPTIONS]\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The text of `--help-all`: all options, by groups.
pub fn help_all() -> String {
    let mut text = usage();
    text.push_str(
        "\nWithout a subcommand, dns-tool serves clients until a signal stops it.\n\
         dns-tool query sends one query, for TYPE A by default, and prints the answer and\n\
         its source. dns-tool pin prints the keys of the configured resolvers, or of\n\
         those on its command line, as lines of a file for --pins. dns-tool check checks\n\
         the configuration, the ports and the resolvers. Subcommands read the same\n\
         options.\n\n\
         An option has one dash or two. Its value follows a space or an equals sign.\n\
         Set an option of the daemon on the command line (--port 5353), in the\n\
         environment (DNS_TOOL_PORT=5353) or in the configuration file (port 5353). The\n\
         first of these three places that sets an option decides its value.\n",
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
        "\nOther:\n  \
           -h, --help\n        Print the most common options.\n      \
               --help-all\n        Print all options.\n  \
           -V, --version\n        Print the version.\n\n\
         Exit codes:\n  \
           dns-tool        0 stopped by a signal, 1 system error, 2 wrong options\n  \
           dns-tool query  0 NOERROR or NXDOMAIN, 1 another answer or none, 2 usage error\n  \
           dns-tool pin    0 verified, 1 nothing reached, 2 not verified, or usage error\n  \
           dns-tool check  0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN\n",
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
    use crate::config::option_lookup::all_options;

    #[test]
    fn the_short_help_fits_on_a_screen_and_names_options_that_exist() {
        let help = help();
        assert!(help.lines().count() <= 45 && help.lines().all(|line| line.len() <= 80));
        for (name, _) in COMMON_OPTIONS {
            assert!(all_options().iter().any(|spec| spec.name == name), "{name}");
        }
    }

    #[test]
    fn the_long_help_names_every_option_in_lines_that_fit() {
        let help = help_all();
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
