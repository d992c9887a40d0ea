//! How is a kept answer shown?

use std::sync::Arc;

use crate::cache::entry::Entry;
use crate::message::{Answer, ExtendedError, ReplyOptions, TtlRewrite, ede, rcode};

/// The TTL of what is served past its time, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;

/// An answer that was kept, and how it is to be shown now.
#[derive(Debug)]
pub struct Kept {
    entry: Arc<Entry>,
    shown: ReplyOptions,
}

impl Kept {
    /// One within its time, of that age in milliseconds.
    pub(super) fn fresh(entry: Arc<Entry>, age: u64) -> Self {
        let ttls = TtlRewrite::Decremented {
            max: entry.most,
            age: u32::try_from(age / 1000).unwrap_or(u32::MAX),
        };
        let shown = ReplyOptions { ttls, ede: None };
        Self { entry, shown }
    }

    /// One past its time.
    pub(super) fn stale(entry: Arc<Entry>) -> Self {
        let code = match entry.answer.answer().rcode() {
            rcode::NXDOMAIN => ede::STALE_NXDOMAIN,
            _ => ede::STALE_ANSWER,
        };
        let shown = ReplyOptions {
            ttls: TtlRewrite::Fixed(STALE_TTL),
            ede: Some(ExtendedError { code, text: "" }),
        };
        Self { entry, shown }
    }

    /// A failure that is not over.
    pub(super) fn failed(entry: Arc<Entry>) -> Self {
        let ede = ExtendedError {
            code: ede::CACHED_ERROR,
            text: "",
        };
        let shown = ReplyOptions {
            ttls: TtlRewrite::Unchanged,
            ede: Some(ede),
        };
        Self { entry, shown }
    }

    /// The answer.
    pub fn answer(&self) -> Answer<'_> {
        self.entry.answer.answer()
    }

    /// The question that it is kept for.
    #[cfg(test)]
    pub(super) fn question(&self) -> &[u8] {
        self.entry.answer.question()
    }

    /// How it is to be shown.
    pub fn shown(&self) -> &ReplyOptions {
        &self.shown
    }

    /// Whether it is a failure.
    pub fn is_failure(&self) -> bool {
        self.entry.is_failure()
    }

    /// Whether it is past its time.
    pub fn is_stale(&self) -> bool {
        matches!(self.shown.ttls, TtlRewrite::Fixed(_))
    }
}
