//! Deploys: what speaks against one, and what becomes of it while another is under way.

use super::super::balancers;
use super::super::queue::freeze;
use super::super::{Direction, Rollout, RolloutState};
use super::{Accepted, back, begin, busy, cut_off_members, frozen, never_joined, removed, with_brought};
use crate::fleet::hooks::{HookRun, HookState};
use crate::fleet::orders::Queued;
use crate::fleet::past::Past;
use crate::fleet::{BalancerPool, Fleet, Service};
use crate::hook::{HookKey, Of};
use crate::name::{Digest, HostName, ReleaseId, RolloutId, ServiceName};
use crate::problem::{Code, Problem};
use crate::release::Release;
use crate::time::Moment;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Deploys that may wait for one service: more than that is no queue but a pipeline that runs away.
const QUEUE_MAX: usize = 8;

/// Bring a service to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The id for the rollout, if one is needed.
    pub id: RolloutId,
    pub name: ServiceName,
    /// Hosts, ports, balancer and strategy as the manifest says; everything else is kept from the fleet.
    pub service: Service,
    pub release: Arc<Release>,
    pub by: String,
    /// What to do while another rollout is under way.
    pub busy: Busy,
    /// The [`basis`] of the plan that was looked at; None: whatever the fleet is now.
    pub if_plan: Option<Digest>,
}

/// What a deploy does while another rollout of its service is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Busy {
    #[default]
    Refuse,
    /// Waits until it has ended.
    Queue,
    /// Takes its place: hosts go on to this release from wherever they are.
    Supersede,
}

impl Deploy {
    #[must_use]
    pub fn new(id: RolloutId, name: ServiceName, service: Service, release: impl Into<Arc<Release>>, by: String) -> Self {
        Self { id, name, service, release: release.into(), by, busy: Busy::Refuse, if_plan: None }
    }

    /// The service as it will be: the manifest's shape, with what is remembered of the service before.
    #[must_use]
    pub fn shape_over(&self, before: Option<&Service>) -> Service {
        let mut service = self.service.clone();
        service.committed = before.and_then(|before| before.committed);
        service.previous = before.and_then(|before| before.previous);
        service.warm = before.and_then(|before| before.warm);
        service.hooks = before.map(|before| before.hooks.clone()).unwrap_or_default();
        service.orders = before.map(|before| before.orders.clone()).unwrap_or_default();
        service.past = before.map(|before| before.past.clone()).unwrap_or_default();
        service.orders.skipped.retain(|host, _| service.hosts.contains(host));
        service.orders.kept.retain(|host, _| service.hosts.contains(host));
        // Those of them that the manifest does not name leave the service now.
        service.orders.brought.clear();
        service
    }
}

/// What speaks against a deploy, all of it: empty when it would be accepted.
#[must_use]
pub fn objections(fleet: &Fleet, deploy: &Deploy, now: Moment) -> Vec<Problem> {
    let mut problems: Vec<Problem> = cut_off_members(fleet, &deploy.name).into_iter().collect();
    let fleet = with_brought(fleet, &deploy.name, &deploy.service);
    let fleet = fleet.as_ref();
    if deploy.service.hosts.is_empty() {
        problems.push(Problem::new(Code(702), format!("{} names no host", deploy.name)).help("add names to `hosts`"));
    }
    let balancers = deploy.service.balancer.iter().flat_map(|balancer| &balancer.on);
    let named: Vec<&HostName> = deploy.service.hosts.iter().chain(balancers).collect();
    let unknown: Vec<&HostName> = named.iter().copied().filter(|host| !fleet.hosts.contains_key(*host)).collect();
    if !unknown.is_empty() {
        problems.push(never_joined(fleet, &unknown));
    }
    problems.extend(not_accepted(fleet, &named));
    let before = fleet.services.get(&deploy.name);
    if let Some(order) = before.and_then(|service| service.orders.removal.as_ref()) {
        problems.push(removed(&deploy.name, order));
    }
    problems.extend(freeze(fleet, before, now).map(|freeze| frozen(fleet, &deploy.name, freeze, now)));
    problems.extend(before.and_then(|service| cut_off(service, deploy)));
    problems.extend(nobody_left(fleet, deploy));
    problems.extend(unlabelled(fleet, deploy));
    problems.extend(no_room(fleet, deploy));
    problems.extend(port_conflicts(fleet, deploy));
    problems.extend(pool_conflicts(fleet, deploy));
    problems.extend(balancers::objections(fleet, &deploy.name, &deploy.service));
    problems.extend(changed_shape(fleet, deploy));
    if deploy.if_plan.is_some_and(|plan| plan != basis(fleet, &deploy.name)) {
        problems.push(
            Problem::new(Code(719), format!("{} is not any more as it was when this plan was made", deploy.name))
                .help("look at a new one: baton plan, then deploy with its --if-plan"),
        );
    }
    let active = fleet.active_rollout(&deploy.name).filter(|active| !asks_for_no_other(fleet, active, deploy));
    // Nothing takes its own place: which hosts a rollout has is settled when it begins.
    let is_in_the_way = |active: &&Rollout| {
        deploy.busy == Busy::Refuse || deploy.busy != Busy::Queue && goes_the_same_way(active, deploy.release.id())
    };
    if let Some(active) = active.filter(is_in_the_way) {
        // Not "already live": some hosts may have the other one.
        let is_before = active.from == Some(deploy.release.id());
        problems.push(match is_before {
            true => busy(active, now).help(format!("baton rollback {} goes back to it", deploy.name)),
            false if goes_the_same_way(active, deploy.release.id()) => {
                let help = format!("baton watch {} follows it; baton deploy --queue waits for its end", deploy.name);
                busy(active, now).saw("differs", other_hosts(fleet, deploy)).help(help)
            }
            false => busy(active, now).help(instead(active)),
        });
    }
    problems
}

