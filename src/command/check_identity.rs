//! What is to be said of the identity that a resolver showed?

use crate::command::check_report::{Report, State};
use crate::identity::certificate::CertificateInfo;
use crate::identity::chain::VerifiedPeer;
use crate::identity::verifier::Identity;
use crate::identity::verify_error::{Check, VerifyError};
use crate::system::clock;
use crate::system::date::DAY;
use crate::upstream::Security;

/// Days before a certificate's expiry from which it is reported: most are renewed a month before.
const EXPIRY_WARNING_DAYS: u64 = 14;

/// Reports why the identity was refused.
pub(super) fn report_refusal(
    label: &str,
    refusal: &VerifyError,
    security: &Security,
    report: &mut Report,
) {
    report.add(format_args!("{label} reach"), "connected");
    let VerifyError {
        check,
        cause,
        names,
        pins,
        ..
    } = refusal;
    // The checks come in this order: those before the failed one have passed.
    if matches!(check, Check::Name | Check::Pin) {
        report.add(format_args!("{label} chain"), "valid, up to a trust anchor");
    }
    if matches!(check, Check::Pin) {
        report.add(format_args!("{label} name"), security.name());
    }
    let (text, remedy) = match check {
        Check::Chain => (
            // The certificate of somebody else shows by its names whose it is.
            match names.is_empty() || names.contains(&security.name()) {
                true => cause.clone(),
                false => format!("{cause}; the certificate is for {}", list(names)),
            },
            "see this machine's clock; an authority of your own is given by --resolver-ca; else ask the operator",
        ),
        Check::Name => (
            format!("the certificate is for {}", list(names)),
            "give the resolver's own name by --resolver-fqdn, or behind the # of --resolver",
        ),
        Check::Pin => {
            let presented: Vec<_> = pins.iter().map(ToString::to_string).collect();
            (
                format!("no key that it shows is pinned: {}", presented.join(" ")),
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
        format_args!("{label} {check}"),
        text,
        remedy,
    );
}

/// The names of a certificate.
fn list(names: &[String]) -> String {
    match names {
        [] => "no name".to_owned(),
        names => names.join(" "),
    }
}

/// Reports which pin fits a key that was shown.
pub(super) fn report_pins(
    label: &str,
    proof: &VerifiedPeer,
    identity: &Identity,
    report: &mut Report,
) {
    let subject = format!("{label} pin");
    let count = identity.policy().pins.entries().len();
    match proof.pin_match {
        _ if count == 0 => report.add(subject, "none given"),
        None => {
            let presented: Vec<_> = proof.keys.iter().map(ToString::to_string).collect();
            let text = format!("no key that it shows is pinned: {}", presented.join(" "));
            let remedy =
                "compare the keys with what its operator publishes, and only then give their pins";
            report.add_fault(State::Warning, subject, text, remedy);
        }
        Some(fit) => {
            let whose = match fit.key_index {
                0 => "the leaf's",
                key if key + 1 == proof.keys.len() => "the anchor's",
                _ => "an issuer's",
            };
            let text = format!("pin {} of {count} is {whose}", fit.pin_index + 1);
            if fit.pin_index == 0 {
                report.add(subject, text);
            } else {
                let text = format!("{text}: a backup is in use");
                let remedy = "the key was changed: put its pin first, and give the one that comes next as backup";
                report.add_fault(State::Warning, subject, text, remedy);
            }
        }
    }
}

/// Reports how long the certificates are valid.
pub(super) fn report_expiry(label: &str, proof: &VerifiedPeer, report: &mut Report) {
    let now = clock::unix_time().as_secs();
    let facts = proof.certificates.iter().filter_map(CertificateInfo::read);
    let days: Vec<_> = facts
        .map(|facts| facts.not_after.saturating_sub(now) / DAY)
        .collect();
    let subject = format!("{label} expiry");
    let texts: Vec<_> = days.iter().map(ToString::to_string).collect();
    let text = format!("days left, from the leaf on: {}", texts.join(" "));
    match days.iter().min() {
        Some(fewest) if *fewest < EXPIRY_WARNING_DAYS => {
            let remedy =
                "nothing here: its operator has to renew it; have another --resolver ready";
            report.add_fault(State::Warning, subject, text, remedy);
        }
        _ => report.add(subject, text),
    }
}
