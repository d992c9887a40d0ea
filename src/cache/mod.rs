//! Is the answer known already?
//!
//! Whole answers are cached, each for one question only: its name, type and class, and the bits DO and CD. An answer is fresh for as
//! long as the smallest TTL in it says, and goes out with what is left of its TTLs. An expired answer stays for a while, to be served
//! in place of a failure (RFC 8767). Failures are cached too, for seconds, so that a name that cannot be resolved is not asked for
//! again and again (RFC 9520).
//!
//! Each file imports only files below it in this list:
//!
//! - `store`: what does the cache know of this question?
//! - `cache_hit`: how does a cached answer go out?
//! - `entry`: how is an answer stored, by which key is it found, and what does it cost?
//! - `cacheability`: may an answer be cached, and for how long?
//! - `backoff`: when may a question that failed be asked again?

mod backoff;
mod cache_hit;
mod cacheability;
mod entry;
mod store;

pub use cache_hit::CacheHit;
pub use store::{Cache, Lookup, Refresh, Responder, Settings};
