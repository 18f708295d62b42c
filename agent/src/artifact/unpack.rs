//! Unpacks an archive into a fresh folder. The archive is believed in nothing.

use super::archive::{Item, walk};
use super::bounds::Bounds;
use super::tree::{Refused, broken, excessive, refused};
use super::{disk, free, full, is_full};
use crate::text;
use baton_core::problem::{Code, Problem};
use std::cell::Cell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;
use zstd::stream::read::Decoder;

/// More files than this are made durable by one sync of the file system instead of one each.
const SYNC_EACH_MAX: usize = 64;

/// Unpacks `archive` to the empty folder `into`, and returns once it is durable.
///
/// # Errors
/// B0610: the archive is refused, with the entry and the reason. B0604: the disk. `into` may hold a part then.
pub(super) fn unpack(archive: &Path, into: &Path, bounds: &Bounds) -> Result<(), Problem> {
    let folder = into.parent().unwrap_or(into);
    let room = free(folder);
    // More than any host takes is the archive's fault, and told as such.
    if let (Some(declared), Some(room)) = (declared(archive).filter(|declared| *declared <= bounds.total), room)
        && declared > room
    {
        return Err(full(folder, UNPACKING, Some(room)).saw("needed", text::bytes(declared)));
    }
    let written = Cell::new(0);
    unpack_all(archive, into, bounds, &written).map_err(|refused| match refused {
        Refused::Disk(io::ErrorKind::StorageFull) => {
            let needed = match total(archive, bounds) {
                Some(total) => text::bytes(total),
                None => format!("more than {}", text::bytes(written.get())),
            };
            full(folder, UNPACKING, room)
                .saw("needed", needed)
                .saw("written", format!("{} before there was no room, and removed again", text::bytes(written.get())))
        }
        Refused::Disk(kind) => disk(folder, UNPACKING, &kind.into()),
        Refused::Archive { entry, why, help } => unfit(archive, entry, &why, help),
    })
}

const UNPACKING: &str = "unpacking the artifact";

/// What the archive says it unpacks to. `zstd FILE` writes it down; a stream, as `tar --zstd` makes it, cannot know.
fn declared(archive: &Path) -> Option<u64> {
    /// The longest header of a frame.
    const HEADER: u64 = 18;
    let mut header = Vec::new();
    File::open(archive).ok()?.take(HEADER).read_to_end(&mut header).ok()?;
    zstd::zstd_safe::get_frame_content_size(&header).ok()?
}

/// What the files of an archive need together: read once more, and only where there was no room for them.
fn total(archive: &Path, bounds: &Bounds) -> Option<u64> {
    let mut total = 0;
    let sum = |item, _: &mut dyn Read| {
        if let Item::File { size, .. } = item {
            total += size;
        }
        Ok(())
    };
    read(archive, bounds, sum).ok()?;
    Some(total)
}

/// Reads an archive to its end as unpacking it would, and keeps nothing: whether hosts would take it, before any has it.
///
/// # Errors
/// B0610: it would be refused, with the entry and the reason. B0604: it cannot be read.
pub fn check(archive: &Path) -> Result<(), Problem> {
    let skim = |_, content: &mut dyn Read| io::copy(content, &mut io::sink()).map(drop).map_err(|error| foreign(&error));
    read(archive, &Bounds::default(), skim).map_err(|refused| match refused {
        Refused::Disk(kind) => disk(archive, "reading the archive", &kind.into()),
        Refused::Archive { entry, why, help } => unfit(archive, entry, &why, help),
    })
}

fn unfit(archive: &Path, entry: String, why: &str, help: &str) -> Problem {
    let compressed = fs::metadata(archive).map(|metadata| metadata.len()).unwrap_or(0);
    Problem::new(Code(610), format!("the archive is refused: {why}"))
        .saw("entry", entry)
        .saw("archive", text::bytes(compressed))
        .help(help)
}

/// Hands every entry of an archive, with its content, to `visit`.
fn read(
    archive: &Path,
    bounds: &Bounds,
    visit: impl FnMut(Item, &mut dyn Read) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let file = File::open(archive).map_err(|error| local(&error))?;
    let compressed = file.metadata().map_err(|error| local(&error))?.len();
    let mut decoder = Decoder::new(file).map_err(|error| foreign(&error))?;
    decoder.window_log_max(bounds.window_log).map_err(|error| foreign(&error))?;
    let clock =
        Clock { end: Instant::now() + bounds.time, most: allowed(compressed, bounds), unpacked: Cell::new(0), bounds };
    walk(Watched { inner: decoder, clock: &clock }, bounds, visit)
}

