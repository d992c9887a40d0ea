//! What did the user ask for?
//!
//! InFlightCount options into typed settings: after this room no string means anything. Whatever is wrong ends in one line that
//! names the option, or the place where it stands, the value and what was expected.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use log::LevelFilter;
use rustls::pki_types::ServerName;

use crate::cache;
use crate::config::sources::{Given, Sources, UsageError, Wanted};
use crate::forward::forwarder;
use crate::forward::rate_limit;
use crate::forward::waiting;
use crate::identity::pin::{Dated, Pin, PinError, PinSet};
use crate::identity::pin_file::{Source, resolver_name};
use crate::identity::state_file::Store;
use crate::identity::trust;
use crate::identity::verifier::{Anchors, Identity, PinMode, Terms};
use crate::message::presentation::{Name, Type};
use crate::server::listeners;
use crate::system::clock::micros;
use crate::system::date::DAY;
use crate::system::memory;
use crate::system::privileges::{self, User};
use crate::telemetry::metrics;
use crate::telemetry::query_log;
use crate::upstream::token_bucket::Rate;
use crate::upstream::{self, Resolver};

/// The port of DNS over TLS (RFC 7858 section 3.1).
const DOT_PORT: u16 = 853;
/// The port of cleartext DNS, which RFC 7858 section 3.1 keeps DNS over TLS away from.
const DNS_PORT: u16 = 53;
/// The one resolver whose addresses are built in.
const DEFAULT_FQDN: &str = "cloudflare-dns.com";
/// How long a query may take, at least and at most.
const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// How long an answer may take to count as a good one, at least.
const LEAST_LATENCY: Duration = Duration::from_millis(1);
/// The least octets of a cache that are of use.
const LEAST_CACHE: usize = 64 * 1024;
/// When this was built, in seconds since 1970: no clock that is right shows an earlier time.
const BUILT: &str = env!("BUILT_AT");
/// Days that a new key may have to be seen, at most.
const MOST_DAYS: u64 = 366;
/// Seconds for which an answer may be served past its time, at most.
const MOST_STALE: usize = 604_800;

/// Options that are nothing to who asks a daemon that runs: it serves on with what it had where a file of theirs is broken by
/// now, and is well.
const DAEMONS_OPTIONS: [&str; 4] = ["--pins", "--pin-rollover", "--state-dir", "--resolver-ca"];

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
    /// Print the settings that hold, and where each comes from: this text.
    Describe(String),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// The settings of all rooms.
#[derive(Debug)]
pub struct Config {
    /// Where queries come from.
    pub server: listeners::Settings,
    /// What messages may hold.
    pub memory: memory::Settings,
    /// What happens to them.
    pub forwarder: forwarder::Settings,
    /// Whom they go to.
    pub upstream: upstream::Settings,
    /// Whose keys are believed, as time goes on.
    pub keys: trust::Settings,
    /// Where its state is read from outside, if anywhere.
    pub monitor: Option<SocketAddr>,
    /// Who it becomes once the sockets are bound.
    pub user: Option<User>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// The options that say all this.
    pub given: Given,
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

/// Reads the command line, without the program's name, and nothing else.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Command, UsageError> {
    read(&Sources::new(arguments, []))
}

/// Reads the command line, the environment, and the file that they name.
pub fn read(sources: &Sources) -> Result<Command, UsageError> {
    let mut given = match sources.read()? {
        Wanted::Help => return Ok(Command::Help),
        Wanted::Version => return Ok(Command::Version),
        Wanted::Options(given) => given,
    };
    if given.subcommand() == Some("query") && !given.flag("--direct")? {
        given.leave_out(&DAEMONS_OPTIONS);
    }
    let config = settings(given)?;
    let given = &config.given;
    let json = given.flag("--json")?;
    let checked = given.flag("--check-config")?;
    match given.subcommand() {
        Some(word) if checked => Err(UsageError(format!(
            "--check-config: expected without {word}"
        ))),
        Some("query") => query(config).map(|query| Command::Query(Box::new(query))),
        Some("pin") => key_request(config).map(|request| Command::Pin(Box::new(request))),
        Some(_) => Ok(Command::Check(Box::new(CheckRequest { config, json }))),
        None if checked => Ok(Command::Describe(given.describe())),
        None => Ok(Command::Serve(Box::new(config))),
    }
}

