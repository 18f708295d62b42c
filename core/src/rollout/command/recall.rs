//! What a restored coordinator learns from the hosts, and how it goes on from there.
//!
//! The hosts' documents are believed over the copy. What only the coordinator knew, the copy's word stands for: rollouts that
//! were under way then pause, for a person has to say whether they still are.

use super::super::progress;
use super::{Accepted, never_joined};
use crate::fleet::fence::{Fence, Told};
use crate::fleet::orders::Kept;
use crate::fleet::spec::{InstanceSpec, MemberState, Restart, Stamp};
use crate::fleet::{Fleet, InstanceKey, MemberKey, Service};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::collections::{BTreeMap, BTreeSet};

/// No coordinator was started so often: a host that says so errs, or lies.
const FARTHEST: u64 = 1 << 48;

/// Nor was another one so much oftener than this one, whatever a host that joined says of it.
const FARTHER: u64 = 1 << 20;

/// Takes in what a host that connects was last told, where there is a fence and it was not heard since.
///
/// With the last one that was awaited the fence falls. A host that comes later is read then, before it is told anything. One
/// that only joins is awaited, for it may have been told something by another coordinator, or by the one before. One that nobody has
/// accepted is not read at all before somebody does.
///
/// # Errors
/// B1021 when the host was told more than the copy knows, and does not say what; it must not be told anything then.
pub fn recall(fleet: &mut Fleet, name: &HostName, told: Option<&Told>, is_new: bool, now: Moment) -> Result<(), Problem> {
    let known = fleet.hosts.get(name);
    let before = known.filter(|_| !is_new).map(|host| host.issued.stamp()).unwrap_or_default();
    let is_accepted = known.is_some_and(|host| host.accepted);
    let epoch = fleet.epoch;
    let Some(fence) = &mut fleet.fence else { return Ok(()) };
    let Some(told) = told else {
        match fence.dormant || !is_accepted {
            true => drop(fence.joined.insert(name.clone(), before)),
            false if is_new => drop(fence.unheard.insert(name.clone(), Stamp::default())),
            false => {}
        }
        return Ok(());
    };
    // Until a person has said that it belongs here, it is believed as little as it is told.
    if !is_accepted {
        return Ok(());
    }
    let stamp = told.newest();
    let comes_over = fence.joined.get(name).is_some_and(|before| stamp > *before);
    // A host that is new to a coordinator that was only started, and did not join it, may be another one's.
    let unknown = (is_new && !fence.dormant || comes_over).then(Stamp::default);
    let Some(remembered) = fence.unheard.get(name).copied().or(unknown) else {
        fence.joined.remove(name);
        return Ok(());
    };
    let is_newer = stamp > remembered;
    // A copy may be far behind its fleet; another coordinator has no such lead.
    let farthest = if fence.dormant || comes_over { FARTHEST.min(epoch.0 + FARTHER) } else { FARTHEST };
    let spec = told.spec.as_ref().filter(|_| stamp.epoch.0 < farthest);
    if is_newer && spec.is_none() {
        return Err(if told.spec.is_some() { too_far(name, stamp) } else { untold(name, stamp) });
    }
    fence.joined.remove(name);
    if fence.dormant && !is_newer {
        fence.unheard.remove(name);
        return Ok(());
    }
    // A copy, although nobody said so: from here on it is like one.
    fence.stands |= fence.dormant && !comes_over;
    fence.dormant &= comes_over;
    if let (true, Some(spec), Some(host)) = (is_newer, spec, fleet.hosts.get_mut(name)) {
        host.issued = spec.clone();
        fleet.releases.extend(spec.releases.clone());
    }
    let is_late = fleet.fenced().is_none();
    let Some(fence) = &mut fleet.fence else { return Ok(()) };
    fence.unheard.remove(name);
    fence.moved |= is_newer && !comes_over;
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
    if is_late && is_newer {
        keep_all(fleet, name);
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
    for name in fleet.services.keys().cloned().collect::<Vec<_>>() {
        let serves = serves(fleet, &name);
        let Some(service) = fleet.services.get_mut(&name) else { continue };
        service.orders.queue.clear();
        let live: BTreeSet<Option<ReleaseId>> = serves.values().copied().collect();
        match live.first() {
            Some(release @ Some(_)) if live.len() == 1 && *release != service.committed => {
                service.previous = std::mem::replace(&mut service.committed, *release);
            }
            _ => serves.into_iter().for_each(|(host, release)| keep(service, host, release)),
        }
    }
    for rollout in fleet.rollouts.values_mut().filter(|rollout| rollout.state.is_active()) {
        let why = "the coordinator was restored from a copy older than the fleet: look at what runs before this goes on";
        progress::pause(rollout, "baton".to_owned(), why.to_owned());
        rollout.progressed = now;
    }
}

/// What each host of a service that was heard serves, as far as its document says.
fn serves(fleet: &Fleet, name: &ServiceName) -> BTreeMap<HostName, Option<ReleaseId>> {
    fleet.services.get(name).map(|service| served_by(fleet, name, &service.hosts)).unwrap_or_default()
}

/// The same for these hosts.
pub(super) fn served_by(fleet: &Fleet, name: &ServiceName, hosts: &[HostName]) -> BTreeMap<HostName, Option<ReleaseId>> {
    let is_heard = |host: &&HostName| fleet.fence.as_ref().is_none_or(|fence| !fence.unheard.contains_key(*host));
    hosts.iter().filter(is_heard).map(|host| (host.clone(), served(fleet, name, host))).collect()
}

/// The release a host serves: the only one it was told to run, else the one that balancers send requests to, else the one it
/// was told to have for good. A coordinator may have been lost between any two of these.
fn served(fleet: &Fleet, name: &ServiceName, host: &HostName) -> Option<ReleaseId> {
    let instances = &fleet.hosts.get(host)?.issued.instances;
    let own: Vec<_> = instances.iter().filter(|(key, _)| key.service == *name).collect();
    let pools = || fleet.hosts.values().flat_map(|host| host.issued.pools.values());
    let is_in = |key: &InstanceKey| {
        let is_it = |member: &MemberKey| member.host == *host && member.slot == key.slot;
        let of_service = pools().filter(|pool| pool.service == *name);
        of_service.flat_map(|pool| &pool.members).any(|(member, told)| is_it(member) && told.state == MemberState::Ready)
    };
    let only = |chosen: &dyn Fn(&InstanceKey, &InstanceSpec) -> bool| {
        let mut releases = own.iter().filter(|(key, it)| chosen(key, it)).map(|(_, it)| it.release);
        let first = releases.next()?;
        releases.all(|release| release == first).then_some(first)
    };
    only(&|_, _| true).or_else(|| only(&|key, _| is_in(key))).or_else(|| only(&|_, it| it.restart == Restart::Always))
}

/// A host that comes late keeps what it serves, of every service.
fn keep_all(fleet: &mut Fleet, host: &HostName) {
    for name in fleet.services.keys().cloned().collect::<Vec<_>>() {
        let release = served(fleet, &name, host);
        let runs = fleet.hosts.get(host).is_some_and(|host| host.issued.instances.keys().any(|key| key.service == name));
        let Some(service) = fleet.services.get_mut(&name) else { continue };
        match service.hosts.contains(host) {
            true => keep(service, host.clone(), release),
            false if runs => drop(service.orders.brought.insert(host.clone())),
            false => {}
        }
    }
}

/// A host that serves another release than the committed one keeps it until a person has decided.
pub(super) fn keep(service: &mut Service, host: HostName, release: Option<ReleaseId>) {
    if let Some(release) = release.filter(|release| service.committed != Some(*release)) {
        service.orders.kept.insert(host, Kept { release, by: "baton".to_owned() });
    }
}

fn untold(name: &HostName, stamp: Stamp) -> Problem {
    Problem::new(Code(1021), format!("{name} was told more than this coordinator knows, and does not say what"))
        .saw("it follows", format!("epoch {}, generation {}", stamp.epoch, stamp.generation))
        .help("install an agent of the coordinator's version on it; what it serves goes on")
}

fn too_far(name: &HostName, stamp: Stamp) -> Problem {
    Problem::new(Code(1021), format!("{name} says that it follows a coordinator that was started oftener than any is"))
        .saw("it follows", format!("epoch {}, generation {}", stamp.epoch, stamp.generation))
        .help("it is believed nothing: look at that machine, and what it runs; with its /var/lib/baton-agent moved away it joins as a new one")
}
