//! The key exchange against NIST's vectors and against AWS-LC, by rustls' own X25519MLKEM768.

use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768 as OTHER;

use super::*;

const VECTORS: &str = include_str!("acvp.txt");
const SHARE_LEN: usize = CIPHERTEXT_LEN + X25519_LEN;

fn octets(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// The vectors of one kind, in fields.
fn vectors(kind: &str) -> Vec<Vec<&'static str>> {
    let lines = VECTORS.lines().map(|line| line.split(' ').collect());
    lines.filter(|fields: &Vec<_>| fields[0] == kind).collect()
}

fn start(seed: [u8; SEED_LEN]) -> Box<Exchange> {
    Box::new(Exchange::new(&seed).expect("random numbers"))
}

fn is_refused(result: Result<SharedSecret, Error>) -> bool {
    matches!(result, Err(error) if error == INVALID_KEY_SHARE)
}

#[test]
fn keys_are_those_of_nists_vectors() {
    let vectors = vectors("keygen");
    assert_eq!(vectors.len(), 5);
    for fields in vectors {
        let seed = octets(&[fields[2], fields[3]].concat());
        let exchange = start(seed.try_into().expect("d and z"));
        let (key, public_key) = exchange.pub_key().split_at(ENCAPSULATION_KEY_LEN);
        let found = digest(&SHA256, key);
        assert_eq!(found.as_ref(), octets(fields[4]), "test case {}", fields[1]);
        assert_eq!(public_key, exchange.classical.pub_key());
    }
}

#[test]
fn secrets_are_those_of_nists_vectors_also_for_a_ciphertext_that_was_changed() {
    let vectors = vectors("decap");
    let reasons: Vec<_> = vectors.iter().map(|fields| fields[2]).collect();
    assert_eq!(reasons, ["modify-ciphertext", "no-modification"]);
    for fields in vectors {
        let key = octets(fields[3]);
        let mut exchange = start([0; SEED_LEN]);
        // The vectors have no seed, which is all that ml-kem reads otherwise.
        #[expect(deprecated)]
        let post_quantum = DecapsulationKey::from_expanded(key[..].try_into().expect("dk"));
        exchange.post_quantum = post_quantum.expect("it is valid");
        let peer = X25519.start().expect("random numbers");
        let share = [&octets(fields[4]), peer.pub_key()].concat();
        let public_key = exchange.classical.pub_key().to_vec();
        let secret = exchange.complete(&share).expect("a share");
        let classical = peer.complete(&public_key).expect("a key");
        let (post_quantum, rest) = secret.secret_bytes().split_at(SECRET_LEN);
        assert_eq!(post_quantum, octets(fields[5]), "test case {}", fields[1]);
        assert_eq!(rest, classical.secret_bytes());
    }
}

#[test]
fn only_tls_1_3_has_it_and_no_server_of_ours() {
    assert!(X25519MLKEM768.usable_for_version(ProtocolVersion::TLSv1_3));
    assert!(!X25519MLKEM768.usable_for_version(ProtocolVersion::TLSv1_2));
    let share = X25519MLKEM768.start().expect("random numbers");
    let answered = X25519MLKEM768.start_and_complete(share.pub_key());
    assert!(matches!(answered, Err(Error::General(_))));
}

#[test]
fn each_exchange_has_keys_of_its_own() {
    let one = X25519MLKEM768.start().expect("random numbers");
    let other = X25519MLKEM768.start().expect("random numbers");
    let halves = |share: &[u8]| share.split_at(ENCAPSULATION_KEY_LEN).0.to_vec();
    assert_ne!(halves(one.pub_key()), halves(other.pub_key()));
    assert_ne!(one.hybrid_component(), other.hybrid_component());
}

