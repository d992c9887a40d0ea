//! Is all as it should be?
//!
//! The daemon's configuration, its ports, and each address of its resolvers, looked at with the daemon's own code: a line
//! for each finding, and for each fault one remedy. Exit codes are those of monitoring plugins.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::command::json::Json;
use crate::command::query::{Asking, exchange, reachable};
use crate::config::settings::{CheckRequest, UsageError};
use crate::identity::certificate::Facts;
use crate::identity::rollover::Memory;
use crate::identity::state_file::Store;
use crate::identity::verifier::{Check, Identity, PinMode, Proof, Refusal};
use crate::message::presentation::{Name, Rcode, Type};
use crate::message::{Answer, rcode};
use crate::server::listeners::{self, Sockets};
use crate::system::clock;
use crate::system::date::{DAY, Moment};
use crate::upstream::Resolver;
use crate::upstream::session::{ConnectError, Session};

/// A certificate that expires within so many days is worth a look: most are renewed a month before.
const SOON: u64 = 14;
/// How long whoever listens on our port has to answer.
const NEIGHBOUR: Duration = Duration::from_secs(1);
/// NS, which the root has.
const NS: Type = Type(2);

/// How bad a finding is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It serves, but not for ever, or not as well as it could.
    Warning,
    /// It does not serve.
    Critical,
}

impl State {
    /// The exit code that says so.
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
    /// What was looked at.
    subject: String,
    text: String,
    /// What to do about it; empty where nothing is to be done.
    remedy: String,
}

/// All findings.
#[derive(Debug)]
pub struct Report {
    findings: Vec<Finding>,
    json: bool,
}

impl Report {
    /// How bad it is in all.
    pub fn state(&self) -> State {
        let states = self.findings.iter().map(|finding| finding.state);
        states.max().unwrap_or(State::Unknown)
    }

    fn count(&self, state: State) -> usize {
        let of_it = self
            .findings
            .iter()
            .filter(|finding| finding.state == state);
        of_it.count()
    }

    fn add(&mut self, subject: impl fmt::Display, text: impl fmt::Display) {
        self.add_fault(State::Ok, subject, text, "");
    }

    fn add_fault(
        &mut self,
        state: State,
        subject: impl fmt::Display,
        text: impl fmt::Display,
        remedy: impl fmt::Display,
    ) {
        self.push(state, [&subject, &text, &remedy]);
    }

    // Once, whatever it is that is shown.
    #[inline(never)]
    fn push(&mut self, state: State, shown: [&dyn fmt::Display; 3]) {
        let [subject, text, remedy] = shown.map(ToString::to_string);
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
                            "" => Json::None,
                            remedy => Json::text(remedy),
                        },
                    ),
                ])
            });
            let report = Json::Object(vec![
                ("state", Json::text(self.state())),
                ("findings", Json::List(findings.collect())),
            ]);
            return writeln!(f, "{report}");
        }
        // Monitoring shows the first line.
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
            // What strangers say stays within its line.
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

/// What is wrong with a configuration that cannot be understood.
pub fn misconfigured(error: &UsageError, json: bool) -> Report {
    let mut report = Report {
        findings: Vec::new(),
        json,
    };
    let remedy = "mend what is named; dns-tool --help lists all options";
    report.add_fault(State::Critical, "configuration", error, remedy);
    report
}

