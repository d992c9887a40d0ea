//! How does an answer leave?
//!
//! As a datagram from the address that was asked, cut to the size that the client takes; or into a stream, framed, and
//! never waiting for a client that does not read: what its socket does not take goes to its outbox, which one thread for
//! all of them drains. Answers are gathered in [`ReplyBatch`] and leave together.

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

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recv, send, sendmmsg,
};
use parking_lot::{Condvar, Mutex};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

use crate::clock;
use crate::frame;
use crate::journal::debug;
use crate::metrics::Counter;
use crate::thread::Pulse;
use crate::wire::{Answer, Asked, ExtendedError, LONGEST, Shown};

/// Datagrams that leave by one system call, at most.
const BATCH: usize = 64;
/// Octets that may wait for one client to read, at most: eight of the longest messages.
const OUTBOX: usize = 512 * 1024;
/// A buffer larger than this, in octets, is given back to the system after use.
const SPARE: usize = 64 * 1024;
/// How long a client may take to empty its outbox.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long a TCP client may be silent, and how long one of its messages may take to arrive (RFC 7766 section 6.2.3).
pub const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// Queries of one connection that may wait for their answers at a time; reading pauses at this many.
const TURNS: usize = 1024;
/// As many it is while so many of other clients wait: whatever one has poured in, the next query of another comes after it.
const TURNS_IN_A_CROWD: usize = 128;
const CROWD: usize = 512;

/// How long a connection may have said nothing before it can be called idle: its first query may be on its way.
const GRACE: Duration = Duration::from_millis(100);
/// How long a newcomer waits for a place that somebody gives up, before it looks for another one; and how long until it
/// looks again where nobody is idle.
const EVICTION: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the bounds on clients have cost them.
#[derive(Debug, Default)]
pub struct EvictionCounters {
    /// Datagrams that the kernel dropped, because its queue for us was full.
    pub datagrams: Counter,
    /// Connections that gave way to newcomers.
    pub gave_way: Counter,
    /// Connections that were closed at once, as too many of one address.
    pub refused: Counter,
    /// Connections that were closed because their clients did not read.
    pub not_reading: Counter,
}

/// Who asked, and so where the answer goes.
#[derive(Debug)]
pub enum Client {
    /// By UDP.
    Datagram {
        /// The socket that the question came by.
        socket: Arc<UdpSocket>,
        /// Where it came from.
        peer: SocketAddr,
        /// The address that was asked, where the socket is bound to all of them.
        local: Option<Local>,
    },
    /// By TCP.
    Stream(InFlightGuard),
}

impl Client {
    /// The client's address and port.
    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::Datagram { peer, .. } => *peer,
            Self::Stream(guard) => guard.0.peer,
        }
    }
}

/// The address of ours that a datagram was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local {
    /// The address.
    pub address: IpAddr,
    /// The index of the interface, where the address means nothing without it (link-local IPv6); else 0.
    pub interface: u32,
}

/// Answers on their way out, until [`ReplyBatch::send`] sends them all. One for each thread that answers.
#[derive(Default)]
pub struct ReplyBatch {
    octets: Vec<u8>,
    datagrams: Vec<Datagram>,
    streams: Vec<(Arc<Stream>, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    headers: Headers,
    /// Whoever counts the queries that have no answer yet, and how many of them have it once this has left.
    counted: Option<(Arc<AtomicUsize>, usize)>,
}

/// Room for the headers of a batch, once it was needed: without control data, and with those that name our address. The
/// kernel wants exactly as much room for control data as is used.
#[derive(Default)]
struct Headers {
    plain: Option<MultiHeaders<SockaddrStorage>>,
    from4: Option<MultiHeaders<SockaddrStorage>>,
    from6: Option<MultiHeaders<SockaddrStorage>>,
}

struct Datagram {
    socket: Arc<UdpSocket>,
    peer: SocketAddr,
    local: Option<Local>,
    octets: Range<usize>,
}

impl Datagram {
    /// Those that share it can share a system call.
    fn exit(&self) -> (i32, Option<Local>) {
        (self.socket.as_raw_fd(), self.local)
    }
}

impl ReplyBatch {
    /// Adds an answer, shown as it is to be; over UDP one that is larger than the client takes is cut (TC=1).
    pub fn answer(
        &mut self,
        client: &Client,
        asked: &Asked<'_>,
        answer: &Answer<'_>,
        shown: &Shown,
    ) {
        let asked = told_keepalive(client, asked);
        let limit = limit(client, &asked);
        self.add(client, |out| {
            asked.write_within(out, answer, shown, limit);
        });
    }

