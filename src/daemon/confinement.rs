//! What does it take to serve, once rights are given up?

use std::path::PathBuf;

use crate::config::settings::Config;
use crate::monitoring::process;
use crate::system::privileges;
use crate::system::sandbox::SandboxRules;
use crate::system::scoped_address::ScopedAddress;

/// What the process needs to serve and to reload.
pub(super) fn sandbox_rules(config: &Config) -> SandboxRules {
    let Config {
        trust,
        hosts,
        options,
        ..
    } = config;
    let mut rules = SandboxRules::default();
    // The C library counts the processors there, to size its memory arenas.
    rules
        .readable
        .push(PathBuf::from("/sys/devices/system/cpu"));
    if config.server.max_clients > privileges::default_max_threads() {
        rules
            .readable
            .push(PathBuf::from(privileges::MAX_MAP_COUNT));
    }
    rules
        .readable
        .extend(options.config_file().map(PathBuf::from));
    rules.readable.extend(trust.source.file.clone());
    rules.readable.extend(hosts.files.iter().cloned());
    // The option was read before, so this cannot fail.
    let _ = options.try_for_each_value("--resolver-ca", &mut |file| {
        rules.readable.push(PathBuf::from(file));
        Ok(())
    });
    if config.monitor.is_some() {
        rules.readable.push(PathBuf::from(process::PROC_SELF));
    }
    rules.writable_dir.clone_from(&trust.state_dir);
    rules.connect_ports = resolver_addresses(config)
        .map(ScopedAddress::port)
        .collect();
    rules
}

/// The addresses of all resolvers and servers that may be asked.
pub(super) fn resolver_addresses(config: &Config) -> impl Iterator<Item = &ScopedAddress> {
    config.resolvers().flat_map(|resolver| &resolver.addresses)
}
