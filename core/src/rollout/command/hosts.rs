//! Work on hosts: out of every balancer and back, and away for good.

use super::super::aside::aside;
use super::super::balancers;
use super::steer::move_last;
use super::{Accepted, never_joined, not_accepted, not_deployed_here};
use crate::fleet::orders::{Leaving, Maintenance, Order};
use crate::fleet::{Fleet, Host, Labels, Service};
use crate::name::{HostName, LabelKey, ServiceName};
use crate::problem::{Code, Problem};
use crate::time::Moment;
use std::collections::BTreeSet;

/// Labels of one host: what people can oversee, and what a plan may carry along.
const LABELS_MAX: usize = 32;

pub(super) fn drain(
    fleet: &mut Fleet,
    name: &HostName,
    stop: bool,
    reboot: bool,
    order: Order,
) -> Result<Accepted, Problem> {
    let host = fleet.hosts.get(name).ok_or_else(|| never_joined(fleet, &[name]))?;
    let maintenance = host.maintenance.as_ref();
    if let Some(other) = maintenance.filter(|it| it.reboot.is_some() && !reboot) {
        return Err(Problem::new(Code(748), format!("{name} is drained to be rebooted, and comes back after it"))
            .saw("drained", format!("by {}: {}", other.order.by, other.order.why))
            .help("baton reboot shows how far it is, baton reboot --cancel ends it; drain the host once it is back"));
    }
    if maintenance.is_some_and(|maintenance| maintenance.stop == stop) {
        return Ok(Accepted::Unchanged);
    }
    if host.maintenance.is_none() {
        may_drain(fleet, name)?;
    }
    for rollout in fleet.rollouts.values_mut().filter(|rollout| rollout.state.is_active()) {
        move_last(rollout, name);
    }
    if let Some(host) = fleet.hosts.get_mut(name) {
        host.maintenance = Some(match host.maintenance.take() {
            Some(before) => Maintenance { stop, ..before },
            None => Maintenance { order, stop, reboot: reboot.then_some(Leaving::Ahead) },
        });
    }
    Ok(Accepted::Noted)
}

/// How many hosts of a service people may take out for work on them: what a release may take, and one at least. That releases may
/// take none says that they need not; what needs a repair does.
#[must_use]
pub(crate) fn may_miss(service: &Service) -> usize {
    service.strategy.max_unavailable.at_most(service.hosts.len()).max(1)
}

/// Work on a host takes no more from a service than its strategy allows, or one host, and never all of it.
pub(crate) fn may_drain(fleet: &Fleet, name: &HostName) -> Result<(), Problem> {
    if let Some(problem) = not_accepted(fleet, &[name]).or_else(|| not_deployed_here(fleet, name)) {
        return Err(problem);
    }
    if let Some((service, _)) = balanced(fleet, name).next() {
        return Err(Problem::new(Code(712), format!("{name} balances {service}: requests come in there"))
            .help("lead the traffic to another balancer first; Baton does not see who sends it"));
    }
    for (service_name, service) in running(fleet, name) {
        let total = service.hosts.len();
        let may_miss = may_miss(service);
        let away: Vec<&str> =
            service.hosts.iter().filter(|host| aside(fleet, service, host).is_some()).map(HostName::as_str).collect();
        if away.len() < may_miss && away.len() + 1 < total {
            continue;
        }
        let what = format!("without {name} too few hosts of {service_name} would serve");
        return Err(Problem::new(Code(713), what)
            .saw("hosts", format!("{total}, of which {} may be without", may_miss.min(total.saturating_sub(1))))
            .saw("away", if away.is_empty() { "none".into() } else { away.join(", ") })
            .help(if total == 1 {
                "the last host of a service is never taken away: deploy it to another host as well"
            } else {
                "bring one of those back, add a host, or deploy with a larger rollout.max_unavailable"
            }));
    }
    Ok(())
}