fn unpack_all(archive: &Path, into: &Path, bounds: &Bounds, written: &Cell<u64>) -> Result<(), Refused> {
    let mut links = Vec::new();
    let mut files = Vec::new();
    read(archive, bounds, |item, content| {
        match item {
            Item::Folder { path } => fs::create_dir_all(into.join(path)).map_err(|error| local(&error))?,
            Item::File { path, mode, size } => {
                let path = into.join(path);
                // Whether there is room is seen before each file is begun, not when the disk is full to its last byte.
                if free(into).is_some_and(|free| free < size) {
                    return Err(Refused::Disk(io::ErrorKind::StorageFull));
                }
                write(&path, mode, size, content)?;
                written.set(written.get() + size);
                files.push(path);
            }
            Item::HardLink { path, target } => {
                let path = into.join(path);
                parent(&path).and_then(|()| fs::hard_link(into.join(target), path)).map_err(|error| local(&error))?;
            }
            // Last, so that nothing is ever written through one.
            Item::Link { path, target } => links.push((path, target)),
        }
        Ok(())
    })?;
    for (path, target) in links {
        let path = into.join(path);
        parent(&path).and_then(|()| symlink(target, path)).map_err(|error| local(&error))?;
    }
    open_folders(into).map_err(|error| local(&error))?;
    make_durable(into, &files).map_err(|error| local(&error))
}

fn allowed(compressed: u64, bounds: &Bounds) -> u64 {
    compressed.saturating_mul(bounds.ratio).max(bounds.ratio_from)
}

/// Lets whoever runs the release walk through it, whatever this process's umask is.
fn open_folders(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

fn parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Writes a file that must not be there. Of its mode only "executable" is taken: whoever runs the release must read it.
fn write(path: &Path, mode: u32, size: u64, content: &mut dyn Read) -> Result<(), Refused> {
    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
    parent(path).map_err(|error| local(&error))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| local(&error))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut written = 0;
    loop {
        let read = content.read(&mut buffer).map_err(|error| foreign(&error))?;
        if read == 0 {
            break;
        }
        io::Write::write_all(&mut file, buffer.get(..read).unwrap_or_default()).map_err(|error| local(&error))?;
        written += read as u64;
    }
    if written != size {
        return Err(refused(&path.display().to_string(), "it ends before its size"));
    }
    // The mode at creation went through the umask.
    file.set_permissions(Permissions::from_mode(mode)).map_err(|error| local(&error))
}

fn make_durable(root: &Path, files: &[std::path::PathBuf]) -> io::Result<()> {
    if files.len() > SYNC_EACH_MAX {
        return Ok(rustix::fs::syncfs(File::open(root)?)?);
    }
    files.iter().try_for_each(|file| File::open(file)?.sync_all())?;
    File::open(root)?.sync_all()
}

/// An error of this host's disk.
fn local(error: &io::Error) -> Refused {
    Refused::Disk(if is_full(error) { io::ErrorKind::StorageFull } else { error.kind() })
}

/// An error of the bytes.
fn foreign(error: &io::Error) -> Refused {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
        Some(refused) => refused.clone(),
        None => broken(&format!("it cannot be decompressed: {}", text::io_error(error))),
    }
}

/// What bounds the whole of it, seen from every read.
struct Clock<'a> {
    end: Instant,
    most: u64,
    unpacked: Cell<u64>,
    bounds: &'a Bounds,
}

struct Watched<'a, R> {
    inner: R,
    clock: &'a Clock<'a>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let clock = self.clock;
        clock.unpacked.set(clock.unpacked.get() + read as u64);
        let refuse = |why: String| Err(io::Error::other(excessive("the archive", &why)));
        if clock.unpacked.get() > clock.most {
            return refuse(format!("it unpacks to more than {} times its size", clock.bounds.ratio));
        }
        if Instant::now() > clock.end {
            return refuse(format!("unpacking takes longer than {}", text::duration(clock.bounds.time)));
        }
        Ok(read)
    }
}
