//! How are the last minutes drawn?
//!
//! As two SVG charts: how many queries came and failed, and how long clients waited.

use std::fmt::Write;

use crate::monitoring::history::MAX_INTERVALS;
use crate::monitoring::human_units::{format_latency, format_rate};
use crate::monitoring::service_level::ServiceLevel;
use crate::telemetry::metrics::BUCKET_BOUNDS;

/// The width of one interval, in the chart's own units.
const BAR_WIDTH: usize = 10;
/// The width of all intervals.
const CHART_WIDTH: usize = BAR_WIDTH * MAX_INTERVALS;
/// The height of the plot.
const CHART_HEIGHT: usize = 120;
/// Room for the labels on the left.
const LEFT_MARGIN: usize = 52;

/// Begins a chart of this name: its frame and its time axis.
fn begin_chart(out: &mut String, name: &str) {
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{name}\">",
        LEFT_MARGIN + CHART_WIDTH + 4,
        CHART_HEIGHT + 24
    );
    let _ = write!(
        out,
        "<path class=\"axis\" d=\"M{LEFT_MARGIN} {CHART_HEIGHT}h{CHART_WIDTH}\"/><text x=\"{LEFT_MARGIN}\" y=\"{}\">10 minutes ago</text>\
         <text x=\"{}\" y=\"{0}\" text-anchor=\"end\">now</text>",
        CHART_HEIGHT + 16,
        LEFT_MARGIN + CHART_WIDTH
    );
}

/// Writes a label on the left at this height.
fn write_label(out: &mut String, height: usize, word: &str) {
    let _ = write!(out, "<text x=\"0\" y=\"{}\">{word}</text>", height + 10);
}

/// Draws the rate of queries in each interval, and of those that failed. The last interval is the current one.
pub(super) fn write_rate_chart(out: &mut String, intervals: &[ServiceLevel]) {
    begin_chart(out, "queries a second in the last ten minutes");
    let max = intervals
        .iter()
        .map(|interval| interval.all)
        .max()
        .unwrap_or(0)
        .max(10);
    write_label(out, 0, &format_rate(max));
    for (index, interval) in intervals.iter().enumerate() {
        let x = LEFT_MARGIN + (MAX_INTERVALS.saturating_sub(intervals.len()) + index) * BAR_WIDTH;
        let _ = write!(
            out,
            "<g><title>{} a second</title>",
            format_rate(interval.all)
        );
        for (count, class) in [(interval.all, "all"), (interval.failed, "failed")] {
            let height = CHART_HEIGHT as u64 * count / max;
            let y = CHART_HEIGHT as u64 - height;
            let width = BAR_WIDTH - 2;
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
            );
        }
        out.push_str("</g>");
    }
    out.push_str("</svg>");
}

/// Draws the 95th and the 50th percentile of latency in each interval. The last interval is the current one.
pub(super) fn write_latency_chart(out: &mut String, intervals: &[ServiceLevel]) {
    begin_chart(out, "latency in the last ten minutes");
    for micros in [1_000, 10_000, 100_000, 1_000_000] {
        let y = latency_height(micros);
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{LEFT_MARGIN} {y}h{CHART_WIDTH}\"/>"
        );
        write_label(out, y.saturating_sub(6), &format_latency(micros));
    }
    for (percent, class) in [(95, "most"), (50, "half")] {
        let mut path = String::new();
        let mut pen = 'M';
        for (index, interval) in intervals.iter().enumerate() {
            let x = LEFT_MARGIN
                + (MAX_INTERVALS.saturating_sub(intervals.len()) + index) * BAR_WIDTH
                + BAR_WIDTH / 2;
            match interval.latency().percentile(percent) {
                // A point on its own is drawn as a short line.
                Some(micros) => {
                    let _ = write!(path, "{pen}{x} {}h1", latency_height(micros));
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    out.push_str("</svg>");
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
    CHART_HEIGHT - CHART_HEIGHT * percent / (100 * BUCKET_BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_latencies_are_drawn_higher_and_within_the_chart() {
        let heights: Vec<_> = [0, 50, 70, 3_000, 99_000, 5_000_000, u64::MAX]
            .map(latency_height)
            .to_vec();
        assert_eq!((heights[0], heights[6]), (CHART_HEIGHT, 0));
        assert!(
            heights.is_sorted_by(|lower, higher| lower >= higher),
            "{heights:?}"
        );
    }
}
