//! How is a resolver connected to and authenticated?

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, PeerMisbehaved,
    ProtocolVersion,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::hello_size::OBSERVATIONS;
use crate::identity::chain::VerifiedPeer;
use crate::identity::key_exchange::{Group, HelloSize, KeyExchange};
use crate::identity::verifier::{Identity, as_verify_error};
use crate::identity::verify_error::VerifyError;
use crate::system::clock;
use crate::system::deadline::{DeadlineStream, time_left};
use crate::system::scoped_address::ScopedAddress;

/// The socket's send buffer in octets, as far as the system allows. It holds the pending queries, so that only a resolver that does not
/// read fills it.
const SEND_BUFFER: usize = 1024 * 1024;
/// How long sent data may stay unacknowledged, or wait for a resolver that does not read (TCP_USER_TIMEOUT, RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest TCP segment in octets: 1280 (RFC 8200 section 5) less the headers of IPv6 and TCP. A path that silently drops larger packets
/// would stop the session at the first long answer, and again after every reconnection.
const MAX_SEGMENT: u32 = 1220;

/// Why no session could be opened.
#[derive(Debug)]
pub enum ConnectError {
    /// The resolver could not be reached: no TCP connection by the deadline.
    Connect(io::Error),
    /// TCP connected, but the TLS handshake failed.
    Handshake(io::Error),
    /// The resolver did not agree on X25519MLKEM768, which `--key-exchange require` demands.
    KeyExchange(io::Error),
    /// The resolver failed authentication.
    Identity(Box<VerifyError>),
}

impl fmt::Display for ConnectError {
    /// As fields of a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "stage=connect cause=\"{}\"", error_text(error)),
            Self::Handshake(error) => write!(f, "stage=handshake cause=\"{}\"", error_text(error)),
            Self::KeyExchange(error) => write!(
                f,
                "stage=handshake cause=\"no agreement on X25519MLKEM768 in TLS 1.3, which --key-exchange require demands: {}\"",
                error_text(error)
            ),
            Self::Identity(refusal) => refusal.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

/// The error's own text, or plain words for errors without a useful one.
pub(super) fn error_text(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "no answer in time".to_owned(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            "the resolver closed the connection".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Returns true if the handshake failed because the other side does not speak TLS.
pub(super) fn is_no_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// What both sides negotiated in the TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParameters {
    /// The TLS version, `1.3` or `1.2`.
    pub version: &'static str,
    /// The session was resumed from a ticket.
    pub resumed: bool,
    /// The group of the key exchange. A resumed session of TLS 1.3 has one of its own.
    pub group: Group,
    /// The resolver selected DNS over TLS by ALPN (`dot`).
    pub alpn: bool,
}

impl TlsParameters {
    pub(super) fn of(tls: &ClientConnection) -> Self {
        Self {
            version: match tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "unknown",
            },
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            group: Group::of(tls.negotiated_key_exchange_group()),
            alpn: tls.alpn_protocol().is_some(),
        }
    }
}

impl fmt::Display for TlsParameters {
    /// As fields of a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            resumed,
            group,
            ..
        } = self;
        write!(f, "tls={version} kex={group} resumed={resumed}")
    }
}

/// What a resolver presented, and on what terms.
#[derive(Debug)]
pub struct Presented {
    /// Its certificates, leaf first, verified or not.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The group of the key exchange.
    pub group: Group,
    /// The hello that was answered.
    pub hello: HelloSize,
}

/// Completes a TLS handshake with `address` by `deadline`, and returns what was presented. Sends no query.
pub fn inspect(
    address: ScopedAddress,
    identity: &Identity,
    deadline: Instant,
) -> Result<Presented, ConnectError> {
    with_either_hello(identity.has_small_hello(), deadline, |hello, deadline| {
        let socket = connect_socket(address, deadline).map_err(ConnectError::Connect)?;
        let tls = tls_handshake(
            &socket,
            identity.inspection_config(hello),
            identity,
            deadline,
        )?;
        let shown = tls.peer_certificates().unwrap_or_default();
        Ok(Presented {
            certificates: shown
                .iter()
                .cloned()
                .map(CertificateDer::into_owned)
                .collect(),
            group: TlsParameters::of(&tls).group,
            hello,
        })
    })
}

/// Tries the large hello, and the small one, if there is one, after the handshake failed with the large one as often as the pool tries it.
/// For commands, which have no pool that remembers: each large hello gets half of the time that is left.
pub fn with_either_hello<T>(
    has_small: bool,
    deadline: Instant,
    connect: impl Fn(HelloSize, Instant) -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    if !has_small {
        return connect(HelloSize::Large, deadline);
    }
    for _ in 0..OBSERVATIONS {
        let half = deadline.saturating_duration_since(clock::now()) / 2;
        match connect(HelloSize::Large, clock::now() + half) {
            // The time of TCP is not the hello's fault.
            Err(ConnectError::Connect(error)) if error.kind() == ErrorKind::TimedOut => {
                return connect(HelloSize::Large, deadline);
            }
            Err(ConnectError::Handshake(_)) => {}
            other => return other,
        }
    }
    connect(HelloSize::Small, deadline)
}

