//! How is a number counted and shown?
//!
//! Each room keeps the numbers that belong to it; this one knows what a number is, and how many of them together are spelled
//! for a program that collects them: as OpenMetrics 1.0 or in the text format of Prometheus, version 0.0.4. Times are whole
//! microseconds until they are spelled, in seconds: numbers with a floating point cost more of the binary than all of this.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows, shared by all threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A count of nothing yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        // Nothing is read in its wake: a counter orders no other memory.
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value().fmt(f)
    }
}

/// The upper ends of a histogram's classes, in microseconds: from a cache's answer to the longest deadline that is usual.
pub const BOUNDS: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000,
];

/// How long things took, in classes, shared by all threads.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and one for what took longer.
    classes: [Counter; BOUNDS.len() + 1],
    /// Microseconds.
    sum: Counter,
}

impl Histogram {
    /// Nothing was measured yet.
    pub const fn new() -> Self {
        Self {
            classes: [const { Counter::new() }; BOUNDS.len() + 1],
            sum: Counter::new(),
        }
    }

    /// Counts so many that took so long.
    pub fn observe(&self, took: Duration, times: u64) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|bound| *bound < micros);
        self.classes[class].add(times);
        self.sum.add(micros.saturating_mul(times));
    }

    /// What was counted so far.
    #[inline(never)]
    pub fn value(&self) -> Spread {
        let mut spread = Spread::default();
        for (count, class) in spread.classes.iter_mut().zip(&self.classes) {
            *count = class.value();
        }
        spread.sum = self.sum.value();
        spread
    }
}

/// What a histogram has counted.
///
/// Its functions are not written out in their callers: those loops would be unrolled there, at 10 KB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many were in each class, and how many took longer than all bounds.
    pub classes: [u64; BOUNDS.len() + 1],
    /// How long all took together, in microseconds.
    pub sum: u64,
}

impl Spread {
    /// How many there were.
    #[inline(never)]
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// What was counted since `before`.
    #[inline(never)]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.classes.iter_mut().zip(&before.classes) {
            *count = count.saturating_sub(*before);
        }
        since.sum = self.sum.saturating_sub(before.sum);
        since
    }

    /// Both together.
    #[inline(never)]
    pub fn with(&self, other: &Self) -> Self {
        let mut both = *self;
        for (count, other) in both.classes.iter_mut().zip(&other.classes) {
            *count += other;
        }
        both.sum += other.sum;
        both
    }

    /// In how many microseconds so many hundredths were done: as far into its class as there are others before it there.
    /// None where nothing was counted; the last bound where it took longer than that.
    #[inline(never)]
    pub fn percentile(&self, hundredths: u64) -> Option<u64> {
        let rank = (self.count() * hundredths).div_ceil(100).max(1);
        let mut before = 0;
        let mut least = 0;
        for (count, bound) in self.classes.iter().zip(BOUNDS) {
            if before + count >= rank {
                return Some(least + (bound - least) * (rank - before) / count);
            }
            before += count;
            least = bound;
        }
        (self.count() > 0).then_some(least)
    }
}

/// What a family of numbers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// They are histograms.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// As it is.
    Whole(u64),
    /// Microseconds, spelled as seconds.
    Micros(u64),
    /// How long things took.
    Spread(Box<Spread>),
}

/// Numbers of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The name, without `_total`.
    pub name: &'static str,
    /// What they are.
    pub kind: Kind,
    /// What they say, in a sentence.
    pub help: &'static str,
    /// Each number with its labels, spelled as in `outcome="answered"`, or none.
    pub samples: Vec<(String, Value)>,
}

