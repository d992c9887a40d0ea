//! No query leaves for anybody who is not the resolver that was meant, and the log says why.

use std::time::Duration;

use ::log::Level;
use dns_tool::forward::outcome::Outcome;
use dns_tool::identity::anchors::TrustAnchors;
use dns_tool::identity::key_exchange::KeyExchange;
use dns_tool::identity::pin::Pin;
use dns_tool::identity::pin_file::resolver_name;
use dns_tool::identity::verifier::Identity;
use dns_tool::identity::verify_error::Check;
use dns_tool::identity::verify_policy::{PinMode, VerifyPolicy};
use dns_tool::system::date::DAY;
use rcgen::date_time_ymd;
use rustls::pki_types::UnixTime;

use crate::support::pki::Authority;
use crate::support::process::{Process, program};
use crate::support::resolver::tls;
use crate::support::{
    Ask, Chain, FakeResolver, Forwarder, NAME, RELAY, UdpClient, pki, temporary_file, wait_until,
};

const SERVFAIL: u16 = 2;

/// A pin that no key of the tests has.
fn strange_pin() -> String {
    Authority::root("nobody").pin().to_string()
}

fn assert_serves(chain: &Chain, options: &[&str]) {
    let resolver = FakeResolver::with_chain(chain);
    let forwarder = Forwarder::before(&resolver, options);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
    forwarder.tcp().ask(&ask.octets()).assert_answers(&ask);
    assert_eq!(resolver.log(Level::Warn), Vec::<String>::new());
}

/// Asserts that queries fail, that none leaves, and that the log says once what these parts say.
fn assert_refused(chain: &Chain, options: &[&str], parts: &[&str]) {
    let resolver = FakeResolver::with_chain(chain);
    let forwarder = Forwarder::before(&resolver, options);
    let client = forwarder.udp();
    for id in 0..5 {
        let ask = Ask::a(id, "secret.test");
        client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
        forwarder
            .tcp()
            .ask(&ask.octets())
            .assert_error(&ask, SERVFAIL);
    }
    assert!(forwarder.running().count(Outcome::Unauthenticated) >= 10);
    assert!(resolver.queries().is_empty(), "no query leaves");
    assert!(!resolver.saw_in_clear(b"secret"));
    let lines = resolver.log(Level::Error);
    assert_eq!(lines.len(), 1, "it is said once: {lines:?}");
    for part in [
        "event=resolver-authentication-failed",
        &format!("name={NAME}"),
    ]
    .iter()
    .chain(parts)
    {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
}

#[test]
fn the_right_name_under_a_trusted_root_serves() {
    assert_serves(&pki().honest(), &[]);
    assert_serves(&pki().chain(&["other.test", NAME], |_| {}), &[]);
}

#[test]
fn the_right_pin_on_leaf_issuer_or_root_serves() {
    let honest = pki().honest();
    for pin in [honest.pin, pki().issuer.pin(), pki().root.pin()] {
        assert_serves(&honest, &["--resolver-pin", &pin.to_string()]);
    }
}

#[test]
fn one_right_pin_among_others_is_enough() {
    let honest = pki().honest();
    assert_serves(
        &honest,
        &[
            "--resolver-pin",
            &strange_pin(),
            "--resolver-pin",
            &honest.pin.to_string(),
        ],
    );
}

#[test]
fn another_name_is_refused_and_the_names_shown_are_said() {
    let chain = pki().chain(&["other.test", "third.test"], |_| {});
    let shown = "shown_names=\"other.test third.test\"";
    assert_refused(
        &chain,
        &[],
        &[
            "check=name",
            "expected=\"resolver.test\"",
            shown,
            &chain.pin.to_string(),
        ],
    );
}

#[test]
fn a_name_in_the_common_name_alone_is_refused() {
    // RFC 8310 section 8.1, RFC 9525: no CN-ID.
    let chain = pki().chain(&["other.test"], |params| {
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, NAME);
    });
    assert_refused(&chain, &[], &["check=name"]);
}

