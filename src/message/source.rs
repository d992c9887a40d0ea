//! Where does an answer come from, and how does dns-tool say so?
//!
//! A client that sends the option Answer Source without a value is told by the same option with a text. The option's code is of the range
//! for local and experimental use (RFC 6891 section 9): other programs ignore it.

use super::answer::Answer;
use super::codes::option;
use super::edns::{EDNS_OPTION_HEADER_LEN, write_option};
use super::octets::{has_room, slice_from};
use super::question::{NamePresentation, question_name};

/// Length in octets of the text, at most: "route " and a host name. A zone whose presentation form is longer is left out.
const MAX_TEXT_LEN: usize = 6 + 254;
/// Length in octets of the option, at most.
pub const MAX_SOURCE_OPTION_LEN: usize = EDNS_OPTION_HEADER_LEN + MAX_TEXT_LEN;

/// Where an answer comes from. If there is only a failure: where an answer would come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// dns-tool itself.
    Local,
    /// The resolver or server to which the route of a zone leads.
    Route {
        /// Octets of the zone's name in wire form, with which the name of the question ends.
        zone_len: u8,
    },
    /// The cache.
    Cache,
    /// The cache, after the answer had expired.
    Stale,
    /// The main resolver.
    Resolver,
}

impl Source {
    /// The first word of the text.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Route { .. } => "route",
            Self::Cache => "cache",
            Self::Stale => "stale",
            Self::Resolver => "resolver",
        }
    }

    /// The text that names this source of the answer to `question`; the zone of a route in lower case.
    pub fn text(self, question: &[u8]) -> String {
        let word = self.word().to_owned();
        let Self::Route { zone_len } = self else {
            return word;
        };
        let name = question_name(question);
        let zone_at = name.len().saturating_sub(zone_len.into());
        let zone = slice_from(name, zone_at).to_ascii_lowercase();
        let text = format!("{word} {}", NamePresentation(&zone));
        match text.len() <= MAX_TEXT_LEN {
            true => text,
            false => word,
        }
    }

    /// Appends the option to the RDATA of an OPT, if the message that begins at `start` then has at most `limit` octets. The zone of a route
    /// is left out if only the rest fits.
    pub(super) fn write(self, out: &mut Vec<u8>, start: usize, question: &[u8], limit: usize) {
        let text = self.text(question);
        let fits = |text: &str, out: &[u8]| {
            let len = EDNS_OPTION_HEADER_LEN.saturating_add(text.len());
            has_room(out, start, len, limit)
        };
        let texts = [&text[..], self.word()];
        if let Some(text) = texts.into_iter().find(|text| fits(text, out)) {
            write_option(out, option::ANSWER_SOURCE, text.as_bytes());
        }
    }
}

/// The text with which a dns-tool names the source of its answer; none if it names none. The octets are those of a stranger.
pub fn told_source<'m>(answer: &Answer<'m>) -> Option<&'m [u8]> {
    let mut options = answer.options();
    let (_, text) = options.find(|&(code, _)| code == option::ANSWER_SOURCE)?;
    (1..=MAX_TEXT_LEN).contains(&text.len()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{MAX_SOURCE_OPTION_LEN, Source, told_source};
    use crate::message::answer::Answer;
    use crate::message::test_messages::{A, Draft, labels, name, option, question_for, written};

    #[test]
    fn the_zone_of_a_route_is_the_end_of_the_name_that_was_asked_for() {
        let question = question_for(name("Www.Corp.Example"), A);
        for (source, text) in [
            (Source::Local, "local"),
            (Source::Cache, "cache"),
            (Source::Stale, "stale"),
            (Source::Resolver, "resolver"),
            (Source::Route { zone_len: 14 }, "route corp.example."),
            (Source::Route { zone_len: 18 }, "route www.corp.example."),
            (Source::Route { zone_len: 1 }, "route ."),
        ] {
            assert_eq!(source.text(&question), text);
        }
        // Whatever the number is, nothing is read that is not in the name.
        for (zone_len, question) in [(255, &question[..]), (0, &question), (9, &[]), (9, &[1, 2])] {
            let text = Source::Route { zone_len }.text(question);
            assert!(text.starts_with("route "), "{text}");
        }
    }

    #[test]
    fn a_text_is_printable_and_bounded() {
        for octet in 0..=255 {
            let label = [octet; 63];
            let name = labels(&[&label, &label, &label, &label[..61]]);
            let source = Source::Route { zone_len: 255 };
            let text = source.text(&question_for(name, A));
            assert!(text.len() + 4 <= MAX_SOURCE_OPTION_LEN, "{text}");
            assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
            assert!(text == "route" || text.len() == 6 + 254, "{text}");
        }
    }

    #[test]
    fn the_option_is_as_long_as_there_is_room() {
        let question = question_for(name("www.corp.example"), A);
        let with_limit = |source: Source, limit| {
            written(|out| {
                let start = out.len();
                source.write(out, start, &question, limit);
            })
        };
        let long = option(65_353, b"route corp.example.");
        let short = option(65_353, b"route");
        let route = Source::Route { zone_len: 14 };
        for limit in 0..long.len() + 2 {
            let expected = match limit {
                _ if limit >= long.len() => &long[..],
                _ if limit >= short.len() => &short,
                _ => &[],
            };
            assert_eq!(with_limit(route, limit), expected, "{limit}");
        }
        let local = option(65_353, b"local");
        assert_eq!(with_limit(Source::Local, local.len()), local);
        assert_eq!(with_limit(Source::Local, local.len() - 1), b"");
    }

    #[test]
    fn only_a_text_tells_a_source() {
        let question = question_for(name("x"), A);
        let told = |options: &[u8]| {
            let draft = Draft::answer(&question).opt(options);
            let answer = Answer::parse(&draft.0).unwrap();
            told_source(&answer).map(<[u8]>::to_vec)
        };
        assert_eq!(told(&option(65_353, b"cache")), Some(b"cache".to_vec()));
        // Some programs send back each option that they do not know.
        assert_eq!(told(&option(65_353, b"")), None);
        assert_eq!(told(&option(65_353, &[b'x'; 261])), None);
        assert_eq!(told(&option(65_001, b"cache")), None);
        let plain = Draft::answer(&question);
        assert_eq!(told_source(&Answer::parse(&plain.0).unwrap()), None);
    }
}
