//! Files that are whole or absent, whatever happens while they are written. Unless said, only their owner may read them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces a file so that it survives a power cut: temporary file, fsync, rename, fsync of the folder.
///
/// # Errors
/// Those of the file system; the old file is still there then, and nothing else.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes)?;
    sync_folder(path)
}

/// The first half of [`replace`]: what reads the file from now on finds the new one, whole. After a power cut that holds only once
/// [`sync_folder`] was there, too; until then the old one may be back.
///
/// # Errors
/// As [`replace`].
pub fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes, Sync::Yes)
}

/// Replaces a file so that it survives the death of this process, though not a power cut: for what a reboot ends anyway.
///
/// # Errors
/// As [`replace`].
pub fn replace_until_reboot(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_beside(path, bytes, Sync::No)
}

/// As [`replace`], for a file that another program reads: it may run as any user.
///
/// # Errors
/// As [`replace`].
pub fn replace_readable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, Sync::Yes, 0o644)?;
    sync_folder(path)
}

/// Removes a file; one that is not there is as good.
///
/// # Errors
/// Those of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes renames and removals in the folder of a path durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[derive(Clone, Copy)]
enum Sync {
    Yes,
    No,
}

fn write_beside(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    write_with(path, bytes, sync, 0o600)
}

fn write_with(path: &Path, bytes: &[u8], sync: Sync, mode: u32) -> io::Result<()> {
    let temporary = beside(path);
    // A leftover of an earlier try could have any mode.
    remove(&temporary)?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
    let written = opened.and_then(|mut file| {
        file.write_all(bytes)?;
        match sync {
            Sync::Yes => file.sync_all(),
            Sync::No => Ok(()),
        }
    });
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        // What could not be finished must not take the space that may be missing.
        let _ = fs::remove_file(&temporary);
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    path.with_file_name(name)
}
