//! A DNS-over-TLS resolver that does what it is told.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion};
use socket2::SockRef;

use super::client::framed;
use super::message;
use super::{Chain, PATIENCE, log, pki, seed, wait_until};

/// How it meets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// It shakes hands.
    Shake,
    /// It accepts and says nothing, ever.
    Mute,
    /// It closes at once.
    Close,
    /// It resets at once.
    Reset,
    /// It talks something that is not TLS.
    Garbage,
    /// It shakes hands an octet at a time, with this long between them.
    Dribble(Duration),
    /// It shakes hands after it has said nothing for so long.
    Late(Duration),
    /// It shakes hands and closes.
    ShakeAndClose,
    /// It resets at the first hello, and shakes hands from then on.
    ResetOnce,
    /// It shakes hands unless the hello has more than one packet.
    ShakeIfSmall(Large),
    /// The same, but of the hellos of one packet it resets the first, the third and so on.
    ShakeAtSecondSmall(Large),
}

/// What it does with a hello of more than one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Large {
    /// It says nothing.
    Ignored,
    /// It closes.
    Closed,
    /// It resets.
    Reset,
    /// It sends the alert `decode_error`.
    Refused,
}

/// What it does for a query.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends a message.
    Send(Vec<u8>),
    /// Sends octets as they are, unframed.
    Raw(Vec<u8>),
    /// Sends a message an octet a record, with this long between them.
    Dribble(Vec<u8>, Duration),
    /// Sends a message after this long; other queries are served meanwhile.
    Later(Duration, Vec<u8>),
    /// Sends a message once the gate is open; other queries are served meanwhile.
    Held(Gate, Vec<u8>),
    /// Closes with close_notify.
    Close,
    /// Closes the TCP connection without a word of TLS.
    Cut,
    /// Resets the TCP connection.
    Reset,
    /// Talks cleartext amid the session.
    Plaintext,
}

/// What holds answers back until the test opens it, so that no test depends on how slow a slow answer is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets out what is held, and all that comes later.
    pub(crate) fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open, but not longer than a test takes.
    fn wait(&self) {
        let shut = self
            .0
            .1
            .wait_timeout_while(lock(&self.0.0), PATIENCE, |open| !*open);
        drop(shut);
    }
}

type Script = dyn Fn(&[u8]) -> Vec<Act> + Send + Sync;

/// The resolver; it ends when dropped.
pub(crate) struct FakeResolver {
    address: SocketAddr,
    log_mark: usize,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Mutex<Arc<ServerConfig>>,
    greeting: Mutex<Greeting>,
    script: Mutex<Arc<Script>>,
    live: Mutex<HashMap<usize, Arc<TcpStream>>>,
    /// Connections with lower numbers are neither read nor answered any more.
    silenced: AtomicUsize,
    /// A connection ends after so many queries.
    most_queries: AtomicUsize,
    connections: AtomicUsize,
    /// Those that came while large hellos were not wanted, and small ones while not all of these were.
    large_hellos: AtomicUsize,
    small_hellos: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    retried: AtomicUsize,
    queries: Mutex<Vec<Vec<u8>>>,
    /// Everything that arrived on any connection, as it came off the wire.
    wire: Mutex<Vec<u8>>,
    /// How many queries came in each read of the socket that brought any.
    batches: Mutex<Vec<usize>>,
    stopping: AtomicBool,
}

impl FakeResolver {
    /// Honest: the right certificate, the right answers.
    pub(crate) fn honest() -> Self {
        Self::with_chain(&pki().honest())
    }

    /// Honest answers under this certificate chain.
    pub(crate) fn with_chain(chain: &Chain) -> Self {
        Self::with_tls(tls(
            chain,
            &[&rustls::version::TLS13, &rustls::version::TLS12],
            &[b"dot"],
        ))
    }

    /// An honest one at another address with the same port, as resolvers elsewhere mostly have the same.
    pub(crate) fn with_port_of(other: &Self) -> Self {
        let tls = tls(&pki().honest(), &[&rustls::version::TLS13], &[b"dot"]);
        let address = SocketAddr::from(([127, 0, 0, 2], other.address.port()));
        Self::bind(address, tls)
    }

    pub(crate) fn with_tls(tls: ServerConfig) -> Self {
        Self::bind("127.0.0.1:0".parse().expect("an address"), tls)
    }

