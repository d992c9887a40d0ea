//! Which addresses count as one client?

use std::net::IpAddr;

/// The prefix length of an IPv6 site (RFC 6177 section 2). All addresses of a site count as one client.
const IPV6_SITE_PREFIX: u8 = 56;

/// The client of an address, as a key for all limits: an IPv4 address, an IPv6 site, or a link-local IPv6 address. The first field
/// tells the kinds apart.
pub fn client_of(address: IpAddr) -> (u8, u128) {
    match address.to_canonical() {
        IpAddr::V4(address) => (4, u32::from(address).into()),
        IpAddr::V6(address) if address.is_unicast_link_local() => (128, address.into()),
        IpAddr::V6(address) => (
            IPV6_SITE_PREFIX,
            u128::from(address) >> 128_u8.saturating_sub(IPV6_SITE_PREFIX),
        ),
    }
}
