//! Which options are there?
//!
//! Their names and defaults, and what the help says of them. What a value means is not known here.

/// The groups of options that go with a subcommand alone; they bear its name.
pub(super) const OWN_GROUPS: [&str; 2] = ["Pin and check", "Query"];
/// Options whose default is more than its values: whoever gives these asks for something else.
pub(super) const MORE_THAN_VALUES: [&str; 3] =
    ["--address", "--rate-limit", "--max-clients-per-address"];
/// Who may ask unless `--allow` says otherwise: this host, private networks (RFC 1918, RFC 4193), shared address space (RFC
/// 6598) and the link (RFC 3927, RFC 4291 section 2.5.6).
const ALLOW: [&str; 9] = [
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
/// Where the default resolver is.
const RESOLVER: [&str; 4] = [
    "1.1.1.1:853",
    "1.0.0.1:853",
    "[2606:4700:4700::1111]:853",
    "[2606:4700:4700::1001]:853",
];

/// An option of the command line.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name.
    pub(super) name: &'static str,
    /// What its value is called in the help; empty where it has none.
    pub(super) value: &'static str,
    /// It may be given more than once.
    pub(super) repeatable: bool,
    /// What it is for.
    pub(super) meaning: &'static str,
    /// What holds without it, in words.
    pub(super) default: &'static str,
    /// What holds without it, as values; none where that cannot be said in values.
    pub(super) values: &'static [&'static str],
}

