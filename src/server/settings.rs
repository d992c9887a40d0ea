//! What can the user configure about listening and TCP clients?

use crate::system::scoped_address::ScopedIp;

/// The settings of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The addresses to listen on, TCP and UDP.
    pub addresses: Vec<ScopedIp>,
    /// Addresses that this host does not have are skipped, as long as one remains.
    pub addresses_optional: bool,
    /// The port; 0 lets the system choose one for each address.
    pub port: u16,
    /// Other processes of the same user may share the port if they set this too (SO_REUSEPORT). The kernel assigns each client to one of
    /// them.
    pub reuse_port: bool,
    /// The number of TCP connections at a time; at least 1.
    pub max_clients: usize,
    /// The number of TCP connections from one address or IPv6 site at a time; at least 1.
    pub max_clients_per_address: usize,
    /// The limit per address also applies to loopback addresses.
    pub limit_loopback: bool,
}
