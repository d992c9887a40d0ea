//! Where do queries come from?
//!
//! Binds, accepts and receives: a thread for each socket. TCP connections go to the pool of workers, datagrams are handled
//! here, in batches.

use std::fmt;
use std::io::{self, ErrorKind, IoSliceMut, PipeReader, PipeWriter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, yield_now};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrLike,
    SockaddrStorage, recvmmsg, setsockopt, sockopt,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::client::{Client, Connection, ConnectionLimit, EvictionCounters, Local, SlowReaders};
use crate::forward::forwarder::{Batch, Forwarder};
use crate::message::framing::Frames;
use crate::server::workers::{Job, Pool};
use crate::system::clock;
use crate::system::memory;
use crate::system::thread::{self, Pulse};
use crate::telemetry::log::{debug, info, warn};

/// Datagrams that are received by one system call, at most.
const BATCH: usize = 64;
/// Octets of the longest datagram that is read whole. Queries have some hundred at most.
const DATAGRAM: usize = 4096;
/// The receive buffer of a UDP socket in octets, as far as the system allows, which counts twice as much: room for a burst of
/// some thousand queries.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// How long what was sent to a TCP client may stay unacknowledged, or wait for one that does not read, before the kernel gives it
/// up, also when the connection was closed here (TCP_USER_TIMEOUT, RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that the kernel holds until a place is free, as far as the system allows. Of more, clients try again only
/// after a second.
const BACKLOG: i32 = 1024;
/// Batches that are still received after the word to stop, at most: what was in the queue, not what a flood adds.
const LAST_ROUNDS: usize = 256;
/// How long those who receive on sockets that were passed may take to hear that it is over.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Connections that the thread that accepts them hears itself, at most, and how long: most clients ask one thing and go.
const LOBBY: usize = 32;
const YOUTH: Duration = Duration::from_secs(1);
/// How long accepting or receiving pauses after an error, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// How often the kernel's count of lost datagrams is asked for while there may be some.
const HEAR_AGAIN: Duration = Duration::from_secs(1);
/// How long after it was said that datagrams were lost it is said again, if more were.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What this room can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The addresses to listen on, TCP and UDP.
    pub addresses: Vec<IpAddr>,
    /// An address that this host does not have is left out, as long as one remains.
    pub addresses_optional: bool,
    /// The port; 0 lets the system choose one for each address.
    pub port: u16,
    /// Others of the same user who want that too may have it as well; the kernel gives each client to one of them.
    pub reuse_port: bool,
    /// TCP clients at a time; at least 1.
    pub clients: usize,
    /// Of them from one address; at least 1.
    pub clients_per_address: usize,
    /// Programs on this host are held to that, too.
    pub limit_loopback: bool,
}

/// Why a socket could not be had.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    protocol: &'static str,
    cause: io::Error,
}

impl BindError {
    /// What kind of refusal it was.
    pub fn kind(&self) -> ErrorKind {
        match self.cause.raw_os_error() {
            // No IPv6 at all.
            Some(libc::EAFNOSUPPORT) => ErrorKind::AddrNotAvailable,
            _ => self.cause.kind(),
        }
    }
}

impl fmt::Display for BindError {
    /// One line that names the option, the value and what was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            protocol,
            cause,
        } = self;
        let (ip, port) = (address.ip(), address.port());
        match cause.kind() {
            ErrorKind::AddrInUse => {
                write!(
                    f,
                    "--port {port}: {protocol} {address} is in use; expected a free port"
                )
            }
            ErrorKind::PermissionDenied => write!(
                f,
                "--port {port}: no right to bind {protocol} {address}; expected a port from 1024 on (say --port 5353) \
                 or the capability CAP_NET_BIND_SERVICE"
            ),
            ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "--address {ip}: {protocol} {address}: expected an address of this host"
                )
            }
            _ => write!(
                f,
                "--address {ip}: {protocol} {address} cannot be bound: {cause}"
            ),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Sockets that are bound and not yet served.
#[derive(Debug)]
pub struct Sockets {
    tcp: Vec<TcpListener>,
    udp: Vec<Arc<UdpSocket>>,
    addresses: Vec<SocketAddr>,
    /// Somebody else holds them too, and goes on with them when this process has ended.
    passed: bool,
    /// Others have sockets of their own on the same ports.
    shared: bool,
}

