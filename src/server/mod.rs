//! Where do queries come from?
//!
//! Each file imports only files below it in this list:
//!
//! - [`listeners`]: how is listening started and stopped?
//! - `tcp`: how are TCP clients accepted?
//! - `udp`: how are queries received over UDP?
//! - [`workers`]: what does a worker thread do?
//! - `reader`: how are the queries of one TCP connection read?
//! - `backoff`: how long do accepting and receiving pause after an error?
//! - [`sockets`]: which sockets are listened on?
//! - [`settings`]: what can the user configure about listening and TCP clients?

mod backoff;
pub mod listeners;
mod reader;
pub mod settings;
pub mod sockets;
mod tcp;
mod udp;
pub mod workers;
