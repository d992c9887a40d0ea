//! Does a certificate chain prove that this is the resolver that is meant?
//!
//! Three checks, all of which must hold on every connection: the certificates chain to a trust anchor, AND the resolver's
//! name is among the names of its certificate (RFC 8310 section 8.1: SAN only, never the CN), AND where pins are given,
//! one of them is that of a key on the verified path: the leaf's, an issuer's or the anchor's. A certificate that the
//! resolver merely sends along is on no verified path, so it satisfies no pin.
//!
//! Certificates are judged by the clock of this machine. Where that is known to be wrong, since it shows a time before the
//! program was built, or before one that is remembered, the pins stand in for it: with one that fits, certificates are judged
//! at the earliest time that it can be.

use std::cell::RefCell;
use std::time::Duration;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};

use crate::identity::pin::{Fit, Pin};
use crate::identity::refusal::{Check, Refusal};
use crate::identity::terms::{PinMode, Terms};
use crate::system::date::{DAY, Timestamp};

/// How a resolver proved itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The certificates of the verified path, from the leaf to the one below the anchor.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The keys of the verified path, from the leaf's to the anchor's.
    pub keys: Vec<Pin>,
    /// Which pin is that of which key; none where no pin is given, or none needs to fit.
    pub fit: Option<Fit>,
    /// The clock was behind the floor, which stood in for it.
    pub clock_suspect: bool,
}

impl Proof {
    fn of(path: &VerifiedPath<'_>) -> Self {
        let leaf = path.end_entity();
        let issuers = path.intermediate_certificates();
        let certificates = std::iter::once(leaf.der()).chain(issuers.map(webpki::Cert::der));
        let issuers = path.intermediate_certificates();
        let issuers = issuers.map(|issuer| Pin::of(&issuer.subject_public_key_info()));
        let keys = std::iter::once(Pin::of(&leaf.subject_public_key_info()))
            .chain(issuers)
            .chain([Pin::of(&spki_for_anchor(path.anchor()))]);
        Self {
            certificates: certificates.map(CertificateDer::into_owned).collect(),
            keys: keys.collect(),
            fit: None,
            clock_suspect: false,
        }
    }
}

/// Holds a certificate chain, a leaf and what is shown with it, to `terms` at the time `now`.
pub(super) fn check(
    terms: &Terms,
    algorithms: &WebPkiSupportedAlgorithms,
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<Proof, Refusal> {
    let certificate =
        EndEntityCert::try_from(leaf).map_err(|error| Refusal::unreadable(error.to_string()))?;
    let shown = Shown {
        terms,
        algorithms,
        certificate: &certificate,
        others,
    };
    let floor = terms.clock_floor;
    if now.as_secs() + DAY > floor {
        return shown.check_at(now.as_secs(), false);
    }
    // It is not earlier than any certificate of the path was made, either.
    let mut earliest = floor;
    for _ in 0..=others.len() {
        let judged = shown.check_at(earliest, true);
        match &judged {
            Err(Refusal {
                not_before: Some(later),
                ..
            }) if *later > earliest => earliest = *later,
            _ => return judged,
        }
    }
    shown.check_at(earliest, true)
}

/// What was shown, and what it is held to.
struct Shown<'s> {
    terms: &'s Terms,
    algorithms: &'s WebPkiSupportedAlgorithms,
    certificate: &'s EndEntityCert<'s>,
    others: &'s [CertificateDer<'s>],
}

/// The verified paths that lead to an anchor, as far as they matter.
struct Paths {
    /// One that will do: with a pinned key on it, or any where no pin is given.
    pinned: Option<Proof>,
    /// The first without.
    unpinned: Option<Proof>,
}

