//! Which signals wait until they are handled?
//!
//! A signal whose handler is not there yet ends the process by default, also one that asks for a reload. A blocked signal waits, in the
//! kernel, also while the process executes another program: the new one inherits the mask, but no handlers (signal(7)).

use nix::sys::signal::{SigSet, Signal};

/// Signals that wait, as long as this exists. Those that came meanwhile arrive when it is dropped.
#[must_use = "the signals wait as long as this exists"]
#[derive(Debug)]
pub struct HeldSignals(SigSet);

impl HeldSignals {
    /// Has these signals wait. Call it before the process has other threads, which would get them.
    pub fn hold(signals: &[i32]) -> Self {
        let known = signals
            .iter()
            .filter_map(|signal| Signal::try_from(*signal).ok());
        let held = known.collect::<SigSet>();
        // It fails only for an unknown request.
        let _ = held.thread_block();
        Self(held)
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = self.0.thread_unblock();
    }
}
