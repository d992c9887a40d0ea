//! Which settings do the options mean?
//!
//! Turns options into typed settings, so that nothing outside this folder parses text. An error is one line that names the option
//! or the place of its value, the value, and what was expected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use rustls::pki_types::ServerName;

use crate::cache;
use crate::config::listeners::{listening_addresses, monitor_address};
use crate::config::options::DEFAULT_RESOLVER_ADDRESSES;
use crate::config::routes::{self as route_options, ZoneTargets};
use crate::config::sources::{OptionValues, UsageError};
use crate::config::values::{
    integer_value, option_values, optional_value, parse_decimal_seconds, parse_integer,
    parse_named_pin, parse_named_resolver, parse_prefix, parse_resolver_address, parse_seconds,
    parse_zone, rate, read_trust_anchors, required_value,
};
use crate::forward::policy;
use crate::forward::quota;
use crate::forward::rate_limit;
use crate::forward::rebinding::RebindProtection;
use crate::forward::routes;
use crate::identity::anchors::TrustAnchors;
use crate::identity::key_exchange::KeyExchange;
use crate::identity::pin::PinEntry;
use crate::identity::pin_file::{PinSource, resolver_name};
use crate::identity::state_file::StateFile;
use crate::identity::trust;
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::{PinMode, VerifyPolicy};
use crate::local::hosts_reader::Hosts;
use crate::server;
use crate::system::date::DAY;
use crate::system::memory;
use crate::system::privileges::User;
use crate::system::scoped_address::ScopedAddress;
use crate::telemetry::query_log;
use crate::upstream::{self, Resolver, Security};

/// The only resolver whose addresses are built in.
const DEFAULT_FQDN: &str = "cloudflare-dns.com";
/// Minimum of `--timeout`.
const MIN_TIMEOUT: Duration = Duration::from_millis(50);
/// Minimum of `--slo-latency`.
const MIN_SLO_LATENCY: Duration = Duration::from_millis(1);
/// Minimum of `--cache-size` in octets, other than 0.
const MIN_CACHE_SIZE: usize = 64 * 1024;
/// When this was built, in seconds since 1970. A clock that shows an earlier time is wrong.
const BUILD_TIME: &str = env!("BUILT_AT");
/// Maximum of `--pin-rollover` in days.
const MAX_ROLLOVER_DAYS: u64 = 366;
/// Queries in flight to the upstreams of all routes, at most, and the octets of `--max-memory` for each: half of a client's queries at most,
/// and a quarter of the queries that there is memory for. So names elsewhere have room while a route is silent.
const MAX_PENDING_OF_ROUTES: usize = 2048;
const OCTETS_PER_PENDING_OF_ROUTES: usize = 16 * 1024;
/// Maximum of `--serve-stale` in seconds: a week.
const MAX_STALE_SECONDS: usize = 604_800;

/// Zones of `--rebind-allow`, at most.
const MAX_REBIND_ZONES: usize = 256;

/// The settings of all parts of the daemon.
#[derive(Debug)]
pub struct Config {
    /// The listeners.
    pub server: server::settings::Settings,
    /// The limits of memory for messages.
    pub memory: memory::Settings,
    /// What happens to queries: limits, cache and query log.
    pub forwarder: policy::Settings,
    /// The main resolvers, and the sessions to them.
    pub upstream: upstream::Settings,
    /// The zones that have a route, and the resolvers and servers of the routes.
    pub routes: routes::Settings,
    /// Which keys of the resolvers are accepted, and how that changes.
    pub trust: trust::Settings,
    /// The hosts files and their names.
    pub hosts: Hosts,
    /// The address of the monitoring port, if there is one.
    pub monitor: Option<ScopedAddress>,
    /// The user to become once the sockets are bound.
    pub user: Option<User>,
    /// The level of the log.
    pub log_level: LevelFilter,
    /// The options that these settings come from.
    pub options: OptionValues,
}

impl Config {
    /// All resolvers and servers that may be asked: the main ones, then those of routes.
    pub fn resolvers(&self) -> impl Iterator<Item = &Resolver> {
        let upstreams = std::iter::once(&self.upstream).chain(&self.routes.upstreams);
        upstreams.flat_map(|upstream| &upstream.resolvers)
    }

