//! Where do log lines go?
//!
//! To stderr, through a queue and a thread of its own, so that a slow or absent reader of stderr blocks no other thread. Lines
//! that find the queue full are dropped and counted. So are lines of one event beyond ten per second, so that clients cannot fill
//! a disk. Lines at debug and trace level are not limited, nor are those that only the operator brings about. What is missing is said with
//! its count: in the next line of the event, or after a second in a line of its own. If stderr is the journal, each line begins with its
//! priority ([`super::journal`]).

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic;
use std::time::{Duration, Instant};

use env_logger::Target;
use log::{Level, LevelFilter};

use crate::system::clock;
use crate::system::thread;
use crate::telemetry::journal::{self, LineStart};
use crate::telemetry::queue::BoundedQueue;

/// Lines that may wait for stderr.
const QUEUE_LEN: usize = 1024;
/// Maximum length of a line in octets. Longer lines are truncated.
const MAX_LINE_LEN: usize = 4096;
/// Lines per interval of one event, and the interval.
const MAX_PER_SECOND: u64 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Events that are not limited: a line for each value of an option, at the start and after a reload.
const UNLIMITED_EVENTS: [&str; 2] = ["listening", "route"];

/// Logs one line. Not inlined: the `log` crate's macros would build their record at every call site.
#[inline(never)]
pub(crate) fn log_line(level: Level, line: fmt::Arguments<'_>) {
    log::log!(level, "{line}");
}

