//! What operators ask of a fleet, checked against the fleet as it is.

use super::balancers;
use super::place::Place;
use super::progress::Standing;
use super::{Direction, Rollout, RolloutState, Turned, plan, progress};
use crate::analysis::judgement::Judgement;
use crate::fleet::{BalancerPool, Fleet, Service};
use crate::name::{HostName, ReleaseId, RolloutId, ServiceName};
use crate::problem::{Code, Problem};
use crate::release::Release;
use crate::strategy::{OnFailure, Strategy};
use crate::time::Moment;
use std::net::SocketAddr;

/// One request. It changes what is desired and nothing else; the plan follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Deploy(Box<Deploy>),
    /// The active rollout back, or a new one to the release before.
    Rollback {
        id: RolloutId,
        service: ServiceName,
        by: String,
    },
    Pause {
        service: ServiceName,
        by: String,
        why: String,
    },
    Resume {
        service: ServiceName,
        by: String,
    },
    /// A person's word: the wave that asks for it goes on, or the one that is watched is good.
    Promote {
        service: ServiceName,
        by: String,
    },
    /// The active rollout back, because a person says so.
    Abort {
        service: ServiceName,
        by: String,
    },
}

/// Bring a service to a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The id for the rollout, if one is needed.
    pub id: RolloutId,
    pub name: ServiceName,
    /// Hosts, ports, balancer and strategy as the manifest says; `committed` and `previous` are kept from the fleet.
    pub service: Service,
    pub release: Release,
    pub by: String,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// A rollout of this id is active now, or was already and goes the same way.
    Rollout(RolloutId),
    /// Nothing to do: the release is live on every host.
    AlreadyLive,
}

/// Applies a command to the fleet's desired state.
///
/// # Errors
/// A [`Problem`] with code B07xx says why it is refused; the fleet is unchanged then.
pub fn apply(fleet: &mut Fleet, command: Command, now: Moment) -> Result<Accepted, Problem> {
    match command {
        Command::Deploy(deploy) => apply_deploy(fleet, *deploy, now),
        Command::Rollback { id, service, by } => rollback(fleet, id, &service, by, now),
        Command::Pause { service, by, why } => change(fleet, &service, now, |rollout| {
            if rollout.state != RolloutState::Paused {
                progress::pause(rollout, by, why);
            }
            Ok(())
        }),
        Command::Resume { service, .. } => change(fleet, &service, now, resume),
        Command::Promote { service, .. } => {
            let standings = plan::standings(fleet, &service, now);
            change(fleet, &service, now, |rollout| promote(rollout, &standings, now))
        }
        Command::Abort { service, by } => change(fleet, &service, now, |rollout| {
            turn_back(rollout, by);
            Ok(())
        }),
    }
}

/// What speaks against a deploy, all of it: empty when it would be accepted.
#[must_use]
pub fn objections(fleet: &Fleet, deploy: &Deploy) -> Vec<Problem> {
    let mut problems = Vec::new();
    if deploy.service.hosts.is_empty() {
        problems.push(Problem::new(Code(702), format!("{} names no host", deploy.name)).help("add names to `hosts`"));
    }
    let balancers = deploy.service.balancer.iter().flat_map(|balancer| &balancer.on);
    let unknown: Vec<&HostName> =
        deploy.service.hosts.iter().chain(balancers).filter(|host| !fleet.hosts.contains_key(*host)).collect();
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().map(|host| host.as_str()).collect();
        let known: Vec<&str> = fleet.hosts.keys().map(HostName::as_str).collect();
        problems.push(
            Problem::new(Code(703), format!("{} never joined", names.join(", ")))
                .saw("joined", if known.is_empty() { "nobody".into() } else { known.join(", ") })
                .help("on each of them: baton-agent join HOST:PORT --token-file FILE"),
        );
    }
    problems.extend(balancers::objections(fleet, &deploy.service));
    problems.extend(port_conflicts(fleet, deploy));
    problems.extend(pool_conflicts(fleet, deploy));
    problems.extend(changed_shape(fleet, deploy));
    let active = fleet.active_rollout(&deploy.name);
    if let Some(active) = active.filter(|active| !goes_the_same_way(active, deploy.release.id())) {
        let help = match active.from == Some(deploy.release.id()) {
            // Not "already live": some hosts may have the other one.
            true => format!("baton rollback {} goes back to it", deploy.name),
            false => format!("baton watch {0}, or baton rollback {0}", deploy.name),
        };
        problems.push(
            Problem::new(Code(701), format!("rollout {} of {} is under way", active.id, deploy.name))
                .saw("started by", active.by.clone())
                .help(help),
        );
    }
    problems
}

