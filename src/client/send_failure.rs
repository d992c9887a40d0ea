//! Why was a reply not sent?

use nix::errno::Errno;

/// Why the kernel refused to send a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailure {
    /// A rule of a firewall, a full table of tracked connections, or a filter of the control group (EPERM).
    Firewall,
    /// The send buffer of the socket, the queue of the device or the kernel's memory is full.
    Buffers,
    /// This host has no route to the client.
    Unreachable,
    /// The system call does not exist, or a sandbox hides it.
    Unsupported,
    /// Any other error.
    Other,
}

impl SendFailure {
    /// All causes, in the order of their counters.
    pub const ALL: [Self; 5] = [
        Self::Firewall,
        Self::Buffers,
        Self::Unreachable,
        Self::Unsupported,
        Self::Other,
    ];

    /// The cause of this error of a socket for datagrams.
    pub fn of_datagram(error: Errno) -> Self {
        match error {
            Errno::EPERM => Self::Firewall,
            Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM => Self::Buffers,
            Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN => {
                Self::Unreachable
            }
            Errno::ENOSYS | Errno::EOPNOTSUPP => Self::Unsupported,
            _ => Self::Other,
        }
    }

    /// The cause of this error of a TCP connection. None if the client has closed the connection or no longer acknowledges anything, so
    /// that it is the client that is gone.
    pub fn of_stream(error: Errno) -> Option<Self> {
        match error {
            Errno::EPIPE
            | Errno::ECONNRESET
            | Errno::ECONNABORTED
            | Errno::ENOTCONN
            | Errno::ETIMEDOUT => None,
            _ => Some(Self::of_datagram(error)),
        }
    }

    /// The name of this cause in log lines and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Firewall => "firewall",
            Self::Buffers => "buffers",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "unsupported",
            Self::Other => "other",
        }
    }

    /// What the operator can do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Firewall => {
                "allow replies to the clients in the firewall (OUTPUT) and in IPAddressDeny= of the unit; \
                 if the table of tracked connections is full, raise net.netfilter.nf_conntrack_max"
            }
            Self::Buffers => {
                "raise net.core.wmem_max and net.core.wmem_default, and look for a full queue of the network device"
            }
            Self::Unreachable => "add a route to the network of the clients",
            Self::Unsupported => "allow sendmsg and sendmmsg in the sandbox that dns-tool runs in",
            Self::Other => "see the error",
        }
    }

    /// What `/ready` says while nearly no reply can be sent for this cause.
    pub fn not_ready_reason(self) -> &'static str {
        match self {
            Self::Firewall => "replies cannot be sent: firewall",
            Self::Buffers => "replies cannot be sent: buffers",
            Self::Unreachable => "replies cannot be sent: unreachable",
            Self::Unsupported => "replies cannot be sent: unsupported",
            Self::Other => "replies cannot be sent: other",
        }
    }

    /// Whether the cause may lie in the destination alone. A stranger can forge a source address to which this host has no route.
    pub(super) fn depends_on_destination(self) -> bool {
        matches!(self, Self::Unreachable | Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_counter_of_its_own() {
        for (index, cause) in SendFailure::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index, "{}", cause.name());
        }
    }

    #[test]
    fn errors_of_datagrams_have_the_cause_that_an_operator_can_remove() {
        for (error, cause) in [
            (Errno::EPERM, SendFailure::Firewall),
            (Errno::EAGAIN, SendFailure::Buffers),
            (Errno::ENOBUFS, SendFailure::Buffers),
            (Errno::ENETUNREACH, SendFailure::Unreachable),
            (Errno::EHOSTUNREACH, SendFailure::Unreachable),
            (Errno::ENOSYS, SendFailure::Unsupported),
            (Errno::EINVAL, SendFailure::Other),
            (Errno::EMSGSIZE, SendFailure::Other),
        ] {
            assert_eq!(SendFailure::of_datagram(error), cause, "{error}");
        }
    }

    #[test]
    fn a_client_that_is_gone_is_no_refusal_of_the_kernel() {
        for error in [Errno::EPIPE, Errno::ECONNRESET, Errno::ETIMEDOUT] {
            assert_eq!(SendFailure::of_stream(error), None, "{error}");
        }
        for (error, cause) in [
            (Errno::EPERM, SendFailure::Firewall),
            (Errno::ENOBUFS, SendFailure::Buffers),
            (Errno::EHOSTUNREACH, SendFailure::Unreachable),
            (Errno::EIO, SendFailure::Other),
        ] {
            assert_eq!(SendFailure::of_stream(error), Some(cause), "{error}");
        }
    }
}
