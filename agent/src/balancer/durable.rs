//! Files that are whole at every instant, written where waiting hurts nobody.

use crate::durable::{self, Prepared};
use std::io;
use std::path::Path;

/// Replaces a file that the balancer reads durably, on a thread that may wait for the disk.
pub(crate) async fn replace_readable(path: &Path, content: String) -> io::Result<()> {
    let path = path.to_owned();
    let replace = move || durable::replace_readable(&path, content.as_bytes());
    tokio::task::spawn_blocking(replace).await.map_err(io::Error::other)?
}

/// Puts a file in the place of the one before; a power cut may bring that one back until [`settle`] is through.
pub(crate) async fn put(path: &Path, content: String) -> io::Result<()> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || durable::put(&path, content.as_bytes())).await.map_err(io::Error::other)?
}

/// As [`put`], for a file that the balancer reads.
pub(crate) async fn put_readable(path: &Path, content: String) -> io::Result<()> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || durable::put_readable(&path, content.as_bytes())).await.map_err(io::Error::other)?
}

/// Writes what a file will most likely say next beside it, durably.
pub(crate) async fn prepare(path: &Path, content: String) -> io::Result<Prepared> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || durable::prepare(&path, content.as_bytes())).await.map_err(io::Error::other)?
}

/// Waits until what was put is there after a power cut, too.
pub(crate) async fn settle(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || durable::sync_folder(&path)).await.map_err(io::Error::other)?
}

/// Replaces a file durably, on a thread that may wait for the disk.
pub(crate) async fn replace(path: &Path, content: String) -> io::Result<()> {
    put(path, content).await?;
    settle(path).await
}