/// How numbers are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Spells numbers.
pub fn spell(families: &[Family], format: Format) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for family in families {
        let Family { name, help, .. } = family;
        let total = match family.kind {
            Kind::Counter => "_total",
            _ => "",
        };
        // There a family bears the name of its numbers, here of what they count.
        let suffix = match format {
            Format::Prometheus => total,
            Format::OpenMetrics => "",
        };
        let kind = family.kind.name();
        push(&mut out, &["# HELP ", name, suffix, " ", help, "\n"]);
        push(&mut out, &["# TYPE ", name, suffix, " ", kind, "\n"]);
        for unit in ["seconds", "bytes"] {
            let ends = name
                .strip_suffix(unit)
                .is_some_and(|rest| rest.ends_with('_'));
            if ends && format == Format::OpenMetrics {
                push(&mut out, &["# UNIT ", name, " ", unit, "\n"]);
            }
        }
        for (labels, value) in &family.samples {
            match value {
                Value::Whole(number) => sample(&mut out, name, total, labels, &number.to_string()),
                Value::Micros(micros) => sample(&mut out, name, total, labels, &seconds(*micros)),
                Value::Spread(spread) => write_spread(&mut out, name, labels, spread),
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_spread(out: &mut String, name: &str, labels: &str, spread: &Spread) {
    let mut count = 0;
    let comma = if labels.is_empty() { "" } else { "," };
    for (index, class) in spread.classes.iter().enumerate() {
        count += class;
        let bound = BOUNDS.get(index).map(|bound| seconds(*bound));
        let bound = bound.as_deref().unwrap_or("+Inf");
        let labels = [labels, comma, "le=\"", bound, "\""].concat();
        sample(out, name, "_bucket", &labels, &count.to_string());
    }
    sample(out, name, "_sum", labels, &seconds(spread.sum));
    sample(out, name, "_count", labels, &count.to_string());
}

fn sample(out: &mut String, name: &str, suffix: &str, labels: &str, value: &str) {
    push(out, &[name, suffix]);
    if !labels.is_empty() {
        push(out, &["{", labels, "}"]);
    }
    push(out, &[" ", value, "\n"]);
}

#[inline(never)]
fn push(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
}

/// Microseconds as seconds, with as many digits as are needed and one behind the point at least: `0.00005`, `1.0`.
pub fn seconds(micros: u64) -> String {
    let mut text = String::new();
    let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
    // Writing into a string does not fail.
    let _ = write!(text, "{whole}.{rest:06}");
    while text.ends_with('0') && !text.ends_with(".0") {
        text.pop();
    }
    text
}

/// A label and its value, in which what would end it is escaped.
pub fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    [name, "=\"", &value.replace('\n', "\\n"), "\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_as_long_as_a_bound_is_within_it() {
        let histogram = Histogram::new();
        for micros in [0, 50, 51, 5_000_000, 5_000_001] {
            histogram.observe(Duration::from_micros(micros), 2);
        }
        let spread = histogram.value();
        let mut classes = [0; BOUNDS.len() + 1];
        (classes[0], classes[1]) = (4, 2);
        (classes[15], classes[16]) = (2, 2);
        assert_eq!(spread.classes, classes);
        assert_eq!((spread.count(), spread.sum), (10, 2 * 10_000_102));
    }

    #[test]
    fn a_percentile_lies_in_its_class() {
        let histogram = Histogram::new();
        assert_eq!(histogram.value().percentile(50), None);
        histogram.observe(Duration::from_micros(700), 90);
        let before = histogram.value();
        histogram.observe(Duration::from_secs(9), 10);
        let spread = histogram.value();
        assert_eq!(spread.percentile(45), Some(750));
        assert_eq!(spread.percentile(90), Some(1000));
        assert_eq!(spread.percentile(99), Some(5_000_000), "the last bound");
        assert_eq!(spread.since(&before).percentile(1), Some(5_000_000));
        assert_eq!(spread.since(&before).with(&before), spread);
    }

    #[test]
    fn seconds_are_spelled_without_a_loss() {
        for (micros, text) in [
            (0, "0.0"),
            (50, "0.00005"),
            (1_000_000, "1.0"),
            (2_500_000, "2.5"),
            (10_000_001, "10.000001"),
        ] {
            assert_eq!(seconds(micros), text);
        }
    }

    #[test]
    fn both_formats_say_the_same_numbers() {
        let spread = Histogram::new();
        spread.observe(Duration::from_millis(3), 2);
        let families = [
            Family {
                name: "x_things",
                kind: Kind::Counter,
                help: "Things.",
                samples: vec![(label("kind", "a\"b\\c\n"), Value::Whole(7))],
            },
            Family {
                name: "x_answer_seconds",
                kind: Kind::Histogram,
                help: "Times.",
                samples: vec![(String::new(), Value::Spread(Box::new(spread.value())))],
            },
            Family {
                name: "x_cpu_seconds",
                kind: Kind::Counter,
                help: "Time.",
                samples: vec![(String::new(), Value::Micros(1_500_000))],
            },
        ];
        let plain = spell(&families, Format::Prometheus);
        let open = spell(&families, Format::OpenMetrics);
        assert!(plain.starts_with(
            "# HELP x_things_total Things.\n# TYPE x_things_total counter\n\
             x_things_total{kind=\"a\\\"b\\\\c\\n\"} 7\n"
        ));
        assert!(
            open.starts_with("# HELP x_things Things.\n# TYPE x_things counter\nx_things_total{")
        );
        assert!(open.contains("# TYPE x_cpu_seconds counter\n# UNIT x_cpu_seconds seconds\n"));
        assert!(open.ends_with("x_cpu_seconds_total 1.5\n# EOF\n"));
        assert!(!plain.contains("# UNIT") && !plain.contains("# EOF"));
        for text in [&plain, &open] {
            assert!(text.contains("x_answer_seconds_bucket{le=\"0.0025\"} 0\n"));
            assert!(text.contains("x_answer_seconds_bucket{le=\"0.005\"} 2\n"));
            assert!(text.contains("x_answer_seconds_bucket{le=\"+Inf\"} 2\n"));
            assert!(text.contains("x_answer_seconds_sum 0.006\nx_answer_seconds_count 2\n"));
        }
        let samples = |text: &str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(&plain), samples(&open));
    }
}
