//! Which keys does a resolver show?
//!
//! Connects to each address a few times, sends no query, and prints the certificates of the verified path in the format of
//! `--pins`. Keys that should not be pinned are commented out. An unverified chain is printed as comments only.

use std::fmt::{self, Write};
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::command::check_report::describe_key_exchange;
use crate::command::json::Json;
use crate::config::command_line::PinRequest;
use crate::identity::certificate::CertificateInfo;
use crate::identity::chain::{VerifiedPeer, pin_of};
use crate::identity::key_exchange::{Group, HelloSize};
use crate::identity::pin::Pin;
use crate::identity::verifier::Identity;
use crate::identity::verify_error::VerifyError;
use crate::system::clock;
use crate::system::date::Timestamp;
use crate::system::scoped_address::ScopedAddress;
use crate::upstream::handshake::{self, ConnectError, Presented};

/// Connections per address: there may be several servers behind one address.
const CONNECTIONS_PER_ADDRESS: usize = 3;

/// The keys of all addresses.
#[derive(Debug)]
pub struct Report {
    reports: Vec<AddressReport>,
    json: bool,
}

/// What one address presented.
#[derive(Debug)]
struct AddressReport {
    name: String,
    address: ScopedAddress,
    /// The different chains, and how often each was presented.
    chains: Vec<(usize, Chain)>,
    /// The key exchange of the last connection, and whether only the small hello was answered.
    key_exchange: Option<(Group, bool)>,
    /// Why a connection failed, if at least one did.
    failure: Option<String>,
}

#[derive(Debug)]
struct Chain {
    presented: Vec<CertificateDer<'static>>,
    /// Why the chain was not verified, if it was not.
    refusal: Option<VerifyError>,
    keys: Vec<ChainKey>,
}

/// One key of a chain.
#[derive(Debug, PartialEq, Eq)]
struct ChainKey {
    role: Role,
    pin: Pin,
    /// What its certificate says. A trust anchor has no certificate, only a name.
    facts: Option<CertificateInfo>,
    anchor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leaf,
    Issuer,
    /// Above the leaf's issuer: it issues for others than this resolver's operator, too.
    HigherIssuer,
    Anchor,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "leaf",
            Self::Issuer => "issuer",
            Self::HigherIssuer => "issuer above",
            Self::Anchor => "anchor",
        })
    }
}

/// Inspects every address.
pub fn run(request: &PinRequest) -> Report {
    let mut reports = Vec::new();
    for (identity, addresses) in &request.resolvers {
        for address in addresses {
            reports.push(inspect_address(*address, identity, request.timeout));
        }
    }
    Report {
        reports,
        json: request.json,
    }
}

fn inspect_address(
    address: ScopedAddress,
    identity: &Identity,
    timeout: Duration,
) -> AddressReport {
    let mut report = AddressReport {
        name: identity.name().to_str().into_owned(),
        address,
        chains: Vec::new(),
        key_exchange: None,
        failure: None,
    };
    for _ in 0..CONNECTIONS_PER_ADDRESS {
        match handshake::inspect(address, identity, clock::now() + timeout) {
            Ok(Presented {
                certificates: presented,
                group,
                hello,
            }) => {
                report.key_exchange = Some((group, hello == HelloSize::Small));
                let known = report
                    .chains
                    .iter_mut()
                    .find(|(_, chain)| chain.presented == presented);
                match known {
                    Some((count, _)) => *count += 1,
                    None => report.chains.push((1, Chain::of(presented, identity))),
                }
            }
            Err(error) => {
                report.failure = Some(error.to_string());
                // An unreachable address stays so, and each attempt may take the whole timeout.
                if matches!(error, ConnectError::Connect(_)) {
                    break;
                }
            }
        }
    }
    report
}

impl Chain {
    fn of(presented: Vec<CertificateDer<'static>>, identity: &Identity) -> Self {
        let (refusal, keys) = match identity.check(&presented, handshake::unix_time_now()) {
            Ok(proof) => (None, keys(&proof)),
            Err(refusal) => (Some(refusal), unverified_keys(&presented)),
        };
        Self {
            presented,
            refusal,
            keys,
        }
    }

