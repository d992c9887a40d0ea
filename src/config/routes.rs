//! Which zones have a route, and where does it lead?
//!
//! Turns the values of `--route` into settings. Several values of one zone are the addresses of one upstream, in order.

use rustls::pki_types::ServerName;

use crate::config::sources::{OptionValues, UsageError};
use crate::config::values::{is_own_network, parse_host_address, parse_named_resolver, parse_zone};
use crate::forward::routes::{CLEARTEXT_PREFIX, Destination, MAX_UPSTREAMS, Settings, ZoneRoute};
use crate::message::presentation::Name;
use crate::system::scoped_address::ScopedAddress;
use crate::upstream::{self, Resolver, Security};

/// The option.
pub(super) const OPTION: &str = "--route";
/// The port of DNS (RFC 7766).
const DNS_PORT: u16 = 53;
/// Zones with a route, at most.
const MAX_ZONES: usize = 256;

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// To a resolver of that name, by TLS.
    Tls(ScopedAddress, ServerName<'static>),
    /// To a server of the own network, in cleartext.
    Cleartext(ScopedAddress),
    /// Nowhere.
    NameError,
    /// To the main resolver.
    Main,
}

/// The targets of one zone, in order.
#[derive(Debug)]
pub(super) struct ZoneTargets {
    zone: Name,
    targets: Vec<Target>,
    /// The first value of the option for the zone.
    text: String,
}

/// Reads all routes.
pub(super) fn read_targets(options: &OptionValues) -> Result<Vec<ZoneTargets>, UsageError> {
    let mut zones: Vec<ZoneTargets> = Vec::new();
    options.try_for_each_value(OPTION, &mut |text| {
        let (zone, target) = parse(text)?;
        if let Some(known) = zones.iter_mut().find(|known| known.zone == zone) {
            return known.add(target);
        }
        if zones.len() == MAX_ZONES {
            return Err(format!("expected routes for {MAX_ZONES} zones at most"));
        }
        zones.push(ZoneTargets {
            zone,
            targets: vec![target],
            text: text.to_owned(),
        });
        Ok(())
    })?;
    Ok(zones)
}

/// Whether a value of the option leads to this address.
pub(super) fn names_address(text: &str, address: ScopedAddress) -> bool {
    match parse(text) {
        Ok((_, Target::Tls(target, _) | Target::Cleartext(target))) => target == address,
        _ => false,
    }
}

/// Parses `ZONE=TARGET`.
fn parse(text: &str) -> Result<(Name, Target), String> {
    let (zone, target) = text
        .split_once('=')
        .ok_or("expected ZONE=TARGET such as corp.example=192.0.2.1#dns.corp.example")?;
    let zone = parse_zone(zone)?;
    Ok((zone, parse_target(target)?))
}

fn parse_target(text: &str) -> Result<Target, String> {
    if let Some(address) = text.strip_prefix(CLEARTEXT_PREFIX) {
        let address = parse_host_address(address, DNS_PORT)?;
        return match is_own_network(address.ip()) {
            true => Ok(Target::Cleartext(address)),
            false => Err(
                "expected a loopback, private, link-local, shared or unique-local address: on the way to a public \
                 address, others can read and change cleartext"
                    .to_owned(),
            ),
        };
    }
    match text {
        "nxdomain" => Ok(Target::NameError),
        "relay" => Ok(Target::Main),
        _ if text.contains('#') => {
            let (address, name) = parse_named_resolver(text)?;
            Ok(Target::Tls(address, name))
        }
        _ => Err(
            "expected IP#NAME or IP:PORT#NAME for DNS over TLS, tcp://IP or tcp://IP:PORT for cleartext, nxdomain, \
             or relay"
                .to_owned(),
        ),
    }
}

impl ZoneTargets {
    /// Adds a further target. Fails if all targets together make no sense.
    fn add(&mut self, target: Target) -> Result<(), String> {
        let zone = &self.zone;
        if self.targets.contains(&target) {
            return Err(format!("expected each target of {zone} once"));
        }
        let all_tls = |target: &Target| matches!(target, Target::Tls(..));
        let all_cleartext = |target: &Target| matches!(target, Target::Cleartext(_));
        self.targets.push(target);
        let is_one_kind =
            self.targets.iter().all(all_tls) || self.targets.iter().all(all_cleartext);
        match is_one_kind {
            true => Ok(()),
            false => Err(format!(
                "expected all targets of {zone} to be of one kind, and nxdomain or relay alone"
            )),
        }
    }

