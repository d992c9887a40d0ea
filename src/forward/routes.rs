//! Which resolver is asked for a name?
//!
//! Names of a zone with a route go where the route leads: to an upstream of their own, to the main one, or nowhere. All other names go to
//! the main upstream. The longest zone decides.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::cache::Responder;
use crate::client::reply_batch::ReplyBatch;
use crate::forward::in_flight::Query;
use crate::message::presentation::Name;
use crate::message::{Source, ZoneMap, question_name, question_type, rtype};
use crate::upstream::token_bucket::TokenBucket;
use crate::upstream::{self, AddressStatus, Query as _};

/// An upstream of clients' queries.
pub type Upstream = upstream::Upstream<Query, ReplyBatch>;
/// Buffers that a thread reuses to submit queries to an upstream.
pub type Work = upstream::WorkBuffers<Query>;

/// Zones that are named where an upstream is shown.
const MAX_ZONES_SHOWN: usize = 3;
/// What precedes the address of a cleartext target.
pub const CLEARTEXT_PREFIX: &str = "tcp://";
/// Upstreams of routes, at most: each has a thread, sessions and a share of the queries in flight.
pub const MAX_UPSTREAMS: usize = 16;

/// The routes.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The upstreams of the routes, in the order of their numbers; [`MAX_UPSTREAMS`] at most.
    pub upstreams: Vec<upstream::Settings>,
    /// One route for each zone.
    pub zones: Vec<ZoneRoute>,
}

/// The route of one zone.
#[derive(Debug, Clone)]
pub struct ZoneRoute {
    /// The zone.
    pub zone: Name,
    /// Where its queries go.
    pub destination: Destination,
    /// Whether they leave in cleartext.
    pub is_cleartext: bool,
    /// The targets as the user wrote them, in order. Two routes of a zone are the same if these are.
    pub targets: Vec<String>,
}

impl Settings {
    /// The upstream for queries of a zone with this route; none if they go to the main one or nowhere.
    pub fn upstream(&self, route: Option<Route>) -> Option<&upstream::Settings> {
        self.upstreams.get(route?.destination.upstream_of_routes()?)
    }
}

/// Where queries go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// To the main upstream.
    Main,
    /// To the upstream of routes with this number.
    Route(usize),
    /// Nowhere: the zone does not exist (NXDOMAIN).
    NameError,
}

/// The main upstream and those of the routes.
///
/// Immutable: a reload makes another one.
pub struct Upstreams {
    main: Arc<Upstream>,
    /// In the order of their numbers.
    of_routes: Vec<Arc<Upstream>>,
    routes: Vec<ZoneRoute>,
    map: RouteMap,
}

/// The routes, to look names up.
#[derive(Debug, Clone, Default)]
pub struct RouteMap(ZoneMap<Route>);

/// What is known of a name in a zone with a route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Where queries of the zone go.
    pub destination: Destination,
    /// Octets of the zone's name in wire form: 255 at most.
    pub zone_len: u8,
}

impl Destination {
    /// The number of the upstream of routes to which queries go; none if they go elsewhere.
    pub fn upstream_of_routes(self) -> Option<usize> {
        match self {
            Self::Route(number) => Some(number),
            Self::Main | Self::NameError => None,
        }
    }
}

impl Route {
    /// Who is asked for names of a zone with this route, or of one without.
    pub fn responder(route: Option<Self>) -> Responder {
        let number = route.and_then(|route| route.destination.upstream_of_routes());
        number.map_or(Responder::MAIN, Responder::of_route)
    }

    /// Where answers to queries of a zone with this route come from, or to those of one without.
    pub fn source(route: Option<Self>) -> Source {
        match route {
            Some(Self {
                destination: Destination::Route(_),
                zone_len,
            }) => Source::Route { zone_len },
            Some(Self {
                destination: Destination::NameError,
                ..
            }) => Source::Local,
            Some(Self {
                destination: Destination::Main,
                ..
            })
            | None => Source::Resolver,
        }
    }
}

impl RouteMap {
    /// The map of these routes.
    pub fn new(routes: &[ZoneRoute]) -> Self {
        let mut zones = ZoneMap::default();
        for ZoneRoute {
            zone, destination, ..
        } in routes
        {
            let octets = zone.octets();
            let route = Route {
                destination: *destination,
                // A name has at most 255 octets.
                zone_len: octets.len() as u8,
            };
            zones.insert(octets, route);
        }
        Self(zones)
    }

