//! What does a person see of the state?
//!
//! One HTML page that needs nothing from elsewhere and runs nothing: the figures that `/metrics` has, each marked with its
//! name there (`data-metric`), and how the last minutes went. No name that was asked for and no client is on it.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::forward::forwarder::Outcome;
use crate::monitoring::export::{Service, Sources, labels_of};
use crate::monitoring::exposition::{Family, Value, label};
use crate::system::clock;
use crate::system::date::{DAY, Moment};
use crate::telemetry::metrics::{BOUNDS, Spread};
use crate::upstream::Standing;

/// How often the state is noted for the charts, and how often it was at most.
const STEP: Duration = Duration::from_secs(10);
const STEPS: usize = 60;
/// The charts in their own units: of one step, and in all.
const BAR: usize = 10;
const WIDTH: usize = BAR * STEPS;
const HEIGHT: usize = 120;
/// Room for the words on its left.
const MARGIN: usize = 52;
/// What the page looks like. Its hash is all that the page's policy lets in.
const STYLE: &str = include_str!("page.css");
/// What it says, with words in double brackets where something is filled in ([`Out::fill`]).
const FORM: &str = include_str!("page.html");
/// What stands where there is nothing to say.
const NONE: &str = "–";
/// Days before a certificate's end from which on it is shown as something to see to.
const SOON: u64 = 14;

/// How the service did in the last minutes.
pub struct History {
    /// What had been counted by then, oldest first.
    notes: VecDeque<Service>,
    next: Instant,
}

impl History {
    /// Of nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            notes: VecDeque::with_capacity(STEPS + 1),
            next: now,
        }
    }

    /// When the next note is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Notes how the service does, if that is due.
    pub fn take(&mut self, now: Instant, sources: &Sources) {
        if now < self.next {
            return;
        }
        // A machine that slept has no steps for that time.
        self.next = (self.next + STEP).max(now);
        if self.notes.len() > STEPS {
            self.notes.pop_front();
        }
        self.notes.push_back(sources.service());
    }

    /// What happened in each step, oldest first; the last one goes on until `now`.
    fn steps(&self, now: &Service) -> Vec<Service> {
        let ends = self.notes.iter().skip(1).chain([now]);
        let steps = self.notes.iter().zip(ends);
        steps.map(|(before, after)| after.since(before)).collect()
    }

    /// What happened in all of them.
    fn whole(&self, now: &Service) -> Service {
        self.notes.front().map_or(*now, |before| now.since(before))
    }
}

impl Service {
    /// What happened since `before`.
    fn since(&self, before: &Self) -> Self {
        Self {
            owed: self.owed.saturating_sub(before.owed),
            good: self.good.saturating_sub(before.good),
            failed: self.failed.saturating_sub(before.failed),
            all: self.all.saturating_sub(before.all),
            cache: self.cache.since(&before.cache),
            resolver: self.resolver.since(&before.resolver),
        }
    }

