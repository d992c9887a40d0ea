//! What is shown to the outside?
//!
//! From top to bottom, each of these files imports only files below it:
//!
//! - [`http`]: the port, and the response to each request.
//! - [`page`]: the page for people.
//! - `chart`: the charts on it.
//! - [`snapshot`]: all numbers of the page, as of one moment.
//! - [`history`]: how the service did in the last minutes.
//! - [`export`]: all metrics.
//! - [`resolver_metrics`]: those of the resolvers.
//! - [`summary`]: whether queries are answered, and if not, why.
//! - `human_units`: how numbers are written for people.
//! - [`service_level`]: how well clients are served.
//! - [`process`]: what is known of this process itself.
//! - [`exposition`]: how metrics are written for Prometheus.

mod chart;
pub mod export;
pub mod exposition;
pub mod history;
pub mod http;
mod human_units;
pub mod page;
pub mod process;
pub mod resolver_metrics;
pub mod service_level;
pub mod snapshot;
pub mod summary;
