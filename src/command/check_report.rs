//! What did a look at everything find?
//!
//! Findings, each with a state and a remedy, in lines for people or as JSON.

use std::fmt;

use crate::command::json::Json;
use crate::identity::key_exchange::Group;

/// What a key exchange means for recorded sessions: a note, and no warning, as the operator of the resolver has to change it.
pub(super) fn describe_key_exchange(group: Group, small_hello: bool) -> &'static str {
    match (group.is_post_quantum(), small_hello) {
        (true, _) => ", post-quantum",
        (false, false) => ", classical: the resolver has no X25519MLKEM768",
        (false, true) => {
            ", classical: the handshake fails with X25519MLKEM768, which takes a hello of two packets"
        }
    }
}

/// The state of a finding, best first; the words are those of monitoring plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// It could not be checked.
    Unknown,
    /// It works, but not for ever, or not as well as it could.
    Warning,
    /// It does not work.
    Critical,
}

impl State {
    /// The exit code of a monitoring plugin.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        })
    }
}

#[derive(Debug)]
struct Finding {
    state: State,
    /// What was checked.
    subject: String,
    text: String,
    /// What to do about it; empty if nothing is to be done.
    remedy: String,
}

/// All findings.
#[derive(Debug)]
pub struct Report {
    findings: Vec<Finding>,
    json: bool,
}

impl Report {
    /// An empty report, written as JSON or in lines.
    pub(super) fn new(json: bool) -> Self {
        Self {
            findings: Vec::new(),
            json,
        }
    }

    /// The worst state of all findings.
    pub fn state(&self) -> State {
        let states = self.findings.iter().map(|finding| finding.state);
        states.max().unwrap_or(State::Unknown)
    }

    fn count(&self, state: State) -> usize {
        let matching = self
            .findings
            .iter()
            .filter(|finding| finding.state == state);
        matching.count()
    }

    /// Adds a finding that is as it should be.
    pub(super) fn add(&mut self, subject: impl fmt::Display, text: impl fmt::Display) {
        self.add_fault(State::Ok, subject, text, "");
    }

    /// Adds a fault, and what to do about it.
    pub(super) fn add_fault(
        &mut self,
        state: State,
        subject: impl fmt::Display,
        text: impl fmt::Display,
        remedy: impl fmt::Display,
    ) {
        self.push(state, [&subject, &text, &remedy]);
    }

    /// The number of findings so far.
    pub(super) fn finding_count(&self) -> usize {
        self.findings.len()
    }

    /// Limits the state of findings to `worst`: those from number `first` on whose subject ends in `aspect`.
    pub(super) fn cap_state(&mut self, worst: State, first: usize, aspect: &str) {
        for finding in &mut self.findings[first..] {
            if finding.subject.ends_with(aspect) {
                finding.state = finding.state.min(worst);
            }
        }
    }

    // Not generic, so that the binary has one copy.
    #[inline(never)]
    fn push(&mut self, state: State, parts: [&dyn fmt::Display; 3]) {
        let [subject, text, remedy] = parts.map(ToString::to_string);
        self.findings.push(Finding {
            state,
            subject,
            text,
            remedy,
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.json {
            let findings = self.findings.iter().map(|finding| {
                Json::Object(vec![
                    ("state", Json::text(finding.state)),
                    ("subject", Json::text(&finding.subject)),
                    ("text", Json::text(&finding.text)),
                    (
                        "remedy",
                        match &finding.remedy[..] {
                            "" => Json::Null,
                            remedy => Json::text(remedy),
                        },
                    ),
                ])
            });
            let report = Json::Object(vec![
                ("state", Json::text(self.state())),
                ("findings", Json::Array(findings.collect())),
            ]);
            return writeln!(f, "{report}");
        }
        // Monitoring systems show the first line.
        writeln!(
            f,
            "{} dns-tool: {} findings, {} critical, {} warnings",
            self.state(),
            self.findings.len(),
            self.count(State::Critical),
            self.count(State::Warning)
        )?;
        for finding in &self.findings {
            let Finding {
                state,
                subject,
                text,
                remedy,
            } = finding;
            // Texts of others stay within their line.
            let text = text
                .escape_debug()
                .to_string()
                .replace("\\\"", "\"")
                .replace("\\'", "'");
            write!(f, "{state} {subject}: {text}")?;
            if !remedy.is_empty() {
                write!(f, "; remedy: {remedy}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
