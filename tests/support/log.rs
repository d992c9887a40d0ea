//! The log lines of this process, kept for the tests to read. Tests run side by side, so they look for their resolver's
//! address, which no other test has.

use std::fmt::Display;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::Mutex;

struct Kept(Mutex<Vec<(Level, String)>>);

static KEPT: OnceLock<&'static Kept> = OnceLock::new();

/// Keeps all lines from now on.
pub(crate) fn capture() {
    KEPT.get_or_init(|| {
        let kept: &'static Kept = Box::leak(Box::new(Kept(Mutex::default())));
        log::set_logger(kept).expect("no other logger");
        log::set_max_level(LevelFilter::Debug);
        kept
    });
}

/// The lines so far at `level` or above that hold `part`.
pub(crate) fn lines(level: Level, part: impl Display) -> Vec<String> {
    let part = part.to_string();
    let kept = KEPT
        .get()
        .expect("capture was called")
        .0
        .lock()
        .expect("no test panics while it logs");
    kept.iter()
        .filter(|(at, line)| *at <= level && line.contains(&part))
        .map(|(_, line)| line.clone())
        .collect()
}

impl Log for Kept {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        self.0
            .lock()
            .expect("no test panics while it logs")
            .push(line);
    }

    fn flush(&self) {}
}
