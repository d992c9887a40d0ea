//! Where do lines about single queries go?
//!
//! To stderr, through a queue and a thread of its own, which also formats them: the thread that answers a query only queues a
//! record. Records that find no room are dropped and counted. A line is a list of fields (logfmt). It has the query name, which
//! the log at its default level never has, so the query log is off by default; and the client's network, or its address if that
//! is configured.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use log::Level;
use parking_lot::Mutex;

use crate::message::QuestionPresentation;
use crate::message::presentation::Type;
use crate::system::memory::{Memory, Purpose, Reservation};
use crate::system::thread;
use crate::telemetry::journal::{self, LineStart};
use crate::telemetry::metrics::format_seconds;
use crate::telemetry::queue::BoundedQueue;

/// Records that may wait to be written.
const QUEUE_LEN: usize = 4096;
/// Octets that a record costs besides its question.
const RECORD_OVERHEAD: usize = size_of::<(QueryRecord, Reservation)>();
/// Lines per write to stderr.
const LINES_PER_WRITE: usize = 64;
/// Prefix lengths, IPv4 and IPv6, that tell a client's network but not the client.
const PREFIX_LENS: (u8, u8) = (24, 48);

/// What the query log shows of each query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    Off,
    /// Everything, with the client's network in place of its address.
    Prefixes,
    /// Everything.
    Clients,
}

/// A completed query.
#[derive(Debug)]
pub struct QueryRecord {
    /// When it was completed, since 1970.
    pub time: Duration,
    /// The client's address and port.
    pub client: SocketAddr,
    /// Whether the query came by TCP; otherwise by UDP.
    pub tcp: bool,
    /// The question in wire format (name, type, class); empty if the query could not be parsed.
    pub question: Box<[u8]>,
    /// The name of the outcome.
    pub outcome: &'static str,
    /// How long the client waited.
    pub took: Duration,
}

impl QueryRecord {
    /// Appends the record as one line, for the journal or for others.
    fn write(&self, out: &mut String, mode: Mode, in_journal: bool) {
        let start = LineStart {
            level: Level::Info,
            time: self.time,
            in_journal,
        };
        let transport = if self.tcp { "tcp" } else { "udp" };
        let question = QuestionPresentation(&self.question).to_string();
        let (name, qtype) = question.rsplit_once('/').unwrap_or(("", ""));
        let qtype = qtype.parse().map(|qtype| Type(qtype).to_string());
        let qtype = qtype.unwrap_or_default();
        let took = format_seconds(u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX));
        let outcome = self.outcome;
        let client = match mode {
            Mode::Clients => self.client.to_string(),
            _ => client_prefix(self.client.ip()).to_string(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{start}query client={client} transport={transport} name={name} type={qtype} \
             outcome={outcome} seconds={took}"
        );
    }
}

/// The client's network, see [`PREFIX_LENS`].
fn client_prefix(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let bits = match address {
        IpAddr::V4(_) => PREFIX_LENS.0,
        IpAddr::V6(_) => PREFIX_LENS.1,
    };
    let net = IpNet::new(address, bits);
    net.map_or(address.into(), |net| net.trunc())
}

/// The query log: a queue of records and the thread that writes them.
///
/// All threads share it. The lock on `thread_started` is held while the mode changes, and the queue has a lock of its own; no
/// thread takes one while it holds the other.
#[derive(Debug)]
pub struct QueryLog {
    mode: AtomicU8,
    lines: BoundedQueue<(QueryRecord, Reservation)>,
    memory: Arc<Memory>,
    /// Whether the writing thread has been started.
    thread_started: Mutex<bool>,
}