/// Looks at everything.
pub fn run(request: &CheckRequest) -> Report {
    let config = &request.config;
    let mut report = Report {
        findings: Vec::new(),
        json: request.json,
    };
    report.add("configuration", "understood");
    for variable in config.given.left_alone() {
        report.add(
            "environment",
            format_args!("{variable} is no option, and left alone"),
        );
    }
    check_clock(request, &mut report);
    check_pins(request, &mut report);
    if let Some(file) = &config.keys.source.file {
        check_file(file, &mut report);
    }
    for address in &config.server.addresses {
        let alone = listeners::Settings {
            addresses: vec![*address],
            // Who shares the port is given clients, and this is nobody who serves them.
            reuse_port: false,
            ..config.server.clone()
        };
        check_port(&alone, &mut report);
    }
    if let Some(user) = config.user
        && let Err(error) = user.become_it()
    {
        let remedy = "start it as root, or as that user without --user";
        report.add_fault(State::Critical, "user", error, remedy);
    }
    if let Some(file) = &config.keys.source.file
        && let Err(error) = config.keys.source.read()
    {
        let remedy = "let the user of --user read it";
        report.add_fault(
            State::Critical,
            format_args!("--pins {file:?}"),
            error,
            remedy,
        );
    }
    if let Some(directory) = &config.keys.directory {
        let subject = format!("--state-dir {directory:?}");
        let opened = Store::open(directory).map_err(|error| error.to_string());
        let tried = opened.and_then(|(store, state)| {
            let written = store.try_out(&state);
            written.map_err(|error| format!("it cannot be written: {error}"))
        });
        match tried {
            Ok(()) => report.add(subject, "read, and may be written"),
            Err(error) => {
                let remedy = "give it to the user that dns-tool runs as";
                report.add_fault(State::Critical, subject, error, remedy);
            }
        }
    }
    let resolvers = config.upstream.resolvers.iter();
    let places: Vec<_> = resolvers
        .flat_map(|resolver| {
            let identity = &resolver.identity;
            resolver
                .addresses
                .iter()
                .map(move |address| (*address, identity))
        })
        .collect();
    let first = report.findings.len();
    let mut serving = 0;
    for (address, identity) in places {
        let serves = check_address(address, identity, config.upstream.timeout, &mut report);
        serving += usize::from(serves);
    }
    if serving > 0 {
        // What cannot be reached is passed over; who is not who it should be is another matter.
        let away = report.findings[first..].iter_mut();
        for finding in away.filter(|finding| finding.subject.ends_with(" reach")) {
            finding.state = finding.state.min(State::Warning);
        }
    }
    report
}

fn check_clock(request: &CheckRequest, report: &mut Report) {
    let now = clock::since_1970().as_secs();
    let resolvers = &request.config.upstream.resolvers;
    let floor = resolvers[0].identity.terms().clock_floor;
    if now + DAY > floor {
        return report.add("clock", format_args!("{:#}", Moment(now)));
    }
    let text = format!(
        "{:#}, but it cannot be before {:#}",
        Moment(now),
        Moment(floor)
    );
    let mut resolvers = resolvers.iter();
    let pinned = resolvers.all(|resolver| !resolver.identity.terms().pins.is_empty());
    let (state, text) = if pinned {
        (State::Warning, text + "; pins stand in for it")
    } else {
        (State::Critical, text + "; no pin stands in for it")
    };
    let remedy = "set this machine's clock; if it is right, take the line \"time\" out of the file in --state-dir";
    report.add_fault(state, "clock", text, remedy);
}

fn check_pins(request: &CheckRequest, report: &mut Report) {
    let now = clock::since_1970().as_secs();
    let resolvers = &request.config.upstream.resolvers;
    let pinned = |resolver: &Resolver| !resolver.identity.terms().pins.is_empty();
    let others_pinned = resolvers.iter().any(pinned);
    for resolver in resolvers {
        let terms = resolver.identity.terms();
        let subject = format!("{} pins", terms.name.to_str());
        let slots = terms.pins.slots();
        let late = slots.iter().enumerate();
        for (slot, dated) in late.filter(|(_, dated)| !dated.counts_at(now)) {
            let number = slot + 1;
            let (text, remedy) = match (dated.not_before, dated.not_after) {
                (_, Some(until)) if until < now => (
                    format!("pin {number} has not counted since {}", Moment(until)),
                    "take its line away, or give it a later not-after=",
                ),
                (from, _) => {
                    let from = Moment(from.unwrap_or_default());
                    report.add(
                        &subject,
                        format_args!("pin {number} will count from {from} on"),
                    );
                    continue;
                }
            };
            report.add_fault(State::Warning, &subject, text, remedy);
        }
        let text = "none: any key that chain and name vouch for";
        if slots.is_empty() && others_pinned {
            let remedy = "pin it as well: dns-tool pin shows its keys";
            report.add_fault(State::Warning, &subject, text, remedy);
        } else if slots.is_empty() {
            report.add(&subject, text);
        } else if !slots.iter().any(|dated| dated.counts_at(now)) {
            let remedy = "give a pin that counts now: dns-tool pin shows the keys";
            report.add_fault(State::Critical, &subject, "none of them counts now", remedy);
        } else if terms.pins.lacks_backup(now) {
            let text = "one key alone: when it is changed, all names stop";
            let remedy =
                "give the pin of the key that comes next, or of an issuer: dns-tool pin shows them";
            report.add_fault(State::Warning, &subject, text, remedy);
        } else {
            report.add(&subject, format_args!("{} of them", slots.len()));
        }
        let memory = request
            .config
            .keys
            .state
            .memories
            .get(&*terms.name.to_str());
        for pin in memory.into_iter().flat_map(Memory::learnt) {
            let counts = slots.iter().any(|dated| dated.pin == pin);
            let (what, when) = if counts {
                ("learnt", "")
            } else {
                ("learnt, not believed", " without --pin-rollover")
            };
            report.add(
                &subject,
                format_args!("{pin} was {what}{when}; its line in --state-dir takes it back"),
            );
        }
        if terms.pin_mode == PinMode::Report && !slots.is_empty() {
            let text = "--pin-mode report: a key without a pin is taken all the same";
            let remedy = "--pin-mode strict, once the pins are right";
            report.add_fault(State::Warning, &subject, text, remedy);
        }
    }
}

