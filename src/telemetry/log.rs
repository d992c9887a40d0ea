//! Where do log lines go?
//!
//! To stderr, by a thread of their own: whoever reads them, slowly or not at all, stops nobody else. What finds no room is
//! counted and left out, and so is what one kind of event says more often than ten times a second: strangers cannot fill a
//! disk. Lines at debug level are not counted: who asks for them wants all.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use env_logger::Target;
use log::{Level, LevelFilter};

use crate::system::clock;
use crate::system::date::Stamp;
use crate::system::thread;
use crate::telemetry::queue::Spool;

/// Lines that may wait for stderr.
const WAITING: usize = 1024;
/// Octets of a line; what is longer is cut.
const LONGEST: usize = 4096;
/// Lines of one kind of event in a second.
const PER_SECOND: u64 = 10;

/// Says one line at a level. Once, whatever it is that is said: the library's macros would put a copy of their record into
/// each place.
#[inline(never)]
pub(crate) fn say(level: Level, line: fmt::Arguments<'_>) {
    log::log!(level, "{line}");
}

macro_rules! line {
    ($level:expr, $($part:tt)*) => {
        if $level <= log::max_level() {
            $crate::telemetry::log::say($level, format_args!($($part)*));
        }
    };
}
macro_rules! debug_line {
    ($($part:tt)*) => { $crate::telemetry::log::line!(log::Level::Debug, $($part)*) };
}
macro_rules! info_line {
    ($($part:tt)*) => { $crate::telemetry::log::line!(log::Level::Info, $($part)*) };
}
macro_rules! warn_line {
    ($($part:tt)*) => { $crate::telemetry::log::line!(log::Level::Warn, $($part)*) };
}
macro_rules! error_line {
    ($($part:tt)*) => { $crate::telemetry::log::line!(log::Level::Error, $($part)*) };
}
pub(crate) use {
    debug_line as debug, error_line as error, info_line as info, line, warn_line as warn,
};

/// What waits for stderr. One for the process, as the log is.
static LINES: Spool<Vec<u8>> = Spool::new(WAITING);

/// Lines that found no room.
pub fn lost() -> u64 {
    LINES.lost()
}

/// The way to stderr.
pub struct Journal {
    has_begun: bool,
}

/// Has what is at `level` or above logged, and wait for [`Journal::begin`]. Once in a process.
pub fn open(level: LevelFilter) -> Journal {
    env_logger::Builder::new()
        // What is logged is decided before lines come here, so that it can change.
        .filter_level(LevelFilter::Trace)
        .target(Target::Pipe(Box::new(Lines)))
        .format(|out, record| {
            let time = Stamp(clock::since_1970());
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "time={time} level={level} {}", record.args())
        })
        .init();
    log::set_max_level(level);
    Journal { has_begun: false }
}

impl Journal {
    /// Writes from now on, with the rights that the calling thread has now. Fails when the system has no thread for it.
    pub fn begin(&mut self) -> io::Result<()> {
        thread::spawn_for_good("journal", || write(&LINES, &mut io::stderr()))?;
        self.has_begun = true;
        Ok(())
    }

    /// Waits until the lines so far have been written, but not for long. Nothing is logged after it.
    pub fn finish(mut self) {
        if self.has_begun || self.begin().is_ok() {
            LINES.finish();
        }
    }
}

/// What the logger writes to.
struct Lines;

