//! How is it put together, reloaded and stopped?

pub mod confinement;
pub mod error;
pub mod key_refresh;
mod reload;
pub mod running;
pub mod start;
