//! How are datagrams sent?
//!
//! Datagrams that share a socket and a source address share a system call (sendmmsg).

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

use crate::telemetry::log::debug;

/// Datagrams that one system call sends, at most.
pub(super) const MAX_DATAGRAMS: usize = 64;

/// The local address that a datagram was sent to, and that the answer is sent from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// The index of the interface for a link-local IPv6 address, which is ambiguous without it; otherwise 0.
    pub interface: u32,
}

/// Buffers for the message headers of sendmmsg, allocated when they are first needed and then reused. There is one for each size of
/// control data, since the kernel wants that buffer to be exactly as long as the data.
#[derive(Default)]
pub(super) struct SendHeaders {
    /// Without control data: the kernel chooses the source address.
    without_source: Option<MultiHeaders<SockaddrStorage>>,
    /// With an IPv4 source address (IP_PKTINFO).
    from_ipv4: Option<MultiHeaders<SockaddrStorage>>,
    /// With an IPv6 source address (IPV6_PKTINFO).
    from_ipv6: Option<MultiHeaders<SockaddrStorage>>,
}

/// One datagram to send.
pub(super) struct Datagram {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<LocalAddress>,
    /// Its part of the buffer of the batch.
    pub(super) octets: Range<usize>,
}

impl Datagram {
    /// The socket and the source address: datagrams with the same ones can share a system call.
    pub(super) fn send_group(&self) -> (i32, Option<LocalAddress>) {
        (self.socket.as_raw_fd(), self.local)
    }
}

/// Sends datagrams that all have the same socket and source address, without blocking. `octets` is the buffer that they are in.
pub(super) fn send_datagrams(headers: &mut SendHeaders, octets: &[u8], batch: &[Datagram]) {
    let Some(Datagram { socket, local, .. }) = batch.first() else {
        return;
    };
    match local.map(|local| (local.address, local.interface)) {
        None => {
            let allocate = || MultiHeaders::preallocate(MAX_DATAGRAMS, None);
            let headers = headers.without_source.get_or_insert_with(allocate);
            send_all(socket, headers, &[], octets, batch);
        }
        Some((IpAddr::V4(address), _)) => {
            let allocate =
                || MultiHeaders::preallocate(MAX_DATAGRAMS, Some(cmsg_space!(libc::in_pktinfo)));
            let headers = headers.from_ipv4.get_or_insert_with(allocate);
            let packet_info = ipv4_packet_info(address);
            let control = [ControlMessage::Ipv4PacketInfo(&packet_info)];
            send_all(socket, headers, &control, octets, batch);
        }
        Some((IpAddr::V6(address), interface)) => {
            let allocate =
                || MultiHeaders::preallocate(MAX_DATAGRAMS, Some(cmsg_space!(libc::in6_pktinfo)));
            let headers = headers.from_ipv6.get_or_insert_with(allocate);
            let packet_info = ipv6_packet_info(address, interface);
            let control = [ControlMessage::Ipv6PacketInfo(&packet_info)];
            send_all(socket, headers, &control, octets, batch);
        }
    }
}

/// The control data that makes `address` the source address (IP_PKTINFO).
fn ipv4_packet_info(address: Ipv4Addr) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

/// The same for IPv6 (IPV6_PKTINFO), with the index of the outgoing interface; 0 for any.
fn ipv6_packet_info(address: Ipv6Addr, interface: u32) -> libc::in6_pktinfo {
    libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: address.octets(),
        },
        ipi6_ifindex: interface,
    }
}

/// Sends datagrams through `socket`, with the same control data for each.
fn send_all(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    control: &[ControlMessage<'_>],
    octets: &[u8],
    mut batch: &[Datagram],
) {
    let mut fragmentation_allowed = false;
    while !batch.is_empty() {
        let slices: Vec<_> = batch
            .iter()
            .map(|datagram| octets.get(datagram.octets.clone()).unwrap_or_default())
            .map(|datagram| [IoSlice::new(datagram)])
            .collect();
        let peers: Vec<_> = batch
            .iter()
            .map(|datagram| Some(datagram.peer.into()))
            .collect();
        let sent = sendmmsg(
            socket.as_raw_fd(),
            headers,
            &slices,
            &peers,
            control,
            MsgFlags::MSG_DONTWAIT,
        )
        .map(Iterator::count);
        let done = match sent {
            Ok(sent) => sent,
            Err(Errno::EINTR) => 0,
            Err(Errno::EMSGSIZE) if !fragmentation_allowed && allow_fragmentation(socket) => {
                fragmentation_allowed = true;
                0
            }
            Err(error) => {
                // The first datagram cannot be sent, because of its destination or a full buffer. It is dropped: UDP clients retry.
                debug!("event=udp-send-failed cause=\"{error}\"");
                1
            }
        };
        batch = batch.get(done..).unwrap_or_default();
    }
}

/// Allows packets of this socket to be fragmented from now on, since an answer is longer than the MTU of an interface of this host.
/// Returns false if the system refuses.
fn allow_fragmentation(socket: &UdpSocket) -> bool {
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT).is_ok()
}
