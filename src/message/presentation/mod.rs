//! How are names, types and records spelled?
//!
//! The form in which people write the DNS: that of zone files (RFC 1035 section 5.1), and for whatever has no form of its
//! own the one of RFC 3597 section 5. What comes from strangers is escaped, so that a line stays a line.
//!
//! From top to bottom; each file imports only files below it.
//!
//! - `record`: how a record is spelled.
//! - `name`: how a domain name is spelled.
//! - `mnemonics`: what types, classes and response codes are called.

mod mnemonics;
mod name;
mod record;

pub use mnemonics::{Rcode, Type, TypeError};
pub use name::{Name, NameError, Quoted};
pub use record::Line;
