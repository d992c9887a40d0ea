//! What does the process do?
#![forbid(unsafe_code)]

fn main() {}
