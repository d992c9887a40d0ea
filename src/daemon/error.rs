//! Why could serving not begin?

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::server::sockets::BindError;
use crate::system::privileges::PrivilegeError;

/// Why serving could not begin.
#[derive(Debug)]
pub enum StartError {
    /// A socket could not be had.
    Bind(BindError),
    /// It would have had more rights than it should.
    Privileges(PrivilegeError),
    /// What is to be read and written while it serves cannot be.
    TrustFiles(String),
    /// The monitoring port could not be had.
    Monitor(SocketAddr, io::Error),
    /// The system has no more threads or descriptors.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Privileges(error) => error.fmt(f),
            Self::TrustFiles(error) => error.fmt(f),
            Self::Monitor(address, error) => write!(
                f,
                "--monitor {address}: {error}; expected an address of this host and a free port"
            ),
            Self::System(error) => {
                write!(f, "the system refuses a thread or a descriptor: {error}")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl From<PrivilegeError> for StartError {
    fn from(error: PrivilegeError) -> Self {
        Self::Privileges(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}
