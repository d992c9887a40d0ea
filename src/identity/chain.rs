//! Does a certificate chain prove the resolver's identity?
//!
//! Three checks must all pass on every connection: the certificates chain to a trust anchor, AND the resolver's name is among the
//! names of its certificate (RFC 8310 section 8.1: SAN only, never the CN), AND, if pins are given, one of them matches a key on
//! the verified path: the leaf's, an issuer's or the anchor's. A certificate that the resolver sends but that is not on the
//! verified path matches no pin.
//!
//! Validity is checked by the clock of this machine. If the clock is known to be wrong, since it is before the build of the
//! program or before a saved time, the pins replace it: if one matches, validity is checked at the earliest possible time.

use std::cell::RefCell;
use std::time::Duration;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, spki_for_anchor};

use crate::identity::certificate::{CertificateInfo, shown_names};
use crate::identity::pin::{Pin, PinMatch};
use crate::identity::verify_error::{Check, VerifyError};
use crate::identity::verify_policy::{PinMode, VerifyPolicy};
use crate::system::date::{DAY, Timestamp};

/// A resolver whose identity was verified, with the certificates and keys that prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// The certificates of the verified path, from the leaf to the one below the anchor.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The keys of the verified path, from the leaf's to the anchor's.
    pub keys: Vec<Pin>,
    /// Which pin matched which key. None if no pin is given, or if none matched in [`PinMode::Report`].
    pub pin_match: Option<PinMatch>,
    /// Whether the clock was not trusted, so that validity was checked at the clock floor or later.
    pub clock_untrusted: bool,
}

impl VerifiedPeer {
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
            pin_match: None,
            clock_untrusted: false,
        }
    }
}

/// Checks a certificate chain, the leaf and the other presented certificates, against `policy` at the time `now`.
pub(super) fn check(
    policy: &VerifyPolicy,
    algorithms: &WebPkiSupportedAlgorithms,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<VerifiedPeer, VerifyError> {
    let certificate = EndEntityCert::try_from(leaf)
        .map_err(|error| VerifyError::unreadable(error.to_string()))?;
    let chain = PresentedChain {
        policy,
        algorithms,
        leaf: &certificate,
        intermediates,
    };
    let floor = policy.clock_floor;
    if now.as_secs() + DAY > floor {
        return chain.check_at(now.as_secs(), false);
    }
    // The time is not earlier than the notBefore of any certificate of the path, either.
    let mut earliest = floor;
    for _ in 0..=intermediates.len() {
        let result = chain.check_at(earliest, true);
        match &result {
            Err(VerifyError {
                not_before: Some(later),
                ..
            }) if *later > earliest => earliest = *later,
            _ => return result,
        }
    }
    chain.check_at(earliest, true)
}

/// The presented certificates, and what they are checked against.
struct PresentedChain<'s> {
    policy: &'s VerifyPolicy,
    algorithms: &'s WebPkiSupportedAlgorithms,
    leaf: &'s EndEntityCert<'s>,
    intermediates: &'s [CertificateDer<'s>],
}

/// Paths to a trust anchor that were found.
struct Paths {
    /// The accepted path: one with a pinned key, or any if no pin is given.
    pinned: Option<VerifiedPeer>,
    /// The first path without a pinned key.
    unpinned: Option<VerifiedPeer>,
}

