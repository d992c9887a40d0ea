//! How is the past drawn?
//!
//! As SVG charts: how many queries came and which share of them failed, and how long clients waited.

use std::fmt::Write;

use crate::monitoring::history::MAX_INTERVALS;
use crate::monitoring::human_units::{format_latency, format_percentage, format_rate};
use crate::monitoring::snapshot::Period;
use crate::telemetry::metrics::BUCKET_BOUNDS;

/// The width of one interval, in the chart's own units.
const BAR_WIDTH: usize = 8;
/// The number of intervals that are drawn: those that are kept, and the one that goes on.
const INTERVALS: usize = MAX_INTERVALS + 1;
/// The width of all intervals.
const WIDTH: usize = BAR_WIDTH * INTERVALS;
/// The height of the plot.
const HEIGHT: usize = 120;
/// Room above the plot, for half a line of text.
const TOP: usize = 8;
/// Room for the labels on the left.
const LEFT: usize = 64;

/// The time that a chart shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// Ten minutes, in intervals of ten seconds.
    TenMinutes,
    /// An hour, in intervals of a minute.
    Hour,
}

impl Span {
    fn name(self) -> &'static str {
        match self {
            Self::TenMinutes => "in the last 10 minutes",
            Self::Hour => "in the last hour",
        }
    }

    /// Seconds of one interval.
    fn interval(self) -> u64 {
        match self {
            Self::TenMinutes => 10,
            Self::Hour => 60,
        }
    }

    /// The words below the time axis, from the left to the right.
    fn labels(self) -> [&'static str; 3] {
        match self {
            Self::TenMinutes => ["10 min ago", "5 min ago", "now"],
            Self::Hour => ["60 min ago", "30 min ago", "now"],
        }
    }
}

/// A chart while it is drawn.
struct Chart(String);

impl Chart {
    /// Begins a chart of this name: its frame and its time axis.
    fn new(name: &str, span: Span) -> Self {
        let (width, height) = (LEFT + WIDTH + 4, TOP + HEIGHT + 20);
        let mut chart = Self(format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name} {}\">",
            span.name()
        ));
        let anchors = ["start", "middle", "end"];
        let places = [LEFT, LEFT + WIDTH / 2, LEFT + WIDTH];
        for ((label, anchor), x) in span.labels().into_iter().zip(anchors).zip(places) {
            let y = TOP + HEIGHT + 15;
            let _ = write!(
                chart.0,
                "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{label}</text>"
            );
        }
        chart
    }

    /// Draws a line across the plot at this height from its top, and its label on the left.
    fn grid_line(&mut self, from_top: usize, label: &str) {
        let y = TOP + from_top;
        let _ = write!(
            self.0,
            "<path class=\"axis\" d=\"M{LEFT} {y}h{WIDTH}\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6,
            y + 4
        );
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>");
        self.0
    }
}

/// The left edge of an interval, of so many. The last one is at the right.
fn left_of(index: usize, count: usize) -> usize {
    LEFT + (INTERVALS.saturating_sub(count) + index) * BAR_WIDTH
}

/// Draws the rate of queries in each interval, and on each bar the share that failed. The last interval goes on.
pub(super) fn rate_chart(intervals: &[Period], span: Span) -> String {
    let seconds = span.interval();
    let mut chart = Chart::new("Queries per second", span);
    let most = intervals.iter().map(|interval| interval.queries).max();
    let top = axis_top(most.unwrap_or(0).div_ceil(seconds));
    // An odd top has no whole half.
    let half = top.is_multiple_of(2).then_some((HEIGHT / 2, top / 2));
    for (from_top, rate) in [(0, top), (HEIGHT, 0)].into_iter().chain(half) {
        let label = format_rate(rate, 1);
        chart.grid_line(from_top, &format!("{}/s", label.trim_end_matches(".0")));
    }
    let height_of = |count: u64| {
        let height = u128::from(count) * HEIGHT as u128 / u128::from(top * seconds);
        usize::try_from(height).unwrap_or(HEIGHT).min(HEIGHT)
    };
    for (index, interval) in intervals.iter().enumerate() {
        let Period {
            queries,
            failed,
            eligible,
            ..
        } = *interval;
        let (x, width) = (left_of(index, intervals.len()), BAR_WIDTH - 2);
        let all = height_of(queries);
        // A failure is seen, however few they are.
        let bad = height_of(failed).max(usize::from(failed > 0) * 2);
        let _ = write!(
            chart.0,
            "<g><title>{}/s, {} failed</title>",
            format_rate(queries, seconds),
            format_percentage(failed, eligible)
        );
        for (height, class) in [(all.max(bad), "all"), (bad, "failed")] {
            if height > 0 {
                let y = TOP + HEIGHT - height;
                let _ = write!(
                    chart.0,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
                );
            }
        }
        chart.0.push_str("</g>");
    }
    chart.end()
}

