//! What the resolver and the load of the bench have in common: the messages, and how what came of them is counted.

pub mod histogram;
pub mod message;
pub mod pending;
