//! dns-tool relays cleartext DNS, over TCP and UDP, to one resolver whose identity it has proved, over TLS.
#![forbid(unsafe_code)]

pub mod client;
pub mod deadline;
pub mod forwarder;
pub mod frame;
pub mod identity;
pub mod metrics;
pub mod pin;
pub mod server;
pub mod session;
pub mod upstream;
pub mod wire;
pub mod worker;
