//! What time is it?
//!
//! All durations use one clock. It never goes back, and it goes on while the machine is suspended: a laptop that slept for eight
//! hours serves no answer that is eight hours too old.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The same moment on two clocks: [`Instant`]'s, which stops during a suspend, and CLOCK_BOOTTIME, which does not.
static BASE: LazyLock<(Instant, Option<Duration>)> =
    LazyLock::new(|| (Instant::now(), read_clock(ClockId::CLOCK_BOOTTIME)));

/// The current time, suspends included.
pub fn now() -> Instant {
    match (*BASE, read_clock(ClockId::CLOCK_BOOTTIME)) {
        ((start, Some(boottime_at_start)), Some(now)) => {
            start + now.saturating_sub(boottime_at_start)
        }
        // Linux has CLOCK_BOOTTIME since 2.6.39. A system without it does not suspend.
        _ => Instant::now(),
    }
}

/// `moment` plus `wait`, or `moment` itself if the sum is out of range.
pub fn later(moment: Instant, wait: Duration) -> Instant {
    moment.checked_add(wait).unwrap_or(moment)
}

/// Microseconds from the first use of this clock to `moment`; at least 1, so that 0 can mean "never".
pub fn micros_since_start(moment: Instant) -> u64 {
    micros(moment.saturating_duration_since(BASE.0)).max(1)
}

/// CLOCK_MONOTONIC, which stops during a suspend. sd_notify(3) wants this one.
pub fn monotonic() -> Duration {
    read_clock(ClockId::CLOCK_MONOTONIC).unwrap_or_default()
}

/// The wall clock as the time since 1970 (UTC), for certificates, pins and log lines. It may be wrong.
pub fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// How long the machine has been suspended since it booted.
pub fn time_suspended() -> Duration {
    let boottime = read_clock(ClockId::CLOCK_BOOTTIME).unwrap_or_default();
    boottime.saturating_sub(monotonic())
}

/// A duration in whole microseconds, at most `u64::MAX`.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn read_clock(clock: ClockId) -> Option<Duration> {
    clock_gettime(clock).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back_or_stands_still() {
        let moments: Vec<_> = (0..1000).map(|_| now()).collect();
        assert!(moments.is_sorted());
        let (start, other) = (now(), Instant::now());
        while now() < start + Duration::from_millis(1) {
            assert!(other.elapsed() < Duration::from_secs(10), "it stands still");
        }
    }
}
