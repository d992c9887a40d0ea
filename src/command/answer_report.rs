//! How does an answer look, and where does it come from?
//!
//! In lines for people, or as JSON.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::command::json::Json;
use crate::command::stub::{QueriedServer, Received};
use crate::message::presentation::{Class, Name, Quoted, Rcode, RecordLine, Type};
use crate::message::{self, Answer, ParseError, Record, Section, Source, rcode, rtype};

/// An answer, in lines or as JSON.
#[derive(Debug)]
pub struct Report {
    /// The text.
    pub text: String,
    /// The answer is NOERROR or NXDOMAIN: the server works.
    pub is_success: bool,
}

/// Where an answer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerSource {
    word: &'static str,
    /// The zone of the route; none if it is another source, or if the zone is not known.
    zone: Option<Name>,
}

impl AnswerSource {
    /// The source that a text of [`Source::text`] names; none if it is no such text.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        const ROUTE: Source = Source::Route { zone_len: 0 };
        const ALL: [Source; 5] = [
            Source::Local,
            ROUTE,
            Source::Cache,
            Source::Stale,
            Source::Resolver,
        ];
        let text = std::str::from_utf8(text).ok()?;
        let (word, zone) = match text.split_once(' ') {
            Some((word, zone)) => (word, Some(zone)),
            None => (text, None),
        };
        let source = ALL.into_iter().find(|source| source.word() == word)?;
        if zone.is_some() && source != ROUTE {
            return None;
        }
        let zone = zone.map(str::parse).transpose().ok()?;
        Some(Self {
            word: source.word(),
            zone,
        })
    }
}

impl fmt::Display for AnswerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)?;
        match &self.zone {
            Some(zone) => write!(f, " {zone}"),
            None => Ok(()),
        }
    }
}

/// What there is to say of an answer.
struct Content<'r> {
    answer: Answer<'r>,
    server: Option<QueriedServer>,
    source: Option<AnswerSource>,
    unpinned: bool,
    took: Duration,
}

impl Report {
    /// The report on what was received after this time. Without a `source`, it is what the server says.
    pub(super) fn new(
        received: &Received,
        source: Option<AnswerSource>,
        took: Duration,
        json: bool,
    ) -> Result<Self, ParseError> {
        let answer = Answer::parse(&received.message)?;
        let told = || message::told_source(&answer).and_then(AnswerSource::read);
        let content = Content {
            source: source.or_else(told),
            server: received.server,
            unpinned: received.unpinned,
            answer,
            took,
        };
        Ok(Self {
            text: match json {
                true => format!("{}\n", content.json()),
                false => content.text(),
            },
            is_success: [rcode::NOERROR, rcode::NXDOMAIN].contains(&content.answer.rcode()),
        })
    }
}

