//! Which processes have a port of this host?
//!
//! The kernel lists the sockets of this network namespace in /proc/net, each with its inode; the descriptors of a process lead to the
//! inodes of its sockets (proc(5)). Those of another user's processes, and of dns-tool, which hides its own, are visible to root alone, and those of another PID namespace to
//! nobody.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Octets of one list of sockets that are read, and file descriptors of all processes together that are looked at, at most. A large
/// server has a few hundred thousand of each.
const MAX_LIST_LEN: u64 = 64 * 1024 * 1024;
const MAX_DESCRIPTORS: usize = 1_000_000;
/// The state of a TCP socket that listens (TCP_LISTEN of the kernel), as the list of sockets writes it.
const LISTEN: &str = "0A";
/// The name of this program.
const PROGRAM: &str = env!("CARGO_PKG_NAME");

/// A process that has a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Its process ID.
    pub pid: u32,
    /// The name of its program: at most 15 octets, which the process can change.
    pub name: String,
    /// It runs this program, of this version or another one.
    pub is_dns_tool: bool,
}

/// The processes with a UDP socket or a listening TCP socket that keeps others from `address`, in the order of their IDs. Empty if there is
/// none, or if none is visible to this user.
pub fn port_owners(address: SocketAddr) -> Vec<PortOwner> {
    let lists = ["udp", "udp6", "tcp", "tcp6"].into_iter();
    let inodes: Vec<u64> = lists.flat_map(|list| inodes(list, address)).collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let mut descriptors_left = MAX_DESCRIPTORS;
    let mut owners: Vec<_> = processes()
        .filter(|(_, folder)| has_one_of(folder, &inodes, &mut descriptors_left))
        .map(|(pid, folder)| owner(pid, &folder))
        .collect();
    owners.sort_unstable_by_key(|owner| owner.pid);
    owners
}

/// The inodes of the sockets in a list of the kernel that keep others from `address`.
fn inodes(list: &str, address: SocketAddr) -> Vec<u64> {
    let Ok(file) = File::open(Path::new("/proc/self/net").join(list)) else {
        return Vec::new();
    };
    let lines = BufReader::new(file.take(MAX_LIST_LEN)).lines();
    let is_tcp = list.starts_with("tcp");
    let sockets = lines
        .map_while(Result::ok)
        .filter_map(|line| ListedSocket::parse(&line));
    sockets
        .filter(|socket| socket.is_listening || !is_tcp)
        .filter(|socket| conflicts(socket.address, address))
        .map(|socket| socket.inode)
        .collect()
}

/// A socket in a list of the kernel.
#[derive(Debug, PartialEq, Eq)]
struct ListedSocket {
    address: SocketAddr,
    is_listening: bool,
    inode: u64,
}

impl ListedSocket {
    /// Parses a line. `None` for the heading.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let (host, port) = local.split_once(':')?;
        // After the state come queues, timer, retransmissions, user and timeout.
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self {
            address: SocketAddr::new(parse_host(host)?, u16::from_str_radix(port, 16).ok()?),
            is_listening: state == LISTEN,
            inode,
        })
    }
}

