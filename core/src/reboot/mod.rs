//! Hosts that are rebooted one after the other, each taken out of the load balancers before and put back after.
//!
//! A thing of its own beside rollouts, like an upgrade of agents: what is next is [`plan::plan`], a function like the others. It
//! drains as `baton hosts drain` does, and whether a host may go is asked of the fleet ([`look`]).

pub mod look;
pub mod plan;

use crate::name::{HostName, RebootId};
use crate::problem::Problem;
use crate::time::{Moment, millis};
use crate::upgrade::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Reboots as they were asked for, and as far as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reboot {
    pub id: RebootId,
    /// Who takes part, in their order.
    pub order: Vec<HostName>,
    /// How many may be under way together.
    pub at_once: usize,
    /// How soon a host must be back once it was told, and how soon everything must serve once it is.
    #[serde(with = "millis")]
    pub back_within: Duration,
    pub by: String,
    pub why: String,
    pub begun: Moment,
    /// When the last host was through with it.
    pub ended: Option<Moment>,
    pub state: State,
    /// What became of those whose turn came.
    pub courses: BTreeMap<HostName, Course>,
}

/// One host's part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    pub phase: Phase,
    /// When it came there.
    pub since: Moment,
    /// Drained for this, so that it is brought back after it. One that people drained stays as it was.
    pub ours: bool,
    /// Which boot it is to leave: told once more, or too late, it is of another one.
    pub boot: String,
    /// Why it does not go on by itself.
    pub failed: Option<Problem>,
}

/// How far a host is, as it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Untold,
    Draining,
    Told,
    /// Another boot of it was seen.
    Returned,
    Done,
    /// It is no host of this fleet any more.
    Gone,
}

impl Phase {
    /// Whether it takes a place among those that may be under way.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Draining | Self::Told | Self::Returned)
    }
}

impl Reboot {
    /// Whether anything may still come of it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    /// Lets it go on: what failed has its time once more, from where it is.
    #[must_use]
    pub fn resumed(mut self, now: Moment) -> Self {
        for course in self.courses.values_mut().filter(|course| course.failed.is_some()) {
            (course.failed, course.since) = (None, now);
        }
        self.state = State::Active;
        self
    }

    /// The same after a host could not be drained.
    #[must_use]
    pub fn refused(mut self, host: &HostName, problem: Problem) -> Self {
        if let Some(course) = self.courses.get_mut(host) {
            course.failed = Some(problem);
        }
        self
    }
}
