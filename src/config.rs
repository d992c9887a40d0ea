//! What did the user ask for?
//!
//! Turns the command line into typed settings, once: after this room no string means anything. Whatever is wrong ends in
//! one line that names the option, the value and what was expected.

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;
use pico_args::Arguments;
use rustls::pki_types::ServerName;

use crate::cache;
use crate::clock::micros;
use crate::date::DAY;
use crate::forwarder;
use crate::identity::{Anchors, Identity, PinMode, Terms};
use crate::keys;
use crate::limit::{self, Rate};
use crate::metrics;
use crate::pin::{Dated, Pin, PinError, PinSet};
use crate::pins::{Source, resolver_name};
use crate::querylog;
use crate::rights::User;
use crate::server;
use crate::state::Store;
use crate::upstream::{self, Resolver};
use crate::zone::{Name, Type};

/// The port of DNS over TLS (RFC 7858 section 3.1).
const DOT_PORT: u16 = 853;
/// The port of cleartext DNS, which RFC 7858 section 3.1 keeps DNS over TLS away from.
const DNS_PORT: u16 = 53;
/// Who is asked when nobody is named.
const DEFAULT_FQDN: &str = "cloudflare-dns.com";
/// Where the default resolver is.
const DEFAULT_ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001)),
];
/// How long a query may take, at least and at most.
const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// Queries without an answer at a time, unless `--max-pending` says otherwise.
const MAX_PENDING: usize = 8192;
/// Sessions to one address, unless `--sessions` says otherwise.
const SESSIONS: usize = 2;
/// How long an answer may take to count as a good one at least, and unless `--slo-latency` says otherwise.
const LEAST_LATENCY: Duration = Duration::from_millis(1);
const SLO_LATENCY: Duration = Duration::from_millis(100);
/// TCP clients at a time, unless `--max-clients` says otherwise, and from one address that is not on this host.
const CLIENTS: usize = 256;
const CLIENTS_PER_ADDRESS: usize = 16;
/// Octets of the cache, unless `--cache-size` says otherwise, and the least that are of use.
const CACHE_SIZE: (usize, usize) = (8 * 1024 * 1024, 64 * 1024);
/// Queries a second of a client that is not on this host, and at once, unless `--rate-limit` says otherwise.
const RATE: (usize, usize) = (500, 1000);
/// When this was built, in seconds since 1970: no clock that is right shows an earlier time.
const BUILT: &str = env!("DNS_TOOL_BUILT");
/// Days that a new key may have to be seen, at most.
const MOST_DAYS: u64 = 366;
/// Seconds for which an answer may be served past its time, unless `--serve-stale` says otherwise, and at most.
const SERVE_STALE: (usize, usize) = (86_400, 604_800);

/// An option of the command line.
#[derive(Debug)]
struct Entry {
    /// Its name.
    name: &'static str,
    /// What its value is called in the help; empty where it has none.
    value: &'static str,
    /// It may be given more than once.
    repeatable: bool,
    /// What it is for.
    meaning: &'static str,
    /// What holds without it.
    default: &'static str,
}

