//! Which numbers are there?
//!
//! Collects the metrics of all folders. Labels are constants of this program or come from the configuration, never query names or
//! clients, so the number of series is bounded.

use std::sync::Arc;

use crate::client::connection_limit::ConnectionLimit;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::send_failure::SendFailure;
use crate::forward::completion::QueryCompleter;
use crate::forward::forwarder::Forwarder;
use crate::forward::outcome::Outcome;
use crate::identity::key_exchange::Group;
use crate::monitoring::exposition::{
    Families, Family, Kind, Value, histogram_samples, label, unlabelled,
};
use crate::monitoring::process::ProcessStart;
use crate::monitoring::resolver_metrics::{ResolverFigures, add_resolvers, add_state};
use crate::monitoring::service_level::ServiceLevel;
use crate::monitoring::summary::Summary;
use crate::system::clock;
use crate::system::memory::Purpose;
use crate::system::thread;
use crate::telemetry::log;
use crate::telemetry::metrics::Counter;
use crate::upstream::{AddressStatus, UpstreamMetrics};

/// Collects metrics from the parts of the daemon.
///
/// All parts are shared with the threads that serve. Each metric is read on its own, so one scrape may show a query in one metric
/// and not yet in another.
pub struct Exporter {
    /// Outcomes of queries, the cache and the query log.
    pub completer: Arc<QueryCompleter>,
    /// The policy and the current upstream.
    pub forwarder: Arc<Forwarder>,
    /// Counters of sessions.
    pub upstream_metrics: Arc<UpstreamMetrics>,
    /// The slots of TCP clients.
    pub connection_limit: Arc<ConnectionLimit>,
    /// Counts of client traffic that limits rejected.
    pub evictions: Arc<EvictionCounters>,
    /// Octets that the cache may use, which does not change after the start.
    pub cache_size: usize,
    /// When the process started.
    pub start: ProcessStart,
    /// HTTP requests that were answered.
    pub http_requests: Counter,
    /// HTTP connections that were closed without a response.
    pub http_refused: Counter,
}

impl Exporter {
    /// The level of service since the start.
    pub fn service(&self) -> ServiceLevel {
        ServiceLevel::of(self.completer.counts())
    }

    /// Whether the cache has an answer that may be served, fresh or expired.
    pub fn can_serve_from_cache(&self) -> bool {
        self.completer.cache().can_serve(clock::now())
    }

    /// Why nearly no reply can be sent now, if that is so.
    pub fn send_failure(&self) -> Option<SendFailure> {
        self.completer
            .counts()
            .unsent_replies()
            .failure(clock::now())
    }

    /// The status of each address of the resolvers.
    pub fn address_status(&self) -> Vec<AddressStatus> {
        self.forwarder.upstreams().address_status()
    }

    /// All metrics. What follows from the history is passed in.
    pub fn collect_families(
        &self,
        summary: &Summary,
        resolvers: &[ResolverFigures],
    ) -> Vec<Family> {
        let mut all = Families(Vec::with_capacity(64));
        all.add(
            "dns_tool_build_info",
            Kind::Gauge,
            "The version that runs.",
            vec![(
                label("version", env!("CARGO_PKG_VERSION")),
                Value::Integer(1),
            )],
        );
        add_state(&mut all, summary);
        self.add_queries(&mut all);
        self.add_sessions(&mut all);
        self.add_upstream_queries(&mut all);
        self.add_connection_failures(&mut all);
        add_resolvers(&mut all, resolvers);
        self.add_cache(&mut all);
        self.add_hosts(&mut all);
        self.add_clients(&mut all);
        self.add_memory(&mut all);
        self.add_program(&mut all);
        self.start.add_process(&mut all);
        all.0
    }

