//! Is all as it should be?
//!
//! Checks the daemon's configuration, its ports and each address of its resolvers with the daemon's own code. Each finding is one
//! line, each fault comes with one remedy. Exit codes are those of monitoring plugins.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::command::check_ports::check_ports;
use crate::command::check_report::{Report, State};
use crate::command::check_resolver::check_main_resolvers;
use crate::command::check_routes::{check_routes, report_cleartext};
use crate::config::command_line::CheckRequest;
use crate::config::settings::Config;
use crate::config::sources::UsageError;
use crate::identity::anchors::TrustAnchors;
use crate::identity::pin::{PinEntry, PinSet};
use crate::identity::pin_file::PinSource;
use crate::identity::rollover::KeyHistory;
use crate::identity::state_file::StateFile;
use crate::identity::verifier::Identity;
use crate::identity::verify_policy::PinMode;
use crate::local::hosts_reader::{Hosts, HostsError, SkippedLine};
use crate::system::clock;
use crate::system::date::{DAY, Timestamp};

/// The report on a configuration that has an error.
pub fn report_usage_error(error: &UsageError, json: bool) -> Report {
    let mut report = Report::new(json);
    let remedy = "mend what is named; dns-tool --help-all lists all options";
    report.add_fault(State::Critical, "configuration", error, remedy);
    report
}

/// Runs all checks.
pub fn run(request: &CheckRequest) -> Report {
    let config = &request.config;
    let mut report = Report::new(request.json);
    report.add("configuration", "understood");
    for variable in config.options.ignored_variables() {
        report.add(
            "environment",
            format_args!("{variable} is no option, and left alone"),
        );
    }
    check_anchors(config, &mut report);
    check_clock(request, &mut report);
    check_pins(request, &mut report);
    if let Some(file) = &config.trust.source.file {
        check_pin_file_directory(file, &mut report);
    }
    check_ports(config, &mut report);
    if let Some(user) = config.user
        && let Err(error) = user.drop_privileges()
    {
        let remedy = "start it as root, or as that user without --user";
        report.add_fault(State::Critical, "user", error, remedy);
    }
    // From here on with the privileges of that user.
    check_pin_file_access(&config.trust.source, &mut report);
    if let Some(directory) = &config.trust.state_dir {
        check_state_directory(directory, &mut report);
    }
    check_hosts(&config.hosts, &mut report);
    report_cleartext(&config.routes, &mut report);
    let timeout = config.upstream.timeout;
    check_main_resolvers(
        &config.upstream.resolvers,
        &config.built_in_addresses(),
        timeout,
        &mut report,
    );
    check_routes(&config.routes, timeout, &mut report);
    report
}

/// Reports the certificates of `--resolver-ca` that cannot be read: the first ones, and the number of the others.
fn check_anchors(config: &Config, report: &mut Report) {
    let Some(skipped) = config.trust_anchors().map(TrustAnchors::skipped) else {
        return;
    };
    let others = match skipped.others {
        0 => None,
        others => Some(format!("{others} more certificates cannot be read")),
    };
    let texts = skipped.first.iter().map(ToString::to_string).chain(others);
    let remedy = "take it out, or put a sound one in its place";
    for text in texts {
        report.add_fault(State::Warning, "--resolver-ca", text, remedy);
    }
}

/// Whether the user of `--user` may read the pin file.
fn check_pin_file_access(source: &PinSource, report: &mut Report) {
    if let Some(file) = &source.file
        && let Err(error) = source.read()
    {
        let remedy = "let the user of --user read it";
        report.add_fault(
            State::Critical,
            format_args!("--pins {file:?}"),
            error,
            remedy,
        );
    }
}

/// Whether that user may read and write the state directory.
fn check_state_directory(directory: &Path, report: &mut Report) {
    let subject = format!("--state-dir {directory:?}");
    let opened = StateFile::open(directory).map_err(|error| error.to_string());
    let result = opened.and_then(|(store, state)| {
        let written = store.check_writable(&state);
        written.map_err(|error| format!("it cannot be written: {error}"))
    });
    match result {
        Ok(()) => report.add(subject, "read, and may be written"),
        Err(error) => {
            let remedy = "give it to the user that dns-tool runs as";
            report.add_fault(State::Critical, subject, error, remedy);
        }
    }
}

/// The identities that resolvers must prove, those of routes included. Each name once: what it has to prove is the same everywhere.
fn identities(config: &Config) -> Vec<&Identity> {
    let mut identities: Vec<&Identity> = Vec::new();
    for identity in config
        .resolvers()
        .filter_map(|resolver| resolver.security.identity())
    {
        if identities
            .iter()
            .all(|known| known.name() != identity.name())
        {
            identities.push(identity);
        }
    }
    identities
}

