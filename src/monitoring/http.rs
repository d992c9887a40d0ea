//! How is the state read from outside?
//!
//! Over HTTP, on a port of its own and a thread of its own: `/metrics` for programs that collect numbers, `/health` and
//! `/ready` for supervisors, `/` for people. The thread waits for all visitors at once, answers one after the other, and
//! rests in between, so that whoever plays with this port costs less than a tenth of a processor and no query.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

use crate::monitoring::export::Sources;
use crate::monitoring::exposition::{Format, spell};
use crate::monitoring::history::History;
use crate::monitoring::page::Page;
use crate::system::clock;
use crate::system::thread;

/// Visitors at a time. Another one takes the place of the one that has been here for the longest time.
const VISITORS: usize = 64;
/// Octets of a request, at most.
const REQUEST: usize = 4096;
/// Headers of a request, at most.
const HEADERS: usize = 32;
/// How long a visitor may take, from the connection to its end.
const VISIT: Duration = Duration::from_secs(5);
/// Octets that are read and not looked at before a connection ends: a reset would take the answer back.
const LEFTOVERS: usize = 64 * 1024;
/// How long the thread rests after an answer.
const RESPITE: Duration = Duration::from_millis(2);
/// How long it rests after it looked at all visitors: octets that come one by one are read together.
const REST: Duration = Duration::from_millis(5);
/// Visitors that are taken in between two rests: more than come if somebody does nothing but connect. Those for whom the
/// kernel's queue had no room would come a second later.
const NEWCOMERS: usize = 64;
/// How long it rests when it cannot accept.
const PAUSE: Duration = Duration::from_millis(100);

/// The port.
#[derive(Debug)]
pub struct Monitor {
    address: SocketAddr,
    bell: Mutex<Option<PipeWriter>>,
    stopping: Arc<AtomicBool>,
}

