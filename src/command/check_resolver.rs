//! How does each address of the resolvers fare?
//!
//! Connected to, made to prove its identity and asked, with the daemon's own code.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::command::check_report::{Report, State};
use crate::command::stub::{Asking, Cause, exchange};
use crate::identity::certificate::Facts;
use crate::identity::chain::Proof;
use crate::identity::refusal::{Check, Refusal};
use crate::identity::verifier::Identity;
use crate::message::presentation::{Name, Rcode, Type};
use crate::message::{Answer, rcode};
use crate::system::clock;
use crate::system::date::DAY;
use crate::upstream::Resolver;
use crate::upstream::handshake::ConnectError;
use crate::upstream::session::Session;

/// A certificate that expires within so many days is worth a look: most are renewed a month before.
const SOON: u64 = 14;
/// NS, which the root has.
const NS: Type = Type(2);

/// The question for the root's name servers, which every resolver can answer.
pub(super) fn root() -> Vec<u8> {
    let root: Name = ".".parse().expect("the root is a name");
    root.question(NS)
}

/// Looks at every address of these resolvers.
pub(super) fn check_resolvers(resolvers: &[Resolver], timeout: Duration, report: &mut Report) {
    let first = report.findings();
    let mut serving = 0;
    for Resolver {
        addresses,
        identity,
    } in resolvers
    {
        for address in addresses {
            let serves = check_address(*address, identity, timeout, report);
            serving += usize::from(serves);
        }
    }
    if serving > 0 {
        // What cannot be reached is passed over; who is not who it should be is another matter.
        report.limit(State::Warning, first, " reach");
    }
}

/// Looks at one address; whether it serves.
fn check_address(
    address: SocketAddr,
    identity: &Identity,
    timeout: Duration,
    report: &mut Report,
) -> bool {
    let place = format!("{address}#{}", identity.name().to_str());
    let began = clock::now();
    let opened = Session::connect(address, identity, began + timeout);
    let (session, reader) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            report_failure(&place, &error, identity, report);
            return false;
        }
    };
    report_session(&place, &session, identity, since(began), report);
    let asked = clock::now();
    let asking = Asking::new(root(), timeout, asked);
    let answer = exchange(&session, reader, asking.message(), asked + timeout);
    let serves = report_answer(&place, &answer, asked, report);
    check_resumption(&place, address, identity, timeout, report);
    serves
}

/// Says what a session has shown, which took so many milliseconds to open.
fn report_session(
    place: &str,
    session: &Session,
    identity: &Identity,
    took: u128,
    report: &mut Report,
) {
    let agreed = session.tls_parameters();
    report.add(
        format_args!("{place} reach"),
        format_args!("connected and shaken hands in {took} ms"),
    );
    let alpn = if agreed.alpn { "ALPN dot" } else { "no ALPN" };
    report.add(
        format_args!("{place} tls"),
        format_args!("{}, {alpn}", agreed.version),
    );
    report.add(format_args!("{place} chain"), "valid, up to a trust anchor");
    report.add(format_args!("{place} name"), identity.name().to_str());
    report_pins(place, session.proof(), identity, report);
    report_expiry(place, session.proof(), report);
}

/// Says what came of a question that was asked then; whether it was served.
fn report_answer(
    place: &str,
    answer: &Result<Vec<u8>, Cause>,
    asked: Instant,
    report: &mut Report,
) -> bool {
    const REMEDY: &str = "ask its operator, or choose another resolver";
    let subject = format!("{place} query");
    let message = match answer {
        Err(cause) => {
            report.add_fault(State::Critical, subject, cause, REMEDY);
            return false;
        }
        Ok(message) => message,
    };
    let Ok(answer) = Answer::parse(message) else {
        let text = "an answer that cannot be read";
        report.add_fault(State::Critical, subject, text, REMEDY);
        return false;
    };
    let (took, code) = (since(asked), answer.rcode());
    let text = format!("{} after {took} ms", Rcode(code));
    // Who has a root of its own has no name servers for it.
    let serves = [rcode::NOERROR, rcode::NXDOMAIN].contains(&code);
    if serves {
        report.add(subject, text);
    } else {
        let remedy = "ask its operator whether this host may use it";
        report.add_fault(State::Critical, subject, text, remedy);
    }
    let padded = if answer.is_padded() { "are" } else { "are not" };
    report.add(
        format_args!("{place} padding"),
        format_args!("answers {padded} padded"),
    );
    let kept = answer.keepalive().map_or(
        "does not say how long it keeps sessions".to_owned(),
        |kept| {
            let (seconds, tenths) = (kept.as_secs(), kept.subsec_millis() / 100);
            format!("keeps idle sessions for {seconds}.{tenths} s")
        },
    );
    report.add(format_args!("{place} keepalive"), kept);
    serves
}

