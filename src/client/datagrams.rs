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
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg,
};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};

use crate::client::unsent_replies::{BatchCall, ReplyTag, UnsentReplies};
use crate::telemetry::log::debug;

/// Datagrams that one system call sends, at most.
pub(super) const MAX_DATAGRAMS: usize = 64;

/// A socket that receives queries and sends replies, and where unsent replies are counted.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UdpSocket,
    unsent: Arc<UnsentReplies>,
}

impl DatagramSocket {
    /// Replies that `socket` does not send are counted in `unsent`.
    pub fn new(socket: UdpSocket, unsent: Arc<UnsentReplies>) -> Self {
        Self { socket, unsent }
    }

    /// The socket itself.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The counts of unsent replies.
    pub fn unsent(&self) -> &UnsentReplies {
        &self.unsent
    }
}

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
    /// The system has no sendmmsg, so each datagram takes a call of sendmsg.
    one_at_a_time: bool,
}

/// One datagram to send.
pub(super) struct Datagram {
    pub(super) socket: Arc<DatagramSocket>,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<LocalAddress>,
    /// Its part of the buffer of the batch.
    pub(super) octets: Range<usize>,
    pub(super) tag: ReplyTag,
}

impl Datagram {
    /// The socket and the source address: datagrams with the same ones can share a system call.
    pub(super) fn send_group(&self) -> (i32, Option<LocalAddress>) {
        (self.socket.socket.as_raw_fd(), self.local)
    }
}

/// Sends datagrams that all have the same socket and source address, without blocking. `octets` is the buffer that they are in. Adds those
/// that the kernel refuses to `unsent`.
pub(super) fn send_datagrams(
    headers: &mut SendHeaders,
    octets: &[u8],
    batch: &[Datagram],
    unsent: &mut Vec<(Errno, ReplyTag)>,
) {
    let Some(Datagram { socket, local, .. }) = batch.first() else {
        return;
    };
    let SendHeaders {
        without_source,
        from_ipv4,
        from_ipv6,
        one_at_a_time,
    } = headers;
    type Space = fn() -> Option<Vec<u8>>;
    let mut send = |headers: &mut Option<_>, control: &[ControlMessage<'_>], space: Space| {
        let allocate = || MultiHeaders::preallocate(MAX_DATAGRAMS, space());
        let group = Group {
            socket,
            control,
            octets,
        };
        let headers = headers.get_or_insert_with(allocate);
        group.send_all(headers, one_at_a_time, batch, unsent);
    };
    match local.map(|local| (local.address, local.interface)) {
        None => send(without_source, &[], || None),
        Some((IpAddr::V4(address), _)) => {
            let packet_info = ipv4_packet_info(address);
            let control = [ControlMessage::Ipv4PacketInfo(&packet_info)];
            send(from_ipv4, &control, || Some(cmsg_space!(libc::in_pktinfo)));
        }
        Some((IpAddr::V6(address), interface)) => {
            let packet_info = ipv6_packet_info(address, interface);
            let control = [ControlMessage::Ipv6PacketInfo(&packet_info)];
            send(from_ipv6, &control, || Some(cmsg_space!(libc::in6_pktinfo)));
        }
    }
    if socket.unsent.is_watching() || !unsent.is_empty() {
        let sent = batch.len().saturating_sub(unsent.len());
        socket.unsent.record_datagrams(sent, unsent);
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

/// What datagrams of one call share.
struct Group<'g> {
    socket: &'g DatagramSocket,
    /// The control data for each datagram.
    control: &'g [ControlMessage<'g>],
    /// The buffer that the datagrams are in.
    octets: &'g [u8],
}

impl Group<'_> {
    /// Sends these datagrams, and adds those that the kernel refuses to `unsent`. They are dropped: UDP clients retry.
    fn send_all(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        one_at_a_time: &mut bool,
        mut batch: &[Datagram],
        unsent: &mut Vec<(Errno, ReplyTag)>,
    ) {
        let mut fragmentation_allowed = false;
        while let Some(first) = batch.first() {
            let sent = match *one_at_a_time {
                false => self.send_many(headers, batch),
                true => self.send_one(first),
            };
            let step = match sent {
                Ok(sent) => Step::Continue(sent),
                Err(error) => Step::after(error, *one_at_a_time, fragmentation_allowed),
            };
            let done = match step {
                Step::Continue(done) => done,
                Step::AllowFragmentation if allow_fragmentation(&self.socket.socket) => {
                    fragmentation_allowed = true;
                    0
                }
                Step::SendOneAtATime => {
                    *one_at_a_time = true;
                    self.socket.unsent.note_missing_call(BatchCall::Sendmmsg);
                    0
                }
                Step::AllowFragmentation | Step::Drop => {
                    let error = sent.err().unwrap_or(Errno::UnknownErrno);
                    debug!("event=udp-send-failed cause=\"{error}\"");
                    unsent.push((error, first.tag));
                    1
                }
            };
            batch = batch.get(done..).unwrap_or_default();
        }
    }

    /// Sends the first datagrams, with one system call. Returns how many the kernel took, which is at least one.
    fn send_many(
        &self,
        headers: &mut MultiHeaders<SockaddrStorage>,
        batch: &[Datagram],
    ) -> nix::Result<usize> {
        let slices: Vec<_> = batch
            .iter()
            .map(|datagram| [IoSlice::new(self.content(datagram))])
            .collect();
        let peers: Vec<_> = batch
            .iter()
            .map(|datagram| Some(datagram.peer.into()))
            .collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.socket.as_raw_fd();
        sendmmsg(fd, headers, &slices, &peers, self.control, flags).map(Iterator::count)
    }

    /// Sends one datagram.
    fn send_one(&self, datagram: &Datagram) -> nix::Result<usize> {
        let slices = [IoSlice::new(self.content(datagram))];
        let peer = SockaddrStorage::from(datagram.peer);
        let flags = MsgFlags::MSG_DONTWAIT;
        let fd = self.socket.socket.as_raw_fd();
        sendmsg(fd, &slices, self.control, flags, Some(&peer)).map(|_| 1)
    }

    fn content(&self, datagram: &Datagram) -> &[u8] {
        self.octets.get(datagram.octets.clone()).unwrap_or_default()
    }
}

