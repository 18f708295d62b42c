//! Reads a tar archive strictly: what two readers could understand differently is refused.
//!
//! The `tar` crate finds the entries and checks their sums; extended headers are read here, because only then can it be seen
//! that they contradict the plain ones.

use super::bounds::Bounds;
use super::tree::{Refused, Tree, broken, refused};
use std::io::{self, Read};
use tar::{Archive, Entry, EntryType, Header, PaxExtensions};

/// An entry that passed.
pub(super) enum Item {
    File {
        path: String,
        mode: u32,
        size: u64,
    },
    Folder {
        path: String,
    },
    /// A symbolic link; the target stays inside.
    Link {
        path: String,
        target: String,
    },
    /// Another name of a file that came before.
    HardLink {
        path: String,
        target: String,
    },
}

/// Names an extended header gave to the entry after it.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

/// Walks an archive, and hands each entry that passes, with its content, to `visit`.
pub(super) fn walk<R: Read>(
    reader: R,
    bounds: &Bounds,
    mut visit: impl FnMut(Item, &mut dyn Read) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut archive = Archive::new(reader);
    let mut tree = Tree::new(*bounds);
    let mut extended = None;
    for entry in archive.entries().map_err(|error| unreadable(&error))?.raw(true) {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let size = plain_size(entry.header())?;
        if let Some(more) = extension(&mut entry, size, bounds)? {
            merge(&mut extended, more)?;
            continue;
        }
        if let Some(item) = tree.admit(describe(&entry, size, extended.take().unwrap_or_default())?)? {
            visit(item, &mut entry)?;
        }
    }
    if extended.is_some() {
        return Err(refused("its end", "an extended header has no entry after it"));
    }
    nothing_follows(archive.into_inner())
}

/// After the end only the padding of the last record may come.
fn nothing_follows(mut rest: impl Read) -> Result<(), Refused> {
    let mut block = [0; 4096];
    loop {
        match rest.read(&mut block).map_err(|error| unreadable(&error))? {
            0 => return Ok(()),
            read if block.iter().take(read).all(|byte| *byte == 0) => {}
            _ => return Err(refused("its end", "data follows the end of the archive")),
        }
    }
}

fn unreadable(error: &io::Error) -> Refused {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>()) {
        Some(refused) => refused.clone(),
        None if super::is_full(error) => Refused::Disk(io::ErrorKind::StorageFull),
        None => broken(&format!("it cannot be read: {error}")),
    }
}

/// The size field, which must be plain octal: the other notation is where negative sizes and disagreeing readers come from.
fn plain_size(header: &Header) -> Result<u64, Refused> {
    let field = header.as_old().size;
    let digits = std::str::from_utf8(&field).unwrap_or_default();
    let digits = digits.trim_matches(['\0', ' ']);
    let plain =
        digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)).then(|| u64::from_str_radix(digits, 8).ok()).flatten();
    match plain {
        Some(size) => Ok(size),
        None if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        None => Err(refused(&raw_name(header), "its size is not a plain octal number")),
    }
}

