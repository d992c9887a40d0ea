//! What does the command line ask for?
//!
//! To serve, or for one of the subcommands, with the settings that belong to it.

use std::ffi::OsString;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::settings::Config;
use crate::config::sources::{OptionSources, ParsedCommand, UsageError};
use crate::config::values::parse_resolver_address;
use crate::identity::pin::PinSet;
use crate::identity::pin_file::resolver_name;
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::VerifyPolicy;
use crate::message::presentation::{Name, Type};
use crate::system::scoped_address::ScopedAddress;

/// Options that do not matter to a client of a running daemon. The daemon serves on with its earlier values if one of their files
/// is broken by now, so `dns-tool query` must not fail for that.
const OPTIONS_UNUSED_BY_QUERY: [&str; 5] = [
    "--pins",
    "--pin-rollover",
    "--state-dir",
    "--resolver-ca",
    "--hosts",
];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Serve(Box<Config>),
    /// Send one query.
    Query(Box<Query>),
    /// Show the keys of resolvers.
    Pin(Box<PinRequest>),
    /// Check the configuration, the ports and the resolvers.
    Check(Box<CheckRequest>),
    /// Print this text: the settings, and where each comes from.
    PrintConfig(String),
    /// Print the help: the options that most people need, or all.
    Help {
        /// All options, and not only those that most people need.
        all: bool,
    },
    /// Print the version.
    Version,
}

/// A query of `dns-tool query`.
#[derive(Debug)]
pub struct Query {
    /// The settings of the daemon that is queried, or of the sessions to the resolver.
    pub config: Config,
    /// The name to look up.
    pub name: Name,
    /// The type of records to look up.
    pub qtype: Type,
    /// Where the query goes.
    pub transport: QueryTransport,
    /// Whether the report is JSON.
    pub json: bool,
}

/// Where a query goes, and over which transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTransport {
    /// To a running dns-tool by UDP, and again by TCP if the answer is truncated.
    Udp,
    /// To a running dns-tool by TCP.
    Tcp,
    /// Where the daemon would send it, or to nobody if the daemon would answer it itself.
    Direct,
}

/// The resolvers whose keys `dns-tool pin` shows.
#[derive(Debug)]
pub struct PinRequest {
    /// The identity of each, without pins, and its addresses.
    pub resolvers: Vec<(Identity, Vec<ScopedAddress>)>,
    /// The timeout of one connection.
    pub timeout: Duration,
    /// Whether the report is JSON.
    pub json: bool,
}

/// What `dns-tool check` checks.
#[derive(Debug)]
pub struct CheckRequest {
    /// The settings of the daemon.
    pub config: Config,
    /// Whether the report is JSON.
    pub json: bool,
}

/// Reads the arguments, without the program's name. The environment is not read.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Command, UsageError> {
    read(&OptionSources::new(arguments, []))
}

/// Reads the arguments, the environment and the configuration file that they name.
pub fn read(sources: &OptionSources) -> Result<Command, UsageError> {
    let mut options = match sources.read()? {
        ParsedCommand::Help { all } => return Ok(Command::Help { all }),
        ParsedCommand::Version => return Ok(Command::Version),
        ParsedCommand::Options(options) => options,
    };
    if options.subcommand() == Some("query") && !options.flag("--direct")? {
        options.remove(&OPTIONS_UNUSED_BY_QUERY);
    }
    let config = Config::new(options)?;
    let options = &config.options;
    let json = options.flag("--json")?;
    let checked = options.flag("--check-config")?;
    match options.subcommand() {
        Some(word) if checked => Err(UsageError(format!(
            "--check-config: expected without {word}"
        ))),
        Some("query") => query(config).map(|query| Command::Query(Box::new(query))),
        Some("pin") => pin_request(&config).map(|request| Command::Pin(Box::new(request))),
        Some(_) => Ok(Command::Check(Box::new(CheckRequest { config, json }))),
        None if checked => Ok(Command::PrintConfig(options.describe())),
        None => Ok(Command::Serve(Box::new(config))),
    }
}

/// The resolvers of `dns-tool pin`: those that the arguments name, or else the configured ones.
fn pin_request(config: &Config) -> Result<PinRequest, UsageError> {
    let json = config.options.flag("--json")?;
    let configured = configured_resolvers(config);
    // Without pins: the command is there to find them.
    let without_pins = |name: ServerName<'static>| {
        let policy = configured[0].0.policy().clone();
        Identity::new(VerifyPolicy {
            name,
            pins: PinSet::default(),
            ..policy
        })
    };
    let mut resolvers = Vec::new();
    for word in config.options.positionals() {
        let read = || -> Result<_, String> {
            let (address, name) = match word.split_once('#') {
                Some((address, name)) => {
                    (parse_resolver_address(address)?, Some(resolver_name(name)?))
                }
                None => (parse_resolver_address(word)?, None),
            };
            // An address without a name belongs to a configured resolver, or else is its own name.
            let known = configured
                .iter()
                .find(|(_, addresses)| addresses.contains(&address));
            let known = known.map(|(identity, _)| identity.name().clone());
            let name = name.or(known).unwrap_or_else(|| address.ip().into());
            Ok((without_pins(name), vec![address]))
        };
        let read = read().map_err(|cause| UsageError(format!("pin {word:?}: {cause}")))?;
        resolvers.push(read);
    }
    if resolvers.is_empty() {
        let own = configured.iter();
        resolvers = own
            .map(|(identity, addresses)| (without_pins(identity.name().clone()), addresses.clone()))
            .collect();
    }
    Ok(PinRequest {
        resolvers,
        timeout: config.upstream.timeout,
        json,
    })
}

