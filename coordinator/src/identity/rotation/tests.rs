//! What is on disk after every step, and who believes whom by it.

use super::super::issuance::Issuance;
use super::super::{server, wall_time};
use super::*;
use baton_proto::tls::verify_coordinator;
use std::time::Duration;
use x509_parser::pem::Pem;

const LIFE: i64 = 90 * 24 * 3600;

struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Authority::create(folder.path(), wall_time()).unwrap();
        Self(folder)
    }

    fn rotated() -> Self {
        let desk = Self::new();
        desk.open().rotate().unwrap();
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// What a coordinator begins with.
    fn open(&self) -> Issuance {
        Issuance::open(self.path(), LIFE).unwrap()
    }

    /// The coordinator's own credentials, as they are served.
    fn served(&self) -> Credentials {
        let during = Validity { now: wall_time(), life: LIFE };
        server::credentials(&Authorities::load(self.path()).unwrap(), self.path(), during).unwrap()
    }
}

/// Whether somebody who knows nothing but these authorities believes a coordinator.
fn believes(authority_pem: &str, served: &Credentials) -> bool {
    let seen = Credentials { authority_pem: authority_pem.to_owned(), ..served.clone() };
    verify_coordinator(&seen, Duration::from_secs(wall_time().0.unsigned_abs())).is_ok()
}

fn certificates(text: &str) -> Vec<Vec<u8>> {
    Pem::iter_from_buffer(text.as_bytes()).map(|block| block.unwrap().contents).collect()
}

fn names(desk: &Desk) -> Vec<String> {
    desk.open().current().believed().map(|authority| authority.facts().unwrap().name).collect()
}

#[test]
fn the_chain_begins_with_one_certificate_and_ends_in_what_tokens_pin() {
    let desk = Desk::new();
    let pin = desk.open().current().signer.pin();
    let chain = certificates(&desk.served().certificate_pem);
    assert_eq!(chain.len(), 2);
    assert_eq!(*blake3::hash(&chain[1]).as_bytes(), pin);
}

#[test]
fn during_a_rotation_whoever_knows_either_authority_believes_the_coordinator() {
    let desk = Desk::new();
    let old = desk.open().current();
    let new = desk.open().rotate().unwrap();
    assert_ne!(new.signer.facts().unwrap().name_der, old.signer.facts().unwrap().name_der);
    assert_eq!(new.pins(), [new.signer.pin(), old.signer.pin()]);
    let served = desk.served();
    for pem in [old.signer.certificate_pem(), new.signer.certificate_pem(), &new.bundle()] {
        assert!(believes(pem, &served), "{pem}");
    }
    assert!(!believes(Desk::new().open().current().signer.certificate_pem(), &served));
    // With the old key nothing changed, so a program that knows no rotation still reads the folder.
    assert_eq!(Authority::load(desk.path()).unwrap().pin(), old.signer.pin());
}

#[test]
fn after_the_retirement_the_new_authority_is_the_only_one_and_the_old_key_is_gone() {
    let desk = Desk::new();
    let old = desk.open().current();
    let issuance = desk.open();
    issuance.rotate().unwrap();
    let new = issuance.retire().unwrap();
    let served = desk.served();
    assert!(believes(new.signer.certificate_pem(), &served));
    assert!(!believes(old.signer.certificate_pem(), &served));
    assert_eq!(certificates(&served.certificate_pem).len(), 2);
    assert_eq!(Authority::load(desk.path()).unwrap().pin(), new.signer.pin());
    let secret = old.signer.key_pem();
    for entry in fs::read_dir(desk.path()).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::read_to_string(&path).unwrap().contains(&secret), "{}", path.display());
    }
    // And so on: the next one follows.
    let third = desk.open().rotate().unwrap();
    assert_eq!(third.pins(), [third.signer.pin(), new.signer.pin()]);
}

#[test]
fn wherever_a_rotation_is_cut_short_the_next_start_knows_both() {
    let desk = Desk::new();
    let old = names(&desk);
    // Written down, and the power went before anything else.
    let next = Authorities::rotated(desk.path(), wall_time()).unwrap();
    assert_eq!(names(&desk), old, "what is not written down has not happened");
    next.begin(desk.path()).unwrap();
    let both: Vec<_> = next.believed().map(|authority| authority.facts().unwrap().name).collect();
    assert_eq!(names(&desk), both);
    assert!(next.believed().all(|authority| believes(authority.certificate_pem(), &desk.served())));
}

#[test]
fn wherever_a_retirement_is_cut_short_the_next_start_finishes_it() {
    type Step = fn(&Path, &Authorities);
    let steps: [Step; 4] = [
        |_, _| {},
        |folder, next| write_whole(&folder.join(KEY), next.signer.key_pem().as_bytes(), 0o600).unwrap(),
        |folder, next| write_whole(&folder.join(CERTIFICATE), next.signer.certificate_pem().as_bytes(), 0o644).unwrap(),
        |folder, _| fs::remove_file(folder.join(RETIRED)).unwrap(),
    ];
    for done in 1..=steps.len() {
        let desk = Desk::rotated();
        let next = Authorities::retired(desk.path()).unwrap();
        Authorities::end(desk.path()).unwrap();
        steps.iter().take(done).for_each(|step| step(desk.path(), &next));
        assert_eq!(Authorities::load(desk.path()).unwrap().pins(), next.pins(), "after step {done}, read by somebody else");
        assert_eq!(desk.open().current().pins(), next.pins(), "after step {done}");
        assert!(!desk.path().join(RETIRED).exists());
        assert!(believes(next.signer.certificate_pem(), &desk.served()));
        assert_eq!(certificates(&desk.served().certificate_pem).len(), 2);
    }
}

#[test]
fn what_a_retirement_could_not_finish_is_not_in_the_way_of_the_next_rotation() {
    let desk = Desk::rotated();
    let issuance = desk.open();
    Authorities::end(desk.path()).unwrap();
    let next = issuance.rotate().unwrap();
    assert_eq!(desk.open().current().pins(), next.pins());
    assert_eq!(next.pins().len(), 2);
}

#[test]
fn the_file_of_a_rotation_is_its_owners_alone_and_damage_is_not_taken_for_none() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::rotated();
    let path = desk.path().join(ROTATION);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    for damaged in ["", "hello", &text[..text.len() / 2], &format!("{text}{text}")] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(Authorities::load(desk.path()).unwrap_err().code, Code(1004), "{damaged:?}");
    }
}

#[test]
fn a_rotation_is_one_at_a_time_and_there_is_nothing_to_retire_without_one() {
    let desk = Desk::new();
    assert_eq!(desk.open().retire().unwrap_err().code, Code(1033));
    desk.open().rotate().unwrap();
    let before = desk.open().current().pins();
    assert_eq!(desk.open().rotate().unwrap_err().code, Code(1033));
    assert_eq!(desk.open().current().pins(), before);
}

#[test]
fn an_authority_that_was_brought_is_not_rotated_here() {
    let folder = tempfile::tempdir().unwrap();
    let mut wish = rcgen::CertificateParams::default();
    wish.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = wish.self_signed(&key).unwrap().pem();
    Authority::read(pem, &key.serialize_pem()).unwrap().keep(folder.path()).unwrap();
    let refused = Issuance::open(folder.path(), LIFE).unwrap().rotate().unwrap_err();
    assert_eq!(refused.code, Code(1032));
    assert!(refused.help.as_ref().unwrap().contains("--authority-cert"));
    assert!(!folder.path().join(ROTATION).exists());
}
