//! What `baton audit export` wrote, checked by whoever has the file: no coordinator is asked.

use crate::errors::code;
use baton_core::name::Digest;
use baton_core::problem::Problem;
use baton_proto::audit::{beginning, link};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Ordering;
use std::io::BufRead;
use std::path::Path;

/// One line. No hash would be over anything else that stood there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    number: u64,
    at: i64,
    entry: Value,
    text: String,
    hash: Digest,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) entries: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The hash of the last entry.
    pub(crate) head: Digest,
    /// What is wrong, by the number of its line.
    pub(crate) faults: Vec<(u64, String)>,
}

/// Reads and checks an export.
///
/// # Errors
/// B0153 when it cannot be read.
pub(crate) fn check(path: &Path) -> Result<Checked, Problem> {
    let unread = |error: std::io::Error| {
        Problem::new(code::EXPORT, "the exported log cannot be read")
            .saw("file", format!("{}: {error}", path.display()))
            .help("name a file that `baton audit export` wrote")
    };
    let file = std::fs::File::open(path).map_err(unread)?;
    let mut checked = Checked { entries: 0, first: 0, last: 0, head: beginning(), faults: Vec::new() };
    for (number, line) in (1..).zip(std::io::BufReader::new(file).lines()) {
        checked.take(number, &line.map_err(unread)?);
    }
    if checked.entries == 0 && checked.faults.is_empty() {
        return Err(unread(std::io::Error::other("there is no entry in it")));
    }
    Ok(checked)
}

impl Checked {
    fn take(&mut self, number: u64, line: &str) {
        let line: Line = match serde_json::from_str(line) {
            Ok(line) => line,
            Err(error) => return self.faults.push((number, format!("this is no entry of an export: {error}"))),
        };
        let begins = self.entries == 0;
        // The first one of a part of the log follows one that is not in the file.
        let follows = begins && line.number > 1;
        if begins {
            self.first = line.number;
        } else if line.number != self.last + 1 {
            let (expected, before) = (self.last + 1, line.number.saturating_sub(1));
            let what = match before.cmp(&expected) {
                Ordering::Greater => format!("entries {expected} to {before} are missing"),
                Ordering::Equal => format!("entry {expected} is missing"),
                Ordering::Less => format!("entry {} stands after entry {}", line.number, self.last),
            };
            self.faults.push((number, what));
        } else if link(&self.head, line.number, line.at, &line.text) != line.hash {
            self.faults.push((number, changed(line.number)));
        }
        if begins && !follows && link(&self.head, line.number, line.at, &line.text) != line.hash {
            self.faults.push((number, changed(line.number)));
        }
        if serde_json::from_str(&line.text).ok().as_ref() != Some(&line.entry) {
            self.faults.push((number, format!("`entry` of entry {} is not what its `text` says", line.number)));
        }
        self.entries += 1;
        (self.last, self.head) = (line.number, line.hash);
    }
}

fn changed(number: u64) -> String {
    format!("entry {number} is not what was written, or the one before it is not")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn export(entries: u64) -> Vec<Value> {
        let mut head = beginning();
        let line = |number: u64| {
            let text = format!(r#"{{"who":"admin/ana","call":"Control/Pause","about":"shop-{number}"}}"#);
            head = link(&head, number, 1_000 + number as i64, &text);
            let entry: Value = serde_json::from_str(&text).unwrap();
            json!({ "number": number, "at": 1_000 + number, "entry": entry, "text": text, "hash": head.to_string() })
        };
        (1..=entries).map(line).collect()
    }

    fn checked(lines: &[Value]) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, text).unwrap();
        check(&file).unwrap()
    }

    #[test]
    fn an_export_is_whole_from_its_first_to_its_last_entry() {
        let lines = export(9);
        let whole = checked(&lines);
        assert_eq!((whole.entries, whole.first, whole.last, whole.faults.len()), (9, 1, 9, 0), "{whole:?}");
        assert_eq!(whole.head.to_string(), lines[8]["hash"]);
        // Of a part, also; and what was cut off at the end nobody can see.
        let part = checked(&lines[3..7]);
        assert_eq!((part.entries, part.first, part.last, part.faults.len()), (4, 4, 7, 0), "{part:?}");
    }

    #[test]
    fn every_change_inside_is_found_on_its_line() {
        let lines = export(6);
        for changed in 0..6 {
            let number = changed as u64 + 1;
            for (key, value) in [
                ("text", json!(r#"{"who":"admin/eve","call":"Control/Pause","about":"shop"}"#)),
                ("at", json!(7)),
                ("hash", json!(Digest::of(b"x").to_string())),
                ("entry", json!({ "who": "admin/eve" })),
                ("number", json!(40)),
                ("number", json!("none")),
                ("comment", json!("approved by admin/root")),
            ] {
                let mut edited = lines.clone();
                edited[changed][key] = value;
                let found = checked(&edited).faults;
                // A part of the log may begin anywhere: that the first entry is another one shows in the one after it.
                let at = if changed == 0 && key == "number" { number..=2 } else { number..=number };
                assert!(found.first().is_some_and(|(line, _)| at.contains(line)), "{key} of {number}: {found:?}");
            }
        }
        for gone in 1..5 {
            let mut deleted = lines.clone();
            deleted.remove(gone);
            assert_eq!(checked(&deleted).faults.len(), 1, "entry {} gone", gone + 1);
            let mut moved = lines.clone();
            moved.swap(gone, gone + 1);
            assert!(!checked(&moved).faults.is_empty(), "entry {} moved", gone + 1);
            let mut twice = lines.clone();
            twice.insert(gone, lines[gone].clone());
            assert!(!checked(&twice).faults.is_empty(), "entry {} twice", gone + 1);
        }
    }

    #[test]
    fn a_file_that_is_empty_or_not_there_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(check(empty.path()).unwrap_err().code, code::EXPORT);
        let problem = check(Path::new("/nowhere/audit.jsonl")).unwrap_err();
        assert!(problem.code == code::EXPORT && problem.seen[0].1.contains("/nowhere/audit.jsonl"), "{problem:?}");
    }
}
