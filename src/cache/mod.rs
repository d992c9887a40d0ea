//! Do we know it already?
//!
//! Whole answers, each kept for the question that it answers and for no other: its name, type and class, and the bits DO
//! and CD. An answer is kept for as long as the least TTL in it says, and shown with what is left of its TTLs. Past its
//! time it stays for a while, to be served in place of a failure (RFC 8767). Failures are kept too, for seconds, so that a
//! name that cannot be resolved is not asked for again and again (RFC 9520).
//!
//! Each file imports only files below it in this list:
//!
//! - `store`: what is known of this question?
//! - `kept`: how is a kept answer shown?
//! - `entry`: how is an answer kept, by what is it found, and what does it cost?
//! - `cacheability`: may an answer be kept, and for how long?
//! - `backoff`: when may what failed be asked for again?

mod backoff;
mod cacheability;
mod entry;
mod kept;
mod store;

pub use kept::Kept;
pub use store::{Ask, Cache, Found, Settings};
