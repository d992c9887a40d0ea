//! Whom do we ask?
//!
//! The most preferred resolver that is healthy and authenticated, over few sessions that all queries share. [`pool`] decides, without
//! sockets, which query goes where and which sessions there are. The threads here do the work: workers bring queries and open sessions,
//! each session has a thread that reads it, and a timer tells the pool that time has passed. Each thread with an event takes the pool's
//! lock, gets back the actions to take, and takes them after it has released the lock. A query is only ever sent on a session whose
//! resolver was authenticated, unless the operator chose a cleartext server of the own network for its zone.
//!
//! - The rules: [`pool`] (and its parts `scheduling`, `isolation`, `suspects`, `hello_fallback`, `answers`, `session_end`, `timing`, `network`, `consistency`), [`actions`] (what
//!   goes into the pool and comes out), `table` (queries and sessions), `address`, `address_record`, `culprits`, `hello_size`, `obstruction`,
//!   `outage`, [`health`], [`token_bucket`].
//! - The threads: `driver` (the type [`Upstream`]), `connect`, `session_thread`, `timer`, `reload`, `network_change`, `events` (log lines),
//!   `service` (which queries are answered), `status` (what
//!   monitoring shows), `pool_query` (what the rules know of a query).
//! - One connection: [`session`], `channel` (TLS or none), `outgoing`, `reader`, [`handshake`], [`query_ids`].
//! - Settings and requirements: `settings`, `traits`.

pub mod actions;
mod address;
mod address_record;
mod answers;
mod channel;
mod connect;
mod consistency;
mod culprits;
mod driver;
mod events;
pub mod handshake;
pub mod health;
mod hello_fallback;
mod hello_size;
mod isolation;
mod network;
mod network_change;
mod obstruction;
mod outage;
mod outgoing;
pub mod pool;
mod pool_query;
pub mod query_ids;
mod reader;
mod reload;
mod scheduling;
mod service;
pub mod session;
mod session_end;
mod session_thread;
mod settings;
mod status;
mod suspects;
mod table;
mod timer;
mod timing;
pub mod token_bucket;
mod traits;

pub use self::actions::Failure;
pub use self::address_record::{FailureCause, FailureKind};
pub use self::channel::CloseReason;
pub use self::culprits::QueryGroups;
pub use self::driver::{Upstream, WorkBuffers};
pub use self::network_change::NetworkEffect;
pub use self::obstruction::{NetworkFault, Obstruction};
pub use self::outgoing::{Message, Outgoing};
pub use self::reader::Reader;
pub use self::settings::{MAX_CONNECT_ATTEMPTS, MIN_SILENCE_TIMEOUT, Resolver, Security, Settings};
pub use self::status::{AddressStatus, DegradedSessions, LastFailure, PinStatus, UpstreamMetrics};
pub use self::table::{PoolQuery, SessionId};
pub use self::traits::{Completer, Query, Replies};
