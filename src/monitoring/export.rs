//! Which numbers are there?
//!
//! Gathers what all folders have counted, for whoever asks from outside. Labels come from lists of ours and from the
//! configuration: no name that was asked for and no client is among them, so their number has a bound.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::client::connection_limit::ConnectionLimit;
use crate::client::eviction_counters::EvictionCounters;
use crate::forward::completion::Endings;
use crate::forward::counts::Source;
use crate::forward::forwarder::Forwarder;
use crate::forward::outcome::Outcome;
use crate::monitoring::exposition::{Families, Family, Kind, Value, label, single, spreads};
use crate::monitoring::process::{Process, Start};
use crate::monitoring::service::Service;
use crate::system::clock;
use crate::system::memory::Purpose;
use crate::system::privileges;
use crate::system::thread;
use crate::telemetry::log;
use crate::telemetry::metrics::Counter;
use crate::upstream::{AddressStatus, UpstreamMetrics};

/// What has counted something.
pub struct Sources {
    /// How queries ended.
    pub endings: Arc<Endings>,
    /// Whom they go to.
    pub forwarder: Arc<Forwarder>,
    /// What became of sessions.
    pub tally: Arc<UpstreamMetrics>,
    /// The places of TCP clients.
    pub slots: Arc<ConnectionLimit>,
    /// What the bounds on clients have cost them.
    pub evictions: Arc<EvictionCounters>,
    /// What the cache may hold, which is settled at the start.
    pub cache_size: usize,
    /// When the process began.
    pub start: Start,
    /// HTTP requests that were answered.
    pub requests: Counter,
    /// HTTP connections that were closed without an answer.
    pub refused: Counter,
}

impl Sources {
    /// How the service is doing, since it began.
    pub fn service(&self) -> Service {
        let endings = &self.endings;
        let mut service = Service {
            good: endings.counts().good(),
            cache: endings.counts().answers(Source::Cache),
            resolver: endings.counts().answers(Source::Resolver),
            ..Service::default()
        };
        for outcome in Outcome::ALL {
            let count = endings.counts().count(outcome);
            service.all += count;
            if outcome.is_owed() {
                service.owed += count;
                service.failed += if outcome.is_served() { 0 } else { count };
            }
        }
        service
    }

    /// Whether a query would be answered, as far as is known.
    pub fn is_ready(&self) -> bool {
        self.forwarder.upstream().is_ready() || self.endings.cache().can_serve(clock::now())
    }

    /// How each address of the resolvers fares.
    pub fn standings(&self) -> Vec<AddressStatus> {
        self.forwarder.upstream().address_status()
    }

    /// All numbers.
    pub fn families(&self) -> Vec<Family> {
        let mut all = Families(Vec::with_capacity(64));
        all.add(
            "dns_tool_build_info",
            Kind::Gauge,
            "The version that runs.",
            vec![(label("version", env!("CARGO_PKG_VERSION")), Value::Whole(1))],
        );
        self.add_queries(&mut all);
        self.add_sessions(&mut all);
        self.add_upstream_queries(&mut all);
        self.add_connection_failures(&mut all);
        self.add_resolvers(&mut all);
        self.add_cache(&mut all);
        self.add_clients(&mut all);
        self.add_memory(&mut all);
        self.add_program(&mut all);
        self.add_process(&mut all);
        all.0
    }

