//! A DNS-over-TLS resolver to measure forwarders with: it knows every name, costs little, and answers as late as it is told.
//!
//! It says on standard output where it listens and the pin of its key, and for each line on standard input, and when it is
//! ended, what it has counted: each as a line of JSON.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dns_tool_bench::message::{Manner, split_first, write_answer};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeSpec;
use pico_args::Arguments;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, date_time_ymd,
};
use rustls::crypto::ring as provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};

const HELP: &str = "\
A DNS-over-TLS resolver to measure forwarders with

usage: resolver --authority FILE [OPTION...]

  --authority FILE     where the certificate that vouches for it is written, in PEM
  --certificate FILE   where its own certificate is written, in PEM [default: nowhere]
  --name NAME          the name that its certificate bears [default: resolver.test]
  --listen IP:PORT     where it listens [default: 127.0.0.1:0, which leaves the port to the system]
  --delay MS           answers leave so long after their queries came [default: 0]
  --ttl SECONDS        how long answers may be kept [default: 3600]
  --padding            answers to padded queries are padded (RFC 8467)
";

/// How much is taken from a socket at once.
const READ: usize = 1 << 16;

struct Settings {
    authority: PathBuf,
    certificate: Option<PathBuf>,
    name: String,
    listen: SocketAddr,
    delay: Duration,
    manner: Manner,
}

fn settings() -> Result<Option<Settings>, Box<dyn Error>> {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        return Ok(None);
    }
    let delay: f64 = arguments.opt_value_from_str("--delay")?.unwrap_or_default();
    let settings = Settings {
        authority: arguments.value_from_str("--authority")?,
        certificate: arguments.opt_value_from_str("--certificate")?,
        name: arguments
            .opt_value_from_str("--name")?
            .unwrap_or_else(|| "resolver.test".to_owned()),
        listen: arguments
            .opt_value_from_str("--listen")?
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        delay: Duration::try_from_secs_f64(delay / 1000.0)?,
        manner: Manner {
            ttl: arguments.opt_value_from_str("--ttl")?.unwrap_or(3600),
            padding: arguments.contains("--padding"),
        },
    };
    match arguments.finish().first() {
        Some(other) => Err(format!("unknown: {}", other.to_string_lossy()).into()),
        None => Ok(Some(settings)),
    }
}

/// What it has seen so far.
#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    full_handshakes: AtomicU64,
    resumptions: AtomicU64,
    failed_handshakes: AtomicU64,
    queries: AtomicU64,
    reads: AtomicU64,
}

impl Counts {
    fn say(&self) {
        let Self {
            connections,
            open,
            full_handshakes,
            resumptions,
            failed_handshakes,
            queries,
            reads,
        } = self;
        println!(
            "{{\"connections\": {connections:?}, \"open\": {open:?}, \"full_handshakes\": {full_handshakes:?}, \
             \"resumptions\": {resumptions:?}, \"failed_handshakes\": {failed_handshakes:?}, \
             \"queries\": {queries:?}, \"reads\": {reads:?}}}"
        );
    }
}

/// A certificate for the name by an authority of its own, whose certificate is written where others can find it.
fn identity(settings: &Settings) -> Result<(ServerConfig, String), Box<dyn Error>> {
    let valid = |mut params: CertificateParams, name: &str| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = valid(CertificateParams::new(Vec::new())?, "authority of a bench");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut leaf = valid(
        CertificateParams::new(vec![settings.name.clone()])?,
        &settings.name,
    );
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &authority)?;
    fs::write(&settings.authority, authority.pem())?;
    if let Some(file) = &settings.certificate {
        fs::write(file, leaf.pem())?;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    let private = PrivateKeyDer::try_from(key.serialize_der())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)?;
    config.alpn_protocols = vec![b"dot".to_vec()];
    config.ticketer = provider::Ticketer::new()?;
    Ok((config, STANDARD.encode(digest)))
}

/// A connection of a forwarder.
struct Connection {
    socket: TcpStream,
    tls: ServerConnection,
    counts: Arc<Counts>,
    manner: Manner,
    delay: Duration,
    /// What came and is not a whole message yet.
    incoming: Vec<u8>,
    /// Answers that wait until they are due, in that order; those to queries that came together leave together.
    delayed: VecDeque<(Instant, Vec<u8>)>,
}

