//! Releases that are forgotten: what is taken along when one goes, and what its service still knows of it.
//!
//! A fleet remembers the releases it may need and some of the newest others. What it forgets goes with what is known of its
//! hooks, so that whoever brings it back finds everything as if it had been remembered: a hook that was run stays run, and
//! what could not be gone back to still cannot.

use super::hooks::{CutOff, HookRuns};
use super::{Fleet, Service};
use crate::hook::{HookKey, Of};
use crate::name::ReleaseId;
use crate::release::Release;
use crate::time::Moment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many releases of a service are remembered beside those that something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembers(pub usize);

impl Default for Remembers {
    /// More than people look back, and little enough to be copied in every pass.
    fn default() -> Self {
        Self(20)
    }
}

/// A release that was forgotten, with everything that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    pub release: Arc<Release>,
    /// What is known of the hooks that are run once for it.
    pub hooks: HookRuns,
    pub at: Moment,
    /// The hook that forbade going back to it by then.
    pub cut_off: Option<HookKey>,
}

/// What a service knows of its releases beyond each of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Those that are remembered, in the order in which they were asked for last. One that is missing is older than all of these.
    pub order: Vec<ReleaseId>,
    /// Those that are remembered and cannot be gone back to, because of a hook that need not be remembered itself.
    pub cut_off: BTreeMap<ReleaseId, HookKey>,
    /// The newest hook of a forgotten release after which there is no way back to what was forgotten before it.
    pub newest: Option<Newest>,
}

/// A hook, and until when whatever was forgotten is cut off by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest {
    pub key: HookKey,
    pub until: Moment,
}

impl Past {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Notes that somebody asks for a release now.
    pub fn ask_for(&mut self, release: ReleaseId) {
        self.order.retain(|other| *other != release);
        self.order.push(release);
    }
}

impl Service {
    /// The hook that forbids going back to a release.
    #[must_use]
    pub fn forbids(&self, to: ReleaseId) -> Option<&HookKey> {
        let run = self.hooks.iter().find(|(_, run)| run.cuts_off.releases.contains(&to)).map(|(key, _)| key);
        run.or_else(|| self.past.cut_off.get(&to))
    }

    /// Forgets a release: what goes with it is returned, and what its hooks forbid of the others stays.
    pub fn forget(&mut self, release: Arc<Release>, at: Moment) -> Forgotten {
        let id = release.id();
        let cut_off = self.forbids(id).cloned();
        let is_its = |key: &HookKey| key.of == Of::Release(id);
        let hooks: HookRuns =
            self.hooks.iter().filter(|(key, _)| is_its(key)).map(|(key, run)| (key.clone(), run.clone())).collect();
        self.hooks.retain(|key, _| !is_its(key));
        for (key, run) in &hooks {
            for other in &run.cuts_off.releases {
                self.past.cut_off.entry(*other).or_insert_with(|| key.clone());
            }
            let newest = self.past.newest.as_ref().map(|newest| newest.until);
            if let Some(until) = run.cuts_off.until.filter(|until| Some(*until) > newest) {
                self.past.newest = Some(Newest { key: key.clone(), until });
            }
        }
        self.past.cut_off.remove(&id);
        self.past.order.retain(|other| *other != id);
        Forgotten { release, hooks, at, cut_off }
    }
}

impl Fleet {
    /// Brings a forgotten release back, as if it had been remembered all the time. One that is known stays as it is.
    pub fn bring_back(&mut self, forgotten: Forgotten) {
        let Forgotten { release, hooks, at, cut_off } = forgotten;
        let id = release.id();
        let Some(service) = self.services.get_mut(&release.service).filter(|_| !self.releases.contains_key(&id)) else {
            return;
        };
        // What was asked for while it was forgotten: it would have been cut off with the others.
        let cut = |by: &mut CutOff| {
            if by.until >= Some(at) {
                by.releases.insert(id);
            }
        };
        for run in service.hooks.values_mut() {
            cut(&mut run.cuts_off);
            cut(&mut run.earlier);
        }
        let newest = service.past.newest.as_ref().filter(|newest| newest.until >= at);
        if let Some(key) = cut_off.or_else(|| newest.map(|newest| newest.key.clone())) {
            service.past.cut_off.insert(id, key);
        }
        for (key, run) in hooks {
            service.hooks.entry(key).or_insert(run);
        }
        self.releases.insert(id, release);
    }
}