/// The settings that these options mean.
fn settings(given: Given) -> Result<Config, UsageError> {
    let max_pending = number(&given, "--max-pending", 1..=1_000_000)?;
    let server = server_settings(&given)?;
    let (upstream, keys) = upstream_settings(&given, max_pending)?;
    let budget = number(&given, "--upstream-rate-limit", 0..=1_000_000)?;
    let query_log = match (
        given.flag("--query-log")?,
        given.flag("--query-log-clients")?,
    ) {
        (false, false) => query_log::Mode::Off,
        (true, false) => query_log::Mode::Prefixes,
        (_, true) => query_log::Mode::Clients,
    };
    let forwarder = forwarder::Settings {
        timeout: upstream.timeout,
        slo_latency: known(&given, "--slo-latency", |text| seconds(text, LEAST_LATENCY))?,
        max_pending,
        cache: cache_settings(&given)?,
        limit: limit_settings(&given)?,
        budget: rate(budget, budget),
        query_log,
    };
    let monitor = one(&given, "--monitor", |text| {
        text.parse().map_err(|_| {
            "expected an address of this host and a port, such as 127.0.0.1:9853".to_owned()
        })
    })?;
    let user = one(&given, "--user", |text| {
        let user = User::find(text).filter(|user| !user.is_root());
        user.ok_or_else(|| {
            "expected the name or number of a user that is not root, and was there at the start"
                .to_owned()
        })
    })?;
    let log_level = known(&given, "--log-level", |text| match text.parse() {
        Ok(LevelFilter::Off) | Err(_) => {
            Err("expected error, warn, info, debug or trace".to_owned())
        }
        Ok(level) => Ok(level),
    })?;
    Ok(Config {
        memory: memory_settings(&given, server.clients)?,
        server,
        forwarder,
        upstream,
        keys,
        monitor,
        user,
        log_level,
        given,
    })
}