/// What a deploy can do about a rollout that is under way.
fn instead(active: &Rollout) -> String {
    let name = &active.service;
    let wait = match active.state {
        RolloutState::Paused => {
            format!("it is paused: baton resume {name} lets it go on, baton rollback {name} takes it back")
        }
        _ => format!("baton watch {name} follows it"),
    };
    format!("{wait}; baton deploy --queue waits for its end, --supersede takes its place")
}

/// What a plan of this service was made from: another value later, and the plan is stale.
#[must_use]
pub fn basis(fleet: &Fleet, name: &ServiceName) -> Digest {
    let active = fleet.active_rollout(name).map(|active| (&active.id, active.state, active.direction, active.wave));
    let work = fleet.hosts.iter().map(|(name, host)| (name, host.maintenance.is_some())).collect::<Vec<_>>();
    // What may be forgotten, and brought back, makes no plan stale: the rollout in which it came about does.
    let stays = |key: &HookKey, run: &HookRun| !matches!(key.of, Of::Release(_)) || run.state == HookState::Asked;
    let service = fleet.services.get(name).cloned().map(|mut service| {
        service.hooks.retain(|key, run| stays(key, run));
        Service { past: Past::default(), ..service }
    });
    let latest = fleet.latest_rollout(name).map(|rollout| &rollout.id);
    Digest::of(format!("{:?}", (service, active, latest, work, &fleet.freeze)).as_bytes())
}

pub(super) fn deploy(fleet: &mut Fleet, deploy: Deploy, now: Moment) -> Result<Accepted, Problem> {
    if let Some(problem) = in_one(objections(fleet, &deploy, now)) {
        return Err(problem);
    }
    if let Cow::Owned(found) = with_brought(fleet, &deploy.name, &deploy.service) {
        *fleet = found;
    }
    let release = deploy.release.id();
    if let Some(active) = fleet.active_rollout(&deploy.name) {
        if asks_for_no_other(fleet, active, &deploy) {
            return Ok(Accepted::Rollout(active.id.clone()));
        }
        match deploy.busy {
            Busy::Queue => return queue(fleet, deploy, now),
            _ => {
                let ended = back::give_way(fleet, &deploy.name, &deploy.by, now);
                return Ok(start(fleet, deploy, release, ended.as_ref(), now));
            }
        }
    }
    let before = fleet.services.get(&deploy.name);
    let service = deploy.shape_over(before);
    let same_hosts = before.is_some_and(|before| before.hosts == service.hosts);
    if service.committed == Some(release) && same_hosts && service.orders.kept.is_empty() {
        fleet.services.insert(deploy.name, service);
        return Ok(Accepted::AlreadyLive);
    }
    Ok(start(fleet, deploy, release, None, now))
}

