//! What is known at this moment?
//!
//! All numbers of the status page in one plain value, from which it is written, for people or for programs. No lock is held.

use crate::forward::outcome::Outcome;
use crate::monitoring::export::Exporter;
use crate::monitoring::exposition::{Family, Value, label};
use crate::monitoring::history::History;
use crate::monitoring::resolver_metrics::ResolverFigures;
use crate::monitoring::service_level::ServiceLevel;
use crate::monitoring::summary::{Facts, Summary};
use crate::system::clock;
use crate::upstream::AddressStatus;

/// The numbers of one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The version that runs.
    pub version: &'static str,
    /// The moment, in seconds since 1970.
    pub now: u64,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether queries are answered, and if not, why.
    pub summary: Summary,
    /// All queries since the start.
    pub queries: u64,
    /// The last minute.
    pub last_minute: Period,
    /// The last ten minutes.
    pub last_ten_minutes: Period,
    /// The last hour.
    pub last_hour: Period,
    /// Each ten seconds of the last ten minutes, oldest first; the last one goes on. 61 at most.
    pub ten_minutes: Vec<Period>,
    /// Each minute of the last hour, oldest first; the last one goes on. 61 at most.
    pub hour: Vec<Period>,
    /// The addresses of the resolvers, those of routes last.
    pub resolvers: Vec<ResolverFigures>,
    /// Numbers that are metrics, too, by what they are about.
    pub groups: Vec<Group>,
    /// Queries since the start by outcome, without outcomes that no query had.
    pub outcomes: Vec<OutcomeFigures>,
}

/// How clients were served in a time. Latencies are in microseconds, and none without answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// All queries.
    pub queries: u64,
    /// Queries that should have got an answer.
    pub eligible: u64,
    /// Those of them that were answered within `--slo-latency`.
    pub good: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Replies of which the latency is known.
    pub replies: u64,
    /// Those of them that came from the cache.
    pub cached: u64,
    /// The median latency.
    pub median: Option<u64>,
    /// The 95th percentile of latency.
    pub p95: Option<u64>,
    /// The 99th percentile of latency.
    pub p99: Option<u64>,
}

impl From<&ServiceLevel> for Period {
    fn from(level: &ServiceLevel) -> Self {
        let latency = level.latency();
        Self {
            queries: level.all,
            eligible: level.eligible,
            good: level.good,
            failed: level.failed,
            replies: latency.count(),
            cached: level.cache_latency.count(),
            median: latency.percentile(50),
            p95: latency.percentile(95),
            p99: latency.percentile(99),
        }
    }
}

/// Numbers about one thing.
#[derive(Debug, Clone)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The numbers.
    pub figures: Vec<Figure>,
}

/// One number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// What it is, in words.
    pub label: &'static str,
    /// The metric, with its labels.
    pub metric: &'static str,
    /// The value.
    pub value: u64,
    /// What is counted.
    pub unit: Unit,
    /// The most that it may be.
    pub limit: Option<u64>,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Octets.
    Octets,
}

/// How many queries had an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutcomeFigures {
    /// The outcome.
    pub name: &'static str,
    /// Queries over UDP.
    pub udp: u64,
    /// Queries over TCP.
    pub tcp: u64,
}