/// The options, in the groups of the help.
const OPTIONS: [(&str, &[Entry]); 10] = [
    (
        "Listening",
        &[
            Entry {
                name: "--address",
                value: "IP",
                repeatable: true,
                meaning: "address to listen on, TCP and UDP",
                default: "127.0.0.1 and ::1",
            },
            Entry {
                name: "--port",
                value: "N",
                repeatable: false,
                meaning: "port to listen on; 0 lets the system choose",
                default: "53",
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
                default: "loopback, private and link-local addresses",
            },
            Entry {
                name: "--rate-limit",
                value: "QPS[/BURST]",
                repeatable: false,
                meaning: "queries a second of each client (IPv4 address or IPv6 /56), and at once after a rest, by \
                          default twice as many; 0 for no limit. Programs on this host have none unless one is given",
                default: "500/1000",
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
            },
            Entry {
                name: "--resolver-fqdn",
                value: "NAME",
                repeatable: false,
                meaning: "the name its certificate must bear",
                default: DEFAULT_FQDN,
            },
            Entry {
                name: "--resolver-pin",
                value: "PIN",
                repeatable: true,
                meaning: "SPKI pin of its key or of an issuer's: BASE64, sha256/BASE64, sha256//BASE64 or \
                          pin-sha256=\"BASE64\"; NAME=PIN pins another --resolver. One of its pins must match, \
                          besides chain and name",
                default: "none",
            },
            Entry {
                name: "--pins",
                value: "FILE",
                repeatable: false,
                meaning: "more pins, in lines NAME PIN [not-before=DATE] [not-after=DATE] [# comment]; read again \
                          when it changes and on SIGHUP",
                default: "none",
            },
            Entry {
                name: "--pin-mode",
                value: "MODE",
                repeatable: false,
                meaning: "strict refuses a resolver none of whose keys is pinned; report serves all the same, on \
                          chain and name alone, and logs each such session: for trying pins out",
                default: "strict",
            },
            Entry {
                name: "--pin-rollover",
                value: "DAYS",
                repeatable: false,
                meaning: "believe a new key of a pinned resolver when its old certificate is due, the same issuer \
                          gave it, and every address has shown it and no other, the first so many days ago",
                default: "never",
            },
            Entry {
                name: "--state-dir",
                value: "DIR",
                repeatable: false,
                meaning: "folder where it remembers, from one start to the next, the keys that it learnt and the last \
                          time at which the clock was right",
                default: "nothing is remembered",
            },
            Entry {
                name: "--resolver",
                value: "IP[:PORT]#NAME",
                repeatable: true,
                meaning: "a further resolver, asked when those before it cannot be had",
                default: "none",
            },
            Entry {
                name: "--resolver-ca",
                value: "FILE",
                repeatable: false,
                meaning: "PEM file of trust anchors, in place of the built-in Mozilla roots",
                default: "built in",
            },
            Entry {
                name: "--timeout",
                value: "SECONDS",
                repeatable: false,
                meaning: "the one deadline of a query, whole or decimal",
                default: "3",
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
            },
            Entry {
                name: "--serve-stale",
                value: "SECONDS",
                repeatable: false,
                meaning: "how long an expired answer is served while the resolver fails or is slow, at most 604800; 0 \
                          never does",
                default: "86400",
            },
        ],
    ),
    (
        "Limits",
        &[
            Entry {
                name: "--max-clients",
                value: "N",
                repeatable: false,
                meaning: "TCP connections at a time; when there are so many, the longest idle gives way",
                default: "256",
            },
            Entry {
                name: "--max-clients-per-address",
                value: "N",
                repeatable: false,
                meaning: "of them from one IPv4 address or IPv6 /56. Programs on this host have no such limit \
                          unless one is given",
                default: "16",
            },
            Entry {
                name: "--sessions",
                value: "N",
                repeatable: false,
                meaning: "sessions to one address of a resolver; a second is opened only when the first is busy",
                default: "2",
            },
            Entry {
                name: "--max-pending",
                value: "N",
                repeatable: false,
                meaning: "queries without an answer at a time; more get SERVFAIL at once",
                default: "8192",
            },
            Entry {
                name: "--upstream-rate-limit",
                value: "QPS",
                repeatable: false,
                meaning: "queries a second to the resolver, in all; more fail at once; 0 for no limit",
                default: "0",
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
            },
            Entry {
                name: "--slo-latency",
                value: "SECONDS",
                repeatable: false,
                meaning: "how long an answer may take to be counted as a good one, whole or decimal",
                default: "0.1",
            },
        ],
    ),
    (
        "Process",
        &[Entry {
            name: "--user",
            value: "NAME",
            repeatable: false,
            meaning: "user to run as once the ports are bound, by name or number, with no other groups than its own",
            default: "whoever starts it",
        }],
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
            },
            Entry {
                name: "--query-log",
                value: "",
                repeatable: false,
                meaning: "a line for each query: when, from which network (IPv4 /24, IPv6 /48), what, how it ended and \
                          how long that took",
                default: "none",
            },
            Entry {
                name: "--query-log-clients",
                value: "",
                repeatable: false,
                meaning: "such lines with the client's address and port",
                default: "none",
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
            },
            Entry {
                name: "--tcp",
                value: "",
                repeatable: false,
                meaning: "ask by TCP at once",
                default: "by UDP, and by TCP where the answer does not fit",
            },
        ],
    ),
];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Serve(Box<Config>),
    /// Ask one question.
    Query(Box<Query>),
    /// Show the keys of resolvers.
    Pin(Box<KeyRequest>),
    /// See whether all is as it should be.
    Check(Box<CheckRequest>),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// The settings of all rooms.
#[derive(Debug)]
pub struct Config {
    /// Where queries come from.
    pub server: server::Settings,
    /// What happens to them.
    pub forwarder: forwarder::Settings,
    /// Whom they go to.
    pub upstream: upstream::Settings,
    /// Whose keys are believed, as time goes on.
    pub keys: keys::Settings,
    /// Where its state is read from outside, if anywhere.
    pub monitor: Option<SocketAddr>,
    /// Who it becomes once the sockets are bound.
    pub user: Option<User>,
    /// How much is logged.
    pub log_level: LevelFilter,
}

/// A question to be asked by `dns-tool query`.
#[derive(Debug)]
pub struct Query {
    /// The settings of the daemon that is asked, or of the one that would ask the resolver.
    pub config: Config,
    /// The name that is asked for.
    pub name: Name,
    /// The type of its records.
    pub qtype: Type,
    /// Who is asked, and how.
    pub road: Road,
}

/// Who is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// A running dns-tool by UDP, and by TCP where the answer does not fit.
    Udp,
    /// A running dns-tool by TCP.
    Tcp,
    /// The resolver, over an authenticated session.
    Direct,
}

/// Whose keys `dns-tool pin` is to show.
#[derive(Debug)]
pub struct KeyRequest {
    /// Name, addresses and trust anchors of each; pins do not matter.
    pub resolvers: Vec<Resolver>,
    /// The time of one connection.
    pub timeout: Duration,
    /// The report is for a program.
    pub json: bool,
}

/// What `dns-tool check` is to look at.
#[derive(Debug)]
pub struct CheckRequest {
    /// The settings of the daemon.
    pub config: Config,
    /// The report is for a program.
    pub json: bool,
}

