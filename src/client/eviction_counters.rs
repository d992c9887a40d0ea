//! Which limits on clients took effect, and how often?

use crate::telemetry::metrics::Counter;

/// Counts connections that were closed and datagrams that were dropped because of a limit. All counters are atomic.
#[derive(Debug, Default)]
pub struct EvictionCounters {
    /// Datagrams that the kernel dropped because the receive queue of the socket was full (SO_RXQ_OVFL).
    pub udp_receive_drops: Counter,
    /// Connections that were evicted in favour of new ones.
    pub evicted: Counter,
    /// Connections that were closed right after they were accepted, because their client had too many already.
    pub over_address_limit: Counter,
    /// Connections that were closed because the client did not read its answers in time, or left too many of them unread.
    pub slow_readers: Counter,
    /// Connections that were closed because the system had no thread for them.
    pub no_thread: Counter,
    /// Connections that were closed because there was no memory for their queries or answers.
    pub over_memory: Counter,
}