fn apply_deploy(fleet: &mut Fleet, deploy: Deploy, now: Moment) -> Result<Accepted, Problem> {
    if let Some(problem) = objections(fleet, &deploy).into_iter().next() {
        return Err(problem);
    }
    let release = deploy.release.id();
    if let Some(active) = fleet.active_rollout(&deploy.name) {
        return Ok(Accepted::Rollout(active.id.clone()));
    }
    let mut service = deploy.service;
    let before = fleet.services.get(&deploy.name);
    service.committed = before.and_then(|before| before.committed);
    service.previous = before.and_then(|before| before.previous);
    service.warm = before.and_then(|before| before.warm);
    let same_hosts = before.is_some_and(|before| before.hosts == service.hosts);
    let is_live = service.committed == Some(release) && same_hosts;
    fleet.releases.insert(release, deploy.release);
    let strategy = service.strategy.clone();
    fleet.services.insert(deploy.name.clone(), service);
    if is_live {
        return Ok(Accepted::AlreadyLive);
    }
    Ok(start(fleet, deploy.id, &deploy.name, release, strategy, deploy.by, now))
}

/// Two services cannot listen on one port of a host.
fn port_conflicts(fleet: &Fleet, deploy: &Deploy) -> Option<Problem> {
    let public: Vec<u16> = deploy.release.run.listen.iter().map(SocketAddr::port).collect();
    let others = fleet.services.iter().filter(|(name, _)| **name != deploy.name);
    for (name, other) in others {
        let Some(host) = other.hosts.iter().find(|host| deploy.service.hosts.contains(host)) else { continue };
        let taken: Vec<u16> = other.ports.iter().copied().chain(public_ports(fleet, name, other)).collect();
        let mine = [("ports", &deploy.service.ports), ("listen", &public)];
        let clash = mine.iter().find_map(|(key, ports)| Some((key, ports.iter().find(|port| taken.contains(port))?)));
        if let Some((key, port)) = clash {
            return Some(
                Problem::new(Code(704), format!("port {port} on {host} belongs to {name}"))
                    .help(format!("give {} another port in [run] {key}", deploy.name)),
            );
        }
    }
    None
}

/// The ports of the sockets that hosts hold for a service: of the release it is at, and of the one it is going to.
fn public_ports(fleet: &Fleet, name: &ServiceName, service: &Service) -> Vec<u16> {
    let going = fleet.active_rollout(name).map(|rollout| rollout.to);
    let releases = service.committed.into_iter().chain(going).filter_map(|id| fleet.releases.get(&id));
    releases.flat_map(|release| &release.run.listen).map(SocketAddr::port).collect()
}

/// One pool routes to one service: two would take each other's members out.
fn pool_conflicts(fleet: &Fleet, deploy: &Deploy) -> Option<Problem> {
    let mine = deploy.service.balancer.as_ref()?;
    let others = fleet.services.iter().filter(|(name, _)| **name != deploy.name);
    let shares = |theirs: &BalancerPool| theirs.pool == mine.pool && theirs.on.iter().any(|on| mine.on.contains(on));
    let (name, _) = others.into_iter().find(|(_, other)| other.balancer.as_ref().is_some_and(shares))?;
    Some(
        Problem::new(Code(710), format!("the pool {} belongs to {name}", mine.pool))
            .help(format!("give {} a pool of its own in [balancer] pool", deploy.name)),
    )
}

/// Ports and balancer of a live service are where its members are: they do not change under it.
fn changed_shape(fleet: &Fleet, deploy: &Deploy) -> Option<Problem> {
    let before = fleet.services.get(&deploy.name).filter(|service| service.committed.is_some())?;
    let (what, live, manifest) = match (before.ports != deploy.service.ports, before.balancer != deploy.service.balancer) {
        (true, _) => ("ports", format!("{:?}", before.ports), format!("{:?}", deploy.service.ports)),
        (_, true) => ("the balancer", routed(before), routed(&deploy.service)),
        _ => return None,
    };
    Some(
        Problem::new(Code(705), format!("{what} of a live service cannot change in a rollout"))
            .saw("live", live)
            .saw("manifest", manifest)
            .help("deploy it as a service of another name, move the traffic, and remove this one"),
    )
}

/// `pool shop on lb1, lb2`.
fn routed(service: &Service) -> String {
    let Some(balancer) = &service.balancer else { return "no balancer".to_owned() };
    let on: Vec<&str> = balancer.on.iter().map(HostName::as_str).collect();
    format!("pool {} on {}", balancer.pool, on.join(", "))
}

fn goes_the_same_way(active: &Rollout, release: ReleaseId) -> bool {
    active.to == release && active.direction == Direction::Forward
}

fn rollback(fleet: &mut Fleet, id: RolloutId, name: &ServiceName, by: String, now: Moment) -> Result<Accepted, Problem> {
    if fleet.active_rollout(name).is_some() {
        return change(fleet, name, now, |rollout| {
            turn_back(rollout, by);
            Ok(())
        });
    }
    let service = fleet.services.get(name).ok_or_else(|| unknown(fleet, name))?;
    let previous = service.previous.ok_or_else(|| {
        Problem::new(Code(706), format!("{name} has no release to go back to"))
            .help(format!("baton releases list {name} shows what there is"))
    })?;
    let strategy = service.strategy.returning();
    Ok(start(fleet, id, name, previous, strategy, by, now))
}

