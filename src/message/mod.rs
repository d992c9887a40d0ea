//! What do these octets say?
//!
//! A relay needs positions in a message and byte-exact splices, not a decoded tree: where the question ends, where the
//! OPT record lies, where the TTLs are. This folder finds them, refuses what is broken, and writes the few messages that
//! are our own. It does no I/O, reads no clock, and panics on no input.
//!
//! From top to bottom; each file imports only files below it.
//!
//! - [`presentation`]: how names, types and records are spelled.
//! - `cached_answer`: how an answer is stored in the cache.
//! - `response`: how a response to a client is written.
//! - `answer`: what is in a resolver's answer, and to which question it is a response.
//! - `compression`: what becomes of compressed names when a message is changed.
//! - `query_writing`: how a query is written.
//! - `query`: what a client asks.
//! - `key`: which queries can share an answer.
//! - `edns`: what an OPT record says, and how one is written.
//! - `record`: where the records of a message lie.
//! - `question`: how a question is read, compared and spelled.
//! - `name`: where a name ends, and whether it is sound.
//! - `header`: what the header of a message says.
//! - `octets`: what lies at a position of a message.
//! - `parse_error`: why a message cannot be used.
//! - [`framing`]: where a message ends in a stream.
//! - `codes`: which codes and sizes the protocol defines.

// Strangers' octets come through here: what could panic or wrap is not written at all.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod answer;
mod cached_answer;
mod codes;
mod compression;
mod edns;
pub mod framing;
mod header;
mod key;
mod name;
mod octets;
mod parse_error;
pub mod presentation;
mod query;
mod query_writing;
mod question;
mod record;
mod response;
#[cfg(test)]
mod test_messages;

pub use answer::{Answer, TtlRewrite, is_response_to, response_code};
pub use cached_answer::CachedAnswer;
pub use codes::{HEADER_LEN, MAX_MESSAGE_LEN, MIN_UDP_PAYLOAD, ede, rcode, rtype};
pub use edns::{Edns, ExtendedError};
pub use key::Key;
pub use parse_error::ParseError;
pub use query::Query;
pub use query_writing::{Form, write_query};
pub use question::QuestionPresentation;
pub use record::{Record, Section};
pub use response::{ReplyOptions, ReplyTo};
