//! Which authorities are taken, and what is said of the others.

use super::*;
use rcgen::{
    BasicConstraints, CertificateParams, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use time::OffsetDateTime;

const NOW: WallTime = WallTime(1_800_000_000);

struct Desk {
    folder: tempfile::TempDir,
    files: AuthorityFiles,
}

impl Desk {
    fn with(certificate: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files =
            AuthorityFiles { certificate: folder.path().join("authority.crt"), key: folder.path().join("authority.pem") };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        Self { folder, files }
    }

    /// The problem, after which nothing was kept.
    fn refusal(&self) -> Problem {
        let state = self.folder.path().join("identity");
        let problem = bring(&self.files, &state, NOW).unwrap_err();
        assert!(!state.exists(), "{problem:?}");
        assert!(problem.help.is_some() && !problem.seen.is_empty(), "{problem:?}");
        problem
    }
}

fn wish() -> CertificateParams {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let mut wish = CertificateParams::default();
    (wish.not_before, wish.not_after) = (at(NOW.0 - 100), at(NOW.0 + 10_000));
    wish.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wish
}

fn desk(wish: &CertificateParams, key: &KeyPair) -> Desk {
    Desk::with(&wish.self_signed(key).unwrap().pem(), &key.serialize_pem())
}

fn refusal(change: impl FnOnce(&mut CertificateParams)) -> Problem {
    let mut wish = wish();
    change(&mut wish);
    desk(&wish, &KeyPair::generate().unwrap()).refusal()
}

#[test]
fn a_root_of_every_supported_algorithm_is_taken_and_kept() {
    for key in [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    ] {
        let desk = desk(&wish(), &key);
        let state = desk.folder.path().join("identity");
        let (kept, fresh) = bring(&desk.files, &state, NOW).unwrap();
        assert!(fresh);
        assert_eq!(Authority::load(&state).unwrap().pin(), kept.pin());
        let (again, fresh) = bring(&desk.files, &state, NOW).unwrap();
        assert_eq!((again.pin(), fresh), (kept.pin(), false), "the same once more changes nothing");
    }
}

#[test]
fn of_a_chain_the_intermediate_is_the_authority_and_its_root_is_not_believed() {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root_wish = wish();
    root_wish.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    root_wish.distinguished_name.push(rcgen::DnType::CommonName, "Example root");
    let root = root_wish.self_signed(&root_key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&root.pem(), root_key).unwrap();
    let intermediate = wish().signed_by(&key, &issuer).unwrap();
    let text = format!("subject=Example\n{}{}", intermediate.pem(), root.pem());
    let desk = Desk::with(&text, &key.serialize_pem());
    let authority = desk.files.read(NOW).unwrap();
    assert_eq!(authority.pin(), *blake3::hash(intermediate.der()).as_bytes());
    assert_eq!(authority.certificate_pem().matches("BEGIN CERTIFICATE").count(), 1);
}

#[test]
fn what_is_no_authority_is_refused() {
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let problem = refusal(|wish| wish.is_ca = is_ca);
        assert_eq!(problem.code, Code(1030));
        assert!(problem.what.contains("no authority's"), "{problem:?}");
    }
    let problem = refusal(|wish| wish.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert!(problem.what.contains("may not sign"), "{problem:?}");
}

#[test]
fn an_authority_that_expired_or_is_not_valid_yet_is_refused() {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let expired = refusal(|wish| wish.not_after = at(NOW.0));
    assert!(expired.code == Code(1030) && expired.what.contains("has expired"), "{expired:?}");
    let early = refusal(|wish| wish.not_before = at(NOW.0 + 1));
    assert!(early.code == Code(1030) && early.what.contains("not valid yet"), "{early:?}");
}

#[test]
fn constraints_that_hosts_would_trip_over_are_found_by_trying() {
    let problem = refusal(|wish| {
        let permitted = vec![GeneralSubtree::DirectoryName(rcgen::DistinguishedName::new())];
        let excluded = vec![GeneralSubtree::DirectoryName(rcgen::DistinguishedName::new())];
        wish.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
    });
    assert_eq!(problem.code, Code(1030));
    assert!(problem.what.contains("would not believe"), "{problem:?}");
}

#[test]
fn a_key_of_somebody_else_or_none_is_refused() {
    let (own, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = wish().self_signed(&own).unwrap().pem();
    let problem = Desk::with(&certificate, &other.serialize_pem()).refusal();
    assert!(problem.code == Code(1031) && problem.what.contains("not the one"), "{problem:?}");
    for (key, said) in [
        ("", "cannot be used"),
        ("hello", "cannot be used"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "is encrypted"),
    ] {
        let problem = Desk::with(&certificate, key).refusal();
        assert!(problem.code == Code(1031) && problem.what.contains(said), "{problem:?}");
        assert!(key.is_empty() || !format!("{problem:?}").contains(key), "a key is never shown");
    }
}

#[test]
fn what_is_no_certificate_or_not_there_is_refused() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(Desk::with(text, &key).refusal().code, Code(1030), "{text:?}");
    }
    let mut gone = Desk::with("", &key);
    gone.files.certificate = gone.folder.path().join("nothing");
    assert_eq!(gone.refusal().code, Code(1030));
    let good = wish().self_signed(&KeyPair::from_pem(&key).unwrap()).unwrap().pem();
    let mut gone = Desk::with(&good, &key);
    gone.files.key = gone.folder.path().join("nothing");
    assert_eq!(gone.refusal().code, Code(1031));
}

#[test]
fn another_authority_is_never_replaced() {
    let desk = desk(&wish(), &KeyPair::generate().unwrap());
    let state = desk.folder.path().join("identity");
    let made = Authority::create(&state, NOW).unwrap();
    assert_eq!(bring(&desk.files, &state, NOW).unwrap_err().code, Code(1008));
    assert_eq!(Authority::load(&state).unwrap().pin(), made.pin());
}
