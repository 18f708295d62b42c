//! What must hold in the world itself, whatever coordinator and agents believe: the invariants, seen from outside.

use super::host::{Effect, Host};
use super::process::Process;
use super::scenario::{Part, Scenario};
use baton_core::analysis::settings::NotEnough;
use baton_core::fleet::spec::MemberState;
use baton_core::fleet::{Fleet, InstanceKey, MemberKey, Service};
use baton_core::hook::{HookKey, Of, Point};
use baton_core::name::{HostName, ReleaseId};
use baton_core::rollout::Rollout;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Hosts = BTreeMap<HostName, Host>;

/// Checks what an agent just did on `host` against the world before it did it (2, 3, 6, 14) .
pub(super) fn check_effect(
    scenario: &Scenario,
    hosts: &Hosts,
    host: &HostName,
    effect: &Effect,
    (stored, declared): (&Fleet, &BTreeSet<HostName>),
    now: u64,
) -> Result<(), String> {
    match effect {
        Effect::Stopped(key) => {
            scenario.part(&key.service).map_or(Ok(()), |part| not_routable(part, hosts, host, key, declared, now))
        }
        Effect::Entered(pool, member) => {
            scenario.part_of_pool(pool).map_or(Ok(()), |part| right_and_ready(part, hosts, member, stored, now))
        }
        Effect::Started(key, release) => scenario.part(&key.service).map_or(Ok(()), |part| {
            migrated(part, key, *release, stored)?;
            alone(part, hosts, key, *release, stored)
        }),
        Effect::Left(..) | Effect::Ran(..) => Ok(()),
    }
}

/// 2, 6 and 7: nothing leads to what is stopped, in any running balancer or on its disk, and nothing is in flight. A balancer
/// that people `declared` dead was not asked.
fn not_routable(
    part: &Part,
    hosts: &Hosts,
    host: &HostName,
    key: &InstanceKey,
    declared: &BTreeSet<HostName>,
    now: u64,
) -> Result<(), String> {
    let Some(pool) = &part.service.balancer else { return Ok(()) };
    // Every balancer has noticed by itself that it is not ready.
    let process = hosts.get(host).and_then(|host| host.processes.get(key));
    let withdrawn_for = process.map(|process| process.withdrawn_for(now)).unwrap_or_default();
    if pool.withdraw.is_some_and(|withdraw| withdrawn_for >= withdraw.unready_for) {
        return Ok(());
    }
    let member = MemberKey { host: host.clone(), slot: key.slot };
    for balancer in pool.on.iter().filter(|on| !declared.contains(*on)) {
        let Some(real) = hosts.get(balancer).and_then(|it| it.pools.get(&pool.pool)) else {
            return Err(format!("2: {member} stopped before {balancer} ever said it is out"));
        };
        if real.running.get(&member) != Some(&MemberState::Out) {
            return Err(format!("2: {member} stopped while {balancer} routes to it"));
        }
        if real.disk.get(&member) != Some(&MemberState::Out) {
            return Err(format!("6: {member} stopped while a restart of {balancer} would route to it"));
        }
        let deadline = part.service.strategy.drain_deadline;
        if real.in_flight(&member, now) > 0 && real.out_for(&member, now) < deadline {
            return Err(format!("2: {member} stopped with requests in flight on {balancer}"));
        }
    }
    Ok(())
}

/// 11: a release with a migration starts only once that happened, by all that is known or by a person's word.
fn migrated(part: &Part, key: &InstanceKey, release: ReleaseId, stored: &Fleet) -> Result<(), String> {
    if release != part.new.id() || !part.new.hooks.0.contains_key(&Point::Migrate) {
        return Ok(());
    }
    let of = Of::Release(release);
    let migrate = HookKey { service: key.service.clone(), point: Point::Migrate, of, host: None };
    let run = stored.services.get(&key.service).and_then(|service| service.hooks.get(&migrate));
    match run {
        Some(run) if run.state.is_good() => Ok(()),
        _ => Err(format!("11: {key} started, and its migration is {run:?}")),
    }
}

/// 11: no attempt of a hook has two effects, wherever; and there are no more attempts than people asked for.
pub(super) fn check_once(ran: &mut BTreeSet<(HookKey, u32)>, asked: u32, key: &HookKey, attempt: u32) -> Result<(), String> {
    if attempt > asked + 1 {
        return Err(format!("11: attempt {attempt} of {key}, and people asked {asked} times for another one"));
    }
    if !ran.insert((key.clone(), attempt)) {
        return Err(format!("11: {key}, attempt {attempt}, happened twice"));
    }
    Ok(())
}

/// 22: where releases cannot coexist, nobody starts one while another runs anywhere.
fn alone(part: &Part, hosts: &Hosts, key: &InstanceKey, release: ReleaseId, stored: &Fleet) -> Result<(), String> {
    if !stored.active_rollout(&part.name).is_some_and(|rollout| rollout.strategy.exclusive) {
        return Ok(());
    }
    let other = hosts.iter().flat_map(|(name, host)| host.processes.iter().map(move |(key, process)| (name, key, process)));
    let mut other = other.filter(|(_, it, process)| it.service == key.service && process.failed.is_none());
    match other.find(|(.., process)| process.release != release) {
        Some((name, ..)) => Err(format!("22: a release started that cannot coexist with the one on {name}")),
        None => Ok(()),
    }
}

