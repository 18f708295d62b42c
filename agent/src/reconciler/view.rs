//! What this host says of itself: observations with the instant they began, so that durations are right when they are sent.

use super::Obstacle;
use baton_core::fleet::ability::BalancerAbility;
use baton_core::fleet::hooks::{HookOutcome, HookReport};
use baton_core::fleet::report::{
    Correction, Fall, HostReport, InstanceReport, InstanceState, MemberReport, PoolReport, ReleaseState,
};
use baton_core::fleet::spec::{HostSpec, Stamp};
use baton_core::fleet::{InstanceKey, LiteMap, MemberKey};
use baton_core::hook::HookKey;
use baton_core::name::{PoolName, ReleaseId};
use baton_core::problem::Problem;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One host as it is.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub observed: Stamp,
    /// The spec in the ledger.
    pub told: Option<Arc<HostSpec>>,
    pub boot: String,
    pub instances: BTreeMap<InstanceKey, InstanceView>,
    pub pools: BTreeMap<PoolName, PoolReport>,
    pub releases: LiteMap<ReleaseId, ReleaseState>,
    pub problems: BTreeMap<Obstacle, Problem>,
    /// None until the balancer, or that there is none, was looked at once.
    pub balancer: Option<BalancerAbility>,
    pub hooks: BTreeMap<HookKey, HookView>,
    /// Of the instances that are there, those that ended by themselves before, on the release they have.
    pub falls: BTreeMap<InstanceKey, FallView>,
}

/// [`Fall`] with an instant for a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallView {
    pub times: u32,
    pub at: Instant,
    pub problem: Problem,
}

/// One hook as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookView {
    pub attempt: u32,
    pub phase: HookPhase,
}

/// [`HookOutcome`] with instants for durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookPhase {
    Running { at: Instant },
    Ended(HookOutcome),
}

/// One instance as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    pub release: ReleaseId,
    pub incarnation: String,
    pub start: u32,
    /// Its first process, while it runs.
    pub pid: Option<u32>,
    pub phase: Phase,
    /// Ready for as long as its release asks: worth a report of its own.
    pub proven: bool,
}

/// [`InstanceState`] with instants for durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    Starting { at: Instant, last: Option<Problem> },
    Ready { at: Instant },
    Unready { at: Instant, problem: Problem },
    Stopping { at: Instant },
    Failed { problem: Problem },
}

impl View {
    #[must_use]
    pub fn report(&self, now: Instant) -> HostReport {
        HostReport {
            observed: self.observed,
            boot: self.boot.clone(),
            instances: self.instances.iter().map(|(key, instance)| (key.clone(), instance.report(now))).collect(),
            pools: self.pools.clone(),
            releases: self.releases.clone(),
            problems: self.problems.values().cloned().collect(),
            balancer: self.balancer.clone(),
            hooks: self.hooks.iter().map(|(key, hook)| (key.clone(), hook.report(now))).collect(),
            falls: self.falls.iter().map(|(key, fall)| (key.clone(), fall.report(now))).collect(),
            // Measured by whoever sends it: nothing here follows from it.
            memory: BTreeMap::new(),
            counters: BTreeMap::new(),
            room: None,
        }
    }

    /// Whether the difference is worth a report at once. Counters and durations are not; what they cross is.
    #[must_use]
    pub(super) fn differs(&self, other: &View, drain_deadlines: &BTreeMap<PoolName, Duration>) -> bool {
        self.observed != other.observed
            || self.boot != other.boot
            || self.instances != other.instances
            || self.releases != other.releases
            || self.problems != other.problems
            || self.balancer != other.balancer
            || self.hooks != other.hooks
            || self.falls != other.falls
            || self.pools.len() != other.pools.len()
            || self.pools.iter().any(|(name, pool)| {
                let deadline = drain_deadlines.get(name).copied().unwrap_or(Duration::MAX);
                other.pools.get(name).is_none_or(|other| pool_differs(pool, other, deadline))
            })
    }
}

fn pool_differs(pool: &PoolReport, other: &PoolReport, deadline: Duration) -> bool {
    let plain = |members: &BTreeMap<MemberKey, MemberReport>| {
        let plain = |member: &MemberReport| {
            let drained = member.is_drained(deadline);
            // What serves has requests in flight all the time; their number matters only once nothing new comes.
            let in_flight = if member.is_out() { member.in_flight } else { 0 };
            let counted = MemberReport { requests: 0, errors: 0, latency: None, oldest: None, ..member.clone() };
            let full_in = counted.full_in.map(|_| Duration::ZERO);
            let corrected = counted.corrected.clone().map(|it| Correction { ago: Duration::ZERO, ..*it }.into());
            (MemberReport { out_for: Duration::ZERO, in_flight, full_in, corrected, ..counted }, drained)
        };
        members.iter().map(|(key, member)| (key.clone(), plain(member))).collect::<Vec<_>>()
    };
    let split = |pool: &PoolReport| pool.split.as_ref().map(|seen| (seen.split.clone(), seen.on_disk));
    pool.balancer != other.balancer
        || pool.problem != other.problem
        || split(pool) != split(other)
        || plain(&pool.members) != plain(&other.members)
}

impl FallView {
    fn report(&self, now: Instant) -> Fall {
        Fall { times: self.times, ago: now.saturating_duration_since(self.at), problem: self.problem.clone() }
    }
}

impl HookView {
    fn report(&self, now: Instant) -> HookReport {
        let state = match &self.phase {
            HookPhase::Running { at } => HookOutcome::Running { since: now.saturating_duration_since(*at) },
            HookPhase::Ended(outcome) => outcome.clone(),
        };
        HookReport { attempt: self.attempt, state }
    }
}

impl InstanceView {
    #[must_use]
    pub fn report(&self, now: Instant) -> InstanceReport {
        let since = |at: &Instant| now.saturating_duration_since(*at);
        let state = match &self.phase {
            Phase::Starting { at, last } => InstanceState::Starting { since: since(at), last: last.clone() },
            Phase::Ready { at } => InstanceState::Ready { since: since(at) },
            Phase::Unready { at, problem } => InstanceState::Unready { since: since(at), problem: problem.clone() },
            Phase::Stopping { at } => InstanceState::Stopping { since: since(at) },
            Phase::Failed { problem } => InstanceState::Failed { problem: problem.clone() },
        };
        InstanceReport { release: self.release, incarnation: self.incarnation.clone(), start: self.start, state }
    }
}
