//! Which day is that?
//!
//! Moments are seconds since 1970, UTC; people read and write them as RFC 3339 says: `2026-11-24T12:00:00Z`, or a day
//! alone. Ours, since the parser of the library that we have for it is as large as all of our rooms.

use std::fmt;
use std::time::Duration;

/// Seconds of a day.
pub const DAY: u64 = 24 * 60 * 60;
/// The first day of the calendar that is not before 1970, counted from 1 March of the year 0 (proleptic Gregorian).
const DAYS_TO_1970: u64 = 719_468;
/// Days of four hundred years, after which the calendar repeats.
const ERA: u64 = 146_097;

/// The first and the last second of what a text says: of a day, or of a moment, which is both. From 1970 to 9999; none for
/// anything else.
pub fn read(text: &str) -> Option<(u64, u64)> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let start = days(year, month, day) * DAY;
    match time {
        None => Some((start, start + DAY - 1)),
        Some(time) => {
            let [hour, minute, second] = numbers(time.strip_suffix('Z')?, ':', [2, 2, 2])?;
            let moment = start + (hour * 60 + minute) * 60 + second;
            (hour < 24 && minute < 60 && second < 60).then_some((moment, moment))
        }
    }
}

/// Three numbers of so many digits with a sign between them.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut next = |digits| {
        let part = parts.next()?;
        let plain = part.len() == digits && part.bytes().all(|octet| octet.is_ascii_digit());
        plain.then(|| part.parse().ok())?
    };
    let [one, two, three] = digits;
    let read = [next(one)?, next(two)?, next(three)?];
    parts.next().is_none().then_some(read)
}

/// Days from 1970 to this one. The year begins in March, so that the odd day of a leap year is its last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let (era, year) = (year / 400, year % 400);
    era * ERA + year * 365 + year / 4 - year / 100 + of_year - DAYS_TO_1970
}

/// A moment, spelled as a day, or with `{:#}` to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / DAY + DAYS_TO_1970, self.0 % DAY);
        let (era, day) = (days / ERA, days % ERA);
        // Leap days come every four years, but not every hundred, but every four hundred.
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = match month {
            10.. => (era * 400 + year + 1, month - 9),
            _ => (era * 400 + year, month + 3),
        };
        write!(f, "{year:04}-{month:02}-{day:02}")?;
        if f.alternate() {
            let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            write!(f, "T{hour:02}:{minute:02}:{second:02}Z")?;
        }
        Ok(())
    }
}

/// A moment in a log, as the time since 1970: to the millisecond.
#[derive(Debug, Clone, Copy)]
pub struct Stamp(pub Duration);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second = format!("{:#}", Moment(self.0.as_secs()));
        let (second, milli) = (second.trim_end_matches('Z'), self.0.subsec_millis());
        write!(f, "{second}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_until_9999_is_spelled_as_it_is_read() {
        // The calendar, counted out a day at a time.
        let (mut year, mut month, mut day) = (1970, 1, 1);
        let mut start = 0;
        while year < 10_000 {
            let text = format!("{year:04}-{month:02}-{day:02}");
            assert_eq!(read(&text), Some((start, start + DAY - 1)), "{text}");
            assert_eq!(Moment(start + DAY - 1).to_string(), text);
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
    fn a_moment_is_read_and_spelled_to_the_second() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(read(text), Some((seconds, seconds)));
            assert_eq!(format!("{:#}", Moment(seconds)), text);
            let later = Duration::from_secs(seconds) + Duration::from_micros(7999);
            assert_eq!(Stamp(later).to_string(), text.replace('Z', ".007Z"));
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
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
            assert_eq!(read(text), None, "{text}");
        }
    }
}