impl PresentedChain<'_> {
    /// Checks the chain as of `seconds` since 1970, UTC. If the clock is not trusted, a pin must match.
    fn check_at(&self, seconds: u64, clock_untrusted: bool) -> Result<VerifiedPeer, VerifyError> {
        let VerifyPolicy {
            name,
            pins,
            pin_mode,
            ..
        } = self.policy;
        let leaf_pin = Pin::of(&self.leaf.subject_public_key_info());
        if clock_untrusted && pins.is_empty() {
            return Err(self.error(
                Check::Clock,
                "this machine's clock to be right, or a pin to stand in for it".to_owned(),
                format!("it cannot be before {:#}", Timestamp(seconds)),
                vec![leaf_pin],
            ));
        }
        let paths = self.find_paths(seconds, clock_untrusted);
        let Paths { pinned, unpinned } =
            paths.map_err(|error| self.chain_error(&error, leaf_pin))?;
        if self.leaf.verify_is_valid_for_subject_name(name).is_err() {
            let cause = "the certificate is for other names".to_owned();
            let expected = name.to_str().into_owned();
            return Err(self.error(Check::Name, expected, cause, vec![leaf_pin]));
        }
        match (pinned, unpinned) {
            (Some(peer), _) => Ok(peer),
            // Only a pin can replace the clock.
            (_, Some(peer)) if *pin_mode == PinMode::Report && !clock_untrusted => Ok(peer),
            (_, unpinned) => {
                let keys = unpinned.map(|peer| peer.keys).unwrap_or_default();
                let cause = "no key on the verified path is pinned".to_owned();
                Err(self.error(Check::Pin, pins.to_string(), cause, keys))
            }
        }
    }

    /// Searches for paths to a trust anchor. If there are several, one with a pinned key is preferred.
    fn find_paths(&self, seconds: u64, clock_untrusted: bool) -> Result<Paths, webpki::Error> {
        let VerifyPolicy { anchors, pins, .. } = self.policy;
        let (pinned, unpinned) = (RefCell::new(None), RefCell::new(None));
        let check_peer = |mut peer: VerifiedPeer| {
            peer.pin_match = pins.find(&peer.keys, seconds);
            if pins.is_empty() || peer.pin_match.is_some() {
                *pinned.borrow_mut() = Some(peer);
                return Ok(());
            }
            unpinned.borrow_mut().get_or_insert(peer);
            Err(webpki::Error::UnknownIssuer)
        };
        let check_pins = |path: &VerifiedPath<'_>| {
            check_peer(VerifiedPeer {
                clock_untrusted,
                ..VerifiedPeer::of(path)
            })
        };
        let path = self.leaf.verify_for_usage(
            self.algorithms.all,
            &anchors.anchors,
            self.intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::server_auth(),
            None,
            Some(&check_pins),
        );
        let is_verified = match path {
            // What `openssl req -x509` makes. Whoever put it into the file of trust anchors has vouched for it.
            Err(webpki::Error::CaUsedAsEndEntity) if anchors.contain(&self.leaf_der()) => {
                self.check_validity(seconds).and_then(|()| {
                    let key = Pin::of(&self.leaf.subject_public_key_info());
                    check_peer(VerifiedPeer {
                        certificates: vec![self.leaf_der().into_owned()],
                        // As on a path from a leaf to its anchor.
                        keys: vec![key, key],
                        pin_match: None,
                        clock_untrusted,
                    })
                })
            }
            path => path.map(drop),
        };
        let (pinned, unpinned) = (pinned.take(), unpinned.take());
        match is_verified {
            Err(error) if unpinned.is_none() => Err(error),
            is_verified => Ok(Paths {
                pinned: pinned.filter(|_| is_verified.is_ok()),
                unpinned,
            }),
        }
    }

    fn leaf_der(&self) -> CertificateDer<'_> {
        self.leaf.der()
    }

    /// Checks the dates of the leaf.
    fn check_validity(&self, seconds: u64) -> Result<(), webpki::Error> {
        let Some(dates) = CertificateInfo::read(&self.leaf_der()) else {
            return Err(webpki::Error::BadDer);
        };
        let unix_time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let time = unix_time(seconds);
        if seconds < dates.not_before {
            let not_before = unix_time(dates.not_before);
            return Err(webpki::Error::CertNotValidYet { time, not_before });
        }
        if seconds > dates.not_after {
            let not_after = unix_time(dates.not_after);
            return Err(webpki::Error::CertExpired { time, not_after });
        }
        Ok(())
    }

    fn chain_error(&self, error: &webpki::Error, leaf_pin: Pin) -> VerifyError {
        let expected = "a chain of valid certificates to a trust anchor".to_owned();
        let not_before = match error {
            webpki::Error::CertNotValidYet { not_before, .. } => Some(not_before.as_secs()),
            _ => None,
        };
        VerifyError {
            not_before,
            ..self.error(Check::Chain, expected, describe(error), vec![leaf_pin])
        }
    }

    fn error(&self, check: Check, expected: String, cause: String, pins: Vec<Pin>) -> VerifyError {
        VerifyError {
            check,
            expected,
            cause,
            names: shown_names(&self.leaf_der()),
            pins,
            not_before: None,
        }
    }
}

/// Describes the most common chain errors for people, and the others as webpki does.
fn describe(error: &webpki::Error) -> String {
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

/// The pin of a certificate's key. None if the certificate cannot be parsed.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    Some(Pin::of(&certificate.subject_public_key_info()))
}