    /// The addresses of the main resolvers that the user has not named.
    pub fn built_in_addresses(&self) -> Vec<ScopedAddress> {
        let options = &self.options;
        let mut addresses = match options.is_set("--resolver-addr") {
            true => Vec::new(),
            false => option_values(options, "--resolver-addr", parse_resolver_address)
                .unwrap_or_default(),
        };
        let named = option_values(options, "--resolver", parse_named_resolver).unwrap_or_default();
        addresses.retain(|address| named.iter().all(|(named, _)| named != address));
        addresses
    }

    /// The trust anchors of all resolvers.
    pub fn trust_anchors(&self) -> Option<&TrustAnchors> {
        let mut identities = self
            .resolvers()
            .filter_map(|resolver| resolver.security.identity());
        identities.next().map(|identity| &identity.policy().anchors)
    }

    /// The error for the value of an option that names this resolver or server, with its place.
    pub fn error_for_address(&self, address: ScopedAddress, cause: &str) -> UsageError {
        type Names = fn(&str, ScopedAddress) -> bool;
        let options: [(&str, Names); 3] = [
            (route_options::OPTION, route_options::names_address),
            ("--resolver", |text, address| {
                parse_named_resolver(text).is_ok_and(|(named, _)| named == address)
            }),
            ("--resolver-addr", |text, address| {
                parse_resolver_address(text) == Ok(address)
            }),
        ];
        let mut errors = options.into_iter().filter_map(|(option, names)| {
            let mut refuse = |text: &str| match names(text, address) {
                true => Err(cause.to_owned()),
                false => Ok(()),
            };
            self.options.try_for_each_value(option, &mut refuse).err()
        });
        let elsewhere = || UsageError(format!("resolver {address}: {cause}"));
        errors.next().unwrap_or_else(elsewhere)
    }

    /// Turns options into settings. Reads the files that they name.
    pub(super) fn new(options: OptionValues) -> Result<Self, UsageError> {
        let max_pending = integer_value(&options, "--max-pending", 1..=1_000_000)?;
        let server = server_settings(&options)?;
        let memory = memory_settings(&options, server.max_clients)?;
        let zones = route_options::read_targets(&options)?;
        let (upstream, trust, security) = upstream_settings(&options, &zones, max_pending)?;
        let max_pending_of_routes = MAX_PENDING_OF_ROUTES
            .min(memory.limit / OCTETS_PER_PENDING_OF_ROUTES)
            .min(max_pending / 2);
        let routes =
            route_options::settings(&options, zones, &upstream, max_pending_of_routes, &security)?;
        let budget = integer_value(&options, "--upstream-rate-limit", 0..=1_000_000)?;
        let hosts = hosts(&options)?;
        let forwarder = policy::Settings {
            timeout: upstream.timeout,
            slo_latency: required_value(&options, "--slo-latency", |text| {
                parse_seconds(text, MIN_SLO_LATENCY)
            })?,
            max_pending,
            hosts: Arc::clone(&hosts.table),
            answer_special_names: required_value(&options, "--special-names", |text| match text {
                "answer" => Ok(true),
                "relay" => Ok(false),
                _ => Err("expected answer or relay".to_owned()),
            })?,
            rebind_protection: rebind_protection(&options)?,
            cache: cache_settings(&options)?,
            limit: limit_settings(&options)?,
            upstream_rate_limit: rate(budget, budget),
            query_log: query_log_mode(&options)?,
        };
        let monitor = monitor_address(&options, &server)?;
        let user = optional_value(&options, "--user", |text| {
            let user = User::find(text).filter(|user| !user.is_root());
            user.ok_or_else(|| {
                "expected the name or number of a user that is not root, and was there at the start"
                    .to_owned()
            })
        })?;
        Ok(Self {
            memory,
            server,
            forwarder,
            upstream,
            routes,
            trust,
            hosts,
            monitor,
            user,
            log_level: log_level(&options)?,
            options,
        })
    }
}

fn log_level(options: &OptionValues) -> Result<LevelFilter, UsageError> {
    required_value(options, "--log-level", |text| match text.parse() {
        Ok(LevelFilter::Off) | Err(_) => {
            Err("expected error, warn, info, debug or trace".to_owned())
        }
        Ok(level) => Ok(level),
    })
}