impl Write for Lines {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.add(cut(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line as it is written: others' words in it, such as what a certificate says, may be long.
fn cut(line: &[u8]) -> Vec<u8> {
    match line.get(..LONGEST) {
        Some(start) if line.len() > LONGEST => [start, b"...\n"].concat(),
        _ => line.to_vec(),
    }
}

/// The thread: writes lines to `out`, which may fail or take for ever.
fn write(spool: &Spool<Vec<u8>>, out: &mut dyn Write) {
    let mut kinds = Kinds::default();
    let mut told = 0;
    let mut lines = Vec::new();
    // A reader that went away is no reason to stop.
    while spool.take(&mut lines) {
        let lost = spool.lost();
        if lost > told {
            let _ = writeln!(out, "event=log-lines-lost count={}", lost - told);
            told = lost;
        }
        for line in lines.drain(..) {
            if let Some(line) = kinds.admit(line, clock::now()) {
                let _ = out.write_all(&line);
            }
        }
    }
    for (kind, count) in kinds.left_out() {
        let _ = writeln!(out, "event=log-lines-left-out of={kind} count={count}");
    }
    spool.rest();
}

/// How often each kind of event was said in its second.
#[derive(Default)]
struct Kinds(HashMap<String, (Instant, u64)>);

impl Kinds {
    /// What was left out and not told yet.
    fn left_out(&self) -> impl Iterator<Item = (&str, u64)> {
        let kinds = self.0.iter().filter(|(_, (_, count))| *count > PER_SECOND);
        kinds.map(|(kind, (_, count))| (kind.as_str(), count - PER_SECOND))
    }

    /// The line, unless there were too many of its kind; with how many were left out before it.
    fn admit(&mut self, line: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(&line);
        if text.contains(" level=debug ") || text.contains(" level=trace ") {
            return Some(line);
        }
        // Events have names of ours, so there are few.
        let word = text.split("event=").nth(1)?.split([' ', '\n']).next()?;
        let (began, count) = self.0.entry(word.to_owned()).or_insert((now, 0));
        let over = now.saturating_duration_since(*began) >= Duration::from_secs(1);
        let left_out = if over {
            let left_out = count.saturating_sub(PER_SECOND);
            (*began, *count) = (now, 0);
            left_out
        } else {
            0
        };
        *count += 1;
        if *count > PER_SECOND {
            return None;
        }
        if left_out == 0 {
            return Some(line);
        }
        let mut told = text.trim_end().to_owned();
        let _ = writeln!(told, " left_out={left_out}");
        Some(told.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &str, event: &str) -> Vec<u8> {
        format!("time=x level={level} event={event} a=1\n").into_bytes()
    }

    #[test]
    fn ten_lines_of_a_kind_are_written_in_a_second_and_the_rest_counted() {
        let mut kinds = Kinds::default();
        let now = Instant::now();
        let admitted = |kinds: &mut Kinds, level, event, now| {
            let lines = (0..100).filter_map(|_| kinds.admit(line(level, event), now));
            lines.count()
        };
        assert_eq!(admitted(&mut kinds, "warn", "one", now), 10);
        assert_eq!(admitted(&mut kinds, "info", "other", now), 10);
        assert_eq!(admitted(&mut kinds, "debug", "one", now), 100);
        let later = now + Duration::from_millis(999);
        assert_eq!(admitted(&mut kinds, "warn", "one", later), 0);
        let later = now + Duration::from_secs(1);
        let mut left_out: Vec<_> = kinds.left_out().collect();
        left_out.sort_unstable();
        assert_eq!(left_out, [("one", 190), ("other", 90)]);
        let told = kinds.admit(line("warn", "one"), later).expect("a line");
        let expected = "time=x level=warn event=one a=1 left_out=190\n";
        assert_eq!(String::from_utf8_lossy(&told), expected);
        let next = kinds.admit(line("warn", "one"), later);
        assert_eq!(next, Some(line("warn", "one")));
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_still_a_line() {
        let short = b"event=x y=1\n";
        assert_eq!(cut(short), short);
        let long = cut(&[b'x'; 70_000]);
        assert_eq!(long.len(), LONGEST + 4);
        assert!(long.ends_with(b"x...\n"));
    }

    #[test]
    fn what_found_no_room_is_said() {
        let spool = Spool::new(2);
        for _ in 0..5 {
            spool.add(line("info", "x"));
        }
        let mut out = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| write(&spool, &mut out));
            spool.finish();
        });
        let out = String::from_utf8(out).expect("text");
        assert!(out.starts_with("event=log-lines-lost count=3\n"), "{out}");
        assert_eq!(out.lines().count(), 3);
    }

    #[test]
    fn the_end_waits_for_what_is_said_of_lines_that_were_left_out() {
        /// Takes its time for that.
        struct Slow<'o>(&'o parking_lot::Mutex<String>);
        impl Write for Slow<'_> {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                let text = String::from_utf8_lossy(octets);
                if text.contains("left-out") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                self.0.lock().push_str(&text);
                Ok(octets.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (spool, out) = (Spool::new(100), parking_lot::Mutex::default());
        std::thread::scope(|scope| {
            scope.spawn(|| write(&spool, &mut Slow(&out)));
            (0..15).for_each(|_| spool.add(line("info", "x")));
            spool.finish();
            let said = out.lock().clone();
            let last = "event=log-lines-left-out of=x count=5\n";
            assert!(said.ends_with(last), "{said}");
        });
    }

    #[test]
    fn a_writer_that_fails_ends_nothing() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let spool = Spool::new(2);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&spool, &mut Broken));
            spool.add(line("info", "x"));
            spool.finish();
            writer.join().expect("it ends");
        });
    }
}
