//! What does the command line ask for?
//!
//! To serve, or one of the things that can be asked beside that, with the settings that go with it.

use std::ffi::OsString;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::settings::Config;
use crate::config::sources::{Sources, UsageError, Wanted};
use crate::config::values::resolver_address;
use crate::identity::pin::PinSet;
use crate::identity::pin_file::resolver_name;
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::VerifyPolicy;
use crate::message::presentation::{Name, Type};
use crate::upstream::Resolver;

/// Options that are nothing to who asks a daemon that runs: it serves on with what it had where a file of theirs is broken by
/// now, and is well.
const DAEMONS_OPTIONS: [&str; 4] = ["--pins", "--pin-rollover", "--state-dir", "--resolver-ca"];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Serve.
    Serve(Box<Config>),
    /// Ask one question.
    Query(Box<Query>),
    /// Show the keys of resolvers.
    Pin(Box<KeyRequest>),
    /// See whether all is as it should be.
    Check(Box<CheckRequest>),
    /// Print the settings that hold, and where each comes from: this text.
    Describe(String),
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
    pub road: Road,
}

/// Who is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Road {
    /// A running dns-tool by UDP, and by TCP where the answer does not fit.
    Udp,
    /// A running dns-tool by TCP.
    Tcp,
    /// The resolver, over an authenticated session.
    Direct,
}

/// Whose keys `dns-tool pin` is to show.
#[derive(Debug)]
pub struct KeyRequest {
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
    read(&Sources::new(arguments, []))
}

/// Reads the command line, the environment, and the file that they name.
pub fn read(sources: &Sources) -> Result<Command, UsageError> {
    let mut given = match sources.read()? {
        Wanted::Help => return Ok(Command::Help),
        Wanted::Version => return Ok(Command::Version),
        Wanted::Options(given) => given,
    };
    if given.subcommand() == Some("query") && !given.flag("--direct")? {
        given.leave_out(&DAEMONS_OPTIONS);
    }
    let config = Config::new(given)?;
    let given = &config.given;
    let json = given.flag("--json")?;
    let checked = given.flag("--check-config")?;
    match given.subcommand() {
        Some(word) if checked => Err(UsageError(format!(
            "--check-config: expected without {word}"
        ))),
        Some("query") => query(config).map(|query| Command::Query(Box::new(query))),
        Some("pin") => key_request(config).map(|request| Command::Pin(Box::new(request))),
        Some(_) => Ok(Command::Check(Box::new(CheckRequest { config, json }))),
        None if checked => Ok(Command::Describe(given.describe())),
        None => Ok(Command::Serve(Box::new(config))),
    }
}

/// Whose keys `dns-tool pin` shows: those that are named, or the configured resolvers'.
fn key_request(config: Config) -> Result<KeyRequest, UsageError> {
    let json = config.given.flag("--json")?;
    let configured = config.upstream.resolvers;
    let terms = configured[0].identity.policy().clone();
    // Pins do not matter: it is they that are looked for.
    let resolver = |name: ServerName<'static>, addresses| Resolver {
        addresses,
        identity: Identity::new(VerifyPolicy {
            name,
            pins: PinSet::default(),
            ..terms.clone()
        }),
    };
    let mut resolvers = Vec::new();
    for word in config.given.words() {
        let read = || -> Result<_, String> {
            let (address, name) = match word.split_once('#') {
                Some((address, name)) => (resolver_address(address)?, Some(resolver_name(name)?)),
                None => (resolver_address(word)?, None),
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
    Ok(KeyRequest {
        resolvers,
        timeout: config.upstream.timeout,
        json,
    })
}

/// What `dns-tool query` asks, once all options of the daemon are taken.
fn query(config: Config) -> Result<Query, UsageError> {
    let given = &config.given;
    let road = match (given.flag("--direct")?, given.flag("--tcp")?) {
        (false, false) => Road::Udp,
        (false, true) => Road::Tcp,
        (true, false) => Road::Direct,
        (true, true) => {
            let message = "--tcp: expected without --direct, which asks over TLS";
            return Err(UsageError(message.to_owned()));
        }
    };
    if config.server.port == 0 && road != Road::Direct {
        return Err(given.fault("--port", "0", "expected the port of a dns-tool that runs"));
    }
    let (name, qtype) = match given.words() {
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
        road,
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
            let asked = (query.name.to_string(), query.qtype, query.road);
            assert_eq!(asked, ("a.test.".to_owned(), Type(15), Road::Tcp));
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
