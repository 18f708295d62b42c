//! Hooks that went wrong, or may have: only people say what happens then.

use super::super::hooks::{self, Hooks};
use super::super::{Rollout, RolloutState};
use super::{Accepted, known, known_mut};
use crate::fleet::hooks::{HookRun, HookState};
use crate::fleet::orders::Order;
use crate::fleet::{Fleet, Service};
use crate::hook::{HookKey, Of, Point};
use crate::name::{HostName, ReleaseId, ServiceName};
use crate::problem::{Code, Problem};
use crate::time::Moment;

/// A rollout does not go on while one of its hooks went wrong: that is for the words that name it.
pub(super) fn none_is_broken(fleet: &Fleet, name: &ServiceName) -> Result<(), Problem> {
    let (Some(service), Some(active)) = (fleet.services.get(name), fleet.active_rollout(name)) else { return Ok(()) };
    let Some((key, _, problem)) = hooks::broken(service, active) else { return Ok(()) };
    Err(Problem::new(Code(806), format!("{} of {name} has not been run to a good end", key.point))
        .saw("hook", problem.to_string())
        .help(hooks::way_on(key)))
}

/// Whether another attempt of some hook would be a try again: of the rollout under way, or of the release that is begun anew.
pub(super) fn any_to_retry(fleet: &Fleet, name: &ServiceName, again: Option<ReleaseId>) -> bool {
    let active = fleet.active_rollout(name);
    fleet.services.get(name).is_some_and(|service| service.hooks.iter().any(|(key, run)| is_meant(key, run, active, again)))
}

fn is_meant(key: &HookKey, run: &HookRun, active: Option<&Rollout>, again: Option<ReleaseId>) -> bool {
    let of_rollout = active.is_some_and(|active| hooks::is_of(key, active));
    let of_release = matches!(key.of, Of::Release(release) if Some(release) == again);
    run.state.problem().is_some() && (of_rollout || of_release)
}

/// Asks for another attempt of every hook that went wrong: on the host of the one before, as long as it is able to.
pub(super) fn retry(fleet: &mut Fleet, name: &ServiceName, begun: Option<&Rollout>, now: Moment) {
    let Some(service) = fleet.services.get(name) else { return };
    let Some(rollout) = begun.or_else(|| fleet.active_rollout(name)) else { return };
    let again = Hooks { fleet, service, rollout, now };
    let meant = service.hooks.iter().filter(|(key, run)| is_meant(key, run, Some(rollout), Some(rollout.to)));
    let anew = |(key, run): (&HookKey, &HookRun)| {
        let (host, attempt) = (again.again(key, run), run.attempt.saturating_add(1));
        let (cuts_off, earlier) = (again.cuts_off(key).and(&run.cuts_off), run.cuts_off.clone());
        (key.clone(), HookRun { host, cuts_off, earlier, attempt, state: HookState::Asked, since: now, ..run.clone() })
    };
    let anew: Vec<(HookKey, HookRun)> = meant.map(anew).collect();
    if let Some(service) = fleet.services.get_mut(name) {
        service.hooks.extend(anew);
    }
}

/// Takes a person's word that a hook did happen.
pub(super) fn vouch(
    fleet: &mut Fleet,
    name: &ServiceName,
    (point, host): (Point, Option<HostName>),
    order: &Order,
) -> Result<Accepted, Problem> {
    let meant: Vec<HookKey> = open(fleet, known(fleet, name)?, name, point, host.as_ref());
    if meant.is_empty() {
        return Err(Problem::new(Code(807), format!("no {point} of {name} waits for anybody's word"))
            .help(format!("baton why {name} says what is waited for")));
    }
    let service = known_mut(fleet, name)?;
    for key in &meant {
        if let Some(run) = service.hooks.get_mut(key) {
            run.state = HookState::Vouched { by: order.by.clone(), why: order.why.clone() };
        }
    }
    let Some(active) = fleet.active_rollout(name) else { return Ok(Accepted::Noted) };
    let still = fleet.services.get(name).is_some_and(|service| hooks::broken(service, active).is_some());
    let goes_on = !still
        && active.state == RolloutState::Paused
        && active.evidence.is_empty()
        && active.pause.as_ref().is_some_and(|pause| pause.by == "baton");
    super::change(fleet, name, order.since, |rollout| {
        if goes_on {
            super::steer::go_on(rollout);
        }
        Ok(())
    })
}

/// The hooks at a point, of one host or of any, of which nobody knows that they were run to a good end.
fn open(fleet: &Fleet, service: &Service, name: &ServiceName, point: Point, host: Option<&HostName>) -> Vec<HookKey> {
    let active = fleet.active_rollout(name);
    let concerns = |key: &HookKey| match key.of {
        Of::Release(_) => true,
        Of::Rollout(_) => active.is_some_and(|active| hooks::is_of(key, active)),
    };
    let meant = service.hooks.iter().filter(|(key, run)| {
        key.point == point && !run.state.is_good() && concerns(key) && host.is_none_or(|host| run.host == *host)
    });
    meant.map(|(key, _)| key.clone()).collect()
}
