//! How do datagrams leave?
//!
//! Many by one system call, as long as they leave by the same socket and from the same address.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
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
pub(super) fn send_datagrams(headers: &mut Headers, octets: &[u8], mut batch: &[Datagram]) {
    let Some(Datagram { socket, local, .. }) = batch.first() else {
        return;
    };
    let (packet_info4, packet_info6);
    let control;
    let headers = match local.map(|local| (local.address, local.interface)) {
        None => {
            control = None;
            let room = || MultiHeaders::preallocate(BATCH, None);
            headers.plain.get_or_insert_with(room)
        }
        Some((IpAddr::V4(address), _)) => {
            let source = libc::in_addr {
                s_addr: u32::from_ne_bytes(address.octets()),
            };
            let anywhere = libc::in_addr { s_addr: 0 };
            packet_info4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: source,
                ipi_addr: anywhere,
            };
            control = Some(ControlMessage::Ipv4PacketInfo(&packet_info4));
            let room = || MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in_pktinfo)));
            headers.from4.get_or_insert_with(room)
        }
        Some((IpAddr::V6(address), interface)) => {
            let source = libc::in6_addr {
                s6_addr: address.octets(),
            };
            packet_info6 = libc::in6_pktinfo {
                ipi6_addr: source,
                ipi6_ifindex: interface,
            };
            control = Some(ControlMessage::Ipv6PacketInfo(&packet_info6));
            let room = || MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo)));
            headers.from6.get_or_insert_with(room)
        }
    };
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
            control.as_slice(),
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
