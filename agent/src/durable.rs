//! Files that are whole or absent, whatever happens while they are written. Unless said, only their owner may read them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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
    write_with(path, bytes, Sync::Yes, 0o600)
}

/// Replaces a file so that it survives the death of this process, though not a power cut: for what a reboot ends anyway.
///
/// # Errors
/// As [`replace`].
pub fn replace_until_reboot(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, Sync::No, 0o600)
}

/// As [`replace`], for a file that another program reads: it may run as any user.
///
/// # Errors
/// As [`replace`].
pub fn replace_readable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put_readable(path, bytes)?;
    sync_folder(path)
}

/// As [`put`], for a file that another program reads.
///
/// # Errors
/// As [`replace`].
pub fn put_readable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(path, bytes, Sync::Yes, 0o644)
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

/// A file's next content, durable beside it, and read by nobody until it is [put](Prepared::put) in its place. Dropped, it is gone.
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    /// None: it was put.
    beside: Option<PathBuf>,
    path: PathBuf,
}

impl Prepared {
    /// Puts it in its place, as [`put`] does.
    ///
    /// # Errors
    /// Those of the file system; the old file is still there then, and nothing else.
    pub fn put(mut self) -> io::Result<()> {
        if let Some(beside) = &self.beside {
            // When it was written is when it can be read.
            OpenOptions::new().write(true).open(beside)?.set_modified(SystemTime::now())?;
            fs::rename(beside, &self.path)?;
        }
        self.beside = None;
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // What could not be finished must not take the space that may be missing.
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
    }
}

/// Writes what a file will most likely say next. There is one such content of a file at a time.
///
/// # Errors
/// Those of the file system.
pub fn prepare(path: &Path, bytes: &[u8]) -> io::Result<Prepared> {
    write_beside(path, "next", bytes, Sync::Yes, 0o600)
}

#[derive(Clone, Copy)]
enum Sync {
    Yes,
    No,
}

fn write_with(path: &Path, bytes: &[u8], sync: Sync, mode: u32) -> io::Result<()> {
    write_beside(path, "new", bytes, sync, mode)?.put()
}

fn write_beside(path: &Path, ending: &str, bytes: &[u8], sync: Sync, mode: u32) -> io::Result<Prepared> {
    let beside = beside(path, ending);
    // A leftover of an earlier try could have any mode.
    remove(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let prepared = Prepared { beside: Some(beside), path: path.to_owned() };
    file.write_all(bytes)?;
    match sync {
        Sync::Yes => file.sync_all()?,
        Sync::No => {}
    }
    Ok(prepared)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}
