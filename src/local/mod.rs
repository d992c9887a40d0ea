//! What is answered here, without a resolver?
//!
//! The operator lists names in hosts files. Some other names have no meaning in the public DNS, and their RFCs ask forwarders not to
//! pass them on. This folder knows these names and writes their answers. Each file imports only files below it in this list:
//!
//! - `reply`: what is the answer to a question of a listed or a special-use name?
//! - [`hosts_reader`]: which names do the hosts files have now?
//! - [`hosts_file`]: what does a hosts file say?
//! - [`host_table`]: which addresses has a listed name, and which name has an address?
//! - `special_names`: which names are special, and what is at them?

// This folder reads names from the network: code that could panic or wrap around is not allowed.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod host_table;
pub mod hosts_file;
pub mod hosts_reader;
mod reply;
mod special_names;

pub use reply::{host_reply, name_error, special_reply};