pub(super) fn undrain(fleet: &mut Fleet, name: &HostName, now: Moment) -> Result<Accepted, Problem> {
    let host = fleet.hosts.get(name).ok_or_else(|| never_joined(fleet, &[name]))?;
    if let Some(since) = host.leaves() {
        return Err(Problem::new(Code(746), format!("{name} was told to reboot, and is not back in another boot"))
            .saw("told", format!("{} s ago", now.since(since).as_secs()))
            .help("baton reboot shows how far it is: it comes back once it says another boot; baton reboot --cancel gives up what does not, when --back-within is over"));
    }
    let maintenance = fleet.hosts.get_mut(name).and_then(|host| host.maintenance.take());
    Ok(if maintenance.is_some() { Accepted::Noted } else { Accepted::Unchanged })
}

pub(super) fn declare_dead(fleet: &mut Fleet, name: &HostName, order: Order) -> Result<Accepted, Problem> {
    let host = fleet.hosts.get(name).ok_or_else(|| never_joined(fleet, &[name]))?;
    if host.dead_balancer.is_some() {
        return Ok(Accepted::Unchanged);
    }
    may_be_dead(fleet, name, host)?;
    if let Some(host) = fleet.hosts.get_mut(name) {
        host.dead_balancer = Some(order);
    }
    Ok(Accepted::Noted)
}

/// Only what says nothing can be dead, and never the last one that a service has.
fn may_be_dead(fleet: &Fleet, name: &HostName, host: &Host) -> Result<(), Problem> {
    if balanced(fleet, name).next().is_none() {
        return Err(Problem::new(Code(733), format!("{name} balances no service")).help("baton balancers list"));
    }
    let pools = || balanced(fleet, name).filter_map(|(_, service)| service.balancer.as_ref());
    if pools().all(|balancer| balancers::answers(host, &balancer.pool)) {
        return Err(Problem::new(Code(734), format!("the load balancer on {name} answers"))
            .help("what it sends on is waited for; for work on its host, lead the traffic to another one first"));
    }
    let lives = |on: &HostName| on != name && fleet.hosts.get(on).is_some_and(|host| host.dead_balancer.is_none());
    let is_last = |service: &Service| !service.balancer.as_ref().is_some_and(|it| it.on.iter().any(lives));
    match balanced(fleet, name).find(|(_, service)| is_last(service)) {
        None => Ok(()),
        Some((service, _)) => Err(Problem::new(Code(735), format!("{service} has no other load balancer than {name}"))
            .help(format!("bring it back: baton why {name}; else add another one to [balancer] on of {service}"))),
    }
}

pub(super) fn revive(fleet: &mut Fleet, name: &HostName) -> Result<Accepted, Problem> {
    let known = fleet.hosts.contains_key(name);
    let order = fleet.hosts.get_mut(name).and_then(|host| host.dead_balancer.take());
    match (known, order) {
        (false, _) => Err(never_joined(fleet, &[name])),
        (true, Some(_)) => Ok(Accepted::Noted),
        (true, None) => Ok(Accepted::Unchanged),
    }
}

pub(super) fn label(
    fleet: &mut Fleet,
    name: &HostName,
    set: Labels,
    unset: &BTreeSet<LabelKey>,
) -> Result<Accepted, Problem> {
    let host = fleet.hosts.get(name).ok_or_else(|| never_joined(fleet, &[name]))?;
    let mut labels = host.labels.clone();
    labels.retain(|label, _| !unset.contains(label));
    labels.extend(set);
    if labels.len() > LABELS_MAX {
        return Err(Problem::new(Code(732), format!("{name} would have {} labels, {LABELS_MAX} at most", labels.len()))
            .help(format!("baton hosts label {name} LABEL- takes one away")));
    }
    let spread_by = |service: &Service| service.strategy.spread_by.clone().filter(|label| !labels.contains_key(label));
    if let Some((needs, label)) = running(fleet, name).find_map(|(needs, service)| Some((needs, spread_by(service)?))) {
        return Err(Problem::new(Code(731), format!("{needs} is spread by {label}, and {name} would be without"))
            .help(format!("give it another value: baton hosts label {name} {label}=VALUE")));
    }
    let Some(host) = fleet.hosts.get_mut(name).filter(|host| host.labels != labels) else { return Ok(Accepted::Unchanged) };
    host.labels = labels;
    Ok(Accepted::Noted)
}

