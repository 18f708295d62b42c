//! Archives good and malicious, and streams that break.

mod confined;
mod fetching;
mod forge;
mod malicious;
mod placing;
mod sealing;

use super::{Bounds, Folder, Placing, Unpacker};
use baton_core::name::Digest;
use baton_core::problem::Problem;
use forge::Forge;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A place for artifacts, with bounds small enough to be reached.
struct Store {
    root: TempDir,
    folder: Folder,
}

fn bounds() -> Bounds {
    Bounds {
        entries: 50,
        depth: 4,
        path: 100,
        total: 1 << 20,
        ratio: 200,
        ratio_from: 256 << 10,
        header: 1 << 10,
        ..Bounds::default()
    }
}

fn store() -> Store {
    store_with(bounds())
}

fn store_with(bounds: Bounds) -> Store {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(&root.path().join("releases"), bounds, Unpacker::Thread).unwrap();
    Store { root, folder }
}

impl Store {
    /// Places an archive as if it had just been fetched.
    async fn place(&self, archive: &[u8]) -> Result<PathBuf, Problem> {
        let digest = Digest::of(archive);
        fs::write(self.folder.gathering(&digest), archive).unwrap();
        self.folder.place(digest).await.map(|()| self.folder.path(&digest))
    }

    /// Everything below the folder of releases, but not the folder itself, not the seals, and not what is incoming while that is
    /// empty.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        list(&self.root.path().join("releases"), "", &mut names);
        names.retain(|name| name != ".incoming" && !name.starts_with(".seals"));
        names
    }
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        names.push(name.clone());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &format!("{name}/"), names);
        }
    }
}
