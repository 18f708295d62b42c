//! What this host remembers of its instances beyond what can be observed: verdicts, and who was ready before.

use crate::durable;
use baton_core::fleet::InstanceKey;
use baton_core::name::ReleaseId;
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Remembered facts, on disk at once.
#[derive(Debug)]
pub struct Notes {
    path: PathBuf,
    facts: Facts,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    /// Instances on trial that failed: an agent that is restarted must not try them again.
    verdicts: BTreeMap<InstanceKey, Verdict>,
    /// The incarnation that was ready in each slot: if it does not answer now, that is no slow start.
    ready: BTreeMap<InstanceKey, String>,
}

/// That a release failed in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub release: ReleaseId,
    pub incarnation: String,
    #[serde(default)]
    pub start: u32,
    pub problem: Problem,
}

impl Notes {
    /// Reads the notes of a state folder. Notes that cannot be read are none: they only ever save a repetition.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join("notes.json");
        let facts = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, facts }
    }

    #[must_use]
    pub fn verdicts(&self) -> &BTreeMap<InstanceKey, Verdict> {
        &self.facts.verdicts
    }

    #[must_use]
    pub fn was_ready(&self, key: &InstanceKey, incarnation: &str) -> bool {
        self.facts.ready.get(key).is_some_and(|ready| ready == incarnation)
    }

    pub(super) fn note_ready(&mut self, key: &InstanceKey, incarnation: &str) {
        if !self.was_ready(key, incarnation) {
            self.facts.ready.insert(key.clone(), incarnation.to_owned());
            self.write();
        }
    }

    pub(super) fn note_verdict(&mut self, key: &InstanceKey, verdict: Verdict) {
        self.facts.verdicts.insert(key.clone(), verdict);
        self.write();
    }

    /// The slot begins anew.
    pub(super) fn clear(&mut self, key: &InstanceKey) {
        let verdict = self.facts.verdicts.remove(key).is_some();
        if self.facts.ready.remove(key).is_some() || verdict {
            self.write();
        }
    }

    fn write(&self) {
        let written = serde_json::to_vec(&self.facts).map_err(Into::into);
        if let Err(error) = written.and_then(|bytes| durable::replace_until_reboot(&self.path, &bytes)) {
            tracing::warn!(%error, "notes could not be written");
        }
    }
}