#[test]
fn the_hybrid_group_is_offered_first_or_alone_or_not_at_all() {
    let names = |choice: KeyExchange, hello| -> Vec<_> {
        let groups = choice.groups(hello);
        groups
            .into_iter()
            .map(|group| Group::of(Some(group)))
            .collect()
    };
    let [hybrid, x25519, p256, p384, _] = Group::ALL;
    for hello in [HelloSize::Large, HelloSize::Small] {
        assert_eq!(names(KeyExchange::Require, hello), [hybrid]);
        assert_eq!(names(KeyExchange::Classical, hello), [x25519, p256, p384]);
    }
    let large = names(KeyExchange::Prefer, HelloSize::Large);
    assert_eq!(large, [hybrid, x25519, p256, p384]);
    let small = names(KeyExchange::Prefer, HelloSize::Small);
    assert_eq!(small, [x25519, p256, p384]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn aws_lc_agrees_on_the_secret(seed in any::<[u8; 32]>()) {
        let exchange = start([seed, seed].concat().try_into().expect("64"));
        let answered = OTHER.start_and_complete(exchange.pub_key()).expect("a share");
        prop_assert_eq!(answered.pub_key.len(), SHARE_LEN);
        let secret = exchange.complete(&answered.pub_key).expect("a share");
        prop_assert_eq!(secret.secret_bytes(), answered.secret.secret_bytes());
    }

    #[test]
    fn aws_lc_agrees_on_the_secret_of_x25519_alone(seed in any::<[u8; 32]>()) {
        let exchange = start([seed, seed].concat().try_into().expect("64"));
        let (group, share) = exchange.hybrid_component().expect("a component");
        prop_assert_eq!(group, NamedGroup::X25519);
        let other = rustls::crypto::aws_lc_rs::kx_group::X25519;
        let answered = other.start_and_complete(share).expect("a share");
        let secret = exchange.complete_hybrid_component(&answered.pub_key).expect("a share");
        prop_assert_eq!(secret.secret_bytes(), answered.secret.secret_bytes());
    }

    #[test]
    fn one_bit_changed_gives_another_secret_or_none(bit in 0..SHARE_LEN * 8) {
        let exchange = start([7; SEED_LEN]);
        let mut answered = OTHER.start_and_complete(exchange.pub_key()).expect("a share");
        answered.pub_key[bit / 8] ^= 1 << (bit % 8);
        // The highest bit of a key of X25519 does not count (RFC 7748 section 5).
        let is_ignored = bit == SHARE_LEN * 8 - 1;
        if let Ok(secret) = exchange.complete(&answered.pub_key) {
            let same = secret.secret_bytes() == answered.secret.secret_bytes();
            prop_assert_eq!(same, is_ignored);
            // Each half depends on its own part of the share alone.
            let (post_quantum, classical) = secret.secret_bytes().split_at(SECRET_LEN);
            let others = answered.secret.secret_bytes().split_at(SECRET_LEN);
            let is_ciphertext = bit / 8 < CIPHERTEXT_LEN;
            prop_assert_eq!(post_quantum != others.0, is_ciphertext);
            prop_assert_eq!(classical != others.1, !is_ciphertext && !is_ignored);
        }
    }

    #[test]
    fn a_changed_share_of_ours_is_refused_or_gives_another_secret(at in 0..ENCAPSULATION_KEY_LEN, flip in 1..=255_u8) {
        let exchange = start([9; SEED_LEN]);
        let mut share = exchange.pub_key().to_vec();
        share[at] ^= flip;
        if let Ok(answered) = OTHER.start_and_complete(&share) {
            let secret = exchange.complete(&answered.pub_key).expect("a share");
            prop_assert_ne!(secret.secret_bytes(), answered.secret.secret_bytes());
        }
    }

    #[test]
    fn shares_of_other_lengths_are_refused(length in 0..2 * SHARE_LEN, octet in any::<u8>()) {
        if length != SHARE_LEN {
            prop_assert!(is_refused(start([1; SEED_LEN]).complete(&vec![octet; length])));
        }
        if length != X25519_LEN {
            let refused = start([1; SEED_LEN]).complete_hybrid_component(&vec![octet; length]);
            prop_assert!(is_refused(refused));
        }
    }
}

#[test]
fn a_public_key_of_low_order_is_refused() {
    // Its secret would be zero, whatever the private key (RFC 7748 section 6.1).
    let exchange = start([3; SEED_LEN]);
    let mut answered = OTHER
        .start_and_complete(exchange.pub_key())
        .expect("a share");
    answered.pub_key[CIPHERTEXT_LEN..].fill(0);
    assert!(is_refused(exchange.complete(&answered.pub_key)));
}