    /// The route of a question's name, if its zone has one.
    ///
    /// A DS record belongs to the zone above (RFC 4035 section 3.1.4.1): who validates needs the proof that there is none, which servers of
    /// the zone itself do not have. So the question for it at the apex of a zone goes where the names above go.
    pub fn find(&self, question: &[u8]) -> Option<Route> {
        let name = question_name(question);
        let route = self.0.find(name).copied()?;
        let is_apex = name.len() == usize::from(route.zone_len);
        if is_apex
            && matches!(route.destination, Destination::Route(_))
            && question_type(question) == rtype::DS
        {
            return self.0.find(parent(name)?).copied();
        }
        Some(route)
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl Upstreams {
    /// The upstreams `of_routes` must be those of the settings' numbers.
    pub fn new(
        main: Arc<Upstream>,
        of_routes: Vec<Arc<Upstream>>,
        routes: Vec<ZoneRoute>,
    ) -> Arc<Self> {
        Arc::new(Self {
            main,
            of_routes,
            map: RouteMap::new(&routes),
            routes,
        })
    }

    /// The main upstream.
    pub fn main(&self) -> &Arc<Upstream> {
        &self.main
    }

    /// The upstreams of the routes, in the order of their numbers.
    pub fn of_routes(&self) -> &[Arc<Upstream>] {
        &self.of_routes
    }

    /// All upstreams, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        std::iter::once(&self.main).chain(&self.of_routes)
    }

    /// Whether `upstream` is one of these.
    pub fn has(&self, upstream: &Arc<Upstream>) -> bool {
        self.all().any(|own| Arc::ptr_eq(own, upstream))
    }

    /// The routes.
    pub fn routes(&self) -> &[ZoneRoute] {
        &self.routes
    }

    /// The status of each address, those of the main upstream first.
    pub fn address_status(&self) -> Vec<AddressStatus> {
        let mut all = self.main.address_status();
        for (number, upstream) in self.of_routes.iter().enumerate() {
            let zones = describe_zones(&self.routes, Destination::Route(number));
            all.extend(
                upstream
                    .address_status()
                    .into_iter()
                    .map(|status| AddressStatus {
                        zones: zones.clone(),
                        ..status
                    }),
            );
        }
        all
    }

    /// Charges each query that is sent again to `budget`, see [`Upstream::set_retry_budget`].
    pub(super) fn set_retry_budget(&self, budget: &Arc<TokenBucket>) {
        self.all()
            .for_each(|upstream| upstream.set_retry_budget(budget));
    }

    /// The number of queries in flight to all upstreams, and its limit.
    pub fn pending(&self) -> (usize, usize) {
        let counts = self.all().map(|upstream| upstream.pending());
        counts.fold((0, 0), |(pending, limit), (more, limit_of_it)| {
            (pending + more, limit + limit_of_it)
        })
    }

    /// Returns true if this machine's clock is known to be wrong.
    pub fn is_clock_untrusted(&self) -> bool {
        self.all().any(|upstream| upstream.is_clock_untrusted())
    }

    /// The route of a question's name, if its zone has one.
    pub(super) fn route(&self, question: &[u8]) -> Option<Route> {
        self.map.find(question)
    }

    /// The upstream for queries of a zone with this route, or of one without.
    pub(super) fn upstream(&self, route: Option<Route>) -> &Arc<Upstream> {
        let number = route.and_then(|route| route.destination.upstream_of_routes());
        number
            .and_then(|number| self.of_routes.get(number))
            .unwrap_or(&self.main)
    }

    /// Gives each query to the upstream of its name. Queries whose upstream has retired stay in `queries`.
    pub(super) fn submit(
        &self,
        queries: &mut Vec<Arc<Query>>,
        work: &mut Work,
        replies: &mut ReplyBatch,
        now: Instant,
    ) {
        if self.of_routes.is_empty() {
            return self.main.submit(queries, work, replies, now);
        }
        let mut routed = Vec::new();
        queries.retain(|query| {
            let route = self.route(query.question());
            let number = route.and_then(|route| route.destination.upstream_of_routes());
            routed.extend(number.map(|number| (number, Arc::clone(query))));
            number.is_none()
        });
        self.main.submit(queries, work, replies, now);
        while let Some(&(number, _)) = routed.first() {
            let of_one = routed.extract_if(.., |(other, _)| *other == number);
            let mut of_one = of_one.map(|(_, query)| query).collect();
            if let Some(upstream) = self.of_routes.get(number) {
                upstream.submit(&mut of_one, work, replies, now);
            }
            queries.append(&mut of_one);
        }
    }
}

/// The name above this one, in wire form; none above the root.
fn parent(name: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = name.split_first()?;
    rest.get(length.into()..)
}

/// The zones whose queries go there.
pub fn zones_to(routes: &[ZoneRoute], destination: Destination) -> impl Iterator<Item = &Name> {
    let routes = routes.iter();
    routes
        .filter(move |route| route.destination == destination)
        .map(|route| &route.zone)
}

/// The first few of the zones whose queries go there, and how many more there are. Empty if there is none.
pub fn describe_zones(routes: &[ZoneRoute], destination: Destination) -> String {
    let mut zones = zones_to(routes, destination).map(Name::to_string);
    let mut words: Vec<_> = zones.by_ref().take(MAX_ZONES_SHOWN).collect();
    match zones.count() {
        0 => {}
        more => words.push(format!("and {more} more")),
    }
    words.join(" ")
}

/// The zones whose routes differ.
pub fn changed_zones(before: &[ZoneRoute], after: &[ZoneRoute]) -> ZoneMap<()> {
    let is_in = |route: &ZoneRoute, routes: &[ZoneRoute]| {
        routes
            .iter()
            .any(|other| (&other.zone, &other.targets) == (&route.zone, &route.targets))
    };
    let mut changed = ZoneMap::default();
    let gone = before.iter().filter(|route| !is_in(route, after));
    let new = after.iter().filter(|route| !is_in(route, before));
    for route in gone.chain(new) {
        changed.insert(route.zone.octets(), ());
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(zone: &str, targets: &[&str]) -> ZoneRoute {
        ZoneRoute {
            zone: zone.parse().expect("a name"),
            destination: Destination::NameError,
            is_cleartext: false,
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        }
    }

    #[test]
    fn an_answer_comes_from_where_the_longest_zone_leads() {
        let to = |zone: &str, destination| ZoneRoute {
            destination,
            ..route(zone, &["x"])
        };
        let map = RouteMap::new(&[
            to("corp.example", Destination::Route(1)),
            to("gone.corp.example", Destination::NameError),
            to("public.corp.example", Destination::Main),
        ]);
        for (name, source, upstream) in [
            ("example", Source::Resolver, None),
            ("corp.example", Source::Route { zone_len: 14 }, Some(1)),
            ("Www.Corp.Example", Source::Route { zone_len: 14 }, Some(1)),
            ("www.gone.corp.example", Source::Local, None),
            ("public.corp.example", Source::Resolver, None),
        ] {
            let name: Name = name.parse().expect("a name");
            let route = map.find(&name.question("A".parse().expect("a type")));
            assert_eq!(Route::source(route), source, "{name}");
            let number = route.and_then(|route| route.destination.upstream_of_routes());
            assert_eq!(number, upstream, "{name}");
        }
        // At its apex, a DS record belongs to the zone above.
        for (name, source) in [
            ("corp.example", Source::Resolver),
            ("a.corp.example", Source::Route { zone_len: 14 }),
            ("gone.corp.example", Source::Local),
        ] {
            let name: Name = name.parse().expect("a name");
            let route = map.find(&name.question("DS".parse().expect("a type")));
            assert_eq!(Route::source(route), source, "{name}");
        }
    }

    #[test]
    fn a_zone_changes_with_its_targets_their_order_and_its_end() {
        let before = [
            route("a.example", &["x", "y"]),
            route("b.example", &["x"]),
            route("c.example", &["x"]),
        ];
        let after = [
            route("a.example", &["y", "x"]),
            route("c.example", &["x"]),
            route("d.example", &["x"]),
        ];
        let changed = changed_zones(&before, &after);
        let is_changed = |zone: &str| {
            let zone: Name = zone.parse().expect("a name");
            changed.find(zone.octets()).is_some()
        };
        assert!(is_changed("a.example") && is_changed("www.b.example") && is_changed("d.example"));
        assert!(!is_changed("c.example") && !is_changed("example"));
        assert!(changed_zones(&after, &after).is_empty());
    }
}
