//! What happens to a query?
//!
//! It goes in at [`forwarder`] and comes out at [`completion`], with exactly one [`outcome`]. Each file imports only files below it in
//! this list:
//!
//! - [`forwarder`]: what happens to this query, in order?
//! - `relay`: how does a query get on its way to the resolver?
//! - `checks`: may this query be asked here at all?
//! - [`completion`]: what becomes of a query that has ended?
//! - [`policy`]: which settings hold for queries that come in?
//! - [`counts`]: how many queries had which outcome, and how long did they take?
//! - [`in_flight_table`]: is an equal query in flight already?
//! - [`in_flight`]: what is on its way to the resolver?
//! - [`waiters`]: which clients wait for this answer, and until when?
//! - [`rebinding`]: does this answer lead a client into its own network?
//! - [`outcome`]: how did a query end?
//! - [`rate_limit`]: may this client ask now?
//! - [`quota`]: may this client have one more query in flight?

mod checks;
pub mod completion;
pub mod counts;
pub mod forwarder;
pub mod in_flight;
pub mod in_flight_table;
pub mod outcome;
pub mod policy;
pub mod quota;
pub mod rate_limit;
pub mod rebinding;
mod relay;
pub mod routes;
pub mod waiters;
