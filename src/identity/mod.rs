//! Is this the resolver that is meant?
//!
//! Each file imports only files below it in this list:
//!
//! - [`trust`]: what are the keys to be believed made of?
//! - [`state_file`]: what is remembered from one start to the next?
//! - [`memory_lines`]: how is what is remembered of a resolver's keys written and read?
//! - [`rollover`]: may a new key be believed that nobody has pinned?
//! - [`pin_file`]: which pins hold now?
//! - [`verifier`]: how is a TLS connection had with the resolver that is meant, and with no other?
//! - [`chain`]: does a certificate chain prove that this is the resolver that is meant?
//! - [`policy`]: what must a resolver show?
//! - [`refusal`]: why is this not the resolver that is meant?
//! - [`anchors`]: whose signature on a certificate is believed?
//! - [`pin`]: what is a pin?
//! - [`certificate`]: what does a certificate say of itself?

pub mod anchors;
pub mod certificate;
pub mod chain;
pub mod memory_lines;
pub mod pin;
pub mod pin_file;
pub mod rollover;
pub mod state_file;
pub mod trust;
pub mod verifier;
pub mod verify_error;
pub mod verify_policy;