/// A row of the tables below: its words, its metric, its unit, and the metric of its limit or nothing.
type Row = (&'static str, &'static str, Unit, &'static str);

/// The figures that are metrics, by group.
const GROUPS: [(&str, &[Row]); 3] = [
    ("Cache", &CACHE),
    ("Clients", &CLIENTS),
    ("Sessions with resolvers", &SESSIONS),
];

const CACHE: [Row; 6] = [
    (
        "Memory",
        "dns_tool_cache_bytes",
        Unit::Octets,
        "dns_tool_cache_limit_bytes",
    ),
    ("Entries", "dns_tool_cache_entries", Unit::Count, ""),
    ("Hits", "dns_tool_cache_hits_total", Unit::Count, ""),
    ("Misses", "dns_tool_cache_misses_total", Unit::Count, ""),
    (
        "Stale answers served",
        "dns_tool_cache_stale_total",
        Unit::Count,
        "",
    ),
    (
        "Prefetched",
        "dns_tool_cache_prefetches_total",
        Unit::Count,
        "",
    ),
];

const CLIENTS: [Row; 11] = [
    (
        "TCP connections",
        "dns_tool_tcp_connections",
        Unit::Count,
        "dns_tool_tcp_connections_limit",
    ),
    (
        "Queries in flight",
        "dns_tool_client_queries_in_flight",
        Unit::Count,
        "dns_tool_client_queries_in_flight_limit",
    ),
    (
        "Evicted for a newcomer",
        "dns_tool_tcp_connections_closed_total{reason=\"evicted\"}",
        Unit::Count,
        "",
    ),
    (
        "Over the limit of one address",
        "dns_tool_tcp_connections_closed_total{reason=\"address-limit\"}",
        Unit::Count,
        "",
    ),
    (
        "Closed as slow readers",
        "dns_tool_tcp_connections_closed_total{reason=\"slow-reader\"}",
        Unit::Count,
        "",
    ),
    (
        "UDP receive drops",
        "dns_tool_udp_receive_drops_total",
        Unit::Count,
        "",
    ),
    (
        "Replies not sent: firewall",
        "dns_tool_replies_not_sent_total{cause=\"firewall\"}",
        Unit::Count,
        "",
    ),
    (
        "Replies not sent: buffers",
        "dns_tool_replies_not_sent_total{cause=\"buffers\"}",
        Unit::Count,
        "",
    ),
    (
        "Replies not sent: unreachable",
        "dns_tool_replies_not_sent_total{cause=\"unreachable\"}",
        Unit::Count,
        "",
    ),
    (
        "Replies not sent: unsupported",
        "dns_tool_replies_not_sent_total{cause=\"unsupported\"}",
        Unit::Count,
        "",
    ),
    (
        "Replies not sent: other",
        "dns_tool_replies_not_sent_total{cause=\"other\"}",
        Unit::Count,
        "",
    ),
];

const SESSIONS: [Row; 12] = [
    (
        "Queries in flight",
        "dns_tool_upstream_queries_in_flight",
        Unit::Count,
        "dns_tool_upstream_queries_in_flight_limit",
    ),
    (
        "Opened, full handshake",
        "dns_tool_upstream_handshake_seconds_count{kind=\"full\"}",
        Unit::Count,
        "",
    ),
    (
        "Opened, resumed",
        "dns_tool_upstream_handshake_seconds_count{kind=\"resumed\"}",
        Unit::Count,
        "",
    ),
    (
        "Opened, post-quantum",
        "dns_tool_upstream_sessions_opened_total{kex=\"X25519MLKEM768\"}",
        Unit::Count,
        "",
    ),
    (
        "Closed by the resolver",
        "dns_tool_upstream_sessions_closed_total{reason=\"peer\"}",
        Unit::Count,
        "",
    ),
    (
        "Closed by an error",
        "dns_tool_upstream_sessions_closed_total{reason=\"error\"}",
        Unit::Count,
        "",
    ),
    (
        "Connect failures",
        "dns_tool_upstream_connect_failures_total{stage=\"connect\"}",
        Unit::Count,
        "",
    ),
    (
        "Handshake failures",
        "dns_tool_upstream_connect_failures_total{stage=\"handshake\"}",
        Unit::Count,
        "",
    ),
    (
        "Chain not trusted",
        "dns_tool_upstream_authentication_failures_total{check=\"chain\"}",
        Unit::Count,
        "",
    ),
    (
        "Name mismatch",
        "dns_tool_upstream_authentication_failures_total{check=\"name\"}",
        Unit::Count,
        "",
    ),
    (
        "Pin mismatch",
        "dns_tool_upstream_authentication_failures_total{check=\"pin\"}",
        Unit::Count,
        "",
    ),
    (
        "Clock untrusted",
        "dns_tool_upstream_authentication_failures_total{check=\"clock\"}",
        Unit::Count,
        "",
    ),
];

impl Snapshot {
    /// The numbers of now. `stopping`: the program is about to end.
    pub fn take(exporter: &Exporter, history: &History, stopping: bool) -> Self {
        let service = exporter.service();
        let resolvers = history.with_latency(exporter.address_status());
        let summary = summarize(exporter, history, stopping);
        let families = exporter.collect_families(&summary, &resolvers);
        let each = |levels: Vec<ServiceLevel>| levels.iter().map(Period::from).collect();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            now: clock::unix_time().as_secs(),
            uptime_seconds: exporter.start.uptime_seconds(clock::now()),
            summary,
            queries: service.all,
            last_minute: (&history.last_minute(&service)).into(),
            last_ten_minutes: (&history.last_ten_minutes(&service)).into(),
            last_hour: (&history.last_hour(&service)).into(),
            ten_minutes: each(history.ten_minutes(&service)),
            hour: each(history.hour(&service)),
            resolvers,
            groups: groups(&families),
            outcomes: outcomes(&families),
        }
    }
}