impl Sockets {
    /// Binds TCP and UDP on every address.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let mut sockets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            addresses: Vec::new(),
            passed: false,
            shared: settings.reuse_port,
        };
        let mut missing = None;
        for &address in &settings.addresses {
            match bind_pair(SocketAddr::new(address, settings.port), settings.reuse_port) {
                Ok(((tcp, udp), bound)) => {
                    sockets.tcp.push(tcp);
                    sockets.udp.push(udp);
                    sockets.addresses.push(bound);
                }
                Err(error)
                    if settings.addresses_optional
                        && error.kind() == ErrorKind::AddrNotAvailable =>
                {
                    info!(
                        "event=address-left-out address={address} cause=\"{}\"",
                        error.cause
                    );
                    missing = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if sockets.tcp.is_empty() => Err(error),
            _ => Ok(sockets),
        }
    }

    /// Those that a service manager has bound and passed (sd_listen_fds(3)), if it has: then no others are. To be called
    /// before there are other threads, since it takes the word about them out of the environment.
    ///
    /// Fails where there is something else among them than TCP listeners and UDP sockets.
    pub fn passed() -> io::Result<Option<Self>> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            addresses: Vec::new(),
            passed: true,
            shared: false,
        };
        for place in 0..passed.len() {
            let address = match passed.take_tcp_listener(place) {
                Ok(Some(tcp)) if SockRef::from(&tcp).is_listener()? => {
                    let address = tcp.local_addr()?;
                    tcp.set_nonblocking(true)?;
                    sockets.tcp.push(tcp);
                    address
                }
                _ => {
                    let expected = || {
                        let text = format!(
                            "LISTEN_FDS: socket {place}: expected a TCP socket that listens, or a UDP socket"
                        );
                        io::Error::other(text)
                    };
                    let udp = passed.take_udp_socket(place).ok().flatten();
                    let udp = udp.ok_or_else(expected)?;
                    let address = udp.local_addr()?;
                    udp.set_nonblocking(false)?;
                    prepare_udp(&SockRef::from(&udp), address)?;
                    sockets.udp.push(Arc::new(udp));
                    address
                }
            };
            if !sockets.addresses.contains(&address) {
                sockets.addresses.push(address);
            }
        }
        Ok(Some(sockets).filter(|sockets| !sockets.addresses.is_empty()))
    }

    /// The addresses and ports that are bound, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

type Pair = (TcpListener, Arc<UdpSocket>);

