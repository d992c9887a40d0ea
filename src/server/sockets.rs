//! Which sockets are listened on?
//!
//! Sockets that are bound here, a pair of TCP and UDP for each address, or those that a service manager has bound and passed (socket
//! activation).

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use listenfd::ListenFd;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::server::settings::Settings;
use crate::system::memory;
use crate::system::scoped_address::ScopedAddress;
use crate::telemetry::log::info;

/// The size in octets of the receive and send buffers of a UDP socket, up to the limit of the system: room for a burst of some thousand
/// queries. The kernel doubles the value (socket(7)).
const UDP_BUFFER: usize = 2 * 1024 * 1024;
/// How long data that was sent to a TCP client may stay unacknowledged, or wait for a client that does not read, before the kernel
/// drops the connection, even if it is closed here (TCP_USER_TIMEOUT, RFC 5482).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that the kernel queues until they are accepted, up to the limit of the system. When the queue is full, a client retries
/// only after a second.
const BACKLOG: i32 = 1024;

/// The error of binding a socket.
#[derive(Debug)]
pub struct BindError {
    address: ScopedAddress,
    protocol: &'static str,
    cause: io::Error,
}

impl BindError {
    /// The kind of the error. A host without IPv6 yields [`ErrorKind::AddrNotAvailable`].
    pub fn kind(&self) -> ErrorKind {
        match self.cause.raw_os_error() {
            // The system has no IPv6.
            Some(libc::EAFNOSUPPORT) => ErrorKind::AddrNotAvailable,
            _ => self.cause.kind(),
        }
    }
}

impl fmt::Display for BindError {
    /// One line with the option, its value and what was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            protocol,
            cause,
        } = self;
        let (ip, port) = (address.host(), address.port());
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
            // No error of the system: there is no such interface.
            ErrorKind::AddrNotAvailable if cause.get_ref().is_some() => {
                write!(
                    f,
                    "--address {ip}: {cause}; expected an address of this host"
                )
            }
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

/// Sockets that are bound, before their threads start.
#[derive(Debug)]
pub struct Sockets {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) udp: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
    /// A service manager has passed the sockets. It holds them too, and passes them on when this process has ended.
    pub(super) socket_activated: bool,
    /// Other processes may bind the same ports (SO_REUSEPORT).
    pub(super) reuse_port: bool,
}

impl Sockets {
    /// Binds a TCP and a UDP socket on every address.
    ///
    /// # Errors
    ///
    /// Fails if an address cannot be bound. With `addresses_optional`, addresses that this host does not have are skipped if at least one
    /// remains.
    pub fn bind(settings: &Settings) -> Result<Self, BindError> {
        let mut sockets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            addresses: Vec::new(),
            socket_activated: false,
            reuse_port: settings.reuse_port,
        };
        let mut unavailable = None;
        for &address in &settings.addresses {
            match bind_pair(
                ScopedAddress::new(address, settings.port),
                settings.reuse_port,
            ) {
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
                        "event=address-unavailable address={address} cause=\"{}\"",
                        error.cause
                    );
                    unavailable = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        match unavailable {
            Some(error) if sockets.tcp.is_empty() => Err(error),
            _ => Ok(sockets),
        }
    }

    /// The sockets that a service manager has bound and passed (sd_listen_fds(3)). None if there are none; otherwise no others must be
    /// bound. Call this before other threads start, since it removes variables from the environment.
    ///
    /// # Errors
    ///
    /// Fails if one of them is neither a listening TCP socket nor a UDP socket.
    pub fn from_socket_activation() -> io::Result<Option<Self>> {
        let mut fds = ListenFd::from_env();
        let mut sockets = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            addresses: Vec::new(),
            socket_activated: true,
            reuse_port: false,
        };
        for index in 0..fds.len() {
            let address = match fds.take_tcp_listener(index) {
                Ok(Some(tcp)) if SockRef::from(&tcp).is_listener()? => {
                    let address = tcp.local_addr()?;
                    tcp.set_nonblocking(true)?;
                    sockets.tcp.push(tcp);
                    address
                }
                _ => {
                    let expected = || {
                        let text = format!(
                            "LISTEN_FDS: socket {index}: expected a TCP socket that listens, or a UDP socket"
                        );
                        io::Error::other(text)
                    };
                    let udp = fds.take_udp_socket(index).ok().flatten();
                    let udp = udp.ok_or_else(expected)?;
                    let address = udp.local_addr()?;
                    udp.set_nonblocking(false)?;
                    prepare_udp(&SockRef::from(&udp), address)?;
                    sockets.udp.push(udp);
                    address
                }
            };
            if !sockets.addresses.contains(&address) {
                sockets.addresses.push(address);
            }
        }
        Ok(Some(sockets).filter(|sockets| !sockets.addresses.is_empty()))
    }

    /// The bound addresses and ports, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// The TCP and the UDP socket of one address.