#[test]
fn a_wrong_pin_is_refused_and_the_right_one_is_said_as_the_option_takes_it() {
    let chain = pki().honest();
    let wrong = strange_pin();
    let expected = format!("expected=\"{wrong}\"");
    let shown = format!(
        "shown_pins=\"{} {} {}\"",
        chain.pin,
        pki().issuer.pin(),
        pki().root.pin()
    );
    assert_refused(
        &chain,
        &["--resolver-pin", &wrong],
        &["check=pin", &expected, &shown],
    );
    assert!(chain.pin.to_string().parse::<Pin>().is_ok());
}

#[test]
fn an_unknown_authority_is_refused() {
    let chain = pki().unknown_root();
    assert_refused(
        &chain,
        &[],
        &[
            "check=chain",
            "no issuer of it is trusted",
            &chain.pin.to_string(),
        ],
    );
    assert_refused(
        &pki().without_issuer(),
        &[],
        &["check=chain", "no issuer of it is trusted"],
    );
}

#[test]
fn an_unknown_authority_is_refused_even_with_the_right_pin() {
    let chain = pki().unknown_root();
    assert_refused(
        &chain,
        &["--resolver-pin", &chain.pin.to_string()],
        &["check=chain"],
    );
}

#[test]
fn a_self_signed_certificate_is_refused_even_with_the_right_pin() {
    let chain = pki().self_signed();
    assert_refused(
        &chain,
        &["--resolver-pin", &chain.pin.to_string()],
        &["check=chain"],
    );
}

/// The option that has this PEM text taken for the trust anchors.
fn anchors(name: &str, pem: &str) -> [String; 2] {
    let file = temporary_file(name, pem.as_bytes());
    [
        "--resolver-ca".to_owned(),
        file.to_str().expect("a path in UTF-8").to_owned(),
    ]
}

#[test]
fn an_authority_that_is_the_resolver_itself_serves_if_its_certificate_is_an_anchor() {
    let (chain, pem) = pki().own_authority(&[NAME], |_| {});
    let options = anchors("own-authority.pem", &pem);
    let options = options.each_ref().map(String::as_str);
    assert_serves(&chain, &options);
    let pin = chain.pin.to_string();
    assert_serves(&chain, &[&options[..], &["--resolver-pin", &pin]].concat());
    let wrong = strange_pin();
    assert_refused(
        &chain,
        &[&options[..], &["--resolver-pin", &wrong]].concat(),
        &["check=pin"],
    );
    // Another one of the same name and key is another certificate.
    let (other, _) = pki().own_authority(&[NAME], |_| {});
    assert_refused(&other, &options, &["check=chain"]);
    // Nor does the certificate vouch for itself if it is no anchor.
    assert_refused(
        &chain,
        &[],
        &["check=chain", "a CA's or self-signed certificate"],
    );
}

#[test]
fn such_an_authority_has_to_be_valid_and_to_bear_the_name() {
    for (names, years, part) in [
        (&["other.test"][..], (2020, 2100), "check=name"),
        (&[NAME], (2020, 2021), "a certificate expired"),
        (&[NAME], (2098, 2100), "is not valid for another"),
    ] {
        let (chain, pem) = pki().own_authority(names, |params| {
            params.not_before = date_time_ymd(years.0, 1, 1);
            params.not_after = date_time_ymd(years.1, 1, 1);
        });
        let options = anchors(&format!("own-{}-{}.pem", names[0], years.0), &pem);
        let pin = chain.pin.to_string();
        let options = [
            &options.each_ref().map(String::as_str)[..],
            &["--resolver-pin", &pin],
        ];
        assert_refused(&chain, &options.concat(), &[part]);
    }
}

#[test]
fn an_expired_certificate_is_refused_even_with_the_right_pin() {
    let chain = pki().chain(&[NAME], |params| {
        params.not_after = date_time_ymd(2021, 1, 1)
    });
    let pin = chain.pin.to_string();
    assert_refused(&chain, &[], &["check=chain", "expired", "days ago"]);
    assert_refused(
        &chain,
        &["--resolver-pin", &pin],
        &["check=chain", "expired"],
    );
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    let chain = pki().chain(&[NAME], |params| {
        params.not_before = date_time_ymd(2099, 1, 1)
    });
    assert_refused(&chain, &[], &["check=chain", "not valid for another"]);
}