    /// Adds an answer that is signed for its client.
    pub fn signed_answer(&mut self, client: &Client, asked: &Asked<'_>, answer: &Answer<'_>) {
        let limit = limit(client, asked);
        self.add(client, |out| {
            asked.write_signed_answer(out, answer, limit);
        });
    }

    /// Adds an answer of our own: a response code without records, and over UDP no EDE that makes it longer than `most`
    /// octets.
    pub fn reply(
        &mut self,
        client: &Client,
        asked: &Asked<'_>,
        rcode: u16,
        ede: Option<ExtendedError>,
        most: usize,
    ) {
        let asked = told_keepalive(client, asked);
        self.add(client, |out| {
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
        self.add(client, |out| asked.write_advice(out));
    }

    fn add(&mut self, client: &Client, write: impl FnOnce(&mut Vec<u8>)) {
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
            Client::Stream(InFlightGuard(stream)) => {
                // From the end: the last client is the likeliest, and there are few in a batch.
                let found = self
                    .streams
                    .iter_mut()
                    .rfind(|(other, _)| Arc::ptr_eq(other, stream));
                if let Some((_, octets)) = found {
                    return frame::append(octets, write);
                }
                stream.in_flight.lock().begin_to_send();
                let mut octets = self.spare.pop().unwrap_or_default();
                frame::append(&mut octets, write);
                self.streams.push((Arc::clone(stream), octets));
            }
        }
    }

    /// Takes one off `count` once everything has left: before that the query's client has nothing in hand.
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
        self.octets.clear();
        for (stream, mut octets) in self.streams.drain(..) {
            stream.write(&octets);
            stream.in_flight.lock().has_sent();
            if octets.capacity() <= SPARE {
                octets.clear();
                self.spare.push(octets);
            }
        }
        if let Some((count, ended)) = &mut self.counted {
            count.fetch_sub(std::mem::take(ended), Ordering::SeqCst);
        }
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

/// The most octets that an answer to this client may have.
fn limit(client: &Client, asked: &Asked<'_>) -> usize {
    match client {
        Client::Datagram { .. } => asked.udp_limit(),
        Client::Stream(_) => LONGEST,
    }
}

/// Sends a batch that leaves by one socket and from one address.
fn send_datagrams(headers: &mut Headers, octets: &[u8], mut batch: &[Datagram]) {
    let Some(Datagram { socket, local, .. }) = batch.first() else {
        return;
    };
    let (packet_info4, packet_info6);
    let control;
    let headers = match local.map(|local| (local.address, local.interface)) {
        None => {
            control = None;
            let room = || MultiHeaders::preallocate(BATCH, None);
            headers.plain.get_or_insert_with(room)
        }
        Some((IpAddr::V4(address), _)) => {
            let source = libc::in_addr {
                s_addr: u32::from_ne_bytes(address.octets()),
            };
            let anywhere = libc::in_addr { s_addr: 0 };
            packet_info4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: anywhere,
            };
            control = Some(ControlMessage::Ipv4PacketInfo(&packet_info4));
            let room = || MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in_pktinfo)));
            headers.from4.get_or_insert_with(room)
        }
        Some((IpAddr::V6(address), interface)) => {
            let source = libc::in6_addr {
                s6_addr: address.octets(),
            };
            packet_info6 = libc::in6_pktinfo {
                ipi6_addr: source,
                ipi6_ifindex: interface,
            };
            control = Some(ControlMessage::Ipv6PacketInfo(&packet_info6));
            let room = || MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo)));
            headers.from6.get_or_insert_with(room)
        }
    };
    let mut fragments = false;
    while !batch.is_empty() {
        let slices: Vec<_> = batch
            .iter()
            .map(|datagram| octets.get(datagram.octets.clone()).unwrap_or_default())
            .map(|datagram| [IoSlice::new(datagram)])
            .collect();
        let peers: Vec<_> = batch
            .iter()
            .map(|datagram| Some(datagram.peer.into()))
            .collect();
        let sent = sendmmsg(
            socket.as_raw_fd(),
            headers,
            &slices,
            &peers,
            control.as_slice(),
            MsgFlags::MSG_DONTWAIT,
        )
        .map(Iterator::count);
        let done = match sent {
            Ok(sent) => sent,
            Err(Errno::EINTR) => 0,
            Err(Errno::EMSGSIZE) if !fragments && allow_fragments(socket) => {
                fragments = true;
                0
            }
            Err(error) => {
                // The network's word on this one datagram, or a full buffer: UDP loses datagrams, and clients ask again.
                debug!("event=datagram-not-sent cause=\"{error}\"");
                1
            }
        };
        batch = batch.get(done..).unwrap_or_default();
    }
}