/// Everything that speaks against a deploy as one problem: the first in its own words, the others beside it. Whoever mends one
/// should not have to come back to hear of the next.
fn in_one(problems: Vec<Problem>) -> Option<Problem> {
    let mut problems = problems.into_iter();
    let first = problems.next()?;
    Some(problems.fold(first, |all, other| {
        let help = other.help.iter().map(|help| format!("\n{help}")).collect::<String>();
        all.saw("also", format!("{other}{help}"))
    }))
}

fn start(fleet: &mut Fleet, deploy: Deploy, release: ReleaseId, instead_of: Option<&RolloutId>, now: Moment) -> Accepted {
    let service = deploy.shape_over(fleet.services.get(&deploy.name));
    let to = (release, service.strategy.clone());
    let rollout = begin::begin(fleet, deploy.id, &deploy.name, &service, to, deploy.by, now);
    fleet.releases.insert(release, deploy.release);
    fleet.services.insert(deploy.name, service);
    Accepted::Rollout(begin::put(fleet, rollout, instead_of))
}

fn queue(fleet: &mut Fleet, deploy: Deploy, now: Moment) -> Result<Accepted, Problem> {
    let release = deploy.release.id();
    let Some(service) = fleet.services.get_mut(&deploy.name) else {
        return Err(Problem::new(Code(709), format!("there is no service {}", deploy.name)));
    };
    let queue = &mut service.orders.queue;
    if let Some(same) = queue.iter().find(|queued| queued.release == release) {
        return Ok(Accepted::Queued(same.id.clone()));
    }
    if queue.len() >= QUEUE_MAX {
        return Err(Problem::new(Code(717), format!("{QUEUE_MAX} deploys of {} wait already", deploy.name))
            .help(format!("baton abort {} --queued takes them out of the queue", deploy.name)));
    }
    let (id, shape) = (deploy.id, Box::new(deploy.service));
    queue.push(Queued { id: id.clone(), shape, release, by: deploy.by, since: now });
    service.past.ask_for(release);
    fleet.releases.insert(release, deploy.release);
    Ok(Accepted::Queued(id))
}

/// Hosts that joined under a name of their own choice, and of which nobody has said yet that they belong here.
pub(super) fn not_accepted(fleet: &Fleet, named: &[&HostName]) -> Option<Problem> {
    let waits = |host: &&&HostName| fleet.hosts.get(**host).is_some_and(|host| !host.accepted);
    let waiting: BTreeSet<&str> = named.iter().filter(waits).map(|host| host.as_str()).collect();
    let names = waiting.into_iter().collect::<Vec<_>>();
    (!names.is_empty()).then(|| {
        Problem::new(Code(737), format!("{} joined, and nobody has accepted that yet", names.join(", ")))
            .help(format!("an admin says that it is the right machine: baton hosts accept {}", names.join(" ")))
    })
}

/// A release from before a migration without a way back does not come back as if it were new.
fn cut_off(service: &Service, deploy: &Deploy) -> Option<Problem> {
    let release = Some(deploy.release.id()).filter(|release| service.committed != Some(*release))?;
    let (name, version) = (&deploy.name, &deploy.release.version);
    let help = format!("repair forward, or, when {version} works all the same: baton rollback {name} {version} --force");
    back::no_way(service, name, release).map(|problem| problem.help(help))
}

/// Somebody must take part: a rollout in which nobody does would be a success that changes nothing.
fn nobody_left(fleet: &Fleet, deploy: &Deploy) -> Option<Problem> {
    let skipped = fleet.services.get(&deploy.name).map(|before| &before.orders.skipped);
    let takes_part = |host: &HostName| {
        let drained = fleet.hosts.get(host).is_some_and(|host| host.maintenance.is_some());
        !drained && !skipped.is_some_and(|skipped| skipped.contains_key(host))
    };
    let nobody = !deploy.service.hosts.is_empty() && !deploy.service.hosts.iter().any(takes_part);
    nobody.then(|| {
        Problem::new(Code(713), format!("every host of {} is drained or skipped", deploy.name))
            .help("baton hosts undrain HOST, or baton retry SERVICE HOST")
    })
}