    pub(crate) fn bind(address: SocketAddr, tls: ServerConfig) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            tls: Mutex::new(Arc::new(tls)),
            greeting: Mutex::new(Greeting::Shake),
            script: Mutex::new(Arc::new(|query: &[u8]| {
                vec![Act::Send(message::answer(query))]
            })),
            live: Mutex::default(),
            silenced: AtomicUsize::default(),
            most_queries: AtomicUsize::new(usize::MAX),
            connections: AtomicUsize::default(),
            large_hellos: AtomicUsize::default(),
            small_hellos: AtomicUsize::default(),
            handshakes: AtomicUsize::default(),
            resumed: AtomicUsize::default(),
            retried: AtomicUsize::default(),
            queries: Mutex::default(),
            wire: Mutex::default(),
            batches: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self {
            address,
            log_mark: log::mark(),
            shared,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The log lines at `level` or above about this resolver.
    pub(crate) fn log(&self, level: ::log::Level) -> Vec<String> {
        log::lines(self.log_mark, level, self.address)
    }

    /// From now on queries are served like this.
    pub(crate) fn serve(&self, script: impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// From now on connections are met like this.
    pub(crate) fn greet(&self, greeting: Greeting) {
        *lock(&self.shared.greeting) = greeting;
    }

    /// From now on it shows another chain. The connections that are open stay so.
    pub(crate) fn show(&self, chain: &Chain) {
        *lock(&self.shared.tls) = Arc::new(tls(chain, &[&rustls::version::TLS13], &[b"dot"]));
    }

    /// Closes every connection that is open.
    pub(crate) fn hang_up(&self) {
        for (_, socket) in lock(&self.shared.live).drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// From now on nothing is read or answered on the connections that there are; they stay open, and new ones are served.
    pub(crate) fn silence(&self) {
        let connections = self.shared.connections.load(Ordering::SeqCst);
        self.shared.silenced.store(connections, Ordering::SeqCst);
    }

    /// From now on a connection ends, with close_notify, once it has answered so many queries.
    pub(crate) fn close_after(&self, queries: usize) {
        self.shared.most_queries.store(queries, Ordering::SeqCst);
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many hellos were too large, see [`Greeting::ShakeIfSmall`].
    pub(crate) fn large_hellos(&self) -> usize {
        self.shared.large_hellos.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        lock(&self.shared.live).len()
    }

    pub(crate) fn handshakes(&self) -> usize {
        self.shared.handshakes.load(Ordering::SeqCst)
    }

    pub(crate) fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// How many whole handshakes took a second round trip, since the hello had no share of a group that it takes.
    pub(crate) fn retried(&self) -> usize {
        self.shared.retried.load(Ordering::SeqCst)
    }

    /// The queries that arrived, in order.
    pub(crate) fn queries(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.queries).clone()
    }

    /// How many queries arrived for a name.
    pub(crate) fn count(&self, name: &str) -> usize {
        let queries = lock(&self.shared.queries);
        let named = queries
            .iter()
            .filter(|query| message::name_of(query) == name);
        named.count()
    }

    /// Waits until so many queries have arrived, and returns them.
    pub(crate) fn wait_for_queries(&self, count: usize) -> Vec<Vec<u8>> {
        wait_until("queries at the resolver", || {
            lock(&self.shared.queries).len() >= count
        });
        self.queries()
    }

    /// Whether these octets arrived in the clear on any connection.
    pub(crate) fn saw_in_clear(&self, part: &[u8]) -> bool {
        let part = part.to_ascii_lowercase();
        lock(&self.shared.wire)
            .to_ascii_lowercase()
            .windows(part.len())
            .any(|window| window == part)
    }

    /// How long the records with protected data were that arrived on all connections, one connection after the other.
    pub(crate) fn records(&self) -> Vec<usize> {
        let wire = lock(&self.shared.wire).clone();
        let (mut rest, mut lengths) = (&wire[..], Vec::new());
        while let Some((&[kind, _, _, high, low], behind)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind == 23 {
                lengths.push(length);
            }
            rest = &behind[length..];
        }
        lengths
    }

    /// How many queries came with each read.
    pub(crate) fn batches(&self) -> Vec<usize> {
        lock(&self.shared.batches).clone()
    }
}

impl Drop for FakeResolver {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.hang_up();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

/// A server's TLS configuration.
pub(crate) fn tls(
    chain: &Chain,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
) -> ServerConfig {
    tls_with(
        chain,
        versions,
        protocols,
        rustls::crypto::ring::default_provider(),
    )
}

/// The same with these groups for the key exchange, among other things.
pub(crate) fn tls_with(
    chain: &Chain,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&[u8]],
    provider: CryptoProvider,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.certificates.clone(), chain.key.clone_key())
        .expect("certificate and key fit");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// A lock that a failed test does not spoil for the resolver's other threads.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let _ = socket.set_nodelay(true);
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let socket = Arc::new(socket);
        lock(&shared.live).insert(number, Arc::clone(&socket));
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // It ends when the other side goes away, or as the script wants.
            let _ = meet(&socket, number, &shared);
            lock(&shared.live).remove(&number);
        });
    }
}

