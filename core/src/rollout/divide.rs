//! How pools divide their requests: it follows from where each rollout stands and from nothing else.

use super::draft::{Draft, Services};
use super::{Direction, Rollout};
use crate::fleet::ability::{Feature, SplitAbility};
use crate::fleet::spec::{HostSpec, MemberState, PoolSpec};
use crate::fleet::split::{PLACES, Share, Side, TrafficSplit};
use crate::fleet::{Fleet, Host, InstanceKey, MemberKey};
use crate::name::{HostName, PoolName};
use crate::strategy::Strategy;
use std::collections::BTreeSet;

/// What a balancer must be able to do for a strategy. A mere share of requests is not among it: weights stand in for it.
#[must_use]
pub fn needs(strategy: &Strategy) -> BTreeSet<Feature> {
    let users = &strategy.users;
    if users.sticky.is_none() && users.rules.is_empty() {
        return BTreeSet::new();
    }
    TrafficSplit { share: Share::NONE, sticky: users.sticky.clone(), rules: users.rules.clone() }.needs()
}

/// Whether a balancer that can do this will be asked to divide a pool's requests.
pub(super) fn is_asked(strategy: &Strategy, ability: &SplitAbility, pool: &PoolName) -> bool {
    let split =
        TrafficSplit { share: Share::NONE, sticky: strategy.users.sticky.clone(), rules: strategy.users.rules.clone() };
    asks(strategy) && ability.lacks(pool, &split.needs()).is_empty()
}

/// Brings every pool of the services into line.
pub(super) fn divide(fleet: &Fleet, draft: &mut Draft<'_>, services: &Services<'_>, active: &[&Rollout]) {
    for (name, service) in services {
        let Some(balancer) = &service.balancer else { continue };
        let rollout =
            active.iter().find(|rollout| rollout.service == **name && rollout.from.is_some_and(|it| it != rollout.to));
        for on in &balancer.on {
            let Some(pool) = draft.spec(on).and_then(|spec| spec.pools.get(&balancer.pool)) else { continue };
            let runs = |host: &HostName| draft.spec(host);
            let divided = rollout.filter(|rollout| asks(&rollout.strategy));
            let trial = divided.map_or_else(BTreeSet::new, |rollout| on_trial(rollout, pool, runs));
            let split = divided.map(|rollout| split(rollout, pool, &trial));
            // Before the switch nobody may reach the new release: a balancer that no longer can divide says so, and does nothing.
            let is_preview = divided.is_some_and(|rollout| rollout.is_previewed());
            let split = split.filter(|split| is_preview || is_able(fleet.hosts.get(on), &balancer.pool, pool, split));
            let side = |key: &MemberKey| match trial.contains(key) && split.is_some() {
                true => Side::Trial,
                false => Side::Stable,
            };
            let is_so = pool.split == split && pool.members.iter().all(|(key, member)| member.side == side(key));
            if !is_so {
                let sides = pool.members.keys().map(|key| (key.clone(), side(key))).collect();
                draft.divide(on, &balancer.pool, split, &sides);
            }
        }
    }
}

/// The members whose slots were told to run the new release. In a preview everything beside the old one: an earlier rollout may have
/// been given up for this one in its own.
fn on_trial<'a>(
    rollout: &Rollout,
    pool: &PoolSpec,
    spec: impl Fn(&HostName) -> Option<&'a HostSpec>,
) -> BTreeSet<MemberKey> {
    let runs = |member: &MemberKey| {
        let key = InstanceKey { service: rollout.service.clone(), slot: member.slot };
        spec(&member.host).and_then(|spec| spec.instances.get(&key)).map(|told| told.release)
    };
    let is_old = |member: &MemberKey| runs(member).is_some() && runs(member) == rollout.from;
    let is_beside = |member: &MemberKey| {
        rollout.is_previewed() && !is_old(member) && members_in(pool).any(|other| other.host == member.host && is_old(other))
    };
    pool.members.keys().filter(|member| runs(member) == Some(rollout.to) || is_beside(member)).cloned().collect()
}

/// Who is sent to the new release where the rollout stands now.
///
/// Forwards the share never falls, so that no user comes back: a wave without a share of its own has at least the one
/// before, and grows as its hosts come in.
fn split(rollout: &Rollout, pool: &PoolSpec, trial: &BTreeSet<MemberKey>) -> TrafficSplit {
    let Strategy { waves, users, lockstep, .. } = &rollout.strategy;
    let only_rules = !users.rules.is_empty() && rollout.wave == 0;
    let shared = waves.get(rollout.wave).and_then(|wave| wave.share);
    let forward = rollout.direction == Direction::Forward;
    let share = match (only_rules, shared) {
        (true, _) => Share::NONE,
        (false, Some(share)) if forward => share,
        // The old release is whole on every host: one switch sends everybody back.
        (false, Some(_)) => Share::NONE,
        (false, None) => {
            let before = waves.iter().take(rollout.wave).filter_map(|wave| wave.share).max().filter(|_| forward);
            let by_members = if *lockstep { by_hosts(pool, trial) } else { by_members(pool, trial) };
            before.unwrap_or_default().max(by_members)
        }
    };
    let rules = if forward { users.rules.clone() } else { Vec::new() };
    TrafficSplit { share, sticky: users.sticky.clone(), rules }
}

/// Whether anybody asked for more than weights can do.
fn asks(strategy: &Strategy) -> bool {
    !strategy.users.rules.is_empty() || strategy.waves.iter().any(|wave| wave.share.is_some())
}

/// The share the new release would have if all members that are in had the same.
fn by_members(pool: &PoolSpec, trial: &BTreeSet<MemberKey>) -> Share {
    let (new, old): (Vec<_>, Vec<_>) = members_in(pool).partition(|key| trial.contains(key));
    part(new.len(), old.len())
}

/// The same where hosts switch: one on which the old release is still in has not.
fn by_hosts(pool: &PoolSpec, trial: &BTreeSet<MemberKey>) -> Share {
    let (new, old): (Vec<_>, Vec<_>) = members_in(pool).partition(|key| trial.contains(key));
    let old: BTreeSet<&HostName> = old.into_iter().map(|key| &key.host).collect();
    part(new.into_iter().filter(|key| !old.contains(&key.host)).count(), old.len())
}

fn members_in(pool: &PoolSpec) -> impl Iterator<Item = &MemberKey> {
    pool.members.iter().filter(|(_, member)| member.state == MemberState::Ready).map(|(key, _)| key)
}

fn part(new: usize, old: usize) -> Share {
    let places = (new * usize::from(PLACES)).checked_div(new + old).unwrap_or_default();
    Share::of_places(u16::try_from(places).unwrap_or(PLACES))
}

/// Whether the balancer can do it; one that was not heard yet goes on with what it does.
fn is_able(host: Option<&Host>, name: &PoolName, pool: &PoolSpec, split: &TrafficSplit) -> bool {
    match ability(host) {
        Some(ability) => ability.lacks(name, &split.needs()).is_empty(),
        None => pool.split.is_some(),
    }
}

/// What a host's balancer last said it can divide.
fn ability(host: Option<&Host>) -> Option<&SplitAbility> {
    Some(&host?.report()?.balancer.as_ref()?.split)
}
