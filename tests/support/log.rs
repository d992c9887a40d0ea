//! The log lines of this process, kept for the tests to read. Tests run side by side, so they look for their resolver's
//! address, which no other test has at the same time, since the time when they got it.

use std::fmt::Display;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::{Mutex, MutexGuard};

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

/// How many lines there are so far.
pub(crate) fn mark() -> usize {
    capture();
    kept().len()
}

/// The lines after the mark at `level` or above that hold `part`.
pub(crate) fn lines(mark: usize, level: Level, part: impl Display) -> Vec<String> {
    let part = part.to_string();
    kept()
        .iter()
        .skip(mark)
        .filter(|(at, line)| *at <= level && line.contains(&part))
        .map(|(_, line)| line.clone())
        .collect()
}

fn kept() -> MutexGuard<'static, Vec<(Level, String)>> {
    let kept = KEPT.get().expect("capture was called");
    kept.0.lock().expect("no test panics while it logs")
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
