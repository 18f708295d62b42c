//! Files that are whole at every instant.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Replaces a file: a new one beside it, synced, renamed over it, the folder synced.
///
/// Whoever reads the path sees the old content or the new, also after `kill -9` or a power loss. The mode of an existing
/// file is kept. Runs on a blocking thread: a sync may take long.
pub(crate) async fn replace(path: &Path, content: String) -> io::Result<()> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || replace_now(&path, content.as_bytes())).await.map_err(io::Error::other)?
}

fn replace_now(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = beside(path);
    let written = File::create(&beside).and_then(|mut file| {
        if let Ok(existing) = fs::metadata(path) {
            file.set_permissions(existing.permissions())?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.and_then(|()| File::open(folder)?.sync_all())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}
