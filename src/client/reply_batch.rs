//! Which replies leave together?
//!
//! Each thread that answers has a batch of its own: what it has to say to all clients is gathered in one buffer, and leaves by a
//! system call for each batch of datagrams and one for each stream. A batch that has grown to `MOST` octets is sent
//! before anything is added, so it never holds more than that, or one message.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::client::connection::{Connection, IDLE_LIMIT};
use crate::client::datagrams::{BATCH, Datagram, Headers, send_datagrams};
use crate::client::destination::Client;
use crate::client::stream::Stream;
use crate::message::framing::{self, PREFIX};
use crate::message::{Answer, Asked, ExtendedError, LONGEST, PLAIN_SIZE, Shown};
use crate::system::memory::{REPLY_BUFFER, Reservation};

/// Octets that are gathered, at most, unless one message is longer.
const MOST: usize = 64 * 1024;
/// Octets of the buffer of a batch that holds more than [`REPLY_BUFFER`]: the longest message fits, with its length before it.
const LARGE: usize = MOST + 1024;
/// Octets of an answer besides what the resolver's message has: an OPT of ours, with an Extended DNS Error and how long an idle
/// connection is kept.
const ADDED: usize = 128;
/// Octets of a reply of our own, at most: header, question, and such an OPT.
const OWN_REPLY: usize = 512;
/// Streams in a batch, at most: they are looked for one by one.
const STREAMS: usize = 64;

/// Replies that are about to be sent, see [`ReplyBatch::send`]. One for each thread that answers.
#[derive(Default)]
pub struct ReplyBatch {
    octets: Vec<u8>,
    datagrams: Vec<Datagram>,
    streams: Vec<StreamReplies>,
    headers: Headers,
    /// The connection whose thread this is, which may wait until there is memory for what is large.
    patient: Option<Arc<Stream>>,
    /// For what the buffer has beyond [`REPLY_BUFFER`] octets.
    held: Option<Reservation>,
    /// Whoever counts the queries that have no answer yet, and how many of them have it once this was sent.
    counted: Option<(Arc<AtomicUsize>, usize)>,
}

/// What one stream is sent: parts of the buffer, one after the other.
struct StreamReplies {
    stream: Arc<Stream>,
    parts: SmallVec<[Range<usize>; 4]>,
}

impl ReplyBatch {
    /// That of a thread that may wait for a moment: of one that reads this connection alone.
    pub fn patient(connection: &Connection) -> Self {
        Self {
            patient: Some(Arc::clone(&connection.stream)),
            ..Self::default()
        }
    }

    /// Adds an answer, shown as it is to be; over UDP one that is larger than the client takes is cut (TC=1).
    pub fn push_answer(
        &mut self,
        client: &Client,
        asked: &Asked<'_>,
        answer: &Answer<'_>,
        shown: &Shown,
    ) {
        let asked = &told_keepalive(client, asked);
        let limit = limit(client, asked);
        let size = answer.message().len().saturating_add(ADDED).min(limit);
        note_answer(client, true);
        self.push(client, size, |out| {
            asked.write_within(out, answer, shown, limit);
        });
    }

    /// Adds an answer that is signed for its client.
    pub fn push_signed(&mut self, client: &Client, asked: &Asked<'_>, answer: &Answer<'_>) {
        let limit = limit(client, asked);
        let size = answer.message().len().min(limit);
        note_answer(client, true);
        self.push(client, size, |out| {
            asked.write_signed_answer(out, answer, limit);
        });
    }

    /// Adds an answer of our own: a response code without records, and over UDP no EDE that makes it longer than `most`
    /// octets.
    pub fn push_reply(
        &mut self,
        client: &Client,
        asked: &Asked<'_>,
        rcode: u16,
        ede: Option<ExtendedError>,
        most: usize,
    ) {
        let asked = told_keepalive(client, asked);
        note_answer(client, false);
        self.push(client, OWN_REPLY, |out| {
            let start = out.len();
            asked.write_reply(out, rcode, ede);
            let too_long = out.len().saturating_sub(start) > most;
            if ede.is_some() && too_long && matches!(client, Client::Datagram { .. }) {
                out.truncate(start);
                asked.write_reply(out, rcode, None);
            }
        });
    }

    /// Adds an answer that brings nothing but the advice to ask over TCP (TC=1).
    pub fn push_tc(&mut self, client: &Client, asked: &Asked<'_>) {
        self.push(client, OWN_REPLY, |out| asked.write_advice(out));
    }

