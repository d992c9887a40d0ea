//! A load for forwarders: it keeps so many queries on their way, and says how many came to what, and how long they took.
//!
//! Each answer is held against its question. What is not answered in time is lost, and another query takes its place.

use std::error::Error;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use dns_tool_bench::histogram::Histogram;
use dns_tool_bench::message::{self, Verdict};
use dns_tool_bench::pending::{Met, Pending};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg, setsockopt,
    sockopt,
};
use pico_args::Arguments;
use socket2::{Domain, SockRef, Socket, Type};

const HELP: &str = "\
A load for DNS forwarders: keeps so many queries on their way, and says as JSON what came of them

usage: load --target IP:PORT [OPTION...]

  --mode MODE         udp, tcp, or connections: TCP with a connection for each query [default: udp]
  --outstanding N     queries on their way at a time, at most 16,384 [default: 1]
  --over N            sockets or connections that share them [default: 1]
  --sources N         udp: all from one socket, with so many source addresses of 127.0.0.0/8 in turn
                      [default: a socket each, from the address that the system chooses]
  --names SET         unique: each query for a name that was not asked before; or a number: one of so many, by chance
                      [default: unique]
  --each-once         each name of the set once, in turn, and then it ends
  --seconds SECONDS   how long it asks [default: 3, or until --queries are asked]
  --queries N         how many it asks [default: as many as it can]
  --timeout SECONDS   when a query is lost [default: 5]
  --edns              queries have an OPT record
";

/// Datagrams that are taken or sent at once.
const BATCH: usize = 64;
/// The longest answer.
const MESSAGE: usize = 1 << 16;
/// What a datagram takes of a socket's buffer, at most.
const ROOM: usize = 1280;
/// How often it looks for queries that are lost.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Udp,
    Tcp,
    Connections,
}

struct Settings {
    target: SocketAddrV4,
    mode: Mode,
    outstanding: usize,
    over: usize,
    sources: Option<u32>,
    names: Names,
    duration: Option<Duration>,
    queries: u64,
    timeout: Duration,
    edns: bool,
}

fn settings() -> Result<Option<Settings>, Box<dyn Error>> {
    let mut arguments = Arguments::from_env();
    if arguments.contains(["-h", "--help"]) {
        return Ok(None);
    }
    let mode: String = arguments
        .opt_value_from_str("--mode")?
        .unwrap_or_else(|| "udp".to_owned());
    let seconds = |arguments: &mut Arguments, option| -> Result<_, Box<dyn Error>> {
        let seconds: Option<f64> = arguments.opt_value_from_str(option)?;
        Ok(seconds.map(Duration::try_from_secs_f64).transpose()?)
    };
    let each_once = arguments.contains("--each-once");
    let mut queries: Option<u64> = arguments.opt_value_from_str("--queries")?;
    let names: Option<String> = arguments.opt_value_from_str("--names")?;
    let names = match names.as_deref() {
        None | Some("unique") if each_once => return Err("--each-once of which set?".into()),
        None | Some("unique") => Names::unique()?,
        Some(count) => {
            let count = count.parse()?;
            if count == 0 {
                return Err("no names".into());
            }
            if each_once {
                queries = Some(count);
                Names::InTurn(0)
            } else {
                Names::ByChance { count, state: 1 }
            }
        }
    };
    let duration = seconds(&mut arguments, "--seconds")?;
    let default = Duration::from_secs(3);
    let settings = Settings {
        target: arguments.value_from_str("--target")?,
        mode: match mode.as_str() {
            "udp" => Mode::Udp,
            "tcp" => Mode::Tcp,
            "connections" => Mode::Connections,
            _ => return Err(format!("no mode: {mode}").into()),
        },
        outstanding: arguments.opt_value_from_str("--outstanding")?.unwrap_or(1),
        over: arguments.opt_value_from_str("--over")?.unwrap_or(1),
        sources: arguments.opt_value_from_str("--sources")?,
        names,
        duration: duration.or_else(|| queries.is_none().then_some(default)),
        queries: queries.unwrap_or(u64::MAX),
        timeout: seconds(&mut arguments, "--timeout")?.unwrap_or(Duration::from_secs(5)),
        edns: arguments.contains("--edns"),
    };
    if let Some(other) = arguments.finish().first() {
        return Err(format!("unknown: {}", other.to_string_lossy()).into());
    }
    let fits = (1..=Pending::MOST).contains(&settings.outstanding)
        && (1..=settings.outstanding).contains(&settings.over)
        && settings
            .sources
            .is_none_or(|sources| (1..=10_000_000).contains(&sources));
    if !fits {
        return Err("more than can be, or nothing to do".into());
    }
    Ok(Some(settings))
}

