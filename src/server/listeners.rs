//! How is listening started and stopped?
//!
//! A thread for each socket: those of TCP accept clients, those of UDP receive datagrams.

use std::io::{self, PipeWriter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use socket2::SockRef;

use crate::client::connection_limit::ConnectionLimit;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::forward::forwarder::Forwarder;
use crate::server::settings::Settings;
use crate::server::sockets::{Sockets, prepare_tcp};
use crate::server::tcp::Acceptor;
use crate::server::udp::Receiver;
use crate::server::workers::Pool;
use crate::system::clock;
use crate::system::thread;

/// How long those who receive on sockets that were passed may take to hear that it is over.
const LAST_WORD: Duration = Duration::from_secs(1);

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
            let acceptor = Acceptor {
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
            threads.push(thread::spawn_restarting("accept", move || {
                acceptor.accept()
            })?);
        }
        for udp in &sockets.udp {
            let receiver = Receiver {
                socket: Arc::clone(udp),
                own: udp.local_addr()?,
                forwarder: Arc::clone(forwarder),
                evictions: Arc::clone(evictions),
                passed: sockets.passed,
                stopping: Arc::clone(&stopping),
            };
            threads.push(thread::spawn_restarting("receive", move || {
                receiver.receive()
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