/// An interface of this host carries less than an answer may have: on that socket packets may be fragmented from now on.
/// Says whether the system has it so.
fn allow_fragments(socket: &UdpSocket) -> bool {
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT).is_ok()
}

/// A client's TCP connection, shared by the worker that reads it and the threads that answer it. It closes when the last
/// of them lets go: so a client that closed its writing side still gets all its answers (RFC 1122 section 4.2.2.13).
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    peer: SocketAddr,
    outbox: Mutex<Outbox>,
    slow_readers: Arc<SlowReaders>,
    in_flight: Mutex<InFlightCount>,
    in_flight_changed: Condvar,
    _slot: Slot,
}

#[derive(Debug)]
struct InFlightCount {
    /// Queries that wait for their answers.
    count: usize,
    /// Reading pauses until no more than so many do.
    paused_until: Option<usize>,
    /// Batches of answers that have not been sent yet.
    leaving: usize,
    /// When the last query was asked; before the first, when what is on its way has had time to arrive.
    asked: Instant,
    /// Its client asked more than it may, and is the first to give way.
    unwelcome: bool,
    /// It has given way to another connection.
    gone: bool,
}

impl InFlightCount {
    fn ask(&mut self, now: Instant) {
        self.count = self.count.saturating_add(1);
        self.asked = now;
    }

    fn end_one(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    fn begin_to_send(&mut self) {
        self.leaving = self.leaving.saturating_add(1);
    }

    fn has_sent(&mut self) {
        self.leaving = self.leaving.saturating_sub(1);
    }

    fn is_idle(&self) -> bool {
        // Of who is unwelcome no refusal is waited for.
        self.count == 0 && (self.leaving == 0 || self.unwelcome) && !self.gone
    }
}

#[derive(Debug, Default)]
struct Outbox {
    octets: VecDeque<u8>,
    /// The client is gone or does not read: nothing more is written.
    closed: bool,
}

/// A moment so much after another; that one itself if the clock cannot tell.
fn later(moment: Instant, wait: Duration) -> Instant {
    moment.checked_add(wait).unwrap_or(moment)
}

/// A query's right to one answer into a stream.
#[derive(Debug)]
pub struct InFlightGuard(Arc<Stream>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut in_flight = self.0.in_flight.lock();
        in_flight.end_one();
        let goes_on = in_flight
            .paused_until
            .is_some_and(|count| in_flight.count <= count);
        drop(in_flight);
        if goes_on {
            self.0.in_flight_changed.notify_one();
        }
    }
}

impl Stream {
    /// A connection from `peer` that holds `slot` as long as it lives.
    pub fn new(
        socket: TcpStream,
        peer: SocketAddr,
        slow_readers: Arc<SlowReaders>,
        slot: Slot,
        now: Instant,
    ) -> Arc<Self> {
        Arc::new_cyclic(|stream| {
            slot.belongs_to(stream);
            Self {
                socket,
                peer,
                outbox: Mutex::default(),
                slow_readers,
                in_flight: Mutex::new(InFlightCount {
                    count: 0,
                    paused_until: None,
                    leaving: 0,
                    asked: later(now, GRACE),
                    unwelcome: false,
                    gone: false,
                }),
                in_flight_changed: Condvar::new(),
                _slot: slot,
            }
        })
    }

