use super::*;
use std::fs::{File, FileTimes};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

fn archive() -> Vec<u8> {
    Forge::default().program("bin/shop", b"#!/bin/sh\n").file("etc/shop", b"green").symlink("current", "bin/shop").done()
}

fn touch(path: &Path) {
    let other = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::options().append(true).open(path).unwrap().set_times(FileTimes::new().set_modified(other)).unwrap();
}

#[tokio::test]
async fn every_damage_to_an_unpacked_release_is_seen_and_placing_it_again_mends_it() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 8] = [
        (|path| fs::remove_file(path.join("bin/shop")).unwrap(), "bin/shop is missing"),
        (|path| fs::remove_dir_all(path.join("etc")).unwrap(), "etc/shop is missing"),
        (|path| fs::write(path.join("etc/shop"), "").unwrap(), "etc/shop has 0 bytes instead of 5"),
        (|path| fs::write(path.join("etc/shop"), "groan").unwrap(), "etc/shop has other content"),
        (
            |path| fs::set_permissions(path.join("bin/shop"), fs::Permissions::from_mode(0o644)).unwrap(),
            "bin/shop has the mode 0644",
        ),
        (|path| fs::remove_file(path.join("current")).unwrap(), "current is missing"),
        (
            |path| {
                fs::remove_file(path.join("current")).unwrap();
                symlink("etc/shop", path.join("current")).unwrap();
            },
            "current leads elsewhere",
        ),
        (|path| fs::remove_dir_all(path).unwrap(), "bin/shop is missing"),
    ];
    let store = store();
    let path = store.place(&archive()).await.unwrap();
    let digest = Digest::of(&archive());
    for (damage, told) in damages {
        assert_eq!(store.folder.damage(&digest), None, "before: {told}");
        damage(&path);
        assert_eq!(store.folder.damage(&digest).as_deref(), Some(told));
        store.place(&archive()).await.unwrap();
    }
    assert_eq!(fs::read_to_string(path.join("etc/shop")).unwrap(), "green");
}

#[tokio::test]
async fn a_release_with_other_times_or_something_beside_it_or_without_a_seal_is_as_it_was() {
    let store = store();
    let path = store.place(&archive()).await.unwrap();
    let digest = Digest::of(&archive());
    touch(&path.join("etc/shop"));
    fs::write(path.join("bin/shop.pyc"), "cached").unwrap();
    assert_eq!(store.folder.damage(&digest), None);
    fs::remove_dir_all(store.root.path().join("releases/.seals")).unwrap();
    fs::write(path.join("etc/shop"), "").unwrap();
    assert_eq!(store.folder.damage(&digest), None, "an earlier agent sealed nothing");
}

#[tokio::test]
async fn what_runs_from_a_damaged_release_keeps_its_files_until_the_release_is_not_wanted_any_more() {
    let store = store();
    let path = store.place(&archive()).await.unwrap();
    let digest = Digest::of(&archive());
    let inside = File::open(&path).unwrap();
    fs::write(path.join("etc/shop"), "").unwrap();
    store.place(&archive()).await.unwrap();
    let kept = format!("/proc/self/fd/{}/bin/shop", std::os::fd::AsRawFd::as_raw_fd(&inside));
    assert!(fs::exists(&kept).unwrap(), "what was started from there still finds its files");
    store.folder.collect([digest].into()).await.unwrap();
    assert!(fs::exists(&kept).unwrap());
    store.folder.collect([].into()).await.unwrap();
    assert!(!fs::exists(&kept).unwrap());
    assert!(!fs::exists(store.root.path().join(format!("releases/.seals/{digest}"))).unwrap(), "its seal goes with it");
}

#[tokio::test]
async fn folders_that_somebody_removed_are_made_again() {
    let store = store();
    for name in [".incoming", ".seals"] {
        fs::remove_dir_all(store.root.path().join("releases").join(name)).unwrap();
    }
    store.place(&archive()).await.unwrap();
    assert_eq!(store.folder.damage(&Digest::of(&archive())), None);
}