/// What is wrong with the command line, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Reads the command line, without the program's name.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Command, UsageError> {
    let mut arguments = normalize(arguments);
    const SUBCOMMANDS: [&str; 3] = ["query", "pin", "check"];
    let subcommand = SUBCOMMANDS
        .into_iter()
        .find(|word| arguments.first().is_some_and(|first| first == word));
    if subcommand.is_some() {
        arguments.remove(0);
    }
    let mut arguments = Arguments::from_vec(arguments);
    if arguments.contains(["-h", "--help"]) {
        return Ok(Command::Help);
    }
    if arguments.contains(["-V", "--version"]) {
        return Ok(Command::Version);
    }
    let mut options = Given { arguments };
    let server = server_settings(&mut options)?;
    let max_pending = options
        .one("--max-pending", |text| whole(text, 1..=1_000_000))?
        .unwrap_or(MAX_PENDING);
    let (upstream, keys) = upstream_settings(&mut options, max_pending)?;
    let query_log = match (
        options.flag("--query-log"),
        options.flag("--query-log-clients"),
    ) {
        (false, false) => querylog::Mode::Off,
        (true, false) => querylog::Mode::Prefixes,
        (_, true) => querylog::Mode::Clients,
    };
    let forwarder = forwarder::Settings {
        timeout: upstream.timeout,
        slo_latency: options
            .one("--slo-latency", |text| seconds(text, LEAST_LATENCY))?
            .unwrap_or(SLO_LATENCY),
        max_pending,
        cache: cache_settings(&mut options)?,
        limit: limit_settings(&mut options)?,
        budget: options
            .one("--upstream-rate-limit", |text| {
                whole(text, 0..=1_000_000).map(|qps| rate(qps, qps))
            })?
            .flatten(),
        query_log,
    };
    let monitor = options.one("--monitor", |text| {
        text.parse().map_err(|_| {
            "expected an address of this host and a port, such as 127.0.0.1:9353".to_owned()
        })
    })?;
    let user = options.one("--user", |text| {
        let user = User::find(text).filter(|user| !user.is_root());
        user.ok_or_else(|| "expected the name or number of a user that is not root".to_owned())
    })?;
    let log_level = options
        .one("--log-level", |text| match text.parse() {
            Ok(LevelFilter::Off) | Err(_) => {
                Err("expected error, warn, info, debug or trace".to_owned())
            }
            Ok(level) => Ok(level),
        })?
        .unwrap_or(LevelFilter::Info);
    let config = Config {
        server,
        forwarder,
        upstream,
        keys,
        monitor,
        user,
        log_level,
    };
    match subcommand {
        Some("query") => query(options, config).map(|query| Command::Query(Box::new(query))),
        Some("pin") => key_request(options, config).map(|request| Command::Pin(Box::new(request))),
        Some(_) => {
            let json = options.flag("--json");
            options.finish()?;
            Ok(Command::Check(Box::new(CheckRequest { config, json })))
        }
        None => {
            options.finish()?;
            Ok(Command::Serve(Box::new(config)))
        }
    }
}

/// Whose keys `dns-tool pin` shows: those that are named, or the configured resolvers'.
fn key_request(mut options: Given, config: Config) -> Result<KeyRequest, UsageError> {
    let json = options.flag("--json");
    let configured = config.upstream.resolvers;
    let terms = configured[0].identity.terms().clone();
    // Pins do not matter: it is they that are looked for.
    let resolver = |name: ServerName<'static>, addresses| Resolver {
        addresses,
        identity: Identity::new(Terms {
            name,
            pins: PinSet::default(),
            ..terms.clone()
        }),
    };
    let mut resolvers = Vec::new();
    for word in options.words()? {
        let read = || -> Result<_, String> {
            let (address, name) = match word.split_once('#') {
                Some((address, name)) => (resolver_address(address)?, Some(resolver_name(name)?)),
                None => (resolver_address(&word)?, None),
            };
            // An address without a name is that of a configured resolver, or a name by itself.
            let known = configured
                .iter()
                .find(|resolver| resolver.addresses.contains(&address));
            let known = known.map(|resolver| resolver.identity.name().clone());
            let name = name.or(known).unwrap_or_else(|| address.ip().into());
            Ok(resolver(name, vec![address]))
        };
        let read = read().map_err(|cause| UsageError(format!("pin {word:?}: {cause}")))?;
        resolvers.push(read);
    }
    if resolvers.is_empty() {
        let own = configured.into_iter();
        resolvers = own
            .map(|known| resolver(known.identity.name().clone(), known.addresses))
            .collect();
    }
    Ok(KeyRequest {
        resolvers,
        timeout: config.upstream.timeout,
        json,
    })
}

/// What `dns-tool query` asks, once all options of the daemon are taken.
fn query(mut options: Given, config: Config) -> Result<Query, UsageError> {
    let road = match (options.flag("--direct"), options.flag("--tcp")) {
        (false, false) => Road::Udp,
        (false, true) => Road::Tcp,
        (true, false) => Road::Direct,
        (true, true) => {
            let message = "--tcp: expected without --direct, which asks over TLS";
            return Err(UsageError(message.to_owned()));
        }
    };
    if config.server.port == 0 && road != Road::Direct {
        let message = "--port \"0\": expected the port of a dns-tool that runs";
        return Err(UsageError(message.to_owned()));
    }
    let words = options.words()?;
    let (name, qtype) = match &words[..] {
        [name] => (name, "A"),
        [name, qtype] => (name, &qtype[..]),
        [] => {
            let message = "query: expected a name after it, such as example.com";
            return Err(UsageError(message.to_owned()));
        }
        [_, _, third, ..] => {
            return Err(UsageError(format!(
                "{third:?}: expected nothing behind a name and a type"
            )));
        }
    };
    Ok(Query {
        config,
        name: name.parse().map_err(|error| {
            UsageError(format!(
                "{name:?}: {error}; expected a name such as example.com"
            ))
        })?,
        qtype: qtype
            .parse()
            .map_err(|error| UsageError(format!("{qtype:?}: {error}")))?,
        road,
    })
}

