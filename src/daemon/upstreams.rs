//! Which upstreams are there, at the start and after a reload?

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};

use rustls::pki_types::ServerName;

use crate::config::settings::Config;
use crate::config::sources::UsageError;
use crate::forward::completion::QueryCompleter;
use crate::forward::routes::{self, Upstream, Upstreams, ZoneRoute};
use crate::identity::anchors::{SkippedCertificate, TrustAnchors};
use crate::identity::pin::PinSet;
use crate::message::ZoneMap;
use crate::server::workers::WorkerPool;
use crate::system::scoped_address::ScopedAddress;
use crate::telemetry::log::{info, warn};
use crate::upstream::{self, UpstreamMetrics};

/// Starts the upstreams of the main resolvers and of the routes. Fails if the system has no threads for their timers.
pub(super) fn start(
    main: upstream::Settings,
    routes: routes::Settings,
    completer: &Arc<QueryCompleter>,
    metrics: &Arc<UpstreamMetrics>,
) -> io::Result<Arc<Upstreams>> {
    let start = |settings| {
        let completer = Arc::clone(completer) as Arc<_>;
        Upstream::start(settings, completer, Arc::clone(metrics))
    };
    let main = start(main)?;
    let of_routes = routes.upstreams.into_iter().map(start);
    let of_routes = of_routes.collect::<io::Result<_>>()?;
    routes.zones.iter().for_each(log_route);
    Ok(Upstreams::new(main, of_routes, routes.zones))
}

/// Fails if a route leads to one of the addresses on which the forwarder listens: its queries would come back without end.
pub(super) fn check_loops(config: &Config, listeners: &[SocketAddr]) -> Result<(), UsageError> {
    let resolvers = config
        .routes
        .upstreams
        .iter()
        .flat_map(|upstream| &upstream.resolvers);
    let cleartext = resolvers.filter(|resolver| resolver.security.identity().is_none());
    let mut targets = cleartext.flat_map(|resolver| &resolver.addresses);
    let reaches_itself = |target: &&ScopedAddress| {
        listeners.iter().any(|listener| {
            listener.port() == target.port()
                && (listener.ip() == target.ip()
                    || listener.ip().is_unspecified() && is_own_address(target.ip()))
        })
    };
    match targets.find(reaches_itself) {
        Some(target) => Err(config.error_for_address(
            *target,
            "expected another address: dns-tool listens on this one itself",
        )),
        None => Ok(()),
    }
}

/// Whether this host has the address, as far as the system says.
fn is_own_address(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The upstreams that replace `current`, of which each one stays that has the same settings. None if all stay as they are, pins aside.
///
/// Fails if the system has no threads for their timers, and then starts none.
pub(super) fn replacement(
    config: &Config,
    current: &Upstreams,
) -> io::Result<Option<Arc<Upstreams>>> {
    let trust = &config.trust;
    let accepted_pins =
        |name: &ServerName<'_>| trust.accepted_pins(&trust.pins, &trust.state, name);
    let main = kept_or_replaced(
        &config.upstream,
        std::slice::from_ref(current.main()),
        current,
        &accepted_pins,
    )?;
    let mut of_routes = Vec::new();
    for settings in &config.routes.upstreams {
        match kept_or_replaced(settings, current.of_routes(), current, &accepted_pins) {
            Ok(upstream) => of_routes.push(upstream),
            Err(error) => {
                let started = of_routes.iter().chain([&main]);
                started
                    .filter(|upstream| !current.has(upstream))
                    .for_each(|upstream| upstream.retire());
                return Err(error);
            }
        }
    }
    let zones = &config.routes.zones;
    let changed = routes::changed_zones(current.routes(), zones);
    let stays = current.has(&main)
        && of_routes.len() == current.of_routes().len()
        && of_routes.iter().all(|upstream| current.has(upstream))
        && changed.is_empty();
    if stays {
        return Ok(None);
    }
    Ok(Some(Upstreams::new(main, of_routes, zones.clone())))
}

/// The one of these upstreams that has the same settings, or a new one.
fn kept_or_replaced(
    settings: &upstream::Settings,
    known: &[Arc<Upstream>],
    current: &Upstreams,
    accepted_pins: &dyn Fn(&ServerName<'_>) -> PinSet,
) -> io::Result<Arc<Upstream>> {
    let mut known = known.iter();
    match known.find(|upstream| upstream.has_same_settings(settings)) {
        Some(upstream) => Ok(Arc::clone(upstream)),
        None => current.main().replacement(settings, accepted_pins),
    }
}

/// Has the upstreams connect by this executor. Those that have one keep it.
pub(super) fn set_executor(upstreams: &Upstreams, executor: &Arc<WorkerPool>) {
    for upstream in upstreams.all() {
        let executor: Weak<WorkerPool> = Arc::downgrade(executor);
        upstream.set_executor(executor);
    }
}

/// Whether the names of the main resolvers differ.
pub(super) fn have_other_names(before: &Upstreams, after: &Upstreams) -> bool {
    let names = |upstreams: &Upstreams| {
        let targets = upstreams.main().targets().into_iter();
        let mut names: Vec<_> = targets.map(|(_, security)| security.name()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    names(before) != names(after)
}

/// Names the certificates of `--resolver-ca` that cannot be read: the first ones, and the number of the others.
pub(super) fn log_skipped_anchors(config: &Config) {
    let Some(skipped) = config.trust_anchors().map(TrustAnchors::skipped) else {
        return;
    };
    for SkippedCertificate {
        number,
        line,
        cause,
    } in &skipped.first
    {
        warn!("event=trust-anchor-skipped certificate={number} line={line} cause={cause:?}");
    }
    if skipped.others > 0 {
        warn!("event=trust-anchors-skipped others={}", skipped.others);
    }
}

/// Says where the names of each of these zones go that have a route.
pub(super) fn log_changed_routes(routes: &[ZoneRoute], changed: &ZoneMap<()>) {
    let is_changed = |route: &&ZoneRoute| changed.find(route.zone.octets()).is_some();
    routes.iter().filter(is_changed).for_each(log_route);
}

/// Says where the names of a zone go, and whether they leave in the clear.
fn log_route(route: &ZoneRoute) {
    let (zone, targets) = (&route.zone, route.targets.join(" "));
    let cleartext = if route.is_cleartext { "yes" } else { "no" };
    info!("event=route zone={zone} to=\"{targets}\" cleartext={cleartext}");
}
