//! Holding a rollout, letting it go on, trying again, leaving a host out.

use super::super::aside::aside;
use super::super::progress::Standing;
use super::super::queue;
use super::super::{Consent, Direction, Rollout, RolloutState, gate, plan, progress};
use super::hooks;
use super::{Accepted, begin, change, frozen, known, known_mut, not_of_service};
use crate::fleet::orders::Order;
use crate::fleet::report::InstanceReport;
use crate::fleet::spec::InstanceSpec;
use crate::fleet::{Fleet, Service};
use crate::name::{HostName, RolloutId, ServiceName};
use crate::problem::{Code, Problem};
use crate::strategy::OnFailure;
use crate::time::Moment;

pub(super) fn pause(
    fleet: &mut Fleet,
    name: &ServiceName,
    by: String,
    why: String,
    now: Moment,
) -> Result<Accepted, Problem> {
    change(fleet, name, now, |rollout| {
        if rollout.state != RolloutState::Paused {
            progress::pause(rollout, by, why);
        }
        Ok(())
    })
}

pub(super) fn resume(fleet: &mut Fleet, name: &ServiceName, by: &str, now: Moment) -> Result<Accepted, Problem> {
    hooks::none_is_broken(fleet, name)?;
    change(fleet, name, now, |rollout| {
        if rollout.state != RolloutState::Paused {
            return Ok(());
        }
        consent(rollout, by)?;
        let speaks_against = rollout.evidence.first().filter(|_| rollout.direction == Direction::Forward);
        if let (Some(evidence), OnFailure::Pause) = (speaks_against, rollout.strategy.on_failure) {
            return Err(Problem::new(Code(707), format!("{} did not work on {}", rollout.service, evidence.host))
                .saw("evidence", evidence.problem.to_string())
                .help(format!(
                    "baton retry {0}, baton skip {0} {1}, or baton rollback {0}",
                    rollout.service, evidence.host
                )));
        }
        go_on(rollout);
        Ok(())
    })
}

/// Ends a pause, unless another person's word is still awaited: no other command stands for it.
pub(super) fn go_on(rollout: &mut Rollout) {
    if rollout.consent == Consent::Awaited {
        return;
    }
    rollout.state = match rollout.direction {
        Direction::Forward => RolloutState::Running,
        Direction::Back => RolloutState::Reverting,
    };
    rollout.pause = None;
}

/// Takes a person's word for the other one that a rollout waits for.
fn consent(rollout: &mut Rollout, by: &str) -> Result<(), Problem> {
    if rollout.consent != Consent::Awaited {
        return Ok(());
    }
    if rollout.by == by {
        return Err(Problem::new(Code(736), format!("{} needs the word of another person than {by}", rollout.service))
            .saw("manifest", "rollout.second_person = true")
            .help(format!("somebody else: baton resume {0}. To give it up: baton abort {0}", rollout.service)));
    }
    rollout.consent = Consent::Given { by: by.to_owned() };
    Ok(())
}

/// Lets a rollout pass its approval, or ends the watch of its wave.
pub(super) fn promote(fleet: &mut Fleet, name: &ServiceName, by: &str, now: Moment) -> Result<Accepted, Problem> {
    if fleet.active_rollout(name).is_some_and(|rollout| rollout.consent == Consent::Awaited) {
        return resume(fleet, name, by, now);
    }
    let standings = plan::standings(fleet, name, now);
    change(fleet, name, now, |rollout| let_through(rollout, &standings, now))
}

fn let_through(rollout: &mut Rollout, standings: &[Standing], now: Moment) -> Result<(), Problem> {
    let name = &rollout.service;
    let unproven = gate::is_paused_for_evidence(rollout);
    let goes_forward = (rollout.state == RolloutState::Running || unproven) && rollout.direction == Direction::Forward;
    let through = match progress::asks_for(rollout, standings, now) {
        Some(wave) => wave + 1,
        None if rollout.wave_done.is_some() => rollout.wave + 2,
        None => 0,
    };
    if !goes_forward || through == 0 {
        let is_paused = rollout.state == RolloutState::Paused;
        let verb = if is_paused { "resume" } else { "why" };
        let is = match () {
            () if goes_forward => format!("in wave {}", rollout.wave + 1),
            () if is_paused => "paused".to_owned(),
            () => "going back".to_owned(),
        };
        return Err(Problem::new(Code(728), format!("the rollout of {name} waits for nobody's word"))
            .saw("it is", is)
            .help(format!("baton {verb} {name}")));
    }
    rollout.promoted = through;
    if unproven {
        go_on(rollout);
    }
    Ok(())
}

