//! What does a person see of the state?
//!
//! One HTML page without scripts or external resources, written from a [`Snapshot`]. A number that is a metric, too, is marked with its name
//! there (`data-metric`) and has its exact value (`value`). The page shows no query names and no clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::monitoring::chart::{self, Span};
use crate::monitoring::human_units::{
    NO_VALUE, format_count, format_duration, format_latency, format_octets, format_percentage,
    format_rate, format_time_of_day,
};
use crate::monitoring::resolver_metrics::{MAX_DETAILED, ResolverFigures, resolver_labels};
use crate::monitoring::snapshot::{Figure, Period, Snapshot, Unit, outcome_metric};
use crate::monitoring::summary::State;
use crate::system::date::{DAY, Timestamp};
use crate::upstream::{AddressStatus, Obstruction};

/// The style sheet. Its hash is the only source that the page's content security policy allows.
const STYLE: &str = include_str!("page.css");
/// The page, with placeholders in double brackets ([`PageWriter::fill_placeholder`]).
const TEMPLATE: &str = include_str!("page.html");
/// Days before a certificate's expiry from which the page highlights it.
const EXPIRY_WARNING_DAYS: u64 = 14;
/// Seconds after which a failure of an address that works again is no longer highlighted.
const RECENT_FAILURE: u64 = 600;

/// The status page.
pub struct Page {
    csp: String,
}

impl Default for Page {
    fn default() -> Self {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let csp = [
            "default-src 'none'; style-src 'sha256-",
            &hash,
            "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ];
        Self { csp: csp.concat() }
    }
}

impl Page {
    /// The value of the header Content-Security-Policy.
    pub fn csp(&self) -> &str {
        &self.csp
    }

    /// Writes the page.
    pub fn write(&self, snapshot: &Snapshot) -> String {
        let mut out = PageWriter {
            text: String::with_capacity(48 * 1024),
            snapshot,
        };
        let mut remaining = TEMPLATE;
        while let Some((text, tail)) = remaining.split_once("[[") {
            let (placeholder, tail) = tail.split_once("]]").unwrap_or((tail, ""));
            out.text.push_str(text);
            out.fill_placeholder(placeholder);
            remaining = tail;
        }
        out.text.push_str(remaining);
        out.text
    }
}

/// The class of a state in the style sheet.
fn state_class(state: State) -> &'static str {
    match state {
        State::Answering => "good",
        State::Degraded | State::CacheOnly | State::Starting => "warn",
        State::Failing | State::NotSending | State::Stopping => "bad",
    }
}

/// The page while it is written, and what it shows.
struct PageWriter<'s> {
    text: String,
    snapshot: &'s Snapshot,
}