    fn add_queries(&self, all: &mut Families) {
        let completer = &self.completer;
        let mut counts = Vec::new();
        for (tcp, transport) in [(false, "udp"), (true, "tcp")] {
            for outcome in Outcome::ALL {
                let labels = [
                    label("transport", transport),
                    label("outcome", outcome.name()),
                ];
                let count = completer.counts().count_by(tcp, outcome);
                counts.push((labels.join(","), Value::Integer(count)));
            }
        }
        all.add(
            "dns_tool_queries",
            Kind::Counter,
            "Messages of clients, by how they came and how they ended.",
            counts,
        );
        let service = self.service();
        all.add(
            "dns_tool_query_duration_seconds",
            Kind::Histogram,
            "What clients waited, for an answer that was kept (cache) or for the resolver.",
            histogram_samples(
                "source",
                &[
                    ("cache", service.cache_latency),
                    ("resolver", service.resolver_latency),
                ],
            ),
        );
        all.counter(
            "dns_tool_slo_eligible_queries",
            "Queries to which an answer of the resolver was owed.",
            service.eligible,
        );
        all.counter(
            "dns_tool_slo_good_queries",
            "Those of them that were answered, and within dns_tool_slo_latency_seconds.",
            service.good,
        );
        let settings = self.forwarder.settings();
        all.add(
            "dns_tool_slo_latency_seconds",
            Kind::Gauge,
            "How long a good answer may take (--slo-latency).",
            unlabelled(Value::Micros(clock::micros(settings.slo_latency))),
        );
        all.gauge(
            "dns_tool_client_queries_in_flight",
            "Queries of clients that wait for an answer.",
            completer.queries_in_flight(),
        );
        all.gauge(
            "dns_tool_client_queries_in_flight_limit",
            "How many of one client may wait (--max-pending).",
            settings.max_pending,
        );
    }

    fn add_sessions(&self, all: &mut Families) {
        let upstream_metrics = &self.upstream_metrics;
        all.add(
            "dns_tool_upstream_query_duration_seconds",
            Kind::Histogram,
            "From a query's being sent on a session to its answer.",
            histogram_samples("", &[("", upstream_metrics.query_latency.snapshot())]),
        );
        let [full, resumed] = &upstream_metrics.handshake_times;
        all.add(
            "dns_tool_upstream_handshake_seconds",
            Kind::Histogram,
            "From connecting to a session whose resolver is proved; its count is that of the sessions opened.",
            histogram_samples("kind", &[("full", full.snapshot()), ("resumed", resumed.snapshot())]),
        );
        all.counters(
            "dns_tool_upstream_sessions_opened",
            "Sessions opened with TLS, by key exchange.",
            "kex",
            &Group::ALL.map(Group::name),
            &upstream_metrics.key_exchanges,
        );
        all.counter(
            "dns_tool_upstream_post_quantum_left_out",
            "Times that an address was found to answer small hellos only, without X25519MLKEM768.",
            upstream_metrics.post_quantum_left_out.value(),
        );
        all.counter(
            "dns_tool_upstream_sessions_post_quantum_left_out",
            "Sessions opened with a small hello since the large one, with X25519MLKEM768, failed.",
            upstream_metrics.degraded.small_hello.value(),
        );
        let addresses = self.address_status();
        let sessions = addresses.iter().map(|status| status.sessions).sum();
        all.gauge(
            "dns_tool_upstream_sessions",
            "Sessions that take queries.",
            sessions,
        );
        all.counters(
            "dns_tool_upstream_sessions_closed",
            "Sessions that ended, by who or what ended them.",
            "reason",
            &["peer", "error", "malformed", "local"],
            &upstream_metrics.sessions_closed,
        );
        all.counter(
            "dns_tool_upstream_sessions_unpinned",
            "Sessions opened on chain and name alone (--pin-mode report).",
            upstream_metrics.degraded.unpinned.value(),
        );
        all.counter(
            "dns_tool_upstream_sessions_clock_untrusted",
            "Sessions opened while the clock was known to be wrong, on a pin.",
            upstream_metrics.degraded.clock.value(),
        );
    }

    fn add_upstream_queries(&self, all: &mut Families) {
        let (pending, limit) = self.forwarder.upstreams().pending();
        all.gauge(
            "dns_tool_upstream_queries_in_flight",
            "Queries on their way.",
            pending,
        );
        all.gauge(
            "dns_tool_upstream_queries_in_flight_limit",
            "How many may be.",
            limit,
        );
        all.counter(
            "dns_tool_upstream_queries_quarantined",
            "Queries that ended sessions on which they were alone.",
            self.upstream_metrics.culprits.value(),
        );
    }

    fn add_connection_failures(&self, all: &mut Families) {
        let upstream_metrics = &self.upstream_metrics;
        all.counters(
            "dns_tool_upstream_connect_failures",
            "Attempts to connect that failed before the resolver could prove itself.",
            "stage",
            &["connect", "handshake"],
            &upstream_metrics.connect_failures,
        );
        all.counters(
            "dns_tool_upstream_authentication_failures",
            "Resolvers that were refused, by the check that failed.",
            "check",
            &["chain", "name", "pin", "clock"],
            &upstream_metrics.authentication_failures,
        );
        all.gauge(
            "dns_tool_clock_untrusted",
            "1 while this machine's clock is known to be wrong.",
            self.forwarder.upstreams().is_clock_untrusted().into(),
        );
    }