/// Which names are asked for.
enum Names {
    /// Names that nobody asked for before, in this run or another.
    Unique(u64),
    /// Any of so many.
    ByChance { count: u64, state: u64 },
    /// One after the other.
    InTurn(u64),
}

impl Names {
    fn unique() -> Result<Self, Box<dyn Error>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        // A new one each millisecond, for ten years to come; none is one of a set.
        let run = u64::try_from(now.as_millis())? & 0xFF_FFFF_FFFF | 1 << 39;
        Ok(Self::Unique(run << 24))
    }

    fn next(&mut self) -> u64 {
        match self {
            Self::Unique(next) | Self::InTurn(next) => {
                *next += 1;
                *next - 1
            }
            Self::ByChance { count, state } => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                // The upper half of a product: all are as likely, without a division.
                let product = u128::from(*state) * u128::from(*count);
                u64::try_from(product >> 64).unwrap_or_default()
            }
        }
    }
}

/// What came of the queries.
#[derive(Default)]
struct Tally {
    asked: u64,
    good: u64,
    good_in_time: u64,
    servfail: u64,
    wrong: u64,
    lost: u64,
    late: u64,
    closed: u64,
    took: Histogram,
    /// The first answer that was wrong.
    example: Vec<u8>,
}

/// A run, from the first query to the last answer.
struct Run {
    names: Names,
    pending: Pending,
    tally: Tally,
    began: Instant,
    /// When it asks no more, and how often, in nanoseconds and queries.
    end: u64,
    queries: u64,
    timeout: u64,
    edns: bool,
    looked: u64,
    /// When it asked last, or heard the last answer within its time.
    last: u64,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Run {
    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    fn asks(&self, now: u64) -> bool {
        now < self.end && self.tally.asked < self.queries
    }

    fn is_over(&self, now: u64) -> bool {
        self.pending.waiting() == 0 && !self.asks(now)
    }

    /// Appends a query that is to leave by that lane now; says whether there is one.
    fn ask(&mut self, lane: u32, now: u64, framed: bool, out: &mut Vec<u8>) -> bool {
        if !self.asks(now) {
            return false;
        }
        let number = self.names.next();
        let Some(id) = self.pending.enter(number, lane, now) else {
            return false;
        };
        self.tally.asked += 1;
        let start = out.len();
        if framed {
            out.extend_from_slice(&[0, 0]);
        }
        message::write_query(id, number, self.edns, out);
        if framed {
            let length = u16::try_from(out.len() - start - 2).unwrap_or_default();
            out[start..start + 2].copy_from_slice(&length.to_be_bytes());
        }
        true
    }

    /// A message has come by that lane; says whether it ended a query.
    fn hear(&mut self, lane: u32, answer: &[u8], now: u64) -> bool {
        let met = message::id(answer).map_or(Met::Nobody, |id| self.pending.answered(id, lane));
        let (number, sent) = match met {
            Met::Waiting { number, sent } => (number, sent),
            Met::GivenUp => {
                self.tally.late += 1;
                return false;
            }
            Met::Nobody => {
                self.is_wrong(answer);
                return false;
            }
        };
        match message::judge(answer, number) {
            Verdict::Good => {
                self.tally.good += 1;
                self.tally.took.add(now - sent);
                if now < self.end {
                    self.tally.good_in_time += 1;
                    self.last = now;
                }
            }
            Verdict::ServFail => self.tally.servfail += 1,
            Verdict::Wrong => self.is_wrong(answer),
        }
        true
    }

    fn is_wrong(&mut self, answer: &[u8]) {
        if self.tally.wrong == 0 {
            self.tally.example = answer.to_vec();
        }
        self.tally.wrong += 1;
    }

    /// Gives up what is lost, now and then, and says on which lanes.
    fn give_up(&mut self, now: u64) -> Vec<u32> {
        if now < self.looked + nanos(LOOK) {
            return Vec::new();
        }
        self.looked = now;
        let Some(oldest) = now.checked_sub(self.timeout) else {
            return Vec::new();
        };
        let lanes = self.pending.give_up(oldest, self.timeout);
        self.tally.lost += u64::try_from(lanes.len()).unwrap_or_default();
        lanes
    }

    fn say(&self) {
        let Tally {
            asked,
            good,
            good_in_time,
            servfail,
            wrong,
            lost,
            late,
            closed,
            took,
            example,
        } = &self.tally;
        // Without an end there is none before the last answer.
        let nanos = if self.end == u64::MAX || self.tally.asked == self.queries {
            self.last
        } else {
            self.end
        };
        let seconds = Duration::from_nanos(nanos.max(1)).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rate, micros) = (*good_in_time as f64 / seconds, |nanos: u64| {
            nanos as f64 / 1000.0
        });
        let [p50, p90, p99] = [500, 900, 990].map(|quantile| micros(took.quantile(quantile)));
        let example: String = example.iter().map(|octet| format!("{octet:02x}")).collect();
        println!(
            "{{\"asked\": {asked}, \"good\": {good}, \"servfail\": {servfail}, \"wrong\": {wrong}, \
             \"lost\": {lost}, \"late\": {late}, \"closed\": {closed}, \"seconds\": {seconds:.3}, \
             \"qps\": {rate:.1}, \"p50\": {p50:.1}, \"p90\": {p90:.1}, \"p99\": {p99:.1}, \
             \"max\": {:.1}, \"first_wrong\": \"{example}\"}}",
            micros(took.most())
        );
    }
}