/// Tries again what failed, and takes hosts back in that were skipped: one, or all.
pub(super) fn retry(
    fleet: &mut Fleet,
    id: RolloutId,
    name: &ServiceName,
    host: Option<&HostName>,
    by: &str,
    now: Moment,
) -> Result<Accepted, Problem> {
    let service = known(fleet, name)?;
    if let Some(host) = host.filter(|host| !service.hosts.contains(host)) {
        return Err(not_of_service(name, service, host));
    }
    let meant = |other: &HostName| host.is_none_or(|host| host == other);
    let skipped: Vec<HostName> = service.orders.skipped.keys().filter(|host| meant(host)).cloned().collect();
    let failed = failed_hosts(fleet, name).into_iter().filter(|host| meant(host)).collect::<Vec<_>>();
    let again = ended_short(fleet, name, service).filter(|_| host.is_none());
    let is_paused = |rollout: &Rollout| rollout.state == RolloutState::Paused;
    let paused = fleet.active_rollout(name).is_some_and(is_paused) && host.is_none();
    let hooks_failed = host.is_none() && hooks::any_to_retry(fleet, name, again);
    let gave_up = if again.is_none() { gave_up(fleet, name, meant) } else { Vec::new() };
    if skipped.is_empty() && failed.is_empty() && gave_up.is_empty() && again.is_none() && !paused && !hooks_failed {
        return Err(Problem::new(Code(715), format!("nothing of {name} failed, and no host is skipped"))
            .help(format!("baton why {name}")));
    }
    if let Some(freeze) = queue::freeze(fleet, Some(service), now).filter(|_| again.is_some()) {
        return Err(frozen(fleet, name, freeze, now));
    }
    let begin = |to| begin::begin(fleet, id.clone(), name, service, (to, service.strategy.clone()), by.to_owned(), now);
    let begun = again.map(begin);
    let next_start = super::renew::next_start(fleet, name);
    if hooks_failed {
        hooks::retry(fleet, name, begun.as_ref(), now);
    }
    let service = known_mut(fleet, name)?;
    service.orders.skipped.retain(|host, _| !skipped.contains(host));
    if let Some(rollout) = begun {
        return Ok(Accepted::Rollout(begin::put(fleet, rollout, None)));
    }
    if fleet.active_rollout(name).is_none() {
        return match gave_up.as_slice() {
            [] => Ok(Accepted::Noted),
            hosts => match super::renew::only(fleet, id, name, hosts, by.to_owned(), now) {
                // What else was asked for is done; the others are as they were.
                Err(_) if !skipped.is_empty() || hooks_failed => Ok(Accepted::Noted),
                begun => begun,
            },
        };
    }
    change(fleet, name, now, |rollout| {
        gate::forgive(rollout, &failed);
        rollout.evidence.retain(|evidence| !failed.contains(&evidence.host));
        rollout.starts.extend(failed.iter().map(|host| (host.clone(), next_start)));
        if rollout.state == RolloutState::Paused && rollout.evidence.is_empty() {
            consent(rollout, by)?;
            go_on(rollout);
        }
        Ok(())
    })
}

/// The hosts on which the release under way failed, and where it may be tried again: going back tries by itself.
fn failed_hosts(fleet: &Fleet, name: &ServiceName) -> Vec<HostName> {
    let active = fleet.active_rollout(name).filter(|rollout| rollout.direction == Direction::Forward);
    active.into_iter().flat_map(|rollout| &rollout.evidence).map(|evidence| evidence.host.clone()).collect()
}

/// The hosts that gave the live release up, and run what they fell back to until somebody has it started anew.
fn gave_up(fleet: &Fleet, name: &ServiceName, meant: impl Fn(&HostName) -> bool) -> Vec<HostName> {
    let Some(service) = fleet.services.get(name).filter(|_| fleet.active_rollout(name).is_none()) else { return Vec::new() };
    let fell_back = |host: &&HostName| {
        let Some((known, report)) = fleet.hosts.get(*host).and_then(|known| Some((known, known.echoed()?))) else {
            return false;
        };
        let mut told = known.issued.instances.iter().filter(|(key, _)| key.service == *name);
        let gave_up = |it: &InstanceReport, told: &InstanceSpec| told.fallback == Some(it.release) && it.start == told.start;
        told.any(|(key, told)| report.instances.get(key).is_some_and(|it| gave_up(it, told)))
    };
    let drained = |host: &HostName| fleet.hosts.get(host).is_some_and(|known| known.maintenance.is_some());
    service.hosts.iter().filter(|host| meant(host) && !drained(host)).filter(fell_back).cloned().collect()
}

/// The release of the last rollout, when that ended without bringing it everywhere it should be.
fn ended_short(fleet: &Fleet, name: &ServiceName, service: &Service) -> Option<crate::name::ReleaseId> {
    if fleet.active_rollout(name).is_some() {
        return None;
    }
    let last = fleet.latest_rollout(name)?;
    let short = matches!(last.state, RolloutState::Reverted | RolloutState::Failed | RolloutState::Partial);
    (short && service.committed != Some(last.to)).then_some(last.to)
}

/// Leaves a host out of rollouts by name. It is left as it is, until it is taken back in.
pub(super) fn skip(fleet: &mut Fleet, name: &ServiceName, host: &HostName, order: Order) -> Result<Accepted, Problem> {
    let service = known(fleet, name)?;
    if !service.hosts.contains(host) {
        return Err(not_of_service(name, service, host));
    }
    if service.orders.skipped.contains_key(host) {
        return Ok(Accepted::Unchanged);
    }
    let others = service.hosts.iter().filter(|other| *other != host && aside(fleet, service, other).is_none());
    if others.count() == 0 {
        return Err(Problem::new(Code(713), format!("without {host} nobody of {name} would take part"))
            .help(format!("baton rollback {name}")));
    }
    let now = order.since;
    known_mut(fleet, name)?.orders.skipped.insert(host.clone(), order);
    if fleet.active_rollout(name).is_none() {
        return Ok(Accepted::Noted);
    }
    change(fleet, name, now, |rollout| {
        move_last(rollout, host);
        let failed_here = rollout.evidence.iter().any(|evidence| evidence.host == *host);
        rollout.evidence.retain(|evidence| evidence.host != *host);
        if !rollout.renews() {
            rollout.starts.remove(host);
        }
        let paused_itself =
            rollout.state == RolloutState::Paused && rollout.pause.as_ref().is_some_and(|it| it.by == "baton");
        if paused_itself && failed_here && rollout.evidence.is_empty() {
            go_on(rollout);
        }
        Ok(())
    })
}

/// A host that stands aside comes last, so that no wave is done because nobody is in it.
pub(super) fn move_last(rollout: &mut Rollout, host: &HostName) {
    if let Some(position) = rollout.hosts.iter().position(|other| other == host) {
        let host = rollout.hosts.remove(position);
        rollout.hosts.push(host);
    }
}