/// Whether queries are answered now, and if not, why.
pub fn summarize(exporter: &Exporter, history: &History, stopping: bool) -> Summary {
    let addresses: Vec<AddressStatus> = exporter.address_status();
    let last_minute = history.last_minute(&exporter.service());
    Summary::of(&Facts {
        stopping,
        send_failure: exporter.send_failure(),
        addresses: &addresses,
        cache_can_serve: exporter.can_serve_from_cache(),
        eligible: last_minute.eligible,
        failed: last_minute.failed,
        now: clock::unix_time().as_secs(),
    })
}

fn groups(families: &[Family]) -> Vec<Group> {
    let figure = |&(label, metric, unit, limit): &Row| {
        Some(Figure {
            label,
            metric,
            value: value(families, metric)?,
            unit,
            limit: value(families, limit).filter(|limit| *limit > 0),
        })
    };
    GROUPS
        .iter()
        .map(|&(title, rows)| Group {
            title,
            figures: rows.iter().filter_map(figure).collect(),
        })
        .collect()
}

fn outcomes(families: &[Family]) -> Vec<OutcomeFigures> {
    let count = |transport: &str, outcome: Outcome| {
        let metric = outcome_metric(transport, outcome.name());
        value(families, &metric).unwrap_or_default()
    };
    let figures = Outcome::ALL.map(|outcome| OutcomeFigures {
        name: outcome.name(),
        udp: count("udp", outcome),
        tcp: count("tcp", outcome),
    });
    let mut figures = figures.to_vec();
    figures.retain(|figures| figures.udp > 0 || figures.tcp > 0);
    figures
}

/// The metric of an outcome over a transport.
pub(super) fn outcome_metric(transport: &str, outcome: &str) -> String {
    let labels = [label("transport", transport), label("outcome", outcome)];
    ["dns_tool_queries_total{", &labels.join(","), "}"].concat()
}

/// The value of the metric `NAME{LABELS}`.
fn value(families: &[Family], metric: &str) -> Option<u64> {
    let (name, labels) = metric.split_once('{').unwrap_or((metric, ""));
    let labels = labels.trim_end_matches('}');
    let stem = name.trim_end_matches("_total").trim_end_matches("_count");
    let family = families.iter().find(|family| family.name == stem)?;
    let mut samples = family.samples.iter();
    match &samples.find(|(other, _)| other == labels)?.1 {
        Value::Integer(number) | Value::Micros(number) => Some(*number),
        Value::Histogram(histogram) => Some(histogram.count()),
    }
}
