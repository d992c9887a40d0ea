//! How are queries received over UDP?
//!
//! In batches, by a thread for each socket, which handles them here and now.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
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
    SockaddrStorage, recvmmsg,
};

use crate::client::datagrams::Local;
use crate::client::destination::Client;
use crate::client::eviction_counters::EvictionCounters;
use crate::forward::forwarder::{Batch, Forwarder};
use crate::server::backoff::Backoff;
use crate::system::clock;
use crate::system::thread::Heartbeat;
use crate::telemetry::log::warn;

/// Datagrams that are received by one system call, at most.
const BATCH: usize = 64;
/// Octets of the longest datagram that is read whole. Queries have some hundred at most.
const DATAGRAM: usize = 4096;
/// Batches that are still received after the word to stop, at most: what was in the queue, not what a flood adds.
const LAST_ROUNDS: usize = 256;
/// How often the kernel's count of lost datagrams is asked for while there may be some.
const HEAR_AGAIN: Duration = Duration::from_secs(1);
/// How long after it was said that datagrams were lost it is said again, if more were.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Where datagrams come in.
pub(super) struct Receiver {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) own: SocketAddr,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) evictions: Arc<EvictionCounters>,
    /// Somebody else goes on with it: what is in its queue at the end is left there.
    pub(super) passed: bool,
    pub(super) stopping: Arc<AtomicBool>,
}

impl Receiver {
    pub(super) fn receive(&self) {
        let mut backoff = Backoff::default();
        let mut octets = vec![[0; DATAGRAM]; BATCH];
        let mut batch = Batch::default();
        let mut losses = Losses::default();
        let mut headers = Self::headers();
        let mut last_rounds = LAST_ROUNDS;
        let heartbeat = Heartbeat::new("receive");
        while !(self.passed && self.stopping.load(Ordering::Acquire)) {
            let mut slices: Vec<_> = octets
                .iter_mut()
                .map(|room| [IoSliceMut::new(room)])
                .collect();
            let received = recvmmsg(
                self.socket.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            let stopping = self.stopping.load(Ordering::Acquire);
            // What was received is read out first: the octets are lent until then.
            let received: Result<Vec<_>, _> = received
                .map(|datagrams| datagrams.map(|datagram| Arrival::of(&datagram)).collect());
            match received {
                Ok(arrivals) => {
                    backoff.is_over("receive");
                    // A socket that was shut down reads as nothing once its queue is empty.
                    if stopping && arrivals.iter().all(|arrival| arrival.length == 0) {
                        return;
                    }
                    let now = clock::now();
                    heartbeat.set_busy(now);
                    let lost = arrivals.iter().rev().find_map(|arrival| arrival.lost);
                    let told_before = losses.were_heard();
                    self.evictions.datagrams.add(losses.hear(lost, now));
                    batch.be_terse(losses.are_recent(now));
                    let unheard = losses.may_be_unheard(arrivals.len(), now);
                    if unheard || (self.own.ip().is_unspecified() && !told_before) {
                        headers = Self::headers();
                    }
                    self.handle(&arrivals, &octets, &mut batch, now);
                    heartbeat.set_idle();
                    if (2..BATCH).contains(&arrivals.len()) {
                        // More are on their way: if anybody else has something to do, the next batch is larger for it.
                        // After a full one it is full anyway, and who floods is not to have the processor as well.
                        yield_now();
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => backoff.wait("receive", &error.into()),
            }
            if stopping {
                last_rounds -= 1;
                if last_rounds == 0 {
                    return;
                }
            }
        }
    }

    /// Room for a batch, with all that the kernel may tell of each datagram.
    ///
    /// It is room for no more than the kernel told of the last one in the same place: nothing puts the lengths back. So on a
    /// wildcard it is made for each batch until datagrams were lost: with the first word on that, which comes before the
    /// address that was asked, both would be too long. After that batch both come with each datagram.
    fn headers() -> MultiHeaders<SockaddrStorage> {
        MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo, u32)))
    }

