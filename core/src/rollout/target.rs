//! Which release a host should have, and the way there.

use super::converge::{Keep, Way};
use super::{Direction, Rollout};
use crate::fleet::spec::MemberState;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, ReleaseId, ServiceName};

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
    host: &HostName,
) -> Option<ReleaseId> {
    if !service.hosts.contains(host) || service.orders.removal.is_some() {
        return None;
    }
    let kept = service.orders.kept.get(host).map(|kept| kept.release);
    let Some(rollout) = rollout else { return kept.or(service.committed) };
    if rollout.direction == Direction::Back {
        return rollout.from;
    }
    let reached = wave_of(rollout, host) <= rollout.wave;
    let spreads = rollout.evidence.is_empty() || was_told(fleet, name, host, rollout.to);
    if reached && spreads { Some(rollout.to) } else { kept.or(rollout.from) }
}

/// The start its instance must be of at least, where its release alone does not say that it is to be replaced.
#[must_use]
pub fn start_of(rollout: Option<&Rollout>, host: &HostName, goal: Option<ReleaseId>) -> u32 {
    let Some(rollout) = rollout.filter(|it| it.direction == Direction::Forward && goal == Some(it.to)) else { return 0 };
    let reached = wave_of(rollout, host) <= rollout.wave && rollout.evidence.is_empty();
    rollout.starts.get(host).copied().filter(|_| reached).unwrap_or_default()
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

/// The wave a host belongs to, from 0. A host the rollout does not know belongs to the last.
#[must_use]
pub fn wave_of(rollout: &Rollout, host: &HostName) -> usize {
    let hosts = rollout.hosts.len();
    let position = rollout.hosts.iter().position(|name| name == host).unwrap_or(hosts.saturating_sub(1));
    let waves = &rollout.strategy.waves;
    waves.iter().position(|wave| position < wave.hosts.of(hosts)).unwrap_or(waves.len().saturating_sub(1))
}

fn was_told(fleet: &Fleet, name: &ServiceName, host: &HostName, release: ReleaseId) -> bool {
    fleet.hosts.get(host).is_some_and(|host| {
        host.issued.instances.iter().any(|(key, instance)| key.service == *name && instance.release == release)
    })
}