/// The lanes by which something can be read; after a while none.
fn readable(lanes: &[BorrowedFd<'_>]) -> Result<Vec<usize>, Errno> {
    let mut polled: Vec<_> = lanes
        .iter()
        .map(|lane| PollFd::new(*lane, PollFlags::POLLIN))
        .collect();
    let wait = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    match poll(&mut polled, wait) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    let ready = polled.iter().enumerate();
    Ok(ready
        .filter(|(_, lane)| lane.any() == Some(true))
        .map(|(at, _)| at)
        .collect())
}

/// The share of each lane when so many are shared out.
fn share(outstanding: usize, over: usize, lane: usize) -> usize {
    outstanding / over + usize::from(lane < outstanding % over)
}

/// UDP, a socket for each lane, or one from which datagrams leave with many source addresses.
struct Datagrams {
    socket: UdpSocket,
    lane: u32,
    target: SocketAddrV4,
    sources: Option<u32>,
    source: u32,
    /// Queries on their way to the kernel, one after the other.
    out: Vec<u8>,
    headers: MultiHeaders<()>,
}

impl Datagrams {
    fn open(settings: &Settings, lane: usize) -> Result<Self, Box<dyn Error>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let share = share(settings.outstanding, settings.over, lane);
        // As much as all its answers at once may take; the kernel doubles what is asked for.
        let buffer = share * ROOM;
        if SockRef::from(&socket).recv_buffer_size()? < buffer
            && setsockopt(&socket, sockopt::RcvBufForce, &buffer).is_err()
        {
            SockRef::from(&socket).set_recv_buffer_size(buffer)?;
        }
        if SockRef::from(&socket).recv_buffer_size()? < buffer {
            return Err(
                "the system's limit for receive buffers is too low: net.core.rmem_max".into(),
            );
        }
        if settings.sources.is_none() {
            socket.connect(settings.target)?;
        }
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self {
            socket,
            lane: u32::try_from(lane)?,
            target: settings.target,
            sources: settings.sources,
            source: 0,
            out: Vec::new(),
            headers: MultiHeaders::preallocate(BATCH, None),
        })
    }

    /// Asks so many.
    fn ask(&mut self, run: &mut Run, count: usize) -> Result<(), Errno> {
        let mut left = count;
        while left > 0 {
            self.out.clear();
            let now = run.now();
            let mut asked = 0;
            while asked < left.min(BATCH) && run.ask(self.lane, now, false, &mut self.out) {
                asked += 1;
            }
            if asked == 0 {
                break;
            }
            left -= asked;
            let octets = self.out.len() / asked;
            if let Some(sources) = self.sources {
                for query in self.out.chunks_exact(octets) {
                    self.source = (self.source + 1) % sources;
                    send_from(&self.socket, self.source, self.target, query)?;
                }
            } else {
                send_all(&self.socket, &mut self.headers, &self.out, octets)?;
            }
        }
        Ok(())
    }

    /// Takes what has come, waiting for the first where `wait` is; asks again for each that was answered.
    fn hear(&mut self, run: &mut Run, room: &mut [Vec<u8>], wait: bool) -> Result<(), Errno> {
        let flags = if wait {
            MsgFlags::MSG_WAITFORONE
        } else {
            MsgFlags::MSG_DONTWAIT
        };
        loop {
            let mut slices: Vec<_> = room
                .iter_mut()
                .map(|room| [IoSliceMut::new(room)])
                .collect();
            let fd = self.socket.as_raw_fd();
            let received = recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None);
            let lengths: Vec<_> = match received {
                Ok(received) => received.map(|datagram| datagram.bytes).collect(),
                // Nobody listens: what was asked is lost.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return Ok(()),
                Err(error) => return Err(error),
            };
            let now = run.now();
            let mut ended = 0;
            for (octets, length) in room.iter().zip(&lengths) {
                ended += usize::from(run.hear(self.lane, &octets[..*length], now));
            }
            self.ask(run, ended)?;
            if wait || lengths.len() < BATCH {
                return Ok(());
            }
        }
    }
}

