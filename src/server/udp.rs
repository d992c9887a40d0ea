//! How are queries received over UDP?
//!
//! Each socket has a thread, which receives queries in batches and handles them at once.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrLike,
    SockaddrStorage, recvmmsg, recvmsg,
};

use crate::client::datagrams::{DatagramSocket, LocalAddress};
use crate::client::destination::Client;
use crate::client::eviction_counters::EvictionCounters;
use crate::client::unsent_replies::BatchCall;
use crate::forward::forwarder::{Batch, Forwarder};
use crate::server::backoff::Backoff;
use crate::system::clock;
use crate::system::thread::Heartbeat;
use crate::telemetry::log::warn;

/// Datagrams that one system call receives, at most.
const MAX_DATAGRAMS: usize = 64;
/// Octets of a datagram that are received; longer datagrams are truncated. Queries are a few hundred octets long at most.
const MAX_DATAGRAM_OCTETS: usize = 4096;
/// Batches that are still received after a stop, at most: what was queued before it, not what a flood adds.
const MAX_DRAIN_BATCHES: usize = 256;
/// How often the kernel's count of dropped datagrams is requested while there may be drops.
const DROP_COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two log lines about dropped datagrams.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Receives the queries of one UDP socket.
pub(super) struct UdpReceiver {
    pub(super) socket: Arc<DatagramSocket>,
    /// The address that the socket is bound to.
    pub(super) local_address: SocketAddr,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) evictions: Arc<EvictionCounters>,
    /// The socket outlives this process: what is queued at a stop is left there.
    pub(super) socket_activated: bool,
    pub(super) stopping: Arc<AtomicBool>,
}

impl UdpReceiver {
    /// Receives until a stop, and then what is queued.
    ///
    /// Yields after a batch that is not full: if other threads run first, the next batch is larger. After a full batch the next one is full
    /// anyway, and yielding would give the processor to a local client that floods.
    pub(super) fn run(&self) {
        let mut backoff = Backoff::default();
        let mut buffers = ReceiveBuffers::new();
        let mut batch = Batch::default();
        let mut drops = KernelDrops::default();
        let mut drain_batches = MAX_DRAIN_BATCHES;
        let heartbeat = Heartbeat::new("receive");
        while !(self.socket_activated && self.stopping.load(Ordering::Acquire)) {
            let received = buffers.receive(&self.socket);
            let stopping = self.stopping.load(Ordering::Acquire);
            match received {
                Ok(packets) => {
                    backoff.reset("receive");
                    // After a shutdown, the socket yields empty datagrams once its queue is empty.
                    if stopping && packets.iter().all(|packet| packet.length == 0) {
                        return;
                    }
                    let now = clock::now();
                    heartbeat.set_busy(now);
                    let drop_count = packets.iter().rev().find_map(|packet| packet.drop_count);
                    let had_drops = drops.any_reported();
                    let new_drops = drops.record(drop_count, now);
                    self.evictions.udp_receive_drops.add(new_drops);
                    batch.set_quiet_overload(drops.are_recent(now));
                    let reset_due = drops.is_reset_due(packets.len(), now);
                    if reset_due || (self.local_address.ip().is_unspecified() && !had_drops) {
                        buffers.reset_headers();
                    }
                    self.handle(&packets, &buffers.octets, &mut batch, now);
                    heartbeat.set_idle();
                    if (2..MAX_DATAGRAMS).contains(&packets.len()) {
                        yield_now();
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => backoff.wait("receive", &error.into()),
            }
            if stopping {
                drain_batches -= 1;
                if drain_batches == 0 {
                    return;
                }
            }
        }
    }

    /// Handles the queries of a batch.
    fn handle(
        &self,
        packets: &[PacketInfo],
        octets: &[[u8; MAX_DATAGRAM_OCTETS]],
        batch: &mut Batch,
        now: Instant,
    ) {
        for (packet, octets) in packets.iter().zip(octets) {
            let queried = packet
                .local
                .map_or(self.local_address.ip(), |local| local.address);
            let queried = SocketAddr::new(queried, self.local_address.port());
            let Some(peer) = packet.peer.filter(|peer| is_answerable(*peer, queried)) else {
                self.forwarder.count_ignored();
                continue;
            };
            let client = Client::Datagram {
                socket: Arc::clone(&self.socket),
                peer,
                local: packet.local,
            };
            self.forwarder
                .handle(&octets[..packet.length], client, now, batch);
        }
        self.forwarder.dispatch(batch, now);
    }
}

/// What datagrams are received into.
struct ReceiveBuffers {
    octets: Vec<[u8; MAX_DATAGRAM_OCTETS]>,
    headers: MultiHeaders<SockaddrStorage>,
    /// The system has no recvmmsg, so each datagram takes a call of recvmsg.
    one_at_a_time: bool,
}

impl ReceiveBuffers {
    fn new() -> Self {
        Self {
            octets: vec![[0; MAX_DATAGRAM_OCTETS]; MAX_DATAGRAMS],
            headers: Self::headers(),
            one_at_a_time: false,
        }
    }

    /// Allocates the headers of a batch, with buffers for all control data that the kernel may add to a datagram.
    ///
    /// recvmmsg sets the length of each buffer to what it wrote, and nothing resets it, so a header that is used again has no room for
    /// more control data. A wildcard socket therefore needs new headers for each batch until the kernel reports drops: the first drop
    /// count comes before the local address, and both together would not fit. From then on both come with each datagram.
    fn headers() -> MultiHeaders<SockaddrStorage> {
        MultiHeaders::preallocate(MAX_DATAGRAMS, Some(Self::control_space()))
    }

    fn control_space() -> Vec<u8> {
        cmsg_space!(libc::in6_pktinfo, u32)
    }

    /// Makes room for more control data.
    fn reset_headers(&mut self) {
        self.headers = Self::headers();
    }

    /// Waits for a datagram. Receives it and those that are there already.
    fn receive(&mut self, socket: &DatagramSocket) -> nix::Result<Vec<PacketInfo>> {
        if self.one_at_a_time {
            return self.receive_one(socket);
        }
        let mut slices: Vec<_> = self
            .octets
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let received = recvmmsg(
            socket.socket().as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        );
        // Copies the packet information, since the result borrows the buffers.
        let received =
            received.map(|packets| packets.map(|packet| PacketInfo::of(&packet)).collect());
        if received == Err(Errno::ENOSYS) {
            self.one_at_a_time = true;
            socket.unsent().note_missing_call(BatchCall::Recvmmsg);
            return self.receive_one(socket);
        }
        received
    }

    /// Waits for one datagram.
    fn receive_one(&mut self, socket: &DatagramSocket) -> nix::Result<Vec<PacketInfo>> {
        let fd = socket.socket().as_raw_fd();
        let mut control = Self::control_space();
        let Some(octets) = self.octets.first_mut() else {
            return Ok(Vec::new());
        };
        let mut slices = [IoSliceMut::new(octets)];
        let flags = MsgFlags::empty();
        let received = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut control), flags)?;
        Ok(vec![PacketInfo::of(&received)])
    }
}

