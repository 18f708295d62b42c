//! The next safe step for one host: the other half of the mind.
//!
//! It knows no strategy and no phase. It looks at what is, and one rule keeps it safe: *a slot is touched only while every
//! balancer has read back that nothing leads to it.*

use super::place::Place;
use super::routing::{Enrolled, Routing};
use super::waiting::Reason;
use crate::fleet::Host;
use crate::fleet::hooks::HookRun;
use crate::fleet::report::{HostReport, InstanceState, ReleaseState};
use crate::fleet::spec::{InstanceSpec, MemberState};
use crate::fleet::withdraw::Withdrawal;
use crate::hook::HookKey;
use crate::name::{ReleaseId, Slot};
use crate::problem::Problem;
use crate::release::Health;
use crate::strategy::Placement;
use std::time::Duration;

/// What to do next on one host, or why nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The host has the release, serves it, and runs no other.
    Done,
    Wait(Reason),
    /// The release does not work here.
    Failed(Problem),
    /// Take the slot's member out of every balancer.
    Drain(Slot),
    /// Tell the host to run the release in this slot, in place of whatever is there.
    Start(Slot, ReleaseId),
    /// Tell the host to run nothing in this slot.
    Stop(Slot),
    /// Put the slot's member into every balancer.
    Enroll(Slot),
    /// Have the host run its last hook.
    Hook(HookKey, Box<HookRun>),
}

/// How to bring a host to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub placement: Placement,
    pub drain_deadline: Duration,
    /// Nothing else may run where the release starts: what is there stops first.
    pub exclusive: bool,
    /// The release that may stay beside the one the host is brought to.
    pub keep: Option<Keep>,
    /// An instance of an earlier start than this is replaced, though its release is the right one.
    pub start: u32,
}

/// What stays beside the goal: in, with a share of the traffic, or out, as a way back that needs no start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub release: ReleaseId,
    pub state: MemberState,
}

/// The next safe step that brings a host to `goal`, or to running nothing of the service.
#[must_use]
pub fn converge(place: &Place<'_>, goal: Option<ReleaseId>, way: Way) -> Step {
    let Some(host) = place.host() else { return Step::Wait(Reason::NeverJoined) };
    if !host.connected {
        return Step::Wait(silent(place, host));
    }
    let Some(report) = host.echoed() else { return Step::Wait(Reason::Echo) };
    let Some(goal) = goal else { return retire(place, None, Way { keep: None, ..way }) };
    let way = Way { keep: way.keep.filter(|keep| keep.release != goal), ..way };
    match place.slot_of(goal, way.start) {
        None => begin(place, report, goal, way),
        Some(slot) => finish(place, report, goal, slot, way),
    }
}

fn silent(place: &Place<'_>, host: &Host) -> Reason {
    let silent_for = host.heard.as_ref().map_or(Duration::ZERO, |heard| place.now.since(heard.at));
    Reason::AgentSilent { silent_for }
}

/// Finds a slot for the release and clears the way to it.
fn begin(place: &Place<'_>, report: &HostReport, goal: ReleaseId, way: Way) -> Step {
    match report.releases.get(&goal) {
        Some(ReleaseState::Held) => {}
        Some(ReleaseState::Rejected { problem }) => return Step::Failed(problem.clone()),
        Some(ReleaseState::Fetching { done, total }) => {
            return Step::Wait(Reason::Artifact { done: *done, total: *total });
        }
        None => {
            let total = place.fleet.releases.get(&goal).map_or(0, |release| release.artifact.size);
            return Step::Wait(Reason::Artifact { done: 0, total });
        }
    }
    if let Some((slot, _)) = place.issued().next().filter(|_| way.exclusive) {
        return when_drained(place, slot, way, Step::Stop(slot));
    }
    match choose(place, way) {
        Err(reason) => Step::Wait(reason),
        Ok(slot) => {
            when_routed(place.routing_before_the_next(slot, way.drain_deadline), place, slot, Step::Start(slot, goal))
        }
    }
}

