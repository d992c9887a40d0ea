//! What is shown to the outside?
//!
//! From top to bottom, each of these files imports only files below it:
//!
//! - [`http`]: the port, and what answers to which request.
//! - [`page`]: the page for people.
//! - `chart`: the charts on it.
//! - `human_units`: numbers, spelled for people.
//! - [`history`]: how the service did in the last minutes.
//! - [`export`]: all numbers that there are, and whether queries would be answered.
//! - [`service_level`]: how well clients are served.
//! - [`process`]: what is known of this process itself.
//! - [`exposition`]: numbers, spelled for programs that collect them.

mod chart;
pub mod export;
pub mod exposition;
pub mod history;
pub mod http;
mod human_units;
pub mod page;
pub mod process;
pub mod service_level;
