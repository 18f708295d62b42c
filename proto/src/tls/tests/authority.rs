//! A certificate authority that signs whatever a test wishes.

use crate::tls::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

pub(in crate::tls) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(in crate::tls) pem: String,
    pub(in crate::tls) der: Vec<u8>,
}

/// What stands in a certificate.
pub(in crate::tls) struct Wish {
    pub(in crate::tls) uris: Vec<String>,
    pub(in crate::tls) serial: Vec<u8>,
    /// Days from now.
    pub(in crate::tls) valid: (i64, i64),
}

impl Wish {
    pub(in crate::tls) fn of(identity: &str) -> Self {
        Self { uris: vec![format!("baton://{identity}")], serial: vec![0x9f, 1, 2], valid: (-1, 1) }
    }
}

impl Authority {
    /// All authorities here have the same name: only the key tells them apart, as after a new `baton-coordinator init`.
    pub(in crate::tls) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Baton authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    pub(in crate::tls) fn sign(&self, identity: &str) -> Credentials {
        self.grant(&Wish::of(identity))
    }

    pub(in crate::tls) fn grant(&self, wish: &Wish) -> Credentials {
        let mut params = CertificateParams::default();
        params.subject_alt_names = wish.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(wish.serial.clone()));
        params.not_before = OffsetDateTime::now_utc() + Duration::days(wish.valid.0);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(wish.valid.1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), authority_pem: self.pem.clone() }
    }
}
