//! Fetching: from where it broke off, hashed while it streams, believed only when every byte was there.

use super::{Placing, disk, free, full, is_full};
use crate::runtime::Answer;
use crate::text;
use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use baton_core::release::Artifact;
use futures_util::{Stream, StreamExt};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::pin::Pin;

/// A piece of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// The pieces of one archive, in order.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, FetchError>> + Send>>;

/// Where archives come from.
pub trait Source: Send + Sync + fmt::Debug {
    /// Streams an archive from an offset to its end.
    fn open(&self, digest: Digest, offset: u64) -> Answer<'_, Result<Chunks, FetchError>>;
}

/// Why a stream did not begin or broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Try again later.
    #[error("{0}")]
    Unreachable(String),
    /// Trying again does not help.
    #[error("{0}")]
    Refused(Problem),
}

/// Why an archive was not gathered.
#[derive(Debug)]
enum Failure {
    /// What is there stays; the next try goes on from it.
    Later(String),
    Never(Problem),
}

/// Gathers an archive, verifies it and places it. `progress` is told how many bytes are there.
///
/// Breaks in between are not failures: it goes on, from where it was, until it is done. Dropping the future leaves the part
/// that is there to the next try.
///
/// # Errors
/// The problem that no further try would solve; nothing is left behind then.
pub async fn fetch(
    source: &dyn Source,
    placing: &dyn Placing,
    artifact: Artifact,
    mut progress: impl FnMut(u64),
) -> Result<(), Problem> {
    let mut waits = crate::session::backoff();
    let mut restarted = false;
    loop {
        let path = placing.gathering(&artifact.digest);
        let mut before = 0;
        let gathered = gather(source, &path, artifact, |done| {
            before = done;
            progress(done);
        });
        match gathered.await {
            Ok(Gathered { whole: true, .. }) => break,
            // The first bytes are from an earlier try, perhaps of a disk that lies: once more from the beginning.
            Ok(Gathered { resumed: true, .. }) if !restarted => {
                restarted = true;
                placing.discard(&artifact.digest);
            }
            Ok(_) => {
                placing.discard(&artifact.digest);
                return Err(corrupt(&artifact));
            }
            Err(Failure::Never(problem)) => {
                placing.discard(&artifact.digest);
                return Err(problem);
            }
            Err(Failure::Later(why)) => {
                if before > 0 {
                    waits = crate::session::backoff();
                }
                let wait = waits.next().unwrap_or(crate::session::WAIT_MAX);
                tracing::info!(artifact = %artifact.digest.short(), why, ?wait, "the fetch broke off");
                tokio::time::sleep(wait).await;
            }
        }
    }
    placing.place(artifact.digest).await
}

struct Gathered {
    /// The digest is the one that was asked for.
    whole: bool,
    resumed: bool,
}

async fn gather(
    source: &dyn Source,
    path: &Path,
    artifact: Artifact,
    mut progress: impl FnMut(u64),
) -> Result<Gathered, Failure> {
    let mut part = Part::open(path, artifact)?;
    let resumed = part.done > 0;
    if part.done < artifact.size {
        let mut chunks = source.open(artifact.digest, part.done).await?;
        while let Some(chunk) = chunks.next().await {
            part.write(&chunk?)?;
            progress(part.done);
        }
    }
    if part.done < artifact.size {
        return Err(Failure::Later(format!("it ended after {} of {} bytes", part.done, artifact.size)));
    }
    Ok(Gathered { whole: part.digest() == artifact.digest, resumed })
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Unreachable(why) => Failure::Later(why),
            FetchError::Refused(problem) => Failure::Never(problem),
        }
    }
}

/// The part of an archive that is there.
struct Part<'a> {
    path: &'a Path,
    file: File,
    hash: blake3::Hasher,
    done: u64,
    artifact: Artifact,
}

impl<'a> Part<'a> {
    fn open(path: &'a Path, artifact: Artifact) -> Result<Self, Failure> {
        let folder = path.parent().unwrap_or(path);
        let opened = OpenOptions::new().create(true).read(true).append(true).open(path);
        let mut file = opened.map_err(|error| Failure::Never(disk(folder, "fetching the artifact", &error)))?;
        let mut hash = blake3::Hasher::new();
        let done = rehash(&mut file, &mut hash, artifact.size);
        let done = done.map_err(|error| Failure::Never(disk(folder, "reading the fetched part", &error)))?;
        room(folder, artifact.size - done)?;
        Ok(Self { path, file, hash, done, artifact })
    }

    fn write(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        if chunk.offset != self.done || chunk.bytes.len() as u64 > self.artifact.size - self.done {
            let what = "the coordinator sent other bytes of the artifact than it was asked for";
            return Err(Failure::Never(
                Problem::new(Code(602), what)
                    .saw("asked for", format!("bytes from {} to {}", self.done, self.artifact.size))
                    .saw("got", format!("{} bytes from {}", chunk.bytes.len(), chunk.offset)),
            ));
        }
        let folder = self.path.parent().unwrap_or(self.path);
        self.file.write_all(&chunk.bytes).map_err(|error| match is_full(&error) {
            true => no_room(folder, free(folder), self.artifact.size - self.done),
            false => Failure::Never(disk(folder, "fetching the artifact", &error)),
        })?;
        self.hash.update(&chunk.bytes);
        self.done += chunk.bytes.len() as u64;
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(*self.hash.finalize().as_bytes())
    }
}

/// Hashes what an earlier try left; more than there can be is thrown away.
fn rehash(file: &mut File, hash: &mut blake3::Hasher, size: u64) -> io::Result<u64> {
    if file.metadata()?.len() > size {
        file.set_len(0)?;
        return Ok(0);
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut done = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(done);
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        done += read as u64;
    }
}

/// Refuses at once what cannot fit: half an archive on a full disk helps nobody.
fn room(folder: &Path, needed: u64) -> Result<(), Failure> {
    match free(folder) {
        Some(free) if free < needed => Err(no_room(folder, Some(free), needed)),
        _ => Ok(()),
    }
}

fn no_room(folder: &Path, free: Option<u64>, needed: u64) -> Failure {
    Failure::Never(full(folder, "fetching the artifact", free).saw("needed", text::bytes(needed)))
}

fn corrupt(artifact: &Artifact) -> Problem {
    Problem::new(Code(602), "the artifact the coordinator holds is not the one the release names")
        .saw("expected digest", artifact.digest.to_string())
        .saw("size", text::bytes(artifact.size))
        .help("baton deploy looks at the coordinator's copy, and uploads it again where it is damaged")
}
