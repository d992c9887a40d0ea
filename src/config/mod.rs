//! What did the user ask for?

pub mod options;
pub mod settings;
