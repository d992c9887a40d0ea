//! Which sockets are listened on?
//!
//! Those that are bound here, a pair of TCP and UDP for each address, or those that a service manager has bound and passed.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::server::settings::Settings;
use crate::system::memory;
use crate::telemetry::log::info;

/// The receive buffer of a UDP socket in octets, as far as the system allows, which counts twice as much: room for a burst of
/// some thousand queries.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// How long what was sent to a TCP client may stay unacknowledged, or wait for one that does not read, before the kernel gives it
/// up, also when the connection was closed here (TCP_USER_TIMEOUT, RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that the kernel holds until a place is free, as far as the system allows. Of more, clients try again only
/// after a second.
const BACKLOG: i32 = 1024;

/// Why a socket could not be had.
#[derive(Debug)]
pub struct BindError {
    address: SocketAddr,
    protocol: &'static str,
    cause: io::Error,
}

impl BindError {
    /// What kind of refusal it was.
    pub fn kind(&self) -> ErrorKind {
        match self.cause.raw_os_error() {
            // No IPv6 at all.
            Some(libc::EAFNOSUPPORT) => ErrorKind::AddrNotAvailable,
            _ => self.cause.kind(),
        }
    }
}

impl fmt::Display for BindError {
    /// One line that names the option, the value and what was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            protocol,
            cause,
        } = self;
        let (ip, port) = (address.ip(), address.port());
        match cause.kind() {
            ErrorKind::AddrInUse => {
                write!(
                    f,
                    "--port {port}: {protocol} {address} is in use; expected a free port"
                )
            }
            ErrorKind::PermissionDenied => write!(
                f,
                "--port {port}: no right to bind {protocol} {address}; expected a port from 1024 on (say --port 5353) \
                 or the capability CAP_NET_BIND_SERVICE"
            ),
            ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "--address {ip}: {protocol} {address}: expected an address of this host"
                )
            }
            _ => write!(
                f,
                "--address {ip}: {protocol} {address} cannot be bound: {cause}"
            ),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Sockets that are bound and not yet served.
#[derive(Debug)]
pub struct Sockets {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) udp: Vec<Arc<UdpSocket>>,
    addresses: Vec<SocketAddr>,
    /// Somebody else holds them too, and goes on with them when this process has ended.
    pub(super) passed: bool,
    /// Others have sockets of their own on the same ports.
    pub(super) shared: bool,
}

impl Sockets {
    /// Binds TCP and UDP on every address.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let mut sockets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            addresses: Vec::new(),
            passed: false,
            shared: settings.reuse_port,
        };
        let mut missing = None;
        for &address in &settings.addresses {
            match bind_pair(SocketAddr::new(address, settings.port), settings.reuse_port) {
                Ok(((tcp, udp), bound)) => {
                    sockets.tcp.push(tcp);
                    sockets.udp.push(udp);
                    sockets.addresses.push(bound);
                }
                Err(error)
                    if settings.addresses_optional
                        && error.kind() == ErrorKind::AddrNotAvailable =>
                {
                    info!(
                        "event=address-left-out address={address} cause=\"{}\"",
                        error.cause
                    );
                    missing = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match missing {
            Some(error) if sockets.tcp.is_empty() => Err(error),
            _ => Ok(sockets),
        }
    }

    /// Those that a service manager has bound and passed (sd_listen_fds(3)), if it has: then no others are. To be called
    /// before there are other threads, since it takes the word about them out of the environment.
    ///
    /// Fails where there is something else among them than TCP listeners and UDP sockets.
    pub fn passed() -> io::Result<Option<Self>> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            addresses: Vec::new(),
            passed: true,
            shared: false,
        };
        for place in 0..passed.len() {
            let address = match passed.take_tcp_listener(place) {
                Ok(Some(tcp)) if SockRef::from(&tcp).is_listener()? => {
                    let address = tcp.local_addr()?;
                    tcp.set_nonblocking(true)?;
                    sockets.tcp.push(tcp);
                    address
                }
                _ => {
                    let expected = || {
                        let text = format!(
                            "LISTEN_FDS: socket {place}: expected a TCP socket that listens, or a UDP socket"
                        );
                        io::Error::other(text)
                    };
                    let udp = passed.take_udp_socket(place).ok().flatten();
                    let udp = udp.ok_or_else(expected)?;
                    let address = udp.local_addr()?;
                    udp.set_nonblocking(false)?;
                    prepare_udp(&SockRef::from(&udp), address)?;
                    sockets.udp.push(Arc::new(udp));
                    address
                }
            };
            if !sockets.addresses.contains(&address) {
                sockets.addresses.push(address);
            }
        }
        Ok(Some(sockets).filter(|sockets| !sockets.addresses.is_empty()))
    }

    /// The addresses and ports that are bound, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

