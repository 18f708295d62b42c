//! The same release, started anew: a whole service, or one host to see that it would work.

use super::super::Rollout;
use super::super::aside::{Aside, aside};
use super::super::place::Places;
use super::super::queue;
use super::{Accepted, begin, busy, frozen, known, not_of_service};
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, RolloutId, ServiceName};
use crate::problem::{Code, Problem};
use crate::strategy::{Amount, Placement, Wave};
use crate::time::Moment;
use std::time::Duration;

pub(super) fn restart(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    by: String,
    now: Moment,
) -> Result<Accepted, Problem> {
    let mut rollout = renewed(fleet, id, name, by, now)?;
    let start = next_start(fleet, name);
    rollout.starts = rollout.hosts.iter().map(|host| (host.clone(), start)).collect();
    rollout.anew = true;
    Ok(Accepted::Rollout(begin::put(fleet, rollout, None)))
}

pub(super) fn rehearse(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    host: Option<HostName>,
    by: String,
    now: Moment,
) -> Result<Accepted, Problem> {
    let rollout = renewed(fleet, id, name, by, now)?;
    let service = known(fleet, name)?;
    let host = chosen(fleet, name, service, host, now)?;
    if service.strategy.placement == Placement::InPlace && service.hosts.len() < 2 {
        return Err(Problem::new(Code(713), format!("{host} is the only host of {name}, and has one slot"))
            .help("a second port in run.ports lets the new instance start beside the old one"));
    }
    let start = next_start(fleet, name);
    Ok(Accepted::Rollout(begin::put(fleet, of(rollout, &[host], start), None)))
}

/// Starts the live release anew on some hosts, and on no other.
pub(super) fn only(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    hosts: &[HostName],
    by: String,
    now: Moment,
) -> Result<Accepted, Problem> {
    let rollout = renewed(fleet, id, name, by, now)?;
    let start = next_start(fleet, name);
    Ok(Accepted::Rollout(begin::put(fleet, of(rollout, hosts, start), None)))
}

/// The same for these hosts alone: they come first, in one wave, and nothing is watched after.
fn of(mut rollout: Rollout, hosts: &[HostName], start: u32) -> Rollout {
    let (first, rest): (Vec<_>, Vec<_>) = rollout.hosts.into_iter().partition(|host| hosts.contains(host));
    rollout.hosts = first.into_iter().chain(rest).collect();
    rollout.strategy.waves = vec![Wave::of(Amount::Percent(100))];
    rollout.strategy.bake = Duration::ZERO;
    rollout.starts = hosts.iter().map(|host| (host.clone(), start)).collect();
    rollout.anew = true;
    rollout
}

/// A rollout from the live release to itself.
fn renewed(fleet: &Fleet, id: RolloutId, name: &ServiceName, by: String, now: Moment) -> Result<Rollout, Problem> {
    let service = known(fleet, name)?;
    if let Some(active) = fleet.active_rollout(name) {
        return Err(busy(active, now));
    }
    if let Some(freeze) = queue::freeze(fleet, Some(service), now) {
        return Err(frozen(fleet, name, freeze, now));
    }
    let mixed = !service.orders.kept.is_empty();
    let live = service.committed.filter(|_| !mixed).ok_or_else(|| match mixed {
        true => Problem::new(Code(722), format!("the hosts of {name} have different releases"))
            .help(format!("baton retry {name}, or baton rollback {name}")),
        false => Problem::new(Code(722), format!("nothing of {name} is live yet")).help("baton deploy brings a release"),
    })?;
    if service.hosts.iter().all(|host| aside(fleet, service, host).is_some()) {
        return Err(Problem::new(Code(713), format!("every host of {name} is drained or skipped"))
            .help("baton hosts undrain HOST, or baton retry SERVICE HOST"));
    }
    Ok(begin::begin(fleet, id, name, service, (live, service.strategy.renewing()), by, now))
}

/// The host that is named, else the first that serves.
fn chosen(
    fleet: &Fleet,
    name: &ServiceName,
    service: &Service,
    named: Option<HostName>,
    now: Moment,
) -> Result<HostName, Problem> {
    if let Some(host) = named {
        if !service.hosts.contains(&host) {
            return Err(not_of_service(name, service, &host));
        }
        let (what, help) = match aside(fleet, service, &host) {
            None => return Ok(host),
            Some(Aside::Drained(_)) => ("is drained", format!("baton hosts undrain {host}")),
            Some(Aside::Rebooting(_)) => ("reboots", "baton reboot shows how far it is".to_owned()),
            Some(Aside::Skipped(_)) => ("was skipped", format!("baton retry {name} {host} takes it in again")),
        };
        return Err(Problem::new(Code(713), format!("{host} {what}")).help(help));
    }
    let places = Places::of(fleet, name, service, now);
    let serves = |host: &&HostName| aside(fleet, service, host).is_none() && places.at(host).serves();
    service
        .hosts
        .iter()
        .find(serves)
        .cloned()
        .ok_or_else(|| Problem::new(Code(713), format!("no host of {name} serves")).help(format!("baton why {name}")))
}

/// A start that no instance of a service is of yet.
pub(super) fn next_start(fleet: &Fleet, name: &ServiceName) -> u32 {
    let instances = fleet.hosts.values().flat_map(|host| &host.issued.instances);
    let starts = instances.filter(|(key, _)| key.service == *name).map(|(_, instance)| instance.start);
    starts.max().unwrap_or_default().saturating_add(1)
}
