//! What this host remembers of the coordinator's audit log: a witness that a coordinator's own disk cannot be.

use crate::durable;
use baton_core::name::Digest;
use baton_proto::v1::AuditHead;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Heads that are kept; a hello carries them all.
const KEPT: usize = 32;

/// The newest heads this host was told, by number.
#[derive(Debug, Default)]
pub struct Heads {
    /// None: remembered until the agent ends, and no longer.
    path: Option<PathBuf>,
    known: Known,
    /// It was said already that another log is seen.
    doubted: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Known(BTreeMap<u64, Digest>);

impl Heads {
    /// Reads what is remembered. A file that cannot be read is begun anew: it holds nothing this host needs.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path: Some(path), known, doubted: false }
    }

    /// Remembers a head. One that is not newer than what is known changes nothing: a log only grows, and a coordinator that
    /// says otherwise must not make this host forget.
    pub fn learn(&mut self, head: &AuditHead) {
        let Ok(hash) = <[u8; 32]>::try_from(head.hash.as_slice()) else { return };
        let newest = self.known.0.last_key_value().map_or(0, |(number, _)| *number);
        if head.number <= newest {
            let another = self.known.0.get(&head.number).is_none_or(|known| *known.as_bytes() != hash);
            // Once: after a restore from a backup each head is another one, until that log is the longer one.
            if another && !std::mem::replace(&mut self.doubted, true) {
                tracing::warn!(number = head.number, newest, "the coordinator's audit log is not the one this host knows");
            }
            return;
        }
        self.doubted = false;
        self.known.0.insert(head.number, Digest::from_bytes(hash));
        while self.known.0.len() > KEPT {
            self.known.0.pop_first();
        }
        let Some(path) = &self.path else { return };
        let kept =
            serde_json::to_vec(&self.known).map_err(std::io::Error::other).and_then(|bytes| durable::replace(path, &bytes));
        if let Err(error) = kept {
            tracing::debug!(%error, "the head of the audit log was not kept");
        }
    }

    /// What the coordinator is told when this host connects.
    pub fn told(&self) -> impl Iterator<Item = AuditHead> {
        self.known.0.iter().map(|(number, hash)| AuditHead { number: *number, hash: hash.as_bytes().to_vec() })
    }
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
    fn a_log_that_was_written_anew_does_not_make_a_host_forget() {
        let mut heads = Heads::default();
        heads.learn(&head(7, 1));
        heads.learn(&head(7, 2));
        heads.learn(&head(3, 3));
        heads.learn(&AuditHead { number: 9, hash: vec![1, 2, 3] });
        assert_eq!(heads.told().collect::<Vec<_>>(), [head(7, 1)]);
    }
}
