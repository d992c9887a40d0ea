//! Which replies are sent together?
//!
//! Each thread that answers has a batch of its own. The batch gathers the replies to all clients in one buffer and sends them with one
//! system call for each group of datagrams and one for each stream. A batch is sent before it would exceed `MAX_BATCH_OCTETS`, so it
//! never holds more than that, unless a single message is longer.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::client::connection::{Connection, IDLE_TIMEOUT};
use crate::client::datagrams::{Datagram, MAX_DATAGRAMS, SendHeaders, send_datagrams};
use crate::client::destination::Client;
use crate::client::stream::Stream;
use crate::client::unsent_replies::ReplyTag;
use crate::message::framing::{self, LENGTH_PREFIX_LEN};
use crate::message::{
    Answer, ExtendedError, MAX_MESSAGE_LEN, MAX_SOURCE_OPTION_LEN, MIN_UDP_PAYLOAD, ReplyOptions,
    ReplyTo,
};
use crate::system::memory::{REPLY_BUFFER, Reservation};

/// Octets that a batch gathers, at most, unless one message is longer.
const MAX_BATCH_OCTETS: usize = 64 * 1024;
/// Capacity in octets of a buffer that holds more than [`REPLY_BUFFER`]: the longest message fits, with its length prefix.
const LARGE_BUFFER: usize = MAX_BATCH_OCTETS + 1024;
/// Octets that an answer may have besides the resolver's message: an OPT record with an Extended DNS Error (RFC 8914) and the
/// edns-tcp-keepalive option (RFC 7828). Without the option Answer Source.
const MAX_ADDED_OCTETS: usize = 128;
/// Octets of a reply without records, at most: header, question and such an OPT record.
const MAX_EMPTY_REPLY_OCTETS: usize = 512;
/// Streams in a batch, at most: the search for a stream is linear.
const MAX_STREAMS: usize = 64;

/// Replies that [`ReplyBatch::send`] sends together. Each thread that answers has its own, so there is no lock.
#[derive(Default)]
pub struct ReplyBatch {
    octets: Vec<u8>,
    datagrams: Vec<Datagram>,
    streams: Vec<StreamReplies>,
    headers: SendHeaders,
    /// The stream whose worker owns the batch, and may wait for memory before the buffer grows.
    own_stream: Option<Arc<Stream>>,
    /// The memory for the octets of the buffer beyond [`REPLY_BUFFER`].
    reservation: Option<Reservation>,
    /// The counter of queries without an answer, and how much it decreases once the batch is sent.
    pending_counter: Option<(Arc<AtomicUsize>, usize)>,
    /// Unsent replies that the caller counts as good after the batch was sent, since it last asked for their number.
    unsent_good: u64,
}

/// The replies to one stream: parts of the buffer, in order.
struct StreamReplies {
    stream: Arc<Stream>,
    parts: SmallVec<[Range<usize>; 4]>,
    /// One for each reply.
    tags: SmallVec<[ReplyTag; 8]>,
}

impl ReplyBatch {
    /// Creates the batch of the worker that reads only `connection`, and therefore may wait for memory.
    pub fn for_worker(connection: &Connection) -> Self {
        Self {
            own_stream: Some(Arc::clone(&connection.stream)),
            ..Self::default()
        }
    }

    /// Adds an answer of the resolver. Over UDP, an answer that is longer than the client accepts is truncated (TC=1).
    ///
    /// As in all methods that add a reply, `tag` says what the reply counts as if it is not sent.
    pub fn push_answer(
        &mut self,
        client: &Client,
        tag: ReplyTag,
        reply_to: &ReplyTo<'_>,
        answer: &Answer<'_>,
        options: &ReplyOptions,
    ) {
        let reply_to = &with_keepalive(client, reply_to);
        let limit = max_message_len(client, reply_to);
        let source = match reply_to.names_source() {
            true => MAX_SOURCE_OPTION_LEN,
            false => 0,
        };
        let size = answer
            .message()
            .len()
            .saturating_add(MAX_ADDED_OCTETS)
            .saturating_add(source)
            .min(limit);
        note_answer(client, true);
        self.push(client, tag, size, |out| {
            reply_to.write_answer_with(out, answer, options, limit);
        });
    }

