//! A yardstick, not a forwarder: the least that relaying can cost in this shape, or that answering can.
//!
//! One TLS session that all queries share, a thread that reads it, one that receives datagrams, and one for each
//! connection. IDs are replaced, and all that comes together leaves together; there is nothing else: no bounds, no
//! timeouts, no reconnection, no look at what a message says. What ends ends it.

use std::error::Error;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{ExitCode, exit};
use std::sync::{Arc, Mutex};
use std::thread;

use dns_tool_bench::message::{Manner, split_first, write_answer};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use pico_args::Arguments;
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

const HELP: &str = "\
A yardstick for forwarders: relays messages by TLS and does nothing else, or answers them all itself

usage: bare --listen IP:PORT --authority FILE --resolver IP:PORT [--name NAME]
       bare --listen IP:PORT

  --listen IP:PORT     where it listens, by UDP and TCP
  --resolver IP:PORT   where the resolver is [default: it answers itself]
  --authority FILE     whom it believes, in PEM
  --name NAME          the name that the resolver proves [default: resolver.test]
";

/// Datagrams that are taken or sent at once.
const BATCH: usize = 32;
/// How much is taken from a stream at once.
const READ: usize = 1 << 16;
/// The longest datagram.
const DATAGRAM: usize = 4096;
const MANNER: Manner = Manner {
    ttl: 3600,
    padding: false,
};

/// Whoever gets an answer, and the ID that it gave its query.
enum Asker {
    Datagram(SockaddrIn, u16),
    Stream(Arc<TcpStream>, u16),
}

/// The session, and who waits for an answer by it: the place of each is the ID there.
struct Session {
    tls: ClientConnection,
    askers: Vec<Option<Asker>>,
    free: Vec<u16>,
    out: Vec<u8>,
}

struct Relay {
    socket: TcpStream,
    session: Mutex<Session>,
}

impl Relay {
    fn connect(
        resolver: SocketAddr,
        authority: &PathBuf,
        name: String,
    ) -> Result<Self, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
        tls.set_buffer_limit(None);
        let mut socket = TcpStream::connect(resolver)?;
        socket.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let session = Session {
            tls,
            askers: (0..=u16::MAX).map(|_| None).collect(),
            free: (0..=u16::MAX).collect(),
            out: Vec::new(),
        };
        Ok(Self {
            socket,
            session: Mutex::new(session),
        })
    }

    /// Asks what a batch holds, in one record.
    fn ask(&self, queries: impl Iterator<Item = (Asker, impl AsRef<[u8]>)>) -> io::Result<()> {
        let mut session = self.session.lock().expect("nobody panics");
        let session = &mut *session;
        for (asker, query) in queries {
            let query = query.as_ref();
            let Some(id) = session.free.pop() else {
                continue;
            };
            session.askers[usize::from(id)] = Some(asker);
            let length = u16::try_from(query.len()).unwrap_or_default();
            session.out.extend_from_slice(&length.to_be_bytes());
            session.out.extend_from_slice(&id.to_be_bytes());
            session.out.extend_from_slice(&query[2..]);
        }
        session.tls.writer().write_all(&session.out)?;
        session.out.clear();
        while session.tls.wants_write() {
            session.tls.write_tls(&mut &self.socket)?;
        }
        Ok(())
    }

    /// Reads answers for ever.
    fn read(&self, datagrams: &UdpSocket) -> Result<(), Box<dyn Error>> {
        let mut octets = vec![0; READ];
        let mut incoming = Vec::new();
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut replies: Vec<(SockaddrIn, Vec<u8>)> = Vec::new();
        let mut streams: Vec<(Arc<TcpStream>, Vec<u8>)> = Vec::new();
        loop {
            let count = (&self.socket).read(&mut octets)?;
            if count == 0 {
                return Err("the resolver closed the session".into());
            }
            let mut session = self.session.lock().expect("nobody panics");
            let mut rest = &octets[..count];
            while !rest.is_empty() {
                session.tls.read_tls(&mut rest)?;
                session.tls.process_new_packets()?;
                let _ = session.tls.reader().read_to_end(&mut incoming);
            }
            let mut rest = &incoming[..];
            while let Some((answer, others)) = split_first(rest) {
                rest = others;
                let id = u16::from_be_bytes([answer[0], answer[1]]);
                match session.askers[usize::from(id)].take() {
                    Some(Asker::Datagram(peer, asked)) => {
                        let mut answer = answer.to_vec();
                        answer[..2].copy_from_slice(&asked.to_be_bytes());
                        replies.push((peer, answer));
                    }
                    Some(Asker::Stream(stream, asked)) => {
                        let known = streams
                            .iter_mut()
                            .rfind(|(other, _)| Arc::ptr_eq(other, &stream));
                        let out = match known {
                            Some((_, out)) => out,
                            None => {
                                streams.push((stream, Vec::new()));
                                &mut streams.last_mut().expect("just pushed").1
                            }
                        };
                        out.extend_from_slice(&u16::try_from(answer.len())?.to_be_bytes());
                        out.extend_from_slice(&asked.to_be_bytes());
                        out.extend_from_slice(&answer[2..]);
                    }
                    None => continue,
                }
                session.free.push(id);
            }
            drop(session);
            let done = incoming.len() - rest.len();
            incoming.drain(..done);
            send_all(datagrams, &mut headers, &replies)?;
            replies.clear();
            for (stream, answers) in streams.drain(..) {
                // A client that is gone needs no answer.
                let _ = (&*stream).write_all(&answers);
            }
        }
    }
}