    fn leaf(&self) -> Option<Pin> {
        self.keys.first().map(|key| key.pin)
    }
}

fn role(index: usize) -> Role {
    match index {
        0 => Role::Leaf,
        1 => Role::Issuer,
        _ => Role::HigherIssuer,
    }
}

/// The keys of a verified path.
fn keys(proof: &VerifiedPeer) -> Vec<ChainKey> {
    let facts: Vec<_> = proof
        .certificates
        .iter()
        .map(CertificateInfo::read)
        .collect();
    let last = facts.last().cloned().flatten();
    let mut keys: Vec<_> = (proof.keys.iter().zip(facts).enumerate())
        .map(|(index, (pin, facts))| ChainKey {
            role: role(index),
            pin: *pin,
            facts,
            anchor: None,
        })
        .collect();
    if let Some(pin) = proof.keys.get(keys.len()) {
        keys.push(ChainKey {
            role: Role::Anchor,
            pin: *pin,
            facts: None,
            anchor: last.map(|facts| facts.issuer),
        });
    }
    keys
}

/// The keys of an unverified chain, in the order in which they were presented.
fn unverified_keys(presented: &[CertificateDer<'_>]) -> Vec<ChainKey> {
    let keys = presented
        .iter()
        .enumerate()
        .filter_map(|(index, certificate)| {
            Some(ChainKey {
                role: role(index),
                pin: pin_of(certificate)?,
                facts: CertificateInfo::read(certificate),
                anchor: None,
            })
        });
    keys.collect()
}

impl Report {
    /// 0: everything reached is verified; 2: something presented is not; 1: nothing was reached.
    pub fn exit_code(&self) -> u8 {
        let mut chains = self
            .reports
            .iter()
            .flat_map(|report| &report.chains)
            .peekable();
        if chains.peek().is_none() {
            1
        } else if chains.any(|(_, chain)| chain.refusal.is_some()) {
            2
        } else {
            0
        }
    }

    /// Names whose addresses presented different leaf keys: each key with its address.
    fn disagreements(&self) -> Vec<(&str, Vec<(ScopedAddress, Pin)>)> {
        let mut found: Vec<(&str, Vec<(ScopedAddress, Pin)>)> = Vec::new();
        for report in &self.reports {
            let leaves = report.chains.iter().filter_map(|(_, chain)| chain.leaf());
            let leaves = leaves.map(|pin| (report.address, pin));
            match found.iter_mut().find(|(name, _)| *name == report.name) {
                Some((_, known)) => known.extend(leaves),
                None => found.push((&report.name, leaves.collect())),
            }
        }
        found.retain(|(_, leaves)| leaves.iter().any(|(_, pin)| *pin != leaves[0].1));
        found
    }

    fn write_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written: Vec<(&str, &Chain)> = Vec::new();
        for report in &self.reports {
            let (name, address) = (&report.name, report.address);
            for (count, chain) in &report.chains {
                write!(f, "# {name} at {address}: ")?;
                match &chain.refusal {
                    None => f.write_str("verified by chain and name")?,
                    Some(refusal) => {
                        let VerifyError {
                            check,
                            cause,
                            expected,
                            names,
                            ..
                        } = refusal;
                        let (cause, expected) = (cause.escape_debug(), expected.escape_debug());
                        write!(f, "NOT VERIFIED ({check}: {cause}; expected {expected}")?;
                        if !names.is_empty() {
                            write!(f, "; the certificate is for {}", names.join(" "))?;
                        }
                        f.write_char(')')?;
                    }
                }
                write!(f, ", in {count} of {CONNECTIONS_PER_ADDRESS} connections")?;
                let same =
                    |(known, other): &(&str, &Chain)| known == name && other.keys == chain.keys;
                if written.iter().any(same) {
                    writeln!(f, ", with the same keys")?;
                    continue;
                }
                writeln!(f)?;
                for key in &chain.keys {
                    key.write(f, name, chain.refusal.is_none())?;
                }
                written.push((name, chain));
            }
            if let Some((group, small_hello)) = report.key_exchange {
                let note = describe_key_exchange(group, small_hello);
                writeln!(f, "# {name} at {address}: key exchange {group}{note}")?;
            }
            if let Some(failure) = &report.failure {
                writeln!(f, "# {name} at {address}: not reached: {failure}")?;
            }
        }
        for (name, leaves) in self.disagreements() {
            write!(f, "# DISAGREEMENT on the key of {name}:")?;
            for (address, pin) in leaves {
                write!(f, " {address} shows {pin}")?;
            }
            writeln!(
                f,
                "; a change of keys may be under way, or one of them is somebody else"
            )?;
        }
        f.write_str(
            "# Pins that came over the path that they are to protect are only as good as that path: compare them\n\
             # with what the resolver's operator publishes, or with what another network shows.\n",
        )
    }

    fn json(&self) -> Json {
        let reports = self.reports.iter().map(|report| {
            let chains = report.chains.iter().map(|(count, chain)| {
                let refusal = chain.refusal.as_ref();
                Json::Object(vec![
                    ("connections", Json::Number(*count as u64)),
                    ("verified", Json::Bool(refusal.is_none())),
                    (
                        "check",
                        refusal.map_or(Json::Null, |refusal| Json::text(refusal.check)),
                    ),
                    (
                        "cause",
                        refusal.map_or(Json::Null, |refusal| Json::text(&refusal.cause)),
                    ),
                    (
                        "names",
                        refusal.map_or(Json::Null, |refusal| {
                            Json::Array(refusal.names.iter().map(Json::text).collect())
                        }),
                    ),
                    (
                        "certificates",
                        Json::Array(chain.keys.iter().map(ChainKey::json).collect()),
                    ),
                ])
            });
            Json::Object(vec![
                ("name", Json::text(&report.name)),
                ("address", Json::text(report.address)),
                ("chains", Json::Array(chains.collect())),
                (
                    "key_exchange",
                    report
                        .key_exchange
                        .map_or(Json::Null, |(group, _)| Json::text(group)),
                ),
                (
                    "failure",
                    report.failure.as_ref().map_or(Json::Null, Json::text),
                ),
            ])
        });
        Json::Object(vec![
            ("places", Json::Array(reports.collect())),
            ("agreed", Json::Bool(self.disagreements().is_empty())),
        ])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.json {
            writeln!(f, "{}", self.json())
        } else {
            self.write_text(f)
        }
    }
}