    fn add_queries(&self, all: &mut Families) {
        let endings = &self.endings;
        let mut counts = Vec::new();
        for (tcp, transport) in [(false, "udp"), (true, "tcp")] {
            for outcome in Outcome::ALL {
                let labels = [
                    label("transport", transport),
                    label("outcome", outcome.name()),
                ];
                let count = endings.counts().count_by(tcp, outcome);
                counts.push((labels.join(","), Value::Whole(count)));
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
            "dns_tool_answer_seconds",
            Kind::Histogram,
            "What clients waited, for an answer that was kept (cache) or for the resolver.",
            spreads(
                "source",
                &[("cache", service.cache), ("resolver", service.resolver)],
            ),
        );
        all.counter(
            "dns_tool_slo",
            "Queries to which an answer of the resolver was owed.",
            service.owed,
        );
        all.counter(
            "dns_tool_slo_good",
            "Those of them that were answered, and within dns_tool_slo_latency_seconds.",
            service.good,
        );
        let settings = self.forwarder.settings();
        all.add(
            "dns_tool_slo_latency_seconds",
            Kind::Gauge,
            "How long a good answer may take (--slo-latency).",
            single(Value::Micros(clock::micros(settings.slo_latency))),
        );
        all.gauge(
            "dns_tool_waiting",
            "Queries of clients that wait for an answer.",
            endings.waiting(),
        );
        all.gauge(
            "dns_tool_waiting_limit",
            "How many of one client may wait (--max-pending).",
            settings.max_pending,
        );
    }

    fn add_sessions(&self, all: &mut Families) {
        let tally = &self.tally;
        all.add(
            "dns_tool_upstream_exchange_seconds",
            Kind::Histogram,
            "From a query's being sent on a session to its answer.",
            spreads("", &[("", tally.query_latency.value())]),
        );
        let [full, resumed] = &tally.handshake_times;
        all.add(
            "dns_tool_upstream_handshake_seconds",
            Kind::Histogram,
            "From connecting to a session whose resolver is proved; its count is that of the sessions opened.",
            spreads("kind", &[("full", full.value()), ("resumed", resumed.value())]),
        );
        let sessions = self
            .standings()
            .iter()
            .map(|standing| standing.sessions)
            .sum();
        all.gauge(
            "dns_tool_upstream_sessions",
            "Sessions that take queries.",
            sessions,
        );
        all.counters(
            "dns_tool_upstream_sessions_closed",
            "Sessions that ended, by who or what ended them.",
            "reason",
            &["resolver", "broken", "garbage", "us"],
            &tally.sessions_closed,
        );
        all.counter(
            "dns_tool_upstream_sessions_unpinned",
            "Sessions opened on chain and name alone (--pin-mode report).",
            tally.degraded.unpinned.value(),
        );
        all.counter(
            "dns_tool_upstream_sessions_by_floor",
            "Sessions opened while the clock was known to be wrong, on a pin.",
            tally.degraded.clock.value(),
        );
    }

    fn add_upstream_queries(&self, all: &mut Families) {
        let (pending, limit) = self.forwarder.upstream().pending();
        all.gauge(
            "dns_tool_upstream_pending",
            "Queries on their way.",
            pending,
        );
        all.gauge("dns_tool_upstream_pending_limit", "How many may be.", limit);
        all.counter(
            "dns_tool_upstream_queries_convicted",
            "Queries that were given up since they ended sessions on which they were alone.",
            self.tally.culprits.value(),
        );
    }

    fn add_connection_failures(&self, all: &mut Families) {
        let tally = &self.tally;
        all.counters(
            "dns_tool_upstream_failures",
            "Attempts to connect that failed before the resolver could prove itself.",
            "stage",
            &["connect", "handshake"],
            &tally.connect_failures,
        );
        all.counters(
            "dns_tool_identity_failures",
            "Resolvers that were refused, by the check that failed.",
            "check",
            &["chain", "name", "pin", "clock"],
            &tally.authentication_failures,
        );
        all.gauge(
            "dns_tool_clock_suspect",
            "1 while this machine's clock is known to be wrong.",
            self.forwarder.upstream().is_clock_untrusted().into(),
        );
    }

    fn add_resolvers(&self, all: &mut Families) {
        let standings = self.standings();
        let of_each = |value: &dyn Fn(&AddressStatus) -> Option<u64>| -> Vec<_> {
            let labelled = |standing| Some((labels_of(standing), Value::Whole(value(standing)?)));
            standings.iter().filter_map(labelled).collect()
        };
        all.add(
            "dns_tool_resolver_sessions",
            Kind::Gauge,
            "Sessions with an address of a resolver.",
            of_each(&|standing| Some(standing.sessions as u64)),
        );
        all.add(
            "dns_tool_resolver_healthy",
            Kind::Gauge,
            "1 unless it failed or was slow lately.",
            of_each(&|standing| Some(standing.healthy.into())),
        );
        all.add(
            "dns_tool_resolver_pin_slot",
            Kind::Gauge,
            "Which of its pins fitted, from 1; 0 where it has none.",
            of_each(&|standing| Some(standing.pin_status?.pin_index as u64)),
        );
        all.add(
            "dns_tool_resolver_certificate_expiry_timestamp_seconds",
            Kind::Gauge,
            "When the certificate that it showed last expires, since 1970.",
            of_each(&|standing| standing.pin_status?.not_after),
        );
    }

    fn add_cache(&self, all: &mut Families) {
        let endings = &self.endings;
        let cache = endings.cache();
        all.gauge(
            "dns_tool_cache_entries",
            "Answers and failures that are kept.",
            cache.entries(),
        );
        all.add(
            "dns_tool_cache_bytes",
            Kind::Gauge,
            "What they cost.",
            single(Value::Whole(cache.octets())),
        );
        all.gauge(
            "dns_tool_cache_limit_bytes",
            "What they may cost (--cache-size).",
            self.cache_size,
        );
        all.counter(
            "dns_tool_cache_hits",
            "Queries answered by what was kept, within its time.",
            endings.counts().count(Outcome::Cached),
        );
        all.counter(
            "dns_tool_cache_misses",
            "Queries that waited for the resolver.",
            endings.counts().misses(),
        );
        all.counter(
            "dns_tool_cache_stale",
            "Queries answered by what had expired.",
            endings.counts().count(Outcome::Stale),
        );
        all.counter(
            "dns_tool_cache_renewals",
            "Answers that were given and asked for again in the background.",
            endings.counts().renewals(),
        );
    }

    fn add_clients(&self, all: &mut Families) {
        let evictions = &self.evictions;
        all.gauge("dns_tool_clients", "TCP clients.", self.slots.taken());
        all.gauge(
            "dns_tool_clients_limit",
            "How many there may be (--max-clients, or fewer).",
            self.slots.most(),
        );
        let dropped = [
            ("gave-way", &evictions.gave_way),
            ("refused", &evictions.refused),
            ("not-reading", &evictions.not_reading),
            ("over-memory", &evictions.over_memory),
            ("no-thread", &evictions.no_thread),
        ];
        all.add(
            "dns_tool_clients_dropped",
            Kind::Counter,
            "TCP clients whose connection was ended, by why.",
            dropped
                .iter()
                .map(|(reason, count)| (label("reason", reason), Value::Whole(count.value())))
                .collect(),
        );
        all.counter(
            "dns_tool_datagrams_lost",
            "Datagrams that the kernel dropped since its queue was full.",
            evictions.datagrams.value(),
        );
    }

    fn add_memory(&self, all: &mut Families) {
        let memory = self.endings.memory();
        let of_each = |value: &dyn Fn(Purpose) -> u64| -> Vec<_> {
            let purposes = Purpose::ALL.iter();
            let labelled = |purpose: &Purpose| {
                let labels = label("purpose", purpose.name());
                (labels, Value::Whole(value(*purpose)))
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
            of_each(&|purpose| memory.share(purpose) as u64),
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

    /// What the program counts of itself.
    fn add_program(&self, all: &mut Families) {
        all.counter(
            "dns_tool_log_lines_lost",
            "Log lines that found no room.",
            log::lost(),
        );
        all.counter(
            "dns_tool_query_log_lines_lost",
            "Lines of the query log that found no room.",
            self.endings.query_log().lost(),
        );
        all.counter(
            "dns_tool_panics",
            "Panics that were caught.",
            thread::panics(),
        );
        all.counter(
            "dns_tool_monitor_requests",
            "HTTP requests that were answered.",
            self.requests.value(),
        );
        all.counter(
            "dns_tool_monitor_refused",
            "HTTP connections that were closed without an answer.",
            self.refused.value(),
        );
    }

    /// What the kernel says of the process.
    fn add_process(&self, all: &mut Families) {
        let process = Process::read();
        all.add(
            "process_cpu_seconds",
            Kind::Counter,
            "Processor time that the process has used.",
            single(Value::Micros(process.processor)),
        );
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that the process has in use.",
                process.resident,
            ),
            (
                "process_threads",
                "Threads of the process.",
                process.threads,
            ),
            (
                "process_open_fds",
                "Descriptors that are open.",
                process.descriptors,
            ),
            (
                "process_max_fds",
                "How many may be.",
                privileges::descriptors(),
            ),
            (
                "process_start_time_seconds",
                "When the process began, since 1970.",
                self.start.time(clock::now(), clock::since_1970().as_secs()),
            ),
        ];
        for (name, help, value) in gauges {
            all.add(name, Kind::Gauge, help, single(Value::Whole(value)));
        }
    }
}

/// The labels of a resolver's address.
pub fn labels_of(standing: &AddressStatus) -> String {
    let address: SocketAddr = standing.address;
    [
        label("resolver", &address.to_string()),
        label("name", &standing.name),
    ]
    .join(",")
}
