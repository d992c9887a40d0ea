//! Which settings do the options mean?
//!
//! Turns options into typed settings, so that nothing outside this folder reads a text. Whatever is wrong ends in one line
//! that names the option, or the place where it stands, the value and what was expected.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use rustls::pki_types::ServerName;

use crate::cache;
use crate::config::sources::{Given, UsageError};
use crate::config::values::{
    all, decimal, further_resolver, known, named_pin, number, one, prefix, rate, resolver_address,
    seconds, trust_anchors, whole,
};
use crate::forward::policy;
use crate::forward::rate_limit;
use crate::forward::waiting;
use crate::identity::anchors::Anchors;
use crate::identity::pin::Dated;
use crate::identity::pin_file::{Source, resolver_name};
use crate::identity::state_file::Store;
use crate::identity::terms::{PinMode, Terms};
use crate::identity::trust;
use crate::identity::verifier::Identity;
use crate::server;
use crate::system::date::DAY;
use crate::system::memory;
use crate::system::privileges::User;
use crate::telemetry::query_log;
use crate::upstream::{self, Resolver};

/// The one resolver whose addresses are built in.
const DEFAULT_FQDN: &str = "cloudflare-dns.com";
/// How long a query may take, at least.
const LEAST_TIMEOUT: Duration = Duration::from_millis(50);
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

/// The settings of all parts of the daemon.
#[derive(Debug)]
pub struct Config {
    /// Where queries come from.
    pub server: server::settings::Settings,
    /// What messages may hold.
    pub memory: memory::Settings,
    /// What happens to them.
    pub forwarder: policy::Settings,
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

impl Config {
    /// The settings that these options mean.
    pub(super) fn new(given: Given) -> Result<Self, UsageError> {
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
        let forwarder = policy::Settings {
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
        Ok(Self {
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
}

fn server_settings(given: &Given) -> Result<server::settings::Settings, UsageError> {
    Ok(server::settings::Settings {
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

/// The names of the resolvers, the most preferred first, each with its addresses.
fn named_addresses(
    given: &Given,
) -> Result<Vec<(ServerName<'static>, Vec<SocketAddr>)>, UsageError> {
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
    Ok(resolvers)
}

/// Whom queries go to, and whose keys are believed.
fn upstream_settings(
    given: &Given,
    max_pending: usize,
) -> Result<(upstream::Settings, trust::Settings), UsageError> {
    let resolvers = named_addresses(given)?;
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
        timeout: known(given, "--timeout", |text| seconds(text, LEAST_TIMEOUT))?,
        min_silence_timeout: upstream::MIN_SILENCE_TIMEOUT,
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::sources::{Sources, Wanted};

    const PIN: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn read(arguments: &[&str]) -> Result<Config, UsageError> {
        match Sources::new(arguments.iter().copied(), []).read()? {
            Wanted::Options(given) => Config::new(given),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn serve(arguments: &[&str]) -> Config {
        read(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
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
    fn a_new_key_is_seen_for_at_most_366_days() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("a path in UTF-8");
        let most = serve(&["--state-dir", path, "--pin-rollover", "366.0"]);
        let most = most.keys.rollover.expect("some days");
        assert_eq!(most, Duration::from_secs(366 * 86_400));
        let error = read(&["--state-dir", path, "--pin-rollover", "366.000000001"]);
        let error = error.expect_err("too many days").to_string();
        assert!(error.contains("at most 366"), "{error}");
    }
}
