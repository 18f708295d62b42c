//! Files that are whole at every instant, written where waiting hurts nobody.

use crate::durable;
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