/// Whether that user may read the hosts files, how many names they have, and which lines are skipped.
fn check_hosts(hosts: &Hosts, report: &mut Report) {
    let hosts = match hosts.reread() {
        Ok(hosts) if hosts.files.is_empty() => return,
        Ok(hosts) => hosts,
        Err(HostsError { file, cause, .. }) => {
            let remedy = "let the user of --user read it";
            let subject = format_args!("--hosts {file:?}");
            return report.add_fault(State::Critical, subject, cause, remedy);
        }
    };
    let names = hosts.table.len();
    report.add("--hosts", format_args!("{names} names"));
    let remedy = "mend the line, or take it out";
    for SkippedLine { file, line, cause } in &hosts.skipped.first {
        let text = format_args!("line {line} is skipped: {cause}");
        report.add_fault(
            State::Warning,
            format_args!("--hosts {file:?}"),
            text,
            remedy,
        );
    }
    if hosts.skipped.others > 0 {
        let text = format_args!("{} more lines are skipped", hosts.skipped.others);
        report.add_fault(State::Warning, "--hosts", text, remedy);
    }
}

fn check_clock(request: &CheckRequest, report: &mut Report) {
    let now = clock::unix_time().as_secs();
    let identities = identities(&request.config);
    let floors = identities
        .iter()
        .map(|identity| identity.policy().clock_floor);
    let floor = floors.max().unwrap_or_default();
    if now + DAY > floor {
        return report.add("clock", format_args!("{:#}", Timestamp(now)));
    }
    let text = format!(
        "{:#}, but it cannot be before {:#}",
        Timestamp(now),
        Timestamp(floor)
    );
    let pinned = identities
        .iter()
        .all(|identity| !identity.policy().pins.is_empty());
    let (state, text) = if pinned {
        (State::Warning, text + "; pins stand in for it")
    } else {
        (State::Critical, text + "; no pin stands in for it")
    };
    let remedy = "set this machine's clock; if it is right, take the line \"time\" out of the file in --state-dir";
    report.add_fault(state, "clock", text, remedy);
}

fn check_pins(request: &CheckRequest, report: &mut Report) {
    let now = clock::unix_time().as_secs();
    let pinned = |identity: &Identity| !identity.policy().pins.is_empty();
    let identities = identities(&request.config);
    let others_pinned = identities.iter().any(|identity| pinned(identity));
    for identity in identities {
        let terms = identity.policy();
        let subject = format!("{} pins", terms.name.to_str());
        let entries = terms.pins.entries();
        check_pin_dates(&subject, entries, now, report);
        check_pin_count(&subject, &terms.pins, others_pinned, now, report);
        let memories = &request.config.trust.state.histories;
        if let Some(memory) = memories.get(&*terms.name.to_str()) {
            report_learnt(&subject, memory, entries, report);
        }
        if terms.pin_mode == PinMode::Report && !entries.is_empty() {
            let text = "--pin-mode report: a key without a pin is taken all the same";
            let remedy = "--pin-mode strict, once the pins are right";
            report.add_fault(State::Warning, &subject, text, remedy);
        }
    }
}

/// Reports the pins of a resolver that are not valid now.
fn check_pin_dates(subject: &str, entries: &[PinEntry], now: u64, report: &mut Report) {
    let numbered = entries.iter().enumerate();
    for (slot, dated) in numbered.filter(|(_, dated)| !dated.is_valid_at(now)) {
        let number = slot + 1;
        match (dated.not_before, dated.not_after) {
            (_, Some(until)) if until < now => {
                let text = format!("pin {number} has not counted since {}", Timestamp(until));
                let remedy = "take its line away, or give it a later not-after=";
                report.add_fault(State::Warning, subject, text, remedy);
            }
            (from, _) => {
                let from = Timestamp(from.unwrap_or_default());
                report.add(
                    subject,
                    format_args!("pin {number} will count from {from} on"),
                );
            }
        }
    }
}

/// Reports whether a resolver has enough pins.
fn check_pin_count(
    subject: &str,
    pins: &PinSet,
    others_pinned: bool,
    now: u64,
    report: &mut Report,
) {
    let entries = pins.entries();
    let text = "none: any key that chain and name vouch for";
    if entries.is_empty() && others_pinned {
        let remedy = "pin it as well: dns-tool pin shows its keys";
        report.add_fault(State::Warning, subject, text, remedy);
    } else if entries.is_empty() {
        report.add(subject, text);
    } else if !entries.iter().any(|dated| dated.is_valid_at(now)) {
        let remedy = "give a pin that counts now: dns-tool pin shows the keys";
        report.add_fault(State::Critical, subject, "none of them counts now", remedy);
    } else if pins.lacks_backup(now) {
        let text = "one key alone: when it is changed, all names stop";
        let remedy =
            "give the pin of the key that comes next, or of an issuer: dns-tool pin shows them";
        report.add_fault(State::Warning, subject, text, remedy);
    } else {
        report.add(subject, format_args!("{} of them", entries.len()));
    }
}

/// Reports the keys that were learnt without a pin.
fn report_learnt(subject: &str, memory: &KeyHistory, entries: &[PinEntry], report: &mut Report) {
    for pin in memory.learnt() {
        let counts = entries.iter().any(|dated| dated.pin == pin);
        let (what, when) = if counts {
            ("learnt", "")
        } else {
            ("learnt, not believed", " without --pin-rollover")
        };
        report.add(
            subject,
            format_args!("{pin} was {what}{when}; its line in --state-dir takes it back"),
        );
    }
}

/// Whoever may replace the pin file decides which keys are accepted, so its directory must not be writable by others.
fn check_pin_file_directory(file: &Path, report: &mut Report) {
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