    /// Adds an answer that is signed for the client (TSIG or SIG(0)) and unchanged but for its ID (RFC 8945 section 5.5), or truncated over UDP.
    pub fn push_signed(
        &mut self,
        client: &Client,
        tag: ReplyTag,
        reply_to: &ReplyTo<'_>,
        answer: &Answer<'_>,
    ) {
        let limit = max_message_len(client, reply_to);
        let size = answer.message().len().min(limit);
        note_answer(client, true);
        self.push(client, tag, size, |out| {
            reply_to.write_verbatim(out, answer, limit);
        });
    }

    /// Adds a reply without records that has the given RCODE. Over UDP, the Extended DNS Error (RFC 8914) is left out if it would make
    /// the reply longer than `max_len_with_ede` octets.
    pub fn push_reply(
        &mut self,
        client: &Client,
        tag: ReplyTag,
        reply_to: &ReplyTo<'_>,
        rcode: u16,
        ede: Option<ExtendedError>,
        max_len_with_ede: usize,
    ) {
        let reply_to = with_keepalive(client, reply_to);
        note_answer(client, false);
        self.push(client, tag, MAX_EMPTY_REPLY_OCTETS, |out| {
            let start = out.len();
            reply_to.write_empty_response(out, rcode, ede);
            let too_long = out.len().saturating_sub(start) > max_len_with_ede;
            if ede.is_some() && too_long && matches!(client, Client::Datagram { .. }) {
                out.truncate(start);
                reply_to.write_empty_response(out, rcode, None);
            }
        });
    }

    /// Adds a reply without records that asks the client to retry over TCP (TC=1).
    pub fn push_tc(&mut self, client: &Client, tag: ReplyTag, reply_to: &ReplyTo<'_>) {
        self.push(client, tag, MAX_EMPTY_REPLY_OCTETS, |out| {
            reply_to.write_empty_tc(out)
        });
    }

    /// Returns true once so much is gathered that the batch should be sent before more queries are handled.
    pub fn is_large(&self) -> bool {
        self.octets.len() >= REPLY_BUFFER
    }

    /// Adds a reply of at most `size` octets, which `write` appends to the buffer. Sends the batch first if it is full.
    fn push(
        &mut self,
        client: &Client,
        tag: ReplyTag,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let size = size.saturating_add(LENGTH_PREFIX_LEN);
        let is_full = self.octets.len().saturating_add(size) > MAX_BATCH_OCTETS
            || self.datagrams.len() >= MAX_DATAGRAMS
            || self.streams.len() >= MAX_STREAMS;
        if is_full {
            self.send();
        }
        match client {
            Client::Datagram {
                socket,
                peer,
                local,
            } => {
                let start = self.octets.len();
                write(&mut self.octets);
                self.datagrams.push(Datagram {
                    socket: Arc::clone(socket),
                    peer: *peer,
                    local: *local,
                    octets: start..self.octets.len(),
                    tag,
                });
            }
            Client::Stream(guard) => {
                let stream = guard.stream();
                if size > MAX_EMPTY_REPLY_OCTETS && stream.is_closed() {
                    // Nobody would read it, so a large answer is not written at all.
                } else if self.ensure_capacity(stream, size) {
                    let start = self.octets.len();
                    framing::append(&mut self.octets, write);
                    let part = start..self.octets.len();
                    self.add_part(stream, tag, part);
                } else {
                    stream.close_over_memory();
                }
            }
        }
    }

    /// Grows the buffer for `size` more octets to `stream`, and reserves the memory for them. Returns false if memory is short.
    fn ensure_capacity(&mut self, stream: &Stream, size: usize) -> bool {
        let needed = self.octets.len().saturating_add(size);
        if needed <= self.octets.capacity().max(REPLY_BUFFER) {
            return true;
        }
        if let Some(own_stream) = &self.own_stream {
            own_stream.slow_readers().wait_for_memory(own_stream);
        }
        let is_reserved =
            stream
                .slow_readers()
                .reserve(&mut self.reservation, LARGE_BUFFER, stream);
        if is_reserved {
            let growth = LARGE_BUFFER.max(needed).saturating_sub(self.octets.len());
            self.octets.reserve_exact(growth);
        }
        is_reserved
    }