macro_rules! line {
    ($level:expr, $($part:tt)*) => {
        if $level <= log::max_level() {
            $crate::telemetry::log::log_line($level, format_args!($($part)*));
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

/// The lines that wait for stderr. One queue per process, as there is one log.
static LINES: BoundedQueue<Vec<u8>> = BoundedQueue::new(QUEUE_LEN);

/// The number of lines that were dropped because the queue was full.
pub fn dropped() -> u64 {
    LINES.dropped()
}

/// Starts and stops the thread that writes the log.
pub struct LogWriter {
    thread_started: bool,
}

/// Sets the process's logger: lines at `level` and above are queued until [`LogWriter::start_thread`]. Call it once.
pub fn init(level: LevelFilter) -> LogWriter {
    env_logger::Builder::new()
        // The level is checked before lines come here, so that it can change.
        .filter_level(LevelFilter::Trace)
        .target(Target::Pipe(Box::new(LineSink)))
        .format(|out, record| {
            let start = line_start(record.level());
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "{start}level={level} {}", record.args())
        })
        .init();
    log::set_max_level(level);
    if journal::is_stderr() {
        // The usual text has several lines, which the journal would take for several messages.
        panic::set_hook(Box::new(|info| {
            let text = info.to_string();
            let text = String::from_utf8_lossy(&one_line(text.as_bytes())).into_owned();
            let start = journal::message_start(Level::Error);
            let _ = writeln!(io::stderr(), "{start}dns-tool: {text}");
        }));
    }
    LogWriter {
        thread_started: false,
    }
}

/// The beginning of a line that is written now.
fn line_start(level: Level) -> LineStart {
    LineStart {
        level,
        time: clock::unix_time(),
        in_journal: journal::is_stderr(),
    }
}

impl LogWriter {
    /// Starts writing, with the rights that the calling thread has now. Fails when the system has no thread.
    pub fn start_thread(&mut self) -> io::Result<()> {
        thread::spawn_restarting("journal", || write(&LINES, &mut io::stderr()))?;
        self.thread_started = true;
        Ok(())
    }

    /// Waits up to a second until the queued lines are written. Later lines are dropped.
    pub fn finish(mut self) {
        if self.thread_started || self.start_thread().is_ok() {
            LINES.finish();
        }
    }
}

/// The logger's target: puts each line into the queue.
struct LineSink;

impl Write for LineSink {
    /// Takes one whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LINES.push(truncate_line(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Limits the length of a line, which may quote texts of others, such as those of a certificate, and makes it one line.
fn truncate_line(line: &[u8]) -> Vec<u8> {
    let (content, end) = match line.get(..MAX_LINE_LEN) {
        Some(start) if line.len() > MAX_LINE_LEN => (start, &b"...\n"[..]),
        _ => (line.strip_suffix(b"\n").unwrap_or(line), &b"\n"[..]),
    };
    [&one_line(content), end].concat()
}

/// Replaces the control characters of ASCII by spaces.
fn one_line(content: &[u8]) -> Vec<u8> {
    let octets = content.iter().copied();
    octets
        .map(|octet| {
            if octet.is_ascii_control() {
                b' '
            } else {
                octet
            }
        })
        .collect()
}

/// The thread: writes lines to `out`, which may fail or block for ever.
fn write(queue: &BoundedQueue<Vec<u8>>, out: &mut dyn Write) {
    let mut limiter = EventRateLimiter::default();
    let mut reported = 0;
    let mut lines = Vec::new();
    // Errors are ignored: the reader may have gone away.
    while queue.take(&mut lines, limiter.report_wait(clock::now())) {
        let dropped = queue.dropped();
        if dropped > reported {
            let count = dropped - reported;
            write_gap(out, format_args!("event=log-lines-dropped count={count}"));
            reported = dropped;
        }
        for line in lines.drain(..) {
            if let Some(line) = limiter.admit(line, clock::now()) {
                let _ = out.write_all(&line);
            }
        }
        write_suppressed(&limiter.take_suppressed(Some(clock::now())), out);
    }
    write_suppressed(&limiter.take_suppressed(None), out);
    queue.mark_written();
}

/// Reports how many lines of these events were suppressed.
fn write_suppressed(suppressed: &[(String, u64)], out: &mut dyn Write) {
    for (event, count) in suppressed {
        write_gap(
            out,
            format_args!("event=log-lines-suppressed of={event} count={count}"),
        );
    }
}

/// Reports that lines are missing, past the queue and the limit.
fn write_gap(out: &mut dyn Write, line: fmt::Arguments<'_>) {
    let _ = writeln!(out, "{}level=warn {line}", line_start(Level::Warn));
}

/// Per event: when its current second began, and its lines in that second.
#[derive(Default)]
struct EventRateLimiter(HashMap<String, (Instant, u64)>);

impl EventRateLimiter {
    /// How long until suppressed lines are to be reported; none if there are none.
    fn report_wait(&self, now: Instant) -> Option<Duration> {
        let over_limit = self.0.values().filter(|(_, count)| *count > MAX_PER_SECOND);
        let ends = over_limit.map(|(second_start, _)| *second_start + SECOND);
        ends.min().map(|end| end.saturating_duration_since(now))
    }

    /// Forgets the events with suppressed lines that no later line has reported, and returns how many lines those were: all, or only those
    /// whose second is over at a time.
    fn take_suppressed(&mut self, over_at: Option<Instant>) -> Vec<(String, u64)> {
        let taken = self.0.extract_if(|_, (second_start, count)| {
            *count > MAX_PER_SECOND && over_at.is_none_or(|at| *second_start + SECOND <= at)
        });
        let taken = taken.map(|(event, (_, count))| (event, count - MAX_PER_SECOND));
        taken.collect()
    }

    /// Returns the line, with `suppressed=` if lines before it were suppressed, or `None` if its event has used up its second.
    fn admit(&mut self, line: Vec<u8>, now: Instant) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(&line);
        let level = text.split_once("level=").map_or("", |(_, rest)| rest);
        if level.starts_with("debug ") || level.starts_with("trace ") {
            return Some(line);
        }
        // Event names are constants of this program, so the map stays small. Lines of libraries have none, and are limited together.
        let named = text.split_once("event=").map_or("", |(_, rest)| rest);
        let event = named.split([' ', '\n']).next().unwrap_or_default();
        if UNLIMITED_EVENTS.contains(&event) {
            return Some(line);
        }
        let (second_start, count) = self.0.entry(event.to_owned()).or_insert((now, 0));
        let is_over = now.saturating_duration_since(*second_start) >= SECOND;
        let suppressed = if is_over {
            let suppressed = count.saturating_sub(MAX_PER_SECOND);
            (*second_start, *count) = (now, 0);
            suppressed
        } else {
            0
        };
        *count += 1;
        if *count > MAX_PER_SECOND {
            return None;
        }
        if suppressed == 0 {
            return Some(line);
        }
        let mut with_count = text.trim_end().to_owned();
        let _ = writeln!(with_count, " suppressed={suppressed}");
        Some(with_count.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_an_event_are_written_and_limited_too() {
        let mut limiter = EventRateLimiter::default();
        let now = clock::now();
        let line = || b"time=x level=warn a library says something\n".to_vec();
        for count in 1..=MAX_PER_SECOND + 1 {
            let is_admitted = limiter.admit(line(), now) == Some(line());
            assert_eq!(is_admitted, count <= MAX_PER_SECOND, "{count}");
        }
        assert_eq!(limiter.take_suppressed(None), [(String::new(), 1)]);
    }

    fn line(level: &str, event: &str) -> Vec<u8> {
        format!("time=x level={level} event={event} a=1\n").into_bytes()
    }

    #[test]
    fn ten_lines_of_an_event_are_written_per_second_and_the_others_counted() {
        let mut limiter = EventRateLimiter::default();
        let now = Instant::now();
        let admitted = |limiter: &mut EventRateLimiter, level, event, now| {
            let lines = (0..100).filter_map(|_| limiter.admit(line(level, event), now));
            lines.count()
        };
        assert_eq!(admitted(&mut limiter, "warn", "one", now), 10);
        assert_eq!(admitted(&mut limiter, "info", "other", now), 10);
        assert_eq!(admitted(&mut limiter, "debug", "one", now), 100);
        assert_eq!(admitted(&mut limiter, "info", "route", now), 100);
        let later = now + Duration::from_millis(999);
        assert_eq!(admitted(&mut limiter, "warn", "one", later), 0);
        let later = now + Duration::from_secs(1);
        assert_eq!(limiter.report_wait(now), Some(SECOND));
        let reported = limiter.admit(line("warn", "one"), later).expect("a line");
        let expected = "time=x level=warn event=one a=1 suppressed=190\n";
        assert_eq!(String::from_utf8_lossy(&reported), expected);
        let next = limiter.admit(line("warn", "one"), later);
        assert_eq!(next, Some(line("warn", "one")));
        // No further line of the other event comes, which would report those that are missing.
        assert_eq!(limiter.report_wait(later), Some(Duration::ZERO));
        assert_eq!(
            limiter.take_suppressed(Some(later)),
            [("other".to_owned(), 90)]
        );
        assert_eq!(limiter.report_wait(later), None);
        assert!(
            limiter.take_suppressed(None).is_empty(),
            "both are reported"
        );
    }

    #[test]
    fn suppressed_lines_are_reported_after_a_second_though_no_line_follows() {
        let queue = BoundedQueue::new(100);
        let (sender, receiver) = crossbeam_channel::unbounded();
        struct Lines(crossbeam_channel::Sender<String>);
        impl Write for Lines {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                let _ = self.0.send(String::from_utf8_lossy(octets).into_owned());
                Ok(octets.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        (0..15).for_each(|_| queue.push(line("info", "x")));
        std::thread::scope(|scope| {
            scope.spawn(|| write(&queue, &mut Lines(sender)));
            let mut said = String::new();
            let expected = "level=warn event=log-lines-suppressed of=x count=5\n";
            while !said.ends_with(expected) {
                let part = receiver.recv_timeout(Duration::from_secs(20));
                said.push_str(&part.expect("the line comes"));
            }
            queue.finish();
        });
    }

    #[test]
    fn debug_lines_are_not_limited_in_the_journal_either() {
        let mut limiter = EventRateLimiter::default();
        let now = clock::now();
        let line = |start: &str| format!("{start} event=x a=\" level=debug \"\n").into_bytes();
        let admitted = |limiter: &mut EventRateLimiter, start| {
            (0..20)
                .filter_map(|_| limiter.admit(line(start), now))
                .count()
        };
        assert_eq!(admitted(&mut limiter, "<7>level=debug"), 20);
        assert_eq!(admitted(&mut limiter, "<6>level=info"), 10);
    }

    #[test]
    fn a_line_with_line_breaks_becomes_one_line() {
        assert_eq!(
            truncate_line(b"event=x\r\ny\x1b[2J\0\n"),
            b"event=x  y [2J \n"
        );
        assert_eq!(
            truncate_line("event=\u{e9}\n".as_bytes()),
            "event=\u{e9}\n".as_bytes()
        );
        let long = truncate_line(&[b'\n'; 70_000]);
        assert_eq!(long.iter().filter(|octet| **octet == b'\n').count(), 1);
    }

    #[test]
    fn a_long_line_is_truncated_and_still_ends_in_a_newline() {
        let short = b"event=x y=1\n";
        assert_eq!(truncate_line(short), short);
        let long = truncate_line(&[b'x'; 70_000]);
        assert_eq!(long.len(), MAX_LINE_LEN + 4);
        assert!(long.ends_with(b"x...\n"));
    }

    #[test]
    fn dropped_lines_are_reported() {
        let queue = BoundedQueue::new(2);
        for _ in 0..5 {
            queue.push(line("info", "x"));
        }
        let mut out = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| write(&queue, &mut out));
            queue.finish();
        });
        let out = String::from_utf8(out).expect("text");
        let first = out.lines().next().expect("a line");
        assert!(
            first.starts_with("time=")
                && first.ends_with(" level=warn event=log-lines-dropped count=3"),
            "{out}"
        );
        assert_eq!(out.lines().count(), 3);
    }

    #[test]
    fn finish_waits_for_the_report_of_suppressed_lines() {
        /// Delays the line that reports suppressed lines.
        struct Slow<'o>(&'o parking_lot::Mutex<String>);
        impl Write for Slow<'_> {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                let text = String::from_utf8_lossy(octets);
                if text.contains("suppressed") {
                    std::thread::sleep(Duration::from_millis(20));
                }
                self.0.lock().push_str(&text);
                Ok(octets.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (queue, out) = (BoundedQueue::new(100), parking_lot::Mutex::default());
        std::thread::scope(|scope| {
            scope.spawn(|| write(&queue, &mut Slow(&out)));
            (0..15).for_each(|_| queue.push(line("info", "x")));
            queue.finish();
            let said = out.lock().clone();
            let last = "event=log-lines-suppressed of=x count=5\n";
            assert!(said.ends_with(last), "{said}");
        });
    }

    #[test]
    fn a_failing_writer_does_not_stop_the_thread() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let queue = BoundedQueue::new(2);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write(&queue, &mut Broken));
            queue.push(line("info", "x"));
            queue.finish();
            writer.join().expect("it ends");
        });
    }
}
