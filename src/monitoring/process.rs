//! What is known of this process itself?
//!
//! When it began, and what the kernel says in its folder of `/proc`.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Where the kernel says what it knows of this process.
pub const PROC_SELF: &str = "/proc/self";

/// Microseconds of processor time in one of the kernel's ticks for programs, of which there are 100 in a second.
const CLOCK_TICK_US: u64 = 10_000;

/// When the process began: a moment that is sure, and what this machine's clock says of it.
pub struct ProcessStart {
    started_at: Instant,
    start_unix_time: AtomicU64,
}

impl ProcessStart {
    /// Now.
    pub fn new(now: Instant, unix_time: u64) -> Self {
        Self {
            started_at: now,
            start_unix_time: unix_time.into(),
        }
    }

    /// How many seconds ago it was.
    pub fn uptime_seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started_at).as_secs()
    }

    /// In seconds since 1970. A clock that was set since tells another time of it, but a second's difference is rounding, and
    /// would look like another start.
    pub(super) fn unix_time(&self, now: Instant, unix_now: u64) -> u64 {
        let recorded = self.start_unix_time.load(Ordering::Relaxed);
        let computed = unix_now.saturating_sub(self.uptime_seconds(now));
        if computed.abs_diff(recorded) <= 60 {
            return recorded;
        }
        self.start_unix_time.store(computed, Ordering::Relaxed);
        computed
    }
}

/// What the kernel knows of this process; zero where it does not say.
#[derive(Debug, Default)]
pub(super) struct ProcessStats {
    /// Microseconds.
    pub(super) cpu_micros: u64,
    /// Octets.
    pub(super) resident_bytes: u64,
    /// How many there are.
    pub(super) threads: u64,
    /// How many are open.
    pub(super) open_fds: u64,
}

impl ProcessStats {
    /// As it is now.
    pub(super) fn read() -> Self {
        let proc_file = |file| Path::new(PROC_SELF).join(file);
        let stat = fs::read_to_string(proc_file("stat")).unwrap_or_default();
        // Behind the program's name, which is in parentheses (proc(5)).
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let field = |index| -> u64 {
            let text = fields.split_whitespace().nth(index);
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let status = fs::read_to_string(proc_file("status")).unwrap_or_default();
        let line = |name: &str| -> u64 {
            let text = status.lines().find_map(|line| line.strip_prefix(name));
            let number = text.and_then(|text| text.split_whitespace().next()?.parse().ok());
            number.unwrap_or_default()
        };
        let open_fds = fs::read_dir(proc_file("fd")).map_or(0, Iterator::count);
        Self {
            cpu_micros: (field(11) + field(12)) * CLOCK_TICK_US,
            resident_bytes: line("VmRSS:") * 1024,
            threads: line("Threads:"),
            open_fds: open_fds as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_start_without_a_clock_is_told_by_the_clock_that_was_set_since() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let start = ProcessStart::new(now, 1_000);
        assert_eq!(start.uptime_seconds(after(90)), 90);
        assert_eq!(start.unix_time(after(90), 1_090), 1_000);
        assert_eq!(
            start.unix_time(after(90), 1_150),
            1_000,
            "no more than slewed"
        );
        assert_eq!(start.unix_time(after(100), 1_800_000_100), 1_800_000_000);
        assert_eq!(start.unix_time(after(101), 1_800_000_100), 1_800_000_000);
        assert_eq!(start.uptime_seconds(after(101)), 101);
    }

    #[test]
    fn the_kernel_knows_this_process() {
        let process = ProcessStats::read();
        assert!(process.resident_bytes > 1 << 20 && process.resident_bytes < 1 << 40);
        assert!(process.threads >= 1 && process.open_fds >= 3);
    }
}
