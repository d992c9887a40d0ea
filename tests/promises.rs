//! The promises of the README, one file for each, held over real sockets.
//!
//! Not tested here: what needs other programs (interop.rs), and how long things take (scripts).

mod support;

mod answer_source;
mod answers;
mod architecture;
mod cache;
mod clients;
mod command_check;
mod command_line;
mod command_query;
mod configuration;
mod deployment;
mod guide;
mod hostile;
mod hosts;
mod identity;
mod key_exchange;
mod life;
mod link_local;
mod listeners;
mod manual;
mod memory;
mod messages;
mod monitor;
mod names;
mod network;
mod pins;
mod pool;
mod readme;
mod rebinding;
mod routes;
mod sandbox;
mod service;
mod sessions;
mod watch;