fn query_log_mode(options: &OptionValues) -> Result<query_log::Mode, UsageError> {
    let log = options.flag("--query-log")?;
    let log_clients = options.flag("--query-log-clients")?;
    Ok(match (log, log_clients) {
        (false, false) => query_log::Mode::Off,
        (true, false) => query_log::Mode::Prefixes,
        (_, true) => query_log::Mode::Clients,
    })
}

fn server_settings(options: &OptionValues) -> Result<server::settings::Settings, UsageError> {
    let port = required_value(options, "--port", |text| {
        text.parse()
            .map_err(|_| "expected a whole number from 0 to 65535".to_owned())
    })?;
    let reuse_port = options.flag("--reuse-port")?;
    // Otherwise the sockets share the port, or each has one of its own.
    let is_exclusive = port != 0 && !reuse_port;
    Ok(server::settings::Settings {
        addresses: listening_addresses(options, is_exclusive)?,
        addresses_optional: !options.is_set("--address"),
        port,
        reuse_port,
        max_clients: integer_value(options, "--max-clients", 1..=65_536)?,
        max_clients_per_address: integer_value(options, "--max-clients-per-address", 1..=65_536)?,
        limit_loopback: options.is_set("--max-clients-per-address"),
    })
}

/// The names of the resolvers, most preferred first, each with its addresses.
fn named_addresses(
    options: &OptionValues,
) -> Result<Vec<(ServerName<'static>, Vec<ScopedAddress>)>, UsageError> {
    let elsewhere = options.is_set("--resolver-addr");
    let fqdn = required_value(options, "--resolver-fqdn", |text| {
        let name = resolver_name(text)?;
        match elsewhere || name == resolver_name(DEFAULT_FQDN)? {
            true => Ok(name),
            false => Err(format!(
                "expected a --resolver-addr with it, since only {DEFAULT_FQDN}'s addresses are built in"
            )),
        }
    })?;
    let addresses = option_values(options, "--resolver-addr", parse_resolver_address)?;
    if !options.is_set("--resolver-fqdn") {
        refuse_other_addresses(options)?;
    }
    let mut resolvers = vec![(fqdn, addresses)];
    for (address, name) in option_values(options, "--resolver", parse_named_resolver)? {
        match resolvers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, addresses)) => addresses.push(address),
            None => resolvers.push((name, vec![address])),
        }
    }
    for (_, addresses) in &mut resolvers {
        for index in (1..addresses.len()).rev() {
            // A duplicate would be tried twice, and counted as two addresses.
            if addresses[..index].contains(&addresses[index]) {
                addresses.remove(index);
            }
        }
    }
    Ok(resolvers)
}

/// Fails with an address of `--resolver-addr` that is not built in: the default name is not that of the resolver there.
fn refuse_other_addresses(options: &OptionValues) -> Result<(), UsageError> {
    options.try_for_each_value("--resolver-addr", &mut |text| {
        let address = parse_resolver_address(text)?;
        let mut built_in = DEFAULT_RESOLVER_ADDRESSES.iter();
        match built_in.any(|known| parse_resolver_address(known) == Ok(address)) {
            true => Ok(()),
            false => Err(format!(
                "expected a --resolver-fqdn with it, the name in the certificate of the resolver there; only the addresses \
                 of {DEFAULT_FQDN} are built in"
            )),
        }
    })
}

/// The main resolvers and their sessions, which keys of all resolvers are accepted, and the security of TLS with any of them.
fn upstream_settings(
    options: &OptionValues,
    zones: &[ZoneTargets],
    max_pending: usize,
) -> Result<
    (
        upstream::Settings,
        trust::Settings,
        impl Fn(&ServerName<'static>) -> Security + use<>,
    ),
    UsageError,
> {
    let resolvers = named_addresses(options)?;
    let mut names: Vec<_> = resolvers.iter().map(|(name, _)| name.clone()).collect();
    for name in route_options::resolver_names(zones) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let trust = trust_settings(options, names)?;
    let (pin_mode, key_exchange) = (pin_mode(options)?, key_exchange(options)?);
    let anchors = optional_value(options, "--resolver-ca", read_trust_anchors)?
        .unwrap_or_else(TrustAnchors::built_in);
    let build_time = BUILD_TIME.parse().unwrap_or(0);
    let clock_floor = trust
        .state
        .last_trusted_time
        .map_or(build_time, |time| time.max(build_time));
    let pins = trust.clone();
    let security = move |name: &ServerName<'static>| {
        Security::Tls(Identity::new(VerifyPolicy {
            pins: pins.accepted_pins(&pins.pins, &pins.state, name),
            name: name.clone(),
            anchors: anchors.clone(),
            pin_mode,
            key_exchange,
            clock_floor,
        }))
    };
    let resolvers = resolvers.into_iter().map(|(name, addresses)| Resolver {
        addresses,
        security: security(&name),
    });
    let settings = upstream::Settings {
        resolvers: resolvers.collect(),
        timeout: required_value(options, "--timeout", |text| {
            parse_seconds(text, MIN_TIMEOUT)
        })?,
        is_main: true,
        min_silence_timeout: upstream::MIN_SILENCE_TIMEOUT,
        sessions: integer_value(options, "--sessions", 1..=16)?,
        // The queries that all clients may wait for, and as many again as one client may: a prefetch has no client that waits,
        // nor has a query whose clients got a stale answer.
        max_pending: (quota::ALL_CLIENTS + 1) * max_pending,
    };
    Ok((settings, trust, security))
}

