//! How is the state read from outside?
//!
//! Over HTTP, on a port and a thread of its own: `/metrics` for Prometheus, `/health` and `/ready` for supervisors, `/` for
//! people. The thread polls all connections at once, answers one after the other, and pauses in between, so that whoever abuses
//! this port costs less than a tenth of a processor and delays no query.

use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

use crate::monitoring::export::Exporter;
use crate::monitoring::exposition::{Format, encode};
use crate::monitoring::history::History;
use crate::monitoring::page::Page;
use crate::monitoring::snapshot::{Snapshot, summarize};
use crate::monitoring::summary::{State, Summary};
use crate::system::clock;
use crate::system::scoped_address::ScopedAddress;
use crate::system::thread;

/// Maximum number of connections. A further one replaces the oldest.
const MAX_CONNECTIONS: usize = 64;
/// Maximum length of a request in octets.
const MAX_REQUEST_LEN: usize = 4096;
/// Maximum number of headers in a request.
const MAX_HEADERS: usize = 32;
/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Octets that are read and discarded after a response. Closing a socket with unread data resets the connection, and the client
/// may lose the response.
const MAX_DISCARDED: usize = 64 * 1024;
/// How long the thread pauses after a response.
const RESPONSE_PAUSE: Duration = Duration::from_millis(2);
/// How long the thread pauses after each poll, so that octets that arrive one by one are read together.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// Connections accepted per poll: more than arrive within a pause from a client that only connects. A connection for which the
/// kernel's queue has no room is tried again by its client a second later.
const MAX_ACCEPTS: usize = 64;
/// How long the thread pauses when it cannot accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The monitoring port.
///
/// Its thread owns the connections and the history, so these need no lock. `stop_writer` is the only lock here, and is taken on
/// its own.
#[derive(Debug)]
pub struct Monitor {
    address: SocketAddr,
    stop_writer: Mutex<Option<PipeWriter>>,
    stopping: Arc<AtomicBool>,
}

/// Binds the monitoring port.
pub fn bind(address: ScopedAddress) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address.resolve()?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Monitor {
    /// Serves the metrics of `exporter` on `listener`, which comes from [`bind`]. Fails when the system has no thread or file
    /// descriptor.
    pub fn start(listener: TcpListener, exporter: Exporter) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop_reader, stop_writer) = io::pipe()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let server = HttpServer {
            listener,
            stop_reader,
            exporter,
            page: Page::default(),
            stopping: Arc::clone(&stopping),
        };
        let mut history = History::new(clock::now());
        thread::spawn_restarting("monitor", move || server.run(&mut history))?;
        Ok(Self {
            address,
            stop_writer: Mutex::new(Some(stop_writer)),
            stopping,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes `/ready` fail from now on.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *self.stop_writer.lock() = None;
    }
}

/// A client's connection. It carries one request and one response.
struct HttpConnection {
    socket: TcpStream,
    accepted_at: Instant,
    request: Vec<u8>,
    response: Vec<u8>,
    sent: usize,
    /// Octets that were read after the request.
    discarded: usize,
}

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionState {
    /// Keep it.
    Open,
    /// Close it.
    Closed,
}

struct HttpServer {
    listener: TcpListener,
    stop_reader: PipeReader,
    exporter: Exporter,
    page: Page,
    stopping: Arc<AtomicBool>,
}

