use super::*;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use tar::EntryType;

#[tokio::test]
async fn a_good_archive_is_there_whole() {
    let store = store();
    let archive = Forge::default()
        .global("comment", "2c1f")
        .folder("./")
        .program("./bin/shop", b"#!/bin/sh\n")
        .folder("./bin/")
        .pax(&[("path", "etc/gr\u{fc}n".as_bytes()), ("mtime", b"1.5"), ("SCHILY.xattr.user.note", b"x")])
        .file("etc/gruen", b"green")
        .symlink("current", "bin/shop")
        .symlink("etc/shop", "../bin/shop")
        .link(EntryType::Link, "bin/twin", "bin/shop")
        .done();
    let path = store.place(&archive).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("etc/gr\u{fc}n")).unwrap(), "green");
    for name in ["bin/shop", "bin/twin", "current", "etc/shop"] {
        assert_eq!(fs::read_to_string(path.join(name)).unwrap(), "#!/bin/sh\n");
    }
    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin/shop"), mode("etc/gr\u{fc}n"), mode("bin"), mode("")), (0o755, 0o644, 0o755, 0o755));
    assert_eq!(store.folder.held(), BTreeSet::from([Digest::of(&archive)]));
}

#[tokio::test]
async fn what_tar_makes_is_taken() {
    let store = store();
    let source = tempfile::tempdir().unwrap();
    fs::create_dir_all(source.path().join("bin")).unwrap();
    fs::write(source.path().join("bin/shop"), "program").unwrap();
    fs::write(source.path().join("x".repeat(90)), "long name").unwrap();
    std::os::unix::fs::symlink("bin/shop", source.path().join("run")).unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let made = Command::new("tar")
            .args(["--create", "--format", format, "--file", "-", "--directory"])
            .arg(source.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(made.status.success());
        let path = store.place(&forge::compress(&made.stdout)).await.unwrap();
        assert_eq!(fs::read_to_string(path.join("run")).unwrap(), "program", "{format}");
    }
}

#[tokio::test]
async fn what_is_not_wanted_goes_and_what_is_stays() {
    let store = store();
    let (first, second) = (Forge::default().file("a", b"1").done(), Forge::default().file("a", b"2").done());
    store.place(&first).await.unwrap();
    store.place(&second).await.unwrap();
    let half = Digest::of(b"half fetched");
    fs::write(store.folder.gathering(&half), "half").unwrap();
    store.folder.collect(BTreeSet::from([Digest::of(&first), half])).await.unwrap();
    assert_eq!(store.folder.held(), BTreeSet::from([Digest::of(&first)]));
    assert!(store.folder.gathering(&half).exists(), "a wanted part stays to be gone on from");
    store.folder.collect(BTreeSet::new()).await.unwrap();
    assert_eq!(store.names(), Vec::<String>::new());
}

/// A file system of its own with very little room; none where this test may not mount.
struct TinyDisk(TempDir);

impl TinyDisk {
    fn mounted(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let Some(disk) = TinyDisk::mounted("256k") else {
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: this test needs to mount a small tmpfs");
        }
        return;
    };
    let folder = Folder::open(&disk.0.path().join("releases"), Bounds::default(), Unpacker::Thread).unwrap();
    let seen = |problem: &Problem, label: &str| {
        let found = problem.seen.iter().find(|(seen, _)| seen == label);
        found.map(|(_, what)| what.clone()).unwrap_or_else(|| panic!("no {label}: {problem:?}"))
    };
    let forged = || Forge::default().file("small", b"x").file("big", &vec![0; 1 << 20]);
    let (streamed, sized) = (forged().done(), forge::compress_sized(&forged().ended()));
    for (archive, needed) in [(streamed, 1_048_577), (sized, 1_051_136)] {
        let digest = Digest::of(&archive);
        fs::write(folder.gathering(&digest), &archive).unwrap();
        let problem = folder.place(digest).await.unwrap_err();
        assert_eq!(problem.code, Code(604), "{problem:?}");
        assert_eq!(problem.what, "no space is left for unpacking the artifact");
        assert_eq!(seen(&problem, "needed"), crate::text::bytes(needed));
        // Of what was there before it began, which is not what its last byte left.
        assert!(seen(&problem, "free").starts_with("25"), "{problem:?}");
        let mut names = Vec::new();
        list(&disk.0.path().join("releases"), "", &mut names);
        assert_eq!(names, [".incoming", ".seals"]);
    }
}

/// The packaged unit has `UMask=0077`, and a release runs as another user.
#[test]
fn a_release_can_be_read_by_its_user_whatever_the_agents_umask_is() {
    let test = "artifact::tests::placing::a_good_archive_is_there_whole";
    let again = Command::new("/bin/sh")
        .args(["-c", "umask 077; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(again.status.success() && said.contains("1 passed"), "{said}");
}