fn meet(socket: &Arc<TcpStream>, number: usize, shared: &Arc<Shared>) -> io::Result<()> {
    let greeting = *lock(&shared.greeting);
    match greeting {
        Greeting::Mute => {
            while (&**socket).read(&mut [0; 4096])? > 0 {}
            Ok(())
        }
        Greeting::Close => Ok(()),
        Greeting::Reset => SockRef::from(&**socket).set_linger(Some(Duration::ZERO)),
        Greeting::Garbage => (&**socket).write_all(b"220 mail.example ESMTP\r\n"),
        Greeting::ResetOnce => {
            // Earlier, it could be TCP that fails.
            has_large_hello(socket)?;
            *lock(&shared.greeting) = Greeting::Shake;
            SockRef::from(&**socket).set_linger(Some(Duration::ZERO))
        }
        Greeting::ShakeIfSmall(large) | Greeting::ShakeAtSecondSmall(large)
            if has_large_hello(socket)? =>
        {
            shared.large_hellos.fetch_add(1, Ordering::SeqCst);
            match large {
                Large::Ignored => while (&**socket).read(&mut [0; 4096])? > 0 {},
                Large::Closed => {}
                Large::Reset => SockRef::from(&**socket).set_linger(Some(Duration::ZERO))?,
                // What has arrived must be read, or closing resets.
                Large::Refused => {
                    let _ = (&**socket).read(&mut [0; 4096])?;
                    (&**socket).write_all(&[21, 3, 3, 0, 2, 2, 50])?;
                }
            }
            Ok(())
        }
        Greeting::ShakeAtSecondSmall(_)
            if shared
                .small_hellos
                .fetch_add(1, Ordering::SeqCst)
                .is_multiple_of(2) =>
        {
            SockRef::from(&**socket).set_linger(Some(Duration::ZERO))
        }
        _ => {
            if let Greeting::Late(pause) = greeting {
                thread::sleep(pause);
            }
            let tls =
                ServerConnection::new(Arc::clone(&lock(&shared.tls))).expect("a configuration");
            Connection {
                socket: Arc::clone(socket),
                tls: Arc::new(Mutex::new(tls)),
                number,
            }
            .run(greeting, shared)
        }
    }
}

/// Whether the first record does not fit a packet of Ethernet. The record is not read.
fn has_large_hello(socket: &TcpStream) -> io::Result<bool> {
    let mut head = [0; 5];
    while socket.peek(&mut head)? < head.len() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(u16::from_be_bytes([head[3], head[4]]) > 1300)
}

/// One connection whose handshake is under way.
struct Connection {
    socket: Arc<TcpStream>,
    tls: Arc<Mutex<ServerConnection>>,
    /// How many came before it.
    number: usize,
}

impl Connection {
    fn run(&self, greeting: Greeting, shared: &Arc<Shared>) -> io::Result<()> {
        let pace = match greeting {
            Greeting::Dribble(pace) => Some(pace),
            _ => None,
        };
        let mut plaintext = Vec::new();
        let (mut shaken, mut served) = (false, 0);
        let mut octets = vec![0; 65_536];
        loop {
            let arrived = (&*self.socket).read(&mut octets)?;
            if arrived == 0 {
                return Ok(());
            }
            if self.number < shared.silenced.load(Ordering::SeqCst) {
                self.stay_silent(shared);
                return Ok(());
            }
            lock(&shared.wire).extend_from_slice(&octets[..arrived]);
            {
                let mut tls = lock(&self.tls);
                let mut input = &octets[..arrived];
                while !input.is_empty() {
                    tls.read_tls(&mut input)?;
                    let processed = tls.process_new_packets();
                    let mut ready = [0; 4096];
                    while let Ok(length @ 1..) = tls.reader().read(&mut ready) {
                        plaintext.extend_from_slice(&ready[..length]);
                    }
                    if let Err(error) = processed {
                        let _ = self.write_tls(&mut tls, None);
                        return Err(io::Error::other(error));
                    }
                }
                self.write_tls(&mut tls, pace)?;
                if !shaken && !tls.is_handshaking() {
                    shaken = true;
                    shared.handshakes.fetch_add(1, Ordering::SeqCst);
                    let kind = match tls.handshake_kind() {
                        Some(HandshakeKind::Resumed) => Some(&shared.resumed),
                        Some(HandshakeKind::FullWithHelloRetryRequest) => Some(&shared.retried),
                        _ => None,
                    };
                    kind.map(|count| count.fetch_add(1, Ordering::SeqCst));
                }
            }
            if shaken && greeting == Greeting::ShakeAndClose {
                return self.act(Act::Close).map(|_| ());
            }
            let messages = take_messages(&mut plaintext);
            if !messages.is_empty() {
                lock(&shared.batches).push(messages.len());
            }
            for query in messages {
                served += 1;
                if !self.serve(&query, shared)? {
                    return Ok(());
                }
                if served >= shared.most_queries.load(Ordering::SeqCst) {
                    return self.act(Act::Close).map(|_| ());
                }
            }
        }
    }

