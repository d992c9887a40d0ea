//! What is answered here, without a resolver?
//!
//! Some names have no meaning in the public DNS, and their RFCs ask forwarders not to pass them on. This folder knows these names and
//! writes their answers. Each file imports only files below it in this list:
//!
//! - `reply`: what is the answer to a question of a special-use name?
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

mod reply;
mod special_names;

pub use reply::{name_error, reply};