/// The options, in the groups of the help.
pub(super) const OPTIONS: [(&str, &[Entry]); 10] = [
    (
        "Listening",
        &[
            Entry {
                name: "--address",
                value: "IP",
                repeatable: true,
                meaning: "address to listen on, TCP and UDP",
                default: "127.0.0.1 and ::1",
                values: &["127.0.0.1", "::1"],
            },
            Entry {
                name: "--port",
                value: "N",
                repeatable: false,
                meaning: "port to listen on; 0 lets the system choose",
                default: "53",
                values: &["53"],
            },
            Entry {
                name: "--reuse-port",
                value: "",
                repeatable: false,
                meaning: "share the port with others of the same user that say so too; each has some of the clients",
                default: "alone",
                values: &[],
            },
        ],
    ),
    (
        "Clients",
        &[
            Entry {
                name: "--allow",
                value: "PREFIX",
                repeatable: true,
                meaning: "who may ask, such as 192.0.2.0/24; others get REFUSED",
                default: "loopback, private, shared (100.64.0.0/10) and link-local addresses",
                values: &ALLOW,
            },
            Entry {
                name: "--rate-limit",
                value: "QPS[/BURST]",
                repeatable: false,
                meaning: "queries a second of each client (IPv4 address or IPv6 /56), and at once after a rest, by \
                          default twice as many; 0 for no limit. Who asks from a loopback address has none unless one is \
                          given",
                default: "500/1000",
                values: &["500/1000"],
            },
        ],
    ),
    (
        "Resolver",
        &[
            Entry {
                name: "--resolver-addr",
                value: "IP[:PORT]",
                repeatable: true,
                meaning: "address of the trusted resolver; port 853 unless given",
                default: "Cloudflare's four",
                values: &RESOLVER,
            },
            Entry {
                name: "--resolver-fqdn",
                value: "NAME",
                repeatable: false,
                meaning: "the name its certificate must bear",
                default: "cloudflare-dns.com",
                values: &["cloudflare-dns.com"],
            },
            Entry {
                name: "--resolver-pin",
                value: "PIN",
                repeatable: true,
                meaning: "SPKI pin of its key or of an issuer's: BASE64, sha256/BASE64, sha256//BASE64 or \
                          pin-sha256=\"BASE64\"; NAME=PIN pins another --resolver. One of its pins must match, \
                          besides chain and name",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--pins",
                value: "FILE",
                repeatable: false,
                meaning: "more pins, in lines NAME PIN [not-before=DATE] [not-after=DATE] [# comment]; read again \
                          when it changes and on SIGHUP",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--pin-mode",
                value: "MODE",
                repeatable: false,
                meaning: "strict refuses a resolver none of whose keys is pinned; report serves all the same, on \
                          chain and name alone, and logs each such session: for trying pins out",
                default: "strict",
                values: &["strict"],
            },
            Entry {
                name: "--pin-rollover",
                value: "DAYS",
                repeatable: false,
                meaning: "accept a new key of a pinned resolver without a pin when its old certificate is due, the \
                          same issuer gave it, so many days have passed since it was first seen, and every address \
                          shows it and no other new one; needs --state-dir",
                default: "never",
                values: &[],
            },
            Entry {
                name: "--state-dir",
                value: "DIR",
                repeatable: false,
                meaning: "folder where it remembers, from one start to the next, the keys that it learnt and the last \
                          time at which the clock was right",
                default: "nothing is remembered",
                values: &[],
            },
            Entry {
                name: "--resolver",
                value: "IP[:PORT]#NAME",
                repeatable: true,
                meaning: "a further resolver, asked when those before it cannot be had",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--resolver-ca",
                value: "FILE",
                repeatable: false,
                meaning: "PEM file of trust anchors, in place of the built-in Mozilla roots",
                default: "built in",
                values: &[],
            },
            Entry {
                name: "--timeout",
                value: "SECONDS",
                repeatable: false,
                meaning: "the one deadline of a query, whole or decimal, 0.05 to 60",
                default: "3",
                values: &["3"],
            },
        ],
    ),
    (
        "Cache",
        &[
            Entry {
                name: "--cache-size",
                value: "BYTES",
                repeatable: false,
                meaning: "memory for answers, from 65536; 0 keeps none",
                default: "8388608",
                values: &["8388608"],
            },
            Entry {
                name: "--serve-stale",
                value: "SECONDS",
                repeatable: false,
                meaning: "how long an expired answer is served while the resolver fails or is slow, at most 604800; 0 \
                          never does",
                default: "86400",
                values: &["86400"],
            },
        ],
    ),
    (
        "Limits",
        &[
            Entry {
                name: "--max-memory",
                value: "BYTES",
                repeatable: false,
                meaning: "memory for queries and replies beside the cache, what the kernel holds for TCP clients included, from \
                          4194304; one TCP client for each 128 KiB of it",
                default: "33554432, and 69632 more for each of --max-clients beyond 256",
                values: &[],
            },
            Entry {
                name: "--max-clients",
                value: "N",
                repeatable: false,
                meaning: "TCP connections at a time, 1 to 65536; when there are so many, a newcomer gets the place of the longest \
                          idle, or busy for the longest time, of the client that has the most",
                default: "256",
                values: &["256"],
            },
            Entry {
                name: "--max-clients-per-address",
                value: "N",
                repeatable: false,
                meaning: "of them from one IPv4 address or IPv6 /56, 1 to 65536. Loopback addresses have no such \
                          limit unless one is given",
                default: "16",
                values: &["16"],
            },
            Entry {
                name: "--sessions",
                value: "N",
                repeatable: false,
                meaning: "sessions to one address of a resolver, 1 to 16; a second is opened only when the first is busy",
                default: "2",
                values: &["2"],
            },
            Entry {
                name: "--max-pending",
                value: "N",
                repeatable: false,
                meaning: "queries of one client without an answer at a time, 1 to 1000000, and four times as many of all, as far \
                          as --max-memory has room for them; more get SERVFAIL at once",
                default: "8192",
                values: &["8192"],
            },
            Entry {
                name: "--upstream-rate-limit",
                value: "QPS",
                repeatable: false,
                meaning: "queries a second that are sent to the resolver, those asked again or on a second session included; more fail at once; 0 for no limit",
                default: "0",
                values: &["0"],
            },
        ],
    ),
    (
        "Monitoring",
        &[
            Entry {
                name: "--monitor",
                value: "ADDR:PORT",
                repeatable: false,
                meaning: "serve metrics, health and a status page there over HTTP, to whoever can reach it",
                default: "not served",
                values: &[],
            },
            Entry {
                name: "--slo-latency",
                value: "SECONDS",
                repeatable: false,
                meaning: "how long an answer may take to be counted as a good one, whole or decimal, 0.001 to 60",
                default: "0.1",
                values: &["0.1"],
            },
        ],
    ),
    (
        "Process",
        &[
            Entry {
                name: "--config",
                value: "FILE",
                repeatable: false,
                meaning: "file of options, in lines NAME VALUE without dashes, and # before comments; an option given here \
                          or in the environment wins over the file. Read again on SIGHUP",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--check-config",
                value: "",
                repeatable: false,
                meaning: "print the settings that hold, as such a file, and where each comes from",
                default: "serve",
                values: &[],
            },
            Entry {
                name: "--user",
                value: "NAME",
                repeatable: false,
                meaning: "user to run as once the ports are bound, by name or number, with no other groups than its own",
                default: "whoever starts it",
                values: &[],
            },
        ],
    ),
    (
        "Log",
        &[
            Entry {
                name: "--log-level",
                value: "LEVEL",
                repeatable: false,
                meaning: "error, warn, info, debug or trace; from debug on, lines hold query names and client addresses",
                default: "info",
                values: &["info"],
            },
            Entry {
                name: "--query-log",
                value: "",
                repeatable: false,
                meaning: "a line for each query: when, from which network (IPv4 /24, IPv6 /48), what, how it ended and \
                          how long that took",
                default: "none",
                values: &[],
            },
            Entry {
                name: "--query-log-clients",
                value: "",
                repeatable: false,
                meaning: "such lines with the client's address and port",
                default: "none",
                values: &[],
            },
        ],
    ),
    (
        "Pin and check",
        &[Entry {
            name: "--json",
            value: "",
            repeatable: false,
            meaning: "report for a program, as JSON",
            default: "in lines for people",
            values: &[],
        }],
    ),
    (
        "Query",
        &[
            Entry {
                name: "--direct",
                value: "",
                repeatable: false,
                meaning: "ask the resolver itself, over a session that has to prove its identity as the daemon's have",
                default: "ask dns-tool on the first --address and --port",
                values: &[],
            },
            Entry {
                name: "--tcp",
                value: "",
                repeatable: false,
                meaning: "ask by TCP at once",
                default: "by UDP, and by TCP where the answer does not fit",
                values: &[],
            },
        ],
    ),
];

