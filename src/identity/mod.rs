//! Is this the resolver that is meant?

pub mod certificate;
pub mod memory_lines;
pub mod pin;
pub mod pin_file;
pub mod rollover;
pub mod state_file;
pub mod trust;
pub mod verifier;
