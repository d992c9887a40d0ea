//! How do we speak with the service manager?
//!
//! As sd_notify(3) says: lines in a datagram to the socket that NOTIFY_SOCKET names. The manager learns when the ports are
//! served, and gets a keep-alive for its watchdog as long as no serving thread is stalled. The
//! crate sd-notify knows no abstract sockets (`@NAME`), and its writes have no timeout.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use crate::system::clock;

/// How long to wait for a busy manager: each message is sent once.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends messages to the service manager, if there is one.
#[derive(Debug)]
pub struct ServiceNotifier {
    socket: Option<UnixDatagram>,
    /// The manager's watchdog timeout (WATCHDOG_USEC), if it has one for this process.
    watchdog_timeout: Option<Duration>,
}

impl ServiceNotifier {
    /// Connects to the socket that the environment names. Fails if there is a name but no such socket.
    pub fn from_environment() -> io::Result<Self> {
        let name = env::var("NOTIFY_SOCKET").unwrap_or_default();
        let socket = match name.strip_prefix('@') {
            _ if name.is_empty() => None,
            Some(name) => Some(connect(&SocketAddr::from_abstract_name(name)?)?),
            None => Some(connect(&SocketAddr::from_pathname(&name)?)?),
        };
        let number = |name| {
            env::var(name)
                .ok()
                .and_then(|text| text.parse::<u64>().ok())
        };
        let for_this_process =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog_timeout =
            number("WATCHDOG_USEC").filter(|micros| *micros > 0 && for_this_process);
        Ok(Self {
            watchdog_timeout: watchdog_timeout
                .filter(|_| socket.is_some())
                .map(Duration::from_micros),
            socket,
        })
    }

    /// How often to call [`ServiceNotifier::notify_watchdog`]: twice per watchdog timeout. `None` without a watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog_timeout.map(|time| time / 2)
    }

    /// READY=1: the ports are served. `status` is a line for people.
    pub fn notify_ready(&self, status: &str) {
        self.send(&["READY=1\nSTATUS=", status, "\n"]);
    }

    /// RELOADING=1: the configuration is being read again, until [`ServiceNotifier::notify_ready`].
    pub fn notify_reloading(&self) {
        let now = clock::monotonic().as_micros().to_string();
        self.send(&["RELOADING=1\nMONOTONIC_USEC=", &now, "\n"]);
    }

    /// STOPPING=1: no more queries are read.
    pub fn notify_stopping(&self) {
        self.send(&["STOPPING=1\nSTATUS=answers what is on its way\n"]);
    }

    /// WATCHDOG=1: all serving threads make progress.
    pub fn notify_watchdog(&self, status: &str) {
        self.send(&["WATCHDOG=1\nSTATUS=", status, "\n"]);
    }

    /// Reports `status` without a keep-alive: a stalled thread lets the watchdog expire.
    pub fn notify_status(&self, status: &str) {
        self.send(&["STATUS=", status, "\n"]);
    }

    fn send(&self, parts: &[&str]) {
        if let Some(socket) = &self.socket {
            // Errors are ignored: a manager that does not listen cannot be told.
            let _ = socket.send(parts.concat().as_bytes());
        }
    }
}

fn connect(address: &SocketAddr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(address)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}
