//! What instances write: one file a slot, bounded, with the part before beside it.

use crate::text;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A log longer than this is cut; about ten thousand lines.
const LOG_MAX: u64 = 1024 * 1024;
/// What is kept of it then.
const KEPT: u64 = 256 * 1024;
/// How much of the end is looked at for the last lines.
const TAIL: u64 = 8 * 1024;
/// Lines shown as evidence, and how long each may be.
const LINES: usize = 8;
const LINE_MAX: usize = 300;

/// A fresh log, twice: for the output and for the errors. A disk that cannot take one gives none, which is no reason not to start.
pub(super) fn create(path: &Path) -> (Stdio, Stdio) {
    let _ = fs::rename(path, before(path));
    // Appending makes cutting safe: every write goes to the end, wherever that is by then.
    let opened =
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).and_then(|out| Ok((out.try_clone()?, out)));
    opened.map_or_else(|_| (Stdio::null(), Stdio::null()), |(out, err)| (out.into(), err.into()))
}

/// The last lines.
pub(super) fn tail(path: &Path) -> Vec<String> {
    let bytes = end(path, TAIL).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).map(|line| text::line(line, LINE_MAX)).collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).cloned().collect()
}

/// Cuts a log that has become too long. What is written in the instant of the cut may be lost.
pub(super) fn trim(path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() <= LOG_MAX) {
        return;
    }
    let kept = end(path, KEPT).and_then(|bytes| fs::write(before(path), bytes));
    if kept.is_err() {
        // A disk too full for the copy still needs the cut.
        let _ = fs::remove_file(before(path));
    }
    let _ = OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(0));
}

/// Whether a file is a slot's log or the part before it.
pub(super) fn belongs(file: &Path, log: &Path) -> bool {
    file == log || file == before(log)
}

fn before(path: &Path) -> PathBuf {
    path.with_extension("before.log")
}

fn end(path: &Path, length: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(length)))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_that_grows_is_cut_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.0.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        for round in 0..3 {
            writer.write_all(&vec![b'x'; usize::try_from(LOG_MAX).unwrap() + 1]).unwrap();
            writeln!(writer, "\nround {round}").unwrap();
            trim(&path);
            assert_eq!(fs::metadata(&path).unwrap().len(), 0);
            assert!(fs::metadata(before(&path)).unwrap().len() <= KEPT);
        }
        writeln!(writer, "after\nthe cut").unwrap();
        assert_eq!(tail(&path), ["after", "the cut"]);
    }
}
