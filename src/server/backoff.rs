//! How long is it waited after an error of accepting or receiving?

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::telemetry::log::{info, warn};

/// How long accepting or receiving pauses after an error, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Errors of accepting or receiving: waited out, said once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pause: Option<Duration>,
}

impl Backoff {
    pub(super) fn wait(&mut self, what: &str, error: &io::Error) {
        let pause = match self.pause {
            Some(pause) => (pause * 2).min(PAUSE.1),
            None => {
                warn!("event={what}-failed cause=\"{error}\"");
                PAUSE.0
            }
        };
        self.pause = Some(pause);
        sleep(pause);
    }

    pub(super) fn is_over(&mut self, what: &str) {
        if self.pause.take().is_some() {
            info!("event={what}-works-again");
        }
    }
}
