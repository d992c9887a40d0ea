//! How are the last minutes drawn?
//!
//! As two charts (SVG): how many queries came and failed, and how long clients waited.

use std::fmt::Write;

use crate::monitoring::figures::{per_second, time};
use crate::monitoring::history::STEPS;
use crate::monitoring::service::Service;
use crate::telemetry::metrics::BUCKET_BOUNDS;

/// The width of one step, in a chart's own units.
const BAR: usize = 10;
/// The width of all steps.
const WIDTH: usize = BAR * STEPS;
/// The height of what is drawn.
const HEIGHT: usize = 120;
/// Room for the words on its left.
const MARGIN: usize = 52;

/// Begins a chart of this name: its frame and the axis of time.
fn begin(out: &mut String, name: &str) {
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{name}\">",
        MARGIN + WIDTH + 4,
        HEIGHT + 24
    );
    let _ = write!(
        out,
        "<path class=\"axis\" d=\"M{MARGIN} {HEIGHT}h{WIDTH}\"/><text x=\"{MARGIN}\" y=\"{}\">10 minutes ago</text>\
         <text x=\"{}\" y=\"{0}\" text-anchor=\"end\">now</text>",
        HEIGHT + 16,
        MARGIN + WIDTH
    );
}

/// Writes a word on the left, at this height.
fn mark(out: &mut String, height: usize, word: &str) {
    let _ = write!(out, "<text x=\"0\" y=\"{}\">{word}</text>", height + 10);
}

/// Draws how many queries came in each of these steps, the last of which is now, and how many of them failed.
pub(super) fn bars(out: &mut String, steps: &[Service]) {
    begin(out, "queries a second in the last ten minutes");
    let most = steps.iter().map(|step| step.all).max().unwrap_or(0).max(10);
    mark(out, 0, &per_second(most));
    for (index, step) in steps.iter().enumerate() {
        let x = MARGIN + (STEPS.saturating_sub(steps.len()) + index) * BAR;
        let _ = write!(out, "<g><title>{} a second</title>", per_second(step.all));
        for (count, class) in [(step.all, "all"), (step.failed, "failed")] {
            let height = HEIGHT as u64 * count / most;
            let y = HEIGHT as u64 - height;
            let width = BAR - 2;
            let _ = write!(
                out,
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
            );
        }
        out.push_str("</g>");
    }
    out.push_str("</svg>");
}

/// Draws within which time 95 and 50 of a hundred answers came in each of these steps, the last of which is now.
pub(super) fn lines(out: &mut String, steps: &[Service]) {
    begin(out, "latency in the last ten minutes");
    for micros in [1_000, 10_000, 100_000, 1_000_000] {
        let y = height(micros);
        let _ = write!(out, "<path class=\"axis\" d=\"M{MARGIN} {y}h{WIDTH}\"/>");
        mark(out, y.saturating_sub(6), &time(micros));
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
        let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
    out.push_str("</svg>");
}

/// Where a time is drawn: each bucket of [`BUCKET_BOUNDS`] has the same height.
fn height(micros: u64) -> usize {
    let bucket = BUCKET_BOUNDS.partition_point(|bound| *bound < micros);
    let lower = bucket
        .checked_sub(1)
        .map_or(0, |below| BUCKET_BOUNDS[below]);
    let within = match BUCKET_BOUNDS.get(bucket) {
        Some(upper) => 100 * (micros - lower) / (upper - lower),
        None => 100,
    };
    let hundredths =
        100 * bucket.min(BUCKET_BOUNDS.len() - 1) + usize::try_from(within).unwrap_or(100);
    HEIGHT - HEIGHT * hundredths / (100 * BUCKET_BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

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