impl Connection {
    fn shake_hands(&mut self) -> io::Result<()> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket)?;
        }
        let kind = match self.tls.handshake_kind() {
            Some(HandshakeKind::Resumed) => &self.counts.resumptions,
            _ => &self.counts.full_handshakes,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut octets = vec![0; READ];
        // What came with the last message of the handshake is there already.
        let mut more = self.take_plaintext()?;
        while more {
            self.answer()?;
            if !self.wait()? {
                self.send_what_is_due()?;
                continue;
            }
            let count = match self.socket.read(&mut octets) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            more = count > 0 && self.decrypt(&octets[..count])?;
        }
        Ok(())
    }

    /// Until something can be read, or an answer is due; says whether it is the former.
    fn wait(&self) -> io::Result<bool> {
        let Some((due, _)) = self.delayed.front() else {
            return Ok(true);
        };
        let left = due.saturating_duration_since(Instant::now());
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut socket, Some(TimeSpec::from_duration(left)), None) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::Error::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes all records of a read apart; says whether there may be more.
    fn decrypt(&mut self, mut octets: &[u8]) -> io::Result<bool> {
        self.counts.reads.fetch_add(1, Ordering::Relaxed);
        let mut open = true;
        while open && !octets.is_empty() {
            self.tls.read_tls(&mut octets)?;
            self.tls
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            open = self.take_plaintext()?;
        }
        Ok(open)
    }

    fn take_plaintext(&mut self) -> io::Result<bool> {
        match self.tls.reader().read_to_end(&mut self.incoming) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Answers all that has come, in one record, now or when it is due.
    fn answer(&mut self) -> io::Result<()> {
        let mut answers = Vec::with_capacity(2 * self.incoming.len() + 512);
        let mut rest = &self.incoming[..];
        let mut count = 0;
        while let Some((query, others)) = split_first(rest) {
            write_answer(query, self.manner, &mut answers)
                .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "no query"))?;
            count += 1;
            rest = others;
        }
        let done = self.incoming.len() - rest.len();
        self.incoming.drain(..done);
        if count == 0 {
            return Ok(());
        }
        self.counts.queries.fetch_add(count, Ordering::Relaxed);
        if self.delay.is_zero() {
            return self.send(&answers);
        }
        self.delayed
            .push_back((Instant::now() + self.delay, answers));
        self.send_what_is_due()
    }

    fn send_what_is_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut answers = Vec::new();
        while self.delayed.front().is_some_and(|(due, _)| *due <= now) {
            answers.extend(
                self.delayed
                    .pop_front()
                    .into_iter()
                    .flat_map(|(_, due)| due),
            );
        }
        if answers.is_empty() {
            return Ok(());
        }
        self.send(&answers)
    }

    fn send(&mut self, answers: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(answers)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

fn meet(
    socket: TcpStream,
    config: Arc<ServerConfig>,
    counts: &Arc<Counts>,
    manner: Manner,
    delay: Duration,
) -> Result<(), Box<dyn Error>> {
    socket.set_nodelay(true)?;
    let mut tls = ServerConnection::new(config)?;
    tls.set_buffer_limit(None);
    let mut connection = Connection {
        socket,
        tls,
        counts: Arc::clone(counts),
        manner,
        delay,
        incoming: Vec::new(),
        delayed: VecDeque::new(),
    };
    if let Err(error) = connection.shake_hands() {
        counts.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        return Err(error.into());
    }
    connection.serve()?;
    Ok(())
}

fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    // Before any thread starts: they all leave the signals to this one.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let (config, pin) = identity(settings)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(settings.listen)?;
    println!(
        "{{\"address\": \"{}\", \"pin\": \"{pin}\"}}",
        listener.local_addr()?
    );
    let counts = Arc::new(Counts::default());
    let (manner, delay) = (settings.manner, settings.delay);
    let counted = Arc::clone(&counts);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(socket) = socket else {
                // Too many open files: those that are open may close.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            counted.connections.fetch_add(1, Ordering::Relaxed);
            counted.open.fetch_add(1, Ordering::Relaxed);
            let (config, counts) = (Arc::clone(&config), Arc::clone(&counted));
            thread::spawn(move || {
                // How a connection ends is the forwarder's business, and no news.
                let _ = meet(socket, config, &counts, manner, delay);
                counts.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    let asked = Arc::clone(&counts);
    thread::spawn(move || io::stdin().lines().for_each(|_| asked.say()));
    signals.wait()?;
    counts.say();
    Ok(())
}

fn main() -> ExitCode {
    match settings() {
        Ok(None) => print!("{HELP}"),
        Ok(Some(settings)) => {
            if let Err(error) = run(&settings) {
                eprintln!("resolver: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(error) => {
            eprintln!("resolver: {error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
