//! Which release a host should have, and the way there.

use super::converge::{Keep, Way};
use super::{Direction, Rollout};
use crate::fleet::spec::MemberState;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, ReleaseId, ServiceName};

/// A host's place in the order of its service. Found for all hosts together: to look for each name among many would take as
/// many looks as there are hosts, for each of them.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    pub host: &'a HostName,
    /// Whether it is one of the service's hosts.
    pub belongs: bool,
    /// The wave of the rollout it belongs to, from 0. One that the rollout does not know belongs to the last.
    pub wave: usize,
}

/// The hosts that a service concerns: those of the rollout in its order, the others of the service in its own, and those that
/// were `told` to run something of it, which come in the order of their names.
#[must_use]
pub fn seats<'a>(service: &'a Service, rollout: Option<&'a Rollout>, told: &[&'a HostName]) -> Vec<Seat<'a>> {
    let first = rollout.map_or(&service.hosts, |rollout| &rollout.hosts);
    let wave = |position| rollout.map_or(0, |rollout| wave_at(rollout, position));
    let seat = |(position, (host, belongs))| Seat { host, belongs, wave: wave(position) };
    let listed = sorted(first.iter());
    // Nearly always a rollout is over the hosts of its service, and those are the ones that run something of it.
    if *first == service.hosts && listed == told {
        return first.iter().map(|host| (host, true)).enumerate().map(seat).collect();
    }
    let members = sorted(service.hosts.iter());
    let (left, new) = (without(&listed, &members), without(&members, &listed));
    let strangers = without(&without(told, &members), &listed);
    let new = service.hosts.iter().filter(|host| new.binary_search(host).is_ok());
    let ours = first.iter().chain(new).map(|host| (host, left.binary_search(&host).is_err()));
    ours.chain(strangers.into_iter().map(|host| (host, false))).enumerate().map(seat).collect()
}

fn sorted<'a>(hosts: impl Iterator<Item = &'a HostName>) -> Vec<&'a HostName> {
    let mut hosts: Vec<&HostName> = hosts.collect();
    hosts.sort_unstable();
    hosts
}

/// What is in one sorted list and not in another.
fn without<'a>(these: &[&'a HostName], those: &[&HostName]) -> Vec<&'a HostName> {
    let mut those = those.iter().peekable();
    let is_missing = |host: &&&HostName| {
        while those.next_if(|other| *other < *host).is_some() {}
        those.peek() != Some(host)
    };
    these.iter().filter(is_missing).copied().collect()
}

/// The release that `host` should have of a service: half of the mind, and all there is to rollback.
///
/// At rest that is the committed one. In a rollout, a host has the new release once its wave was reached, and the old one
/// before, or the one it was told to keep; turned back, every host has the old one. Evidence stops the spread at once
/// (invariant 14): a host that was not yet told to start the new release keeps the old one, whatever its wave.
#[must_use]
pub fn target(
    fleet: &Fleet,
    name: &ServiceName,
    service: &Service,
    rollout: Option<&Rollout>,
    seat: Seat<'_>,
) -> Option<ReleaseId> {
    let host = seat.host;
    if !seat.belongs || service.orders.removal.is_some() {
        return None;
    }
    let Some(rollout) = rollout else { return service.at_rest(host) };
    if rollout.direction == Direction::Back {
        return rollout.from;
    }
    let reached = seat.wave <= rollout.wave;
    let spreads = rollout.evidence.is_empty() || was_told(fleet, name, host, rollout.to);
    let kept = service.orders.kept.get(host).map(|kept| kept.release);
    if reached && spreads { Some(rollout.to) } else { kept.or(rollout.from) }
}

/// The start its instance must be of at least, where its release alone does not say that it is to be replaced.
#[must_use]
pub fn start_of(rollout: Option<&Rollout>, seat: Seat<'_>, goal: Option<ReleaseId>) -> u32 {
    let Some(rollout) = rollout.filter(|it| it.direction == Direction::Forward && goal == Some(it.to)) else { return 0 };
    let reached = seat.wave <= rollout.wave && rollout.evidence.is_empty();
    rollout.starts.get(seat.host).copied().filter(|_| reached).unwrap_or_default()
}

/// How hosts get to what they should have: the strategy's numbers, and what may stay beside the new release.
///
/// On the way back nothing of the new release stays. Before, the old one stays in as long as traffic is shared with it, and
/// stays out once it is kept as a way back; at rest, what is still warm stays out until its time is over.
#[must_use]
pub fn way(service: &Service, rollout: Option<&Rollout>) -> Way {
    let strategy = rollout.map_or(&service.strategy, |rollout| &rollout.strategy);
    let keep = match rollout {
        None => service.warm.map(|warm| Keep { release: warm.release, state: MemberState::Out }),
        Some(rollout) if rollout.direction == Direction::Back => None,
        Some(rollout) => rollout.from.filter(|from| *from != rollout.to).and_then(|release| {
            let shares = strategy.waves.get(rollout.wave).is_some_and(|wave| wave.share.is_some());
            let state = if shares { MemberState::Ready } else { MemberState::Out };
            (shares || strategy.keeps_old()).then_some(Keep { release, state })
        }),
    };
    let (placement, drain_deadline) = (strategy.placement, strategy.drain_deadline);
    Way { placement, drain_deadline, exclusive: strategy.exclusive, keep, start: 0 }
}

/// The wave of a position in a rollout's order; behind its last host, the last one's.
fn wave_at(rollout: &Rollout, position: usize) -> usize {
    let (hosts, waves) = (rollout.hosts.len(), &rollout.strategy.waves);
    let position = position.min(hosts.saturating_sub(1));
    waves.iter().position(|wave| position < wave.hosts.of(hosts)).unwrap_or(waves.len().saturating_sub(1))
}

fn was_told(fleet: &Fleet, name: &ServiceName, host: &HostName, release: ReleaseId) -> bool {
    fleet.hosts.get(host).is_some_and(|host| {
        host.issued.instances.iter().any(|(key, instance)| key.service == *name && instance.release == release)
    })
}
