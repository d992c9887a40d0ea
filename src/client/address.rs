//! Which client is an address of?

use std::net::IpAddr;

/// Bits of the prefix of an IPv6 site, whose addresses are one client's, as likely as not (RFC 6177 section 2).
const SITE: u8 = 56;

/// Which client an address is of, for all limits: an IPv4 address or an IPv6 site; on the link, where there are no sites,
/// each address.
pub fn client_of(address: IpAddr) -> (u8, u128) {
    match address.to_canonical() {
        IpAddr::V4(address) => (4, u32::from(address).into()),
        IpAddr::V6(address) if address.is_unicast_link_local() => (128, address.into()),
        IpAddr::V6(address) => (SITE, u128::from(address) >> 128_u8.saturating_sub(SITE)),
    }
}
