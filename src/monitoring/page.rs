//! What does a person see of the state?
//!
//! One HTML page without scripts or external resources. It shows the numbers of `/metrics`, each marked with its name there
//! (`data-metric`), and charts of the last minutes. It shows no query names and no clients.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::client::send_failure::SendFailure;
use crate::forward::outcome::Outcome;
use crate::monitoring::chart;
use crate::monitoring::export::{Exporter, resolver_labels};
use crate::monitoring::exposition::{Family, Value, label};
use crate::monitoring::history::History;
use crate::monitoring::human_units::{
    NO_VALUE, format_duration, format_latency, format_percentage,
};
use crate::monitoring::service_level::ServiceLevel;
use crate::system::clock;
use crate::system::date::{DAY, Timestamp};
use crate::upstream::{AddressStatus, Obstruction};

/// The style sheet. Its hash is the only source that the page's content security policy allows.
const STYLE: &str = include_str!("page.css");
/// The page, with placeholders in double brackets ([`PageWriter::fill_placeholder`]).
const TEMPLATE: &str = include_str!("page.html");
/// Days before a certificate's expiry from which the page highlights it.
const EXPIRY_WARNING_DAYS: u64 = 14;

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

    /// Writes the page. `not_ready_reason` is why no queries should be sent here, if there is a reason.
    pub fn write(
        &self,
        exporter: &Exporter,
        history: &History,
        not_ready_reason: Option<&str>,
    ) -> String {
        let service = exporter.service();
        let mut out = PageWriter {
            text: String::with_capacity(32 * 1024),
            families: exporter.collect_families(),
            addresses: exporter.address_status(),
            intervals: history.per_interval(&service),
            window: history.total(&service),
            service,
            now: clock::unix_time().as_secs(),
            uptime_seconds: exporter.start.uptime_seconds(clock::now()),
            not_ready_reason,
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

/// The page while it is written, and what it shows.
struct PageWriter<'f> {
    text: String,
    families: Vec<Family>,
    addresses: Vec<AddressStatus>,
    intervals: Vec<ServiceLevel>,
    window: ServiceLevel,
    service: ServiceLevel,
    /// Seconds since 1970.
    now: u64,
    /// Seconds since the start.
    uptime_seconds: u64,
    not_ready_reason: Option<&'f str>,
}

impl PageWriter<'_> {
    // Not inlined: copies would be half of this file in the binary.
    #[inline(never)]
    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
    }

    /// Writes the content of a placeholder.
    fn fill_placeholder(&mut self, placeholder: &str) {
        let latency = self.window.latency();
        let within = |percent| {
            latency
                .percentile(percent)
                .map_or(NO_VALUE.to_owned(), format_latency)
        };
        let text = match placeholder {
            "style" => STYLE.to_owned(),
            "version" => env!("CARGO_PKG_VERSION").to_owned(),
            "state" => match self.not_ready_reason {
                None => "<span class=\"state good\">ready</span>".to_owned(),
                Some(cause) => ["<span class=\"state bad\">", cause, "</span>"].concat(),
            },
            "up" => format_duration(self.uptime_seconds),
            "now" => format!("{:#}", Timestamp(self.now)),
            "all" => self.service.all.to_string(),
            "good" => format_percentage(self.window.good, self.window.eligible),
            "half" => within(50),
            "most" => within(95),
            "nearly" => within(99),
            "cached" => format_percentage(self.window.cache_latency.count(), latency.count()),
            "bars" => return chart::write_rate_chart(&mut self.text, &self.intervals),
            "lines" => return chart::write_latency_chart(&mut self.text, &self.intervals),
            "resolvers" => return self.resolver_rows(),
            "outcomes" => return self.outcome_rows(),
            "unsent" => return self.unsent_rows(),
            _ => match (
                placeholder.strip_prefix('='),
                placeholder.strip_prefix("meter "),
            ) {
                (Some(name), _) => return self.metric_cell(name),
                (_, Some(names)) => return self.meter_element(names),
                (None, None) => NO_VALUE.to_owned(),
            },
        };
        self.text.push_str(&text);
    }

    /// The value of the metric `NAME{LABELS}`.
    fn value(&self, name: &str) -> Option<u64> {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels.trim_end_matches('}');
        let stem = name.trim_end_matches("_total").trim_end_matches("_count");
        let family = self.families.iter().find(|family| family.name == stem)?;
        let mut samples = family.samples.iter();
        match &samples.find(|(other, _)| other == labels)?.1 {
            Value::Integer(number) | Value::Micros(number) => Some(*number),
            Value::Histogram(histogram) => Some(histogram.count()),
        }
    }

    /// A table cell with the value of a metric, marked with its name.
    fn metric_cell(&mut self, name: &str) {
        let value = self
            .value(name)
            .map_or(NO_VALUE.to_owned(), |value| value.to_string());
        let mark = name.replace('"', "&quot;");
        self.push(&[
            "<td class=\"number\" data-metric=\"",
            &mark,
            "\">",
            &value,
            "</td>",
        ]);
    }

    /// A bar that compares two metrics: `VALUE LIMIT`.
    fn meter_element(&mut self, names: &str) {
        let (value, limit) = names.split_once(' ').unwrap_or((names, ""));
        let [value, limit] = [value, limit].map(|name| self.value(name).unwrap_or(0).to_string());
        self.push(&[
            "<meter max=\"",
            &limit,
            "\" value=\"",
            &value,
            "\"></meter>",
        ]);
    }

    fn resolver_rows(&mut self) {
        for status in std::mem::take(&mut self.addresses) {
            let state = match (status.healthy, status.was_open, status.is_cleartext) {
                (false, ..) => "<td class=\"bad\">failed or was slow lately",
                (true, false, _) => "<td class=\"soft\">not asked yet",
                (true, true, true) => "<td class=\"soft\">in cleartext",
                (true, true, false) => "<td class=\"good\">proved",
            };
            let pins = status.pins.to_string();
            let pin_number = status
                .pin_status
                .map_or(0, |shown| shown.pin_index)
                .to_string();
            let pins = match (status.pins, status.pin_status) {
                (0, _) => "none".to_owned(),
                (_, Some(shown)) if shown.pin_index > 0 => {
                    ["number ", &pin_number, " of ", &pins].concat()
                }
                (_, Some(_)) => ["none of ", &pins, " fits"].concat(),
                (_, None) => pins,
            };
            let expiry = status.pin_status.and_then(|shown| shown.not_after);
            let expiry = expiry.map_or(["<td>", NO_VALUE].concat(), |expiry| {
                let days = expiry.saturating_sub(self.now) / DAY;
                let class = if days < EXPIRY_WARNING_DAYS {
                    "bad"
                } else {
                    ""
                };
                format!(
                    "<td class=\"{class}\">{days} days, until {}",
                    Timestamp(expiry)
                )
            });
            let address = status.address.to_string();
            let zones = match &*status.zones {
                "" => String::new(),
                zones => [" for ", &escape(zones)].concat(),
            };
            // Host names and addresses contain no HTML metacharacters.
            let key_exchange = match (status.group, status.post_quantum_left_out) {
                (None, _) => NO_VALUE.to_owned(),
                (Some(group), false) => group.name().to_owned(),
                (Some(group), true) => [group.name(), ", post-quantum left out"].concat(),
            };
            self.push(&["<tr><th>", &address, "<td>", &status.name, &zones, state]);
            self.push(&[status.obstruction.map_or("", Obstruction::note)]);
            self.push(&["<td>", &key_exchange, "<td>", &pins, &expiry]);
            let labels = resolver_labels(&status);
            self.metric_cell(&["dns_tool_resolver_sessions{", &labels, "}"].concat());
            self.push(&["</tr>"]);
        }
    }

    /// A row for each cause for which replies were not sent.
    fn unsent_rows(&mut self) {
        for cause in SendFailure::ALL.map(SendFailure::name) {
            let labels = label("cause", cause);
            let name = ["dns_tool_replies_not_sent_total{", &labels, "}"].concat();
            if self.value(&name) > Some(0) {
                self.push(&["<tr><th>Replies not sent: ", cause, "</th>"]);
                self.metric_cell(&name);
                self.push(&["</tr>"]);
            }
        }
    }

    fn outcome_rows(&mut self) {
        for outcome in Outcome::ALL {
            let names = ["udp", "tcp"].map(|transport| {
                let labels = [
                    label("transport", transport),
                    label("outcome", outcome.name()),
                ];
                ["dns_tool_queries_total{", &labels.join(","), "}"].concat()
            });
            if names.iter().any(|name| self.value(name) > Some(0)) {
                self.push(&["<tr><th>", outcome.name(), "</th>"]);
                names.iter().for_each(|name| self.metric_cell(name));
                self.push(&["</tr>"]);
            }
        }
    }
}
/// The names of zones, with the metacharacters of HTML as references.
fn escape(zones: &str) -> String {
    zones
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
