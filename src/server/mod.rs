//! Where do queries come from?

pub mod listeners;
pub mod workers;