#[test]
fn an_appended_certificate_with_the_right_pin_counts_for_nothing() {
    let stranger = Authority::root("appended");
    let (pin, certificate) = (stranger.pin().to_string(), stranger.certificate());
    let chain = pki().honest().with_appended(certificate);
    assert_serves(&chain, &[]);
    assert_refused(
        &chain,
        &["--resolver-pin", &pin],
        &["check=pin", &chain.pin.to_string()],
    );
}

#[test]
fn a_pin_for_another_resolver_counts_for_nothing() {
    let honest = pki().honest();
    let named = format!("second.test={}", honest.pin);
    let away = "127.0.0.1:1#second.test";
    // The other resolver has a pin, this one has none: it serves on chain and name.
    assert_serves_with_other(&honest, &["--resolver", away, "--resolver-pin", &named]);
    // This one's own pin is wrong; the other's right one does not help.
    let resolver = FakeResolver::with_chain(&honest);
    let strange = strange_pin();
    let options = [
        "--resolver",
        away,
        "--resolver-pin",
        &named,
        "--resolver-pin",
        &strange,
    ];
    let forwarder = Forwarder::before(&resolver, &options);
    let ask = Ask::a(1, "x.test");
    forwarder
        .udp()
        .ask(&ask.octets())
        .assert_error(&ask, SERVFAIL);
    assert!(resolver.queries().is_empty());
}

fn assert_serves_with_other(chain: &Chain, options: &[&str]) {
    let resolver = FakeResolver::with_chain(chain);
    let forwarder = Forwarder::before(&resolver, options);
    let ask = Ask::a(1, "x.test");
    forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
}

#[test]
fn the_anchors_are_those_of_the_file_and_no_others() {
    let other = Authority::root("another root");
    let file = temporary_file("another-root.pem", other.pem().as_bytes());
    let file = file.to_str().expect("a path in UTF-8");
    assert_refused(&pki().honest(), &["--resolver-ca", file], &["check=chain"]);
}

#[test]
fn a_resolver_that_changes_its_key_is_refused_at_the_next_session() {
    let honest = pki().honest();
    let resolver = FakeResolver::with_chain(&honest);
    let forwarder = Forwarder::before(&resolver, &["--resolver-pin", &honest.pin.to_string()]);
    let client = forwarder.udp();
    let ask = Ask::a(1, "x.test");
    client.ask(&ask.octets()).assert_answers(&ask);
    resolver.show(&pki().honest());
    resolver.hang_up();
    wait_until("the refusal", || client.ask(&ask.octets()).rcode() == 2);
    // A query before the refusal may have gone out on the old session, never on one with the new key.
    let asked = resolver.queries().len();
    client.ask(&ask.octets()).assert_error(&ask, SERVFAIL);
    assert_eq!(resolver.queries().len(), asked);
    // And it serves again when the right key is back.
    resolver.show(&honest);
    wait_until("service", || client.ask(&ask.octets()).rcode() == 0);
}