fn server_settings(options: &mut Given) -> Result<server::Settings, UsageError> {
    let addresses: Vec<IpAddr> = options.all("--address", |text| {
        text.parse()
            .map_err(|_| "expected an IPv4 or IPv6 address".to_owned())
    })?;
    let port = options.one("--port", |text| {
        text.parse()
            .map_err(|_| "expected a whole number from 0 to 65535".to_owned())
    })?;
    let clients = options.one("--max-clients", |text| whole(text, 1..=65_536))?;
    let per_address = options.one("--max-clients-per-address", |text| whole(text, 1..=65_536))?;
    let addresses_optional = addresses.is_empty();
    let loopback = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    Ok(server::Settings {
        addresses: if addresses_optional {
            loopback()
        } else {
            addresses
        },
        addresses_optional,
        port: port.unwrap_or(DNS_PORT),
        clients: clients.unwrap_or(CLIENTS),
        clients_per_address: per_address.unwrap_or(CLIENTS_PER_ADDRESS),
        limit_loopback: per_address.is_some(),
    })
}

fn upstream_settings(
    options: &mut Given,
    max_pending: usize,
) -> Result<(upstream::Settings, keys::Settings), UsageError> {
    let fqdn = options.one("--resolver-fqdn", resolver_name)?;
    let mut addresses = options.all("--resolver-addr", resolver_address)?;
    let default_name = || resolver_name(DEFAULT_FQDN).expect("the default is a name");
    if addresses.is_empty() {
        if let Some(fqdn) = fqdn.as_ref().filter(|fqdn| **fqdn != default_name()) {
            return Err(UsageError(format!(
                "--resolver-fqdn \"{}\": expected a --resolver-addr with it, since only {DEFAULT_FQDN}'s addresses \
                 are built in",
                fqdn.to_str()
            )));
        }
        addresses = DEFAULT_ADDRESSES
            .map(|ip| SocketAddr::new(ip, DOT_PORT))
            .to_vec();
    }
    let mut resolvers = vec![(fqdn.unwrap_or_else(default_name), addresses)];
    for (address, name) in options.all("--resolver", further_resolver)? {
        match resolvers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, addresses)) => addresses.push(address),
            None => resolvers.push((name, vec![address])),
        }
    }
    let names = resolvers.iter().map(|(name, _)| name.clone()).collect();
    let keys = key_settings(options, names)?;
    let pin_mode = options
        .one("--pin-mode", |text| match text {
            "strict" => Ok(PinMode::Strict),
            "report" => Ok(PinMode::Report),
            _ => Err("expected strict or report".to_owned()),
        })?
        .unwrap_or(PinMode::Strict);
    let anchors = options
        .one("--resolver-ca", trust_anchors)?
        .unwrap_or_else(Anchors::built_in);
    let timeout = options
        .one("--timeout", |text| seconds(text, TIMEOUT_RANGE.0))?
        .unwrap_or(Duration::from_secs(3));
    let built = BUILT.parse().unwrap_or(0);
    let resolvers = resolvers
        .into_iter()
        .map(|(name, addresses)| Resolver {
            addresses,
            identity: Identity::new(Terms {
                pins: keys.believed(&keys.given, &keys.state, &name),
                name,
                anchors: anchors.clone(),
                pin_mode,
                clock_floor: keys.state.good_time.map_or(built, |time| time.max(built)),
            }),
        })
        .collect();
    let sessions = options
        .one("--sessions", |text| whole(text, 1..=16))?
        .unwrap_or(SESSIONS);
    let settings = upstream::Settings {
        resolvers,
        timeout,
        sessions,
        // Renewals, and queries whose clients were content with an expired answer, have no client that waits for them.
        max_pending: 2 * max_pending,
    };
    Ok((settings, keys))
}

/// The pins of resolvers with these names, the first being who is meant where none is said; and how they change.
fn key_settings(
    options: &mut Given,
    names: Vec<ServerName<'static>>,
) -> Result<keys::Settings, UsageError> {
    let mut fixed = Vec::new();
    for (name, pin) in options.all("--resolver-pin", named_pin)? {
        match name {
            Some(name) if !names.contains(&name) => {
                return Err(UsageError(format!(
                    "--resolver-pin \"{}={pin}\": expected the name of a --resolver or the --resolver-fqdn",
                    name.to_str()
                )));
            }
            name => fixed.push((name.unwrap_or_else(|| names[0].clone()), Dated::from(pin))),
        }
    }
    let source = Source {
        names,
        fixed,
        file: options.one("--pins", |text| Ok(PathBuf::from(text)))?,
    };
    let file = source.file.as_deref().unwrap_or(Path::new(""));
    let given = source
        .read()
        .map_err(|error| UsageError(format!("--pins {file:?}: {error}")))?;
    let kept = options.one("--state-dir", |text| {
        let (_, state) = Store::open(Path::new(text)).map_err(|error| error.to_string())?;
        Ok((PathBuf::from(text), state))
    })?;
    let rollover = options.one("--pin-rollover", |text| {
        let days = decimal(text).filter(|days| !days.is_zero() && days.as_secs() <= MOST_DAYS);
        let expected = || format!("expected days, more than 0 and at most {MOST_DAYS}, such as 7");
        days.map(|days| days * DAY as u32).ok_or_else(expected)
    })?;
    let (directory, state) = kept.unzip();
    match (rollover, &directory) {
        (Some(_), None) => Err(UsageError(
            "--pin-rollover: expected a --state-dir with it, where what is learnt is kept"
                .to_owned(),
        )),
        (rollover, _) => Ok(keys::Settings {
            source,
            given,
            directory,
            state: state.unwrap_or_default(),
            rollover,
        }),
    }
}

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

