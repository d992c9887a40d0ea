//! What is counted and written?
//!
//! From top to bottom, each of these files imports only files below it:
//!
//! - [`query_log`]: where lines about single queries go.
//! - [`log`]: where log lines go.
//! - [`journal`]: does the log go to the journal, and how does a line begin there?
//! - [`queue`]: what waits to be written.
//! - [`metrics`]: how a number is counted.

pub mod journal;
pub mod log;
pub mod metrics;
pub mod query_log;
pub mod queue;