impl Shown<'_> {
    /// Holds what was shown to the terms as if it were then; if the clock is suspect, a pin must fit.
    fn check_at(&self, seconds: u64, clock_suspect: bool) -> Result<Proof, Refusal> {
        let Terms {
            name,
            pins,
            pin_mode,
            ..
        } = self.terms;
        let leaf_pin = Pin::of(&self.certificate.subject_public_key_info());
        if clock_suspect && pins.is_empty() {
            return Err(self.refuse(
                Check::Clock,
                "this machine's clock to be right, or a pin to stand in for it".to_owned(),
                format!("it cannot be before {:#}", Timestamp(seconds)),
                vec![leaf_pin],
            ));
        }
        let paths = self.find_paths(seconds, clock_suspect);
        let Paths { pinned, unpinned } =
            paths.map_err(|error| self.refuse_chain(&error, leaf_pin))?;
        if self
            .certificate
            .verify_is_valid_for_subject_name(name)
            .is_err()
        {
            let cause = "the certificate is for other names".to_owned();
            let expected = name.to_str().into_owned();
            return Err(self.refuse(Check::Name, expected, cause, vec![leaf_pin]));
        }
        match (pinned, unpinned) {
            (Some(proof), _) => Ok(proof),
            // Nothing else stands in for a clock.
            (_, Some(proof)) if *pin_mode == PinMode::Report && !clock_suspect => Ok(proof),
            (_, unpinned) => {
                let keys = unpinned.map(|proof| proof.keys).unwrap_or_default();
                let cause = "no key on the verified path is pinned".to_owned();
                Err(self.refuse(Check::Pin, pins.to_string(), cause, keys))
            }
        }
    }

    /// Looks for paths to an anchor. Where several lead to one, one with a pinned key on it is taken if there is one.
    fn find_paths(&self, seconds: u64, clock_suspect: bool) -> Result<Paths, webpki::Error> {
        let Terms { anchors, pins, .. } = self.terms;
        let (pinned, unpinned) = (RefCell::new(None), RefCell::new(None));
        let check_pins = |path: &VerifiedPath<'_>| {
            let mut proof = Proof {
                clock_suspect,
                ..Proof::of(path)
            };
            proof.fit = pins.find(&proof.keys, seconds);
            if pins.is_empty() || proof.fit.is_some() {
                *pinned.borrow_mut() = Some(proof);
                return Ok(());
            }
            unpinned.borrow_mut().get_or_insert(proof);
            Err(webpki::Error::UnknownIssuer)
        };
        let path = self.certificate.verify_for_usage(
            self.algorithms.all,
            &anchors.0,
            self.others,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::server_auth(),
            None,
            Some(&check_pins),
        );
        let is_verified = path.map(drop);
        let (pinned, unpinned) = (pinned.take(), unpinned.take());
        match is_verified {
            Err(error) if unpinned.is_none() => Err(error),
            is_verified => Ok(Paths {
                pinned: pinned.filter(|_| is_verified.is_ok()),
                unpinned,
            }),
        }
    }

    fn refuse_chain(&self, error: &webpki::Error, leaf_pin: Pin) -> Refusal {
        let expected = "a chain of valid certificates to a trust anchor".to_owned();
        let not_before = match error {
            webpki::Error::CertNotValidYet { not_before, .. } => Some(not_before.as_secs()),
            _ => None,
        };
        Refusal {
            not_before,
            ..self.refuse(Check::Chain, expected, in_words(error), vec![leaf_pin])
        }
    }

    fn refuse(&self, check: Check, expected: String, cause: String, pins: Vec<Pin>) -> Refusal {
        let names = self.certificate.valid_dns_names();
        Refusal {
            check,
            expected,
            cause,
            names: names.map(str::to_owned).collect(),
            pins,
            not_before: None,
        }
    }
}

/// The commonest failures of a chain said for people, the others as webpki names them.
fn in_words(error: &webpki::Error) -> String {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY;
            format!("a certificate expired {days} days ago by this machine's clock")
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            let days = not_before.as_secs().saturating_sub(time.as_secs()) / DAY;
            format!("a certificate is not valid for another {days} days by this machine's clock")
        }
        webpki::Error::UnknownIssuer => "no issuer of it is trusted".to_owned(),
        webpki::Error::CaUsedAsEndEntity => "it is a CA's or self-signed certificate".to_owned(),
        other => other.to_string(),
    }
}

/// The pin of a certificate's key; none where it cannot be read.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    Some(Pin::of(&certificate.subject_public_key_info()))
}