/// The identity and the addresses of each resolver by TLS, those of routes included. Addresses that a name has in several places are there
/// once.
fn configured_resolvers(config: &Config) -> Vec<(&Identity, Vec<ScopedAddress>)> {
    let mut configured: Vec<(&Identity, Vec<ScopedAddress>)> = Vec::new();
    for resolver in config.resolvers() {
        let Some(identity) = resolver.security.identity() else {
            continue;
        };
        let is_known = |address: &ScopedAddress| {
            configured.iter().any(|(known, addresses)| {
                known.name() == identity.name() && addresses.contains(address)
            })
        };
        let addresses = resolver.addresses.iter().copied();
        let addresses: Vec<_> = addresses.filter(|address| !is_known(address)).collect();
        if !addresses.is_empty() {
            configured.push((identity, addresses));
        }
    }
    configured
}

/// The query of `dns-tool query`, from its positional arguments and its own options.
fn query(config: Config) -> Result<Query, UsageError> {
    let options = &config.options;
    let json = options.flag("--json")?;
    let transport = match (options.flag("--direct")?, options.flag("--tcp")?) {
        (false, false) => QueryTransport::Udp,
        (false, true) => QueryTransport::Tcp,
        (true, false) => QueryTransport::Direct,
        (true, true) => {
            let message = "--tcp: expected without --direct, which asks the resolver";
            return Err(UsageError(message.to_owned()));
        }
    };
    if config.server.port == 0 && transport != QueryTransport::Direct {
        return Err(options.error_for("--port", "0", "expected the port of a dns-tool that runs"));
    }
    let (name, qtype) = match options.positionals() {
        [name] => (name, "A"),
        [name, qtype] => (name, &qtype[..]),
        [] => {
            let message = "query: expected a name after it, such as example.com";
            return Err(UsageError(message.to_owned()));
        }
        [_, _, third, ..] => {
            return Err(UsageError(format!(
                "{third:?}: expected nothing behind a name and a type"
            )));
        }
    };
    let name = name.parse().map_err(|error| {
        UsageError(format!(
            "{name:?}: {error}; expected a name such as example.com"
        ))
    })?;
    let qtype = qtype
        .parse()
        .map_err(|error| UsageError(format!("{qtype:?}: {error}")))?;
    Ok(Query {
        config,
        name,
        qtype,
        transport,
        json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(arguments: &[&str]) -> String {
        parse(arguments.iter().copied())
            .expect_err(&format!("{arguments:?}"))
            .to_string()
    }

    #[test]
    fn query_takes_the_daemons_options_and_positional_arguments() {
        for arguments in [
            &["query", "a.test", "mx", "--port", "5353", "--tcp"][..],
            &["query", "-tcp", "a.test", "--port=5353", "MX"],
            &["query", "--port", "5353", "a.test.", "TYPE15", "--tcp"],
        ] {
            let Ok(Command::Query(query)) = parse(arguments.iter().copied()) else {
                panic!("{arguments:?}")
            };
            let asked = (query.name.to_string(), query.qtype, query.transport);
            assert_eq!(asked, ("a.test.".to_owned(), Type(15), QueryTransport::Tcp));
            assert_eq!(query.config.server.port, 5353);
        }
        for (arguments, part) in [
            (&["--tcp"][..], "query alone"),
            (&["a.test"], "\"a.test\": expected an option"),
            (
                &["--port", "1", "query", "a.test"],
                "\"query\": expected an option",
            ),
            (&["query", "--tcp=x", "a.test"], "--tcp=x"),
        ] {
            assert!(refuse(arguments).contains(part), "{}", refuse(arguments));
        }
    }

    #[test]
    fn help_and_version_take_precedence() {
        for arguments in [
            &["-h"][..],
            &["--help"],
            &["-help"],
            &["--port", "5353", "-h"],
        ] {
            assert!(matches!(
                parse(arguments.iter().copied()),
                Ok(Command::Help { all: false })
            ));
        }
        assert!(matches!(
            parse(["--port", "1", "--help-all"].into_iter()),
            Ok(Command::Help { all: true })
        ));
        for arguments in [&["-V"][..], &["--version"]] {
            assert!(matches!(
                parse(arguments.iter().copied()),
                Ok(Command::Version)
            ));
        }
    }

    #[test]
    fn check_config_refuses_subcommands() {
        let message = refuse(&["check", "--check-config"]);
        assert_eq!(message, "--check-config: expected without check");
        assert!(refuse(&["--check-config", "--port", "x"]).starts_with("--port \"x\""));
    }
}
