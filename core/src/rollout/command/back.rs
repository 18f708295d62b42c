//! Going back, and ending where it stands.

use super::super::{Direction, LeftOut, Rollout, RolloutState, Turned};
use super::super::{hooks, progress};
use super::{Accepted, begin, busy, change, known, no_rollout};
use crate::fleet::orders::Kept;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, ReleaseId, RolloutId, ServiceName, Version};
use crate::problem::{Code, Problem};
use crate::strategy::Strategy;
use crate::time::Moment;
use std::collections::BTreeSet;

pub(super) fn rollback(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    by: String,
    force: bool,
    now: Moment,
) -> Result<Accepted, Problem> {
    let service = known(fleet, name)?;
    if fleet.active_rollout(name).is_some() {
        return turn_round(fleet, name, by, force, now);
    }
    if was_taken_back(fleet, name, service) {
        return Ok(Accepted::AlreadyLive);
    }
    let to = service.way_back().ok_or_else(|| {
        Problem::new(Code(706), format!("{name} has no release to go back to"))
            .help(format!("baton releases {name} shows what there is"))
    })?;
    may_go_back(service, name, to, force)?;
    let rollout = begin::begin(fleet, id, name, service, (to, service.strategy.returning()), by, now);
    Ok(Accepted::Rollout(begin::put(fleet, Rollout { returns: true, ..rollout }, None)))
}

/// Whether the last thing that happened is the way back itself: who asks for it a moment later does not mean one release further.
fn was_taken_back(fleet: &Fleet, name: &ServiceName, service: &Service) -> bool {
    let back = |last: &Rollout| {
        let brought = !last.returns && last.from != Some(last.to);
        brought && last.state == RolloutState::Reverted && last.from == service.committed
    };
    service.orders.kept.is_empty() && fleet.latest_rollout(name).is_some_and(back)
}

/// A hook that has run may forbid going back to a release.
fn may_go_back(service: &Service, name: &ServiceName, to: ReleaseId, force: bool) -> Result<(), Problem> {
    let help = format!("repair forward, or, when the release before works all the same: baton rollback {name} --force");
    no_way(service, name, to).filter(|_| !force).map_or(Ok(()), |problem| Err(problem.help(help)))
}

/// That a hook that has run forbids a release, however one would come to it.
pub(super) fn no_way(service: &Service, name: &ServiceName, to: ReleaseId) -> Option<Problem> {
    let key = hooks::no_way_back(service, Some(to))?;
    let what = format!("there is no way back for {name}: {} has run", key.point);
    Some(Problem::new(Code(805), what).saw("hook", key.to_string()))
}

pub(super) fn rollback_to(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    version: &Version,
    by: String,
    force: bool,
    now: Moment,
) -> Result<Accepted, Problem> {
    let service = known(fleet, name)?;
    let to = find(fleet, name, version)?;
    if let Some(active) = fleet.active_rollout(name) {
        return match active.from == Some(to) {
            true => turn_round(fleet, name, by, force, now),
            false => Err(busy(active, now)),
        };
    }
    if service.committed == Some(to) && service.orders.kept.is_empty() {
        return Ok(Accepted::AlreadyLive);
    }
    may_go_back(service, name, to, force)?;
    // The release before was let once. Of any other that the fleet knows nobody can say so: it may have been given up while it waited.
    let second_person = service.strategy.second_person && service.previous != Some(to);
    let strategy = Strategy { second_person, ..service.strategy.returning() };
    let rollout = begin::begin(fleet, id, name, service, (to, strategy), by, now);
    Ok(Accepted::Rollout(begin::put(fleet, Rollout { returns: true, ..rollout }, None)))
}

/// The release that people mean by a version. Several may have one: then the live one, or the one before.
fn find(fleet: &Fleet, name: &ServiceName, version: &Version) -> Result<ReleaseId, Problem> {
    let of_service = || fleet.releases.iter().filter(|(_, release)| release.service == *name);
    let found: Vec<ReleaseId> = of_service().filter(|(_, it)| it.version == *version).map(|(id, _)| *id).collect();
    let service = fleet.services.get(name);
    let near = service.into_iter().flat_map(|service| [service.committed, service.previous]).flatten();
    match (found.as_slice(), near.into_iter().find(|id| found.contains(id))) {
        ([only], _) => Ok(*only),
        (_, Some(near)) => Ok(near),
        ([], _) => {
            let versions: BTreeSet<&str> = of_service().map(|(_, release)| release.version.as_str()).collect();
            let versions: Vec<&str> = versions.into_iter().collect();
            Err(Problem::new(Code(721), format!("{name} never had a release {version}"))
                .saw("releases", if versions.is_empty() { "none yet".into() } else { versions.join(", ") })
                .help(format!("baton releases {name}")))
        }
        (several, None) => {
            let ids: Vec<String> = several.iter().map(|id| id.0.short()).collect();
            Err(Problem::new(Code(721), format!("{name} had several releases called {version}"))
                .saw("releases", ids.join(", "))
                .help(format!("baton deploy {name} {version} brings the one of its manifest")))
        }
    }
}