/// Binds both protocols to the same port, also where the system chooses it.
fn bind_pair(wanted: SocketAddr, shared: bool) -> Result<(Pair, SocketAddr), BindError> {
    const TRIES: usize = 16;
    let mut tries = 0;
    loop {
        tries += 1;
        let tcp = bind_tcp(wanted, shared).map_err(|cause| BindError {
            address: wanted,
            protocol: "TCP",
            cause,
        })?;
        let bound = tcp.local_addr().unwrap_or(wanted);
        match bind_udp(bound, shared, wanted.port() == 0) {
            Ok(udp) => return Ok(((tcp, Arc::new(udp)), bound)),
            // The system chose a port that is free for TCP alone: it will choose another.
            Err(cause)
                if wanted.port() == 0 && cause.kind() == ErrorKind::AddrInUse && tries < TRIES => {}
            Err(cause) => {
                return Err(BindError {
                    address: bound,
                    protocol: "UDP",
                    cause,
                });
            }
        }
    }
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // A newcomer may be gone before it is accepted.
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What clients' connections have from their listener. Where the system will not have it, they do without.
fn prepare_tcp(listener: &Socket) {
    // Answers are gathered here already: each write should leave at once.
    let _ = listener.set_tcp_nodelay(true);
    // What the kernel holds for a client is bounded, too.
    let _ = listener.set_send_buffer_size(memory::SEND_BUFFER);
    let _ = listener.set_recv_buffer_size(memory::RECEIVE_BUFFER);
    let _ = listener.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// A port that the system has just chosen for TCP must be free: it is shared only once it is ours.
fn bind_udp(address: SocketAddr, shared: bool, chosen: bool) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    prepare_udp(&SockRef::from(&socket), address)?;
    socket.set_reuse_port(shared && !chosen)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(shared)?;
    Ok(socket.into())
}

/// What a socket for `address` needs that we receive on.
fn prepare_udp(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // With CAP_NET_ADMIN beyond the system's limit, else up to it; less is no reason not to serve.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER);
    // So that the kernel says how many datagrams found no room; without its word they are lost uncounted.
    let _ = setsockopt(&socket, sockopt::RxqOvfl, &1);
    // No answer is longer than what any link carries that IPv6 can use, so that none needs to be fragmented: it says so to
    // the routers, and believes nobody who says that the path carries less (RFC 9715 section 3.1). It also spares
    // the kernel an ID for the fragments of each packet, which costs more the more clients there are.
    let _ = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE);
    if address.ip().is_unspecified() {
        // An answer must leave from the address that was asked (RFC 5625 section 6.2; RFC 1123 section 6.1.2.1 class).
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    Ok(())
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and :: can be listened on side by side.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// The listening threads.
pub struct Server {
    udp: Vec<Arc<UdpSocket>>,
    passed: bool,
    shared: bool,
    threads: Vec<JoinHandle<()>>,
    /// Dropped when no more is to be accepted.
    end: PipeWriter,
    slots: Arc<ConnectionLimit>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Starts a thread for each socket, for so many TCP clients at a time. Fails when the system has none.
    pub fn start(
        sockets: Sockets,
        settings: &Settings,
        clients: usize,
        forwarder: &Arc<Forwarder>,
        pool: &Arc<Pool>,
        slow_readers: &Arc<SlowReaders>,
        evictions: &Arc<EvictionCounters>,
    ) -> io::Result<Self> {
        let slots = ConnectionLimit::new(clients, Arc::clone(evictions));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let (ended, end) = io::pipe()?;
        for listener in sockets.tcp {
            prepare_tcp(&SockRef::from(&listener));
            let door = Door {
                listener,
                ended: ended.try_clone()?,
                slots: Arc::clone(&slots),
                per_address: settings.clients_per_address,
                limit_loopback: settings.limit_loopback,
                forwarder: Arc::clone(forwarder),
                pool: Arc::clone(pool),
                slow_readers: Arc::clone(slow_readers),
                stopping: Arc::clone(&stopping),
            };
            threads.push(thread::spawn_for_good("accept", move || door.accept())?);
        }
        for udp in &sockets.udp {
            let mailbox = Mailbox {
                socket: Arc::clone(udp),
                own: udp.local_addr()?,
                forwarder: Arc::clone(forwarder),
                evictions: Arc::clone(evictions),
                passed: sockets.passed,
                stopping: Arc::clone(&stopping),
            };
            threads.push(thread::spawn_for_good("receive", move || {
                mailbox.receive()
            })?);
        }
        Ok(Self {
            udp: sockets.udp,
            passed: sockets.passed,
            shared: sockets.shared,
            threads,
            end,
            slots,
            stopping,
        })
    }

    /// The places of TCP clients.
    pub fn slots(&self) -> &Arc<ConnectionLimit> {
        &self.slots
    }

    /// Accepts and receives no more. Clients that are connected stay so.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.slots.close();
        drop(self.end);
        if self.passed {
            let_go(&self.threads, &self.udp);
        } else {
            for udp in &self.udp {
                // It stays open while a query of its waits for an answer. One that is connected gets no more datagrams but
                // its peer's, here its own: the kernel gives those of the others to who shares the port.
                if self.shared {
                    let _ = udp.local_addr().and_then(|own| udp.connect(own));
                }
                // Linux wakes the thread that waits in receive, although a datagram socket that is not connected reports
                // ENOTCONN.
                let _ = SockRef::from(&**udp).shutdown(Shutdown::Read);
            }
        }
        for thread in self.threads {
            // Its panics are caught: it ends by returning.
            if !self.passed || thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// Wakes `threads` that receive on sockets that others hold too, which a shutdown would end for them as well: by a datagram
/// that says nothing. One that does not arrive is not waited for for ever.
fn let_go(threads: &[JoinHandle<()>], sockets: &[Arc<UdpSocket>]) {
    let until = clock::now() + LAST_WORD;
    while threads.iter().any(|thread| !thread.is_finished()) && clock::now() < until {
        for socket in sockets {
            let Ok(address) = socket.local_addr() else {
                continue;
            };
            let (any, own): (IpAddr, IpAddr) = match address.ip() {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
            };
            let to = if address.ip() == any {
                own
            } else {
                address.ip()
            };
            let _ = UdpSocket::bind((any, 0))
                .and_then(|socket| socket.send_to(&[], (to, address.port())));
        }
        sleep(Duration::from_millis(5));
    }
}

/// Where TCP clients come in.
///
/// Most of them ask one thing and go. As long as one may be of these, the thread that let it in hears it, beside others: no
/// thread is woken for it alone. Who says more or stays longer is handed to a worker.
struct Door {
    listener: TcpListener,
    ended: PipeReader,
    slots: Arc<ConnectionLimit>,
    per_address: usize,
    limit_loopback: bool,
    forwarder: Arc<Forwarder>,
    pool: Arc<Pool>,
    slow_readers: Arc<SlowReaders>,
    stopping: Arc<AtomicBool>,
}

/// Those who came in a moment ago.
struct Lobby {
    /// In the order in which they came.
    newcomers: Vec<Newcomer>,
    /// What one of them is saying; empty in between.
    frames: Frames,
    /// What they ask.
    batch: Batch,
}

struct Newcomer {
    connection: Connection,
    came: Instant,
    has_asked: bool,
}

/// What a newcomer had to say.
enum Word {
    /// Nothing yet, or the one thing that it asks.
    Little,
    /// More than that, or not all at once.
    Much,
    /// It is gone.
    Farewell,
}

impl Door {
    fn accept(&self) {
        let mut trouble = Trouble::default();
        let pulse = Pulse::new("accept");
        let mut lobby = Lobby {
            newcomers: Vec::new(),
            frames: Frames::with_capacity(memory::READ),
            batch: Batch::default(),
        };
        loop {
            let mut ready = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
            ];
            let sockets = lobby
                .newcomers
                .iter()
                .map(|newcomer| newcomer.connection.socket());
            ready.extend(sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
            if poll(&mut ready, lobby.patience()).is_err() {
                continue;
            }
            let mut calls = ready.iter().map(|ready| ready.any().unwrap_or(true));
            // An error of the listener's own is for accept to tell.
            let knocks = calls.next().unwrap_or(false);
            if calls.next().unwrap_or(true) {
                break;
            }
            let calls: Vec<_> = calls.collect();
            let now = clock::now();
            pulse.works(now);
            self.hear_all(&mut lobby, &calls, now);
            if knocks {
                self.let_in(&mut lobby, &mut trouble, &pulse);
            }
            self.forwarder.dispatch(&mut lobby.batch, now);
            pulse.waits();
            if calls.len() > 1 {
                yield_now();
            }
        }
        self.clear(&mut lobby, usize::MAX);
    }

    /// Hears those of the lobby who have something to say, and has those who were there for long go on to workers.
    fn hear_all(&self, lobby: &mut Lobby, calls: &[bool], now: Instant) {
        let mut calls = calls.iter();
        let newcomers = std::mem::take(&mut lobby.newcomers);
        for newcomer in newcomers {
            if calls.next() == Some(&true) {
                self.hear(lobby, newcomer, now);
            } else {
                lobby.newcomers.push(newcomer);
            }
        }
        let is_young = |newcomer: &Newcomer| now.saturating_duration_since(newcomer.came) < YOUTH;
        let young = lobby.newcomers.iter().position(is_young);
        self.clear(lobby, young.unwrap_or(usize::MAX));
    }

    /// Lets in who waits at the door.
    fn let_in(&self, lobby: &mut Lobby, trouble: &mut Trouble, pulse: &Pulse) {
        for round in 0..LOBBY {
            let slot = match self.slots.take_now() {
                // That one more waits is known of the first alone, and nobody leaves for less.
                None if round == 0 => {
                    // It may be one of these that has to leave.
                    self.vacate(lobby);
                    pulse.waits();
                    self.slots.take()
                }
                slot => slot,
            };
            let Some(slot) = slot else { return };
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    let now = clock::now();
                    pulse.works(now);
                    trouble.is_over("accept");
                    if !self.may_stay(peer.ip().to_canonical()) {
                        debug!("event=client-refused client={peer} cause=\"too many of its own\"");
                        continue;
                    }
                    let slow_readers = Arc::clone(&self.slow_readers);
                    let newcomer = Newcomer {
                        connection: Connection::new(socket, peer, slow_readers, slot, now),
                        came: now,
                        has_asked: false,
                    };
                    self.clear(lobby, (lobby.newcomers.len() + 1).saturating_sub(LOBBY));
                    // Its query came with it, mostly.
                    self.hear(lobby, newcomer, now);
                }
                Err(_) if self.stopping.load(Ordering::Acquire) => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client went away again before it was accepted: weather.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    self.vacate(lobby);
                    pulse.waits();
                    return trouble.wait("accept", &error);
                }
            }
        }
    }

    /// Hears one newcomer, and puts it where it belongs then.
    fn hear(&self, lobby: &mut Lobby, mut newcomer: Newcomer, now: Instant) {
        // A panic costs the one at whom it happens.
        match thread::guard("accept", || self.take_in(lobby, &mut newcomer, now)) {
            Some(Word::Little) => lobby.newcomers.push(newcomer),
            Some(Word::Much) => {
                // What it was told here comes before what a worker tells it.
                self.forwarder.dispatch(&mut lobby.batch, now);
                let frames = Frames::with_capacity(memory::READ);
                let begun = std::mem::replace(&mut lobby.frames, frames);
                self.pool.submit(Job::Client(newcomer.connection, begun));
            }
            Some(Word::Farewell) => {}
            None => lobby.frames = Frames::with_capacity(memory::READ),
        }
    }

    fn take_in(&self, lobby: &mut Lobby, newcomer: &mut Newcomer, now: Instant) -> Word {
        let Lobby { frames, batch, .. } = lobby;
        let connection = &newcomer.connection;
        match frames.fill(|room| connection.read_now(room)) {
            Ok(0) => return Word::Farewell,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Word::Little,
            Err(_) => return Word::Farewell,
        }
        let had_asked = newcomer.has_asked;
        let mut asks = 0;
        // What is left goes on to a worker, which may wait until the client has read.
        while !batch.is_large()
            && let Some(range) = frames.next_message()
        {
            asks += 1;
            newcomer.has_asked = true;
            let client = connection.client(now);
            self.forwarder
                .handle(frames.message(range), client, now, batch);
        }
        if batch.was_over_limit() {
            connection.stream().mark_over_limit();
            return Word::Much;
        }
        match (had_asked, asks, frames.is_amid_message()) {
            (false, 1, false) => Word::Little,
            _ => Word::Much,
        }
    }

    /// Leaves nobody to a thread that is about to wait: neither who asked in this round, also if it has gone on since, nor
    /// who may still ask.
    fn vacate(&self, lobby: &mut Lobby) {
        self.forwarder.dispatch(&mut lobby.batch, clock::now());
        self.clear(lobby, usize::MAX);
    }

    /// Has the first so many of the lobby go on to workers.
    fn clear(&self, lobby: &mut Lobby, count: usize) {
        let count = count.min(lobby.newcomers.len());
        for newcomer in lobby.newcomers.drain(..count) {
            let nothing = Frames::with_capacity(memory::READ);
            self.pool.submit(Job::Client(newcomer.connection, nothing));
        }
    }

    fn may_stay(&self, address: IpAddr) -> bool {
        let unlimited = address.is_loopback() && !self.limit_loopback;
        unlimited || self.slots.admit(address, self.per_address)
    }
}

impl Lobby {
    /// Until the first of them has been here for long.
    fn patience(&self) -> PollTimeout {
        let Some(first) = self.newcomers.first() else {
            return PollTimeout::NONE;
        };
        let left = YOUTH.saturating_sub(clock::now().saturating_duration_since(first.came));
        // Rounded up: a timeout of zero for the last fraction of a millisecond would spin.
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    }
}

/// Where datagrams come in.
struct Mailbox {
    socket: Arc<UdpSocket>,
    own: SocketAddr,
    forwarder: Arc<Forwarder>,
    evictions: Arc<EvictionCounters>,
    /// Somebody else goes on with it: what is in its queue at the end is left there.
    passed: bool,
    stopping: Arc<AtomicBool>,
}

impl Mailbox {
    fn receive(&self) {
        let mut trouble = Trouble::default();
        let mut octets = vec![[0; DATAGRAM]; BATCH];
        let mut batch = Batch::default();
        let mut losses = Losses::default();
        let mut headers = Self::headers();
        let mut last_rounds = LAST_ROUNDS;
        let pulse = Pulse::new("receive");
        while !(self.passed && self.stopping.load(Ordering::Acquire)) {
            let mut slices: Vec<_> = octets
                .iter_mut()
                .map(|room| [IoSliceMut::new(room)])
                .collect();
            let received = recvmmsg(
                self.socket.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            let stopping = self.stopping.load(Ordering::Acquire);
            // What was received is read out first: the octets are lent until then.
            let received: Result<Vec<_>, _> = received
                .map(|datagrams| datagrams.map(|datagram| Arrival::of(&datagram)).collect());
            match received {
                Ok(arrivals) => {
                    trouble.is_over("receive");
                    // A socket that was shut down reads as nothing once its queue is empty.
                    if stopping && arrivals.iter().all(|arrival| arrival.length == 0) {
                        return;
                    }
                    let now = clock::now();
                    pulse.works(now);
                    let lost = arrivals.iter().rev().find_map(|arrival| arrival.lost);
                    let told_before = losses.were_heard();
                    self.evictions.datagrams.add(losses.hear(lost, now));
                    batch.be_terse(losses.are_recent(now));
                    let unheard = losses.may_be_unheard(arrivals.len(), now);
                    if unheard || (self.own.ip().is_unspecified() && !told_before) {
                        headers = Self::headers();
                    }
                    self.handle(&arrivals, &octets, &mut batch, now);
                    pulse.waits();
                    if (2..BATCH).contains(&arrivals.len()) {
                        // More are on their way: if anybody else has something to do, the next batch is larger for it.
                        // After a full one it is full anyway, and who floods is not to have the processor as well.
                        yield_now();
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => trouble.wait("receive", &error.into()),
            }
            if stopping {
                last_rounds -= 1;
                if last_rounds == 0 {
                    return;
                }
            }
        }
    }

    /// Room for a batch, with all that the kernel may tell of each datagram.
    ///
    /// It is room for no more than the kernel told of the last one in the same place: nothing puts the lengths back. So on a
    /// wildcard it is made for each batch until datagrams were lost: with the first word on that, which comes before the
    /// address that was asked, both would be too long. After that batch both come with each datagram.
    fn headers() -> MultiHeaders<SockaddrStorage> {
        MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo, u32)))
    }

    fn handle(
        &self,
        arrivals: &[Arrival],
        octets: &[[u8; DATAGRAM]],
        batch: &mut Batch,
        now: Instant,
    ) {
        for (arrival, octets) in arrivals.iter().zip(octets) {
            let asked = arrival.local.map_or(self.own.ip(), |local| local.address);
            let asked = SocketAddr::new(asked, self.own.port());
            let Some(peer) = arrival.peer.filter(|peer| is_client(*peer, asked)) else {
                self.forwarder.ignore();
                continue;
            };
            let client = Client::Datagram {
                socket: Arc::clone(&self.socket),
                peer,
                local: arrival.local,
            };
            self.forwarder
                .handle(&octets[..arrival.length], client, now, batch);
        }
        self.forwarder.dispatch(batch, now);
    }
}

/// Whether an answer to `peer` reaches somebody who asked: not many, nobody, or us at `asked`, who would answer it again.
fn is_client(peer: SocketAddr, asked: SocketAddr) -> bool {
    let address = peer.ip().to_canonical();
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let nobody = peer.port() == 0 || address.is_unspecified();
    !(broadcast || nobody || address.is_multicast() || peer == asked)
}

/// What is known of a datagram besides its octets.
struct Arrival {
    length: usize,
    peer: Option<SocketAddr>,
    /// The address that it was sent to, where the socket tells.
    local: Option<Local>,
    /// Datagrams that the socket has lost so far, where it tells.
    lost: Option<u32>,
}

impl Arrival {
    fn of(datagram: &RecvMsg<'_, '_, SockaddrStorage>) -> Self {
        let mut arrival = Self {
            length: datagram.bytes,
            peer: datagram.address.and_then(to_address),
            local: None,
            lost: None,
        };
        for control in datagram.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    arrival.local = Some(Local {
                        address: address.into(),
                        interface: 0,
                    });
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let interface = if address.is_unicast_link_local() {
                        info.ipi6_ifindex
                    } else {
                        0
                    };
                    arrival.local = Some(Local {
                        address: address.into(),
                        interface,
                    });
                }
                ControlMessageOwned::RxqOvfl(lost) => arrival.lost = Some(lost),
                _ => {}
            }
        }
        arrival
    }
}

