//! What post-quantum keys cost: the processor time of a client's whole handshake, with the large hello and with the small one, in turn.
//!
//! ```text
//! cargo bench --bench handshake
//! ```
//!
//! Client and server are in this process. What is measured is the client alone, by the time that the kernel gave this thread, so other
//! load of the machine counts little. The server's implementation is AWS-LC.

use std::sync::Arc;
use std::time::Duration;

use dns_tool::identity::anchors::TrustAnchors;
use dns_tool::identity::key_exchange::{Group, HelloSize, KeyExchange};
use dns_tool::identity::pin::PinSet;
use dns_tool::identity::verifier::Identity;
use dns_tool::identity::verify_policy::{PinMode, VerifyPolicy};
use nix::time::{ClockId, clock_gettime};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection, version};

const NAME: &str = "resolver.test";

/// A resolver's identity, and its server.
fn sides() -> (Identity, Arc<ServerConfig>) {
    let new_key = || KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, new_key()).expect("signs");
    let key = new_key();
    let leaf = CertificateParams::new([NAME.to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &root).expect("signs");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut provider = aws_lc_rs::default_provider();
    use aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
    provider.kx_groups = vec![X25519MLKEM768, X25519];
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("certificate and key fit");
    // Without tickets each handshake is a whole one.
    server.send_tls13_tickets = 0;
    let identity = Identity::new(VerifyPolicy {
        name: ServerName::try_from(NAME).expect("a name"),
        anchors: TrustAnchors::from_pem(root.pem().as_bytes()).expect("a root"),
        pins: PinSet::default(),
        pin_mode: PinMode::Strict,
        key_exchange: KeyExchange::Prefer,
        clock_floor: 0,
    });
    (identity, Arc::new(server))
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
    time.into()
}

/// Shakes hands. Returns the client's processor time, and the octets of its hello.
fn handshake(
    identity: &Identity,
    server: &Arc<ServerConfig>,
    hello: HelloSize,
) -> (Duration, usize) {
    let config = Arc::clone(identity.client_config(hello));
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a configuration");
    let began = cpu_time();
    let mut client = ClientConnection::new(config, identity.name().clone()).expect("a name");
    let mut spent = cpu_time() - began;
    let mut hello_len = 0;
    while client.is_handshaking() {
        let (began, mut sent) = (cpu_time(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut sent).expect("memory");
        }
        spent += cpu_time() - began;
        hello_len = hello_len.max(sent.len());
        let mut arrived = &sent[..];
        while !arrived.is_empty() {
            server.read_tls(&mut arrived).expect("memory");
            server.process_new_packets().expect("a hello");
        }
        let mut answer = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut answer).expect("memory");
        }
        let (began, mut arrived) = (cpu_time(), &answer[..]);
        while !arrived.is_empty() {
            client.read_tls(&mut arrived).expect("memory");
            client.process_new_packets().expect("an answer");
        }
        spent += cpu_time() - began;
    }
    let expected = match hello {
        HelloSize::Large => Group::X25519MlKem768,
        HelloSize::Small => Group::X25519,
    };
    let group = client.negotiated_key_exchange_group();
    assert_eq!(Group::of(group), expected);
    (spent, hello_len)
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 3 } else { 2000 };
    let (identity, server) = sides();
    let hellos = [HelloSize::Large, HelloSize::Small];
    let mut times = hellos.map(|_| Vec::new());
    let mut lengths = [0; 2];
    for _ in 0..rounds {
        for (number, hello) in hellos.into_iter().enumerate() {
            let (time, length) = handshake(&identity, &server, hello);
            times[number].push(time);
            lengths[number] = length;
        }
    }
    let [large, small] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let [large_len, small_len] = lengths;
    println!("X25519MLKEM768: {large:?}, hello of {large_len} octets");
    println!("X25519:         {small:?}, hello of {small_len} octets");
    println!("added:          {:?}", large.saturating_sub(small));
}