    fn handle(
        &self,
        arrivals: &[Arrival],
        octets: &[[u8; DATAGRAM]],
        batch: &mut Batch,
        now: Instant,
    ) {
        for (arrival, octets) in arrivals.iter().zip(octets) {
            let asked = arrival.local.map_or(self.own.ip(), |local| local.address);
            let asked = SocketAddr::new(asked, self.own.port());
            let Some(peer) = arrival.peer.filter(|peer| is_client(*peer, asked)) else {
                self.forwarder.ignore();
                continue;
            };
            let client = Client::Datagram {
                socket: Arc::clone(&self.socket),
                peer,
                local: arrival.local,
            };
            self.forwarder
                .handle(&octets[..arrival.length], client, now, batch);
        }
        self.forwarder.dispatch(batch, now);
    }
}

/// Whether an answer to `peer` reaches somebody who asked: not many, nobody, or us at `asked`, who would answer it again.
fn is_client(peer: SocketAddr, asked: SocketAddr) -> bool {
    let address = peer.ip().to_canonical();
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let nobody = peer.port() == 0 || address.is_unspecified();
    !(broadcast || nobody || address.is_multicast() || peer == asked)
}

/// What is known of a datagram besides its octets.
struct Arrival {
    length: usize,
    peer: Option<SocketAddr>,
    /// The address that it was sent to, where the socket tells.
    local: Option<Local>,
    /// Datagrams that the socket has lost so far, where it tells.
    lost: Option<u32>,
}

impl Arrival {
    fn of(datagram: &RecvMsg<'_, '_, SockaddrStorage>) -> Self {
        let mut arrival = Self {
            length: datagram.bytes,
            peer: datagram.address.and_then(to_address),
            local: None,
            lost: None,
        };
        for control in datagram.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    arrival.local = Some(Local {
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
                    arrival.local = Some(Local {
                        address: address.into(),
                        interface,
                    });
                }
                ControlMessageOwned::RxqOvfl(lost) => arrival.lost = Some(lost),
                _ => {}
            }
        }
        arrival
    }
}

/// What a socket's count of lost datagrams amounts to.
///
/// The kernel tells it with each datagram once one was lost, where there is room for its word. For that alone new room is
/// made only when there may be something new to hear: after whole batches, without which no queue is full, and once a second
/// at most.
#[derive(Debug, Default)]
struct Losses {
    /// The count that was heard last. It wraps around.
    heard: u32,
    /// When some were lost last.
    last: Option<Instant>,
    unsaid: u64,
    said: Option<Instant>,
    /// There was a whole batch since there was room for the kernel's word.
    pressed: bool,
    room_made: Option<Instant>,
}

impl Losses {
    /// Takes in the socket's count, if it told one; returns how many are new. Says so now and then.
    fn hear(&mut self, count: Option<u32>, now: Instant) -> u64 {
        let Some(count) = count else { return 0 };
        let new = count.wrapping_sub(self.heard).into();
        self.heard = count;
        self.unsaid += new;
        if new > 0 {
            self.last = Some(now);
        }
        let due = self.said.is_none_or(|said| now >= said + SAY_AGAIN);
        if due && self.unsaid > 0 {
            warn!("event=datagrams-lost count={}", self.unsaid);
            (self.unsaid, self.said) = (0, Some(now));
        }
        new
    }

    /// Whether some were lost within the last second.
    fn are_recent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now < last + HEAR_AGAIN)
    }

    /// Whether the kernel has told of any.
    fn were_heard(&self) -> bool {
        self.heard != 0
    }

    /// Whether room is to be made for the kernel's word, after a batch of so many.
    fn may_be_unheard(&mut self, arrivals: usize, now: Instant) -> bool {
        self.pressed |= arrivals == BATCH;
        let due = self.room_made.is_none_or(|made| now >= made + HEAR_AGAIN);
        let unheard = self.pressed && due;
        if unheard {
            (self.pressed, self.room_made) = (false, Some(now));
        }
        unheard
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
    use super::*;

    #[test]
    fn who_cannot_have_asked_is_no_client() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let asked = address("192.0.2.1:53");
        for (peer, expected) in [
            ("192.0.2.1:5353", true),
            ("192.0.2.9:53", true),
            ("[2001:db8::1]:1024", true),
            ("192.0.2.1:53", false),
            ("192.0.2.9:0", false),
            ("0.0.0.0:1024", false),
            ("255.255.255.255:1024", false),
            ("[::ffff:255.255.255.255]:1024", false),
            ("224.0.0.251:5353", false),
            ("[ff02::fb]:5353", false),
        ] {
            assert_eq!(is_client(address(peer), asked), expected, "{peer}");
        }
    }
}
