//! How does an answer leave?
//!
//! As a datagram from the address that was asked, cut to the size that the client takes; or into a stream, framed, and
//! never waiting for a client that does not read. Replies are gathered in a [`ReplyBatch`](reply_batch::ReplyBatch) and sent together, before they are
//! many: what a stream's socket does not take goes to its outbox, which one thread for all of them drains ([`SlowReaders`](slow_readers::SlowReaders)), and
//! is paid for in [`crate::system::memory`] before it is copied. [`ConnectionLimit`](connection_limit::ConnectionLimit) says who may be connected.
//!
//! Each file imports only files below it in this list:
//!
//! - [`reply_batch`]: which replies leave together?
//! - [`connection`]: how is a client's TCP connection read, and when does it close?
//! - [`destination`]: where does an answer go?
//! - [`connection_limit`]: who may be connected by TCP?
//! - [`slow_readers`]: how do slow readers get their answers?
//! - [`stream`]: how are answers written to a TCP connection?
//! - `eviction_order`: which connection is evicted first?
//! - `outbox`: which answers does a socket not take yet?
//! - `in_flight`: how many queries of a connection are in flight, and for how long?
//! - [`slots`]: which slots are in use, and by whom?
//! - [`slow_reader_list`]: which clients read their answers more slowly than they ask?
//! - [`datagrams`]: how do datagrams leave?
//! - [`eviction_counters`]: which limits on clients took effect, and how often?
//! - [`address`]: which client is an address of?

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

pub mod address;
pub mod connection;
pub mod connection_limit;
pub mod datagrams;
pub mod destination;
pub mod eviction_counters;
mod eviction_order;
mod in_flight;
mod outbox;
pub mod reply_batch;
pub mod slots;
pub mod slow_reader_list;
pub mod slow_readers;
pub mod stream;