#[test]
fn both_tls_versions_are_authenticated() {
    let versions: [&'static rustls::SupportedProtocolVersion; 2] =
        [&rustls::version::TLS13, &rustls::version::TLS12];
    for version in versions {
        let honest = pki().honest();
        let resolver = FakeResolver::with_tls(tls(&honest, &[version], &[b"dot"]));
        let ask = Ask::a(1, "x.test");
        let forwarder = Forwarder::patient(&resolver, &["--resolver-pin", &honest.pin.to_string()]);
        forwarder.udp().ask(&ask.octets()).assert_answers(&ask);
        let strange = strange_pin();
        let forwarder = Forwarder::patient(&resolver, &["--resolver-pin", &strange]);
        forwarder
            .udp()
            .ask(&ask.octets())
            .assert_error(&ask, SERVFAIL);
        assert_eq!(resolver.queries().len(), 1);
    }
}

#[test]
fn a_clock_that_is_known_to_be_wrong_is_stood_in_for_by_a_pin_and_by_nothing_else() {
    const FLOOR: u64 = 1_780_000_000;
    let chain = pki().honest();
    let judge = |pins: &[Pin], pin_mode, now| {
        let pem = std::fs::read(pki().root_file()).expect("the root");
        let identity = Identity::new(VerifyPolicy {
            name: resolver_name(NAME).expect("a name"),
            anchors: TrustAnchors::from_pem(&pem).expect("a root"),
            pins: pins.iter().copied().collect(),
            pin_mode,
            key_exchange: KeyExchange::Prefer,
            clock_floor: FLOOR,
        });
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let proof = identity.check(&chain.certificates, now);
        proof
            .map(|proof| (proof.clock_untrusted, proof.pin_match.is_some()))
            .map_err(|refusal| refusal.check)
    };
    let (right, wrong) = (chain.pin, pki().honest().pin);
    for mode in [PinMode::Strict, PinMode::Report] {
        // In 1970, and a day too early.
        for now in [0, FLOOR - DAY] {
            assert_eq!(judge(&[right], mode, now), Ok((true, true)));
            assert_eq!(judge(&[wrong], mode, now), Err(Check::Pin));
            assert_eq!(judge(&[], mode, now), Err(Check::Clock));
        }
        // Clocks of two machines are never quite the same.
        for now in [FLOOR - DAY + 1, FLOOR] {
            assert_eq!(judge(&[right], mode, now), Ok((false, true)));
            assert_eq!(judge(&[], mode, now), Ok((false, false)));
        }
    }
    assert_eq!(
        judge(&[wrong], PinMode::Report, FLOOR),
        Ok((false, false)),
        "chain and name alone"
    );
    // In 2130 the certificate has long expired, and no pin helps.
    for pins in [&[right][..], &[]] {
        assert_eq!(
            judge(pins, PinMode::Strict, 5_050_000_000),
            Err(Check::Chain)
        );
    }
}

#[test]
fn a_pin_stands_in_for_the_clock_also_for_a_certificate_that_is_newer_than_the_program() {
    let chain = pki().chain(&[NAME], |params| {
        params.not_before = date_time_ymd(2040, 1, 1);
        params.not_after = date_time_ymd(2040, 4, 1);
    });
    let pem = std::fs::read(pki().root_file()).expect("the root");
    let judge = |pin: Pin, floor, now| {
        let identity = Identity::new(VerifyPolicy {
            name: resolver_name(NAME).expect("a name"),
            anchors: TrustAnchors::from_pem(&pem).expect("a root"),
            pins: [pin].into_iter().collect(),
            pin_mode: PinMode::Strict,
            key_exchange: KeyExchange::Prefer,
            clock_floor: floor,
        });
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let proof = identity.check(&chain.certificates, now);
        proof
            .map(|proof| proof.clock_untrusted)
            .map_err(|refusal| refusal.check)
    };
    let (built, expired) = (1_780_000_000, 2_250_000_000);
    assert_eq!(judge(chain.pin, built, 0), Ok(true));
    assert_eq!(judge(pki().honest().pin, built, 0), Err(Check::Pin));
    // A clock that may be right is believed, and so is a later time that is remembered.
    assert_eq!(judge(chain.pin, built, built), Err(Check::Chain));
    assert_eq!(judge(chain.pin, expired, 0), Err(Check::Chain));
}

#[test]
fn an_anchor_that_cannot_be_read_is_named_and_the_others_count() {
    let resolver = FakeResolver::honest();
    let root = pki().root.pem();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let write = |name: &str, text: &str| {
        let file = temporary_file(name, text.as_bytes());
        file.to_str().expect("a path in UTF-8").to_owned()
    };
    let bundle = write("bundle", &format!("{broken}{root}{}", broken.repeat(7)));
    let start = |file: &str| {
        let mut command = program();
        command.args(["--address", "127.0.0.1", "--port", "0"]);
        command.args(["--resolver-addr", &resolver.address().to_string()]);
        command.args(["--resolver-fqdn", NAME, "--resolver-ca", file]);
        command.args(RELAY);
        command
    };
    let process = Process::run(&mut start(&bundle));
    for part in [
        "event=trust-anchor-skipped certificate=1 line=1 cause=",
        "event=trust-anchor-skipped certificate=3 line=",
        "event=trust-anchors-skipped others=3\n",
    ] {
        assert!(process.has_said(part), "{part}: {}", process.heard());
    }
    let ask = Ask::a(1, "x.test");
    let client = UdpClient::to(process.address);
    client.ask(&ask.octets()).assert_answers(&ask);
    let none = write("none", broken);
    let output = start(&none).arg("--check-config").output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    let expected = format!("--resolver-ca {none:?}: certificate 1, in line 1, cannot be read: ");
    assert!(error.contains(&expected), "{error}");
}