type Pair = (TcpListener, Arc<UdpSocket>);

/// Binds both protocols to the same port, also where the system chooses it.
fn bind_pair(wanted: SocketAddr, shared: bool) -> Result<(Pair, SocketAddr), BindError> {
    const TRIES: usize = 16;
    let mut tries = 0;
    loop {
        tries += 1;
        let tcp = bind_tcp(wanted, shared).map_err(|cause| BindError {
            address: wanted,
            protocol: "TCP",
            cause,
        })?;
        let bound = tcp.local_addr().unwrap_or(wanted);
        match bind_udp(bound, shared, wanted.port() == 0) {
            Ok(udp) => return Ok(((tcp, Arc::new(udp)), bound)),
            // The system chose a port that is free for TCP alone: it will choose another.
            Err(cause)
                if wanted.port() == 0 && cause.kind() == ErrorKind::AddrInUse && tries < TRIES => {}
            Err(cause) => {
                return Err(BindError {
                    address: bound,
                    protocol: "UDP",
                    cause,
                });
            }
        }
    }
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // A newcomer may be gone before it is accepted.
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What clients' connections have from their listener. Where the system will not have it, they do without.
pub(super) fn prepare_tcp(listener: &Socket) {
    // Answers are gathered here already: each write should leave at once.
    let _ = listener.set_tcp_nodelay(true);
    // What the kernel holds for a client is bounded, too.
    let _ = listener.set_send_buffer_size(memory::SEND_BUFFER);
    let _ = listener.set_recv_buffer_size(memory::RECEIVE_BUFFER);
    let _ = listener.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// A port that the system has just chosen for TCP must be free: it is shared only once it is ours.
fn bind_udp(address: SocketAddr, shared: bool, chosen: bool) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    prepare_udp(&SockRef::from(&socket), address)?;
    socket.set_reuse_port(shared && !chosen)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(shared)?;
    Ok(socket.into())
}

/// What a socket for `address` needs that we receive on.
fn prepare_udp(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // With CAP_NET_ADMIN beyond the system's limit, else up to it; less is no reason not to serve.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    }
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER);
    // So that the kernel says how many datagrams found no room; without its word they are lost uncounted.
    let _ = setsockopt(&socket, sockopt::RxqOvfl, &1);
    // No answer is longer than what any link carries that IPv6 can use, so that none needs to be fragmented: it says so to
    // the routers, and believes nobody who says that the path carries less (RFC 9715 section 3.1). It also spares
    // the kernel an ID for the fragments of each packet, which costs more the more clients there are.
    let _ = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE);
    if address.ip().is_unspecified() {
        // An answer must leave from the address that was asked (RFC 5625 section 6.2; RFC 1123 section 6.1.2.1 class).
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    Ok(())
}

fn new_socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and :: can be listened on side by side.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_not_fragmented_whatever_the_network_says() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let address = address.parse().expect("an address");
            let socket = bind_udp(address, false, false).expect("a socket");
            let now = rustix::net::sockopt::ip_mtu_discover(&socket).expect("an option");
            assert_eq!(now, Ipv4PathMtuDiscovery::PROBE, "{address}");
        }
    }

    #[test]
    fn why_a_socket_could_not_be_had_is_said_with_what_to_do() {
        for (kind, parts) in [
            (ErrorKind::AddrInUse, ["--port 53", "in use", "a free port"]),
            (
                ErrorKind::PermissionDenied,
                ["--port 53", "--port 5353", "CAP_NET_BIND_SERVICE"],
            ),
            (
                ErrorKind::AddrNotAvailable,
                ["--address 192.0.2.1", "TCP", "of this host"],
            ),
            (
                ErrorKind::Other,
                ["--address 192.0.2.1", "TCP", "cannot be bound"],
            ),
        ] {
            let address = SocketAddr::from(([192, 0, 2, 1], 53));
            let error = BindError {
                address,
                protocol: "TCP",
                cause: kind.into(),
            }
            .to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
