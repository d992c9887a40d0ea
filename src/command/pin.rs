//! Which keys does a resolver show?
//!
//! Connects to each address a few times, asks nothing, and prints the certificates of the verified path in the form in which
//! `--pins` takes them, what is not to be relied on behind a comment sign. What is shown without being verified is printed
//! too, to be looked at, and never as a pin.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::command::json::Json;
use crate::config::command_line::KeyRequest;
use crate::identity::certificate::Facts;
use crate::identity::chain::{Proof, pin_of};
use crate::identity::pin::Pin;
use crate::identity::refusal::Refusal;
use crate::identity::verifier::Identity;
use crate::system::clock;
use crate::system::date::Moment;
use crate::upstream::Resolver;
use crate::upstream::handshake::{self, ConnectError};

/// How often each address is connected to: behind one address there may be several servers.
const CONNECTIONS: usize = 3;

/// What was seen.
#[derive(Debug)]
pub struct Report {
    places: Vec<Place>,
    json: bool,
}

/// An address and what it showed.
#[derive(Debug)]
struct Place {
    name: String,
    address: SocketAddr,
    /// The different chains, and how often each was shown.
    chains: Vec<(usize, Chain)>,
    /// Why it could not be reached, if at least once it could not.
    failure: Option<String>,
}

#[derive(Debug)]
struct Chain {
    shown: Vec<CertificateDer<'static>>,
    /// Why they are not believed.
    refusal: Option<Refusal>,
    links: Vec<Link>,
}

/// One key of a chain.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    role: Role,
    pin: Pin,
    /// What its certificate says; an anchor has none, and its name alone is known.
    facts: Option<Facts>,
    anchor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leaf,
    Issuer,
    /// Above the leaf's issuer: it vouches for more than this resolver's operator has in hand.
    Above,
    Anchor,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "leaf",
            Self::Issuer => "issuer",
            Self::Above => "issuer above",
            Self::Anchor => "anchor",
        })
    }
}

/// Looks at every address.
pub fn run(request: &KeyRequest) -> Report {
    let mut places = Vec::new();
    for Resolver {
        addresses,
        identity,
    } in &request.resolvers
    {
        for address in addresses {
            places.push(look(*address, identity, request.timeout));
        }
    }
    Report {
        places,
        json: request.json,
    }
}

fn look(address: SocketAddr, identity: &Identity, timeout: Duration) -> Place {
    let mut place = Place {
        name: identity.name().to_str().into_owned(),
        address,
        chains: Vec::new(),
        failure: None,
    };
    for _ in 0..CONNECTIONS {
        match handshake::fetch_certificates(address, identity, clock::now() + timeout) {
            Ok(shown) => {
                let known = place
                    .chains
                    .iter_mut()
                    .find(|(_, chain)| chain.shown == shown);
                match known {
                    Some((count, _)) => *count += 1,
                    None => place.chains.push((1, Chain::of(shown, identity))),
                }
            }
            Err(error) => {
                place.failure = Some(error.to_string());
                // Nobody there is nobody there; each try may take all of its time.
                if matches!(error, ConnectError::Connect(_)) {
                    break;
                }
            }
        }
    }
    place
}

impl Chain {
    fn of(shown: Vec<CertificateDer<'static>>, identity: &Identity) -> Self {
        let (refusal, links) = match identity.check(&shown, handshake::unix_time_now()) {
            Ok(proof) => (None, links(&proof)),
            Err(refusal) => (Some(refusal), unverified_links(&shown)),
        };
        Self {
            shown,
            refusal,
            links,
        }
    }

    fn leaf(&self) -> Option<Pin> {
        self.links.first().map(|link| link.pin)
    }
}

fn role(index: usize) -> Role {
    match index {
        0 => Role::Leaf,
        1 => Role::Issuer,
        _ => Role::Above,
    }
}

/// The keys of a verified path.
fn links(proof: &Proof) -> Vec<Link> {
    let facts: Vec<_> = proof.certificates.iter().map(Facts::read).collect();
    let last = facts.last().cloned().flatten();
    let mut links: Vec<_> = (proof.keys.iter().zip(facts).enumerate())
        .map(|(index, (pin, facts))| Link {
            role: role(index),
            pin: *pin,
            facts,
            anchor: None,
        })
        .collect();
    if let Some(pin) = proof.keys.get(links.len()) {
        links.push(Link {
            role: Role::Anchor,
            pin: *pin,
            facts: None,
            anchor: last.map(|facts| facts.issuer),
        });
    }
    links
}

