//! What else can be asked of the program?
//!
//! The subcommands: a word before the options, which are the daemon's and mean the same. Each does one thing, reports the result
//! and exits. From top to bottom, each of these files imports only files below it:
//!
//! - [`check`]: is all as it should be?
//! - `check_ports`: whether the daemon may listen on its addresses.
//! - `check_routes`: how the resolvers and servers of routes do, and what leaves in cleartext.
//! - `check_resolver`: how each address of the resolvers does.
//! - `check_identity`: what is to be said of the identity that one showed.
//! - `built_in_addresses`: which built-in addresses are not checked.
//! - [`check_report`]: the findings of a check.
//! - [`pin`]: which keys a resolver presents.
//! - [`query`]: what a running dns-tool answers, or the resolver itself.
//! - `answer_report`: how an answer looks, and where it comes from.
//! - [`stub`]: how a server is queried, as a stub resolver does.
//! - [`json`]: how a report looks to a program.

mod answer_report;
mod built_in_addresses;
pub mod check;
mod check_identity;
mod check_ports;
pub mod check_report;
mod check_resolver;
mod check_routes;
pub mod json;
pub mod pin;
pub mod query;
pub mod stub;
