//! Is this the resolver that is meant?

pub mod certificate;
pub mod pin;
pub mod pin_file;
pub mod rollover;
pub mod state_file;
pub mod trust;
pub mod verifier;
