//! What happens when this host's network changes?

use std::io::PipeWriter;
use std::sync::Arc;

use crate::forward::forwarder::Forwarder;
use crate::system::network_watch::NetworkWatcher;
use crate::system::thread;
use crate::telemetry::log::{debug, info, warn};
use crate::upstream::NetworkEffect;

/// Starts a thread that tells the forwarder's upstreams of changes of the network, until the returned writer is dropped. Returns `None` if
/// changes cannot be watched: then addresses that failed are tried again as time passes.
pub(super) fn start(forwarder: &Arc<Forwarder>) -> Option<PipeWriter> {
    let started = NetworkWatcher::new().and_then(|(mut watcher, stop)| {
        let forwarder = Arc::clone(forwarder);
        thread::spawn_restarting("network", move || watch(&mut watcher, &forwarder))?;
        Ok(stop)
    });
    started.inspect_err(log_failure).ok()
}

fn watch(watcher: &mut NetworkWatcher, forwarder: &Forwarder) {
    loop {
        match watcher.wait() {
            Ok(true) => {
                let mut effect = NetworkEffect::default();
                for upstream in forwarder.upstreams().all() {
                    effect += upstream.network_changed();
                }
                log_change(effect);
            }
            Ok(false) => return,
            Err(error) => return log_failure(&error),
        }
    }
}

/// Logs a change. Some hosts change all the time, and mostly it means nothing for the resolvers.
fn log_change(effect: NetworkEffect) {
    let NetworkEffect {
        lost_sessions,
        failed_addresses,
    } = effect;
    if effect.is_none() {
        debug!("event=network-changed");
    } else {
        info!(
            "event=network-changed lost-sessions={lost_sessions} failed-addresses={failed_addresses}"
        );
    }
}

fn log_failure(error: &std::io::Error) {
    warn!("event=network-watch-failed cause=\"{error}\"");
}
