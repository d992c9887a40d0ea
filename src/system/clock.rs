//! What time is it?
//!
//! One clock for everything that lasts. It never goes back, and it goes on while the machine is suspended: a laptop that
//! slept for eight hours holds no answer that is eight hours too old.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// The same moment on the clock that stands still during a suspend, which is [`Instant`]'s, and on the one that does not.
static BASE: LazyLock<(Instant, Option<Duration>)> =
    LazyLock::new(|| (Instant::now(), read_clock(ClockId::CLOCK_BOOTTIME)));

/// This moment.
pub fn now() -> Instant {
    match (*BASE, read_clock(ClockId::CLOCK_BOOTTIME)) {
        ((start, Some(boottime_at_start)), Some(now)) => {
            start + now.saturating_sub(boottime_at_start)
        }
        // Every Linux has that clock since 2.6.39; what lacks it does not suspend.
        _ => Instant::now(),
    }
}

/// A moment so much after another; that one itself if the clock cannot tell.
pub fn later(moment: Instant, wait: Duration) -> Instant {
    moment.checked_add(wait).unwrap_or(moment)
}

/// A moment as microseconds on a scale that begins with the first question for the time; at least 1.
pub fn micros_since_start(moment: Instant) -> u64 {
    micros(moment.saturating_duration_since(BASE.0)).max(1)
}

/// What the clock shows that stands still during a suspend.
pub fn monotonic() -> Duration {
    read_clock(ClockId::CLOCK_MONOTONIC).unwrap_or_default()
}

/// The time of day and the date, as far as this machine knows them, for what has a date: certificates and pins.
pub fn unix_time() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// For how long the machine has been suspended since it was started.
pub fn time_suspended() -> Duration {
    let boottime = read_clock(ClockId::CLOCK_BOOTTIME).unwrap_or_default();
    boottime.saturating_sub(monotonic())
}

/// A time in microseconds, for counters of whole numbers.
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
    fn it_goes_on_and_never_back() {
        let moments: Vec<_> = (0..1000).map(|_| now()).collect();
        assert!(moments.is_sorted());
        let (start, other) = (now(), Instant::now());
        while now() < start + Duration::from_millis(1) {
            assert!(other.elapsed() < Duration::from_secs(10), "it stands still");
        }
    }
}
