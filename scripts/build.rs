//! When was this built? Run by cargo, which hands the answer to the compiler as `DNS_TOOL_BUILT`: seconds since 1970. No
//! clock that is right shows an earlier time. SOURCE_DATE_EPOCH makes it the same for every build of the same source.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let said = env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse().ok());
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    };
    println!(
        "cargo:rustc-env=DNS_TOOL_BUILT={}",
        said.unwrap_or_else(now)
    );
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=src");
}