    fn add_cache(&self, all: &mut Families) {
        let completer = &self.completer;
        let cache = completer.cache();
        all.gauge(
            "dns_tool_cache_entries",
            "Answers and failures that are kept.",
            cache.entries(),
        );
        all.add(
            "dns_tool_cache_bytes",
            Kind::Gauge,
            "What they cost.",
            unlabelled(Value::Integer(cache.octets())),
        );
        all.gauge(
            "dns_tool_cache_limit_bytes",
            "What they may cost (--cache-size).",
            self.cache_size,
        );
        all.counter(
            "dns_tool_cache_hits",
            "Queries answered by what was kept, within its time.",
            completer.counts().count(Outcome::Cached),
        );
        all.counter(
            "dns_tool_cache_misses",
            "Queries that waited for the resolver.",
            completer.counts().misses(),
        );
        all.counter(
            "dns_tool_cache_stale",
            "Queries answered by what had expired.",
            completer.counts().count(Outcome::Stale),
        );
        all.counter(
            "dns_tool_cache_prefetches",
            "Answers that were given and asked for again in the background.",
            completer.counts().prefetches(),
        );
    }

    fn add_hosts(&self, all: &mut Families) {
        all.gauge(
            "dns_tool_hosts_names",
            "Names that the hosts files list (--hosts).",
            self.forwarder.settings().hosts.len(),
        );
    }

    fn add_clients(&self, all: &mut Families) {
        let evictions = &self.evictions;
        all.gauge(
            "dns_tool_tcp_connections",
            "TCP clients.",
            self.connection_limit.in_use(),
        );
        all.gauge(
            "dns_tool_tcp_connections_limit",
            "How many there may be (--max-clients, or fewer).",
            self.connection_limit.capacity(),
        );
        let dropped = [
            ("evicted", &evictions.evicted),
            ("address-limit", &evictions.over_address_limit),
            ("slow-reader", &evictions.slow_readers),
            ("memory-limit", &evictions.over_memory),
            ("thread-start-failed", &evictions.no_thread),
        ];
        all.add(
            "dns_tool_tcp_connections_closed",
            Kind::Counter,
            "TCP clients whose connection was ended, by why.",
            dropped
                .iter()
                .map(|(reason, count)| (label("reason", reason), Value::Integer(count.value())))
                .collect(),
        );
        all.occurred_counters(
            "dns_tool_replies_not_sent",
            "Replies that the kernel refused to send, by why.",
            "cause",
            &SendFailure::ALL.map(SendFailure::name),
            self.completer.counts().unsent_replies().by_cause(),
        );
        all.counter(
            "dns_tool_udp_receive_drops",
            "Datagrams that the kernel dropped since its queue was full.",
            evictions.udp_receive_drops.value(),
        );
    }

    fn add_memory(&self, all: &mut Families) {
        let memory = self.completer.memory();
        let of_each = |value: &dyn Fn(Purpose) -> u64| -> Vec<_> {
            let purposes = Purpose::ALL.iter();
            let labelled = |purpose: &Purpose| {
                let labels = label("purpose", purpose.name());
                (labels, Value::Integer(value(*purpose)))
            };
            purposes.map(labelled).collect()
        };
        all.add(
            "dns_tool_memory_bytes",
            Kind::Gauge,
            "What messages hold, by what for.",
            of_each(&|purpose| memory.held(purpose) as u64),
        );
        all.add(
            "dns_tool_memory_share_bytes",
            Kind::Gauge,
            "What they may hold.",
            of_each(&|purpose| memory.share_limit(purpose) as u64),
        );
        all.add(
            "dns_tool_memory_refused",
            Kind::Counter,
            "How often there was no room.",
            of_each(&|purpose| memory.refused(purpose)),
        );
        all.gauge(
            "dns_tool_memory_limit_bytes",
            "What all of it may be, with what the kernel holds for TCP clients (--max-memory).",
            memory.limit(),
        );
    }

    /// Metrics of the program itself.
    fn add_program(&self, all: &mut Families) {
        all.counter(
            "dns_tool_log_lines_dropped",
            "Log lines that found no room.",
            log::dropped(),
        );
        all.counter(
            "dns_tool_query_log_lines_dropped",
            "Lines of the query log that found no room.",
            self.completer.query_log().dropped(),
        );
        all.counter(
            "dns_tool_panics",
            "Panics that were caught.",
            thread::panics(),
        );
        all.counter(
            "dns_tool_monitor_requests",
            "HTTP requests that were answered.",
            self.http_requests.value(),
        );
        all.counter(
            "dns_tool_monitor_connections_dropped",
            "HTTP connections that were closed without an answer.",
            self.http_refused.value(),
        );
    }
}
