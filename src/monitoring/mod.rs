//! What is shown to the outside?

pub mod export;
pub mod exposition;
pub mod http;
pub mod page;
pub mod process;
