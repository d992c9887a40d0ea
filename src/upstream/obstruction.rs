//! What keeps all addresses of a resolver from being reached?
//!
//! A captive portal, or a network that blocks DNS over TLS, makes all addresses fail in the same way. The rules alone; time is passed in.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::handshake::{ConnectError, is_no_tls};
use crate::identity::verify_error::Check;

/// How often in a row, and for how long, an address must fail in the same way: a resolver that restarts refuses connections, too.
const LASTING: (u32, Duration) = (2, Duration::from_secs(3));

/// What a failed attempt to open a session says about the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFault {
    /// This host has no way to the address, as to IPv6 addresses in many networks.
    NoRoute,
    /// What a network may be the cause of.
    Obstructed(Obstruction),
    /// Something else.
    Other,
}

impl NetworkFault {
    /// The kind of this failure at an address of the resolver `name`.
    pub fn of(error: &ConnectError, name: &str) -> Self {
        match error {
            ConnectError::Handshake(cause) if is_no_tls(cause) => {
                Self::Obstructed(Obstruction::OtherServer)
            }
            ConnectError::Connect(cause) | ConnectError::Handshake(cause) => {
                Self::of_connection(cause)
            }
            ConnectError::Identity(refusal) => match refusal.check {
                Check::Name => Self::Obstructed(Obstruction::OtherServer),
                // The resolver's own certificate may have expired, or be from an authority that is not known here.
                Check::Chain if !refusal.names.iter().any(|own| own == name) => {
                    Self::Obstructed(Obstruction::OtherServer)
                }
                Check::Chain | Check::Pin | Check::Clock => Self::Other,
            },
            ConnectError::KeyExchange(_) => Self::Other,
        }
    }

    fn of_connection(cause: &io::Error) -> Self {
        match cause.kind() {
            ErrorKind::TimedOut => Self::Obstructed(Obstruction::NoAnswer),
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::UnexpectedEof => Self::Obstructed(Obstruction::Closed),
            ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable => Self::NoRoute,
            _ if cause.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => Self::NoRoute,
            _ => Self::Other,
        }
    }
}

/// What the network seems to do to connections to the resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstruction {
    /// Another server answers: one with a certificate of another name or authority, or one without TLS.
    OtherServer,
    /// Connections are refused, or closed in the handshake.
    Closed,
    /// Nothing answers.
    NoAnswer,
}

impl Obstruction {
    /// The obstruction that explains the failures of all addresses; none if an address did not fail, or if they fail in different ways.
    pub fn common(failures: impl IntoIterator<Item = Option<NetworkFault>>) -> Option<Self> {
        let mut common = None;
        for failure in failures {
            match failure? {
                NetworkFault::NoRoute => {}
                NetworkFault::Obstructed(found) if common.is_none_or(|known| known == found) => {
                    common = Some(found);
                }
                NetworkFault::Obstructed(_) | NetworkFault::Other => return None,
            }
        }
        common
    }

    /// The word for logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherServer => "other-server",
            Self::Closed => "closed",
            Self::NoAnswer => "no-answer",
        }
    }

    /// What it looks like.
    pub fn cause(self) -> &'static str {
        match self {
            Self::OtherServer => {
                "another server answers on each address: it looks like a captive portal"
            }
            Self::Closed => {
                "each address refuses or closes connections: it looks like a captive portal, or a network that blocks DNS over TLS"
            }
            Self::NoAnswer => {
                "no address answers: it looks like a network that blocks the port of DNS over TLS, a captive portal, or no network"
            }
        }
    }

    /// The cause and the remedy in short, as an appendix for a person.
    pub fn note(self) -> &'static str {
        match self {
            Self::OtherServer => ": another server answers, log in to the network with a browser",
            Self::Closed => ": the network closes connections, log in to it with a browser",
            Self::NoAnswer => {
                ": nothing answers, log in to the network with a browser if it has a login"
            }
        }
    }

    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::OtherServer => {
                "log in to the network with a browser; elsewhere, see that the resolver's address and name are right"
            }
            Self::Closed | Self::NoAnswer => {
                "log in to the network with a browser, or name a further --resolver on a port that the network lets through"
            }
        }
    }
}

/// How an address failed lately, again and again in the same way.
#[derive(Debug, Clone, Copy)]
pub(super) struct FailureRun {
    kind: NetworkFault,
    count: u32,
    since: Instant,
}

impl FailureRun {
    /// The run after one more failure.
    pub(super) fn after(before: Option<Self>, kind: NetworkFault, now: Instant) -> Self {
        match before.filter(|run| run.kind == kind) {
            Some(run) => Self {
                count: run.count.saturating_add(1),
                ..run
            },
            None => Self {
                kind,
                count: 1,
                since: now,
            },
        }
    }

