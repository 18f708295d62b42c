//! Artifacts by digest: a folder in which a file's name is the promise of its content.
//!
//! Bytes arrive in `partial/DIGEST` and can go on there after any interruption. Once all are there they are read back, and
//! only when they are what the name says does one rename make them visible. So whatever has a name here is whole; there is
//! no register beside the folder that could disagree with it.

pub mod retention;
mod upload;

pub use upload::Upload;

use crate::state::{private_folder, sync_folder, unusable};
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Larger than any archive anybody should roll out; smaller than a mistake.
pub const ARTIFACT_MAX: u64 = 8 * 1024 * 1024 * 1024;

/// What uploads leave free: the store is on the same disk, and a coordinator that cannot write cannot take back a release.
const RESERVE: u64 = 32 * 1024 * 1024;

/// Uploads that were broken off and never gone on with are deleted after this.
const PARTIAL_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Uploads broken off that are kept at all.
const PARTIALS: usize = 16;

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// Digests that somebody uploads just now.
    busy: Arc<Mutex<BTreeSet<Digest>>>,
}

/// How much of an artifact is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub have: u64,
    /// Whole and verified.
    pub complete: bool,
}

impl Folder {
    /// Opens the folder and clears away what was broken off long ago.
    ///
    /// # Errors
    /// B1001 when it cannot be made or read.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let folder = Self { path: path.to_owned(), busy: Arc::default() };
        private_folder(&folder.partials())?;
        folder.clear_partials(PARTIAL_LIFE).map_err(|error| unusable(path, &error))?;
        Ok(folder)
    }

    /// How much of an artifact is here.
    ///
    /// # Errors
    /// B0607 when the folder cannot be read.
    pub fn stat(&self, digest: Digest) -> Result<Stat, Problem> {
        if let Some(have) = length(&self.whole(digest))? {
            return Ok(Stat { have, complete: true });
        }
        Ok(Stat { have: length(&self.partial(digest))?.unwrap_or(0), complete: false })
    }

    /// The same, once what is here as a whole was read and is what its name says; else it is forgotten, to be uploaded again.
    ///
    /// # Errors
    /// B0607 when it cannot be read.
    pub async fn verified(&self, digest: Digest) -> Result<Stat, Problem> {
        let folder = self.clone();
        let verified = tokio::task::spawn_blocking(move || {
            let stat = folder.stat(digest)?;
            if !stat.complete {
                return Ok(stat);
            }
            if upload::digest_of(&folder.whole(digest)).map_err(|error| failed(digest, &error))? == digest {
                folder.touch(digest).map_err(|error| failed(digest, &error))?;
                return Ok(stat);
            }
            tracing::error!(%digest, "a stored artifact is damaged: it is forgotten, and can be uploaded again");
            fs::remove_file(folder.whole(digest)).map_err(|error| failed(digest, &error))?;
            folder.stat(digest)
        });
        verified.await.map_err(|error| failed(digest, &io::Error::other(error)))?
    }

    /// Begins an upload, or goes on with one.
    ///
    /// # Errors
    /// B0602 when it is too large or begins where nothing ends, B0605 when somebody uploads it already, B0604 when it would
    /// not fit.
    pub async fn upload(&self, digest: Digest, size: u64, offset: u64) -> Result<Upload, Problem> {
        if size > ARTIFACT_MAX {
            let limit = format!("{ARTIFACT_MAX} bytes");
            return Err(problem(602, digest, "is too large").saw("size", format!("{size} bytes")).saw("limit", limit));
        }
        let claim = Claim::take(&self.busy, digest)?;
        let have = self.stat(digest)?.have;
        if offset > have || offset > size {
            return Err(problem(602, digest, "cannot go on there")
                .saw("offset", offset.to_string())
                .saw("have", have.to_string())
                .help("ask how much is here, and go on from that"));
        }
        self.check_room(digest, size - offset)?;
        self.clear_partials(PARTIAL_LIFE).map_err(|error| failed(digest, &error))?;
        Upload::open(claim, self.partial(digest), self.whole(digest), size, offset).await
    }

    /// Opens an artifact to be read.
    ///
    /// # Errors
    /// B0601 when it is not here as a whole.
    pub async fn open_whole(&self, digest: Digest) -> Result<(tokio::fs::File, u64), Problem> {
        let file = match tokio::fs::File::open(self.whole(digest)).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing(digest)),
            Err(error) => return Err(failed(digest, &error)),
        };
        let size = file.metadata().await.map_err(|error| failed(digest, &error))?.len();
        Ok((file, size))
    }

    /// Somebody asked for it: it is as good as new.
    fn touch(&self, digest: Digest) -> io::Result<()> {
        fs::File::options().append(true).open(self.whole(digest))?.set_modified(SystemTime::now())
    }

    /// Every whole artifact, and for how long nobody has asked for it.
    fn ages(&self, now: SystemTime) -> io::Result<BTreeMap<Digest, Duration>> {
        let mut ages = BTreeMap::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let modified = entry.metadata()?.modified()?;
            ages.insert(digest, now.duration_since(modified).unwrap_or_default());
        }
        Ok(ages)
    }

    fn forget(&self, digest: Digest) -> io::Result<()> {
        fs::remove_file(self.whole(digest))
    }

    /// That not even the smallest artifact can be taken, before somebody tries. What cannot be measured is no evidence.
    #[must_use]
    pub fn shortage(&self) -> Option<Problem> {
        self.free().ok().and_then(|free| short(free, &self.path))
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn check_room(&self, digest: Digest, more: u64) -> Result<(), Problem> {
        let free = self.free().map_err(|error| failed(digest, &error))?;
        if free < more.saturating_add(RESERVE) {
            return Err(problem(604, digest, "does not fit on the coordinator's disk")
                .saw("needed", format!("{}, and {} must stay free", megabytes(more), megabytes(RESERVE)))
                .saw("free", format!("{} in {}", megabytes(free), self.path.display()))
                .help("make room on the disk of the coordinator's state folder"));
        }
        Ok(())
    }

    /// Deletes the partial uploads that nobody goes on with: those that are old, and the oldest of too many.
    fn clear_partials(&self, life: Duration) -> io::Result<()> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut partials = Vec::new();
        for entry in fs::read_dir(self.partials())? {
            let entry = entry?;
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
            partials.push((age.unwrap_or_default(), entry.path()));
        }
        partials.sort();
        for (nth, (age, path)) in partials.into_iter().enumerate() {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let in_use = name.is_some_and(|digest: Digest| busy.contains(&digest));
            if !in_use && (age > life || nth >= PARTIALS) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn partials(&self) -> PathBuf {
        self.path.join("partial")
    }

    fn partial(&self, digest: Digest) -> PathBuf {
        self.partials().join(digest.to_string())
    }

    fn whole(&self, digest: Digest) -> PathBuf {
        self.path.join(digest.to_string())
    }
}

/// The right to upload one digest, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    busy: Arc<Mutex<BTreeSet<Digest>>>,
    digest: Digest,
}