    /// The socket, for reading.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads what has arrived, without waiting.
    pub fn read_now(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                read => return Ok(read?),
            }
        }
    }

    /// The client of one more query on this connection.
    pub fn client(self: &Arc<Self>, now: Instant) -> Client {
        self.in_flight.lock().ask(now);
        Client::Stream(InFlightGuard(Arc::clone(self)))
    }

    /// Whether it has given way to another connection, and is to be read no more; waits for so long to see it.
    pub fn is_evicted_within(&self, wait: Duration) -> bool {
        let mut in_flight = self.in_flight.lock();
        if !wait.is_zero() {
            self.in_flight_changed.wait_while_for(
                &mut in_flight,
                |in_flight| !in_flight.gone,
                wait,
            );
        }
        in_flight.gone
    }

    /// Whether queries wait for their answers.
    pub fn is_busy(&self) -> bool {
        self.in_flight.lock().count > 0
    }

    /// Whether it is welcome, and since when nothing is owed to its client and nothing came of it, if that is so.
    fn idle_since(&self, now: Instant) -> Option<(bool, Instant)> {
        let in_flight = self.in_flight.lock();
        let idle =
            in_flight.is_idle() && in_flight.asked <= now && self.outbox.lock().octets.is_empty();
        idle.then_some((!in_flight.unwelcome, in_flight.asked))
    }

    /// Its client asked more than it may: it gives way before others, whatever it has to say.
    pub fn mark_over_limit(&self) {
        self.in_flight.lock().unwelcome = true;
    }

    /// Ends an idle connection. Not if it has been asked something meanwhile, or has something to be read.
    ///
    /// Its reading side alone: a query that its worker has just read is still answered.
    fn evict(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let mut in_flight = self.in_flight.lock();
        let unread = recv(self.socket.as_raw_fd(), &mut [0], flags).is_ok_and(|length| length > 0);
        if !in_flight.is_idle() || unread && !in_flight.unwelcome {
            return false;
        }
        in_flight.gone = true;
        debug!("event=client-gives-way client={}", self.peer);
        // It fails when the client is gone already, which is as good.
        let _ = self.socket.shutdown(Shutdown::Read);
        self.in_flight_changed.notify_one();
        true
    }

    /// Where the most queries of this connection wait for their answers, waits until half of them have theirs, so that not
    /// each of them wakes a thread; `waiting` do of all clients. Every query ends by its deadline, so this does.
    pub fn wait_for_room(&self, waiting: usize) {
        let mut in_flight = self.in_flight.lock();
        let others = waiting.saturating_sub(in_flight.count);
        let most = if others >= CROWD {
            TURNS_IN_A_CROWD
        } else {
            TURNS
        };
        if in_flight.count < most {
            return;
        }
        in_flight.paused_until = Some(most / 2);
        self.in_flight_changed
            .wait_while(&mut in_flight, |in_flight| in_flight.count > most / 2);
        in_flight.paused_until = None;
    }

    /// Writes without waiting; what is not taken now waits in the outbox.
    fn write(self: &Arc<Self>, octets: &[u8]) {
        let mut outbox = self.outbox.lock();
        if outbox.closed {
            return;
        }
        let was_empty = outbox.octets.is_empty();
        let taken = if was_empty {
            self.send_now(octets)
        } else {
            Ok(0)
        };
        let rest = match taken {
            Ok(taken) => octets.get(taken..).unwrap_or_default(),
            Err(error) => return self.close(&mut outbox, &error.to_string()),
        };
        if rest.is_empty() {
            return;
        }
        if outbox.octets.len().saturating_add(rest.len()) > OUTBOX {
            self.slow_readers.evictions.not_reading.increment();
            return self.close(&mut outbox, "it does not read its answers");
        }
        outbox.octets.extend(rest);
        drop(outbox);
        if was_empty {
            self.slow_readers.add(Arc::clone(self));
        }
    }

    /// What the socket takes at once.
    fn send_now(&self, octets: &[u8]) -> io::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            match send(self.socket.as_raw_fd(), octets, flags) {
                Ok(sent) => return Ok(sent),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends from the outbox what the socket takes; whether some is left.
    fn drain(&self) -> bool {
        let mut outbox = self.outbox.lock();
        while !outbox.octets.is_empty() {
            match self.send_now(outbox.octets.as_slices().0) {
                Ok(0) => return true,
                Ok(sent) => drop(outbox.octets.drain(..sent)),
                Err(error) => self.close(&mut outbox, &error.to_string()),
            }
        }
        false
    }

    /// Ends this connection alone. Its worker sees the end of the stream.
    fn close(&self, outbox: &mut Outbox, cause: &str) {
        debug!(
            "event=client-dropped client={} cause=\"{cause}\"",
            self.peer
        );
        outbox.closed = true;
        outbox.octets = VecDeque::new();
        // It fails when the client is gone already, which is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The streams whose clients read slower than they ask.
#[derive(Debug)]
pub struct SlowReaders {
    arrivals: Mutex<Vec<Arc<Stream>>>,
    bell: PipeWriter,
    evictions: Arc<EvictionCounters>,
}

impl SlowReaders {
    /// Nobody's outbox yet, and what [`SlowReaders::drain`] is to wait at.
    pub fn new(evictions: Arc<EvictionCounters>) -> io::Result<(Arc<Self>, PipeReader)> {
        let (listener, bell) = io::pipe()?;
        Ok((
            Arc::new(Self {
                arrivals: Mutex::default(),
                bell,
                evictions,
            }),
            listener,
        ))
    }

    fn add(&self, stream: Arc<Stream>) {
        let mut arrivals = self.arrivals.lock();
        arrivals.push(stream);
        if arrivals.len() == 1 {
            // One octet for each time the list was taken, so the pipe never fills. It fails only at the very end, when
            // nobody drains any more.
            let _ = (&self.bell).write(&[0]);
        }
    }

    /// Drains outboxes until [`SlowReaders::stop`]. A stream whose outbox is not empty within ten seconds is closed.
    pub fn drain(&self, mut listener: &PipeReader) {
        let mut slow: Vec<(Arc<Stream>, Instant)> = Vec::new();
        let pulse = Pulse::new("slow-readers");
        loop {
            pulse.waits();
            let wait = slow
                .iter()
                .map(|(_, until)| until.saturating_duration_since(clock::now()))
                .min();
            let timeout = wait.map_or(PollTimeout::NONE, |wait| {
                // Rounded up: a timeout of zero for the last fraction of a millisecond would spin.
                let milliseconds = wait.as_millis().saturating_add(1);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            });
            let mut ready = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            ready.extend(
                slow.iter()
                    .map(|(stream, _)| PollFd::new(stream.socket.as_fd(), PollFlags::POLLOUT)),
            );
            let rung = match poll(&mut ready, timeout) {
                Ok(_) => ready.first().is_some_and(|bell| bell.any().unwrap_or(true)),
                Err(_) => false,
            };
            if rung {
                let mut bell = [0];
                match listener.read(&mut bell) {
                    Ok(1) if bell[0] == STOP => return,
                    Err(error) if error.kind() != ErrorKind::Interrupted => return,
                    _ => {}
                }
                let until = later(clock::now(), WRITE_LIMIT);
                slow.extend(self.arrivals.lock().drain(..).map(|stream| (stream, until)));
            }
            let now = clock::now();
            pulse.works(now);
            slow.retain(|(stream, until)| {
                let unfinished = stream.drain();
                if unfinished && now >= *until {
                    self.evictions.not_reading.increment();
                    stream.close(&mut stream.outbox.lock(), "it reads too slowly");
                }
                unfinished && now < *until
            });
        }
    }

    /// Ends [`SlowReaders::drain`].
    pub fn stop(&self) {
        let _ = (&self.bell).write(&[STOP]);
    }
}

/// The octet that ends the draining.
const STOP: u8 = 1;

/// The places of TCP clients. When all are taken, the connection that has been idle for the longest time gives way to a
/// newcomer; where none is idle, the kernel's queue is the waiting room.
#[derive(Debug)]
pub struct ConnectionLimit {
    most: usize,
    places: Mutex<Places>,
    freed: Condvar,
    evictions: Arc<EvictionCounters>,
}

#[derive(Debug, Default)]
struct Places {
    /// By number: who has it, once that is known.
    taken: HashMap<u64, Weak<Stream>>,
    next: u64,
    closed: bool,
}

/// A TCP client's place, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<ConnectionLimit>,
    number: u64,
}

impl ConnectionLimit {
    /// So many places, all free.
    pub fn new(most: usize, evictions: Arc<EvictionCounters>) -> Arc<Self> {
        Arc::new(Self {
            most,
            places: Mutex::default(),
            freed: Condvar::new(),
            evictions,
        })
    }

    /// Takes a free place, if there is one. None, too, once [`ConnectionLimit::close`] was called.
    pub fn take_now(self: &Arc<Self>) -> Option<Slot> {
        self.place(&mut self.places.lock())
    }

    fn place(self: &Arc<Self>, places: &mut Places) -> Option<Slot> {
        if places.closed || places.taken.len() >= self.most {
            return None;
        }
        let number = places.next;
        places.next = number.wrapping_add(1);
        places.taken.insert(number, Weak::new());
        let slots = Arc::clone(self);
        Some(Slot { slots, number })
    }

    /// Takes a place for somebody who waits already: a free one, one that an idle connection gives up, or the next that
    /// becomes either. None once [`ConnectionLimit::close`] was called.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        loop {
            let mut places = self.places.lock();
            if places.closed {
                return None;
            }
            if let Some(slot) = self.place(&mut places) {
                return Some(slot);
            }
            drop(places);
            // The place is free when its worker has seen the end.
            let wait = if self.evict_longest_idle(&self.streams()) {
                EVICTION
            } else {
                LOOK_AGAIN
            };
            let mut places = self.places.lock();
            if places.taken.len() >= self.most && !places.closed {
                self.freed.wait_for(&mut places, wait);
            }
        }
    }

    /// Whether one more connection of somebody may stay beside at most `most`, of which the longest idle gives way.
    pub fn admit(&self, is_its_own: impl Fn(IpAddr) -> bool, most: usize) -> bool {
        let mut streams = self.streams();
        streams.retain(|stream| is_its_own(stream.peer.ip()));
        let admitted = streams.len() < most || self.evict_longest_idle(&streams);
        if !admitted {
            self.evictions.refused.increment();
        }
        admitted
    }

    /// Ends the connection that has been idle for the longest time. Whether there was one.
    fn evict_longest_idle(&self, streams: &[Arc<Stream>]) -> bool {
        let now = clock::now();
        let idle = streams
            .iter()
            .filter_map(|stream| Some((stream.idle_since(now)?, stream)));
        let mut idle: Vec<_> = idle.collect();
        let longest = |idle: &[(_, _)]| {
            let places = idle.iter().enumerate();
            places
                .min_by_key(|(_, (since, _))| *since)
                .map(|(place, _)| place)
        };
        while let Some(place) = longest(&idle) {
            let (_, stream) = idle.swap_remove(place);
            // One that was just asked something stays.
            if stream.evict() {
                self.evictions.gave_way.increment();
                return true;
            }
        }
        false
    }

    /// Those that have places. Not to be dropped under the lock: the last to let go gives the place back.
    fn streams(&self) -> Vec<Arc<Stream>> {
        let places = self.places.lock();
        places.taken.values().filter_map(Weak::upgrade).collect()
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.places.lock().taken.len()
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Takes no more clients.
    pub fn close(&self) {
        self.places.lock().closed = true;
        self.freed.notify_all();
    }
}

impl Slot {
    /// Says who has it.
    fn belongs_to(&self, stream: &Weak<Stream>) {
        let mut places = self.slots.places.lock();
        places.taken.insert(self.number, Weak::clone(stream));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.places.lock().taken.remove(&self.number);
        self.slots.freed.notify_all();
    }
}
