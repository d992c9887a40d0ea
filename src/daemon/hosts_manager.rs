//! Which names of hosts files are answered, as the files change?

use std::io::{PipeWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::forward::forwarder::Forwarder;
use crate::local::hosts_reader::{Hosts, SkippedLines};
use crate::system::clock;
use crate::system::file_watch::FileWatcher;
use crate::system::thread;
use crate::telemetry::log::{error, info, warn};

/// The pause before files are read again that could not be read for want of descriptors or memory: at first and at most. Each further
/// failure doubles it.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Keeps the names of a forwarder up to date with the hosts files.
///
/// Its thread shares it. `current` guards what was read; it is held while the files are read, and it is taken before the forwarder's
/// lock. `watcher_stop` is taken on its own, never while another lock is held.
pub(super) struct HostsManager {
    forwarder: Arc<Forwarder>,
    current: Mutex<Current>,
    /// Dropped to end the thread that watches the files.
    watcher_stop: Mutex<Option<PipeWriter>>,
}

struct Current {
    /// What was read last.
    hosts: Hosts,
    /// The last error of the files, so that each error is logged once.
    last_error: String,
    /// When the files are read again after a failure that was not theirs; none after a success or another failure.
    retry_pause: Option<Duration>,
    /// Another manager is in charge of the forwarder: this one changes nothing.
    stopped: bool,
}

impl HostsManager {
    /// Keeps the names of `forwarder`, which answers those of `hosts` already, up to date until [`HostsManager::stop`].
    pub(super) fn start(hosts: Hosts, forwarder: &Arc<Forwarder>) -> Arc<Self> {
        log_skipped(&hosts.skipped);
        let manager = Arc::new(Self {
            forwarder: Arc::clone(forwarder),
            current: Mutex::new(Current {
                hosts,
                last_error: String::new(),
                retry_pause: None,
                stopped: false,
            }),
            watcher_stop: Mutex::new(None),
        });
        *manager.watcher_stop.lock() = manager.watch();
        manager
    }

    /// Whether there is a file.
    pub(super) fn has_files(&self) -> bool {
        !self.current.lock().hosts.files.is_empty()
    }

    /// Reads the files again. If one of them cannot be used, all names stay as they are. With `on_request`, the result is logged even
    /// if nothing has changed.
    pub(super) fn reload(&self, on_request: bool) {
        self.read_files(on_request);
        // The thread waits for a change, and does not know that it has to try again.
        if on_request
            && self.current.lock().retry_pause.is_some()
            && let Some(watcher) = &mut *self.watcher_stop.lock()
        {
            let _ = watcher.write_all(&[1]);
        }
    }

    fn read_files(&self, on_request: bool) {
        let mut current = self.current.lock();
        if current.stopped || current.hosts.files.is_empty() {
            return;
        }
        match current.hosts.reread() {
            Ok(hosts) => {
                let before = std::mem::replace(&mut current.hosts, hosts);
                let recovered = !std::mem::take(&mut current.last_error).is_empty();
                current.retry_pause = None;
                let Hosts { table, skipped, .. } = &current.hosts;
                if *table != before.table {
                    self.forwarder
                        .replace_hosts(Arc::clone(table), clock::now());
                }
                if on_request || recovered || *table != before.table || *skipped != before.skipped {
                    log_skipped(skipped);
                    log_reloaded(&current.hosts);
                }
            }
            Err(error) => {
                let cause = error.to_string();
                if on_request || cause != current.last_error {
                    error!(
                        "event=hosts-reload-failed file={:?} cause={:?}",
                        error.file, error.cause
                    );
                }
                current.last_error = cause;
                current.retry_pause = error
                    .is_for_want_of_resources
                    .then(|| next_pause(current.retry_pause));
            }
        }
    }

    fn retry_pause(&self) -> Option<Duration> {
        self.current.lock().retry_pause
    }

    /// Stops to change names, and ends the thread.
    pub(super) fn stop(&self) {
        self.current.lock().stopped = true;
        *self.watcher_stop.lock() = None;
    }

    /// Starts a thread that reloads whenever a file changes, and after failures that were not the files', until the returned writer is dropped. Returns `None` without a file, or
    /// if the files cannot be watched.
    fn watch(self: &Arc<Self>) -> Option<PipeWriter> {
        let files = self.current.lock().hosts.files.clone();
        let first = files.first()?;
        let watched = FileWatcher::new(&files).and_then(|(watcher, stop)| {
            let manager = Arc::clone(self);
            thread::spawn_restarting("hosts", move || {
                // Catches a change from before the watch began.
                manager.reload(false);
                while watcher.wait(manager.retry_pause()) {
                    manager.reload(false);
                }
            })?;
            Ok(stop)
        });
        let failed = |error: &std::io::Error| {
            warn!("event=hosts-watch-failed file={first:?} cause=\"{error}\"");
        };
        watched.inspect_err(failed).ok()
    }
}

/// The pause after one more failure, from the one after the failure before.
fn next_pause(last: Option<Duration>) -> Duration {
    let (first, longest) = RETRY_PAUSE;
    last.map_or(first, |last| (last * 2).min(longest))
}

/// Logs that the files were read again.
pub(super) fn log_reloaded(hosts: &Hosts) {
    let Hosts {
        files,
        table,
        skipped,
    } = hosts;
    info!(
        "event=hosts-reloaded files={} names={} skipped={}",
        files.len(),
        table.len(),
        skipped.count()
    );
}

/// Logs the lines that one reading skipped: the first ones, and the number of the others.
fn log_skipped(skipped: &SkippedLines) {
    for line in &skipped.first {
        warn!(
            "event=hosts-line-skipped file={:?} line={} cause={:?}",
            line.file,
            line.line,
            line.cause.to_string()
        );
    }
    if skipped.others > 0 {
        warn!("event=hosts-lines-skipped others={}", skipped.others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_a_second_to_a_minute() {
        let mut pause = None;
        let pauses = [(); 8].map(|()| {
            pause = Some(next_pause(pause));
            pause.map(|pause| pause.as_secs())
        });
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60].map(Some));
    }
}
