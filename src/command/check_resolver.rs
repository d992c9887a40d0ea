//! How does each address of the resolvers fare?
//!
//! Connects, verifies its identity and sends a query, with the daemon's own code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::built_in_addresses::{family, leave_out};
use crate::command::check_identity::{report_expiry, report_pins, report_refusal};
use crate::command::check_report::{Report, State, describe_key_exchange};
use crate::command::stub::{Cause, StubQuery, exchange_all};
use crate::forward::routes::CLEARTEXT_PREFIX;
use crate::identity::key_exchange::{HelloSize, KeyExchange};
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::VerifyPolicy;
use crate::message::presentation::{Name, Rcode, Type};
use crate::message::{Answer, QueryForm, rcode, response_code};
use crate::system::clock;
use crate::system::scoped_address::ScopedAddress;
use crate::upstream::handshake::{ConnectError, inspect};
use crate::upstream::session::Session;
use crate::upstream::{NetworkFault, Obstruction, Reader, Resolver, Security};

/// The type NS, which the root has.
const NS: Type = Type(2);

/// The question for the root's name servers, which every resolver can answer.
pub(super) fn root_ns_question() -> Vec<u8> {
    let root: Name = ".".parse().expect("the root is a name");
    root.question(NS)
}

/// What the addresses of one upstream are asked for.
pub(super) struct Inquiry {
    /// What stands before an address in the subjects of findings: nothing, or words that end in a space.
    pub(super) prefix: String,
    /// One question or more.
    pub(super) questions: Vec<Question>,
    /// What to do about a response code that is no answer.
    pub(super) remedy: &'static str,
}

/// A question that a resolver has to answer.
pub(super) struct Question {
    /// What stands before the address in the subject of its finding.
    pub(super) prefix: String,
    /// Name, type and class in wire form.
    pub(super) octets: Vec<u8>,
}

impl Inquiry {
    /// What the main resolvers are asked for.
    fn of_main_resolvers() -> Self {
        Self {
            prefix: String::new(),
            questions: vec![Question {
                prefix: String::new(),
                octets: root_ns_question(),
            }],
            remedy: "ask its operator whether this host may use it",
        }
    }
}

/// Checks every address of the main resolvers, but for built-in ones to which this host has no route.
pub(super) fn check_main_resolvers(
    resolvers: &[Resolver],
    built_in: &[ScopedAddress],
    timeout: Duration,
    report: &mut Report,
) {
    let resolvers = leave_out(resolvers, built_in, report);
    let failures = check_resolvers(&resolvers, &Inquiry::of_main_resolvers(), timeout, report);
    let count = failures.len();
    if let Some(obstruction) = Obstruction::common(failures)
        // One address that does not answer may be down.
        && (count > 1 || obstruction == Obstruction::OtherServer)
    {
        let (cause, remedy) = (obstruction.cause(), obstruction.remedy());
        report.add_fault(State::Warning, "network", cause, remedy);
    }
}

/// Checks every address of these resolvers, of which one is enough. Returns how each could not be reached; none for one that was.
pub(super) fn check_resolvers(
    resolvers: &[Resolver],
    inquiry: &Inquiry,
    timeout: Duration,
    report: &mut Report,
) -> Vec<Option<NetworkFault>> {
    let first = report.finding_count();
    let mut serving = 0;
    let mut failures = Vec::new();
    for Resolver {
        addresses,
        security,
    } in resolvers
    {
        for address in addresses {
            let check = AddressCheck::new(*address, security, inquiry, timeout);
            let answers = check.run(report);
            serving += usize::from(answers == Ok(true));
            failures.push(answers.err());
        }
    }
    if serving > 0 {
        // An unreachable address is skipped in service, so it is only a warning while another one works. A wrong identity stays
        // critical.
        report.cap_state(State::Warning, first, " reach");
    }
    failures
}

/// The check of one address.
struct AddressCheck<'c> {
    address: ScopedAddress,
    security: &'c Security,
    inquiry: &'c Inquiry,
    timeout: Duration,
    /// The address and the name that it has to prove.
    server: String,
}

impl<'c> AddressCheck<'c> {
    fn new(
        address: ScopedAddress,
        security: &'c Security,
        inquiry: &'c Inquiry,
        timeout: Duration,
    ) -> Self {
        Self {
            address,
            security,
            inquiry,
            timeout,
            server: match security {
                Security::Tls(_) => format!("{address}#{}", security.name()),
                Security::Cleartext => format!("{CLEARTEXT_PREFIX}{address}"),
            },
        }
    }

