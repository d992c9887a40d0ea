//! A command line: it is understood or refused in one line, and a pin that is understood is spelled again as it is read.
#![no_main]

use dns_tool::config::{self, Command};
use dns_tool::pin::Pin;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string().parse::<Pin>().ok(), Some(pin));
    }
    // No files: what the disk holds is no input of this.
    if text.contains("ca") || text.contains("file") {
        return;
    }
    match config::parse(text.split('\n')) {
        Ok(Command::Serve(config)) => assert!(!config.upstream.resolvers.is_empty()),
        Ok(_) => {}
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
});
