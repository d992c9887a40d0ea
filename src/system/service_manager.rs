//! How do we speak with the service manager?
//!
//! In the words of sd_notify(3): lines in a datagram to the socket that NOTIFY_SOCKET names. Ready is said when the ports are
//! served, and the watchdog is fed as long as the threads that serve get on with it.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

use crate::system::clock;

/// How long a manager that is busy is waited for: what it is told is told once.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// The service manager; nobody, where there is none.
#[derive(Debug)]
pub struct ServiceNotifier {
    socket: Option<UnixDatagram>,
    /// How often the watchdog wants to be fed, if there is one.
    watchdog_timeout: Option<Duration>,
}

impl ServiceNotifier {
    /// Whom the environment names. Fails where it names a socket that cannot be had.
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

    /// How often the watchdog wants to be fed: twice in the time after which it bites.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog_timeout.map(|time| time / 2)
    }

    /// All is served now; with `status` as a line for people.
    pub fn notify_ready(&self, status: &str) {
        self.send(&["READY=1\nSTATUS=", status, "\n"]);
    }

    /// The configuration is read again, until [`ServiceNotifier::notify_ready`].
    pub fn notify_reloading(&self) {
        let now = clock::monotonic().as_micros().to_string();
        self.send(&["RELOADING=1\nMONOTONIC_USEC=", &now, "\n"]);
    }

    /// It ends.
    pub fn notify_stopping(&self) {
        self.send(&["STOPPING=1\nSTATUS=answers what is on its way\n"]);
    }

    /// All gets on.
    pub fn notify_watchdog(&self, status: &str) {
        self.send(&["WATCHDOG=1\nSTATUS=", status, "\n"]);
    }

    /// Not all gets on: the watchdog goes hungry.
    pub fn notify_status(&self, status: &str) {
        self.send(&["STATUS=", status, "\n"]);
    }

    fn send(&self, parts: &[&str]) {
        if let Some(socket) = &self.socket {
            // One that does not listen at all is not told.
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