/// Gives the active rollout up. One that has nothing to go back to ends where it stands.
pub(super) fn abort(fleet: &mut Fleet, name: &ServiceName, by: String, now: Moment) -> Result<Accepted, Problem> {
    match fleet.active_rollout(name).is_some_and(Rollout::completes) {
        true => end_here(fleet, name, &by, now, works),
        false => turn_round(fleet, name, by, false, now),
    }
}

/// Turns the active rollout round.
fn turn_round(fleet: &mut Fleet, name: &ServiceName, by: String, force: bool, now: Moment) -> Result<Accepted, Problem> {
    let turns = fleet.active_rollout(name).filter(|active| active.direction == Direction::Forward);
    if let (Some(from), Some(service)) = (turns.and_then(|active| active.from), fleet.services.get(name)) {
        may_go_back(service, name, from, force)?;
    }
    change(fleet, name, now, |rollout| {
        match rollout.direction {
            Direction::Forward => progress::turn_back(rollout, Turned::Operator { by }),
            Direction::Back if rollout.state == RolloutState::Paused => {
                rollout.state = RolloutState::Reverting;
                rollout.pause = None;
            }
            Direction::Back => {}
        }
        Ok(())
    })
}

/// Ends the active rollout where it stands.
pub(super) fn keep(fleet: &mut Fleet, name: &ServiceName, by: &str, now: Moment) -> Result<Accepted, Problem> {
    end_here(fleet, name, by, now, |_, _| true)
}

/// Ends the active rollout; the hosts that were told to run its release, and may keep it, have it.
fn end_here(
    fleet: &mut Fleet,
    name: &ServiceName,
    by: &str,
    now: Moment,
    may: fn(&Rollout, &HostName) -> bool,
) -> Result<Accepted, Problem> {
    known(fleet, name)?;
    let active = fleet.active_rollout(name).ok_or_else(|| no_rollout(name))?.clone();
    let have = told(fleet, &active, |host| may(&active, host));
    let id = active.id.clone();
    end(fleet, active, have, by, now);
    Ok(Accepted::Rollout(id))
}

/// Whether nothing on a host speaks against the release.
fn works(active: &Rollout, host: &HostName) -> bool {
    !active.evidence.iter().any(|evidence| evidence.host == *host)
}

/// Ends the active rollout in favour of another one. A host on which the release works keeps it until its turn comes.
pub(super) fn give_way(fleet: &mut Fleet, name: &ServiceName, by: &str, now: Moment) -> Option<RolloutId> {
    let active = fleet.active_rollout(name)?.clone();
    let id = active.id.clone();
    let have = match active.direction {
        Direction::Forward => told(fleet, &active, |host| works(&active, host)),
        Direction::Back => Vec::new(),
    };
    end(fleet, active, have, by, now);
    Some(id)
}

/// The hosts of a service that were told to run the rollout's release, and may keep it. None in a preview: the old one serves.
fn told(fleet: &Fleet, active: &Rollout, may: impl Fn(&HostName) -> bool) -> Vec<HostName> {
    if active.is_previewed() {
        return Vec::new();
    }
    let was_told = |host: &&HostName| {
        fleet.hosts.get(*host).is_some_and(|host| {
            let mut instances = host.issued.instances.iter().filter(|(key, _)| key.service == active.service);
            instances.any(|(_, instance)| instance.release == active.to)
        })
    };
    active.hosts.iter().filter(was_told).filter(|host| may(host)).cloned().collect()
}

fn end(fleet: &mut Fleet, mut rollout: Rollout, have: Vec<HostName>, by: &str, now: Moment) {
    let Some(service) = fleet.services.get_mut(&rollout.service) else { return };
    let lack = service.hosts.iter().filter(|host| !have.contains(host));
    let why = "the rollout was ended before it had the release";
    rollout.left_out = lack.map(|host| LeftOut { host: host.clone(), by: by.to_owned(), why: why.to_owned() }).collect();
    rollout.state = RolloutState::Partial;
    rollout.turned = Some(Turned::Operator { by: by.to_owned() });
    (rollout.pause, rollout.wave_done) = (None, None);
    (rollout.progressed, rollout.ended) = (now, Some(now));
    let kept = |host| (host, Kept { release: rollout.to, by: by.to_owned() });
    if service.committed == Some(rollout.to) {
        service.orders.kept.retain(|host, _| !have.contains(host));
    } else {
        service.orders.kept.extend(have.into_iter().filter(|host| service.hosts.contains(host)).map(kept));
    }
    fleet.rollouts.insert(rollout.id.clone(), rollout);
}
