//! The guide: one chapter for each task of a reader. The same files can be read where they lie, in `src/guide`.

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/operating.md"))]
pub mod operating {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/configuration.md"))]
pub mod configuration {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/containers.md"))]
pub mod containers {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/pins.md"))]
pub mod pins {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/names.md"))]
pub mod names {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/queries.md"))]
pub mod queries {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/outcomes.md"))]
pub mod outcomes {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/limits.md"))]
pub mod limits {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/monitoring.md"))]
pub mod monitoring {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/troubleshooting.md"))]
pub mod troubleshooting {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/security.md"))]
pub mod security {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/measuring.md"))]
pub mod measuring {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/contributing.md"))]
pub mod contributing {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/recipes.md"))]
pub mod recipes {}

#[doc = include_str!(concat!(env!("OUT_DIR"), "/guide/changes.md"))]
pub mod changes {}
