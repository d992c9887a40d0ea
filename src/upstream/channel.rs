//! How do octets become messages on a connection, and messages octets?
//!
//! A channel is TLS to an authenticated resolver, or nothing at all: cleartext, to a server that the operator named for a zone.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};

use rustls::ClientConnection;
use rustls::pki_types::CertificateDer;

use super::handshake::{TlsParameters, error_text};
use crate::message::QueryForm;
use crate::message::framing::FrameBuffer;

/// Why a session ended.
#[derive(Debug)]
pub enum CloseReason {
    /// The resolver closed it, which it may at any time (RFC 7858 section 3.4).
    ByPeer,
    /// The session was closed from this side.
    Local,
    /// Reading or writing failed.
    Io(io::Error),
    /// The resolver sent something that is no DNS message, so message boundaries are lost.
    Malformed,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer => write!(f, "closed"),
            Self::Local => write!(f, "closed here"),
            Self::Io(error) => write!(f, "{}", error_text(error)),
            Self::Malformed => write!(f, "the resolver sent something that is no DNS message"),
        }
    }
}

/// The layer between messages and the socket.
#[derive(Debug)]
pub(super) enum Channel {
    /// TLS, after its handshake.
    Tls(Box<ClientConnection>),
    /// None: the messages that are to be written.
    Cleartext(Vec<u8>),
}

impl Channel {
    /// The form in which a query is sent here: padding hides lengths in TLS, and only there (RFC 7830 section 6).
    pub(super) fn form(&self, form: QueryForm) -> QueryForm {
        match (self, form) {
            (Self::Cleartext(_), QueryForm::Padded) => QueryForm::Unpadded,
            _ => form,
        }
    }

    /// Takes a message with its length prefix. Each message has a TLS record of its own: some servers in use read one message per record,
    /// and then wait for the network.
    pub(super) fn push(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Tls(tls) => tls.writer().write_all(message),
            Self::Cleartext(outgoing) => {
                outgoing.extend_from_slice(message);
                Ok(())
            }
        }
    }

    /// Appends to `out` what is to be written to the socket.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tls(tls) => {
                while tls.wants_write() {
                    tls.write_tls(out)?;
                }
            }
            Self::Cleartext(outgoing) => out.append(outgoing),
        }
        Ok(())
    }

    /// Appends to `frames` what has arrived from the socket.
    pub(super) fn receive(
        &mut self,
        mut arrived: &[u8],
        frames: &mut FrameBuffer,
    ) -> Result<(), CloseReason> {
        match self {
            Self::Tls(tls) => decrypt(tls, arrived, frames),
            Self::Cleartext(_) => {
                while !arrived.is_empty() {
                    frames
                        .fill(|room| arrived.read(room))
                        .map_err(CloseReason::Io)?;
                }
                Ok(())
            }
        }
    }

    /// Announces the end, where the channel has a way to do that.
    pub(super) fn send_close_notify(&mut self) {
        if let Self::Tls(tls) = self {
            tls.send_close_notify();
        }
    }

    /// What was negotiated; none in cleartext.
    pub(super) fn tls_parameters(&self) -> Option<TlsParameters> {
        match self {
            Self::Tls(tls) => Some(TlsParameters::of(tls)),
            Self::Cleartext(_) => None,
        }
    }

    /// The certificates that the resolver presented, leaf first.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        match self {
            Self::Tls(tls) => tls.peer_certificates().unwrap_or_default(),
            Self::Cleartext(_) => &[],
        }
    }
}

/// Decrypts what has arrived, and appends it to `frames`.
fn decrypt(
    tls: &mut ClientConnection,
    mut encrypted: &[u8],
    frames: &mut FrameBuffer,
) -> Result<(), CloseReason> {
    let broken =
        |error: rustls::Error| CloseReason::Io(io::Error::new(ErrorKind::InvalidData, error));
    // rustls accepts a limited amount at a time.
    while !encrypted.is_empty() {
        tls.read_tls(&mut encrypted).map_err(CloseReason::Io)?;
        let processed = tls.process_new_packets();
        // Also reads what came before an error. Ends with "would block", or with zero once the resolver has closed.
        while let Ok(1..) = frames.fill(|room| tls.reader().read(room)) {}
        let state = processed.map_err(broken)?;
        if state.peer_has_closed() {
            return Err(CloseReason::ByPeer);
        }
    }
    Ok(())
}