    /// The names of resolvers.
    fn names(&self) -> impl Iterator<Item = &ServerName<'static>> {
        self.targets.iter().filter_map(|target| match target {
            Target::Tls(_, name) => Some(name),
            _ => None,
        })
    }

    /// The resolvers; addresses of one name in a row are one resolver. `security` is that of TLS with a resolver.
    fn resolvers(&self, security: &dyn Fn(&ServerName<'static>) -> Security) -> Vec<Resolver> {
        let mut resolvers: Vec<(Option<&ServerName<'static>>, Resolver)> = Vec::new();
        for target in &self.targets {
            let (address, name) = match target {
                Target::Tls(address, name) => (*address, Some(name)),
                Target::Cleartext(address) => (*address, None),
                Target::NameError | Target::Main => continue,
            };
            match resolvers.last_mut() {
                Some((known, resolver)) if *known == name => resolver.addresses.push(address),
                _ => {
                    let resolver = Resolver {
                        addresses: vec![address],
                        security: name.map_or(Security::Cleartext, security),
                    };
                    resolvers.push((name, resolver));
                }
            }
        }
        resolvers
            .into_iter()
            .map(|(_, resolver)| resolver)
            .collect()
    }
}

/// The names of all resolvers of routes, each once.
pub(super) fn resolver_names(zones: &[ZoneTargets]) -> Vec<ServerName<'static>> {
    let mut names = Vec::new();
    for name in zones.iter().flat_map(ZoneTargets::names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// The settings of all routes. Zones with the same targets share an upstream. The upstreams are as `template` says, but for their resolvers
/// and their number of queries in flight: `max_pending` is for all of them together.
pub(super) fn settings(
    options: &OptionValues,
    zones: Vec<ZoneTargets>,
    template: &upstream::Settings,
    max_pending: usize,
    security: &dyn Fn(&ServerName<'static>) -> Security,
) -> Result<Settings, UsageError> {
    let mut settings = Settings::default();
    let mut known: Vec<Vec<Target>> = Vec::new();
    for zone in zones {
        let destination = match zone.targets[..] {
            [Target::NameError] => Destination::NameError,
            [Target::Main] => Destination::Main,
            _ => {
                let number = known.iter().position(|targets| *targets == zone.targets);
                Destination::Route(number.unwrap_or_else(|| {
                    settings.upstreams.push(upstream::Settings {
                        resolvers: zone.resolvers(security),
                        is_main: false,
                        ..template.clone()
                    });
                    known.push(zone.targets.clone());
                    known.len() - 1
                }))
            }
        };
        if settings.upstreams.len() > MAX_UPSTREAMS {
            let cause = format!("expected {MAX_UPSTREAMS} different resolvers or servers at most");
            return Err(options.error_for(OPTION, &zone.text, &cause));
        }
        let targets = zone.targets.iter().map(Target::to_string).collect();
        let is_cleartext = |target: &Target| matches!(target, Target::Cleartext(_));
        settings.zones.push(ZoneRoute {
            zone: zone.zone,
            destination,
            is_cleartext: zone.targets.iter().any(is_cleartext),
            targets,
        });
    }
    let count = settings.upstreams.len();
    for upstream in &mut settings.upstreams {
        upstream.max_pending = (max_pending / count).max(1);
    }
    Ok(settings)
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(address, name) => write!(f, "{address}#{}", name.to_str()),
            Self::Cleartext(address) => write!(f, "{CLEARTEXT_PREFIX}{address}"),
            Self::NameError => f.write_str("nxdomain"),
            Self::Main => f.write_str("relay"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_resolver_a_server_of_the_own_network_nxdomain_or_relay() {
        for (text, shown) in [
            (
                "corp.example=192.0.2.1#DNS.example.",
                "192.0.2.1:853#dns.example",
            ),
            (
                "Corp.Example.=[2001:db8::1]:8853#dns.example",
                "[2001:db8::1]:8853#dns.example",
            ),
            ("corp.example=tcp://10.0.0.1", "tcp://10.0.0.1:53"),
            ("corp.example=tcp://127.0.0.1:5300", "tcp://127.0.0.1:5300"),
            ("corp.example=tcp://169.254.1.1", "tcp://169.254.1.1:53"),
            ("corp.example=tcp://100.64.0.1", "tcp://100.64.0.1:53"),
            ("corp.example=tcp://fd00::1", "tcp://[fd00::1]:53"),
            ("corp.example=tcp://[::1]:54", "tcp://[::1]:54"),
            (
                "corp.example=tcp://fe80::1%br-lan",
                "tcp://[fe80::1%br-lan]:53",
            ),
            (
                "corp.example=[fe80::1%br-lan]:8853#dns.example",
                "[fe80::1%br-lan]:8853#dns.example",
            ),
            ("corp.example=nxdomain", "nxdomain"),
            ("corp.example=relay", "relay"),
        ] {
            let (zone, target) = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(zone.to_string(), "corp.example.", "{text}");
            assert_eq!(target.to_string(), shown);
        }
    }

    #[test]
    fn a_wrong_route_names_what_was_expected() {
        for (text, expected) in [
            ("corp.example", "expected ZONE=TARGET"),
            ("=nxdomain", "an empty label"),
            ("corp..example=nxdomain", "an empty label"),
            (".=192.0.2.1#dns.example", "a zone below the root"),
            (".=tcp://10.0.0.1", "a zone below the root"),
            ("corp.example=", "expected IP#NAME"),
            ("corp.example=10.0.0.1", "expected IP#NAME"),
            ("corp.example=NXDOMAIN", "expected IP#NAME"),
            ("corp.example=udp://10.0.0.1", "expected IP#NAME"),
            ("corp.example=tcp://192.0.2.1", "read and change cleartext"),
            ("corp.example=tcp://172.32.0.1", "read and change cleartext"),
            (
                "corp.example=tcp://2001:db8::1",
                "read and change cleartext",
            ),
            ("corp.example=tcp://::ffff:10.0.0.1", "read and change"),
            ("corp.example=tcp://0.0.0.0", "the address of one host"),
            ("corp.example=tcp://10.0.0.1:0", "a port from 1"),
            ("corp.example=tcp://router", "an address such as"),
            ("corp.example=tcp://fe80::1", "interface"),
            ("corp.example=tcp://fe80::1%a%b", "interface"),
            ("corp.example=192.0.2.1:53#dns.example", "another port"),
            ("corp.example=192.0.2.1#no..name", "a host name"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
