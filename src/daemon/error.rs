//! Why could serving not begin?

use std::fmt;
use std::io;

use crate::config::sources::UsageError;
use crate::server::sockets::BindError;
use crate::system::privileges::PrivilegeError;
use crate::system::scoped_address::ScopedAddress;

/// Why the daemon could not start.
#[derive(Debug)]
pub enum StartError {
    /// A socket could not be bound.
    Bind(BindError),
    /// Privileges could not be dropped.
    Privileges(PrivilegeError),
    /// The pin file or a hosts file cannot be read, or the state directory cannot be written.
    TrustFiles(String),
    /// A route leads to the forwarder itself.
    RouteLoop(UsageError),
    /// The monitoring port could not be bound.
    Monitor(ScopedAddress, io::Error),
    /// The system has no more threads or file descriptors.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Privileges(error) => error.fmt(f),
            Self::TrustFiles(error) => error.fmt(f),
            Self::RouteLoop(error) => error.fmt(f),
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
