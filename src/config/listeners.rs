//! Which addresses are listened on?
//!
//! Those of `--address` together and that of `--monitor` must not get in the way of each other.

use std::net::IpAddr;

use crate::config::sources::{OptionValues, UsageError};
use crate::config::values::{expected_address, option_values, optional_value};
use crate::server;
use crate::system::scoped_address::{ScopedAddress, ScopedAddressError, ScopedIp};

/// The addresses to listen on, each once. With `is_exclusive`, fails with one that a wildcard among them has already.
pub(super) fn listening_addresses(
    options: &OptionValues,
    is_exclusive: bool,
) -> Result<Vec<ScopedIp>, UsageError> {
    let parse = |text: &str| {
        text.parse()
            .map_err(|error: ScopedAddressError| error.to_string())
    };
    let mut addresses: Vec<ScopedIp> = Vec::new();
    for address in option_values(options, "--address", parse)? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    options.try_for_each_value("--address", &mut |text| {
        let ip = parse(text)?.ip();
        let has_it =
            |other: &&ScopedIp| other.ip() != ip && has_address(other.ip(), ip) && is_exclusive;
        match addresses.iter().find(has_it) {
            Some(wildcard) => Err(format!(
                "expected no address of that family beside {wildcard}, which means all of them"
            )),
            None => Ok(()),
        }
    })?;
    Ok(addresses)
}

/// Whether a socket on the address `listener` has `ip` as well.
fn has_address(listener: IpAddr, ip: IpAddr) -> bool {
    listener == ip || listener.is_unspecified() && listener.is_ipv4() == ip.is_ipv4()
}

/// The address of the monitoring port. Fails if clients' queries come there.
pub(super) fn monitor_address(
    options: &OptionValues,
    server: &server::settings::Settings,
) -> Result<Option<ScopedAddress>, UsageError> {
    optional_value(options, "--monitor", |text| {
        const EXPECTED: &str =
            "expected an address of this host and a port, such as 127.0.0.1:9853";
        let monitor: ScopedAddress = text
            .parse()
            .map_err(|error| expected_address(error, EXPECTED))?;
        let mut listeners = server.addresses.iter().map(ScopedIp::ip);
        let conflicts =
            |listener| has_address(listener, monitor.ip()) || has_address(monitor.ip(), listener);
        match monitor.port() != 0 && monitor.port() == server.port && listeners.any(conflicts) {
            true => {
                Err("expected another port: this one is that of --port, for queries".to_owned())
            }
            false => Ok(monitor),
        }
    })
}
