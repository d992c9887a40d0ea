//! What is known of this process itself?
//!
//! When it started, and what the kernel shows in `/proc/self`.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::monitoring::exposition::{Families, Kind, Value, unlabelled};
use crate::system::clock;
use crate::system::privileges;

/// The kernel's directory of this process.
pub const PROC_SELF: &str = "/proc/self";

/// Microseconds of processor time per clock tick (USER_HZ is 100).
const CLOCK_TICK_US: u64 = 10_000;

/// When the process started: on the monotonic clock, and as the wall clock had it.
pub struct ProcessStart {
    started_at: Instant,
    start_unix_time: AtomicU64,
}

impl ProcessStart {
    /// The process starts now.
    pub fn new(now: Instant, unix_time: u64) -> Self {
        Self {
            started_at: now,
            start_unix_time: unix_time.into(),
        }
    }

    /// Seconds since the start.
    pub fn uptime_seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started_at).as_secs()
    }

    /// The start in seconds since 1970. It follows the wall clock if that was set by more than a minute since; smaller
    /// differences are slewing or rounding, and would look like a restart.
    pub(super) fn unix_time(&self, now: Instant, unix_now: u64) -> u64 {
        let recorded = self.start_unix_time.load(Ordering::Relaxed);
        let computed = unix_now.saturating_sub(self.uptime_seconds(now));
        if computed.abs_diff(recorded) <= 60 {
            return recorded;
        }
        self.start_unix_time.store(computed, Ordering::Relaxed);
        computed
    }

    /// Adds the metrics of the process, from the kernel.
    pub(super) fn add_process(&self, all: &mut Families) {
        let process = ProcessStats::read();
        all.add(
            "process_cpu_seconds",
            Kind::Counter,
            "Processor time that the process has used.",
            unlabelled(Value::Micros(process.cpu_micros)),
        );
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Memory that the process has in use.",
                process.resident_bytes,
            ),
            (
                "process_threads",
                "Threads of the process.",
                process.threads,
            ),
            (
                "process_open_fds",
                "Descriptors that are open.",
                process.open_fds,
            ),
            (
                "process_max_fds",
                "How many may be.",
                privileges::fd_limit(),
            ),
            (
                "process_start_time_seconds",
                "When the process began, since 1970.",
                self.unix_time(clock::now(), clock::unix_time().as_secs()),
            ),
        ];
        for (name, help, value) in gauges {
            all.add(name, Kind::Gauge, help, unlabelled(Value::Integer(value)));
        }
    }
}

/// The process as the kernel sees it. A value that cannot be read is 0.
#[derive(Debug, Default)]
pub(super) struct ProcessStats {
    /// Processor time in microseconds.
    pub(super) cpu_micros: u64,
    /// Resident memory in octets.
    pub(super) resident_bytes: u64,
    /// The number of threads.
    pub(super) threads: u64,
    /// The number of open file descriptors.
    pub(super) open_fds: u64,
}

impl ProcessStats {
    /// Reads the current values.
    pub(super) fn read() -> Self {
        let proc_file = |file| Path::new(PROC_SELF).join(file);
        let stat = fs::read_to_string(proc_file("stat")).unwrap_or_default();
        // The fields after the program's name, which is in parentheses (proc(5)).
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
    fn the_start_time_follows_a_clock_that_is_set_later() {
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
    fn the_kernel_reports_this_process() {
        let process = ProcessStats::read();
        assert!(process.resident_bytes > 1 << 20 && process.resident_bytes < 1 << 40);
        assert!(process.threads >= 1 && process.open_fds >= 3);
    }
}