/// Hosts cannot be spread by what nobody said of them.
fn unlabelled(fleet: &Fleet, deploy: &Deploy) -> Option<Problem> {
    let label = deploy.service.strategy.spread_by.as_ref()?;
    let known = |host: &&HostName| fleet.hosts.get(*host).is_some_and(|host| !host.labels.contains_key(label));
    let without: Vec<&str> = deploy.service.hosts.iter().filter(known).map(HostName::as_str).collect();
    let first = without.first()?;
    Some(
        Problem::new(Code(731), format!("{} cannot be spread by {label}: not every host has that label", deploy.name))
            .saw("without it", without.join(", "))
            .help(format!("baton hosts label {first} {label}=VALUE, for each of them")),
    )
}

/// A release that a host has no room for beside what it keeps is told before anything is touched, and not by a full disk in the
/// middle. Its archive lies there until it is unpacked, and what it unpacks to is hardly smaller: twice its size is the least.
fn no_room(fleet: &Fleet, deploy: &Deploy) -> Option<Problem> {
    let artifact = deploy.release.artifact;
    let needed = artifact.size.saturating_mul(2);
    let short = |name: &HostName| {
        let host = fleet.hosts.get(name).filter(|host| host.connected)?;
        let report = host.report()?;
        let room = report.room.filter(|room| *room < needed)?;
        let is_there = || host.issued.releases.values().any(|it| it.artifact.digest == artifact.digest);
        // What is no longer to be there goes, and makes room; how much, nobody knows before.
        let makes_room = || report.releases.keys().any(|release| !host.issued.releases.contains_key(release));
        (!is_there() && !makes_room()).then(|| {
            let kept = |it: &&Arc<Release>| it.service == deploy.name;
            let kept: Vec<&str> = host.issued.releases.values().filter(kept).map(|it| it.version.as_str()).collect();
            let kept = if kept.is_empty() { "nothing".to_owned() } else { kept.join(", ") };
            (name.to_string(), format!("{} MiB free, keeps of {}: {kept}", room >> 20, deploy.name))
        })
    };
    let short: Vec<_> = deploy.service.hosts.iter().filter_map(short).collect();
    let names: Vec<&str> = short.iter().map(|(name, _)| name.as_str()).collect();
    let help =
        format!("make room on the disk of the agent's state folder there: df -h /var/lib/baton-agent on {}", names.first()?);
    let what = format!("{} {} does not fit on {}", deploy.name, deploy.release.version, names.join(", "));
    let mut problem = Problem::new(Code(738), what)
        .saw("needs", format!("{} MiB at least, half of it until it is unpacked", needed.div_ceil(1 << 20)))
        .help(help);
    problem.seen.extend(short);
    Some(problem)
}

/// Two services cannot listen on one port of a host.
fn port_conflicts(fleet: &Fleet, deploy: &Deploy) -> Vec<Problem> {
    let public = || deploy.release.run.listen.iter().map(SocketAddr::port);
    let mine = || deploy.service.ports.iter().map(|port| ("ports", *port)).chain(public().map(|port| ("listen", port)));
    let mut problems = Vec::new();
    for (name, other) in fleet.services.iter().filter(|(name, _)| **name != deploy.name) {
        let shared: Vec<&str> =
            other.hosts.iter().filter(|host| deploy.service.hosts.contains(host)).map(HostName::as_str).collect();
        if shared.is_empty() {
            continue;
        }
        let taken: Vec<u16> = other.ports.iter().copied().chain(public_ports(fleet, name, other)).collect();
        problems.extend(mine().filter(|(_, port)| taken.contains(port)).map(|(key, port)| {
            Problem::new(Code(704), format!("port {port} on {} belongs to {name}", shared.join(", ")))
                .help(format!("give {} another port in [run] {key}", deploy.name))
        }));
    }
    problems
}

/// The ports of the sockets that hosts hold for a service: of the release it is at, and of the one it is going to.
fn public_ports(fleet: &Fleet, name: &ServiceName, service: &Service) -> Vec<u16> {
    let going = fleet.active_rollout(name).map(|rollout| rollout.to);
    let releases = service.committed.into_iter().chain(going).filter_map(|id| fleet.releases.get(&id));
    releases.flat_map(|release| &release.run.listen).map(SocketAddr::port).collect()
}

