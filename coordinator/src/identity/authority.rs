//! The authority: a key, a certificate for ten years, and what it signs.

use super::random;
use crate::state::{private_folder, read_text, unusable, write_whole};
use crate::store::WallTime;
use baton_core::name::{Digest, ServiceName};
use baton_core::problem::{Code, Problem};
use baton_proto::identity::{Identity, serial_text, service_uri};
use baton_proto::problem::code;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use std::path::Path;
use time::OffsetDateTime;

const DAY: i64 = 24 * 3600;

/// As long as a fleet may live without anybody thinking of its authority.
pub const AUTHORITY_LIFE: i64 = 3650 * DAY;

/// Certificates begin a little in the past: the clocks of two machines need not agree to the second. Those that live for
/// minutes only begin less early, so that most of their life is ahead of them.
const BACKDATED: i64 = 5 * 60;
const BACKDATED_SHARE: i64 = 10;

/// A certificate authority with its key.
pub struct Authority {
    certificate_pem: String,
    certificate_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// What an authority's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub name: String,
    /// As it stands in what it signs.
    pub name_der: Vec<u8>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Made by Baton, not brought.
    pub made_here: bool,
}

/// A request somebody made for a certificate. All that is kept of it is its public key.
#[derive(Debug)]
pub struct Request(rcgen::PublicKey);

/// From about now, for so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub now: WallTime,
    pub life: i64,
}

/// The number of a certificate, and the text it has in the store and in logs.
#[derive(Debug, Clone)]
pub struct Serial {
    number: SerialNumber,
    text: String,
}

impl Authority {
    /// Makes a new authority and keeps it in a folder.
    ///
    /// # Errors
    /// B1008 when there is one already: every host and operator trusts that one. B1001 when the folder cannot be written.
    pub fn create(folder: &Path, now: WallTime) -> Result<Self, Problem> {
        none_yet(folder)?;
        Self::made(NAME, now)?.0.keep(folder)
    }

    /// Makes the authority that takes this one's place, and a certificate in which this one vouches for it: whoever believes
    /// nobody but this one believes what that one signs, by that.
    ///
    /// # Errors
    /// B1006 when the operating system has no random bytes, or signing fails.
    pub(super) fn successor(&self, now: WallTime) -> Result<(Self, String), Problem> {
        // Of another name, so that whoever builds a chain never has to try two keys for one name.
        let name = format!("{NAME} {}", data_encoding::HEXLOWER.encode(&random::<4>()?));
        let (next, mut params) = Self::made(&name, now)?;
        params.serial_number = Some(Serial::random()?.number);
        params.use_authority_key_identifier_extension = true;
        params.not_after = params.not_after.min(at(self.facts()?.not_after));
        let cross = params.signed_by(next.issuer.key(), &self.issuer);
        Ok((next, cross.map_err(|error| failed("vouch for the next one", &error))?.pem()))
    }

    /// A new authority, and what its certificate was made of.
    fn made(name: &str, now: WallTime) -> Result<(Self, CertificateParams), Problem> {
        let key_pair = KeyPair::generate().map_err(|error| failed("make a key", &error))?;
        let mut params = params(name, Validity { now, life: AUTHORITY_LIFE });
        params.serial_number = Some(Serial::random()?.number);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let signed = params.self_signed(&key_pair).map_err(|error| failed("sign its own certificate", &error))?;
        let authority = Self::of(signed.pem(), key_pair).map_err(|reason| Problem::new(Code(1006), reason))?;
        Ok((authority, params))
    }

