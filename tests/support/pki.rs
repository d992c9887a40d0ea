//! Certificates: a root that the forwarders of the tests trust, an issuer under it, and leaves right and wrong.

use std::path::PathBuf;
use std::sync::OnceLock;

use dns_tool::identity::pin::Pin;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};

use super::{NAME, temporary_file};

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
    }

    pub(crate) fn root(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(Self::params(name), new_key()).expect("signs"))
    }

    fn under(name: &str, issuer: &Self) -> Self {
        Self(CertifiedIssuer::signed_by(Self::params(name), new_key(), &issuer.0).expect("signs"))
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn pin(&self) -> Pin {
        pin(self.0.key())
    }

    /// A leaf for these names, as `change` wants it.
    pub(crate) fn issue(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certificate, KeyPair) {
        let key = new_key();
        let certificate = leaf_params(names, change)
            .signed_by(&key, &self.0)
            .expect("signs");
        (certificate, key)
    }
}

fn leaf_params(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    change(&mut params);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn pin(key: &impl PublicKeyData) -> Pin {
    Pin::of(&SubjectPublicKeyInfoDer::from(
        key.subject_public_key_info(),
    ))
}

/// What a resolver shows, and the key behind it.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// The pin of the leaf's key.
    pub(crate) pin: Pin,
}

impl Clone for Chain {
    fn clone(&self) -> Self {
        Self {
            certificates: self.certificates.clone(),
            key: self.key.clone_key(),
            pin: self.pin,
        }
    }
}

impl Chain {
    fn new(leaf: &Certificate, key: &KeyPair, others: &[CertificateDer<'static>]) -> Self {
        let mut certificates = vec![leaf.der().clone()];
        certificates.extend_from_slice(others);
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        Self {
            certificates,
            key: private,
            pin: pin(key),
        }
    }

    /// The same with a certificate that is no part of the path.
    pub(crate) fn with_appended(mut self, stranger: CertificateDer<'static>) -> Self {
        self.certificates.push(stranger);
        self
    }
}

/// The authorities of the tests.
pub(crate) struct Pki {
    pub(crate) root: Authority,
    pub(crate) issuer: Authority,
    root_file: PathBuf,
}

/// Made once, since keys take time.
pub(crate) fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let root = Authority::root("root of the tests");
        let issuer = Authority::under("issuer of the tests", &root);
        let root_file = temporary_file("root.pem", root.pem().as_bytes());
        Pki {
            root,
            issuer,
            root_file,
        }
    })
}

impl Pki {
    /// The PEM file that holds the root.
    pub(crate) fn root_file(&self) -> PathBuf {
        self.root_file.clone()
    }

    /// A leaf under the issuer, with the issuer's certificate: what an honest resolver shows.
    pub(crate) fn honest(&self) -> Chain {
        self.chain(&[NAME], |_| {})
    }

    /// The same with other names or as `change` wants it.
    pub(crate) fn chain(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Chain {
        let (leaf, key) = self.issuer.issue(names, change);
        Chain::new(&leaf, &key, &[self.issuer.certificate()])
    }

    /// A leaf that the root itself gave.
    pub(crate) fn directly_under_root(&self) -> Chain {
        let (leaf, key) = self.root.issue(&[NAME], |_| {});
        Chain::new(&leaf, &key, &[])
    }

    /// Under a root that nobody trusts.
    pub(crate) fn unknown_root(&self) -> Chain {
        let stranger = Authority::root("stranger");
        let (leaf, key) = stranger.issue(&[NAME], |_| {});
        Chain::new(&leaf, &key, &[stranger.certificate()])
    }

    /// A leaf that vouches for itself.
    pub(crate) fn self_signed(&self) -> Chain {
        let key = new_key();
        let leaf = leaf_params(&[NAME], |_| {})
            .self_signed(&key)
            .expect("signs");
        Chain::new(&leaf, &key, &[])
    }

    /// A self-signed certificate of an authority that names the resolver itself, as `openssl req -x509` makes it; and its PEM.
    pub(crate) fn own_authority(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Chain, String) {
        let key = new_key();
        let params = leaf_params(names, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            change(params);
        });
        let certificate = params.self_signed(&key).expect("signs");
        (Chain::new(&certificate, &key, &[]), certificate.pem())
    }

    /// Without the certificate between leaf and root.
    pub(crate) fn without_issuer(&self) -> Chain {
        let mut chain = self.honest();
        chain.certificates.truncate(1);
        chain
    }
}