/// A new rollout. Hosts that do not serve come first: nothing is lost there.
fn start(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    to: ReleaseId,
    strategy: Strategy,
    by: String,
    now: Moment,
) -> Accepted {
    let Some(service) = fleet.services.get(name) else { return Accepted::AlreadyLive };
    let serves = |host: &HostName| Place { fleet, name, service, host_name: host, now }.serves();
    let (up, mut hosts): (Vec<_>, Vec<_>) = service.hosts.iter().cloned().partition(serves);
    hosts.extend(up);
    let rollout = Rollout {
        id: id.clone(),
        service: name.clone(),
        from: service.committed,
        to,
        strategy,
        hosts,
        state: RolloutState::Pending,
        direction: Direction::Forward,
        turned: None,
        pause: None,
        wave: 0,
        promoted: 0,
        wave_done: None,
        started: now,
        progressed: now,
        ended: None,
        by,
        evidence: Vec::new(),
        judgement: Judgement::default(),
    };
    // What is still warm is where this rollout goes, or stands where its release starts.
    if let Some(service) = fleet.services.get_mut(name) {
        service.warm = None;
    }
    fleet.rollouts.retain(|_, old| old.service != *name || old.state.is_active());
    fleet.rollouts.insert(id.clone(), rollout);
    Accepted::Rollout(id)
}

fn turn_back(rollout: &mut Rollout, by: String) {
    match rollout.direction {
        Direction::Forward => progress::turn_back(rollout, Turned::Operator { by }),
        Direction::Back if rollout.state == RolloutState::Paused => {
            rollout.state = RolloutState::Reverting;
            rollout.pause = None;
        }
        Direction::Back => {}
    }
}

fn resume(rollout: &mut Rollout) -> Result<(), Problem> {
    if rollout.state != RolloutState::Paused {
        return Ok(());
    }
    let speaks_against = rollout.evidence.first().filter(|_| rollout.direction == Direction::Forward);
    if let (Some(evidence), OnFailure::Pause) = (speaks_against, rollout.strategy.on_failure) {
        return Err(Problem::new(Code(707), format!("{} did not work on {}", rollout.service, evidence.host))
            .saw("evidence", evidence.problem.to_string())
            .help(format!("baton rollback {}", rollout.service)));
    }
    rollout.state = match rollout.direction {
        Direction::Forward => RolloutState::Running,
        Direction::Back => RolloutState::Reverting,
    };
    rollout.pause = None;
    Ok(())
}

fn promote(rollout: &mut Rollout, standings: &[Standing], now: Moment) -> Result<(), Problem> {
    let name = &rollout.service;
    let goes_forward = rollout.state == RolloutState::Running && rollout.direction == Direction::Forward;
    let through = match progress::asks_for(rollout, standings, now) {
        Some(wave) => wave + 1,
        None if rollout.wave_done.is_some() => rollout.wave + 2,
        None => 0,
    };
    if !goes_forward || through == 0 {
        return Err(Problem::new(Code(728), format!("the rollout of {name} waits for nobody's word"))
            .saw("it is", if goes_forward { format!("in wave {}", rollout.wave + 1) } else { "paused or going back".into() })
            .help(format!("baton why {name}")));
    }
    rollout.promoted = through;
    Ok(())
}

fn change(
    fleet: &mut Fleet,
    name: &ServiceName,
    now: Moment,
    how: impl FnOnce(&mut Rollout) -> Result<(), Problem>,
) -> Result<Accepted, Problem> {
    let active = fleet.active_rollout(name).map(|rollout| rollout.id.clone());
    let Some(rollout) = active.and_then(|id| fleet.rollouts.get_mut(&id)) else {
        let known = fleet.services.contains_key(name);
        return Err(if known { no_rollout(name) } else { unknown(fleet, name) });
    };
    let before = rollout.clone();
    how(rollout)?;
    if *rollout != before {
        rollout.progressed = now;
    }
    Ok(Accepted::Rollout(rollout.id.clone()))
}

fn no_rollout(name: &ServiceName) -> Problem {
    Problem::new(Code(708), format!("no rollout of {name} is under way")).help(format!("baton status {name}"))
}

fn unknown(fleet: &Fleet, name: &ServiceName) -> Problem {
    let known: Vec<&str> = fleet.services.keys().map(ServiceName::as_str).collect();
    Problem::new(Code(709), format!("there is no service {name}"))
        .saw("services", if known.is_empty() { "none yet".into() } else { known.join(", ") })
        .help("baton deploy brings the first release")
}