/// Binds the port.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Monitor {
    /// Serves on `listener`, which is of [`bind`], what there is to know from `sources`. Fails when the system has no thread
    /// or descriptor for it.
    pub fn start(listener: TcpListener, sources: Sources) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (end, bell) = io::pipe()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let desk = Desk {
            listener,
            end,
            sources,
            page: Page::default(),
            stopping: Arc::clone(&stopping),
        };
        let mut history = History::new(clock::now());
        thread::spawn_restarting("monitor", move || desk.serve(&mut history))?;
        Ok(Self {
            address,
            bell: Mutex::new(Some(bell)),
            stopping,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says from now on that nobody should send queries here.
    pub fn be_unready(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Serves no more.
    pub fn stop(&self) {
        *self.bell.lock() = None;
    }
}

/// Somebody who is connected.
struct Visitor {
    socket: TcpStream,
    since: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    /// Octets that were read after the request.
    leftovers: usize,
}

/// What became of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// It goes on.
    Open,
    /// It is over.
    Over,
}

struct Desk {
    listener: TcpListener,
    end: PipeReader,
    sources: Sources,
    page: Page,
    stopping: Arc<AtomicBool>,
}

impl Desk {
    fn serve(&self, history: &mut History) {
        let mut visitors: Vec<Visitor> = Vec::new();
        loop {
            let now = clock::now();
            history.take(now, &self.sources);
            visitors.retain(|visitor| {
                let late = now >= visitor.since + VISIT;
                if late {
                    self.let_go(visitor);
                }
                !late
            });
            let due = visitors.iter().map(|visitor| visitor.since + VISIT);
            let next = due.chain([history.next()]).min().unwrap_or(now);
            let wait = next.saturating_duration_since(now).as_millis() + 1;
            let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
            let mut ready = vec![
                PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            ];
            ready.extend(visitors.iter().map(|visitor| {
                let writes = visitor.sent < visitor.answer.len();
                let flags = match writes {
                    true => PollFlags::POLLOUT,
                    false => PollFlags::POLLIN,
                };
                PollFd::new(visitor.socket.as_fd(), flags)
            }));
            if poll(&mut ready, timeout).is_err() {
                continue;
            }
            let mut ready: Vec<_> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready[0] {
                return;
            }
            let arrived = ready[1];
            let mut ready = ready.drain(2..);
            visitors.retain_mut(|visitor| {
                !ready.next().unwrap_or(false) || self.attend(visitor, history) == Visit::Open
            });
            if arrived {
                // The wait may have been longer than a visit may be.
                self.welcome(&mut visitors, history, clock::now());
            }
            sleep(REST);
        }
    }

    /// Counts a visitor that goes before its time, if it goes without an answer.
    fn let_go(&self, visitor: &Visitor) {
        if visitor.answer.is_empty() {
            self.sources.refused.increment();
        }
    }

    /// Takes in who has come.
    fn welcome(&self, visitors: &mut Vec<Visitor>, history: &History, now: Instant) {
        for _ in 0..NEWCOMERS {
            let mut visitor = match self.listener.accept() {
                Ok((socket, _)) if socket.set_nonblocking(true).is_ok() => Visitor {
                    socket,
                    since: now,
                    request: Vec::new(),
                    answer: Vec::new(),
                    sent: 0,
                    leftovers: 0,
                },
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return sleep(PAUSE),
            };
            // Many a request came along, and many a visitor has left already.
            if self.attend(&mut visitor, history) == Visit::Open {
                if visitors.len() >= VISITORS {
                    // The first is the one that came first.
                    self.let_go(&visitors.remove(0));
                }
                visitors.push(visitor);
            }
        }
    }

    /// Reads of a visitor's request what is there, or writes of its answer what is taken.
    fn attend(&self, visitor: &mut Visitor, history: &History) -> Visit {
        if visitor.answer.is_empty() {
            let mut octets = [0; REQUEST];
            match visitor.socket.read(&mut octets) {
                Ok(0) => return Visit::Over,
                Ok(length) => visitor.request.extend_from_slice(&octets[..length]),
                Err(error) => return after(&error),
            }
            let Some(answer) = self.answer(&visitor.request, history) else {
                return Visit::Open;
            };
            visitor.answer = answer;
            self.sources.requests.increment();
            sleep(RESPITE);
        }
        while visitor.sent < visitor.answer.len() {
            match visitor.socket.write(&visitor.answer[visitor.sent..]) {
                Ok(sent) => visitor.sent += sent,
                Err(error) => return after(&error),
            }
            if visitor.sent == visitor.answer.len() {
                let _ = visitor.socket.shutdown(Shutdown::Write);
                return Visit::Open;
            }
        }
        let mut octets = [0; REQUEST];
        match visitor.socket.read(&mut octets) {
            Ok(0) => Visit::Over,
            Ok(length) => {
                visitor.leftovers += length;
                match visitor.leftovers > LEFTOVERS {
                    true => Visit::Over,
                    false => Visit::Open,
                }
            }
            Err(error) => after(&error),
        }
    }

    /// The answer to a request; none if there is more of it to come.
    fn answer(&self, octets: &[u8], history: &History) -> Option<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(octets);
        let method = request.method.unwrap_or_default();
        match parsed {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if octets.len() < REQUEST => return None,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                return Some(refuse(method, "431 Request Header Fields Too Large"));
            }
            Err(_) => return Some(refuse(method, "400 Bad Request")),
        }
        if !["GET", "HEAD"].contains(&method) {
            return Some(refuse(method, "405 Method Not Allowed"));
        }
        let path = path_of(request.path.unwrap_or_default());
        let format = format_of(request.headers);
        let Some((status, media_type, body)) = self.content(path, format, history) else {
            return Some(refuse(method, "404 Not Found"));
        };
        let policy = self.page.policy();
        Some(spell_answer(method, status, media_type, &body, policy))
    }

    /// What is to be had at a path: the status, the media type and the body; none if there is nothing.
    fn content(
        &self,
        path: &str,
        format: Format,
        history: &History,
    ) -> Option<(&'static str, &'static str, String)> {
        let plain = "text/plain; charset=utf-8";
        Some(match path {
            "/metrics" => {
                let body = spell(&self.sources.families(), format);
                ("200 OK", format.media_type(), body)
            }
            "/health" => match thread::stalled_thread(clock::now()) {
                None => ("200 OK", plain, "healthy\n".to_owned()),
                Some(name) => (
                    "503 Service Unavailable",
                    plain,
                    ["stuck: ", name, "\n"].concat(),
                ),
            },
            "/ready" => match self.unreadiness() {
                None => ("200 OK", plain, "ready\n".to_owned()),
                Some(cause) => ("503 Service Unavailable", plain, [cause, "\n"].concat()),
            },
            "/" => {
                let trouble = self.unreadiness();
                let body = self.page.write(&self.sources, history, trouble);
                ("200 OK", "text/html; charset=utf-8", body)
            }
            _ => return None,
        })
    }

    /// Why nobody should send queries here, if nobody should.
    fn unreadiness(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Acquire) {
            Some("stopping")
        } else if self.sources.is_ready() {
            None
        } else {
            Some("no resolver serves, and nothing is kept that could")
        }
    }
}

/// What becomes of a visitor whose socket did not do what was asked of it.
fn after(error: &io::Error) -> Visit {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Visit::Open,
        _ => Visit::Over,
    }
}

/// The path of a request's target, which is that alone or a whole URL (RFC 9112 section 3.2.2).
fn path_of(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    match target.split_once("://") {
        // Whatever host it names, it came here.
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            rest.find('/').map_or("/", |start| &rest[start..])
        }
        _ => target,
    }
}

/// The format of numbers that a request asks for (RFC 9110 section 12.5.1).
fn format_of(headers: &[httparse::Header<'_>]) -> Format {
    let accept = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let open_metrics = accept
        .filter_map(|header| str::from_utf8(header.value).ok())
        .any(|value| value.contains("application/openmetrics-text"));
    match open_metrics {
        true => Format::OpenMetrics,
        false => Format::Prometheus,
    }
}

fn refuse(method: &str, status: &str) -> Vec<u8> {
    let body = [status, "\n"].concat();
    let plain = "text/plain; charset=utf-8";
    spell_answer(method, status, plain, &body, "default-src 'none'")
}

fn spell_answer(method: &str, status: &str, media_type: &str, body: &str, policy: &str) -> Vec<u8> {
    let length = body.len().to_string();
    // One answer to a connection, and nothing of it is kept or taken for something else.
    let parts = [
        "HTTP/1.1 ",
        status,
        "\r\nContent-Type: ",
        media_type,
        "\r\nContent-Length: ",
        &length,
        "\r\nContent-Security-Policy: ",
        policy,
        "\r\nAllow: GET, HEAD\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        // Whatever the answer to it is, it is the head alone (RFC 9110 section 9.3.2).
        if method == "HEAD" { "" } else { body },
    ];
    parts.concat().into_bytes()
}