    /// Connects and asks. Returns whether all questions have an answer; or how the address could not be reached.
    fn run(&self, report: &mut Report) -> Result<bool, NetworkFault> {
        let label = format!("{}{}", self.inquiry.prefix, self.server);
        let began = clock::now();
        let opened = Session::connect(self.address, self.security, began + self.timeout);
        let (session, reader) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.report_failure(&label, &error, report);
                return Err(NetworkFault::of(&error, &self.security.name()));
            }
        };
        report_session(&label, &session, self.security, millis_since(began), report);
        let answers = self.ask(&session, reader, report);
        if session.proof().is_some() {
            check_resumption(&label, self.address, self.security, self.timeout, report);
        }
        Ok(answers)
    }

    /// Reports why no session could be opened.
    fn report_failure(&self, label: &str, error: &ConnectError, report: &mut Report) {
        const NO_GROUP: &str =
            "set --key-exchange prefer, or choose a resolver that has X25519MLKEM768";
        let mut text = error.to_string();
        let (aspect, remedy) = match error {
            ConnectError::Connect(_) if !self.address.has_route() => {
                text = format!(
                    "this host has no route to {} addresses such as this one",
                    family(&self.address)
                );
                ("reach", "give it one, or take the address out")
            }
            ConnectError::Connect(_) => (
                "reach",
                "see that the address is right and that nothing on the way keeps its port from you",
            ),
            ConnectError::Handshake(_) => {
                match self.hello_without_requirement() {
                    Some(HelloSize::Small) => {
                        text.push_str(": it succeeds without X25519MLKEM768, which takes a hello of two packets");
                        (
                            "key exchange",
                            "have a hello of two packets accepted by the resolver, or by the firewall or other network device that \
                         drops it; or set --key-exchange prefer, for classical keys",
                        )
                    }
                    Some(HelloSize::Large) => ("key exchange", NO_GROUP),
                    None => ("tls", "see that DNS over TLS is spoken there, on that port"),
                }
            }
            ConnectError::KeyExchange(_) => ("key exchange", NO_GROUP),
            ConnectError::Identity(refusal) => {
                return report_refusal(label, refusal, self.security, report);
            }
        };
        let subject = format!("{label} {aspect}");
        report.add_fault(State::Critical, subject, text, remedy);
    }

    /// Where X25519MLKEM768 is required: with which hello the handshake succeeds with a classical group, if it does. Sends no query.
    fn hello_without_requirement(&self) -> Option<HelloSize> {
        let policy = self.security.identity()?.policy();
        if policy.key_exchange != KeyExchange::Require {
            return None;
        }
        let other = Identity::new(VerifyPolicy {
            key_exchange: KeyExchange::Prefer,
            ..policy.clone()
        });
        let shown = inspect(self.address, &other, clock::now() + self.timeout).ok()?;
        Some(shown.hello).filter(|_| !shown.group.is_post_quantum())
    }

    /// Sends the questions, and again in a simpler form to a server that does not support EDNS, as the daemon does. Reports the answers.
    fn ask(&self, session: &Arc<Session>, reader: Reader, report: &mut Report) -> bool {
        let mut form = QueryForm::Padded;
        let mut sent_at = clock::now();
        let questions = self.inquiry.questions.iter();
        let queries = questions
            .map(|question| StubQuery::new(question.octets.clone(), self.timeout, sent_at));
        let queries: Vec<_> = queries.collect();
        let messages: Vec<_> = queries.iter().map(StubQuery::message).collect();
        let until = sent_at + self.timeout;
        let mut exchange = exchange_all(session, reader, &messages, form, until);
        while exchange
            .answers
            .iter()
            .flatten()
            .any(|(answer, _)| rcode::OF_UNSUPPORTED_EDNS.contains(&response_code(answer)))
            && let Some(simpler) = form.fallback()
            && let Ok((session, reader)) =
                Session::connect(self.address, self.security, clock::now() + self.timeout)
        {
            (form, sent_at) = (simpler, clock::now());
            let until = sent_at + self.timeout;
            exchange = exchange_all(&session, reader, &messages, form, until);
        }
        let mut answered = true;
        for (question, answer) in self.inquiry.questions.iter().zip(&exchange.answers) {
            let subject = format!("{}{} query", question.prefix, self.server);
            let answer = answer.as_ref().ok_or(&exchange.cause);
            let remedy = self.inquiry.remedy;
            answered &= report_answer(&subject, answer, (sent_at, form), remedy, report);
        }
        let mut messages = exchange.answers.iter().flatten();
        if session.proof().is_some()
            && let Some((message, _)) = messages.next()
            && let Ok(answer) = Answer::parse(message)
        {
            let label = format!("{}{}", self.inquiry.prefix, self.server);
            report_habits(&label, &answer, report);
        }
        answered
    }
}