/// One pool routes to one service: two would take each other's members out.
fn pool_conflicts(fleet: &Fleet, deploy: &Deploy) -> Vec<Problem> {
    let Some(mine) = deploy.service.balancer.as_ref() else { return Vec::new() };
    let shares = |theirs: &BalancerPool| theirs.pool == mine.pool && theirs.on.iter().any(|on| mine.on.contains(on));
    let others = fleet.services.iter().filter(|(name, _)| **name != deploy.name);
    let sharing = others.filter(|(_, other)| other.balancer.as_ref().is_some_and(shares));
    let problem = |(name, _): (&ServiceName, &Service)| {
        Problem::new(Code(710), format!("the pool {} belongs to {name}", mine.pool))
            .help(format!("give {} a pool of its own in [balancer] pool", deploy.name))
    };
    sharing.map(problem).collect()
}

/// Ports and balancer of a live service are where its members are: they do not change under it. Ports may be added behind
/// those it has: nothing is there yet. What cannot be is told with the way to come there all the same.
fn changed_shape(fleet: &Fleet, deploy: &Deploy) -> Vec<Problem> {
    let Some(before) = fleet.services.get(&deploy.name).filter(|service| service.committed.is_some()) else {
        return Vec::new();
    };
    let refuse = |what: &str, live: String, manifest: String, help: String| {
        Problem::new(Code(705), format!("{what} of a live service cannot change in a rollout"))
            .saw("live", live)
            .saw("manifest", manifest)
            .help(help)
    };
    let (old, new) = (&before.ports, &deploy.service.ports);
    let mut problems = Vec::new();
    if !new.starts_with(old) {
        let help = format!("{}; {}", kept_ports(old, new), another(deploy));
        problems.push(refuse("ports", format!("{old:?}"), format!("{new:?}"), help));
    }
    let place = |service: &Service| service.balancer.as_ref().map(|it| (it.on.clone(), it.pool.clone()));
    if place(before) != place(&deploy.service) {
        let help = another(deploy);
        problems.push(refuse("the balancer", routed(before), routed(&deploy.service), help));
    }
    problems
}

/// What comes nearest to other ports without another service.
fn kept_ports(old: &[u16], new: &[u16]) -> String {
    let added: Vec<u16> = new.iter().copied().filter(|port| !old.contains(port)).collect();
    if added.is_empty() && new.len() == old.len() {
        format!("keep them in this order: ports = {old:?}")
    } else if added.is_empty() {
        format!("keep ports = {old:?}, and for one instance at a time say placement = \"in-place\" in [rollout]")
    } else {
        let all: Vec<u16> = old.iter().copied().chain(added).collect();
        format!("ports = {all:?} is taken: the next version starts on one that is added")
    }
}

/// The way that is always there: a second service beside this one.
fn another(deploy: &Deploy) -> String {
    let pool = if deploy.service.balancer.is_some() { ", `pool`" } else { "" };
    format!(
        "to move: in a copy of the manifest give `service`{pool} and `ports` other values, deploy it, lead the clients there, then \
         baton services remove {}",
        deploy.name
    )
}

/// `pool shop on lb1, lb2`.
fn routed(service: &Service) -> String {
    let Some(balancer) = &service.balancer else { return "no balancer".to_owned() };
    let on: Vec<&str> = balancer.on.iter().map(HostName::as_str).collect();
    format!("pool {} on {}", balancer.pool, on.join(", "))
}

/// Whether whoever asks for this gets it by the rollout under way: the same release, on the same hosts.
fn asks_for_no_other(fleet: &Fleet, active: &Rollout, deploy: &Deploy) -> bool {
    goes_the_same_way(active, deploy.release.id()) && other_hosts(fleet, deploy).is_empty()
}

/// `web4 is new, web1 leaves`: what a deploy changes in the hosts of its service; empty: nothing.
fn other_hosts(fleet: &Fleet, deploy: &Deploy) -> String {
    let Some(before) = fleet.services.get(&deploy.name) else { return String::new() };
    let (before, after) = (&before.hosts, &deploy.service.hosts);
    let new = after.iter().filter(|host| !before.contains(host)).map(|host| format!("{host} is new"));
    let leaving = before.iter().filter(|host| !after.contains(host)).map(|host| format!("{host} leaves"));
    new.chain(leaving).collect::<Vec<_>>().join(", ")
}

fn goes_the_same_way(active: &Rollout, release: ReleaseId) -> bool {
    active.to == release && active.direction == Direction::Forward
}
