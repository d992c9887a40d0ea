//! When does the network change?
//!
//! The kernel tells of each change of a link, an address or a route (rtnetlink(7)). What it says is not read: that something changed is all
//! that is known. One change makes many messages, and some hosts change all the time, so bursts count as one change, and changes are
//! reported at a bounded rate.

use std::io::{self, PipeReader, PipeWriter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::system::clock;

/// The groups of messages: changes of links, and of the addresses and routes of both families.
const GROUPS: i32 = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE;
/// A burst of messages ends after this time without one, and counts as ended after [`LONGEST_BURST`].
const QUIET: Duration = Duration::from_millis(100);
/// How long a burst may last before it is reported all the same.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// At most two changes are reported in this time: one when the network goes, and soon after it one when it comes back.
const TWO_REPORTS: Duration = Duration::from_secs(2);
/// How long messages are left to gather in the kernel during a burst, and how many are taken at a time. The kernel drops what does not fit
/// into the socket's buffer, and says so.
const GATHER: Duration = Duration::from_millis(50);
const MAX_MESSAGES: usize = 64;

/// When is a burst of messages reported?
#[derive(Debug, Default)]
struct BurstRule {
    /// When the first and the last message of the burst came, which was not reported yet.
    burst: Option<(Instant, Instant)>,
    /// When the last but one and the last report were.
    reports: [Option<Instant>; 2],
}

impl BurstRule {
    /// Records that messages came.
    fn record(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// When the burst is to be reported, if no more messages come.
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.burst?;
        let ends = (last + QUIET).min(first + LONGEST_BURST);
        let allowed = self.reports[0].map_or(ends, |report| report + TWO_REPORTS);
        Some(ends.max(allowed))
    }

    /// Returns true if the burst is to be reported now, and records the report.
    fn take_report(&mut self, now: Instant) -> bool {
        let is_due = self.due().is_some_and(|due| due <= now);
        if is_due {
            self.burst = None;
            self.reports = [self.reports[1], Some(now)];
        }
        is_due
    }
}

/// Watches this host's links, addresses and routes. It needs no privileges.
#[derive(Debug)]
pub struct NetworkWatcher {
    socket: OwnedFd,
    stop: PipeReader,
    rule: BurstRule,
}

impl NetworkWatcher {
    /// Watches until the returned writer is dropped. Fails if the system has no such socket for this process, or no pipe.
    pub fn new() -> io::Result<(Self, PipeWriter)> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        // Port 0: the kernel chooses.
        bind(
            socket.as_raw_fd(),
            &NetlinkAddr::new(0, GROUPS.cast_unsigned()),
        )?;
        let (stop, writer) = io::pipe()?;
        let watcher = Self {
            socket,
            stop,
            rule: BurstRule::default(),
        };
        Ok((watcher, writer))
    }

    /// Waits for the next change: several in a short time are one. Returns false once the writer is dropped.
    ///
    /// # Errors
    ///
    /// What the system says if the socket is broken.
    pub fn wait(&mut self) -> io::Result<bool> {
        loop {
            let now = clock::now();
            if self.take_messages()? {
                self.rule.record(now);
            }
            if self.rule.take_report(now) {
                return Ok(true);
            }
            // During a burst, only its end is waited for.
            let pause = self.rule.due().map(|due| {
                let left = due.saturating_duration_since(now);
                left.max(Duration::from_millis(1)).min(GATHER)
            });
            if self.wait_for_message(pause)? {
                return Ok(false);
            }
        }
    }

    /// Waits for `pause`, or for a message if there is none. Returns true if the writer was dropped.
    fn wait_for_message(&self, pause: Option<Duration>) -> io::Result<bool> {
        let mut ready = [
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
        ];
        let (ready, timeout) = match pause {
            Some(pause) => (&mut ready[..1], PollTimeout::try_from(pause).ok()),
            None => (&mut ready[..], None),
        };
        match poll(ready, timeout.unwrap_or(PollTimeout::NONE)) {
            Ok(_) => Ok(ready[0].any().unwrap_or(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the messages that are there. Returns true if there were some.
    fn take_messages(&self) -> io::Result<bool> {
        // The rest of each message is discarded.
        let mut start = [0; 16];
        for taken in 0..MAX_MESSAGES {
            match recv(self.socket.as_raw_fd(), &mut start, MsgFlags::MSG_DONTWAIT) {
                // The buffer was full: there were more than those that are in it.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(taken > 0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// The address of this host from which packets to `host` leave now. No packet is sent to find out.
///
/// # Errors
///
/// What the system says if there is no route.
pub fn local_address_towards(host: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match host {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(host)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the rule reports, of messages at these milliseconds.
    fn reports(messages: &[u64]) -> Vec<u64> {
        let start = clock::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let (mut rule, mut reports) = (BurstRule::default(), Vec::new());
        let end = messages.last().expect("a message") + 10_000;
        for now in 0..=end {
            if messages.contains(&now) {
                rule.record(at(now));
            }
            let due = rule.due();
            if rule.take_report(at(now)) {
                assert_eq!(due, Some(at(now)), "neither early nor late");
                reports.push(now);
            }
        }
        assert_eq!(rule.due(), None);
        reports
    }

    #[test]
    fn a_burst_is_one_change_which_is_reported_when_it_is_quiet() {
        assert_eq!(reports(&[0]), [100]);
        assert_eq!(reports(&[0, 50, 99, 150]), [250]);
    }

    #[test]
    fn a_long_burst_is_reported_before_it_ends() {
        let messages: Vec<u64> = (0..70).map(|number| number * 10).collect();
        assert_eq!(reports(&messages), [500, 2500 - 1710], "then the rest");
    }

    #[test]
    fn two_changes_are_reported_at_once_and_more_at_one_a_second() {
        assert_eq!(reports(&[0, 300, 600, 900]), [100, 400, 2100]);
        let messages: Vec<u64> = (0..10_000).step_by(20).collect();
        let reports = reports(&messages);
        assert!((9..=12).contains(&reports.len()), "{reports:?}");
        for three in reports.windows(3) {
            assert!(three[2] - three[0] >= 2000, "{reports:?}");
        }
    }

    #[test]
    fn the_watch_ends_when_its_writer_is_dropped() {
        // Where a sandbox forbids the socket, there is nothing to test.
        let Ok((mut watcher, writer)) = NetworkWatcher::new() else {
            return;
        };
        drop(writer);
        // Another test or program may change the network meanwhile.
        while watcher.wait().expect("the socket works") {}
    }

    #[test]
    fn packets_to_this_host_leave_from_the_address_that_they_go_to() {
        for host in ["127.0.0.1:853", "127.0.0.2:853"] {
            let host: SocketAddr = host.parse().expect("an address");
            let local = local_address_towards(host).expect("a route");
            assert!(local.is_loopback(), "{local}");
        }
    }
}
