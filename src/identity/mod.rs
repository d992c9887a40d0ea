//! Is this the resolver that is meant?
//!
//! Each file imports only files below it in this list:
//!
//! - [`trust`]: which pins and learnt keys are accepted?
//! - [`state_file`]: what is saved from one start to the next?
//! - [`history_lines`]: how is the key history of a resolver written and read?
//! - [`rollover`]: may a new key be accepted that is not pinned?
//! - [`pin_file`]: which pins are configured now?
//! - [`verifier`]: how does TLS connect to this resolver, and to no other?
//! - [`chain`]: does a certificate chain prove the resolver's identity?
//! - [`verify_policy`]: what must a resolver prove?
//! - [`verify_error`]: why was a resolver not verified?
//! - [`key_exchange`]: how are the keys of a session agreed on, so that a quantum computer does not find them later?
//! - [`anchors`]: which certificate authorities are trusted?
//! - [`pin`]: what is a pin?
//! - [`certificate`]: what is in a certificate?

pub mod anchors;
pub mod certificate;
pub mod chain;
pub mod history_lines;
pub mod key_exchange;
pub mod pin;
pub mod pin_file;
pub mod rollover;
pub mod state_file;
pub mod trust;
pub mod verifier;
pub mod verify_error;
pub mod verify_policy;
