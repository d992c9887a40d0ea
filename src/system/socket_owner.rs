//! Whose process is at the other end of a connection on this host?
//!
//! The kernel tells which user owns a TCP socket (sock_diag(7)) when asked for the socket at the other end. The request and the
//! answer have a fixed length, and no list is read.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Constants of linux/sock_diag.h and linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
/// Constants of the socket API.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// Octets of `struct nlmsghdr`, and of it with `struct inet_diag_req_v2`.
const NLMSGHDR_LEN: usize = 16;
const REQUEST_LEN: usize = NLMSGHDR_LEN + 56;
/// Offset of `idiag_uid` in an answer: after the header, four octets, a `struct inet_diag_sockid` and three numbers.
const UID_OFFSET: usize = NLMSGHDR_LEN + 4 + 48 + 12;

/// The user who owns the TCP socket at `peer` that is connected to `local`. `None` if it is not on this host or the kernel does
/// not tell.
pub fn tcp_peer_uid(peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let family = AddressFamily::NETLINK;
    let kind = SocketType::DGRAM;
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, protocol).ok()?;
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(
        socket.as_fd(),
        &request(peer, local)?,
        SendFlags::empty(),
        &kernel,
    )
    .ok()?;
    let mut answer = [0; 512];
    // The kernel answers before `sendto` returns.
    let (length, _) = recv(socket.as_fd(), &mut answer, RecvFlags::DONTWAIT).ok()?;
    parse_uid(answer.get(..length)?)
}

/// The request for the socket whose own address is `peer` and whose peer is `local`.
fn request(peer: SocketAddr, local: SocketAddr) -> Option<[u8; REQUEST_LEN]> {
    // An IPv4 client of an IPv6 socket has an IPv4 socket.
    let [from, to] = [peer, local].map(|end| end.ip().to_canonical());
    let family = if from.is_ipv4() { AF_INET } else { AF_INET6 };
    let all_states = u32::MAX;
    let fields: [&[u8]; 12] = [
        &u32::try_from(REQUEST_LEN).ok()?.to_ne_bytes(),
        &SOCK_DIAG_BY_FAMILY.to_ne_bytes(),
        &NLM_F_REQUEST.to_ne_bytes(),
        // Sequence number and port ID, which are not used.
        &[0; 8],
        &[family, IPPROTO_TCP, 0, 0],
        &all_states.to_ne_bytes(),
        &peer.port().to_be_bytes(),
        &local.port().to_be_bytes(),
        &octets(from),
        &octets(to),
        // Any interface.
        &[0; 4],
        // INET_DIAG_NOCOOKIE: any socket with these addresses.
        &[0xff; 8],
    ];
    fields.concat().try_into().ok()
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The user in an answer. `None` for an error message, which is shorter or of another type.
fn parse_uid(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let uid = u32::from_ne_bytes(*answer.get(UID_OFFSET..)?.first_chunk()?);
    (kind == SOCK_DIAG_BY_FAMILY).then_some(uid)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_kernel_tells_the_owner_of_the_other_end() {
        let myself = std::fs::metadata("/proc/self").expect("Linux").uid();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let local = listener.local_addr().expect("bound");
            let client = TcpStream::connect(local).expect("it listens");
            let peer = client.local_addr().expect("connected");
            assert_eq!(tcp_peer_uid(peer, local), Some(myself), "{address}");
            assert_eq!(
                tcp_peer_uid(local, peer),
                Some(myself),
                "the other way round"
            );
        }
    }

    #[test]
    fn a_missing_socket_has_no_owner() {
        let nobody = ["127.0.0.1:1", "127.0.0.1:2"].map(|end| end.parse().expect("an address"));
        assert_eq!(tcp_peer_uid(nobody[0], nobody[1]), None);
    }
}
