//! How is listening started and stopped?
//!
//! Each socket has a thread, which accepts TCP connections or receives UDP datagrams.

use std::io::{self, PipeWriter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use socket2::SockRef;

use crate::client::connection_limit::ConnectionLimit;
use crate::client::datagrams::DatagramSocket;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::slow_readers::SlowReaders;
use crate::forward::forwarder::Forwarder;
use crate::server::settings::Settings;
use crate::server::sockets::{Sockets, prepare_tcp};
use crate::server::tcp::Acceptor;
use crate::server::udp::UdpReceiver;
use crate::server::workers::WorkerPool;
use crate::system::clock;
use crate::system::thread;

/// How long the receivers of socket-activated sockets may take to notice a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The listening threads.
pub struct Server {
    udp: Vec<Arc<DatagramSocket>>,
    /// See [`Sockets`].
    socket_activated: bool,
    reuse_port: bool,
    threads: Vec<JoinHandle<()>>,
    /// Dropped to stop the accepting threads.
    shutdown: PipeWriter,
    connection_limit: Arc<ConnectionLimit>,
    /// Tells the receiving threads to stop.
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Starts a thread for each socket. At most `max_clients` TCP clients may be connected at a time.
    ///
    /// # Errors
    ///
    /// Fails if the system has no thread or no pipe.
    pub fn start(
        sockets: Sockets,
        settings: &Settings,
        max_clients: usize,
        forwarder: &Arc<Forwarder>,
        pool: &Arc<WorkerPool>,
        slow_readers: &Arc<SlowReaders>,
        evictions: &Arc<EvictionCounters>,
    ) -> io::Result<Self> {
        let connection_limit = ConnectionLimit::new(max_clients, Arc::clone(evictions));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let (stop_signal, shutdown) = io::pipe()?;
        for listener in sockets.tcp {
            prepare_tcp(&SockRef::from(&listener));
            let acceptor = Acceptor {
                listener,
                shutdown: stop_signal.try_clone()?,
                connection_limit: Arc::clone(&connection_limit),
                max_per_address: settings.max_clients_per_address,
                limit_loopback: settings.limit_loopback,
                forwarder: Arc::clone(forwarder),
                pool: Arc::clone(pool),
                slow_readers: Arc::clone(slow_readers),
                stopping: Arc::clone(&stopping),
            };
            threads.push(thread::spawn_restarting("accept", move || acceptor.run())?);
        }
        let with_counts = |udp| {
            let unsent_replies = Arc::clone(slow_readers.unsent_replies());
            Arc::new(DatagramSocket::new(udp, unsent_replies))
        };
        let udp: Vec<_> = sockets.udp.into_iter().map(with_counts).collect();
        for socket in &udp {
            let receiver = UdpReceiver {
                socket: Arc::clone(socket),
                local_address: socket.socket().local_addr()?,
                forwarder: Arc::clone(forwarder),
                evictions: Arc::clone(evictions),
                socket_activated: sockets.socket_activated,
                stopping: Arc::clone(&stopping),
            };
            threads.push(thread::spawn_restarting("receive", move || receiver.run())?);
        }
        Ok(Self {
            udp,
            socket_activated: sockets.socket_activated,
            reuse_port: sockets.reuse_port,
            threads,
            shutdown,
            connection_limit,
            stopping,
        })
    }

    /// The limit of TCP connections.
    pub fn connection_limit(&self) -> &Arc<ConnectionLimit> {
        &self.connection_limit
    }

    /// Stops accepting and receiving. Connected clients stay connected.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.connection_limit.close();
        drop(self.shutdown);
        if self.socket_activated {
            wake_receivers(&self.threads, &self.udp);
        } else {
            for udp in self.udp.iter().map(|udp| udp.socket()) {
                // The socket stays open for the answers of queries in flight. With SO_REUSEPORT it would still receive queries. Once it is
                // connected, here to itself, the kernel gives the queries of clients to the other sockets on the port.
                if self.reuse_port {
                    let _ = udp.local_addr().and_then(|local| udp.connect(local));
                }
                // On Linux this wakes the receiving thread, even if it fails with ENOTCONN because the socket is not connected.
                let _ = SockRef::from(udp).shutdown(Shutdown::Read);
            }
        }
        for thread in self.threads {
            // The thread catches panics, so there is no error to handle.
            if !self.socket_activated || thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// Wakes the threads that receive on socket-activated sockets, by sending an empty datagram to each socket. A shutdown of the socket
/// would also end it for the service manager, which holds it too. Gives up after [`STOP_TIMEOUT`].
fn wake_receivers(threads: &[JoinHandle<()>], sockets: &[Arc<DatagramSocket>]) {
    let deadline = clock::now() + STOP_TIMEOUT;
    while threads.iter().any(|thread| !thread.is_finished()) && clock::now() < deadline {
        for socket in sockets {
            let Ok(address) = socket.socket().local_addr() else {
                continue;
            };
            let (wildcard, loopback): (IpAddr, IpAddr) = match address.ip() {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
            };
            let destination = if address.ip() == wildcard {
                loopback
            } else {
                address.ip()
            };
            let _ = UdpSocket::bind((wildcard, 0))
                .and_then(|socket| socket.send_to(&[], (destination, address.port())));
        }
        sleep(Duration::from_millis(5));
    }
}