fn pin_mode(options: &OptionValues) -> Result<PinMode, UsageError> {
    required_value(options, "--pin-mode", |text| match text {
        "strict" => Ok(PinMode::Strict),
        "report" => Ok(PinMode::Report),
        _ => Err("expected strict or report".to_owned()),
    })
}

fn key_exchange(options: &OptionValues) -> Result<KeyExchange, UsageError> {
    required_value(options, "--key-exchange", |text| match text {
        "prefer" => Ok(KeyExchange::Prefer),
        "require" => Ok(KeyExchange::Require),
        "classical" => Ok(KeyExchange::Classical),
        _ => Err("expected prefer, require or classical".to_owned()),
    })
}

/// The pins of these resolvers, and how they change. A pin without a name belongs to the first resolver.
fn trust_settings(
    options: &OptionValues,
    names: Vec<ServerName<'static>>,
) -> Result<trust::Settings, UsageError> {
    let fixed = option_values(options, "--resolver-pin", |text| {
        let (name, pin) = parse_named_pin(text)?;
        match name {
            Some(name) if !names.contains(&name) => Err(
                "expected the name of a --resolver or --route, or the --resolver-fqdn".to_owned(),
            ),
            name => Ok((
                name.unwrap_or_else(|| names[0].clone()),
                PinEntry::from(pin),
            )),
        }
    })?;
    let mut source = PinSource {
        names,
        from_options: fixed,
        file: None,
    };
    let mut pins = source.from_options.iter().cloned().collect();
    options.try_for_each_value("--pins", &mut |text| {
        source.file = Some(PathBuf::from(text));
        pins = source.read().map_err(|error| error.to_string())?;
        Ok(())
    })?;
    let opened_state = optional_value(options, "--state-dir", |text| {
        let (_, state) = StateFile::open(Path::new(text)).map_err(|error| error.to_string())?;
        Ok((PathBuf::from(text), state))
    })?;
    let rollover = optional_value(options, "--pin-rollover", |text| {
        let max = Duration::from_secs(MAX_ROLLOVER_DAYS);
        let days = parse_decimal_seconds(text).filter(|days| !days.is_zero() && *days <= max);
        let expected =
            || format!("expected days, more than 0 and at most {MAX_ROLLOVER_DAYS}, such as 7");
        if opened_state.is_none() {
            return Err("expected a --state-dir with it, where what is learnt is kept".to_owned());
        }
        days.map(|days| days * DAY as u32).ok_or_else(expected)
    })?;
    let (directory, state) = opened_state.unzip();
    Ok(trust::Settings {
        source,
        pins,
        state_dir: directory,
        state: state.unwrap_or_default(),
        rollover,
    })
}

/// The hosts files and their names.
fn hosts(options: &OptionValues) -> Result<Hosts, UsageError> {
    let files = option_values(options, "--hosts", |text| Ok(PathBuf::from(text)))?;
    Hosts::read(files).map_err(|error| {
        let file = error.file.to_string_lossy();
        options.error_for("--hosts", &file, &error.cause)
    })
}

