//! What is counted and written?

pub mod log;
pub mod metrics;
pub mod query_log;
pub mod queue;