/// What to do after a system call that sends datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Go on after so many datagrams.
    Continue(usize),
    /// Try again with fragmented packets.
    AllowFragmentation,
    /// Send the datagrams with a call each from now on.
    SendOneAtATime,
    /// Drop the first datagram, which the error is about.
    Drop,
}

impl Step {
    /// The step after `error`, given how datagrams are sent so far.
    fn after(error: Errno, one_at_a_time: bool, fragmentation_allowed: bool) -> Self {
        match error {
            Errno::EINTR => Self::Continue(0),
            Errno::EMSGSIZE if !fragmentation_allowed => Self::AllowFragmentation,
            Errno::ENOSYS if !one_at_a_time => Self::SendOneAtATime,
            _ => Self::Drop,
        }
    }
}

/// Allows packets of this socket to be fragmented from now on, since an answer is longer than the MTU of an interface of this host.
/// Returns false if the system refuses.
fn allow_fragmentation(socket: &UdpSocket) -> bool {
    set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::OMIT).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::unsent_replies::Goodness;
    use crate::telemetry::metrics::Counter;

    const TAG: ReplyTag = ReplyTag::new(1, Goodness::No);

    /// A socket on loopback that sends, and one that receives.
    fn sockets(address: &str) -> Option<(Arc<DatagramSocket>, UdpSocket)> {
        let bind = || UdpSocket::bind((address, 0));
        let receiver = bind().ok()?;
        let timeout = Some(Duration::from_secs(10));
        receiver.set_read_timeout(timeout).expect("an option");
        let sender = DatagramSocket::new(bind().ok()?, Arc::default());
        Some((Arc::new(sender), receiver))
    }

    /// Three datagrams of an octet each to these peers.
    fn datagrams(
        socket: &Arc<DatagramSocket>,
        peers: [SocketAddr; 3],
        local: Option<LocalAddress>,
    ) -> Vec<Datagram> {
        let datagrams = (0..).zip(peers).map(|(at, peer)| Datagram {
            socket: Arc::clone(socket),
            peer,
            local,
            octets: at..at + 1,
            tag: TAG,
        });
        datagrams.collect()
    }

    fn received(receiver: &UdpSocket) -> u8 {
        let mut octet = [0];
        receiver.recv(&mut octet).expect("a datagram");
        octet[0]
    }

    #[test]
    fn without_sendmmsg_each_datagram_leaves_by_itself_and_from_the_right_address() {
        for address in ["127.0.0.1", "::1"] {
            let Some((sender, receiver)) = sockets(address) else {
                continue;
            };
            let peer = receiver.local_addr().expect("bound");
            let source = LocalAddress {
                address: peer.ip(),
                interface: 0,
            };
            for local in [None, Some(source)] {
                let mut headers = SendHeaders {
                    one_at_a_time: true,
                    ..SendHeaders::default()
                };
                let batch = datagrams(&sender, [peer; 3], local);
                let mut unsent = Vec::new();
                send_datagrams(&mut headers, b"abc", &batch, &mut unsent);
                assert_eq!(unsent, []);
                assert_eq!([(); 3].map(|()| received(&receiver)), *b"abc");
            }
        }
    }

    #[test]
    fn a_refused_datagram_is_counted_and_the_others_leave() {
        let (sender, receiver) = sockets("127.0.0.1").expect("loopback");
        let peer = receiver.local_addr().expect("bound");
        // The kernel sends nothing from loopback to another network.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
        for one_at_a_time in [false, true] {
            let mut headers = SendHeaders {
                one_at_a_time,
                ..SendHeaders::default()
            };
            let batch = datagrams(&sender, [peer, elsewhere, peer], None);
            let mut unsent = Vec::new();
            send_datagrams(&mut headers, b"abc", &batch, &mut unsent);
            assert_eq!(unsent.len(), 1, "{unsent:?}");
            assert_eq!(received(&receiver), b'a');
            assert_eq!(received(&receiver), b'c');
        }
        let counts = sender.unsent().by_cause().iter().map(Counter::value);
        assert_eq!(counts.sum::<u64>(), 2);
    }

    #[test]
    fn datagrams_are_sent_singly_only_if_the_system_has_no_sendmmsg() {
        for (error, one_at_a_time, fragmentation_allowed, step) in [
            (Errno::EINTR, false, false, Step::Continue(0)),
            (Errno::ENOSYS, false, false, Step::SendOneAtATime),
            (Errno::ENOSYS, true, false, Step::Drop),
            (Errno::EMSGSIZE, true, false, Step::AllowFragmentation),
            (Errno::EMSGSIZE, true, true, Step::Drop),
            (Errno::EPERM, false, false, Step::Drop),
            (Errno::EAGAIN, false, false, Step::Drop),
        ] {
            let found = Step::after(error, one_at_a_time, fragmentation_allowed);
            assert_eq!(found, step, "{error}");
        }
    }
}
