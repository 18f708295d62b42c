//! What a host says there is. Durations, never points in time: clocks need not agree.

use super::ability::BalancerAbility;
use super::hooks::HookReport;
use super::latency::Latency;
use super::spec::{HostSpec, MemberState, Stamp};
use super::split::{PLACES, Side, TrafficSplit};
use super::{InstanceKey, LiteMap, MemberKey};
use crate::hook::HookKey;
use crate::name::{PoolName, ReleaseId};
use crate::problem::Problem;
use crate::scrape::Reading;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// One host's observations, complete each time: a report replaces the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostReport {
    /// The stamp of the spec in the host's ledger: the echo.
    pub observed: Stamp,
    /// Changes with every boot.
    pub boot: String,
    /// Every instance of ours that exists, wanted or not.
    #[serde(serialize_with = "super::as_map")]
    pub instances: LiteMap<InstanceKey, InstanceReport>,
    pub pools: BTreeMap<PoolName, PoolReport>,
    #[serde(serialize_with = "super::as_map")]
    pub releases: LiteMap<ReleaseId, ReleaseState>,
    /// What keeps this host from doing what it should, beyond a single instance or pool.
    pub problems: Vec<Problem>,
    /// What this agent's balancer can do. None: an agent that does not say yet.
    #[serde(default)]
    pub balancer: Option<BalancerAbility>,
    /// What became of the hooks this host knows of.
    #[serde(default)]
    pub hooks: BTreeMap<HookKey, HookReport>,
    /// Bytes that instances have for themselves, where they were measured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub memory: BTreeMap<InstanceKey, u64>,
    /// What came of reading the instances' own counters, where a spec asks for that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<InstanceKey, Reading>,
    /// Instances that are there and ended by themselves before, on the release they have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub falls: BTreeMap<InstanceKey, Fall>,
    /// Bytes that can still be written where releases are kept, where the host says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<u64>,
}

/// How an instance ended by itself, since it got its release or its agent was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fall {
    pub times: u32,
    /// The last of them, and how long ago it was.
    #[serde(with = "millis")]
    pub ago: Duration,
    pub problem: Problem,
}

/// One instance as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// What really runs: read from the process or unit, not from the spec.
    pub release: ReleaseId,
    /// Which start of it: boot id and unit invocation, or pid and start time.
    pub incarnation: String,
    /// The count of the spec it was started for.
    #[serde(default)]
    pub start: u32,
    pub state: InstanceState,
}

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Started, not ready yet.
    Starting {
        #[serde(with = "millis")]
        since: Duration,
        /// The last probe's answer, once there is one.
        last: Option<Problem>,
    },
    /// Ready, without a break for this long.
    Ready {
        #[serde(with = "millis")]
        since: Duration,
    },
    /// Was ready on this incarnation and no longer is.
    Unready {
        #[serde(with = "millis")]
        since: Duration,
        problem: Problem,
    },
    /// Asked to finish, still there.
    Stopping {
        #[serde(with = "millis")]
        since: Duration,
    },
    /// Exited, never ready in time, or could not start. No process of it is left.
    Failed { problem: Problem },
}

/// One pool as its balancer itself says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The balancer's process: pid and start time. Changes when it restarts.
    pub balancer: String,
    pub members: BTreeMap<MemberKey, MemberReport>,
    /// Why nothing here can be believed or changed: socket gone, pool unknown, foreign owner.
    pub problem: Option<Problem>,
    /// How its requests are divided, now and after a restart, and what came of it.
    #[serde(default)]
    pub split: Option<SplitReport>,
}

/// A split as the balancer says it is in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitReport {
    pub split: TrafficSplit,
    /// Whether it would be the same after a restart.
    pub on_disk: bool,
    /// Requests since this very split came into effect, by the side they were sent to.
    pub stable: u64,
    pub trial: u64,
    /// Of those to the trial side, sent there by a rule, where the balancer can tell.
    pub ruled: u64,
}

/// One member as the balancer says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// What the running balancer does.
    pub running: MemberState,
    /// What it would do after a restart.
    pub on_disk: MemberState,
    /// Requests in flight and in queue, over every generation of the balancer's process.
    pub in_flight: u64,
    /// How long the oldest of those in flight has been open, where the balancer can tell.
    #[serde(default)]
    pub oldest: Option<Duration>,
    /// How long it has been out; zero while it is not.
    #[serde(with = "millis")]
    pub out_for: Duration,
    /// Requests cut at the drain's deadline since the member last went out.
    pub cut: u64,
    /// Requests answered since the balancer started.
    pub requests: u64,
    /// Of these, answered 5xx, unreachable, or broken off.
    pub errors: u64,
    /// The side of a split it serves.
    #[serde(default)]
    pub side: Side,
    /// How long until it has its whole weight, while that grows.
    #[serde(default)]
    pub full_in: Option<Duration>,
    /// How long its answers took, where the balancer counts that.
    #[serde(default)]
    pub latency: Option<Box<Latency>>,
    /// That somebody changed it by hand, and it was put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected: Option<Box<Correction>>,
    /// Why the member is not in the state that was asked for.
    pub problem: Option<Problem>,
}

/// That a member was changed by hand and is as it was asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// How often, since its agent was started.
    pub times: u32,
    /// The last of them: how long ago it was,
    #[serde(with = "millis")]
    pub ago: Duration,
    /// and what it had been made.
    pub was: String,
}

/// A release on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReleaseState {
    /// Bytes on the way.
    Fetching { done: u64, total: u64 },
    /// Unpacked and verified.
    Held,
    /// Cannot be had here, and trying again will not help.
    Rejected { problem: Problem },
}

impl HostReport {
    /// Whether the host has taken this very spec.
    #[must_use]
    pub fn follows(&self, spec: &HostSpec) -> bool {
        self.observed == spec.stamp()
    }
}

impl InstanceState {
    /// How long it has been ready without a break, when it is.
    #[must_use]
    pub const fn ready_for(&self) -> Option<Duration> {
        match self {
            Self::Ready { since } => Some(*since),
            _ => None,
        }
    }

    /// Whether a process of it may exist.
    #[must_use]
    pub const fn may_run(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }
}

impl SplitReport {
    /// The share achieved, in hundredths of a percent of the requests no rule decided; None before the first one.
    #[must_use]
    pub fn achieved(&self) -> Option<u64> {
        let drawn = self.trial.saturating_sub(self.ruled);
        drawn.saturating_mul(u64::from(PLACES)).checked_div(self.stable.saturating_add(drawn))
    }
}

impl MemberReport {
    /// A member in a state, with nothing in flight and nothing counted.
    #[must_use]
    pub const fn quiet(state: MemberState) -> Self {
        Self {
            running: state,
            on_disk: state,
            in_flight: 0,
            oldest: None,
            out_for: Duration::ZERO,
            cut: 0,
            requests: 0,
            errors: 0,
            side: Side::Stable,
            full_in: None,
            latency: None,
            corrected: None,
            problem: None,
        }
    }

    /// Whether nothing can reach the member through this balancer any more, now or after a restart, and nothing is under way:
    /// or what was under way had its time.
    #[must_use]
    pub fn is_drained(&self, deadline: Duration) -> bool {
        self.is_out() && (self.in_flight == 0 || self.out_for >= deadline)
    }

    #[must_use]
    pub fn is_out(&self) -> bool {
        self.running == MemberState::Out && self.on_disk == MemberState::Out
    }

    #[must_use]
    pub fn is_in(&self) -> bool {
        self.running == MemberState::Ready && self.on_disk == MemberState::Ready
    }
}
