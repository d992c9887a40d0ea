//! Which day is that?
//!
//! Times are seconds since 1970 (UTC). They are read and written as RFC 3339 has it, `2026-11-24T12:00:00Z`, or as a day alone,
//! `2026-11-24`.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use humantime::{format_rfc3339_millis, format_rfc3339_seconds, parse_rfc3339};

/// Seconds per day.
pub const DAY: u64 = 24 * 60 * 60;
/// 9999-12-31T23:59:59Z, the last second that is written: later years have five digits.
const MAX_TIMESTAMP: u64 = 253_402_300_799;

/// The first and the last second that a text means: of a day, or of a moment, which is both. Returns `None` unless it is a valid
/// date from 1970 to 9999.
pub fn parse(text: &str) -> Option<(u64, u64)> {
    match text.split_once('T') {
        None => {
            let start = parse_timestamp(&format!("{text}T00:00:00Z"))?;
            Some((start, start + DAY - 1))
        }
        Some(_) => {
            let moment = parse_timestamp(text)?;
            Some((moment, moment))
        }
    }
}

/// Accepts whole seconds only: neither fractions nor a leap second, which the library would accept.
fn parse_timestamp(text: &str) -> Option<u64> {
    let moment = parse_rfc3339(text).ok()?;
    let seconds = moment.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (format_timestamp(seconds) == text).then_some(seconds)
}

/// To the second. A time after 9999 gives a text that [`parse`] refuses.
fn format_timestamp(seconds: u64) -> String {
    match seconds {
        ..=MAX_TIMESTAMP => {
            format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
        }
        _ => "after 9999".to_owned(),
    }
}

/// Seconds since 1970. Displayed as a day, or to the second with `{:#}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format_timestamp(self.0);
        let day = text.split_once('T').map_or(&*text, |(day, _)| day);
        f.write_str(if f.alternate() { &text } else { day })
    }
}

/// The time of a log line, since 1970. Displayed to the millisecond.
#[derive(Debug, Clone, Copy)]
pub struct LogTimestamp(pub Duration);

impl fmt::Display for LogTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library fails on later times.
        let time = self.0.min(Duration::new(MAX_TIMESTAMP, 999_999_999));
        format_rfc3339_millis(UNIX_EPOCH + time).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_until_9999_is_formatted_as_it_is_parsed() {
        // The calendar, counted out a day at a time.
        let (mut year, mut month, mut day) = (1970, 1, 1);
        let mut start = 0;
        while year < 10_000 {
            let text = format!("{year:04}-{month:02}-{day:02}");
            assert_eq!(parse(&text), Some((start, start + DAY - 1)), "{text}");
            assert_eq!(Timestamp(start + DAY - 1).to_string(), text);
            let leap = year % 400 == 0 || year % 4 == 0 && year % 100 != 0;
            let length = [
                31,
                28 + i32::from(leap),
                31,
                30,
                31,
                30,
                31,
                31,
                30,
                31,
                30,
                31,
            ];
            day += 1;
            if day > length[month - 1] {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
            start += DAY;
        }
    }

    #[test]
    fn a_timestamp_is_parsed_and_formatted_to_the_second() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(parse(text), Some((seconds, seconds)));
            assert_eq!(format!("{:#}", Timestamp(seconds)), text);
            let later = Duration::from_secs(seconds) + Duration::from_micros(7999);
            assert_eq!(LogTimestamp(later).to_string(), text.replace('Z', ".007Z"));
        }
    }

    #[test]
    fn an_invalid_date_is_refused() {
        assert_eq!(Timestamp(u64::MAX).to_string(), "after 9999");
        for text in [
            "",
            "after 9999",
            "2026",
            "2026-11",
            "2026-11-24-",
            "26-11-24",
            "2026-1-24",
            "2026-00-24",
            "2026-13-24",
            "2026-11-00",
            "2026-11-31",
            "2026-02-29",
            "2100-02-29",
            "1969-12-31",
            "+026-11-24",
            "2026-11-24T",
            "2026-11-24T12:00",
            "2026-11-24T12:00:00",
            "2026-11-24T24:00:00Z",
            "2026-11-24T12:60:00Z",
            "2026-11-24T12:00:60Z",
            "2026-11-24T12:00:00+01:00",
            "2026-11-24 12:00:00Z",
            "٢٠٢٦-11-24",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
