//! Which options are there?
//!
//! Their names, their defaults and their help. What a value means is not known here.

/// Groups of options that belong to a subcommand, whose name they have.
pub(super) const SUBCOMMAND_GROUPS: [&str; 2] = ["Pin, check and query", "Query"];
/// Options whose default means more than its values: default listening addresses are optional, default limits spare loopback clients.
pub(super) const IMPLICIT_DEFAULTS: [&str; 3] =
    ["--address", "--rate-limit", "--max-clients-per-address"];
/// The networks that may query unless `--allow` is set: loopback, private networks (RFC 1918, RFC 4193), shared address space
/// (RFC 6598) and link-local addresses (RFC 3927, RFC 4291 section 2.5.6).
pub(super) const DEFAULT_ALLOW: [&str; 9] = [
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
pub(super) const DEFAULT_RESOLVER_ADDRESSES: [&str; 4] = [
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
pub(super) const OPTIONS: [(&str, &[OptionSpec]); 11] = [
    (
        "Listening",
        &[
            OptionSpec {
                name: "--address",
                value_name: "IP",
                repeatable: true,
                help: "Address to listen on, for UDP and TCP. 0.0.0.0 and :: mean all addresses of their family. A \
                       link-local address needs its interface, such as fe80::1%eth0. Not used if systemd passes the \
                       sockets (dns-tool.socket).",
                default_text: "127.0.0.1 and ::1",
                default_values: &["127.0.0.1", "::1"],
            },
            OptionSpec {
                name: "--port",
                value_name: "N",
                repeatable: false,
                help: "Port to listen on, for UDP and TCP. 0 lets the system choose a free port. Not used if systemd \
                       passes the sockets (dns-tool.socket). Range: 0 to 65535.",
                default_text: "53",
                default_values: &["53"],
            },
            OptionSpec {
                name: "--reuse-port",
                value_name: "",
                repeatable: false,
                help: "Share the port with other dns-tool processes of the same user that set this option too. The \
                       kernel distributes the clients among them.",
                default_text: "no",
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
                help: "Address or network of clients that may send queries, such as 192.0.2.0/24. Other clients get \
                       REFUSED. Values replace the whole default.",
                default_text: "loopback, private, shared (100.64.0.0/10) and link-local addresses",
                default_values: &DEFAULT_ALLOW,
            },
            OptionSpec {
                name: "--rate-limit",
                value_name: "QPS[/BURST]",
                repeatable: false,
                help: "Queries per second of one client (IPv4 address or IPv6 /56), and the size of a burst. Without \
                       BURST, a burst is twice QPS. 0 means no limit. Loopback addresses are limited only if you set \
                       this option. Maximum of both numbers: 1000000.",
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
                help: "Address of the resolver. The port is 853 unless you name another one; 53 is refused. With a \
                       port, put an IPv6 address in brackets. A link-local address needs its interface, such as \
                       fe80::1%eth0 or [fe80::1%eth0]:853. An address other than the default ones requires \
                       --resolver-fqdn.",
                default_text: "the four addresses of cloudflare-dns.com",
                default_values: &DEFAULT_RESOLVER_ADDRESSES,
            },
            OptionSpec {
                name: "--resolver-fqdn",
                value_name: "NAME",
                repeatable: false,
                help: "Name that the resolver's certificate must contain. A name other than the default requires \
                       --resolver-addr.",
                default_text: "cloudflare-dns.com",
                default_values: &["cloudflare-dns.com"],
            },
            OptionSpec {
                name: "--resolver-pin",
                value_name: "PIN",
                repeatable: true,
                help: "SPKI pin of the resolver. A key on its verified certificate path must match one of its pins, in \
                       addition to the checks of chain and name. Formats: BASE64, sha256/BASE64, sha256//BASE64 and \
                       pin-sha256=\"BASE64\". NAME=PIN sets a pin of the --resolver or --route with that name.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--pins",
                value_name: "FILE",
                repeatable: false,
                help: "File with further pins, one on each line: NAME PIN [not-before=DATE] [not-after=DATE] [# \
                       comment]. Every resolver must then have a pin. The file is read again when it changes and on \
                       SIGHUP.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--pin-mode",
                value_name: "MODE",
                repeatable: false,
                help: "Treatment of a resolver without a matching pin. strict refuses it. report accepts it on chain \
                       and name alone, and logs each such session, so that you can try pins out.",
                default_text: "strict",
                default_values: &["strict"],
            },
            OptionSpec {
                name: "--pin-rollover",
                value_name: "DAYS",
                repeatable: false,
                help: "Accept a new key of a pinned resolver without a pin, DAYS after it was first seen. The old \
                       certificate must be near its end or expired, the same issuer key must have signed the new one, \
                       and every address of the resolver must present the new key and no other new key. Requires \
                       --state-dir. Range: more than 0 and at most 366, decimals allowed.",
                default_text: "never",
                default_values: &[],
            },
            OptionSpec {
                name: "--state-dir",
                value_name: "DIR",
                repeatable: false,
                help: "Existing directory in which dns-tool keeps the keys that it accepted and the last time at which \
                       it trusted the clock. Only its owner may have write permission.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--resolver",
                value_name: "IP[:PORT]#NAME",
                repeatable: true,
                help: "Further resolver, by its address and the name in its certificate. It ranks after the resolver \
                       of --resolver-addr, also after its default, and in the order given. It gets queries that fail \
                       at the resolvers before it, and all queries while those are unavailable or slow to connect. \
                       Values with the same NAME are addresses of one resolver. A link-local address needs its \
                       interface, such as [fe80::1%eth0]:853#NAME.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--resolver-ca",
                value_name: "FILE",
                repeatable: false,
                help: "PEM file of trust anchors for all resolvers, in place of the built-in Mozilla root \
                       certificates.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--key-exchange",
                value_name: "MODE",
                repeatable: false,
                help: "Key exchange of TLS. prefer uses X25519MLKEM768, whose sessions a quantum computer cannot read \
                       later, where the resolver has it, and else a classical group. require refuses resolvers \
                       without it. classical never offers it.",
                default_text: "prefer",
                default_values: &["prefer"],
            },
            OptionSpec {
                name: "--timeout",
                value_name: "SECONDS",
                repeatable: false,
                help: "Deadline of each query in seconds, decimals allowed. A deadline below 5 seconds is extended if \
                       the last session took longer than it to open: to one and a half times that time, at most 5 \
                       seconds. Range: 0.05 to 60.",
                default_text: "3",
                default_values: &["3"],
            },
        ],
    ),
    (
        "Names",
        &[
            OptionSpec {
                name: "--hosts",
                value_name: "FILE",
                repeatable: true,
                help: "File with names of your own, in the form of hosts(5): ADDRESS NAME [NAME...] [# comment]. dns-tool \
                       answers these names, and the reverse names of these addresses, without the resolver. The file \
                       is read again when it changes and on SIGHUP.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--route",
                value_name: "ZONE=TARGET",
                repeatable: true,
                help: "Destination of queries for names in ZONE, where the longest zone decides. IP[:PORT]#NAME is another \
                       resolver, authenticated by its name and pins; several values for one zone are used in order. \
                       tcp://IP[:PORT] is a server on a loopback, private, link-local, shared or unique-local address, \
                       and its queries leave in cleartext. nxdomain answers that the names do not exist. relay is the \
                       resolver for all other names.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--special-names",
                value_name: "MODE",
                repeatable: false,
                help: "Treatment of names with a special use, such as localhost, local, home.arpa and the reverse zones \
                       of private addresses. answer answers them without the resolver, most of them with NXDOMAIN. \
                       relay sends them to the resolver like all others.",
                default_text: "answer",
                default_values: &["answer"],
            },
            OptionSpec {
                name: "--rebind-protection",
                value_name: "",
                repeatable: false,
                help: "Refuse answers in which the resolver names a private, shared, link-local, loopback or unspecified \
                       address, so that no web page can reach into your network by DNS rebinding. Recommended on \
                       routers. Mail servers that ask DNS blocklists need --rebind-allow with it.",
                default_text: "no",
                default_values: &[],
            },
            OptionSpec {
                name: "--rebind-allow",
                value_name: "ZONE",
                repeatable: true,
                help: "Zone whose names may have such addresses in spite of --rebind-protection, such as plex.direct; \
                       the names below it may too. At most 256 zones.",
                default_text: "none",
                default_values: &[],
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
                help: "Memory for cached answers in bytes. 0 turns the cache off. Minimum: 65536.",
                default_text: "8388608",
                default_values: &["8388608"],
            },
            OptionSpec {
                name: "--serve-stale",
                value_name: "SECONDS",
                repeatable: false,
                help: "Time in seconds for which a cached answer may still be served after it expires, while the \
                       resolver fails or is slow (RFC 8767). 0 turns this off. Range: 0 to 604800.",
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
                help: "Memory for queries and replies in bytes, including the kernel's buffers of TCP connections and \
                       excluding the cache. Up to 32 MiB, each 128 KiB allows one TCP connection; above, each 68 KiB. \
                       Minimum: 4194304.",
                default_text: "33554432, plus 69632 for each of --max-clients above 256",
                default_values: &[],
            },
            OptionSpec {
                name: "--max-clients",
                value_name: "N",
                repeatable: false,
                help: "TCP connections at a time. When all are taken, a new connection replaces an existing one, \
                       usually the longest idle connection of the client with the most. Range: 1 to 65536.",
                default_text: "256",
                default_values: &["256"],
            },
            OptionSpec {
                name: "--max-clients-per-address",
                value_name: "N",
                repeatable: false,
                help: "TCP connections at a time from one IPv4 address or IPv6 /56. At the limit, a new connection \
                       replaces the longest idle one of that address, or is closed if none is idle. Loopback addresses \
                       are limited only if you set this option. Range: 1 to 65536.",
                default_text: "16",
                default_values: &["16"],
            },
            OptionSpec {
                name: "--sessions",
                value_name: "N",
                repeatable: false,
                help: "TLS sessions to each address of a resolver. A further session is opened only for a query that \
                       no open session can take: each of them is silent, has 16384 unanswered queries, or has reached \
                       a limit of the resolver. Range: 1 to 16.",
                default_text: "2",
                default_values: &["2"],
            },
            OptionSpec {
                name: "--max-pending",
                value_name: "N",
                repeatable: false,
                help: "Unanswered queries of one client at a time. All clients together may have four times as many. \
                       The memory of --max-memory may allow fewer: by default, about 4000 of one client and 12000 of \
                       all. Further queries get SERVFAIL at once. Range: 1 to 1000000.",
                default_text: "8192",
                default_values: &["8192"],
            },
            OptionSpec {
                name: "--upstream-rate-limit",
                value_name: "QPS",
                repeatable: false,
                help: "Queries per second sent to all resolvers together, repetitions included. New queries above the \
                       limit fail at once. 0 means no limit. Range: 0 to 1000000.",
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
                help: "Address and port on which to serve metrics, health and a status page over HTTP. A link-local \
                       address needs its interface, such as [fe80::1%eth0]:9853. Anybody who can reach the port can \
                       read them.",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--slo-latency",
                value_name: "SECONDS",
                repeatable: false,
                help: "Latency in seconds, decimals allowed, up to which an answer counts as good in the service level \
                       metrics. Range: 0.001 to 60.",
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
                help: "Configuration file, with one option without dashes and its value on each line. The command line \
                       and the environment take precedence. The file is read again on SIGHUP. See dns-tool.conf(5).",
                default_text: "none",
                default_values: &[],
            },
            OptionSpec {
                name: "--check-config",
                value_name: "",
                repeatable: false,
                help: "Check the configuration, print every setting that a dns-tool started now would use, with its \
                       source and as a configuration file, and exit.",
                default_text: "no",
                default_values: &[],
            },
            OptionSpec {
                name: "--user",
                value_name: "NAME",
                repeatable: false,
                help: "User to run as after the ports are bound, by name or number, except root. dns-tool gives up all \
                       groups but the primary group of that user.",
                default_text: "unchanged",
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
                help: "Least severe level to log: error, warn, info, debug or trace. At debug and trace, lines contain \
                       query names and client addresses.",
                default_text: "info",
                default_values: &["info"],
            },
            OptionSpec {
                name: "--query-log",
                value_name: "",
                repeatable: false,
                help: "Log each query with its time, the client's network (IPv4 /24 or IPv6 /48), the transport, the \
                       name, the type, the outcome and the duration.",
                default_text: "no",
                default_values: &[],
            },
            OptionSpec {
                name: "--query-log-clients",
                value_name: "",
                repeatable: false,
                help: "Log each query as --query-log does, but with the client's address and port.",
                default_text: "no",
                default_values: &[],
            },
        ],
    ),
    (
        "Pin, check and query",
        &[OptionSpec {
            name: "--json",
            value_name: "",
            repeatable: false,
            help: "Print the report as JSON.",
            default_text: "no",
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
                help: "Send the query where the daemon would, to the resolver over TLS or where a --route leads, or \
                       answer it here. Without this option, it goes to dns-tool on the first --address and --port.",
                default_text: "no",
                default_values: &[],
            },
            OptionSpec {
                name: "--tcp",
                value_name: "",
                repeatable: false,
                help: "Send the query over TCP. Without this option, the query goes over UDP first, and over TCP if \
                       the answer is truncated.",
                default_text: "no",
                default_values: &[],
            },
        ],
    ),
];
