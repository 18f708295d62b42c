//! What an artifact was when it was unpacked, so that what became of it on this host is noticed before it is started again.

use baton_core::name::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Every file and link of a tree. What lies there besides is not looked at: a program may leave a cache beside its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    File { size: u64, executable: bool, modified: (i64, i64), digest: Digest },
    Link { target: String },
}

impl Seal {
    /// Seals a tree that was just unpacked.
    pub(super) fn of(tree: &Path) -> io::Result<Self> {
        let mut entries = BTreeMap::new();
        read(tree, "", &mut entries)?;
        Ok(Self { entries })
    }

    /// The first thing about a tree that is not as it was sealed.
    ///
    /// A file with its size and its time of change is believed; with its size and another time it is read.
    pub(super) fn broken(&self, tree: &Path) -> Option<String> {
        self.entries.iter().find_map(|(name, entry)| entry.broken(&tree.join(name)).map(|how| format!("{name} {how}")))
    }
}

impl Entry {
    fn broken(&self, path: &Path) -> Option<String> {
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some("is missing".to_owned()),
            Err(error) => return Some(format!("cannot be read: {}", crate::text::io_error(&error))),
        };
        match self {
            Self::Link { target } => match fs::read_link(path) {
                Ok(leads) if leads.to_str() == Some(target) => None,
                _ => Some("leads elsewhere".to_owned()),
            },
            Self::File { .. } if !found.is_file() => Some("is no file any more".to_owned()),
            Self::File { size, .. } if found.len() != *size => Some(format!("has {} bytes instead of {size}", found.len())),
            Self::File { executable, .. } if is_executable(&found) != *executable => {
                Some(format!("has the mode {:04o}", found.permissions().mode() & 0o7777))
            }
            Self::File { modified, .. } if *modified == modified_of(&found) => None,
            Self::File { digest, .. } => match digest_of(path) {
                Ok(now) if now == *digest => None,
                Ok(_) => Some("has other content".to_owned()),
                Err(error) => Some(format!("cannot be read: {}", crate::text::io_error(&error))),
            },
        }
    }
}

fn read(folder: &Path, prefix: &str, entries: &mut BTreeMap<String, Entry>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, found) = (entry.path(), entry.metadata()?);
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if found.is_dir() {
            read(&path, &format!("{name}/"), entries)?;
        } else if found.is_symlink() {
            entries.insert(name, Entry::Link { target: fs::read_link(&path)?.to_string_lossy().into_owned() });
        } else {
            let digest = digest_of(&path)?;
            let (size, executable, modified) = (found.len(), is_executable(&found), modified_of(&found));
            entries.insert(name, Entry::File { size, executable, modified, digest });
        }
    }
    Ok(())
}

fn is_executable(found: &Metadata) -> bool {
    found.permissions().mode() & 0o100 != 0
}

fn modified_of(found: &Metadata) -> (i64, i64) {
    (found.mtime(), found.mtime_nsec())
}

fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(File::open(path)?)?;
    Ok(Digest::from_bytes(*hash.finalize().as_bytes()))
}