/// The keys of what was shown, in the order in which it was.
fn unverified_links(shown: &[CertificateDer<'_>]) -> Vec<Link> {
    let links = shown.iter().enumerate().filter_map(|(index, certificate)| {
        Some(Link {
            role: role(index),
            pin: pin_of(certificate)?,
            facts: Facts::read(certificate),
            anchor: None,
        })
    });
    links.collect()
}

impl Report {
    /// 0: all that was reached is verified; 2: something that was shown is not; 1: nothing was reached.
    pub fn exit_code(&self) -> u8 {
        let mut chains = self
            .places
            .iter()
            .flat_map(|place| &place.chains)
            .peekable();
        if chains.peek().is_none() {
            1
        } else if chains.any(|(_, chain)| chain.refusal.is_some()) {
            2
        } else {
            0
        }
    }

    /// The leaves' keys that places of one name show, where they are not all the same: each with the address.
    fn disagreements(&self) -> Vec<(&str, Vec<(SocketAddr, Pin)>)> {
        let mut found: Vec<(&str, Vec<(SocketAddr, Pin)>)> = Vec::new();
        for place in &self.places {
            let leaves = place.chains.iter().filter_map(|(_, chain)| chain.leaf());
            let leaves = leaves.map(|pin| (place.address, pin));
            match found.iter_mut().find(|(name, _)| *name == place.name) {
                Some((_, known)) => known.extend(leaves),
                None => found.push((&place.name, leaves.collect())),
            }
        }
        found.retain(|(_, leaves)| leaves.iter().any(|(_, pin)| *pin != leaves[0].1));
        found
    }

    fn write_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Vec<(&str, &Chain)> = Vec::new();
        for place in &self.places {
            let (name, address) = (&place.name, place.address);
            for (count, chain) in &place.chains {
                write!(f, "# {name} at {address}: ")?;
                match &chain.refusal {
                    None => f.write_str("verified by chain and name")?,
                    Some(refusal) => {
                        let Refusal {
                            check,
                            cause,
                            expected,
                            ..
                        } = refusal;
                        let (cause, expected) = (cause.escape_debug(), expected.escape_debug());
                        write!(f, "NOT VERIFIED ({check}: {cause}; expected {expected})")?;
                    }
                }
                write!(f, ", in {count} of {CONNECTIONS} connections")?;
                let same =
                    |(known, other): &(&str, &Chain)| known == name && other.links == chain.links;
                if before.iter().any(same) {
                    writeln!(f, ", with the same keys")?;
                    continue;
                }
                writeln!(f)?;
                for link in &chain.links {
                    link.write(f, name, chain.refusal.is_none())?;
                }
                before.push((name, chain));
            }
            if let Some(failure) = &place.failure {
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
        let places = self.places.iter().map(|place| {
            let chains = place.chains.iter().map(|(count, chain)| {
                let refusal = chain.refusal.as_ref();
                Json::Object(vec![
                    ("connections", Json::Number(*count as u64)),
                    ("verified", Json::Truth(refusal.is_none())),
                    (
                        "check",
                        refusal.map_or(Json::None, |refusal| Json::text(refusal.check)),
                    ),
                    (
                        "cause",
                        refusal.map_or(Json::None, |refusal| Json::text(&refusal.cause)),
                    ),
                    (
                        "certificates",
                        Json::List(chain.links.iter().map(Link::json).collect()),
                    ),
                ])
            });
            Json::Object(vec![
                ("name", Json::text(&place.name)),
                ("address", Json::text(place.address)),
                ("chains", Json::List(chains.collect())),
                (
                    "failure",
                    place.failure.as_ref().map_or(Json::None, Json::text),
                ),
            ])
        });
        Json::Object(vec![
            ("places", Json::List(places.collect())),
            ("agreed", Json::Truth(self.disagreements().is_empty())),
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

impl Link {
    /// As a line of a file of pins: behind a comment sign if it is not to be relied on.
    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, verified: bool) -> fmt::Result {
        // Whatever else an authority vouches for would be believed with its pin.
        let relied_on = verified && matches!(self.role, Role::Leaf | Role::Issuer);
        let sign = if relied_on { "" } else { "# " };
        write!(f, "{sign}{name} {} # {}", self.pin, self.role)?;
        if let Some(facts) = &self.facts {
            let (subject, issuer) = (facts.subject.escape_debug(), facts.issuer.escape_debug());
            let until = Moment(facts.not_after);
            write!(f, ": {subject}; from {issuer}; until {until}")?;
        }
        if let Some(anchor) = &self.anchor {
            write!(f, ": {}", anchor.escape_debug())?;
        }
        f.write_char('\n')
    }

    fn json(&self) -> Json {
        let facts = self.facts.as_ref();
        let said = |value: Option<Json>| value.unwrap_or(Json::None);
        let subject = facts.map(|facts| &facts.subject).or(self.anchor.as_ref());
        let moment = |moment: fn(&Facts) -> u64| {
            said(facts.map(|facts| Json::text(format_args!("{:#}", Moment(moment(facts))))))
        };
        Json::Object(vec![
            ("role", Json::text(self.role)),
            ("pin", Json::text(self.pin)),
            ("subject", said(subject.map(Json::text))),
            ("issuer", said(facts.map(|facts| Json::text(&facts.issuer)))),
            ("not_before", moment(|facts| facts.not_before)),
            ("not_after", moment(|facts| facts.not_after)),
        ])
    }
}