impl HttpServer {
    fn run(&self, history: &mut History) {
        let mut connections: Vec<HttpConnection> = Vec::new();
        loop {
            let now = clock::now();
            history.sample_if_due(now, &self.exporter);
            connections.retain(|connection| {
                let is_late = now >= connection.accepted_at + CONNECTION_TIMEOUT;
                if is_late {
                    self.count_if_unanswered(connection);
                }
                !is_late
            });
            let due = connections
                .iter()
                .map(|connection| connection.accepted_at + CONNECTION_TIMEOUT);
            let next = due.chain([history.next_sample_at()]).min().unwrap_or(now);
            let wait = next.saturating_duration_since(now).as_millis() + 1;
            let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
            let mut ready = vec![
                PollFd::new(self.stop_reader.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            ];
            ready.extend(connections.iter().map(|connection| {
                let writes = connection.sent < connection.response.len();
                let flags = match writes {
                    true => PollFlags::POLLOUT,
                    false => PollFlags::POLLIN,
                };
                PollFd::new(connection.socket.as_fd(), flags)
            }));
            if poll(&mut ready, timeout).is_err() {
                continue;
            }
            let mut ready: Vec<_> = ready.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if ready[0] {
                return;
            }
            let listener_ready = ready[1];
            let mut ready = ready.drain(2..);
            connections.retain_mut(|connection| {
                !ready.next().unwrap_or(false)
                    || self.advance(connection, history) == ConnectionState::Open
            });
            if listener_ready {
                // The poll may have waited longer than a connection may last.
                self.accept_pending(&mut connections, history, clock::now());
            }
            sleep(POLL_PAUSE);
        }
    }

    /// Counts a connection that is closed early, unless it has its response.
    fn count_if_unanswered(&self, connection: &HttpConnection) {
        if connection.response.is_empty() {
            self.exporter.http_refused.increment();
        }
    }

    /// Accepts connections that are waiting.
    fn accept_pending(
        &self,
        connections: &mut Vec<HttpConnection>,
        history: &History,
        now: Instant,
    ) {
        for _ in 0..MAX_ACCEPTS {
            let mut connection = match self.listener.accept() {
                Ok((socket, _)) if socket.set_nonblocking(true).is_ok() => HttpConnection {
                    socket,
                    accepted_at: now,
                    request: Vec::new(),
                    response: Vec::new(),
                    sent: 0,
                    discarded: 0,
                },
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return sleep(ACCEPT_BACKOFF),
            };
            // Often the request is here already.
            if self.advance(&mut connection, history) == ConnectionState::Open {
                if connections.len() >= MAX_CONNECTIONS {
                    // The first one is the oldest.
                    self.count_if_unanswered(&connections.remove(0));
                }
                connections.push(connection);
            }
        }
    }

    /// Reads what has arrived of a request, or writes what the socket takes of the response.
    fn advance(&self, connection: &mut HttpConnection, history: &History) -> ConnectionState {
        if connection.response.is_empty() {
            let mut bytes = [0; MAX_REQUEST_LEN];
            match connection.socket.read(&mut bytes) {
                Ok(0) => return ConnectionState::Closed,
                Ok(length) => connection.request.extend_from_slice(&bytes[..length]),
                Err(error) => return on_io_error(&error),
            }
            let Some(response) = self.response_to(&connection.request, history) else {
                return ConnectionState::Open;
            };
            connection.response = response;
            self.exporter.http_requests.increment();
            sleep(RESPONSE_PAUSE);
        }
        while connection.sent < connection.response.len() {
            match connection
                .socket
                .write(&connection.response[connection.sent..])
            {
                Ok(sent) => connection.sent += sent,
                Err(error) => return on_io_error(&error),
            }
            if connection.sent == connection.response.len() {
                let _ = connection.socket.shutdown(Shutdown::Write);
                return ConnectionState::Open;
            }
        }
        let mut bytes = [0; MAX_REQUEST_LEN];
        match connection.socket.read(&mut bytes) {
            Ok(0) => ConnectionState::Closed,
            Ok(length) => {
                connection.discarded += length;
                match connection.discarded > MAX_DISCARDED {
                    true => ConnectionState::Closed,
                    false => ConnectionState::Open,
                }
            }
            Err(error) => on_io_error(&error),
        }
    }

    /// The response to a request, or `None` if the request is incomplete.
    fn response_to(&self, bytes: &[u8], history: &History) -> Option<Vec<u8>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(bytes);
        let method = request.method.unwrap_or_default();
        match parsed {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) if bytes.len() < MAX_REQUEST_LEN => return None,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                return Some(error_response(
                    method,
                    "431 Request Header Fields Too Large",
                ));
            }
            Err(_) => return Some(error_response(method, "400 Bad Request")),
        }
        if !["GET", "HEAD"].contains(&method) {
            return Some(error_response(method, "405 Method Not Allowed"));
        }
        let path = path_of(request.path.unwrap_or_default());
        let format = format_of(request.headers);
        let Some((status, media_type, body)) = self.content(path, format, history) else {
            return Some(error_response(method, "404 Not Found"));
        };
        let csp = self.page.csp();
        Some(write_response(method, status, media_type, &body, csp))
    }

    /// The status, media type and body for a path, or `None` if there is no such path.
    fn content(
        &self,
        path: &str,
        format: Format,
        history: &History,
    ) -> Option<(&'static str, &'static str, String)> {
        let text_plain = "text/plain; charset=utf-8";
        Some(match path {
            "/metrics" => {
                let resolvers = history.with_latency(self.exporter.address_status());
                let summary = self.summary(history);
                let families = self.exporter.collect_families(&summary, &resolvers);
                let body = encode(&families, format);
                ("200 OK", format.media_type(), body)
            }
            "/health" => match thread::stalled_thread(clock::now()) {
                None => ("200 OK", text_plain, "healthy\n".to_owned()),
                Some(name) => (
                    "503 Service Unavailable",
                    text_plain,
                    ["stuck: ", name, "\n"].concat(),
                ),
            },
            "/ready" => {
                let summary = self.summary(history);
                let (status, word) = match summary.state.is_ready() {
                    true => ("200 OK", "ready\n"),
                    false => ("503 Service Unavailable", ""),
                };
                let text = match summary.state {
                    State::Answering => String::new(),
                    _ => [&summary.text, "\n"].concat(),
                };
                (status, text_plain, [word, &text].concat())
            }
            "/" => {
                let snapshot = Snapshot::take(&self.exporter, history, self.is_stopping());
                (
                    "200 OK",
                    "text/html; charset=utf-8",
                    self.page.write(&snapshot),
                )
            }
            _ => return None,
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether queries are answered now.
    fn summary(&self, history: &History) -> Summary {
        summarize(&self.exporter, history, self.is_stopping())
    }
}

/// Keeps a connection whose socket only has to wait, and closes it after any other error.
fn on_io_error(error: &io::Error) -> ConnectionState {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => ConnectionState::Open,
        _ => ConnectionState::Closed,
    }
}

/// The path of a request target, which is a path or an absolute URL (RFC 9112 section 3.2.2).
fn path_of(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    match target.split_once("://") {
        // The host does not matter.
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            rest.find('/').map_or("/", |start| &rest[start..])
        }
        _ => target,
    }
}

/// The format of metrics that a request accepts (RFC 9110 section 12.5.1).
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

fn error_response(method: &str, status: &str) -> Vec<u8> {
    let body = [status, "\n"].concat();
    let text_plain = "text/plain; charset=utf-8";
    write_response(method, status, text_plain, &body, "default-src 'none'")
}

fn write_response(method: &str, status: &str, media_type: &str, body: &str, csp: &str) -> Vec<u8> {
    let length = body.len().to_string();
    // One response per connection, never cached or sniffed.
    let parts = [
        "HTTP/1.1 ",
        status,
        "\r\nContent-Type: ",
        media_type,
        "\r\nContent-Length: ",
        &length,
        "\r\nContent-Security-Policy: ",
        csp,
        "\r\nAllow: GET, HEAD\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
         Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n",
        // The response to HEAD has no body (RFC 9110 section 9.3.2).
        if method == "HEAD" { "" } else { body },
    ];
    parts.concat().into_bytes()
}