impl ChainKey {
    /// Writes a line of a pin file, commented out if the key should not be pinned.
    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, verified: bool) -> fmt::Result {
        // A pin of a higher issuer would accept everything that it issues.
        let relied_on = verified && matches!(self.role, Role::Leaf | Role::Issuer);
        let sign = if relied_on { "" } else { "# " };
        write!(f, "{sign}{name} {} # {}", self.pin, self.role)?;
        if let Some(facts) = &self.facts {
            let (subject, issuer) = (facts.subject.escape_debug(), facts.issuer.escape_debug());
            let until = Timestamp(facts.not_after);
            write!(f, ": {subject}; from {issuer}; until {until}")?;
        }
        if let Some(anchor) = &self.anchor {
            write!(f, ": {}", anchor.escape_debug())?;
        }
        f.write_char('\n')
    }

    fn json(&self) -> Json {
        let facts = self.facts.as_ref();
        let or_null = |value: Option<Json>| value.unwrap_or(Json::Null);
        let subject = facts.map(|facts| &facts.subject).or(self.anchor.as_ref());
        let moment = |moment: fn(&CertificateInfo) -> u64| {
            or_null(facts.map(|facts| Json::text(format_args!("{:#}", Timestamp(moment(facts))))))
        };
        Json::Object(vec![
            ("role", Json::text(self.role)),
            ("pin", Json::text(self.pin)),
            ("subject", or_null(subject.map(Json::text))),
            (
                "issuer",
                or_null(facts.map(|facts| Json::text(&facts.issuer))),
            ),
            ("not_before", moment(|facts| facts.not_before)),
            ("not_after", moment(|facts| facts.not_after)),
        ])
    }
}
