//! A rollout: the replacement of one release by another, and the small mind that moves it.
//!
//! [`plan`] is the one entry point. It asks [`target`] which release a host should have, and [`converge`] for the next safe
//! step there; [`interlock`] checks the outcome without trusting any of them.

pub mod aside;
pub mod balancers;
pub mod command;
pub mod converge;
pub mod divide;
pub mod draft;
mod forget;
pub mod gate;
pub mod hooks;
pub mod interlock;
pub mod place;
pub mod plan;
pub mod progress;
pub mod queue;
pub mod routing;
mod rules;
mod share;
pub mod spread;
pub mod target;
mod turn;
pub mod waiting;
mod walk;

use crate::analysis::judgement::Judgement;
use crate::fleet::Service;
use crate::name::{HostName, ReleaseId, RolloutId, ServiceName};
use crate::problem::Problem;
use crate::strategy::{Strategy, Wave};
use crate::time::Moment;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What must be remembered of a rollout; everything else is observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub id: RolloutId,
    pub service: ServiceName,
    /// None: the first deployment; going back means running nothing.
    pub from: Option<ReleaseId>,
    pub to: ReleaseId,
    pub strategy: Strategy,
    /// In the order they are replaced.
    pub hosts: Vec<HostName>,
    pub state: RolloutState,
    pub direction: Direction,
    /// Who turned it back, once it is turned.
    pub turned: Option<Turned>,
    /// Why it is paused, while it is.
    pub pause: Option<Pause>,
    /// The wave under way, from 0.
    pub wave: usize,
    /// How many waves a person let through: they need no approval any more, and the bakes between them are over.
    #[serde(default)]
    pub promoted: usize,
    /// When the wave's last host was done: the bake began.
    pub wave_done: Option<Moment>,
    pub started: Moment,
    /// When anything last changed.
    pub progressed: Moment,
    pub ended: Option<Moment>,
    /// Who asked for it.
    pub by: String,
    /// What speaks against the new release. Once there is any, no further host starts it.
    pub evidence: Vec<Evidence>,
    /// What its traffic showed so far.
    #[serde(default)]
    pub judgement: Judgement,
    /// Hosts whose instances are to be of at least this start, though their release stays the same: a restart, or another try.
    #[serde(default)]
    pub starts: BTreeMap<HostName, u32>,
    /// Hosts that were left out or kept back by name when it ended: then the outcome is partial.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// It brings back what was there: nothing waits for hooks.
    #[serde(default)]
    pub returns: bool,
    /// What hosts had kept of rollouts that were ended where they stood, when this one began: they are brought from these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kept: BTreeSet<ReleaseId>,
    /// It was begun to start what is live anew, on the hosts in `starts`, and means no others.
    #[serde(default)]
    pub anew: bool,
    /// Whether another person than the one who asked for it has let it begin.
    #[serde(default)]
    pub consent: Consent,
}

/// Another person's word before anything begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Consent {
    #[default]
    NotNeeded,
    Awaited,
    Given {
        by: String,
    },
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Accepted, nothing done.
    Pending,
    Running,
    Paused,
    Reverting,
    /// Every host attests the new release and no other.
    Succeeded,
    /// So does every host but those left out by name; or a person ended it where it stood.
    Partial,
    /// Every host attests the old release and no other.
    Reverted,
    /// Neither; a person is needed.
    Failed,
}

/// Which way the arrow points. Rollback is not a mode: it is the arrow turned round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Forward,
    Back,
}

/// What turned a rollout back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Turned {
    Evidence,
    Operator { by: String },
}

/// Who stopped a rollout for now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// `baton` when it paused by itself.
    pub by: String,
    pub why: String,
}

/// A problem of the new release on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub host: HostName,
    pub problem: Problem,
}

/// A host that did not take part to the end, and who said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub host: HostName,
    pub by: String,
    pub why: String,
}

impl RolloutState {
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Pending | Self::Running | Self::Paused | Self::Reverting)
    }
}

impl Rollout {
    /// The release a host has once the rollout has passed it in its present direction.
    #[must_use]
    pub fn goal(&self) -> Option<ReleaseId> {
        match self.direction {
            Direction::Forward => Some(self.to),
            Direction::Back => self.from,
        }
    }

    /// Whether a service may be as it left it, having ended. Else the fleet went on without this coordinator, which was restored
    /// from a copy, and it says nothing of what runs now.
    #[must_use]
    pub fn may_have_left(&self, service: &Service) -> bool {
        let live = service.committed;
        let is_live = match self.state {
            RolloutState::Succeeded => live == Some(self.to),
            RolloutState::Partial => live == Some(self.to) || live == self.from,
            _ => live == self.from,
        };
        let knows = |release: ReleaseId| release == self.to || Some(release) == self.from || self.kept.contains(&release);
        is_live && service.orders.kept.values().all(|kept| knows(kept.release))
    }

    /// Whether both releases are everywhere, and nobody reaches the new one but whom a rule names.
    #[must_use]
    pub fn is_previewed(&self) -> bool {
        self.direction == Direction::Forward && self.strategy.waves.get(self.wave).is_some_and(Wave::is_preview)
    }

    /// Whether it starts the live release anew instead of bringing one.
    #[must_use]
    pub fn renews(&self) -> bool {
        self.from == Some(self.to)
    }

    /// The releases that hosts kept beside the live one, where it is the live one that it brings everybody back to.
    pub fn brings_back(&self) -> impl Iterator<Item = ReleaseId> + '_ {
        self.kept.iter().copied().filter(|_| self.renews())
    }

    /// Whether it brings what is live already to hosts that lack it, and nothing else: there is nothing to go back to.
    #[must_use]
    pub fn completes(&self) -> bool {
        self.renews() && !self.anew && self.kept.is_empty()
    }

    /// Whether a host that it leaves out lacks something: who starts one host anew means no other.
    fn is_meant_for(&self, host: &HostName) -> bool {
        !self.anew || self.starts.contains_key(host)
    }
}
