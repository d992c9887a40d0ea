//! Whom do we ask?
//!
//! The most preferred resolver that is well and proves its identity, over few sessions that all queries share. Which query goes where,
//! and which sessions there are, is decided by [`pool`], without sockets; the threads here carry: workers bring queries
//! and open sessions, each session has one that reads, and a timer tells the pool that time has passed. Whoever has something to tell
//! it takes the lock, is told what to do, and does it once the lock is given back. Never is a query sent anywhere but into a
//! session whose resolver is proved.
//!
//! - The rules: [`pool`] (and `balance`, `alone`, `answers`, `endings`, `timing`, `consistency`, its parts), [`actions`] (what it is told and says),
//!   `table` (queries and sessions), `address`, `suspicion`, [`health`], [`token_bucket`].
//! - The threads: `driver` (the type [`Upstream`]), `connect`, `session_thread`, `timer`, `reload`, `events` (what is logged), `status`
//!   (what is shown and counted), `pending` (what the rules know of a query).
//! - One connection: [`session`], `outgoing`, `reader`, [`handshake`], [`query_ids`].
//! - What is asked for and needed: `settings`, `traits`.

pub mod actions;
mod address;
mod answers;
mod connect;
mod consistency;
mod culprits;
mod driver;
mod events;
pub mod handshake;
pub mod health;
mod isolation;
mod outgoing;
pub mod pool;
mod pool_query;
pub mod query_ids;
mod reader;
mod reload;
mod scheduling;
pub mod session;
mod session_end;
mod session_thread;
mod settings;
mod status;
mod table;
mod timer;
mod timing;
pub mod token_bucket;
mod traits;

pub use self::actions::Failure;
pub use self::culprits::QueryGroups;
pub use self::driver::{Upstream, WorkBuffers};
pub use self::outgoing::{Message, Outgoing};
pub use self::reader::Reader;
pub use self::settings::{MAX_CONNECT_ATTEMPTS, MIN_SILENCE_TIMEOUT, Resolver, Settings};
pub use self::status::{AddressStatus, DegradedSessions, PinStatus, UpstreamMetrics};
pub use self::table::{PoolQuery, SessionId};
pub use self::traits::{Completer, Query, Replies};
