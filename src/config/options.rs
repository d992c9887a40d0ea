//! Which options are there?
//!
//! Their names, their defaults and their help. What a value means is not known here.

/// Groups of options that belong to a subcommand, whose name they have.
pub(super) const SUBCOMMAND_GROUPS: [&str; 2] = ["Pin and check", "Query"];
/// Options whose default means more than its values: setting the same values explicitly changes what the daemon does (default
/// listening addresses are optional, and default limits do not apply to loopback clients).
pub(super) const IMPLICIT_DEFAULTS: [&str; 3] =
    ["--address", "--rate-limit", "--max-clients-per-address"];
/// The networks that may query unless `--allow` is set: loopback, private networks (RFC 1918, RFC 4193), shared address space
/// (RFC 6598) and link-local addresses (RFC 3927, RFC 4291 section 2.5.6).
const DEFAULT_ALLOW: [&str; 9] = [
    "127.0.0.0/8",
    "::1/128",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
];
/// The addresses of the default resolver.
const DEFAULT_RESOLVER_ADDRESSES: [&str; 4] = [
    "1.1.1.1:853",
    "1.0.0.1:853",
    "[2606:4700:4700::1111]:853",
    "[2606:4700:4700::1001]:853",
];

/// An option of the command line.
#[derive(Debug)]
pub(super) struct OptionSpec {
    /// The name, with two dashes.
    pub(super) name: &'static str,
    /// The placeholder of the value in the help; empty for an option without a value.
    pub(super) value_name: &'static str,
    /// Whether the option may be given more than once.
    pub(super) repeatable: bool,
    /// What the option is for.
    pub(super) help: &'static str,
    /// The default in words.
    pub(super) default_text: &'static str,
    /// The default as values; empty if no values express it.
    pub(super) default_values: &'static [&'static str],
}