fn limit_settings(options: &OptionValues) -> Result<rate_limit::Settings, UsageError> {
    Ok(rate_limit::Settings {
        allow: option_values(options, "--allow", parse_prefix)?,
        limit_loopback: options.is_set("--rate-limit"),
        rate: required_value(options, "--rate-limit", |text| {
            const EXPECTED: &str =
                "expected queries a second and, after a slash, at once, such as 500/1000, or 0";
            let number =
                |text| parse_integer(text, &(0..=1_000_000)).map_err(|_| EXPECTED.to_owned());
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

/// Reads the zones even if they are of no use, so that a wrong one is found before the protection is turned on.
fn rebind_protection(options: &OptionValues) -> Result<Option<RebindProtection>, UsageError> {
    let mut allowed = Vec::new();
    options.try_for_each_value("--rebind-allow", &mut |text| {
        if allowed.len() >= MAX_REBIND_ZONES {
            return Err(format!("expected at most {MAX_REBIND_ZONES} zones"));
        }
        allowed.push(parse_zone(text)?);
        Ok(())
    })?;
    let is_on = options.flag("--rebind-protection")?;
    Ok(is_on.then(|| RebindProtection::new(&allowed)))
}

fn cache_settings(options: &OptionValues) -> Result<cache::Settings, UsageError> {
    let stale = integer_value(options, "--serve-stale", 0..=MAX_STALE_SECONDS)?;
    Ok(cache::Settings {
        size: required_value(options, "--cache-size", |text| match text.parse() {
            Ok(size) if size == 0 || size >= MIN_CACHE_SIZE => Ok(size),
            _ => Err(format!(
                "expected 0, or a whole number of bytes from {MIN_CACHE_SIZE}"
            )),
        })?,
        serve_stale: Duration::from_secs(stale as u64),
    })
}

/// Without `--max-memory`, the limit has room for all connections that the options allow.
fn memory_settings(
    options: &OptionValues,
    connections: usize,
) -> Result<memory::Settings, UsageError> {
    let min = memory::MIN_LIMIT;
    let limit = optional_value(options, "--max-memory", |text| match text.parse() {
        Ok(limit) if limit >= min => Ok(limit),
        _ => Err(format!("expected a whole number of bytes from {min}")),
    })?;
    let limit = limit.unwrap_or_else(|| memory::Settings::default_limit(connections));
    Ok(memory::Settings { limit, connections })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::{OptionSources, ParsedCommand};
    use crate::system::scoped_address::ScopedIp;

    const PIN: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn read(arguments: &[&str]) -> Result<Config, UsageError> {
        match OptionSources::new(arguments.iter().copied(), []).read()? {
            ParsedCommand::Options(options) => Config::new(options),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn serve(arguments: &[&str]) -> Config {
        read(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    #[test]
    fn without_options_the_defaults_apply() {
        let config = serve(&[]);
        assert_eq!(
            config.server.addresses,
            ["127.0.0.1", "::1"].map(|ip| ip.parse::<ScopedIp>().expect("an address"))
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
        assert_eq!(
            resolver.security.identity().expect("TLS").name().to_str(),
            "cloudflare-dns.com"
        );
        assert_eq!(resolver.addresses.len(), 4);
        assert!(
            resolver
                .addresses
                .iter()
                .all(|address| address.port() == 853)
        );
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
    fn addresses_are_listened_on_once_and_a_wildcard_has_its_family() {
        for (arguments, expected) in [
            (
                &["--address=::1", "--address=127.0.0.1", "--address=0::1"][..],
                &["::1", "127.0.0.1"][..],
            ),
            (&["--address=::", "--address=0.0.0.0"], &["::", "0.0.0.0"]),
            (
                &["--address=::", "--address=127.0.0.1"],
                &["::", "127.0.0.1"],
            ),
            // Each has a port of its own, or all share one.
            (
                &["--address=::", "--address=::1", "--port=0"],
                &["::", "::1"],
            ),
            (
                &["--address=::", "--address=::1", "--reuse-port"],
                &["::", "::1"],
            ),
            (&["--monitor=127.0.0.2:53"], &["127.0.0.1", "::1"]),
            (
                &["--monitor=127.0.0.1:0", "--port=0"],
                &["127.0.0.1", "::1"],
            ),
        ] {
            let addresses = serve(arguments).server.addresses;
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(addresses, expected, "{arguments:?}");
        }
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
                    resolver
                        .security
                        .identity()
                        .expect("TLS")
                        .name()
                        .to_str()
                        .into_owned(),
                    resolver.addresses.clone(),
                )
            })
            .collect();
        let address = |text: &str| text.parse::<ScopedAddress>().expect("an address");
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
            .map(|resolver| {
                !resolver
                    .security
                    .identity()
                    .expect("TLS")
                    .policy()
                    .pins
                    .is_empty()
            })
            .collect();
        assert_eq!(pinned, [false, true, true]);
    }

    #[test]
    fn a_link_local_address_keeps_its_zone() {
        let config = serve(&[
            "--address=fe80::1%not-there",
            "--monitor=[fe80::1%lo]:9853",
            "--resolver-fqdn=a.example",
            "--resolver-addr=fe80::1%eth0",
            "--resolver-addr=[fe80::1%eth1]:8853",
            // The same one again.
            "--resolver-addr=[fe80::1%eth0]:853",
            "--resolver=[fe80::2%br-lan]:8853#b.example",
            "--resolver=fe80::2%3#b.example",
        ]);
        let texts = |resolver: &Resolver| -> Vec<_> {
            resolver.addresses.iter().map(ToString::to_string).collect()
        };
        let found: Vec<_> = config.upstream.resolvers.iter().map(texts).collect();
        assert_eq!(
            found,
            [
                ["[fe80::1%eth0]:853", "[fe80::1%eth1]:8853"],
                ["[fe80::2%br-lan]:8853", "[fe80::2%3]:853"]
            ]
        );
        assert_eq!(config.server.addresses[0].to_string(), "fe80::1%not-there");
        let monitor = config.monitor.expect("a monitoring port");
        assert_eq!(monitor.to_string(), "[fe80::1%lo]:9853");
    }

    #[test]
    fn a_duplicate_address_is_dropped_within_one_name_only() {
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
            let address_texts = |resolver: &Resolver| -> Vec<_> {
                resolver.addresses.iter().map(ToString::to_string).collect()
            };
            let found: Vec<_> = resolvers.iter().map(address_texts).collect();
            assert_eq!(found, addresses, "{arguments:?}");
        }
    }

    #[test]
    fn an_address_that_is_named_is_not_a_built_in_one() {
        let count = |arguments: &[&str]| serve(arguments).built_in_addresses().len();
        assert_eq!(count(&[]), 4);
        assert_eq!(count(&["--resolver=192.0.2.1#a.example"]), 4);
        assert_eq!(count(&["--resolver=1.0.0.1#cloudflare-dns.com"]), 3);
        assert_eq!(count(&["--resolver-addr=1.1.1.1"]), 0);
    }

    #[test]
    fn built_in_addresses_need_no_name_and_others_do() {
        let config = serve(&["--resolver-addr", "[2606:4700:4700:0::1111]:853"]);
        let [resolver] = &config.upstream.resolvers[..] else {
            panic!("one resolver")
        };
        assert_eq!(resolver.addresses.len(), 1);
        assert_eq!(resolver.security.name(), "cloudflare-dns.com");
        serve(&[
            "--resolver-addr=192.0.2.1",
            "--resolver-fqdn=cloudflare-dns.com",
        ]);
        // A name elsewhere is not its name.
        let other = "--resolver=192.0.2.2#dns.example";
        read(&["--resolver-addr=192.0.2.1", other]).expect_err("no name");
    }

    #[test]
    fn a_pin_without_a_name_belongs_to_the_first_resolver() {
        for pin in [
            PIN.to_owned(),
            format!("sha256/{PIN}"),
            format!("sha256//{PIN}"),
            format!("pin-sha256=\"{PIN}\""),
        ] {
            let config = serve(&["--resolver-pin", &pin]);
            assert_eq!(
                config.upstream.resolvers[0]
                    .security
                    .identity()
                    .expect("TLS")
                    .policy()
                    .pins
                    .to_string(),
                format!("sha256/{PIN}"),
                "{pin}"
            );
        }
    }

    #[test]
    fn a_new_key_is_seen_for_at_most_366_days() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a path in UTF-8");
        let most = serve(&["--state-dir", path, "--pin-rollover", "366.0"]);
        let most = most.trust.rollover.expect("some days");
        assert_eq!(most, Duration::from_secs(366 * 86_400));
        let error = read(&["--state-dir", path, "--pin-rollover", "366.000000001"]);
        let error = error.expect_err("too many days").to_string();
        assert!(error.contains("at most 366"), "{error}");
    }
}