fn send_all(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    replies: &[(SockaddrIn, Vec<u8>)],
) -> io::Result<()> {
    for batch in replies.chunks(BATCH) {
        let slices: Vec<_> = batch
            .iter()
            .map(|(_, octets)| [IoSlice::new(octets)])
            .collect();
        let peers: Vec<_> = batch.iter().map(|(peer, _)| Some(*peer)).collect();
        sendmmsg(
            socket.as_raw_fd(),
            headers,
            &slices,
            &peers,
            [],
            MsgFlags::empty(),
        )?;
    }
    Ok(())
}

/// Takes datagrams for ever, and relays or answers them.
fn receive(socket: &UdpSocket, relay: Option<&Relay>) -> Result<(), Box<dyn Error>> {
    let mut room = vec![vec![0; DATAGRAM]; BATCH];
    let mut headers: MultiHeaders<SockaddrIn> = MultiHeaders::preallocate(BATCH, None);
    let mut out_headers = MultiHeaders::preallocate(BATCH, None);
    loop {
        let mut slices: Vec<_> = room
            .iter_mut()
            .map(|room| [IoSliceMut::new(room)])
            .collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let received: Vec<_> = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            flags,
            None,
        )?
        .map(|datagram| (datagram.address, datagram.bytes))
        .collect();
        let queries = received
            .iter()
            .zip(&room)
            .filter_map(|((peer, length), octets)| {
                let query = octets.get(..*length).filter(|query| query.len() > 2)?;
                Some(((*peer)?, query))
            });
        match relay {
            Some(relay) => relay.ask(queries.map(|(peer, query)| {
                let id = u16::from_be_bytes([query[0], query[1]]);
                (Asker::Datagram(peer, id), query)
            }))?,
            None => {
                let replies: Vec<_> = queries
                    .filter_map(|(peer, query)| {
                        let mut out = Vec::with_capacity(256);
                        write_answer(query, MANNER, &mut out)?;
                        Some((peer, out.split_off(2)))
                    })
                    .collect();
                send_all(socket, &mut out_headers, &replies)?;
            }
        }
    }
}

/// Serves one connection until it ends.
fn serve(socket: TcpStream, relay: Option<&Relay>) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut octets = vec![0; 4096];
    let mut incoming = Vec::new();
    let mut out = Vec::new();
    loop {
        let count = (&*socket).read(&mut octets)?;
        if count == 0 {
            return Ok(());
        }
        incoming.extend_from_slice(&octets[..count]);
        let mut queries = Vec::new();
        let mut rest = &incoming[..];
        while let Some((query, others)) = split_first(rest) {
            queries.push(query);
            rest = others;
        }
        let left = rest.len();
        match relay {
            Some(relay) => relay.ask(queries.into_iter().map(|query| {
                let id = u16::from_be_bytes([query[0], query[1]]);
                (Asker::Stream(Arc::clone(&socket), id), query)
            }))?,
            None => {
                for query in queries {
                    write_answer(query, MANNER, &mut out);
                }
                (&*socket).write_all(&out)?;
                out.clear();
            }
        }
        incoming.drain(..incoming.len() - left);
    }
}

/// Runs what is not meant to end, and ends everything when it does.
fn for_good(what: impl FnOnce() -> Result<(), Box<dyn Error>>) {
    if let Err(error) = what() {
        eprintln!("bare: {error}");
    }
    exit(1);
}

fn run(mut arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let listen: SocketAddr = arguments.value_from_str("--listen")?;
    let resolver = arguments.opt_value_from_str("--resolver")?;
    let name = arguments.opt_value_from_str("--name")?;
    let name: String = name.unwrap_or_else(|| "resolver.test".to_owned());
    let authority: Option<PathBuf> = arguments.opt_value_from_str("--authority")?;
    if let Some(other) = arguments.finish().first() {
        return Err(format!("unknown: {}", other.to_string_lossy()).into());
    }
    let relay = match resolver {
        Some(resolver) => {
            let authority = authority.ok_or("--authority is missing")?;
            Some(Arc::new(Relay::connect(resolver, &authority, name)?))
        }
        None => None,
    };
    let datagrams = Arc::new(UdpSocket::bind(listen)?);
    SockRef::from(&datagrams).set_recv_buffer_size(1 << 20)?;
    let listener = TcpListener::bind(listen)?;
    if let Some(relay) = &relay {
        let (relay, datagrams) = (Arc::clone(relay), Arc::clone(&datagrams));
        thread::spawn(move || for_good(|| relay.read(&datagrams)));
    }
    let received = relay.clone();
    thread::spawn(move || for_good(|| receive(&datagrams, received.as_deref())));
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let relay = relay.clone();
        thread::spawn(move || serve(socket, relay.as_deref()));
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::from(2)
        }
    }
}
