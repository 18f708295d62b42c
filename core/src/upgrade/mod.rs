//! The agents' own packages, brought to the hosts in rings: one host first, then more of them.
//!
//! A thing of its own beside rollouts: it touches no service. What is next is [`plan::plan`], a function like the others.

pub mod plan;

use crate::name::{Architecture, HostName, PackageVersion, UpgradeId};
use crate::problem::Problem;
use crate::release::Artifact;
use crate::strategy::Amount;
use crate::time::{Moment, millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A package of the agent: its file, and what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    pub artifact: Artifact,
    pub version: PackageVersion,
    pub architecture: Architecture,
}

/// One package on its way to the hosts, as it was asked for and as far as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    pub id: UpgradeId,
    pub package: Package,
    /// Who takes part, in their order.
    pub order: Vec<HostName>,
    /// Cumulative, the first of one host: a ring begins when every host of the one before runs the package.
    pub rings: Vec<Amount>,
    /// How long the new agent's session must have lasted before its host counts.
    #[serde(with = "millis")]
    pub healthy_for: Duration,
    /// How soon the new agent must have a session; else its host goes back by itself.
    #[serde(with = "millis")]
    pub back_within: Duration,
    pub by: String,
    pub begun: Moment,
    pub ended: Option<Moment>,
    pub state: State,
    /// What became of those that were told.
    pub courses: BTreeMap<HostName, Course>,
}

/// How an upgrade as a whole stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Active,
    /// No further host is told.
    Paused(Paused),
    Succeeded,
    Aborted {
        by: String,
    },
}

/// Why it is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paused {
    By(String),
    Failure { host: HostName, problem: Problem },
}

/// One host's part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Counts up when it is told once more: hosts carry an attempt out once.
    pub attempt: u32,
    pub step: Step,
}

/// How far one host is, as it was decided.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    #[default]
    Untold,
    Told,
    Done,
    Failed(Problem),
}

impl State {
    /// Whether anything may still come of it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Active | Self::Paused(_))
    }

    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Active => "running",
            Self::Paused(_) => "paused",
            Self::Succeeded => "succeeded",
            Self::Aborted { .. } => "aborted",
        }
    }
}

impl Upgrade {
    /// The ring, counted from 0, of each host in the order.
    pub fn rings_of_hosts(&self) -> impl Iterator<Item = (&HostName, usize)> {
        let total = self.order.len();
        let ring = move |place: usize| {
            let reached = self.rings.iter().position(|ring| place < ring.of(total));
            reached.unwrap_or(self.rings.len().saturating_sub(1))
        };
        self.order.iter().enumerate().map(move |(place, host)| (host, ring(place)))
    }

    /// Lets it go on: what failed is told once more when its turn comes.
    #[must_use]
    pub fn resumed(mut self) -> Self {
        for course in self.courses.values_mut().filter(|course| matches!(course.step, Step::Failed(_))) {
            *course = Course { attempt: course.attempt + 1, step: Step::Untold };
        }
        self.state = State::Active;
        self
    }

    #[must_use]
    pub fn step(&self, host: &HostName) -> &Step {
        self.courses.get(host).map_or(&Step::Untold, |course| &course.step)
    }

    #[must_use]
    pub fn attempt(&self, host: &HostName) -> u32 {
        self.courses.get(host).map_or(0, |course| course.attempt)
    }
}