/// What a socket's count of lost datagrams amounts to.
///
/// The kernel tells it with each datagram once one was lost, where there is room for its word. For that alone new room is
/// made only when there may be something new to hear: after whole batches, without which no queue is full, and once a second
/// at most.
#[derive(Debug, Default)]
struct Losses {
    /// The count that was heard last. It wraps around.
    heard: u32,
    /// When some were lost last.
    last: Option<Instant>,
    unsaid: u64,
    said: Option<Instant>,
    /// There was a whole batch since there was room for the kernel's word.
    pressed: bool,
    room_made: Option<Instant>,
}

impl Losses {
    /// Takes in the socket's count, if it told one; returns how many are new. Says so now and then.
    fn hear(&mut self, count: Option<u32>, now: Instant) -> u64 {
        let Some(count) = count else { return 0 };
        let new = count.wrapping_sub(self.heard).into();
        self.heard = count;
        self.unsaid += new;
        if new > 0 {
            self.last = Some(now);
        }
        let due = self.said.is_none_or(|said| now >= said + SAY_AGAIN);
        if due && self.unsaid > 0 {
            warn!("event=datagrams-lost count={}", self.unsaid);
            (self.unsaid, self.said) = (0, Some(now));
        }
        new
    }

    /// Whether some were lost within the last second.
    fn are_recent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now < last + HEAR_AGAIN)
    }

    /// Whether the kernel has told of any.
    fn were_heard(&self) -> bool {
        self.heard != 0
    }

    /// Whether room is to be made for the kernel's word, after a batch of so many.
    fn may_be_unheard(&mut self, arrivals: usize, now: Instant) -> bool {
        self.pressed |= arrivals == BATCH;
        let due = self.room_made.is_none_or(|made| now >= made + HEAR_AGAIN);
        let unheard = self.pressed && due;
        if unheard {
            (self.pressed, self.room_made) = (false, Some(now));
        }
        unheard
    }
}