fn extension<R: Read>(entry: &mut Entry<'_, R>, size: u64, bounds: &Bounds) -> Result<Option<Extended>, Refused> {
    let kind = entry.header().entry_type();
    let is_extension = kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
        || kind.is_gnu_longname()
        || kind.is_gnu_longlink();
    if !is_extension {
        return Ok(None);
    }
    if size > bounds.header {
        return Err(refused(&raw_name(entry.header()), "its extended header is too long"));
    }
    let mut bytes = Vec::new();
    entry.take(bounds.header).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if kind.is_pax_local_extensions() {
        return pax(&bytes, Scope::Entry).map(Some);
    }
    if kind.is_pax_global_extensions() {
        return pax(&bytes, Scope::Archive).map(|_| Some(Extended::default()));
    }
    let name = text(bytes.strip_suffix(b"\0").unwrap_or(&bytes))?;
    Ok(Some(match kind.is_gnu_longname() {
        true => Extended { path: Some(name), ..Extended::default() },
        false => Extended { link: Some(name), ..Extended::default() },
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Entry,
    /// For all entries after it: only a comment (as `git archive` writes) means nothing.
    Archive,
}

fn pax(bytes: &[u8], scope: Scope) -> Result<Extended, Refused> {
    let mut extended = Extended::default();
    for record in PaxExtensions::new(bytes) {
        let record = record.map_err(|_| refused("an extended header", "it cannot be read"))?;
        let key = record.key().map_err(|_| refused("an extended header", "a key is not text"))?;
        let slot = match key {
            "comment" => continue,
            _ if scope == Scope::Archive => return Err(refused("a global header", &format!("it sets `{}`", shown(key)))),
            "path" => &mut extended.path,
            "linkpath" => &mut extended.link,
            "size" => {
                let size = record.value().ok().and_then(|size| size.parse().ok());
                let size = size.ok_or_else(|| refused("an extended header", "its size is not a number"))?;
                if extended.size.replace(size).is_some() {
                    return Err(refused("an extended header", "`size` is set twice"));
                }
                continue;
            }
            _ if harmless(key) => continue,
            _ => return Err(refused("an extended header", &format!("it sets `{}`", shown(key)))),
        };
        if slot.replace(text(record.value_bytes())?).is_some() {
            return Err(refused("an extended header", &format!("`{key}` is set twice")));
        }
    }
    Ok(extended)
}

/// What is not applied and means nothing for what the tree will be.
fn harmless(key: &str) -> bool {
    const KEYS: [&str; 12] = [
        "mtime",
        "atime",
        "ctime",
        "uid",
        "gid",
        "uname",
        "gname",
        "SCHILY.dev",
        "SCHILY.ino",
        "SCHILY.nlink",
        "LIBARCHIVE.creationtime",
        "hdrcharset",
    ];
    let user = ["SCHILY.xattr.user.", "LIBARCHIVE.xattr.user."];
    KEYS.contains(&key) || user.iter().any(|prefix| key.starts_with(prefix))
}

fn merge(pending: &mut Option<Extended>, more: Extended) -> Result<(), Refused> {
    let pending = pending.get_or_insert_with(Extended::default);
    let twice = || refused("an extended header", "two headers name the same entry differently");
    for (have, new) in [(&mut pending.path, more.path), (&mut pending.link, more.link)] {
        if new.is_some_and(|new| have.replace(new).is_some()) {
            return Err(twice());
        }
    }
    if more.size.is_some_and(|size| pending.size.replace(size).is_some()) {
        return Err(twice());
    }
    Ok(())
}

fn describe<R: Read>(entry: &Entry<'_, R>, size: u64, extended: Extended) -> Result<Item, Refused> {
    let header = entry.header();
    let named = header.path_bytes();
    let path = match extended.path {
        Some(path) => path,
        None => text(&named)?,
    };
    if extended.size.is_some_and(|other| other != size) {
        return Err(refused(&path, "its headers disagree about its size"));
    }
    let kind = header.entry_type();
    let mode = header.mode().map_err(|_| refused(&path, "its mode is not a number"))?;
    if mode & 0o6000 != 0 {
        return Err(refused(&path, "it is setuid or setgid"));
    }
    let link = || match (extended.link, header.link_name_bytes()) {
        (Some(target), _) => Ok(target),
        (None, Some(target)) => text(&target),
        (None, None) => Err(refused(&path, "it is a link to nothing")),
    };
    if size > 0 && !matches!(kind, EntryType::Regular) {
        return Err(refused(&path, "it is not a file, and has content"));
    }
    match kind {
        EntryType::Regular => Ok(Item::File { mode, size, path }),
        EntryType::Directory => Ok(Item::Folder { path }),
        EntryType::Symlink => Ok(Item::Link { target: link()?, path }),
        EntryType::Link => Ok(Item::HardLink { target: link()?, path }),
        kind => Err(refused(&path, sort(kind))),
    }
}

fn sort(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char | EntryType::Block => "it is a device",
        EntryType::Fifo => "it is a named pipe",
        EntryType::GNUSparse => "it is a sparse file",
        _ => "it is neither a file nor a folder nor a link",
    }
}

fn text(bytes: &[u8]) -> Result<String, Refused> {
    String::from_utf8(bytes.to_vec())
        .map_err(|error| refused(&shown(&String::from_utf8_lossy(error.as_bytes())), "its name is not UTF-8"))
}

fn raw_name(header: &Header) -> String {
    shown(&String::from_utf8_lossy(&header.path_bytes()))
}

fn shown(text: &str) -> String {
    crate::text::line(text, 120)
}