/// The time at which certificates are checked, by this machine's clock.
pub fn unix_time_now() -> UnixTime {
    UnixTime::since_unix_epoch(clock::unix_time())
}

pub(super) fn connect_socket(address: ScopedAddress, deadline: Instant) -> io::Result<TcpStream> {
    // Each time, since the interface of a link-local address may come, go and have another index then.
    let address = address.resolve()?;
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // The system may grant less.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.set_tcp_nodelay(true)?;
    // Unacknowledged data is given up, also after the session has ended here.
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    // Neither side sends a packet larger than the smallest IPv6 MTU. If the kernel refuses the option, paths are used as they are.
    let _ = socket.set_tcp_mss(MAX_SEGMENT);
    socket.connect_timeout(&address.into(), time_left(deadline)?)?;
    Ok(socket.into())
}

fn tls_handshake(
    socket: &TcpStream,
    config: Arc<ClientConfig>,
    identity: &Identity,
    deadline: Instant,
) -> Result<ClientConnection, ConnectError> {
    let requires = identity.policy().key_exchange == KeyExchange::Require;
    let failed = |error: rustls::Error| match as_verify_error(&error) {
        Some(refusal) => ConnectError::Identity(Box::new(refusal.clone())),
        None if requires && may_lack_group(&error) => {
            ConnectError::KeyExchange(io::Error::new(ErrorKind::InvalidData, error))
        }
        None => ConnectError::Handshake(io::Error::new(ErrorKind::InvalidData, error)),
    };
    let mut tls = ClientConnection::new(config, identity.name().clone()).map_err(failed)?;
    tls.set_buffer_limit(None);
    let mut stream = DeadlineStream::new(socket, deadline);
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut stream)
            .map_err(|error| match error.downcast::<rustls::Error>() {
                Ok(error) => failed(error),
                Err(error) => ConnectError::Handshake(error),
            })?;
    }
    stream.finish().map_err(ConnectError::Handshake)?;
    Ok(tls)
}

/// Returns true if a resolver without X25519MLKEM768 or without TLS 1.3 may cause this error where nothing else is offered.
fn may_lack_group(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::InsufficientSecurity
                | AlertDescription::IllegalParameter
        ) | rustls::Error::PeerIncompatible(_)
            | rustls::Error::PeerMisbehaved(
                PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup
            )
    )
}

pub(super) fn verified_handshake(
    socket: &TcpStream,
    identity: &Identity,
    hello: HelloSize,
    deadline: Instant,
) -> Result<(ClientConnection, VerifiedPeer), ConnectError> {
    let tls = tls_handshake(
        socket,
        Arc::clone(identity.client_config(hello)),
        identity,
        deadline,
    )?;
    // rustls calls no verifier for a resumed session: its certificates are checked against the current time and pins here. After a full
    // handshake this check tells how the policy was satisfied.
    let chain = tls.peer_certificates().unwrap_or_default();
    match identity.check(chain, unix_time_now()) {
        Ok(proof) => Ok((tls, proof)),
        Err(refusal) => Err(ConnectError::Identity(Box::new(refusal))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::identity::key_exchange::HelloSize::{Large, Small};

    fn closed() -> ConnectError {
        ConnectError::Handshake(ErrorKind::ConnectionReset.into())
    }

    /// The hellos that were tried where the first ones end like that and the next succeeds, and how many seconds each was given.
    fn tried(errors: Vec<ConnectError>) -> Vec<(HelloSize, u64)> {
        let (tried, errors) = (RefCell::new(Vec::new()), RefCell::new(errors.into_iter()));
        let begin = clock::now();
        let result = with_either_hello(true, begin + Duration::from_secs(80), |hello, until| {
            let time = until.saturating_duration_since(begin).as_secs_f64();
            tried.borrow_mut().push((hello, time.round() as u64));
            errors.borrow_mut().next().map_or(Ok(()), Err)
        });
        assert!(result.is_ok());
        tried.into_inner()
    }

    #[test]
    fn the_small_hello_is_tried_after_two_handshakes_failed_with_the_large_one() {
        assert_eq!(tried(vec![]), [(Large, 40)]);
        assert_eq!(tried(vec![closed()]), [(Large, 40), (Large, 40)]);
        let expected = [(Large, 40), (Large, 40), (Small, 80)];
        assert_eq!(tried(vec![closed(), closed()]), expected);
    }

    #[test]
    fn a_slow_network_says_nothing_of_the_hello() {
        let late = ConnectError::Connect(ErrorKind::TimedOut.into());
        assert_eq!(tried(vec![late]), [(Large, 40), (Large, 80)]);
    }
}