    /// Does for a query what the script says; whether the connection goes on.
    fn serve(&self, query: &[u8], shared: &Shared) -> io::Result<bool> {
        lock(&shared.queries).push(query.to_vec());
        let script = Arc::clone(&lock(&shared.script));
        for act in script(query) {
            if let Act::Send(answer) | Act::Later(_, answer) = &act {
                seed::keep_answer(query, answer);
            }
            if !self.act(act)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads nothing more, until the resolver ends or the other side has gone.
    fn stay_silent(&self, shared: &Shared) {
        let gone = || matches!(self.socket.take_error(), Ok(Some(_)) | Err(_));
        while !shared.stopping.load(Ordering::SeqCst) && !gone() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a message after `wait`, on a thread of its own.
    fn send_after(&self, wait: impl FnOnce() + Send + 'static, message: Vec<u8>) {
        let later = Self {
            socket: Arc::clone(&self.socket),
            tls: Arc::clone(&self.tls),
            number: self.number,
        };
        thread::spawn(move || {
            wait();
            let _ = later.send(&framed(&[message]));
        });
    }

    /// Does as told; whether the connection goes on.
    fn act(&self, act: Act) -> io::Result<bool> {
        match act {
            Act::Send(message) => self.send(&framed(&[message])).map(|()| true),
            Act::Raw(octets) => self.send(&octets).map(|()| true),
            Act::Dribble(message, pace) => {
                for octet in framed(&[message]) {
                    self.send(&[octet])?;
                    thread::sleep(pace);
                }
                Ok(true)
            }
            Act::Later(delay, message) => {
                self.send_after(move || thread::sleep(delay), message);
                Ok(true)
            }
            Act::Held(gate, message) => {
                self.send_after(move || gate.wait(), message);
                Ok(true)
            }
            Act::Close => {
                let mut tls = lock(&self.tls);
                tls.send_close_notify();
                self.write_tls(&mut tls, None)?;
                self.socket.shutdown(Shutdown::Write)?;
                Ok(false)
            }
            Act::Cut => self.socket.shutdown(Shutdown::Both).map(|()| false),
            Act::Reset => SockRef::from(&*self.socket)
                .set_linger(Some(Duration::ZERO))
                .map(|()| false),
            Act::Plaintext => (&*self.socket)
                .write_all(b"not a record at all")
                .map(|()| true),
        }
    }

    fn send(&self, octets: &[u8]) -> io::Result<()> {
        let mut tls = lock(&self.tls);
        for piece in octets.chunks(16_384) {
            tls.writer().write_all(piece)?;
            self.write_tls(&mut tls, None)?;
        }
        Ok(())
    }

    fn write_tls(&self, tls: &mut ServerConnection, pace: Option<Duration>) -> io::Result<()> {
        let mut octets = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut octets)?;
        }
        match pace {
            None => (&*self.socket).write_all(&octets),
            Some(pace) => octets.iter().try_for_each(|octet| {
                thread::sleep(pace);
                (&*self.socket).write_all(&[*octet])
            }),
        }
    }
}

fn take_messages(plaintext: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while plaintext.len() >= 2 {
        let end = 2 + usize::from(u16::from_be_bytes([plaintext[0], plaintext[1]]));
        if plaintext.len() < end {
            break;
        }
        messages.push(plaintext[2..end].to_vec());
        plaintext.drain(..end);
    }
    messages
}
