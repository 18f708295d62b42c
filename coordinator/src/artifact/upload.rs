//! One upload: bytes in order, then the proof that they are what their name says.

use super::{Claim, Stat, failed, problem, sync_folder};
use baton_core::name::Digest;
use baton_core::problem::Problem;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

/// An upload under way; dropped, it can be gone on with later.
#[derive(Debug)]
pub struct Upload {
    claim: Claim,
    partial: PathBuf,
    whole: PathBuf,
    size: u64,
    at: u64,
    file: File,
}

impl Upload {
    pub(super) async fn open(claim: Claim, partial: PathBuf, whole: PathBuf, size: u64, at: u64) -> Result<Self, Problem> {
        let digest = claim.digest;
        let opened = async {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&partial).await?;
            file.set_len(at).await?;
            file.seek(io::SeekFrom::Start(at)).await?;
            io::Result::Ok(file)
        };
        let file = opened.await.map_err(|error| failed(digest, &error))?;
        Ok(Self { claim, partial, whole, size, at, file })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// B0602 when they are not the next, or more than was announced; B0604 when the disk is full: then what there was is
    /// deleted, because the store needs the room more.
    pub async fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        let digest = self.claim.digest;
        let after = self.at.saturating_add(bytes.len() as u64);
        if offset != self.at || after > self.size {
            return Err(problem(602, digest, "did not arrive in order")
                .saw("expected", format!("offset {} of {}", self.at, self.size))
                .saw("arrived", format!("{} bytes at {offset}", bytes.len())));
        }
        if let Err(error) = self.file.write_all(bytes).await {
            self.give_way(&error).await;
            return Err(failed(digest, &error));
        }
        self.at = after;
        Ok(())
    }

    /// Ends the upload. When all bytes are there, they are verified and become visible.
    ///
    /// # Errors
    /// B0603 when they are not what the name says; they are deleted then.
    pub async fn finish(mut self) -> Result<Stat, Problem> {
        let digest = self.claim.digest;
        let flushed = async {
            self.file.flush().await?;
            self.file.sync_all().await
        };
        if let Err(error) = flushed.await {
            self.give_way(&error).await;
            return Err(failed(digest, &error));
        }
        if self.at < self.size {
            return Ok(Stat { have: self.at, complete: false });
        }
        let Self { claim, partial, whole, size, .. } = self;
        let verified = tokio::task::spawn_blocking(move || {
            let verified = verify(&partial, &whole, claim.digest);
            drop(claim);
            verified
        });
        verified.await.map_err(|error| failed(digest, &io::Error::other(error)))??;
        Ok(Stat { have: size, complete: true })
    }

    async fn give_way(&mut self, error: &io::Error) {
        if error.kind() == ErrorKind::StorageFull {
            let _ = self.file.set_len(0).await;
            let _ = tokio::fs::remove_file(&self.partial).await;
        }
    }
}

pub(super) fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(path)?)?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

fn verify(partial: &Path, whole: &Path, expected: Digest) -> Result<(), Problem> {
    let failed = |error: io::Error| failed(expected, &error);
    let found = digest_of(partial).map_err(failed)?;
    if found != expected {
        std::fs::remove_file(partial).map_err(failed)?;
        return Err(problem(603, expected, "is not what was uploaded")
            .saw("announced", expected.to_string())
            .saw("uploaded", found.to_string())
            .help("build or download the archive again, and deploy again"));
    }
    std::fs::rename(partial, whole).map_err(failed)?;
    whole.parent().map_or(Ok(()), sync_folder).map_err(failed)
}
