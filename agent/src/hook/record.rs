//! What is written down of hooks: one file each, beside the ledger and apart from the agent's program.

use crate::durable;
use crate::text;
use baton_core::fleet::hooks::HookOutcome;
use baton_core::hook::HookKey;
use baton_core::name::{Digest, ReleaseId};
use baton_core::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Ended hooks that are remembered beside those a spec speaks of.
const KEPT: usize = 1000;

/// One attempt of a hook on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) key: HookKey,
    pub(crate) attempt: u32,
    pub(crate) release: ReleaseId,
    pub(crate) artifact: Digest,
    /// Counts up over all records of this host.
    pub(crate) number: u64,
    /// None: it was begun, and how it ended was not seen yet.
    pub(crate) ended: Option<HookOutcome>,
}

/// The folder of records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    /// Uses `hooks` in the agent's state folder.
    ///
    /// # Errors
    /// B0604: it cannot be used. To go on would be to forget what was run.
    pub(crate) fn open(state: &Path) -> Result<Self, Problem> {
        let folder = state.join("hooks");
        let refuse = |error: io::Error| {
            Problem::new(Code(604), format!("`{}` cannot be used: {}", folder.display(), text::io_error(&error)))
        };
        fs::create_dir_all(&folder).map_err(refuse)?;
        durable::sync_folder(&folder).map_err(refuse)?;
        Ok(Self { folder })
    }

    /// Everything that was written down.
    ///
    /// # Errors
    /// B0604: the folder cannot be read.
    pub(crate) fn read(&self) -> Result<BTreeMap<HookKey, Record>, Problem> {
        let refuse = |error: &io::Error| {
            Problem::new(Code(604), format!("`{}` cannot be read: {}", self.folder.display(), text::io_error(error)))
        };
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(|error| refuse(&error))?.flatten() {
            if entry.path().extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let bytes = fs::read(entry.path()).map_err(|error| refuse(&error))?;
            if let Ok(record) = serde_json::from_slice::<Record>(&bytes) {
                records.insert(record.key.clone(), record);
            }
        }
        Ok(records)
    }

    /// Whether there is a file of a hook, readable or not: then it was begun once.
    pub(crate) fn holds(&self, key: &HookKey) -> bool {
        self.path(key).exists()
    }

    /// Writes a record down, and returns once it is durable.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        durable::replace(&self.path(&record.key), &serde_json::to_vec(record)?)
    }

    /// Forgets the oldest that ended and that nobody speaks of any more.
    pub(crate) fn trim(&self, records: &mut BTreeMap<HookKey, Record>, spoken_of: impl Fn(&HookKey) -> bool) {
        let mut past: Vec<(u64, HookKey)> = records
            .values()
            .filter(|record| record.ended.is_some() && !spoken_of(&record.key))
            .map(|record| (record.number, record.key.clone()))
            .collect();
        past.sort();
        for (_, key) in past.iter().take(past.len().saturating_sub(KEPT)) {
            if durable::remove(&self.path(key)).is_ok() {
                records.remove(key);
            }
        }
    }

    /// Named by the digest of its key: a key has slashes, and may be longer than a file's name.
    fn path(&self, key: &HookKey) -> PathBuf {
        self.folder.join(format!("{}.json", Digest::of(key.to_string().as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(rollout: u64, ended: Option<HookOutcome>) -> Record {
        Record {
            key: format!("shop/before_rollout/r-{rollout}").parse().unwrap(),
            attempt: 1,
            release: ReleaseId(Digest::of(b"v1")),
            artifact: Digest::of(b"archive"),
            number: rollout,
            ended,
        }
    }

    #[test]
    fn what_was_written_is_there_for_the_next_agent_and_a_damaged_file_still_says_that_it_was_begun() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        records.write(&record(1, None)).unwrap();
        records.write(&record(2, Some(HookOutcome::Succeeded { output: vec!["done".into()] }))).unwrap();
        let next = Records::open(state.path()).unwrap();
        assert_eq!(
            next.read().unwrap().into_values().collect::<Vec<_>>(),
            [record(1, None), record(2, Some(HookOutcome::Succeeded { output: vec!["done".into()] }))]
        );
        fs::write(next.path(&record(1, None).key), "{\"key").unwrap();
        assert!(!next.read().unwrap().contains_key(&record(1, None).key));
        assert!(next.holds(&record(1, None).key) && !next.holds(&record(3, None).key));
    }

    #[test]
    fn only_the_newest_that_ended_are_remembered_and_whatever_is_spoken_of() {
        let state = tempfile::tempdir().unwrap();
        let records = Records::open(state.path()).unwrap();
        let ended = || Some(HookOutcome::Succeeded { output: Vec::new() });
        let mut all: BTreeMap<_, _> =
            (0..=KEPT as u64 + 1).map(|it| record(it, ended())).map(|it| (it.key.clone(), it)).collect();
        all.insert(record(5, None).key, record(5, None));
        let spoken = record(0, None).key;
        records.trim(&mut all, |key| *key == spoken);
        assert_eq!(all.len(), KEPT + 2);
        assert!(all.contains_key(&spoken) && all.contains_key(&record(5, None).key));
        records.trim(&mut all, |_| false);
        assert!(!all.contains_key(&spoken), "nobody speaks of it any more");
    }
}
