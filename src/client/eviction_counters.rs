//! What have the bounds on clients cost them?

use crate::telemetry::metrics::Counter;

/// What the bounds on clients have cost them.
#[derive(Debug, Default)]
pub struct EvictionCounters {
    /// Datagrams that the kernel dropped, because its queue for us was full.
    pub datagrams: Counter,
    /// Connections that gave way to newcomers.
    pub gave_way: Counter,
    /// Connections that were closed at once, as too many of one address.
    pub refused: Counter,
    /// Connections that were closed because their clients did not read.
    pub not_reading: Counter,
    /// Connections that were closed because the system had no thread for them.
    pub no_thread: Counter,
    /// Connections that were closed because there was no memory for what they sent or were sent.
    pub over_memory: Counter,
}