    fn answers(&self) -> Spread {
        self.cache.with(&self.resolver)
    }
}

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
    standings: Vec<Standing>,
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
    // Called so often that copies would be half of the room.
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
            "bars" => return self.bars(),
            "lines" => return self.lines(),
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
            let state = match (standing.healthy, standing.shown) {
                (false, _) => "<td class=\"bad\">failed or was slow lately",
                (true, None) => "<td class=\"soft\">not asked yet",
                (true, Some(_)) => "<td class=\"good\">proved",
            };
            let pins = standing.pins.to_string();
            let slot = standing.shown.map_or(0, |shown| shown.slot).to_string();
            let pins = match (standing.pins, standing.shown) {
                (0, _) => "none".to_owned(),
                (_, Some(shown)) if shown.slot > 0 => ["number ", &slot, " of ", &pins].concat(),
                (_, Some(_)) => ["none of ", &pins, " fits"].concat(),
                (_, None) => pins,
            };
            let expiry = standing.shown.and_then(|shown| shown.not_after);
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

    fn chart(&mut self, name: &str) {
        let size = format!("0 0 {} {}", MARGIN + WIDTH + 4, HEIGHT + 24);
        self.push(&[
            "<svg viewBox=\"",
            &size,
            "\" role=\"img\" aria-label=\"",
            name,
            "\">",
        ]);
        let _ = write!(
            self.text,
            "<path class=\"axis\" d=\"M{MARGIN} {HEIGHT}h{WIDTH}\"/><text x=\"{MARGIN}\" y=\"{}\">10 minutes ago</text>\
             <text x=\"{}\" y=\"{0}\" text-anchor=\"end\">now</text>",
            HEIGHT + 16,
            MARGIN + WIDTH
        );
    }

    /// A word on the left, at this height.
    fn mark(&mut self, height: usize, word: &str) {
        let _ = write!(
            self.text,
            "<text x=\"0\" y=\"{}\">{word}</text>",
            height + 10
        );
    }

    fn bars(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        self.chart("queries a second in the last ten minutes");
        let most = steps.iter().map(|step| step.all).max().unwrap_or(0).max(10);
        self.mark(0, &per_second(most));
        for (index, step) in steps.iter().enumerate() {
            let x = MARGIN + (STEPS.saturating_sub(steps.len()) + index) * BAR;
            let _ = write!(
                self.text,
                "<g><title>{} a second</title>",
                per_second(step.all)
            );
            for (count, class) in [(step.all, "all"), (step.failed, "failed")] {
                let height = HEIGHT as u64 * count / most;
                let y = HEIGHT as u64 - height;
                let width = BAR - 2;
                let _ = write!(
                    self.text,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
                );
            }
            self.push(&["</g>"]);
        }
        self.push(&["</svg>"]);
        self.steps = steps;
    }

    fn lines(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        self.chart("latency in the last ten minutes");
        for micros in [1_000, 10_000, 100_000, 1_000_000] {
            let y = height(micros);
            let _ = write!(
                self.text,
                "<path class=\"axis\" d=\"M{MARGIN} {y}h{WIDTH}\"/>"
            );
            self.mark(y.saturating_sub(6), &time(micros));
        }
        for (hundredths, class) in [(95, "most"), (50, "half")] {
            let mut path = String::new();
            let mut pen = 'M';
            for (index, step) in steps.iter().enumerate() {
                let x = MARGIN + (STEPS.saturating_sub(steps.len()) + index) * BAR + BAR / 2;
                match step.answers().percentile(hundredths) {
                    // A point alone is a short line.
                    Some(micros) => {
                        let _ = write!(path, "{pen}{x} {}h1", height(micros));
                        pen = 'L';
                    }
                    None => pen = 'M',
                }
            }
            self.push(&["<path class=\"", class, "\" d=\"", &path, "\"/>"]);
        }
        self.push(&["</svg>"]);
        self.steps = steps;
    }
}

/// Where a time is drawn: each class of [`BOUNDS`] has the same height.
fn height(micros: u64) -> usize {
    let class = BOUNDS.partition_point(|bound| *bound < micros);
    let least = class.checked_sub(1).map_or(0, |below| BOUNDS[below]);
    let within = match BOUNDS.get(class) {
        Some(most) => 100 * (micros - least) / (most - least),
        None => 100,
    };
    let hundredths = 100 * class.min(BOUNDS.len() - 1) + usize::try_from(within).unwrap_or(100);
    HEIGHT - HEIGHT * hundredths / (100 * BOUNDS.len())
}

/// A time in the unit that fits.
fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// What a step's count is in a second.
fn per_second(count: u64) -> String {
    let tenths = count * 10 / STEP.as_secs();
    match tenths {
        0..100 => format!("{}.{}", tenths / 10, tenths % 10),
        _ => (tenths / 10).to_string(),
    }
}

/// A share in hundredths, with two digits behind the point: never 100 unless it is all.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return NONE.to_owned();
    }
    let parts = u128::from(part) * 10_000 / u128::from(whole);
    format!("{}.{:02} %", parts / 100, parts % 100)
}

/// How long something lasts, in the two largest units.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / DAY, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_shares_are_spelled_for_people() {
        assert_eq!(
            [0, 999, 1_000, 12_345, 2_500_000].map(time),
            ["0 µs", "999 µs", "1.0 ms", "12 ms", "2.5 s"]
        );
        assert_eq!(share(0, 0), "–");
        assert_eq!(share(99_999, 100_000), "99.99 %");
        assert_eq!(share(u64::MAX, u64::MAX), "100.00 %");
        assert_eq!(
            [59, 3_661, 90_000].map(span),
            ["0 min 59 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!(
            [0, 5, 99, 1_234].map(per_second),
            ["0.0", "0.5", "9.9", "123"]
        );
    }

    #[test]
    fn longer_times_are_drawn_higher_and_all_within_the_chart() {
        let heights: Vec<_> = [0, 50, 70, 3_000, 99_000, 5_000_000, u64::MAX]
            .map(height)
            .to_vec();
        assert_eq!((heights[0], heights[6]), (HEIGHT, 0));
        assert!(
            heights.is_sorted_by(|lower, higher| lower >= higher),
            "{heights:?}"
        );
    }
}
