//! What a restored coordinator learns from the hosts, and how it goes on from there.
//!
//! The hosts' documents are believed over the copy. What only the coordinator knew, the copy's word stands for: rollouts that
//! were under way then pause, for a person has to say whether they still are.

use super::super::progress;
use super::{Accepted, never_joined};
use crate::fleet::fence::{Fence, Told};
use crate::fleet::spec::{Restart, Stamp};
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::collections::BTreeSet;

/// No coordinator was started so often: a host that says so errs, or lies.
const FARTHEST: u64 = 1 << 48;

/// Takes in what a host that connects was last told, where there is a fence and it was not heard since.
///
/// With the last one that was awaited the fence falls. A host that comes later is read then, before it is told anything; one
/// that only joins and is new here is awaited, for it may have been told something by the coordinator before.
///
/// # Errors
/// B1021 when the host was told more than the copy knows, and does not say what; it must not be told anything then.
pub fn recall(fleet: &mut Fleet, name: &HostName, told: Option<&Told>, is_new: bool, now: Moment) -> Result<(), Problem> {
    let Some(fence) = &mut fleet.fence else { return Ok(()) };
    let Some(told) = told else {
        if is_new {
            fence.unheard.insert(name.clone(), Stamp::default());
        }
        return Ok(());
    };
    let unknown = is_new.then(Stamp::default);
    let Some(remembered) = fence.unheard.get(name).copied().or(unknown) else { return Ok(()) };
    let stamp = told.newest();
    let is_newer = stamp > remembered;
    let spec = told.spec.as_ref().filter(|_| stamp.epoch.0 < FARTHEST);
    if is_newer && spec.is_none() {
        return Err(untold(name, stamp));
    }
    if let (true, Some(spec), Some(host)) = (is_newer, spec, fleet.hosts.get_mut(name)) {
        host.issued = spec.clone();
        fleet.releases.extend(spec.releases.clone());
    }
    let epoch = fleet.epoch;
    let Some(fence) = &mut fleet.fence else { return Ok(()) };
    fence.unheard.remove(name);
    fence.moved |= is_newer;
    fence.seen = fence.seen.max(stamp.epoch);
    match fence.stands {
        true if fence.unheard.is_empty() => fall(fleet, now),
        true => {}
        // A late one: what it is told from now on must be newer than what it has.
        false if stamp.epoch >= epoch => {
            fleet.epoch = stamp.epoch;
            fleet.take_over();
        }
        false => {
            if let Some(host) = fleet.hosts.get_mut(name) {
                host.issued.epoch = epoch;
                host.issued.generation = host.issued.generation.next();
            }
        }
    }
    Ok(())
}

/// Goes on without these hosts: every one that was not heard must be named.
pub(super) fn recover(fleet: &mut Fleet, without: &BTreeSet<HostName>, now: Moment) -> Result<Accepted, Problem> {
    let Some(fence) = fleet.fence.as_ref().filter(|fence| fence.stands) else { return Ok(Accepted::Unchanged) };
    let strangers: Vec<&HostName> = without.iter().filter(|name| !fleet.hosts.contains_key(*name)).collect();
    if !strangers.is_empty() {
        return Err(never_joined(fleet, &strangers));
    }
    if fence.unheard.keys().any(|name| !without.contains(name)) {
        return Err(fence.problem());
    }
    fall(fleet, now);
    Ok(Accepted::Noted)
}

/// A newer epoch than any host has seen, and what follows from what they said.
fn fall(fleet: &mut Fleet, now: Moment) {
    let Some(fence) = &mut fleet.fence else { return };
    fence.stands = false;
    let Fence { moved, seen, .. } = *fence;
    fleet.epoch = fleet.epoch.max(seen);
    fleet.take_over();
    if !moved {
        return;
    }
    let live: Vec<(ServiceName, ReleaseId)> =
        fleet.services.iter().filter_map(|(name, service)| Some((name.clone(), live(fleet, name, service)?))).collect();
    for service in fleet.services.values_mut() {
        service.orders.queue.clear();
    }
    for (name, release) in live {
        if let Some(service) = fleet.services.get_mut(&name) {
            service.previous = service.committed.replace(release);
        }
    }
    for rollout in fleet.rollouts.values_mut().filter(|rollout| rollout.state.is_active()) {
        let why = "the coordinator was restored from a copy older than the fleet: look at what runs before this goes on";
        progress::pause(rollout, "baton".to_owned(), why.to_owned());
        rollout.progressed = now;
    }
}

/// The one release beside the copy's that every host of a service that was heard serves for good.
fn live(fleet: &Fleet, name: &ServiceName, service: &Service) -> Option<ReleaseId> {
    let serves = |host: &HostName| -> BTreeSet<ReleaseId> {
        let instances = fleet.hosts.get(host).into_iter().flat_map(|host| &host.issued.instances);
        let own = instances.filter(|(key, it)| key.service == *name && it.restart == Restart::Always);
        own.map(|(_, it)| it.release).filter(|release| Some(*release) != service.committed).collect()
    };
    let is_heard = |host: &&HostName| fleet.fence.as_ref().is_none_or(|fence| !fence.unheard.contains_key(*host));
    let mut common = service.hosts.iter().filter(is_heard).map(serves).reduce(|a, b| &a & &b)?;
    common.pop_first().filter(|_| common.is_empty())
}

fn untold(name: &HostName, stamp: Stamp) -> Problem {
    Problem::new(Code(1021), format!("{name} was told more than this restored coordinator knows, and does not say what"))
        .saw("it follows", format!("epoch {}, generation {}", stamp.epoch, stamp.generation))
        .help("install an agent of the coordinator's version on it; what it serves goes on")
}
