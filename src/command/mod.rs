//! What else can be asked of the program?
//!
//! The subcommands beside serving: a word before the options, which are those of the daemon and mean the same. Each does one
//! thing, says what came of it and ends. From top to bottom, each of these files imports only files below it:
//!
//! - [`check`]: is all as it should be?
//! - `check_resolver`: how each address of the resolvers fares.
//! - [`check_report`]: what a look at everything found.
//! - [`pin`]: which keys a resolver shows.
//! - [`query`]: what a running dns-tool answers, or the resolver itself.
//! - [`stub`]: how one resolver is asked, as a stub does.
//! - [`json`]: how a report looks to a program.

pub mod check;
pub mod check_report;
mod check_resolver;
pub mod json;
pub mod pin;
pub mod query;
pub mod stub;