/// Reports a session that took `took` milliseconds to open.
fn report_session(
    label: &str,
    session: &Session,
    security: &Security,
    took: u128,
    report: &mut Report,
) {
    let subject = format!("{label} reach");
    let (Some(agreed), Some(proof), Some(identity)) = (
        session.tls_parameters(),
        session.proof(),
        security.identity(),
    ) else {
        return report.add(
            subject,
            format_args!("connected in {took} ms, in cleartext"),
        );
    };
    report.add(
        subject,
        format_args!("connected and shaken hands in {took} ms"),
    );
    let alpn = if agreed.alpn { "ALPN dot" } else { "no ALPN" };
    report.add(
        format_args!("{label} tls"),
        format_args!("{}, {alpn}", agreed.version),
    );
    let note = match identity.policy().key_exchange {
        KeyExchange::Classical => "",
        _ => describe_key_exchange(agreed.group, session.hello() == HelloSize::Small),
    };
    report.add(
        format_args!("{label} key exchange"),
        format_args!("{}{note}", agreed.group),
    );
    report.add(format_args!("{label} chain"), "valid, up to a trust anchor");
    report.add(format_args!("{label} name"), identity.name().to_str());
    report_pins(label, proof, identity, report);
    report_expiry(label, proof, report);
}

/// Reports the answer to a query that was sent at this time in this form. Returns whether it is an answer.
fn report_answer(
    subject: &str,
    answer: Result<&(Vec<u8>, Instant), &Cause>,
    (sent_at, form): (Instant, QueryForm),
    remedy_for_code: &str,
    report: &mut Report,
) -> bool {
    const REMEDY: &str = "ask its operator, or choose another resolver";
    let (message, came_at) = match answer {
        Err(cause) => {
            report.add_fault(State::Critical, subject, cause, REMEDY);
            return false;
        }
        Ok(answer) => answer,
    };
    let Ok(answer) = Answer::parse(message) else {
        let text = "an answer that cannot be read";
        report.add_fault(State::Critical, subject, text, REMEDY);
        return false;
    };
    let took = came_at.saturating_duration_since(sent_at).as_millis();
    let code = answer.rcode();
    let without = match form {
        QueryForm::Padded => "",
        QueryForm::Unpadded => ", without padding",
        QueryForm::NoEdns => ", without EDNS",
    };
    let text = format!("{} after {took} ms{without}", Rcode(code));
    // The name need not exist: a resolver may have a root zone of its own.
    let answers = [rcode::NOERROR, rcode::NXDOMAIN].contains(&code);
    if answers {
        report.add(subject, text);
    } else {
        report.add_fault(State::Critical, subject, text, remedy_for_code);
    }
    answers
}

/// Reports what an answer over TLS shows of the resolver's habits.
fn report_habits(label: &str, answer: &Answer<'_>, report: &mut Report) {
    let padded = if answer.is_padded() { "are" } else { "are not" };
    report.add(
        format_args!("{label} padding"),
        format_args!("answers {padded} padded"),
    );
    let keepalive_text = answer.keepalive().map_or(
        "does not say how long it keeps sessions".to_owned(),
        |keepalive_text| {
            let (seconds, tenths) = (
                keepalive_text.as_secs(),
                keepalive_text.subsec_millis() / 100,
            );
            format!("keeps idle sessions for {seconds}.{tenths} s")
        },
    );
    report.add(format_args!("{label} keepalive"), keepalive_text);
}

/// Connects again, and reports whether the session is resumed.
fn check_resumption(
    label: &str,
    address: ScopedAddress,
    security: &Security,
    timeout: Duration,
    report: &mut Report,
) {
    let started = clock::now();
    let subject = format!("{label} resumption");
    match Session::connect(address, security, started + timeout) {
        Ok((session, _)) => {
            let took = millis_since(started);
            let text = if session.tls_parameters().is_some_and(|tls| tls.resumed) {
                format!("resumed in {took} ms")
            } else {
                format!("a whole handshake each time, {took} ms")
            };
            report.add(subject, text);
            session.close();
        }
        Err(error) => {
            let text = format!("a second connection fails: {error}");
            let remedy = "look again later: it may limit how often one connects";
            report.add_fault(State::Warning, subject, text, remedy);
        }
    }
}

/// Milliseconds since `moment`.
fn millis_since(moment: Instant) -> u128 {
    clock::now().saturating_duration_since(moment).as_millis()
}