/// Whoever may put another file in the place of the pins says which key is believed.
fn check_file(file: &Path, report: &mut Report) {
    const OTHERS_WRITE: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    let subject = format!("--pins {file:?}");
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    match std::fs::metadata(directory) {
        Ok(found) if found.mode() & OTHERS_WRITE != 0 && found.mode() & STICKY == 0 => {
            let remedy = format!("chmod o-w {directory:?}");
            let text = "others may put another file in its place";
            report.add_fault(State::Warning, subject, text, remedy);
        }
        _ => report.add(subject, "read, and no others may write it"),
    }
}

fn check_port(settings: &listeners::Settings, report: &mut Report) {
    let address = SocketAddr::new(settings.addresses[0], settings.port);
    let subject = format!("listening on {address}");
    let Err(error) = Sockets::bind(settings) else {
        return report.add(subject, "free, TCP and UDP");
    };
    match error.kind() {
        ErrorKind::AddrNotAvailable if settings.addresses_optional => {
            report.add(subject, "left out: this host has no such address");
        }
        ErrorKind::AddrInUse => {
            let began = clock::now();
            let asking = Asking::new(root(), NEIGHBOUR, began);
            let neighbour = reachable(address.ip(), address.port());
            match asking.exchange_datagrams(neighbour) {
                Ok(_) => report.add(subject, "in use by who answers DNS"),
                Err(_) => report.add_fault(
                    State::Critical,
                    subject,
                    "in use by who does not answer DNS",
                    "end it, or choose another --port or --address",
                ),
            }
        }
        ErrorKind::PermissionDenied => report.add_fault(
            State::Critical,
            subject,
            "no right to listen there",
            "start it as root with --user, with the capability CAP_NET_BIND_SERVICE, or on a --port from 1024 on",
        ),
        ErrorKind::AddrNotAvailable => report.add_fault(
            State::Critical,
            subject,
            "this host has no such address",
            "choose an --address of this host",
        ),
        _ => report.add_fault(State::Unknown, subject, error, "see what the system says"),
    }
}

/// The question for the root's name servers, which every resolver can answer.
fn root() -> Vec<u8> {
    let root: Name = ".".parse().expect("the root is a name");
    root.question(NS)
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
    let agreed = session.agreement();
    let took = since(began);
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
    report_pins(&place, session.proof(), identity, report);
    report_expiry(&place, session.proof(), report);
    let asked = clock::now();
    let asking = Asking::new(root(), timeout, asked);
    let answer = exchange(&session, reader, asking.message(), asked + timeout);
    let subject = format!("{place} query");
    let serves = match &answer {
        Err(cause) => {
            let remedy = "ask its operator, or choose another resolver";
            report.add_fault(State::Critical, subject, cause, remedy);
            false
        }
        Ok(message) => match Answer::parse(message) {
            Err(_) => {
                let remedy = "ask its operator, or choose another resolver";
                let text = "an answer that cannot be read";
                report.add_fault(State::Critical, subject, text, remedy);
                false
            }
            Ok(answer) => {
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
        },
    };
    let again = clock::now();
    let subject = format!("{place} resumption");
    match Session::connect(address, identity, again + timeout) {
        Ok((session, _)) => {
            let took = since(again);
            let text = if session.agreement().resumed {
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
    serves
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
