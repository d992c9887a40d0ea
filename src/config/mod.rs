//! What did the user ask for?
//!
//! From top to bottom, each of these files imports only files below it:
//!
//! - [`command_line`]: what the command line asks for.
//! - [`settings`]: which settings the options mean.
//! - `listeners`: which addresses are listened on.
//! - `routes`: which zones have a route, and where it leads.
//! - `values`: how the values of options are read.
//! - [`sources`]: which options were given, and where.
//! - `file`: how a configuration file is written.
//! - [`help`]: what the help says.
//! - `option_lookup`: which option has this name, and where it may be set.
//! - `options`: which options there are.

pub mod command_line;
mod file;
pub mod help;
mod listeners;
mod option_lookup;
mod options;
mod routes;
pub mod settings;
pub mod sources;
mod values;

#[cfg(test)]
mod tests;
