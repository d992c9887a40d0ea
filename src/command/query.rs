//! What does a running dns-tool answer, or the resolver itself?
//!
//! Sends one query and prints the answer in lines. It needs no file and no other program, so it can be the health check of a
//! container that holds nothing else.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::command::stub::{Cause, QueriedServer, Received, StubQuery};
use crate::config::command_line::{Query, QueryTransport};
use crate::message::presentation::{Quoted, Rcode, RecordLine};
use crate::message::{Answer, ParseError, Section, rcode};
use crate::system::clock;
use crate::system::privileges::PrivilegeError;

/// The answer, for people.
#[derive(Debug)]
pub struct Report {
    /// In lines.
    pub text: String,
    /// The answer is NOERROR or NXDOMAIN: the server works.
    pub is_success: bool,
}

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
    let received = match query.transport {
        QueryTransport::Udp => stub_query.over_udp(config.server.addresses[0], config.server.port),
        QueryTransport::Tcp => stub_query.over_tcp(config.server.addresses[0], config.server.port),
        QueryTransport::Direct => match stub_query.answer_from_hosts(&config.hosts.table) {
            Some(received) => Ok(received),
            None => {
                let resolvers = config.upstream.resolvers.iter();
                let candidates = resolvers.flat_map(|resolver| {
                    let addresses = resolver.addresses.iter();
                    addresses.map(|address| (*address, &resolver.security))
                });
                stub_query.over_sessions(candidates.collect())
            }
        },
    };
    let received = received.map_err(QueryError::Unanswered)?;
    report(&received, clock::now().saturating_duration_since(started))
        .map_err(|fault| QueryError::Unanswered(vec![(received.server, Cause::Unreadable(fault))]))
}

/// The answer in lines: RCODE and flags first, then the records.
fn report(received: &Received, took: Duration) -> Result<Report, ParseError> {
    let answer = Answer::parse(&received.message)?;
    let records = |section| {
        answer
            .records()
            .filter(move |record| record.section == section)
    };
    let count = records(Section::Answer).count();
    let mut text = format!(";; {}", Rcode(answer.rcode()));
    if answer.is_truncated() {
        text.push_str(", TC");
    }
    if answer.is_authentic() {
        text.push_str(", AD");
    }
    let plural = if count == 1 { "" } else { "s" };
    let _ = write!(text, ", {count} answer{plural}");
    for error in answer.extended_errors() {
        let Some((code, extra_text)) = error.split_first_chunk() else {
            continue;
        };
        let _ = write!(text, ", EDE {}", u16::from_be_bytes(*code));
        if !extra_text.is_empty() {
            let _ = write!(text, " {}", Quoted(extra_text));
        }
    }
    let _ = write!(text, ", {} ms, {}", took.as_millis(), received.server);
    if received.unpinned {
        text.push_str(", not pinned");
    }
    text.push('\n');
    // Without answer records, the authority section has the SOA or the name servers.
    let section = if count > 0 {
        Section::Answer
    } else {
        Section::Authority
    };
    for record in records(section) {
        let line = RecordLine {
            answer: &answer,
            record: &record,
        };
        let _ = writeln!(text, "{line}");
    }
    Ok(Report {
        text,
        is_success: [rcode::NOERROR, rcode::NXDOMAIN].contains(&answer.rcode()),
    })
}