/// The options that say how the daemon is set, wherever their values stand.
pub(super) fn daemon_entries() -> Vec<&'static Entry> {
    let mut entries = entries();
    entries.retain(|entry| is_daemons(entry));
    entries
}

/// Whether an option says how the daemon is set.
pub(super) fn is_daemons(entry: &Entry) -> bool {
    let here = |entries: &[Entry]| entries.iter().any(|known| known.name == entry.name);
    let mut groups = OPTIONS.iter();
    let group = groups.find(|(_, entries)| here(entries));
    group.is_some_and(|(group, _)| !OWN_GROUPS.contains(group)) && entry.name != "--check-config"
}

/// The name of an option without its dashes.
pub(super) fn bare(name: &str) -> &str {
    name.strip_prefix("--").unwrap_or(name)
}

/// All options, in the order of the help.
pub(super) fn entries() -> Vec<&'static Entry> {
    let mut all = Vec::new();
    for (_, entries) in &OPTIONS {
        all.extend(*entries);
    }
    all
}

/// The option with this name, which is said without dashes.
pub(super) fn find(word: &str) -> Option<&'static Entry> {
    let mut entries = entries().into_iter();
    entries.find(|entry| bare(entry.name) == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_that_is_one_value_is_said_as_it_is() {
        for entry in entries().iter().filter(|entry| entry.values.len() == 1) {
            assert_eq!(entry.values, [entry.default], "{}", entry.name);
        }
        let gone = MORE_THAN_VALUES
            .iter()
            .find(|name| find(&name[2..]).is_none());
        assert_eq!(gone, None);
    }
}
