//! How do datagrams leave?
//!
//! Many by one system call, as long as they leave by the same socket and from the same address.

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

/// Datagrams that leave by one system call, at most.
pub(super) const BATCH: usize = 64;

/// The address of ours that a datagram was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Local {
    /// The address.
    pub address: IpAddr,
    /// The index of the interface, where the address means nothing without it (link-local IPv6); else 0.
    pub interface: u32,
}

/// Room for the headers of a batch, once it was needed: without control data, and with those that name our address. The
/// kernel wants exactly as much room for control data as is used.
#[derive(Default)]
pub(super) struct Headers {
    plain: Option<MultiHeaders<SockaddrStorage>>,
    from4: Option<MultiHeaders<SockaddrStorage>>,
    from6: Option<MultiHeaders<SockaddrStorage>>,
}

pub(super) struct Datagram {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<Local>,
    pub(super) octets: Range<usize>,
}

impl Datagram {
    /// Those that share it can share a system call.
    pub(super) fn exit(&self) -> (i32, Option<Local>) {
        (self.socket.as_raw_fd(), self.local)
    }
}

/// Sends a batch that leaves by one socket and from one address.
pub(super) fn send_datagrams(headers: &mut Headers, octets: &[u8], batch: &[Datagram]) {
    let Some(Datagram { socket, local, .. }) = batch.first() else {
        return;
    };
    match local.map(|local| (local.address, local.interface)) {
        None => {
            let room = || MultiHeaders::preallocate(BATCH, None);
            let headers = headers.plain.get_or_insert_with(room);
            send_all(socket, headers, &[], octets, batch);
        }
        Some((IpAddr::V4(address), _)) => {
            let room = || MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in_pktinfo)));
            let headers = headers.from4.get_or_insert_with(room);
            let packet_info = packet_info4(address);
            let control = [ControlMessage::Ipv4PacketInfo(&packet_info)];
            send_all(socket, headers, &control, octets, batch);
        }
        Some((IpAddr::V6(address), interface)) => {
            let room = || MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo)));
            let headers = headers.from6.get_or_insert_with(room);
            let packet_info = packet_info6(address, interface);
            let control = [ControlMessage::Ipv6PacketInfo(&packet_info)];
            send_all(socket, headers, &control, octets, batch);
        }
    }
}

/// That datagrams are to leave from `address`, as the kernel is told it.
fn packet_info4(address: Ipv4Addr) -> libc::in_pktinfo {
    libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    }
}

/// The same for IPv6, and by which interface; 0 for any.
fn packet_info6(address: Ipv6Addr, interface: u32) -> libc::in6_pktinfo {
    libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: address.octets(),
        },
        ipi6_ifindex: interface,
    }
}

/// Sends a batch by `socket`, with the same control data for each datagram.
fn send_all(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrStorage>,
    control: &[ControlMessage<'_>],
    octets: &[u8],
    mut batch: &[Datagram],
) {
    let mut fragments = false;
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
            Err(Errno::EMSGSIZE) if !fragments && allow_fragments(socket) => {
                fragments = true;
                0
            }
            Err(error) => {
                // The network's word on this one datagram, or a full buffer: UDP loses datagrams, and clients ask again.
                debug!("event=datagram-not-sent cause=\"{error}\"");
                1
            }
        };
        batch = batch.get(done..).unwrap_or_default();
    }
}

/// An interface of this host carries less than an answer may have: on that socket packets may be fragmented from now on.
/// Says whether the system has it so.
fn allow_fragments(socket: &UdpSocket) -> bool {
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT).is_ok()
}
