//! A small document that is overwritten often and is whole after a power cut at any instant.
//!
//! Two files take turns and are written over in place. That waits for one flush of the disk, a tenth of a millisecond, where a new
//! file and its rename wait for the file system's journal, which everybody on the machine shares. Each file says by a number and
//! a hash whether it is whole; the newest that is counts, and is never the one that is being written.

use crate::durable;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a slot begins: this, its number, the document's length, its hash.
const MARK: &str = "baton-slot";

/// Sizes are multiples of this, so that they rarely change: a file's size is the journal's business.
const BLOCK: usize = 4096;

/// What one file has.
#[derive(Debug, PartialEq, Eq)]
enum Slot {
    Missing,
    Broken,
    Whole { number: u64, document: Vec<u8> },
}

impl Slot {
    fn read(path: &Path) -> io::Result<Self> {
        match fs::read(path) {
            Ok(bytes) => Ok(Self::parse(bytes).unwrap_or(Self::Broken)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Missing),
            Err(error) => Err(error),
        }
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        if bytes.first() == Some(&b'{') {
            // A document alone, as it was written before there were two files.
            return Some(Self::Whole { number: 0, document: bytes });
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(bytes.get(..end)?).ok()?.split(' ');
        words.next().filter(|mark| *mark == MARK)?;
        let (number, length, hash) = (words.next()?.parse().ok()?, words.next()?.parse::<usize>().ok()?, words.next()?);
        let document = bytes.get(end + 1..)?.get(..length)?.to_vec();
        (hash_of(number, &document) == hash).then_some(Self::Whole { number, document })
    }

    const fn number(&self) -> Option<u64> {
        match self {
            Self::Whole { number, .. } => Some(*number),
            Self::Missing | Self::Broken => None,
        }
    }

    fn document(self) -> Option<Vec<u8>> {
        match self {
            Self::Whole { document, .. } => Some(document),
            Self::Missing | Self::Broken => None,
        }
    }
}

/// Reads the document; None: nothing was ever written.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match [Slot::read(path)?, Slot::read(&other(path))?] {
        [Slot::Broken, Slot::Broken] => Err(io::Error::new(io::ErrorKind::InvalidData, "neither of its two files is whole")),
        // Also when the very first write was cut: nothing was done on its word.
        [Slot::Missing | Slot::Broken, Slot::Missing | Slot::Broken] => Ok(None),
        [one, another] => {
            let newest = if one.number() > another.number() { one } else { another };
            Ok(newest.document())
        }
    }
}

/// Replaces the document so that it survives a power cut.
pub(super) fn write(path: &Path, document: &[u8]) -> io::Result<()> {
    let paths = [path.to_owned(), other(path)];
    let slots = [Slot::read(&paths[0])?, Slot::read(&paths[1])?];
    let older = usize::from(slots[0].number() > slots[1].number());
    let number = slots.iter().filter_map(Slot::number).max().unwrap_or_default() + 1;
    let mut text = format!("{MARK} {number} {} {}\n", document.len(), hash_of(number, document)).into_bytes();
    text.extend_from_slice(document);
    text.resize(text.len().next_multiple_of(BLOCK), b'\n');
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&paths[older])?;
    file.write_all_at(&text, 0)?;
    file.sync_data()?;
    match slots[older] {
        Slot::Missing => durable::sync_folder(path),
        Slot::Broken | Slot::Whole { .. } => Ok(()),
    }
}

fn other(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".2");
    path.with_file_name(name)
}

fn hash_of(number: u64, document: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes()).update(document);
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_cut_anywhere_leaves_the_document_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read(&path).unwrap(), None);
        // Of every length, shorter after longer: what is left behind a document must not belong to it.
        let documents = ["{}", "{\"a\":1}", &"x".repeat(10_000), "{\"b\":22}", "{}"];
        for document in documents {
            let before = read(&path).unwrap();
            let states = [fs::read(&path).ok(), fs::read(other(&path)).ok()];
            write(&path, document.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(document.as_bytes()));
            let files = [path.clone(), other(&path)];
            let changed = (0..2).find(|file| fs::read(&files[*file]).ok() != states[*file]).unwrap();
            let written = fs::read(&files[changed]).unwrap();
            for cut in [0, 1, 12, 40, 90, 100, 4_095].into_iter().filter(|cut| *cut < written.len()) {
                let mut torn = written[..cut].to_vec();
                torn.extend(states[changed].iter().flatten().skip(cut));
                fs::write(&files[changed], &torn).unwrap();
                let seen = read(&path);
                let is_before = seen.as_ref().ok().cloned().flatten() == before;
                let is_new = matches!(&seen, Ok(Some(seen)) if seen == document.as_bytes());
                assert!(is_before || is_new, "cut at {cut}: {seen:?}");
            }
            fs::write(&files[changed], written).unwrap();
        }
    }

    #[test]
    fn a_document_from_before_there_were_two_files_is_read_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        fs::write(&path, "{\"old\":1}").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"{\"old\":1}");
        for document in ["{\"new\":1}", "{\"new\":2}", "{\"new\":3}"] {
            write(&path, document.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), document.as_bytes());
        }
        fs::write(&path, "garbage").unwrap();
        assert!(read(&path).is_ok(), "the other one is whole");
        fs::write(other(&path), "garbage").unwrap();
        assert!(read(&path).is_err());
    }
}