    /// The kind of the failures, if they have lasted for long enough to say something.
    pub(super) fn lasting_kind(&self, now: Instant) -> Option<NetworkFault> {
        let (count, time) = LASTING;
        let has_lasted = self.count >= count && now >= self.since + time;
        (has_lasted || self.kind == NetworkFault::NoRoute).then_some(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::verify_error::VerifyError;
    use NetworkFault::{NoRoute, Obstructed, Other};
    use Obstruction::{Closed, NoAnswer, OtherServer};

    const NAME: &str = "resolver.test";

    fn connect(kind: ErrorKind) -> NetworkFault {
        NetworkFault::of(&ConnectError::Connect(kind.into()), NAME)
    }

    #[test]
    fn all_addresses_must_fail_in_the_same_way() {
        let of = |failures: &[Option<NetworkFault>]| Obstruction::common(failures.iter().copied());
        for found in [OtherServer, Closed, NoAnswer] {
            assert_eq!(of(&[Some(Obstructed(found))]), Some(found));
            assert_eq!(of(&[Some(Obstructed(found)); 4]), Some(found));
            assert_eq!(of(&[Some(Obstructed(found)), None]), None, "one works");
            assert_eq!(of(&[Some(Obstructed(found)), Some(Other)]), None);
            let mixed = [Some(NoRoute), Some(Obstructed(found)), Some(NoRoute)];
            assert_eq!(of(&mixed), Some(found), "a network without IPv6");
        }
        assert_eq!(
            of(&[Some(Obstructed(Closed)), Some(Obstructed(NoAnswer))]),
            None
        );
        assert_eq!(of(&[Some(NoRoute); 2]), None, "there is no network");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn failures_of_the_network_are_told_from_others() {
        assert_eq!(connect(ErrorKind::TimedOut), Obstructed(NoAnswer));
        assert_eq!(connect(ErrorKind::ConnectionRefused), Obstructed(Closed));
        assert_eq!(connect(ErrorKind::NetworkUnreachable), NoRoute);
        assert_eq!(connect(ErrorKind::PermissionDenied), Other);
        assert_eq!(
            NetworkFault::of(
                &ConnectError::Connect(io::Error::from_raw_os_error(Errno::EAFNOSUPPORT as i32)),
                NAME
            ),
            NoRoute,
            "a kernel without IPv6"
        );
        let handshake = |error: io::Error| NetworkFault::of(&ConnectError::Handshake(error), NAME);
        assert_eq!(
            handshake(ErrorKind::UnexpectedEof.into()),
            Obstructed(Closed)
        );
        assert_eq!(handshake(ErrorKind::TimedOut.into()), Obstructed(NoAnswer));
        let of_tls =
            |error: rustls::Error| handshake(io::Error::new(ErrorKind::InvalidData, error));
        let no_tls = rustls::InvalidMessage::InvalidContentType;
        assert_eq!(of_tls(no_tls.into()), Obstructed(OtherServer));
        let alert = rustls::AlertDescription::HandshakeFailure;
        assert_eq!(of_tls(rustls::Error::AlertReceived(alert)), Other);
        let of_group = ConnectError::KeyExchange(ErrorKind::InvalidData.into());
        assert_eq!(NetworkFault::of(&of_group, NAME), Other);
    }

    #[test]
    fn only_a_certificate_of_another_name_is_another_servers() {
        let refused = |check: Check, name: &str| {
            let refusal = VerifyError {
                check,
                expected: String::new(),
                cause: String::new(),
                names: vec![name.to_owned()],
                pins: Vec::new(),
                not_before: None,
            };
            NetworkFault::of(&ConnectError::Identity(Box::new(refusal)), NAME)
        };
        let portal = "portal.hotel.test";
        assert_eq!(refused(Check::Name, portal), Obstructed(OtherServer));
        assert_eq!(refused(Check::Chain, portal), Obstructed(OtherServer));
        assert_eq!(refused(Check::Chain, NAME), Other, "it may have expired");
        assert_eq!(refused(Check::Pin, NAME), Other);
        assert_eq!(refused(Check::Clock, NAME), Other);
    }

    #[test]
    fn one_failure_says_nothing_and_a_short_time_neither() {
        let now = crate::system::clock::now();
        let kind = Obstructed(Closed);
        let first = FailureRun::after(None, kind, now);
        assert_eq!(first.lasting_kind(now + LASTING.1), None, "once");
        let second = FailureRun::after(Some(first), kind, now + LASTING.1);
        assert_eq!(second.lasting_kind(now), None, "a moment");
        assert_eq!(second.lasting_kind(now + LASTING.1), Some(kind));
        let other = FailureRun::after(Some(second), Obstructed(NoAnswer), now + LASTING.1);
        assert_eq!(other.lasting_kind(now + 2 * LASTING.1), None, "another way");
        let no_route = FailureRun::after(None, NoRoute, now);
        assert_eq!(no_route.lasting_kind(now), Some(NoRoute));
    }
}
