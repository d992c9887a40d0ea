//! What did the user ask for?

mod file;
pub mod help;
mod options;
pub mod settings;
pub mod sources;
