//! Artifacts as folders: `releases/DIGEST` is whole, everything half done lies beside in `releases/.incoming`, and what each
//! was when it was unpacked in `releases/.seals`.

use super::bounds::Bounds;
use super::child::unpack_in_child;
use super::seal::Seal;
use super::unpack::unpack;
use super::{Placing, disk};
use crate::durable::{self, sync_folder};
use crate::runtime::Answer;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder of artifacts.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    bounds: Bounds,
    unpacker: Unpacker,
}

/// Who unpacks.
#[derive(Debug, Clone)]
pub enum Unpacker {
    /// A process of its own, which may do nothing else; the words start one that calls [`super::unpack_as_asked`].
    Child(Vec<String>),
    /// A thread of this process: where there is no program to start, as in a test.
    Thread,
}

/// On the same file system as the artifacts, or the last rename would be none.
const INCOMING: &str = ".incoming";

const SEALS: &str = ".seals";

impl Folder {
    /// Uses a folder, which is made when it is not there.
    ///
    /// # Errors
    /// B0604: the disk.
    pub fn open(root: &Path, bounds: Bounds, unpacker: Unpacker) -> Result<Self, Problem> {
        make(root).map_err(|error| disk(root, "making the folder of releases", &error))?;
        Ok(Self { root: root.to_owned(), bounds, unpacker })
    }

    fn incoming(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.root.join(INCOMING).join(format!("{digest}.{extension}"))
    }

    async fn unpack(&self, archive: PathBuf, tree: PathBuf) -> Result<(), Problem> {
        let root = self.root.clone();
        let made = tree.clone();
        on_a_thread(move || {
            let fresh = remove_tree(&made).and_then(|()| fs::create_dir(&made));
            fresh.map_err(|error| disk(&root, "unpacking the artifact", &error))
        })
        .await?;
        let bounds = self.bounds;
        match &self.unpacker {
            Unpacker::Child(words) => unpack_in_child(words, &archive, &tree, &bounds).await,
            Unpacker::Thread => on_a_thread(move || unpack(&archive, &tree, &bounds)).await,
        }
    }

    fn finish(
        root: &Path,
        archive: &Path,
        tree: &Path,
        target: &Path,
        unpacked: Result<(), Problem>,
    ) -> Result<(), Problem> {
        let placed =
            unpacked.and_then(|()| replace(tree, target).map_err(|error| disk(root, "placing the artifact", &error)));
        // Whatever became of it, nothing half done stays.
        let _ = remove_tree(tree);
        let _ = fs::remove_file(archive);
        placed
    }

    fn seal(&self, digest: &Digest) -> PathBuf {
        self.root.join(SEALS).join(digest.to_string())
    }

    fn collect_now(root: &Path, keep: &BTreeSet<Digest>) -> io::Result<()> {
        for entry in fs::read_dir(root)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match name.parse::<Digest>() {
                Ok(digest) if !keep.contains(&digest) => {
                    // Gone by one rename, like it came: half an artifact is never seen.
                    let doomed = root.join(INCOMING).join(format!("{name}.old"));
                    remove_tree(&doomed)?;
                    fs::rename(entry.path(), &doomed)?;
                    remove_tree(&doomed)?;
                }
                _ => {}
            }
        }
        let beside = [INCOMING, SEALS].into_iter().filter_map(|folder| fs::read_dir(root.join(folder)).ok());
        for entry in beside.flatten().flatten() {
            let path = entry.path();
            let digest = path.file_stem().and_then(|stem| stem.to_str()?.parse::<Digest>().ok());
            if !digest.is_some_and(|digest| keep.contains(&digest)) {
                remove_tree(&path)?;
            }
        }
        Ok(())
    }
}

impl Placing for Folder {
    fn held(&self) -> BTreeSet<Digest> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.to_string())
    }

    fn gathering(&self, digest: &Digest) -> PathBuf {
        // Whoever gathers finds out what is wrong with the disk.
        let _ = make(&self.root);
        self.incoming(digest, "part")
    }

    fn damage(&self, digest: &Digest) -> Option<String> {
        // One that an earlier agent unpacked has no seal, and is believed.
        let seal: Seal = serde_json::from_slice(&fs::read(self.seal(digest)).ok()?).ok()?;
        seal.broken(&self.path(digest))
    }

    fn place(&self, digest: Digest) -> Answer<'_, Result<(), Problem>> {
        let (archive, tree) = (self.gathering(&digest), self.incoming(&digest, "tree"));
        let (root, target) = (self.root.clone(), self.path(&digest));
        Box::pin(async move {
            let unpacked = self.unpack(archive.clone(), tree.clone()).await;
            let seal = self.seal(&digest);
            on_a_thread(move || {
                let sealed = unpacked
                    .and_then(|()| seal_tree(&tree, &seal).map_err(|error| disk(&root, "sealing the artifact", &error)));
                Self::finish(&root, &archive, &tree, &target, sealed)
            })
            .await
        })
    }

    fn discard(&self, digest: &Digest) {
        let _ = fs::remove_file(self.gathering(digest));
        let _ = remove_tree(&self.incoming(digest, "tree"));
    }

    fn collect(&self, keep: BTreeSet<Digest>) -> Answer<'_, io::Result<()>> {
        let root = self.root.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || Self::collect_now(&root, &keep))
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error)))
        })
    }
}

/// The folders, as open as they may be: somebody may have removed one.
fn make(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join(INCOMING))?;
    fs::create_dir_all(root.join(SEALS))?;
    // Whoever runs a release walks through here; what is not verified yet is nobody's business.
    fs::set_permissions(root, Permissions::from_mode(0o711))?;
    fs::set_permissions(root.join(INCOMING), Permissions::from_mode(0o700))?;
    fs::set_permissions(root.join(SEALS), Permissions::from_mode(0o700))
}

/// Written before the tree is where it belongs: a tree that is there has its seal.
fn seal_tree(tree: &Path, seal: &Path) -> io::Result<()> {
    let text = serde_json::to_vec(&Seal::of(tree)?).map_err(io::Error::other)?;
    durable::replace(seal, &text)
}

/// Puts a tree where it belongs. What was there, damaged, lies aside until nothing can run from it any more.
fn replace(tree: &Path, target: &Path) -> io::Result<()> {
    if target.exists() {
        let aside = tree.with_extension("old");
        remove_tree(&aside)?;
        rustix::fs::renameat_with(rustix::fs::CWD, tree, rustix::fs::CWD, target, rustix::fs::RenameFlags::EXCHANGE)?;
        fs::rename(tree, aside)?;
    } else {
        fs::rename(tree, target)?;
    }
    sync_folder(target)
}

async fn on_a_thread(work: impl FnOnce() -> Result<(), Problem> + Send + 'static) -> Result<(), Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Problem::new(Code(604), format!("unpacking the artifact ended unexpectedly: {error}"))))
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