    /// Whether so much is gathered that it should be sent before more queries are taken in.
    pub fn is_large(&self) -> bool {
        self.octets.len() >= REPLY_BUFFER
    }

    /// Adds a reply of `size` octets at most, which `write` appends.
    fn push(&mut self, client: &Client, size: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let size = size.saturating_add(PREFIX);
        let is_full = self.octets.len().saturating_add(size) > MOST
            || self.datagrams.len() >= BATCH
            || self.streams.len() >= STREAMS;
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
                });
            }
            Client::Stream(guard) => {
                let stream = guard.stream();
                if size > OWN_REPLY && stream.is_closed() {
                    // What is large is not made for nobody.
                } else if self.make_room(stream, size) {
                    let start = self.octets.len();
                    framing::append(&mut self.octets, write);
                    let part = start..self.octets.len();
                    self.add_part(stream, part);
                } else {
                    stream.close_over_memory();
                }
            }
        }
    }

    /// Sees to it that the buffer has room for so many octets more, which are paid for.
    fn make_room(&mut self, stream: &Stream, size: usize) -> bool {
        let wanted = self.octets.len().saturating_add(size);
        if wanted <= self.octets.capacity().max(REPLY_BUFFER) {
            return true;
        }
        if let Some(own) = &self.patient {
            own.slow_readers().wait_for_memory(own);
        }
        let paid = stream.slow_readers().hold(&mut self.held, LARGE, stream);
        if paid {
            let more = LARGE.max(wanted).saturating_sub(self.octets.len());
            self.octets.reserve_exact(more);
        }
        paid
    }

    fn add_part(&mut self, stream: &Arc<Stream>, part: Range<usize>) {
        // From the end: the last client is the likeliest, and there are few in a batch.
        let found = self
            .streams
            .iter_mut()
            .rfind(|replies| Arc::ptr_eq(&replies.stream, stream));
        let Some(replies) = found else {
            stream.begin_to_send();
            self.streams.push(StreamReplies {
                stream: Arc::clone(stream),
                parts: SmallVec::from_iter([part]),
            });
            return;
        };
        match replies.parts.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => replies.parts.push(part),
        }
    }

    /// Takes one off `count` once everything was sent: before that the query's client has nothing in hand.
    pub fn count_down(&mut self, count: &Arc<AtomicUsize>) {
        let (_, ended) = self.counted.get_or_insert_with(|| (Arc::clone(count), 0));
        *ended = ended.saturating_add(1);
    }

    /// Sends everything: datagrams in batches, each client's stream in one write. Waits for nobody.
    pub fn send(&mut self) {
        let mut others = Vec::new();
        while let Some(exit) = self.datagrams.first().map(Datagram::exit) {
            // Mostly there is one way out for all of them.
            if self
                .datagrams
                .iter()
                .any(|datagram| datagram.exit() != exit)
            {
                let others_of = |datagram: &mut Datagram| datagram.exit() != exit;
                others.extend(self.datagrams.extract_if(.., others_of));
            }
            for batch in self.datagrams.chunks(BATCH) {
                send_datagrams(&mut self.headers, &self.octets, batch);
            }
            self.datagrams.clear();
            self.datagrams.append(&mut others);
        }
        for StreamReplies { stream, parts } in self.streams.drain(..) {
            stream.write(&self.octets, &parts);
            stream.has_sent();
        }
        self.octets.clear();
        if self.held.take().is_some() {
            self.octets.shrink_to(REPLY_BUFFER);
        }
        if let Some((count, ended)) = &mut self.counted {
            count.fetch_sub(mem::take(ended), Ordering::SeqCst);
        }
    }
}

/// Whoever answers a stream's client knows whether that is with an answer of the resolver.
fn note_answer(client: &Client, answered: bool) {
    if let Client::Stream(guard) = client {
        guard.stream().note_answer(answered);
    }
}

/// Octets that the client takes as an answer.
fn limit(client: &Client, asked: &Asked<'_>) -> usize {
    match client {
        Client::Datagram { .. } => asked.edns.map_or(PLAIN_SIZE.into(), |edns| edns.limit()),
        Client::Stream(_) => LONGEST,
    }
}

/// Over TCP a client is told how long its connection is kept when it is idle, if it asks.
fn told_keepalive<'m>(client: &Client, asked: &Asked<'m>) -> Asked<'m> {
    let keepalive = match client {
        Client::Datagram { .. } => None,
        Client::Stream(_) => u16::try_from(IDLE_LIMIT.as_millis() / 100).ok(),
    };
    Asked {
        keepalive,
        ..*asked
    }
}
