//! How does an answer leave?
//!
//! As a datagram from the address that the query was sent to, truncated to the size that the client accepts; or into a stream, framed,
//! and without ever blocking on a client that does not read. A [`ReplyBatch`](reply_batch::ReplyBatch) gathers replies and sends them
//! together. What the socket of a stream does not take goes to the outbox of that stream, after its memory was reserved in
//! [`crate::system::memory`]; one thread drains all outboxes ([`SlowReaders`](slow_readers::SlowReaders)).
//! [`ConnectionLimit`](connection_limit::ConnectionLimit) decides which TCP connections stay open.
//!
//! Each file imports only files below it in this list:
//!
//! - [`reply_batch`]: which replies are sent together?
//! - [`connection`]: how is a client's TCP connection read, and when does it close?
//! - [`destination`]: where is an answer sent to?
//! - [`connection_limit`]: who may be connected by TCP?
//! - [`slow_readers`]: how do slow readers get their answers?
//! - [`stream`]: how are answers written to a TCP connection?
//! - `eviction_order`: which connection is evicted first?
//! - `outbox`: which answers does a socket not take yet?
//! - `in_flight`: how many queries of a connection are in flight, and for how long?
//! - [`slots`]: which slots are in use, and by whom?
//! - [`slow_reader_list`]: which clients read their answers more slowly than they ask?
//! - [`datagrams`]: how are datagrams sent?
//! - [`unsent_replies`]: which replies were not sent, and who hears of it?
//! - `delivery_state`: do replies leave this host?
//! - [`send_failure`]: why was a reply not sent?
//! - [`eviction_counters`]: which limits on clients took effect, and how often?
//! - [`address`]: which addresses count as one client?

// This code handles octets from untrusted clients, so nothing in it may panic or overflow.
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

pub mod address;
pub mod connection;
pub mod connection_limit;
pub mod datagrams;
mod delivery_state;
pub mod destination;
pub mod eviction_counters;
mod eviction_order;
mod in_flight;
mod outbox;
pub mod reply_batch;
pub mod send_failure;
pub mod slots;
pub mod slow_reader_list;
pub mod slow_readers;
pub mod stream;
pub mod unsent_replies;
