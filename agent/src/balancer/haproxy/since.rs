//! What a pool's sides were sent since their split came into effect: HAProxy only counts since it started.

use super::look::Look;
use super::{Haproxy, trial};
use crate::balancer::driver::SplitSeen;
use crate::balancer::{durable, problem};
use baton_core::name::PoolName;
use baton_core::problem::Problem;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Requests by side, as one process counted them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    identity: String,
    stable: u64,
    trial: u64,
}

/// What was counted when each pool's split came into effect, and the file that remembers it.
#[derive(Debug)]
pub(super) struct Since {
    path: PathBuf,
    begun: BTreeMap<PoolName, Counted>,
    /// What was counted last.
    now: BTreeMap<PoolName, Counted>,
}

impl Since {
    /// Opens the file. One that cannot be read only makes the counts those since the process started.
    pub(super) fn open(path: PathBuf) -> Self {
        let begun = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, begun, now: BTreeMap::new() }
    }

    /// A split comes into effect now.
    pub(super) async fn begin(&mut self, pool: &PoolName) -> Result<(), Problem> {
        self.begun.insert(pool.clone(), self.now.get(pool).cloned().unwrap_or_default());
        let text = serde_json::to_string(&self.begun).unwrap_or_default();
        durable::replace(&self.path, text).await.map_err(|error| problem::state_folder(&self.path, &error))
    }

    pub(super) fn fill(&self, pool: &PoolName, seen: SplitSeen) -> SplitSeen {
        let now = self.now.get(pool).cloned().unwrap_or_default();
        // Another process began at nothing.
        let begun = self.begun.get(pool).filter(|begun| begun.identity == now.identity).cloned().unwrap_or_default();
        let (stable, trial) = (now.stable.saturating_sub(begun.stable), now.trial.saturating_sub(begun.trial));
        SplitSeen { stable, trial, ..seen }
    }
}

impl Haproxy {
    pub(super) fn count(&mut self, pool: &PoolName, look: &Look) {
        let counted = Counted {
            identity: look.process.identity(),
            stable: look.requests(pool.as_str()),
            trial: look.requests(&trial(pool)),
        };
        self.since.now.insert(pool.clone(), counted);
    }
}
