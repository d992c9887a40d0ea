//! What happens to a query?

mod checks;
pub mod counts;
pub mod flights;
pub mod forwarder;
pub mod in_flight;
pub mod outcome;
pub mod policy;
pub mod rate_limit;
pub mod waiters;
pub mod waiting;
