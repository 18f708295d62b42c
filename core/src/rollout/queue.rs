//! Deploys that wait their turn: the next one begins when the rollout before has ended, and nothing forbids it.

use super::Rollout;
use super::command::{Deploy, begin, objections};
use super::hooks;
use super::waiting::Reason;
use crate::fleet::orders::{Freeze, Queued};
use crate::fleet::{Fleet, Service};
use crate::name::ServiceName;
use crate::strategy::Strategy;
use crate::time::Moment;

/// The freeze that holds a service now: its own, or that of the whole fleet.
#[must_use]
pub fn freeze<'a>(fleet: &'a Fleet, service: Option<&'a Service>, now: Moment) -> Option<&'a Freeze> {
    let own = service.and_then(|service| service.orders.freeze.as_ref());
    own.into_iter().chain(&fleet.freeze).find(|freeze| freeze.holds(now))
}

/// Begins the first deploy in the queue of a service without a rollout, and takes it out of the queue.
///
/// # Errors
/// Why the first one cannot begin, though nothing is under way.
pub fn take_turn(fleet: &Fleet, name: &ServiceName, service: &mut Service, now: Moment) -> Result<Option<Rollout>, Reason> {
    let Some(first) = service.orders.queue.first() else { return Ok(None) };
    if let Some(Freeze { order, .. }) = freeze(fleet, Some(service), now) {
        return Err(Reason::Frozen { by: order.by.clone(), why: order.why.clone() });
    }
    let Queued { id, shape, release, by, .. } = first.clone();
    let Some(document) = fleet.releases.get(&release) else { return Ok(None) };
    let deploy = Deploy::new(id, name.clone(), (*shape).clone(), document.clone(), by);
    if let Some(problem) = objections(fleet, &deploy, now).into_iter().find(|problem| problem.code.0 != 701) {
        return Err(Reason::Refused { problem });
    }
    // Who queued a deploy looked at the service as it was then: what has begun to ask for two people since does so here, too.
    let asked = service.strategy.second_person;
    let orders = &mut service.orders;
    orders.queue.remove(0);
    *service = deploy.shape_over(Some(service));
    service.warm = None;
    service.past.ask_for(release);
    hooks::forget_past(&mut service.hooks);
    let second_person = service.strategy.second_person || asked;
    let to = (release, Strategy { second_person, ..service.strategy.clone() });
    Ok(Some(begin(fleet, deploy.id, name, service, to, deploy.by, now)))
}
