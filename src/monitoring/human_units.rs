//! How are numbers written for people?

use crate::monitoring::history::SAMPLE_INTERVAL;
use crate::system::date::DAY;

/// Shown where there is no value.
pub(super) const NO_VALUE: &str = "–";

/// A duration with a unit that fits.
pub(super) fn format_latency(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{}.{} ms", micros / 1000, micros / 100 % 10),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// Events per second, from the count of one interval.
pub(super) fn format_rate(count: u64) -> String {
    let tenths = count * 10 / SAMPLE_INTERVAL.as_secs();
    match tenths {
        0..100 => format!("{}.{}", tenths / 10, tenths % 10),
        _ => (tenths / 10).to_string(),
    }
}

/// A percentage with two decimals, rounded down so that only the total itself is 100 %.
pub(super) fn format_percentage(part: u64, total: u64) -> String {
    if total == 0 {
        return NO_VALUE.to_owned();
    }
    let hundredths = u128::from(part) * 10_000 / u128::from(total);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// A duration in its two largest units.
pub(super) fn format_duration(seconds: u64) -> String {
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
    fn latencies_percentages_and_rates_have_human_units() {
        assert_eq!(
            [0, 999, 1_000, 12_345, 2_500_000].map(format_latency),
            ["0 µs", "999 µs", "1.0 ms", "12 ms", "2.5 s"]
        );
        assert_eq!(format_percentage(0, 0), "–");
        assert_eq!(format_percentage(99_999, 100_000), "99.99 %");
        assert_eq!(format_percentage(u64::MAX, u64::MAX), "100.00 %");
        assert_eq!(
            [59, 3_661, 90_000].map(format_duration),
            ["0 min 59 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!(
            [0, 5, 99, 1_234].map(format_rate),
            ["0.0", "0.5", "9.9", "123"]
        );
    }
}
