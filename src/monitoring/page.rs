//! What does a person see of the state?
//!
//! One HTML page that needs nothing from elsewhere and runs nothing: the figures that `/metrics` has, each marked with its
//! name there (`data-metric`), and how the last minutes went. No name that was asked for and no client is on it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::forward::outcome::Outcome;
use crate::monitoring::chart;
use crate::monitoring::export::{Sources, labels_of};
use crate::monitoring::exposition::{Family, Value, label};
use crate::monitoring::figures::{NONE, share, span, time};
use crate::monitoring::history::History;
use crate::monitoring::service::Service;
use crate::system::clock;
use crate::system::date::{DAY, Moment};
use crate::upstream::AddressStatus;

/// What the page looks like. Its hash is all that the page's policy lets in.
const STYLE: &str = include_str!("page.css");
/// What it says, with words in double brackets where something is filled in ([`Out::fill`]).
const FORM: &str = include_str!("page.html");
/// Days before a certificate's end from which on it is shown as something to see to.
const SOON: u64 = 14;

/// The page.
pub struct Page {
    policy: String,
}

impl Default for Page {
    fn default() -> Self {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        let policy = [
            "default-src 'none'; style-src 'sha256-",
            &hash,
            "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ];
        Self {
            policy: policy.concat(),
        }
    }
}

impl Page {
    /// What a browser may do with it (CSP): show it.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Writes it. `trouble` is why nobody should send queries here, if nobody should.
    pub fn write(&self, sources: &Sources, history: &History, trouble: Option<&str>) -> String {
        let service = sources.service();
        let mut out = Out {
            text: String::with_capacity(32 * 1024),
            families: sources.families(),
            standings: sources.standings(),
            steps: history.steps(&service),
            lately: history.whole(&service),
            service,
            now: clock::since_1970().as_secs(),
            up: sources.start.up(clock::now()),
            trouble,
        };
        let mut rest = FORM;
        while let Some((text, tail)) = rest.split_once("[[") {
            let (word, tail) = tail.split_once("]]").unwrap_or((tail, ""));
            out.text.push_str(text);
            out.fill(word);
            rest = tail;
        }
        out.text.push_str(rest);
        out.text
    }
}

/// The page in the making, and what stands on it.
struct Out<'f> {
    text: String,
    families: Vec<Family>,
    standings: Vec<AddressStatus>,
    steps: Vec<Service>,
    lately: Service,
    service: Service,
    /// In seconds since 1970.
    now: u64,
    /// In seconds.
    up: u64,
    trouble: Option<&'f str>,
}

impl Out<'_> {
    // Called so often that copies would be half of this file in the binary.
    #[inline(never)]
    fn push(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text.push_str(part));
    }

    /// Writes what a word of the form stands for.
    fn fill(&mut self, word: &str) {
        let answers = self.lately.answers();
        let within = |hundredths| answers.percentile(hundredths).map_or(NONE.to_owned(), time);
        let text = match word {
            "style" => STYLE.to_owned(),
            "version" => env!("CARGO_PKG_VERSION").to_owned(),
            "state" => match self.trouble {
                None => "<span class=\"state good\">ready</span>".to_owned(),
                Some(cause) => ["<span class=\"state bad\">", cause, "</span>"].concat(),
            },
            "up" => span(self.up),
            "now" => format!("{:#}", Moment(self.now)),
            "all" => self.service.all.to_string(),
            "good" => share(self.lately.good, self.lately.owed),
            "half" => within(50),
            "most" => within(95),
            "nearly" => within(99),
            "cached" => share(self.lately.cache.count(), answers.count()),
            "bars" => return chart::bars(&mut self.text, &self.steps),
            "lines" => return chart::lines(&mut self.text, &self.steps),
            "resolvers" => return self.resolvers(),
            "outcomes" => return self.outcomes(),
            _ => match (word.strip_prefix('='), word.strip_prefix("meter ")) {
                (Some(name), _) => return self.figure(name),
                (_, Some(names)) => return self.meter(names),
                (None, None) => NONE.to_owned(),
            },
        };
        self.text.push_str(&text);
    }

    /// The number of this name, with its labels behind it in braces.
    fn value(&self, name: &str) -> Option<u64> {
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let labels = labels.trim_end_matches('}');
        let stem = name.trim_end_matches("_total").trim_end_matches("_count");
        let family = self.families.iter().find(|family| family.name == stem)?;
        let mut samples = family.samples.iter();
        match &samples.find(|(other, _)| other == labels)?.1 {
            Value::Whole(number) | Value::Micros(number) => Some(*number),
            Value::Spread(spread) => Some(spread.count()),
        }
    }

    /// A cell with a number, marked with where it comes from.
    fn figure(&mut self, name: &str) {
        let value = self
            .value(name)
            .map_or(NONE.to_owned(), |value| value.to_string());
        let mark = name.replace('"', "&quot;");
        self.push(&[
            "<td class=\"number\" data-metric=\"",
            &mark,
            "\">",
            &value,
            "</td>",
        ]);
    }

    /// How much of what there may be there is.
    fn meter(&mut self, names: &str) {
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

    fn resolvers(&mut self) {
        for standing in std::mem::take(&mut self.standings) {
            let state = match (standing.healthy, standing.pin_status) {
                (false, _) => "<td class=\"bad\">failed or was slow lately",
                (true, None) => "<td class=\"soft\">not asked yet",
                (true, Some(_)) => "<td class=\"good\">proved",
            };
            let pins = standing.pins.to_string();
            let slot = standing
                .pin_status
                .map_or(0, |shown| shown.pin_index)
                .to_string();
            let pins = match (standing.pins, standing.pin_status) {
                (0, _) => "none".to_owned(),
                (_, Some(shown)) if shown.pin_index > 0 => {
                    ["number ", &slot, " of ", &pins].concat()
                }
                (_, Some(_)) => ["none of ", &pins, " fits"].concat(),
                (_, None) => pins,
            };
            let expiry = standing.pin_status.and_then(|shown| shown.not_after);
            let expiry = expiry.map_or(["<td>", NONE].concat(), |expiry| {
                let days = expiry.saturating_sub(self.now) / DAY;
                let class = if days < SOON { "bad" } else { "" };
                format!(
                    "<td class=\"{class}\">{days} days, until {}",
                    Moment(expiry)
                )
            });
            let address = standing.address.to_string();
            // Host names and addresses have nothing in them that means something in HTML.
            self.push(&["<tr><th>", &address, "<td>", &standing.name, state]);
            self.push(&["<td>", &pins, &expiry]);
            let labels = labels_of(&standing);
            self.figure(&["dns_tool_resolver_sessions{", &labels, "}"].concat());
            self.push(&["</tr>"]);
        }
    }

    fn outcomes(&mut self) {
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
                names.iter().for_each(|name| self.figure(name));
                self.push(&["</tr>"]);
            }
        }
    }
}