fn limit_settings(options: &mut Given) -> Result<limit::Settings, UsageError> {
    let mut allow = options.all("--allow", prefix)?;
    if allow.is_empty() {
        allow = ALLOW
            .iter()
            .map(|text| prefix(text).expect("the defaults are prefixes"))
            .collect();
    }
    let given = options.one("--rate-limit", |text| {
        const EXPECTED: &str =
            "expected queries a second and, after a slash, at once, such as 500/1000, or 0";
        let number = |text| whole(text, 0..=1_000_000).map_err(|_| EXPECTED.to_owned());
        let (qps, burst) = match text.split_once('/') {
            Some((qps, burst)) => (number(qps)?, number(burst)?),
            None => (number(text)?, 2 * number(text)?),
        };
        if qps > 0 && burst == 0 {
            return Err(EXPECTED.to_owned());
        }
        Ok(rate(qps, burst))
    })?;
    Ok(limit::Settings {
        allow,
        limit_loopback: given.is_some(),
        rate: given.unwrap_or(rate(RATE.0, RATE.1)),
    })
}

/// None for none.
fn rate(per_second: usize, burst: usize) -> Option<Rate> {
    let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
    (per_second > 0).then(|| Rate {
        per_second: narrow(per_second),
        burst: narrow(burst),
    })
}

fn prefix(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            "expected an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32".to_owned()
        })
}

fn cache_settings(options: &mut Given) -> Result<cache::Settings, UsageError> {
    let (size, least) = CACHE_SIZE;
    let size = options
        .one("--cache-size", |text| match text.parse() {
            Ok(size) if size == 0 || size >= least => Ok(size),
            _ => Err(format!(
                "expected 0, or a whole number of bytes from {least}"
            )),
        })?
        .unwrap_or(size);
    let (stale, most) = SERVE_STALE;
    let serve_stale = options
        .one("--serve-stale", |text| whole(text, 0..=most))?
        .unwrap_or(stale);
    Ok(cache::Settings {
        size,
        serve_stale: Duration::from_secs(serve_stale as u64),
    })
}

fn resolver_address(text: &str) -> Result<SocketAddr, String> {
    let address = text
        .parse()
        .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, DOT_PORT)))
        .map_err(|_| "expected an address such as 192.0.2.1:853 or [2001:db8::1]:853".to_owned())?;
    match address.port() {
        0 => Err("expected a port from 1 to 65535".to_owned()),
        DNS_PORT => {
            Err("expected another port: 53 is for cleartext DNS (RFC 7858 section 3.1)".to_owned())
        }
        _ => Ok(address),
    }
}

fn further_resolver(text: &str) -> Result<(SocketAddr, ServerName<'static>), String> {
    let (address, fqdn) = text
        .split_once('#')
        .ok_or("expected IP#NAME or IP:PORT#NAME such as 192.0.2.1#dns.example.net")?;
    Ok((resolver_address(address)?, resolver_name(fqdn)?))
}

/// A pin, with the name of its resolver where one is said.
fn named_pin(text: &str) -> Result<(Option<ServerName<'static>>, Pin), String> {
    // Base64 ends in an equals sign and one spelling has another, so a name is what precedes the first one and is neither.
    match (text.parse(), text.split_once('=')) {
        (Err(_), Some((left, pin)))
            if left != "pin-sha256" && !pin.trim_matches('=').is_empty() =>
        {
            let pin = pin.parse().map_err(|error: PinError| error.to_string())?;
            Ok((Some(resolver_name(left)?), pin))
        }
        (pin, _) => Ok((None, pin.map_err(|error: PinError| error.to_string())?)),
    }
}

fn trust_anchors(path: &str) -> Result<Anchors, String> {
    const EXPECTED: &str = "expected a PEM file with at least one certificate";
    let pem = std::fs::read(path).map_err(|error| format!("{error}; {EXPECTED}"))?;
    Anchors::from_pem(&pem).map_err(|error| format!("{error}; {EXPECTED}"))
}