impl Claim {
    fn take(busy: &Arc<Mutex<BTreeSet<Digest>>>, digest: Digest) -> Result<Self, Problem> {
        if !busy.lock().unwrap_or_else(PoisonError::into_inner).insert(digest) {
            return Err(problem(605, digest, "is being uploaded by somebody else").help("wait until that one is done"));
        }
        Ok(Self { busy: Arc::clone(busy), digest })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

/// The refusal for an artifact that nobody uploaded.
#[must_use]
pub fn missing(digest: Digest) -> Problem {
    problem(601, digest, "is not here").saw("asked for", digest.to_string()).help("baton deploy uploads it first")
}

fn problem(code: u16, digest: Digest, what: &str) -> Problem {
    Problem::new(Code(code), format!("artifact {} {what}", digest.short()))
}

fn failed(digest: Digest, error: &io::Error) -> Problem {
    let code = if error.kind() == ErrorKind::StorageFull { 604 } else { 607 };
    problem(code, digest, "cannot be kept on the coordinator's disk").saw("file system", error.to_string())
}

fn length(path: &Path) -> Result<Option<u64>, Problem> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Problem::new(Code(607), "the coordinator's artifacts cannot be read").saw("file system", error.to_string()))
        }
    }
}

/// `33.6 MB`: what is about a disk needs no more digits.
fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