pub(super) fn accept(fleet: &mut Fleet, name: &HostName) -> Result<Accepted, Problem> {
    match fleet.hosts.get_mut(name) {
        None => Err(never_joined(fleet, &[name])),
        Some(host) if host.accepted => Ok(Accepted::Unchanged),
        Some(host) => {
            host.accepted = true;
            Ok(Accepted::Noted)
        }
    }
}

pub(super) fn remove(fleet: &mut Fleet, name: &HostName, force: bool) -> Result<Accepted, Problem> {
    may_remove(fleet, name, force)?;
    for service in fleet.services.values_mut() {
        service.hosts.retain(|host| host != name);
        service.orders.skipped.remove(name);
        service.orders.kept.remove(name);
        if let Some(balancer) = &mut service.balancer {
            balancer.on.retain(|host| host != name);
        }
    }
    for rollout in fleet.rollouts.values_mut().filter(|rollout| rollout.state.is_active()) {
        rollout.hosts.retain(|host| host != name);
        rollout.evidence.retain(|evidence| evidence.host != *name);
        rollout.starts.remove(name);
    }
    fleet.hosts.remove(name);
    Ok(Accepted::Noted)
}

fn may_remove(fleet: &Fleet, name: &HostName, force: bool) -> Result<(), Problem> {
    let host = fleet.hosts.get(name).ok_or_else(|| never_joined(fleet, &[name]))?;
    let in_use = |what: String| Problem::new(Code(712), what);
    if let Some(problem) = not_deployed_here(fleet, name).filter(|_| host.connected || !force) {
        return Err(match host.connected {
            true => problem,
            false => problem.help(format!("when it never comes back: baton hosts remove {name} --force")),
        });
    }
    if host.connected && !host.issued.instances.is_empty() && host.maintenance.is_none() {
        let runs: Vec<String> = host.issued.instances.keys().map(ToString::to_string).collect();
        return Err(in_use(format!("{name} is there, and serves"))
            .saw("runs", runs.join(", "))
            .help(format!("baton hosts drain {name} --stop")));
    }
    for (service_name, service) in running(fleet, name).chain(balanced(fleet, name)) {
        let is_last = service.hosts.iter().all(|host| host == name);
        let is_last_balancer = service.balancer.as_ref().is_some_and(|balancer| balancer.on.iter().all(|on| on == name));
        if is_last || is_last_balancer {
            return Err(in_use(format!("{service_name} has no other host for what {name} does"))
                .help(format!("baton services remove {service_name}")));
        }
        if !force {
            return Err(in_use(format!("{service_name} names {name}")).help(format!(
                "deploy {service_name} without it, or, when it never comes back: baton hosts remove {name} --force"
            )));
        }
    }
    if !force && !host.issued.instances.is_empty() {
        let runs: Vec<String> = host.issued.instances.keys().map(ToString::to_string).collect();
        return Err(in_use(format!("{name} runs something still"))
            .saw("runs", runs.join(", "))
            .help(format!("wait until it stopped, or, when it never comes back: baton hosts remove {name} --force")));
    }
    Ok(())
}

/// The services that run on a host.
pub(crate) fn running<'a>(fleet: &'a Fleet, name: &'a HostName) -> impl Iterator<Item = (&'a ServiceName, &'a Service)> {
    fleet.services.iter().filter(move |(_, service)| service.hosts.contains(name))
}

/// The services whose requests come through a host.
pub(crate) fn balanced<'a>(fleet: &'a Fleet, name: &'a HostName) -> impl Iterator<Item = (&'a ServiceName, &'a Service)> {
    fleet.services.iter().filter(move |(_, service)| service.balancer.as_ref().is_some_and(|it| it.on.contains(name)))
}
