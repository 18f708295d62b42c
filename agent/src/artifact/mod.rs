//! Artifacts on this host: fetched by digest, verified, unpacked out of sight, and there by one rename or not at all.

mod archive;
mod bounds;
mod child;
mod fetch;
mod folder;
mod sandbox;
mod seal;
mod tree;
mod unpack;

pub use bounds::Bounds;
pub use child::unpack_as_asked;
pub use fetch::{Chunk, Chunks, FetchError, Source, fetch};
pub use folder::{Folder, Unpacker};
pub use unpack::check;

use baton_core::name::Digest;
use baton_core::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::Answer;
use crate::text;

/// Where unpacked artifacts are kept: plain data in and out, for the day a privileged process does it.
pub trait Placing: Send + Sync + fmt::Debug {
    /// The artifacts that are here, whole and verified.
    fn held(&self) -> BTreeSet<Digest>;

    /// Where an artifact is or would be.
    fn path(&self, digest: &Digest) -> PathBuf;

    /// Where its archive is gathered before it is placed.
    fn gathering(&self, digest: &Digest) -> PathBuf;

    /// What became of an artifact since it was unpacked, if it is not any more what it was.
    fn damage(&self, digest: &Digest) -> Option<String>;

    /// Unpacks a verified archive; the artifact is there afterwards, and the archive is not. A damaged one is replaced.
    fn place(&self, digest: Digest) -> Answer<'_, Result<(), Problem>>;

    /// Removes what was gathered of an artifact.
    fn discard(&self, digest: &Digest);

    /// Removes every artifact, and everything half done, that is not among those to keep.
    fn collect(&self, keep: BTreeSet<Digest>) -> Answer<'_, io::Result<()>>;
}

/// B0604: what a file system says, with how full it is where that is the matter.
fn disk(path: &Path, doing: &str, error: &io::Error) -> Problem {
    if is_full(error) {
        return full(path, doing, free(path));
    }
    Problem::new(Code(604), format!("{doing} failed: {}", text::io_error(error)))
        .saw("folder", path.display().to_string())
        .help("check the disk and the rights of the agent's state folder")
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How much more can be written below a folder, where its file system says so.
fn free(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|space| space.f_bavail.saturating_mul(space.f_frsize))
}

/// Says which file system is full, and how full: `free` is what it had when this began.
fn full(path: &Path, doing: &str, free: Option<u64>) -> Problem {
    let mut problem =
        Problem::new(Code(604), format!("no space is left for {doing}")).saw("folder", path.display().to_string());
    if let (Some(free), Ok(space)) = (free, rustix::fs::statvfs(path)) {
        problem = problem.saw("free", format!("{} and {} files", text::bytes(free), space.f_favail));
    }
    problem.help("free space there, or move the agent's state folder, then deploy again")
}

#[cfg(test)]
mod tests;