/// Returns true if a query from `peer` can be answered. Not if `peer` is a broadcast, multicast or unspecified address, port 0, or the
/// address `queried` itself, which would answer the answer.
fn is_answerable(peer: SocketAddr, queried: SocketAddr) -> bool {
    let address = peer.ip().to_canonical();
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let is_unspecified = peer.port() == 0 || address.is_unspecified();
    // Without the scope of a link-local address, which `queried` does not have.
    let is_own = (peer.ip(), peer.port()) == (queried.ip(), queried.port());
    !(is_broadcast || is_unspecified || address.is_multicast() || is_own)
}

/// The length, source and control data of a received datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PacketInfo {
    length: usize,
    peer: Option<SocketAddr>,
    /// The address that it was sent to, if the socket is bound to a wildcard address.
    local: Option<LocalAddress>,
    /// The number of datagrams that the kernel has dropped so far on this socket, if it reports that.
    drop_count: Option<u32>,
}

impl PacketInfo {
    /// Reads the control data of `datagram`.
    fn of(datagram: &RecvMsg<'_, '_, SockaddrStorage>) -> Self {
        let mut packet = Self {
            length: datagram.bytes,
            peer: datagram.address.and_then(to_address),
            local: None,
            drop_count: None,
        };
        for control in datagram.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    packet.local = Some(LocalAddress {
                        address: address.into(),
                        interface: 0,
                    });
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let interface = if address.is_unicast_link_local() {
                        info.ipi6_ifindex
                    } else {
                        0
                    };
                    packet.local = Some(LocalAddress {
                        address: address.into(),
                        interface,
                    });
                }
                ControlMessageOwned::RxqOvfl(count) => packet.drop_count = Some(count),
                _ => {}
            }
        }
        packet
    }
}

