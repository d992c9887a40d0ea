//! How is it put together, reloaded and stopped?

pub mod confinement;
pub mod error;
mod hosts_manager;
mod network_monitor;
pub mod pin_manager;
mod reload;
pub mod running;
pub mod start;
mod upstreams;