    /// Adds a part of the buffer to the replies of `stream`.
    fn add_part(&mut self, stream: &Arc<Stream>, tag: ReplyTag, part: Range<usize>) {
        // From the end: the stream of the last reply is the likeliest, and a batch has few.
        let found = self
            .streams
            .iter_mut()
            .rfind(|replies| Arc::ptr_eq(&replies.stream, stream));
        let Some(replies) = found else {
            stream.batch_queued();
            self.streams.push(StreamReplies {
                stream: Arc::clone(stream),
                parts: SmallVec::from_iter([part]),
                tags: SmallVec::from_iter([tag]),
            });
            return;
        };
        replies.tags.push(tag);
        match replies.parts.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => replies.parts.push(part),
        }
    }

    /// Decrements `count` once the batch is sent: until then the query's client has no answer. All calls must pass the same counter.
    pub fn decrement_after_send(&mut self, count: &Arc<AtomicUsize>) {
        let (_, answered) = self
            .pending_counter
            .get_or_insert_with(|| (Arc::clone(count), 0));
        *answered = answered.saturating_add(1);
    }

    /// Takes the number of replies that were not sent and have [`Goodness::CountedAfterSend`].
    ///
    /// [`Goodness::CountedAfterSend`]: crate::client::unsent_replies::Goodness::CountedAfterSend
    pub fn take_unsent_good(&mut self) -> u64 {
        mem::take(&mut self.unsent_good)
    }

    /// Sends all replies without blocking: datagrams in groups that share a socket and a source address, each stream in one write.
    pub fn send(&mut self) {
        let (mut others, mut unsent) = (Vec::new(), Vec::new());
        while let Some(group) = self.datagrams.first().map(Datagram::send_group) {
            // Mostly all datagrams are in one group.
            if self
                .datagrams
                .iter()
                .any(|datagram| datagram.send_group() != group)
            {
                let is_other = |datagram: &mut Datagram| datagram.send_group() != group;
                others.extend(self.datagrams.extract_if(.., is_other));
            }
            for batch in self.datagrams.chunks(MAX_DATAGRAMS) {
                send_datagrams(&mut self.headers, &self.octets, batch, &mut unsent);
                let tags = unsent.drain(..).map(|(_, tag)| tag);
                self.unsent_good = self.unsent_good.saturating_add(count_good(tags));
            }
            self.datagrams.clear();
            self.datagrams.append(&mut others);
        }
        for replies in self.streams.drain(..) {
            let StreamReplies {
                stream,
                parts,
                tags,
            } = replies;
            if !stream.write(&self.octets, &parts, &tags) {
                self.unsent_good = self.unsent_good.saturating_add(count_good(tags));
            }
            stream.batch_sent();
        }
        self.octets.clear();
        if self.reservation.take().is_some() {
            self.octets.shrink_to(REPLY_BUFFER);
        }
        if let Some((count, answered)) = &mut self.pending_counter {
            count.fetch_sub(mem::take(answered), Ordering::SeqCst);
        }
    }
}

/// The number of these unsent replies that the caller counts as good after the batch was sent.
fn count_good(tags: impl IntoIterator<Item = ReplyTag>) -> u64 {
    let good = tags.into_iter().filter(|tag| tag.is_counted_after_send());
    u64::try_from(good.count()).unwrap_or(u64::MAX)
}

/// Records for a stream whether the reply is an answer of the resolver.
fn note_answer(client: &Client, answered: bool) {
    if let Client::Stream(guard) = client {
        guard.stream().note_answer(answered);
    }
}

/// The longest message in octets that the client accepts: over UDP its EDNS payload size (RFC 6891) or 512.
fn max_message_len(client: &Client, reply_to: &ReplyTo<'_>) -> usize {
    match client {
        Client::Datagram { .. } => reply_to
            .edns
            .map_or(MIN_UDP_PAYLOAD.into(), |edns| edns.udp_payload_limit()),
        Client::Stream(_) => MAX_MESSAGE_LEN,
    }
}

/// Over TCP, adds the idle timeout for a client that sent the edns-tcp-keepalive option (RFC 7828).
fn with_keepalive<'m>(client: &Client, reply_to: &ReplyTo<'m>) -> ReplyTo<'m> {
    let keepalive = match client {
        Client::Datagram { .. } => None,
        Client::Stream(_) => u16::try_from(IDLE_TIMEOUT.as_millis() / 100).ok(),
    };
    ReplyTo {
        keepalive,
        ..*reply_to
    }
}
