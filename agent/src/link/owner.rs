//! The identity belongs to whoever shows it: the link's user.

use rustix::io::Errno;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Hands what root wrote in the identity's folder, when it joined or ran as one process, over to the link's user.
///
/// The folder may be that user's already, and is not trusted then: nothing is followed, and nothing is handed over that has
/// another name elsewhere.
///
/// # Errors
/// Those of the file system. A folder that is not there has nothing in it.
pub(crate) fn hand_over(folder: &Path, user: u32, group: u32) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        give(&entry?.path(), user, group)?;
    }
    give(folder, user, group)
}

fn give(path: &Path, user: u32, group: u32) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let opened = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // A link, or a socket: not what was written here.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NXIO)) => return Ok(()),
        opened => opened?,
    };
    let seen = opened.metadata()?;
    let plain = seen.is_dir() || (seen.is_file() && seen.nlink() == 1);
    if plain && seen.uid() != user {
        fchown(&opened, Some(user), Some(group))?;
    }
    Ok(())
}