/// 3: what comes in runs the committed release or the rollout's.
fn right_and_ready(part: &Part, hosts: &Hosts, member: &MemberKey, stored: &Fleet, now: u64) -> Result<(), String> {
    let key = InstanceKey { service: part.name.clone(), slot: member.slot };
    let Some(host) = hosts.get(&member.host) else { return Err(format!("3: {member} does not exist")) };
    let service = stored.services.get(&part.name);
    let mut right: BTreeSet<ReleaseId> = service.and_then(|service| service.committed).into_iter().collect();
    right.extend(service.into_iter().flat_map(|service| service.orders.kept.values()).map(|kept| kept.release));
    for rollout in stored.rollouts.values() {
        right.extend(rollout.from.into_iter().chain([rollout.to]));
    }
    match host.processes.get(&key) {
        Some(process) if right.contains(&process.release) && host.answers(&key, now) => Ok(()),
        Some(_) => Err(format!("3: {member} came in and is not ready, or not what it should be")),
        None => Err(format!("3: {member} came in and does not run")),
    }
}

/// 1 and 4, for a member that just left: enough others are in and would really answer.
///
/// Whoever people ever took out counts only while it serves: they may let it come back after something else was decided.
pub(super) fn check_floor(
    part: &Part,
    service: &Service,
    hosts: &Hosts,
    balancer: &HostName,
    taken_out: &BTreeSet<HostName>,
    now: u64,
) -> Result<(), String> {
    let serving = serving(part, hosts, balancer, now);
    let counted = |host: &&HostName| serving.contains(*host) || !taken_out.contains(*host);
    let total = service.hosts.iter().filter(counted).count();
    // Of the deploys that were asked for not every one is accepted.
    let may_miss = service.strategy.max_unavailable.at_most(total);
    let serving = serving.len();
    if serving + may_miss < total {
        return Err(format!("1: {serving} of {total} hosts serve through {balancer}, {may_miss} may be missing"));
    }
    Ok(())
}

pub(super) fn serving_hosts(part: &Part, hosts: &Hosts, balancer: &HostName, now: u64) -> usize {
    serving(part, hosts, balancer, now).len()
}

fn serving(part: &Part, hosts: &Hosts, balancer: &HostName, now: u64) -> BTreeSet<HostName> {
    let Some(pool) = &part.service.balancer else { return BTreeSet::new() };
    let Some(real) = hosts.get(balancer).and_then(|it| it.pools.get(&pool.pool)) else { return BTreeSet::new() };
    let answers = |member: &MemberKey| {
        let key = InstanceKey { service: part.name.clone(), slot: member.slot };
        hosts.get(&member.host).is_some_and(|host| host.answers(&key, now))
    };
    let is_in = real.running.iter().filter(|(member, state)| **state == MemberState::Ready && answers(member));
    is_in.map(|(member, _)| member.host.clone()).collect()
}

/// 15: a rollout that has to be judged by its traffic does not succeed where nobody counted any, unless people say so.
pub(super) fn check_judged(rollout: &Rollout) -> Result<(), String> {
    let gate = rollout.strategy.gate.filter(|gate| gate.on_not_enough_data != NotEnough::Promote);
    let vouched_for = rollout.promoted > rollout.wave + 1;
    match gate.filter(|_| rollout.from.is_some_and(|from| from != rollout.to) && !vouched_for) {
        Some(_) => Err(format!("15: {} succeeded although nobody counted a request", rollout.id)),
        None => Ok(()),
    }
}

/// 13: a success means every host (of a rehearsal, all but those that people left out by name) really runs the new release, and no other but what is warm and out everywhere.
pub(super) fn check_completeness(
    part: &Part,
    ours: &[HostName],
    (hosts, declared): (&Hosts, &BTreeSet<HostName>),
    release: ReleaseId,
    warm: Option<ReleaseId>,
) -> Result<(), String> {
    for name in ours {
        let Some(host) = hosts.get(name) else { return Err(format!("13: {name} does not exist")) };
        let others = |(key, it): &(&InstanceKey, &Process)| key.service == part.name && it.release != release;
        for (key, process) in host.processes.iter().filter(others).filter(|(_, it)| it.failed.is_none()) {
            let member = MemberKey { host: name.clone(), slot: key.slot };
            let alive = hosts.iter().filter(|(name, _)| !declared.contains(*name));
            let mut pools = alive.filter_map(|(_, host)| host.pools.get(&part.service.balancer.as_ref()?.pool));
            let routed = pools.any(|pool| pool.running.get(&member) == Some(&MemberState::Ready));
            if warm != Some(process.release) || routed {
                return Err(format!("13: succeeded while {key} on {name} runs another release"));
            }
        }
    }
    Ok(())
}

/// At the end of everything: one release on every host of a service, none on any other, every host in on every balancer.
pub(super) fn check_rest(
    part: &Part,
    ours: &[HostName],
    hosts: &Hosts,
    (goal, declared): (Option<ReleaseId>, &BTreeSet<HostName>),
    now: u64,
) -> Result<(), String> {
    for (name, host) in hosts {
        let goal = goal.filter(|_| ours.contains(name));
        let own = host.processes.iter().filter(|(key, _)| key.service == part.name);
        let running: Vec<ReleaseId> = own.map(|(_, process)| process.release).collect();
        if running != goal.into_iter().collect::<Vec<_>>() {
            return Err(format!("liveness: {} on {name}: {running:?}, not {goal:?}", part.name));
        }
    }
    let expected = if goal.is_some() { ours.len() } else { 0 };
    let balancers = part.service.balancer.iter().flat_map(|pool| &pool.on);
    for balancer in balancers.filter(|balancer| !declared.contains(*balancer)) {
        let serving = serving_hosts(part, hosts, balancer, now);
        if serving != expected {
            return Err(format!("liveness: {serving} of {expected} hosts of {} serve through {balancer}", part.name));
        }
    }
    Ok(())
}
