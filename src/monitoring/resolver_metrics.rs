//! Which numbers are there of each resolver?
//!
//! And of the state that follows from them. The labels come from the configuration, so the number of series is bounded by it; of the numbers
//! that only help to find a cause, the first few addresses have series.

use crate::monitoring::exposition::{Families, Kind, Value, label};
use crate::monitoring::summary::{State, Summary};
use crate::telemetry::metrics::HistogramSnapshot;
use crate::upstream::AddressStatus;

/// Addresses that have a series of each metric, at most. Those that come later have the state, the sessions and the certificate only.
pub const MAX_DETAILED: usize = 4;

/// One address of a resolver, and how long its answers took of late.
#[derive(Debug, Clone)]
pub struct ResolverFigures {
    /// What is known of it.
    pub status: AddressStatus,
    /// From sending a query to its answer, in the last ten minutes.
    pub latency: HistogramSnapshot,
}

/// Adds whether queries are answered.
pub(super) fn add_state(all: &mut Families, summary: &Summary) {
    all.gauge(
        "dns_tool_ready",
        "1 while /ready says that queries should be sent here.",
        summary.state.is_ready().into(),
    );
    let is_current = |state: State| {
        let value = Value::Integer((state == summary.state).into());
        (label("state", state.name()), value)
    };
    all.add(
        "dns_tool_state",
        Kind::Gauge,
        "1 for the state in which it is, 0 for the others.",
        State::ALL.map(is_current).into(),
    );
}

/// Adds the numbers of each address.
pub(super) fn add_resolvers(all: &mut Families, resolvers: &[ResolverFigures]) {
    let of_each = |value: &dyn Fn(&AddressStatus) -> Option<u64>| -> Vec<_> {
        let labelled = |resolver: &ResolverFigures| {
            let status = &resolver.status;
            Some((resolver_labels(status), Value::Integer(value(status)?)))
        };
        resolvers.iter().filter_map(labelled).collect()
    };
    all.add(
        "dns_tool_resolver_sessions",
        Kind::Gauge,
        "Sessions with an address of a resolver.",
        of_each(&|status| Some(status.sessions as u64)),
    );
    all.add(
        "dns_tool_resolver_healthy",
        Kind::Gauge,
        "1 if it was reached, and neither failed nor was slow lately.",
        of_each(&|status| Some(status.healthy.into())),
    );
    all.add(
        "dns_tool_resolver_post_quantum_left_out",
        Kind::Gauge,
        "1 while it gets small hellos, without X25519MLKEM768.",
        of_each(&|status| Some(status.post_quantum_left_out.into())),
    );
    all.add(
        "dns_tool_resolver_pin_index",
        Kind::Gauge,
        "Which of its pins fitted, from 1; 0 where it has none.",
        of_each(&|status| Some(status.pin_status?.pin_index as u64)),
    );
    all.add(
        "dns_tool_resolver_certificate_expiry_timestamp_seconds",
        Kind::Gauge,
        "When the certificate that it showed last expires, since 1970.",
        of_each(&|status| status.pin_status?.not_after),
    );
    add_details(all, &resolvers[..resolvers.len().min(MAX_DETAILED)]);
}

/// Adds the numbers that only the first addresses have.
fn add_details(all: &mut Families, resolvers: &[ResolverFigures]) {
    let mut count = |name, help, value: fn(&AddressStatus) -> u64| {
        let samples = resolvers.iter().map(|resolver| {
            let status = &resolver.status;
            (resolver_labels(status), Value::Integer(value(status)))
        });
        all.add(name, Kind::Counter, help, samples.collect());
    };
    count(
        "dns_tool_resolver_queries",
        "Queries that were sent to an address.",
        |status| status.queries,
    );
    count(
        "dns_tool_resolver_lost_queries",
        "Those that it did not answer, or failed without a reason in the name.",
        |status| status.lost_queries,
    );
    count(
        "dns_tool_resolver_connect_failures",
        "Attempts to open a session with it that failed.",
        |status| status.failed_connects,
    );
    let mut latencies = Vec::new();
    for resolver in resolvers {
        for (percent, value) in [(50, "50"), (95, "95")] {
            if let Some(micros) = resolver.latency.percentile(percent) {
                let labels = [
                    resolver_labels(&resolver.status),
                    label("percentile", value),
                ];
                latencies.push((labels.join(","), Value::Micros(micros)));
            }
        }
    }
    all.add(
        "dns_tool_resolver_latency_seconds",
        Kind::Gauge,
        "From sending it a query to its answer, in the last ten minutes.",
        latencies,
    );
    let failures = resolvers.iter().map(|resolver| {
        let failure = resolver.status.last_failure.as_ref();
        let cause = failure.map_or("none", |failure| failure.cause.kind.name());
        let labels = [resolver_labels(&resolver.status), label("cause", cause)];
        let at = failure.map_or(0, |failure| failure.at);
        (labels.join(","), Value::Integer(at))
    });
    all.add(
        "dns_tool_resolver_last_failure_timestamp_seconds",
        Kind::Gauge,
        "When it last failed, since 1970, by why; 0 if it never did.",
        failures.collect(),
    );
}

/// The labels of a resolver's address. Only one that is asked for some zones alone has the label `zones`.
pub fn resolver_labels(status: &AddressStatus) -> String {
    let mut labels = vec![
        label("resolver", &status.address.to_string()),
        label("name", &status.name),
    ];
    if !status.zones.is_empty() {
        labels.push(label("zones", &status.zones));
    }
    labels.join(",")
}
