//! How is it put together, reloaded and stopped?

pub mod confinement;
pub mod error;
pub mod pin_manager;
mod reload;
pub mod running;
pub mod start;
mod upstreams;
