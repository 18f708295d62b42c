//! Credentials on disk.

use super::{Authority, Wish};
use crate::identity::{Identity, Role};
use crate::tls::{Credentials, TlsError};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn credentials_are_read_back_as_they_were_saved_and_the_key_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("identity");
    let authority = Authority::new();
    for identity in ["host/web1", "host/web2"] {
        let credentials = authority.sign(identity);
        credentials.save(&folder).unwrap();
        assert_eq!(Credentials::load(&folder).unwrap(), credentials);
    }
    assert_eq!(fs::metadata(folder.join("key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["authority.pem", "certificate.pem", "key.pem"], "nothing else is left");
}

/// Power may go after any of the steps of a save: each leaves a pair that fits, the old one or the new one.
#[test]
fn a_save_that_is_cut_short_anywhere_leaves_usable_credentials() {
    let authority = Authority::new();
    let (old, new) = (authority.sign("host/old"), authority.sign("host/new"));
    let staged =
        [("authority.pem", &new.authority_pem), ("key.pem", &new.key_pem), ("certificate.pem", &new.certificate_pem)];
    for cut in 0..=6 {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        old.save(folder.path()).unwrap();
        for (name, text) in staged.iter().take(cut) {
            fs::write(at(&format!("{name}.next")), text).unwrap();
        }
        for (name, _) in staged.iter().take(cut.saturating_sub(3)) {
            fs::rename(at(&format!("{name}.next")), at(name)).unwrap();
        }
        let loaded = Credentials::load(folder.path()).unwrap();
        assert_eq!(loaded, if cut < 5 { old.clone() } else { new.clone() }, "cut after step {cut}");
        assert_eq!(Credentials::load(folder.path()).unwrap(), loaded, "and stays so");
        // The next save fails before it has staged a certificate: the one that waits is not thrown away by it.
        if cut == 5 {
            fs::create_dir(at("key.pem.next")).unwrap();
            old.save(folder.path()).unwrap_err();
            assert_eq!(Credentials::load(folder.path()).unwrap(), loaded, "also where the next save fails");
            fs::remove_dir(at("key.pem.next")).unwrap();
        }
        new.save(folder.path()).unwrap();
        assert_eq!(Credentials::load(folder.path()).unwrap(), new);
    }
}

#[test]
fn credentials_can_be_read_while_they_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let renewals: Vec<_> = (0..20).map(|_| authority.sign("host/web1")).collect();
    renewals[0].save(folder.path()).unwrap();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| renewals.iter().cycle().take(200).try_for_each(|renewed| renewed.save(folder.path())));
        while !saving.is_finished() {
            assert!(renewals.contains(&Credentials::load(folder.path()).unwrap()));
        }
        saving.join().unwrap().unwrap();
    });
}

#[test]
fn whether_credentials_can_be_kept_is_tried_and_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("a/b");
    Credentials::can_be_kept(&missing).unwrap();
    assert_eq!(fs::read_dir(&missing).unwrap().count(), 0);
    let credentials = Authority::new().sign("host/web1");
    credentials.save(&missing).unwrap();
    Credentials::can_be_kept(&missing).unwrap();
    assert_eq!(Credentials::load(&missing).unwrap(), credentials);
    // Root writes everywhere, but not into what is no folder.
    let error = Credentials::can_be_kept(&missing.join("key.pem")).unwrap_err();
    assert!(matches!(&error, TlsError::File { path, .. } if path.ends_with("key.pem")), "{error}");
}

#[test]
fn a_missing_or_foreign_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let credentials = authority.sign("host/web1");
    let missing = Credentials::load(folder.path()).unwrap_err();
    assert!(matches!(&missing, TlsError::File { path, .. } if path.ends_with("certificate.pem")), "{missing}");
    credentials.save(folder.path()).unwrap();
    fs::write(folder.path().join("key.pem"), authority.sign("host/web2").key_pem).unwrap();
    assert!(matches!(Credentials::load(folder.path()), Err(TlsError::Tls(_))));
    fs::write(folder.path().join("key.pem"), "nothing").unwrap();
    let error = Credentials::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
}

#[test]
fn credentials_say_whose_they_are_and_until_when_but_not_their_key() {
    let authority = Authority::new();
    let credentials = authority.grant(&Wish { serial: vec![0, 0, 1], ..Wish::of("deployer/dora") });
    let subject = credentials.subject().unwrap();
    assert_eq!(subject.identity, Identity::Operator { role: Role::Deployer, name: "dora".parse().unwrap() });
    assert_eq!(subject.serial, "01");
    assert_eq!(subject.not_after - subject.not_before, 2 * 24 * 3600);
    let shown = format!("{credentials:?}");
    assert!(shown.contains("dora") && !shown.contains("PRIVATE"), "{shown}");
}
