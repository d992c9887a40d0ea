//! What does it take to serve, once rights are given up?

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::settings::Config;
use crate::monitoring::process;
use crate::system::privileges;
use crate::system::sandbox::Needs;
use crate::upstream;

/// What it takes to serve, and to reload.
pub(super) fn needs(config: &Config) -> Needs {
    let Config { keys, given, .. } = config;
    let mut needs = Needs::default();
    // The C library looks there, for how many processors it divides memory.
    needs.read.push(PathBuf::from("/sys/devices/system/cpu"));
    if config.server.max_clients > privileges::threads_for_sure() {
        needs.read.push(PathBuf::from(privileges::MAPPINGS));
    }
    needs.read.extend(given.file().map(PathBuf::from));
    needs.read.extend(keys.source.file.clone());
    // It was read, so it is one.
    let _ = given.each("--resolver-ca", &mut |file| {
        needs.read.push(PathBuf::from(file));
        Ok(())
    });
    if config.monitor.is_some() {
        needs.read.push(PathBuf::from(process::OWN));
    }
    needs.written.clone_from(&keys.state_dir);
    needs.ports = ports(&config.upstream).collect();
    needs
}

/// The ports of resolvers.
pub(super) fn ports(settings: &upstream::Settings) -> impl Iterator<Item = u16> {
    let resolvers = settings.resolvers.iter();
    let addresses = resolvers.flat_map(|resolver| &resolver.addresses);
    addresses.map(SocketAddr::port)
}
