//! How long do accepting and receiving pause after an error?

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::telemetry::log::{info, warn};

/// The pause after the first error.
const MIN_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause: each further error doubles it up to this.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Pauses after errors of accepting or receiving. The first of several errors in a row is logged, and so is the recovery.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// The last pause; none while there is no error.
    pause: Option<Duration>,
}

impl Backoff {
    /// Sleeps after `error`. `what` is the operation that failed, as in the log event.
    pub(super) fn wait(&mut self, what: &str, error: &io::Error) {
        let pause = match self.pause {
            Some(pause) => (pause * 2).min(MAX_PAUSE),
            None => {
                warn!("event={what}-failed cause=\"{error}\"");
                MIN_PAUSE
            }
        };
        self.pause = Some(pause);
        sleep(pause);
    }

    /// Ends the pauses after a success of the operation `what`.
    pub(super) fn reset(&mut self, what: &str) {
        if self.pause.take().is_some() {
            info!("event={what}-recovered");
        }
    }
}
