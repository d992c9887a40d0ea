//! Where do queries come from?
//!
//! Each file imports only files below it in this list:
//!
//! - [`listeners`]: how is listening started and stopped?
//! - `tcp`: how are TCP clients accepted?
//! - `udp`: how are queries received over UDP?
//! - [`workers`]: what does a pool thread do with a job?
//! - `reader`: how are the queries of one TCP connection read?
//! - `backoff`: how long is it waited after an error of accepting or receiving?
//! - [`sockets`]: which sockets are listened on?
//! - [`settings`]: what can the user say about the clients that are served?

mod backoff;
pub mod listeners;
mod reader;
pub mod settings;
pub mod sockets;
mod tcp;
mod udp;
pub mod workers;
