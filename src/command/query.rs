//! What does a running dns-tool answer, or the resolver itself?
//!
//! Sends one query and prints the answer in lines. It needs no file and no other program, so it can be the health check of a
//! container that holds nothing else.

use std::fmt;

use crate::command::answer_report::{AnswerSource, Report};
use crate::command::stub::{Cause, Outcome, QueriedServer, Received, StubQuery};
use crate::config::command_line::{Query, QueryTransport};
use crate::config::settings::Config;
use crate::forward::forwarder::{local_reply, name_error_reply};
use crate::forward::routes::{Route, RouteMap};
use crate::message::{self, Source};
use crate::system::clock;
use crate::system::privileges::PrivilegeError;

/// Why there is no answer.
#[derive(Debug)]
pub enum QueryError {
    /// Privileges could not be dropped.
    Privileges(PrivilegeError),
    /// No server gave an answer: each with the cause.
    Unanswered(Vec<(QueriedServer, Cause)>),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Privileges(error) => error.fmt(f),
            Self::Unanswered(attempts) => {
                for (number, (server, cause)) in attempts.iter().enumerate() {
                    let separator = if number > 0 { "; " } else { "" };
                    write!(f, "{separator}{server}: {cause}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for QueryError {}

/// Sends the query, and waits for the answer until the query's timeout.
pub fn run(query: &Query) -> Result<Report, QueryError> {
    if let Some(user) = query.config.user {
        user.drop_privileges().map_err(QueryError::Privileges)?;
    }
    let started = clock::now();
    let stub_query = StubQuery::new(
        query.name.question(query.qtype),
        query.config.upstream.timeout,
        started,
    );
    let config = &query.config;
    let (address, port) = (config.server.addresses[0], config.server.port);
    let (received, source) = match query.transport {
        QueryTransport::Udp => (stub_query.over_udp(address, port), None),
        QueryTransport::Tcp => (stub_query.over_tcp(address, port), None),
        QueryTransport::Direct => ask_directly(&stub_query, config),
    };
    let received = received.map_err(QueryError::Unanswered)?;
    let took = clock::now().saturating_duration_since(started);
    Report::new(&received, source, took, query.json).map_err(|fault| {
        let attempts = received
            .server
            .map(|server| (server, Cause::Unreadable(fault)));
        QueryError::Unanswered(attempts.into_iter().collect())
    })
}

/// Does with the query what the daemon does, but for the cache: answers it here, or asks the resolver or server of its name.
fn ask_directly(stub_query: &StubQuery, config: &Config) -> (Outcome, Option<AnswerSource>) {
    let message = stub_query.message();
    let query = message::Query::parse(message).expect("it was written here");
    let route = RouteMap::new(&config.routes.zones).find(query.question());
    let source = |source: Source| AnswerSource::read(source.text(query.question()).as_bytes());
    let local = local_reply(&config.forwarder, &query, || route);
    if let Some(message) = local.or_else(|| name_error_reply(&query, route)) {
        let received = Received {
            message,
            server: None,
            unpinned: false,
        };
        return (Ok(received), source(Source::Local));
    }
    let resolvers = &config
        .routes
        .upstream(route)
        .unwrap_or(&config.upstream)
        .resolvers;
    let candidates = resolvers.iter().flat_map(|resolver| {
        let addresses = resolver.addresses.iter();
        addresses.map(|address| (*address, &resolver.security))
    });
    let received = stub_query.over_sessions(candidates.collect());
    (received, source(Route::source(route)))
}