fn to_address(address: SockaddrStorage) -> Option<SocketAddr> {
    match address.family()? {
        AddressFamily::Inet => Some(SocketAddr::V4((*address.as_sockaddr_in()?).into())),
        AddressFamily::Inet6 => Some(SocketAddr::V6((*address.as_sockaddr_in6()?).into())),
        _ => None,
    }
}

/// Errors of accepting or receiving: waited out, said once.
#[derive(Debug, Default)]
struct Trouble {
    pause: Option<Duration>,
}

impl Trouble {
    fn wait(&mut self, what: &str, error: &io::Error) {
        let pause = match self.pause {
            Some(pause) => (pause * 2).min(PAUSE.1),
            None => {
                warn!("event={what}-failed cause=\"{error}\"");
                PAUSE.0
            }
        };
        self.pause = Some(pause);
        sleep(pause);
    }

    fn is_over(&mut self, what: &str) {
        if self.pause.take().is_some() {
            info!("event={what}-works-again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_have_asked_is_no_client() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let asked = address("192.0.2.1:53");
        for (peer, expected) in [
            ("192.0.2.1:5353", true),
            ("192.0.2.9:53", true),
            ("[2001:db8::1]:1024", true),
            ("192.0.2.1:53", false),
            ("192.0.2.9:0", false),
            ("0.0.0.0:1024", false),
            ("255.255.255.255:1024", false),
            ("[::ffff:255.255.255.255]:1024", false),
            ("224.0.0.251:5353", false),
            ("[ff02::fb]:5353", false),
        ] {
            assert_eq!(is_client(address(peer), asked), expected, "{peer}");
        }
    }

    #[test]
    fn answers_are_not_fragmented_whatever_the_network_says() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let address = address.parse().expect("an address");
            let socket = bind_udp(address, false, false).expect("a socket");
            let now = rustix::net::sockopt::ip_mtu_discover(&socket).expect("an option");
            assert_eq!(now, Ipv4PathMtuDiscovery::PROBE, "{address}");
        }
    }

    #[test]
    fn why_a_socket_could_not_be_had_is_said_with_what_to_do() {
        for (kind, parts) in [
            (ErrorKind::AddrInUse, ["--port 53", "in use", "a free port"]),
            (
                ErrorKind::PermissionDenied,
                ["--port 53", "--port 5353", "CAP_NET_BIND_SERVICE"],
            ),
            (
                ErrorKind::AddrNotAvailable,
                ["--address 192.0.2.1", "TCP", "of this host"],
            ),
            (
                ErrorKind::Other,
                ["--address 192.0.2.1", "TCP", "cannot be bound"],
            ),
        ] {
            let address = SocketAddr::from(([192, 0, 2, 1], 53));
            let error = BindError {
                address,
                protocol: "TCP",
                cause: kind.into(),
            }
            .to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