/// The slot for a new instance: a free one where the new starts beside the old, else the one to replace.
fn choose(place: &Place<'_>, way: Way) -> Result<Slot, Reason> {
    if let Some((_, instance)) = place.leftovers().next() {
        return Err(Reason::Stopping { since: stopping_for(&instance.state) });
    }
    let occupied = || {
        // What may stay is the last to go, and what is to share the traffic is not idle because it comes back only now.
        let stays = |told: &InstanceSpec| way.keep.is_some_and(|keep| keep.release == told.release);
        let shares = |told: &InstanceSpec| stays(told) && way.keep.is_some_and(|keep| keep.state == MemberState::Ready);
        let idle = place.issued().find(|(slot, told)| !place.serves_in(*slot) && !shares(told)).map(|(slot, _)| slot);
        let other = || place.issued().find(|(_, told)| !stays(told)).map(|(slot, _)| slot);
        let out = || place.issued().map(|(slot, _)| slot).find(|slot| !place.is_told_in(*slot));
        idle.or_else(other).or_else(out).or_else(|| place.issued().map(|(slot, _)| slot).next())
    };
    let free = || place.service.slots().find(|slot| !place.issued().any(|(issued, _)| issued == *slot));
    let slot = match way.placement {
        Placement::InPlace => occupied().or_else(free),
        Placement::SideBySide => free().or_else(occupied),
    };
    slot.ok_or(Reason::Echo)
}

/// The release was told to run in this slot: is it ready, is it in, is the old one gone?
fn finish(place: &Place<'_>, report: &HostReport, goal: ReleaseId, slot: Slot, way: Way) -> Step {
    let health = place.fleet.releases.get(&goal).map(|release| &release.health);
    let deadline = health.map_or(Duration::ZERO, |health| health.start_timeout);
    let probe = |since, last| Step::Wait(Reason::Probe { since, deadline, last });
    let Some(instance) = report.instances.get(&place.key(slot)) else {
        return match report.releases.get(&goal) {
            // It was told when it had the release, and will not start it again.
            Some(ReleaseState::Rejected { problem }) => Step::Failed(problem.clone()),
            _ => probe(Duration::ZERO, None),
        };
    };
    let told = place.issued().find(|(issued, _)| *issued == slot).map(|(_, spec)| spec);
    let fallback = told.filter(|told| told.start == instance.start).and_then(|told| told.fallback);
    if let Some(fallback) = fallback.filter(|fallback| *fallback == instance.release) {
        let version = place.fleet.releases.get(&fallback).map(|release| release.version.clone());
        return Step::Wait(Reason::FellBack { version });
    }
    if instance.release != goal || Some(instance.start) != told.map(|told| told.start) {
        let since = stopping_for(&instance.state);
        return Step::Wait(match told.and_then(|told| told.withdraw) {
            // Every balancer can be told again, and was: nothing has to find out by itself.
            Some(_) if place.routing(slot, way.drain_deadline) == Routing::Drained => return Step::Start(slot, goal),
            Some(Withdrawal { unready_for, .. }) => Reason::Withdrawing { since, unready_for },
            None => Reason::Stopping { since },
        });
    }
    if mutant!("health is watched until its first success") && place.enrolled(slot) == Enrolled::In {
        return retire(place, Some(slot), way);
    }
    let has_failed = match &instance.state {
        InstanceState::Failed { .. } => true,
        InstanceState::Unready { since, .. } => *since >= deadline,
        _ => false,
    };
    if let Some(step) = comes_back(place, report, way).filter(|_| !has_failed) {
        return step;
    }
    match &instance.state {
        InstanceState::Failed { problem } => Step::Failed(problem.clone()),
        InstanceState::Starting { since, last } => probe(*since, last.clone()),
        InstanceState::Unready { since, problem } if *since >= deadline => Step::Failed(problem.clone()),
        InstanceState::Unready { since, problem } => probe(*since, Some(problem.clone())),
        InstanceState::Stopping { since } => Step::Wait(Reason::Stopping { since: *since }),
        InstanceState::Ready { since } => match place.enrolled(slot) {
            Enrolled::NotAsked => proven(*since, health, Step::Enroll(slot)),
            Enrolled::Waiting(reason) => Step::Wait(reason),
            // Nobody had to put it in, so nobody asked yet whether it has been ready for long enough.
            Enrolled::In if place.service.balancer.is_none() => proven(*since, health, retire(place, Some(slot), way)),
            Enrolled::In => retire(place, Some(slot), way),
            Enrolled::FoundOut(after) if *since < after => Step::Wait(Reason::Healthy { ready_for: *since, needed: after }),
            Enrolled::FoundOut(_) => retire(place, Some(slot), way),
        },
    }
}