impl PageWriter<'_> {
    // Not inlined: copies would be half of this file in the binary.
    #[inline(never)]
    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
    }

    /// Writes the content of a placeholder.
    fn fill_placeholder(&mut self, placeholder: &str) {
        let snapshot = self.snapshot;
        let text = match placeholder {
            "style" => STYLE.to_owned(),
            "version" => snapshot.version.to_owned(),
            "class" => state_class(snapshot.summary.state).to_owned(),
            "title" => escape(&snapshot.summary.text),
            "state" => return self.state(),
            "up" => format_duration(snapshot.uptime_seconds),
            "now" => format!("{:#}", Timestamp(snapshot.now)),
            "periods" => return self.period_rows(),
            "rates" => chart::rate_chart(&snapshot.ten_minutes, Span::TenMinutes),
            "hourly-rates" => chart::rate_chart(&snapshot.hour, Span::Hour),
            "latencies" => chart::latency_chart(&snapshot.ten_minutes, Span::TenMinutes),
            "hourly-latencies" => chart::latency_chart(&snapshot.hour, Span::Hour),
            "tiles" => return self.tiles(),
            "resolvers" => return self.resolver_rows(),
            "groups" => return self.group_sections(),
            "outcomes" => return self.outcome_rows(),
            _ => NO_VALUE.to_owned(),
        };
        self.text.push_str(&text);
    }

    fn state(&mut self) {
        let summary = &self.snapshot.summary;
        self.push(&["<p class=\"verdict\">", &escape(&summary.text), "</p>"]);
        if !summary.remedy.is_empty() {
            let remedy = escape(summary.remedy);
            self.push(&["<p class=\"remedy\">What to do: ", &remedy, "</p>"]);
        }
    }

    /// The tiles: of the last ten minutes, in large type.
    fn tiles(&mut self) {
        let Snapshot {
            last_minute,
            last_ten_minutes: period,
            queries,
            ..
        } = self.snapshot;
        let failed = format_percentage(last_minute.failed, last_minute.eligible);
        let is_bad = last_minute.failed > 0 && last_minute.failed * 20 >= last_minute.eligible;
        let tiles = [
            ("Queries", format_count(*queries), "since the start", ""),
            (
                "Failed",
                failed,
                "of the last minute",
                if is_bad { "bad" } else { "" },
            ),
            (
                "In time",
                format_percentage(period.good, period.eligible),
                "of the last 10 minutes",
                "",
            ),
            (
                "Cache hits",
                format_percentage(period.cached, period.replies),
                "of the last 10 minutes",
                "",
            ),
            (
                "Median latency",
                latency(period.median),
                "of the last 10 minutes",
                "",
            ),
            (
                "p95 latency",
                latency(period.p95),
                "of the last 10 minutes",
                "",
            ),
        ];
        for (name, value, time, class) in tiles {
            self.push(&["<div class=\"tile\"><span class=\"soft\">", name, "</span>"]);
            self.push(&["<b class=\"", class, "\">", &value, "</b>"]);
            self.push(&["<span class=\"soft\">", time, "</span></div>"]);
        }
    }

    /// The table of the last minute, ten minutes and hour.
    fn period_rows(&mut self) {
        let Snapshot {
            last_minute,
            last_ten_minutes,
            last_hour,
            uptime_seconds,
            ..
        } = self.snapshot;
        let uptime = *uptime_seconds;
        for (name, seconds, period) in [
            ("Last minute", 60, last_minute),
            ("Last 10 minutes", 600, last_ten_minutes),
            ("Last hour", 3600, last_hour),
        ] {
            let Period {
                queries,
                eligible,
                good,
                failed,
                replies,
                cached,
                ..
            } = period;
            let rate = format_rate(*queries, seconds.min(uptime));
            let cells = [
                ("Queries", format_count(*queries)),
                ("Rate", format!("{rate}/s")),
                ("Failed", format_percentage(*failed, *eligible)),
                ("In time", format_percentage(*good, *eligible)),
                ("Cache hits", format_percentage(*cached, *replies)),
                ("Median", latency(period.median)),
                ("p95", latency(period.p95)),
                ("p99", latency(period.p99)),
            ];
            self.push(&["<tr><th>", name, "</th>"]);
            for (label, value) in cells {
                self.cell(label, "number", &value);
            }
            self.push(&["</tr>"]);
        }
    }

    /// A cell of a table that becomes a list on a narrow screen, where the label stands beside the value.
    fn cell(&mut self, label: &str, class: &str, value: &str) {
        self.push(&["<td data-label=\"", label, "\" class=\"", class, "\">"]);
        self.push(&[value, "</td>"]);
    }

    /// A number that is a metric, too.
    fn figure(&mut self, metric: &str, value: u64, text: &str) {
        let metric = escape(metric).replace('"', "&quot;");
        let value = value.to_string();
        self.push(&[
            "<data data-metric=\"",
            &metric,
            "\" value=\"",
            &value,
            "\">",
        ]);
        self.push(&[text, "</data>"]);
    }

    fn resolver_rows(&mut self) {
        for (index, resolver) in self.snapshot.resolvers.iter().enumerate() {
            self.resolver_row(resolver, index < MAX_DETAILED);
        }
    }

    /// The row of an address. Its counts are metrics if it is one of the first.
    fn resolver_row(&mut self, resolver: &ResolverFigures, is_detailed: bool) {
        let now = self.snapshot.now;
        let status = &resolver.status;
        let labels = resolver_labels(status);
        let zones = match &*status.zones {
            "" => String::new(),
            zones => [" for ", &escape(zones)].concat(),
        };
        let address = status.address.to_string();
        // Host names and addresses contain no HTML metacharacters.
        self.push(&["<tr><th>", &address, "<br><span class=\"soft\">"]);
        self.push(&[&status.name, &zones, "</span></th>"]);
        let (class, state) = address_state(status, now);
        let note = status.obstruction.map_or("", Obstruction::note);
        self.cell("State", class, &[&state, note].concat());
        for (label, name, value) in [
            ("Queries", "dns_tool_resolver_queries_total", status.queries),
            (
                "Lost",
                "dns_tool_resolver_lost_queries_total",
                status.lost_queries,
            ),
        ] {
            self.push(&["<td data-label=\"", label, "\" class=\"number\">"]);
            let text = format_count(value);
            match is_detailed {
                true => self.figure(&[name, "{", &labels, "}"].concat(), value, &text),
                false => self.push(&[&text]),
            }
            self.push(&["</td>"]);
        }
        for (label, percent) in [("Median", 50), ("p95", 95)] {
            self.cell(
                label,
                "number",
                &latency(resolver.latency.percentile(percent)),
            );
        }
        self.push(&["<td data-label=\"Sessions\" class=\"number\">"]);
        let metric = ["dns_tool_resolver_sessions{", &labels, "}"].concat();
        let sessions = status.sessions as u64;
        self.figure(&metric, sessions, &sessions.to_string());
        self.push(&["</td>"]);
        self.cell("Key exchange", "", &key_exchange(status));
        self.cell("Pins", "", &pins(status));
        let (class, certificate) = certificate(status, now);
        self.cell("Certificate", class, &certificate);
        let (class, failure) = last_failure(status, now);
        self.cell("Last failure", class, &failure);
        self.push(&["</tr>"]);
    }

    fn group_sections(&mut self) {
        for group in &self.snapshot.groups {
            self.push(&[
                "<section><h2>",
                group.title,
                "</h2><table class=\"figures\">",
            ]);
            for figure in &group.figures {
                self.figure_row(figure);
            }
            self.push(&["</table></section>"]);
        }
    }

    fn figure_row(&mut self, figure: &Figure) {
        let format = |value| match figure.unit {
            Unit::Count => format_count(value),
            Unit::Octets => format_octets(value),
        };
        self.push(&["<tr><th>", figure.label]);
        if let Some(limit) = figure.limit {
            let [value, limit] = [figure.value, limit].map(|number| number.to_string());
            self.push(&[
                "<meter max=\"",
                &limit,
                "\" value=\"",
                &value,
                "\"></meter>",
            ]);
        }
        self.push(&["</th><td class=\"number\">"]);
        self.figure(figure.metric, figure.value, &format(figure.value));
        if let Some(limit) = figure.limit {
            self.push(&["<span class=\"soft\"> of ", &format(limit), "</span>"]);
        }
        self.push(&["</td></tr>"]);
    }

    fn outcome_rows(&mut self) {
        for outcome in &self.snapshot.outcomes {
            self.push(&["<tr><th>", outcome.name, "</th>"]);
            for (transport, value) in [("udp", outcome.udp), ("tcp", outcome.tcp)] {
                self.push(&["<td class=\"number\">"]);
                let metric = outcome_metric(transport, outcome.name);
                self.figure(&metric, value, &format_count(value));
                self.push(&["</td>"]);
            }
            self.push(&["</tr>"]);
        }
    }
}

