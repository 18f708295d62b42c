//! How much the releases of this host take: files are counted once, for an artifact that is there does not change.

use baton_core::name::Digest;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The folder of releases, and what was counted of it.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    known: Mutex<BTreeMap<Digest, u64>>,
}

impl Store {
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, known: Mutex::default() }
    }

    /// The bytes of all files, those half done among them. Reads the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *known);
        let mut all = 0;
        for entry in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let digest = entry.file_name().to_str().and_then(|name| name.parse::<Digest>().ok());
            let counted = digest.and_then(|digest| before.get(&digest).copied());
            let bytes = counted.unwrap_or_else(|| tree_bytes(&entry.path()));
            all += bytes;
            known.extend(digest.map(|digest| (digest, bytes)));
        }
        all
    }
}

/// The bytes of the files below a path. Links are not followed; what vanishes meanwhile is nothing.
fn tree_bytes(path: &Path) -> u64 {
    let mut all = 0;
    let mut paths = vec![path.to_path_buf()];
    while let Some(path) = paths.pop() {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                paths.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            Ok(metadata) => all += metadata.len(),
            Err(_) => {}
        }
    }
    all
}