/// Counts the datagrams that the kernel dropped because the receive queue of the socket was full.
///
/// Once there were drops, the kernel reports its count with each datagram (SO_RXQ_OVFL), if the control data has room for it. New headers
/// are made for that only when there may be new drops: after a full batch, without which no queue is full, and at most once a second.
#[derive(Debug, Default)]
struct KernelDrops {
    /// The last count of the kernel, which wraps around.
    last_count: u32,
    /// When the count last increased.
    last_drop_at: Option<Instant>,
    /// Drops since the last log line.
    unlogged: u64,
    logged_at: Option<Instant>,
    /// There was a full batch since the headers were last reset.
    saw_full_batch: bool,
    headers_reset_at: Option<Instant>,
}

impl KernelDrops {
    /// Records the count of the kernel, if there is one. Returns the number of new drops, and logs them every [`REPORT_INTERVAL`].
    fn record(&mut self, count: Option<u32>, now: Instant) -> u64 {
        let Some(count) = count else { return 0 };
        let new = count.wrapping_sub(self.last_count).into();
        self.last_count = count;
        self.unlogged += new;
        if new > 0 {
            self.last_drop_at = Some(now);
        }
        let due = self.logged_at.is_none_or(|at| now >= at + REPORT_INTERVAL);
        if due && self.unlogged > 0 {
            warn!("event=udp-receive-drops count={}", self.unlogged);
            (self.unlogged, self.logged_at) = (0, Some(now));
        }
        new
    }

    /// Returns true if the count increased within the last [`DROP_COUNT_INTERVAL`].
    fn are_recent(&self, now: Instant) -> bool {
        self.last_drop_at
            .is_some_and(|at| now < at + DROP_COUNT_INTERVAL)
    }

    /// Returns true once the kernel has reported drops.
    fn any_reported(&self) -> bool {
        self.last_count != 0
    }

    /// Returns true if the headers must be reset after a batch of `packets` datagrams, so that the kernel can report its count.
    fn is_reset_due(&mut self, packets: usize, now: Instant) -> bool {
        self.saw_full_batch |= packets == MAX_DATAGRAMS;
        let due = self
            .headers_reset_at
            .is_none_or(|at| now >= at + DROP_COUNT_INTERVAL);
        let reset_due = self.saw_full_batch && due;
        if reset_due {
            (self.saw_full_batch, self.headers_reset_at) = (false, Some(now));
        }
        reset_due
    }
}

fn to_address(address: SockaddrStorage) -> Option<SocketAddr> {
    match address.family()? {
        AddressFamily::Inet => Some(SocketAddr::V4((*address.as_sockaddr_in()?).into())),
        AddressFamily::Inet6 => Some(SocketAddr::V6((*address.as_sockaddr_in6()?).into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn queries_from_impossible_sources_are_not_answered() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let queried = address("192.0.2.1:53");
        for (peer, expected) in [
            ("192.0.2.1:5353", true),
            ("192.0.2.9:53", true),
            ("[2001:db8::1]:1024", true),
            ("[fe80::1%2]:1024", true),
            ("192.0.2.1:53", false),
            ("192.0.2.9:0", false),
            ("0.0.0.0:1024", false),
            ("255.255.255.255:1024", false),
            ("[::ffff:255.255.255.255]:1024", false),
            ("224.0.0.251:5353", false),
            ("[ff02::fb]:5353", false),
        ] {
            assert_eq!(is_answerable(address(peer), queried), expected, "{peer}");
        }
        let own = address("[fe80::1]:53");
        assert!(!is_answerable(address("[fe80::1%2]:53"), own));
        assert!(is_answerable(address("[fe80::2%2]:53"), own));
    }

    #[test]
    fn without_recvmmsg_datagrams_are_received_one_by_one_with_their_sources() {
        let receiver = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let to = receiver.local_addr().expect("bound");
        let receiver = DatagramSocket::new(receiver, Arc::default());
        let mut buffers = ReceiveBuffers {
            one_at_a_time: true,
            ..ReceiveBuffers::new()
        };
        for content in [&b"abc"[..], b"de"] {
            sender.send_to(content, to).expect("loopback");
        }
        for content in [&b"abc"[..], b"de"] {
            let received = buffers.receive(&receiver).expect("a datagram");
            assert_eq!(received.len(), 1);
            assert_eq!(received[0].peer, sender.local_addr().ok());
            assert_eq!(buffers.octets[0][..received[0].length], *content);
        }
    }
}