/// Whose keys `dns-tool pin` shows: those that are named, or the configured resolvers'.
fn key_request(config: Config) -> Result<KeyRequest, UsageError> {
    let json = config.given.flag("--json")?;
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
    for word in config.given.words() {
        let read = || -> Result<_, String> {
            let (address, name) = match word.split_once('#') {
                Some((address, name)) => (resolver_address(address)?, Some(resolver_name(name)?)),
                None => (resolver_address(word)?, None),
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
fn query(config: Config) -> Result<Query, UsageError> {
    let given = &config.given;
    let road = match (given.flag("--direct")?, given.flag("--tcp")?) {
        (false, false) => Road::Udp,
        (false, true) => Road::Tcp,
        (true, false) => Road::Direct,
        (true, true) => {
            let message = "--tcp: expected without --direct, which asks over TLS";
            return Err(UsageError(message.to_owned()));
        }
    };
    if config.server.port == 0 && road != Road::Direct {
        return Err(given.fault("--port", "0", "expected the port of a dns-tool that runs"));
    }
    let (name, qtype) = match given.words() {
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
    let name = name.parse().map_err(|error| {
        UsageError(format!(
            "{name:?}: {error}; expected a name such as example.com"
        ))
    })?;
    let qtype = qtype
        .parse()
        .map_err(|error| UsageError(format!("{qtype:?}: {error}")))?;
    Ok(Query {
        config,
        name,
        qtype,
        road,
    })
}

fn server_settings(given: &Given) -> Result<listeners::Settings, UsageError> {
    Ok(listeners::Settings {
        addresses: all(given, "--address", |text| {
            text.parse()
                .map_err(|_| "expected an IPv4 or IPv6 address".to_owned())
        })?,
        addresses_optional: !given.has("--address"),
        port: known(given, "--port", |text| {
            text.parse()
                .map_err(|_| "expected a whole number from 0 to 65535".to_owned())
        })?,
        reuse_port: given.flag("--reuse-port")?,
        clients: number(given, "--max-clients", 1..=65_536)?,
        clients_per_address: number(given, "--max-clients-per-address", 1..=65_536)?,
        limit_loopback: given.has("--max-clients-per-address"),
    })
}

fn upstream_settings(
    given: &Given,
    max_pending: usize,
) -> Result<(upstream::Settings, trust::Settings), UsageError> {
    let elsewhere = given.has("--resolver-addr");
    let fqdn = known(given, "--resolver-fqdn", |text| {
        let name = resolver_name(text)?;
        match elsewhere || name == resolver_name(DEFAULT_FQDN)? {
            true => Ok(name),
            false => Err(format!(
                "expected a --resolver-addr with it, since only {DEFAULT_FQDN}'s addresses are built in"
            )),
        }
    })?;
    let addresses = all(given, "--resolver-addr", resolver_address)?;
    let mut resolvers = vec![(fqdn, addresses)];
    for (address, name) in all(given, "--resolver", further_resolver)? {
        match resolvers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, addresses)) => addresses.push(address),
            None => resolvers.push((name, vec![address])),
        }
    }
    for (_, addresses) in &mut resolvers {
        for place in (1..addresses.len()).rev() {
            // Twice there it would be tried twice, and counted as two.
            if addresses[..place].contains(&addresses[place]) {
                addresses.remove(place);
            }
        }
    }
    let names = resolvers.iter().map(|(name, _)| name.clone()).collect();
    let keys = key_settings(given, names)?;
    let pin_mode = known(given, "--pin-mode", |text| match text {
        "strict" => Ok(PinMode::Strict),
        "report" => Ok(PinMode::Report),
        _ => Err("expected strict or report".to_owned()),
    })?;
    let anchors = one(given, "--resolver-ca", trust_anchors)?.unwrap_or_else(Anchors::built_in);
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
    let settings = upstream::Settings {
        resolvers,
        timeout: known(given, "--timeout", |text| seconds(text, TIMEOUT_RANGE.0))?,
        least_patience: upstream::LEAST_PATIENCE,
        sessions: number(given, "--sessions", 1..=16)?,
        // What all clients wait for, and as many again as one may: renewals, and queries whose clients were content with an
        // expired answer, have no client that waits for them.
        max_pending: (waiting::ALL + 1) * max_pending,
    };
    Ok((settings, keys))
}

/// The pins of resolvers with these names, the first being who is meant where none is said; and how they change.
fn key_settings(
    given: &Given,
    names: Vec<ServerName<'static>>,
) -> Result<trust::Settings, UsageError> {
    let fixed = all(given, "--resolver-pin", |text| {
        let (name, pin) = named_pin(text)?;
        match name {
            Some(name) if !names.contains(&name) => {
                Err("expected the name of a --resolver or the --resolver-fqdn".to_owned())
            }
            name => Ok((name.unwrap_or_else(|| names[0].clone()), Dated::from(pin))),
        }
    })?;
    let mut source = Source {
        names,
        fixed,
        file: None,
    };
    let mut pins = source.fixed.iter().cloned().collect();
    given.each("--pins", &mut |text| {
        source.file = Some(PathBuf::from(text));
        pins = source.read().map_err(|error| error.to_string())?;
        Ok(())
    })?;
    let kept = one(given, "--state-dir", |text| {
        let (_, state) = Store::open(Path::new(text)).map_err(|error| error.to_string())?;
        Ok((PathBuf::from(text), state))
    })?;
    let rollover = one(given, "--pin-rollover", |text| {
        let most = Duration::from_secs(MOST_DAYS);
        let days = decimal(text).filter(|days| !days.is_zero() && *days <= most);
        let expected = || format!("expected days, more than 0 and at most {MOST_DAYS}, such as 7");
        if kept.is_none() {
            return Err("expected a --state-dir with it, where what is learnt is kept".to_owned());
        }
        days.map(|days| days * DAY as u32).ok_or_else(expected)
    })?;
    let (directory, state) = kept.unzip();
    Ok(trust::Settings {
        source,
        given: pins,
        directory,
        state: state.unwrap_or_default(),
        rollover,
    })
}

fn limit_settings(given: &Given) -> Result<rate_limit::Settings, UsageError> {
    Ok(rate_limit::Settings {
        allow: all(given, "--allow", prefix)?,
        limit_loopback: given.has("--rate-limit"),
        rate: known(given, "--rate-limit", |text| {
            const EXPECTED: &str =
                "expected queries a second and, after a slash, at once, such as 500/1000, or 0";
            let number = |text| whole(text, &(0..=1_000_000)).map_err(|_| EXPECTED.to_owned());
            let (qps, burst) = match text.split_once('/') {
                Some((qps, burst)) => (number(qps)?, number(burst)?),
                None => (number(text)?, 2 * number(text)?),
            };
            if qps > 0 && burst == 0 {
                return Err(EXPECTED.to_owned());
            }
            Ok(rate(qps, burst))
        })?,
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

fn cache_settings(given: &Given) -> Result<cache::Settings, UsageError> {
    let stale = number(given, "--serve-stale", 0..=MOST_STALE)?;
    Ok(cache::Settings {
        size: known(given, "--cache-size", |text| match text.parse() {
            Ok(size) if size == 0 || size >= LEAST_CACHE => Ok(size),
            _ => Err(format!(
                "expected 0, or a whole number of bytes from {LEAST_CACHE}"
            )),
        })?,
        serve_stale: Duration::from_secs(stale as u64),
    })
}

/// Unless it is said, there is as much as all connections may need that are asked for.
fn memory_settings(given: &Given, connections: usize) -> Result<memory::Settings, UsageError> {
    let least = memory::LEAST;
    let limit = one(given, "--max-memory", |text| match text.parse() {
        Ok(limit) if limit >= least => Ok(limit),
        _ => Err(format!("expected a whole number of bytes from {least}")),
    })?;
    let limit = limit.unwrap_or_else(|| memory::Settings::default_limit(connections));
    Ok(memory::Settings { limit, connections })
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
    let pem =
        privileges::read_file(Path::new(path)).map_err(|error| format!("{error}; {EXPECTED}"))?;
    Anchors::from_pem(&pem).map_err(|error| format!("{error}; {EXPECTED}"))
}

fn whole(text: &str, range: &RangeInclusive<usize>) -> Result<usize, String> {
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

/// Has `read` understand every value of an option.
fn all<T>(
    given: &Given,
    option: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, UsageError> {
    let mut values = Vec::new();
    given.each(option, &mut |text| {
        values.push(read(text)?);
        Ok(())
    })?;
    Ok(values)
}

/// Has `read` understand the value of an option, if it has one.
fn one<T>(
    given: &Given,
    option: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, UsageError> {
    let mut value = None;
    given.each(option, &mut |text| {
        value = Some(read(text)?);
        Ok(())
    })?;
    Ok(value)
}

/// The value of an option that has a default.
fn known<T>(
    given: &Given,
    option: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, UsageError> {
    let missing = || UsageError(format!("{option}: expected a value"));
    one(given, option, read)?.ok_or_else(missing)
}

/// A whole number that has a default.
fn number(given: &Given, option: &str, range: RangeInclusive<usize>) -> Result<usize, UsageError> {
    known(given, option, |text| whole(text, &range))
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
    fn an_address_that_is_given_twice_for_a_name_is_one_and_for_two_names_two() {
        for (arguments, addresses) in [
            (
                &[
                    "--resolver-fqdn=a.example",
                    "--resolver-addr=192.0.2.1",
                    "--resolver-addr=192.0.2.2",
                    "--resolver-addr=192.0.2.1:853",
                    "--resolver=192.0.2.2#A.example.",
                    "--resolver=192.0.2.1#b.example",
                    "--resolver=192.0.2.1:8853#b.example",
                    "--resolver=192.0.2.1#b.example",
                ][..],
                &[
                    &["192.0.2.1:853", "192.0.2.2:853"][..],
                    &["192.0.2.1:853", "192.0.2.1:8853"],
                ][..],
            ),
            (
                &["--resolver=1.0.0.1#cloudflare-dns.com"],
                &[&[
                    "1.1.1.1:853",
                    "1.0.0.1:853",
                    "[2606:4700:4700::1111]:853",
                    "[2606:4700:4700::1001]:853",
                ]],
            ),
        ] {
            let resolvers = serve(arguments).upstream.resolvers;
            let spell = |resolver: &Resolver| -> Vec<_> {
                resolver.addresses.iter().map(ToString::to_string).collect()
            };
            let found: Vec<_> = resolvers.iter().map(spell).collect();
            assert_eq!(found, addresses, "{arguments:?}");
        }
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
        let empty = file("");
        let empty = &path(&empty)[..];
        for (arguments, parts) in [
            (&["--port", "x"][..], &["--port", "\"x\"", "0 to 65535"][..]),
            (&["--port", "65536"], &["--port", "65536", "0 to 65535"]),
            (&["--port"], &["--port", "expected a value"]),
            (&["--port="], &["--port", "\"\"", "0 to 65535"]),
            (
                &["--port", "1", "--port", "2"],
                &["--port", "more than once", "expected once"],
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
                &["--resolver-ca", empty],
                &["--resolver-ca", empty, "no certificate", "PEM file"],
            ),
            (
                &["--resolver-ca", "/dev/zero"],
                &["--resolver-ca", "/dev/zero", "expected a file", "PEM file"],
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

    /// A file of options, which goes when it is dropped.
    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
        std::fs::write(file.path(), text).expect("it is writable");
        file
    }

    fn path(file: &tempfile::NamedTempFile) -> String {
        file.path().to_str().expect("a path in UTF-8").to_owned()
    }

    fn with_environment(
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Command, UsageError> {
        let environment = environment.iter();
        read(&Sources::new(
            arguments.iter().copied(),
            environment.map(|(name, text)| (OsString::from(name), OsString::from(text))),
        ))
    }

    fn serve_with(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
        match with_environment(arguments, environment) {
            Ok(Command::Serve(config)) => *config,
            other => panic!("{arguments:?} {environment:?}: {other:?}"),
        }
    }

    fn allowed(config: &Config) -> Vec<String> {
        let allow = config.forwarder.limit.allow.iter();
        allow.map(ToString::to_string).collect()
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
        let file = file("port 1\ntimeout 10\nsessions 3\nallow 10.1.0.0/16\nallow 10.2.0.0/16\n");
        let path = path(&file);
        let config = serve_with(&["--config", &path], &[]);
        assert_eq!(config.server.port, 1);
        assert_eq!(allowed(&config), ["10.1.0.0/16", "10.2.0.0/16"]);
        assert_eq!(
            config.forwarder.max_pending, 8192,
            "a default where nobody says anything"
        );
        let environment = [
            ("DNS_TOOL_CONFIG", &*path),
            ("DNS_TOOL_PORT", "2"),
            ("DNS_TOOL_TIMEOUT", "20"),
            ("DNS_TOOL_ALLOW", " 10.3.0.0/16\n10.4.0.0/16 "),
        ];
        let config = serve_with(&[], &environment);
        assert_eq!(config.server.port, 2);
        assert_eq!(allowed(&config), ["10.3.0.0/16", "10.4.0.0/16"]);
        let arguments = ["--port", "3", "--allow", "10.5.0.0/16"];
        let config = serve_with(&arguments, &environment);
        assert_eq!(config.server.port, 3);
        assert_eq!(config.upstream.timeout, Duration::from_secs(20));
        assert_eq!(config.upstream.sessions, 3);
        assert_eq!(allowed(&config), ["10.5.0.0/16"], "taken whole");
        let nowhere = ("DNS_TOOL_CONFIG", "/no/such/file");
        let config = serve_with(&["--config", &path], &[nowhere]);
        assert_eq!(config.server.port, 1, "the file, too");
    }

    #[test]
    fn subcommands_take_what_the_daemon_takes_from_everywhere() {
        let file = file("port 5353\n");
        let path = path(&file);
        let environment = [
            ("DNS_TOOL_CONFIG", &*path),
            ("DNS_TOOL_RESOLVER_ADDR", "192.0.2.1"),
            ("DNS_TOOL_RESOLVER_FQDN", "dns.example"),
        ];
        match with_environment(&["query", "a.test"], &environment) {
            Ok(Command::Query(query)) => assert_eq!(query.config.server.port, 5353),
            other => panic!("{other:?}"),
        }
        match with_environment(&["pin"], &environment) {
            Ok(Command::Pin(request)) => {
                assert_eq!(request.resolvers[0].identity.name().to_str(), "dns.example");
            }
            other => panic!("{other:?}"),
        }
        match with_environment(&["check", "--json"], &environment) {
            Ok(Command::Check(request)) => assert_eq!(request.config.server.port, 5353),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_names_the_place_of_the_value() {
        let refuse = |arguments: &[&str], environment: &[(&str, &str)]| {
            let error = with_environment(arguments, environment);
            let error = error.expect_err(&format!("{arguments:?}")).to_string();
            assert_eq!(error.lines().count(), 1, "{error}");
            error
        };
        let expected = "\"x\": expected a whole number from 0 to 65535";
        assert_eq!(refuse(&["--port", "x"], &[]), format!("--port {expected}"));
        assert_eq!(
            refuse(&[], &[("DNS_TOOL_PORT", "x")]),
            format!("DNS_TOOL_PORT {expected}")
        );
        let fails = |text: &str, cause: &str| {
            let file = file(text);
            let path = path(&file);
            let error = refuse(&["--config", &path], &[]);
            assert!(
                error.starts_with(&format!("{path}:{cause}")),
                "{text:?}: {error}"
            );
        };
        fails("# one\n\nport x\n", &format!("3: port {expected}"));
        fails("port 1\nport 2\n", "2: port: given more than once");
        fails(
            "allow 10.0.0.0/8\nallow 10.0.0.0/8 10.1.0.0/16\n",
            "2: allow \"10.0.0.0/8 10.1.0.0/16\": expected",
        );
        fails(
            "resolver-fqdn DNS.example.\n",
            "1: resolver-fqdn \"DNS.example.\": expected a --resolver-addr",
        );
        fails(
            "pins /no/such/file\n",
            "1: pins \"/no/such/file\": it cannot be read",
        );
        fails(
            "pin-rollover 7\n",
            "1: pin-rollover \"7\": expected a --state-dir",
        );
        fails("port 1\n--port 2\n", "2: \"--port\": expected the name");
        fails("tcp\n", "1: \"tcp\": expected on the command line");
        assert!(
            refuse(&["query", "a.test"], &[("DNS_TOOL_PORT", "0")])
                .starts_with("DNS_TOOL_PORT \"0\": expected the port")
        );
        for text in ["", "  "] {
            assert_eq!(
                refuse(&[], &[("DNS_TOOL_RESOLVER_PIN", text)]),
                format!("DNS_TOOL_RESOLVER_PIN {text:?}: expected a value, or no variable")
            );
            assert_eq!(
                refuse(&["--timeout", "1"], &[("DNS_TOOL_TIMEOUT", text)]),
                format!("DNS_TOOL_TIMEOUT {text:?}: expected a value, or no variable")
            );
        }
    }

    #[test]
    fn a_new_key_is_seen_for_at_most_366_days() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a path in UTF-8");
        let most = serve(&["--state-dir", path, "--pin-rollover", "366.0"]);
        let most = most.keys.rollover.expect("some days");
        assert_eq!(most, Duration::from_secs(366 * 86_400));
        let error = refuse(&["--state-dir", path, "--pin-rollover", "366.000000001"]);
        assert!(error.contains("at most 366"), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_said_with_its_name() {
        let long = file(&"#".repeat(1024 * 1024 + 1));
        let latin = tempfile::NamedTempFile::new().expect("a folder for temporary files");
        std::fs::write(latin.path(), b"port 1\n# \xe9\n").expect("it is writable");
        let (long, latin) = (path(&long), path(&latin));
        for (name, cause) in [
            ("/no/such/file", "it cannot be read: No such file"),
            ("/", "expected a file"),
            ("/dev/null", "expected a file"),
            (&long, "at most 1048576 octets"),
        ] {
            for (place, error) in [
                ("--config", parse(["--config", name])),
                (
                    "DNS_TOOL_CONFIG",
                    with_environment(&[], &[("DNS_TOOL_CONFIG", name)]),
                ),
            ] {
                let error = error.expect_err(name).to_string();
                assert!(
                    error.starts_with(&format!("{place} {name:?}: ")) && error.contains(cause),
                    "{error}"
                );
            }
        }
        let error = parse(["--config", &latin]).expect_err("no UTF-8");
        assert_eq!(error.to_string(), format!("{latin}:2: expected UTF-8"));
    }

    #[test]
    fn variables_that_are_no_option_are_left_alone_and_shown() {
        let environment = [
            ("DNS_TOOL_POTR", "1"),
            ("DNS_TOOL_PORT", "tcp://10.0.0.1:53"),
            ("DNS_TOOL_SERVICE_HOST", "10.0.0.1"),
            ("DNS_TOOL_JSON", "yes"),
            ("DNS_TOOL", "x"),
            ("PATH", "/bin"),
        ];
        let config = serve_with(&["--timeout", "2"], &environment);
        assert_eq!(config.server.port, 53);
        let left_alone: Vec<_> = config.given.left_alone().collect();
        let expected = [
            "DNS_TOOL_POTR",
            "DNS_TOOL_PORT",
            "DNS_TOOL_SERVICE_HOST",
            "DNS_TOOL_JSON",
        ];
        assert_eq!(left_alone, expected);
        let said = config.given.describe();
        for line in [
            "# DNS_TOOL_POTR: unknown, left alone",
            "# DNS_TOOL_PORT: of a Kubernetes Service, left alone",
        ] {
            assert!(said.lines().any(|said| said == line), "{said}");
        }
        let udp = ("DNS_TOOL_PORT", "udp://10.0.0.1:53");
        assert_eq!(serve_with(&["--port", "7"], &[udp]).server.port, 7);
        assert!(with_environment(&[], &[("DNS_TOOL_PORT", "tcp:53")]).is_err());
        assert!(
            with_environment(&[], &[("DNS_TOOL_RESOLVER_ADDR", "tcp://10.0.0.1:53")]).is_err(),
            "of the port alone"
        );
    }

    #[test]
    fn what_is_shown_of_the_settings_is_a_file_that_means_the_same() {
        let own = file(
            "timeout 2.5\nallow 10.0.0.0/8 # ours\nallow ::1\nresolver 192.0.2.1#dns.example\n\
             resolver-pin dns.example=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        );
        let path = path(&own);
        let describe = |arguments: &[&str], environment: &[(&str, &str)]| match with_environment(
            &[arguments, &["--check-config"]].concat(),
            environment,
        ) {
            Ok(Command::Describe(text)) => text,
            other => panic!("{other:?}"),
        };
        let arguments = ["--config", &path, "--port", "5353"];
        let environment = [("DNS_TOOL_SESSIONS", "4")];
        let said = describe(&arguments, &environment);
        for line in [
            format!("# config {path:?} # --config, not in a file"),
            "port 5353 # --port".to_owned(),
            "sessions 4 # DNS_TOOL_SESSIONS".to_owned(),
            format!("timeout 2.5 # {path}:1"),
            format!("allow 10.0.0.0/8 # {path}:2"),
            format!("allow ::1 # {path}:3"),
            "max-pending 8192 # default".to_owned(),
            "resolver-addr 1.1.1.1:853 # default".to_owned(),
            "# address 127.0.0.1 and ::1 # default".to_owned(),
            "# rate-limit 500/1000 # default".to_owned(),
            "# resolver-ca built in # default".to_owned(),
        ] {
            assert!(said.lines().any(|said| said == line), "{line}: {said}");
        }
        assert!(!said.contains("json") && !said.contains("check-config"));
        for (arguments, environment) in [
            (&arguments[..], &environment[..]),
            (&[][..], &[]),
            (
                &[
                    "--rate-limit",
                    "0",
                    "--address",
                    "::1",
                    "--max-clients-per-address",
                    "16",
                ],
                &[("DNS_TOOL_LOG_LEVEL", "debug")],
            ),
        ] {
            let again = file(&describe(arguments, environment));
            let again = serve_with(&["--config", &self::path(&again)], &[]);
            let first = serve_with(arguments, environment);
            let settings = |config: &Config| {
                let Config {
                    server,
                    forwarder,
                    keys,
                    user,
                    log_level,
                    ..
                } = config;
                let upstream: Vec<_> = config
                    .upstream
                    .resolvers
                    .iter()
                    .map(|resolver| {
                        (
                            resolver.addresses.clone(),
                            resolver.identity.name().clone(),
                            resolver.identity.terms().pins.clone(),
                            resolver.identity.terms().pin_mode,
                        )
                    })
                    .collect();
                let numbers = (
                    config.upstream.timeout,
                    config.upstream.sessions,
                    config.upstream.max_pending,
                );
                format!(
                    "{server:?} {forwarder:?} {keys:?} {user:?} {log_level:?} {upstream:?} {numbers:?}"
                )
            };
            assert_eq!(settings(&again), settings(&first));
            let changed = again.given.changed(&first.given);
            assert!(
                changed.iter().all(|name| *name == "--config"),
                "{changed:?}"
            );
        }
    }

    #[test]
    fn a_value_that_no_file_can_say_is_shown_as_a_comment() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let odd = folder.path().join("a #b");
        std::fs::create_dir(&odd).expect("it is writable");
        let odd = odd.to_str().expect("a path in UTF-8");
        let Ok(Command::Describe(said)) = parse(["--check-config", "--state-dir", odd]) else {
            panic!("a folder is fine")
        };
        let line = format!("# state-dir {odd:?} # --state-dir, not in a file");
        assert!(said.lines().any(|said| said == line), "{said}");
    }

    #[test]
    fn what_changed_is_known_by_name() {
        let before = serve(&["--port", "1", "--allow", "::1"]);
        let after = serve(&["--port", "2", "--allow", "::1", "--rate-limit", "500/1000"]);
        assert_eq!(
            after.given.changed(&before.given),
            ["--port", "--rate-limit"],
            "a limit that is given holds for this host, too"
        );
        let same = serve(&["--port", "1", "--allow", "::1", "--timeout", "3"]);
        assert!(same.given.changed(&before.given).is_empty());
    }

    #[test]
    fn settings_are_shown_of_the_daemon_alone() {
        let message = refuse(&["check", "--check-config"]);
        assert_eq!(message, "--check-config: expected without check");
        assert!(refuse(&["--check-config", "--port", "x"]).starts_with("--port \"x\""));
    }
}