/// All options, in the groups of the help.
pub(super) const OPTIONS: [(&str, &[OptionSpec]); 10] = [
    (
        "Listening",
        &[
            OptionSpec {
                name: "--address",
                value_name: "IP",
                repeatable: true,
                help: "address to listen on, TCP and UDP",
                default_text: "127.0.0.1 and ::1",
                default_values: &["127.0.0.1", "::1"],
            },
            OptionSpec {
                name: "--port",
                value_name: "N",
                repeatable: false,
                help: "port to listen on; 0 lets the system choose",
                default_text: "53",
                default_values: &["53"],
            },
            OptionSpec {
                name: "--reuse-port",
                value_name: "",
                repeatable: false,
                help: "share the port with others of the same user that say so too; each has some of the clients",
                default_text: "alone",
                default_values: &[],
            },
        ],
    ),
    (
        "Clients",
        &[
            OptionSpec {
                name: "--allow",
                value_name: "PREFIX",
                repeatable: true,
                help: "who may ask, such as 192.0.2.0/24; others get REFUSED",
                default_text: "loopback, private, shared (100.64.0.0/10) and link-local addresses",
                default_values: &DEFAULT_ALLOW,
            },
            OptionSpec {
                name: "--rate-limit",
                value_name: "QPS[/BURST]",
                repeatable: false,
                help: "queries a second of each client (IPv4 address or IPv6 /56), and at once after a rest, by \
                          default twice as many; 0 for no limit. Who asks from a loopback address has none unless one is \
                          given",
                default_text: "500/1000",
                default_values: &["500/1000"],
            },
        ],
    ),
    (
        "Resolver",
        &[
            OptionSpec {
                name: "--resolver-addr",
                value_name: "IP[:PORT]",
                repeatable: true,
                help: "address of the trusted resolver; port 853 unless given",
                default_text: "Cloudflare's four",
                default_values: &DEFAULT_RESOLVER_ADDRESSES,
            },
            OptionSpec {
                name: "--resolver-fqdn",
                value_name: "NAME",
                repeatable: false,
                help: "the name its certificate must bear",
                default_text: "cloudflare-dns.com",
                default_values: &["cloudflare-dns.com"],
            },
            OptionSpec {
                name: "--resolver-pin",
                value_name: "PIN",
                repeatable: true,
                help: "SPKI pin of its key or of an issuer's: BASE64, sha256/BASE64, sha256//BASE64 or \
                          pin-sha256=\"BASE64\"; NAME=PIN pins another --resolver. One of its pins must match, \
                          besides chain and name",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--pins",
                value_name: "FILE",
                repeatable: false,
                help: "more pins, in lines NAME PIN [not-before=DATE] [not-after=DATE] [# comment]; read again \
                          when it changes and on SIGHUP",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--pin-mode",
                value_name: "MODE",
                repeatable: false,
                help: "strict refuses a resolver none of whose keys is pinned; report serves all the same, on \
                          chain and name alone, and logs each such session: for trying pins out",
                default_text: "strict",
                default_values: &["strict"],
            },
            OptionSpec {
                name: "--pin-rollover",
                value_name: "DAYS",
                repeatable: false,
                help: "accept a new key of a pinned resolver without a pin when its old certificate is due, the \
                          same issuer gave it, so many days have passed since it was first seen, and every address \
                          shows it and no other new one; needs --state-dir",
                default_text: "never",
                default_values: &[],
            },
            OptionSpec {
                name: "--state-dir",
                value_name: "DIR",
                repeatable: false,
                help: "folder where it remembers, from one start to the next, the keys that it learnt and the last \
                          time at which the clock was right",
                default_text: "nothing is remembered",
                default_values: &[],
            },
            OptionSpec {
                name: "--resolver",
                value_name: "IP[:PORT]#NAME",
                repeatable: true,
                help: "a further resolver, asked when those before it cannot be had",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--resolver-ca",
                value_name: "FILE",
                repeatable: false,
                help: "PEM file of trust anchors, in place of the built-in Mozilla roots",
                default_text: "built in",
                default_values: &[],
            },
            OptionSpec {
                name: "--timeout",
                value_name: "SECONDS",
                repeatable: false,
                help: "the one deadline of a query, whole or decimal, 0.05 to 60",
                default_text: "3",
                default_values: &["3"],
            },
        ],
    ),
    (
        "Cache",
        &[
            OptionSpec {
                name: "--cache-size",
                value_name: "BYTES",
                repeatable: false,
                help: "memory for answers, from 65536; 0 keeps none",
                default_text: "8388608",
                default_values: &["8388608"],
            },
            OptionSpec {
                name: "--serve-stale",
                value_name: "SECONDS",
                repeatable: false,
                help: "how long an expired answer is served while the resolver fails or is slow, at most 604800; 0 \
                          never does",
                default_text: "86400",
                default_values: &["86400"],
            },
        ],
    ),
    (
        "Limits",
        &[
            OptionSpec {
                name: "--max-memory",
                value_name: "BYTES",
                repeatable: false,
                help: "memory for queries and replies beside the cache, what the kernel holds for TCP clients included, from \
                          4194304; one TCP client for each 128 KiB of it",
                default_text: "33554432, and 69632 more for each of --max-clients beyond 256",
                default_values: &[],
            },
            OptionSpec {
                name: "--max-clients",
                value_name: "N",
                repeatable: false,
                help: "TCP connections at a time, 1 to 65536; when there are so many, a newcomer gets the place of the longest \
                          idle, or busy for the longest time, of the client that has the most",
                default_text: "256",
                default_values: &["256"],
            },
            OptionSpec {
                name: "--max-clients-per-address",
                value_name: "N",
                repeatable: false,
                help: "of them from one IPv4 address or IPv6 /56, 1 to 65536. Loopback addresses have no such \
                          limit unless one is given",
                default_text: "16",
                default_values: &["16"],
            },
            OptionSpec {
                name: "--sessions",
                value_name: "N",
                repeatable: false,
                help: "sessions to one address of a resolver, 1 to 16; a second is opened only when the first is busy",
                default_text: "2",
                default_values: &["2"],
            },
            OptionSpec {
                name: "--max-pending",
                value_name: "N",
                repeatable: false,
                help: "queries of one client without an answer at a time, 1 to 1000000, and four times as many of all, as far \
                          as --max-memory has room for them; more get SERVFAIL at once",
                default_text: "8192",
                default_values: &["8192"],
            },
            OptionSpec {
                name: "--upstream-rate-limit",
                value_name: "QPS",
                repeatable: false,
                help: "queries a second that are sent to the resolver, those asked again or on a second session included; more fail at once; 0 for no limit",
                default_text: "0",
                default_values: &["0"],
            },
        ],
    ),
    (
        "Monitoring",
        &[
            OptionSpec {
                name: "--monitor",
                value_name: "ADDR:PORT",
                repeatable: false,
                help: "serve metrics, health and a status page there over HTTP, to whoever can reach it",
                default_text: "not served",
                default_values: &[],
            },
            OptionSpec {
                name: "--slo-latency",
                value_name: "SECONDS",
                repeatable: false,
                help: "how long an answer may take to be counted as a good one, whole or decimal, 0.001 to 60",
                default_text: "0.1",
                default_values: &["0.1"],
            },
        ],
    ),
    (
        "Process",
        &[
            OptionSpec {
                name: "--config",
                value_name: "FILE",
                repeatable: false,
                help: "file of options, in lines NAME VALUE without dashes, and # before comments; an option given here \
                          or in the environment wins over the file. Read again on SIGHUP",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--check-config",
                value_name: "",
                repeatable: false,
                help: "print the settings that hold, as such a file, and where each comes from",
                default_text: "serve",
                default_values: &[],
            },
            OptionSpec {
                name: "--user",
                value_name: "NAME",
                repeatable: false,
                help: "user to run as once the ports are bound, by name or number, with no other groups than its own",
                default_text: "whoever starts it",
                default_values: &[],
            },
        ],
    ),
    (
        "Log",
        &[
            OptionSpec {
                name: "--log-level",
                value_name: "LEVEL",
                repeatable: false,
                help: "error, warn, info, debug or trace; from debug on, lines hold query names and client addresses",
                default_text: "info",
                default_values: &["info"],
            },
            OptionSpec {
                name: "--query-log",
                value_name: "",
                repeatable: false,
                help: "a line for each query: when, from which network (IPv4 /24, IPv6 /48), what, how it ended and \
                          how long that took",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--query-log-clients",
                value_name: "",
                repeatable: false,
                help: "such lines with the client's address and port",
                default_text: "none",
                default_values: &[],
            },
        ],
    ),
    (
        "Pin and check",
        &[OptionSpec {
            name: "--json",
            value_name: "",
            repeatable: false,
            help: "report for a program, as JSON",
            default_text: "in lines for people",
            default_values: &[],
        }],
    ),
    (
        "Query",
        &[
            OptionSpec {
                name: "--direct",
                value_name: "",
                repeatable: false,
                help: "ask the resolver itself, over a session that has to prove its identity as the daemon's have",
                default_text: "ask dns-tool on the first --address and --port",
                default_values: &[],
            },
            OptionSpec {
                name: "--tcp",
                value_name: "",
                repeatable: false,
                help: "ask by TCP at once",
                default_text: "by UDP, and by TCP where the answer does not fit",
                default_values: &[],
            },
        ],
    ),
];

