//! How do the resolvers and servers of routes fare, and what leaves in cleartext?
//!
//! Each is asked for the zones that are routed to it: it may know no others.

use std::time::Duration;

use crate::command::check_report::Report;
use crate::command::check_resolver::{Inquiry, Question, check_resolvers};
use crate::forward::routes::{
    CLEARTEXT_PREFIX, Destination, Settings, ZoneRoute, describe_zones, zones_to,
};
use crate::message::presentation::{Name, Type};
use crate::message::rtype;
use crate::upstream::Security;

/// Checks every address of every route, and says which zones have a route without one.
pub(super) fn check_routes(routes: &Settings, timeout: Duration, report: &mut Report) {
    for (number, upstream) in routes.upstreams.iter().enumerate() {
        let inquiry = inquiry(&routes.zones, Destination::Route(number));
        check_resolvers(&upstream.resolvers, &inquiry, timeout, report);
    }
    for (destination, target, text) in [
        (
            Destination::NameError,
            "nxdomain",
            "names do not exist, and nobody is asked",
        ),
        (Destination::Main, "relay", "names go to the main resolver"),
    ] {
        let zones = describe_zones(&routes.zones, destination);
        if !zones.is_empty() {
            report.add(format_args!("route {zones} {target}"), text);
        }
    }
}

/// What the addresses of the upstream of these routes are asked for: the SOA record of each zone.
fn inquiry(routes: &[ZoneRoute], destination: Destination) -> Inquiry {
    let questions = zones_to(routes, destination).map(|zone| Question {
        prefix: prefix(zone),
        octets: zone.question(Type(rtype::SOA)),
    });
    Inquiry {
        prefix: prefix(describe_zones(routes, destination)),
        questions: questions.collect(),
        remedy: "ask its operator whether this host may ask it for this zone; else give the zone another --route",
    }
}

fn prefix(zones: impl std::fmt::Display) -> String {
    format!("route {zones} ")
}

/// Says in one line which queries leave in cleartext, and where they go.
pub(super) fn report_cleartext(routes: &Settings, report: &mut Report) {
    let upstreams = routes.upstreams.iter().enumerate();
    let texts: Vec<_> = upstreams
        .filter_map(|(number, upstream)| {
            let resolvers = upstream.resolvers.iter();
            let in_clear =
                resolvers.filter(|resolver| matches!(resolver.security, Security::Cleartext));
            let addresses = in_clear.flat_map(|resolver| &resolver.addresses);
            let addresses: Vec<_> = addresses
                .map(|address| format!("{CLEARTEXT_PREFIX}{address}"))
                .collect();
            let zones: Vec<_> = zones_to(&routes.zones, Destination::Route(number))
                .map(Name::to_string)
                .collect();
            (!addresses.is_empty()).then(|| {
                let (zones, addresses) = (zones.join(", "), addresses.join(", "));
                format!("queries for {zones} leave in cleartext, to {addresses}")
            })
        })
        .collect();
    match &texts[..] {
        [] => report.add("cleartext", "no query leaves in cleartext"),
        texts => report.add("cleartext", texts.join("; ")),
    }
}