/// Parses an address that the kernel writes as numbers of 32 bits, each in the octet order of the host.
fn parse_host(hexadecimal: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = hexadecimal.get(at..at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hexadecimal.len() {
        8 => Some(word(0)?.into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.as_flattened().try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Whether a socket that has `taken` keeps others from `wanted`: the same address, or one of the two is the wildcard that has the other.
/// A socket on `::` may have IPv4 as well; the list does not tell.
fn conflicts(taken: SocketAddr, wanted: SocketAddr) -> bool {
    let (theirs, ours) = (taken.ip().to_canonical(), wanted.ip().to_canonical());
    let same_family = theirs.is_ipv4() == ours.is_ipv4();
    taken.port() == wanted.port()
        && (theirs == ours
            || theirs.is_unspecified() && (same_family || theirs.is_ipv6())
            || ours.is_unspecified() && same_family)
}

/// The IDs of all processes and their folders in /proc.
fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}

/// Whether a process has one of these sockets. Counts the descriptors that it looks at down.
fn has_one_of(folder: &Path, inodes: &[u64], descriptors_left: &mut usize) -> bool {
    let Ok(descriptors) = fs::read_dir(folder.join("fd")) else {
        return false;
    };
    let mut found = false;
    for descriptor in descriptors.flatten() {
        if *descriptors_left == 0 || found {
            break;
        }
        *descriptors_left -= 1;
        let target = fs::read_link(descriptor.path());
        let inode = target.ok().and_then(|target| socket_inode(&target));
        found = inode.is_some_and(|inode| inodes.contains(&inode));
    }
    found
}

/// The inode in the target of a descriptor's link, `socket:[INODE]`.
fn socket_inode(target: &Path) -> Option<u64> {
    let inode = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    inode.parse().ok()
}

fn owner(pid: u32, folder: &Path) -> PortOwner {
    let name = fs::read(folder.join("comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    let file_of = |folder: &Path| {
        let metadata = fs::metadata(folder.join("exe")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let own = file_of(Path::new("/proc/self"));
    PortOwner {
        pid,
        // Under another name it is the same file, and after an update another one of the same name.
        is_dns_tool: name == PROGRAM || own.is_some() && file_of(folder) == own,
        name,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_line_of_the_list_is_an_address_a_state_and_an_inode() {
        if cfg!(target_endian = "big") {
            return;
        }
        for (line, address, is_listening, inode) in [
            (
                "  12: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 4711 2 0000 0",
                "127.0.0.1:53",
                false,
                4711,
            ),
            (
                "   0: 00000000000000000000000001000000:14E9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 \
                 00000000     0        0 12 1 0000000000000000 100 0 0 10 0",
                "[::1]:5353",
                true,
                12,
            ),
        ] {
            let socket = ListedSocket {
                address: address.parse().expect("an address"),
                is_listening,
                inode,
            };
            assert_eq!(ListedSocket::parse(line), Some(socket), "{line}");
        }
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        for line in [
            heading,
            "",
            "1: x:y 0:0 07",
            "0: 01:0035 0:0 07 0 0 0 0 0 1",
        ] {
            assert_eq!(ListedSocket::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_socket_keeps_others_from_its_address_and_a_wildcard_from_all() {
        for (taken, wanted, expected) in [
            ("127.0.0.1:53", "127.0.0.1:53", true),
            ("127.0.0.1:53", "127.0.0.1:54", false),
            ("127.0.0.2:53", "127.0.0.1:53", false),
            ("0.0.0.0:53", "127.0.0.1:53", true),
            ("127.0.0.1:53", "0.0.0.0:53", true),
            ("[::]:53", "127.0.0.1:53", true),
            ("[::]:53", "[::1]:53", true),
            ("[::ffff:127.0.0.1]:53", "127.0.0.1:53", true),
            // One that listens on `::` takes IPv6 alone.
            ("127.0.0.1:53", "[::]:53", false),
            ("0.0.0.0:53", "[::1]:53", false),
        ] {
            let [taken, wanted] = [taken, wanted].map(|text| text.parse().expect("an address"));
            assert_eq!(conflicts(taken, wanted), expected, "{taken} {wanted}");
        }
    }

    #[test]
    fn the_owner_of_a_port_is_found_by_udp_and_by_tcp() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        for address in [udp.local_addr(), tcp.local_addr()] {
            let address = address.expect("bound");
            let owners = port_owners(address);
            let pids: Vec<_> = owners.iter().map(|owner| owner.pid).collect();
            assert!(pids.contains(&std::process::id()), "{address}: {owners:?}");
            assert!(owners.iter().all(|owner| owner.is_dns_tool), "{owners:?}");
        }
        let port = tcp.local_addr().expect("bound").port();
        assert_eq!(port_owners(([127, 9, 8, 7], port).into()), []);
    }
}
