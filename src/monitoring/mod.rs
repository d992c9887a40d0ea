//! What is shown to the outside?

pub mod export;
pub mod http;
pub mod page;
