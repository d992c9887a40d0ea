//! When may what failed be asked for again?
//!
//! After a pause that doubles while it fails again and again (RFC 9520). An outage of the resolver is no name's fault: it makes none
//! wait for longer, and is over once the resolver answers anybody. Times are in milliseconds on the cache's clock.

/// How long a failure is kept in milliseconds, at first and at most (RFC 9520 section 3.2).
const FAILURE: (u64, u64) = (1000, 300_000);

/// How asking for it went wrong since it was stored.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// How often in a row.
    times: u32,
    since: u64,
    /// It is not asked for again before.
    until: u64,
    /// The resolver answered nobody: once it answers, this is over.
    outage: bool,
}

impl Trouble {
    /// Notes one more failure at `now`, and holds back for `least` milliseconds or more.
    pub(super) fn grow(&mut self, outage: bool, least: u64, now: u64) {
        if now > self.until + FAILURE.1 {
            self.times = 0;
        }
        self.since = now;
        self.outage = outage;
        let pause = if outage {
            FAILURE.0
        } else {
            self.times += 1;
            let doublings = self.times.saturating_sub(1).min(16);
            (FAILURE.0 << doublings).min(FAILURE.1)
        };
        self.until = now + pause.max(least);
    }

    /// Whether there was none, or it is over because the resolver has answered somebody since: it was last heard at `heard`.
    pub(super) fn is_over(&self, heard: u64) -> bool {
        self.until == 0 || self.outage && heard > self.since
    }

    /// Whether it is not to be asked for again yet.
    pub(super) fn lasts(&self, now: u64, heard: u64) -> bool {
        now < self.until && !self.is_over(heard)
    }
}
