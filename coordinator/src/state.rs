//! The state folder: everything a coordinator has, in one place that one coordinator holds.

use baton_core::problem::{Code, Problem};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// What opening a store writes at most, before anything is stored: its shape, its log and the index of that.
const ROOM: usize = 512 << 10;

/// A state folder, locked for as long as this value lives.
///
/// The lock belongs to the open file, so it ends with the process however that ends: there is no stale lock to clean up.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    /// Makes the folder where it is missing, readable by its owner only, and locks it.
    ///
    /// # Errors
    /// B1003 when another coordinator holds it, B1001 when it cannot be made or written.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let unusable = |error: io::Error| unusable(path, &error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let at = path.join("lock");
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(at).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // Root's programs work for the service's user, who must be able to take the lock afterwards.
        if let (Ok(own), Ok(folder)) = (lock.metadata(), fs::metadata(path))
            && own.uid() != folder.uid()
        {
            let _ = fchown(&lock, Some(folder.uid()), Some(folder.gid()));
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(unusable)?;
        lock.write_all(std::process::id().to_string().as_bytes()).map_err(unusable)?;
        has_room(path).map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store.sqlite")
    }

    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.path.join("identity")
    }

    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }
}

/// Whether as much can be written as opening the store takes. A disk that is full is said here, in a word; the store itself
/// would try for a while.
fn has_room(folder: &Path) -> io::Result<()> {
    let mut trial = tempfile::tempfile_in(folder)?;
    trial.write_all(&[0; ROOM])?;
    trial.sync_all()
}

/// Writes a file so that it is there whole or not at all, also after a loss of power.
///
/// # Errors
/// Those of the file system; the file is as it was before then.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut temporary =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)).tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    sync_folder(folder)
}

/// Makes what was renamed into a folder survive a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder only its owner can read.
pub(crate) fn private_folder(path: &Path) -> Result<(), Problem> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| unusable(path, &error))
}

pub(crate) fn read_text(path: &Path) -> Result<String, Problem> {
    fs::read_to_string(path).map_err(|error| unusable(path, &error))
}

/// The problem of a path in the state folder that cannot be read or written.
pub(crate) fn unusable(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Code(1001), format!("the coordinator's state cannot be read or written at {}", path.display()))
        .saw("file system", error.to_string())
        .help("run it as the owner of the state folder, with room on its disk")
}

fn held(path: &Path, lock: &mut File) -> Problem {
    let mut holder = String::new();
    let seen = match lock.take(32).read_to_string(&mut holder) {
        Ok(_) if !holder.is_empty() => format!("process {holder} holds it"),
        _ => "another process holds it".to_owned(),
    };
    Problem::new(Code(1003), format!("another coordinator runs from {}", path.display()))
        .saw("lock", seen)
        .help("stop the other one first, or give this one a state folder of its own (`state` in coordinator.toml)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_coordinator_is_refused_and_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateFolder::open(folder.path()).unwrap();
        let refused = StateFolder::open(folder.path()).unwrap_err();
        assert_eq!(refused.code, Code(1003));
        assert!(refused.seen[0].1.contains(&std::process::id().to_string()), "{refused:?}");
        drop(first);
        StateFolder::open(folder.path()).unwrap();
    }

    #[test]
    fn only_its_owner_can_read_the_folder() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let _state = StateFolder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
