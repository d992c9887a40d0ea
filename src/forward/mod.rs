//! What happens to a query?

mod checks;
pub mod completion;
pub mod counts;
pub mod flights;
pub mod forwarder;
pub mod in_flight;
pub mod outcome;
pub mod policy;
pub mod rate_limit;
mod relay;
pub mod waiters;
pub mod waiting;
