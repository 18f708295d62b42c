//! Which entries may stand beside each other: the shape of the tree an archive describes, before any of it is made.

use super::archive::Item;
use super::bounds::Bounds;
use crate::text;
use std::collections::BTreeMap;
use std::io;

/// Why an archive is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{entry}: {why}")]
    Archive { entry: String, why: String, help: &'static str },
    /// Not the archive's fault.
    #[error("{0}")]
    Disk(io::ErrorKind),
}

/// Something in it that must not be there.
pub(super) fn refused(entry: &str, why: &str) -> Refused {
    let help = "pack only files, folders and relative links: tar --zstd -cf shop-2.1.0.tar.zst -C FOLDER .";
    Refused::Archive { entry: text::line(entry, 160), why: why.to_owned(), help }
}

/// It is no archive, or not all of one.
pub(super) fn broken(why: &str) -> Refused {
    let help = "build it once more, as a tar compressed with zstd: tar --zstd -cf shop-2.1.0.tar.zst -C FOLDER .";
    Refused::Archive { entry: "the archive".to_owned(), why: why.to_owned(), help }
}

/// More of it than a host takes.
pub(super) fn excessive(entry: &str, why: &str) -> Refused {
    let help = "leave out what the release does not run with: sources, caches, debug files, data";
    Refused::Archive { entry: text::line(entry, 160), why: why.to_owned(), help }
}

/// What came so far.
#[derive(Debug)]
pub(super) struct Tree {
    bounds: Bounds,
    entries: BTreeMap<String, Kind>,
    /// Names as a system that ignores case sees them.
    folded: BTreeMap<String, String>,
    total: u64,
    root_seen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    /// Named by the archive, or only by an entry inside it.
    Folder {
        named: bool,
    },
    Link,
}

impl Tree {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: BTreeMap::new(), folded: BTreeMap::new(), total: 0, root_seen: false }
    }

    /// Lets an entry in, with its name made plain; none for the root itself.
    pub(super) fn admit(&mut self, item: Item) -> Result<Option<Item>, Refused> {
        match item {
            Item::Folder { path } => self.folder(&path),
            Item::File { path, mode, size } => {
                let path = self.place(&path, Kind::File)?;
                self.total = self.total.saturating_add(size);
                if self.total > self.bounds.total {
                    return Err(excessive(
                        &path,
                        &format!("the archive unpacks to more than {}", text::bytes(self.bounds.total)),
                    ));
                }
                Ok(Some(Item::File { path, mode, size }))
            }
            Item::Link { path, target } => {
                let path = self.place(&path, Kind::Link)?;
                stays_inside(&path, &target)?;
                Ok(Some(Item::Link { path, target }))
            }
            Item::HardLink { path, target } => {
                let path = self.place(&path, Kind::File)?;
                let target = self.plain(&target).map_err(|_| refused(&path, "it is a hard link that leads outside"))?;
                if self.entries.get(&target) != Some(&Kind::File) || target == path {
                    return Err(refused(&path, "it is a hard link to something that is not a file before it"));
                }
                Ok(Some(Item::HardLink { path, target }))
            }
        }
    }

    fn folder(&mut self, path: &str) -> Result<Option<Item>, Refused> {
        if matches!(path, "." | "./") {
            return match std::mem::replace(&mut self.root_seen, true) {
                false => Ok(None),
                true => Err(refused(path, "it is there twice")),
            };
        }
        let path = self.place(path.strip_suffix('/').unwrap_or(path), Kind::Folder { named: true })?;
        Ok(Some(Item::Folder { path }))
    }

    fn place(&mut self, path: &str, kind: Kind) -> Result<String, Refused> {
        let path = self.plain(path)?;
        for (end, _) in path.match_indices('/') {
            let parent = path.get(..end).unwrap_or_default();
            match self.entries.get(parent) {
                Some(Kind::Folder { .. }) => {}
                Some(_) => return Err(refused(&path, "it lies inside something that is not a folder")),
                None => self.insert(parent, Kind::Folder { named: false })?,
            }
        }
        match (self.entries.get(&path), kind) {
            (None, _) => self.insert(&path, kind)?,
            (Some(Kind::Folder { named: false }), Kind::Folder { named: true }) => {
                self.entries.insert(path.clone(), kind);
            }
            _ => return Err(refused(&path, "it is there twice")),
        }
        Ok(path)
    }

    fn insert(&mut self, path: &str, kind: Kind) -> Result<(), Refused> {
        if let Some(other) = self.folded.insert(path.to_lowercase(), path.to_owned()) {
            return Err(refused(path, &format!("it differs from `{}` only in case", text::line(&other, 160))));
        }
        self.entries.insert(path.to_owned(), kind);
        if self.entries.len() > self.bounds.entries {
            return Err(excessive(path, &format!("the archive has more than {} entries", self.bounds.entries)));
        }
        Ok(())
    }

    /// A name without `./` in front, of plain components only.
    fn plain(&self, path: &str) -> Result<String, Refused> {
        let plain = path.strip_prefix("./").unwrap_or(path);
        let refuse = |why: &str| Err(refused(path, why));
        if plain.starts_with('/') {
            return refuse("its path is absolute");
        }
        if plain.chars().any(char::is_control) {
            return refuse("its name holds a control character");
        }
        if plain.split('/').any(|component| component == "..") {
            return refuse("its path leads outside");
        }
        if plain.split('/').any(|component| matches!(component, "" | ".")) {
            return refuse("its path has an empty part");
        }
        if plain.len() > self.bounds.path || plain.split('/').any(|component| component.len() > COMPONENT_MAX) {
            return refuse("its name is too long");
        }
        if plain.matches('/').count() > self.bounds.depth {
            return refuse("it lies too deep");
        }
        Ok(plain.to_owned())
    }
}

/// The longest name a Linux file system takes.
const COMPONENT_MAX: usize = 255;

/// Whether a link at `path` can only lead to places inside the tree.
///
/// The folders above a link are real folders, so leading `..` climb exactly as they read. After those only plain components
/// are taken: a `..` behind another link would climb from wherever that link leads.
fn stays_inside(path: &str, target: &str) -> Result<(), Refused> {
    if target.starts_with('/') {
        return Err(refused(path, "it is a link to an absolute path"));
    }
    if target.is_empty() || target.chars().any(char::is_control) {
        return Err(refused(path, "it is a link whose target is empty or holds a control character"));
    }
    let components: Vec<_> = target.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
    let climbs = components.iter().take_while(|component| **component == "..").count();
    if climbs > path.matches('/').count() {
        return Err(refused(path, "it is a link that leads outside"));
    }
    if components.iter().skip(climbs).any(|component| *component == "..") {
        return Err(refused(path, "it is a link with `..` after a name, which may lead outside"));
    }
    Ok(())
}
