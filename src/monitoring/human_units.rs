//! How are numbers written for people?

use crate::system::date::{DAY, Timestamp};

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

/// Events per second, from their count in so many seconds.
pub(super) fn format_rate(count: u64, seconds: u64) -> String {
    let tenths = count.saturating_mul(10) / seconds.max(1);
    match tenths {
        0..100 => format!("{}.{}", tenths / 10, tenths % 10),
        _ => format_count(tenths / 10),
    }
}

/// A number with a decimal prefix from ten thousand on: `9,999`, `12.3 k`, `4.5 M`.
pub(super) fn format_count(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..10_000 => format!("{},{:03}", count / 1000, count % 1000),
        10_000..1_000_000 => with_tenths(count, 1_000, "k"),
        1_000_000..1_000_000_000 => with_tenths(count, 1_000_000, "M"),
        _ => with_tenths(count, 1_000_000_000, "G"),
    }
}

/// Octets with a binary prefix: `512 B`, `8.0 MiB`.
pub(super) fn format_octets(octets: u64) -> String {
    match octets {
        0..1_024 => format!("{octets} B"),
        1_024..0x10_0000 => with_tenths(octets, 1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => with_tenths(octets, 1 << 20, "MiB"),
        _ => with_tenths(octets, 1 << 30, "GiB"),
    }
}

/// A multiple of `unit`, rounded down to tenths.
fn with_tenths(number: u64, unit: u64, suffix: &str) -> String {
    let tenths = u128::from(number) * 10 / u128::from(unit);
    format!("{}.{} {suffix}", tenths / 10, tenths % 10)
}

/// A moment in seconds since 1970 as the time of day, with the date unless it is that of `now`: `06:15 UTC`, `2026-11-23 06:15 UTC`.
pub(super) fn format_time_of_day(moment: u64, now: u64) -> String {
    let (hour, minute) = (moment / 3600 % 24, moment / 60 % 60);
    let date = match moment / DAY == now / DAY {
        true => String::new(),
        false => format!("{} ", Timestamp(moment)),
    };
    format!("{date}{hour:02}:{minute:02} UTC")
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
            [0, 5, 99, 1_234, 123_456].map(|count| format_rate(count, 10)),
            ["0.0", "0.5", "9.9", "123", "12.3 k"]
        );
        assert_eq!(
            [0, 999, 1_234, 9_999, 12_399, 4_560_000, u64::MAX].map(format_count),
            [
                "0",
                "999",
                "1,234",
                "9,999",
                "12.3 k",
                "4.5 M",
                "18446744073.7 G"
            ]
        );
        assert_eq!(
            [0, 1_023, 1_024, 8 << 20, (1 << 30) - 1, 3 << 29].map(format_octets),
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "8.0 MiB",
                "1023.9 MiB",
                "1.5 GiB"
            ]
        );
    }

    #[test]
    fn a_time_has_its_date_unless_it_is_today() {
        // 2026-11-24, 06:15:59.
        let moment = 1_795_500_959;
        assert_eq!(format_time_of_day(moment, moment + 3600), "06:15 UTC");
        assert_eq!(
            format_time_of_day(moment, moment + DAY),
            "2026-11-24 06:15 UTC"
        );
    }
}
