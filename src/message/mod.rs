//! What do these octets say?
//!
//! A relay needs positions in a message and byte-exact splices, not a decoded tree: the end of the question, the OPT record,
//! the TTLs. This folder finds them, refuses broken messages, and writes the few messages that dns-tool makes itself. It does
//! no I/O, reads no clock, and panics on no input.
//!
//! From top to bottom; each file imports only files below it.
//!
//! - [`presentation`]: the presentation form of names, types and records.
//! - `cached_answer`: how an answer is stored in the cache.
//! - `response`: how a response to a client is written.
//! - `source`: where an answer comes from, and how dns-tool says so.
//! - `addresses`: which addresses an answer names.
//! - `answer`: what is in a resolver's answer, and to which question it is a response.
//! - `compression`: how compressed names survive when a message is changed.
//! - `query_writing`: how a query to a resolver is written.
//! - `query`: what is in a client's query.
//! - `zone_map`: in which zone a name is.
//! - `key`: which queries can share an answer.
//! - `edns`: what is in an OPT record, and how one is written.
//! - `record`: where the records of a message are.
//! - `question`: how a question is parsed, compared and presented.
//! - `name`: where a name ends, and whether it is valid.
//! - `header`: what is in the header of a message.
//! - `octets`: what is at a position of a message.
//! - `parse_error`: why a message cannot be parsed.
//! - [`framing`]: where a message ends in a stream.
//! - `codes`: the codes and sizes of the protocol.

// This folder reads octets from the network: code that could panic or wrap around is not allowed.
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

mod addresses;
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
mod source;
#[cfg(test)]
mod test_messages;
mod zone_map;

pub use addresses::addresses;
pub use answer::{Answer, TtlRewrite, is_response_to, response_code};
pub use cached_answer::CachedAnswer;
pub use codes::{
    HEADER_LEN, MAX_MESSAGE_LEN, MAX_NAME_LEN, MIN_UDP_PAYLOAD, class, ede, rcode, rtype,
};
pub use edns::{Edns, ExtendedError};
pub use key::QuestionKey;
pub use parse_error::ParseError;
pub use query::Query;
pub use query_writing::{QueryForm, write_query};
pub use question::{QuestionPresentation, question_name, question_type};
pub use record::{Record, Section};
pub use response::{ReplyOptions, ReplyTo};
pub use source::{MAX_SOURCE_OPTION_LEN, Source, told_source};
pub use zone_map::ZoneMap;