fn short(free: u64, folder: &Path) -> Option<Problem> {
    if free >= RESERVE {
        return None;
    }
    let what =
        "the coordinator's disk is nearly full: it takes no more artifacts, and may soon be unable to decide anything";
    Some(
        Problem::new(Code(604), what)
            .saw("needed", format!("{} must stay free", megabytes(RESERVE)))
            .saw("free", format!("{} in {}", megabytes(free), folder.display()))
            .help("make room on the disk of the coordinator's state folder"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    const BYTES: &[u8] = b"an archive, more or less";

    fn folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("artifacts")).unwrap();
        (temporary, folder)
    }

    #[test]
    fn a_disk_that_takes_nothing_more_is_told_before_somebody_tries() {
        let (_temporary, folder) = folder();
        assert_eq!(short(RESERVE, &folder.path), None);
        let problem = short(RESERVE - 1, &folder.path).unwrap();
        assert_eq!((problem.code, problem.seen.len(), problem.help.is_some()), (Code(604), 2, true), "{problem}");
    }

    async fn upload(folder: &Folder, digest: Digest, bytes: &[u8]) -> Result<Stat, Problem> {
        let mut upload = folder.upload(digest, bytes.len() as u64, 0).await?;
        upload.write(0, bytes).await?;
        upload.finish().await
    }

    #[tokio::test]
    async fn what_was_uploaded_is_read_back() {
        let (_temporary, folder) = folder();
        let digest = Digest::of(BYTES);
        assert_eq!(folder.open_whole(digest).await.unwrap_err().code, Code(601));
        let stat = upload(&folder, digest, BYTES).await.unwrap();
        assert_eq!(stat, Stat { have: BYTES.len() as u64, complete: true });
        let (mut file, size) = folder.open_whole(digest).await.unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).await.unwrap();
        assert_eq!((read.as_slice(), size), (BYTES, BYTES.len() as u64));
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_it_was_broken_off() {
        let (temporary, folder) = folder();
        let (digest, size) = (Digest::of(BYTES), BYTES.len() as u64);
        let mut first = folder.upload(digest, size, 0).await.unwrap();
        first.write(0, &BYTES[..9]).await.unwrap();
        assert_eq!(first.finish().await.unwrap(), Stat { have: 9, complete: false });
        let folder = Folder::open(&temporary.path().join("artifacts")).unwrap();
        assert_eq!(folder.stat(digest).unwrap(), Stat { have: 9, complete: false });
        let mut second = folder.upload(digest, size, 9).await.unwrap();
        second.write(9, &BYTES[9..]).await.unwrap();
        assert!(second.finish().await.unwrap().complete);
    }

    #[tokio::test]
    async fn bytes_that_are_not_what_the_name_says_never_become_visible() {
        let (_temporary, folder) = folder();
        let digest = Digest::of(b"something else entirely!");
        let refused = upload(&folder, digest, BYTES).await.unwrap_err();
        assert_eq!(refused.code, Code(603));
        assert_eq!(folder.stat(digest).unwrap(), Stat { have: 0, complete: false });
        assert_eq!(folder.open_whole(digest).await.unwrap_err().code, Code(601));
    }

    #[tokio::test]
    async fn what_was_damaged_on_the_disk_is_forgotten_and_can_be_uploaded_again() {
        let (_temporary, folder) = folder();
        let digest = Digest::of(BYTES);
        let whole = upload(&folder, digest, BYTES).await.unwrap();
        assert_eq!(folder.verified(digest).await.unwrap(), whole);
        fs::write(folder.whole(digest), [0; BYTES.len()]).unwrap();
        assert_eq!(folder.verified(digest).await.unwrap(), Stat { have: 0, complete: false });
        assert_eq!(upload(&folder, digest, BYTES).await.unwrap(), whole);
    }

    #[tokio::test]
    async fn a_chunk_in_the_wrong_place_and_one_too_many_are_refused() {
        let (_temporary, folder) = folder();
        let digest = Digest::of(BYTES);
        assert_eq!(folder.upload(digest, 24, 5).await.unwrap_err().code, Code(602));
        let mut upload = folder.upload(digest, 4, 0).await.unwrap();
        assert_eq!(upload.write(1, b"a").await.unwrap_err().code, Code(602));
        assert_eq!(upload.write(0, b"12345").await.unwrap_err().code, Code(602));
    }

    #[tokio::test]
    async fn two_do_not_upload_the_same_at_once() {
        let (_temporary, folder) = folder();
        let digest = Digest::of(BYTES);
        let first = folder.upload(digest, 24, 0).await.unwrap();
        assert_eq!(folder.upload(digest, 24, 0).await.unwrap_err().code, Code(605));
        drop(first);
        folder.upload(digest, 24, 0).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_fit_is_refused_before_the_first_byte() {
        let (_temporary, folder) = folder();
        let digest = Digest::of(BYTES);
        assert_eq!(folder.upload(digest, ARTIFACT_MAX + 1, 0).await.unwrap_err().code, Code(602));
        let full = folder.check_room(digest, u64::MAX).unwrap_err();
        assert_eq!(full.code, Code(604));
        assert!(full.seen[0].1.ends_with("and 33.5 MB must stay free"), "{full:?}");
    }

    #[tokio::test]
    async fn uploads_broken_off_do_not_pile_up() {
        let (_temporary, folder) = folder();
        for number in 0..PARTIALS + 5 {
            let digest = Digest::of(number.to_string().as_bytes());
            let mut upload = folder.upload(digest, 10, 0).await.unwrap();
            upload.write(0, b"x").await.unwrap();
            upload.finish().await.unwrap();
        }
        folder.clear_partials(PARTIAL_LIFE).unwrap();
        assert_eq!(fs::read_dir(folder.partials()).unwrap().count(), PARTIALS);
        folder.clear_partials(Duration::ZERO).unwrap();
        assert_eq!(fs::read_dir(folder.partials()).unwrap().count(), 0);
    }
}
