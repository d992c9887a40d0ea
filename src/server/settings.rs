//! What can the user say about the clients that are served?

use std::net::IpAddr;

/// What this room can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The addresses to listen on, TCP and UDP.
    pub addresses: Vec<IpAddr>,
    /// An address that this host does not have is left out, as long as one remains.
    pub addresses_optional: bool,
    /// The port; 0 lets the system choose one for each address.
    pub port: u16,
    /// Others of the same user who want that too may have it as well; the kernel gives each client to one of them.
    pub reuse_port: bool,
    /// TCP clients at a time; at least 1.
    pub clients: usize,
    /// Of them from one address; at least 1.
    pub clients_per_address: usize,
    /// Programs on this host are held to that, too.
    pub limit_loopback: bool,
}
