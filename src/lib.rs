//! dns-tool relays cleartext DNS, over TCP and UDP, to one resolver whose identity it has proved, over TLS.
#![forbid(unsafe_code)]

pub mod deadline;
pub mod frame;
pub mod metrics;
pub mod wire;
