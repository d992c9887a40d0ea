//! What do these octets say?

pub mod framing;
pub mod presentation;
pub mod wire;