/// The options of the daemon, which the environment and the file may set as well.
pub(super) fn daemon_options() -> Vec<&'static OptionSpec> {
    let mut specs = all_options();
    specs.retain(|spec| is_daemon_option(spec));
    specs
}

/// Whether an option belongs to the daemon, and not to a subcommand or the command line alone.
pub(super) fn is_daemon_option(spec: &OptionSpec) -> bool {
    let here = |specs: &[OptionSpec]| specs.iter().any(|known| known.name == spec.name);
    let mut groups = OPTIONS.iter();
    let group = groups.find(|(_, specs)| here(specs));
    group.is_some_and(|(group, _)| !SUBCOMMAND_GROUPS.contains(group))
        && spec.name != "--check-config"
}

/// An option's name without its dashes.
pub(super) fn strip_dashes(name: &str) -> &str {
    name.strip_prefix("--").unwrap_or(name)
}

/// All options, in the order of the help.
pub(super) fn all_options() -> Vec<&'static OptionSpec> {
    let mut all = Vec::new();
    for (_, specs) in &OPTIONS {
        all.extend(*specs);
    }
    all
}

/// The option with this name, written without dashes.
pub(super) fn find_option(word: &str) -> Option<&'static OptionSpec> {
    let mut specs = all_options().into_iter();
    specs.find(|spec| strip_dashes(spec.name) == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_of_one_value_is_shown_as_that_value() {
        for spec in all_options()
            .iter()
            .filter(|spec| spec.default_values.len() == 1)
        {
            assert_eq!(spec.default_values, [spec.default_text], "{}", spec.name);
        }
        let gone = IMPLICIT_DEFAULTS
            .iter()
            .find(|name| find_option(&name[2..]).is_none());
        assert_eq!(gone, None);
    }
}