/// What shares the traffic with the new release is in, and comes in again where people took it out for a while: before anything
/// else does. One that does not answer is not waited for.
fn comes_back(place: &Place<'_>, report: &HostReport, way: Way) -> Option<Step> {
    let keep = way.keep.filter(|keep| keep.state == MemberState::Ready)?;
    let (slot, told) = place.issued().find(|(_, told)| told.release == keep.release)?;
    let health = place.fleet.releases.get(&told.release).map(|release| &release.health);
    let instance =
        report.instances.get(&place.key(slot)).filter(|it| (it.release, it.start) == (told.release, told.start))?;
    match (&instance.state, place.enrolled(slot)) {
        (InstanceState::Ready { since }, Enrolled::NotAsked) => Some(proven(*since, health, Step::Enroll(slot))),
        // What can be told meanwhile is.
        (_, Enrolled::Waiting(Reason::BalancerUnreachable { .. })) => None,
        (InstanceState::Ready { .. }, Enrolled::Waiting(reason)) => Some(Step::Wait(reason)),
        _ => None,
    }
}

/// The step, once the instance has been ready for long enough.
fn proven(ready_for: Duration, health: Option<&Health>, step: Step) -> Step {
    let needed = health.map_or(Duration::ZERO, |health| health.healthy_for);
    if ready_for < needed { Step::Wait(Reason::Healthy { ready_for, needed }) } else { step }
}

/// Stops every instance but the one in `goal` and what may stay beside it, one after the other.
fn retire(place: &Place<'_>, goal: Option<Slot>, way: Way) -> Step {
    for (slot, told) in place.issued().filter(|(slot, _)| Some(*slot) != goal) {
        let then = match way.keep.filter(|keep| keep.release == told.release) {
            Some(Keep { state: MemberState::Ready, .. }) => continue,
            Some(_) => Step::Done,
            None => Step::Stop(slot),
        };
        let step = when_drained(place, slot, way, then);
        if step != Step::Done {
            return step;
        }
    }
    match place.leftovers().next() {
        Some((_, instance)) => Step::Wait(Reason::Stopping { since: stopping_for(&instance.state) }),
        None => Step::Done,
    }
}

/// The one rule: the step, if nothing leads to the slot any more; else what brings that about.
fn when_drained(place: &Place<'_>, slot: Slot, way: Way, step: Step) -> Step {
    when_routed(place.routing(slot, way.drain_deadline), place, slot, step)
}

fn when_routed(routing: Routing, place: &Place<'_>, slot: Slot, step: Step) -> Step {
    match routing {
        Routing::Drained => step,
        Routing::NotAsked => Step::Drain(slot),
        Routing::Waiting(Reason::Draining { balancer, .. }) if !place.issued().any(|(issued, _)| issued == slot) => {
            Step::Wait(Reason::Shutting { balancer })
        }
        Routing::Waiting(reason) | Routing::Unreachable(reason) => Step::Wait(reason),
    }
}

fn stopping_for(state: &InstanceState) -> Duration {
    match state {
        InstanceState::Stopping { since } => *since,
        _ => Duration::ZERO,
    }
}
