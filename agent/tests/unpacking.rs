//! The shipped agent's own child: unpacks what it is asked to, confined, and answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use baton_agent::artifact::{Bounds, Folder, Placing, Unpacker};
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Store {
    root: TempDir,
    folder: Folder,
}

fn store(bounds: Bounds, words: &[&str]) -> Store {
    let root = tempfile::tempdir().unwrap();
    let words = words.iter().map(|&word| word.to_owned()).collect();
    let folder = Folder::open(&root.path().join("releases"), bounds, Unpacker::Child(words)).unwrap();
    Store { root, folder }
}

fn agent(bounds: Bounds) -> Store {
    store(bounds, &[env!("CARGO_BIN_EXE_baton-agent"), "unpack"])
}

impl Store {
    async fn place(&self, archive: &[u8]) -> Result<PathBuf, Problem> {
        let digest = Digest::of(archive);
        fs::write(self.folder.gathering(&digest), archive).unwrap();
        self.folder.place(digest).await.map(|()| self.folder.path(&digest))
    }

    fn is_empty(&self) -> bool {
        let names =
            |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>();
        let releases = self.root.path().join("releases");
        let own = [".incoming", ".seals"];
        names(&releases) == own.map(OsString::from).into() && own.iter().all(|name| names(&releases.join(name)).is_empty())
    }
}

/// An archive of these files, and a hard link from one folder to another.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap()
}

#[tokio::test]
async fn a_good_archive_is_there_whole() {
    let store = agent(Bounds::default());
    let path = store.place(&archive(&[("bin/shop", b"#!/bin/sh\n"), ("etc/shop/colour", b"green")])).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("etc/shop/colour")).unwrap(), "green");
    assert_eq!(fs::metadata(path.join("bin/shop")).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn links_between_folders_are_made() {
    let store = agent(Bounds::default());
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/shop", b"ok".as_slice()).unwrap();
    for (kind, path, target) in
        [(tar::EntryType::Link, "lib/twin", "bin/shop"), (tar::EntryType::Symlink, "lib/name", "../bin/shop")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o755);
        tar.append_link(&mut header, path, target).unwrap();
    }
    let archive = zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap();
    let path = store.place(&archive).await.unwrap();
    assert_eq!(["lib/twin", "lib/name"].map(|name| fs::read_to_string(path.join(name)).unwrap()), ["ok", "ok"]);
}

#[tokio::test]
async fn what_the_child_refuses_is_said_with_its_reason_and_nothing_is_left() {
    let store = agent(Bounds::default());
    let problem = store.place(&archive(&[("../../outside", b"x")])).await.unwrap_err();
    assert_eq!(problem.code, Code(610), "{problem:?}");
    assert!(problem.what.contains("leads outside") && problem.help.is_some(), "{problem:?}");
    assert_eq!(store.place(b"no archive at all").await.unwrap_err().code, Code(610));
    assert!(store.is_empty());
}

#[tokio::test]
async fn bounds_reach_the_child() {
    let store = agent(Bounds { total: 10, ..Bounds::default() });
    let problem = store.place(&archive(&[("big", &[7; 11])])).await.unwrap_err();
    assert_eq!(problem.code, Code(610), "{problem:?}");
    assert!(store.is_empty());
}

#[tokio::test]
async fn a_child_that_dies_or_talks_nonsense_leaves_nothing() {
    let good = archive(&[("good", b"good")]);
    for script in ["kill -9 $$", "echo hello", "exit 0", "head -c 1 > /dev/null; echo null; exit 1"] {
        let store = store(Bounds::default(), &["/bin/sh", "-c", script]);
        let problem = store.place(&good).await.unwrap_err();
        assert_eq!(problem.code, Code(604), "{script}: {problem:?}");
        assert!(store.is_empty(), "{script}");
    }
    let limited = store(Bounds::default(), &["/bin/sh", "-c", "kill -XCPU $$"]);
    assert_eq!(limited.place(&good).await.unwrap_err().code, Code(610));
    let absent = store(Bounds::default(), &["/none/baton-agent", "unpack"]);
    assert_eq!(absent.place(&good).await.unwrap_err().code, Code(604));
    assert!(absent.is_empty());
}

#[tokio::test]
async fn a_fetch_that_is_given_up_takes_its_child_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pid");
    let store =
        store(Bounds::default(), &["/bin/sh", "-c", "echo $$ > \"$0\"; exec sleep 600", &note.display().to_string()]);
    let archive = archive(&[("good", b"good")]);
    let noted = async {
        loop {
            match fs::read_to_string(&note) {
                Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let pid = tokio::select! {
        placed = store.place(&archive) => panic!("{placed:?}"),
        pid = noted => pid,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sleep")) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") {
            break;
        }
        assert!(Instant::now() < deadline, "it lives on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What it began is taken away by whoever places next, or collects.
    store.folder.collect(std::collections::BTreeSet::new()).await.unwrap();
    assert!(store.is_empty());
}