impl Content<'_> {
    /// RCODE and flags first, then the records.
    fn text(&self) -> String {
        let answer = &self.answer;
        let count = self.records(Section::Answer).count();
        let mut text = format!(";; {}", Rcode(answer.rcode()));
        if answer.is_truncated() {
            text.push_str(", TC");
        }
        if answer.is_authentic() {
            text.push_str(", AD");
        }
        let plural = if count == 1 { "" } else { "s" };
        let _ = write!(text, ", {count} answer{plural}");
        for (code, extra_text) in self.errors() {
            let _ = write!(text, ", EDE {code}");
            if !extra_text.is_empty() {
                let _ = write!(text, " {}", Quoted(extra_text));
            }
        }
        let _ = write!(text, ", {} ms", self.took.as_millis());
        if let Some(server) = self.server {
            let _ = write!(text, ", {server}");
        }
        if let Some(source) = &self.source {
            let _ = write!(text, ", from {source}");
        }
        if self.unpinned {
            text.push_str(", not pinned");
        }
        text.push('\n');
        // Without answer records, the authority section has the SOA or the name servers.
        let section = if count > 0 {
            Section::Answer
        } else {
            Section::Authority
        };
        for record in self.records(section) {
            let record = &record;
            let _ = writeln!(text, "{}", RecordLine { answer, record });
        }
        text
    }

    fn json(&self) -> Json {
        /// Each flag with the bit that has it in the second two octets of a header (RFC 1035 section 4.1.1, RFC 4035 section 3).
        const FLAGS: [(u16, &str); 6] = [
            (0x0400, "aa"),
            (0x0200, "tc"),
            (0x0100, "rd"),
            (0x0080, "ra"),
            (0x0020, "ad"),
            (0x0010, "cd"),
        ];
        let header = self.answer.message().first_chunk();
        let bits = header.map_or(0, |&[_, _, high, low]| u16::from_be_bytes([high, low]));
        let flags = FLAGS.iter().filter(|(bit, _)| bits & bit != 0);
        let flags = flags.map(|(_, name)| Json::text(name)).collect();
        let errors = self.errors().map(|(code, text)| {
            Json::Object(vec![
                ("code", Json::Number(code.into())),
                ("text", Json::text(String::from_utf8_lossy(text))),
            ])
        });
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let records = sections
            .into_iter()
            .flat_map(|section| self.records(section))
            .map(|record| self.record_json(&record));
        let or_null = |value: Option<Json>| value.unwrap_or(Json::Null);
        let source = self.source.as_ref();
        let zone = source.and_then(|source| source.zone.as_ref());
        let (word, server) = (source.map(|source| source.word), self.server);
        let milliseconds = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        Json::Object(vec![
            ("rcode", Json::text(Rcode(self.answer.rcode()))),
            ("flags", Json::Array(flags)),
            ("errors", Json::Array(errors.collect())),
            ("source", or_null(word.map(Json::text))),
            ("zone", or_null(zone.map(Json::text))),
            (
                "transport",
                or_null(server.map(|server| Json::text(server.transport))),
            ),
            (
                "server",
                or_null(server.map(|server| Json::text(server.address))),
            ),
            ("unpinned", Json::Bool(self.unpinned)),
            ("milliseconds", Json::Number(milliseconds)),
            ("records", Json::Array(records.collect())),
        ])
    }

    fn record_json(&self, record: &Record) -> Json {
        let answer = &self.answer;
        let line = RecordLine { answer, record };
        Json::Object(vec![
            (
                "section",
                Json::text(match record.section {
                    Section::Answer => "answer",
                    Section::Authority => "authority",
                    Section::Additional => "additional",
                }),
            ),
            ("name", Json::text(line.owner())),
            ("ttl", Json::Number(answer.ttl(record).into())),
            ("class", Json::text(Class(record.class))),
            ("type", Json::text(Type(record.rtype))),
            ("data", Json::text(line.data())),
        ])
    }

    /// The records of a section, without the OPT record.
    fn records(&self, section: Section) -> impl Iterator<Item = Record> {
        self.answer
            .records()
            .filter(move |record| record.section == section && record.rtype != rtype::OPT)
    }

    /// The Extended DNS Errors: code and text.
    fn errors(&self) -> impl Iterator<Item = (u16, &[u8])> {
        let errors = self.answer.extended_errors();
        errors.filter_map(|error| {
            let (code, text) = error.split_first_chunk()?;
            Some((u16::from_be_bytes(*code), text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_of_the_known_words_and_a_route_may_have_a_zone() {
        for text in [
            "local",
            "cache",
            "stale",
            "resolver",
            "route",
            "route corp.example.",
            "route .",
            "route a\\000b.",
        ] {
            let source = AnswerSource::read(text.as_bytes()).expect(text);
            assert_eq!(source.to_string(), text);
        }
        let written = AnswerSource::read(b"route a\\=b").expect("a zone");
        assert_eq!(written.to_string(), "route a=b.");
        for text in [
            &b""[..],
            b" ",
            b"Cache",
            b"cache ",
            b"cache x.",
            b"route ",
            b"route a b",
            b"route a..",
            b"route \x1b[2J",
            b"route \xff",
            b"elsewhere",
            b"cache\n",
        ] {
            assert_eq!(AnswerSource::read(text), None, "{text:?}");
        }
    }
}
