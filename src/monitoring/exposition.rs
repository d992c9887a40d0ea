//! How are numbers written for a program that collects them?
//!
//! As OpenMetrics 1.0, or in the Prometheus text format 0.0.4: metric families, each with labelled samples.

use crate::telemetry::metrics::{BUCKET_BOUNDS, Counter, HistogramSnapshot, format_seconds};

/// The type of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

impl Kind {
    fn type_name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The value of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A plain number.
    Integer(u64),
    /// Microseconds, written as seconds.
    Micros(u64),
    /// Durations, written as buckets, sum and count.
    Histogram(Box<HistogramSnapshot>),
}

/// A metric family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The name, without `_total`.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// What the metric means, in one sentence.
    pub help: &'static str,
    /// Each sample's labels, written as `outcome="answered"` or empty, and its value.
    pub samples: Vec<(String, Value)>,
}

/// A format for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The media type for the header Content-Type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes all families in a format.
pub fn encode(families: &[Family], format: Format) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for family in families {
        let Family { name, help, .. } = family;
        let total_suffix = match family.kind {
            Kind::Counter => "_total",
            _ => "",
        };
        // In the Prometheus format, the family of a counter is named with `_total`; in OpenMetrics, only its samples are.
        let suffix = match format {
            Format::Prometheus => total_suffix,
            Format::OpenMetrics => "",
        };
        let kind = family.kind.type_name();
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
                Value::Integer(number) => {
                    write_sample(&mut out, name, total_suffix, labels, &number.to_string())
                }
                Value::Micros(micros) => write_sample(
                    &mut out,
                    name,
                    total_suffix,
                    labels,
                    &format_seconds(*micros),
                ),
                Value::Histogram(histogram) => write_histogram(&mut out, name, labels, histogram),
            }
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_histogram(out: &mut String, name: &str, labels: &str, histogram: &HistogramSnapshot) {
    let mut count = 0;
    let comma = if labels.is_empty() { "" } else { "," };
    for (index, bucket) in histogram.buckets.iter().enumerate() {
        count += bucket;
        let bound = BUCKET_BOUNDS.get(index).map(|bound| format_seconds(*bound));
        let bound = bound.as_deref().unwrap_or("+Inf");
        let labels = [labels, comma, "le=\"", bound, "\""].concat();
        write_sample(out, name, "_bucket", &labels, &count.to_string());
    }
    write_sample(out, name, "_sum", labels, &format_seconds(histogram.sum));
    write_sample(out, name, "_count", labels, &count.to_string());
}

fn write_sample(out: &mut String, name: &str, suffix: &str, labels: &str, value: &str) {
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

/// A label and its value, escaped.
pub fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    [name, "=\"", &value.replace('\n', "\\n"), "\""].concat()
}
/// A list of families to which more are added.
///
/// Its methods are not inlined: they are called so often that copies of them would cost 10 KB.
pub(super) struct Families(pub(super) Vec<Family>);

impl Families {
    /// Adds a family.
    #[inline(never)]
    pub(super) fn add(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        samples: Vec<(String, Value)>,
    ) {
        self.0.push(Family {
            name,
            kind,
            help,
            samples,
        });
    }

    /// Adds a counter without labels.
    #[inline(never)]
    pub(super) fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(name, Kind::Counter, help, unlabelled(Value::Integer(value)));
    }

    /// Adds a gauge without labels.
    #[inline(never)]
    pub(super) fn gauge(&mut self, name: &'static str, help: &'static str, value: usize) {
        self.add(
            name,
            Kind::Gauge,
            help,
            unlabelled(Value::Integer(value as u64)),
        );
    }

    /// Adds a family with one counter for each value of the label `key`.
    pub(super) fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        key: &str,
        label_values: &[&str],
        counters: &[Counter],
    ) {
        let samples = label_values.iter().zip(counters);
        let samples = samples
            .map(|(label_value, count)| (label(key, label_value), Value::Integer(count.value())));
        self.add(name, Kind::Counter, help, samples.collect());
    }

    /// The same, without the counters that are 0. The first one is always there, so that the family is not empty. For values of which most
    /// never occur: they cost no series.
    pub(super) fn occurred_counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        key: &str,
        label_values: &[&str],
        counters: &[Counter],
    ) {
        self.counters(name, help, key, label_values, counters);
        if let Some(family) = self.0.last_mut() {
            let mut is_first = true;
            family
                .samples
                .retain(|(_, value)| std::mem::take(&mut is_first) || *value != Value::Integer(0));
        }
    }
}

/// One sample without labels.
#[inline(never)]
pub(super) fn unlabelled(value: Value) -> Vec<(String, Value)> {
    vec![(String::new(), value)]
}

/// One histogram for each value of the label `key`, or without labels if `key` is empty.
pub(super) fn histogram_samples(
    key: &str,
    histogram_samples: &[(&str, HistogramSnapshot)],
) -> Vec<(String, Value)> {
    let labelled = |(label_value, histogram): &(&str, HistogramSnapshot)| {
        let labels = if key.is_empty() {
            String::new()
        } else {
            label(key, label_value)
        };
        (labels, Value::Histogram(Box::new(*histogram)))
    };
    histogram_samples.iter().map(labelled).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::metrics::Histogram;

    #[test]
    fn counters_that_are_0_are_left_out_but_for_the_first() {
        let counters = [(); 3].map(|()| Counter::new());
        counters[2].add(7);
        let mut families = Families(Vec::new());
        families.occurred_counters("x", "Help.", "cause", &["a", "b", "c"], &counters);
        let expected = [
            (label("cause", "a"), Value::Integer(0)),
            (label("cause", "c"), Value::Integer(7)),
        ];
        assert_eq!(families.0[0].samples, expected);
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let histogram = Histogram::new();
        histogram.observe(Duration::from_millis(3), 2);
        let families = [
            Family {
                name: "x_things",
                kind: Kind::Counter,
                help: "Things.",
                samples: vec![(label("kind", "a\"b\\c\n"), Value::Integer(7))],
            },
            Family {
                name: "x_answer_seconds",
                kind: Kind::Histogram,
                help: "Times.",
                samples: vec![(
                    String::new(),
                    Value::Histogram(Box::new(histogram.snapshot())),
                )],
            },
            Family {
                name: "x_cpu_seconds",
                kind: Kind::Counter,
                help: "Time.",
                samples: vec![(String::new(), Value::Micros(1_500_000))],
            },
        ];
        let plain = encode(&families, Format::Prometheus);
        let open = encode(&families, Format::OpenMetrics);
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