/// The top of an axis of numbers up to `most`: 1, 2, 4, 6 or 8 times a power of ten, at least 1.
fn axis_top(most: u64) -> u64 {
    let mut power = 1_u64;
    while most > power.saturating_mul(8) && power < u64::MAX / 100 {
        power *= 10;
    }
    [1, 2, 4, 6, 8]
        .map(|digit| digit * power)
        .into_iter()
        .find(|top| *top >= most)
        .unwrap_or(most)
}

/// Draws the 99th, the 95th and the 50th percentile of latency in each interval. The last interval goes on.
pub(super) fn latency_chart(intervals: &[Period], span: Span) -> String {
    let mut chart = Chart::new("Latency", span);
    for micros in [100, 1_000, 10_000, 100_000, 1_000_000] {
        chart.grid_line(latency_height(micros), &axis_latency(micros));
    }
    for class in ["p99", "p95", "median"] {
        let mut path = String::new();
        let mut pen = 'M';
        for (index, interval) in intervals.iter().enumerate() {
            let x = left_of(index, intervals.len()) + BAR_WIDTH / 2;
            let latency = match class {
                "p99" => interval.p99,
                "p95" => interval.p95,
                _ => interval.median,
            };
            match latency {
                // A point on its own is drawn as a short line.
                Some(micros) => {
                    let _ = write!(path, "{pen}{x} {}h1", TOP + latency_height(micros));
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        let _ = write!(chart.0, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    chart.end()
}

/// A latency without a fraction.
fn axis_latency(micros: u64) -> String {
    format_latency(micros).replace(".0", "")
}

/// The vertical position of a latency: all buckets of [`BUCKET_BOUNDS`] have the same height.
fn latency_height(micros: u64) -> usize {
    let bucket = BUCKET_BOUNDS.partition_point(|bound| *bound < micros);
    let lower = bucket
        .checked_sub(1)
        .map_or(0, |below| BUCKET_BOUNDS[below]);
    let within = match BUCKET_BOUNDS.get(bucket) {
        Some(upper) => 100 * (micros - lower) / (upper - lower),
        None => 100,
    };
    let percent =
        100 * bucket.min(BUCKET_BOUNDS.len() - 1) + usize::try_from(within).unwrap_or(100);
    HEIGHT - HEIGHT * percent / (100 * BUCKET_BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_latencies_are_drawn_higher_and_within_the_chart() {
        let heights: Vec<_> = [0, 50, 70, 3_000, 99_000, 5_000_000, u64::MAX]
            .map(latency_height)
            .to_vec();
        assert_eq!((heights[0], heights[6]), (HEIGHT, 0));
        assert!(
            heights.is_sorted_by(|lower, higher| lower >= higher),
            "{heights:?}"
        );
    }

    #[test]
    fn the_axis_ends_at_a_round_number_that_holds_all() {
        for (most, top) in [
            (0, 1),
            (1, 1),
            (3, 4),
            (8, 8),
            (9, 10),
            (100, 100),
            (123, 200),
        ] {
            assert_eq!(axis_top(most), top, "{most}");
        }
        assert!(axis_top(u64::MAX) == u64::MAX);
    }

    #[test]
    fn a_bar_shows_the_share_that_failed_and_each_failure() {
        let period = |queries, failed| Period {
            queries,
            failed,
            eligible: queries,
            ..Period::default()
        };
        let intervals = [period(0, 0), period(10_000, 5_000), period(10_000, 1)];
        let chart = rate_chart(&intervals, Span::TenMinutes);
        let bars = |class: &str| chart.matches(&format!("rect class=\"{class}\"")).count();
        assert_eq!((bars("all"), bars("failed")), (2, 2), "{chart}");
        assert!(
            chart.contains("<title>1,000/s, 50.00 % failed</title>"),
            "{chart}"
        );
        assert!(chart.contains("height=\"60\"/>") && chart.contains("height=\"2\"/>"));
    }
}