fn latency(micros: Option<u64>) -> String {
    micros.map_or(NO_VALUE.to_owned(), format_latency)
}

/// The state of an address, and its class in the style sheet.
fn address_state(status: &AddressStatus, now: u64) -> (&'static str, String) {
    match status.failing_since {
        Some(since) => (
            "bad",
            format!("fails since {}", format_time_of_day(since, now)),
        ),
        None if !status.was_open => ("soft", "not asked yet".to_owned()),
        None if !status.healthy => ("warn", "avoided: it failed or was slow".to_owned()),
        None if status.is_cleartext => ("soft", "in cleartext".to_owned()),
        None => ("good", "authenticated".to_owned()),
    }
}

fn key_exchange(status: &AddressStatus) -> String {
    match (status.group, status.post_quantum_left_out) {
        (None, _) => NO_VALUE.to_owned(),
        (Some(group), false) => group.name().to_owned(),
        (Some(group), true) => [group.name(), ", post-quantum left out"].concat(),
    }
}

fn pins(status: &AddressStatus) -> String {
    let pins = status.pins;
    match status.pin_status {
        _ if pins == 0 => "none".to_owned(),
        Some(shown) if shown.pin_index > 0 => format!("number {} of {pins}", shown.pin_index),
        Some(_) => format!("none of {pins} fits"),
        None => pins.to_string(),
    }
}

/// How long the certificate is valid, and the class in the style sheet.
fn certificate(status: &AddressStatus, now: u64) -> (&'static str, String) {
    let expiry = status.pin_status.and_then(|shown| shown.not_after);
    let Some(expiry) = expiry else {
        return ("", NO_VALUE.to_owned());
    };
    let days = expiry.saturating_sub(now) / DAY;
    let class = match days {
        ..EXPIRY_WARNING_DAYS => "warn",
        _ => "",
    };
    let unit = if days == 1 { "day" } else { "days" };
    (
        class,
        format!("until {}, {} {unit}", Timestamp(expiry), format_count(days)),
    )
}

/// When and why the address failed last, and the class in the style sheet.
fn last_failure(status: &AddressStatus, now: u64) -> (&'static str, String) {
    let Some(failure) = &status.last_failure else {
        return ("soft wide", "none".to_owned());
    };
    let class = match (status.failing_since, now.saturating_sub(failure.at)) {
        (Some(_), _) => "bad wide",
        (None, ..RECENT_FAILURE) => "wide",
        _ => "soft wide",
    };
    let (time, cause) = (format_time_of_day(failure.at, now), &failure.cause);
    (class, format!("{time}: {}", escape(&cause.to_string())))
}

/// A text with the metacharacters of HTML as references.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
