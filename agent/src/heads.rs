//! What this host remembers of the coordinator's audit log: a witness that a coordinator's own disk cannot be.

use crate::durable;
use baton_core::name::Digest;
use baton_proto::v1::AuditHead;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Heads that are kept; a hello carries them all.
const KEPT: usize = 32;

/// The newest heads this host was told, by number; and of logs that were there before, the newest it knew.
#[derive(Debug, Default)]
pub struct Heads {
    /// None: remembered until the agent ends, and no longer.
    path: Option<PathBuf>,
    known: Known,
    /// Never forgotten for anything that came later: a coordinator that writes its log anew must not make a host forget.
    before: Known,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Known(BTreeMap<u64, Digest>);

impl Known {
    /// A file that cannot be read is begun anew: it holds nothing this host needs.
    fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn keep(&self, path: &Path) {
        let kept = serde_json::to_vec(self).map_err(std::io::Error::other).and_then(|bytes| durable::replace(path, &bytes));
        if let Err(error) = kept {
            tracing::debug!(%error, "the head of the audit log was not kept");
        }
    }
}

impl Heads {
    /// Reads what is remembered.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        Self { known: Known::read(&path), before: Known::read(&before(&path)), path: Some(path) }
    }

    /// Remembers a head. A log only grows: one that ends before what is known of it is another one, from a backup or written
    /// anew, and both are remembered.
    pub fn learn(&mut self, head: &AuditHead) {
        let Ok(hash) = <[u8; 32]>::try_from(head.hash.as_slice()) else { return };
        let hash = Digest::from_bytes(hash);
        let newest = self.known.0.last_key_value().map_or(0, |(number, _)| *number);
        if head.number <= newest {
            if self.known.0.get(&head.number) == Some(&hash) {
                return;
            }
            tracing::warn!(number = head.number, newest, "the coordinator's audit log is not the one this host knows");
            self.put_aside();
        }
        self.known.0.insert(head.number, hash);
        while self.known.0.len() > KEPT {
            self.known.0.pop_first();
        }
        if let Some(path) = &self.path {
            self.known.keep(path);
        }
    }

    fn put_aside(&mut self) {
        let known = std::mem::take(&mut self.known.0);
        // Half of what is left: there is room for those that come later, and the first is what is remembered best.
        let room = (KEPT - self.before.0.len()).div_ceil(2);
        for (number, hash) in known.into_iter().rev().take(room) {
            if self.before.0.len() < KEPT {
                self.before.0.entry(number).or_insert(hash);
            }
        }
        if let Some(path) = &self.path {
            self.before.keep(&before(path));
        }
    }

    /// What the coordinator is told when this host connects.
    pub fn told(&self) -> impl Iterator<Item = AuditHead> {
        self.before
            .0
            .iter()
            .chain(&self.known.0)
            .map(|(number, hash)| AuditHead { number: *number, hash: hash.as_bytes().to_vec() })
    }
}

fn before(path: &Path) -> PathBuf {
    path.with_extension("before.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: u64, byte: u8) -> AuditHead {
        AuditHead { number, hash: vec![byte; 32] }
    }

    #[test]
    fn the_newest_heads_are_kept_and_survive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit-heads.json");
        let mut heads = Heads::open(path.clone());
        (1..=100).for_each(|number| heads.learn(&head(number, number as u8)));
        let told: Vec<_> = Heads::open(path).told().collect();
        assert_eq!(told.len(), KEPT);
        assert_eq!(told.last(), Some(&head(100, 100)));
    }

    #[test]
    fn a_log_that_was_written_anew_is_another_one_and_neither_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut heads = Heads::open(folder.path().join("audit-heads.json"));
        let told = |heads: &Heads| heads.told().collect::<Vec<_>>();
        heads.learn(&head(6, 1));
        heads.learn(&head(7, 1));
        heads.learn(&head(7, 1));
        heads.learn(&AuditHead { number: 9, hash: vec![1, 2, 3] });
        assert_eq!(told(&heads), [head(6, 1), head(7, 1)]);
        heads.learn(&head(3, 2));
        heads.learn(&head(4, 2));
        let both = [head(6, 1), head(7, 1), head(3, 2), head(4, 2)];
        assert_eq!(told(&heads), both);
        let mut heads = Heads::open(folder.path().join("audit-heads.json"));
        assert_eq!(told(&heads), both);
        // However often: what was known first stays, and a hello carries only so many.
        for round in 0..100 {
            heads.learn(&head(100, round));
            heads.learn(&head(2, round));
        }
        let told = told(&heads);
        assert!(told.len() <= 2 * KEPT && told.contains(&head(7, 1)) && told.contains(&head(4, 2)), "{told:?}");
    }
}
