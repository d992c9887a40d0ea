//! Which built-in addresses are not checked?
//!
//! Nobody chose them, so on a host without IPv6 those of IPv6 are no fault.

use std::net::IpAddr;

use crate::command::check_report::Report;
use crate::system::scoped_address::ScopedAddress;
use crate::upstream::Resolver;

/// The resolvers without the built-in addresses to which this host has no route. Reports these in one line.
pub(super) fn leave_out(
    resolvers: &[Resolver],
    built_in: &[ScopedAddress],
    report: &mut Report,
) -> Vec<Resolver> {
    let without_route = without_route(resolvers, built_in, &ScopedAddress::has_route);
    if !without_route.is_empty() {
        let families = families(&without_route);
        let addresses: Vec<_> = without_route.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let text = format_args!("left out, as this host has no route to {families}: {addresses}");
        report.add("built-in addresses", text);
    }
    let mut resolvers = resolvers.to_vec();
    for resolver in &mut resolvers {
        let addresses = &mut resolver.addresses;
        addresses.retain(|address| !without_route.contains(address));
    }
    resolvers
}

/// Those of the built-in addresses to which there is no route; none of them if that would leave no address at all.
fn without_route(
    resolvers: &[Resolver],
    built_in: &[ScopedAddress],
    has_route: &dyn Fn(&ScopedAddress) -> bool,
) -> Vec<ScopedAddress> {
    let without_route = built_in.iter().filter(|address| !has_route(address));
    let without_route: Vec<_> = without_route.copied().collect();
    let mut addresses = resolvers.iter().flat_map(|resolver| &resolver.addresses);
    match addresses.all(|address| without_route.contains(address)) {
        true => Vec::new(),
        false => without_route,
    }
}

/// The family of an address.
pub(super) fn family(address: &ScopedAddress) -> &'static str {
    match address.ip() {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// The families of these addresses.
fn families(addresses: &[ScopedAddress]) -> &'static str {
    match addresses {
        [first, others @ ..] if others.iter().all(|other| family(other) == family(first)) => {
            family(first)
        }
        _ => "IPv4 and IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Security;

    #[test]
    fn built_in_addresses_without_a_route_are_left_out_while_others_have_one() {
        let addresses = [
            "1.1.1.1:853",
            "[2606:4700:4700::1111]:853",
            "[2001:db8::1]:853",
        ];
        let addresses = addresses.map(|text| text.parse::<ScopedAddress>().expect("an address"));
        let resolvers = [Resolver {
            addresses: addresses.to_vec(),
            security: Security::Cleartext,
        }];
        let [v4, v6, of_user] = addresses;
        let no_v6 = |address: &ScopedAddress| address.ip().is_ipv4();
        let built_in = [v4, v6];
        assert_eq!(without_route(&resolvers, &built_in, &no_v6), [v6]);
        assert_eq!(without_route(&resolvers, &built_in, &|_| true), []);
        assert_eq!(without_route(&resolvers, &[], &no_v6), []);
        // The user's own address stays, without a route, too.
        assert_eq!(without_route(&resolvers, &built_in, &|_| false), built_in);
        let all = [v4, v6, of_user];
        assert_eq!(without_route(&resolvers, &all, &|_| false), []);
    }
}