fn send_all(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<()>,
    queries: &[u8],
    octets: usize,
) -> Result<(), Errno> {
    let slices: Vec<_> = queries
        .chunks_exact(octets)
        .map(|query| [IoSlice::new(query)])
        .collect();
    let nowhere_else = vec![None; slices.len()];
    let mut sent = 0;
    while sent < slices.len() {
        let fd = socket.as_raw_fd();
        let (queries, targets) = (&slices[sent..], &nowhere_else[sent..]);
        match sendmmsg(fd, headers, queries, targets, [], MsgFlags::empty()) {
            Ok(results) => sent += results.count(),
            // Word of a datagram before this one.
            Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The source of that number: an address of 127.0.0.0/8 that is not the usual one, and ends as hosts' addresses do.
fn source_address(number: u32) -> Ipv4Addr {
    let (net, host) = (number / 254, number % 254 + 1);
    Ipv4Addr::from(0x7F01_0000 + (net << 8) + host)
}

fn send_from(
    socket: &UdpSocket,
    source: u32,
    target: SocketAddrV4,
    query: &[u8],
) -> Result<(), Errno> {
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(source_address(source).octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let from = [ControlMessage::Ipv4PacketInfo(&info)];
    let to = SockaddrIn::from(target);
    let query = [IoSlice::new(query)];
    loop {
        match sendmsg(
            socket.as_raw_fd(),
            &query,
            &from,
            MsgFlags::empty(),
            Some(&to),
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error),
        }
    }
}

fn ask_by_udp(settings: &Settings, run: &mut Run) -> Result<(), Box<dyn Error>> {
    let over = settings.over;
    let mut lanes = (0..over)
        .map(|lane| Datagrams::open(settings, lane))
        .collect::<Result<Vec<_>, _>>()?;
    let mut room = vec![vec![0; 4096]; BATCH];
    run.began = Instant::now();
    for (at, lane) in lanes.iter_mut().enumerate() {
        lane.ask(run, share(settings.outstanding, over, at))?;
    }
    while !run.is_over(run.now()) {
        if let [lane] = &mut lanes[..] {
            lane.hear(run, &mut room, true)?;
        } else {
            let sockets: Vec<_> = lanes.iter().map(|lane| lane.socket.as_fd()).collect();
            for at in readable(&sockets)? {
                lanes[at].hear(run, &mut room, false)?;
            }
        }
        for lane in run.give_up(run.now()) {
            lanes[usize::try_from(lane)?].ask(run, 1)?;
        }
    }
    Ok(())
}

/// A TCP connection.
struct Stream {
    socket: TcpStream,
    lane: u32,
    incoming: Vec<u8>,
}

impl Stream {
    fn open(
        settings: &Settings,
        lane: u32,
        source: Option<Ipv4Addr>,
    ) -> Result<Self, Box<dyn Error>> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(source) = source {
            // The port is chosen when it connects: so as many are free as there are addresses to go to.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        }
        socket.connect_timeout(&SocketAddr::V4(settings.target).into(), settings.timeout)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self {
            socket: socket.into(),
            lane,
            incoming: Vec::new(),
        })
    }

    /// Asks so many in one write.
    fn ask(&mut self, run: &mut Run, count: usize) -> std::io::Result<()> {
        let mut out = Vec::new();
        let now = run.now();
        for _ in 0..count {
            if !run.ask(self.lane, now, true, &mut out) {
                break;
            }
        }
        if out.is_empty() {
            return Ok(());
        }
        self.socket.write_all(&out)
    }

    /// Takes what has come, and says how many queries it ended; nothing where the connection has come to its end.
    fn hear(&mut self, run: &mut Run, room: &mut [u8]) -> Option<usize> {
        let count = match self.socket.read(room) {
            Ok(0) => return None,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Some(0),
            Err(_) => return None,
        };
        let now = run.now();
        self.incoming.extend_from_slice(&room[..count]);
        let mut rest = &self.incoming[..];
        let mut ended = 0;
        while let Some((answer, others)) = message::split_first(rest) {
            ended += usize::from(run.hear(self.lane, answer, now));
            rest = others;
        }
        let done = self.incoming.len() - rest.len();
        self.incoming.drain(..done);
        Some(ended)
    }
}

fn ask_by_tcp(settings: &Settings, run: &mut Run) -> Result<(), Box<dyn Error>> {
    let over = settings.over;
    let mut lanes = (0..over)
        .map(|lane| Stream::open(settings, u32::try_from(lane)?, None))
        .collect::<Result<Vec<_>, _>>()?;
    let mut room = vec![0; MESSAGE];
    run.began = Instant::now();
    for (at, lane) in lanes.iter_mut().enumerate() {
        lane.ask(run, share(settings.outstanding, over, at))?;
    }
    while !run.is_over(run.now()) {
        let sockets: Vec<_> = lanes.iter().map(|lane| lane.socket.as_fd()).collect();
        for at in readable(&sockets)? {
            let lane = &mut lanes[at];
            let went_on = match lane.hear(run, &mut room) {
                Some(ended) => lane.ask(run, ended).is_ok(),
                None => false,
            };
            if !went_on {
                // What was on its way there is lost; as much is asked by another connection.
                run.tally.closed += 1;
                let lost = run.pending.give_up_lane(lane.lane);
                run.tally.lost += u64::try_from(lost)?;
                *lane = Stream::open(settings, lane.lane, None)?;
                lane.ask(run, share(settings.outstanding, over, at))?;
            }
        }
        for lane in run.give_up(run.now()) {
            lanes[usize::try_from(lane)?].ask(run, 1)?;
        }
    }
    Ok(())
}

/// A connection for each query: it is opened, asked, heard, and closed.
fn ask_by_connections(settings: &Settings, run: &mut Run) -> Result<(), Box<dyn Error>> {
    // Who closes first cannot use the same two addresses and ports for a minute: there are enough with so many addresses.
    let sources = settings.sources.unwrap_or(100);
    let mut source = 0;
    let mut open = |run: &mut Run, lane: u32| -> Result<Option<Stream>, Box<dyn Error>> {
        if !run.asks(run.now()) {
            return Ok(None);
        }
        source = (source + 1) % sources;
        let began = run.now();
        let mut stream = Stream::open(settings, lane, Some(source_address(source)))?;
        let mut out = Vec::new();
        // It counts from before it connects.
        if run.ask(lane, began, true, &mut out) {
            // Where it cannot be written it cannot be read either, and is lost there.
            let _ = stream.socket.write_all(&out);
        }
        Ok(Some(stream))
    };
    let mut room = vec![0; MESSAGE];
    run.began = Instant::now();
    let mut lanes = (0..settings.outstanding)
        .map(|lane| open(run, u32::try_from(lane)?))
        .collect::<Result<Vec<_>, _>>()?;
    while !run.is_over(run.now()) {
        let (places, sockets): (Vec<_>, Vec<_>) = lanes
            .iter()
            .enumerate()
            .filter_map(|(at, lane)| Some((at, lane.as_ref()?.socket.as_fd())))
            .unzip();
        for at in readable(&sockets)?.into_iter().map(|ready| places[ready]) {
            let Some(lane) = &mut lanes[at] else {
                continue;
            };
            match lane.hear(run, &mut room) {
                Some(0) => continue,
                Some(_) => {}
                None => {
                    run.tally.closed += 1;
                    run.tally.lost += u64::try_from(run.pending.give_up_lane(lane.lane))?;
                }
            }
            // Closed before another is opened.
            lanes[at] = None;
            lanes[at] = open(run, u32::try_from(at)?)?;
        }
        for lane in run.give_up(run.now()) {
            let at = usize::try_from(lane)?;
            lanes[at] = None;
            lanes[at] = open(run, lane)?;
        }
    }
    Ok(())
}

fn run(settings: Settings) -> Result<(), Box<dyn Error>> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut run = Run {
        pending: Pending::new(settings.outstanding),
        tally: Tally::default(),
        began: Instant::now(),
        end: settings.duration.map_or(u64::MAX, nanos),
        queries: settings.queries,
        timeout: nanos(settings.timeout),
        edns: settings.edns,
        looked: 0,
        last: 0,
        names: Names::InTurn(0),
    };
    let mut settings = settings;
    std::mem::swap(&mut run.names, &mut settings.names);
    match settings.mode {
        Mode::Udp => ask_by_udp(&settings, &mut run)?,
        Mode::Tcp => ask_by_tcp(&settings, &mut run)?,
        Mode::Connections => ask_by_connections(&settings, &mut run)?,
    }
    run.say();
    Ok(())
}

fn main() -> ExitCode {
    match settings() {
        Ok(None) => print!("{HELP}"),
        Ok(Some(settings)) => {
            if let Err(error) = run(settings) {
                eprintln!("load: {error}");
                return ExitCode::FAILURE;
            }
        }
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
