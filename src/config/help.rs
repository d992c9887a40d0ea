//! What does the help say?

use std::fmt::Write;

use crate::config::options::{OPTIONS, OptionSpec, find_option, strip_dashes};

/// The options of `--help`, each with what it sets in a few words.
const COMMON_OPTIONS: [(&str, &str); 12] = [
    ("--address", "address to listen on; repeatable"),
    ("--port", "port to listen on, UDP and TCP"),
    ("--allow", "clients that may ask; repeatable"),
    ("--resolver-addr", "address of the resolver; repeatable"),
    ("--resolver-fqdn", "name in the resolver's certificate"),
    ("--resolver", "a further resolver; repeatable"),
    ("--pins", "pins of the resolvers' keys"),
    ("--timeout", "deadline of a query"),
    ("--cache-size", "memory for answers; 0 keeps none"),
    ("--monitor", "serve metrics, health and status page"),
    ("--config", "read options from a file"),
    ("--user", "user to run as once ports are bound"),
];

/// The text of `--help`: usage, the options that most people need, and where the rest is. It fits on a screen.
pub fn help() -> String {
    let mut text = usage();
    text.push_str(
        "\nIt serves DNS on 127.0.0.1 and ::1, port 53, and relays it to Cloudflare's\n\
         resolver, unless options say otherwise:\n\n",
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
         dns-tool query sends one query, dns-tool pin prints the keys of resolvers as\n\
         --pins takes them, and dns-tool check looks at configuration and resolvers.\n\n\
         Examples:\n  \
           dns-tool --port 5353\n  \
           dns-tool --resolver-addr 9.9.9.9 --resolver-fqdn dns.quad9.net\n  \
           dns-tool check --config /etc/dns-tool/dns-tool.conf\n\n\
         Manual: dns-tool(8).\n",
    );
    text
}

/// The first lines of both helps.
fn usage() -> String {
    format!(
        "dns-tool {}: relays cleartext DNS to one authenticated DNS-over-TLS resolver\n\n\
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
        "\ndns-tool query asks for the records of a name, addresses unless a TYPE is\n\
         given, and says what it hears. dns-tool pin shows the keys of resolvers as\n\
         --pins takes them. dns-tool check says whether all is as it should be. All\n\
         options mean what they mean without these words.\n\n\
         Options take one dash or two, and their value after a space or an equals sign.\n\
         Those of the daemon may also stand in the environment, --port as DNS_TOOL_PORT,\n\
         and in a file (--config), as port; the first of these three that has one counts.\n",
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
        "\nOther:\n  -h, --help, --help-all\n        print the options that most people need, or all\n  -V, --version\n        print the version\n\n\
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