/// Connects once more, and says whether that session is resumed.
fn check_resumption(
    place: &str,
    address: SocketAddr,
    identity: &Identity,
    timeout: Duration,
    report: &mut Report,
) {
    let again = clock::now();
    let subject = format!("{place} resumption");
    match Session::connect(address, identity, again + timeout) {
        Ok((session, _)) => {
            let took = since(again);
            let text = if session.tls_parameters().resumed {
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

/// Milliseconds since then.
fn since(moment: Instant) -> u128 {
    clock::now().saturating_duration_since(moment).as_millis()
}

fn report_failure(place: &str, error: &ConnectError, identity: &Identity, report: &mut Report) {
    let refusal = match error {
        ConnectError::Connect(_) => {
            let remedy =
                "see that the address is right and that nothing on the way keeps its port from you";
            let subject = format!("{place} reach");
            return report.add_fault(State::Critical, subject, error, remedy);
        }
        ConnectError::Handshake(_) => {
            let remedy = "see that DNS over TLS is spoken there, on that port";
            let subject = format!("{place} tls");
            return report.add_fault(State::Critical, subject, error, remedy);
        }
        ConnectError::Identity(refusal) => refusal,
    };
    report.add(format_args!("{place} reach"), "connected");
    let Refusal {
        check,
        cause,
        names,
        pins,
        ..
    } = &**refusal;
    // The checks come in this order: those before the one that failed hold.
    if matches!(check, Check::Name | Check::Pin) {
        report.add(format_args!("{place} chain"), "valid, up to a trust anchor");
    }
    if matches!(check, Check::Pin) {
        report.add(format_args!("{place} name"), identity.name().to_str());
    }
    let (text, remedy) = match check {
        Check::Chain => (
            cause.clone(),
            "see this machine's clock; an authority of your own is given by --resolver-ca; else ask the operator",
        ),
        Check::Name => (
            format!("the certificate is for {}", names.join(" ")),
            "give the resolver's own name by --resolver-fqdn, or behind the # of --resolver",
        ),
        Check::Pin => {
            let shown: Vec<_> = pins.iter().map(ToString::to_string).collect();
            (
                format!("no key that it shows is pinned: {}", shown.join(" ")),
                "compare the keys with what its operator publishes, and only then give their pins",
            )
        }
        Check::Clock => (
            cause.clone(),
            "set this machine's clock, or give a pin; if it is right, take the line \"time\" out of the file in --state-dir",
        ),
    };
    report.add_fault(
        State::Critical,
        format_args!("{place} {check}"),
        text,
        remedy,
    );
}

fn report_pins(place: &str, proof: &Proof, identity: &Identity, report: &mut Report) {
    let subject = format!("{place} pin");
    let count = identity.terms().pins.slots().len();
    match proof.fit {
        _ if count == 0 => report.add(subject, "none given"),
        None => {
            let shown: Vec<_> = proof.keys.iter().map(ToString::to_string).collect();
            let text = format!("no key that it shows is pinned: {}", shown.join(" "));
            let remedy =
                "compare the keys with what its operator publishes, and only then give their pins";
            report.add_fault(State::Warning, subject, text, remedy);
        }
        Some(fit) => {
            let whose = match fit.key {
                0 => "the leaf's",
                key if key + 1 == proof.keys.len() => "the anchor's",
                _ => "an issuer's",
            };
            let text = format!("pin {} of {count} is {whose}", fit.slot + 1);
            if fit.slot == 0 {
                report.add(subject, text);
            } else {
                let text = format!("{text}: a backup is in use");
                let remedy = "the key was changed: put its pin first, and give the one that comes next as backup";
                report.add_fault(State::Warning, subject, text, remedy);
            }
        }
    }
}

fn report_expiry(place: &str, proof: &Proof, report: &mut Report) {
    let now = clock::since_1970().as_secs();
    let facts = proof.certificates.iter().filter_map(Facts::read);
    let days: Vec<_> = facts
        .map(|facts| facts.not_after.saturating_sub(now) / DAY)
        .collect();
    let subject = format!("{place} expiry");
    let spelled: Vec<_> = days.iter().map(ToString::to_string).collect();
    let text = format!("days left, from the leaf on: {}", spelled.join(" "));
    match days.iter().min() {
        Some(least) if *least < SOON => {
            let remedy =
                "nothing here: its operator has to renew it; have another --resolver ready";
            report.add_fault(State::Warning, subject, text, remedy);
        }
        _ => report.add(subject, text),
    }
}
