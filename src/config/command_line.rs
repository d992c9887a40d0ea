//! What does the command line ask for?
//!
//! To serve, or one of the things that can be asked beside that, with the settings that go with it.

use std::ffi::OsString;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::settings::Config;
use crate::config::sources::{OptionSources, ParsedCommand, UsageError};
use crate::config::values::parse_resolver_address;
use crate::identity::pin::PinSet;
use crate::identity::pin_file::resolver_name;
use crate::identity::terms::Terms;
use crate::identity::verifier::Identity;
use crate::message::presentation::{Name, Type};
use crate::upstream::Resolver;

/// Options that are nothing to who asks a daemon that runs: it serves on with what it had where a file of theirs is broken by
/// now, and is well.
const OPTIONS_UNUSED_BY_QUERY: [&str; 4] =
    ["--pins", "--pin-rollover", "--state-dir", "--resolver-ca"];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Serve(Box<Config>),
    /// Ask one question.
    Query(Box<Query>),
    /// Show the keys of resolvers.
    Pin(Box<PinRequest>),
    /// See whether all is as it should be.
    Check(Box<CheckRequest>),
    /// Print the settings that hold, and where each comes from: this text.
    PrintConfig(String),
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// A question to be asked by `dns-tool query`.
#[derive(Debug)]
pub struct Query {
    /// The settings of the daemon that is asked, or of the one that would ask the resolver.
    pub config: Config,
    /// The name that is asked for.
    pub name: Name,
    /// The type of its records.
    pub qtype: Type,
    /// Who is asked, and how.
    pub transport: QueryTransport,
}

/// Who is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTransport {
    /// A running dns-tool by UDP, and by TCP where the answer does not fit.
    Udp,
    /// A running dns-tool by TCP.
    Tcp,
    /// The resolver, over an authenticated session.
    Direct,
}

/// Whose keys `dns-tool pin` is to show.
#[derive(Debug)]
pub struct PinRequest {
    /// Name, addresses and trust anchors of each; pins do not matter.
    pub resolvers: Vec<Resolver>,
    /// The time of one connection.
    pub timeout: Duration,
    /// The report is for a program.
    pub json: bool,
}

/// What `dns-tool check` is to look at.
#[derive(Debug)]
pub struct CheckRequest {
    /// The settings of the daemon.
    pub config: Config,
    /// The report is for a program.
    pub json: bool,
}

/// Reads the command line, without the program's name, and nothing else.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
) -> Result<Command, UsageError> {
    read(&OptionSources::new(arguments, []))
}

/// Reads the command line, the environment, and the file that they name.
pub fn read(sources: &OptionSources) -> Result<Command, UsageError> {
    let mut options = match sources.read()? {
        ParsedCommand::Help => return Ok(Command::Help),
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
        Some("pin") => pin_request(config).map(|request| Command::Pin(Box::new(request))),
        Some(_) => Ok(Command::Check(Box::new(CheckRequest { config, json }))),
        None if checked => Ok(Command::PrintConfig(options.describe())),
        None => Ok(Command::Serve(Box::new(config))),
    }
}

/// Whose keys `dns-tool pin` shows: those that are named, or the configured resolvers'.
fn pin_request(config: Config) -> Result<PinRequest, UsageError> {
    let json = config.options.flag("--json")?;
    let configured = config.upstream.resolvers;
    let terms = configured[0].identity.terms().clone();
    // Pins do not matter: it is they that are looked for.
    let resolver = |name: ServerName<'static>, addresses| Resolver {
        addresses,
        identity: Identity::new(Terms {
            name,
            pins: PinSet::default(),
            ..terms.clone()
        }),
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
            // An address without a name is that of a configured resolver, or a name by itself.
            let known = configured
                .iter()
                .find(|resolver| resolver.addresses.contains(&address));
            let known = known.map(|resolver| resolver.identity.name().clone());
            let name = name.or(known).unwrap_or_else(|| address.ip().into());
            Ok(resolver(name, vec![address]))
        };
        let read = read().map_err(|cause| UsageError(format!("pin {word:?}: {cause}")))?;
        resolvers.push(read);
    }
    if resolvers.is_empty() {
        let own = configured.into_iter();
        resolvers = own
            .map(|known| resolver(known.identity.name().clone(), known.addresses))
            .collect();
    }
    Ok(PinRequest {
        resolvers,
        timeout: config.upstream.timeout,
        json,
    })
}

/// What `dns-tool query` asks, once all options of the daemon are taken.
fn query(config: Config) -> Result<Query, UsageError> {
    let options = &config.options;
    let transport = match (options.flag("--direct")?, options.flag("--tcp")?) {
        (false, false) => QueryTransport::Udp,
        (false, true) => QueryTransport::Tcp,
        (true, false) => QueryTransport::Direct,
        (true, true) => {
            let message = "--tcp: expected without --direct, which asks over TLS";
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
    fn a_query_takes_the_daemons_options_and_a_question_among_them() {
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
    fn help_and_version_win_over_the_rest() {
        for arguments in [
            &["-h"][..],
            &["--help"],
            &["-help"],
            &["--port", "5353", "-h"],
        ] {
            assert!(matches!(
                parse(arguments.iter().copied()),
                Ok(Command::Help)
            ));
        }
        for arguments in [&["-V"][..], &["--version"]] {
            assert!(matches!(
                parse(arguments.iter().copied()),
                Ok(Command::Version)
            ));
        }
    }

    #[test]
    fn settings_are_shown_of_the_daemon_alone() {
        let message = refuse(&["check", "--check-config"]);
        assert_eq!(message, "--check-config: expected without check");
        assert!(refuse(&["--check-config", "--port", "x"]).starts_with("--port \"x\""));
    }
}
