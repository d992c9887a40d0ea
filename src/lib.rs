//! dns-tool relays cleartext DNS, over TCP and UDP, to one resolver whose identity it has verified, over TLS.
//!
//! ```text
//! clients                                                                        resolver
//! TCP --> server: accept --> worker: read queries --.
//! UDP --> server: receive datagrams ----------------+--> forward: the policy, in order
//!                                                               |
//!                        denied, rate-limited, or in the cache: answered at once
//!                                    in flight already: waits for the same answer
//!                                                               v
//!                                        upstream: pool --> session --> TLS record each
//!                                                                                      |
//! client: send replies <-- forward: complete <--- session thread: match the answer <---'
//! ```
//!
//! Read the folders in the order in which a query travels. Each answers one question, imports only folders below it in this list,
//! and says at its head which files it has:
//!
//! - [`command`]: what else can be asked of the program?
//! - [`daemon`]: how is it put together, reloaded and stopped?
//! - [`config`]: what did the user ask for?
//! - [`server`]: where do queries come from?
//! - [`monitoring`]: what is shown to the outside?
//! - [`forward`]: what happens to a query?
//! - [`cache`]: is the answer known already?
//! - [`upstream`]: whom do we ask?
//! - [`client`]: how does an answer leave?
//! - [`identity`]: is this the resolver that is meant?
//! - [`telemetry`]: what is counted and written?
//! - [`message`]: what do these octets say?
//! - [`system`]: what does the operating system give?
//!
//! No thread ever waits for another connection's answer: a query that waits is an entry in the pool's table, and the thread that
//! reads its answer delivers it.
#![forbid(unsafe_code)]

pub mod cache;
pub mod client;
pub mod command;
pub mod config;
pub mod daemon;
pub mod forward;
pub mod guide;
pub mod identity;
pub mod message;
pub mod monitoring;
pub mod server;
pub mod system;
pub mod telemetry;
pub mod upstream;
