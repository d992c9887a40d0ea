//! How does a cached answer go out?

use std::sync::Arc;

use crate::cache::entry::Entry;
use crate::message::{Answer, ExtendedError, ReplyOptions, TtlRewrite, ede, rcode};

/// The TTL of records in an expired answer, in seconds (RFC 8767 section 4).
const STALE_TTL: u32 = 30;

/// A cached answer or failure, and what to change in it for a client now.
#[derive(Debug)]
pub struct CacheHit {
    entry: Arc<Entry>,
    options: ReplyOptions,
}

impl CacheHit {
    /// An answer that has not expired, `age` milliseconds old.
    pub(super) fn fresh(entry: Arc<Entry>, age: u64) -> Self {
        let ttls = TtlRewrite::Decremented {
            max: entry.max_record_ttl,
            age: u32::try_from(age / 1000).unwrap_or(u32::MAX),
        };
        let options = ReplyOptions { ttls, ede: None };
        Self { entry, options }
    }

    /// An expired answer, with the EDE Stale Answer or Stale NXDOMAIN Answer.
    pub(super) fn stale(entry: Arc<Entry>) -> Self {
        let code = match entry.answer.answer().rcode() {
            rcode::NXDOMAIN => ede::STALE_NXDOMAIN,
            _ => ede::STALE_ANSWER,
        };
        let options = ReplyOptions {
            ttls: TtlRewrite::Fixed(STALE_TTL),
            ede: Some(ExtendedError { code, text: "" }),
        };
        Self { entry, options }
    }

    /// A failure whose question may not be asked again yet, with the EDE Cached Error.
    pub(super) fn failed(entry: Arc<Entry>) -> Self {
        let ede = ExtendedError {
            code: ede::CACHED_ERROR,
            text: "",
        };
        let options = ReplyOptions {
            ttls: TtlRewrite::Unchanged,
            ede: Some(ede),
        };
        Self { entry, options }
    }

    /// The answer as the resolver sent it.
    pub fn answer(&self) -> Answer<'_> {
        self.entry.answer.answer()
    }

    /// The question that it answers.
    #[cfg(test)]
    pub(super) fn question(&self) -> &[u8] {
        self.entry.answer.question()
    }

    /// What to change in the answer for a client: TTLs, and the EDE to add.
    pub fn reply_options(&self) -> &ReplyOptions {
        &self.options
    }

    /// Whether this is a failure.
    pub fn is_failure(&self) -> bool {
        self.entry.is_failure()
    }

    /// Whether this is a refusal, which is a failure, too: the caller gives its reason.
    pub fn is_refusal(&self) -> bool {
        self.entry.is_refusal()
    }

    /// Whether this is an expired answer.
    pub fn is_stale(&self) -> bool {
        matches!(self.options.ttls, TtlRewrite::Fixed(_))
    }
}
