//! What else can be asked of the program?
//!
//! The subcommands beside serving, one file for each: a word before the options, which are those of the daemon and mean the
//! same. Each does one thing, says what came of it and ends.

pub mod check;
pub mod json;
pub mod pin;
pub mod query;