impl QueryLog {
    /// Starts in [`Mode::Off`]. Queued records are reserved in `memory`.
    pub fn new(memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            mode: AtomicU8::new(Mode::Off as u8),
            lines: BoundedQueue::new(QUEUE_LEN),
            memory,
            thread_started: Mutex::new(false),
        })
    }

    /// Changes the mode from now on. Fails when the system has no thread to write with.
    pub fn set_mode(self: &Arc<Self>, mode: Mode) -> io::Result<()> {
        let mut thread_started = self.thread_started.lock();
        if mode != Mode::Off && !*thread_started {
            let log = Arc::clone(self);
            thread::spawn_restarting("query-log", move || log.write(&mut io::stderr()))?;
            *thread_started = true;
        }
        self.mode.store(mode as u8, Ordering::Relaxed);
        Ok(())
    }

    fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            0 => Mode::Off,
            1 => Mode::Prefixes,
            _ => Mode::Clients,
        }
    }

    /// Whether records are wanted.
    pub fn is_on(&self) -> bool {
        self.mode() != Mode::Off
    }

    /// Queues a record, or counts it as dropped if there is no room.
    pub fn push(&self, line: QueryRecord) {
        let cost = RECORD_OVERHEAD + line.question.len();
        match self.memory.reserve(Purpose::QueryLog, cost) {
            Some(held) => self.lines.push((line, held)),
            None => self.lines.count_dropped(),
        }
    }

    /// The number of records that were dropped.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// Waits up to a second until the queued records are written. Later records are dropped.
    pub fn finish(&self) {
        if *self.thread_started.lock() {
            self.lines.finish();
        }
    }

    /// The thread: writes lines to `out`, which may fail or block for ever.
    fn write(&self, out: &mut dyn Write) {
        let in_journal = journal::is_stderr();
        let (mut lines, mut chunk) = (Vec::new(), String::new());
        while self.lines.take(&mut lines, None) {
            for some in lines.chunks(LINES_PER_WRITE) {
                some.iter()
                    .for_each(|(line, _)| line.write(&mut chunk, self.mode(), in_journal));
                // Errors are ignored: the reader may have gone away.
                let _ = out.write_all(chunk.as_bytes());
                chunk.clear();
            }
            lines.clear();
        }
        self.lines.mark_written();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::memory;

    fn line(client: &str, question: &[u8]) -> QueryRecord {
        QueryRecord {
            time: Duration::from_millis(1_764_000_000_007),
            client: client.parse().expect("an address"),
            tcp: true,
            question: question.into(),
            outcome: "answered",
            took: Duration::from_micros(14_200),
        }
    }

    #[test]
    fn a_line_has_the_outcome_and_hides_the_client() {
        for (client, mode, shown) in [
            ("192.0.2.77:5353", Mode::Prefixes, "192.0.2.0/24"),
            ("192.0.2.77:5353", Mode::Clients, "192.0.2.77:5353"),
            ("[2001:db8:1:2::3]:9", Mode::Prefixes, "2001:db8:1::/48"),
            ("[::ffff:192.0.2.7]:9", Mode::Prefixes, "192.0.2.0/24"),
        ] {
            let mut out = String::new();
            line(client, b"\x03a b\x07example\0\0\x1c\0\x01").write(&mut out, mode, false);
            let expected = format!(
                "time=2025-11-24T16:00:00.007Z query client={shown} transport=tcp name=a\\032b.example. type=AAAA \
                 outcome=answered seconds=0.0142\n"
            );
            assert_eq!(out, expected);
        }
        let mut out = String::new();
        line("192.0.2.7:1", b"").write(&mut out, Mode::Prefixes, false);
        assert!(out.contains(" name= type= "), "{out}");
    }

    #[test]
    fn every_record_is_written_or_counted_as_dropped() {
        let memory = Memory::new(memory::Settings {
            limit: 15 << 20,
            connections: 1,
        });
        let share = memory.share_limit(Purpose::QueryLog);
        for (question, fit) in [
            (&b""[..], QUEUE_LEN),
            (&[0; 259], share / (259 + RECORD_OVERHEAD)),
        ] {
            let log = QueryLog::new(Arc::clone(&memory));
            for _ in 0..QUEUE_LEN + 7 {
                log.push(line("192.0.2.7:1", question));
            }
            assert_eq!(log.dropped(), (QUEUE_LEN + 7 - fit) as u64);
            assert!(memory.held(Purpose::QueryLog) >= fit * question.len());
            let mut out = Vec::new();
            std::thread::scope(|scope| {
                scope.spawn(|| log.write(&mut out));
                log.lines.finish();
            });
            let lines = String::from_utf8(out).expect("text").lines().count();
            assert_eq!(lines, fit);
            assert_eq!(memory.held(Purpose::QueryLog), 0, "all are written");
        }
    }
}