fn whole(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "expected a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

fn seconds(text: &str, least: Duration) -> Result<Duration, String> {
    match decimal(text) {
        Some(seconds) if (least..=TIMEOUT_RANGE.1).contains(&seconds) => Ok(seconds),
        _ => {
            let least = metrics::seconds(micros(least));
            Err(format!(
                "expected seconds from {least} to 60, such as 3 or 2.5"
            ))
        }
    }
}

/// Seconds with at most nine digits behind the point. Not as a number with a floating point: to read and spell those takes
/// more of the binary than all of this room.
fn decimal(text: &str) -> Option<Duration> {
    const DIGITS: usize = 9;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let number = |digits: &str| {
        let plain = digits.bytes().all(|octet| octet.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    let nanoseconds = format!("{fraction:0<DIGITS$}");
    let short = fraction.len() <= DIGITS;
    Some(Duration::new(
        number(whole)?,
        short
            .then(|| number(&nanoseconds))?
            .and_then(|nanoseconds| u32::try_from(nanoseconds).ok())?,
    ))
}

/// Options as they were given, taken out one after the other.
struct Given {
    arguments: Arguments,
}

impl Given {
    fn all<T>(
        &mut self,
        option: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, UsageError> {
        let mut values = Vec::new();
        while let Some(value) = self.next(option)? {
            let value =
                read(&value).map_err(|cause| UsageError(format!("{option} {value:?}: {cause}")))?;
            values.push(value);
        }
        Ok(values)
    }

    fn one<T>(
        &mut self,
        option: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, UsageError> {
        let mut values = self.all(option, read)?;
        match values.len() {
            0 | 1 => Ok(values.pop()),
            count => Err(UsageError(format!(
                "{option}: given {count} times; expected once"
            ))),
        }
    }

    fn next(&mut self, option: &'static str) -> Result<Option<String>, UsageError> {
        self.arguments
            .opt_value_from_str(option)
            .map_err(|error| match error {
                pico_args::Error::OptionWithoutAValue(_) => {
                    UsageError(format!("{option}: expected a value after it"))
                }
                error => UsageError(format!("{option}: {error}")),
            })
    }

    /// Whether an option was given that has no value.
    fn flag(&mut self, option: &'static str) -> bool {
        let mut given = false;
        while self.arguments.contains(option) {
            given = true;
        }
        given
    }

    /// What is left when all options are taken: words that are none.
    fn words(self) -> Result<Vec<String>, UsageError> {
        let words = self.arguments.finish().into_iter();
        let words: Vec<_> = words
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        match words.iter().find(|word| word.starts_with('-')) {
            None => Ok(words),
            Some(left) => Err(UsageError(format!(
                "{left:?}: expected an option; --help lists them"
            ))),
        }
    }

    fn finish(self) -> Result<(), UsageError> {
        match self.arguments.finish().first() {
            None => Ok(()),
            Some(left) => {
                // Options of subcommands are in groups that bear their names.
                let here = |entries: &[Entry]| entries.iter().any(|entry| *left == *entry.name);
                let group = OPTIONS.iter().find(|(_, entries)| here(entries));
                let expected = group
                    .map_or("an option; --help lists them".to_owned(), |(group, _)| {
                        format!("behind dns-tool {} alone", group.to_lowercase())
                    });
                Err(UsageError(format!("{left:?}: expected {expected}")))
            }
        }
    }
}

/// Every known option as two dashes and its name, with its value in the argument after it.
fn normalize(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Vec<OsString> {
    let mut normal = Vec::new();
    let mut arguments = arguments.into_iter().map(Into::into);
    while let Some(argument) = arguments.next() {
        let known = argument.to_str().and_then(|text| {
            let (option, value) = text
                .split_once('=')
                .map_or((text, None), |(option, value)| (option, Some(value)));
            let word = option
                .strip_prefix("--")
                .or_else(|| option.strip_prefix('-'))?;
            let entry = find(word)?;
            // One that has no value takes none.
            let takes_value = !entry.value.is_empty();
            (takes_value || value.is_none()).then(|| (entry, value.map(OsString::from)))
        });
        match known {
            Some((entry, value)) => {
                normal.push(entry.name.into());
                // Whatever follows is its value, even if it looks like an option.
                if !entry.value.is_empty() {
                    normal.extend(value.or_else(|| arguments.next()));
                }
            }
            None => match argument.to_str() {
                Some("-help") => normal.push("--help".into()),
                Some("-version") => normal.push("--version".into()),
                _ => normal.push(argument),
            },
        }
    }
    normal
}

fn entries() -> impl Iterator<Item = &'static Entry> {
    OPTIONS.iter().flat_map(|(_, entries)| *entries)
}

/// The option with this name, which is said without dashes.
fn find(word: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.name.strip_prefix("--") == Some(word))
}

/// The help, grouped.
pub fn help() -> String {
    let mut help = format!(
        "dns-tool {}: relays cleartext DNS to one authenticated DNS-over-TLS resolver\n\n\
         Usage: dns-tool [OPTIONS]\n       \
                dns-tool query NAME [TYPE] [OPTIONS]\n       \
                dns-tool pin [IP[:PORT][#NAME]...] [OPTIONS]\n       \
                dns-tool check [OPTIONS]\n\n\
         dns-tool query asks for the records of a name, addresses unless a TYPE is\n\
         given, and says what it hears. dns-tool pin shows the keys of resolvers as\n\
         --pins takes them. dns-tool check says whether all is as it should be. All\n\
         options mean what they mean without these words.\n\n\
         Options take one dash or two, and their value after a space or an equals sign.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (group, entries) in OPTIONS {
        let _ = writeln!(help, "\n{group}:");
        for Entry {
            name,
            value,
            repeatable,
            meaning,
            default,
        } in entries
        {
            let repeatable = if *repeatable { "; may be repeated" } else { "" };
            let _ = writeln!(
                help,
                "{}",
                format_args!("  {name} {value}").to_string().trim_end()
            );
            write_wrapped(
                &mut help,
                &format!("{meaning} [default: {default}{repeatable}]"),
            );
        }
    }
    help.push_str(
        "\nOther:\n  -h, --help\n        print this help\n  -V, --version\n        print the version\n\n\
         Exit codes: 0 ok, 1 could not run, 2 usage or configuration. Those of query: 0\n\
         for NOERROR and NXDOMAIN, 1 for another answer or none in time, 2 for usage.\n\
         Of pin: 0 verified, 2 shown but not verified, 1 nothing reached. Of check: 0 OK,\n\
         1 WARNING, 2 CRITICAL, 3 could not be checked.\n",
    );
    help
}

/// Writes words in lines of at most 80 characters, indented.
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

    const PIN: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn serve(arguments: &[&str]) -> Config {
        match parse(arguments.iter().copied()) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn refuse(arguments: &[&str]) -> String {
        parse(arguments.iter().copied())
            .expect_err(&format!("{arguments:?}"))
            .to_string()
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let config = serve(&[]);
        assert_eq!(
            config.server.addresses,
            ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().expect("an address"))
        );
        assert!(config.server.addresses_optional);
        assert_eq!(config.server.port, 53);
        assert_eq!(config.upstream.timeout, Duration::from_secs(3));
        assert_eq!(config.forwarder.cache.size, 8 * 1024 * 1024);
        assert_eq!(
            config.forwarder.cache.serve_stale,
            Duration::from_secs(86_400)
        );
        assert_eq!(config.log_level, LevelFilter::Info);
        let [resolver] = &config.upstream.resolvers[..] else {
            panic!("one resolver")
        };
        assert_eq!(resolver.identity.name().to_str(), "cloudflare-dns.com");
        assert_eq!(resolver.addresses.len(), 4);
        assert!(
            resolver
                .addresses
                .iter()
                .all(|address| address.port() == 853)
        );
    }

    #[test]
    fn an_option_takes_one_dash_or_two_and_a_space_or_an_equals_sign() {
        for arguments in [
            &["--port", "5353", "--timeout", "2.5"][..],
            &["-port", "5353", "-timeout", "2.5"],
            &["--port=5353", "--timeout=2.5"],
            &["-port=5353", "-timeout=2.5"],
        ] {
            let config = serve(arguments);
            assert_eq!(config.server.port, 5353);
            assert_eq!(config.upstream.timeout, Duration::from_millis(2500));
        }
    }

    #[test]
    fn repeated_options_keep_their_order() {
        let config = serve(&[
            "--address=::1",
            "-address",
            "127.0.0.2",
            "--address=127.0.0.3",
        ]);
        let addresses: Vec<_> = config
            .server
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(addresses, ["::1", "127.0.0.2", "127.0.0.3"]);
        assert!(!config.server.addresses_optional);
    }

    #[test]
    fn resolvers_have_their_own_names_and_pins() {
        let other = format!("Dns.Example={PIN}");
        let quoted = format!("b.example=pin-sha256=\"{PIN}\"");
        let config = serve(&[
            "--resolver-addr",
            "192.0.2.1",
            "--resolver-fqdn",
            "a.example.",
            "--resolver",
            "192.0.2.2:8853#dns.example",
            "--resolver",
            "[2001:db8::2]:853#dns.example",
            "--resolver",
            "2001:db8::3#b.example",
            "--resolver-pin",
            &other,
            "--resolver-pin",
            &quoted,
        ]);
        let found: Vec<_> = config
            .upstream
            .resolvers
            .iter()
            .map(|resolver| {
                (
                    resolver.identity.name().to_str().into_owned(),
                    resolver.addresses.clone(),
                )
            })
            .collect();
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(
            found,
            [
                ("a.example".to_owned(), vec![address("192.0.2.1:853")]),
                (
                    "dns.example".to_owned(),
                    vec![address("192.0.2.2:8853"), address("[2001:db8::2]:853")]
                ),
                ("b.example".to_owned(), vec![address("[2001:db8::3]:853")]),
            ]
        );
        let pinned: Vec<_> = config
            .upstream
            .resolvers
            .iter()
            .map(|resolver| !resolver.identity.terms().pins.is_empty())
            .collect();
        assert_eq!(pinned, [false, true, true]);
    }

    #[test]
    fn a_pin_without_a_name_is_the_first_resolvers() {
        for pin in [
            PIN.to_owned(),
            format!("sha256/{PIN}"),
            format!("sha256//{PIN}"),
            format!("pin-sha256=\"{PIN}\""),
        ] {
            let config = serve(&["--resolver-pin", &pin]);
            assert_eq!(
                config.upstream.resolvers[0]
                    .identity
                    .terms()
                    .pins
                    .to_string(),
                format!("sha256/{PIN}"),
                "{pin}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_option_value_and_expectation() {
        for (arguments, parts) in [
            (&["--port", "x"][..], &["--port", "\"x\"", "0 to 65535"][..]),
            (&["--port", "65536"], &["--port", "65536", "0 to 65535"]),
            (&["--port"], &["--port", "expected a value"]),
            (&["--port="], &["--port", "\"\"", "0 to 65535"]),
            (
                &["--port", "1", "--port", "2"],
                &["--port", "2 times", "once"],
            ),
            (
                &["--address", "localhost"],
                &["--address", "localhost", "IPv4 or IPv6"],
            ),
            (&["--timeout", "0"], &["--timeout", "\"0\"", "seconds from"]),
            (
                &["--timeout", "-1"],
                &["--timeout", "\"-1\"", "seconds from"],
            ),
            (&["--timeout", "nan"], &["--timeout", "nan", "seconds from"]),
            (&["--timeout", "3s"], &["--timeout", "3s", "seconds from"]),
            (
                &["--resolver-addr", "one.one.one.one"],
                &["--resolver-addr", "one.one", "192.0.2.1:853"],
            ),
            (
                &["--resolver-addr", "1.1.1.1:53"],
                &["--resolver-addr", "1.1.1.1:53", "another port"],
            ),
            (
                &["--resolver-addr", "1.1.1.1:0"],
                &["--resolver-addr", "1.1.1.1:0", "1 to 65535"],
            ),
            (
                &["--resolver-fqdn", "a b"],
                &["--resolver-fqdn", "a b", "host name"],
            ),
            (
                &["--resolver-fqdn", "dns.example"],
                &["--resolver-fqdn", "dns.example", "--resolver-addr"],
            ),
            (
                &["--resolver", "1.1.1.1"],
                &["--resolver", "1.1.1.1", "IP#NAME"],
            ),
            (
                &["--resolver-pin", "AAAA"],
                &["--resolver-pin", "AAAA", "32 bytes", "got 3 bytes"],
            ),
            (
                &["--resolver-pin", "sha256/!"],
                &["--resolver-pin", "sha256/!", "not base64"],
            ),
            (
                &["--resolver-pin", "AA=="],
                &["--resolver-pin", "AA==", "got 1 bytes"],
            ),
            (
                &["--resolver-pin", "x.example=AAAA"],
                &["--resolver-pin", "x.example=AAAA", "got 3 bytes"],
            ),
            (
                &["--resolver-ca", "/no/such/file"],
                &["--resolver-ca", "/no/such/file", "No such file", "PEM file"],
            ),
            (
                &["--resolver-ca", "/dev/null"],
                &["--resolver-ca", "/dev/null", "no certificate", "PEM file"],
            ),
            (
                &["--allow", "192.0.2.0/33"],
                &["--allow", "192.0.2.0/33", "192.0.2.0/24"],
            ),
            (
                &["--rate-limit", "10/0"],
                &["--rate-limit", "10/0", "500/1000"],
            ),
            (
                &["--rate-limit", "fast"],
                &["--rate-limit", "fast", "500/1000"],
            ),
            (
                &["--upstream-rate-limit", "-1"],
                &["--upstream-rate-limit", "-1", "0 to 1000000"],
            ),
            (
                &["--cache-size", "8"],
                &["--cache-size", "\"8\"", "0, or", "from 65536"],
            ),
            (
                &["--serve-stale", "604801"],
                &["--serve-stale", "604801", "0 to 604800"],
            ),
            (
                &["--user", "nobody at all"],
                &["--user", "nobody at all", "name or number"],
            ),
            (&["--user", "0"], &["--user", "\"0\"", "not root"]),
            (
                &["--log-level", "loud"],
                &["--log-level", "loud", "error, warn"],
            ),
            (&["--prot", "1"], &["--prot", "--help"]),
            (&["serve"], &["serve", "--help"]),
        ] {
            let message = refuse(arguments);
            assert!(
                parts.iter().all(|part| message.contains(part)),
                "{arguments:?}: {message}"
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        }
        let stranger = format!("x.example={PIN}");
        assert!(
            refuse(&["--resolver-pin", &stranger]).contains("expected the name of a --resolver")
        );
    }

    #[test]
    fn a_query_takes_the_daemons_options_and_a_question_among_them() {
        for arguments in [
            &["query", "a.test", "mx", "--port", "5353", "--tcp"][..],
            &["query", "-tcp", "a.test", "--port=5353", "MX"],
            &["query", "--port", "5353", "a.test.", "TYPE15", "--tcp"],
        ] {
            let Ok(Command::Query(query)) = parse(arguments.iter().copied()) else {
                panic!("{arguments:?}")
            };
            let asked = (query.name.to_string(), query.qtype, query.road);
            assert_eq!(asked, ("a.test.".to_owned(), Type(15), Road::Tcp));
            assert_eq!(query.config.server.port, 5353);
        }
        for (arguments, part) in [
            (&["--tcp"][..], "query alone"),
            (&["a.test"], "\"a.test\": expected an option"),
            (
                &["--port", "1", "query", "a.test"],
                "\"query\": expected an option",
            ),
            (&["query", "--tcp=x", "a.test"], "--tcp=x"),
        ] {
            assert!(refuse(arguments).contains(part), "{}", refuse(arguments));
        }
    }

    #[test]
    fn help_and_version_win_over_the_rest() {
        for arguments in [
            &["-h"][..],
            &["--help"],
            &["-help"],
            &["--port", "5353", "-h"],
        ] {
            assert!(matches!(
                parse(arguments.iter().copied()),
                Ok(Command::Help)
            ));
        }
        for arguments in [&["-V"][..], &["--version"]] {
            assert!(matches!(
                parse(arguments.iter().copied()),
                Ok(Command::Version)
            ));
        }
    }

    #[test]
    fn the_help_names_every_option_in_lines_that_fit() {
        let help = help();
        for Entry { name, value, .. } in entries() {
            let line = format!("  {name} {value}");
            assert!(help.contains(&format!("{}\n", line.trim_end())), "{name}");
        }
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    }
}