type SocketPair = (TcpListener, UdpSocket);

/// Binds TCP and UDP to the same port, even if the system chooses it.
fn bind_pair(
    requested: ScopedAddress,
    reuse_port: bool,
) -> Result<(SocketPair, SocketAddr), BindError> {
    const MAX_TRIES: usize = 16;
    let failed_on = |port, protocol, cause| BindError {
        address: requested.with_port(port),
        protocol,
        cause,
    };
    let failed = |cause| failed_on(requested.port(), "TCP", cause);
    let address = requested.resolve().map_err(failed)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let tcp = bind_tcp(address, reuse_port).map_err(failed)?;
        let bound = tcp.local_addr().unwrap_or(address);
        match bind_udp(bound, reuse_port, requested.port() == 0) {
            Ok(udp) => return Ok(((tcp, udp), bound)),
            // The system chose a port that is free for TCP only. The next try gets another one.
            Err(cause)
                if requested.port() == 0
                    && cause.kind() == ErrorKind::AddrInUse
                    && tries < MAX_TRIES => {}
            Err(cause) => return Err(failed_on(bound.port(), "UDP", cause)),
        }
    }
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = new_socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // A connection may be reset before it is accepted, and accept must not block then.
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets the options that connections inherit from their listener. Options that the system refuses are left out.
pub(super) fn prepare_tcp(listener: &Socket) {
    // Answers are gathered in batches already, so each write is sent at once.
    let _ = listener.set_tcp_nodelay(true);
    // Bounds the memory that the kernel holds for each client.
    let _ = listener.set_send_buffer_size(memory::SEND_BUFFER);
    let _ = listener.set_recv_buffer_size(memory::RECEIVE_BUFFER);
    let _ = listener.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT));
}

/// Binds a UDP socket. If the system has chosen the port (`is_chosen`), SO_REUSEPORT is set only after the port is bound: so that binding
/// fails if another process has the port.
fn bind_udp(address: SocketAddr, reuse_port: bool, is_chosen: bool) -> io::Result<UdpSocket> {
    let socket = new_socket(address, Type::DGRAM, Protocol::UDP)?;
    prepare_udp(&SockRef::from(&socket), address)?;
    socket.set_reuse_port(reuse_port && !is_chosen)?;
    socket.bind(&address.into())?;
    socket.set_reuse_port(reuse_port)?;
    Ok(socket.into())
}

/// Sets the options of a UDP socket that is or will be bound to `address`.
fn prepare_udp(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    // Exceeds the limit of the system if CAP_NET_ADMIN allows it. A smaller buffer is no reason to fail.
    if setsockopt(&socket, sockopt::RcvBufForce, &UDP_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    }
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    // Makes the kernel report how many datagrams it dropped. If that fails, drops are not counted.
    let _ = setsockopt(&socket, sockopt::RxqOvfl, &1);
    // Sets DF and ignores ICMP messages about a smaller path MTU (RFC 9715 section 3.1): no answer is longer than what every link that
    // carries IPv6 can transmit, so none needs to be fragmented. This also saves the kernel an IP ID for each packet, whose cost
    // grows with the number of clients.
    let _ = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE);
    if address.ip().is_unspecified() {
        // An answer must be sent from the address that the query was sent to (RFC 5625 section 6.2; RFC 1123 section 6.1.2.1 class).
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
        // Allows to listen on both 0.0.0.0 and ::.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_not_fragmented_whatever_icmp_says() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let address = address.parse().expect("an address");
            let socket = bind_udp(address, false, false).expect("a socket");
            let now = rustix::net::sockopt::ip_mtu_discover(&socket).expect("an option");
            assert_eq!(now, Ipv4PathMtuDiscovery::PROBE, "{address}");
        }
    }

    #[test]
    fn a_missing_interface_is_like_an_address_of_another_host() {
        for (zone, parts) in [
            ("not-there", &["no network interface not-there"][..]),
            ("lo", &["TCP [fe80::db8:1%lo]:0"]),
        ] {
            let requested = format!("[fe80::db8:1%{zone}]:0");
            let requested = requested.parse().expect("an address");
            let error = bind_pair(requested, false).expect_err("no such address");
            assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
            let text = error.to_string();
            let option = format!("--address fe80::db8:1%{zone}: ");
            assert!(text.starts_with(&option), "{text}");
            assert!(text.ends_with("expected an address of this host"), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn bind_errors_name_the_option_and_a_remedy() {
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
                address: address.into(),
                protocol: "TCP",
                cause: kind.into(),
            }
            .to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