    /// An authority of a certificate and the key that is known to be its own.
    pub(super) fn of(certificate_pem: String, key_pair: KeyPair) -> Result<Self, String> {
        let certificate_der = der(&certificate_pem).ok_or("not a PEM certificate")?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key_pair).map_err(|error| error.to_string())?;
        Ok(Self { certificate_pem, certificate_der, issuer })
    }

    /// Keeps a new authority in a folder that has none.
    ///
    /// # Errors
    /// As [`Authority::create`].
    pub(super) fn keep(self, folder: &Path) -> Result<Self, Problem> {
        none_yet(folder)?;
        private_folder(folder)?;
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
        // The certificate comes last: while it is missing, there is no authority.
        let secret = self.key_pem();
        write_whole(&key, secret.as_bytes(), 0o600).map_err(|error| unusable(&key, &error))?;
        write_whole(&certificate, self.certificate_pem.as_bytes(), 0o644).map_err(|error| unusable(&certificate, &error))?;
        Self::load(folder)
    }

    /// Reads the authority of a folder.
    ///
    /// # Errors
    /// B1002 when there is none yet, B1004 when it cannot be understood.
    pub fn load(folder: &Path) -> Result<Self, Problem> {
        let path = folder.join(CERTIFICATE);
        if !path.exists() {
            return Err(Problem::new(Code(1002), "this coordinator has no authority yet")
                .saw("missing", path.display().to_string())
                .help("baton-coordinator init, with the --config that is used otherwise"));
        }
        let certificate_pem = read_text(&path)?;
        Self::read(certificate_pem, &read_text(&folder.join(KEY))?).map_err(|reason| broken(folder, &reason))
    }

    /// An authority of the texts of its certificate and its key.
    pub(super) fn read(certificate_pem: String, key_pem: &str) -> Result<Self, String> {
        let key_pair = KeyPair::from_pem(key_pem).map_err(|error| error.to_string())?;
        let certificate_der = der(&certificate_pem).ok_or("not a PEM certificate")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate_der).map_err(|error| error.to_string())?;
        if parsed.public_key().raw != key_pair.subject_public_key_info() {
            return Err("the key is not the certificate's".to_owned());
        }
        Self::of(certificate_pem, key_pair)
    }

    /// What a join token pins: the hash of the certificate.
    #[must_use]
    pub fn pin(&self) -> [u8; 32] {
        *blake3::hash(&self.certificate_der).as_bytes()
    }

    /// The pin, as people read it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        Digest::from_bytes(self.pin()).to_string()
    }

    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// What people are told of it.
    ///
    /// # Errors
    /// B1004 when its certificate cannot be read, which it was when it was loaded.
    pub fn facts(&self) -> Result<Facts, Problem> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.certificate_der).map_err(|error| {
            Problem::new(Code(1004), "the authority's certificate cannot be read").saw("reason", error.to_string())
        })?;
        Ok(Facts {
            name: parsed.subject().to_string(),
            name_der: parsed.subject().as_raw().to_vec(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            made_here: parsed.subject() == parsed.issuer()
                && parsed.subject().to_string().starts_with(&format!("CN={NAME}")),
        })
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Signs a certificate for a peer: its public key, the identity and role the token gave it.
    ///
    /// # Errors
    /// B1006 when signing fails.
    pub fn sign(
        &self,
        request: &Request,
        identity: &Identity,
        serial: &Serial,
        during: Validity,
        services: &[ServiceName],
    ) -> Result<String, Problem> {
        let uris: Vec<_> = std::iter::once(identity.to_uri()).chain(services.iter().map(service_uri)).collect();
        self.leaf(&request.0, &uris, serial, during, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Issues a certificate for a coordinator and a new key for it: both as text.
    ///
    /// # Errors
    /// B1006 when signing fails.
    pub(super) fn server(&self, name: &str, during: Validity) -> Result<(String, String), Problem> {
        let key = KeyPair::generate().map_err(|error| failed("make a key", &error))?;
        let uri = format!("baton://coordinator/{name}");
        let leaf = self.leaf(&key, &[uri], &Serial::random()?, during, ExtendedKeyUsagePurpose::ServerAuth)?;
        Ok((leaf, key.serialize_pem()))
    }

    fn leaf(
        &self,
        key: &impl PublicKeyData,
        uris: &[String],
        serial: &Serial,
        during: Validity,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<String, Problem> {
        let refused = |error: rcgen::Error| failed("sign a certificate", &error);
        let mut params = params(uris.first().map_or("", |uri| uri.trim_start_matches("baton://")), during);
        params.serial_number = Some(serial.number.clone());
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(refused)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer).map_err(refused)?.pem())
    }
}

impl Request {
    /// Reads a request and checks that whoever made it has the key.
    ///
    /// # Errors
    /// B0513 (`CREDENTIALS`) when it is not a request, or its signature is wrong.
    pub fn read(pem: &str) -> Result<Self, Problem> {
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(|error| {
            Problem::new(code::CREDENTIALS, "the request for a certificate cannot be read").saw("reason", error.to_string())
        })?;
        Ok(Self(request.public_key))
    }
}

impl Serial {
    /// A number nobody can guess; positive, as X.509 wants it.
    ///
    /// # Errors
    /// See [`random`].
    pub fn random() -> Result<Self, Problem> {
        let mut bytes = random::<16>()?;
        bytes[0] = (bytes[0] & 0x7f) | 0x40;
        Ok(Self { number: SerialNumber::from_slice(&bytes), text: serial_text(&bytes) })
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("pin", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// What an authority made here is called; those that follow it have a number nobody chose behind that.
const NAME: &str = "Baton authority";

pub(super) const CERTIFICATE: &str = "authority.pem";
pub(super) const KEY: &str = "authority.key.pem";

/// The problem of an authority's files that make no sense.
pub(super) fn broken(folder: &Path, reason: &str) -> Problem {
    Problem::new(Code(1004), "the authority's files cannot be understood")
        .saw("identity folder", folder.display().to_string())
        .saw("reason", reason)
        .help("restore them from a backup")
}

fn none_yet(folder: &Path) -> Result<(), Problem> {
    let certificate = folder.join(CERTIFICATE);
    if certificate.exists() {
        return Err(Problem::new(Code(1008), "this coordinator has an authority already")
            .saw("authority", certificate.display().to_string())
            .help("keep it: every host and operator that joined trusts it"));
    }
    Ok(())
}

/// The first certificate of a PEM text.
pub(crate) fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    (block.label == "CERTIFICATE").then_some(block.contents)
}

impl Validity {
    /// When it begins and ends, in seconds since 1970.
    #[must_use]
    pub fn bounds(self) -> (WallTime, WallTime) {
        let early = BACKDATED.min(self.life / BACKDATED_SHARE);
        (WallTime(self.now.0.saturating_sub(early)), WallTime(self.now.0.saturating_add(self.life)))
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn params(name: &str, during: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    let (not_before, not_after) = during.bounds();
    params.not_before = at(not_before.0);
    params.not_after = at(not_after.0);
    params.distinguished_name = DistinguishedName::new();
    // For people who look at a certificate; nothing reads it. X.520 allows 64 characters.
    params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    params
}

fn failed(what: &str, error: &rcgen::Error) -> Problem {
    Problem::new(Code(1006), format!("the authority could not {what}")).saw("reason", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_proto::identity::subject;

    const NOW: WallTime = WallTime(1_800_000_000);
    const DURING: Validity = Validity { now: NOW, life: 90 * DAY };

    fn request(params: &CertificateParams) -> String {
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn an_authority_is_loaded_as_it_was_made_and_never_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let made = Authority::create(folder.path(), NOW).unwrap();
        assert_eq!(Authority::load(folder.path()).unwrap().pin(), made.pin());
        assert_eq!(Authority::create(folder.path(), NOW).unwrap_err().code, Code(1008));
        assert_eq!(Authority::load(folder.path()).unwrap().pin(), made.pin());
    }

    #[test]
    fn the_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Authority::create(folder.path(), NOW).unwrap();
        let mode = std::fs::metadata(folder.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_of_another_authority_is_noticed() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::create(a.path(), NOW).unwrap();
        Authority::create(b.path(), NOW).unwrap();
        std::fs::copy(b.path().join(KEY), a.path().join(KEY)).unwrap();
        assert_eq!(Authority::load(a.path()).unwrap_err().code, Code(1004));
    }

    #[test]
    fn only_the_public_key_of_a_request_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), NOW).unwrap();
        let mut wish = CertificateParams::default();
        wish.subject_alt_names = vec![
            SanType::URI("baton://admin/eve".try_into().unwrap()),
            SanType::DnsName("coordinator.example.net".try_into().unwrap()),
        ];
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let request = Request::read(&request(&wish)).unwrap();
        let identity: Identity = "host/web1".parse().unwrap();
        let serial = Serial::random().unwrap();
        let signed = der(&authority.sign(&request, &identity, &serial, DURING, &[]).unwrap()).unwrap();

        let subject = subject(&signed).unwrap();
        assert_eq!((&subject.identity, subject.serial.as_str()), (&identity, serial.text()));
        assert_eq!((subject.not_before, subject.not_after), (NOW.0 - BACKDATED, NOW.0 + 90 * DAY));
        let (_, parsed) = x509_parser::parse_x509_certificate(&signed).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value.clone();
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    }

    #[test]
    fn a_certificate_for_seconds_has_most_of_its_life_ahead() {
        assert_eq!(Validity { now: NOW, life: 20 }.bounds(), (WallTime(NOW.0 - 2), WallTime(NOW.0 + 20)));
        assert_eq!(DURING.bounds().0, WallTime(NOW.0 - BACKDATED));
    }

    #[test]
    fn a_request_with_a_wrong_signature_is_refused() {
        let pem = request(&CertificateParams::default());
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let mut bytes = block.contents;
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let body = data_encoding::BASE64.encode(&bytes);
        let broken = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        assert_eq!(Request::read(&broken).unwrap_err().code, code::CREDENTIALS);
        assert_eq!(Request::read("hello").unwrap_err().code, code::CREDENTIALS);
    }
}
